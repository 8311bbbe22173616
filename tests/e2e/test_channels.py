"""Django Channels on omnicorn: consumers, and groups across processes by way of Redis.

The Redis is one of our own, on a socket in a temporary folder; nothing is read from or left in
one that the machine may have.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Serve, ServerProcess

pytest.importorskip("channels", reason="channels is not installed")
client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
exceptions = pytest.importorskip("websockets.exceptions")


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    """The path of a Redis server's socket."""
    pytest.importorskip("channels_redis", reason="channels_redis is not installed")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    with tempfile.TemporaryDirectory() as folder:  # pytest's may be too long for a socket's path
        path = str(Path(folder) / "redis.sock")
        argv = [program, "--port", "0", "--unixsocket", path, "--dir", folder]
        argv += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, encoding="utf-8") as process:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if "Ready to accept connections" in line or "ready to accept" in line:
                    break
            else:
                pytest.fail(f"redis-server did not start:\n{''.join(said)}")
            yield path
            process.terminate()
            process.communicate(timeout=10)


# Channels on asgiref, and on the toolkit in its place.
ON = {"asgiref": ["ws_channels:app"], "toolkit": ["on_toolkit:channels", "--factory"]}


@pytest.fixture(scope="module", params=ON)
def served(request: pytest.FixtureRequest) -> list[str]:
    return ON[request.param]


@pytest.fixture(scope="module")
def server(serve_module: Serve, served: list[str]) -> ServerProcess:
    return serve_module(*served, "--no-access-log")


def dial(server: ServerProcess, target: str, **options: Any) -> Any:
    options = {"proxy": None, "ping_interval": None, "origin": server.url, **options}
    return client.connect(f"ws://127.0.0.1:{server.port}{target}", **options)


@contextmanager
def join(server: ServerProcess, room: str) -> Iterator[Any]:
    with dial(server, f"/rooms/{room}") as socket:
        assert heard(socket) == {"joined": room}
        yield socket


def heard(socket: Any) -> Any:
    return json.loads(socket.recv(timeout=10))


def ended(socket: Any) -> tuple[int, str]:
    """Wait for the server's close frame."""
    with pytest.raises(exceptions.ConnectionClosed) as caught:
        socket.recv(timeout=10)
    assert caught.value.rcvd is not None, "the connection was lost without a close frame"
    return caught.value.rcvd.code, caught.value.rcvd.reason


def test_a_consumer_in_threads_gets_and_sends_messages(server: ServerProcess) -> None:
    with dial(server, "/echo", subprotocols=["a", "b"]) as socket:
        assert socket.subprotocol == "b"
        for message in ["añ€😀", "x" * 100_000, b"\x00\xff"]:
            socket.send(message)
            assert socket.recv(timeout=10) == message
        socket.close(4100)

    server.wait_for("echo left with 4100")


def test_a_consumer_closes_with_its_code_and_reason(server: ServerProcess) -> None:
    with dial(server, "/echo") as socket:
        socket.send("close")
        assert ended(socket) == (4002, "énough")

    server.wait_for("echo left with 4002")


def test_a_consumer_that_fails_is_a_1011_and_a_traceback(serve: Serve) -> None:
    server = serve("ws_channels:app", "--no-access-log", errors=True)
    with dial(server, "/echo") as socket:
        socket.send("fail")
        assert ended(socket)[0] == 1011

    server.wait_for("RuntimeError: the consumer has a bug")


@pytest.mark.parametrize(
    ("target", "options"),
    [("/denied", {}), ("/echo", {"origin": "http://elsewhere.example"})],
    ids=["by the consumer", "for its origin"],
)
def test_a_denial_is_a_403(server: ServerProcess, target: str, options: dict[str, Any]) -> None:
    with pytest.raises(exceptions.InvalidStatus) as caught, dial(server, target, **options):
        pass

    assert caught.value.response.status_code == 403


def test_views_are_served_beside_the_consumers(server: ServerProcess) -> None:
    host = f"host: 127.0.0.1:{server.port}"
    with server.connect() as wire:
        wire.send(f"GET /view HTTP/1.1\r\n{host}\r\n\r\n".encode())
        assert wire.response().body == b"a view"


def test_a_group_reaches_the_clients_of_two_processes(
    serve: Serve, served: list[str], redis: str
) -> None:
    one, two = (serve(*served, "--no-access-log", env={"REDIS_SOCKET": redis}) for _ in range(2))
    with join(one, "blue") as ada, join(two, "blue") as bob, join(two, "red") as eve:
        for number in range(20):
            ada.send(json.dumps({"from": "Ada", "number": number}))
            assert heard(bob) == heard(ada) == {"from": "Ada", "number": number}
        bob.send(json.dumps("from Bob"))
        assert heard(ada) == heard(bob) == "from Bob"
        eve.send(json.dumps("to myself"))
        assert heard(eve) == "to myself"  # and nothing of the other room before it

        one.kill()

        assert ended(ada)[0] == 1012
        assert one.wait() == 0
        one.wait_for("blue left with 1012")
        bob.send(json.dumps("still there"))
        assert heard(bob) == "still there"

    two.wait_for("blue left with 1000")
    two.wait_for("red left with 1000")
