"""Every rule of `omnicorn.toolkit.lint`: a right conversation that keeps it, a wrong one not.

A conversation is a scope, what the server gives, and what the application does in turn. The
right ones below use every event with every key; the wrong ones are right ones with one thing
changed. Nothing here waits, so that a coroutine can be run without a loop.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.toolkit.lint import RULES, ASGILintError, ASGILintWarning, Violation, lint
from omnicorn.toolkit.lint.rules import ASGI_KEYS, RECEIVE, SCOPES, SEND, TLS, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    Event = dict[str, Any]
    Steps = tuple[Any, ...]

R = "receive"
"""The application's step that takes the server's next event."""

PAIRS = [(b"name", b"Value"), [b"name", b"again"]]
TLS_12 = {
    "server_cert": "PEM",
    "client_cert_chain": ["PEM"],
    "client_cert_name": "CN=client",
    "client_cert_error": None,
    "tls_version": 0x0303,
    "cipher_suite": 0xC02F,
}
ALL: Event = {
    shape.extension: {}
    for shapes in SEND.values()
    for shape in shapes.values()
    if shape.extension is not None
}
HTTP: Event = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.5"},
    "http_version": "2",
    "method": "GET",
    "scheme": "https",
    "path": "/app/é",
    "raw_path": b"/app/%C3%A9",
    "query_string": b"a=%20",
    "root_path": "/app",
    "headers": PAIRS,
    "client": ("::1", 1),
    "server": ["/run/socket", None],
    "state": {},
    "extensions": {**ALL, "tls": TLS_12},
}
WEBSOCKET: Event = {
    **{key: value for key, value in HTTP.items() if key != "method"},
    "type": "websocket",
    "scheme": "wss",
    "subprotocols": ["v1"],
}
LIFESPAN: Event = {
    "type": "lifespan",
    "asgi": {"version": "3.0", "spec_version": "2.0"},
    "state": {},
}

REQUEST = {"type": "http.request", "body": b"x", "more_body": False}
GONE = {"type": "http.disconnect"}
START = {"type": "http.response.start", "status": 200, "headers": PAIRS, "trailers": False}
TRAILED = {**START, "trailers": True}
MORE = {"type": "http.response.body", "body": b"x", "more_body": True}
BODY = {"type": "http.response.body", "body": b"x", "more_body": False}
HINT = {"type": "http.response.early_hint", "links": [b"</a>"]}
DEBUG = {"type": "http.response.debug", "info": {"any": object}}
PUSH = {"type": "http.response.push", "path": "/", "headers": PAIRS}
COPY = {"type": "http.response.zerocopysend", "file": sys.stderr, "offset": 0, "count": 1}
COPY_MORE = {**COPY, "more_body": True}
PATH = {"type": "http.response.pathsend", "path": "/etc/hosts"}
TRAILERS = {"type": "http.response.trailers", "headers": PAIRS, "more_trailers": False}
MORE_TRAILERS = {**TRAILERS, "more_trailers": True}

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept", "subprotocol": "v1", "headers": PAIRS}
TEXT = {"type": "websocket.receive", "text": "x", "bytes": None}
NOTHING = {**TEXT, "text": None}
BOTH = {**TEXT, "bytes": b""}
SAY = {"type": "websocket.send", "text": None, "bytes": b"x"}
CLOSE = {"type": "websocket.close", "code": 4000, "reason": "bye"}
LOST = {"type": "websocket.disconnect", "code": 1005, "reason": ""}
DENY = {"type": "websocket.http.response.start", "status": 401, "headers": PAIRS}
DENY_MORE = {"type": "websocket.http.response.body", "body": b"x", "more_body": True}
DENY_BODY = {"type": "websocket.http.response.body", "body": b"x", "more_body": False}

UP = {"type": "lifespan.startup"}
DOWN = {"type": "lifespan.shutdown"}
UP_OK = {"type": "lifespan.startup.complete"}
UP_FAILED = {"type": "lifespan.startup.failed", "message": "no"}
DOWN_OK = {"type": "lifespan.shutdown.complete"}
DOWN_FAILED = {"type": "lifespan.shutdown.failed", "message": "no"}


class Talk(NamedTuple):
    scope: Any
    given: Steps
    steps: Steps
    result: Any = None


RIGHT = [
    Talk(HTTP, (), (START, BODY)),
    Talk(HTTP, ({**REQUEST, "more_body": True}, REQUEST), (R, R, START, MORE, PUSH, BODY)),
    Talk(HTTP, (REQUEST, GONE, GONE), (R, R, R)),
    Talk(HTTP, (GONE,), (START, MORE, R)),
    Talk(HTTP, (REQUEST, GONE), (R, DEBUG, HINT, HINT, START, HINT, BODY, R)),
    Talk(HTTP, (), (START, COPY_MORE, MORE, COPY)),
    Talk(HTTP, (), (START, PATH)),
    Talk(HTTP, (), (TRAILED, MORE, BODY, MORE_TRAILERS, TRAILERS)),
    Talk(HTTP, (), (TRAILED, PATH, TRAILERS)),
    Talk(WEBSOCKET, (CONNECT, TEXT, LOST, LOST), (R, ACCEPT, R, SAY, R, R)),
    Talk(WEBSOCKET, (CONNECT, TEXT, LOST), (R, ACCEPT, SAY, CLOSE, R, R)),
    Talk(WEBSOCKET, (CONNECT,), (ACCEPT, R)),  # an answer needs no question
    Talk(WEBSOCKET, (CONNECT, LOST), (R, CLOSE, R)),
    Talk(WEBSOCKET, (CONNECT, LOST), (R, R)),
    Talk(WEBSOCKET, (CONNECT, LOST), (R, DENY, DENY_MORE, DENY_BODY, R)),
    Talk(LIFESPAN, (UP, DOWN), (R, UP_OK, R, DOWN_OK)),
    Talk(LIFESPAN, (UP, DOWN), (R, UP_OK, R, DOWN_FAILED)),
    Talk(LIFESPAN, (UP,), (R, UP_FAILED)),
    Talk({"type": "webtransport", "any": 1}, ({"type": "x"},), (R, {"type": "y"}, "not a dict")),
    # The least that the specification asks for.
    Talk(
        {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.0",
            "method": "GET",
            "path": "",
            "query_string": b"",
            "headers": (),
        },
        ({"type": "http.request"},),
        (R, {"type": "http.response.start", "status": 200}, {"type": "http.response.body"}),
    ),
    Talk(
        {"type": "websocket", "asgi": {"version": "3.0"}, "path": "/", "headers": []},
        (CONNECT, {"type": "websocket.receive", "text": ""}, {**LOST, "reason": None}),
        (R, {"type": "websocket.accept"}, R, {"type": "websocket.send", "bytes": b""}, R),
    ),
    Talk({"type": "lifespan", "asgi": {"version": "3.0"}}, (UP,), (R, {**UP_FAILED})),
    # A private extension may bring events, to either side, that nobody here knows.
    Talk({**HTTP, "extensions": {"x": {}}}, ({"type": "x.y"},), (R, {"type": "x"}, START, BODY)),
    # The prefix was stripped by a proxy: `raw_path` is what was received.
    Talk({**HTTP, "raw_path": b"/%C3%A9"}, (), (START, BODY)),
    # What was not UTF-8 may be decoded anyhow, and targets need not be paths.
    Talk({**HTTP, "path": "/app/\ufffd", "raw_path": b"/app/%FF"}, (), (START, BODY)),
    Talk({**HTTP, "path": "*", "raw_path": b"*", "root_path": ""}, (), (START, BODY)),
    Talk({**HTTP, "root_path": "/app/é/"}, (), (START, BODY)),
    Talk({**HTTP, "extensions": None, "raw_path": None, "client": None}, (), (START, BODY)),
]


def told(talk: Talk, on_violation: Any = None, **options: Any) -> list[Violation]:
    """Hold a conversation; returns what lint said."""
    found: list[Violation] = []
    given = [*talk.given]

    async def app(scope: Event, receive: Any, send: Any) -> Any:
        for step in talk.steps:
            if step is R:
                await receive()
            else:
                await send(step)
        return talk.result

    async def receive() -> Event:
        event: Event = given.pop(0)
        return event

    async def send(event: Event) -> None:
        pass

    run(lint(app, on_violation=on_violation or found.append, **options)(talk.scope, receive, send))
    return found


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def names(found: list[Violation]) -> list[str]:
    return [violation.rule for violation in found]


@pytest.mark.parametrize("talk", RIGHT, ids=range(len(RIGHT)))
def test_a_right_conversation_breaks_no_rule(talk: Talk) -> None:
    assert told(talk) == []


# ---------------------------------------------------------------- shapes

FLAWED: dict[str, Any] = {
    "": object(),
    "lower-case": [(b"Name", b"")],
    "pseudo": [(b":path", b"")],
    "final": 103,
    "subprotocol": [(b"sec-websocket-protocol", b"v1")],
}
"""A value that is flawed in an aspect."""


def flawed(shape: Shape, value: Event) -> Iterator[tuple[str, Event]]:
    """*value*, once for each way in which it can be wrong, with the rule."""
    for key in shape.keys:
        rule = f"{shape.name}.{key.name}"
        for aspect in ("", *key.kind.aspects):
            yield f"{rule}.{aspect}" if aspect else rule, {**value, key.name: FLAWED[aspect]}
        if not key.none:
            yield rule, {**value, key.name: None}
        if key.required:
            yield rule, {name: there for name, there in value.items() if name != key.name}


def wrong_shapes() -> Iterator[tuple[str, Talk]]:
    for talk in (RIGHT[0], RIGHT[9], RIGHT[15]):
        for rule, scope in flawed(SCOPES[talk.scope["type"]], talk.scope):
            yield rule, talk._replace(scope=scope)
    for rule, asgi in flawed(ASGI_KEYS, HTTP["asgi"]):
        yield rule, RIGHT[0]._replace(scope={**HTTP, "asgi": asgi})
    for rule, tls in flawed(TLS, TLS_12):
        yield rule, RIGHT[0]._replace(scope={**HTTP, "extensions": {"tls": tls}})
    seen = set()
    for talk in RIGHT[:18]:
        kind = talk.scope["type"]
        for field, shapes in (("given", RECEIVE), ("steps", SEND)):
            events = getattr(talk, field)
            for place, event in enumerate(events):
                shape = shapes.get(kind, {}).get(event["type"]) if event is not R else None
                if shape is not None and shape.name not in seen:
                    seen.add(shape.name)
                    for rule, other in flawed(shape, event):
                        changed = (*events[:place], other, *events[place + 1 :])
                        yield rule, talk._replace(**{field: changed})
    expected = {name for tables in (RECEIVE, SEND) for table in tables.values() for name in table}
    assert seen == expected, "a right conversation for every event"


WRONG_SHAPES = [*wrong_shapes()]


@pytest.mark.parametrize(
    ("rule", "talk"), WRONG_SHAPES, ids=[f"{rule}-{i}" for i, (rule, _) in enumerate(WRONG_SHAPES)]
)
def test_a_wrong_shape_is_told(rule: str, talk: Talk) -> None:
    found = told(talk)
    assert names(found)[:1] == [rule]
    assert found[0].message.startswith("`")
    assert (found[0].side, found[0].section) == (RULES[rule].side, RULES[rule].section)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("http_version", "2.0"),
        ("method", "get"),
        ("method", ""),
        ("scheme", ""),
        ("path", b"/"),
        ("headers", {b"a": b"b"}),
        ("headers", b"ab"),
        ("headers", [(b"a", b"b", b"c")]),
        ("headers", [("a", "b")]),
        ("headers", [b"ab"]),
        ("client", ("host", "80")),
        ("client", ("host", None)),
        ("client", ("host",)),
        ("client", "ab"),
        ("server", (b"host", 80)),
        ("server", ("host", True)),
        ("extensions", {"x": None}),
        ("extensions", ["x"]),
        ("query_string", "a=b"),
    ],
)
def test_wrong_values_of_a_scope(key: str, value: Any) -> None:
    assert names(told(Talk({**HTTP, key: value}, (), (START, BODY))))[0] == f"scope.http.{key}"


@pytest.mark.parametrize(
    ("event", "key", "value"),
    [
        (START, "status", "200"),
        (START, "status", True),
        (START, "status", 200.0),
        (START, "headers", [("a", "b")]),
        (START, "trailers", 1),
        (BODY, "body", "text"),
        (BODY, "body", bytearray()),
        (BODY, "more_body", None),
        (PATH, "path", "relative"),
        (COPY, "offset", -1),
        (COPY, "file", b"name"),
        (HINT, "links", "</a>"),
        (HINT, "links", ["</a>"]),
    ],
)
def test_wrong_values_of_an_event(event: Event, key: str, value: Any) -> None:
    order = {"http.response.start": (), "http.response.early_hint": ()}
    before = order.get(event["type"], (START,))
    found = told(Talk(HTTP, (), (*before, {**event, key: value})))
    assert names(found)[0] == f"{event['type']}.{key}"


@pytest.mark.parametrize("status", [200, 304, 599, 999])
def test_final_statuses_are_right(status: int) -> None:
    assert told(Talk(HTTP, (), ({**START, "status": status}, BODY))) == []


@pytest.mark.parametrize(
    "scope",
    [
        # The client used http, and a trusted proxy TLS.
        {**HTTP, "scheme": "http"},
        # The server as a whole is below no root path.
        {**HTTP, "method": "OPTIONS", "path": "*", "raw_path": b"*"},
    ],
)
def test_unusual_scopes_are_right(scope: Event) -> None:
    assert told(Talk(scope, (), (START, BODY))) == []


# ---------------------------------------------------------------- beyond shape

WITHOUT = {**HTTP, "extensions": {}}
ENDED = "http.response.body.after-end"

BEYOND: list[tuple[str, Talk]] = [
    ("scope.dict", Talk(None, (), ())),
    ("scope.type", Talk({}, (), ())),
    ("scope.type", Talk({"type": b"http"}, (), ())),
    ("scope.asgi.version.three", Talk({**HTTP, "asgi": {"version": "2.0"}}, (), (START, BODY))),
    ("scope.path.decoded", Talk({**HTTP, "path": "/app/%C3%A9"}, (), (START, BODY))),
    ("scope.path.root_path", Talk({**HTTP, "root_path": "/ap"}, (), (START, BODY))),
    ("scope.raw_path.query", Talk({**HTTP, "raw_path": b"/app/%C3%A9?a"}, (), (START, BODY))),
    (
        "scope.tls.client_cert_name.chain",
        Talk(
            {**HTTP, "extensions": {"tls": {**TLS_12, "client_cert_name": None}}}, (), (START, BODY)
        ),
    ),
    ("receive.event", Talk(HTTP, (None,), (R, START, BODY))),
    ("receive.event", Talk(HTTP, ({"type": 1},), (R, START, BODY))),
    ("receive.unknown", Talk(HTTP, (CONNECT,), (R, START, BODY))),
    ("receive.after-disconnect", Talk(HTTP, (GONE, REQUEST), (R, R))),
    ("receive.after-disconnect", Talk(WEBSOCKET, (CONNECT, LOST, TEXT), (R, ACCEPT, R, R))),
    ("http.request.after-end", Talk(HTTP, (REQUEST, REQUEST), (R, R, START, BODY))),
    ("websocket.connect.first", Talk(WEBSOCKET, (TEXT,), (ACCEPT, R))),
    ("websocket.connect.first", Talk(WEBSOCKET, (LOST,), (R,))),
    ("websocket.connect.first", Talk(WEBSOCKET, (CONNECT, CONNECT), (R, R, CLOSE))),
    ("websocket.receive.before-accept", Talk(WEBSOCKET, (CONNECT, TEXT), (R, R, ACCEPT))),
    ("websocket.receive.before-accept", Talk(WEBSOCKET, (CONNECT, TEXT), (R, CLOSE, R))),
    ("websocket.receive.content", Talk(WEBSOCKET, (CONNECT, NOTHING), (R, ACCEPT, R))),
    ("websocket.receive.content", Talk(WEBSOCKET, (CONNECT, BOTH), (R, ACCEPT, R))),
    ("lifespan.startup.first", Talk(LIFESPAN, (DOWN,), (R, DOWN_OK))),
    ("lifespan.startup.first", Talk(LIFESPAN, (UP, UP), (R, R, UP_FAILED))),
    ("lifespan.shutdown.order", Talk(LIFESPAN, (UP, DOWN), (R, R, DOWN_OK))),
    ("lifespan.shutdown.order", Talk(LIFESPAN, (UP, DOWN), (R, UP_FAILED, R))),
    ("lifespan.shutdown.order", Talk(LIFESPAN, (UP, DOWN, DOWN), (R, UP_OK, R, R, DOWN_OK))),
    ("send.event", Talk(HTTP, (), (None, START, BODY))),
    ("send.event", Talk(HTTP, (), ({"status": 200}, START, BODY))),
    ("send.unknown", Talk(HTTP, (), (ACCEPT, START, BODY))),
    ("send.unknown", Talk(LIFESPAN, (UP,), (R, UP_FAILED, START))),
    *[
        ("send.extension", Talk(WITHOUT, (), steps))
        for steps in (
            (DEBUG, START, BODY),
            (HINT, START, BODY),
            (START, PUSH, BODY),
            (START, COPY_MORE, BODY),
            (START, PATH),
        )
    ],
    ("send.extension", Talk({**WEBSOCKET, "extensions": None}, (), (DENY, DENY_BODY))),
    *[
        ("http.response.start.first", Talk(HTTP, (), (event, START, BODY)))
        for event in (MORE, COPY_MORE)
    ],
    *[
        ("http.response.start.once", Talk(HTTP, (), steps))
        for steps in ((START, START, BODY), (START, MORE, START, BODY), (START, BODY, START))
    ],
    ("http.response.start.missing", Talk(HTTP, (REQUEST,), (R,))),
    ("http.response.start.missing", Talk(HTTP, (REQUEST,), (R, HINT))),
    ("http.response.start.trailers.offered", Talk(WITHOUT, (), (TRAILED, BODY))),
    *[
        (ENDED, Talk(HTTP, (), (START, BODY, event)))
        for event in (BODY, COPY, PATH, PUSH, HINT, DEBUG)
    ],
    (ENDED, Talk(HTTP, (), (TRAILED, BODY, BODY, TRAILERS))),
    (ENDED, Talk(HTTP, (), (TRAILED, BODY, TRAILERS, TRAILERS))),
    ("http.response.body.missing", Talk(HTTP, (), (START,))),
    ("http.response.body.missing", Talk(HTTP, (REQUEST,), (R, START, MORE))),
    ("http.response.trailers.announced", Talk(HTTP, (), (START, BODY, TRAILERS))),
    ("http.response.trailers.order", Talk(HTTP, (), (TRAILED, TRAILERS, BODY))),
    ("http.response.trailers.order", Talk(HTTP, (), (TRAILERS, START, BODY))),
    ("http.response.trailers.missing", Talk(HTTP, (), (TRAILED, BODY))),
    ("http.response.trailers.missing", Talk(HTTP, (), (TRAILED, BODY, MORE_TRAILERS))),
    ("http.response.push.order", Talk(HTTP, (), (PUSH, START, BODY))),
    ("http.response.pathsend.order", Talk(HTTP, (), (START, MORE, PATH))),
    ("http.response.pathsend.order", Talk(HTTP, (GONE,), (R, PATH))),
    ("http.response.debug.order", Talk(HTTP, (), (START, DEBUG, BODY))),
    ("http.response.debug.order", Talk(HTTP, (), (DEBUG, DEBUG, START, BODY))),
    ("websocket.accept.once", Talk(WEBSOCKET, (CONNECT,), (R, ACCEPT, ACCEPT))),
    (
        "websocket.accept.subprotocol.offered",
        Talk(WEBSOCKET, (CONNECT,), (R, {**ACCEPT, "subprotocol": "v2"})),
    ),
    ("websocket.send.content", Talk(WEBSOCKET, (), (ACCEPT, {"type": "websocket.send"}))),
    ("websocket.send.content", Talk(WEBSOCKET, (), (ACCEPT, {**SAY, "text": ""}))),
    ("websocket.send.before-accept", Talk(WEBSOCKET, (CONNECT,), (R, SAY, ACCEPT))),
    *[
        ("websocket.close.code.sendable", Talk(WEBSOCKET, (), (ACCEPT, {**CLOSE, "code": code})))
        for code in (0, 999, 1004, 1005, 1006, 1015, 5000)
    ],
    (
        "websocket.close.reason.length",
        Talk(WEBSOCKET, (), (ACCEPT, {**CLOSE, "reason": "é" * 62})),
    ),
    *[
        ("websocket.close.last", Talk(WEBSOCKET, (), (ACCEPT, CLOSE, event)))
        for event in (ACCEPT, SAY, CLOSE, DENY, DENY_BODY)
    ],
    ("websocket.close.last", Talk(WEBSOCKET, (), (CLOSE, SAY))),
    ("websocket.close.last", Talk(WEBSOCKET, (), (DENY, DENY_BODY, DENY_BODY))),
    ("websocket.unanswered", Talk(WEBSOCKET, (CONNECT,), (R,))),
    *[
        ("websocket.http.response.order", Talk(WEBSOCKET, (), (DENY, event, DENY_BODY)))
        for event in (ACCEPT, SAY, CLOSE, DENY)
    ],
    ("websocket.http.response.order", Talk(WEBSOCKET, (), (DENY_MORE, CLOSE))),
    ("websocket.http.response.order", Talk(WEBSOCKET, (), (ACCEPT, DENY, DENY_BODY))),
    ("websocket.http.response.missing", Talk(WEBSOCKET, (), (DENY,))),
    ("websocket.http.response.missing", Talk(WEBSOCKET, (), (DENY, DENY_MORE))),
    ("lifespan.startup.answer", Talk(LIFESPAN, (UP, DOWN), (UP_OK, R, R, DOWN_OK))),
    ("lifespan.startup.answer", Talk(LIFESPAN, (UP, DOWN), (R, UP_OK, UP_OK, R, DOWN_OK))),
    ("lifespan.startup.answer", Talk(LIFESPAN, (UP,), (R, UP_FAILED, UP_OK))),
    ("lifespan.startup.unanswered", Talk(LIFESPAN, (), ())),
    ("lifespan.startup.unanswered", Talk(LIFESPAN, (UP,), (R,))),
    ("lifespan.shutdown.answer", Talk(LIFESPAN, (UP,), (R, UP_OK, DOWN_OK))),
    ("lifespan.shutdown.answer", Talk(LIFESPAN, (UP, DOWN), (R, UP_OK, R, DOWN_OK, DOWN_FAILED))),
    ("lifespan.shutdown.unanswered", Talk(LIFESPAN, (UP, DOWN), (R, UP_OK, R))),
    ("lifespan.shutdown.unanswered", Talk(LIFESPAN, (UP,), (R, UP_OK))),
    ("application.result", Talk(HTTP, (), (START, BODY), "a response")),
]  # fmt: skip

ELSEWHERE = {
    "scope.state.copied",
    "send.disconnected",
    "application.awaitable",
    "application.returned",
    "application.scope",
    "application.unknown-scope",
    "application.cancelled",
}
"""Rules that more than a script breaks; each has a test of its own below."""


@pytest.mark.parametrize(
    ("rule", "talk"), BEYOND, ids=[f"{rule}-{i}" for i, (rule, _) in enumerate(BEYOND)]
)
def test_a_broken_rule_is_told_and_no_other(rule: str, talk: Talk) -> None:
    (violation, *others) = told(talk)
    assert violation.rule == rule
    # A message that is out of place moves the order on; what follows may be another's matter.
    assert all(other.side == violation.side for other in others)
    assert violation.message.startswith(RULES[rule].text)


def test_every_rule_is_broken_by_some_test() -> None:
    assert {rule for rule, _ in (*WRONG_SHAPES, *BEYOND)} | ELSEWHERE == RULES.keys()


HTTP_EVENTS = (START, MORE, BODY, COPY, PATH, PUSH, HINT, DEBUG, TRAILERS)
WEBSOCKET_EVENTS = (ACCEPT, SAY, CLOSE, DENY, DENY_BODY)
LIFESPAN_EVENTS = (UP_OK, UP_FAILED, DOWN_OK, DOWN_FAILED)


@pytest.mark.parametrize(
    ("start", "before", "events", "in_order"),
    [
        # The client has left, so that nothing has to be finished.
        (Talk(HTTP, (GONE,), (R,)), (), HTTP_EVENTS, (START, HINT, DEBUG)),
        (Talk(HTTP, (GONE,), (R,)), (START,), HTTP_EVENTS, (MORE, BODY, COPY, PATH, PUSH, HINT)),
        (Talk(HTTP, (GONE,), (R,)), (START, MORE), HTTP_EVENTS, (MORE, BODY, COPY, PUSH, HINT)),
        (Talk(HTTP, (GONE,), (R,)), (TRAILED, MORE), HTTP_EVENTS, (MORE, BODY, COPY, PUSH, HINT)),
        (Talk(HTTP, (GONE,), (R,)), (TRAILED, BODY), HTTP_EVENTS, (TRAILERS,)),
        (Talk(HTTP, (GONE,), (R,)), (START, BODY), HTTP_EVENTS, ()),
        (Talk(WEBSOCKET, (CONNECT, LOST), (R, R)), (), WEBSOCKET_EVENTS, (ACCEPT, CLOSE, DENY)),
        (Talk(WEBSOCKET, (CONNECT, LOST), (R, R)), (ACCEPT,), WEBSOCKET_EVENTS, (SAY, CLOSE)),
        (Talk(WEBSOCKET, (CONNECT, LOST), (R, R)), (DENY,), WEBSOCKET_EVENTS, (DENY_BODY,)),
        (Talk(WEBSOCKET, (CONNECT, LOST), (R, R)), (CLOSE,), WEBSOCKET_EVENTS, ()),
        (Talk(LIFESPAN, (), ()), (), LIFESPAN_EVENTS, ()),
        (Talk(LIFESPAN, (UP,), (R,)), (), LIFESPAN_EVENTS, (UP_OK, UP_FAILED)),
        (Talk(LIFESPAN, (UP, DOWN), (R,)), (UP_OK,), LIFESPAN_EVENTS, ()),
        (Talk(LIFESPAN, (UP, DOWN), (R,)), (UP_OK, R), LIFESPAN_EVENTS, (DOWN_OK, DOWN_FAILED)),
        (Talk(LIFESPAN, (UP, DOWN), (R,)), (UP_OK, R, DOWN_OK), LIFESPAN_EVENTS, ()),
    ],
)
def test_every_event_has_its_phases(
    start: Talk, before: Steps, events: Steps, in_order: Steps
) -> None:
    for event in events:
        found = told(start._replace(steps=(*start.steps, *before, event)))
        found = [one for one in found if not one.rule.endswith("unanswered")]
        assert (found == []) is (event in in_order), event["type"]


def test_the_state_of_requests_is_a_copy_of_the_lifespans() -> None:
    found: list[Violation] = []
    states: list[Event] = [{"pool": 1}]

    async def app(scope: Event, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise LookupError
        await send(START)
        await send(BODY)

    async def nothing(*_: Any) -> Any: ...

    linted = lint(app, on_violation=found.append)
    with pytest.raises(LookupError):
        run(linted({**LIFESPAN, "state": states[0]}, nothing, nothing))
    run(linted({**HTTP, "state": states[0].copy()}, nothing, nothing))
    assert found == []
    run(linted({**HTTP, "state": states[0]}, nothing, nothing))
    assert names(found) == ["scope.state.copied"]


def test_a_server_raises_an_os_error_once_the_client_is_gone() -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        await receive()
        await send(START)

    async def receive() -> Event:
        return GONE

    found: list[Violation] = []
    for error in (OSError, ConnectionResetError, RuntimeError):

        async def send(event: Event, error: type[Exception] = error) -> None:
            raise error

        with pytest.raises(error):
            run(lint(app, on_violation=found.append)(HTTP, receive, send))
        assert names(found) == ["send.disconnected"] * (error is RuntimeError)


def test_who_met_an_os_error_need_not_finish() -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        await send(START)
        with suppress(OSError):
            await send(MORE)

    async def send(event: Event) -> None:
        if event is MORE:
            raise ConnectionResetError

    found: list[Violation] = []
    run(lint(app, on_violation=found.append)(HTTP, None, send))  # type: ignore[arg-type]
    assert found == []


def test_what_the_server_refused_was_not_sent() -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        with suppress(ValueError):
            await send({**START, "status": 999})
        await send(START)
        await send(BODY)

    async def send(event: Event) -> None:
        if event.get("status") == 999:
            raise ValueError

    run(lint(app)(HTTP, None, send))  # type: ignore[arg-type]


def test_an_application_is_awaitable() -> None:
    def app(scope: Event, receive: Any, send: Any) -> Any:
        return "a response"

    with pytest.raises(ASGILintError, match="must return an awaitable"):
        run(lint(app)(HTTP, None, None))  # type: ignore[arg-type]


def test_receive_and_send_are_not_used_after_the_return() -> None:
    kept: list[Any] = []

    async def app(scope: Event, receive: Any, send: Any) -> None:
        kept.extend([receive, send])
        await send(START)
        await send(BODY)

    async def receive() -> Event:
        return GONE

    async def send(event: Event) -> None: ...

    found: list[Violation] = []
    run(lint(app, on_violation=found.append)(HTTP, receive, send))
    assert found == []
    assert run(kept[0]()) is GONE
    run(kept[1](BODY))
    assert names(found)[:2] == ["application.returned", "application.returned"]


def test_a_scope_is_changed_in_a_copy() -> None:
    def changes(change: Callable[[Event], object]) -> list[str]:
        async def app(scope: Event, receive: Any, send: Any) -> None:
            change(scope)
            await send(START)
            await send(BODY)

        async def send(event: Event) -> None: ...

        found: list[Violation] = []
        scope = {**HTTP, "headers": [*PAIRS]}
        run(lint(app, on_violation=found.append)(scope, None, send))  # type: ignore[arg-type]
        return [f"{one.rule} {one.message.rpartition('; ')[2]}" for one in found]

    assert changes(lambda scope: scope.update(path="/x", root_path="/y")) == [
        "application.scope `path` changed",
        "application.scope `root_path` changed",
    ]
    assert changes(lambda scope: scope["headers"].pop()) == ["application.scope `headers` changed"]
    assert changes(lambda scope: scope.pop("client")) == ["application.scope `client` changed"]
    # What the specification does not know is a framework's own, and `state` is for all.
    assert changes(lambda scope: scope.update(app=1, user=2, state={"a": 1})) == []
    assert changes(lambda scope: {**scope}.update(path="/x")) == []


def test_an_unknown_scope_is_raised_for_if_asked() -> None:
    async def good(scope: Event, receive: Any, send: Any) -> None:
        types.append(scope["type"])
        if scope["type"] != "http":
            raise ValueError(scope["type"])
        await send(START)
        await send(BODY)

    async def listens(scope: Event, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await receive()
        await good(scope, receive, send)

    async def answers(scope: Event, receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)

    async def returns(scope: Event, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await answers(scope, receive, send)

    async def send(event: Event) -> None: ...

    types: list[str] = []
    for app, message in (
        (good, None),
        (listens, "it called receive()"),
        (answers, "it sent {'type': 'http.response.start'"),
        (returns, "it returned"),
    ):
        found: list[Violation] = []
        linted = lint(app, on_violation=found.append, probe=True)
        for _ in range(2):
            run(linted(HTTP, None, send))  # type: ignore[arg-type]
        assert names(found) == ["application.unknown-scope"] * (message is not None)
        assert message is None or f"; {message}" in found[0].message
    assert types[:3] == ["omnicorn.lint.probe", "http", "http"]


def test_a_swallowed_cancellation_is_told() -> None:
    async def swallows(scope: Event, receive: Any, send: Any) -> None:
        with suppress(asyncio.CancelledError):
            await receive()

    async def lets_through(scope: Event, receive: Any, send: Any) -> None:
        await receive()

    async def cancels_its_own(scope: Event, receive: Any, send: Any) -> None:
        listening = asyncio.create_task(receive())
        await asyncio.sleep(0)
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        with suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await receive()
        await send(START)
        await send(BODY)

    async def send(event: Event) -> None: ...

    async def main(app: Any, cancel: bool) -> list[str]:
        async def receive() -> Event:
            waiting.set()
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        waiting = asyncio.Event()
        found: list[Violation] = []
        task = asyncio.ensure_future(lint(app, on_violation=found.append)(HTTP, receive, send))
        await waiting.wait()
        if cancel:
            task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled() is (app is lets_through)
        return names(found)

    assert asyncio.run(main(swallows, True)) == ["application.cancelled"]
    assert asyncio.run(main(lets_through, True)) == []
    assert asyncio.run(main(cancels_its_own, False)) == []


# ---------------------------------------------------------------- telling


def test_a_violation_says_what_where_and_whose() -> None:
    (violation,) = told(Talk(HTTP, (), ({**START, "status": "200"}, BODY)))
    assert violation == Violation(
        rule="http.response.start.status",
        side="application",
        level="must",
        section="HTTP & WebSocket 2.5, Response Start - send event",
        message="`status` must be an int, got '200'",
        where="http GET /app/é",
    )
    assert str(violation) == (
        "HTTP & WebSocket 2.5, Response Start - send event: `status` must be an int, got '200' "
        "[application, http.response.start.status, http GET /app/é]"
    )


def test_a_violation_is_raised_to_whom_it_concerns() -> None:
    with pytest.raises(ASGILintError, match="`status` must be an int") as caught:
        told(Talk(HTTP, (), ({**START, "status": "200"},)), "raise")
    assert caught.value.violation.side == "application"
    assert isinstance(caught.value, AssertionError)


def test_what_is_raised_is_not_passed_on() -> None:
    passed: list[Any] = []

    async def app(scope: Event, receive: Any, send: Any) -> None:
        passed.append("called")
        for call in (receive, lambda: send({**START, "status": "200"})):
            with pytest.raises(ASGILintError):
                await call()
        raise LookupError("it gave up")

    async def receive() -> Event:
        return {"type": "http.request", "body": "text"}

    async def send(event: Event) -> None:
        passed.append(event)

    with pytest.raises(LookupError):
        run(lint(app)(HTTP, receive, send))
    assert passed == ["called"]
    with pytest.raises(ASGILintError):
        run(lint(app)({**HTTP, "method": None}, receive, send))
    assert passed == ["called"]


def test_a_swallowed_error_comes_again() -> None:
    async def app(scope: Event, receive: Any, send: Any) -> None:
        with suppress(Exception):
            await send({**START, "status": "200"})
        await send(START)
        await send(BODY)

    async def send(event: Event) -> None: ...

    with pytest.raises(ASGILintError, match="`status` must be an int"):
        run(lint(app)(HTTP, None, send))  # type: ignore[arg-type]


def test_what_is_only_recommended_is_a_warning() -> None:
    scope = {**HTTP, "headers": [(b"Host", b"x")]}
    with pytest.warns(ASGILintWarning, match="names in lower case") as caught:
        told(Talk(scope, (), (START, BODY)), "raise")
    warning = caught[0].message
    assert isinstance(warning, ASGILintWarning)
    assert warning.violation.level == "should"


def test_violations_may_all_be_warnings() -> None:
    with pytest.warns(ASGILintWarning) as caught:
        told(Talk({**HTTP, "method": "get"}, (), ({**START, "status": "200"}, BODY)), "warn")
    sections = [str(one.message).partition(":")[0] for one in caught]
    assert sections == [
        "HTTP & WebSocket 2.5, HTTP Connection Scope",
        "HTTP & WebSocket 2.5, Response Start - send event",
    ]


def test_on_violation_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="'raise', 'warn' or a callable, not 'ignore'"):
        told(RIGHT[0], "ignore")


def test_rules_may_be_ignored() -> None:
    talk = Talk({**HTTP, "method": "get"}, (), ({**START, "status": "200"}, BODY))
    assert names(told(talk, ignore=["scope.http.method"])) == ["http.response.start.status"]
    with pytest.raises(ValueError, match=r"no rule has the name scope.method; they are in "):
        told(talk, ignore=["scope.method"])


# ---------------------------------------------------------------- nothing else happens


def test_everything_passes_as_it_is() -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> object:
        assert scope is HTTP
        assert await receive() is REQUEST
        assert await send(START) is result
        assert await send(BODY) is result
        return None

    async def receive() -> Event:
        return REQUEST

    async def send(event: Event) -> object:
        sent.append(event)
        return result

    result = object()
    run(lint(app)(HTTP, receive, send))
    assert sent[0] is START and sent[1] is BODY


def test_iterators_are_not_used_up() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])
        await send({**HINT, "links": iter([b"</a>"])})
        await send({**START, "headers": (pair for pair in PAIRS)})
        await send(BODY)

    async def send(event: Event) -> None:
        seen.append([*event.get("headers", ()), *event.get("links", ())])

    found: list[Violation] = []
    linted = lint(app, on_violation=found.append)
    run(linted({**HTTP, "headers": iter(PAIRS)}, None, send))  # type: ignore[arg-type]
    assert seen == [*PAIRS, [b"</a>"], PAIRS, []]
    assert found == []


def test_exceptions_pass() -> None:
    class Odd(BaseException):
        pass

    for error in (LookupError("x"), Odd("x")):

        async def app(scope: Any, receive: Any, send: Any, error: BaseException = error) -> None:
            raise error

        async def uses(scope: Any, receive: Any, send: Any) -> None:
            await send(START)

        async def send(event: Event, error: BaseException = error) -> None:
            raise error

        for application in (app, uses):
            with pytest.raises(type(error)) as caught:
                run(lint(application)(HTTP, None, send))  # type: ignore[arg-type]
            assert caught.value is error


def test_cancellation_passes_on_trio() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def main() -> None:
        with trio.move_on_after(0) as cancelled:
            await lint(app)(HTTP, trio.sleep_forever, None)  # type: ignore[arg-type]
        assert cancelled.cancelled_caught

    trio.run(main)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 10**4)
    | st.sampled_from(["", "x", "http", "/é", "3.0"])
    | st.sampled_from([b"", b"/%C3%A9", b"Name"]),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=4,
)


def mangled(*samples: Any) -> st.SearchStrategy[Any]:
    """One of the samples with one value replaced or dropped; or something else altogether."""

    def mangle(sample: Event) -> st.SearchStrategy[Any]:
        keys = st.sampled_from([*sample])
        return st.one_of(
            st.just(sample),
            st.builds(lambda key, value: {**sample, key: value}, keys, VALUES),
            st.builds(lambda key: {k: v for k, v in sample.items() if k != key}, keys),
            VALUES,
        )

    return st.sampled_from(samples).flatmap(mangle)


@given(
    mangled(HTTP, WEBSOCKET, LIFESPAN),
    st.lists(mangled(REQUEST, GONE, CONNECT, TEXT, LOST, UP, DOWN), max_size=6),
    st.lists(
        st.just(R)
        | mangled(START, TRAILED, MORE, BODY, HINT, DEBUG, PUSH, COPY, PATH, TRAILERS)
        | mangled(ACCEPT, SAY, CLOSE, DENY, DENY_BODY, UP_OK, UP_FAILED, DOWN_OK, DOWN_FAILED),
        max_size=8,
    ),
)
def test_whatever_happens_lint_only_tells(scope: Any, given: list[Any], steps: list[Any]) -> None:
    steps = [
        step for i, step in enumerate(steps) if step is not R or steps[:i].count(R) < len(given)
    ]
    told(Talk(scope, tuple(given), tuple(steps)))
    with warnings.catch_warnings(), suppress(ASGILintError):
        warnings.simplefilter("ignore", ASGILintWarning)
        told(Talk(scope, tuple(given), tuple(steps)), "raise")


@given(st.data())
def test_whatever_keeps_to_the_grammar_is_right(data: st.DataObject) -> None:
    def some(*events: Event) -> list[Event]:
        drawn: list[Event] = data.draw(st.lists(st.sampled_from(events), max_size=3))
        return drawn

    def some_of(*choices: list[Event]) -> list[Event]:
        chosen: list[Event] = data.draw(st.sampled_from(choices))
        return chosen

    trailed = data.draw(st.booleans())
    steps = [
        *some(HINT),
        *some_of([], [DEBUG]),
        *some(HINT),
        TRAILED if trailed else START,
        *some_of([PATH], [BODY], [COPY], [*some(MORE, COPY_MORE, PUSH, HINT), BODY]),
        *([*some(MORE_TRAILERS), TRAILERS] if trailed else []),
    ]
    assert told(Talk(HTTP, (), tuple(steps))) == []
