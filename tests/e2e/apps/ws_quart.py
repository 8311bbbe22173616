"""WebSockets of a Quart application."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from plain import say
from quart import Quart, abort, jsonify, websocket

if TYPE_CHECKING:
    from quart.typing import ResponseReturnValue

app = Quart(__name__)


@app.websocket("/echo")
async def echo() -> None:
    try:
        while True:
            await websocket.send(await websocket.receive())
    except asyncio.CancelledError:  # how Quart tells of the end
        say("left")
        raise


@app.websocket("/close")
async def close() -> None:
    await websocket.accept()
    await websocket.close(4002, "énough")


@app.websocket("/fail")
async def fail() -> None:
    await websocket.accept()
    raise RuntimeError("the handler has a bug")


@app.websocket("/deny")
async def deny() -> None:
    abort(403)


@app.websocket("/deny-response")
async def deny_response() -> ResponseReturnValue:
    return jsonify(error="who are you?"), 401, {"www-authenticate": "Bearer"}


@app.websocket("/greet/<name>")
async def greet(name: str) -> None:
    await websocket.accept(headers={"x-one": "1"}, subprotocol="b")
    await websocket.send_json(
        {
            "name": name,
            "q": websocket.args["q"],
            "offered": websocket.requested_subprotocols,
            "url": websocket.url,
        }
    )
