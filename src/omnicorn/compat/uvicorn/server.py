"""A server's life as uvicorn's embedders know it.

What this file alone decides: the order in which their overrides are called::

    serve ──▶ capture_signals ──▶ install_signal_handlers
          ──▶ startup ──▶ main_loop ──▶ on_tick, ten times a second ──▶ shutdown
    handle_exit, by signals: should_exit, and with a second SIGINT force_exit

Rules:

1. As with uvicorn, `Server.serve` raises ``SystemExit(3)`` if it cannot start, and signals that
   were caught meanwhile are raised again once the server has stopped, for the program's own
   handlers.
2. Attributes may be set at any time from any thread: the loop looks at ``should_exit`` ten
   times a second, as uvicorn does. An event would be quicker, but subclasses override what
   happens at each look.
3. The application's lifespan is run by omnicorn's own server; ``lifespan`` shows its state.

A cancelled ``serve`` stops in order, which uvicorn's does not; so does one whose ``startup`` or
``main_loop`` raises. ``force_exit`` gives a start up that does not end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
from random import randint
from typing import TYPE_CHECKING, Any

from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.runtime import server as _runtime
from omnicorn.runtime.run import EXIT_APP
from omnicorn.transports.sockets import bind

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator
    from types import FrameType

    from omnicorn.compat.uvicorn.config import Config
    from omnicorn.config import Config as _Config
    from omnicorn.transports.sockets import Listeners

__all__ = ["HANDLED_SIGNALS", "Server", "ServerState"]

logger = logging.getLogger("omnicorn")

HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_TICK = 0.1
"""Seconds between two looks at what an embedder may have set."""


class _Served(_runtime.Server):
    """A server that shows more of itself."""

    @property
    def state(self) -> dict[str, Any]:
        """What the application has put into the state of its lifespan."""
        state = None if self._lifespan is None else self._lifespan.state
        return {} if state is None else state

    @property
    def open(self) -> frozenset[object]:
        """The connections that are open."""
        return frozenset().union(*[service.connections for service in self._services])


class ServerState:
    """What uvicorn shares among its connections; of that, what can be counted.

    Attributes:
        connections: Those that are open, to be counted: they are none of uvicorn's protocols.
    """

    def __init__(self) -> None:
        self.server: _Served | None = None

    @property
    def connections(self) -> frozenset[object]:
        return frozenset() if self.server is None else self.server.open

    @property
    def total_requests(self) -> int:
        """Requests since the start, those that are not answered yet included."""
        return 0 if self.server is None else self.server.requests

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"server_state has no {name!r} here, but total_requests, and connections to count",
            name=name,
            obj=self,
        )


class _Listening:
    """The part of `asyncio.Server` that embedders look at."""

    def __init__(self, sock: socket.socket) -> None:
        self.sockets = (sock,)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"an object in servers has no {name!r} here, but sockets; to stop the server, set "
            "should_exit",
            name=name,
            obj=self,
        )


class Server:
    """Serves what a `Config` names, from the running asyncio loop or one of its own.

    Args:
        config: The configuration.

    Attributes:
        started: Whether it has begun to serve; it stays true.
        should_exit: Set it to stop the server.
        force_exit: Set it, too, to wait for no request.
        servers: From `startup` on, one object for each listening socket, with ``sockets``.
        lifespan: Of the configuration's ``lifespan_class``; from `startup` on its ``state`` is
            that of the application. The server runs the lifespan itself.
    """

    lifespan: Any
    servers: list[_Listening]

    def __init__(self, config: Config) -> None:
        self.config = config
        self.server_state = ServerState()
        self.started = False
        self.should_exit = False
        self.force_exit = False
        self.limit_max_requests: int | None = None
        self._server: _Served | None = None
        self._listeners: Listeners | None = None
        self._captured_signals: list[int] = []
        self._handlers: dict[int, tuple[Any, Any]] = {}
        self._is_over = False

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in a loop of its own until a signal or ``should_exit``; blocks.

        Args:
            sockets: Bound sockets to serve on, in the place of what the configuration names.

        Raises:
            SystemExit: With 3, if it cannot start; the reason is logged.
            KeyboardInterrupt: SIGINT came; the server has stopped.
        """
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self.serve(sockets))

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in the running loop; see `run`."""
        with self.capture_signals():
            await self._serve(sockets)

    async def _serve(self, sockets: list[socket.socket] | None) -> None:
        self.lifespan = self.config.lifespan_class(self.config)
        try:
            await self.startup(sockets=sockets)
            if not self.should_exit:
                await self.main_loop()
        finally:
            if self.started:
                await self.shutdown(sockets=sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and listen.

        Args:
            sockets: Bound sockets, in the place of what the configuration names.

        Raises:
            SystemExit: With 3, if that cannot be; the reason is logged.
        """
        self._listeners = None
        try:
            if not self.config.loaded:
                self.config.load()
            config = self.config.translate().replace(factory=False)
            listening = sockets
            if listening is None:
                self._listeners = _bind(config)
                listening = self._listeners.sockets
            server = _Served(self.config.loaded_app, config, sockets=listening)
            await self._start(server)
        except BaseException as error:
            if self._listeners is not None:
                self._listeners.close()
            if isinstance(error, ConfigError):
                logger.error("%s", error)
            elif isinstance(error, _runtime.Stopped):
                logger.error("The start was given up")
            elif isinstance(error, LifespanFailed):
                cause = error.__cause__
                logger.error("The application did not start: %s", error, exc_info=cause)
            else:
                raise
            self.should_exit = True
            sys.exit(EXIT_APP)
        self._server = self.server_state.server = server
        self.servers = [_Listening(sock) for sock in listening]
        if hasattr(self, "lifespan"):  # else `startup` was called alone
            self.lifespan.state = server.state
        limit = self.config.limit_max_requests
        if limit is not None:
            self.limit_max_requests = limit + randint(0, self.config.limit_max_requests_jitter)
        self.started = True

    async def _start(self, server: _Served) -> None:
        starting = asyncio.ensure_future(server.start())
        given_up = False
        try:
            while not starting.done():
                await asyncio.wait((starting,), timeout=_TICK)
                if self.force_exit and not starting.done():
                    server.hurry() if given_up else server.give_up()
                    given_up = True
        except asyncio.CancelledError:
            starting.cancel()
            await asyncio.wait((starting,))
            if not starting.cancelled() and starting.exception() is None:
                await server.stop()
            raise
        starting.result()

    async def main_loop(self) -> None:
        """Wait until `on_tick` says that it is enough."""
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % 864000
            await asyncio.sleep(_TICK)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends `main_loop`.

        Args:
            counter: Of these calls, beginning at 0 again every day.
        """
        if self.should_exit:
            return True
        limit = self.limit_max_requests
        if limit is None or self.server_state.total_requests < limit:
            return False
        logger.warning("The server stops: it has had %d requests", limit)
        return True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop the application; nothing if it has not started.

        Args:
            sockets: Those of `startup`; they are closed by then.
        """
        server, self._server = self._server, None
        if server is None:
            return
        stopping = asyncio.ensure_future(server.stop())
        cancelled: asyncio.CancelledError | None = None
        while not stopping.done():
            if self.force_exit:
                server.hurry()
            try:
                await asyncio.wait((stopping,), timeout=_TICK)
            except asyncio.CancelledError as exc:
                cancelled = exc
                server.hurry()
        if self._listeners is not None:
            self._listeners.close()  # also removes the file of a Unix socket
        if cancelled is not None:
            raise cancelled
        stopping.result()

    # ------------------------------------------------------------------ signals

    def install_signal_handlers(self) -> None:
        """Have SIGINT and SIGTERM call `handle_exit`.

        Whoever overrides it to do nothing keeps the program's own handlers.
        """
        for number in HANDLED_SIGNALS:
            signal.signal(number, self.handle_exit)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals meanwhile, and raise them again afterwards; in the main thread alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in HANDLED_SIGNALS}
        self.install_signal_handlers()
        self._handlers = {
            number: (signal.getsignal(number), previous) for number, previous in before.items()
        }
        try:
            yield
        finally:
            self._is_over = True
            for number, (installed, handler) in self._handlers.items():
                if signal.getsignal(number) != installed:
                    continue  # of a server that started later: it puts back what was before us
                owner = getattr(handler, "__self__", None)
                while isinstance(owner, Server) and owner._is_over:
                    handler = owner._handlers[number][1]
                    owner = getattr(handler, "__self__", None)
                if handler is not None:  # None: not made by Python, and so not to be put back
                    signal.signal(number, handler)
        for captured in reversed(self._captured_signals):
            signal.raise_signal(captured)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What a signal does: stop; a second SIGINT makes haste."""
        self._captured_signals.append(sig)
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        else:
            self.should_exit = True


def _bind(config: _Config) -> Listeners:
    return bind(
        config.binds,
        backlog=config.backlog,
        reuse_port=config.reuse_port,
        scheme="https" if config.tls else "http",
    )
