"""Every state and every frame (RFC 9113 §5.1): the table is walked through the real engine."""

from __future__ import annotations

from typing import Any

import pytest
from tests.http2_client import data, frame, number, reset, window_update

from omnicorn.protocols.http2.codes import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    STREAM_CLOSED,
    WINDOW_UPDATE,
)
from omnicorn.protocols.http2.states import (
    ACCEPT,
    CLOSED,
    CONNECTION_CLOSED,
    CONNECTION_ERROR,
    HALF_CLOSED_LOCAL,
    HALF_CLOSED_REMOTE,
    IDLE,
    IGNORE,
    NAMES,
    OPEN,
    REACTIONS,
    RESERVED,
    RESET,
    STREAM_ERROR,
    UNUSED,
)

BLOCK = END_HEADERS | END_STREAM


def _idle(dialogue: Any) -> int:
    return 101


def _idle_promise(dialogue: Any) -> int:
    return 2


def _open(dialogue: Any) -> int:
    dialogue.send(dialogue.post(1))
    return 1


def _open_with_content(dialogue: Any) -> int:
    dialogue.send(dialogue.post(1), data(1, b"some"))
    return 1


def _open_and_answering(dialogue: Any) -> int:
    dialogue.send(dialogue.post(1))
    dialogue.exchange().stream.send_head(200, [])
    dialogue.exchange().stream.send_data(b"x", False)
    return 1


def _open_and_waiting(dialogue: Any) -> int:
    dialogue.send(dialogue.post(1))
    dialogue.exchange().respond(b"x" * 70000)
    return 1


def _half_closed_local(dialogue: Any) -> int:
    dialogue.send(dialogue.post(1))
    dialogue.exchange().respond()
    return 1


def _half_closed_remote(dialogue: Any) -> int:
    dialogue.send(dialogue.headers(1))
    return 1


def _half_closed_remote_by_data(dialogue: Any) -> int:
    dialogue.send(dialogue.post(1), data(1, b"x", True))
    return 1


def _half_closed_remote_and_waiting(dialogue: Any) -> int:
    dialogue.send(dialogue.headers(1))
    dialogue.exchange().respond(b"x" * 70000)
    return 1


def _reserved(dialogue: Any) -> int:
    dialogue.send(dialogue.headers(1))
    dialogue.engine.push(dialogue.exchange().stream, b"http", b"/", [])
    return 2


def _reset_by_us(dialogue: Any) -> int:
    dialogue.send(dialogue.post(1))
    dialogue.exchange().stream.reset()
    return 1


def _reset_for_an_error(dialogue: Any) -> int:
    dialogue.send(dialogue.post(1), window_update(1, 0))
    return 1


def _refused(dialogue: Any) -> int:
    dialogue.send(*(dialogue.headers(2 * n + 1) for n in range(129)))
    assert dialogue.resets == [(257, REFUSED_STREAM)]
    dialogue.send(reset(3))
    return 257


def _closed(dialogue: Any) -> int:
    dialogue.send(dialogue.headers(1))
    dialogue.exchange().respond()
    return 1


def _closed_by_the_peer(dialogue: Any) -> int:
    dialogue.send(dialogue.post(1), reset(1))
    return 1


def _closed_promise(dialogue: Any) -> int:
    _reserved(dialogue)
    dialogue.exchange(2).respond()
    return 2


def _unused(dialogue: Any) -> int:
    dialogue.send(dialogue.headers(1), dialogue.headers(9))
    return 5


def _unused_from_the_start(dialogue: Any) -> int:
    dialogue.send(dialogue.headers(9))
    return 1


def _zero(dialogue: Any) -> int:
    return 0


WAYS: dict[int, list[Any]] = {
    IDLE: [_idle, _idle_promise],
    OPEN: [_open, _open_with_content, _open_and_answering, _open_and_waiting],
    HALF_CLOSED_LOCAL: [_half_closed_local],
    HALF_CLOSED_REMOTE: [
        _half_closed_remote,
        _half_closed_remote_by_data,
        _half_closed_remote_and_waiting,
    ],
    RESET: [_reset_by_us, _reset_for_an_error, _refused],
    CLOSED: [_closed, _closed_by_the_peer, _closed_promise],
    UNUSED: [_unused, _unused_from_the_start, _zero],
    RESERVED: [_reserved],
}

FRAMES = {
    HEADERS: lambda dialogue, stream: frame(
        HEADERS, BLOCK, stream, dialogue.encoder.encode([("x-trailer", "1")])
    ),
    DATA: lambda dialogue, stream: data(stream, b"content"),
    RST_STREAM: lambda dialogue, stream: reset(stream),
    WINDOW_UPDATE: lambda dialogue, stream: window_update(stream, 10),
}
KINDS = {HEADERS: "HEADERS", DATA: "DATA", RST_STREAM: "RST_STREAM", WINDOW_UPDATE: "WINDOW_UPDATE"}


def test_the_table_says_what_every_frame_means_in_every_state() -> None:
    assert set(REACTIONS) == set(WAYS) == set(range(len(NAMES)))
    assert all(set(row) == set(FRAMES) for row in REACTIONS.values())


@pytest.mark.parametrize(
    ("state", "way", "kind"),
    [
        pytest.param(state, way, kind, id=f"{way.__name__[1:]}-{KINDS[kind]}")
        for state, ways in WAYS.items()
        for way in ways
        for kind in FRAMES
    ],
)
def test_each_frame_in_each_state(connect: Any, state: int, way: Any, kind: int) -> None:
    """§5.1"""
    dialogue = connect()
    stream = way(dialogue)
    dialogue.take()
    engine = dialogue.engine
    known = engine.streams.get(stream)
    if way is _idle and kind == HEADERS:  # a request, and not trailers
        dialogue.send(dialogue.headers(stream))
        assert stream in dialogue.owner.exchanges
        return
    if not (kind == WINDOW_UPDATE and not stream):
        assert engine._state(stream, known) == state, NAMES[engine._state(stream, known)]
    reaction = REACTIONS[state][kind]
    if kind == HEADERS and not stream & 1:
        reaction = CONNECTION_ERROR  # §5.1.1: not a client's stream, whatever its state
    if kind == WINDOW_UPDATE and not stream:
        reaction = ACCEPT  # the connection's
    resets = len(dialogue.resets)
    handler = dialogue.owner.exchanges.get(stream)
    window = 0 if known is None else known.window
    body = len(dialogue.reply(stream).body)
    dialogue.send(FRAMES[kind](dialogue, stream))
    if reaction == CONNECTION_ERROR:
        dialogue.assert_dead(PROTOCOL_ERROR)
        return
    if reaction == CONNECTION_CLOSED:
        dialogue.assert_dead(STREAM_CLOSED)
        return
    if reaction == STREAM_ERROR:
        assert dialogue.resets[resets:] == [(stream, STREAM_CLOSED)]
        assert stream not in engine.streams
    else:
        assert dialogue.resets[resets:] == []
    if reaction == IGNORE and state != HALF_CLOSED_LOCAL:
        assert stream not in engine.streams
    if reaction == ACCEPT and known is not None:
        if kind == RST_STREAM:
            assert stream not in engine.streams
            assert known.handler is None
            if not known.is_over or state == OPEN:
                assert handler.resets == [None]
        elif kind == WINDOW_UPDATE:
            assert known.window + len(dialogue.reply(stream).body) - body == window + 10
        elif kind == HEADERS and state == OPEN:
            assert known.remote_ended
        elif kind == DATA and state == OPEN and way is not _open_and_waiting:
            assert handler.body.endswith(b"content")
    dialogue.assert_alive()


@pytest.mark.parametrize("state", WAYS)
def test_priority_is_taken_in_every_state(connect: Any, state: int) -> None:
    """§5.1, §6.3"""
    for way in WAYS[state]:
        if way is _zero:
            continue
        dialogue = connect()
        stream = way(dialogue)
        dialogue.take()
        resets = len(dialogue.resets)
        assert dialogue.send(frame(PRIORITY, 0, stream, number(stream ^ 4) + b"\x05")) == []
        assert len(dialogue.resets) == resets and dialogue.engine.error is None


@pytest.mark.parametrize("kind", [DATA, HEADERS])
def test_a_frame_after_the_end_of_the_request_resets_it(connect: Any, kind: int) -> None:
    """§5.1, half-closed (remote): STREAM_CLOSED; the application learns of it."""
    dialogue = connect()
    dialogue.send(dialogue.post(1), data(1, b"all", True))
    dialogue.send(FRAMES[kind](dialogue, 1))
    assert dialogue.resets == [(1, STREAM_CLOSED)]
    exchange = dialogue.exchange()
    assert exchange.body == b"all" and len(exchange.resets) == 1 and exchange.over
    dialogue.assert_alive()


def test_more_than_a_thousand_resets_are_remembered(connect: Any) -> None:
    """§5.1: what was under way when we reset a stream is ignored, also after many of them:
    as many as `REFUSED_STREAMS` lets a client open beyond its limit at once."""
    dialogue = connect(max_streams=1)
    dialogue.send(dialogue.post(1))
    refused = range(3, 2003, 2)
    dialogue.send(*(dialogue.post(stream) for stream in refused))
    assert len(dialogue.resets) == 1000
    dialogue.send(*(data(stream, b"late", True) for stream in refused))
    assert len(dialogue.resets) == 1000 and dialogue.engine.error is None
    dialogue.send(data(1, b"in time", True))
    assert dialogue.exchange().body == b"in time"
