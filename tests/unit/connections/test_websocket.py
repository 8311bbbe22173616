"""How a WebSocket's connection writes, pings, closes and gives up; the clock is moved by hand.

A deadline is met late by up to `WIDTH`, never early: `just_before` and `at` know that.
"""

from __future__ import annotations

import base64
import gc
import logging
import socket
import struct
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import Call
from tests.frames import (
    ACCEPT,
    BINARY,
    CLOSE,
    HANDSHAKE,
    PING,
    PONG,
    SWITCHED,
    TEXT,
    accept,
    closed,
    closing,
    frame,
    frames,
    text,
)
from tests.gateways import scgi_request

from omnicorn.connections.accept import gateway
from omnicorn.connections.bytestream import LINGER_TIME
from omnicorn.connections.deadlines import WIDTH
from omnicorn.connections.service import Timeouts, WebSockets
from omnicorn.connections.websocket import CLOSE_TIME
from omnicorn.errors import ClientDisconnected
from omnicorn.ports import HIGH_WATER
from omnicorn.transports.inproc import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serve = Callable[..., Any]
    Request = Callable[..., bytes]

NEVER = WebSockets(ping_interval=0)
CLOSE_IT = {"type": "websocket.close"}
VERSION_12 = tuple(field.replace("13", "12") for field in HANDSHAKE)


def disconnect(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def say(exchange: Any, **content: Any) -> Any:
    return exchange.send({"type": "websocket.send", **content})


def gone(peer: Any) -> bool:
    return bool(peer.eof or peer.was_reset)


def just_before(seconds: float) -> float:
    return seconds - WIDTH / 2


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


PINGED = [(PING, b"omnicorn")]
PONGED = frame(PONG, b"omnicorn")


# ---------------------------------------------------------------- writes


def test_what_is_sent_in_one_turn_leaves_in_one_write(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        for word in ("a", "b"):
            await send({"type": "websocket.send", "text": word})
        await waiter
        for word in ("c", "d"):
            await send({"type": "websocket.send", "text": word})

    served = serve(app)
    waiter = served.loop.create_future()
    served.get("/", *HANDSHAKE)
    handshake, *rest = served.peer.writes
    assert handshake == SWITCHED + b"\r\n"
    assert [frames(write) for write in rest] == [[(TEXT, b"a"), (TEXT, b"b")]]

    waiter.set_result()
    served.run()
    (write,) = served.peer.writes[2:]
    assert frames(write) == [(TEXT, b"c"), (TEXT, b"d"), *closed(1000)]


def test_a_large_stream_leaves_in_writes_of_about_64_kib(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        for _ in range(100):
            await send({"type": "websocket.send", "bytes": b"x" * 10_000})

    served = serve(app)
    served.get("/", *HANDSHAKE)

    sizes = [len(write) for write in served.peer.writes]
    assert len(sizes) <= 3 + 1_000_000 // HIGH_WATER
    assert max(sizes) <= HIGH_WATER + 11_000


def test_large_messages_are_written_as_they_are(serve: Serve) -> None:
    """Not copied: head and content are writes of their own."""
    served = serve()
    exchange = accept(served)
    message = b"x" * (5 * HIGH_WATER)
    say(exchange, bytes=message)

    assert [len(write) for write in served.peer.writes[1:]] == [10, len(message)]
    assert frames(served.run()) == [(BINARY, message)]


def test_pings_of_the_peer_are_answered(serve: Serve) -> None:
    """RFC 6455 §5.5.2."""
    served = serve()
    accept(served)

    assert frames(served.send(frame(PING, b"?"))) == [(PONG, b"?")]


def test_while_the_peer_does_not_read_only_its_last_ping_is_answered(serve: Serve) -> None:
    """RFC 6455 §5.5.3."""
    served = serve(link={"window": 1000})
    exchange = accept(served)
    served.peer.pause()
    say(exchange, bytes=b"x" * 100_000)
    for number in range(100):
        served.send(frame(PING, b"%d" % number))
    served.peer.resume()

    assert [what for what in frames(served.run()) if what[0] == PONG] == [(PONG, b"99")]


# ---------------------------------------------------------------- keep-alive


def test_a_ping_goes_out_every_interval(serve: Serve) -> None:
    """RFC 6455 §5.5.2."""
    served = serve(websockets=WebSockets(ping_interval=20.0))
    accept(served)
    for _ in range(3):
        assert served.advance(just_before(20.0)) == b""
        assert frames(served.advance(WIDTH * 1.5)) == PINGED
        assert served.send(PONGED) == b""


def test_the_defaults_are_the_documented_ones() -> None:
    assert WebSockets() == (16 << 20, 32, 20.0, 20.0, True)


def test_a_peer_that_does_not_answer_is_closed_with_1011(serve: Serve) -> None:
    served = serve(websockets=WebSockets(ping_interval=10.0, ping_timeout=5.0))
    exchange = accept(served)
    waiting = exchange.receive()
    assert frames(served.advance(10.0 + WIDTH)) == PINGED
    assert served.advance(5.0 - 2 * WIDTH) == b""

    reason = "the peer does not answer pings"
    assert frames(served.advance(3 * WIDTH)) == closed(1011, reason)
    assert waiting.result == disconnect(1011, reason)
    assert type(say(exchange, text="x").error) is ClientDisconnected
    assert not gone(served.peer)
    served.advance(CLOSE_TIME + WIDTH)
    assert gone(served.peer) and not served.service.connections


def test_messages_are_no_answer_to_a_ping(serve: Serve) -> None:
    served = serve(websockets=WebSockets(ping_interval=10.0, ping_timeout=5.0))
    exchange = accept(served)
    served.advance(12.0)
    served.send(text("I am here"))
    served.advance(4.0)

    exchange.receive()
    assert exchange.receive().result["code"] == 1011


@pytest.mark.parametrize("content", [b"", b"omnicor", b"omnicornx", b"other"])
def test_a_pong_to_something_else_is_none(serve: Serve, content: bytes) -> None:
    """RFC 6455 §5.5.3: an unsolicited pong is no answer, and no error."""
    served = serve(websockets=WebSockets(ping_interval=10.0, ping_timeout=5.0))
    exchange = accept(served)
    assert frames(served.advance(12.0)) == PINGED
    assert served.send(frame(PONG, content)) == b""

    ((opcode, said),) = frames(served.advance(4.0))
    assert (opcode, said[:2]) == (CLOSE, (1011).to_bytes(2, "big"))
    assert exchange.receive().result["code"] == 1011


def test_an_unsolicited_pong_does_not_put_the_next_ping_off(serve: Serve) -> None:
    served = serve(websockets=WebSockets(ping_interval=10.0))
    accept(served)
    served.advance(9.0)
    served.send(PONGED)

    assert frames(served.advance(1.5)) == PINGED


def test_a_pong_that_comes_too_late_changes_nothing(serve: Serve) -> None:
    served = serve(websockets=WebSockets(ping_interval=10.0, ping_timeout=5.0))
    exchange = accept(served)
    served.advance(16.0)
    assert exchange.receive().result["code"] == 1011
    served.send(PONGED)

    served.advance(CLOSE_TIME + WIDTH)
    assert gone(served.peer)


def test_a_pong_just_in_time_is_in_time_and_the_next_one_is_awaited_anew(serve: Serve) -> None:
    served = serve(websockets=WebSockets(ping_interval=10.0, ping_timeout=5.0))
    exchange = accept(served)
    for _ in range(3):
        assert frames(served.advance(10.0 + WIDTH)) == PINGED
        served.advance(5.0 - WIDTH)
        served.send(PONGED)
    waiting = exchange.receive()
    assert frames(served.advance(16.0)) == [*PINGED, *closed(1011, waiting.result["reason"])]


def test_a_loop_that_was_held_up_takes_what_has_come_before_it_gives_up(serve: Serve) -> None:
    served = serve(websockets=WebSockets(ping_interval=10.0, ping_timeout=5.0))
    accept(served)
    served.advance(10.0 + WIDTH)
    served.peer.send(PONGED)
    served.loop.jump(100.0)

    assert frames(served.run()) in ([], PINGED)


def test_a_peer_is_not_late_while_we_do_not_read_it(serve: Serve) -> None:
    served = serve(websockets=WebSockets(max_queue=2, ping_interval=10.0, ping_timeout=5.0))
    exchange = accept(served)
    served.send(text("a") + text("b") + PONGED)
    assert not served.peer.transport.is_reading
    assert frames(served.advance(11.0)) == PINGED
    served.peer.send(PONGED)
    assert served.advance(60.0) == b""

    for _ in range(2):
        assert exchange.receive().result["type"] == "websocket.receive"
    assert frames(served.advance(10.0 + WIDTH)) == PINGED
    served.advance(6.0)
    assert exchange.receive().result["code"] == 1011


def test_a_peer_is_not_late_while_it_reads_what_was_sent_before_the_ping(serve: Serve) -> None:
    """Less than `HIGH_WATER` is unread: nothing says that the transport is full."""
    served = serve(
        websockets=WebSockets(ping_interval=10.0, ping_timeout=5.0), link={"window": 1000}
    )
    exchange = accept(served)
    served.peer.pause()
    say(exchange, bytes=b"x" * 50_000)
    served.advance(11.0)
    waiting = exchange.receive()
    for _ in range(10):
        served.peer.read(1000)
        served.advance(5.0)
    assert not waiting.done

    served.advance(10.0 + WIDTH)
    assert waiting.result["code"] == 1011


def test_a_ping_that_fills_the_transport_is_followed_by_the_deadline_of_writing(
    serve: Serve,
) -> None:
    served = serve(
        websockets=WebSockets(ping_interval=10.0, ping_timeout=5.0),
        link={"window": 1000},
        timeouts=Timeouts(write=60.0),
    )
    exchange = accept(served)
    served.peer.pause()
    say(exchange, bytes=b"x" * (HIGH_WATER + 990))
    waiting = exchange.receive()
    served.advance(10.0 + WIDTH)
    assert say(exchange, text="x").done is False

    served.advance(50.0)
    assert not waiting.done
    served.advance(11.0)
    assert waiting.result == disconnect(1006)


def test_no_ping_goes_out_while_a_slow_reader_catches_up(serve: Serve) -> None:
    served = serve(websockets=WebSockets(ping_interval=10.0), link={"window": 1000})
    exchange = accept(served)
    served.peer.pause()
    say(exchange, bytes=b"x" * 200_000)
    served.advance(30.0)
    served.peer.resume()
    assert frames(served.run()) == [(BINARY, b"x" * 200_000)]

    assert served.advance(9.5) == b""
    assert frames(served.advance(1.0)) == PINGED


def test_with_an_interval_of_0_no_ping_ever_goes_out(serve: Serve) -> None:
    served = serve(websockets=NEVER)
    exchange = accept(served)

    assert served.advance(100_000.0) == b""
    assert served.loop._timers == []
    say(exchange, text="still there")
    assert frames(served.run()) == [(TEXT, b"still there")]


def test_with_a_timeout_of_0_pings_go_out_and_pongs_are_not_awaited(serve: Serve) -> None:
    served = serve(websockets=WebSockets(ping_interval=10.0, ping_timeout=0))
    accept(served)

    assert frames(served.advance(105.0)) == PINGED * 10


def test_no_ping_goes_out_after_the_close_frame(serve: Serve) -> None:
    """RFC 6455 §5.5.1."""
    served = serve(websockets=WebSockets(ping_interval=2.0))
    exchange = accept(served)
    exchange.send(CLOSE_IT)

    assert frames(served.advance(4.0)) == closed(1000)


# ---------------------------------------------------------------- peers that do not read


def test_a_peer_that_never_reads_is_cut_when_its_time_is_over(serve: Serve) -> None:
    served = serve(timeouts=Timeouts(write=30.0), link={"window": 1000})
    exchange = accept(served)
    served.peer.pause()
    sending = say(exchange, bytes=b"x" * 200_000)
    waiting = exchange.receive()
    served.advance(just_before(30.0))
    assert not waiting.done and not sending.done

    served.advance(2 * WIDTH)
    assert waiting.result == disconnect(1006)
    assert type(sending.error) is ClientDisconnected
    assert served.peer.was_reset and not served.service.connections


def test_a_cut_is_a_reset_where_something_is_missing(serve: Serve) -> None:
    """And an ordinary end where everything has been read."""
    for size, resets in ((200_000, True), (0, False)):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
            with client, server:
                served = serve(link={"window": 1000, "extra": {"socket": server}})
                exchange = accept(served)
                served.peer.pause()
                if size:
                    say(exchange, bytes=b"x" * size)
                served.service.cancel()
                served.run()
                lingers = struct.unpack(
                    "ii", server.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
                )
                assert (lingers == (1, 0)) is resets


def test_a_peer_that_reads_slowly_is_not_cut(serve: Serve) -> None:
    served = serve(timeouts=Timeouts(write=30.0), link={"window": 1000}, websockets=NEVER)
    exchange = accept(served)
    served.peer.pause()
    sending = say(exchange, bytes=b"x" * 200_000)
    for _ in range(20):
        served.peer.read(1000)
        served.advance(20.0)
    assert not sending.done and not gone(served.peer)

    served.advance(60.0 + WIDTH)
    assert gone(served.peer)


def test_a_transport_that_fills_with_the_answer_to_the_handshake_is_full_for_the_websocket(
    serve: Serve, http_request: Request
) -> None:
    """What the response before it left unread is still there."""
    served = serve(timeouts=Timeouts(write=30.0), link={"window": 1000}, websockets=NEVER)
    served.peer.pause()
    served.get("/before")
    served.exchange.respond(body=b"x" * 60_000)
    served.get("/ws", *HANDSHAKE)
    exchange = served.exchange
    exchange.send({**ACCEPT, "headers": [(b"x-long", b"y" * 10_000)]})
    sending = say(exchange, text="hi")
    assert not sending.done

    served.advance(30.0 + 2 * WIDTH)
    assert type(sending.error) is ClientDisconnected
    assert not served.service.connections


def test_a_peer_that_says_its_last_without_reading_is_cut(serve: Serve) -> None:
    served = serve(timeouts=Timeouts(write=30.0), link={"window": 1000}, websockets=NEVER)
    exchange = accept(served)
    served.peer.pause()
    say(exchange, bytes=b"x" * 30_000)
    waiting = exchange.receive()
    served.peer.close()
    served.run()
    assert waiting.result == disconnect(1006)

    served.advance(60.0 + WIDTH)
    assert not served.service.connections


def test_what_was_sent_before_the_peers_end_was_seen_still_leaves(serve: Serve) -> None:
    """An echo whose client says its last right behind the question."""
    served = serve(echo)
    served.get("/", *HANDSHAKE)
    served.peer.send(text("hi"))
    served.peer.close()

    assert frames(served.run())[:1] == [(TEXT, b"hi")]
    assert served.peer.eof and not served.service.connections


def test_a_peer_that_says_its_last_gets_what_it_has_not_read_yet(serve: Serve) -> None:
    served = serve(timeouts=Timeouts(write=30.0), link={"window": 1000})
    exchange = accept(served)
    served.peer.pause()
    sending = say(exchange, bytes=b"x" * 100_000)
    served.peer.close()
    served.run()
    assert type(sending.error) is ClientDisconnected
    wire = served.peer.take()
    for _ in range(20):
        served.peer.read(1000)
        wire += served.advance(20.0)
    served.peer.resume()
    assert frames(wire + served.run()) == [(BINARY, b"x" * 100_000)]
    assert served.peer.eof and not served.peer.was_reset


def test_what_an_application_left_unread_is_read_after_it_has_returned(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    exchange = accept(served)
    served.peer.pause()
    say(exchange, bytes=b"x" * 100_000)
    exchange.finish()
    served.peer.resume()

    assert frames(served.run()) == [(BINARY, b"x" * 100_000), *closed(1000)]
    assert served.send(closing(1000)) == b""
    assert served.peer.eof and not served.peer.was_reset


def test_a_sender_that_only_gave_others_their_turn_waits_on_where_the_peer_stops_reading(
    serve: Serve,
) -> None:
    """The kernel took the first message, the second in the same turn is too much."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await receive()
        await receive()
        calls.append(Call(served.loop, send({"type": "websocket.send", "bytes": b"x" * 300_000})))
        calls.append(Call(served.loop, send({"type": "websocket.send", "bytes": b"x" * 200_000})))
        await forever

    calls: list[Call] = []
    served = serve(app, link={"window": 400_000}, timeouts=Timeouts(write=30.0))
    forever = served.loop.create_future()
    served.get("/", *HANDSHAKE)
    served.peer.pause()
    served.send(text("go"))
    assert [call.done for call in calls] == [False, False]

    served.advance(30.0 + 2 * WIDTH)
    assert [type(call.error) for call in calls] == [ClientDisconnected] * 2


# ---------------------------------------------------------------- closing


def test_a_close_frame_of_ours_is_awaited_for_five_seconds(serve: Serve) -> None:
    """RFC 6455 §7.1.1."""
    assert CLOSE_TIME == 5.0
    served = serve()
    exchange = accept(served)
    exchange.send(CLOSE_IT)
    served.advance(just_before(5.0))
    assert not gone(served.peer)

    served.advance(2 * WIDTH)
    assert gone(served.peer) and not served.service.connections


def test_what_comes_until_the_peers_close_frame_is_dropped(serve: Serve) -> None:
    served = serve()
    exchange = accept(served)
    exchange.send(CLOSE_IT)
    assert frames(served.run()) == closed(1000)

    assert served.send(text("dropped") + frame(PING, b"?")) == b""
    assert not gone(served.peer)
    assert served.send(closing(1000)) == b""
    assert served.peer.eof and not served.peer.was_reset
    assert exchange.receive().result == disconnect(1000)


def test_a_peer_that_goes_on_sending_after_our_close_frame_is_not_waited_for(
    serve: Serve,
) -> None:
    served = serve()
    accept(served).send(CLOSE_IT)
    for _ in range(10):
        if not gone(served.peer):
            served.send(text("and another thing"))
        served.advance(1.0)

    assert gone(served.peer)


def test_what_was_sent_leaves_before_the_end(serve: Serve) -> None:
    served = serve(link={"window": 1000}, websockets=NEVER)
    exchange = accept(served)
    served.peer.pause()
    say(exchange, bytes=b"x" * 50_000)
    served.send(closing(1000))
    served.advance(10.0)
    served.peer.resume()

    assert frames(served.run()) == [(BINARY, b"x" * 50_000), *closed(1000)]
    assert served.peer.eof and not served.peer.was_reset


def test_a_peer_that_has_closed_and_does_not_read_is_cut(serve: Serve) -> None:
    served = serve(timeouts=Timeouts(write=30.0), link={"window": 1000})
    exchange = accept(served)
    served.peer.pause()
    say(exchange, bytes=b"x" * 50_000)
    served.send(closing(1000))
    served.advance(just_before(30.0))
    assert served.service.connections

    served.advance(2 * WIDTH)
    assert not served.service.connections


def test_closes_that_cross_are_each_sides_own(serve: Serve) -> None:
    """RFC 6455 §7.1.5: both have sent theirs."""
    served = serve()
    exchange = accept(served)
    served.peer.send(closing(4001))
    exchange.finish()

    assert len(frames(served.run())) == 1
    assert served.peer.eof and not served.service.connections


# ---------------------------------------------------------------- broken rules


BROKEN = [
    (frame(3), 1002),
    (b"\x81\x02hi", 1002),  # not masked
    (frame(TEXT, b"\xff"), 1007),
    (frame(BINARY, b"x" * 101), 1009),
]


@pytest.mark.parametrize(("sent", "code"), BROKEN)
def test_a_broken_rule_ends_in_its_code_and_a_line_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture, sent: bytes, code: int
) -> None:
    served = serve(websockets=WebSockets(max_size=100))
    exchange = accept(served)
    waiting = exchange.receive()
    ((opcode, content),) = frames(served.send(sent))
    reason = content[2:].decode()

    assert (opcode, content[:2]) == (CLOSE, code.to_bytes(2, "big"))
    assert waiting.result == disconnect(code, reason)
    assert served.peer.eof
    (line,) = logged(caplog)
    assert line.endswith(f" - WebSocket closed with {code}: {reason}")


def test_behind_a_front_the_line_names_the_client(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(websockets=WebSockets(max_size=100))
    served.peer.reset()
    front = connect(served.loop, gateway(served.service, "scgi")(), peername="")
    front.send(
        scgi_request(
            REMOTE_ADDR="192.0.2.9",
            REMOTE_PORT="4711",
            HTTP_UPGRADE="websocket",
            HTTP_CONNECTION="Upgrade",
            HTTP_SEC_WEBSOCKET_VERSION="13",
            HTTP_SEC_WEBSOCKET_KEY=base64.b64encode(b"x" * 16).decode(),
        )
    )
    served.run()
    served.exchange.send(ACCEPT)
    served.run()
    front.send(frame(BINARY, b"x" * 101))
    served.run()

    (line,) = logged(caplog)
    assert line.startswith("192.0.2.9:4711 - WebSocket closed with 1009: ")


def test_what_a_peer_still_sends_after_it_broke_a_rule_does_not_take_our_reason_away(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Unread bytes would become a reset (RFC 9112 §9.6 says the same of HTTP)."""
    assert LINGER_TIME == 2.0
    served = serve()
    accept(served)
    served.peer.pause()
    served.send(frame(3) + text("behind it"))
    for _ in range(3):
        served.send(text("still sending") * 1000)
        served.advance(0.5)
    assert not served.peer.was_reset and not served.peer.waiting

    served.peer.resume()
    assert frames(served.run())[0][1].startswith(b"\x03\xea")
    assert served.peer.eof
    served.peer.close()
    served.run()
    assert not served.service.connections and not served.peer.was_reset


def test_a_rule_broken_behind_a_full_queue_is_lingered_for_too(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(websockets=WebSockets(max_queue=1))
    exchange = accept(served)
    served.send(text("a") + frame(3))
    served.send(b"still sending")
    assert served.peer.waiting
    exchange.receive()
    assert exchange.receive().result["code"] == 1002
    assert not served.peer.waiting

    served.peer.close()
    served.run()
    assert not served.service.connections and not served.peer.was_reset


def test_a_peer_that_has_gone_before_the_linger_begins_does_no_harm(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's ``write_eof`` is a system call, and says ENOTCONN for a peer that has reset."""
    served = serve()
    exchange = accept(served)

    def refuse(_: object) -> None:
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(type(served.peer.transport), "write_eof", refuse)
    served.send(frame(3))

    assert exchange.receive().result["code"] == 1002
    assert gone(served.peer) and not served.service.connections


def test_a_transport_that_cannot_close_one_half_lingers_with_both(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    accept(served)
    monkeypatch.setattr(type(served.peer.transport), "can_write_eof", lambda _: False)
    assert len(frames(served.send(frame(3)))) == 1
    assert not gone(served.peer)
    served.send(text("dropped"))
    served.advance(2.0 + WIDTH)

    assert not served.service.connections


def test_the_linger_is_over_after_two_seconds(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    accept(served)
    served.send(frame(3))
    served.advance(just_before(2.0))
    assert served.service.connections

    served.advance(2 * WIDTH)
    assert not served.service.connections


def test_a_rule_broken_after_our_close_frame_ends_the_wait_for_the_peers(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    exchange = accept(served)
    exchange.send(CLOSE_IT)
    assert frames(served.run()) == closed(1000)
    assert served.send(frame(3)) == b""

    served.peer.close()
    served.run()
    assert not served.service.connections
    assert exchange.receive().result == disconnect(1000)


@pytest.mark.parametrize("how", ["a bug", "the peer's close frame", "a broken rule"])
def test_an_application_may_go_on_after_the_end_and_is_counted_until_it_returns(
    serve: Serve, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    served = serve()
    exchange = accept(served)
    if how == "a bug":
        served.peer.reset()
    else:
        served.send(closing(1000) if how.endswith("frame") else frame(3))
        served.peer.close()
    served.run()
    assert not served.service.connections
    assert served.service.active == 1

    exchange.finish(LookupError("a bug") if how == "a bug" else None)
    assert served.service.active == 0 and not served.service.stragglers


def test_a_broken_rule_waits_for_the_application_no_longer_than_for_a_peer(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Messages in front of it wait: `CLOSE_TIME` to take them."""
    served = serve(websockets=WebSockets(ping_interval=1.0, ping_timeout=1.0))
    exchange = accept(served)
    served.send(text("a") + frame(3))
    served.send(text("dropped") * 100)
    assert served.advance(just_before(5.0)) == b""
    assert logged(caplog) == []

    ((opcode, content),) = frames(served.advance(2 * WIDTH))
    assert (opcode, content[:2]) == (CLOSE, (1002).to_bytes(2, "big"))
    assert len(logged(caplog)) == 1
    assert exchange.receive().result == {"type": "websocket.receive", "text": "a"}
    assert exchange.receive().result["code"] == 1002
    assert not served.peer.waiting
    served.peer.close()
    served.run()
    assert not served.service.connections and not served.peer.was_reset


@pytest.mark.parametrize("how", ["close", "return", "drain", "reset", "cancel"])
def test_an_end_that_comes_before_a_broken_rule_was_told_is_one_end(
    serve: Serve, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    served = serve()
    exchange = accept(served)
    served.send(text("a") + frame(3) + text("dropped"))
    if how == "close":
        exchange.send({**CLOSE_IT, "code": 4000})
    elif how == "return":
        exchange.finish()
    elif how == "drain":
        served.service.drain(lambda: None)
    elif how == "reset":
        served.peer.reset()
    else:
        served.service.cancel()
    said = frames(served.run())

    expected = {"close": 4000, "return": 1000, "drain": 1012}
    assert said == (closed(expected[how]) if how in expected else [])
    served.advance(2.0 + WIDTH)
    assert not served.service.connections
    exchange.finish()
    assert served.service.active == 0 and not served.service.stragglers


def test_a_peer_that_does_not_read_delays_a_broken_rule_no_further(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(link={"window": 1000}, timeouts=Timeouts(write=1000.0))
    exchange = accept(served)
    served.peer.pause()
    say(exchange, bytes=b"x" * 100_000)
    served.send(text("a") + frame(3))
    served.advance(5.0 + 2.0 + 2 * WIDTH)

    assert not served.service.connections
    exchange.receive()
    assert exchange.receive().result["code"] == 1002


# ---------------------------------------------------------------- handshakes


@pytest.mark.parametrize(
    ("request_", "status", "field"),
    [
        (("GET", "/ws", *VERSION_12), b"426 Upgrade Required", b"sec-websocket-version: 13"),
        (("GET", "/ws", *HANDSHAKE[:2], HANDSHAKE[3]), b"426 Upgrade Required", b""),
        (("GET", "/ws", *HANDSHAKE[:3]), b"400 Bad Request", b""),
        (("GET", "/ws", *HANDSHAKE, HANDSHAKE[3]), b"400 Bad Request", b""),
        (("GET", "/ws", *HANDSHAKE[:3], "sec-websocket-key: x"), b"400 Bad Request", b""),
        (("POST", "/ws", *HANDSHAKE), b"405 Method Not Allowed", b"allow: GET"),
        (
            ("GET", "/ws", *HANDSHAKE, "sec-websocket-protocol: a b"),
            b"400 Bad Request",
            b"",
        ),
    ],
)
def test_a_handshake_that_cannot_be_granted_is_answered_logged_and_closed(
    serve: Serve, http_request: Request, request_: tuple[str, ...], status: bytes, field: bytes
) -> None:
    """RFC 6455 §4.2.1, §4.4; RFC 9110 §15.5.6."""
    served = serve()
    answer = served.send(http_request(*request_) + frame(TEXT, b"hi"))

    assert answer.startswith(b"HTTP/1.1 %b\r\n" % status)
    assert b"\r\nconnection: close\r\n" in answer
    assert field in answer
    size = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert size == len(answer.partition(b"\r\n\r\n")[2]) > 10
    assert served.access.lines == [("/ws", int(status[:3]), size)]
    assert served.app.exchanges == [] and served.service.active == 0
    served.peer.close()
    served.run()
    assert served.peer.eof and not served.peer.was_reset
    assert not served.service.connections


def test_an_upgrade_required_says_to_what(serve: Serve) -> None:
    """RFC 9110 §15.5.22: a 426 must have an ``upgrade``; §7.8: and name it in ``connection``."""
    head = serve().get("/ws", *VERSION_12).partition(b"\r\n\r\n")[0].lower()
    fields = [line.partition(b": ")[::2] for line in head.split(b"\r\n")[1:]]

    assert (b"upgrade", b"websocket") in fields
    options = b",".join(value for name, value in fields if name == b"connection")
    assert {option.strip() for option in options.split(b",")} == {b"upgrade", b"close"}


def test_a_handshake_with_content_is_refused(serve: Serve, http_request: Request) -> None:
    served = serve()
    answer = served.send(http_request("GET", "/ws", *HANDSHAKE, body=b"x" * 100))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert served.peer.eof and served.app.exchanges == []


def test_an_exchange_that_is_not_over_is_not_forgotten_at_a_refusal(serve: Serve) -> None:
    """Its response is complete, its application has not returned: a background task."""
    served = serve()
    served.get("/one")
    before = served.exchange
    before.respond()
    assert served.get("/ws", *VERSION_12)
    served.service.cancel()
    served.run()

    assert before.left
    assert served.service.active == 0 and not served.service.stragglers


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        (("upgrade: h2c", *HANDSHAKE[1:]), {}),
        (("upgrade: websocket-draft", *HANDSHAKE[1:]), {}),
        ((HANDSHAKE[0], *HANDSHAKE[2:]), {}),
        (HANDSHAKE, {"websockets": None}),
        (VERSION_12, {"websockets": None}),
    ],
    ids=["h2c", "another", "not in connection", "none", "none, refused"],
)
def test_what_asks_for_something_else_is_an_ordinary_request(
    serve: Serve, fields: tuple[str, ...], options: dict[str, Any]
) -> None:
    served = serve(**options)
    for path in ("/one", "/two"):
        served.get(path, *fields)
        assert (served.exchange.scope["type"], served.exchange.scope["path"]) == ("http", path)
        served.exchange.respond(body=b"hi")
        assert served.run() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    assert not gone(served.peer)


def test_an_http_1_0_request_is_an_ordinary_request(serve: Serve) -> None:
    """RFC 9110 §7.8."""
    served = serve()
    lines = ["GET /ws HTTP/1.0", "host: a", *HANDSHAKE, "", ""]
    served.send("\r\n".join(lines).encode())

    assert served.exchange.scope["type"] == "http"


@pytest.mark.parametrize(
    "fields",
    [
        ("Upgrade: WebSocket", "Connection: keep-alive, UPGRADE", *HANDSHAKE[2:]),
        ("upgrade: h2c, websocket", *HANDSHAKE[1:]),
        ("upgrade: h2c", "upgrade: websocket", *HANDSHAKE[1:]),
    ],
)
def test_tokens_are_found_whatever_their_case_and_company(
    serve: Serve, fields: tuple[str, ...]
) -> None:
    """RFC 6455 §4.2.1, items 3 and 4."""
    served = serve()
    served.get("/ws", *fields)
    served.exchange.send(ACCEPT)

    assert served.run() == SWITCHED + b"\r\n"


def test_a_handshake_may_follow_requests_on_its_connection(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.send(http_request("GET", "/one") + http_request("GET", "/ws", *HANDSHAKE) + text("hi"))
    first = served.exchange
    assert first.scope["type"] == "http"
    first.respond(body=b"one")
    exchange = served.exchange
    exchange.send(ACCEPT)
    assert served.run().endswith(b"\r\n\r\none" + SWITCHED + b"\r\n")

    exchange.receive()
    assert exchange.receive().result == {"type": "websocket.receive", "text": "hi"}
    exchange.finish()
    assert served.service.active == 1 and not first.left
    first.finish()
    assert served.service.active == 0 and not served.service.stragglers


def test_a_handshake_may_come_byte_by_byte(serve: Serve, http_request: Request) -> None:
    served = serve()
    for byte in http_request("GET", "/ws", *HANDSHAKE) + text("hi"):
        served.send(bytes((byte,)))
    exchange = served.exchange
    exchange.send(ACCEPT)
    exchange.receive()

    assert exchange.receive().result == {"type": "websocket.receive", "text": "hi"}


def test_a_request_behind_a_handshake_that_was_not_accepted_is_never_served(
    serve: Serve, http_request: Request
) -> None:
    """It could be the content of a frame."""
    served = serve()
    served.send(http_request("GET", "/ws", *HANDSHAKE) + http_request("GET", "/smuggled"))
    served.exchange.send(CLOSE_IT)

    assert served.run().count(b"HTTP/1.1 ") == 1
    assert served.peer.eof and not served.peer.was_reset
    assert [exchange.scope["path"] for exchange in served.app.exchanges] == ["/ws"]


def test_an_answer_may_take_its_time(serve: Serve) -> None:
    served = serve()
    served.get("/ws", *HANDSHAKE)
    served.advance(1000.0)
    served.exchange.send(ACCEPT)

    assert served.run().startswith(SWITCHED)


def test_permessage_deflate_is_agreed_to_unless_it_is_off(serve: Serve) -> None:
    """RFC 7692 §7."""
    offer = "sec-websocket-extensions: permessage-deflate"
    served = serve()
    accept(served, offer)
    assert b"\r\nsec-websocket-extensions: permessage-deflate;" in served.peer.received
    say(served.exchange, text="x" * 1000)
    wire = served.run()
    assert wire[0] == 0xC1 and len(wire) < 50

    served = serve(websockets=WebSockets(deflate=False))
    accept(served, offer)
    assert b"extensions" not in served.peer.received
    say(served.exchange, text="x" * 1000)
    assert frames(served.run()) == [(TEXT, b"x" * 1000)]


# ---------------------------------------------------------------- too many at once, access log


def test_a_websocket_counts_as_long_as_its_application_runs(serve: Serve) -> None:
    served = serve(limit_concurrency=1)
    exchange = accept(served)
    first, served.peer = served.peer, served.connect()
    refused = served.get("/much", *HANDSHAKE)
    assert refused.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1\r\n" in refused and b"connection: close\r\n" in refused
    assert served.peer.eof
    served.peer = served.connect()
    assert served.get("/plain").startswith(b"HTTP/1.1 503 ")

    exchange.finish()
    served.peer = served.connect()
    accept(served, path="/again")
    assert not first.was_reset
    assert [line[:2] for line in served.access.lines] == [
        ("/ws", 101),
        ("/much", 503),
        ("/plain", 503),
        ("/again", 101),
    ]


def test_the_access_log_has_its_line_at_the_answer_and_no_other(serve: Serve) -> None:
    served = serve()
    served.get("/ws", *HANDSHAKE)
    served.advance(3.0)
    assert served.access.lines == []
    served.exchange.send(ACCEPT)
    assert served.access.lines == [("/ws", 101, 0)]
    assert served.access.durations == [3.0]

    say(served.exchange, text="hi")
    served.send(closing(1000))
    served.exchange.finish()
    assert len(served.access.lines) == 1


def test_without_an_access_log_nothing_is_asked_of_it(serve: Serve) -> None:
    served = serve(access_log=None)
    exchange = accept(served)
    exchange.send(CLOSE_IT)
    assert frames(served.run()) == closed(1000)
    served.peer = served.connect()
    assert served.get("/ws", *VERSION_12).startswith(b"HTTP/1.1 426 ")


def test_the_line_of_a_websocket_has_the_method_of_its_handshake(serve: Serve) -> None:
    from omnicorn.observability.access_log import AccessLog

    lines: list[str] = []
    served = serve(access_log=None)
    log = AccessLog('%(h)s "%(r)s" %(s)s', lines.append, served.loop.call_soon)
    served.service.access_log = log
    accept(served, path="/chat?room=1")
    log.flush()

    assert "".join(lines).splitlines() == ['192.0.2.1 "GET /chat?room=1 HTTP/1.1" 101']


# ---------------------------------------------------------------- the server stops


@pytest.fixture
def idle() -> list[str]:
    """Gets an entry when the drain is over."""
    return []


def drain(served: Any, idle: list[str]) -> bytes:
    served.service.drain(lambda: idle.append("idle"))
    result: bytes = served.run()
    return result


def test_a_drain_closes_with_1012_and_waits_for_peer_and_application(
    serve: Serve, idle: list[str]
) -> None:
    served = serve()
    exchange = accept(served)
    served.send(text("a"))
    assert frames(drain(served, idle)) == closed(1012)
    assert exchange.receive().result == {"type": "websocket.receive", "text": "a"}
    assert exchange.receive().result == disconnect(1012)
    assert type(say(exchange, text="x").error) is ClientDisconnected

    served.send(closing(1012))
    assert served.peer.eof and not served.service.connections
    assert idle == []
    exchange.finish()
    assert idle == ["idle"]


def test_a_drain_waits_for_a_peer_that_does_not_answer_for_five_seconds(
    serve: Serve, idle: list[str]
) -> None:
    served = serve()
    exchange = accept(served)
    drain(served, idle)
    exchange.finish()
    served.advance(just_before(5.0))
    assert idle == []

    served.advance(2 * WIDTH)
    assert idle == ["idle"] and gone(served.peer)


def test_a_websocket_that_is_closing_already_keeps_its_code(serve: Serve, idle: list[str]) -> None:
    served = serve()
    exchange = accept(served)
    exchange.send({**CLOSE_IT, "code": 4000})
    served.run()
    assert drain(served, idle) == b""
    served.send(closing(4000))

    assert exchange.receive().result == disconnect(4000)
    exchange.finish()
    assert idle == ["idle"]


def test_a_handshake_that_is_accepted_while_the_server_stops_is_closed_with_1012(
    serve: Serve, idle: list[str]
) -> None:
    served = serve()
    served.get("/ws", *HANDSHAKE)
    exchange = served.exchange
    exchange.receive()
    waiting = exchange.receive()
    assert drain(served, idle) == b""
    assert not waiting.done
    served.service.disconnect()  # half of the grace is over
    served.run()
    assert waiting.result == disconnect(1012)

    assert exchange.send(ACCEPT).error is None
    wire = served.run()
    assert wire.startswith(SWITCHED)
    assert frames(wire.removeprefix(SWITCHED + b"\r\n")) == closed(1012)
    assert type(say(exchange, text="x").error) is ClientDisconnected
    exchange.finish()
    served.send(closing(1012))
    assert idle == ["idle"]


def test_a_handshake_may_be_refused_while_the_server_stops(serve: Serve, idle: list[str]) -> None:
    served = serve()
    served.get("/ws", *HANDSHAKE)
    exchange = served.exchange
    drain(served, idle)
    exchange.send(CLOSE_IT)
    exchange.finish()

    assert served.run().startswith(b"HTTP/1.1 403 ")
    assert idle == ["idle"]


def test_an_application_that_goes_on_after_the_drain_is_told_nothing_twice(
    serve: Serve, idle: list[str]
) -> None:
    served = serve()
    exchange = accept(served)
    drain(served, idle)
    served.send(closing(1012))
    served.service.disconnect()
    served.run()

    assert [exchange.receive().result for _ in range(2)] == [disconnect(1012)] * 2
    exchange.finish()
    assert idle == ["idle"]


@pytest.mark.parametrize("phase", ["handshake", "open", "closing", "lost"])
def test_cancel_ends_applications_and_connections_at_once(
    serve: Serve, caplog: pytest.LogCaptureFixture, idle: list[str], phase: str
) -> None:
    served = serve()
    if phase == "handshake":
        served.get("/ws", *HANDSHAKE)
        exchange = served.exchange
    else:
        exchange = accept(served)
    if phase == "closing":
        exchange.send(CLOSE_IT)
    elif phase == "lost":
        served.peer.reset()
    served.run()
    drain(served, idle)
    served.service.cancel()
    served.run()

    assert exchange.left
    assert gone(served.peer) and not served.service.connections
    assert served.service.active == 0
    assert idle == ["idle"]
    assert caplog.records == []


def test_cancel_in_the_turn_of_a_handshake_counts_it_out(serve: Serve) -> None:
    """A task that is cancelled before its first step never enters its coroutine."""
    served = serve()
    lines = ["GET /ws HTTP/1.1", "host: a", *HANDSHAKE, "", ""]
    served.peer.send("\r\n".join(lines).encode())
    served.loop.call_soon(served.service.cancel)
    served.run()

    assert served.service.active == 0


def test_an_application_that_is_cancelled_says_that_the_service_restarts(serve: Serve) -> None:
    """Where its connection can still say so."""
    served = serve()
    exchange = accept(served)
    waiting = exchange.receive()
    (connection,) = served.service.connections
    connection._cycle.cancel()
    served.run()

    assert exchange.left
    assert waiting.result == disconnect(1012)


# ---------------------------------------------------------------- contexts, memory


var: ContextVar[str] = ContextVar("var", default="unset")


def test_websockets_do_not_see_each_others_context_variables(serve: Serve) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(var.get())
        var.set(scope["path"])
        await send(ACCEPT)
        await receive()
        await receive()
        seen.append(var.get())

    served = serve(app)
    peers = []
    for path in ("/a", "/b"):
        served.peer = served.connect()
        peers.append(served.peer)
        served.get(path, *HANDSHAKE)
    for peer in peers:
        peer.send(text("go on"))
    served.run()

    assert seen == ["unset", "unset", "/a", "/b"]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/deny":
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": "websocket.http.response.body", "body": b"no"})
        return
    if scope["path"] == "/refuse":
        await send(CLOSE_IT)
        return
    await receive()
    await send(ACCEPT)
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") == "close":
            await send(CLOSE_IT)
        elif event.get("text") == "bug":
            raise LookupError("a bug")
        else:
            await send({**event, "type": "websocket.send"})


VISITS = {
    "the peer closes": [text("hi"), closing(1000)],
    "the application closes": [text("close"), closing(1000)],
    "the application fails": [text("bug"), closing(1011)],
    "a broken rule": [frame(3)],
    "a message that is no text": [frame(TEXT, b"\xff")],
    "the peer is lost": [],
    "the application denies": [],
    "the application refuses": [],
    "a handshake is refused": [],
    "too many at once": [],
}


def visit(served: Any, kind: str) -> None:
    """Come, talk, leave; what the two ends know of each other is forgotten."""
    served.peer = served.peer or served.connect()
    path = {"the application denies": "/deny", "the application refuses": "/refuse"}.get(kind, "/")
    deflate = "sec-websocket-extensions: permessage-deflate"
    fields = VERSION_12 if kind == "a handshake is refused" else (*HANDSHAKE, deflate)
    served.get(path, *fields)
    for segment in VISITS[kind]:
        served.send(segment)
    if kind == "the peer is lost":
        served.peer.reset()
    else:
        served.peer.close()
    served.run()
    served.advance(100.0)
    assert not served.service.connections and not served.service.active
    served.peer.transport.peer = None
    served.peer = None


@pytest.fixture
def no_records() -> Iterator[None]:
    """pytest would keep log records, and with them the frames of tracebacks."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("no_records")
@pytest.mark.parametrize("kind", VISITS)
def test_a_websocket_that_is_gone_leaves_no_reference_cycle(
    serve: Serve, garbage: Callable[[], list[str]], kind: str
) -> None:
    served = serve(echo, limit_concurrency=0 if kind == "too many at once" else None)
    visit(served, kind)
    garbage()
    visit(served, kind)

    assert garbage() == []


@pytest.mark.usefixtures("garbage")
def test_each_part_goes_when_it_is_over(serve: Serve) -> None:
    """ADR 13: the HTTP connection and its engine go while the WebSocket lives."""

    def alive() -> set[str]:
        return {type(held).__name__ for held in gc.get_objects()}.intersection(PARTS)

    PARTS = {
        "Http1Connection",
        "Http1Engine",
        "WebSocketConnection",
        "WebSocketCycle",
        "WebSocketEngine",
    }
    served = serve(echo)
    assert alive() == {"Http1Connection", "Http1Engine"}
    served.get("/", *HANDSHAKE)
    assert frames(served.send(text("hi"))) == [(TEXT, b"hi")]
    assert alive() == {"WebSocketConnection", "WebSocketCycle", "WebSocketEngine"}

    served.send(closing(1000))
    assert alive() == set()
