from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import traceback
import warnings
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.toolkit import sync as module
from omnicorn.toolkit import threads
from omnicorn.toolkit.local import Local
from omnicorn.toolkit.sync import (
    AsyncPortal,
    AsyncSingleThreadContext,
    AsyncToSync,
    SyncToAsync,
    ThreadSensitiveContext,
    async_to_sync,
    iscoroutinefunction,
    markcoroutinefunction,
    sync_to_async,
    thread_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

WAIT = 5.0
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME")

ident = sync_to_async(threading.get_ident)
free_ident = sync_to_async(threading.get_ident, thread_sensitive=False)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(coroutine, WAIT)

    return asyncio.run(limited())


async def async_ident() -> int:
    return threading.get_ident()


# sync_to_async: what it takes, and what it makes


def test_what_is_not_callable_is_refused() -> None:
    func: Any = 1
    with pytest.raises(TypeError, match=r"^sync_to_async can only be applied to sync functions\.$"):
        sync_to_async(func)


def test_async_functions_partials_and_callables_are_refused() -> None:
    class Callable_:
        async def __call__(self) -> None: ...

    for func in (async_ident, functools.partial(async_ident), Callable_()):
        with pytest.raises(TypeError, match="can only be applied to sync functions"):
            sync_to_async(func)


def test_an_executor_needs_thread_sensitive_false() -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(TypeError, match="executor"):
        sync_to_async(int, executor=executor)


def test_an_unknown_cancellation_is_refused() -> None:
    with pytest.raises(ValueError, match="'never'; it must be"):
        sync_to_async(int, cancellation="never")  # type: ignore[call-overload]


def test_the_wrapper_is_a_coroutine_function_with_the_attributes_of_the_function() -> None:
    @sync_to_async(thread_sensitive=False)
    def function(number: int) -> int:
        """Adds."""
        return number + 1

    wrapper: Any = function
    assert isinstance(function, SyncToAsync)
    assert iscoroutinefunction(wrapper)
    assert not iscoroutinefunction(sync_to_async)
    assert (wrapper.__name__, wrapper.__doc__) == ("function", "Adds.")
    assert wrapper.__wrapped__ is wrapper.func
    assert run(function(1)) == 2


def test_a_marked_function_is_a_coroutine_function() -> None:
    def function() -> None: ...

    assert not iscoroutinefunction(function)
    assert markcoroutinefunction(function) is function
    assert iscoroutinefunction(function)


def test_methods_are_wrapped_with_their_self() -> None:
    class Thing:
        def name(self) -> str:
            return "thing"

        decorated = sync_to_async(name)

        async def async_name(self) -> str:
            return "async"

        bridged = async_to_sync(async_name)

    thing = Thing()
    bound = sync_to_async(thing.name)
    assert bound.__self__ is thing  # type: ignore[attr-defined]
    assert run(bound()) == "thing"
    assert run(thing.decorated()) == "thing"
    assert async_to_sync(thing.async_name).__self__ is thing  # type: ignore[attr-defined]
    assert thing.bridged() == "async"
    assert thing.bridged.__name__ == "async_name"


def test_a_context_attribute_of_the_function_is_not_taken_over() -> None:
    class Thing:
        context = 1

        def __init__(self) -> None:
            self.context = 2

        def __call__(self) -> int:
            return 3

    wrapped = sync_to_async(Thing())
    assert wrapped.context is None  # type: ignore[attr-defined]
    assert run(wrapped()) == 3


def test_arguments_may_have_the_names_of_our_own() -> None:
    def sync(**kwargs: int) -> dict[str, int]:
        return kwargs

    async def asynchronous(**kwargs: int) -> dict[str, int]:
        return kwargs

    names = {"self_": 1, "context": 1, "loop": 2, "task_context": 3, "func": 4, "child": 5}
    assert run(sync_to_async(sync)(**names)) == names
    assert async_to_sync(asynchronous)(**names) == names


def test_the_thread_handler_can_be_overridden_and_gets_a_partial() -> None:
    seen: list[Any] = []

    class Handler(SyncToAsync[Any, Any]):
        def thread_handler(self, loop: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append((loop, threading.get_ident(), args[-1]))
            args[-1].keywords.pop("injected")
            return super().thread_handler(loop, *args, **kwargs)

    def function(number: int) -> int:
        return number

    async def main() -> None:
        assert await Handler(function)(7, injected=object()) == 7
        ((loop, thread, child),) = seen
        assert loop is asyncio.get_running_loop()
        assert thread != threading.get_ident()
        assert isinstance(child, functools.partial)
        assert (child.func, child.args) == (function, (7,))

    run(main())


def test_awaiting_without_a_task_is_refused() -> None:
    coroutine = ident()
    with pytest.raises(RuntimeError, match="must be awaited in a task of asyncio or trio"):
        coroutine.send(None)


# async_to_sync: what it takes


@pytest.mark.parametrize("func", [1, lambda: None])
def test_what_is_not_marked_async_is_warned_about(func: Any) -> None:
    with pytest.warns(UserWarning, match="was passed a non-async-marked callable") as caught:
        async_to_sync(func)
    assert caught[0].filename == module.__file__ or caught[0].filename == __file__


def test_async_callables_are_taken_without_a_warning() -> None:
    class Thing:
        async def __call__(self, number: int) -> int:
            return number

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert async_to_sync(Thing())(3) == 3
        assert async_to_sync(functools.partial(Thing().__call__, 4))() == 4


def test_a_function_that_returns_an_awaitable_is_called_in_the_callers_thread() -> None:
    seen: list[int] = []

    def function() -> Awaitable[int]:
        seen.append(threading.get_ident())
        NAME.set("set before there was a coroutine")
        return async_ident()

    with pytest.warns(UserWarning, match="non-async-marked"):
        call = async_to_sync(function)
    assert contextvars.copy_context().run(lambda: (call(), NAME.get())[1]) == (
        "set before there was a coroutine"
    )
    assert seen == [threading.get_ident()]


def test_it_is_refused_where_a_loop_runs() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="just await the async function directly"):
            async_to_sync(async_ident)()

    run(main())


def test_reading_a_bridged_method_from_the_class_works() -> None:
    class Thing:
        @async_to_sync
        async def method(self) -> str:
            return "called"

    # Read from the class it is bound to None, as asgiref's is: Django's tests are found so.
    assert Thing.method.__name__ == "method"
    assert Thing().method() == "called"


# Threads


def test_thread_sensitive_calls_share_one_thread_that_is_not_the_loops() -> None:
    async def main() -> None:
        idents = set(await asyncio.gather(*[ident() for _ in range(5)]))
        assert len(idents) == 1
        assert threading.get_ident() not in idents

    run(main())


def test_thread_insensitive_calls_run_at_once() -> None:
    barrier = threading.Barrier(3)

    async def main() -> None:
        wait = sync_to_async(barrier.wait, thread_sensitive=False)
        assert sorted(await asyncio.gather(*[wait(WAIT) for _ in range(3)])) == [0, 1, 2]

    run(main())


def test_thread_insensitive_calls_use_the_default_executor_that_the_loop_was_given() -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1, "mine") as executor:
            asyncio.get_running_loop().set_default_executor(executor)
            thread = await sync_to_async(threading.current_thread, thread_sensitive=False)()
            assert thread.name.startswith("mine")

    run(main())


def test_a_default_executor_that_the_loop_made_itself_is_not_used() -> None:
    async def main() -> None:
        await asyncio.to_thread(int)
        thread = await sync_to_async(threading.current_thread, thread_sensitive=False)()
        assert thread.name.startswith("omnicorn-sync")

    run(main())


def test_an_executor_of_any_kind_is_used_through_submit() -> None:
    class Executor:
        def __init__(self) -> None:
            self.inner = ThreadPoolExecutor(1)
            self.calls = 0

        def submit(self, work: Any, *args: Any) -> Future[Any]:
            self.calls += 1
            return self.inner.submit(work, *args)

    async def main() -> None:
        executor = Executor()
        given: Any = executor
        call = sync_to_async(int, thread_sensitive=False, executor=given)
        assert await call("7") == 7
        assert executor.calls == 1
        executor.inner.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            await call("7")

    run(main())


def test_a_call_whose_executor_drops_it_is_cancelled() -> None:
    async def main() -> None:
        executor = ThreadPoolExecutor(1)
        go = threading.Event()
        busy = executor.submit(go.wait, WAIT)
        call = sync_to_async(int, thread_sensitive=False, executor=executor)
        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        executor.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        busy.result(WAIT)

    run(main())


def test_under_async_to_sync_thread_sensitive_calls_run_in_the_calling_thread() -> None:
    async def main() -> None:
        assert await ident() == here
        assert await asyncio.create_task(ident()) == here
        assert await free_ident() != here
        assert threading.get_ident() != here

    here = threading.get_ident()
    async_to_sync(main)()


def test_sync_code_under_a_loop_calls_back_into_that_loop() -> None:
    async def main() -> None:
        here = threading.get_ident()
        assert await sync_to_async(async_to_sync(async_ident))() == here
        call = sync_to_async(async_to_sync(async_ident), thread_sensitive=False)
        assert await call() == here

    run(main())


def test_force_new_loop_does_not_use_that_loop() -> None:
    async def main() -> None:
        call = async_to_sync(async_ident, force_new_loop=True)
        assert await sync_to_async(call)() != threading.get_ident()

    run(main())


def test_bridges_nest_in_both_directions() -> None:
    @async_to_sync
    async def from_sync(depth: int) -> list[int]:
        return [threading.get_ident(), *(await to_sync(depth))]

    @sync_to_async
    def to_sync(depth: int) -> list[int]:
        mine = [threading.get_ident()]
        return mine + (from_sync(depth - 1) if depth else [])

    loops, threads_ = set(), set()
    found = from_sync(10)
    loops.update(found[::2])
    threads_.update(found[1::2])
    assert threads_ == {threading.get_ident()}
    assert len(loops) == 1

    async def main() -> None:
        found = await to_sync(10)
        assert set(found[1::2]) == {threading.get_ident()}
        assert len(set(found[::2])) == 1

    run(main())


def test_top_level_calls_have_new_loops_and_the_same_thread() -> None:
    async def where() -> tuple[asyncio.AbstractEventLoop, int]:
        return asyncio.get_running_loop(), threading.get_ident()

    started = thread_statistics().started
    results = [async_to_sync(where)() for _ in range(5)]
    assert len({loop for loop, _ in results}) == 5
    assert all(loop.is_closed() for loop, _ in results)
    assert thread_statistics().started - started <= 1
    assert threading.get_ident() not in {thread for _, thread in results}


def test_a_top_level_call_ends_what_it_leaves_behind() -> None:
    ended: list[str] = []

    async def sleeper() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await sync_to_async(ended.append)("task")

    async def generator() -> Any:
        try:
            yield 1
        finally:
            ended.append("generator")

    async def main() -> int:
        main.task = asyncio.create_task(sleeper())  # type: ignore[attr-defined]
        main.generator = generator()  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        found: int = await anext(main.generator)  # type: ignore[attr-defined]
        await asyncio.to_thread(int)
        return found

    assert async_to_sync(main)() == 1
    assert sorted(ended) == ["generator", "task"]


def test_errors_go_through_with_their_traceback() -> None:
    def fail() -> None:
        raise ValueError("here")

    async def main() -> None:
        await sync_to_async(fail)()

    with pytest.raises(ValueError, match="here") as caught:
        async_to_sync(main)()
    assert "fail" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def test_hidden_frames_are_marked() -> None:
    def fail() -> None:
        raise ValueError

    async def main() -> None:
        await sync_to_async(fail)()

    with pytest.raises(ValueError) as caught:
        async_to_sync(main)()
    hidden, frame = set(), caught.value.__traceback__
    while frame is not None:
        if frame.tb_frame.f_locals.get("__traceback_hide__"):
            hidden.add(frame.tb_frame.f_code.co_name)
        frame = frame.tb_next
    assert {"__call__", "thread_handler"} <= hidden


def test_what_is_being_handled_is_handled_on_the_other_side() -> None:
    def handled() -> BaseException | None:
        return sys.exc_info()[1]

    async def asynchronous() -> BaseException | None:
        await asyncio.sleep(0)
        return handled()

    mine = LookupError("being handled")
    try:
        raise mine
    except LookupError:
        depth = len(traceback.extract_tb(mine.__traceback__))
        found = [async_to_sync(asynchronous)(), async_to_sync(sync_to_async(handled))()]
        same_depth = len(traceback.extract_tb(mine.__traceback__)) == depth
    assert found == [mine, mine]
    assert same_depth
    assert async_to_sync(asynchronous)() is None


def test_stop_iteration_from_a_sync_function_is_a_runtime_error() -> None:
    def stop() -> None:
        raise StopIteration("value")

    async def main() -> None:
        for sensitive in (True, False):
            with pytest.raises(RuntimeError, match="StopIteration") as caught:
                await sync_to_async(stop, thread_sensitive=sensitive)()
            assert isinstance(caught.value.__cause__, StopIteration)

    run(main())


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exits_in_the_coroutine_reach_the_caller(error: type[BaseException]) -> None:
    async def leave() -> None:
        raise error("leave")

    with pytest.raises(error, match="leave"):
        async_to_sync(leave)()

    async def main() -> None:
        with pytest.raises(error, match="leave"):
            await sync_to_async(async_to_sync(leave))()

    run(main())


# ThreadSensitiveContext


def test_a_context_has_one_thread_that_no_other_has() -> None:
    async def request(barrier: asyncio.Barrier) -> set[int]:
        async with ThreadSensitiveContext():
            found = {await ident()}
            await barrier.wait()
            found |= set(await asyncio.gather(ident(), asyncio.create_task(ident())))
        return found

    async def main() -> None:
        barrier = asyncio.Barrier(4)
        found = await asyncio.gather(*[request(barrier) for _ in range(4)])
        assert [len(one) for one in found] == [1, 1, 1, 1]
        assert len(set.union(*found)) == 4

    run(main())


def test_contexts_nest_and_the_outermost_counts() -> None:
    async def main() -> None:
        async with ThreadSensitiveContext():
            first = await ident()
            async with ThreadSensitiveContext():
                assert await ident() == first
            assert await ident() == first
        assert SyncToAsync.thread_sensitive_context.get() is None

    run(main())


def test_contexts_take_turns_with_the_same_threads() -> None:
    async def main() -> None:
        idents = set()
        async with ThreadSensitiveContext():
            idents.add(await ident())
        started = thread_statistics().started
        for _ in range(50):
            async with ThreadSensitiveContext():
                idents.add(await ident())
        assert thread_statistics().started == started
        assert len(idents) == 1

    run(main())


def test_a_context_without_calls_takes_no_thread() -> None:
    async def main() -> None:
        async with ThreadSensitiveContext() as context:
            assert context not in SyncToAsync.context_to_thread_executor

    run(main())


def test_leaving_a_context_waits_for_its_thread_without_blocking_the_loop() -> None:
    async def main() -> None:
        go, started = threading.Event(), threading.Event()
        done: list[int] = []

        def work() -> None:
            started.set()
            go.wait(WAIT)
            done.append(1)

        async def request() -> None:
            async with ThreadSensitiveContext():
                task = asyncio.create_task(sync_to_async(work)())
                await asyncio.to_thread(started.wait, WAIT)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                left.set()

        left = asyncio.Event()
        leaving = asyncio.create_task(request())
        await left.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not leaving.done()
        go.set()
        await leaving
        assert done == [1]

    run(main())


def test_a_context_with_an_executor_uses_it_and_leaves_it_running() -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1, "mine") as executor:
            mine = await asyncio.wrap_future(executor.submit(threading.get_ident))
            async with ThreadSensitiveContext() as outer:
                other = await ident()
                async with ThreadSensitiveContext(executor=executor) as inner:
                    assert SyncToAsync.context_to_thread_executor[inner] is executor
                    assert await ident() == mine
                assert SyncToAsync.thread_sensitive_context.get() is outer
                assert inner not in SyncToAsync.context_to_thread_executor
                assert await ident() == other
            assert executor.submit(int).result() == 0

    run(main())


def test_a_context_with_an_executor_counts_under_async_to_sync_too() -> None:
    async def main() -> None:
        before = AsyncToSync.executors.current
        with ThreadPoolExecutor(1) as executor:
            async with ThreadSensitiveContext(executor=executor):
                assert AsyncToSync.executors.current is None
                assert await ident() != here
        assert AsyncToSync.executors.current is before
        assert await ident() == here

    here = threading.get_ident()
    async_to_sync(main)()


def test_a_context_with_an_executor_is_for_one_use() -> None:
    async def main() -> None:
        exited = asyncio.Event()

        async def late() -> int:
            await exited.wait()
            return await ident()

        with ThreadPoolExecutor(1) as executor:
            context = ThreadSensitiveContext(executor=executor)
            async with context:
                with pytest.raises(RuntimeError, match="already entered"):
                    await context.__aenter__()
                task = asyncio.create_task(late())
            exited.set()
            with pytest.raises(RuntimeError, match="cannot be entered again"):
                await context.__aenter__()
            with pytest.raises(RuntimeError, match="has exited"):
                await task

    run(main())


def test_a_late_call_of_a_context_gets_a_thread_which_goes_back_with_the_context() -> None:
    async def main() -> None:
        exited = asyncio.Event()

        async def late() -> None:
            await exited.wait()
            await ident()

        async with ThreadSensitiveContext() as context:
            task = asyncio.create_task(late())
        exited.set()
        await task
        assert context in SyncToAsync.context_to_thread_executor
        del context

    idle = thread_statistics().idle
    run(main())
    for _ in range(100):
        gc.collect()  # without a GIL, each round may free what the next one needs to
        if thread_statistics().idle >= idle:
            return
        threading.Event().wait(0.01)
    raise AssertionError("the thread did not come back")


# AsyncSingleThreadContext and AsyncPortal


def test_a_single_thread_context_has_one_thread_and_new_loops() -> None:
    async def where() -> tuple[int, asyncio.AbstractEventLoop]:
        return threading.get_ident(), asyncio.get_running_loop()

    with AsyncSingleThreadContext():
        first = async_to_sync(where)()
        with AsyncSingleThreadContext():
            second = async_to_sync(where)()
        third = async_to_sync(where)()
    assert first[0] == second[0] == third[0] != threading.get_ident()
    assert first[1] is not second[1]


def test_a_single_thread_context_gives_way_to_a_running_loop() -> None:
    def sync() -> int:
        with AsyncSingleThreadContext():
            return async_to_sync(async_ident)()

    async def main() -> None:
        assert await sync_to_async(sync)() == threading.get_ident()

    run(main())


def test_a_call_within_a_single_thread_contexts_own_call_does_not_wait_for_it() -> None:
    async def main() -> int:
        return await asyncio.to_thread(async_to_sync(async_ident))

    with AsyncSingleThreadContext():
        async_to_sync(main)()
    with AsyncPortal():
        async_to_sync(main)()


def test_a_portal_has_one_loop_in_the_calling_thread_and_starts_none() -> None:
    async def where() -> tuple[int, asyncio.AbstractEventLoop]:
        return threading.get_ident(), asyncio.get_running_loop()

    before = thread_statistics()
    with AsyncPortal():
        first = async_to_sync(where)()
        second = async_to_sync(where)()
        assert first == second
        assert first[0] == threading.get_ident()
        assert not first[1].is_closed()
    assert first[1].is_closed()
    assert thread_statistics().started == before.started


def test_a_portals_loop_makes_way_for_thread_sensitive_calls() -> None:
    ticks: list[int] = []

    async def ticker() -> None:
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    def work() -> int:
        seen = len(ticks)
        for _ in range(500):  # the loop runs on meanwhile
            if len(ticks) > seen:
                break
            threading.Event().wait(0.01)
        assert len(ticks) > seen
        async_to_sync(asyncio.sleep)(0)
        return threading.get_ident()

    async def main() -> asyncio.AbstractEventLoop:
        task = asyncio.create_task(ticker())
        assert await sync_to_async(work)() == here
        assert await sync_to_async(work)() == here
        task.cancel()
        return asyncio.get_running_loop()

    async def again() -> asyncio.AbstractEventLoop:
        assert await ident() == here
        return asyncio.get_running_loop()

    here = threading.get_ident()
    with AsyncPortal():
        loop = async_to_sync(main)()
        assert async_to_sync(again)() is loop
    assert loop.is_closed()


def test_a_portal_keeps_tasks_between_calls_and_cancels_them_at_its_end() -> None:
    ended: list[str] = []

    async def background(event: asyncio.Event) -> None:
        try:
            await event.wait()
            ended.append("event")
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def start() -> tuple[asyncio.Task[None], asyncio.Event]:
        event = asyncio.Event()
        return asyncio.create_task(background(event)), event

    async def signal_(event: asyncio.Event) -> None:
        event.set()
        for _ in range(5):
            await asyncio.sleep(0)

    with AsyncPortal():
        _task, event = async_to_sync(start)()
        async_to_sync(signal_)(event)
        assert ended == ["event"]
    assert ended == ["event", "cancelled"]


def test_a_call_that_a_portals_coroutine_leaves_behind_is_made() -> None:
    async def leave() -> asyncio.Task[int]:
        task = asyncio.create_task(ident())
        await asyncio.sleep(0)
        return task

    async def take(task: asyncio.Task[int]) -> int:
        return await task

    with AsyncPortal():
        task = async_to_sync(leave)()
        assert async_to_sync(take)(task) == threading.get_ident()


def test_locals_move_with_a_portals_loop() -> None:
    values = Local()

    async def sleeper(event: asyncio.Event) -> str:
        values.name = "sleeper"
        await event.wait()
        return str(values.name)

    async def main() -> str:
        values.name = "main"
        event = asyncio.Event()
        task = asyncio.create_task(sleeper(event))
        await asyncio.sleep(0)
        before = threading.get_ident()
        assert await ident() == before != threading.get_ident()
        assert values.name == "main"
        event.set()
        return await task

    with AsyncPortal():
        assert async_to_sync(main)() == "sleeper"


def test_errors_come_out_of_a_portal_and_leave_it_usable() -> None:
    async def fail() -> None:
        raise ValueError

    with AsyncPortal():
        for _ in range(2):
            with pytest.raises(ValueError):
                async_to_sync(fail)()
        assert async_to_sync(async_ident)() == threading.get_ident()


# Ends


INTERRUPTED = """
import asyncio, os, signal, sys
from omnicorn.toolkit.sync import *
async def main():
    try:
        {before}
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(30)
    finally:
        await asyncio.sleep(0)
        print("cleaned up", flush=True)
with {context}:
    try:
        async_to_sync(main)()
    except KeyboardInterrupt:
        print("interrupted")
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("before", ["pass", "await sync_to_async(int)()"])
@pytest.mark.parametrize("context", ["AsyncSingleThreadContext()", "AsyncPortal()"])
def test_ctrl_c_cancels_the_coroutine_and_is_raised_after_its_cleanup(
    before: str, context: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(before=before, context=context)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert ended.stdout == "cleaned up\ninterrupted\nTrue\n"
    assert ended.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_second_ctrl_c_does_not_wait_for_the_cleanup() -> None:
    async def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(WAIT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.to_thread(over.wait, WAIT)

    over = threading.Event()
    try:
        with pytest.raises(KeyboardInterrupt):
            async_to_sync(main)()
    finally:
        over.set()


def test_a_call_that_its_own_thread_makes_is_refused() -> None:
    def work() -> None:
        asyncio.run(ident())

    async def main() -> None:
        with pytest.raises(RuntimeError, match="from its own thread"):
            await sync_to_async(work)()

    async_to_sync(main)()


def test_a_failing_submit_leaves_no_flag() -> None:
    async def main() -> None:
        class Refusing(ThreadPoolExecutor):
            def submit(self, *args: Any, **kwargs: Any) -> Any:
                raise RuntimeError("refused")

        before = SyncToAsync.single_thread_executor
        SyncToAsync.single_thread_executor = Refusing(1)
        try:
            with pytest.raises(RuntimeError, match="refused"):
                await ident()
        finally:
            SyncToAsync.single_thread_executor = before
        assert await ident() != threading.get_ident()
        assert not SyncToAsync.deadlock_context.get()

    run(main())


def test_a_task_that_outlives_its_bridge_uses_the_next_thread_that_waits() -> None:
    async def inner() -> asyncio.Task[int]:
        return asyncio.create_task(later())

    async def later() -> int:
        await asyncio.sleep(0.01)
        return await ident()

    async def main() -> int:
        task = await sync_to_async(async_to_sync(inner))()
        return await task

    assert async_to_sync(main)() == threading.get_ident()
    assert run(main()) != threading.get_ident()


def test_a_loop_that_has_stopped_is_not_waited_for() -> None:
    loop = asyncio.new_event_loop()
    outcome: Future[Any] = Future()
    started = threading.Event()

    def work() -> None:
        started.set()
        try:
            async_to_sync(asyncio.sleep)(WAIT)
        except BaseException as error:
            outcome.set_result(error)

    async def main() -> None:
        main.task = asyncio.create_task(  # type: ignore[attr-defined]
            sync_to_async(work, thread_sensitive=False)()
        )
        while len(asyncio.all_tasks()) < 3:  # this one, the call's, and that of its coroutine
            await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    error = outcome.result(WAIT)
    assert isinstance(error, RuntimeError)
    assert "the event loop it runs in has stopped" in str(error)
    loop.run_until_complete(main.task)  # type: ignore[attr-defined]
    loop.close()


def test_sync_code_of_a_loop_that_has_stopped_gets_a_new_loop() -> None:
    loop = asyncio.new_event_loop()
    go, outcome = threading.Event(), Future[int]()

    def work() -> None:
        go.wait(WAIT)
        outcome.set_result(async_to_sync(async_ident)())

    async def main() -> None:
        main.task = asyncio.create_task(  # type: ignore[attr-defined]
            sync_to_async(work, thread_sensitive=False)()
        )
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    go.set()
    assert outcome.result(WAIT) != threading.get_ident()
    loop.run_until_complete(main.task)  # type: ignore[attr-defined]
    loop.close()


def test_the_mark_of_a_call_is_gone_when_it_has_ended() -> None:
    async def main() -> None:
        def mark() -> object:
            return SyncToAsync.threadlocal.main_event_loop

        assert await sync_to_async(mark)() is asyncio.get_running_loop()

    async_to_sync(main)()
    assert SyncToAsync.threadlocal.main_event_loop is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_has_bridges_of_its_own() -> None:
    async def child_main() -> int:
        async with ThreadSensitiveContext():
            await ident()
        return await ident() + await free_ident()

    def forked() -> int:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                signal.alarm(10)
                async_to_sync(child_main)()
                asyncio.run(child_main())
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    async def main() -> int:
        await free_ident()
        async with ThreadSensitiveContext():
            return await sync_to_async(forked)()

    assert run(main()) == 0
    assert async_to_sync(main)() == 0
    assert forked() == 0


# Nothing remains


def test_a_call_leaves_nothing_alive() -> None:
    class Thing:
        pass

    async def change(thing: Thing) -> None:
        NAME.set("changed")

    def keep(variable: contextvars.ContextVar[Thing], thing: Thing) -> None:
        variable.set(thing)

    async def main() -> list[weakref.ref[Thing]]:
        refs = []

        async def one() -> None:
            thing = Thing()
            refs.append(weakref.ref(thing))
            variable: contextvars.ContextVar[Thing] = contextvars.ContextVar("variable")
            await sync_to_async(keep)(variable, thing)
            await sync_to_async(async_to_sync(change))(thing)
            with pytest.raises(ZeroDivisionError):
                await sync_to_async(lambda _: 1 // 0)(thing)

        await asyncio.create_task(one())
        await asyncio.sleep(0)
        return refs

    gc.collect()
    gc.disable()
    try:
        (ref,) = run(main())
        for _ in range(100):
            if ref() is None:
                break
            threading.Event().wait(0.01)
            if sysconfig.get_config_var("Py_GIL_DISABLED"):
                gc.collect()  # what a thread made that now waits is freed by it or by the collector
        assert ref() is None
    finally:
        gc.enable()


def test_a_loop_made_for_a_call_is_forgotten() -> None:
    async_to_sync(async_ident)()
    with AsyncPortal():
        async_to_sync(async_ident)()

    assert AsyncToSync.loop_thread_executors == {}


def test_signatures_are_asgirefs() -> None:
    assert list(inspect.signature(SyncToAsync.__init__).parameters)[1:5] == [
        "func",
        "thread_sensitive",
        "executor",
        "context",
    ]
    assert list(inspect.signature(AsyncToSync.__init__).parameters)[1:] == [
        "awaitable",
        "force_new_loop",
    ]
    assert {"task_context", "loop", "exc_info", "func"} <= set(
        inspect.signature(SyncToAsync.thread_handler).parameters
    )
    assert threads.thread_statistics is thread_statistics
