from __future__ import annotations

import asyncio
import contextvars
import io
import os
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

import pytest
import trio
from tests.wsgi_apps import Environ, Response, Start, answer, answer_file, http_scope

from omnicorn.toolkit.sync import sync_to_async
from omnicorn.toolkit.threads import set_thread_limit
from omnicorn.toolkit.wsgi import WsgiToAsgi, WsgiToAsgiInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from omnicorn.asgi import HTTPScope

LAST = {"type": "http.response.body"}


def piece(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


DISCONNECT = {"type": "http.disconnect"}


class Server:
    """What an ASGI server gives to an application for one request, and what it got."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.events = list(events or (piece(b""),))
        self.received = 0
        self.sent: list[dict[str, Any]] = []
        self.fails_at: int | None = None
        self.on_send: Callable[[dict[str, Any]], Any] = lambda event: None

    async def receive(self) -> dict[str, Any]:
        self.received += 1
        if self.events:
            return self.events.pop(0)
        if sys.modules["trio"].lowlevel.in_trio_task():
            await trio.sleep_forever()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, event: dict[str, Any]) -> None:
        if len(self.sent) == self.fails_at:
            raise ConnectionResetError("the peer is gone")
        self.sent.append(event)
        waited = self.on_send(event)
        if waited is not None:
            await waited

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = self.sent[0]["headers"]
        return headers

    @property
    def blocks(self) -> list[bytes]:
        return [event["body"] for event in self.sent[1:] if "body" in event]


def serve(
    app: Any, *events: dict[str, Any], options: dict[str, Any] | None = None, **changes: Any
) -> Server:
    """One request, whole, on asyncio."""
    server = Server(*events)
    application = WsgiToAsgi(app, **(options or {}))
    asyncio.run(application(http_scope(**changes), server.receive, server.send))
    return server


# ---------------------------------------------------------------------------- the request body


def read_in(*steps: Callable[[Any], Any]) -> tuple[Any, list[Any]]:
    results: list[Any] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        results.extend(step(environ["wsgi.input"]) for step in steps)
        start_response("204 No Content", [])
        return []

    return app, results


def test_an_empty_body_is_empty() -> None:
    app, results = read_in(lambda body: body.read(), lambda body: body.readline())
    serve(app)

    assert results == [b"", b""]


def test_a_body_is_received_as_it_is_read() -> None:
    server = Server(piece(b"one", True), piece(b"two", True), piece(b"three"))
    received: list[int] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        body = environ["wsgi.input"]
        for size in (3, 1, 2, 100):
            assert body.read(size)
            received.append(server.received)
        start_response("200 OK", [])
        return []

    asyncio.run(WsgiToAsgi(app)(http_scope(), server.receive, server.send))

    assert received == [1, 2, 2, 3]


def test_a_body_that_is_not_read_is_not_received() -> None:
    server = Server(*(piece(b"x" * 1000, True) for _ in range(50)))
    asyncio.run(WsgiToAsgi(answer([]))(http_scope(), server.receive, server.send))

    assert server.received == 1


def test_a_client_that_waits_for_100_continue_waits_for_the_application_to_read() -> None:
    server = Server(piece(b"abc"))
    seen: list[Any] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        seen.append(server.received)
        seen.append(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return []

    scope = http_scope(headers=[(b"Expect", b"100-continue")])
    asyncio.run(WsgiToAsgi(app)(scope, server.receive, server.send))

    assert seen == [0, b"abc"]


def test_empty_pieces_do_not_end_a_body() -> None:
    app, results = read_in(lambda body: body.read())
    serve(app, piece(b"", True), piece(b"a", True), piece(b"", True), piece(b"b", True), piece(b""))

    assert results == [b"ab"]


def test_a_disconnect_in_the_body_raises_an_oserror_in_read() -> None:
    raised: list[OSError] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        body = environ["wsgi.input"]
        assert body.read(3) == b"abc"
        for _ in range(2):
            try:
                body.read()
            except OSError as error:
                raised.append(error)
        raise raised[0]

    server = serve(app, piece(b"abc", True), DISCONNECT)

    assert [str(error) for error in raised] == ["the client left in the middle of its request"] * 2
    assert server.sent == []


def test_a_request_that_never_came_is_not_run() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        raise AssertionError("called")

    assert serve(app, DISCONNECT).sent == []


def test_the_size_of_a_body_that_is_all_there_is_known() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [])
        return [environ.get("CONTENT_LENGTH", "none").encode()]

    assert serve(app, piece(b"abcd")).blocks == [b"4"]
    assert serve(app, piece(b"")).blocks == [b"none"]
    assert serve(app, piece(b"abcd", True), piece(b"")).blocks == [b"none"]


@pytest.mark.parametrize("size", [10, 65536, 65537, 300000])
def test_a_spooled_body_is_all_there_and_can_seek(size: int) -> None:
    data = os.urandom(size)
    server = Server(*(piece(data[at : at + 7000], True) for at in range(0, size, 7000)), piece(b""))
    kept: list[Any] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        body = environ["wsgi.input"]
        kept.extend((server.events, body._rolled if hasattr(body, "_rolled") else False, body))
        assert body.read() == data
        body.seek(0)
        assert body.read() == data
        assert environ["CONTENT_LENGTH"] == str(size)
        start_response("200 OK", [])
        return []

    asyncio.run(WsgiToAsgi(app, spool=True)(http_scope(), server.receive, server.send))

    assert server.status == 200
    events, rolled, body = kept
    assert events == []
    assert rolled is (size > 65536)
    assert body.closed


def test_a_spooled_body_that_breaks_off_is_not_run() -> None:
    server = serve(
        answer([]),
        piece(b"x" * 70000, True),
        piece(b"y", True),
        DISCONNECT,
        options={"spool": True},
    )

    assert server.sent == []


# ---------------------------------------------------------------------------- the response


def test_the_messages_of_a_response() -> None:
    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response(
            "201 Created", [("X-Colour", "Blue"), ("Set-Cookie", "a"), ("Set-Cookie", "b")]
        )
        yield b"one"
        yield b"two"

    assert serve(app).sent == [
        {
            "type": "http.response.start",
            "status": 201,
            "headers": [(b"x-colour", b"Blue"), (b"set-cookie", b"a"), (b"set-cookie", b"b")],
        },
        {"type": "http.response.body", "body": b"one", "more_body": True},
        {"type": "http.response.body", "body": b"two", "more_body": True},
        LAST,
    ]


@pytest.mark.parametrize("blocks", [[], [b""], (b"", b""), iter([]), iter([b"", b""])])
def test_a_response_without_content_has_a_head_and_an_end(blocks: Any) -> None:
    assert serve(answer(blocks)).sent == [
        {"type": "http.response.start", "status": 200, "headers": []},
        LAST,
    ]


def test_the_thread_waits_until_send_returned() -> None:
    steps: list[str] = []

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        for name in ("a", "b"):
            steps.append(f"make {name}")
            yield name.encode()

    async def main() -> None:
        server = Server()

        async def slowly(event: dict[str, Any]) -> None:
            if event.get("body"):
                # Time for the thread to go wrong in, if it does not wait.
                for _ in range(50):
                    await asyncio.sleep(0)
                steps.append(f"sent {event['body'].decode()}")

        server.on_send = slowly
        await WsgiToAsgi(app)(http_scope(), server.receive, server.send)

    asyncio.run(main())

    assert steps == ["make a", "sent a", "make b", "sent b"]


def test_a_list_costs_no_trip_back_to_the_loop() -> None:
    trips = count_trips(answer([b"a", b"b"], [("Content-Length", "2")]))

    assert trips == 0


def test_each_block_costs_one_trip_and_the_end_another() -> None:
    assert count_trips(answer(iter([b"a", b"b", b"c"]))) == 4
    # Here the last block is known to be the last.
    assert count_trips(answer(iter([b"a", b"b", b"c"]), [("Content-Length", "3")])) == 3


def count_trips(app: Any) -> int:
    """Callbacks that the application's thread gave to the loop."""
    trips: list[str] = []
    caller = threading.get_ident()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        original = loop.call_soon_threadsafe

        def counted(callback: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != caller and "Link" in repr(callback):
                trips.append(repr(callback))
            return original(callback, *args, **kwargs)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]
        server = Server()
        await WsgiToAsgi(app)(http_scope(), server.receive, server.send)
        assert server.sent[-1] == LAST

    asyncio.run(main())
    return len(trips)


def test_an_error_of_a_message_comes_out_and_closes_what_was_returned() -> None:
    response = Response([b"a", b"b", b"c"])
    server = Server()
    server.fails_at = 2
    with pytest.raises(ConnectionResetError, match="the peer is gone"):
        asyncio.run(WsgiToAsgi(answer(response))(http_scope(), server.receive, server.send))

    assert response.closed == 1
    assert server.blocks == [b"a"]


def test_an_error_of_the_last_message_comes_out() -> None:
    response = Response([b"a"])
    server = Server()
    server.fails_at = 2
    with pytest.raises(ConnectionResetError, match="the peer is gone"):
        asyncio.run(WsgiToAsgi(answer(response))(http_scope(), server.receive, server.send))

    assert response.closed == 1


@pytest.mark.parametrize("version", ["2.0", "2.3"])
def test_an_endless_response_ends_when_the_client_leaves_though_send_keeps_silent(
    version: str,
) -> None:
    """Before spec 2.4 only `receive` tells."""
    left = threading.Event()

    def forever() -> Iterator[bytes]:
        while True:
            yield b"tick"

    response = Response(forever())

    async def main() -> None:
        server = Server()
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if server.events:
                return server.events.pop(0)
            await gone.wait()
            return DISCONNECT

        server.on_send = lambda event: gone.set() if len(server.sent) == 5 else None
        scope = http_scope(asgi={"version": "3.0", "spec_version": version})
        await WsgiToAsgi(answer(response))(scope, receive, server.send)
        left.set()

    asyncio.run(main())

    assert left.is_set()
    assert response.closed == 1


def test_nobody_waits_for_a_client_to_leave() -> None:
    """Listening for it ends with the response."""

    async def main() -> None:
        server = Server()
        scope = http_scope(asgi={"version": "3.0"})
        await WsgiToAsgi(answer(iter([b"a", b"b"])))(scope, server.receive, server.send)
        assert server.blocks == [b"a", b"b"]
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=10)
        assert all(task.done() for task in others)

    async def trio_main() -> None:
        server = Server()
        scope = http_scope(asgi={"version": "3.0"})
        await WsgiToAsgi(answer(iter([b"a", b"b"])))(scope, server.receive, server.send)
        assert server.blocks == [b"a", b"b"]

    asyncio.run(main())
    trio.run(trio_main)


def test_a_receive_that_repeats_itself_does_not_hold_up_a_response() -> None:
    """As in simple test doubles."""
    server = Server()

    async def receive() -> dict[str, Any]:
        return piece(b"")

    async def main() -> None:
        scope = http_scope(asgi={"version": "3.0"})
        await WsgiToAsgi(answer(iter([b"a", b"b"])))(scope, receive, server.send)

    asyncio.run(main())

    assert server.blocks == [b"a", b"b"]


# ---------------------------------------------------------------------------- cancellation


@pytest.mark.parametrize("thread_sensitive", [False, True])
def test_cancellation_ends_a_thread_that_sends(thread_sensitive: bool) -> None:
    response = Response(iter([b"a", b"b"]))
    application = WsgiToAsgi(answer(response), thread_sensitive=thread_sensitive)

    async def main() -> None:
        server = Server()
        sending = asyncio.Event()

        async def never(event: dict[str, Any]) -> None:
            sending.set()
            await asyncio.Event().wait()

        server.on_send = never
        task = asyncio.create_task(application(http_scope(), server.receive, server.send))
        await sending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(response.is_closed.wait, 10)

    asyncio.run(main())

    assert response.closed == 1


def test_cancellation_ends_a_thread_that_reads() -> None:
    raised: list[BaseException] = []
    ended = threading.Event()

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            raised.append(error)
        ended.set()
        return []

    async def main() -> None:
        server = Server(piece(b"a", True))
        reading = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if not server.events:
                reading.set()
            return await server.receive()

        task = asyncio.create_task(WsgiToAsgi(app)(http_scope(), receive, server.send))
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, 10)

    asyncio.run(main())

    assert "the request is over" in str(raised[0])


@pytest.mark.parametrize("library", ["asyncio", "trio"])
@pytest.mark.parametrize("thread_sensitive", [False, True])
def test_an_application_that_swallows_all_does_not_swallow_the_cancellation(
    library: str, thread_sensitive: bool
) -> None:
    raised: list[BaseException] = []
    reading, ended = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        assert environ["wsgi.input"].read(1) == b"a"
        try:
            environ["wsgi.input"].read()
        except BaseException as error:
            raised.append(error)
        start_response("200 OK", [])
        ended.set()
        return [b"as if nothing was"]

    server = Server(piece(b"a", True))
    application = WsgiToAsgi(app, thread_sensitive=thread_sensitive)

    async def receive() -> dict[str, Any]:
        if server.events:
            return await server.receive()
        reading.set()
        await (trio.sleep_forever() if library == "trio" else asyncio.Event().wait())
        raise AssertionError

    async def on_asyncio() -> bool:
        task = asyncio.create_task(application(http_scope(), receive, server.send))
        assert await asyncio.to_thread(reading.wait, 10)
        task.cancel()
        await asyncio.wait((task,))
        return task.cancelled()

    async def on_trio() -> bool:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(application, http_scope(), receive, server.send)
                assert await trio.to_thread.run_sync(reading.wait, 10)
                scope.cancel()
        return scope.cancelled_caught

    assert trio.run(on_trio) if library == "trio" else asyncio.run(on_asyncio())
    assert ended.wait(10)
    assert isinstance(raised[0], OSError)
    assert "the request is over" in str(raised[0])
    assert server.sent == []


def test_a_thread_that_computes_while_its_request_is_cancelled_finds_out_later() -> None:
    computing = threading.Event()
    go_on = threading.Event()
    closed = threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        try:
            computing.set()
            assert go_on.wait(10)
            start_response("200 OK", [])
            yield b"x"
            raise AssertionError("was sent")
        finally:
            closed.set()

    async def main() -> None:
        server = Server()
        task = asyncio.create_task(WsgiToAsgi(app)(http_scope(), server.receive, server.send))
        assert await asyncio.to_thread(computing.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        assert await asyncio.to_thread(closed.wait, 10)
        assert server.sent == []

    asyncio.run(main())


# ---------------------------------------------------------------------------- errors, threads


def test_an_error_of_the_application_reaches_the_server() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        serve(app)


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_other_scopes_are_refused(kind: str) -> None:
    server = Server()
    with pytest.raises(ValueError, match=f"a non-HTTP scope, '{kind}'"):
        asyncio.run(WsgiToAsgi(answer([]))({"type": kind}, server.receive, server.send))


def test_too_many_duplicates_are_a_bad_request() -> None:
    headers = [(b"x-a", b"1")] * 101

    assert serve(answer([]), headers=headers).sent == [
        {
            "type": "http.response.start",
            "status": 400,
            "headers": [(b"content-type", b"text/plain")],
        },
        {"type": "http.response.body", "body": b"Bad Request: Too many duplicate headers"},
    ]
    assert serve(answer([]), headers=headers[:100]).status == 200
    assert (
        serve(answer([]), headers=headers, options={"duplicate_header_limit": None}).status == 200
    )
    assert WsgiToAsgi(answer([]), 5).duplicate_header_limit == 5


def test_requests_run_at_the_same_time() -> None:
    barrier = threading.Barrier(4, timeout=10)

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        barrier.wait()  # broken unless four are here
        start_response("200 OK", [])
        return []

    async def main() -> list[int]:
        application = WsgiToAsgi(app)
        servers = [Server() for _ in range(4)]
        await asyncio.gather(
            *(application(http_scope(), server.receive, server.send) for server in servers)
        )
        return [server.status for server in servers]

    assert asyncio.run(main()) == [200] * 4


def test_thread_sensitive_requests_share_a_thread() -> None:
    threads: set[int] = set()

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        threads.add(threading.get_ident())
        start_response("200 OK", [])
        yield b"x"

    async def main() -> None:
        application = WsgiToAsgi(app, thread_sensitive=True)
        servers = [Server() for _ in range(5)]
        await asyncio.gather(
            *(application(http_scope(), server.receive, server.send) for server in servers)
        )
        assert all(server.blocks == [b"x"] for server in servers)

    asyncio.run(main())

    assert len(threads) == 1


@pytest.mark.parametrize("thread_sensitive", [False, True])
def test_sending_may_need_the_threads_that_wait_for_it(thread_sensitive: bool) -> None:
    """As middleware does that calls sync code whenever something is sent."""

    async def main() -> list[bytes]:
        app = answer(iter([b"a", b"b"]))
        application = WsgiToAsgi(app, thread_sensitive=thread_sensitive)
        server = Server()
        server.on_send = lambda event: sync_to_async(
            threading.get_ident, thread_sensitive=thread_sensitive
        )()
        await application(http_scope(), server.receive, server.send)
        return server.blocks

    set_thread_limit(1)
    try:
        assert asyncio.run(main()) == [b"a", b"b"]
        assert trio.run(main) == [b"a", b"b"]
    finally:
        set_thread_limit(None)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_context_variables_reach_the_application_and_come_back() -> None:
    async def main() -> tuple[list[bytes], str]:
        variable.set("from the server")

        def app(environ: Environ, start_response: Start) -> list[bytes]:
            start_response("200 OK", [])
            value = variable.get().encode()
            variable.set("from the application")
            return [value]

        server = Server()
        await WsgiToAsgi(app)(http_scope(), server.receive, server.send)
        return server.blocks, variable.get()

    assert asyncio.run(main()) == ([b"from the server"], "from the application")


def test_an_instance_builds_environs_by_itself() -> None:
    scope = http_scope(root_path="/base", path="/base/foo/")

    environ = WsgiToAsgiInstance(answer([])).build_environ(scope, None)

    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/base", "/foo/")


def test_an_instance_can_be_extended() -> None:
    class Instance(WsgiToAsgiInstance):
        def build_environ(self, scope: HTTPScope, body: Any) -> Environ:
            return {**super().build_environ(scope, body), "own.key": scope["path"]}

        def start_response(self, status: str, response_headers: Any, exc_info: Any = None) -> Any:
            return super().start_response(status, [*response_headers, ("X-Own", "1")], exc_info)

        async def run_wsgi_app(self, body: Any) -> None:
            await super().run_wsgi_app(io.BytesIO(body.read().upper()))

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["own.key"].encode(), environ["wsgi.input"].read()]

    server = Server(piece(b"abc"))
    asyncio.run(Instance(app)(http_scope(path="/x"), server.receive, server.send))

    assert server.headers == [(b"x-own", b"1")]
    assert server.blocks == [b"/x", b"ABC"]


# ---------------------------------------------------------------------------- files

ZEROCOPY: dict[str, Any] = {"http.response.zerocopysend": {}}
PATHSEND: dict[str, Any] = {"http.response.pathsend": {}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def test_a_file_is_sent_by_its_descriptor(path: Path) -> None:
    file = path.open("rb")
    number = file.fileno()
    server = serve(answer_file(file), extensions={**ZEROCOPY, **PATHSEND})

    assert server.headers == [(b"content-length", b"10")]
    assert server.sent[1:] == [
        {"type": "http.response.zerocopysend", "file": number, "offset": 0, "count": 10}
    ]
    assert file.closed


def test_a_file_is_open_until_it_was_sent(path: Path) -> None:
    file = path.open("rb")
    open_while_sending: list[bool] = []

    async def main() -> None:
        server = Server()

        async def slowly(event: dict[str, Any]) -> None:
            for _ in range(20):
                await asyncio.sleep(0)
            open_while_sending.append(not file.closed)

        server.on_send = slowly
        scope = http_scope(extensions=ZEROCOPY)
        await WsgiToAsgi(answer_file(file))(scope, server.receive, server.send)

    asyncio.run(main())

    assert open_while_sending == [True, True]
    assert file.closed


def test_a_file_is_sent_by_its_path(path: Path) -> None:
    server = serve(answer_file(path.open("rb")), extensions=PATHSEND)

    assert server.headers == [(b"content-length", b"10")]
    assert server.sent[1:] == [{"type": "http.response.pathsend", "path": str(path)}]


def test_a_part_of_a_file_is_not_sent_by_its_path(path: Path) -> None:
    app = answer_file(path.open("rb"), [("Content-Length", "4")])

    assert serve(app, extensions=PATHSEND).blocks == [b"0123"]


def test_without_extensions_a_file_is_read(path: Path) -> None:
    file = path.open("rb")

    assert serve(answer_file(file)).blocks == [b"0123456789"]
    assert file.closed


# ---------------------------------------------------------------------------- wsgiref.validate


def shape_list(environ: Environ, start_response: Start) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"he", b"llo"]


def shape_generator(environ: Environ, start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b""
    yield b"he"
    yield b"llo"


def shape_write(environ: Environ, start_response: Start) -> Any:
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"he")
    return [b"llo"]


def shape_empty(environ: Environ, start_response: Start) -> Any:
    start_response("204 No Content", [])
    return []


def shape_echo(environ: Environ, start_response: Start) -> Any:
    body = environ["wsgi.input"]
    data = body.read(1) + body.readline() + b"".join(body.readlines(3)) + b"".join(body)
    environ["wsgi.errors"].write("")
    environ["wsgi.errors"].flush()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Response([data + body.read(10)])


def shape_error(environ: Environ, start_response: Start) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        raise LookupError
    except LookupError:
        start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"oops"]


@pytest.mark.parametrize(
    ("app", "status", "body"),
    [
        (shape_list, 200, b"hello"),
        (shape_generator, 200, b"hello"),
        (shape_write, 200, b"hello"),
        (shape_empty, 204, b""),
        (shape_echo, 200, b"first\nsecond\nthird\nfourth"),
        (shape_error, 500, b"oops"),
    ],
)
@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.parametrize("validated", [False, True])
def test_applications_of_every_shape_are_served_as_the_validator_demands(
    app: Any, status: int, body: bytes, spool: bool, validated: bool
) -> None:
    """The validator checks environ, input, errors, start_response, iteration and close."""
    pieces = [piece(b"first\n", True), piece(b"second\nthi", True), piece(b"rd\nfourth")]
    server = serve(
        validator(app) if validated else app,
        *pieces,
        options={"spool": spool},
        method="POST",
        root_path="/base",
        path="/base/ä",
        headers=[(b"content-type", b"text/plain"), (b"content-length", b"25"), (b"x-a", b"\xff")],
    )

    assert server.status == status
    assert b"".join(server.blocks) == body


def test_the_validator_objects_to_a_bad_application() -> None:
    """So the test above can fail."""
    with pytest.raises(AssertionError):
        serve(validator(answer([b"no content-type"])))


# ---------------------------------------------------------------------------- frameworks


def test_a_flask_application_is_served() -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("test")

    @app.post("/echo/<name>")  # type: ignore[untyped-decorator]
    def echo(name: str) -> Any:
        response = flask.jsonify(name=name, form=flask.request.form, args=flask.request.args)
        response.set_cookie("a", "1")
        return response

    @app.get("/stream")  # type: ignore[untyped-decorator]
    def stream() -> Any:
        return flask.Response(flask.stream_with_context(str(n) for n in range(3)))

    server = serve(
        app,
        piece(b"x=%C3", True),
        piece(b"%A4"),
        method="POST",
        path="/echo/ä",
        query_string=b"q=1",
        headers=[(b"content-type", b"application/x-www-form-urlencoded")],  # chunked
    )
    assert flask.json.loads(b"".join(server.blocks)) == {
        "name": "ä",
        "form": {"x": "ä"},
        "args": {"q": "1"},
    }
    assert (b"set-cookie", b"a=1; Path=/") in server.headers
    assert serve(app, path="/stream").blocks == [b"0", b"1", b"2"]
    head = serve(app, path="/stream", method="HEAD")
    assert (head.status, head.blocks) == (200, [])


def test_a_file_of_flask_is_sent_by_its_descriptor(path: Path) -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("test")

    @app.get("/file")  # type: ignore[untyped-decorator]
    def file() -> Any:
        return flask.send_file(path)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        server = serve(app, path="/file", extensions=ZEROCOPY)

    assert server.sent[1]["type"] == "http.response.zerocopysend"
    assert server.sent[1]["count"] == 10


DJANGO = """
import asyncio, sys
from django.conf import settings
settings.configure(ROOT_URLCONF="__main__", SECRET_KEY="-", ALLOWED_HOSTS=["*"])
import django
django.setup()
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import path
from omnicorn.toolkit.wsgi import WsgiToAsgi

def echo(request):
    return HttpResponse(request.GET["q"].encode() + request.POST["x"].encode())

def stream(request):
    return StreamingHttpResponse(iter([b"a", b"b"]))

def file(request):
    return FileResponse(open(sys.argv[1], "rb"))

urlpatterns = [path("echo/", echo), path("stream/", stream), path("file/", file)]

def serve(**changes):
    async def receive():
        return {"type": "http.request", "body": b"x=%C3%B6"}

    async def send(event):
        sent.append(event)

    sent = []
    scope = {"type": "http", "http_version": "1.1", "method": "GET", "query_string": b"",
             "headers": [(b"host", b"example.com")], **changes}
    asyncio.run(application(scope, receive, send))
    return sent

application = WsgiToAsgi(get_wsgi_application())
form = (b"content-type", b"application/x-www-form-urlencoded")
echoed = serve(path="/echo/", method="POST", headers=[form], query_string="q=ä".encode())
assert echoed[1]["body"] == "äö".encode(), echoed
streamed = serve(path="/stream/")
assert [event["body"] for event in streamed[1:-1]] == [b"a", b"b"], streamed
sent = serve(path="/file/", extensions={"http.response.zerocopysend": {}})
assert sent[1]["count"] == 10, sent
assert serve(path="/none/")[0]["status"] == 404
"""


def test_a_django_application_is_served(path: Path) -> None:
    """In a process of its own: Django is configured once."""
    pytest.importorskip("django")
    done = subprocess.run(
        [sys.executable, "-c", DJANGO, path], capture_output=True, text=True, timeout=50
    )

    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------- trio


def test_trio_serves_all_of_it(path: Path) -> None:
    response = Response([b"two", b"three"])

    def app(environ: Environ, start_response: Start) -> Any:
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])(body)
        return response

    async def main() -> None:
        server = Server(piece(b"o", True), piece(b"ne"))
        await WsgiToAsgi(app)(http_scope(), server.receive, server.send)
        assert server.blocks == [b"one", b"two", b"three"]
        assert server.sent[-1] == LAST

        listed = Server()
        await WsgiToAsgi(answer([b"x"]))(http_scope(), listed.receive, listed.send)
        assert listed.blocks == [b"x"]

        filed = Server()
        scope = http_scope(extensions=PATHSEND)
        await WsgiToAsgi(answer_file(path.open("rb")))(scope, filed.receive, filed.send)
        assert filed.sent[-1]["path"] == str(path)

    trio.run(main)

    assert response.closed == 1


def test_trio_gets_errors_as_they_are() -> None:
    """Not in an exception group."""

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"x"
        raise LookupError("broken")

    server = Server()
    with pytest.raises(LookupError, match="broken"):
        trio.run(WsgiToAsgi(app), http_scope(), server.receive, server.send)

    server = Server()
    server.fails_at = 1
    with pytest.raises(ConnectionResetError):
        trio.run(WsgiToAsgi(answer(iter([b"x"]))), http_scope(), server.receive, server.send)


def test_trio_cancels_a_request() -> None:
    response = Response(iter([b"a", b"b"]))

    async def main() -> None:
        server = Server()
        sending = trio.Event()

        async def never(event: dict[str, Any]) -> None:
            sending.set()
            await trio.sleep_forever()

        server.on_send = never
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                WsgiToAsgi(answer(response)), http_scope(), server.receive, server.send
            )
            await sending.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)

    assert response.is_closed.wait(10)
    assert response.closed == 1


def test_trio_ends_an_endless_response_when_the_client_leaves() -> None:
    def forever() -> Iterator[bytes]:
        while True:
            yield b"tick"

    response = Response(forever())

    async def main() -> None:
        server = Server()
        gone = trio.Event()

        async def receive() -> dict[str, Any]:
            if server.events:
                return server.events.pop(0)
            await gone.wait()
            return DISCONNECT

        server.on_send = lambda event: gone.set() if len(server.sent) == 5 else None
        await WsgiToAsgi(answer(response))(http_scope(asgi={}), receive, server.send)

    trio.run(main)

    assert response.closed == 1
