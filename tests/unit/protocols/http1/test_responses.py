"""The response encoder: nothing an application says can break the framing."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import LocalProtocolError
from omnicorn.http.defaults import HAS_DATE, HAS_SERVER
from omnicorn.protocols.http1 import ResponseEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def encode(status: Any, headers: Any, encoder: ResponseEncoder | None = None) -> Any:
    return (encoder or ResponseEncoder()).encode((status, *headers))


def lines(*headers: tuple[bytes, bytes]) -> list[bytes]:
    """Field lines of a head, without the status line."""
    head: bytes = encode(200, headers).lines
    return head.split(b"\r\n")[1:-1]


@pytest.fixture
def refused(connect: Any) -> Callable[..., str]:
    """What the verb says to headers (and a status) that cannot be sent; twice the same."""

    def refused(headers: Any, status: Any = 200) -> str:
        recorder = connect().feed(GET)
        reasons = []
        for _ in range(2):
            with pytest.raises(LocalProtocolError) as caught:
                recorder.engine.send_head(status, headers)
            reasons.append(caught.value.reason)
        assert reasons[0] == reasons[1]
        assert recorder.taken() == b""
        return str(reasons[0])

    return refused


def test_names_and_values_go_out_as_they_are() -> None:
    assert lines((b"X-Mixed", b"a: b"), (b"x", b"")) == [b"X-Mixed: a: b", b"x: "]


def test_each_byte_in_a_name_and_in_a_value(refused: Callable[..., str]) -> None:
    token = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for byte in range(256):
        char = bytes((byte,))
        headers = [(b"x" + char, b"1")]
        if char in token:
            assert lines(*headers) == [b"x%b: 1" % char]
        else:
            assert "name" in refused(headers)
        headers = [(b"x", b"a" + char)]
        if byte == 9 or 0x20 <= byte <= 0x7E or byte >= 0x80:
            assert lines(*headers) == [b"x: a" + char]
        else:
            assert "value" in refused(headers)


SPECIAL = (
    b"connection",
    b"content-length",
    b"date",
    b"keep-alive",
    b"server",
    b"transfer-encoding",
)


@pytest.mark.parametrize("name", [b"x", b"location", b"set-cookie", *SPECIAL])
@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nx: y", b"a\rb", b"\x00", b"\r\n\r\n<html>"])
def test_no_value_splits_a_response(refused: Callable[..., str], name: bytes, value: bytes) -> None:
    """CVE-2020-7695; for the fields that are looked at, and dropped, as for any other."""
    refused([(name, value)])


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"a\n", b":a", b"\xe9", b"a\x00"])
def test_a_name_is_a_token(refused: Callable[..., str], name: bytes) -> None:
    assert "token" in refused([(name, b"1")])


@pytest.mark.parametrize(
    "headers",
    [
        None, 5, [None], [5], [()], [(b"a",)], [(b"a", b"b", b"c")], [("a", b"b")], [(b"a", "b")],
        [(b"a", None)], [(b"a", 5)], [(b"a", bytearray(b"b"))], [b"ab"], ["ab"], "ab", b"ab",
        {"a": "b"}, [{b"a": b"b"}], [((b"a",), b"b")], [(None, None)],
        [(b"content-length", 5)], [(b"Content-Length", "5")],
    ],
)  # fmt: skip
def test_what_is_no_list_of_pairs_of_bytes_is_explained(
    refused: Callable[..., str], headers: Any
) -> None:
    reason = refused(headers)
    assert "header" in reason


@pytest.mark.parametrize("status", [0, 99, 100, 199, 1000, -200, "200", None, 200.0, True, b"200"])
def test_a_final_status_is_an_integer_from_200_to_999(
    refused: Callable[..., str], status: Any
) -> None:
    assert "status" in refused([], status)


@pytest.mark.parametrize("status", [200.0, HTTPStatus.OK])
def test_a_status_that_only_equals_an_integer_is_refused_warm_too(status: Any) -> None:
    """Equal keys are one key to a dict: what was encoded before must not let it in."""
    encoder = ResponseEncoder()
    encode(200, [(b"x", b"1")], encoder)
    with pytest.raises(LocalProtocolError):
        encode(status, [(b"x", b"1")], encoder)


def test_an_unregistered_status_is_sent() -> None:
    assert encode(299, []).lines == b"HTTP/1.1 299 \r\n"
    assert encode(int(HTTPStatus.NOT_FOUND), []).lines == (b"HTTP/1.1 404 Not Found\r\n")


def test_pairs_may_be_lists_and_headers_any_iterable() -> None:
    encoder = ResponseEncoder()
    want = encode(200, [(b"a", b"b")], encoder).lines
    assert encode(200, ((b"a", b"b"),), encoder).lines == want
    assert encode(200, [[b"a", b"b"]], encoder).lines == want
    assert encode(200, iter([(b"a", b"b")]), encoder).lines == want
    assert encode(200, (pair for pair in [[b"a", b"b"]]), encoder).lines == want


def test_an_iterable_that_breaks_says_so_itself(connect: Any) -> None:
    def broken() -> Any:
        yield (b"a", b"b")
        raise TypeError("from the application")

    recorder = connect().feed(GET)
    with pytest.raises((TypeError, LocalProtocolError)):
        recorder.engine.send_head(200, broken())
    assert recorder.taken() == b""


# ---------------------------------------------------------------- the fields that are looked at


@pytest.mark.parametrize("value", [b"5", b"005", b"0", b"999999999999999999"])
def test_a_length_is_kept_and_known(value: bytes) -> None:
    head = encode(200, [(b"Content-Length", value)])
    assert head.length == int(value)
    assert b"content-length: %b\r\n" % value in head.lines


@pytest.mark.parametrize(
    "value",
    [b"", b"-1", b"+1", b"1 ", b" 1", b"1,1", b"0x1", b"1_0", b"\xb2", b"1.0", b"9" * 19, b"x"],
)
def test_a_length_that_is_no_number_is_refused(refused: Callable[..., str], value: bytes) -> None:
    assert "content-length" in refused([(b"content-length", value)])


def test_unequal_lengths_are_refused_and_equal_ones_merge(refused: Callable[..., str]) -> None:
    assert "several" in refused([(b"content-length", b"1"), (b"Content-Length", b"2")])
    assert lines((b"content-length", b"1"), (b"Content-Length", b"1")) == [b"content-length: 1"]


def test_no_length_is_minus_one() -> None:
    assert encode(200, []).length == -1


@pytest.mark.parametrize("name", [b"transfer-encoding", b"Transfer-Encoding", b"keep-alive"])
def test_what_is_the_servers_to_say_is_dropped(name: bytes) -> None:
    assert lines((name, b"chunked"), (b"x", b"1")) == [b"x: 1"]


@pytest.mark.parametrize(
    ("values", "close", "kept"),
    [
        ([b"close"], True, []),
        ([b"CLOSE"], True, []),
        ([b"keep-alive"], False, []),
        ([b"a, close"], True, [b"connection: a"]),
        ([b"Upgrade"], False, [b"connection: upgrade"]),
        ([b"a", b"close"], True, [b"connection: a"]),
        ([b"closed"], False, [b"connection: closed"]),
        ([b""], False, []),
    ],
)
def test_connection_is_reduced_to_what_it_asks_for(
    values: list[bytes], close: bool, kept: list[bytes]
) -> None:
    head = encode(200, [(b"Connection", value) for value in values])
    assert head.close is close
    assert head.lines.split(b"\r\n")[1:-1] == kept


@pytest.mark.parametrize(
    ("names", "own"),
    [
        ([], 0),
        ([b"server"], HAS_SERVER),
        ([b"DATE"], HAS_DATE),
        ([b"Date", b"Server"], HAS_SERVER | HAS_DATE),
    ],
)
def test_the_applications_own_defaults_are_noticed_and_kept(names: list[bytes], own: int) -> None:
    head = encode(200, [(name, b"v") for name in names])
    assert head.own == own
    assert head.lines.split(b"\r\n")[1:-1] == [name + b": v" for name in names]


# ---------------------------------------------------------------- the memory


def test_equal_heads_are_encoded_once() -> None:
    encoder = ResponseEncoder()
    headers = [(b"a", b"b")]
    assert encode(200, headers, encoder) is encode(200, list(headers), encoder)


def test_a_head_is_not_taken_for_another() -> None:
    encoder = ResponseEncoder()
    for _ in range(2):
        assert encode(200, [(b"a", b"b")], encoder).lines.endswith(b"\r\na: b\r\n")
        assert encode(201, [(b"a", b"b")], encoder).lines.startswith(b"HTTP/1.1 201 ")
        assert encode(200, [(b"A", b"b")], encoder).lines.endswith(b"\r\nA: b\r\n")
        assert encode(200, [(b"ab", b"")], encoder).lines.endswith(b"\r\nab: \r\n")


def weight(value: Any) -> int:
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, dict):
        return sum(weight(key) + weight(item) for key, item in value.items())
    if isinstance(value, tuple | list):
        return sum(map(weight, value))
    return sum(weight(getattr(value, slot, None)) for slot in getattr(value, "__slots__", ()))


def memory(encoder: ResponseEncoder) -> list[dict[Any, Any]]:
    tables = [getattr(encoder, slot) for slot in type(encoder).__slots__]
    return [table for table in tables if isinstance(table, dict)]


def test_no_number_of_distinct_heads_grows_the_memory_past_its_bound() -> None:
    encoder = ResponseEncoder()
    for i in range(20_000):
        encode(200, [(b"etag", b"%d" % i), (b"x-%d" % i, b"1")], encoder)
        if i % 1000 == 0:
            assert all(len(table) <= 1024 for table in memory(encoder))
    assert sum(map(weight, memory(encoder))) < 1 << 20


@pytest.mark.parametrize(
    "name",
    [
        b"x",
        b"keep-alive",
        b"transfer-encoding",
    ],
)
def test_large_values_are_not_remembered(name: bytes) -> None:
    """Also where they are dropped from the lines: they would stay in the key."""
    encoder = ResponseEncoder()
    for i in range(100):
        encode(200, [(name, b"%d" % i + b"y" * 20_000)], encoder)
    assert sum(map(weight, memory(encoder))) < 1 << 20


# ---------------------------------------------------------------- informational and trailers


@pytest.mark.parametrize("name", [b"content-length", b"Transfer-Encoding", b"connection", b"HOST"])
def test_framing_has_no_place_in_trailers(name: bytes) -> None:
    """RFC 9110 §6.5.1"""
    with pytest.raises(LocalProtocolError):
        ResponseEncoder().encode_fields([(name, b"1")])


def test_trailer_lines() -> None:
    assert ResponseEncoder().encode_fields([(b"a", b"1"), (b"A", b"")]) == b"a: 1\r\nA: \r\n"
    assert ResponseEncoder().encode_fields([]) == b""


@pytest.mark.parametrize(
    "headers",
    [
        None,
        5,
        [None],
        [("a", "b")],
        [(b"a", b"\n")],
        ["ab"],
    ],
)
def test_trailers_that_are_no_pairs_of_bytes_are_explained(headers: Any) -> None:
    with pytest.raises(LocalProtocolError):
        ResponseEncoder().encode_fields(headers)


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ([], 0),
        ([(b"x", b"server"), (b"servers", b"x")], 0),
        ([(b"server", b"x")], HAS_SERVER),
        ([(b"x", b"y"), (b"DATE", b"x")], HAS_DATE),
        ([(b"Server", b"x"), (b"date", b"y"), (b"server", b"z")], HAS_SERVER | HAS_DATE),
    ],
)
def test_own_fields_are_found_as_an_encoded_head_finds_them(
    headers: list[tuple[bytes, bytes]], own: int
) -> None:
    encoder = ResponseEncoder()
    assert encoder.own_fields(headers) == encoder.encode((200, *headers)).own == own


# ---------------------------------------------------------------- everything at once

anything = st.one_of(
    st.binary(max_size=8), st.text(max_size=4), st.none(), st.integers(), st.sampled_from(SPECIAL)
)


@given(
    status=st.one_of(st.integers(-5, 1100), st.none(), st.floats(), st.text(max_size=3)),
    headers=st.lists(st.one_of(st.tuples(anything, anything), anything), max_size=4),
)
def test_whatever_an_application_says_is_refused_or_parses_back(
    connect: Any, status: Any, headers: Any
) -> None:
    recorder = connect(pipeline=False).feed(GET)
    try:
        recorder.engine.send_head(status, headers)
    except LocalProtocolError:
        assert recorder.taken() == b""
        return
    try:
        recorder.engine.send_data(b"", True)
    except LocalProtocolError:
        assert recorder.engine.closing
    wire = recorder.taken()
    head, end, body = wire.partition(b"\r\n\r\n")
    assert end
    assert body == b""
    first, *fields = head.split(b"\r\n")
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert all(field.partition(b":")[1] for field in fields)
    assert b"\r" not in head.replace(b"\r\n", b"")
    assert b"\n" not in head.replace(b"\r\n", b"")
