"""Heads of responses to front servers."""

from __future__ import annotations

from typing import Any

import pytest

from omnicorn.errors import LocalProtocolError
from omnicorn.protocols.cgi import ResponseEncoder

CGI, HTTP = ResponseEncoder(cgi=True), ResponseEncoder(cgi=False)


@pytest.mark.parametrize(
    ("encoder", "line"),
    [(CGI, b"Status: 404 Not Found\r\n"), (HTTP, b"HTTP/1.1 404 Not Found\r\n")],
    ids=["cgi", "http"],
)
def test_a_head_begins_as_its_protocol_says(encoder: ResponseEncoder, line: bytes) -> None:
    assert encoder.encode((404, (b"A", b"b"))).lines == line + b"A: b\r\n"


@pytest.mark.parametrize(
    "name",
    [
        b"Status",
        b"connection",
        b"Transfer-Encoding",
        b"keep-alive",
        b"upgrade",
        b"proxy-connection",
    ],
)
def test_what_the_front_would_take_for_its_own_is_dropped(name: bytes) -> None:
    for encoder in (CGI, HTTP):
        head = encoder.encode((200, (name, b"x"), (b"a", b"b")))

        assert head.lines == encoder.first_line(200) + b"a: b\r\n"


def test_fields_for_the_front_pass() -> None:
    head = CGI.encode((200, (b"x-accel-buffering", b"no"), (b"server", b"mine")))

    assert head.lines.endswith(b"x-accel-buffering: no\r\nserver: mine\r\n")


def test_the_length_is_known() -> None:
    head = CGI.encode((200, (b"content-length", b"5"), (b"content-length", b"5")))

    assert head.length == 5
    assert head.lines.count(b"content-length") == 1


@pytest.mark.parametrize(("status", "forbidden"), [(200, False), (204, True), (304, True)])
def test_statuses_without_content_are_known(status: int, forbidden: bool) -> None:
    assert CGI.encode((status,)).no_content == forbidden


def test_a_204_never_has_a_length() -> None:
    """RFC 9110 §8.6."""
    assert CGI.encode((204, (b"content-length", b"0"))).lines == b"Status: 204 No Content\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"a", b"b\r\nc: d")],
        [(b"a\n", b"b")],
        [(b"status", b"b\n")],
        [("a", "b")],
        [(b"content-length", b"x")],
        [(b"content-length", b"1"), (b"content-length", b"2")],
    ],
    ids=str,
)
def test_nothing_an_application_says_breaks_the_framing(headers: list[Any]) -> None:
    with pytest.raises(LocalProtocolError):
        CGI.encode((200, *headers))
