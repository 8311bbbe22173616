"""`ApplicationCommunicator`: what asgiref's users and subclasses rely on."""

from __future__ import annotations

import asyncio
import gc
from contextvars import ContextVar
from typing import Any

import pytest

from omnicorn.toolkit.testing import ApplicationCommunicator

SCOPE = {"type": "http"}
NOW = 0.001  # seconds, where something is known not to come


async def echo(scope: Any, receive: Any, send: Any) -> None:
    while True:
        await send(await receive())


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise LookupError("broken")


async def fails_when_asked(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise LookupError("broken")


async def returns(scope: Any, receive: Any, send: Any) -> None:
    await send("last words")


def test_what_is_sent_in_comes_out() -> None:
    async def main() -> None:
        communicator = ApplicationCommunicator(echo, SCOPE)
        for word in ("one", "two"):
            await communicator.send_input(word)
            assert await communicator.receive_output() == word
        communicator.stop()

    asyncio.run(main())


def test_it_is_made_without_a_loop_and_starts_late() -> None:
    communicator = ApplicationCommunicator(echo, SCOPE)

    async def main() -> None:
        assert communicator.output_queue.empty() and communicator.input_queue.empty()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert communicator.future in asyncio.all_tasks()
        communicator.stop()

    asyncio.run(main())


def test_an_asgi_2_application_is_called_twice() -> None:
    class Old:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            await send(self.scope)

    async def main() -> None:
        assert await ApplicationCommunicator(Old, SCOPE).receive_output() is SCOPE

    asyncio.run(main())


def test_the_application_does_not_see_the_tests_context() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="nothing")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(variable.get())

    async def main() -> None:
        variable.set("the test's")
        assert await ApplicationCommunicator(app, SCOPE).receive_output() == "nothing"

    asyncio.run(main())


def test_nothing_is_nothing_and_something_stays() -> None:
    async def main() -> None:
        communicator = ApplicationCommunicator(echo, SCOPE)
        assert await communicator.receive_nothing(NOW, NOW)
        await communicator.send_input("something")
        assert not await communicator.receive_nothing()
        assert not await communicator.receive_nothing()
        assert await communicator.receive_output() == "something"
        assert await communicator.receive_nothing(NOW, NOW)
        communicator.stop()

    asyncio.run(main())


def test_a_failure_comes_out_of_whatever_is_called_next() -> None:
    async def main() -> None:
        communicator = ApplicationCommunicator(fails, SCOPE)
        assert await communicator.receive_nothing(NOW, NOW)
        for call in (
            communicator.send_input(""),
            communicator.receive_output(),
            communicator.wait(),
        ):
            with pytest.raises(LookupError, match="broken"):
                await call
        with pytest.raises(LookupError, match="broken"):
            communicator.stop()
        communicator.stop(exceptions=False)

    asyncio.run(main())


def test_a_failure_is_noticed_without_waiting_for_the_timeout() -> None:
    async def main() -> None:
        communicator = ApplicationCommunicator(fails_when_asked, SCOPE)
        await communicator.send_input("go on")
        with pytest.raises(LookupError, match="broken"):
            await communicator.receive_output(timeout=1000)

    asyncio.run(main())


def test_an_event_sent_before_a_failure_is_received() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send("first")
        raise LookupError("broken")

    async def main() -> None:
        communicator = ApplicationCommunicator(app, SCOPE)
        assert await communicator.receive_output() == "first"
        with pytest.raises(LookupError, match="broken"):
            await communicator.receive_output()

    asyncio.run(main())


def test_a_timeout_cancels_the_application_and_nothing_else() -> None:
    async def main() -> None:
        communicator = ApplicationCommunicator(echo, SCOPE)
        with pytest.raises(TimeoutError, match="it has been cancelled"):
            await communicator.receive_output(NOW)
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        assert communicator.future.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await communicator.send_input("too late")

    asyncio.run(main())


def test_a_failure_while_being_cancelled_comes_instead_of_the_timeout() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        finally:
            raise LookupError("while cleaning up")

    async def main() -> None:
        communicator = ApplicationCommunicator(app, SCOPE)
        with pytest.raises(LookupError, match="while cleaning up"):
            await communicator.receive_output(NOW)

    asyncio.run(main())


def test_what_an_application_left_running_may_still_send() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def later() -> None:
            await send(await receive())

        left.append(asyncio.create_task(later()))

    left: list[asyncio.Task[None]] = []

    async def main() -> None:
        communicator = ApplicationCommunicator(app, SCOPE)
        await communicator.wait()
        await communicator.send_input("late")
        assert await communicator.receive_output() == "late"
        with pytest.raises(TimeoutError, match="it has returned"):
            await communicator.receive_output(NOW)

    asyncio.run(main())


def test_wait_takes_a_return_a_cancellation_and_a_failure() -> None:
    async def main() -> None:
        returned = ApplicationCommunicator(returns, SCOPE)
        await returned.wait()
        assert await returned.receive_output() == "last words"

        endless = ApplicationCommunicator(echo, SCOPE)
        await endless.wait(NOW)
        assert endless.future.cancelled()
        await endless.wait()

        with pytest.raises(LookupError, match="broken"):
            await ApplicationCommunicator(fails, SCOPE).wait()

    asyncio.run(main())


def test_a_cancelled_wait_stays_cancelled() -> None:
    async def main() -> None:
        communicator = ApplicationCommunicator(echo, SCOPE)
        waiting = asyncio.create_task(communicator.wait(1000))
        assert await communicator.receive_nothing(NOW, NOW)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert communicator.future.cancelled()

    asyncio.run(main())


def test_stop_before_the_start_does_nothing() -> None:
    ApplicationCommunicator(echo, SCOPE).stop()


def test_who_forgets_it_stops_it() -> None:
    async def main() -> None:
        communicator = ApplicationCommunicator(echo, SCOPE)
        assert await communicator.receive_nothing(NOW, NOW)
        future = communicator.future
        del communicator
        gc.collect()
        await asyncio.wait((future,))
        assert future.cancelled()

    asyncio.run(main())


def test_it_may_outlive_its_loop() -> None:
    communicator = ApplicationCommunicator(echo, SCOPE)

    async def main() -> None:
        await communicator.send_input("something")

    asyncio.run(main())
    communicator.__del__()


def test_a_subclass_may_add_keys_and_override() -> None:
    class Loud(ApplicationCommunicator):
        async def receive_output(self, timeout: float | None = 1) -> Any:
            return (await super().receive_output(timeout)).upper()

    async def main() -> None:
        communicator = Loud(returns, SCOPE)
        assert await communicator.receive_output() == "LAST WORDS"

    asyncio.run(main())
