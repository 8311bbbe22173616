"""Field lists to `Head`: what a request says, what makes it malformed, what is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import Http2StreamError, LimitExceeded, RemoteProtocolError
from omnicorn.http.limits import Limits
from omnicorn.protocols.http1 import RequestParser as Http1RequestParser
from omnicorn.protocols.http2.codes import PROTOCOL_ERROR
from omnicorn.protocols.http2.requests import Head, RequestParser

if TYPE_CHECKING:
    from omnicorn.http.memo import Memo

Pair = tuple[bytes, bytes]

METHOD = (b":method", b"GET")
SCHEME = (b":scheme", b"https")
AUTHORITY = (b":authority", b"a.example")
PATH = (b":path", b"/")
GET = (METHOD, SCHEME, AUTHORITY, PATH)
HOST = (b"host", b"a.example")
TUNNEL = ((b":method", b"CONNECT"), (b":authority", b"a:1"))
WEBSOCKET = (
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    SCHEME,
    AUTHORITY,
    PATH,
)


def parse(*fields: Pair, ended: bool = True, limits: Limits | None = None) -> Head:
    """Twice, so that what is remembered says the same."""
    parser = RequestParser(limits)
    first = parser.parse(fields, ended)
    again = parser.parse(fields, ended)
    assert (first.headers, first.fields, first.path) == (again.headers, again.fields, again.path)
    return again


def get(*fields: Pair, **more: Any) -> Head:
    return parse(*GET, *fields, **more)


def malformed(*fields: Pair, ended: bool = True) -> str:
    """Why the stream is reset; warm as cold."""
    parser = RequestParser()
    parser.parse(GET, True)
    reasons = []
    for _ in range(2):
        with pytest.raises(Http2StreamError) as caught:
            parser.parse(fields, ended)
        assert caught.value.code == PROTOCOL_ERROR
        reasons.append(caught.value.reason)
    assert reasons[0] == reasons[1]
    return reasons[0]


def answered(*fields: Pair, ended: bool = True, limits: Limits | None = None) -> Any:
    """The error that is answered with a status."""
    parser = RequestParser(limits)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError) as caught:
            parser.parse(fields, ended)
        assert not isinstance(caught.value, Http2StreamError)
    return caught.value


def replaced(name: bytes, value: bytes) -> tuple[Pair, ...]:
    return tuple((key, value if key == name else old) for key, old in GET)


def without(*names: bytes) -> tuple[Pair, ...]:
    return tuple(pair for pair in GET if pair[0] not in names)


# ---------------------------------------------------------------- what a request says


def test_a_request() -> None:
    head = parse(
        (b":method", b"POST"),
        (b":path", b"/a%20b/%C3%A9?q=1?2"),
        SCHEME,
        AUTHORITY,
        (b"x", b"1"),
        (b"y", b""),
        (b"x", b"a\tb \xff"),
        ended=False,
    )
    assert head.method == "POST"
    assert head.version == "2"
    assert head.path == "/a b/é"
    assert head.raw_path == b"/a%20b/%C3%A9"
    assert head.query == b"q=1?2"
    assert head.headers == (HOST, (b"x", b"1"), (b"y", b""), (b"x", b"a\tb \xff"))
    assert head.fields == {b"host": b"a.example", b"x": b"a\tb \xff", b"y": b""}
    assert head.has_body is True
    assert head.length == -1
    assert head.upgrade is None
    assert head.protocol is None
    assert head.template is None
    assert head.priority is None
    assert head.forwarded is head.trailers is head.expects_continue is head.head_only is False


def test_its_end_says_whether_there_is_content() -> None:
    assert get(ended=True).has_body is False
    assert get(ended=False).has_body is True


def test_head_is_told_apart() -> None:
    assert parse(*replaced(b":method", b"HEAD")).head_only is True
    assert get().head_only is False


def test_the_order_of_pseudo_header_fields_is_free() -> None:
    assert parse(*reversed(GET)).headers == (HOST,)


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"x-forwarded-proto", b"forwarded"])
def test_a_proxy_that_speaks_for_a_client_is_noted(name: bytes) -> None:
    assert get((name, b"x")).forwarded is True
    assert get((name + b"x", b"x")).forwarded is False


# ---------------------------------------------------------------- authority and host


def test_the_authority_is_the_first_header() -> None:
    assert get((b"a", b"1")).headers == (HOST, (b"a", b"1"))


@pytest.mark.parametrize(
    ("authority", "host"),
    [(b"a.example", b"A.Example"), (b"a:443", b"a"), (b"a", b"a:443"), (b"a:", b"a"), (b"a", b"a")],
)
def test_a_host_field_that_says_the_same_is_replaced(authority: bytes, host: bytes) -> None:
    """RFC 9113 §8.3.1: both are normalized to compare them."""
    head = parse(*replaced(b":authority", authority), (b"x", b"1"), (b"host", host))
    assert head.headers == ((b"host", authority), (b"x", b"1"))
    assert head.fields == {b"host": authority, b"x": b"1"}


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"a.example", b"b.example"),
        (b"a", b"a:80"),
        (b"a", b""),
        (b"a:1", b"a:2"),
        (b"a", b"a,b"),
        (b"a", b"a::443"),
    ],
)
def test_a_host_field_that_differs_is_malformed(authority: bytes, host: bytes) -> None:
    """RFC 9113 §8.3.1, CVE-2026-71554"""
    assert "differs" in malformed(*replaced(b":authority", authority), (b"host", host))


@pytest.mark.parametrize("fields", [GET, without(b":authority")])
def test_several_host_fields_are_malformed(fields: tuple[Pair, ...]) -> None:
    """RFC 9110 §7.2, CVE-2026-71554; also if they agree."""
    assert "several host" in malformed(*fields, HOST, HOST)


def test_host_stands_in_for_the_authority() -> None:
    """RFC 9113 §8.3.1; it moves to the front."""
    head = parse(*without(b":authority"), (b"x", b"1"), HOST)
    assert head.headers == (HOST, (b"x", b"1"))
    assert head.fields == {b"host": b"a.example", b"x": b"1"}


def test_a_request_need_not_name_an_authority() -> None:
    """RFC 9113 §8.3.1: there may be none to convey."""
    head = parse(*without(b":authority"), (b"x", b"1"))
    assert head.headers == ((b"x", b"1"),)


@pytest.mark.parametrize(
    "value", [b"u@a", b"u:p@a", b"", b":80", b"a b", b"a/", b"a:x", b"\xe9", b"[", b"a#"]
)
def test_a_bad_authority_is_malformed(value: bytes) -> None:
    """RFC 9113 §8.3.1: no userinfo; RFC 9110 §4.2.1: no empty host."""
    assert "authority" in malformed(*replaced(b":authority", value))
    assert "authority" in malformed((b":method", b"CONNECT"), (b":authority", value))


@pytest.mark.parametrize("value", [b"u@a", b"a b", b"a/", b"a:b"])
def test_a_bad_host_is_malformed(value: bytes) -> None:
    assert "host" in malformed(*without(b":authority"), (b"host", value))


# ---------------------------------------------------------------- cookies


@pytest.mark.parametrize("host", [(), (HOST,)])
def test_the_crumbs_of_a_cookie_are_joined_at_the_place_of_the_first(host: Any) -> None:
    """RFC 9113 §8.2.3"""
    fields = ((b"x", b"1"), (b"cookie", b"a=1"), *host, (b"cookie", b"b=2"), (b"y", b"2"))
    head = get(*fields, (b"cookie", b"c=3"), (b"x", b"3"))
    cookie = (b"cookie", b"a=1; b=2; c=3")
    assert head.headers == (HOST, (b"x", b"1"), cookie, (b"y", b"2"), (b"x", b"3"))
    assert head.fields == dict(head.headers)


def test_an_empty_crumb_leaves_nothing_behind() -> None:
    """Joined like the others it would leave white space at an end of the value."""
    crumbs = [(b"cookie", value) for value in (b"", b"a=1", b"", b"b=2", b"")]
    assert get(*crumbs).fields[b"cookie"] == b"a=1; b=2"
    assert get(*crumbs[::4]).fields[b"cookie"] == b""


def test_one_cookie_stays_as_it_is() -> None:
    assert get((b"cookie", b"a=1; b=2;c")).fields[b"cookie"] == b"a=1; b=2;c"


# ---------------------------------------------------------------- malformed: names and values

TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_in_a_name(byte: int) -> None:
    """RFC 9113 §8.2.1: no upper case; RFC 9110 §5.1: a token."""
    char = bytes((byte,))
    for name in (b"x" + char, b"x" + char + b"x", char):
        if char in TOKEN:
            assert get((name, b"1")).fields[name] == b"1"
        else:
            malformed(*GET, (name, b"1"))


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_in_a_value(byte: int) -> None:
    """RFC 9113 §8.2.1; RFC 9110 §5.5 for the other control bytes."""
    char = bytes((byte,))
    inside = b"a" + char + b"a"
    if byte == 9 or 0x20 <= byte <= 0x7E or byte >= 0x80:
        assert get((b"x", inside)).fields[b"x"] == inside
    else:
        assert "value" in malformed(*GET, (b"x", inside))
    for value in (char + b"a", b"a" + char, char):
        if 0x20 < byte <= 0x7E or byte >= 0x80:
            assert get((b"x", value), (b"y", b"")).fields[b"x"] == value
        else:
            assert "value" in malformed(*GET, (b"x", value), (b"y", b""))


def test_an_empty_name_is_malformed() -> None:
    assert "no name" in malformed(*GET, (b"", b"1"))


@pytest.mark.parametrize(
    "name", [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"]
)
def test_connection_specific_fields_are_malformed(name: bytes) -> None:
    """RFC 9113 §8.2.2"""
    assert name.decode() in malformed(*GET, (name, b"x"))


@pytest.mark.parametrize("value", [b"", b"gzip", b"trailers, gzip", b"trailers;q=1", b"deflate"])
def test_te_says_trailers_alone(value: bytes) -> None:
    """RFC 9113 §8.2.2"""
    assert "te says" in malformed(*GET, (b"te", value))
    assert "te says" in malformed(*GET, (b"te", value), (b"te", b"trailers"))


def test_te_tells_of_a_client_that_takes_trailers() -> None:
    assert get((b"te", b"trailers")).trailers is True
    assert get((b"te", b"Trailers")).trailers is True
    assert get((b"te", b"trailers"), (b"te", b"trailers")).trailers is True


# ---------------------------------------------------------------- malformed: pseudo-headers


@pytest.mark.parametrize(
    "name", [b":status", b":x", b":", b":Method", b":PATH", b":host", b": path"]
)
def test_an_unknown_pseudo_header_field_is_malformed(name: bytes) -> None:
    """RFC 9113 §8.3: also one of responses."""
    malformed(*GET, (name, b"200"))
    malformed((name, b"200"), *GET)
    malformed(*GET, (b"x", b"1"), (name, b"200"))


@pytest.mark.parametrize("pair", GET)
def test_each_pseudo_header_field_stands_there_once(pair: Pair) -> None:
    """RFC 9113 §8.3"""
    assert "twice" in malformed(*GET, pair)
    assert "twice" in malformed(pair, *GET)


@pytest.mark.parametrize("pair", GET)
def test_a_pseudo_header_field_behind_others_is_malformed(pair: Pair) -> None:
    """RFC 9113 §8.3: whether it stands in front as well or not."""
    assert "behind" in malformed(*GET, (b"x", b"1"), pair)
    assert "behind" in malformed(*without(pair[0]), (b"x", b"1"), pair)


@pytest.mark.parametrize("name", [b":method", b":scheme", b":path"])
def test_a_missing_pseudo_header_field_is_malformed(name: bytes) -> None:
    """RFC 9113 §8.3.1"""
    assert name.decode() in malformed(*without(name))


def test_no_fields_at_all_are_malformed() -> None:
    assert ":method" in malformed()
    assert ":method" in malformed((b"x", b"1"))
    assert ":path" in malformed(METHOD, AUTHORITY)


@pytest.mark.parametrize("value", [b"", b"G T", b"GET ", b"GE\xc9", b"G:T", b"GET\r\n"])
def test_a_method_that_is_no_token_is_malformed(value: bytes) -> None:
    malformed(*replaced(b":method", value))


@pytest.mark.parametrize("value", [b"", b"1http", b"ht tp", b"http:", b"h\xe9", b"http/"])
def test_a_bad_scheme_is_malformed(value: bytes) -> None:
    """RFC 3986 §3.1"""
    assert "scheme" in malformed(*replaced(b":scheme", value))


@pytest.mark.parametrize(
    "value",
    [
        b"", b"a", b"?a", b"*", b"*a", b"http://a/", b"/#", b"/a#b", b"/ b", b"/a b", b"/?a b",
        b"/\t", b"/\0", b"/\r\n", b"/\x7f", b"/\xc3\xa9", b"/a ", b" /",
    ],
)  # fmt: skip
def test_a_bad_path_is_malformed(value: bytes) -> None:
    """RFC 9113 §8.3.1"""
    malformed(*replaced(b":path", value))


def test_the_asterisk_is_for_options() -> None:
    """RFC 9113 §8.3.1; what was remembered for OPTIONS does not let GET have it."""
    parser = RequestParser()
    head = parser.parse(((b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")), True)
    assert (head.path, head.raw_path, head.query) == ("*", b"*", b"")
    with pytest.raises(Http2StreamError):
        parser.parse(replaced(b":path", b"*"), True)


# ---------------------------------------------------------------- CONNECT


def test_an_extended_connect_is_an_upgrade() -> None:
    """RFC 8441 §4"""
    head = parse(*WEBSOCKET, (b"sec-websocket-version", b"13"), ended=False)
    assert head.method == "CONNECT"
    assert head.upgrade == head.protocol == b"websocket"
    assert head.path == "/"
    assert head.headers == (HOST, (b"sec-websocket-version", b"13"))


def test_the_protocol_is_lower_case() -> None:
    fields = [(name, value.replace(b"web", b"Web")) for name, value in WEBSOCKET]
    assert parse(*fields).protocol == b"websocket"


@pytest.mark.parametrize("value", [b"", b"a b", b"a,b", b"\xe9"])
def test_a_protocol_that_is_no_token_is_malformed(value: bytes) -> None:
    fields = [(name, value if name == b":protocol" else old) for name, old in WEBSOCKET]
    assert "protocol" in malformed(*fields)


def test_a_protocol_without_connect_is_malformed() -> None:
    """RFC 8441 §4"""
    assert "CONNECT" in malformed(*GET, (b":protocol", b"websocket"))


@pytest.mark.parametrize("name", [b":scheme", b":path"])
def test_an_extended_connect_without_scheme_or_path_is_malformed(name: bytes) -> None:
    """RFC 8441 §4"""
    assert name.decode() in malformed(*[pair for pair in WEBSOCKET if pair[0] != name])


@pytest.mark.parametrize("more", [[SCHEME], [PATH], [SCHEME, PATH]])
def test_a_connect_with_scheme_or_path_is_malformed(more: list[Pair]) -> None:
    """RFC 9113 §8.5"""
    malformed(*TUNNEL, *more)


def test_a_connect_without_authority_is_malformed() -> None:
    """RFC 9113 §8.5"""
    malformed((b":method", b"CONNECT"))
    malformed((b":method", b"CONNECT"), HOST)
    malformed((b":method", b"CONNECT"), (b":protocol", b"websocket"), AUTHORITY)


def test_a_plain_connect_is_501() -> None:
    error = answered(*TUNNEL)
    assert (error.status, error.reason) == (501, "CONNECT: no tunnel is offered")


# ---------------------------------------------------------------- content-length


@pytest.mark.parametrize(
    ("value", "length"), [(b"0", 0), (b"7", 7), (b"007", 7), (b"9" * 18, 10**18 - 1)]
)
def test_the_length_of_content_to_come(value: bytes, length: int) -> None:
    head = get((b"content-length", value), ended=False)
    assert head.length == length
    assert head.has_body is True


def test_no_content_may_be_said_to_have_none() -> None:
    """RFC 9113 §8.1.1"""
    head = get((b"content-length", b"0"), ended=True)
    assert (head.length, head.has_body) == (0, False)


def test_a_length_without_content_is_malformed() -> None:
    """RFC 9113 §8.1.1"""
    assert "no content" in malformed(*GET, (b"content-length", b"1"), ended=True)


@pytest.mark.parametrize(
    "value", [b"", b"-1", b"+1", b"1,1", b"1_0", b"0x1", b"1.0", b"\xb2", b"1" * 19]
)
def test_a_length_that_is_no_number_is_malformed(value: bytes) -> None:
    """RFC 9110 §8.6; more digits than any content has are none either."""
    assert "content-length" in malformed(*GET, (b"content-length", value), ended=False)


@pytest.mark.parametrize("other", [b"1", b"2"])
def test_several_lengths_are_malformed(other: bytes) -> None:
    """RFC 9113 §8.1.1; if they agree, too, as for HTTP/1.1."""
    fields = ((b"content-length", b"1"), (b"content-length", other))
    assert "several" in malformed(*GET, *fields, ended=False)


# ---------------------------------------------------------------- what is answered


def test_too_many_fields_are_431() -> None:
    limits = Limits(fields=3)
    fields = [(b"x%d" % number, b"1") for number in range(4)]
    assert len(get(*fields[:3], limits=limits).headers) == 4
    error = answered(*GET, *fields, limits=limits)
    assert isinstance(error, LimitExceeded)
    assert error.status == 431


def test_the_crumbs_of_a_cookie_count_as_one_field() -> None:
    fields = [(b"cookie", b"a=1")] * 50
    assert get(*fields, limits=Limits(fields=1)).fields[b"cookie"].count(b";") == 49
    assert answered(*GET, *fields, (b"x", b"1"), limits=Limits(fields=1)).status == 431


def test_a_long_path_is_414() -> None:
    limits = Limits(line=10)
    assert parse(*replaced(b":path", b"/" * 10), limits=limits).raw_path == b"/" * 10
    error = answered(*replaced(b":path", b"/" * 11), limits=limits)
    assert isinstance(error, LimitExceeded)
    assert error.status == 414


def test_a_length_over_the_limit_is_413() -> None:
    limits = Limits(body=10)
    assert get((b"content-length", b"10"), ended=False, limits=limits).length == 10
    error = answered(*GET, (b"content-length", b"11"), ended=False, limits=limits)
    assert isinstance(error, LimitExceeded)
    assert error.status == 413


def test_an_unknown_expectation_is_417() -> None:
    assert answered(*GET, (b"expect", b"x")).status == 417


@pytest.mark.parametrize("ended", [True, False])
def test_whether_a_100_is_waited_for(ended: bool) -> None:
    assert get((b"expect", b"100-Continue"), ended=ended).expects_continue is not ended


def test_a_method_in_lower_case_is_400() -> None:
    """RFC 9110 §9.1: methods have case; as for HTTP/1.1."""
    assert answered(*replaced(b":method", b"get")).status == 400
    assert answered(*replaced(b":method", b"connect")).status == 400


def test_another_scheme_is_400() -> None:
    assert answered(*replaced(b":scheme", b"ftp")).status == 400
    assert parse(*replaced(b":scheme", b"HTTP")).path == "/"


# ---------------------------------------------------------------- priority


def test_the_priority_is_read() -> None:
    """RFC 9218 §5"""
    assert get((b"priority", b"u=1, i")).priority == (1, True)
    assert get((b"priority", b"nonsense=")).priority == (3, False)


def test_several_priority_fields_are_one() -> None:
    """RFC 9651 §4.2"""
    assert get((b"priority", b"u=1"), (b"x", b"1"), (b"priority", b"i")).priority == (1, True)
    assert get((b"priority", b"u=1"), (b"x", b"1"), (b"x", b"i")).priority == (1, False)


# ---------------------------------------------------------------- trailers


def test_trailers_are_checked() -> None:
    """RFC 9113 §8.1"""
    parser = RequestParser()
    for _ in range(2):
        parser.check_trailers(())
        parser.check_trailers([(b"grpc-status", b"0"), (b"x", b"")])


@pytest.mark.parametrize(
    "pair",
    [
        *GET, (b":status", b"200"), (b":x", b""), (b"X", b"1"), (b"", b""), (b"a b", b""),
        (b"x", b" 1"), (b"x", b"1 "), (b"x", b"\0"), (b"x", b"a\r\nb"), (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
    ],
)  # fmt: skip
def test_malformed_trailers(pair: Pair) -> None:
    """RFC 9113 §8.1: no pseudo-header fields; §8.2 as for other fields."""
    with pytest.raises(Http2StreamError) as caught:
        RequestParser().check_trailers([(b"x", b"1"), pair])
    assert caught.value.code == PROTOCOL_ERROR


def test_too_many_trailers_are_431() -> None:
    parser = RequestParser(Limits(fields=1))
    parser.check_trailers([(b"x", b"1")])
    with pytest.raises(LimitExceeded) as caught:
        parser.check_trailers([(b"x", b"1"), (b"x", b"1")])
    assert caught.value.status == 431


# ---------------------------------------------------------------- bounds


def test_no_peer_can_grow_what_is_remembered() -> None:
    parser = RequestParser(Limits(fields=100000))
    for number in range(3000):
        text = b"%d" % number
        fields = replaced(b":path", b"/" + text)
        parser.parse(
            ((b":method", b"M" + text), *fields[1:3], (b":path", b"/" + text), (b"x" + text, b"")),
            True,
        )
        parser.parse((METHOD, SCHEME, (b":authority", b"a" + text), PATH), True)
        parser.parse((*GET, (b"priority", text)), True)
    long = b"a" * 5000
    parser.parse(
        ((b":method", long.upper()), SCHEME, (b":authority", long), (b":path", b"/" + long),
         (long, long), (b"priority", long)),
        True,
    )  # fmt: skip
    parser.parse((*GET, *[(b"x%d" % number, b"") for number in range(5000)]), True)
    memos: list[tuple[Memo[Any, Any], int]] = [
        (parser._shapes, 512),
        (parser._names, 1024),
        (parser._methods, 64),
        (parser._lines, 512),
        (parser._paths, 2048),
        (parser._priorities, 64),
    ]
    for memo, most in memos:
        assert 0 < len(memo) <= most
        sizes = [sum(map(len, key)) if isinstance(key, tuple) else len(key) for key in memo]
        assert max(sizes) <= 1024


# ---------------------------------------------------------------- everything at once

some_names = st.sampled_from(
    [b":method", b":scheme", b":authority", b":path", b":protocol", b":status", b"host", b"cookie",
     b"content-length", b"te", b"expect", b"priority", b"x", b"X", b"connection", b"forwarded"]
) | st.binary(max_size=4)  # fmt: skip
some_values = st.sampled_from(
    [b"GET", b"CONNECT", b"OPTIONS", b"https", b"http", b"a", b"A", b"a:443", b"/", b"*", b"/a?b",
     b"0", b"1", b"99999999999999999999", b"trailers", b"100-continue", b"u=1, i", b"websocket"]
) | st.binary(max_size=6)  # fmt: skip
sound_pairs = st.sampled_from(
    [HOST, (b"host", b"A.example:443"), (b"cookie", b"a=1"), (b"cookie", b""), (b"te", b"trailers"),
     (b"content-length", b"3"), (b"priority", b"u=1"), (b"x", b"a\tb"), (b"forwarded", b"for=a")]
)  # fmt: skip
some_fields = st.lists(sound_pairs | st.tuples(some_names, some_values), max_size=4) | st.lists(
    sound_pairs, max_size=5
)
some_starts = st.lists(st.sampled_from([*GET, *WEBSOCKET]), unique=True) | st.sampled_from(
    [GET, GET[::-1], without(b":authority"), WEBSOCKET, replaced(b":path", b"/%41?")]
)
ANSWERS = (400, 413, 414, 417, 431, 501)
shared = RequestParser(Limits(fields=5, line=5, body=5))


@given(some_starts, some_fields, st.booleans())
def test_any_fields_give_a_head_or_a_named_error(start: Any, fields: Any, ended: bool) -> None:
    everything = (*start, *fields)
    try:
        head = shared.parse(everything, ended)
    except RemoteProtocolError as error:
        if not isinstance(error, Http2StreamError) and error.status not in ANSWERS:
            raise
        return
    finally:
        try:
            shared.check_trailers(fields)
        except (Http2StreamError, LimitExceeded):
            pass
    assert head.fields == dict(head.headers)
    assert not [name for name, _ in head.headers if name.startswith(b":")]
    assert [name for name, _ in head.headers].count(b"host") <= 1
    assert [name for name, _ in head.headers].count(b"cookie") <= 1
    if head.method != "CONNECT":
        # What passes here is a request that HTTP/1.1's rules let pass, with the same parts.
        host = () if b"host" in head.fields else ((b"host", b""),)
        target = head.raw_path + (b"?" + head.query if head.query else b"")
        lines = [b"%b: %b\r\n" % pair for pair in (*host, *head.headers)]
        block = b"%b %b HTTP/1.1\r\n%b\r\n" % (head.method.encode(), target, b"".join(lines))
        same = Http1RequestParser().parse(block)
        assert same is not None
        assert (same.method, same.path, same.query) == (head.method, head.path, head.query)
        assert same.headers == (*host, *head.headers)


@given(some_starts, some_fields)
def test_what_h2_calls_malformed_is_malformed(start: Any, fields: Any) -> None:
    """A differential against another implementation; we may be stricter, never laxer."""
    pytest.importorskip("h2")
    from h2.exceptions import ProtocolError
    from h2.utilities import HeaderValidationFlags, validate_headers

    flags = HeaderValidationFlags(
        is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
    )
    everything = (*start, *fields)
    try:
        head = RequestParser().parse(everything, False)
    except RemoteProtocolError:
        return
    hosts = {value for name, value in everything if name in (b"host", b":authority")}
    if len(hosts) != 1 or head.protocol is not None:
        # h2 wants an authority, compares it byte by byte, and knows no RFC 8441 by default.
        return
    try:
        list(validate_headers(everything, flags))
    except ProtocolError as error:
        raise AssertionError(everything) from error
