"""The conversation: turns, keep-alive, early answers, Expect, upgrades, framing, failures.

Single scenes first, then round trips: generated requests come out as they went in, however
they are cut and pipelined; generated responses are read back by h11's and the standard
library's clients exactly as they were sent.
"""

from __future__ import annotations

import http.client
import io
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import LocalProtocolError
from omnicorn.http.defaults import DefaultFields
from omnicorn.http.limits import Limits
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.http1.engine import DISCARD
from omnicorn.protocols.http1.states import CLOSED, COMPLETE, IDLE

NOW, LATER = 1, 2

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET10 = b"GET / HTTP/1.0\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def post(length: int, *fields: bytes) -> bytes:
    lines = [b"POST / HTTP/1.1", b"Host: a", b"Content-Length: %d" % length, *fields, b"", b""]
    return b"\r\n".join(lines)


# ---------------------------------------------------------------- turns


def test_the_next_head_is_parsed_when_its_turn_comes(connect: Any) -> None:
    recorder = connect().feed(GET * 3)
    assert recorder.names() == ["on_request"]
    recorder.answer()
    assert len(recorder.requests) == 2
    recorder.answer()
    recorder.answer()
    assert len(recorder.requests) == 3
    assert recorder.engine.remote == IDLE


def test_a_broken_request_is_not_looked_at_before_its_turn(connect: Any) -> None:
    recorder = connect().feed(GET + b"\x00\r\n\r\n")
    assert recorder.outcome()["failed"] is False
    assert recorder.flush() == b""
    recorder.answer()
    assert recorder.outcome()["failed"] is True
    wire = recorder.taken()
    assert wire.index(b" 200 ") < wire.index(b" 400 ")


def test_reading_pauses_while_many_requests_wait_and_resumes_after(connect: Any) -> None:
    recorder = connect().feed(GET + GET)
    assert recorder.reading
    behind = GET * (HIGH_WATER // len(GET))
    recorder.feed(behind)
    assert not recorder.reading
    recorder.answer()
    recorder.answer()
    assert recorder.reading


def test_ten_thousand_pipelined_requests_begin_one_exchange(connect: Any) -> None:
    """CVE-2026-54273: what waits is bytes that were read already, not requests."""
    recorder = connect().feed(GET * 10_000)
    assert recorder.names() == ["on_request", "on_readable"]
    assert not recorder.reading


@pytest.mark.parametrize("answers", [NOW, LATER])
@pytest.mark.parametrize("count", [2, 3, 7, 300])
def test_pipelined_requests_are_answered_in_order(connect: Any, answers: int, count: int) -> None:
    data = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(count))
    recorder = connect(answers).feed(data)
    assert [request.head.path for request in recorder.requests] == [f"/{i}" for i in range(count)]
    assert recorder.taken().count(b"HTTP/1.1 200 OK") == count
    assert recorder.reading


def test_more_bytes_may_come_while_requests_wait(connect: Any) -> None:
    recorder = connect().feed(GET + GET[:10]).feed(GET[10:] + GET[:20]).feed(GET[20:] + b"GE")
    for _ in range(3):
        recorder.answer()
    assert len(recorder.requests) == 3
    recorder.feed(b"T /last HTTP/1.1\r\nHost: a\r\n\r\n")
    assert recorder.last.head.path == "/last"


def test_a_slow_owner_holds_the_next_request_back(connect: Any) -> None:
    recorder = connect(pipeline=False).feed(GET + GET)
    recorder.answer()
    assert recorder.engine.is_complete
    assert len(recorder.requests) == 1
    recorder.engine.proceed()
    assert len(recorder.requests) == 2


def test_reading_resumes_after_an_answer_that_left_a_long_body_unread(connect: Any) -> None:
    recorder = connect().feed(post(2 * HIGH_WATER) + bytes(2 * HIGH_WATER))
    assert recorder.last.ended
    assert not recorder.reading
    recorder.answer()
    assert recorder.engine.remote == IDLE
    assert recorder.reading


def test_reading_pauses_at_the_high_water_mark_and_resumes_as_it_is_consumed(
    connect: Any,
) -> None:
    recorder = connect().feed(post(10 * HIGH_WATER)).feed(bytes(HIGH_WATER))
    assert recorder.reading
    recorder.feed(b"x")
    assert not recorder.reading
    recorder.engine.consumed(1)
    assert recorder.reading


def test_no_upcall_follows_an_answer_given_within_on_data(connect: Any) -> None:
    recorder = connect()
    recorder.hook = lambda name, args: recorder.answer() if name == "on_data" else None
    recorder.feed(post(3) + b"abc" + GET)
    assert recorder.names().count("on_complete") == 1
    assert "on_end" not in recorder.names()
    assert [request.head.method for request in recorder.requests] == ["POST", "GET"]


def test_receive_is_not_disturbed_by_an_engine_that_closed(connect: Any) -> None:
    recorder = connect(NOW).feed(b"\n")
    before = recorder.taken()
    assert before.startswith(b"HTTP/1.1 400 ")
    recorder.feed(GET, b"", b"\n", CHUNKED).eof()
    assert recorder.taken() == b""
    assert recorder.requests == []


def test_an_empty_segment_is_nothing(connect: Any) -> None:
    recorder = connect(NOW).feed(b"", GET[:9], b"", GET[9:], b"")
    assert len(recorder.requests) == 1


# ---------------------------------------------------------------- keep-alive and early answers


@pytest.mark.parametrize("value", [b"close", b"Close", b"x-foo, close", b"close, keep-alive"])
def test_the_applications_close_is_honoured(connect: Any, value: bytes) -> None:
    recorder = connect().feed(GET + GET)
    recorder.engine.send_head(200, [(b"connection", value)])
    recorder.engine.send_data(b"x", True)
    wire = recorder.taken()
    assert wire.count(b"connection: close\r\n") == 1
    assert wire.lower().count(b"close") == 1
    assert recorder.engine.closing
    assert len(recorder.requests) == 1


@pytest.mark.parametrize("value", [b"keep-alive", b"Keep-Alive"])
def test_the_applications_keep_alive_promises_nothing(connect: Any, value: bytes) -> None:
    recorder = connect().feed(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    recorder.engine.send_head(200, [(b"connection", value)])
    recorder.engine.send_data(b"x", True)
    wire = recorder.taken().lower()
    assert b"keep-alive" not in wire
    assert b"\r\nconnection: close\r\n" in wire


def test_refuse_more_makes_the_exchange_the_last(connect: Any) -> None:
    recorder = connect().feed(GET + GET)
    recorder.engine.refuse_more()
    recorder.answer()
    assert b"\r\nconnection: close\r\n" in recorder.taken()
    assert recorder.engine.closing
    assert len(recorder.requests) == 1


@pytest.mark.parametrize("begun", [b"", b"\r\n", b"GET / HT"])
def test_refuse_more_closes_where_nothing_is_in_progress(connect: Any, begun: bytes) -> None:
    recorder = connect(NOW).feed(begun)
    recorder.engine.refuse_more()
    assert recorder.engine.closing
    recorder.feed(GET)
    assert recorder.requests == []


@pytest.mark.parametrize("how", [post(8), CHUNKED])
def test_a_short_body_behind_an_early_answer_is_read_and_dropped(connect: Any, how: bytes) -> None:
    body = b"12345678" if how is not CHUNKED else b"8\r\n12345678\r\n0\r\n\r\n"
    recorder = connect().feed(how)
    recorder.answer()
    assert not recorder.engine.closing
    recorder.feed(body[:3])
    assert "on_data" not in recorder.names()
    recorder.feed(body[3:] + GET)
    assert recorder.names()[-2:] == ["on_ready", "on_request"]


def test_a_long_body_behind_an_early_answer_closes_at_once(connect: Any) -> None:
    recorder = connect().feed(post(DISCARD + 1))
    recorder.answer()
    assert recorder.engine.closing


def test_an_endless_body_behind_an_early_answer_closes_within_its_bound(connect: Any) -> None:
    recorder = connect().feed(CHUNKED)
    recorder.answer()
    fed = 0
    while not recorder.engine.closing:
        recorder.feed(b"1000\r\n" + bytes(4096) + b"\r\n")
        fed += 4096
        assert fed <= DISCARD + 4096
    assert recorder.engine.remote == CLOSED
    assert "on_ready" not in recorder.names()


def test_broken_content_behind_an_answer_closes_without_a_second_answer(connect: Any) -> None:
    recorder = connect().feed(CHUNKED)
    recorder.answer()
    wire = recorder.taken()
    assert wire.startswith(b"HTTP/1.1 200 ")
    recorder.feed(b"x\r\n")
    assert recorder.taken() == b""
    assert recorder.engine.closing
    assert recorder.last.resets == []


def test_broken_content_within_an_answer_cuts_it(connect: Any) -> None:
    recorder = connect().feed(CHUNKED)
    recorder.engine.send_head(200, [])
    recorder.engine.send_data(b"begun", False)
    recorder.flush()
    recorder.feed(b"x\r\n")
    wire = recorder.taken()
    assert wire.count(b"HTTP/1.1 ") == 1
    assert not wire.endswith(b"0\r\n\r\n")
    assert recorder.engine.closing
    assert recorder.last.resets == [recorder.engine.error]


# ---------------------------------------------------------------- the peer leaves or lags


@pytest.mark.parametrize("begun", [b"", b"\r", b"\r\n", b"GET / HT"])
def test_the_end_before_a_request_closes_in_silence(connect: Any, begun: bytes) -> None:
    recorder = connect(NOW).feed(begun).eof()
    assert recorder.engine.closing
    assert recorder.taken() == b""
    assert recorder.engine.error is None


def test_the_end_within_a_body_resets_the_exchange(connect: Any) -> None:
    recorder = connect().feed(post(5) + b"123").eof()
    assert recorder.last.resets == [recorder.engine.error]
    assert not recorder.last.ended
    assert recorder.taken() == b""
    assert recorder.engine.closing


def test_a_peer_that_half_closes_gets_its_answer(connect: Any) -> None:
    """RFC 9112 §9.6"""
    recorder = connect().feed(GET).eof()
    assert recorder.last.remote_closed
    assert not recorder.engine.closing
    recorder.answer()
    assert recorder.taken().startswith(b"HTTP/1.1 200 ")
    assert recorder.engine.closing


def test_a_peer_that_half_closes_gets_all_its_answers(connect: Any) -> None:
    recorder = connect().feed(GET * 3).eof()
    for _ in range(3):
        assert not recorder.engine.closing
        recorder.answer()
    assert recorder.taken().count(b"HTTP/1.1 200 ") == 3
    assert recorder.engine.closing
    assert [request.remote_closed for request in recorder.requests] == [True] * 3


@pytest.mark.parametrize("rest", [b"GET / HT", b"\r\n", b"\r"])
def test_half_a_head_in_the_buffer_of_a_peer_that_left_is_dropped(
    connect: Any, rest: bytes
) -> None:
    recorder = connect().feed(GET + rest).eof()
    recorder.answer()
    assert recorder.engine.closing
    assert len(recorder.requests) == 1


@pytest.mark.parametrize("rest", [post(5) + b"123", post(5), CHUNKED + b"3\r\nab"])
def test_half_a_body_in_the_buffer_of_a_peer_that_left_resets_its_exchange(
    connect: Any, rest: bytes
) -> None:
    """Otherwise the application waits for content that nobody will send."""
    recorder = connect().feed(GET + rest).eof()
    recorder.answer()
    assert len(recorder.requests) == 2
    assert len(recorder.last.resets) == 1
    assert recorder.engine.closing


def test_a_lost_connection_resets_the_exchange_once(connect: Any) -> None:
    recorder = connect().feed(post(5) + b"123")
    recorder.engine.connection_lost()
    assert recorder.last.resets == [None]
    before = recorder.names()
    recorder.feed(b"45" + GET)
    recorder.engine.reset()
    recorder.engine.consumed(3)
    assert recorder.names() == before


def test_a_lost_connection_is_no_news_to_a_complete_exchange(connect: Any) -> None:
    recorder = connect(NOW, pipeline=False).feed(GET)
    recorder.engine.connection_lost()
    assert recorder.last.resets == []


def test_an_empty_line_alone_begins_nothing(connect: Any) -> None:
    recorder = connect().feed(GET)
    recorder.answer()
    recorder.taken()
    recorder.feed(b"\r\n")
    assert recorder.engine.remote == IDLE
    recorder.engine.timed_out()
    assert recorder.taken() == b""
    assert recorder.engine.closing


@pytest.mark.parametrize("begun", [b"G", b"\r\nG", GET[:-1]])
def test_a_head_that_is_late_gets_408(connect: Any, begun: bytes) -> None:
    recorder = connect().feed(begun)
    recorder.engine.timed_out()
    assert recorder.taken().startswith(b"HTTP/1.1 408 ")
    assert recorder.engine.closing


def test_a_body_that_is_late_gets_408(connect: Any) -> None:
    recorder = connect().feed(post(5) + b"123")
    recorder.engine.timed_out()
    assert recorder.taken().startswith(b"HTTP/1.1 408 ")
    assert recorder.last.resets == [recorder.engine.error]


def test_a_peer_that_only_idles_is_left_in_silence(connect: Any) -> None:
    recorder = connect()
    recorder.engine.timed_out()
    assert recorder.taken() == b""
    assert recorder.engine.closing


def test_a_body_that_is_late_within_an_answer_cuts_it(connect: Any) -> None:
    recorder = connect().feed(post(5) + b"123")
    recorder.engine.send_head(200, [(b"content-length", b"5")])
    recorder.engine.send_data(b"12", False)
    recorder.engine.timed_out()
    assert recorder.taken().endswith(b"\r\n\r\n12")
    assert recorder.engine.closing


# ---------------------------------------------------------------- Expect: 100-continue

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_continue_is_sent_only_when_the_application_wants_the_body(connect: Any) -> None:
    recorder = connect().feed(post(5, b"Expect: 100-continue"))
    assert recorder.taken() == b""
    recorder.engine.send_continue()
    assert recorder.taken() == CONTINUE
    recorder.engine.send_continue()
    assert recorder.taken() == b""
    recorder.feed(b"12345" + GET)
    recorder.answer()
    recorder.answer()
    assert recorder.taken().count(b" 200 ") == 2


@pytest.mark.parametrize(
    "data",
    [
        GET,
        post(5),
        post(0, b"Expect: 100-continue"),
        b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
    ],
)
def test_continue_is_never_sent_unasked_nor_to_10(connect: Any, data: bytes) -> None:
    recorder = connect().feed(data)
    recorder.engine.send_continue()
    assert recorder.taken() == b""


def test_continue_is_pointless_once_content_has_come(connect: Any) -> None:
    """RFC 9110 §10.1.1: it may be left out then."""
    recorder = connect().feed(post(5, b"Expect: 100-continue") + b"1")
    recorder.engine.send_continue()
    assert recorder.taken() == b""


def test_continue_is_not_sent_within_an_answer(connect: Any) -> None:
    recorder = connect().feed(post(5, b"Expect: 100-continue"))
    recorder.engine.send_head(200, [])
    recorder.engine.send_data(b"x", False)
    recorder.engine.send_continue()
    assert CONTINUE not in recorder.taken()


def test_an_answer_without_continue_closes(connect: Any) -> None:
    """Whether the body comes after all is unknown: the next request could not be found."""
    recorder = connect().feed(post(5, b"Expect: 100-continue"))
    recorder.engine.send_head(403, [])
    recorder.engine.send_data(b"no", True)
    assert b"\r\nconnection: close\r\n" in recorder.taken()
    assert recorder.engine.closing


def test_an_expectation_does_not_outlive_its_request(connect: Any) -> None:
    recorder = connect().feed(post(1, b"Expect: 100-continue") + b"x" + GET)
    recorder.answer()
    recorder.engine.send_continue()
    recorder.answer()
    wire = recorder.taken()
    assert CONTINUE not in wire
    assert b"close" not in wire


# ---------------------------------------------------------------- upgrade

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("rest", [b"", b"\x81\x00", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_switch_gives_the_bytes_already_read(connect: Any, rest: bytes) -> None:
    recorder = connect().feed(UPGRADE + rest)
    assert recorder.last.head.upgrade == b"websocket"
    assert recorder.engine.switch_protocols(b"websocket", []) == rest
    assert recorder.taken() == (
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    recorder.feed(b"more")
    assert len(recorder.requests) == 1
    assert recorder.taken() == b""


def test_a_switch_within_the_upcall_gives_them_too(connect: Any) -> None:
    """Where tasks start eagerly the application may accept before ``receive`` returns."""
    recorder = connect()
    got = []
    recorder.hook = lambda name, args: (
        got.append(recorder.engine.switch_protocols(b"websocket", []))
        if name == "on_request"
        else None
    )
    recorder.feed(UPGRADE + b"\x81\x00")
    assert got == [b"\x81\x00"]


def test_bytes_that_come_before_the_switch_are_in_it(connect: Any) -> None:
    recorder = connect().feed(UPGRADE, b"\x81", b"\x00")
    assert recorder.engine.switch_protocols(b"websocket", []) == b"\x81\x00"


def test_a_switch_needs_a_complete_request(connect: Any) -> None:
    body = UPGRADE.replace(b"GET", b"POST")[:-2] + b"Content-Length: 3\r\n\r\n"
    recorder = connect().feed(body + b"12")
    with pytest.raises(LocalProtocolError):
        recorder.engine.switch_protocols(b"websocket", [])
    recorder.feed(b"3\x81")
    assert recorder.engine.switch_protocols(b"websocket", []) == b"\x81"


def test_a_switch_needs_an_unanswered_request(connect: Any) -> None:
    recorder = connect().feed(UPGRADE)
    recorder.engine.send_head(200, [])
    with pytest.raises(LocalProtocolError):
        recorder.engine.switch_protocols(b"websocket", [])


def test_a_switch_says_what_is_spoken_and_adds_fields_and_the_defaults(connect: Any) -> None:
    defaults = DefaultFields(b"omnicorn", False, [(b"x-frame", b"deny")], lambda: 0.0)
    recorder = connect(defaults=defaults).feed(UPGRADE)
    recorder.engine.switch_protocols(b"chat", [(b"X-One", b"1"), (b"x-one", b"2")])
    assert recorder.taken() == (
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: chat\r\n"
        b"X-One: 1\r\nx-one: 2\r\nserver: omnicorn\r\nx-frame: deny\r\n\r\n"
    )


def test_a_switch_leaves_out_the_default_that_is_given(connect: Any) -> None:
    defaults = DefaultFields(b"omnicorn", True, [], lambda: 0.0)
    recorder = connect(defaults=defaults).feed(UPGRADE)
    recorder.engine.switch_protocols(b"chat", [(b"Server", b"mine"), (b"date", b"today")])
    assert recorder.taken().endswith(b"upgrade: chat\r\nServer: mine\r\ndate: today\r\n\r\n")


@pytest.mark.parametrize(
    "field",
    [
        (b"content-length", b"1"),
        (b"Connection", b"close"),
        (b"a b", b"c"),
        (b"a", b"b\r\n"),
        ("a",),
    ],
)
def test_a_switch_with_a_field_that_cannot_be_sent_may_be_tried_again(
    connect: Any, field: Any
) -> None:
    recorder = connect().feed(UPGRADE + b"\x81\x00")
    with pytest.raises(LocalProtocolError):
        recorder.engine.switch_protocols(b"websocket", [(b"x", b"y"), field])
    assert recorder.taken() == b""
    assert recorder.engine.switch_protocols(b"websocket", []) == b"\x81\x00"


def test_a_switch_comes_once_and_nothing_after_it(connect: Any) -> None:
    recorder = connect().feed(UPGRADE)
    engine = recorder.engine
    engine.switch_protocols(b"websocket", [])
    recorder.taken()
    calls = list(recorder.calls)
    verbs: list[tuple[Any, ...]] = [
        (engine.switch_protocols, b"websocket", []),
        (engine.send_head, 200, []),
        (engine.send_data, b"x", True),
        (engine.send_informational, 103, []),
    ]
    for verb, *arguments in verbs:
        with pytest.raises(LocalProtocolError):
            verb(*arguments)
    recorder.feed(UPGRADE, b"x" * (HIGH_WATER + 1)).eof()
    engine.reset()
    engine.stop()
    assert recorder.calls == calls
    assert recorder.taken() == b""
    assert not engine.is_responding and not engine.is_complete


def test_after_a_switch_the_loss_of_the_connection_is_not_the_handlers(connect: Any) -> None:
    """It has another connection by then, which tells it."""
    recorder = connect().feed(UPGRADE)
    recorder.engine.switch_protocols(b"websocket", [])
    recorder.engine.connection_lost()
    assert recorder.last.resets == []


def test_an_offer_that_is_declined_is_an_ordinary_request(connect: Any) -> None:
    recorder = connect(LATER).feed(UPGRADE + GET)
    assert recorder.taken().count(b" 200 ") == 2


# ---------------------------------------------------------------- framing of responses


def exchange(connect: Any, request: bytes, *parts: bytes, status: int = 200, **head: Any) -> bytes:
    recorder = connect(pipeline=False).feed(request)
    recorder.engine.send_head(status, head.pop("headers", []), **head)
    for part in parts[:-1]:
        recorder.engine.send_data(part, False)
        recorder.flush()
    recorder.engine.send_data(parts[-1], True)
    recorder.flush()
    return bytes(recorder.wire)


def test_a_response_in_one_piece_gets_its_length(connect: Any) -> None:
    assert exchange(connect, GET, b"hello") == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    )


def test_a_response_in_pieces_is_chunked(connect: Any) -> None:
    assert exchange(connect, GET, b"hello", b"", b"you") == (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n"
    )


def test_the_pieces_of_one_flush_are_one_chunk(connect: Any) -> None:
    recorder = connect().feed(GET)
    engine = recorder.engine
    engine.send_head(200, [])
    for piece in (b"a", b"bc", b"", b"d"):
        engine.send_data(piece, False)
    assert recorder.taken().endswith(b"\r\n\r\n4\r\nabcd\r\n")
    engine.send_data(b"e", False)
    engine.send_data(b"f", True)
    assert recorder.taken() == b"2\r\nef\r\n0\r\n\r\n"


def test_an_empty_piece_never_ends_a_chunked_response(connect: Any) -> None:
    recorder = connect().feed(GET)
    recorder.engine.send_head(200, [])
    recorder.engine.send_data(b"", False)
    recorder.engine.send_data(b"", False)
    assert recorder.taken().endswith(b"chunked\r\n\r\n")


def test_a_response_in_pieces_to_10_is_ended_by_closing(connect: Any) -> None:
    recorder = connect(pipeline=False).feed(
        GET10.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n")
    )
    recorder.engine.send_head(200, [])
    recorder.engine.send_data(b"hello", False)
    recorder.flush()
    recorder.engine.send_data(b"you", True)
    assert recorder.taken() == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhelloyou"
    assert recorder.engine.closing
    assert not recorder.engine.cut


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"5")]])
def test_head_gets_the_fields_and_no_content(connect: Any, headers: Any) -> None:
    wire = exchange(connect, HEAD, b"hel", b"lo", headers=headers)
    assert wire.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in wire
    assert (b"content-length: 5" in wire) is bool(headers)


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("request_", [GET, HEAD, GET10])
def test_a_status_without_content_drops_it(connect: Any, status: int, request_: bytes) -> None:
    wire = exchange(connect, request_, b"hel", b"lo", status=status)
    assert wire.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in wire
    assert b"content-length" not in wire


def test_a_204_never_has_a_length(connect: Any) -> None:
    """RFC 9110 §8.6"""
    wire = exchange(connect, GET, b"", status=204, headers=[(b"content-length", b"0")])
    assert b"content-length" not in wire


def test_a_304_keeps_the_length_of_what_it_stands_for(connect: Any) -> None:
    """RFC 9110 §15.4.5"""
    wire = exchange(connect, GET, b"", status=304, headers=[(b"content-length", b"9")])
    assert b"\r\ncontent-length: 9\r\n" in wire


@pytest.mark.parametrize("request_", [GET, HEAD, GET10])
@pytest.mark.parametrize("value", [b"chunked", b"gzip", b"identity"])
def test_the_applications_transfer_encoding_is_ignored(
    connect: Any, request_: bytes, value: bytes
) -> None:
    """ASGI HTTP §response start"""
    headers = [(b"Transfer-Encoding", value), (b"content-length", b"2")]
    wire = exchange(connect, request_, b"ok", headers=headers).lower()
    assert b"transfer-encoding" not in wire
    assert b"content-length: 2\r\n" in wire


def test_content_past_its_length_raises_and_never_leaves(connect: Any) -> None:
    recorder = connect().feed(GET + GET)
    engine = recorder.engine
    engine.send_head(200, [(b"content-length", b"5")])
    engine.send_data(b"1234", False)
    with pytest.raises(LocalProtocolError, match="content-length"):
        engine.send_data(b"56", True)
    wire = recorder.taken()
    assert wire.endswith(b"\r\n\r\n1234")
    engine.send_data(b"5", True)
    assert recorder.taken().startswith(b"5")


def test_content_short_of_its_length_raises_and_closes(connect: Any) -> None:
    recorder = connect().feed(GET + GET)
    engine = recorder.engine
    engine.send_head(200, [(b"content-length", b"5")])
    with pytest.raises(LocalProtocolError, match="2 bytes short"):
        engine.send_data(b"123", True)
    assert recorder.taken().endswith(b"\r\n\r\n123")
    assert engine.closing
    assert len(recorder.requests) == 1


def test_a_response_that_is_given_up_never_looks_complete(connect: Any) -> None:
    for headers in ([], [(b"content-length", b"9")]):
        recorder = connect().feed(GET)
        recorder.engine.send_head(200, headers)
        recorder.engine.send_data(b"part", False)
        recorder.flush()
        recorder.engine.reset()
        assert not recorder.taken().endswith(b"0\r\n\r\n")
        assert recorder.engine.closing


def test_a_response_to_10_that_is_given_up_is_cut(connect: Any) -> None:
    """Its end is the connection's: only a reset tells that it is not the whole."""
    recorder = connect().feed(GET10)
    recorder.engine.send_head(200, [])
    recorder.engine.send_data(b"part", False)
    recorder.flush()
    recorder.engine.reset()
    assert recorder.engine.cut


def test_a_head_alone_that_is_given_up_is_still_a_head(connect: Any) -> None:
    recorder = connect().feed(GET)
    recorder.engine.send_head(200, [])
    recorder.engine.reset()
    wire = recorder.taken()
    assert wire in (b"", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n") or (
        wire.endswith(b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n")
    )


def test_a_reset_before_any_answer_says_nothing(connect: Any) -> None:
    recorder = connect().feed(GET + GET)
    recorder.engine.reset()
    recorder.engine.reset()
    assert recorder.taken() == b""
    assert recorder.engine.closing
    assert recorder.names().count("on_complete") == 1


def test_a_refused_head_leaves_room_for_another(connect: Any) -> None:
    recorder = connect().feed(GET)
    with pytest.raises(LocalProtocolError):
        recorder.engine.send_head(200, [(b"x", b"a\r\nb: c")])
    assert recorder.taken() == b""
    recorder.answer()
    assert recorder.taken().startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("make", [iter, list, tuple])
def test_the_headers_may_be_any_iterable(connect: Any, make: Any) -> None:
    """ASGI: Iterable[[byte string, byte string]]; read once, it must give all its fields."""
    recorder = connect().feed(GET)
    recorder.engine.send_head(200, make([(b"x-one", b"1")]))
    recorder.engine.send_data(b"", True)
    assert b"\r\nx-one: 1\r\n" in recorder.taken()


def test_default_fields_stand_behind_the_applications(connect: Any) -> None:
    defaults = DefaultFields(b"omnicorn", True, [(b"x-extra", b"1")], lambda: 784111777)
    recorder = connect(NOW, defaults=defaults).feed(GET)
    assert recorder.taken() == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nserver: omnicorn\r\n"
        b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\nx-extra: 1\r\ncontent-length: 2\r\n\r\nok"
    )


@pytest.mark.parametrize(
    ("headers", "server", "date"),
    [
        ([(b"Server", b"mine")], 1, 1),
        ([(b"Date", b"now")], 1, 1),
        ([(b"date", b"now"), (b"SERVER", b"mine")], 1, 1),
        ([], 1, 1),
    ],
)
def test_a_default_field_gives_way_to_the_applications(
    connect: Any, headers: Any, server: int, date: int
) -> None:
    defaults = DefaultFields(b"omnicorn", True, [], lambda: 0)
    recorder = connect(defaults=defaults).feed(GET)
    recorder.engine.send_head(200, headers)
    recorder.engine.send_data(b"", True)
    wire = recorder.taken().lower()
    assert wire.count(b"\r\nserver:") == server
    assert wire.count(b"\r\ndate:") == date
    if headers:
        assert b"mine" in wire or b"now" in wire


# ---------------------------------------------------------------- informational, trailers


def test_an_informational_response_comes_first(connect: Any) -> None:
    recorder = connect().feed(GET)
    recorder.engine.send_informational(103, [(b"link", b"</a>")])
    recorder.engine.send_informational(103, [(b"link", b"</b>")])
    recorder.answer()
    wire = recorder.taken()
    assert wire.startswith(
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\nHTTP/1.1 200 OK\r\n"
    )


def test_an_informational_response_is_nothing_for_10(connect: Any) -> None:
    """RFC 9110 §15.2"""
    recorder = connect().feed(GET10)
    recorder.engine.send_informational(103, [(b"link", b"</a>")])
    assert recorder.taken() == b""


@pytest.mark.parametrize("link", [b"a\r\nb: c", b"\x00", b"a\nb"])
def test_an_informational_response_cannot_be_split(connect: Any, link: bytes) -> None:
    recorder = connect().feed(GET)
    with pytest.raises(LocalProtocolError):
        recorder.engine.send_informational(103, [(b"link", link)])
    assert recorder.taken() == b""


@pytest.mark.parametrize("status", [99, 101, 104, 200])
def test_an_informational_status_nobody_knows_is_refused_by_name(connect: Any, status: int) -> None:
    recorder = connect().feed(GET)
    with pytest.raises(LocalProtocolError):
        recorder.engine.send_informational(status, [])
    assert recorder.taken() == b""


TE = b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n"


def trailed(connect: Any, request: bytes, headers: Any = (), body: bytes = b"x") -> bytes:
    recorder = connect(pipeline=False).feed(request)
    recorder.engine.send_head(200, list(headers), trailers=True)
    recorder.engine.send_data(body, True)
    recorder.engine.send_trailers([(b"x-t", b"1")])
    assert recorder.engine.is_complete
    return bytes(recorder.taken())


def test_trailers_reach_a_client_that_takes_them(connect: Any) -> None:
    assert trailed(connect, TE).endswith(b"1\r\nx\r\n0\r\nx-t: 1\r\n\r\n")


def test_trailers_are_kept_from_a_client_that_did_not_ask(connect: Any) -> None:
    """RFC 9110 §6.5.1"""
    assert trailed(connect, GET).endswith(b"1\r\nx\r\n0\r\n\r\n")


def test_trailers_have_no_place_behind_a_length(connect: Any) -> None:
    wire = trailed(connect, TE, [(b"content-length", b"1")])
    assert wire.endswith(b"\r\n\r\nx")


@pytest.mark.parametrize("request_", [GET10, HEAD, TE.replace(b"GET", b"HEAD")])
def test_trailers_have_no_place_without_chunks(connect: Any, request_: bytes) -> None:
    wire = trailed(connect, request_)
    assert b"x-t" not in wire
    assert not wire.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "pair",
    [(b"x", b"a\r\nb"), (b"x y", b"1"), (b"content-length", b"1"), (b"Transfer-Encoding", b"x")],
)
def test_a_bad_trailer_is_refused_and_may_be_sent_anew(connect: Any, pair: Any) -> None:
    recorder = connect().feed(TE)
    recorder.engine.send_head(200, [], trailers=True)
    recorder.engine.send_data(b"x", True)
    with pytest.raises(LocalProtocolError):
        recorder.engine.send_trailers([pair])
    recorder.engine.send_trailers([])
    assert recorder.taken().endswith(b"1\r\nx\r\n0\r\n\r\n")


# ---------------------------------------------------------------- backpressure, raw bytes


def test_a_blocked_peer_asks_the_application_to_wait(connect: Any) -> None:
    recorder = connect().feed(GET)
    recorder.engine.send_head(200, [])
    assert recorder.engine.send_data(b"x", False) is True
    recorder.engine.blocked = True
    assert recorder.engine.send_data(b"x", False) is False


def test_much_output_is_flushed_at_once(connect: Any) -> None:
    recorder = connect().feed(GET)
    recorder.engine.send_head(200, [])
    recorder.engine.send_data(bytes(HIGH_WATER // 2), False)
    assert "on_full" not in recorder.names()
    recorder.engine.send_data(bytes(HIGH_WATER), False)
    assert recorder.names().count("on_full") == 1
    assert not recorder.engine.pending


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"10")]])
@pytest.mark.parametrize("request_", [GET, GET10])
def test_bytes_written_past_the_engine_are_framed(
    connect: Any, request_: bytes, headers: Any
) -> None:
    recorder = connect(pipeline=False).feed(request_)
    engine = recorder.engine
    engine.send_head(200, headers)
    engine.send_data(b"ab", False)
    assert engine.reserve_raw(6)
    recorder.flush()
    recorder.wire += b"cdefgh"
    engine.raw_written()
    engine.send_data(b"ij", True)
    assert read_with_h11(recorder.taken(), b"GET")[2] == b"abcdefghij"


def test_more_raw_bytes_than_the_length_are_refused(connect: Any) -> None:
    recorder = connect().feed(GET)
    recorder.engine.send_head(200, [(b"content-length", b"5")])
    with pytest.raises(LocalProtocolError):
        recorder.engine.reserve_raw(6)
    assert recorder.engine.reserve_raw(5)


@pytest.mark.parametrize("request_", [HEAD])
def test_raw_bytes_have_no_place_where_content_has_none(connect: Any, request_: bytes) -> None:
    recorder = connect().feed(request_)
    recorder.engine.send_head(200, [])
    assert recorder.engine.reserve_raw(5) is False


# ---------------------------------------------------------------- round trips: requests

TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
FRAMING = {
    b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade", b"te",
}  # fmt: skip

tokens = st.text(TOKEN, min_size=1, max_size=12).map(str.encode)
names = tokens.filter(lambda name: name.lower() not in FRAMING)
values = (
    st.lists(st.sampled_from(sorted({9, *range(32, 127), *range(128, 256)})), max_size=20)
    .map(bytes)
    .map(lambda value: value.strip(b" \t"))
)
white = st.text(" \t", max_size=3).map(str.encode)
paths = st.text([chr(i) for i in range(0x21, 0x7F) if chr(i) not in "#?%"], max_size=12).map(
    lambda path: b"/" + path.encode()
)
queries = st.none() | st.text(
    [chr(i) for i in range(0x21, 0x7F) if chr(i) != "#"], max_size=12
).map(str.encode)
methods = st.sampled_from(
    [b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"PATCH", b"OPTIONS", b"X-Y"]
)


@st.composite
def chunked_bodies(draw: Any, body: bytes) -> bytes:
    """*body* in the chunked coding: any cuts, sizes in any spelling, extensions, trailers."""
    cuts = draw(st.lists(st.integers(0, len(body)), max_size=5))
    out = bytearray()
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(body)], strict=True):
        if start == stop:
            continue
        size = b"%x" % (stop - start)
        size = b"0" * draw(st.integers(0, 3)) + draw(st.sampled_from([size, size.upper()]))
        out += size + draw(extensions) + b"\r\n" + body[start:stop] + b"\r\n"
    out += b"0" * draw(st.integers(1, 3)) + draw(extensions) + b"\r\n"
    for name, value in draw(st.lists(st.tuples(names, values), max_size=3)):
        out += name + b": " + value + b"\r\n"
    return bytes(out + b"\r\n")


extensions = st.one_of(
    st.just(b""),
    st.builds(lambda a, b: b";" + a + b"=" + b, tokens, tokens),
    st.builds(lambda a: b' ; x="' + a.replace(b'"', b"") + b'"', values),
)


@st.composite
def requests(draw: Any) -> tuple[bytes, dict[str, Any]]:
    method, path, query = draw(methods), draw(paths), draw(queries)
    target = path if query is None else path + b"?" + query
    fields = draw(st.lists(st.tuples(names, white, values, white), max_size=5))
    body = draw(st.binary(max_size=60))
    framing = draw(st.sampled_from(["length", "chunked", "none"]))
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    lines += [b"%b:%b%b%b" % field for field in fields]
    headers = [(name.lower(), value) for name, _, value, _ in fields]
    place = draw(st.integers(0, len(fields)))
    lines.insert(1 + place, b"Host: a")
    headers.insert(place, (b"host", b"a"))
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
        headers.append((b"content-length", b"%d" % len(body)))
        content = body
    elif framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        headers.append((b"transfer-encoding", b"chunked"))
        content = draw(chunked_bodies(body))
    else:
        body = content = b""
    want = {
        "method": method.decode().upper(),
        "path": path.decode(),
        "query": query or b"",
        "headers": tuple(headers),
        "body": body,
    }
    empty = draw(st.sampled_from([b"", b"\r\n"]))
    return empty + b"\r\n".join([*lines, b"", b""]) + content, want


@given(
    pipeline=st.lists(requests(), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 1000), max_size=8),
    answers=st.sampled_from([NOW, LATER]),
)
def test_requests_come_out_as_they_went_in(
    connect: Any, cut: Any, pipeline: Any, cuts: list[int], answers: int
) -> None:
    data = b"".join(request for request, _ in pipeline)
    recorder = connect(answers).feed(*cut(data, [at % (len(data) + 1) for at in cuts]))
    assert recorder.engine.error is None
    got = [
        {
            "method": request.head.method,
            "path": request.head.path,
            "query": request.head.query,
            "headers": request.head.headers,
            "body": request.body,
        }
        for request in recorder.requests
    ]
    assert got == [want for _, want in pipeline]
    assert all(request.ended and request.over for request in recorder.requests)


@given(pipeline=st.lists(requests(), min_size=1, max_size=3))
def test_byte_by_byte_is_the_same(connect: Any, pipeline: Any) -> None:
    data = b"".join(request for request, _ in pipeline)
    whole = connect(NOW).feed(data).outcome()
    assert connect(NOW).feed(*(data[i : i + 1] for i in range(len(data)))).outcome() == whole


# ---------------------------------------------------------------- round trips: responses


def read_with_h11(wire: bytes, method: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes, Any]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    client.receive_data(b"")
    status, headers, body = 0, [], bytearray()
    trailers: Any = []
    while True:
        event = client.next_event()
        if isinstance(event, h11.Response):
            status, headers = event.status_code, list(event.headers)
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            trailers = list(event.headers)
            break
        else:
            assert isinstance(event, h11.InformationalResponse), event
    assert client.trailing_data[0] == b""
    return status, headers, bytes(body), trailers


class Wire:
    """A socket that has received *data* and no more."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def makefile(self, mode: str) -> io.BytesIO:
        return self.file


def read_with_http_client(wire: bytes, method: str) -> tuple[int, list[tuple[str, str]], bytes]:
    sock: Any = Wire(wire)
    response = http.client.HTTPResponse(sock, method=method)
    response.begin()
    body = response.read()
    assert sock.file.closed or sock.file.read() == b""
    return response.status, response.getheaders(), body


OWN = {b"connection", b"content-length", b"transfer-encoding", b"keep-alive", b"server", b"date"}
response_names = tokens.filter(lambda name: name.lower() not in OWN)
# The standard library's client reads Latin-1 through the email package, which folds U+0085
# and the like into line ends: visible ASCII is common ground.
response_values = (
    st.text([chr(i) for i in range(32, 127)], max_size=20).map(str.strip).map(str.encode)
)
statuses = st.one_of(st.integers(200, 599), st.sampled_from([200, 204, 206, 301, 304, 404, 500]))


@given(
    method=st.sampled_from([b"GET", b"HEAD", b"POST"]),
    minor=st.sampled_from([b"0", b"1"]),
    asked=st.sampled_from([b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n"]),
    takes_trailers=st.booleans(),
    status=statuses,
    headers=st.lists(st.tuples(response_names, response_values), max_size=5),
    parts=st.lists(st.binary(max_size=40), min_size=1, max_size=5),
    flushes=st.lists(st.booleans(), min_size=6, max_size=6),
    length=st.booleans(),
    trailers=st.none() | st.lists(st.tuples(response_names, response_values), max_size=2),
)
def test_responses_are_read_back_as_they_were_sent(
    connect: Any,
    method: bytes,
    minor: bytes,
    asked: bytes,
    takes_trailers: bool,
    status: int,
    headers: list[tuple[bytes, bytes]],
    parts: list[bytes],
    flushes: list[bool],
    length: bool,
    trailers: list[tuple[bytes, bytes]] | None,
) -> None:
    if trailers:
        trailers = [(name, value) for name, value in trailers if name.lower() != b"host"]
    te = b"TE: trailers\r\n" if takes_trailers else b""
    request = b"%b / HTTP/1.%b\r\nHost: a\r\n%b%b\r\n" % (method, minor, asked, te)
    body = b"".join(parts)
    sent = list(headers)
    if length:
        sent.append((b"content-length", b"%d" % len(body)))
    recorder = connect(pipeline=False).feed(request)
    engine = recorder.engine
    engine.send_head(status, sent, trailers=trailers is not None)
    for index, part in enumerate(parts):
        engine.send_data(part, index == len(parts) - 1)
        if flushes[index]:
            recorder.flush()
    if trailers is not None:
        engine.send_trailers(trailers)
    wire = recorder.taken()

    no_content = method == b"HEAD" or status in (204, 304)
    got_status, got_headers, got_body, got_trailers = read_with_h11(wire, method)
    assert got_status == status
    assert [pair for pair in got_headers if pair[0] not in OWN] == [
        (name.lower(), value) for name, value in headers
    ]
    assert got_body == (b"" if no_content else body)
    chunked = any(name == b"transfer-encoding" for name, _ in got_headers)
    assert not (chunked and (minor == b"0" or length or no_content))
    if trailers and takes_trailers and chunked:
        assert got_trailers == [(name.lower(), value) for name, value in trailers]
    else:
        assert got_trailers == []
    closes = (b"connection", b"close") in got_headers
    assert closes is engine.closing
    if asked == b"" and minor == b"1":
        assert not closes
    if b"close" in asked:
        assert closes
    if minor == b"0" and not closes:
        assert (b"connection", b"keep-alive") in got_headers
    if not chunked and not closes and not no_content:
        assert (b"content-length", b"%d" % len(body)) in got_headers

    if not (chunked and trailers):  # http.client reads no trailers
        code, fields, content = read_with_http_client(wire, method.decode())
        assert code == status
        assert content == got_body
        if not headers or all(value for _, value in headers):
            assert [(name.lower().encode(), value.encode()) for name, value in fields] == [
                (name, value.strip()) for name, value in got_headers
            ]
    assert engine.remote == COMPLETE


def test_a_body_limit_does_not_bind_responses(connect: Any) -> None:
    recorder = connect(limits=Limits(body=3)).feed(GET)
    recorder.engine.send_head(200, [])
    recorder.engine.send_data(b"long enough", True)
    assert recorder.taken().endswith(b"\r\n\r\nlong enough")


def test_pipelined_requests_that_are_answered_as_they_come_leave_others_their_turn(
    connect: Any,
) -> None:
    """With tasks that start eagerly, one segment could keep the loop for all its requests."""
    recorder = connect(NOW)

    def pause(name: str, _: object) -> None:
        if name == "on_full":
            recorder.pipeline = False  # as a connection does: the next one waits a turn

    recorder.hook = pause
    recorder.feed(GET * 200)
    assert len(recorder.requests) == 64
    while len(recorder.requests) < 200:
        before = len(recorder.requests)
        recorder.pipeline = True
        recorder.engine.proceed()
        assert before < len(recorder.requests) <= before + 64
