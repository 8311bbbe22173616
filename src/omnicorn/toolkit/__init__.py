"""The toolkit: bridges between sync and async code, and what frameworks and tests need of ASGI.

It needs nothing but Python and never imports the server. A module that is called as one of
asgiref's has its names, signatures and semantics, so that `alias` can put it in that one's place;
what else there is (`asgi_to_wsgi`, `lint`, more in `testing` and `sync`) is our own. The names
below are loaded on first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnicorn.toolkit.alias import install_as_asgiref
    from omnicorn.toolkit.asgi_to_wsgi import AsgiToWsgi
    from omnicorn.toolkit.compatibility import guarantee_single_callable
    from omnicorn.toolkit.local import Local
    from omnicorn.toolkit.server import StatelessServer
    from omnicorn.toolkit.sync import (
        AsyncPortal,
        AsyncSingleThreadContext,
        AsyncToSync,
        SyncToAsync,
        ThreadSensitiveContext,
        async_to_sync,
        iscoroutinefunction,
        markcoroutinefunction,
        sync_to_async,
    )
    from omnicorn.toolkit.threads import set_thread_limit, thread_statistics
    from omnicorn.toolkit.wsgi import WsgiToAsgi

__all__ = [
    "AsgiToWsgi",
    "AsyncPortal",
    "AsyncSingleThreadContext",
    "AsyncToSync",
    "Local",
    "StatelessServer",
    "SyncToAsync",
    "ThreadSensitiveContext",
    "WsgiToAsgi",
    "async_to_sync",
    "guarantee_single_callable",
    "install_as_asgiref",
    "iscoroutinefunction",
    "markcoroutinefunction",
    "set_thread_limit",
    "sync_to_async",
    "thread_statistics",
]

_HOMES = {
    "AsgiToWsgi": "asgi_to_wsgi",
    "Local": "local",
    "StatelessServer": "server",
    "WsgiToAsgi": "wsgi",
    "guarantee_single_callable": "compatibility",
    "install_as_asgiref": "alias",
    "set_thread_limit": "threads",
    "thread_statistics": "threads",
}


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'sync')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
