"""One byte-stream connection, from accept to close, whatever the loop.

This file alone decides when bytes are written, what the connection's deadline is, and how
it closes; the engine decides what is said, the bridge what the application sees.

::

    transport ──data_received──▶ engine ──on_request──▶ HTTPCycle ──▶ the application
        ▲                          │ ▲                      │
        └──────── flush ◀──────────┘ └─── verbs ◀───────────┘

Rules:

1. A complete response is flushed at once; anything else at the end of the loop's
   iteration, or when `HIGH_WATER` bytes wait. So head and body leave in one write, and so
   do all the pieces that an application sends in one go.
2. A busy connection (the application's turn) has no deadline, an idle one always has.
3. Closing never takes a response away from a peer that is still sending: reset by unread
   bytes would destroy it in flight (RFC 9112 §9.6), so we *linger*: stop writing, read and
   drop for a bounded while, then close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.connections.bytestream import CLOSE, DRAIN_TIME, LINGER, WRITE
from omnicorn.connections.exclusive import ExclusiveConnection
from omnicorn.errors import HandshakeRefused
from omnicorn.http.fields import list_tokens
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.http1 import Http1Engine
from omnicorn.protocols.http1.states import BODY, COMPLETE, HEAD, IDLE

if TYPE_CHECKING:
    from omnicorn.bridge.http import HTTPCycle
    from omnicorn.bridge.websocket import WebSocketCycle
    from omnicorn.bridge.wsgi import WsgiCycle
    from omnicorn.connections.http2 import Http2Connection
    from omnicorn.connections.service import Service
    from omnicorn.ports import RequestHead, Stream, StreamHandler

# What the deadline is for.
_SILENCE, _HEAD, _BODY, _IDLE = range(4)

_NOBODY: Any = None
"""The handler of a request that another connection answers."""


class Http1Connection(ExclusiveConnection):
    """A peer's connection; `ConnectionPort` to the transport, `StreamOwner` to the engine."""

    __slots__ = ()

    engine: Http1Engine[Http1Connection]

    def __init__(self, service: Service) -> None:
        super().__init__(service, _SILENCE)
        self.engine = Http1Engine(
            self, service.parser, service.encoder, service.defaults, service.flush_soon
        )

    # ------------------------------------------------------------------ from the transport

    def connection_made(self, transport: Any) -> None:
        self._meet(transport)
        self._expect(_SILENCE, self._time_for_a_head())

    def data_received(self, data: bytes) -> None:
        engine = self.engine
        engine.receive(data)
        if engine.remote != COMPLETE:
            self._attend(len(data))

    def eof_received(self) -> bool:
        """Returns whether the transport stays open for writing."""
        if self._timing >= LINGER:
            return False
        engine = self.engine
        engine.receive_eof()
        if engine.closing:
            self._end()
            return False
        return True

    def resume_writing(self) -> None:
        engine = self.engine
        engine.blocked = False
        if self._timing == WRITE:
            self._timing = _IDLE
            if engine.remote == BODY:
                self._expect(_BODY, self._service.timeouts.body)
        cycle = self._cycle
        if cycle is not None:
            cycle.on_writable()
        if engine.is_complete and self._timing < LINGER:
            self._next()

    # ------------------------------------------------------------------ from the engine

    def on_request(self, stream: Stream, head: RequestHead) -> StreamHandler:
        service = self._service
        refusal = None
        cycle: HTTPCycle | WebSocketCycle | WsgiCycle | None = None
        if head.upgrade is not None:
            tokens = list_tokens(head.upgrade)
            if b"websocket" in tokens and service.upgrades:
                try:
                    # What follows could be frames as well as a request: there is none after it.
                    self.engine.refuse_more()
                    cycle = self._websocket_cycle(stream, head, self, keyed=True)
                except HandshakeRefused as exc:
                    refusal = exc.with_traceback(None)  # which would hold this frame
            elif b"h2c" in tokens and self._upgrade(head):
                return _NOBODY  # type: ignore[no-any-return]
        if cycle is None:
            cycle = self._http_cycle(stream, head)
        previous = self._cycle
        if previous is not None and not previous.finished:
            service.stragglers.add(previous)
        self._cycle = cycle
        if service.timed:
            cycle.began = service.now()
        if refusal is not None or service.active >= service.limit:
            self._turn_away(cycle, refusal)
            return cycle
        service.active += 1
        service.requests += 1
        if service.draining:
            self.engine.refuse_more()
        spawn = service.spawn  # no methods, this and `now`: to be called as such takes longer
        cycle.task = spawn(cycle.run())
        return cycle

    def on_preface(self, data: bytes) -> bool:
        """The first bytes of HTTP/2 with prior knowledge came (RFC 9113 §3.3): hand over.

        Returns:
            False where it is not spoken here.
        """
        if not self._service.http2.enabled or self._secure:
            return False  # over TLS, ALPN decides (RFC 9113 §3.2)
        self._become_http2().data_received(data)
        return True

    def _upgrade(self, head: RequestHead) -> bool:
        """``Upgrade: h2c``: answer 101, and the request on stream 1 (RFC 7540 §3.2).

        Returns:
            False where the request is answered by HTTP/1.1, as it may always be.
        """
        service = self._service
        if not service.http2.enabled or self._secure or head.has_body:
            return False
        from omnicorn.protocols.http2.upgrade import as_http2, read_settings

        settings = read_settings(head)
        if settings is None:
            return False
        rest = self.engine.switch_protocols(b"h2c", [])
        connection = self._become_http2()
        connection.engine.upgrade(settings, as_http2(head))
        if connection.engine.closing:
            connection.data_received(b"")
        elif rest:
            connection.data_received(rest)
        return True

    def _become_http2(self) -> Http2Connection:
        """This connection's part is over, HTTP/2's begins; what was said so far is written."""
        from omnicorn.connections.http2 import Http2Connection

        service = self._service
        transport = self._transport
        assert transport is not None
        self.flush()
        service.connections.discard(self)
        service.deadlines.forget(self)
        full = self._timing == WRITE
        self._transport = None
        self._timing = CLOSE
        connection = Http2Connection(service)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if full:
            connection.pause_writing()
        if not self.engine.reading:
            transport.resume_reading()
        return connection

    def on_readable(self, wanted: bool) -> None:
        transport = self._transport
        if transport is None or self._timing >= LINGER:
            return
        if wanted:
            transport.resume_reading()
            if self._timing == _BODY:
                self._expect(_BODY, self._service.timeouts.body)
        else:
            transport.pause_reading()

    def on_continue(self) -> None:
        if self._timing == _BODY:
            self._expect(_BODY, self._service.timeouts.body)

    def on_complete(self, stream: Stream) -> None:
        engine = self.engine
        transport = self._transport
        if engine.pending > HIGH_WATER or transport is None:
            self.flush()
        else:
            out = engine.out
            transport.write(b"".join(out))
            out.clear()
            engine.pending = 0
        if self._service.access_log is not None:
            cycle = self._cycle
            if cycle is not None and cycle.status:  # else its peer left before there was one
                self._service.log(cycle)
        if engine.closing:
            self._close()
        elif engine.remote == COMPLETE:
            self._next()

    def on_ready(self) -> None:
        self._next()

    # ------------------------------------------------------------------ turns and deadlines

    def _next(self) -> None:
        """Both sides are complete: let the next request come, unless this peer lags."""
        engine = self.engine
        if engine.blocked:
            return  # resume_writing comes back here
        service = self._service
        if service.draining:
            self._close()
            return
        if service.short_idle:
            self._expect(_IDLE, service.timeouts.keep_alive)
        else:
            self._timing = _IDLE
            now = service.now
            self.deadline = now() + service.keep_alive
        engine.proceed()
        if engine.remote != IDLE and engine.remote != COMPLETE:
            self._attend(0)

    def _attend(self, received: int) -> None:
        """Bytes came, and it is still the peer's turn, or it has lost it."""
        engine = self.engine
        remote = engine.remote
        timing = self._timing
        if timing >= LINGER:
            self._drop(received)
        elif engine.closing:
            self._end()
        elif timing == WRITE:
            pass
        elif remote == HEAD:
            if timing != _HEAD:
                self._expect(_HEAD, self._time_for_a_head())
        elif remote == BODY:
            self._expect(_BODY, self._service.timeouts.body)

    def _time_for_a_head(self) -> float:
        service = self._service
        head = service.timeouts.head
        return min(DRAIN_TIME, head) if service.draining else head

    def on_deadline(self, now: float) -> float:
        """See `Timed`."""
        if now < self.deadline:
            return self.deadline
        engine = self.engine
        timing = self._timing
        timeouts = self._service.timeouts
        if timing >= WRITE:
            if not self._prolong(now, timeouts.write):
                self._cut()
            return self.deadline
        if engine.remote == COMPLETE or (engine.remote == BODY and not engine.awaits_peer):
            self.deadline = now + timeouts.keep_alive
            return self.deadline
        engine.timed_out()
        self._end()
        return self.deadline

    # ------------------------------------------------------------------ closing

    def _end(self) -> None:
        """The engine has ended the conversation: write its last word, log why, close."""
        self.flush()
        service = self._service
        cycle = self._cycle
        error = self.engine.error
        if error is not None:
            if not self.engine.remote_closed:
                self._log_refusal(error, error.status)
                if cycle is not None and not cycle.status:
                    cycle.status = error.status  # the engine's answer, not the application's
            if service.access_log is not None and cycle is not None and cycle.was_cut:
                self._service.log(cycle)
        self._close()

    def _close(self) -> None:
        """Close after what is written has left, without taking it away from the peer."""
        transport = self._transport
        engine = self.engine
        if transport is None or self._timing >= LINGER:
            return
        if engine.cut:
            self._cut()
            return
        lingers = engine.expects_more and transport.can_write_eof()
        engine.stop()
        if lingers:
            self._linger()
        else:
            self._close_transport()

    def drain(self) -> None:
        """The server stops: close now if idle, else after the exchange in progress.

        Neither a new connection is idle, for its request may be on its way, nor one in the midst
        of a head: what comes soon is still answered.
        """
        engine = self.engine
        timing = self._timing
        if engine.remote == HEAD or (timing == _SILENCE and engine.remote == IDLE):
            if timing < WRITE:  # else the peer has first to read
                self._expect(timing, self._time_for_a_head())
            return
        engine.refuse_more()
        if engine.closing and self._timing < LINGER:
            self._close()
