"""A server's life inside a running event loop: start, serve, drain, stop.

::

    start ──▶ bind ──▶ lifespan.startup ──▶ listen ──▶ (serving)
    stop  ──▶ close listeners and idle connections, let exchanges finish
          ──▶ half of the grace: http.disconnect to every application
          ──▶ the whole grace: cancel what is left
          ──▶ lifespan.shutdown (always; as long again, then cancelled)

Invariants:

1. It is the same on every library: what it needs of one is a `Host`.
2. What must be given back is given back in a task of the loop's, not of the caller's: a caller
   that is cancelled meanwhile hurries it (`Server.hurry`) and still waits for its end.
3. Nobody here touches signals or the process; `runtime.serving` and `runtime.run` do.

With ``redirect_http`` there are two services, of which the second answers 308; both drain.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from omnicorn.bridge.lifespan import Lifespan
from omnicorn.connections import accept
from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.runtime.hosts import Event, hosting, running_host
from omnicorn.runtime.loader import load
from omnicorn.runtime.services import make_service
from omnicorn.transports.sockets import Listeners, adopt, bind, hold_back, local_address

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import TextIO

    from omnicorn.config import Config
    from omnicorn.config.bind import Bind
    from omnicorn.connections.service import Service
    from omnicorn.observability.access_log import AccessLog, AccessLogger
    from omnicorn.ports import Waiter
    from omnicorn.runtime.hosts import Acceptor, Connect, Host
    from omnicorn.runtime.interfaces import AnyApplication
    from omnicorn.runtime.tls import Handshakes, OwnContext
    from omnicorn.security.tls import Certificates

logger = logging.getLogger("omnicorn")

_ACCEPTING = 3
"""Turns of asyncio's loop between a connection's acceptance and its `connection_made`."""
_LAST_WORD = 0.05
"""Seconds applications get at least between the disconnect and their cancellation."""
_CANCEL_GRACE = 5.0
"""Seconds a cancelled application gets for its clean-up."""


class Server:
    """Serves one application from the running event loop, of asyncio or trio.

    Args:
        app: An ASGI or WSGI application, or its import string; None takes ``config.app``.
        config: Everything else; the defaults where not given. It is copied: what is changed
            later changes nothing here.
        mode: The interface of the application, in the place of ``config.interface``:
            ``"asgi3"``, ``"asgi2"``, ``"wsgi"`` or ``"auto"``.
        sockets: Bound sockets to serve HTTP on, in the place of the addresses that *config*
            names. They are closed at the end.

    Attributes:
        urls: Where it listens, with real port numbers: ``http://127.0.0.1:8000``,
            ``https://...`` with TLS; ``unix:/run/app.sock``; what is not HTTP stands in front,
            as in ``scgi:unix:/run/app.sock``.
        redirects: Where it answers 308 alone, in the same form.
        config: Its copy.
        on_stubborn: Called when an application has ignored its cancellation: it may never end,
            and the event loop not before it.

    Resource handling: `start` acquires listening sockets and the application's lifespan
    or, when it raises, nothing; `stop` releases both. As an async context manager it does
    the two; on trio that is the only way, as tasks need a place to live in.
    """

    def __init__(
        self,
        app: AnyApplication | str | None = None,
        config: Config | None = None,
        *,
        mode: str | None = None,
        sockets: Iterable[socket.socket] | None = None,
    ) -> None:
        if config is None:
            from omnicorn.config import Config

            config = Config()
        self.config = config.replace(**({} if mode is None else {"interface": mode}))
        self.urls: list[str] = []
        self.redirects: list[str] = []
        self._app = app
        self._sockets = None if sockets is None else list(sockets)
        self._hosting: AbstractAsyncContextManager[Host] | None = None
        self._host: Host | None = None
        self._services: list[Service] = []
        self._certificates: Certificates | OwnContext | None = None
        self._handshakes: Handshakes | None = None
        self._lifespan: Lifespan | None = None
        self._listeners: list[Listeners] = []
        self._acceptors: list[Acceptor] = []
        self._started = False
        self._grace = self.config.timeout_graceful_shutdown
        self._hurry = Event()
        self._stopping = False
        self._stopped = Event()
        self._access_log: AccessLog | AccessLogger | None = None
        self._log_file: TextIO | None = None
        self.on_stubborn: Callable[[], object] | None = None

    async def __aenter__(self) -> Server:
        if self._hosting is not None or self._host is not None:
            raise RuntimeError("this server has been started before; make a new one")
        self._hosting = manager = hosting()
        host = await manager.__aenter__()
        try:
            await self.start(host)
        except BaseException as exc:
            await manager.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._hosting is not None
        try:
            await self.stop()
        finally:
            await self._hosting.__aexit__(None, None, None)

    @property
    def started(self) -> bool:
        """Whether it serves: from the end of `start` until `stop` begins."""
        return self._started and not self._stopping

    @property
    def connections(self) -> int:
        """How many connections are open, handshakes in progress not counted."""
        return sum(len(each.connections) for each in self._services)

    @property
    def requests(self) -> int:
        """How many requests and WebSockets the application has been given so far."""
        return sum(each.requests for each in self._services)

    # ------------------------------------------------------------------ start

    async def start(self, host: Host | None = None) -> None:
        """Start the application and listen.

        Args:
            host: What `hosting` gave; the running loop of asyncio, if not given.

        Raises:
            ConfigError: The application cannot be loaded, an address not be bound, or a
                certificate not be used.
            LifespanFailed: The application refused to start.
            Stopped: `give_up` or `stop` was called meanwhile.
        """
        if self._host is not None:
            raise RuntimeError("this server has been started before; make a new one")
        config = self.config
        app = load(self._app, config)
        self._host = host = host or running_host()
        try:
            self._access_log = self._open_log(host) if config.access_log else None
            service = self._make_service(app, config, self._access_log)
            places = self._bind(app, host)
            await self._start_application(service, host)
            if self._stopping:
                raise Stopped
            for _, listeners in places:
                listeners.listen()
            for connect, listeners in places:
                self._acceptors += await host.listen(connect, listeners.sockets, config.backlog)
            if self._stopping:
                raise Stopped
        except BaseException as exc:
            asked = self._stopping
            self._stopping = True
            self.urls, self.redirects = [], []
            try:
                await self._see_through(self._release())
            finally:  # on trio, the caller's cancellation goes on from there
                self._stopped.set()
            if asked and isinstance(exc, LifespanFailed):
                raise Stopped from None
            raise
        self._started = True
        for url in self.urls:
            logger.info("omnicorn is serving on %s", url)
        for url in self.redirects:
            logger.info("omnicorn redirects %s to https", url)

    def _make_service(
        self, app: AnyApplication, config: Config, access_log: AccessLog | AccessLogger | None
    ) -> Service:
        assert self._host is not None
        service = make_service(app, self._host, config, access_log)
        self._services.append(service)
        return service

    async def _start_application(self, service: Service, host: Host) -> None:
        if service.wsgi is not None:
            return
        self._lifespan = lifespan = Lifespan(service.app, host, self.config.lifespan)
        limit = self.config.timeout_startup
        late = False

        def cancel() -> None:
            nonlocal late
            late = True
            self._cancel_startup(lifespan, host)

        timer = None if limit is None else host.call_at(host.time() + limit, cancel)
        try:
            await lifespan.startup()
            if late:
                raise LifespanFailed("cancelled")
        except BaseException as exc:
            lifespan.cancel()
            if late and isinstance(exc, LifespanFailed):
                message = f"the application's startup took longer than {limit:g} s"
                raise LifespanFailed(message) from None
            raise
        finally:
            if timer is not None:
                timer.cancel()
        for each in self._services:
            each.state = lifespan.state

    def _cancel_startup(self, lifespan: Lifespan, host: Host) -> None:
        lifespan.cancel()
        host.call_at(host.time() + _CANCEL_GRACE, lifespan.abandon)

    def _bind(self, app: AnyApplication, host: Host) -> list[tuple[Connect, Listeners]]:
        """Bind every address; returns what accepts where."""
        config = self.config
        service = self._services[0]
        scheme = "https" if config.tls else "http"
        places: list[tuple[Connect, Listeners]] = []
        if self._sockets is not None:
            web = listeners = self._keep(adopt(self._sockets, config.backlog, scheme))
            places.append((self._connector(service, host), listeners))
        else:
            for name, binds in _by_scheme(config.binds):
                if name == "http":
                    web = listeners = self._listeners_for(binds, scheme)
                    places.append((self._connector(service, host), listeners))
                else:
                    listeners = self._listeners_for(binds, name)
                    if name != "fastcgi":  # whose connections may last
                        for sock in listeners.sockets:
                            hold_back(sock, True)
                    places.append((accept.gateway(service, name), listeners))
        if config.insecure_binds:
            # RFC 6797 §7.2: no strict-transport-security where it could have been put in.
            settings = config.replace(hsts=None)
            plain = self._make_service(app, settings, self._access_log)
            listeners = self._listeners_for(config.insecure_binds, "http")
            places.append((self._proxied(accept.plain(plain)), listeners))
        self.urls = [url for _, listeners in places for url in listeners.addresses]
        if config.redirect_http is not None:
            places.append(self._bind_redirect(web, config.redirect_http))
            self.redirects = list(places[-1][1].addresses)
        return places

    def _listeners_for(self, binds: Sequence[Bind], scheme: str) -> Listeners:
        config = self.config
        return self._keep(
            bind(
                binds,
                backlog=config.backlog,
                reuse_port=config.reuse_port,
                uds_permissions=config.uds_permissions,
                uds_owner=config.uds_owner,
                scheme=scheme,
            )
        )

    def _keep(self, listeners: Listeners) -> Listeners:
        self._listeners.append(listeners)
        return listeners

    def _connector(self, service: Service, host: Host) -> Connect:
        """What makes connections of accepted sockets, where HTTP is spoken."""
        config = self.config
        if not config.tls:
            return self._proxied(accept.plain(service))
        from omnicorn.runtime.tls import Handshakes, make_certificates

        self._certificates = certificates = make_certificates(
            config, accept.alpn(service), host.time
        )
        self._handshakes = handshakes = Handshakes(
            host,
            certificates.current,
            accept.secure(service),
            config.timeout_ssl_handshake,
            accept.plain(service),
        )
        return self._proxied(handshakes.accept)

    def _proxied(self, connect: Connect) -> Connect:
        """The same behind a PROXY header, where one is expected."""
        if not self.config.proxy_protocol:
            return connect
        from omnicorn.connections.proxy import proxied
        from omnicorn.security.trust import TrustedPeers

        return proxied(self._services[0], connect, TrustedPeers(self.config.proxy_allow_from))

    def _bind_redirect(self, secure: Listeners, port: int) -> tuple[Connect, Listeners]:
        """Bind what answers plain HTTP with 308."""
        from omnicorn.config.bind import Bind
        from omnicorn.runtime.redirect import Redirect

        config = self.config
        hosts = {
            place.host: None
            for place in config.binds
            if place.kind == "tcp" and place.scheme == "http"
        }
        plain = self._listeners_for(
            [Bind("tcp", name, port) for name in hosts or (config.host,)], "http"
        )
        names = [local_address(sock) for sock in secure.sockets]
        target = next((name[1] for name in names if name is not None and name[1] is not None), None)
        settings = config.replace(
            hsts=None, root_path="", http="1", ws="none", proxy_headers=False, interface="asgi3"
        )
        service = self._make_service(Redirect(target), settings, None)
        return self._proxied(accept.plain(service)), plain

    def reload(self) -> None:
        """Read the certificates again, for new connections; what is wrong is logged."""
        if self._certificates is not None:
            self._certificates.reload()

    # ------------------------------------------------------------------ stop

    async def stop(self, grace: float | None = None) -> None:
        """Drain, then stop the application; returns when all is done.

        May be called again meanwhile: every caller waits for the same end. The first one, if it
        is cancelled, is in a hurry (see `hurry`) and waits all the same; the others just leave.
        While `start` runs, that one is given up.

        Args:
            grace: Seconds the exchanges get, in the place of ``timeout_graceful_shutdown``.
        """
        host = self._host
        if host is None or not self._services:
            return
        if grace is not None:
            self._grace = grace
        self.give_up()
        if not self._stopping:
            self._stopping = True
            await self._see_through(self._stop())
        elif not self._stopped.is_set:
            waiter = host.create_future()
            self._stopped.watch(partial(_wake, waiter))
            await waiter

    def give_up(self) -> None:
        """Have `start` give back what it has so far, and raise `Stopped`; later, do nothing."""
        if self._started or self._stopping or self._host is None:
            return
        self._stopping = True
        if self._lifespan is not None and self._lifespan.is_starting:
            self._cancel_startup(self._lifespan, self._host)

    def hurry(self) -> None:
        """Wait no longer: cancel the exchanges, or else the shutdown that `stop` waits for; or
        the start-up that was given up."""
        self._hurry.set()
        lifespan = self._lifespan
        if self._stopping and lifespan is not None and lifespan.is_starting:
            lifespan.abandon()

    async def _stop(self) -> None:
        try:
            self._close_listeners()
            if self._handshakes is not None:
                self._handshakes.close()
            for _ in range(_ACCEPTING):
                await self._wait(0, Event())
            await self._drain()
        finally:
            try:
                await self._release()
            finally:
                self._stopped.set()

    async def _drain(self) -> None:
        services = self._services
        idle = Event(len(services))
        for service in services:
            service.drain(idle.set)
        grace = self._grace
        if await self._wait(grace / 2, idle, self._hurry):
            return
        # Half of the time is over: whoever streams without end is told that nobody listens.
        for service in services:
            service.disconnect()
        if await self._wait(_LAST_WORD, idle) or await self._wait(grace / 2, idle, self._hurry):
            return
        logger.warning(
            "%d requests are cancelled and %d connections cut: %s",
            sum(service.active for service in services),
            self.connections,
            "somebody is in a hurry"
            if self._hurry.is_set
            else f"{grace:g} s of graceful shutdown are over",
        )
        for service in services:
            service.cancel()
        if not await self._wait(_CANCEL_GRACE, idle):
            stubborn = sum(service.active for service in services)
            self._complain(f"{stubborn} applications ignore their cancellation")

    async def _release(self) -> None:
        """Give back what `start` acquired; once more does nothing."""
        self._close_listeners()
        try:
            await self._shut_down_application()
        finally:
            for service in self._services:
                service.deadlines.close()
                if service.wsgi is not None:
                    service.wsgi.threads.stop()
            if self._host is not None:
                self._host.release()
            self._close_log()

    def _close_listeners(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        for listeners in self._listeners:
            listeners.close()

    def _complain(self, reason: str) -> None:
        logger.error("%s", reason)
        if self.on_stubborn is not None:
            self.on_stubborn()

    async def _shut_down_application(self) -> None:
        lifespan, self._lifespan = self._lifespan, None
        host = self._host
        if lifespan is None or host is None:
            return
        over = Event()

        async def shut_down() -> None:
            try:
                await lifespan.settled()  # a start that was given up may still clean up
                await lifespan.shutdown()
            except LifespanFailed as exc:
                logger.error("The application's shutdown failed: %s", exc)
            finally:
                over.set()

        self._hurry = Event()  # who was in a hurry before has been served
        task = host.spawn(shut_down())
        config = self.config
        limit = config.timeout_shutdown
        if limit is None:
            limit = config.timeout_graceful_shutdown
        if not await self._wait(limit, over, self._hurry):
            logger.warning("The application's shutdown is cancelled")
            lifespan.cancel()
            if not await self._wait(_CANCEL_GRACE, over):
                self._complain("The application ignores the cancellation of its lifespan")
                task.cancel()

    # ------------------------------------------------------------------ waiting

    async def _wait(self, seconds: float, event: Event, *others: Event) -> bool:
        """Wait for *event*, at most until one of *others*, or for *seconds*; whether it came."""
        host = self._host
        assert host is not None
        if not any(each.is_set for each in (event, *others)):
            waiter = host.create_future()
            wake = partial(_wake, waiter)
            for each in (event, *others):
                each.watch(wake)
            timer = host.call_at(host.time() + seconds, wake)
            try:
                await waiter
            finally:
                timer.cancel()
        return event.is_set

    async def _see_through(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* to its end, though the caller be cancelled; it must not raise."""
        assert self._host is not None
        over = Event()

        async def run() -> None:
            try:
                await work
            finally:
                over.set()

        coroutine = run()
        try:
            task = self._host.spawn(coroutine)
        except RuntimeError:  # the loop has died
            coroutine.close()
            work.close()
            self._close_listeners()
            self._close_log()
            raise
        await self._until(over)
        del task  # kept until here: a loop may hold its tasks by weak references

    async def _until(self, event: Event) -> None:
        """Wait for *event*; a cancellation hurries, and goes on when it has come."""
        host = self._host
        assert host is not None
        if not event.is_set:
            waiter = host.create_future()
            event.watch(partial(_wake, waiter))
            await host.outlast(waiter, self.hurry)

    # ------------------------------------------------------------------ the access log

    def _open_log(self, host: Host) -> AccessLog | AccessLogger:
        """The access log as configured: the operator's logger, a file, or standard output."""
        from omnicorn.observability.access_log import (
            DEFAULT_FORMAT,
            AccessLog,
            AccessLogger,
            stream_writer,
        )
        from omnicorn.observability.logs import access_logger, wants_colors

        config = self.config
        text = config.access_log_format or DEFAULT_FORMAT
        configured = access_logger()
        if configured is not None:
            return AccessLogger(text, configured)
        stream = sys.stdout
        path = config.access_log_file
        if path is not None and path != "-":
            try:
                stream = self._log_file = open(path, "a", encoding="utf-8")  # noqa: SIM115
            except OSError as exc:
                raise ConfigError(
                    f"access_log_file: {path} cannot be opened: {exc.strerror}", "access_log_file"
                ) from None
        colors = wants_colors(stream, config.use_colors)
        return AccessLog(text, stream_writer(stream), host.call_soon, colors=colors)

    def _close_log(self) -> None:
        if self._access_log is not None:
            self._access_log.flush()
        if self._log_file is not None:
            self._log_file.close()


class Stopped(Exception):
    """`Server.start` was given up because `Server.stop` was called."""


def _wake(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _by_scheme(binds: Sequence[Bind]) -> Iterator[tuple[str, list[Bind]]]:
    """The binds of each protocol, in the order of the first of each."""
    groups: dict[str, list[Bind]] = {}
    for each in binds:
        groups.setdefault(each.scheme, []).append(each)
    yield from groups.items()
