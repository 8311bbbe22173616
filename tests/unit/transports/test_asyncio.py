from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.connections.http1 import Http1Connection
from omnicorn.connections.service import Service, Timeouts
from omnicorn.errors import ClientDisconnected
from omnicorn.transports._asyncio import AsyncioLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Run = Callable[[Callable[[], Awaitable[Any]]], Any]

CONTENT = bytes(range(256)) * 8192  # 2 MiB: more than a socket takes at once


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine function on each event loop."""
    factory: Any = None
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    def runner(main: Callable[[], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            try:
                async with asyncio.timeout(10):
                    return await main()
            finally:  # also where a test has failed half-way
                while _open:
                    _open.pop().close()
                await asyncio.sleep(0.001)

        with asyncio.Runner(loop_factory=factory) as made:
            return made.run(bounded())

    return runner


@pytest.fixture
def file(tmp_path: Path) -> Any:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


class Keep(asyncio.Protocol):
    """Keeps its transport, and a future for its end."""

    def __init__(self) -> None:
        self.made: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.made.set_result(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


_open: list[Any] = []
"""Transports and sockets of the test that is running."""


async def pair(port: Any = None) -> tuple[Any, Any, socket.socket]:
    """A port, its transport, and a client's non-blocking socket, with small kernel buffers."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        sock.setblocking(False)
    transport, made = await loop.create_connection(lambda: port or Keep(), sock=ours)
    _open.extend((transport, theirs))
    return made, transport, theirs


async def read(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while (left := count - len(data)) and (piece := await loop.sock_recv(sock, min(left, 65536))):
        data += piece
    return bytes(data)


def loop_port() -> AsyncioLoop:
    return AsyncioLoop(asyncio.get_running_loop())


# ---------------------------------------------------------------- the loop


def test_what_every_request_calls_is_the_loops_own_method(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        port = AsyncioLoop(loop)
        assert port.time == loop.time
        assert port.call_soon == loop.call_soon
        assert port.call_at == loop.call_at
        assert port.create_future == loop.create_future

    run(main)


def test_tasks_start_eagerly_where_python_can(run: Run) -> None:
    async def main() -> list[int]:
        seen: list[int] = []

        async def note() -> None:
            seen.append(1)

        task = loop_port().spawn(note())
        at_once = list(seen)
        await asyncio.sleep(0)
        assert seen == [1]
        del task
        return at_once

    assert run(main) == ([1] if sys.version_info >= (3, 12) else [])


def test_a_task_factory_of_the_operators_own_is_respected() -> None:
    async def main() -> None:
        made: list[Any] = []
        loop = asyncio.get_running_loop()

        def factory(loop: Any, coro: Any, **options: Any) -> Any:
            made.append(coro)
            return asyncio.Task(coro, loop=loop, **options)

        loop.set_task_factory(factory)
        task: Any = AsyncioLoop(loop).spawn(asyncio.sleep(0))
        await task
        assert len(made) == 1

    asyncio.run(main())


def test_blocking_work_runs_in_another_thread(run: Run) -> None:
    async def main() -> None:
        port = loop_port()
        assert await port.run_blocking(divmod, 7, 2) == (3, 1)
        assert await port.run_blocking(threading.get_ident) != threading.get_ident()
        with pytest.raises(FileNotFoundError):
            await port.run_blocking(os.open, "/no/such/file", os.O_RDONLY)

    run(main)


# ---------------------------------------------------------------- sendfile


def test_sendfile_sends_a_part_of_a_file_after_what_was_written(run: Run, file: int) -> None:
    async def main() -> None:
        port = loop_port()
        assert port.sendfile is not None
        _, transport, client = await pair()
        head = b"head" * 50_000
        transport.write(head)
        reading = asyncio.ensure_future(read(client, len(head) + len(CONTENT) - 3000))
        sent = await port.sendfile(transport, file, 1000, len(CONTENT) - 3000, 5.0)
        assert sent == len(CONTENT) - 3000
        transport.write(b"tail")
        assert await reading == head + CONTENT[1000:-2000]
        assert await read(client, 4) == b"tail"
        transport.close()
        client.close()

    run(main)


def test_the_connection_still_reads_and_the_file_has_not_moved(run: Run, file: int) -> None:
    async def main() -> None:
        received: list[bytes] = []

        class Port(Keep):
            def data_received(self, data: bytes) -> None:
                received.append(data)

        port = loop_port()
        assert port.sendfile is not None
        _, transport, client = await pair(Port())
        reading = asyncio.ensure_future(read(client, len(CONTENT)))
        await asyncio.get_running_loop().sock_sendall(client, b"meanwhile")
        await port.sendfile(transport, file, 0, len(CONTENT), 5.0)
        assert await reading == CONTENT
        assert received == [b"meanwhile"]
        assert os.lseek(file, 0, os.SEEK_CUR) == 0
        transport.close()
        client.close()

    run(main)


def test_sendfile_returns_what_a_shorter_file_had(run: Run, file: int) -> None:
    async def main() -> None:
        port = loop_port()
        assert port.sendfile is not None
        _, transport, client = await pair()
        assert await port.sendfile(transport, file, len(CONTENT) - 10, 1000, 5.0) == 10
        assert await read(client, 10) == CONTENT[-10:]
        transport.close()
        client.close()

    run(main)


def test_what_the_kernel_cannot_send_from_is_copied(
    run: Run, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sendfile", refuse)

    async def main() -> None:
        port = loop_port()
        assert port.sendfile is not None
        _, transport, client = await pair()
        reading = asyncio.ensure_future(read(client, len(CONTENT) - 5))
        assert await port.sendfile(transport, file, 5, len(CONTENT), 5.0) == len(CONTENT) - 5
        assert await reading == CONTENT[5:]
        transport.close()
        client.close()

    run(main)


@pytest.mark.parametrize("how", ["leave", "abort"])
def test_a_connection_that_ends_while_its_file_is_copied_is_noticed(
    run: Run, file: int, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def refuse(*args: Any) -> int:
        raise OSError(22, "Invalid argument")

    reading, go_on = threading.Event(), threading.Event()

    def read_slowly(*args: Any) -> bytes:
        reading.set()
        go_on.wait(5.0)
        return bytes(args[1])

    monkeypatch.setattr(os, "sendfile", refuse)
    monkeypatch.setattr(os, "pread", read_slowly)

    async def main() -> None:
        port = loop_port()
        assert port.sendfile is not None
        kept, transport, client = await pair()
        sending = asyncio.ensure_future(
            _await(port.sendfile(transport, file, 0, len(CONTENT), 5.0))
        )
        while not reading.is_set():
            await asyncio.sleep(0.001)
        if how == "leave":
            client.close()
        else:
            transport.abort()
        await kept.lost
        go_on.set()
        with pytest.raises(ClientDisconnected):
            await sending
        client.close()

    run(main)


def test_there_is_no_sendfile_where_the_platform_has_none(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sendfile")

    async def main() -> None:
        assert loop_port().sendfile is None

    run(main)


@pytest.mark.parametrize("written", [b"", b"x" * 200_000])
def test_a_peer_that_reads_nothing_is_cut_in_the_middle(
    run: Run, file: int, written: bytes
) -> None:
    async def main() -> None:
        port = loop_port()
        assert port.sendfile is not None
        kept, transport, client = await pair()
        transport.write(written)
        with pytest.raises(ClientDisconnected, match="stopped reading"):
            await port.sendfile(transport, file, 0, len(CONTENT), 0.05)
        await kept.lost
        client.close()

    run(main)


def test_a_peer_that_leaves_in_the_middle_is_noticed(run: Run, file: int) -> None:
    async def main() -> None:
        port = loop_port()
        assert port.sendfile is not None
        kept, transport, client = await pair()
        sending = asyncio.ensure_future(
            _await(port.sendfile(transport, file, 0, len(CONTENT), 5.0))
        )
        await read(client, 10_000)
        client.close()
        with pytest.raises(ClientDisconnected):
            await sending
        await kept.lost

    run(main)


def test_a_connection_aborted_by_its_own_side_ends_sendfile(run: Run, file: int) -> None:
    async def main() -> None:
        port = loop_port()
        assert port.sendfile is not None
        kept, transport, client = await pair()
        sending = asyncio.ensure_future(
            _await(port.sendfile(transport, file, 0, len(CONTENT), 5.0))
        )
        await read(client, 10_000)
        transport.abort()
        # It is noticed when the socket takes more, or after a second.
        await read(client, 100_000)
        with pytest.raises(ClientDisconnected):
            await sending
        await kept.lost
        client.close()

    run(main)


def test_sendfile_leaves_no_descriptor_behind(run: Run, file: int) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")

    async def main() -> None:
        port = loop_port()
        assert port.sendfile is not None
        _, transport, client = await pair()
        before = len(os.listdir("/proc/self/fd"))
        reading = asyncio.ensure_future(read(client, len(CONTENT)))
        await port.sendfile(transport, file, 0, len(CONTENT), 5.0)
        await reading
        sending = asyncio.ensure_future(
            _await(port.sendfile(transport, file, 0, len(CONTENT), 5.0))
        )
        await read(client, 10_000)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert len(os.listdir("/proc/self/fd")) == before
        transport.close()
        client.close()

    run(main)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


# ---------------------------------------------------------------- with a connection on top


def test_an_application_sends_a_file_through_a_connection(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % len(CONTENT))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.pathsend", "path": str(path)})

    async def main() -> None:
        service = Service(app, loop_port(), server_header=False, date_header=False)
        _, transport, client = await pair(Http1Connection(service))
        loop = asyncio.get_running_loop()
        expected = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(CONTENT) + CONTENT
        for _ in range(2):
            await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert await read(client, len(expected)) == expected
        transport.abort()
        client.close()
        while service.connections:
            await asyncio.sleep(0)

    run(main)


@pytest.mark.parametrize("how", ["stall", "leave"])
def test_a_peer_lost_in_the_middle_of_a_file_is_no_error_of_the_application(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": str(path)})

    async def main() -> None:
        service = Service(app, loop_port(), timeouts=Timeouts(write=0.05))
        _, _, client = await pair(Http1Connection(service))
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await read(client, 10_000)
        if how == "leave":
            client.close()
        while service.active or service.connections:
            await asyncio.sleep(0.001)
        client.close()

    run(main)
    assert [record for record in caplog.records if record.name.startswith("omnicorn")] == []


# ---------------------------------------------------------------- listening


def test_listen_accepts_on_every_socket_and_leaves_their_files_alone(
    run: Run, tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    tcp, unix = socket.socket(), socket.socket(socket.AF_UNIX)
    tcp.bind(("127.0.0.1", 0))
    unix.bind(path)
    for sock in (tcp, unix):
        sock.listen()
        sock.setblocking(False)

    async def main() -> None:
        made: list[Keep] = []

        def factory() -> Any:
            made.append(Keep())
            return made[-1]

        loop = AsyncioLoop(asyncio.get_running_loop())
        servers = await loop.listen(factory, [tcp, unix], 10)
        loop = asyncio.get_running_loop()
        for family, address in ((socket.AF_INET, tcp.getsockname()), (socket.AF_UNIX, path)):
            with socket.socket(family) as client:
                client.setblocking(False)
                await loop.sock_connect(client, address)
                while not made:
                    await asyncio.sleep(0.001)
                kept = made.pop()
                (await kept.made).close()
                await kept.lost
        for server in servers:
            server.close()
        await asyncio.sleep(0)

    run(main)
    assert os.path.exists(path)
    unix.close()
    tcp.close()


def test_a_spawned_task_has_the_servers_context_and_not_its_callers(run: Run) -> None:
    """The caller may be a step of another request (pipelining), whose variables are private."""
    user: ContextVar[str] = ContextVar("user", default="nobody")

    async def main() -> None:
        user.set("the operator")
        port = AsyncioLoop(asyncio.get_running_loop())
        seen: list[str] = []

        async def request(name: str) -> None:
            seen.append(user.get())
            user.set(name)

        async def caller() -> None:
            user.set("alice")
            await asyncio.wait([port.spawn(request("bob"))])  # type: ignore[list-item]
            await asyncio.wait([port.spawn(request("carol"))])  # type: ignore[list-item]

        await asyncio.create_task(caller())
        assert seen == ["the operator", "the operator"]

    run(main)
