"""Sockets on trio: what the contracts in `tests/contracts` do not ask of every loop."""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from tests.trio_loop import GET, OK, Keep, ok, pair, read, run, served, until

from omnicorn.connections import accept
from omnicorn.connections.http1 import Http1Connection
from omnicorn.connections.service import Timeouts
from omnicorn.errors import ClientDisconnected
from omnicorn.transports import _trio_sockets
from omnicorn.transports._trio_sockets import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from omnicorn.transports._trio import TrioLoop

CONTENT = bytes(range(256)) * 8192  # 2 MiB: more than a socket takes at once


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


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


# ---------------------------------------------------------------- accepting


def test_accepting_goes_on_after_a_lack_of_descriptors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [
        ConnectionAbortedError(errno.ECONNABORTED, "aborted"),
        OSError(errno.EMFILE, "Too many open files"),
    ]

    class Poor(socket.socket):
        def accept(self) -> Any:
            if failures:
                raise failures.pop(0)
            return super().accept()

    monkeypatch.setattr(_trio_sockets, "_ACCEPT_PAUSE", 0.05)

    async def main(loop: TrioLoop) -> None:
        with Poor() as listener:
            listener.bind(("127.0.0.1", 0))
            made: list[float] = []

            def connect() -> Any:
                made.append(loop.time())
                return Keep()

            (acceptor,) = await loop.listen(connect, [listener], 10)
            began = loop.time()
            async with await trio.open_tcp_stream(*listener.getsockname()):
                await until(lambda: made)
            assert made[0] - began >= 0.05
            acceptor.close()

    run(main)
    (record,) = caplog.records
    assert record.getMessage() == "Nobody is accepted for 0.05 s: Too many open files"


def test_an_acceptor_that_was_closed_in_its_pause_does_not_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Poor(socket.socket):
        def accept(self) -> Any:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(_trio_sockets, "_ACCEPT_PAUSE", 0.01)

    async def main(loop: TrioLoop) -> None:
        with Poor() as listener:
            listener.bind(("127.0.0.1", 0))
            (acceptor,) = await loop.listen(Keep, [listener], 10)
            async with await trio.open_tcp_stream(*listener.getsockname()):
                await until(lambda: not acceptor._mask)
                acceptor.close()
                acceptor.close()
                await trio.sleep(0.02)
                assert not acceptor._mask

    run(main)


def test_a_connection_that_cannot_be_made_is_closed_and_others_are_accepted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(loop: TrioLoop) -> None:
        service = served(loop, ok)
        connect = accept.plain(service)
        failures = [ZeroDivisionError()]

        def fail_once() -> Any:
            if failures:
                raise failures.pop()
            return connect()

        with socket.create_server(("127.0.0.1", 0)) as listener:
            (acceptor,) = await loop.listen(fail_once, [listener], 10)
            async with await trio.open_tcp_stream(*listener.getsockname()) as stream:
                assert await stream.receive_some() == b""
            async with await trio.open_tcp_stream(*listener.getsockname()) as stream:
                await stream.send_all(GET)
                assert await stream.receive_some() == OK
            acceptor.close()

    run(main)
    assert [record.getMessage() for record in caplog.records] == ["A connection could not be made"]


def test_listen_leaves_the_file_of_a_unix_socket_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def main(loop: TrioLoop) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            (acceptor,) = await loop.listen(accept.plain(served(loop, ok)), [listener], 10)
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(GET)
                assert await stream.receive_some() == OK
            acceptor.close()

    run(main)
    assert os.path.exists(path)


# ---------------------------------------------------------------- sendfile


def test_sendfile_sends_a_part_of_a_file_after_what_was_written(file: int) -> None:
    async def main(loop: TrioLoop) -> None:
        assert loop.sendfile is not None
        transport, port, client = pair(loop)
        head = b"head" * 50_000
        received: list[bytes] = []

        async def collect() -> None:
            received.append(await read(client, len(head) + len(CONTENT) - 3000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            transport.write(head)
            await client.send(b"meanwhile")
            sent = await loop.sendfile(transport, file, 1000, len(CONTENT) - 3000, 5.0)
        assert sent == len(CONTENT) - 3000
        assert received == [head + CONTENT[1000:-2000]]
        assert transport._direct
        await until(lambda: port.received == b"meanwhile")
        transport.write(b"tail")
        assert await read(client, 4) == b"tail"
        assert os.lseek(file, 0, os.SEEK_CUR) == 0

    run(main)


def test_what_is_written_during_sendfile_follows_it(file: int) -> None:
    async def main(loop: TrioLoop) -> None:
        assert loop.sendfile is not None
        transport, _, client = pair(loop)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.sendfile, transport, file, 0, len(CONTENT), 5.0)
            assert await read(client, 1000) == CONTENT[:1000]
            transport.write(b"tail")
            transport.close()
            assert await read(client, len(CONTENT) + 4) == CONTENT[1000:]

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert caught.group_contains(ClientDisconnected)


def test_what_is_written_during_sendfile_leaves_after_it(file: int) -> None:
    async def main(loop: TrioLoop) -> None:
        assert loop.sendfile is not None
        transport, _, client = pair(loop)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.sendfile, transport, file, 0, len(CONTENT), 5.0)
            assert await read(client, 1000) == CONTENT[:1000]
            transport.write(b"tail")
            assert await read(client, len(CONTENT) - 996) == CONTENT[1000:] + b"tail"
        await until(lambda: transport._direct)

    run(main)


def test_sendfile_returns_what_a_shorter_file_had(file: int) -> None:
    async def main(loop: TrioLoop) -> None:
        assert loop.sendfile is not None
        transport, _, client = pair(loop)
        assert await loop.sendfile(transport, file, len(CONTENT) - 10, 1000, 5.0) == 10
        assert await read(client, 10) == CONTENT[-10:]

    run(main)


def test_what_the_kernel_cannot_send_from_is_copied(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "sendfile", refuse)

    async def main(loop: TrioLoop) -> None:
        assert loop.sendfile is not None
        transport, _, client = pair(loop)
        received: list[bytes] = []

        async def collect() -> None:
            received.append(await read(client, len(CONTENT) - 5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            sent = await loop.sendfile(transport, file, 5, len(CONTENT), 5.0)
        assert sent == len(CONTENT) - 5
        assert received == [CONTENT[5:]]

    run(main)


@pytest.mark.parametrize("written", [b"", b"x" * 200_000])
def test_a_peer_that_reads_nothing_is_cut_in_the_middle(file: int, written: bytes) -> None:
    async def main(loop: TrioLoop) -> None:
        assert loop.sendfile is not None
        transport, port, _ = pair(loop)
        transport.write(written)
        with pytest.raises(ClientDisconnected, match="stopped reading"):
            await loop.sendfile(transport, file, 0, len(CONTENT), 0.05)
        await port.lost.wait()

    run(main)


@pytest.mark.parametrize("how", ["leave", "abort"])
def test_a_connection_that_ends_in_the_middle_ends_sendfile_at_once(file: int, how: str) -> None:
    async def main(loop: TrioLoop) -> None:
        assert loop.sendfile is not None
        transport, port, client = pair(loop)
        began = loop.time()
        async with trio.open_nursery() as nursery:

            async def sending() -> None:
                assert loop.sendfile is not None
                with pytest.raises(ClientDisconnected):
                    await loop.sendfile(transport, file, 0, len(CONTENT), 5.0)

            nursery.start_soon(sending)
            await read(client, 10_000)
            if how == "leave":
                client.close()
            else:
                transport.abort()
        await port.lost.wait()
        assert loop.time() - began < 4.0

    run(main)


def test_an_application_sends_a_file_through_a_connection(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % len(CONTENT))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.pathsend", "path": str(path)})

    async def main(loop: TrioLoop) -> None:
        client = pair(loop, Http1Connection(served(loop, app)))[2]
        expected = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(CONTENT) + CONTENT
        for _ in range(2):
            await client.send(GET)
            assert await read(client, len(expected)) == expected

    run(main)


def test_a_peer_lost_in_the_middle_of_a_file_is_no_error_of_the_application(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": str(path)})

    async def main(loop: TrioLoop) -> None:
        service = served(loop, app, timeouts=Timeouts(write=0.05))
        client = pair(loop, Http1Connection(service))[2]
        await client.send(GET)
        await read(client, 10_000)
        await until(lambda: not service.active and not service.connections)

    run(main)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
