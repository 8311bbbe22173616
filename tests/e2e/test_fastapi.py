"""FastAPI on omnicorn, with and without a BaseHTTPMiddleware in front."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Serve, ServerProcess

for name in ("fastapi", "sse_starlette", "python_multipart"):
    pytest.importorskip(name, reason=f"{name} is not installed")

GRACE = ("--timeout-graceful-shutdown", "4")


@pytest.fixture(scope="module", params=["app", "stamped"])
def server(serve_module: Serve, request: pytest.FixtureRequest) -> ServerProcess:
    app = f"on_fastapi:{request.param}"
    return serve_module(app, "--no-access-log", "--lifespan", "on", *GRACE)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client


def test_parameters_and_state_of_the_lifespan_reach_an_endpoint(client: httpx.Client) -> None:
    assert client.get("/items/7?q=x").json() == {"number": 7, "q": "x", "model": "a model"}
    assert client.get("/items/seven").status_code == 422


def test_json_is_validated_and_returned(client: httpx.Client) -> None:
    item = {"name": "a", "price": 1.5, "tags": ["b"]}

    assert client.post("/items", json=item).json() == item
    assert client.post("/items", json={"name": "a"}).status_code == 422


def test_a_blocking_endpoint_runs_in_a_thread(client: httpx.Client) -> None:
    assert client.get("/plain").json() == {"thread": True}


def test_a_dependency_is_closed_after_the_answer(
    client: httpx.Client, server: ServerProcess
) -> None:
    opened = len(server.matching("session opened"))
    assert client.get("/session").json() == "a session"

    server.wait_for("session closed", opened + 1)


def test_an_http_exception_is_its_answer(client: httpx.Client) -> None:
    response = client.get("/teapot")

    assert (response.status_code, response.json()) == (418, {"detail": "short and stout"})


def test_the_documentation_is_there(client: httpx.Client) -> None:
    assert "/docs" not in client.get("/openapi.json").json()["paths"]
    assert client.get("/docs").status_code == 200


def test_a_multipart_upload_is_spooled_and_read(client: httpx.Client) -> None:
    response = client.post(
        "/upload", data={"title": "a title"}, files={"file": ("a.bin", b"z" * 5_000_000)}
    )

    assert response.json() == {"title": "a title", "filename": "a.bin", "size": 5_000_000}


def test_a_background_task_runs(client: httpx.Client, server: ServerProcess) -> None:
    assert client.get("/background").json() == "accepted"

    server.wait_for("background task ran")


def test_a_stream_arrives_whole(client: httpx.Client) -> None:
    assert client.get("/stream?count=50").text == "".join(f"{n}\n" for n in range(50))


def test_a_streams_clean_up_runs_when_the_client_leaves(server: ServerProcess) -> None:
    before = len(server.matching("stream cleaned up"))
    with server.connect() as wire:
        wire.send(b"GET /stream?count=1000000 HTTP/1.1\r\nhost: e2e\r\n\r\n")
        assert wire.head().status == 200

    server.wait_for("stream cleaned up", before + 1)


def test_events_are_sent_as_they_happen(client: httpx.Client) -> None:
    with client.stream("GET", "/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]

    assert lines[:3] == ["id: 0", "event: tick", "data: number 0"]
    assert lines.count("event: tick") == 3


def test_an_event_stream_ends_when_the_client_leaves(server: ServerProcess) -> None:
    before = len(server.matching("events cleaned up"))
    with server.connect() as wire:
        wire.send(b"GET /events?count=1000000 HTTP/1.1\r\nhost: e2e\r\n\r\n")
        assert wire.head().status == 200
        assert next(wire.chunks()).startswith(b"id: 0")

    server.wait_for("events cleaned up", before + 1)


def test_an_endpoint_learns_that_the_client_has_left(serve: Serve) -> None:
    # Without the middleware, behind which Starlette loses the answer on every server.
    server = serve("on_fastapi:app", "--no-access-log", *GRACE)
    with server.connect() as wire:
        wire.send(b"GET /disconnect HTTP/1.1\r\nhost: e2e\r\n\r\n")
        server.wait_for("waiting for the client")

    server.wait_for("the client has left")


def test_the_middleware_sees_every_answer(
    client: httpx.Client, request: pytest.FixtureRequest
) -> None:
    expected = "stamped" if "stamped" in request.node.name else None

    for path in ("/items/1", "/stream", "/background", "/teapot", "/nowhere"):
        assert client.get(path).headers.get("x-stamp") == expected


@pytest.mark.parametrize("app", ["app", "stamped"])
def test_an_endpoint_that_fails_is_a_500_and_logged_once(serve: Serve, app: str) -> None:
    server = serve(f"on_fastapi:{app}", "--no-access-log", errors=True)

    assert server.get("/fail").status == 500
    server.stop()

    assert len(server.matching("the application failed")) == 1


def test_an_endless_event_stream_does_not_hold_up_the_shutdown(serve: Serve) -> None:
    server = serve("on_fastapi:app", "--timeout-graceful-shutdown", "2")
    with server.connect() as wire:
        wire.send(b"GET /events?count=1000000 HTTP/1.1\r\nhost: e2e\r\n\r\n")
        assert wire.head().status == 200

        assert server.stop() == 0

    assert "events cleaned up" in server.lines
    assert "shutdown" in server.lines


def test_everything_works_on_a_unix_socket(serve: Serve, tmp_path: str) -> None:
    server = serve("on_fastapi:app", "--uds", f"{tmp_path}/app.sock")

    assert json.loads(server.get("/items/3").body)["number"] == 3
