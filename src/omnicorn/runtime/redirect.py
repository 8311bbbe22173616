"""Plain HTTP's answer where TLS is spoken: go there. An ASGI application of its own.

What this file alone decides: the port in the ``location``; the rest is `https_redirect`'s.

A client that names the port this listener has (or none, which is 80) has come straight, so the
TLS listener's port is right for it as well. Any other client came through something that maps
ports (a container's host, a load balancer): which one the TLS listener has out there is not
known, and is most likely https' own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.middleware.answers import answer
from omnicorn.middleware.hosts import plain_host
from omnicorn.middleware.https_redirect import location

if TYPE_CHECKING:
    from omnicorn.middleware.answers import Receive, Send


class Redirect:
    """Answers 308 with the https address.

    Args:
        port: The TLS listener's; None where it has none.
    """

    __slots__ = ("_port",)

    def __init__(self, port: int | None) -> None:
        self._port = None if port == 443 else port

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Redirect an http scope."""
        asked = dict(scope["headers"]).get(b"host", b"")
        host = plain_host(asked)
        if host is None:
            text = b"The host header is missing or malformed.\n"
            await answer(scope, receive, send, 400, text)
            return
        port = self._port
        if scope["server"] is None or _port(asked[len(host) :]) != scope["server"][1]:
            port = None
        there = location(scope, b"https", host, port)
        text = b"This site is served by https alone.\n"
        await answer(scope, receive, send, 308, text, [(b"location", there)])


def _port(rest: bytes) -> int:
    """The port that follows a host; 80 if there is none."""
    return int(rest[1:] or 80)
