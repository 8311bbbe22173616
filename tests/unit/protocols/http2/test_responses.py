"""The response heads: nothing an application says can make a message malformed."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import LocalProtocolError
from omnicorn.http.defaults import HAS_DATE, HAS_SERVER
from omnicorn.http.fields import match_token, match_value
from omnicorn.protocols.http1 import ResponseEncoder as Http1ResponseEncoder
from omnicorn.protocols.http2.responses import ResponseEncoder, ResponseHead

CONNECTION = [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"]


def prepare(status: Any, headers: Any) -> ResponseHead:
    return ResponseEncoder().encode((status, *headers))


def fields(*headers: tuple[bytes, bytes], status: int = 200) -> list[tuple[bytes, bytes]]:
    """What is sent, without the status."""
    first, *rest = prepare(status, headers).fields
    assert first == (b":status", b"%d" % status)
    return rest


def refused(headers: Any, status: Any = 200) -> str:
    """Why; the same cold and warm, and in the words of HTTP/1.1."""
    reasons = set()
    ours = ResponseEncoder()
    theirs = Http1ResponseEncoder()
    for verb in (ours.encode, ours.encode, theirs.encode):
        with pytest.raises(LocalProtocolError) as caught:
            verb((status, *headers))
        reasons.add(caught.value.reason)
    assert len(reasons) == 1
    return reasons.pop()


def test_a_response() -> None:
    head = prepare(200, [(b"content-type", b"text/plain"), (b"content-length", b"5")])
    assert head.fields == (
        (b":status", b"200"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"5"),
    )
    assert head.length == 5
    assert head.own == 0
    assert head.no_content is False


def test_names_go_out_in_lower_case() -> None:
    """RFC 9113 §8.2"""
    assert fields((b"X-Mixed", b"A: b"), (b"x", b"")) == [(b"x-mixed", b"A: b"), (b"x", b"")]


@pytest.mark.parametrize("name", [b"x", b"Server", b"date", b"content-type"])
def test_white_space_around_a_value_is_taken_away(name: bytes) -> None:
    """RFC 9113 §8.2.1: it would make the message malformed."""
    assert fields((name, b" a\tb \t"), (b"y", b" ")) == [(name.lower(), b"a\tb"), (b"y", b"")]


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_in_a_name_and_in_a_value(byte: int) -> None:
    char = bytes((byte,))
    if match_token(char):
        assert fields((b"x" + char, b"1")) == [(b"x" + char.lower(), b"1")]
    else:
        assert "token" in refused([(b"x" + char, b"1")])
    if match_value(char):
        assert fields((b"x", b"a" + char + b"b")) == [(b"x", b"a" + char + b"b")]
    else:
        assert "control byte" in refused([(b"x", b"a" + char + b"b")])


@pytest.mark.parametrize("name", [b":status", b":path", b":x", b""])
def test_an_application_has_no_pseudo_header_fields(name: bytes) -> None:
    """RFC 9113 §8.3"""
    assert "token" in refused([(name, b"200")])


@pytest.mark.parametrize("name", [*CONNECTION, b"Connection", b"Upgrade", b"TRANSFER-ENCODING"])
def test_connection_specific_fields_are_dropped(name: bytes) -> None:
    """RFC 9113 §8.2.2; their values are checked all the same."""
    assert fields((b"a", b"1"), (name, b"close"), (b"b", b"2")) == [(b"a", b"1"), (b"b", b"2")]
    assert "control byte" in refused([(name, b"a\r\nb")])


@pytest.mark.parametrize(
    "headers",
    [
        [None], [5], [()], [(b"a",)], [(b"a", b"b", b"c")], [("a", b"b")], [(b"a", "b")],
        [(b"a", None)], [(b"a", bytearray(b"b"))], ["ab"], "ab", b"ab", {"a": "b"}, [{b"a": b"b"}],
        [(None, None)], [(b"content-length", 5)], [(b"Content-Length", "5")],
        [(b"connection", "x")],
    ],
)  # fmt: skip
def test_what_is_no_list_of_pairs_of_bytes_is_explained(headers: Any) -> None:
    assert "header" in refused(headers)


@pytest.mark.parametrize("status", [0, 99, 100, 199, 1000, -200, "200", None, 200.0, True, b"200"])
def test_a_final_status_is_an_integer_from_200_to_999(status: Any) -> None:
    assert "status" in refused([], status)


@pytest.mark.parametrize("status", [200.0, HTTPStatus.OK])
def test_a_status_that_only_equals_an_integer_is_refused_warm_too(status: Any) -> None:
    """Equal keys are one key to a dict: what was prepared before must not let it in."""
    encoder = ResponseEncoder()
    encoder.encode((200, (b"x", b"1")))
    with pytest.raises(LocalProtocolError):
        encoder.encode((status, (b"x", b"1")))


def test_pairs_may_be_lists() -> None:
    head = prepare(200, [[b"X", b"1"]])
    assert head.fields == ((b":status", b"200"), (b"x", b"1"))


# ---------------------------------------------------------------- content-length


@pytest.mark.parametrize("value", [b"", b"-1", b"1.0", b"1 ", b"a", b"\xb2", b"1" * 19])
def test_a_content_length_is_a_number(value: bytes) -> None:
    assert "no number" in refused([(b"Content-Length", value)])


def test_equal_content_lengths_are_one() -> None:
    headers = [(b"content-length", b"5"), (b"x", b"1"), (b"Content-Length", b"05")]
    head = prepare(200, headers)
    assert head.length == 5
    assert head.fields[1:] == ((b"content-length", b"5"), (b"x", b"1"))


def test_different_content_lengths_are_refused() -> None:
    assert "several" in refused([(b"content-length", b"5"), (b"content-length", b"6")])


def test_a_204_has_no_content_length() -> None:
    """RFC 9110 §8.6"""
    assert fields((b"content-length", b"0"), (b"x", b"1"), status=204) == [(b"x", b"1")]
    assert prepare(204, [(b"content-length", b"0")]).length == 0
    assert fields((b"content-length", b"9"), status=304) == [(b"content-length", b"9")]


@pytest.mark.parametrize(("status", "none"), [(200, False), (204, True), (304, True), (404, False)])
def test_which_status_forbids_content(status: int, none: bool) -> None:
    assert prepare(status, []).no_content is none


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ([(b"servers", b"x")], 0),
        ([(b"Server", b"x")], HAS_SERVER),
        ([(b"date", b"x")], HAS_DATE),
        ([(b"DATE", b"x"), (b"server", b"y")], HAS_SERVER | HAS_DATE),
        ([(b"server", b"y"), (b"date", b"x")], HAS_SERVER | HAS_DATE),
    ],
)
def test_the_applications_own_server_and_date_are_noted_and_sent(headers: Any, own: int) -> None:
    head = prepare(200, headers)
    assert head.own == own
    assert head.fields[1:] == tuple((name.lower(), value) for name, value in headers)


# ---------------------------------------------------------------- memory


def test_an_equal_head_is_the_same_object() -> None:
    encoder = ResponseEncoder()
    key = (200, (b"x", b"1"))
    assert encoder.encode(key) is encoder.encode((200, (b"x", b"1")))
    assert encoder.encode((201, (b"x", b"1"))) is not encoder.encode(key)


def test_every_eighth_unknown_head_is_remembered() -> None:
    encoder = ResponseEncoder()
    for number in range(80):
        encoder.encode((200, (b"x", b"%d" % number)))
    assert len(encoder.heads) == 10


def test_what_is_remembered_is_bounded() -> None:
    encoder = ResponseEncoder()
    for number in range(10000):
        text = b"%d" % number
        encoder.encode((200, (b"x" + text, b"1"), (b"content-length", text)))
    for _ in range(16):
        encoder.encode((200, (b"x", b"a" * 5000)))
        encoder.encode((200, (b"n" * 5000, b"a")))
    assert 0 < len(encoder.heads) <= 512
    assert 0 < len(encoder._names) <= 1024
    assert max(map(len, encoder._names)) <= 64
    assert 0 < len(encoder._lengths) <= 1024


# ---------------------------------------------------------------- without a status


def test_fields_without_a_status() -> None:
    encoder = ResponseEncoder()
    assert encoder.prepare_fields([(b"Link", b" </a> "), [b"x", b""]]) == (
        (b"link", b"</a>"),
        (b"x", b""),
    )
    assert encoder.prepare_fields(iter(())) == ()


@pytest.mark.parametrize("name", [*CONNECTION, b"content-length", b"Content-Length", b"host"])
def test_fields_that_cannot_be_sent_there(name: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be sent here"):
        ResponseEncoder().prepare_fields([(b"x", b"1"), (name, b"1")])


@pytest.mark.parametrize(
    "headers",
    [None, 5, [None], [(b"a",)], [("a", b"b")], [(b"a", "b")], "ab", b"ab", [(b":status", b"1")],
     [(b":x", b"1")], [(b"", b"")], [(b"a", b"\n")]],
)  # fmt: skip
def test_other_bad_fields_are_explained_as_for_http1(headers: Any) -> None:
    with pytest.raises(LocalProtocolError) as ours:
        ResponseEncoder().prepare_fields(headers)
    with pytest.raises(LocalProtocolError) as theirs:
        Http1ResponseEncoder().encode_fields(headers)
    assert ours.value.reason == theirs.value.reason


# ---------------------------------------------------------------- everything at once

anything = st.one_of(
    st.binary(max_size=8),
    st.text(max_size=4),
    st.none(),
    st.integers(),
    st.sampled_from([*CONNECTION, b"content-length", b"server", b"Date", b"5"]),
)


@given(
    status=st.one_of(st.integers(190, 1010), st.none(), st.floats(), st.text(max_size=3)),
    headers=st.lists(st.one_of(st.tuples(anything, anything), anything), max_size=4),
)
def test_whatever_an_application_says_http1_and_http2_agree(status: Any, headers: Any) -> None:
    try:
        theirs = Http1ResponseEncoder().encode((status, *headers))
    except LocalProtocolError:
        refused(headers, status)
        return
    head = prepare(status, headers)
    assert (head.length, head.own, head.no_content) == (
        theirs.length,
        theirs.own,
        theirs.no_content,
    )
    lines = theirs.lines.split(b"\r\n")[1:-1]
    pairs = [(name.lower(), value.strip()) for name, _, value in (x.partition(b":") for x in lines)]
    assert list(head.fields[1:]) == [pair for pair in pairs if pair[0] not in CONNECTION]
