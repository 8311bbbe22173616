"""A trio loop of a test's own, and what is connected to it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import trio

from omnicorn.connections.service import Service
from omnicorn.transports._trio import TrioLoop, hosting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from omnicorn.transports._trio_sockets import TrioTransport

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def run(main: Callable[[TrioLoop], Awaitable[Any]]) -> Any:
    """Run *main* with a loop of its own, for ten seconds at most."""

    async def bounded() -> Any:
        with trio.fail_after(10):
            async with hosting() as loop:
                try:
                    return await main(loop)
                finally:
                    while _open:
                        _open.pop().close()

    return trio.run(bounded)


_open: list[Any] = []
"""Sockets of the test that is running."""


class Keep:
    """A port that keeps what it is told."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received = b""
        self.eof = trio.Event()
        self.lost = trio.Event()
        self.writing = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.eof.set()
        return True

    def pause_writing(self) -> None:
        self.writing = False

    def resume_writing(self) -> None:
        self.writing = True

    def connection_lost(self, exc: Exception | None) -> None:
        assert not self.lost.is_set()
        self.lost.set()


def pair(loop: TrioLoop, port: Any = None) -> tuple[TrioTransport, Any, Any]:
    """A transport, its port, and a client, with small kernel buffers."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
    port = port or Keep()
    client = trio.socket.from_stdlib_socket(theirs)
    _open.append(client)
    return loop.attach(ours, port), port, client


async def read(client: Any, count: int) -> bytes:
    data = bytearray()
    while (left := count - len(data)) and (piece := await client.recv(min(left, 65536))):
        data += piece
    return bytes(data)


async def until(condition: Callable[[], object]) -> None:
    """Let the others run until something has happened."""
    while not condition():
        await trio.lowlevel.checkpoint()


async def ok(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def served(loop: TrioLoop, app: Any, **options: Any) -> Service:
    return Service(app, loop, server_header=False, date_header=False, **options)
