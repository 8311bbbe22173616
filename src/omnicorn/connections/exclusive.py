"""A connection that carries one exchange at a time: HTTP/1.1 and the gateways' protocols.

Decided here: what follows from having the transport to oneself. Files may be sent past the engine,
a WebSocket takes the whole connection over, and a response that is cut takes the connection
with it. Whose turn it is, and when it closes in good order, the subclasses decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnicorn.connections.bytestream import CLOSE, LINGER, WRITE
from omnicorn.connections.http import HTTPConnection
from omnicorn.errors import ClientDisconnected, LocalProtocolError

if TYPE_CHECKING:
    from omnicorn.bridge.http import HTTPCycle, Sendfile
    from omnicorn.bridge.websocket import WebSocketCycle
    from omnicorn.bridge.wsgi import WsgiCycle
    from omnicorn.connections.websocket import WebSocketConnection
    from omnicorn.ports import Headers, Stream
    from omnicorn.protocols.websocket import WebSocketEngine


class ExclusiveConnection(HTTPConnection):
    """One exchange after the other, or only one; the arguments are those of `HTTPConnection`."""

    __slots__ = ()

    _cycle: HTTPCycle | WebSocketCycle | WsgiCycle | None

    # ------------------------------------------------------------------ from the transport

    def pause_writing(self) -> None:
        self.engine.blocked = True
        if self._timing < LINGER:
            self._stall()

    def connection_lost(self, exc: Exception | None) -> None:
        cycle = self._lose_transport()
        service = self._service
        if cycle is not None and service.access_log is not None:
            if self.engine.is_responding:
                service.log(cycle)
            elif cycle.was_cancelled and not cycle.status:
                cycle.status = 500  # what it would say itself, had it ended before its transport
                service.log(cycle)
        self.engine.connection_lost()
        if service.draining:
            service.check_idle()

    # ------------------------------------------------------------------ from the exchange

    @property
    def sendfile(self) -> Sendfile | None:
        """See `HTTPCarrier`: over TLS, content goes through the encryption."""
        if self._service.loop.sendfile is None or self._secure:
            return None
        return self._sendfile

    async def _sendfile(self, file: int, offset: int, count: int) -> int:
        sendfile = self._service.loop.sendfile
        if self._transport is None or sendfile is None:
            raise ClientDisconnected("the client has disconnected")
        self.flush()
        stall = self._service.timeouts.write
        return await sendfile(self._transport, file, offset, count, stall)

    def push(self, stream: Stream, path: bytes, headers: Headers) -> None:
        """See `HTTPCarrier`."""
        raise LocalProtocolError("there is no push here: only HTTP/2 has it")

    def accept(
        self, cycle: WebSocketCycle, subprotocol: str | None, headers: Headers
    ) -> tuple[WebSocketConnection, WebSocketEngine[WebSocketConnection]]:
        """See `SocketCarrier`: this connection's part is over, a WebSocket's begins."""
        from omnicorn.connections.websocket import WebSocketConnection
        from omnicorn.protocols.websocket.handshake import accepting_fields

        service = self._service
        engine = self.engine
        transport = self._transport
        assert transport is not None  # else the cycle was told
        fields = accepting_fields(cycle.offer, subprotocol, headers)
        rest = engine.switch_protocols(b"websocket", fields)
        self.flush()
        cycle.status = 101
        cycle.response_headers = fields
        if service.access_log is not None:
            service.log(cycle)
        service.connections.discard(self)
        service.deadlines.forget(self)
        full = self._timing == WRITE
        self._cycle = self._transport = None
        self._timing = CLOSE
        socket = WebSocketConnection(service, transport, cycle, cycle.offer)
        transport.set_protocol(socket)
        if full:
            socket.pause_writing()
        if not engine.reading:
            transport.resume_reading()
        if rest:
            socket.engine.receive(rest)
        if service.draining:
            socket.drain()
        return socket, socket.engine

    def disconnect(self) -> None:
        """Tell the application that its client is as good as gone."""
        if self._cycle is not None:
            self._cycle.disconnect()

    # ------------------------------------------------------------------ the end

    def _cut(self, reset: bool = False) -> None:
        engine = self.engine
        super()._cut(reset or engine.cut or engine.is_responding)
        engine.stop()
