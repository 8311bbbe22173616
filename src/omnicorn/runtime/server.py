"""A server's life inside a running asyncio loop: start, serve, drain, stop.

::

    start ──▶ bind ──▶ lifespan.startup ──▶ listen ──▶ (serving)
    stop  ──▶ close listeners and idle connections, let exchanges finish
          ──▶ half of the grace: http.disconnect to every application
          ──▶ the whole grace: cancel what is left
          ──▶ lifespan.shutdown (always; as long again, then cancelled)

With ``redirect_http`` there are two services, of which the second answers 308; both drain.

Rule: nobody here touches signals or the process; `runtime.run` does.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

from omnicorn.bridge.lifespan import Lifespan
from omnicorn.connections import accept
from omnicorn.connections.service import Http2, Service, Timeouts, WebSockets
from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.http.limits import Limits
from omnicorn.transports._asyncio import AsyncioLoop, listen
from omnicorn.transports.sockets import Listeners, bind, local_address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

    from omnicorn.bridge.cycle import Application
    from omnicorn.config import Config
    from omnicorn.config.bind import Bind
    from omnicorn.observability.access_log import AccessLog, AccessLogger
    from omnicorn.ports import ConnectionPort
    from omnicorn.runtime.tls import Handshakes, OwnContext
    from omnicorn.security.tls import Certificates

logger = logging.getLogger("omnicorn")

_CANCEL_GRACE = 5.0
"""Seconds a cancelled application gets for its clean-up."""


class Server:
    """Serves one application from the running event loop.

    Args:
        app: An ASGI 3 application, or its import string; None takes ``config.app``.
        config: Everything else; the defaults where not given.

    Attributes:
        addresses: Where it listens, with real port numbers: ``http://127.0.0.1:8000``,
            ``https://...`` with TLS.
        redirects: Where it answers 308 alone, in the same form.
        config: As given.

    Resource handling: `start` acquires listening sockets and the application's lifespan
    or, when it raises, nothing; `stop` releases both. As an async context manager it does
    the two.
    """

    def __init__(self, app: Application | str | None = None, config: Config | None = None) -> None:
        if config is None:
            from omnicorn.config import Config

            config = Config()
        self._app = app
        self.config = config
        self.addresses: list[str] = []
        self.redirects: list[str] = []
        self._service: Service | None = None
        self._redirect: Service | None = None
        self._certificates: Certificates | OwnContext | None = None
        self._handshakes: Handshakes | None = None
        self._lifespan: Lifespan | None = None
        self._listeners: list[Listeners] = []
        self._acceptors: list[asyncio.AbstractServer] = []
        self._stopping: asyncio.Task[None] | None = None
        self._hurry: asyncio.Event | None = None
        self._log_file: TextIO | None = None

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # ------------------------------------------------------------------ start

    async def start(self) -> None:
        """Start the application and listen.

        Raises:
            ConfigError: The application cannot be loaded, an address not be bound, or a
                certificate not be used.
            LifespanFailed: The application refused to start.
        """
        if self._service is not None:
            raise RuntimeError("this server has been started before; make a new one")
        config = self.config
        app = load(self._app, config)
        loop = AsyncioLoop(asyncio.get_running_loop())
        self._hurry = asyncio.Event()
        try:
            access_log = self._open_log(loop) if config.access_log else None
            self._service = service = make_service(app, loop, config, access_log)
            connect = self._acceptor(service, loop)
            listeners = self._bind(config.binds, "https" if config.tls else "http")
            redirect = self._bind_redirect(listeners, loop)
            self._lifespan = lifespan = Lifespan(app, loop, config.lifespan)
            try:
                await lifespan.startup()
            except BaseException:
                self._lifespan = None
                lifespan.cancel()
                raise
            if self._stopping is not None:
                raise RuntimeError("this server was stopped while it started")
            service.state = lifespan.state
            for each in self._listeners:
                each.listen()
            self._acceptors = await listen(connect, listeners.sockets, config.backlog)
            if redirect is not None:
                answer, plain = redirect
                self._acceptors += await listen(answer, plain.sockets, config.backlog)
                self.redirects = list(plain.addresses)
        except BaseException:
            await self._release()
            raise
        self.addresses = list(listeners.addresses)
        for address in self.addresses:
            logger.info("omnicorn is serving on %s", address)
        for address in self.redirects:
            logger.info("omnicorn redirects %s to https", address)

    def _bind(self, binds: Sequence[Bind], scheme: str) -> Listeners:
        config = self.config
        listeners = bind(
            binds,
            backlog=config.backlog,
            reuse_port=config.reuse_port,
            uds_permissions=config.uds_permissions,
            uds_owner=config.uds_owner,
            scheme=scheme,
        )
        self._listeners.append(listeners)
        return listeners

    def _acceptor(self, service: Service, loop: AsyncioLoop) -> Callable[[], ConnectionPort]:
        """What makes connections of accepted sockets."""
        config = self.config
        if not config.tls:
            return accept.plain(service)
        from omnicorn.runtime.tls import Handshakes, make_certificates

        self._certificates = certificates = make_certificates(
            config, accept.alpn(service), loop.time
        )
        self._handshakes = handshakes = Handshakes(
            loop,
            certificates.current,
            accept.secure(service),
            config.timeout_ssl_handshake,
            accept.plain(service),
        )
        return handshakes.accept

    def _bind_redirect(
        self, listeners: Listeners, loop: AsyncioLoop
    ) -> tuple[Callable[[], ConnectionPort], Listeners] | None:
        """Bind what answers plain HTTP; returns what to accept with, and where."""
        config = self.config
        if config.redirect_http is None:
            return None
        from omnicorn.config.bind import Bind
        from omnicorn.runtime.redirect import Redirect

        hosts = {place.host: None for place in config.binds if place.kind == "tcp"}
        plain = self._bind(
            [Bind("tcp", host, config.redirect_http) for host in hosts or (config.host,)], "http"
        )
        names = [local_address(sock) for sock in listeners.sockets]
        port = next((name[1] for name in names if name is not None and name[1] is not None), None)
        # RFC 6797 §7.2: no strict-transport-security where it could have been put in.
        settings = config.replace(hsts=None, root_path="", http="1", ws="none", proxy_headers=False)
        self._redirect = service = make_service(Redirect(port), loop, settings, None)
        return accept.plain(service), plain

    def reload(self) -> None:
        """Read the certificates again, for new connections; what is wrong is logged."""
        if self._certificates is not None:
            self._certificates.reload()

    # ------------------------------------------------------------------ stop

    async def stop(self) -> None:
        """Drain, then stop the application; returns when all is done.

        May be called again meanwhile: every caller waits for the same end.
        """
        if self._service is None:
            return
        if self._stopping is not None:
            await asyncio.shield(self._stopping)
            return
        self._stopping = stopping = asyncio.ensure_future(self._stop(self._service))
        cancelled: asyncio.CancelledError | None = None
        while not stopping.done():
            try:
                await asyncio.wait((stopping,))
            except asyncio.CancelledError as exc:
                cancelled = exc
                self.hurry()
        if cancelled is not None:
            raise cancelled
        await stopping

    async def _stop(self, service: Service) -> None:
        try:
            self._close_listeners()
            if self._handshakes is not None:
                self._handshakes.close()
                await asyncio.sleep(0)  # for those it cuts
            if self._redirect is None:
                await self._drain(service)
            else:
                await asyncio.gather(self._drain(service), self._drain(self._redirect))
        finally:
            await self._release()

    def hurry(self) -> None:
        """Wait no longer: cancel the exchanges, or else the shutdown that `stop` waits for."""
        if self._hurry is not None:
            self._hurry.set()

    def _open_log(self, loop: AsyncioLoop) -> AccessLog | AccessLogger:
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
        return AccessLog(text, stream_writer(stream), loop.call_soon, colors=colors)

    def _close_log(self) -> None:
        service = self._service
        if service is not None and service.access_log is not None:
            service.access_log.flush()
        if self._log_file is not None:
            self._log_file.close()

    async def _release(self) -> None:
        """Give back what `start` acquired; once more does nothing."""
        self._close_listeners()
        try:
            await self._shut_down_application()
        finally:
            self._close_log()

    def _close_listeners(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        for listeners in self._listeners:
            listeners.close()

    async def _drain(self, service: Service) -> None:
        idle = asyncio.Event()
        service.drain(idle.set)
        grace = self.config.timeout_graceful_shutdown
        if await self._wait(idle, grace / 2):
            return
        # Half of the time is over: whoever streams without end is told that nobody listens.
        service.disconnect()
        if await self._wait(idle, grace / 2):
            return
        hurried = self._hurry is not None and self._hurry.is_set()
        logger.warning(
            "%d requests are cancelled: %s",
            service.active,
            "somebody is in a hurry" if hurried else f"{grace:g} s of graceful shutdown are over",
        )
        service.cancel()
        try:
            async with asyncio.timeout(_CANCEL_GRACE):
                await idle.wait()
        except TimeoutError:
            logger.error("%d applications ignore their cancellation", service.active)

    async def _wait(self, idle: asyncio.Event, seconds: float) -> bool:
        """Wait for *idle*; returns False when time is up or somebody is in a hurry."""
        assert self._hurry is not None
        if idle.is_set():
            return True
        waits = [asyncio.ensure_future(event.wait()) for event in (idle, self._hurry)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return idle.is_set()

    async def _shut_down_application(self) -> None:
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is None:
            return
        self._hurry = hurry = asyncio.Event()  # who was in a hurry before has been served
        shutdown = asyncio.ensure_future(lifespan.shutdown())
        hurried = asyncio.ensure_future(hurry.wait())
        try:
            await asyncio.wait(
                (shutdown, hurried),
                timeout=self.config.timeout_graceful_shutdown,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not shutdown.done():
                logger.warning("The application's shutdown is cancelled")
                lifespan.cancel()
            async with asyncio.timeout(_CANCEL_GRACE):
                await shutdown
        except asyncio.CancelledError:
            lifespan.cancel()
            shutdown.cancel()
            raise
        except LifespanFailed as exc:
            logger.error("The application's shutdown failed: %s", exc)
        except TimeoutError:
            logger.error("The application ignores the cancellation of its shutdown")
        finally:
            hurried.cancel()


def load(app: Application | str | None, config: Config) -> Application:
    """The application itself, imported where it is named."""
    target = config.app if app is None else app
    if target is None:
        raise ConfigError("no application is given: name it as module:attribute", "app")
    if isinstance(target, str):
        from omnicorn.runtime.loader import load_app

        return load_app(target, app_dir=config.app_dir, factory=config.factory)
    if config.factory:
        return target()  # type: ignore[call-arg,return-value]  # a factory, by the caller's word
    return target


def make_service(
    app: Application,
    loop: AsyncioLoop,
    config: Config,
    access_log: AccessLog | AccessLogger | None,
) -> Service:
    """Translate the configuration into what connections share."""
    trusted = None
    if config.proxy_headers and config.forwarded_allow_ips:
        from omnicorn.security.trust import TrustedPeers

        trusted = TrustedPeers(config.forwarded_allow_ips)
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in config.headers]
    if config.hsts is not None:
        headers.append((b"strict-transport-security", config.hsts.encode()))
    return Service(
        app,
        loop,
        limits=Limits(
            line=config.limit_request_line,
            head=config.limit_request_head,
            fields=config.limit_request_fields,
            body=config.limit_request_body,
        ),
        timeouts=Timeouts(
            head=config.timeout_request_head,
            body=config.timeout_body,
            keep_alive=config.timeout_keep_alive,
            write=config.timeout_write,
        ),
        root_path=config.root_path,
        limit_concurrency=config.limit_concurrency,
        access_log=access_log,
        trusted=trusted,
        server_header=config.server_header,
        date_header=config.date_header,
        headers=headers,
        websockets=None
        if config.ws == "none"
        else WebSockets(
            max_size=config.ws_max_size,
            max_queue=config.ws_max_queue,
            ping_interval=config.ws_ping_interval,
            ping_timeout=config.ws_ping_timeout,
            deflate=config.ws_per_message_deflate,
        ),
        http2=Http2(
            enabled=config.http != "1",
            only=config.http == "2",
            max_streams=config.h2_max_concurrent_streams,
            window=config.h2_initial_window,
            stream_window=config.h2_initial_stream_window,
            ping_interval=config.h2_ping_interval,
        ),
    )
