"""The order of a WebSocket's messages, and who may send what and when; in memory, no time passes.

What frames look like is `tests.frames`; how a connection pings, closes and gives up is in
``tests/unit/connections/test_websocket.py``.
"""

from __future__ import annotations

import gc
from collections import UserDict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import Call
from tests.frames import (
    ACCEPT,
    BINARY,
    CLOSE,
    HANDSHAKE,
    SWITCHED,
    TEXT,
    accept,
    closed,
    closing,
    frame,
    frames,
    text,
)

from omnicorn.bridge.websocket import EXTENSIONS
from omnicorn.connections.service import WebSockets
from omnicorn.errors import ASGIError, ClientDisconnected
from omnicorn.ports import HIGH_WATER
from omnicorn.transports.inproc import ManualWaiter

if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[..., Any]

CONNECT = {"type": "websocket.connect"}
CLOSE_IT = {"type": "websocket.close"}
DENY = "websocket.http.response.start"
DENIAL = "websocket.http.response.body"
FORBIDDEN = (
    b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 9\r\nconnection: close\r\n\r\nForbidden"
)
FAILED = b"HTTP/1.1 500 Internal Server Error\r\n"


def received(content: str | bytes) -> dict[str, Any]:
    key = "text" if isinstance(content, str) else "bytes"
    return {"type": "websocket.receive", key: content}


def disconnect(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def say(exchange: Any, **content: Any) -> Any:
    return exchange.send({"type": "websocket.send", **content})


def deny(exchange: Any, status: Any = 401, **more: Any) -> Any:
    return exchange.send({"type": DENY, "status": status, **more})


def denial(exchange: Any, body: Any = b"", more: bool = False) -> Any:
    return exchange.send({"type": DENIAL, "body": body, "more_body": more})


def asked(served: Any, *fields: str) -> Any:
    """A handshake that waits for its answer; returns the exchange."""
    assert served.get("/ws", *HANDSHAKE, *fields) == b""
    return served.exchange


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        f"{record.getMessage()}: {record.exc_info[1]}"
        for record in caplog.records
        if record.levelname == "ERROR" and record.exc_info
    ]


def gone(served: Any) -> bool:
    """The server has ended the connection, and knows nothing of it any more."""
    return bool(served.peer.eof or served.peer.was_reset) and not served.service.connections


# ---------------------------------------------------------------- accept


def test_the_handshake_is_answered_when_the_application_says_so(serve: Serve) -> None:
    """RFC 6455 §4.2.2."""
    served = serve()
    exchange = asked(served)
    assert exchange.receive().result == CONNECT

    assert exchange.send(ACCEPT).error is None
    assert served.run() == SWITCHED + b"\r\n"


def test_connect_comes_once_also_to_one_that_accepts_without_having_asked(serve: Serve) -> None:
    served = serve()
    exchange = asked(served)
    exchange.send(ACCEPT)
    assert exchange.receive().result == CONNECT

    waiting = exchange.receive()
    assert not waiting.done
    served.send(text("hi"))
    assert waiting.result == received("hi")


def test_the_application_chooses_one_of_the_subprotocols_and_adds_fields(serve: Serve) -> None:
    served = serve()
    exchange = asked(served, "sec-websocket-protocol: chat, superchat")
    headers = [(b"x-one", b"1"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")]
    exchange.send({**ACCEPT, "subprotocol": "superchat", "headers": headers})

    assert served.run() == SWITCHED + (
        b"sec-websocket-protocol: superchat\r\n"
        b"x-one: 1\r\nset-cookie: a=b\r\nset-cookie: c=d\r\n\r\n"
    )


@pytest.mark.parametrize(
    "parts",
    [
        {"subprotocol": None, "headers": None},
        {"headers": []},
        {"headers": ()},
        {"headers": iter([])},
    ],
)
def test_what_accept_leaves_out_it_leaves_out(serve: Serve, parts: dict[str, Any]) -> None:
    served = serve()
    exchange = asked(served, "sec-websocket-protocol: chat")
    exchange.send({**ACCEPT, **parts})

    assert served.run() == SWITCHED + b"\r\n"


def test_headers_may_be_lists_and_come_one_by_one(serve: Serve) -> None:
    served = serve()
    exchange = asked(served)
    exchange.send({**ACCEPT, "headers": (pair for pair in [[b"x-one", b"1"]])})

    assert served.run() == SWITCHED + b"x-one: 1\r\n\r\n"


OFFERED = "the subprotocol {} was not offered; offered were: chat, superchat"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"subprotocol": "Chat"}, OFFERED.format("'Chat'")),
        ({"subprotocol": ""}, OFFERED.format("''")),
        ({"subprotocol": b"chat"}, OFFERED.format("b'chat'")),
        *(
            (
                {"headers": [(b"x", b"y"), (name, b"z")]},
                f"the field {name!r} is the server's to send",
            )
            for name in (
                b"Connection",
                b"upgrade",
                b"sec-websocket-accept",
                b"sec-websocket-extensions",
                b"sec-websocket-version",
            )
        ),
        (
            {"headers": [(b"Sec-WebSocket-Protocol", b"chat")]},
            "the field b'Sec-WebSocket-Protocol' is the server's to send: give 'subprotocol'",
        ),
        *(
            ({"headers": [(name, b"5")]}, f"the field {name!r} cannot be sent here")
            for name in (b"content-length", b"Transfer-Encoding", b"host")
        ),
        ({"headers": [(b"x y", b"z")]}, "a header's name must be a token; got b'x y'"),
        (
            {"headers": [(b"x", b"y\r\nz: 1")]},
            "the value of header b'x' holds a control byte (CR, LF, NUL, ...)",
        ),
        *(
            ({"headers": wrong}, f"headers must be (name, value) pairs of bytes, not {wrong!r}")
            for wrong in (5, "x: y", [b"x: y"], [(b"x",)], [(1, b"y")], {b"xyz": b"y"})
        ),
        (
            {"headers": [("x", "y")]},
            "a header's name and value must be bytes; got ('x', 'y')",
        ),
    ],
)
def test_an_accept_that_cannot_be_sent_says_why_and_another_may_follow(
    serve: Serve, parts: dict[str, Any], message: str
) -> None:
    served = serve()
    exchange = asked(served, "sec-websocket-protocol: chat,superchat")

    error = exchange.send({**ACCEPT, **parts}).error

    assert type(error) is ASGIError
    assert str(error) == f"websocket.accept: {message}"
    assert served.run() == b""
    assert exchange.send({**ACCEPT, "subprotocol": "chat"}).error is None
    assert served.run().startswith(SWITCHED)


def test_where_nothing_was_offered_the_error_says_so(serve: Serve) -> None:
    exchange = asked(serve())
    error = exchange.send({**ACCEPT, "subprotocol": "chat"}).error

    assert str(error).endswith("'chat' was not offered; offered were: none")


def test_the_servers_own_fields_are_in_the_answer_unless_the_application_has_them(
    serve: Serve,
) -> None:
    served = serve(server_header=True, headers=[(b"x-frame", b"deny")])
    asked(served).send(ACCEPT)
    assert served.run() == SWITCHED + b"server: omnicorn\r\nx-frame: deny\r\n\r\n"

    served.peer = served.connect()
    asked(served).send({**ACCEPT, "headers": [(b"Server", b"mine")]})
    assert served.run() == SWITCHED + b"Server: mine\r\nx-frame: deny\r\n\r\n"


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (frame(TEXT, "grüß".encode()), "grüß"),
        (frame(TEXT), ""),
        (frame(BINARY, b"\x00\xff"), b"\x00\xff"),
        (frame(BINARY), b""),
        (frame(TEXT, b"a", first=0) + frame(0, b"b", first=0) + frame(0, b"c"), "abc"),
    ],
)
def test_a_message_is_text_or_bytes_never_both(
    serve: Serve, sent: bytes, content: str | bytes
) -> None:
    served = serve()
    exchange = accept(served)
    served.send(sent)

    assert exchange.receive().result == received(content)


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        ({"text": "grüß"}, (TEXT, "grüß".encode())),
        ({"text": ""}, (TEXT, b"")),
        ({"text": Text("hi")}, (TEXT, b"hi")),
        ({"bytes": b"\x00\xff"}, (BINARY, b"\x00\xff")),
        ({"bytes": b""}, (BINARY, b"")),
        ({"bytes": bytearray(b"ab")}, (BINARY, b"ab")),
        ({"bytes": memoryview(b"abcd")[::2]}, (BINARY, b"ac")),
        ({"text": "hi", "bytes": None}, (TEXT, b"hi")),
        ({"text": None, "bytes": b"hi"}, (BINARY, b"hi")),
    ],
)
def test_a_message_of_the_application_is_one_frame(
    serve: Serve, content: dict[str, Any], wire: tuple[int, bytes]
) -> None:
    served = serve()
    call = say(accept(served), **content)

    assert call.done and call.error is None
    assert frames(served.run()) == [wire]


def test_bytes_that_the_application_changes_afterwards_have_left_as_they_were(
    serve: Serve,
) -> None:
    data = bytearray(b"x" * 20_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await send({"type": "websocket.send", "bytes": data})
        data[:] = bytes(len(data))

    served = serve(app)
    wire = served.get("/", *HANDSHAKE)
    assert frames(wire.partition(b"\r\n\r\n")[2])[0] == (BINARY, b"x" * 20_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "websocket.send needs one of 'text' and 'bytes'"),
        ({"text": None, "bytes": None}, "websocket.send needs one of 'text' and 'bytes'"),
        ({"text": "a", "bytes": b"b"}, "websocket.send needs one of 'text' and 'bytes'"),
        ({"text": "", "bytes": b""}, "websocket.send needs one of 'text' and 'bytes'"),
        ({"text": b"a"}, "websocket.send: 'text' must be a str of Unicode text: b'a'"),
        ({"text": 5}, "websocket.send: 'text' must be a str of Unicode text: 5"),
        ({"text": "\ud800"}, r"websocket.send: 'text' must be a str of Unicode text: '\ud800'"),
        ({"bytes": "a"}, "bytes are needed, not str"),
        ({"bytes": 5}, "bytes are needed, not int"),
        ({"bytes": [97]}, "bytes are needed, not list"),
    ],
)
def test_a_message_that_cannot_be_sent_says_why_and_another_may_follow(
    serve: Serve, content: dict[str, Any], message: str
) -> None:
    served = serve()
    exchange = accept(served)

    error = say(exchange, **content).error

    assert type(error) is ASGIError and str(error) == message
    assert served.run() == b""
    say(exchange, text="ok")
    assert frames(served.run()) == [(TEXT, b"ok")]


# ---------------------------------------------------------------- order

KINDS = ["websocket.accept", "websocket.send", "websocket.close", DENY, DENIAL]
UNKNOWN = ["websocket.receive", "websocket.connect", "http.response.start", "http.request"]
BEFORE = "before websocket.accept"
AFTER = "after websocket.accept"
WITHIN = f"after {DENY}"
# For each phase: what is taken; else what the refusal says of the phase.
ORDER: dict[str, tuple[set[str], str]] = {
    "START": ({"websocket.accept", "websocket.close", DENY}, BEFORE),
    "OPEN": ({"websocket.send", "websocket.close"}, AFTER),
    "DENYING": ({DENIAL}, WITHIN),
}
ENDS: dict[str, str] = {
    "accepted and closed": "the application has closed this WebSocket",
    "refused": "the application has closed this WebSocket",
    "denied": "the application has closed this WebSocket",
    "closed by the peer": "the client has disconnected",
    "lost": "the client has disconnected",
    "lost before the answer": "the client has disconnected",
}


def in_phase(served: Any, phase: str) -> Any:
    """An exchange brought to a phase; what was said on the way is taken."""
    if phase in ("OPEN", "accepted and closed", "closed by the peer", "lost"):
        exchange = accept(served)
    else:
        exchange = asked(served)
    if phase == "DENYING" or phase == "denied":
        deny(exchange)
    if phase == "denied":
        denial(exchange)
    elif phase in ("accepted and closed", "refused"):
        exchange.send(CLOSE_IT)
    elif phase == "closed by the peer":
        served.send(closing(1000))
    elif phase.startswith("lost"):
        served.peer.reset()
    served.run()
    return exchange


EVENTS: dict[str, dict[str, Any]] = {
    "websocket.accept": ACCEPT,
    "websocket.send": {"type": "websocket.send", "text": "hi"},
    "websocket.close": CLOSE_IT,
    DENY: {"type": DENY, "status": 401},
    DENIAL: {"type": DENIAL, "body": b"no"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", [*ORDER, *ENDS])
def test_every_message_in_every_phase(serve: Serve, phase: str, kind: str) -> None:
    served = serve()
    exchange = in_phase(served, phase)

    error = exchange.send(EVENTS[kind]).error
    answer = served.run()

    if phase in ENDS:
        assert type(error) is ClientDisconnected and isinstance(error, OSError)
        assert str(error) == ENDS[phase]
        assert answer == b""
    elif kind in ORDER[phase][0]:
        assert error is None
        assert answer
    else:
        assert type(error) is ASGIError
        assert str(error) == f"{kind} cannot be sent {ORDER[phase][1]}"
        assert answer == b""


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize("phase", [*ORDER, *ENDS])
def test_a_type_that_is_no_applications_to_send_is_refused_in_every_phase(
    serve: Serve, phase: str, kind: Any
) -> None:
    served = serve()
    exchange = in_phase(served, phase)

    error = exchange.send({"type": kind, "text": "hi", "status": 200}).error

    assert type(error) is ASGIError
    assert str(error) == f"the message type {kind!r} is unknown here"
    assert served.run() == b""


def test_a_type_need_not_even_be_hashable_to_be_refused(serve: Serve) -> None:
    error = asked(serve()).send({"type": ["websocket.accept"]}).error

    assert type(error) is ASGIError
    assert str(error) == "the message type ['websocket.accept'] is unknown here"


@pytest.mark.parametrize("event", [None, [], "websocket.accept", {}, {"text": "hi"}, 7])
@pytest.mark.parametrize("phase", ["START", "OPEN", "DENYING"])
def test_what_is_no_message_is_refused_in_the_application(
    serve: Serve, phase: str, event: Any
) -> None:
    error = in_phase(serve(), phase).send(event).error

    assert type(error) is ASGIError
    assert str(error) == f"a message is a dict with a 'type', not {event!r}"


def test_a_message_may_be_any_mapping(serve: Serve) -> None:
    served = serve()
    asked(served).send(UserDict(ACCEPT))
    assert served.run().startswith(SWITCHED)


# ---------------------------------------------------------------- denial


@pytest.mark.parametrize("event", [CLOSE_IT, {**CLOSE_IT, "code": 4000, "reason": "no"}])
def test_a_close_before_the_answer_is_a_403(serve: Serve, event: dict[str, Any]) -> None:
    """ASGI WebSocket spec 2.5, Close: what a closing code would be is lost."""
    served = serve()
    exchange = asked(served)
    exchange.receive()
    waiting = exchange.receive()

    assert exchange.send(event).error is None

    assert served.run() == FORBIDDEN
    assert waiting.result == exchange.receive().result == disconnect(1006)
    assert gone(served) and served.peer.eof
    assert served.access.lines == [("/ws", 403, 9)]


def test_a_denial_is_a_response_of_the_applications_own(serve: Serve) -> None:
    served = serve()
    exchange = asked(served)
    exchange.receive()
    waiting = exchange.receive()
    deny(exchange, 401, headers=[(b"www-authenticate", b"Basic"), (b"content-length", b"5")])
    assert served.run() == (
        b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\ncontent-length: 5\r\n"
        b"connection: close\r\n\r\n"
    )
    assert not waiting.done

    denial(exchange, b"who", more=True)
    assert served.run() == b"who"
    denial(exchange, bytearray(b"?"), more=True)
    assert not waiting.done and not served.peer.eof
    denial(exchange, memoryview(b"!"))
    assert served.run() == b"?!"
    assert gone(served) and served.peer.eof
    assert waiting.result == disconnect(1006)
    assert served.access.lines == [("/ws", 401, 5)]


def test_a_denial_whose_length_is_not_known_is_chunked(serve: Serve) -> None:
    served = serve()
    exchange = asked(served)
    deny(exchange, HTTPStatus.UNAUTHORIZED)
    for piece, more in ((b"who", True), (b"", True), (b"?", False)):
        denial(exchange, piece, more)

    assert served.run() == (
        b"HTTP/1.1 401 Unauthorized\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        b"3\r\nwho\r\n1\r\n?\r\n0\r\n\r\n"
    )
    assert gone(served)


def test_a_denial_in_one_go_has_a_length_and_leaves_in_one_write(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": DENY, "status": 404, "headers": iter([[b"x-one", b"1"]])})
        await send({"type": DENIAL})

    served = serve(app)
    served.get("/ws", *HANDSHAKE)
    assert served.peer.writes == [
        b"HTTP/1.1 404 Not Found\r\nx-one: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    ]
    assert gone(served)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, f"{DENY}: 'status' is None"),
        ({"status": "401"}, f"{DENY}: 'status' is '401'"),
        ({"status": True}, f"{DENY}: 'status' is True"),
        ({"status": 101}, "200 to 999"),
        ({"status": 1000}, "200 to 999"),
        ({"status": 401, "headers": [(b"x y", b"z")]}, "token"),
        ({"status": 401, "headers": [(b"x", b"y\nz")]}, "control byte"),
        ({"status": 401, "headers": [("x", "y")]}, "must be bytes"),
        ({"status": 401, "headers": [(b"x",)]}, "headers must be"),
        ({"status": 401, "headers": [b"x: y"]}, "headers must be"),
        ({"status": 401, "headers": 5}, "headers must be"),
    ],
)
def test_a_denial_that_cannot_be_sent_says_why_and_another_answer_may_follow(
    serve: Serve, parts: dict[str, Any], message: str
) -> None:
    served = serve()
    exchange = asked(served)

    error = exchange.send({"type": DENY, **parts}).error

    assert type(error) is ASGIError and message in str(error)
    assert served.run() == b""
    assert exchange.send(ACCEPT).error is None


@pytest.mark.parametrize("body", ["text", None, 5, [b"x"]])
def test_content_of_a_denial_that_is_not_bytes_is_refused(serve: Serve, body: Any) -> None:
    exchange = in_phase(serve(), "DENYING")
    error = denial(exchange, body).error

    assert type(error) is ASGIError
    assert str(error) == f"bytes are needed, not {type(body).__name__}"
    assert denial(exchange, b"ok").error is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"abc", "2 bytes short"),
        (b"abcdef", "leaves 5 bytes"),
    ],
)
def test_a_denial_that_does_not_keep_its_length_raises_and_cuts_the_connection(
    serve: Serve, caplog: pytest.LogCaptureFixture, body: bytes, message: str
) -> None:
    served = serve()
    exchange = asked(served)
    deny(exchange, headers=[(b"content-length", b"5")])
    error = denial(exchange, body).error
    assert type(error) is ASGIError and message in str(error)
    exchange.finish(error)
    served.advance(1000.0)

    assert gone(served)
    assert [message in line for line in errors(caplog)] == [True]


def test_a_denial_waits_while_the_peer_does_not_read(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    served.peer.pause()
    exchange = asked(served)
    deny(exchange)
    waiting = denial(exchange, b"x" * (HIGH_WATER + 2000), more=True)
    assert not waiting.done

    served.peer.resume()
    served.run()
    assert waiting.done and waiting.error is None


@pytest.mark.parametrize("how", ["reset", "close", "never reads"])
def test_a_denial_that_waits_learns_of_the_end(serve: Serve, how: str) -> None:
    served = serve(link={"window": 1000})
    served.peer.pause()
    exchange = asked(served)
    deny(exchange)
    waiting = denial(exchange, b"x" * 200_000, more=True)
    if how == "never reads":
        served.advance(100.0)
    else:
        getattr(served.peer, how)()
        served.run()

    assert type(waiting.error) is ClientDisconnected
    served.advance(200.0)
    assert not served.service.connections
    assert served.access.lines == [("/ws", 401, 200_000)]


@pytest.mark.parametrize("phase", ["START", "DENYING"])
@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_peer_that_leaves_before_the_end_of_the_answer_has_disconnected(
    serve: Serve, caplog: pytest.LogCaptureFixture, how: str, phase: str
) -> None:
    """One that cannot send frames any more has no use for an answer."""
    served = serve()
    exchange = in_phase(served, phase)
    assert exchange.receive().result == CONNECT
    waiting = exchange.receive()
    getattr(served.peer, how)()
    served.run()

    assert waiting.result == exchange.receive().result == disconnect(1006)
    assert gone(served)
    error = exchange.send(EVENTS[DENIAL if phase == "DENYING" else "websocket.accept"]).error
    assert type(error) is ClientDisconnected
    exchange.finish(error)
    assert errors(caplog) == []


def test_an_accept_in_the_turn_of_the_loss_is_followed_by_a_disconnect(serve: Serve) -> None:
    """Where the transport knows and the connection does not."""
    served = serve()
    exchange = asked(served)
    exchange.receive()
    served.peer.reset()
    call = Call(served.loop, exchange.asgi_send(ACCEPT))
    served.run()

    assert call.done
    assert exchange.receive().result == disconnect(1006)
    assert type(say(exchange, text="x").error) is ClientDisconnected
    assert not served.service.connections and served.service.active == 1
    exchange.finish()
    assert served.service.active == 0 and not served.service.stragglers


@pytest.mark.parametrize("how", ["reset", "close"])
def test_an_answer_that_was_never_given_is_not_in_the_access_log(serve: Serve, how: str) -> None:
    served = serve()
    exchange = asked(served)
    getattr(served.peer, how)()
    served.run()
    exchange.finish()

    assert served.access.lines == []


# ---------------------------------------------------------------- returning and raising


@pytest.mark.parametrize(
    ("failure", "logged"),
    [
        (None, "the application returned without accepting or denying the WebSocket"),
        (LookupError("a bug"), "a bug"),
    ],
)
def test_an_application_that_leaves_before_it_has_answered_is_a_500(
    serve: Serve, caplog: pytest.LogCaptureFixture, failure: Exception | None, logged: str
) -> None:
    served = serve()
    exchange = asked(served)
    exchange.receive()
    exchange.finish(failure)

    answer = served.run()
    assert answer.startswith(FAILED) and b"\r\nconnection: close\r\n" in answer
    assert gone(served)
    assert errors(caplog) == [f"WebSocket '/ws': the application failed: {logged}"]
    assert served.access.lines == [("/ws", 500, 21)]


@pytest.mark.parametrize(
    ("failure", "logged"),
    [
        (None, "the application returned in the middle of its denial response"),
        (LookupError("a bug"), "a bug"),
    ],
)
def test_an_application_that_leaves_in_the_middle_of_a_denial_cuts_it(
    serve: Serve, caplog: pytest.LogCaptureFixture, failure: Exception | None, logged: str
) -> None:
    served = serve()
    exchange = in_phase(served, "DENYING")
    exchange.finish(failure)

    assert b"0\r\n\r\n" not in served.run()
    assert gone(served)
    assert errors(caplog) == [f"WebSocket '/ws': the application failed: {logged}"]
    assert served.access.lines == [("/ws", 401, 0)]


@pytest.mark.parametrize("phase", ["START", "DENYING"])
def test_a_task_that_still_receives_learns_of_the_end_that_the_server_made(
    serve: Serve, caplog: pytest.LogCaptureFixture, phase: str
) -> None:
    exchange = in_phase(serve(), phase)
    exchange.receive()
    waiting = exchange.receive()
    exchange.finish(LookupError("a bug"))

    assert waiting.result == disconnect(1006)


@pytest.mark.parametrize(
    ("failure", "code", "logged"),
    [(None, 1000, []), (LookupError("a bug"), 1011, ["a bug"])],
)
def test_an_application_that_leaves_an_open_websocket_closes_it(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    failure: Exception | None,
    code: int,
    logged: list[str],
) -> None:
    served = serve()
    exchange = accept(served)
    waiting = exchange.receive()
    say(exchange, text="last")
    served.run()
    exchange.finish(failure)

    assert frames(served.run()) == closed(code)
    assert waiting.result == disconnect(code)
    assert errors(caplog) == [f"WebSocket '/ws': the application failed: {what}" for what in logged]
    served.send(closing(code))
    assert gone(served) and served.peer.eof


class WebSocketDisconnect(Exception):
    """As frameworks have one."""


@pytest.mark.parametrize("failure", [WebSocketDisconnect(), ClientDisconnected("x")])
@pytest.mark.parametrize("phase", ["closed by the peer", "lost", "lost before the answer"])
def test_what_only_says_that_the_peer_has_left_is_no_error(
    serve: Serve, caplog: pytest.LogCaptureFixture, phase: str, failure: Exception
) -> None:
    exchange = in_phase(serve(), phase)
    for _ in range(2):
        last = exchange.receive().result
    if phase == "lost before the answer":
        last = exchange.receive().result
    assert last["type"] == "websocket.disconnect"
    exchange.finish(failure)

    assert errors(caplog) == []


def test_a_send_after_its_own_close_that_escapes_is_no_error(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that sends while another closes meets `ClientDisconnected`, which may escape."""
    exchange = in_phase(serve(), "accepted and closed")
    exchange.finish(say(exchange, text="too late").error)

    assert errors(caplog) == []


def test_a_bug_is_an_error_also_after_the_peer_has_left(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = in_phase(serve(), "lost")
    exchange.finish(LookupError("a bug"))

    assert errors(caplog) == ["WebSocket '/ws': the application failed: a bug"]


# ---------------------------------------------------------------- close and disconnect


@pytest.mark.parametrize(
    ("parts", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": None, "reason": None}, 1000, ""),
        ({"code": 3999, "reason": "tschüß"}, 3999, "tschüß"),
        ({"reason": "x" * 123}, 1000, "x" * 123),
    ],
)
def test_close_sends_a_close_frame_and_is_the_applications_own_disconnect(
    serve: Serve, parts: dict[str, Any], code: int, reason: str
) -> None:
    served = serve()
    exchange = accept(served)
    waiting = exchange.receive()
    assert exchange.send({**CLOSE_IT, **parts}).error is None

    assert frames(served.run()) == closed(code, reason)
    assert waiting.result == disconnect(code, reason)
    served.send(closing(4444, "the peer's own"))
    assert exchange.receive().result == disconnect(code, reason)
    assert gone(served)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        *(
            ({"code": code}, f"websocket.close: {code} cannot be sent: ")
            for code in (-1, 0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65536)
        ),
        ({"code": "1000"}, "websocket.close: 'code' must be an integer, not '1000'"),
        ({"code": True}, "websocket.close: 'code' must be an integer, not True"),
        ({"code": 1000.0}, "websocket.close: 'code' must be an integer, not 1000.0"),
        ({"reason": "ü" * 62}, "websocket.close: the closing reason takes 124 bytes"),
        ({"reason": 5}, "websocket.close: the closing reason must be text: 5"),
        ({"reason": b"no"}, "websocket.close: the closing reason must be text: b'no'"),
        ({"reason": "\ud800"}, r"websocket.close: the closing reason must be text: '\ud800'"),
    ],
)
def test_a_close_that_cannot_be_sent_says_why_and_another_may_follow(
    serve: Serve, parts: dict[str, Any], message: str
) -> None:
    served = serve()
    exchange = accept(served)

    error = exchange.send({**CLOSE_IT, **parts}).error

    assert type(error) is ASGIError and str(error).startswith(message)
    assert served.run() == b""
    say(exchange, text="still open")
    exchange.send({**CLOSE_IT, "code": 4000})
    assert frames(served.run()) == [(TEXT, b"still open"), *closed(4000)]


@pytest.mark.parametrize(
    ("sent", "code", "reason", "answered"),
    [
        (closing(1000), 1000, "", closed(1000)),
        (closing(1001, "tschüß"), 1001, "tschüß", closed(1001)),
        (closing(4999, "x" * 123), 4999, "x" * 123, closed(4999)),
        (closing(), 1005, "", [(CLOSE, b"")]),
    ],
)
def test_the_peers_close_frame_is_answered_and_is_the_disconnect(
    serve: Serve, sent: bytes, code: int, reason: str, answered: list[tuple[int, bytes]]
) -> None:
    """RFC 6455 §5.5.1, §7.1.5."""
    served = serve()
    exchange = accept(served)
    waiting = exchange.receive()

    assert frames(served.send(sent)) == answered
    assert waiting.result == exchange.receive().result == disconnect(code, reason)
    assert gone(served) and served.peer.eof


@pytest.mark.parametrize("how", ["reset", "close", "abort"])
def test_a_peer_that_goes_without_a_close_frame_is_1006(serve: Serve, how: str) -> None:
    """RFC 6455 §7.1.5."""
    served = serve()
    exchange = accept(served)
    waiting = exchange.receive()
    getattr(served.peer.transport if how == "abort" else served.peer, how)()
    served.run()

    assert waiting.result == exchange.receive().result == disconnect(1006)
    assert gone(served)


def test_a_peer_that_breaks_a_rule_is_the_code_that_says_which(serve: Serve) -> None:
    served = serve()
    exchange = accept(served)
    waiting = exchange.receive()
    ((opcode, content),) = frames(served.send(frame(3)))

    assert (opcode, content[:2]) == (CLOSE, (1002).to_bytes(2, "big"))
    assert waiting.result == disconnect(1002, content[2:].decode())
    assert type(say(exchange, text="x").error) is ClientDisconnected


def test_messages_that_wait_come_before_the_disconnect(serve: Serve) -> None:
    served = serve()
    exchange = accept(served)
    served.send(text("a") + frame(BINARY, b"b") + text("c") + closing(1000, "bye"))

    got = [exchange.receive().result for _ in range(5)]
    assert got == [received("a"), received(b"b"), received("c"), *[disconnect(1000, "bye")] * 2]


def test_what_came_before_a_broken_rule_can_be_answered(serve: Serve) -> None:
    served = serve()
    exchange = accept(served)
    assert served.send(text("a") + text("b") + frame(3) + text("dropped")) == b""
    for word in ("a", "b"):
        assert exchange.receive().result == received(word)
        assert say(exchange, text=word.upper()).error is None
        assert frames(served.run()) == [(TEXT, word.upper().encode())]
    waiting = exchange.receive()

    assert waiting.result["code"] == 1002
    ((opcode, content),) = frames(served.run())
    assert (opcode, content[:2]) == (CLOSE, (1002).to_bytes(2, "big"))
    assert exchange.receive().result == waiting.result


def test_messages_that_wait_are_there_also_after_its_own_close(serve: Serve) -> None:
    served = serve()
    exchange = accept(served)
    served.send(text("a"))
    exchange.send(CLOSE_IT)
    served.send(text("behind our close frame") + closing(1000))

    assert [exchange.receive().result for _ in range(2)] == [received("a"), disconnect(1000)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_came_right_behind_the_handshake_is_not_lost(serve: Serve, count: int) -> None:
    """*count* frames, of which the last is a close frame."""
    served = serve()
    behind = text("early") * (count - 1) + closing(1000)
    served.send(
        b"\r\n".join([b"GET / HTTP/1.1", b"host: a", *(f.encode() for f in HANDSHAKE), b"", behind])
    )
    exchange = served.exchange
    exchange.receive()
    assert exchange.send(ACCEPT).error is None

    assert frames(served.run().removeprefix(SWITCHED + b"\r\n")) == closed(1000)
    for _ in range(count - 1):
        assert exchange.receive().result == received("early")
    assert exchange.receive().result == disconnect(1000)
    assert type(say(exchange, text="x").error) is ClientDisconnected
    assert gone(served)


# ---------------------------------------------------------------- waiting


def test_of_two_that_wait_each_message_reaches_one(serve: Serve) -> None:
    served = serve()
    exchange = accept(served)
    calls = [exchange.receive() for _ in range(2)]

    served.send(text("a"))
    assert sorted(call.done for call in calls) == [False, True]
    served.send(text("b"))
    assert sorted(call.result["text"] for call in calls) == ["a", "b"]


def test_all_that_wait_learn_of_the_end(serve: Serve) -> None:
    served = serve()
    exchange = accept(served)
    calls = [exchange.receive() for _ in range(3)]
    calls[1].task.cancel()
    served.run()
    assert [call.done for call in calls] == [False, True, False]

    served.peer.reset()
    served.run()
    assert [call.result for call in calls] == [disconnect(1006), None, disconnect(1006)]


def test_a_receive_given_up_takes_no_message_with_it(serve: Serve) -> None:
    served = serve()
    exchange = accept(served)
    exchange.receive().task.cancel()
    served.run()
    served.send(text("a"))

    assert exchange.receive().result == received("a")


def test_a_receive_given_up_in_the_turn_of_a_message_leaves_it_to_the_next(serve: Serve) -> None:
    """The waiter is done, and its task is cancelled before it runs."""
    served = serve()
    exchange = accept(served)
    call = exchange.receive()
    served.peer.send(text("a"))
    served.loop.call_soon(lambda: call.task.cancel())
    served.run()

    assert call.result is None
    assert exchange.receive().result == received("a")


def test_calls_given_up_leave_nothing_behind(serve: Serve) -> None:
    def waiters() -> int:
        gc.collect()
        return sum(type(held) is ManualWaiter for held in gc.get_objects())

    served = serve()
    exchange = accept(served)
    exchange.receive().task.cancel()
    served.run()
    before = waiters()
    for _ in range(10):
        exchange.receive().task.cancel()
        served.run()

    assert waiters() <= before


# ---------------------------------------------------------------- back-pressure: the peer waits


def test_reading_pauses_at_max_queue_messages_and_goes_on_at_half(serve: Serve) -> None:
    served = serve(websockets=WebSockets(max_queue=4))
    exchange = accept(served)
    transport = served.peer.transport
    served.send(text("0") + text("1") + text("2"))
    assert transport.is_reading
    served.send(text("3") + text("4") + text("5"))
    assert not transport.is_reading
    served.send(text("6"))
    assert served.peer.waiting

    assert exchange.receive().result == received("0")
    assert not transport.is_reading
    assert exchange.receive().result == received("1")  # half; what was in the segment comes
    assert not transport.is_reading
    rest = [exchange.receive().result for _ in range(5)]
    assert rest == [received(str(number)) for number in range(2, 7)]
    assert transport.is_reading and not served.peer.waiting


def test_reading_pauses_past_max_size_bytes_and_goes_on_at_half(serve: Serve) -> None:
    served = serve(websockets=WebSockets(max_size=100))
    exchange = accept(served)
    transport = served.peer.transport
    for _ in range(4):
        served.send(frame(BINARY, b"x" * 25))
    assert transport.is_reading
    served.send(frame(BINARY, b"y"))
    assert not transport.is_reading

    exchange.receive()
    assert not transport.is_reading  # 76 bytes
    exchange.receive()
    assert not transport.is_reading  # 51 bytes
    exchange.receive()
    assert transport.is_reading


def test_a_queue_of_one_is_one_message_at_a_time(serve: Serve) -> None:
    served = serve(websockets=WebSockets(max_queue=1))
    exchange = accept(served)
    served.send(text("a") + text("b"))
    for content in "ab":
        assert not served.peer.transport.is_reading
        assert exchange.receive().result == received(content)
    assert served.peer.transport.is_reading


def test_a_queue_that_is_full_at_the_handshake_pauses_too(serve: Serve) -> None:
    served = serve(websockets=WebSockets(max_queue=2))
    head = "\r\n".join(["GET / HTTP/1.1", "host: a", *HANDSHAKE, "", ""]).encode()
    served.send(head + text("a") + text("b") + text("c"))
    exchange = served.exchange
    exchange.send(ACCEPT)
    assert not served.peer.transport.is_reading

    exchange.receive()
    assert [exchange.receive().result["text"] for _ in range(3)] == ["a", "b", "c"]
    assert served.peer.transport.is_reading


def test_many_frames_behind_the_handshake_do_not_keep_it_from_being_read(serve: Serve) -> None:
    """While the application has not answered, 64 KiB of them are enough."""
    served = serve(websockets=WebSockets(max_queue=1000))
    exchange = asked(served)
    served.send(frame(BINARY, b"x" * 1000) * (HIGH_WATER // 1000 + 1))
    assert not served.peer.transport.is_reading
    served.send(text("last"))
    assert served.peer.waiting

    exchange.send(ACCEPT)
    assert served.peer.transport.is_reading and not served.peer.waiting
    exchange.receive()
    got = [exchange.receive().result for _ in range(HIGH_WATER // 1000 + 2)]
    assert got[-1] == received("last")


@pytest.mark.parametrize("how", ["reset", "abort"])
def test_a_full_queue_can_be_taken_after_the_connection_is_lost(serve: Serve, how: str) -> None:
    served = serve(websockets=WebSockets(max_queue=2))
    exchange = accept(served)
    served.send(text("a") + text("b"))
    assert not served.peer.transport.is_reading
    getattr(served.peer if how == "reset" else served.peer.transport, how)()
    served.run()

    calls = [exchange.receive() for _ in range(3)]
    assert [call.error for call in calls] == [None] * 3
    assert [call.result for call in calls] == [received("a"), received("b"), disconnect(1006)]


def test_a_full_queue_can_be_taken_after_its_own_close(serve: Serve) -> None:
    served = serve(websockets=WebSockets(max_queue=2))
    exchange = accept(served)
    served.send(text("a") + text("b") + text("dropped") + closing(1000))
    exchange.send({**CLOSE_IT, "code": 4000})

    got = [exchange.receive().result for _ in range(3)]
    assert got[:2] == [received("a"), received("b")]
    assert got[2]["type"] == "websocket.disconnect"
    assert gone(served)  # the peer's close frame was there, unread


# ---------------------------------------------------------------- back-pressure: we wait


def test_send_waits_while_the_peer_does_not_read(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    exchange = accept(served)
    served.peer.pause()
    assert say(exchange, bytes=b"x" * 1000).done
    waiting = [say(exchange, bytes=b"x" * (HIGH_WATER + 1000)), say(exchange, text="next")]
    assert [call.done for call in waiting] == [False, False]

    served.peer.resume()
    served.run()
    assert [(call.done, call.error) for call in waiting] == [(True, None)] * 2


def test_memory_stays_bounded_however_much_is_sent(serve: Serve) -> None:
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        for number in range(200):
            await send({"type": "websocket.send", "bytes": b"x" * 16384})
            sent.append(number)

    served = serve(app, link={"window": 1000})
    served.peer.pause()
    served.get("/", *HANDSHAKE)

    assert len(sent) <= 2 * HIGH_WATER // 16384
    assert served.peer.transport.get_write_buffer_size() <= 2 * (HIGH_WATER + 16384)


def test_one_of_several_senders_may_give_up(serve: Serve) -> None:
    served = serve(link={"window": 1000})
    exchange = accept(served)
    served.peer.pause()
    calls = [say(exchange, bytes=b"x" * 100_000) for _ in range(3)]
    calls[0].task.cancel()
    served.run()
    assert [call.done for call in calls] == [True, False, False]

    served.peer.resume()
    served.run()
    assert [(call.done, call.error) for call in calls[1:]] == [(True, None)] * 2


@pytest.mark.parametrize(
    ("how", "raises"),
    [
        ("reset", True),
        ("close", True),
        ("abort", True),
        ("a close frame", False),
        ("a broken rule", False),
        ("drain", False),
    ],
)
def test_senders_that_wait_learn_of_the_end(serve: Serve, how: str, raises: bool) -> None:
    """By an exception where what they sent may be lost; else it is for the next to raise."""
    served = serve(link={"window": 1000})
    exchange = accept(served)
    served.peer.pause()
    waiting = say(exchange, bytes=b"x" * 100_000)
    assert not waiting.done
    if how in ("reset", "close"):
        getattr(served.peer, how)()
    elif how == "abort":
        served.peer.transport.abort()
    elif how == "drain":
        served.service.drain(lambda: None)
    else:
        served.send(closing(1000) if how == "a close frame" else frame(3))
    served.run()

    assert waiting.done
    assert type(waiting.error) is (ClientDisconnected if raises else type(None))
    error = say(exchange, text="x").error
    assert type(error) is ClientDisconnected
    assert str(error) == "the client has disconnected"


def test_a_sender_that_waits_is_let_go_by_its_own_close(serve: Serve) -> None:
    """Its message has been taken over, and leaves before the close frame."""
    served = serve(link={"window": 1000})
    exchange = accept(served)
    served.peer.pause()
    waiting = say(exchange, bytes=b"x" * 100_000)
    exchange.send(CLOSE_IT)
    assert waiting.done and waiting.error is None

    served.peer.resume()
    assert frames(served.run()) == [(BINARY, b"x" * 100_000), *closed(1000)]


def test_one_that_only_sends_lets_others_have_their_turn(serve: Serve) -> None:
    """Also where the peer keeps up, and the transport never fills."""
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        path = scope["path"]
        for _ in range(20):
            await send({"type": "websocket.send", "bytes": b"x" * 16384})
            order.append(path)
        await send(CLOSE_IT)

    served = serve(app)
    peers = [served.peer, served.connect()]
    for peer, path in zip(peers, ("/a", "/b"), strict=True):
        lines = [f"GET {path} HTTP/1.1", "host: a", *HANDSHAKE, "", ""]
        peer.send("\r\n".join(lines).encode())
    served.run()

    assert sorted(order) == ["/a"] * 20 + ["/b"] * 20
    first = order[0]
    assert order[19] != first  # "/a" has not had it all before "/b" had its turn


# ---------------------------------------------------------------- extensions


def test_middleware_may_change_what_is_offered_without_touching_the_next(serve: Serve) -> None:
    served = serve()
    asked(served).scope["extensions"]["mine"] = {}
    served.peer = served.connect()

    assert asked(served).scope["extensions"] == EXTENSIONS == {"websocket.http.response": {}}


# ---------------------------------------------------------------- the server stops


def test_a_handshake_without_an_answer_is_told_that_the_server_stops(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    exchange = asked(served)
    exchange.receive()
    waiting = exchange.receive()
    served.service.drain(lambda: None)
    assert not waiting.done

    served.service.disconnect()
    served.run()
    assert waiting.result == disconnect(1012)
    exchange.finish()
    assert bytes(served.peer.take()).startswith(b"HTTP/1.1 503 ")
    assert gone(served)
    assert errors(caplog) == []


def test_who_is_told_that_the_server_stops_may_answer_all_the_same(serve: Serve) -> None:
    served = serve()
    exchange = asked(served)
    served.service.drain(lambda: None)
    served.service.disconnect()
    exchange.receive()
    assert exchange.send(CLOSE_IT).error is None
    assert served.run().startswith(b"HTTP/1.1 403 ")
