"""A Quart application."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from plain import say
from quart import Quart, Response, jsonify, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

app = Quart(__name__)
app.config["MAX_CONTENT_LENGTH"] = None
state: dict[str, str] = {}


@app.before_serving
async def startup() -> None:
    say("startup")
    state["pool"] = "a pool"


@app.after_serving
async def shutdown() -> None:
    say("shutdown")


@app.get("/items/<int:number>")
async def item(number: int) -> Any:
    return jsonify(number=number, q=request.args.getlist("q"), pool=state["pool"])


@app.post("/json")
async def json() -> Any:
    return jsonify(await request.get_json())


@app.post("/upload")
async def upload() -> Any:
    files = await request.files
    form = await request.form
    content = files["file"].read()
    return jsonify(title=form["title"], filename=files["file"].filename, size=len(content))


@app.post("/count")
async def count() -> str:
    size = 0
    async for piece in request.body:
        size += len(piece)
    return str(size)


@app.get("/stream")
async def stream() -> Response:
    async def lines() -> AsyncIterator[str]:
        for number in range(10):
            yield f"{number}\n"
            await asyncio.sleep(0)

    return Response(lines(), mimetype="text/plain")


@app.get("/endless")
async def endless() -> Response:
    async def ticks() -> AsyncIterator[str]:
        try:
            while True:
                yield "tick\n"
                await asyncio.sleep(0.02)
        finally:
            say("stream ended")

    response = Response(ticks())
    response.timeout = None
    return response


@app.get("/waiting")
async def waiting() -> str:
    say("waiting")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("view cancelled")
        raise
    return "never"


@app.get("/background")
async def background() -> str:
    async def later() -> None:
        say("background task ran")

    app.add_background_task(later)
    return "accepted"


@app.get("/fail")
async def fail() -> str:
    raise RuntimeError("the view has a bug")
