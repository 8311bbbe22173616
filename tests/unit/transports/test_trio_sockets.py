"""Sockets on trio: what the contracts in `tests/contracts` do not ask of every loop."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from tests.trio_loop import GET, OK, Keep, ok, pair, read, run, served, until

from omnicorn.connections import accept
from omnicorn.connections.http1 import Http1Connection
from omnicorn.transports._trio_sockets import READ, WRITE

if TYPE_CHECKING:
    from omnicorn.transports._trio import TrioLoop

CONTENT = bytes(range(256)) * 8192  # 2 MiB: more than a socket takes at once


# ---------------------------------------------------------------- connections


def test_a_connection_that_fails_is_cut_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Keep):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    class Stillborn(Keep):
        def connection_made(self, transport: Any) -> None:
            raise ZeroDivisionError

    async def main(loop: TrioLoop) -> None:
        _, broken, client = pair(loop, Broken())
        _, stillborn, _ = pair(loop, Stillborn())
        _, healthy, other = pair(loop)
        await client.send(b"x")
        await other.send(b"y")
        await broken.lost.wait()
        await stillborn.lost.wait()
        await until(lambda: healthy.received == b"y")
        assert not healthy.lost.is_set()

    run(main)
    assert [record.getMessage() for record in caplog.records] == ["A connection failed"] * 2


def test_a_flood_of_one_peer_does_not_starve_another_nor_other_tasks() -> None:
    async def main(loop: TrioLoop) -> None:
        class Sink(Keep):
            def data_received(self, data: bytes) -> None:
                assert len(data) <= 65536
                self.count = getattr(self, "count", 0) + 1
                if self.count == 50:
                    enough.set()

        enough = trio.Event()
        sink = Sink()
        _, _, flooder = pair(loop, sink)
        _, _, polite = pair(loop, Http1Connection(served(loop, ok)))

        async def flood() -> None:
            while True:
                await flooder.send(bytes(65536))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            for _ in range(20):
                await polite.send(GET)
                assert await read(polite, len(OK)) == OK
            await enough.wait()
            nursery.cancel_scope.cancel()

    run(main)


def test_an_application_that_streams_to_a_quick_reader_lets_others_run() -> None:
    async def main(loop: TrioLoop) -> None:
        stop = False

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/":
                await ok(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200})
            while not stop:
                await send({"type": "http.response.body", "body": bytes(60000), "more_body": True})
            await send({"type": "http.response.body"})

        service = served(loop, app)
        streaming, polite = (pair(loop, Http1Connection(service))[2] for _ in range(2))

        async def drink() -> None:
            while await streaming.recv(1 << 20):
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drink)
            await streaming.send(GET.replace(b"/", b"/endless", 1))
            for _ in range(20):
                await polite.send(GET)
                assert await read(polite, len(OK)) == OK
            stop = True
            await until(lambda: not service.active)
            nursery.cancel_scope.cancel()

    run(main)


def test_the_selector_watches_for_writing_only_while_the_socket_is_full() -> None:
    async def main(loop: TrioLoop) -> None:
        transport, port, client = pair(loop)
        transport.write(b"small")
        assert transport._mask == READ
        living = trio.lowlevel.current_statistics().tasks_living
        transport.write(CONTENT)
        assert transport._mask == READ | WRITE and not port.writing
        assert trio.lowlevel.current_statistics().tasks_living == living
        assert await read(client, 5 + len(CONTENT)) == b"small" + CONTENT
        await until(lambda: transport._mask == READ and port.writing)

    run(main)


def test_writing_after_write_eof_is_a_mistake() -> None:
    async def main(loop: TrioLoop) -> None:
        transport, _, client = pair(loop)
        transport.write_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            transport.write(b"x")
        assert await client.recv(1) == b""
        transport.close()
        transport.write(b"dropped")

    run(main)


def test_a_closed_transport_still_knows_its_addresses() -> None:
    async def main(loop: TrioLoop) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            kept: list[Keep] = []

            def connect() -> Any:
                kept.append(Keep())
                return kept[-1]

            (acceptor,) = await loop.listen(connect, [listener], 10)
            stream = await trio.open_tcp_stream(*listener.getsockname())
            async with stream:
                await until(lambda: kept and kept[0].transport)
                transport = kept[0].transport
                assert transport.get_extra_info("socket").getsockopt(
                    socket.IPPROTO_TCP, socket.TCP_NODELAY
                )
                names = [stream.socket.getsockname(), listener.getsockname()]
                transport.abort()
                await kept[0].lost.wait()
                assert [
                    transport.get_extra_info(name) for name in ("peername", "sockname")
                ] == names
            acceptor.close()

    run(main)


def test_a_thousand_connections_leave_nothing_behind() -> None:
    async def main(loop: TrioLoop) -> None:
        service = served(loop, ok)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            (acceptor,) = await loop.listen(accept.plain(service), [listener], 1000)
            address = listener.getsockname()
            tasks = trio.lowlevel.current_statistics().tasks_living
            files = len(os.listdir("/proc/self/fd"))
            for _ in range(10):
                clients = []
                for _ in range(100):
                    client = trio.socket.socket()
                    await client.connect(address)
                    clients.append(client)
                await until(lambda: len(loop.connections) == 100)
                assert trio.lowlevel.current_statistics().tasks_living == tasks
                for client in clients:
                    await client.send(GET)
                for client in clients:
                    assert await read(client, len(OK)) == OK
                    client.close()
                await until(lambda: not loop.connections)
            assert not service.connections and not service.active
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            assert len(os.listdir("/proc/self/fd")) == files
            assert len(loop._selector.get_map()) == 1
            acceptor.close()
            assert len(loop._selector.get_map()) == 0

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    run(main)
