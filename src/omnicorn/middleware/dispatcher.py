"""Several applications as one: by host, and by the beginning of the path.

What this file alone decides: which application a request goes to, and what it is told about its
place. The most specific mount wins, whatever the order they were given in:

1. a host of its own before ``*.`` and the rest of it, the longest rest first, before any host;
2. of the same host, the longest path. A path ends at a segment's boundary: ``/api`` has
   ``/api`` and ``/api/users``, and not ``/apis``.

A host whose mounts do not have the path leaves it to the less specific ones; at last comes the
default.

As the specification and PEP 3333 want it, ``root_path`` grows by the mount's path and ``path``
stays whole; a scope whose ``path`` lacks the ``root_path`` is put right, as with it nothing
below could be found. Lifespan and state: `omnicorn.middleware.lifespans`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from omnicorn.http.target import encode_path
from omnicorn.middleware.answers import answer
from omnicorn.middleware.hosts import asked_host, plain_host
from omnicorn.middleware.lifespans import serve_lifespans
from omnicorn.toolkit.compatibility import guarantee_single_callable, is_double_callable
from omnicorn.toolkit.wsgi import WsgiToAsgi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from omnicorn.middleware.answers import Receive, Send
    from omnicorn.middleware.lifespans import States

    Application = Callable[..., Any]

__all__ = ["Dispatcher"]

_LONGEST_HOST = 255  # bytes; RFC 1035 §2.3.4


class _Mounted:
    """An application that is mounted, once or more."""

    __slots__ = ("app", "name", "sockets")

    def __init__(self, name: str, app: Application) -> None:
        self.name = name
        if is_double_callable(app) and _looks_like_wsgi(app):
            app = WsgiToAsgi(app)
        self.sockets = not isinstance(app, WsgiToAsgi)
        self.app = guarantee_single_callable(app)


class Dispatcher:
    """An ASGI application that hands each request to one of several.

    ::

        Dispatcher({
            "/api": api,                        # on every host
            "/old": flask_app,
            "shop.example.org": shop,           # every path of one host
            "*.example.org/static": files,      # one path of all hosts below example.org
        }, default=site)

    The most specific host wins, then the longest path. An application mounted more than once has
    one lifespan. What is mounted nowhere is answered with 404 if there is no default, and so is a
    WebSocket that a WSGI application would get.

    Args:
        mounts: Applications by host, path, or host and path: ASGI 3, ASGI 2 or WSGI, told apart
            by how they can be called. Paths are written decoded; ``/api`` and ``/api/`` are the
            same.
        default: For all else.

    Raises:
        TypeError: An application is none.
        ValueError: A key is malformed or there twice, or nothing is mounted.
    """

    __slots__ = ("_by_host", "_default", "_key", "_mounted", "_table")

    def __init__(
        self, mounts: Mapping[str, Application], *, default: Application | None = None
    ) -> None:
        self._key = f"omnicorn.middleware.Dispatcher-{id(self):x}"
        self._mounted: list[_Mounted] = []
        known: dict[int, _Mounted] = {}
        self._table: dict[str, list[tuple[str, _Mounted]]] = {}
        for key, app in mounts.items():
            host, path = _parsed(key)
            there = self._table.setdefault(host, [])
            if any(path == other for other, _ in there):
                raise ValueError(f"Dispatcher: {key!r} is mounted twice")
            there.append((path, self._add(known, key, app)))
        for there in self._table.values():
            there.sort(key=lambda entry: len(entry[0]), reverse=True)
        self._by_host = any(self._table)
        self._default = None if default is None else self._add(known, "the default", default)
        if not self._mounted:
            raise ValueError("Dispatcher: nothing is mounted; give {'/path': application}")

    def _add(self, known: dict[int, _Mounted], name: str, app: Application) -> _Mounted:
        if not callable(app):
            raise TypeError(f"Dispatcher: {app!r:.80}, at {name}, is no application")
        mounted = known.get(id(app))
        if mounted is None:
            mounted = known[id(app)] = _Mounted(name, app)
            self._mounted.append(mounted)
        return mounted

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve a scope.

        Raises:
            ValueError: It is of a type that is neither lifespan nor has a path.
        """
        if scope["type"] == "lifespan":
            await serve_lifespans(self._mounted, self._key, scope, receive, send)
            return
        if "path" not in scope:
            raise ValueError(
                f"Dispatcher: a scope of type {scope['type']!r} has no path to choose an "
                "application by"
            )
        path: str = scope["path"]
        root: str = scope.get("root_path", "").rstrip("/")
        whole = path == root or path.startswith(f"{root}/")
        prefix, mounted = self._find(scope, path[len(root) :] if whole else path)
        if mounted is None or not (mounted.sockets or scope["type"] == "http"):
            await answer(scope, receive, send, 404, b"Not Found\n")
            return
        inner = {**scope, "root_path": root + prefix}
        if not whole and path[:1] == "/":
            inner["path"] = root + path
            if scope.get("raw_path"):
                inner["raw_path"] = encode_path(root) + scope["raw_path"]
        state: dict[str, Any] | None = scope.get("state")
        if state is not None and self._key in state:
            state = state.copy()
            states: States = state.pop(self._key)
            inner["state"] = states.merged(mounted, state)
        await mounted.app(inner, receive, send)

    def _find(self, scope: Any, path: str) -> tuple[str, _Mounted | None]:
        for host in self._hosts(scope) if self._by_host else ("",):
            for prefix, mounted in self._table.get(host, ()):
                if not prefix or path == prefix or path.startswith(f"{prefix}/"):
                    return prefix, mounted
        return "", self._default

    def _hosts(self, scope: Any) -> Iterator[str]:
        """The keys of the table that a request's host may have, the most specific first."""
        asked = asked_host(scope["headers"])
        if asked is not None and len(asked) <= _LONGEST_HOST:
            host = asked.decode("ascii").lower().removesuffix(".")
            yield host
            dot = host.find(".")
            while dot >= 0:
                yield f"*{host[dot:]}"
                dot = host.find(".", dot + 1)
        yield ""


def _parsed(key: str) -> tuple[str, str]:
    """Host and path of a mount, each "" for all.

    Raises:
        ValueError: It is malformed.
    """
    host, slash, path = key.partition("/")
    path = f"{slash}{path}"
    if not key:
        raise ValueError("Dispatcher: an empty key; '/' mounts an application at every path")
    if host:
        name = host.removeprefix("*.")
        value = name.encode("ascii", "replace")  # by "?", which no host has
        if plain_host(value) != value or "*" in name:
            raise ValueError(
                f"Dispatcher: {key!r} begins with {host!r}, which is not a host such as "
                "'example.org' or '*.example.org' (in ASCII, without a port); a path begins "
                "with '/'"
            )
    if "//" in path or "?" in path or "#" in path or unquote(path) != path:
        raise ValueError(
            f"Dispatcher: {key!r} has the path {path!r}; write it decoded, without empty "
            "segments and without a query"
        )
    return host.lower().removesuffix("."), path.removesuffix("/")


def _looks_like_wsgi(application: Application) -> bool:
    """Whether it can be called with two arguments, and not with the one of ASGI 2."""
    try:
        signature = inspect.signature(application)
    except (TypeError, ValueError):  # it has none, as some written in C
        return False
    fits = []
    for count in (1, 2):
        try:
            signature.bind(*[None] * count)
            fits.append(count)
        except TypeError:
            pass
    return fits == [2]
