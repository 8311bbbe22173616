"""A Litestar application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator  # noqa: TC003  # Litestar reads annotations
from dataclasses import dataclass
from typing import Annotated, Any

import native
from litestar import Litestar, MediaType, Request, get, post
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import State, UploadFile  # noqa: TC002  # read as well
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.response import Response, ServerSentEvent, Stream
from plain import say


@dataclass
class Item:
    name: str
    price: float


@contextlib.asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    say("startup")
    app.state.pool = "a pool"
    yield
    say("shutdown")


def on_startup(app: Litestar) -> None:
    app.state.hooked = True


@get("/items/{number:int}")
async def item(number: int, state: State, q: str = "") -> dict[str, Any]:
    return {"number": number, "q": q, "pool": state.pool, "hooked": state.hooked}


@post("/items")
async def create(data: Item) -> Item:
    return data


@post("/upload", media_type=MediaType.TEXT, request_max_body_size=None)
async def upload(
    data: Annotated[UploadFile, Body(media_type=RequestEncodingType.MULTI_PART)],
) -> str:
    return f"{data.filename} {len(await data.read())}"


@post("/count", media_type=MediaType.TEXT, request_max_body_size=None)
async def count(request: Request[Any, Any, Any]) -> str:
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return str(size)


@get("/stream")
async def stream() -> Stream:
    async def lines() -> AsyncIterator[str]:
        for number in range(10):
            yield f"{number}\n"
            await native.sleep(0)

    return Stream(lines())


@get("/endless")
async def endless() -> Stream:
    async def ticks() -> AsyncIterator[str]:
        try:
            while True:
                yield "tick\n"
                await native.sleep(0.02)
        finally:
            say("stream ended")

    return Stream(ticks())


@get("/events")
async def events() -> ServerSentEvent:
    async def numbers() -> AsyncIterator[str]:
        for number in range(3):
            yield f"number {number}"

    return ServerSentEvent(numbers())


@get("/background")
async def background() -> Response[str]:
    async def later() -> None:
        say("background task ran")

    return Response("accepted", background=BackgroundTask(later))


@get("/fail")
async def fail() -> None:
    raise RuntimeError("the handler has a bug")


app = Litestar(
    [item, create, upload, count, stream, endless, events, background, fail],
    lifespan=[lifespan],
    on_startup=[on_startup],
)
