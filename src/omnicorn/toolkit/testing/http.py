"""An HTTP client of an application, in memory.

What this file alone decides: what a request becomes for the application, and how its events
become a response. The order of events is checked only as far as a response needs it; for the
rest there is `omnicorn.toolkit.lint`, which can be put around the application.

::

    get_start ──▶ get_body_part ⟲ ──▶ None      a part at a time, or
    get_response                                all that is missing
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omnicorn.toolkit.testing.conversation import (
    TIMEOUT,
    Communicator,
    CommunicatorError,
    describe,
    kind_of,
    unexpected,
)
from omnicorn.toolkit.testing.scopes import CLIENT, SERVER, add, request_scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from omnicorn.toolkit.compatibility import SingleCallable
    from omnicorn.toolkit.testing.conversation import Event
    from omnicorn.toolkit.testing.scopes import Headers

EXTENSIONS = (
    "http.response.trailers",
    "http.response.early_hint",
    "http.response.pathsend",
    "http.response.zerocopysend",
)
"""Offered by default; ``http.response.push`` and ``http.response.debug`` are known too."""

_PLAIN = frozenset({"http.response.start", "http.response.body"})
_EXTENDED = frozenset({*EXTENSIONS, "http.response.push", "http.response.debug"})
_CONTENT = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})


@dataclass(slots=True)
class HTTPResponse:
    """A response, as far as it has come.

    Attributes:
        status: The status code.
        headers: Header fields in order.
        body: Content so far, that of files among it.
        trailers: Trailer fields.
        early_hints: ``Link`` values, one list for each 103 response.
        pushes: Path and header fields of each promised request.
        debug: ``info`` of ``http.response.debug``.
        complete: It has come to its end.
    """

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    early_hints: list[list[bytes]] = field(default_factory=list)
    pushes: list[tuple[str, list[tuple[bytes, bytes]]]] = field(default_factory=list)
    debug: dict[str, Any] | None = None
    complete: bool = False

    def header(self, name: str) -> str | None:
        """The first value of a header field, in any case; None if it is missing."""
        wanted = name.lower().encode("latin-1")
        for there, value in self.headers:
            if there.lower() == wanted:
                return value.decode("latin-1")
        return None

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class HTTPCommunicator(Communicator):
    """Sends one request to an application and takes its response; on asyncio and trio.

    ::

        response = await HTTPCommunicator(app, "GET", "/").get_response()

        async with HTTPCommunicator(app, "POST", "/upload", body=None) as http:
            await http.send_body(b"a piece", more_body=True)
            response = await http.get_start()
            await http.disconnect()

    Args:
        app: An ASGI 3 application.
        method: The method; upper-cased.
        path: The request target: percent-encoded or not, with the query or without; it includes
            *root_path*.
        headers: Header fields, text or bytes. ``host``, and ``content-length`` or
            ``transfer-encoding`` for a body, are added where missing.
        body: The request's body: bytes, or an iterable of them for one event each; None: the
            test gives it by `send_body`.
        query_string: The query, if it is not in *path*.
        http_version: ``"1.0"``, ``"1.1"``, ``"2"`` or ``"3"``.
        scheme: ``"http"`` or ``"https"``.
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
        method: str = "GET",
        path: str = "/",
        *,
        headers: Headers = (),
        body: bytes | Iterable[bytes] | None = b"",
        query_string: str | bytes | None = None,
        http_version: str = "1.1",
        scheme: str = "http",
        root_path: str = "",
        client: tuple[str, int] | None = CLIENT,
        server: tuple[str, int | None] | None = SERVER,
        state: dict[str, Any] | None = None,
        extensions: Iterable[str] | Mapping[str, dict[str, Any]] = EXTENSIONS,
        timeout: float = TIMEOUT,
    ) -> None:
        scope = request_scope(
            "http",
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
        scope["method"] = method.upper()
        super().__init__(app, scope, timeout)
        self._response = HTTPResponse()
        self._started = False
        self._ended = False  # for the test; `_over` is for the application, which is ahead
        self._trailers = False
        self._over = False
        self._body_given = body is not None
        if isinstance(body, (bytes, bytearray, memoryview)):
            if body:
                add(scope["headers"], b"content-length", b"%d" % len(body))
            self._inbox.append(_request(bytes(body), False))
            return
        if http_version == "1.1" and all(name != b"content-length" for name, _ in scope["headers"]):
            add(scope["headers"], b"transfer-encoding", b"chunked")
        if body is not None:
            self._inbox += [_request(piece, True) for piece in body]
            if self._inbox:
                self._inbox[-1]["more_body"] = False
            else:
                self._inbox.append(_request(b"", False))

    # ------------------------------------------------------------------ the request

    async def send_body(self, body: bytes = b"", *, more_body: bool = False) -> None:
        """Send a piece of the body; the last one unless *more_body*.

        Raises:
            RuntimeError: The body was complete, or the client has left.
        """
        self._check_there()
        if self._body_given:
            raise RuntimeError(
                "the request's body is complete; to send it by hand, make the communicator with "
                "body=None, and say more_body=True for all pieces but the last"
            )
        self._body_given = not more_body
        self._tell(_request(body, more_body))

    async def disconnect(self) -> None:
        """Leave: ``receive()`` gives ``http.disconnect``, ``send()`` raises an OSError."""
        self._left = True
        self._leave({"type": "http.disconnect"})

    def _goodbye(self) -> None:
        self._leave({"type": "http.disconnect"})

    # ------------------------------------------------------------------ the response

    async def get_start(self, timeout: float | None = None) -> HTTPResponse:
        """Wait for status and headers; returns the response, which goes on filling.

        Raises:
            CommunicatorError: The application did something else.
            CommunicatorTimeout: It did nothing for *timeout* seconds.
        """
        while not self._started:
            await self._advance("http.response.start", timeout)
        return self._response

    async def get_body_part(self, timeout: float | None = None) -> bytes | None:
        """Wait for the next event with content; None once the response is complete.

        Raises:
            CommunicatorError: The application did something else.
            CommunicatorTimeout: It did nothing for *timeout* seconds.
        """
        await self.get_start(timeout)
        while not self._response.complete:
            part = await self._advance(self._wanted, timeout)
            if part is not None:
                return part
        return None

    async def body_parts(self, timeout: float | None = None) -> AsyncIterator[bytes]:
        """The content, event by event; see `get_body_part`."""
        while (part := await self.get_body_part(timeout)) is not None:
            yield part

    async def get_response(self, timeout: float | None = None) -> HTTPResponse:
        """Wait for the whole response, with what has been taken already.

        Outside of ``async with`` also for the application's return.

        Raises:
            CommunicatorError: The application did something else.
            CommunicatorTimeout: It did nothing for *timeout* seconds.
        """
        if self._task is None:
            async with self:
                return await self.get_response(timeout)
        while not self._response.complete:
            await self._advance(self._wanted, timeout)
        return self._response

    @property
    def _wanted(self) -> str:
        if not self._started:
            return "http.response.start"
        return "http.response.trailers" if self._ended else "http.response.body"

    async def _advance(self, expected: str, timeout: float | None) -> bytes | None:
        """Take one event into the response; returns its content."""
        event = await self._next(expected, timeout)
        try:
            return self._take(expected, event)
        except (KeyError, TypeError, ValueError) as exc:
            raise CommunicatorError(
                f"the application sent {describe(event)}, which cannot be understood: {exc!r}"
            ) from exc

    def _take(self, expected: str, event: Event) -> bytes | None:
        response = self._response
        match event["type"]:
            case "http.response.early_hint":
                response.early_hints.append([as_bytes(link) for link in event["links"]])
            case "http.response.debug":
                response.debug = dict(event["info"])
            case "http.response.start" if not self._started:
                response.status = int(event["status"])
                response.headers = byte_pairs(event.get("headers", ()))
                self._started = True
            case "http.response.push" if self._started:
                response.pushes.append((event["path"], byte_pairs(event["headers"])))
            case "http.response.body" if self._started and not self._ended:
                part = as_bytes(event.get("body", b""))
                response.body += part
                self._ended = not event.get("more_body", False)
                response.complete = self._ended and not self._trailers
                return part
            case "http.response.trailers" if self._ended:
                response.trailers += byte_pairs(event["headers"])
                response.complete = not event.get("more_trailers", False)
            case _:
                raise unexpected(expected, event)
        return None

    # ------------------------------------------------------------------ the application

    async def _send(self, event: Event) -> None:
        kind = kind_of(event)
        extensions = self.scope["extensions"]
        if kind not in _PLAIN and kind not in _EXTENDED:
            raise CommunicatorError(f"{kind!r} is no message of an HTTP response")
        if kind in _EXTENDED and kind not in extensions:
            raise CommunicatorError(
                f"{kind} was sent, but the extension is not offered; if it should be, say so with "
                "extensions=..."
            )
        if self._over:
            return  # what follows a complete response is ignored
        if kind == "http.response.start":
            offered = "http.response.trailers" in extensions
            self._trailers = offered and bool(event.get("trailers", False))
        elif kind in _CONTENT:
            event = _content(event)
            self._over = not event.get("more_body", False) and not self._trailers
        elif kind == "http.response.trailers":
            self._over = not event.get("more_trailers", False)
        await super()._send(event)

    def _on_sent(self, event: Event) -> None:
        if self._over and self._last is None:
            self._last = {"type": "http.disconnect"}


def as_bytes(value: object) -> bytes:
    """Bytes of an event; raises TypeError if they are none."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{value!r:.80} is no bytes")


def byte_pairs(headers: Iterable[Any]) -> list[tuple[bytes, bytes]]:
    """Header fields of an event; raises TypeError or ValueError if they are none."""
    return [(as_bytes(name), as_bytes(value)) for name, value in headers]


def _request(body: bytes, more: bool) -> Event:
    return {"type": "http.request", "body": body, "more_body": more}


def _content(event: Event) -> Event:
    """A part of the body; of a file, its content, for the application is about to close it."""
    body: bytes
    more = False
    if event["type"] == "http.response.pathsend":
        with open(event["path"], "rb") as opened:
            body = opened.read()
    elif event["type"] == "http.response.zerocopysend":
        file = event["file"]
        number = file if isinstance(file, int) else file.fileno()
        offset = event.get("offset")
        start = os.lseek(number, 0, os.SEEK_CUR) if offset is None else offset
        count = event.get("count")
        if count is None:
            count = max(0, os.fstat(number).st_size - start)
        body = os.pread(number, count, start)
        if offset is None:
            os.lseek(number, start + len(body), os.SEEK_SET)
        more = event.get("more_body", False)
    else:
        return event
    return {"type": "http.response.body", "body": body, "more_body": more}
