"""Scopes against a table written from the specification (HTTP & WebSocket 2.5, Lifespan 2.0)."""

from __future__ import annotations

from typing import Any

import pytest

from omnicorn.asgi import scopes

# scope: (type, required keys, optional keys)
SPECIFICATION: dict[str, tuple[str, str, str]] = {
    "HTTPScope": (
        "http",
        "type asgi http_version method path query_string headers",
        "scheme raw_path root_path client server state extensions",
    ),
    "WebSocketScope": (
        "websocket",
        "type asgi path headers",
        "http_version scheme raw_path query_string root_path client server subprotocols state"
        " extensions",
    ),
    "LifespanScope": ("lifespan", "type asgi", "state"),
}


@pytest.mark.parametrize("name", SPECIFICATION)
def test_a_scope_requires_what_the_specification_requires(name: str) -> None:
    scope: Any = getattr(scopes, name)
    kind, required, optional = SPECIFICATION[name]
    assert scope.__annotations__["type"].__args__ == (kind,)
    assert scope.__required_keys__ == frozenset(required.split())
    assert scope.__optional_keys__ == frozenset(optional.split())


def test_the_spec_version_is_optional_and_the_asgi_version_is_not() -> None:
    assert scopes.ASGIVersions.__required_keys__ == {"version"}
    assert scopes.ASGIVersions.__optional_keys__ == {"spec_version"}


def test_the_union_has_every_scope() -> None:
    members = {member.__name__ for member in scopes.Scope.__args__}
    assert members == set(SPECIFICATION)
