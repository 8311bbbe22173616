"""Lifespan applications; checked by mypy and pyright, never run."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from omnicorn.asgi import (
    ASGI_VERSION,
    LIFESPAN_SPEC_VERSION,
    ASGI2Application,
    ASGI2Instance,
    ASGI3Application,
    ASGIApplication,
    ASGIReceiveCallable,
    ASGISendCallable,
    LifespanScope,
    LifespanSendEvent,
    LifespanStartupFailedEvent,
    Scope,
)


async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "lifespan":
        if "state" in scope:
            scope["state"]["pool"] = object()
        scope["method"]  # type: ignore[typeddict-item]
        started = await receive()
        if started["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        stopping = await receive()
        if stopping["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.failed", "message": "the pool is busy"})


three: ASGI3Application = app


def two(scope: Scope) -> ASGI2Instance:
    async def instance(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "lifespan.shutdown.complete"})

    return instance


legacy: ASGI2Application = two
either: list[ASGIApplication] = [app, two]

smallest: LifespanScope = {"type": "lifespan", "asgi": {"version": ASGI_VERSION}}
usual: LifespanScope = {
    "type": "lifespan",
    "asgi": {"version": ASGI_VERSION, "spec_version": LIFESPAN_SPEC_VERSION},
    "state": {},
}


# --- what must be refused ---

number: LifespanStartupFailedEvent = {
    "type": "lifespan.startup.failed",
    "message": 3,  # type: ignore[typeddict-item]
}
unknown: LifespanSendEvent = {"type": "lifespan.startup.done"}  # type: ignore[misc, assignment]
not_three: ASGI3Application = two  # type: ignore[assignment]
