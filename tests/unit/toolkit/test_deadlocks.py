from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.toolkit import deadlocks
from omnicorn.toolkit.sync import (
    SyncToAsync,
    ThreadSensitiveContext,
    async_to_sync,
    sync_to_async,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from concurrent.futures import Future

WAIT = 5.0

ident = sync_to_async(threading.get_ident)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(coroutine, WAIT)

    return asyncio.run(limited())


def test_a_call_from_a_coroutine_that_the_thread_waits_for_is_a_deadlock_that_names_both() -> None:
    async def other(go: asyncio.Event) -> int:
        await go.wait()
        return await ident()

    async def main() -> None:
        go = asyncio.Event()
        task = asyncio.create_task(other(go))

        async def inner() -> int:
            go.set()
            return await task

        def work() -> int:
            return async_to_sync(inner)()

        with pytest.raises(RuntimeError, match="deadlock") as caught:
            await sync_to_async(work)()
        text = str(caught.value)
        assert "sync_to_async(get_ident)" in text
        assert "work)" in text
        assert "inner)" in text
        assert await ident() != threading.get_ident()

    run(main())


def test_a_cycle_over_gather_is_found() -> None:
    async def other(go: asyncio.Event) -> int:
        await go.wait()
        return await ident()

    async def main() -> None:
        go = asyncio.Event()
        task = asyncio.create_task(other(go))

        async def inner() -> None:
            go.set()
            await asyncio.gather(task, asyncio.sleep(0))

        with pytest.raises(RuntimeError, match="deadlock"):
            await sync_to_async(async_to_sync(inner))()

    run(main())


def test_a_cycle_over_two_contexts_is_found() -> None:
    async def main() -> None:
        calls: dict[int, asyncio.Task[Any]] = {}
        ready = asyncio.Barrier(2)

        async def request(number: int) -> None:
            async def inner() -> None:
                await ready.wait()
                await calls[1 - number]

            async def call() -> int:
                await begun.wait()
                return await ident()

            async with ThreadSensitiveContext():
                begun = asyncio.Event()
                calls[number] = asyncio.create_task(call())
                await ident()
                task = asyncio.create_task(sync_to_async(async_to_sync(inner))())
                await asyncio.sleep(0)
                begun.set()
                await task

        found = await asyncio.gather(request(0), request(1), return_exceptions=True)
        await asyncio.gather(*calls.values(), return_exceptions=True)
        assert any(isinstance(one, RuntimeError) and "deadlock" in str(one) for one in found)

    run(main())


def test_a_blocking_run_coroutine_threadsafe_is_a_deadlock_that_is_found() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def work() -> int:
            return asyncio.run_coroutine_threadsafe(ident(), loop).result(WAIT)

        with pytest.raises(RuntimeError, match=r"deadlock: sync_to_async\(get_ident\) waits"):
            await sync_to_async(work)()

    run(main())


def test_run_coroutine_threadsafe_without_waiting_is_no_deadlock() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        busy = threading.Event()

        def work() -> Future[int]:
            future = asyncio.run_coroutine_threadsafe(ident(), loop)
            busy.wait(3 * 0.1)  # longer than two looks
            return future

        future = await sync_to_async(work)()
        assert await asyncio.wrap_future(future) == await ident()

    run(main())


def test_waiting_for_another_coroutine_is_no_deadlock() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def work() -> Future[int]:
            future = asyncio.run_coroutine_threadsafe(ident(), loop)
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.3), loop).result(WAIT)
            return future

        future = await sync_to_async(work)()
        assert await asyncio.wrap_future(future) == await ident()

    run(main())


def test_a_call_after_an_error_is_no_deadlock() -> None:
    def fail() -> None:
        raise ValueError

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(ValueError):
                await sync_to_async(fail)()

    run(main())


# ---------------------------------------------------------------------------- looking


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(deadlocks, "PERIOD", 0.005)
    return 0.005


def the_thread() -> Any:
    """That of thread-sensitive calls outside of a context."""
    executor: Any = SyncToAsync.single_thread_executor
    return executor._worker


@pytest.mark.usefixtures("quick")
def test_looking_ends_with_the_calls_and_begins_anew() -> None:
    async def main() -> None:
        for _ in range(2):
            go = threading.Event()
            busy = asyncio.create_task(sync_to_async(go.wait)(WAIT))
            late = asyncio.create_task(ident())
            await asyncio.sleep(0)
            assert the_thread().watcher() is asyncio.get_running_loop()
            go.set()
            await asyncio.gather(busy, late)
            while the_thread().watcher is not None:
                await asyncio.sleep(0)

    run(main())


def test_a_loop_that_stood_still_leaves_the_looking_to_the_one_that_took_over(
    quick: float,
) -> None:
    go = threading.Event()
    looks: list[Any] = []
    tasks: dict[Any, list[asyncio.Task[Any]]] = {}

    async def call(*calls: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        tasks[asyncio.get_running_loop()] = [asyncio.create_task(one()) for one in calls]
        await asyncio.sleep(0)

    async def done(these: list[asyncio.Task[Any]]) -> None:
        await asyncio.wait_for(asyncio.gather(*these), WAIT)

    first: Any = asyncio.new_event_loop()
    second: Any = asyncio.new_event_loop()
    first.run_until_complete(call(lambda: sync_to_async(go.wait)(WAIT), ident))
    assert the_thread().watcher() is first
    second.run_until_complete(call(ident))
    assert the_thread().watcher() is second
    call_later = first.call_later

    def noted(delay: float, callback: Any, *args: Any, **options: Any) -> Any:
        looks.append(callback)
        return call_later(delay, callback, *args, **options)

    first.call_later = noted
    first.run_until_complete(asyncio.sleep(2 * quick))  # past the look that it had in mind

    assert deadlocks._look not in looks
    go.set()
    for loop, these in tasks.items():
        loop.run_until_complete(done(these))
        loop.close()


async def looked_at(inner: Callable[[], Awaitable[Any]], end: Callable[[], Any]) -> None:
    """Have *inner* waited for by a thread that another call wants, until *end* lets it go on."""
    begun = asyncio.Event()

    async def waited_for() -> None:
        begun.set()
        await inner()

    busy = asyncio.create_task(sync_to_async(async_to_sync(waited_for))())
    await begun.wait()
    late = asyncio.create_task(ident())
    await asyncio.sleep(5 * deadlocks.PERIOD)  # several looks come before this is over
    assert not late.done()
    end()
    await asyncio.gather(busy, late)


@pytest.mark.usefixtures("quick")
def test_who_is_waited_for_twice_is_looked_at_once() -> None:
    async def main() -> None:
        end = asyncio.Event()
        task = asyncio.create_task(end.wait())
        await looked_at(lambda: asyncio.gather(task, task), end.set)

    run(main())


@pytest.mark.usefixtures("quick")
def test_a_call_in_somebodys_executor_proves_nothing() -> None:
    async def main() -> None:
        end = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            call = sync_to_async(end.wait, thread_sensitive=False, executor=executor)
            await looked_at(lambda: call(WAIT), end.set)

    run(main())


def test_callbacks_of_others_are_no_hindrance_to_a_proof() -> None:
    def with_an_empty_cell(full: bool) -> Callable[[Future[int]], object]:
        if full:
            value = 1
        return lambda future: value if full else None

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def work() -> int:
            future = asyncio.run_coroutine_threadsafe(ident(), loop)
            future.add_done_callback(with_an_empty_cell(False))
            return future.result(WAIT)

        with pytest.raises(RuntimeError, match="deadlock"):
            await sync_to_async(work)()

    run(main())


def test_a_call_that_has_ended_waits_for_nothing() -> None:
    """Its task may be in another loop, and go on a moment later."""

    async def main() -> None:
        call = sync_to_async(threading.get_ident)._call(threading.get_ident)  # type: ignore[attr-defined]
        call.started = True
        call.inner.append(object())
        assert len([*deadlocks._waits_for(call)]) == 1
        call.done = True
        assert [*deadlocks._waits_for(call)] == []

    run(main())
