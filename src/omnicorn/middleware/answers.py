"""Short answers that a middleware gives in an application's place.

What this file alone decides: how a status and a text are said to an HTTP client, and to one that
wants a WebSocket: by a denial response where the server offers that extension, else by a close
before the accept, which servers turn into 403.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    # Wider than those of omnicorn.asgi: frameworks that mount an application have their own types.
    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[Any]]

__all__ = ["answer"]


async def answer(
    scope: Any,
    receive: Receive,
    send: Send,
    status: int,
    text: bytes,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Answer an http or websocket scope with plain text.

    Raises:
        ValueError: The scope is of another type: nobody knows how to answer it.
    """
    kind = scope["type"]
    if kind == "websocket":
        await receive()  # websocket.connect comes first
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close"})
            return
        prefix = "websocket.http.response"
    elif kind == "http":
        prefix = "http.response"
    else:
        raise ValueError(f"a scope of type {kind!r} has no application here, and no answer")
    fields = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(text)),
        *headers,
    ]
    await send({"type": f"{prefix}.start", "status": status, "headers": fields})
    await send({"type": f"{prefix}.body", "body": text})
