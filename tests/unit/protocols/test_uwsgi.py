"""uwsgi: packets, and what stands in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateways import Recorder, uwsgi, uwsgi_request

from omnicorn.http.limits import Limits
from omnicorn.protocols.uwsgi import UwsgiEngine

VALID = {
    "a GET": uwsgi_request(CONTENT_LENGTH=""),
    "a POST": uwsgi_request(b"0123456789", REQUEST_METHOD="POST"),
}
GET = uwsgi_request()[4:]
INVALID = {
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01", 400),
    "SCGI": (b"70:CONTENT_LENGTH", 400),
    "another modifier1": (b"\x05" + uwsgi_request()[1:], 400),
    "another modifier2": (b"\0\x10\0\1", 400),
    "nothing": (uwsgi(b""), 400),
    "a value that is too long": (uwsgi(GET + b"\1\0X\xff\xff"), 400),
    "a name that is too long": (uwsgi(GET + b"\2\0X"), 400),
    "a name without a value": (uwsgi(GET + b"\1\0X"), 400),
    "one byte too many": (uwsgi(GET + b"\1"), 400),
    "two lengths of content": (uwsgi(GET + b"\x0e\0CONTENT_LENGTH\1\x005"), 400),
    "content of unknown length": (
        uwsgi_request(CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked"),
        411,
    ),
}


def outcome(pieces: list[bytes], limits: Limits | None = None) -> tuple[object, ...]:
    """What comes of some segments: status, request, content."""
    recorder = Recorder(UwsgiEngine, limits)
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
    assert whole[4].startswith(b"HTTP/1.1 %d " % status)  # type: ignore[attr-defined]

    for pieces in ways(data):
        assert outcome(pieces)[0][0] == status, pieces  # type: ignore[index]


def test_a_response_begins_with_a_status_line() -> None:
    recorder = Recorder(UwsgiEngine)
    recorder.engine.receive(uwsgi_request())
    recorder.answer()

    assert recorder.wire == b"HTTP/1.1 200 OK\r\nx-extra: 1\r\ncontent-length: 2\r\n\r\nhi"


def test_a_head_over_the_limit_is_refused_before_it_comes() -> None:
    assert outcome([b"\0\x65\0\0"], Limits(head=100))[0] == (
        431,
        "the request head is too large (limit 100)",
    )
    assert outcome([b"\0\x64\0\0"], Limits(head=100))[0] is None


def test_variables_that_stand_twice_are_taken_as_the_last_says() -> None:
    recorder = Recorder(UwsgiEngine)
    recorder.engine.receive(uwsgi(GET + b"\x0b\0REQUEST_URI\2\0/y"))

    assert recorder.requests[0].path == "/y"


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_get_an_exception_out_of_it(data: bytes, framed: bool) -> None:
    recorder = Recorder(UwsgiEngine)
    recorder.engine.receive((uwsgi(data) if framed else data) or b"x")
    recorder.engine.receive_eof()

    assert recorder.engine.closing or recorder.requests


@given(st.binary(max_size=60))
def test_a_value_may_hold_any_length_of_bytes_that_http_allows(value: bytes) -> None:
    text = "".join(chr(32 + byte % 95) for byte in value).strip()
    recorder = Recorder(UwsgiEngine)
    recorder.engine.receive(uwsgi_request(HTTP_X=text or "x"))

    assert recorder.requests[0].fields[b"x"] == (text or "x").encode()
