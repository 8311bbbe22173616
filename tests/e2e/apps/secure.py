"""The applications of ``plain`` and ``ws_plain``, a file to send, and no word about lifespan."""

from __future__ import annotations

import os
from typing import Any

import plain
import ws_plain


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await ws_plain.app(scope, receive, send)
    elif scope["type"] == "http" and scope["path"] == "/file":
        await file(scope, receive, send)
    else:
        await plain.app(scope, receive, send)


async def file(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The file that the query names, as the server sends it best."""
    path = scope["query_string"].decode()
    length = (b"content-length", b"%d" % os.stat(path).st_size)
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.pathsend", "path": path})
