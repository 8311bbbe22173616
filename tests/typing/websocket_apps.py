"""WebSocket applications; checked by mypy and pyright, never run."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnicorn.asgi import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGISendCallable,
        Scope,
        WebSocketCloseEvent,
        WebSocketScope,
    )


async def echo(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    assert scope["type"] == "websocket"
    if "chat" not in scope.get("subprotocols", ()):
        if "websocket.http.response" in scope.get("extensions", {}):
            await send({"type": "websocket.http.response.start", "status": 406})
            await send({"type": "websocket.http.response.body", "body": b"chat only"})
        else:
            await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept", "subprotocol": "chat"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            print(event["code"], event.get("reason"))
            return
        if event["type"] == "websocket.receive":
            text = event.get("text")
            if text is None:
                await send({"type": "websocket.send", "bytes": event.get("bytes")})
            else:
                await send({"type": "websocket.send", "text": text.upper()})


application: ASGI3Application = echo

smallest: WebSocketScope = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.5"},
    "path": "/",
    "headers": [],
}


# --- what must be refused ---

with_method: WebSocketScope = {**smallest, "method": "GET"}  # type: ignore[typeddict-unknown-key]
text_code: WebSocketCloseEvent = {
    "type": "websocket.close",
    "code": "1000",  # type: ignore[typeddict-item]
}
