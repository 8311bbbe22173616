"""A bare ASGI application of WebSockets: does what the path says, and prints what happens.

Everything that is printed about a socket ends in its tag, the ``tag`` of its query, so that a
test can tell its own socket from those of others on the same server.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from typing import Any
from urllib.parse import parse_qs

import native
import plain
from plain import number, say


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await plain.lifespan(scope, receive, send)
    elif scope["type"] == "http":
        await HTTP_ROUTES.get(scope["path"], hello)(scope, receive, send)
    else:
        assert await receive() == {"type": "websocket.connect"}
        await ROUTES[scope["path"]](scope, receive, send)


def text(scope: dict[str, Any], name: str) -> str:
    values: list[str] = parse_qs(scope["query_string"].decode()).get(name, [""])
    return values[0]


def tell(scope: dict[str, Any], what: str) -> None:
    say(f"{what} [{text(scope, 'tag')}]")


def tell_end(scope: dict[str, Any], event: dict[str, Any]) -> None:
    assert event["type"] == "websocket.disconnect"
    tell(scope, f"disconnected {event['code']} {event.get('reason')!r}")


async def until_disconnect(scope: dict[str, Any], receive: Any) -> None:
    while (event := await receive())["type"] != "websocket.disconnect":
        pass
    tell_end(scope, event)


# ------------------------------------------------------------------------------- over HTTP


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await plain.answer(send, b"plain HTTP")


async def page(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An empty page, for scripts of a browser to run in."""
    body = b"<!doctype html><title>e2e</title><link rel=icon href=data:,>"
    await plain.answer(send, body, 200, (b"content-type", b"text/html"))


async def release(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Let the sockets of a tag go on that are in ``hold``."""
    _released(scope).set()
    await plain.answer(send, b"released")


_events: defaultdict[str, Any] = defaultdict(native.event)


def _released(scope: dict[str, Any]) -> Any:
    return _events[text(scope, "tag")]


HTTP_ROUTES = {"/page": page, "/release": release}


# ------------------------------------------------------------------------ before the accept


async def deny(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.close", "code": 4000, "reason": "nobody sees this"})
    await until_disconnect(scope, receive)


async def deny_response(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A denial in the application's own words, in two pieces."""
    assert "websocket.http.response" in scope["extensions"]
    headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
    await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
    piece = {"type": "websocket.http.response.body", "body": b"who ", "more_body": True}
    await send(piece)
    await send({"type": "websocket.http.response.body", "body": b"are you?"})
    await until_disconnect(scope, receive)


async def return_early(scope: dict[str, Any], receive: Any, send: Any) -> None:
    pass


async def raise_early(scope: dict[str, Any], receive: Any, send: Any) -> None:
    raise RuntimeError("the application has an early bug")


async def undecided(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Neither accepts nor denies."""
    tell(scope, "undecided")
    await until_disconnect(scope, receive)


async def foreign_subprotocol(scope: dict[str, Any], receive: Any, send: Any) -> None:
    try:
        await send({"type": "websocket.accept", "subprotocol": "nobody-offered-this"})
    except RuntimeError as error:
        tell(scope, f"accept raised {type(error).__name__}")
        raise


# ------------------------------------------------------------------------- after the accept


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") is not None:
            await send({"type": "websocket.send", "text": event["text"]})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})
    tell_end(scope, event)


async def show(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The scope itself."""
    await send({"type": "websocket.accept"})
    shown = json.dumps(scope, default=lambda value: value.decode("latin-1"))
    await send({"type": "websocket.send", "text": shown})


async def second_subprotocol(scope: dict[str, Any], receive: Any, send: Any) -> None:
    headers = [(b"x-one", b"1"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")]
    chosen = list(scope["subprotocols"])[1]
    await send({"type": "websocket.accept", "subprotocol": chosen, "headers": headers})
    await send({"type": "websocket.send", "text": chosen})


async def close(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Close with ``code`` and ``reason`` after a first message."""
    await send({"type": "websocket.accept"})
    await receive()
    event: dict[str, Any] = {"type": "websocket.close", "reason": text(scope, "reason")}
    if code := number(scope, "code", 0):
        event["code"] = code
    try:
        await send(event)
    except OSError as error:
        tell(scope, f"close raised {type(error).__name__}")
    await until_disconnect(scope, receive)


async def close_at_once(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Accept, a message, and a close, in one iteration of the loop."""
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "hello"})
    await send({"type": "websocket.close", "code": 4001, "reason": "at once"})
    await until_disconnect(scope, receive)


async def return_late(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})


async def raise_late(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    raise RuntimeError("the application has a bug")


async def send_late(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Wait for the client to leave, then find out what send does."""
    await send({"type": "websocket.accept"})
    tell(scope, "waiting")
    await until_disconnect(scope, receive)
    try:
        await send({"type": "websocket.send", "text": "too late"})
    except OSError as error:
        tell(scope, f"send raised {type(error).__name__}")
        raise
    tell(scope, "send did not raise")


async def send_and_block(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send more than is buffered, and block the whole loop until ``fifo`` is written."""
    await send({"type": "websocket.accept"})

    begun = native.event()

    async def send_both() -> None:
        await send({"type": "websocket.send", "text": "first"})
        begun.set()
        await send({"type": "websocket.send", "bytes": bytes(66_000)})

    async with native.beside(send_both()) as sending:
        await begun.wait()  # the second one is then under way
        with open(text(scope, "fifo")) as fifo:
            fifo.read()
        try:
            await sending.join()
        except OSError as error:
            tell(scope, f"send raised {type(error).__name__}")
        else:
            tell(scope, "send returned")
    await until_disconnect(scope, receive)


async def count(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Take everything in; answer "end" with what there was: messages, size, digest."""
    await send({"type": "websocket.accept"})
    messages, size, digest = 0, 0, hashlib.sha256()
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") == "end":
            answer = f"{messages} {size} {digest.hexdigest()}"
            await send({"type": "websocket.send", "text": answer})
            continue
        content = (event.get("text") or "").encode() or event.get("bytes") or b""
        messages, size = messages + 1, size + len(content)
        digest.update(content)
    tell(scope, f"counted {messages} {size}")
    tell_end(scope, event)


async def hold(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read nothing until somebody asks for /release with this tag; then count."""
    await send({"type": "websocket.accept"})
    tell(scope, "holding")
    await _released(scope).wait()

    async def accepted(event: dict[str, Any]) -> None:
        if event["type"] != "websocket.accept":
            await send(event)

    await count(scope, receive, accepted)


async def deaf(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Nothing but a cancellation ends this."""
    await send({"type": "websocket.accept"})
    tell(scope, "deaf")
    try:
        await native.event().wait()
    except native.cancelled():
        tell(scope, "cancelled")
        raise


async def flood(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send ``n`` messages of ``size`` bytes; say so whenever a send has to wait for long."""
    await send({"type": "websocket.accept"})
    size = number(scope, "size", 65536)
    try:
        for index in range(number(scope, "n", 1 << 30)):
            message = {"type": "websocket.send", "bytes": b"%d" % (index % 10) * size}
            async with native.beside(send(message)) as sending:
                await native.sleep(0)
                if not sending.done():
                    await sending.wait(0.3)
                if not sending.done():
                    tell(scope, f"send waits after {index * size}")
                await sending.join()
    finally:
        tell(scope, "flood ended")


ROUTES = {
    "/deny": deny,
    "/deny-response": deny_response,
    "/return-early": return_early,
    "/raise-early": raise_early,
    "/undecided": undecided,
    "/foreign-subprotocol": foreign_subprotocol,
    "/echo": echo,
    "/scope": show,
    "/second-subprotocol": second_subprotocol,
    "/close": close,
    "/close-at-once": close_at_once,
    "/return": return_late,
    "/raise": raise_late,
    "/send-late": send_late,
    "/send-and-block": send_and_block,
    "/count": count,
    "/hold": hold,
    "/deaf": deaf,
    "/flood": flood,
}
