"""Frame heads, and what close frames say (RFC 6455 §5.2, §5.5.1, §7.4).

Decided here: which heads and which closing codes are legal. Text in a close frame is at
most 123 bytes, because control frames hold at most 125.
"""

from __future__ import annotations

from omnicorn.errors import LocalProtocolError, WebSocketError

# Opcodes (RFC 6455 §5.2).
CONTINUATION = 0x0
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

FIN = 0x80
RSV1 = 0x40
RSV2_AND_RSV3 = 0x30

# Closing codes (RFC 6455 §7.4.1, and the IANA registry that it set up).
NORMAL = 1000
PROTOCOL_ERROR = 1002
NO_STATUS = 1005
ABNORMAL = 1006
INVALID_DATA = 1007
TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012

MAX_CONTROL = 125
"""Bytes of content in a control frame (RFC 6455 §5.5)."""


def is_sendable(code: int) -> bool:
    """Whether a close frame may hold *code*: 1004 to 1006 and 1015 are never on the wire."""
    return 3000 <= code <= 4999 or 1000 <= code <= 1003 or 1007 <= code <= 1014


def frame_head(first: int, size: int) -> bytes:
    """The head of an unmasked frame: its first byte, then the shortest form of *size*."""
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


def close_content(code: int, reason: str) -> bytes:
    """The content of a close frame; nothing for `NO_STATUS`.

    Raises:
        LocalProtocolError: The code cannot be sent, or the reason is too long.
    """
    if code == NO_STATUS:
        return b""
    if not is_sendable(code):
        raise LocalProtocolError(
            f"{code} cannot be sent: a closing code is 1000 to 1003, 1007 to 1014, or 3000 to 4999"
        )
    try:
        text = reason.encode()
    except (AttributeError, UnicodeEncodeError):
        raise LocalProtocolError(f"the closing reason must be text: {reason!r:.80}") from None
    if len(text) > MAX_CONTROL - 2:
        raise LocalProtocolError(
            f"the closing reason takes {len(text)} bytes, and 123 fit into a close frame"
        )
    return code.to_bytes(2, "big") + text


def parse_close(content: bytes) -> tuple[int, str]:
    """Code and reason of a close frame; `NO_STATUS` where it is empty.

    Raises:
        WebSocketError: 1002 for a code that must not be sent, 1007 for a reason that is no text.
    """
    if not content:
        return NO_STATUS, ""
    if len(content) == 1:
        raise WebSocketError("a close frame holds one byte, which is no closing code")
    code = int.from_bytes(content[:2], "big")
    if not is_sendable(code):
        raise WebSocketError(f"a close frame holds {code}, which is no closing code to send")
    try:
        return code, content[2:].decode()
    except UnicodeDecodeError:
        raise WebSocketError("the closing reason is not UTF-8", INVALID_DATA) from None
