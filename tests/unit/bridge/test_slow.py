"""Which threads may wait for clients; with the clock moved by hand, and no thread at all."""

from __future__ import annotations

from typing import Any

import pytest

from omnicorn.bridge.slow import PATIENCE, SlowClients
from omnicorn.transports.inproc import ManualLoop


class Pool:
    """As many threads as the test says, and as many jobs in line."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.backlog = 0


class Reader:
    def __init__(self) -> None:
        self.cuts = 0

    @property
    def is_cut(self) -> bool:
        return self.cuts > 0

    def cut(self) -> None:
        self.cuts += 1


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


def make(loop: ManualLoop, limit: int) -> tuple[SlowClients, Pool]:
    pool: Any = Pool(limit)
    return SlowClients(loop, pool), pool


def lagging(slow: SlowClients, count: int) -> list[Reader]:
    readers = [Reader() for _ in range(count)]
    for reader in readers:
        slow.lag(reader)
    return readers


@pytest.mark.parametrize(("limit", "half"), [(1, 0), (2, 1), (5, 2), (8, 4)])
def test_half_of_the_threads_may_wait_for_bodies(loop: ManualLoop, limit: int, half: int) -> None:
    slow, _ = make(loop, limit)
    assert [slow.admit() for _ in range(half + 1)] == [True] * half + [False]
    if half:
        slow.leave()
        assert slow.admit()


def test_nobody_is_cut_while_nobody_waits_for_a_thread(loop: ManualLoop) -> None:
    slow, _ = make(loop, 4)
    readers = lagging(slow, 4)
    loop.advance(10 * PATIENCE)
    assert not any(reader.is_cut for reader in readers)


def test_who_has_waited_longest_is_cut_as_many_as_are_waited_for(loop: ManualLoop) -> None:
    slow, pool = make(loop, 6)
    readers = lagging(slow, 6)
    pool.backlog = 2
    loop.advance(PATIENCE)
    assert [reader.is_cut for reader in readers] == [True] * 2 + [False] * 4
    pool.backlog = 10
    loop.advance(PATIENCE)
    assert [reader.is_cut for reader in readers] == [True] * 3 + [False] * 3


def test_nobody_is_cut_once_fewer_than_half_wait(loop: ManualLoop) -> None:
    slow, pool = make(loop, 8)
    readers = lagging(slow, 5)
    slow.forget(readers[0])
    slow.forget(readers[1])
    pool.backlog = 5
    loop.advance(5 * PATIENCE)
    assert not any(reader.is_cut for reader in readers)


def test_who_is_cut_is_cut_once_though_its_thread_has_not_left(loop: ManualLoop) -> None:
    slow, pool = make(loop, 2)
    readers = lagging(slow, 3)
    pool.backlog = 1
    loop.advance(3 * PATIENCE)
    assert [reader.cuts for reader in readers] == [1, 1, 0]


def test_who_lags_twice_has_lagged_since_the_first_time(loop: ManualLoop) -> None:
    slow, pool = make(loop, 1)
    [reader] = lagging(slow, 1)
    pool.backlog = 1
    for _ in range(10):
        loop.advance(PATIENCE / 10)
        slow.lag(reader)
    assert reader.is_cut


def test_bodies_that_hold_threads_count_too(loop: ManualLoop) -> None:
    slow, pool = make(loop, 4)
    assert slow.admit()
    assert slow.admit()
    [reader] = lagging(slow, 1)
    pool.backlog = 1
    loop.advance(PATIENCE)
    assert reader.is_cut


def test_bodies_that_come_after_the_readers_count_too(loop: ManualLoop) -> None:
    slow, pool = make(loop, 4)
    readers = lagging(slow, 2)  # not too many, so far
    loop.advance(2 * PATIENCE)
    assert slow.admit()
    pool.backlog = 1
    loop.advance(PATIENCE)
    assert [reader.is_cut for reader in readers] == [True, False]


def test_who_reads_meanwhile_begins_anew(loop: ManualLoop) -> None:
    slow, pool = make(loop, 2)
    first, second = lagging(slow, 2)
    pool.backlog = 1
    for _ in range(20):
        loop.advance(PATIENCE / 2)
        for reader in (first, second):
            slow.forget(reader)
            slow.lag(reader)
    assert not first.is_cut
    slow.forget(second)
    slow.forget(second)  # harmless
    loop.advance(2 * PATIENCE)
    assert not first.is_cut  # it is but half of the threads


def test_a_line_that_comes_later_is_seen(loop: ManualLoop) -> None:
    slow, pool = make(loop, 1)
    [reader] = lagging(slow, 1)
    loop.advance(3 * PATIENCE)
    assert not reader.is_cut
    pool.backlog = 1
    loop.advance(1.0)
    assert reader.is_cut


def test_nothing_is_timed_while_no_more_than_half_wait(loop: ManualLoop) -> None:
    slow, _ = make(loop, 4)
    readers = lagging(slow, 3)
    slow.forget(readers[0])
    loop.advance(2 * PATIENCE)
    assert loop._timers == []
