"""A stream of a multiplexed connection as a `Transport`: a WebSocket inside HTTP/2 (RFC 8441).

To the stream this is the handler of a request that never ends its content; to a
`WebSocketConnection` it is the transport below. So the WebSocket's own connection class
serves here as it does on a socket, and knows nothing of frames and windows.

Rules:

1. What comes before the handshake is answered waits here, and so does what comes while
   reading pauses; it counts against the stream's window until it is delivered.
2. The stream's end, whoever makes it, is the transport's ``connection_lost``, once.
3. What a cut is to TCP, RST_STREAM with CANCEL is here (RFC 8441 §5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.connections.websocket import WebSocketConnection
from omnicorn.protocols.http2.codes import CANCEL
from omnicorn.protocols.websocket.handshake import accepting_fields

if TYPE_CHECKING:
    from omnicorn.bridge.cycle import Exchange
    from omnicorn.bridge.websocket import OpenCarrier, Socket, WebSocketCycle
    from omnicorn.connections.service import Service
    from omnicorn.errors import RemoteProtocolError
    from omnicorn.ports import Headers, Loop, Stream, Transport
    from omnicorn.protocols.websocket import Offer, WebSocketEngine


class TunnelledWebSocket(WebSocketConnection):
    """A WebSocket whose application, where the stream was cancelled, counts against the peer's
    streams until it returns."""

    __slots__ = ("_orphans",)

    def __init__(
        self,
        service: Service,
        tunnel: StreamTunnel,
        cycle: WebSocketCycle,
        offer: Offer,
        orphans: set[Any],
    ) -> None:
        super().__init__(service, tunnel, cycle, offer)
        self._orphans = orphans

    def on_cycle_end(self, cycle: Exchange, error: BaseException | None) -> None:
        """See `Carrier`."""
        self._orphans.discard(cycle)
        super().on_cycle_end(cycle, error)


class StreamTunnel:
    """One stream: `StreamHandler` to the engine, `SocketCarrier` to the cycle, `Transport`
    to the WebSocket.

    Args:
        service: Shared by the connections of a server.
        connection: The connection of the stream; told when the handshake's exchange ends.
        transport: That connection's own.
        stream: The stream.
    """

    __slots__ = (
        "_connection",
        "_ended",
        "_opened",
        "_paused",
        "_port",
        "_service",
        "_stream",
        "_transport",
        "_waiting",
        "cycle",
    )

    cycle: WebSocketCycle | None
    """None once stream and application are through with each other: each holds the other."""

    def __init__(
        self, service: Service, connection: Any, transport: Transport, stream: Stream
    ) -> None:
        self._service = service
        self._connection = connection
        self._transport = transport
        self._stream: Any = stream
        self._port: Any = None
        self._opened = False
        self._paused = False
        self._ended = False
        self._waiting: list[bytes] = []
        self.cycle = None

    # ------------------------------------------------------------------ from the stream

    def on_data(self, data: bytes) -> None:
        if self._port is None or self._paused:
            self._waiting.append(data)
        else:
            self._stream.consumed(len(data))
            self._port.data_received(data)

    def on_end(self) -> None:
        self._ended = True
        if self._port is None:
            if self.cycle is not None:
                self.cycle.on_remote_closed()
        elif not self._paused and not self._port.eof_received():
            self.close()

    def on_reset(self, error: RemoteProtocolError | None) -> None:
        if self._port is not None:
            self._stream = None
            self._lose()
        elif self.cycle is not None:
            self.cycle.on_reset(error)

    def on_remote_closed(self) -> None:
        self.on_end()

    def on_writable(self) -> None:
        if self._port is not None:
            self._port.resume_writing()
        elif self.cycle is not None:
            self.cycle.on_writable()

    # ------------------------------------------------------------------ from the cycle

    @property
    def is_open(self) -> bool:
        """The handshake is answered: the WebSocket's own connection keeps its exchange."""
        return self._opened

    @property
    def loop(self) -> Loop:
        return self._service.loop

    def on_cycle_end(self, cycle: Exchange, error: BaseException | None) -> None:
        """See `Carrier`: of a handshake that was not accepted."""
        self._connection.on_cycle_end(cycle, error)
        if self._stream.handler is not self:
            self.cycle = None

    def release(self) -> None:
        """The stream is over."""
        if self.cycle is not None and self.cycle.finished:
            self.cycle = None

    def accept(
        self, cycle: WebSocketCycle, subprotocol: str | None, headers: Headers
    ) -> tuple[OpenCarrier, Socket]:
        """See `SocketCarrier`."""
        service = self._service
        connection = self._connection
        fields = accepting_fields(cycle.offer, subprotocol, headers)
        # A content-length, say, would end what has no end: the rules are those of a 101.
        self._stream.send_head(200, connection.engine.responses.prepare_fields(fields))
        cycle.status = 200
        cycle.response_headers = fields
        if service.access_log is not None:
            service.log(cycle)
        connection.forget(cycle)
        self._opened = True
        socket = self._port = TunnelledWebSocket(
            service, self, cycle, cycle.offer, connection.engine.orphans
        )
        engine: WebSocketEngine[WebSocketConnection] = socket.engine
        self._deliver()
        if service.draining:
            socket.drain()
        return socket, engine

    # ------------------------------------------------------------------ from the WebSocket

    def write(self, data: bytes) -> None:
        stream = self._stream
        if stream is not None and not stream.send_data(data, False):
            self._port.pause_writing()

    def write_eof(self) -> None:
        """See `Transport`; `can_write_eof` says no."""

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        """End the stream, after what is written."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.send_data(b"", True)
            self._service.loop.call_soon(self._lose)

    def abort(self) -> None:
        """Reset the stream."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._connection.engine.reset(stream, CANCEL)
            self._service.loop.call_soon(self._lose)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._deliver()

    def get_write_buffer_size(self) -> int:
        # What the stream has sent may still wait in the connection's transport.
        if self._stream is None:
            return 0
        return int(self._stream.queued) + self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        # Not the socket: it is not this stream's alone.
        return default if name == "socket" else self._transport.get_extra_info(name, default)

    def set_protocol(self, connection: Any) -> None:
        """See `Transport`."""
        self._port = connection

    def _deliver(self) -> None:
        waiting = self._waiting
        if waiting and self._stream is not None:
            data = b"".join(waiting)  # whatever the peer cut it into
            waiting.clear()
            self._stream.consumed(len(data))
            self._port.data_received(data)
        if self._ended and not self._paused and self._stream is not None:
            self.on_end()

    def _lose(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.connection_lost(None)
