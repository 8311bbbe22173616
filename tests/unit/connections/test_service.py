from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.connections.bytestream import DRAIN_TIME
from omnicorn.connections.deadlines import WIDTH
from omnicorn.connections.service import Timeouts

if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[..., Any]
    Request = Callable[..., bytes]

HI = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
CLOSE = b"connection: close\r\n"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hi"})


# ---------------------------------------------------------------- configuration


def test_the_default_bounds_are_the_documented_ones() -> None:
    assert Timeouts() == (15.0, 30.0, 75.0, 60.0)


def test_default_fields_are_sent_once_and_the_date_keeps_up(serve: Serve) -> None:
    wall = [784111777.25]
    served = serve(
        hello,
        server_header=True,
        date_header=True,
        headers=[(b"x-one", b"1")],
        wall_clock=lambda: wall[0],
    )
    first = served.get()
    assert first.count(b"server: omnicorn\r\n") == 1
    assert first.count(b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n") == 1
    assert first.count(b"x-one: 1\r\n") == 1

    wall[0] += 0.7
    served.advance(0.7)
    assert served.get() == first
    wall[0] += 0.05
    served.advance(0.05)
    assert b"date: Sun, 06 Nov 1994 08:49:38 GMT\r\n" in served.get()


def test_no_timer_ticks_while_nobody_asks(serve: Serve) -> None:
    served = serve(hello, date_header=True)
    served.get()
    served.peer.close()
    served.run()
    assert served.peer.eof

    served.advance(100.0)  # the timers that were set fire once more
    assert served.loop._timers == []


# ---------------------------------------------------------------- too many at once


def test_beyond_the_limit_there_is_a_503_that_says_when_to_come_back(serve: Serve) -> None:
    served = serve(limit_concurrency=1)
    served.get("/slow")
    slow = served.exchange
    first, served.peer = served.peer, served.connect()
    refused = served.get("/much")

    assert refused.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1\r\n" in refused and CLOSE in refused
    assert refused.endswith(b"\r\n\r\nService Unavailable")
    assert served.peer.eof
    assert len(served.app.exchanges) == 1

    slow.respond(body=b"hi")
    slow.finish()
    assert first.received.endswith(b"hi")
    served.peer = served.connect()
    served.get("/again")
    assert served.exchange.scope["path"] == "/again"
    assert [line[:2] for line in served.access.lines] == [("/much", 503), ("/slow", 200)]


def test_a_refused_exchange_is_not_counted(serve: Serve) -> None:
    served = serve(limit_concurrency=1)
    served.get("/slow")
    for _ in range(3):
        served.peer = served.connect()
        assert served.get().startswith(b"HTTP/1.1 503 ")

    assert served.service.active == 1
    served.exchange.respond()
    served.exchange.finish()
    assert served.service.active == 0


def test_a_503_reaches_a_client_that_is_still_uploading(
    serve: Serve, http_request: Request
) -> None:
    served = serve(limit_concurrency=0)
    answer = served.send(http_request("POST", "/", "content-length: 500000") + b"x" * 1000)
    assert answer.startswith(b"HTTP/1.1 503 ")

    served.send(b"x" * 100_000)
    served.peer.close()
    served.run()
    assert served.peer.eof and not served.peer.was_reset


# ---------------------------------------------------------------- drain


@pytest.fixture
def idle() -> list[str]:
    """Gets an entry when the drain is over."""
    return []


def drain(served: Any, idle: list[str]) -> None:
    served.service.drain(lambda: idle.append("idle"))
    served.run()


def test_draining_without_connections_is_over_at_once(serve: Serve, idle: list[str]) -> None:
    served = serve(hello)
    served.peer.reset()
    served.run()
    drain(served, idle)

    assert idle == ["idle"]


def test_idle_connections_are_closed_at_once(serve: Serve, idle: list[str]) -> None:
    served = serve(hello)
    served.get()
    drain(served, idle)

    assert served.peer.eof
    assert idle == ["idle"]
    assert served.peer.received == HI


@pytest.mark.parametrize("sent", [b"", b"GET / HTT", b"\r\n"])
def test_a_first_request_that_is_on_its_way_is_answered(
    serve: Serve, idle: list[str], sent: bytes
) -> None:
    served = serve(hello)
    served.send(sent)
    drain(served, idle)
    assert not served.peer.eof
    served.advance(DRAIN_TIME / 2)

    answer = served.send(GET[len(sent) :] if sent.strip() else GET)
    assert answer.startswith(b"HTTP/1.1 200 ") and CLOSE in answer
    served.advance(3.0)
    assert served.peer.eof
    assert idle == ["idle"]


@pytest.mark.parametrize(("sent", "answer"), [(b"", b""), (b"GET / HTT", b"HTTP/1.1 408 ")])
def test_a_first_request_that_does_not_come_is_not_waited_for_long(
    serve: Serve, idle: list[str], sent: bytes, answer: bytes
) -> None:
    served = serve(hello)
    served.send(sent)
    drain(served, idle)
    served.advance(DRAIN_TIME + WIDTH)
    assert served.peer.received.startswith(answer) and bool(served.peer.received) == bool(answer)
    served.advance(3.0)  # lingering, behind an answer
    assert served.peer.eof
    assert idle == ["idle"]


def test_a_head_that_begins_while_the_server_stops_has_no_more_time(
    serve: Serve, idle: list[str]
) -> None:
    served = serve(hello)
    drain(served, idle)
    served.advance(DRAIN_TIME / 2)
    served.send(b"GET")
    served.advance(DRAIN_TIME + WIDTH)
    assert served.peer.received.startswith(b"HTTP/1.1 408 ")


def test_what_is_in_flight_finishes_and_says_that_it_closes(serve: Serve, idle: list[str]) -> None:
    served = serve()
    served.get()
    drain(served, idle)
    assert idle == [] and not served.peer.eof

    served.exchange.respond(body=b"hi")
    assert CLOSE in served.run()
    assert served.peer.received.endswith(b"hi")
    assert served.peer.eof
    assert idle == []  # the application has not returned
    served.exchange.finish()
    assert idle == ["idle"]


def test_a_request_whose_head_is_out_finishes_too(serve: Serve, idle: list[str]) -> None:
    served = serve()
    served.get()
    served.exchange.start()
    served.run()
    drain(served, idle)
    served.exchange.body(b"hi")
    served.exchange.finish()

    assert served.peer.received.endswith(b"2\r\nhi\r\n0\r\n\r\n")
    assert served.peer.eof
    assert idle == ["idle"]


def test_pipelined_requests_behind_the_one_in_flight_are_not_begun(
    serve: Serve, http_request: Request, idle: list[str]
) -> None:
    served = serve()
    served.send(http_request("GET", "/one") + http_request("GET", "/two"))
    drain(served, idle)
    served.exchange.respond(body=b"one")
    served.exchange.finish()

    assert [exchange.scope["path"] for exchange in served.app.exchanges] == ["/one"]
    assert served.peer.received.endswith(b"one")
    served.peer.close()
    served.run()
    assert served.peer.eof and idle == ["idle"]


def test_an_upload_in_flight_goes_on_during_the_drain(
    serve: Serve, http_request: Request, idle: list[str]
) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 4") + b"ab")
    drain(served, idle)
    served.send(b"cd")

    assert served.exchange.receive().result["body"] == b"abcd"
    served.exchange.respond()
    served.exchange.finish()
    assert served.peer.eof and idle == ["idle"]


def test_the_rest_of_an_answered_upload_is_awaited_before_the_close(
    serve: Serve, http_request: Request, idle: list[str]
) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 4") + b"ab")
    served.exchange.respond(403)
    served.exchange.finish()
    drain(served, idle)
    assert not served.peer.eof

    served.send(b"cd")
    assert served.peer.eof and not served.peer.was_reset
    assert idle == ["idle"]


def test_a_connection_that_comes_during_the_drain_has_one_request(
    serve: Serve, idle: list[str]
) -> None:
    served = serve()
    served.get()
    drain(served, idle)
    late, silent = served.connect(), served.connect()
    late.send(GET)
    served.run()
    served.exchange.respond(body=b"late")
    served.run()
    assert CLOSE in late.received and late.received.endswith(b"late")
    assert late.eof

    assert not silent.eof
    served.advance(DRAIN_TIME + WIDTH)
    assert silent.eof
    assert idle == []


def test_background_work_after_the_response_holds_up_the_drain(
    serve: Serve, idle: list[str]
) -> None:
    served = serve()
    served.get()
    served.exchange.respond()
    drain(served, idle)
    assert served.peer.eof
    assert idle == []

    served.exchange.finish()
    assert idle == ["idle"]


def test_background_work_holds_up_the_drain_though_its_connection_went_on(
    serve: Serve, idle: list[str]
) -> None:
    served = serve()
    served.get("/one")
    one = served.exchange
    one.respond()
    served.get("/two")
    two = served.exchange
    two.respond()
    two.finish()
    drain(served, idle)
    assert served.service.stragglers and idle == []

    one.finish()
    assert idle == ["idle"]
    assert not served.service.stragglers


def test_disconnect_tells_every_application_and_still_delivers_what_it_sends(
    serve: Serve, idle: list[str]
) -> None:
    served = serve()
    served.get()
    exchange = served.exchange
    exchange.receive()
    waiting = exchange.receive()
    drain(served, idle)
    served.service.disconnect()
    served.run()
    assert waiting.result == {"type": "http.disconnect"}

    exchange.respond(body=b"bye")
    exchange.finish()
    assert served.peer.received.endswith(b"bye")
    assert idle == ["idle"]


def test_cancel_ends_every_application_and_every_connection(
    serve: Serve, idle: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    served.get("/one")
    one = served.exchange
    one.respond()
    served.get("/two")
    drain(served, idle)
    served.service.cancel()
    served.run()

    assert one.left and served.exchange.left
    assert served.service.active == 0
    assert idle == ["idle"]
    assert served.peer.was_reset
    assert caplog.records == []


def test_cancel_in_the_turn_of_a_request_counts_it_out(serve: Serve, http_request: Request) -> None:
    """A task that is cancelled before its first step never enters its coroutine."""
    served = serve()
    served.peer.send(http_request("GET", "/"))
    served.loop.call_soon(served.service.cancel)
    served.run()

    assert served.service.active == 0


# ---------------------------------------------------------------- one write each


def test_connections_flushed_in_one_turn_write_once_each(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(5):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await waiter
        await send({"type": "http.response.body"})

    served = serve(app)
    waiter = served.loop.create_future()
    peers = [served.connect() for _ in range(3)]
    for peer in peers:
        peer.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    served.run()
    assert [len(peer.writes) for peer in peers] == [1, 1, 1]

    waiter.set_result()
    served.run()
    assert [peer.writes[1:] for peer in peers] == [[b"0\r\n\r\n"]] * 3


# ---------------------------------------------------------------- memory


async def turn(loop: Any) -> None:
    """Wait for the loop's next turn."""
    waiter = loop.create_future()
    loop.call_soon(lambda: waiter.set_result(None))
    await waiter


@pytest.mark.parametrize("kind", ["hello", "upload", "stream"])
def test_exchanges_leave_no_reference_cycles(
    serve: Serve, http_request: Request, garbage: Callable[[], list[str]], kind: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200})
        if kind == "stream":
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await turn(served.loop)
        await send({"type": "http.response.body", "body": b"hi"})

    served = serve(app)
    request = http_request("GET", "/")
    if kind == "upload":
        request = http_request("POST", "/", body=b"x" * 1000)
    served.send(request)
    garbage()

    for _ in range(20):
        assert served.send(request).startswith(b"HTTP/1.1 200 ")
    assert garbage() == []


def visit(served: Any) -> None:
    """Come, ask, leave; what the two ends know of each other is forgotten."""
    served.peer = served.connect()
    assert served.get().startswith(b"HTTP/1.1 ")
    served.peer.close()
    served.run()
    served.peer.transport.peer = None
    served.peer = None


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise LookupError("a bug")


@pytest.mark.parametrize(
    ("app", "limit"),
    [
        (hello, None),
        (hello, 0),
        (fails, None),
    ],
)
def test_no_exchange_waits_for_the_garbage_collector_when_its_connection_is_gone(
    serve: Serve, garbage: Callable[[], list[str]], app: Any, limit: int | None
) -> None:
    logging.disable(logging.CRITICAL)  # pytest would keep the records, and with them the frames
    try:
        served = serve(app, limit_concurrency=limit)
        visit(served)
        garbage()
        visit(served)
        assert "HTTPCycle" not in garbage()
    finally:
        logging.disable(logging.NOTSET)


def test_a_connection_that_is_gone_leaves_no_reference_cycle(
    serve: Serve, garbage: Callable[[], list[str]]
) -> None:
    served = serve(hello)
    visit(served)
    garbage()
    visit(served)

    assert garbage() == []


def test_an_idle_connection_holds_no_scope(serve: Serve) -> None:
    served = serve(hello, access_log=None)
    for _ in range(3):
        served.get("/somewhere")
    gc.collect()

    assert [
        held
        for held in gc.get_objects()
        # (what the parser remembers of a scope has no headers)
        if type(held) is dict and held.get("path") == "/somewhere" and held.get("headers")
    ] == []
    assert len(served.service.connections) == 1
