"""Programs that embed `omnicorn.compat.uvicorn`: their application, and what they do with it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from omnicorn.compat.uvicorn import Config, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class App:
    """Answers with its name, and notes its lifespan."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses
        self.events: list[str] = []
        self.began = threading.Event()
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        self.requests += 1
        if scope["path"] == "/endless":
            self.began.set()
            await asyncio.Event().wait()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"an app"})

    async def _live(self, scope: Any, receive: Any, send: Any) -> None:
        self.events.append((await receive())["type"])
        if self.refuses:
            await send({"type": "lifespan.startup.failed", "message": "not today"})
            return
        scope["state"]["word"] = 42
        await send({"type": "lifespan.startup.complete"})
        self.events.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})


LIVED = ["lifespan.startup", "lifespan.shutdown"]


def config(app: Any, **options: Any) -> Config:
    return Config(app, **{"port": 0, "log_config": None, "access_log": False} | options)


def port_of(server: Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


def get(port: int, path: str = "/") -> bytes:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
        body: bytes = response.read()
        return body


async def until(condition: Callable[[], object]) -> None:
    """Poll, as embedders do: there is no event in this interface."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.contextmanager
def in_thread(server: Server, **options: Any) -> Iterator[threading.Thread]:
    """The way of the documentation: run() in a thread, poll ``started``, set ``should_exit``."""
    thread = threading.Thread(target=server.run, kwargs=options, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        yield thread
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
