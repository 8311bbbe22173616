"""StatelessServer: the life of instances, from the first message to the end of the server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.toolkit.server import StatelessServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Server(StatelessServer):
    """A script plays `handle`; `eventually` waits for messages of instances."""

    application_checker_interval = 0.001

    def __init__(
        self,
        application: Any,
        script: Callable[[Server], Awaitable[None]],
        max_applications: int = 1000,
    ) -> None:
        super().__init__(application, max_applications)
        self.script = script
        self.sent: asyncio.Queue[tuple[Any, Any]] = asyncio.Queue()
        self.failed: asyncio.Queue[tuple[BaseException, Any]] = asyncio.Queue()

    async def handle(self) -> None:
        await self.script(self)

    async def application_send(self, scope: Any, message: Any) -> None:
        self.sent.put_nowait((scope, message))

    async def application_exception(
        self, exception: BaseException, application_details: dict[str, Any]
    ) -> None:
        self.failed.put_nowait((exception, application_details["scope"]))

    def tell(self, who: str, message: Any) -> None:
        self.get_or_create_application_instance(who, {"who": who}).put_nowait(message)

    async def answer(self) -> tuple[Any, Any]:
        async with asyncio.timeout(5):
            return await self.sent.get()

    async def failure(self) -> tuple[BaseException, Any]:
        async with asyncio.timeout(5):
            return await self.failed.get()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    while True:
        await send(await receive())


def run(
    script: Callable[[Server], Awaitable[None]], application: Any = echo, max_applications: int = 10
) -> Server:
    server = Server(application, script, max_applications)
    asyncio.run(server.arun())
    return server


def test_a_message_reaches_the_instance_of_its_scope_and_the_answer_comes_with_the_scope() -> None:
    async def script(server: Server) -> None:
        server.tell("anna", 1)
        server.tell("bob", 2)
        server.tell("anna", 3)
        answers = [await server.answer() for _ in range(3)]
        assert sorted(answers, key=lambda answer: answer[1]) == [
            ({"who": "anna"}, 1),
            ({"who": "bob"}, 2),
            ({"who": "anna"}, 3),
        ]
        assert list(server.application_instances) == ["bob", "anna"]
        anna = server.application_instances["anna"]
        assert set(anna) == {"input_queue", "future", "scope", "last_used"}
        assert anna["input_queue"] is server.get_or_create_application_instance("anna", None)

    run(script)


def test_an_application_of_asgi_2_is_served_too() -> None:
    class Application:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            await send((self.scope["who"], await receive()))

    async def script(server: Server) -> None:
        server.tell("anna", 1)
        assert await server.answer() == ({"who": "anna"}, ("anna", 1))

    run(script, Application)


@pytest.mark.parametrize("maximum", [1, 3])
def test_there_are_never_more_instances_than_allowed(maximum: int) -> None:
    alive = most = 0

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        try:
            await echo(scope, receive, send)
        finally:
            alive -= 1

    async def script(server: Server) -> None:
        for number in range(20):
            server.tell(str(number), number)
            assert len(server.application_instances) == min(number + 1, maximum)
            assert (await server.answer())[1] == number

    run(script, counted, maximum)
    assert (alive, most) == (0, maximum)


def test_the_least_recently_used_instance_makes_room() -> None:
    async def script(server: Server) -> None:
        for who in "abcac":
            server.tell(who, who)
        server.tell("d", "d")
        assert set(server.application_instances) == {"a", "c", "d"}
        server.delete_oldest_application_instance()
        assert set(server.application_instances) == {"c", "d"}

    run(script, max_applications=3)


def test_a_maximum_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        StatelessServer(echo, 0)


def test_a_deleted_instance_is_cancelled_and_its_late_error_reported() -> None:
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send(await receive())
            await receive()
        finally:
            raise ZeroDivisionError

    async def script(server: Server) -> None:
        server.tell("anna", 1)
        await server.answer()
        server.delete_application_instance("anna")
        assert server.application_instances == {}
        exception, scope = await server.failure()
        assert isinstance(exception, ZeroDivisionError) and scope == {"who": "anna"}
        with pytest.raises(KeyError):
            server.delete_application_instance("anna")

    run(script, stubborn)


def test_an_instance_that_fails_is_reported_once_and_forgotten() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError(await receive())

    async def script(server: Server) -> None:
        server.tell("anna", "one")
        exception, scope = await server.failure()
        assert exception.args == ("one",) and scope == {"who": "anna"}
        assert server.application_instances == {}

    assert run(script, failing).failed.empty()


def test_an_instance_that_cancels_itself_does_not_take_the_server_along() -> None:
    async def leaving(scope: Any, receive: Any, send: Any) -> None:
        await send(await receive())
        raise asyncio.CancelledError

    async def script(server: Server) -> None:
        server.tell("anna", 1)
        await server.answer()
        while server.application_instances:  # the checker runs every millisecond
            await asyncio.sleep(0)

    assert run(script, leaving).failed.empty()


def test_a_message_for_an_instance_that_has_ended_gets_a_new_one() -> None:
    async def once(scope: Any, receive: Any, send: Any) -> None:
        await send(await receive())
        raise ZeroDivisionError

    class Unchecked(Server):
        application_checker_interval = 1000

    async def script(server: Server) -> None:
        for number in range(3):
            server.tell("anna", number)
            assert (await server.answer())[1] == number
            future = server.application_instances["anna"]["future"]
            await asyncio.wait([future])

    server = Unchecked(once, script)
    asyncio.run(server.arun())
    assert server.failed.qsize() == 3


@pytest.mark.parametrize("end", ["returns", "fails", "is cancelled"])
def test_however_handle_ends_instances_are_cancelled_and_awaited(end: str) -> None:
    left: list[str] = []

    async def slow_to_leave(scope: Any, receive: Any, send: Any) -> None:
        await send(await receive())
        try:
            await receive()
        except asyncio.CancelledError:
            for _ in range(5):
                await asyncio.sleep(0)
            left.append(scope["who"])
            if scope["who"] == "bob":
                raise ZeroDivisionError from None
            raise

    async def script(server: Server) -> None:
        for who in ("anna", "bob"):
            server.tell(who, who)
            await server.answer()
        if end == "fails":
            raise LookupError("the socket is gone")
        if end == "is cancelled":
            assert running is not None
            running.cancel()
            await asyncio.Event().wait()

    running: asyncio.Task[None] | None = None

    async def main() -> None:
        nonlocal running
        running = asyncio.create_task(server.arun())
        if end == "fails":
            with pytest.raises(LookupError):
                await running
        elif end == "is cancelled":
            with pytest.raises(asyncio.CancelledError):
                await running
        else:
            await running
        assert sorted(left) == ["anna", "bob"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    server = Server(slow_to_leave, script)
    asyncio.run(main())
    assert server.application_instances == {}
    exception, scope = server.failed.get_nowait()
    assert isinstance(exception, ZeroDivisionError) and scope == {"who": "bob"}
    assert server.failed.empty()


def test_an_instance_that_will_not_end_does_not_hold_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Impatient(Server):
        shutdown_timeout = 0.001

    released = asyncio.Event()

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await send(1)
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                pass

    async def script(server: Server) -> None:
        server.get_or_create_application_instance("anna", {})
        await server.answer()

    async def main() -> None:
        await Impatient(deaf, script).arun()
        released.set()

    asyncio.run(main())
    assert "1 application instances did not end within 0.001 s" in caplog.text


def test_an_error_of_the_report_ends_the_server() -> None:
    class Strict(Server):
        async def application_exception(
            self, exception: BaseException, application_details: dict[str, Any]
        ) -> None:
            raise exception

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    async def script(server: Server) -> None:
        server.tell("anna", 1)
        await asyncio.Event().wait()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(Strict(failing, script).arun())


def test_an_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    class Plain(StatelessServer):
        async def handle(self) -> None:
            self.get_or_create_application_instance(1, {})
            await asyncio.sleep(0)

        async def application_send(self, scope: Any, message: Any) -> None: ...

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("by nought")

    asyncio.run(Plain(failing).arun())
    assert "Exception inside application: by nought" in caplog.text
    assert "in failing" in caplog.text


def test_what_a_subclass_lacks_is_named() -> None:
    with pytest.raises(NotImplementedError, match=r"StatelessServer must have a handle\(\)"):
        StatelessServer(echo).run()
    with pytest.raises(NotImplementedError, match=r"application_send\(\)"):
        asyncio.run(StatelessServer(echo).application_send({}, 1))


def test_run_needs_no_loop_of_its_thread() -> None:
    async def script(server: Server) -> None:
        server.tell("anna", 1)
        answers.append(await server.answer())

    answers: list[Any] = []
    thread = threading.Thread(target=Server(echo, script).run)
    thread.start()
    thread.join(10)
    assert answers == [({"who": "anna"}, 1)]


def test_ctrl_c_ends_run_and_its_instances_without_an_error() -> None:
    program = """
import asyncio, logging, os, signal
from omnicorn.toolkit.server import StatelessServer
logging.basicConfig(level=logging.INFO, format="%(message)s")
async def app(scope, receive, send):
    try:
        await receive()
        os.kill(os.getpid(), signal.SIGINT)
        await receive()
    finally:
        logging.info("instance ended")
class Server(StatelessServer):
    async def handle(self):
        self.get_or_create_application_instance(1, {}).put_nowait(1)
        await asyncio.Event().wait()
Server(app).run()
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "instance ended\nExiting due to Ctrl-C\n"
