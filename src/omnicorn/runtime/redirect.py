"""Plain HTTP's answer where TLS is spoken: go there. An ASGI application of its own.

What this file alone decides: the ``location``. Scheme and port are the server's, the host is the
one the client asked for, path and query are its bytes.

The port. A client that names the port this listener has (or none, which is 80) has come
straight, so the TLS listener's port is right for it as well. Any other client came through
something that maps ports (a container's host, a load balancer): which one the TLS listener has
out there is not known, and is most likely https' own.

308 keeps method and body (RFC 9110 §15.4.9), and is what browsers remember.
"""

from __future__ import annotations

import re
from typing import Any

from omnicorn.http.fields import is_host

_split = re.compile(rb"([^:].*?)(?::([0-9]*))?").fullmatch


class Redirect:
    """Answers 308 with the https address.

    Args:
        port: The TLS listener's; None where it has none.
    """

    __slots__ = ("_port",)

    def __init__(self, port: int | None) -> None:
        self._port = port

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        location = self._location(scope)
        status, body = 308, b"This site is served by https alone.\n"
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        if location is None:
            status, body = 400, b"The host header is missing or malformed.\n"
        else:
            headers.append((b"location", location))
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _location(self, scope: dict[str, Any]) -> bytes | None:
        asked = dict(scope["headers"]).get(b"host", b"")
        found = _split(asked)
        if found is None or not is_host(asked):
            return None
        host, digits = found.groups()
        port = self._port
        if port not in (None, 443) and scope["server"] is not None:
            own = b"%d" % scope["server"][1]
            if (digits or b"80").lstrip(b"0") == own:
                host = b"%b:%d" % (host, port)
        path = scope["raw_path"]
        query = scope["query_string"]
        if path == b"*":  # of the server as a whole
            path = b""
        return b"https://%b%b%b" % (host, path, b"?" + query if query else b"")
