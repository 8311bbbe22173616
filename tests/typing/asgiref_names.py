"""Code written for asgiref.typing, with its names; checked by mypy and pyright, never run."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import TYPE_CHECKING

from omnicorn.toolkit.typing import (
    ASGI2Protocol,
    ASGIReceiveCallable,
    ASGISendCallable,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    Scope,
    WWWScope,
)

if TYPE_CHECKING:
    from omnicorn.asgi import ASGI3Application as Ours
    from omnicorn.asgi import ASGIApplication as EitherOfOurs
    from omnicorn.toolkit.typing import (
        ASGI2Application,
        ASGI3Application,
        ASGIApplication,
        ASGISendEvent,
        HTTPScope,
        HTTPServerPushEvent,
        WebSocketScope,
    )


class Two:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()


class Inherited(ASGI2Protocol):
    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(HTTPResponseStartEvent(type="http.response.start", status=200))
        await send(HTTPResponseBodyEvent(type="http.response.body", body=b""))


class Middleware:
    def __init__(self, app: ASGI3Application) -> None:
        self.app = app

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        www: WWWScope = scope
        print(www["path"])
        await self.app(scope, receive, send)


async def three(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None: ...


two: ASGI2Application = Two
inherited: ASGI2Application = Inherited
both: list[ASGIApplication] = [Two, Inherited, three, Middleware(three)]
ours: Ours = Middleware(three)
ours_too: list[EitherOfOurs] = [Two, three]


def serve(http: HTTPScope, websocket: WebSocketScope) -> list[WWWScope]:
    return [http, websocket]


push: HTTPServerPushEvent = {"type": "http.response.push", "path": "/s.css", "headers": []}
sent: ASGISendEvent = push


# --- what must be refused ---

not_two: ASGI2Application = three  # type: ignore[assignment]
not_three: ASGI3Application = Two  # type: ignore[assignment]
received: ASGISendEvent = {"type": "http.disconnect"}  # type: ignore[misc, assignment]
