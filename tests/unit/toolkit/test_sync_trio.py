from __future__ import annotations

import contextvars
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

trio = pytest.importorskip("trio")
anyio = pytest.importorskip("anyio")

from omnicorn.toolkit.libraries import current_trio_loop  # noqa: E402
from omnicorn.toolkit.local import Local  # noqa: E402
from omnicorn.toolkit.sync import (  # noqa: E402
    AsyncToSync,
    SyncToAsync,
    ThreadSensitiveContext,
    async_to_sync,
    sync_to_async,
    thread_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

WAIT = 5.0
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME")

ident = sync_to_async(threading.get_ident)
free_ident = sync_to_async(threading.get_ident, thread_sensitive=False)


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    async def limited() -> Any:
        with trio.fail_after(WAIT):
            return await main()

    return trio.run(limited)


async def gather(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    found: list[Any] = [None] * len(calls)

    async def one(number: int) -> None:
        found[number] = await calls[number]()

    async with trio.open_nursery() as nursery:
        for number in range(len(calls)):
            nursery.start_soon(one, number)
    return found


async def async_ident() -> int:
    await trio.lowlevel.checkpoint()
    return threading.get_ident()


def test_sync_code_runs_in_another_thread() -> None:
    async def main() -> None:
        here = threading.get_ident()
        first = await ident()
        assert first == await ident() != here
        assert await free_ident() != here

    run(main)


def test_thread_insensitive_calls_run_at_once() -> None:
    barrier = threading.Barrier(3)
    wait = sync_to_async(barrier.wait, thread_sensitive=False)

    async def main() -> None:
        assert sorted(await gather(wait, wait, wait)) == [0, 1, 2]

    run(main)


def test_sync_code_calls_back_into_trio() -> None:
    async def main() -> None:
        here = threading.get_ident()
        assert await sync_to_async(async_to_sync(async_ident))() == here

    run(main)


def test_bridges_nest_in_both_directions() -> None:
    @async_to_sync
    async def from_sync(depth: int) -> list[int]:
        return [threading.get_ident(), *(await to_sync(depth))]

    @sync_to_async
    def to_sync(depth: int) -> list[int]:
        mine = [threading.get_ident()]
        return mine + (from_sync(depth - 1) if depth else [])

    async def main() -> None:
        found = await to_sync(10)
        assert set(found[1::2]) == {threading.get_ident()}
        assert len(set(found[::2])) == 1

    run(main)


def test_it_is_refused_where_trio_runs() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="just await the async function directly"):
            async_to_sync(async_ident)()

    run(main)


def test_contexts_have_a_thread_each_from_the_pool() -> None:
    async def request() -> int:
        async with ThreadSensitiveContext():
            first = await ident()
            await barrier.wait()
            assert await ident() == first
            return first

    barrier: Any = None

    async def main() -> None:
        nonlocal barrier
        for _ in range(3):
            barrier = Barrier(3)
            assert len(set(await gather(request, request, request))) == 3

    class Barrier:
        def __init__(self, parties: int) -> None:
            self.left = parties
            self.event = trio.Event()

        async def wait(self) -> None:
            self.left -= 1
            if not self.left:
                self.event.set()
            await self.event.wait()

    run(main)
    started = thread_statistics().started
    run(main)
    assert thread_statistics().started == started


def test_leaving_a_context_waits_for_its_thread() -> None:
    go, started = threading.Event(), threading.Event()
    done: list[int] = []

    def work() -> None:
        started.set()
        go.wait(WAIT)
        done.append(1)

    async def main() -> None:
        async with ThreadSensitiveContext():
            with trio.move_on_after(0.01) as scope:
                await sync_to_async(work)()
            assert scope.cancelled_caught
            go.set()
        assert done == [1]

    run(main)


def test_variables_go_through_and_a_token_resets_in_the_next_call() -> None:
    async def change() -> None:
        NAME.set(NAME.get() + ", coroutine")

    async def main() -> None:
        NAME.set("task")
        token = await sync_to_async(NAME.set)("call")
        assert NAME.get() == "call"
        await sync_to_async(async_to_sync(change))()
        assert NAME.get() == "call, coroutine"
        await sync_to_async(NAME.reset)(token)
        assert NAME.get() == "task"

    run(main)


def test_locals_go_through() -> None:
    values = Local()

    async def inner() -> None:
        assert values.name == "sync"
        values.name = "inner"

    def sync() -> None:
        assert values.name == "task"
        values.name = "sync"
        async_to_sync(inner)()

    async def main() -> None:
        values.name = "task"
        await sync_to_async(sync)()
        assert values.name == "inner"
        assert getattr(AsyncToSync.executors, "current", None) is None

    run(main)


def test_errors_go_through() -> None:
    async def fail() -> None:
        raise ValueError("here")

    async def main() -> None:
        with pytest.raises(ValueError, match="here"):
            await sync_to_async(async_to_sync(fail))()

        def stop() -> None:
            raise StopIteration

        with pytest.raises(RuntimeError, match="StopIteration"):
            await sync_to_async(stop)()

    run(main)


@pytest.mark.parametrize("cancellation", ["propagate", "abandon"])
def test_a_cancelled_waiter_returns_promptly(cancellation: Any) -> None:
    go, ended = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(WAIT)
        ended.set()

    async def main() -> None:
        with trio.move_on_after(0.01) as scope:
            await sync_to_async(work, cancellation=cancellation)()
        assert scope.cancelled_caught
        assert not ended.is_set()
        go.set()
        await trio.to_thread.run_sync(ended.wait, WAIT)
        assert ended.is_set()

    run(main)


def test_a_shielded_call_ends_before_its_waiter_goes_on() -> None:
    ended: list[int] = []

    def work() -> None:
        started.set()
        go.wait(WAIT)
        ended.append(1)

    started, go = threading.Event(), threading.Event()

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def waiter() -> None:
                with trio.CancelScope() as scope:
                    nursery.start_soon(cancel, scope)
                    await sync_to_async(work, cancellation="shield")()
                assert scope.cancelled_caught
                assert ended == [1]

            async def cancel(scope: Any) -> None:
                await trio.to_thread.run_sync(started.wait, WAIT)
                scope.cancel()
                await trio.lowlevel.checkpoint()
                go.set()

            nursery.start_soon(waiter)

    run(main)


def test_cancelling_reaches_the_coroutine_that_the_sync_code_waits_for() -> None:
    seen: list[str] = []

    async def forever() -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append("coroutine")

    def work() -> None:
        try:
            async_to_sync(forever)()
        finally:
            seen.append("sync code")

    async def main() -> None:
        with trio.move_on_after(0.05) as scope:
            await sync_to_async(work)()
        assert scope.cancelled_caught
        assert seen == ["coroutine", "sync code"]

    run(main)


def test_sync_code_may_swallow_the_cancellation() -> None:
    async def forever() -> None:
        await trio.sleep_forever()

    def work() -> int:
        try:
            async_to_sync(forever)()
        except trio.Cancelled:
            return 5
        raise AssertionError

    async def main() -> None:
        with trio.move_on_after(0.05):
            assert await sync_to_async(work)() == 5
            return
        raise AssertionError

    run(main)


def test_a_coroutine_is_cancelled_when_the_run_ends() -> None:
    outcome: list[type[BaseException]] = []
    over = threading.Event()

    async def forever() -> None:
        await trio.sleep_forever()

    def work() -> None:
        try:
            async_to_sync(forever)()
        except BaseException as error:
            outcome.append(type(error))
        over.set()

    async def main() -> None:
        with trio.move_on_after(0.05):
            await sync_to_async(work, cancellation="abandon", thread_sensitive=False)()

    run(main)
    assert over.wait(WAIT)
    assert outcome == [trio.Cancelled]


def test_sync_code_of_a_run_that_has_ended_gets_a_loop_of_its_own() -> None:
    go, over = threading.Event(), threading.Event()
    found: list[str] = []

    async def library() -> None:
        import asyncio

        found.append(type(asyncio.get_running_loop()).__module__)

    def work() -> None:
        go.wait(WAIT)
        async_to_sync(library)()
        over.set()

    async def main() -> None:
        with trio.move_on_after(0.01):
            await sync_to_async(work, thread_sensitive=False)()

    run(main)
    go.set()
    assert over.wait(WAIT)
    assert found


def test_a_generator_is_iterated_in_its_thread() -> None:
    idents: set[int] = set()
    closed: list[int] = []

    def count() -> Iterator[int]:
        try:
            for number in range(100):
                idents.add(threading.get_ident())
                yield number
        finally:
            closed.append(threading.get_ident())

    async def main() -> None:
        wrapped: Any = sync_to_async(count)
        assert [item async for item in wrapped()] == list(range(100))
        items = wrapped()
        assert await anext(items) == 0
        await items.aclose()
        assert {*idents, *closed} == {await ident()}
        assert len(closed) == 2

    run(main)


def test_the_handler_gets_an_object_for_the_run() -> None:
    seen: list[Any] = []

    class Handler(SyncToAsync[Any, Any]):
        def thread_handler(self, loop: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(loop)
            return super().thread_handler(loop, *args, **kwargs)

    async def main() -> None:
        assert await Handler(int)() == 0
        assert seen[0].is_running()
        seen.append(trio.lowlevel.current_trio_token())

    run(main)
    assert seen[0].token is seen[1]
    assert seen[0].is_closed()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_both_bridges_work_under_anyio(backend: str) -> None:
    async def inner() -> int:
        await anyio.sleep(0)
        return threading.get_ident()

    async def main() -> None:
        with anyio.fail_after(WAIT):
            assert await sync_to_async(async_to_sync(inner))() == threading.get_ident()
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(ident)
            with anyio.move_on_after(0.01) as scope:
                await sync_to_async(go.wait, thread_sensitive=False)(WAIT)
            assert scope.cancelled_caught

    go = threading.Event()
    try:
        anyio.run(main, backend=backend)
    finally:
        go.set()


def test_as_a_guest_trio_counts() -> None:
    import asyncio

    async def main() -> int:
        assert await free_ident() != threading.get_ident()
        return await sync_to_async(async_to_sync(async_ident))()

    async def host() -> int:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        outcome = await asyncio.wait_for(done, WAIT)
        assert await free_ident() != threading.get_ident()
        found: int = outcome.unwrap()
        return found

    assert asyncio.run(host()) == threading.get_ident()


def test_an_older_trio_is_found_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(trio.lowlevel, "in_trio_task", raising=False)

    async def main() -> None:
        assert await ident() != threading.get_ident()
        assert await sync_to_async(async_to_sync(async_ident))() == threading.get_ident()

    run(main)
    assert current_trio_loop() is None


def test_what_a_run_is_to_do_later_it_does_as_long_as_it_runs() -> None:
    """And a call that comes when it shuts down is no error, if nothing is done of it."""
    done: list[str] = []
    items: list[Any] = []

    async def leftover() -> Any:
        try:
            yield
        finally:
            loop = current_trio_loop()
            assert loop is not None
            loop.call_later(0, done.append, "after the end")
            done.append("end")

    async def main() -> None:
        loop = current_trio_loop()
        assert loop is not None
        event = trio.Event()
        loop.call_later(0.001, event.set)
        loop.call_later(WAIT, done.append, "too late")
        await event.wait()
        items.append(leftover())
        await anext(items[0])

    run(main)
    assert done == ["end"]


def test_trio_is_not_imported() -> None:
    text = (
        "import asyncio, sys\n"
        "from omnicorn.toolkit.sync import *\n"
        "asyncio.run(sync_to_async(int)())\n"
        "print([name for name in ('trio', 'anyio', 'sniffio') if name in sys.modules])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=True
    )
    assert found.stdout == "[]\n"
