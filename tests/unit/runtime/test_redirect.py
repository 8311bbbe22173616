"""Where plain HTTP is sent: every answer as the client would see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.runtime.redirect import Redirect

if TYPE_CHECKING:
    from collections.abc import Callable


class Answer:
    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = dict(line.split(": ", 1) for line in lines)


@pytest.fixture
def ask(serve: Callable[..., Any]) -> Callable[..., Answer]:
    def ask(
        host: str, target: str = "/", *, port: int | None = 8443, own: int = 80, method: str = "GET"
    ) -> Answer:
        served = serve(Redirect(port), link={"sockname": ("127.0.0.1", own)})
        return Answer(served.send(f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()))

    return ask


@pytest.mark.parametrize(
    ("host", "target", "location"),
    [
        ("a.example", "/", "https://a.example:8443/"),
        ("a.example", "/a%20b/;c?d=e&f", "https://a.example:8443/a%20b/;c?d=e&f"),
        ("a.example", "//b.example/c", "https://a.example:8443//b.example/c"),
        ("a.example", "http://b.example/c?d", "https://b.example:8443/c?d"),
        ("[::1]", "/", "https://[::1]:8443/"),
        ("[::1]:80", "/", "https://[::1]:8443/"),
        ("a.example:80", "/", "https://a.example:8443/"),
        ("a.example:080", "/", "https://a.example:8443/"),
        ("a.example:", "/", "https://a.example:8443/"),
    ],
)
def test_the_same_host_and_target_are_on_the_port_of_tls(
    ask: Callable[..., Answer], host: str, target: str, location: str
) -> None:
    answer = ask(host, target)

    assert (answer.status, answer.headers["location"]) == (308, location)


@pytest.mark.parametrize(
    ("host", "port", "own", "location"),
    [
        ("a.example", 443, 80, "https://a.example/"),
        ("a.example:8080", 8443, 8080, "https://a.example:8443/"),
        # Somebody between maps 80 to 8080: what 8443 is out there is not known.
        ("a.example", 8443, 8080, "https://a.example/"),
        ("a.example:8000", 8443, 8080, "https://a.example/"),
        # TLS is spoken on a socket file.
        ("a.example", None, 80, "https://a.example/"),
    ],
)
def test_the_port_is_named_where_it_is_known_and_not_443(
    ask: Callable[..., Answer], host: str, port: int | None, own: int, location: str
) -> None:
    assert ask(host, port=port, own=own).headers["location"] == location


@pytest.mark.parametrize("host", ["", ":80"])
def test_without_a_host_there_is_nowhere_to_go(ask: Callable[..., Answer], host: str) -> None:
    answer = ask(host)

    assert answer.status == 400
    assert "location" not in answer.headers


def test_a_request_of_http_1_0_without_a_host_is_answered_400(
    serve: Callable[..., Any],
) -> None:
    served = serve(Redirect(443))

    assert Answer(served.send(b"GET / HTTP/1.0\r\n\r\n")).status == 400


def test_the_server_as_a_whole_is_named_without_a_path(ask: Callable[..., Answer]) -> None:
    assert ask("a.example", "*", method="OPTIONS").headers["location"] == "https://a.example:8443"


def test_a_head_request_gets_the_head_alone(ask: Callable[..., Answer]) -> None:
    answer = ask("a.example", method="HEAD")

    assert (answer.status, answer.body) == (308, b"")
    assert answer.headers["content-length"] == "36"


def test_content_is_neither_awaited_nor_read(serve: Callable[..., Any]) -> None:
    served = serve(Redirect(443))

    answer = Answer(served.send(b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 9\r\n\r\n"))

    assert answer.status == 308


def test_a_peer_of_a_socket_without_a_name_is_answered_without_a_port(
    serve: Callable[..., Any],
) -> None:
    served = serve(Redirect(8443), link={"sockname": None})

    answer = Answer(served.send(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n"))
    assert answer.headers["location"] == "https://a.example/"
