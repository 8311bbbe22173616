"""Events: every message that `receive` returns and `send` takes, by protocol.

Names follow the message types: ``http.response.early_hint`` is `HTTPResponseEarlyHintEvent`.
The comment above each group tells who sends it. Keys that no type below lists are never an
error, in either direction. Rules of ``scopes`` apply, the evaluated annotations among them.
"""

from collections.abc import Iterable
from typing import Any, Literal, NotRequired, Protocol, TypedDict

__all__ = [
    "ASGIReceiveEvent",
    "ASGISendEvent",
    "HTTPDisconnectEvent",
    "HTTPReceiveEvent",
    "HTTPRequestEvent",
    "HTTPResponseBodyEvent",
    "HTTPResponseDebugEvent",
    "HTTPResponseEarlyHintEvent",
    "HTTPResponsePathsendEvent",
    "HTTPResponsePushEvent",
    "HTTPResponseStartEvent",
    "HTTPResponseTrailersEvent",
    "HTTPResponseZeroCopySendEvent",
    "HTTPSendEvent",
    "LifespanReceiveEvent",
    "LifespanSendEvent",
    "LifespanShutdownCompleteEvent",
    "LifespanShutdownEvent",
    "LifespanShutdownFailedEvent",
    "LifespanStartupCompleteEvent",
    "LifespanStartupEvent",
    "LifespanStartupFailedEvent",
    "ResponseHeader",
    "SupportsFileno",
    "WebSocketAcceptEvent",
    "WebSocketCloseEvent",
    "WebSocketConnectEvent",
    "WebSocketDisconnectEvent",
    "WebSocketInboundEvent",
    "WebSocketOutboundEvent",
    "WebSocketReceiveEvent",
    "WebSocketResponseBodyEvent",
    "WebSocketResponseStartEvent",
    "WebSocketSendEvent",
]

# The specification asks for a two-item iterable and writes a list in its own examples; a
# tuple is the form whose length a type checker can verify.
ResponseHeader = tuple[bytes, bytes] | list[bytes]
"""A name in lower case and a value; pseudo-header names are not allowed."""


class SupportsFileno(Protocol):
    """An open file with a descriptor that ``os.sendfile`` can use (no ``BytesIO``)."""

    def fileno(self) -> int: ...


# --- http: server to application ---


class HTTPRequestEvent(TypedDict):
    """A piece of the request body; the last has ``more_body`` false or missing."""

    type: Literal["http.request"]
    body: NotRequired[bytes]
    more_body: NotRequired[bool]


class HTTPDisconnectEvent(TypedDict):
    """The client left, or the response is complete."""

    type: Literal["http.disconnect"]


# --- http: application to server ---


class HTTPResponseStartEvent(TypedDict):
    """Status and headers. ``trailers`` announces `HTTPResponseTrailersEvent`, default False."""

    type: Literal["http.response.start"]
    status: int
    headers: NotRequired[Iterable[ResponseHeader]]
    trailers: NotRequired[bool]


class HTTPResponseBodyEvent(TypedDict):
    """A piece of the response body; the last has ``more_body`` false or missing."""

    type: Literal["http.response.body"]
    body: NotRequired[bytes]
    more_body: NotRequired[bool]


class HTTPResponseTrailersEvent(TypedDict):
    """Fields after the body; extension ``http.response.trailers``."""

    type: Literal["http.response.trailers"]
    headers: Iterable[ResponseHeader]
    more_trailers: NotRequired[bool]


class HTTPResponseEarlyHintEvent(TypedDict):
    """``Link`` values for a 103 response; extension ``http.response.early_hint``."""

    type: Literal["http.response.early_hint"]
    links: Iterable[bytes]


class HTTPResponsePathsendEvent(TypedDict):
    """A file, by absolute path, as the whole body; extension ``http.response.pathsend``."""

    type: Literal["http.response.pathsend"]
    path: str


class HTTPResponseZeroCopySendEvent(TypedDict):
    """A piece of an open file as body; extension ``http.response.zerocopysend``.

    From ``offset``, or the file's position; ``count`` bytes, or all that is left. The
    application closes the file, once `send` has returned.
    """

    type: Literal["http.response.zerocopysend"]
    file: int | SupportsFileno
    offset: NotRequired[int]
    count: NotRequired[int]
    more_body: NotRequired[bool]


class HTTPResponsePushEvent(TypedDict):
    """A request that the server makes on the client's behalf; extension ``http.response.push``."""

    type: Literal["http.response.push"]
    path: str
    headers: Iterable[ResponseHeader]


class HTTPResponseDebugEvent(TypedDict):
    """Facts for a test client; extension ``http.response.debug``, which no server offers."""

    type: Literal["http.response.debug"]
    info: dict[str, Any]


# --- websocket: server to application ---


class WebSocketConnectEvent(TypedDict):
    """A handshake, held until the application accepts or closes."""

    type: Literal["websocket.connect"]


class WebSocketReceiveEvent(TypedDict):
    """A whole message: exactly one of ``bytes`` and ``text`` is present and not None."""

    type: Literal["websocket.receive"]
    bytes: NotRequired[bytes | None]
    text: NotRequired[str | None]


class WebSocketDisconnectEvent(TypedDict):
    """The socket is gone. ``code`` is 1005 where the client gave none."""

    type: Literal["websocket.disconnect"]
    code: int
    reason: NotRequired[str | None]


# --- websocket: application to server ---


class WebSocketAcceptEvent(TypedDict):
    """Complete the handshake; the subprotocol never goes among the headers."""

    type: Literal["websocket.accept"]
    subprotocol: NotRequired[str | None]
    headers: NotRequired[Iterable[ResponseHeader]]


class WebSocketSendEvent(TypedDict):
    """A whole message: exactly one of ``bytes`` and ``text`` is present and not None."""

    type: Literal["websocket.send"]
    bytes: NotRequired[bytes | None]
    text: NotRequired[str | None]


class WebSocketCloseEvent(TypedDict):
    """Close with a code, default 1000; before the accept, refuse the handshake with 403."""

    type: Literal["websocket.close"]
    code: NotRequired[int]
    reason: NotRequired[str | None]


class WebSocketResponseStartEvent(TypedDict):
    """Refuse the handshake with a response of one's own; ``websocket.http.response``."""

    type: Literal["websocket.http.response.start"]
    status: int
    headers: NotRequired[Iterable[ResponseHeader]]


class WebSocketResponseBodyEvent(TypedDict):
    """The body of that response."""

    type: Literal["websocket.http.response.body"]
    body: NotRequired[bytes]
    more_body: NotRequired[bool]


# --- lifespan: server to application ---


class LifespanStartupEvent(TypedDict):
    """Get ready; no request is served before the answer."""

    type: Literal["lifespan.startup"]


class LifespanShutdownEvent(TypedDict):
    """Clean up; every connection is closed already."""

    type: Literal["lifespan.shutdown"]


# --- lifespan: application to server ---


class LifespanStartupCompleteEvent(TypedDict):
    """Ready."""

    type: Literal["lifespan.startup.complete"]


class LifespanStartupFailedEvent(TypedDict):
    """Not able to start: the server logs the message and exits."""

    type: Literal["lifespan.startup.failed"]
    message: NotRequired[str]


class LifespanShutdownCompleteEvent(TypedDict):
    """Cleaned up."""

    type: Literal["lifespan.shutdown.complete"]


class LifespanShutdownFailedEvent(TypedDict):
    """Cleaning up failed: the server logs the message and ends all the same."""

    type: Literal["lifespan.shutdown.failed"]
    message: NotRequired[str]


# --- unions, by scope type and direction ---

HTTPReceiveEvent = HTTPRequestEvent | HTTPDisconnectEvent

HTTPSendEvent = (
    HTTPResponseStartEvent
    | HTTPResponseBodyEvent
    | HTTPResponseTrailersEvent
    | HTTPResponseEarlyHintEvent
    | HTTPResponsePathsendEvent
    | HTTPResponseZeroCopySendEvent
    | HTTPResponsePushEvent
    | HTTPResponseDebugEvent
)

# "WebSocketReceiveEvent" and "WebSocketSendEvent" are single messages; hence other names here.
WebSocketInboundEvent = WebSocketConnectEvent | WebSocketReceiveEvent | WebSocketDisconnectEvent
"""What `receive` returns on a websocket scope."""

WebSocketOutboundEvent = (
    WebSocketAcceptEvent
    | WebSocketSendEvent
    | WebSocketCloseEvent
    | WebSocketResponseStartEvent
    | WebSocketResponseBodyEvent
)
"""What `send` takes on a websocket scope."""

LifespanReceiveEvent = LifespanStartupEvent | LifespanShutdownEvent

LifespanSendEvent = (
    LifespanStartupCompleteEvent
    | LifespanStartupFailedEvent
    | LifespanShutdownCompleteEvent
    | LifespanShutdownFailedEvent
)

ASGIReceiveEvent = HTTPReceiveEvent | WebSocketInboundEvent | LifespanReceiveEvent

ASGISendEvent = HTTPSendEvent | WebSocketOutboundEvent | LifespanSendEvent
