"""WSGI applications for tests, and the ASGI scopes of requests to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
Start = Any
App = Callable[[Environ, Start], Any]


def http_scope(**changes: Any) -> Any:
    """The scope of ``GET /``, with *changes*."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("203.0.113.7", 40000),
        "server": ("example.com", 8000),
        "extensions": {},
        **changes,
    }


def answer(blocks: Any, headers: Iterable[tuple[str, str]] = (), status: str = "200 OK") -> App:
    """An application that returns *blocks*."""

    def app(environ: Environ, start_response: Start) -> Any:
        start_response(status, list(headers))
        return blocks

    return app


def answer_file(file: Any, headers: Iterable[tuple[str, str]] = (), status: str = "200 OK") -> App:
    """An application that returns *file* in the server's wrapper."""

    def app(environ: Environ, start_response: Start) -> Any:
        start_response(status, list(headers))
        return environ["wsgi.file_wrapper"](file)

    return app


class Response:
    """An iterable that counts how often it is closed."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self.blocks = blocks
        self.closed = 0
        self.is_closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.blocks)

    def close(self) -> None:
        self.closed += 1
        self.is_closed.set()
