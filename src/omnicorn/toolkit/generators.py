"""Generators: a sync generator that is iterated asynchronously.

What this file alone decides: when a generator runs in its thread, and how far ahead.

1. It runs only while its consumer waits: nothing is made that nobody has asked for, beyond the
   batch under way, and between batches its thread is free for others.
2. A batch is one item at first. It doubles, up to `MOST`, as long as it takes less than `QUICK`
   seconds, and is one again when it takes longer. It ends when that time is over.
3. An item never waits for a slow successor: when a batch of several takes twice that time, the
   consumer gets what there is, and the rest remains under way. trio has batches of one.
4. The generator's `close` runs in its thread when the iteration ends before the generator does, and
   no item is made after it. A cancelled consumer does not wait for that. As the iterator is an
   asynchronous generator, leaving the loop early is enough, as for any of those.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from omnicorn.toolkit.libraries import Call

__all__ = ["MOST", "QUICK", "ThreadedGenerator"]

T = TypeVar("T")

MOST: Final = 64
"""Items in a batch."""

QUICK: Final = 0.001
"""Seconds that a batch may take."""


class ThreadedGenerator(AsyncIterator[T]):
    """What a generator function wrapped by `sync_to_async` returns: iterate it with ``async for``.

    It can be awaited instead, as with asgiref: that gives the sync generator itself, which runs
    wherever it is iterated then.

    Args:
        make: Makes the generator.
        start: Has something called in the generator's thread.
        call: Makes the generator, in that thread.
    """

    __slots__ = ("_call", "_items")

    def __init__(
        self,
        make: Callable[[], Generator[T, Any, Any]],
        start: Callable[[Callable[[], Any]], Call],
        call: Callable[[], Coroutine[Any, Any, Generator[T, Any, Any]]],
    ) -> None:
        self._call = call
        self._items: AsyncGenerator[T, None] = _iterate(_Source(make, start))

    def __await__(self) -> Generator[Any, Any, Generator[T, Any, Any]]:
        return self._call().__await__()

    def __aiter__(self) -> AsyncGenerator[T, None]:
        return self._items

    def __anext__(self) -> Coroutine[Any, Any, T]:
        return self._items.__anext__()

    async def aclose(self) -> None:
        """Close the generator, in its thread."""
        await self._items.aclose()


async def _iterate(source: _Source[T]) -> AsyncGenerator[T, None]:
    items = source.items
    try:
        while True:
            while items:
                yield items.popleft()
            if source.ended:
                source.raise_error()
                return
            await source.fill()
    except GeneratorExit:
        raise
    except BaseException:  # cancelled, by asyncio or trio
        source.close_soon()
        raise
    finally:
        await source.close()


class _Source(Generic[T]):
    """A generator and what it has made."""

    def __init__(
        self,
        make: Callable[[], Generator[T, Any, Any]],
        start: Callable[[Callable[[], Any]], Call],
    ) -> None:
        self._make = make
        self._start = start
        self._generator: Generator[T, Any, Any] | None = None
        self._lock = threading.Lock()  # held by the thread that runs the generator
        self._call: Call | None = None
        self._size = 1
        self._grows = False  # until it is known, which may be after the first batch
        self._stopped = False
        self._error: BaseException | None = None
        self.ended = False
        self.items: deque[T] = deque()

    # In the consumer's thread.

    async def fill(self) -> None:
        """Wait for the next items, or for the end."""
        call = self._call
        if call is None:
            call = self._call = self._start(self._batch)
            self._grows = call.can_be_nudged
        timer = None
        if self._size > 1 and not call.done:
            timer = call.loop.call_later(2 * QUICK, call.nudge)
        try:
            await call
        finally:
            if timer is not None:
                timer.cancel()
        if call.done:
            self._call = None
            call.hop.finish()
            try:
                self.ended = self.ended or call.take()
            except BaseException as error:
                self.ended = True
                self._error = error

    def raise_error(self) -> None:
        """Raise what ended it, if it was an error; after the items before it."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error

    async def close(self) -> None:
        """Close the generator and wait until it is."""
        if self.ended:
            return
        self.ended = self._stopped = True
        call = self._start(self._close)
        await call.shielded()
        call.hop.finish()
        call.take()

    def close_soon(self) -> None:
        """Close the generator."""
        if not self.ended:
            self.ended = self._stopped = True
            self._start(self._close)

    # In the generator's thread.

    def _batch(self) -> bool:
        """Make items; whether there are no more. The consumer notes it, when it has them all."""
        with self._lock:
            if self._stopped:
                return True
            generator = self._generator
            if generator is None:
                generator = self._generator = self._make()
            items = self.items
            late = False
            begun = time.monotonic()
            try:
                for _ in range(self._size):
                    items.append(next(generator))
                    late = time.monotonic() - begun >= QUICK
                    if late or self._stopped:
                        break
            except StopIteration:
                return True
            self._size = 1 if late or not self._grows else min(MOST, 2 * self._size)
            return False

    def _close(self) -> None:
        with self._lock:
            if self._generator is not None:
                self._generator.close()
