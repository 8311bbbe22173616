"""The unix sockets that tell whether all was said keep the contract of every other transport."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from tests.contracts import test_transport as contract
from tests.contracts.conftest import SocketClient, World

from omnicorn.transports import _asyncio, _trio, unix

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnicorn.ports import ConnectionPort

pytestmark = pytest.mark.skipif(not unix.works(), reason="this system's unix sockets cannot do it")

# What does not hold of them: a unix socket's peer has no reset of its own, and no host and port.
_NOT_OF_UNIX = {"test_a_peer_that_resets_is_gone_once", "test_extra_information_names_both_ends"}
globals().update(
    (name, test)
    for name, test in vars(contract).items()
    if name.startswith("test_") and name not in _NOT_OF_UNIX
)


class UnixWorld(World):
    """Clients on unix sockets."""

    async def connect(self, port: ConnectionPort, *, window: int = 65536) -> SocketClient:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        accepted: list[ConnectionPort] = []

        def accept() -> ConnectionPort:
            accepted.append(port)
            return port

        self._factory = accept
        assert self._listener is not None
        client.connect(self._listener.getsockname())
        made = SocketClient(self, client)
        self._clients.append(made)
        await self.until(lambda: accepted)
        await self.turn()
        return made


class Connect:
    ends_by_closing = True

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self) -> ConnectionPort:
        return self._world._factory()


async def _play_on(hosting: Any, runtime: str, scenario: Any) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(Path(folder) / "s"))
        sock.listen()
        async with hosting() as loop:
            world = UnixWorld(runtime, loop)
            world._listener = sock
            files = len(os.listdir("/proc/self/fd"))
            (acceptor,) = await loop.listen(Connect(world), [sock], 100)
            try:
                await scenario(world)
                assert type(acceptor).__name__ == "SocketAcceptor"
            finally:
                world.close()
                acceptor.close()
                await world.until(lambda: loop._unix._epoll is None)
                await world.until(lambda: len(os.listdir("/proc/self/fd")) == files)


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def play(runtime: str) -> Callable[[Any], None]:
    """Runs a scenario on the runtime of this round."""

    def run(scenario: Any) -> None:
        if runtime == "trio":
            trio.run(_play_on, _trio.hosting, runtime, scenario)
            return
        factory: Any = None
        if runtime == "uvloop":
            factory = pytest.importorskip("uvloop").new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_play_on(_asyncio.hosting, runtime, scenario))

    return run
