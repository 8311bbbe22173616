"""WebSockets of a Starlette application."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from plain import say
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.responses import JSONResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.websockets import WebSocket


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    yield {"pool": "a pool"}
    say("shutdown")


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"], message["reason"])
            if message.get("text") is not None:
                await websocket.send_text(message["text"])
            else:
                await websocket.send_bytes(message["bytes"])
    except WebSocketDisconnect as left:
        say(f"left with {left.code} {left.reason!r}")


async def close(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close(4002, "énough")


async def fail(websocket: WebSocket) -> None:
    await websocket.accept()
    raise RuntimeError("the endpoint has a bug")


async def deny(websocket: WebSocket) -> None:
    await websocket.close()


async def deny_response(websocket: WebSocket) -> None:
    response = JSONResponse({"error": "who are you?"}, 401, {"www-authenticate": "Bearer"})
    await websocket.send_denial_response(response)


async def greet(websocket: WebSocket) -> None:
    await websocket.accept("b", [(b"x-one", b"1")])
    await websocket.send_json(
        {
            "name": websocket.path_params["name"],
            "q": websocket.query_params["q"],
            "pool": websocket.state.pool,
            "url": str(websocket.url),
        }
    )
    await websocket.close()


async def count(websocket: WebSocket) -> None:
    """The size of every text; a client that leaves is an exception, which nobody catches."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(str(len(text)))
    say("counted")
    await websocket.receive_text()


async def push(websocket: WebSocket) -> None:
    """Send until the client has gone."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text("tick " * 1000)
    except WebSocketDisconnect as left:
        say(f"push ended with {left.code}")
        raise


class Endpoint(WebSocketEndpoint):
    encoding = "json"

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        await websocket.send_json({"got": data})

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        say(f"endpoint left with {close_code}")


app = Starlette(
    routes=[
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/close", close),
        WebSocketRoute("/fail", fail),
        WebSocketRoute("/deny", deny),
        WebSocketRoute("/deny-response", deny_response),
        WebSocketRoute("/greet/{name}", greet),
        WebSocketRoute("/count", count),
        WebSocketRoute("/push", push),
        WebSocketRoute("/endpoint", Endpoint),
    ],
    lifespan=lifespan,
)
