"""The ASGI ``http`` and ``websocket`` scopes (HTTP & WebSocket spec 2.5).

Every request gets dicts and lists of its own, because middleware may change them; what is
inside (pairs of bytes) is immutable and shared. To copy a dict is much faster than to fill
one, so a head that comes again brings a template of its scope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.http.target import encode_path

if TYPE_CHECKING:
    from omnicorn.ports import RequestHead

Address = tuple[str, int]
ServerAddress = tuple[str, int | None]


_SEEN: dict[str, Any] = {}
"""In the template's place: a head that came once."""


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
        root_path: The prefix the application is mounted at, the same for all uses of
            *head*, unless that has one itself. The scope's ``path`` contains it, so it is put in
            front of what the (prefix-stripping) proxy sent.
        state: The lifespan's state, copied shallowly; None where lifespan is not supported.
        extensions: What the carrier offers, copied shallowly.
    """
    template = head.template
    if template:
        scope = template.copy()
    else:
        scope = scope_template(head, root_path)
        # Worth keeping for the second of equal requests; most heads have none.
        head.template = _SEEN if template is None else scope.copy()
    scope["asgi"] = {"version": "3.0", "spec_version": "2.5"}
    scope["scheme"] = scheme
    scope["headers"] = [*head.headers]
    scope["client"] = client
    scope["server"] = server
    scope["extensions"] = extensions.copy()
    if state is not None:
        scope["state"] = state.copy()
    return scope


def websocket_scope(
    head: RequestHead,
    scheme: str,
    client: Address | None,
    server: ServerAddress | None,
    root_path: str,
    state: dict[str, Any] | None,
    extensions: dict[str, dict[str, Any]],
    subprotocols: list[str],
) -> dict[str, Any]:
    """Build the scope of one WebSocket; as `http_scope`, with the client's *subprotocols*."""
    scope = http_scope(head, scheme, client, server, root_path, state, extensions)
    del scope["method"]
    scope["type"] = "websocket"
    scope["scheme"] = "wss" if scheme in ("https", "wss") else "ws"
    scope["subprotocols"] = subprotocols
    return scope


def scope_template(head: RequestHead, root_path: str) -> dict[str, Any]:
    """What the scopes of equal requests have in common, every key in its place.

    Args:
        head: The request.
        root_path: The prefix the application is mounted at.
    """
    path = head.path
    raw_path = head.raw_path
    if head.root_path is not None:
        root_path = head.root_path
    elif root_path and path != "*":  # the asterisk of OPTIONS names no path
        path = root_path + path
        raw_path = encode_path(root_path) + raw_path
    return {
        "type": "http",
        "asgi": None,
        "http_version": head.version,
        "method": head.method,
        "scheme": "",
        "path": path,
        "raw_path": raw_path,
        "query_string": head.query,
        "root_path": root_path,
        "headers": None,
        "client": None,
        "server": None,
        "extensions": None,
    }
