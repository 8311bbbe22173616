"""One HTTP/2 connection: when its output is written, what its deadlines are, how it ends.

The engine knows frames and windows, the cycles know their applications; what is between is
decided here.

::

    _SILENCE ──SETTINGS──▶ _ALIVE ⟲ requests ──GOAWAY, either side's──▶ CLOSE
                              │ the transport is full: WRITE, and back
    a broken peer, from anywhere: LINGER (its bytes are dropped, so that it finds our reason)

Rules:

1. All streams' output of one iteration of the loop leaves in one write.
2. One deadline: the nearest of what each stream waits for (`Http2Engine.overdue`), of the
   idle time, and of the next PING.
3. An application whose request was cancelled counts against the peer's streams until it
   returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.bridge.http import PUSH, HTTPCycle
from omnicorn.connections.bytestream import CLOSE, LINGER, WRITE
from omnicorn.connections.http import HTTPConnection
from omnicorn.errors import HandshakeRefused
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.http2.engine import Http2Engine
from omnicorn.protocols.http2.hpack import Strings
from omnicorn.protocols.http2.requests import RequestParser
from omnicorn.protocols.http2.responses import ResponseEncoder
from omnicorn.protocols.http2.settings import Http2Settings

if TYPE_CHECKING:
    from omnicorn.bridge.cycle import Cycle
    from omnicorn.connections.service import Service
    from omnicorn.errors import RemoteProtocolError
    from omnicorn.ports import StreamHandler
    from omnicorn.protocols.http2.requests import Head
    from omnicorn.protocols.http2.stream import Http2Stream

LINGER_TIME = 2.0
"""Seconds a peer may go on sending after our last byte."""

_PING = b"omnicorn"

# What the deadline is for.
_SILENCE, _ALIVE = range(2)


class Parts:
    """What the HTTP/2 connections of a server share, made for the first of them."""

    __slots__ = ("parser", "responses", "settings", "strings")

    def __init__(self, service: Service) -> None:
        http2 = service.http2
        self.parser = RequestParser(service.parser.limits)
        self.responses = ResponseEncoder()
        self.strings = Strings()
        self.settings = Http2Settings(
            http2.max_streams, http2.window, http2.stream_window, service.upgrades
        )


def _exchange(handler: Any) -> Cycle | None:
    """The exchange of a stream; None where it has become a WebSocket."""
    if type(handler) is HTTPCycle:
        return handler
    return None if handler.is_open else handler.cycle


class Http2Connection(HTTPConnection):
    """A peer's connection; `ConnectionPort` to the transport, `Http2Owner` to the engine."""

    __slots__ = ("_cycles", "_heard", "_idle_since", "_pinged")

    engine: Http2Engine[Http2Connection]

    def __init__(self, service: Service) -> None:
        super().__init__(service, _SILENCE)
        now = service.now()
        parts = service.http2_parts
        if parts is None:
            parts = service.http2_parts = Parts(service)
        self.engine = Http2Engine(
            self,
            parts.parser,
            parts.responses,
            parts.strings,
            service.defaults,
            parts.settings,
            service.flush_soon,
            now,
        )
        self._cycles: set[Cycle] = set()
        self._heard = now
        self._idle_since = now
        self._pinged = False

    # ------------------------------------------------------------------ from the transport

    def connection_made(self, transport: Any) -> None:
        self._meet(transport)
        self.engine.begin()
        self._expect(_SILENCE, self._service.timeouts.head)
        if self._service.draining:
            self.drain()

    def data_received(self, data: bytes) -> None:
        engine = self.engine
        if self._timing >= LINGER:
            return
        self._heard = now = self._service.now()
        engine.receive(data, now)
        if engine.closing:
            self._end()
        elif engine.pending > HIGH_WATER:
            self.flush()

    def eof_received(self) -> bool:
        """Returns whether the transport stays open for writing."""
        if self._timing >= LINGER:
            return False
        self.engine.receive_eof()
        if self.engine.closing:
            self._end()
            return False
        return True

    def pause_writing(self) -> None:
        self.engine.blocked = True
        if self._timing < WRITE:
            self._stall()

    def resume_writing(self) -> None:
        engine = self.engine
        engine.now = self._service.now()
        if self._timing == WRITE:
            self._timing = _ALIVE
            self.on_waiting()
        engine.unblock()

    def connection_lost(self, exc: Exception | None) -> None:
        service = self._service
        self._lose_transport()
        self.engine.connection_lost()
        service.stragglers |= self._cycles
        self._cycles.clear()
        if service.draining:
            service.check_idle()

    # ------------------------------------------------------------------ from the engine

    def on_request(self, stream: Http2Stream, head: Head) -> StreamHandler:
        service = self._service
        refusal = None
        handler: Any = None
        cycle: Any = None
        if head.upgrade is not None:
            try:
                handler = self._tunnel(stream, head)
                cycle = handler.cycle
            except HandshakeRefused as exc:
                refusal = exc.with_traceback(None)  # which would hold this frame
        if cycle is None:
            cycle = handler = self._http_cycle(stream, head)
        if service.timed:
            cycle.began = service.now()
        if refusal is not None or service.active >= service.limit:
            cycle.finished = True
            stream.handler = handler
            if refusal is not None:
                cycle.refuse(refusal.status, refusal.reason.encode(), refusal.headers)
            else:
                # Too many exchanges at once: say so without asking the application.
                cycle.refuse(503, b"Service Unavailable", [(b"retry-after", b"1")])
            return handler  # type: ignore[no-any-return]
        service.active += 1
        self._cycles.add(cycle)
        stream.handler = handler
        cycle.task = service.spawn(cycle.run())
        return handler  # type: ignore[no-any-return]

    def _tunnel(self, stream: Http2Stream, head: Head) -> Any:
        """What stands between a stream and its WebSocket (RFC 8441 §5).

        Raises:
            HandshakeRefused: There can be none.
        """
        service = self._service
        if head.upgrade != b"websocket" or not service.upgrades:
            raise HandshakeRefused("this protocol is not spoken here", 501)
        from omnicorn.connections.tunnel import StreamTunnel

        transport = self._transport
        assert transport is not None
        tunnel = StreamTunnel(service, self, transport, stream)
        tunnel.cycle = self._websocket_cycle(stream, head, tunnel, keyed=False)
        return tunnel

    def on_complete(self, stream: Http2Stream) -> None:
        service = self._service
        if service.access_log is not None and stream.handler is not None:
            cycle = _exchange(stream.handler)
            if cycle is not None and cycle.status:
                service.log(cycle)
        engine = self.engine
        if not engine.streams:
            self._idle_since = service.now()
            if engine.closing:
                self._end()

    def on_dropped(self, handler: StreamHandler) -> None:
        cycle = _exchange(handler)
        if cycle is not None and not cycle.finished:
            self.engine.orphans.add(cycle)

    def on_refused(self, error: RemoteProtocolError, stream: Http2Stream | None) -> None:
        self._log_refusal(error)
        if stream is not None and stream.handler is not None:
            cycle = _exchange(stream.handler)
            if cycle is not None and not cycle.status:
                cycle.status = error.status  # the engine's answer, not the application's

    def on_waiting(self) -> None:
        service = self._service
        self.engine.now = now = service.now()
        if self._timing < WRITE:
            when = now + min(service.timeouts.body, service.timeouts.write)
            if when < self.deadline:
                self.deadline = when
                service.deadlines.watch(self, when)

    def on_settings(self) -> None:
        extensions = {name: self._extensions[name] for name in self._extensions.keys() - PUSH}
        if self.engine.peer.push:
            extensions.update(PUSH)
        self._extensions = extensions

    def on_pong(self, content: bytes) -> None:
        """Any byte of the peer is a sign of life."""

    # ------------------------------------------------------------------ from the exchanges

    @property
    def can_sendfile(self) -> bool:
        """Content goes in frames: never by the kernel alone."""
        return False

    async def sendfile(self, file: int, offset: int, count: int) -> int:
        """See `HTTPCarrier`; `can_sendfile` says no."""
        raise NotImplementedError

    def push(self, stream: Http2Stream, path: bytes, headers: Any) -> None:
        """See `HTTPCarrier`."""
        self.engine.push(stream, self._scheme.encode(), path, headers)

    def on_cycle_end(self, cycle: Cycle, error: BaseException | None) -> None:
        """See `Carrier`."""
        self._cycles.discard(cycle)
        orphans = self.engine.orphans
        if orphans:
            orphans.discard(cycle)
        super().on_cycle_end(cycle, error)

    def forget(self, cycle: Cycle) -> None:
        """The exchange goes on as a WebSocket, which keeps it."""
        self._cycles.discard(cycle)

    # ------------------------------------------------------------------ deadlines

    def on_deadline(self, now: float) -> float:
        """See `Timed`."""
        service = self._service
        timeouts = service.timeouts
        if self._timing >= WRITE:
            if now >= self.deadline and not self._prolong(now, timeouts.write):
                self._cut()
            return self.deadline
        engine = self.engine
        nearest = engine.overdue(now, timeouts.body, timeouts.write)
        if engine.closing:
            self._end()
            return self.deadline
        if not engine.is_greeted:
            if now >= self.deadline:
                engine.stop()
                self._end()
            return self.deadline
        if engine.streams:
            nearest = min(nearest, self._keep_alive(now))
            nearest = min(nearest, now + timeouts.keep_alive)
        else:
            until = max(self._idle_since, self._heard) + timeouts.keep_alive
            if until <= now:
                engine.refuse_more()
                self._end()
                return self.deadline
            nearest = until
        self._timing = _ALIVE
        self.deadline = nearest
        return nearest

    def _keep_alive(self, now: float) -> float:
        """PING a peer that is silent while it waits; returns when to look again."""
        interval = self._service.http2.ping_interval
        if not interval:
            return float("inf")
        until = self._heard + interval
        if until > now:
            self._pinged = False
            return until
        if self._pinged:
            self._cut()
            return float("inf")
        self._pinged = True
        self.engine.ping(_PING)
        return now + interval

    # ------------------------------------------------------------------ closing

    def _end(self) -> None:
        """The engine has ended the conversation: write its last word, log why, close."""
        if self._timing >= LINGER:
            return
        self.flush()
        error = self.engine.error
        transport = self._transport
        if error is not None:
            self._log_refusal(error)
        if transport is None:
            return
        if error is not None and not self.engine.remote_closed and transport.can_write_eof():
            self._unwritten = 1 << 62  # the first look at what is unwritten sees progress
            self._expect(LINGER, LINGER_TIME)
            try:
                transport.write_eof()
            except OSError:  # the peer has gone, and the loop does not know it yet
                self._cut()
        else:
            self._close_transport()

    def drain(self) -> None:
        """The server stops: close once the streams in flight are finished."""
        engine = self.engine
        if self._timing >= LINGER:
            return
        engine.refuse_more()
        if engine.closing:
            self._end()

    def disconnect(self) -> None:
        """Tell every application that its client is as good as gone."""
        for cycle in tuple(self._cycles):
            cycle.disconnect()

    def abort(self) -> None:
        """Cancel every application and cut the connection."""
        for cycle in tuple(self._cycles):
            cycle.cancel()
        self.engine.stop()
        if self._timing != CLOSE:
            self._cut()
