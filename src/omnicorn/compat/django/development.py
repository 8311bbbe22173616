"""A server in the place of Django's development server: the same calls, another inside.

What this file alone decides: how `django.core.servers.basehttp.run` comes to serve ASGI. It
makes a server of a class it is given, tells it the application and has it serve, so that all
else stays with Django: addresses, checks, migrations, reloading, and what it says of an
address in use.

The reloader ends the process from its main thread while we serve in another: what is to be told
of the end is told at exit, so that the application's lifespan ends with each reload.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from omnicorn.config import Config
from omnicorn.errors import LifespanFailed
from omnicorn.observability.logs import configure
from omnicorn.runtime.run import loop_factory
from omnicorn.runtime.server import Server

if TYPE_CHECKING:
    from omnicorn.asgi.callables import ASGI3Application

_GRACE = 0.1
"""Seconds that requests get at the end: after Ctrl-C Django's reloader gives us 0.25 in all."""
_SHUTDOWN = 1.0
"""Seconds that the lifespan gets then; somebody waits for it."""

_FORMAT = '"%(r)s" %(s)s %(B)s'
"""Django's own line; the date comes from its formatter."""


class DevelopmentServer:
    """Has the interface of Django's ``WSGIServer`` as far as ``runserver`` uses it.

    Args:
        address: Host and port.
        handler: Not used.
        ipv6: Whether the host is one of IPv6.

    Raises:
        OSError: The address is not to be had.
    """

    def __init__(self, address: tuple[str, int], handler: object, ipv6: bool = False) -> None:
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self.socket = socket.create_server(address, family=family)
        self.server_port: int = self.socket.getsockname()[1]
        self._app: ASGI3Application | None = None
        self._stop: asyncio.Event | None = None

    def set_app(self, app: ASGI3Application) -> None:
        """Take the application."""
        self._app = app

    def serve_forever(self) -> None:
        """Serve until Ctrl-C, or until the process ends.

        Raises:
            SystemExit: The application refused to start; the reason is logged.
        """
        configure("warning")
        _log_requests_as_django_does()
        try:
            with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
                runner.run(self._serve())
        except LifespanFailed as failure:
            logging.getLogger("omnicorn").error(
                "The application did not start: %s", failure, exc_info=failure.__cause__
            )
            raise SystemExit(3) from None

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        config = Config(
            access_log_format=_FORMAT,
            timeout_graceful_shutdown=_GRACE,
            timeout_shutdown=_SHUTDOWN,
            server_header=False,
        )
        server = Server(self._app, config, mode="asgi3", sockets=[self.socket])
        async with server:
            if threading.current_thread() is not threading.main_thread():
                loop = asyncio.get_running_loop()
                # Before the executors of asyncio and asgiref are shut down, where that can be.
                register = getattr(threading, "_register_atexit", atexit.register)
                register(self._end, loop, self._stop, threading.current_thread())
            await self._stop.wait()

    @staticmethod
    def _end(
        loop: asyncio.AbstractEventLoop, stop: asyncio.Event, thread: threading.Thread
    ) -> None:
        """At exit, in the main thread: stop, and wait for it."""
        loop.call_soon_threadsafe(stop.set)
        thread.join(_GRACE + _SHUTDOWN + 1)


class _Status(logging.Filter):
    """Gives Django's formatter what it asks of a record: the date, and the status to colour."""

    def filter(self, record: logging.LogRecord) -> bool:
        _, status, _ = str(record.msg).rsplit(" ", 2)
        record.status_code = int(status) if status.isdigit() else None
        record.server_time = time.strftime("%d/%b/%Y %H:%M:%S")
        return True


def _log_requests_as_django_does() -> None:
    logger: Any = logging.getLogger("omnicorn.access")
    logger.handlers = logging.getLogger("django.server").handlers
    logger.propagate = False
    logger.addFilter(_Status())
    logger.setLevel(logging.INFO)
