"""One WebSocket on a byte-stream connection of its own, from the accepted handshake to its end.

This file alone decides when its bytes are written, what its deadline is, and how it closes;
the engine decides what is said, the bridge what the application sees.

::

    _QUIET ──interval──▶ ping, _PONG ──no pong──▶ 1011, _CLOSING
      └── the application or the server closes ──▶ _CLOSING ──the peer's close frame──▶ _CLOSE
    the peer broke a rule ──▶ _LINGER (its bytes are dropped, so that it finds our reason)
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

from omnicorn.connections.writing import write_pieces
from omnicorn.protocols.websocket import WebSocketEngine
from omnicorn.protocols.websocket.deflate import Deflate
from omnicorn.protocols.websocket.engine import OPEN
from omnicorn.protocols.websocket.frames import ABNORMAL, INTERNAL_ERROR, SERVICE_RESTART
from omnicorn.transports.sockets import peer_address, peer_name, reset_on_close

if TYPE_CHECKING:
    from omnicorn.bridge.websocket import WebSocketCycle
    from omnicorn.connections.service import Service
    from omnicorn.ports import Loop, Transport
    from omnicorn.protocols.websocket import Offer

CLOSE_TIME = 5.0
"""Seconds a peer has to answer our close frame; also those that an application has to take the
messages in front of what broke a rule."""
LINGER_TIME = 2.0
"""Seconds a peer that broke a rule may go on sending."""

_PING = b"omnicorn"

# What the deadline is for.
_QUIET, _PONG, _WRITE, _FAILING, _CLOSING, _LINGER, _CLOSE = range(7)


class WebSocketConnection:
    """An open WebSocket: `ConnectionPort` to the transport, owner of the engine, carrier of
    the cycle.

    Args:
        service: Shared by the connections of a server.
        transport: The connection's, once its handshake has been answered.
        cycle: The application's side.
        offer: What was agreed.

    Attributes:
        slot: Belongs to `Deadlines`.
        deadline: In loop time.
        engine: The protocol's state machine.
    """

    __slots__ = (
        "__weakref__",
        "_cycle",
        "_service",
        "_timing",
        "_transport",
        "_unwritten",
        "deadline",
        "engine",
        "slot",
    )

    def __init__(
        self, service: Service, transport: Transport, cycle: WebSocketCycle, offer: Offer
    ) -> None:
        self._service = service
        self._transport: Transport | None = transport
        self._cycle: WebSocketCycle | None = cycle
        self.engine = WebSocketEngine(
            self,
            cycle,
            service.websockets.max_size,
            None if offer.deflate is None else Deflate(offer.deflate),
            WebSocketConnection.flush if service.loop.gathers_writes else service.flush_soon,
        )
        self._unwritten = 0
        self._timing = _QUIET
        self.deadline = 0.0
        self.slot = -1
        service.connections.add(self)
        self._rest()

    # ------------------------------------------------------------------ from the transport

    def connection_made(self, transport: Any) -> None:
        """See `ConnectionPort`; the connection was made before it became a WebSocket."""

    def data_received(self, data: bytes) -> None:
        self.engine.receive(data)

    def eof_received(self) -> bool:
        """Returns whether the transport stays open for writing."""
        if self._timing < _LINGER:
            self.flush()
            self.engine.stop()
            if self._cycle is not None:
                self._cycle.on_closed(ABNORMAL, "")
            self._unwritten = self._waiting_bytes()
            self._expect(_CLOSE, self._service.timeouts.write)
        return False

    def pause_writing(self) -> None:
        self.engine.blocked = True
        if self._timing <= _PONG:
            self._unwritten = self._waiting_bytes()
            self._expect(_WRITE, self._service.timeouts.write)

    def resume_writing(self) -> None:
        self.engine.unblock()
        if self._timing == _WRITE:
            self._rest()
        if self._cycle is not None:
            self._cycle.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        service = self._service
        service.connections.discard(self)
        service.deadlines.forget(self)
        self._transport = None
        self._timing = _CLOSE
        cycle, self._cycle = self._cycle, None
        self.engine.connection_lost()
        if cycle is not None:
            if not cycle.finished:
                service.stragglers.add(cycle)  # the application may go on; keep its task
            cycle.on_closed(ABNORMAL, "")
        service.check_idle()

    # ------------------------------------------------------------------ from the engine

    def on_readable(self, wanted: bool) -> None:
        transport = self._transport
        if transport is None or self._timing >= _LINGER:
            return
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def on_full(self) -> None:
        self.flush()
        engine = self.engine
        if not engine.blocked:
            # The peer keeps up, but others want their turn: let the application pause once.
            engine.blocked = True
            self._service.loop.call_soon(self._unblock)

    def _unblock(self) -> None:
        if self._timing != _WRITE and self._transport is not None:
            self.resume_writing()

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

    @property
    def loop(self) -> Loop:
        return self._service.loop

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

    def on_cycle_end(self, cycle: WebSocketCycle, error: BaseException | None) -> None:
        service = self._service
        service.active -= 1
        self._cycle = None
        service.stragglers.discard(cycle)
        service.end(cycle, error)

    # ------------------------------------------------------------------ output

    def flush(self) -> None:
        """Write what the engine has to say."""
        transport = self._transport
        pending = self.engine.pending
        out = self.engine.take()
        if transport is None or not out:
            return
        if len(out) == 1:
            transport.write(out[0])
        else:
            write_pieces(transport, out, pending)

    # ------------------------------------------------------------------ deadlines

    def _rest(self) -> None:
        """Nothing is awaited but the time of the next ping."""
        interval = self._service.websockets.ping_interval
        if interval:
            self._expect(_QUIET, interval)
        else:
            self._timing = _QUIET
            self.deadline = float("inf")

    def _expect(self, timing: int, seconds: float) -> None:
        service = self._service
        self._timing = timing
        self.deadline = deadline = service.now() + seconds
        service.deadlines.watch(self, deadline)

    def on_deadline(self, now: float) -> float:
        """See `Timed`."""
        if now < self.deadline:
            return self.deadline
        timing = self._timing
        if timing == _QUIET:
            self._ping(now)
        elif timing == _PONG:
            waiting = self._waiting_bytes()
            if self.engine.paused or (waiting and waiting < self._unwritten):
                self._unwritten = waiting
                self.deadline = now + self._service.websockets.ping_timeout
            else:
                self._lose(INTERNAL_ERROR, "the peer does not answer pings")
        elif timing == _FAILING:
            self.engine.resume()
        elif timing in (_WRITE, _CLOSE):
            waiting = self._waiting_bytes()
            if waiting and waiting < self._unwritten:
                self._unwritten = waiting
                self.deadline = now + self._service.timeouts.write
            else:
                self._cut()
        elif timing == _CLOSING and 0 < self._waiting_bytes() < self._unwritten:
            # It still reads what was sent before our close frame.
            self._unwritten = self._waiting_bytes()
            self.deadline = now + CLOSE_TIME
        else:
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
        if transport is None or self._timing >= _LINGER:
            return
        error = self.engine.error
        if error is None:
            self._unwritten = self._waiting_bytes()
            self._expect(_CLOSE, self._service.timeouts.write)
            transport.close()
            return
        service = self._service
        service.refusals(
            service.now(),
            "%s - WebSocket closed with %d: %s",
            peer_name(peer_address(transport.get_extra_info("peername"))),
            error.code,
            error.reason,
        )
        self._expect(_LINGER, LINGER_TIME)
        # Bytes that nobody reads would become a reset, and take our close frame away.
        transport.resume_reading()
        try:
            if transport.can_write_eof():
                transport.write_eof()
        except OSError:  # the peer has gone, and the loop does not know it yet
            self._cut()

    def _cut(self) -> None:
        """Close at once."""
        self._timing = _CLOSE
        self.deadline = float("inf")
        transport = self._transport
        if transport is not None:
            if self._waiting_bytes():
                sock = transport.get_extra_info("socket")
                if sock is not None:
                    reset_on_close(sock)
            transport.abort()

    def abort(self) -> None:
        """Cancel the application and cut the connection."""
        if self._cycle is not None:
            self._cycle.cancel()
        self._cut()

    def drain(self) -> None:
        """The server stops (RFC 6455 §7.4.1 and its registry: 1012, service restart)."""
        if self.engine.state == OPEN:
            self._lose(SERVICE_RESTART, "")

    def disconnect(self) -> None:
        """See `Connection.disconnect`: `drain` has told the application."""

    def _waiting_bytes(self) -> int:
        transport = self._transport
        return 0 if transport is None else transport.get_write_buffer_size()
