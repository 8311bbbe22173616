"""One lifespan for several applications: when it is complete, and what is told of failures."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from omnicorn.middleware import Dispatcher, wsgi_to_asgi
from omnicorn.middleware.lifespans import States
from omnicorn.toolkit.lint import lint
from omnicorn.toolkit.testing import (
    CommunicatorTimeout,
    LifespanFailed,
    LifespanManager,
    LifespanNotSupported,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


class App:
    """An application with a lifespan: writes down what happens, and fails as it is told.

    Args:
        name: Its name in the log.
        log: What has happened to all of them.
        startup: The message of a failure, an exception to raise, or None.
        shutdown: As *startup*.
        before: Awaited before startup is complete.
    """

    def __init__(
        self,
        name: str,
        log: list[str],
        startup: str | Exception | None = None,
        shutdown: str | Exception | None = None,
        before: Callable[[], Coroutine[Any, Any, Any]] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.fates = {"startup": startup, "shutdown": shutdown}
        self.before = before

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        try:
            for phase, fate in self.fates.items():
                assert await receive() == {"type": f"lifespan.{phase}"}
                self.log.append(f"{self.name} {phase}")
                if self.before is not None:
                    await self.before()
                if isinstance(fate, Exception):
                    raise fate
                if fate is not None:
                    await send({"type": f"lifespan.{phase}.failed", "message": fate})
                    return
                await send({"type": f"lifespan.{phase}.complete"})
        finally:
            self.log.append(f"{self.name} ended")


def together(*apps: App, default: Any = None) -> Any:
    mounts = {f"/{app.name}": lint(app) for app in apps}
    return lint(Dispatcher(mounts, default=default))


async def lives(app: Any) -> None:
    """Start and stop an application."""
    async with LifespanManager(app, timeout=5):
        pass


async def http_alone(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise ValueError(f"no {scope['type']}")


# ------------------------------------------------------------------------------ all is well


def test_all_start_together_and_stop_in_reverse_order(run: Run) -> None:
    log: list[str] = []

    async def main() -> None:
        async with LifespanManager(together(*(App(name, log) for name in "abc"))):
            assert sorted(log) == ["a startup", "b startup", "c startup"]
            log.clear()
        stops = [line for line in log if line.endswith("shutdown")]
        assert stops == ["c shutdown", "b shutdown", "a shutdown"]
        assert sorted(line for line in log if line.endswith("ended")) == [
            *("a ended", "b ended", "c ended")
        ]

    run(main)


def test_startup_is_complete_when_the_last_is(run: Run) -> None:
    log: list[str] = []

    async def main() -> None:
        async def other_has_started() -> None:
            await until(lambda: "b startup" in log)

        # It could not start if they did so one after another.
        await lives(together(App("a", log, before=other_has_started), App("b", log)))

    run(main)


async def until(ready: Callable[[], bool]) -> None:
    """Give way until something is so."""
    for _ in range(1000):
        if ready():
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            await trio.lowlevel.checkpoint()
        else:
            await asyncio.sleep(0)
    raise AssertionError("it never came")


def test_an_application_that_is_mounted_twice_lives_once(run: Run) -> None:
    log: list[str] = []
    app = App("a", log)
    run(lambda: lives(Dispatcher({"/a": app, "/b": app, "example.org": app}, default=app)))

    assert log == ["a startup", "a shutdown", "a ended"]


def test_a_server_without_state_gets_none(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "state" not in scope
        await App("a", [])(scope, receive, send)

    async def main() -> None:
        lifespan = LifespanManager(Dispatcher({"/": app}))
        del lifespan.scope["state"]
        async with lifespan:
            assert lifespan.state == {}

    run(main)


# ------------------------------------------------------------------------------ no lifespan


def test_applications_without_a_lifespan_are_fine_beside_one_that_has_it(run: Run) -> None:
    log: list[str] = []

    async def returns(scope: Any, receive: Any, send: Any) -> None:
        return

    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        raise NotImplementedError

    mounts: dict[str, Any] = {
        "/a": App("a", log),
        "/b": http_alone,
        "/c": returns,
        "/d": wsgi_to_asgi(wsgi),
    }
    run(lambda: lives(lint(Dispatcher(mounts))))

    assert log == ["a startup", "a shutdown", "a ended"]


def test_if_none_has_a_lifespan_neither_has_the_whole(run: Run) -> None:
    async def returns(scope: Any, receive: Any, send: Any) -> None:
        return

    async def main() -> None:
        with pytest.raises(LifespanNotSupported) as caught:
            await lives(Dispatcher({"/a": http_alone}, default=returns))
        assert str(caught.value.__cause__) == (
            "no mounted application has a lifespan; /a: ValueError: no lifespan; "
            "the default: it returned"
        )
        with pytest.raises(LifespanNotSupported) as caught:
            await lives(Dispatcher({"/a": http_alone}))
        assert repr(caught.value.__cause__) == "ValueError('no lifespan')"

    run(main)


# ------------------------------------------------------------------------------ failures


def test_failures_to_start_are_gathered_and_the_others_shut_down(run: Run) -> None:
    log: list[str] = []

    async def main() -> None:
        app = together(
            App("a", log),
            App("b", log, startup="no database"),
            App("c", log, shutdown="no time"),
            App("d", log, startup=""),
        )
        with pytest.raises(LifespanFailed) as caught:
            await lives(app)
        assert str(caught.value) == (
            "the application's startup failed: /b: no database; /d: no reason given; /c: no time"
        )
        stops = [line for line in log if line.endswith("shutdown")]
        assert stops == ["c shutdown", "a shutdown"]
        assert sum(line.endswith("ended") for line in log) == 4

    run(main)


def test_what_an_application_raises_after_it_has_told_its_failure_is_told_once(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise OSError("no database")

    async def main() -> None:
        with pytest.raises(LifespanFailed, match=r"failed: /a: no database$"):
            await lives(Dispatcher({"/a": fails}))

    run(main)
    assert caplog.records == []


def test_failures_to_stop_are_gathered_and_the_others_stop(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []

    async def main() -> None:
        app = together(
            App("a", log, shutdown="still busy"),
            App("b", log),
            App("c", log, shutdown=KeyError("key")),
        )
        with pytest.raises(LifespanFailed) as caught:
            await lives(app)
        assert str(caught.value) == (
            "the application's shutdown failed: /c: KeyError: 'key'; /a: still busy"
        )
        stops = [line for line in log if line.endswith("shutdown")]
        assert stops == ["c shutdown", "b shutdown", "a shutdown"]

    run(main)
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "The lifespan of /c raised an exception"
    assert record.exc_info is not None


def test_an_application_that_ends_in_between_is_logged_and_the_others_go_on(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []

    async def dies(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise OSError("out of memory")

    async def main() -> None:
        async with LifespanManager(Dispatcher({"/a": App("a", log), "/dies": dies})):
            await until(lambda: "The lifespan of /dies" in caplog.text)
            log.clear()
        assert log == ["a shutdown", "a ended"]

    run(main)


def test_a_message_out_of_order_is_the_applications_error(run: Run) -> None:
    errors: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def wrong(kind: str) -> None:
            with pytest.raises(RuntimeError) as caught:
                await send({"type": kind})
            errors.append(str(caught.value))

        await receive()
        await wrong("lifespan.shutdown.complete")
        await send({"type": "lifespan.startup.complete"})
        await wrong("lifespan.startup.complete")
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        await wrong("lifespan.shutdown.complete")

    run(lambda: lives(Dispatcher({"/": app})))
    assert errors == [
        "the message 'lifespan.shutdown.complete' cannot be sent now: lifespan.startup waits",
        "the message 'lifespan.startup.complete' cannot be sent now: "
        "lifespan.startup.complete was the last",
        "the message 'lifespan.shutdown.complete' cannot be sent now: "
        "lifespan.shutdown.complete was the last",
    ]


# ------------------------------------------------------------------------------ cancellation


async def forever() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await trio.sleep_forever()
    await asyncio.Event().wait()


def test_a_server_that_does_not_wait_any_more_cancels_them_all(run: Run) -> None:
    log: list[str] = []

    async def main() -> None:
        app = Dispatcher({"/a": App("a", log), "/b": App("b", log, before=forever)})
        with pytest.raises(CommunicatorTimeout):
            async with LifespanManager(app, timeout=0.01):
                raise AssertionError("it cannot have started")
        assert sorted(log) == ["a ended", "a startup", "b ended", "b startup"]

    run(main)


def test_what_the_servers_send_raises_ends_them_all(run: Run) -> None:
    log: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(event: dict[str, Any]) -> None:
        raise OSError("the server is gone")

    async def main() -> None:
        app = Dispatcher({"/a": App("a", log), "/b": App("b", log)})
        with pytest.raises(OSError, match="the server is gone"):
            await app({"type": "lifespan", "state": {}}, receive, send)
        assert sorted(log) == ["a ended", "a startup", "b ended", "b startup"]

    run(main)


def test_an_application_that_asks_on_after_its_shutdown_waits_until_it_is_cancelled(
    run: Run,
) -> None:
    log: list[str] = []

    async def curious(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        try:
            await receive()
        finally:
            log.append("cancelled")

    async def main() -> None:
        with pytest.raises(CommunicatorTimeout, match=r"lifespan\.shutdown\.complete"):
            async with LifespanManager(Dispatcher({"/": curious}), timeout=0.01):
                pass

    run(main)
    assert log == ["cancelled"]


# ------------------------------------------------------------------------------ states


class Someone:
    app: Any = None
    name = "someone"


def test_what_an_application_has_filled_comes_on_top_of_what_the_request_brings() -> None:
    one, other = Someone(), Someone()
    given = {"kept": "old", "replaced": "old", "user": None}
    states = States(given, {one: {**given, "replaced": "mine", "new": "mine"}})
    brought = {"kept": "old", "replaced": "old", "user": "of this request"}

    assert states.merged(one, brought) == {
        "kept": "old",
        "replaced": "mine",
        "user": "of this request",
        "new": "mine",
    }
    assert states.merged(other, brought) == brought
    assert "new" not in brought
