"""A server's life in a loop of the test's own, and what its configuration makes of connections.

Lives are run on loopback sockets; the translation of the options is looked at in memory, where
a timeout costs no time.
"""

from __future__ import annotations

import asyncio
import builtins
import io
import logging
import socket
import ssl
import stat
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.frames import (
    ACCEPT,
    BINARY,
    HANDSHAKE,
    PING,
    SWITCHED,
    closed,
    frame,
    frames,
    text,
)

import omnicorn.runtime.server as server_module
from omnicorn.config import Config
from omnicorn.connections.http1 import Http1Connection
from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.runtime.server import Server, load, make_service
from omnicorn.transports.inproc import ManualLoop, Peer, connect
from omnicorn.transports.sockets import Listeners

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path

    from omnicorn.connections.service import Service

    Options = dict[str, Any]


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run in a loop of its own; what hangs fails."""

    async def bounded() -> None:
        async with asyncio.timeout(5):
            await main

    asyncio.run(bounded())


async def turns() -> None:
    """Let everything that is ready run, and what that makes ready."""
    for _ in range(20):
        await asyncio.sleep(0)


class App:
    """Notes in `events` what happens to it; the path says how a request behaves."""

    def __init__(
        self, *, refuses: str | None = None, startup: bool = True, shutdown: bool = True
    ) -> None:
        self.events: list[str] = []
        self.times: dict[str, float] = {}
        self.began = asyncio.Event()
        """A request, or what hangs of the lifespan, has begun."""
        self.release = asyncio.Event()
        self.gone = asyncio.Event()
        """Something that hung was cancelled."""
        self.shut_down = asyncio.Event()
        self.refuses = refuses
        self.starts = startup
        self.stops = shutdown

    def note(self, event: str) -> None:
        self.events.append(event)
        self.times[event] = asyncio.get_running_loop().time()

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
            await self.hang("request", asyncio.Event())
        elif path == "/deaf":
            while not self.release.is_set():
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.note("deaf")
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

    async def hang(self, what: str, until: asyncio.Event) -> None:
        self.began.set()
        try:
            await until.wait()
        except asyncio.CancelledError:
            self.note(f"{what} cancelled")
            self.gone.set()
            raise


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def ask(self, path: str = "/") -> None:
        self.writer.write(f"GET {path} HTTP/1.1\r\nhost: test\r\n\r\n".encode())

    async def answer(self) -> str:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return (await self.reader.readexactly(length)).decode()

    async def get(self, path: str = "/") -> str:
        self.ask(path)
        return await self.answer()

    async def closed(self) -> bool:
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def client_of(server: Server, place: int = 0) -> AsyncIterator[Client]:
    address = server.addresses[place]
    if address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    else:
        host, _, port = address.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


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


def test_a_server_starts_answers_at_its_addresses_and_stops() -> None:
    async def main() -> None:
        app = App()
        server = Server(app, quiet(bind=("127.0.0.1:0", "127.0.0.1:0")))
        assert server.addresses == []

        await server.start()
        ports = [address.removeprefix("http://127.0.0.1:") for address in server.addresses]
        assert len(set(ports)) == 2 and "0" not in ports
        for place in range(2):
            async with client_of(server, place) as client:
                assert await client.get() == "hello"

        await server.stop()
        assert app.events[-1] == "lifespan.shutdown"
        for place in range(2):
            with pytest.raises(ConnectionRefusedError):
                async with client_of(server, place):
                    pass

    run(main())


def test_as_a_context_manager_it_starts_and_stops_also_when_the_body_raises() -> None:
    async def main() -> None:
        app = App()
        try:
            async with Server(app, quiet()) as server:
                async with client_of(server) as client:
                    assert await client.get() == "hello"
                raise ZeroDivisionError
        except ZeroDivisionError:
            app.note("raised")
        assert app.events == ["lifespan.startup", "answered /", "lifespan.shutdown", "raised"]

    run(main())


def test_without_a_configuration_it_has_the_default_one() -> None:
    assert Server(App()).config == Config()


def test_the_addresses_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with caplog.at_level("INFO", "omnicorn"):
            async with Server(App(), quiet()) as server:
                assert caplog.messages == [f"omnicorn is serving on {server.addresses[0]}"]

    run(main())


def test_starting_twice_is_refused_and_does_no_harm() -> None:
    async def main() -> None:
        async with Server(App(), quiet()) as server:
            with pytest.raises(RuntimeError, match="started before"):
                await server.start()
            async with client_of(server) as client:
                assert await client.get() == "hello"
        with pytest.raises(RuntimeError, match="started before"):
            await server.start()

    run(main())


def test_before_a_start_stop_and_hurry_do_nothing() -> None:
    async def main() -> None:
        app = App()
        server = Server(app, quiet())
        server.hurry()
        await server.stop()
        await server.start()
        await server.stop()
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]

    run(main())


def test_stop_once_more_does_nothing_and_stops_at_once_wait_for_the_same_end() -> None:
    async def main() -> None:
        app = App()
        server = Server(app, quiet())
        await server.start()
        async with client_of(server) as client:
            client.ask("/slow")
            await app.began.wait()

            stops = [asyncio.ensure_future(server.stop()) for _ in range(3)]
            await turns()
            assert not any(stop.done() for stop in stops)
            stops.pop().cancel()  # one who loses patience takes nothing from the others
            await turns()
            assert not any(stop.done() for stop in stops)
            app.release.set()

            assert await client.answer() == "hello"
            await asyncio.gather(*stops)
        await server.stop()
        assert app.events == ["lifespan.startup", "answered /slow", "lifespan.shutdown"]

    run(main())


def test_a_cancelled_stop_still_ends_the_lifespan_and_closes_the_log(
    opened: list[io.IOBase], tmp_path: Path
) -> None:
    async def main() -> None:
        app = App()
        options = Config(port=0, access_log_file=str(tmp_path / "access.log"))
        server = Server(app, options)
        await server.start()
        async with client_of(server) as client:
            client.ask("/stuck")
            await app.began.wait()
            stopping = asyncio.ensure_future(server.stop())
            await turns()

            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            await turns()

            seen = list(app.events)  # before the end of the loop cancels what is left
        assert seen[-1] == "lifespan.shutdown"
        assert opened[0].closed

    run(main())


def test_a_stop_during_the_start_does_not_leave_the_start_waiting_for_ever() -> None:
    async def main() -> None:
        app = App(startup=False)
        server = Server(app, quiet())
        starting = asyncio.ensure_future(server.start())
        await app.began.wait()
        stopping = asyncio.ensure_future(server.stop())
        await turns()
        app.release.set()
        await stopping
        await turns()

        ended = starting.done()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert ended

    run(main())


# --------------------------------------------------------------------------- starts that fail


def test_an_address_in_use_keeps_the_application_from_starting_and_closes_the_log(
    taken: int, opened: list[io.IOBase], tmp_path: Path
) -> None:
    async def main() -> None:
        app = App()
        options = Config(port=taken, access_log_file=str(tmp_path / "access.log"))
        server = Server(app, options)
        with pytest.raises(ConfigError, match=f"127.0.0.1:{taken}: the address is in use"):
            await server.start()
        assert [file.closed for file in opened] == [True]
        await server.stop()  # for those who stop in a finally clause
        assert app.events == []

    run(main())


def test_an_address_lost_while_it_started_shuts_the_application_down_and_closes_the_log(
    lost: None, opened: list[io.IOBase], tmp_path: Path
) -> None:
    async def main() -> None:
        app = App()
        server = Server(app, Config(port=0, access_log_file=str(tmp_path / "access.log")))
        with pytest.raises(ConfigError, match="somebody was quicker"):
            await server.start()
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]
        assert [file.closed for file in opened] == [True]
        await server.stop()  # for those who stop in a finally clause
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]

    run(main())


def test_one_address_in_use_takes_the_others_with_it(taken: int, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        server = Server(App(), quiet(bind=(f"unix:{path}", f"127.0.0.1:{taken}")))
        with pytest.raises(ConfigError, match="in use"):
            await server.start()
        assert not path.exists()
        assert server.addresses == []

    run(main())


def test_a_refused_startup_raises_its_message_and_listens_nowhere(
    monkeypatch: pytest.MonkeyPatch, opened: list[io.IOBase], tmp_path: Path
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it listens")

    monkeypatch.setattr(server_module, "listen", never)
    path = tmp_path / "socket"

    async def main() -> None:
        options = Config(bind=f"unix:{path}", access_log_file=str(tmp_path / "access.log"))
        server = Server(App(refuses="no database"), options)
        with pytest.raises(LifespanFailed, match=r"^no database$"):
            await server.start()
        assert server.addresses == []
        assert not path.exists()
        assert [file.closed for file in opened] == [True]
        await server.stop()

    run(main())


def test_a_cancelled_start_cancels_the_lifespan_and_closes_the_log(
    opened: list[io.IOBase], tmp_path: Path
) -> None:
    async def main() -> None:
        app = App(startup=False)
        options = Config(port=0, access_log_file=str(tmp_path / "access.log"))
        starting = asyncio.ensure_future(Server(app, options).start())
        await app.began.wait()

        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

        await app.gone.wait()
        assert app.events == ["lifespan.startup", "startup cancelled"]
        assert [file.closed for file in opened] == [True]

    run(main())


def test_a_start_cancelled_while_it_begins_to_accept_leaves_no_reader_in_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[list[int]] = []
    real = server_module.listen  # type: ignore[attr-defined]

    def listen(factory: Any, sockets: list[socket.socket], backlog: int) -> Any:
        begun.append([sock.fileno() for sock in sockets])
        return real(factory, sockets, backlog)

    monkeypatch.setattr(server_module, "listen", listen)

    async def main() -> None:
        starting = asyncio.ensure_future(Server(App(), quiet(lifespan="off")).start())
        while not begun:
            await asyncio.sleep(0)
        assert not starting.done()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        # Whoever gets one of these descriptors next would never be told that it is readable.
        loop = asyncio.get_running_loop()
        assert [loop.remove_reader(descriptor) for descriptor in begun[0]] == [False]

    run(main())


def test_a_start_cancelled_in_the_shutdown_after_a_bind_error_cancels_that_too(
    lost: None,
) -> None:
    async def main() -> None:
        app = App(shutdown=False)
        starting = asyncio.ensure_future(Server(app, quiet()).start())
        await app.began.wait()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await turns()
        assert app.gone.is_set()

    run(main())


@pytest.mark.parametrize(
    ("app", "message"),
    [(None, "no application is given"), ("no_such_module:app", "no module 'no_such_module'")],
)
def test_an_application_that_cannot_be_loaded_keeps_the_log_from_being_opened(
    app: str | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    opened: list[io.IOBase],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(sys, "path", sys.path.copy())

    async def main() -> None:
        options = Config(port=0, access_log_file=str(tmp_path / "log"), app_dir=str(tmp_path))
        with pytest.raises(ConfigError, match=message) as caught:
            await Server(app, options).start()
        assert caught.value.option == "app"
        assert opened == []

    run(main())


# ----------------------------------------------------------------------------------- draining


def test_draining_goes_from_refusing_over_telling_to_cancelling(
    caplog: pytest.LogCaptureFixture,
) -> None:
    grace = 0.1

    async def main() -> None:
        app = App()
        server = Server(app, quiet(timeout_graceful_shutdown=grace))
        await server.start()
        async with (
            client_of(server) as idle,
            client_of(server) as slow,
            client_of(server) as listening,
            client_of(server) as stuck,
        ):
            assert await idle.get() == "hello"
            for client, path in ((slow, "/slow"), (listening, "/listening"), (stuck, "/stuck")):
                app.began.clear()
                client.ask(path)
                await app.began.wait()

            begun = asyncio.get_running_loop().time()
            stopping = asyncio.ensure_future(server.stop())
            assert await idle.closed()
            with pytest.raises(ConnectionRefusedError):
                async with client_of(server):
                    pass
            assert app.events == ["lifespan.startup", "answered /"]

            app.release.set()
            assert await slow.answer() == "hello"
            assert await listening.answer() == "hello"
            assert await stuck.closed()
            await stopping

        assert app.events[2:] == [
            "answered /slow",
            "http.disconnect",
            "answered /listening",
            "request cancelled",
            "lifespan.shutdown",
        ]
        assert app.times["http.disconnect"] - begun >= grace / 2
        assert app.times["request cancelled"] - begun >= grace

    run(main())
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "1 requests are cancelled" in warning and "0.1 s" in warning


def test_who_leaves_at_the_disconnect_is_not_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        app = App()
        server = Server(app, quiet(timeout_graceful_shutdown=0.1))
        await server.start()
        async with client_of(server) as client:
            client.ask("/listening")
            await app.began.wait()
            stopping = asyncio.ensure_future(server.stop())
            assert await client.answer() == "hello"
            await stopping
        assert app.events[1:] == ["http.disconnect", "answered /listening", "lifespan.shutdown"]

    run(main())
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_request_in_flight_is_answered_and_then_the_application_is_shut_down() -> None:
    async def main() -> None:
        app = App()
        server = Server(app, quiet())
        await server.start()
        async with client_of(server) as client:
            client.ask("/slow")
            await app.began.wait()
            stopping = asyncio.ensure_future(server.stop())
            await turns()
            assert app.events == ["lifespan.startup"]
            app.release.set()
            assert await client.answer() == "hello"
            assert await client.closed()
            await stopping
        assert app.events == ["lifespan.startup", "answered /slow", "lifespan.shutdown"]

    run(main())


def test_hurry_cancels_what_the_drain_waits_for_and_still_shuts_the_application_down() -> None:
    async def main() -> None:
        app = App()
        server = Server(app, quiet())  # half a minute of grace
        await server.start()
        async with client_of(server) as client:
            client.ask("/stuck")
            await app.began.wait()
            stopping = asyncio.ensure_future(server.stop())
            await turns()
            assert app.events == ["lifespan.startup"]

            server.hurry()

            await stopping
            assert await client.closed()
        assert app.events == ["lifespan.startup", "request cancelled", "lifespan.shutdown"]

    run(main())


def test_who_hurries_is_not_told_that_the_whole_grace_has_passed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        app = App()
        server = Server(app, quiet())
        await server.start()
        async with client_of(server) as client:
            client.ask("/stuck")
            await app.began.wait()
            stopping = asyncio.ensure_future(server.stop())
            await turns()
            server.hurry()
            await stopping

    run(main())
    (message,) = [message for message in caplog.messages if "cancelled" in message]
    assert "30 s" not in message


def test_hurry_cancels_a_shutdown_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        app = App(shutdown=False)
        server = Server(app, quiet())
        await server.start()
        stopping = asyncio.ensure_future(server.stop())
        await app.began.wait()
        assert not stopping.done()

        server.hurry()

        await stopping
        assert app.events == ["lifespan.startup", "lifespan.shutdown", "shutdown cancelled"]

    run(main())
    assert "The application's shutdown is cancelled" in caplog.messages


def test_a_hurry_of_the_drain_is_not_one_of_the_shutdown() -> None:
    async def main() -> None:
        app = App(shutdown=False)
        server = Server(app, quiet())
        await server.start()
        async with client_of(server) as client:
            client.ask("/stuck")
            await app.began.wait()
            stopping = asyncio.ensure_future(server.stop())
            await turns()
            server.hurry()
            await app.shut_down.wait()
            await turns()
            assert not stopping.done()
            app.release.set()
            await stopping
        assert app.events == ["lifespan.startup", "request cancelled", "lifespan.shutdown"]

    run(main())


def test_an_application_that_ignores_its_cancellation_does_not_hold_the_stop_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "_CANCEL_GRACE", 0.02)

    async def main() -> None:
        app = App()
        server = Server(app, quiet(timeout_graceful_shutdown=0.02))
        await server.start()
        async with client_of(server) as client:
            client.ask("/deaf")
            await app.began.wait()
            await server.stop()
            assert app.events == ["lifespan.startup", "deaf", "lifespan.shutdown"]
            app.release.set()
            await turns()

    run(main())
    assert "1 applications ignore their cancellation" in caplog.messages


def test_a_shutdown_that_fails_is_logged_and_does_not_stop_the_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "pool is busy"})

    async def main() -> None:
        async with Server(app, quiet()):
            pass

    run(main())
    assert caplog.messages[-1] == "The application's shutdown failed: pool is busy"


# --------------------------------------------------------------------------------- access log


async def _one_request(server: Server) -> None:
    async with server, client_of(server) as client:
        await client.get("/logged")


def test_the_access_log_is_added_to_its_file_which_is_closed_at_the_end(
    opened: list[io.IOBase], tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    options = Config(
        port=0, access_log_file=str(path), access_log_format="%(m)s %(U)s %(s)s", use_colors=False
    )

    run(_one_request(Server(App(), options)))

    assert path.read_text() == "before\nGET /logged 200\n"
    assert [file.closed for file in opened] == [True]


def test_an_exchange_that_the_stop_cuts_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "access.log"

    async def main() -> None:
        app = App()
        options = Config(port=0, access_log_file=str(path), access_log_format="%(U)s")
        server = Server(app, options)
        await server.start()
        async with client_of(server) as client:
            client.ask("/stuck")
            await app.began.wait()
            stopping = asyncio.ensure_future(server.stop())
            await turns()
            server.hurry()
            await stopping
            assert path.read_text() == "/stuck\n"

    run(main())


@pytest.mark.parametrize("options", [{}, {"access_log_file": "-"}])
def test_without_a_file_the_access_log_goes_to_standard_output_and_leaves_it_open(
    options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    run(_one_request(Server(App(), Config(port=0, **options))))

    line = capsys.readouterr().out
    assert line.startswith("INFO:     127.0.0.1:")
    assert line.endswith(' - "GET /logged HTTP/1.1" 200 OK\n')
    assert not sys.stdout.closed


def test_the_access_log_is_coloured_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    run(_one_request(Server(App(), Config(port=0, use_colors=True))))
    assert "\x1b[32m200 OK\x1b[0m" in capsys.readouterr().out


def test_the_operators_own_access_logger_takes_the_place_of_the_file(
    opened: list[io.IOBase], tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
        run(_one_request(Server(App(), options)))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

    assert stream.getvalue() == "/logged 200\n"
    assert opened == []
    assert capsys.readouterr().out == ""


def test_no_access_log_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    run(_one_request(Server(App(), quiet())))
    assert capsys.readouterr().out == ""


def test_an_access_log_that_cannot_be_opened_is_named_before_anything_starts(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        app = App()
        options = Config(port=0, access_log_file=str(tmp_path / "no" / "log"))
        with pytest.raises(ConfigError, match="no/log cannot be opened: No such file") as caught:
            await Server(app, options).start()
        assert caught.value.option == "access_log_file"
        assert app.events == []

    run(main())


def test_a_wrong_format_leaves_no_file_open(opened: list[io.IOBase], tmp_path: Path) -> None:
    async def main() -> None:
        options = Config(
            port=0, access_log_file=str(tmp_path / "log"), access_log_format="%(nonsense)s"
        )
        with pytest.raises(ConfigError, match="nonsense"):
            await Server(App(), options).start()
        assert [file for file in opened if not file.closed] == []

    run(main())


# ------------------------------------------------------------------------------ where it listens


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_a_unix_socket_has_its_permissions_and_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    async def main() -> None:
        async with Server(App(), quiet(uds=str(path), uds_permissions=0o600)) as server:
            assert server.addresses == [f"unix:{path}"]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            async with client_of(server) as client:
                assert await client.get() == "hello"
        assert not path.exists()

    run(main())


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="needs SO_REUSEPORT")
def test_two_servers_share_a_port_where_both_say_so() -> None:
    async def main() -> None:
        async with Server(App(), quiet(reuse_port=True)) as one:
            port = int(one.addresses[0].rpartition(":")[2])
            async with Server(App(), quiet(reuse_port=True, port=port)) as two:
                assert two.addresses == one.addresses

    run(main())


def test_the_backlog_and_the_owner_reach_the_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str | None]] = []
    bind_really = server_module.bind  # type: ignore[attr-defined]
    listen_really = server_module.listen  # type: ignore[attr-defined]

    def bind(binds: Any, **options: Any) -> Any:
        asked.append((options["backlog"], options["uds_owner"]))
        return bind_really(binds, **{**options, "uds_owner": None})

    def listen(factory: Any, sockets: Any, backlog: int) -> Any:
        asked.append((backlog, None))
        return listen_really(factory, sockets, backlog)

    monkeypatch.setattr(server_module, "bind", bind)
    monkeypatch.setattr(server_module, "listen", listen)

    async def main() -> None:
        async with Server(App(), quiet(backlog=7, uds_owner=":nobody")):
            pass

    run(main())
    assert asked == [(7, ":nobody"), (7, None)]


def test_the_lifespan_can_be_off_or_required() -> None:
    async def requires_http(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"

    async def main() -> None:
        app = App()
        async with Server(app, quiet(lifespan="off")) as server, client_of(server) as client:
            assert await client.get() == "stateless"
        assert app.events == ["answered /"]

        async with Server(requires_http, quiet(lifespan="auto")):
            pass
        with pytest.raises(LifespanFailed, match="AssertionError"):
            await Server(requires_http, quiet(lifespan="on")).start()

    run(main())


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


@asynccontextmanager
async def tls_client_of(server: Server, certfile: str) -> AsyncIterator[Client]:
    port = int(server.addresses[0].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(certfile))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


def test_with_a_certificate_tls_is_served_and_said_in_the_address(certificate: Options) -> None:
    async def main() -> None:
        async with Server(App(), quiet(**certificate)) as server:
            assert server.addresses[0].startswith("https://127.0.0.1:")
            assert server.redirects == []
            async with tls_client_of(server, certificate["ssl_certfile"]) as client:
                assert await client.get() == "hello"

    run(main())


def test_a_program_may_bring_its_own_context(certificate: Options) -> None:
    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate["ssl_certfile"], certificate["ssl_keyfile"])
        async with Server(App(), quiet(ssl_context=context)) as server:
            server.reload()
            async with tls_client_of(server, certificate["ssl_certfile"]) as client:
                assert await client.get() == "hello"

    run(main())


def test_tls_is_spoken_on_a_socket_file_as_well(certificate: Options, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "s")
        async with Server(App(), quiet(uds=path, **certificate)) as server:
            assert server.addresses == [f"unix:{path}"]
            reader, writer = await asyncio.open_unix_connection(
                path, ssl=trusting(certificate["ssl_certfile"]), server_hostname="127.0.0.1"
            )
            assert await Client(reader, writer).get() == "hello"
            writer.close()

    run(main())


def test_a_certificate_that_cannot_be_used_ends_the_start_before_the_application(
    certificate: Options,
) -> None:
    async def main() -> None:
        app = App()
        with pytest.raises(ConfigError) as refusal:
            await Server(app, quiet(**{**certificate, "ssl_keyfile": "/nowhere/x.key"})).start()
        assert refusal.value.option == "ssl_keyfile"
        assert app.events == []

    run(main())


def test_certificates_are_read_again_when_asked_and_open_connections_go_on(
    certificate: Options, tmp_path: Path
) -> None:
    from tests.certificates import Authority

    async def main() -> None:
        old = tmp_path / "old.pem"
        old.write_text((tmp_path / "server.pem").read_text())
        async with (
            Server(App(), quiet(**certificate)) as server,
            tls_client_of(server, str(old)) as client,
        ):
            assert await client.get() == "hello"
            Authority().issue("127.0.0.1").save(tmp_path, "server")
            server.reload()
            async with tls_client_of(server, certificate["ssl_certfile"]) as new:
                assert await new.get() == "hello"
            with pytest.raises(ssl.SSLCertVerificationError):
                async with tls_client_of(server, str(old)):
                    pass
            assert await client.get() == "hello"

    run(main())


def test_asked_to_read_certificates_again_a_server_without_any_does_nothing() -> None:
    async def main() -> None:
        server = Server(App(), quiet())
        server.reload()
        async with server:
            server.reload()

    run(main())


def test_a_server_stops_at_once_although_a_handshake_is_unfinished(certificate: Options) -> None:
    async def main() -> None:
        async with Server(App(), quiet(**certificate)) as server:
            port = int(server.addresses[0].rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"\x16\x03\x01")
            await turns()
        assert await Client(reader, writer).closed()
        writer.close()

    run(main())


async def redirected(server: Server, place: int = 0) -> tuple[bytes, str]:
    """Status line and location that the redirecting listener gives for /a?b."""
    host, _, port = server.redirects[place].removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write(f"GET /a?b HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines if line)
    assert "strict-transport-security" not in fields
    return status.encode(), fields["location"]


def test_plain_http_is_redirected_from_a_port_of_its_own(
    certificate: Options, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        caplog.set_level("INFO", "omnicorn")
        options = {"redirect_http": 0, "hsts": 60, "root_path": "/app", **certificate}
        async with Server(App(), quiet(**options)) as server:
            [address] = server.addresses
            [plain] = server.redirects
            assert plain != address.replace("https", "http")
            assert f"omnicorn redirects {plain} to https" in caplog.messages
            assert await redirected(server) == (
                b"HTTP/1.1 308 Permanent Redirect",
                f"{address}/a?b",
            )
        with pytest.raises(ConnectionRefusedError):
            await redirected(server)

    run(main())


def test_plain_http_is_redirected_on_every_host(certificate: Options) -> None:
    async def main() -> None:
        binds = ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.2:0")
        async with Server(App(), quiet(bind=binds, redirect_http=0, **certificate)) as server:
            hosts = [address.rpartition(":")[0] for address in server.redirects]
            assert hosts == ["http://127.0.0.1", "http://127.0.0.2"]

    run(main())


def test_a_redirecting_port_that_is_taken_ends_the_start(certificate: Options, taken: int) -> None:
    async def main() -> None:
        app = App()
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{taken}"):
            await Server(app, quiet(redirect_http=taken, **certificate)).start()
        assert app.events == []

    run(main())


def test_redirected_clients_are_let_finish_and_idle_ones_closed(certificate: Options) -> None:
    async def main() -> None:
        server = Server(App(), quiet(redirect_http=0, **certificate))
        await server.start()
        port = int(server.redirects[0].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await reader.readuntil(b"\n\r\n")
        await server.stop()
        assert (await reader.read()).startswith(b"This site")
        writer.close()

    run(main())


# ------------------------------------------------------------- options, as connections show them


class Memory:
    """A service made of options, on a clock moved by hand; its application, its clients."""

    def __init__(self, **options: Any) -> None:
        self.loop = ManualLoop()
        self.scopes: list[dict[str, Any]] = []
        loop: Any = self.loop
        self.service: Service = make_service(self.app, loop, Config(**options), None)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["path"] == "/hold":
            await self.loop.create_future()
        while (await receive()).get("more_body"):
            pass
        body = b"x" * (4 << 20) if scope["path"] == "/large" else b"ok"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def connect(self, host: str = "192.0.2.1") -> Peer:
        return connect(self.loop, Http1Connection(self.service), peername=(host, 50000))

    def ask(self, data: bytes, host: str = "192.0.2.1") -> bytes:
        peer = self.connect(host)
        peer.send(data)
        self.loop.run_until_idle()
        return peer.take()


@pytest.fixture
def memory() -> Iterator[Callable[..., Memory]]:
    made: list[Memory] = []

    def make(**options: Any) -> Memory:
        made.append(Memory(**options))
        return made[-1]

    yield make
    for each in made:
        each.service.cancel()
        each.loop.run_until_idle()


def request(path: str = "/", *fields: str, body: bytes = b"") -> bytes:
    method = "POST" if body else "GET"
    lines = [f"{method} {path} HTTP/1.1", "host: test", *fields]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def status_of(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("options", "within", "beyond", "status"),
    [
        ({"limit_request_line": 40}, request("/" + "a" * 20), request("/" + "a" * 40), 414),
        (
            {"limit_request_head": 200},
            request("/", "a: " + "b" * 100),
            request("/", "a: " + "b" * 200),
            431,
        ),
        ({"limit_request_fields": 2}, request("/", "a: b"), request("/", "a: b", "c: d"), 431),
        ({"limit_request_body": 4}, request(body=b"1234"), request(body=b"12345"), 413),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_peer_may_send_is_limited(
    memory: Callable[..., Memory], options: Options, within: bytes, beyond: bytes, status: int
) -> None:
    limited = memory(**options)
    assert status_of(limited.ask(within)) == 200
    assert status_of(limited.ask(beyond)) == status
    assert status_of(memory().ask(beyond)) == 200


def test_strict_transport_security_is_sent_where_it_is_configured(
    memory: Callable[..., Memory],
) -> None:
    strict = memory(dev_tls=True, hsts="max-age=60; preload").ask(request())
    assert b"\r\nstrict-transport-security: max-age=60; preload\r\n" in strict
    assert b"strict-transport" not in memory(dev_tls=True).ask(request())


def test_beyond_the_concurrency_limit_requests_get_503(memory: Callable[..., Memory]) -> None:
    limited = memory(limit_concurrency=1)
    assert limited.ask(request("/hold")) == b""
    assert status_of(limited.ask(request())) == 503

    unlimited = memory()
    assert unlimited.ask(request("/hold")) == b""
    assert status_of(unlimited.ask(request())) == 200


@pytest.mark.parametrize(
    ("options", "sent", "waits"),
    [
        ({"timeout_request_head": 2.0}, b"GET / HT", 2.0),
        ({"timeout_body": 3.0}, b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\n1", 3.0),
        ({"timeout_keep_alive": 4.0}, request(), 4.0),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_silent_peer_is_waited_for_as_long_as_configured(
    memory: Callable[..., Memory], options: Options, sent: bytes, waits: float
) -> None:
    patient = memory(**options)
    peer = patient.connect()
    peer.send(sent)
    patient.loop.run_until_idle()
    patient.loop.advance(waits - 0.1)
    assert not peer.eof
    patient.loop.advance(0.6)  # a deadline is kept to within a quarter of a second
    assert peer.eof


def test_a_peer_that_does_not_read_is_cut_when_its_time_is_over(
    memory: Callable[..., Memory],
) -> None:
    patient = memory(timeout_write=5.0)
    peer = patient.connect()
    peer.pause()
    peer.send(request("/large"))
    patient.loop.run_until_idle()
    patient.loop.advance(4.9)
    assert len(patient.service.connections) == 1
    patient.loop.advance(0.6)
    assert len(patient.service.connections) == 0


def test_the_root_path_is_in_the_scope(memory: Callable[..., Memory]) -> None:
    mounted = memory(root_path="/api")
    mounted.ask(request("/users"))
    assert mounted.scopes[0]["root_path"] == "/api"


@pytest.mark.parametrize(
    ("options", "client", "scheme"),
    [
        ({}, "203.0.113.7", "https"),
        ({"forwarded_allow_ips": ("127.0.0.0/8",)}, "203.0.113.7", "https"),
        ({"forwarded_allow_ips": ("192.0.2.9",)}, "127.0.0.1", "http"),
        ({"forwarded_allow_ips": ()}, "127.0.0.1", "http"),
        ({"proxy_headers": False}, "127.0.0.1", "http"),
    ],
)
def test_the_headers_of_trusted_proxies_alone_are_believed(
    memory: Callable[..., Memory], options: Options, client: str, scheme: str
) -> None:
    behind = memory(**options)
    fields = ("x-forwarded-for: 203.0.113.7", "x-forwarded-proto: https")
    behind.ask(request("/", *fields), "127.0.0.1")
    (scope,) = behind.scopes
    assert (scope["client"][0], scope["scheme"]) == (client, scheme)


def test_server_date_and_further_headers_are_sent_as_configured(
    memory: Callable[..., Memory],
) -> None:
    def names(**options: Any) -> set[bytes]:
        head = memory(**options).ask(request()).lower().partition(b"\r\n\r\n")[0]
        return {line.partition(b":")[0] for line in head.split(b"\r\n")[1:]}

    assert {b"server", b"date"} <= names()
    assert names() - names(server_header=False) == {b"server"}
    assert names() - names(date_header=False) == {b"date"}

    answer = memory(headers=(("X-Frame", "d\xe9ny"), ("x-two", "2"))).ask(request())
    assert b"\r\nx-frame: d\xe9ny\r\n" in answer
    assert b"\r\nx-two: 2\r\n" in answer


class Room(Memory):
    """Its application accepts WebSockets and takes messages when it is told to."""

    def __init__(self, **options: Any) -> None:
        self.took: list[dict[str, Any]] = []
        super().__init__(**options)
        self.hold = self.loop.create_future()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})
            return
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": "x" * 1000})
        await self.hold
        while self.took == [] or self.took[-1]["type"] == "websocket.receive":
            self.took.append(await receive())

    def enter(self, *fields: str) -> Peer:
        """A peer whose WebSocket is open; it has got the greeting."""
        peer = self.connect()
        peer.send(request("/ws", *HANDSHAKE, *fields))
        self.loop.run_until_idle()
        assert peer.take().startswith(SWITCHED)
        return peer

    def say(self, peer: Peer, data: bytes) -> list[tuple[int, bytes]]:
        peer.send(data)
        self.loop.run_until_idle()
        return frames(peer.take())


@pytest.fixture
def room() -> Iterator[Callable[..., Room]]:
    made: list[Room] = []

    def make(**options: Any) -> Room:
        made.append(Room(**options))
        return made[-1]

    yield make
    for each in made:
        each.service.cancel()
        each.loop.run_until_idle()


def test_websockets_can_be_off(room: Callable[..., Room]) -> None:
    for options, kind, status in (({}, "websocket", 101), ({"ws": "none"}, "http", 200)):
        served = room(**options)
        assert status_of(served.ask(request("/ws", *HANDSHAKE))) == status
        assert [scope["type"] for scope in served.scopes] == [kind]


def test_messages_are_as_large_as_configured(room: Callable[..., Room]) -> None:
    small = room(ws_max_size=10)
    assert small.say(small.enter(), frame(BINARY, b"x" * 10)) == []
    ((opcode, content),) = small.say(small.enter(), frame(BINARY, b"x" * 11))
    assert (opcode, content[:2]) == (8, (1009).to_bytes(2, "big"))
    assert b"limit 10" in content

    assert room().say(room().enter(), frame(BINARY, b"x" * 11)) == []


def test_as_many_messages_wait_as_configured(room: Callable[..., Room]) -> None:
    for options, most in (({"ws_max_queue": 3}, 3), ({}, 32)):
        served = room(**options)
        peer = served.enter()
        served.say(peer, text("a") * (most - 1))
        assert peer.transport.is_reading
        served.say(peer, text("last"))
        assert not peer.transport.is_reading


def test_pings_go_out_and_are_awaited_as_configured(room: Callable[..., Room]) -> None:
    def after(seconds: float, **options: Any) -> list[tuple[int, bytes]]:
        served = room(**options)
        peer = served.enter()
        served.loop.advance(seconds)
        return frames(peer.take())

    ping = (PING, b"omnicorn")
    late = closed(1011, "the peer does not answer pings")
    assert after(19.9) == []
    assert after(20.5) == [ping]
    assert after(39.9) == [ping]
    assert after(41.0) == [ping, *late]
    assert after(3.0, ws_ping_interval=2.5) == [ping]
    assert after(6.0, ws_ping_interval=2.5, ws_ping_timeout=3.0) == [ping, *late]
    assert after(41.0, ws_ping_timeout=0) == [ping, ping]
    assert after(1000.0, ws_ping_interval=0) == []


def test_messages_are_compressed_where_that_is_on(room: Callable[..., Room]) -> None:
    offer = "sec-websocket-extensions: permessage-deflate"
    for options, compresses in (({}, True), ({"ws_per_message_deflate": False}, False)):
        served = room(**options)
        answer = served.ask(request("/ws", *HANDSHAKE, offer))
        head, _, wire = answer.partition(b"\r\n\r\n")
        assert (b"permessage-deflate" in head) is compresses
        assert (len(wire) < 100) is compresses


def test_a_websocket_is_closed_with_1012_when_the_server_stops() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send(ACCEPT)
        began.set()
        seen.append(await receive())

    seen: list[dict[str, Any]] = []
    began = asyncio.Event()

    async def main() -> None:
        server = Server(app, quiet(lifespan="off"))
        await server.start()
        async with client_of(server) as client:
            client.writer.write(request("/ws", *HANDSHAKE))
            await began.wait()
            stopping = asyncio.ensure_future(server.stop())
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert await client.reader.readexactly(4) == b"\x88\x02\x03\xf4"
            client.writer.write(frame(8, b"\x03\xf4"))
            assert await client.closed()
            await stopping

    run(main())
    assert seen == [{"type": "websocket.disconnect", "code": 1012, "reason": ""}]


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
