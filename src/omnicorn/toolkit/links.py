"""A link from the thread that serves one request to the event loop that waits for it.

What this file alone decides: how a step (a coroutine function) gets from such a thread into its
loop, asyncio's or trio's, and what becomes of steps and threads when the request is over.

1. `call` and `post` are for the thread, everything else for the event loop.
2. Once the link is closed no step begins, those under way are cancelled, and a thread that waits
   for one gets an OSError; none stays blocked.
3. A cancellation is not the thread's to see or to keep: it gets the same OSError, and whatever it
   makes of that, `linked` ends cancelled.
4. Steps that were posted are waited for by `drain`, which raises what the last of them raised.
"""

from __future__ import annotations

import asyncio
import queue
from typing import TYPE_CHECKING, Any

from omnicorn.toolkit.libraries import current_trio_loop
from omnicorn.toolkit.sync import AsyncToSync
from omnicorn.toolkit.threads import pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from omnicorn.toolkit.libraries import TrioLoop

    Step = Callable[..., Coroutine[Any, Any, Any]]
    Reply = queue.SimpleQueue[tuple[Any, BaseException | None]]

__all__ = ["Link", "linked"]

PATIENCE = 60.0
"""Seconds after which a thread that waits looks whether the loop is still there."""


async def linked(serve: Callable[[Link], Awaitable[None]], thread_sensitive: bool) -> None:
    """Await *serve* with a link to the event loop that runs here, and close that at its end.

    Args:
        serve: Called with the link; what it raises is raised.
        thread_sensitive: Other sync code may need the thread while it waits for a step. Then
            `async_to_sync` has to do the waiting, which takes longer.
    """
    trio_loop = current_trio_loop()
    if trio_loop is None:
        await _linked_on_asyncio(serve, thread_sensitive)
    else:
        await _linked_on_trio(trio_loop, serve, thread_sensitive)


async def _linked_on_asyncio(
    serve: Callable[[Link], Awaitable[None]], thread_sensitive: bool
) -> None:
    link = _AsyncioLink(thread_sensitive)
    try:
        await serve(link)
    except _RequestOver:
        await link.check()
        raise
    finally:
        link.close()
    await link.check()


async def _linked_on_trio(
    trio_loop: TrioLoop, serve: Callable[[Link], Awaitable[None]], thread_sensitive: bool
) -> None:
    failure: Exception | None = None
    async with trio_loop.trio.open_nursery() as nursery:
        link = _TrioLink(trio_loop, nursery, thread_sensitive)
        try:
            await serve(link)
        except Exception as error:  # kept out of the nursery's exception group
            failure = error
        finally:
            link.close()
    try:
        if failure is None or isinstance(failure, _RequestOver):
            await link.check()
        if failure is not None:
            raise failure
    finally:
        del failure  # no cycle through the traceback


class _RequestOver(ConnectionAbortedError):
    """What a thread gets from a link that is closed."""


class Link:
    """The way of one request's thread to its event loop; made by `linked`."""

    __slots__ = ("_closed", "_failure", "_loop", "_thread_sensitive")

    _cancelled: type[BaseException]
    """What the library raises in a task that is cancelled."""

    def __init__(self, loop: asyncio.AbstractEventLoop | TrioLoop, thread_sensitive: bool) -> None:
        self._loop = loop
        self._thread_sensitive = thread_sensitive
        self._closed = False
        self._failure: Exception | None = None  # of a posted step

    # ------------------------------------------------------------------ in the thread

    def call(self, step: Step, *args: Any) -> Any:
        """Run a step in the event loop, and wait for its result.

        Raises:
            OSError: The request is over.
            Exception: What the step raised.
        """
        if self._closed:
            raise _request_over()
        if self._thread_sensitive:
            return self._call_as_sync_code(step, args)
        reply: Reply = queue.SimpleQueue()
        self._hand_over(step, args, reply)
        # Does not count as running, or the step could wait for a thread that will not be free.
        parked = pool.park()
        try:
            result, error = self._wait_for(reply)
        finally:
            if parked:
                pool.unpark()
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # no cycle through the traceback

    def _call_as_sync_code(self, step: Step, args: tuple[Any, ...]) -> Any:
        try:
            return AsyncToSync(self._run_for_sync_code)(step, args)
        except self._cancelled:
            # The request's own cancellation comes once: what is called now would never end.
            self._closed = True
        raise _request_over()

    def post(self, step: Step, *args: Any) -> None:
        """Run a step in the event loop; does not wait for it, unless thread-sensitive.

        Raises:
            OSError: The request is over.
        """
        if self._thread_sensitive:
            self.call(step, *args)
            return
        if self._closed:
            raise _request_over()
        self._hand_over(step, args, None)

    def _hand_over(self, step: Step, args: tuple[Any, ...], reply: Reply | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._start, step, args, reply)
        except RuntimeError:  # the loop has ended
            raise _request_over() from None

    def _wait_for(self, reply: Reply) -> tuple[Any, BaseException | None]:
        while True:
            try:
                return reply.get(timeout=PATIENCE)
            except queue.Empty:
                # Only a loop that was stopped and dropped never answers.
                if self._closed or self._loop.is_closed():
                    return None, _request_over()

    # ------------------------------------------------------------------ in the event loop

    def _start(self, step: Step, args: tuple[Any, ...], reply: Reply | None) -> None:
        if not self._closed:
            self._start_task(step, args, reply)
        elif reply is not None:
            reply.put((None, _request_over()))

    def _start_task(self, step: Step, args: tuple[Any, ...], reply: Reply | None) -> None:
        raise NotImplementedError

    async def _run_for_sync_code(self, step: Step, args: tuple[Any, ...]) -> Any:
        """Run a step in the task in which `AsyncToSync` awaits this."""
        raise NotImplementedError

    async def _run(self, step: Step, args: tuple[Any, ...], reply: Reply | None) -> None:
        outcome: tuple[Any, BaseException | None] = None, None
        try:
            outcome = await step(*args), None
        except Exception as error:
            if reply is None:
                self._failure = error
            else:
                outcome = None, error
        except BaseException:  # cancelled; which must not surface in the application's thread
            outcome = None, _request_over()
            raise
        finally:
            if reply is not None:
                reply.put(outcome)
            del outcome  # no cycle through the traceback

    def spawn(self, step: Step) -> None:
        """Run a step, which raises nothing, until `close`."""
        raise NotImplementedError

    async def check(self) -> None:
        """Once the thread has returned: raise the cancellation that it may have swallowed."""
        raise NotImplementedError

    async def drain(self) -> None:
        """Wait for the steps that were posted.

        Raises:
            Exception: What one of them raised.
        """
        await self._idle()
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # no cycle through the traceback

    async def _idle(self) -> None:
        """Wait until no step is under way."""
        raise NotImplementedError

    def close(self) -> None:
        """The request is over: cancel all steps, and let no more begin."""
        raise NotImplementedError


def _request_over() -> OSError:
    return _RequestOver("the request is over: it was cancelled, or has been answered")


class _AsyncioLink(Link):
    __slots__ = ("_background", "_before", "_task", "_tasks")
    _loop: asyncio.AbstractEventLoop
    _cancelled = asyncio.CancelledError

    def __init__(self, thread_sensitive: bool) -> None:
        super().__init__(asyncio.get_running_loop(), thread_sensitive)
        task: Any = asyncio.current_task()
        self._task = task
        self._before: int = task.cancelling()
        self._tasks: set[asyncio.Task[None]] = set()
        self._background: list[asyncio.Task[None]] = []

    def _start_task(self, step: Step, args: tuple[Any, ...], reply: Reply | None) -> None:
        task = self._loop.create_task(self._run(step, args, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_for_sync_code(self, step: Step, args: tuple[Any, ...]) -> Any:
        # Where the request's loop has stopped, `AsyncToSync` makes another one.
        if self._closed or asyncio.get_running_loop() is not self._loop:
            raise _request_over()
        task: Any = asyncio.current_task()
        self._tasks.add(task)
        try:
            return await step(*args)
        finally:
            self._tasks.discard(task)

    def spawn(self, step: Step) -> None:
        self._background.append(self._loop.create_task(step()))

    async def check(self) -> None:
        if self._task.cancelling() > self._before:
            raise asyncio.CancelledError

    async def _idle(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        self._closed = True
        for task in (*self._tasks, *self._background):
            task.cancel()


class _TrioLink(Link):
    __slots__ = ("_cancelled", "_count", "_nursery", "_scopes", "_without_steps")
    _loop: TrioLoop

    def __init__(self, loop: TrioLoop, nursery: Any, thread_sensitive: bool) -> None:
        super().__init__(loop, thread_sensitive)
        self._cancelled = loop.trio.Cancelled
        self._nursery = nursery
        self._scopes: set[Any] = set()  # of steps in the tasks of `AsyncToSync`
        self._count = 0  # of steps under way
        self._without_steps = loop.trio.Event()

    def _start_task(self, step: Step, args: tuple[Any, ...], reply: Reply | None) -> None:
        self._count += 1
        self._nursery.start_soon(self._run, step, args, reply)

    async def _run(self, step: Step, args: tuple[Any, ...], reply: Reply | None) -> None:
        try:
            await super()._run(step, args, reply)
        finally:
            self._count -= 1
            if not self._count:
                self._without_steps.set()

    async def _run_for_sync_code(self, step: Step, args: tuple[Any, ...]) -> Any:
        # Where the request's run has ended, `AsyncToSync` makes a loop of asyncio.
        if self._closed or current_trio_loop() != self._loop:
            raise _request_over()
        with self._loop.trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                return await step(*args)
            finally:
                self._scopes.discard(scope)
        raise _request_over()

    def spawn(self, step: Step) -> None:
        self._nursery.start_soon(step)

    async def check(self) -> None:
        await self._loop.trio.lowlevel.checkpoint_if_cancelled()

    async def _idle(self) -> None:
        while self._count:
            self._without_steps = self._loop.trio.Event()
            await self._without_steps.wait()

    def close(self) -> None:
        self._closed = True
        self._nursery.cancel_scope.cancel()
        for scope in self._scopes:
            scope.cancel()
