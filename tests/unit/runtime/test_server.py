"""A server's life on each event loop, on loopback sockets."""

from __future__ import annotations

import asyncio
import builtins
import gc
import io
import logging
import os
import socket
import ssl
import stat
import sys
import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from anyio.streams.tls import TLSStream
from tests.fastcgi_front import request as fastcgi_request
from tests.frames import (
    ACCEPT,
    HANDSHAKE,
    frame,
)
from tests.gateways import scgi_request, uwsgi_request
from tests.stage import LIBRARIES, Client, client_of, perform, refused, turns

import omnicorn.runtime.server as server_module
from omnicorn.config import Config
from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.runtime.loader import load
from omnicorn.runtime.server import Server, Stopped
from omnicorn.transports import _asyncio, _trio
from omnicorn.transports.sockets import Listeners

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stage import Play, Stage

    Options = dict[str, Any]

LOOPS: tuple[Any, ...] = (_asyncio.AsyncioLoop, _trio.TrioLoop)


@pytest.fixture(params=LIBRARIES)
def play(request: pytest.FixtureRequest) -> Play:
    """Runs a scenario on each library."""
    return partial(perform, request.param)


class App:
    """Notes in `events` what happens to it; the path says how a request behaves."""

    def __init__(
        self, *, refuses: str | None = None, startup: bool = True, shutdown: bool = True
    ) -> None:
        self.events: list[str] = []
        self.times: dict[str, float] = {}
        self.began = anyio.Event()
        """A request, or what hangs of the lifespan, has begun."""
        self.release = anyio.Event()
        self.gone = anyio.Event()
        """Something that hung was cancelled."""
        self.shut_down = anyio.Event()
        self.refuses = refuses
        self.starts = startup
        self.stops = shutdown

    def note(self, event: str) -> None:
        self.events.append(event)
        self.times[event] = anyio.current_time()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.live(scope, receive, send)
            return
        path = scope["path"]
        if path != "/":
            self.began.set()
        if path == "/slow":
            await self.release.wait()
        elif path == "/listening":
            await receive()
            self.note((await receive())["type"])
        elif path == "/stuck":
            await self.hang("request", anyio.Event())
        elif path == "/deaf":
            self.note("deaf")
            while not self.release.is_set():
                try:
                    with anyio.CancelScope(shield=True):
                        await self.release.wait()
                except anyio.get_cancelled_exc_class():
                    pass  # asyncio's, which no shield keeps out
        body = (scope.get("state") or {}).get("greeting", "stateless").encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        self.note(f"answered {path}")

    async def live(self, scope: Any, receive: Any, send: Any) -> None:
        self.note((await receive())["type"])
        if self.refuses is not None:
            await send({"type": "lifespan.startup.failed", "message": self.refuses})
            return
        if not self.starts:
            await self.hang("startup", self.release)
        scope["state"]["greeting"] = "hello"
        await send({"type": "lifespan.startup.complete"})
        self.note((await receive())["type"])
        self.shut_down.set()
        if not self.stops:
            await self.hang("shutdown", self.release)
        await send({"type": "lifespan.shutdown.complete"})

    async def hang(self, what: str, until: anyio.Event) -> None:
        self.began.set()
        try:
            await until.wait()
        except anyio.get_cancelled_exc_class():
            self.note(f"{what} cancelled")
            self.gone.set()
            raise


def quiet(**options: Any) -> Config:
    """A configuration for any free port, without an access log."""
    return Config(**{"port": 0, "access_log": False, **options})


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[io.IOBase]]:
    """The files that the server opens; one it forgets is closed after the test."""
    files: list[io.IOBase] = []

    def recording_open(*args: Any, **options: Any) -> Any:
        files.append(builtins.open(*args, **options))  # noqa: SIM115  the server closes it
        return files[-1]

    monkeypatch.setattr(server_module, "open", recording_open, raising=False)
    yield files
    for file in files:
        file.close()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was bound cannot be listened on, because somebody else does."""

    def listen(_: Listeners) -> None:
        raise ConfigError("somebody was quicker", "bind")

    monkeypatch.setattr(Listeners, "listen", listen)


# ------------------------------------------------------------------------------ start and stop


def test_a_server_starts_answers_at_its_addresses_and_stops(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet(bind=("127.0.0.1:0", "127.0.0.1:0")))
        assert server.urls == []

        await stage.start(server)
        ports = [address.removeprefix("http://127.0.0.1:") for address in server.urls]
        assert len(set(ports)) == 2 and "0" not in ports
        for place in range(2):
            async with client_of(server.urls[place]) as client:
                assert await client.get() == "hello"

        await server.stop()
        assert app.events[-1] == "lifespan.shutdown"
        assert [await refused(url) for url in server.urls] == [True, True]

    play(main)


def test_as_a_context_manager_it_starts_and_stops_also_when_the_body_raises(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        try:
            async with Server(app, quiet()) as server:
                async with client_of(server.urls[0]) as client:
                    assert await client.get() == "hello"
                raise ZeroDivisionError
        except ZeroDivisionError:
            app.note("raised")
        assert app.events == ["lifespan.startup", "answered /", "lifespan.shutdown", "raised"]

    play(main)


def test_without_a_configuration_it_has_the_default_one() -> None:
    assert Server(App()).config == Config()


def test_the_addresses_are_logged(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def main(stage: Stage) -> None:
        with caplog.at_level("INFO", "omnicorn"):
            async with Server(App(), quiet()) as server:
                assert caplog.messages == [f"omnicorn is serving on {server.urls[0]}"]

    play(main)


def test_starting_twice_is_refused_and_does_no_harm(play: Play) -> None:
    async def main(stage: Stage) -> None:
        async with Server(App(), quiet()) as server:
            with pytest.raises(RuntimeError, match="started before"):
                await stage.start(server)
            async with client_of(server.urls[0]) as client:
                assert await client.get() == "hello"
        with pytest.raises(RuntimeError, match="started before"):
            await stage.start(server)

    play(main)


def test_before_a_start_stop_and_hurry_do_nothing(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet())
        server.hurry()
        await server.stop()
        await stage.start(server)
        await server.stop()
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]

    play(main)


def test_stop_once_more_does_nothing_and_stops_at_once_wait_for_the_same_end(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet())
        await stage.start(server)
        async with client_of(server.urls[0]) as client:
            await client.ask("/slow")
            await app.began.wait()

            stops = [stage.begin(server.stop) for _ in range(3)]
            await turns()
            assert not any(stop.done for stop in stops)
            stops.pop().cancel()  # one who loses patience takes nothing from the others
            await turns()
            assert not any(stop.done for stop in stops)
            app.release.set()

            assert await client.answer() == "hello"
            for stop in stops:
                await stop.end()
        await server.stop()
        assert app.events == ["lifespan.startup", "answered /slow", "lifespan.shutdown"]

    play(main)


def test_a_cancelled_stop_still_ends_the_lifespan_and_closes_the_log(
    play: Play,
    opened: list[io.IOBase],
    tmp_path: Path,
) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        options = Config(port=0, access_log_file=str(tmp_path / "access.log"))
        server = Server(app, options)
        await stage.start(server)
        async with client_of(server.urls[0]) as client:
            await client.ask("/stuck")
            await app.began.wait()
            stopping = stage.begin(server.stop)
            await turns()

            stopping.cancel()
            await stopping.end()
            assert stopping.was_cancelled
            await turns()

            seen = list(app.events)  # before the end of the loop cancels what is left
        assert seen[-1] == "lifespan.shutdown"
        assert opened[0].closed

    play(main)


def test_a_stop_during_the_start_does_not_leave_the_start_waiting_for_ever(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App(startup=False)
        server = Server(app, quiet())
        starting = stage.begin(server.start, stage.host)
        await app.began.wait()
        stopping = stage.begin(server.stop)
        await turns()
        app.release.set()
        await stopping.end()
        await turns()

        ended = starting.done
        assert ended and isinstance(starting.error, Stopped)

    play(main)


# --------------------------------------------------------------------------- starts that fail


def test_an_address_in_use_keeps_the_application_from_starting_and_closes_the_log(
    play: Play,
    taken: int,
    opened: list[io.IOBase],
    tmp_path: Path,
) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        options = Config(port=taken, access_log_file=str(tmp_path / "access.log"))
        server = Server(app, options)
        with pytest.raises(ConfigError, match=f"127.0.0.1:{taken}: the address is in use"):
            await stage.start(server)
        assert [file.closed for file in opened] == [True]
        await server.stop()  # for those who stop in a finally clause
        assert app.events == []

    play(main)


def test_an_address_lost_while_it_started_shuts_the_application_down_and_closes_the_log(
    play: Play,
    lost: None,
    opened: list[io.IOBase],
    tmp_path: Path,
) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, Config(port=0, access_log_file=str(tmp_path / "access.log")))
        with pytest.raises(ConfigError, match="somebody was quicker"):
            await stage.start(server)
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]
        assert [file.closed for file in opened] == [True]
        await server.stop()  # for those who stop in a finally clause
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]

    play(main)


def test_one_address_in_use_takes_the_others_with_it(
    play: Play, taken: int, tmp_path: Path
) -> None:
    async def main(stage: Stage) -> None:
        path = tmp_path / "socket"
        server = Server(App(), quiet(bind=(f"unix:{path}", f"127.0.0.1:{taken}")))
        with pytest.raises(ConfigError, match="in use"):
            await stage.start(server)
        assert not path.exists()
        assert server.urls == []

    play(main)


def test_a_refused_startup_raises_its_message_and_listens_nowhere(
    play: Play,
    monkeypatch: pytest.MonkeyPatch,
    opened: list[io.IOBase],
    tmp_path: Path,
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it listens")

    for loop in LOOPS:
        monkeypatch.setattr(loop, "listen", never)
    path = tmp_path / "socket"

    async def main(stage: Stage) -> None:
        options = Config(bind=f"unix:{path}", access_log_file=str(tmp_path / "access.log"))
        server = Server(App(refuses="no database"), options)
        with pytest.raises(LifespanFailed, match=r"^no database$"):
            await stage.start(server)
        assert server.urls == []
        assert not path.exists()
        assert [file.closed for file in opened] == [True]
        await server.stop()

    play(main)


def test_a_cancelled_start_cancels_the_lifespan_and_closes_the_log(
    play: Play,
    opened: list[io.IOBase],
    tmp_path: Path,
) -> None:
    async def main(stage: Stage) -> None:
        app = App(startup=False)
        options = Config(port=0, access_log_file=str(tmp_path / "access.log"))
        starting = stage.begin(Server(app, options).start, stage.host)
        await app.began.wait()

        starting.cancel()
        await starting.end()
        assert starting.was_cancelled

        await app.gone.wait()
        assert app.events == ["lifespan.startup", "startup cancelled"]
        assert [file.closed for file in opened] == [True]

    play(main)


def test_a_start_cancelled_while_it_begins_to_accept_leaves_no_reader_in_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[list[int]] = []
    real = _asyncio.AsyncioLoop.listen

    def listen(loop: Any, connect: Any, sockets: list[socket.socket], backlog: int) -> Any:
        begun.append([sock.fileno() for sock in sockets])
        return real(loop, connect, sockets, backlog)

    monkeypatch.setattr(_asyncio.AsyncioLoop, "listen", listen)

    async def main(stage: Stage) -> None:
        starting = stage.begin(Server(App(), quiet(lifespan="off")).start)
        while not begun:
            await anyio.lowlevel.checkpoint()
        assert not starting.done
        starting.cancel()
        await starting.end()
        assert starting.was_cancelled
        # Whoever gets one of these descriptors next would never be told that it is readable.
        loop = asyncio.get_running_loop()
        assert [loop.remove_reader(descriptor) for descriptor in begun[0]] == [False]

    perform("asyncio", main)  # the others have no such moment


def test_a_start_cancelled_in_the_shutdown_after_a_bind_error_cancels_that_too(
    play: Play,
    lost: None,
) -> None:
    async def main(stage: Stage) -> None:
        app = App(shutdown=False)
        starting = stage.begin(Server(app, quiet()).start, stage.host)
        await app.began.wait()
        starting.cancel()
        await starting.end()
        await turns()
        assert app.gone.is_set()

    play(main)


@pytest.mark.parametrize(
    ("app", "message"),
    [(None, "no application is given"), ("no_such_module:app", "no module 'no_such_module'")],
)
def test_an_application_that_cannot_be_loaded_keeps_the_log_from_being_opened(
    play: Play,
    app: str | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    opened: list[io.IOBase],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(sys, "path", sys.path.copy())

    async def main(stage: Stage) -> None:
        options = Config(port=0, access_log_file=str(tmp_path / "log"), app_dir=str(tmp_path))
        with pytest.raises(ConfigError, match=message) as caught:
            await Server(app, options).start(stage.host)
        assert caught.value.option == "app"
        assert opened == []

    play(main)


# ----------------------------------------------------------------------------------- draining


def test_draining_goes_from_refusing_over_telling_to_cancelling(
    play: Play,
    caplog: pytest.LogCaptureFixture,
) -> None:
    grace = 0.1

    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet(timeout_graceful_shutdown=grace))
        await stage.start(server)
        async with (
            client_of(server.urls[0]) as idle,
            client_of(server.urls[0]) as slow,
            client_of(server.urls[0]) as listening,
            client_of(server.urls[0]) as stuck,
        ):
            assert await idle.get() == "hello"
            for client, path in ((slow, "/slow"), (listening, "/listening"), (stuck, "/stuck")):
                app.began = anyio.Event()
                await client.ask(path)
                await app.began.wait()

            begun = anyio.current_time()
            stopping = stage.begin(server.stop)
            assert await idle.rest() == b""
            assert await refused(server.urls[0])
            assert app.events == ["lifespan.startup", "answered /"]

            app.release.set()
            assert await slow.answer() == "hello"
            assert await listening.answer() == "hello"
            assert await stuck.rest() == b""
            await stopping.end()

        assert app.events[2:] == [
            "answered /slow",
            "http.disconnect",
            "answered /listening",
            "request cancelled",
            "lifespan.shutdown",
        ]
        # uvloop counts milliseconds.
        assert app.times["http.disconnect"] - begun > grace / 2 - 0.002
        assert app.times["request cancelled"] - begun > grace - 0.002

    play(main)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "1 requests are cancelled" in warning and "0.1 s" in warning


def test_who_leaves_at_the_disconnect_is_not_cancelled(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet(timeout_graceful_shutdown=0.1))
        await stage.start(server)
        async with client_of(server.urls[0]) as client:
            await client.ask("/listening")
            await app.began.wait()
            stopping = stage.begin(server.stop)
            assert await client.answer() == "hello"
            await stopping.end()
        assert app.events[1:] == ["http.disconnect", "answered /listening", "lifespan.shutdown"]

    play(main)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_request_in_flight_is_answered_and_then_the_application_is_shut_down(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet())
        await stage.start(server)
        async with client_of(server.urls[0]) as client:
            await client.ask("/slow")
            await app.began.wait()
            stopping = stage.begin(server.stop)
            await turns()
            assert app.events == ["lifespan.startup"]
            app.release.set()
            assert await client.answer() == "hello"
            assert await client.rest() == b""
            await stopping.end()
        assert app.events == ["lifespan.startup", "answered /slow", "lifespan.shutdown"]

    play(main)


def test_hurry_cancels_what_the_drain_waits_for_and_still_shuts_the_application_down(
    play: Play,
) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet())  # half a minute of grace
        await stage.start(server)
        async with client_of(server.urls[0]) as client:
            await client.ask("/stuck")
            await app.began.wait()
            stopping = stage.begin(server.stop)
            await turns()
            assert app.events == ["lifespan.startup"]

            server.hurry()

            await stopping.end()
            assert await client.rest() == b""
        assert app.events == ["lifespan.startup", "request cancelled", "lifespan.shutdown"]

    play(main)


def test_who_hurries_is_not_told_that_the_whole_grace_has_passed(
    play: Play,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet())
        await stage.start(server)
        async with client_of(server.urls[0]) as client:
            await client.ask("/stuck")
            await app.began.wait()
            stopping = stage.begin(server.stop)
            await turns()
            server.hurry()
            await stopping.end()

    play(main)
    (message,) = [message for message in caplog.messages if "cancelled" in message]
    assert "30 s" not in message


def test_hurry_cancels_a_shutdown_that_hangs(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def main(stage: Stage) -> None:
        app = App(shutdown=False)
        server = Server(app, quiet())
        await stage.start(server)
        stopping = stage.begin(server.stop)
        await app.began.wait()
        assert not stopping.done

        server.hurry()

        await stopping.end()
        assert app.events == ["lifespan.startup", "lifespan.shutdown", "shutdown cancelled"]

    play(main)
    assert "The application's shutdown is cancelled" in caplog.messages


def test_a_hurry_of_the_drain_is_not_one_of_the_shutdown(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App(shutdown=False)
        server = Server(app, quiet())
        await stage.start(server)
        async with client_of(server.urls[0]) as client:
            await client.ask("/stuck")
            await app.began.wait()
            stopping = stage.begin(server.stop)
            await turns()
            server.hurry()
            await app.shut_down.wait()
            await turns()
            assert not stopping.done
            app.release.set()
            await stopping.end()
        assert app.events == ["lifespan.startup", "request cancelled", "lifespan.shutdown"]

    play(main)


def test_an_application_that_ignores_its_cancellation_does_not_hold_the_stop_for_ever(
    play: Play,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(server_module, "_CANCEL_GRACE", 0.02)

    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet(timeout_graceful_shutdown=0.02))
        told: list[bool] = []
        server.on_stubborn = lambda: told.append(True)
        await stage.start(server)
        async with client_of(server.urls[0]) as client:
            await client.ask("/deaf")
            await app.began.wait()
            await server.stop()
            assert app.events == ["lifespan.startup", "deaf", "lifespan.shutdown"]
            assert told == [True]
            app.release.set()
            await turns()

    play(main)
    assert "1 applications ignore their cancellation" in caplog.messages


def test_a_shutdown_that_fails_is_logged_and_does_not_stop_the_stop(
    play: Play,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "pool is busy"})

    async def main(stage: Stage) -> None:
        async with Server(app, quiet()):
            pass

    play(main)
    assert caplog.messages[-1] == "The application's shutdown failed: pool is busy"


# --------------------------------------------------------------------------------- access log


def one_request(play: Play, config: Config) -> None:
    async def main(stage: Stage) -> None:
        async with Server(App(), config) as server, client_of(server.urls[0]) as client:
            await client.get("/logged")

    play(main)


def test_the_access_log_is_added_to_its_file_which_is_closed_at_the_end(
    play: Play, opened: list[io.IOBase], tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    options = Config(
        port=0, access_log_file=str(path), access_log_format="%(m)s %(U)s %(s)s", use_colors=False
    )

    one_request(play, options)

    assert path.read_text() == "before\nGET /logged 200\n"
    assert [file.closed for file in opened] == [True]


def test_an_exchange_that_the_stop_cuts_is_in_the_file(play: Play, tmp_path: Path) -> None:
    path = tmp_path / "access.log"

    async def main(stage: Stage) -> None:
        app = App()
        options = Config(port=0, access_log_file=str(path), access_log_format="%(U)s")
        server = Server(app, options)
        await stage.start(server)
        async with client_of(server.urls[0]) as client:
            await client.ask("/stuck")
            await app.began.wait()
            stopping = stage.begin(server.stop)
            await turns()
            server.hurry()
            await stopping.end()
            assert path.read_text() == "/stuck\n"

    play(main)


@pytest.mark.parametrize("options", [{}, {"access_log_file": "-"}])
def test_without_a_file_the_access_log_goes_to_standard_output_and_leaves_it_open(
    play: Play, options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    one_request(play, Config(port=0, **options))

    line = capsys.readouterr().out
    assert line.startswith("INFO:     127.0.0.1:")
    assert line.endswith(' - "GET /logged HTTP/1.1" 200 OK\n')
    assert not sys.stdout.closed


def test_the_access_log_is_coloured_on_request(
    play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    one_request(play, Config(port=0, use_colors=True))
    assert "\x1b[32m200 OK\x1b[0m" in capsys.readouterr().out


def test_the_operators_own_access_logger_takes_the_place_of_the_file(
    play: Play, opened: list[io.IOBase], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("omnicorn.access")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        options = Config(
            port=0, access_log_file=str(tmp_path / "log"), access_log_format="%(U)s %(s)s"
        )
        one_request(play, options)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

    assert stream.getvalue() == "/logged 200\n"
    assert opened == []
    assert capsys.readouterr().out == ""


def test_no_access_log_is_none(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    one_request(play, quiet())
    assert capsys.readouterr().out == ""


def test_an_access_log_that_cannot_be_opened_is_named_before_anything_starts(
    play: Play,
    tmp_path: Path,
) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        options = Config(port=0, access_log_file=str(tmp_path / "no" / "log"))
        with pytest.raises(ConfigError, match="no/log cannot be opened: No such file") as caught:
            await Server(app, options).start(stage.host)
        assert caught.value.option == "access_log_file"
        assert app.events == []

    play(main)


def test_a_wrong_format_leaves_no_file_open(
    play: Play, opened: list[io.IOBase], tmp_path: Path
) -> None:
    async def main(stage: Stage) -> None:
        options = Config(
            port=0, access_log_file=str(tmp_path / "log"), access_log_format="%(nonsense)s"
        )
        with pytest.raises(ConfigError, match="nonsense"):
            await Server(App(), options).start(stage.host)
        assert [file for file in opened if not file.closed] == []

    play(main)


# ------------------------------------------------------------------------------ where it listens


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_a_unix_socket_has_its_permissions_and_is_removed_at_the_end(
    play: Play, tmp_path: Path
) -> None:
    path = tmp_path / "socket"

    async def main(stage: Stage) -> None:
        async with Server(App(), quiet(uds=str(path), uds_permissions=0o600)) as server:
            assert server.urls == [f"unix:{path}"]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            async with client_of(server.urls[0]) as client:
                assert await client.get() == "hello"
        assert not path.exists()

    play(main)


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="needs SO_REUSEPORT")
def test_two_servers_share_a_port_where_both_say_so(play: Play) -> None:
    async def main(stage: Stage) -> None:
        async with Server(App(), quiet(reuse_port=True)) as one:
            port = int(one.urls[0].rpartition(":")[2])
            async with Server(App(), quiet(reuse_port=True, port=port)) as two:
                assert two.urls == one.urls

    play(main)


def test_the_backlog_and_the_owner_reach_the_sockets(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, str | None]] = []
    bind_really = server_module.bind  # type: ignore[attr-defined]

    def bind(binds: Any, **options: Any) -> Any:
        asked.append((options["backlog"], options["uds_owner"]))
        return bind_really(binds, **{**options, "uds_owner": None})

    def listening(really: Any) -> Any:
        def listen(loop: Any, connect: Any, sockets: Any, backlog: int) -> Any:
            asked.append((backlog, None))
            return really(loop, connect, sockets, backlog)

        return listen

    monkeypatch.setattr(server_module, "bind", bind)
    for loop in LOOPS:
        monkeypatch.setattr(loop, "listen", listening(loop.listen))

    async def main(stage: Stage) -> None:
        async with Server(App(), quiet(backlog=7, uds_owner=":nobody")):
            pass

    play(main)
    assert asked == [(7, ":nobody"), (7, None)]


def test_the_lifespan_can_be_off_or_required(play: Play) -> None:
    async def requires_http(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"

    async def main(stage: Stage) -> None:
        app = App()
        async with (
            Server(app, quiet(lifespan="off")) as server,
            client_of(server.urls[0]) as client,
        ):
            assert await client.get() == "stateless"
        assert app.events == ["answered /"]

        async with Server(requires_http, quiet(lifespan="auto")):
            pass
        with pytest.raises(LifespanFailed, match="AssertionError"):
            await Server(requires_http, quiet(lifespan="on")).start(stage.host)

    play(main)


# ------------------------------------------------------------------------------------- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Options:
    """Options for TLS; the certificate is for 127.0.0.1."""
    from tests.certificates import Authority

    certfile, keyfile = Authority().issue("127.0.0.1").save(tmp_path, "server")
    return {"ssl_certfile": certfile, "ssl_keyfile": keyfile}


def trusting(certfile: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certfile)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is trusted
    return context


def test_with_a_certificate_tls_is_served_and_said_in_the_address(
    play: Play, certificate: Options
) -> None:
    async def main(stage: Stage) -> None:
        async with Server(App(), quiet(**certificate)) as server:
            assert server.urls[0].startswith("https://127.0.0.1:")
            assert server.redirects == []
            async with client_of(server.urls[0], trusting(certificate["ssl_certfile"])) as client:
                assert await client.get() == "hello"

    play(main)


def test_a_program_may_bring_its_own_context(play: Play, certificate: Options) -> None:
    async def main(stage: Stage) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate["ssl_certfile"], certificate["ssl_keyfile"])
        async with Server(App(), quiet(ssl_context=context)) as server:
            server.reload()
            async with client_of(server.urls[0], trusting(certificate["ssl_certfile"])) as client:
                assert await client.get() == "hello"

    play(main)


def test_tls_is_spoken_on_a_socket_file_as_well(
    play: Play, certificate: Options, tmp_path: Path
) -> None:
    async def main(stage: Stage) -> None:
        path = str(tmp_path / "s")
        async with Server(App(), quiet(uds=path, **certificate)) as server:
            assert server.urls == [f"unix:{path}"]
            async with client_of(server.urls[0], trusting(certificate["ssl_certfile"])) as client:
                assert await client.get() == "hello"

    play(main)


def test_a_certificate_that_cannot_be_used_ends_the_start_before_the_application(
    play: Play,
    certificate: Options,
) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        with pytest.raises(ConfigError) as refusal:
            await Server(app, quiet(**{**certificate, "ssl_keyfile": "/nowhere/x.key"})).start(
                stage.host
            )
        assert refusal.value.option == "ssl_keyfile"
        assert app.events == []

    play(main)


def test_certificates_are_read_again_when_asked_and_open_connections_go_on(
    play: Play,
    certificate: Options,
    tmp_path: Path,
) -> None:
    from tests.certificates import Authority

    async def main(stage: Stage) -> None:
        old = tmp_path / "old.pem"
        old.write_text((tmp_path / "server.pem").read_text())
        async with (
            Server(App(), quiet(**certificate)) as server,
            client_of(server.urls[0], trusting(str(old))) as client,
        ):
            assert await client.get() == "hello"
            Authority().issue("127.0.0.1").save(tmp_path, "server")
            server.reload()
            async with client_of(server.urls[0], trusting(certificate["ssl_certfile"])) as new:
                assert await new.get() == "hello"
            with pytest.raises(ssl.SSLCertVerificationError):
                async with client_of(server.urls[0], trusting(str(old))):
                    pass
            assert await client.get() == "hello"

    play(main)


def test_asked_to_read_certificates_again_a_server_without_any_does_nothing(play: Play) -> None:
    async def main(stage: Stage) -> None:
        server = Server(App(), quiet())
        server.reload()
        async with server:
            server.reload()

    play(main)


def test_a_server_stops_at_once_although_a_handshake_is_unfinished(
    play: Play, certificate: Options
) -> None:
    async def main(stage: Stage) -> None:
        server = Server(App(), quiet(**certificate))
        await stage.start(server)
        async with client_of(server.urls[0]) as client:
            await client.send(b"\x16\x03\x01")
            await turns()
            await server.stop()
            assert await client.rest() == b""

    play(main)


async def redirected(server: Server, place: int = 0) -> tuple[str, str]:
    """Status line and location that the redirecting listener gives for /a?b."""
    url = server.redirects[place]
    async with client_of(url) as client:
        port = url.rpartition(":")[2]
        await client.send(f"GET /a?b HTTP/1.1\r\nhost: test:{port}\r\n\r\n".encode())
        status, *lines = (await client.head()).split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines if line)
    assert "strict-transport-security" not in fields
    return status, fields["location"]


def test_plain_http_is_redirected_from_a_port_of_its_own(
    play: Play,
    certificate: Options,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(stage: Stage) -> None:
        caplog.set_level("INFO", "omnicorn")
        options = {"redirect_http": 0, "hsts": 60, "root_path": "/app", **certificate}
        async with Server(App(), quiet(**options)) as server:
            [address] = server.urls
            [plain] = server.redirects
            assert plain != address.replace("https", "http")
            assert f"omnicorn redirects {plain} to https" in caplog.messages
            assert await redirected(server) == (
                "HTTP/1.1 308 Permanent Redirect",
                address.replace("127.0.0.1", "test") + "/a?b",
            )
        assert await refused(plain)

    play(main)


def test_plain_http_is_redirected_on_every_host(play: Play, certificate: Options) -> None:
    async def main(stage: Stage) -> None:
        binds = ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.2:0")
        async with Server(App(), quiet(bind=binds, redirect_http=0, **certificate)) as server:
            hosts = [address.rpartition(":")[0] for address in server.redirects]
            assert hosts == ["http://127.0.0.1", "http://127.0.0.2"]

    play(main)


def test_a_redirecting_port_that_is_taken_ends_the_start(
    play: Play, certificate: Options, taken: int
) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{taken}"):
            await Server(app, quiet(redirect_http=taken, **certificate)).start(stage.host)
        assert app.events == []

    play(main)


def test_redirected_clients_are_let_finish_and_idle_ones_closed(
    play: Play, certificate: Options
) -> None:
    async def main(stage: Stage) -> None:
        server = Server(App(), quiet(redirect_http=0, **certificate))
        await stage.start(server)
        async with client_of(server.redirects[0]) as client:
            assert (await client.get()).startswith("This site")
            await server.stop()
            assert await client.rest() == b""

    play(main)


def test_a_websocket_is_closed_with_1012_when_the_server_stops(play: Play) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send(ACCEPT)
        began.set()
        seen.append(await receive())

    seen: list[dict[str, Any]] = []
    began = anyio.Event()

    async def main(stage: Stage) -> None:
        server = Server(app, quiet(lifespan="off"))
        await stage.start(server)
        async with client_of(server.urls[0]) as client:
            head = ["GET /ws HTTP/1.1", "host: test", *HANDSHAKE, "", ""]
            await client.send("\r\n".join(head).encode())
            await began.wait()
            stopping = stage.begin(server.stop)
            assert (await client.head()).startswith("HTTP/1.1 101 ")
            assert await client.reader.receive_exactly(4) == b"\x88\x02\x03\xf4"
            await client.send(frame(8, b"\x03\xf4"))
            assert await client.rest() == b""
            await stopping.end()

    play(main)
    assert seen == [{"type": "websocket.disconnect", "code": 1012, "reason": ""}]


# ------------------------------------------------------------------------------- embedding


async def stateless(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the scheme and the client's host; knows no lifespan."""
    if scope["type"] == "lifespan":
        raise LookupError
    body = f"{scope['scheme']} {scope['client'] and scope['client'][0]}".encode()
    fields = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("content-length", "4")])
    return [b"wsgi"]


class Asgi2:
    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        await stateless(self.scope, receive, send)


@pytest.mark.parametrize("library", ["asyncio", "uvloop"])
def test_on_asyncio_a_server_starts_where_it_is(library: str) -> None:
    async def main(stage: Stage) -> None:
        server = Server(App(), quiet())
        await server.start()
        async with client_of(server.urls[0]) as client:
            assert await client.get() == "hello"
        await server.stop()

    perform(library, main)


def test_on_trio_a_start_without_a_place_for_its_tasks_says_what_to_write() -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet())
        with pytest.raises(RuntimeError, match=r"on trio write `async with Server\(app, config\)"):
            await server.start()
        assert app.events == []
        async with server:  # nothing has happened to it
            assert server.started

    perform("trio", main)


def test_its_attributes_tell_of_its_life(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet())
        assert (server.started, server.connections, server.requests) == (False, 0, 0)
        async with server:
            assert (server.started, server.connections, server.requests) == (True, 0, 0)
            async with client_of(server.urls[0]) as client, client_of(server.urls[0]) as other:
                assert await client.get() == await client.get() == await other.get() == "hello"
                assert (server.connections, server.requests) == (2, 3)
                await client.ask("/slow")
                await app.began.wait()
                stopping = stage.begin(server.stop)
                await turns()
                assert (server.started, server.connections, server.requests) == (False, 1, 4)
                app.release.set()
                await stopping.end()
            assert (server.started, server.connections, server.requests) == (False, 0, 4)

    play(main)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_what_the_body_raises_comes_out_as_it_is(play: Play, error: type[BaseException]) -> None:
    async def main(stage: Stage) -> None:
        raised = error("in the body")
        app = App()
        caught: BaseException | None = None
        try:
            async with Server(app, quiet()):
                raise raised
        except BaseException as exc:
            caught = exc
        assert caught is raised
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]

    play(main)


def test_a_body_that_is_cancelled_stops_the_server_in_order(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet())

        async def body() -> None:
            async with server:
                await anyio.sleep_forever()

        task = stage.begin(body)
        await stage.until(lambda: server.started)
        async with client_of(server.urls[0]) as client:
            await client.ask("/slow")
            await app.began.wait()
            task.cancel()
            await turns()
            assert await refused(server.urls[0])
            assert not task.done
            app.release.set()
            assert await client.answer() == "hello"
        await task.end()
        assert task.was_cancelled and task.error is None
        assert app.events == ["lifespan.startup", "answered /slow", "lifespan.shutdown"]

    play(main)


def test_entered_again_it_refuses_and_goes_on(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet())
        async with server:
            with pytest.raises(RuntimeError, match="started before"):
                async with server:
                    pass
            async with client_of(server.urls[0]) as client:
                assert await client.get() == "hello"
        assert app.events[-1] == "lifespan.shutdown"
        with pytest.raises(RuntimeError, match="started before"):
            async with server:
                pass

    play(main)


@pytest.mark.parametrize("failure", [LifespanFailed, ConfigError])
def test_an_entry_that_fails_raises_what_kept_it_from_starting(
    play: Play, failure: type[Exception]
) -> None:
    async def main(stage: Stage) -> None:
        app = App(refuses="no database") if failure is LifespanFailed else None
        with pytest.raises(failure, match=r"no database|no application"):
            async with Server(app, quiet()):
                raise AssertionError("it has started")

    play(main)


def test_an_entry_that_is_cancelled_leaves_nothing(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App(startup=False)
        server = Server(app, quiet())

        async def body() -> None:
            async with server:
                raise AssertionError("it has started")

        task = stage.begin(body)
        await app.began.wait()
        task.cancel()
        await task.end()
        assert task.was_cancelled and task.error is None
        assert server.urls == []
        await turns()
        assert app.events == ["lifespan.startup", "startup cancelled"]

    play(main)


def test_a_stop_during_an_entry_gives_it_up(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App(startup=False)
        server = Server(app, quiet(lifespan="on"))

        async def body() -> None:
            async with server:
                raise AssertionError("it has started")

        task = stage.begin(body)
        await app.began.wait()
        await server.stop()
        with pytest.raises(Stopped):
            await task.end()
        assert app.events == ["lifespan.startup", "startup cancelled"]

    play(main)


def test_a_stop_while_it_begins_to_accept_gives_the_start_up(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(really: Any) -> Any:
        async def listen(*args: Any) -> Any:
            acceptors = await really(*args)
            listening.set()
            await go_on.wait()
            return acceptors

        return listen

    for loop in LOOPS:
        monkeypatch.setattr(loop, "listen", slowly(loop.listen))
    listening, go_on = anyio.Event(), anyio.Event()

    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet())
        starting = stage.begin(stage.start, server)
        await listening.wait()
        stopping = stage.begin(server.stop)
        await turns()
        go_on.set()
        await stopping.end()
        with pytest.raises(Stopped):
            await starting.end()
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]
        assert not server.started

    play(main)


@pytest.mark.parametrize("grace", [0, 0.05])
def test_who_stops_it_says_how_long_requests_get(play: Play, grace: float) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet(timeout_graceful_shutdown=30))
        await stage.start(server)
        async with client_of(server.urls[0]) as client:
            await client.ask("/stuck")
            await app.began.wait()
            with anyio.fail_after(3):
                await server.stop(grace=grace)
            assert await client.rest() == b""
        assert app.events == ["lifespan.startup", "request cancelled", "lifespan.shutdown"]

    play(main)


def test_two_servers_live_side_by_side(play: Play) -> None:
    async def main(stage: Stage) -> None:
        one, two = App(), App()
        async with Server(one, quiet()) as first, client_of(first.urls[0]) as client:
            async with Server(two, quiet()) as second, client_of(second.urls[0]) as other:
                assert await client.get() == await other.get() == "hello"
            assert two.events[-1] == "lifespan.shutdown"
            assert await client.get() == "hello"
            assert one.events == ["lifespan.startup", "answered /", "answered /"]

    play(main)


def test_what_is_changed_in_a_configuration_later_does_not_reach_it(play: Play) -> None:
    async def main(stage: Stage) -> None:
        config = quiet()
        server = Server(App(), config)
        config.port = 1
        config.lifespan = "off"
        async with server, client_of(server.urls[0]) as client:
            config.server_header = False
            await client.ask()
            assert "server: omnicorn" in await client.head()
        assert server.config is not config and server.config.port == 0

    play(main)


def test_an_asgi_2_application_is_served(play: Play) -> None:
    async def main(stage: Stage) -> None:
        async with Server(Asgi2, quiet()) as server, client_of(server.urls[0]) as client:
            assert await client.get() == "http 127.0.0.1"

    play(main)


def test_a_wsgi_application_is_served_without_a_lifespan_and_its_threads_end(play: Play) -> None:
    def threads() -> list[str]:
        names = [thread.name for thread in threading.enumerate()]
        return [name for name in names if name.startswith("omnicorn-wsgi-")]

    async def main(stage: Stage) -> None:
        async with Server(wsgi, quiet(lifespan="on")) as server:
            async with client_of(server.urls[0]) as client:
                assert await client.get() == "wsgi"
            assert len(threads()) == 1
        assert threads() == []

    play(main)


def test_the_interface_may_be_said(play: Play) -> None:
    def either(*args: Any) -> Any:
        return wsgi(*args)

    async def main(stage: Stage) -> None:
        async with (
            Server(either, quiet(), mode="wsgi") as server,
            client_of(server.urls[0]) as client,
        ):
            assert server.config.interface == "wsgi"
            assert await client.get() == "wsgi"
        with pytest.raises(ConfigError, match="interface"):
            Server(either, quiet(), mode="cgi")

    play(main)


# ------------------------------------------------------------------------ sockets of a program


@pytest.mark.parametrize("listening", [True, False])
def test_sockets_of_the_program_are_served_and_closed_at_the_end(
    play: Play, listening: bool, tmp_path: Path
) -> None:
    async def main(stage: Stage) -> None:
        path = tmp_path / f"{stage.library}.sock"
        tcp, unix = socket.socket(), socket.socket(socket.AF_UNIX)
        tcp.bind(("127.0.0.1", 0))
        unix.bind(str(path))
        if listening:
            tcp.listen()
            unix.listen()
        urls = [f"http://127.0.0.1:{tcp.getsockname()[1]}", f"unix:{path}"]
        async with Server(App(), quiet(bind="127.0.0.1:1"), sockets=[tcp, unix]) as server:
            assert server.urls == urls
            for url in urls:
                async with client_of(url) as client:
                    assert await client.get() == "hello"
        assert tcp.fileno() == unix.fileno() == -1
        assert path.exists()  # not made here

    play(main)


def test_sockets_that_are_no_place_to_listen_are_refused(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        with (
            socket.socket(type=socket.SOCK_DGRAM) as datagrams,
            pytest.raises(ConfigError, match="not a stream socket"),
        ):
            await stage.start(Server(app, quiet(), sockets=[datagrams]))
        with pytest.raises(ConfigError, match="at least one socket"):
            await stage.start(Server(app, quiet(), sockets=()))
        assert app.events == []

    play(main)


# ------------------------------------------------------------- how long an application may take


@pytest.mark.parametrize("lifespan", ["auto", "on"])
def test_a_start_that_takes_too_long_is_cancelled_and_names_the_time(
    play: Play, lifespan: str
) -> None:
    async def main(stage: Stage) -> None:
        app = App(startup=False)
        server = Server(app, quiet(timeout_startup=0.05, lifespan=lifespan))
        with pytest.raises(LifespanFailed, match=r"startup took longer than 0.05 s$"):
            await stage.start(server)
        assert app.events == ["lifespan.startup", "startup cancelled"]
        assert server.urls == []

    play(main)


@pytest.mark.parametrize("answers", ["complete", "failed"])
def test_an_application_that_answers_to_its_cancellation_is_late_all_the_same(
    play: Play, answers: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await anyio.sleep_forever()
        finally:
            await send({"type": f"lifespan.startup.{answers}"})

    async def main(stage: Stage) -> None:
        with pytest.raises(LifespanFailed, match=r"took longer than 0\.02 s"):
            await stage.start(Server(app, quiet(timeout_startup=0.02)))

    play(main)


def test_a_start_that_ignores_its_cancellation_is_waited_for_no_longer(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_CANCEL_GRACE", 0.02)

    async def main(stage: Stage) -> None:
        app = Deaf("startup")
        server = Server(app, quiet(timeout_startup=0.02))
        with pytest.raises(LifespanFailed, match=r"took longer than 0\.02 s"):
            await stage.start(server)
        app.release.set()

    play(main)


class Deaf:
    """An application that cannot be cancelled in one phase of its lifespan."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.release = anyio.Event()
        self.began = anyio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for phase in ("startup", "shutdown"):
            await receive()
            while phase == self.phase and not self.release.is_set():
                self.began.set()
                try:
                    with anyio.CancelScope(shield=True):
                        await self.release.wait()
                except anyio.get_cancelled_exc_class():
                    pass  # asyncio's, which no shield keeps out
            await send({"type": f"lifespan.{phase}.complete"})


def test_hurry_ends_a_start_that_was_given_up_and_ignores_it(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = Deaf("startup")
        server = Server(app, quiet())
        starting = stage.begin(stage.start, server)
        await app.began.wait()
        stopping = stage.begin(server.stop)
        await turns()
        assert not starting.done
        server.hurry()
        await stopping.end()
        with pytest.raises(Stopped):
            await starting.end()
        app.release.set()

    play(main)


def test_a_start_in_time_is_not_cancelled_afterwards(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        async with Server(app, quiet(timeout_startup=0.05)) as server:
            await anyio.sleep(0.1)
            async with client_of(server.urls[0]) as client:
                assert await client.get() == "hello"
        assert app.events == ["lifespan.startup", "answered /", "lifespan.shutdown"]

    play(main)


def test_a_shutdown_has_a_time_of_its_own(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def main(stage: Stage) -> None:
        app = App(shutdown=False)
        server = Server(app, quiet(timeout_shutdown=0.02, timeout_graceful_shutdown=30))
        await stage.start(server)
        with anyio.fail_after(3):
            await server.stop()
        assert app.events == ["lifespan.startup", "lifespan.shutdown", "shutdown cancelled"]

    play(main)
    assert "The application's shutdown is cancelled" in caplog.messages


def test_a_shutdown_without_one_has_that_of_the_requests(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App(shutdown=False)
        server = Server(app, quiet(timeout_graceful_shutdown=0.02))
        await stage.start(server)
        with anyio.fail_after(3):
            await server.stop()
        assert app.events == ["lifespan.startup", "lifespan.shutdown", "shutdown cancelled"]

    play(main)


def test_a_shutdown_that_ignores_its_cancellation_does_not_hold_the_stop_for_ever(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "_CANCEL_GRACE", 0.02)

    async def main(stage: Stage) -> None:
        app = Deaf("shutdown")
        server = Server(app, quiet(timeout_shutdown=0.02))
        told: list[bool] = []
        server.on_stubborn = lambda: told.append(True)
        await stage.start(server)
        await server.stop()
        assert told == [True]
        app.release.set()
        await turns()

    play(main)
    assert "The application ignores the cancellation of its lifespan" in caplog.messages


def test_a_start_that_swallows_its_cancellation_and_completes_is_shut_down(play: Play) -> None:
    async def main(stage: Stage) -> None:
        events: list[str] = []
        began = anyio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            events.append((await receive())["type"])
            began.set()
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                events.append("swallowed")
            with anyio.CancelScope(shield=True):
                await send({"type": "lifespan.startup.complete"})
                events.append((await receive())["type"])
                await send({"type": "lifespan.shutdown.complete"})

        starting = stage.begin(stage.start, Server(app, quiet()))
        await began.wait()
        starting.cancel()
        await starting._over.wait()
        assert starting.was_cancelled
        assert events == ["lifespan.startup", "swallowed", "lifespan.shutdown"]

    play(main)


# ------------------------------------------------------------------- several kinds of addresses


@pytest.mark.parametrize("passed", [False, True], ids=["bound here", "bound by the caller"])
def test_beside_tls_plain_http_is_served_where_it_is_asked_for(
    play: Play, certificate: Options, passed: bool
) -> None:
    async def main(stage: Stage) -> None:
        options = {"insecure_bind": "127.0.0.1:0", "hsts": 60, "redirect_http": 0, **certificate}
        sockets = [socket.create_server(("127.0.0.1", 0))] if passed else None
        async with Server(stateless, quiet(**options), sockets=sockets) as server:
            secure, plain = server.urls
            assert secure.startswith("https://") and plain.startswith("http://")
            assert len(server.redirects) == 1
            trusted = trusting(certificate["ssl_certfile"])
            for url, tls in ((secure, trusted), (plain, None)):
                async with client_of(url, tls) as client:
                    fields = "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 192.0.2.1\r\n\r\n"
                    await client.send(fields.encode())
                    head = await client.head()
                    assert ("strict-transport-security" in head) is (tls is not None)
                    body = f"{'http' if tls is None else 'https'} 192.0.2.1"
                    assert await client.reader.receive_exactly(len(body)) == body.encode()

    play(main)


def test_what_is_asked_without_tls_is_drained_as_well_and_shares_the_state(
    play: Play, certificate: Options
) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        server = Server(app, quiet(insecure_bind="127.0.0.1:0", **certificate))
        await stage.start(server)
        trusted = trusting(certificate["ssl_certfile"])
        async with (
            client_of(server.urls[0], trusted) as secure,
            client_of(server.urls[1]) as plain,
        ):
            for client in (secure, plain):
                app.began = anyio.Event()
                await client.ask("/slow")
                await app.began.wait()
            assert (server.connections, server.requests) == (2, 2)
            stopping = stage.begin(server.stop)
            await turns()
            assert [await refused(url) for url in server.urls] == [True, True]
            assert not stopping.done
            app.release.set()
            assert [await secure.answer(), await plain.answer()] == ["hello", "hello"]
            await stopping.end()
        assert app.events.count("lifespan.shutdown") == app.events.count("lifespan.startup") == 1

    play(main)


def test_fronts_speak_their_own_protocols_beside_https(
    play: Play, certificate: Options, tmp_path: Path
) -> None:
    async def main(stage: Stage) -> None:
        path = tmp_path / f"{stage.library}.sock"
        binds = [
            "scgi:127.0.0.1:0",
            "127.0.0.1:0",
            "fastcgi:127.0.0.1:0",
            f"uwsgi:unix:{path}",
            "127.0.0.1:0",
        ]
        config = quiet(bind=binds, redirect_http=0, **certificate)
        async with Server(stateless, config) as server:
            named = {url.partition("://")[0] for url in server.urls}
            assert named == {"scgi", "https", "fastcgi", f"uwsgi:unix:{path}"}
            by_scheme = {url.partition("://")[0]: url for url in server.urls}
            for url, request in (
                (by_scheme["scgi"], scgi_request(REMOTE_ADDR="192.0.2.7")),
                (f"unix:{path}", uwsgi_request(REMOTE_ADDR="192.0.2.7")),
                (by_scheme["fastcgi"], fastcgi_request(keep=False, REMOTE_ADDR="192.0.2.7")),
            ):
                async with client_of(url) as client:
                    await client.send(request)
                    assert b"\r\n\r\nhttp 192.0.2.7" in await client.rest()
            # To an address of HTTP, not to one of the fronts'.
            _, location = await redirected(server)
            [https, _] = [url for url in server.urls if url.startswith("https:")]
            assert location == https.replace("127.0.0.1", "test") + "/a?b"

    play(main)


def test_fronts_alone_can_be_served(play: Play) -> None:
    async def main(stage: Stage) -> None:
        async with Server(stateless, quiet(bind="scgi:127.0.0.1:0")) as server:
            [url] = server.urls
            assert url.startswith("scgi://127.0.0.1:") and server.redirects == []

    play(main)


def test_where_a_proxy_header_is_expected_it_comes_first(play: Play, certificate: Options) -> None:
    async def main(stage: Stage) -> None:
        options = {
            "proxy_protocol": True,
            "proxy_allow_from": "127.0.0.1",
            "insecure_bind": "127.0.0.1:0",
            "redirect_http": 0,
            **certificate,
        }
        header = b"PROXY TCP4 192.0.2.9 192.0.2.1 4000 80\r\n"
        async with Server(stateless, quiet(**options)) as server:
            async with client_of(server.urls[1]) as client:
                await client.send(header)
                assert await client.get() == "http 192.0.2.9"
            async with client_of(server.redirects[0]) as client:
                await client.send(header)
                await client.ask("/")
                assert " 308 " in await client.head()
            async with client_of("http" + server.urls[0].removeprefix("https")) as client:
                await client.send(header)
                async with await TLSStream.wrap(
                    client.stream,
                    hostname="127.0.0.1",
                    ssl_context=trusting(certificate["ssl_certfile"]),
                    standard_compatible=False,
                ) as stream:
                    assert await Client(stream).get() == "https 192.0.2.9"

    play(main)


# ----------------------------------------------------------------------- again and again


class Left:
    """What is there of a process: what must not grow with the number of its servers.

    Attributes:
        counts: Descriptors, threads and tasks.
        ours: Objects of our own classes, by class.
        objects: All of them.
    """

    def __init__(self) -> None:
        gc.collect()
        if trio.lowlevel.in_trio_task():
            tasks = trio.lowlevel.current_statistics().tasks_living
        else:
            tasks = len(asyncio.all_tasks())
        found = gc.get_objects()
        self.counts = {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "tasks": tasks,
        }
        self.objects = len(found)
        kinds = (type(each) for each in found)
        self.ours = Counter(kind for kind in kinds if str(kind.__module__).startswith("omnicorn"))

    def exceeds(self, before: Left) -> list[str]:
        """What there is more of; less may be, from tests before."""
        return [name for name, count in self.counts.items() if count > before.counts[name]]

    def is_back_to(self, before: Left, count: int) -> bool:
        """Whether *count* servers have gone without a trace."""
        # trio prunes what has left its heap of deadlines once a thousand have: three objects for
        # each. The rest is for caches of the libraries, which no number of servers makes larger.
        return (
            self.exceeds(before) == []
            and not self.ours - before.ours
            and self.objects - before.objects < 3 * min(count, 1000) + 500
        )


APPS: dict[str, Any] = {"asgi": App, "wsgi": lambda: wsgi}


def live_and_die(play: Play, kind: str, count: int, patience: float = 3.0) -> None:
    """Start a server, ask it, stop it; *count* times. All has gone within *patience*, in seconds:
    what was to end in a thread may need a turn more."""
    # No deadline comes, however slow the machine is: 408 would be the answer. What waits for one
    # would be found, too, as it outlasts the test.
    config = quiet(timeout_request_head=600.0, date_header=False)

    async def main(stage: Stage) -> None:
        async def live() -> None:
            async with (
                Server(APPS[kind](), config) as server,
                client_of(server.urls[0]) as client,
            ):
                assert await client.get() == {"asgi": "hello", "wsgi": "wsgi"}[kind]

        for _ in range(3):
            await live()  # what is loaded and remembered once
        before = Left()
        for _ in range(count):
            await live()
        left = Left()
        with anyio.move_on_after(patience):
            while not left.is_back_to(before, count):
                await anyio.sleep(0.1)
                left = Left()
        assert left.exceeds(before) == []
        assert left.ours - before.ours == Counter()
        assert left.is_back_to(before, count), left.objects - before.objects

    play(main)


@pytest.mark.parametrize("kind", APPS)
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_a_server_leaves_no_thread_task_socket_or_memory(play: Play, kind: str) -> None:
    live_and_die(play, kind, 30)


@pytest.mark.slow  # some ten seconds on each library
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", APPS)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_a_thousand_servers_leave_no_thread_task_socket_or_memory(library: str, kind: str) -> None:
    live_and_die(partial(perform, library, patience=240), kind, 1000, 30.0)


# ------------------------------------------------------------------------------------- loading


async def _application(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable module's name; its folder is ``tmp_path``."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    name = "an_application_to_load"
    monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / f"{name}.py").write_text(
        "async def app(scope, receive, send): ...\ndef make(): return app\n"
    )
    return name


def test_an_application_that_is_there_is_taken_as_it_is() -> None:
    assert load(_application, Config(app="other:app")) is _application


def test_a_factory_that_is_there_is_called() -> None:
    def factory() -> Any:
        return _application

    made: Any = factory
    assert load(made, Config(factory=True)) is _application
    assert load(made, Config()) is made


def test_an_import_string_is_imported_from_the_argument_or_else_the_configuration(
    module: str, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    first = load(f"{module}:app", Config(app="other:app", app_dir=folder))
    assert first is sys.modules[module].app
    assert load(None, Config(app=f"{module}:app", app_dir=folder)) is first
    assert load(f"{module}:make", Config(factory=True, app_dir=folder)) is first
    del sys.modules[module]


def test_no_application_at_all_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="name it as module:attribute") as caught:
        load(None, Config())
    assert caught.value.option == "app"
