from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.toolkit.sync import (
    ThreadSensitiveContext,
    async_to_sync,
    sync_to_async,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine
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
