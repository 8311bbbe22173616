"""What the tests ask for through front servers, and prints when a client has left."""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import suppress
from typing import Any

import native

MIB = 1 << 20

_FILE = tempfile.NamedTemporaryFile(prefix="omnicorn-")  # noqa: SIM115  # for as long as we run
_FILE.write(bytes(range(256)) * 4 * 1024)
_FILE.flush()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for _ in range(2):
            event = await receive()
            await send({"type": event["type"] + ".complete"})
    elif scope["type"] == "websocket":
        await echo_messages(receive, send)
    else:
        await ROUTES.get(scope["path"], see)(scope, receive, send)


async def answer(send: Any, body: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    kind = (b"content-type", b"text/plain")
    await send({"type": "http.response.start", "status": status, "headers": [kind, *headers]})
    await send({"type": "http.response.body", "body": body})


async def see(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The scope, as JSON."""

    def text(value: object) -> str:
        return value.decode("latin-1") if isinstance(value, bytes) else repr(value)

    await answer(send, json.dumps(scope, default=text).encode())


async def digest(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """How long the content is, and its digest."""
    seen = hashlib.sha256()
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            print("left while sending", flush=True)
            return
        seen.update(event["body"])
        size += len(event["body"])
        if not event["more_body"]:
            break
    await answer(send, f"{size} {seen.hexdigest()}".encode())


async def big(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """32 MiB, of no declared length."""
    await send({"type": "http.response.start", "status": 200})
    for number in range(32):
        body = bytes([number]) * MIB
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body"})


async def stream(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Pieces of no declared length, the last of them empty."""
    await send({"type": "http.response.start", "status": 200})
    for _ in range(int(scope["query_string"])):
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await native.sleep(0)
    await send({"type": "http.response.body"})


async def early(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An answer that does not wait for the content."""
    await answer(send, b"no, thank you", 403)


async def error(scope: dict[str, Any], receive: Any, send: Any) -> None:
    raise RuntimeError("on purpose")


async def cut(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An error in the middle of the response: after so many bytes, and at once or not."""
    size, _, pause = scope["query_string"].decode().partition("&")
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"x" * int(size), "more_body": True})
    if pause:
        await native.sleep(0.2)  # until it is on its way
    raise RuntimeError("on purpose")


async def wait(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A response that goes on until the client leaves."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"x-accel-buffering", b"no"), (b"content-type", b"text/event-stream")],
        }
    )
    async with native.beside(disconnect(receive)) as left:
        with suppress(OSError):
            while not left.done():
                body = b"data: 1\n\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})
                await left.wait(0.05)
    print(f"left {scope['query_string'].decode()}", flush=True)


async def disconnect(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def cookies(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await answer(send, b"", 200, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"))


async def file(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """1 MiB from a file."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.pathsend", "path": _FILE.name})


async def echo_messages(receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") is not None:
            await send({"type": "websocket.send", "text": event["text"]})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})


def status(code: int, *headers: tuple[bytes, bytes]) -> Any:
    async def say(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await answer(send, b"" if code in (204, 304) else b"hello", code, *headers)

    return say


ROUTES = {
    "/hello": status(200),
    "/204": status(204),
    "/304": status(304, (b"etag", b'"x"')),
    "/302": status(302, (b"location", b"http://example.org/elsewhere")),
    "/404": status(404),
    "/digest": digest,
    "/big": big,
    "/stream": stream,
    "/early": early,
    "/error": error,
    "/cut": cut,
    "/wait": wait,
    "/cookies": cookies,
    "/file": file,
}
