"""The applications of ``secure``, and what only HTTP/2 carries, or carries best."""

from __future__ import annotations

from typing import Any

import secure
from plain import Pieces, answer, number, say

PIXEL = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)
"""A GIF, the smallest image there is."""


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    own = ROUTES.get(scope["path"]) if scope["type"] == "http" else None
    await (own or secure.app)(scope, receive, send)


async def trailers(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Two pieces, and two fields that are known only after them."""
    names = [(b"trailer", b"x-sum, x-done")]
    await send({"type": "http.response.start", "status": 200, "headers": names, "trailers": True})
    await send({"type": "http.response.body", "body": b"one ", "more_body": True})
    await send({"type": "http.response.body", "body": b"two"})
    fields = [(b"x-sum", b"7"), (b"x-done", b"yes")]
    await send({"type": "http.response.trailers", "headers": fields})


async def hints(scope: dict[str, Any], receive: Any, send: Any) -> None:
    links = [b"</style.css>; rel=preload; as=style", b"</app.js>; rel=preload; as=script"]
    await send({"type": "http.response.early_hint", "links": links})
    await answer(send, b"hinted")


async def push(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Push two responses where the client takes them; say whether it does."""
    takes = "http.response.push" in scope["extensions"]
    if takes:
        for index in range(2):
            path = f"/numbered?pushed-{index}"
            headers = [(b"x-pushed", b"%d" % index)]
            await send({"type": "http.response.push", "path": path, "headers": headers})
    await answer(send, b"pushed" if takes else b"not pushed")


async def mirror(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Every piece at once, before the next has come."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    async for piece in Pieces(receive):
        if piece is None:
            say("mirror saw http.disconnect")
            return
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def page(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A page with ``n`` images, none of them from a cache."""
    images = "".join(f'<img src="/image?{index}">' for index in range(number(scope, "n", 0)))
    body = f"<!doctype html><title>e2e</title><link rel=icon href=data:,>{images}".encode()
    await answer(send, body, 200, (b"content-type", b"text/html"))


async def image(scope: dict[str, Any], receive: Any, send: Any) -> None:
    fields = ((b"content-type", b"image/gif"), (b"cache-control", b"no-store"))
    await answer(send, PIXEL, 200, *fields)


async def version(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await answer(send, scope["http_version"].encode())


ROUTES = {
    "/trailers": trailers,
    "/hints": hints,
    "/push": push,
    "/mirror": mirror,
    "/page": page,
    "/image": image,
    "/version": version,
}
