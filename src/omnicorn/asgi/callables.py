"""Callables: the shape of an application and of the two functions it is given.

ASGI 3 is one call. ASGI 2, its predecessor, is a call that returns a second callable; it has
types here because a server still runs it.
"""

from collections.abc import Awaitable, Callable

from omnicorn.asgi.events import ASGIReceiveEvent, ASGISendEvent
from omnicorn.asgi.scopes import Scope

__all__ = [
    "ASGI2Application",
    "ASGI2Instance",
    "ASGI3Application",
    "ASGIApplication",
    "ASGIReceiveCallable",
    "ASGISendCallable",
]

ASGIReceiveCallable = Callable[[], Awaitable[ASGIReceiveEvent]]
"""Wait for the next event."""

ASGISendCallable = Callable[[ASGISendEvent], Awaitable[None]]
"""Hand over an event; returns once it is in the send buffer.

Raises an OSError after the client has left (HTTP & WebSocket 2.4). An application may let it
escape.
"""

ASGI3Application = Callable[[Scope, ASGIReceiveCallable, ASGISendCallable], Awaitable[None]]
"""One call per scope. It raises on a scope type that it does not know."""

ASGI2Instance = Callable[[ASGIReceiveCallable, ASGISendCallable], Awaitable[None]]

ASGI2Application = Callable[[Scope], ASGI2Instance]

ASGIApplication = ASGI3Application | ASGI2Application
