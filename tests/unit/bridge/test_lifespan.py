from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.bridge.lifespan import Lifespan
from omnicorn.errors import ASGIError, LifespanFailed
from omnicorn.transports.inproc import Cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from omnicorn.transports.inproc import ManualLoop

    App = Callable[..., Awaitable[None]]

MODES = ["auto", "on"]


async def good(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert await receive() == {"type": "lifespan.startup"}
    scope["state"]["db"] = "open"
    await send({"type": "lifespan.startup.complete"})
    assert await receive() == {"type": "lifespan.shutdown"}
    scope["state"]["db"] = "closed"
    await send({"type": "lifespan.shutdown.complete"})


async def raises(scope: dict[str, Any], receive: Any, send: Any) -> None:
    raise LookupError("no database")


async def raises_after_receive(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    raise LookupError("no database")


async def returns(scope: dict[str, Any], receive: Any, send: Any) -> None:
    pass


async def fails(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def fails_and_raises(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await fails(scope, receive, send)
    raise LookupError("and so I go")


async def returns_after_start(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


async def raises_after_start(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await returns_after_start(scope, receive, send)
    raise LookupError("broken later")


async def fails_to_stop(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await returns_after_start(scope, receive, send)
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the pool is stuck"})


async def raises_while_stopping(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await returns_after_start(scope, receive, send)
    await receive()
    raise LookupError("the pool is stuck")


@pytest.mark.parametrize("mode", MODES)
def test_a_lifespan_goes_from_startup_to_shutdown_and_shares_its_state(
    loop: ManualLoop, mode: str
) -> None:
    lifespan = Lifespan(good, loop, mode)

    loop.run(lifespan.startup())
    assert lifespan.state == {"db": "open"}

    loop.run(lifespan.shutdown())
    assert lifespan.state == {"db": "closed"}


def test_the_scope_is_what_the_specification_lists(loop: ManualLoop) -> None:
    scopes: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scopes.append(dict(scope))
        await good(scope, receive, send)

    lifespan = Lifespan(app, loop)
    loop.run(lifespan.startup())

    assert scopes[0]["type"] == "lifespan"
    assert scopes[0]["asgi"] == {"version": "3.0", "spec_version": "2.0"}
    assert scopes[0]["state"] is lifespan.state
    assert set(scopes[0]) == {"type", "asgi", "state"}
    loop.run(lifespan.shutdown())


@pytest.mark.parametrize("app", [raises, raises_after_receive, returns])
def test_auto_takes_an_application_without_lifespan_for_what_it_is(
    loop: ManualLoop, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lifespan = Lifespan(app, loop, "auto")

    loop.run(lifespan.startup())
    loop.run(lifespan.shutdown())

    assert lifespan.state is None
    assert caplog.records == []


def test_auto_says_at_debug_level_why_there_is_no_lifespan(
    loop: ManualLoop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "omnicorn.lifespan")

    loop.run(Lifespan(raises, loop, "auto").startup())

    assert "no database" in caplog.text


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (raises, "raised LookupError: no database"),
        (raises_after_receive, "raised LookupError: no database"),
        (returns, "returned from its lifespan before startup was complete"),
    ],
)
def test_on_insists(loop: ManualLoop, app: App, message: str) -> None:
    lifespan = Lifespan(app, loop, "on")

    with pytest.raises(LifespanFailed, match=message) as caught:
        loop.run(lifespan.startup())

    assert isinstance(caught.value.__cause__, LookupError) == (app is not returns)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("app", [fails, fails_and_raises])
def test_startup_failed_stops_the_server_in_each_mode(
    loop: ManualLoop, mode: str, app: App
) -> None:
    with pytest.raises(LifespanFailed, match="no database"):
        loop.run(Lifespan(app, loop, mode).startup())


def test_startup_failed_without_a_message_still_says_something(loop: ManualLoop) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed"})

    with pytest.raises(LifespanFailed, match="startup failed"):
        loop.run(Lifespan(app, loop).startup())


def test_off_does_not_call_the_application(loop: ManualLoop) -> None:
    lifespan = Lifespan(raises, loop, "off")

    loop.run(lifespan.startup())
    loop.run(lifespan.shutdown())

    assert lifespan.state is None


@pytest.mark.parametrize("app", [returns_after_start, raises_after_start])
def test_an_early_end_stops_nothing_and_shutdown_does_not_hang(
    loop: ManualLoop, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    lifespan = Lifespan(app, loop, "on")

    loop.run(lifespan.startup())
    loop.run(lifespan.shutdown())

    assert lifespan.state == {}
    logged = [record.levelname for record in caplog.records]
    assert logged == (["ERROR"] if app is raises_after_start else [])


def test_shutdown_failed_carries_the_applications_words(loop: ManualLoop) -> None:
    lifespan = Lifespan(fails_to_stop, loop)
    loop.run(lifespan.startup())

    with pytest.raises(LifespanFailed, match="the pool is stuck"):
        loop.run(lifespan.shutdown())


def test_an_exception_while_stopping_is_logged_and_shutdown_ends(
    loop: ManualLoop, caplog: pytest.LogCaptureFixture
) -> None:
    lifespan = Lifespan(raises_while_stopping, loop)
    loop.run(lifespan.startup())

    loop.run(lifespan.shutdown())

    assert "the pool is stuck" in caplog.text
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_startup_waits_for_a_slow_application(loop: ManualLoop) -> None:
    ready = loop.create_future()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await ready
        await send({"type": "lifespan.startup.complete"})

    started: list[bool] = []

    async def start() -> None:
        await Lifespan(app, loop).startup()
        started.append(True)

    loop.spawn(start())
    loop.run_until_idle()
    assert started == []

    ready.set_result()
    loop.run_until_idle()
    assert started == [True]


# What may be sent, by the phase in which it is sent.
ALLOWED = {
    "startup": {"lifespan.startup.complete", "lifespan.startup.failed"},
    "shutdown": {"lifespan.shutdown.complete", "lifespan.shutdown.failed"},
}
EVENTS: list[Any] = [
    *sorted(ALLOWED["startup"] | ALLOWED["shutdown"]),
    "http.response.start",
    "lifespan.started",
    None,
]


@pytest.mark.parametrize("phase", ALLOWED)
@pytest.mark.parametrize("kind", EVENTS)
def test_messages_out_of_order_raise_in_the_application(
    loop: ManualLoop, phase: str, kind: Any
) -> None:
    outcome: list[str] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        if phase == "shutdown":
            await send({"type": "lifespan.startup.complete"})
            await receive()
        try:
            await send({"type": kind})
            outcome.append("sent")
        except ASGIError as exc:
            outcome.append(str(exc))

    lifespan = Lifespan(app, loop)
    try:
        loop.run(lifespan.startup())
        loop.run(lifespan.shutdown())
    except LifespanFailed:
        assert kind in ("lifespan.startup.failed", "lifespan.shutdown.failed")

    if kind in ALLOWED[phase]:
        assert outcome == ["sent"]
    else:
        assert outcome == [f"the message {kind!r} cannot be sent during lifespan {phase}"]


@pytest.mark.parametrize("event", [{}, None, "lifespan.startup.complete"])
def test_what_is_no_message_at_all_raises_in_the_application(loop: ManualLoop, event: Any) -> None:
    raised: list[BaseException] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            await send(event)
        except Exception as exc:
            raised.append(exc)

    loop.run(Lifespan(app, loop).startup())

    assert [type(exc) for exc in raised] == [ASGIError]


def test_a_receive_given_up_and_begun_again_gets_the_shutdown(loop: ManualLoop) -> None:
    got: list[str] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def wait() -> None:
            got.append((await receive())["type"])

        await receive()
        await send({"type": "lifespan.startup.complete"})
        impatient = loop.spawn(wait())
        await started
        impatient.cancel()
        await wait()
        await send({"type": "lifespan.shutdown.complete"})

    started = loop.create_future()
    lifespan = Lifespan(app, loop)
    loop.run(lifespan.startup())
    started.set_result()
    loop.run_until_idle()

    loop.run(lifespan.shutdown())
    assert got == ["lifespan.shutdown"]


def test_shutdown_does_not_wait_for_an_application_that_ends_without_an_answer(
    loop: ManualLoop,
) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await returns_after_start(scope, receive, send)
        await receive()

    lifespan = Lifespan(app, loop)
    loop.run(lifespan.startup())
    loop.run(lifespan.shutdown())  # would raise if it waited for ever


def test_it_starts_until_the_application_has_answered(loop: ManualLoop) -> None:
    seen: list[bool] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        seen.append(lifespan.is_starting)
        await send({"type": "lifespan.startup.complete"})
        seen.append(lifespan.is_starting)
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    lifespan = Lifespan(app, loop)
    loop.run(lifespan.startup())
    loop.run(lifespan.shutdown())
    assert seen == [True, False]
    assert not lifespan.is_starting
    assert not Lifespan(app, loop, "off").is_starting


@pytest.mark.parametrize("app", [returns, raises])
def test_one_that_has_ended_without_an_answer_does_not_start(loop: ManualLoop, app: App) -> None:
    lifespan = Lifespan(app, loop)
    loop.run(lifespan.startup())
    assert not lifespan.is_starting


def test_an_application_that_comes_late_to_receive_is_told_of_the_shutdown(
    loop: ManualLoop,
) -> None:
    busy = loop.create_future()
    got: list[str] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        await busy
        got.append((await receive())["type"])
        got.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    lifespan = Lifespan(app, loop)
    loop.run(lifespan.startup())
    ended = begin(loop, lifespan.shutdown())
    assert ended == []

    busy.set_result()
    loop.run_until_idle()
    assert got == ["lifespan.startup", "lifespan.shutdown"]
    assert ended == [None]


# ------------------------------------------------------------------------ giving up


def begin(loop: ManualLoop, work: Coroutine[Any, Any, None]) -> list[BaseException | None]:
    """Begin *work*, and run the loop; returns what will tell its end: None, or what it raised."""
    ended: list[BaseException | None] = []

    async def run() -> None:
        try:
            await work
        except LifespanFailed as exc:
            ended.append(exc)
        else:
            ended.append(None)

    loop.spawn(run())
    loop.run_until_idle()
    return ended


class Stuck:
    """An application that hangs in one phase; a deaf one does not let itself be cancelled."""

    def __init__(self, loop: ManualLoop, phase: str, *, deaf: bool = False) -> None:
        self.hold = loop.create_future()
        self.phase = phase
        self.deaf = deaf
        self.cancelled = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        for phase in ("startup", "shutdown"):
            await receive()
            while phase == self.phase and not self.hold.done():
                try:
                    await self.hold
                except Cancelled:
                    self.cancelled += 1
                    if not self.deaf:
                        raise
            await send({"type": f"lifespan.{phase}.complete"})


@pytest.mark.parametrize(("mode", "outcome"), [("auto", type(None)), ("on", LifespanFailed)])
def test_a_startup_that_is_cancelled_ends(
    loop: ManualLoop, mode: str, outcome: type[object]
) -> None:
    app = Stuck(loop, "startup")
    lifespan = Lifespan(app, loop, mode)
    ended = begin(loop, lifespan.startup())
    assert ended == []
    assert lifespan.is_starting

    lifespan.cancel()
    loop.run_until_idle()

    assert app.cancelled == 1
    assert [type(each) for each in ended] == [outcome]
    assert not lifespan.is_starting


@pytest.mark.parametrize(("mode", "outcome"), [("auto", type(None)), ("on", LifespanFailed)])
def test_a_startup_that_ignores_its_cancellation_is_abandoned(
    loop: ManualLoop, mode: str, outcome: type[object]
) -> None:
    app = Stuck(loop, "startup", deaf=True)
    lifespan = Lifespan(app, loop, mode)
    ended = begin(loop, lifespan.startup())

    lifespan.cancel()
    loop.run_until_idle()
    assert (ended, app.cancelled) == ([], 1)

    lifespan.abandon()
    loop.run_until_idle()
    assert [type(each) for each in ended] == [outcome]
    assert not lifespan.is_starting

    lifespan.abandon()  # once more does nothing
    app.hold.set_result()
    loop.run_until_idle()  # what it does now is of no interest: a shutdown is not asked for
    loop.run(lifespan.shutdown())
    assert len(ended) == 1


def test_a_shutdown_that_is_cancelled_ends(loop: ManualLoop) -> None:
    app = Stuck(loop, "shutdown")
    lifespan = Lifespan(app, loop)
    loop.run(lifespan.startup())
    ended = begin(loop, lifespan.shutdown())
    assert ended == []

    lifespan.cancel()
    loop.run_until_idle()

    assert (ended, app.cancelled) == ([None], 1)


def test_a_shutdown_that_ignores_its_cancellation_is_abandoned(loop: ManualLoop) -> None:
    app = Stuck(loop, "shutdown", deaf=True)
    lifespan = Lifespan(app, loop)
    loop.run(lifespan.startup())
    ended = begin(loop, lifespan.shutdown())
    lifespan.cancel()
    loop.run_until_idle()
    assert (ended, app.cancelled) == ([], 1)

    lifespan.abandon()
    loop.run_until_idle()
    assert ended == [None]
    app.hold.set_result()
    loop.run_until_idle()


def test_before_and_after_its_life_there_is_nothing_to_cancel(loop: ManualLoop) -> None:
    lifespan = Lifespan(good, loop)
    lifespan.cancel()
    loop.run(lifespan.startup())
    loop.run(lifespan.shutdown())
    lifespan.cancel()
    loop.run_until_idle()
