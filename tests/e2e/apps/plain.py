"""A bare ASGI application that does what the path says, and prints what happens to it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import native


def say(text: str) -> None:
    print(text, flush=True)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        await ROUTES[scope["path"].removeprefix(scope["root_path"])](scope, receive, send)


async def without_lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await app(scope, receive, send)


async def lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["greeting"] = "from lifespan"
    say("startup")
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    say("shutdown")
    await send({"type": "lifespan.shutdown.complete"})


async def answer(send: Any, body: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


class Pieces:
    """The request's content, piece by piece; None at the end if the client left before.

    Not a generator, which would have to be closed by who does not read it to its end.
    """

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self._more = True

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> Any:
        if not self._more:
            raise StopAsyncIteration
        event = await self._receive()
        left = event["type"] == "http.disconnect"
        self._more = not left and event["more_body"]
        return None if left else event["body"]


def number(scope: dict[str, Any], name: str, default: int) -> int:
    query = parse_qs(scope["query_string"].decode())
    return int(query.get(name, [default])[0])


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await answer(send, b"hello", 200, (b"content-type", b"text/plain"))


async def numbered(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The query, so that answers can be told apart."""
    await answer(send, scope["query_string"])


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    body = b"".join([piece async for piece in Pieces(receive)])
    await answer(send, body)


async def count(scope: dict[str, Any], receive: Any, send: Any) -> None:
    total = 0
    async for piece in Pieces(receive):
        if piece is None:
            say(f"left after {total}")
            return
        if not total:
            say("reading")
        total += len(piece)
    await answer(send, b"%d" % total)


async def show(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The scope itself."""
    body = json.dumps(scope, default=lambda value: value.decode("latin-1")).encode()
    await answer(send, body, 200, (b"content-type", b"application/json"))


async def early(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An answer without a look at the content."""
    await answer(send, b"too much for me", 413)


async def stream(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """``n`` pieces of ``size`` bytes, of unknown length."""
    size = number(scope, "size", 5)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        for index in range(number(scope, "n", 3)):
            body = b"%d" % (index % 10) * size
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await native.sleep(0)
        await send({"type": "http.response.body"})
    finally:
        say("stream ended")


async def endless(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A tick now and then until the client is gone, as server-sent events do it."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"tick", "more_body": True})
    async with native.beside(until_disconnect(receive)) as disconnected:
        while not disconnected.done():
            await disconnected.wait(0.05)
            if not disconnected.done():
                try:
                    await send({"type": "http.response.body", "body": b"tick", "more_body": True})
                except OSError:  # the client left in the same turn of the loop
                    await disconnected.join()
    say("endless saw http.disconnect")
    await send({"type": "http.response.body", "body": b"bye"})


async def until_disconnect(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def watch(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Wait for the client to leave, then find out what send does."""
    say("watching")
    await until_disconnect(receive)
    say("saw http.disconnect")
    try:
        await answer(send, b"too late")
    except OSError as error:
        say(f"send raised {type(error).__name__}")
        raise
    say("send did not raise")


async def deaf(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Nothing but a cancellation ends this."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    try:
        await native.event().wait()
    except native.cancelled():
        say("deaf was cancelled")
        raise


async def flood(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """As much as the client takes."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    block = b"x" * 65536
    sent = 0
    try:
        while sent < number(scope, "size", 1 << 40):
            await send({"type": "http.response.body", "body": block, "more_body": True})
            sent += len(block)
        await send({"type": "http.response.body"})
    finally:
        say("flood ended")


async def oblivious(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Block the whole loop until the fifo of the query is written, then send without a pause."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await native.sleep(0.01)  # the head leaves
    say("blocking")
    with open(scope["query_string"]) as fifo:
        fifo.read()
    block = b"x" * 65537
    try:
        for _ in range(500):
            await send({"type": "http.response.body", "body": block, "more_body": True})
    except OSError as error:
        say(f"send raised {type(error).__name__}")
        raise
    say("send never raised")


async def hold(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Keep this exchange until somebody asks for /release."""
    say("holding")
    await released().wait()
    await answer(send, b"held")


async def release(scope: dict[str, Any], receive: Any, send: Any) -> None:
    released().set()
    await answer(send, b"released")


_released: list[Any] = []


def released() -> Any:
    """The event that /release sets."""
    if not _released:
        _released.append(native.event())
    return _released[0]


async def fail(scope: dict[str, Any], receive: Any, send: Any) -> None:
    raise RuntimeError("the application has a bug")


async def fail_late(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    raise RuntimeError("the application has a late bug")


async def stubborn(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Goes on whatever it is told."""
    say("deaf to its cancellation")
    while True:
        try:
            await native.sleep(3600)
        except native.cancelled():
            pass


ROUTES = {
    "/": hello,
    "/numbered": numbered,
    "/echo": echo,
    "/count": count,
    "/scope": show,
    "/early": early,
    "/stream": stream,
    "/endless": endless,
    "/watch": watch,
    "/deaf": deaf,
    "/stubborn": stubborn,
    "/flood": flood,
    "/oblivious": oblivious,
    "/hold": hold,
    "/release": release,
    "/fail": fail,
    "/fail-late": fail_late,
}
