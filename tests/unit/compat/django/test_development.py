"""The server alone; with Django's command around it in tests/e2e/test_compat_django.py."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from omnicorn.compat.django.development import DevelopmentServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class App:
    def __init__(self) -> None:
        self.events: list[str] = []
        self.started = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            self.events.append((await receive())["type"])
            await send({"type": "lifespan.startup.complete"})
            self.started.set()
            self.events.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 404})
        await send({"type": "http.response.body", "body": b"answer"})


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is to be called at exit."""
    registered: list[Callable[[], None]] = []

    def register(function: Any, *args: Any) -> None:
        if function.__module__ == DevelopmentServer.__module__:  # executors register, too
            registered.append(lambda: function(*args))

    monkeypatch.setattr("threading._register_atexit", register)
    return registered


@pytest.fixture
def records() -> Iterator[list[Any]]:
    """What Django's logger of requests would have printed."""
    kept: list[Any] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    handler = Keeper()
    django = logging.getLogger("django.server")
    ours = [logging.getLogger(name) for name in ("omnicorn", "omnicorn.access")]
    before = [(each.handlers[:], each.level, each.propagate, each.filters[:]) for each in ours]
    django.addHandler(handler)
    yield kept
    django.removeHandler(handler)
    for each, (handlers, level, propagate, filters) in zip(ours, before, strict=True):
        each.handlers, each.propagate, each.filters = handlers, propagate, filters
        each.setLevel(level)


def test_it_serves_in_a_thread_until_the_process_exits(
    exits: list[Callable[[], None]], records: list[Any]
) -> None:
    app = App()
    server = DevelopmentServer(("127.0.0.1", 0), object())
    server.set_app(app)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    assert app.started.wait(10)

    with pytest.raises(OSError, match="404") as caught:
        urlopen(f"http://127.0.0.1:{server.server_port}/nowhere", timeout=10)
    caught.value.close()  # type: ignore[attr-defined]

    [at_exit] = exits
    at_exit()
    assert not thread.is_alive()
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]
    [record] = records
    assert record.getMessage() == '"GET /nowhere HTTP/1.1" 404 6'
    assert record.status_code == 404
    assert record.server_time


def test_an_address_in_use_is_an_os_error() -> None:
    first = DevelopmentServer(("127.0.0.1", 0), object())
    with first.socket, pytest.raises(OSError, match="in use"):
        DevelopmentServer(("127.0.0.1", first.server_port), object())
