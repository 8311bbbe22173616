"""Quart on omnicorn, and Quart-Trio in its place on trio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Serve, ServerProcess

pytest.importorskip("quart", reason="quart is not installed")


@pytest.fixture(scope="module")
def app(loop: str) -> str:
    if loop != "trio":
        return "on_quart:app"
    pytest.importorskip("quart_trio", reason="quart-trio is not installed")
    return "on_quart_trio:app"


@pytest.fixture(scope="module")
def server(serve_module: Serve, app: str) -> ServerProcess:
    grace = ("--timeout-graceful-shutdown", "4")
    return serve_module(app, "--no-access-log", "--lifespan", "on", *grace)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client


def test_parameters_and_what_startup_made_reach_a_view(client: httpx.Client) -> None:
    assert client.get("/items/7?q=1&q=2").json() == {"number": 7, "q": ["1", "2"], "pool": "a pool"}
    assert client.get("/items/seven").status_code == 404


def test_json_comes_back(client: httpx.Client) -> None:
    assert client.post("/json", json={"a": ["é", None]}).json() == {"a": ["é", None]}


def test_a_multipart_upload_is_read(client: httpx.Client) -> None:
    response = client.post(
        "/upload", data={"title": "a title"}, files={"file": ("a.bin", b"y" * 2_000_000)}
    )

    assert response.json() == {"title": "a title", "filename": "a.bin", "size": 2_000_000}


def test_a_body_is_streamed_in(client: httpx.Client) -> None:
    assert client.post("/count", content=(b"z" * 1000 for _ in range(3000))).text == "3000000"


def test_a_stream_arrives_whole(client: httpx.Client) -> None:
    assert client.get("/stream").text == "".join(f"{number}\n" for number in range(10))


def test_a_background_task_runs(client: httpx.Client, server: ServerProcess) -> None:
    assert client.get("/background").text == "accepted"

    server.wait_for("background task ran")


def test_a_stream_ends_when_its_client_leaves(server: ServerProcess) -> None:
    with server.connect() as wire:
        wire.send(b"GET /endless HTTP/1.1\r\nhost: e2e\r\n\r\n")
        assert wire.head().status == 200
        assert next(wire.chunks()) == b"tick\n"

    server.wait_for("^stream ended$")


def test_a_view_is_cancelled_when_its_client_leaves(server: ServerProcess) -> None:
    with server.connect() as wire:
        wire.send(b"GET /waiting HTTP/1.1\r\nhost: e2e\r\n\r\n")
        server.wait_for("^waiting$")

    server.wait_for("^view cancelled$")


def test_a_view_that_fails_is_a_500(serve: Serve, app: str) -> None:
    server = serve(app, "--no-access-log", errors=True)

    assert server.get("/fail").status == 500


def test_serving_begins_and_ends_with_the_server(serve: Serve, app: str) -> None:
    server = serve(app, "--timeout-graceful-shutdown", "1")
    with server.connect() as wire:
        wire.send(b"GET /endless HTTP/1.1\r\nhost: e2e\r\n\r\n")
        assert wire.head().status == 200

        assert server.stop() == 0

    assert server.lines.count("startup") == server.lines.count("shutdown") == 1
    assert "stream ended" in server.lines
