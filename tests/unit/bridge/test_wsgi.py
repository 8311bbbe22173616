"""A WSGI application's exchange, over connections in memory and with real threads.

The clock is moved by hand, as everywhere; a thread's next step is waited for by
`ManualLoop.run_until`, which ends as soon as the thread has called.
"""

from __future__ import annotations

import gc
import io
import logging
import os
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

import pytest
from tests.conftest import Served, request
from tests.http2_client import Http2Client
from tests.http2_client import data as http2_data
from tests.wsgi_apps import answer, answer_file

from omnicorn.bridge.slow import PATIENCE as TOLERANCE
from omnicorn.bridge.wsgi import AHEAD, WHOLE, Wsgi, WsgiCycle
from omnicorn.connections.service import Timeouts
from omnicorn.errors import ClientDisconnected
from omnicorn.http.limits import Limits
from omnicorn.ports import HIGH_WATER
from omnicorn.transports.inproc import ManualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 10.0
LENGTH = ("Content-Length", "2")


class World(Served):
    """A service that runs a WSGI application in threads."""

    def __init__(
        self, app: Any, threads: int = 4, sendfile: bool = False, root_path: str = "", **more: Any
    ) -> None:
        loop = ManualLoop(sendfile=sendfile)
        self.wsgi = Wsgi(app, loop, threads, root_path)
        super().__init__(loop, app, {}, wsgi=self.wsgi, root_path=root_path, **more)

    def ask(self, data: bytes, *, until: Callable[[], object] | None = None) -> bytes:
        """Send a segment, wait until all exchanges are over; returns what came back."""
        self.peer.send(data)
        self.loop.run_until_idle()
        return self.rest(until)

    def rest(self, until: Callable[[], object] | None = None) -> bytes:
        self.loop.run_until(until or (lambda: not self.service.active))
        return self.peer.take()

    def fetch(self, path: str = "/", *fields: str, method: str = "GET") -> bytes:
        return self.ask(request(method, path, *fields))


@pytest.fixture
def world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(app: Any, **options: Any) -> World:
        made.append(World(app, **options))
        return made[-1]

    yield make
    for each in made:
        each.service.cancel()
        each.loop.run_until_idle()
        each.wsgi.threads.stop()
        assert each.wsgi.threads.count == 0
        assert each.service.active == 0
        assert not each.service.stragglers


Make = Any


class Gate:
    """Where an application waits for the test, and the test for the application."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.open.wait(PATIENCE)


class Closing:
    """An iterable that notes how often it was closed, and in which thread."""

    def __init__(self, blocks: Any) -> None:
        self.blocks = blocks
        self.closed: list[threading.Thread] = []
        self.event = threading.Event()

    def __iter__(self) -> Any:
        return iter(self.blocks)

    def close(self) -> None:
        self.closed.append(threading.current_thread())
        self.event.set()


def echo(environ: Any, start_response: Any) -> Any:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def environ_of(make: Make, data: bytes, **options: Any) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(environ)
        start_response("200 OK", [])
        return []

    make(app, **options).ask(data)
    return seen[0]


# ---------------------------------------------------------------- what an application gets


def test_equal_requests_have_an_environ_each(world: Make) -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: Any, start_response: Any) -> Any:
        assert "changed" not in environ
        assert environ["HTTP_HOST"] == "example.org"
        seen.append(environ)
        environ["changed"] = environ["HTTP_HOST"] = "changed"
        start_response("200 OK", [LENGTH])
        return [b"hi"]

    served = world(app)
    for _ in range(4):
        assert b"200 OK" in served.fetch("/same", "accept: */*")
    assert len({id(environ) for environ in seen}) == 4


def test_a_chunked_body_that_is_all_there_has_its_length(world: Make) -> None:
    data = request("POST", "/", "transfer-encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n"
    environ = environ_of(world, data)
    assert environ["CONTENT_LENGTH"] == "3"


def test_a_body_of_unknown_length_is_waited_for_before_a_thread_is_taken(world: Make) -> None:
    seen: list[tuple[str | None, bytes]] = []

    def app(environ: Any, start_response: Any) -> Any:
        assert "HTTP_TRANSFER_ENCODING" not in environ
        seen.append((environ.get("CONTENT_LENGTH"), environ["wsgi.input"].read()))
        start_response("200 OK", [])
        return []

    served = world(app)
    served.send(request("POST", "/", "transfer-encoding: chunked") + b"3\r\nabc\r\n")
    assert served.wsgi.threads.count == 0
    assert b"200 OK" in served.ask(b"3\r\ndef\r\n0\r\n\r\n")
    assert seen == [("6", b"abcdef")]


@pytest.mark.parametrize("size", [WHOLE, WHOLE + 1, 3_000_000])
def test_a_body_of_unknown_length_has_its_length_however_long_it_is(world: Make, size: int) -> None:
    seen: list[tuple[str | None, int]] = []

    def app(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"]
        seen.append((environ.get("CONTENT_LENGTH"), len(body.read(10)) + len(body.read())))
        inputs.append(body)
        start_response("200 OK", [])
        return []

    inputs: list[Any] = []
    served = world(app)
    served.send(request("POST", "/", "transfer-encoding: chunked"))
    for start in range(0, size, 50_000):
        count = min(50_000, size - start)
        served.send(b"%x\r\n" % count + b"x" * count + b"\r\n")
        assert served.wsgi.threads.count == 0
        assert served.peer.transport.is_reading
    assert b"200 OK" in served.ask(b"0\r\n\r\n")
    assert seen == [(str(size), size)]
    assert inputs[0].closed == (size > WHOLE)


def test_a_body_is_written_to_its_file_without_holding_up_the_loop(world: Make) -> None:
    served = world(echo)
    served.loop.hold_blocking = True
    served.send(request("POST", "/", "transfer-encoding: chunked"))
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for _ in range(20):
        served.send(chunk)
    # What nobody has written yet is bounded.
    assert not served.peer.transport.is_reading
    assert served.peer.waiting >= 10 * 65536
    served.peer.send(b"0\r\n\r\n")
    for _ in range(40):
        served.loop.release_blocking()
        served.loop.run_until_idle()
    assert served.rest().endswith(b"x" * 20 * 65536)


class Disk:
    """Where temporary files are: notes them, and is full from a size on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: list[Any] = []
        self.room = 1 << 40
        create = tempfile.TemporaryFile

        def note() -> Any:
            file = create(buffering=0)
            self.files.append(io.BufferedRandom(Limited(self, file)))  # type: ignore[arg-type, unused-ignore]
            return self.files[-1]

        monkeypatch.setattr("tempfile.TemporaryFile", note)

    @property
    def open(self) -> int:
        return sum(not file.closed for file in self.files)


class Limited(io.RawIOBase):
    def __init__(self, disk: Disk, file: Any) -> None:
        self.disk = disk
        self.file = file
        self.size = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self.file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        return int(self.file.readinto(buffer))

    def write(self, data: Any) -> int:
        if self.size + len(data) > self.disk.room:
            raise OSError(28, "No space left on device")
        self.size += len(data)
        return int(self.file.write(data))

    def close(self) -> None:
        super().close()
        self.file.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


CHUNK = b"50000\r\n" + b"x" * 0x50000 + b"\r\n"


@pytest.mark.parametrize("room", [0, 0x50000, 2 * 0x50000 + 5])
def test_a_body_that_cannot_be_written_to_a_file_is_507_and_logged_once(
    world: Make, disk: Disk, room: int, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, in the midst of it, and at its very end, when the last buffer is written."""
    disk.room = room
    served = world(echo)
    served.peer.send(request("POST", "/up", "transfer-encoding: chunked"))
    for piece in (CHUNK, CHUNK, b"a\r\n0123456789\r\n", b"0\r\n\r\n"):
        served.peer.send(piece)
        served.loop.run_until_idle()
    served.loop.advance(10.0)
    assert served.peer.received.startswith(b"HTTP/1.1 507 ")
    assert served.peer.received.endswith(b"\r\n\r\nInsufficient Storage")
    assert served.peer.eof
    assert disk.open == 0
    assert len(disk.files) == 1
    [record] = caplog.records
    assert record.getMessage() == (
        "POST '/up': 507, the body cannot be kept in a temporary file: "
        "[Errno 28] No space left on device"
    )
    assert served.access.lines == [("/up", 507, 20)]
    assert served.service.active == 0
    assert served.wsgi.threads.count == 0
    disk.room = 1 << 40
    served.peer = served.connect()
    data = request("POST", "/", "transfer-encoding: chunked") + CHUNK + b"0\r\n\r\n"
    assert served.ask(data).endswith(b"x" * 0x50000)


def test_what_a_peer_sends_after_507_is_not_kept(world: Make, disk: Disk) -> None:
    disk.room = 0
    served = world(echo)
    served.send(request("POST", "/", "transfer-encoding: chunked") + CHUNK)
    cycles = [each for each in gc.get_objects() if isinstance(each, WsgiCycle)]
    for _ in range(20):
        if not served.peer.transport.is_closing:
            served.send(CHUNK)
    assert [cycle for cycle in cycles if cycle._pieces] == []
    served.loop.advance(60.0)
    assert not served.service.connections


def test_a_full_disk_costs_an_http2_connection_nothing(world: Make, disk: Disk) -> None:
    served = world(echo)
    client: Any = Http2Client(served)
    disk.room = 300_000
    body = b"x" * 400_000
    for _ in range(5):
        reply = client.post("/", body)
        served.loop.run_until(lambda: not served.service.active)
        client.run()
        assert reply.status == 507
        assert reply.body == b"Insufficient Storage"
    disk.room = 1 << 40
    for _ in range(3):  # more than the connection's window
        reply = client.post("/", body)
        served.loop.run_until(lambda: not served.service.active)
        client.run()
        assert reply.body == body
    assert disk.open == 0


def test_a_peer_that_leaves_while_its_body_fails_is_forgotten(
    world: Make, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.room = 0
    served = world(echo)
    served.loop.hold_blocking = True
    served.send(request("POST", "/", "transfer-encoding: chunked") + CHUNK)
    served.peer.reset()
    served.loop.release_blocking()
    served.loop.run_until_idle()
    assert "507" in caplog.text  # it was told between the peer's leaving and what follows of it
    assert served.service.active == 0
    assert disk.open == 0
    assert [line for line in served.access.lines if line[1]] == []


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_a_body_of_unknown_length_is_413_before_the_disk_holds_more_than_the_limit(
    world: Make, disk: Disk, version: str
) -> None:
    limit = 600_000
    disk.room = limit
    served = world(echo, limits=Limits(body=limit))
    if version == "2":
        client: Any = Http2Client(served)
        reply = client.ask("/", method="POST", end=False)
        for _ in range(4):
            client.send(http2_data(client.last, b"x" * 200_000))
        assert reply.status == 413
    else:
        served.peer.send(request("POST", "/", "transfer-encoding: chunked"))
        for _ in range(3):
            served.peer.send(CHUNK)
            served.loop.run_until_idle()
        assert served.peer.received.startswith(b"HTTP/1.1 413 ")
    assert len(disk.files) == 1
    assert disk.open == 0
    assert served.service.active == 0
    assert served.wsgi.threads.count == 0


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("how", ["reset", "cancel", "disconnect"])
def test_the_file_of_a_body_that_nobody_gets_is_closed(
    world: Make, monkeypatch: pytest.MonkeyPatch, how: str, held: bool
) -> None:
    import tempfile

    files: list[Any] = []
    create = tempfile.TemporaryFile

    def note() -> Any:
        files.append(create())
        return files[-1]

    monkeypatch.setattr("tempfile.TemporaryFile", note)
    served = world(echo)
    chunk = b"50000\r\n" + b"x" * 0x50000 + b"\r\n"
    served.send(request("POST", "/", "transfer-encoding: chunked") + chunk)
    if held:  # in the middle of a write
        served.loop.hold_blocking = True
        served.send(chunk)
    if how == "reset":
        served.peer.reset()
    else:
        getattr(served.service, how)()
    served.loop.run_until_idle()
    assert served.service.active == 0
    served.loop.release_blocking()
    served.loop.run_until_idle()
    assert [file.closed for file in files] == [True]


def test_the_file_of_a_body_whose_peer_leaves_in_the_line_is_closed(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    files: list[Any] = []
    create = tempfile.TemporaryFile

    def note() -> Any:
        files.append(create())
        return files[-1]

    monkeypatch.setattr("tempfile.TemporaryFile", note)
    gate = Gate()

    def app(environ: Any, start_response: Any) -> Any:
        gate()
        start_response("200 OK", [LENGTH])
        return [b"hi"]

    served = world(app, threads=1)
    served.send(request("GET"))
    assert gate.reached.wait(PATIENCE)
    other = served.connect()
    chunk = b"50000\r\n" + b"x" * 0x50000 + b"\r\n0\r\n\r\n"
    other.send(request("POST", "/", "transfer-encoding: chunked") + chunk)
    served.loop.run_until_idle()
    assert served.service.active == 2
    other.reset()
    served.loop.run_until_idle()
    assert served.service.active == 1
    assert [file.closed for file in files] == [True]
    gate.open.set()
    served.rest()


@pytest.mark.parametrize("how", ["reset", "close", "late", "cancel"])
@pytest.mark.parametrize("framing", ["transfer-encoding: chunked", "content-length: 100"])
def test_a_peer_that_leaves_in_a_body_that_is_waited_for_is_forgotten(
    world: Make, how: str, framing: str
) -> None:
    served = world(echo)
    served.send(request("POST", "/", framing) + b"3\r\nabc\r\n")
    assert served.service.active == 1
    if how == "late":
        served.loop.advance(60.0)
    elif how == "cancel":
        served.service.cancel()
    else:
        getattr(served.peer, how)()
        served.loop.run_until_idle()
    assert served.service.active == 0
    assert served.wsgi.threads.count == 0


def test_each_request_has_context_variables_of_its_own(world: Make) -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(variable.get())
        variable.set(1)
        start_response("200 OK", [])
        return []

    served = world(app, threads=1)
    served.fetch()
    served.fetch()
    assert seen == [0, 0]


# ---------------------------------------------------------------- the response


@pytest.mark.parametrize("blocks", [[b"hi"], (b"h", b"i"), [b"", b"hi", b""]])
def test_a_list_leaves_in_one_write_with_its_head(world: Make, blocks: Any) -> None:
    served = world(answer(blocks, [("X-One", "1")]))
    assert served.fetch() == b"HTTP/1.1 200 OK\r\nx-one: 1\r\ncontent-length: 2\r\n\r\nhi"
    assert len(served.peer.writes) == 1


def test_a_framework_response_leaves_in_one_write_too(world: Make) -> None:
    """An iterable of one block, whose length is announced."""
    body = Closing([b"hi"])
    served = world(answer(body, [LENGTH]))
    assert served.fetch() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    assert len(served.peer.writes) == 1
    assert len(body.closed) == 1


def test_requests_follow_each_other_on_a_connection(world: Make) -> None:
    served = world(echo)
    for number in range(5):
        body = b"%d" % number
        assert served.ask(request("POST", "/", body=body)).endswith(b"\r\n\r\n" + body)
    two = request("GET", "/") + request("GET", "/")
    served.ask(two, until=lambda: served.peer.received.count(b"200 OK") == 7)


def test_blocks_leave_as_they_come(world: Make) -> None:
    gate = Gate()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"one"
        gate()
        yield b"two"

    served = world(app)
    first = served.ask(request("GET"), until=lambda: b"one" in served.peer.received)
    assert first == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"
    gate.open.set()
    assert served.rest() == b"3\r\ntwo\r\n0\r\n\r\n"


def test_write_sends_before_what_is_returned(world: Make) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Length", "4")])
        write(b"on")
        write(b"e")
        return [b"!"]

    assert world(app).fetch().endswith(b"\r\n\r\none!")


@pytest.mark.parametrize(
    ("method", "status", "wire"),
    [
        ("HEAD", "200 OK", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"),
        ("GET", "204 No Content", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "304 Not Modified", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    ],
)
def test_what_may_have_no_content_has_none(
    world: Make, method: str, status: str, wire: bytes
) -> None:
    headers = [LENGTH] if method == "HEAD" else []
    assert world(answer([b"hi"], headers, status)).fetch(method=method) == wire


def test_equal_headers_stay_apart(world: Make) -> None:
    served = world(answer([b""], [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]))
    assert b"set-cookie: a=1\r\nset-cookie: b=2\r\n" in served.fetch()


def test_a_thread_waits_while_its_peer_does_not_read(world: Make) -> None:
    produced: list[int] = []
    block = b"x" * 16384

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", str(len(block) * 200))])
        for number in range(200):
            produced.append(number)
            yield block

    served = world(app)
    served.peer.pause()
    transport = served.peer.transport
    served.ask(request("GET"), until=lambda: not transport._writing)
    served.loop.run_until_idle()
    # The peer's window, the transport, the engine and the thread's own: each is bounded.
    assert AHEAD < len(produced) * len(block) < AHEAD + 6 * HIGH_WATER
    served.peer.resume()
    served.loop.run_until(lambda: served.service.active == 0)
    assert len(produced) == 200
    assert served.peer.received.endswith(block)
    assert len(served.peer.received) > 200 * len(block)


def test_a_response_that_goes_not_too_far_ahead_leaves_its_thread(world: Make) -> None:
    size = 16384
    body = Closing(b"x" * size for _ in range(AHEAD // size))
    served = world(answer(body))
    served.peer.pause()
    served.ask(request("GET"))  # until it is over
    assert len(body.closed) == 1
    served.peer.resume()
    served.loop.run_until_idle()
    assert len(served.peer.received) > AHEAD


def test_tiny_blocks_wait_in_a_bounded_number(world: Make) -> None:
    produced: list[int] = []
    waits = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        for number in range(20_000):
            produced.append(number)
            yield b"x"

    served = world(app)
    post = served.wsgi.threads.post

    def note(job: Any, now: bool = False) -> None:
        post(job, now)
        if now:
            waits.set()

    served.wsgi.threads.post = note
    served.send(request("GET"))
    assert waits.wait(PATIENCE)  # the loop has had no turn meanwhile
    assert len(produced) < 10_000
    served.rest()
    assert len(produced) == 20_000


def test_all_blocks_that_are_there_leave_in_one_write(world: Make) -> None:
    """Each write to a transport that has just lost its peer would be one too many."""
    gate = Gate()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        for _ in range(10):
            yield b"x" * HIGH_WATER
        gate()

    served = world(app)
    served.peer.send(request("GET"))
    served.loop.run_until_idle()
    assert gate.reached.wait(PATIENCE)
    before = len(served.peer.writes)
    gate.open.set()
    served.rest()
    assert len(served.peer.writes) - before <= 4


# ---------------------------------------------------------------- slow clients


def stuck_readers(served: World, count: int) -> list[Any]:
    """Clients that do not read, each with a thread that waits."""
    peers: list[Any] = []
    for number in range(count):
        peers.append(served.connect())
        peers[-1].pause()
        peers[-1].send(request("GET", "/long"))
        # Its thread has told the loop that it waits.
        served.loop.run_until(lambda: len(served.wsgi.slow._readers) == number + 1)  # noqa: B023
    return peers


def end_reading(served: World, peers: list[Any]) -> None:
    for peer in peers:
        peer.resume()
    served.loop.run_until(lambda: not served.service.active)


def long_response(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    if environ["PATH_INFO"] != "/long":
        return [b"hi"]
    return (b"x" * HIGH_WATER for _ in range(100))


def test_as_many_slow_readers_as_threads_hold_up_nobody_for_long(
    world: Make, caplog: pytest.LogCaptureFixture
) -> None:
    served = world(long_response, threads=4)
    slow = stuck_readers(served, 4)
    served.send(request("GET"))
    served.loop.advance(TOLERANCE / 2)
    assert served.peer.received == b""
    served.loop.advance(TOLERANCE * 0.6)
    served.loop.run_until(lambda: served.peer.received.endswith(b"hi"))
    # One was enough, and it was the first.
    assert [peer.transport.is_closing for peer in slow] == [True, False, False, False]
    assert "1 responses are cut" in caplog.text
    end_reading(served, slow)


def test_slow_readers_are_left_alone_while_nobody_waits_for_their_threads(world: Make) -> None:
    served = world(long_response, threads=4)
    slow = stuck_readers(served, 4)
    served.loop.advance(5 * TOLERANCE)
    end_reading(served, slow)
    assert all(peer.received.endswith(b"0\r\n\r\n") for peer in slow)


def test_half_of_the_threads_may_wait_for_readers(world: Make) -> None:
    gate = Gate()

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/busy":
            gate()
        return long_response(environ, start_response)

    served = world(app, threads=4)
    slow = stuck_readers(served, 2)
    busy = [served.connect() for _ in range(2)]
    for peer in busy:
        peer.send(request("GET", "/busy"))
    served.loop.run_until_idle()
    assert gate.reached.wait(PATIENCE)
    served.send(request("GET"))
    served.loop.advance(3 * TOLERANCE)
    assert not any(peer.transport.is_closing for peer in slow)
    gate.open.set()
    served.loop.run_until(lambda: served.peer.received.endswith(b"hi"))
    end_reading(served, slow)


def test_bodies_that_are_not_all_there_have_at_most_half_of_the_threads(world: Make) -> None:
    gate = Gate()
    size = WHOLE + 100_000
    lengths: list[int] = []

    def app(environ: Any, start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] == "GET":
            start_response("200 OK", [LENGTH])
            return [b"hi"]
        gate()
        lengths.append(len(environ["wsgi.input"].read()))
        start_response("200 OK", [])
        return []

    served = world(app, threads=4)
    peers = [served.connect() for _ in range(6)]
    for peer in peers:
        peer.send(request("POST", "/", f"content-length: {size}") + b"x" * (WHOLE + 1))
        served.loop.run_until_idle()
    assert gate.reached.wait(PATIENCE)
    assert served.ask(request("GET"), until=lambda: served.service.active == 6).endswith(b"hi")
    assert served.wsgi.threads.count <= 3
    gate.open.set()
    for peer in peers:
        peer.send(b"x" * (size - WHOLE - 1))
    served.rest()
    assert lengths == [size] * 6
    assert served.wsgi.slow.admit()  # all places are free again
    assert served.wsgi.slow.admit()
    assert not served.wsgi.slow.admit()


def test_where_no_thread_can_be_spared_the_peer_is_told_to_continue_at_once(world: Make) -> None:
    served = world(echo, threads=1)
    data = request("POST", "/", "content-length: 2", "expect: 100-continue")
    assert served.send(data) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert served.wsgi.threads.count == 0
    assert served.ask(b"ab").endswith(b"\r\n\r\nab")


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_one_thread_is_enough_for_an_upload_beside_a_response_that_nobody_reads(
    world: Make, framing: str, reads: bool
) -> None:
    size = 2 * WHOLE

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/long":
            return long_response(environ, start_response)
        return echo(environ, start_response)

    served = world(app, threads=1)
    slow = stuck_readers(served, 1)
    if framing == "chunked":
        served.send(request("POST", "/", "transfer-encoding: chunked"))
        pieces = [b"10000\r\n" + b"x" * 65536 + b"\r\n"] * (size // 65536) + [b"0\r\n\r\n"]
    else:
        served.send(request("POST", "/", f"content-length: {size}"))
        pieces = [b"x" * 65536] * (size // 65536)
    for piece in pieces:
        assert served.peer.transport.is_reading
        served.send(piece)
    assert served.wsgi.threads.backlog == 1
    if reads:
        slow[0].resume()
    else:
        served.loop.advance(TOLERANCE + 1.0)
    served.loop.run_until(lambda: not served.service.active)
    assert served.peer.received.endswith(b"\r\n\r\n" + b"x" * size)
    assert slow[0].received.endswith(b"0\r\n\r\n") == reads


def test_a_chunked_body_is_asked_for_at_once_as_its_length_is_unknown(world: Make) -> None:
    served = world(echo)
    data = request("POST", "/", "transfer-encoding: chunked", "expect: 100-continue")
    assert served.send(data) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert served.ask(b"2\r\nab\r\n0\r\n\r\n").endswith(b"\r\n\r\nab")


def test_a_peer_that_never_reads_is_cut_and_the_iterable_closed(world: Make) -> None:
    body = Closing(b"x" * 16384 for _ in range(1000))
    served = world(answer(body), timeouts=Timeouts(write=5.0))
    served.peer.pause()
    served.ask(request("GET"), until=lambda: not served.peer.transport._writing)
    served.loop.advance(20.0)
    served.loop.run_until(lambda: not served.service.active)
    assert body.event.wait(PATIENCE)
    assert len(body.closed) == 1
    assert served.peer.was_reset


# ---------------------------------------------------------------- the request body


def test_a_long_body_is_read_as_it_comes(world: Make) -> None:
    seen: list[bytes] = []

    def app(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"]
        gate()
        seen.append(body.read(2))
        seen.append(body.readline())
        seen.append(body.read())
        start_response("200 OK", [])
        return []

    served = world(app)
    rest = b"f" * WHOLE
    gate = Gate()
    served.send(request("POST", "/", f"content-length: {len(rest) + 7}"))
    for piece in (b"ab", b"c", b"\nde", rest):
        assert served.wsgi.threads.count == 0
        served.send(piece)
    assert gate.reached.wait(PATIENCE)
    gate.open.set()
    assert b"200 OK" in served.ask(b"g")
    assert seen == [b"ab", b"c\n", b"de" + rest + b"g"]


def test_a_short_body_is_waited_for_before_a_thread_is_taken(world: Make) -> None:
    served = world(echo)
    served.send(request("POST", "/", f"content-length: {WHOLE}") + b"x" * (WHOLE - 1))
    assert served.wsgi.threads.count == 0
    assert served.ask(b"y").endswith(b"xy")


def test_reading_pauses_while_the_application_does_not_read(world: Make) -> None:
    gate = Gate()
    size = WHOLE + 10 * HIGH_WATER
    got: list[int] = []

    def app(environ: Any, start_response: Any) -> Any:
        gate()
        got.append(len(environ["wsgi.input"].read()))
        start_response("200 OK", [])
        return []

    served = world(app)
    served.send(request("POST", "/", f"content-length: {size}"))
    for _ in range(size // HIGH_WATER):
        served.send(b"x" * HIGH_WATER)
    assert gate.reached.wait(PATIENCE)
    assert not served.peer.transport.is_reading
    assert served.peer.waiting >= 7 * HIGH_WATER
    gate.open.set()
    assert b"200 OK" in served.rest()
    assert got == [size]


@pytest.mark.parametrize("reads", [True, False])
def test_the_peer_is_told_to_continue_only_if_the_body_is_read(world: Make, reads: bool) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        if reads:
            assert environ["wsgi.input"].read() == b"ab"
        start_response("200 OK", [])
        return []

    served = world(app)
    data = request("POST", "/", "content-length: 2", "expect: 100-continue")
    if not reads:
        answer = served.ask(data)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close\r\n" in answer
        return
    told = served.ask(data, until=lambda: served.peer.received)
    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert served.ask(b"ab").startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_body_that_does_not_come_ends_at_its_deadline(world: Make) -> None:
    raised: list[BaseException] = []

    def app(environ: Any, start_response: Any) -> Any:
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            raised.append(error)
            raise
        return []

    served = world(app, timeouts=Timeouts(body=5.0))
    served.send(request("POST", "/", f"content-length: {2 * WHOLE}") + b"a" * (WHOLE + 1))
    served.loop.advance(6.0)
    assert served.rest().startswith(b"HTTP/1.1 408 ")
    assert isinstance(raised[0], ClientDisconnected)


def test_a_peer_that_leaves_in_its_body_is_an_oserror_and_no_error(
    world: Make, caplog: pytest.LogCaptureFixture
) -> None:
    for leave in ("reset", "close"):
        started = threading.Event()
        raised = threading.Event()

        def app(environ: Any, start_response: Any) -> Any:
            started.set()  # noqa: B023
            try:
                environ["wsgi.input"].read()
            except OSError:
                raised.set()  # noqa: B023
                raise
            return []

        served = world(app)
        served.send(request("POST", "/", f"content-length: {2 * WHOLE}") + b"a" * (WHOLE + 1))
        assert started.wait(PATIENCE)
        getattr(served.peer, leave)()
        served.rest()
        assert raised.wait(PATIENCE)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("framing", ["content-length: 100", "transfer-encoding: chunked"])
def test_a_body_past_the_limit_is_413(world: Make, framing: str) -> None:
    served = world(echo, limits=Limits(body=10))
    data = request("POST", "/", framing) + b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n"
    assert served.ask(data).startswith(b"HTTP/1.1 413 ")


# ---------------------------------------------------------------- those that leave


def test_a_peer_that_leaves_closes_the_iterable_in_its_thread_once(world: Make) -> None:
    gate = Gate()

    def blocks() -> Any:
        yield b"one"
        gate()
        while True:
            yield b"more"

    body = Closing(blocks())
    served = world(answer(body))
    served.ask(request("GET"), until=lambda: b"one" in served.peer.received)
    served.peer.reset()
    served.loop.run_until_idle()
    gate.open.set()
    served.rest()
    assert len(body.closed) == 1
    assert body.closed[0].name.startswith("omnicorn-")


BLOCK = b"x" * HIGH_WATER


class Ending:
    """How a request ends: what its response consists of, and what else happens.

    Args:
        blocks: Makes them.
        headers: As the application gives them.
        starts: ``start_response`` is called.
        event: Happens while the next block waits at the gate; or "late", once the thread waits
            for a peer that does not read.
        method: The request's.
        errors: Lines that it costs in the log.
        fails: So does ``close()``.
    """

    def __init__(
        self,
        blocks: Callable[[Gate], Any],
        *headers: tuple[str, str],
        starts: bool = True,
        event: str = "",
        method: str = "GET",
        errors: int = 0,
        fails: bool = False,
    ) -> None:
        self.blocks = blocks
        self.headers = list(headers)
        self.starts = starts
        self.event = event
        self.method = method
        self.errors = errors
        self.fails = fails


def two_with_a_gate_between(gate: Gate) -> Any:
    yield b"one"
    gate()
    yield b"two"


def gate_and_more_than_anybody_reads(gate: Gate) -> Any:
    gate()
    while True:
        yield BLOCK


def one_and_an_error(gate: Gate) -> Any:
    yield b"one"
    raise ValueError("a bug")


def no_blocks(gate: Gate) -> Any:
    return iter(())


class NotIterable:
    def __iter__(self) -> Any:
        raise ValueError("a bug")


ENDINGS = {
    "whole": Ending(lambda gate: [b"one", b"", b"two"]),
    "no block": Ending(no_blocks),
    "empty blocks": Ending(lambda gate: [b"", b""]),
    "one more than announced": Ending(lambda gate: [b"hi", b"!"], LENGTH),
    "less than announced": Ending(lambda gate: [b"h"], LENGTH, errors=1),
    "HEAD": Ending(lambda gate: [b"hi"], LENGTH, method="HEAD"),
    "an error before": Ending(lambda gate: NotIterable(), errors=1),
    "an error within": Ending(one_and_an_error, errors=1),
    "no start_response": Ending(lambda gate: [b"hi"], starts=False, errors=1),
    "no start_response, no block": Ending(no_blocks, starts=False, errors=1),
    "text": Ending(lambda gate: ["hi"], errors=1),
    "a number": Ending(lambda gate: [b"one", 1], errors=1),
    "what cannot be sent": Ending(lambda gate: [b"hi"], ("a b", "x"), errors=1),
    "close fails": Ending(lambda gate: [b"hi"], fails=True, errors=1),
    "close fails after an error": Ending(one_and_an_error, fails=True, errors=1),
    "left before the first block": Ending(gate_and_more_than_anybody_reads, event="reset"),
    "left within": Ending(two_with_a_gate_between, event="reset"),
    "cancelled before the first block": Ending(gate_and_more_than_anybody_reads, event="cancel"),
    "cancelled within": Ending(two_with_a_gate_between, event="cancel"),
    "cancelled while it waits for its peer": Ending(
        gate_and_more_than_anybody_reads, event="cancel late"
    ),
    "left while it waits for its peer": Ending(
        gate_and_more_than_anybody_reads, event="reset late"
    ),
    "the server stops": Ending(two_with_a_gate_between, event="disconnect"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_whatever_ends_a_request_its_iterable_is_closed_once_and_in_its_thread(
    world: Make, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    ending = ENDINGS[name]
    gate = Gate()

    class Body(Closing):
        def close(self) -> None:
            super().close()
            if ending.fails:
                raise ValueError("a bug in close()")

    body = Body(ending.blocks(gate))

    def app(environ: Any, start_response: Any) -> Any:
        if ending.starts:
            start_response("200 OK", ending.headers)
        return body

    served = world(app)
    event, _, late = ending.event.partition(" ")
    if late:
        served.peer.pause()
    served.peer.send(request(ending.method))
    served.loop.run_until_idle()
    if event:
        assert gate.reached.wait(PATIENCE)
        if late:
            gate.open.set()
            served.loop.run_until(lambda: served.wsgi.slow._readers)
        if event == "reset":
            served.peer.reset()
        else:
            getattr(served.service, event)()
        served.loop.run_until_idle()
        gate.open.set()
    served.rest()
    assert body.event.wait(PATIENCE)
    served.wsgi.threads.stop()  # what is left of a request that was given up is over, too
    assert len(body.closed) == 1
    assert body.closed[0].name.startswith("omnicorn-wsgi-")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == ending.errors


def test_exc_info_after_the_head_has_left_is_raised_and_the_response_cut(
    world: Make, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("a bug")

    def blocks(start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"one"
        try:
            raise error
        except ValueError:
            start_response("500 Oh", [], sys.exc_info())
        yield b"never"

    served = world(lambda environ, start_response: blocks(start_response))
    answer = served.fetch()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not answer.endswith(b"0\r\n\r\n")
    assert b"never" not in answer
    [record] = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_a_request_whose_peer_left_while_it_waited_never_runs(world: Make) -> None:
    gate = Gate()
    paths: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        paths.append(environ["PATH_INFO"])
        if environ["PATH_INFO"] == "/first":
            gate()
        start_response("200 OK", [LENGTH])
        return [b"hi"]

    served = world(app, threads=1)
    served.send(request("GET", "/first"))
    assert gate.reached.wait(PATIENCE)
    peers = [served.connect() for _ in range(3)]
    for number, peer in enumerate(peers):
        peer.send(request("GET", f"/{number}"))
    served.loop.run_until_idle()
    assert served.service.active == 4
    peers[1].reset()
    served.loop.run_until_idle()
    assert served.service.active == 3
    gate.open.set()
    served.loop.run_until(lambda: not served.service.active)
    assert paths == ["/first", "/0", "/2"]


def test_past_limit_concurrency_the_answer_is_503(world: Make) -> None:
    gate = Gate()

    def app(environ: Any, start_response: Any) -> Any:
        gate()
        start_response("200 OK", [LENGTH])
        return [b"hi"]

    served = world(app, limit_concurrency=1)
    served.send(request("GET"))
    assert gate.reached.wait(PATIENCE)
    other = served.connect()
    other.send(request("GET"))
    served.loop.run_until_idle()
    assert other.received.startswith(b"HTTP/1.1 503 ")
    gate.open.set()
    assert b"200 OK" in served.rest()


# ---------------------------------------------------------------- errors


def test_an_error_before_the_response_is_a_500_and_logged_once(
    world: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        raise ValueError("a bug")

    served = world(app)
    assert served.fetch("/broken").startswith(b"HTTP/1.1 500 ")
    [record] = caplog.records
    assert record.getMessage() == "GET '/broken': the application failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert served.access.lines == [("/broken", 500, 21)]


def test_an_error_within_the_response_cuts_it(
    world: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"one"
        raise ValueError("a bug")

    served = world(app)
    answer = served.fetch()
    assert b"one" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert served.peer.eof or served.peer.was_reset
    assert len(caplog.records) == 1


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_nothing_that_is_raised_ends_the_thread(
    world: Make, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/bad":
            raise error
        start_response("200 OK", [LENGTH])
        return [b"hi"]

    served = world(app, threads=1)
    assert b" 500 " in served.fetch("/bad")
    assert len(caplog.records) == 1
    served.peer = served.connect()
    assert b" 200 " in served.fetch("/good")


@pytest.mark.parametrize(
    ("headers", "blocks"),
    [
        ([("a b", "x")], [b"hi"]),
        ([("a b", "x")], Closing([b"h", b"i"])),
        ([("Content-Length", "5")], [b"hi"]),
        ([], [1]),
        ([], "text"),
        ([], None),
    ],
)
def test_what_cannot_be_sent_is_a_500_and_logged(
    world: Make, headers: Any, blocks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    served = world(answer(blocks, headers))
    assert served.fetch().startswith(b"HTTP/1.1 500 ")
    assert len(caplog.records) == 1


def test_exc_info_replaces_a_response_that_has_not_left(world: Make) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("X-Ok", "1")])
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oh", [LENGTH], sys.exc_info())
        return [b"oh"]

    served = world(app)
    assert served.fetch() == (b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\noh")


def test_the_validator_is_content(world: Make) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.errors"].write("")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body, b"!"]

    served = world(validator(app))
    assert b"200 OK" in served.fetch("/a?b")
    assert b"abc!" in served.ask(request("POST", "/", body=b"abc"))
    assert b"200 OK" in served.ask(request("PUT", "/", "content-length: 3") + b"ab" + b"c")
    assert b"200 OK" in served.fetch(method="HEAD")


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("sendfile", [True, False])
@pytest.mark.parametrize("size", [0, 5, HIGH_WATER + 1, 1_000_000])
def test_a_file_is_sent_from_where_it_stands(
    world: Make, tmp_path: Path, sendfile: bool, size: int
) -> None:
    path = tmp_path / "file"
    content = bytes(range(256)) * (size // 256 + 1)
    path.write_bytes(b"skipped" + content[:size])
    file = path.open("rb")
    file.seek(7)
    served = world(answer_file(file), sendfile=sendfile)
    answer = served.fetch()
    assert f"content-length: {size}\r\n".encode() in answer
    assert answer.endswith(b"\r\n\r\n" + content[:size])
    assert file.closed
    assert served.access.lines == [("/", 200, size)]


@pytest.mark.parametrize("sendfile", [True, False])
def test_a_file_holds_no_thread_while_it_is_sent(
    world: Make, tmp_path: Path, sendfile: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5_000_000)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        if environ["PATH_INFO"] != "/file":
            return [b"hi"]
        return environ["wsgi.file_wrapper"](path.open("rb"))

    served = world(app, threads=1, sendfile=sendfile)
    slow = [served.connect() for _ in range(3)]
    for peer in slow:
        peer.pause()
        peer.send(request("GET", "/file"))
        assert served.ask(request("GET"), until=lambda: served.peer.received[-2:] == b"hi")
        served.peer = served.connect()
    assert served.service.active == 3
    for peer in slow:
        peer.resume()
    served.loop.run_until_idle()
    assert served.service.active == 0
    assert [peer.received[-5_000_000:] == b"x" * 5_000_000 for peer in slow] == [True] * 3


@pytest.mark.parametrize("sendfile", [True, False])
def test_a_file_that_is_cut_short_meanwhile_cuts_the_response(
    world: Make, tmp_path: Path, sendfile: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200_000)
    file = path.open("rb")
    served = world(answer_file(file), sendfile=sendfile)
    served.loop.hold_blocking = True
    served.peer.pause()
    served.peer.send(request("GET"))
    served.loop.run_until(lambda: file.closed)
    os.truncate(path, 100_000)
    served.peer.resume()
    served.loop.release_blocking()
    served.loop.hold_blocking = False
    answer = served.rest()
    assert len(answer) < 200_000
    assert "bytes too early" in caplog.text


def test_a_file_has_the_length_that_was_announced(world: Make, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200_000)
    served = world(answer_file(path.open("rb"), [("Content-Length", "100000")]), sendfile=True)
    head, _, body = served.fetch().partition(b"\r\n\r\n")
    assert b"content-length: 100000" in head
    assert len(body) == 100_000


def test_a_head_of_a_file_has_its_length_alone(world: Make, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200_000)
    served = world(answer_file(path.open("rb")), sendfile=True)
    answer = served.fetch(method="HEAD")
    assert answer.endswith(b"content-length: 200000\r\n\r\n")


def test_a_peer_that_leaves_in_a_file_closes_it(
    world: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5_000_000)
    file = path.open("rb")
    served = world(answer_file(file), sendfile=True)
    served.peer.pause()
    served.ask(request("GET"), until=lambda: served.peer.transport._unsent)
    served.peer.reset()
    served.rest()
    assert file.closed
    assert caplog.records == []


# ---------------------------------------------------------------- over HTTP/2


def test_requests_of_one_http2_connection_run_side_by_side(world: Make) -> None:
    gate = Gate()

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/slow":
            gate()
        start_response("200 OK", [])
        return [environ["SERVER_PROTOCOL"].encode()]

    served = world(app)
    client: Any = Http2Client(served)
    slow = client.ask("/slow")
    quick = client.ask("/quick")
    served.loop.run_until(lambda: served.service.active == 1)
    client.run()
    assert quick.body == b"HTTP/2"
    gate.open.set()
    served.loop.run_until(lambda: not served.service.active)
    client.run()
    assert slow.body == b"HTTP/2"


def test_an_http2_body_moves_the_windows(world: Make) -> None:
    served = world(echo)
    client: Any = Http2Client(served)
    body = b"x" * 200_000
    reply = client.post("/", body)
    served.loop.run_until(lambda: not served.service.active)
    client.run()
    assert reply.body == body


def test_a_cancelled_http2_stream_ends_its_request(world: Make) -> None:
    from tests.http2_client import reset

    gate = Gate()

    def blocks() -> Any:
        while True:
            gate()
            yield b"more"

    body = Closing(blocks())
    served = world(answer(body))
    client: Any = Http2Client(served)
    client.ask("/")
    assert gate.reached.wait(PATIENCE)
    client.send(reset(client.last))
    client.run()
    gate.open.set()
    served.loop.run_until(lambda: not served.service.active)
    assert len(body.closed) == 1


def test_an_upgrade_to_a_websocket_is_an_ordinary_get(world: Make) -> None:
    served = world(answer([b"hi"], [LENGTH]))
    answer_ = served.fetch(
        "/",
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    assert answer_.startswith(b"HTTP/1.1 200 OK\r\n")


# ---------------------------------------------------------------- the end


def drained(served: World) -> list[bool]:
    over: list[bool] = []
    served.service.drain(lambda: over.append(True))
    served.loop.run_until_idle()
    return over


def test_draining_waits_for_the_exchange(world: Make) -> None:
    gate = Gate()

    def app(environ: Any, start_response: Any) -> Any:
        gate()
        start_response("200 OK", [LENGTH])
        return [b"hi"]

    served = world(app)
    served.send(request("GET"))
    assert gate.reached.wait(PATIENCE)
    over = drained(served)
    assert over == []
    gate.open.set()
    served.loop.run_until(lambda: over)
    assert served.peer.received.endswith(b"\r\nconnection: close\r\n\r\nhi")


def test_who_waits_for_a_body_when_the_server_stops_gets_an_error(
    world: Make, caplog: pytest.LogCaptureFixture
) -> None:
    started = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        started.set()
        return environ["wsgi.input"].read()

    served = world(app)
    served.send(request("POST", "/", f"content-length: {2 * WHOLE}") + b"a" * (WHOLE + 1))
    assert started.wait(PATIENCE)
    over = drained(served)
    served.service.disconnect()
    assert served.rest().startswith(b"HTTP/1.1 503 ")
    served.loop.advance(5.0)
    assert over
    assert caplog.records == []


def test_a_request_whose_body_is_waited_for_when_the_server_stops_is_503(world: Make) -> None:
    served = world(echo)
    served.send(request("POST", "/", "content-length: 5") + b"ab")
    over = drained(served)
    assert over == []
    served.service.disconnect()
    assert served.rest().startswith(b"HTTP/1.1 503 ")
    served.loop.advance(5.0)
    assert over
    assert served.wsgi.threads.count == 0


def test_a_cancelled_request_is_over_though_its_thread_is_not(world: Make) -> None:
    gate = Gate()
    raised: list[BaseException] = []
    left = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [])
        gate()
        try:
            write(b"too late")
        except OSError as error:
            raised.append(error)
        left.set()
        return []

    served = world(app)
    served.send(request("GET"))
    assert gate.reached.wait(PATIENCE)
    over = drained(served)
    served.service.cancel()
    served.loop.run_until_idle()
    assert over == [True]
    assert served.service.active == 0
    gate.open.set()
    assert left.wait(PATIENCE)
    assert isinstance(raised[0], ClientDisconnected)


def test_a_request_leaves_nothing_for_the_garbage_collector(
    world: Make, garbage: Callable[[], list[str]]
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/stream":
            return stream(start_response)
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [body]

    def stream(start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"one"
        yield b"two"

    served = world(app)
    for _ in range(3):
        served.fetch()
        served.fetch("/stream")
        served.ask(request("POST", "/", body=b"abc"))
    assert garbage() == []
    assert gc.isenabled() is False


def test_the_access_log_has_each_request_once(world: Make) -> None:
    served = world(answer(Closing([b"h", b"i"])))
    served.fetch("/a")
    served.fetch("/b")
    assert served.access.lines == [("/a", 200, 2), ("/b", 200, 2)]
