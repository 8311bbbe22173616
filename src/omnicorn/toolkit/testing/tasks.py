"""A coroutine in a task of its own, on asyncio or on trio, and waiting for what it does.

What this file alone decides: how the two libraries spawn, wake, wait and cancel; the rest of
the package knows neither. Both sides of a conversation, the test and the application, wait in
`until` for a condition on what they share; whoever changes that says `wake`.

1. The task starts in an empty `Context`: a test's variables are not the application's.
2. Whatever escapes from the coroutine is kept in ``error``; nothing reaches the library.
3. Every `until` gives way at least once, so that nobody spins without the other being heard.

trio's task is a system task: a nursery would have to be closed where it was opened, and would
wrap the exceptions of the test in groups.
"""

from __future__ import annotations

import asyncio
import math
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

from omnicorn.toolkit.libraries import current_trio_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import trio

    Main = Callable[[], Coroutine[Any, Any, object]]


class Task(Protocol):
    """A coroutine that runs once it was started.

    Attributes:
        done: It has ended.
        error: What it ended with, unless it was cancelled from here.
    """

    done: bool
    error: BaseException | None

    def start(self, main: Main) -> None:
        """Run *main*, which may come to its first wait within this call."""

    def wake(self) -> None:
        """Let all that wait in `until` look again."""

    async def until(self, ready: Callable[[], object], timeout: float) -> bool:
        """Wait up to *timeout* seconds until *ready* gives something true; returns if it did."""

    async def cancel(self, timeout: float) -> None:
        """Cancel it, and wait up to *timeout* seconds for its end."""


def new_task() -> Task:
    """A task of the library that runs."""
    return AsyncioTask() if current_trio_loop() is None else TrioTask()


class AsyncioTask:
    """A `Task` of asyncio."""

    def __init__(self) -> None:
        self.done = False
        self.error: BaseException | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._cancelled = False

    def start(self, main: Main) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(main), context=Context())

    async def _run(self, main: Main) -> None:
        try:
            await main()
        except asyncio.CancelledError as exc:
            if not self._cancelled:
                self.error = exc
            raise
        except BaseException as exc:
            self.error = exc
        finally:
            self.done = True
            self.wake()

    def wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, ready: Callable[[], object], timeout: float) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None if timeout == math.inf else timeout):
                await asyncio.sleep(0)
                while not ready():
                    waiter = loop.create_future()
                    self._waiters.append(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.remove(waiter)
        except TimeoutError:
            return bool(ready())
        return True

    async def cancel(self, timeout: float) -> None:
        self._cancelled = True
        self._task.cancel()
        await asyncio.wait((self._task,), timeout=timeout)
        # A task that is cancelled before its first step never gets to `_run`.
        self.done = self._task.done()


class TrioTask:
    """A `Task` of trio."""

    def __init__(self) -> None:
        import trio

        self.done = False
        self.error: BaseException | None = None
        self._waiters: list[trio.Event] = []
        self._scope = trio.CancelScope()

    def start(self, main: Main) -> None:
        import trio

        trio.lowlevel.spawn_system_task(self._run, main, context=Context())

    async def _run(self, main: Main) -> None:
        import trio

        try:
            with self._scope:
                await main()
        except trio.Cancelled:  # at the end of the run
            raise
        except BaseException as exc:
            self.error = exc
        finally:
            self.done = True
            self.wake()

    def wake(self) -> None:
        for waiter in self._waiters:
            waiter.set()

    async def until(self, ready: Callable[[], object], timeout: float) -> bool:
        import trio

        with trio.move_on_after(timeout):
            await trio.lowlevel.checkpoint()
            while not ready():
                waiter = trio.Event()
                self._waiters.append(waiter)
                try:
                    await waiter.wait()
                finally:
                    self._waiters.remove(waiter)
            return True
        return bool(ready())

    async def cancel(self, timeout: float) -> None:
        import trio

        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self.until(lambda: self.done, timeout)
