"""From a configuration to an exit code: the event loop and the process.

===========  =======================================================
exit code    meaning
===========  =======================================================
0            served and stopped in order
1            an application ignored its cancellation, and the process was ended by force
2            the configuration is wrong, or an address is not to be had
3            the application did not load, or its lifespan failed
130          Ctrl-C before it served
===========  =======================================================
"""

from __future__ import annotations

import logging
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from omnicorn.config import Config
from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.runtime.loader import load
from omnicorn.runtime.server import Server
from omnicorn.runtime.serving import serve_until_told

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from omnicorn.runtime.interfaces import AnyApplication

EXIT_OK = 0
EXIT_FORCED = 1
EXIT_USAGE = 2
EXIT_APP = 3

LAST_PATIENCE = 5.0
"""Seconds the event loop gets to end by itself when an application ignored its cancellation."""

logger = logging.getLogger("omnicorn")


def run(app: AnyApplication | str | None = None, **options: Any) -> int:
    """Serve an application until SIGINT or SIGTERM; blocks.

    Args:
        app: An ASGI or WSGI application or its import string, ``"module:attribute"``.
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


def run_config(config: Config, app: AnyApplication | None = None) -> int:
    """Serve as configured; see `run`."""
    from omnicorn.observability.logs import configure

    configure(config.log_level, config.log_config, config.use_colors)
    target = load(app, config)
    runner = loop_runner(config.loop)
    server = Server(target, config.replace(factory=False))
    server.on_stubborn = _end_by_force
    try:
        runner(partial(serve_until_told, server, signals=True))
    except LifespanFailed as exc:
        logger.error("The application did not start: %s", exc, exc_info=exc.__cause__)
        return EXIT_APP
    return EXIT_OK


def loop_runner(name: str) -> Callable[[Callable[[], Coroutine[Any, Any, None]]], object]:
    """What runs an async function from beginning to end, for ``--loop``.

    Raises:
        ConfigError: The library asked for is not installed.
    """
    if name == "trio":
        try:
            import trio
        except ImportError:
            raise ConfigError(
                "loop: trio is not installed; install omnicorn[trio] or use --loop asyncio", "loop"
            ) from None
        return trio.run
    return partial(_run_asyncio, loop_factory(name))


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


def _run_asyncio(
    factory: Callable[[], asyncio.AbstractEventLoop] | None,
    main: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    import asyncio

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def _end_by_force() -> None:
    """An application may never end, and the loop waits for it: bound that, in our own process."""
    import threading

    threading.Thread(target=_wait_and_end, name="omnicorn-end", daemon=True).start()


def _wait_and_end() -> None:
    time.sleep(LAST_PATIENCE)
    logger.critical("The process is ended by force: applications go on that were cancelled")
    logging.shutdown()
    sys.stdout.flush()
    os._exit(EXIT_FORCED)
