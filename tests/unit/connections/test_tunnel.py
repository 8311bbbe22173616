"""A WebSocket inside a stream of HTTP/2 (RFC 8441), from its handshake to its end."""

from __future__ import annotations

import logging
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from tests.frames import (
    ACCEPT,
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    closed,
    closing,
    frame,
    frames,
    text,
)
from tests.http2_client import (
    CANCEL,
    ENABLE_PUSH,
    GOAWAY,
    INITIAL_WINDOW,
    NO_ERROR,
    WINDOW,
    WINDOW_UPDATE,
    Http2Client,
    data,
    number,
    reset,
    watched,
)

from omnicorn.connections.deadlines import WIDTH
from omnicorn.connections.service import Http2, Timeouts, WebSockets
from omnicorn.connections.websocket import CLOSE_TIME
from omnicorn.errors import ASGIError, ClientDisconnected
from omnicorn.http.limits import Limits
from omnicorn.ports import HIGH_WATER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serve = Callable[..., Any]

CLOSE_IT = {"type": "websocket.close"}
NEVER = WebSockets(ping_interval=0)
QUICK = WebSockets(ping_interval=5.0, ping_timeout=5.0)


@pytest.fixture(name="serve")
def _watched_serve(serve: Serve) -> Iterator[Serve]:
    yield from watched(serve)


def disconnect(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def say(exchange: Any, **content: Any) -> Any:
    return exchange.send({"type": "websocket.send", **content})


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


class Open:
    """An accepted WebSocket: the exchange, and its end of the stream."""

    def __init__(self, served: Any, *fields: tuple[str, str], **how: Any) -> None:
        client = how.pop("client", None)
        self.client: Any = client or Http2Client(served, auto=how.pop("auto", True))
        event = how.pop("event", {})
        self.reply: Any = self.client.websocket("/ws", *fields, **how)
        self.stream = self.client.last
        self.exchange = served.exchange
        assert self.exchange.receive().result == {"type": "websocket.connect"}
        call = self.exchange.send({**ACCEPT, **event})
        assert call.done and call.error is None
        self.client.run()
        assert self.reply.status == 200 and not self.reply.ended
        self._taken = 0

    def send(self, *content: bytes, end: bool = False) -> None:
        """Send bytes of the WebSocket in DATA frames."""
        self.client.send(data(self.stream, b"".join(content), end))

    def take(self) -> list[tuple[int, bytes]]:
        """The WebSocket's frames that came since the last time."""
        self.client.run()
        found = frames(self.reply.body[self._taken :])
        self._taken = len(self.reply.body)
        return found


# ---------------------------------------------------------------- the handshake


def test_a_websockets_scope(serve: Serve) -> None:
    """RFC 8441 §5."""
    served = serve(root_path="/app")
    served.service.state = {"pool": 1}
    client: Any = Http2Client(served)
    client.websocket(
        "/chat?room=1",
        ("sec-websocket-protocol", "chat, superchat"),
        ("origin", "http://example.org"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    )
    assert served.exchange.scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "2",
        "scheme": "ws",
        "path": "/app/chat",
        "raw_path": b"/app/chat",
        "query_string": b"room=1",
        "root_path": "/app",
        "headers": [
            (b"host", b"example.org"),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-protocol", b"chat, superchat"),
            (b"origin", b"http://example.org"),
            (b"cookie", b"a=1; b=2"),
        ],
        "client": ("192.0.2.1", 50000),
        "server": ("192.0.2.80", 80),
        "subprotocols": ["chat", "superchat"],
        "extensions": {"websocket.http.response": {}},
        "state": {"pool": 1},
    }


def test_an_accepted_handshake_is_200_with_subprotocol_and_fields(serve: Serve) -> None:
    """RFC 8441 §5: 200 in the place of 101, and no key is answered."""
    served = serve()
    event = {"subprotocol": "superchat", "headers": [(b"X-Mine", b"yes")]}
    ws = Open(served, ("sec-websocket-protocol", "chat, superchat"), event=event)
    assert ws.reply.headers == [
        (b":status", b"200"),
        (b"sec-websocket-protocol", b"superchat"),
        (b"x-mine", b"yes"),
    ]


def test_the_answer_of_a_handshake_does_not_wait_for_the_first_message(serve: Serve) -> None:
    served = serve()
    ws = Open(served)
    assert ws.reply.body == b""


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"5")],
        [(b"transfer-encoding", b"chunked")],
        [(b"sec-websocket-accept", b"x")],
        [(b"sec-websocket-protocol", b"chat")],
        [(b"a b", b"c")],
        [(b"a", b"b\r\nc: d")],
        [(b"alone",)],
    ],
)
def test_fields_that_cannot_accept_a_handshake_are_refused(serve: Serve, headers: Any) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.websocket()
    served.exchange.receive()
    call = served.exchange.send({**ACCEPT, "headers": headers})
    assert type(call.error) is ASGIError
    assert served.exchange.send(ACCEPT).error is None
    client.run()
    assert reply.status == 200
    assert say(served.exchange, text="longer than five bytes").error is None
    client.run()
    assert frames(reply.body) == [(TEXT, b"longer than five bytes")]


def test_a_subprotocol_that_was_not_offered_is_refused(serve: Serve) -> None:
    served = serve()
    Http2Client(served).websocket()
    call = served.exchange.send({**ACCEPT, "subprotocol": "chat"})
    assert type(call.error) is ASGIError


def test_a_close_before_the_answer_is_403(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.websocket()
    served.exchange.receive()
    served.exchange.send(CLOSE_IT)
    client.run()
    assert (reply.status, reply.body, reply.ended) == (403, b"Forbidden", True)
    assert served.exchange.receive().result["code"] == 1006
    assert not client.gone
    client.send(data(1, b"", True))
    assert client.ask().reset is None


def test_a_denial_may_be_a_whole_response(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.websocket()
    start = {"type": "websocket.http.response.start", "status": 401}
    body = {"type": "websocket.http.response.body"}
    served.exchange.send({**start, "headers": [(b"www-authenticate", b"Basic")]})
    served.exchange.send({**body, "body": b"who ", "more_body": True})
    client.run()
    assert (reply.status, reply.body) == (401, b"who ")
    served.exchange.send({**body, "body": b"are you?"})
    client.run()
    assert reply.headers == [(b":status", b"401"), (b"www-authenticate", b"Basic")]
    assert reply.body == b"who are you?" and reply.ended
    assert served.access.lines == [("/ws", 401, 12)]


def test_a_denial_waits_for_the_window(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served, auto=False)
    reply = client.websocket()
    served.exchange.send({"type": "websocket.http.response.start", "status": 401})
    body = {"type": "websocket.http.response.body", "body": b"x" * 200_000, "more_body": True}
    call = served.exchange.send(body)
    client.run()
    assert not call.done and len(reply.body) == WINDOW
    client.grant(0, 1 << 20)
    client.grant(1, 1 << 20)
    assert call.done and len(reply.body) == 200_000


@pytest.mark.parametrize("how", ["raises", "returns"])
def test_an_application_that_does_not_answer_is_500(
    serve: Serve, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.websocket()
    served.exchange.finish(LookupError("a bug") if how == "raises" else None)
    client.run()
    assert reply.status == 500 and reply.ended
    assert logged(caplog) == ["WebSocket '/ws': the application failed"]


def test_another_protocol_is_501(serve: Serve) -> None:
    """RFC 9220 §3, RFC 8441 §4: and nobody is asked."""
    served = serve()
    client: Any = Http2Client(served)
    reply = client.websocket(protocol="webtransport")
    assert reply.status == 501 and reply.ended
    assert served.app.exchanges == []
    assert [line[:2] for line in served.access.lines] == [("/ws", 501)]


def test_the_protocols_name_has_no_case(serve: Serve) -> None:
    served = serve()
    Http2Client(served).websocket(protocol="WebSocket")
    assert served.exchange.scope["type"] == "websocket"


def test_where_websockets_are_off_the_handshake_is_501(serve: Serve) -> None:
    served = serve(websockets=None)
    client: Any = Http2Client(served)
    assert client.websocket().status == 501
    assert served.app.exchanges == []


def test_another_version_is_426_and_says_which_is_spoken(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.websocket("/ws", ("sec-websocket-version", "12"))
    assert reply.status == 426 and reply.fields[b"sec-websocket-version"] == b"13"
    assert {b"connection", b"upgrade"}.isdisjoint(reply.fields)
    assert served.access.lines == [("/ws", 426, 39)]


def test_a_handshake_that_ends_its_stream_is_no_websocket(serve: Serve) -> None:
    """Nothing could ever come, and nobody would learn of it."""
    served = serve()
    client: Any = Http2Client(served)
    reply = client.websocket(end=True)
    assert reply.status == 400
    assert served.app.exchanges == []


def test_handshakes_beyond_the_limit_get_503(serve: Serve) -> None:
    served = serve(limit_concurrency=0)
    client: Any = Http2Client(served)
    reply = client.websocket()
    assert reply.status == 503 and served.access.lines == [("/ws", 503, 19)]


def test_the_access_log_has_its_line_at_the_answer_and_no_other(serve: Serve) -> None:
    from omnicorn.observability.access_log import AccessLog

    lines: list[str] = []
    served = serve(access_log=None)
    log = AccessLog('%(h)s "%(r)s" %(s)s', lines.append, served.loop.call_soon)
    served.service.access_log = log
    ws = Open(served)
    log.flush()
    assert "".join(lines).splitlines() == ['192.0.2.1 "CONNECT /ws HTTP/2" 200']
    ws.send(text("hi"), closing(1000))
    ws.exchange.finish()
    ws.client.run()
    log.flush()
    assert len(lines) == 1


@pytest.mark.parametrize("how", ["RST_STREAM", "END_STREAM", "the connection"])
def test_a_peer_that_leaves_before_the_answer_is_1006(serve: Serve, how: str) -> None:
    served = serve()
    client: Any = Http2Client(served)
    client.websocket()
    exchange = served.exchange
    exchange.receive()
    waiting = exchange.receive()
    if how == "RST_STREAM":
        client.send(reset(1))
    elif how == "END_STREAM":
        client.send(data(1, b"", True))
    else:
        served.peer.reset()
        served.loop.run_until_idle()
    assert waiting.result == disconnect(1006)
    assert type(exchange.send(ACCEPT).error) is ClientDisconnected
    assert served.access.lines == []


def test_an_answer_may_take_its_time(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.websocket()
    client.advance(20.0)
    served.exchange.send(ACCEPT)
    client.run()
    assert reply.status == 200


def test_an_answer_may_take_more_time_than_content_may(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.websocket()
    client.advance(100.0)
    served.exchange.send(ACCEPT)
    client.run()
    assert reply.status == 200


def test_what_comes_before_the_answer_waits_for_it(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.websocket()
    client.send(data(1, text("early")), data(1, text("bird")))
    served.exchange.receive()
    served.exchange.send(ACCEPT)
    assert served.exchange.receive().result == {"type": "websocket.receive", "text": "early"}
    assert served.exchange.receive().result == {"type": "websocket.receive", "text": "bird"}
    client.run()
    assert reply.status == 200


def test_what_comes_before_the_answer_counts_against_the_window(serve: Serve) -> None:
    served = serve(http2=Http2(stream_window=70_000))
    client: Any = Http2Client(served)
    client.websocket()
    client.take()
    client.send(data(1, frame(BINARY, b"x" * 69_000)))
    assert [f for f in client.take() if f.kind == WINDOW_UPDATE and f.stream == 1] == []
    served.exchange.receive()
    served.exchange.send(ACCEPT)
    client.run()
    grants = [f.payload for f in client.take() if f.kind == WINDOW_UPDATE and f.stream == 1]
    assert grants == [number(69_000 + 14)]


# ---------------------------------------------------------------- messages


def test_messages_go_both_ways_in_any_cut(serve: Serve) -> None:
    served = serve()
    ws = Open(served)
    wire = text("grüße") + frame(BINARY, b"\x00\xff")
    for byte in wire:
        ws.send(bytes((byte,)))
    assert ws.exchange.receive().result == {"type": "websocket.receive", "text": "grüße"}
    assert ws.exchange.receive().result == {"type": "websocket.receive", "bytes": b"\x00\xff"}
    say(ws.exchange, text="grüße")
    say(ws.exchange, bytes=b"\xff\x00")
    assert ws.take() == [(TEXT, "grüße".encode()), (BINARY, b"\xff\x00")]


def test_several_frames_may_come_in_one(serve: Serve) -> None:
    served = serve()
    ws = Open(served)
    ws.send(*(text(str(n)) for n in range(5)))
    assert [ws.exchange.receive().result["text"] for _ in range(5)] == list("01234")


def test_a_message_may_come_in_fragments_with_a_ping_in_between(serve: Serve) -> None:
    """RFC 6455 §5.4."""
    served = serve()
    ws = Open(served)
    ws.send(frame(TEXT, b"one ", first=0), frame(PING, b"?"), frame(0, b"message"))
    assert ws.exchange.receive().result["text"] == "one message"
    assert ws.take() == [(PONG, b"?")]


def test_messages_may_be_compressed(serve: Serve) -> None:
    """RFC 7692."""
    served = serve()
    ws = Open(served, ("sec-websocket-extensions", "permessage-deflate"))
    assert ws.reply.fields[b"sec-websocket-extensions"].startswith(b"permessage-deflate")
    deflate = zlib.compressobj(wbits=-15)
    packed = deflate.compress(b"again " * 1000) + deflate.flush(zlib.Z_SYNC_FLUSH)
    ws.send(frame(TEXT, packed[:-4], first=0xC0))
    assert ws.exchange.receive().result["text"] == "again " * 1000
    say(ws.exchange, text="again " * 1000)
    ws.client.run()
    assert ws.reply.body[0] == 0xC1 and len(ws.reply.body) < 200


def test_large_messages_pass_both_ways(serve: Serve) -> None:
    served = serve()
    ws = Open(served)
    big = bytes(range(256)) * 4096
    wire = frame(BINARY, big)
    waiting = ws.exchange.receive()
    for start in range(0, len(wire), 60_000):
        ws.send(wire[start : start + 60_000])
    assert waiting.result["bytes"] == big
    call = say(ws.exchange, bytes=big)
    assert ws.take() == [(BINARY, big)]
    assert call.done


def test_websockets_and_requests_share_a_connection(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    one = Open(served, client=client)
    page = client.ask("/page")
    request = served.exchange
    two = Open(served, client=client)
    one.send(text("1"))
    two.send(text("2"))
    assert one.exchange.receive().result["text"] == "1"
    assert two.exchange.receive().result["text"] == "2"
    before = len(served.peer.writes)
    say(one.exchange, text="one")
    say(two.exchange, text="two")
    request.respond(body=b"page")
    assert one.take() == [(TEXT, b"one")] and two.take() == [(TEXT, b"two")]
    assert page.body == b"page"
    assert len(served.peer.writes) <= before + 3
    two.send(closing(1000))
    assert two.take() == closed(1000)
    say(one.exchange, text="still here")
    assert one.take() == [(TEXT, b"still here")]


def test_what_an_application_sends_in_one_turn_leaves_in_one_write(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await waiter
        for word in ("a", "b", "c"):
            await send({"type": "websocket.send", "text": word})
        await receive()

    served = serve(app)
    waiter = served.loop.create_future()
    client: Any = Http2Client(served)
    reply = client.websocket()
    before = len(served.peer.writes)
    waiter.set_result()
    client.run()
    assert len(served.peer.writes) == before + 1
    assert frames(reply.body) == [(TEXT, b"a"), (TEXT, b"b"), (TEXT, b"c")]


def test_the_limit_of_request_bodies_is_none_of_websockets(serve: Serve) -> None:
    served = serve(limits=Limits(body=100))
    ws = Open(served)
    for _ in range(5):
        ws.send(text("x" * 50))
        assert ws.exchange.receive().result["text"] == "x" * 50


def test_a_websocket_may_be_silent_for_longer_than_a_body(serve: Serve) -> None:
    served = serve(websockets=NEVER)
    ws = Open(served)
    ws.client.advance(1000.0)
    ws.send(text("still here"))
    assert ws.exchange.receive().result["text"] == "still here"


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (4321, "mine")])
def test_the_peer_closes(serve: Serve, code: int, reason: str) -> None:
    served = serve()
    ws = Open(served)
    ws.send(closing(code, reason))
    assert ws.take() == closed(code)
    assert ws.exchange.receive().result == disconnect(code, reason)
    assert ws.reply.ended and not ws.reply.is_reset()
    assert type(say(ws.exchange, text="x").error) is ClientDisconnected
    ws.client.send(data(ws.stream, b"", True))
    assert not ws.client.gone
    (left,) = served.service.connections
    assert type(left).__name__ == "Http2Connection"
    assert ws.client.ask().reset is None


def test_the_application_closes(serve: Serve) -> None:
    served = serve()
    ws = Open(served)
    ws.exchange.send({**CLOSE_IT, "code": 4000, "reason": "asked to"})
    assert ws.take() == closed(4000, "asked to")
    assert not ws.reply.ended
    ws.send(closing(4000))
    assert ws.reply.ended and not ws.reply.is_reset()
    assert ws.exchange.receive().result == disconnect(4000, "asked to")


def test_an_application_that_returns_closes_with_1000(serve: Serve) -> None:
    served = serve()
    ws = Open(served)
    ws.exchange.finish()
    assert ws.take() == closed(1000)
    ws.send(closing(1000), end=True)
    assert ws.reply.ended
    assert served.service.active == 0


def test_a_bug_closes_with_1011(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = serve()
    ws = Open(served)
    ws.exchange.finish(LookupError("a bug"))
    assert ws.take() == closed(1011)
    assert logged(caplog) == ["WebSocket '/ws': the application failed"]
    assert not ws.client.gone


def test_a_close_frame_that_is_not_answered_is_awaited_for_five_seconds(serve: Serve) -> None:
    served = serve()
    ws = Open(served)
    ws.exchange.send(CLOSE_IT)
    ws.client.advance(CLOSE_TIME - WIDTH)
    assert not ws.reply.is_reset() and not ws.reply.ended
    ws.client.advance(WIDTH * 2)
    assert ws.reply.ended or ws.reply.is_reset()
    assert not ws.client.gone


@pytest.mark.parametrize("how", ["END_STREAM", "RST_STREAM", "FIN", "RST"])
def test_a_peer_that_leaves_without_a_close_frame_is_1006(serve: Serve, how: str) -> None:
    served = serve()
    ws = Open(served)
    ws.send(text("last words"))
    if how == "END_STREAM":
        ws.send(end=True)
    elif how == "RST_STREAM":
        ws.client.send(reset(ws.stream))
    elif how == "FIN":
        served.peer.close()
    else:
        served.peer.reset()
    served.loop.run_until_idle()
    assert ws.exchange.receive().result["text"] == "last words"
    assert ws.exchange.receive().result == disconnect(1006)
    assert type(say(ws.exchange, text="x").error) is ClientDisconnected
    ws.exchange.finish()
    assert {type(each).__name__ for each in served.service.connections} <= {"Http2Connection"}


def test_the_end_of_the_peers_side_ends_ours(serve: Serve) -> None:
    """RFC 8441 §5: as an orderly closure of TCP."""
    served = serve()
    ws = Open(served)
    ws.send(end=True)
    assert ws.reply.ended and not ws.reply.is_reset()


def test_a_broken_rule_is_told_and_logged_and_the_connection_goes_on(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    ws = Open(served)
    ws.send(b"\x81\x02hi")  # not masked
    ((opcode, content),) = ws.take()
    assert (opcode, content[:2]) == (CLOSE, (1002).to_bytes(2, "big"))
    assert ws.exchange.receive().result["code"] == 1002
    ws.exchange.finish()
    (line,) = logged(caplog)
    assert line.startswith("192.0.2.1:50000 - WebSocket closed with 1002: ")
    ws.send(b"going on" * 100)
    ws.client.advance(3.0)
    assert ws.reply.ended or ws.reply.is_reset()
    assert not ws.client.gone
    assert len(served.service.connections) == 1
    assert ws.client.ask().reset is None


def test_a_websocket_that_is_cut_is_a_cancelled_stream(serve: Serve) -> None:
    """RFC 8441 §5: what is a reset in TCP is RST_STREAM with CANCEL here."""
    served = serve(websockets=QUICK)
    ws = Open(served)
    ws.client.advance(5.0 + 5.0 + CLOSE_TIME + 4 * WIDTH)
    assert ws.take()[0] == (PING, b"omnicorn")
    assert ws.reply.reset == CANCEL
    assert not ws.client.gone


# ---------------------------------------------------------------- keep-alive


def test_pings_are_sent_and_awaited_inside_the_stream(serve: Serve) -> None:
    served = serve(websockets=QUICK)
    ws = Open(served)
    for _ in range(3):
        ws.client.advance(5.0 + 2 * WIDTH)
        assert ws.take() == [(PING, b"omnicorn")]
        ws.send(frame(PONG, b"omnicorn"))
    ws.client.advance(5.0 + 2 * WIDTH)
    waiting = ws.exchange.receive()
    ws.client.advance(5.0 + 2 * WIDTH)
    assert waiting.result == disconnect(1011, "the peer does not answer pings")


def test_a_peer_that_reads_what_was_sent_before_the_ping_is_not_late(serve: Serve) -> None:
    served = serve(websockets=QUICK, link={"window": 1000}, timeouts=Timeouts(body=999.0))
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 24),), auto=False)
    client.grant(0, 1 << 24)
    ws = Open(served, client=client)
    say(ws.exchange, bytes=b"x" * 50_000)
    served.peer.pause()
    say(ws.exchange, bytes=b"x" * 50_000)
    waiting = ws.exchange.receive()
    for _ in range(8):
        served.loop.advance(4.0)
        served.peer.read(1000)
        served.loop.run_until_idle()
    assert not waiting.done


# ---------------------------------------------------------------- back-pressure


def test_send_waits_for_the_window_and_goes_on(serve: Serve) -> None:
    served = serve(websockets=NEVER)
    ws = Open(served, auto=False)
    calls = [say(ws.exchange, bytes=b"x" * 50_000) for _ in range(4)]
    assert [call.done for call in calls] != [True] * 4
    later = say(ws.exchange, text="later")
    assert not later.done
    ws.client.grant(0, 1 << 20)
    ws.client.grant(1, 1 << 20)
    ws.client.run()
    assert all(call.done and call.error is None for call in [*calls, later])
    assert [len(content) for _, content in ws.take()] == [50_000] * 4 + [5]


def test_a_websocket_whose_window_is_shut_does_not_hold_the_others_up(serve: Serve) -> None:
    served = serve(websockets=NEVER)
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1000),), auto=False)
    stalled, quick = Open(served, client=client), Open(served, client=client)
    call = say(stalled.exchange, bytes=b"x" * 200_000)
    for n in range(20):
        assert say(quick.exchange, text=str(n)).done
    assert quick.take() == [(TEXT, b"%d" % n) for n in range(20)]
    assert not call.done
    client.send(reset(stalled.stream))
    assert type(call.error) is ClientDisconnected


def test_a_window_that_stays_shut_for_60_seconds_ends_its_websocket_alone(serve: Serve) -> None:
    served = serve(websockets=NEVER)
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1000),), auto=False)
    stalled = Open(served, client=client)
    call = say(stalled.exchange, bytes=b"x" * 200_000)
    client.advance(29.0)
    client.send(data(stalled.stream, text("I am here")))
    client.advance(29.0)
    client.send(data(stalled.stream, text("I am here")))
    assert not call.done
    client.advance(3.0)
    assert stalled.reply.reset == CANCEL
    assert type(call.error) is ClientDisconnected
    assert not client.gone


def test_a_peer_that_reads_others_output_slowly_keeps_its_websocket(serve: Serve) -> None:
    served = serve(websockets=NEVER, link={"window": 1000}, timeouts=Timeouts(body=9999.0))
    client: Any = Http2Client(served, asks=((INITIAL_WINDOW, 1 << 24),), auto=False)
    client.grant(0, 1 << 24)
    ws = Open(served, client=client)
    client.ask("/download")
    served.peer.pause()
    served.exchange.start()
    served.exchange.body(b"x" * 1_000_000, more=True)
    call = say(ws.exchange, text="behind all that")
    for _ in range(4):
        served.loop.advance(50.0)
        served.peer.read(1000)
        served.loop.run_until_idle()
    assert call.error is None
    served.peer.resume()
    client.run()
    assert frames(ws.reply.body) == [(TEXT, b"behind all that")]


def test_an_application_that_does_not_read_holds_its_peer_back(serve: Serve) -> None:
    served = serve(
        websockets=WebSockets(max_queue=4, ping_interval=0),
        http2=Http2(window=200_000, stream_window=70_000),
    )
    ws = Open(served)
    ws.client.take()
    room = 70_000
    sent = 0
    while room >= 10_014:
        ws.send(frame(BINARY, b"x" * 10_000))
        sent += 1
        room -= 10_014 - 6  # masked, and 16 bits of length
        room -= 6
        grants = [f for f in ws.client.take() if f.kind == WINDOW_UPDATE and f.stream]
        room += sum(int.from_bytes(f.payload, "big") for f in grants)
        assert sent < 50, "the window never shuts"
    for _ in range(sent):
        assert len(ws.exchange.receive().result["bytes"]) == 10_000
    ws.client.run()
    grants = [f for f in ws.client.take() if f.kind == WINDOW_UPDATE and f.stream]
    assert grants


def test_what_waits_is_delivered_in_order_and_the_end_behind_it(serve: Serve) -> None:
    served = serve(websockets=WebSockets(max_queue=2, ping_interval=0))
    ws = Open(served)
    for n in range(20):
        ws.send(text(str(n)))
    ws.send(closing(1000, "done"), end=True)
    seen = [ws.exchange.receive().result for _ in range(21)]
    assert [event["text"] for event in seen[:20]] == [str(n) for n in range(20)]
    assert seen[20] == disconnect(1000, "done")


def test_many_small_pieces_that_wait_are_delivered_in_no_time(serve: Serve) -> None:
    """Quadratic, it would be minutes."""
    served = serve(websockets=WebSockets(max_queue=1, ping_interval=0))
    ws = Open(served)
    ws.send(text("fills the queue"))
    wire = text("x" * 100_000)
    frame_of_one = [data(ws.stream, wire[n : n + 1]) for n in range(len(wire))]
    ws.client.send(*frame_of_one)
    assert ws.exchange.receive().result["text"] == "fills the queue"
    assert len(ws.exchange.receive().result["text"]) == 100_000


# ---------------------------------------------------------------- the server stops


def drained(served: Any) -> list[bool]:
    over: list[bool] = []
    served.service.drain(lambda: over.append(True))
    return over


def test_a_drain_closes_with_1012_and_waits_for_peer_and_application(serve: Serve) -> None:
    served = serve()
    ws = Open(served)
    over = drained(served)
    assert ws.take() == closed(1012)
    assert ws.exchange.receive().result == disconnect(1012)
    ws.send(closing(1012), end=True)
    assert ws.reply.ended
    assert over == []
    ws.exchange.finish()
    ws.client.run()
    assert ws.client.gone and over == [True]
    assert ws.client.goaways[-1] == (1, NO_ERROR)


def test_a_drain_does_not_wait_for_a_peer_that_does_not_answer(serve: Serve) -> None:
    served = serve()
    ws = Open(served)
    over = drained(served)
    ws.exchange.finish()
    ws.client.advance(CLOSE_TIME + 3.0)
    assert ws.client.gone and over == [True]


def test_a_handshake_that_is_accepted_while_the_server_stops_is_closed_with_1012(
    serve: Serve,
) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.websocket()
    over = drained(served)
    client.run()
    served.exchange.receive()
    served.exchange.send(ACCEPT)
    client.run()
    assert reply.status == 200 and frames(reply.body) == closed(1012)
    client.send(data(1, closing(1012), True))
    served.exchange.finish()
    client.run()
    assert over == [True]


def test_a_handshake_that_waits_is_told_when_the_server_stops(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    reply = client.websocket()
    served.exchange.receive()
    waiting = served.exchange.receive()
    drained(served)
    served.service.disconnect()
    client.run()
    assert waiting.result == disconnect(1012)
    served.exchange.finish()
    client.run()
    assert reply.status == 503


def test_cancel_ends_websockets_at_once(serve: Serve) -> None:
    served = serve()
    client: Any = Http2Client(served)
    one = Open(served, client=client)
    client.websocket()
    over = drained(served)
    served.service.cancel()
    served.loop.run_until_idle()
    assert all(exchange.left for exchange in served.app.exchanges)
    assert one.exchange.left and over == [True]
    assert not served.service.connections


def test_goaway_of_the_client_lets_its_websockets_go_on(serve: Serve) -> None:
    served = serve()
    ws = Open(served)
    ws.client.send(b"\0\0\x08" + bytes((GOAWAY, 0, 0, 0, 0, 0)) + bytes(8))
    ws.send(text("hi"))
    assert ws.exchange.receive().result["text"] == "hi"
    ws.exchange.finish()
    assert ws.take() == closed(1000)
    ws.send(closing(1000), end=True)
    assert ws.client.gone


# ---------------------------------------------------------------- bounds, and memory


def test_applications_of_cancelled_websockets_count_against_the_clients_streams(
    serve: Serve,
) -> None:
    """CVE-2023-44487, by way of RFC 8441."""

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        started.append(1)
        await never

    started: list[int] = []
    served = serve(stubborn, http2=Http2(max_streams=4))
    never = served.loop.create_future()
    client: Any = Http2Client(served)
    for _ in range(20):
        client.websocket()
        if not client.streams[client.last].is_reset():
            client.send(reset(client.last))
    assert len(started) == 4
    never.set_result()
    client.websocket()
    assert client.streams[client.last].status == 200


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})
        return
    if scope["path"] == "/deny":
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": "websocket.http.response.body", "body": b"no"})
        return
    if scope["path"] == "/refuse":
        await send(CLOSE_IT)
        return
    if scope["path"] == "/bug":
        raise LookupError("a bug")
    await receive()
    if scope["path"] == "/never":
        await receive()
        return
    await send(ACCEPT)
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") == "close":
            await send(CLOSE_IT)
        elif event.get("text") == "bug":
            raise LookupError("a bug")
        else:
            await send({**event, "type": "websocket.send"})


VISITS: dict[str, tuple[str, list[bytes]]] = {
    "the peer closes": ("/ws", [data(1, text("hi")), data(1, closing(1000), True)]),
    "the application closes": ("/ws", [data(1, text("close")), data(1, closing(1000), True)]),
    "the application fails": ("/ws", [data(1, text("bug")), data(1, closing(1011), True)]),
    "a broken rule": ("/ws", [data(1, frame(3))]),
    "the stream is reset": ("/ws", [data(1, text("hi")), reset(1)]),
    "the stream ends": ("/ws", [data(1, text("hi"), True)]),
    "the connection is lost": ("/ws", [data(1, text("hi"))]),
    "a window that is shut": ("/ws", [data(1, text("x" * 100))]),
    "the application denies": ("/deny", []),
    "the application refuses": ("/refuse", [data(1, b"", True)]),
    "a bug before the answer": ("/bug", [data(1, b"", True)]),
    "the peer leaves before the answer": ("/never", [reset(1)]),
    "the peer ends before the answer": ("/never", [data(1, b"", True)]),
    "lost before the answer": ("/never", [data(1, text("early"))]),
    "another version": ("/version", []),
    "too many at once": ("/limit", []),
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
def test_a_websocket_that_is_gone_leaves_no_reference_cycle(
    serve: Serve, garbage: Callable[[], list[str]], kind: str, end: str
) -> None:
    path, segments = VISITS[kind]

    def visit(peer: Any) -> None:
        shut = "shut" in kind
        asks = (INITIAL_WINDOW, 1) if shut else (ENABLE_PUSH, 1)
        client: Any = Http2Client(served, peer, asks=(asks,), auto=not shut)
        version = (("sec-websocket-version", "12"),) if path == "/version" else ()
        extensions = ("sec-websocket-extensions", "permessage-deflate")
        client.websocket(path, *version, extensions)
        for segment in segments:
            client.send(segment)
        if end == "RST":
            peer.reset()
        else:
            peer.close()
        client.run()
        client.advance(500.0)
        assert not served.service.connections and not served.service.active
        peer.transport.peer = None

    served = serve(echo, limit_concurrency=0 if path == "/limit" else None)
    first, served.peer = served.peer, None
    visit(first)
    del first
    garbage()
    visit(served.connect())
    assert garbage() == []


def test_a_denied_handshake_is_forgotten_while_its_connection_lives(
    serve: Serve, garbage: Callable[[], list[str]]
) -> None:
    served = serve(echo)
    client: Any = Http2Client(served)
    client.websocket("/deny")
    garbage()
    client.websocket("/deny")
    client.streams.clear()
    assert garbage() == []


def test_more_than_a_queue_of_output_waits_for_the_window(serve: Serve) -> None:
    """What is bounded is what waits, not what is sent."""
    served = serve(websockets=NEVER)
    ws = Open(served, auto=False)
    count = 0
    while say(ws.exchange, bytes=b"x" * 10_000).done:
        count += 1
        assert count * 10_000 < WINDOW + 3 * HIGH_WATER
