"""Litestar on omnicorn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Serve, ServerProcess

pytest.importorskip("litestar", reason="litestar is not installed")


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    grace = ("--timeout-graceful-shutdown", "4")
    return serve_module("on_litestar:app", "--no-access-log", "--lifespan", "on", *grace)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client


def test_parameters_and_state_of_the_lifespan_reach_a_handler(client: httpx.Client) -> None:
    assert client.get("/items/7?q=x").json() == {
        "number": 7,
        "q": "x",
        "pool": "a pool",
        "hooked": True,
    }
    assert client.get("/items/seven").status_code == 404


def test_json_is_validated_and_returned(client: httpx.Client) -> None:
    item = {"name": "a", "price": 1.5}

    response = client.post("/items", json=item)

    assert (response.status_code, response.json()) == (201, item)
    assert client.post("/items", json={"name": "a"}).status_code == 400


def test_a_multipart_upload_is_read(client: httpx.Client) -> None:
    response = client.post("/upload", files={"file": ("a.bin", b"y" * 2_000_000)})

    assert response.text == "a.bin 2000000"


def test_a_body_is_streamed_in(client: httpx.Client) -> None:
    assert client.post("/count", content=(b"z" * 1000 for _ in range(3000))).text == "3000000"


def test_a_stream_arrives_whole(client: httpx.Client) -> None:
    assert client.get("/stream").text == "".join(f"{number}\n" for number in range(10))


def test_events_are_sent(client: httpx.Client) -> None:
    lines = [line for line in client.get("/events").iter_lines() if line.startswith("data")]

    assert lines == [f"data: number {number}" for number in range(3)]


def test_a_background_task_runs(client: httpx.Client, server: ServerProcess) -> None:
    assert client.get("/background").text == "accepted"

    server.wait_for("background task ran")


def test_a_stream_ends_when_its_client_leaves(server: ServerProcess) -> None:
    with server.connect() as wire:
        wire.send(b"GET /endless HTTP/1.1\r\nhost: e2e\r\n\r\n")
        assert wire.head().status == 200
        assert next(wire.chunks()) == b"tick\n"

    server.wait_for("^stream ended$")


def test_a_handler_that_fails_is_a_500(serve: Serve) -> None:
    server = serve("on_litestar:app", "--no-access-log", errors=True)

    assert server.get("/fail").status == 500


def test_the_lifespan_ends_with_the_server(serve: Serve) -> None:
    server = serve("on_litestar:app")

    assert server.stop() == 0

    assert server.lines.count("startup") == server.lines.count("shutdown") == 1
