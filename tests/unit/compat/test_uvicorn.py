from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import signal
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from omnicorn.compat import uvicorn
from omnicorn.compat.uvicorn import Config, LifespanOn, Server
from omnicorn.errors import ConfigError

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


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Puts back what a test changes of logging."""
    names = ("omnicorn", "omnicorn.access", "omnicorn.error")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate, logger.disabled = handlers, propagate, False
        logger.setLevel(level)


@pytest.fixture
def own_handlers() -> Iterator[list[int]]:
    """Handlers that the embedding program has set for SIGINT and SIGTERM."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in uvicorn.HANDLED_SIGNALS
    }
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


# ------------------------------------------------------------------------------- Config


def test_keywords_become_options() -> None:
    ours = config(
        "main:app",
        host="0.0.0.0",
        root_path="/api",
        ws_ping_interval=None,
        ws_ping_timeout=5,
        http="h11",
        ws="wsproto",
        headers=[("x-one", "1")],
        forwarded_allow_ips="10.0.0.0/8, unix",
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=9000,
        interface="wsgi",
    ).translate()

    assert ours.host == "0.0.0.0"
    assert ours.root_path == "/api"
    assert (ours.ws_ping_interval, ours.ws_ping_timeout) == (0, 5)
    assert (ours.http, ours.ws) == ("auto", "auto")
    assert ours.headers == (("x-one", "1"),)
    assert ours.forwarded_allow_ips == ("10.0.0.0/8", "unix")
    assert ours.timeout_graceful_shutdown == 3
    assert ours.limit_request_head == ours.limit_request_line == 9000
    assert ours.interface == "wsgi"


def test_what_is_not_given_has_omnicorns_default() -> None:
    theirs = config(App())

    assert theirs.timeout_keep_alive == theirs.translate().timeout_keep_alive == 75
    assert theirs.translate().timeout_graceful_shutdown == 30
    assert theirs.workers == 1


@pytest.mark.parametrize(("given", "http"), [({}, "auto"), ({"http2": False}, "1")])
def test_http2_is_spoken_unless_it_is_refused(given: dict[str, bool], http: str) -> None:
    assert config(App(), **given).translate().http == http


def test_attributes_that_are_set_later_count() -> None:
    theirs = config(App())
    theirs.root_path = "/later"

    assert theirs.translate().root_path == "/later"


def test_the_variable_of_trusted_proxies_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.1.2.3")

    assert config(App()).translate().forwarded_allow_ips == ("10.1.2.3",)
    assert config(App(), forwarded_allow_ips="*").translate().forwarded_allow_ips == ("*",)


@pytest.mark.parametrize(
    ("keyword", "value", "advice"),
    [
        ("workers", 4, "gunicorn -k omnicorn.compat.gunicorn.Worker"),
        ("reload", True, "watchfiles"),
        ("env_file", ".env", "dotenv"),
        ("callback_notify", print, "on_tick"),
        ("ssl_version", ssl.PROTOCOL_TLS_CLIENT, "ssl_context_factory"),
        ("http", "mypackage:Protocol", "implementation of its own"),
        ("ws", object, "implementation of its own"),
    ],
)
def test_a_keyword_without_an_equivalent_is_refused_with_advice(
    keyword: str, value: Any, advice: str
) -> None:
    with pytest.raises(ConfigError, match=advice) as caught:
        config(App(), **{keyword: value})
    assert caught.value.option == keyword


def test_a_keyword_that_uvicorn_does_not_know_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="'root_pth'; did you mean 'root_path'"):
        config(App(), root_pth="/")


def test_a_wrong_value_is_refused_when_the_configuration_is_made() -> None:
    with pytest.raises(ConfigError, match="port = 70000"):
        config(App(), port=70000)


def test_every_keyword_of_uvicorn_is_known() -> None:
    theirs = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    from inspect import signature

    for name, parameter in signature(theirs.Config).parameters.items():
        if name == "log_config":
            continue
        made = config(App(), **{name: parameter.default}) if name != "app" else config(App())
        assert hasattr(made, name)


def test_a_context_comes_from_its_factory() -> None:
    made: list[ssl.SSLContext] = []

    def factory(theirs: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        assert isinstance(theirs, Config)
        made.append(default())
        return made[-1]

    theirs = config(App(), ssl_context_factory=factory)

    assert theirs.is_ssl
    assert theirs.translate().ssl_context is theirs.translate().ssl_context
    assert len(made) == 1


def test_the_loop_is_chosen_by_name() -> None:
    assert config(App(), loop="asyncio").get_loop_factory() is None
    assert config(App(), loop="none").get_loop_factory() is None
    with pytest.raises(ConfigError, match="run the loop yourself"):
        config(App(), loop="package:factory").get_loop_factory()


def test_a_socket_can_be_bound_beforehand() -> None:
    with contextlib.closing(config(App()).bind_socket()) as sock:
        assert sock.getsockname()[1] > 0
        assert sock.get_inheritable()


def test_a_socket_that_cannot_be_bound_ends_the_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as caught:
        config(App(), port=taken.getsockname()[1]).bind_socket()
    assert caught.value.code == 1


# ------------------------------------------------------------------------------ logging


def test_loggers_of_uvicorn_are_those_of_omnicorn() -> None:
    changed = copy.deepcopy(uvicorn.LOGGING_CONFIG)
    changed["formatters"]["access"]["fmt"] = "%(asctime)s %(message)s"
    changed["loggers"]["uvicorn.access"]["level"] = "WARNING"

    Config(App(), log_config=changed)

    logger = logging.getLogger("omnicorn.access")
    assert logger.level == logging.WARNING
    [handler] = logger.handlers
    assert handler.formatter is not None
    assert handler.formatter._fmt == "%(asctime)s %(message)s"
    assert "uvicorn" in changed["loggers"]  # the caller's own is left as it was


def test_formatters_of_uvicorn_are_stood_in_for() -> None:
    changed = copy.deepcopy(uvicorn.LOGGING_CONFIG)
    changed["formatters"] = {
        "default": {"()": "uvicorn.logging.DefaultFormatter", "fmt": "%(levelprefix)s %(message)s"},
        "access": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(asctime)s %(client_addr)s - "%(request_line)s" %(status_code)s',
        },
    }

    Config(App(), log_config=changed)

    formatters = [
        logging.getLogger(name).handlers[0].formatter for name in ("omnicorn", "omnicorn.access")
    ]
    assert [each._fmt for each in formatters if each is not None] == [
        "%(levelname)s: %(message)s",
        "%(asctime)s %(message)s",
    ]


def test_a_formatter_that_takes_requests_apart_is_refused() -> None:
    changed = copy.deepcopy(uvicorn.LOGGING_CONFIG)
    changed["formatters"]["access"] = {
        "()": "uvicorn.logging.AccessFormatter",
        "fmt": "%(status_code)s alone",
    }

    with pytest.raises(ConfigError, match="formatter 'access' takes a request apart"):
        Config(App(), log_config=changed)


def test_without_a_configuration_logging_is_the_programs(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("omnicorn")
    before = logger.handlers[:]
    caplog.set_level(logging.INFO)

    server = Server(config(App(), access_log=True))
    with in_thread(server):
        get(port_of(server), "/seen")

    assert logger.handlers == before
    assert "GET /seen" in caplog.text


@pytest.mark.parametrize(("level", "logs"), [("info", True), ("WARNING", False), (40, False)])
def test_a_level_silences_the_access_log_too(level: str | int, logs: bool) -> None:
    theirs = config(App(), access_log=True, log_level=level)

    assert theirs.translate().access_log is logs
    assert logging.getLogger("omnicorn.access").isEnabledFor(logging.INFO) is logs


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="log_level = 'loud': expected one of critical"):
        config(App(), log_level="loud")


# ------------------------------------------------------------------------------- Server


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


@pytest.mark.parametrize("number", uvicorn.HANDLED_SIGNALS)
def test_a_signal_stops_and_is_raised_again(own_handlers: list[int], number: int) -> None:
    app = App()

    class Own(Server):
        async def main_loop(self) -> None:
            os.kill(os.getpid(), number)
            await super().main_loop()
            assert own_handlers == []  # not yet

    handlers = [signal.getsignal(each) for each in uvicorn.HANDLED_SIGNALS]
    asyncio.run(Own(config(app)).serve())

    assert app.events == LIVED
    assert own_handlers == [number]
    assert [signal.getsignal(each) for each in uvicorn.HANDLED_SIGNALS] == handlers


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


# ---------------------------------------------------------------- LifespanOn, run, main


def test_a_lifespan_can_be_driven_alone() -> None:
    app = App()

    async def main() -> None:
        lifespan = LifespanOn(config(app, lifespan="on"))
        await lifespan.startup()
        assert not lifespan.should_exit
        assert lifespan.state == {"word": 42}
        await lifespan.shutdown()

    asyncio.run(main())
    assert app.events == LIVED


def test_a_lifespan_that_refuses_should_exit(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        lifespan = LifespanOn(config(App(refuses=True)))
        await lifespan.startup()
        assert lifespan.should_exit
        await lifespan.shutdown()

    asyncio.run(main())
    assert "not today" in caplog.text


def test_run_returns_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()

    async def interrupted(self: Server) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while not self.should_exit:
            await asyncio.sleep(0)

    monkeypatch.setattr(Server, "main_loop", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        uvicorn.run(app, port=0, log_config=None, access_log=False)
    finally:
        signal.signal(signal.SIGINT, before)

    assert app.events == LIVED


def test_main_is_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        uvicorn.main(["--version"])

    assert caught.value.code == 0
    assert "omnicorn" in capsys.readouterr().out
