"""The application that the suite talks to: it sends back what it receives.

What this file alone decides: nothing about WebSocket.  Whatever the suite sees besides the echo
of a message is the server's doing, so no message is looked at and no close is ever sent.
No import of omnicorn: peers serve this file too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Echo WebSocket messages, as text or as bytes; say yes to lifespan; answer HTTP with 404."""
    if scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await send({"type": "http.response.start", "status": 404})
        await send({"type": "http.response.body"})


async def echo(receive: Receive, send: Send) -> None:
    """Accept, then echo until the other side is gone."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        try:
            await send({**message, "type": "websocket.send"})
        except OSError:
            # ASGI: the connection closed between the two; most cases end in that way.
            return


async def lifespan(receive: Receive, send: Send) -> None:
    """Say yes to startup and shutdown, so that no server logs a complaint."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
