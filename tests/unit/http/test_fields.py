"""Field names, values, hosts and lists: legal byte classes, all 256 bytes tried."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import LocalProtocolError
from omnicorn.http.fields import (
    are_values,
    check_pair,
    is_host,
    list_tokens,
    match_length,
    match_line,
    match_token,
    match_value,
)

TCHARS = frozenset((string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode())
VALUE_BYTES = frozenset({9, *range(0x20, 0x7F), *range(0x80, 0x100)})


def test_a_token_has_the_bytes_of_rfc_9110_5_6_2() -> None:
    for byte in range(256):
        char = bytes((byte,))
        for token in (char, b"a" + char, char + b"a", b"a" + char + b"b"):
            assert (match_token(token) is not None) is (byte in TCHARS)


def test_a_value_has_the_bytes_of_rfc_9110_5_5() -> None:
    for byte in range(256):
        char = bytes((byte,))
        for value in (char, b"a" + char, char + b"a", b"a" + char + b"b"):
            assert (match_value(value) is not None) is (byte in VALUE_BYTES)


def test_a_line_is_a_token_a_colon_and_a_value() -> None:
    for byte in range(256):
        char = bytes((byte,))
        assert (match_line(b"a" + char + b": v") is not None) is (byte in TCHARS or byte == 0x3A)
        assert (match_line(b"a:" + char) is not None) is (byte in VALUE_BYTES)


def test_what_is_empty() -> None:
    assert match_token(b"") is None
    assert match_value(b"") is not None
    assert match_line(b"") is None
    assert match_line(b":") is None
    assert match_line(b"a:") is not None


@pytest.mark.parametrize("text", [b"a\n", b"a\r\n", b"a\n\n"])
def test_a_line_end_at_the_end_is_not_overlooked(text: bytes) -> None:
    """A pattern that ends in ``$`` would take it."""
    assert match_token(text) is None
    assert match_value(text) is None
    assert match_line(b"a: " + text) is None
    assert not is_host(text)


@pytest.mark.parametrize("line", [b"a : v", b" a: v", b"a\t: v", b"\ta: v", b"a b: v"])
def test_white_space_has_no_place_in_a_name(line: bytes) -> None:
    """RFC 9112 §5.1, §5.2"""
    assert match_line(line) is None


@pytest.mark.parametrize(
    "host",
    [
        b"", b"a", b"example.org", b"example.org:80", b"example.org:", b"EXAMPLE.org.",
        b"127.0.0.1", b"127.0.0.1:8000", b"[::1]", b"[::1]:8000", b"[2001:db8::1]:",
        b"xn--bcher-kva.example", b"a_b", b"a-b~c", b"%41", b"a%2Fb", b"!$&'()*+,;=", b":80",
        b"a:65535", b"[::ffff:1.2.3.4]", b"[v1.a:b]",
    ],
)  # fmt: skip
def test_a_legal_host(host: bytes) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host",
    [
        b"a b", b"a/b", b"a?b", b"a#b", b"u@a", b"a\\b", b'"a"', b"<a>", b"a|b", b"a^b", b"{a}",
        b"`a`", b"a\xe9", b"a\x00", b"a\tb", b"a:b", b"a:80:80", b"a:-1", b"a: 80", b"a:80 ",
        b"[::1", b"::1]", b"[]", b"[::1]a", b"a[::1]", b"::1", b"a:+80", b"a:8_0", b"a%", b"a%4",
        b"a%zz", b"[zz]", b"[hello.world]", b"a:\xd9\xa3", b" a", b"a ",
    ],
)  # fmt: skip
def test_an_illegal_host(host: bytes) -> None:
    """CVE-2026-48710: a poisoned host must not become part of a URL."""
    assert not is_host(host)


def test_no_byte_of_a_urls_grammar_is_a_hosts() -> None:
    legal = frozenset((string.ascii_letters + string.digits + "-._~!$&'()*+,;=").encode())
    for byte in range(256):
        assert is_host(b"a" + bytes((byte,)) + b"b") is (byte in legal)


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"A, b ,\tC", [b"a", b"b", b"c"]),
        (b",,a,, ,b,", [b"a", b"b"]),
        (b"a b", [b"a b"]),
        (b"\x0bclose", [b"\x0bclose"]),
        (b"\xa0close", [b"\xa0close"]),
        (b"\xc9", [b"\xc9"]),
    ],
)
def test_the_members_of_a_list(value: bytes, tokens: list[bytes]) -> None:
    assert list_tokens(value) == tokens


@given(st.lists(st.text("abcXYZ", min_size=1).map(str.encode), max_size=6), st.data())
def test_a_list_comes_out_as_it_went_in(members: list[bytes], data: st.DataObject) -> None:
    joints = st.sampled_from([b",", b", ", b" ,", b",,", b", \t,"])
    value = b"".join(member + data.draw(joints) for member in members)
    assert list_tokens(value) == [member.lower() for member in members]


@pytest.mark.parametrize(
    "text",
    [b" " * 100_000, b"\t " * 50_000 + b"\x00", b"a" * 100_000 + b"\n", b"," * 100_000],
    ids=["spaces", "tabs then NUL", "letters then LF", "commas"],
)
def test_every_rule_is_linear(text: bytes) -> None:
    """CVE-2019-16792 and kin: no rule backtracks; a quadratic one would take minutes."""
    start = time.process_time()
    match_token(text)
    match_value(text)
    match_line(b"a:" + text)
    match_line(text)
    is_host(text)
    list_tokens(text)
    assert time.process_time() - start < 1


def test_values_are_judged_together_as_they_are_alone() -> None:
    for byte in range(256):
        char = bytes((byte,))
        for value in (char, char + b"a", b"a" + char, b"a" + char + b"a"):
            sound = match_value(value) is not None and value.strip(b" \t") == value
            for values in ([value], [b"", value], [value, b"a"], [b"a", value, b""]):
                assert are_values(values) is sound


def test_no_values_are_sound() -> None:
    assert are_values([])
    assert are_values([b"", b""])


@pytest.mark.parametrize("values", [[None], ["a"], [b"a", 5], [bytearray(b"a")]])
def test_values_are_of_bytes(values: list[bytes]) -> None:
    with pytest.raises(TypeError):
        are_values(values)


def test_a_pair_that_can_be_sent_is_given_back() -> None:
    assert check_pair([b"X", b" a "]) == (b"X", b" a ")


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (None, "list"),
        ((b"a",), "list"),
        ((b"a", "b"), "bytes"),
        ((b"a", bytearray(b"b")), "bytes"),
        ((b"a b", b""), "token"),
        ((b"a", b"b\n"), "control byte"),
    ],
)
def test_a_pair_that_cannot_be_sent_is_explained(pair: object, reason: str) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        check_pair(pair)


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1 ", b"1_0", b"\xb2", b"1\n", b"1" * 19])
def test_what_is_no_length(value: bytes) -> None:
    assert match_length(value) is None
    assert match_length(b"1" * 18) is not None
