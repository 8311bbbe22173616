"""A WebSocket server made of threads, which answers what a test tells it to.

It shares no code with the client in `bench.websocket`, so that neither hides the other's mistakes.
"""

from __future__ import annotations

import base64
import hashlib
import socketserver
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator


def frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return bytes((0x80 | opcode, 126, size >> 8, size & 255)) + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def accepting(key: str) -> str:
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n\r\n"
    )


class Peer(socketserver.ThreadingTCPServer):
    """`greet` answers a key with a response; `answer` a message with bytes, for its sender.

    `tell`, where it is set, gets the bytes of every message instead, and all sockets that are
    connected with another path than the sender's.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.greet: Callable[[str], str] = accepting
        self.answer: Callable[[int, bytes], bytes] = frame
        self.tell: Callable[[bytes, list[socket.socket]], None] | None = None
        self.keys: list[str] = []
        self.heads: list[str] = []
        self.masks: list[bytes] = []
        self.messages: list[tuple[int, bytes]] = []
        self.pongs: list[bytes] = []
        self.paths: dict[socket.socket, str] = {}

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class Conversation(socketserver.StreamRequestHandler):
    server: Peer

    def handle(self) -> None:
        lines = list(iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ""))
        fields = dict(line.split(": ", 1) for line in lines[1:])
        path = lines[0].split(" ")[1]
        self.server.heads.append("\n".join(lines))
        self.server.keys.append(fields["Sec-WebSocket-Key"])
        self.server.paths[self.request] = path
        self.wfile.write(self.server.greet(fields["Sec-WebSocket-Key"]).encode("latin-1"))
        try:
            while self.message(path):
                pass
        finally:
            del self.server.paths[self.request]

    def message(self, path: str) -> bool:
        head = self.rfile.read(2)
        if len(head) < 2:
            return False
        assert head[0] & 0x70 == 0 and head[1] & 0x80, "a client's frame is plain and masked"
        opcode, size = head[0] & 0x0F, head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
        mask = self.rfile.read(4)
        hidden = self.rfile.read(size)
        pad = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(hidden, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
        self.server.masks.append(mask)
        if opcode == 0x8:
            self.wfile.write(frame(opcode, payload))
            return False
        if opcode == 0xA:
            self.server.pongs.append(payload)
            return True
        self.server.messages.append((opcode, payload))
        answer = self.server.answer(opcode, payload)
        if self.server.tell is not None:
            paths = dict(self.server.paths)
            self.server.tell(answer, [link for link in paths if paths[link] != path])
        else:
            self.wfile.write(answer)
        return answer != b""


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()
