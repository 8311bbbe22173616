"""A WebSocket client in a few lines (RFC 6455 §5.2): its handshake, its frames, how it reads ours.

Independent of what is tested: nothing here comes from `omnicorn.protocols.websocket`.
"""

from __future__ import annotations

from typing import Any

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

HANDSHAKE = (
    "upgrade: websocket",
    "connection: Upgrade",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)
"""The fields that ask for a WebSocket; the key is that of RFC 6455 §1.3."""

SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)
"""How the answer to it begins; here the fields of extensions and applications follow."""

ACCEPT = {"type": "websocket.accept"}

KEY = b"\x37\xfa\x21\x3d"


def frame(opcode: int, content: bytes = b"", *, first: int = 0x80) -> bytes:
    """A frame of a client; *first* has the bits above the opcode, FIN by default."""
    size = len(content)
    if size < 126:
        head = bytes((first | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((first | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + KEY + bytes(byte ^ KEY[i % 4] for i, byte in enumerate(content))


def text(content: str) -> bytes:
    """A text message of a client."""
    return frame(TEXT, content.encode())


def closing(code: int | None = None, reason: str = "") -> bytes:
    """A close frame of a client."""
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode())


def frames(wire: bytes) -> list[tuple[int, bytes]]:
    """What a server sent, as (opcode, content); every frame is final, unmasked and complete."""
    found = []
    while wire:
        assert wire[0] & 0xF0 == 0x80, "FIN, and no other bit"
        size, start = wire[1], 2
        assert size < 128, "a server does not mask (RFC 6455 §5.1)"
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(wire[2:start], "big")
        assert len(wire) >= start + size, "a part of a frame"
        found.append((wire[0] & 0xF, wire[start : start + size]))
        wire = wire[start + size :]
    return found


def closed(code: int, reason: str = "") -> list[tuple[int, bytes]]:
    """What `frames` gives where a server said nothing but its close frame."""
    return [(CLOSE, code.to_bytes(2, "big") + reason.encode())]


def accept(served: Any, *fields: str, path: str = "/ws", **event: Any) -> Any:
    """Open a WebSocket with the puppet of a `Served`; returns the exchange."""
    served.get(path, *HANDSHAKE, *fields)
    exchange = served.exchange
    assert exchange.receive().result == {"type": "websocket.connect"}
    call = exchange.send({**ACCEPT, **event})
    assert call.done and call.error is None
    # The answer is taken, so that frames are all that follows.
    assert served.run().startswith(SWITCHED)
    return exchange
