"""The connection's rules, one by one (RFC 9113 §§3-8), and how a connection ends."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from tests.http2_client import data, frame, number, reset, settings, window_update

from omnicorn.http.limits import Limits
from omnicorn.protocols.http2 import codes
from omnicorn.protocols.http2.codes import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_UPDATE,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
)

LAST = 0x7FFFFFFF
BLOCK = END_HEADERS | END_STREAM


def goaway(last: int = 0, code: int = NO_ERROR, reason: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, number(last) + number(code) + reason)


def kinds(events: list[Any]) -> list[int]:
    return [event.kind for event in events]


def test_each_error_code_has_its_name() -> None:
    """§7: the log says them."""
    assert [getattr(codes, name) for name in codes.ERROR_NAMES] == list(range(14))


# ---------------------------------------------------------------- §3.4: the preface


def test_the_server_says_its_settings_first(connect: Any) -> None:
    """§3.4: it MUST be its first frame, and may come before the client's."""
    dialogue = connect(None)
    assert dialogue.events[0].kind == SETTINGS and dialogue.events[0].flags == 0


def test_the_clients_settings_are_acknowledged_at_once(connect: Any) -> None:
    """§6.5.3"""
    dialogue = connect(None)
    assert dialogue.send(PREFACE, settings()) == [(SETTINGS, ACK, 0, b"", ())]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
        b"X",
        b"PRI * HTTP/1.0",
        PREFACE[1:] + b" ",
        b"\0" * 24,
    ],
)
def test_another_preface_ends_the_connection(connect: Any, sent: bytes) -> None:
    """§3.4: PROTOCOL_ERROR."""
    for pieces in ([sent], [sent[i : i + 1] for i in range(len(sent))]):
        dialogue = connect(None)
        for piece in pieces:
            dialogue.send(piece)
        dialogue.assert_dead(PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "first",
    [
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, ACK),
        frame(WINDOW_UPDATE, 0, 0, number(1)),
        frame(HEADERS, BLOCK, 1, b"\x82\x84\x86"),
        frame(0x42),
        goaway(),
    ],
    ids=["PING", "SETTINGS ACK", "WINDOW_UPDATE", "HEADERS", "unknown", "GOAWAY"],
)
def test_the_first_frame_has_to_be_settings(connect: Any, first: bytes) -> None:
    """§3.4: the client's preface MUST be followed by a SETTINGS frame."""
    dialogue = connect(None)
    dialogue.send(PREFACE, first)
    dialogue.assert_dead(PROTOCOL_ERROR)
    assert not dialogue.owner.exchanges


def test_an_empty_segment_is_nothing(connect: Any) -> None:
    dialogue = connect(None)
    assert dialogue.send(b"") == []
    dialogue.send(PREFACE + settings())
    assert dialogue.send(b"") == []
    dialogue.assert_alive()


# ---------------------------------------------------------------- §4.1: frames


def test_frames_of_unknown_types_are_dropped(connect: Any) -> None:
    """§4.1, §5.5: MUST ignore and discard."""
    dialogue = connect()
    for kind in (0x0A, 0x0B, 0x0F, 0x11, 0x42, 0xFF):
        assert dialogue.send(frame(kind, 0xFF, 5, b"anything")) == []
    dialogue.assert_alive()


def test_flags_that_mean_nothing_are_ignored(connect: Any) -> None:
    """§4.1: unused flags MUST be ignored on receipt."""
    dialogue = connect()
    assert kinds(dialogue.send(frame(PING, 0xFE, 0, b"12345678"))) == [PING]
    assert kinds(dialogue.send(frame(SETTINGS, 0xFE))) == [SETTINGS]
    block = dialogue.block("/")
    dialogue.send(frame(HEADERS, BLOCK | 0xD2 & ~PADDED, 1, block))
    assert dialogue.exchange().head.path == "/"
    dialogue.send(frame(RST_STREAM, 0xFF, 1, number(CANCEL)))
    assert dialogue.exchange().resets == [None]
    dialogue.assert_alive()


def test_the_reserved_bit_is_ignored(connect: Any) -> None:
    """§4.1: of a stream identifier; §6.9: of an increment."""
    dialogue = connect()
    dialogue.send(frame(HEADERS, BLOCK, 0x80000001, dialogue.block("/")))
    assert list(dialogue.owner.exchanges) == [1]
    before = dialogue.engine.window
    dialogue.send(frame(WINDOW_UPDATE, 0, 0x80000000, number(0x80000005)))
    assert dialogue.engine.window == before + 5


# ---------------------------------------------------------------- §4.2: sizes


@pytest.mark.parametrize("kind", [DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE, 0x42])
@pytest.mark.parametrize("size", [16385, 0xFFFFFF])
def test_a_frame_larger_than_we_allow_is_refused_by_its_head(
    connect: Any, kind: int, size: int
) -> None:
    """§4.2: FRAME_SIZE_ERROR; not a byte of it is waited for."""
    dialogue = connect()
    dialogue.send(size.to_bytes(3, "big") + bytes((kind, 0, 0, 0, 0, 1)))
    dialogue.assert_dead(FRAME_SIZE_ERROR)


def test_a_frame_of_16384_bytes_is_read(connect: Any) -> None:
    """§4.2: every implementation MUST take 2^14 bytes."""
    dialogue = connect()
    dialogue.send(dialogue.post(1), frame(DATA, END_STREAM, 1, b"x" * 16384))
    assert dialogue.exchange().body == b"x" * 16384 and dialogue.exchange().ended
    assert dialogue.send(frame(0x42, 0, 0, b"x" * 16384)) == []


@pytest.mark.parametrize(
    ("kind", "stream", "size"),
    [
        (RST_STREAM, 1, 0),
        (RST_STREAM, 1, 3),
        (RST_STREAM, 1, 5),
        (SETTINGS, 0, 1),
        (SETTINGS, 0, 5),
        (SETTINGS, 0, 7),
        (PING, 0, 0),
        (PING, 0, 7),
        (PING, 0, 9),
        (GOAWAY, 0, 0),
        (GOAWAY, 0, 7),
        (WINDOW_UPDATE, 0, 3),
        (WINDOW_UPDATE, 0, 5),
        (WINDOW_UPDATE, 1, 0),
        (PRIORITY_UPDATE, 0, 3),
        (PRIORITY, 99, 4),
        (PRIORITY, 99, 6),
    ],
)
def test_a_frame_of_the_wrong_size_ends_the_connection(
    connect: Any, kind: int, stream: int, size: int
) -> None:
    """§6.4, §6.5, §6.7, §6.8, §6.9: FRAME_SIZE_ERROR. An idle stream cannot be reset (§6.4)."""
    dialogue = connect()
    dialogue.send(dialogue.post(1), frame(kind, 0, stream, b"\1" * size))
    dialogue.assert_dead(FRAME_SIZE_ERROR)


@pytest.mark.parametrize("size", [0, 4, 6])
def test_priority_of_the_wrong_size_resets_an_open_stream(connect: Any, size: int) -> None:
    """§6.3: FRAME_SIZE_ERROR, of the stream."""
    dialogue = connect()
    dialogue.send(dialogue.post(1), frame(PRIORITY, 0, 1, bytes(size)))
    assert dialogue.resets == [(1, FRAME_SIZE_ERROR)]
    dialogue.assert_alive()


# ---------------------------------------------------------------- §4.3: field blocks


def test_a_field_block_may_come_in_many_frames(connect: Any) -> None:
    """§4.3, §6.10"""
    dialogue = connect()
    block = dialogue.block("/long", ("x", "y" * 40000))
    dialogue.send(frame(HEADERS, END_STREAM, 1, block[:16384]))
    dialogue.send(frame(CONTINUATION, 0, 1, block[16384:32000]))
    assert not dialogue.owner.exchanges
    dialogue.send(frame(CONTINUATION, END_HEADERS, 1, block[32000:]))
    assert dialogue.exchange().head.path == "/long" and dialogue.exchange().ended
    dialogue.assert_alive()


def test_a_field_block_may_be_cut_anywhere_and_have_empty_pieces(connect: Any) -> None:
    dialogue = connect()
    block = dialogue.block("/p", ("a", "b"))
    pieces = [block[i : i + 1] for i in range(len(block))]
    dialogue.send(
        frame(HEADERS, END_STREAM, 1),
        *(frame(CONTINUATION, 0, 1, piece) for piece in [*pieces, b""]),
        frame(CONTINUATION, END_HEADERS, 1),
    )
    assert dialogue.exchange().head.path == "/p"
    dialogue.assert_alive()


def test_the_end_of_the_stream_is_said_by_the_headers_frame_alone(connect: Any) -> None:
    """§6.2: CONTINUATION has no END_STREAM."""
    dialogue = connect()
    block = dialogue.block("/")
    dialogue.send(
        frame(HEADERS, 0, 1, block[:3]),
        frame(CONTINUATION, END_HEADERS | END_STREAM, 1, block[3:]),
    )
    assert not dialogue.exchange().ended
    dialogue.send(data(1, b"x", True))
    assert dialogue.exchange().body == b"x" and dialogue.exchange().ended


@pytest.mark.parametrize(
    "between",
    [
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS),
        frame(0x42, 0, 1),
        frame(CONTINUATION, END_HEADERS, 3),
        frame(DATA, 0, 1, b"x"),
        frame(HEADERS, END_HEADERS, 1),
        frame(HEADERS, END_HEADERS, 3),
        frame(PRIORITY, 0, 1, bytes(5)),
        window_update(0, 1),
        reset(1),
    ],
    ids=lambda f: f"type {f[3]} on {f[8]}",
)
def test_a_field_block_is_not_interrupted(connect: Any, between: bytes) -> None:
    """§4.3, §6.10: PROTOCOL_ERROR for any other frame, also of an unknown type (§5.5)."""
    dialogue = connect()
    dialogue.send(frame(HEADERS, END_STREAM, 1, dialogue.block("/")), between)
    dialogue.assert_dead(PROTOCOL_ERROR)
    assert not dialogue.owner.exchanges


@pytest.mark.parametrize("stream", [0, 1, 3])
def test_continuation_follows_headers(connect: Any, stream: int) -> None:
    """§6.10: PROTOCOL_ERROR otherwise."""
    dialogue = connect()
    dialogue.send(dialogue.headers(1), frame(CONTINUATION, END_HEADERS, stream, b"\x82"))
    dialogue.assert_dead(PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "block", [b"\x80", b"\xff\xff\xff\xff\xff\xff", b"\x00", b"\x82\x3f\xe1\x1f"]
)
def test_a_field_block_that_cannot_be_decoded_ends_the_connection(
    connect: Any, block: bytes
) -> None:
    """§4.3: COMPRESSION_ERROR."""
    dialogue = connect()
    dialogue.send(frame(HEADERS, BLOCK, 1, block))
    dialogue.assert_dead(COMPRESSION_ERROR)


def test_trailers_that_cannot_be_decoded_end_the_connection(connect: Any) -> None:
    dialogue = connect()
    dialogue.send(dialogue.post(1), frame(HEADERS, BLOCK, 1, b"\x80"))
    dialogue.assert_dead(COMPRESSION_ERROR)


def test_blocks_of_streams_that_are_refused_are_decoded_all_the_same(connect: Any) -> None:
    """§4.3, RFC 7541 §2.2: what they put into the table is used by those that follow."""
    dialogue = connect(max_streams=1)
    dialogue.send(dialogue.post(1))
    dialogue.send(dialogue.headers(3, "/refused", ("x-new", "one")))
    assert dialogue.resets == [(3, REFUSED_STREAM)]
    dialogue.send(reset(1))
    dialogue.send(dialogue.headers(5, "/refused", ("x-new", "one")))
    head = dialogue.exchange(5).head
    assert head.path == "/refused" and head.fields[b"x-new"] == b"one"


@pytest.mark.parametrize("state", ["half-closed", "reset", "malformed", "after GOAWAY"])
def test_blocks_that_break_a_rule_are_decoded_all_the_same(connect: Any, state: str) -> None:
    """§4.3, §5.4.2: whatever becomes of their stream, the tables go on together."""
    dialogue = connect()
    dialogue.send(dialogue.headers(1))
    fields = [("x-new", "two")]
    if state == "half-closed":
        dialogue.send(frame(HEADERS, BLOCK, 1, dialogue.encoder.encode(fields)))
        assert dialogue.resets == [(1, STREAM_CLOSED)]
    elif state == "reset":
        dialogue.exchange().stream.reset()
        dialogue.send(frame(HEADERS, BLOCK, 1, dialogue.encoder.encode(fields)))
    elif state == "malformed":
        block = dialogue.encoder.encode([*fields, (":method", "GET")])
        dialogue.send(frame(HEADERS, BLOCK, 3, block))
        assert dialogue.resets == [(3, PROTOCOL_ERROR)]
    else:
        dialogue.engine.refuse_more()
        dialogue.send(frame(PING, ACK, 0, dialogue.take()[-1].payload))
        dialogue.engine._goaway, dialogue.engine._last = 1, 1
        dialogue.send(dialogue.headers(3, "/", ("x-new", "two")))
        assert list(dialogue.owner.exchanges) == [1]
        dialogue.engine._goaway, dialogue.engine._drained = -1, False
    dialogue.send(dialogue.headers(7, "/", ("x-new", "two")))
    assert dialogue.exchange(7).head.fields[b"x-new"] == b"two"


def test_equal_blocks_mean_other_things_once_the_table_has_changed(connect: Any) -> None:
    """What is remembered of a block is forgotten when the dynamic table moves."""
    dialogue = connect()
    pseudo = [b"\x82", b"\x86", b"\x41\x01a", b"\x44\x02/1"]
    dialogue.send(frame(HEADERS, BLOCK, 1, b"".join(pseudo)))
    by_index = b"\x82\x86\xbf\xbe"  # 63: the authority, 62: the path
    for stream in (3, 5):
        dialogue.send(frame(HEADERS, BLOCK, stream, by_index))
        assert dialogue.exchange(stream).head.path == "/1"
    dialogue.send(frame(HEADERS, BLOCK, 7, b"\x82\x86\xbf\x44\x02/2"))
    dialogue.send(frame(HEADERS, BLOCK, 9, b"\x82\x86\xc0\xbe"))
    assert dialogue.exchange(9).head.path == "/2"
    dialogue.send(frame(HEADERS, BLOCK, 11, b"\x20\x82\x86\x01\x01a\x04\x02/3"))
    dialogue.send(frame(HEADERS, BLOCK, 13, b"\x82\x86\xc0\xbe"))
    dialogue.assert_dead(COMPRESSION_ERROR)  # the table was emptied


# ---------------------------------------------------------------- §5.1.1, §5.1.2


@pytest.mark.parametrize("stream", [0, 2, 4, 0x7FFFFFFE])
@pytest.mark.parametrize("flags", [BLOCK, END_STREAM, BLOCK | HAS_PRIORITY])
def test_a_clients_streams_have_odd_identifiers(connect: Any, stream: int, flags: int) -> None:
    """§5.1.1, §6.2: PROTOCOL_ERROR."""
    dialogue = connect()
    depends = number(0) + b"\0" if flags & HAS_PRIORITY else b""
    dialogue.send(frame(HEADERS, flags, stream, depends + dialogue.block("/")))
    dialogue.assert_dead(PROTOCOL_ERROR)
    assert not dialogue.owner.exchanges


def test_identifiers_grow(connect: Any) -> None:
    """§5.1.1: those that were passed over cannot be used any more."""
    dialogue = connect()
    dialogue.send(dialogue.headers(5))
    dialogue.send(dialogue.headers(3))
    dialogue.assert_dead(PROTOCOL_ERROR)


def test_identifiers_are_not_used_again(connect: Any) -> None:
    """§5.1.1, §5.1: HEADERS on a stream that was closed is STREAM_CLOSED."""
    dialogue = connect()
    dialogue.send(dialogue.headers(1))
    dialogue.exchange().respond()
    dialogue.take()
    dialogue.send(dialogue.headers(1))
    dialogue.assert_dead(STREAM_CLOSED)


def test_an_equal_request_with_a_gap_still_closes_what_it_passed_over(connect: Any) -> None:
    """Also where the block was remembered."""
    dialogue = connect()
    plain = b"\x82\x86\x84\x01\x01a"
    dialogue.send(frame(HEADERS, BLOCK, 1, plain))
    dialogue.send(frame(HEADERS, BLOCK, 9, plain))
    dialogue.send(frame(HEADERS, BLOCK, 7, plain))
    dialogue.assert_dead(PROTOCOL_ERROR)


def test_the_last_identifier_can_be_used(connect: Any) -> None:
    dialogue = connect()
    dialogue.send(dialogue.headers(LAST))
    dialogue.exchange(LAST).respond()
    dialogue.take()
    assert dialogue.reply(LAST).body == b"ok"


def test_streams_beyond_the_limit_are_refused_and_the_others_go_on(connect: Any) -> None:
    """§5.1.2, §8.7: REFUSED_STREAM: nothing was done, try again."""
    dialogue = connect(max_streams=3)
    for stream in (1, 3, 5, 7, 9):
        dialogue.send(dialogue.post(stream))
    assert dialogue.resets == [(7, REFUSED_STREAM), (9, REFUSED_STREAM)]
    assert list(dialogue.owner.exchanges) == [1, 3, 5]
    # What was under way for them harms nobody.
    dialogue.send(data(7, b"late"), data(9, b"late", True), reset(7), window_update(9, 5))
    dialogue.send(data(1, b"x", True))
    dialogue.exchange(1).respond()
    dialogue.take()
    assert dialogue.reply(1).body == b"ok"
    dialogue.send(dialogue.headers(11))
    assert 11 in dialogue.owner.exchanges


def test_what_is_pushed_does_not_count_against_the_clients_streams(connect: Any) -> None:
    """§5.1.2: each side limits what the other one opens."""
    dialogue = connect(max_streams=3)
    dialogue.send(dialogue.headers(1))
    for path in (b"/a", b"/b", b"/c", b"/d"):
        assert dialogue.engine.push(dialogue.exchange().stream, b"http", path, [])
    dialogue.send(dialogue.headers(3), dialogue.headers(5), dialogue.headers(7))
    assert dialogue.resets == [(7, REFUSED_STREAM)]


def test_cancelled_requests_whose_applications_run_count_against_the_limit(connect: Any) -> None:
    dialogue = connect(max_streams=2)
    dialogue.owner.keeps = True
    dialogue.send(dialogue.headers(1), reset(1), dialogue.headers(3), reset(3))
    dialogue.send(dialogue.headers(5))
    assert dialogue.resets == [(5, REFUSED_STREAM)]
    dialogue.engine.orphans.clear()
    dialogue.send(dialogue.headers(7))
    assert 7 in dialogue.owner.exchanges


# ---------------------------------------------------------------- §5.4


def test_a_connection_error_says_why_and_which_stream_was_the_last(connect: Any) -> None:
    """§5.4.1: GOAWAY with the last stream and the code; then the end."""
    dialogue = connect()
    dialogue.send(dialogue.headers(1), dialogue.headers(7))
    events = dialogue.send(frame(PING, 0, 1, bytes(8)), dialogue.headers(9))
    assert kinds(events) == [GOAWAY] and dialogue.goaways == [(7, PROTOCOL_ERROR)]
    assert b"PING" in events[0].payload
    assert 9 not in dialogue.owner.exchanges
    reasons = [exchange.resets[0].reason for exchange in dialogue.owner.exchanges.values()]
    assert len(reasons) == 2 and reasons[0] == reasons[1]
    assert [call[1] for call in dialogue.owner.named("on_complete")] == [1, 7]


def test_responses_that_were_complete_leave_before_the_goaway(connect: Any) -> None:
    dialogue = connect(answer=lambda exchange: exchange.respond())
    dialogue.send(dialogue.headers(1), frame(PING, 0, 1, bytes(8)))
    assert kinds(dialogue.events[-3:]) == [HEADERS, DATA, GOAWAY]


def test_a_stream_error_ends_one_stream(connect: Any) -> None:
    """§5.4.2: RST_STREAM; the others go on, and frames under way for it are ignored."""
    dialogue = connect()
    dialogue.send(dialogue.post(1), dialogue.post(3))
    assert kinds(dialogue.send(window_update(1, 0))) == [RST_STREAM]
    assert dialogue.resets == [(1, PROTOCOL_ERROR)]
    assert dialogue.exchange(1).resets[0].reason == "a WINDOW_UPDATE of nothing"
    block = dialogue.encoder.encode([("x-late", "1")])
    late = [data(1, b"late"), frame(HEADERS, BLOCK, 1, block), window_update(1, 0), reset(1)]
    assert dialogue.send(*late) == []
    dialogue.send(data(3, b"go on", True))
    assert dialogue.exchange(3).body == b"go on"
    dialogue.assert_alive()


def test_nothing_is_answered_to_rst_stream(connect: Any) -> None:
    """§5.4.2: MUST NOT send a RST_STREAM in response to one."""
    dialogue = connect()
    dialogue.send(dialogue.post(1))
    assert dialogue.send(reset(1), reset(1), reset(1)) == []


def test_content_of_a_stream_that_was_reset_still_opens_the_connections_window(
    connect: Any,
) -> None:
    """§6.9: MUST be counted, whatever becomes of the stream."""
    dialogue = connect(window=65535, stream_window=65535)
    dialogue.send(dialogue.post(1))
    dialogue.exchange().stream.reset()
    dialogue.take()
    for _ in range(20):
        dialogue.send(frame(DATA, 0, 1, b"x" * 16384))
    assert dialogue.room[0] >= 65535 - 32768
    assert dialogue.engine._room == dialogue.room[0]


# ---------------------------------------------------------------- §6.1: DATA


@pytest.mark.parametrize("padding", [0, 1, 7, 255])
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_padding_is_taken_off(connect: Any, padding: int, size: int) -> None:
    """§6.1"""
    dialogue = connect()
    payload = bytes((padding,)) + b"x" * size + bytes(padding)
    dialogue.send(dialogue.post(1), frame(DATA, PADDED | END_STREAM, 1, payload))
    assert dialogue.exchange().body == b"x" * size and dialogue.exchange().ended


@pytest.mark.parametrize("kind", [DATA, HEADERS])
@pytest.mark.parametrize(("payload", "code"), [
    (b"", FRAME_SIZE_ERROR),
    (b"\x01", PROTOCOL_ERROR),
    (b"\x05abcd", PROTOCOL_ERROR),
    (b"\xff" + bytes(254), PROTOCOL_ERROR),
])  # fmt: skip
def test_padding_that_is_longer_than_its_frame_ends_the_connection(
    connect: Any, kind: int, payload: bytes, code: int
) -> None:
    """§6.1, §6.2: PROTOCOL_ERROR."""
    dialogue = connect()
    dialogue.send(dialogue.post(1), frame(kind, PADDED | BLOCK, 1, payload))
    dialogue.assert_dead(code)


def test_padding_counts_for_both_windows_and_opens_them_again(connect: Any) -> None:
    """§6.1, §6.9.1: the whole frame is flow-controlled."""
    dialogue = connect(window=65535, stream_window=65535)
    dialogue.owner.eager = False
    dialogue.send(dialogue.post(1))
    for _ in range(300):
        dialogue.send(frame(DATA, PADDED, 1, b"\xff" + b"x" + bytes(255)))
    assert dialogue.engine.error is None and not dialogue.resets
    assert dialogue.exchange().body == b"x" * 300
    assert dialogue.room[0] > 65535 // 2 - 600 and dialogue.room[1] > 65535 // 2 - 600
    dialogue.exchange().stream.consumed(300)


def test_data_on_stream_0_ends_the_connection(connect: Any) -> None:
    """§6.1: PROTOCOL_ERROR."""
    dialogue = connect()
    dialogue.send(data(0, b"x"))
    dialogue.assert_dead(PROTOCOL_ERROR)


def test_more_data_than_the_connections_window_ends_the_connection(connect: Any) -> None:
    """§6.9: FLOW_CONTROL_ERROR."""
    dialogue = connect(window=65535, stream_window=65535)
    dialogue.owner.eager = False
    dialogue.send(dialogue.post(1), data(1, b"x" * 65535))
    assert dialogue.engine.error is None
    dialogue.send(data(1, b"x"))
    dialogue.assert_dead(FLOW_CONTROL_ERROR)


def test_more_data_than_the_streams_window_resets_the_stream(connect: Any) -> None:
    """§6.9: FLOW_CONTROL_ERROR, of the stream."""
    dialogue = connect(window=1 << 20, stream_window=65535)
    dialogue.owner.eager = False
    dialogue.send(dialogue.post(1), data(1, b"x" * 65535))
    assert not dialogue.resets
    dialogue.send(data(1, b"x"))
    assert dialogue.resets == [(1, FLOW_CONTROL_ERROR)]
    dialogue.assert_alive()


def test_a_client_that_does_not_know_our_smaller_window_yet_may_use_the_first_one(
    connect: Any,
) -> None:
    """§6.5.3, §6.9.2: until its acknowledgement, streams begin with 65535 bytes."""
    dialogue = connect(window=1 << 20, stream_window=1000)
    dialogue.send(dialogue.post(1), data(1, b"x" * 60000, True))
    assert dialogue.exchange().body == b"x" * 60000
    dialogue.owner.eager = False
    dialogue.send(settings()[:-5] + b"\x01" + bytes(4))  # the acknowledgement
    dialogue.send(dialogue.post(3), data(3, b"x" * 1000))
    assert not dialogue.resets
    dialogue.send(data(3, b"x"))
    assert dialogue.resets == [(3, FLOW_CONTROL_ERROR)]


# ---------------------------------------------------------------- §6.2, §6.3: HEADERS, PRIORITY


def test_padding_and_priority_of_headers_are_taken_off(connect: Any) -> None:
    """§6.2"""
    dialogue = connect()
    block = dialogue.block("/padded")
    payload = b"\x09" + number(0x80000003) + b"\xff" + block + bytes(9)
    dialogue.send(frame(HEADERS, BLOCK | PADDED | HAS_PRIORITY, 1, payload))
    assert dialogue.exchange().head.path == "/padded"
    block = dialogue.block("/split")
    payload = b"\x02" + number(1) + b"\x10" + block[:5] + bytes(2)
    dialogue.send(
        frame(HEADERS, END_STREAM | PADDED | HAS_PRIORITY, 3, payload),
        frame(CONTINUATION, END_HEADERS, 3, block[5:]),
    )
    assert dialogue.exchange(3).head.path == "/split"


@pytest.mark.parametrize("size", [0, 4])
def test_headers_too_short_for_their_priority_end_the_connection(connect: Any, size: int) -> None:
    """§4.2: FRAME_SIZE_ERROR."""
    dialogue = connect()
    dialogue.send(frame(HEADERS, BLOCK | HAS_PRIORITY, 1, bytes(size)))
    dialogue.assert_dead(FRAME_SIZE_ERROR)


@pytest.mark.parametrize("state", ["idle", "open", "closed", "far"])
def test_priority_is_taken_in_every_state_and_means_nothing(connect: Any, state: str) -> None:
    """§5.1, §5.3.2, §6.3"""
    dialogue = connect()
    if state != "idle":
        dialogue.send(dialogue.headers(1))
    if state == "closed":
        dialogue.exchange().respond()
        dialogue.take()
    stream = 999 if state == "far" else 1
    assert dialogue.send(frame(PRIORITY, 0, stream, number(0x80000000) + b"\xff")) == []
    dialogue.assert_alive()


def test_priority_of_stream_0_ends_the_connection(connect: Any) -> None:
    """§6.3: PROTOCOL_ERROR."""
    dialogue = connect()
    dialogue.send(frame(PRIORITY, 0, 0, number(1) + b"\0"))
    dialogue.assert_dead(PROTOCOL_ERROR)


@pytest.mark.parametrize("kind", [PRIORITY, HEADERS])
def test_a_stream_that_depends_on_itself_is_refused(connect: Any, kind: int) -> None:
    """RFC 7540 §5.3.1; an idle stream cannot be reset (RFC 9113 §6.4)."""
    dialogue = connect()
    payload = number(1) + b"\0" + (dialogue.block("/") if kind == HEADERS else b"")
    dialogue.send(frame(kind, BLOCK | HAS_PRIORITY, 1, payload))
    dialogue.assert_dead(PROTOCOL_ERROR)
    assert not dialogue.resets


# ---------------------------------------------------------------- §6.4: RST_STREAM


def test_rst_stream_ends_the_exchange(connect: Any) -> None:
    """§6.4: whatever its code."""
    dialogue = connect()
    for stream, code in ((1, CANCEL), (3, NO_ERROR), (5, 0xDEADBEEF)):
        dialogue.send(dialogue.post(stream), frame(RST_STREAM, 0, stream, number(code)))
        assert dialogue.exchange(stream).resets == [None]
    calls = [call[0] for call in dialogue.owner.calls[1:] if call[1] == 1]
    assert calls == ["on_request", "on_reset", "on_dropped", "on_complete"]
    assert not dialogue.engine.streams
    dialogue.assert_alive()


@pytest.mark.parametrize("stream", [0, 1, 2, 99])
def test_rst_stream_of_an_idle_stream_ends_the_connection(connect: Any, stream: int) -> None:
    """§6.4: PROTOCOL_ERROR."""
    dialogue = connect()
    dialogue.send(reset(stream))
    dialogue.assert_dead(PROTOCOL_ERROR)


# ---------------------------------------------------------------- §6.6-§6.8


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_client_cannot_push(connect: Any, stream: int) -> None:
    """§6.6, §8.4: PROTOCOL_ERROR."""
    dialogue = connect()
    dialogue.send(dialogue.post(1))
    dialogue.send(frame(PUSH_PROMISE, END_HEADERS, stream, number(2) + dialogue.block("/")))
    dialogue.assert_dead(PROTOCOL_ERROR)


def test_pings_are_answered_with_what_they_said(connect: Any) -> None:
    """§6.7"""
    dialogue = connect()
    assert dialogue.send(frame(PING, 0, 0, b"abcdefgh")) == [(PING, ACK, 0, b"abcdefgh", ())]


def test_answers_to_pings_are_not_answered(connect: Any) -> None:
    """§6.7: MUST NOT respond to a PING with the ACK flag."""
    dialogue = connect()
    dialogue.engine.ping(b"12345678")
    assert dialogue.take() == [(PING, 0, 0, b"12345678", ())]
    assert dialogue.send(frame(PING, ACK, 0, b"12345678")) == []


@pytest.mark.parametrize(
    "sent", [frame(PING, 0, 1, bytes(8)), frame(GOAWAY, 0, 1, bytes(8)), frame(SETTINGS, 0, 1)]
)
def test_frames_for_the_connection_on_a_stream_end_it(connect: Any, sent: bytes) -> None:
    """§6.5, §6.7, §6.8: PROTOCOL_ERROR."""
    dialogue = connect()
    dialogue.send(dialogue.post(1), sent)
    dialogue.assert_dead(PROTOCOL_ERROR)


def test_goaway_of_the_client_lets_its_requests_finish(connect: Any) -> None:
    """§6.8"""
    dialogue = connect()
    dialogue.send(dialogue.headers(1), dialogue.post(3), goaway(0, NO_ERROR, b"bye"))
    assert not dialogue.engine.closing
    dialogue.exchange(1).respond()
    dialogue.send(data(3, b"rest", True))
    assert dialogue.exchange(3).body == b"rest" and not dialogue.engine.closing
    dialogue.exchange(3).respond()
    dialogue.take()
    assert dialogue.engine.closing and dialogue.goaways == [(3, NO_ERROR)]
    assert dialogue.reply(1).ended and dialogue.reply(3).ended


def test_goaway_of_an_idle_client_closes(connect: Any) -> None:
    dialogue = connect()
    dialogue.send(goaway(), dialogue.headers(1))
    assert dialogue.engine.closing and dialogue.goaways == [(0, NO_ERROR)]
    assert not dialogue.owner.exchanges and dialogue.engine.error is None


def test_after_goaway_of_the_client_nothing_is_pushed(connect: Any) -> None:
    """§6.8: receivers of a GOAWAY MUST NOT open additional streams."""
    dialogue = connect()
    dialogue.send(dialogue.headers(1), goaway())
    assert not dialogue.engine.push(dialogue.exchange().stream, b"http", b"/a", [])
    assert not dialogue.take()


# ---------------------------------------------------------------- §6.9: WINDOW_UPDATE


def test_a_window_update_of_nothing_is_an_error(connect: Any) -> None:
    """§6.9: of the stream, or of the connection: PROTOCOL_ERROR."""
    dialogue = connect()
    dialogue.send(dialogue.post(1), window_update(1, 0))
    assert dialogue.resets == [(1, PROTOCOL_ERROR)]
    dialogue.send(window_update(0, 0))
    dialogue.assert_dead(PROTOCOL_ERROR)


def test_a_window_past_2_to_the_31_is_an_error(connect: Any) -> None:
    """§6.9.1: FLOW_CONTROL_ERROR."""
    dialogue = connect()
    dialogue.send(dialogue.post(1), window_update(1, LAST - 65535))
    assert not dialogue.resets
    dialogue.send(window_update(1, 1))
    assert dialogue.resets == [(1, FLOW_CONTROL_ERROR)]
    dialogue.send(window_update(0, LAST - 65535))
    assert dialogue.engine.error is None
    dialogue.send(window_update(0, 1))
    dialogue.assert_dead(FLOW_CONTROL_ERROR)


# ---------------------------------------------------------------- §8.1: messages


def test_content_is_checked_against_content_length(connect: Any) -> None:
    """§8.1.1: PROTOCOL_ERROR, of the stream."""
    dialogue = connect()
    length = ("content-length", "4")
    dialogue.send(dialogue.post(1, "/", length), data(1, b"ab"), data(1, b"cd", True))
    assert dialogue.exchange(1).body == b"abcd" and dialogue.exchange(1).ended
    dialogue.send(dialogue.post(3, "/", length), data(3, b"abc", True))
    dialogue.send(dialogue.post(5, "/", length), data(5, b"abcde"))
    dialogue.send(dialogue.post(7, "/", length), data(7, b"abc"))
    dialogue.send(frame(HEADERS, BLOCK, 7, dialogue.encoder.encode([("x", "y")])))
    assert dialogue.resets == [(stream, PROTOCOL_ERROR) for stream in (3, 5, 7)]
    assert [len(dialogue.exchange(stream).resets) for stream in (3, 5, 7)] == [1, 1, 1]
    assert not any(dialogue.exchange(stream).ended for stream in (3, 5, 7))
    dialogue.assert_alive()


def test_padding_is_no_content(connect: Any) -> None:
    """§8.1.1: the sum of the DATA frame payload lengths, without padding."""
    dialogue = connect()
    dialogue.send(dialogue.post(1, "/", ("content-length", "2")))
    dialogue.send(frame(DATA, PADDED | END_STREAM, 1, b"\x03ab\0\0\0"))
    assert dialogue.exchange().ended and not dialogue.resets


def test_a_malformed_request_resets_its_stream(connect: Any) -> None:
    """§8.1.1: PROTOCOL_ERROR; nobody is asked."""
    dialogue = connect()
    block = dialogue.encoder.encode([(":method", "GET"), (":path", "/")])
    dialogue.send(frame(HEADERS, BLOCK, 1, block))
    assert dialogue.resets == [(1, PROTOCOL_ERROR)] and not dialogue.owner.exchanges
    assert dialogue.owner.named("on_refused") == [
        ("on_refused", None, "the request has no :scheme")
    ]
    dialogue.send(data(1, b"late"))
    dialogue.assert_alive()


@pytest.mark.parametrize("end", [True, False])
def test_a_request_that_is_refused_is_answered_with_a_status(connect: Any, end: bool) -> None:
    """§8.1: e.g. 501 for a CONNECT; the rest of it is dropped."""
    dialogue = connect()
    block = dialogue.encoder.encode([(":method", "CONNECT"), (":authority", "a:1")])
    dialogue.send(frame(HEADERS, END_HEADERS | end, 1, block))
    assert dialogue.reply().status == 501 and dialogue.reply().ended
    assert not dialogue.owner.exchanges
    if not end:
        dialogue.send(data(1, b"x" * 100), data(1, b"y", True))
    assert not dialogue.engine.streams and not dialogue.resets
    dialogue.assert_alive()


def test_the_rest_of_a_refused_request_has_a_deadline(connect: Any) -> None:
    dialogue = connect()
    block = dialogue.encoder.encode([(":method", "CONNECT"), (":authority", "a:1")])
    dialogue.now += 5.0
    dialogue.send(frame(HEADERS, END_HEADERS, 1, block))
    assert dialogue.after(1.9) == pytest.approx(0.1)
    dialogue.after(0.2)
    dialogue.take()
    assert dialogue.resets == [(1, NO_ERROR)] and not dialogue.engine.streams


def test_a_body_past_the_limit_is_answered_413_and_its_rest_dropped(connect: Any) -> None:
    dialogue = connect(limits=Limits(body=10))
    dialogue.send(dialogue.post(1), data(1, b"x" * 10))
    assert not dialogue.reply().ended
    dialogue.send(data(1, b"y"))
    assert dialogue.reply().status == 413 and dialogue.reply().ended
    assert dialogue.exchange().body == b"x" * 10
    assert dialogue.exchange().resets[0].status == 413
    dialogue.send(data(1, b"more"), data(1, b"", True))
    assert not dialogue.engine.streams and not dialogue.resets
    dialogue.assert_alive()


def test_a_body_past_the_limit_by_its_last_frame_leaves_nothing_behind(connect: Any) -> None:
    dialogue = connect(limits=Limits(body=10))
    dialogue.send(dialogue.post(1), data(1, b"x" * 11, True))
    assert dialogue.reply().status == 413 and not dialogue.engine.streams


def test_with_a_limit_the_rest_of_an_answered_upload_is_still_read(connect: Any) -> None:
    dialogue = connect(limits=Limits(body=1000))
    dialogue.send(dialogue.post(1), data(1, b"x" * 10))
    dialogue.exchange().respond()
    dialogue.send(data(1, b"x" * 5000), data(1, b"x", True))
    assert dialogue.reply().ended and not dialogue.engine.streams and not dialogue.resets


def test_a_body_past_the_limit_in_mid_response_is_reset(connect: Any) -> None:
    dialogue = connect(limits=Limits(body=10))
    dialogue.send(dialogue.post(1))
    dialogue.exchange().stream.send_head(200, [])
    dialogue.take()
    dialogue.send(data(1, b"x" * 11), data(1, b"x"))
    assert dialogue.resets == [(1, CANCEL)]
    assert dialogue.exchange().resets[0].status == 413


def test_a_413_that_waits_for_a_window_is_still_sent_once(connect: Any) -> None:
    dialogue = connect(((codes.INITIAL_WINDOW_SIZE, 0),), limits=Limits(body=10))
    dialogue.send(dialogue.post(1), data(1, b"x" * 11))
    dialogue.send(data(1, b"y" * 100), data(1, b"z", True))
    assert dialogue.reply().status == 413 and not dialogue.reply().ended
    dialogue.grant(1, 1000)
    assert dialogue.reply().ended and not dialogue.engine.streams and not dialogue.resets


@pytest.mark.parametrize(("method", "body"), [("GET", True), ("HEAD", False)])
def test_a_refusal_of_a_head_request_has_no_content(connect: Any, method: str, body: bool) -> None:
    """RFC 9110 §9.3.2, also where the request is refused before anybody has seen it."""
    dialogue = connect(limits=Limits(line=100))
    pseudo = [(":method", method), (":scheme", "http"), (":authority", "a")]
    block = dialogue.encoder.encode([*pseudo, (":path", "/" + "x" * 200)])
    dialogue.send(frame(HEADERS, BLOCK, 1, block))
    assert dialogue.reply().status == 414 and dialogue.reply().ended
    assert bool(dialogue.reply().body) is body
    dialogue.assert_alive()


@pytest.mark.parametrize("how", ["size", "count"])
def test_trailers_past_a_limit_are_answered_431(connect: Any, how: str) -> None:
    """RFC 6585 §5; the connection goes on, with its tables."""
    limits = Limits(head=2000, fields=20)
    dialogue = connect(limits=limits)
    fields = [("x", "y" * 3000)] if how == "size" else [("x", "y")] * 21
    dialogue.send(dialogue.post(1), data(1, b"some"))
    dialogue.send(frame(HEADERS, BLOCK, 1, dialogue.encoder.encode(fields)))
    assert dialogue.reply().status == 431 and dialogue.reply().ended
    assert dialogue.exchange().resets[0].status == 431 and not dialogue.exchange().ended
    assert not dialogue.engine.streams
    dialogue.assert_alive()


@pytest.mark.parametrize("state", ["answering", "answered", "reset"])
def test_trailers_past_a_limit_harm_nobody_whatever_the_stream_is_at(
    connect: Any, state: str
) -> None:
    dialogue = connect(limits=Limits(head=2000))
    dialogue.send(dialogue.post(1), data(1, b"some"))
    exchange = dialogue.exchange()
    if state == "answered":
        exchange.respond()
    elif state == "answering":
        exchange.stream.send_head(200, [])
    else:
        exchange.stream.reset()
    dialogue.take()
    trailers = dialogue.encoder.encode([("x", "y" * 3000)])
    dialogue.send(frame(HEADERS, BLOCK, 1, trailers))
    assert [stream for stream, _ in dialogue.resets] == [1]
    assert not dialogue.engine.streams
    dialogue.assert_alive()


def test_a_bomb_in_a_self_dependent_request_does_not_escape(connect: Any) -> None:
    dialogue = connect(limits=Limits(head=2000))
    block = number(1) + b"\0" + dialogue.block("/", ("x", "y" * 3000))
    dialogue.send(frame(HEADERS, BLOCK | HAS_PRIORITY, 1, block))
    dialogue.assert_dead(PROTOCOL_ERROR)


# ---------------------------------------------------------------- §8.4: push


def test_a_push_is_promised_on_its_parent_and_answered_on_an_even_stream(connect: Any) -> None:
    """§8.4.1, §5.1.1"""
    dialogue = connect()
    dialogue.send(dialogue.headers(1))
    parent = dialogue.exchange().stream
    assert dialogue.engine.push(parent, b"https", b"/a?x", [(b"Accept", b"*/*")])
    assert dialogue.engine.push(parent, b"https", b"/b", [])
    dialogue.exchange(1).respond(b"page")
    dialogue.exchange(2).respond(b"a")
    dialogue.exchange(4).respond(b"b")
    events = dialogue.take()
    promises = [event for event in events if event.kind == PUSH_PROMISE]
    assert [(event.stream, event.amount) for event in promises] == [(1, 2), (1, 4)]
    assert dialogue.reply(2).promised == [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"a"),
        (b":path", b"/a?x"),
        (b"accept", b"*/*"),
    ]
    # §8.4.1: promises before what refers to them
    assert max(map(events.index, promises)) < min(
        at for at, event in enumerate(events) if event.kind == HEADERS
    )
    assert [dialogue.reply(stream).body for stream in (1, 2, 4)] == [b"page", b"a", b"b"]
    head = dialogue.exchange(2).head
    assert (head.method, head.path, head.query, head.has_body) == ("GET", "/a", b"x", False)
    assert not dialogue.engine.streams


def test_a_promise_over_16_kib_is_continued(connect: Any) -> None:
    """§6.6, §6.10"""
    dialogue = connect()
    dialogue.send(dialogue.headers(1))
    value = bytes(33 + i % 90 for i in range(30000))
    assert dialogue.engine.push(dialogue.exchange().stream, b"http", b"/", [(b"x", value)])
    dialogue.take()
    assert (b"x", value) in (dialogue.reply(2).promised or [])


@pytest.mark.parametrize("why", ["setting", "number", "goaway", "pushed", "answered", "reset"])
def test_what_cannot_be_pushed_is_not(connect: Any, why: str) -> None:
    """§6.5.2, §6.6, §8.4"""
    asks = {"setting": ((codes.ENABLE_PUSH, 0),), "number": ((codes.MAX_CONCURRENT_STREAMS, 1),)}
    dialogue = connect(asks.get(why, ()))
    dialogue.send(dialogue.post(1))
    parent = dialogue.exchange().stream
    push = dialogue.engine.push
    if why in ("number", "pushed"):
        assert push(parent, b"http", b"/first", [])
        if why == "pushed":
            parent = dialogue.exchange(2).stream
    elif why == "goaway":
        dialogue.engine.refuse_more()
    elif why == "answered":  # the request's content still comes
        dialogue.exchange().respond()
    elif why == "reset":
        parent.reset()
    dialogue.take()
    assert not push(parent, b"http", b"/a", [])
    assert not [event for event in dialogue.take() if event.kind == PUSH_PROMISE]


def test_the_client_may_cancel_what_is_pushed(connect: Any) -> None:
    """§8.4.2"""
    dialogue = connect()
    dialogue.send(dialogue.headers(1))
    parent = dialogue.exchange().stream
    for path in (b"/a", b"/b"):
        dialogue.engine.push(parent, b"http", path, [])
    dialogue.exchange(2).stream.send_head(200, [])
    dialogue.take()
    dialogue.send(reset(2), reset(4), window_update(2, 5), reset(2))
    assert dialogue.exchange(2).resets == [None] and dialogue.exchange(4).resets == [None]
    dialogue.assert_alive()


def test_promises_and_settings_of_the_peer_hold_at_once(connect: Any) -> None:
    """§6.5.2: once it has said ENABLE_PUSH 0, no more come."""
    dialogue = connect()
    dialogue.send(dialogue.headers(1))
    dialogue.send(settings((codes.ENABLE_PUSH, 0)))
    assert not dialogue.engine.push(dialogue.exchange().stream, b"http", b"/", [])
    assert dialogue.owner.named("on_settings") == [("on_settings", True), ("on_settings", False)]


# ---------------------------------------------------------------- RFC 8441


def test_extended_connect_is_offered_and_taken(connect: Any) -> None:
    """RFC 8441 §3, §4"""
    dialogue = connect()
    assert dialogue.server[codes.ENABLE_CONNECT_PROTOCOL] == 1
    more = ((":protocol", "websocket"),)
    dialogue.send(dialogue.headers(1, "/chat", method="CONNECT", more=more, end=False))
    exchange = dialogue.exchange()
    assert (exchange.head.method, exchange.head.upgrade) == ("CONNECT", b"websocket")
    exchange.stream.send_head(200, [])
    exchange.stream.send_data(b"from here", False)
    dialogue.send(data(1, b"from there"))
    exchange.stream.send_data(b"", True)
    dialogue.take()
    assert dialogue.reply().status == 200 and dialogue.reply().body == b"from here"
    assert exchange.body == b"from there" and dialogue.reply().ended
    dialogue.send(data(1, b"", True))
    assert not dialogue.engine.streams


def test_extended_connect_is_not_offered_where_it_is_off(connect: Any) -> None:
    assert connect(connect_protocol=False).server[codes.ENABLE_CONNECT_PROTOCOL] == 0


# ---------------------------------------------------------------- the end, in good order


def test_a_drain_has_two_steps(connect: Any) -> None:
    """§6.8: first 2^31-1 and a PING, then, a round trip later, the true last stream."""
    dialogue = connect()
    dialogue.send(dialogue.headers(1))
    dialogue.engine.refuse_more()
    events = dialogue.take()
    assert kinds(events) == [GOAWAY, PING] and dialogue.goaways == [(LAST, NO_ERROR)]
    # What crossed it is served.
    dialogue.send(dialogue.headers(3))
    assert 3 in dialogue.owner.exchanges
    dialogue.send(frame(PING, ACK, 0, events[1].payload))
    assert dialogue.goaways == [(LAST, NO_ERROR), (3, NO_ERROR)]
    # What comes after it is not, and harms nobody, with all that belongs to it.
    late = [dialogue.post(5), data(5, b"x" * 1000)]
    late.append(frame(HEADERS, BLOCK, 5, dialogue.encoder.encode([("x", "y")])))
    assert dialogue.send(*late, reset(5), window_update(5, 1)) == []
    for _ in range(50):
        dialogue.send(*[data(5, b"x")] * 10)
    assert dialogue.engine.error is None and not dialogue.resets
    assert list(dialogue.owner.exchanges) == [1, 3]
    dialogue.exchange(1).respond()
    dialogue.take()
    assert not dialogue.engine.closing
    dialogue.exchange(3).respond()
    dialogue.take()
    assert dialogue.engine.closing and dialogue.goaways[-1] == (3, NO_ERROR)
    assert dialogue.reply(1).ended and dialogue.reply(3).ended


def test_a_drain_of_an_idle_connection_is_done_at_once(connect: Any) -> None:
    dialogue = connect()
    dialogue.send(dialogue.headers(1))
    dialogue.exchange().respond()
    dialogue.engine.refuse_more()
    dialogue.take()
    assert dialogue.engine.closing and dialogue.goaways == [(1, NO_ERROR)]
    dialogue.engine.refuse_more()
    assert dialogue.take() == []


def test_a_drain_waits_for_the_end_of_an_upload_that_is_answered(connect: Any) -> None:
    dialogue = connect()
    dialogue.send(dialogue.post(1))
    dialogue.engine.refuse_more()
    ping = dialogue.take()[-1].payload
    dialogue.exchange().respond()
    dialogue.send(frame(PING, ACK, 0, ping))
    assert dialogue.reply().ended and not dialogue.engine.closing
    dialogue.send(data(1, b"rest", True))
    assert dialogue.engine.closing


@pytest.mark.parametrize("how", ["discarded", "cancelled", "overdue", "malformed"])
def test_a_drain_ends_however_the_last_upload_ends(connect: Any, how: str) -> None:
    dialogue = connect()
    dialogue.send(dialogue.post(1))
    dialogue.exchange().respond()
    dialogue.send(goaway())
    assert not dialogue.engine.closing
    if how == "discarded":
        for _ in range(1025):
            dialogue.send(frame(DATA, 0, 1, b"x" * 16384))
    elif how == "cancelled":
        dialogue.send(reset(1))
    elif how == "malformed":
        dialogue.send(window_update(1, 0))
    else:
        dialogue.after(31.0)
        dialogue.take()
    assert dialogue.engine.closing and dialogue.goaways == [(1, NO_ERROR)]


def test_an_error_after_the_last_goaway_does_not_raise_the_last_stream(connect: Any) -> None:
    """§6.8: MUST NOT increase the value."""
    dialogue = connect()
    dialogue.send(dialogue.headers(1))
    dialogue.engine.refuse_more()
    dialogue.send(frame(PING, ACK, 0, dialogue.take()[-1].payload))
    dialogue.send(dialogue.headers(3), frame(PING, 0, 1, bytes(8)))
    assert dialogue.goaways == [(LAST, NO_ERROR), (1, NO_ERROR), (1, PROTOCOL_ERROR)]


def test_nothing_is_read_behind_the_frame_that_ends_the_connection(connect: Any) -> None:
    """However the bytes were cut: a frame that was waiting for its rest ends it, too."""
    for cut in range(1, 17):
        dialogue = connect()
        bye = goaway()
        dialogue.send(bye[:cut])
        dialogue.send(bye[cut:] + dialogue.headers(1) + dialogue.headers(3))
        assert dialogue.engine.closing and not dialogue.owner.exchanges


def test_at_the_end_of_the_clients_output_what_is_whole_is_answered(connect: Any) -> None:
    dialogue = connect()
    dialogue.send(dialogue.headers(1), dialogue.post(3), dialogue.post(5))
    dialogue.exchange(5).respond()
    dialogue.engine.receive_eof()
    assert dialogue.exchange(1).remote_closed and not dialogue.exchange(1).resets
    assert dialogue.exchange(3).resets == [None]
    assert not dialogue.engine.closing
    dialogue.exchange(1).respond()
    dialogue.take()
    assert dialogue.engine.closing and dialogue.reply(1).ended
    assert not dialogue.engine.streams


def test_at_the_end_of_the_output_of_an_idle_client_it_is_over(connect: Any) -> None:
    dialogue = connect()
    dialogue.engine.receive_eof()
    assert dialogue.engine.closing and dialogue.engine.error is None


# ---------------------------------------------------------------- deadlines


def test_content_that_stalls_is_answered_408_and_reset_without_error(connect: Any) -> None:
    """RFC 9110 §15.5.9, RFC 9113 §8.1: NO_ERROR, so that the answer is not lost."""
    dialogue = connect()
    dialogue.send(dialogue.post(1), dialogue.headers(3))
    dialogue.now += 20.0
    dialogue.send(data(1, b"some"))
    assert dialogue.after(20.0) == pytest.approx(10.0)
    assert dialogue.after(10.0) == pytest.approx(2.0)
    dialogue.take()
    assert dialogue.reply().status == 408 and not dialogue.resets
    assert dialogue.after(2.0) == float("inf")
    dialogue.take()
    assert dialogue.resets == [(1, NO_ERROR)]
    assert dialogue.exchange().resets[0].status == 408
    assert list(dialogue.engine.streams) == [3]


def test_a_call_that_streams_both_ways_may_be_silent(connect: Any) -> None:
    """As gRPC's: once the response has begun, only the connection's own PINGs ask."""
    dialogue = connect()
    dialogue.send(dialogue.post(1))
    dialogue.exchange().stream.send_head(200, [])
    dialogue.exchange().stream.send_data(b"x", False)
    dialogue.take()
    assert dialogue.after(10_000.0) == float("inf")
    assert not dialogue.resets


def test_a_408_that_cannot_leave_is_a_reset(connect: Any) -> None:
    dialogue = connect(((codes.INITIAL_WINDOW_SIZE, 0),))
    dialogue.owner.eager = False
    dialogue.send(dialogue.post(1), data(1, b"some"))
    dialogue.after(31.0)
    dialogue.take()
    assert dialogue.resets == [(1, CANCEL)] and not dialogue.engine.streams
    assert [error.status for error in dialogue.exchange().resets] == [408]
    assert dialogue.exchange().over and dialogue.engine._credit == 4
    assert dialogue.after(100.0) == float("inf")


@pytest.mark.parametrize("how", ["cancelled", "broken", "lost"])
def test_an_application_whose_client_was_refused_is_told_once(connect: Any, how: str) -> None:
    """Whatever becomes of the refusal, which waits for a window."""
    dialogue = connect(((codes.INITIAL_WINDOW_SIZE, 0),), limits=Limits(body=10))
    dialogue.owner.eager = False
    dialogue.send(dialogue.post(1), data(1, b"x" * 10), data(1, b"y"))
    if how == "cancelled":
        dialogue.send(reset(1))
    elif how == "broken":
        dialogue.send(window_update(1, 0))
    else:
        dialogue.lose()
    assert [error.status for error in dialogue.exchange().resets] == [413]
    assert dialogue.exchange().over and not dialogue.engine.streams
    if how != "lost":
        assert dialogue.engine._room + dialogue.engine._credit == 1 << 20


def test_as_many_stalled_uploads_as_streams_are_no_error_of_the_connection(connect: Any) -> None:
    """`overdue` is nobody's to fail in: 128 of them come due at once."""
    dialogue = connect()
    dialogue.send(dialogue.headers(1))
    dialogue.send(*(dialogue.post(stream) for stream in range(3, 257, 2)))
    dialogue.after(31.0)
    dialogue.after(2.0)
    dialogue.take()
    assert len(dialogue.resets) == 127 and dialogue.engine.error is None
    assert all(dialogue.reply(stream).status == 408 for stream in range(3, 257, 2))
    dialogue.exchange(1).respond()
    dialogue.take()
    assert dialogue.reply(1).ended


def test_a_slow_application_is_not_its_clients_fault(connect: Any) -> None:
    """While its window is shut, nobody waits for the client."""
    dialogue = connect(stream_window=65535)
    dialogue.owner.eager = False
    dialogue.send(dialogue.post(1), data(1, b"x" * 65535))
    assert dialogue.after(1000.0) == float("inf")
    dialogue.exchange().stream.consumed(40000)
    dialogue.take()
    assert dialogue.after(29.0) == pytest.approx(1.0)
    dialogue.after(2.0)
    dialogue.take()
    assert dialogue.reply().status == 408


def test_a_client_whom_the_connections_window_holds_back_is_not_late(connect: Any) -> None:
    """Other streams' applications fill it: the deadline begins when it opens."""
    dialogue = connect(window=65535, stream_window=131072)
    dialogue.owner.eager = False
    dialogue.send(dialogue.post(1))
    dialogue.send(data(1, b"x" * 65535))
    assert dialogue.room[0] == 0
    assert dialogue.after(1000.0) == float("inf")
    dialogue.exchange(1).stream.consumed(65535)
    dialogue.take()
    assert dialogue.room[0] > 0
    assert dialogue.after(29.0) == pytest.approx(1.0)
    assert not dialogue.resets


def test_a_request_that_expects_100_continue_is_not_waited_for_before_it_is_asked(
    connect: Any,
) -> None:
    dialogue = connect()
    dialogue.send(dialogue.post(1, "/", ("expect", "100-continue")))
    assert dialogue.after(1000.0) == float("inf")
    dialogue.exchange().stream.send_continue()
    dialogue.take()
    assert dialogue.after(29.0) == pytest.approx(1.0)
    dialogue.after(2.0)
    dialogue.take()
    assert dialogue.reply().status == 408


@pytest.mark.parametrize("part", ["head", "frame", "block", "continuation"])
def test_a_field_block_that_drips_ends_the_connection(connect: Any, part: str) -> None:
    """§10.5: from its first byte to its last there are 15 seconds."""
    dialogue = connect()
    block = dialogue.block("/", ("x", "y" * 100))
    if part == "head":
        drips = frame(HEADERS, BLOCK, 1, block)[:3]
    elif part == "frame":
        drips = frame(HEADERS, BLOCK, 1, block)[:-1]
    else:
        drips = frame(CONTINUATION, 0, 1, b"")[:8]
        dialogue.send(frame(HEADERS, END_STREAM, 1, block))
        if part == "continuation":
            drips = frame(CONTINUATION, 0, 1) * 9
    for at in range(len(drips)):
        dialogue.send(drips[at : at + 1])
        if at == 0:
            began = dialogue.now
        if dialogue.now - began < 14.0:
            assert dialogue.after(0.5) == pytest.approx(began + 15.0 - dialogue.now)
    assert dialogue.engine.error is None
    dialogue.after(began + 15.0 - dialogue.now)
    dialogue.take()
    dialogue.assert_dead(ENHANCE_YOUR_CALM)


def test_a_busy_client_whose_segments_end_within_frames_is_not_late(connect: Any) -> None:
    """Each of them completes what was begun before it."""
    dialogue = connect(answer=lambda exchange: exchange.respond(b""))
    rest = b""
    for stream in range(1, 401, 2):
        if stream % 4 == 1:
            sent = rest + dialogue.headers(stream)
        else:
            block = dialogue.block("/")
            sent = rest + frame(HEADERS, END_STREAM, stream, block[:2])
            sent += frame(CONTINUATION, END_HEADERS, stream, block[2:])
        dialogue.send(sent[:-2])
        rest = sent[-2:]
        dialogue.after(1.0)
    dialogue.send(rest)
    assert dialogue.engine.error is None and len(dialogue.owner.exchanges) == 200


def test_a_frame_of_content_may_take_its_time(connect: Any) -> None:
    dialogue = connect()
    sent = frame(DATA, END_STREAM, 1, b"x" * 16384)
    dialogue.send(dialogue.post(1), sent[:100])
    for at in range(100, len(sent), 1000):
        assert dialogue.after(10.0, body=1000.0) > 100.0
        dialogue.send(sent[at : at + 1000])
    assert dialogue.exchange().ended


def test_a_tunnel_may_be_silent(connect: Any) -> None:
    """RFC 8441: an open WebSocket is as silent as its applications."""
    dialogue = connect()
    more = ((":protocol", "websocket"),)
    dialogue.send(dialogue.headers(1, "/", method="CONNECT", more=more, end=False))
    dialogue.exchange().stream.send_head(200, [])
    dialogue.take()
    assert dialogue.after(10_000.0) == float("inf")
    dialogue.exchange().stream.send_data(b"", True)
    dialogue.take()
    dialogue.after(2.0)
    dialogue.take()
    assert dialogue.resets == [(1, NO_ERROR)]


def test_a_window_that_stays_shut_ends_its_stream_alone(connect: Any) -> None:
    dialogue = connect(((codes.INITIAL_WINDOW_SIZE, 100),))
    dialogue.send(dialogue.headers(1), dialogue.headers(3))
    dialogue.exchange(1).respond(b"x" * 200)
    dialogue.take()
    assert dialogue.after(59.0) == pytest.approx(1.0)
    dialogue.grant(1, 50)
    assert dialogue.after(59.0) == pytest.approx(1.0)
    dialogue.after(1.5)
    dialogue.take()
    assert dialogue.resets == [(1, CANCEL)] and dialogue.reply().body == b"x" * 150
    assert dialogue.exchange(1).resets == [None]
    assert list(dialogue.engine.streams) == [3]


def test_a_connections_window_that_stays_shut_ends_what_waits_for_it(connect: Any) -> None:
    dialogue = connect(((codes.INITIAL_WINDOW_SIZE, 1 << 20),))
    dialogue.send(dialogue.headers(1), dialogue.headers(3))
    dialogue.exchange(1).respond(b"x" * 100000)
    dialogue.exchange(3).respond(b"x" * 100000)
    dialogue.take()
    dialogue.after(61.0)
    dialogue.take()
    assert sorted(dialogue.resets) == [(1, CANCEL), (3, CANCEL)]


def test_a_stream_that_waits_behind_more_urgent_ones_is_not_its_clients_fault(
    connect: Any,
) -> None:
    """RFC 9218 §10: the client reads all the time, and gets what it asked for first."""
    dialogue = connect(((codes.INITIAL_WINDOW_SIZE, 1 << 24),))
    dialogue.send(dialogue.headers(1, "/", ("priority", "u=7")))
    dialogue.send(dialogue.headers(3, "/", ("priority", "u=0")))
    dialogue.exchange(3).respond(b"x" * 1_000_000)
    dialogue.exchange(1).respond(b"y" * 1000)
    dialogue.take()
    for _ in range(10):
        dialogue.grant(0, 65535)
        assert dialogue.after(30.0) == pytest.approx(30.0)
    assert not dialogue.resets and not dialogue.reply(1).body
    dialogue.grant(0, 1_000_000)
    assert dialogue.reply(1).ended and dialogue.reply(3).ended


def test_a_transport_that_is_full_is_no_fault_of_a_stream(connect: Any) -> None:
    dialogue = connect()
    dialogue.full = True
    dialogue.engine.blocked = True
    dialogue.send(dialogue.headers(1))
    dialogue.exchange().respond(b"x" * 100)
    assert dialogue.after(1000.0) == float("inf")
    dialogue.full = False
    dialogue.take()
    assert dialogue.reply().ended


# ---------------------------------------------------------------- nothing is left


class Tracked:
    pass


@pytest.fixture
def no_collector() -> Any:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _respond(dialogue: Any) -> None:
    dialogue.exchange(1).respond()


def _reset(dialogue: Any) -> None:
    dialogue.exchange(1).stream.reset()


def _cancel(dialogue: Any) -> None:
    dialogue.send(reset(1))


def _break(dialogue: Any) -> None:
    dialogue.send(window_update(1, 0))


def _stall(dialogue: Any) -> None:
    dialogue.after(100.0)


def _wait(dialogue: Any) -> None:
    dialogue.exchange(1).respond(b"x" * 200_000)
    dialogue.take()
    dialogue.send(settings((codes.INITIAL_WINDOW_SIZE, 1 << 20)))
    dialogue.grant(0, 1 << 20)


def _promise(dialogue: Any) -> None:
    dialogue.engine.push(dialogue.exchange(1).stream, b"http", b"/", [])
    dialogue.exchange(2).respond()
    dialogue.exchange(1).respond()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("how", [_respond, _reset, _cancel, _break, _stall, _wait, _promise])
@pytest.mark.parametrize("upload", [False, True])
def test_a_stream_that_is_over_is_freed_with_its_handler(
    connect: Any, how: Any, upload: bool
) -> None:
    """Without the garbage collector: there are no reference cycles."""
    dialogue = connect()
    dialogue.send(dialogue.headers(1, end=not upload, method="POST"))
    how(dialogue)
    if upload and 1 in dialogue.engine.streams:
        dialogue.send(data(1, b"", True))
    dialogue.take()
    if how is _stall and not upload:
        _respond(dialogue)
        dialogue.take()
    assert not dialogue.engine.streams
    streams = [exchange.stream for exchange in dialogue.owner.exchanges.values()]
    assert all(stream.handler is None for stream in streams)
    stream = streams[0]
    del streams
    tracked = Tracked()
    stream.handler = tracked
    ref = weakref.ref(tracked)
    dialogue.owner.exchanges.clear()
    dialogue.owner.running.clear()
    del tracked, stream
    assert ref() is None
    dialogue.engine.streams.clear()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "last",
    [
        b"",
        frame(PING, 0, 1, bytes(8)),
        goaway(),
        window_update(1, 0),
        frame(HEADERS, BLOCK, 9, b"\x80"),
        b"".join(frame(HEADERS, BLOCK, n, b"\x82") for n in range(11, 600, 2)),
        frame(DATA, 0, 1, b"half of it")[:-3],
        frame(HEADERS, 0, 21, b"\x82"),
    ],
    ids=["quiet", "broken", "goaway", "reset", "hpack", "over budget", "half a frame", "a block"],
)
def test_a_connection_that_is_gone_is_freed(connect: Any, last: bytes) -> None:
    """Without the garbage collector, and with all that was its own."""
    dialogue = connect(max_streams=4)
    dialogue.send(dialogue.headers(1), dialogue.post(3), dialogue.post(5))
    dialogue.send(dialogue.post(7), dialogue.headers(9), reset(5))
    block = dialogue.encoder.encode([(":method", "CONNECT"), (":authority", "a:1")])
    dialogue.exchange(1).stream.send_head(200, [])
    dialogue.exchange(3).respond(b"x" * 200_000)
    dialogue.engine.push(dialogue.exchange(1).stream, b"http", b"/", [])
    dialogue.send(frame(HEADERS, END_HEADERS, 11, block))
    dialogue.send(last)
    dialogue.lose()
    tracked = Tracked()
    engine = dialogue.engine
    engine.orphans.add(tracked)
    ref = weakref.ref(tracked)
    for exchange in dialogue.owner.exchanges.values():
        assert exchange.over or exchange.resets
        exchange.stream = None
    dialogue.engine = dialogue.owner.engine = None
    dialogue.owner.calls.clear()
    del engine, tracked
    assert ref() is None


def test_after_the_connection_is_lost_what_applications_still_do_harms_nobody(
    connect: Any,
) -> None:
    dialogue = connect()
    dialogue.owner.eager = False
    dialogue.send(dialogue.post(1), data(1, b"x" * 60000), dialogue.headers(3))
    exchange = dialogue.exchange(1)
    dialogue.lose()
    assert exchange.resets == [None]
    exchange.stream.consumed(60000)
    exchange.stream.send_continue()
    exchange.stream.reset()
    assert not exchange.stream.is_responding
    assert dialogue.engine.out == []


def test_after_a_stream_is_over_what_is_consumed_opens_no_window_twice(connect: Any) -> None:
    dialogue = connect(window=65535, stream_window=65535)
    dialogue.owner.eager = False
    dialogue.send(dialogue.post(1), data(1, b"x" * 30000, True))
    dialogue.exchange().respond()
    dialogue.take()
    dialogue.exchange().stream.consumed(30000)
    assert dialogue.engine._room + dialogue.engine._credit == 65535


# ---------------------------------------------------------------- numbers


def test_the_numbers_are_those_of_the_rfc() -> None:
    """RFC 9113 §6, §7, §11; RFC 9218 §7.1, §10; RFC 8441 §9"""
    assert [getattr(codes, name) for name in (
        "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY",
        "WINDOW_UPDATE", "CONTINUATION", "PRIORITY_UPDATE",
    )] == [*range(10), 16]  # fmt: skip
    assert [getattr(codes, name) for name in (
        "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
        "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
        "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
    )] == [*range(14)]  # fmt: skip
    assert [getattr(codes, name) for name in (
        "HEADER_TABLE_SIZE", "ENABLE_PUSH", "MAX_CONCURRENT_STREAMS", "INITIAL_WINDOW_SIZE",
        "MAX_FRAME_SIZE", "MAX_HEADER_LIST_SIZE", "ENABLE_CONNECT_PROTOCOL",
        "NO_RFC7540_PRIORITIES",
    )] == [1, 2, 3, 4, 5, 6, 8, 9]  # fmt: skip
    assert (codes.END_STREAM, codes.ACK, codes.END_HEADERS) == (1, 1, 4)
    assert (codes.PADDED, codes.HAS_PRIORITY) == (8, 32)
    assert codes.PREFACE == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert ENHANCE_YOUR_CALM == 11
