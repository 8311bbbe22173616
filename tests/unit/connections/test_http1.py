from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.connections.bytestream import DRAIN_TIME, LINGER_BYTES, LINGER_TIME
from omnicorn.connections.deadlines import WIDTH
from omnicorn.connections.service import Timeouts
from omnicorn.http.limits import Limits
from omnicorn.ports import HIGH_WATER
from omnicorn.security.trust import TrustedPeers

if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[..., Any]
    Request = Callable[..., bytes]

HI = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
CLOSE = b"connection: close\r\n"
REQUEST_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\n"
DISCONNECT = {"type": "http.disconnect"}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hi"})


async def echo_path(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def gone(peer: Any) -> bool:
    """The server has ended the connection, in good order or not."""
    return bool(peer.eof or peer.was_reset)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


# ---------------------------------------------------------------- writes


def test_head_and_content_leave_in_one_write(serve: Serve) -> None:
    served = serve(hello)
    served.get()

    assert served.peer.writes == [HI]


def test_what_is_sent_in_one_turn_leaves_in_one_write(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</x>"]})
        await send({"type": "http.response.start", "status": 200})
        for piece in (b"a", b"b", b"c"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await waiter
        for piece in (b"d", b"e"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    served = serve(app)
    waiter = served.loop.create_future()
    served.get()
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    assert served.peer.writes == [hints + CHUNKED + b"3\r\nabc\r\n"]

    waiter.set_result()
    served.run()
    assert served.peer.writes[1:] == [b"2\r\nde\r\n0\r\n\r\n"]


def test_a_large_stream_leaves_in_writes_of_about_64_kib(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
        await send({"type": "http.response.body"})

    served = serve(app)
    served.get()

    sizes = [len(write) for write in served.peer.writes]
    assert len(sizes) <= 1 + 1_000_000 // HIGH_WATER
    assert max(sizes) <= HIGH_WATER + 11_000


# ---------------------------------------------------------------- turns


def test_the_connection_persists(serve: Serve) -> None:
    """RFC 9112 §9.3."""
    served = serve(hello)

    assert [served.get() for _ in range(3)] == [HI] * 3
    assert not gone(served.peer)


@pytest.mark.parametrize("field", ["connection: close", "connection: foo, Close"])
def test_a_client_that_says_close_gets_it(serve: Serve, field: str) -> None:
    served = serve(hello)

    assert CLOSE in served.get("/", field)
    assert served.peer.eof and not served.peer.was_reset


def test_pipelined_requests_are_answered_in_order_and_one_at_a_time(
    serve: Serve, http_request: Request
) -> None:
    """RFC 9112 §9.3.2."""
    served = serve()
    served.send(b"".join(http_request("GET", f"/{number}") for number in range(3)))
    for number in range(3):
        assert len(served.app.exchanges) == number + 1
        served.exchange.respond(body=b"%d" % number)
        assert served.run().endswith(b"\r\n\r\n%d" % number)


def test_reading_pauses_while_many_pipelined_requests_wait(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.send(http_request("GET", "/one"))
    served.send(http_request("GET", "/two"))
    assert served.peer.transport.is_reading
    served.send(http_request("GET", "/three") * (HIGH_WATER // 20))
    assert not served.peer.transport.is_reading
    served.send(http_request("GET", "/last"))
    assert served.peer.waiting

    served.exchange.respond()
    assert served.exchange.scope["path"] == "/two"
    while served.exchange.scope["path"] != "/last":
        served.exchange.respond()
        served.run()
    assert served.peer.transport.is_reading


def test_a_reset_is_noticed_although_a_request_waits_behind(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.send(http_request("GET", "/one") + http_request("GET", "/two"))
    served.exchange.receive()
    waiting = served.exchange.receive()
    served.peer.reset()
    served.run()

    assert waiting.result == {"type": "http.disconnect"}


def test_thousands_of_pipelined_requests_do_not_grow_the_stack(
    serve: Serve, http_request: Request
) -> None:
    served = serve(hello)

    assert served.send(http_request("GET", "/") * 3000) == HI * 3000


def test_a_pipelined_request_waits_until_a_slow_reader_has_caught_up(
    serve: Serve, http_request: Request
) -> None:
    served = serve(link={"window": 1000})
    served.peer.pause()
    served.send(http_request("GET", "/one") + http_request("GET", "/two"))
    served.exchange.respond(body=b"x" * 200_000)
    assert len(served.app.exchanges) == 1

    served.peer.resume()
    served.run()
    assert served.exchange.scope["path"] == "/two"


def test_a_request_may_come_byte_by_byte(serve: Serve, http_request: Request) -> None:
    served = serve(hello)
    request = http_request("POST", "/", body=b"abc") + http_request("GET", "/")
    for number in range(len(request)):
        served.send(request[number : number + 1])

    assert served.peer.received == HI * 2


# ---------------------------------------------------------------- half-close and leaving


def test_a_client_that_has_said_its_last_still_gets_its_response(serve: Serve) -> None:
    served = serve()
    served.get()
    served.exchange.receive()
    waiting = served.exchange.receive()
    served.peer.close()
    served.run()
    assert waiting.result == DISCONNECT
    assert not gone(served.peer)

    assert served.exchange.start().error is None
    assert served.exchange.body(b"a", more=True).error is None
    assert served.exchange.body(b"b").error is None
    assert served.run() == CHUNKED + b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
    assert served.peer.eof and not served.peer.was_reset


def test_a_client_that_ends_in_the_segment_of_its_request_is_answered(serve: Serve) -> None:
    """printf | nc: request and FIN come together."""
    served = serve(hello)
    served.peer.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    served.peer.close()

    assert served.run() == HI
    assert served.peer.eof


def test_all_pipelined_requests_before_the_end_are_answered(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.send(http_request("GET", "/one") + http_request("GET", "/two"))
    served.peer.close()
    served.exchange.respond(body=b"one")
    served.exchange.respond(body=b"two")

    assert served.run().endswith(b"\r\n\r\ntwo")
    assert served.peer.eof


@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
def test_a_client_that_leaves_between_requests_is_let_go_silently(
    serve: Serve, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    served = serve(hello)
    served.get()
    served.peer.send(sent)
    served.peer.close()

    assert served.run() == b""
    assert served.peer.eof
    assert caplog.records == []
    assert not served.service.connections


def test_a_client_that_leaves_in_the_middle_of_its_content_is_let_go(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 9") + b"abc")
    served.peer.close()
    served.run()

    assert gone(served.peer)
    assert type(served.exchange.start().error).__name__ == "ClientDisconnected"
    served.exchange.finish()
    assert served.service.active == 0


def test_a_client_that_leaves_in_the_middle_of_its_content_while_output_waits_is_let_go(
    serve: Serve, http_request: Request, eager: bool
) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 9") + b"abc")
    start = {"type": "http.response.start", "status": 200}

    # In one turn of the loop: the head is sent, the end is read, and then comes the flush.
    if eager:
        served.peer.close()
        served.loop.spawn(served.exchange.asgi_send(start))
    else:
        served.loop.spawn(served.exchange.asgi_send(start))
        served.peer.close()
    served.run()

    assert gone(served.peer)


# ---------------------------------------------------------------- deadlines: the head


def test_a_silent_new_connection_is_closed_without_a_word(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(hello)
    served.advance(14.9)
    assert not gone(served.peer)

    assert served.advance(0.1 + WIDTH) == b""
    assert served.peer.eof
    assert caplog.records == []


def test_a_head_that_drips_is_answered_408_after_15_seconds_in_total(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 9110 §15.5.9."""
    served = serve(hello)
    served.advance(10.0)  # silence before the first byte is counted by itself
    served.send(b"GET / HTTP/1.1\r\n")
    for _ in range(14):
        assert served.advance(1.0) == b""
        served.send(b"x: y\r\n")
    assert served.advance(0.9) == b""

    assert served.advance(0.1 + WIDTH).startswith(REQUEST_TIMEOUT)
    assert served.peer.eof
    assert warnings(caplog) == [
        "192.0.2.1:50000 - refused with 408: the request head did not arrive in time"
    ]


def test_a_kept_connection_that_begins_a_request_has_15_seconds_for_its_head(
    serve: Serve,
) -> None:
    served = serve(hello)
    served.get()
    served.advance(50.0)
    served.send(b"G")
    assert served.advance(14.9) == b""

    assert served.advance(0.1 + WIDTH).startswith(REQUEST_TIMEOUT)


def test_a_pipelined_beginning_has_15_seconds_too(serve: Serve, http_request: Request) -> None:
    served = serve(hello)
    served.send(http_request("GET", "/") + b"GET /two")
    assert served.advance(14.9) == b""

    assert served.advance(0.1 + WIDTH).startswith(REQUEST_TIMEOUT)


def test_each_head_has_its_own_15_seconds(serve: Serve, http_request: Request) -> None:
    served = serve(hello)
    request = http_request("GET", "/")
    for _ in range(3):
        served.send(request[:5])
        served.advance(14.0)
        assert served.send(request[5:]) == HI


# ---------------------------------------------------------------- deadlines: the content


def test_content_that_stalls_for_30_seconds_is_answered_408(
    serve: Serve, http_request: Request, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 100"))
    for _ in range(3):
        served.send(b"abc")
        assert served.advance(29.9) == b""
    call = served.exchange.receive()
    assert call.result["body"] == b"abc" * 3
    call = served.exchange.receive()

    assert served.advance(0.1 + WIDTH).startswith(REQUEST_TIMEOUT)
    assert call.result == DISCONNECT
    assert warnings(caplog) == [
        "192.0.2.1:50000 - refused with 408: the request body did not arrive in time"
    ]
    served.advance(LINGER_TIME + WIDTH)
    assert gone(served.peer)


def test_content_may_take_long_as_long_as_it_comes(serve: Serve, http_request: Request) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 100"))
    for _ in range(100):
        assert served.advance(20.0) == b""
        served.send(b"x")

    assert served.exchange.receive().result["body"] == b"x" * 100


def test_the_application_may_be_slow_to_read(serve: Serve, http_request: Request) -> None:
    """The peer is not to blame while reading is paused."""
    served = serve()
    served.send(http_request("POST", "/", "content-length: 200000") + b"x" * 70_000)
    served.send(b"x" * 130_000)
    assert not served.peer.transport.is_reading
    assert served.advance(1000.0) == b""

    assert served.exchange.receive().result["body"] == b"x" * 70_000
    served.run()
    assert served.exchange.receive().result["more_body"] is False


def test_after_the_application_has_caught_up_the_peer_has_30_seconds_again(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 200000") + b"x" * 70_000)
    served.advance(1000.0)
    served.exchange.receive()
    assert served.advance(29.9) == b""

    assert served.advance(0.1 + WIDTH).startswith(REQUEST_TIMEOUT)


def test_a_peer_that_waits_for_100_continue_is_not_timed_out(
    serve: Serve, http_request: Request
) -> None:
    """RFC 9110 §10.1.1: it is the application's turn."""
    served = serve()
    served.send(http_request("POST", "/", "expect: 100-continue", "content-length: 2"))
    assert served.advance(100.0) == b""

    served.exchange.receive()
    assert served.run() == b"HTTP/1.1 100 Continue\r\n\r\n"


# ---------------------------------------------------------------- deadlines: idle and busy


def test_an_idle_connection_is_closed_silently_after_75_seconds(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(hello)
    served.get()
    assert served.advance(74.9) == b""
    assert not gone(served.peer)

    assert served.advance(0.1 + WIDTH) == b""
    assert served.peer.eof and not served.peer.was_reset
    assert caplog.records == []


def test_every_request_begins_the_idle_time_anew(serve: Serve) -> None:
    served = serve(hello)
    for _ in range(5):
        assert served.get() == HI
        served.advance(74.0)
    assert not gone(served.peer)


def test_a_short_idle_time_is_kept_from_the_first_request_on(serve: Serve) -> None:
    served = serve(hello, timeouts=Timeouts(keep_alive=5.0))
    served.advance(1.0)
    served.get()
    served.advance(5.0 + WIDTH)

    assert served.peer.eof


def test_a_short_idle_time_is_kept_after_slow_reading(serve: Serve) -> None:
    served = serve(timeouts=Timeouts(keep_alive=5.0), link={"window": 1000})
    served.peer.pause()
    served.get()
    served.exchange.respond(body=b"x" * 100_000)
    served.exchange.finish()
    served.advance(30.0)
    served.peer.resume()
    served.advance(5.0 + WIDTH)

    assert served.peer.eof


def test_an_application_may_take_its_time(serve: Serve) -> None:
    served = serve()
    served.get()
    assert served.advance(100_000.0) == b""
    served.exchange.start()
    served.exchange.body(b"a", more=True)
    served.advance(100_000.0)
    served.exchange.body(b"b")

    assert served.run().endswith(b"1\r\nb\r\n0\r\n\r\n")
    assert not gone(served.peer)


# ---------------------------------------------------------------- deadlines: writing


def test_a_peer_that_reads_nothing_for_60_seconds_is_cut(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    served.peer.pause()
    served.get()
    served.exchange.start()
    call = served.exchange.body(b"x" * 200_000, more=True)
    served.advance(59.9)
    assert not gone(served.peer)

    served.advance(0.1 + WIDTH)
    assert served.peer.was_reset
    assert type(call.error).__name__ == "ClientDisconnected"
    assert not served.service.connections


def test_a_peer_that_reads_a_little_stays(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    served.peer.pause()
    served.get()
    served.exchange.start()
    call = served.exchange.body(b"x" * 200_000, more=True)
    for _ in range(20):
        served.advance(50.0)
        assert not gone(served.peer)
        served.peer.read(100)

    served.peer.resume()
    served.run()
    assert call.done and call.error is None


def test_a_peer_that_does_not_read_the_rest_of_a_closing_connection_is_cut(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    served.peer.pause()
    served.get("/", "connection: close")
    served.exchange.respond(body=b"x" * 200_000)
    served.advance(59.9)
    assert not gone(served.peer)

    served.advance(0.1 + 2 * WIDTH)
    assert served.peer.was_reset


def test_a_peer_that_reads_the_rest_of_a_closing_connection_slowly_gets_it(serve: Serve) -> None:
    served = serve(link={"window": 10_000})
    served.peer.pause()
    served.get("/", "connection: close")
    served.exchange.respond(body=b"x" * 200_000)
    for _ in range(30):
        served.advance(50.0)
        served.peer.read(10_000)
    served.peer.resume()
    served.run()

    assert served.peer.received.endswith(b"x" * 200_000)
    assert served.peer.eof and not served.peer.was_reset


def test_a_peer_that_sends_but_does_not_read_is_cut_as_well(
    serve: Serve, http_request: Request
) -> None:
    served = serve(link={"window": 1000})
    served.peer.pause()
    served.send(http_request("POST", "/", "content-length: 1000"))
    served.exchange.start()
    served.exchange.body(b"x" * 200_000, more=True)
    for _ in range(6):
        served.advance(9.9)
        served.send(b"y")
        assert not gone(served.peer)

    served.advance(1.0)
    assert served.peer.was_reset


def test_a_content_deadline_begins_anew_after_slow_reading(
    serve: Serve, http_request: Request
) -> None:
    """A conversation in both directions, with a peer that first does not read."""
    served = serve(link={"window": 1000})
    served.peer.pause()
    served.send(http_request("POST", "/", "content-length: 10"))
    served.exchange.start()
    served.exchange.body(b"x" * 200_000, more=True)
    served.advance(40.0)
    served.peer.resume()
    served.advance(29.0)
    assert not gone(served.peer)

    served.advance(1.0 + LINGER_TIME + 2 * WIDTH)
    assert gone(served.peer)


# ---------------------------------------------------------------- lingering


def refused_upload(serve: Serve, http_request: Request) -> Any:
    """A server that has refused a large upload of which 1000 bytes have come."""
    served = serve(hello, limits=Limits(body=100_000))
    answer = served.send(http_request("POST", "/", "content-length: 5000000") + b"x" * 1000)
    assert answer.startswith(b"HTTP/1.1 413 ") and CLOSE in answer
    return served


def test_an_answer_survives_what_is_still_being_uploaded(
    serve: Serve, http_request: Request
) -> None:
    """RFC 9112 §9.6."""
    served = refused_upload(serve, http_request)
    for _ in range(10):
        served.send(b"x" * 50_000)
        assert not served.peer.was_reset
        assert served.peer.waiting == 0
    assert served.peer.eof  # our side is closed, and that is all
    served.peer.close()
    served.run()

    assert not served.service.connections
    assert not served.peer.was_reset


def test_lingering_ends_after_two_seconds(serve: Serve, http_request: Request) -> None:
    served = refused_upload(serve, http_request)
    for _ in range(19):
        served.advance(0.1)
        served.send(b"x")
    assert served.service.connections

    served.advance(0.1 + 2 * WIDTH)
    assert not served.service.connections


def test_lingering_ends_after_a_mebibyte(serve: Serve, http_request: Request) -> None:
    served = refused_upload(serve, http_request)
    for _ in range(LINGER_BYTES // 65536):
        served.send(b"x" * 65536)
    assert served.service.connections

    served.send(b"x")
    assert not served.service.connections
    assert served.peer.was_reset


def test_an_early_answer_to_a_large_upload_lingers(serve: Serve, http_request: Request) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 5000000") + b"x" * 100_000)
    assert not served.peer.transport.is_reading
    served.send(b"x" * 100_000)
    served.exchange.respond(403, b"no")
    assert served.run().endswith(b"\r\n\r\nno")
    served.send(b"x" * 100_000)

    assert served.peer.waiting == 0
    assert not served.peer.was_reset
    served.peer.close()
    served.run()
    assert served.peer.eof and not served.peer.was_reset


def test_an_early_answer_to_a_small_upload_keeps_the_connection(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 50000") + b"x" * 10)
    served.exchange.respond(403, b"no")
    served.exchange.finish()
    assert served.peer.take().endswith(b"\r\n\r\nno")
    served.send(b"x" * 49_990 + http_request("GET", "/two"))

    assert served.exchange.scope["path"] == "/two"
    assert not gone(served.peer)


def test_the_rest_of_an_answered_upload_has_a_deadline_and_no_408(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 50000") + b"x" * 10)
    served.exchange.respond(403, b"no")
    served.peer.take()

    assert served.advance(30.0 + LINGER_TIME + 3 * WIDTH) == b""
    assert gone(served.peer)


def test_lingering_does_not_cut_an_answer_that_is_still_being_read(
    serve: Serve, http_request: Request
) -> None:
    """Rule 3 of the module: closing never takes a response away."""
    served = serve(link={"window": 10_000})
    served.send(http_request("POST", "/", "content-length: 5000000") + b"x" * 1000)
    served.peer.pause()
    served.exchange.respond(403, b"x" * 200_000)
    for _ in range(10):
        served.advance(1.0)
        served.peer.read(10_000)
    served.peer.resume()
    served.run()

    assert served.peer.received.endswith(b"x" * 200_000)


# ---------------------------------------------------------------- background work


def test_the_application_may_go_on_after_its_last_piece(serve: Serve) -> None:
    served = serve()
    served.get("/one")
    one = served.exchange
    one.respond(body=b"hi")
    assert served.run().endswith(b"hi")
    assert served.get("/two") == b""
    two = served.exchange
    assert two.scope["path"] == "/two"
    two.respond(body=b"two")
    served.peer.reset()
    served.run()

    assert not one.left and not two.left
    assert served.service.active == 2
    one.finish()
    two.finish()
    assert served.service.active == 0
    assert not served.service.stragglers


def test_background_work_survives_its_connection(serve: Serve) -> None:
    served = serve()
    served.get()
    served.exchange.respond()
    served.peer.close()
    served.run()
    assert served.peer.eof

    assert not served.exchange.left
    assert len(served.service.stragglers) == 1
    served.exchange.finish()
    assert not served.service.stragglers


# ---------------------------------------------------------------- logs


def test_every_response_is_logged_once_and_in_order(serve: Serve, http_request: Request) -> None:
    served = serve(echo_path)
    served.send(b"".join(http_request("GET", f"/{number}") for number in range(3)))

    assert [line[:2] for line in served.access.lines] == [("/0", 200), ("/1", 200), ("/2", 200)]


def test_the_access_log_knows_the_size_of_the_last_piece(serve: Serve) -> None:
    served = serve(echo_path)
    served.get("/path")

    assert served.access.lines == [("/path", 200, 5)]


def test_a_response_cut_by_the_peer_is_logged_once(serve: Serve) -> None:
    served = serve()
    served.get("/cut")
    served.exchange.start()
    served.exchange.body(b"abc", more=True)
    served.peer.reset()
    served.run()
    served.exchange.finish()

    assert served.access.lines == [("/cut", 200, 3)]


def test_a_response_cut_by_the_application_is_logged_once(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    served.get("/cut")
    served.exchange.start()
    served.exchange.body(b"abc", more=True)
    served.exchange.finish(LookupError("a bug"))
    served.peer.close()
    served.run()

    assert served.access.lines == [("/cut", 200, 3)]


@pytest.mark.parametrize("how", ["garbage", "end"])
def test_a_response_cut_because_the_request_broke_is_logged_once(
    serve: Serve, http_request: Request, how: str
) -> None:
    served = serve()
    served.send(http_request("POST", "/cut", "transfer-encoding: chunked") + b"1\r\na\r\n")
    served.exchange.start()
    served.exchange.body(b"abc", more=True)
    if how == "garbage":
        served.peer.send(b"garbage\r\n")
    else:
        served.peer.close()
    served.run()
    served.advance(100.0)
    served.exchange.finish()

    assert served.access.lines == [("/cut", 200, 3)]


def test_a_408_that_ends_an_exchange_is_logged_once(serve: Serve, http_request: Request) -> None:
    served = serve()
    served.send(http_request("POST", "/slow", "content-length: 100") + b"abc")
    served.advance(40.0)
    served.exchange.finish()

    assert [line[:2] for line in served.access.lines] == [("/slow", 408)]


def test_a_peer_that_leaves_before_the_response_is_no_response(serve: Serve) -> None:
    served = serve()
    served.get()
    served.peer.reset()
    served.run()
    served.exchange.finish()

    assert served.access.lines == []


def test_the_duration_is_from_the_head_to_the_end_of_the_response(serve: Serve) -> None:
    served = serve()
    served.get()
    served.advance(3.0)
    served.exchange.respond()
    served.advance(4.0)
    served.exchange.finish()

    assert served.access.durations == [3.0]


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"nonsense\r\n\r\n", 400, "names no HTTP version"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "host field is missing"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n", 400, "white space"),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", 501, "CONNECT"),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n", 414, "line is too long"),
    ],
)
def test_a_malformed_request_is_logged_once_with_peer_and_reason(
    serve: Serve, caplog: pytest.LogCaptureFixture, data: bytes, status: int, reason: str
) -> None:
    served = serve(hello)
    answer = served.send(data)

    assert answer.startswith(b"HTTP/1.1 %d " % status) and CLOSE in answer
    assert len(warnings(caplog)) == 1
    assert warnings(caplog)[0].startswith(f"192.0.2.1:50000 - refused with {status}: ")
    assert reason in warnings(caplog)[0]
    assert caplog.records[0].levelno == logging.WARNING
    served.send(data)
    served.advance(10.0)
    assert len(warnings(caplog)) == 1
    assert served.peer.received == answer
    assert not served.service.connections


def test_many_malformed_requests_do_not_fill_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(hello)
    for _ in range(100):
        served.peer = served.connect()
        served.send(b"nonsense\r\n\r\n")

    assert len(caplog.records) == 10


def test_a_malformed_request_behind_a_good_one_waits_for_its_turn(
    serve: Serve, http_request: Request, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    served.send(http_request("GET", "/") + b"nonsense\r\n\r\n")
    assert caplog.records == []
    served.exchange.respond(body=b"hi")
    answer = served.run()

    assert answer.startswith(HI + b"HTTP/1.1 400 ")
    assert len(caplog.records) == 1


# ---------------------------------------------------------------- proxies


@pytest.mark.parametrize(
    ("peername", "client", "scheme"),
    [
        (("10.0.0.1", 5), ("203.0.113.9", 0), "https"),
        (("10.0.0.2", 5), ("10.0.0.2", 5), "http"),
        ("", None, "http"),
    ],
)
def test_proxy_headers_are_believed_from_trusted_peers_alone(
    serve: Serve, peername: Any, client: Any, scheme: str
) -> None:
    served = serve(trusted=TrustedPeers("10.0.0.1"), link={"peername": peername})
    served.get("/", "x-forwarded-for: 203.0.113.9", "x-forwarded-proto: https")

    assert served.exchange.scope["client"] == client
    assert served.exchange.scope["scheme"] == scheme


def test_one_connection_may_speak_for_many_clients(serve: Serve) -> None:
    served = serve(trusted=TrustedPeers("*"))
    for host in ("203.0.113.1", "203.0.113.2"):
        served.get("/", f"x-forwarded-for: {host}")
        assert served.exchange.scope["client"][0] == host
        served.exchange.respond()
        served.exchange.finish()
    served.get("/")

    assert served.exchange.scope["client"] == ("192.0.2.1", 50000)


def test_without_trust_nobody_is_believed(serve: Serve) -> None:
    served = serve()
    served.get("/", "x-forwarded-for: 203.0.113.9", "x-forwarded-proto: https")

    assert served.exchange.scope["client"] == ("192.0.2.1", 50000)
    assert served.exchange.scope["scheme"] == "http"


def test_a_peer_that_left_before_the_loop_knows_does_not_stop_the_drain(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's ``write_eof`` is a system call, and says ENOTCONN for a peer that has reset."""
    served = serve()
    other = served.connect()
    served.send(b"GARBAGE")
    transport = served.peer.transport

    def refuse() -> None:
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(type(transport), "write_eof", lambda self: refuse())
    served.send(b"\r\n\r\n")  # refused, and lingering would begin
    served.service.drain(lambda: None)
    served.run()

    assert served.peer.was_reset or served.peer.eof
    served.advance(DRAIN_TIME + WIDTH)
    assert other.eof
    assert served.service.connections == set()


def test_the_body_deadline_runs_while_an_application_pauses_for_others(
    serve: Serve, http_request: Request
) -> None:
    """`blocked` is also said where nobody reads slowly: then it is still the peer's turn."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": bytes(HIGH_WATER + 1), "more_body": True})
        await receive()

    served = serve(app)
    served.advance(14.0)
    served.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n")
    served.peer.take()
    served.advance(20.0)
    assert not (served.peer.eof or served.peer.was_reset)
    served.advance(12.0)
    assert served.peer.eof or served.peer.was_reset
