"""The scopes of a test's requests: what a server would have made of them.

What this file alone decides: defaults, and how a target and header fields given as text become
the bytes of a scope. Keys and types are those of HTTP & WebSocket 2.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from omnicorn.asgi import ASGI_VERSION, SPEC_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]
    Pairs = list[tuple[bytes, bytes]]

CLIENT = ("127.0.0.1", 50000)
SERVER = ("testserver", 80)

# RFC 3986 §3.3, and "%", because a target may come encoded.
_PATH = "/%!$&'()*+,;=:@~"


def request_scope(
    kind: str,
    path: str,
    headers: Headers,
    query_string: str | bytes | None,
    *,
    scheme: str,
    http_version: str,
    root_path: str,
    client: tuple[str, int] | None,
    server: tuple[str, int | None] | None,
    state: dict[str, Any] | None,
    extensions: Iterable[str] | Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Build an ``http`` or ``websocket`` scope, without what only one of them has.

    Raises:
        ValueError: Two queries were given, or a *path* outside of *root_path*.
    """
    target, mark, query = path.partition("?")
    if query_string is None:
        query_string = query
    elif mark:
        raise ValueError(f"the query is in the path {path!r} and in query_string; give one")
    raw_path = quote(target, safe=_PATH).encode("ascii")
    decoded = unquote_to_bytes(raw_path).decode("utf-8", "replace")
    if not f"{decoded}/".startswith(f"{root_path.rstrip('/')}/"):
        raise ValueError(
            f"the path {path!r} is not below root_path {root_path!r}: in ASGI a path contains it"
        )
    scope: dict[str, Any] = {
        "type": kind,
        "asgi": {"version": ASGI_VERSION, "spec_version": SPEC_VERSION},
        "http_version": http_version,
        "scheme": scheme,
        "path": decoded,
        "raw_path": raw_path,
        "query_string": query_string.encode() if isinstance(query_string, str) else query_string,
        "root_path": root_path,
        "headers": pairs(headers),
        "client": client,
        "server": server,
        "extensions": dict(extensions)
        if isinstance(extensions, Mapping)
        else {name: {} for name in extensions},
    }
    if state is not None:
        scope["state"] = state.copy()
    if server is not None:
        host, port = server
        usual = port is None or (scheme, port) in {("http", 80), ("https", 443)}
        usual = usual or (scheme, port) in {("ws", 80), ("wss", 443)}
        add(scope["headers"], b"host", (host if usual else f"{host}:{port}").encode(), first=True)
    return scope


def pairs(headers: Headers) -> Pairs:
    """Header fields as a scope has them: bytes, names in lower case."""
    items = headers.items() if isinstance(headers, Mapping) else headers
    return [(_field(name).lower(), _field(value)) for name, value in items]


def add(headers: Pairs, name: bytes, value: bytes, *, first: bool = False) -> None:
    """Add a field if there is none of this name."""
    if all(name != there for there, _ in headers):
        headers.insert(0 if first else len(headers), (name, value))


def _field(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else bytes(text)
