"""`WebSocketCommunicator` on asyncio and trio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import trio

from omnicorn.toolkit.testing import (
    ClientDisconnected,
    CommunicatorError,
    CommunicatorTimeout,
    WebSocketCommunicator,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    App = Callable[..., Awaitable[None]]
    Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]

NOW = 0.001  # seconds, where something is known not to come
ACCEPT = {"type": "websocket.accept"}


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    if request.param == "trio":
        return trio.run
    return lambda main: asyncio.run(main())


def sends(*events: dict[str, Any]) -> App:
    """An application that sends these, then waits for the end."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for event in events:
            await send(event)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    return app


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert await receive() == {"type": "websocket.connect"}
    await send({**ACCEPT, "subprotocol": "v1", "headers": [(b"a", b"b")]})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})
    assert event == {"type": "websocket.disconnect", "code": 1000, "reason": ""}


def test_the_scope_is_that_of_a_server() -> None:
    ws = WebSocketCommunicator(echo, "/a%20b?x=1", subprotocols=["v1", "v2"], state={"a": 1})
    assert ws.scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"x=1",
        "root_path": "",
        "headers": [(b"host", b"testserver"), (b"sec-websocket-protocol", b"v1, v2")],
        "client": ("127.0.0.1", 50000),
        "server": ("testserver", 80),
        "subprotocols": ["v1", "v2"],
        "extensions": {"websocket.http.response": {}},
        "state": {"a": 1},
    }


def test_messages_go_both_ways(run: Run) -> None:
    async def main() -> None:
        async with WebSocketCommunicator(echo, subprotocols=["v1"]) as ws:
            answer = await ws.connect()
            assert answer
            assert (answer.subprotocol, answer.headers) == ("v1", [(b"a", b"b")])
            assert await ws.connect() is answer
            await ws.send_text("text")
            await ws.send_bytes(b"bytes")
            await ws.send_json({"a": [1]})
            await ws.send_json({"b": 2}, binary=True)
            assert await ws.receive_text() == "text"
            assert await ws.receive_bytes() == b"bytes"
            assert await ws.receive_json() == {"a": [1]}
            assert await ws.receive() == b'{"b": 2}'
            assert await ws.receive_nothing(NOW)

    run(main)


def test_the_first_message_connects(run: Run) -> None:
    async def main() -> None:
        async with WebSocketCommunicator(echo, subprotocols=["v1"]) as ws:
            await ws.send_text("hello")
            assert not await ws.receive_nothing()
            assert await ws.receive_text() == "hello"

    run(main)


def test_a_refusal_by_close_is_a_403(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4001, "reason": "no"})
        told.append(await receive())

    told: list[Any] = []

    async def main() -> None:
        async with WebSocketCommunicator(app) as ws:
            answer = await ws.connect()
            assert not answer
            assert answer.closed == (4001, "no")
            assert answer.response is not None and answer.response.status == 403
            for call in (ws.send_text("x"), ws.receive(), ws.receive_close()):
                with pytest.raises(CommunicatorError) as caught:
                    await call
                assert str(caught.value) == (
                    "expected websocket.accept, got websocket.close code 4001 reason 'no'"
                )

    run(main)
    assert told == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


def test_a_refusal_by_a_response_is_that_response(run: Run) -> None:
    app = sends(
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"a", b"b")]},
        {"type": "websocket.http.response.body", "body": b"go ", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"away"},
    )

    async def main() -> None:
        async with WebSocketCommunicator(app) as ws:
            answer = await ws.connect()
            assert not answer and answer.closed is None
            assert answer.response is not None and answer.response.complete
            assert (answer.response.status, answer.response.body) == (401, b"go away")
            assert answer.response.header("a") == "b"

    run(main)


def test_the_application_closes(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 4000, "reason": "bye"})
        told.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except OSError as exc:
            told.append(exc)

    told: list[Any] = []

    async def main() -> None:
        async with WebSocketCommunicator(app) as ws:
            assert await ws.receive_close() == (4000, "bye")

    run(main)
    assert told[0] == {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}
    assert isinstance(told[1], ClientDisconnected)


def test_a_close_without_a_code_is_1000(run: Run) -> None:
    async def main() -> None:
        async with WebSocketCommunicator(sends(ACCEPT, {"type": "websocket.close"})) as ws:
            assert await ws.receive_close() == (1000, "")

    run(main)


def test_the_client_closes(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        told.extend([await receive(), await receive()])
        await send({"type": "websocket.send", "text": "to nobody"})

    told: list[Any] = []

    async def main() -> None:
        async with WebSocketCommunicator(app) as ws:
            await ws.send_text("last words")
            await ws.close(4002, "tired")

    run(main)
    assert told == [
        {"type": "websocket.receive", "text": "last words"},
        {"type": "websocket.disconnect", "code": 4002, "reason": "tired"},
    ]


def test_a_client_that_closed_says_nothing_more(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        told.append(await receive())

    told: list[Any] = []

    async def main() -> None:
        async with WebSocketCommunicator(app) as ws:
            await ws.connect()
            await ws.close()
            for call in (ws.send_text("x"), ws.send_bytes(b"x"), ws.send_json([])):
                with pytest.raises(RuntimeError, match="the client has left"):
                    await call

    run(main)
    assert [event["type"] for event in told] == ["websocket.disconnect"]


def test_what_crosses_the_applications_close_is_lost(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close"})
        told.extend([await receive() for _ in range(20)])  # each gives way to the test

    told: list[Any] = []

    async def main() -> None:
        async with WebSocketCommunicator(app) as ws:
            assert await ws.receive_close() == (1000, "")
            await ws.send_text("on its way")

    run(main)
    assert {event["type"] for event in told} == {"websocket.disconnect"}


@pytest.mark.parametrize(
    ("offered", "said"),
    [((), "no subprotocols"), (("v2", "v3"), "'v2', 'v3'")],
)
def test_a_subprotocol_that_was_not_offered_fails_the_connection(
    run: Run, offered: tuple[str, ...], said: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({**ACCEPT, "subprotocol": "v1"})
        told.append(await receive())

    told: list[Any] = []

    async def main() -> None:
        async with WebSocketCommunicator(app, subprotocols=offered) as ws:
            with pytest.raises(CommunicatorError) as caught:
                await ws.connect()
            assert str(caught.value) == (
                "the application sent websocket.accept subprotocol 'v1', but the client offers "
                f"{said}; see subprotocols=..."
            )

    run(main)
    assert told == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


def test_a_block_that_ends_is_a_client_that_closes(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        told.append(await receive())

    told: list[Any] = []

    async def main(connect: bool) -> None:
        async with WebSocketCommunicator(app) as ws:
            if connect:
                await ws.connect()

    run(lambda: main(True))
    run(lambda: main(False))  # the accept comes too late, and raises
    assert told == [{"type": "websocket.disconnect", "code": 1000, "reason": ""}]


async def _raises(scope: Any, receive: Any, send: Any) -> None:
    raise LookupError("no such thing")


async def _returns(scope: Any, receive: Any, send: Any) -> None:
    await send(ACCEPT)


CLOSE = {"type": "websocket.close", "code": 4001}


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (_raises, "the application raised LookupError('no such thing') instead of sending "
         "websocket.accept"),
        (_returns, "the application returned without sending websocket.send with text"),
        (sends(ACCEPT, CLOSE), "expected websocket.send with text, got websocket.close code 4001"),
        (sends(ACCEPT, ACCEPT), "expected websocket.send with text, got websocket.accept"),
        (sends({"type": "websocket.send", "text": "x"}),
         "expected websocket.accept, got websocket.send text 'x'"),
        (sends(ACCEPT, {"type": "websocket.send", "bytes": b"x"}),
         "expected a text message, got bytes b'x'"),
        (sends(ACCEPT, {"type": "websocket.send", "text": None}),
         "the application sent websocket.send text None: a message has either text or bytes"),
        (sends(ACCEPT, {"type": "websocket.send", "text": "x", "bytes": b"x"}),
         "the application sent websocket.send text 'x' bytes b'x': a message has either text or "
         "bytes"),
        (sends({**ACCEPT, "headers": [("name", "value")]}),
         "which cannot be understood: TypeError(\"'name' is no bytes\")"),
        (sends({"type": "http.response.start"}), "'http.response.start' is no message of a "),
        (sends({"type": "websocket.http.response.start", "status": 200}, ACCEPT),
         "expected websocket.http.response.body, got websocket.accept"),
    ],
)  # fmt: skip
def test_what_the_application_did_instead_is_said(run: Run, app: App, message: str) -> None:
    async def main() -> None:
        async with WebSocketCommunicator(app) as ws:
            await ws.receive_text()

    with pytest.raises(CommunicatorError) as caught:
        run(main)
    assert message in str(caught.value)


def test_bytes_json_and_close_are_asked_for_by_name(run: Run) -> None:
    text = {"type": "websocket.send", "text": "x"}

    async def main() -> None:
        async with WebSocketCommunicator(sends(ACCEPT, text, text, text)) as ws:
            with pytest.raises(CommunicatorError, match="expected a binary message, got text 'x'"):
                await ws.receive_bytes()
            with pytest.raises(CommunicatorError, match="expected JSON, got 'x'"):
                await ws.receive_json()
            with pytest.raises(CommunicatorError, match=r"expected websocket.close, got websocket"):
                await ws.receive_close()

    run(main)


def test_a_denial_must_be_offered(run: Run) -> None:
    app = sends({"type": "websocket.http.response.start", "status": 200})

    async def main() -> None:
        async with WebSocketCommunicator(app, extensions=()) as ws:
            await ws.connect()

    with pytest.raises(CommunicatorError, match=r"websocket.http.response is not offered"):
        run(main)


def test_a_timeout_says_what_was_waited_for(run: Run) -> None:
    async def main() -> None:
        async with WebSocketCommunicator(echo, subprotocols=["v1"]) as ws:
            await ws.connect()
            await ws.receive_text(timeout=NOW)

    with pytest.raises(CommunicatorTimeout) as caught:
        run(main)
    assert str(caught.value) == (
        "the application did not send websocket.send with text within 0.001 s: it waits in "
        "receive()"
    )
