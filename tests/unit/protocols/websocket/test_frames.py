"""Frame heads and close frames: against RFC 6455 §5.2 and §7.4, IANA's registry, and peers."""

from __future__ import annotations

import pytest
import wsproto.frame_protocol as wsproto_frames
from websockets.frames import EXTERNAL_CLOSE_CODES

from omnicorn.errors import LocalProtocolError, WebSocketError
from omnicorn.protocols.websocket import frames

# https://www.iana.org/assignments/websocket/: what may stand in a close frame, of 0 to 2999.
# 1004 is reserved; 1005, 1006 and 1015 are registered for use outside of close frames.
ON_THE_WIRE = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}
# RFC 6455 §7.4.2: 3000-3999 for libraries, 4000-4999 for private use.
PRIVATE = range(3000, 5000)

SIZES = [0, 1, 124, 125, 126, 127, 255, 256, 65534, 65535, 65536, 65537, 1 << 20]


@pytest.mark.parametrize("size", SIZES)
def test_a_length_is_written_in_its_shortest_form(size: int) -> None:
    """RFC 6455 §5.2."""
    head = frames.frame_head(0x82, size)
    assert head[0] == 0x82
    if size <= 125:
        assert head[1:] == bytes([size])
    elif size <= 0xFFFF:
        assert (head[1], head[2:]) == (126, size.to_bytes(2, "big"))
    else:
        assert (head[1], head[2:]) == (127, size.to_bytes(8, "big"))


@pytest.mark.parametrize("size", SIZES[:-1])
def test_a_peer_writes_the_same_head(size: int) -> None:
    theirs = wsproto_frames.FrameProtocol(client=False, extensions=[])
    sent = theirs.send_data(bytes(size), fin=True)
    assert sent == frames.frame_head(0x82, size) + bytes(size)


def test_the_codes_are_the_registered_ones() -> None:
    sendable = {code for code in range(70_000) if frames.is_sendable(code)}
    assert sendable == ON_THE_WIRE | set(PRIVATE)
    assert set(EXTERNAL_CLOSE_CODES) == ON_THE_WIRE


def test_the_names_are_the_registered_ones() -> None:
    ours = (
        frames.NORMAL,
        frames.PROTOCOL_ERROR,
        frames.NO_STATUS,
        frames.ABNORMAL,
        frames.INVALID_DATA,
        frames.TOO_BIG,
        frames.INTERNAL_ERROR,
        frames.SERVICE_RESTART,
    )
    theirs = wsproto_frames.CloseReason
    assert ours == (
        theirs.NORMAL_CLOSURE,
        theirs.PROTOCOL_ERROR,
        theirs.NO_STATUS_RCVD,
        theirs.ABNORMAL_CLOSURE,
        theirs.INVALID_FRAME_PAYLOAD_DATA,
        theirs.MESSAGE_TOO_BIG,
        theirs.INTERNAL_ERROR,
        theirs.SERVICE_RESTART,
    )


# ---------------------------------------------------------------- close frames that we send


@pytest.mark.parametrize("code", [1000, 1011, 3000, 4999])
def test_a_close_frame_holds_the_code_and_the_reason(code: int) -> None:
    content = frames.close_content(code, "später")
    assert content == code.to_bytes(2, "big") + b"sp\xc3\xa4ter"
    assert frames.parse_close(content) == (code, "später")


def test_no_status_is_an_empty_close_frame() -> None:
    """RFC 6455 §7.1.5."""
    assert frames.close_content(1005, "") == b""
    assert frames.parse_close(b"") == (1005, "")


@pytest.mark.parametrize(
    "code", [-1, 0, 1, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65536, 1 << 40]
)
def test_a_code_that_cannot_be_sent_is_our_callers_mistake(code: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"^{code} cannot be sent"):
        frames.close_content(code, "")


@pytest.mark.parametrize("reason", ["x" * 123, "ä" * 61 + "x"])
def test_the_longest_reason_takes_123_bytes(reason: str) -> None:
    """RFC 6455 §5.5: a control frame holds 125, and the code takes two of them."""
    assert len(frames.close_content(1000, reason)) == 125
    with pytest.raises(LocalProtocolError, match="takes 124 bytes"):
        frames.close_content(1000, reason + "x")


# ---------------------------------------------------------------- close frames of the peer


def test_a_close_frame_of_one_byte_is_broken() -> None:
    """RFC 6455 §5.5.1: the first two bytes are the code."""
    for byte in range(256):
        with pytest.raises(WebSocketError, match="holds one byte") as caught:
            frames.parse_close(bytes([byte]))
        assert caught.value.code == 1002


def test_every_code_is_taken_or_refused_by_the_registry() -> None:
    for code in [*range(5001), 9999, 32768, 65535]:
        content = code.to_bytes(2, "big") + b"why"
        if code in ON_THE_WIRE or code in PRIVATE:
            assert frames.parse_close(content) == (code, "why")
        else:
            with pytest.raises(WebSocketError) as caught:
                frames.parse_close(content)
            assert caught.value.code == 1002, code


@pytest.mark.parametrize("reason", [b"\xff", b"ok \xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_a_reason_that_is_no_text_is_1007(reason: bytes) -> None:
    """RFC 6455 §8.1."""
    with pytest.raises(WebSocketError) as caught:
        frames.parse_close(b"\x03\xe8" + reason)
    assert caught.value.code == 1007
