"""Every law of `omnicorn.ports.Transport` holds over TLS, on every runtime.

The tests are those of `tests.contracts.test_transport`: run here, their port is connected by a
`TLSTransport`, and their client encrypts. What is true of TLS alone stands at the end.
"""

from __future__ import annotations

import ssl
from ssl import MemoryBIO, SSLContext, TLSVersion
from typing import TYPE_CHECKING, Any

import pytest
from tests.contracts import test_transport as laws

from omnicorn.transports.tls import TLSTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Play = Callable[[Callable[[Any], Any]], None]

trustme = pytest.importorskip("trustme")

BIG = laws.BIG

for _name, _law in vars(laws).items():
    if _name.startswith("test_"):
        globals()[_name] = _law


@pytest.fixture(scope="module")
def authority() -> Any:
    return trustme.CA()


@pytest.fixture(scope="module")
def server(authority: Any) -> SSLContext:
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def version() -> TLSVersion:
    return TLSVersion.TLSv1_3


@pytest.fixture
def client(authority: Any, version: TLSVersion) -> SSLContext:
    context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    context.maximum_version = context.minimum_version = version
    return context


@pytest.fixture
def play(play: Play, server: SSLContext, client: SSLContext) -> Play:
    """Runs a scenario in a world of which every connection is one of TLS."""

    def run(scenario: Callable[[Any], Any]) -> None:
        async def over_tls(world: Any) -> None:
            await scenario(TLSWorld(world, server, client))

        play(over_tls)

    return run


class TLSWorld:
    """A `World` whose clients speak TLS."""

    def __init__(self, world: Any, server: SSLContext, client: SSLContext) -> None:
        self._world = world
        self._contexts = (server, client)
        self.failures: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    async def connect(self, port: Any, *, window: int = 65536) -> TLSClient:
        server, context = self._contexts
        world = self._world

        def failed(transport: TLSTransport, level: str, reason: str) -> None:
            self.failures.append((level, reason))

        transport = TLSTransport(world.loop, server, lambda _: port, 10.0, failed)
        client = TLSClient(world, await world.connect(transport, window=window), context)
        await client.shake_hands()
        await world.until(lambda: port.transport is transport)
        return client


class TLSClient:
    """A client of the runtime's world, encrypted."""

    def __init__(self, world: Any, below: Any, context: SSLContext) -> None:
        self._world = world
        self._below = below
        self._fed = 0
        self._in, self._out = MemoryBIO(), MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self.received = b""
        self.notified = False

    async def shake_hands(self) -> None:
        while True:
            try:
                return self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._below.send(self._out.read())
                self._pump(1 << 20)
                await self._world.pause(0.001)
            finally:
                await self._below.send(self._out.read())

    def _pump(self, count: int) -> None:
        self._below.look(count)
        received = self._below.received
        self._in.write(received[self._fed :])
        self._fed = len(received)

    @property
    def eof(self) -> bool:
        """TCP's end; `notified` is that of TLS."""
        return bool(self._below.eof)

    @property
    def was_reset(self) -> bool:
        return bool(self._below.was_reset)

    async def send(self, data: bytes) -> None:
        self._tls.write(data)
        await self._below.send(self._out.read())

    def look(self, count: int = 1 << 20) -> None:
        self._pump(count)
        try:
            while data := self._tls.read(65536):
                self.received += data
            self.notified = True
        except ssl.SSLZeroReturnError:  # and so has this end
            self.notified = True
        except ssl.SSLWantReadError:
            pass

    async def read(self, count: int) -> bytes:
        def enough() -> bool:
            self.look()
            return len(self.received) >= count or self.eof or self.was_reset

        await self._world.until(enough)
        return self.received

    async def ended(self) -> None:
        def over() -> bool:
            self.look()
            return self.eof or self.was_reset

        await self._world.until(over)
        self.look()

    def notify(self) -> None:
        """Send close_notify, and no FIN."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        at_once(self._below.send(self._out.read()))

    def close(self) -> None:
        self.notify()
        self._below.close()

    def close_without_a_word(self) -> None:
        self._below.close()

    def reset(self) -> None:
        self._below.reset()


def at_once(coro: Coroutine[Any, Any, None]) -> None:
    """Run what has nothing to wait for."""
    with pytest.raises(StopIteration):
        coro.send(None)


# ---------------------------------------------------------------- of TLS alone

both_versions = pytest.mark.parametrize("version", [TLSVersion.TLSv1_2, TLSVersion.TLSv1_3])


@both_versions
def test_close_and_write_eof_say_close_notify(play: Play) -> None:
    async def scenario(world: Any) -> None:
        for how in ("close", "write_eof"):
            port = laws.Port()
            client = await world.connect(port)
            port.transport.write(BIG)
            port.call(how)
            await client.ended()
            assert client.received == BIG
            assert client.notified and client.eof and not client.was_reset
            port.transport.close()
            await world.until(lambda port=port: port.lost)
        assert world.failures == []

    play(scenario)


@both_versions
def test_an_abort_says_nothing(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = laws.Port()
        client = await world.connect(port)
        port.call("abort")
        await client.ended()
        assert not client.notified
        await world.until(lambda: port.lost)

    play(scenario)


@both_versions
def test_a_notified_end_and_a_bare_one_are_told_alike(play: Play) -> None:
    async def scenario(world: Any) -> None:
        for how in ("notify", "close", "close_without_a_word"):
            port = laws.Port()
            client = await world.connect(port)
            await client.send(b"hello")
            getattr(client, how)()
            await world.until(lambda port=port: port.events == ["eof"])
            assert port.received == b"hello"
            port.transport.write(b"bye")
            port.transport.close()
            await client.read(3)
            assert client.received == b"bye"
        assert world.failures == [("debug", "the peer has ended without close_notify")]

    play(scenario)


@both_versions
def test_an_upload_arrives_whole(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = laws.Port()
        client = await world.connect(port)
        for start in range(0, len(BIG), 100_000):
            await client.send(BIG[start : start + 100_000])
            await world.turn()
        client.close()
        await world.until(lambda: port.events == ["eof"])
        assert port.received == BIG
        port.transport.close()

    play(scenario)


@both_versions
def test_an_upload_in_pauses_arrives_whole(play: Play) -> None:
    async def scenario(world: Any) -> None:
        class Slow(laws.Port):
            def data_received(self, data: bytes) -> None:
                assert not self.busy
                super().data_received(data)
                self.transport.pause_reading()
                world.loop.call_soon(lambda: self.call("resume_reading"))

        port = Slow()
        client = await world.connect(port)
        for start in range(0, len(BIG) // 4, 30_000):
            await client.send(BIG[start : start + 30_000])
            await world.turn()
        client.close()
        await world.until(lambda: port.events == ["eof"])
        assert BIG.startswith(port.received) and len(port.received) >= len(BIG) // 4
        port.transport.close()

    play(scenario)
