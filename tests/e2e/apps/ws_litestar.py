"""WebSockets of a Litestar application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator  # noqa: TC003  # Litestar reads annotations
from dataclasses import dataclass
from typing import Any

from litestar import Litestar, WebSocket, websocket, websocket_listener, websocket_stream
from litestar.exceptions import NotAuthorizedException, WebSocketDisconnect, WebSocketException
from litestar.logging import LoggingConfig
from plain import say


@dataclass
class Item:
    name: str
    price: float


@websocket("/echo")
async def echo(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    try:
        while True:
            message: Any = await socket.receive()
            if message["type"] == "websocket.disconnect":
                say(f"left with {message['code']} {message['reason']!r}")
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect as left:
        say(f"left with {left.code} {left.detail!r}")


@websocket("/close")
async def close(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.close(4002, "énough")


@websocket("/fail")
async def fail(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    raise RuntimeError("the handler has a bug")


@websocket("/deny")
async def deny(socket: WebSocket[Any, Any, Any]) -> None:
    raise NotAuthorizedException("who are you?")


@websocket("/exception")
async def exception(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    raise WebSocketException(detail="had enough", code=4100)


@websocket("/greet/{name:str}")
async def greet(socket: WebSocket[Any, Any, Any], name: str, q: str) -> None:
    await socket.accept(subprotocols="b", headers={"x-one": "1"})
    await socket.send_json({"name": name, "q": q, "url": str(socket.url)})
    await socket.close()


@contextlib.asynccontextmanager
async def watched(socket: WebSocket[Any, Any, Any]) -> AsyncGenerator[None, None]:
    say("listener began")
    try:
        yield
    finally:
        say("listener ended")


@websocket_listener("/listener", connection_lifespan=watched)
async def listener(data: dict[str, Any]) -> Item:
    return Item(data["name"].upper(), data["price"] * 2)


@websocket_stream("/stream")
async def stream() -> AsyncGenerator[str, None]:
    try:
        for number in range(1_000_000):
            yield str(number)
    finally:
        say("stream ended")


app = Litestar(
    [echo, close, fail, deny, exception, greet, listener, stream],
    logging_config=LoggingConfig(log_exceptions="always"),
)
