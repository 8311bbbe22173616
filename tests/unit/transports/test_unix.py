"""What the front of a unix socket sees of an end, and what watching it costs.

What every transport promises is checked for this one in `tests/contracts/test_unix.py`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
import trio

from omnicorn.errors import ClientDisconnected
from omnicorn.transports import _asyncio, _trio, unix
from omnicorn.transports.streams import SocketAcceptor
from omnicorn.transports.unix import UnixSockets, UnixTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    Run = Callable[[Callable[["Stage"], Awaitable[None]]], None]

pytestmark = pytest.mark.skipif(not unix.works(), reason="this system's unix sockets cannot do it")

BIG = bytes(range(256)) * 16384  # 4 MiB
REQUEST = b"request."


class Port:
    """Its requests end with a dot; keeps what it is told."""

    def __init__(self, half_open: bool = True) -> None:
        self.transport: Any = None
        self.received = bytearray()
        self.half_open = half_open
        self.eof = False
        self.lost = 0
        self.on_complete: Callable[[], object] = lambda: None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> bool:
        self.received += data
        is_complete = data.endswith(b".")
        if is_complete:
            self.on_complete()
        return is_complete

    def eof_received(self) -> bool:
        self.eof = True
        return self.half_open

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1


class Stage:
    """A loop, its unix sockets, and their peers."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.sockets = UnixSockets(loop)
        self.peers: list[socket.socket] = []

    def connect(self, port: Any, first: bytes = b"") -> socket.socket:
        """A peer of *port* that has sent something before it was accepted."""
        ours, peer = socket.socketpair()
        peer.setblocking(False)
        self.peers.append(peer)
        peer.send(first)
        self.sockets.attach(ours, port)
        return peer

    async def pause(self, seconds: float) -> None:
        waiter = self.loop.create_future()
        self.loop.call_at(self.loop.time() + seconds, lambda: waiter.set_result(None))
        await waiter

    async def until(self, condition: Callable[[], object]) -> None:
        end = self.loop.time() + 10
        while not condition():
            assert self.loop.time() < end, "it did not happen in time"
            await self.pause(0.001)

    async def send(self, peer: socket.socket, data: bytes) -> None:
        while data:
            try:
                data = data[peer.send(data) :]
            except BlockingIOError:
                await self.pause(0.001)

    async def ending(self, peer: socket.socket) -> tuple[bytes, str]:
        """All that the peer reads, and how it ends."""
        data = bytearray()
        end = self.loop.time() + 10
        while True:
            try:
                piece = peer.recv(65536)
            except BlockingIOError:
                assert self.loop.time() < end, "it did not end in time"
                await self.pause(0.001)
            except ConnectionResetError:
                return bytes(data), "reset"
            else:
                if not piece:
                    return bytes(data), "end"
                data += piece

    async def nothing_left(self) -> None:
        """Wait until no socket is watched any more."""
        await self.until(lambda: not self.sockets.connections)
        assert self.sockets._epoll is None and not self.sockets._ports


async def _play(hosting: Any, scenario: Any) -> None:
    async with hosting() as loop:
        stage = Stage(loop)
        try:
            await scenario(stage)
        finally:
            stage.sockets.close()
            for peer in stage.peers:
                peer.close()


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario on each loop."""

    def play(scenario: Any) -> None:
        if request.param == "trio":
            trio.run(_play, _trio.hosting, scenario)
            return
        factory: Any = None
        if request.param == "uvloop":
            factory = pytest.importorskip("uvloop").new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_play(_asyncio.hosting, scenario))

    return play


# ---------------------------------------------------------------- how it ends

WAYS = ["before", "whole", "bytes", "half-closed"]


async def ask(stage: Stage, port: Port, way: str) -> socket.socket:
    """A peer whose request has arrived, sent in one way or another."""
    peer = stage.connect(port, REQUEST if way == "before" else b"")
    if way == "bytes":
        for byte in REQUEST:
            peer.send(bytes([byte]))
            await stage.pause(0)
    elif way != "before":
        peer.send(REQUEST)
    if way == "half-closed":
        peer.shutdown(socket.SHUT_WR)
        await stage.until(lambda: port.eof)
    await stage.until(lambda: port.received == REQUEST)
    return peer


@pytest.mark.parametrize("way", WAYS)
def test_a_close_is_an_end(run: Run, way: str) -> None:
    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = await ask(stage, port, way)
        port.transport.write(BIG)
        port.transport.close()
        assert await stage.ending(peer) == (BIG, "end")
        await stage.nothing_left()
        assert port.lost == 1

    run(scenario)


@pytest.mark.parametrize("way", WAYS)
def test_an_abort_is_a_reset_behind_all_that_was_sent(run: Run, way: str) -> None:
    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = await ask(stage, port, way)
        port.transport.write(b"a part")
        port.transport.abort()
        assert await stage.ending(peer) == (b"a part", "reset")
        await stage.nothing_left()
        assert port.lost == 1

    run(scenario)


@pytest.mark.parametrize("how", ["abort", "close"])
def test_a_port_may_end_it_as_soon_as_it_is_asked(run: Run, how: str) -> None:
    async def scenario(stage: Stage) -> None:
        port = Port()

        def answer() -> None:
            port.transport.write(b"hi")
            getattr(port.transport, how)()

        port.on_complete = answer
        peer = stage.connect(port, REQUEST)
        assert await stage.ending(peer) == (b"hi", "reset" if how == "abort" else "end")
        await stage.nothing_left()

    run(scenario)


@pytest.mark.parametrize("how", ["abort", "close"])
def test_a_request_larger_than_all_buffers_arrives_and_its_response_ends(
    run: Run, how: str
) -> None:
    """Its peer would not go on if much of it were left unread."""

    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = stage.connect(port)
        content = BIG.replace(b".", b",") + b"."
        await stage.send(peer, content)
        await stage.until(lambda: len(port.received) == len(content))
        assert port.received == content
        port.transport.write(b"hi")
        getattr(port.transport, how)()
        assert await stage.ending(peer) == (b"hi", "reset" if how == "abort" else "end")

    run(scenario)


def test_a_peer_that_cannot_take_what_is_unsent_gets_a_reset(run: Run) -> None:
    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = await ask(stage, port, "whole")
        port.transport.write(BIG)
        port.transport.close()
        port.transport.abort()
        data, end = await stage.ending(peer)
        assert end == "reset" and 0 < len(data) < len(BIG)

    run(scenario)


def test_what_was_said_before_it_lingers_is_not_taken_back(run: Run) -> None:
    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = await ask(stage, port, "whole")
        port.transport.write(b"hi")
        port.transport.write_eof()
        peer.send(b"more than was announced")
        await stage.until(lambda: port.received.endswith(b"announced"))
        port.transport.abort()
        assert await stage.ending(peer) == (b"hi", "end")

    run(scenario)


def test_what_nobody_has_read_is_no_reset_of_a_complete_response(run: Run) -> None:
    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = await ask(stage, port, "whole")
        port.transport.pause_reading()
        peer.send(b"x" * 50_000)
        await stage.pause(0.01)
        port.transport.write(b"hi")
        port.transport.close()
        assert await stage.ending(peer) == (b"hi", "end")

    run(scenario)


@pytest.mark.parametrize("leaves", [True, False])
def test_a_peer_that_owes_content_and_is_silent_gets_a_reset_after_a_small_piece(
    run: Run, leaves: bool
) -> None:
    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = stage.connect(port, b"the head")
        await stage.until(lambda: port.received)
        peer.send(b"some content")
        await stage.until(lambda: bytes(port.received).endswith(b"content"))
        port.transport.write(b"hi")
        if leaves:
            peer.shutdown(socket.SHUT_WR)
        port.transport.abort()
        assert await stage.ending(peer) == (b"hi", "reset")
        await stage.nothing_left()

    run(scenario)


def test_a_peer_that_owes_content_gets_its_reset_when_it_sends_some(run: Run) -> None:
    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = stage.connect(port, b"only a part" * 1000)
        await stage.until(lambda: port.received)
        port.transport.write(b"hi")
        port.transport.abort()
        await stage.until(lambda: port.lost)
        assert peer.recv(10) == b"hi"
        with pytest.raises(BlockingIOError):
            peer.recv(10)
        peer.send(b"more")
        assert await stage.ending(peer) == (b"", "reset")
        await stage.nothing_left()

    run(scenario)


@pytest.mark.parametrize("leaves", [True, False])
def test_a_peer_that_owes_content_is_not_waited_for_without_end(
    run: Run, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    monkeypatch.setattr(unix, "_OWED", 10.0 if leaves else 0.02)

    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = stage.connect(port, b"only a part" * 1000)
        await stage.until(lambda: port.received)
        port.transport.abort()
        await stage.until(lambda: port.lost)
        if leaves:
            peer.shutdown(socket.SHUT_WR)
        assert (await stage.ending(peer))[1] == "end"
        await stage.nothing_left()

    run(scenario)


def test_who_never_sent_anything_is_not_waited_for(run: Run) -> None:
    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = stage.connect(port)
        port.transport.abort()
        assert await stage.ending(peer) == (b"", "end")
        await stage.nothing_left()

    run(scenario)


def test_another_protocol_has_an_end_of_its_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix, "_OWED", 1000.0)

    async def scenario(stage: Stage) -> None:
        port, tunnel = Port(), Port()
        peer = await ask(stage, port, "whole")
        port.transport.set_protocol(tunnel)
        await stage.send(peer, BIG)
        await stage.until(lambda: len(tunnel.received) == len(BIG))
        assert tunnel.received == BIG
        port.transport.write(b"bye")
        port.transport.abort()
        assert await stage.ending(peer) == (b"bye", "end")
        assert (port.lost, tunnel.lost) == (0, 1)

    run(scenario)


def test_a_port_that_fails_is_cut_with_a_reset_and_no_other(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stage: Stage) -> None:
        bad, good = Port(), Port()
        bad.on_complete = lambda: 1 / 0
        peers = [stage.connect(bad), stage.connect(good)]
        for peer in peers:
            peer.send(REQUEST)
        assert await stage.ending(peers[0]) == (b"", "reset")
        await stage.until(lambda: good.received)
        assert bad.lost and not good.lost

    run(scenario)
    assert [record.getMessage() for record in caplog.records] == ["A connection failed"]


# ---------------------------------------------------------------- how it is watched


def test_a_request_that_waits_wakes_nobody(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its bytes are there to be read."""
    calls: list[int] = []
    on_ready = UnixTransport.on_ready

    def counted(self: UnixTransport, flags: int) -> None:
        calls.append(flags)
        on_ready(self, flags)

    monkeypatch.setattr(UnixTransport, "on_ready", counted)

    async def scenario(stage: Stage) -> None:
        ports = [Port() for _ in range(3)]
        peers = [await ask(stage, port, way) for port, way in zip(ports, WAYS, strict=False)]
        ports[2].transport.pause_reading()
        peers[2].send(b"more")
        ports[0].transport.write(BIG)  # and one of them is full
        await stage.pause(0.02)
        calls.clear()
        await stage.pause(0.1)
        assert calls == []
        peers[1].close()
        await stage.until(lambda: ports[1].eof)

    run(scenario)


def test_an_end_behind_what_was_not_read_yet_is_told_when_reading_goes_on(run: Run) -> None:
    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = stage.connect(port)
        port.transport.pause_reading()
        peer.send(b"x" * 100_000)
        peer.close()
        await stage.pause(0.01)
        assert not port.received and not port.eof
        port.transport.resume_reading()
        await stage.until(lambda: port.eof)
        assert len(port.received) == 100_000

    run(scenario)


def test_a_flood_of_one_peer_does_not_starve_another(run: Run) -> None:
    async def scenario(stage: Stage) -> None:
        order: list[str] = []

        class Named(Port):
            def __init__(self, name: str) -> None:
                super().__init__()
                self.name = name

            def data_received(self, data: bytes) -> bool:
                order.append(self.name)
                return super().data_received(data)

        for name in "ab":
            stage.connect(Named(name), b"x" * 150_000)
        await stage.until(lambda: len(order) == 6)
        assert order == list("ababab")

    run(scenario)


def test_accepting_ends_with_its_acceptor_and_no_file_is_left(run: Run, tmp_path: Path) -> None:
    class Connect:
        ends_by_closing = True

        def __init__(self) -> None:
            self.ports: list[Port] = []

        def __call__(self) -> Port:
            self.ports.append(Port(half_open=False))
            return self.ports[-1]

    async def scenario(stage: Stage) -> None:
        connect = Connect()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            files = len(os.listdir("/proc/self/fd"))
            (acceptor,) = await stage.loop.listen(connect, [listener], 100)
            peers = [socket.socket(socket.AF_UNIX) for _ in range(100)]
            for peer in peers:
                peer.connect(str(tmp_path / "s"))
            await stage.until(lambda: len(connect.ports) == 100)
            assert type(connect.ports[0].transport) is UnixTransport
            assert connect.ports[0].transport.get_extra_info("sockname") == str(tmp_path / "s")
            acceptor.close()
            acceptor.close()
            for peer in peers:
                peer.close()
            await stage.until(lambda: all(port.lost for port in connect.ports))
            await stage.until(lambda: len(os.listdir("/proc/self/fd")) == files)

    run(scenario)


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
@pytest.mark.parametrize("works", [True, False])
def test_only_unix_sockets_that_have_to_tell_something_are_served_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: int, works: bool
) -> None:
    monkeypatch.setattr(unix, "works", lambda: works)

    class Connect:
        def __init__(self, tells: bool) -> None:
            self.ends_by_closing = tells

        def __call__(self) -> Port:
            made.append(Port(half_open=False))
            return made[-1]

    made: list[Port] = []

    async def scenario(stage: Stage) -> None:
        for tells in (True, False):
            with socket.socket(family) as listener, socket.socket(family) as peer:
                is_unix = family == socket.AF_UNIX
                listener.bind(str(tmp_path / f"{tells}") if is_unix else ("127.0.0.1", 0))
                listener.listen()
                (acceptor,) = await stage.loop.listen(Connect(tells), [listener], 10)
                peer.connect(listener.getsockname())
                await stage.until(lambda: made and made[-1].transport)
                ours = type(made[-1].transport) is UnixTransport
                assert ours == (tells and works and is_unix)
                peer.close()
                await stage.until(lambda: made[-1].lost)
                acceptor.close()
                made.clear()
                await stage.pause(0)

    run(scenario)


# ---------------------------------------------------------------- sendfile


@pytest.fixture
def file() -> Iterator[int]:
    with tempfile.TemporaryFile() as opened:
        opened.write(BIG)
        opened.flush()
        yield opened.fileno()


@pytest.mark.parametrize("how", ["abort", "close"])
def test_a_file_is_sent_behind_what_was_written(run: Run, file: int, how: str) -> None:
    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = await ask(stage, port, "whole")
        port.transport.write(BIG)
        done: list[int] = []

        async def send() -> None:
            done.append(await stage.loop.sendfile(port.transport, file, 1, len(BIG), 5.0))
            getattr(port.transport, how)()

        task = stage.loop.spawn(send())
        data, end = await stage.ending(peer)
        assert done == [len(BIG) - 1] and task
        assert (data == BIG + BIG[1:], end) == (True, "reset" if how == "abort" else "end")

    run(scenario)


def test_a_file_for_a_peer_that_reads_nothing_ends_in_a_reset(run: Run, file: int) -> None:
    async def scenario(stage: Stage) -> None:
        port = Port()
        peer = await ask(stage, port, "whole")
        with pytest.raises(ClientDisconnected, match="stopped reading"):
            await stage.loop.sendfile(port.transport, file, 0, len(BIG), 0.02)
        await stage.until(lambda: port.lost)
        assert (await stage.ending(peer))[1] == "reset"

    run(scenario)


def test_a_loop_that_closes_accepts_no_more(run: Run) -> None:
    async def scenario(stage: Stage) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("")
            acceptor = stage.sockets.listen(Port, listener, 5)
            assert type(acceptor) is SocketAcceptor
            stage.sockets.close()
            assert stage.sockets._epoll is None

    run(scenario)
