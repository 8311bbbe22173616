"""Exit codes, loops and signals, in this very process: every signal here is sent to ourselves.

While a test runs, SIGINT and SIGTERM go to `strays`, so that one which the server does not take
fails a test instead of ending the run. Where a fault would mean waiting for ever, the loop is
asyncio's: an idle uvloop does not let the alarm of pytest-timeout through.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import types
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.config import Config
from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.runtime.run import EXIT_APP, EXIT_OK, loop_factory, run, run_config, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def within(
    main: Coroutine[Any, Any, None],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run in a loop of its own; what hangs fails."""

    async def bounded() -> None:
        async with asyncio.timeout(5):
            await main

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(bounded())


async def turns() -> None:
    """Let everything that is ready run, and what that makes ready."""
    for _ in range(20):
        await asyncio.sleep(0)


def kill(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


class App:
    """Notes in `events` what happens to it; a request waits until it is told to end."""

    def __init__(self, *, startup: bool = True, shutdown: bool = True) -> None:
        self.events: list[str] = []
        self.began = asyncio.Event()
        """A request, or what hangs of the lifespan, has begun."""
        self.release = asyncio.Event()
        self.on_start: Callable[[], object] = int
        self.starts = startup
        self.stops = shutdown

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        await self.hang("request")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def live(self, receive: Any, send: Any) -> None:
        self.events.append((await receive())["type"])
        if not self.starts:
            await self.hang("startup")
        await send({"type": "lifespan.startup.complete"})
        self.on_start()
        self.events.append((await receive())["type"])
        if not self.stops:
            await self.hang("shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    async def hang(self, what: str) -> None:
        self.began.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.events.append(f"{what} cancelled")
            raise


STARTED_AND_STOPPED = ["lifespan.startup", "lifespan.shutdown"]


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


def quiet(**options: Any) -> Config:
    return Config(**{"port": 0, "access_log": False, **options})


@pytest.fixture(autouse=True)
def strays() -> Iterator[list[int]]:
    """The signals that reach the embedding program's own handlers."""
    reached: list[int] = []

    def own(number: int, _: object) -> None:
        reached.append(number)

    before = [signal.signal(number, own) for number in SIGNALS]
    yield reached
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    logger = logging.getLogger("omnicorn")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers, level, logger.propagate = before
    logger.setLevel(level)


class Announcement(logging.Handler):
    """Waits for the line that says where a server listens."""

    def __init__(self) -> None:
        super().__init__()
        self.happened = asyncio.Event()
        self.address = ""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("omnicorn is serving on "):
            self.address = message.removeprefix("omnicorn is serving on http://")
            self.happened.set()


@asynccontextmanager
async def serving(app: Any, config: Config | None = None) -> AsyncIterator[asyncio.Task[None]]:
    """A task of `serve` that listens already."""
    logger = logging.getLogger("omnicorn")
    announcement = Announcement()
    logger.addHandler(announcement)
    logger.setLevel("INFO")
    task = asyncio.ensure_future(serve(app, config or quiet()))
    task.set_name("")
    try:
        await announcement.happened.wait()
        task.set_name(announcement.address)
        yield task
    finally:
        logger.removeHandler(announcement)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def asking(task: asyncio.Task[None]) -> AsyncIterator[asyncio.StreamReader]:
    """A client of that server, whose request is on its way."""
    host, _, port = task.get_name().rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
    try:
        yield reader
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


# ------------------------------------------------------------------------- run and run_config


@pytest.mark.parametrize("loop", ["asyncio", "auto"])
@pytest.mark.parametrize("number", SIGNALS)
def test_run_serves_until_a_signal_and_returns_0(number: int, loop: str, strays: list[int]) -> None:
    app = App()
    app.on_start = lambda: kill(number)
    before = [signal.getsignal(number) for number in SIGNALS]

    assert run(app, port=0, access_log=False, loop=loop) == EXIT_OK == 0

    assert app.events == STARTED_AND_STOPPED
    assert strays == []
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_run_imports_the_application_it_is_given_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    name = "an_application_to_run"
    monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / f"{name}.py").write_text(
        "import os, signal\n"
        "events = []\n"
        "async def app(scope, receive, send):\n"
        "    events.append((await receive())['type'])\n"
        "    await send({'type': 'lifespan.startup.complete'})\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    events.append((await receive())['type'])\n"
        "    await send({'type': 'lifespan.shutdown.complete'})\n"
    )

    assert run(f"{name}:app", app_dir=str(tmp_path), port=0, access_log=False) == 0

    assert sys.modules.pop(name).events == STARTED_AND_STOPPED


def test_a_factory_is_called_once() -> None:
    app = App()
    app.on_start = kill
    calls: list[int] = []

    def factory() -> Any:
        calls.append(1)
        return app

    made: Any = factory
    assert run_config(quiet(factory=True), made) == 0
    assert calls == [1]
    assert app.events == STARTED_AND_STOPPED


def test_a_lifespan_that_fails_is_exit_code_3_and_its_message_is_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(refusing, port=0, loop="asyncio") == EXIT_APP == 3
    assert "The application did not start: no database" in capsys.readouterr().err


def test_the_exception_behind_a_failed_lifespan_is_logged_with_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def breaking(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("wrong password")

    assert run(breaking, port=0, lifespan="on", loop="asyncio") == EXIT_APP
    logged = capsys.readouterr().err
    assert "did not start: the application's lifespan raised ValueError: wrong password" in logged
    assert "in breaking" in logged


def test_run_raises_what_is_wrong_with_the_configuration() -> None:
    with pytest.raises(ConfigError, match="no application is given"):
        run()
    with pytest.raises(ConfigError, match="port = -1"):
        run(refusing, port=-1, loop="asyncio")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        app = App()
        with pytest.raises(ConfigError, match="the address is in use"):
            run(app, port=holder.getsockname()[1], loop="asyncio")
        assert app.events == []


def test_run_sets_up_logging_as_configured() -> None:
    app = App()
    app.on_start = kill
    assert run(app, port=0, access_log=False, log_level="error") == 0
    assert logging.getLogger("omnicorn").level == logging.ERROR


# ---------------------------------------------------------------------------------- the loops


def test_asyncio_is_asyncios_own_loop_even_where_uvloop_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", types.ModuleType("uvloop"))
    assert loop_factory("asyncio") is None


@pytest.mark.parametrize("name", ["auto", "uvloop"])
def test_auto_and_uvloop_are_uvloop_where_it_is_installed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uvloop = types.ModuleType("uvloop")
    uvloop.new_event_loop = asyncio.new_event_loop  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uvloop", uvloop)
    assert loop_factory(name) is asyncio.new_event_loop


def test_without_uvloop_auto_is_asyncio_and_uvloop_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_factory("auto") is None
    with pytest.raises(ConfigError, match=r"install omnicorn\[uvloop\]") as caught:
        run(refusing, port=0, loop="uvloop")
    assert caught.value.option == "loop"


# -------------------------------------------------------------------------------- serve, signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_lets_requests_finish_and_the_handlers_are_put_back(
    number: int, strays: list[int]
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]

    async def main() -> None:
        app = App()
        async with serving(app) as task, asking(task) as reader:
            await app.began.wait()
            kill(number)
            await turns()
            assert not task.done()
            app.release.set()
            assert (await reader.read()).startswith(b"HTTP/1.1 204 ")
            await task
        assert app.events == STARTED_AND_STOPPED
        assert [signal.getsignal(each) for each in SIGNALS] == before

    within(main())
    assert strays == []
    kill(number)
    assert strays == [number]


def test_a_second_signal_cancels_the_requests_and_still_shuts_down(strays: list[int]) -> None:
    async def main() -> None:
        app = App()
        async with serving(app) as task, asking(task) as reader:
            await app.began.wait()
            kill()
            assert await _refused(task)
            assert app.events == ["lifespan.startup"]
            kill(signal.SIGINT)
            await task
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass
        assert app.events == ["lifespan.startup", "request cancelled", "lifespan.shutdown"]

    within(main())
    assert strays == []


async def _refused(task: asyncio.Task[None]) -> bool:
    """Whether the server listens no more, once it has seen the signal."""
    await turns()
    host, _, port = task.get_name().rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return True
    writer.close()
    await writer.wait_closed()
    return False


def test_a_second_signal_cancels_a_shutdown_that_hangs(strays: list[int]) -> None:
    async def main() -> None:
        app = App(shutdown=False)
        async with serving(app) as task:
            kill()
            await app.began.wait()
            assert not task.done()
            kill()
            await task
        assert app.events == [*STARTED_AND_STOPPED, "shutdown cancelled"]

    within(main())
    assert strays == []


def test_a_signal_ends_a_startup_that_hangs(
    strays: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        app = App(startup=False)
        task = asyncio.ensure_future(serve(app, quiet()))
        await app.began.wait()
        kill()
        await task
        assert app.events == ["lifespan.startup", "startup cancelled"]

    within(main())
    assert strays == []
    assert "The start is cancelled" in caplog.messages


def test_a_loop_without_signal_handlers_is_stopped_by_pythons_own(strays: list[int]) -> None:
    class LikeWindows(asyncio.SelectorEventLoop):
        def add_signal_handler(self, *_: Any) -> None:  # type: ignore[override]
            raise NotImplementedError

        def remove_signal_handler(self, sig: int) -> bool:
            raise NotImplementedError

    before = [signal.getsignal(each) for each in SIGNALS]

    async def main() -> None:
        app = App()
        async with serving(app) as task:
            kill()
            await task
        assert app.events == STARTED_AND_STOPPED

    within(main(), LikeWindows)
    assert strays == []
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_handler_that_the_program_gave_the_loop_is_put_back(strays: list[int]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        own: list[int] = []
        loop.add_signal_handler(signal.SIGTERM, own.append, 1)
        try:
            async with serving(App()):
                pass
            assert own == []
            kill()
            await turns()
            assert own == [1]
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    within(main())


def test_in_another_thread_it_serves_without_signals_until_it_is_cancelled(
    strays: list[int],
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    app = App()
    during: list[Any] = []

    async def main() -> None:
        async with serving(app) as task:
            during.extend(signal.getsignal(each) for each in SIGNALS)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    thread = threading.Thread(target=within, args=(main(),))
    thread.start()
    thread.join()

    assert during == before
    assert app.events == STARTED_AND_STOPPED


# --------------------------------------------------------------------------- serve, other ends


def test_cancelling_the_serving_task_lets_requests_finish_first() -> None:
    async def main() -> None:
        app = App()
        async with serving(app) as task, asking(task) as reader:
            await app.began.wait()
            task.cancel()
            await turns()
            assert not task.done()
            app.release.set()
            assert (await reader.read()).startswith(b"HTTP/1.1 204 ")
            with pytest.raises(asyncio.CancelledError):
                await task
        assert app.events == STARTED_AND_STOPPED

    within(main())


def test_cancelling_the_serving_task_ends_a_startup_that_hangs() -> None:
    async def main() -> None:
        app = App(startup=False)
        task = asyncio.ensure_future(serve(app, quiet()))
        await app.began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert app.events == ["lifespan.startup", "startup cancelled"]

    within(main())


def test_serve_raises_what_kept_it_from_starting_and_puts_the_handlers_back(
    strays: list[int],
) -> None:
    async def main() -> None:
        with pytest.raises(LifespanFailed, match=r"^no database$"):
            await serve(refusing, quiet())
        with pytest.raises(ConfigError, match="no application is given"):
            await serve(None, quiet())

    within(main())
    kill()
    assert strays == [signal.SIGTERM]


# ------------------------------------------------------------------------------------- SIGHUP


@pytest.fixture
def hangups() -> Iterator[list[int]]:
    """The SIGHUPs that reach the embedding program's own handler."""
    reached: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: reached.append(number))
    yield reached
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    from tests.certificates import Authority

    certfile, keyfile = Authority().issue("127.0.0.1").save(tmp_path, "server")
    return {"ssl_certfile": certfile, "ssl_keyfile": keyfile}


def test_sighup_has_certificates_read_again_and_its_handler_is_put_back(
    certificate: dict[str, str], hangups: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "omnicorn")

    async def main() -> None:
        async with serving(App(), quiet(**certificate)) as task:
            kill(signal.SIGHUP)
            await turns()
            assert not task.done()
            assert any("certificates are read again" in line for line in caplog.messages)

    within(main())
    assert hangups == []
    kill(signal.SIGHUP)
    assert hangups == [signal.SIGHUP]


def test_without_certificates_of_its_own_a_server_leaves_sighup_alone(
    certificate: dict[str, str], hangups: list[int]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate["ssl_certfile"], certificate["ssl_keyfile"])

    async def main() -> None:
        for config in (quiet(), quiet(ssl_context=context)):
            async with serving(App(), config):
                kill(signal.SIGHUP)

    within(main())
    assert hangups == [signal.SIGHUP] * 2


def test_while_hosts_have_certificates_names_that_are_none_leave_no_traceback(
    certificate: dict[str, str],
) -> None:
    async def main() -> None:
        before = sys.unraisablehook
        sni = [("a.example", certificate["ssl_certfile"], certificate["ssl_keyfile"])]
        async with serving(App(), quiet(ssl_sni=sni, **certificate)):
            assert sys.unraisablehook is not before
        assert sys.unraisablehook is before

    within(main())
