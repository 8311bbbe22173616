"""The conversation, by the sections of RFC 6455; then segments, back-pressure, memory, output.

Every stream of frames in `STREAMS` is also fed byte by byte and at every split: upcalls and
output are the same. What is counted is operations and bytes, never time.
"""

from __future__ import annotations

import sys
import tracemalloc
import zlib
from typing import Any, NamedTuple

import pytest

from omnicorn.errors import LocalProtocolError
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.websocket import WebSocketEngine
from omnicorn.protocols.websocket.engine import CLOSED, CLOSING, OPEN

FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
MORE, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
DEFLATE = "permessage-deflate"


def close(code: int, reason: bytes = b"") -> tuple[int, bytes]:
    return FIN | CLOSE, code.to_bytes(2, "big") + reason


def closing(wire: bytes) -> tuple[int, str]:
    """Code and reason of the one close frame that *wire* is."""
    assert wire[0] == FIN | CLOSE and wire[1] == len(wire) - 2
    return int.from_bytes(wire[2:4], "big"), wire[4:].decode()


def assert_fails(recorder: Any, code: int) -> None:
    """The peer broke a rule: close frame, upcall and error agree, and it is over."""
    assert recorder.code == code
    reason = recorder.engine.error.reason
    assert closing(recorder.taken()) == (code, reason)
    assert recorder.closed == (code, reason)
    assert len(reason) > 10
    calls = list(recorder.calls)
    recorder.get((FIN | TEXT, b"more"), (FIN | PING, b"?"), close(1000))
    assert recorder.calls == calls
    assert recorder.taken() == b""


# ---------------------------------------------------------------- §5.7 examples


def test_the_masked_example_of_the_rfc_is_read(connect: Any) -> None:
    recorder = connect().feed(bytes.fromhex("818537fa213d7f9f4d5158"))
    assert recorder.messages == ["Hello"]
    assert recorder.taken() == b""


def test_the_examples_of_the_rfc_are_written(connect: Any) -> None:
    recorder = connect()
    assert recorder.engine.send_text("Hello") is True
    assert recorder.taken() == bytes.fromhex("810548656c6c6f")
    recorder.engine.ping(b"Hello")
    assert recorder.taken() == bytes.fromhex("890548656c6c6f")
    recorder.engine.send_bytes(bytes(256))
    assert recorder.taken() == bytes.fromhex("827e0100") + bytes(256)
    recorder.engine.send_bytes(bytes(65536))
    assert recorder.taken() == bytes.fromhex("827f0000000000010000") + bytes(65536)


def test_the_ping_of_the_rfc_is_answered_with_its_content(connect: Any) -> None:
    recorder = connect().feed(bytes.fromhex("898537fa213d7f9f4d5158"))
    assert recorder.calls == []
    assert recorder.taken() == bytes.fromhex("8a0548656c6c6f")


def test_the_fragmented_example_is_one_message(connect: Any) -> None:
    recorder = connect().get((TEXT, b"Hel"))
    assert recorder.messages == []
    assert recorder.get((FIN | MORE, b"lo")).messages == ["Hello"]


# ---------------------------------------------------------------- §5.1 masking


@pytest.mark.parametrize("first", [FIN | TEXT, BINARY, FIN | PING, FIN | PONG, FIN | CLOSE])
@pytest.mark.parametrize("length", [0, 2, 125, 126, 127])
def test_an_unmasked_frame_is_1002_from_its_second_byte_on(
    connect: Any, first: int, length: int
) -> None:
    recorder = connect().feed(bytes([first]))
    assert recorder.code is None
    assert_fails(recorder.feed(bytes([length])), 1002)


def test_a_key_of_zeros_is_a_key(connect: Any, wire: Any) -> None:
    assert connect().feed(wire((FIN | TEXT, b"x", bytes(4)))).messages == ["x"]


def test_what_we_send_is_not_masked(connect: Any) -> None:
    recorder = connect()
    for size in (0, 125, 126, 65535, 65536):
        recorder.engine.send_bytes(bytes(size))
        assert recorder.taken()[1] < 0x80


# ---------------------------------------------------------------- §5.2 bits, opcodes, lengths


@pytest.mark.parametrize("bits", [RSV1, RSV2, RSV3, RSV1 | RSV2, RSV2 | RSV3, 0x70])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("fin", [FIN, 0])
def test_a_reserved_bit_is_1002(connect: Any, bits: int, opcode: int, fin: int) -> None:
    assert_fails(connect().feed(bytes([fin | bits | opcode, 0x80])), 1002)


@pytest.mark.parametrize("bits", [RSV1, RSV2, RSV3])
def test_a_reserved_bit_of_a_continuation_is_1002(connect: Any, bits: int) -> None:
    recorder = connect().get((TEXT, b"a"))
    assert_fails(recorder.feed(bytes([FIN | bits | MORE, 0x80])), 1002)


@pytest.mark.parametrize("bits", [RSV2, RSV3, RSV1 | RSV2])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_the_extension_takes_one_bit_and_no_other(connect: Any, bits: int, opcode: int) -> None:
    assert_fails(connect(1000, DEFLATE).feed(bytes([FIN | bits | opcode, 0x80])), 1002)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_control_frame_is_never_compressed(connect: Any, opcode: int) -> None:
    """RFC 7692 §6: control frames are not touched by the extension."""
    assert_fails(connect(1000, DEFLATE).feed(bytes([FIN | RSV1 | opcode, 0x80])), 1002)


@pytest.mark.parametrize("first", [TEXT | RSV1, BINARY | RSV1, TEXT, BINARY])
def test_only_the_first_frame_says_that_a_message_is_compressed(connect: Any, first: int) -> None:
    """RFC 7692 §6.1."""
    recorder = connect(1000, DEFLATE).get((first, b""))
    assert recorder.code is None
    assert_fails(recorder.feed(bytes([RSV1 | MORE, 0x80])), 1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF])
@pytest.mark.parametrize("fin", [FIN, 0])
def test_a_reserved_opcode_is_1002(connect: Any, opcode: int, fin: int) -> None:
    assert_fails(connect().feed(bytes([fin | opcode, 0x80])), 1002)


@pytest.mark.parametrize(
    "head", [b"\xfe\x00\x00", b"\xfe\x00\x7d", b"\xff" + bytes(8), b"\xff" + (65535).to_bytes(8)]
)
def test_a_length_that_is_not_in_its_shortest_form_is_1002(connect: Any, head: bytes) -> None:
    recorder = connect().feed(b"\x82" + head[:-1])
    assert recorder.code is None
    assert_fails(recorder.feed(head[-1:]), 1002)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 65537])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_every_length_is_read(connect: Any, size: int, opcode: int) -> None:
    recorder = connect().get((FIN | opcode, b"x" * size), (FIN | TEXT, b"next"))
    assert recorder.messages == [("x" if opcode == TEXT else b"x") * size, "next"]


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1])
def test_a_length_with_its_highest_bit_set_is_1002(connect: Any, length: int) -> None:
    recorder = connect().feed(b"\x82\xff" + length.to_bytes(8))
    assert_fails(recorder, 1002)


# ---------------------------------------------------------------- §5.4 fragments


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [FIN, 0])
def test_a_message_within_a_message_is_1002(connect: Any, opcode: int, fin: int) -> None:
    recorder = connect().get((TEXT, b"a"))
    assert_fails(recorder.feed(bytes([fin | opcode, 0x80])), 1002)


@pytest.mark.parametrize("fin", [FIN, 0])
def test_a_continuation_of_nothing_is_1002(connect: Any, fin: int) -> None:
    assert_fails(connect().feed(bytes([fin | MORE, 0x80])), 1002)


@pytest.mark.parametrize("fin", [FIN, 0])
def test_a_continuation_of_a_message_that_has_ended_is_1002(connect: Any, fin: int) -> None:
    recorder = connect().get((TEXT, b"a"), (FIN | MORE, b"b"))
    assert recorder.messages == ["ab"]
    assert_fails(recorder.feed(bytes([fin | MORE, 0x80])), 1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_empty_fragments_are_fragments(connect: Any, opcode: int) -> None:
    recorder = connect().get((opcode,), (MORE,), (MORE, b"x"), (MORE,), (FIN | MORE,))
    assert recorder.messages == ["x" if opcode == TEXT else b"x"]
    recorder.get((opcode,), (MORE,), (FIN | MORE,))
    assert recorder.messages[1:] == ["" if opcode == TEXT else b""]


def test_control_frames_between_fragments_are_answered_at_once(connect: Any) -> None:
    recorder = connect().get((TEXT, b"a"), (FIN | PING, b"1"))
    assert recorder.taken() == b"\x8a\x011"
    recorder.get((FIN | PONG, b"2"), (MORE, b"b"), (FIN | PING, b"3"))
    assert recorder.taken() == b"\x8a\x013"
    assert recorder.calls == [("on_pong", b"2")]
    assert recorder.get((FIN | MORE, b"c")).messages == ["abc"]


def test_a_close_frame_between_fragments_ends_it_all(connect: Any) -> None:
    recorder = connect().get((TEXT, b"a"), close(1001), (FIN | MORE, b"b"))
    assert recorder.calls == [("on_closed", 1001, "")]
    assert recorder.taken() == b"\x88\x02\x03\xe9"


def test_the_type_of_the_first_fragment_is_the_messages(connect: Any) -> None:
    recorder = connect().get((BINARY, b"\xff"), (FIN | MORE, b"\xfe"))
    recorder.get((TEXT, b"a"), (FIN | MORE, b"b"))
    assert recorder.messages == [b"\xff\xfe", "ab"]


# ---------------------------------------------------------------- §5.5 control frames


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_fragmented_control_frame_is_1002(connect: Any, opcode: int) -> None:
    assert_fails(connect().feed(bytes([opcode, 0x80])), 1002)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("length", [126, 127])
def test_a_control_frame_over_125_bytes_is_1002_before_its_length(
    connect: Any, opcode: int, length: int
) -> None:
    assert_fails(connect().feed(bytes([FIN | opcode, 0x80 | length])), 1002)


@pytest.mark.parametrize("size", [0, 1, 124, 125])
def test_a_ping_is_answered_with_what_it_holds(connect: Any, size: int) -> None:
    recorder = connect().get((FIN | PING, b"\xff" * size))
    assert recorder.taken() == bytes([FIN | PONG, size]) + b"\xff" * size
    assert recorder.calls == []


def test_an_unasked_pong_is_no_fault(connect: Any) -> None:
    """RFC 6455 §5.5.3."""
    recorder = connect().get((FIN | PONG, b"x" * 125), (FIN | PONG,))
    assert recorder.calls == [("on_pong", b"x" * 125), ("on_pong", b"")]
    assert recorder.taken() == b""


def test_pings_are_answered_in_order_by_a_peer_that_reads(connect: Any) -> None:
    recorder = connect().get(*[(FIN | PING, b"%d" % i) for i in range(10)])
    assert recorder.taken() == b"".join(b"\x8a\x01%d" % i for i in range(10))


def test_a_peer_that_does_not_read_gets_the_last_pong_when_it_does(connect: Any) -> None:
    """RFC 6455 §5.5.3: an answer to the most recent ping is enough."""
    recorder = connect()
    recorder.engine.blocked = True
    recorder.get(*[(FIN | PING, b"%d" % i) for i in range(1000)])
    assert recorder.engine.pending == 0
    assert recorder.taken() == b""
    recorder.engine.unblock()
    assert recorder.engine.blocked is False
    assert recorder.taken() == b"\x8a\x03999"
    recorder.engine.unblock()
    assert recorder.taken() == b""
    assert recorder.get((FIN | PING, b"!")).taken() == b"\x8a\x01!"


@pytest.mark.parametrize("ours", [True, False])
def test_a_pong_that_was_put_off_does_not_follow_a_close_frame(connect: Any, ours: bool) -> None:
    """RFC 6455 §5.5.1: nothing follows a close frame that concerns the application or not."""
    recorder = connect()
    recorder.engine.blocked = True
    recorder.get((FIN | PING, b"?"))
    if ours:
        recorder.engine.close(1000)
    else:
        recorder.get(close(1000))
    assert recorder.taken() == b"\x88\x02\x03\xe8"
    recorder.engine.unblock()
    assert recorder.taken() == b""


# ---------------------------------------------------------------- §5.5.1, §7 closing

# https://www.iana.org/assignments/websocket/ of 0 to 2999, and RFC 6455 §7.4.2.
LEGAL = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}


def test_every_code_from_0_to_5000_is_answered_by_the_registry(connect: Any) -> None:
    for code in [*range(5001), 65535]:
        recorder = connect().get(close(code, b"why"))
        if code in LEGAL:
            assert recorder.engine.error is None
            assert recorder.calls == [("on_closed", code, "why")]
            assert recorder.taken() == b"\x88\x02" + code.to_bytes(2)
        else:
            assert recorder.code == 1002, code
            assert closing(recorder.taken())[0] == 1002


def test_an_empty_close_frame_is_no_status_and_is_answered_with_one(connect: Any) -> None:
    """RFC 6455 §7.1.5: 1005, which is never on the wire."""
    recorder = connect().get((FIN | CLOSE,))
    assert recorder.calls == [("on_closed", 1005, "")]
    assert recorder.taken() == b"\x88\x00"


def test_a_close_frame_of_one_byte_is_1002(connect: Any) -> None:
    assert_fails(connect().get((FIN | CLOSE, b"\x03")), 1002)


def test_a_closing_reason_may_be_123_bytes_of_text(connect: Any) -> None:
    recorder = connect().get(close(4000, "ä".encode() * 61 + b"!"))
    assert recorder.closed == (4000, "ä" * 61 + "!")


@pytest.mark.parametrize("reason", [b"\xff", b"caf\xc3", b"\xed\xa0\x80"])
def test_a_closing_reason_that_is_no_text_is_1007(connect: Any, reason: bytes) -> None:
    assert_fails(connect().get(close(1000, reason)), 1007)


def test_nothing_is_parsed_after_the_peers_close_frame(connect: Any, wire: Any) -> None:
    recorder = connect().get(close(1000), (FIN | TEXT, b"late"), (FIN | PING,), b"\xff\xff\xff")
    recorder.feed(b"\x00\x00", wire((FIN | BINARY, b"later")))
    assert recorder.calls == [("on_closed", 1000, "")]
    assert recorder.engine.error is None
    assert recorder.taken() == b"\x88\x02\x03\xe8"


def test_nothing_can_be_sent_after_the_peers_close_frame(connect: Any) -> None:
    recorder = connect().get(close(1000))
    recorder.taken()
    engine = recorder.engine
    for send, content in ((engine.send_text, "x"), (engine.send_bytes, b"x")):
        with pytest.raises(LocalProtocolError, match="not open"):
            send(content)
    engine.ping(b"x")
    engine.close(1000)
    engine.unblock()
    assert recorder.taken() == b""
    assert engine.state == CLOSED


def test_our_close_frame_is_followed_by_nothing_of_ours(connect: Any) -> None:
    recorder = connect()
    recorder.engine.close(1001, "bye")
    assert recorder.engine.state == CLOSING
    assert recorder.taken() == b"\x88\x05\x03\xe9bye"
    with pytest.raises(LocalProtocolError, match="not open"):
        recorder.engine.send_text("x")
    recorder.engine.ping(b"x")
    recorder.engine.close(1000)
    recorder.get((FIN | PING, b"?"))
    assert recorder.taken() == b""
    assert recorder.engine.state == CLOSING


def test_messages_after_our_close_frame_are_dropped(connect: Any) -> None:
    recorder = connect()
    recorder.engine.close(1000)
    recorder.taken()
    recorder.get((FIN | TEXT, b"a"), (TEXT, b"b"), (FIN | MORE, b"c"), (FIN | PONG, b"p"))
    recorder.get(close(4321, b"too"))
    assert recorder.calls == [("on_pong", b"p"), ("on_closed", 4321, "too")]
    assert recorder.engine.state == CLOSED
    assert recorder.engine.error is None
    assert recorder.taken() == b""


def test_a_message_that_began_before_our_close_frame_is_dropped(connect: Any) -> None:
    recorder = connect().get((TEXT, b"a"))
    recorder.engine.close(1000)
    recorder.get((FIN | MORE, b"b"), close(1000))
    assert recorder.messages == []
    assert recorder.closed == (1000, "")


def test_a_handler_that_closes_gets_no_further_message(connect: Any) -> None:
    recorder = connect()
    recorder.hook = lambda name, *_: name == "on_message" and recorder.engine.close(1000)
    recorder.get((FIN | TEXT, b"a"), (FIN | TEXT, b"b"), close(1000))
    assert recorder.calls == [("on_message", "a"), ("on_closed", 1000, "")]


@pytest.mark.parametrize(
    ("frame", "code"),
    [(b"\x83\x80", 1002), ((FIN | TEXT, b"\xff"), 1007), ((FIN | TEXT, b"x" * 101), 1009)],
)
def test_a_rule_broken_after_our_close_frame_ends_it_without_a_second_one(
    connect: Any, frame: Any, code: int
) -> None:
    recorder = connect(100)
    recorder.engine.close(1000)
    recorder.taken()
    recorder.get(frame)
    assert recorder.code == code
    assert recorder.taken() == b""


def test_a_close_without_a_code_is_an_empty_frame(connect: Any) -> None:
    recorder = connect()
    recorder.engine.close(1005)
    assert recorder.taken() == b"\x88\x00"


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 2999, 5000])
def test_a_code_that_cannot_be_sent_leaves_the_socket_open(connect: Any, code: int) -> None:
    recorder = connect()
    with pytest.raises(LocalProtocolError, match=str(code)):
        recorder.engine.close(code)
    with pytest.raises(LocalProtocolError, match="123"):
        recorder.engine.close(1000, "x" * 124)
    assert recorder.engine.state == OPEN
    assert recorder.taken() == b""


def test_a_reason_that_is_no_text_is_our_callers_mistake(connect: Any) -> None:
    recorder = connect()
    with pytest.raises(LocalProtocolError):
        recorder.engine.close(1000, "\ud800")
    assert recorder.engine.state == OPEN


# ---------------------------------------------------------------- §8.1 text

# What is no text, and the index of its first bad byte (RFC 3629 §4).
NO_TEXT = [
    (b"\x80", 0),
    (b"\xbf", 0),
    (b"\xc0\x80", 0),
    (b"\xc1\xbf", 0),
    (b"\xf5\x80\x80\x80", 0),
    (b"\xff", 0),
    (b"\xc3\x28", 1),
    (b"\xe0\x80\x80", 1),
    (b"\xe0\x9f\xbf", 1),
    (b"\xe2\x28\xa1", 1),
    (b"\xe2\x82\x28", 2),
    (b"\xf0\x80\x80\x80", 1),
    (b"\xf0\x8f\xbf\xbf", 1),
    (b"\xf4\x90\x80\x80", 1),
    (b"\xf0\x9f\x98\x28", 3),
    (b"abc\xc3\xa4\xff", 5),
    ("κόσμε".encode() + b"\xf4\x90\x80\x80" + b"edited", 11 if len("κόσμε".encode()) == 10 else 12),
    # CPython's decoder waits for a surrogate's third byte: what it was asks for an error handler.
    (b"\xed\xa0\x80", 2),
    (b"\xed\xbf\xbf", 2),
]


@pytest.mark.parametrize(("content", "bad"), NO_TEXT)
def test_text_in_one_frame_fails_at_its_first_bad_byte(
    connect: Any, wire: Any, content: bytes, bad: int
) -> None:
    whole = wire((FIN | TEXT, content + b"and more"))
    recorder = connect()
    start = 6
    for i in range(start + bad):
        recorder.feed(whole[i : i + 1])
        assert recorder.code is None, i - start
    assert_fails(recorder.feed(whole[start + bad : start + bad + 1]), 1007)


@pytest.mark.parametrize(("content", "bad"), NO_TEXT)
def test_text_in_fragments_fails_at_its_first_bad_byte(
    connect: Any, wire: Any, content: bytes, bad: int
) -> None:
    recorder = connect().get((TEXT,))
    for byte in content[:bad]:
        recorder.get((MORE, bytes([byte])))
        assert recorder.code is None
    assert_fails(recorder.get((MORE, content[bad : bad + 1])), 1007)


@pytest.mark.parametrize(("content", "bad"), NO_TEXT)
def test_text_that_is_none_is_1007_in_any_shape(connect: Any, content: bytes, bad: int) -> None:
    assert_fails(connect().get((FIN | TEXT, content)), 1007)
    assert_fails(connect().get((FIN | TEXT, content), (FIN | TEXT, b"behind it")), 1007)
    for at in range(len(content) + 1):
        assert_fails(connect().get((TEXT, content[:at]), (FIN | MORE, content[at:])), 1007)


@pytest.mark.parametrize("part", [b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"ok \xe2"])
def test_text_that_ends_within_a_character_is_1007(connect: Any, wire: Any, part: bytes) -> None:
    assert_fails(connect().get((FIN | TEXT, part)), 1007)
    assert_fails(connect().get((TEXT, part), (FIN | MORE,)), 1007)
    assert_fails(connect().get((TEXT,), (FIN | MORE, part)), 1007)
    whole = wire((FIN | TEXT, part))
    assert_fails(connect().feed(whole[:-1], whole[-1:]), 1007)


def test_a_character_may_lie_across_fragments_and_segments(connect: Any, wire: Any) -> None:
    text = "aä€😀\U0010ffff\ufffe\0"
    content = text.encode()
    frames = [(FIN * (i == len(content) - 1) | (MORE if i else TEXT), content[i : i + 1])
              for i in range(len(content))]  # fmt: skip
    assert connect().get(*frames).messages == [text]
    whole = wire((FIN | TEXT, content))
    for at in range(len(whole)):
        assert connect().feed(whole[:at], whole[at:]).messages == [text]


def test_an_incomplete_character_does_not_leak_into_the_next_message(connect: Any) -> None:
    recorder = connect().get((TEXT, "ä".encode()[:1]), (FIN | MORE, "ä".encode()[1:]))
    recorder.get((BINARY, b"\xc3"), (FIN | MORE, b"\xc3"))
    recorder.get((TEXT, b"x"), (FIN | MORE, b"y"))
    assert recorder.messages == ["ä", b"\xc3\xc3", "xy"]


def test_bytes_need_not_be_text(connect: Any) -> None:
    assert connect().get((FIN | BINARY, b"\xff\xc3")).messages == [b"\xff\xc3"]


# ---------------------------------------------------------------- §7.4.1, §10.4 too big


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 100, 125, 126, 1000, 65536])
def test_the_largest_message_is_max_size_bytes(connect: Any, opcode: int, size: int) -> None:
    recorder = connect(size).get((FIN | opcode, b"x" * size))
    assert len(recorder.messages[0]) == size
    assert_fails(recorder.get((FIN | opcode, b"x" * (size + 1))), 1009)


@pytest.mark.parametrize("length", [1 << 20, 1 << 40, (1 << 63) - 1])
def test_an_announced_size_is_refused_before_a_byte_of_it_comes(connect: Any, length: int) -> None:
    recorder = connect(1000).feed(b"\x82\xff" + length.to_bytes(8)[:-1])
    assert recorder.code is None
    assert_fails(recorder.feed(length.to_bytes(8)[-1:]), 1009)


def test_a_message_too_big_is_refused_from_its_head(connect: Any) -> None:
    assert_fails(connect(100).feed(b"\x82\xfe\x00\x80"), 1009)
    assert_fails(connect(100).feed(b"\x82\xe5"), 1009)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fragments_count_together(connect: Any, opcode: int) -> None:
    recorder = connect(100).get((opcode, b"x" * 60), (FIN | MORE, b"x" * 40))
    assert len(recorder.messages[0]) == 100
    recorder.get((opcode, b"x" * 60), (MORE,))
    assert_fails(recorder.feed(bytes([MORE, 0x80 | 41])), 1009)


def test_the_size_of_text_is_counted_in_bytes(connect: Any) -> None:
    assert connect(4).get((FIN | TEXT, "ää".encode())).messages == ["ää"]
    assert_fails(connect(3).get((FIN | TEXT, "ää".encode())), 1009)


def test_what_was_collected_is_not_counted_against_the_next_message(connect: Any) -> None:
    recorder = connect(10)
    for _ in range(5):
        recorder.get((BINARY, b"x" * 5), (FIN | MORE, b"y" * 5))
    assert recorder.messages == [b"x" * 5 + b"y" * 5] * 5


def test_control_frames_are_not_counted_against_the_message(connect: Any) -> None:
    recorder = connect(10).get((BINARY, b"x" * 10), (FIN | PING, b"p" * 125), (FIN | MORE,))
    assert recorder.messages == [b"x" * 10]


def test_size_is_counted_after_inflation(connect: Any) -> None:
    def deflated(content: bytes) -> bytes:
        deflater = zlib.compressobj(wbits=-12)
        return (deflater.compress(content) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]

    assert connect(200, DEFLATE).get((FIN | BINARY | RSV1, deflated(bytes(200)))).messages == [
        bytes(200)
    ]
    assert_fails(connect(200, DEFLATE).get((FIN | BINARY | RSV1, deflated(bytes(201)))), 1009)
    content = deflated(bytes(201))
    for at in range(len(content)):
        recorder = connect(200, DEFLATE)
        recorder.get((BINARY | RSV1, content[:at]), (FIN | MORE, content[at:]))
        assert_fails(recorder, 1009)


# ---------------------------------------------------------------- segments


class Stream(NamedTuple):
    name: str
    frames: list[Any]
    max_size: int = 1000
    offer: str = ""


HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692 §7.2.3.1

STREAMS = [
    Stream("nothing", []),
    Stream("one text", [(FIN | TEXT, b"Hello")]),
    Stream("one of bytes", [(FIN | BINARY, b"\0\xff" * 9)]),
    Stream("empty messages", [(FIN | TEXT,), (FIN | BINARY,), (FIN | TEXT,)]),
    Stream("many", [(FIN | TEXT, b"%d" % i) for i in range(20)]),
    Stream("other keys", [(FIN | TEXT, b"abcdefg", bytes([i, 2, 3, 4])) for i in range(5)]),
    Stream("126 bytes", [(FIN | TEXT, b"x" * 126), (FIN | BINARY, b"y" * 127)]),
    Stream("wide characters", [(FIN | TEXT, "aä€😀z".encode()), (FIN | TEXT, b"!")]),
    Stream("fragments", [(TEXT, b"a"), (MORE, b"bc"), (FIN | MORE, b"d"), (FIN | TEXT, b"e")]),
    Stream("bytes in fragments", [(BINARY, b"ab" * 9), (MORE, b"\xff"), (FIN | MORE, b"c" * 7)]),
    Stream("empty fragments", [(TEXT,), (MORE,), (FIN | MORE,), (BINARY,), (FIN | MORE, b"x")]),
    Stream("a split character", [(TEXT, b"\xf0"), (MORE, b"\x9f\x98"), (FIN | MORE, b"\x80.")]),
    Stream("controls", [(FIN | PING, b"a"), (FIN | PONG, b"b"), (FIN | PING,), (FIN | PONG,)]),
    Stream("controls between", [(TEXT, b"a"), (FIN | PING, b"p"), (FIN | MORE, b"b"),
                                (FIN | PONG, b"q"), (FIN | TEXT, b"c")]),
    Stream("a long ping", [(FIN | PING, b"p" * 125), (FIN | TEXT, b"x")]),
    Stream("the end", [(FIN | TEXT, b"a"), close(1000, b"bye"), (FIN | TEXT, b"b")]),
    Stream("the end without a code", [(FIN | CLOSE,), (FIN | PING, b"b"), b"\xff\xff"]),
    Stream("the end in a message", [(BINARY, b"a"), close(3000), (FIN | MORE, b"b")]),
    Stream("an incomplete head", [(FIN | TEXT, b"a"), b"\x81"]),
    Stream("an incomplete length", [b"\x82\xff\0\0\0"]),
    Stream("an incomplete message", [(TEXT, b"a"), b"\x80\x8512345"]),
    Stream("an incomplete ping", [b"\x89\x851234abc"]),
    Stream("unmasked", [(FIN | TEXT, b"a"), b"\x81\x01x", (FIN | TEXT, b"b")]),
    Stream("a reserved bit", [(FIN | TEXT, b"a"), (FIN | RSV1 | TEXT, b"b")]),
    Stream("a reserved bit in a continuation", [(TEXT, b"a"), (FIN | RSV2, b"b")]),
    Stream("a reserved opcode", [(FIN | 3, b"x"), (FIN | TEXT, b"b")]),
    Stream("a reserved control opcode", [(FIN | 0xB, b"x" * 10)]),
    Stream("a fragmented ping", [(PING, b"x"), (FIN | MORE, b"x")]),
    Stream("a ping too long", [b"\x89\xfe\x00\x7e1234" + b"x" * 126]),
    Stream("a message in a message", [(TEXT, b"a"), (FIN | TEXT, b"b")]),
    Stream("nothing to continue", [(FIN | MORE, b"a"), (FIN | TEXT, b"b")]),
    Stream("a long form", [b"\x82\xfe\0\x051234hello"]),
    Stream("a very long form", [b"\x82\xff" + (200).to_bytes(8) + b"1234" + b"x" * 200]),
    Stream("the highest bit", [b"\x82\xff" + b"\x80" + bytes(7) + b"1234"]),
    Stream("too big", [(FIN | TEXT, b"a"), (FIN | BINARY, b"x" * 31)], 30),
    Stream("too big, small", [(FIN | TEXT, b"abc"), (FIN | TEXT, b"abcd")], 3),
    Stream("just right", [(FIN | TEXT, b"x" * 30), (BINARY, b"x" * 30), (FIN | MORE,)], 30),
    Stream("too big together", [(TEXT, b"x" * 20), (FIN | MORE, b"x" * 11)], 30),
    Stream("announced", [b"\x82\xff" + (1 << 40).to_bytes(8) + b"1234" + b"x" * 50]),
    Stream("no text", [(FIN | TEXT, b"a"), (FIN | TEXT, b"ab\xffcd"), (FIN | TEXT, b"b")]),
    Stream("no text at last", [(TEXT, b"a"), (MORE, b"\xe2\x82"), (FIN | MORE, b"x")]),
    Stream("half a character", [(FIN | TEXT, b"a\xe2\x82")]),
    Stream("a surrogate", [(FIN | TEXT, b"a\xed\xa0\x80b")]),
    Stream("no code", [(FIN | CLOSE, b"\x03")]),
    Stream("a bad code", [close(1006, b"x")]),
    Stream("a bad reason", [close(1000, b"\xff")]),
    Stream("deflated", [(FIN | RSV1 | TEXT, HELLO), (FIN | TEXT, b"plain"),
                        (FIN | RSV1 | BINARY, HELLO)], 100, DEFLATE),
    Stream("deflated in fragments", [(RSV1 | TEXT, HELLO[:3]), (FIN | PING, b"p"),
                                     (MORE, HELLO[3:4]), (MORE,), (FIN | MORE, HELLO[4:])],
           100, DEFLATE),
    Stream("deflated, with context", [(FIN | RSV1 | TEXT, HELLO),
                                      (FIN | RSV1 | TEXT, bytes.fromhex("f200110000"))],
           100, DEFLATE),
    Stream("deflated too big", [(FIN | RSV1 | TEXT, HELLO)], 4, DEFLATE),
    Stream("deflated nonsense", [(FIN | RSV1 | TEXT, b"\xff\xff\xff")], 100, DEFLATE),
    Stream("deflated no text", [(FIN | RSV1 | TEXT, b"\x00\x02\x00\xfd\xff\xff\xff\x00"),
                                (FIN | TEXT, b"a")], 100, DEFLATE),
]  # fmt: skip


@pytest.mark.parametrize("stream", STREAMS, ids=[stream.name for stream in STREAMS])
def test_segments_do_not_matter(connect: Any, wire: Any, cut: Any, stream: Stream) -> None:
    data = wire(*stream.frames)

    def fed(*segments: bytes) -> Any:
        return connect(stream.max_size, stream.offer).feed(*segments).outcome()

    expected = fed(data)
    assert fed(*(data[i : i + 1] for i in range(len(data)))) == expected
    assert fed(b"", *(data[i : i + 3] for i in range(0, len(data), 3)), b"") == expected
    for at in range(len(data)):
        assert fed(*cut(data, [at])) == expected, at


@pytest.mark.parametrize("stream", STREAMS, ids=[stream.name for stream in STREAMS])
@pytest.mark.parametrize("queue", [1, 2])
def test_pauses_do_not_matter(
    connect: Any, wire: Any, cut: Any, stream: Stream, queue: int
) -> None:
    data = wire(*stream.frames)
    expected = connect(stream.max_size, stream.offer).feed(data).outcome()
    for step in (1, 5, len(data) or 1):
        recorder = connect(stream.max_size, stream.offer, queue=queue)
        for segment in cut(data, range(0, len(data), step)):
            recorder.feed(segment)
            while recorder.engine.paused:
                assert recorder.waiting == queue
                recorder.drain()
        assert recorder.outcome() == expected


@pytest.mark.parametrize("stream", STREAMS, ids=[stream.name for stream in STREAMS])
def test_what_we_read_while_we_close_is_the_same_in_any_segments(
    connect: Any, wire: Any, stream: Stream
) -> None:
    data = wire(*stream.frames)

    def fed(*segments: bytes) -> Any:
        recorder = connect(stream.max_size, stream.offer)
        recorder.engine.close(1000)
        return recorder.feed(*segments).outcome()

    expected = fed(data)
    assert all(name != "on_message" for name, *_ in expected["calls"])
    assert fed(*(data[i : i + 1] for i in range(len(data)))) == expected


# ---------------------------------------------------------------- back-pressure


def test_a_full_handler_stops_the_parser_in_mid_buffer(connect: Any) -> None:
    recorder = connect(queue=2).get(*[(FIN | TEXT, b"%d" % i) for i in range(5)])
    assert recorder.messages == ["0", "1"]
    assert recorder.engine.paused
    assert recorder.reading is False
    recorder.drain()
    assert recorder.messages == ["0", "1", "2", "3"]
    assert recorder.engine.paused
    assert recorder.reading is False
    recorder.drain()
    assert recorder.messages == ["0", "1", "2", "3", "4"]
    assert not recorder.engine.paused
    assert recorder.reading is True


def test_the_message_that_fills_the_handler_may_be_the_last_there_is(connect: Any) -> None:
    recorder = connect(queue=1).get((FIN | TEXT, b"a"))
    assert not recorder.reading
    recorder.drain()
    assert recorder.reading
    assert recorder.get((FIN | TEXT, b"b")).messages == ["a", "b"]


def test_bytes_that_come_while_it_is_paused_wait_their_turn(connect: Any, wire: Any) -> None:
    data = wire(*[(FIN | TEXT, b"message %d" % i) for i in range(8)], (FIN | PING, b"p"))
    recorder = connect(queue=1)
    recorder.feed(data[:20], data[20:21], data[21:70], b"", data[70:])
    assert recorder.messages == ["message 0"]
    assert recorder.taken() == b""
    for _ in range(8):
        recorder.drain()
    assert recorder.messages == [f"message {i}" for i in range(8)]
    assert recorder.taken() == b"\x8a\x01p"


def test_reading_is_resumed_once_all_that_was_read_is_parsed(connect: Any) -> None:
    recorder = connect(queue=1).get(*[(FIN | TEXT, b"x")] * 3, b"\x81")
    assert [call for call in recorder.calls if call[0] == "on_readable"] == [("on_readable", False)]
    recorder.drain()
    recorder.drain()
    assert ("on_readable", True) not in recorder.calls
    recorder.drain()
    assert recorder.calls[-1] == ("on_readable", True)
    assert recorder.feed(b"\x801234").messages == ["x", "x", "x", ""]


def test_resuming_what_is_not_paused_is_nothing(connect: Any) -> None:
    recorder = connect(queue=5)
    recorder.get((FIN | TEXT, b"a"), b"\x81")
    recorder.engine.resume()
    assert recorder.calls == [("on_message", "a")]
    assert recorder.feed(b"\x801234").messages == ["a", ""]


def test_a_pong_waits_behind_messages_that_wait(connect: Any) -> None:
    recorder = connect(queue=1).get((FIN | TEXT, b"a"), (FIN | PING, b"p"))
    assert recorder.taken() == b""
    recorder.drain()
    assert recorder.taken() == b"\x8a\x01p"


def test_a_rule_broken_behind_messages_that_wait_is_found_when_they_are_taken(
    connect: Any,
) -> None:
    recorder = connect(queue=1).get((FIN | TEXT, b"a"), (FIN | TEXT, b"b"), b"\x83\x80")
    recorder.drain()
    assert recorder.messages == ["a", "b"]
    assert recorder.code is None
    recorder.drain()
    assert recorder.code == 1002


def test_closing_while_it_is_paused_reads_on_to_the_peers_close_frame(connect: Any) -> None:
    recorder = connect(queue=1).get((FIN | TEXT, b"a"), (FIN | TEXT, b"b"), close(4000, b"me too"))
    assert recorder.reading is False
    recorder.engine.close(1000)
    assert recorder.messages == ["a"]
    assert recorder.closed == (4000, "me too")
    assert recorder.taken() == b"\x88\x02\x03\xe8"


def test_closing_while_it_is_paused_reads_again(connect: Any) -> None:
    recorder = connect(queue=1).get((FIN | TEXT, b"a"), (FIN | TEXT, b"b"))
    recorder.engine.close(1000)
    assert recorder.reading is True
    assert not recorder.engine.paused
    recorder.get((FIN | TEXT, b"c"), close(1000))
    assert recorder.messages == ["a"]
    assert recorder.closed == (1000, "")


def test_a_handler_that_closes_and_is_full_does_not_stop_the_closing(connect: Any) -> None:
    recorder = connect(queue=1)
    recorder.hook = lambda name, *_: name == "on_message" and recorder.engine.close(1000)
    recorder.get((FIN | TEXT, b"a"), close(1000))
    assert recorder.closed == (1000, "")


class Counted(bytes):
    """Bytes that count what is copied out of them."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        got = super().__getitem__(key)
        if isinstance(got, bytes):
            Counted.copied += len(got)
            return Counted(got)
        return got

    def __add__(self, other: Any) -> Counted:
        Counted.copied += len(self) + len(other)
        return Counted(super().__add__(other))


def test_many_tiny_messages_behind_a_small_queue_cost_what_their_bytes_cost(
    connect: Any, wire: Any
) -> None:
    data = wire((FIN | TEXT, b"x")) * 30_000  # 210 KB, and almost a thousand pauses
    recorder = connect(queue=32)
    Counted.copied = 0
    recorder.feed(Counted(data))
    pauses = 0
    while recorder.engine.paused:
        pauses += 1
        recorder.drain()
    assert len(recorder.messages) == 30_000
    assert pauses == 30_000 // 32
    assert Counted.copied <= 2 * len(data)


def test_a_large_segment_of_whole_frames_is_not_copied_again_for_each(
    connect: Any, wire: Any
) -> None:
    data = wire(*[(FIN | BINARY, b"x" * 200), (TEXT, b"y"), (FIN | MORE, b"z")] * 1000)
    Counted.copied = 0
    recorder = connect().feed(Counted(data))
    assert len(recorder.messages) == 2000
    assert Counted.copied <= 3 * len(data)


def test_a_large_frame_in_small_segments_is_not_copied_again_for_each(
    connect: Any, wire: Any
) -> None:
    for opcode in (TEXT, BINARY):
        data = wire((FIN | opcode, b"x" * 500_000))
        recorder = connect()
        Counted.copied = 0
        recorder.feed(*(Counted(data[i : i + 1000]) for i in range(0, len(data), 1000)))
        assert len(recorder.messages[0]) == 500_000
        assert Counted.copied <= 2 * len(data)


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_hundred_thousand_tiny_fragments_cost_their_bytes(
    connect: Any, wire: Any, opcode: int
) -> None:
    recorder = connect()
    segment = wire((MORE, b"x")) * 1000
    recorder.get((opcode,))
    collected = recorder.engine._message
    for _ in range(100):
        recorder.feed(segment)
        # One array that grows: anything else would copy the message for each fragment.
        assert recorder.engine._message is collected
    assert len(collected) == 100_000
    assert sys.getsizeof(collected) < 200_000
    recorder.get((FIN | MORE,))
    assert len(recorder.messages[0]) == 100_000


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_what_tiny_fragments_leave_behind_is_their_content(
    connect: Any, wire: Any, opcode: int
) -> None:
    recorder = connect().get((opcode,))
    segment = wire((MORE, b"x")) * 5000
    tracemalloc.start()
    try:
        recorder.feed(segment)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(recorder.engine._message) == 5000
    assert now < 15_000
    assert peak < 50_000


def test_a_large_message_is_buffered_at_most_a_few_times(connect: Any, wire: Any) -> None:
    size = 1 << 20
    whole = wire((FIN | BINARY, bytes(size)))
    recorder = connect(size)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(0, len(whole), HIGH_WATER):
            recorder.feed(whole[i : i + HIGH_WATER])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(recorder.messages[0]) == size
    assert peak - before < 4 * size


def test_what_is_announced_takes_no_memory(connect: Any) -> None:
    recorder = connect(1 << 40)
    tracemalloc.start()
    try:
        recorder.feed(b"\x82\xff" + (1 << 39).to_bytes(8) + b"1234" + b"x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert recorder.code is None
    assert peak < 100_000


def test_a_socket_that_is_closed_holds_nothing_of_what_it_read(connect: Any) -> None:
    for end in (close(1000), b"\x83\x80"):
        recorder = connect().get((BINARY, bytes(10_000)), end)
        engine = recorder.engine
        assert (engine._message, engine._frame, engine._buffer) == (None, None, b"")


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([], id="nothing"),
        pytest.param([(FIN | TEXT, b"a"), (TEXT, b"b")], id="half a message"),
        pytest.param([close(1000)], id="a close frame"),
        pytest.param([b"\x83\x80"], id="a broken rule"),
        pytest.param([(FIN | BINARY, b"x" * 2000)], id="too big"),
        pytest.param([(FIN | TEXT, b"\xff")], id="no text"),
        pytest.param([(TEXT, b"\xff")], id="no text in a fragment"),
        pytest.param([close(1000, b"\xff")], id="no text in a close frame"),
        pytest.param([(FIN | RSV1 | TEXT, b"\xff\xff")], id="no deflate stream"),
    ],
)
def test_a_socket_that_is_lost_leaves_no_garbage(
    connect: Any, frames: list[Any], garbage: Any
) -> None:
    recorder = connect(1000, DEFLATE).get(*frames)
    recorder.engine.connection_lost()
    del recorder
    assert garbage() == []


# ---------------------------------------------------------------- the connection is lost


def test_no_upcall_follows_the_loss_of_the_connection(connect: Any) -> None:
    recorder = connect().get((TEXT, b"a"))
    recorder.engine.connection_lost()
    assert recorder.engine.state == CLOSED
    recorder.get((FIN | MORE, b"b"), (FIN | PONG,), close(1000), b"\x83\x80")
    recorder.engine.close(1000)
    recorder.engine.ping(b"")
    recorder.engine.unblock()
    with pytest.raises(LocalProtocolError):
        recorder.engine.send_text("x")
    assert recorder.calls == []


def test_what_waited_can_be_taken_after_the_loss_of_the_connection(connect: Any) -> None:
    recorder = connect(queue=1).get((FIN | TEXT, b"a"), (FIN | TEXT, b"b"))
    recorder.engine.connection_lost()
    assert not recorder.engine.paused
    recorder.engine.resume()
    assert recorder.messages == ["a"]


@pytest.mark.parametrize(
    "behind",
    [
        (FIN | TEXT, b"b"),
        (FIN | PING, b"p"),
        (FIN | PONG, b"p"),
        close(1000),
        b"\x83\x80",
    ],
)
def test_the_connection_may_be_lost_within_an_upcall(connect: Any, behind: Any) -> None:
    recorder = connect()
    recorder.hook = lambda *_: recorder.engine.connection_lost()
    recorder.get((FIN | TEXT, b"a"), behind)
    assert recorder.calls == [("on_message", "a")]


# ---------------------------------------------------------------- output


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 16383, 16384, 65535, 65536, 200_000])
def test_a_message_is_one_frame_in_its_shortest_form(connect: Any, size: int) -> None:
    if size < 126:
        head = bytes([size])
    elif size < 65536:
        head = b"\x7e" + size.to_bytes(2)
    else:
        head = b"\x7f" + size.to_bytes(8)
    recorder = connect()
    recorder.engine.send_bytes(b"\xff" * size)
    assert recorder.taken() == b"\x82" + head + b"\xff" * size
    recorder.engine.send_text("x" * size)
    assert recorder.taken() == b"\x81" + head + b"x" * size


def test_text_is_sent_as_utf_8(connect: Any) -> None:
    recorder = connect()
    recorder.engine.send_text("ä€😀\0")
    assert recorder.taken() == b"\x81\x0a" + "ä€😀\0".encode()


@pytest.mark.parametrize("text", ["\ud800", "ok \udfff", None, 5, b"bytes"])
def test_what_is_no_text_is_our_callers_mistake(connect: Any, text: Any) -> None:
    recorder = connect()
    with pytest.raises(LocalProtocolError, match="must be a str of Unicode text"):
        recorder.engine.send_text(text)
    assert recorder.taken() == b""
    assert recorder.engine.state == OPEN


def test_large_content_is_not_copied(connect: Any) -> None:
    taken: list[list[bytes]] = []
    recorder = connect()
    recorder.on_full = lambda: taken.append(recorder.engine.take())
    content = bytes(5 * HIGH_WATER)
    recorder.engine.send_bytes(content)
    [[_, piece]] = taken
    assert piece is content


def test_output_is_announced_before_the_first_byte_and_once_until_it_is_taken() -> None:
    said: list[object] = []
    engine = WebSocketEngine(object(), object(), 100, None, said.append)  # type: ignore[type-var, arg-type]
    engine.send_text("a")
    engine.send_text("b")
    engine.ping(b"c")
    assert len(said) == 1
    assert engine.pending == 9
    assert b"".join(engine.take()) == b"\x81\x01a\x81\x01b\x89\x01c"
    assert engine.pending == 0
    assert engine.take() == []
    engine.close(1000)
    assert len(said) == 2


def test_a_peer_that_does_not_read_makes_the_sender_wait(connect: Any) -> None:
    recorder = connect()
    recorder.engine.blocked = True
    assert recorder.engine.send_text("a") is False
    assert recorder.engine.send_bytes(b"b") is False
    recorder.engine.unblock()
    assert recorder.engine.send_text("c") is True
    assert recorder.taken() == b"\x81\x01a\x82\x01b\x81\x01c"


def test_more_output_than_the_high_water_mark_is_flushed_at_once(connect: Any) -> None:
    recorder = connect()
    for _ in range(HIGH_WATER // 1000):
        recorder.engine.send_bytes(bytes(1000))
    assert recorder.engine.pending > HIGH_WATER - 1000
    recorder.engine.send_bytes(bytes(1000))
    assert recorder.engine.pending == 0
    assert recorder.calls == []


def test_who_sends_much_in_one_go_leaves_others_their_turn(connect: Any) -> None:
    recorder = connect()
    for _ in range(4 * HIGH_WATER // 1000):
        recorder.engine.send_bytes(bytes(1000))
    assert recorder.calls == []
    recorder.engine.send_bytes(bytes(1000))
    assert recorder.calls == [("on_full",)]


def test_a_flush_that_finds_the_peer_full_makes_the_sender_wait(connect: Any) -> None:
    recorder = connect()

    def block(name: str, *_: Any) -> None:
        recorder.engine.blocked = True

    recorder.hook = block
    assert recorder.engine.send_bytes(bytes(4 * HIGH_WATER + 1)) is False


def test_the_handler_may_answer_within_its_upcall(connect: Any) -> None:
    recorder = connect()
    recorder.hook = lambda name, *args: recorder.engine.send_text(args[0].upper())
    recorder.get((FIN | TEXT, b"a"), (FIN | PING, b"p"), (FIN | TEXT, b"b"))
    assert recorder.taken() == b"\x81\x01A\x8a\x01p\x81\x01B"


# ---------------------------------------------------------------- compressed output (RFC 7692 §6)


@pytest.mark.parametrize(("size", "first"), [(0, 0x82), (127, 0x82), (128, 0xC2), (5000, 0xC2)])
def test_small_messages_are_not_compressed(connect: Any, size: int, first: int) -> None:
    recorder = connect(1000, DEFLATE)
    recorder.engine.send_bytes(bytes(size))
    wire = recorder.taken()
    assert wire[0] == first
    assert len(wire) < 130 + 20


def test_the_size_that_decides_is_in_bytes(connect: Any) -> None:
    recorder = connect(1000, DEFLATE)
    recorder.engine.send_text("ä" * 63)
    assert recorder.taken()[0] == FIN | TEXT
    recorder.engine.send_text("ä" * 64)
    assert recorder.taken()[0] == FIN | RSV1 | TEXT


def test_nothing_is_compressed_that_was_not_agreed(connect: Any) -> None:
    recorder = connect()
    recorder.engine.send_bytes(bytes(1000))
    assert recorder.taken() == b"\x82\x7e\x03\xe8" + bytes(1000)


def test_control_frames_are_not_compressed(connect: Any) -> None:
    recorder = connect(1000, DEFLATE)
    recorder.engine.ping(bytes(125))
    assert recorder.taken() == b"\x89\x7d" + bytes(125)
    recorder.engine.close(1000, "x" * 123)
    assert recorder.taken()[:2] == b"\x88\x7d"


# ---------------------------------------------------------------- a failure waits its turn


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (b"\x83\x80", 1002),
        ((FIN | TEXT, b"\xff"), 1007),
        ((FIN | BINARY, b"x" * 101), 1009),
        ((FIN | CLOSE, b"x"), 1002),
    ],
    ids=["1002", "1007", "1009", "close"],
)
def test_what_came_before_a_broken_rule_is_answered_first(
    connect: Any, broken: Any, code: int
) -> None:
    recorder = connect(100)
    recorder.is_behind = True
    recorder.get((FIN | TEXT, b"a"), broken, (FIN | TEXT, b"dropped"))
    recorder.get((FIN | TEXT, b"dropped too"), (FIN | PING, b"p"))
    assert recorder.calls == [("on_message", "a"), ("on_readable", False), ("on_failing",)]
    assert recorder.taken() == b"" and recorder.engine.error is None

    recorder.engine.send_text("answer")
    recorder.drain()
    assert recorder.code == code
    assert recorder.messages == ["a"]
    answer, goodbye = b"\x81\x06answer", recorder.taken()
    assert goodbye.startswith(answer + b"\x88")
    assert goodbye[len(answer) + 2 :][:2] == code.to_bytes(2)


def test_a_broken_rule_is_told_at_once_where_nothing_waits_or_we_have_closed(connect: Any) -> None:
    recorder = connect().get((FIN | TEXT, b"a"), b"\x83\x80")
    assert recorder.code == 1002

    recorder = connect()
    recorder.is_behind = True
    recorder.engine.close(1000)
    assert recorder.get(b"\x83\x80").code == 1002


def test_closing_ends_the_wait_of_a_failure(connect: Any) -> None:
    recorder = connect()
    recorder.is_behind = True
    recorder.get((FIN | TEXT, b"a"), b"\x83\x80")
    recorder.engine.close(4000)
    recorder.flush()
    assert recorder.code == 1002
    assert recorder.taken() == b"\x88\x02" + (4000).to_bytes(2)


def test_a_failure_that_waits_goes_with_the_connection(connect: Any) -> None:
    recorder = connect()
    recorder.is_behind = True
    recorder.get((FIN | TEXT, b"a"), b"\x83\x80")
    recorder.engine.connection_lost()
    recorder.engine.resume()
    assert recorder.calls[-1] == ("on_failing",)


def test_pongs_are_flushed_before_they_pile_up(connect: Any) -> None:
    """One segment may hold more pings than anybody should answer in one piece."""
    recorder = connect().get(*[(FIN | PING, bytes(125))] * 1100)
    assert ("on_full",) in recorder.calls
