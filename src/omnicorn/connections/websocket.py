"""One WebSocket on a byte-stream connection of its own, from the accepted handshake to its end.

This file alone decides when its bytes are written, what its deadline is, and how it closes;
the engine decides what is said, the bridge what the application sees.

::

    _QUIET ──interval──▶ ping, _PONG ──no pong──▶ 1011, _CLOSING
      └── the application or the server closes ──▶ _CLOSING ──the peer's close frame──▶ CLOSE
    the peer broke a rule ──▶ LINGER (its bytes are dropped, so that it finds our reason)
      └── messages before it still wait: _FAILING first

Rules:

1. Output leaves at the end of the loop's iteration, or when `HIGH_WATER` bytes wait, so that
   what an application sends in one go is one write. Where the loop's transports gather
   writes themselves, it is given to them at once, instead of going through all sockets
   once more.
2. A peer is not late with its pong while we do not read it, or while it is still reading
   what was written before the ping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.connections.bytestream import LINGER, WRITE, ByteStreamConnection
from omnicorn.protocols.websocket import WebSocketEngine
from omnicorn.protocols.websocket.deflate import Deflate
from omnicorn.protocols.websocket.engine import OPEN
from omnicorn.protocols.websocket.frames import ABNORMAL, INTERNAL_ERROR, SERVICE_RESTART
from omnicorn.transports.sockets import peer_name

if TYPE_CHECKING:
    from omnicorn.bridge.websocket import WebSocketCycle
    from omnicorn.connections.service import Service
    from omnicorn.ports import Transport
    from omnicorn.protocols.websocket import Offer

CLOSE_TIME = 5.0
"""Seconds a peer has to answer our close frame; also those that an application has to take the
messages in front of what broke a rule."""

_PING = b"omnicorn"

# What the deadline is for.
_QUIET, _PONG = range(2)
_FAILING, _CLOSING = WRITE + 1, WRITE + 2


class WebSocketConnection(ByteStreamConnection):
    """An open WebSocket: `ConnectionPort` to the transport, owner of the engine, carrier of
    the cycle.

    Args:
        service: Shared by the connections of a server.
        transport: The connection's, once its handshake has been answered.
        cycle: The application's side.
        offer: What was agreed.
    """

    __slots__ = ("_client",)

    _cycle: WebSocketCycle | None
    engine: WebSocketEngine[WebSocketConnection]

    def __init__(
        self, service: Service, transport: Transport, cycle: WebSocketCycle, offer: Offer
    ) -> None:
        super().__init__(service, _QUIET)
        self._transport = transport
        self._cycle = cycle
        self._client = cycle.scope.get("client")  # the transport's peer may be a front
        self.engine = WebSocketEngine(
            self,
            cycle,
            service.websockets.max_size,
            None if offer.deflate is None else Deflate(offer.deflate),
            WebSocketConnection.flush if service.loop.gathers_writes else service.flush_soon,
        )
        service.connections.add(self)
        self._rest()

    # ------------------------------------------------------------------ from the transport

    def connection_made(self, transport: Any) -> None:
        """See `ConnectionPort`; the connection was made before it became a WebSocket."""

    def data_received(self, data: bytes) -> None:
        self.engine.receive(data)

    def eof_received(self) -> bool:
        """Returns whether the transport stays open for writing."""
        if self._timing < LINGER:
            self.flush()
            self.engine.stop()
            if self._cycle is not None:
                self._cycle.on_closed(ABNORMAL, "")
            self._close_transport()
        return False

    def pause_writing(self) -> None:
        self.engine.blocked = True
        if self._timing <= _PONG:
            self._stall()

    def resume_writing(self) -> None:
        self.engine.unblock()
        if self._timing == WRITE:
            self._rest()
        if self._cycle is not None:
            self._cycle.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        cycle = self._lose_transport()
        self.engine.connection_lost()
        if cycle is not None:
            cycle.on_closed(ABNORMAL, "")
        self._service.check_idle()

    # ------------------------------------------------------------------ from the engine

    def on_readable(self, wanted: bool) -> None:
        transport = self._transport
        if transport is None or self._timing >= LINGER:
            return
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def on_failing(self) -> None:
        if self._timing < _CLOSING:
            self._expect(_FAILING, CLOSE_TIME)

    def on_pong(self, content: bytes) -> None:
        if self._timing == _PONG and content == _PING:
            self._rest()

    def on_closed(self, code: int, reason: str) -> None:
        """The peer's close frame came, or it broke a rule."""
        cycle = self._cycle
        if cycle is not None:
            cycle.on_closed(code, reason)
        self._close()

    # ------------------------------------------------------------------ from the exchange

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, and give the peer time to answer."""
        engine = self.engine
        if engine.state != OPEN:
            return
        engine.close(code, reason)
        self.flush()
        if self._timing < _CLOSING:
            self._unwritten = 1 << 62  # the first look at what is unwritten sees progress
            self._expect(_CLOSING, CLOSE_TIME)

    # ------------------------------------------------------------------ deadlines

    def _rest(self) -> None:
        """Nothing is awaited but the time of the next ping."""
        interval = self._service.websockets.ping_interval
        if interval:
            self._expect(_QUIET, interval)
        else:
            self._timing = _QUIET
            self.deadline = float("inf")

    def on_deadline(self, now: float) -> float:
        """See `Timed`."""
        if now < self.deadline:
            return self.deadline
        timing = self._timing
        if timing == _QUIET:
            self._ping(now)
        elif timing == _PONG:
            patience = self._service.websockets.ping_timeout
            if self.engine.paused:
                self.deadline = now + patience
            elif not self._prolong(now, patience):
                self._lose(INTERNAL_ERROR, "the peer does not answer pings")
        elif timing == _FAILING:
            self.engine.resume()
        else:
            # A peer that still reads what was sent before gets the time for it.
            patience = CLOSE_TIME if timing == _CLOSING else self._service.timeouts.write
            if timing == LINGER or not self._prolong(now, patience):
                self._cut()
        return self.deadline

    def _ping(self, now: float) -> None:
        settings = self._service.websockets
        self.engine.ping(_PING)
        self.flush()
        if self._timing != _QUIET:  # the transport is full
            return
        if settings.ping_timeout:
            self._timing = _PONG
            self._unwritten = self._waiting_bytes() + 1
            self.deadline = now + settings.ping_timeout
        else:
            self.deadline = now + settings.ping_interval

    # ------------------------------------------------------------------ closing

    def _lose(self, code: int, reason: str) -> None:
        """Close from this side, and tell the application so."""
        if self._cycle is not None:
            self._cycle.on_closed(code, reason)
        self.close(code, reason)

    def _close(self) -> None:
        """The conversation is over: close after what is written has left."""
        self.flush()
        transport = self._transport
        if transport is None or self._timing >= LINGER:
            return
        error = self.engine.error
        if error is None:
            self._close_transport()
            return
        service = self._service
        service.refusals(
            service.now(),
            "%s - WebSocket closed with %d: %s",
            peer_name(self._client),
            error.code,
            error.reason,
        )
        self._linger()

    def drain(self) -> None:
        """The server stops (RFC 6455 §7.4.1 and its registry: 1012, service restart)."""
        if self.engine.state == OPEN:
            self._lose(SERVICE_RESTART, "")

    def disconnect(self) -> None:
        """See `Http1Connection.disconnect`: `drain` has told the application."""
