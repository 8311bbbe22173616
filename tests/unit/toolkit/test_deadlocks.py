from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("anyio")
pytest.importorskip("trio")

import anyio.lowlevel
import trio.testing

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


# ---------------------------------------------------------------------------- asyncio and trio


@pytest.fixture(params=["asyncio", "trio"])
def run_on(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Run a coroutine function in a library, with a time limit around it all."""

    def run_on(main: Callable[[], Awaitable[Any]]) -> Any:
        async def limited() -> Any:
            with anyio.fail_after(WAIT):
                return await main()

        return anyio.run(limited, backend=request.param)

    return run_on


def the_thread() -> Any:
    """That of thread-sensitive calls outside of a context."""
    executor: Any = SyncToAsync.single_thread_executor
    return executor._worker


class Looks(list[Any]):
    """What was found in each look at a thread that is busy with the same."""

    async def several(self) -> None:
        """Wait for some more, in which nothing may be found."""
        before = len(self)
        while len(self) < before + 5:
            await anyio.sleep(0.001)
        assert not any(self)

    def several_more(self) -> None:
        """The same in sync code."""
        before = len(self)
        for _ in range(int(WAIT / 0.001)):
            if len(self) >= before + 5:
                break
            threading.Event().wait(0.001)
        assert len(self) >= before + 5
        assert not any(self)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Look often, and note what is found."""
    looks = Looks()
    victim = deadlocks._victim

    def noted(*args: Any) -> Any:
        found = victim(*args)
        looks.append(found)
        return found

    monkeypatch.setattr(deadlocks, "PERIOD", 0.005)
    monkeypatch.setattr(deadlocks, "_victim", noted)
    return looks


class Group:
    """A task group at whose end a thread's coroutine waits, and that takes tasks from others.

    They have the variables of those, by which their thread-sensitive calls belong elsewhere.
    """

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.filled = anyio.Event()
        self.tasks: Any = None

    async def inner(self) -> None:
        async with anyio.create_task_group() as self.tasks:
            self.ready.set()
            await self.filled.wait()

    async def filled_with(self, *functions: Callable[[], Awaitable[Any]]) -> None:
        """Have it wait for these."""
        await self.ready.wait()
        for function in functions:
            self.tasks.start_soon(function)
        self.filled.set()

    def work(self) -> None:
        async_to_sync(self.inner)()


async def failure(call: Callable[[], Awaitable[Any]]) -> str:
    """The text of the RuntimeError that `call` ends with, in whatever groups."""
    try:
        await call()
    except BaseException as caught:
        error: BaseException = caught
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if not isinstance(error, RuntimeError):
            raise
        return str(error)
    raise AssertionError("it has ended without an error")


async def at_once(*calls: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(call)


async def while_busy(
    work: Callable[[], Coroutine[Any, Any, Any]], *calls: Callable[[], Coroutine[Any, Any, Any]]
) -> None:
    """The same, but the calls come when the thread runs the *work*."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        while not (the_thread() and the_thread().current):
            await anyio.sleep(0)
        for call in calls:
            tasks.start_soon(call)


def from_thread(function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Callable[[], Any]:
    """Sync code that has this run in the loop from which we are called, and waits."""
    token = anyio.lowlevel.current_token()
    return lambda: anyio.from_thread.run(function, *args, token=token)


def test_a_cycle_over_a_task_group_names_both_sides(run_on: Any) -> None:
    async def main() -> None:
        group = Group()
        text = await failure(
            lambda: at_once(sync_to_async(group.work), lambda: group.filled_with(ident))
        )
        assert text.startswith("deadlock: sync_to_async(get_ident) waits for <thread omnicorn-sync")
        assert "which runs sync_to_async(Group.work), which waits for async_to_sync(" in text
        assert "Group.inner)" in text
        assert await ident() != threading.get_ident()

    run_on(main)


def test_a_cycle_over_a_task_group_is_found_when_its_other_tasks_have_ended(run_on: Any) -> None:
    async def main() -> None:
        group = Group()
        calls = ident, lambda: anyio.sleep(0), lambda: anyio.sleep(0.01), ident
        assert "deadlock" in await failure(
            lambda: at_once(sync_to_async(group.work), lambda: group.filled_with(*calls))
        )

    run_on(main)


def test_a_cycle_over_groups_in_groups_is_found(run_on: Any) -> None:
    async def main() -> None:
        group = Group()

        async def nested() -> None:
            await at_once(ident, ident)

        assert "deadlock" in await failure(
            lambda: at_once(sync_to_async(group.work), lambda: group.filled_with(nested))
        )

    run_on(main)


def test_a_cycle_over_the_threads_of_two_contexts_is_found(run_on: Any) -> None:
    async def main() -> None:
        groups = Group(), Group()

        async def request(number: int) -> None:
            async with ThreadSensitiveContext():

                async def fill() -> None:
                    await groups[number].ready.wait()
                    await groups[1 - number].filled_with(ident)

                await at_once(sync_to_async(groups[number].work), fill)

        assert "deadlock" in await failure(
            lambda: at_once(lambda: request(0), lambda: request(1)),
        )

    run_on(main)


def test_a_blocking_call_from_a_thread_is_a_deadlock_that_is_found(run_on: Any) -> None:
    async def main() -> None:
        work = from_thread(ident)
        text = await failure(lambda: sync_to_async(work)())
        assert text.startswith("deadlock: sync_to_async(get_ident) waits for")
        assert "which waits for the task of " in text

    run_on(main)


def test_a_cycle_over_a_free_thread_is_found(run_on: Any) -> None:
    async def main() -> None:
        work = from_thread(ident)

        async def inner() -> None:
            # In a Context of its own: else the call went to the thread that waits for us.
            outside = functools.partial(contextvars.Context().run, work)
            await sync_to_async(outside, thread_sensitive=False)()

        assert "deadlock" in await failure(sync_to_async(async_to_sync(inner)))

    run_on(main)


def test_a_cycle_in_a_thread_that_waits_for_its_coroutine_is_found(run_on: Any) -> None:
    """There calls run while it waits: one that waits for the next is a deadlock as well."""

    async def main() -> None:
        work = from_thread(ident)

        async def inner() -> None:
            await sync_to_async(work)()

        assert "deadlock" in await failure(sync_to_async(async_to_sync(inner)))

    run_on(main)


def test_one_of_several_calls_fails_and_the_others_go_on(run_on: Any) -> None:
    async def main() -> None:
        texts: list[str] = []
        idents: list[int] = []

        async def call() -> None:
            try:
                idents.append(await ident())
            except RuntimeError as error:
                texts.append(str(error))

        group = Group()
        await at_once(sync_to_async(group.work), lambda: group.filled_with(call), call)
        assert [text.partition(":")[0] for text in texts] == ["deadlock"]
        assert len(idents) == 1

    run_on(main)


def test_who_only_waits_for_the_deadlock_of_others_does_not_fail(run_on: Any) -> None:
    idents: list[int] = []
    texts: list[str] = []

    async def main() -> None:
        groups = Group(), Group(), Group()

        async def call() -> None:
            try:
                await ident()
            except RuntimeError as error:
                texts.append(str(error))

        async def innocent() -> None:
            idents.append(await ident())

        async def request(number: int) -> None:
            async with ThreadSensitiveContext():

                async def fill() -> None:
                    await groups[number].ready.wait()
                    if number < 2:
                        await groups[1 - number].filled_with(call)
                    if number == 1:
                        await groups[2].filled_with(call)

                late = [innocent] if number == 2 else []
                await at_once(sync_to_async(groups[number].work), fill, *late)

        await at_once(*[functools.partial(request, number) for number in range(3)])

    run_on(main)
    assert len(idents) == 1
    assert texts
    assert all("deadlock" in text for text in texts)


# What is none.


def test_calls_that_nest_and_end_are_no_deadlock(run_on: Any, looks: Looks) -> None:
    async def main() -> None:
        @async_to_sync
        async def from_sync(depth: int) -> int:
            await anyio.sleep(0.005)
            found: int = await to_sync(depth)
            return found

        @sync_to_async
        def to_sync(depth: int) -> int:
            return 1 + from_sync(depth - 1) if depth else 1

        await at_once(*[lambda: to_sync(4)] * 4)

    run_on(main)
    assert not any(looks)


def test_a_call_behind_a_long_one_is_no_deadlock(run_on: Any, looks: Looks) -> None:
    async def main() -> None:
        await while_busy(sync_to_async(looks.several_more), ident, ident)

    run_on(main)


def test_a_call_behind_one_that_waits_for_another_coroutine_is_no_deadlock(
    run_on: Any, looks: Looks
) -> None:
    async def main() -> None:
        await while_busy(sync_to_async(async_to_sync(looks.several)), ident)
        await while_busy(sync_to_async(from_thread(looks.several)), ident)

    run_on(main)


def test_starting_a_call_from_a_thread_without_waiting_is_no_deadlock(
    run_on: Any, looks: Looks
) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            token = anyio.lowlevel.current_token()

            def work() -> None:
                anyio.from_thread.run_sync(tasks.start_soon, ident, token=token)
                looks.several_more()

            await sync_to_async(work)()

    run_on(main)


def test_an_event_that_somebody_else_sets_is_no_deadlock(run_on: Any, looks: Looks) -> None:
    async def main() -> None:
        event = anyio.Event()

        async def set_later() -> None:
            await looks.several()
            event.set()

        await while_busy(sync_to_async(async_to_sync(event.wait)), ident, set_later)

    run_on(main)


def test_a_group_whose_task_may_still_cancel_the_others_is_no_deadlock(
    run_on: Any, looks: Looks
) -> None:
    async def main() -> None:
        group = Group()

        async def win() -> None:
            await looks.several()
            group.tasks.cancel_scope.cancel()

        await at_once(sync_to_async(group.work), lambda: group.filled_with(ident, win))
        assert await ident()

    run_on(main)


def test_who_is_not_at_the_end_of_the_group_is_no_deadlock(run_on: Any, looks: Looks) -> None:
    async def main() -> None:
        group = Group()

        async def fill() -> None:
            await group.ready.wait()
            group.tasks.start_soon(ident)
            await looks.several()
            group.tasks.cancel_scope.cancel()

        await at_once(sync_to_async(group.work), fill)

    run_on(main)


def test_who_is_about_to_be_started_in_the_group_may_cancel_the_others_too(
    run_on: Any, looks: Looks
) -> None:
    async def main() -> None:
        group = Group()

        async def win(*, task_status: Any) -> None:
            group.filled.set()
            await looks.several()
            task_status.started()
            group.tasks.cancel_scope.cancel()

        async def fill() -> None:
            await group.ready.wait()
            group.tasks.start_soon(ident)
            await group.tasks.start(win)

        await at_once(sync_to_async(group.work), fill)

    run_on(main)


def test_a_call_in_somebodys_executor_shows_not_for_whom_it_waits(
    run_on: Any, looks: Looks
) -> None:
    async def main() -> None:
        end = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            wait = sync_to_async(end.wait, thread_sensitive=False, executor=executor)

            async def inner() -> None:
                await wait(WAIT)

            async def set_later() -> None:
                await looks.several()
                end.set()

            await while_busy(sync_to_async(async_to_sync(inner)), ident, set_later)

    run_on(main)


def test_loops_in_several_threads_share_a_thread_without_deadlock(
    run_on: Any, looks: Looks
) -> None:
    """And one of them fails a call of its own while the others wait."""
    texts: list[str] = []
    barrier = threading.Barrier(3)

    async def innocent() -> None:
        barrier.wait(WAIT)
        await at_once(*[ident] * 5)

    async def guilty() -> None:
        work = from_thread(ident)
        barrier.wait(WAIT)
        texts.append(await failure(sync_to_async(work)))

    threads = [
        threading.Thread(target=run_on, args=(main,)) for main in (innocent, guilty, innocent)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert len(texts) == 1
    assert "deadlock" in texts[0]
    assert len([one for one in looks if one]) == 1


async def left_waiting(go: threading.Event) -> None:
    """End while a thread is watched, and waits for *go*."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sync_to_async(go.wait), WAIT)
        while not (the_thread() and the_thread().current):
            await anyio.sleep(0.001)
        tasks.start_soon(ident)
        while not the_thread().has_more():
            await anyio.sleep(0)
        tasks.cancel_scope.cancel()


def test_a_loop_that_ended_leaves_the_looking_to_the_others(run_on: Any, looks: Looks) -> None:
    go = threading.Event()

    async def second() -> None:
        work = from_thread(ident)

        async def set_later() -> None:
            await looks.several()
            go.set()

        await at_once(ident, set_later)
        looks.clear()
        assert "deadlock" in await failure(sync_to_async(work))

    run_on(functools.partial(left_waiting, go))
    run_on(second)


@pytest.mark.usefixtures("looks")
def test_looking_ends_with_the_calls_and_begins_anew(run_on: Any) -> None:
    async def main() -> None:
        deadlocks._watched.clear()
        for _ in range(2):
            go = threading.Event()

            async def set_when_watched(go: threading.Event = go) -> None:
                while not deadlocks._watched:
                    await anyio.sleep(0)
                go.set()

            wait = functools.partial(sync_to_async(go.wait), WAIT)
            await while_busy(wait, ident, set_when_watched)
            while deadlocks._watched:
                await anyio.sleep(0)

    run_on(main)


@pytest.mark.usefixtures("looks")
def test_nothing_is_kept_of_a_loop_that_ended_while_it_looked(run_on: Any) -> None:
    go = threading.Event()

    deadlocks._watched.clear()
    run_on(functools.partial(left_waiting, go))
    assert deadlocks._watched
    go.set()
    for _ in range(500):  # the thread has to let go of the call
        gc.collect()
        if not deadlocks._watched:
            break
        threading.Event().wait(0.005)
    assert not deadlocks._watched


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is missing")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_finds_its_own(run_on: Any, looks: Looks) -> None:
    go = threading.Event()

    async def main() -> None:
        assert "deadlock" in await failure(sync_to_async(from_thread(ident)))

    def in_child() -> int:
        looks.clear()
        try:
            run_on(main)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            return 1
        return 0

    def fork() -> int:
        child = os.fork()
        if not child:
            status = 1
            try:
                status = in_child()
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    async def busy() -> None:
        async def set_later() -> None:
            await looks.several()
            go.set()

        await while_busy(lambda: sync_to_async(go.wait)(WAIT), ident, set_later)

    run_on(busy)
    assert fork() == 0
    run_on(main)


# ---------------------------------------------------------------------------- trio


@pytest.mark.parametrize("who", ["the coroutine", "the call"])
def test_a_deadline_that_ends_the_cycle_is_no_deadlock(looks: Looks, who: str) -> None:
    limits: list[Any] = []

    class Limited(Group):
        async def inner(self) -> None:
            with trio.move_on_after(WAIT) as limit:
                if who == "the coroutine":
                    limits.append(limit)
                    await super().inner()
            if who != "the coroutine":
                await super().inner()

    async def call() -> None:
        if who == "the coroutine":
            await ident()
            return
        with trio.move_on_after(WAIT) as limit:
            limits.append(limit)
            await ident()

    async def late() -> None:
        await looks.several()
        limits[0].deadline = trio.current_time()

    async def main() -> None:
        group = Limited()
        with trio.fail_after(WAIT):
            await at_once(sync_to_async(group.work), lambda: group.filled_with(call), late)
        assert limits[0].cancelled_caught

    trio.run(main)


def test_a_deadline_of_another_loop_s_task_counts_as_well(looks: Looks) -> None:
    """A thread waits for a task of trio, whose deadline asyncio sees."""
    limits: list[Any] = []

    async def limited(work: Callable[[], Any]) -> None:
        with trio.move_on_after(WAIT) as limit:
            limits.append(limit)
            await sync_to_async(work, thread_sensitive=False, cancellation="abandon")()

    with Other() as other:

        async def main() -> int:
            loop = asyncio.get_running_loop()

            def work() -> Any:
                return asyncio.run_coroutine_threadsafe(ident(), loop).result()

            async def later() -> None:
                await looks.several()
                other.call(limits[0].cancel)

            busy = asyncio.create_task(sync_to_async(lambda: other.run(limited, work))())
            await later()
            await busy
            return await ident()

        assert run(main())


def test_a_deadline_of_who_waits_from_outside_shows_the_deadlock() -> None:
    async def main() -> None:
        group = Group()

        async def request() -> None:
            with trio.fail_after(WAIT):
                await sync_to_async(group.work)()

        async def call() -> None:
            with trio.CancelScope():
                await ident()

        text = await failure(lambda: at_once(request, lambda: group.filled_with(call)))
        assert "deadlock" in text

    trio.run(main)


def test_a_deadline_that_a_shield_keeps_off_does_not_end_the_cycle() -> None:
    async def main() -> None:
        group = Group()

        async def inner() -> None:
            with trio.fail_after(WAIT), trio.CancelScope(shield=True):
                await group.inner()

        work = sync_to_async(async_to_sync(inner))
        assert "deadlock" in await failure(lambda: at_once(work, lambda: group.filled_with(ident)))

    trio.run(main)


def test_a_clock_that_jumps_is_not_driven_on(looks: Looks) -> None:
    go = threading.Event()

    async def main() -> None:
        before = trio.current_time()
        threading.Timer(0.05, go.set).start()
        await while_busy(lambda: sync_to_async(go.wait)(WAIT), ident)
        assert trio.current_time() == before

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert not looks


def test_another_trio_than_we_know_proves_nothing(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(task: Any) -> Any:
        looks.append(None)
        raise AttributeError("_cancel_status")

    monkeypatch.setattr(deadlocks, "_gives_up", gone)

    async def main() -> None:
        with trio.move_on_after(WAIT) as scope:
            work = from_thread(ident)

            async def late() -> None:
                await looks.several()
                scope.cancel()

            await at_once(sync_to_async(work), late)
        assert scope.cancelled_caught

    trio.run(main)
    assert run(ident())


# ---------------------------------------------------------------------------- both at once


class Other:
    """A run of trio in a thread of its own."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,))
        self._end: Any = None
        self._token: Any = None

    async def _main(self) -> None:
        self._end = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._ready.set()
        with trio.move_on_after(2 * WAIT):
            await self._end.wait()

    def __enter__(self) -> Other:
        self._thread.start()
        assert self._ready.wait(WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._end.set)
        self._thread.join(WAIT)
        assert not self._thread.is_alive()

    def call(self, function: Callable[[], object]) -> None:
        self._token.run_sync_soon(function)

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Have it run there, and wait."""
        return trio.from_thread.run(function, *args, trio_token=self._token)


def test_a_cycle_from_asyncio_through_trio_is_found() -> None:
    with Other() as other:

        async def main() -> None:
            text = await failure(sync_to_async(lambda: other.run(ident)))
            assert "deadlock" in text

        run(main())


def test_a_cycle_from_trio_through_asyncio_is_found() -> None:
    async def main() -> None:
        loops: list[Any] = []
        with trio.fail_after(WAIT):
            ready = threading.Event()

            async def serve() -> None:
                loops.extend((asyncio.get_running_loop(), asyncio.Event()))
                ready.set()
                await asyncio.wait_for(loops[1].wait(), WAIT)

            thread = threading.Thread(target=asyncio.run, args=(serve(),))
            thread.start()
            assert ready.wait(WAIT)

            def work() -> Any:
                return asyncio.run_coroutine_threadsafe(ident(), loops[0]).result()

            text = await failure(sync_to_async(work))
            assert "deadlock" in text
            loops[0].call_soon_threadsafe(loops[1].set)
            thread.join(WAIT)

    trio.run(main)


def test_a_cycle_through_both_and_two_threads_is_found() -> None:
    with Other() as other:

        async def main() -> None:
            loop = asyncio.get_running_loop()

            def back() -> Any:
                return asyncio.run_coroutine_threadsafe(ident(), loop).result()

            async def inner() -> None:
                await sync_to_async(lambda: async_to_sync(there)(), thread_sensitive=False)()

            async def there() -> None:
                await sync_to_async(back, thread_sensitive=False)()

            def work() -> None:
                other.run(inner)

            assert "deadlock" in await failure(sync_to_async(work))

        run(main())


# ---------------------------------------------------------------------------- asyncio


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
            return asyncio.run_coroutine_threadsafe(ident(), loop).result()

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
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.3), loop).result()
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


@pytest.mark.usefixtures("looks")
def test_who_is_waited_for_twice_is_looked_at_once() -> None:
    async def main() -> None:
        end = asyncio.Event()
        task = asyncio.create_task(end.wait())
        await looked_at(lambda: asyncio.gather(task, task), end.set)

    run(main())


@pytest.mark.usefixtures("looks")
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
            return future.result()

        with pytest.raises(RuntimeError, match="deadlock"):
            await sync_to_async(work)()

    run(main())


def test_a_thread_that_makes_progress_is_not_looked_into(looks: Looks) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        go = threading.Event()
        busy = asyncio.create_task(sync_to_async(go.wait)(WAIT))
        late = asyncio.create_task(ident())
        while not (the_thread() and the_thread().current):
            await asyncio.sleep(0)
        thread = the_thread()
        key = id(loop), id(thread)
        looks.clear()
        deadlocks._look(thread, None, loop, key)
        deadlocks._look(thread, object(), loop, key)  # type: ignore[arg-type]
        assert not looks
        deadlocks._look(thread, thread.current, loop, key)
        assert looks == [None]
        go.set()
        await asyncio.gather(busy, late)

    run(main())


@pytest.mark.usefixtures("looks")
def test_a_call_of_another_loop_is_left_to_that(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(deadlocks, "PERIOD", WAIT)

        def work() -> int:
            return asyncio.run_coroutine_threadsafe(ident(), loop).result()

        busy = asyncio.create_task(sync_to_async(work)())
        victim = None
        while victim is None:
            await asyncio.sleep(0.001)
            victim = deadlocks._victim(the_thread(), the_thread().current, loop)
        assert deadlocks._victim(the_thread(), the_thread().current, object()) is None
        loop.call_soon(victim[0].fail, RuntimeError("found"))
        with pytest.raises(RuntimeError, match="found"):
            await busy

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


SOON = 0.2
"""Seconds after which a program gives up by itself; many looks."""


async def waits_for_long() -> str:
    try:
        async with asyncio.timeout(SOON):
            return str(await ident())
    except TimeoutError:
        return "given up"


async def waits_for_long_as_wait_for_does() -> str:
    try:
        if sys.version_info < (3, 12):
            return await waits_for_long()
        return str(await asyncio.wait_for(ident(), SOON))
    except TimeoutError:
        return "given up"


async def waits_in_a_scope_of_anyio() -> str:
    with anyio.move_on_after(SOON):
        return str(await ident())
    return "given up"


async def fails_after_a_while() -> str:
    try:
        with anyio.fail_after(SOON):
            return str(await ident())
    except TimeoutError:
        return "given up"


@pytest.mark.parametrize(
    "inner",
    [
        waits_for_long,
        waits_for_long_as_wait_for_does,
        waits_in_a_scope_of_anyio,
        fails_after_a_while,
    ],
)
def test_a_timeout_of_asyncio_that_ends_the_cycle_is_no_deadlock(
    looks: Looks, inner: Callable[[], Coroutine[Any, Any, str]]
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def work() -> str:
            return asyncio.run_coroutine_threadsafe(inner(), loop).result()

        assert await sync_to_async(work)() == "given up"
        assert looks
        assert not any(looks)

    run(main())


def test_a_timeout_that_has_no_end_hides_no_deadlock() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def inner() -> int:
            async with asyncio.timeout(None):
                return await ident()

        def work() -> int:
            return asyncio.run_coroutine_threadsafe(inner(), loop).result()

        with pytest.raises(RuntimeError, match="deadlock"):
            await sync_to_async(work)()

    run(main())


def test_a_thread_that_waits_with_a_timeout_is_no_deadlock(looks: Looks) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        futures: list[Future[int]] = []

        def work() -> str:
            futures.append(asyncio.run_coroutine_threadsafe(ident(), loop))
            try:
                return str(futures[0].result(SOON))
            except TimeoutError:
                return "given up"

        assert await sync_to_async(work)() == "given up"
        assert await asyncio.wrap_future(futures[0]) == await ident()
        assert looks
        assert not any(looks)

    run(main())


def test_gather_ends_by_the_error_of_one_that_goes_on(looks: Looks) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[int]] = []

        async def fail() -> None:
            await looks.several()
            raise ValueError("the other one")

        async def inner() -> None:
            tasks.append(asyncio.create_task(ident()))
            await asyncio.gather(tasks[0], fail())

        def work() -> None:
            asyncio.run_coroutine_threadsafe(inner(), loop).result()

        with pytest.raises(ValueError, match="the other one"):
            await sync_to_async(work)()
        assert await tasks[0] == await ident()

    run(main())


def test_a_task_in_a_callback_of_others_is_not_what_a_thread_waits_for(looks: Looks) -> None:
    async def main() -> None:
        go = threading.Event()
        begun = asyncio.Event()

        async def call() -> int:
            await begun.wait()
            return await ident()

        task = asyncio.create_task(call())

        def work() -> None:
            with ThreadPoolExecutor(1) as executor:
                future = executor.submit(go.wait, WAIT)
                future.add_done_callback(lambda _: task.get_name())
                future.result()

        busy = asyncio.create_task(sync_to_async(work)())
        while not (the_thread() and the_thread().current):
            await asyncio.sleep(0)
        begun.set()
        await looks.several()
        go.set()
        await busy
        assert await task == await ident()

    run(main())
