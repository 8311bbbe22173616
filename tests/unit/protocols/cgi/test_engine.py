"""The conversation that SCGI and uwsgi have in common, on SCGI."""

from __future__ import annotations

from typing import Any

import pytest
from tests.gateways import Recorder, scgi_request

from omnicorn.errors import LocalProtocolError
from omnicorn.http.limits import Limits
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.scgi import ScgiEngine

HI = b"Status: 200 OK\r\nx-extra: 1\r\ncontent-length: 2\r\n\r\nhi"


def asked(body: bytes = b"", **variables: str) -> Recorder:
    recorder = Recorder(ScgiEngine)
    recorder.engine.receive(scgi_request(body, **variables))
    return recorder


# ---------------------------------------------------------------- responses


def test_a_response_that_is_there_at_once_has_a_length() -> None:
    recorder = asked()
    recorder.answer()

    assert recorder.wire == HI
    assert recorder.engine.closing and not recorder.engine.cut


def test_server_and_date_are_left_to_the_front() -> None:
    recorder = asked()
    recorder.answer()

    assert b"server" not in recorder.wire and b"date" not in recorder.wire


def test_a_response_whose_head_leaves_first_ends_with_the_connection() -> None:
    recorder = asked()
    recorder.engine.send_head(200, [(b"a", b"b")])
    recorder.engine.send_data(b"one", False)
    recorder.flush()
    recorder.engine.send_data(b"two", True)

    assert recorder.wire == b"Status: 200 OK\r\na: b\r\nx-extra: 1\r\n\r\nonetwo"
    assert recorder.engine.closing and not recorder.engine.cut


@pytest.mark.parametrize(("status", "method"), [(200, "HEAD"), (204, "GET"), (304, "GET")])
def test_content_that_must_not_be_is_dropped(status: int, method: str) -> None:
    recorder = asked(REQUEST_METHOD=method)
    recorder.engine.send_head(status, [(b"a", b"b")])
    assert not recorder.engine.takes_content
    recorder.engine.send_data(b"dropped", False)
    recorder.engine.send_data(b"dropped", True)

    assert recorder.wire.endswith(b"a: b\r\nx-extra: 1\r\n\r\n")


def test_no_informational_response_and_no_trailer_is_sent() -> None:
    """nginx takes a 103 for the response, and what follows for its content."""
    recorder = asked()
    engine = recorder.engine
    engine.send_continue()
    engine.send_informational(103, [(b"link", b"x")])
    engine.send_head(200, [], True)
    engine.send_data(b"hi", True)
    assert not engine.closing
    engine.send_trailers([(b"a", b"b")])

    assert recorder.wire == HI
    assert engine.closing


def test_a_response_that_lacks_content_is_cut() -> None:
    recorder = asked()
    recorder.engine.send_head(200, [(b"content-length", b"5")])
    with pytest.raises(LocalProtocolError, match="3 bytes short"):
        recorder.engine.send_data(b"hi", True)

    assert recorder.engine.cut


def test_a_response_never_exceeds_its_length() -> None:
    recorder = asked()
    recorder.engine.send_head(200, [(b"content-length", b"1")])
    with pytest.raises(LocalProtocolError, match="1 bytes to send, and 2"):
        recorder.engine.send_data(b"hi", True)
    with pytest.raises(LocalProtocolError, match="the file has 2"):
        recorder.engine.reserve_raw(2)


def test_giving_up_is_a_cut() -> None:
    recorder = asked()
    recorder.engine.send_head(200, [])
    recorder.engine.send_data(b"x", False)
    recorder.engine.reset()

    assert recorder.engine.cut and recorder.engine.closing
    assert recorder.names().count("complete") == 1
    recorder.engine.reset()
    assert recorder.names().count("complete") == 1


def test_room_for_a_file_is_made_behind_the_head() -> None:
    recorder = asked()
    recorder.engine.send_head(200, [])
    assert recorder.engine.reserve_raw(10)
    recorder.flush()
    recorder.engine.raw_written()
    recorder.engine.send_data(b"", True)

    assert recorder.wire == b"Status: 200 OK\r\nx-extra: 1\r\n\r\n"


@pytest.mark.parametrize(
    "verb",
    [
        lambda engine: engine.send_data(b"", True),
        lambda engine: engine.reserve_raw(1),
        lambda engine: engine.send_trailers([]),
        lambda engine: engine.send_head(99, []),
        lambda engine: engine.send_head(200, 5),
        lambda engine: engine.send_head(200, [(b"a", b"\n")]),
        lambda engine: engine.send_informational(103, [(b"a", b"\n")]),
    ],
)
def test_verbs_out_of_turn_or_of_sense_are_refused(verb: Any) -> None:
    recorder = asked()
    with pytest.raises(LocalProtocolError):
        verb(recorder.engine)
    recorder.answer()

    assert recorder.wire == HI


def test_verbs_after_the_end_are_refused() -> None:
    recorder = asked()
    recorder.answer()
    for verb in (lambda: recorder.engine.send_head(200, []), recorder.answer):
        with pytest.raises(LocalProtocolError):
            verb()
    with pytest.raises(LocalProtocolError):
        recorder.engine.send_informational(103, [])


def test_a_sender_that_is_too_quick_is_told() -> None:
    recorder = asked()
    recorder.engine.send_head(200, [])
    assert recorder.engine.send_data(b"x" * HIGH_WATER, False)
    assert recorder.names().count("full") == 1
    recorder.engine.blocked = True
    assert not recorder.engine.send_data(b"x", False)


# ---------------------------------------------------------------- content


def test_content_is_handed_on_as_it_comes() -> None:
    recorder = asked(b"abc", CONTENT_LENGTH="6")
    assert recorder.content == b"abc"
    recorder.engine.receive(b"def")

    assert recorder.content == b"abcdef"
    assert recorder.names() == ["end"]


def test_reading_pauses_while_the_application_has_much_to_take() -> None:
    recorder = asked(b"x" * 70000, CONTENT_LENGTH="200000")
    assert recorder.calls == [("readable", False)]
    recorder.engine.consumed(70000)

    assert recorder.calls == [("readable", False), ("readable", True)]


def test_more_content_than_was_said_is_a_lie() -> None:
    recorder = asked(b"abc", CONTENT_LENGTH="2")
    recorder.flush()

    assert recorder.engine.error.status == 400
    assert recorder.wire.startswith(b"Status: 400 Bad Request\r\n")
    assert recorder.wire.endswith(b"there is more content than CONTENT_LENGTH says\n")
    assert recorder.names()[-1] == "reset"


def test_a_lie_in_the_middle_of_a_response_cuts_it() -> None:
    recorder = asked()
    recorder.engine.send_head(200, [])
    recorder.engine.send_data(b"x", False)
    recorder.engine.receive(b"junk")

    assert recorder.engine.cut and recorder.engine.closing


def test_an_answer_in_front_of_the_content_leaves_it_to_be_dropped() -> None:
    recorder = Recorder(ScgiEngine)
    recorder.answer_at_once = True
    recorder.engine.receive(scgi_request(b"abc", CONTENT_LENGTH="6"))

    assert recorder.wire == HI
    assert recorder.content == b""
    assert recorder.engine.expects_more


@pytest.mark.parametrize("cut", ["head", "content"])
def test_what_breaks_off_is_refused(cut: str) -> None:
    recorder = Recorder(ScgiEngine)
    data = scgi_request(b"abc")
    recorder.engine.receive(data[:-1] if cut == "content" else data[:50])
    recorder.engine.receive_eof()
    recorder.flush()

    assert recorder.engine.error.reason == f"the request's {cut} ends too early"
    assert recorder.wire.startswith(b"Status: 400 Bad Request\r\n")


def test_an_end_without_a_request_is_silent() -> None:
    recorder = Recorder(ScgiEngine)
    recorder.engine.receive_eof()

    assert recorder.engine.closing and recorder.engine.error is None
    assert recorder.calls == []


def test_an_end_behind_the_request_is_told() -> None:
    recorder = asked()
    recorder.engine.receive_eof()
    assert recorder.names() == ["remote_closed"]
    recorder.answer()

    assert recorder.wire == HI
    assert not recorder.engine.expects_more


@pytest.mark.parametrize(("data", "status"), [(b"7", 408), (scgi_request(b"a")[:-1], 408)])
def test_what_does_not_come_in_time_gets_408(data: bytes, status: int) -> None:
    recorder = Recorder(ScgiEngine)
    recorder.engine.receive(data)
    recorder.engine.timed_out()
    recorder.flush()

    assert recorder.wire.startswith(b"Status: %d " % status)


def test_silence_gets_nothing() -> None:
    recorder = Recorder(ScgiEngine)
    recorder.engine.timed_out()

    assert recorder.engine.closing and recorder.calls == []


def test_a_refused_head_request_has_no_content() -> None:
    recorder = asked(b"a", CONTENT_LENGTH="5", REQUEST_METHOD="HEAD")
    recorder.engine.timed_out()
    recorder.flush()

    assert recorder.wire.endswith(b"\r\n\r\n")


def test_a_lost_connection_resets_the_handler_and_lets_go() -> None:
    recorder = asked()
    recorder.engine.connection_lost()

    assert recorder.calls == [("reset", None)]
    assert recorder.engine._owner is None


def test_what_comes_after_the_end_is_dropped() -> None:
    recorder = asked()
    recorder.answer()
    recorder.engine.stop()
    recorder.engine.receive(b"more")

    assert recorder.engine.error is None


def test_limits_of_content_are_kept() -> None:
    recorder = Recorder(ScgiEngine, Limits(body=5))
    recorder.engine.receive(scgi_request(b"123456"))
    recorder.flush()

    assert recorder.wire.startswith(b"Status: 413 Content Too Large\r\n")


# ---------------------------------------------------------------- another protocol


def test_an_upgrade_is_answered_and_what_follows_is_given_back() -> None:
    recorder = asked(HTTP_UPGRADE="websocket", HTTP_CONNECTION="Upgrade")
    recorder.engine.receive(b"frames")
    rest = recorder.engine.switch_protocols(b"websocket", [(b"a", b"b")])
    recorder.wire += b"".join(recorder.engine.take())

    assert rest == b"frames"
    assert recorder.wire == (
        b"Status: 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        b"a: b\r\nx-extra: 1\r\n\r\n"
    )


def test_an_upgrade_answers_a_complete_request() -> None:
    recorder = asked(b"a", CONTENT_LENGTH="2")
    with pytest.raises(LocalProtocolError):
        recorder.engine.switch_protocols(b"websocket", [])


def test_reading_pauses_in_front_of_an_upgrade() -> None:
    recorder = asked(HTTP_UPGRADE="websocket", HTTP_CONNECTION="Upgrade")
    recorder.engine.receive(b"x" * (HIGH_WATER + 1))

    assert recorder.calls == [("readable", False)]
