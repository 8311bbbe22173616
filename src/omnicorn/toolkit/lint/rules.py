"""Every rule that is checked, as data: the shapes of scopes and events, and what is beyond shape.

What this file alone decides: which rules there are, whom each one binds, how strictly, and the
section of the specification it comes from. It is the specification read as tables; the code
that walks them is `shapes` and `order`.

1. A rule's name is that of an event or ``scope.TYPE``, then the key or the matter.
2. Keys that no table lists are never an error, in either direction (ASGI 3.0, Error Handling).
3. "should" is what the specification recommends, and nothing stricter than it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from omnicorn.toolkit.lint import kinds

if TYPE_CHECKING:
    from omnicorn.toolkit.lint.kinds import Kind
    from omnicorn.toolkit.lint.violations import Level, Side

ASGI = "ASGI 3.0, "
WWW = "HTTP & WebSocket 2.5, "
LIFESPAN = "Lifespan 2.0, "
EXTENSION = "ASGI Extensions, "


class Key(NamedTuple):
    """A key of a scope or an event.

    Attributes:
        name: The key.
        kind: What its value is.
        required: It may not be missing.
        none: Its value may be None.
        shoulds: The aspects of *kind* that are only recommended here.
    """

    name: str
    kind: Kind
    required: bool = False
    none: bool = False
    shoulds: tuple[str, ...] = ()


class Shape(NamedTuple):
    """A scope or an event.

    Attributes:
        name: What its rules' names begin with; of an event, its type.
        section: Where the specification describes it.
        keys: Its keys, without ``type``.
        extension: What must be offered for it, if not only the specification.
    """

    name: str
    section: str
    keys: tuple[Key, ...] = ()
    extension: str | None = None


# ---------------------------------------------------------------- scopes

ASGI_KEYS = Shape(
    "scope.asgi",
    ASGI + "Applications",
    (
        Key("version", kinds.STR, required=True),
        Key("spec_version", kinds.SPEC_VERSION),
    ),
)

_COMMON = (
    Key("asgi", kinds.DICT, required=True),
    Key("scheme", kinds.TEXT),
    Key("path", kinds.STR, required=True),
    Key("raw_path", kinds.BYTES, none=True),
    Key("root_path", kinds.STR),
    # "should be lower-cased, but is not required to be"
    Key("headers", kinds.HEADERS, required=True, shoulds=("lower-case",)),
    Key("client", kinds.CLIENT, none=True),
    Key("server", kinds.SERVER, none=True),
    Key("state", kinds.DICT),
    Key("extensions", kinds.EXTENSIONS, none=True),
)

SCOPES = {
    "http": Shape(
        "scope.http",
        WWW + "HTTP Connection Scope",
        (
            *_COMMON,
            Key("http_version", kinds.HTTP_VERSION, required=True),
            Key("method", kinds.METHOD, required=True),
            Key("query_string", kinds.BYTES, required=True),
        ),
    ),
    "websocket": Shape(
        "scope.websocket",
        WWW + "WebSocket Connection Scope",
        (
            *_COMMON,
            Key("http_version", kinds.HTTP_VERSION),
            Key("query_string", kinds.BYTES, none=True),
            Key("subprotocols", kinds.STRS),
        ),
    ),
    "lifespan": Shape(
        "scope.lifespan",
        LIFESPAN + "Scope",
        (Key("asgi", kinds.DICT, required=True), Key("state", kinds.DICT)),
    ),
}

TLS = Shape(
    "scope.tls",
    "TLS Extension 0.2",
    (
        Key("server_cert", kinds.STR, required=True, none=True),
        Key("client_cert_chain", kinds.STRS),
        Key("client_cert_name", kinds.STR, none=True),
        Key("client_cert_error", kinds.STR, none=True),
        Key("tls_version", kinds.UINT16, required=True, none=True),
        Key("cipher_suite", kinds.UINT16, required=True, none=True),
    ),
)

# ---------------------------------------------------------------- events

_BODY = (Key("body", kinds.BYTES), Key("more_body", kinds.BOOL))
_MESSAGE = (Key("bytes", kinds.BYTES, none=True), Key("text", kinds.STR, none=True))


def _shapes(*shapes: Shape) -> dict[str, Shape]:
    return {shape.name: shape for shape in shapes}


RECEIVE = {
    "http": _shapes(
        Shape("http.request", WWW + "Request - receive event", _BODY),
        Shape("http.disconnect", WWW + "Disconnect - receive event"),
    ),
    "websocket": _shapes(
        Shape("websocket.connect", WWW + "Connect - receive event"),
        Shape("websocket.receive", WWW + "Receive - receive event", _MESSAGE),
        Shape(
            "websocket.disconnect",
            WWW + "Disconnect - receive event",
            (Key("code", kinds.INT, required=True), Key("reason", kinds.STR, none=True)),
        ),
    ),
    "lifespan": _shapes(
        Shape("lifespan.startup", LIFESPAN + "Startup - receive event"),
        Shape("lifespan.shutdown", LIFESPAN + "Shutdown - receive event"),
    ),
}
"""What a server gives, by scope type."""

SEND = {
    "http": _shapes(
        Shape(
            "http.response.start",
            WWW + "Response Start - send event",
            (
                Key("status", kinds.STATUS, required=True),
                Key("headers", kinds.HEADERS),
                Key("trailers", kinds.BOOL),
            ),
        ),
        Shape("http.response.body", WWW + "Response Body - send event", _BODY),
        Shape(
            "http.response.push",
            EXTENSION + "HTTP/2 Server Push",
            (
                Key("path", kinds.STR, required=True),
                Key("headers", kinds.HEADERS, required=True),
            ),
            "http.response.push",
        ),
        Shape(
            "http.response.zerocopysend",
            EXTENSION + "Zero Copy Send",
            (
                Key("file", kinds.FILE, required=True),
                Key("offset", kinds.SIZE),
                Key("count", kinds.SIZE),
                Key("more_body", kinds.BOOL),
            ),
            "http.response.zerocopysend",
        ),
        Shape(
            "http.response.pathsend",
            EXTENSION + "Path Send",
            (Key("path", kinds.ABSOLUTE_PATH, required=True),),
            "http.response.pathsend",
        ),
        Shape(
            "http.response.early_hint",
            EXTENSION + "Early Hints",
            (Key("links", kinds.LINKS, required=True),),
            "http.response.early_hint",
        ),
        Shape(
            "http.response.trailers",
            EXTENSION + "HTTP Trailers",
            (
                Key("headers", kinds.HEADERS, required=True),
                Key("more_trailers", kinds.BOOL),
            ),
            "http.response.trailers",
        ),
        Shape(
            "http.response.debug",
            EXTENSION + "Debug",
            (Key("info", kinds.DICT, required=True),),
            "http.response.debug",
        ),
    ),
    "websocket": _shapes(
        Shape(
            "websocket.accept",
            WWW + "Accept - send event",
            (
                Key("subprotocol", kinds.STR, none=True),
                Key("headers", kinds.ACCEPT_HEADERS),
            ),
        ),
        Shape("websocket.send", WWW + "Send - send event", _MESSAGE),
        Shape(
            "websocket.close",
            WWW + "Close - send event",
            (Key("code", kinds.INT), Key("reason", kinds.STR, none=True)),
        ),
        Shape(
            "websocket.http.response.start",
            EXTENSION + "Websocket Denial Response",
            (Key("status", kinds.STATUS, required=True), Key("headers", kinds.HEADERS)),
            "websocket.http.response",
        ),
        Shape(
            "websocket.http.response.body",
            EXTENSION + "Websocket Denial Response",
            _BODY,
            "websocket.http.response",
        ),
    ),
    "lifespan": _shapes(
        Shape("lifespan.startup.complete", LIFESPAN + "Startup Complete - send event"),
        Shape(
            "lifespan.startup.failed",
            LIFESPAN + "Startup Failed - send event",
            (Key("message", kinds.STR),),
        ),
        Shape("lifespan.shutdown.complete", LIFESPAN + "Shutdown Complete - send event"),
        Shape(
            "lifespan.shutdown.failed",
            LIFESPAN + "Shutdown Failed - send event",
            (Key("message", kinds.STR),),
        ),
    ),
}
"""What an application sends, by scope type."""

EXTENSIONS = frozenset(
    shape.extension for shapes in SEND.values() for shape in shapes.values() if shape.extension
) | {"tls"}
"""The extensions of the specification. A private one may bring events that nobody here knows."""

SCOPE_KEYS = frozenset(key.name for shape in SCOPES.values() for key in shape.keys) - {"state"}
"""What only a server may set; ``state`` is the application's to fill."""


# ---------------------------------------------------------------- beyond shape


class Rule(NamedTuple):
    """A rule.

    Attributes:
        name: Its name.
        side: Whom it binds.
        level: How strictly.
        section: Where the specification has it.
        text: What it asks; "" for shapes, whose values say that better.
    """

    name: str
    side: Side
    level: Level
    section: str
    text: str = ""


_START = WWW + "Response Start - send event"
_RESPONSE = WWW + "Response Body - send event"
_TRAILERS = EXTENSION + "HTTP Trailers"
_DENIAL = EXTENSION + "Websocket Denial Response"
_SCOPE = ASGI + "Connection Scope"
_EVENTS = ASGI + "Events"
_ERRORS = ASGI + "Error Handling"
_APPLICATIONS = ASGI + "Applications"
_HTTP_SCOPE = WWW + "HTTP Connection Scope"
_CONNECT = WWW + "Connect - receive event"
_CLOSE = WWW + "Close - send event"

# fmt: off
_BEYOND: tuple[tuple[str, Side, Level, str, str], ...] = (
    # --- the server's scope
    ("scope.dict", "server", "must", _SCOPE, "the scope must be a dict"),
    ("scope.type", "server", "must", _SCOPE, "the scope must have a `type` that is a str"),
    ("scope.asgi.version.three", "server", "must", _APPLICATIONS,
     "an application that is called with scope, receive and send is called by version '3.0'"),
    ("scope.path.decoded", "server", "must", _HTTP_SCOPE,
     "`path` must be `raw_path` percent-decoded, then decoded as UTF-8"),
    ("scope.path.root_path", "server", "must", WWW + "WSGI Compatibility",
     "`path` must include `root_path`"),
    ("scope.raw_path.query", "server", "must", _HTTP_SCOPE,
     "`raw_path` must not include the query"),
    ("scope.state.copied", "server", "must", LIFESPAN + "Lifespan State",
     "`state` must be a copy of the lifespan's, not the same dict"),
    ("scope.tls.client_cert_name.chain", "server", "must", "TLS Extension 0.2",
     "`client_cert_name` must be given along with a `client_cert_chain`"),
    # --- the server's events
    ("receive.event", "server", "must", _EVENTS,
     "an event must be a dict with a `type` that is a str"),
    ("receive.unknown", "server", "must", ASGI + "Protocol Specifications",
     "the type of an event must be known in its scope"),
    ("receive.after-disconnect", "server", "must", WWW + "Disconnect - receive event",
     "nothing but a disconnect comes after a disconnect"),
    ("http.request.after-end", "server", "must", WWW + "Request - receive event",
     "no http.request comes after the one without more_body"),
    ("websocket.connect.first", "server", "must", _CONNECT,
     "websocket.connect comes first, and once"),
    ("websocket.receive.before-accept", "server", "must", _CONNECT,
     "websocket.receive comes after the application has sent websocket.accept"),
    ("websocket.receive.content", "server", "must", WWW + "Receive - receive event",
     "exactly one of `bytes` and `text` must not be None"),
    ("lifespan.startup.first", "server", "must", LIFESPAN + "Startup - receive event",
     "lifespan.startup comes first, and once"),
    ("lifespan.shutdown.order", "server", "must", LIFESPAN + "Shutdown - receive event",
     "lifespan.shutdown comes once, after lifespan.startup.complete"),
    ("send.disconnected", "server", "should", WWW + "Disconnected send exception",
     "send() should raise an OSError once the client is gone"),
    # --- the application's events
    ("send.event", "application", "must", _EVENTS,
     "an event must be a dict with a `type` that is a str"),
    ("send.unknown", "application", "must", ASGI + "Protocol Specifications",
     "the type of an event must be known in its scope"),
    ("send.extension", "application", "must", ASGI + "Extensions",
     "an extension may be used only where the scope's `extensions` offer it"),
    ("http.response.start.first", "application", "must", _START,
     "http.response.start comes before the content"),
    ("http.response.start.once", "application", "must", _START, "a response starts once"),
    ("http.response.start.missing", "application", "must", _START,
     "the application must send a response before it returns"),
    ("http.response.start.trailers.offered", "application", "must", _TRAILERS,
     "`trailers` may be true only where http.response.trailers is offered"),
    ("http.response.body.after-end", "application", "must", _RESPONSE,
     "nothing follows the end of a response"),
    ("http.response.body.missing", "application", "must", _RESPONSE,
     "the application must end its response before it returns"),
    ("http.response.trailers.announced", "application", "must", _TRAILERS,
     "trailers must be announced by `trailers` in http.response.start"),
    ("http.response.trailers.order", "application", "must", _TRAILERS,
     "trailers come after the whole body"),
    ("http.response.trailers.missing", "application", "must", _TRAILERS,
     "the application must send the trailers it announced before it returns"),
    ("http.response.push.order", "application", "must", EXTENSION + "HTTP/2 Server Push",
     "http.response.push comes after http.response.start"),
    ("http.response.pathsend.order", "application", "must", EXTENSION + "Path Send",
     "http.response.pathsend is the whole body"),
    ("http.response.debug.order", "application", "must", EXTENSION + "Debug",
     "http.response.debug comes once, before http.response.start"),
    ("websocket.accept.once", "application", "must", WWW + "Accept - send event",
     "a WebSocket is accepted once"),
    ("websocket.accept.subprotocol.offered", "application", "must", WWW + "Accept - send event",
     "`subprotocol` must be one of the scope's `subprotocols`"),
    ("websocket.send.content", "application", "must", WWW + "Send - send event",
     "exactly one of `bytes` and `text` must not be None"),
    ("websocket.send.before-accept", "application", "must", WWW + "Send - send event",
     "websocket.send comes after websocket.accept"),
    ("websocket.close.code.sendable", "application", "must", _CLOSE,
     "`code` must be one that RFC 6455 §7.4 lets a close frame have"),
    ("websocket.close.reason.length", "application", "must", _CLOSE,
     "`reason` must fit into 123 bytes of UTF-8 (RFC 6455 §5.5)"),
    ("websocket.close.last", "application", "must", _CLOSE,
     "nothing follows the end of a WebSocket"),
    ("websocket.unanswered", "application", "must", _CONNECT,
     "the application must accept or close a WebSocket before it returns"),
    ("websocket.http.response.order", "application", "must", _DENIAL,
     "a denial is a start and its body, in the place of websocket.accept"),
    ("websocket.http.response.missing", "application", "must", _DENIAL,
     "the application must end its denial before it returns"),
    ("lifespan.startup.answer", "application", "must", LIFESPAN + "Startup Complete - send event",
     "lifespan.startup is answered once, after it was received"),
    ("lifespan.startup.unanswered", "application", "must", LIFESPAN + "Scope",
     "an application without lifespan must raise, not return"),
    ("lifespan.shutdown.answer", "application", "must",
     LIFESPAN + "Shutdown Complete - send event",
     "lifespan.shutdown is answered once, after it was received"),
    ("lifespan.shutdown.unanswered", "application", "must",
     LIFESPAN + "Shutdown Complete - send event",
     "the application must answer lifespan.shutdown before it returns"),
    # --- the application itself
    ("application.awaitable", "application", "must", _APPLICATIONS,
     "an application called with scope, receive and send must return an awaitable"),
    ("application.result", "application", "must", _APPLICATIONS,
     "an application returns None; a response is sent"),
    ("application.returned", "application", "must", _APPLICATIONS,
     "receive and send are not for use after the application has returned"),
    ("application.scope", "application", "should", ASGI + "Middleware",
     "a scope should be copied before it is changed"),
    ("application.unknown-scope", "application", "must", _APPLICATIONS,
     "an application must raise for a scope type that it does not know"),
    ("application.cancelled", "application", "should", "Python, asyncio.Task.cancel()",
     "an application that was cancelled should let CancelledError through"),
)
# fmt: on


def _shape_rules(shape: Shape, side: Side) -> list[Rule]:
    return [
        Rule(
            ".".join(filter(None, (shape.name, key.name, aspect))),
            side,
            "should" if aspect in key.shoulds else "must",
            shape.section,
        )
        for key in shape.keys
        for aspect in ("", *key.kind.aspects)
    ]


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        *(Rule(*row) for row in _BEYOND),
        *(
            rule
            for shape in (ASGI_KEYS, TLS, *SCOPES.values())
            for rule in _shape_rules(shape, "server")
        ),
        *(
            rule
            for shapes in RECEIVE.values()
            for shape in shapes.values()
            for rule in _shape_rules(shape, "server")
        ),
        *(
            rule
            for shapes in SEND.values()
            for shape in shapes.values()
            for rule in _shape_rules(shape, "application")
        ),
    )
}
"""Every rule by its name."""
