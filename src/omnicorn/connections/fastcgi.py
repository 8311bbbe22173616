"""One FastCGI connection: when its output is written, what its deadlines are, how it ends.

The engine knows records and requests, the exchanges know their applications; what is between is
decided here. Rules:

1. Who asks, for what address and by which scheme, the front says, as in `gateway`.
2. The deadline is the nearest of what each request waits for (`FastCGIEngine.overdue`) and of the
   idle time of a connection that the front keeps.
3. What an application has died of goes to the front's error log in a line (STDERR), and to ours
   in full.
4. An application whose request was aborted counts against the connection's until it returns.
5. A front that sends many records at once waits while others have their turn: what the engine
   leaves of them is read in the loop's next iteration, and no more bytes before.
6. A kept connection is idle since the end of its last request, whatever else comes on it.
7. When the server drains, requests in progress are finished, and kept connections closed. A
   front opens a connection when it has a request: one that is silent gets a moment for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from omnicorn.connections.bytestream import DRAIN_TIME, LINGER, WRITE
from omnicorn.connections.gateway import EXTENSIONS
from omnicorn.connections.multiplexed import ALIVE, SILENCE, MultiplexedConnection
from omnicorn.errors import ConfigError, LocalProtocolError
from omnicorn.protocols.cgi import EnvironmentParser, ResponseEncoder
from omnicorn.protocols.fastcgi import FastCGIEngine, split_params
from omnicorn.security.trust import TrustedPeers
from omnicorn.transports.sockets import peer_address, peer_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from omnicorn.bridge.scope import Address
    from omnicorn.connections.service import Service
    from omnicorn.errors import RemoteProtocolError
    from omnicorn.ports import Headers, StreamHandler
    from omnicorn.protocols.cgi import GatewayHead
    from omnicorn.protocols.fastcgi import FastCGIStream

_ADDRESSES = "FCGI_WEB_SERVER_ADDRS"


def acceptor(
    service: Service, environ: Mapping[str, str] = os.environ
) -> Callable[[], FastCGIConnection]:
    """What makes the connections of sockets on which FastCGI is spoken.

    Args:
        service: Shared by the connections of a server.
        environ: FCGI_WEB_SERVER_ADDRS is obeyed (§3.2): whoever starts us on a socket of its
            own sets it, and nobody else may connect then but by a unix socket.

    Raises:
        ConfigError: FCGI_WEB_SERVER_ADDRS holds something that is no address.
    """
    parts = _Parts(service, _web_servers(environ.get(_ADDRESSES)))
    return lambda: FastCGIConnection(service, parts)


def _web_servers(addresses: str | None) -> TrustedPeers | None:
    if addresses is None:
        return None
    from ipaddress import ip_address

    found = []
    for address in addresses.split(","):
        try:
            found.append(str(ip_address(address.strip())))
        except ValueError:
            raise ConfigError(
                f"{_ADDRESSES} must be addresses with commas between, and {address!r:.80} is none",
                source="the environment",
            ) from None
    return TrustedPeers([*found, "unix"])


class _Parts:
    """What the FastCGI connections of a server share."""

    __slots__ = ("encoder", "parser", "values", "web_servers")

    def __init__(self, service: Service, web_servers: TrustedPeers | None) -> None:
        self.parser = EnvironmentParser(split_params, service.parser.limits, service.root_path)
        self.encoder = ResponseEncoder(cgi=True)
        self.web_servers = web_servers
        self.values = {b"FCGI_MPXS_CONNS": b"1" if service.fastcgi_requests > 1 else b"0"}
        if service.limit < float("inf"):  # what has no limit is not answered (§4.1)
            limit = b"%d" % service.limit
            self.values |= {b"FCGI_MAX_CONNS": limit, b"FCGI_MAX_REQS": limit}


class FastCGIConnection(MultiplexedConnection):
    """A front's connection; `ConnectionPort` to the transport, `FastCGIOwner` to the engine."""

    __slots__ = ("_parts",)

    engine: FastCGIEngine[FastCGIConnection]

    def __init__(self, service: Service, parts: _Parts) -> None:
        timeouts = service.timeouts
        super().__init__(service, min(timeouts.head, timeouts.body, timeouts.keep_alive))
        self._parts = parts
        self.engine = FastCGIEngine(
            self,
            parts.parser,
            parts.encoder,
            service.fastcgi_requests,
            parts.values,
            service.flush_soon,  # type: ignore[arg-type]  # as any other
        )
        self._extensions = EXTENSIONS

    # ------------------------------------------------------------------ from the transport

    def connection_made(self, transport: Any) -> None:
        service = self._service
        self._transport = transport
        self._idle_since = service.now()
        service.connections.add(self)  # type: ignore[arg-type]  # as any other
        web_servers = self._parts.web_servers
        if web_servers is not None:
            front = peer_address(transport.get_extra_info("peername"))
            if not web_servers.trusts(front[0] if front else None):
                self._log(f"cut: its address is not in {_ADDRESSES}")
                self._cut()
                return
        head = service.timeouts.head
        self._expect(SILENCE, min(DRAIN_TIME, head) if service.draining else head)

    def data_received(self, data: bytes) -> None:
        engine = self.engine
        if self._timing >= LINGER:
            self._drop(len(data))
            return
        now = self._service.now()
        if self._timing == SILENCE:
            self._timing = ALIVE
        engine.receive(data, now)
        if engine.closing:
            self._end()
            return
        if engine.behind or self._is_deaf():
            transport = self._transport
            if transport is not None:
                transport.pause_reading()
                if engine.behind:
                    self._service.loop.call_soon(self._catch_up)
        if self._timing == ALIVE:
            self._hasten(now + self._patience)

    def _catch_up(self) -> None:
        """Others have had their turn: read on in what was received."""
        if self._transport is not None and self._timing < LINGER:
            self.data_received(b"")
            self._read_on()

    def _read_on(self) -> None:
        """Let the transport read, unless there is something against it."""
        engine = self.engine
        transport = self._transport
        if (
            transport is not None
            and self._timing < LINGER
            and engine.reading
            and not engine.behind
            and not self._is_deaf()
        ):
            transport.resume_reading()

    def eof_received(self) -> bool:
        """Returns whether the transport stays open for writing."""
        if self._timing >= LINGER:
            return False
        self.engine.receive_eof()
        if self.engine.closing:
            self._end()
        return True  # what is still to be written, `_close_transport` waits for

    def resume_writing(self) -> None:
        engine = self.engine
        engine.blocked = False
        if self._timing == WRITE:
            self._timing = ALIVE
            self._hasten(self._service.now() + self._patience)
        self._read_on()
        for cycle in tuple(self._cycles):
            cycle.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        service = self._service
        if service.access_log is not None:
            for stream in self.engine.streams.values():
                if stream.is_responding and stream.handler is not None:
                    service.log(stream.handler)  # type: ignore[arg-type]  # an exchange
        super().connection_lost(exc)

    # ------------------------------------------------------------------ from the engine

    def on_request(self, stream: FastCGIStream, head: GatewayHead) -> StreamHandler:
        service = self._service
        self._client = client = stream.client
        self._server = head.server
        self._scheme = head.scheme
        trusted = service.trusted
        believed = trusted is not None and trusted.trusts(client[0] if client else None)
        self._trusted = trusted if believed else None
        cycle: Any = self._http_cycle(stream, head)
        if service.timed:
            cycle.began = service.now()
        # Known to the engine from here on: it may be answered before this returns.
        stream.handler = cycle
        if service.draining:
            self.engine.refuse_more()
        if service.active >= service.limit:
            self._turn_away(cycle)
            return cycle  # type: ignore[no-any-return]
        service.active += 1
        service.requests += 1
        self._cycles[cycle] = stream
        cycle.task = service.spawn(cycle.run())
        return cycle  # type: ignore[no-any-return]

    def on_readable(self, wanted: bool) -> None:
        transport = self._transport
        if wanted:
            self._read_on()
        elif transport is not None and self._timing < LINGER:
            transport.pause_reading()

    def on_complete(self, stream: FastCGIStream) -> None:
        service = self._service
        cycle: Any = stream.handler
        if service.access_log is not None and cycle is not None and cycle.status:
            service.log(cycle)
        if not self.engine.streams:
            self._idle_since = service.now()

    def on_dropped(self, handler: Any) -> None:
        """See `FastCGIOwner`."""
        if not handler.finished:
            self.engine.orphans.add(handler)

    def on_refused(self, error: RemoteProtocolError, stream: FastCGIStream) -> None:
        """See `FastCGIOwner`."""
        cycle: Any = stream.handler
        client = None if cycle is None else cycle.scope["client"]
        self._log(f"refused with {error.status}: {error.reason}", client)
        if cycle is not None and not cycle.status:
            cycle.status = error.status  # the engine's answer, not the application's

    # ------------------------------------------------------------------ from the exchanges

    def push(self, stream: FastCGIStream, path: bytes, headers: Headers) -> None:
        """See `HTTPCarrier`."""
        raise LocalProtocolError("a front server takes no push")

    def on_cycle_end(self, cycle: Any, error: BaseException | None) -> None:
        """See `Carrier`."""
        stream = self._cycles.get(cycle)
        if error is not None and stream is not None:
            scope = cycle.scope
            told = f"{scope['method']} {scope['path']!a:.200}: {type(error).__name__}"
            self.engine.report(stream, b"the application failed: %b\n" % told.encode("ascii"))
        super().on_cycle_end(cycle, error)

    # ------------------------------------------------------------------ deadlines

    def on_deadline(self, now: float) -> float:
        """See `Timed`."""
        timeouts = self._service.timeouts
        if self._timing >= WRITE:
            if now >= self.deadline and not self._prolong(now, timeouts.write):
                self._cut()
            return self.deadline
        engine = self.engine
        if engine.streams:
            nearest = engine.overdue(now, timeouts.head, timeouts.body)
            nearest = min(nearest, now + timeouts.keep_alive)
        elif self._timing == SILENCE:
            nearest = self.deadline
            if nearest <= now:
                engine.stop()
        else:
            nearest = self._idle_since + timeouts.keep_alive
            if engine.is_midway:  # a record has the time of a head, if it does not begin too late
                begun = max(engine.record_since, self._idle_since)
                nearest = min(begun, nearest) + timeouts.head
                if nearest <= now:
                    self._log("cut: a record did not arrive in time")
                    engine.stop()
            elif nearest <= now:
                engine.refuse_more()
        if engine.closing:
            self._end()
            return self.deadline
        if self._timing < WRITE:  # else what was written just now has filled the transport
            self.deadline = nearest
        return self.deadline

    # ------------------------------------------------------------------ closing

    def _close(self) -> None:
        engine = self.engine
        transport = self._transport
        if transport is None:
            return
        if engine.error is not None:
            self._log(f"cut: {engine.error.reason}")
        if engine.cut:
            self._cut(reset=True)
            return
        lingers = engine.expects_more and not engine.remote_closed and transport.can_write_eof()
        if not lingers:
            self._close_transport()
            return
        self._linger(engine.owed)

    def _log(self, what: str, client: Address | None = None) -> None:
        """Tell the operator; a bounded number of times.

        Args:
            what: What has become of a request or a connection, and why.
            client: Whose; None: the front's.
        """
        service = self._service
        transport = self._transport
        log = service.refusals if client is None else service.stream_refusals
        if client is None and transport is not None:
            client = peer_address(transport.get_extra_info("peername"))
        log(service.now(), "%s - %s", peer_name(client), what)

    def drain(self) -> None:
        """The server stops: finish what is in progress, close what the front only keeps."""
        engine = self.engine
        if self._timing == SILENCE:
            self._hasten(self._service.now() + DRAIN_TIME)
        elif not engine.is_midway or engine.streams:
            engine.refuse_more()
            if engine.closing:
                self._end()

    def abort(self) -> None:
        """Cancel every application and cut the connection."""
        for cycle in tuple(self._cycles):
            cycle.cancel()
        self._cut(reset=bool(self.engine.streams))
        self.engine.stop()
