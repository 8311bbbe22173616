"""FastCGI as a process manager starts it, and as a front that multiplexes speaks it."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests import fastcgi_front as front
from tests.fastcgi_front import ABORT, GET_VALUES, begin, record, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    Serve = Any


def read(sock: socket.socket, *numbers: int) -> bytes:
    """Read until each of the requests *numbers* has ended, or the connection has."""
    wire = b""
    while data := sock.recv(65536):
        wire += data
        try:
            if all(front.answer(wire, number).app_status is not None for number in numbers):
                break
        except AssertionError:
            continue  # within a record
    return wire


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def start_on_fd_0(serve: Serve, listener: socket.socket, env: dict[str, str]) -> Any:
    """As spawn-fcgi and mod_fcgid do: the listening socket is descriptor 0 (§2.2)."""
    fd = listener.fileno()
    command = [sys.executable, "-m", "omnicorn", "--bind", "fastcgi:fd://0", "plain:app"]
    become = f"import os; os.dup2({fd}, 0); os.execv({command[0]!r}, {command!r})"
    server = serve.run([sys.executable, "-c", become], env, [fd])
    server.wait_for("is serving on")
    return server


def test_the_listening_socket_may_be_descriptor_0(serve: Serve, listener: socket.socket) -> None:
    start_on_fd_0(serve, listener, {"FCGI_WEB_SERVER_ADDRS": "127.0.0.1,192.0.2.1"})
    with socket.create_connection(listener.getsockname(), 10) as sock:
        sock.sendall(request("/scope"))
        scope = json.loads(front.answer(read(sock, 1)).body)

    assert scope["client"] == ["192.0.2.1", 45862]


def test_only_the_web_servers_named_may_connect(serve: Serve, listener: socket.socket) -> None:
    server = start_on_fd_0(serve, listener, {"FCGI_WEB_SERVER_ADDRS": "192.0.2.1"})
    with socket.create_connection(listener.getsockname(), 10) as sock:
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass
    server.wait_for("cut: its address is not in FCGI_WEB_SERVER_ADDRS")


def test_a_list_of_web_servers_that_is_none_is_told_at_the_start(serve: Serve) -> None:
    server = serve(
        "plain:app",
        "--bind",
        "fastcgi:127.0.0.1:0",
        env={"FCGI_WEB_SERVER_ADDRS": "everybody"},
        wait=False,
    )
    server.expected_code = None

    assert server.wait() != 0
    assert server.matching("FCGI_WEB_SERVER_ADDRS must be addresses")


def test_requests_share_a_connection(serve: Serve, loop_name: str) -> None:
    server = serve("plain:app", "--bind", "fastcgi:127.0.0.1:0", loop=loop_name)
    port = int(server.addresses[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        body = bytes(range(256)) * 2000
        wanted = [1, 2, 3, 4]
        sock.sendall(request("/hold", 9))
        sock.sendall(b"".join(request("/echo", number, body) for number in wanted))
        wire = read(sock, *wanted)
        for number in wanted:
            assert front.answer(wire, number).body == body
        sock.sendall(front.record(ABORT, 9))
        aborted = front.answer(read(sock, 9), 9)
        sock.sendall(request("/release"))
        assert front.answer(read(sock, 1)).body == b"released"

    assert aborted.app_status == 1
    assert server.stop() == 0


def test_multiplexing_can_be_switched_off(serve: Serve, loop_name: str) -> None:
    options = ("--bind", "fastcgi:127.0.0.1:0", "--fastcgi-max-concurrency", "1")
    server = serve("plain:app", *options, loop=loop_name)
    port = int(server.addresses[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(request("/hold", 1) + request("/", 2))
        assert front.answer(read(sock, 2), 2).protocol_status == front.CANT_MPX
        sock.sendall(record(ABORT, 1))
        read(sock, 1)
        sock.sendall(request("/release", 4))
        assert front.answer(read(sock, 4), 4).body == b"released"


@contextlib.contextmanager
def flooding(port: int, data: bytes) -> Iterator[None]:
    """Send *data* without a pause on a connection of its own, and drop what comes."""
    over = threading.Event()
    busy = threading.Event()

    def run(sock: socket.socket) -> None:
        sent = 0
        while not over.is_set():
            with contextlib.suppress(BlockingIOError):
                sent += sock.send(data[sent % len(data) :])
            with contextlib.suppress(BlockingIOError):
                while sock.recv(1 << 20):
                    busy.set()

    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.setblocking(False)
        sender = threading.Thread(target=run, args=(sock,))
        sender.start()
        try:
            assert busy.wait(20)
            yield
        finally:
            over.set()
            sender.join()


@pytest.mark.parametrize(
    "one",
    [begin() + record(ABORT), record(GET_VALUES, 0), record(99, 0)],
    ids=["aborted", "values", "unknown"],
)
def test_a_flood_of_records_does_not_keep_others_waiting(
    serve: Serve, loop_name: str, one: bytes
) -> None:
    server = serve("plain:app", "--bind", "fastcgi:127.0.0.1:0", loop=loop_name)
    port = int(server.addresses[0].rpartition(":")[2])
    waited = []
    with flooding(port, one * (65536 // len(one))):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                begun = time.monotonic()
                sock.sendall(request("/", keep=False))
                assert front.answer(read(sock, 1)).body == b"hello"
                waited.append(time.monotonic() - begun)

    assert sorted(waited)[5] < 0.25, waited


def test_a_failure_is_told_to_the_front_and_to_the_log(serve: Serve) -> None:
    server = serve("plain:app", "--bind", "fastcgi:127.0.0.1:0", errors=True)
    port = int(server.addresses[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(request("/fail"))
        answer = front.answer(read(sock, 1))

    assert answer.status == 500
    assert answer.stderr.startswith(b"the application failed: GET '/fail': ")
    server.wait_for("the application failed")
