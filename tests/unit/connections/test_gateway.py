"""Connections of front servers: when they write, wait and close, and what they tell."""

from __future__ import annotations

import base64
import logging
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
from tests.frames import text
from tests.gateways import scgi_request, uwsgi_request

from omnicorn.bridge.wsgi import Wsgi
from omnicorn.connections import accept
from omnicorn.connections.bytestream import DRAIN_TIME, LINGER_BYTES, LINGER_TIME
from omnicorn.connections.deadlines import WIDTH
from omnicorn.connections.service import Service, Timeouts
from omnicorn.http.limits import Limits
from omnicorn.ports import HIGH_WATER
from omnicorn.security.trust import TrustedPeers
from omnicorn.transports.inproc import ManualLoop, Peer, connect
from omnicorn.transports.sockets import hold_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Open = Callable[..., "Line"]

HI = b"Status: 200 OK\r\ncontent-length: 2\r\n\r\nhi"
WEBSOCKET: dict[str, Any] = {
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": base64.b64encode(b"x" * 16).decode(),
}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hi"})


class Line:
    """A served application, and one connection of a front."""

    def __init__(self, served: Any, scheme: str, link: dict[str, Any]) -> None:
        self.served = served
        self.service = served.service
        self._connect = accept.gateway(served.service, scheme)
        self._link = link
        served.peer.reset()  # which speaks HTTP
        served.loop.run_until_idle()
        self.peer = self.connect()

    def connect(self) -> Peer:
        return connect(self.served.loop, self._connect(), **self._link)

    def send(self, data: bytes) -> bytes:
        self.peer.send(data)
        return self.run()

    def run(self) -> bytes:
        self.served.loop.run_until_idle()
        return self.peer.take()

    def advance(self, seconds: float) -> bytes:
        self.served.loop.advance(seconds)
        return self.peer.take()

    @property
    def exchange(self) -> Any:
        return self.served.exchange

    @property
    def gone(self) -> bool:
        return self.peer.eof or self.peer.was_reset


@pytest.fixture
def front(serve: Callable[..., Any]) -> Open:
    """``front(app=None, scheme="scgi", link=None, **service_options)``."""

    def make(
        app: Any = None, scheme: str = "scgi", link: dict[str, Any] | None = None, **options: Any
    ) -> Line:
        return Line(serve(app, **options), scheme, link or {})

    return make


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# ---------------------------------------------------------------- responses


def test_a_response_leaves_in_one_write_and_the_connection_ends(front: Open) -> None:
    line = front(hello)

    assert line.send(scgi_request()) == HI
    assert line.peer.writes == [HI]
    assert line.peer.eof and not line.peer.was_reset
    assert not line.service.connections


def test_uwsgi_is_answered_with_a_status_line(front: Open) -> None:
    line = front(hello, "uwsgi")

    assert line.send(uwsgi_request()) == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


def test_a_stream_leaves_piece_by_piece(front: Open) -> None:
    line = front()
    line.send(scgi_request())
    line.exchange.start()
    assert line.run() == b"Status: 200 OK\r\n\r\n"
    line.exchange.body(b"one", True)
    assert line.run() == b"one"
    assert not line.gone
    line.exchange.body(b"two")

    assert line.peer.received.endswith(b"onetwo")
    assert line.peer.eof


def test_a_front_that_does_not_read_makes_the_application_wait(front: Open) -> None:
    line = front()
    line.send(scgi_request())
    line.peer.pause()
    line.exchange.start()
    calls: list[Any] = []
    while not calls or calls[-1].done:
        calls.append(line.exchange.body(b"x" * HIGH_WATER, True))
        assert len(calls) < 10
    line.peer.resume()
    line.run()

    assert calls[-1].done and calls[-1].error is None


def test_a_front_that_never_reads_is_cut(front: Open) -> None:
    line = front(timeouts=Timeouts(write=5.0))
    line.send(scgi_request())
    line.peer.pause()
    line.exchange.start()
    for _ in range(5):
        line.exchange.body(b"x" * HIGH_WATER, True)
    line.advance(5.0 + 2 * WIDTH)

    assert line.gone
    assert not line.service.connections


@pytest.mark.parametrize("head", [3.0, 100.0])
@pytest.mark.parametrize("late", [False, True])
def test_a_front_that_never_reads_the_last_bytes_is_cut(
    front: Open, late: bool, head: float
) -> None:
    line = front(timeouts=Timeouts(head=head, write=5.0))
    line.send(scgi_request())
    if late:  # the deadline of the head is over
        line.advance(head + 2 * WIDTH)
    line.peer.pause()
    line.exchange.start()
    line.exchange.body(b"x" * HIGH_WATER)
    line.run()
    line.advance(5.0 - WIDTH)
    assert line.service.connections

    line.advance(3 * WIDTH)

    assert line.gone
    assert not line.service.connections


def test_an_application_that_fails_is_a_500(front: Open, caplog: pytest.LogCaptureFixture) -> None:
    line = front()
    line.send(scgi_request())
    line.exchange.finish(RuntimeError("on purpose"))

    assert line.peer.received.startswith(b"Status: 500 Internal Server Error\r\n")
    assert line.peer.eof and not line.peer.was_reset
    assert "the application failed" in caplog.text


RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        yield sock


def lingering(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)


def test_a_response_that_breaks_off_ends_in_a_reset(front: Open, sock: socket.socket) -> None:
    line = front(link={"extra": {"socket": sock}})
    line.send(scgi_request())
    line.exchange.start()
    line.exchange.body(b"x", True)
    line.exchange.finish(RuntimeError("on purpose"))

    assert line.gone
    assert lingering(sock) == RESET


def test_of_a_response_that_breaks_off_nothing_more_is_written(
    front: Open, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a part", "more_body": True})
        raise RuntimeError("on purpose")

    line = front(app)

    assert line.send(scgi_request()) == b""
    assert line.peer.writes == []
    assert line.gone


@pytest.mark.parametrize("scheme", ["scgi", "uwsgi"])
def test_a_transport_is_told_when_the_request_is_complete(front: Open, scheme: str) -> None:
    line = front(scheme=scheme)
    request = (scgi_request if scheme == "scgi" else uwsgi_request)(b"content")
    line.run()
    connection: Any = next(iter(line.service.connections))
    assert connection.data_received(request[:9]) is False
    assert connection.data_received(request[9:-1]) is False
    assert connection.data_received(request[-1:]) is True


def test_a_transport_may_ask_whether_an_end_has_to_tell_something(front: Open) -> None:
    service = front().service
    told = {
        scheme: getattr(accept.gateway(service, scheme), "ends_by_closing", False)
        for scheme in ("scgi", "uwsgi", "fastcgi")
    }

    assert told == {"scgi": True, "uwsgi": True, "fastcgi": False}


def test_a_complete_response_asks_for_no_reset(front: Open, sock: socket.socket) -> None:
    line = front(hello, link={"extra": {"socket": sock}})
    line.send(scgi_request())

    assert line.gone
    assert lingering(sock) != RESET


def is_held_back(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) != 0


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="TCP_CORK is Linux's")
def test_a_response_leaves_with_its_end_where_both_come_in_one_go(
    front: Open, sock: socket.socket
) -> None:
    hold_back(sock, True)
    line = front(hello, link={"extra": {"socket": sock}})
    line.send(scgi_request())

    assert line.gone
    assert is_held_back(sock)


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="TCP_CORK is Linux's")
def test_what_comes_before_the_end_is_not_held_back_for_it(
    front: Open, sock: socket.socket
) -> None:
    hold_back(sock, True)
    line = front(link={"extra": {"socket": sock}})
    line.send(scgi_request())
    line.exchange.start()

    assert not is_held_back(sock)


def test_a_file_goes_by_the_kernel(serve: Callable[..., Any], tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": str(path)})

    line = Line(serve(app, sendfile=True), "scgi", {})
    data = line.send(scgi_request())

    assert data == b"Status: 200 OK\r\n\r\n" + b"x" * 100_000
    assert line.peer.eof


# ---------------------------------------------------------------- content


def test_content_reaches_the_application_and_reading_pauses(front: Open) -> None:
    line = front()
    line.send(scgi_request(b"x" * 70_000, CONTENT_LENGTH="70001"))
    reading = [line.peer.transport.is_reading]
    event = line.exchange.receive().result
    assert len(event["body"]) == 70_000 and event["more_body"]
    reading.append(line.peer.transport.is_reading)
    line.send(b"y")

    assert reading == [False, True]
    assert line.exchange.receive().result == {
        "type": "http.request",
        "body": b"y",
        "more_body": False,
    }


def test_an_early_answer_arrives_although_the_content_still_comes(front: Open) -> None:
    line = front()
    line.send(scgi_request(b"x" * 1000, CONTENT_LENGTH="5000000"))
    line.exchange.respond(403, b"no")
    assert line.peer.received.endswith(b"\r\n\r\nno")
    assert line.peer.eof and not line.peer.was_reset
    for _ in range(50):
        line.send(b"x" * 90_000)
    assert not line.peer.was_reset
    line.peer.close()
    line.run()

    assert not line.peer.was_reset
    assert not line.service.connections


def test_the_content_behind_an_early_answer_has_the_time_that_it_would_have_had(
    front: Open,
) -> None:
    line = front(hello, timeouts=Timeouts(body=10.0))
    line.send(scgi_request(b"x", CONTENT_LENGTH="100"))
    for _ in range(9):
        line.advance(9.0)
        line.send(b"x" * 10)
    assert line.service.connections
    line.advance(10.0 + 2 * WIDTH)

    assert not line.service.connections


@pytest.mark.parametrize("scheme", ["scgi", "uwsgi"])
def test_the_content_behind_an_early_answer_may_be_as_much_as_was_said(
    front: Open, scheme: str
) -> None:
    line = front(hello, scheme)
    size = 2 * LINGER_BYTES
    request = scgi_request if scheme == "scgi" else uwsgi_request
    line.send(request(b"x", CONTENT_LENGTH=str(size + 1)))
    for _ in range(size >> 20):
        line.send(b"x" * (1 << 20))
    assert line.service.connections

    # All of it has come: there is little to wait for.
    line.advance(LINGER_TIME + 2 * WIDTH)
    assert not line.service.connections


@pytest.mark.parametrize("size", [1, 5], ids=["with a part of the content", "with all of it"])
def test_an_answer_within_the_segment_counts_what_is_left_of_it(front: Open, size: int) -> None:
    line = front(limit_concurrency=1, timeouts=Timeouts(body=10.0))
    line.send(scgi_request())
    other = line.connect()
    other.send(scgi_request(b"x" * size, CONTENT_LENGTH="5"))
    line.run()
    assert len(line.service.connections) == 2
    line.advance(LINGER_TIME + 2 * WIDTH)

    assert len(line.service.connections) == (2 if size < 5 else 1)


def test_what_comes_behind_the_content_is_bounded(front: Open) -> None:
    line = front(hello)
    line.send(scgi_request(b"x", CONTENT_LENGTH="5"))
    for _ in range(LINGER_BYTES // (1 << 20)):
        line.send(b"x" * (1 << 20))
    assert line.service.connections
    line.send(b"x" * (1 << 20))

    assert not line.service.connections


def test_a_refused_request_is_drained_for_a_bounded_while(front: Open) -> None:
    line = front(hello, limits=Limits(body=10))
    assert line.send(scgi_request(b"x", CONTENT_LENGTH="500")).startswith(b"Status: 413 ")
    assert line.service.connections
    line.advance(LINGER_TIME - WIDTH)
    line.send(b"x" * 100)
    line.advance(3 * WIDTH)

    assert not line.service.connections


def test_the_application_sees_that_the_client_has_left(front: Open) -> None:
    line = front()
    line.send(scgi_request())
    waiting = line.exchange.receive(), line.exchange.receive()
    line.peer.close()
    line.run()

    assert waiting[1].result == {"type": "http.disconnect"}


def test_an_upload_that_breaks_off_is_a_disconnect_and_no_news(
    front: Open, caplog: pytest.LogCaptureFixture
) -> None:
    line = front()
    line.send(scgi_request(b"x", CONTENT_LENGTH="5"))
    line.exchange.receive()
    waiting = line.exchange.receive()
    line.peer.close()
    line.run()

    assert waiting.result == {"type": "http.disconnect"}
    assert warnings(caplog) == []
    line.exchange.finish()
    assert not line.service.connections


# ---------------------------------------------------------------- refusals, deadlines


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "refused with 400: the port speaks SCGI, and this looks like HTTP"),
        (b"99999:", "refused with 431: the request head is too large (limit 1000)"),
        (scgi_request(SCGI="2"), "refused with 400: the variable SCGI is not 1"),
    ],
)
def test_a_refusal_is_answered_and_logged_with_the_front_s_address(
    front: Open, caplog: pytest.LogCaptureFixture, data: bytes, reason: str
) -> None:
    line = front(hello, limits=Limits(head=1000, line=500))
    answer = line.send(data)

    assert answer.startswith(b"Status: 4")
    assert warnings(caplog) == [f"192.0.2.1:50000 - {reason}"]
    assert line.peer.eof and not line.peer.was_reset
    line.advance(LINGER_TIME + 2 * WIDTH)
    assert not line.service.connections


def test_more_content_than_was_said_is_refused_and_the_application_told(
    front: Open, caplog: pytest.LogCaptureFixture
) -> None:
    line = front()
    answer = line.send(scgi_request(b"abc", CONTENT_LENGTH="2", REMOTE_ADDR="192.0.2.9"))

    assert answer.startswith(b"Status: 400 ")
    assert "more content than CONTENT_LENGTH says" in warnings(caplog)[0]
    assert warnings(caplog)[0].startswith("192.0.2.9:0 - ")
    line.exchange.finish()
    assert line.served.access.lines == [("/x", 400, 0)]


def test_a_head_that_breaks_off_is_logged(front: Open, caplog: pytest.LogCaptureFixture) -> None:
    line = front(hello)
    line.send(scgi_request()[:20])
    line.peer.close()

    assert line.run().startswith(b"Status: 400 ")
    assert "the request's head ends too early" in warnings(caplog)[0]


def test_a_probe_that_says_nothing_is_no_news(
    front: Open, caplog: pytest.LogCaptureFixture
) -> None:
    line = front(hello)
    line.peer.close()

    assert line.run() == b""
    assert line.gone and warnings(caplog) == []


@pytest.mark.parametrize(
    ("data", "answer"),
    [(b"", b""), (b"7", b"Status: 408 "), (scgi_request()[:-1], b"Status: 408 ")],
    ids=["silence", "a digit", "all but the comma"],
)
def test_a_head_has_a_time_and_no_byte_prolongs_it(front: Open, data: bytes, answer: bytes) -> None:
    line = front(hello, timeouts=Timeouts(head=10.0))
    line.run()
    line.advance(9.0)
    line.send(data)
    assert not line.gone
    line.advance(1.0 + 2 * WIDTH)

    assert line.peer.received[:12] == answer
    assert line.gone


def test_content_has_a_time_between_its_pieces(front: Open) -> None:
    line = front(timeouts=Timeouts(body=10.0))
    line.send(scgi_request(b"x", CONTENT_LENGTH="5"))
    for _ in range(3):
        line.advance(9.0)
        line.send(b"x")
    assert not line.gone
    line.advance(10.0 + 2 * WIDTH)

    assert line.peer.received.startswith(b"Status: 408 ")


def test_an_application_that_lags_costs_the_front_nothing(front: Open) -> None:
    line = front(timeouts=Timeouts(body=10.0))
    line.send(scgi_request(b"x" * 70_000, CONTENT_LENGTH="70001"))
    line.advance(100.0)
    assert not line.gone
    line.exchange.receive()
    line.send(b"y")
    line.advance(1000.0)
    assert not line.gone
    line.exchange.respond(200, b"hi")

    assert line.peer.received.endswith(b"hi")


def test_too_many_requests_at_once_get_503(front: Open) -> None:
    line = front(limit_concurrency=1)
    line.send(scgi_request())
    other = line.connect()
    other.send(scgi_request())
    line.run()

    assert other.received.startswith(b"Status: 503 Service Unavailable\r\nretry-after: 1\r\n")
    assert other.eof


# ---------------------------------------------------------------- what the application is told


def test_the_scope_is_the_front_s_word(front: Open) -> None:
    line = front()
    line.service.state = {"a": 1}
    line.send(
        scgi_request(
            REQUEST_URI="/app/x%20y?q",
            SCRIPT_NAME="/app",
            PATH_INFO="/x y",
            REMOTE_ADDR="192.0.2.9",
            REMOTE_PORT="1234",
            SERVER_NAME="example.org",
            SERVER_PORT="443",
            HTTPS="on",
            SERVER_PROTOCOL="HTTP/2.0",
        )
    )

    assert line.exchange.scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "2",
        "method": "GET",
        "scheme": "https",
        "path": "/app/x y",
        "raw_path": b"/app/x%20y",
        "query_string": b"q",
        "root_path": "/app",
        "headers": [(b"host", b"example.org")],
        "client": ("192.0.2.9", 1234),
        "server": ("example.org", 443),
        "extensions": {"http.response.pathsend": {}, "http.response.zerocopysend": {}},
        "state": {"a": 1},
    }
    assert line.exchange.scope["state"] is not line.service.state


def test_a_configured_root_path_stands_in_the_path_once(front: Open) -> None:
    line = front(root_path="/app")
    for target in ("/app/x", "/x", "/app/x"):
        peer = line.connect()
        peer.send(scgi_request(REQUEST_URI=target))
        line.run()
        scope = line.exchange.scope
        assert (scope["root_path"], scope["path"], scope["raw_path"]) == (
            "/app",
            "/app/x",
            b"/app/x",
        )


def test_forwarding_fields_count_where_the_front_s_peer_is_trusted(front: Open) -> None:
    line = front(trusted=TrustedPeers(["192.0.2.9"]))
    seen = []
    for peer in ("192.0.2.9", "192.0.2.10"):
        connection = line.connect()
        connection.send(
            scgi_request(
                REMOTE_ADDR=peer,
                HTTP_X_FORWARDED_FOR="203.0.113.1",
                HTTP_X_FORWARDED_PROTO="https",
            )
        )
        line.run()
        seen.append((line.exchange.scope["client"], line.exchange.scope["scheme"]))

    assert seen == [(("203.0.113.1", 0), "https"), (("192.0.2.10", 0), "http")]


def test_the_access_log_has_a_line_for_each_request(front: Open) -> None:
    line = front(hello)
    line.send(scgi_request())

    assert line.served.access.lines == [("/x", 200, 2)]


# ---------------------------------------------------------------- WebSockets


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


@pytest.mark.parametrize("scheme", ["scgi", "uwsgi"])
def test_a_websocket_takes_the_connection_over(front: Open, scheme: str) -> None:
    line = front(echo, scheme)
    answer = line.send((scgi_request if scheme == "scgi" else uwsgi_request)(**WEBSOCKET))
    first = b"Status: 101 " if scheme == "scgi" else b"HTTP/1.1 101 "

    assert answer.startswith(first + b"Switching Protocols\r\nconnection: Upgrade\r\n")
    assert b"sec-websocket-accept: " in answer
    assert line.send(text("hello")) == b"\x81\x05hello"
    assert line.served.access.lines == [("/x", 101, 0)]


@pytest.mark.parametrize("scheme", ["scgi", "uwsgi"])
def test_frames_that_come_with_the_handshake_are_read(front: Open, scheme: str) -> None:
    line = front(echo, scheme)
    request = (scgi_request if scheme == "scgi" else uwsgi_request)(**WEBSOCKET)

    assert line.send(request + text("a") + text("b")).endswith(b"\r\n\r\n\x81\x01a\x81\x01b")


def test_what_comes_with_a_handshake_that_is_refused_is_dropped(front: Open) -> None:
    line = front()
    line.send(scgi_request(**WEBSOCKET) + text("hello"))
    line.exchange.receive()
    line.exchange.send({"type": "websocket.close"})

    assert line.peer.received.startswith(b"Status: 403 ")
    assert line.peer.eof and not line.peer.was_reset


def test_a_websocket_s_scope_is_the_front_s_word(front: Open) -> None:
    line = front()
    line.send(
        scgi_request(HTTPS="on", SCRIPT_NAME="/a", REQUEST_URI="/a/x", PATH_INFO="/x", **WEBSOCKET)
    )
    scope = line.exchange.scope

    assert (scope["type"], scope["scheme"]) == ("websocket", "wss")
    assert (scope["root_path"], scope["path"]) == ("/a", "/a/x")


def test_a_handshake_that_cannot_be_is_refused(front: Open) -> None:
    line = front(echo)
    answer = line.send(scgi_request(**WEBSOCKET | {"HTTP_SEC_WEBSOCKET_VERSION": "12"}))

    assert answer.startswith(b"Status: 426 Upgrade Required\r\nsec-websocket-version: 13\r\n")
    assert line.peer.eof


def test_without_websockets_it_is_an_ordinary_request(front: Open) -> None:
    line = front(hello, websockets=None)

    assert line.send(scgi_request(**WEBSOCKET)) == HI


# ---------------------------------------------------------------- the end of the server


def test_a_request_in_progress_is_answered_while_the_server_drains(front: Open) -> None:
    line = front()
    idle: list[bool] = []
    line.send(scgi_request())
    line.service.drain(lambda: idle.append(True))
    line.run()
    assert not idle
    line.exchange.respond(200, b"hi")
    line.exchange.finish()

    assert line.peer.received == HI
    assert idle


def test_a_request_that_is_about_to_come_is_answered_while_the_server_drains(front: Open) -> None:
    line = front(hello)
    idle: list[bool] = []
    line.run()
    line.service.drain(lambda: idle.append(True))
    line.run()
    assert not line.gone

    assert line.send(scgi_request()) == HI
    assert idle


def test_a_silent_connection_delays_the_drain_by_a_moment(front: Open) -> None:
    line = front(hello)
    idle: list[bool] = []
    line.run()
    line.service.drain(lambda: idle.append(True))
    line.advance(DRAIN_TIME + 2 * WIDTH)

    assert line.gone and idle


def test_applications_are_told_that_the_server_stops(front: Open) -> None:
    line = front()
    line.send(scgi_request())
    line.exchange.receive()
    waiting = line.exchange.receive()
    line.service.disconnect()
    line.run()

    assert waiting.result == {"type": "http.disconnect"}


def test_a_connection_that_is_over_leaves_nothing_for_the_garbage_collector(
    front: Open, garbage: Callable[[], list[str]]
) -> None:
    line = front(hello)
    garbage()
    for data in (scgi_request(), b"GET / HTTP/1.1\r\n", scgi_request(b"a", CONTENT_LENGTH="9")):
        peer = line.connect()
        peer.send(data)
        line.run()
        line.advance(20.0)
        del peer

    assert [name for name in garbage() if "Gateway" in name or "Engine" in name] == []


@pytest.mark.parametrize(
    ("configured", "said"),
    [
        ("", {"SCRIPT_NAME": "/app", "PATH_INFO": "/caf\xc3\xa9"}),
        ("/app", {}),
        ("/app", {"REQUEST_URI": "/caf%C3%A9"}),  # the front has taken the prefix away
    ],
)
def test_a_wsgi_application_is_told_where_it_is_mounted_once(
    configured: str, said: dict[str, str]
) -> None:
    told: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        told.append(environ)
        start_response("200 OK", [])
        return [b"hi"]

    loop = ManualLoop()
    port: Any = loop
    wsgi = Wsgi(app, port, 1, configured)
    nobody: Any = app
    service = Service(nobody, port, root_path=configured, wsgi=wsgi)
    peer = connect(loop, accept.gateway(service, "scgi")())
    try:
        peer.send(scgi_request(**{"REQUEST_URI": "/app/caf%C3%A9?q", **said}))
        loop.run_until(lambda: told and not service.active)
    finally:
        wsgi.threads.stop()

    [environ] = told
    assert environ["SCRIPT_NAME"] == "/app"
    assert environ["PATH_INFO"] == "/caf\xc3\xa9"
    assert environ["REQUEST_URI"].startswith("/app/caf%C3%A9")
    assert peer.take().endswith(b"\r\n\r\nhi")
