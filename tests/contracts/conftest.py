"""The same scenario on every runtime: in memory, asyncio, uvloop, and trio.

A scenario is ``async def scenario(world)``. It knows `World` and the two ports, nothing else;
``play(scenario)`` runs it on each runtime in turn. Real runtimes have real sockets, and their
clients are non-blocking sockets in the same thread, looked at again every millisecond.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
import trio

from omnicorn.transports import _asyncio, _trio
from omnicorn.transports.inproc import ManualLoop, Peer, connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from omnicorn.ports import ConnectionPort, Loop

    Scenario = Callable[["World"], Awaitable[None]]

RUNTIMES = ["inproc", "asyncio", "uvloop", "trio"]
_PATIENCE = 10.0
_LOOK = 0.001


class World:
    """What a scenario may use."""

    def __init__(self, runtime: str, loop: Any) -> None:
        self.runtime = runtime
        self.loop: Loop = loop
        self._clients: list[SocketClient] = []
        self._factory: Callable[[], ConnectionPort] = _nobody
        self._listener: socket.socket | None = None

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        waiter = self.loop.create_future()
        self.loop.call_at(self.loop.time() + seconds, lambda: waiter.set_result(None))
        await waiter

    async def turn(self) -> None:
        """Let everything else that is ready run first."""
        for _ in range(3):
            waiter = self.loop.create_future()
            self.loop.call_soon(lambda waiter=waiter: waiter.set_result(None))  # type: ignore[misc]
            await waiter

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something has happened."""
        end = self.loop.time() + _PATIENCE
        while not condition():
            assert self.loop.time() < end, "it did not happen in time"
            await self.pause(_LOOK)

    async def connect(
        self, port: ConnectionPort, *, window: int = 65536
    ) -> SocketClient | MemoryClient:
        """A client that is connected to *port*; small kernel buffers, so that they fill."""
        if self.runtime == "inproc":
            assert isinstance(self.loop, ManualLoop)
            return MemoryClient(self, connect(self.loop, port, window=window))
        accepted: list[ConnectionPort] = []

        def accept() -> ConnectionPort:
            accepted.append(port)
            return port

        self._factory = accept
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        client.setblocking(False)
        assert self._listener is not None
        try:
            client.connect(self._listener.getsockname())
        except BlockingIOError:
            pass
        made = SocketClient(self, client)
        self._clients.append(made)
        await self.until(lambda: accepted)
        await self.turn()  # now connection_made has been called
        return made

    def close(self) -> None:
        for client in self._clients:
            client.socket.close()


def _nobody() -> ConnectionPort:
    raise AssertionError("nobody was to connect")


class SocketClient:
    """A client on a real socket."""

    def __init__(self, world: World, sock: socket.socket) -> None:
        self._world = world
        self.socket = sock
        self.received = b""
        self.eof = False
        self.was_reset = False

    async def send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                await self._world.pause(_LOOK)
            except OSError:
                self.was_reset = True
                return

    def look(self, count: int = 1 << 20) -> None:
        """Read what is there, up to *count* bytes."""
        try:
            while count > 0 and (data := self.socket.recv(min(count, 65536))):
                self.received += data
                count -= len(data)
            if count > 0:
                self.eof = True
        except BlockingIOError:
            pass
        except OSError:
            self.was_reset = True

    async def read(self, count: int) -> bytes:
        """Read until *count* bytes have come in all."""

        def enough() -> bool:
            self.look(count - len(self.received))
            return len(self.received) >= count or self.eof or self.was_reset

        await self._world.until(enough)
        return self.received

    async def ended(self) -> None:
        """Read until the server has ended the connection."""

        def over() -> bool:
            self.look()
            return self.eof or self.was_reset

        await self._world.until(over)

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class MemoryClient:
    """The same on a `Peer`."""

    def __init__(self, world: World, peer: Peer) -> None:
        self._world = world
        self._peer = peer
        peer.pause()

    @property
    def received(self) -> bytes:
        return self._peer.received

    @property
    def eof(self) -> bool:
        return self._peer.eof

    @property
    def was_reset(self) -> bool:
        return self._peer.was_reset

    async def send(self, data: bytes) -> None:
        self._peer.send(data)

    def look(self, count: int = 1 << 20) -> None:
        self._peer.read(count)

    async def read(self, count: int) -> bytes:
        def enough() -> bool:
            self._peer.read(count - len(self.received))
            return len(self.received) >= count or self.was_reset

        await self._world.until(enough)
        return self.received

    async def ended(self) -> None:
        def over() -> bool:
            self.look()
            return self.eof or self.was_reset

        await self._world.until(over)
        self.look()

    def close(self) -> None:
        self._peer.close()

    def reset(self) -> None:
        self._peer.reset()


# ---------------------------------------------------------------- the runtimes


def _listener() -> socket.socket:
    sock = socket.socket()
    # Accepted sockets inherit it: a few pieces fill them.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.setblocking(False)
    return sock


def _play_inproc(scenario: Scenario) -> None:
    loop = ManualLoop()
    done: list[bool] = []

    async def main() -> None:
        await scenario(World("inproc", loop))
        done.append(True)

    loop.spawn(main())
    loop.run_until_idle()
    while not done:
        loop.advance(_LOOK)


async def _play_on(hosting: Any, runtime: str, scenario: Scenario) -> None:
    with _listener() as sock:
        async with hosting() as loop:
            world = World(runtime, loop)
            world._listener = sock
            acceptors = await loop.listen(lambda: world._factory(), [sock], 100)
            try:
                await scenario(world)
            finally:
                world.close()
                for acceptor in acceptors:
                    acceptor.close()
                for _ in range(5):
                    await world.turn()


def _play_asyncio(scenario: Scenario, runtime: str) -> None:
    factory: Any = None
    if runtime == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_play_on(_asyncio.hosting, runtime, scenario))


def _play_trio(scenario: Scenario) -> None:
    trio.run(_play_on, _trio.hosting, "trio", scenario)


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def play(runtime: str) -> Callable[[Scenario], None]:
    """Runs a scenario on the runtime of this round."""

    def run(scenario: Scenario) -> None:
        if runtime == "inproc":
            _play_inproc(scenario)
        elif runtime == "trio":
            _play_trio(scenario)
        else:
            _play_asyncio(scenario, runtime)

    return run
