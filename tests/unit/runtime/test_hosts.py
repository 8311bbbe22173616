from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.stage import LIBRARIES, Stage, perform, turns

from omnicorn.runtime.hosts import Event, hosting, running_host
from omnicorn.runtime.server import Server

if TYPE_CHECKING:
    from tests.stage import Play


@pytest.fixture(params=LIBRARIES)
def play(request: pytest.FixtureRequest) -> Play:
    """Runs a scenario on each library."""
    return partial(perform, request.param)


# --------------------------------------------------------------------------------- the host


def test_the_host_is_of_the_library_that_runs(play: Play) -> None:
    async def main(stage: Stage) -> None:
        async with hosting() as host:
            kind = "TrioLoop" if stage.library == "trio" else "AsyncioLoop"
            assert type(host).__name__ == kind
            assert host.gathers_writes is (stage.library == "uvloop")
            now = host.time()
            seen = host.create_future()
            host.call_at(now + 0.01, partial(seen.set_result, None))
            await seen
            assert host.time() >= now + 0.009  # uvloop counts whole milliseconds

    play(main)


def test_asyncio_in_a_thread_of_a_trio_program_is_asyncio() -> None:
    """That trio is imported, and even runs elsewhere, says nothing."""

    async def kind() -> str:
        async with hosting() as host:
            return type(host).__name__

    async def main(stage: Stage) -> None:
        assert await kind() == "TrioLoop"
        assert await anyio.to_thread.run_sync(lambda: asyncio.run(kind())) == "AsyncioLoop"

    perform("trio", main)


def test_without_trio_at_all_it_is_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(stage: Stage) -> None:
        monkeypatch.delitem(sys.modules, "trio")
        async with hosting() as host:
            assert type(host).__name__ == "AsyncioLoop"
        assert "trio" not in sys.modules  # nor is it imported to find out
        monkeypatch.undo()

    perform("asyncio", main)


def test_where_nothing_runs_there_is_no_host() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        hosting().__aenter__().send(None)
    with pytest.raises(RuntimeError, match=r"Server.start\(\) needs a running asyncio loop"):
        running_host()


def test_on_trio_there_is_no_host_without_a_place_for_tasks() -> None:
    async def main(stage: Stage) -> None:
        with pytest.raises(RuntimeError, match=r"async with Server\(app, config\)") as caught:
            running_host()
        assert caught.value.__suppress_context__

    perform("trio", main)


@pytest.mark.parametrize("library", ["asyncio", "uvloop"])
def test_the_running_host_of_asyncio_is_its_loop(library: str) -> None:
    async def main(stage: Stage) -> None:
        assert running_host().time() == pytest.approx(asyncio.get_running_loop().time(), abs=1)

    perform(library, main)


# ---------------------------------------------------------------------------------- outlast


def test_a_waiter_is_awaited_though_the_caller_is_cancelled(play: Play) -> None:
    async def main(stage: Stage) -> None:
        waiter = stage.host.create_future()
        cancellations: list[int] = []
        task = stage.begin(stage.host.outlast, waiter, lambda: cancellations.append(1))
        await turns()
        task.cancel()
        await turns()
        assert not task.done and cancellations == [1]
        task.cancel()
        await turns()
        assert not task.done
        assert len(cancellations) == (1 if stage.library == "trio" else 2)  # trio knows no second
        waiter.set_result(None)
        await task.end()
        assert task.was_cancelled

    play(main)


def test_a_caller_that_is_not_cancelled_just_waits(play: Play) -> None:
    async def main(stage: Stage) -> None:
        waiter = stage.host.create_future()
        cancellations: list[int] = []
        task = stage.begin(stage.host.outlast, waiter, lambda: cancellations.append(1))
        await turns()
        assert not task.done
        waiter.set_result(None)
        await task.end()
        assert not task.was_cancelled and cancellations == []
        await stage.host.outlast(waiter, lambda: cancellations.append(1))  # done already

    play(main)


def test_a_caller_in_a_cancelled_scope_of_anyio_waits_in_peace(play: Play) -> None:
    """On asyncio, anyio cancels it again in each turn of the loop; that is said once already."""

    async def main(stage: Stage) -> None:
        waiter = stage.host.create_future()
        cancellations: list[int] = []

        async def end_in_order() -> None:
            with anyio.CancelScope() as scope:
                scope.cancel()
                try:
                    await anyio.sleep_forever()
                finally:
                    await stage.host.outlast(waiter, lambda: cancellations.append(1))

        task = stage.begin(end_in_order)
        await turns()
        done = task.done
        waiter.set_result(None)
        await task.end()
        assert not done and cancellations == []
        assert not task.was_cancelled

    play(main)


# ------------------------------------------------------------------------------------ events


def test_an_event_happens_once_and_calls_who_watches() -> None:
    event = Event()
    calls: list[str] = []
    event.watch(lambda: calls.append("first"))
    event.watch(lambda: calls.append("second"))
    states = [event.is_set]

    event.set()
    event.set()

    states.append(event.is_set)
    assert states == [False, True]
    assert calls == ["first", "second"]


def test_an_event_of_several_happens_with_the_last() -> None:
    event = Event(3)
    calls: list[bool] = []
    event.watch(lambda: calls.append(event.is_set))

    states: list[bool] = []
    for _ in range(3):
        event.set()
        states.append(event.is_set)

    assert states == [False, False, True]
    assert calls == [True]


def test_a_watcher_may_watch_and_set_again() -> None:
    event = Event()
    calls: list[int] = []

    def watcher() -> None:
        calls.append(1)
        event.set()
        event.watch(watcher)

    event.watch(watcher)
    event.set()
    assert calls == [1]


# ----------------------------------------------------- waiting for one of several, for a time


def waiting(host: Any) -> Server:
    """A server that only waits."""
    server = Server()
    server._host = host
    return server


def test_a_wait_ends_with_its_event_with_another_one_or_with_its_time(play: Play) -> None:
    async def main(stage: Stage) -> None:
        wait = waiting(stage.host)._wait

        async def ended(seconds: float, which: int | None) -> bool:
            events = (Event(), Event(), Event())
            task = stage.begin(wait, seconds, *events)
            await turns()
            assert not task.done
            if which is not None:
                events[which].set()
            result: bool = await task.end()
            return result

        assert await ended(60, 0) is True
        assert await ended(60, 1) is False
        assert await ended(60, 2) is False
        began = stage.host.time()
        assert await ended(0.05, None) is False
        assert stage.host.time() - began > 0.045  # uvloop counts milliseconds

    play(main)


def test_a_wait_for_what_has_happened_does_not_wait(play: Play) -> None:
    async def main(stage: Stage) -> None:
        wait = waiting(stage.host)._wait
        over = Event()
        over.set()
        before = Event()
        assert await wait(60, over) is True
        assert await wait(60, over, before) is True
        assert await wait(60, before, over) is False

    play(main)


def test_several_things_at_once_end_a_wait_once(play: Play) -> None:
    async def main(stage: Stage) -> None:
        wait = waiting(stage.host)._wait
        one, two = Event(), Event()
        task = stage.begin(wait, 60, one, two)
        await turns()
        two.set()
        one.set()
        assert await task.end() is True

    play(main)


def test_a_wait_that_is_cancelled_takes_its_timer_with_it(play: Play) -> None:
    async def main(stage: Stage) -> None:
        made: list[Any] = []

        class Watched:
            """The host, whose timers are looked at."""

            def __getattr__(self, name: str) -> Any:
                return getattr(stage.host, name)

            def call_at(self, when: float, callback: Any) -> Any:
                timer = stage.host.call_at(when, callback)
                real = timer.cancel

                class Timer:
                    def cancel(self) -> None:
                        made.remove(self)
                        real()

                made.append(Timer())
                return made[-1]

        event = Event()
        task = stage.begin(waiting(Watched())._wait, 60, event)
        await turns()
        assert len(made) == 1
        task.cancel()
        await task.end()
        assert task.was_cancelled and made == []
        event.set()  # nobody waits, and nothing breaks

    play(main)
