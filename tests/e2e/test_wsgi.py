"""WSGI applications on omnicorn: bare ones, Flask, Django, Bottle and Pyramid."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Serve, ServerProcess, Wire

FRAMEWORKS = {
    "flask": "flask",
    "django": "django",
    "bottle": "bottle",
    "pyramid": "pyramid.config",
}
APPS = Path(__file__).parent / "apps"


# ---------------------------------------------------------------- frameworks


@pytest.fixture(scope="module", params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(FRAMEWORKS[name], reason=f"{name} is not installed")
    return name


@pytest.fixture(scope="module")
def server(serve_module: Serve, framework: str) -> ServerProcess:
    return serve_module(f"wsgi_{framework}:app", "--no-access-log", errors=True)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=20.0) as client:
        yield client


def test_a_view_gets_the_request(client: httpx.Client) -> None:
    headers = {"x-custom": "value", "x-forwarded-for": "192.0.2.9"}
    assert client.get("/items/na%C3%AFve?q=1&q=%26", headers=headers).json() == {
        "name": "naïve",
        "q": ["1", "&"],
        "client": "192.0.2.9",
        "header": "value",
    }


def test_a_form_is_read(client: httpx.Client) -> None:
    assert client.post("/form", data={"title": "ä title"}).json() == {"title": "ä title"}


def test_an_upload_is_read(client: httpx.Client) -> None:
    response = client.post("/upload", files={"file": ("a.bin", b"y" * 3_000_000)})
    assert response.json() == {"filename": "a.bin", "size": 3_000_000}


def test_a_body_comes_back(client: httpx.Client) -> None:
    content = bytes(range(256)) * 8_000
    assert client.post("/echo", content=content).content == content


@pytest.mark.parametrize("size", [9, 50_000, 200_000, 3_000_000])
def test_a_chunked_body_comes_back(client: httpx.Client, size: int) -> None:
    """Django and Bottle read as many bytes as CONTENT_LENGTH says, which is none without it."""
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    chunks = (content[at : at + 10_000] for at in range(0, size, 10_000))
    assert client.post("/echo", content=chunks).content == content


def test_a_chunked_upload_is_read(client: httpx.Client) -> None:
    files = {"file": ("a.bin", b"y" * 3_000_000)}
    whole = httpx.Request("POST", client.base_url, files=files)
    content = whole.read()
    chunks = (content[at : at + 10_000] for at in range(0, len(content), 10_000))
    headers = {"content-type": whole.headers["content-type"]}
    response = client.post("/upload", content=chunks, headers=headers)
    assert response.json() == {"filename": "a.bin", "size": 3_000_000}


def test_a_stream_comes_whole(client: httpx.Client) -> None:
    response = client.get("/stream")
    assert response.text == "0\n1\n2\n3\n4\n"


def test_a_session_is_kept(client: httpx.Client) -> None:
    counts = [client.get("/visits").json()["visits"] for _ in range(3)]
    assert counts == [1, 2, 3]


def test_a_file_is_sent(client: httpx.Client, framework: str) -> None:
    response = client.get("/file")
    assert response.content == (APPS / f"wsgi_{framework}.py").read_bytes()
    assert int(response.headers["content-length"]) == len(response.content)
    assert client.head("/file").content == b""


def test_a_view_that_fails_is_a_500(client: httpx.Client) -> None:
    assert client.get("/fail").status_code == 500
    assert client.get("/items/a").status_code == 200


def test_a_connection_serves_many(client: httpx.Client) -> None:
    for number in range(50):
        assert client.get(f"/items/{number}").json()["name"] == str(number)


# ---------------------------------------------------------------- the server


def test_the_validator_is_content(serve: Serve, loop_name: str) -> None:
    server = serve("wsgi_plain:validated", "--interface", "wsgi")
    with server.connect() as wire:
        assert wire.get("/hello?a=b").body == b"hello"
        assert wire.get("/hello", method="HEAD").header("content-length") == "5"
        assert wire.get("/nowhere").status == 404


def test_a_validated_application_reads_a_body(serve: Serve) -> None:
    """The validator wants ``read`` to be called with a size."""
    server = serve("wsgi_plain:validated", "--interface", "wsgi")
    with server.connect() as wire:
        wire.send(b"POST /count HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n")
        wire.send(b"x" * 200_000)
        assert wire.response().body == b"200000"


def test_a_slow_view_does_not_hold_up_others(serve: Serve, loop_name: str) -> None:
    server = serve("wsgi_plain:app", "--threads", "2")
    with server.connect() as slow, server.connect() as quick:
        slow.send(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
        server.wait_for("^waiting$")
        for _ in range(20):
            assert quick.get("/hello").body == b"hello"
        assert quick.get("/release").body == b"open"
        assert slow.response().body == b"released"


def test_threads_are_bounded_and_lazy(serve: Serve) -> None:
    server = serve("wsgi_plain:app", "--threads", "3")
    assert server.get("/threads").body == b"1"
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        list(clients.map(lambda _: server.get("/hello"), range(64)))
    assert int(server.get("/threads").body) <= 3


def test_a_client_that_leaves_in_a_response_closes_the_iterable(
    serve: Serve, loop_name: str
) -> None:
    server = serve("wsgi_plain:app")
    for count in (1, 2):
        with server.connect() as wire:
            wire.send(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
            assert wire.head().status == 200
            wire.reset()
        server.wait_for("^closed$", count)


def test_a_client_that_leaves_in_its_body_raises_in_the_application(
    serve: Serve, loop_name: str
) -> None:
    server = serve("wsgi_plain:app")
    with server.connect() as wire:
        wire.send(b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 999999\r\n\r\n")
        wire.send(b"x" * 300_000)
        server.wait_for("^reading$")
    server.wait_for("^reading raised ClientDisconnected$")


def test_slow_clients_hold_no_thread_before_their_head_is_complete(serve: Serve) -> None:
    server = serve("wsgi_plain:app", "--threads", "1")
    with ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(1000)]
        for wire in slow:
            wire.send(b"GET /hello HTTP/1.1\r\nhost: a\r\n")
        assert server.get("/hello").body == b"hello"
        for wire in slow[::100]:
            wire.send(b"\r\n")
            assert wire.response().body == b"hello"


def test_as_many_slow_uploads_as_threads_hold_up_nobody(serve: Serve, loop_name: str) -> None:
    server = serve("wsgi_plain:app", "--threads", "2")
    with ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(6)]
        for number, wire in enumerate(slow):
            wire.send(b"POST /count HTTP/1.1\r\nhost: a\r\ncontent-length: 400000\r\n\r\n")
            # Half of them have sent more than is awaited in memory.
            wire.send(b"x" * (300_000 if number % 2 else 3))
        for _ in range(3):
            assert server.get("/hello").body == b"hello"
        for number, wire in enumerate(slow):
            wire.send(b"x" * (100_000 if number % 2 else 399_997))
            assert wire.response().body == b"400000"


@pytest.fixture
def connect_deaf(wire_on: Callable[[socket.socket], Wire]) -> Iterator[Callable[..., Wire]]:
    """Connects clients for which the kernel takes as little as it can."""
    with ExitStack() as stack:

        def connect(server: ServerProcess) -> Wire:
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
            return wire_on(sock)

        yield connect


def test_as_many_slow_readers_as_threads_hold_up_nobody(
    serve: Serve, loop_name: str, connect_deaf: Callable[..., Wire]
) -> None:
    """Of ordinary responses: those of up to 1 MiB."""
    server = serve("wsgi_plain:app", "--threads", "2")
    for _ in range(6):
        wire = connect_deaf(server)
        wire.send(b"GET /blocks?1000000 HTTP/1.1\r\nhost: a\r\n\r\n")
        assert wire.head().status == 200
    for _ in range(3):
        assert server.get("/hello").body == b"hello"
    assert not server.matching("responses are cut")


@pytest.mark.slow  # 5 s of patience
def test_readers_of_long_responses_hold_up_others_for_some_seconds_at_most(
    serve: Serve, connect_deaf: Callable[..., Wire]
) -> None:
    server = serve("wsgi_plain:app", "--threads", "2")
    for _ in range(2):
        wire = connect_deaf(server)
        wire.send(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        assert wire.head().status == 200
    assert server.get("/hello").body == b"hello"
    server.wait_for("responses are cut")
    server.wait_for("^closed$")


def test_as_many_slow_downloads_as_threads_hold_up_nobody(
    serve: Serve, loop_name: str, tmp_path: Path, connect_deaf: Callable[..., Wire]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 16) * 80)
    server = serve("wsgi_plain:app", "--threads", "1", env={"WSGI_FILE": str(path)})
    for _ in range(3):
        wire = connect_deaf(server)
        wire.send(b"GET /file HTTP/1.1\r\nhost: a\r\n\r\n")
        assert wire.head().status == 200
    assert server.get("/hello").body == b"hello"


def test_a_large_body_goes_through_in_bounded_memory(serve: Serve) -> None:
    server = serve("wsgi_plain:app")
    server.get("/hello")
    before = server.memory()
    size = 60_000_000
    with server.connect() as wire:
        wire.send(b"POST /count HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(60):
            wire.send(b"x" * 1_000_000)
        assert wire.response().body == str(size).encode()
    assert server.memory() - before < 20_000_000


def test_a_file_is_sent_by_the_kernel_whole(serve: Serve, loop_name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = os.urandom(1 << 16) * 80
    path.write_bytes(content)
    server = serve("wsgi_plain:app", env={"WSGI_FILE": str(path)})
    with server.connect() as wire:
        for _ in range(2):
            response = wire.get("/file")
            assert response.header("content-length") == str(len(content))
            assert response.body == content
        # What the kernel was asked to send, and has sent.
        assert wire.get("/sendfile").body == str(2 * len(content)).encode()


def test_a_body_past_the_limit_is_413(serve: Serve) -> None:
    server = serve("wsgi_plain:app", "--limit-request-body", "1000")
    with server.connect() as wire:
        wire.send(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1001\r\n\r\n")
        assert wire.response().status == 413
    with server.connect() as wire:
        wire.send(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n", b"x" * 1000)
        assert wire.response().body == b"x" * 1000


def test_a_failure_is_logged_once_and_answered(serve: Serve) -> None:
    server = serve("wsgi_plain:app", "--no-access-log", errors=True)
    assert server.get("/fail").status == 500
    server.wait_for("RuntimeError: the application has a bug")
    assert len(server.matching("the application failed")) == 1


def test_the_access_log_has_the_request(serve: Serve) -> None:
    server = serve("wsgi_plain:app")
    server.get("/hello?a=b")
    server.wait_for(r'"GET /hello\?a=b HTTP/1.1" 200')


def test_root_path_and_proxy_headers_arrive(serve: Serve) -> None:
    server = serve("wsgi_plain:app", "--root-path", "/mounted")
    fields = ("x-forwarded-proto: https", "x-forwarded-for: 192.0.2.9")
    assert server.get("/address", *fields).body == b"https 192.0.2.9 /mounted /address HTTP/1.1"


def test_http2_serves_wsgi(serve: Serve) -> None:
    pytest.importorskip("h2", reason="h2 is not installed")
    server = serve("wsgi_plain:app", "--dev-tls", addresses=1)
    address = server.addresses[0]
    with httpx.Client(base_url=address, http2=True, verify=False, trust_env=False) as client:
        response = client.get("/hello")
        assert (response.http_version, response.content) == ("HTTP/2", b"hello")
        content = bytes(range(256)) * 8_000
        assert client.post("/echo", content=content).content == content
        assert len(client.get("/file").content) == (APPS / "wsgi_plain.py").stat().st_size


# ---------------------------------------------------------------- the end


def test_a_request_in_progress_is_finished_before_the_end(
    serve: Serve, loop_name: str, eventually: Callable[..., object]
) -> None:
    server = serve("wsgi_plain:app")
    with server.connect() as wire:
        wire.send(b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 999999\r\n\r\n")
        wire.send(b"x" * 300_000)
        server.wait_for("^reading$")
        server.kill()
        eventually(server.refuses, "the server accepts no more")
        wire.send(b"x" * 699_999)
        assert wire.response().body == b"whole"
        assert server.wait() == 0


def test_a_thread_that_never_returns_does_not_hold_up_the_end(serve: Serve) -> None:
    server = serve("wsgi_plain:app", "--timeout-graceful-shutdown", "0.2")
    with server.connect() as wire:
        wire.send(b"GET /deaf HTTP/1.1\r\nhost: a\r\n\r\n")
        server.wait_for("^deaf$")
        server.kill()
        assert server.ends_within(10.0)
        assert server.process.returncode == 0
        assert server.matching("1 threads stay behind")


@pytest.mark.parametrize(
    "cycles",
    [50, pytest.param(1000, marks=pytest.mark.slow)],  # 10 s
)
def test_starting_and_stopping_leaves_no_thread(cycles: int) -> None:
    from omnicorn import Server
    from omnicorn.config import Config

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"hi"]

    async def main() -> None:
        config = Config(port=0, access_log=False)
        for _ in range(cycles):
            async with Server(app, config) as server:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", int(server.urls[0].rpartition(":")[2])
                )
                writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                assert (await reader.read()).endswith(b"hi")
                writer.close()
                await writer.wait_closed()

    before = set(threading.enumerate())
    asyncio.run(main())
    assert set(threading.enumerate()) == before


# ---------------------------------------------------------------- which interface


def test_what_cannot_be_told_is_a_usage_error_that_names_the_option(serve: Serve) -> None:
    server = serve("wsgi_plain:anything", wait=False)
    server.expected_code = None
    assert server.wait() == 2
    assert server.matching("--interface asgi3, asgi2 or wsgi")


def test_the_option_says_what_cannot_be_told(serve: Serve) -> None:
    server = serve("wsgi_plain:anything", "--interface", "wsgi")
    assert server.get("/hello").body == b"hello"


def test_the_wrong_interface_is_explained_in_the_log(serve: Serve) -> None:
    server = serve("wsgi_plain:app", "--interface", "asgi3", errors=True)
    assert server.get("/hello").status == 500
    server.wait_for("--interface asgi2 or --interface wsgi")
