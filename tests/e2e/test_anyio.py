"""Structured concurrency on omnicorn: task groups and cancel scopes of anyio, on every loop.

On trio they are trio's own nurseries: the application's tasks are children of its requests and
of its lifespan, and `sniffio` names the library that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Serve, ServerProcess

pytest.importorskip("anyio", reason="anyio is not installed")

GET = b"GET %b HTTP/1.1\r\nhost: e2e\r\n\r\n"

pytestmark = pytest.mark.usefixtures("loop_name")

OPTIONS = ("--no-access-log", "--lifespan", "on", "--timeout-graceful-shutdown", "0.4")


@pytest.fixture(scope="module")
def shared(serve_module: Serve) -> ServerProcess:
    return serve_module("on_anyio:app", *OPTIONS)


@pytest.fixture
def server(serve: Serve) -> ServerProcess:
    return serve("on_anyio:app", *OPTIONS)


def test_the_application_runs_in_the_library_asked_for(shared: ServerProcess, loop: str) -> None:
    assert shared.get("/library").body == (b"trio" if loop == "trio" else b"asyncio")


def test_a_task_group_lives_as_long_as_the_server(server: ServerProcess) -> None:
    server.wait_for("^heart beats$")
    assert server.get("/later").body == b"later"
    server.wait_for("^after the request$")
    assert "heart stopped" not in server.lines

    assert server.stop() == 0

    assert server.lines.index("heart stopped") < server.lines.index("group ended")


def test_children_of_a_request_send_its_response(shared: ServerProcess) -> None:
    body = shared.get("/gather").body

    assert sorted(body) == sorted(b"abc" * 10_000)


def test_a_receive_that_was_given_up_loses_nothing(shared: ServerProcess) -> None:
    with shared.connect() as wire:
        wire.send(b"POST /impatient HTTP/1.1\r\nhost: e2e\r\ncontent-length: 4\r\n\r\n")
        shared.wait_for("^gave up$")
        wire.send(b"body")
        assert wire.response().body == b"body"


def test_a_request_cancels_itself_when_its_client_leaves(shared: ServerProcess) -> None:
    with shared.connect() as wire:
        wire.send(GET % b"/race")
        shared.wait_for("^racing$")

    shared.wait_for("^race over$")
    assert shared.lines.index("the client has left") < shared.lines.index("tidied up")


def test_children_whose_client_leaves_end_without_an_error(shared: ServerProcess) -> None:
    with shared.connect() as wire:
        wire.send(GET % b"/endless")
        assert wire.head().status == 200
        assert wire.take(4)

    shared.wait_for("^ticks ended$", 2)
    assert shared.get("/library").status == 200  # time for a word about it, if there were one
    assert not shared.matching("failed")


def test_the_end_of_the_grace_cancels_a_request_with_its_children(server: ServerProcess) -> None:
    with server.connect() as wire:
        wire.send(GET % b"/deaf")
        server.wait_for("^waiting$", 2)

        assert server.stop() == 0
    assert server.lines.count("child was cancelled") == 2
    assert server.lines.index("child was cancelled") < server.lines.index("group ended")


def test_a_thread_calls_back_into_the_loop(shared: ServerProcess) -> None:
    assert shared.get("/blocking").body == b"from a thread"


def test_a_child_that_fails_is_a_500_and_cancels_its_siblings(server: ServerProcess) -> None:
    server.expects_errors = True

    assert server.get("/fail").status == 500

    server.wait_for("^heart stopped$")
    server.wait_for("RuntimeError: a child has a bug")
    assert server.get("/library").status == 200
