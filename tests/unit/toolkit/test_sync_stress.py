"""Many bridges at once: none waits for ever, and nothing is left of them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
import subprocess
import sys
import sysconfig
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.toolkit.local import Local
from omnicorn.toolkit.sync import (
    AsyncPortal,
    AsyncToSync,
    SyncToAsync,
    ThreadSensitiveContext,
    async_to_sync,
    set_thread_limit,
    sync_to_async,
    thread_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS = 50
NAME: contextvars.ContextVar[int] = contextvars.ContextVar("NAME")
values = Local()


@pytest.fixture
def limited() -> Iterator[None]:
    set_thread_limit(3)
    yield
    set_thread_limit(None)


def down(number: int, depth: int, choose: random.Random) -> int:
    """Sync code, `depth` bridges above the ground."""
    assert NAME.get() == number == values.name
    if depth == 0:
        return 1
    return 1 + async_to_sync(up)(number, depth - 1, choose)


async def up(number: int, depth: int, choose: random.Random) -> int:
    """A coroutine, `depth` bridges above the ground."""
    assert NAME.get() == number == values.name
    if depth == 0:
        return 1
    sensitive = choose.random() < 0.5
    return 1 + await sync_to_async(down, thread_sensitive=sensitive)(number, depth - 1, choose)


async def client(number: int, calls: int) -> int:
    choose = random.Random(number)
    made = 0
    NAME.set(number)
    values.name = number
    while made < calls:
        depth = choose.randrange(1, 9)
        if choose.random() < 0.5:
            async with ThreadSensitiveContext():
                made += await up(number, depth, choose)
        else:
            made += await up(number, depth, choose)
    return made


async def crowd(calls: int) -> int:
    return sum(await asyncio.gather(*[client(n, calls // TASKS) for n in range(TASKS)]))


@pytest.mark.parametrize("top", ["asyncio", "async_to_sync", "portal", "uvloop"])
def test_a_crowd_of_nested_bridges_comes_to_its_end(top: str) -> None:
    if top == "asyncio":
        made = asyncio.run(crowd(1000))
    elif top == "async_to_sync":
        made = async_to_sync(crowd)(1000)
    elif top == "uvloop":
        made = pytest.importorskip("uvloop").run(crowd(1000))
    else:
        with AsyncPortal():
            made = async_to_sync(crowd)(1000)
    assert made >= 1000


def test_a_crowd_comes_to_its_end_within_a_limit(limited: None) -> None:
    assert asyncio.run(crowd(500)) >= 500
    statistics = thread_statistics()
    assert (statistics.waiting, statistics.parked) == (0, 0)


def test_calls_cancelled_at_any_time_leave_all_usable() -> None:
    async def main() -> None:
        choose = random.Random(1)
        tasks = [asyncio.create_task(client(number, 30)) for number in range(TASKS)]
        for _ in range(100):
            await asyncio.sleep(0.001)
            choose.choice(tasks).cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                assert task.exception() is None
        assert await sync_to_async(int)() == 0

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.slow
def test_ten_thousand_nested_calls_leak_neither_threads_nor_memory() -> None:
    asyncio.run(crowd(2000))
    gc.collect()
    tracemalloc.start()
    try:
        asyncio.run(crowd(2000))
        gc.collect()
        before, threads = tracemalloc.get_traced_memory()[0], thread_statistics().threads
        for _ in range(5):
            assert asyncio.run(crowd(10_000)) >= 10_000
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 200_000
    finally:
        tracemalloc.stop()
    assert thread_statistics().threads <= max(threads, TASKS * 10)
    assert AsyncToSync.loop_thread_executors == {}
    assert len(SyncToAsync.context_to_thread_executor) == 0


@pytest.mark.slow
def test_top_level_calls_from_many_threads_do_not_mix() -> None:
    failed: list[BaseException] = []

    def caller(number: int) -> None:
        async def main() -> None:
            here = threading.get_ident()
            assert await sync_to_async(threading.get_ident)() == ident
            assert NAME.get() == number
            assert threading.get_ident() == here

        NAME.set(number)
        ident = threading.get_ident()
        try:
            for _ in range(200):
                async_to_sync(main)()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="without a GIL, what a waiting thread made is freed by the collector, cycle or not",
)
def test_no_garbage_is_made() -> None:
    """Reference cycles would keep what a request holds until the collector comes."""

    def change() -> None:
        NAME.set(NAME.get(0) + 1)

    async def main() -> None:
        async with ThreadSensitiveContext():
            await sync_to_async(change)()
            await sync_to_async(async_to_sync(asyncio.sleep))(0)
            await sync_to_async(change, thread_sensitive=False)()

    async def many() -> None:
        for _ in range(20):
            await asyncio.create_task(main())
        gc.collect()
        for _ in range(20):
            await asyncio.create_task(main())
        found.append(gc.collect())

    found: list[int] = []
    gc.disable()
    try:
        asyncio.run(many())
    finally:
        gc.enable()
    assert found == [0]


LEAVING: dict[str, Any] = {
    "a call under way": "asyncio.run(abandoned())",
    "a thread in a bridge whose loop is gone": "asyncio.run(parked())",
    "a portal never left": "AsyncPortal().__enter__(); async_to_sync(asyncio.sleep)(0)",
    "a context never left": "asyncio.run(ThreadSensitiveContext().__aenter__())",
}


@pytest.mark.parametrize("what", LEAVING)
def test_the_interpreter_ends_in_spite_of(what: str) -> None:
    text = (
        "import asyncio, time\n"
        "from omnicorn.toolkit.sync import *\n"
        "def sleep(): time.sleep(0.2)\n"
        "def park():\n"
        "    try: async_to_sync(asyncio.sleep)(30)\n"
        "    except (RuntimeError, asyncio.CancelledError): pass\n"
        "async def leave(work):\n"
        "    call = sync_to_async(work, cancellation='abandon', thread_sensitive=False)\n"
        "    try: await asyncio.wait_for(call(), 0.05)\n"
        "    except TimeoutError: pass\n"
        "async def abandoned(): await leave(sleep)\n"
        "async def parked(): await leave(park)\n"
        f"{LEAVING[what]}\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=20, check=True
    )
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
