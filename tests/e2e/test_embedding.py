"""Serving from a program of one's own: ``run``, ``serve`` and ``Server``.

The programs are anyio's, so that they are the same on asyncio and trio; what a program does in
another way on asyncio has a test of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

import omnicorn
from omnicorn.errors import ConfigError, LifespanFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from conftest import Serve


class App:
    """Says hello with its name; notes what its lifespan is told."""

    def __init__(self, name: str = "app", refuses: bool = False) -> None:
        self.name = name
        self.refuses = refuses
        self.events: list[str] = []
        self.began = anyio.Event()
        self.release = anyio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if scope["path"] == "/slow":
            self.began.set()
            await self.release.wait()
        body = f"{self.name} {scope['state']['number']}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def _lifespan(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.events.append((await receive())["type"])
        if self.refuses:
            await send({"type": "lifespan.startup.failed", "message": "not today"})
            return
        scope["state"]["number"] = 42
        await send({"type": "lifespan.startup.complete"})
        self.events.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})


class Client:
    """A keep-alive connection of the same loop."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __aenter__(self) -> Client:
        host, _, port = self._address.removeprefix("http://").rpartition(":")
        self._stream = await anyio.connect_tcp(host, int(port))
        self._reader = BufferedByteReceiveStream(self._stream)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.aclose()

    async def ask(self, path: str = "/") -> None:
        await self._stream.send(f"GET {path} HTTP/1.1\r\nhost: e2e\r\n\r\n".encode())

    async def answer(self) -> str:
        head = await self._reader.receive_until(b"\r\n\r\n", 65536)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return (await self._reader.receive_exactly(length)).decode()

    async def get(self, path: str = "/") -> str:
        await self.ask(path)
        return await self.answer()

    async def is_closed(self) -> bool:
        """Wait for the end."""
        with pytest.raises(anyio.EndOfStream):
            await self._reader.receive()
        return True


async def get(address: str, path: str = "/") -> str:
    async with Client(address) as client:
        return await client.get(path)


async def start(server: omnicorn.Server) -> None:
    async with server:
        raise AssertionError("it has started")


def config(**options: Any) -> omnicorn.Config:
    return omnicorn.Config(port=0, access_log=False, **options)


@pytest.fixture
def run(loop_name: str) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine in a fresh loop, for 20 seconds at most."""
    if loop_name == "trio":
        import trio

        async def in_time(main: Coroutine[Any, Any, None]) -> None:
            with trio.fail_after(20):
                await main

        return lambda main: trio.run(in_time, main)
    factory = None
    if loop_name == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop

    def run_it(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(main, 20))

    return run_it


@pytest.fixture
def own_handlers() -> Iterator[list[int]]:
    """Handlers that the embedding program has set for SIGINT and SIGTERM."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [
        signal.signal(number, lambda number, _: received.append(number)) for number in numbers
    ]
    yield received
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


# ------------------------------------------------------------------------------- Server


def test_a_server_starts_answers_and_stops(run: Callable[..., None]) -> None:
    async def main() -> None:
        app = App()
        server = omnicorn.Server(app, config())
        assert server.urls == []

        await server.start()
        (address,) = server.urls
        assert await get(address) == "app 42"
        assert app.events == ["lifespan.startup"]

        await server.stop()
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]
        with pytest.raises(OSError):
            await get(address)
        await server.stop()  # once more does nothing

    run(main())


def test_a_server_is_a_context_manager(run: Callable[..., None]) -> None:
    async def main() -> None:
        app = App()
        async with omnicorn.Server(app, config()) as server:
            assert await get(server.urls[0]) == "app 42"
        assert app.events[-1] == "lifespan.shutdown"

    run(main())


def test_stop_waits_for_what_is_in_flight(run: Callable[..., None]) -> None:
    async def main() -> None:
        app = App()
        stopped: list[None] = []

        async def stop() -> None:
            await server.stop()
            stopped.append(None)

        async with omnicorn.Server(app, config()) as server:
            (address,) = server.urls
            async with Client(address) as busy, Client(address) as idle:
                assert await idle.get() == "app 42"
                await busy.ask("/slow")
                await app.began.wait()

                async with anyio.create_task_group() as group:
                    group.start_soon(stop)
                    group.start_soon(stop)
                    assert await idle.is_closed()  # at once
                    assert not stopped
                    assert app.events == ["lifespan.startup"]
                    app.release.set()
                    assert await busy.answer() == "app 42"
                assert len(stopped) == 2
            assert app.events[-1] == "lifespan.shutdown"

    run(main())


def test_two_servers_live_side_by_side(run: Callable[..., None]) -> None:
    async def main() -> None:
        one, two = App("one"), App("two")
        async with omnicorn.Server(one, config()) as first:
            async with omnicorn.Server(two, config(server_header=False)) as second:
                texts = [await get(server.urls[0]) for server in (first, second)]
                assert texts == ["one 42", "two 42"]
            assert await get(first.urls[0]) == "one 42"
            assert two.events[-1] == "lifespan.shutdown"
            assert one.events[-1] == "lifespan.startup"

    run(main())


def test_a_start_that_fails_leaves_nothing_behind(run: Callable[..., None]) -> None:
    async def main() -> None:
        app = App()
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
            server = omnicorn.Server(app, omnicorn.Config(port=port))
            with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: the address is in use"):
                await start(server)
        assert app.events in ([], ["lifespan.startup", "lifespan.shutdown"])

        with pytest.raises(LifespanFailed, match="not today"):
            await start(omnicorn.Server(App(refuses=True), config()))
        with pytest.raises(ConfigError, match="no application is given"):
            await start(omnicorn.Server(None, config()))

    run(main())


def test_a_server_lives_once(run: Callable[..., None]) -> None:
    async def main() -> None:
        server = omnicorn.Server(App(), config())
        async with server:
            with pytest.raises(RuntimeError, match="started before"):
                await server.start()

    run(main())


def test_stopping_a_server_that_was_never_started_does_nothing(run: Callable[..., None]) -> None:
    run(omnicorn.Server(App(), config()).stop())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_server_and_its_access_log_leave_nothing_open(
    run: Callable[..., None], tmp_path: Any
) -> None:
    file = tmp_path / "access.log"

    async def main() -> None:
        options = omnicorn.Config(port=0, access_log_file=str(file))
        async with omnicorn.Server(App(), options) as server:
            assert await get(server.urls[0]) == "app 42"

    before = len(os.listdir("/proc/self/fd"))
    run(main())

    assert file.read_text().count("GET / HTTP/1.1") == 1
    assert len(os.listdir("/proc/self/fd")) == before


# -------------------------------------------------------------------------------- serve


def test_serve_ends_when_its_task_is_cancelled_after_a_drain(run: Callable[..., None]) -> None:
    """A task of asyncio, which is cancelled once."""

    async def main() -> None:
        app = App()
        ready: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

        class Status:
            def started(self, urls: list[str]) -> None:
                ready.set_result(urls)

        serving = asyncio.ensure_future(omnicorn.serve(app, config(), task_status=Status()))
        async with Client((await ready)[0]) as client:
            await client.ask("/slow")
            await app.began.wait()

            serving.cancel()
            await asyncio.sleep(0)
            assert not serving.done()
            app.release.set()

            assert await client.answer() == "app 42"
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]

    run(main())


def test_serve_ends_when_a_scope_is_cancelled_after_a_drain(run: Callable[..., None]) -> None:
    """A cancel scope goes on cancelling until it is left: trio's, and anyio's on asyncio."""

    async def main() -> None:
        app = App()
        scope = anyio.CancelScope()

        async def serve_in_scope(*, task_status: Any) -> None:
            with scope:
                await omnicorn.serve(app, config(), task_status=task_status)
            assert app.events == ["lifespan.startup", "lifespan.shutdown"]

        async with anyio.create_task_group() as group:
            (address,) = await group.start(serve_in_scope)
            async with Client(address) as client:
                await client.ask("/slow")
                await app.began.wait()

                scope.cancel()
                try:
                    async with Client(address) as other:
                        assert await other.is_closed()
                except (OSError, anyio.BrokenResourceError):
                    pass  # it does not listen any more
                app.release.set()

                assert await client.answer() == "app 42"
        assert scope.cancelled_caught

    run(main())


def test_serve_ends_after_its_trigger(run: Callable[..., None]) -> None:
    async def main() -> None:
        app, enough = App(), anyio.Event()
        serve = partial(omnicorn.serve, app, config(), shutdown_trigger=enough.wait)
        async with anyio.create_task_group() as group:
            (address,) = await group.start(serve)
            assert await get(address) == "app 42"
            enough.set()
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]

    run(main())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_with_a_signal_and_puts_the_programs_handlers_back(
    run: Callable[..., None], own_handlers: list[int], number: int
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    async def main() -> None:
        app = App()
        async with anyio.create_task_group() as group:
            await group.start(partial(omnicorn.serve, app, config(), signals=True))
            os.kill(os.getpid(), number)
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]

    run(main())

    assert own_handlers == []  # it was the server's signal
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    os.kill(os.getpid(), number)
    assert own_handlers == [number]


def test_serve_raises_what_keeps_it_from_starting_and_puts_handlers_back(
    run: Callable[..., None], own_handlers: list[int]
) -> None:
    async def main() -> None:
        with pytest.raises(LifespanFailed, match="not today"):
            await omnicorn.serve(App(refuses=True), config())

    run(main())

    os.kill(os.getpid(), signal.SIGTERM)
    assert own_handlers == [signal.SIGTERM]


# ---------------------------------------------------------------------------------- run


@pytest.mark.parametrize("by_name", [False, True])
def test_run_blocks_until_a_signal_and_returns_0(
    serve: Serve, loop_name: str, by_name: bool
) -> None:
    more = ["--by-name"] if by_name else []
    server = serve.run([sys.executable, "script.py", loop_name, *more])
    server.wait_until_serving()
    assert server.get("/").body == b"hello"

    assert server.stop() == 0

    assert server.lines.count("startup") == server.lines.count("shutdown") == 1
    assert "returned 0" in server.lines
    assert "handlers are as before" in server.lines


def test_run_puts_a_handler_of_the_programs_own_back(serve: Serve, loop_name: str) -> None:
    server = serve.run([sys.executable, "script.py", loop_name, "--late"])
    server.wait_until_serving()

    assert server.stop() == 0

    assert server.lines.index("handlers are as before") < server.lines.index("my own handler")
