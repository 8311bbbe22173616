"""omnicorn: a pure-Python ASGI server.

    omnicorn main:app                          # from the shell
    omnicorn.run("main:app", port=8000)        # from a program
    await omnicorn.serve(app, Config(port=0))  # inside a running loop

The names below load on first use, so that ``import omnicorn`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnicorn.config import Config
    from omnicorn.runtime.run import run
    from omnicorn.runtime.server import Server
    from omnicorn.runtime.serving import serve

__version__ = "0.1.0"

__all__ = ["Config", "Server", "__version__", "run", "serve"]

_HOMES = {
    "Config": "omnicorn.config",
    "Server": "omnicorn.runtime.server",
    "run": "omnicorn.runtime.run",
    "serve": "omnicorn.runtime.serving",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
