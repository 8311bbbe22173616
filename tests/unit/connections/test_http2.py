"""How an HTTP/2 connection writes, waits, refuses and ends; the clock is moved by hand.

The client keeps the rules of HTTP/2 and asserts the server's (`tests.http2_client`). When a test
is over, the service must have nothing left of it.
"""

from __future__ import annotations

import gc
import logging
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from tests.http2_client import (
    ACK,
    CANCEL,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW,
    INTERNAL_ERROR,
    NO_ERROR,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW,
    WINDOW_UPDATE,
    Http2Client,
    data,
    frame,
    number,
    reset,
    settings,
    watched,
    window_update,
)

from omnicorn.connections.deadlines import WIDTH
from omnicorn.connections.http2 import LINGER_TIME, Http2Connection
from omnicorn.connections.service import Http2, Timeouts
from omnicorn.errors import ASGIError, ClientDisconnected
from omnicorn.http.limits import Limits
from omnicorn.ports import HIGH_WATER
from omnicorn.security.trust import TrustedPeers
from omnicorn.transports.inproc import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Serve = Callable[..., Any]

DISCONNECT = {"type": "http.disconnect"}
START = {"type": "http.response.start", "status": 200}


@pytest.fixture(name="serve")
def _watched_serve(serve: Serve) -> Iterator[Serve]:
    yield from watched(serve)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    await send({"type": "http.response.body", "body": b"hi"})


async def echo_path(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def direct(served: Any, **extra: Any) -> Any:
    """A connection that is HTTP/2 from the start, as after ALPN; returns the peer."""
    return connect(served.loop, Http2Connection(served.service), extra=extra)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def just_before(seconds: float) -> float:
    return seconds - WIDTH / 2


# ---------------------------------------------------------------- scope


def test_a_requests_scope(serve: Serve) -> None:
    served = serve()
    served.service.state = {"pool": 1}
    client = Http2Client(served)
    client.ask(
        "/a%20b?x=1",
        ("cookie", "a=1"),
        ("accept", "*/*"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        method="PATCH",
    )
    assert served.exchange.scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "2",
        "method": "PATCH",
        "scheme": "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"x=1",
        "root_path": "",
        "headers": [
            (b"host", b"example.org"),
            (b"cookie", b"a=1; b=2"),
            (b"accept", b"*/*"),
            (b"te", b"trailers"),
        ],
        "client": ("192.0.2.1", 50000),
        "server": ("192.0.2.80", 80),
        "extensions": {
            "http.response.trailers": {},
            "http.response.early_hint": {},
            "http.response.pathsend": {},
            "http.response.zerocopysend": {},
            "http.response.push": {},
        },
        "state": {"pool": 1},
    }


def test_equal_requests_have_scopes_of_their_own(serve: Serve) -> None:
    served = serve()
    client = Http2Client(served)
    for _ in range(3):
        client.ask("/same")
    first, second, third = (exchange.scope for exchange in served.app.exchanges)
    assert first == second == third
    second["headers"].append((b"x", b"y"))
    third["extensions"]["mine"] = {}
    client.ask("/same")
    assert first == served.exchange.scope


def test_push_is_offered_only_to_a_client_that_takes_it(serve: Serve) -> None:
    """RFC 9113 §6.5.2: and it may change its mind."""
    served = serve()
    client = Http2Client(served, asks=((ENABLE_PUSH, 0),))
    client.ask()
    assert "http.response.push" not in served.exchange.scope["extensions"]
    client.send(settings((ENABLE_PUSH, 1)))
    client.ask()
    assert list(served.exchange.scope["extensions"]) == [
        "http.response.trailers",
        "http.response.early_hint",
        "http.response.pathsend",
        "http.response.zerocopysend",
        "http.response.push",
    ]
    assert served.app.exchanges[0].scope["extensions"].keys().isdisjoint({"http.response.push"})


def test_the_order_of_the_extensions_is_always_the_same(serve: Serve) -> None:
    served = serve()
    client = Http2Client(served)
    client.ask()
    served.peer = served.connect()
    served.get()
    http2, http1 = (list(exchange.scope["extensions"]) for exchange in served.app.exchanges)
    assert http2[:4] == http1


class TLS:
    """The little of an ``SSLObject`` that a scope tells."""

    context = None

    def version(self) -> str:
        return "TLSv1.3"

    def cipher(self) -> tuple[str, str, int]:
        return ("TLS_AES_128_GCM_SHA256", "TLSv1.3", 128)

    def getpeercert(self, binary_form: bool = False) -> Any:
        return None


def test_over_tls_the_scope_says_https_and_tells_of_it(serve: Serve) -> None:
    served = serve()
    client = Http2Client(served, direct(served, ssl_object=TLS()))
    client.ask()
    client.ask()
    first, second = (exchange.scope for exchange in served.app.exchanges)
    assert first["scheme"] == "https"
    assert first["extensions"]["tls"]["tls_version"] == 0x0304
    assert "http.response.push" in first["extensions"]
    assert first == second


def test_the_application_is_mounted_at_the_root_path(serve: Serve) -> None:
    served = serve(root_path="/api")
    Http2Client(served).ask("/users")
    scope = served.exchange.scope
    assert (scope["root_path"], scope["path"]) == ("/api", "/api/users")


@pytest.mark.parametrize("trust", [True, False])
def test_a_proxy_speaks_for_its_clients_if_it_is_trusted(serve: Serve, trust: bool) -> None:
    served = serve(trusted=TrustedPeers(["192.0.2.1"]) if trust else None)
    client = Http2Client(served)
    for address in ("203.0.113.5", "203.0.113.6"):
        client.ask("/", ("x-forwarded-for", address), ("x-forwarded-proto", "https"))
    seen = [(exchange.scope["client"], exchange.scope["scheme"]) for exchange in served.app.exchanges]
    if trust:
        assert seen == [(("203.0.113.5", 0), "https"), (("203.0.113.6", 0), "https")]
    else:
        assert seen == [(("192.0.2.1", 50000), "http")] * 2


# ---------------------------------------------------------------- writes


def test_the_servers_preface_comes_first_and_says_what_is_served(serve: Serve) -> None:
    """RFC 9113 §3.4."""
    served = serve(http2=Http2(max_streams=7, window=200_000, stream_window=70_000))
    client = Http2Client(served)
    assert client.frames[0].kind == SETTINGS
    assert client.settings == {3: 7, 4: 70_000, 6: 65536, 8: 1, 9: 1}
    grant = [f.payload for f in client.frames if f.kind == WINDOW_UPDATE]
    assert grant == [number(200_000 - WINDOW)]
    assert frame(SETTINGS, ACK) in served.peer.received


def test_without_websockets_extended_connect_is_not_offered(serve: Serve) -> None:
    """RFC 8441 §3."""
    assert Http2Client(serve(websockets=None)).settings[8] == 0


def test_head_and_content_of_all_streams_of_one_turn_leave_in_one_write(serve: Serve) -> None:
    served = serve(echo_path)
    client = Http2Client(served)
    before = len(served.peer.writes)
    client.send(*(client.headers(f"/{n}") for n in range(20)))
    assert len(served.peer.writes) == before + 1
    assert [client.streams[2 * n + 1].body for n in range(20)] == [b"/%d" % n for n in range(20)]


def test_what_many_applications_send_in_one_turn_leaves_in_one_write(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await waiter
        await send(START)
        for piece in (b"a", b"b"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"c"})

    served = serve(app)
    waiter = served.loop.create_future()
    client = Http2Client(served)
    client.send(*(client.headers() for n in range(5)))
    before = len(served.peer.writes)
    waiter.set_result()
    client.run()
    assert len(served.peer.writes) == before + 1
    assert [(r.body, r.ended) for r in client.streams.values()] == [(b"abc", True)] * 5


def test_a_head_that_is_sent_alone_leaves_at_once(serve: Serve) -> None:
    """Of server-sent events, the head is what tells the client that they will come."""
    served = serve()
    client = Http2Client(served)
    reply = client.ask()
    served.exchange.start()
    client.run()
    assert reply.status == 200 and not reply.ended
    served.exchange.body(b"data: 1\n\n", more=True)
    client.run()
    assert reply.body == b"data: 1\n\n"


def test_a_response_without_content_is_one_frame(serve: Serve) -> None:
    served = serve()
    client = Http2Client(served)
    client.ask()
    client.take()
    served.exchange.respond(204)
    (head,) = client.take()
    assert (head.kind, head.flags) == (HEADERS, END_HEADERS | END_STREAM)


def test_a_large_stream_leaves_in_writes_of_about_64_kib(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
        await send({"type": "http.response.body"})

    served = serve(app)
    client = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 24),), auto=False)
    client.send(window_update(0, 1 << 24))
    client.window += 1 << 24
    before = len(served.peer.writes)
    reply = client.ask()
    sizes = [len(write) for write in served.peer.writes[before:]]
    assert reply.ended and len(reply.body) == 1_000_000
    assert len(sizes) <= 2 + 1_000_000 // HIGH_WATER
    assert max(sizes) <= HIGH_WATER + 17_000


# ---------------------------------------------------------------- many streams


def test_streams_are_answered_in_any_order(serve: Serve) -> None:
    served = serve()
    client = Http2Client(served)
    replies = [client.ask(f"/{n}") for n in range(10)]
    for n in (3, 9, 0, 5, 1, 2, 8, 7, 4, 6):
        served.app.exchanges[n].respond(body=b"%d" % n)
        client.run()
        assert replies[n].body == b"%d" % n and replies[n].ended
    assert [reply.body for reply in replies] == [b"%d" % n for n in range(10)]


def test_responses_of_streams_may_alternate(serve: Serve) -> None:
    served = serve()
    client = Http2Client(served)
    one, two = client.ask(), client.ask()
    first, second = served.app.exchanges
    first.start()
    second.start()
    for piece in (b"a", b"b", b"c"):
        first.body(piece, more=True)
        second.body(piece.upper(), more=True)
    second.body(b"")
    first.body(b"")
    client.run()
    assert (one.body, two.body) == (b"abc", b"ABC")
    assert one.ended and two.ended


def test_streams_beyond_the_limit_are_refused_and_the_others_go_on(serve: Serve) -> None:
    """RFC 9113 §5.1.2."""
    served = serve(http2=Http2(max_streams=2))
    client = Http2Client(served)
    replies = [client.ask() for _ in range(3)]
    assert replies[2].reset == REFUSED_STREAM
    assert len(served.app.exchanges) == 2
    for exchange in served.app.exchanges:
        exchange.respond()
    client.run()
    assert replies[0].ended and replies[1].ended
    client.ask()
    assert len(served.app.exchanges) == 3


def test_bytes_may_come_one_by_one(serve: Serve) -> None:
    served = serve(echo_path)
    client = Http2Client(served, asks=None)
    for byte in PREFACE + settings() + client.headers("/slowly"):
        client.send(bytes((byte,)))
    assert client.streams[1].body == b"/slowly"


# ---------------------------------------------------------------- request bodies


def test_content_comes_as_it_was_sent(serve: Serve) -> None:
    served = serve()
    client = Http2Client(served)
    client.ask(method="POST", end=False)
    exchange = served.exchange
    waiting = exchange.receive()
    assert not waiting.done
    client.send(data(1, b"ab"))
    assert waiting.result == {"type": "http.request", "body": b"ab", "more_body": True}
    client.send(data(1, b"cd"))
    client.send(data(1, b"ef", end=True))
    assert exchange.receive().result == {"type": "http.request", "body": b"cdef", "more_body": False}


def test_a_streams_window_opens_as_its_application_reads(serve: Serve) -> None:
    """RFC 9113 §5.2: so a slow application holds its own client back."""
    served = serve(http2=Http2(window=1 << 20, stream_window=100_000))
    client = Http2Client(served)
    client.ask(method="POST", end=False)
    client.take()
    client.send(data(1, b"x" * 100_000))
    assert [f for f in client.take() if f.kind == WINDOW_UPDATE and f.stream == 1] == []
    served.exchange.receive()
    client.run()
    grants = [f.payload for f in client.take() if f.kind == WINDOW_UPDATE and f.stream == 1]
    assert grants == [number(100_000)]
    client.send(data(1, b"y" * 100_000, end=True))
    assert served.exchange.receive().result["body"] == b"y" * 100_000


def test_more_than_the_streams_window_resets_that_stream_alone(serve: Serve) -> None:
    """RFC 9113 §6.9.1."""
    served = serve(http2=Http2(stream_window=70_000))
    client = Http2Client(served)
    bad, good = client.ask(method="POST", end=False), client.ask()
    client.send(data(1, b"x" * 80_000))
    assert bad.reset == 3
    served.app.exchanges[1].respond(body=b"fine")
    client.run()
    assert good.body == b"fine"


def test_applications_that_do_not_read_do_not_hold_the_others_up(serve: Serve) -> None:
    served = serve(http2=Http2(window=100_000, stream_window=60_000))
    client = Http2Client(served)
    room = 100_000

    def upload(stream: int, size: int, end: bool = False) -> None:
        nonlocal room
        for start in range(0, size, 10_000):
            assert room >= 10_000, "the connection's window is shut"
            room -= 10_000
            client.send(data(stream, b"x" * 10_000, end and start + 10_000 >= size))
            grants = [f for f in client.take() if f.kind == WINDOW_UPDATE and not f.stream]
            room += sum(int.from_bytes(f.payload, "big") for f in grants)

    client.take()
    for _ in range(5):
        client.ask(method="POST", end=False)
    for stream in (1, 3, 5):
        upload(stream, 60_000)
    quick = served.app.exchanges[3]
    for _ in range(10):
        upload(7, 50_000)
        assert len(quick.receive().result["body"]) == 50_000
    upload(9, 60_000, end=True)
    assert len(served.app.exchanges[4].receive().result["body"]) == 60_000


def test_content_that_ends_short_of_its_length_resets_the_stream(serve: Serve) -> None:
    """RFC 9113 §8.1.1."""
    served = serve()
    client = Http2Client(served)
    reply = client.ask("/", ("content-length", "10"), method="POST", end=False)
    waiting = served.exchange.receive()
    client.send(data(1, b"short", end=True))
    assert reply.reset == PROTOCOL_ERROR
    served.exchange.receive()
    assert waiting.done
    assert served.exchange.receive().result == DISCONNECT


def test_100_continue_is_sent_when_the_application_asks_for_content(serve: Serve) -> None:
    """RFC 9110 §10.1.1."""
    served = serve()
    client = Http2Client(served)
    reply = client.ask("/", ("expect", "100-continue"), method="POST", end=False)
    assert reply.informational == []
    waiting = served.exchange.receive()
    client.run()
    assert reply.informational == [[(b":status", b"100")]]
    client.send(data(1, b"body", end=True))
    assert waiting.result["body"] == b"body"
    served.exchange.respond()
    client.run()
    assert reply.status == 200 and len(reply.informational) == 1


def test_a_request_that_expects_100_continue_may_be_answered_without(serve: Serve) -> None:
    served = serve()
    client = Http2Client(served)
    reply = client.ask("/", ("expect", "100-continue"), method="POST", end=False)
    served.exchange.respond(403)
    client.run()
    assert reply.status == 403 and reply.informational == []
    client.send(data(1, b"", end=True))
    served.exchange.finish()


def test_trailers_of_a_request_end_its_content(serve: Serve) -> None:
    """RFC 9113 §8.1; ASGI has no place for them."""
    served = serve()
    client = Http2Client(served)
    client.ask(method="POST", end=False)
    block = client.encoder.encode([("x-checksum", "1")])
    client.send(data(1, b"body"), frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
    assert served.exchange.receive().result == {
        "type": "http.request",
        "body": b"body",
        "more_body": False,
    }


# ---------------------------------------------------------------- early answers


def test_the_rest_of_an_answered_upload_is_read_up_to_64_kib(serve: Serve) -> None:
    """RFC 9113 §8.1: then RST_STREAM with NO_ERROR, and the answer is not lost."""
    served = serve()
    client = Http2Client(served)
    reply = client.ask(method="POST", end=False)
    served.exchange.respond(413, body=b"no")
    client.run()
    assert reply.ended and reply.reset is None
    client.send(data(1, b"x" * HIGH_WATER))
    assert reply.reset is None
    client.send(data(1, b"x"))
    assert reply.reset == NO_ERROR
    client.send(data(1, b"was under way", end=True))
    assert client.goaways == []
    served.exchange.finish()


def test_an_answered_upload_that_says_it_is_large_is_reset_at_once(serve: Serve) -> None:
    served = serve()
    client = Http2Client(served)
    reply = client.ask("/", ("content-length", "1000000"), method="POST", end=False)
    served.exchange.respond(403, body=b"no")
    client.run()
    assert (reply.status, reply.body, reply.ended, reply.reset) == (403, b"no", True, NO_ERROR)


def test_an_answered_upload_that_is_small_is_let_through(serve: Serve) -> None:
    served = serve()
    client = Http2Client(served)
    reply = client.ask("/", ("content-length", "1000"), method="POST", end=False)
    served.exchange.respond(403)
    client.send(data(1, b"x" * 1000, end=True))
    assert reply.ended and reply.reset is None
    client.ask()
    assert len(served.app.exchanges) == 2


def test_many_answered_uploads_leave_the_connections_window_as_it_was(serve: Serve) -> None:
    served = serve(http2=Http2(window=100_000, stream_window=70_000))
    client = Http2Client(served)
    client.take()
    room = 100_000
    for _ in range(20):
        client.ask(method="POST", end=False)
        served.exchange.respond()
        assert room >= 60_000
        client.send(data(client.last, b"x" * 60_000, end=True))
        room -= 60_000
        grants = [f for f in client.take() if f.kind == WINDOW_UPDATE and not f.stream]
        room += sum(int.from_bytes(f.payload, "big") for f in grants)


# ---------------------------------------------------------------- responses hold back


def test_send_waits_for_the_window_and_goes_on_when_it_opens(serve: Serve) -> None:
    served = serve()
    client = Http2Client(served, auto=False)
    reply = client.ask()
    exchange = served.exchange
    exchange.start()
    call = exchange.body(b"x" * 200_000, more=True)
    client.run()
    assert not call.done and len(reply.body) == WINDOW
    client.send(window_update(0, 200_000), window_update(1, 100_000))
    reply.window += 100_000
    client.window += 200_000
    client.run()
    assert call.done and call.error is None
    assert len(reply.body) == WINDOW + 100_000
    reply.window += 100_000
    client.send(window_update(1, 100_000))
    exchange.body(b"")
    client.run()
    assert reply.ended and len(reply.body) == 200_000


def test_a_stream_whose_window_is_shut_does_not_hold_the_others_up(serve: Serve) -> None:
    served = serve()
    client = Http2Client(served, asks=((INITIAL_WINDOW, 1000),), auto=False)
    stalled = client.ask("/stalled")
    served.exchange.start()
    call = served.exchange.body(b"x" * 100_000, more=True)
    client.run()
    assert len(stalled.body) == 1000 and not call.done
    for _ in range(10):
        other = client.ask("/other")
        served.exchange.respond(body=b"y" * 1000)
        client.run()
        assert other.ended
    client.send(reset(1))
    assert type(call.error) is ClientDisconnected


def test_a_transport_that_is_full_holds_all_streams_back_and_lets_them_go_on(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    client = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 20),))
    client.send(window_update(0, 1 << 24))
    client.window += 1 << 24
    replies = [client.ask() for _ in range(4)]
    served.peer.pause()
    calls = []
    for exchange in served.app.exchanges:
        exchange.start()
        calls.append(exchange.body(b"x" * 150_000, more=True))
    later = [exchange.body(b"y" * 10, more=True) for exchange in served.app.exchanges]
    assert not any(call.done for call in later[1:])
    assert len(b"".join(served.peer.writes)) < 400_000
    served.peer.resume()
    client.run()
    assert all(call.done for call in calls + later)
    assert {len(reply.body) for reply in replies} == {150_010}


def test_a_client_that_never_reads_cannot_make_the_server_keep_its_answers(serve: Serve) -> None:
    """Heads need no window: what holds such a client back is that it is not read."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": [(b"x", b"y" * 500)]})
        await send({"type": "http.response.body"})

    served = serve(app, link={"window": 1000})
    client = Http2Client(served)
    served.peer.pause()
    for _ in range(200):
        served.peer.send(b"".join(client.headers() for _ in range(20)))
        served.loop.run_until_idle()
    assert served.peer.transport.get_write_buffer_size() < 1 << 20
    assert served.peer.waiting
    served.peer.resume()
    client.run()
    assert all(reply.ended for reply in client.streams.values())
    assert len(client.streams) == 4000


def test_a_client_that_does_not_read_is_still_noticed_when_it_leaves(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    client = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 24),))
    client.send(window_update(0, 1 << 24))
    client.ask()
    served.peer.pause()
    served.exchange.start()
    call = served.exchange.body(b"x" * 1_000_000, more=True)
    assert not call.done
    served.peer.reset()
    served.loop.run_until_idle()
    assert type(call.error) is ClientDisconnected
