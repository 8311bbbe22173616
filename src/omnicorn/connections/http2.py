"""One HTTP/2 connection: when its output is written, what its deadlines are, how it ends.

The engine knows frames and windows, the cycles know their applications; what is between is
decided here.

::

    SILENCE ──SETTINGS──▶ ALIVE ⟲ requests ──GOAWAY, either side's──▶ CLOSE
                            │ the transport is full: WRITE, and back
    our last word, from anywhere: LINGER (what still comes is dropped, so that it is read)

Rules:

1. The deadline is the nearest of what each stream waits for (`Http2Engine.overdue`), of the
   idle time, and of the next PING.
2. An application whose request was cancelled counts against the peer's streams until it
   returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.bridge.cycle import Exchange
from omnicorn.bridge.http import PUSH
from omnicorn.connections.bytestream import LINGER, LINGER_TIME, WRITE
from omnicorn.connections.multiplexed import ALIVE, SILENCE, MultiplexedConnection
from omnicorn.errors import HandshakeRefused, Http2Error, Http2StreamError
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.http2.codes import ERROR_NAMES
from omnicorn.protocols.http2.engine import Http2Engine
from omnicorn.protocols.http2.hpack import Strings
from omnicorn.protocols.http2.requests import RequestParser
from omnicorn.protocols.http2.responses import ResponseEncoder
from omnicorn.protocols.http2.settings import Http2Settings

if TYPE_CHECKING:
    from omnicorn.connections.service import Service
    from omnicorn.errors import RemoteProtocolError
    from omnicorn.ports import StreamHandler
    from omnicorn.protocols.http2.requests import Head
    from omnicorn.protocols.http2.stream import Http2Stream

_PING = b"omnicorn"


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


def _exchange(handler: Any) -> Any:
    """The exchange of a stream; None where it has become a WebSocket."""
    if isinstance(handler, Exchange):
        return handler
    return None if handler.is_open else handler.cycle


def _answer(error: RemoteProtocolError) -> int | str:
    """What a peer gets for *error*, for the log."""
    if isinstance(error, (Http2Error, Http2StreamError)):
        return ERROR_NAMES[error.code]
    return error.status


class Http2Connection(MultiplexedConnection):
    """A peer's connection; `ConnectionPort` to the transport, `Http2Owner` to the engine."""

    __slots__ = ("_heard", "_pinged")

    engine: Http2Engine[Http2Connection]

    def __init__(self, service: Service) -> None:
        timeouts = service.timeouts
        patience = min(timeouts.head, timeouts.body, timeouts.write, timeouts.keep_alive)
        if service.http2.ping_interval:
            patience = min(patience, service.http2.ping_interval)
        super().__init__(service, patience)
        now = self._idle_since
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
            Http2Connection._flush_soon,
            now,
        )
        self._heard = now
        self._pinged = now - 1.0

    # ------------------------------------------------------------------ from the transport

    def connection_made(self, transport: Any) -> None:
        self._meet(transport)
        self.engine.begin()
        self._expect(SILENCE, self._service.timeouts.head)
        if self._service.draining:
            self.drain()

    def data_received(self, data: bytes) -> None:
        engine = self.engine
        if self._timing >= LINGER:
            return
        self._heard = now = self._service.now()
        busy = bool(engine.streams)
        engine.receive(data, now)
        if engine.closing:
            self._end()
            return
        if engine.pending > HIGH_WATER:
            self.flush()
        if self._is_deaf():  # the heads of responses need no window
            transport = self._transport
            if transport is not None:
                transport.pause_reading()
        if busy and not engine.streams:
            self._idle_since = now
        if self._timing == SILENCE and engine.is_greeted:
            self._timing = ALIVE
            self._idle_since = now
            self._hasten(now + self._patience)

    def eof_received(self) -> bool:
        """Returns whether the transport stays open for writing."""
        if self._timing >= LINGER:
            return False
        self.engine.receive_eof()
        if self.engine.closing:
            self._end()
            return False
        return True

    def resume_writing(self) -> None:
        engine = self.engine
        engine.now = self._service.now()
        if self._timing == WRITE:
            self._timing = ALIVE
            self.on_waiting()
        if self._transport is not None and self._timing < LINGER:
            self._transport.resume_reading()
        engine.unblock()

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
            stream.handler = handler
            self._turn_away(cycle, refusal)
            return handler  # type: ignore[no-any-return]
        service.active += 1
        service.requests += 1
        self._cycles[cycle] = stream
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
        if not head.has_body:
            raise HandshakeRefused("the stream of a WebSocket does not end with its request")
        from omnicorn.connections.tunnel import StreamTunnel

        transport = self._transport
        assert transport is not None
        tunnel = StreamTunnel(service, self, transport, stream)
        tunnel.cycle = self._websocket_cycle(stream, head, tunnel, keyed=False)
        return tunnel

    def on_complete(self, stream: Http2Stream) -> None:
        service = self._service
        handler: Any = stream.handler
        if handler is not None:
            if service.access_log is not None:
                cycle = _exchange(handler)
                if cycle is not None and cycle.status:
                    service.log(cycle)
            if not isinstance(handler, Exchange):
                handler.release()
        engine = self.engine
        if not engine.streams:
            self._idle_since = now = service.now()
            if engine.closing:
                self._end()
            elif service.draining:
                self._hasten(now + LINGER_TIME)

    def on_dropped(self, handler: Any) -> None:
        cycle = handler if isinstance(handler, Exchange) else handler.cycle
        if cycle is not None and not cycle.finished:
            self.engine.orphans.add(cycle)

    def on_refused(self, error: RemoteProtocolError, stream: Http2Stream | None) -> None:
        self._log_refusal(error, _answer(error), self._service.stream_refusals)
        if stream is not None and stream.handler is not None:
            cycle = _exchange(stream.handler)
            if cycle is not None and not cycle.status:
                cycle.status = error.status  # the engine's answer, not the application's

    def on_waiting(self, at_most: float = float("inf")) -> None:
        engine = self.engine
        engine.now = now = self._service.now()
        timing = self._timing
        # Tasks that start eagerly may answer within the segment that brought SETTINGS.
        if timing == ALIVE or (timing == SILENCE and engine.is_greeted):
            self._hasten(now + min(self._patience, at_most))

    def on_settings(self) -> None:
        extensions = {name: has for name, has in self._extensions.items() if name not in PUSH}
        if self.engine.peer.push:
            extensions.update(PUSH)
        self._extensions = extensions

    # ------------------------------------------------------------------ from the exchanges

    def push(self, stream: Http2Stream, path: bytes, headers: Any) -> None:
        """See `HTTPCarrier`."""
        self.engine.push(stream, self._scheme.encode(), path, headers)

    def forget(self, cycle: Exchange) -> None:
        """The exchange goes on as a WebSocket, which keeps it."""
        self._cycles.pop(cycle, None)

    # ------------------------------------------------------------------ output

    def _flush_soon(self) -> None:
        """There is output, maybe but a head that waits for its content: it counts as well."""
        self.engine.pending += 1
        self._service.flush_soon(self)

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
        if engine.streams:
            self._idle_since = now
        nearest = engine.overdue(now, timeouts.body, timeouts.write, timeouts.head)
        if engine.closing:
            self._end()
            return self.deadline
        if not engine.is_greeted:
            if now >= self.deadline:
                engine.stop()
                self._end()
            return self.deadline
        interval = service.http2.ping_interval
        if engine.streams:
            nearest = min(nearest, now + timeouts.keep_alive)
            if interval:
                nearest = min(nearest, self._keep_alive(now, interval))
        else:
            patience = LINGER_TIME if service.draining else timeouts.keep_alive
            until = self._idle_since + patience
            if engine.is_asked:  # what comes has a deadline of its own, in `overdue`
                nearest = min(nearest, now + patience)
            elif until <= now:
                engine.refuse_more()
                self._end()
                return self.deadline
            else:
                nearest = min(nearest, until)
            if interval:  # a request that comes meanwhile may need one
                nearest = min(nearest, now + interval)
        if self._timing < WRITE:  # else what was written just now has filled the transport
            self.deadline = nearest
        return self.deadline

    def _keep_alive(self, now: float, interval: float) -> float:
        """PING a peer that is silent while it waits; returns when to look again."""
        until = self._heard + interval
        if until > now:
            return until
        if self._pinged > self._heard:  # nothing came since
            until = self._pinged + interval
            if until <= now:
                self._cut()
            return until
        self._pinged = now
        self.engine.ping(_PING)
        return now + interval

    # ------------------------------------------------------------------ closing

    def _close(self) -> None:
        error = self.engine.error
        transport = self._transport
        if error is not None:
            self._log_refusal(error, _answer(error))
        if transport is None:
            return
        if not self.engine.remote_closed and transport.can_write_eof():
            # A peer opens windows as it reads: its frames cross our last word.
            self._linger()
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
        if self._timing < LINGER:
            self.engine.refuse_more()
        super().disconnect()
