"""What only trio has: nurseries and channels of an application, and of its lifespan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Serve, ServerProcess

pytest.importorskip("trio", reason="trio is not installed")


@pytest.fixture
def server(serve: Serve) -> ServerProcess:
    return serve("on_trio:app", "--no-access-log", "--lifespan", "on", loop="trio")


def test_a_nursery_of_the_lifespan_serves_requests_until_the_server_ends(
    server: ServerProcess,
) -> None:
    server.wait_for("^worker started$")
    with server.connect() as wire:
        for text in (b"one", b"two"):
            assert wire.get(f"/ask?{text.decode()}").body == text.upper()

    assert server.stop() == 0

    assert server.lines.index("worker ended") < server.lines.index("nursery ended")


def test_context_variables_of_a_request_are_its_own(server: ServerProcess) -> None:
    with server.connect() as wire:
        seen = [wire.get("/name").body for _ in range(3)]

    assert seen[0] != b"by a request" and seen == seen[:1] * 3


def test_a_deadline_of_trios_ends_a_receive_and_the_answer_goes_out(server: ServerProcess) -> None:
    with server.connect() as wire:
        wire.send(b"POST /late HTTP/1.1\r\nhost: e2e\r\ncontent-length: 4\r\n\r\n")
        assert (response := wire.response()).status == 408
        assert response.body == b"too slow"


def test_a_task_of_the_lifespan_that_fails_is_logged_and_others_are_served(
    server: ServerProcess,
) -> None:
    server.expects_errors = True
    assert server.get("/fail-behind").body == b"answered"

    server.wait_for("RuntimeError: a task behind has a bug")

    assert server.get("/name").status == 200
    assert server.stop() == 0
    assert len(server.matching("lifespan raised an exception")) == 1
