"""Whose content comes next (RFC 9218): the rows by themselves, and through the engine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.http2_client import frame, number, reset

from omnicorn.protocols.http2.codes import (
    DATA,
    FRAME_SIZE_ERROR,
    INITIAL_WINDOW_SIZE,
    PRIORITY_UPDATE,
    PROTOCOL_ERROR,
)
from omnicorn.protocols.http2.schedule import Schedule

WIDE = ((INITIAL_WINDOW_SIZE, 1 << 24),)


class Stand:
    """Something that waits."""

    def __init__(self, urgency: int = 3, incremental: bool = False) -> None:
        self.urgency = urgency
        self.incremental = incremental
        self.scheduled = -1


def update(stream: int, value: bytes) -> bytes:
    return frame(PRIORITY_UPDATE, 0, 0, number(stream) + value)


# ---------------------------------------------------------------- the rows


def test_the_most_urgent_is_served_first() -> None:
    schedule: Schedule[Stand] = Schedule()
    stands = [Stand(urgency) for urgency in (7, 3, 0, 5)]
    for stand in stands:
        schedule.add(stand)
    order = []
    while schedule.count:
        order.append(schedule.first().urgency)
        schedule.remove(schedule.first())
    assert order == [0, 3, 5, 7]


def test_one_that_is_not_incremental_is_served_to_its_end() -> None:
    schedule: Schedule[Stand] = Schedule()
    one, two = Stand(), Stand()
    schedule.add(one)
    schedule.add(two)
    for _ in range(3):
        assert schedule.first() is one
        schedule.served(one)
    schedule.remove(one)
    assert schedule.first() is two


def test_incremental_ones_take_turns() -> None:
    schedule: Schedule[Stand] = Schedule()
    stands = [Stand(3, True) for _ in range(3)]
    for stand in stands:
        schedule.add(stand)
    order = []
    for _ in range(6):
        first = schedule.first()
        order.append(stands.index(first))
        schedule.served(first)
    assert order == [0, 1, 2, 0, 1, 2]


def test_nobody_stands_in_a_row_twice() -> None:
    schedule: Schedule[Stand] = Schedule()
    one = Stand()
    schedule.add(one)
    schedule.add(one)
    assert schedule.count == 1
    schedule.remove(one)
    schedule.remove(one)
    assert schedule.count == 0 and one.scheduled == -1
    with pytest.raises(LookupError):
        schedule.first()


def test_one_whose_urgency_changes_moves() -> None:
    schedule: Schedule[Stand] = Schedule()
    one, two = Stand(1), Stand(2)
    schedule.add(one)
    schedule.add(two)
    one.urgency = 5
    schedule.move(one)
    assert schedule.first() is two and schedule.count == 2
    other = Stand()
    other.urgency = 0
    schedule.move(other)  # stands in none
    assert schedule.first() is two


@given(
    st.lists(
        st.tuples(st.sampled_from("arms"), st.integers(0, 5), st.integers(0, 7), st.booleans()),
        max_size=60,
    )
)
def test_the_count_is_that_of_those_who_wait(steps: list[tuple[str, int, int, bool]]) -> None:
    schedule: Schedule[Stand] = Schedule()
    stands = [Stand() for _ in range(6)]
    for verb, who, urgency, incremental in steps:
        stand = stands[who]
        if verb == "a":
            if stand.scheduled < 0:
                stand.urgency, stand.incremental = urgency, incremental
            schedule.add(stand)
        elif verb == "r":
            schedule.remove(stand)
        elif verb == "m":
            stand.urgency = urgency
            schedule.move(stand)
        elif schedule.count:
            schedule.served(schedule.first())
        waiting = [stand for stand in stands if stand.scheduled >= 0]
        assert schedule.count == len(waiting)
        if waiting:
            assert schedule.first().urgency == min(stand.urgency for stand in waiting)


# ---------------------------------------------------------------- through the engine


def queue(dialogue: Any, *priorities: str | None, size: int = 300_000) -> list[int]:
    """Requests with these priorities, all answered while the connection's window is shut."""
    first = dialogue.headers(1)
    dialogue.send(first)
    dialogue.exchange(1).respond(b"-" * 65535)
    dialogue.take()
    streams = []
    for index, priority in enumerate(priorities):
        stream = 2 * index + 3
        fields = [] if priority is None else [("priority", priority)]
        dialogue.send(dialogue.headers(stream, "/", *fields))
        streams.append(stream)
    for stream in streams:
        dialogue.exchange(stream).respond(b"x" * size)
    dialogue.take()
    return streams


def order(dialogue: Any, grant: int = 1 << 23) -> list[int]:
    """The streams of the DATA frames that come when the connection's window opens."""
    return [event.stream for event in dialogue.grant(0, grant) if event.kind == DATA]


def runs(streams: list[int]) -> list[int]:
    return [stream for at, stream in enumerate(streams) if not at or streams[at - 1] != stream]


def test_urgent_responses_come_first(connect: Any) -> None:
    """RFC 9218 §4.1, §10"""
    dialogue = connect(WIDE)
    queue(dialogue, "u=7", "u=1", "u=3", "u=0", "u=5")
    assert runs(order(dialogue)) == [9, 5, 7, 11, 3]
    assert all(dialogue.reply(stream).ended for stream in (3, 5, 7, 9, 11))


def test_responses_that_are_not_incremental_come_one_after_the_other(connect: Any) -> None:
    """RFC 9218 §10: sequentially, in the order of the requests."""
    dialogue = connect(WIDE)
    queue(dialogue, "u=2", "u=2", "u=2")
    assert runs(order(dialogue)) == [3, 5, 7]


@pytest.mark.parametrize("priority", ["u=2, i", None])
def test_incremental_responses_and_those_of_silent_clients_share(
    connect: Any, priority: str | None
) -> None:
    """RFC 9218 §10"""
    dialogue = connect(WIDE)
    queue(dialogue, priority, priority, priority)
    come = order(dialogue)
    turns = runs(come)
    assert turns[:6] == [3, 5, 7, 3, 5, 7]
    # Fair: at no time is one of them more than a turn ahead of another that waits.
    sent = dict.fromkeys((3, 5, 7), 0)
    for stream in come[: come.index(turns[-3])]:
        sent[stream] += 1
        assert max(sent.values()) - min(sent.values()) <= 4


def test_an_urgent_response_overtakes_one_that_is_under_way(connect: Any) -> None:
    dialogue = connect(WIDE)
    queue(dialogue, "u=3", size=500_000)
    order(dialogue, 100_000)
    dialogue.send(dialogue.headers(21, "/", ("priority", "u=0")))
    dialogue.exchange(21).respond(b"y" * 10_000)
    dialogue.take()
    assert runs(order(dialogue)) == [21, 3]


def test_priority_update_changes_the_order_of_what_waits(connect: Any) -> None:
    """RFC 9218 §7.1"""
    dialogue = connect(WIDE)
    queue(dialogue, "u=1", "u=2", "u=3")
    dialogue.send(update(7, b"u=0"), update(3, b"u=6"))
    assert runs(order(dialogue)) == [7, 5, 3]


def test_priority_update_may_come_before_its_request_and_overrides_it(connect: Any) -> None:
    """RFC 9218 §7.1: also of an idle stream; §7: it takes precedence over the field."""
    dialogue = connect(WIDE)
    dialogue.send(update(7, b"u=0"), update(5, b"u=6"))
    queue(dialogue, None, "u=1", "u=5")
    assert runs(order(dialogue)) == [7, 3, 5]


def test_the_last_priority_update_counts(connect: Any) -> None:
    dialogue = connect(WIDE)
    dialogue.send(update(5, b"u=6"), update(5, b"u=0"))
    queue(dialogue, "u=1", "u=1")
    assert runs(order(dialogue)) == [5, 3]


def test_a_priority_update_before_the_response_counts(connect: Any) -> None:
    dialogue = connect(WIDE)
    dialogue.send(dialogue.headers(1), dialogue.headers(3), dialogue.headers(5))
    dialogue.send(update(5, b"u=1"))
    dialogue.exchange(1).respond(b"-" * 65535)
    dialogue.take()
    for stream in (3, 5):
        dialogue.exchange(stream).respond(b"x" * 100_000)
    dialogue.take()
    assert runs(order(dialogue)) == [5, 3]


def test_what_is_pushed_can_be_reprioritised(connect: Any) -> None:
    """RFC 9218 §7.1"""
    dialogue = connect(WIDE)
    queue(dialogue, "u=3", "u=3")
    assert dialogue.engine.push(dialogue.exchange(3).stream, b"http", b"/", []) is False
    dialogue.send(dialogue.headers(21))
    assert dialogue.engine.push(dialogue.exchange(21).stream, b"http", b"/", [])
    dialogue.send(update(2, b"u=0"))
    dialogue.exchange(2).respond(b"y" * 1000)
    dialogue.take()
    assert runs(order(dialogue))[0] == 2


def test_priority_update_of_what_is_over_is_dropped(connect: Any) -> None:
    dialogue = connect(WIDE)
    dialogue.send(dialogue.headers(1))
    dialogue.engine.push(dialogue.exchange(1).stream, b"http", b"/", [])
    for stream in (1, 2):
        dialogue.exchange(stream).respond()
    dialogue.take()
    assert dialogue.send(update(1, b"u=0"), update(2, b"u=0")) == []
    dialogue.assert_alive()
    assert not dialogue.engine._late_priorities


def test_a_broken_priority_is_no_error(connect: Any) -> None:
    """RFC 9218 §4, §7.1: it is advice."""
    dialogue = connect(WIDE)
    dialogue.send(update(1, b"\xff\0u==="), update(3, b""), update(5, b"u=9"))
    dialogue.assert_alive()


@pytest.mark.parametrize(
    ("payload", "stream", "code"),
    [
        (number(0) + b"u=1", 0, PROTOCOL_ERROR),
        (number(1) + b"u=1", 1, PROTOCOL_ERROR),
        (number(2) + b"u=1", 0, PROTOCOL_ERROR),  # a push that is idle
        (b"\0\0\1", 0, FRAME_SIZE_ERROR),
    ],
)
def test_a_priority_update_of_nothing_ends_the_connection(
    connect: Any, payload: bytes, stream: int, code: int
) -> None:
    """RFC 9218 §7.1"""
    dialogue = connect()
    dialogue.send(dialogue.post(1), frame(PRIORITY_UPDATE, 0, stream, payload))
    dialogue.assert_dead(code)


def test_priorities_of_idle_streams_count_against_the_limit(connect: Any) -> None:
    """RFC 9218 §7.1: PROTOCOL_ERROR beyond MAX_CONCURRENT_STREAMS, with the active ones."""
    dialogue = connect(max_streams=4)
    dialogue.send(dialogue.headers(1), dialogue.headers(3))
    dialogue.send(update(5, b"u=1"), update(7, b"u=1"), update(5, b"u=2"), update(1, b"u=2"))
    assert dialogue.engine.error is None
    dialogue.send(update(9, b"u=1"))
    dialogue.assert_dead(PROTOCOL_ERROR)


def test_priorities_of_many_streams_that_come_and_go_are_all_obeyed(connect: Any) -> None:
    """What is remembered of those that were cancelled does not fill the memory for good."""
    dialogue = connect(WIDE)
    for stream in range(101, 1501, 2):
        dialogue.send(update(stream, b"u=0"), dialogue.headers(stream))
        if stream % 3:
            dialogue.exchange(stream).respond(b"")
        else:
            dialogue.now += 0.1
            dialogue.send(reset(stream))
    dialogue.send(dialogue.headers(1801))
    dialogue.exchange(1801).respond(b"-" * 65535)
    dialogue.send(dialogue.headers(1803), dialogue.headers(1805), update(1805, b"u=0"))
    for stream in (1803, 1805):
        dialogue.exchange(stream).respond(b"x" * 100_000)
    dialogue.take()
    assert runs(order(dialogue)) == [1805, 1803]
    assert len(dialogue.engine._late_priorities) <= 128


def test_a_stream_whose_window_is_shut_holds_nobody_up(connect: Any) -> None:
    dialogue = connect(((INITIAL_WINDOW_SIZE, 0),))
    dialogue.send(dialogue.headers(1, "/", ("priority", "u=0")))
    dialogue.send(dialogue.headers(3, "/", ("priority", "u=7")))
    for stream in (1, 3):
        dialogue.exchange(stream).respond(b"x" * 1000)
    dialogue.take()
    dialogue.grant(3, 2000)
    assert dialogue.reply(3).ended and not dialogue.reply(1).body
    dialogue.grant(1, 2000)
    assert dialogue.reply(1).ended


def test_control_frames_overtake_content_that_waits(connect: Any) -> None:
    dialogue = connect(WIDE)
    queue(dialogue, None, None)
    assert [event.kind for event in dialogue.send(frame(6, 0, 0, b"12345678"))] == [6]
