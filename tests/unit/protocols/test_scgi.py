"""SCGI: netstrings, and what stands in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateways import Recorder, scgi, scgi_request

from omnicorn.errors import RemoteProtocolError
from omnicorn.http.limits import Limits
from omnicorn.protocols.scgi import ScgiEngine

BODY = b"0123456789" * 3

VALID = {
    "a GET": scgi_request(),
    "a POST": scgi_request(BODY, REQUEST_METHOD="POST"),
    "chunked at the front": scgi_request(BODY, HTTP_TRANSFER_ENCODING="chunked"),
    "the specification's example": scgi(
        b"CONTENT_LENGTH\x0027\0SCGI\x001\0REQUEST_METHOD\0POST\0REQUEST_URI\0/deepthought\0",
        b"What is the answer to life?",
    ),
    "repeated cookies": scgi(
        b"CONTENT_LENGTH\x000\0SCGI\x001\0REQUEST_METHOD\0GET\0REQUEST_URI\0/\0"
        b"HTTP_COOKIE\0a=1\0HTTP_COOKIE\0b=2\0"
    ),
}
HEAD = b"CONTENT_LENGTH\x000\0SCGI\x001\0REQUEST_METHOD\0GET\0REQUEST_URI\0/\0"
INVALID = {
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01", 400),
    "uwsgi": (b"\0\x10\0\0", 400),
    "a sign": (b"+70:" + HEAD, 400),
    "a leading zero": (b"0%d:%b," % (len(HEAD), HEAD), 400),
    "a blank": (b" %d:%b," % (len(HEAD), HEAD), 400),
    "an underscore": (b"7_0:" + HEAD, 400),
    "nothing": (b"0:,", 400),
    "no length": (b":,", 400),
    "eleven digits": (b"12345678901:", 400),
    "a huge length": (b"4294967295:", 431),
    "no comma": (b"%d:%b;" % (len(HEAD), HEAD), 400),
    "too short": (b"%d:%b," % (len(HEAD) - 1, HEAD), 400),
    "no NUL at the end": (scgi(HEAD[:-1]), 400),
    "a name without a value": (scgi(HEAD + b"X\0"), 400),
    "SCGI is missing": (scgi(HEAD.replace(b"SCGI\x001\0", b"")), 400),
    "SCGI is 2": (scgi(HEAD.replace(b"SCGI\x001\0", b"SCGI\x002\0")), 400),
    "CONTENT_LENGTH is missing": (scgi(HEAD.replace(b"CONTENT_LENGTH\x000\0", b"")), 400),
    "CONTENT_LENGTH is empty": (scgi(HEAD.replace(b"LENGTH\x000", b"LENGTH\0")), 400),
    "CONTENT_LENGTH is second": (scgi(b"SCGI\x001\0CONTENT_LENGTH\x000\0"), 400),
    "CONTENT_LENGTH is negative": (scgi(HEAD.replace(b"LENGTH\x000", b"LENGTH\0-1")), 400),
    "CONTENT_LENGTH stands twice": (scgi(HEAD + b"CONTENT_LENGTH\x000\0"), 400),
    "a variable stands twice": (scgi(HEAD + b"REQUEST_URI\0/\0"), 400),
}


def outcome(pieces: list[bytes], limits: Limits | None = None) -> tuple[object, ...]:
    """What comes of some segments: status, request, content."""
    recorder = Recorder(ScgiEngine, limits)
    for piece in pieces:
        if piece and not recorder.engine.closing:
            recorder.engine.receive(piece)
    recorder.flush()
    error = recorder.engine.error
    heads = [(head.method, head.raw_path, head.headers) for head in recorder.requests]
    reason = None if error is None else (error.status, error.reason)
    return reason, heads, recorder.content, "end" in recorder.names(), recorder.wire


def ways(data: bytes) -> list[list[bytes]]:
    cuts = [[data[:place], data[place:]] for place in range(1, len(data))]
    return [*cuts, [data[place : place + 1] for place in range(len(data))]]


@pytest.mark.parametrize("name", VALID)
def test_a_request_is_the_same_however_it_is_cut(name: str) -> None:
    data = VALID[name]
    whole = outcome([data])
    assert whole[0] is None and len(whole[1]) == 1  # type: ignore[arg-type]

    for pieces in ways(data):
        assert outcome(pieces) == whole, pieces


@pytest.mark.parametrize("name", INVALID)
def test_what_is_none_is_refused_however_it_is_cut(name: str) -> None:
    data, status = INVALID[name]
    whole = outcome([data])
    reason = whole[0]
    assert reason is not None and reason[0] == status  # type: ignore[index]
    assert whole[1] == []
    assert whole[4].startswith(b"Status: %d " % status)  # type: ignore[attr-defined]

    for pieces in ways(data):
        assert outcome(pieces)[0][0] == status, pieces  # type: ignore[index]


def test_a_first_byte_that_cannot_be_right_is_refused_at_once() -> None:
    reason = outcome([b"G"])[0]

    assert reason == (400, "the port speaks SCGI, and this looks like HTTP")


def test_a_head_over_the_limit_is_refused_before_it_comes() -> None:
    assert outcome([b"101:"], Limits(head=100))[0] == (
        431,
        "the request head is too large (limit 100)",
    )
    assert outcome([b"100:"], Limits(head=100))[0] is None


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(min_codepoint=65, max_codepoint=90), min_size=1, max_size=5),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=9),
        ),
        unique_by=lambda pair: pair[0],
    ),
    st.binary(max_size=50),
    st.data(),
)
def test_fields_and_content_arrive_as_they_were_sent(
    fields: list[tuple[str, str]], body: bytes, data: st.DataObject
) -> None:
    whole = scgi_request(body, HTTP_HOST="", **{f"HTTP_X_{name}": text for name, text in fields})
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    error, heads, content, _, _ = outcome(pieces)

    assert error is None and content == body
    expected = [(f"x-{n.lower()}".encode(), v.strip().encode()) for n, v in fields if v]
    got = [pair for pair in heads[0][2] if pair[0] != b"content-length"]  # type: ignore[index]
    assert got == expected


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_get_an_exception_out_of_it(data: bytes, framed: bool) -> None:
    recorder = Recorder(ScgiEngine)
    recorder.engine.receive((scgi(data) if framed else data) or b"x")
    recorder.engine.receive_eof()

    assert recorder.engine.closing or recorder.requests


# ---------------------------------------------------------------- what is remembered


def variables(address: str, port: str, kind: str = "") -> bytes:
    return (
        b"CONTENT_LENGTH\x000\0SCGI\x001\0REQUEST_METHOD\0GET\0REQUEST_URI\0/\0"
        b"CONTENT_TYPE\0%b\0REMOTE_ADDR\0%b\0REMOTE_PORT\0%b\0SERVER_PORT\x0080\0"
    ) % (kind.encode(), address.encode(), port.encode())


def test_requests_that_differ_in_the_client_alone_share_a_head() -> None:
    shared = ScgiEngine.parser()
    for _ in range(2):
        shared.parse_shared(variables("192.0.2.1", "50000"))
    first, one = shared.parse_shared(variables("192.0.2.1", "50001"))
    second, two = shared.parse_shared(variables("2001:db8::1", "5"))

    assert first is second
    assert (one, two) == (("192.0.2.1", 50001), ("2001:db8::1", 5))


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("", "1"),
        ("unix:", ""),
        ("1" * 46, "1"),
        ("192.0.2.1", ""),
        ("192.0.2.1", "+1"),
        ("192.0.2.1", "1_0"),
        ("192.0.2.1", "70000"),
        ("192.0.2.1", "100000"),
        ("....", "1"),
        ("fe80::1%eth0", "1"),
    ],
)
def test_a_known_head_lends_no_credit_to_a_client(address: str, port: str) -> None:
    shared = ScgiEngine.parser()
    for _ in range(3):
        shared.parse_shared(variables("192.0.2.1", "50000"))

    odd = variables(address, port)
    assert shared.parse_shared(odd)[1] == ScgiEngine.parser().parse_shared(odd)[1]


@pytest.mark.parametrize("kind", ["REMOTE_ADDR", "REMOTE_PORT"])
def test_a_client_is_never_taken_from_a_value_that_is_called_so(kind: str) -> None:
    shared = ScgiEngine.parser()
    for port in (1, 1, 1, 2, 3):
        _, client = shared.parse_shared(variables("192.0.2.1", str(port), kind))
        assert client == ("192.0.2.1", port)


def test_what_looks_like_a_known_head_without_its_client_is_parsed() -> None:
    shared = ScgiEngine.parser()
    whole = variables("192.0.2.1", "50000")
    for _ in range(3):
        shared.parse_shared(whole)

    with pytest.raises(RemoteProtocolError):
        shared.parse_shared(whole.replace(b"\x00192.0.2.1\0REMOTE_PORT\x0050000", b""))
