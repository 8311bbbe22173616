"""UDP for ASGI applications, in one file: `python examples/udp_echo.py`, then `nc -u 127.1 4567`.

UDP has no connections, so each address that sends something gets an instance of the application,
with a scope of its own type, ``udp``. What it shows beside the echo:

1. What a `StatelessServer` needs: read messages in ``handle``, write them in ``application_send``.
2. Who only ever asks for new instances costs others theirs, not the server its memory: past
   ``max_applications`` the instance that was not used for longest makes room.
3. Ctrl-C cancels the instances and waits for them.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from omnicorn.toolkit.server import StatelessServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MAX_QUEUED: Final = 100
"""Datagrams that may wait for one instance; more are dropped, as UDP may."""


class UDPScope(TypedDict):
    type: Literal["udp"]
    client: tuple[str, int]


class UDPMessage(TypedDict):
    type: Literal["udp.receive", "udp.send"]
    data: bytes


class UDPServer(StatelessServer, asyncio.DatagramProtocol):
    """Runs an application for each address that sends something."""

    def __init__(self, application: Callable[..., Any], host: str, port: int) -> None:
        super().__init__(application, max_applications=1000)
        self.host, self.port = host, port
        self.closed = asyncio.Event()
        self.transport: asyncio.DatagramTransport

    async def handle(self) -> None:
        await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, local_addr=(self.host, self.port)
        )
        try:
            await self.closed.wait()
        finally:
            self.transport.close()

    async def application_send(self, scope: UDPScope, message: UDPMessage) -> None:
        self.transport.sendto(message["data"], scope["client"])

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        host, port = transport.get_extra_info("sockname")[:2]
        print(f"Listening on {host} port {port}", flush=True)

    def datagram_received(self, data: bytes, client: tuple[str, int]) -> None:
        scope: UDPScope = {"type": "udp", "client": client}
        queue = self.get_or_create_application_instance(client, scope)
        if queue.qsize() < MAX_QUEUED:
            queue.put_nowait({"type": "udp.receive", "data": data})

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


async def echo(
    scope: UDPScope,
    receive: Callable[[], Awaitable[UDPMessage]],
    send: Callable[[UDPMessage], Awaitable[None]],
) -> None:
    """Number what an address sends, and send it back."""
    number = 0
    while True:
        message = await receive()
        number += 1
        await send({"type": "udp.send", "data": b"%d: %b" % (number, message["data"])})


if __name__ == "__main__":
    UDPServer(echo, "127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 4567).run()
