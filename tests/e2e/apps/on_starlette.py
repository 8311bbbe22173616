"""A Starlette application."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import native
from plain import say
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


native.tolerate_left_generators()


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    say("startup")
    yield {"pool": "a pool"}
    say("shutdown")


async def index(request: Request) -> Response:
    return JSONResponse(
        {
            "pool": request.state.pool,
            "name": request.path_params["name"],
            "q": request.query_params.getlist("q"),
            "url": str(request.url),
        }
    )


async def upload(request: Request) -> Response:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return PlainTextResponse(str(size))


async def upload_interrupted(request: Request) -> Response:
    size = 0
    try:
        async for chunk in request.stream():
            if not size:
                say("upload began")
            size += len(chunk)
    except ClientDisconnect:
        say(f"ClientDisconnect after {size}")
        raise
    return PlainTextResponse(str(size))


async def form(request: Request) -> Response:
    async with request.form() as fields:
        upload: Any = fields["file"]
        content = await upload.read()
        return JSONResponse(
            {"title": fields["title"], "filename": upload.filename, "size": len(content)}
        )


async def numbers() -> AsyncIterator[str]:
    for number in range(10):
        yield f"{number}\n"
        await native.sleep(0)


async def stream(request: Request) -> Response:
    return StreamingResponse(numbers(), media_type="text/plain")


async def forever() -> AsyncIterator[bytes]:
    try:
        while True:
            yield b"tick\n"
            await native.sleep(0.02)
    finally:
        say("generator cleaned up")


async def endless(request: Request) -> Response:
    return StreamingResponse(forever())


async def polled(request: Request) -> Response:
    say("polling")
    while not await request.is_disconnected():
        await native.sleep(0.01)
    say("is_disconnected")
    return PlainTextResponse("too late")


async def background(request: Request) -> Response:
    async def later() -> None:
        await native.sleep(0)
        say("background task ran")

    return PlainTextResponse("accepted", 202, background=BackgroundTask(later))


async def file(request: Request) -> Response:
    return FileResponse(__file__, headers={"x-file": "yes"})


async def redirect(request: Request) -> Response:
    return RedirectResponse("/items/moved", 307)


async def fail(request: Request) -> Response:
    raise RuntimeError("the view has a bug")


class Stamp(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["x-stamp"] = request.state.pool
        return response


routes = [
    Route("/items/{name}", index),
    Route("/upload", upload, methods=["POST"]),
    Route("/upload-interrupted", upload_interrupted, methods=["POST"]),
    Route("/form", form, methods=["POST"]),
    Route("/stream", stream),
    Route("/endless", endless),
    Route("/polled", polled),
    Route("/background", background),
    Route("/file", file),
    Route("/redirect", redirect),
    Route("/fail", fail),
]

app = Starlette(
    routes=[
        *routes,
        Mount("/stamped", routes=routes, middleware=[Middleware(Stamp)]),
        Mount("/zipped", routes=routes, middleware=[Middleware(GZipMiddleware, minimum_size=1)]),
    ],
    lifespan=lifespan,
)
