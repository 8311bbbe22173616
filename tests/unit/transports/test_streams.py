"""Accepting and `sendfile` of sockets that Python itself reads and writes, here on trio; those on
the other loops are tried in `test_unix`."""

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
from omnicorn.transports import streams

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

    monkeypatch.setattr(streams, "_ACCEPT_PAUSE", 0.05)

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

    monkeypatch.setattr(streams, "_ACCEPT_PAUSE", 0.01)

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
