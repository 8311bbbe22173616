"""From plain HTTP to https, and from ws to wss.

What this file alone decides: the ``location`` of a request that came unencrypted. Host: the one
that was given, else the one the client asked for. Port: the one that was given, else https' own;
the client's is that of plain HTTP and never right. Path and query are the client's bytes.

1. 308 keeps method and body (RFC 9110 §15.4.9), and is what browsers remember.
2. A WebSocket's handshake is redirected as well (RFC 6455 §4.2.2), where the server can send a
   response to it; else it is refused.
3. Without a usable host there is nowhere to go: 400.

Whether a request came unencrypted is the scope's ``scheme``: behind a proxy that ends TLS, the
server or `ProxyFix` has to say so first, or the redirect never ends.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from omnicorn.http.target import encode_path
from omnicorn.middleware.answers import answer
from omnicorn.middleware.hosts import asked_host, plain_host

if TYPE_CHECKING:
    from omnicorn.middleware.answers import Receive, Send
    from omnicorn.toolkit.compatibility import SingleCallable

__all__ = ["HTTPSRedirect", "location"]

_SECURE = {"http": b"https", "ws": b"wss"}

# A server may let through what must not be in a header.
_escape = re.compile(rb"[^\x21-\x7e]").sub


class HTTPSRedirect:
    """An ASGI application that redirects what is not encrypted, and passes on all else.

    Args:
        app: The ASGI 3 application.
        host: Where to go; default: the host that the client asked for. Give one if the server
            accepts requests for any host.
        port: The port of https; default: 443, which is not written out.

    Raises:
        ValueError: *host* is no host, or has a port; *port* is none.
    """

    __slots__ = ("_app", "_host", "_port")

    def __init__(
        self, app: SingleCallable, *, host: str | None = None, port: int | None = None
    ) -> None:
        self._app = app
        self._host = None if host is None else _checked(host)
        if port is not None and not 0 < port < 65536:
            raise ValueError(f"HTTPSRedirect: a port is a number from 1 to 65535, not {port!r}")
        self._port = None if port == 443 else port

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Redirect http and ws; call the application for everything else."""
        kind = scope["type"]
        if kind == "http":
            scheme = _SECURE.get(scope.get("scheme", "http"))
        elif kind == "websocket":
            scheme = _SECURE.get(scope.get("scheme", "ws"))
        else:
            scheme = None
        if scheme is None:
            await self._app(scope, receive, send)
            return
        host = self._host or asked_host(scope["headers"])
        if host is None:
            text = b"The host header is missing or malformed.\n"
            await answer(scope, receive, send, 400, text)
            return
        there = location(scope, scheme, host, self._port)
        text = b"This site is served by https alone.\n"
        await answer(scope, receive, send, 308, text, [(b"location", there)])


def location(scope: Any, scheme: bytes, host: bytes, port: int | None) -> bytes:
    """The URL of a request, elsewhere.

    Args:
        scope: The request's; its path and query are kept.
        scheme: The URL's scheme.
        host: The URL's host.
        port: The URL's port; None for that of the scheme.
    """
    # ``raw_path`` is optional.
    path = scope.get("raw_path") or encode_path(scope["path"])
    if path == b"*":  # of the server as a whole
        path = b""
    query = scope.get("query_string")
    target = b"%b?%b" % (path, query) if query else path
    authority = host if port is None else b"%b:%d" % (host, port)
    return b"%b://%b%b" % (scheme, authority, _escape(_percent, target))


def _percent(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % found[0][0]


def _checked(host: str) -> bytes:
    value = host.encode("ascii", "replace")  # by "?", which no host has
    if plain_host(value) != value:
        raise ValueError(
            f"HTTPSRedirect: {host!r} is not a host such as 'example.org' or '[::1]'; "
            "international names are written in their ASCII form, the port is an option of its own"
        )
    return value
