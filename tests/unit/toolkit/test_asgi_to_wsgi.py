from __future__ import annotations

import asyncio
import contextvars
import gc
import http.client
import io
import logging
import os
import sys
import threading
import weakref
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.toolkit.asgi_to_wsgi import AsgiToWsgi, build_scope
from omnicorn.toolkit.wsgi import AsgiToWsgi as ReExported
from omnicorn.toolkit.wsgi import WsgiToAsgi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Wrap = Callable[..., AsgiToWsgi]

Event = dict[str, Any]
Environ = dict[str, Any]
DISCONNECT = {"type": "http.disconnect"}


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Event:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, more: bool = False) -> Event:
    return {"type": "http.response.body", "body": data, "more_body": more}


@pytest.fixture
def wrap() -> Iterator[Wrap]:
    """Make applications that are closed at the end of the test."""
    made: list[AsgiToWsgi] = []

    def make(app: Any) -> AsgiToWsgi:
        made.append(AsgiToWsgi(app))
        return made[-1]

    yield make
    for application in made:
        application.close()


def make_environ(data: bytes = b"", source: Any = None, **changes: Any) -> Environ:
    environ: Environ = {"wsgi.input": source or io.BytesIO(data), "SERVER_PROTOCOL": "HTTP/1.1"}
    setup_testing_defaults(environ)
    if data:
        environ["CONTENT_LENGTH"] = str(len(data))
    environ.update(changes)
    return environ


class Call:
    """A request to a WSGI application, and what was answered."""

    def __init__(self, app: Any, environ: Environ | None = None) -> None:
        self.starts: list[Any] = []
        self.iterable = app(environ or make_environ(), lambda *args: self.starts.append(args))

    @property
    def status(self) -> str:
        ((status, _),) = self.starts
        return str(status)

    @property
    def headers(self) -> list[tuple[str, str]]:
        ((_, headers),) = self.starts
        return list(headers)

    def read(self) -> bytes:
        """All content, as a server reads it."""
        try:
            return b"".join(self.iterable)
        finally:
            if hasattr(self.iterable, "close"):
                self.iterable.close()


async def hello(scope: Event, receive: Any, send: Any) -> None:
    await send(start(200, (b"content-type", b"text/plain")))
    await send(body(b"hello"))


async def echo(scope: Event, receive: Any, send: Any) -> None:
    await send(start(200, (b"content-type", b"text/plain")))
    more = True
    while more:
        event = await receive()
        more = event["more_body"]
        await send(body(event["body"], more))


# ---------------------------------------------------------------------------- scope


def test_an_environ_becomes_a_scope() -> None:
    scope = build_scope(
        {
            "REQUEST_METHOD": "post",
            "SCRIPT_NAME": "/base",
            "PATH_INFO": "/a b",
            "QUERY_STRING": "q=\xc3\xa4",
            "SERVER_PROTOCOL": "HTTP/1.0",
            "SERVER_NAME": "example.com",
            "SERVER_PORT": "8000",
            "REMOTE_ADDR": "203.0.113.7",
            "REMOTE_PORT": "40000",
            "CONTENT_TYPE": "text/plain",
            "CONTENT_LENGTH": "",
            "HTTP_X_NAME": "\xe4",
            "HTTP_CONTENT_LENGTH": "7",
            "wsgi.url_scheme": "https",
        }
    )

    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.0",
        "method": "POST",
        "scheme": "https",
        "path": "/base/a b",
        "query_string": b"q=\xc3\xa4",
        "root_path": "/base",
        "headers": [(b"content-type", b"text/plain"), (b"x-name", b"\xe4")],
        "client": ("203.0.113.7", 40000),
        "server": ("example.com", 8000),
        "extensions": {},
    }


def test_paths_are_decoded_as_utf_8() -> None:
    native = "/ä".encode().decode("latin-1")
    scope = build_scope(make_environ(SCRIPT_NAME=native, PATH_INFO="/\xff"))

    assert scope["root_path"] == "/ä"
    assert scope["path"] == "/ä/\ufffd"


def test_an_empty_path_is_a_slash() -> None:
    assert build_scope(make_environ(SCRIPT_NAME="", PATH_INFO=""))["path"] == "/"


@pytest.mark.parametrize(
    ("target", "raw_path"),
    [
        ("/a%20b?x=1", b"/a%20b"),
        ("/a", b"/a"),
        ("http://example.com/a%2Fb?x", b"/a%2Fb"),
        ("http://example.com", b"/"),
        ("*", b"*"),
        ("/a://b", b"/a://b"),
    ],
)
@pytest.mark.parametrize("variable", ["REQUEST_URI", "RAW_URI"])
def test_the_raw_path_is_known_where_the_server_tells(
    variable: str, target: str, raw_path: bytes
) -> None:
    assert build_scope({**make_environ(), variable: target})["raw_path"] == raw_path


def test_the_raw_path_is_left_out_where_it_is_unknown() -> None:
    assert "raw_path" not in build_scope(make_environ())


@pytest.mark.parametrize(
    ("protocol", "version"),
    [("HTTP/1.0", "1.0"), ("HTTP/1.1", "1.1"), ("HTTP/2.0", "2"), ("HTTP/2", "2"), ("", "1.1")],
)
def test_versions_of_http(protocol: str, version: str) -> None:
    assert build_scope(make_environ(SERVER_PROTOCOL=protocol))["http_version"] == version


def test_addresses_that_are_not_known_whole() -> None:
    assert build_scope(make_environ())["client"] is None
    assert build_scope(make_environ(REMOTE_ADDR="::1"))["client"] == ("::1", 0)
    unix = make_environ(SERVER_NAME="/run/app.sock", SERVER_PORT="0")
    assert build_scope(unix)["server"] == ("/run/app.sock", None)


# ---------------------------------------------------------------------------- request bodies


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 300000])
def test_a_body_is_given_whole(wrap: Wrap, size: int) -> None:
    data = os.urandom(size)

    assert Call(wrap(echo), make_environ(data)).read() == data


def test_a_body_without_a_length_is_empty_unless_the_server_ends_it(wrap: Wrap) -> None:
    app = wrap(echo)
    environ = make_environ(source=io.BytesIO(b"data"))

    assert Call(app, environ).read() == b""
    assert Call(app, {**environ, "wsgi.input_terminated": True}).read() == b"data"


class Input:
    """``wsgi.input`` that tells what is read."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = list(pieces)
        self.reads: list[int] = []

    def read(self, size: int) -> bytes:
        self.reads.append(size)
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece


def test_no_more_is_read_than_was_announced(wrap: Wrap) -> None:
    """The server may not end its input, and reading on would wait for ever."""
    source = Input(b"x" * 65536, b"y" * 4464)
    environ = make_environ(source=source, CONTENT_LENGTH="70000")

    assert len(Call(wrap(echo), environ).read()) == 70000
    assert source.reads == [65536, 4464]


def test_a_large_body_is_not_read_before_it_is_asked_for(wrap: Wrap) -> None:
    source = Input()
    environ = make_environ(source=source, CONTENT_LENGTH="70000")

    assert Call(wrap(hello), environ).read() == b"hello"
    assert source.reads == []


def test_a_client_that_waits_for_100_continue_is_not_told_by_reading(wrap: Wrap) -> None:
    source = Input()
    environ = make_environ(source=source, CONTENT_LENGTH="3", HTTP_EXPECT="100-continue")

    assert Call(wrap(hello), environ).read() == b"hello"
    assert source.reads == []


@pytest.mark.parametrize("end", [b"", ConnectionResetError("gone")])
@pytest.mark.parametrize("length", ["10", "70000"])
def test_a_body_that_breaks_off_is_a_disconnect(wrap: Wrap, end: Any, length: str) -> None:
    events: list[Event] = []

    async def app(scope: Event, receive: Any, send: Any) -> None:
        while not events or events[-1]["type"] == "http.request":
            events.append(await receive())
        events.append(await receive())

    environ = make_environ(source=Input(b"abc", end), CONTENT_LENGTH=length)
    with pytest.raises(RuntimeError, match="without a response"):
        Call(wrap(app), environ)

    assert events == [
        {"type": "http.request", "body": b"abc", "more_body": True},
        DISCONNECT,
        DISCONNECT,
    ]


def test_a_cancelled_receive_loses_nothing(wrap: Wrap) -> None:
    reading = threading.Event()
    go_on = threading.Event()

    class Slow(Input):
        def read(self, size: int) -> bytes:
            reading.set()
            assert go_on.wait(10)
            return super().read(size)

    async def app(scope: Event, receive: Any, send: Any) -> None:
        first = asyncio.ensure_future(receive())
        while not reading.is_set():
            await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set()
        event = await receive()
        await send(start())
        await send(body(event["body"]))

    environ = make_environ(source=Slow(b"x" * 70000), CONTENT_LENGTH="70000")

    assert Call(wrap(app), environ).read() == b"x" * 70000


# ---------------------------------------------------------------------------- responses


def test_a_short_response_is_a_list_of_one(wrap: Wrap) -> None:
    """So that the server can tell its length."""
    call = Call(wrap(hello))

    assert call.status == "200 OK"
    assert call.headers == [("content-type", "text/plain")]
    assert call.iterable == [b"hello"]


def test_the_class_is_found_beside_its_opposite() -> None:
    assert ReExported is AsgiToWsgi


@pytest.mark.parametrize(
    ("status", "line"), [(404, "404 Not Found"), (599, "599 Unknown"), (204, "204 No Content")]
)
def test_status_lines(wrap: Wrap, status: int, line: str) -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body"})

    call = Call(wrap(app))

    assert call.status == line
    assert call.iterable == []


def test_headers_are_latin_1_and_keep_their_order(wrap: Wrap) -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start(200, (b"x-b", b"\xe4"), (b"set-cookie", b"1"), (b"set-cookie", b"2")))
        await send(body(b""))

    assert Call(wrap(app)).headers == [("x-b", "\xe4"), ("set-cookie", "1"), ("set-cookie", "2")]


def test_headers_of_the_connection_are_left_to_the_server(wrap: Wrap) -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start(200, (b"transfer-encoding", b"chunked"), (b"Connection", b"close")))
        await send(body(b""))

    assert Call(wrap(app)).headers == []


def test_blocks_are_returned_as_they_are_sent(wrap: Wrap) -> None:
    may_send = [threading.Event() for _ in range(3)]

    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"", True))
        for number, event in enumerate(may_send):
            await asyncio.to_thread(event.wait, 10)
            await send(body(b"%d" % number, number < 2))

    may_send[0].set()
    call = Call(wrap(app))
    blocks = iter(call.iterable)
    got = []
    for event in (*may_send[1:], None):
        got.append(next(blocks))
        if event is not None:
            event.set()

    assert got == [b"0", b"1", b"2"]
    assert list(blocks) == []


def test_nothing_is_started_before_there_is_content(wrap: Wrap) -> None:
    """Until then an error can still become the server's own response."""

    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"", True))
        raise LookupError("broken")

    starts: list[Any] = []
    with pytest.raises(LookupError, match="broken"):
        wrap(app)(make_environ(), lambda *args: starts.append(args))

    assert starts == []


def test_send_waits_while_too_much_was_not_taken(wrap: Wrap) -> None:
    sent: list[int] = []
    blocked = threading.Event()

    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start())
        for number in range(100):
            if number == 17:
                # Only reached once the server has taken what waits.
                blocked.set()
            await send(body(b"x" * 4096, number < 99))
            sent.append(number)

    call = Call(wrap(app))
    blocks = iter(call.iterable)
    next(blocks)
    # Sixteen blocks of 4 KiB are 64 KiB; the one after waits. It can only wait, or have gone wrong.
    for _ in range(20):
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop_of(call)).result(10)

    assert len(sent) == 16
    assert not blocked.is_set()
    assert sum(map(len, blocks)) == 99 * 4096
    assert blocked.is_set()


def loop_of(call: Call) -> Any:
    return call.iterable._request._loop


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_that_has_no_content_sends_none(wrap: Wrap, method: str, status: int) -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start(status, (b"etag", b"1")))
        await send(body(b"x" * 100000, True))
        await send(body(b"y"))

    call = Call(wrap(app), make_environ(REQUEST_METHOD=method))

    assert call.headers == [("etag", "1")]
    assert call.read() == b""


def test_what_follows_a_complete_response_is_ignored(wrap: Wrap) -> None:
    done = threading.Event()

    async def app(scope: Event, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await send(body(b"more"))
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        assert await receive() == DISCONNECT
        done.set()

    assert Call(wrap(app)).read() == b"hello"
    assert done.wait(10)


# ---------------------------------------------------------------------------- errors


def test_an_error_before_the_response_is_raised_to_the_server(wrap: Wrap) -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        Call(wrap(app))


def test_an_error_in_the_middle_is_raised_to_the_server(wrap: Wrap) -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"x", True))
        raise LookupError("broken")

    call = Call(wrap(app))
    blocks = iter(call.iterable)

    assert next(blocks) == b"x"
    with pytest.raises(LookupError, match="broken"):
        next(blocks)
    assert list(blocks) == []


def test_an_error_after_the_response_is_logged(
    wrap: Wrap, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        raise LookupError("too late")

    with caplog.at_level(logging.ERROR, "asyncio"):
        application = wrap(app)
        assert Call(application).read() == b"hello"
        application.close()
        gc.collect()

    (record,) = caplog.records
    assert record.exc_info
    assert str(record.exc_info[1]) == "too late"


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "returned without a response"),
        ([start()], "returned in the middle of its response"),
        ([start(), start()], "start was sent twice"),
        ([body(b"")], "body was sent before http.response.start"),
        ([{"type": "http.response.push"}], "'http.response.push' cannot be sent here"),
        ([{"type": "websocket.accept"}], "'websocket.accept' cannot be sent here"),
    ],
)
def test_what_breaks_the_order_of_messages_is_explained(
    wrap: Wrap, events: list[Event], message: str
) -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        for event in events:
            await send(event)

    with pytest.raises((RuntimeError, ValueError), match=message):
        Call(wrap(app))


def test_an_application_that_cancels_itself_is_explained(wrap: Wrap) -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="was cancelled before its response ended"):
        Call(wrap(app))


def test_a_start_response_that_refuses_cancels_the_application(wrap: Wrap) -> None:
    cancelled = threading.Event()

    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start())
        try:
            await send(body(b"x", True))
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def refuse(*args: Any) -> None:
        raise LookupError("refused")

    with pytest.raises(LookupError, match="refused"):
        wrap(app)(make_environ(), refuse)
    assert cancelled.wait(10)


# ---------------------------------------------------------------------------- the end


def test_close_cancels_an_application_in_the_middle_of_its_response(wrap: Wrap) -> None:
    ended: list[str] = []
    done = threading.Event()

    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start())
        try:
            while True:
                await send(body(b"tick", True))
        except asyncio.CancelledError:
            ended.append("cancelled")
            assert await receive() == DISCONNECT
            with pytest.raises(OSError, match="given up"):
                await send(body(b"late"))
            done.set()
            raise

    call = Call(wrap(app))
    assert next(iter(call.iterable)) == b"tick"
    call.iterable.close()
    call.iterable.close()

    assert done.wait(10)
    assert ended == ["cancelled"]
    assert list(call.iterable) == []


def test_close_leaves_an_application_alone_whose_response_is_complete(wrap: Wrap) -> None:
    """Work in the background follows many a response."""
    go_on = threading.Event()
    done = threading.Event()

    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"a", True))
        await send(body(b"b"))
        await asyncio.to_thread(go_on.wait, 10)
        done.set()

    call = Call(wrap(app))
    assert call.read() == b"ab"
    go_on.set()

    assert done.wait(10)


def test_close_tells_those_that_still_receive(wrap: Wrap) -> None:
    """As a task of the application that outlives it."""
    events: list[Event] = []
    done = threading.Event()
    tasks = []

    async def app(scope: Event, receive: Any, send: Any) -> None:
        async def listen() -> None:
            events.append(await receive())
            done.set()

        await send(start())
        await send(body(b"x", True))
        # The server has its block, and nobody reads the body.
        tasks.append(asyncio.create_task(listen()))
        await asyncio.Event().wait()

    environ = make_environ(source=Input(), CONTENT_LENGTH="70000")
    call = Call(wrap(app), environ)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop_of(call)).result(10)
    call.iterable.close()

    assert done.wait(10)
    assert events == [DISCONNECT]


def test_work_after_the_response_is_not_collected(wrap: Wrap) -> None:
    references: list[weakref.ref[Any]] = []
    waiting = threading.Event()

    async def app(scope: Event, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        references.append(weakref.ref(asyncio.current_task()))
        asyncio.get_running_loop().call_soon(waiting.set)
        await asyncio.Event().wait()  # which nobody else knows

    assert Call(wrap(app)).read() == b"hello"
    assert waiting.wait(10)
    gc.collect()

    assert references[0]() is not None


def test_an_interrupted_server_cancels_the_application(wrap: Wrap) -> None:
    """As by a signal that raises SystemExit where the server's thread waits."""
    cancelled = threading.Event()

    async def app(scope: Event, receive: Any, send: Any) -> None:
        try:
            await receive()
        finally:
            cancelled.set()

    class Interrupted(Input):
        def read(self, size: int) -> bytes:
            raise SystemExit

    environ = make_environ(source=Interrupted(), CONTENT_LENGTH="70000")
    with pytest.raises(SystemExit):
        Call(wrap(app), environ)
    assert cancelled.wait(10)


def test_a_closed_application_serves_no_more(wrap: Wrap) -> None:
    application = wrap(hello)
    assert Call(application).read() == b"hello"
    application.close()
    application.close()

    with pytest.raises(RuntimeError, match="is closed"):
        Call(application)


def test_closing_ends_requests_that_run(wrap: Wrap) -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"x", True))
        await asyncio.Event().wait()

    application = wrap(app)
    call = Call(application)
    blocks = iter(call.iterable)
    assert next(blocks) == b"x"
    application.close()

    with pytest.raises(RuntimeError, match="was cancelled"):
        next(blocks)
    call.iterable.close()


def test_a_dropped_application_ends_its_thread() -> None:
    application = AsgiToWsgi(hello)
    assert Call(application).read() == b"hello"
    assert application._loop_thread is not None
    thread = application._loop_thread._thread
    reference = weakref.ref(application)
    del application
    gc.collect()

    assert reference() is None
    thread.join(10)
    assert not thread.is_alive()


# ---------------------------------------------------------------------------- the loop


def test_all_requests_run_in_one_loop_at_the_same_time(wrap: Wrap) -> None:
    loops = set()
    waiting: list[asyncio.Event] = []

    async def app(scope: Event, receive: Any, send: Any) -> None:
        loops.add(asyncio.get_running_loop())
        waiting.append(asyncio.Event())
        if len(waiting) == 4:  # else nobody goes on
            for event in waiting:
                event.set()
        await waiting[-1 if len(waiting) == 4 else len(waiting) - 1].wait()
        await hello(scope, receive, send)

    application = wrap(app)
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(Call(application).read())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert results == [b"hello"] * 4
    assert len(loops) == 1


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_context_variables_reach_the_application(wrap: Wrap) -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(variable.get().encode()))

    application = wrap(app)
    context = contextvars.copy_context()
    context.run(variable.set, "set")

    assert context.run(lambda: Call(application).read()) == b"set"
    assert Call(application).read() == b"unset"


def test_it_can_be_called_where_a_loop_runs(wrap: Wrap) -> None:
    application = wrap(hello)

    async def main() -> bytes:
        return Call(application).read()

    assert asyncio.run(main()) == b"hello"


def test_an_asgi_2_application_is_served(wrap: Wrap) -> None:
    class App:
        def __init__(self, scope: Event) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            await hello(self.scope, receive, send)

    assert Call(wrap(App)).read() == b"hello"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_gets_a_loop_of_its_own(wrap: Wrap) -> None:
    application = wrap(hello)
    assert Call(application).read() == b"hello"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            os.write(writer, Call(application).read())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert file.read() == b"hello"
    os.waitpid(child, 0)
    assert Call(application).read() == b"hello"


# ---------------------------------------------------------------------------- wsgiref


@pytest.mark.parametrize("app", [hello, echo])
@pytest.mark.parametrize("data", [b"", b"data", b"x" * 200000])
def test_the_validator_has_no_objections(wrap: Wrap, app: Any, data: bytes) -> None:
    environ = make_environ(data)
    environ["REQUEST_METHOD"] = "POST"
    environ["QUERY_STRING"] = ""
    call = Call(validator(wrap(app)), environ)

    assert call.read() == (data if app is echo else b"hello")


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class ThreadedServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


@contextmanager
def live(app: Any) -> Iterator[http.client.HTTPConnection]:
    """`wsgiref.simple_server` on a loopback socket."""
    with make_server("127.0.0.1", 0, app, ThreadedServer, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        try:
            yield connection
        finally:
            connection.close()
            server.shutdown()
            thread.join()


def test_wsgirefs_server_serves_it(wrap: Wrap) -> None:
    data = os.urandom(200000)
    with live(validator(wrap(echo))) as connection:
        connection.request("POST", "/a?b=c", data)
        response = connection.getresponse()

        assert response.status == 200
        assert response.getheader("content-type") == "text/plain"
        assert response.read() == data


def test_wsgirefs_server_answers_an_error_with_500(
    wrap: Wrap, capsys: pytest.CaptureFixture[str]
) -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        raise LookupError("broken")

    with live(wrap(app)) as connection:
        connection.request("GET", "/")
        response = connection.getresponse()

        assert response.status == 500
        response.read()
    assert "LookupError: broken" in capsys.readouterr().err


def test_a_client_that_leaves_cancels_the_application(
    wrap: Wrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = threading.Event()

    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(start(200, (b"content-type", b"text/plain")))
        try:
            while True:
                await send(body(b"x" * 60000, True))
        finally:
            cancelled.set()

    monkeypatch.setattr(sys, "stderr", io.StringIO())  # wsgiref tells of it there
    with live(wrap(app)) as connection:
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.read(1000) == b"x" * 1000
        response.close()
        connection.close()

        assert cancelled.wait(10)


# ---------------------------------------------------------------------------- frameworks


def test_a_starlette_application_is_served(wrap: Wrap) -> None:
    starlette = pytest.importorskip("starlette.applications")
    from starlette.background import BackgroundTask
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Mount, Route

    ran = threading.Event()

    async def describe(request: Any) -> JSONResponse:
        values = {"path": request.url.path, "body": (await request.body()).decode()}
        return JSONResponse(values, background=BackgroundTask(ran.set))

    async def stream(request: Any) -> StreamingResponse:
        return StreamingResponse(str(number) for number in range(3))

    app = starlette.Starlette(
        routes=[
            Mount("/sub", routes=[Route("/describe", describe, methods=["POST"])]),
            Route("/stream", stream),
        ]
    )
    application = wrap(app)

    posted = Call(
        application,
        make_environ(
            b"data", REQUEST_METHOD="POST", SCRIPT_NAME="/base", PATH_INFO="/sub/describe"
        ),
    )
    assert posted.read() == b'{"path":"/base/sub/describe","body":"data"}'
    assert ran.wait(10)
    assert Call(application, make_environ(PATH_INFO="/stream")).read() == b"012"
    assert Call(application, make_environ(PATH_INFO="/none")).status == "404 Not Found"


# ---------------------------------------------------------------------------- round trips

token = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8).filter(
    lambda name: is_plain(name)
)
value = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12
).map(lambda text: text.strip().encode("latin-1"))


def is_plain(name: str) -> bool:
    """A header that means nothing to WSGI."""
    return name not in ("te", "trailers", "upgrade", "connection", "cookie", "expect")


def headers_of(names: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    return st.lists(st.tuples(names.map(str.encode), value), max_size=5)


requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "POST", "PUT", "OPTIONS", "X-OWN"]),
        "scheme": st.sampled_from(["http", "https"]),
        "http_version": st.sampled_from(["1.0", "1.1", "2", "3"]),
        "path": st.text(st.characters(exclude_categories=["Cs"]), max_size=10).map("/".__add__),
        "raw_path": st.binary(max_size=6).map(lambda data: b"/" + data.replace(b"?", b"")),
        "query_string": st.binary(max_size=10),
        "headers": headers_of(token).map(
            lambda headers: list({name.upper(): (name, text) for name, text in headers}.values())
        ),
        "client": st.tuples(st.just("203.0.113.7"), st.integers(0, 65535)) | st.none(),
        "server": st.sampled_from([("example.com", 80), ("/run/a.sock", None)]),
    }
)


@given(
    request=requests,
    pieces=st.lists(st.binary(max_size=50), min_size=1, max_size=4),
    status=st.integers(200, 599),
    headers=headers_of(token.filter(lambda name: name != "content-length")),
    blocks=st.lists(st.binary(max_size=50), min_size=1, max_size=4),
)
def test_there_and_back_an_application_is_what_it_was(
    request: Event,
    pieces: list[bytes],
    status: int,
    headers: list[tuple[bytes, bytes]],
    blocks: list[bytes],
) -> None:
    """WsgiToAsgi(AsgiToWsgi(app)) is app."""
    seen: list[Any] = []

    async def app(scope: Event, receive: Any, send: Any) -> None:
        data = b""
        more = True
        while more:
            event = await receive()
            data += event["body"]
            more = event["more_body"]
        seen.append((scope, data))
        await send(start(status, *headers))
        for number, block in enumerate(blocks):
            await send(body(block, number < len(blocks) - 1))

    def exchange(application: Any) -> tuple[int, Any, bytes]:
        events = [
            {"type": "http.request", "body": data, "more_body": number < len(pieces) - 1}
            for number, data in enumerate(pieces)
        ]
        sent: list[Event] = []

        async def receive() -> Event:
            return events.pop(0)

        async def send(event: Event) -> None:
            sent.append(event)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "root_path": "",
            "extensions": {},
            **request,
        }
        asyncio.run(application(scope, receive, send))
        content = b"".join(event.get("body", b"") for event in sent[1:])
        return sent[0]["status"], sent[0]["headers"], content

    there = AsgiToWsgi(app)
    try:
        expected = exchange(app)
        if status in (204, 304):
            expected = (*expected[:2], b"")  # what a server makes of it
        assert exchange(WsgiToAsgi(there)) == expected
    finally:
        there.close()

    (scope, data), (scope_again, data_again) = seen
    assert data_again == data
    again = dict(scope_again["headers"])
    if data and b"content-length" not in dict(scope["headers"]):
        again.pop(b"content-length", None)  # known, so told
    assert again == dict(scope["headers"])
    assert {**scope_again, "headers": None} == {**scope, "headers": None}
