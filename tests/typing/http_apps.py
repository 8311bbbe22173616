"""HTTP applications as people write them; checked by mypy and pyright, never run."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnicorn.asgi import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        ASGISendEvent,
        HTTPResponseBodyEvent,
        HTTPResponseStartEvent,
        HTTPScope,
        Scope,
    )


async def echo(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] != "http":
        raise RuntimeError("http only")
    body = b""
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        assert event["type"] == "http.request"
        body += event.get("body", b"")
        more = event.get("more_body", False)
        event["text"]  # type: ignore[typeddict-item]
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"x-method", scope["method"].encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


application: ASGI3Application = echo


async def lists_as_in_the_specification(
    scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [[b"content-type", b"text/html"]]}
    )
    await send({"type": "http.response.body"})


class PrefixHeaders:
    """A middleware: wraps `send`, changes a message on its way."""

    def __init__(self, app: ASGI3Application) -> None:
        self.app = app

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        async def add_a_header(event: ASGISendEvent) -> None:
            if event["type"] == "http.response.start":
                event["headers"] = [*event.get("headers", ()), (b"x-by", b"middleware")]
            await send(event)

        await self.app(scope, receive, add_a_header)


wrapped: ASGI3Application = PrefixHeaders(echo)


async def extensions(
    scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
) -> None:
    offered = scope.get("extensions", {})
    if "http.response.early_hint" in offered:
        await send({"type": "http.response.early_hint", "links": [b"</s.css>; rel=preload"]})
    tls = offered.get("tls")
    version: int | None = tls["tls_version"] if tls is not None else None
    await send({"type": "http.response.start", "status": 200 if version else 426, "trailers": True})
    if "http.response.pathsend" in offered:
        await send({"type": "http.response.pathsend", "path": "/srv/index.html"})
    elif "http.response.zerocopysend" in offered:
        with open("/srv/index.html", "rb") as file:
            await send({"type": "http.response.zerocopysend", "file": file, "count": 10})
            await send({"type": "http.response.zerocopysend", "file": file.fileno()})
    await send({"type": "http.response.push", "path": "/s.css", "headers": []})
    await send({"type": "http.response.trailers", "headers": [(b"digest", b"x")]})
    await send({"type": "http.response.debug", "info": {"template": "index"}})


smallest: HTTPScope = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "path": "/",
    "query_string": b"",
    "headers": [],
}
nameless: HTTPScope = {**smallest, "client": None, "server": ("/run/app.sock", None)}


# --- what must be refused ---

no_method: HTTPScope = {  # type: ignore[typeddict-item]
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "path": "/",
    "query_string": b"",
    "headers": [],
}
old_version: HTTPScope = {**smallest, "http_version": "2.0"}  # type: ignore[typeddict-item]
misspelt: HTTPScope = {**smallest, "querystring": b""}  # type: ignore[typeddict-unknown-key]

no_status: HTTPResponseStartEvent = {"type": "http.response.start"}  # type: ignore[typeddict-item]
text_headers: HTTPResponseStartEvent = {
    "type": "http.response.start",
    "status": 200,
    "headers": [("content-type", "text/plain")],  # type: ignore[list-item]
}
one_item: HTTPResponseStartEvent = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type",)],  # type: ignore[list-item]
}
text_body: HTTPResponseBodyEvent = {
    "type": "http.response.body",
    "body": "text",  # type: ignore[typeddict-item]
}
wrong_way: ASGISendEvent = {"type": "http.disconnect"}  # type: ignore[misc, assignment]
wrong_way_too: ASGIReceiveEvent = {"type": "http.response.body"}  # type: ignore[misc, assignment]


def not_async(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None: ...


blocking: ASGI3Application = not_async  # type: ignore[assignment]
