from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.testing import LiveServer

if TYPE_CHECKING:
    from pathlib import Path

LOOPS = ["asyncio", "uvloop", "trio"]


class App:
    """Tells which library runs it; its start may be held up, or refused."""

    def __init__(self, start: str = "") -> None:
        self.start = start
        self.events: list[str] = []
        self.began = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["path"] == "/endless":
            self.began.set()
            await _for_ever()
        library = "trio" if _on_trio() else type(asyncio.get_running_loop()).__module__
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": library.encode()})

    async def _live(self, receive: Any, send: Any) -> None:
        self.events.append((await receive())["type"])
        if self.start == "refused":
            await send({"type": "lifespan.startup.failed", "message": "not today"})
            return
        if self.start == "exits":
            sys.exit("enough")
        if self.start == "endless":
            await _for_ever()
        await send({"type": "lifespan.startup.complete"})
        self.events.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})


def _on_trio() -> bool:
    if "trio" not in sys.modules:
        return False
    import trio

    return trio.lowlevel.in_trio_run()


async def _for_ever() -> None:
    if _on_trio():
        import trio

        await trio.sleep_forever()
    await asyncio.Event().wait()


def get(url: str) -> bytes:
    with urlopen(url, timeout=10) as response:
        body: bytes = response.read()
        return body


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name != "asyncio":
        pytest.importorskip(name, reason=f"{name} is not installed")
    return name


def test_a_blocking_client_is_served_on_every_loop(loop: str) -> None:
    app = App()
    threads = threading.active_count()

    with LiveServer(app, loop=loop) as live:
        assert live.url == live.urls[0] == f"http://127.0.0.1:{live.port}"
        assert get(live.url).decode().partition(".")[0] == loop

    assert app.events == ["lifespan.startup", "lifespan.shutdown"]
    assert threading.active_count() == threads
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", live.port))


def test_several_servers_live_side_by_side() -> None:
    with LiveServer(App()) as one, LiveServer(App()) as two:
        assert one.port != two.port
        assert get(one.url) == get(two.url)


def test_a_start_that_fails_comes_out_of_the_with_statement(loop: str) -> None:
    threads = threading.active_count()
    with pytest.raises(LifespanFailed, match="not today"), LiveServer(App("refused"), loop=loop):
        pytest.fail("it has started")
    assert threading.active_count() == threads


def test_an_address_in_use_comes_out_too() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match="in use"),
        LiveServer(App(), port=taken.getsockname()[1]),
    ):
        pytest.fail("it has started")


def test_an_application_that_exits_ends_the_start() -> None:
    with pytest.raises(SystemExit, match="enough"), LiveServer(App("exits"), loop="asyncio"):
        pytest.fail("it has started")
    gc.collect()  # of the task that has exited


def test_a_wrong_option_is_told_at_once() -> None:
    with pytest.raises((ConfigError, TypeError), match="prot"):
        LiveServer(App(), prot=1)


def test_a_start_without_end_is_given_up(loop: str) -> None:
    threads = threading.active_count()
    with (
        pytest.raises(TimeoutError, match=r"has not started within 0\.2 s"),
        LiveServer(App("endless"), loop=loop, timeout=0.2),
    ):
        pytest.fail("it has started")
    assert threading.active_count() == threads


def test_a_stop_cancels_what_does_not_end(loop: str) -> None:
    app = App()
    with (
        LiveServer(app, loop=loop, timeout_graceful_shutdown=0.1) as live,
        socket.create_connection(("127.0.0.1", live.port)) as client,
    ):
        client.sendall(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        assert app.began.wait(10)
        live.stop()
        live.stop()  # once more does nothing

    assert app.events[-1] == "lifespan.shutdown"


def test_the_failure_of_a_test_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), LiveServer(App()):
        raise ZeroDivisionError


def test_sockets_of_ones_own_are_served() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    with LiveServer(App(), sockets=[sock], loop="asyncio") as live:
        assert live.port == port
        assert get(live.url) == b"asyncio.unix_events"


def test_a_unix_socket_has_no_port(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with LiveServer(App(), uds=str(path)) as live:
        assert live.url == f"unix:{path}"
        with pytest.raises(ValueError, match="has no port"):
            _ = live.port
    assert not path.exists()


def test_an_unstarted_server_has_no_address() -> None:
    live = LiveServer(App())
    with pytest.raises(RuntimeError, match="not started"):
        _ = live.url
    live.stop()  # does nothing


def test_a_server_lives_once() -> None:
    with LiveServer(App()) as live, pytest.raises(RuntimeError, match="started before"):
        live.start()


def test_a_wsgi_application_is_served() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("content-type", "text/plain")])
        return [b"wsgi"]

    with LiveServer(app, mode="wsgi") as live:
        assert get(live.url) == b"wsgi"
