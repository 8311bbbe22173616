from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from omnicorn.toolkit import links
from omnicorn.toolkit.libraries import TrioLoop
from omnicorn.toolkit.links import Link, linked
from omnicorn.toolkit.sync import sync_to_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Run = Callable[[Callable[[], Awaitable[Any]]], Any]


def on_asyncio(main: Callable[[], Awaitable[Any]]) -> Any:
    async def coroutine() -> Any:
        return await main()

    return asyncio.run(coroutine())


def on_trio(main: Callable[[], Awaitable[Any]]) -> Any:
    return trio.run(main)


on_both = pytest.mark.parametrize("run", [on_asyncio, on_trio])
for_both_threads = pytest.mark.parametrize("thread_sensitive", [False, True])


async def pause() -> None:
    """Let everyone else go on once."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await trio.lowlevel.checkpoint()
    else:
        await asyncio.sleep(0)


async def wait_for_ever() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await trio.sleep_forever()
    else:
        await asyncio.Event().wait()


def serve(run: Run, work: Callable[[Link], Any], thread_sensitive: bool = False) -> Any:
    """Do *work* with a link in a thread; its result, once all it posted is done."""

    async def main() -> Any:
        results: list[Any] = []

        async def in_a_thread(link: Link) -> None:
            results.append(await sync_to_async(work, thread_sensitive=thread_sensitive)(link))
            await link.drain()

        await linked(in_a_thread, thread_sensitive)
        return results[0]

    return run(main)


@on_both
@for_both_threads
def test_a_step_runs_in_the_event_loop_and_its_result_comes_back(
    run: Run, thread_sensitive: bool
) -> None:
    async def add(one: int, two: int) -> tuple[int, int]:
        await pause()
        return one + two, threading.get_ident()

    def work(link: Link) -> tuple[int, int]:
        assert threading.get_ident() != here
        total: tuple[int, int] = link.call(add, 1, 2)
        return total

    here = threading.get_ident()

    assert serve(run, work, thread_sensitive) == (3, here)


@on_both
@for_both_threads
def test_an_error_of_a_step_is_raised_where_it_was_called(run: Run, thread_sensitive: bool) -> None:
    async def fail() -> None:
        raise LookupError("broken")

    def work(link: Link) -> str:
        with pytest.raises(LookupError) as caught:
            link.call(fail)
        return str(caught.value)

    assert serve(run, work, thread_sensitive) == "broken"


@on_both
def test_nobody_waits_for_a_posted_step_but_drain_does(run: Run) -> None:
    order: list[str] = []
    returned = threading.Event()

    async def step() -> None:
        while not returned.is_set():
            await pause()
        order.append("done")

    def work(link: Link) -> None:
        link.post(step)
        order.append("posted")
        returned.set()

    serve(run, work)

    assert order == ["posted", "done"]


@on_both
@for_both_threads
def test_an_error_of_a_posted_step_comes_out_of_drain(run: Run, thread_sensitive: bool) -> None:
    """Not in an exception group, on trio either; with a thread that waits, of the post."""

    async def fail() -> None:
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        serve(run, lambda link: link.post(fail), thread_sensitive)


@on_both
@for_both_threads
def test_no_step_begins_after_the_end(run: Run, thread_sensitive: bool) -> None:
    made: list[Link] = []
    serve(run, made.append, thread_sensitive)

    for use in (made[0].call, made[0].post):
        with pytest.raises(OSError, match="the request is over"):
            use(wait_for_ever)


@on_both
def test_a_thread_that_waits_for_a_step_is_told_of_the_end(run: Run) -> None:
    raised: list[OSError] = []
    ended = threading.Event()

    async def main() -> None:
        begun = threading.Event()

        async def step() -> None:
            begun.set()
            await wait_for_ever()

        def work(link: Link) -> None:
            try:
                link.call(step)
            except OSError as error:
                raised.append(error)
            ended.set()

        async def leave_it(link: Link) -> None:
            threading.Thread(target=work, args=(link,), daemon=True).start()
            while not begun.is_set():
                await pause()

        await linked(leave_it, False)

    run(main)

    assert ended.wait(10)
    assert "the request is over" in str(raised[0])


async def alongside(background: Callable[[], Awaitable[Any]], main: Callable[[], Any]) -> None:
    """Await *main* while *background* runs, which nobody cancels; then that."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(background)
            await main()
    else:
        task = asyncio.ensure_future(background())
        await main()
        await task


@on_both
def test_a_thread_of_sync_code_is_told_of_the_end_as_well(run: Run) -> None:
    raised: list[BaseException] = []
    made: list[Link] = []
    begun = threading.Event()

    async def step() -> None:
        begun.set()
        await wait_for_ever()

    def work() -> None:
        try:
            made[0].call(step)
        except BaseException as error:
            raised.append(error)

    async def main() -> None:
        async def leave_it(link: Link) -> None:
            made.append(link)
            while not begun.is_set():
                await pause()

        async def in_a_thread() -> None:
            while not made:
                await pause()
            await sync_to_async(work)()

        await alongside(in_a_thread, lambda: linked(leave_it, True))

    run(main)

    assert isinstance(raised[0], OSError)
    assert "the request is over" in str(raised[0])


async def cancelled(main: Callable[[], Awaitable[None]], begun: threading.Event) -> bool:
    """Cancel *main* once when *begun*; whether it ended so."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def cancel() -> None:
                while not begun.is_set():
                    await pause()
                scope.cancel()

            nursery.start_soon(cancel)
            with scope:
                await main()
        return scope.cancelled_caught
    task = asyncio.ensure_future(main())
    while not begun.is_set():
        await pause()
    task.cancel()
    await asyncio.wait((task,))
    return task.cancelled()


@on_both
@for_both_threads
@pytest.mark.parametrize("swallows", [False, True])
def test_a_cancellation_is_an_error_to_the_thread_and_stays_one_to_the_task(
    run: Run, thread_sensitive: bool, swallows: bool
) -> None:
    raised: list[BaseException] = []
    begun, ended = threading.Event(), threading.Event()

    async def step() -> None:
        begun.set()
        await wait_for_ever()

    def work(link: Link) -> None:
        try:
            for _ in range(2):  # nobody would cancel the second one
                try:
                    link.call(step)
                except BaseException as error:
                    raised.append(error)
                    if not swallows:
                        raise
        finally:
            ended.set()

    async def in_a_thread(link: Link) -> None:
        await sync_to_async(work, thread_sensitive=thread_sensitive)(link)

    assert run(lambda: cancelled(lambda: linked(in_a_thread, thread_sensitive), begun))
    assert ended.wait(10)
    assert [type(error).__mro__[1] for error in raised] == [ConnectionAbortedError] * (1 + swallows)


@for_both_threads
def test_a_step_that_cancels_itself_leaves_the_task_as_it_is(thread_sensitive: bool) -> None:
    async def step() -> None:
        raise asyncio.CancelledError  # a future that somebody else cancelled

    def work(link: Link) -> None:
        link.call(step)

    with pytest.raises(OSError, match="the request is over"):
        serve(on_asyncio, work, thread_sensitive)


@on_both
def test_an_error_of_a_clean_up_is_not_hidden_by_the_cancellation(run: Run) -> None:
    begun = threading.Event()

    async def step() -> None:
        begun.set()
        await wait_for_ever()

    def work(link: Link) -> None:
        try:
            link.call(step)
        finally:
            raise LookupError("broken")

    async def in_a_thread(link: Link) -> None:
        await sync_to_async(work)(link)

    async def main() -> None:
        with pytest.raises(LookupError, match="broken"):
            await linked(in_a_thread, True)

    assert not run(lambda: cancelled(main, begun))


@on_both
@for_both_threads
@pytest.mark.parametrize("way", ["call", "post"])
def test_a_step_that_arrives_after_the_end_does_not_begin(
    run: Run, thread_sensitive: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[OSError] = []
    steps: list[str] = []
    made: list[Link] = []
    stands, handed_over = threading.Event(), threading.Event()

    async def step() -> None:
        steps.append("begun")

    def work() -> None:
        assert stands.wait(10)
        try:
            getattr(made[0], way)(step)
        except OSError as error:
            raised.append(error)

    async def main() -> None:
        owner: Any = TrioLoop if run is on_trio else asyncio.get_running_loop()
        hand_over = owner.call_soon_threadsafe

        def noted(*args: Any, **options: Any) -> Any:
            handle = hand_over(*args, **options)
            handed_over.set()
            return handle

        monkeypatch.setattr(owner, "call_soon_threadsafe", noted)

        async def leave_it(link: Link) -> None:
            made.append(link)
            while not called:
                await pause()
            stands.set()
            assert handed_over.wait(10)  # the loop stands still, so the step has not arrived

        async def in_a_thread() -> None:
            while not made:
                await pause()
            called.append(True)
            await sync_to_async(work, thread_sensitive=thread_sensitive)()

        called: list[bool] = []
        await alongside(in_a_thread, lambda: linked(leave_it, thread_sensitive))

    run(main)

    assert len(raised) == (way == "call" or thread_sensitive)
    assert not steps


class GoneLoop:
    """A loop that was closed: before a step was handed over, or behind it."""

    def __init__(self, takes: bool) -> None:
        self._takes = takes
        self._answers = [False, True]

    def call_soon_threadsafe(self, *args: Any) -> None:
        if not self._takes:
            raise RuntimeError("Event loop is closed")

    def is_closed(self) -> bool:
        return self._answers.pop(0)


@pytest.mark.parametrize("takes", [False, True])
def test_a_loop_that_was_closed_answers_with_an_error(
    monkeypatch: pytest.MonkeyPatch, takes: bool
) -> None:
    loop: Any = GoneLoop(takes)
    monkeypatch.setattr(links, "PATIENCE", 0.01)

    with pytest.raises(OSError, match="the request is over"):
        Link(loop, False).call(wait_for_ever)


def test_sync_code_does_not_take_another_loop_for_the_requests() -> None:
    """`async_to_sync` would make one, where that of the request has stopped."""

    async def stay(link: Link) -> None:
        with pytest.raises(OSError, match="the request is over"):
            await asyncio.get_running_loop().run_in_executor(None, link.call, wait_for_ever)

    on_asyncio(lambda: linked(stay, True))


@on_both
def test_what_was_spawned_ends_with_the_link(run: Run) -> None:
    states: list[str] = []

    async def step() -> None:
        states.append("begun")
        try:
            await wait_for_ever()
        finally:
            states.append("ended")

    async def main() -> None:
        async def serve(link: Link) -> None:
            link.spawn(step)
            while not states:
                await pause()

        await linked(serve, False)
        await pause()

    run(main)

    assert states == ["begun", "ended"]


@on_both
def test_what_is_linked_raises_as_it_is(run: Run) -> None:
    async def fail(link: Link) -> None:
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        run(lambda: linked(fail, False))
