"""Clients that reset, stall, flood and lie: the server stays up, quiet and small.

Every server here has the same bounds to keep when its clients are gone: it answers, it has
the descriptors it began with, it has logged no traceback (the fixture sees to that), and
its memory has not grown with the number of clients.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Serve, ServerProcess, Wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")

MB = 1 << 20

GET = b"GET %b HTTP/1.1\r\nhost: e2e\r\n\r\n"
POST = b"POST /count HTTP/1.1\r\nhost: e2e\r\ncontent-length: 1000\r\n\r\n"


class Bounds:
    """What a server had before its clients came."""

    def __init__(self, server: ServerProcess, eventually: Callable[..., Any]) -> None:
        assert server.get("/").status == 200
        self._server = server
        self._eventually = eventually
        self._descriptors = eventually(lambda: self._settled(), "the descriptors settle")
        self.memory = server.memory()

    def _settled(self) -> int:
        """Descriptors, once the connection of our own request is gone."""
        first = self._server.descriptors()
        return first if self._server.descriptors() == first else 0

    def grown(self) -> int:
        return self._server.memory() - self.memory

    def kept(self, megabytes: float) -> None:
        """Everybody has left; nothing else has stayed."""
        server = self._server
        assert server.get("/").body == b"hello"
        self._eventually(
            lambda: server.descriptors() <= self._descriptors,
            f"{server.descriptors()} descriptors become {self._descriptors} again",
        )
        assert self.grown() < megabytes * MB


@pytest.fixture
def bounds(eventually: Callable[..., Any]) -> Callable[[ServerProcess], Bounds]:
    return lambda server: Bounds(server, eventually)


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module("plain:app", "--no-access-log")


# ------------------------------------------------------------------------------- resets


def after_connect(wire: Wire) -> None:
    pass


def within_the_head(wire: Wire) -> None:
    wire.send(b"GET / HTTP/1.1\r\nhost: e2")


def within_the_body(wire: Wire) -> None:
    wire.send(POST, b"a" * 500)


def within_a_chunk(wire: Wire) -> None:
    wire.send(b"POST /count HTTP/1.1\r\nhost: e2e\r\ntransfer-encoding: chunked\r\n\r\nff\r\nabc")


def while_the_application_runs(wire: Wire) -> None:
    wire.send(GET % b"/watch")


def within_the_response(wire: Wire) -> None:
    wire.send(GET % b"/stream?n=1000000&size=65536")
    assert wire.head().status == 200


def between_pieces_of_the_response(wire: Wire) -> None:
    wire.send(GET % b"/endless")
    assert wire.head().status == 200


def after_the_response(wire: Wire) -> None:
    assert wire.get("/").status == 200


PHASES: list[tuple[Callable[[Wire], None], str, str]] = [
    (after_connect, "", ""),
    (within_the_head, "", ""),
    (within_the_body, "reading", "left after 500"),
    (within_a_chunk, "reading", "left after 3"),
    (while_the_application_runs, "watching", "send raised ClientDisconnected"),
    (within_the_response, "", "stream ended"),
    (between_pieces_of_the_response, "", "endless saw http.disconnect"),
    (after_the_response, "", ""),
]
"""What the client does before it resets, and what the application says before and after."""


@pytest.mark.parametrize(
    ("phase", "before", "after"), PHASES, ids=lambda p: getattr(p, "__name__", "")
)
def test_resets_are_survived(
    server: ServerProcess,
    bounds: Callable[[ServerProcess], Bounds],
    phase: Callable[[Wire], None],
    before: str,
    after: str,
) -> None:
    def round_of(count: int) -> None:
        seen = [len(server.matching(said)) if said else 0 for said in (before, after)]
        wires = [server.connect() for _ in range(count)]
        for wire in wires:
            phase(wire)
        if before:
            server.wait_for(before, seen[0] + count)
        else:
            assert server.get("/").status == 200  # what came before this has been read
        for wire in wires:
            wire.reset()
        if after:
            server.wait_for(after, seen[1] + count)

    round_of(50)  # what a first round costs stays, in pools and tables
    limits = bounds(server)
    for _ in range(4):
        round_of(50)

    limits.kept(megabytes=8)


def test_a_reset_ends_a_response_whose_application_awaits_nothing_but_send(
    serve: Serve, loop_name: str, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    server = serve("plain:app", "--no-access-log", loop=loop_name)
    wire = server.connect()
    wire.send(GET % b"/oblivious?%b" % bytes(fifo))
    assert wire.head().status == 200
    server.wait_for("blocking")

    wire.reset()
    fifo.write_text("go on")

    assert "raised ClientDisconnected" in server.wait_for("send (raised|never)")


def test_a_reset_is_noticed_although_requests_wait_in_the_pipeline(
    serve: Serve, loop_name: str
) -> None:
    grace = ("--timeout-graceful-shutdown", "0.2")
    server = serve("plain:app", "--no-access-log", *grace, loop=loop_name)
    wire = server.connect()
    wire.send(GET % b"/", GET % b"/watch", GET % b"/")
    server.wait_for("watching")

    wire.reset()

    server.wait_for("saw http.disconnect", seconds=1)


def test_resets_one_after_the_other_are_survived(
    server: ServerProcess, bounds: Callable[[ServerProcess], Bounds]
) -> None:
    limits = bounds(server)
    for _ in range(40):
        for phase, _, _ in PHASES:
            wire = server.connect()
            phase(wire)
            wire.reset()

    limits.kept(megabytes=16)


def test_clients_that_connect_and_leave_cost_nothing(
    server: ServerProcess, bounds: Callable[[ServerProcess], Bounds]
) -> None:
    _connect_and_leave(server, 1000)  # the longest queue of theirs decides what stays
    limits = bounds(server)

    _connect_and_leave(server, 1000)

    limits.kept(megabytes=4)


@pytest.mark.slow
def test_ten_thousand_clients_that_connect_and_leave_cost_nothing(
    server: ServerProcess, bounds: Callable[[ServerProcess], Bounds]
) -> None:
    _connect_and_leave(server, 10_000)
    limits = bounds(server)

    _connect_and_leave(server, 10_000)

    limits.kept(megabytes=6)  # a kilobyte for each would be ten


def _connect_and_leave(server: ServerProcess, count: int) -> None:
    for index in range(count):
        wire = server.connect()
        if index % 2:
            wire.reset()
        else:
            wire.sock.close()


# -------------------------------------------------------------------------- slow clients


def test_fifty_slow_readers_cost_what_their_buffers_hold(
    serve: Serve, bounds: Callable[[ServerProcess], Bounds]
) -> None:
    server = serve("plain:app", "--no-access-log")
    limits = bounds(server)
    wires = [server.connect() for _ in range(50)]
    for wire in wires:
        wire.send(GET % b"/stream?n=1000000&size=65536")
        assert wire.head().status == 200
    for _ in range(100):  # the server's loop turns, and each turn could have sent more
        assert server.get("/").status == 200

    # Per client: the transport's 64 KiB, a piece of the application's, and small change.
    assert limits.grown() < 50 * 0.5 * MB

    for wire in wires[:25]:
        assert sum(len(chunk) for _, chunk in zip(range(40), wire.chunks(), strict=False)) > 2 * MB
    assert limits.grown() < 50 * 0.5 * MB
    for wire in wires:
        wire.reset()
    server.wait_for("stream ended", 50)
    limits.kept(megabytes=25)


def test_a_fast_reader_of_an_endless_response_does_not_keep_others_waiting(
    serve: Serve, loop_name: str
) -> None:
    server = serve("plain:app", "--no-access-log", loop=loop_name)
    fast = server.connect()
    enough = threading.Event()

    def read() -> None:
        while not enough.is_set():
            assert fast.sock.recv(1 << 20)

    fast.send(GET % b"/flood")
    assert fast.head().status == 200
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(20):
            began = time.monotonic()
            assert server.get("/").status == 200
            assert time.monotonic() - began < 2
    finally:
        enough.set()
        reader.join()
        fast.reset()
    server.wait_for("flood ended")


def test_a_reader_that_stops_is_cut_after_the_write_timeout(serve: Serve) -> None:
    server = serve("plain:app", "--no-access-log", "--timeout-write", "1")
    with server.connect() as wire:
        wire.send(GET % b"/flood")
        assert wire.head().status == 200

        server.wait_for("flood ended", seconds=6)


def test_a_reader_that_is_slow_but_steady_gets_everything(serve: Serve) -> None:
    server = serve("plain:app", "--no-access-log", "--timeout-write", "0.5")
    size = 8 * MB
    with server.connect() as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        wire.send(GET % b"/flood?size=%d" % size)
        wire.head()
        taken = 0
        began = time.monotonic()
        for chunk in wire.chunks():
            taken += len(chunk)
            while time.monotonic() - began < 1.5 * taken / size:
                select.select([], [], [], 0.005)  # three timeouts for the whole

    assert taken == size


def _slowly(wires: dict[Wire, Iterator[bytes]], seconds: float) -> dict[Wire, float]:
    """Send a byte on each connection now and then until the server has had enough.

    Returns:
        The seconds after which each became readable, which is when the server gave up.
    """
    ended: dict[Wire, float] = {}
    began = time.monotonic()
    while len(ended) < len(wires):
        assert time.monotonic() - began < seconds, f"{len(wires) - len(ended)} are still open"
        waiting = {wire.sock: wire for wire in wires if wire not in ended}
        for sock in select.select(list(waiting), [], [], 0.05)[0]:
            ended[waiting.pop(sock)] = time.monotonic() - began
        for wire in waiting.values():
            try:
                wire.send(next(wires[wire]))
            except OSError:
                ended[wire] = time.monotonic() - began
    return ended


def _trickle(text: bytes) -> Iterator[bytes]:
    for byte in text:
        yield bytes([byte])
    while True:
        yield b"x"


def test_slow_writers_of_heads_are_closed_in_time(serve: Serve) -> None:
    server = serve("plain:app", "--no-access-log", "--timeout-request-head", "1")
    wires = {server.connect(): _trickle(b"GET / HTTP/1.1\r\nhost: ") for _ in range(30)}
    for wire in list(wires)[:10]:  # not only for the first request of a connection
        assert wire.get("/").status == 200

    ended = _slowly(wires, seconds=4)

    assert all(0.9 < seconds < 2.5 for seconds in ended.values())
    for wire in wires:
        response = wire.response()
        assert (response.status, response.header("connection")) == (408, "close")
        assert wire.is_closed()
        wire.sock.close()


def test_silent_connections_are_closed_in_time_without_a_word(serve: Serve) -> None:
    server = serve("plain:app", "--no-access-log", "--timeout-request-head", "1")
    with server.connect() as wire:
        began = time.monotonic()
        assert wire.rest() == b""
        assert 0.9 < time.monotonic() - began < 2.5
    assert not server.matching("refused")


def test_idle_connections_are_closed_in_time_without_a_word(serve: Serve) -> None:
    server = serve("plain:app", "--no-access-log", "--timeout-keep-alive", "1")
    with server.connect() as wire:
        assert wire.get("/").status == 200
        began = time.monotonic()
        assert wire.rest() == b""
        assert 0.9 < time.monotonic() - began < 2.5


def test_a_body_that_stops_coming_is_a_408(serve: Serve) -> None:
    server = serve("plain:app", "--no-access-log", "--timeout-body", "1")
    with server.connect() as wire:
        wire.send(POST, b"a" * 500)
        began = time.monotonic()
        assert wire.response().status == 408
        assert 0.9 < time.monotonic() - began < 2.5
    server.wait_for("left after 500")


# -------------------------------------------------------------------------------- floods


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: e2e\r\nx: " + b"a" * MB, 431),
        (b"GET / HTTP/1.1\r\nhost: e2e\r\n" + b"x-field: 0123456789\r\n" * 50_000, 431),
        (b"GET /" + b"a" * MB, 414),
    ],
    ids=["one field", "many fields", "request line"],
)
def test_a_head_of_a_megabyte_is_refused_and_the_answer_arrives(
    server: ServerProcess, bounds: Callable[[ServerProcess], Bounds], head: bytes, status: int
) -> None:
    limits = bounds(server)
    for _ in range(10):
        with server.connect() as wire:
            wire.send(head)
            response = wire.response()
            assert (response.status, response.header("connection")) == (status, "close")
            assert wire.rest() == b""  # an orderly end: a reset would raise

    limits.kept(megabytes=8)


def test_thousands_of_pipelined_requests_are_answered_in_order(
    serve: Serve, bounds: Callable[[ServerProcess], Bounds]
) -> None:
    server = serve("plain:app", "--no-access-log")
    limits = bounds(server)
    count = 3000
    flood = b"".join(GET % b"/numbered?%d" % index for index in range(count))

    with server.connect() as wire:
        sender = threading.Thread(target=wire.send, args=(flood,))
        sender.start()
        bodies = [wire.response().body for _ in range(count)]
        sender.join()

    assert bodies == [b"%d" % index for index in range(count)]
    limits.kept(megabytes=8)


def test_a_flood_whose_answers_nobody_reads_is_not_read_on(
    serve: Serve, bounds: Callable[[ServerProcess], Bounds]
) -> None:
    server = serve("plain:app", "--no-access-log")
    limits = bounds(server)
    request = b"GET /stream?n=1&size=8000 HTTP/1.1\r\nhost: e2e\r\nx: %b\r\n\r\n" % (b"x" * 4000)
    with server.connect() as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        wire.sock.setblocking(False)
        block = request * 100
        sent = 0
        while select.select([], [wire.sock], [], 0.5)[1]:
            sent += wire.sock.send(block[sent % len(request) :])
            assert sent < 64 * MB, "the server goes on reading"
        assert limits.grown() < 8 * MB
        assert server.get("/").status == 200

        # It was only waiting: once its answers are read, it goes on.
        wire.sock.settimeout(10)
        rest = -sent % len(request)
        finish = threading.Thread(target=wire.send, args=(request[len(request) - rest :],))
        finish.start()
        for _ in range(-(-sent // len(request))):
            assert len(wire.response().body) == 8000
        finish.join()

    limits.kept(megabytes=12)


def test_a_gigabyte_announced_and_answered_early_leaves_the_answer_readable(
    server: ServerProcess, bounds: Callable[[ServerProcess], Bounds]
) -> None:
    limits = bounds(server)
    head = b"POST /early HTTP/1.1\r\nhost: e2e\r\ncontent-length: %d\r\n\r\n" % (1 << 30)
    for _ in range(5):
        with server.connect() as wire:
            wire.send(head)
            sent = 0
            # As browsers and proxies do it: send on until the answer is there.
            while not select.select([wire.sock], [], [], 0)[0] and sent < 1 << 30:
                try:
                    sent += wire.sock.send(bytes(65536))
                except OSError:
                    break  # cut off in between, but the answer came before that
            response = wire.response()
            assert (response.status, response.body) == (413, b"too much for me")
            assert wire.is_closed()

    limits.kept(megabytes=8)


def test_an_early_answer_says_that_the_connection_ends(server: ServerProcess) -> None:
    response = server.get("/early", "content-length: 1000000000", method="POST")

    assert response.header("connection") == "close"


def test_half_a_megabyte_sent_before_looking_for_the_answer_does_not_destroy_it(
    server: ServerProcess,
) -> None:
    head = b"POST /early HTTP/1.1\r\nhost: e2e\r\ncontent-length: %d\r\n\r\n" % (1 << 30)
    for _ in range(20):
        with server.connect() as wire:
            wire.send(head)
            for _ in range(8):
                wire.send(bytes(65536))
            assert wire.response().body == b"too much for me"
            assert wire.rest() == b""


def test_an_endless_body_after_the_answer_is_cut_off(
    server: ServerProcess, bounds: Callable[[ServerProcess], Bounds]
) -> None:
    limits = bounds(server)
    head = b"POST /early HTTP/1.1\r\nhost: e2e\r\ntransfer-encoding: chunked\r\n\r\n"
    with server.connect() as wire:
        wire.send(head)
        chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
        with pytest.raises(OSError):
            wire.send(chunk * 1024)

    limits.kept(megabytes=4)


def test_a_body_that_nobody_reads_is_not_taken_in(
    serve: Serve, bounds: Callable[[ServerProcess], Bounds]
) -> None:
    server = serve("plain:app", "--no-access-log")
    limits = bounds(server)
    wires = [server.connect() for _ in range(10)]
    sent = 0
    for wire in wires:
        wire.send(b"POST /hold HTTP/1.1\r\nhost: e2e\r\ncontent-length: %d\r\n\r\n" % (1 << 30))
        wire.sock.setblocking(False)
    while ready := select.select([], [wire.sock for wire in wires], [], 0.5)[1]:
        for sock in ready:
            sent += sock.send(bytes(65536))
        assert sent < 256 * MB, "the server goes on reading"
    assert limits.grown() < 10 * MB

    assert server.get("/release").status == 200
    for wire in wires:
        wire.sock.settimeout(10)
        assert wire.response().body == b"held"
        wire.sock.close()
    limits.kept(megabytes=10)
