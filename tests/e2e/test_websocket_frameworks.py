"""WebSockets of Starlette, FastAPI, Quart (on trio Quart-Trio) and Litestar on omnicorn.

First what all of them do alike, then what each has of its own.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Serve, ServerProcess

client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
exceptions = pytest.importorskip("websockets.exceptions")

FRAMEWORKS = ["starlette", "fastapi", "quart", "litestar"]

Servers = Any


@pytest.fixture(scope="module")
def app_of(loop: str) -> Callable[[str], str]:
    """The application of a framework; skips where that is not installed."""

    def find(framework: str) -> str:
        if (framework, loop) == ("quart", "trio"):
            framework = "quart_trio"
        pytest.importorskip(framework, reason=f"{framework} is not installed")
        return f"ws_{framework}:app"

    return find


@pytest.fixture(scope="module")
def served(serve_module: Serve, app_of: Callable[[str], str]) -> Callable[[str], ServerProcess]:
    """The server of a framework's application, started when first asked for."""
    running: dict[str, ServerProcess] = {}

    def server_of(framework: str) -> ServerProcess:
        if framework not in running:
            options = ("--no-access-log", "--timeout-graceful-shutdown", "4")
            running[framework] = serve_module(app_of(framework), *options, errors=True)
        return running[framework]

    return server_of


@pytest.fixture(params=FRAMEWORKS)
def server(request: pytest.FixtureRequest, served: Callable[[str], ServerProcess]) -> ServerProcess:
    return served(request.param)


def dial(server: ServerProcess, target: str, **options: Any) -> Any:
    options = {"proxy": None, "ping_interval": None, **options}
    return client.connect(f"ws://127.0.0.1:{server.port}{target}", **options)


def lose(socket: Any) -> None:
    """Leave without a close frame."""
    socket.close_socket()


def ended(socket: Any) -> tuple[int, str]:
    """Wait for the server's close frame."""
    with pytest.raises(exceptions.ConnectionClosed) as caught:
        socket.recv(timeout=10)
    assert caught.value.rcvd is not None, "the connection was lost without a close frame"
    return caught.value.rcvd.code, caught.value.rcvd.reason


def denied(server: ServerProcess, target: str, **options: Any) -> Any:
    """The response to a handshake that is not accepted."""
    with pytest.raises(exceptions.InvalidStatus) as caught, dial(server, target, **options):
        pass
    return caught.value.response


# ------------------------------------------------------------------------- all of them


def test_messages_come_back(server: ServerProcess) -> None:
    before = len(server.matching("^left"))
    with dial(server, "/echo") as socket:
        for message in ["añ€😀", "x" * 200_000, os.urandom(100_000), b"\x00\xff"]:
            socket.send(message)
            assert socket.recv(timeout=10) == message
        socket.close(4100, "had enough")

    left = server.wait_for("^left", before + 1)
    assert left in ("left with 4100 'had enough'", "left")  # Quart does not say why


def test_a_client_that_is_lost_is_noticed(server: ServerProcess) -> None:
    before = len(server.matching("^left"))
    with dial(server, "/echo") as socket:
        lose(socket)

    left = server.wait_for("^left", before + 1)
    assert left in ("left with 1006 ''", "left")


def test_a_close_has_its_code_and_reason(server: ServerProcess) -> None:
    with dial(server, "/close") as socket:
        assert ended(socket) == (4002, "énough")


@pytest.mark.parametrize(
    ("framework", "code"),
    # Starlette leaves it to the server; Quart and Litestar close by themselves, with these.
    [("starlette", 1011), ("fastapi", 1011), ("quart", 1000), ("litestar", 4500)],
)
def test_a_handler_that_fails_is_a_close_and_a_traceback(
    served: Callable[[str], ServerProcess], framework: str, code: int
) -> None:
    server = served(framework)
    with dial(server, "/fail") as socket:
        assert ended(socket)[0] == code

    server.wait_for("RuntimeError: the (endpoint|handler) has a bug")


def test_a_denial_is_a_403(server: ServerProcess) -> None:
    assert denied(server, "/deny").status_code == 403


def test_a_path_that_is_not_there_is_denied(server: ServerProcess) -> None:
    assert denied(server, "/nowhere").status_code in (403, 404)


@pytest.mark.parametrize("framework", ["starlette", "quart"])
def test_a_denial_response_arrives(served: Callable[[str], ServerProcess], framework: str) -> None:
    response = denied(served(framework), "/deny-response")

    assert response.status_code == 401
    assert json.loads(response.body) == {"error": "who are you?"}
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("framework", ["starlette", "quart", "litestar"])
def test_parameters_subprotocol_and_fields(
    served: Callable[[str], ServerProcess], framework: str
) -> None:
    server = served(framework)
    with dial(server, "/greet/na%C3%AFve?q=a%26b", subprotocols=["a", "b"]) as socket:
        assert socket.subprotocol == "b"
        assert socket.response.headers["x-one"] == "1"
        greeting = json.loads(socket.recv(timeout=10))
        assert ended(socket)[0] == 1000

    assert (greeting["name"], greeting["q"]) == ("naïve", "a&b")
    assert greeting["url"].startswith(f"ws://127.0.0.1:{server.port}/greet/na")


@pytest.mark.parametrize("framework", ["starlette", "quart", "litestar"])
def test_a_server_that_stops_closes_with_1012_and_ends_cleanly(
    serve: Serve, app_of: Callable[[str], str], framework: str
) -> None:
    server = serve(app_of(framework), "--no-access-log", "--timeout-graceful-shutdown", "4")
    with dial(server, "/echo") as socket:
        socket.send("hello")
        assert socket.recv(timeout=10) == "hello"

        server.kill()

        assert ended(socket)[0] == 1012
    assert server.wait() == 0
    assert server.matching("^left") in (["left with 1012 ''"], ["left"])


# --------------------------------------------------------------------------- Starlette


def test_starlette_iterates_over_texts_and_raises_at_the_end(
    served: Callable[[str], ServerProcess],
) -> None:
    server = served("starlette")
    with dial(server, "/count") as socket:
        socket.send("añ€😀")
        assert socket.recv(timeout=10) == "4"

    server.wait_for("^counted$")


def test_starlette_ends_a_push_when_the_client_has_left(
    served: Callable[[str], ServerProcess],
) -> None:
    server = served("starlette")
    with dial(server, "/push") as socket:
        assert socket.recv(timeout=10).startswith("tick")
        lose(socket)

    server.wait_for("push ended with 1006")


def test_starlettes_endpoint_is_told_everything(served: Callable[[str], ServerProcess]) -> None:
    server = served("starlette")
    with dial(server, "/endpoint") as socket:
        socket.send('{"a": ["é", null]}')
        assert json.loads(socket.recv(timeout=10)) == {"got": {"a": ["é", None]}}
        socket.send("no JSON")
        assert ended(socket)[0] == 1003  # and then it raises

    server.wait_for("endpoint left with 1011")


# ----------------------------------------------------------------------------- FastAPI


def test_fastapi_injects_parameters_cookies_and_sessions(
    served: Callable[[str], ServerProcess],
) -> None:
    server = served("fastapi")
    cookie = {"cookie": "theme=dark"}
    with dial(server, "/items/7?token=ada", additional_headers=cookie) as socket:
        expected = {"number": 7, "who": "ada in dark", "session": "a session"}
        assert json.loads(socket.recv(timeout=10)) == expected
        socket.send('{"name": "a", "price": 1}')
        assert json.loads(socket.recv(timeout=10)) == {"name": "a", "price": 1.0}

    server.wait_for("session closed")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/items/7?token=wrong", 403),
        ("/items/seven?token=ada", 403),
        ("/items/7?token=teapot", 418),
    ],
)
def test_fastapi_denies_what_a_dependency_refuses(
    served: Callable[[str], ServerProcess], target: str, status: int
) -> None:
    assert denied(served("fastapi"), target).status_code == status


# ---------------------------------------------------------------------------- Litestar


def test_litestars_exception_has_its_code(served: Callable[[str], ServerProcess]) -> None:
    with dial(served("litestar"), "/exception") as socket:
        assert ended(socket) == (4100, "had enough")


def test_litestars_listener_converts_messages(served: Callable[[str], ServerProcess]) -> None:
    server = served("litestar")
    with dial(server, "/listener") as socket:
        socket.send('{"name": "a", "price": 1.5}')
        assert json.loads(socket.recv(timeout=10)) == {"name": "A", "price": 3.0}

    server.wait_for("listener ended")


def test_litestars_stream_ends_with_its_client(served: Callable[[str], ServerProcess]) -> None:
    server = served("litestar")
    with dial(server, "/stream") as socket:
        assert [socket.recv(timeout=10) for _ in range(3)] == ["0", "1", "2"]
        lose(socket)  # it would not find the answer to a Close behind a million messages

    server.wait_for("stream ended")
