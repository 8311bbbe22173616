"""Scopes and events held against their shapes, and what a scope must be beyond its shape.

What this file alone decides: how the tables of `rules` are walked. A finding is the name of a
rule and what was found; several may come of one value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from omnicorn.toolkit.lint.kinds import show
from omnicorn.toolkit.lint.rules import ASGI_KEYS, RULES, SCOPES, TLS

if TYPE_CHECKING:
    from omnicorn.toolkit.lint.rules import Shape

    Findings = Iterator[tuple[str, str]]


def broken(rule: str, found: str) -> tuple[str, str]:
    """The finding of a rule that has a text of its own."""
    return rule, f"{RULES[rule].text}; {found}"


def flaws(shape: Shape, value: Mapping[str, Any]) -> Findings:
    """What is wrong with the keys of a scope or an event."""
    for key in shape.keys:
        rule = f"{shape.name}.{key.name}"
        if key.name not in value:
            if key.required:
                yield rule, f"`{key.name}` is missing"
        elif not (key.none and value[key.name] is None):
            for aspect, complaint in key.kind.flaws(value[key.name]):
                yield f"{rule}.{aspect}" if aspect else rule, f"`{key.name}` {complaint}"


def replayable(shape: Shape, value: dict[str, Any]) -> dict[str, Any]:
    """*value*, with lists for its iterators: to look at these would use them up."""
    lists = {
        key.name: [*value[key.name]]
        for key in shape.keys
        if key.kind.many and isinstance(value.get(key.name), Iterator)
    }
    return {**value, **lists} if lists else value


def scope_flaws(scope: dict[str, Any]) -> Findings:
    """What is wrong with a scope of a known type."""
    shape = SCOPES[scope["type"]]
    yield from flaws(shape, scope)
    asgi = scope.get("asgi")
    if isinstance(asgi, dict):
        yield from flaws(ASGI_KEYS, asgi)
        version = asgi.get("version")
        if isinstance(version, str) and version != "3.0":
            yield broken("scope.asgi.version.three", f"got {version!r}")
    if scope["type"] != "lifespan":
        yield from _path_flaws(scope)
        extensions = scope.get("extensions")
        if isinstance(extensions, dict) and isinstance(extensions.get("tls"), dict):
            yield from _tls_flaws(extensions["tls"])


def _path_flaws(scope: dict[str, Any]) -> Findings:
    path, raw_path, root_path = scope.get("path"), scope.get("raw_path"), scope.get("root_path", "")
    if not isinstance(path, str) or not isinstance(root_path, str):
        return
    root = root_path.rstrip("/")
    # "*" (RFC 9112 §3.2.4) is the server as a whole: it names no path, so none below the root.
    if root and path != "*" and not f"{path}/".startswith(f"{root}/"):
        yield broken("scope.path.root_path", f"got path {show(path)}, root_path {show(root_path)}")
    if not isinstance(raw_path, bytes):
        return
    if b"?" in raw_path:
        yield broken("scope.raw_path.query", f"got {show(raw_path)}")
        return
    try:
        decoded = unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        return  # what to do then, the specification does not say
    # As received, it may lack a prefix that a proxy stripped and the server put back.
    if raw_path.startswith(b"/") and path not in (decoded, root + decoded):
        yield broken("scope.path.decoded", f"got path {show(path)}, raw_path {show(raw_path)}")


def _tls_flaws(tls: dict[str, Any]) -> Findings:
    # The scheme may be "http" all the same: `tls` is of the connection that was made here, the
    # scheme perhaps of the one to a proxy that is trusted.
    yield from flaws(TLS, tls)
    if tls.get("client_cert_chain") and tls.get("client_cert_name") is None:
        yield broken("scope.tls.client_cert_name.chain", "got none")
