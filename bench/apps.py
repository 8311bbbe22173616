"""The applications that every server serves: plain ASGI 3 (and one of WSGI), no framework, one
callable each.

What this file alone decides: what work the application itself does.  Rules:

- As little as possible, so that the server is what is measured.
- Messages and header lists are built anew for each request, as frameworks build them: a server
  may cache by equal content, but must not win by recognising the very same object.
- No import of omnicorn, and none that costs: every peer's memory and start time include this file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

GREETING = b"Hello, world!"

DOCUMENT = (
    b'{"items":['
    + b",".join(
        b'{"id":%d,"name":"Article number %d","price":"%d.99","tags":["new","sale"]}' % (n, n, n)
        for n in range(1000, 1012)
    )
    + b"]}"
)
"""About 1 KB of JSON, encoded beforehand: no JSON encoder is being measured."""

CHUNK = b"0123456789abcdef" * 64
CHUNKS = 20
MEBIBYTE = b"0123456789abcdef" * 65536
NAP = 0.01
"""Seconds that `sleep` waits before it answers."""

SPEAKER = "/speak"
"""The path whose messages `room` sends to the sockets of all other paths."""


async def lifespan(receive: Receive, send: Send) -> None:
    """Say yes to startup and shutdown, so that no server logs a complaint."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """13 bytes of plain text."""
    if scope["type"] != "http":
        return await lifespan(receive, send)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
        }
    )
    await send({"type": "http.response.body", "body": GREETING})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`hello` as PEP 3333 has it."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [GREETING]


async def browser(scope: Scope, receive: Receive, send: Send) -> None:
    """1 KB of JSON with four headers."""
    if scope["type"] != "http":
        return await lifespan(receive, send)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(DOCUMENT)),
                (b"cache-control", b"no-store"),
                (b"vary", b"accept"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": DOCUMENT})


async def unique(scope: Scope, receive: Receive, send: Send) -> None:
    """As `browser`, but one of the headers differs in every response."""
    if scope["type"] != "http":
        return await lifespan(receive, send)
    request_id = b""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            request_id = value
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(DOCUMENT)),
                (b"cache-control", b"no-store"),
                (b"x-request-id", request_id),
            ],
        }
    )
    await send({"type": "http.response.body", "body": DOCUMENT})


async def post(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, then echo it."""
    if scope["type"] != "http":
        return await lifespan(receive, send)
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body = b"".join(parts)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/octet-stream"),
                (b"content-length", b"%d" % len(body)),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """20 chunks of 1 KiB without a content-length, then an empty last one."""
    if scope["type"] != "http":
        return await lifespan(receive, send)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/octet-stream")],
        }
    )
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def big(scope: Scope, receive: Receive, send: Send) -> None:
    """1 MiB in one event."""
    if scope["type"] != "http":
        return await lifespan(receive, send)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/octet-stream"),
                (b"content-length", b"1048576"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": MEBIBYTE})


async def sleep(scope: Scope, receive: Receive, send: Send) -> None:
    """`hello` after 10 ms of waiting, as for a database."""
    if scope["type"] == "http":
        await asyncio.sleep(NAP)
    await hello(scope, receive, send)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket that gets back what it sends."""
    if scope["type"] != "websocket":
        return await lifespan(receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return None
        text = message.get("text")
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


listeners: set[Send] = set()


async def room(scope: Scope, receive: Receive, send: Send) -> None:
    """What one WebSocket says, all others hear."""
    if scope["type"] != "websocket":
        return await lifespan(receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] != SPEAKER:
        listeners.add(send)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        listeners.discard(send)
        return None
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return None
        for listener in tuple(listeners):
            await listener({"type": "websocket.send", "text": message["text"]})
