from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

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
    links: list[Link] = []
    serve(run, links.append, thread_sensitive)

    for use in (links[0].call, links[0].post):
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
