"""`LifespanManager` on asyncio and trio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import trio

from omnicorn.toolkit.testing import (
    CommunicatorError,
    CommunicatorTimeout,
    HTTPCommunicator,
    LifespanFailed,
    LifespanManager,
    LifespanNotSupported,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]

NOW = 0.001  # seconds, where something is known not to come
COMPLETE = {"type": "lifespan.startup.complete"}


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    if request.param == "trio":
        return trio.run
    return lambda main: asyncio.run(main())


async def good(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": scope["state"]["db"].encode()})
        return
    assert await receive() == {"type": "lifespan.startup"}
    scope["state"]["db"] = "open"
    await send(COMPLETE)
    assert await receive() == {"type": "lifespan.shutdown"}
    scope["state"]["db"] = "closed"
    await send({"type": "lifespan.shutdown.complete"})


async def none(scope: Any, receive: Any, send: Any) -> None:
    raise LookupError(scope["type"])


async def returns(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def silent(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await receive()


async def cannot_start(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
    raise LookupError("besides")


async def cannot_stop(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(COMPLETE)
    await receive()
    await send({"type": "lifespan.shutdown.failed"})


async def breaks(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(COMPLETE)
    raise LookupError("broken")


async def breaks_late(scope: Any, receive: Any, send: Any) -> None:
    await good(scope, receive, send)
    raise LookupError("broken late")


async def within(app: Any, **options: Any) -> LifespanManager:
    async with LifespanManager(app, **options) as lifespan:
        assert await lifespan.receive_nothing(NOW)
    return lifespan


def test_the_application_lives_for_the_block(run: Run) -> None:
    async def main() -> None:
        async with LifespanManager(good) as lifespan:
            assert lifespan.supported
            assert lifespan.state == {"db": "open"}
            response = await HTTPCommunicator(good, state=lifespan.state).get_response()
            assert response.body == b"open"
        assert lifespan.state == {"db": "closed"}

    run(main)


def test_it_stops_after_an_exception_of_the_test(run: Run) -> None:
    managers = []

    async def main() -> None:
        async with LifespanManager(good) as lifespan:
            managers.append(lifespan)
            raise LookupError("of the test")

    with pytest.raises(LookupError, match="of the test"):
        run(main)
    assert managers[0].state == {"db": "closed"}


def test_what_ends_the_test_at_once_does_not_wait_for_a_shutdown(run: Run) -> None:
    class Interrupt(BaseException):
        pass

    managers = []

    async def main() -> None:
        async with LifespanManager(good) as lifespan:
            managers.append(lifespan)
            raise Interrupt

    with pytest.raises(Interrupt):
        run(main)
    assert managers[0].state == {"db": "open"}


def test_the_exception_of_the_test_wins(run: Run) -> None:
    async def main() -> None:
        async with LifespanManager(cannot_stop):
            raise LookupError("of the test")

    with pytest.raises(LookupError, match="of the test") as caught:
        run(main)
    assert caught.value.__notes__ == [
        "and then: the application's shutdown failed: no reason given"
    ]


@pytest.mark.parametrize(
    ("app", "message", "cause"),
    [
        (none, "the application raised LookupError('lifespan') instead of sending", LookupError),
        (returns, "the application returned without sending lifespan.startup.complete", None),
    ],
)
def test_no_lifespan_is_noticed(run: Run, app: Any, message: str, cause: Any) -> None:
    with pytest.raises(LifespanNotSupported) as caught:
        run(lambda: within(app))
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("it has no lifespan; if that is right, say required=False")
    assert type(caught.value.__cause__) is (cause or type(None))

    lifespan = run(lambda: within(app, required=False))
    assert not lifespan.supported


@pytest.mark.parametrize(
    ("app", "error", "message"),
    [
        (cannot_start, LifespanFailed, "the application's startup failed: no database"),
        (cannot_stop, LifespanFailed, "the application's shutdown failed: no reason given"),
        (breaks, CommunicatorError, "the application raised LookupError('broken')"),
        (breaks_late, CommunicatorError, "the application raised LookupError('broken late')"),
        (silent, CommunicatorTimeout, "the application did not send lifespan.startup.complete "
         "within 0.05 s: it waits in receive()"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_said(run: Run, app: Any, error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        run(lambda: within(app, timeout=0.05))
    assert str(caught.value) == message


def test_messages_out_of_place_are_said(run: Run) -> None:
    async def early(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.shutdown.complete"})

    async def foreign(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start"})

    with pytest.raises(
        CommunicatorError, match=r"expected lifespan.startup.complete, got lifespan"
    ):
        run(lambda: within(early))
    with pytest.raises(CommunicatorError, match="is no message of a lifespan"):
        run(lambda: within(foreign))
