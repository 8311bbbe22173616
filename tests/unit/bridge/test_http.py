from __future__ import annotations

import asyncio
import gc
import os
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.errors import ASGIError, ClientDisconnected, LocalProtocolError
from omnicorn.ports import HIGH_WATER
from omnicorn.transports.inproc import ManualWaiter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Serve = Callable[..., Any]
    Request = Callable[..., bytes]
    Carried = Callable[..., "Carrier"]

START = {"type": "http.response.start", "status": 200}
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
DISCONNECT = {"type": "http.disconnect"}
TAKES_TRAILERS = ("te: trailers", "connection: te")  # codespell:ignore te


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as an error, with the exception's name."""
    return [
        f"{record.getMessage()} ({record.exc_info[0].__name__})"
        if record.exc_info and record.exc_info[0]
        else record.getMessage()
        for record in caplog.records
        if record.levelname == "ERROR"
    ]


# ---------------------------------------------------------------- receive


def test_a_request_without_content_is_one_empty_piece(serve: Serve) -> None:
    served = serve()
    served.get()

    assert served.exchange.receive().result == {
        "type": "http.request",
        "body": b"",
        "more_body": False,
    }


def test_content_is_given_as_it_arrives(serve: Serve, http_request: Request) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 6") + b"ab")
    exchange = served.exchange

    assert exchange.receive().result == {"type": "http.request", "body": b"ab", "more_body": True}
    waiting = exchange.receive()
    assert not waiting.done
    served.send(b"cd")
    assert waiting.result == {"type": "http.request", "body": b"cd", "more_body": True}
    served.send(b"ef")
    assert exchange.receive().result == {"type": "http.request", "body": b"ef", "more_body": False}


def test_pieces_that_waited_are_given_as_one(serve: Serve, http_request: Request) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 6"))
    for piece in (b"ab", b"cd", b"ef"):
        served.send(piece)

    assert served.exchange.receive().result == {
        "type": "http.request",
        "body": b"abcdef",
        "more_body": False,
    }


def test_reading_pauses_past_64_kib_unread_and_goes_on_when_they_are_taken(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 300000"))
    transport = served.peer.transport

    served.send(b"x" * HIGH_WATER)
    assert transport.is_reading
    served.send(b"x")
    assert not transport.is_reading
    served.send(b"y" * 1000)
    assert served.peer.waiting == 1000

    assert served.exchange.receive().result["body"] == b"x" * (HIGH_WATER + 1)
    assert transport.is_reading
    assert served.peer.waiting == 0
    assert served.exchange.receive().result["body"] == b"y" * 1000


@pytest.mark.parametrize("body", [b"", b"content"])
def test_after_the_content_receive_waits_until_the_response_is_complete(
    serve: Serve, http_request: Request, body: bytes
) -> None:
    served = serve()
    served.send(http_request("POST", "/", body=body))
    exchange = served.exchange
    exchange.receive()
    waiting = exchange.receive()
    exchange.start()
    assert not waiting.done

    exchange.body(b"", more=True)
    assert not waiting.done
    exchange.body(b"")
    assert waiting.result == DISCONNECT
    assert exchange.receive().result == DISCONNECT


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_peer_that_leaves_ends_the_wait(serve: Serve, how: str) -> None:
    served = serve()
    served.get()
    served.exchange.receive()
    waiting = served.exchange.receive()
    getattr(served.peer, how)()
    served.run()

    assert waiting.result == DISCONNECT
    assert served.exchange.receive().result == DISCONNECT


def test_a_peer_that_leaves_in_the_middle_of_its_content_has_disconnected(
    serve: Serve, http_request: Request
) -> None:
    """The half of an upload must not look like the whole of it."""
    for how in ("reset", "close"):
        served = serve()
        served.send(http_request("POST", "/", "content-length: 6") + b"ab")
        getattr(served.peer, how)()
        served.run()

        assert served.exchange.receive().result == DISCONNECT


def test_receive_called_twice_at_once_and_one_given_up(serve: Serve) -> None:
    """Each caller waits for itself: cancelling one must not wake or kill the other."""
    served = serve()
    served.get()
    exchange = served.exchange
    exchange.receive()
    calls = [exchange.receive() for _ in range(3)]

    calls[1].task.cancel()
    served.run()
    assert [call.done for call in calls] == [False, True, False]

    served.peer.reset()
    served.run()
    assert [call.result for call in calls] == [DISCONNECT, None, DISCONNECT]


def test_calls_given_up_leave_nothing_behind(serve: Serve) -> None:
    """A stream that looks for a disconnect every second does it for days."""

    def waiters() -> int:
        gc.collect()
        return sum(type(held) is ManualWaiter for held in gc.get_objects())

    served = serve()
    served.get()
    served.exchange.receive()
    before = waiters()
    for _ in range(10):
        served.exchange.receive().task.cancel()
        served.run()

    assert waiters() <= before


def test_content_goes_to_one_of_two_callers_and_the_other_waits_on(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.send(http_request("POST", "/", "content-length: 4"))
    first, second = served.exchange.receive(), served.exchange.receive()

    served.send(b"ab")
    assert [first.done, second.done].count(True) == 1
    served.send(b"cd")
    bodies = [first.result["body"], second.result["body"]]
    assert sorted(bodies) == [b"ab", b"cd"]


def test_100_continue_is_sent_when_the_application_asks_for_the_content(
    serve: Serve, http_request: Request
) -> None:
    """RFC 9110 §10.1.1."""
    served = serve()
    sent = served.send(http_request("POST", "/", "expect: 100-continue", "content-length: 2"))
    assert sent == b""

    waiting = served.exchange.receive()
    assert served.run() == b"HTTP/1.1 100 Continue\r\n\r\n"
    served.send(b"ok")
    assert waiting.result["body"] == b"ok"


def test_no_100_continue_is_sent_where_the_content_is_not_wanted(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.send(http_request("POST", "/", "expect: 100-continue", "content-length: 2"))
    served.exchange.respond(403, b"no")

    assert served.run() == (
        b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
    )


# ---------------------------------------------------------------- send


def test_a_complete_response_has_a_length(serve: Serve) -> None:
    served = serve()
    served.get()
    served.exchange.respond(headers=[(b"x-one", b"1"), (b"x-one", b"2")], body=b"hi")

    assert served.run() == (
        b"HTTP/1.1 200 OK\r\nx-one: 1\r\nx-one: 2\r\ncontent-length: 2\r\n\r\nhi"
    )


def test_a_head_that_leaves_before_the_content_is_chunked(serve: Serve) -> None:
    """RFC 9112 §7.1."""
    served = serve()
    served.get()
    served.exchange.start()
    assert served.run() == CHUNKED

    served.exchange.body(b"hi")
    assert served.run() == b"2\r\nhi\r\n" + LAST_CHUNK


@pytest.mark.parametrize("body", [b"hi", bytearray(b"hi"), memoryview(b"hi")])
def test_content_may_be_anything_that_is_bytes(serve: Serve, body: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": body})

    assert serve(app).get() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


def test_content_defaults_to_none_and_to_the_last(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": HTTPStatus.ACCEPTED})
        await send({"type": "http.response.body"})

    assert serve(app).get() == b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


def test_send_waits_while_the_peer_does_not_read(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    served.peer.pause()
    served.get()
    exchange = served.exchange
    exchange.start()

    assert exchange.body(b"x" * 1000, more=True).done
    waiting = exchange.body(b"x" * (HIGH_WATER + 1000), more=True)
    assert not waiting.done
    served.peer.resume()
    served.run()
    assert waiting.done and waiting.error is None


def test_memory_stays_within_the_high_water_mark_however_much_is_sent(serve: Serve) -> None:
    piece = b"x" * 16384
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for number in range(200):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            sent.append(number)

    served = serve(app, link={"window": 1000})
    served.peer.pause()
    served.get()

    assert len(sent) <= 2 * HIGH_WATER // len(piece)
    unsent = served.peer.transport.get_write_buffer_size()
    assert unsent <= 2 * (HIGH_WATER + len(piece))


def test_several_senders_wait_and_all_go_on(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    served.peer.pause()
    served.get()
    exchange = served.exchange
    exchange.start()
    calls = [exchange.body(b"x" * 100_000, more=True) for _ in range(3)]
    calls[0].task.cancel()
    served.run()
    assert [call.done for call in calls] == [True, False, False]

    served.peer.resume()
    served.run()
    assert [(call.done, call.error) for call in calls[1:]] == [(True, None)] * 2


def test_the_last_piece_does_not_wait(serve: Serve) -> None:
    """The application is done; the transport keeps what the peer has not read yet."""
    served = serve(link={"window": 1000})
    served.peer.pause()
    served.get()
    served.exchange.start()

    assert served.exchange.body(b"x" * 1_000_000).done


@pytest.mark.parametrize("how", ["reset", "abort"])
def test_send_raises_an_oserror_after_the_peer_has_left(serve: Serve, how: str) -> None:
    """ASGI HTTP spec 2.4: disconnected client - send exception."""
    served = serve()
    served.get()
    served.exchange.start()
    if how == "reset":
        served.peer.reset()
    else:
        served.peer.transport.abort()
    served.run()

    for _ in range(2):
        error = served.exchange.body(b"x", more=True).error
        assert type(error) is ClientDisconnected
        assert isinstance(error, OSError)
    assert type(served.exchange.body(b"x").error) is ClientDisconnected


def test_a_waiting_send_raises_when_the_peer_leaves(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    served.peer.pause()
    served.get()
    served.exchange.start()
    waiting = served.exchange.body(b"x" * 100_000, more=True)
    served.peer.reset()
    served.run()

    assert type(waiting.error) is ClientDisconnected


# ---------------------------------------------------------------- whose fault it is


class ClientDisconnect(Exception):
    """As Starlette has it: raised in place of the OSError, with that as its context."""


def _leave() -> None:
    raise ClientDisconnected("gone")


def _group() -> None:
    raise ExceptionGroup("two", [ClientDisconnected("one"), ClientDisconnected("two")])


def _nested_group() -> None:
    raise ExceptionGroup("out", [ExceptionGroup("in", [ClientDisconnected("one")])])


def _starlette() -> None:
    try:
        _leave()
    except OSError:
        raise ClientDisconnect  # noqa: B904  # the context is the point


def _explicit() -> None:
    try:
        _leave()
    except OSError as exc:
        raise RuntimeError("streaming failed") from exc


def _clean_up_bug() -> None:
    try:
        _leave()
    except OSError:
        raise ValueError("in the clean-up")  # noqa: B904


def _mixed_group() -> None:
    raise ExceptionGroup("two", [ClientDisconnected("one"), ValueError("a bug")])


@pytest.mark.parametrize("how", [_leave, _group, _nested_group, _starlette, _explicit])
def test_a_peer_that_leaves_is_no_error_of_the_application(
    serve: Serve, caplog: pytest.LogCaptureFixture, how: Callable[[], None]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()
        how()

    served = serve(app)
    served.get()
    served.peer.reset()
    served.run()

    assert caplog.records == []
    assert served.service.active == 0


@pytest.mark.parametrize("how", [_clean_up_bug, _mixed_group])
def test_a_bug_that_shows_when_the_peer_leaves_is_still_a_bug(
    serve: Serve, caplog: pytest.LogCaptureFixture, how: Callable[[], None]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()
        how()

    served = serve(app)
    served.get("/path")
    served.peer.reset()
    served.run()

    assert len(errors(caplog)) == 1
    assert "/path" in errors(caplog)[0]


def test_a_disconnect_made_up_by_the_application_is_an_error_of_its_own(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        _leave()

    assert serve(app).get().startswith(b"HTTP/1.1 500 ")
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("raises", [True, False])
def test_without_a_response_there_is_a_500_and_one_line_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture, raises: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if raises:
            raise LookupError("secret")

    served = serve(app)
    response = served.get("/pa%0ath")

    assert response.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert response.endswith(b"\r\n\r\nInternal Server Error")
    assert b"connection: close\r\n" in response and b"secret" not in response
    name = "LookupError" if raises else "ASGIError"
    assert errors(caplog) == [rf"GET '/pa\nth': the application failed ({name})"]
    assert served.access.lines == [("/pa\nth", 500, 21)]
    assert served.peer.eof


@pytest.mark.parametrize("raises", [True, False])
def test_an_application_that_breaks_off_cuts_its_response_without_a_last_chunk(
    serve: Serve, caplog: pytest.LogCaptureFixture, raises: bool
) -> None:
    served = serve()
    served.get()
    served.exchange.start()
    served.exchange.body(b"abc", more=True)
    served.exchange.finish(LookupError("a bug") if raises else None)

    assert served.run() == CHUNKED + b"3\r\nabc\r\n"
    assert served.peer.eof or served.peer.was_reset
    assert len(errors(caplog)) == 1
    assert served.access.lines == [("/", 200, 3)]


def test_a_response_that_only_closing_ends_is_cut_by_a_reset(serve: Serve) -> None:
    """RFC 9112 §9.6: an HTTP/1.0 client takes any orderly end for the whole response."""
    served = serve()
    served.send(b"GET / HTTP/1.0\r\n\r\n")
    served.exchange.start()
    served.exchange.body(b"abc", more=True)
    served.exchange.finish(LookupError("a bug"))

    assert served.run() == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc"
    assert served.peer.was_reset


def test_a_failure_between_head_and_content_is_a_response_cut_short(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        raise LookupError("a bug in the template")

    response = serve(app).get()

    assert response == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def test_an_application_that_returns_something_is_told_so(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A WSGI or ASGI 2 application served by mistake often looks like this."""

    async def app(scope: Any, receive: Any, send: Any) -> Any:
        await send(START)
        await send({"type": "http.response.body"})
        return [b"body"]

    assert serve(app).get().startswith(b"HTTP/1.1 200 ")
    assert errors(caplog) == ["GET '/': the application failed (ASGIError)"]


def test_an_error_after_the_response_is_logged_and_the_connection_lives(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    served.get()
    served.exchange.start()
    served.exchange.body(b"")
    served.exchange.finish(LookupError("in a background task"))

    assert len(errors(caplog)) == 1
    served.get("/again")
    assert served.exchange.scope["path"] == "/again"


def test_an_exception_that_is_no_exception_passes_through(serve: Serve) -> None:
    class Stop(BaseException):
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise Stop

    served = serve(app)
    with pytest.raises(Stop):
        served.get()
    assert served.run().startswith(b"HTTP/1.1 500 ")
    assert served.service.active == 0


# ---------------------------------------------------------------- the order of messages


def _event(kind: str, file: str) -> dict[str, Any]:
    more: dict[str, dict[str, Any]] = {
        "http.response.start": {"status": 200},
        "http.response.body": {"body": b"x", "more_body": True},
        "http.response.pathsend": {"path": file},
        "http.response.early_hint": {"links": [b"</x>; rel=preload"]},
        "http.response.trailers": {"headers": [(b"x-sum", b"1")]},
    }
    return {"type": kind, **more.get(kind, {})}


KINDS = [
    "http.response.start",
    "http.response.body",
    "http.response.trailers",
    "http.response.early_hint",
    "http.response.pathsend",
    "http.response.zerocopysend",
    "http.request",
    "websocket.accept",
]
UNKNOWN = set(KINDS[6:])
RESPONSE = set(KINDS[:6])

# For each phase: what is taken, and what is refused as out of order. Everything else that
# belongs to a response is ignored; what does not belong to one is refused in each phase.
ORDER: dict[str, tuple[set[str], set[str]]] = {
    "START": (
        {"http.response.start", "http.response.early_hint"},
        RESPONSE - {"http.response.start", "http.response.early_hint"},
    ),
    "BODY": (
        {"http.response.body", "http.response.pathsend", "http.response.zerocopysend"},
        {"http.response.start", "http.response.trailers"},
    ),
    "BODY with content": (
        {"http.response.body", "http.response.zerocopysend"},
        {"http.response.start", "http.response.trailers", "http.response.pathsend"},
    ),
    "TRAILERS": (
        {"http.response.trailers"},
        RESPONSE - {"http.response.trailers", "http.response.early_hint"},
    ),
    "DONE": (set(), {"http.response.start"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", [*ORDER, "GONE"])
def test_every_message_in_every_phase(serve: Serve, tmp_path: Path, phase: str, kind: str) -> None:
    """Of HTTP/1.1; what becomes of ``http.response.push`` is told below."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    served = serve()
    served.get("/", *TAKES_TRAILERS)
    exchange = served.exchange
    if phase != "START":
        exchange.start(trailers=phase == "TRAILERS")
    if phase == "BODY with content":
        exchange.body(b"x", more=True)
    elif phase in ("TRAILERS", "DONE"):
        exchange.body(b"x")
    elif phase == "GONE":
        served.peer.reset()
    served.run()

    with path.open("rb") as file:
        event = _event(kind, str(path))
        if kind == "http.response.zerocopysend":
            event["file"] = file
        error = exchange.send(event).error
    answer = served.run()

    if kind in UNKNOWN:
        assert type(error) is ASGIError and f"{kind!r} is unknown" in str(error)
    elif phase == "GONE":
        assert type(error) is ClientDisconnected
    elif kind in ORDER[phase][1]:
        assert type(error) is ASGIError and str(error).startswith(f"{kind} cannot be sent ")
    else:
        assert error is None
        assert bool(answer) == (kind in ORDER[phase][0])


@pytest.mark.parametrize("event", [None, [], "http.response.start", {}, {"status": 200}, 7])
def test_what_is_no_message_is_refused_in_the_application(serve: Serve, event: Any) -> None:
    served = serve()
    served.get()

    assert type(served.exchange.send(event).error) is ASGIError


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "no 'status'"),
        ({"status": "200"}, "'status' must be an integer"),
        ({"status": None}, "'status' must be an integer"),
        ({"status": True}, "'status' must be an integer"),
        ({"status": 99}, "200 to 999"),
        ({"status": 101}, "200 to 999"),
        ({"status": 1000}, "200 to 999"),
        ({"status": 200, "headers": None}, "headers must be"),
        ({"status": 200, "headers": 5}, "headers must be"),
        ({"status": 200, "headers": [b"x: y"]}, "headers must be"),
        ({"status": 200, "headers": [("x", "y")]}, "must be bytes"),
        (
            {"status": 200, "headers": {b"ab": b"cd"}},
            "must be a token|must be bytes|pairs of bytes",
        ),
        ({"status": 200, "headers": [(b"x y", b"z")]}, "token"),
        ({"status": 200, "headers": [(b"x", b"y\r\nz: 1")]}, "control byte"),
        ({"status": 200, "headers": [(b"content-length", b"ten")]}, "no number"),
    ],
)
def test_a_start_that_cannot_be_sent_says_why_and_another_may_follow(
    serve: Serve, parts: dict[str, Any], message: str
) -> None:
    served = serve()
    served.get()

    error = served.exchange.send({"type": "http.response.start", **parts}).error

    assert type(error) is ASGIError
    assert re.search(message, str(error)), str(error)
    assert served.run() == b""
    assert served.exchange.start(500).error is None


@pytest.mark.parametrize("body", ["text", None, 5, [b"x"]])
def test_content_that_is_not_bytes_is_refused(serve: Serve, body: Any) -> None:
    served = serve()
    served.get()
    served.exchange.start()
    error = served.exchange.send({"type": "http.response.body", "body": body}).error

    assert type(error) is ASGIError and "must be bytes" in str(error)


# ---------------------------------------------------------------- against content-length


def length(value: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", b"%d" % value)]


def test_content_of_the_promised_length_is_sent_as_it_is(serve: Serve) -> None:
    served = serve()
    served.get()
    served.exchange.start(headers=length(4))
    served.exchange.body(b"ab", more=True)
    served.exchange.body(b"cd")

    assert served.run() == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd"
    assert not served.peer.eof


def test_more_content_than_promised_raises_and_does_not_leave(serve: Serve) -> None:
    served = serve()
    served.get()
    served.exchange.start(headers=length(4))
    served.exchange.body(b"ab", more=True)
    error = served.exchange.body(b"cde", more=True).error

    assert type(error) is ASGIError and "leaves 2 bytes" in str(error)
    assert served.run().endswith(b"\r\n\r\nab")


def test_more_content_than_promised_in_the_last_piece_cuts_the_connection(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    served.get()
    served.exchange.start(headers=length(4))
    error = served.exchange.body(b"abcde").error
    assert type(error) is ASGIError and "leaves 4 bytes" in str(error)
    served.exchange.finish(error)
    served.advance(1000.0)

    assert served.peer.eof or served.peer.was_reset
    assert not served.service.connections
    assert served.access.lines == [("/", 200, 0)]


def test_less_content_than_promised_raises_and_cuts_the_connection(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 9112 §6.3: an early close is what tells the peer."""
    served = serve()
    served.get()
    served.exchange.start(headers=length(4))
    error = served.exchange.body(b"ab").error

    assert type(error) is ASGIError and "2 bytes short" in str(error)
    assert served.run() == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab"
    assert served.peer.eof or served.peer.was_reset


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_that_has_no_content_drops_what_is_sent(
    serve: Serve, http_request: Request, method: str, status: int
) -> None:
    """RFC 9112 §6.3 rule 1."""
    served = serve()
    served.send(http_request(method, "/"))
    served.exchange.start(status)
    served.exchange.body(b"dropped", more=True)
    served.exchange.body(b"dropped")

    assert served.run().endswith(b"\r\n\r\n")
    served.get("/again")
    assert served.exchange.scope["path"] == "/again"


# ---------------------------------------------------------------- early hints, trailers


def test_early_hints_come_before_the_response_and_may_come_often(serve: Serve) -> None:
    """RFC 8297."""
    served = serve()
    served.get()
    hint = {"type": "http.response.early_hint", "links": [b"</a>; rel=preload", b"</b>"]}
    assert served.exchange.send(hint).error is None
    assert served.run() == (
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\nlink: </b>\r\n\r\n"
    )
    served.exchange.send({**hint, "links": [b"</c>"]})
    served.exchange.start()

    assert served.run() == b"HTTP/1.1 103 Early Hints\r\nlink: </c>\r\n\r\n" + CHUNKED
    served.exchange.send(hint)
    assert served.run() == b""


def test_an_http_1_0_client_gets_no_early_hints(serve: Serve) -> None:
    """RFC 9110 §15.2."""
    served = serve()
    served.send(b"GET / HTTP/1.0\r\n\r\n")
    call = served.exchange.send({"type": "http.response.early_hint", "links": [b"</a>"]})

    assert call.error is None
    assert served.run() == b""


@pytest.mark.parametrize("links", ["</a>", [b"</a>\r\nset-cookie: x=1"], ["</a>"], 5])
def test_early_hints_that_cannot_be_sent_are_refused(serve: Serve, links: Any) -> None:
    served = serve()
    served.get()
    error = served.exchange.send({"type": "http.response.early_hint", "links": links}).error

    assert type(error) is ASGIError and "early_hint" in str(error)
    assert served.run() == b""


def test_trailers_reach_a_client_that_takes_them(serve: Serve) -> None:
    """RFC 9110 §6.5.1."""
    served = serve()
    served.get("/", *TAKES_TRAILERS)
    exchange = served.exchange
    exchange.start(trailers=True)
    exchange.body(b"hi")
    trailers = {"type": "http.response.trailers", "headers": [(b"x-a", b"1")]}
    waiting = exchange.receive(), exchange.receive()
    assert exchange.send({**trailers, "more_trailers": True}).error is None
    assert not waiting[1].done
    exchange.send({**trailers, "headers": [(b"x-b", b"2")]})

    assert served.run() == CHUNKED + b"2\r\nhi\r\n0\r\nx-a: 1\r\nx-b: 2\r\n\r\n"
    assert waiting[1].result == DISCONNECT
    served.get("/again")
    assert served.exchange.scope["path"] == "/again"


def test_trailers_are_dropped_for_a_client_that_did_not_ask(serve: Serve) -> None:
    served = serve()
    served.get()
    served.exchange.start(trailers=True)
    served.exchange.body(b"hi")
    served.exchange.send({"type": "http.response.trailers", "headers": [(b"x-a", b"1")]})

    assert served.run() == CHUNKED + b"2\r\nhi\r\n" + LAST_CHUNK


@pytest.mark.parametrize(
    "headers", [[(b"content-length", b"5")], [(b"x", b"y\n")], [("x", "y")], [b"x"], 5]
)
def test_trailers_that_cannot_be_sent_are_refused(serve: Serve, headers: Any) -> None:
    served = serve()
    served.get("/", *TAKES_TRAILERS)
    served.exchange.start(trailers=True)
    served.exchange.body(b"hi")
    error = served.exchange.send({"type": "http.response.trailers", "headers": headers}).error

    assert type(error) is ASGIError and "http.response.trailers" in str(error)


# ---------------------------------------------------------------- files

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(params=["sendfile", "fallback"])
def files(request: pytest.FixtureRequest, serve: Serve) -> Serve:
    """A server whose loop has sendfile, and one whose loop has not."""

    def make(*args: Any, **options: Any) -> Any:
        return serve(*args, sendfile=request.param == "sendfile", **options)

    return make


def unchunked(data: bytes) -> bytes:
    """The content of a chunked response."""
    head, _, rest = data.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    content = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if size == b"0":
            assert rest == b"\r\n"
            return content
        content += rest[: int(size, 16)]
        assert rest[int(size, 16) :][:2] == b"\r\n"
        rest = rest[int(size, 16) + 2 :]


@pytest.mark.parametrize("announced", [True, False])
def test_pathsend_sends_the_file(files: Serve, path: Path, announced: bool) -> None:
    served = files()
    served.get()
    served.exchange.start(headers=length(len(CONTENT)) if announced else [])
    served.exchange.send({"type": "http.response.pathsend", "path": str(path)})
    response = served.run()

    if announced:
        assert response.partition(b"\r\n\r\n")[2] == CONTENT
    else:
        assert unchunked(response) == CONTENT
    assert served.exchange.body(b"ignored").error is None
    assert served.access.lines == [("/", 200, len(CONTENT))]
    served.get("/again")
    assert served.exchange.scope["path"] == "/again"


@pytest.mark.parametrize("name", ["relative", None, 5])
def test_pathsend_wants_an_absolute_path(serve: Serve, name: Any) -> None:
    served = serve()
    served.get()
    served.exchange.start()
    error = served.exchange.send({"type": "http.response.pathsend", "path": name}).error

    assert type(error) is ASGIError and "absolute" in str(error)


def test_pathsend_of_a_missing_file_tells_the_application(serve: Serve, path: Path) -> None:
    served = serve()
    served.get()
    served.exchange.start()
    event = {"type": "http.response.pathsend", "path": f"{path}.missing"}

    assert isinstance(served.exchange.send(event).error, FileNotFoundError)


def test_files_are_closed_whatever_happens(files: Serve, path: Path) -> None:
    served = files(link={"window": 1000})
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for event in ("read", "reset"):
        peer = served.peer = served.connect()
        peer.pause()
        served.get()
        served.exchange.start()
        served.exchange.send({"type": "http.response.pathsend", "path": str(path)})
        peer.resume() if event == "read" else peer.reset()
        served.run()

    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before


@pytest.mark.parametrize("kind", ["object", "descriptor"])
def test_zerocopysend_sends_parts_of_open_files(files: Serve, path: Path, kind: str) -> None:
    served = files()
    served.get()
    served.exchange.start()
    with path.open("rb") as file:
        source = file if kind == "object" else file.fileno()
        for offset, count, more in [(10, 100_000, True), (None, 7, True), (5, None, False)]:
            event = {"type": "http.response.zerocopysend", "file": source, "more_body": more}
            if offset is not None:
                event["offset"] = offset
            if count is not None:
                event["count"] = count
            call = served.exchange.send(event)
            assert call.error is None
            served.exchange.send({"type": "http.response.early_hint", "links": []})
        position = os.lseek(file.fileno(), 0, os.SEEK_CUR)

    assert unchunked(served.run()) == CONTENT[10:100_010] + CONTENT[:7] + CONTENT[5:]
    assert position == 7  # a given offset does not move the file, reading on does


def test_zerocopysend_mixes_with_ordinary_content(files: Serve, path: Path) -> None:
    served = files()
    served.get()
    served.exchange.start()
    served.exchange.body(b"before", more=True)
    with path.open("rb") as file:
        event = {"type": "http.response.zerocopysend", "file": file, "more_body": True}
        served.exchange.send(event)
    served.exchange.body(b"after")

    assert unchunked(served.run()) == b"before" + CONTENT + b"after"


def test_zerocopysend_wants_an_open_file(serve: Serve) -> None:
    served = serve()
    served.get()
    served.exchange.start()
    for file in (None, "name", object()):
        error = served.exchange.send({"type": "http.response.zerocopysend", "file": file}).error
        assert type(error) is ASGIError and "'file'" in str(error)


@pytest.mark.parametrize(
    "part", [{"offset": "1"}, {"offset": -1}, {"count": "all"}, {"count": -5}, {"offset": 1.5}]
)
def test_zerocopysend_refuses_an_offset_or_count_that_is_no_size(
    files: Serve, path: Path, part: dict[str, Any]
) -> None:
    served = files()
    served.get()
    served.exchange.start()
    with path.open("rb") as file:
        event = {"type": "http.response.zerocopysend", "file": file, **part}
        error = served.exchange.send(event).error

    assert type(error) is ASGIError


def test_a_file_that_is_shorter_than_asked_for_cuts_the_response(
    files: Serve, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = files()
    served.get()
    served.exchange.start()
    with path.open("rb") as file:
        event = {"type": "http.response.zerocopysend", "file": file, "count": len(CONTENT) + 1}
        error = served.exchange.send(event).error
    assert error is not None and "1 bytes too early" in str(error)
    served.exchange.finish(error)

    assert not served.run().endswith(LAST_CHUNK)
    assert served.peer.eof or served.peer.was_reset


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304)])
def test_files_are_not_sent_where_there_is_no_content(
    files: Serve, http_request: Request, path: Path, method: str, status: int
) -> None:
    served = files()
    served.send(http_request(method, "/"))
    served.exchange.start(status, headers=length(len(CONTENT)))
    served.exchange.send({"type": "http.response.pathsend", "path": str(path)})

    assert served.run().endswith(b"\r\n\r\n")
    served.get("/again")
    assert served.exchange.scope["path"] == "/again"


def test_a_file_larger_than_its_content_length_is_refused(files: Serve, path: Path) -> None:
    served = files()
    served.get()
    served.exchange.start(headers=length(100))
    error = served.exchange.send({"type": "http.response.pathsend", "path": str(path)}).error

    assert type(error) is ASGIError and "content-length" in str(error)
    assert served.run().endswith(b"\r\n\r\n")


def test_a_peer_that_reads_slowly_slows_the_file_down(files: Serve, path: Path) -> None:
    served = files(link={"window": 1000})
    served.peer.pause()
    served.get()
    served.exchange.start()
    call = served.exchange.send({"type": "http.response.pathsend", "path": str(path)})
    assert not call.done
    assert served.peer.transport.get_write_buffer_size() <= 2 * HIGH_WATER

    served.peer.resume()
    served.run()
    assert call.done and call.error is None
    assert unchunked(served.peer.received) == CONTENT


def test_a_peer_that_leaves_ends_the_file(
    files: Serve, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = files(link={"window": 1000})
    served.peer.pause()
    served.get()
    served.exchange.start()
    call = served.exchange.send({"type": "http.response.pathsend", "path": str(path)})
    served.peer.reset()
    served.run()

    assert type(call.error) is ClientDisconnected
    served.exchange.finish(call.error)
    assert caplog.records == []


def test_a_peer_that_stalls_in_the_middle_of_sendfile_is_no_error_of_the_application(
    serve: Serve, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(path)})

    served = serve(app, sendfile=True, link={"window": 1000})
    served.peer.pause()
    served.get()
    served.advance(61.0)

    assert served.peer.was_reset
    assert errors(caplog) == []


def test_a_peer_that_leaves_while_the_file_is_read_is_noticed(serve: Serve, path: Path) -> None:
    served = serve()
    served.loop.hold_blocking = True
    served.get()
    served.exchange.start()
    call = served.exchange.send({"type": "http.response.pathsend", "path": str(path)})
    served.peer.reset()
    served.run()
    while not call.done:
        served.loop.release_blocking()
        served.run()

    assert type(call.error) is ClientDisconnected


# ---------------------------------------------------------------- old exchanges


def test_an_exchange_that_is_over_does_not_speak_into_the_next(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.get("/one")
    one = served.exchange
    one.start()
    one.body(b"")
    one.receive()
    served.get("/two")
    served.exchange.start()
    served.run()
    one.body(b"late")
    one.send({"type": "http.response.early_hint", "links": [b"</x>"]})
    one.finish()

    assert served.run() == b""
    assert one.receive().result == DISCONNECT
    assert served.exchange.body(b"").error is None


def test_content_read_after_the_response_is_not_credited_to_the_next_exchange(
    serve: Serve, http_request: Request
) -> None:
    served = serve()
    served.send(http_request("POST", "/one", body=b"x" * HIGH_WATER))
    one = served.exchange
    one.start()
    one.body(b"")
    served.send(http_request("POST", "/two", "content-length: 300000"))
    one.receive()

    served.send(b"y" * (HIGH_WATER + 1))
    assert not served.peer.transport.is_reading


def test_cancelling_one_receive_on_asyncio_leaves_the_other_alive(serve: Serve) -> None:
    """There a cancelled task cancels what it awaits: each call needs a waiter of its own."""
    from omnicorn.connections.http1 import Http1Connection
    from omnicorn.connections.service import Service
    from omnicorn.transports._asyncio import AsyncioLoop
    from omnicorn.transports.inproc import ManualLoop, connect

    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        one, two = (asyncio.ensure_future(receive()) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        seen.append(two.done())
        await send(START)
        await send({"type": "http.response.body"})
        seen.append(await two)

    async def main() -> None:
        service = Service(app, AsyncioLoop(asyncio.get_running_loop()))
        memory = ManualLoop()
        peer = connect(memory, Http1Connection(service))
        peer.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        memory.run_until_idle()
        while service.active:
            await asyncio.sleep(0)
        peer.reset()
        memory.run_until_idle()

    asyncio.run(main())
    assert seen == [False, DISCONNECT]


# ------------------------------------------------- doing as one is told is no failure


def test_an_application_that_ends_its_stream_when_told_is_no_failure(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    served.get()
    served.exchange.receive()
    served.exchange.start()
    served.exchange.body(b"data: 1\n\n", more=True)
    waiting = served.exchange.receive()
    served.peer.close()  # as a browser's tab does
    served.run()
    assert waiting.result == {"type": "http.disconnect"}
    served.exchange.finish()

    assert errors(caplog) == []
    assert served.service.active == 0


def test_an_application_that_gives_up_without_a_response_when_told_is_no_failure(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    served.get()
    served.exchange.receive()
    served.exchange.receive()
    served.service.disconnect()
    served.run()
    served.exchange.finish()

    assert served.run().startswith(b"HTTP/1.1 503 ")
    assert errors(caplog) == []


def test_a_frameworks_own_disconnect_after_it_was_told_is_no_failure(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class ClientDisconnect(Exception):
        """Starlette's, raised by ``request.body()`` on ``http.disconnect``."""

    served = serve()
    served.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf")
    served.exchange.receive()
    waiting = served.exchange.receive()
    served.service.disconnect()
    served.run()
    assert waiting.result == {"type": "http.disconnect"}
    served.exchange.finish(ClientDisconnect())

    assert errors(caplog) == []


def test_a_bug_in_an_application_that_was_told_is_still_a_bug(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    served.get()
    served.exchange.receive()
    served.exchange.receive()
    served.service.disconnect()
    served.run()
    served.exchange.finish(ZeroDivisionError())

    assert served.run().startswith(b"HTTP/1.1 500 ")
    assert errors(caplog) == ["GET '/': the application failed (ZeroDivisionError)"]


# ---------------------------------------------------------------- push


class Carrier:
    """What a push needs of a connection, and nothing else."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.pushed: list[tuple[Any, bytes, Any]] = []

    def push(self, stream: Any, path: bytes, headers: Any) -> None:
        if self.error is not None:
            raise self.error
        self.pushed.append((stream, path, headers))


def push(served: Any, **event: Any) -> Any:
    return served.exchange.send({"type": "http.response.push", **event})


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Carrier]:
    """Lets every connection push to what it gives: ``carried(served, error=None)``."""

    def carry(served: Any, error: Exception | None = None) -> Carrier:
        carrier = Carrier(error)
        connection = type(served.exchange.asgi_send.__self__._carrier)
        monkeypatch.setattr(connection, "push", lambda _, *what: carrier.push(*what))
        return carrier

    return carry


def test_a_push_is_handed_to_the_connection(serve: Serve, carried: Carried) -> None:
    served = serve()
    served.get()
    carrier = carried(served)
    cycle = served.exchange.asgi_send.__self__
    assert push(served, path="/a.css").error is None
    assert push(served, path="/b", headers=[(b"accept", b"*/*")]).error is None
    assert carrier.pushed == [
        (cycle._stream, b"/a.css", ()),
        (cycle._stream, b"/b", [(b"accept", b"*/*")]),
    ]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/", b"/"),
        ("/a/b?c=d&e", b"/a/b?c=d&e"),
        ("/ä", b"/%C3%A4"),
        ("/a b", b"/a%20b"),
        ("/a%20b", b"/a%20b"),
        ("/a#b", b"/a%23b"),
        ("/a\r\nx: y", b"/a%0D%0Ax:%20y"),
        ("/\0\x7f", b"/%00%7F"),
        ("*", b"*"),
    ],
)
def test_a_pushed_path_becomes_a_request_target(
    serve: Serve, carried: Carried, path: str, target: bytes
) -> None:
    served = serve()
    served.get()
    carrier = carried(served)
    assert push(served, path=path).error is None
    assert [pushed[1] for pushed in carrier.pushed] == [target]


@pytest.mark.parametrize("path", [None, b"/x", 5, ["/x"], "/\ud800"])
def test_a_push_without_a_path_is_refused(serve: Serve, carried: Carried, path: Any) -> None:
    served = serve()
    served.get()
    carrier = carried(served)
    call = push(served, path=path)
    assert type(call.error) is ASGIError and "http.response.push" in str(call.error)
    assert carrier.pushed == []


def test_a_push_that_cannot_be_made_is_the_applications_error(
    serve: Serve, carried: Carried
) -> None:
    served = serve()
    served.get()
    carried(served, LocalProtocolError("this cannot be pushed: why"))
    error = push(served, path="/x").error
    assert type(error) is ASGIError
    assert str(error) == "http.response.push: this cannot be pushed: why"
    served.exchange.respond(body=b"all the same")
    assert served.run().endswith(b"all the same")


def test_http_1_offers_no_push_and_refuses_it(serve: Serve) -> None:
    served = serve()
    served.get()
    assert "http.response.push" not in served.exchange.scope["extensions"]
    assert type(push(served, path="/x").error) is ASGIError
    served.exchange.respond()
    assert served.run().startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_push_may_come_before_within_and_between_the_pieces_of_a_response(
    serve: Serve, carried: Carried
) -> None:
    served = serve()
    served.get()
    carrier = carried(served)
    push(served, path="/1")
    served.exchange.start(trailers=True)
    push(served, path="/2")
    served.exchange.body(b"x", more=True)
    push(served, path="/3")
    served.exchange.body(b"")
    push(served, path="/4")
    served.exchange.send({"type": "http.response.trailers"})
    assert [pushed[1] for pushed in carrier.pushed] == [b"/1", b"/2", b"/3", b"/4"]


def test_a_push_after_the_response_is_ignored(serve: Serve, carried: Carried) -> None:
    served = serve()
    served.get()
    served.exchange.respond()
    carrier = carried(served)
    assert push(served, path="/x").error is None
    assert carrier.pushed == []


def test_a_push_after_the_client_has_gone_says_so(serve: Serve) -> None:
    served = serve()
    served.get()
    served.peer.reset()
    served.loop.run_until_idle()
    assert type(push(served, path="/x").error) is ClientDisconnected
