"""A server in memory: an application, its service, and clients, in one call.

``serve`` gives a `Served`; every test that asks for it runs twice, with tasks that start at
once (asyncio from 3.12 on) and with tasks that start in the loop's next turn.
"""

from __future__ import annotations

import gc
import logging
import signal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from omnicorn.connections.http1 import Http1Connection
from omnicorn.connections.service import Service
from omnicorn.transports.inproc import ManualLoop, ManualTask, Peer, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

# A shell's background jobs ignore SIGINT, and so would what tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `make test-long` runs every property again, with the second of them.
settings.register_profile("quick", max_examples=40, deadline=None)
settings.register_profile("long", max_examples=2000, deadline=None)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def _no_handler_stays() -> Iterator[None]:
    """What a server in this process set up for its messages goes with the test."""
    yield
    logger = logging.getLogger("omnicorn")
    for handler in logger.handlers[:]:
        if type(handler).__name__ == "_ServerHandler":
            logger.removeHandler(handler)
            logger.propagate = True
            logger.setLevel(logging.NOTSET)


class Call:
    """A call that a test has begun for an application, and what has become of it."""

    def __init__(self, loop: ManualLoop, coro: Coroutine[Any, Any, Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.task: ManualTask = loop.spawn(self._run(coro))

    async def _run(self, coro: Coroutine[Any, Any, Any]) -> None:
        try:
            self.result = await coro
        except Exception as exc:
            self.error = exc
        finally:
            self.done = True


class Puppet:
    """An application that the test plays: it holds each exchange until `finish`."""

    def __init__(self, loop: ManualLoop) -> None:
        self._loop = loop
        self.exchanges: list[Exchange] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        exchange = Exchange(self._loop, scope, receive, send)
        self.exchanges.append(exchange)
        try:
            await exchange.over
        finally:
            exchange.left = True
        if exchange.failure is not None:
            raise exchange.failure

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]


class Exchange:
    """One exchange in the hands of a test."""

    def __init__(self, loop: ManualLoop, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self._loop = loop
        self.asgi_receive = receive
        self.asgi_send = send
        self.scope = scope
        self.over = loop.create_future()
        self.failure: BaseException | None = None
        self.left = False
        """The application has returned, raised, or been cancelled."""

    def send(self, event: Any) -> Call:
        """Begin a ``send``, and run the loop."""
        call = Call(self._loop, self.asgi_send(event))
        self._loop.run_until_idle()
        return call

    def receive(self) -> Call:
        """Begin a ``receive``, and run the loop."""
        call = Call(self._loop, self.asgi_receive())
        self._loop.run_until_idle()
        return call

    def start(self, status: int = 200, **more: Any) -> Call:
        return self.send({"type": "http.response.start", "status": status, **more})

    def body(self, body: bytes, more: bool = False) -> Call:
        return self.send({"type": "http.response.body", "body": body, "more_body": more})

    def respond(self, status: int = 200, body: bytes = b"", **more: Any) -> Call:
        """Send a whole response in one go."""

        async def both() -> None:
            await self.asgi_send({"type": "http.response.start", "status": status, **more})
            await self.asgi_send({"type": "http.response.body", "body": body})

        call = Call(self._loop, both())
        self._loop.run_until_idle()
        return call

    def finish(self, failure: BaseException | None = None) -> None:
        """Let the application return, or raise."""
        self.failure = failure
        if not self.over.done():
            self.over.set_result()
        self._loop.run_until_idle()


class AccessRecorder:
    """An access log that keeps what it was called with."""

    needs = frozenset({"scope", "status", "sent", "duration"})

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, int]] = []
        self.durations: list[float] = []

    def log(self, exchange: Any) -> None:
        self.lines.append((exchange.scope["path"], exchange.status, exchange.sent))
        self.durations.append(exchange.duration)


class Served:
    """A service in memory, its first client, and whatever a test needs of both."""

    def __init__(self, loop: ManualLoop, app: Any, link: dict[str, Any], **options: Any) -> None:
        self.loop = loop
        self.app: Any = Puppet(loop) if app is None else app
        self.access = AccessRecorder()
        options.setdefault("access_log", self.access)
        options.setdefault("server_header", False)
        options.setdefault("date_header", False)
        self.service = Service(self.app, loop, **options)
        self._link = link
        self.peer = self.connect()

    def connect(self, **link: Any) -> Peer:
        """A further client."""
        return connect(self.loop, Http1Connection(self.service), **{**self._link, **link})

    def send(self, data: bytes) -> bytes:
        """Send a segment as the first client, run the loop; returns what came back."""
        self.peer.send(data)
        return self.run()

    def get(self, path: str = "/", *fields: str) -> bytes:
        """Send a GET; returns what came back at once."""
        return self.send(request("GET", path, *fields))

    def run(self) -> bytes:
        self.loop.run_until_idle()
        return self.peer.take()

    def advance(self, seconds: float) -> bytes:
        self.loop.advance(seconds)
        return self.peer.take()

    @property
    def exchange(self) -> Exchange:
        """The puppet's last exchange."""
        last: Exchange = self.app.last
        return last


def request(method: str, path: str = "/", *fields: str, body: bytes = b"") -> bytes:
    """A request's bytes; fields as ``name: value``."""
    lines = [f"{method} {path} HTTP/1.1", "host: example.org", *fields]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture(params=["lazy", "eager"])
def eager(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "eager")


@pytest.fixture
def loop(eager: bool) -> ManualLoop:
    return ManualLoop(eager=eager)


@pytest.fixture
def serve(eager: bool) -> Iterator[Callable[..., Served]]:
    """Makes a `Served`: ``serve(app=None, sendfile=False, link=None, **service_options)``.

    Without an application the test plays it, by `Served.exchange`.
    """
    made: list[Served] = []

    def make(
        app: Any = None,
        *,
        sendfile: bool = False,
        link: dict[str, Any] | None = None,
        **options: Any,
    ) -> Served:
        loop = ManualLoop(eager=eager, sendfile=sendfile)
        served = Served(loop, app, link or {}, **options)
        made.append(served)
        return served

    yield make
    for served in made:
        served.service.cancel()
        served.loop.run_until_idle()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # thousands of tests, which no later collection need look at


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # hypothesis asks who refers to what, in its summary


@pytest.fixture
def garbage() -> Iterator[Callable[[], list[str]]]:
    """Turns the garbage collector off; called, it collects and names what it found, by type."""

    def collect() -> list[str]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
            return sorted(type(found).__name__ for found in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()

    gc.collect()
    gc.freeze()  # what is there already is not looked at again, by the next tests neither
    gc.disable()
    try:
        yield collect
    finally:
        gc.enable()


@pytest.fixture
def http_request() -> Callable[..., bytes]:
    return request
