"""A server in a thread of its own, for tests whose client blocks.

What this file alone decides: how another thread starts and stops a server, and how it learns of
failures.

Invariants:

1. `start` returns when clients can connect, or raises what kept the server from it, with
   nothing left behind.
2. `stop` returns when the thread has ended. What the server raised at its end is raised there.
3. Every wait ends: the start after *timeout* seconds, the stop when the server's own bounds are
   over. The thread is a daemon, so an application that ignores even its cancellation does not
   keep the process.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from omnicorn.config import Config
from omnicorn.runtime.hosts import hosting
from omnicorn.runtime.run import loop_runner
from omnicorn.runtime.server import Server, Stopped

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from omnicorn.ports import Waiter
    from omnicorn.runtime.interfaces import AnyApplication

_GRACE = 5.0
"""Seconds that running requests get when a test is over, unless it says otherwise."""

_SLACK = 15.0
"""Seconds beyond the graces that a server may need to end: it gives cancelled code time, too."""


class LiveServer:
    """Serves an application from another thread while a ``with`` block runs.

    ::

        with LiveServer(app) as live:
            assert httpx.get(live.url).status_code == 200

    Args:
        app: An ASGI or WSGI application, or its import string.
        mode: Its interface: ``"asgi3"``, ``"asgi2"``, ``"wsgi"``; ``"auto"`` by default.
        sockets: Bound sockets to serve on, in the place of ``host`` and ``port``.
        timeout: Seconds until the start is given up.
        **options: The options of `omnicorn.Config`. ``loop`` is ``"auto"``, ``"asyncio"``,
            ``"uvloop"`` or ``"trio"``. Other than there, ``port`` is 0 by default (any free one),
            ``access_log`` is off, and ``timeout_graceful_shutdown`` is 5.

    Attributes:
        urls: Where it serves, as ``http://127.0.0.1:41234``.

    Raises:
        ConfigError: An option is wrong.
    """

    def __init__(
        self,
        app: AnyApplication | str,
        *,
        mode: str | None = None,
        sockets: Iterable[socket.socket] | None = None,
        timeout: float = 30.0,
        **options: Any,
    ) -> None:
        options.setdefault("port", 0)
        options.setdefault("access_log", False)
        options.setdefault("timeout_graceful_shutdown", _GRACE)
        self.urls: list[str] = []
        self._timeout = timeout
        self._server = Server(app, Config(**options), mode=mode, sockets=sockets)
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._in_loop: Callable[[Callable[[], object]], object] | None = None
        self._told: Waiter | None = None

    def __enter__(self) -> LiveServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except Exception:
            if error is None:
                raise  # else the block's own failure is what happened first

    @property
    def url(self) -> str:
        """The first of `urls`."""
        if not self.urls:
            raise RuntimeError("the server is not started: use it as a context manager")
        return self.urls[0]

    @property
    def port(self) -> int:
        """The port of `url`.

        Raises:
            ValueError: It is a Unix socket.
        """
        port = None if self.url.startswith("unix:") else urlsplit(self.url).port
        if port is None:
            raise ValueError(f"{self.url} has no port")
        return port

    def start(self) -> None:
        """Start the thread; returns when clients can connect.

        Raises:
            ConfigError: The application cannot be loaded, or an address not be bound.
            LifespanFailed: The application refused to start.
            TimeoutError: It has not started in time.
        """
        if self._thread is not None:
            raise RuntimeError("this server has been started before; make a new one")
        run = loop_runner(self._server.config.loop)
        self._thread = thread = threading.Thread(
            target=self._run, args=(run,), name="omnicorn.testing.LiveServer", daemon=True
        )
        thread.start()
        try:
            ready = self._ready.wait(self._timeout)
        except BaseException:  # Ctrl-C
            self._tell(self._server.give_up)
            raise
        if not ready:
            self._tell(self._server.give_up)
            self._join()
            raise TimeoutError(f"the application has not started within {self._timeout:g} s")
        if self._error is not None:
            self._join()

    def stop(self) -> None:
        """Drain and end the thread; once more does nothing.

        Raises:
            RuntimeError: The application ignores its cancellation, and the thread goes on.
        """
        if self._thread is not None:
            self._tell(self._stop)
            self._join()

    def _join(self) -> None:
        assert self._thread is not None
        config = self._server.config
        grace = config.timeout_graceful_shutdown
        self._thread.join(grace + (config.timeout_shutdown or grace) + _SLACK)
        if self._thread.is_alive():
            raise RuntimeError("the application ignores its cancellation: its thread goes on")
        error, self._error = self._error, None
        if error is not None and not isinstance(error, Stopped):
            raise error

    def _tell(self, function: Callable[[], object]) -> None:
        if self._in_loop is not None and self._thread is not None and self._thread.is_alive():
            try:
                self._in_loop(function)
            except RuntimeError:
                pass  # the loop was closed in this instant

    # ------------------------------------------------------------------ in the thread

    def _run(self, run: Callable[[Any], object]) -> None:
        try:
            run(self._serve)
        except BaseException as exc:  # also SystemExit, by which an application may end
            self._error = exc
        finally:
            self._in_loop = None
            self._ready.set()

    async def _serve(self) -> None:
        server = self._server
        async with hosting() as host:
            self._told = told = host.create_future()
            self._in_loop = host.call_soon_threadsafe
            try:
                await server.start(host)
                self.urls = list(server.urls)
                self._ready.set()
                await told
            finally:
                await server.stop()

    def _stop(self) -> None:
        if self._told is not None and not self._told.done():
            self._told.set_result(None)
