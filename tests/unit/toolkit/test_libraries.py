from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.toolkit.libraries import given_executor
from omnicorn.toolkit.sync import (
    async_to_sync,
    sync_to_async,
    thread_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

WAIT = 5.0

ident = sync_to_async(threading.get_ident)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(coroutine, WAIT)

    return asyncio.run(limited())


def parked(caught: list[str], then: Callable[[], Any] | None = None) -> Callable[[], Any]:
    """Sync code that waits for a coroutine, which waits for ever."""

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            caught.append("coroutine")
            raise

    def work() -> Any:
        try:
            async_to_sync(forever)()
        except asyncio.CancelledError:
            caught.append("sync code")
            if then is None:
                raise
            return then()

    return work


async def cancelled_when(started: Callable[[], bool], task: asyncio.Task[Any]) -> None:
    while not started():
        await asyncio.sleep(0.001)
    task.cancel()


def bridge_open() -> bool:
    return any(
        "forever" in repr(task.get_coro()) or "_main_for_thread" in repr(task.get_coro())
        for task in asyncio.all_tasks()
    )


def test_cancelling_reaches_the_coroutine_that_the_sync_code_waits_for() -> None:
    async def main() -> None:
        caught: list[str] = []
        task = asyncio.create_task(sync_to_async(parked(caught))())
        await cancelled_when(bridge_open, task)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert caught == ["coroutine", "sync code"]

    run(main())


def test_sync_code_may_swallow_the_cancellation_and_its_result_counts() -> None:
    async def main() -> None:
        caught: list[str] = []
        task = asyncio.create_task(sync_to_async(parked(caught, lambda: 5))())
        await cancelled_when(bridge_open, task)
        assert await task == 5

    run(main())


def test_a_coroutine_cancelled_before_it_began_is_cancelled_all_the_same() -> None:
    async def main() -> None:
        caught: list[str] = []
        task = asyncio.create_task(sync_to_async(parked(caught), thread_sensitive=False)())
        await asyncio.sleep(0)
        for _ in range(500):  # it asks the loop, which is blocked here, for its coroutine
            if thread_statistics().parked:
                break
            threading.Event().wait(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert caught == ["sync code"]

    run(main())


@pytest.mark.parametrize("cancellation", ["propagate", "abandon"])
def test_a_cancelled_waiter_returns_promptly(cancellation: Any) -> None:
    async def main() -> None:
        go, started, ended = threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            go.wait(WAIT)
            ended.set()

        task = asyncio.create_task(sync_to_async(work, cancellation=cancellation)())
        await asyncio.to_thread(started.wait, WAIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not ended.is_set()
        go.set()
        assert await asyncio.to_thread(ended.wait, WAIT)

    run(main())


def test_an_abandoned_call_does_not_cancel_the_coroutine() -> None:
    async def main() -> None:
        go, ended = asyncio.Event(), threading.Event()

        def work() -> None:
            async_to_sync(go.wait)()
            ended.set()

        task = asyncio.create_task(sync_to_async(work, cancellation="abandon")())
        await cancelled_when(bridge_open, task)
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        assert await asyncio.to_thread(ended.wait, WAIT)

    run(main())


def test_a_shielded_call_ends_before_its_waiter_goes_on() -> None:
    async def main() -> None:
        go, started, ended = threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            go.wait(WAIT)
            ended.set()

        task = asyncio.create_task(sync_to_async(work, cancellation="shield")())
        await asyncio.to_thread(started.wait, WAIT)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    run(main())


def test_the_error_of_a_shielded_call_is_not_lost() -> None:
    async def main() -> None:
        go, started = threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            go.wait(WAIT)
            raise ValueError

        task = asyncio.create_task(sync_to_async(work, cancellation="shield")())
        await asyncio.to_thread(started.wait, WAIT)
        task.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(ValueError):
            await task

    run(main())


@pytest.mark.parametrize("cancellation", ["propagate", "abandon", "shield"])
def test_work_that_has_not_begun_is_dropped(cancellation: Any) -> None:
    async def main() -> None:
        go, ran = threading.Event(), list[int]()
        busy = asyncio.create_task(sync_to_async(go.wait)(WAIT))
        late = asyncio.create_task(sync_to_async(ran.append, cancellation=cancellation)(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        go.set()
        await busy
        await ident()
        assert ran == []

    run(main())


def test_a_task_cancelled_before_it_waits_is_cancelled() -> None:
    async def main() -> None:
        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await ident()

        task = asyncio.create_task(work())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ident() != threading.get_ident()

    run(main())


def test_timeouts_leave_the_task_as_it_was() -> None:
    async def main() -> None:
        go = threading.Event()
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await sync_to_async(go.wait, thread_sensitive=False)(WAIT)
        assert task.cancelling() == 0
        go.set()

    run(main())


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_the_default_executor_counts_if_somebody_gave_it(kind: str) -> None:
    loop = pytest.importorskip(kind).new_event_loop()

    async def main() -> None:
        assert given_executor(loop) is None
        await asyncio.to_thread(int)
        assert given_executor(loop) is None  # its own
        with ThreadPoolExecutor(1) as executor:
            loop.set_default_executor(executor)
            assert given_executor(loop) is executor

    loop.run_until_complete(main())
    loop.close()
