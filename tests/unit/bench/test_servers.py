from __future__ import annotations

import http.server
import threading
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bench import certificate, servers, websocket
from bench.cases import CASES, Case

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterator

    from conftest import Peer, StreamPeer

HELLO, BROWSER, LOG, WS, FANOUT, H1_TLS, H2, H2_TLS, H2_BROWSER, TRIO, WSGI, SCGI = (
    next(case for case in CASES if case.name == name)
    for name in (
        *("hello", "unique", "log", "ws", "ws-fanout"),
        *("h1-tls", "h2", "h2-tls", "h2-browser"),
        *("trio", "wsgi", "scgi"),
    )
)


@contextmanager
def answering(
    status: int,
    body: bytes,
    echo: str = "",
    *,
    keep: bool = True,
    tls: ssl.SSLContext | None = None,
) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if echo:
                self.send_header(echo, self.headers[echo])
            if not keep:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None: ...

    with http.server.HTTPServer((servers.HOST, 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_the_right_answer_passes() -> None:
    with answering(200, HELLO.body) as port:
        servers.check_answer(HELLO, port)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [(404, HELLO.body, "status 404, not 200"), (200, b"Hello, World!", "not the expected 13")],
)
def test_a_wrong_answer_is_named(status: int, body: bytes, reason: str) -> None:
    with (
        answering(status, body) as port,
        pytest.raises(servers.ServerFailed, match=reason),
    ):
        servers.check_answer(HELLO, port)


def test_a_connection_closed_after_one_request_is_a_wrong_answer() -> None:
    with (
        answering(200, HELLO.body, keep=False) as port,
        pytest.raises(servers.ServerFailed, match="closes the connection"),
    ):
        servers.check_answer(HELLO, port)


def test_an_echoed_header_must_come_back() -> None:
    with answering(200, BROWSER.body, echo="X-Request-Id") as port:
        servers.check_answer(BROWSER, port)
    with (
        answering(200, BROWSER.body) as port,
        pytest.raises(servers.ServerFailed, match="X-Request-Id came back changed"),
    ):
        servers.check_answer(BROWSER, port)


def test_nobody_listening_is_a_failure_too() -> None:
    with pytest.raises(servers.ServerFailed, match="ConnectionRefusedError"):
        servers.check_answer(HELLO, servers.free_port())


HTTP_SERVERS = [server for server in (servers.OMNICORN, *servers.PEERS) if server.takes(HELLO)]


@pytest.mark.parametrize("server", HTTP_SERVERS, ids=lambda s: s.name)
def test_every_server_gets_port_application_and_the_log_it_was_asked_for(
    server: servers.Server,
) -> None:
    quiet, logging = (server.command(case, 8123) for case in (HELLO, LOG))

    assert quiet[1:3] == ["-m", server.module]
    assert quiet[-1] == logging[-1] == "bench.apps:hello"
    assert any("8123" in flag for flag in quiet)
    assert not any("{" in flag for flag in quiet)
    assert quiet != logging


def test_only_servers_of_http_2_are_asked_for_it() -> None:
    takers = {
        case.name: [s.name for s in (servers.OMNICORN, *servers.PEERS) if s.takes(case)]
        for case in (H1_TLS, H2, H2_TLS)
    }

    assert takers == {
        "h1-tls": ["omnicorn", "uvicorn", "granian", "hypercorn"],
        "h2": ["omnicorn", "granian", "hypercorn"],
        "h2-tls": ["omnicorn", "granian", "hypercorn"],
    }


def test_only_servers_that_know_a_way_are_asked_for_it() -> None:
    takers = {
        case.name: [s.name for s in (servers.OMNICORN, *servers.PEERS) if s.takes(case)]
        for case in (TRIO, WSGI, SCGI)
    }

    assert takers == {
        "trio": ["omnicorn", "uvicorn", "hypercorn"],
        "wsgi": ["omnicorn", "granian", "gunicorn", "hypercorn"],
        "scgi": ["omnicorn", "aioscgi"],
    }


@pytest.mark.parametrize(
    ("name", "case", "words"),
    [
        ("omnicorn", HELLO, "--host 127.0.0.1 --port 8123"),
        ("omnicorn", TRIO, "--host 127.0.0.1 --port 8123 --loop trio"),
        ("omnicorn", WSGI, "--host 127.0.0.1 --port 8123 --interface wsgi --threads 4"),
        ("omnicorn", SCGI, "--bind scgi:127.0.0.1:8123"),
        ("hypercorn", TRIO, "--worker-class trio"),
        ("gunicorn", WSGI, "--worker-class gthread --threads 4"),
        ("granian", WSGI, "--interface wsgi"),
        ("aioscgi", SCGI, "/bin/aioscgi --tcp 127.0.0.1:8123"),
    ],
)
def test_the_way_of_a_case_is_told_to_a_server(name: str, case: Case, words: str) -> None:
    server = next(s for s in (servers.OMNICORN, *servers.PEERS) if s.name == name)

    command = " ".join(server.command(case, 8123))

    assert words in command
    assert command.endswith(f" bench.apps:{case.app}")


@pytest.mark.parametrize("case", [HELLO, H1_TLS, H2, H2_TLS], ids=lambda case: case.name)
def test_version_and_certificate_are_told_to_a_server(case: Case) -> None:
    granian = next(server for server in servers.PEERS if server.name == "granian")

    command = granian.command(case, 8123)

    assert command[command.index("--http") + 1] == ("2" if case.streams else "1")
    for file in (certificate.CERTIFICATE, certificate.KEY):
        assert (str(file) in command) == case.tls


def test_hypercorn_is_told_by_a_file_to_keep_connections() -> None:
    hypercorn = next(server for server in servers.PEERS if server.name == "hypercorn")
    command = hypercorn.command(H2, 8123)

    told = tomllib.loads(Path(command[command.index("--config") + 1]).read_text())

    assert told["keep_alive_max_requests"] >= 1_000_000_000
    assert "--config" not in hypercorn.command(HELLO, 8123)


def test_the_right_answer_passes_over_tls(certified: ssl.SSLContext) -> None:
    with answering(200, HELLO.body, tls=certified) as port:
        servers.check_answer(H1_TLS, port)
        assert servers._answers(H1_TLS, port)


def test_a_server_without_tls_is_a_wrong_answer_to_a_case_of_tls(
    certified: ssl.SSLContext,
) -> None:
    with (
        answering(200, HELLO.body) as port,
        pytest.raises(servers.ServerFailed, match="wrong answer: SSLError"),
    ):
        servers.check_answer(H1_TLS, port)


@pytest.mark.parametrize("case", [H2, H2_BROWSER], ids=lambda case: case.name)
def test_the_right_answer_passes_over_http_2(stream_peer: StreamPeer, case: Case) -> None:
    stream_peer.body = case.body

    servers.check_answer(case, stream_peer.address[1])

    assert stream_peer.connections == [2]
    assert servers._answers(case, stream_peer.address[1])


def test_a_wrong_answer_over_http_2_is_named(stream_peer: StreamPeer) -> None:
    stream_peer.status = "503"

    with pytest.raises(servers.ServerFailed, match="status 503, not 200"):
        servers.check_answer(H2, stream_peer.address[1])
    assert not servers._answers(H2, stream_peer.address[1])


def test_http_1_is_a_wrong_answer_to_a_case_of_http_2() -> None:
    pytest.importorskip("hpack")
    with (
        answering(200, HELLO.body) as port,
        pytest.raises(servers.ServerFailed, match="wrong answer: "),
    ):
        servers.check_answer(H2, port)


def test_over_tls_http_2_is_checked_with_its_certificate(
    stream_peer: StreamPeer, certified: ssl.SSLContext
) -> None:
    certified.set_alpn_protocols(["h2", "http/1.1"])
    stream_peer.tls, stream_peer.body = certified, H2_TLS.body

    servers.check_answer(H2_TLS, stream_peer.address[1])


def test_an_extra_server_is_another_with_more_flags() -> None:
    made = servers.extra("plain=omnicorn --loop asyncio")

    assert made.name == "plain"
    assert made.flags == (*servers.OMNICORN.flags, "--loop", "asyncio")
    assert made.requirements == servers.OMNICORN.requirements


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("omnicorn --loop asyncio", "expected NAME=BASE"),
        ("=omnicorn", "expected NAME=BASE"),
        ("x=nginx", "no server 'nginx'"),
        ("x=", "no server ''"),
    ],
)
def test_an_extra_server_that_makes_no_sense_is_explained(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        servers.extra(text)


def test_the_version_of_every_server_is_reported() -> None:
    for server in (servers.OMNICORN, *servers.PEERS):
        assert server.name in server.distributions


def test_the_right_message_passes(peer: Peer) -> None:
    servers.check_answer(WS, peer.address[1])

    assert len(peer.messages) == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\x81\x02no", "a message came back changed"),
        (b"\x88\x02\x03\xf0", "closed with 1008"),
        (b"", "closed without a close frame"),
    ],
)
def test_a_wrong_message_is_named(peer: Peer, answer: bytes, reason: str) -> None:
    peer.answer = lambda opcode, payload: answer

    with pytest.raises(servers.ServerFailed, match=f"wrong answer: {reason}"):
        servers.check_answer(WS, peer.address[1])


def test_text_that_comes_back_as_binary_is_a_wrong_answer(peer: Peer) -> None:
    peer.answer = lambda opcode, payload: bytes((0x82, len(payload))) + payload

    with pytest.raises(servers.ServerFailed, match="a message came back changed"):
        servers.check_answer(WS, peer.address[1])


@pytest.mark.parametrize("hearing", [2, 1])
def test_a_fan_out_must_reach_every_listener(
    peer: Peer, hearing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "SECONDS", 0.2)

    def tell(data: bytes, others: list[socket.socket]) -> None:
        for link in others[:hearing]:
            link.sendall(data)

    peer.tell = tell

    if hearing == 2:
        servers.check_answer(FANOUT, peer.address[1])
    else:
        with pytest.raises(servers.ServerFailed, match="timed out"):
            servers.check_answer(FANOUT, peer.address[1])


def test_the_aim_of_sockets_serves_by_itself_and_only_echoes() -> None:
    aim = servers.AIM_OF_SOCKETS

    assert [case.name for case in CASES if aim.takes(case)] == ["ws", "ws-large"]
    assert aim.command(WS, 8123)[1:] == ["-m", "bench.aim", "8123"]


def test_a_server_of_sockets_has_started_when_it_shakes_hands(peer: Peer) -> None:
    class Process:
        returncode = None

        def poll(self) -> None: ...

    servers._await_answer(Process(), WS, peer.address[1], Path("none"))  # type: ignore[arg-type]

    assert [head.split("\n")[0] for head in peer.heads] == ["GET / HTTP/1.1"]


def test_a_server_may_find_the_application_elsewhere_than_its_case_says() -> None:
    case = next(case for case in CASES if case.name == "django-sync")
    assert servers.OMNICORN.command(case, 1)[-1] == "bench.django_toolkit:application"
    assert servers.ON_ASGIREF.command(case, 1)[-1] == "bench.django_site:application"
    assert [each.name for each in CASES if servers.ON_ASGIREF.takes(each)] == [
        "django-sync",
        "django-async",
    ]
