"""A WebSocket client on a plain blocking socket: connect, send a frame, receive one.

What this file alone decides: what the harness's clients put on the wire, and which answers of a
server they take for right.  Rules:

- No extension is offered, so no server compresses: what is measured is framing, not zlib.
- Every frame is masked with four random bytes that are never all zero (RFC 6455 §5.3), so that
  no server can skip the unmasking.
- A message must come back as one frame, unmasked, with the shortest form of its length: what
  counts bytes under load (`bench.sockets`) relies on it.

It is made to be right rather than fast: it opens sockets and checks answers, `bench.sockets`
makes the load.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
SECONDS = 10.0
"""How long any one answer may take."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WrongAnswer(ConnectionError):
    """The server refused the handshake, closed, or broke the protocol; the message says how."""


def question(host: str, target: str, key: bytes) -> bytes:
    """The opening handshake (RFC 6455 §4.1) for `target`."""
    return (
        b"GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ) % (target.encode(), host.encode(), key)


def new_key() -> bytes:
    """A fresh Sec-WebSocket-Key."""
    return base64.b64encode(os.urandom(16))


def connect(address: tuple[str, int], target: str) -> socket.socket:
    """Open a socket to `address` and shake hands; it blocks, for `SECONDS` at most.

    Raises:
        WrongAnswer: Not a 101 that accepts this key and no extension.
        OSError: No connection, or no answer in time.
    """
    link = socket.create_connection(address, timeout=SECONDS)
    try:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = new_key()
        link.sendall(question(address[0], target, key))
        _check_handshake(_head(link), key)
    except BaseException:
        link.close()
        raise
    return link


def _head(link: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = link.recv(4096)
        if not data:
            raise WrongAnswer("closed during the handshake")
        head += data
    if not head.endswith(b"\r\n\r\n"):
        raise WrongAnswer("bytes behind the handshake, before any message")
    return head


def _check_handshake(head: bytes, key: bytes) -> None:
    status_line, *lines = head[:-4].split(b"\r\n")
    if status_line.split(b" ", 2)[1:2] != [b"101"]:
        raise WrongAnswer(f"the handshake was answered {status_line.decode('latin-1')!r}")
    fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    wanted = base64.b64encode(hashlib.sha1(key + _GUID).digest())  # RFC 6455 §4.2.2
    if fields.get(b"sec-websocket-accept") != wanted:
        raise WrongAnswer("the handshake's Sec-WebSocket-Accept is wrong")
    if b"sec-websocket-extensions" in fields:
        raise WrongAnswer("the handshake has an extension that was not offered")


def masked(opcode: int, payload: bytes) -> bytes:
    """A whole frame from client to server, with a new mask."""
    mask = b"\0\0\0\0"
    while mask == b"\0\0\0\0":
        mask = os.urandom(4)
    size = len(payload)
    pad = (mask * (size // 4 + 1))[:size]
    hidden = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    head = bytearray(_head_of(opcode, size))
    head[1] |= 0x80
    return bytes(head) + mask + hidden.to_bytes(size, "big")


def unmasked(opcode: int, payload: bytes) -> bytes:
    """A whole frame from server to client."""
    return _head_of(opcode, len(payload)) + payload


def _head_of(opcode: int, size: int) -> bytes:
    if size < 126:
        return bytes((FIN | opcode, size))
    if size < 65536:
        return bytes((FIN | opcode, 126)) + size.to_bytes(2, "big")
    return bytes((FIN | opcode, 127)) + size.to_bytes(8, "big")


def send(link: socket.socket, opcode: int, payload: bytes) -> None:
    """Send one message as one frame."""
    link.sendall(masked(opcode, payload))


def receive(link: socket.socket) -> tuple[int, bytes]:
    """The next message: its opcode and its payload.  Pings are answered on the way.

    Raises:
        WrongAnswer: A close frame, the end of the connection, a fragment, a masked or compressed
            frame, or a length that is not in its shortest form.
    """
    while True:
        head = _exactly(link, 2)
        head += _exactly(link, {126: 2, 127: 8}.get(head[1], 0))
        opcode = head[0] & 0x0F
        size = head[1] if len(head) == 2 else int.from_bytes(head[2:], "big")
        if head != _head_of(opcode, size):
            raise WrongAnswer(f"a frame that begins {head.hex(' ')}: not whole, unmasked and plain")
        payload = _exactly(link, size)
        if opcode == PING:
            send(link, PONG, payload)
        elif opcode == CLOSE:
            raise WrongAnswer(f"closed with {described(payload)}")
        elif opcode != PONG:
            return opcode, payload


def leave(link: socket.socket) -> None:
    """Close as a browser does: a close frame, then wait for the server to hang up."""
    try:
        send(link, CLOSE, (1000).to_bytes(2, "big"))
        while link.recv(65536):
            pass
    except OSError:
        pass
    finally:
        link.close()


def described(payload: bytes) -> str:
    """The code and the reason of a close frame's payload, for people."""
    if len(payload) < 2:
        return "no code"
    return f"{int.from_bytes(payload[:2], 'big')} {payload[2:].decode(errors='replace')}".strip()


def _exactly(link: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            raise WrongAnswer("closed without a close frame")
        data += piece
    return bytes(data)
