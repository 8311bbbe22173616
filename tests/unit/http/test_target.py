"""The four forms of a request target (RFC 9112 §3.2), and what is decoded of it."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import RemoteProtocolError
from omnicorn.http.target import decode_path, match_target, parse_target


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/a/b", b"/a/b", b""),
        (b"/a?b", b"/a", b"b"),
        (b"/a?", b"/a", b""),
        (b"/?a?b=c&d", b"/", b"a?b=c&d"),
        (b"//a", b"//a", b""),
        (b"/http://a/", b"/http://a/", b""),
        (b"/*", b"/*", b""),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"X"])
def test_origin_form(method: bytes, target: bytes, path: bytes, query: bytes) -> None:
    assert parse_target(method, target) == (path, query, None)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"http://a/", (b"/", b"", b"a")),
        (b"http://a", (b"/", b"", b"a")),
        (b"http://a:80/b?c", (b"/b", b"c", b"a:80")),
        (b"https://a/b", (b"/b", b"", b"a")),
        (b"hTTp://A/B", (b"/B", b"", b"A")),
        (b"http://a?b", (b"/", b"b", b"a")),
        (b"http://a?b/c", (b"/", b"b/c", b"a")),
        (b"http://[::1]:1/", (b"/", b"", b"[::1]:1")),
        (b"http://a//b", (b"//b", b"", b"a")),
    ],
)
def test_absolute_form(target: bytes, parts: tuple[bytes, bytes, bytes]) -> None:
    assert parse_target(b"GET", target) == parts


def test_asterisk_form_is_for_options() -> None:
    assert parse_target(b"OPTIONS", b"*") == (b"*", b"", None)
    with pytest.raises(RemoteProtocolError) as caught:
        parse_target(b"GET", b"*")
    assert caught.value.status == 400


def test_the_absolute_form_of_the_asterisk() -> None:
    """RFC 9112 §3.2.4"""
    assert parse_target(b"OPTIONS", b"http://a") == (b"*", b"", b"a")
    assert parse_target(b"OPTIONS", b"http://a/") == (b"/", b"", b"a")
    assert parse_target(b"OPTIONS", b"http://a?b") == (b"/", b"b", b"a")


@pytest.mark.parametrize("target", [b"a:80", b"/", b"http://a/", b"*", b"", b"@"])
def test_connect_is_not_implemented(target: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_target(b"CONNECT", target)
    assert caught.value.status == 501


@pytest.mark.parametrize(
    "target",
    [
        b"", b"a", b"a/b", b"?a", b"a:80", b"**", b"*/", b"http:", b"http:/", b"http://",
        b"http:///", b"http://:80/", b"http://?a", b"http://u@a/", b"http://a:b/", b"http://[::1/",
        b"ftp://a/", b"ws://a/", b"file:///etc/passwd", b"javascript:x", b"\\a", b"http:a",
        b"http//a", b"http://a b/", b"xhttp://a/", b"http://a\\b/", b"http://a%zz/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", [b"GET", b"OPTIONS"])
def test_what_has_none_of_the_forms(method: bytes, target: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_target(method, target)
    assert caught.value.status == 400


def test_a_target_is_visible_ascii_without_a_fragment() -> None:
    for byte in range(256):
        legal = 0x21 <= byte <= 0x7E and byte != 0x23
        assert (match_target(b"/" + bytes((byte,))) is not None) is legal


def test_a_refusal_never_echoes_the_target() -> None:
    """CVE-2024-41810 class: what the peer wrote must not come back in a page."""
    with pytest.raises(RemoteProtocolError) as caught:
        parse_target(b"GET", b"<script>alert(1)</script>")
    assert "script" not in caught.value.reason


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", "/"),
        (b"/a%20b", "/a b"),
        (b"/caf%C3%A9", "/caf\u00e9"),
        (b"/caf%c3%a9", "/caf\u00e9"),
        (b"/%25", "/%"),
        (b"/%2525", "/%25"),
        (b"/%", "/%"),
        (b"/%4", "/%4"),
        (b"/%zz", "/%zz"),
        (b"/%%41", "/%A"),
        (b"/%+1", "/%+1"),
        (b"/% 1", "/% 1"),
        (b"/+", "/+"),
        (b"/%2F%2f", "///"),
        (b"/%00", "/\x00"),
        (b"/%ff", "/\ufffd"),
        (b"/%C3", "/\ufffd"),
        (b"/%ed%a0%80", "/\ufffd\ufffd\ufffd"),
        (b"/%F0%9F%A6%84", "/\U0001f984"),
    ],
)
def test_a_path_is_unescaped_then_decoded(raw: bytes, path: str) -> None:
    assert decode_path(raw) == path


@given(
    st.text()
    .map(lambda text: "/" + text)
    .filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t))
)
def test_what_was_escaped_comes_out(path: str) -> None:
    assert decode_path(quote(path).encode()) == path


@given(st.text([chr(i) for i in range(0x21, 0x7F)], max_size=30).map(str.encode))
def test_decoding_agrees_with_the_standard_library(raw: bytes) -> None:
    assert decode_path(raw) == unquote_to_bytes(raw).decode("utf-8", "replace")
