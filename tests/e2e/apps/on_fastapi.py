"""A FastAPI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator  # noqa: TC003  # FastAPI reads annotations
from typing import Annotated, Any

import native
from fastapi import BackgroundTasks, Depends, FastAPI, Form, HTTPException, Request, UploadFile
from fastapi.responses import StreamingResponse
from plain import say
from pydantic import BaseModel
from sse_starlette import EventSourceResponse
from starlette.middleware.base import BaseHTTPMiddleware

native.tolerate_left_generators()


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    say("startup")
    yield {"model": "a model"}
    say("shutdown")


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    name: str
    price: float
    tags: list[str] = []


async def session() -> AsyncIterator[str]:
    say("session opened")
    try:
        yield "a session"
    finally:
        say("session closed")


@app.get("/items/{number}")
async def read(number: int, request: Request, q: str | None = None) -> dict[str, Any]:
    return {"number": number, "q": q, "model": request.state.model}


@app.post("/items", status_code=201)
async def create(item: Item) -> Item:
    return item


@app.get("/plain")
def blocking() -> dict[str, bool]:
    """Runs in a thread."""
    return {"thread": True}


@app.get("/session")
async def with_session(value: Annotated[str, Depends(session)]) -> str:
    return value


@app.get("/teapot")
async def teapot() -> None:
    raise HTTPException(418, "short and stout")


@app.post("/upload")
async def upload(file: UploadFile, title: Annotated[str, Form()]) -> dict[str, Any]:
    size = 0
    while piece := await file.read(65536):
        size += len(piece)
    return {"title": title, "filename": file.filename, "size": size}


@app.get("/background")
async def background(tasks: BackgroundTasks) -> str:
    tasks.add_task(say, "background task ran")
    return "accepted"


async def ticks(count: int, name: str) -> AsyncIterator[bytes]:
    try:
        for number in range(count):
            yield b"%d\n" % number
            await native.sleep(0.01 if count > 100 else 0)
    finally:
        say(f"{name} cleaned up")


@app.get("/stream")
async def stream(count: int = 10) -> StreamingResponse:
    return StreamingResponse(ticks(count, "stream"))


async def events(count: int) -> AsyncIterator[dict[str, Any]]:
    try:
        for number in range(count):
            yield {"event": "tick", "id": str(number), "data": f"number {number}"}
            await native.sleep(0.01 if count > 100 else 0)
    finally:
        say("events cleaned up")


@app.get("/events")
async def sse(count: int = 3) -> EventSourceResponse:
    return EventSourceResponse(events(count))


@app.get("/disconnect")
async def disconnect(request: Request) -> str:
    say("waiting for the client to leave")
    while not await request.is_disconnected():
        await native.sleep(0.01)
    say("the client has left")
    return "too late"


@app.get("/fail")
async def fail() -> None:
    raise RuntimeError("the endpoint has a bug")


class Stamp(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-stamp"] = "stamped"
        return response


stamped = FastAPI(lifespan=lifespan)
stamped.add_middleware(Stamp)
stamped.router.routes.extend(app.router.routes)
