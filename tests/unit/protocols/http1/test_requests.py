"""Heads to `Head`: what each field means, the three memories, and their bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import LimitExceeded, RemoteProtocolError
from omnicorn.http.limits import Limits
from omnicorn.http.memo import Memo
from omnicorn.protocols.http1 import RequestParser
from omnicorn.protocols.http1.requests import CHUNKED, LENGTH, NO_BODY, SHORT

NOW = 1
MEMORY = ("_fields", "lines", "shape")  # what a head is compared by, and does not say


def head_of(*fields: str, line: str = "GET / HTTP/1.1", host: str = "Host: a") -> bytes:
    lines = [line, *([host] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def parse(*fields: str, **more: str) -> Any:
    return RequestParser().parse(head_of(*fields, **more))


def refusal(*fields: str, **more: str) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        parse(*fields, **more)
    return caught.value


# ---------------------------------------------------------------- what a head says


def test_the_fields_mapping_holds_the_last_of_each_name() -> None:
    head = parse("X: 1", "Y: 2", "x: 3")
    assert head.fields == {b"host": b"a", b"x": b"3", b"y": b"2"}


def test_the_headers_keep_all_in_order() -> None:
    head = parse("X: 1", "Y: 2", "x: 3")
    assert head.headers == ((b"host", b"a"), (b"x", b"1"), (b"y", b"2"), (b"x", b"3"))


@pytest.mark.parametrize(
    ("fields", "framing", "length", "has_body"),
    [
        ([], NO_BODY, 0, False),
        (["Content-Length: 0"], NO_BODY, 0, False),
        (["Content-Length: 000"], NO_BODY, 0, False),
        (["Content-Length: 7"], LENGTH, 7, True),
        (["Content-Length: 999999999999999999"], LENGTH, 999999999999999999, True),
        (["Transfer-Encoding: chunked"], CHUNKED, 0, True),
        (["transfer-encoding: CHUNKED"], CHUNKED, 0, True),
    ],
)
def test_how_the_content_is_delimited(
    fields: list[str], framing: int, length: int, has_body: bool
) -> None:
    head = parse(*fields, line="POST / HTTP/1.1")
    assert (head.framing, head.length, head.has_body) == (framing, length, has_body)


@pytest.mark.parametrize(
    ("line", "fields", "keep_alive"),
    [
        ("GET / HTTP/1.1", [], True),
        ("GET / HTTP/1.1", ["Connection: close"], False),
        ("GET / HTTP/1.1", ["Connection: CLOSE"], False),
        ("GET / HTTP/1.1", ["Connection: a,close,b"], False),
        ("GET / HTTP/1.1", ["Connection: a", "Connection: close"], False),
        ("GET / HTTP/1.1", ["Connection: close", "Connection: a"], False),
        ("GET / HTTP/1.1", ["Connection: "], True),
        ("GET / HTTP/1.1", ["Connection: closer"], True),
        ("GET / HTTP/1.1", ["Connection: keep-alive"], True),
        ("GET / HTTP/1.1", ["Proxy-Connection: close"], True),
        ("GET / HTTP/1.0", [], False),
        ("GET / HTTP/1.0", ["Connection: keep-alive"], True),
        ("GET / HTTP/1.0", ["Connection: Keep-Alive, a"], True),
        ("GET / HTTP/1.0", ["Connection: keep-alive, close"], False),
        ("GET / HTTP/1.0", ["Connection: a"], False),
        ("GET / HTTP/1.2", [], True),
    ],
)
def test_whether_the_connection_persists(line: str, fields: list[str], keep_alive: bool) -> None:
    assert parse(*fields, line=line).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("fields", "upgrade"),
    [
        ([], None),
        (["Upgrade: websocket"], None),
        (["Connection: upgrade"], None),
        (["Connection: Upgrade", "Upgrade: WebSocket"], b"websocket"),
        (["Connection: keep-alive, upgrade", "Upgrade: websocket"], b"websocket"),
        (["Connection: keep-alive", "Connection: upgrade", "Upgrade: websocket"], b"websocket"),
        (["Connection: upgrade", "Upgrade: a", "Upgrade: b"], b"a, b"),
        (["Connection: upgrade", "Upgrade:"], None),
        (["Connection: upgrades", "Upgrade: websocket"], None),
    ],
)
def test_whether_an_upgrade_is_offered(fields: list[str], upgrade: bytes | None) -> None:
    assert parse(*fields).upgrade == upgrade


def test_an_upgrade_is_never_offered_by_10() -> None:
    """RFC 9110 §7.8"""
    fields = ["Connection: upgrade", "Upgrade: websocket"]
    assert parse(*fields, line="GET / HTTP/1.0").upgrade is None


@pytest.mark.parametrize(
    ("value", "takes"),
    [("trailers", True), ("gzip, TRAILERS", True), ("trailersx", False), ("gzip", False)],
)
def test_whether_the_client_takes_trailers(value: str, takes: bool) -> None:
    assert parse(f"TE: {value}").trailers is takes
    assert parse(f"TE: {value}", line="GET / HTTP/1.0").trailers is False


@pytest.mark.parametrize(
    ("line", "fields", "expects"),
    [
        ("POST / HTTP/1.1", ["Content-Length: 1"], True),
        ("POST / HTTP/1.1", ["Transfer-Encoding: chunked"], True),
        ("POST / HTTP/1.1", ["Content-Length: 0"], False),
        ("POST / HTTP/1.1", [], False),
        ("POST / HTTP/1.0", ["Content-Length: 1"], False),
    ],
)
def test_whether_a_100_is_waited_for(line: str, fields: list[str], expects: bool) -> None:
    assert parse("Expect: 100-continue", *fields, line=line).expects_continue is expects


def test_an_unknown_expectation_is_417() -> None:
    assert refusal("Expect: x").status == 417
    assert parse("Expect: x", line="GET / HTTP/1.0").method == "GET"


@pytest.mark.parametrize(
    ("line", "version"),
    [("GET / HTTP/1.0", "1.0"), ("GET / HTTP/1.1", "1.1"), ("GET / HTTP/1.9", "1.1")],
)
def test_the_version(line: str, version: str) -> None:
    assert parse(line=line).version == version


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("Host: a", ((b"host", b"b"), (b"x", b"1"))),
        ("Host: b", ((b"host", b"b"), (b"x", b"1"))),
        ("Host:", ((b"host", b"b"), (b"x", b"1"))),
    ],
)
def test_the_authority_of_the_target_wins(host: str, headers: Any) -> None:
    """RFC 9112 §3.2.2"""
    head = parse("X: 1", line="GET http://b/ HTTP/1.1", host=host)
    assert head.headers == headers
    assert head.fields[b"host"] == b"b"


# ---------------------------------------------------------------- every byte in every place

TCHAR = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def accepts(data: bytes) -> bool:
    try:
        return RequestParser().parse(data) is not None
    except RemoteProtocolError:
        return False


def test_each_byte_in_each_place_of_a_head() -> None:
    for byte in range(256):
        char = bytes((byte,))
        upper = byte in TCHAR and not 0x61 <= byte <= 0x7A
        assert accepts(b"G%bT / HTTP/1.1\r\nHost: a\r\n\r\n" % char) is upper
        target = 0x21 <= byte <= 0x7E and byte != 0x23
        assert accepts(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % char) is target
        assert accepts(b"GET /?%b HTTP/1.1\r\nHost: a\r\n\r\n" % char) is target
        name = byte in TCHAR or byte == 0x3A  # a colon ends the name early
        assert accepts(b"GET / HTTP/1.1\r\nHost: a\r\nX%bY: 1\r\n\r\n" % char) is name
        value = byte == 9 or 0x20 <= byte <= 0x7E or byte >= 0x80
        assert accepts(b"GET / HTTP/1.1\r\nHost: a\r\nX: 1%b2\r\n\r\n" % char) is value
        assert accepts(b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % char) is value
        length = 0x30 <= byte <= 0x39
        head = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1%b2\r\n\r\n" % char
        assert accepts(head) is length
        coding = b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked%b\r\n\r\n" % char
        assert accepts(coding) is (byte in b" \t")
        coding = b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: %bchunked\r\n\r\n" % char
        assert accepts(coding) is (byte in b" \t")
        assert not accepts(b"GET / HTTP/1.1%b\r\nHost: a\r\n\r\n" % char)
        assert accepts(b"GET / HTTP/1.%b\r\nHost: a\r\n\r\n" % char) is (0x30 <= byte <= 0x39)
        assert accepts(b"GET / HTTP/%b.1\r\nHost: a\r\n\r\n" % char) is (byte == 0x31)
        assert accepts(b"GET%b/ HTTP/1.1\r\nHost: a\r\n\r\n" % char) is (byte == 0x20)
        assert accepts(b"GET /%bHTTP/1.1\r\nHost: a\r\n\r\n" % char) is (byte == 0x20)


# ---------------------------------------------------------------- refusals explain themselves


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        (["X : 1"], "colon"),
        ([" X: 1"], "fold"),
        (["X"], "colon"),
        (["X: \x00"], "NUL"),
        (["X: a\rb"], "CR"),
        (["Host: b"], "host"),
        (["Content-Length: x"], "content-length"),
        (["Content-Length: 1", "Content-Length: 1"], "content-length"),
        (["Transfer-Encoding: gzip"], "transfer-encoding"),
        (["Transfer-Encoding: chunked", "Content-Length: 1"], "both"),
        (["Host: a/b"], "host"),
    ],
)
def test_a_refusal_names_what_was_wrong(fields: list[str], word: str) -> None:
    error = refusal(*fields)
    assert error.status == 400
    assert word in error.reason


@pytest.mark.parametrize("line", ["GET / HTTP/2.0", "GET /", "\x16\x03\x01", "get / HTTP/1.1"])
def test_a_refused_line_is_explained_and_never_echoed(line: str) -> None:
    error = refusal(line=line)
    assert len(error.reason) > 10
    assert error.reason.isprintable()


@given(st.binary(max_size=60).filter(lambda junk: b"\n" not in junk))
def test_a_refusal_never_echoes_what_the_peer_wrote(junk: bytes) -> None:
    """It goes to a page and to a log: no injection into either."""
    marked = b"<evil>" + junk + b"<"
    for data in (marked + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + marked + b"\r\n\r\n"):
        with pytest.raises(RemoteProtocolError) as caught:
            RequestParser().parse(data)
        reason = caught.value.reason
        assert "evil" not in reason
        assert reason.isascii()
        assert reason.isprintable()


# ---------------------------------------------------------------- the memories


def test_an_equal_head_is_the_same_object_in_the_end() -> None:
    parser = RequestParser()
    block = head_of("Accept: */*")
    heads = [parser.parse(block) for _ in range(4)]
    assert parser.heads.get(block) is not None
    assert all(head is not None and head.headers == heads[0].headers for head in heads)  # type: ignore[union-attr]


def test_a_head_that_comes_once_is_not_remembered_whole() -> None:
    parser = RequestParser()
    parser.parse(head_of("X: 1"))
    assert not parser.heads


def test_a_long_head_is_not_remembered_whole() -> None:
    parser = RequestParser()
    block = head_of("X: " + "y" * SHORT)
    for _ in range(4):
        parser.parse(block)
    assert not parser.heads


def test_a_refused_head_is_not_remembered() -> None:
    parser = RequestParser()
    for _ in range(4):
        with pytest.raises(RemoteProtocolError):
            parser.parse(head_of("Content-Length: x"))
    assert not parser.heads


def test_a_legal_line_does_not_vouch_for_another_head() -> None:
    """Lines are remembered one by one; what they mean together is judged anew."""
    parser = RequestParser()
    for _ in range(3):
        assert parser.parse(head_of("Content-Length: 3")) is not None
        assert parser.parse(head_of("Transfer-Encoding: chunked")) is not None
    with pytest.raises(RemoteProtocolError):
        parser.parse(head_of("Content-Length: 3", "Transfer-Encoding: chunked"))
    with pytest.raises(RemoteProtocolError):
        parser.parse(head_of("Content-Length: 3", "Content-Length: 3"))
    with pytest.raises(RemoteProtocolError):
        parser.parse(head_of("Host: a"))


def test_a_connection_field_that_was_seen_alone_is_judged_with_its_company() -> None:
    parser = RequestParser()
    for _ in range(3):
        assert parser.parse(head_of("Connection: keep-alive")).keep_alive  # type: ignore[union-attr]
    head = parser.parse(head_of("Connection: close", "Connection: keep-alive"))
    assert head is not None
    assert not head.keep_alive
    # And the other way round: what several said together is not remembered for one.
    head = parser.parse(head_of("Connection: keep-alive"))
    assert head is not None
    assert head.keep_alive


def containers(parser: RequestParser) -> list[tuple[str, Any]]:
    found = [(name, getattr(parser, name)) for name in type(parser).__slots__]
    return [(name, value) for name, value in found if isinstance(value, dict | set | list)]


def weight(value: Any) -> int:
    """Bytes of all keys and values of a table, roughly."""
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, dict):
        return sum(weight(key) + weight(item) for key, item in value.items())
    if isinstance(value, tuple | list | set):
        return sum(map(weight, value))
    return sum(weight(getattr(value, slot, None)) for slot in slots_of(value))


def slots_of(value: Any) -> list[str]:
    return [slot for kind in type(value).__mro__ for slot in getattr(kind, "__slots__", ())]


def test_no_number_of_distinct_heads_grows_the_memories_past_their_bounds() -> None:
    """Design, hot-path rule 6: a hostile client can fill them but not grow them."""
    parser = RequestParser()
    most: dict[str, int] = {}
    for i in range(30_000):
        # Every piece is new; every third head comes twice, so that it is remembered whole.
        key = i - i % 3
        parser.parse(
            b"GET /%d HTTP/1.1\r\nHost: h%d\r\nX-%d: %d\r\nCookie: %d\r\nConnection: c%d\r\n\r\n"
            % (key, key, key % 5000, key, key, key)
        )
        if i % 500 == 0:
            for name, table in containers(parser):
                most[name] = max(most.get(name, 0), len(table))
    assert len(most) >= 5
    assert max(most.values()) <= 4096
    for name, table in containers(parser):
        if isinstance(table, Memo):
            assert len(table) <= table.entries, name
    assert sum(weight(table) for _, table in containers(parser)) < 16 << 20


def test_large_pieces_never_enter_the_memories() -> None:
    parser = RequestParser(Limits(line=1 << 20, head=1 << 22))
    big = "y" * 10_000
    for i in range(300):
        for _ in range(2):
            parser.parse(
                head_of(f"X{i}: {big}{i}", f"N{big}{i}: 1", line=f"GET /{big}{i} HTTP/1.1")
            )
    assert sum(weight(table) for _, table in containers(parser)) < 1 << 20


@given(st.lists(st.sampled_from([
    head_of(), head_of("Connection: close"), head_of("Content-Length: 3"), head_of("Host: b"),
    head_of("Transfer-Encoding: chunked"), head_of("X: 1", "X: 2"), head_of("X : 1"),
    head_of(line="GET /x HTTP/1.0"), head_of(line="HEAD / HTTP/1.1"), head_of("Expect: x"),
    head_of(line="GET http://b/ HTTP/1.1"), head_of("Connection: upgrade", "Upgrade: a"),
]), max_size=40))  # fmt: skip
def test_no_order_of_heads_changes_what_one_means(blocks: list[bytes]) -> None:
    warm = RequestParser()
    for block in blocks:
        assert described(warm, block) == described(RequestParser(), block)


NAMES = "X|x|Host|Connection|Content-Length|Expect|TE|Upgrade|Transfer-Encoding|Forwarded|Cookie"
VALUES = "a|b| a |close|upgrade|keep-alive|3|4|chunked|\0|100-continue|trailers|a b|a:b|\xe9||\t"
TARGETS = "GET /|GET /x?y|POST /|HEAD /|GET http://b/|OPTIONS *|get /|GET"
FIELDS = st.tuples(
    st.sampled_from(NAMES.split("|")), st.sampled_from([*VALUES.split("|"), 2100 * "x"])
)
FIRST_LINES = st.tuples(
    st.sampled_from(TARGETS.split("|")), st.sampled_from([" HTTP/1.1", " HTTP/1.0"])
)


@given(
    st.lists(FIELDS, max_size=5, unique_by=lambda field: field[0]),
    st.lists(st.tuples(st.integers(0, 5), FIRST_LINES | FIELDS | FIELDS), max_size=10),
)
def test_the_head_before_changes_nothing_in_what_one_means(
    fields: list[tuple[str, str]], changes: list[tuple[int, tuple[str, str]]]
) -> None:
    """Each is that before with another value, name, further line or first line."""
    warm = RequestParser(Limits(body=3, fields=5))
    before: list[Any] = [None]
    line = "POST / HTTP/1.1"
    for place, (name, value) in [(6, ("X", "")), *changes]:
        if "/" in value:
            line = name + value
        elif place < len(fields):
            kept = fields[place][0] if place % 2 else name
            fields = [*fields[:place], (kept, value), *fields[place + 1 :]]
        elif place < 6:
            fields = [*fields, (name, value)]
        block = head_of(*[f"{name}: {value}" for name, value in fields], line=line)
        cold = RequestParser(Limits(body=3, fields=5))
        assert described(warm, block, before) == described(cold, block)


@pytest.mark.parametrize(
    ("fields", "others"),
    [
        (["X: a"], ["X: b"]),
        (["Content-Length: 3"], ["Content-Length: 2"]),
        (["Content-Length: 3"], ["Content-Length: 4"]),
        (["Content-Length: 3"], ["Content-Length: x"]),
        (["Transfer-Encoding: chunked"], ["Transfer-Encoding: gzip"]),
        (["Content-Length: 3", "Expect: 100-continue"], ["Content-Length: 3", "Expect: x"]),
        (["TE: trailers"], ["TE: gzip"]),
        (["Connection: close"], ["Connection: x"]),
        (["Connection: upgrade", "Upgrade: a"], ["Connection: upgrade", "Upgrade: b"]),
        (["Host: b"], ["Host: a b"]),
        (["X: a"], ["X: \0"]),
        (["X: a"], ["X : a"]),
        (["X: a"], ["Content-Length: 2"]),
        (["X: a", "X: b"], ["X: c", "X: b"]),
        (["X: a"], ["X: a", "Connection: close"]),
        (["X: a", "Connection: close"], ["X: a"]),
    ],
)
@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("POST / HTTP/1.1", "POST / HTTP/1.1"),
        ("POST / HTTP/1.1", "HEAD /x HTTP/1.1"),
        ("POST / HTTP/1.0", "POST / HTTP/1.1"),
        ("POST / HTTP/1.1", "POST / HTTP/1.0"),
        ("POST / HTTP/1.1", "POST http://c/ HTTP/1.1"),
        ("POST http://c/ HTTP/1.1", "POST http://c/ HTTP/1.1"),
        ("POST http://c/ HTTP/1.1", "POST / HTTP/1.1"),
    ],
)
def test_what_decides_is_read_anew(
    line: str, other: str, fields: list[str], others: list[str]
) -> None:
    limits = Limits(body=3)
    host = "" if fields[0].startswith("Host") else "Host: a"
    parser = RequestParser(limits)
    before: list[Any] = [None]
    described(parser, head_of(*fields, line=line, host=host), before)
    block = head_of(*others, line=other, host=host)
    assert described(parser, block, before) == described(RequestParser(limits), block)


def test_a_head_like_the_one_before_shares_what_is_the_same() -> None:
    parser = RequestParser()
    first = parser.parse(head_of("X: 1", "Cookie: a", "Te: trailers"))
    assert first is not None
    first.template = {"path": "/"}
    first.environ = {"PATH_INFO": "/"}
    second = parser.parse(head_of("X: 1", "Cookie:  b ", "Te: trailers"), first)
    assert second is not None
    assert second.headers == (
        (b"host", b"a"), (b"x", b"1"), (b"cookie", b"b"), (b"te", b"trailers")
    )  # fmt: skip
    assert second.fields[b"cookie"] == b"b" and first.fields[b"cookie"] == b"a"
    assert second.headers[1] is first.headers[1]
    assert second.trailers
    assert second.template is first.template and second.environ is None
    third = parser.parse(head_of("X: 1", "Cookie: b", line="GET /x HTTP/1.1"), second)
    assert third is not None and (third.path, third.template) == ("/x", None)


def test_a_long_head_is_not_kept_to_be_compared() -> None:
    parser = RequestParser()
    heads = [parser.parse(head_of(f"Cookie: {size * 'x'}")) for size in (2000, 2048)]
    assert [head is not None and head.lines is not None for head in heads] == [True, False]


def described(parser: RequestParser, block: bytes, before: list[Any] | None = None) -> Any:
    try:
        head = parser.parse(block, before[0] if before else None)
    except RemoteProtocolError as error:
        return error.status, error.reason
    if before is not None:
        before[0] = head
    return head and {slot: getattr(head, slot) for slot in slots_of(head) if slot not in MEMORY}


def test_a_head_remembered_with_other_limits_does_not_exist() -> None:
    """Limits and memories live in one object: none is shared between two."""
    loose, tight = RequestParser(), RequestParser(Limits(fields=1))
    block = head_of("X: 1")
    for _ in range(3):
        assert loose.parse(block) is not None
        with pytest.raises(LimitExceeded):
            tight.parse(block)
