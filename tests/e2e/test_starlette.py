"""Starlette on omnicorn: requests, streams, middleware, and clients that leave."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Serve, ServerProcess, Wire

pytest.importorskip("starlette", reason="starlette is not installed")

GRACE = ("--timeout-graceful-shutdown", "4")

APP = Path(__file__).parent / "apps" / "on_starlette.py"


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module("on_starlette:app", "--no-access-log", "--lifespan", "on", *GRACE)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client


def begin(server: ServerProcess, target: str) -> Wire:
    wire = server.connect()
    wire.send(f"GET {target} HTTP/1.1\r\nhost: e2e\r\n\r\n".encode())
    return wire


def test_state_of_the_lifespan_and_parameters_reach_a_view(client: httpx.Client) -> None:
    response = client.get("/items/na%C3%AFve?q=1&q=%26")

    assert response.json() == {
        "pool": "a pool",
        "name": "naïve",
        "q": ["1", "&"],
        "url": f"{client.base_url}/items/naïve?q=1&q=%26",  # Starlette builds it from the path
    }


def test_head_and_unknown_paths_and_methods(client: httpx.Client) -> None:
    head = client.head("/items/a")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    assert client.get("/nowhere").status_code == 404
    assert client.get("/upload").status_code == 405


@pytest.mark.parametrize("prefix", ["", "/stamped"])
def test_an_upload_is_streamed(client: httpx.Client, prefix: str) -> None:
    response = client.post(f"{prefix}/upload", content=(b"x" * 1000 for _ in range(1000)))

    assert response.text == "1000000"


@pytest.mark.parametrize("prefix", ["", "/stamped"])
def test_a_multipart_form_with_a_file_is_read(client: httpx.Client, prefix: str) -> None:
    pytest.importorskip("python_multipart", reason="python-multipart is not installed")

    response = client.post(
        f"{prefix}/form", data={"title": "a title"}, files={"file": ("a.bin", b"y" * 3_000_000)}
    )

    assert response.json() == {"title": "a title", "filename": "a.bin", "size": 3_000_000}


@pytest.mark.parametrize("prefix", ["", "/stamped", "/zipped"])
def test_a_stream_arrives_whole(client: httpx.Client, prefix: str) -> None:
    response = client.get(f"{prefix}/stream")

    assert response.text == "".join(f"{number}\n" for number in range(10))
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.headers.get("content-encoding") == ("gzip" if prefix == "/zipped" else None)


def test_base_http_middleware_sees_every_response(client: httpx.Client) -> None:
    for path in ("/stamped/items/a", "/stamped/stream", "/stamped/file", "/stamped/background"):
        assert client.get(path).headers["x-stamp"] == "a pool"


def test_a_background_task_runs_after_the_answer(
    client: httpx.Client, server: ServerProcess
) -> None:
    before = len(server.matching("background task ran"))

    assert client.get("/background").status_code == 202

    server.wait_for("background task ran", before + 1)


@pytest.mark.parametrize("prefix", ["", "/stamped", "/zipped"])
def test_a_file_is_sent_and_asked_for_in_parts(client: httpx.Client, prefix: str) -> None:
    content = APP.read_bytes()

    whole = client.get(f"{prefix}/file")
    part = client.get(f"{prefix}/file", headers={"range": "bytes=10-19", "accept-encoding": ""})

    assert (whole.content, whole.headers["x-file"]) == (content, "yes")
    assert (part.status_code, part.content) == (206, content[10:20])
    assert client.head(f"{prefix}/file").content == b""


def test_a_redirect_is_followed(client: httpx.Client) -> None:
    response = client.get("/redirect", follow_redirects=True)

    assert response.json()["name"] == "moved"


@pytest.mark.parametrize("prefix", ["", "/stamped", "/zipped"])
def test_a_generators_clean_up_runs_when_the_client_leaves(
    server: ServerProcess, prefix: str
) -> None:
    before = len(server.matching("generator cleaned up"))
    with begin(server, f"{prefix}/endless") as wire:
        assert wire.head().status == 200

    server.wait_for("generator cleaned up", before + 1)


def test_is_disconnected_tells_that_the_client_has_left(server: ServerProcess) -> None:
    # Not so behind a BaseHTTPMiddleware: there Starlette asks in a cancelled scope and loses the
    # answer, on every server.
    with begin(server, "/polled"):
        server.wait_for("^polling$")

    server.wait_for("^is_disconnected$")


@pytest.mark.parametrize("prefix", ["", "/stamped"])
def test_an_interrupted_upload_is_a_client_disconnect_in_the_view_and_no_error_in_the_log(
    server: ServerProcess, prefix: str
) -> None:
    before = len(server.matching("upload began"))
    seen = len(server.matching("ClientDisconnect after 100"))
    with server.connect() as wire:
        wire.send(
            f"POST {prefix}/upload-interrupted HTTP/1.1\r\nhost: e2e\r\n".encode(),
            b"content-length: 1000\r\n\r\n" + b"x" * 100,
        )
        server.wait_for("upload began", before + 1)

    server.wait_for("ClientDisconnect after 100", seen + 1)


@pytest.mark.parametrize("prefix", ["", "/stamped"])
def test_a_view_that_fails_is_a_500_and_logged(serve: Serve, prefix: str) -> None:
    server = serve("on_starlette:app", "--no-access-log", errors=True)

    response = server.get(f"{prefix}/fail")

    assert (response.status, response.body) == (500, b"Internal Server Error")
    server.stop()
    assert len(server.matching("the application failed")) == 1


def test_the_lifespan_ends_with_the_server(serve: Serve) -> None:
    server = serve("on_starlette:app")

    assert server.stop() == 0

    assert server.lines.count("startup") == server.lines.count("shutdown") == 1
