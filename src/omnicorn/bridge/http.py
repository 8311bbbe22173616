"""One HTTP request's conversation with its application (ASGI HTTP spec 2.5).

What this file alone decides: the order of messages, and who may send what and when.

::

    START ──http.response.start──▶ BODY ⟲ http.response.body (more_body)
      ⟲ early_hint, push            │ ⟲ zerocopysend (more_body), push
                                    ├─ last body, zerocopysend, pathsend ─▶ DONE
                                    └─ the same, with trailers ─▶ TRAILERS ─▶ DONE
    the peer leaves, from START, BODY or TRAILERS: GONE

Rules:

1. A message out of order, of the wrong type or with a part that cannot be sent raises
   `ASGIError` inside the application. After DONE, more of the response is ignored (the
   spec's word); in GONE it raises `ClientDisconnected`.
2. ``receive()`` gives content as it arrives, then waits, and gives ``http.disconnect``
   once the response is complete or the peer has gone.
3. Each waiting call has a waiter of its own: on asyncio, cancelling a task cancels what
   it awaits, and one caller's cancellation must not reach another's.
4. The exchange is also its own access-log record: `scope`, `status`, `sent` and so on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from omnicorn.bridge.cycle import DONE, GONE, START, Carrier, Cycle, wake
from omnicorn.errors import ASGIError, ClientDisconnected, LocalProtocolError
from omnicorn.http.target import as_target
from omnicorn.ports import HIGH_WATER

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Coroutine

    from omnicorn.bridge.cycle import Application
    from omnicorn.errors import RemoteProtocolError
    from omnicorn.ports import Stream

    Sendfile = Callable[[int, int, int], Coroutine[Any, Any, int]]
    """``await sendfile(file, offset, count)``"""

BODY, TRAILERS = 1, 2  # between START and DONE

EXTENSIONS: dict[str, dict[str, Any]] = {
    "http.response.trailers": {},
    "http.response.early_hint": {},
    "http.response.pathsend": {},
    "http.response.zerocopysend": {},
}
"""What an HTTP/1.1 connection offers; all of it is kept below."""

PUSH: dict[str, dict[str, Any]] = {"http.response.push": {}}
"""What an HTTP/2 connection offers besides, to a client that takes it (RFC 9113 §8.4)."""

_RESPONSE_EVENTS = frozenset({"http.response.start", "http.response.body", *EXTENSIONS, *PUSH})


class HTTPCarrier(Carrier, Protocol):
    """What HTTP needs of its connection besides."""

    @property
    def sendfile(self) -> Sendfile | None:
        """Writes a part of an open file past the engine, after its output; returns how much.

        None where content cannot go past the engine.
        """

    def push(self, stream: Any, path: bytes, headers: Any) -> None:
        """Promise the response to another request, and make it; silently nothing for a peer
        that does not take one (any more).

        Raises:
            LocalProtocolError: There can be no such request, or no promise.
        """


class HTTPCycle(Cycle):
    """One request and its response.

    Args:
        app: The ASGI 3 application.
        scope: The request's scope.
        stream: The way back to the peer.
        carrier: The connection.
        ended: The request has no content.
    """

    __slots__ = (
        "_delivered",
        "_ended",
        "_half_closed",
        "_pieces",
        "_stopping",
        "_trailers",
    )

    def __init__(
        self,
        app: Application,
        scope: dict[str, Any],
        stream: Stream,
        carrier: HTTPCarrier,
        ended: bool,
    ) -> None:
        # Not by `super().__init__`: that call would be one in a hundred parts of the request.
        self._app = app
        self._stream = stream
        self._carrier = carrier
        self._phase = START
        self._entered = False
        self.was_cancelled = False
        self._told = False
        self._readers = None
        self._writers = None
        self.scope = scope
        self.status = 0
        self.response_headers = ()
        self.sent = 0
        self.task = None
        self.finished = False
        self._pieces: list[bytes] | None = None
        self._ended = ended
        self._delivered = False
        self._half_closed = False
        self._stopping = False
        self._trailers: list[tuple[bytes, bytes]] | None = None

    # ------------------------------------------------------------------ the application

    def _unfinished(self) -> ASGIError | None:
        if self._told:
            return None  # it only does as it was told
        return ASGIError(
            "the application returned without a response"
            if self._phase == START
            else "the application returned in the middle of its response"
        )

    def _give_up(self, error: BaseException | None) -> None:
        """Cut the connection; or if nothing has left yet, say 500.

        503 where the application obeyed an ``http.disconnect``.
        """
        if self._phase == START and self._told and error is None:
            self.refuse(503, b"Service Unavailable", [(b"retry-after", b"1")])
        elif self._phase == START:
            self.refuse(500, b"Internal Server Error", [])
        else:
            self._phase = GONE
            self._stream.reset()
            self._wake()

    async def receive(self) -> dict[str, Any]:
        """ASGI ``receive``."""
        while not self._delivered and self._phase != GONE:
            if self._ended or self._pieces:
                pieces = self._pieces
                if pieces is None:
                    body = b""
                else:
                    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                    self._pieces = None
                    if self._phase < DONE:  # else the stream may be serving the next request
                        self._stream.consumed(len(body))
                self._delivered = self._ended
                return {"type": "http.request", "body": body, "more_body": not self._ended}
            if self._phase >= DONE or self._stopping:
                break
            self._stream.send_continue()
            await self._wait_to_read()
        while self._phase < DONE and not self._half_closed:
            await self._wait_to_read()
        self._told = True
        return {"type": "http.disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        """ASGI ``send``."""
        try:
            kind = event["type"]
        except (TypeError, KeyError):
            raise ASGIError(f"a message is a dict with a 'type', not {event!r:.80}") from None
        phase = self._phase
        if phase == BODY and kind == "http.response.body":
            body = event.get("body", b"")
            if type(body) is not bytes:
                body = _as_bytes(body)
            more = event.get("more_body", False)
            self.sent += len(body)
            if not more:
                self._phase = DONE if self._trailers is None else TRAILERS
                if self._readers:
                    self._wake()
            try:
                keep_on = self._stream.send_data(body, not more)
            except LocalProtocolError as exc:
                if self._stream.is_responding:  # refused, and nothing of it was sent
                    self._phase = BODY
                    self.sent -= len(body)
                raise ASGIError(f"http.response.body: {exc}") from None
            if not keep_on and more:
                await self._wait_to_write()
        elif phase == START and kind == "http.response.start":
            try:
                status = event["status"]
            except KeyError:
                raise ASGIError("http.response.start has no 'status'") from None
            if type(status) is not int:
                status = _as_status(status)
            headers = event.get("headers", ())
            if type(headers) is not list:
                headers = _as_list(headers)
            trailers = event.get("trailers")
            try:
                self._stream.send_head(status, headers, bool(trailers))
            except LocalProtocolError as exc:
                raise ASGIError(f"http.response.start: {exc}") from None
            self.status = status
            self.response_headers = headers
            if trailers:
                self._trailers = []
            self._phase = BODY
        else:
            await self._send_other(kind, event)

    async def _send_other(self, kind: object, event: dict[str, Any]) -> None:
        """Every message but the two that each response has."""
        phase = self._phase
        if not isinstance(kind, str) or kind not in _RESPONSE_EVENTS:
            raise ASGIError(f"the message type {kind!r:.80} is unknown here")
        if phase == GONE:
            raise ClientDisconnected("the client has disconnected")
        if phase == DONE and kind != "http.response.start":
            return  # ASGI: what follows a complete response is ignored
        if kind == "http.response.early_hint":
            if phase == START:
                self._early_hint(event)
            # After the start it comes too late for HTTP/1.1; a server may ignore it.
        elif kind == "http.response.push":
            self._push(event)
        elif kind == "http.response.trailers" and phase == TRAILERS:
            self._send_trailers(event)
        elif kind == "http.response.pathsend" and phase == BODY and not self.sent:
            await self._pathsend(event)
        elif kind == "http.response.zerocopysend" and phase == BODY:
            await self._zerocopysend(event)
        else:
            raise ASGIError(f"{kind} cannot be sent {_WHERE[phase]}")

    def _early_hint(self, event: dict[str, Any]) -> None:
        links = event.get("links", ())
        try:
            self._stream.send_informational(103, [(b"link", link) for link in links])
        except (LocalProtocolError, TypeError) as exc:
            raise ASGIError(f"http.response.early_hint: {exc}") from None

    def _push(self, event: dict[str, Any]) -> None:
        path = event.get("path")
        if not isinstance(path, str):
            raise ASGIError(f"http.response.push needs a 'path', not {path!r:.80}")
        try:
            self._carrier.push(self._stream, as_target(path), event.get("headers", ()))
        except (LocalProtocolError, UnicodeError) as exc:
            raise ASGIError(f"http.response.push: {exc}") from None

    def _send_trailers(self, event: dict[str, Any]) -> None:
        trailers = self._trailers
        assert trailers is not None
        try:
            trailers += [(name, value) for name, value in event.get("headers", ())]
            if not event.get("more_trailers", False):
                self._stream.send_trailers(trailers)
                self._phase = DONE
                self._wake()
        except (LocalProtocolError, TypeError, ValueError) as exc:
            raise ASGIError(f"http.response.trailers: {exc}") from None

    # ------------------------------------------------------------------ files

    async def _pathsend(self, event: dict[str, Any]) -> None:
        path = event.get("path")
        if not isinstance(path, str) or not os.path.isabs(path):
            raise ASGIError(f"http.response.pathsend needs an absolute 'path', not {path!r:.200}")
        run_blocking = self._carrier.loop.run_blocking
        # A file object, so that one opened for a cancelled task closes itself.
        with await run_blocking(_open, path) as file:
            number = file.fileno()
            await self._send_file(number, 0, os.fstat(number).st_size, True)

    async def _zerocopysend(self, event: dict[str, Any]) -> None:
        source = event.get("file")
        try:
            file = source if type(source) is int else source.fileno()  # type: ignore[union-attr]
        except (AttributeError, OSError, ValueError):
            raise ASGIError(
                f"http.response.zerocopysend needs a 'file' with a descriptor, not {source!r:.80}"
            ) from None
        offset = _as_size(event, "offset")
        start = os.lseek(file, 0, os.SEEK_CUR) if offset is None else offset
        count = _as_size(event, "count")
        if count is None:
            count = max(0, os.fstat(file).st_size - start)
        await self._send_file(file, start, count, not event.get("more_body", False))
        if offset is None:
            os.lseek(file, start + count, os.SEEK_SET)

    async def _send_file(self, file: int, offset: int, count: int, end: bool) -> None:
        """Send a part of a file as content, by the kernel where the carrier can."""
        stream = self._stream
        carrier = self._carrier
        sendfile = carrier.sendfile if count > HIGH_WATER else None
        try:
            if self._phase == GONE:
                raise ClientDisconnected("the client has disconnected")
            if not stream.takes_content:
                pass
            elif sendfile is not None and stream.reserve_raw(count):
                sent = await sendfile(file, offset, count)
                self.sent += sent
                if sent < count:
                    raise ASGIError(f"the file ended {count - sent} bytes too early")
                stream.raw_written()
            else:
                stop = offset + count
                while offset < stop:
                    size = min(HIGH_WATER, stop - offset)
                    data = await carrier.loop.run_blocking(os.pread, file, size, offset)
                    if not data:
                        raise ASGIError(f"the file ended {stop - offset} bytes too early")
                    if self._phase == GONE:
                        break
                    offset += len(data)
                    self.sent += len(data)
                    if not stream.send_data(data, False):
                        await self._wait_to_write()
            if self._phase == GONE:
                raise ClientDisconnected("the client has disconnected")
            if end:
                self._phase = DONE if self._trailers is None else TRAILERS
                self._wake()
                stream.send_data(b"", True)
        except ClientDisconnected:
            self._phase = GONE  # the transport noticed before the engine was told
            raise
        except LocalProtocolError as exc:
            raise ASGIError(f"the file cannot be sent: {exc}") from None

    # ------------------------------------------------------------------ from the engine

    def on_data(self, data: bytes) -> None:
        if self._pieces is None:
            self._pieces = [data]
        else:
            self._pieces.append(data)
        self._wake()

    def on_end(self) -> None:
        self._ended = True
        self._wake()

    def on_reset(self, error: RemoteProtocolError | None) -> None:
        if self._phase != DONE:
            self._phase = GONE
            if self._writers:
                wake(self._writers)
        self._wake()

    @property
    def was_cut(self) -> bool:
        """The exchange ended before its response was complete."""
        return self._phase == GONE

    def on_remote_closed(self) -> None:
        self._half_closed = True
        self._wake()

    def disconnect(self) -> None:
        """The server stops: tell the application through ``receive()``, even in mid-body.

        What it sends is still delivered.
        """
        self._half_closed = self._stopping = True
        self._wake()


_WHERE = (
    "before http.response.start",
    "at this point of the response body",
    "while trailers are expected",
    "after the response is complete",
)


def _as_bytes(body: object) -> bytes:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise ASGIError(f"'body' must be bytes, not {type(body).__name__}")


def _as_status(status: object) -> int:
    if isinstance(status, int) and not isinstance(status, bool):
        return int(status)  # http.HTTPStatus and other enumerations
    raise ASGIError(f"'status' must be an integer from 200 to 999, not {status!r:.80}")


def _as_list(headers: Any) -> list[Any]:
    try:
        return list(headers)
    except TypeError:
        message = f"http.response.start: headers must be (name, value) pairs, not {headers!r:.80}"
        raise ASGIError(message) from None


def _as_size(event: dict[str, Any], key: str) -> int | None:
    size = event.get(key)
    if size is None or (type(size) is int and size >= 0):
        return size
    raise ASGIError(f"{key!r} must be an integer from 0, not {size!r:.80}")


def _open(path: str) -> io.FileIO:
    return open(path, "rb", buffering=0)
