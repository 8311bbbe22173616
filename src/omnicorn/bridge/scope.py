"""The ASGI ``http`` scope (HTTP spec 2.5), built in one dict literal.

Every request gets dicts and lists of its own, because middleware may change them; what is
inside (pairs of bytes) is immutable and shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.http.target import encode_path

if TYPE_CHECKING:
    from omnicorn.ports import RequestHead

Address = tuple[str, int]
ServerAddress = tuple[str, int | None]


def http_scope(
    head: RequestHead,
    scheme: str,
    client: Address | None,
    server: ServerAddress | None,
    root_path: str,
    state: dict[str, Any] | None,
    extensions: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Build the scope of one request.

    Args:
        head: The request.
        scheme: ``"http"`` or ``"https"``.
        client: ``(host, port)``, or None behind an unnamed unix socket.
        server: ``(host, port)``, or ``(path, None)`` for a unix socket.
        root_path: The prefix the application is mounted at; ``path`` contains it, so it is
            put in front of what the (prefix-stripping) proxy sent.
        state: The lifespan's state, copied shallowly; None where lifespan is not supported.
        extensions: What the carrier offers, copied shallowly.
    """
    if root_path:
        path = root_path + head.path
        raw_path = encode_path(root_path) + head.raw_path
    else:
        path = head.path
        raw_path = head.raw_path
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": head.version,
        "method": head.method,
        "scheme": scheme,
        "path": path,
        "raw_path": raw_path,
        "query_string": head.query,
        "root_path": root_path,
        "headers": [*head.headers],
        "client": client,
        "server": server,
        "extensions": extensions.copy(),
    }
    if state is not None:
        scope["state"] = state.copy()
    return scope
