"""Flow control (RFC 9113 §5.2, §6.9), both ways, on whatever hypothesis thinks of.

`Dialogue` asserts at each frame that no window of the client's is exceeded. What is said here is
that nothing is lost or reordered, and that everything gets on as soon as it may.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tuned
from hypothesis import strategies as st
from tests.http2_client import data, frame, reset, settings, window_update

from omnicorn.protocols.http2.codes import DATA, INITIAL_WINDOW_SIZE, WINDOW_UPDATE

WINDOWS = st.sampled_from([0, 1, 300, 1000, 16383, 16384, 16385, 65535, 100_000, 1 << 20])
GRANTS = st.sampled_from([1, 256, 300, 1000, 5000, 16384, 20_000, 65535, 200_000])
PIECES = st.lists(
    st.sampled_from([0, 1, 5, 100, 1000, 16383, 16384, 16385, 33_000, 70_000]), max_size=6
)

thorough = tuned(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def content(stream: int, size: int) -> bytes:
    return random.Random(stream).randbytes(size)


def assert_books(dialogue: Any) -> None:
    """What the client may send and what waits here are the window, and what is lent."""
    engine = dialogue.engine
    assert dialogue.room[0] == engine._room >= 0
    for number, stream in engine.streams.items():
        if number in dialogue.room and not stream.remote_ended:
            assert dialogue.room[number] == stream.room >= 0
    waiting = sum(s.unread for s in engine.streams.values() if s.handler is not None)
    window = max(engine.settings.window, 65535)
    assert engine._room + engine._credit + waiting == window + engine._lent
    assert 0 <= engine._lent <= 8 * engine.settings.window


# ---------------------------------------------------------------- to the peer


@thorough
@given(
    initial=WINDOWS,
    bodies=st.lists(PIECES, min_size=1, max_size=5),
    priorities=st.lists(st.sampled_from(["", "u=0", "u=0, i", "u=5", "i"]), min_size=5, max_size=5),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("grant"), st.integers(0, 5), GRANTS),
            st.tuples(st.just("initial"), st.just(0), WINDOWS),
            st.tuples(st.just("send"), st.integers(0, 4), st.just(0)),
            st.tuples(st.just("take"), st.just(0), st.just(0)),
            st.tuples(st.just("full"), st.just(0), st.just(0)),
        ),
        max_size=40,
    ),
)
def test_no_byte_is_lost_no_window_exceeded_and_every_stream_gets_on(
    connect: Any, initial: int, bodies: Any, priorities: list[str], steps: Any
) -> None:
    dialogue = connect(((INITIAL_WINDOW_SIZE, initial),))
    streams = [2 * index + 1 for index in range(len(bodies))]
    want = {}
    waiting: dict[int, Any] = {}
    for stream, sizes, priority in zip(streams, bodies, priorities, strict=False):
        fields = [("priority", priority)] if priority else []
        dialogue.send(dialogue.headers(stream, "/", *fields))
        dialogue.exchange(stream).stream.send_head(200, [])
        body = want[stream] = content(stream, sum(sizes))
        pieces = waiting[stream] = []
        for size in sizes:
            pieces.append(body[:size])
            body = body[size:]

    def send(stream: int) -> None:
        pieces = waiting[stream]
        if pieces is not None:
            piece = pieces.pop(0) if pieces else b""
            dialogue.exchange(stream).stream.send_data(piece, not pieces)
            if not pieces:
                waiting[stream] = None

    for verb, which, amount in steps:
        dialogue.now += 0.1
        if verb == "grant":
            stream = 0 if which >= len(streams) else streams[which]
            dialogue.grant(stream, amount)
        elif verb == "initial":
            dialogue.send(settings((INITIAL_WINDOW_SIZE, amount)))
        elif verb == "send":
            send(streams[which % len(streams)])
        elif verb == "full":
            dialogue.full = True
            dialogue.engine.blocked = True
        else:
            dialogue.full = False
            dialogue.take()
    for stream in streams:
        while waiting[stream] is not None:
            send(stream)
    dialogue.full = False
    dialogue.take()
    # What may leave has left: who still waits, waits for a window.
    for stream in streams:
        reply, body = dialogue.reply(stream), want[stream]
        assert body.startswith(reply.body)
        if len(reply.body) < len(body):
            assert dialogue.window <= 0 or reply.window <= 0, "it might get on"
        else:
            assert reply.ended
    # And gets on when the windows open.
    for _ in range(4):
        if all(dialogue.reply(stream).ended for stream in streams):
            break
        dialogue.grant(0, 1 << 20)
        for stream in streams:
            if not dialogue.reply(stream).ended and dialogue.reply(stream).window < 1 << 21:
                dialogue.grant(stream, 1 << 21)
    assert all(dialogue.reply(stream).body == want[stream] for stream in streams)
    assert all(dialogue.reply(stream).ended for stream in streams)
    assert dialogue.engine.error is None and not dialogue.engine.streams
    assert dialogue.window == dialogue.engine.window


@pytest.mark.parametrize("streams", [2, 5, 20])
def test_large_responses_share_the_connection_fairly(connect: Any, streams: int) -> None:
    """By turns; nobody is more than a turn of 64 KiB behind."""
    dialogue = connect(((INITIAL_WINDOW_SIZE, 1 << 24),))
    numbers = range(1, 2 * streams, 2)
    for stream in numbers:
        dialogue.send(dialogue.headers(stream))
    for stream in numbers:
        dialogue.exchange(stream).respond(content(stream, 500_000))
    dialogue.take()
    while not all(dialogue.reply(stream).ended for stream in numbers):
        dialogue.grant(0, 65535)
        sent = [len(dialogue.reply(s).body) for s in numbers if not dialogue.reply(s).ended]
        assert not sent or max(sent) - min(sent) <= 2 * 65536
    assert all(dialogue.reply(s).body == content(s, 500_000) for s in numbers)


def test_an_application_that_streams_is_told_to_go_on_until_all_is_sent(connect: Any) -> None:
    """Back-pressure: it is never asked to keep more than it has to, and never forgotten."""
    dialogue = connect(((INITIAL_WINDOW_SIZE, 30_000),))
    left = dict.fromkeys((1, 3, 5), 40)

    def produce(exchange: Any) -> None:
        stream = exchange.stream
        while left[stream.id] and stream.is_responding:
            left[stream.id] -= 1
            if not stream.send_data(content(stream.id, 10_000), not left[stream.id]):
                break
        assert stream.queued <= 65536 + 10_000

    dialogue.owner.refill = produce
    for stream in left:
        dialogue.send(dialogue.headers(stream))
        dialogue.exchange(stream).stream.send_head(200, [])
        produce(dialogue.exchange(stream))
    dialogue.take()
    for turn in range(1000):
        if all(dialogue.reply(stream).ended for stream in left):
            break
        dialogue.now += 0.01
        dialogue.grant((0, 1, 3, 5)[turn % 4], 20_000)
    assert all(dialogue.reply(s).body == content(s, 10_000) * 40 for s in left)


# ---------------------------------------------------------------- from the peer


@thorough
@given(
    window=st.sampled_from([1, 65535, 100_000, 1 << 20]),
    stream_window=st.sampled_from([1, 1000, 16384, 65535, 100_000, 1 << 20]),
    eager=st.booleans(),
    steps=st.lists(
        st.one_of(
            st.tuples(
                st.just("send"),
                st.integers(0, 3),
                st.sampled_from([1, 100, 1000, 16384, 40_000, 200_000]),
            ),
            st.tuples(
                st.just("consume"), st.integers(0, 3), st.sampled_from([1, 1000, 20_000, 1 << 20])
            ),
            st.tuples(st.just("pad"), st.integers(0, 3), st.integers(0, 255)),
            st.tuples(st.just("answer"), st.integers(0, 3), st.just(0)),
            st.tuples(st.just("cancel"), st.integers(0, 3), st.just(0)),
            st.tuples(st.just("reset"), st.integers(0, 3), st.just(0)),
        ),
        max_size=40,
    ),
)
def test_windows_open_as_content_is_consumed_and_every_byte_arrives(
    connect: Any, window: int, stream_window: int, eager: bool, steps: Any
) -> None:
    dialogue = connect(window=window, stream_window=stream_window)
    dialogue.send(frame(4, 1))  # it knows our SETTINGS
    dialogue.owner.eager = eager
    engine = dialogue.engine
    streams = [1, 3, 5, 7]
    sent = dict.fromkeys(streams, b"")
    taken = dict.fromkeys(streams, 0)
    for stream in streams:
        dialogue.send(dialogue.post(stream))

    def may(stream: int, size: int) -> int:
        return min(size, dialogue.room[stream], dialogue.room[0]) if stream in engine.streams else 0

    for verb, which, amount in steps:
        stream = streams[which]
        exchange = dialogue.exchange(stream)
        if verb == "send":
            body = content(stream + len(sent[stream]), may(stream, amount))
            if body:
                dialogue.send(data(stream, body))
                sent[stream] += body
        elif verb == "pad":
            if may(stream, amount + 10) == amount + 10:
                dialogue.send(frame(DATA, 8, stream, bytes((amount,)) + b"x" * 9 + bytes(amount)))
                sent[stream] += b"x" * 9
        elif verb == "consume" and not eager:
            count = min(amount, len(exchange.body) - taken[stream])
            if not exchange.over:
                taken[stream] += count
            exchange.stream.consumed(count)
            dialogue.take()
        elif verb == "answer" and not exchange.stream.is_over:
            exchange.respond()
            dialogue.take()
        elif verb == "cancel" and stream in engine.streams:
            dialogue.send(reset(stream))
        elif verb == "reset":
            exchange.stream.reset()
            dialogue.take()
        # Both sides keep the same books.
        assert engine.error is None
        assert_books(dialogue)
    for stream in streams:
        exchange = dialogue.exchange(stream)
        assert sent[stream].startswith(exchange.body)
        if not exchange.over:
            assert exchange.body == sent[stream]
    # All that waits is consumed: then everybody can send again.
    for stream in streams:
        exchange = dialogue.exchange(stream)
        if not eager and not exchange.over:
            exchange.stream.consumed(len(exchange.body) - taken[stream])
    dialogue.take()
    for stream in streams:
        if stream in engine.streams:
            assert dialogue.room[stream] > 0 and dialogue.room[0] > 0


@pytest.mark.parametrize("window", [65535, 1 << 20])
def test_streams_that_nobody_reads_do_not_hold_the_others_up(connect: Any, window: int) -> None:
    """The connection's window is lent: many times what it is, before anybody notices."""
    dialogue = connect(window=window, stream_window=window // 2)
    dialogue.send(frame(4, 1))  # it knows our SETTINGS
    dialogue.owner.eager = False
    stalled = range(1, 21, 2)
    for stream in stalled:
        dialogue.send(dialogue.post(stream))
        while dialogue.room[stream]:
            size = min(dialogue.room[0], dialogue.room[stream])
            assert size > 0
            dialogue.send(data(stream, bytes(size)))
    dialogue.send(dialogue.post(21))
    for _ in range(100):
        dialogue.send(data(21, bytes(5000)))
        dialogue.exchange(21).stream.consumed(5000)
        dialogue.take()
        assert_books(dialogue)
    assert len(dialogue.exchange(21).body) == 500_000
    # What was lent is given back.
    for stream in (*stalled, 21):
        exchange = dialogue.exchange(stream)
        exchange.stream.consumed(exchange.stream.unread)
        dialogue.take()
        assert_books(dialogue)
    assert dialogue.engine._lent == 0 and window // 2 <= dialogue.room[0] <= window


def test_one_stalled_stream_that_fills_the_connections_window_does_not_hold_up_the_next(
    connect: Any,
) -> None:
    """The window opens when the next one comes: without it, not a byte of it could."""
    dialogue = connect(window=65535, stream_window=65535)
    dialogue.owner.eager = False
    dialogue.send(dialogue.post(1), data(1, bytes(65535)))
    assert dialogue.room[0] == 0
    dialogue.send(dialogue.post(3))
    assert dialogue.room[0] > 0
    dialogue.send(data(3, b"x" * 1000, True))
    assert dialogue.exchange(3).body == b"x" * 1000


def test_who_is_read_gets_on_even_if_all_that_can_be_lent_is_lent(connect: Any) -> None:
    dialogue = connect(window=65535, stream_window=65535)
    dialogue.owner.eager = False
    for stream in range(1, 101, 2):
        dialogue.send(dialogue.post(stream))
    for stream in range(1, 101, 2):
        size = min(dialogue.room[0], dialogue.room[stream])
        if size:
            dialogue.send(data(stream, bytes(size)))
    assert dialogue.room[0] == 0, "this is where the others are held up"
    last = max(stream for stream in range(1, 101, 2) if dialogue.exchange(stream).body)
    for _ in range(50):
        exchange = dialogue.exchange(last)
        exchange.stream.consumed(exchange.stream.unread)
        dialogue.take()
        size = min(dialogue.room[0], dialogue.room[last])
        assert size > 0, "nobody else may be read, but it is"
        dialogue.send(data(last, bytes(size)))
        assert_books(dialogue)


def test_windows_are_opened_seldom(connect: Any) -> None:
    """By halves: not a WINDOW_UPDATE for each frame."""
    dialogue = connect(window=1 << 20, stream_window=256 << 10)
    dialogue.send(dialogue.post(1))
    for _ in range(640):
        dialogue.send(frame(DATA, 0, 1, bytes(16384)))
    updates = [event for event in dialogue.events if event.kind == WINDOW_UPDATE]
    assert len(updates) <= 1 + 640 // 8 + 640 // 32


def test_no_window_of_a_stream_is_opened_once_it_has_ended(connect: Any) -> None:
    """§6.9: the connection's alone."""
    dialogue = connect(window=65535, stream_window=65535)
    dialogue.owner.eager = False
    dialogue.send(dialogue.post(1), data(1, bytes(60_000), True))
    dialogue.exchange().stream.consumed(60_000)
    events = dialogue.take()
    assert [(event.kind, event.stream) for event in events] == [(WINDOW_UPDATE, 0)]


def test_a_cancelled_upload_gives_the_connections_window_back(connect: Any) -> None:
    dialogue = connect(window=65535, stream_window=65535)
    dialogue.owner.eager = False
    for stream in range(1, 401, 2):
        dialogue.send(dialogue.post(stream), data(stream, bytes(30_000)))
        dialogue.now += 0.1
        if stream % 4 == 1:
            dialogue.send(reset(stream))
        elif stream % 8 == 3:
            dialogue.send(window_update(stream, 0))
        else:
            dialogue.exchange(stream).stream.reset()
            dialogue.take()
        assert dialogue.room[0] >= 32767
        assert_books(dialogue)


@pytest.mark.parametrize("declared", [1, 1000, 16383])
def test_content_past_its_length_gives_the_connections_window_back(
    connect: Any, declared: int
) -> None:
    """What is refused has been received all the same (§6.9)."""
    dialogue = connect(window=65535, stream_window=65535)
    for stream in range(1, 201, 2):
        dialogue.now += 0.2
        length = ("content-length", str(declared))
        dialogue.send(dialogue.post(stream, "/", length), frame(DATA, 0, stream, bytes(16384)))
        assert dialogue.room[0] >= 16384
    assert len(dialogue.resets) == 100
    assert dialogue.engine._room + dialogue.engine._credit == 65535
