"""What `omnicorn.ports.Loop` promises, on every runtime."""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from omnicorn.transports._trio import _innermost_scope

if TYPE_CHECKING:
    from collections.abc import Callable

    Play = Callable[[Callable[[Any], Any]], None]


def test_callbacks_run_later_and_in_order(play: Play) -> None:
    async def scenario(world: Any) -> None:
        seen: list[int] = []
        for number in range(3):
            world.loop.call_soon(lambda number=number: seen.append(number))
        assert seen == []
        await world.turn()
        assert seen == [0, 1, 2]

    play(scenario)


def test_a_callback_asked_for_by_a_callback_runs_too(play: Play) -> None:
    async def scenario(world: Any) -> None:
        seen: list[int] = []
        world.loop.call_soon(lambda: world.loop.call_soon(lambda: seen.append(1)))
        await world.turn()
        assert seen == [1]

    play(scenario)


def test_timers_fire_at_their_time_in_their_order_and_not_before(play: Play) -> None:
    async def scenario(world: Any) -> None:
        loop = world.loop
        began = loop.time()
        seen: list[tuple[int, bool]] = []
        for number, delay in ((3, 0.03), (1, 0.01), (2, 0.02)):
            loop.call_at(
                began + delay,
                lambda number=number, delay=delay: seen.append(
                    (number, loop.time() >= began + delay - 0.002)  # uvloop counts milliseconds
                ),
            )
        assert seen == []
        await world.until(lambda: len(seen) == 3)
        assert seen == [(1, True), (2, True), (3, True)]

    play(scenario)


def test_a_timer_nearer_than_all_others_is_not_late(play: Play) -> None:
    async def scenario(world: Any) -> None:
        loop = world.loop
        far = loop.call_at(loop.time() + 3600.0, lambda: None)
        waiter = loop.create_future()
        loop.call_at(loop.time() + 0.01, lambda: waiter.set_result(None))
        await waiter
        far.cancel()

    play(scenario)


def test_a_cancelled_timer_does_not_fire(play: Play) -> None:
    async def scenario(world: Any) -> None:
        seen: list[int] = []
        timer = world.loop.call_at(world.loop.time() + 0.005, lambda: seen.append(1))
        timer.cancel()
        await world.pause(0.02)
        assert seen == []

    play(scenario)


def test_a_waiter_wakes_who_waits_and_lets_later_ones_pass(play: Play) -> None:
    async def scenario(world: Any) -> None:
        waiter = world.loop.create_future()
        seen: list[str] = []

        async def wait(name: str) -> None:
            assert await waiter is None
            seen.append(name)

        task = world.loop.spawn(wait("first"))
        await world.turn()
        assert seen == [] and not waiter.done()
        waiter.set_result(None)
        assert waiter.done()
        await world.until(lambda: seen)
        await wait("second")
        assert seen == ["first", "second"]
        del task

    play(scenario)


def test_cancelling_a_task_ends_it_where_it_waits_and_nobody_else(play: Play) -> None:
    async def scenario(world: Any) -> None:
        seen: list[str] = []

        async def wait(name: str, waiter: Any) -> None:
            try:
                await waiter
                seen.append(f"{name} woken")
            except BaseException as exc:
                # Nothing that an application catches by the way.
                seen.append(f"{name} {'failed' if isinstance(exc, Exception) else 'cancelled'}")
                raise

        waiters = [world.loop.create_future() for _ in range(2)]
        tasks = [
            world.loop.spawn(wait(name, waiter)) for name, waiter in zip("ab", waiters, strict=True)
        ]
        await world.turn()
        tasks[0].cancel()
        await world.until(lambda: seen)
        assert seen == ["a cancelled"]
        waiters[1].set_result(None)
        await world.until(lambda: len(seen) == 2)
        assert seen == ["a cancelled", "b woken"]
        tasks[1].cancel()  # done: nothing happens
        await world.turn()

    play(scenario)


def test_each_task_has_a_context_of_its_own(play: Play) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def scenario(world: Any) -> None:
        seen: list[tuple[int, int]] = []

        async def change(number: int) -> None:
            before = variable.get()
            variable.set(number)
            await world.turn()
            seen.append((before, variable.get()))

        tasks = [world.loop.spawn(change(number)) for number in (1, 2)]
        await world.until(lambda: len(seen) == len(tasks))
        assert sorted(seen) == [(0, 1), (0, 2)]

    play(scenario)


def test_blocking_work_returns_its_result_or_raises_its_exception(play: Play, runtime: str) -> None:
    async def scenario(world: Any) -> None:
        assert await world.loop.run_blocking(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await world.loop.run_blocking(divmod, 1, 0)
        elsewhere = await world.loop.run_blocking(threading.get_ident)
        assert (elsewhere != threading.get_ident()) == (runtime != "inproc")

    play(scenario)


@pytest.mark.parametrize("cancelled", [False, True])
def test_outlast_awaits_to_the_end_and_tells_of_a_cancellation_meanwhile(
    play: Play, runtime: str, cancelled: bool
) -> None:
    if runtime == "inproc":
        pytest.skip("no server runs on it")

    async def scenario(world: Any) -> None:
        events: list[str] = []
        waiter = world.loop.create_future()

        async def caller() -> None:
            try:
                await world.loop.outlast(waiter, lambda: events.append("told"))
                events.append("returned")
            except BaseException as exc:
                events.append("failed" if isinstance(exc, Exception) else "cancelled")
                raise

        task = world.loop.spawn(caller())
        await world.turn()
        if cancelled:
            task.cancel()
            await world.until(lambda: events)
            await world.turn()
            assert events == ["told"]
        waiter.set_result(None)
        await world.until(lambda: len(events) == 1 + cancelled)
        assert events == (["told", "cancelled"] if cancelled else ["returned"])

    play(scenario)


def test_trio_still_tells_the_innermost_cancel_scope_of_a_task() -> None:
    """What the loop on trio uses although trio keeps it private (`_trio._innermost_scope`)."""

    async def main() -> None:
        task = trio.lowlevel.current_task()
        before = _innermost_scope(task)
        assert before is not None, (
            "trio has renamed Task._cancel_status: without it each worker serves one request"
        )
        with trio.CancelScope():
            inside = _innermost_scope(task)
            assert inside is not before
            assert _innermost_scope(task) is inside
            with trio.move_on_after(1):
                assert _innermost_scope(task) is not inside
            async with trio.open_nursery():
                assert _innermost_scope(task) is not inside
            assert _innermost_scope(task) is inside
        assert _innermost_scope(task) is before

    trio.run(main)
