"""The reactor on trio: what the contracts in `tests/contracts` do not ask of every loop."""

from __future__ import annotations

import errno
import gc
import logging
import os
import socket
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from omnicorn.connections import accept
from omnicorn.connections.http1 import Http1Connection
from omnicorn.connections.service import Service, Timeouts
from omnicorn.errors import ClientDisconnected
from omnicorn.transports import _trio
from omnicorn.transports._trio import TrioLoop, TrioTransport, hosting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

CONTENT = bytes(range(256)) * 8192  # 2 MiB: more than a socket takes at once
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


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


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


# ---------------------------------------------------------------- callbacks and timers


def test_timers_fire_in_the_order_of_their_times_and_the_cancelled_do_not() -> None:
    async def main(loop: TrioLoop) -> None:
        seen: list[int] = []
        now = loop.time()
        timers = [
            loop.call_at(now + delay / 1000, lambda delay=delay: seen.append(delay))  # type: ignore[misc]
            for delay in (30, 10, 20, 5)
        ]
        timers[2].cancel()
        await until(lambda: len(seen) == 3)
        assert seen == [5, 10, 30]

    run(main)


def test_timers_of_one_time_fire_in_the_order_they_were_asked_for() -> None:
    async def main(loop: TrioLoop) -> None:
        seen: list[int] = []
        now = loop.time()
        for number in range(5):
            loop.call_at(now, lambda number=number: seen.append(number))  # type: ignore[misc]
        await until(lambda: len(seen) == 5)
        assert seen == [0, 1, 2, 3, 4]

    run(main)


def test_a_timer_that_is_not_the_earliest_wakes_nobody() -> None:
    async def main(loop: TrioLoop) -> None:
        loop.call_at(loop.time() + 50, lambda: None)
        await trio.testing.wait_all_tasks_blocked()
        deadline = loop._alarm.deadline
        loop.call_at(loop.time() + 60, lambda: None)
        assert loop._alarm.deadline == deadline
        assert trio.lowlevel.current_statistics().tasks_runnable == 0

    run(main)


def test_the_pump_wakes_for_a_callback_and_for_those_that_this_one_asks_for() -> None:
    async def main(loop: TrioLoop) -> None:
        seen: list[str] = []
        await trio.testing.wait_all_tasks_blocked()
        loop.call_soon(lambda: loop.call_soon(lambda: seen.append("inner")))
        loop.call_soon(lambda: seen.append("outer"))
        await until(lambda: len(seen) == 2)
        assert seen == ["outer", "inner"]

    run(main)


def test_a_callback_that_fails_is_logged_and_the_next_ones_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(loop: TrioLoop) -> None:
        seen: list[str] = []
        loop.call_soon(lambda: 1 // 0)
        loop.call_soon(lambda: seen.append("soon"))
        loop.call_at(loop.time(), lambda: 1 // 0)
        loop.call_at(loop.time(), lambda: seen.append("timer"))
        loop.call_soon_threadsafe(lambda: 1 // 0)
        loop.call_soon_threadsafe(lambda: seen.append("thread"))
        await until(lambda: len(seen) == 3)

    run(main)
    assert [record.getMessage() for record in caplog.records] == ["A callback failed"] * 3


def test_a_thread_wakes_who_waits() -> None:
    async def main(loop: TrioLoop) -> None:
        waiter = loop.create_future()
        seen: list[int] = []

        def from_thread() -> None:
            loop.call_soon_threadsafe(lambda: seen.append(threading.get_ident()))
            loop.call_soon_threadsafe(lambda: waiter.set_result(None))

        await trio.testing.wait_all_tasks_blocked()
        thread = threading.Thread(target=from_thread)
        thread.start()
        await waiter
        thread.join()
        assert seen == [threading.get_ident()]

    run(main)


def test_a_thread_that_calls_too_late_is_told() -> None:
    async def main(loop: TrioLoop) -> TrioLoop:
        return loop

    loop = run(main)
    with pytest.raises(RuntimeError):
        loop.call_soon_threadsafe(lambda: None)


def test_a_waiter_is_done_once() -> None:
    async def main(loop: TrioLoop) -> None:
        waiter = loop.create_future()
        waiter.set_result(None)
        with pytest.raises(RuntimeError, match="done already"):
            waiter.set_result(None)

    run(main)


def test_a_waiter_whose_task_was_cancelled_may_still_be_woken_and_awaited() -> None:
    async def main(loop: TrioLoop) -> None:
        waiter = loop.create_future()
        with trio.move_on_after(0.001) as scope:
            await waiter
        assert scope.cancelled_caught and not waiter.done()
        waiter.set_result(None)
        await waiter

    run(main)


# ---------------------------------------------------------------- requests and their tasks


def test_a_request_that_never_waits_ends_within_the_read_that_brought_it() -> None:
    async def main(loop: TrioLoop) -> None:
        tasks: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            tasks.append(trio.lowlevel.current_task())
            await ok(scope, receive, send)

        service = served(loop, app)
        clients = [pair(loop, Http1Connection(service))[2] for _ in range(3)]
        living = trio.lowlevel.current_statistics().tasks_living
        for client in clients:
            await client.send(GET)
            assert await read(client, len(OK)) == OK
        assert len(set(tasks)) == 1
        assert trio.lowlevel.current_statistics().tasks_living == living

    run(main)


def test_a_request_that_waits_stays_in_its_task_and_others_are_served_meanwhile() -> None:
    async def main(loop: TrioLoop) -> None:
        go = trio.Event()
        tasks: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            tasks.append(trio.lowlevel.current_task())
            if scope["path"] == "/wait":
                await go.wait()
                tasks.append(trio.lowlevel.current_task())
            await ok(scope, receive, send)

        service = served(loop, app)
        slow, quick = (pair(loop, Http1Connection(service))[2] for _ in range(2))
        await slow.send(GET.replace(b"/", b"/wait", 1))
        await until(lambda: tasks)
        await quick.send(GET)
        assert await read(quick, len(OK)) == OK
        go.set()
        assert await read(slow, len(OK)) == OK
        first, other, then = tasks
        assert first is then and first is not other

    run(main)


@pytest.mark.parametrize("library", ["trio", "anyio"])
def test_nurseries_and_cancel_scopes_opened_in_the_first_step_work(library: str) -> None:
    anyio = pytest.importorskip("anyio") if library == "anyio" else None

    async def main(loop: TrioLoop) -> None:
        seen: list[str] = []

        async def child(scope: Any) -> None:
            await trio.sleep(0)
            seen.append("child")
            scope.cancel()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if anyio is None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(child, nursery.cancel_scope)
                    await trio.sleep_forever()
            else:
                async with anyio.create_task_group() as group:
                    group.start_soon(child, group.cancel_scope)
                    await anyio.sleep_forever()
            with trio.move_on_after(0.001) as patience:
                while True:
                    await receive()
            assert patience.cancelled_caught
            await ok(scope, receive, send)

        client = pair(loop, Http1Connection(served(loop, app)))[2]
        for _ in range(3):
            await client.send(GET)
            assert await read(client, len(OK)) == OK
        assert seen == ["child"] * 3

    run(main)


def test_a_body_that_comes_with_its_head_costs_no_other_task() -> None:
    async def main(loop: TrioLoop) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append((await receive())["body"])
            await ok(scope, receive, send)

        seen: list[bytes] = []
        client = pair(loop, Http1Connection(served(loop, app)))[2]
        living = trio.lowlevel.current_statistics().tasks_living
        head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n"
        for _ in range(2):
            await client.send(head + b"body")
            assert await read(client, len(OK)) == OK
        assert seen == [b"body", b"body"]
        assert trio.lowlevel.current_statistics().tasks_living == living
        for _ in range(3):
            await client.send(head)
            await trio.testing.wait_all_tasks_blocked()
            await client.send(b"late")
            assert await read(client, len(OK)) == OK
        assert seen[2:] == [b"late"] * 3

    run(main)


def test_a_task_cancelled_before_its_first_step_never_runs() -> None:
    async def main(loop: TrioLoop) -> None:
        seen: list[str] = []

        async def note(name: str) -> None:
            seen.append(name)

        loop.spawn(note("cancelled")).cancel()
        kept = loop.spawn(note("kept"))
        await until(lambda: seen)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["kept"]
        again = loop.spawn(note("parked worker, cancelled"))
        again.cancel()
        again.cancel()
        kept.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["kept"]

    run(main)


@pytest.mark.parametrize("begun", [False, True])
def test_the_end_of_a_cancelled_exchange_is_told_once(begun: bool) -> None:
    async def main(loop: TrioLoop) -> None:
        seen: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["path"])
            await trio.sleep_forever()

        service = served(loop, app)
        connection = Http1Connection(service)
        pair(loop, connection)
        connection.data_received(GET)  # outside the reactor: the task is yet to begin
        assert service.active == 1 and not seen
        if begun:
            await until(lambda: seen)
        service.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert service.active == 0
        assert seen == (["/"] if begun else [])

    run(main)


def test_a_cancelled_request_takes_nobody_with_it() -> None:
    async def main(loop: TrioLoop) -> None:
        seen: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/wait":
                try:
                    await trio.sleep_forever()
                except trio.Cancelled:
                    seen.append("cancelled")
                    raise
            await trio.sleep(0)
            await ok(scope, receive, send)

        service = served(loop, app)
        for number in range(1, 4):
            connection = Http1Connection(service)
            victim = pair(loop, connection)[2]
            await victim.send(GET.replace(b"/", b"/wait", 1))
            await until(lambda: service.active)
            connection.abort()
            await until(lambda: not service.active)
            other = pair(loop, Http1Connection(service))[2]
            await other.send(GET)
            assert await read(other, len(OK)) == OK
            assert len(seen) == number

    run(main)


def test_a_cancelled_task_is_cancelled_at_every_further_wait() -> None:
    async def main(loop: TrioLoop) -> None:
        seen: list[int] = []

        async def stubborn() -> None:
            for number in range(3):
                try:
                    await loop.create_future()
                except trio.Cancelled:
                    seen.append(number)

        task = loop.spawn(stubborn())
        await trio.testing.wait_all_tasks_blocked()
        task.cancel()
        await until(lambda: len(seen) == 3)

    run(main)


def test_each_request_has_a_copy_of_the_servers_context() -> None:
    user: ContextVar[str] = ContextVar("user", default="nobody")

    async def main() -> None:
        user.set("the operator")
        async with hosting() as loop:
            seen: list[str] = []

            async def app(scope: Any, receive: Any, send: Any) -> None:
                seen.append(user.get())
                user.set(scope["path"])
                if scope["path"] == "/wait":
                    await trio.sleep(0)
                    seen.append(user.get())
                await ok(scope, receive, send)

            client = pair(loop, Http1Connection(served(loop, app)))[2]
            for path in (b"/", b"/wait", b"/", b"/wait"):
                await client.send(GET.replace(b"/", path, 1))
                assert await read(client, len(OK)) == OK
            user.set("somebody else")
            await client.send(GET + GET)  # the second is spawned from within the first
            assert await read(client, 2 * len(OK)) == OK + OK
            operator = "the operator"
            assert seen == [operator, operator, "/wait"] * 2 + [operator, operator]

    trio.run(main)


def test_workers_hand_no_context_from_one_task_to_the_next() -> None:
    variable: ContextVar[int] = ContextVar("variable", default=0)

    async def main(loop: TrioLoop) -> None:
        seen: list[tuple[int, Any]] = []

        async def change() -> None:
            seen.append((variable.get(), trio.lowlevel.current_task()))
            variable.set(1)

        for _ in range(3):
            loop.spawn(change())
            await trio.testing.wait_all_tasks_blocked()
        assert [before for before, _ in seen] == [0, 0, 0]
        assert len({task for _, task in seen}) == 1

    run(main)


def test_who_is_cancelled_and_done_within_one_turn_takes_nobody_with_it() -> None:
    async def main(loop: TrioLoop) -> None:
        seen: list[str] = []

        async def first(waiter: Any) -> None:
            await waiter
            seen.append("first")

        async def second() -> None:
            await trio.sleep(0)
            seen.append("second")

        class First(Keep):
            def data_received(self, data: bytes) -> None:
                waiter = loop.create_future()
                task = loop.spawn(first(waiter))
                waiter.set_result(None)
                task.cancel()

        class Second(Keep):
            def data_received(self, data: bytes) -> None:
                loop.spawn(second())

        for port in (First(), Second()):
            socket.socket.send(pair(loop, port)[2]._sock, b"x")
        await until(lambda: len(seen) == 2)
        assert seen == ["first", "second"]

    run(main)


def test_what_a_request_raises_ends_it_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(BaseException):
        pass

    async def main(loop: TrioLoop) -> None:
        async def fail(wait: bool, error: BaseException) -> None:
            if wait:
                await trio.sleep(0)
            raise error

        for error in (ValueError("a"), Odd("b"), BaseExceptionGroup("c", [Odd()])):
            for wait in (False, True):
                loop.spawn(fail(wait, error))
        await trio.testing.wait_all_tasks_blocked()
        client = pair(loop, Http1Connection(served(loop, ok)))[2]
        await client.send(GET)
        assert await read(client, len(OK)) == OK

    run(main)
    assert [record.getMessage() for record in caplog.records] == ["A request's task failed"] * 6


@pytest.mark.parametrize("left", ["scope", "nursery"])
@pytest.mark.parametrize("waits", [False, True])
def test_what_a_request_leaves_open_does_not_reach_the_next_ones(
    left: str, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(loop: TrioLoop) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/leave":
                if waits:
                    await trio.sleep(0)
                if left == "scope":
                    trio.move_on_after(0.005).__enter__()
                else:
                    manager: Any = trio.open_nursery()
                    nursery = await manager.__aenter__()
                    nursery.start_soon(trio.sleep_forever)
            else:
                await trio.sleep(0.01)
            await ok(scope, receive, send)

        service = served(loop, app)
        for _ in range(3):
            for path in (b"/leave", b"/", b"/"):
                client = pair(loop, Http1Connection(service))[2]
                await client.send(GET.replace(b"/", path, 1))
                assert await read(client, len(OK)) == OK
                client.close()

    run(main)
    assert len(caplog.records) >= 3


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


def test_more_ready_sockets_than_one_turn_serves_are_served_in_the_next_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_trio, "_BATCH", 3)

    async def main(loop: TrioLoop) -> None:
        events = ""

        class Port(Keep):
            def data_received(self, data: bytes) -> None:
                nonlocal events
                events += "x"
                loop.call_soon(end_of_turn)

        def end_of_turn() -> None:
            nonlocal events
            events += "|"

        for client in [pair(loop, Port())[2] for _ in range(8)]:
            # Without a checkpoint, so that all are there at once.
            socket.socket.send(client._sock, b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert events == "xxx|||xxx|||xx||"

    run(main)


def test_the_selector_watches_for_writing_only_while_the_socket_is_full() -> None:
    async def main(loop: TrioLoop) -> None:
        transport, port, client = pair(loop)
        transport.write(b"small")
        assert transport._mask == _trio.READ
        living = trio.lowlevel.current_statistics().tasks_living
        transport.write(CONTENT)
        assert transport._mask == _trio.READ | _trio.WRITE and not port.writing
        assert trio.lowlevel.current_statistics().tasks_living == living
        assert await read(client, 5 + len(CONTENT)) == b"small" + CONTENT
        await until(lambda: transport._mask == _trio.READ and port.writing)

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

    monkeypatch.setattr(_trio, "_ACCEPT_PAUSE", 0.05)

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

    monkeypatch.setattr(_trio, "_ACCEPT_PAUSE", 0.01)

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


# ---------------------------------------------------------------- the loop's life


def test_leaving_the_loop_cuts_connections_then_ends_the_requests() -> None:
    events: list[str] = []

    async def main(loop: TrioLoop) -> None:
        class Port(Keep):
            def connection_lost(self, exc: Exception | None) -> None:
                events.append("connection lost")

        async def request() -> None:
            try:
                await trio.sleep_forever()
            finally:
                events.append("request ended")

        pair(loop, Port())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await loop.listen(Keep, [listener], 10)
            loop.spawn(request())
            await trio.testing.wait_all_tasks_blocked()
            loop.call_soon(lambda: events.append("asked for before the end"))
        events.append("left")

    run(main)
    assert events == ["left", "asked for before the end", "connection lost", "request ended"]


def test_what_the_caller_raises_comes_out_unchanged() -> None:
    error = ValueError("mine")

    async def main(loop: TrioLoop) -> None:
        loop.spawn(trio.sleep_forever())
        raise error

    with pytest.raises(ValueError) as caught:
        run(main)
    assert caught.value is error


@pytest.mark.parametrize("waits", [False, True])
def test_a_request_that_exits_ends_the_loop(waits: bool) -> None:
    async def main(loop: TrioLoop) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if waits:
                await trio.sleep(0)
            raise SystemExit(7)

        client = pair(loop, Http1Connection(served(loop, app)))[2]
        await client.send(GET)
        await trio.sleep_forever()

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 7


def test_a_cancelled_caller_can_drain_in_order() -> None:
    events: list[str] = []

    async def caller(loop_is_up: trio.Event) -> None:
        async with hosting() as loop:
            drained = loop.create_future()

            async def request() -> None:
                await asked.wait()
                events.append("request ended in order")
                drained.set_result(None)

            asked = trio.Event()
            loop.spawn(request())
            loop_is_up.set()

            def hurry() -> None:
                events.append("cancelled")
                asked.set()

            try:
                await loop.outlast(drained, hurry)
            except trio.Cancelled:
                events.append("and told so in the end")
                raise

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            up = trio.Event()
            nursery.start_soon(caller, up)
            await up.wait()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert events == ["cancelled", "request ended in order", "and told so in the end"]


def test_outlast_returns_when_nobody_cancels() -> None:
    async def main(loop: TrioLoop) -> None:
        waiter = loop.create_future()
        loop.call_soon(lambda: waiter.set_result(None))
        await loop.outlast(waiter, pytest.fail)

    run(main)


def test_a_loop_that_dies_holds_up_nobody_who_outlasts() -> None:
    async def main(loop: TrioLoop) -> None:
        async def crash() -> None:
            raise SystemExit(3)

        waiter = loop.create_future()
        try:
            loop.spawn(crash())
            await loop.outlast(waiter, lambda: None)
        finally:
            with pytest.raises(trio.Cancelled):
                await loop.outlast(waiter, lambda: None)
            coro = crash()
            with pytest.raises(RuntimeError):
                loop.spawn(coro)

    with pytest.raises(SystemExit):
        run(main)


def test_two_loops_of_one_run_do_not_meet() -> None:
    async def main(loop: TrioLoop) -> None:
        async with hosting() as other:
            _, port, client = pair(other)
            await client.send(b"x")
            await until(lambda: port.received)
        assert port.lost.is_set() and not other.connections
        client = pair(loop, Http1Connection(served(loop, ok)))[2]
        await client.send(GET)
        assert await read(client, len(OK)) == OK

    run(main)


def test_a_platform_without_epoll_and_kqueue_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import selectors

    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="use asyncio"):
            async with hosting():
                pass

    trio.run(main)


def test_a_loop_leaves_no_garbage() -> None:
    async def main(loop: TrioLoop) -> None:
        client = pair(loop, Http1Connection(served(loop, ok)))[2]
        await client.send(GET)
        assert await read(client, len(OK)) == OK

    run(main)
    gc.collect()
    assert not [found for found in gc.get_objects() if type(found) in (TrioLoop, TrioTransport)]
