"""Which requests there are, and what may come for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import fastcgi_front as front
from tests.fastcgi_front import (
    ABORT,
    DATA,
    END,
    GET_VALUES,
    PARAMS,
    RESULT,
    STDIN,
    STDOUT,
    UNKNOWN,
    begin,
    pairs,
    params,
    record,
    request,
)

from omnicorn.http.limits import Limits
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.fastcgi.engine import OUTLOOK, TURN

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[..., Any]
    Cut = Callable[..., list[bytes]]

NOBODY, NOW, AT_END = range(3)

CORPUS = {
    "a GET": request("/a?b=c"),
    "padded": begin()
    + record(PARAMS, 1, pairs(front.VARIABLES), padding=255)
    + record(PARAMS, 1, padding=7)
    + record(STDIN, 1, padding=3),
    "content": request("/", body=b"x" * 100),
    "padded content": begin()
    + params(REQUEST_METHOD="POST", CONTENT_LENGTH="6", padding=2)
    + record(STDIN, 1, b"abc", padding=5)
    + record(STDIN, 1, b"def", padding=0)
    + record(STDIN, 1),
    "content of unknown length": begin()
    + params(REQUEST_METHOD="POST")
    + record(STDIN, 1, b"abc")
    + record(STDIN, 1),
    "several, one after the other": request("/1") + request("/2", body=b"two") + request("/3"),
    "several at once": begin(1)
    + begin(2)
    + params(2, REQUEST_URI="/2")
    + params(1, REQUEST_URI="/1", REQUEST_METHOD="POST", CONTENT_LENGTH="4")
    + record(STDIN, 1, b"on")
    + record(STDIN, 2)
    + record(STDIN, 1, b"e!")
    + record(STDIN, 1),
    "PARAMS in pieces": begin()
    + b"".join(record(PARAMS, 1, bytes([byte]), 1) for byte in pairs(front.VARIABLES))
    + record(PARAMS, 1)
    + record(STDIN, 1),
    "not kept": request(keep=False),
    "what is skipped": record(STDIN, 9, b"nobody") + record(DATA, 1, b"data") + request(),
    "management": record(GET_VALUES, 0, pairs({"FCGI_MAX_REQS": "", "OTHER": ""}), 3)
    + record(99, 0, b"what?")
    + request(),
    "an abort": request("/", body=b"x")[:-8] + record(ABORT, 1) + request("/next"),
    "another role": begin(1, front.AUTHORIZER) + params() + record(STDIN) + request(number=2),
    "too much content": begin()
    + params(REQUEST_METHOD="POST", CONTENT_LENGTH="2")
    + record(STDIN, 1, b"abc")
    + record(STDIN, 1)
    + request(number=2),
    "too little content": begin()
    + params(REQUEST_METHOD="POST", CONTENT_LENGTH="4")
    + record(STDIN, 1, b"abc")
    + record(STDIN, 1)
    + request(number=2),
    "content for none": request(CONTENT_LENGTH="0")[:-8]
    + record(STDIN, 1, b"abc")
    + record(STDIN, 1)
    + request(number=2),
    "bad parameters": begin() + record(PARAMS, 1, b"\x05") + record(PARAMS, 1) + request(number=2),
    "a bad environment": request(REQUEST_METHOD="") + request(number=2),
    "another version": request() + b"\2" + request()[1:],
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "an id of none": begin(0),
    "begun twice": begin() + begin(),
    "half a BEGIN": record(1, 1, b"\0\1\1"),
    "content before its parameters": begin() + record(STDIN, 1, b"x"),
    "its end before its parameters": begin() + record(STDIN, 1),
    "parameters after their end": begin() + params() + record(PARAMS, 1, b"x"),
    "parameters that end twice": begin() + params() + record(PARAMS, 1),
    "values of a request": record(GET_VALUES, 1),
    "content after its end": request("/", body=b"abc") + record(STDIN, 1, b"x"),
    "content after the end of none": request(CONTENT_LENGTH="0") + record(STDIN, 1, b"x"),
}


@pytest.mark.parametrize("case", CORPUS)
def test_the_outcome_does_not_depend_on_the_segments(connect: Connect, case: str) -> None:
    data = CORPUS[case]
    whole = connect(AT_END).feed(data).outcome()
    bytewise = connect(AT_END).feed(*[data[at : at + 1] for at in range(len(data))])

    assert bytewise.outcome() == whole
    for cut in range(1, len(data), 1 if len(data) < 700 else 7):
        assert connect(AT_END).feed(data[:cut], data[cut:]).outcome() == whole


_records = st.lists(
    st.builds(
        record,
        st.integers(0, 12),
        st.sampled_from([0, 1, 1, 2, 3]),
        st.binary(max_size=20) | st.just(pairs(front.VARIABLES)) | st.just(b"\0\1\1\0\0\0\0\0"),
        st.integers(0, 9),
    )
    | st.sampled_from([*CORPUS.values()]),
    max_size=8,
).map(b"".join)


@given(data=_records, more=st.data())
def test_no_records_break_the_engine(
    connect: Connect, cut: Cut, data: bytes, more: st.DataObject
) -> None:
    cuts = more.draw(st.lists(st.integers(0, len(data)), max_size=6))
    whole = connect(AT_END).feed(data)
    pieces = connect(AT_END).feed(*cut(data, cuts))

    assert pieces.outcome() == whole.outcome()


@given(st.binary(max_size=100))
def test_no_bytes_break_the_engine(connect: Connect, data: bytes) -> None:
    connection = connect(AT_END).feed(request(), data)
    connection.engine.receive_eof()
    connection.flush()
    connection.engine.connection_lost()


# ---------------------------------------------------------------- a request


def test_a_request_is_answered(connect: Connect) -> None:
    connection = connect(NOW).feed(request("/a%20b?c=d"))
    head = connection.last.head

    assert (head.method, head.path, head.query) == ("GET", "/a b", b"c=d")
    assert connection.last.stream.client == ("192.0.2.1", 45862)
    assert connection.answer() == front.Answer(b"Status: 200 OK\r\n\r\nok", b"", 0, 0, True)
    assert not connection.engine.closing


def test_head_content_and_end_are_three_records(connect: Connect) -> None:
    connection = connect(NOW).feed(request())

    assert [(one.kind, len(one.content)) for one in connection.records()] == [
        (STDOUT, 20),
        (STDOUT, 0),
        (END, 8),
    ]


def test_a_connection_that_is_not_kept_closes(connect: Connect) -> None:
    assert connect(NOW).feed(request(keep=False)).engine.closing


def test_a_kept_connection_takes_the_next(connect: Connect) -> None:
    connection = connect(NOW)
    for number in (1, 1, 7):
        connection.wire = b""
        connection.feed(request(number=number))
        assert connection.answer(number).app_status == 0


def test_a_request_with_content_begins_before_it_comes(connect: Connect) -> None:
    connection = connect().feed(begin() + params(REQUEST_METHOD="POST", CONTENT_LENGTH="3"))

    assert connection.last.head.has_body
    connection.feed(record(STDIN, 1, b"abc") + record(STDIN, 1))
    assert (connection.last.body, connection.last.ended) == (b"abc", True)


def test_without_a_length_the_first_record_tells_whether_there_is_content(
    connect: Connect,
) -> None:
    connection = connect().feed(begin() + params(REQUEST_METHOD="POST"))
    assert connection.requests == []

    connection.feed(record(STDIN, 1, b"abc"))
    assert connection.last.head.has_body and not connection.last.ended
    connection.feed(record(STDIN, 1))
    assert connection.last.ended

    connection.feed(begin(2) + params(2, REQUEST_METHOD="POST") + record(STDIN, 2))
    assert not connection.last.head.has_body


def test_content_is_passed_on_while_its_record_is_incomplete(connect: Connect) -> None:
    whole = (
        begin()
        + params(REQUEST_METHOD="POST", CONTENT_LENGTH="10")
        + record(STDIN, 1, b"0123456789")
    )
    connection = connect().feed(whole[:-4])

    assert connection.last.body == b"012345"


# ---------------------------------------------------------------- several at once


def test_requests_are_answered_in_any_order(connect: Connect) -> None:
    connection = connect().feed(request("/1", 1) + request("/2", 2) + request("/3", 3))
    assert connection.engine.multiplexed
    for each in (connection.requests[2], connection.requests[0], connection.requests[1]):
        each.respond(each.head.raw_path)

    assert [connection.answer(number).body for number in (1, 2, 3)] == [b"/1", b"/2", b"/3"]


def test_output_of_several_is_one_record_each(connect: Connect) -> None:
    connection = connect().feed(request(number=1) + request(number=2))
    for each in connection.requests:
        each.stream.send_head(200, [])
    for each in connection.requests * 2:
        each.stream.send_data(b"x", False)

    assert [one.number for one in connection.records()] == [1, 2]


def test_without_multiplexing_a_second_request_is_refused(connect: Connect) -> None:
    connection = connect(max_requests=1).feed(request(number=1) + request(number=2))

    assert connection.answer(2).protocol_status == front.CANT_MPX
    assert len(connection.requests) == 1
    connection.last.respond()
    connection.feed(request(number=2))
    assert len(connection.requests) == 2


def test_too_many_at_once_are_refused(connect: Connect) -> None:
    connection = connect(max_requests=2)
    connection.feed(request(number=1) + request(number=2) + request(number=3))

    assert connection.answer(3).protocol_status == front.OVERLOADED
    assert connection.answer(1).app_status is None


def test_aborted_requests_count_until_their_applications_return(connect: Connect) -> None:
    connection = connect(max_requests=2)
    for number in (1, 2):
        connection.feed(request(number=number) + record(ABORT, number))
        connection.engine.orphans.add(connection.last)  # as a connection does
    connection.feed(request(number=3))
    assert connection.answer(3).protocol_status == front.OVERLOADED

    connection.engine.orphans.clear()
    connection.feed(request(number=4))
    assert len(connection.requests) == 3


def test_one_that_is_not_kept_lets_the_others_finish(connect: Connect) -> None:
    connection = connect().feed(request(number=1) + request(number=2, keep=False))
    connection.requests[1].respond()
    assert not connection.engine.closing

    connection.feed(request(number=3))
    assert connection.answer(3).protocol_status == front.OVERLOADED
    connection.requests[0].respond()
    assert connection.engine.closing


# ---------------------------------------------------------------- what else may come


def test_another_role_is_refused(connect: Connect) -> None:
    connection = connect().feed(begin(1, front.AUTHORIZER) + params() + record(STDIN))

    assert connection.answer().protocol_status == front.UNKNOWN_ROLE
    assert connection.requests == [] and not connection.engine.closing


def test_values_are_told(connect: Connect) -> None:
    asked = {"FCGI_MAX_CONNS": "", "FCGI_MAX_REQS": "", "FCGI_MPXS_CONNS": ""}
    connection = connect().feed(record(GET_VALUES, 0, pairs(asked)))

    assert connection.records() == [
        front.Record(RESULT, 0, pairs({"FCGI_MAX_REQS": "8", "FCGI_MPXS_CONNS": "1"}))
    ]


def test_an_unknown_type_is_answered_with_its_number(connect: Connect) -> None:
    connection = connect().feed(record(77, 0, b"x" * 5000, 9))

    assert connection.records() == [front.Record(UNKNOWN, 0, b"\x4d" + bytes(7))]
    assert not connection.engine.closing


def test_an_abort_ends_the_request(connect: Connect) -> None:
    connection = connect().feed(request())
    connection.last.stream.send_head(200, [])
    connection.last.stream.send_data(b"half", False)
    connection.feed(record(ABORT, 1))

    assert connection.last.resets == [None]
    assert connection.dropped == [connection.last]
    answer = connection.answer()
    assert (answer.body, answer.app_status, answer.protocol_status) == (b"half", 1, 0)
    assert not connection.engine.closing


def test_an_abort_before_the_end_of_the_parameters_ends_it_too(connect: Connect) -> None:
    connection = connect().feed(begin() + record(PARAMS, 1, b"\1\1ab") + record(ABORT, 1))

    assert connection.answer().app_status == 1
    assert not connection.engine.streams


def test_an_abort_of_what_is_over_is_ignored(connect: Connect) -> None:
    connection = connect(NOW).feed(request() + record(ABORT, 1))

    assert connection.answer().app_status == 0


def test_an_abort_ends_what_is_not_kept(connect: Connect) -> None:
    assert connect().feed(request(keep=False) + record(ABORT, 1)).engine.closing


# ---------------------------------------------------------------- what is wrong with a request


@pytest.mark.parametrize(
    ("length", "content", "why"),
    [
        ("4", b"abc", "1 bytes shorter than CONTENT_LENGTH"),
        ("2", b"abc", "longer than CONTENT_LENGTH"),
        ("0", b"abc", "longer than CONTENT_LENGTH"),
    ],
)
def test_a_length_that_lies_is_answered_400(
    connect: Connect, length: str, content: bytes, why: str
) -> None:
    connection = connect().feed(
        begin()
        + params(REQUEST_METHOD="POST", CONTENT_LENGTH=length)
        + record(STDIN, 1, content)
        + record(STDIN, 1)
        + request(number=2)
    )

    assert connection.answer().status == 400
    assert why in str(connection.refused[0])
    assert why.encode() in connection.answer().body
    assert [len(each.resets) for each in connection.requests][-1] == 0, "the next is untouched"
    assert connection.answer(2).app_status is None


def test_an_application_is_told_of_content_that_breaks_off(connect: Connect) -> None:
    connection = connect().feed(
        begin() + params(REQUEST_METHOD="POST", CONTENT_LENGTH="4") + record(STDIN, 1, b"a")
    )
    connection.feed(record(STDIN, 1))

    assert len(connection.last.resets) == 1
    assert connection.dropped == [connection.last]


def test_parameters_are_bounded(connect: Connect) -> None:
    connection = connect(limits=Limits(head=1000)).feed(begin())
    for _ in range(4):
        connection.feed(record(PARAMS, 1, bytes(300)))

    assert connection.answer().status == 431
    assert not connection.engine.streams
    connection.feed(record(PARAMS, 1, bytes(60000)) + record(PARAMS, 1) + request(number=2))
    assert connection.last.stream.number == 2


@pytest.mark.parametrize("length", ["5", ""])
def test_content_is_bounded(connect: Connect, length: str) -> None:
    connection = connect(limits=Limits(body=4)).feed(
        begin() + params(REQUEST_METHOD="POST", CONTENT_LENGTH=length) + record(STDIN, 1, b"abcde")
    )

    assert connection.answer().status == 413


def test_a_request_that_is_wrong_in_mid_response_breaks_off(connect: Connect) -> None:
    connection = connect().feed(
        begin() + params(REQUEST_METHOD="POST", CONTENT_LENGTH="4") + record(STDIN, 1, b"a")
    )
    connection.last.stream.send_head(200, [])
    connection.feed(record(STDIN, 1))

    assert connection.engine.cut and connection.engine.closing
    assert connection.answer().broken
    assert not connection.last.stream.is_responding


# ---------------------------------------------------------------- what is wrong with the records


@pytest.mark.parametrize(
    "case",
    [
        "another version",
        "HTTP",
        "an id of none",
        "begun twice",
        "half a BEGIN",
        "content before its parameters",
        "its end before its parameters",
        "parameters after their end",
        "parameters that end twice",
        "values of a request",
        "content after its end",
        "content after the end of none",
    ],
)
def test_wrong_records_end_the_connection(connect: Connect, case: str) -> None:
    connection = connect(NOBODY).feed(CORPUS[case])

    assert connection.engine.error is not None
    assert connection.engine.closing
    connection.feed(request())
    assert connection.engine.streams == {}


def test_nothing_is_delivered_behind_the_end_of_content(connect: Connect) -> None:
    connection = connect().feed(request(body=b"abc"), record(STDIN, 1, b"more"))

    assert (connection.last.body, connection.last.ended) == (b"abc", True)
    assert str(connection.engine.error) == "STDIN comes after its end"
    assert len(connection.last.resets) == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "the port speaks FastCGI, and this looks like HTTP"),
        (b"70:CONTENT_LENGTH", "the port speaks FastCGI, and this looks like SCGI"),
        (b"\0\x90\1\0\x0e\0REQUEST", "the port speaks FastCGI, and this looks like uwsgi"),
        (b"\x16\3\1\2\0\1\0\1", "TLS was spoken to a port that speaks FastCGI"),
        (b"\2\1\0\1\0\x08\0\0", "a record has the version 2, not 1"),
        (b"G", "the port speaks FastCGI, and this looks like HTTP"),
    ],
)
def test_what_else_is_spoken_is_named(connect: Connect, data: bytes, why: str) -> None:
    assert str(connect().feed(data).engine.error) == why
    behind = connect().feed(record(GET_VALUES, 0), data).engine.error
    assert str(behind) == f"a record has the version {data[0]}, not 1"


def test_applications_are_told_of_a_connection_that_ends(connect: Connect) -> None:
    connection = connect().feed(request(number=1) + request(number=2) + b"\2" + bytes(7))

    assert [len(each.resets) for each in connection.requests] == [1, 1]
    assert connection.engine.cut


def test_a_large_management_record_is_refused(connect: Connect) -> None:
    connection = connect().feed(record(GET_VALUES, 0, bytes(2000)))

    assert connection.engine.error is not None


# ---------------------------------------------------------------- back-pressure


def post(number: int = 1) -> bytes:
    return begin(number) + params(number, REQUEST_METHOD="POST")


def test_reading_stops_while_too_much_waits(connect: Connect) -> None:
    connection = connect().feed(post(), record(STDIN, 1, bytes(65535)), record(STDIN, 1, bytes(9)))
    assert not connection.reading

    connection.last.stream.consumed(9)
    assert connection.reading


def test_all_of_a_connection_s_requests_count(connect: Connect) -> None:
    connection = connect().feed(post(1) + post(2))
    for number in (1, 2):
        connection.feed(record(STDIN, number, bytes(HIGH_WATER // 2 + 1)))
    assert not connection.reading

    connection.requests[0].respond()
    assert connection.reading


def test_content_of_what_is_over_counts_nothing(connect: Connect) -> None:
    connection = connect().feed(post(), record(STDIN, 1, bytes(60000)))
    connection.last.respond()
    connection.feed(record(STDIN, 1, bytes(60000)) * 5)
    connection.last.stream.consumed(60000)

    assert connection.reading
    assert connection.engine._unread == 0


def test_one_that_reads_nothing_cannot_hold_up_the_others_for_ever(connect: Connect) -> None:
    connection = connect().feed(post(1), request(number=2), record(STDIN, 1, bytes(65535)) * 2)
    engine = connection.engine
    assert not connection.reading
    assert engine.overdue(29.0, 15.0, 30.0) == 30.0

    engine.overdue(30.0, 15.0, 30.0)
    assert connection.reading
    assert connection.answer(1).status == 503
    assert [len(each.resets) for each in connection.requests] == [0, 1]
    assert connection.answer(2).app_status is None


def test_alone_on_a_connection_it_may_take_all_the_time(connect: Connect) -> None:
    connection = connect().feed(post(1), record(STDIN, 1, bytes(65535)) * 2)

    assert connection.engine.overdue(1e6, 15.0, 30.0) == float("inf")
    assert not connection.last.resets


def test_whether_others_wait_is_found_out_after_a_while(connect: Connect) -> None:
    content = record(STDIN, 1, bytes(65535))
    connection = connect().feed(post(1), content * 2)
    engine = connection.engine
    assert engine.overdue(29.0, 15.0, 30.0) == 30.0
    assert not connection.reading
    engine.overdue(30.0, 15.0, 30.0)
    assert connection.reading

    connection.now = 31.0
    connection.feed(content + request(number=2) + content)
    assert not connection.reading
    engine.overdue(60.0, 15.0, 30.0)
    assert not connection.last.resets
    engine.overdue(61.0, 15.0, 30.0)
    assert connection.reading
    assert connection.answer(1).status == 503
    assert connection.answer(2).app_status is None


def test_what_is_read_to_find_others_is_bounded(connect: Connect) -> None:
    content = record(STDIN, 1, bytes(65535))
    connection = connect().feed(post(1), content * 2)
    engine = connection.engine
    engine.overdue(30.0, 15.0, 30.0)
    fed = 2
    while connection.reading:
        connection.feed(content)
        fed += 1
    assert fed == OUTLOOK // 65535 + 1
    assert engine.overdue(1e6, 15.0, 30.0) == float("inf")
    assert not connection.last.resets

    connection.last.stream.consumed((fed - 2) * 65535)
    assert not connection.reading, "what was read to find others is not what may wait"
    connection.last.stream.consumed(65535)
    assert connection.reading
    connection.feed(content)
    assert not connection.reading, "it is looked out anew, if it must be"


def test_content_that_was_not_read_has_its_time_from_then_on(connect: Connect) -> None:
    connection = connect().feed(post(1), record(STDIN, 1, bytes(65535)) * 2)
    connection.last.stream.consumed(2 * 65535)
    assert connection.engine.overdue(1000.0, 15.0, 30.0) == 1030.0
    assert not connection.last.resets

    connection.engine.overdue(1030.0, 15.0, 30.0)
    assert connection.answer().status == 408


# ---------------------------------------------------------------- many records at once


FLOODS = {
    "begun and aborted": begin() + record(ABORT, 1),
    "refused": begin(1, front.AUTHORIZER),
    "values": record(GET_VALUES, 0),
    "large values": record(GET_VALUES, 0, pairs(dict.fromkeys(map(str, range(90)), ""))),
    "unknown": record(99, 0),
    "skipped": record(STDIN, 9),
    "bad heads": begin() + record(PARAMS, 1, b"\x05" * 3000) + record(PARAMS, 1),
    "parameters": record(PARAMS, 1, b"\1") * 9,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_many_records_are_read_in_turns(connect: Connect, flood: str) -> None:
    head, data = begin() if flood == "parameters" else b"", FLOODS[flood]
    connection = connect(AT_END)
    connection.feed(head + data * 1000 + request(number=5))
    turns = 1
    while connection.engine.behind:
        assert not connection.requests
        connection.feed(b"")
        turns += 1

    whole = connect(AT_END).feed(head)
    for _ in range(1000):
        whole.feed(data)
    whole.feed(request(number=5))
    assert connection.outcome() == whole.outcome()
    records = 1000 * len(front.records(data))
    assert turns > records // TURN
    assert turns < 100, "a turn is not too short"


def test_an_ordinary_burst_is_read_at_once(connect: Connect) -> None:
    connection = connect().feed(b"".join(request(number=number) for number in range(1, 9)))

    assert len(connection.requests) == 8 and not connection.engine.behind


# ---------------------------------------------------------------- time


def test_parameters_have_a_time(connect: Connect) -> None:
    connection = connect().feed(begin())
    assert connection.engine.overdue(14.0, 15.0, 30.0) == 15.0
    connection.engine.overdue(15.0, 15.0, 30.0)

    assert connection.answer().status == 408


def test_content_has_a_time_between_its_pieces(connect: Connect) -> None:
    connection = connect().feed(post(), record(STDIN, 1, b"a"))
    connection.now = 20.0
    connection.feed(record(STDIN, 1, b"b"))
    assert connection.engine.overdue(45.0, 15.0, 30.0) == 50.0
    connection.engine.overdue(50.0, 15.0, 30.0)

    assert connection.answer().status == 408
    assert connection.last.resets


def test_dripping_parameters_earn_no_more_time(connect: Connect) -> None:
    connection = connect().feed(begin())
    for second in range(16):
        connection.now = float(second)
        connection.feed(record(PARAMS, 1, b"x"))
    connection.engine.overdue(16.0, 15.0, 30.0)

    assert connection.answer().status == 408


def test_an_application_has_all_the_time(connect: Connect) -> None:
    connection = connect().feed(request())

    assert connection.engine.overdue(1e6, 15.0, 30.0) == float("inf")


# ---------------------------------------------------------------- the end


def test_the_end_of_the_front_s_bytes_is_told(connect: Connect) -> None:
    connection = connect().feed(request())
    connection.engine.receive_eof()
    assert connection.last.remote_closed and not connection.engine.closing

    connection.last.respond()
    assert connection.answer().app_status == 0
    assert connection.engine.closing


def test_a_front_that_leaves_within_content_gets_no_answer(connect: Connect) -> None:
    connection = connect().feed(post() + record(STDIN, 1, b"a"))
    connection.engine.receive_eof()

    assert len(connection.last.resets) == 1
    assert connection.engine.closing
    assert connection.records() == [front.BROKEN]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (request()[:5], "a record ends too early"),
        (request()[:20], "a request's parameters end too early"),
        (post() + record(STDIN, 1, b"a"), None),  # clients leave all the time
        (b"", None),
    ],
)
def test_why_a_front_that_left_too_early_was_not_answered(
    connect: Connect, sent: bytes, reason: str | None
) -> None:
    engine = connect().feed(sent).engine
    engine.receive_eof()

    assert engine.closing
    assert (engine.error and engine.error.reason) == reason


def test_no_more_requests_are_taken_when_the_server_stops(connect: Connect) -> None:
    connection = connect().feed(request())
    connection.engine.refuse_more()
    assert not connection.engine.closing
    connection.feed(request(number=2))
    assert connection.answer(2).protocol_status == front.OVERLOADED

    connection.last.respond()
    assert connection.engine.closing


def test_an_idle_connection_is_closed_when_the_server_stops(connect: Connect) -> None:
    connection = connect(NOW).feed(request())
    connection.engine.refuse_more()

    assert connection.engine.closing


def test_a_lost_connection_resets_all(connect: Connect) -> None:
    connection = connect().feed(request(number=1) + request(number=2))
    connection.engine.connection_lost()

    assert [each.resets for each in connection.requests] == [[None], [None]]


def test_it_is_known_that_a_record_is_incomplete(connect: Connect) -> None:
    data = request()
    connection = connect(NOW)
    for cut in (1, 7, 8, 15, 20, len(data) - 1):
        assert connect(NOW).feed(data[:cut]).engine.is_midway
    assert not connection.feed(data).engine.is_midway
    assert connection.feed(record(STDIN, 9, b"", 5)[:-1]).engine.is_midway


# ---------------------------------------------------------------- reports


def test_a_report_goes_to_the_front_s_error_log(connect: Connect) -> None:
    connection = connect().feed(request())
    connection.last.respond(b"sorry", 500)
    connection.engine.report(connection.last.stream, b"it failed\n")
    answer = connection.answer()

    assert (answer.status, answer.body, answer.stderr) == (500, b"sorry", b"it failed\n")
    assert answer.app_status == 0


def test_a_report_that_comes_too_late_is_dropped(connect: Connect) -> None:
    connection = connect().feed(request())
    connection.last.respond()
    connection.flush()
    connection.engine.report(connection.last.stream, b"too late")

    assert connection.answer().stderr == b""
