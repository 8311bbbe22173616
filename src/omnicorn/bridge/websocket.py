"""One WebSocket's conversation with its application (ASGI WebSocket spec 2.5).

What this file alone decides: the order of messages, and who may send what and when.

::

    START ──websocket.accept──▶ OPEN ⟲ websocket.send ──websocket.close──▶ DONE
      │──websocket.close (403)──────────────────────────────────────────▶ DONE
      └──websocket.http.response.start──▶ DENYING ⟲ ....body (more_body) ─▶ DONE
    the peer closes or leaves, or the server stops: GONE

Rules:

1. ``receive()`` gives ``websocket.connect``, then every message that came, then
   ``websocket.disconnect``, also after the application's own close. Once too many messages
   wait, or too many bytes, the peer is not read until half of them are taken.
2. ``send()`` after the end, whoever made it, raises `ClientDisconnected`; a message out of
   order, of the wrong type or with a part that cannot be sent raises `ASGIError`.
3. An application that returns before it has answered, or raises, is a 500 (503 where it
   obeys a server that stops); one that returns from an open WebSocket closes it with 1000,
   one that raises with 1011.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from omnicorn.bridge.cycle import DONE, GONE, START, Carrier, Cycle, wake
from omnicorn.errors import ASGIError, ClientDisconnected, LocalProtocolError

if TYPE_CHECKING:
    from omnicorn.bridge.cycle import Application
    from omnicorn.errors import RemoteProtocolError
    from omnicorn.ports import Headers, Stream

OPEN, DENYING = 1, 2  # between START and DONE

EXTENSIONS: dict[str, dict[str, Any]] = {"websocket.http.response": {}}
"""What every carrier of WebSockets offers."""

NORMAL, ABNORMAL, INTERNAL_ERROR, SERVICE_RESTART = 1000, 1006, 1011, 1012


class Socket(Protocol):
    """An open WebSocket, as `SocketCarrier.accept` gives it."""

    @property
    def paused(self) -> bool:
        """Whether the peer is kept waiting: ``on_message`` asked for it, or what follows the
        messages that wait breaks a rule."""

    @property
    def failure(self) -> object:
        """The rule broken by what follows; None where there is none."""

    def resume(self) -> None:
        """Let the peer go on, or be told that it broke a rule."""

    def send_text(self, text: str) -> bool: ...
    def send_bytes(self, data: bytes) -> bool: ...


class OpenCarrier(Carrier, Protocol):
    """The connection of an open WebSocket."""

    def close(self, code: int, reason: str) -> None:
        """Say goodbye; raises LocalProtocolError where that cannot be said."""


class SocketCarrier(Carrier, Protocol):
    """The connection of a handshake."""

    def accept(
        self, cycle: WebSocketCycle, subprotocol: str | None, headers: Headers
    ) -> tuple[OpenCarrier, Socket]:
        """Complete the handshake.

        Raises:
            LocalProtocolError: The answer cannot be sent.
        """


class WebSocketCycle(Cycle):
    """One WebSocket, from its handshake to its end.

    Args:
        app: The ASGI 3 application.
        scope: The WebSocket's scope.
        stream: The way back to the peer for a denial.
        carrier: The connection.
        offer: What the carrier wants to know again in ``accept``.
        max_queue: Messages that may wait for the application.
        max_size: Bytes that may wait for it.

    Attributes:
        offer: As given.
    """

    __slots__ = (
        "_connected",
        "_end",
        "_max_queue",
        "_max_size",
        "_messages",
        "_size",
        "_socket",
        "offer",
    )

    def __init__(
        self,
        app: Application,
        scope: dict[str, Any],
        stream: Stream,
        carrier: SocketCarrier,
        offer: Any,
        max_queue: int,
        max_size: int,
    ) -> None:
        super().__init__(app, scope, stream, carrier)
        self.offer = offer
        self._connected = False
        self._end: tuple[int, str] | None = None  # code and reason, once it is over
        self._max_queue = max_queue
        self._max_size = max_size
        self._messages: deque[str | bytes] = deque()
        self._size = 0  # of all messages that wait
        self._socket: Any = None

    # ------------------------------------------------------------------ the application

    def _unfinished(self) -> ASGIError | None:
        if self._told:
            return None  # it only does as it was told
        if self._phase == START:
            return ASGIError("the application returned without accepting or denying the WebSocket")
        if self._phase == DENYING:
            return ASGIError("the application returned in the middle of its denial response")
        return None

    def _give_up(self, error: BaseException | None) -> None:
        if self._phase == START and self._told and error is None:
            self.refuse(503, b"Service Unavailable", [(b"retry-after", b"1")])
        elif self._phase == START:
            self.refuse(500, b"Internal Server Error", [])
            self._over(ABNORMAL, "")
        elif self._phase == DENYING:
            self._phase = GONE
            self._over(ABNORMAL, "")
            self._stream.reset()
        elif self.was_cancelled:
            self._close(SERVICE_RESTART, "")
        elif error is not None:
            self._close(INTERNAL_ERROR, "")
        else:
            self._close(NORMAL, "")

    def _close(self, code: int, reason: str) -> None:
        """Close the open WebSocket from this side."""
        self._carrier.close(code, reason)
        self._phase = DONE
        self._over(code, reason)

    def _over(self, code: int, reason: str) -> None:
        if self._end is None:
            self._end = (code, reason)
        self._wake()
        if self._writers:
            wake(self._writers)

    async def receive(self) -> dict[str, Any]:
        """ASGI ``receive``."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        messages = self._messages
        while not messages:
            if self._end is not None:
                self._told = True
                code, reason = self._end
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            if self._socket is not None and self._socket.paused:
                self._socket.resume()
            else:
                await self._wait_to_read()
        message = messages.popleft()
        self._size -= len(message)
        socket = self._socket
        if (
            socket.paused
            and socket.failure is None  # that can wait for the answers to what came before
            and len(messages) <= self._max_queue // 2
            and self._size <= self._max_size // 2
        ):
            socket.resume()
        if type(message) is str:
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    async def send(self, event: dict[str, Any]) -> None:
        """ASGI ``send``."""
        try:
            kind = event["type"]
        except (TypeError, KeyError):
            raise ASGIError(f"a message is a dict with a 'type', not {event!r:.80}") from None
        if self._phase == OPEN and kind == "websocket.send":
            text = event.get("text")
            data = event.get("bytes")
            if (text is None) == (data is None):
                raise ASGIError("websocket.send needs one of 'text' and 'bytes'")
            try:
                if text is not None:
                    keep_on = self._socket.send_text(text)
                elif type(data) is bytes:
                    keep_on = self._socket.send_bytes(data)
                else:
                    keep_on = self._socket.send_bytes(_as_bytes(data))
            except LocalProtocolError as exc:
                raise ASGIError(f"websocket.send: {exc}") from None
            self.sent += len(data if text is None else text)  # type: ignore[arg-type]
            if not keep_on:
                await self._wait_to_write()
        else:
            await self._send_other(kind, event)

    async def _send_other(self, kind: object, event: dict[str, Any]) -> None:
        """Every message but those of an open WebSocket."""
        phase = self._phase
        try:
            if not isinstance(kind, str) or kind not in _EVENTS:
                raise ASGIError(f"the message type {kind!r:.80} is unknown here")
            if phase >= DONE:
                raise ClientDisconnected(
                    "the client has disconnected"
                    if phase == GONE
                    else "the application has closed this WebSocket"
                )
            if kind == "websocket.close" and phase == OPEN:
                self._close(_code(event), event.get("reason") or "")
            elif kind == "websocket.close" and phase == START:
                self._deny()
            elif kind == "websocket.accept" and phase == START:
                self._accept(event)
            elif kind == "websocket.http.response.start" and phase == START:
                self._start_denial(event)
            elif kind == "websocket.http.response.body" and phase == DENYING:
                await self._go_on_denying(event)
            else:
                raise ASGIError(f"{kind} cannot be sent {_WHERE[phase]}")
        except LocalProtocolError as exc:
            raise ASGIError(f"{kind}: {exc}") from None

    def _accept(self, event: dict[str, Any]) -> None:
        subprotocol = event.get("subprotocol")
        headers = event.get("headers") or ()
        self._carrier, self._socket = self._carrier.accept(self, subprotocol, headers)
        self._stream = None  # type: ignore[assignment]  # its engine's part is over
        if self._phase == START:  # else the first bytes behind the handshake ended it
            self._phase = OPEN

    def _deny(self) -> None:
        """A close before the answer: 403 (ASGI WebSocket §Close)."""
        self.refuse(403, b"Forbidden", [])
        self._over(ABNORMAL, "")

    def _start_denial(self, event: dict[str, Any]) -> None:
        status = event.get("status")
        if not isinstance(status, int) or isinstance(status, bool):
            raise ASGIError(f"websocket.http.response.start: 'status' is {status!r:.80}")
        headers = event.get("headers") or ()
        try:
            headers = list(headers)
        except TypeError:
            raise ASGIError(
                f"websocket.http.response.start: headers must be pairs, not {headers!r:.80}"
            ) from None
        # What follows on this connection could be frames as well as a request.
        self._stream.send_head(int(status), [*headers, (b"connection", b"close")])
        self.status = int(status)
        self.response_headers = headers
        self._phase = DENYING

    async def _go_on_denying(self, event: dict[str, Any]) -> None:
        body = event.get("body", b"")
        if type(body) is not bytes:
            body = _as_bytes(body)
        more = bool(event.get("more_body", False))
        self.sent += len(body)
        if not more:
            self._phase = DONE
        try:
            keep_on = self._stream.send_data(body, not more)
        except LocalProtocolError:
            if self._stream.is_responding:  # refused, and nothing of it was sent
                self._phase = DENYING
                self.sent -= len(body)
            raise
        finally:
            if self._phase == DONE:
                self._over(ABNORMAL, "")
        if not keep_on and more:
            await self._wait_to_write()

    # ------------------------------------------------------------------ before the answer

    @property
    def was_cut(self) -> bool:
        """The peer left before an answer was complete."""
        return self._phase == GONE and self._socket is None

    def on_data(self, data: bytes) -> None:
        """See `StreamHandler`: a handshake has no content."""

    def on_end(self) -> None:
        """See `StreamHandler`."""

    def on_reset(self, error: RemoteProtocolError | None) -> None:
        """See `StreamHandler`."""
        if self._phase != DONE:
            self._phase = GONE
        self._over(ABNORMAL, "")

    def on_remote_closed(self) -> None:
        """See `StreamHandler`: who cannot send frames any more has no use for an answer."""
        if self._phase < DONE:
            self._phase = GONE
            self._over(ABNORMAL, "")
            self._stream.reset()

    @property
    def _lost(self) -> bool:
        # Who sent a close frame has read, or could have, what was sent before.
        return self._end is not None and self._end[0] == ABNORMAL

    # ------------------------------------------------------------------ from the WebSocket

    @property
    def is_behind(self) -> bool:
        """See `MessageHandler`."""
        return bool(self._messages)

    def on_message(self, message: str | bytes) -> bool:
        """See `MessageHandler`."""
        self._messages.append(message)
        self._size += len(message)
        if self._readers:
            wake(self._readers)
        return len(self._messages) >= self._max_queue or self._size > self._max_size

    def on_closed(self, code: int, reason: str) -> None:
        """See `MessageHandler`."""
        if self._phase != DONE:
            self._phase = GONE
        self._over(code, reason)

    def disconnect(self) -> None:
        """The server stops: tell an application that has not answered yet.

        It may answer all the same; an open WebSocket has been closed before.
        """
        if self._phase in (START, DENYING):
            self._over(SERVICE_RESTART, "")


_EVENTS = frozenset(
    {
        "websocket.accept",
        "websocket.close",
        "websocket.send",
        "websocket.http.response.start",
        "websocket.http.response.body",
    }
)

_WHERE = (
    "before websocket.accept",
    "after websocket.accept",
    "after websocket.http.response.start",
)


def _code(event: dict[str, Any]) -> int:
    code = event.get("code", NORMAL)
    if code is None:
        return NORMAL
    if not isinstance(code, int) or isinstance(code, bool):
        raise ASGIError(f"websocket.close: 'code' must be an integer, not {code!r:.80}")
    return int(code)


def _as_bytes(data: object) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise ASGIError(f"bytes are needed, not {type(data).__name__}")
