from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.toolkit import generators
from omnicorn.toolkit.sync import (
    async_to_sync,
    generator_to_async,
    iscoroutinefunction,
    sync_to_async,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Iterator

WAIT = 5.0
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="outer")


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(coroutine, WAIT)

    return asyncio.run(limited())


class Counter:
    """A generator function that tells where and how far it was run."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.made = 0
        self.idents: set[int] = set()
        self.closed = threading.Event()

    def count(self) -> Generator[int, None, None]:
        try:
            while self.made < self.most:
                self.idents.add(threading.get_ident())
                self.made += 1
                yield self.made
        finally:
            self.idents.add(threading.get_ident())
            self.closed.set()


@pytest.mark.parametrize("sensitive", [True, False])
@pytest.mark.parametrize("most", [0, 1, 1000])
def test_a_generator_is_iterated_in_its_thread(most: int, sensitive: bool) -> None:
    async def main() -> None:
        counter = Counter(most)
        wrapped = generator_to_async(counter.count, thread_sensitive=sensitive)
        assert [item async for item in wrapped()] == list(range(1, most + 1))
        assert threading.get_ident() not in counter.idents
        if sensitive:
            assert counter.idents <= {await sync_to_async(threading.get_ident)()}
        assert counter.closed.is_set()

    run(main())


def test_under_async_to_sync_it_runs_in_the_calling_thread() -> None:
    async def main() -> None:
        async for _ in generator_to_async(counter.count)():
            pass

    counter = Counter(100)
    async_to_sync(main)()
    assert counter.idents == {threading.get_ident()}


def test_it_does_not_run_further_ahead_than_a_batch() -> None:
    async def main() -> None:
        counter = Counter(10_000)
        taken = 0
        async for _ in generator_to_async(counter.count)():
            taken += 1
            assert counter.made - taken < generators.MOST

    run(main())


def test_fast_items_come_in_batches() -> None:
    class Counting(ThreadPoolExecutor):
        calls = 0

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return super().submit(*args, **kwargs)

    async def main() -> None:
        counter = Counter(1000)
        with Counting(1) as executor:
            wrapped = generator_to_async(counter.count, thread_sensitive=False, executor=executor)
            async for _ in wrapped():
                pass
        assert 2 <= executor.calls < 500

    run(main())


def test_an_item_does_not_wait_for_a_slow_successor() -> None:
    go = threading.Event()

    def slow() -> Iterator[int]:
        yield from range(5)  # fast: batches grow
        yield 5
        go.wait(WAIT)
        yield 6

    async def main() -> None:
        found = []
        async for item in generator_to_async(slow)():
            found.append(item)
            if item == 5:
                assert not go.is_set()
                go.set()
        assert found == list(range(7))

    run(main())


def test_its_thread_is_free_between_two_items() -> None:
    def slow() -> Iterator[int]:
        for number in range(3):
            threading.Event().wait(2 * generators.QUICK)
            yield number

    async def main() -> None:
        async for _ in generator_to_async(slow)():
            assert await asyncio.wait_for(sync_to_async(int)(), WAIT) == 0

    run(main())


def test_leaving_the_loop_closes_the_generator_in_its_thread() -> None:
    async def main() -> None:
        counter = Counter()
        async for item in generator_to_async(counter.count)():
            if item == 3:
                break
        assert await asyncio.to_thread(counter.closed.wait, WAIT)
        assert counter.idents == {await sync_to_async(threading.get_ident)()}

    run(main())


def test_aclose_returns_when_the_generator_is_closed() -> None:
    async def main() -> None:
        counter = Counter()
        async with contextlib.aclosing(generator_to_async(counter.count)()) as items:
            assert await anext(items) == 1
        assert counter.closed.is_set()
        with pytest.raises(StopAsyncIteration):
            await anext(items)

    run(main())


def test_a_generator_that_was_never_begun_is_never_made() -> None:
    async def main() -> None:
        counter = Counter()
        items = generator_to_async(counter.count)()
        await items.aclose()
        del items
        gc.collect()
        assert counter.made == 0

    run(main())


def test_a_cancelled_consumer_does_not_wait_and_the_generator_is_closed() -> None:
    go, started = threading.Event(), threading.Event()
    closed = threading.Event()

    def slow() -> Iterator[int]:
        try:
            started.set()
            go.wait(WAIT)
            yield 1
            raise AssertionError("it was asked for more")
        finally:
            closed.set()

    async def main(sensitive: bool) -> None:
        async def consume() -> None:
            async for _ in generator_to_async(slow, thread_sensitive=sensitive)():
                pass

        task = asyncio.create_task(consume())
        assert await asyncio.to_thread(started.wait, WAIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not closed.is_set()
        go.set()
        assert await asyncio.to_thread(closed.wait, WAIT)

    for sensitive in (True, False):
        for event in (go, started, closed):
            event.clear()
        run(main(sensitive))


def test_its_error_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield from range(10)
        raise ValueError("at the end")

    async def main() -> None:
        items = generator_to_async(failing)()
        assert [await anext(items) for _ in range(10)] == list(range(10))
        with pytest.raises(ValueError, match="at the end"):
            await anext(items)

    run(main())


def test_an_error_that_comes_while_its_consumer_is_busy_is_not_lost() -> None:
    go = threading.Event()

    def rows() -> Generator[int, None, None]:
        yield from range(4)
        go.wait(WAIT)
        raise ZeroDivisionError

    seen: list[int] = []

    async def main() -> None:
        async for row in generator_to_async(rows)():
            seen.append(row)
            if row == 3:  # in the midst of a batch
                go.set()
                await sync_to_async(int)()  # behind it, in the same thread

    with pytest.raises(ZeroDivisionError):
        run(main())
    assert seen == [0, 1, 2, 3]


def test_an_error_in_closing_is_raised() -> None:
    def failing() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise ValueError("in closing")

    async def main() -> None:
        items = generator_to_async(failing)()
        await anext(items)
        with pytest.raises(ValueError, match="in closing"):
            await items.aclose()

    run(main())


def test_variables_go_with_it() -> None:
    def naming() -> Generator[str, None, None]:
        token = NAME.set("inner")
        yield NAME.get()
        NAME.reset(token)
        yield NAME.get()

    async def main() -> None:
        items = generator_to_async(naming)()
        assert await anext(items) == "inner"
        assert NAME.get() == "inner"
        assert await anext(items) == "outer"
        assert NAME.get() == "outer"
        await items.aclose()

    run(main())


def test_awaited_instead_it_is_the_generator_itself_as_with_asgiref() -> None:
    async def main() -> None:
        counter = Counter(3)
        assert list(await sync_to_async(counter.count)()) == [1, 2, 3]
        assert list(await generator_to_async(Counter(2).count)()) == [1, 2]
        assert counter.idents == {threading.get_ident()}

    run(main())


def test_partials_and_methods_are_generator_functions_too() -> None:
    def count(most: int) -> Iterator[int]:
        yield from range(most)

    class Thing:
        @sync_to_async
        def count(self) -> Iterator[int]:
            yield 7

    async def main() -> None:
        wrapped: Any = sync_to_async(functools.partial(count, 3))
        assert iscoroutinefunction(wrapped)
        assert [item async for item in wrapped()] == [0, 1, 2]
        method: Any = Thing().count
        assert [item async for item in method()] == [7]

    run(main())


def test_what_is_no_generator_function_is_refused() -> None:
    with pytest.raises(TypeError, match="is not a generator function"):
        generator_to_async(iter)


def test_a_first_batch_that_is_quicker_than_its_start_is_no_reason_for_larger_ones() -> None:
    """On trio nobody can ask for the items made so far, so each batch has one."""

    class DoneAtOnce:
        can_be_nudged = False
        done = True

        def __init__(self, batch: Any) -> None:
            batch()
            self.hop = self

        def __await__(self) -> Generator[Any, Any, None]:
            yield from ()

        def finish(self) -> None: ...
        def take(self) -> None: ...

    def count() -> Iterator[int]:
        yield from range(4)

    async def main() -> None:
        start: Any = DoneAtOnce
        source = generators._Source(count, start)
        for number in range(4):
            await source.fill()
            assert list(source.items) == [number]
            source.items.clear()

    run(main())
