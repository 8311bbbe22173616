"""``Upgrade: h2c`` (RFC 7540 §3.2): what is taken, and stream 1."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.http2_client import PREFACE, frame, settings

from omnicorn.protocols.http1.requests import RequestParser
from omnicorn.protocols.http2.codes import (
    ENABLE_PUSH,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PROTOCOL_ERROR,
    SETTINGS,
    STREAM_CLOSED,
)
from omnicorn.protocols.http2.upgrade import as_http2, read_settings


class Http1:
    """A request of HTTP/1.1, as its engine presents it."""

    def __init__(self, *fields: tuple[bytes, bytes], **how: Any) -> None:
        self.method = how.get("method", "GET")
        self.version = how.get("version", "1.1")
        self.raw_path = how.get("raw_path", b"/")
        self.query = how.get("query", b"")
        self.headers = fields
        self.fields = dict(fields)


def asks(value: bytes, *more: tuple[bytes, bytes], **how: Any) -> Any:
    connection = how.pop("connection", b"Upgrade, HTTP2-Settings")
    return Http1((b"connection", connection), (b"http2-settings", value), *more, **how)


def test_settings_are_read_with_and_without_padding() -> None:
    """RFC 7540 §3.2.1: base64url, and padding may be left out."""
    for count in range(5):
        payload = b"".join(settings((INITIAL_WINDOW_SIZE, n))[9:] for n in range(count))
        coded = base64.urlsafe_b64encode(payload)
        assert read_settings(asks(coded)) == payload
        assert read_settings(asks(coded.rstrip(b"="))) == payload


@pytest.mark.parametrize(
    "head",
    [
        asks(b"", connection=b"upgrade"),
        asks(b"AAA"),
        asks(b"A"),
        asks(b"AAMAAABkAARAAAAAAAIAAAAA"[:-1]),
        asks(b"AAMAAABk AARAAAAAAAIAAAAA"),
        asks(b"AA+/AAAA"),
        asks(b"=AAA"),
        asks(b"", (b"http2-settings", b"")),
        asks(b"", version="1.0"),
        Http1((b"connection", b"upgrade, http2-settings")),
        asks(base64.urlsafe_b64encode(settings((ENABLE_PUSH, 2))[9:])),
        asks(base64.urlsafe_b64encode(settings((INITIAL_WINDOW_SIZE, 1 << 31))[9:])),
        asks(base64.urlsafe_b64encode(settings((5, 1))[9:])),
    ],
)
def test_what_is_odd_is_no_upgrade(head: Any) -> None:
    """RFC 7540 §3.2.1: MUST NOT upgrade; a server may always answer by HTTP/1.1."""
    assert read_settings(head) is None


def test_the_request_loses_what_belongs_to_its_connection() -> None:
    """RFC 9113 §8.2.2, §8.3.1"""
    head = asks(
        b"",
        (b"host", b"example.org"),
        (b"upgrade", b"h2c"),
        (b"te", b"trailers"),
        (b"keep-alive", b"1"),
        (b"x-hop", b"1"),
        (b"accept", b"*/*"),
        (b"cookie", b"a=1"),
        connection=b"Upgrade, HTTP2-Settings, X-Hop",
        raw_path=b"/a%20b",
        query=b"x=1",
        method="HEAD",
    )
    assert as_http2(head) == (
        (b":method", b"HEAD"),
        (b":scheme", b"http"),
        (b":path", b"/a%20b?x=1"),
        (b":authority", b"example.org"),
        (b"accept", b"*/*"),
        (b"cookie", b"a=1"),
    )


@pytest.mark.parametrize("fields", [(), ((b"host", b""),)])
def test_a_request_may_have_no_host(connect: Any, fields: Any) -> None:
    """RFC 9110 §7.2: it may be empty; RFC 9113 §8.3.1: then there is no :authority."""
    head: Any = Http1(*fields)
    found = as_http2(head)
    assert b":authority" not in dict(found)
    dialogue = connect(None)
    dialogue.engine.upgrade(b"", found)
    assert dialogue.engine.error is None and 1 in dialogue.owner.exchanges


def test_whatever_http_1_takes_can_be_upgraded(connect: Any) -> None:
    parser = RequestParser()
    for request in (
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a:80\r\n\r\n",
        b"GET http://b/x?y HTTP/1.1\r\nHost: b\r\n\r\n",
        b"GET /%C3%A4 HTTP/1.1\r\nHost: [::1]:8\r\nX: \xff\r\n\r\n",
        b"GET /?a?b HTTP/1.1\r\nHost:\r\nTE: gzip\r\nConnection: te\r\n\r\n",
        b"DELETE //x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nCookie: a\r\nCookie: b\r\n\r\n",
        b"M-SEARCH / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\nX: y\r\n\r\n",
    ):
        head: Any = parser.parse(request)
        assert head is not None
        dialogue = connect(None)
        dialogue.engine.upgrade(b"", as_http2(head))
        assert dialogue.engine.error is None, (request, dialogue.engine.error)
        found = dialogue.exchange().head
        assert (found.method, found.path) == (head.method, head.path)


# ---------------------------------------------------------------- stream 1


FIELDS = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a"))


def test_stream_1_is_half_closed_and_the_preface_follows(connect: Any) -> None:
    """RFC 7540 §3.2"""
    dialogue = connect(None)
    dialogue.engine.upgrade(settings((INITIAL_WINDOW_SIZE, 5))[9:], FIELDS)
    dialogue.exchange().respond(b"12345678")
    dialogue.initial = dialogue.reply(1).window = 5
    events = dialogue.take()
    assert events[0].kind == HEADERS and dialogue.reply().body == b"12345"
    assert not dialogue.engine.is_greeted
    events = dialogue.send(PREFACE, settings((INITIAL_WINDOW_SIZE, 6)))
    assert events[0].kind == SETTINGS and dialogue.reply().body == b"123456"
    dialogue.grant(1, 10)
    assert dialogue.reply().ended
    dialogue.send(dialogue.headers(3))
    assert dialogue.exchange(3).head.path == "/"


def test_the_settings_of_the_upgrade_are_not_acknowledged(connect: Any) -> None:
    """RFC 7540 §3.2.1: the 101 does."""
    dialogue = connect(None)
    dialogue.engine.upgrade(settings((ENABLE_PUSH, 0))[9:], FIELDS)
    assert dialogue.take() == [] and not dialogue.engine.peer.push


def test_stream_1_cannot_be_asked_again(connect: Any) -> None:
    dialogue = connect(None)
    dialogue.engine.upgrade(b"", FIELDS)
    dialogue.exchange().respond()
    dialogue.take()
    dialogue.send(PREFACE, settings(), dialogue.headers(1))
    dialogue.assert_dead(STREAM_CLOSED)


def test_after_an_upgrade_the_preface_is_still_required(connect: Any) -> None:
    """RFC 7540 §3.5"""
    dialogue = connect(None)
    dialogue.engine.upgrade(b"", FIELDS)
    dialogue.send(frame(SETTINGS))
    dialogue.assert_dead(PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("payload", "fields"),
    [(settings((ENABLE_PUSH, 2))[9:], FIELDS), (b"12345", FIELDS), (b"", FIELDS[:2])],
)
def test_an_upgrade_that_http_2_does_not_take_ends_in_goaway(
    connect: Any, payload: bytes, fields: Any
) -> None:
    """An engine raises nothing into its loop."""
    dialogue = connect(None)
    dialogue.engine.upgrade(payload, fields)
    dialogue.take()
    assert dialogue.engine.closing and dialogue.goaways
