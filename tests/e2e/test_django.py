"""Django on omnicorn, through its own ASGI handler."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Serve, ServerProcess

pytest.importorskip("django", reason="django is not installed")


# Django on asgiref, and on the toolkit in its place.
ON = {"asgiref": ["on_django:app"], "toolkit": ["on_toolkit:django", "--factory"]}


@pytest.fixture(scope="module", params=ON)
def server(serve_module: Serve, request: pytest.FixtureRequest) -> ServerProcess:
    # Django raises for a lifespan scope; the default takes that for "not supported".
    grace = ("--timeout-graceful-shutdown", "4")
    return serve_module(*ON[request.param], "--no-access-log", *grace)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client


def test_a_sync_view_gets_the_request(client: httpx.Client) -> None:
    headers = {"x-custom": "value", "host": "example.org", "x-forwarded-for": "192.0.2.9"}

    response = client.get("/items/na%C3%AFve?q=1&q=%26", headers=headers)

    assert response.json() == {
        "name": "naïve",
        "q": ["1", "&"],
        "host": "example.org",
        "client": "192.0.2.9",
        "secure": False,
        "header": "value",
    }


def test_the_scheme_of_a_trusted_proxy_is_believed(client: httpx.Client) -> None:
    response = client.get("/items/a", headers={"x-forwarded-proto": "https"})

    assert response.json()["secure"] is True


def test_an_async_view_answers(client: httpx.Client) -> None:
    response = client.get("/async")

    assert (response.text, response.headers["content-length"]) == ("async", "5")
    assert client.head("/async").content == b""


def test_a_body_comes_back(client: httpx.Client) -> None:
    content = bytes(range(256)) * 20_000

    assert client.post("/echo", content=content).content == content
    assert client.post("/echo", content=iter([b"in ", b"chunks"])).content == b"in chunks"


def test_a_multipart_upload_is_read(client: httpx.Client) -> None:
    response = client.post(
        "/upload", data={"title": "a title"}, files={"file": ("a.bin", b"y" * 4_000_000)}
    )

    assert response.json() == {"title": "a title", "filename": "a.bin", "size": 4_000_000}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_stream_arrives_whole(client: httpx.Client, kind: str) -> None:
    assert client.get(f"/{kind}-stream").text == "0\n1\n2\n3\n4\n"


def test_a_file_arrives_whole(client: httpx.Client) -> None:
    content = (Path(__file__).parent / "apps" / "on_django.py").read_bytes()

    assert client.get("/file").content == content


def test_many_clients_at_once_are_answered(client: httpx.Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        names = [f"name-{number}" for number in range(100)]
        answers = list(pool.map(lambda name: client.get(f"/items/{name}").json()["name"], names))

    assert answers == names


def test_an_async_view_is_cancelled_when_its_client_leaves(server: ServerProcess) -> None:
    with server.connect() as wire:
        wire.send(b"GET /waiting HTTP/1.1\r\nhost: e2e\r\n\r\n")
        server.wait_for("^waiting$")

    server.wait_for("^view cancelled$")


def test_a_stream_is_cancelled_when_its_client_leaves(server: ServerProcess) -> None:
    with server.connect() as wire:
        wire.send(b"GET /endless HTTP/1.1\r\nhost: e2e\r\n\r\n")
        assert wire.head().status == 200
        assert next(wire.chunks()) == b"tick\n"

    server.wait_for("^stream cancelled$")


def test_unknown_paths_are_404(client: httpx.Client) -> None:
    assert client.get("/nowhere").status_code == 404


def test_a_view_that_fails_is_djangos_own_500(serve: Serve) -> None:
    server = serve("on_django:app", "--no-access-log", errors=True)

    with server.connect() as wire:
        assert wire.get("/fail").status == 500
        assert wire.get("/async").body == b"async"  # the connection goes on


def test_a_view_that_never_ends_is_cancelled_by_the_shutdown(serve: Serve) -> None:
    server = serve("on_django:app", "--timeout-graceful-shutdown", "1")
    with server.connect() as wire:
        wire.send(b"GET /waiting HTTP/1.1\r\nhost: e2e\r\n\r\n")
        server.wait_for("^waiting$")

        assert server.stop() == 0

    assert "view cancelled" in server.lines


def test_lifespan_demanded_of_django_is_exit_code_3(serve: Serve) -> None:
    server = serve("on_django:app", "--lifespan", "on", wait=False, errors=True)
    server.expected_code = 3

    assert server.wait() == 3
    assert "lifespan" in str(server.output)
