"""Events against a table written from the specification (HTTP & WebSocket 2.5, Lifespan 2.0)."""

from __future__ import annotations

from typing import Any, is_typeddict

import pytest

from omnicorn.asgi import events

# message type: (class, required keys besides "type", optional keys)
RECEIVED: dict[str, tuple[str, str, str]] = {
    "http.request": ("HTTPRequestEvent", "", "body more_body"),
    "http.disconnect": ("HTTPDisconnectEvent", "", ""),
    "websocket.connect": ("WebSocketConnectEvent", "", ""),
    "websocket.receive": ("WebSocketReceiveEvent", "", "bytes text"),
    "websocket.disconnect": ("WebSocketDisconnectEvent", "code", "reason"),
    "lifespan.startup": ("LifespanStartupEvent", "", ""),
    "lifespan.shutdown": ("LifespanShutdownEvent", "", ""),
}
SENT: dict[str, tuple[str, str, str]] = {
    "http.response.start": ("HTTPResponseStartEvent", "status", "headers trailers"),
    "http.response.body": ("HTTPResponseBodyEvent", "", "body more_body"),
    "http.response.trailers": ("HTTPResponseTrailersEvent", "headers", "more_trailers"),
    "http.response.early_hint": ("HTTPResponseEarlyHintEvent", "links", ""),
    "http.response.pathsend": ("HTTPResponsePathsendEvent", "path", ""),
    "http.response.zerocopysend": (
        "HTTPResponseZeroCopySendEvent",
        "file",
        "offset count more_body",
    ),
    "http.response.push": ("HTTPResponsePushEvent", "path headers", ""),
    "http.response.debug": ("HTTPResponseDebugEvent", "info", ""),
    "websocket.accept": ("WebSocketAcceptEvent", "", "subprotocol headers"),
    "websocket.send": ("WebSocketSendEvent", "", "bytes text"),
    "websocket.close": ("WebSocketCloseEvent", "", "code reason"),
    "websocket.http.response.start": ("WebSocketResponseStartEvent", "status", "headers"),
    "websocket.http.response.body": ("WebSocketResponseBodyEvent", "", "body more_body"),
    "lifespan.startup.complete": ("LifespanStartupCompleteEvent", "", ""),
    "lifespan.startup.failed": ("LifespanStartupFailedEvent", "", "message"),
    "lifespan.shutdown.complete": ("LifespanShutdownCompleteEvent", "", ""),
    "lifespan.shutdown.failed": ("LifespanShutdownFailedEvent", "", "message"),
}


@pytest.mark.parametrize("message", [*RECEIVED, *SENT])
def test_an_event_requires_what_the_specification_requires(message: str) -> None:
    name, required, optional = (RECEIVED | SENT)[message]
    event: Any = getattr(events, name)
    assert event.__annotations__["type"].__args__ == (message,)
    assert event.__required_keys__ == frozenset(["type", *required.split()])
    assert event.__optional_keys__ == frozenset(optional.split())


def test_the_table_misses_no_event() -> None:
    defined = {name for name, value in vars(events).items() if is_typeddict(value)}
    assert {row[0] for row in (RECEIVED | SENT).values()} == defined


@pytest.mark.parametrize(
    ("union", "table", "protocol"),
    [
        ("HTTPReceiveEvent", RECEIVED, "http."),
        ("HTTPSendEvent", SENT, "http."),
        ("WebSocketInboundEvent", RECEIVED, "websocket."),
        ("WebSocketOutboundEvent", SENT, "websocket."),
        ("LifespanReceiveEvent", RECEIVED, "lifespan."),
        ("LifespanSendEvent", SENT, "lifespan."),
        ("ASGIReceiveEvent", RECEIVED, ""),
        ("ASGISendEvent", SENT, ""),
    ],
)
def test_a_union_has_exactly_the_events_of_its_protocol_and_direction(
    union: str, table: dict[str, tuple[str, str, str]], protocol: str
) -> None:
    members = {member.__name__ for member in getattr(events, union).__args__}
    assert members == {row[0] for kind, row in table.items() if kind.startswith(protocol)}
