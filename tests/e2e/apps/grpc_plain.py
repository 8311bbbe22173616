"""gRPC as it is on the wire: an ASGI application that answers calls, without any library of it.

A message is a flag, its length in four bytes, and its bytes; a call is a POST, its status is in
the trailers (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). Messages here are
plain bytes, no protocol buffers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import native
import plain
from plain import Pieces, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OK, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED = b"0", b"5", b"8", b"12"

CONTENT_TYPE = (b"content-type", b"application/grpc")


class Left(Exception):
    """The client has cancelled the call, or its deadline is over."""


class Call:
    """One call."""

    def __init__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.metadata: list[tuple[bytes, bytes]] = scope["headers"]
        self._receive = receive
        self._send = send

    async def messages(self) -> AsyncIterator[bytes]:
        buffer = b""
        async for piece in Pieces(self._receive):
            if piece is None:
                raise Left
            buffer += piece
            while len(buffer) >= 5 and len(buffer) >= 5 + (size := int.from_bytes(buffer[1:5])):
                assert buffer[0] == 0, "compressed, which nobody has agreed to"
                yield buffer[5 : 5 + size]
                buffer = buffer[5 + size :]
        assert not buffer, "half a message"

    async def message(self) -> bytes:
        [message] = [message async for message in self.messages()]
        return message

    async def start(self, *metadata: tuple[bytes, bytes]) -> None:
        head = [CONTENT_TYPE, *metadata]
        await self._send(
            {"type": "http.response.start", "status": 200, "headers": head, "trailers": True}
        )

    async def reply(self, message: bytes) -> None:
        body = b"\0" + len(message).to_bytes(4) + message
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(
        self, status: bytes = OK, message: bytes = b"", *metadata: tuple[bytes, bytes]
    ) -> None:
        fields = [(b"grpc-status", status), *metadata]
        if message:
            fields.insert(1, (b"grpc-message", message))
        await self._send({"type": "http.response.body"})
        await self._send({"type": "http.response.trailers", "headers": fields})

    async def refuse(self, status: bytes, message: bytes) -> None:
        """Nothing but trailers, which are then the head."""
        head = [CONTENT_TYPE, (b"grpc-status", status), (b"grpc-message", message)]
        await self._send({"type": "http.response.start", "status": 200, "headers": head})
        await self._send({"type": "http.response.body"})


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await plain.lifespan(scope, receive, send)
        return
    call = Call(scope, receive, send)
    assert (scope["method"], scope["http_version"]) == ("POST", "2")
    method = METHODS.get(scope["path"].removeprefix("/e2e/"))
    try:
        if method is None:
            await call.refuse(UNIMPLEMENTED, b"no such method")
        else:
            await method(call)
    except Left:
        say(f"{scope['path']} was left")


async def unary(call: Call) -> None:
    message = await call.message()
    await call.start()
    await call.reply(message[::-1])
    await call.end()


async def echo(call: Call) -> None:
    message = await call.message()
    await call.start()
    await call.reply(message)
    await call.end()


async def count_down(call: Call) -> None:
    """Server streaming: from a number to 1."""
    number = int(await call.message())
    await call.start()
    for index in range(number, 0, -1):
        await call.reply(b"%d" % index)
    await call.end()


async def add_up(call: Call) -> None:
    """Client streaming: the sum of what comes."""
    total = 0
    async for message in call.messages():
        total += int(message)
    await call.start()
    await call.reply(b"%d" % total)
    await call.end()


async def ping_pong(call: Call) -> None:
    """Bidirectional: each message is answered before the next comes."""
    await call.start()
    async for message in call.messages():
        await call.reply(message.upper())
    await call.end()


async def fail_late(call: Call) -> None:
    """A message, then an error; its text is percent-encoded."""
    await call.message()
    await call.start()
    await call.reply(b"half of it")
    await call.end(
        RESOURCE_EXHAUSTED, "no more – sorry".encode().replace(b"\xe2\x80\x93", b"%E2%80%93")
    )


async def fail_early(call: Call) -> None:
    await call.message()
    await call.refuse(NOT_FOUND, b"nothing here")


async def never(call: Call) -> None:
    """Reads its message, and never answers."""
    say("never began")
    async for _ in call.messages():
        pass
    async with native.timeout(30):
        await plain.until_disconnect(call._receive)
    raise Left


async def for_ever(call: Call) -> None:
    """Answers, again and again."""
    await call.message()
    await call.start()
    async with native.beside(plain.until_disconnect(call._receive)) as left:
        while not left.done():
            await call.reply(b"tick")
            await left.wait(0.01)
    raise Left


async def show(call: Call) -> None:
    """The metadata that came, a line for each, and some of our own, before and after."""
    await call.message()
    await call.start((b"x-first", b"before"), (b"x-bytes-bin", b"AP+A"))
    await call.reply(b"\n".join(name + b": " + value for name, value in call.metadata))
    await call.end(OK, b"", (b"x-last", b"after"))


METHODS = {
    "Unary": unary,
    "Echo": echo,
    "CountDown": count_down,
    "AddUp": add_up,
    "PingPong": ping_pong,
    "FailLate": fail_late,
    "FailEarly": fail_early,
    "Never": never,
    "ForEver": for_ever,
    "Show": show,
}
