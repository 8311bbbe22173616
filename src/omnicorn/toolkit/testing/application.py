"""asgiref's `ApplicationCommunicator`: an application in an asyncio task, a queue each way.

What this file alone decides: nothing. It keeps the behaviour that test suites and subclasses
(Channels' communicators among them) rely on:

1. Nothing is bound to a loop before it is first used: a communicator may be made anywhere.
2. The application starts with the first use of a queue's content, in an empty `Context`.
3. An application that failed raises its exception out of the next call.
4. A call that timed out has cancelled the application.

Better than there: an application that fails while `receive_output` waits is noticed at once,
a timeout says what the application was doing, and a cancelled `wait` stays cancelled.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any

from omnicorn.toolkit.compatibility import guarantee_single_callable

if TYPE_CHECKING:
    from collections.abc import Callable


class ApplicationCommunicator:
    """Runs an application for a test that plays the server, event by event; asyncio only.

    Args:
        application: An ASGI 3 or ASGI 2 application.
        scope: The scope to call it with, as it is.
    """

    def __init__(self, application: Callable[..., Any], scope: Any) -> None:
        self._future: asyncio.Future[Any] | None = None
        self._input_queue: asyncio.Queue[Any] | None = None
        self._output_queue: asyncio.Queue[Any] | None = None
        self.application: Any = guarantee_single_callable(application)
        self.scope = scope

    @property
    def input_queue(self) -> asyncio.Queue[Any]:
        """What the application will receive."""
        if self._input_queue is None:
            self._input_queue = asyncio.Queue()
        return self._input_queue

    @property
    def output_queue(self) -> asyncio.Queue[Any]:
        """What the application has sent."""
        if self._output_queue is None:
            self._output_queue = asyncio.Queue()
        return self._output_queue

    @property
    def future(self) -> asyncio.Future[Any]:
        """The application's task; reading this starts it."""
        if self._future is None:
            # The test's context variables are not the application's.
            self._future = asyncio.get_running_loop().create_task(
                self.application(self.scope, self.input_queue.get, self.output_queue.put),
                context=Context(),
            )
        return self._future

    async def send_input(self, message: Any) -> None:
        """Give the application an event.

        Raises:
            BaseException: The application's own, if it has failed.
        """
        self._raise_failure()
        await self.input_queue.put(message)

    async def receive_output(self, timeout: float | None = 1) -> Any:
        """Wait up to *timeout* seconds for an event from the application.

        Raises:
            TimeoutError: None came; the application has been cancelled.
            BaseException: The application's own, if it has failed.
        """
        self._raise_failure()
        future, queue = self.future, self.output_queue
        loop = asyncio.get_running_loop()

        def hurry(_: object) -> None:
            # One that returned may have left tasks behind that still send.
            if not future.cancelled() and future.exception() is not None:
                try:
                    limit.reschedule(loop.time())
                except RuntimeError:
                    pass  # the wait is over already

        try:
            async with asyncio.timeout(timeout) as limit:
                future.add_done_callback(hurry)
                return await queue.get()
        except TimeoutError:
            pass
        finally:
            future.remove_done_callback(hurry)
        was_done = future.done()
        if not was_done:
            future.cancel()
            await asyncio.wait((future,))
        if not future.cancelled():
            future.result()
        raise TimeoutError(
            f"the application sent nothing within {timeout} s"
            + (": it has returned" if was_done else "; it has been cancelled")
        )

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """Whether no event comes within *timeout* seconds, looking every *interval* seconds.

        An event that came stays in the queue.
        """
        loop = asyncio.get_running_loop()
        # `future` starts an application that only then has something to say.
        queue, _ = self.output_queue, self.future
        deadline = loop.time() + timeout
        while queue.empty() and loop.time() < deadline:  # noqa: ASYNC110  (as documented)
            await asyncio.sleep(interval)
        return queue.empty()

    async def wait(self, timeout: float | None = 1) -> None:
        """Wait up to *timeout* seconds for the application to end, then cancel it.

        Raises:
            BaseException: The application's own; its cancellation is none.
        """
        future = self.future
        try:
            await asyncio.wait((future,), timeout=timeout)
        finally:
            if not future.done():
                future.cancel()
                await asyncio.wait((future,))
        if not future.cancelled():
            future.result()

    def stop(self, exceptions: bool = True) -> None:
        """Cancel the application if it runs.

        Args:
            exceptions: Raise its exception if it has ended with one.
        """
        future = self._future
        if future is None:
            return
        if not future.done():
            future.cancel()
        elif exceptions:
            future.result()

    def __del__(self) -> None:
        try:
            self.stop(exceptions=False)
        except (AttributeError, RuntimeError):
            pass  # half made, or the loop is closed and the task gone with it

    def _raise_failure(self) -> None:
        if self.future.done():
            self.future.result()
