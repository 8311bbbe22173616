"""Applications with a mistake each, as people make them; mypy and pyright must find every one.

A line with a mistake is marked: ``type: ignore`` where both find it, ``pyright: ignore`` where only
pyright does. A mark on a line in which nothing is found is an error, too.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from omnicorn.asgi import (
        ASGI2Application,
        ASGI3Application,
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        ASGISendEvent,
        Extensions,
        HTTPScope,
        LifespanScope,
        Scope,
        TLSExtension,
        WebSocketScope,
    )


# --- scopes ---


def keys_that_may_be_missing(http: HTTPScope, ws: WebSocketScope, lifespan: LifespanScope) -> None:
    # mypy lets these pass; where they are missing, each is a KeyError in production.
    http["raw_path"]  # pyright: ignore
    http["root_path"]  # pyright: ignore
    http["scheme"]  # pyright: ignore
    http["client"]  # pyright: ignore
    http["server"]  # pyright: ignore
    http["state"]  # pyright: ignore
    http["extensions"]  # pyright: ignore
    http["asgi"]["spec_version"]  # pyright: ignore
    ws["http_version"]  # pyright: ignore
    ws["query_string"]  # pyright: ignore
    ws["subprotocols"]  # pyright: ignore
    lifespan["state"]  # pyright: ignore


def values_that_may_be_none(http: HTTPScope, ws: WebSocketScope) -> None:
    http.get("client")[0]  # type: ignore[index]
    raw: bytes = http.get("raw_path", b"")  # type: ignore[assignment]
    query: bytes = ws.get("query_string", b"")  # type: ignore[assignment]
    print(raw, query)
    server = http.get("server")
    if server is not None:
        print(server[1] + 1)  # type: ignore[operator]


def keys_of_another_scope(http: HTTPScope, ws: WebSocketScope, lifespan: LifespanScope) -> None:
    print(http["subprotocols"])  # type: ignore[typeddict-item]
    print(ws["method"])  # type: ignore[typeddict-item]
    print(lifespan["path"])  # type: ignore[typeddict-item]
    print(lifespan["headers"])  # type: ignore[typeddict-item]


def any_scope(scope: Scope) -> None:
    print(scope["path"])  # type: ignore[typeddict-item]
    if scope["type"] != "lifespan":
        print(scope["path"])


def headers_are_bytes_and_perhaps_no_list(http: HTTPScope) -> None:
    for name, value in http["headers"]:
        name.encode()  # type: ignore[attr-defined]
        value + "text"  # type: ignore[operator]
    http["headers"][0]  # type: ignore[index]


# --- extensions ---


def extensions(offered: Extensions) -> None:
    offered["http.response.pushed"]  # type: ignore[typeddict-item]
    offered["tls"]  # pyright: ignore
    tls = offered.get("tls")
    print(tls["tls_version"])  # type: ignore[index]
    if tls is not None:
        tls["server_cert"].encode()  # type: ignore[union-attr]
        print(tls["client_cert_name"])  # pyright: ignore


no_certificate: TLSExtension = {  # type: ignore[typeddict-item]
    "tls_version": 0x0304,
    "cipher_suite": 0x1301,
}


# --- events ---


async def reads(receive: ASGIReceiveCallable) -> None:
    event = await receive()
    print(event["body"])  # type: ignore[typeddict-item]
    if event["type"] == "http.request":
        event["body"]  # pyright: ignore
        event["code"]  # type: ignore[typeddict-item]
    elif event["type"] == "websocket.receive":
        event["text"]  # pyright: ignore
        event.get("text").upper()  # type: ignore[union-attr]
    elif event["type"] == "websocket.disconnect":
        print(event["code"])
        event["reason"]  # pyright: ignore


async def sends(send: ASGISendCallable) -> None:
    await send({"type": "http.response.start"})  # type: ignore[misc, arg-type]
    await send({"type": "http.response.start", "status": "200"})  # type: ignore[misc, arg-type]
    await send({"type": "http.response.started", "status": 200})  # type: ignore[misc, arg-type]
    await send({"type": "http.request", "body": b""})  # type: ignore[misc, arg-type]
    await send({"type": "http.response.body", "body": "text"})  # type: ignore[misc, arg-type]
    await send({"type": "http.response.trailers"})  # type: ignore[misc, arg-type]
    await send({"type": "http.response.early_hint", "links": ["</s>"]})  # type: ignore[list-item]
    await send({"type": "http.response.pathsend"})  # type: ignore[misc, arg-type]
    await send({"type": "http.response.zerocopysend", "file": "/x"})  # type: ignore[typeddict-item]
    await send({"type": "http.response.push", "path": "/"})  # type: ignore[typeddict-item]
    await send({"type": "http.response.debug"})  # type: ignore[misc, arg-type]
    await send({"type": "websocket.send", "text": b"bytes"})  # type: ignore[typeddict-item]
    await send({"type": "websocket.close", "code": None})  # type: ignore[typeddict-item]
    await send({"type": "websocket.http.response.start"})  # type: ignore[misc, arg-type]
    await send({"type": "lifespan.startup"})  # type: ignore[misc, arg-type]
    await send({"type": "lifespan.startup.failed", "message": 1})  # type: ignore[misc, arg-type]


given: ASGIReceiveEvent = {"type": "websocket.accept"}  # type: ignore[misc, assignment]
given_back: ASGISendEvent = {"type": "websocket.connect"}  # type: ignore[misc, assignment]


# --- callables ---


async def two_arguments(scope: Scope, receive: ASGIReceiveCallable) -> None: ...


async def other_order(
    receive: ASGIReceiveCallable, send: ASGISendCallable, scope: Scope
) -> None: ...


async def http_alone(
    scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
) -> None: ...


async def reads_synchronously(
    scope: Scope, receive: Callable[[], ASGIReceiveEvent], send: ASGISendCallable
) -> None: ...


async def sends_strings(
    scope: Scope, receive: ASGIReceiveCallable, send: Callable[[str], Awaitable[None]]
) -> None: ...


def asgi_3(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> Awaitable[None]:
    raise NotImplementedError


one: ASGI3Application = two_arguments  # type: ignore[assignment]
two: ASGI3Application = other_order  # type: ignore[assignment]
three: ASGI3Application = http_alone  # type: ignore[assignment]
four: ASGI3Application = reads_synchronously  # type: ignore[assignment]
five: ASGI3Application = sends_strings  # type: ignore[assignment]
six: ASGI2Application = asgi_3  # type: ignore[assignment]
right: ASGI3Application = asgi_3
