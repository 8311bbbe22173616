"""WebSockets of a FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003  # FastAPI reads annotations
from typing import Annotated

from fastapi import (
    Cookie,
    Depends,
    FastAPI,
    HTTPException,
    Query,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
)
from plain import say
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    name: str
    price: float


async def session() -> AsyncIterator[str]:
    say("session opened")
    try:
        yield "a session"
    finally:
        say("session closed")


async def user(token: Annotated[str, Query()], theme: Annotated[str, Cookie()] = "none") -> str:
    if token == "wrong":
        raise WebSocketException(1008, "not with this token")
    if token == "teapot":
        raise HTTPException(418, "short and stout")
    return f"{token} in {theme}"


@app.websocket("/echo")
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


@app.websocket("/close")
async def close(websocket: WebSocket) -> None:
    await websocket.accept()
    raise WebSocketException(4002, "énough")


@app.websocket("/fail")
async def fail(websocket: WebSocket) -> None:
    await websocket.accept()
    raise RuntimeError("the endpoint has a bug")


@app.websocket("/deny")
async def deny(websocket: WebSocket) -> None:
    await websocket.close()


@app.websocket("/items/{number}")
async def items(
    websocket: WebSocket,
    number: int,
    who: Annotated[str, Depends(user)],
    held: Annotated[str, Depends(session)],
) -> None:
    await websocket.accept()
    await websocket.send_json({"number": number, "who": who, "session": held})
    while True:
        item = Item.model_validate(await websocket.receive_json())
        await websocket.send_text(item.model_dump_json())
