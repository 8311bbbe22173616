"""What a response may be, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests import fastcgi_front as front
from tests.fastcgi_front import request

from omnicorn.errors import LocalProtocolError
from omnicorn.ports import HIGH_WATER

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[..., Any]


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_content_has_none(connect: Connect, status: int) -> None:
    connection = connect().feed(request())
    connection.last.respond(b"content", status)

    assert connection.answer().status == status
    assert connection.answer().body == b""


def test_head_has_no_content_but_its_length(connect: Connect) -> None:
    connection = connect().feed(request(REQUEST_METHOD="HEAD"))
    stream = connection.last.stream
    stream.send_head(200, [(b"content-length", b"5")])
    assert not stream.takes_content
    stream.send_data(b"12345", True)

    assert connection.answer().stdout == b"Status: 200 OK\r\ncontent-length: 5\r\n\r\n"
    assert connection.answer().app_status == 0


def test_what_fronts_cannot_take_is_left_out(connect: Connect) -> None:
    connection = connect().feed(request())
    stream = connection.last.stream
    stream.send_informational(103, [(b"link", b"</x>")])
    stream.send_continue()
    stream.send_head(200, [(b"transfer-encoding", b"chunked"), (b"connection", b"close")], True)
    assert not stream.reserve_raw(10)
    stream.send_data(b"x", True)
    stream.send_trailers([(b"x", b"y")])

    assert connection.answer() == front.Answer(b"Status: 200 OK\r\n\r\nx", b"", 0, 0, True)


def test_content_goes_as_it_comes(connect: Connect) -> None:
    connection = connect().feed(request())
    stream = connection.last.stream
    stream.send_head(200, [])
    assert stream.is_responding
    for piece in (b"a", b"b"):
        stream.send_data(piece, False)
        connection.flush()
    stream.send_data(b"", True)

    contents = [one.content for one in connection.records()]
    assert contents[:2] == [b"Status: 200 OK\r\n\r\na", b"b"]
    assert connection.answer().app_status == 0
    assert not stream.is_responding


@pytest.mark.parametrize("size", [65535, 65536, 1_000_000])
def test_much_content_is_several_records(connect: Connect, size: int) -> None:
    connection = connect().feed(request())
    connection.last.respond(b"x" * size)

    assert connection.answer().body == b"x" * size


def test_the_sender_waits_for_a_slow_front(connect: Connect) -> None:
    connection = connect().feed(request())
    stream = connection.last.stream
    stream.send_head(200, [])
    assert stream.send_data(b"x", False)
    connection.engine.blocked = True

    assert not stream.send_data(b"x", False)


def test_much_output_is_flushed_at_once(connect: Connect) -> None:
    connection = connect().feed(request())
    stream = connection.last.stream
    stream.send_head(200, [])
    stream.send_data(bytes(HIGH_WATER), False)

    assert connection.engine.pending == 0
    assert len(connection.wire) > HIGH_WATER


@pytest.mark.parametrize("verb", ["head", "data", "content-length"])
def test_what_comes_out_of_turn_is_refused(connect: Connect, verb: str) -> None:
    connection = connect().feed(request())
    stream = connection.last.stream
    if verb == "data":
        with pytest.raises(LocalProtocolError, match="between the response's head"):
            stream.send_data(b"x", True)
        return
    stream.send_head(200, [(b"content-length", b"3")])
    if verb == "head":
        with pytest.raises(LocalProtocolError, match="comes once"):
            stream.send_head(200, [])
    else:
        with pytest.raises(LocalProtocolError, match="leaves 3 bytes"):
            stream.send_data(b"1234", True)
    stream.send_data(b"123", True)
    assert connection.answer().body == b"123"


@pytest.mark.parametrize(
    ("status", "headers"),
    [(200, 7), (200, [(b"a\n", b"b")]), (200, [("a", "b")]), (101, []), (200, [(b"a", b"b\n")])],
)
def test_a_head_that_cannot_be_sent_is_refused(connect: Connect, status: int, headers: Any) -> None:
    connection = connect().feed(request())
    with pytest.raises(LocalProtocolError):
        connection.last.stream.send_head(status, headers)

    connection.last.respond(b"sorry", 500)
    assert connection.answer().status == 500


def test_pairs_may_be_lists(connect: Connect) -> None:
    connection = connect().feed(request())
    connection.last.stream.send_head(200, [[b"a", b"b"]])
    connection.last.stream.send_data(b"", True)

    assert b"a: b\r\n" in connection.answer().stdout


# ---------------------------------------------------------------- what breaks off


def test_a_response_that_breaks_off_ends_in_no_record(connect: Connect) -> None:
    connection = connect().feed(request())
    stream = connection.last.stream
    stream.send_head(200, [])
    stream.send_data(b"half", False)
    stream.reset()
    connection.engine.report(stream, b"it failed\n")
    connection.flush()
    engine = connection.engine

    assert engine.cut and engine.closing
    answer = connection.answer()
    assert answer.broken
    assert answer.body == b"half" and answer.stderr == b"it failed\n"
    assert (answer.app_status, answer.closed) == (None, False)
    stream.reset()
    assert engine.pending == 0


def test_a_response_that_is_too_short_breaks_off(connect: Connect) -> None:
    connection = connect().feed(request())
    stream = connection.last.stream
    stream.send_head(200, [(b"content-length", b"3")])
    with pytest.raises(LocalProtocolError, match="2 bytes short"):
        stream.send_data(b"1", True)

    assert connection.engine.cut


def test_of_several_one_breaks_off_alone(connect: Connect) -> None:
    connection = connect().feed(request(number=1) + request(number=2))
    stream = connection.requests[0].stream
    stream.send_head(200, [])
    stream.send_data(b"half", False)
    stream.reset()
    connection.requests[1].respond(b"whole")

    broken, whole = connection.answer(1), connection.answer(2)
    assert (broken.body, broken.app_status, broken.closed) == (b"half", 1, False)
    assert (whole.body, whole.app_status) == (b"whole", 0)
    assert not connection.engine.closing
