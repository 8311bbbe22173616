"""What the applications need of the library they run on, in that library's own terms.

What this file alone decides: how an application of these tests sleeps, waits and starts a task
beside itself on asyncio and on trio, with nothing but what the library has. An application
that is to run on every loop takes these from here and imports neither library.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine


def tolerate_left_generators() -> None:
    """Starlette closes no stream whose client has left, and trio warns of every such generator."""
    warnings.filterwarnings("ignore", "Async generator .* was garbage collected", ResourceWarning)


def on_trio() -> bool:
    """Whether the caller's task is one of trio's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def _trio() -> Any:
    """The library, which whoever runs on it has imported; others need not pay for that."""
    return sys.modules["trio"]


async def sleep(seconds: float) -> None:
    await (_trio() if on_trio() else asyncio).sleep(seconds)


def event() -> Any:
    """An Event of the library that runs; to be made within it."""
    return _trio().Event() if on_trio() else asyncio.Event()


def cancelled() -> type[BaseException]:
    """What a cancelled task sees raised: ``except cancelled():``."""
    return _trio().Cancelled if on_trio() else asyncio.CancelledError


@contextlib.asynccontextmanager
async def timeout(seconds: float) -> AsyncIterator[None]:
    """Cancel the block after some seconds; raises the library's error of a timeout."""
    if on_trio():
        with _trio().fail_after(seconds):
            yield
    else:
        async with asyncio.timeout(seconds):
            yield


class Beside:
    """A coroutine that runs beside its maker."""

    def __init__(self, task: asyncio.Task[None] | None = None) -> None:
        self._task = task  # on asyncio
        self._ended: Any = None if task else _trio().Event()
        self._error: Exception | None = None

    async def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it, as a task of trio's nursery, and keep its error for who waits."""
        try:
            await coroutine
        except Exception as error:
            self._error = error
        self._ended.set()

    def done(self) -> bool:
        ended: bool = self._task.done() if self._task else self._ended.is_set()
        return ended

    async def wait(self, seconds: float) -> None:
        """Wait for its end, so long at most."""
        if self._task:
            await asyncio.wait((self._task,), timeout=seconds)
        else:
            with _trio().move_on_after(seconds):
                await self._ended.wait()

    async def join(self) -> None:
        """Wait for its end; raises what it raised."""
        if self._task:
            await self._task
        else:
            await self._ended.wait()
            if self._error:
                raise self._error


@contextlib.asynccontextmanager
async def beside(coroutine: Coroutine[Any, Any, None]) -> AsyncIterator[Beside]:
    """Run a coroutine beside the block, at whose end it is cancelled.

    On asyncio a task of ``ensure_future``, on trio one of a nursery; what the block raises
    comes out as it is, in no group.
    """
    if not on_trio():
        task = asyncio.ensure_future(coroutine)
        try:
            yield Beside(task)
        finally:
            task.cancel()
        return
    failure = None
    async with _trio().open_nursery() as nursery:
        running = Beside()
        nursery.start_soon(running.run, coroutine)
        try:
            yield running
        except Exception as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure:
        raise failure
