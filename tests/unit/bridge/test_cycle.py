"""An application's turn, apart from any type of scope: a `Turn` whose messages do nothing.

What the two real subclasses make of it is in ``test_http.py`` and ``test_websocket.py``.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import Call

from omnicorn.bridge.cycle import DONE, GONE, START, Cycle, wake
from omnicorn.errors import ASGIError, ClientDisconnected
from omnicorn.transports.inproc import Cancelled, ManualLoop, ManualWaiter

if TYPE_CHECKING:
    from collections.abc import Callable

RETURNED = ASGIError("returned too early")


class Wire:
    """The `Stream` of a response that nobody reads, and the `Carrier`."""

    def __init__(self, loop: ManualLoop) -> None:
        self.loop = loop
        self.said: list[tuple[Any, ...]] = []
        self.ends: list[tuple[Any, BaseException | None]] = []

    def send_head(self, *head: Any) -> None:
        self.said.append(head)

    def send_data(self, *data: Any) -> bool:
        self.said.append(data)
        return True

    def on_cycle_end(self, cycle: Any, error: BaseException | None) -> None:
        assert cycle.finished
        self.ends.append((cycle, error))


class Turn(Cycle):
    """Its application is told of a disconnect by `receive`, and waits for room in `send`."""

    __slots__ = ("given_up", "stumbles")

    def __init__(self, wire: Any, app: Any, phase: int = START) -> None:
        super().__init__(app, {"path": "/"}, wire, wire)
        self._phase = phase
        self.given_up: list[BaseException | None] = []
        self.stumbles = False

    async def receive(self) -> dict[str, Any]:
        await self._wait_to_read()
        self._told = True
        return {"type": "disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        await self._wait_to_write()

    def _unfinished(self) -> ASGIError | None:
        return RETURNED

    def _give_up(self, error: BaseException | None) -> None:
        self.given_up.append(error)
        self._phase = GONE
        if self.stumbles:
            raise RuntimeError("stumbled")

    def start(self) -> Turn:
        self.task = self._carrier.loop.spawn(self.run())
        return self

    def go(self, phase: int) -> None:
        self._phase = phase


class Played:
    def __init__(self, eager: bool) -> None:
        self.loop = ManualLoop(eager=eager)
        self.wire = Wire(self.loop)

    def turn(self, app: Any, phase: int = START) -> Turn:
        return Turn(self.wire, app, phase)

    def run(self, app: Any, phase: int = START) -> Turn:
        turn = self.turn(app, phase).start()
        self.loop.run_until_idle()
        return turn

    @property
    def errors(self) -> list[BaseException | None]:
        """What was the application's own fault, for each end."""
        return [error for _, error in self.wire.ends]


@pytest.fixture
def played(eager: bool) -> Played:
    return Played(eager)


async def returns(scope: Any, receive: Any, send: Any) -> None:
    pass


async def waits(scope: Any, receive: Any, send: Any) -> None:
    await receive()


def raising(*errors: BaseException) -> Callable[..., Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise errors[0]

    return app


# ---------------------------------------------------------------- the end


def test_an_application_is_called_with_scope_and_both_channels(played: Played) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((scope, receive, send))

    turn = played.run(app, DONE)
    assert seen == [turn.scope, turn.receive, turn.send]


def test_an_exchange_that_is_left_unfinished_is_finished_for_it(played: Played) -> None:
    turn = played.run(returns)

    assert turn.given_up == [RETURNED]
    assert played.wire.ends == [(turn, RETURNED)]


@pytest.mark.parametrize("phase", [DONE, GONE])
def test_an_exchange_that_is_over_is_left_alone(played: Played, phase: int) -> None:
    turn = played.run(returns, phase)

    assert turn.given_up == []
    assert played.wire.ends == [(turn, None)]


@pytest.mark.parametrize("result", [0, False, "", [], "done"])
def test_what_an_application_returns_is_an_error(played: Played, result: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> Any:
        return result

    played.run(app, DONE)

    (error,) = played.errors
    assert type(error) is ASGIError
    assert str(error) == f"the application returned {result!r} instead of None"


def test_an_exception_is_the_error_and_the_exchange_ends_with_it(played: Played) -> None:
    bug = LookupError("a bug")
    turn = played.run(raising(bug))

    assert turn.given_up == [bug]
    assert played.errors == [bug]


def test_the_end_is_told_also_where_finishing_fails(played: Played) -> None:
    turn = played.turn(returns)
    turn.stumbles = True
    with pytest.raises(RuntimeError, match="stumbled"):
        turn.start()._carrier.loop.run_until_idle()

    assert turn.finished
    assert played.wire.ends == [(turn, RETURNED)]


class Stop(BaseException):
    """As KeyboardInterrupt: not the application's to catch."""


def test_what_is_no_exception_goes_on_to_the_loop(played: Played) -> None:
    stop = Stop()
    with pytest.raises(Stop):
        played.run(raising(stop))

    assert played.errors == [stop]


def test_a_cancellation_that_nobody_here_asked_for_is_an_error(played: Played) -> None:
    turn = played.run(waits)
    assert turn.task is not None
    turn.task.cancel()
    played.loop.run_until_idle()

    (error,) = played.errors
    assert type(error) is Cancelled
    assert turn.given_up == [error]


# ---------------------------------------------------------------- cancel


def test_cancelling_ends_it_once_and_is_nobodys_fault(played: Played) -> None:
    turn = played.run(waits)
    turn.cancel()
    turn.cancel()
    played.loop.run_until_idle()
    turn.cancel()
    played.loop.run_until_idle()

    assert turn.finished
    assert turn.given_up == [None]
    assert played.wire.ends == [(turn, None)]


def test_one_cancelled_before_its_first_step_has_ended() -> None:
    played = Played(eager=False)
    turn = played.turn(waits).start()
    turn.cancel()
    assert played.wire.ends == [(turn, None)]

    played.loop.run_until_idle()
    turn.cancel()
    assert played.wire.ends == [(turn, None)]
    assert turn.given_up == []


def test_one_that_was_never_started_has_nothing_to_cancel(played: Played) -> None:
    played.turn(waits).cancel()

    assert played.wire.ends == []


def test_a_bug_in_the_clean_up_of_a_cancelled_one_is_an_error(played: Played) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        finally:
            raise LookupError("a bug")

    turn = played.run(app)
    turn.cancel()
    played.loop.run_until_idle()

    assert [repr(error) for error in played.errors] == ["LookupError('a bug')"]


def test_one_that_takes_its_time_ends_when_it_does(played: Played) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        except Cancelled:
            await later

    later = played.loop.create_future()
    turn = played.run(app, DONE)
    turn.cancel()
    played.loop.run_until_idle()
    assert played.wire.ends == []

    later.set_result()
    played.loop.run_until_idle()
    assert played.wire.ends == [(turn, None)]


# ---------------------------------------------------------------- who left


class ClientDisconnect(Exception):
    """As frameworks have one."""


class Unrelated(Exception):
    pass


def chained(error: BaseException, *, cause: Any = None, context: Any = None) -> BaseException:
    error.__cause__ = cause
    error.__context__ = context
    return error


GONE_AWAY = ClientDisconnected("gone")
LEFT = "only the peer's leaving"
TOLD = "only where receive() has said so"
BUG = "a bug"
CASES: dict[str, tuple[BaseException, str]] = {
    "ours": (ClientDisconnected("gone"), LEFT),
    "a group of ours": (ExceptionGroup("", [ClientDisconnected(""), ClientDisconnected("")]), LEFT),
    "groups in groups": (ExceptionGroup("", [ExceptionGroup("", [ClientDisconnected("")])]), LEFT),
    "a group with a bug": (ExceptionGroup("", [ClientDisconnected(""), Unrelated()]), BUG),
    "caused by ours": (chained(Unrelated(), cause=GONE_AWAY), LEFT),
    "caused by a bug": (chained(ClientDisconnect(), cause=Unrelated()), BUG),
    "named so, while ours was handled": (chained(ClientDisconnect(), context=GONE_AWAY), LEFT),
    "named so, while a bug was handled": (chained(ClientDisconnect(), context=Unrelated()), TOLD),
    "named so, alone": (ClientDisconnect(), TOLD),
    "a group of those named so": (ExceptionGroup("", [ClientDisconnect()]), TOLD),
    "a bug while ours was handled": (chained(Unrelated(), context=GONE_AWAY), BUG),
    "another OSError": (ConnectionResetError(), BUG),
    "a bug": (Unrelated(), BUG),
}


@pytest.mark.parametrize("told", [False, True], ids=["gone", "gone and told"])
@pytest.mark.parametrize("name", CASES)
def test_what_only_says_that_the_peer_has_left_is_no_error(name: str, told: bool) -> None:
    error, kind = CASES[name]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if told:
            await receive()
        else:
            await later
        raise error

    played = Played(eager=False)
    later = played.loop.create_future()
    turn = played.run(app)
    turn.go(GONE)
    turn._wake()
    later.set_result()
    played.loop.run_until_idle()

    no_error = kind == LEFT or (kind == TOLD and told)
    assert played.errors == [None if no_error else error]
    assert turn.given_up == []


@pytest.mark.parametrize("name", CASES)
def test_while_the_peer_is_there_every_exception_is_an_error(name: str) -> None:
    played = Played(eager=False)
    error, _ = CASES[name]
    turn = played.run(raising(error))

    assert played.errors == turn.given_up == [error]


# ---------------------------------------------------------------- answering in its place


def test_a_refusal_is_a_whole_response_that_closes_the_connection(played: Played) -> None:
    turn = played.turn(returns)
    waiting = Call(played.loop, turn.receive())
    played.loop.run_until_idle()
    turn.refuse(503, b"Service Unavailable", [(b"retry-after", b"1")])
    played.loop.run_until_idle()

    fields = [
        (b"retry-after", b"1"),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"19"),
        (b"connection", b"close"),
    ]
    assert played.wire.said == [(503, fields), (b"Service Unavailable", True)]
    assert (turn.status, turn.sent, turn.response_headers) == (503, 19, fields)
    assert waiting.done


# ---------------------------------------------------------------- waiting


def test_writers_go_on_when_the_peer_reads_and_raise_when_it_has_left(played: Played) -> None:
    turn = played.turn(returns)
    turn.on_writable()  # nobody waits
    calls = [Call(played.loop, turn.send({})) for _ in range(3)]
    played.loop.run_until_idle()
    calls[1].task.cancel()
    played.loop.run_until_idle()
    turn.on_writable()
    turn.on_writable()  # they are awake, and have not run yet
    played.loop.run_until_idle()
    assert [(call.done, call.error) for call in (calls[0], calls[2])] == [(True, None)] * 2

    last = Call(played.loop, turn.send({}))
    played.loop.run_until_idle()
    turn.go(GONE)
    turn.on_writable()
    played.loop.run_until_idle()
    assert type(last.error) is ClientDisconnected


def test_waking_leaves_those_alone_who_are_awake() -> None:
    """Whether a waiter is done after its task was cancelled differs between loops."""
    waiters = [ManualWaiter(), ManualWaiter()]
    waiters[0].set_result()
    wake(waiters)  # type: ignore[arg-type]

    assert [waiter.done() for waiter in waiters] == [True, True]


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise LookupError("a bug")


@pytest.mark.usefixtures("garbage")
@pytest.mark.parametrize("app", [returns, fails])
def test_a_turn_that_is_over_is_freed_at_once(played: Played, app: Any) -> None:
    """Not by the garbage collector, although its error's traceback holds the frame of `run`."""
    turn = played.run(app)
    turn.cancel()
    played.loop.run_until_idle()
    assert turn.finished
    turn.given_up.clear()
    played.wire.ends.clear()
    del turn

    assert [held for held in gc.get_objects() if type(held) is Turn] == []
