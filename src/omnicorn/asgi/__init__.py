"""The ASGI contract as types: scopes, events, extensions, callables; L0, no behaviour.

ASGI 3.0 with HTTP & WebSocket 2.5 and Lifespan 2.0. The version constants cost nothing; every
other name is loaded on first use (PEP 562), because a server never looks at a TypedDict while
it runs and the definitions take milliseconds. A type checker sees plain imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from omnicorn.asgi.callables import (
        ASGI2Application,
        ASGI2Instance,
        ASGI3Application,
        ASGIApplication,
        ASGIReceiveCallable,
        ASGISendCallable,
    )
    from omnicorn.asgi.events import (
        ASGIReceiveEvent,
        ASGISendEvent,
        HTTPDisconnectEvent,
        HTTPReceiveEvent,
        HTTPRequestEvent,
        HTTPResponseBodyEvent,
        HTTPResponseDebugEvent,
        HTTPResponseEarlyHintEvent,
        HTTPResponsePathsendEvent,
        HTTPResponsePushEvent,
        HTTPResponseStartEvent,
        HTTPResponseTrailersEvent,
        HTTPResponseZeroCopySendEvent,
        HTTPSendEvent,
        LifespanReceiveEvent,
        LifespanSendEvent,
        LifespanShutdownCompleteEvent,
        LifespanShutdownEvent,
        LifespanShutdownFailedEvent,
        LifespanStartupCompleteEvent,
        LifespanStartupEvent,
        LifespanStartupFailedEvent,
        ResponseHeader,
        SupportsFileno,
        WebSocketAcceptEvent,
        WebSocketCloseEvent,
        WebSocketConnectEvent,
        WebSocketDisconnectEvent,
        WebSocketInboundEvent,
        WebSocketOutboundEvent,
        WebSocketReceiveEvent,
        WebSocketResponseBodyEvent,
        WebSocketResponseStartEvent,
        WebSocketSendEvent,
    )
    from omnicorn.asgi.extensions import Extensions, TLSExtension
    from omnicorn.asgi.scopes import (
        ASGIVersions,
        HTTPScope,
        HTTPVersion,
        LifespanScope,
        Scope,
        WebSocketScope,
    )

__all__ = [
    "ASGI_VERSION",
    "LIFESPAN_SPEC_VERSION",
    "SPEC_VERSION",
    "ASGI2Application",
    "ASGI2Instance",
    "ASGI3Application",
    "ASGIApplication",
    "ASGIReceiveCallable",
    "ASGIReceiveEvent",
    "ASGISendCallable",
    "ASGISendEvent",
    "ASGIVersions",
    "Extensions",
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
    "HTTPScope",
    "HTTPSendEvent",
    "HTTPVersion",
    "LifespanReceiveEvent",
    "LifespanScope",
    "LifespanSendEvent",
    "LifespanShutdownCompleteEvent",
    "LifespanShutdownEvent",
    "LifespanShutdownFailedEvent",
    "LifespanStartupCompleteEvent",
    "LifespanStartupEvent",
    "LifespanStartupFailedEvent",
    "ResponseHeader",
    "Scope",
    "SupportsFileno",
    "TLSExtension",
    "WebSocketAcceptEvent",
    "WebSocketCloseEvent",
    "WebSocketConnectEvent",
    "WebSocketDisconnectEvent",
    "WebSocketInboundEvent",
    "WebSocketOutboundEvent",
    "WebSocketReceiveEvent",
    "WebSocketResponseBodyEvent",
    "WebSocketResponseStartEvent",
    "WebSocketScope",
    "WebSocketSendEvent",
]

ASGI_VERSION: Final = "3.0"
"""``scope["asgi"]["version"]``."""

SPEC_VERSION: Final = "2.5"
"""``scope["asgi"]["spec_version"]`` of http and websocket scopes."""

LIFESPAN_SPEC_VERSION: Final = "2.0"
"""``scope["asgi"]["spec_version"]`` of lifespan scopes."""


def __getattr__(name: str) -> object:
    if name in __all__:
        from omnicorn.asgi import callables, events, extensions, scopes

        homes = (callables, events, extensions, scopes)
        return getattr(next(home for home in homes if name in home.__all__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
