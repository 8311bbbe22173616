"""What leaves, in which order and how much of it; streams and owner are stand-ins."""

from __future__ import annotations

from typing import Any

import hpack
import pytest
from tests.http2_client import number

from omnicorn.errors import Http2Error
from omnicorn.http.defaults import DefaultFields
from omnicorn.protocols.http2.codes import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PUSH_PROMISE,
)
from omnicorn.protocols.http2.hpack import Strings
from omnicorn.protocols.http2.responses import ResponseEncoder, ResponseHead
from omnicorn.protocols.http2.writer import BATCH, TURN, FrameWriter


class Owner:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_output(self) -> None:
        self.calls.append("on_output")

    def on_full(self) -> None:
        self.calls.append("on_full")

    def on_settings(self) -> None:
        self.calls.append("on_settings")


class Stream:
    """One with *queued* bytes to send."""

    incremental = True
    urgency = 3
    handler: Any = None

    def __init__(self, writer: Alone, number: int, queued: int, window: int = 1 << 30) -> None:
        self.writer = writer
        self.id = number
        self.queued = queued
        self.window = window
        self.scheduled = -1
        self.turns: list[int] = []
        writer.streams[number] = self  # type: ignore[assignment]
        writer.enlist(self)  # type: ignore[arg-type]

    def write_frames(self, limit: int) -> int:
        size = min(limit, self.queued)
        self.queued -= size
        self.window -= size
        self.turns.append(size)
        self.writer.write_frames([b"head", b"x" * size], size)
        if not self.queued:
            self.writer.dismiss(self)  # type: ignore[arg-type]
        return size


class Alone(FrameWriter[Any]):
    """A writer without an engine."""

    __slots__ = ("dropped", "failed")

    def __init__(self, defaults: DefaultFields | None = None) -> None:
        super().__init__(
            Owner(),
            ResponseEncoder(),
            Strings(),
            defaults or DefaultFields(None, False, [], lambda: 0.0),
            Owner.on_output,
            0.0,
        )
        self.window = 1 << 30
        self.dropped: list[int] = []
        self.failed: Http2Error | None = None

    def _drop(self, stream: Any, error: Any, tell: bool = True) -> None:
        self.dropped.append(stream.id)
        self.dismiss(stream)

    def _fail(self, error: Http2Error) -> None:
        self.failed = error
        self.closing = True

    def head(self, *headers: tuple[bytes, bytes]) -> ResponseHead:
        return self.responses.encode((200, *headers))

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """What `take` gives, as kind, flags, stream and payload."""
        wire = b"".join(self.take())
        found = []
        while wire:
            end = 9 + int.from_bytes(wire[:3], "big")
            found.append((wire[3], wire[4], int.from_bytes(wire[5:9], "big"), wire[9:end]))
            wire = wire[end:]
        return found


# ---------------------------------------------------------------- output


def test_output_is_announced_once_until_it_is_taken() -> None:
    writer = Alone()
    for _ in range(2):
        writer.write_control(b"one")
        writer.write_data(1, b"two", 3, 0)
        writer.write_head(1, writer.head(), 0)
        assert writer.pending == len(b"".join(writer.take())) and writer.pending == 0
    assert writer.owner.calls == ["on_output"] * 2


def test_heads_that_wait_are_taken_in_their_order() -> None:
    writer = Alone()

    class Held:
        def __init__(self, stream: int) -> None:
            self.id = stream

        def write_head(self) -> None:
            writer.write_head(self.id, writer.head(), END_STREAM)

    writer.held += [Held(3), Held(1)]  # type: ignore[list-item]
    assert [(frame[0], frame[2]) for frame in writer.frames()] == [(HEADERS, 3), (HEADERS, 1)]
    assert not writer.held and not writer.frames()


def test_a_ping_has_what_it_is_given() -> None:
    writer = Alone()
    writer.ping(b"12345678")
    assert writer.frames() == [(PING, 0, 0, b"12345678")]


# ---------------------------------------------------------------- field blocks


def test_a_head_can_be_decoded_whatever_was_remembered_of_it() -> None:
    """As the table moves on, what was coded before means something else."""
    writer = Alone()
    decoder = hpack.Decoder()
    one, other = writer.head((b"x", b"1")), writer.head((b"y", b"2"))
    for prepared in (one, one, other, one, one, other, other, one):
        writer.write_response(1, prepared, b"hi", 2, END_STREAM)
        (kind, flags, _, block), content = writer.frames()
        assert (kind, flags) == (HEADERS, END_HEADERS) and content == (DATA, END_STREAM, 1, b"hi")
        assert tuple(decoder.decode(block, raw=True)) == prepared.fields


def test_default_fields_are_those_of_the_present_second() -> None:
    seconds = [0.0]
    defaults = DefaultFields(b"omnicorn", True, [], lambda: seconds[0])
    writer = Alone(defaults)
    decoder = hpack.Decoder()
    for second in (0, 0, 1, 1):
        if seconds[0] != second:
            seconds[0] = second
            defaults.expire()
        for own in (writer.head(), writer.head((b"date", b"never"))):
            writer.write_response(1, own, b"hi", 2, 0)
            fields = dict(decoder.decode(writer.frames()[0][3], raw=True))
            assert fields[b"server"] == b"omnicorn"
            dates = {fields[b"date"]} - {b"never"}
            assert dates <= {b"Thu, 01 Jan 1970 00:00:0%d GMT" % second}


@pytest.mark.parametrize("promised", [0, 2])
def test_a_large_block_comes_in_continuations(promised: int) -> None:
    writer = Alone()
    fields = [(b"x", b"y" * 40000)]
    writer.write_block(1, fields, 0, promised)
    frames = writer.frames()
    first = PUSH_PROMISE if promised else HEADERS
    assert [frame[0] for frame in frames] == [first, CONTINUATION, CONTINUATION][: len(frames)]
    assert [frame[1] for frame in frames] == [0] * (len(frames) - 1) + [END_HEADERS]
    payload = b"".join(frame[3] for frame in frames)
    if promised:
        assert payload[:4] == number(promised)
        payload = payload[4:]
    assert hpack.Decoder().decode(payload, raw=True) == fields


@pytest.mark.parametrize("size", [0, 64, 65536])
def test_a_table_of_another_size_is_what_the_next_block_begins_with(size: int) -> None:
    """RFC 7541 §4.2."""
    writer = Alone()
    decoder = hpack.Decoder()
    prepared = writer.head((b"x", b"1"))
    for _ in range(3):
        writer.write_head(1, prepared, 0)
        decoder.decode(writer.frames()[0][3])
    writer.apply_settings(HEADER_TABLE_SIZE.to_bytes(2, "big") + number(size))
    decoder.max_allowed_table_size = size
    for _ in range(3):
        writer.write_head(1, prepared, 0)
        block = writer.frames()[0][3]
        assert tuple(decoder.decode(block, raw=True)) == prepared.fields
    assert decoder.header_table_size <= size


# ---------------------------------------------------------------- content that waits


def test_streams_take_turns() -> None:
    writer = Alone()
    writer.blocked = True
    streams = [Stream(writer, 1, 2 * TURN + 1), Stream(writer, 3, 2 * TURN + 1)]
    writer.unblock()
    assert [stream.turns for stream in streams] == [[TURN, TURN], [TURN, TURN]]
    assert writer.owner.calls[-1] == "on_full" and writer.pending == BATCH
    writer.take()
    writer.pump()
    assert [stream.turns[2:] for stream in streams] == [[1], [1]]
    assert writer.schedule is not None and not writer.schedule.count


def test_what_the_connections_window_lets_through_is_all_that_leaves() -> None:
    writer = Alone()
    writer.window = 1000
    one, other = Stream(writer, 1, 800), Stream(writer, 3, 800)
    assert (one.turns, other.turns, writer.window) == ([800], [200], 0)
    writer.window = 5000
    writer.pump()
    assert other.turns == [200, 600] and writer.window == 4400


def test_a_stream_with_a_shut_window_holds_up_nobody() -> None:
    writer = Alone()
    shut, other = Stream(writer, 1, 800, window=300), Stream(writer, 3, 800)
    assert shut.turns == [300] and other.turns == [800] and shut.scheduled < 0


def test_what_no_window_will_let_through_is_dropped() -> None:
    writer = Alone()
    writer.remote_closed = True
    Stream(writer, 1, 800, window=0)
    assert writer.dropped == [1]


def test_nothing_leaves_while_a_segment_is_read() -> None:
    """So that its last word on windows and priorities counts."""
    writer = Alone()
    writer._receiving = True
    stream = Stream(writer, 1, 800)
    assert not stream.turns
    writer._receiving = False
    writer.pump()
    assert stream.turns == [800]


def test_windows_that_cut_content_to_crumbs_end_the_connection() -> None:
    writer = Alone()
    stream = Stream(writer, 1, 1 << 20, window=0)
    for _ in range(2000):
        if writer.closing:
            break
        stream.window = 1
        writer.enlist(stream)  # type: ignore[arg-type]
        writer.take()
    assert writer.failed is not None and writer.failed.code == ENHANCE_YOUR_CALM
    assert len(stream.turns) == 1001


def test_who_waits_for_nothing_is_told_that_the_transport_takes_more() -> None:
    class Handler:
        told = 0

        def on_writable(self) -> None:
            self.told += 1

    writer = Alone()
    writer.blocked = True
    idle, waiting = Stream(writer, 1, 0), Stream(writer, 3, 10 * BATCH)
    idle.handler, waiting.handler = Handler(), Handler()
    writer.dismiss(idle)  # type: ignore[arg-type]
    writer.unblock()
    assert (idle.handler.told, waiting.handler.told) == (1, 0)


# ---------------------------------------------------------------- settings


def test_a_change_of_the_first_window_moves_those_that_are_open() -> None:
    """RFC 9113 §6.9.2: also below zero."""
    writer = Alone()
    stream = Stream(writer, 1, 100_000, window=65535)
    assert stream.turns == [65535] and stream.window == 0
    writer.apply_settings(INITIAL_WINDOW_SIZE.to_bytes(2, "big") + number(0))
    assert stream.window == -65535
    writer.apply_settings(INITIAL_WINDOW_SIZE.to_bytes(2, "big") + number(70_000))
    assert stream.turns == [65535, 70_000 - 65535]


def test_a_window_past_its_bound_is_an_error() -> None:
    writer = Alone()
    Stream(writer, 1, 0, window=65536)
    with pytest.raises(Http2Error) as caught:
        writer.apply_settings(INITIAL_WINDOW_SIZE.to_bytes(2, "big") + number(0x7FFFFFFF))
    assert caught.value.code == FLOW_CONTROL_ERROR


def test_the_owner_is_told_of_the_first_settings() -> None:
    writer = Alone()
    writer.apply_settings(b"")
    writer.is_greeted = True
    writer.apply_settings(b"")
    assert writer.owner.calls == ["on_settings"]
