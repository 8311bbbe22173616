"""How an HTTP/2 connection writes, waits, refuses and ends; the clock is moved by hand.

The client keeps the rules of HTTP/2 and asserts the server's (`tests.http2_client`). When a test
is over, the service must have nothing left of it.
"""

from __future__ import annotations

import base64
import gc
import logging
import ssl
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
    SETTINGS,
    WINDOW,
    WINDOW_UPDATE,
    Http2Client,
    Reply,
    data,
    frame,
    number,
    reset,
    settings,
    watched,
    window_update,
)

from omnicorn.connections.bytestream import LINGER_TIME
from omnicorn.connections.deadlines import WIDTH
from omnicorn.connections.http2 import Http2Connection
from omnicorn.connections.service import Http2, Timeouts
from omnicorn.errors import ASGIError, ClientDisconnected
from omnicorn.http.limits import Limits
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.http2.engine import DISCARD
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
    client: Any = Http2Client(served)
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
    client: Any = Http2Client(served)
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
    client: Any = Http2Client(served, asks=((ENABLE_PUSH, 0),))
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
    client: Any = Http2Client(served)
    client.ask()
    served.peer = served.connect()
    served.get()
    http2, http1 = (list(exchange.scope["extensions"]) for exchange in served.app.exchanges)
    assert http2[:4] == http1


class TLS:
    """The little of an ``SSLObject`` that a scope tells."""

    context = ssl.create_default_context()

    def version(self) -> str:
        return "TLSv1.3"

    def cipher(self) -> tuple[str, str, int]:
        return ("TLS_AES_128_GCM_SHA256", "TLSv1.3", 128)

    def getpeercert(self, binary_form: bool = False) -> Any:
        return None


def test_over_tls_the_scope_says_https_and_tells_of_it(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served, direct(served, ssl_object=TLS()))
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
    client: Any = Http2Client(served)
    for address in ("203.0.113.5", "203.0.113.6"):
        client.ask("/", ("x-forwarded-for", address), ("x-forwarded-proto", "https"))
    scopes = [exchange.scope for exchange in served.app.exchanges]
    seen = [(scope["client"], scope["scheme"]) for scope in scopes]
    if trust:
        assert seen == [(("203.0.113.5", 0), "https"), (("203.0.113.6", 0), "https")]
    else:
        assert seen == [(("192.0.2.1", 50000), "http")] * 2


# ---------------------------------------------------------------- writes


def test_the_servers_preface_comes_first_and_says_what_is_served(serve: Serve) -> None:
    """RFC 9113 §3.4."""
    served = serve(http2=Http2(max_streams=7, window=200_000, stream_window=70_000))
    client: Any = Http2Client(served)
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
    client: Any = Http2Client(served)
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
    client: Any = Http2Client(served)
    client.send(*(client.headers() for n in range(5)))
    before = len(served.peer.writes)
    waiter.set_result()
    client.run()
    assert len(served.peer.writes) == before + 1
    assert [(r.body, r.ended) for r in client.streams.values()] == [(b"abc", True)] * 5


def test_a_head_that_is_sent_alone_leaves_at_once(serve: Serve) -> None:
    """Of server-sent events, the head is what tells the client that they will come."""
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask()
    served.exchange.start()
    client.run()
    assert reply.status == 200 and not reply.ended
    served.exchange.body(b"data: 1\n\n", more=True)
    client.run()
    assert reply.body == b"data: 1\n\n"


def test_a_response_without_content_is_one_frame(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
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
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 24),), auto=False)
    client.grant(0, 1 << 24)
    before = len(served.peer.writes)
    reply = client.ask()
    sizes = [len(write) for write in served.peer.writes[before:]]
    assert reply.ended and len(reply.body) == 1_000_000
    assert len(sizes) <= 2 + 1_000_000 // HIGH_WATER
    assert max(sizes) <= HIGH_WATER + 17_000


# ---------------------------------------------------------------- many streams


def test_streams_are_answered_in_any_order(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    replies = [client.ask(f"/{n}") for n in range(10)]
    for n in (3, 9, 0, 5, 1, 2, 8, 7, 4, 6):
        served.app.exchanges[n].respond(body=b"%d" % n)
        client.run()
        assert replies[n].body == b"%d" % n and replies[n].ended
    assert [reply.body for reply in replies] == [b"%d" % n for n in range(10)]


def test_responses_of_streams_may_alternate(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
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
    client: Any = Http2Client(served)
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
    client: Any = Http2Client(served, asks=None)
    for byte in PREFACE + settings() + client.headers("/slowly"):
        served.peer.send(bytes((byte,)))
        served.loop.run_until_idle()
    client.run()
    assert client.streams[1].body == b"/slowly"


# ---------------------------------------------------------------- request bodies


def test_content_comes_as_it_was_sent(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    client.ask(method="POST", end=False)
    exchange = served.exchange
    waiting = exchange.receive()
    assert not waiting.done
    client.send(data(1, b"ab"))
    assert waiting.result == {"type": "http.request", "body": b"ab", "more_body": True}
    client.send(data(1, b"cd"))
    client.send(data(1, b"ef", end=True))
    rest = {"type": "http.request", "body": b"cdef", "more_body": False}
    assert exchange.receive().result == rest


def test_a_streams_window_opens_as_its_application_reads(serve: Serve) -> None:
    """RFC 9113 §5.2: so a slow application holds its own client back."""
    served = serve(http2=Http2(window=1 << 20, stream_window=100_000))
    client: Any = Http2Client(served)
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
    client: Any = Http2Client(served)
    bad, good = client.ask(method="POST", end=False), client.ask()
    client.send(data(1, b"x" * 80_000))
    assert bad.reset == 3
    served.app.exchanges[1].respond(body=b"fine")
    client.run()
    assert good.body == b"fine"


def test_applications_that_do_not_read_do_not_hold_the_others_up(serve: Serve) -> None:
    served = serve(http2=Http2(window=100_000, stream_window=60_000))
    client: Any = Http2Client(served)
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
    client: Any = Http2Client(served)
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
    client: Any = Http2Client(served)
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
    client: Any = Http2Client(served)
    reply = client.ask("/", ("expect", "100-continue"), method="POST", end=False)
    served.exchange.respond(403)
    client.run()
    assert reply.status == 403 and reply.informational == []
    client.send(data(1, b"", end=True))
    served.exchange.finish()


def test_trailers_of_a_request_end_its_content(serve: Serve) -> None:
    """RFC 9113 §8.1; ASGI has no place for them."""
    served = serve()
    client: Any = Http2Client(served)
    client.ask(method="POST", end=False)
    block = client.encoder.encode([("x-checksum", "1")])
    client.send(data(1, b"body"), frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
    assert served.exchange.receive().result == {
        "type": "http.request",
        "body": b"body",
        "more_body": False,
    }


# ---------------------------------------------------------------- early answers


def test_the_rest_of_an_answered_upload_is_read_up_to_16_mib(serve: Serve) -> None:
    """RFC 9113 §8.1: then RST_STREAM with NO_ERROR, and the answer is not lost."""
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask("/", ("content-length", "20000000"), method="POST", end=False)
    served.exchange.respond(413, body=b"no")
    client.run()
    assert (reply.status, reply.body, reply.ended) == (413, b"no", True)
    sent = 0
    while sent < DISCARD:
        assert not reply.is_reset()
        client.send(data(1, b"x" * 16384))
        sent += 16384
    client.send(data(1, b"x"))
    assert reply.reset == NO_ERROR
    client.send(data(1, b"was under way", end=True))
    assert client.goaways == []
    served.exchange.finish()


def test_the_rest_of_an_answered_upload_is_read_for_two_seconds(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask("/", ("content-length", "1000000"), method="POST", end=False)
    served.exchange.respond(403, body=b"no")
    client.run()
    assert (reply.status, reply.body, reply.ended) == (403, b"no", True)
    client.advance(1.9)
    assert not reply.is_reset()
    client.advance(60.0)
    assert reply.reset == NO_ERROR


def test_an_answered_upload_that_is_small_is_let_through(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask("/", ("content-length", "1000"), method="POST", end=False)
    served.exchange.respond(403)
    client.send(data(1, b"x" * 1000, end=True))
    assert reply.ended and not reply.is_reset()
    client.ask()
    assert len(served.app.exchanges) == 2


def test_many_answered_uploads_leave_the_connections_window_as_it_was(serve: Serve) -> None:
    served = serve(http2=Http2(window=100_000, stream_window=70_000))
    client: Any = Http2Client(served)
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
    client: Any = Http2Client(served, auto=False)
    reply = client.ask()
    exchange = served.exchange
    exchange.start()
    call = exchange.body(b"x" * 200_000, more=True)
    client.run()
    assert not call.done and len(reply.body) == WINDOW
    client.grant(0, 200_000)
    client.grant(1, 90_000)
    assert not call.done and len(reply.body) == WINDOW + 90_000
    client.grant(1, 15_000)
    assert call.done and call.error is None
    assert len(reply.body) == WINDOW + 105_000
    client.grant(1, 100_000)
    exchange.body(b"")
    client.run()
    assert reply.ended and len(reply.body) == 200_000


def test_a_stream_whose_window_is_shut_does_not_hold_the_others_up(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1000),), auto=False)
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
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 20),))
    client.grant(0, 1 << 24)
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
        field = (b"x", scope["raw_path"] * 400)
        await send({"type": "http.response.start", "status": 204, "headers": [field]})
        await send({"type": "http.response.body"})

    served = serve(app, link={"window": 1000})
    client: Any = Http2Client(served)
    served.peer.pause()
    for turn in range(50):
        served.peer.send(b"".join(client.headers(f"/{turn * 20 + n:09}") for n in range(20)))
        served.loop.run_until_idle()
    assert served.peer.transport.get_write_buffer_size() < 3 << 19
    assert served.peer.waiting
    served.peer.resume()
    client.run()
    assert all(reply.ended for reply in client.streams.values())
    assert len(client.streams) == 1000


def test_a_client_that_does_not_read_is_still_noticed_when_it_leaves(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 24),))
    client.grant(0, 1 << 24)
    client.ask()
    served.peer.pause()
    served.exchange.start()
    call = served.exchange.body(b"x" * 1_000_000, more=True)
    assert not call.done
    served.peer.reset()
    served.loop.run_until_idle()
    assert type(call.error) is ClientDisconnected


# ---------------------------------------------------------------- the peer leaves


@pytest.mark.parametrize("how", ["RST_STREAM", "reset", "end"])
def test_an_application_learns_that_its_client_has_gone(serve: Serve, how: str) -> None:
    served = serve()
    client: Any = Http2Client(served)
    client.ask("/one", method="POST", end=False)
    exchange = served.exchange
    waiting = exchange.receive()
    exchange.start()
    if how == "RST_STREAM":
        client.send(reset(1))
    elif how == "reset":
        served.peer.reset()
    else:
        served.peer.close()
    served.loop.run_until_idle()
    assert waiting.result == DISCONNECT
    error = exchange.body(b"x", more=True).error
    assert type(error) is ClientDisconnected and isinstance(error, OSError)
    assert exchange.receive().result == DISCONNECT


def test_a_cancelled_stream_leaves_the_others_alone(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    cancelled, kept = client.ask("/cancelled"), client.ask("/kept")
    client.send(reset(1))
    first, second = served.app.exchanges
    assert type(first.start().error) is ClientDisconnected
    second.respond(body=b"kept")
    client.run()
    assert kept.body == b"kept" and not cancelled.headers


def test_a_cancelled_request_whose_application_only_disconnects_is_no_error(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            if (await receive())["type"] == "http.disconnect":
                await send(START)

    served = serve(app)
    client: Any = Http2Client(served)
    client.ask()
    client.send(reset(1))
    assert served.service.active == 0
    assert logged(caplog) == []


def test_a_client_that_has_said_its_last_still_gets_its_responses(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    whole, half = client.ask("/whole"), client.ask("/half", method="POST", end=False)
    served.peer.close()
    client.run()
    first, second = served.app.exchanges
    assert second.receive().result == DISCONNECT
    assert not client.gone
    first.respond(body=b"still here")
    client.run()
    assert whole.body == b"still here" and whole.ended
    assert not half.headers
    assert served.peer.eof and not served.peer.was_reset


def test_goaway_of_the_client_lets_its_requests_finish(serve: Serve) -> None:
    """RFC 9113 §6.8."""
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask()
    client.send(frame(GOAWAY, 0, 0, number(0) + number(NO_ERROR)))
    assert not client.gone
    served.exchange.respond(body=b"x" * 100_000)
    client.run()
    assert reply.ended
    assert served.peer.eof and not served.peer.was_reset


def test_goaway_of_an_idle_client_closes(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    client.send(frame(GOAWAY, 0, 0, number(0) + number(NO_ERROR)))
    assert served.peer.eof and not served.peer.was_reset


# ---------------------------------------------------------------- rapid reset


def test_applications_of_cancelled_requests_count_against_the_clients_streams(
    serve: Serve,
) -> None:
    """CVE-2023-44487: cancelling does not make room for more work."""
    served = serve(http2=Http2(max_streams=4))
    client: Any = Http2Client(served)
    for _ in range(20):
        client.ask()
        if not client.streams[client.last].is_reset():
            client.send(reset(client.last))
    assert len(served.app.exchanges) == 4
    served.app.exchanges[2].finish()
    client.ask()
    assert not client.streams[client.last].is_reset()
    assert len(served.app.exchanges) == 5


def test_a_rapid_reset_ends_the_connection_and_is_logged_once(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    served = serve(app)
    client: Any = Http2Client(served)
    for _ in range(10):
        client.send(*(client.headers() + reset(client.last) for _ in range(50)))
        if client.gone:
            break
    assert [code for _, code in client.goaways] == [ENHANCE_YOUR_CALM]
    assert [line for line in logged(caplog) if "rapid reset" in line] == [
        "192.0.2.1:50000 - refused with ENHANCE_YOUR_CALM: "
        "too much of one kind: rapid reset (CVE-2023-44487)"
    ]
    assert served.service.active == 0


def test_what_a_rapid_resets_applications_do_after_the_connection_is_kept_track_of(
    serve: Serve,
) -> None:
    served = serve(http2=Http2(max_streams=3))
    client: Any = Http2Client(served)
    for _ in range(3):
        client.ask()
        client.send(reset(client.last))
    served.peer.reset()
    served.loop.run_until_idle()
    assert served.service.active == len(served.service.stragglers) == 3
    for exchange in served.app.exchanges:
        exchange.finish()
    assert not served.service.stragglers


# ---------------------------------------------------------------- applications fail


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]


def test_a_bug_before_the_response_is_500_and_is_logged_once(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    client: Any = Http2Client(served)
    broken, other = client.ask("/broken"), client.ask("/other")
    first, second = served.app.exchanges
    first.finish(LookupError("a bug"))
    client.run()
    assert (broken.status, broken.body) == (500, b"Internal Server Error")
    assert b"connection" not in broken.fields
    second.respond(body=b"fine")
    client.run()
    assert other.body == b"fine" and not client.gone
    assert failures(caplog) == ["GET '/broken': the application failed"]


def test_a_bug_in_mid_response_resets_the_stream_and_is_logged_once(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    client: Any = Http2Client(served)
    broken, other = client.ask("/broken"), client.ask("/other")
    first, second = served.app.exchanges
    first.start()
    first.body(b"half", more=True)
    first.finish(LookupError("a bug"))
    client.run()
    assert (broken.body, broken.ended, broken.reset) == (b"half", False, INTERNAL_ERROR)
    second.respond(body=b"fine")
    client.run()
    assert other.body == b"fine" and not client.gone
    assert failures(caplog) == ["GET '/broken': the application failed"]
    assert served.access.lines == [("/broken", 200, 4), ("/other", 200, 4)]


@pytest.mark.parametrize("begun", [False, True])
def test_an_application_that_returns_too_early_has_failed(
    serve: Serve, caplog: pytest.LogCaptureFixture, begun: bool
) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask()
    if begun:
        served.exchange.start()
    served.exchange.finish()
    client.run()
    assert (reply.status, reply.reset) == ((200, INTERNAL_ERROR) if begun else (500, None))
    assert len(failures(caplog)) == 1
    assert not client.gone


def test_content_past_content_length_is_refused_and_the_response_can_still_end(
    serve: Serve,
) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask()
    served.exchange.start(headers=[(b"content-length", b"2")])
    assert type(served.exchange.body(b"too much").error) is ASGIError
    assert served.exchange.body(b"ok").error is None
    client.run()
    assert reply.body == b"ok" and reply.ended


# ---------------------------------------------------------------- too many, and the log


def test_exchanges_beyond_the_limit_get_503_without_asking_the_application(serve: Serve) -> None:
    served = serve(limit_concurrency=1)
    client: Any = Http2Client(served)
    first, second = client.ask("/first"), client.ask("/second")
    assert (second.status, second.body) == (503, b"Service Unavailable")
    assert second.fields[b"retry-after"] == b"1"
    served.exchange.respond()
    client.run()
    assert first.ended
    served.exchange.finish()
    client.ask("/third")
    assert [exchange.scope["path"] for exchange in served.app.exchanges] == ["/first", "/third"]
    assert served.access.lines == [("/second", 503, 19), ("/first", 200, 0)]


def test_every_exchange_has_one_line_in_the_access_log(serve: Serve) -> None:
    served = serve(limits=Limits(body=10))
    client: Any = Http2Client(served)
    client.ask("/fine")
    served.exchange.respond(201, b"hello")
    client.ask("/cancelled")
    served.exchange.start()
    served.exchange.body(b"abc", more=True)
    client.send(reset(client.last))
    client.ask("/too-large", method="POST", end=False)
    client.send(data(client.last, b"x" * 11))
    client.ask("/too-large-and-begun", method="POST", end=False)
    served.exchange.start()
    client.send(data(client.last, b"x" * 11))
    client.ask("/lost")
    served.exchange.start(202)
    client.ask("/unanswered")
    served.peer.reset()
    served.loop.run_until_idle()
    for exchange in served.app.exchanges:
        exchange.finish()
    assert served.access.lines == [
        ("/fine", 201, 5),
        ("/cancelled", 200, 3),
        ("/too-large", 413, 0),
        ("/too-large-and-begun", 200, 0),
        ("/lost", 202, 0),
    ]


def test_the_line_says_http_2(serve: Serve) -> None:
    from omnicorn.observability.access_log import AccessLog

    lines: list[str] = []
    served = serve(hello, access_log=None)
    log = AccessLog('%(h)s "%(r)s" %(s)s %(B)s', lines.append, served.loop.call_soon)
    served.service.access_log = log
    Http2Client(served).ask("/a?b=c")
    log.flush()
    assert "".join(lines).splitlines() == ['192.0.2.1 "GET /a?b=c HTTP/2" 200 2']


def test_the_duration_is_from_the_head_to_the_end_of_the_response(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    client.ask()
    client.advance(3.0)
    served.exchange.respond()
    client.advance(4.0)
    assert served.access.durations == [3.0]


def test_without_an_access_log_nothing_is_asked_of_it(serve: Serve) -> None:
    served = serve(hello, access_log=None)
    client: Any = Http2Client(served)
    assert client.ask().ended
    client.ask(method="POST", end=False)
    client.send(reset(3))


@pytest.mark.parametrize(
    ("limits", "fields", "content", "status"),
    [
        (Limits(body=10), (("content-length", "11"),), b"", 413),
        (Limits(body=10), (), b"x" * 11, 413),
        (Limits(fields=5), tuple((f"x-{n}", "1") for n in range(9)), b"", 431),
        (Limits(line=100), (), b"", 414),
        (Limits(), (("expect", "miracles"),), b"", 417),
    ],
)
def test_a_request_that_asks_for_too_much_is_answered_and_the_others_go_on(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    limits: Limits,
    fields: Any,
    content: bytes,
    status: int,
) -> None:
    served = serve(limits=limits)
    client: Any = Http2Client(served)
    other = client.ask("/other")
    path = "/" + "x" * 200 if status == 414 else "/"
    refused = client.ask(path, *fields, method="POST", end=False)
    if content:
        client.send(data(3, content))
    assert refused.status == status and refused.ended
    assert refused.fields[b"content-type"] == b"text/plain; charset=utf-8"
    served.app.exchanges[0].respond(body=b"fine")
    client.run()
    assert other.body == b"fine" and not client.gone
    (line,) = logged(caplog)
    assert line.startswith(f"192.0.2.1:50000 - refused with {status}: ")


def test_an_application_whose_client_sent_too_much_is_told(serve: Serve) -> None:
    served = serve(limits=Limits(body=10))
    client: Any = Http2Client(served)
    client.ask(method="POST", end=False)
    exchange = served.exchange
    waiting = exchange.receive()
    client.send(data(1, b"x" * 11))
    assert waiting.result == DISCONNECT
    assert type(exchange.start().error) is ClientDisconnected


def test_a_malformed_request_resets_its_stream_and_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 9113 §8.1.1."""
    served = serve(hello)
    client: Any = Http2Client(served)
    bad = client.ask("/", ("Upper", "case"))
    assert bad.reset == PROTOCOL_ERROR
    assert client.ask().body == b"hi"
    assert logged(caplog) == [
        "192.0.2.1:50000 - refused with PROTOCOL_ERROR: a field name is not in lower case"
    ]


def test_many_refusals_do_not_fill_the_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = serve(hello)
    client: Any = Http2Client(served)
    for _ in range(50):
        client.ask("/", ("Upper", "case"))
    assert len(logged(caplog)) == 10
    client.advance(11.0)
    client.ask("/", ("Upper", "case"))
    assert len(logged(caplog)) == 12
    assert "40 more" in logged(caplog)[10]


# ---------------------------------------------------------------- a broken connection


def test_a_broken_connection_is_told_why_and_lingered_for(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 9113 §5.4.1: what the peer goes on sending must not take our GOAWAY away."""
    served = serve()
    client: Any = Http2Client(served)
    client.polite = False
    client.ask(method="POST", end=False)
    waiting = served.exchange.receive()
    waiting = served.exchange.receive() if waiting.done else waiting
    client.send(frame(DATA, 0, 5, b"x"), client.headers())
    assert client.goaways == [(1, PROTOCOL_ERROR)]
    assert waiting.result == DISCONNECT
    assert served.peer.eof
    for _ in range(10):
        client.send(b"still going on" * 1000)
    assert not served.peer.was_reset
    served.loop.advance(LINGER_TIME + 2 * WIDTH)
    assert served.peer.transport.is_lost
    assert len(logged(caplog)) == 1
    assert len(served.app.exchanges) == 1


def test_the_linger_is_over_when_the_client_has_closed(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    client.send(frame(DATA, 0, 5, b"x"))
    assert client.goaways == [(0, PROTOCOL_ERROR)]
    assert not served.service.connections


def test_a_broken_preface_is_refused(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """RFC 9113 §3.4."""
    served = serve()
    client: Any = Http2Client(served, direct(served), asks=None)
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert client.goaways == [(0, PROTOCOL_ERROR)]
    assert logged(caplog) == [
        "192.0.2.1:50000 - refused with PROTOCOL_ERROR: the connection preface is broken"
    ]


def test_a_peer_that_has_gone_before_the_linger_begins_does_no_harm(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(107, "Transport endpoint is not connected")

    served = serve()
    client: Any = Http2Client(served)
    monkeypatch.setattr(served.peer.transport, "write_eof", fail)
    client.send(frame(DATA, 0, 5, b"x"))
    assert served.peer.was_reset and not served.service.connections


def test_a_transport_that_cannot_close_one_half_is_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    client: Any = Http2Client(served)
    monkeypatch.setattr(served.peer.transport, "can_write_eof", lambda: False)
    client.send(frame(DATA, 0, 5, b"x"))
    assert client.goaways == [(0, PROTOCOL_ERROR)]
    assert served.peer.eof and not served.service.connections


def test_a_client_that_leaves_silently_is_no_line_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(hello)
    client: Any = Http2Client(served)
    client.ask()
    served.peer.close()
    client.run()
    assert logged(caplog) == []
    assert served.peer.eof and not served.service.connections


def test_the_last_response_is_not_taken_away_by_what_its_reader_still_sends(
    serve: Serve,
) -> None:
    """RFC 9112 §9.6: a close with bytes unread resets; clients open windows as they read."""
    served = serve(link={"window": 40_000})
    client: Any = Http2Client(served)
    reply = client.ask()
    served.peer.pause()
    served.exchange.start()
    served.exchange.body(b"x" * 60_000)
    served.service.drain(lambda: None)
    served.peer.send(frame(PING, ACK, 0, b"omnidrai"))
    served.loop.run_until_idle()
    served.peer.read(20_000)
    served.loop.run_until_idle()
    served.peer.send(window_update(0, 20_000) + window_update(1, 20_000))
    served.loop.run_until_idle()
    served.peer.resume()
    client.run()
    assert len(reply.body) == 60_000 and reply.ended
    assert not served.peer.was_reset


# ---------------------------------------------------------------- deadlines


def test_a_new_connection_may_be_silent_for_15_seconds(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served, direct(served), asks=None)
    client.advance(just_before(15.0))
    assert not client.gone
    client.advance(WIDTH * 1.5)
    assert client.gone and not client.peer.was_reset


def test_a_preface_that_drips_has_15_seconds_in_total(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served, direct(served), asks=None)
    for byte in PREFACE[:14]:
        client.send(bytes((byte,)))
        client.advance(1.0)
    assert not client.gone
    client.advance(1.0 + WIDTH)
    assert client.gone


def test_an_idle_connection_is_closed_with_goaway_after_75_seconds(serve: Serve) -> None:
    served = serve(hello)
    client: Any = Http2Client(served)
    client.advance(40.0)
    assert client.ask().ended
    client.advance(just_before(75.0))
    assert not client.gone
    client.advance(WIDTH * 1.5)
    assert client.goaways == [(1, NO_ERROR)]
    assert served.peer.eof and not served.peer.was_reset


@pytest.mark.parametrize("asked", [False, True])
def test_a_short_idle_time_is_kept_from_the_beginning(serve: Serve, asked: bool) -> None:
    served = serve(hello, timeouts=Timeouts(keep_alive=5.0))
    client: Any = Http2Client(served)
    if asked:
        client.advance(3.0)
        client.ask()
    client.advance(just_before(5.0))
    assert not client.gone
    client.advance(WIDTH * 1.5)
    assert client.gone


def test_a_short_idle_time_begins_with_the_last_response(serve: Serve) -> None:
    served = serve(timeouts=Timeouts(keep_alive=5.0))
    client: Any = Http2Client(served)
    client.ask()
    client.advance(33.3)
    assert not client.gone
    served.exchange.respond()
    client.advance(just_before(5.0))
    assert not client.gone
    client.advance(WIDTH * 1.5)
    assert client.gone


def test_a_short_idle_time_is_kept_after_slow_reading(serve: Serve) -> None:
    served = serve(timeouts=Timeouts(keep_alive=5.0), link={"window": 1000})
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 20),))
    client.grant(0, 1 << 20)
    client.ask()
    served.peer.pause()
    served.exchange.start()
    call = served.exchange.body(b"x" * 500_000)
    client.advance(30.0)
    served.peer.resume()
    client.run()
    assert call.done and client.streams[1].ended
    client.advance(just_before(5.0))
    assert not client.gone
    client.advance(WIDTH * 1.5)
    assert client.gone


def drip(client: Any, sent: bytes, seconds: int) -> int:
    """Send *sent* each second; returns how many passed before the end."""
    for second in range(seconds):
        if client.gone:
            return second
        client.send(sent)
        client.advance(1.0)
    return seconds


ASKING = frame(PING, 0, 0, b"are you?")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", ASKING),
        (ASKING[:12], ASKING[12:] + ASKING[:12]),
        (b"", window_update(0, 1)),
        (b"", frame(0x42, 0, 0, b"x")),
    ],
    ids=["PING", "never a whole PING", "WINDOW_UPDATE", "an unknown type"],
)
def test_a_client_that_asks_for_nothing_is_idle_whatever_it_says(
    serve: Serve, first: bytes, then: bytes
) -> None:
    served = serve(hello, timeouts=Timeouts(keep_alive=5.0))
    client: Any = Http2Client(served)
    client.advance(3.0)
    client.ask()
    client.send(first)
    assert drip(client, then, 20) in (5, 6)
    assert client.goaways == [(1, NO_ERROR)] and not client.peer.was_reset


def test_a_client_that_waits_for_an_answer_is_not_idle(serve: Serve) -> None:
    served = serve(timeouts=Timeouts(keep_alive=5.0))
    client: Any = Http2Client(served)
    reply = client.ask()
    assert drip(client, ASKING, 20) == 20
    served.exchange.respond(body=b"at last")
    client.run()
    assert reply.body == b"at last"
    assert drip(client, ASKING, 20) in (5, 6)


@pytest.mark.parametrize("how", ["END_STREAM", "RST_STREAM"])
def test_idle_time_begins_with_the_end_of_an_answered_upload(serve: Serve, how: str) -> None:
    """Its response was over before, and nobody had more to say about it."""
    served = serve(hello, timeouts=Timeouts(keep_alive=5.0))
    client: Any = Http2Client(served)
    client.advance(3.0)
    assert client.ask(method="POST", end=False).ended
    client.advance(1.5)
    client.send(data(1, b"x", True) if how == "END_STREAM" else reset(1))
    client.advance(just_before(5.0))
    assert not client.gone
    client.advance(WIDTH * 1.5)
    assert client.gone


def test_idle_time_begins_with_the_end_of_an_upload_that_is_given_up(serve: Serve) -> None:
    served = serve(hello, timeouts=Timeouts(keep_alive=5.0))
    client: Any = Http2Client(served)
    client.advance(3.0)
    reply = client.ask(method="POST", end=False)
    client.advance(2.0 + WIDTH)
    assert reply.reset == NO_ERROR
    client.advance(just_before(5.0) - WIDTH)
    assert not client.gone
    client.advance(WIDTH * 2.5)
    assert client.gone


def test_a_request_that_has_begun_when_the_idle_time_ends_is_answered(serve: Serve) -> None:
    served = serve(hello, timeouts=Timeouts(keep_alive=5.0))
    client: Any = Http2Client(served)
    client.advance(4.9)
    sent = client.headers("/")
    client.send(sent[:15])
    client.advance(5.0)
    assert not client.gone
    client.send(sent[15:])
    assert client.streams[1].body == b"hi"
    client.advance(5.0 + WIDTH)
    assert client.gone


@pytest.mark.parametrize("kind", [HEADERS, PING])
def test_a_frame_that_begins_on_an_idle_connection_has_15_seconds(serve: Serve, kind: int) -> None:
    served = serve(hello, http2=Http2(ping_interval=0.0), timeouts=Timeouts(body=5.0))
    client: Any = Http2Client(served)
    client.advance(40.0)
    client.send((client.headers("/") if kind == HEADERS else ASKING)[:15])
    client.advance(just_before(15.0))
    assert not client.gone
    client.advance(WIDTH * 1.5)
    assert client.goaways == [(0, ENHANCE_YOUR_CALM)]


def test_settings_that_come_late_leave_the_whole_idle_time(serve: Serve) -> None:
    served = serve(hello, timeouts=Timeouts(keep_alive=5.0, body=2.0))
    client: Any = Http2Client(served, direct(served), asks=None)
    client.advance(10.0)
    client.send(PREFACE, settings())
    client.advance(just_before(5.0))
    assert not client.gone
    client.advance(WIDTH * 1.5)
    assert client.gone


def test_an_application_may_take_its_time(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask()
    client.advance(1000.0)
    served.exchange.respond(body=b"at last")
    client.run()
    assert reply.body == b"at last"


def test_content_that_stalls_for_30_seconds_is_answered_408_and_the_others_go_on(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    client: Any = Http2Client(served)
    other = client.ask("/other")
    stalled = client.ask("/stalled", method="POST", end=False)
    exchange = served.exchange
    client.send(data(3, b"some"))
    exchange.receive()
    waiting = exchange.receive()
    client.advance(just_before(30.0))
    assert not waiting.done
    client.advance(WIDTH * 1.5)
    assert stalled.status == 408 and waiting.result == DISCONNECT
    served.app.exchanges[0].respond(body=b"fine")
    client.run()
    assert other.body == b"fine" and not client.gone
    assert [line[:2] for line in served.access.lines] == [("/stalled", 408), ("/other", 200)]
    assert len(logged(caplog)) == 1


def test_content_may_take_long_as_long_as_it_comes(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask(method="POST", end=False)
    for _ in range(10):
        client.advance(29.0)
        client.send(data(1, b"x"))
    assert not reply.is_reset() and not reply.headers


def test_a_slow_application_is_not_its_clients_fault(serve: Serve) -> None:
    served = serve(http2=Http2(stream_window=70_000))
    client: Any = Http2Client(served)
    reply = client.ask(method="POST", end=False)
    client.send(data(1, b"x" * 70_000))
    client.advance(200.0)
    assert not reply.is_reset() and not reply.headers
    served.exchange.receive()
    client.advance(29.0)
    assert not reply.is_reset()
    client.advance(2.0)
    assert reply.status == 408


def test_the_rest_of_an_answered_upload_has_a_deadline(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask(method="POST", end=False)
    served.exchange.respond()
    served.exchange.finish()
    client.advance(31.0)
    assert reply.ended and reply.reset in (NO_ERROR, CANCEL)
    client.advance(75.0)
    assert client.gone


def test_a_window_that_stays_shut_for_60_seconds_ends_its_stream_alone(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """CVE-2019-9517."""
    served = serve()
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 100),), auto=False)
    stalled = client.ask("/stalled")
    served.exchange.start()
    call = served.exchange.body(b"x" * 100_000, more=True)
    client.advance(30.0)
    quick = client.ask("/quick")
    served.exchange.respond(body=b"y")
    client.advance(just_before(30.0))
    assert not call.done and not stalled.is_reset()
    client.advance(WIDTH * 1.5)
    assert stalled.reset == CANCEL and type(call.error) is ClientDisconnected
    assert quick.ended and not client.gone
    assert len(logged(caplog)) == 1


def test_a_window_that_opens_a_little_keeps_its_stream(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 100),), auto=False)
    stalled = client.ask()
    served.exchange.start()
    served.exchange.body(b"x" * 100_000, more=True)
    for _ in range(5):
        client.advance(59.0)
        client.grant(1, 100)
    assert not stalled.is_reset() and len(stalled.body) == 600


def test_a_connections_window_that_stays_shut_ends_what_waits_for_it(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 20),), auto=False)
    replies = [client.ask(), client.ask()]
    for exchange in served.app.exchanges:
        exchange.start()
        exchange.body(b"x" * 100_000, more=True)
    client.advance(61.0)
    assert [reply.reset for reply in replies] == [CANCEL, CANCEL]


def test_a_transport_that_takes_nothing_for_60_seconds_is_cut(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 20),))
    client.grant(0, 1 << 20)
    client.ask()
    served.peer.pause()
    served.exchange.start()
    call = served.exchange.body(b"x" * 1_000_000, more=True)
    served.loop.advance(just_before(60.0))
    assert not served.peer.was_reset
    served.loop.advance(WIDTH * 1.5)
    assert served.peer.was_reset
    assert type(call.error) is ClientDisconnected


def test_a_transport_that_takes_a_little_stays(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 20),))
    client.grant(0, 1 << 20)
    reply = client.ask()
    served.peer.pause()
    served.exchange.start()
    served.exchange.body(b"x" * 300_000)
    for _ in range(5):
        served.loop.advance(59.0)
        served.peer.read(1000)
    served.peer.resume()
    client.run()
    assert reply.ended and len(reply.body) == 300_000


def test_a_silent_client_with_requests_in_flight_gets_a_ping(serve: Serve) -> None:
    served = serve(http2=Http2(ping_interval=10.0))
    client: Any = Http2Client(served)
    client.advance(30.0)
    client.take()
    client.ask()
    client.take()
    client.advance(just_before(10.0))
    assert client.take() == []
    client.advance(WIDTH * 1.5)
    assert [f.kind for f in client.take()] == [PING]
    client.advance(10.0 + 3 * WIDTH)
    assert [f.kind for f in client.take()] == [PING]
    served.exchange.respond()
    client.run()
    assert client.streams[1].ended


def test_a_ping_that_is_not_answered_cuts_the_connection(serve: Serve) -> None:
    served = serve(http2=Http2(ping_interval=10.0))
    client: Any = Http2Client(served)
    client.pongs = False
    client.ask()
    waiting = served.exchange.receive()
    waiting = served.exchange.receive()
    client.advance(10.0 + WIDTH)
    assert not client.gone
    client.advance(10.0 + WIDTH)
    assert client.gone and waiting.result == DISCONNECT
    assert not served.service.connections


def test_any_byte_of_a_client_is_a_sign_of_life(serve: Serve) -> None:
    served = serve(http2=Http2(ping_interval=10.0))
    client: Any = Http2Client(served)
    client.pongs = False
    client.ask(method="POST", end=False)
    for _ in range(10):
        client.advance(9.0)
        client.send(data(1, b"x"))
    assert not client.gone


def test_an_idle_connection_gets_no_ping(serve: Serve) -> None:
    served = serve(hello, http2=Http2(ping_interval=10.0))
    client: Any = Http2Client(served)
    client.ask()
    client.take()
    client.advance(74.0)
    assert client.take() == []


def test_pings_of_the_client_are_answered(serve: Serve) -> None:
    client: Any = Http2Client(serve())
    client.take()
    client.send(frame(PING, 0, 0, b"are you?"))
    assert client.take() == [(PING, ACK, 0, b"are you?")]


# ---------------------------------------------------------------- the server stops


def drained(served: Any) -> list[bool]:
    over: list[bool] = []
    served.service.drain(lambda: over.append(True))
    return over


def test_a_drain_closes_an_idle_connection_at_once(serve: Serve) -> None:
    """RFC 9113 §6.8."""
    served = serve(hello)
    client: Any = Http2Client(served)
    client.ask()
    over = drained(served)
    client.run()
    assert client.goaways == [(1, NO_ERROR)]
    assert served.peer.eof and not served.peer.was_reset
    assert over == [True]


def test_a_drain_closes_a_connection_that_has_not_said_a_word(serve: Serve) -> None:
    served = serve()
    served.peer.close()
    client: Any = Http2Client(served, direct(served), asks=None)
    over = drained(served)
    client.run()
    assert client.gone and over == [True]


def test_a_connection_that_comes_while_the_server_stops_is_sent_away(serve: Serve) -> None:
    served = serve()
    served.peer.close()
    served.loop.run_until_idle()
    over = drained(served)
    client: Any = Http2Client(served, direct(served), asks=None)
    client.run()
    assert client.goaways == [(0, NO_ERROR)] and client.gone
    assert over == [True]


def test_a_drain_lets_what_is_in_flight_finish_and_takes_nothing_new(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    first, second = client.ask("/1"), client.ask("/2", method="POST", end=False)
    over = drained(served)
    client.run()
    # In two steps: first a warning, then, after a round trip, the last stream.
    assert client.goaways == [(0x7FFFFFFF, NO_ERROR), (3, NO_ERROR)]
    late = client.ask("/late")
    assert not late.headers and len(served.app.exchanges) == 2
    one, two = served.app.exchanges
    one.respond(body=b"one")
    one.finish()
    client.run()
    assert first.body == b"one" and not client.gone
    client.send(data(3, b"body", end=True))
    assert two.receive().result["body"] == b"body"
    two.respond(body=b"two")
    two.finish()
    client.run()
    assert second.body == b"two" and second.ended
    assert served.peer.eof and not served.peer.was_reset
    assert over == [True]


def test_a_request_that_crosses_the_first_goaway_is_served(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    client.ask("/1")
    head = client.headers("/crossing")
    drained(served)
    client.send(head)
    assert [exchange.scope["path"] for exchange in served.app.exchanges] == ["/1", "/crossing"]
    assert client.goaways[-1] == (3, NO_ERROR)
    for exchange in served.app.exchanges:
        exchange.respond()
        exchange.finish()
    client.run()
    assert client.streams[3].ended and client.gone


def test_a_client_that_does_not_answer_the_drains_ping_does_not_hold_it_up(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    client.pongs = False
    reply = client.ask()
    over = drained(served)
    served.exchange.respond()
    served.exchange.finish()
    client.run()
    assert reply.ended
    client.advance(5.0)
    assert client.gone and over == [True]


def test_an_application_that_is_told_of_the_stop_may_still_answer(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask()
    served.exchange.receive()
    waiting = served.exchange.receive()
    drained(served)
    served.service.disconnect()
    client.run()
    assert waiting.result == DISCONNECT
    served.exchange.respond(body=b"in time")
    client.run()
    assert reply.body == b"in time"
    served.exchange.finish()
    client.run()
    assert client.gone


@pytest.mark.parametrize("reading", [True, False])
def test_cancel_ends_applications_and_connections_at_once(serve: Serve, reading: bool) -> None:
    served = serve(link={"window": 1000})
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 20),))
    client.grant(0, 1 << 20)
    client.ask()
    client.ask(method="POST", end=False)
    if not reading:
        served.peer.pause()
        served.exchange.start()
        served.exchange.body(b"x" * 1_000_000, more=True)
    over = drained(served)
    served.service.cancel()
    served.loop.run_until_idle()
    assert all(exchange.left for exchange in served.app.exchanges)
    assert not served.service.connections and over == [True]
    assert served.peer.was_reset or served.peer.eof


def test_cancel_cuts_a_connection_that_is_closing_already(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 20),))
    client.grant(0, 1 << 20)
    client.ask()
    served.peer.pause()
    served.exchange.start()
    served.exchange.body(b"x" * 50_000)
    served.exchange.finish()
    over = drained(served)
    served.peer.send(frame(PING, ACK, 0, b"omnidrai"))
    served.loop.run_until_idle()
    served.service.cancel()
    served.loop.run_until_idle()
    assert over == [True]


def test_cancel_in_the_turn_of_a_request_counts_it_out(serve: Serve) -> None:
    served = serve(hello)
    client: Any = Http2Client(served)
    served.peer.send(client.headers())
    served.peer.transport._deliver()
    served.service.cancel()
    served.loop.run_until_idle()
    assert served.service.active == 0


def test_an_application_that_outlives_its_connection_is_disconnected_and_cancelled(
    serve: Serve,
) -> None:
    served = serve()
    client: Any = Http2Client(served)
    client.ask()
    served.exchange.respond()
    client.run()
    served.peer.reset()
    served.loop.run_until_idle()
    assert served.service.active == 1 and len(served.service.stragglers) == 1
    served.service.disconnect()
    served.service.cancel()
    served.loop.run_until_idle()
    assert served.exchange.left and served.service.active == 0


# ---------------------------------------------------------------- extensions


def test_trailers_follow_the_content(serve: Serve) -> None:
    """RFC 9113 §8.1."""
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask("/", ("te", "trailers"))
    served.exchange.start(trailers=True)
    served.exchange.body(b"content")
    trailers = {"type": "http.response.trailers", "headers": [(b"Grpc-Status", b"0")]}
    served.exchange.send({**trailers, "more_trailers": True})
    client.run()
    assert reply.body == b"content" and not reply.ended
    served.exchange.send({**trailers, "headers": [(b"x", b"y")]})
    client.run()
    assert reply.trailers == [(b"grpc-status", b"0"), (b"x", b"y")] and reply.ended
    assert served.access.lines == [("/", 200, 7)]


def test_trailers_without_content_come_after_the_head(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask()
    served.exchange.start(trailers=True)
    served.exchange.body(b"")
    served.exchange.send({"type": "http.response.trailers", "headers": [(b"a", b"b")]})
    client.run()
    assert (reply.body, reply.trailers, reply.ended) == (b"", [(b"a", b"b")], True)


def test_trailers_wait_behind_content_that_waits(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 10),), auto=False)
    reply = client.ask()
    served.exchange.start(trailers=True)
    served.exchange.body(b"x" * 30)
    served.exchange.send({"type": "http.response.trailers", "headers": [(b"a", b"b")]})
    client.run()
    assert reply.body == b"x" * 10 and not reply.trailers
    client.grant(1, 20)
    assert reply.body == b"x" * 30 and reply.trailers == [(b"a", b"b")] and reply.ended


def test_early_hints_come_before_the_response_and_may_come_often(serve: Serve) -> None:
    """RFC 8297."""
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask()
    for name in (b"</a>", b"</b>"):
        served.exchange.send({"type": "http.response.early_hint", "links": [name]})
        client.run()
    assert reply.informational == [
        [(b":status", b"103"), (b"link", b"</a>")],
        [(b":status", b"103"), (b"link", b"</b>")],
    ]
    served.exchange.respond(body=b"!")
    client.run()
    assert reply.status == 200 and reply.body == b"!"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 1200)
    return file


@pytest.mark.parametrize("sendfile", [False, True])
def test_a_file_is_sent_in_frames_as_the_windows_allow(
    serve: Serve, path: Path, sendfile: bool
) -> None:
    served = serve(sendfile=sendfile)
    client: Any = Http2Client(served, auto=False)
    reply = client.ask()
    served.exchange.start()
    call = served.exchange.send({"type": "http.response.pathsend", "path": str(path)})
    client.run()
    assert len(reply.body) == WINDOW and not call.done
    client.grant(0, 1 << 20)
    client.grant(1, 1 << 20)
    assert reply.body == path.read_bytes() and reply.ended and call.error is None
    assert served.access.lines == [("/", 200, len(reply.body))]


def test_parts_of_open_files_mix_with_ordinary_content(serve: Serve, path: Path) -> None:
    served = serve(sendfile=True)
    client: Any = Http2Client(served)
    reply = client.ask()
    with path.open("rb") as file:
        part = {"type": "http.response.zerocopysend", "file": file, "more_body": True}
        served.exchange.start()
        served.exchange.body(b"<", more=True)
        served.exchange.send({**part, "offset": 10, "count": 100_000})
        client.run()
        served.exchange.body(b">")
        client.run()
    assert reply.body == b"<" + path.read_bytes()[10:100_010] + b">" and reply.ended


def test_a_client_that_cancels_a_file_ends_it(serve: Serve, path: Path) -> None:
    served = serve()
    client: Any = Http2Client(served, auto=False)
    client.ask()
    served.exchange.start()
    call = served.exchange.send({"type": "http.response.pathsend", "path": str(path)})
    client.run()
    client.send(reset(1))
    assert type(call.error) is ClientDisconnected


def test_a_head_request_for_a_file_gets_its_head(serve: Serve, path: Path) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask(method="HEAD")
    served.exchange.start(headers=[(b"content-length", b"307200")])
    served.exchange.send({"type": "http.response.pathsend", "path": str(path)})
    client.run()
    assert reply.body == b"" and reply.ended and reply.fields[b"content-length"] == b"307200"


# ---------------------------------------------------------------- push


def push(exchange: Any, path: Any, headers: Any = ()) -> Any:
    return exchange.send({"type": "http.response.push", "path": path, "headers": headers})


def test_a_push_is_an_exchange_of_its_own(serve: Serve) -> None:
    """RFC 9113 §8.4."""
    served = serve(root_path="/app")
    client: Any = Http2Client(served)
    page = client.ask("/page", ("cookie", "a=1"))
    parent = served.exchange
    push(parent, "/style.css?v=1", [(b"Accept", b"text/css")])
    pushed = served.exchange
    assert pushed is not parent
    expected = {
        **parent.scope,
        "path": "/app/style.css",
        "raw_path": b"/app/style.css",
        "query_string": b"v=1",
        "headers": [(b"host", b"example.org"), (b"accept", b"text/css")],
    }
    assert pushed.scope == expected
    assert pushed.receive().result == {"type": "http.request", "body": b"", "more_body": False}
    pushed.respond(body=b"css")
    parent.respond(body=b"html")
    client.run()
    assert client.streams[2].promised == [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"example.org"),
        (b":path", b"/style.css?v=1"),
        (b"accept", b"text/css"),
    ]
    assert (client.streams[2].body, page.body) == (b"css", b"html")
    assert served.access.lines == [("/app/style.css", 200, 3), ("/app/page", 200, 4)]
    kinds = [found.kind for found in client.frames]
    assert kinds.index(PUSH_PROMISE) < kinds.index(DATA)


def test_a_promise_stands_before_the_content_that_refers_to_it(serve: Serve) -> None:
    """RFC 9113 §8.4.1."""
    served = serve()
    client: Any = Http2Client(served)
    client.ask()
    parent = served.exchange
    parent.start()
    push(parent, "/style.css")
    parent.body(b"<link href=/style.css>")
    client.run()
    kinds = [found.kind for found in client.frames if found.kind in (PUSH_PROMISE, DATA)]
    assert kinds == [PUSH_PROMISE, DATA]


@pytest.mark.parametrize("why", ["push is off", "too many", "its request was pushed"])
def test_a_push_that_its_client_does_not_take_is_silently_nothing(serve: Serve, why: str) -> None:
    served = serve()
    asks = {"push is off": (ENABLE_PUSH, 0), "too many": (3, 0)}
    client: Any = Http2Client(served, asks=(asks[why],) if why in asks else ())
    client.ask()
    exchange = served.exchange
    if why == "its request was pushed":
        assert push(exchange, "/1").error is None
        exchange = served.exchange
    before = len(served.app.exchanges)
    assert push(exchange, "/never").error is None
    assert len(served.app.exchanges) == before


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("relative", ()),
        ("", ()),
        (None, ()),
        (b"/bytes", ()),
        ("/", [(b":path", b"/other")]),
        ("/", [(b"a b", b"c")]),
        ("/", [(b"a", b"b\r\nc")]),
        ("/", [("text", "text")]),
        ("/", [(b"alone",)]),
        ("/", None),
        ("/", [(b"host", b"elsewhere.example")]),
        ("/", [(b"connection", b"close")]),
        ("/", [(b"content-length", b"5")]),
    ],
)
def test_a_push_that_is_no_request_is_refused(serve: Serve, path: Any, headers: Any) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.ask()
    assert type(push(served.exchange, path, headers).error) is ASGIError
    assert len(served.app.exchanges) == 1
    served.exchange.respond(body=b"all the same")
    client.run()
    assert reply.body == b"all the same" and 2 not in client.streams


def test_a_path_is_sent_encoded(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    client.ask()
    push(served.exchange, "/ä b%20c")
    client.run()
    assert (b":path", b"/%C3%A4%20b%20c") in (client.streams[2].promised or [])
    assert served.exchange.scope["path"] == "/ä b c"


def test_a_client_may_cancel_what_is_pushed(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    page = client.ask()
    parent = served.exchange
    push(parent, "/style.css")
    pushed = served.exchange
    pushed.receive()
    waiting = pushed.receive()
    client.send(reset(2))
    assert waiting.result == DISCONNECT
    parent.respond(body=b"html")
    client.run()
    assert page.ended and not client.gone


def test_a_drain_waits_for_what_was_promised(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    client.ask()
    parent = served.exchange
    push(parent, "/style.css")
    pushed = served.exchange
    parent.respond()
    parent.finish()
    over = drained(served)
    client.run()
    assert not client.gone
    pushed.respond(body=b"css")
    pushed.finish()
    client.run()
    assert client.streams[2].body == b"css"
    assert client.gone and over == [True]


def test_nothing_is_pushed_while_the_server_stops(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    client.ask()
    drained(served)
    assert push(served.exchange, "/style.css").error is None
    assert len(served.app.exchanges) == 1
    served.exchange.finish()
    client.run()


# ---------------------------------------------------------------- on a plain port


@pytest.mark.parametrize("cut", range(1, len(PREFACE) + 9 + 3))
def test_the_preface_is_recognised_however_it_is_cut(serve: Serve, cut: int) -> None:
    """RFC 9113 §3.3: with prior knowledge."""
    served = serve(echo_path)
    client: Any = Http2Client(served, asks=None)
    wire = PREFACE + settings() + client.headers("/cut")
    served.peer.send(wire[:cut])
    served.loop.run_until_idle()
    served.peer.send(wire[cut:])
    client.greeted = True
    client.run()
    assert client.streams[1].body == b"/cut"
    assert not client.gone


def test_the_preface_and_requests_may_come_in_one_segment(serve: Serve) -> None:
    served = serve(echo_path)
    client: Any = Http2Client(served, asks=None)
    client.greeted = True
    client.send(PREFACE, settings(), client.headers("/1"), client.headers("/2"))
    assert [reply.body for reply in client.streams.values()] == [b"/1", b"/2"]
    assert {type(each) for each in served.service.connections} == {Http2Connection}


def test_what_only_begins_like_the_preface_is_http_1(serve: Serve) -> None:
    served = serve(hello)
    answer = served.send(b"PRI /x HTTP/1.1\r\nhost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"])
def test_the_preface_is_refused_where_it_has_no_place(serve: Serve, before: bytes) -> None:
    """It stands at the very beginning; and HTTP/2 can be off."""
    served = serve(hello, http2=Http2(enabled=bool(before)))
    answer = served.send(before + PREFACE + settings())
    assert answer.endswith(b"HTTP/2.0 is not spoken here") or b"\r\nHTTP/1.1 " in b"\r\n" + answer
    status = answer.rsplit(b"HTTP/1.1 ", 1)[1][:3]
    assert status in (b"400", b"505")
    assert {type(each).__name__ for each in served.service.connections} <= {"Http1Connection"}


def test_over_tls_only_alpn_begins_http_2(serve: Serve) -> None:
    """RFC 9113 §3.2."""
    served = serve(hello)
    served.peer.close()
    served.peer = served.connect(extra={"ssl_object": TLS()})
    answer = served.send(PREFACE + settings())
    assert answer.startswith(b"HTTP/1.1 ") and answer[9:12] in (b"400", b"505")
    served.peer = served.connect(extra={"ssl_object": TLS()})
    assert served.get("/", *H2C).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_tls_handshake_on_a_plain_port_is_answered_400_and_named_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(hello)
    hello_bytes = bytes.fromhex("160301020001 0001fc0303") + bytes(range(32)) + b"\r\n" * 5
    answer = served.send(hello_bytes)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    (line,) = logged(caplog)
    assert "TLS was spoken to a port that does not speak it" in line


def test_http_1_goes_on_as_ever_on_the_same_port(serve: Serve) -> None:
    served = serve(hello)
    client: Any = Http2Client(served)
    peer = served.connect()
    peer.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    served.loop.run_until_idle()
    assert peer.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    assert client.ask().body == b"hi"


# ---------------------------------------------------------------- Upgrade: h2c

H2C = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")
H2C_101 = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: h2c\r\n\r\n"


def upgraded(served: Any, *fields: str, path: str = "/up", behind: bytes = b"") -> Any:
    """A client on a connection that was upgraded; its first reply is on stream 1."""
    request = ["GET " + path + " HTTP/1.1", "host: example.org", *(fields or H2C), "", ""]
    served.peer.send("\r\n".join(request).encode() + behind)
    served.loop.run_until_idle()
    wire = served.peer.take()
    assert wire.startswith(H2C_101)
    client: Any = Http2Client(served, asks=None)
    client._last = 1
    client.streams = {1: Reply(WINDOW), 3: Reply(WINDOW)}
    client.greeted = True
    answer = client.read(wire[len(H2C_101) :])
    client.send(answer if behind else PREFACE + settings() + answer)
    return client


@pytest.mark.parametrize("together", [False, True])
def test_a_request_is_upgraded_and_answered_on_stream_1(serve: Serve, together: bool) -> None:
    """RFC 7540 §3.2."""
    served = serve()
    behind = PREFACE + settings() if together else b""
    client = upgraded(served, *H2C, "cookie: a=1", "te: trailers", path="/up?x=1", behind=behind)
    scope = served.exchange.scope
    assert (scope["http_version"], scope["method"], scope["scheme"]) == ("2", "GET", "http")
    assert (scope["path"], scope["query_string"]) == ("/up", b"x=1")
    assert scope["headers"] == [(b"host", b"example.org"), (b"cookie", b"a=1")]
    assert "http.response.push" in scope["extensions"]
    served.exchange.respond(body=b"upgraded")
    client.run()
    assert client.streams[1].body == b"upgraded" and client.streams[1].ended
    again = client.ask("/again")
    served.exchange.respond(body=b"and on")
    client.run()
    assert again.body == b"and on"
    assert served.access.lines == [("/up", 200, 8), ("/again", 200, 6)]


def test_the_settings_of_an_upgrade_hold_at_once(serve: Serve) -> None:
    """RFC 7540 §3.2.1: ENABLE_PUSH 0, and a window of 10 bytes."""
    served = serve()
    payload = bytes.fromhex("0002 00000000 0004 0000000a")
    value = base64.urlsafe_b64encode(payload).rstrip(b"=").decode()
    client = upgraded(served, *H2C[:2], f"http2-settings: {value}")
    client.streams[1].window = 10
    client.auto = False
    assert "http.response.push" not in served.exchange.scope["extensions"]
    served.exchange.start()
    served.exchange.body(b"x" * 100, more=True)
    client.run()
    assert client.streams[1].body == b"x" * 10


def test_an_upgrade_may_be_followed_by_requests_in_one_segment(serve: Serve) -> None:
    served = serve(echo_path)
    spare: Any = Http2Client(served, asks=None)
    spare._last = 1
    client = upgraded(served, behind=PREFACE + settings() + spare.headers("/two"))
    client.run()
    assert (client.streams[1].body, client.streams[3].body) == (b"/up", b"/two")


@pytest.mark.parametrize(
    "fields",
    [
        H2C[:2],
        (*H2C, "http2-settings: AAMAAABk"),
        ("connection: Upgrade", *H2C[1:]),
        (*H2C[:2], "http2-settings: !!!"),
        (*H2C[:2], "http2-settings: AAMAAAB"),
        ("connection: HTTP2-Settings", *H2C[1:]),
        (H2C[0], "upgrade: h2", H2C[2]),
    ],
)
def test_an_upgrade_that_is_not_sound_is_answered_by_http_1(
    serve: Serve, fields: tuple[str, ...]
) -> None:
    """RFC 9110 §7.8: a server may ignore it."""
    served = serve(hello)
    assert served.get("/", *fields).startswith(b"HTTP/1.1 200 OK\r\n")
    assert served.get("/").startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "payload",
    ["0002 00000002", "0004 80000000", "0005 00000001", "0008 00000002"],
    ids=["ENABLE_PUSH", "INITIAL_WINDOW_SIZE", "MAX_FRAME_SIZE", "ENABLE_CONNECT_PROTOCOL"],
)
def test_an_upgrade_whose_settings_are_out_of_range_harms_nobody(
    serve: Serve, payload: str
) -> None:
    served = serve(hello)
    value = base64.urlsafe_b64encode(bytes.fromhex(payload)).decode()
    answer = served.get("/", *H2C[:2], f"http2-settings: {value}")
    assert answer.startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 400 ", H2C_101))
    served.advance(20.0)
    served.peer = served.connect()
    assert served.get().startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "fields", [("content-length: 4",), ("transfer-encoding: chunked",)], ids=lambda f: f[0]
)
def test_an_upgrade_with_content_is_answered_by_http_1(
    serve: Serve, fields: tuple[str, ...], http_request: Callable[..., bytes]
) -> None:
    served = serve(hello)
    body = b"4\r\nbody\r\n0\r\n\r\n" if "chunked" in fields[0] else b"body"
    answer = served.send(http_request("POST", "/", *fields, *H2C) + body)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_upgrade_is_not_taken_where_http_2_is_off(serve: Serve) -> None:
    served = serve(hello, http2=Http2(enabled=False))
    assert served.get("/", *H2C).startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_upgrade_may_follow_requests_of_http_1(serve: Serve) -> None:
    served = serve(echo_path)
    assert served.get("/before").endswith(b"/before")
    client = upgraded(served)
    assert client.streams[1].body == b"/up"


def test_an_upgraded_client_that_never_says_its_preface_is_let_go(serve: Serve) -> None:
    served = serve()
    assert served.get("/", *H2C).startswith(H2C_101)
    served.exchange.receive()
    waiting = served.exchange.receive()
    served.advance(15.0 - WIDTH)
    assert not waiting.done
    served.advance(WIDTH * 3 + LINGER_TIME)
    assert waiting.result == DISCONNECT
    served.advance(60.0)
    assert not served.service.connections


def test_an_upgrade_while_the_server_stops_is_finished_or_refused(serve: Serve) -> None:
    served = serve()
    served.send(b"GET / HTTP/1.1\r\nhost: a\r\n")
    over = drained(served)
    served.send("\r\n".join((*H2C, "", "")).encode())
    for exchange in served.app.exchanges:
        exchange.respond()
        exchange.finish()
    served.advance(20.0)
    assert over == [True]


def test_a_transport_that_is_full_when_a_connection_is_upgraded_stays_so(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        body = b"x" * 200_000 if scope["http_version"] == "1.1" else b"y"
        await send({"type": "http.response.body", "body": body})

    served = serve(app, link={"window": 1000})
    served.peer.pause()
    served.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    served.send("\r\n".join(("GET /up HTTP/1.1", "host: a", *H2C, "", "")).encode())
    served.peer.resume()
    served.loop.run_until_idle()
    assert H2C_101 in served.peer.take()


# ---------------------------------------------------------------- what is left in memory


async def conversation(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/bug":
        raise LookupError("a bug")
    if scope["path"] == "/late-bug":
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise LookupError("a bug")
    if scope["path"] == "/push":
        await send({"type": "http.response.push", "path": "/pushed", "headers": []})
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
    await send({"type": "http.response.body"})
    await receive()


VISITS = {
    "a request": lambda c: [c.headers()],
    "an upload": lambda c: [c.headers(method="POST", end=False), data(1, b"x" * 9, True)],
    "an upload that stops": lambda c: [c.headers(method="POST", end=False), data(1, b"x")],
    "a cancelled request": lambda c: [c.headers(method="POST", end=False), reset(1)],
    "a bug": lambda c: [c.headers("/bug")],
    "a late bug": lambda c: [c.headers("/late-bug")],
    "a push": lambda c: [c.headers("/push")],
    "a malformed request": lambda c: [c.headers("/", ("A", "b"))],
    "too large": lambda c: [c.headers("/", ("content-length", "99999"), method="POST", end=False)],
    "too large in the end": lambda c: [c.headers(method="POST", end=False), data(1, b"x" * 99)],
    "a broken connection": lambda c: [c.headers(), frame(DATA, 0, 9, b"x")],
    "a length that is wrong": lambda c: [
        c.headers("/", ("content-length", "9"), method="POST", end=False),
        data(1, b"x", True),
    ],
    "a shut window": lambda c: [c.headers(), settings((INITIAL_WINDOW, 0))],
    "goaway": lambda c: [c.headers(), frame(GOAWAY, 0, 0, bytes(8))],
    "an unknown protocol": lambda c: [
        c.headers(method="CONNECT", more=((":protocol", "x"),), end=False)
    ],
}


@pytest.fixture
def no_records() -> Iterator[None]:
    """pytest would keep log records, and with them the frames of tracebacks."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("no_records")
@pytest.mark.parametrize("end", ["FIN", "RST"])
@pytest.mark.parametrize("kind", VISITS)
def test_a_connection_that_is_gone_leaves_no_reference_cycle(
    serve: Serve, garbage: Callable[[], list[str]], kind: str, end: str
) -> None:
    def visit(peer: Any) -> weakref.ref[Any]:
        client: Any = Http2Client(served, peer, auto=kind != "a shut window")
        (connection,) = served.service.connections
        kept = weakref.ref(connection)
        del connection
        client.send(*VISITS[kind](client))
        if end == "drain":
            for each in tuple(served.service.connections):
                each.drain()
        elif end == "RST":
            peer.reset()
        elif end == "FIN" and not peer._closed:
            peer.close()
        client.run()
        client.advance(500.0)
        assert not served.service.connections and not served.service.active
        peer.transport.peer = None
        return kept

    served = serve(conversation, limits=Limits(body=50))
    first, served.peer = served.peer, None
    visit(first)
    del first
    garbage()
    kept = visit(served.connect())
    assert kept() is None
    assert garbage() == []


@pytest.mark.usefixtures("garbage")
def test_what_was_upgraded_is_gone_while_http_2_lives(serve: Serve) -> None:
    """The HTTP/1 connection and its engine."""

    def alive() -> set[str]:
        return {type(held).__name__ for held in gc.get_objects()}.intersection(parts)

    parts = {"Http1Connection", "Http1Engine", "Http2Connection", "Http2Engine", "HTTPCycle"}
    parts.add("Http2Stream")
    served = serve(hello)
    client = upgraded(served)
    assert client.streams[1].body == b"hi"
    assert alive() == {"Http2Connection", "Http2Engine"}
    served.peer.close()
    client.run()
    assert alive() == set()
