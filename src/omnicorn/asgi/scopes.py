"""Connection scopes: what an application is told about a connection before it starts.

One TypedDict per scope type of the ASGI specification (HTTP & WebSocket 2.5, Lifespan 2.0).

Rules of this package:
1. A key is ``NotRequired`` exactly where the specification says "optional"; an optional key
   whose stated default is None may also be present with the value None.
2. Nothing here behaves. A scope is a plain ``dict``; middleware copies it before changing it.
3. Annotations are evaluated, not postponed: under ``from __future__ import annotations`` a
   TypedDict cannot see ``NotRequired`` and reports every key in ``__required_keys__``.
"""

from collections.abc import Iterable
from typing import Any, Literal, NotRequired, TypedDict

from omnicorn.asgi.extensions import Extensions

__all__ = [
    "ASGIVersions",
    "HTTPScope",
    "HTTPVersion",
    "LifespanScope",
    "Scope",
    "WebSocketScope",
]

HTTPVersion = Literal["1.0", "1.1", "2", "3"]


class ASGIVersions(TypedDict):
    """``scope["asgi"]``.

    ``spec_version`` names the version of the protocol's own specification; where it is
    missing, HTTP and WebSocket mean "2.0" and Lifespan means "1.0".
    """

    version: Literal["2.0", "3.0"]
    spec_version: NotRequired[str]


class HTTPScope(TypedDict):
    """One HTTP request.

    ``path`` is the target without its query, percent-decoded, then decoded as UTF-8; it
    includes ``root_path``. ``raw_path`` and ``query_string`` are the bytes as received. Headers
    keep their order and duplicates, and their names are lower case. ``server`` has the port
    None for a unix socket. A missing ``state`` means that the server has no lifespan state.
    """

    type: Literal["http"]
    asgi: ASGIVersions
    http_version: HTTPVersion
    method: str
    scheme: NotRequired[str]
    path: str
    raw_path: NotRequired[bytes | None]
    query_string: bytes
    root_path: NotRequired[str]
    headers: Iterable[tuple[bytes, bytes]]
    client: NotRequired[tuple[str, int] | None]
    server: NotRequired[tuple[str, int | None] | None]
    state: NotRequired[dict[str, Any]]
    extensions: NotRequired[Extensions]


class WebSocketScope(TypedDict):
    """One WebSocket, from its handshake to its close; keys as in `HTTPScope`.

    ``http_version`` is that of the handshake, "1.1" if missing; ``scheme`` is "ws" if missing.
    """

    type: Literal["websocket"]
    asgi: ASGIVersions
    http_version: NotRequired[HTTPVersion]
    scheme: NotRequired[str]
    path: str
    raw_path: NotRequired[bytes | None]
    query_string: NotRequired[bytes | None]
    root_path: NotRequired[str]
    headers: Iterable[tuple[bytes, bytes]]
    client: NotRequired[tuple[str, int] | None]
    server: NotRequired[tuple[str, int | None] | None]
    subprotocols: NotRequired[Iterable[str]]
    state: NotRequired[dict[str, Any]]
    extensions: NotRequired[Extensions]


class LifespanScope(TypedDict):
    """The life of the application in one event loop.

    What the application puts into ``state`` while starting is copied, one level deep, into the
    scope of every request; a missing ``state`` means that the server does not do this.
    """

    type: Literal["lifespan"]
    asgi: ASGIVersions
    state: NotRequired[dict[str, Any]]


Scope = HTTPScope | WebSocketScope | LifespanScope
