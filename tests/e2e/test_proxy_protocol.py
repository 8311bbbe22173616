"""HAProxy in front, which says by a PROXY header who its clients are."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.certificates import Authority

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    Serve = Any
    HAProxy = Callable[..., "Front"]
    Run = Callable[..., subprocess.CompletedProcess[str]]

AUTHORITY = Authority()
DOCUMENT = Path(__file__).parents[2] / "docs/guide/behind-a-proxy.md"

DEFAULTS = """
global
    log stdout format raw local0
defaults
    log global
    timeout connect 10s
    timeout client 20s
    timeout server 20s
    unique-id-format %[src]:%[src_port]
"""


class Front(NamedTuple):
    """A frontend of a running HAProxy."""

    port: int
    process: Any


@pytest.fixture
def haproxy(serve: Serve, tmp_path: Path) -> Iterator[HAProxy]:
    """Runs HAProxy: ``haproxy(port, "send-proxy", bind="", mode="http", more="")``.

    It gets its listening socket from here, so no port is guessed.
    """
    program = shutil.which("haproxy")
    if program is None:
        pytest.skip("haproxy is not installed (Debian: apt-get install haproxy)")
    listeners: list[socket.socket] = []

    def run(port: int, server: str, *, bind: str = "", mode: str = "http", more: str = "") -> Front:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        config = tmp_path / f"{len(listeners)}.cfg"
        config.write_text(
            f"{DEFAULTS}\n    mode {mode}\nlisten front\n    bind fd@{listener.fileno()} {bind}\n"
            f"    server s 127.0.0.1:{port} {server}\n{more}"
        )
        process = serve.run(
            [program, "-db", "-f", str(config)], pass_fds=[listener.fileno()], cwd=tmp_path
        )
        process.expected_code = None
        return Front(listener.getsockname()[1], process)

    yield run
    for listener in listeners:
        listener.close()


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """A file with a certificate and its key, as HAProxy wants it."""
    issued = AUTHORITY.issue("127.0.0.1")
    path = tmp_path / "both.pem"
    path.write_text(issued.pem + issued.key_pem())
    return str(path)


def addressed(curl: Run, url: str, *options: str) -> tuple[Any, tuple[str, int]]:
    """The scope of a request, and the address that curl had asked from."""
    done = curl(
        "--retry", "5", "--retry-connrefused", "--insecure",
        "--write-out", "\n%{local_ip} %{local_port}", url, *options,
    )  # fmt: skip
    body, _, mine = done.stdout.rpartition("\n")
    host, _, port = mine.partition(" ")
    return json.loads(body), (host, int(port))


@pytest.mark.parametrize("sends", ["send-proxy", "send-proxy-v2"])
def test_the_client_is_who_asked_haproxy(
    serve: Serve, haproxy: HAProxy, curl: Run, sends: str, loop_name: str
) -> None:
    server = serve("plain:app", "--proxy-protocol", loop=loop_name)
    front = haproxy(server.port, sends)
    scope, mine = addressed(curl, f"http://127.0.0.1:{front.port}/scope")

    assert tuple(scope["client"]) == mine
    assert scope["server"] == ["127.0.0.1", front.port]
    assert scope["scheme"] == "http"


def test_connections_are_kept(serve: Serve, haproxy: HAProxy, curl: Run) -> None:
    server = serve("plain:app", "--proxy-protocol")
    front = haproxy(server.port, "send-proxy-v2")
    url = f"http://127.0.0.1:{front.port}/scope"
    done = curl(url, url, url)

    assert done.stdout.count('"type": "http"') == 3


def test_what_haproxy_adds_reaches_the_application(
    serve: Serve, haproxy: HAProxy, curl: Run
) -> None:
    server = serve("plain:app", "--proxy-protocol")
    front = haproxy(server.port, "send-proxy-v2 proxy-v2-options unique-id,crc32c")
    scope, mine = addressed(curl, f"http://127.0.0.1:{front.port}/scope")

    assert scope["extensions"]["omnicorn.proxy"]["unique_id"] == f"{mine[0]}:{mine[1]}"
    assert "tls" not in scope["extensions"]


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_tls_that_haproxy_ends_is_https(
    serve: Serve, haproxy: HAProxy, curl: Run, certificate: str, version: str
) -> None:
    server = serve("plain:app", "--proxy-protocol")
    options = "send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,ssl-cipher,authority"
    front = haproxy(
        server.port,
        options + (" proto h2" if version == "2" else ""),
        bind=f"ssl crt {certificate}",
    )
    scope, mine = addressed(curl, f"https://127.0.0.1:{front.port}/scope")
    tls = scope["extensions"]["tls"]

    assert (scope["scheme"], scope["http_version"]) == ("https", version)
    assert tuple(scope["client"]) == mine
    assert tls["tls_version"] == 0x0304
    assert tls["cipher_suite"] in (0x1301, 0x1302, 0x1303)
    assert scope["extensions"]["omnicorn.proxy"]["tls"]["cipher"].startswith("TLS_")


def test_a_header_may_stand_before_our_own_tls(
    serve: Serve, haproxy: HAProxy, curl: Run, tmp_path: Path
) -> None:
    certfile, keyfile = AUTHORITY.issue("127.0.0.1").save(tmp_path, "server")
    server = serve(
        "plain:app", "--proxy-protocol", "--ssl-certfile", certfile, "--ssl-keyfile", keyfile
    )
    port = int(server.addresses[0].rpartition(":")[2])
    front = haproxy(port, "send-proxy-v2", mode="tcp")
    scope, mine = addressed(curl, f"https://127.0.0.1:{front.port}/scope")

    assert (scope["scheme"], scope["http_version"]) == ("https", "2")
    assert tuple(scope["client"]) == mine


def test_a_websocket_goes_through(serve: Serve, haproxy: HAProxy) -> None:
    websockets = pytest.importorskip("websockets.sync.client", reason="needs websockets")
    server = serve("ws_plain:app", "--proxy-protocol")
    front = haproxy(server.port, "send-proxy-v2 proxy-v2-options unique-id")
    with websockets.connect(f"ws://127.0.0.1:{front.port}/echo", proxy=None) as client:
        client.send("hello")

        assert client.recv(10) == "hello"


def documented(front: str, **replaced: str) -> str:
    """The configuration that the document gives, but for its addresses."""
    found = re.search(rf"```\w+\n# {front}, PROXY\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    text = found[1]
    for old, new in replaced.items():
        text, count = re.subn(rf"\b{old} .*:?\d+\b", f"{old} {new}", text)
        assert count == 1, old
    return text


def test_haproxy_as_the_document_has_it(serve: Serve, curl: Run, tmp_path: Path) -> None:
    program = shutil.which("haproxy")
    if program is None:
        pytest.skip("haproxy is not installed (Debian: apt-get install haproxy)")
    server = serve("plain:app", "--proxy-protocol", "--proxy-allow-from", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        text = documented("HAProxy", bind=f"fd@{fd}")
        assert "127.0.0.1:8000 send" in text
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        config = tmp_path / "haproxy.cfg"
        config.write_text(f"{DEFAULTS.replace('unique-id-format', '# ')}\n{text}")
        process = serve.run([program, "-db", "-f", str(config)], pass_fds=[fd], cwd=tmp_path)
        process.expected_code = None
        scope, mine = addressed(curl, f"http://127.0.0.1:{listener.getsockname()[1]}/scope")

    assert tuple(scope["client"]) == mine


def test_nginx_as_the_document_has_it(serve: Serve, curl: Run, tmp_path: Path) -> None:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if program is None or not module.exists():
        pytest.skip("nginx's stream is not installed (Debian: apt-get install libnginx-mod-stream)")
    server = serve("plain:app", "--proxy-protocol", "--proxy-allow-from", "127.0.0.1")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    config = tmp_path / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    block = documented("nginx", listen=f"127.0.0.1:{port}", proxy_pass=f"127.0.0.1:{server.port}")
    config.write_text(
        f"load_module {module};\n{user}daemon off;\npid {tmp_path}/pid;\nerror_log stderr;\n"
        f"events {{}}\n{block}"
    )
    process = serve.run([program, "-e", "stderr", "-c", str(config)], cwd=tmp_path)
    process.expected_code = None
    scope, mine = addressed(curl, f"http://127.0.0.1:{port}/scope")

    assert tuple(scope["client"]) == mine


@pytest.mark.parametrize("sends", ["send-proxy", "send-proxy-v2"])
def test_health_checks_are_accepted(serve: Serve, haproxy: HAProxy, sends: str) -> None:
    server = serve("plain:app", "--proxy-protocol")
    haproxy(
        server.port,
        f"{sends} check check-send-proxy inter 100",
        more="    option httpchk GET /\n",
    )
    # Twice, so that the first was accepted. They come from HAProxy itself.
    server.wait_for(r'127\.0\.0\.1:\d+ - "GET / HTTP', count=2)

    assert server.matching("- cut:") == []


def test_who_sends_no_header_is_cut_and_logged(serve: Serve) -> None:
    server = serve("plain:app", "--proxy-protocol")
    with server.connect() as wire:
        wire.send(b"GET / HTTP/1.1\r\nhost: e2e\r\n\r\n")
        assert wire.is_closed()

    server.wait_for(r"127\.0\.0\.1:\d+ - cut: the connection does not begin with a PROXY header")


def test_who_is_not_allowed_is_cut_and_logged(serve: Serve) -> None:
    server = serve("plain:app", "--proxy-protocol", "--proxy-allow-from", "192.0.2.0/24")
    with server.connect() as wire:
        assert wire.is_closed()

    server.wait_for(r"- cut: its address is not in proxy_allow_from")


def test_a_header_is_not_believed_where_none_is_expected(serve: Serve) -> None:
    server = serve("plain:app")
    with server.connect() as wire:
        wire.send(b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\nGET / HTTP/1.1\r\nhost: e2e\r\n\r\n")

        assert wire.response().status == 400


def test_a_unix_socket_may_be_told_of_clients(serve: Serve, tmp_path: Path) -> None:
    server = serve("plain:app", "--proxy-protocol", "--uds", str(tmp_path / "s"))
    with server.connect() as wire:
        wire.send(b"PROXY TCP6 2001:db8::1 2001:db8::2 45862 443\r\n")
        scope = json.loads(wire.get("/scope").body)

    assert scope["client"] == ["2001:db8::1", 45862]


def test_a_server_that_stops_waits_for_no_header(serve: Serve) -> None:
    server = serve("plain:app", "--proxy-protocol")
    with server.connect() as silent, server.connect() as begun:
        begun.send(b"PROXY TCP4 ")
        with server.connect() as wire:
            wire.send(b"PROXY UNKNOWN\r\n")
            assert wire.get("/").status == 200
        assert server.stop() == 0
        assert silent.is_closed() and begun.is_closed()


def test_tls_may_come_together_with_the_header(serve: Serve, tmp_path: Path) -> None:
    certfile, keyfile = AUTHORITY.issue("127.0.0.1").save(tmp_path, "server")
    server = serve(
        "plain:app", "--proxy-protocol", "--ssl-certfile", certfile, "--ssl-keyfile", keyfile
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(received, sent)
    port = int(server.addresses[0].rpartition(":")[2])
    sent.write(b"PROXY TCP4 192.0.2.1 198.51.100.1 45862 443\r\n")
    with socket.create_connection(("127.0.0.1", port), 10) as sock:

        def until_done(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    sock.sendall(sent.read())
                    received.write(sock.recv(65536))

        until_done(tls.do_handshake)
        tls.write(b"GET /scope HTTP/1.1\r\nhost: e2e\r\nconnection: close\r\n\r\n")
        answer = until_done(lambda: tls.read(65536))

    assert b'"client": ["192.0.2.1", 45862]' in answer
