from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest
from tests.embedded import LIVED, App, config, get, in_thread, port_of, until

from omnicorn.compat.uvicorn import Server
from omnicorn.compat.uvicorn.server import HANDLED_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def own_handlers() -> Iterator[list[int]]:
    """Handlers that the embedding program has set for SIGINT and SIGTERM."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in HANDLED_SIGNALS
    }
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_server_runs_in_a_thread_until_it_should_exit() -> None:
    app = App()
    server = Server(config(app))
    with in_thread(server):
        assert get(port_of(server)) == b"an app"

    assert app.events == LIVED
    assert server.started


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_server_serves_on_sockets_that_it_is_given() -> None:
    app = App()
    server = Server(config(app))
    sock = socket.create_server(("127.0.0.1", 0))
    with in_thread(server, sockets=[sock]):
        assert port_of(server) == sock.getsockname()[1]
        assert get(port_of(server)) == b"an app"

    assert sock.fileno() == -1


def test_a_server_serves_in_a_running_loop_beside_others() -> None:
    async def main() -> None:
        servers = [Server(config(App())) for _ in range(2)]
        serving = [asyncio.create_task(server.serve()) for server in servers]
        await until(lambda: all(server.started for server in servers))
        for server in servers:
            assert await asyncio.to_thread(get, port_of(server)) == b"an app"
            server.should_exit = True
        await asyncio.gather(*serving)

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    asyncio.run(main())
    # They end in the order in which they started, and not in its reverse.
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_cancelling_serve_stops_in_order() -> None:
    app = App()

    async def main() -> None:
        server = Server(config(app))
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        port = port_of(server)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))

    asyncio.run(main())
    assert app.events == LIVED


def test_a_server_can_be_driven_step_by_step() -> None:
    app = App()

    async def main() -> None:
        theirs = config(app)
        server = Server(theirs)
        assert not theirs.loaded
        theirs.load()
        assert theirs.loaded_app is app
        server.lifespan = theirs.lifespan_class(theirs)
        await server.startup()
        assert await asyncio.to_thread(get, port_of(server)) == b"an app"
        server.should_exit = True
        await server.main_loop()
        await server.shutdown()
        await server.shutdown()  # once more does nothing

    asyncio.run(main())
    assert app.events == LIVED


def test_overrides_are_called_in_their_order() -> None:
    calls: list[str] = []

    class Own(Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            calls.append("startup")
            await super().startup(sockets=sockets)

        async def main_loop(self) -> None:
            calls.append("main_loop")
            await super().main_loop()

        async def on_tick(self, counter: int) -> bool:
            calls.append(f"on_tick {counter}")
            return counter == 1 or await super().on_tick(counter)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            calls.append("shutdown")
            await super().shutdown(sockets=sockets)

    asyncio.run(Own(config(App())).serve())

    assert calls == ["startup", "main_loop", "on_tick 0", "on_tick 1", "shutdown"]


def test_a_server_stops_after_so_many_requests() -> None:
    app = App()
    server = Server(config(app, limit_max_requests=2))

    with in_thread(server) as thread:
        port = port_of(server)
        assert get(port) == get(port) == b"an app"
        thread.join(10)
        assert not thread.is_alive()

    assert server.server_state.total_requests == 2
    assert app.events == LIVED


def test_force_exit_waits_for_no_request() -> None:
    app = App()
    server = Server(config(app, timeout_graceful_shutdown=100))
    with in_thread(server), socket.socket() as client:
        client.connect(("127.0.0.1", port_of(server)))
        client.sendall(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        assert app.began.wait(10)
        server.should_exit = True
        server.force_exit = True

    assert app.events == LIVED


def test_the_requests_of_an_unstarted_server_are_none() -> None:
    assert Server(config(App())).server_state.total_requests == 0


@pytest.mark.parametrize("failure", ["lifespan", "address", "app"])
def test_what_cannot_start_exits_with_3(failure: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given: dict[str, Any] = {
            "lifespan": {"app": App(refuses=True)},
            "address": {"app": App(), "port": taken.getsockname()[1]},
            "app": {"app": "no_such_module:app"},
        }[failure]
        server = Server(config(**given))

        with pytest.raises(SystemExit) as caught:
            asyncio.run(server.serve())

    assert caught.value.code == 3
    assert not server.started
    assert server.should_exit
    said = {"lifespan": "not today", "address": "in use", "app": "no_such_module"}
    assert said[failure] in caplog.text


# ------------------------------------------------------------------------------ signals


@pytest.mark.parametrize("number", HANDLED_SIGNALS)
def test_a_signal_stops_and_is_raised_again(own_handlers: list[int], number: int) -> None:
    app = App()

    class Own(Server):
        async def main_loop(self) -> None:
            os.kill(os.getpid(), number)
            await super().main_loop()
            assert own_handlers == []  # not yet

    handlers = [signal.getsignal(each) for each in HANDLED_SIGNALS]
    asyncio.run(Own(config(app)).serve())

    assert app.events == LIVED
    assert own_handlers == [number]
    assert [signal.getsignal(each) for each in HANDLED_SIGNALS] == handlers


def test_a_second_interrupt_forces_the_exit() -> None:
    server = Server(config(App()))

    server.handle_exit(signal.SIGINT, None)
    assert (server.should_exit, server.force_exit) == (True, False)
    server.handle_exit(signal.SIGTERM, None)
    assert not server.force_exit
    server.handle_exit(signal.SIGINT, None)
    assert server.force_exit


@pytest.mark.parametrize("hook", ["install_signal_handlers", "capture_signals", "instance"])
def test_whoever_overrides_the_hook_keeps_the_handlers(own_handlers: list[int], hook: str) -> None:
    class Own(Server):
        async def on_tick(self, counter: int) -> bool:
            if not counter:
                os.kill(os.getpid(), signal.SIGTERM)
            assert not self.should_exit
            return bool(own_handlers)

    class WithoutHandlers(Own):
        def install_signal_handlers(self) -> None:
            pass

    class WithoutCapture(Own):
        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            yield

    kind = {"install_signal_handlers": WithoutHandlers, "capture_signals": WithoutCapture}
    server = kind.get(hook, Own)(config(App()))
    if hook == "instance":
        server.install_signal_handlers = lambda: None  # type: ignore[method-assign]

    asyncio.run(server.serve())

    assert own_handlers == [signal.SIGTERM]


# ------------------------------------------------------------------------------ what embedders see


def test_the_lifespan_shows_the_applications_state() -> None:
    server = Server(config(App()))
    with in_thread(server):
        assert server.lifespan.state == {"word": 42}


def test_open_connections_can_be_counted() -> None:
    app = App()
    server = Server(config(app))
    assert not server.server_state.connections
    with in_thread(server), socket.create_connection(("127.0.0.1", port_of(server))) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        assert app.began.wait(10)
        assert len(server.server_state.connections) == 1
        server.force_exit = True


def test_what_a_state_does_not_have_is_an_error_that_says_what_it_has() -> None:
    with pytest.raises(AttributeError, match="no 'tasks' here, but total_requests"):
        len(Server(config(App())).server_state.tasks)


def test_what_a_listening_server_does_not_have_is_an_error_that_says_what_to_do() -> None:
    server = Server(config(App()))
    with in_thread(server), pytest.raises(AttributeError, match=r"no 'close' here.*should_exit"):
        server.servers[0].close()


def test_a_program_passes_its_loop_its_socket_and_a_factory() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = Server(config(App, factory=True, loop=loop, lifespan="off"))
        serving = loop.create_task(server.serve(sockets=[socket.create_server(("127.0.0.1", 0))]))
        await until(lambda: server.started)
        assert await asyncio.to_thread(get, port_of(server)) == b"an app"
        server.should_exit = True
        await serving

    asyncio.run(main())


def test_the_limit_of_requests_has_its_jitter() -> None:
    server = Server(config(App(), limit_max_requests=3, limit_max_requests_jitter=2))
    with in_thread(server):
        assert server.limit_max_requests in (3, 4, 5)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_socket_that_is_not_bound_gets_a_port() -> None:
    server = Server(config(App()))
    with in_thread(server, sockets=[socket.socket()]):
        assert get(port_of(server)) == b"an app"


def test_who_should_exit_before_it_serves_does_not_enter_the_loop() -> None:
    app = App()

    class Own(Server):
        async def main_loop(self) -> None:
            raise AssertionError("not to be called")

    server = Own(config(app))
    server.should_exit = True
    asyncio.run(server.serve())

    assert app.events == LIVED


@pytest.mark.parametrize("where", ["startup", "main_loop"])
def test_an_override_that_raises_stops_the_server_in_order(where: str) -> None:
    app = App()

    class Own(Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if where == "startup":
                raise OSError(where)

        async def main_loop(self) -> None:
            raise OSError(where)

    with pytest.raises(OSError, match=where):
        asyncio.run(Own(config(app)).serve())
    assert app.events == LIVED


def test_a_start_that_does_not_end_is_given_up_by_force(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        server.should_exit = server.force_exit = True
        await asyncio.Event().wait()

    server = Server(config(app))
    with pytest.raises(SystemExit) as caught:
        asyncio.run(server.serve())
    assert caught.value.code == 3
    assert "The start was given up" in caplog.text


def test_a_start_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    place = tmp_path / "uvicorn.sock"
    cleaned: list[str] = []
    starting = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        starting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(scope["type"])

    async def main() -> None:
        server = Server(config(app, uds=str(place)))
        serving = asyncio.create_task(server.serve())
        await starting.wait()
        assert place.exists()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert cleaned == ["lifespan"]
        assert not server.started
        assert not place.exists()

    asyncio.run(main())
