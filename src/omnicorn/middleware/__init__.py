"""Middleware: applications around applications, for any ASGI 3 server, on asyncio and on trio.

`Dispatcher` mounts several applications by path and host, `ProxyFix` believes the proxies in
front, `HTTPSRedirect` sends plain HTTP to https; `wsgi_to_asgi` and `asgi_to_wsgi` are the
toolkit's `WsgiToAsgi` and `AsgiToWsgi`, under the names that middleware has. None of them
changes a scope that it was given: they copy it. The names are loaded on first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnicorn.middleware.dispatcher import Dispatcher
    from omnicorn.middleware.https_redirect import HTTPSRedirect
    from omnicorn.middleware.proxy_fix import ProxyFix
    from omnicorn.toolkit.asgi_to_wsgi import AsgiToWsgi as asgi_to_wsgi
    from omnicorn.toolkit.wsgi import WsgiToAsgi as wsgi_to_asgi

__all__ = ["Dispatcher", "HTTPSRedirect", "ProxyFix", "asgi_to_wsgi", "wsgi_to_asgi"]

_HOMES = {
    "Dispatcher": ("omnicorn.middleware.dispatcher", "Dispatcher"),
    "HTTPSRedirect": ("omnicorn.middleware.https_redirect", "HTTPSRedirect"),
    "ProxyFix": ("omnicorn.middleware.proxy_fix", "ProxyFix"),
    "asgi_to_wsgi": ("omnicorn.toolkit.asgi_to_wsgi", "AsgiToWsgi"),
    "wsgi_to_asgi": ("omnicorn.toolkit.wsgi", "WsgiToAsgi"),
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
