"""What programs that embed uvicorn use of it: ``from omnicorn.compat import uvicorn``.

``config`` says what uvicorn's keywords mean, ``logs`` what its ``log_config`` does, ``lifespan``
drives one application's lifespan alone, and ``server`` is the server's life, with the overrides
that embedders have. What uvicorn has in its package is here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from omnicorn.compat.uvicorn.config import Config
from omnicorn.compat.uvicorn.lifespan import LifespanOn
from omnicorn.compat.uvicorn.logs import LOGGING_CONFIG
from omnicorn.compat.uvicorn.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LOGGING_CONFIG", "Config", "LifespanOn", "Server", "main", "run"]


def run(app: Any, *, app_dir: str | None = None, **options: Any) -> None:
    """Serve until a signal; blocks.

    Args:
        app: An ASGI or WSGI application, or its import string.
        app_dir: Folder to import the application from.
        **options: The keywords of `Config`.

    Raises:
        ConfigError: A value is wrong, or a keyword has no equivalent.
        SystemExit: With 3, if it cannot start; the reason is logged.
    """
    config = Config(app, **options)
    config._app_dir = app_dir
    try:
        Server(config).run()
    except KeyboardInterrupt:
        pass  # it has stopped in order


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The command line, which has uvicorn's flags where there is an equivalent.

    Args:
        args: Without the program's name; None takes those of the process.
    """
    from omnicorn.runtime.cli import main as command

    sys.exit(command(args))
