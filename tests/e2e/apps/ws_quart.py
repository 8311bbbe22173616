"""WebSockets of a Quart application; ``ws_quart_trio`` has the same of Quart-Trio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import native
from plain import say
from quart import Blueprint, Quart, abort, jsonify, websocket

if TYPE_CHECKING:
    from quart.typing import ResponseReturnValue

routes = Blueprint("routes", __name__)


@routes.websocket("/echo")
async def echo() -> None:
    try:
        while True:
            await websocket.send(await websocket.receive())
    except native.cancelled():  # how Quart tells of the end
        say("left")
        raise


@routes.websocket("/close")
async def close() -> None:
    await websocket.accept()
    await websocket.close(4002, "énough")


@routes.websocket("/fail")
async def fail() -> None:
    await websocket.accept()
    raise RuntimeError("the handler has a bug")


@routes.websocket("/deny")
async def deny() -> None:
    abort(403)


@routes.websocket("/deny-response")
async def deny_response() -> ResponseReturnValue:
    return jsonify(error="who are you?"), 401, {"www-authenticate": "Bearer"}


@routes.websocket("/greet/<name>")
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


def make(kind: type[Quart]) -> Quart:
    app = kind(__name__)
    app.register_blueprint(routes)
    return app


app = make(Quart)
