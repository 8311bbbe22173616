"""Applications whose lifespan goes wrong, in every way there is."""

from __future__ import annotations

from typing import Any

import native
from plain import answer, say


async def startup_failed(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is down"})


async def startup_raises(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        raise RuntimeError("the cache is down")
    await answer(send, b"works without it")


async def returns_early(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "lifespan":
        await answer(send, b"works without it")


async def startup_hangs(scope: dict[str, Any], receive: Any, send: Any) -> None:
    say("startup hangs")
    await native.event().wait()


async def shutdown_failed(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "the queue is not empty"})
    else:
        await answer(send, b"hello")


async def shutdown_raises(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise RuntimeError("the shutdown has a bug")
    await answer(send, b"hello")


async def shutdown_hangs(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("shutdown hangs")
        await native.event().wait()


def factory() -> Any:
    return returns_early


not_callable = "a text"
