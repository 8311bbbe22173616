"""From a configuration to an exit code: the loop, the signals, the process.

===========  =======================================================
exit code    meaning
===========  =======================================================
0            served and stopped in order
2            the configuration is wrong, or an address is not to be had
3            the application did not load, or its lifespan failed
===========  =======================================================

SIGINT and SIGTERM drain; a second one cancels what is still running. SIGHUP has the certificates
read again, where there are any. Signal handlers are put back as they were, so that an embedding
program keeps its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from omnicorn.config import Config
from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.runtime.server import Server, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from omnicorn.bridge.cycle import Application

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_APP = 3

logger = logging.getLogger("omnicorn")


def run(app: Application | str | None = None, **options: Any) -> int:
    """Serve an application until SIGINT or SIGTERM; blocks.

    Args:
        app: An ASGI 3 application or its import string, ``"module:attribute"``.
        **options: The options of `Config`.

    Returns:
        The exit code: 0, or 3 when the application's lifespan failed (the reason is logged).

    Raises:
        ConfigError: An option is wrong, the application cannot be loaded, or an address
            not be bound.
    """
    if isinstance(app, str):
        options.setdefault("app", app)
        return run_config(Config(**options))
    return run_config(Config(**options), app)


def run_config(config: Config, app: Application | None = None) -> int:
    """Serve as configured; see `run`."""
    from omnicorn.observability.logs import configure

    configure(config.log_level, config.log_config, config.use_colors)
    target = load(app, config)
    factory = loop_factory(config.loop)
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            runner.run(serve(target, config.replace(factory=False)))
        except LifespanFailed as exc:
            logger.error("The application did not start: %s", exc, exc_info=exc.__cause__)
            return EXIT_APP
    return EXIT_OK


async def serve(app: Application | str | None = None, config: Config | None = None) -> None:
    """Serve an application inside the running loop until SIGINT, SIGTERM or cancellation.

    Signals are only listened to in the main thread, and put back afterwards; SIGHUP calls
    `Server.reload`, where there are certificates. Cancelling the task that awaits this drains as
    a signal does.

    Args:
        app: An ASGI 3 application or its import string; None takes ``config.app``.
        config: The configuration; the defaults if not given.

    Raises:
        ConfigError: The application cannot be loaded or an address not be bound.
        LifespanFailed: The application refused to start.
    """
    server = Server(app, config)
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            server.hurry()
        stop.set()

    callbacks = {signal.SIGINT: on_signal, signal.SIGTERM: on_signal}
    if server.config.tls and server.config.ssl_context is None and hasattr(signal, "SIGHUP"):
        callbacks[signal.SIGHUP] = server.reload
    with contextlib.ExitStack() as stack:
        stack.enter_context(_signals(callbacks))
        if server.config.ssl_sni:
            from omnicorn.security.tls import names_are_ascii

            stack.enter_context(names_are_ascii())
        starting = asyncio.ensure_future(server.start())
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await stopping
            else:
                logger.warning("The start is cancelled")
        finally:
            stopping.cancel()
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await server.stop()


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The maker of event loops for ``--loop``; None is asyncio's own.

    Raises:
        ConfigError: uvloop is asked for and not installed.
    """
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise ConfigError(
                    "loop: uvloop is not installed; install omnicorn[uvloop] or use --loop asyncio",
                    "loop",
                ) from None
        else:
            return uvloop.new_event_loop
    return None


def _in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], None], *_: object) -> None:
    loop.call_soon_threadsafe(callback)


@contextlib.contextmanager
def _signals(callbacks: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Call back in the loop for signals, where that is possible."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}
    for number, callback in callbacks.items():
        previous = signal.getsignal(number)
        # Not the loop's add_signal_handler: a program's own handler there would be lost.
        signal.signal(number, partial(_in_loop, loop, callback))
        before[number] = previous
    try:
        yield
    finally:
        for number, previous in before.items():
            if previous is not None:
                signal.signal(number, previous)
