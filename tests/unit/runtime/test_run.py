"""Exit codes and loops, in this very process: every signal here is sent to ourselves.

While a test runs, SIGINT and SIGTERM go to `strays`, so that one which the server does not take
fails a test instead of ending the run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

import pytest
import trio

import omnicorn.runtime.run as run_module
import omnicorn.runtime.server as server_module
from omnicorn.config import Config
from omnicorn.errors import ConfigError
from omnicorn.runtime.run import (
    EXIT_APP,
    EXIT_OK,
    loop_factory,
    loop_runner,
    run,
    run_config,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIGNALS = (signal.SIGINT, signal.SIGTERM)


LOOPS = ["asyncio", "uvloop", "auto", "trio"]


def kill(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


class App:
    """Notes in `events` what its lifespan is told; `on_start` is called once it has started."""

    def __init__(self, on_start: Callable[[], object] = kill) -> None:
        self.events: list[str] = []
        self.library = ""
        self.on_start = on_start

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.events.append((await receive())["type"])
        self.library = "trio" if trio.lowlevel.in_trio_task() else loop_name()
        await send({"type": "lifespan.startup.complete"})
        self.on_start()
        self.events.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})


def loop_name() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


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
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes this process would have been ended with."""
    codes: list[int] = []
    monkeypatch.setattr(run_module, "LAST_PATIENCE", 0.0)
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    logger = logging.getLogger("omnicorn")
    before = (list(logger.handlers), logger.level, logger.propagate)
    logger.handlers, logger.propagate = [], True  # whatever another test has left
    yield
    logger.handlers, level, logger.propagate = before
    logger.setLevel(level)


# ------------------------------------------------------------------------- run and run_config


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", SIGNALS)
def test_run_serves_until_a_signal_and_returns_0(number: int, loop: str, strays: list[int]) -> None:
    app = App(lambda: kill(number))
    before = [signal.getsignal(number) for number in SIGNALS]

    assert run(app, port=0, access_log=False, loop=loop) == EXIT_OK == 0

    assert app.events == STARTED_AND_STOPPED
    assert app.library == ("uvloop" if loop == "auto" else loop)
    assert strays == []
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_that_idles_hears_a_signal(loop: str, strays: list[int]) -> None:
    """The signal comes while the loop waits in the kernel."""
    sender = threading.Timer(0.2, kill)
    app = App(sender.start)

    assert run(app, port=0, access_log=False, loop=loop) == 0

    sender.join()
    assert app.events == STARTED_AND_STOPPED
    assert strays == []


@pytest.mark.parametrize("loop", LOOPS)
def test_ctrl_c_is_no_exception_where_pythons_own_handler_was(loop: str) -> None:
    """Both asyncio and trio would make a KeyboardInterrupt of it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app = App(lambda: kill(signal.SIGINT))

    assert run(app, port=0, access_log=False, loop=loop) == 0

    assert app.events == STARTED_AND_STOPPED
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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
    calls: list[int] = []

    def factory() -> Any:
        calls.append(1)
        return app

    made: Any = factory
    assert run_config(quiet(factory=True), made) == 0
    assert calls == [1]
    assert app.events == STARTED_AND_STOPPED


@pytest.mark.parametrize("loop", LOOPS)
def test_a_lifespan_that_fails_is_exit_code_3_and_its_message_is_logged(
    loop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(refusing, port=0, loop=loop) == EXIT_APP == 3
    assert "The application did not start: no database" in capsys.readouterr().err


@pytest.mark.parametrize("loop", LOOPS)
def test_the_exception_behind_a_failed_lifespan_is_logged_with_its_traceback(
    loop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def breaking(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("wrong password")

    assert run(breaking, port=0, lifespan="on", loop=loop) == EXIT_APP
    logged = capsys.readouterr().err
    assert "did not start: the application's lifespan raised ValueError: wrong password" in logged
    assert "in breaking" in logged


@pytest.mark.parametrize("loop", LOOPS)
def test_run_raises_what_is_wrong_with_the_configuration(loop: str) -> None:
    with pytest.raises(ConfigError, match="no application is given"):
        run()
    with pytest.raises(ConfigError, match="port = -1"):
        run(refusing, port=-1, loop=loop)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        app = App()
        with pytest.raises(ConfigError, match="the address is in use"):
            run(app, port=holder.getsockname()[1], loop=loop)
        assert app.events == []


def test_run_sets_up_logging_as_configured() -> None:
    app = App()
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


def test_trio_runs_where_it_is_asked_for() -> None:
    assert loop_runner("trio") is trio.run


def test_without_trio_it_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trio", None)
    app = App()
    with pytest.raises(ConfigError, match=r"install omnicorn\[trio\]") as caught:
        run(app, port=0, loop="trio")
    assert caught.value.option == "loop"
    assert app.events == []


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_a_runner_runs_to_the_end_in_a_loop_that_it_closes(name: str) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        assert loop_name() == name

    loop_runner(name)(main)

    assert [loop.is_closed() for loop in loops] == [True]


def test_a_process_whose_application_ignores_its_cancellation_is_ended_by_force(
    ends: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server_module, "_CANCEL_GRACE", 0.02)

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        kill()
        while not ends:  # until the process would be no more
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass

    run(deaf, port=0, loop="asyncio", access_log=False, timeout_shutdown=0.02)
    assert ends == [1]
    assert "ended by force" in capsys.readouterr().err
