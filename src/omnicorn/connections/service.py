"""What the connections of one server in one event loop share.

The application and its state, the memories of the engines, the deadlines, the count of
running exchanges, the queue of connections with output. Nothing here knows a loop by
name: it all goes through the `Loop` port.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from omnicorn.bridge.http import EXTENSIONS
from omnicorn.connections.deadlines import Deadlines
from omnicorn.http.defaults import DefaultFields
from omnicorn.observability.logs import RateLimited
from omnicorn.protocols.http1 import RequestParser, ResponseEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from omnicorn.bridge.cycle import Application, Exchange
    from omnicorn.bridge.wsgi import Wsgi
    from omnicorn.connections.http1 import Http1Connection
    from omnicorn.connections.http2 import Http2Connection, Parts
    from omnicorn.connections.websocket import WebSocketConnection
    from omnicorn.http.limits import Limits
    from omnicorn.observability.access_log import AccessLog, AccessLogger
    from omnicorn.ports import Loop
    from omnicorn.security.trust import TrustedPeers

    AnyConnection: TypeAlias = Http1Connection | Http2Connection | WebSocketConnection

logger = logging.getLogger("omnicorn.error")


class Timeouts(NamedTuple):
    """Bounds of every wait, in seconds."""

    head: float = 15.0
    """From a head's first byte to its last; also how long a new connection may be silent."""
    body: float = 30.0
    """Between two pieces of a request body."""
    keep_alive: float = 75.0
    """Between a response and the next request; longer than load balancers' usual 60 s."""
    write: float = 60.0
    """Without the peer reading anything."""


class WebSockets(NamedTuple):
    """Bounds and manners of WebSockets."""

    max_size: int = 16 << 20
    """Bytes of a message, inflated; and bytes that may wait for the application."""
    max_queue: int = 32
    """Messages that may wait for the application."""
    ping_interval: float = 20.0
    """Seconds without a ping; 0: never ping."""
    ping_timeout: float = 20.0
    """Seconds a pong is awaited; 0: not at all."""
    deflate: bool = True
    """Whether permessage-deflate is agreed to."""


class Http2(NamedTuple):
    """Whether and how HTTP/2 is served."""

    enabled: bool = True
    """Where a client asks for it: by ALPN, by its preface, or by ``Upgrade: h2c``."""
    only: bool = False
    """HTTP/1 is not spoken."""
    max_streams: int = 128
    """Requests at once on one connection."""
    window: int = 1 << 20
    """Bytes of all request bodies of a connection that may wait for their applications."""
    stream_window: int = 256 << 10
    """Bytes of one request body that may wait."""
    ping_interval: float = 0.0
    """Seconds of silence before a peer with requests in flight gets a PING; 0: never."""


_WEBSOCKETS = WebSockets()
_HTTP2 = Http2()


class Service:
    """Shared state of a server's connections.

    Args:
        app: The ASGI 3 application.
        loop: The loop port.
        limits: What a peer may send.
        timeouts: How long a peer may take.
        root_path: The prefix the application is mounted at.
        limit_concurrency: Exchanges at once before 503; None: no limit.
        access_log: Where finished exchanges are logged; None: nowhere.
        trusted: Whose proxy headers are believed; None: nobody's.
        server_header: Whether ``server`` is sent.
        date_header: Whether ``date`` is sent.
        headers: Further fields of every response.
        websockets: How WebSockets are served; None: not at all.
        http2: Whether and how HTTP/2 is served.
        fastcgi_requests: Requests at once on one connection of FastCGI; 1: no multiplexing.
        wsgi: The application where it is a WSGI one, with its threads; *app* is not called then.
        explain: Told an application's error, says what to do about it, if it knows.
        wall_clock: Seconds since the epoch, for ``date``.

    Attributes:
        upgrades: Requests may become WebSockets.
        http2_parts: What HTTP/2 connections share; None before the first of them.
        keep_alive: The keep-alive timeout, in seconds ...
        short_idle: ... and whether it is not the longest of all.
        state: The lifespan's state; None where there is none.
        connections: All open connections.
        active: Exchanges whose application has not returned.
        requests: Exchanges that were given to the application, ever.
        stragglers: Those of them whose connection has moved on to the next.
        refusals: Logs refused requests, a bounded number in a period.
        stream_refusals: Likewise, where the connection goes on; apart, so that a peer cannot
            hide why its connection ended.
        draining: No new requests: connections close after the exchange in progress.
    """

    def __init__(
        self,
        app: Application,
        loop: Loop,
        *,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        root_path: str = "",
        limit_concurrency: int | None = None,
        access_log: AccessLog | AccessLogger | None = None,
        trusted: TrustedPeers | None = None,
        server_header: bool = True,
        date_header: bool = True,
        headers: Sequence[tuple[bytes, bytes]] = (),
        websockets: WebSockets | None = _WEBSOCKETS,
        http2: Http2 = _HTTP2,
        fastcgi_requests: int = 128,
        wsgi: Wsgi | None = None,
        explain: Callable[[BaseException], str | None] = lambda error: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self.loop = loop
        self.wsgi = wsgi
        self._explain = explain
        # Takes what the `run` of an exchange gives: a coroutine, or a job for the threads.
        self.spawn: Callable[[Any], Any] = loop.spawn if wsgi is None else wsgi.start
        self.timeouts = timeouts or Timeouts()
        # A deadline that may come nearer than the one before has to change its slot.
        self.now = loop.time
        self.short_idle = self.timeouts.keep_alive < max(self.timeouts)
        self.keep_alive = self.timeouts.keep_alive
        self.root_path = root_path
        self.limit = float("inf") if limit_concurrency is None else limit_concurrency
        self.access_log = access_log
        self.timed = access_log is not None and "duration" in access_log.needs
        self.trusted = trusted
        self.extensions = EXTENSIONS
        self.websockets = websockets or _WEBSOCKETS
        self.upgrades = websockets is not None and wsgi is None
        self.http2 = http2
        self.http2_parts: Parts | None = None
        self.fastcgi_requests = fastcgi_requests
        self.state: dict[str, Any] | None = None
        self.connections: set[AnyConnection] = set()
        self.active = 0
        self.requests = 0
        self.stragglers: set[Exchange] = set()
        self.draining = False
        self.on_idle: Callable[[], object] | None = None
        self.refusals = RateLimited(logger.warning)
        self.stream_refusals = RateLimited(logger.warning)
        self.deadlines = Deadlines(loop)
        self.parser = RequestParser(limits)
        self.encoder = ResponseEncoder()
        self.defaults = DefaultFields(
            b"omnicorn" if server_header else None, date_header, headers, self._second
        )
        self._wall_clock = wall_clock
        self._dirty: list[AnyConnection] = []
        # Bound once: the first for all engines, the others for each request.
        self.flush_soon = self._flush_soon
        self._flush_all = self._flush
        self._call_soon = loop.call_soon

    def _second(self) -> float:
        """The present second; the default fields expire with it."""
        now = self._wall_clock()
        self.loop.call_at(self.loop.time() + 1.0 - now % 1.0, self.defaults.expire)
        return now

    def _flush_soon(self, connection: AnyConnection) -> None:
        """Flush *connection* at the end of this iteration, with all others that ask."""
        dirty = self._dirty
        if not dirty:
            call_soon = self._call_soon
            call_soon(self._flush_all)
        dirty.append(connection)

    def _flush(self) -> None:
        dirty = self._dirty
        self._dirty = []
        for connection in dirty:
            # Most have completed their response meanwhile, and so have been flushed.
            if connection.engine.pending:
                connection.flush()

    # ------------------------------------------------------------------ exchanges

    def end(self, cycle: Exchange, error: BaseException | None) -> None:
        """What the end of an exchange means: *error*, the application's fault, is logged, and a
        server that drains may be through."""
        if error is not None:
            scope = cycle.scope
            hint = self._explain(error)
            logger.error(
                "%s %a: the application failed%s",
                scope.get("method", "WebSocket"),
                scope.get("path"),
                f"; {hint}" if hint else "",
                exc_info=error,
            )
        self.check_idle()

    def log(self, cycle: Exchange) -> None:
        """Write the access-log line of an answered exchange; only where there is a log."""
        if self.timed:
            cycle.duration = self.now() - cycle.began
        self.access_log.log(cycle)  # type: ignore[union-attr]

    # ------------------------------------------------------------------ draining

    def drain(self, on_idle: Callable[[], object]) -> None:
        """Close what is idle now and the rest as it ends; *on_idle* when all is over."""
        self.draining = True
        self.on_idle = on_idle
        for connection in tuple(self.connections):
            connection.drain()
        self.check_idle()

    def disconnect(self) -> None:
        """Tell every application that its client is as good as gone."""
        for connection in tuple(self.connections):
            connection.disconnect()
        for cycle in tuple(self.stragglers):
            cycle.disconnect()

    def cancel(self) -> None:
        """Cancel every application and cut every connection."""
        for connection in tuple(self.connections):
            connection.abort()
        for cycle in tuple(self.stragglers):
            cycle.cancel()

    def check_idle(self) -> None:
        """While draining: whether the last exchange and the last connection are gone."""
        if self.draining and not self.connections and not self.active:
            on_idle, self.on_idle = self.on_idle, None
            if on_idle is not None:
                on_idle()
