from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from omnicorn.connections.deadlines import WIDTH, Deadlines
from omnicorn.transports.inproc import ManualLoop

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = float("inf")


class Item:
    """Something with a deadline that notes when it was asked after it had passed."""

    def __init__(self, loop: ManualLoop, deadline: float) -> None:
        self.slot = -1
        self.deadline = deadline
        self.asked = 0
        self.met: list[float] = []
        self.act: Callable[[], float] = lambda: NEVER
        self._loop = loop

    def on_deadline(self, now: float) -> float:
        assert now == self._loop.time()
        self.asked += 1
        if now < self.deadline:
            return self.deadline
        self.met.append(now)
        self.deadline = self.act()
        return self.deadline


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
def deadlines(loop: ManualLoop) -> Deadlines:
    return Deadlines(loop)


def watched(loop: ManualLoop, deadlines: Deadlines, seconds: float) -> Item:
    item = Item(loop, loop.time() + seconds)
    deadlines.watch(item, item.deadline)
    return item


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.25, 0.26, 1.0, 14.99, 75.0])
def test_a_deadline_is_met_late_by_at_most_one_slot_and_never_early(
    loop: ManualLoop, deadlines: Deadlines, seconds: float
) -> None:
    due = loop.time() + seconds
    item = watched(loop, deadlines, seconds)

    loop.advance(seconds + WIDTH)

    assert len(item.met) == 1
    assert due <= item.met[0] <= due + WIDTH
    loop.advance(1000.0)
    assert len(item.met) == 1


def test_moving_a_deadline_away_costs_no_timer(loop: ManualLoop, deadlines: Deadlines) -> None:
    item = watched(loop, deadlines, 10.0)
    timers = len(loop._timers)
    for seconds in range(11, 111):
        item.deadline = loop.time() + seconds
        deadlines.watch(item, item.deadline)
    assert len(loop._timers) == timers

    loop.advance(109.0)
    assert item.met == []
    assert item.asked <= 2
    loop.advance(1.0 + WIDTH)
    assert len(item.met) == 1


def test_a_deadline_that_comes_nearer_is_met_at_its_new_time(
    loop: ManualLoop, deadlines: Deadlines
) -> None:
    item = watched(loop, deadlines, 75.0)
    item.deadline = loop.time() + 5.0
    deadlines.watch(item, item.deadline)

    loop.advance(5.0 + WIDTH)

    assert len(item.met) == 1


def test_what_is_forgotten_is_not_asked(loop: ManualLoop, deadlines: Deadlines) -> None:
    item, other = watched(loop, deadlines, 1.0), watched(loop, deadlines, 1.0)
    deadlines.forget(item)
    deadlines.forget(item)
    loop.advance(10.0)

    assert (item.asked, item.slot) == (0, -1)
    assert len(other.met) == 1


def test_many_items_share_a_slot_and_one_timer(loop: ManualLoop, deadlines: Deadlines) -> None:
    items = [watched(loop, deadlines, 1.0) for _ in range(1000)]
    assert len(loop._timers) == 1

    loop.advance(1.0 + WIDTH)
    assert all(len(item.met) == 1 for item in items)


def test_an_item_may_forget_others_while_it_is_asked(
    loop: ManualLoop, deadlines: Deadlines
) -> None:
    items = [watched(loop, deadlines, 1.0) for _ in range(10)]

    def act() -> float:
        for item in items:
            deadlines.forget(item)
        return NEVER

    for item in items:
        item.act = act
    loop.advance(2.0)

    assert sum(item.asked for item in items) == 1


def test_an_item_that_watches_itself_while_it_is_asked_stands_once(
    loop: ManualLoop, deadlines: Deadlines
) -> None:
    item = watched(loop, deadlines, 1.0)

    def act() -> float:
        item.act = lambda: NEVER
        item.deadline = loop.time() + 5.0
        deadlines.watch(item, item.deadline)
        return item.deadline

    item.act = act
    loop.advance(20.0)

    assert len(item.met) == 2
    assert item.asked == 2


def test_a_deadline_in_the_past_is_met_in_the_next_slot(
    loop: ManualLoop, deadlines: Deadlines
) -> None:
    item = watched(loop, deadlines, -10.0)
    loop.advance(WIDTH)

    assert len(item.met) == 1


def test_a_held_up_loop_meets_all_deadlines_late_and_goes_on(
    loop: ManualLoop, deadlines: Deadlines
) -> None:
    items = [watched(loop, deadlines, float(seconds)) for seconds in (1, 2, 3, 60)]
    items[0].act = lambda: loop.time() + 1.0

    loop.jump(30.0)
    assert [len(item.met) for item in items] == [1, 1, 1, 0]

    items[0].act = lambda: NEVER
    loop.advance(1.0 + WIDTH)
    assert [len(item.met) for item in items] == [2, 1, 1, 0]
    loop.advance(30.0)
    assert [len(item.met) for item in items] == [2, 1, 1, 1]


def test_a_far_deadline_set_while_others_are_asked_does_not_delay_a_near_one(
    loop: ManualLoop, deadlines: Deadlines
) -> None:
    closing, busy = watched(loop, deadlines, 1.0), watched(loop, deadlines, 1.0)

    def act() -> float:
        closing.act = lambda: NEVER
        closing.deadline = loop.time() + 60.0
        deadlines.watch(closing, closing.deadline)
        return closing.deadline

    closing.act = act
    busy.act = lambda: loop.time() + 5.0
    loop.advance(1.0 + WIDTH)
    busy.act = lambda: NEVER

    loop.advance(5.0 + 2 * WIDTH)
    assert len(busy.met) == 2
