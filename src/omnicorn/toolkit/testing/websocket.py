"""A WebSocket client of an application, in memory.

What this file alone decides: what the application hears of a client that connects, speaks and
leaves, and what its events mean to that client (HTTP & WebSocket 2.5).

::

    connect ──accept──▶ send_*, receive_* ⟲ ──▶ close | receive_close
            ──close──▶ 403      ──websocket.http.response──▶ a response

However the WebSocket ends, ``receive()`` gives ``websocket.disconnect`` from then on, and
``send()`` raises an OSError: code 1006 after a refusal, else that of whoever closed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from omnicorn.toolkit.testing.conversation import (
    TIMEOUT,
    Communicator,
    CommunicatorError,
    describe,
    kind_of,
    unexpected,
)
from omnicorn.toolkit.testing.http import HTTPResponse, as_bytes, byte_pairs
from omnicorn.toolkit.testing.scopes import CLIENT, SERVER, add, request_scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from omnicorn.toolkit.compatibility import SingleCallable
    from omnicorn.toolkit.testing.conversation import Event
    from omnicorn.toolkit.testing.scopes import Headers

_EVENTS = frozenset(
    {
        "websocket.accept",
        "websocket.close",
        "websocket.send",
        "websocket.http.response.start",
        "websocket.http.response.body",
    }
)

ABNORMAL = 1006  # RFC 6455 §7.4.1: there was no close frame


class WebSocketClosed(NamedTuple):
    """How the application closed."""

    code: int
    reason: str


@dataclass(slots=True)
class WebSocketAnswer:
    """The application's answer to a handshake; true if it accepted.

    Attributes:
        accepted: Whether it did.
        subprotocol: The subprotocol it chose.
        headers: Header fields of the acceptance.
        response: The response of a refusal: 403, or one of the application's own.
        closed: Code and reason, if it refused by ``websocket.close``.
    """

    accepted: bool
    subprotocol: str | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    response: HTTPResponse | None = None
    closed: WebSocketClosed | None = None

    def __bool__(self) -> bool:
        return self.accepted


class WebSocketCommunicator(Communicator):
    """Opens a WebSocket to an application; on asyncio and trio.

    ::

        async with WebSocketCommunicator(app, "/chat", subprotocols=["v1"]) as ws:
            assert await ws.connect()
            await ws.send_json({"say": "hello"})
            assert await ws.receive_text() == "hello"

    Args:
        app: An ASGI 3 application.
        path: The request target: percent-encoded or not, with the query or without; it includes
            *root_path*.
        headers: Header fields, text or bytes; ``host`` is added, and the
            offer of *subprotocols*.
        subprotocols: The subprotocols offered.
        query_string: The query, if it is not in *path*.
        http_version: That of the handshake.
        scheme: ``"ws"`` or ``"wss"``.
        root_path: Where the application is mounted.
        client: ``(host, port)`` or None.
        server: ``(host, port)``, ``(path, None)`` for a unix socket, or None.
        state: The lifespan's state (`LifespanManager.state`); copied shallowly.
        extensions: The extensions offered: names, or a dict of name and parameters.
        timeout: Seconds to wait for each event, and for the application's return.

    Raises:
        ValueError: *path* is not below *root_path*, or the query was given twice.
    """

    def __init__(
        self,
        app: SingleCallable,
        path: str = "/",
        *,
        headers: Headers = (),
        subprotocols: Iterable[str] = (),
        query_string: str | bytes | None = None,
        http_version: str = "1.1",
        scheme: str = "ws",
        root_path: str = "",
        client: tuple[str, int] | None = CLIENT,
        server: tuple[str, int | None] | None = SERVER,
        state: dict[str, Any] | None = None,
        extensions: Iterable[str] | Mapping[str, dict[str, Any]] = ("websocket.http.response",),
        timeout: float = TIMEOUT,
    ) -> None:
        scope = request_scope(
            "websocket",
            path,
            headers,
            query_string,
            scheme=scheme,
            http_version=http_version,
            root_path=root_path,
            client=client,
            server=server,
            state=state,
            extensions=extensions,
        )
        scope["subprotocols"] = list(subprotocols)
        super().__init__(app, scope, timeout)
        if scope["subprotocols"]:
            offer = ", ".join(scope["subprotocols"]).encode("latin-1")
            add(scope["headers"], b"sec-websocket-protocol", offer)
        self._accepted = False
        self._inbox.append({"type": "websocket.connect"})
        self._answer: WebSocketAnswer | None = None
        self._refusal: CommunicatorError | None = None

    # ------------------------------------------------------------------ the handshake

    async def connect(self, timeout: float | None = None) -> WebSocketAnswer:
        """Wait for the answer to the handshake; called again, returns the same.

        Raises:
            CommunicatorError: The application did something else.
            CommunicatorTimeout: It did nothing for *timeout* seconds.
        """
        if self._answer is None:
            event = await self._next("websocket.accept", timeout)
            try:
                self._answer = await self._understand(event, timeout)
            except (KeyError, TypeError, ValueError) as exc:
                raise CommunicatorError(
                    f"the application sent {describe(event)}, which cannot be understood: {exc!r}"
                ) from exc
            if not self._answer:
                self._refusal = unexpected("websocket.accept", event)
        return self._answer

    async def _understand(self, event: Event, timeout: float | None) -> WebSocketAnswer:
        kind = event["type"]
        if kind == "websocket.accept":
            headers = byte_pairs(event.get("headers") or ())
            subprotocol, offered = event.get("subprotocol"), self.scope["subprotocols"]
            if subprotocol is not None and subprotocol not in offered:
                # RFC 6455 §4.1: a client fails the connection.
                raise CommunicatorError(
                    f"the application sent {describe(event)}, but the client offers "
                    f"{', '.join(map(repr, offered)) or 'no subprotocols'}; see subprotocols=..."
                )
            return WebSocketAnswer(True, subprotocol, headers)
        if kind == "websocket.close":
            response = HTTPResponse(403, complete=True)
            return WebSocketAnswer(False, response=response, closed=_closed(event))
        if kind != "websocket.http.response.start":
            raise unexpected("websocket.accept", event)
        headers = byte_pairs(event.get("headers") or ())
        response = HTTPResponse(event["status"], headers)
        while not response.complete:
            part = await self._next("websocket.http.response.body", timeout)
            if part["type"] != "websocket.http.response.body":
                raise unexpected("websocket.http.response.body", part)
            response.body += as_bytes(part.get("body", b""))
            response.complete = not part.get("more_body", False)
        return WebSocketAnswer(False, response=response)

    async def _connected(self, timeout: float | None) -> None:
        await self.connect(timeout)
        if self._refusal is not None:
            raise self._refusal

    # ------------------------------------------------------------------ messages

    async def send_text(self, text: str) -> None:
        """Send a text message; connects first, if that was not done.

        Raises:
            CommunicatorError: The application did not accept.
            RuntimeError: The client has closed.
        """
        self._check_there()
        await self._connected(None)
        self._tell({"type": "websocket.receive", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message; see `send_text`."""
        self._check_there()
        await self._connected(None)
        self._tell({"type": "websocket.receive", "bytes": data})

    async def send_json(self, value: Any, *, binary: bool = False) -> None:
        """Send a value as JSON, in a text message or a *binary* one; see `send_text`."""
        text = json.dumps(value)
        await (self.send_bytes(text.encode()) if binary else self.send_text(text))

    async def receive(self, timeout: float | None = None) -> str | bytes:
        """Wait for a message; connects first, if that was not done.

        Raises:
            CommunicatorError: The application did something else.
            CommunicatorTimeout: It did nothing for *timeout* seconds.
        """
        return await self._message("websocket.send", timeout)

    async def receive_text(self, timeout: float | None = None) -> str:
        """Wait for a text message; see `receive`."""
        message = await self._message("websocket.send with text", timeout)
        if not isinstance(message, str):
            raise CommunicatorError(f"expected a text message, got bytes {message!r:.80}")
        return message

    async def receive_bytes(self, timeout: float | None = None) -> bytes:
        """Wait for a binary message; see `receive`."""
        message = await self._message("websocket.send with bytes", timeout)
        if not isinstance(message, bytes):
            raise CommunicatorError(f"expected a binary message, got text {message!r:.80}")
        return message

    async def receive_json(self, timeout: float | None = None) -> Any:
        """Wait for a message, text or binary, and read it as JSON; see `receive`."""
        message = await self._message("websocket.send with JSON", timeout)
        try:
            return json.loads(message)
        except ValueError as exc:
            raise CommunicatorError(f"expected JSON, got {message!r:.80}: {exc}") from exc

    async def _message(self, expected: str, timeout: float | None) -> str | bytes:
        await self._connected(timeout)
        event = await self._next(expected, timeout)
        if event["type"] != "websocket.send":
            raise unexpected(expected, event)
        contents = [event[key] for key in ("text", "bytes") if event.get(key) is not None]
        if len(contents) != 1 or not isinstance(contents[0], (str, bytes)):
            raise CommunicatorError(
                f"the application sent {describe(event)}: a message has either text or bytes"
            )
        return contents[0]

    # ------------------------------------------------------------------ the end

    async def receive_close(self, timeout: float | None = None) -> WebSocketClosed:
        """Wait for the application to close; connects first, if that was not done.

        Raises:
            CommunicatorError: The application did something else.
            CommunicatorTimeout: It did nothing for *timeout* seconds.
        """
        await self._connected(timeout)
        event = await self._next("websocket.close", timeout)
        if event["type"] != "websocket.close":
            raise unexpected("websocket.close", event)
        return _closed(event)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close from this side, or with code 1006 just vanish."""
        self._left = True
        self._leave({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _goodbye(self) -> None:
        code = 1000 if self._answer else ABNORMAL
        self._leave({"type": "websocket.disconnect", "code": code, "reason": ""})

    # ------------------------------------------------------------------ the application

    async def _send(self, event: Event) -> None:
        kind = kind_of(event)
        if kind not in _EVENTS:
            raise CommunicatorError(f"{kind!r} is no message of a WebSocket")
        denies = kind.startswith("websocket.http.response.")
        if denies and "websocket.http.response" not in self.scope["extensions"]:
            raise CommunicatorError(
                f"{kind} was sent, but the extension websocket.http.response is not offered; if "
                "it should be, say so with extensions=..."
            )
        await super()._send(event)

    def _on_sent(self, event: Event) -> None:
        kind = event["type"]
        if kind == "websocket.accept":
            self._accepted = True
        elif kind == "websocket.close":
            self._ended_by(_closed(event) if self._accepted else WebSocketClosed(ABNORMAL, ""))
        elif kind == "websocket.http.response.body" and not event.get("more_body", False):
            self._ended_by(WebSocketClosed(ABNORMAL, ""))

    def _ended_by(self, closed: WebSocketClosed) -> None:
        self._leave(
            {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason},
            "the application has ended this WebSocket",
        )


def _closed(event: Event) -> WebSocketClosed:
    code = event.get("code")
    return WebSocketClosed(1000 if code is None else code, event.get("reason") or "")
