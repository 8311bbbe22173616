"""A Quart application; ``on_quart_trio`` has the same of Quart-Trio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import native
from plain import say
from quart import Blueprint, Quart, Response, current_app, jsonify, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

routes = Blueprint("routes", __name__)
state: dict[str, str] = {}


@routes.before_app_serving
async def startup() -> None:
    say("startup")
    state["pool"] = "a pool"


@routes.after_app_serving
async def shutdown() -> None:
    say("shutdown")


@routes.get("/items/<int:number>")
async def item(number: int) -> Any:
    return jsonify(number=number, q=request.args.getlist("q"), pool=state["pool"])


@routes.post("/json")
async def json() -> Any:
    return jsonify(await request.get_json())


@routes.post("/upload")
async def upload() -> Any:
    files = await request.files
    form = await request.form
    content = files["file"].read()
    return jsonify(title=form["title"], filename=files["file"].filename, size=len(content))


@routes.post("/count")
async def count() -> str:
    size = 0
    async for piece in request.body:
        size += len(piece)
    return str(size)


@routes.get("/stream")
async def stream() -> Response:
    async def lines() -> AsyncIterator[str]:
        for number in range(10):
            yield f"{number}\n"
            await native.sleep(0)

    return Response(lines(), mimetype="text/plain")


@routes.get("/endless")
async def endless() -> Response:
    async def ticks() -> AsyncIterator[str]:
        try:
            while True:
                yield "tick\n"
                await native.sleep(0.02)
        finally:
            say("stream ended")

    response = Response(ticks())
    response.timeout = None
    return response


@routes.get("/waiting")
async def waiting() -> str:
    say("waiting")
    try:
        await native.event().wait()
    except native.cancelled():
        say("view cancelled")
        raise
    return "never"


@routes.get("/background")
async def background() -> str:
    async def later() -> None:
        say("background task ran")

    current_app.add_background_task(later)
    return "accepted"


@routes.get("/fail")
async def fail() -> str:
    raise RuntimeError("the view has a bug")


def make(kind: type[Quart]) -> Quart:
    app = kind(__name__)
    app.config["MAX_CONTENT_LENGTH"] = None
    app.register_blueprint(routes)
    return app


app = make(Quart)
