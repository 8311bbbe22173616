"""Who tells a server to stop, on each event loop, in this very process: every signal here is sent
to ourselves.

While a test runs, SIGINT and SIGTERM go to `strays`, so that one which the server does not take
fails a test instead of ending the run.
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
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from tests.stage import LIBRARIES, Errand, Stage, client_of, perform, refused, turns

import omnicorn
import omnicorn.asyncio
import omnicorn.trio
from omnicorn.config import Config
from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.runtime.hosts import hosting
from omnicorn.runtime.serving import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.stage import Client, Play

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(params=LIBRARIES)
def play(request: pytest.FixtureRequest) -> Play:
    """Runs a scenario on each library."""
    return partial(perform, request.param)


def kill(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in SIGNALS]


class App:
    """Notes in `events` what happens to it; a request waits until it is told to end."""

    def __init__(self, *, startup: bool = True, shutdown: bool = True) -> None:
        self.events: list[str] = []
        self.began = anyio.Event()
        """A request, or what hangs of the lifespan, has begun."""
        self.release = anyio.Event()
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
        self.events.append((await receive())["type"])
        if not self.stops:
            await self.hang("shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    async def hang(self, what: str) -> None:
        self.began.set()
        try:
            await self.release.wait()
        except anyio.get_cancelled_exc_class():
            self.events.append(f"{what} cancelled")
            raise


STARTED_AND_STOPPED = ["lifespan.startup", "lifespan.shutdown"]


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


def quiet(**options: Any) -> Config:
    """Any free port, no access log, and less patience than the test has."""
    return Config(**{"port": 0, "access_log": False, "timeout_graceful_shutdown": 3.0, **options})


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


class Serving(Errand):
    """A call of `serve`; it is its own ``task_status``.

    Attributes:
        urls: Where it listens, once it does.
    """

    urls: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.urls = []

    def started(self, urls: list[str], /) -> None:
        self.urls = urls


@asynccontextmanager
async def serving(
    stage: Stage, app: Any, config: Config | None = None, *, signals: bool = True, **more: Any
) -> AsyncIterator[Serving]:
    """A call of `serve` that listens already."""
    task = Serving()
    call = partial(serve, app, config or quiet(), signals=signals, task_status=task, **more)
    stage.begin(call, errand=task)
    await stage.until(lambda: task.urls or task.done)
    try:
        yield task
    finally:
        task.cancel()
        await stage.until(lambda: task.done)


@asynccontextmanager
async def asking(task: Serving, app: App) -> AsyncIterator[Client]:
    """A client of that server, whose request is with the application."""
    async with client_of(task.urls[0]) as client:
        await client.ask()
        await app.began.wait()
        yield client


async def answered(client: Client) -> bool:
    return (await client.head()).startswith("HTTP/1.1 204 ")


# ------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_lets_requests_finish_and_the_handlers_are_put_back(
    play: Play, number: int, strays: list[int]
) -> None:
    async def main(stage: Stage) -> None:
        before = handlers()
        app = App()
        async with serving(stage, app) as task, asking(task, app) as client:
            kill(number)
            await turns()
            assert not task.done
            app.release.set()
            assert await answered(client)
            await task.end()
        assert app.events == STARTED_AND_STOPPED
        assert handlers() == before

    play(main)
    assert strays == []
    kill(number)
    assert strays == [number]


def test_a_second_signal_cancels_the_requests_and_still_shuts_down(
    play: Play, strays: list[int]
) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        async with serving(stage, app) as task, asking(task, app) as client:
            kill()
            await turns()
            assert await refused(task.urls[0])
            assert app.events == ["lifespan.startup"]
            kill(signal.SIGINT)
            await task.end()
            assert await client.rest() == b""
        assert app.events == ["lifespan.startup", "request cancelled", "lifespan.shutdown"]

    play(main)
    assert strays == []


def test_a_second_signal_cancels_a_shutdown_that_hangs(play: Play, strays: list[int]) -> None:
    async def main(stage: Stage) -> None:
        app = App(shutdown=False)
        async with serving(stage, app) as task:
            kill()
            await app.began.wait()
            assert not task.done
            kill()
            await task.end()
        assert app.events == [*STARTED_AND_STOPPED, "shutdown cancelled"]

    play(main)
    assert strays == []


def test_a_signal_ends_a_startup_that_hangs(
    play: Play, strays: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async def main(stage: Stage) -> None:
        app = App(startup=False)
        task = stage.begin(partial(serve, app, quiet(), signals=True))
        await app.began.wait()
        kill()
        await task.end()
        assert app.events == ["lifespan.startup", "startup cancelled"]

    play(main)
    assert strays == []
    assert "The start was given up" in caplog.messages


def test_a_second_signal_ends_a_startup_that_ignores_its_cancellation(
    play: Play, strays: list[int]
) -> None:
    async def main(stage: Stage) -> None:
        began, release = anyio.Event(), anyio.Event()

        async def deaf(scope: Any, receive: Any, send: Any) -> None:
            began.set()
            while not release.is_set():
                try:
                    with anyio.CancelScope(shield=True):
                        await release.wait()
                except anyio.get_cancelled_exc_class():
                    pass  # asyncio's, which no shield keeps out

        before = handlers()
        task = stage.begin(partial(serve, deaf, quiet(), signals=True))
        await began.wait()
        kill()
        await turns()
        assert not task.done
        kill()
        # The handlers are back; what is left is the application, which trio waits for.
        await stage.until(lambda: handlers() == before)
        release.set()
        await task.end()

    play(main)
    assert strays == []


def test_without_being_asked_signals_are_left_alone(play: Play, strays: list[int]) -> None:
    async def main(stage: Stage) -> None:
        before = handlers()
        async with serving(stage, App(), signals=False) as task:
            assert handlers() == before
            kill()
            kill(signal.SIGINT)
            await turns()
            assert not task.done
        assert handlers() == before

    play(main)
    assert strays == [signal.SIGTERM, signal.SIGINT]


def test_the_librarys_own_handler_of_sigint_is_put_back_and_nothing_escapes(play: Play) -> None:
    """With Python's handler in place, both trio and asyncio set one of their own."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    async def main(stage: Stage) -> None:
        own = signal.getsignal(signal.SIGINT)
        assert own is not signal.default_int_handler
        app = App()
        async with serving(stage, app) as task, asking(task, app) as client:
            assert signal.getsignal(signal.SIGINT) is not own
            kill(signal.SIGINT)
            await turns()
            app.release.set()
            assert await answered(client)
            await task.end()
        assert signal.getsignal(signal.SIGINT) is own
        assert app.events == STARTED_AND_STOPPED

    play(main)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_servers_that_all_listen_to_signals_may_end_in_any_order(
    play: Play, strays: list[int]
) -> None:
    async def main(stage: Stage) -> None:
        before = handlers()
        one, two = App(), App()
        async with serving(stage, one) as first, serving(stage, two) as second:
            first.cancel()
            await first.end()
            assert not second.done
            kill()
            await second.end()
        assert two.events == STARTED_AND_STOPPED
        assert handlers() == before

    play(main)
    assert strays == []
    kill()
    assert strays == [signal.SIGTERM]


def test_a_loop_without_signal_handlers_is_stopped_by_pythons_own(strays: list[int]) -> None:
    class LikeWindows(asyncio.SelectorEventLoop):
        def add_signal_handler(self, *_: Any) -> None:  # type: ignore[override]
            raise NotImplementedError

        def remove_signal_handler(self, sig: int) -> bool:
            raise NotImplementedError

    async def main() -> None:
        before = handlers()
        app = App()
        async with asyncio.timeout(5), hosting() as host:
            stage = Stage("asyncio", host, None)
            async with serving(stage, app) as task:
                kill()
                await task.end()
        assert app.events == STARTED_AND_STOPPED
        assert handlers() == before

    with asyncio.Runner(loop_factory=LikeWindows) as runner:
        runner.run(main())
    assert strays == []


def test_a_handler_that_the_program_gave_the_loop_is_put_back(strays: list[int]) -> None:
    async def main(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        own: list[int] = []
        loop.add_signal_handler(signal.SIGTERM, own.append, 1)
        try:
            async with serving(stage, App()):
                pass
            assert own == []
            kill()
            await turns()
            assert own == [1]
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    perform("asyncio", main)


@pytest.mark.parametrize("how", ["cancellation", "trigger"])
def test_in_another_thread_it_serves_without_signals(
    play: Play, how: str, strays: list[int]
) -> None:
    before = handlers()
    during: list[Any] = []
    app = App()
    errors: list[BaseException] = []

    async def main(stage: Stage) -> None:
        over = anyio.Event()
        async with serving(stage, app, shutdown_trigger=over.wait) as task:
            during.extend(handlers())
            if how == "trigger":
                over.set()
            else:
                task.cancel()
            await task.end()
            assert task.was_cancelled is (how == "cancellation")

    def run() -> None:
        try:
            play(main)
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert errors == []
    assert during == before
    assert app.events == STARTED_AND_STOPPED


def test_a_handler_that_was_not_set_from_python_cannot_be_put_back(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None)

    async def main(stage: Stage) -> None:
        app = App()
        async with serving(stage, app) as task:
            kill()
            await task.end()
        assert app.events == STARTED_AND_STOPPED

    play(main)
    assert all(callable(really(number)) for number in SIGNALS)  # the server's, still


# -------------------------------------------------------------------------------- cancellation


def test_cancelling_the_serving_task_lets_requests_finish_first(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        async with serving(stage, app) as task, asking(task, app) as client:
            task.cancel()
            await turns()
            assert await refused(task.urls[0])
            assert not task.done
            assert app.events == ["lifespan.startup"]
            app.release.set()
            assert await answered(client)
            await task.end()
            assert task.was_cancelled
        assert app.events == STARTED_AND_STOPPED

    play(main)


def test_a_cancelled_server_leaves_its_port_free(play: Play) -> None:
    async def main(stage: Stage) -> None:
        async with serving(stage, App()) as task:
            task.cancel()
            await task.end()
        port = int(task.urls[0].rpartition(":")[2])
        with socket.socket() as again:
            again.bind(("127.0.0.1", port))
        async with serving(stage, App(), quiet(port=port)) as task:
            assert task.urls == [f"http://127.0.0.1:{port}"]

    play(main)


def test_cancelling_the_serving_task_ends_a_startup_that_hangs(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App(startup=False)
        task = stage.begin(partial(serve, app, quiet(), signals=True))
        await app.began.wait()
        task.cancel()
        await task.end()
        assert task.was_cancelled
        await turns()
        assert app.events == ["lifespan.startup", "startup cancelled"]

    play(main)


@pytest.mark.parametrize("library", ["asyncio", "uvloop"])
def test_a_second_cancellation_hurries(library: str) -> None:
    """trio knows no second one."""

    async def main(stage: Stage) -> None:
        app = App(shutdown=False)
        async with serving(stage, app, quiet(timeout_graceful_shutdown=5)) as task:
            async with asking(task, app) as client:
                task.cancel()
                await turns()
                assert app.events == ["lifespan.startup"]
                task.cancel()
                with anyio.fail_after(2):
                    assert await client.rest() == b""
            await stage.until(lambda: app.events[-1] == "lifespan.shutdown")
            assert not task.done
            task.cancel()
            await task.end()
            assert task.was_cancelled
        assert app.events[1:] == ["request cancelled", "lifespan.shutdown", "shutdown cancelled"]

    perform(library, main)


@pytest.mark.parametrize("how", ["cancellation", "trigger"])
def test_one_signal_hurries_a_server_that_stops_already(
    play: Play, how: str, strays: list[int]
) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        over = anyio.Event()
        trigger = over.wait if how == "trigger" else None
        config = quiet(timeout_graceful_shutdown=5)
        async with serving(stage, app, config, shutdown_trigger=trigger) as task:
            async with asking(task, app) as client:
                if how == "trigger":
                    over.set()
                else:
                    task.cancel()
                await turns()
                assert await refused(task.urls[0])
                kill()
                with anyio.fail_after(2):
                    assert await client.rest() == b""
            await task.end()
        assert app.events == ["lifespan.startup", "request cancelled", "lifespan.shutdown"]

    play(main)
    assert strays == []


def test_a_group_of_anyio_that_is_cancelled_lets_requests_finish_first(play: Play) -> None:
    """On asyncio, anyio cancels a task again and again, until it obeys."""

    async def main(stage: Stage) -> None:
        app = App()
        task = Serving()
        call = partial(serve, app, quiet(), task_status=task)
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await stage.until(lambda: task.urls)
            async with asking(task, app) as client:
                group.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await turns()
                    app.release.set()
                    assert await answered(client)
        assert app.events == STARTED_AND_STOPPED

    play(main)


# ------------------------------------------------------------------------------ the trigger


class Trigger:
    """Asynchronous when called."""

    def __init__(self, over: anyio.Event) -> None:
        self.over = over

    async def __call__(self) -> str:
        await self.over.wait()
        return "whatever"


@pytest.mark.parametrize("kind", ["method", "function", "partial", "object", "awaitable"])
def test_the_end_of_the_trigger_is_the_servers_whatever_it_is(play: Play, kind: str) -> None:
    async def main(stage: Stage) -> None:
        over = anyio.Event()

        async def wait(number: int = 1) -> None:
            await over.wait()

        kinds: dict[str, Any] = {
            "method": over.wait,
            "function": wait,
            "partial": partial(wait, 2),
            "object": Trigger(over),
            "awaitable": lambda: wait(),
        }
        app = App()
        async with (
            serving(stage, app, signals=False, shutdown_trigger=kinds[kind]) as task,
            asking(task, app) as client,
        ):
            over.set()
            await turns()
            assert await refused(task.urls[0])
            assert not task.done
            app.release.set()
            assert await answered(client)
            await task.end()
            assert not task.was_cancelled
        assert app.events == STARTED_AND_STOPPED

    play(main)


def test_a_trigger_that_has_happened_already_stops_the_server_in_order(play: Play) -> None:
    async def at_once() -> None:
        pass

    async def main(stage: Stage) -> None:
        app = App()
        await serve(app, quiet(), shutdown_trigger=at_once)
        assert app.events == STARTED_AND_STOPPED

    play(main)


def test_what_the_trigger_raises_is_raised_after_the_stop(play: Play) -> None:
    async def main(stage: Stage) -> None:
        over = anyio.Event()

        async def wait() -> None:
            await over.wait()
            raise ZeroDivisionError

        app = App()
        async with (
            serving(stage, app, shutdown_trigger=wait) as task,
            asking(task, app) as client,
        ):
            over.set()
            await turns()
            assert not task.done
            app.release.set()
            assert await answered(client)
            with pytest.raises(ZeroDivisionError):
                await task.end()
        assert app.events == STARTED_AND_STOPPED

        with pytest.raises(TypeError, match="NoneType"):
            await serve(App(), quiet(), shutdown_trigger=lambda: None)  # type: ignore[arg-type, return-value]

    play(main)


def test_a_server_that_ends_otherwise_cancels_the_trigger(play: Play) -> None:
    async def main(stage: Stage) -> None:
        ended: list[str] = []

        async def wait() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                ended.append("trigger")

        async with serving(stage, App(), shutdown_trigger=wait) as task:
            await turns()
            kill()
            await task.end()
            assert ended == ["trigger"]

    play(main)


def test_the_trigger_is_called_once_the_server_listens(play: Play) -> None:
    async def main(stage: Stage) -> None:
        app = App()
        seen: list[list[str]] = []

        async def trigger() -> None:
            seen.append(list(app.events))

        await serve(app, quiet(), shutdown_trigger=trigger)
        assert seen == [["lifespan.startup"]]

        with pytest.raises(LifespanFailed):
            await serve(refusing, quiet(), shutdown_trigger=trigger)
        assert len(seen) == 1

    play(main)


# ------------------------------------------------------------------------------- embedding


def test_the_names_under_which_it_is_known_are_one() -> None:
    assert omnicorn.serve is omnicorn.asyncio.serve is omnicorn.trio.serve is serve


def test_a_nursery_gets_the_urls_when_the_server_listens() -> None:
    async def main(stage: Stage) -> None:
        app = App()
        config = quiet(bind=["127.0.0.1:0", "127.0.0.1:0"])
        async with trio.open_nursery() as nursery:
            urls = await nursery.start(omnicorn.trio.serve, app, config)
            assert len(set(urls)) == 2
            for url in urls:
                assert url.startswith("http://127.0.0.1:") and not url.endswith(":0")
                assert not await refused(url)
            nursery.cancel_scope.cancel()
        assert app.events == STARTED_AND_STOPPED

    perform("trio", main)


def test_a_start_that_fails_comes_out_of_the_nursery_as_it_is() -> None:
    async def main(stage: Stage) -> None:
        async with trio.open_nursery() as nursery:
            with pytest.raises(LifespanFailed, match="no database"):
                await nursery.start(omnicorn.trio.serve, refusing, quiet())
            with pytest.raises(ConfigError, match="no application is given"):
                await nursery.start(omnicorn.trio.serve)
            with trio.move_on_after(0.01) as patience:
                await nursery.start(omnicorn.trio.serve, App(startup=False), quiet())
            assert patience.cancelled_caught

    perform("trio", main)


def test_servers_live_and_end_side_by_side_in_one_loop(play: Play) -> None:
    async def main(stage: Stage) -> None:
        one, two = App(), App()
        async with (
            serving(stage, one, signals=False) as first,
            serving(stage, two, signals=False) as second,
            asking(first, one) as client,
            asking(second, two) as other,
        ):
            second.cancel()
            await turns()
            assert await refused(second.urls[0])
            assert not await refused(first.urls[0])
            two.release.set()
            assert await answered(other)
            await second.end()
            assert two.events == STARTED_AND_STOPPED
            assert one.events == ["lifespan.startup"]
            one.release.set()
            assert await answered(client)
        assert one.events == STARTED_AND_STOPPED

    play(main)


def test_the_interface_can_be_said(play: Play) -> None:
    def either(first: Any, second: Any = None) -> Any:
        second("200 OK", [("content-length", "2")])
        return [b"ok"]

    async def main(stage: Stage) -> None:
        with pytest.raises(ConfigError, match="--interface"):
            await serve(either, quiet())
        async with (
            serving(stage, either, mode="wsgi") as task,
            client_of(task.urls[0]) as client,
        ):
            assert await client.get() == "ok"

    play(main)


def test_serve_raises_what_kept_it_from_starting_and_puts_the_handlers_back(
    play: Play, strays: list[int]
) -> None:
    async def main(stage: Stage) -> None:
        with pytest.raises(LifespanFailed, match=r"^no database$"):
            await serve(refusing, quiet(), signals=True)
        with pytest.raises(ConfigError, match="no application is given"):
            await serve(None, quiet(), signals=True)

    play(main)
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
    play: Play,
    certificate: dict[str, str],
    hangups: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "omnicorn")

    async def main(stage: Stage) -> None:
        async with serving(stage, App(), quiet(**certificate)) as task:
            kill(signal.SIGHUP)
            await turns()
            assert not task.done
            assert any("certificates are read again" in line for line in caplog.messages)

    play(main)
    assert hangups == []
    kill(signal.SIGHUP)
    assert hangups == [signal.SIGHUP]


def test_without_certificates_of_its_own_a_server_leaves_sighup_alone(
    play: Play, certificate: dict[str, str], hangups: list[int]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate["ssl_certfile"], certificate["ssl_keyfile"])

    async def main(stage: Stage) -> None:
        for config in (quiet(), quiet(ssl_context=context)):
            async with serving(stage, App(), config):
                kill(signal.SIGHUP)

    play(main)
    assert hangups == [signal.SIGHUP] * 2


def test_while_hosts_have_certificates_names_that_are_none_leave_no_traceback(
    play: Play, certificate: dict[str, str]
) -> None:
    async def main(stage: Stage) -> None:
        before = sys.unraisablehook
        sni = [("a.example", certificate["ssl_certfile"], certificate["ssl_keyfile"])]
        async with serving(stage, App(), quiet(ssl_sni=sni, **certificate)):
            assert sys.unraisablehook is not before
        assert sys.unraisablehook is before

    play(main)
