"""What clients see on the wire: curl, httpx, http.client and raw sockets."""

from __future__ import annotations

import http.client
import json
import re
import socket
import stat
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Response, Serve, ServerProcess

    Curl = Callable[..., subprocess.CompletedProcess[str]]

HTTP_DATE = r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module("plain:app", "--no-access-log")


def scope_of(response: Response) -> Any:
    assert response.status == 200
    return json.loads(response.body)


# ---------------------------------------------------------------------------------- curl


def test_curl_gets_a_page_on_every_loop(serve: Serve, curl: Curl, loop_name: str) -> None:
    server = serve("plain:app", loop=loop_name)

    done = curl("-i", server.url)

    head, _, body = done.stdout.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert "content-length: 5" in head and "server: omnicorn" in head
    assert re.search(rf"\r\ndate: {HTTP_DATE}(\r\n|$)", head)
    assert body == "hello"


def test_curl_head_gets_the_head_alone(server: ServerProcess, curl: Curl) -> None:
    done = curl("--head", server.url)

    assert done.stdout.startswith("HTTP/1.1 200 OK\r\n")
    assert done.stdout.endswith("\r\n\r\n")
    assert "content-length: 5\r\n" in done.stdout


def test_curl_reuses_its_connection(server: ServerProcess, curl: Curl) -> None:
    done = curl("-w", " %{num_connects}\n", server.url, f"{server.url}/numbered?second")

    assert done.stdout == "hello 1\nsecond 0\n"


def test_curl_uploads_in_chunks(server: ServerProcess, curl: Curl) -> None:
    content = b"0123456789" * 100_000

    done = curl("-T", "-", "-X", "POST", f"{server.url}/count", content=content)

    assert done.stdout == "1000000"


def test_curl_waits_for_100_continue_before_a_large_body(
    server: ServerProcess, curl: Curl, tmp_path: Path
) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"x" * (20 << 20))
    expect = ("-H", "Expect: 100-continue", "--expect100-timeout", "15")

    done = curl("-v", "-T", str(file), *expect, "-w", " %{time_total}", f"{server.url}/count")

    body, seconds = done.stdout.split(" ")
    assert body == str(20 << 20)
    assert "< HTTP/1.1 100 Continue" in done.stderr
    assert float(seconds) < 15  # it did not have to give up waiting


def test_curl_is_told_not_to_send_a_body_that_nobody_reads(
    server: ServerProcess, curl: Curl, tmp_path: Path
) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"x" * (20 << 20))
    expect = ("-H", "Expect: 100-continue", "--expect100-timeout", "15")

    done = curl("-v", "-T", str(file), *expect, "-w", " %{size_upload}", f"{server.url}/early")

    assert done.stdout == "too much for me 0"
    assert "100 Continue" not in done.stderr


def test_curl_speaks_http_1_0(server: ServerProcess, curl: Curl) -> None:
    done = curl("-i", "--http1.0", f"{server.url}/stream")

    head, _, body = done.stdout.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert "chunked" not in head and "connection: close" in head
    assert body == "000001111122222"


def test_curl_reads_a_chunked_stream(server: ServerProcess, curl: Curl) -> None:
    done = curl("--raw", f"{server.url}/stream?n=2&size=3")
    plain = curl(f"{server.url}/stream?n=2&size=3")

    assert done.stdout.endswith("0\r\n\r\n")
    assert plain.stdout == "000111"


# ------------------------------------------------------------------------ Python's clients


def test_httpx_keeps_its_connection_and_streams_both_ways(server: ServerProcess) -> None:
    def content() -> Any:
        for _ in range(50):
            yield b"y" * 10_000

    clients = set()
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for _ in range(3):
            clients.add(tuple(client.get("/scope").json()["client"]))
        assert client.post("/count", content=content()).text == "500000"
        assert client.post("/echo", content=b"body").content == b"body"
        with client.stream("GET", "/stream?n=100&size=1000") as response:
            assert response.headers["transfer-encoding"] == "chunked"
            assert sum(map(len, response.iter_bytes())) == 100_000
        clients.add(tuple(client.get("/scope").json()["client"]))

    assert len(clients) == 1


def test_http_client_keeps_its_connection(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/")
    first = connection.getresponse()
    assert (first.status, first.read()) == (200, b"hello")
    sock = connection.sock

    connection.request("HEAD", "/")
    second = connection.getresponse()
    assert (second.headers["content-length"], second.read()) == ("5", b"")
    connection.request("POST", "/echo", iter([b"one ", b"two"]), encode_chunked=True)
    assert connection.getresponse().read() == b"one two"

    assert connection.sock is sock
    connection.close()


# ----------------------------------------------------------------------------- raw sockets


def test_pipelined_requests_are_answered_in_order(serve: Serve, loop_name: str) -> None:
    server = serve("plain:app", "--no-access-log", loop=loop_name)
    request = b"GET /numbered?%d HTTP/1.1\r\nhost: e2e\r\n\r\n"
    post = b"POST /echo HTTP/1.1\r\nhost: e2e\r\ncontent-length: 4\r\n\r\nbody"

    with server.connect() as wire:
        wire.send(*(request % index for index in range(50)), post, request % 51)
        bodies = [wire.response().body for _ in range(52)]

    assert bodies == [*(b"%d" % index for index in range(50)), b"body", b"51"]


def test_a_request_may_come_byte_by_byte(server: ServerProcess) -> None:
    with server.connect() as wire:
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST /echo HTTP/1.1\r\nhost: e2e\r\ncontent-length: 3\r\n\r\nabc":
            wire.send(bytes([byte]))
        assert wire.response().body == b"abc"


def test_content_in_chunks_is_joined(server: ServerProcess) -> None:
    with server.connect() as wire:
        wire.send(
            b"POST /echo HTTP/1.1\r\nhost: e2e\r\ntransfer-encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n1;name=value\r\n \r\n5\r\nworld\r\n0\r\ntrailer: x\r\n\r\n"
        )
        assert wire.response().body == b"hello world"
        assert wire.get("/").body == b"hello"


def test_a_request_of_1_0_is_answered_and_closed(server: ServerProcess) -> None:
    with server.connect() as wire:
        wire.send(b"GET / HTTP/1.0\r\n\r\n")
        response = wire.response()
        assert (response.body, response.header("connection")) == (b"hello", "close")
        assert wire.is_closed()


def test_a_request_of_1_0_may_keep_the_connection(server: ServerProcess) -> None:
    with server.connect() as wire:
        for _ in range(2):
            wire.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            response = wire.response()
            assert (response.body, response.header("connection")) == (b"hello", "keep-alive")


def test_connection_close_is_obeyed(server: ServerProcess) -> None:
    with server.connect() as wire:
        assert wire.get("/", "connection: close").header("connection") == "close"
        assert wire.is_closed()


def test_a_client_that_closes_its_side_still_gets_its_answer(server: ServerProcess) -> None:
    with server.connect() as wire:
        wire.send(b"GET /stream?n=10 HTTP/1.1\r\nhost: e2e\r\n\r\n")
        wire.sock.shutdown(socket.SHUT_WR)
        assert len(wire.response().body) == 50
        assert wire.is_closed()


def test_the_absolute_form_wins_over_the_host_field(server: ServerProcess) -> None:
    with server.connect() as wire:
        scope = scope_of(wire.get("http://example.org:81/scope?a=b%20c"))

    assert (scope["path"], scope["query_string"]) == ("/scope", "a=b%20c")
    assert dict(scope["headers"])["host"] == "example.org:81"


def test_the_path_is_decoded_and_the_raw_one_is_not(server: ServerProcess) -> None:
    scope = scope_of(server.get("/scope?x=%C3%A9"))

    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (
        "/scope",
        "/scope",
        "x=%C3%A9",
    )
    assert scope["http_version"] == "1.1" and scope["scheme"] == "http"
    assert scope["server"] == ["127.0.0.1", server.port]
    assert scope["state"] == {"greeting": "from lifespan"}


def test_an_application_that_fails_is_a_500_with_one_traceback(serve: Serve) -> None:
    server = serve("plain:app", "--no-access-log", errors=True)

    with server.connect() as wire:
        response = wire.get("/fail")
        assert (response.status, response.body) == (500, b"Internal Server Error")
        assert wire.is_closed()
    server.stop()

    assert len(server.matching("GET '/fail': the application failed")) == 1
    assert len(server.matching("RuntimeError: the application has a bug")) == 1


def test_a_response_that_fails_half_way_is_not_ended_like_a_whole_one(serve: Serve) -> None:
    server = serve("plain:app", "--no-access-log", errors=True)

    with server.connect() as wire:
        wire.send(b"GET /fail-late HTTP/1.1\r\nhost: e2e\r\n\r\n")
        assert wire.head().header("transfer-encoding") == "chunked"
        assert wire.rest() == b"5\r\nbegun\r\n"
    server.wait_for("RuntimeError: the application has a late bug")


def test_a_response_to_1_0_that_fails_half_way_ends_in_a_reset(
    serve: Serve, loop_name: str
) -> None:
    server = serve("plain:app", "--no-access-log", errors=True, loop=loop_name)

    with server.connect() as wire:
        wire.send(b"GET /fail-late HTTP/1.0\r\nhost: e2e\r\n\r\n")
        server.wait_for("RuntimeError: the application has a late bug")
        with pytest.raises(ConnectionResetError):  # no other sign is there in HTTP/1.0
            wire.rest()


# ---------------------------------------------------------------------- where it listens


def test_port_0_prints_the_port_it_got(serve: Serve) -> None:
    server = serve("plain:app", "--port", "0")

    assert f"INFO:     omnicorn is serving on http://127.0.0.1:{server.port}" in server.lines
    assert server.port > 0 and server.get("/").body == b"hello"


def test_the_variable_port_is_obeyed(serve: Serve) -> None:
    with socket.socket() as probe:  # a port that is free now, and most likely still then
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    server = serve("plain:app", env={"PORT": str(port)})

    assert server.port == port
    assert server.get("/").body == b"hello"


def test_ipv6_is_served(serve: Serve) -> None:
    _need_ipv6()
    server = serve("plain:app", "--host", "::1", "--port", "0")

    assert re.fullmatch(r"http://\[::1\]:\d+", server.url)
    scope = scope_of(server.get("/scope"))
    assert scope["server"] == ["::1", server.port]
    assert scope["client"][0] == "::1"


def test_several_binds_are_served_by_one_process(serve: Serve, tmp_path: Path) -> None:
    _need_ipv6()
    path = tmp_path / "app.sock"
    binds = ("--bind", "127.0.0.1:0", "-b", "[::1]:0", "--bind", f"unix:{path}")

    server = serve("plain:app", *binds, addresses=3)

    assert [address.partition(":")[0] for address in server.addresses] == ["http", "http", "unix"]
    for address in server.addresses:
        with server.connect(address) as wire:
            assert wire.get("/").body == b"hello"


def test_a_unix_socket_is_served_and_removed_at_the_end(
    serve: Serve, curl: Curl, tmp_path: Path, loop_name: str
) -> None:
    path = tmp_path / "app.sock"
    server = serve("plain:app", "--uds", str(path), "--uds-permissions", "600", loop=loop_name)

    assert server.addresses == [f"unix:{path}"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert curl("--unix-socket", str(path), "http://e2e/").stdout == "hello"
    scope = scope_of(server.get("/scope"))
    assert (scope["server"], scope["client"]) == ([str(path), None], None)

    assert server.stop() == 0
    assert not path.exists()


def test_a_unix_socket_is_open_to_everybody_by_default_and_replaces_a_dead_one(
    serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    server = serve("plain:app", "--uds", str(path))

    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert server.get("/").body == b"hello"


@pytest.mark.parametrize("option", ["--fd", "--bind"])
def test_an_inherited_socket_is_served_and_left_open(serve: Serve, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        value = f"fd://{fd}" if option == "--bind" else str(fd)

        server = serve("plain:app", option, value, pass_fds=[fd])

        assert server.port == listener.getsockname()[1]
        assert server.get("/").body == b"hello"
        assert server.stop() == 0
        # A service manager goes on holding it: clients of the next server wait in its queue.
        socket.create_connection(listener.getsockname(), 5).close()


def test_an_inherited_unix_socket_keeps_its_file(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        fd = listener.fileno()

        server = serve("plain:app", "--bind", f"fd://{fd}", pass_fds=[fd])

        assert server.get("/").body == b"hello"
        assert server.stop() == 0
        assert path.exists()


def _need_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")


# ------------------------------------------------------------------------ what it adds


def test_headers_are_added_and_left_out_as_told(serve: Serve) -> None:
    extra = ("--header", "X-One: 1", "--header", "x-two: b: c")
    server = serve("plain:app", "--no-server-header", "--no-date-header", *extra)

    response = server.get("/")

    assert sorted(response.headers) == [
        ("content-length", "5"),
        ("content-type", "text/plain"),
        ("x-one", "1"),
        ("x-two", "b: c"),
    ]


def test_the_root_path_is_in_front_of_every_path(serve: Serve) -> None:
    server = serve("plain:app", "--root-path", "/mounted")

    scope = scope_of(server.get("/scope"))

    assert scope["root_path"] == "/mounted"
    assert (scope["path"], scope["raw_path"]) == ("/mounted/scope", "/mounted/scope")


def test_proxy_headers_are_believed_of_127_0_0_1_by_default(serve: Serve) -> None:
    server = serve("plain:app")

    scope = scope_of(
        server.get("/scope", "x-forwarded-for: 192.0.2.7, 127.0.0.1", "x-forwarded-proto: https")
    )

    assert (scope["client"], scope["scheme"]) == (["192.0.2.7", 0], "https")
    server.wait_for(r"192\.0\.2\.7:0 - \"GET /scope HTTP/1\.1\" 200")


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["--no-proxy-headers"], {}),
        (["--forwarded-allow-ips", "10.0.0.0/8"], {}),
        ([], {"FORWARDED_ALLOW_IPS": "192.0.2.1"}),
    ],
)
def test_proxy_headers_of_others_are_not_believed(
    serve: Serve, options: list[str], env: dict[str, str]
) -> None:
    server = serve("plain:app", *options, env=env)

    scope = scope_of(server.get("/scope", "x-forwarded-for: 192.0.2.7", "x-forwarded-proto: https"))

    assert (scope["client"][0], scope["scheme"]) == ("127.0.0.1", "http")


# ------------------------------------------------------------------------------- logs


def test_every_request_is_logged_to_standard_output(serve: Serve) -> None:
    server = serve("plain:app")

    server.get("/numbered?a=%22b%22")

    line = server.wait_for("/numbered")
    assert re.fullmatch(
        r'INFO:     127\.0\.0\.1:\d+ - "GET /numbered\?a=%22b%22 HTTP/1\.1" 200 OK', line
    )


def test_the_access_log_can_be_off(serve: Serve) -> None:
    server = serve("plain:app", "--no-access-log")

    assert server.get("/").status == 200
    server.stop()

    assert not server.matching("GET")


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (
            "combined",
            r"127\.0\.0\.1 - joe \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
            r'"GET / HTTP/1\.1" 200 5 "http://from/" "agent \\"x"',
        ),
        ("%(m)s %(U)s %(s)s %(B)s %({content-type}o)s", "GET / 200 5 text/plain"),
    ],
)
def test_the_access_log_goes_to_a_file_in_the_format_asked_for(
    serve: Serve, tmp_path: Path, format: str, expected: str
) -> None:
    file = tmp_path / "access.log"
    log = ("--access-log-file", str(file), "--access-log-format", format)
    server = serve("plain:app", *log)

    server.get(
        "/",
        "authorization: Basic am9lOnNlY3JldA==",
        "referer: http://from/",
        'user-agent: agent "x',
    )
    server.stop()

    lines = file.read_text().splitlines()
    assert len(lines) == 1 and re.fullmatch(expected, lines[0])
    assert not server.matching("GET")


def test_the_access_log_can_be_lines_of_json(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    log = ("--access-log-file", str(file), "--access-log-format", "json")
    server = serve("plain:app", *log)

    server.get("/numbered?q=1")
    server.get("/", method="HEAD")
    server.stop()

    first, second = map(json.loads, file.read_text().splitlines())
    assert (first["path"], first["query"], first["status"], first["bytes"]) == (
        "/numbered",
        "q=1",
        200,
        3,
    )
    assert 0 <= float(first["duration"]) < 10
    assert second["method"] == "HEAD"


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (b"nonsense\r\n\r\n", 400, "the request line names no HTTP version"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "the host field is missing"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "there are several host fields"),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n"
            b"transfer-encoding: chunked\r\n\r\n",
            400,
            "both content-length and transfer-encoding are given",
        ),
        (b"GET /%b HTTP/1.1\r\n" % (b"a" * 9000), 414, "the request line is too long"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\r\n\r\n", 400, "TLS was spoken"),
    ],
    ids=["nonsense", "no host", "two hosts", "smuggling", "long line", "tls"],
)
def test_a_malformed_request_is_answered_and_logged_once(
    server: ServerProcess, sent: bytes, status: int, reason: str
) -> None:
    with server.connect() as wire:
        peer = "{}:{}".format(*wire.sock.getsockname())
        wire.send(sent)
        response = wire.response()
        assert (response.status, response.header("connection")) == (status, "close")
        assert reason in response.body.decode()
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.is_closed()

    server.wait_for(re.escape(peer))
    assert server.get("/").status == 200  # time for a second line, if there were one
    (line,) = server.matching(re.escape(peer))
    assert line.startswith(f"WARNING:  {peer} - refused with {status}: ") and reason in line


def test_a_flood_of_malformed_requests_does_not_fill_the_log(serve: Serve) -> None:
    server = serve("plain:app")

    for _ in range(60):
        with server.connect() as wire:
            wire.send(b"nonsense\r\n\r\n")
            assert wire.response().status == 400
    server.stop()

    assert len(server.matching("refused with 400")) == 10


# ------------------------------------------------------------------------------ limits


def test_a_body_announced_as_too_large_is_a_413(serve: Serve) -> None:
    server = serve("plain:app", "--limit-request-body", "1000")

    with server.connect() as wire:
        assert wire.get("/count", "content-length: 1001", method="POST").status == 413
        assert wire.is_closed()
    with server.connect() as wire:
        wire.send(b"POST /count HTTP/1.1\r\nhost: e2e\r\ncontent-length: 1000\r\n\r\n", bytes(1000))
        assert wire.response().body == b"1000"


def test_a_chunked_body_that_becomes_too_large_is_a_413(serve: Serve) -> None:
    server = serve("plain:app", "--limit-request-body", "1000")

    with server.connect() as wire:
        wire.send(b"POST /count HTTP/1.1\r\nhost: e2e\r\ntransfer-encoding: chunked\r\n\r\n")
        wire.send(b"3e8\r\n", bytes(1000), b"\r\n")
        server.wait_for("reading")
        wire.send(b"1\r\nx\r\n")
        assert wire.response().status == 413
        assert wire.is_closed()
    server.wait_for("left after 1000")


def test_more_requests_than_the_limit_are_a_503_to_try_again(serve: Serve) -> None:
    server = serve("plain:app", "--limit-concurrency", "1")

    with server.connect() as first:
        first.send(b"POST /count HTTP/1.1\r\nhost: e2e\r\ncontent-length: 2\r\n\r\na")
        server.wait_for("reading")
        second = server.get("/")
        assert (second.status, second.header("retry-after")) == (503, "1")
        first.send(b"b")
        assert first.response().body == b"2"

    assert server.get("/").status == 200
