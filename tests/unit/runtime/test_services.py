"""What each option makes of connections, looked at in memory, where a timeout costs no time."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from tests.frames import (
    ACCEPT,
    BINARY,
    HANDSHAKE,
    PING,
    SWITCHED,
    closed,
    frame,
    frames,
    text,
)
from tests.stage import LIBRARIES, client_of, perform, turns

from omnicorn.config import Config
from omnicorn.connections.http1 import Http1Connection
from omnicorn.errors import ConfigError
from omnicorn.runtime.server import Server
from omnicorn.runtime.services import make_service
from omnicorn.transports.inproc import ManualLoop, Peer, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.stage import Play, Stage

    from omnicorn.connections.service import Service

    Options = dict[str, Any]


class Memory:
    """A service made of options, on a clock moved by hand; its application, its clients."""

    def __init__(self, **options: Any) -> None:
        self.loop = ManualLoop()
        self.scopes: list[dict[str, Any]] = []
        loop: Any = self.loop
        self.service: Service = make_service(self.app, loop, Config(**options), None)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["path"] == "/hold":
            await self.loop.create_future()
        while (await receive()).get("more_body"):
            pass
        body = b"x" * (4 << 20) if scope["path"] == "/large" else b"ok"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def connect(self, host: str = "192.0.2.1") -> Peer:
        return connect(self.loop, Http1Connection(self.service), peername=(host, 50000))

    def ask(self, data: bytes, host: str = "192.0.2.1") -> bytes:
        peer = self.connect(host)
        peer.send(data)
        self.loop.run_until_idle()
        return peer.take()


@pytest.fixture
def memory() -> Iterator[Callable[..., Memory]]:
    made: list[Memory] = []

    def make(**options: Any) -> Memory:
        made.append(Memory(**options))
        return made[-1]

    yield make
    for each in made:
        each.service.cancel()
        each.loop.run_until_idle()


def request(path: str = "/", *fields: str, body: bytes = b"") -> bytes:
    method = "POST" if body else "GET"
    lines = [f"{method} {path} HTTP/1.1", "host: test", *fields]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def status_of(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("options", "within", "beyond", "status"),
    [
        ({"limit_request_line": 40}, request("/" + "a" * 20), request("/" + "a" * 40), 414),
        (
            {"limit_request_head": 200},
            request("/", "a: " + "b" * 100),
            request("/", "a: " + "b" * 200),
            431,
        ),
        ({"limit_request_fields": 2}, request("/", "a: b"), request("/", "a: b", "c: d"), 431),
        ({"limit_request_body": 4}, request(body=b"1234"), request(body=b"12345"), 413),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_peer_may_send_is_limited(
    memory: Callable[..., Memory], options: Options, within: bytes, beyond: bytes, status: int
) -> None:
    limited = memory(**options)
    assert status_of(limited.ask(within)) == 200
    assert status_of(limited.ask(beyond)) == status
    assert status_of(memory().ask(beyond)) == 200


def test_strict_transport_security_is_sent_where_it_is_configured(
    memory: Callable[..., Memory],
) -> None:
    strict = memory(dev_tls=True, hsts="max-age=60; preload").ask(request())
    assert b"\r\nstrict-transport-security: max-age=60; preload\r\n" in strict
    assert b"strict-transport" not in memory(dev_tls=True).ask(request())


def test_beyond_the_concurrency_limit_requests_get_503(memory: Callable[..., Memory]) -> None:
    limited = memory(limit_concurrency=1)
    assert limited.ask(request("/hold")) == b""
    assert status_of(limited.ask(request())) == 503

    unlimited = memory()
    assert unlimited.ask(request("/hold")) == b""
    assert status_of(unlimited.ask(request())) == 200


@pytest.mark.parametrize(
    ("options", "sent", "waits"),
    [
        ({"timeout_request_head": 2.0}, b"GET / HT", 2.0),
        ({"timeout_body": 3.0}, b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\n1", 3.0),
        ({"timeout_keep_alive": 4.0}, request(), 4.0),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_silent_peer_is_waited_for_as_long_as_configured(
    memory: Callable[..., Memory], options: Options, sent: bytes, waits: float
) -> None:
    patient = memory(**options)
    peer = patient.connect()
    peer.send(sent)
    patient.loop.run_until_idle()
    patient.loop.advance(waits - 0.1)
    assert not peer.eof
    patient.loop.advance(0.6)  # a deadline is kept to within a quarter of a second
    assert peer.eof


def test_a_peer_that_does_not_read_is_cut_when_its_time_is_over(
    memory: Callable[..., Memory],
) -> None:
    patient = memory(timeout_write=5.0)
    peer = patient.connect()
    peer.pause()
    peer.send(request("/large"))
    patient.loop.run_until_idle()
    patient.loop.advance(4.9)
    assert len(patient.service.connections) == 1
    patient.loop.advance(0.6)
    assert len(patient.service.connections) == 0


def test_the_root_path_is_in_the_scope(memory: Callable[..., Memory]) -> None:
    mounted = memory(root_path="/api")
    mounted.ask(request("/users"))
    assert mounted.scopes[0]["root_path"] == "/api"


@pytest.mark.parametrize(
    ("options", "client", "scheme"),
    [
        ({}, "203.0.113.7", "https"),
        ({"forwarded_allow_ips": ("127.0.0.0/8",)}, "203.0.113.7", "https"),
        ({"forwarded_allow_ips": ("192.0.2.9",)}, "127.0.0.1", "http"),
        ({"forwarded_allow_ips": ()}, "127.0.0.1", "http"),
        ({"proxy_headers": False}, "127.0.0.1", "http"),
    ],
)
def test_the_headers_of_trusted_proxies_alone_are_believed(
    memory: Callable[..., Memory], options: Options, client: str, scheme: str
) -> None:
    behind = memory(**options)
    fields = ("x-forwarded-for: 203.0.113.7", "x-forwarded-proto: https")
    behind.ask(request("/", *fields), "127.0.0.1")
    (scope,) = behind.scopes
    assert (scope["client"][0], scope["scheme"]) == (client, scheme)


def test_server_date_and_further_headers_are_sent_as_configured(
    memory: Callable[..., Memory],
) -> None:
    def names(**options: Any) -> set[bytes]:
        head = memory(**options).ask(request()).lower().partition(b"\r\n\r\n")[0]
        return {line.partition(b":")[0] for line in head.split(b"\r\n")[1:]}

    assert {b"server", b"date"} <= names()
    assert names() - names(server_header=False) == {b"server"}
    assert names() - names(date_header=False) == {b"date"}

    answer = memory(headers=(("X-Frame", "d\xe9ny"), ("x-two", "2"))).ask(request())
    assert b"\r\nx-frame: d\xe9ny\r\n" in answer
    assert b"\r\nx-two: 2\r\n" in answer


class Room(Memory):
    """Its application accepts WebSockets and takes messages when it is told to."""

    def __init__(self, **options: Any) -> None:
        self.took: list[dict[str, Any]] = []
        super().__init__(**options)
        self.hold = self.loop.create_future()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})
            return
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": "x" * 1000})
        await self.hold
        while self.took == [] or self.took[-1]["type"] == "websocket.receive":
            self.took.append(await receive())

    def enter(self, *fields: str) -> Peer:
        """A peer whose WebSocket is open; it has got the greeting."""
        peer = self.connect()
        peer.send(request("/ws", *HANDSHAKE, *fields))
        self.loop.run_until_idle()
        assert peer.take().startswith(SWITCHED)
        return peer

    def say(self, peer: Peer, data: bytes) -> list[tuple[int, bytes]]:
        peer.send(data)
        self.loop.run_until_idle()
        return frames(peer.take())


@pytest.fixture
def room() -> Iterator[Callable[..., Room]]:
    made: list[Room] = []

    def make(**options: Any) -> Room:
        made.append(Room(**options))
        return made[-1]

    yield make
    for each in made:
        each.service.cancel()
        each.loop.run_until_idle()


def test_websockets_can_be_off(room: Callable[..., Room]) -> None:
    for options, kind, status in (({}, "websocket", 101), ({"ws": "none"}, "http", 200)):
        served = room(**options)
        assert status_of(served.ask(request("/ws", *HANDSHAKE))) == status
        assert [scope["type"] for scope in served.scopes] == [kind]


def test_messages_are_as_large_as_configured(room: Callable[..., Room]) -> None:
    small = room(ws_max_size=10)
    assert small.say(small.enter(), frame(BINARY, b"x" * 10)) == []
    ((opcode, content),) = small.say(small.enter(), frame(BINARY, b"x" * 11))
    assert (opcode, content[:2]) == (8, (1009).to_bytes(2, "big"))
    assert b"limit 10" in content

    assert room().say(room().enter(), frame(BINARY, b"x" * 11)) == []


def test_as_many_messages_wait_as_configured(room: Callable[..., Room]) -> None:
    for options, most in (({"ws_max_queue": 3}, 3), ({}, 32)):
        served = room(**options)
        peer = served.enter()
        served.say(peer, text("a") * (most - 1))
        assert peer.transport.is_reading
        served.say(peer, text("last"))
        assert not peer.transport.is_reading


def test_pings_go_out_and_are_awaited_as_configured(room: Callable[..., Room]) -> None:
    def after(seconds: float, **options: Any) -> list[tuple[int, bytes]]:
        served = room(**options)
        peer = served.enter()
        served.loop.advance(seconds)
        return frames(peer.take())

    ping = (PING, b"omnicorn")
    late = closed(1011, "the peer does not answer pings")
    assert after(19.9) == []
    assert after(20.5) == [ping]
    assert after(39.9) == [ping]
    assert after(41.0) == [ping, *late]
    assert after(3.0, ws_ping_interval=2.5) == [ping]
    assert after(6.0, ws_ping_interval=2.5, ws_ping_timeout=3.0) == [ping, *late]
    assert after(41.0, ws_ping_timeout=0) == [ping, ping]
    assert after(1000.0, ws_ping_interval=0) == []


def test_messages_are_compressed_where_that_is_on(room: Callable[..., Room]) -> None:
    offer = "sec-websocket-extensions: permessage-deflate"
    for options, compresses in (({}, True), ({"ws_per_message_deflate": False}, False)):
        served = room(**options)
        answer = served.ask(request("/ws", *HANDSHAKE, offer))
        head, _, wire = answer.partition(b"\r\n\r\n")
        assert (b"permessage-deflate" in head) is compresses
        assert (len(wire) < 100) is compresses


# ------------------------------------------------------------------------------ interfaces


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [environ["SCRIPT_NAME"].encode()]


class Asgi2:
    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.scope["path"].encode()})


async def asgi3(scope: Any, receive: Any, send: Any) -> None:
    await Asgi2(scope)(receive, send)


def service_of(app: Any, **options: Any) -> Service:
    loop: Any = ManualLoop()
    return make_service(app, loop, Config(**options), None)


def test_only_a_wsgi_application_has_threads_and_no_websockets() -> None:
    for app in (asgi3, Asgi2):
        service = service_of(app)
        assert service.wsgi is None and service.upgrades
    service = service_of(wsgi)
    assert service.wsgi is not None and not service.upgrades
    assert service.wsgi.threads.count == 0  # before there is anything to do


def test_an_asgi_2_application_is_called_as_one() -> None:
    loop: Any = ManualLoop()
    service = make_service(Asgi2, loop, Config(), None)
    peer = connect(loop, Http1Connection(service))
    peer.send(request("/two"))
    loop.run_until_idle()
    assert peer.take().endswith(b"\r\n\r\n/two")


def test_the_interface_that_is_said_is_believed() -> None:
    def either(*args: Any) -> Any:
        raise NotImplementedError

    with pytest.raises(ConfigError, match="--interface"):
        service_of(either)
    assert service_of(either, interface="wsgi").wsgi is not None
    assert service_of(either, interface="asgi3").wsgi is None


@pytest.fixture(params=LIBRARIES)
def play(request: pytest.FixtureRequest) -> Play:
    """Runs a scenario on each library."""
    return partial(perform, request.param)


def test_as_many_threads_as_configured_work_at_a_wsgi_application(play: Play) -> None:
    lock = threading.Lock()
    go_on = threading.Event()
    within = most = 0

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        nonlocal within, most
        with lock:
            within += 1
            most = max(most, within)
        go_on.wait(5)
        with lock:
            within -= 1
        return wsgi(environ, start_response)

    async def main(stage: Stage) -> None:
        config = Config(port=0, access_log=False, threads=2, root_path="/mounted")
        server = Server(app, config)
        await stage.start(server)
        clients = [client_of(server.urls[0]) for _ in range(3)]
        async with clients[0] as one, clients[1] as two, clients[2] as three:
            for client in (one, two, three):
                await client.ask("/mounted/x")
            await stage.until(lambda: within == 2 and server.requests == 3)
            await turns()
            go_on.set()
            for client in (one, two, three):
                assert await client.answer() == "/mounted"
        await server.stop()

    play(main)
    assert most == 2


@pytest.mark.parametrize(
    ("http", "enabled", "only"), [("auto", True, False), ("1", False, False), ("2", True, True)]
)
def test_http_2_is_spoken_as_configured(http: str, enabled: bool, only: bool) -> None:
    http2 = service_of(asgi3, http=http).http2
    assert (http2.enabled, http2.only) == (enabled, only)


def test_the_bounds_of_http_2_are_as_configured() -> None:
    options = {
        "h2_max_concurrent_streams": 7,
        "h2_initial_window": 300_000,
        "h2_initial_stream_window": 70_000,
        "h2_ping_interval": 2.5,
    }
    http2 = service_of(asgi3, **options).http2
    assert (http2.max_streams, http2.window, http2.stream_window, http2.ping_interval) == (
        7,
        300_000,
        70_000,
        2.5,
    )


def test_an_application_taken_for_another_kind_is_told_what_to_say(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop: Any = ManualLoop()
    service = make_service(wsgi, loop, Config(interface="asgi3"), None)
    peer = connect(loop, Http1Connection(service))
    peer.send(request())
    loop.run_until_idle()
    assert status_of(peer.take()) == 500
    assert "it was called as asgi3" in caplog.text and "--interface wsgi" in caplog.text
