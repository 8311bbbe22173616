"""One connection of a front server that carries one request: SCGI, uwsgi.

This file alone decides when its bytes are written, what its deadline is, and how it closes;
the engine decides what is said, the bridge what the application sees. Rules:

1. Who asks, for what address and by which scheme, the front says: the socket's own addresses
   name the front. Whoever can connect is believed, so listen where only fronts can. A client's
   own ``forwarded`` fields count if the front's peer is a trusted proxy.
2. What an end of connection says is what the front will believe. Orderly: the response is
   complete. A reset: it is not, and the front reports a failure; on Linux's unix sockets
   `transports.unix` makes one, which asks for that when a request is complete.
   They leave in one segment where that can be: the listening sockets hold small writes back
   until the end (`hold_back`), and a response that is not complete when it is written stops that.
3. An answer that comes before the request's content is not taken away by a reset: we *linger*,
   writing nothing, reading and dropping. Fronts hand an answer on only when they have sent all
   of the content, so it gets the time that it would have had; what has no length, or exceeds
   it, gets a bounded while.
4. A front opens a connection when it has a request. So one that is silent when the server
   drains gets a moment, instead of being closed in the request's face.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from omnicorn.connections.bytestream import DRAIN_TIME, LINGER, WRITE
from omnicorn.connections.exclusive import ExclusiveConnection
from omnicorn.errors import HandshakeRefused
from omnicorn.http.fields import list_tokens
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.cgi.engine import BODY, COMPLETE, HEAD
from omnicorn.transports.sockets import hold_back, peer_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnicorn.connections.service import Service
    from omnicorn.ports import Stream, StreamHandler
    from omnicorn.protocols.cgi import EnvironmentParser, GatewayHead, ResponseEncoder
    from omnicorn.protocols.scgi import ScgiEngine
    from omnicorn.protocols.uwsgi import UwsgiEngine

    Engine = type[ScgiEngine[Any]] | type[UwsgiEngine[Any]]

EXTENSIONS: dict[str, dict[str, Any]] = {
    "http.response.pathsend": {},
    "http.response.zerocopysend": {},
}
"""What is offered: a front takes neither trailers nor early hints from us."""

# What the deadline is for; `_BUSY`: nothing, it is the application's turn.
_HEAD, _BODY, _BUSY = range(3)
_NEVER = float("inf")


def acceptor(service: Service, engine: Engine) -> Callable[[], GatewayConnection]:
    """What makes the connections of sockets on which *engine*'s protocol is spoken."""
    parser = engine.parser(service.parser.limits, service.root_path)
    encoder = engine.encoder()
    return _Acceptor(GatewayConnection, service, engine, parser, encoder)


class _Acceptor(partial["GatewayConnection"]):
    """Makes them; transports may ask it whether a closing has to tell something."""

    ends_by_closing = True


class GatewayConnection(ExclusiveConnection):
    """A front's connection; `ConnectionPort` to the transport, `StreamOwner` to the engine.

    Args:
        service: Shared by the connections of a server.
        engine: Of the protocol that is spoken.
        parser: Shared by the connections of the protocol.
        encoder: Shared likewise.
    """

    __slots__ = ("_flowing",)

    engine: ScgiEngine[GatewayConnection] | UwsgiEngine[GatewayConnection]

    def __init__(
        self, service: Service, engine: Engine, parser: EnvironmentParser, encoder: ResponseEncoder
    ) -> None:
        # Not by `super().__init__`: there is a connection for every request, and three such calls
        # would be one in forty parts of it.
        self._service = service
        self._transport = None
        self._cycle = None
        self._unwritten = 0
        self._timing = _HEAD
        self.deadline = 0.0
        self.slot = -1
        self._client = None
        self._server = None
        self._scheme = "http"
        self._secure = False
        self._trusted = None
        self._extensions = EXTENSIONS
        self._flowing = False
        self.engine = engine(self, parser, encoder, service.defaults, service.flush_soon)

    # ------------------------------------------------------------------ from the transport

    def connection_made(self, transport: Any) -> None:
        service = self._service
        self._transport = transport
        service.connections.add(self)  # type: ignore[arg-type]  # as any other
        head = service.timeouts.head
        self._expect(_HEAD, min(DRAIN_TIME, head) if service.draining else head)

    def data_received(self, data: bytes) -> bool:
        """Returns whether the request is complete."""
        if self._timing >= LINGER:
            self._drop(len(data))
            return False
        engine = self.engine
        engine.receive(data)
        timing = self._timing
        if timing >= LINGER:
            pass
        elif engine.closing:
            self._end()
        elif timing != WRITE:
            # Whose turn is it?
            if engine.remote == COMPLETE:
                self._timing = _BUSY
                self.deadline = _NEVER
            elif engine.remote == BODY:
                self._expect(_BODY, self._service.timeouts.body)
        return engine.remote == COMPLETE

    def eof_received(self) -> bool:
        """Returns whether the transport stays open for writing."""
        if self._timing >= LINGER:
            return False
        engine = self.engine
        engine.receive_eof()
        if engine.closing:
            self._end()
        return True  # what is still to be written, `_close_transport` waits for

    def resume_writing(self) -> None:
        engine = self.engine
        engine.blocked = False
        if self._timing == WRITE:
            self._timing = _BUSY
            self.deadline = _NEVER
            if engine.remote == BODY:
                self._expect(_BODY, self._service.timeouts.body)
        cycle = self._cycle
        if cycle is not None:
            cycle.on_writable()

    # ------------------------------------------------------------------ from the engine

    def on_request(self, stream: Stream, head: GatewayHead) -> StreamHandler:
        service = self._service
        self._client = client = self.engine.client
        self._server = head.server
        self._scheme = head.scheme
        trusted = service.trusted
        if head.forwarded and trusted is not None and trusted.trusts(client[0] if client else None):
            self._trusted = trusted
        refusal = None
        cycle: Any = None
        upgrade = head.upgrade
        if upgrade is not None and service.upgrades and b"websocket" in list_tokens(upgrade):
            try:
                cycle = self._websocket_cycle(stream, head, self, keyed=True)
            except HandshakeRefused as exc:
                refusal = exc.with_traceback(None)  # which would hold this frame
        if cycle is None:
            cycle = self._http_cycle(stream, head)
        self._cycle = cycle
        if service.timed:
            cycle.began = service.now()
        if refusal is not None or service.active >= service.limit:
            self._turn_away(cycle, refusal)
            return cycle  # type: ignore[no-any-return]
        service.active += 1
        service.requests += 1
        cycle.task = service.spawn(cycle.run())
        return cycle  # type: ignore[no-any-return]

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

    def on_complete(self, stream: Stream) -> None:
        engine = self.engine
        transport = self._transport
        if engine.cut:
            pass
        elif engine.pending > HIGH_WATER or transport is None:
            self.flush()
        else:
            transport.write(b"".join(engine.out))
            engine.out.clear()
            engine.pending = 0
        service = self._service
        if service.access_log is not None:
            cycle = self._cycle
            if cycle is not None and cycle.status:  # else its peer left before there was one
                service.log(cycle)
        self._close()

    # ------------------------------------------------------------------ deadlines and the end

    def on_deadline(self, now: float) -> float:
        """See `Timed`."""
        if now < self.deadline:
            return self.deadline
        timing = self._timing
        timeouts = self._service.timeouts
        if timing >= WRITE:
            if not self._prolong(now, timeouts.write):
                self._cut()
        elif timing == _BODY and not self.engine.reading:
            self.deadline = now + timeouts.body  # it is the application that lags
        else:
            self.engine.timed_out()
            self._end()
        return self.deadline

    def flush(self) -> None:
        """Write what the engine has to say."""
        super().flush()
        transport = self._transport
        if not self._flowing and not self.engine.closing and transport is not None:
            # It goes on after a while: from here on nothing waits for the end.
            self._flowing = True
            sock = transport.get_extra_info("socket")
            if sock is not None:
                hold_back(sock, False)

    def _end(self) -> None:
        """The engine has ended the conversation: write its last word, log why, close."""
        if not self.engine.cut:
            self.flush()
        service = self._service
        cycle = self._cycle
        error = self.engine.error
        if error is not None:
            if cycle is None or not self.engine.remote_closed:  # clients leave all the time
                transport = self._transport
                if cycle is None and transport is not None:
                    self._client = peer_address(transport.get_extra_info("peername"))
                self._log_refusal(error, error.status)
            if cycle is not None:
                if not cycle.status:
                    cycle.status = error.status  # the engine's answer, not the application's
                if service.access_log is not None and cycle.was_cut:
                    service.log(cycle)
        self._close()

    def _close(self) -> None:
        """Close after what is written has left, without taking it away from the front."""
        transport = self._transport
        engine = self.engine
        if transport is None or self._timing >= LINGER:
            return
        if engine.cut:
            # What is not written yet never is: some fronts hand it on as if it were the whole,
            # and who has got nothing at all can say 502.
            engine.out.clear()
            engine.pending = 0
            self._cut()
            return
        if engine.remote == COMPLETE or not engine.expects_more or not transport.can_write_eof():
            self._close_transport()
            return
        owed = engine.owed
        engine.stop()
        self._linger(owed)

    def drain(self) -> None:
        """The server stops: a request that has begun, or is about to, is still answered."""
        if self._timing == _HEAD and self.engine.remote < HEAD:
            self._expect(_HEAD, min(DRAIN_TIME, self._service.timeouts.head))
