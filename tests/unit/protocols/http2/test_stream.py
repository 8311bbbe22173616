"""One response: what may be said when, how it is framed, and how it ends (RFC 9113 §8)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.http2_client import data, frame, reset, settings

from omnicorn.errors import LocalProtocolError
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.http2.codes import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    RST_STREAM,
)

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = END_HEADERS | END_STREAM


def ask(connect: Any, *fields: tuple[str, str], **how: Any) -> tuple[Any, Any]:
    """A dialogue and the stream of its only request."""
    dialogue = connect(how.pop("asks", ()))
    dialogue.send(dialogue.headers(1, "/", *fields, **how))
    return dialogue, dialogue.exchange().stream


def kinds(events: list[Any]) -> list[tuple[int, bool]]:
    return [(event.kind, event.end) for event in events]


# ---------------------------------------------------------------- heads and content


def test_a_head_leaves_with_its_content(connect: Any) -> None:
    dialogue, stream = ask(connect)
    stream.send_head(200, [(b"Content-Type", b"text/plain"), (b"content-length", b"5")])
    stream.send_data(b"hello", True)
    assert kinds(dialogue.take()) == [(HEADERS, False), (DATA, True)]
    assert dialogue.reply().headers == [
        (b":status", b"200"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"5"),
    ]
    assert dialogue.reply().body == b"hello" and not dialogue.engine.streams


def test_default_fields_are_added(connect: Any) -> None:
    dialogue = connect(defaults=[(b"X-Own", b"1")])
    dialogue.send(dialogue.headers(1))
    dialogue.exchange().respond()
    dialogue.take()
    assert dialogue.reply().headers[-1] == (b"x-own", b"1")


def test_a_head_that_waits_leaves_with_whatever_is_taken(connect: Any) -> None:
    dialogue, stream = ask(connect)
    stream.send_head(200, [])
    assert kinds(dialogue.take()) == [(HEADERS, False)]
    stream.send_data(b"later", True)
    assert kinds(dialogue.take()) == [(DATA, True)]


def test_a_response_without_content_is_one_frame(connect: Any) -> None:
    """§8.1: END_STREAM on HEADERS."""
    dialogue, stream = ask(connect)
    stream.send_head(200, [])
    stream.send_data(b"", True)
    assert kinds(dialogue.take()) == [(HEADERS, True)]


def test_the_end_may_come_by_itself(connect: Any) -> None:
    dialogue, stream = ask(connect)
    stream.send_head(200, [])
    stream.send_data(b"all", False)
    stream.send_data(b"", False)
    stream.send_data(b"", True)
    assert kinds(dialogue.take()) == [(HEADERS, False), (DATA, False), (DATA, True)]


def test_is_responding_between_the_head_and_the_end(connect: Any) -> None:
    dialogue, stream = ask(connect)
    assert not stream.is_responding
    stream.send_head(200, [], True)
    assert stream.is_responding and stream.takes_content
    stream.send_data(b"x", True)
    assert stream.is_responding
    stream.send_trailers([])
    assert not stream.is_responding
    dialogue.take()


@pytest.mark.parametrize("status", [204, 304, 205])
@pytest.mark.parametrize("announced", [None, b"5"])
def test_statuses_without_content_have_none(
    connect: Any, status: int, announced: bytes | None
) -> None:
    """RFC 9110 §6.4.1, RFC 9113 §8.1.1"""
    dialogue, stream = ask(connect)
    stream.send_head(status, [] if announced is None else [(b"content-length", announced)])
    if status == 205 and stream.takes_content:
        stream.reset()
        return
    assert not stream.takes_content
    stream.send_data(b"drop", False)
    stream.send_data(b"this", True)
    assert kinds(dialogue.take()) == [(HEADERS, True)]
    length = dict(dialogue.reply().headers).get(b"content-length")
    assert length == (None if status == 204 else announced)


def test_the_answer_to_head_has_no_content(connect: Any) -> None:
    """RFC 9110 §9.3.2: but its length."""
    dialogue, stream = ask(connect, method="HEAD")
    stream.send_head(200, [(b"content-length", b"1000")])
    assert not stream.takes_content
    stream.send_data(b"x" * 1000, True)
    assert kinds(dialogue.take()) == [(HEADERS, True)]
    assert dict(dialogue.reply().headers)[b"content-length"] == b"1000"


def test_verbs_out_of_turn_raise_in_their_caller(connect: Any) -> None:
    dialogue, stream = ask(connect)
    verbs: list[Callable[[], Any]] = [
        lambda: stream.send_data(b"", True),
        lambda: stream.send_trailers([]),
        lambda: stream.send_informational(101, []),
        lambda: stream.send_informational(200, []),
        lambda: stream.send_head(199, []),
        lambda: stream.send_head(200, [(b"a b", b"c")]),
        lambda: stream.send_head(200, [(b"a", b"c\r\n")]),
        lambda: stream.send_head(200, None),
    ]
    for verb in verbs:
        with pytest.raises(LocalProtocolError):
            verb()
    assert dialogue.take() == []
    stream.send_head(200, [])
    verbs = [
        lambda: stream.send_head(200, []),
        lambda: stream.send_informational(103, []),
        lambda: stream.send_trailers([]),
    ]
    for verb in verbs:
        with pytest.raises(LocalProtocolError):
            verb()
    stream.send_data(b"x", True)
    verbs = [
        lambda: stream.send_head(200, []),
        lambda: stream.send_data(b"", True),
        lambda: stream.send_trailers([]),
        lambda: stream.send_informational(103, []),
    ]
    for verb in verbs:
        with pytest.raises(LocalProtocolError):
            verb()
    dialogue.take()
    assert dialogue.reply().body == b"x" and dialogue.reply().ended


def test_content_past_content_length_is_refused_and_nothing_of_it_leaves(connect: Any) -> None:
    dialogue, stream = ask(connect)
    stream.send_head(200, [(b"content-length", b"4")])
    stream.send_data(b"ab", False)
    with pytest.raises(LocalProtocolError, match="leaves 2 bytes to send, and 3 were given"):
        stream.send_data(b"cde", False)
    stream.send_data(b"cd", True)
    dialogue.take()
    assert dialogue.reply().body == b"abcd" and dialogue.reply().ended


@pytest.mark.parametrize("trailers", [True, False])
def test_content_short_of_content_length_resets_the_stream(connect: Any, trailers: bool) -> None:
    """§8.1.1: it would be malformed; the client must not take it for whole."""
    dialogue, stream = ask(connect)
    stream.send_head(200, [(b"content-length", b"4")], trailers)
    stream.send_data(b"ab", False)
    with pytest.raises(LocalProtocolError, match="2 bytes short"):
        stream.send_data(b"", True)
    dialogue.take()
    assert dialogue.reply().reset == INTERNAL_ERROR and not dialogue.reply().ended
    assert not stream.is_responding and dialogue.exchange().over


def test_large_content_goes_in_frames_of_16_kib(connect: Any) -> None:
    """§4.2; not a byte of it is copied before it is written."""
    dialogue, stream = ask(connect, asks=((INITIAL_WINDOW_SIZE, 1 << 20),))
    dialogue.grant(0, 1 << 20)
    body = random.Random(1).randbytes(100_000)
    stream.send_head(200, [])
    stream.send_data(body, True)
    pieces = dialogue.engine.out
    views = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert views and all(view.obj is body for view in views)
    events = dialogue.take()
    assert [len(event.payload) for event in events[1:]] == [16384] * 6 + [100_000 - 6 * 16384]
    assert dialogue.reply().body == body and events[-1].end


@pytest.mark.parametrize("sizes", [
    [1] * 50,
    [16384, 16384],
    [16383, 2, 16384],
    [40000, 1, 40000],
    [5, 16384 * 3, 5],
    [16385] * 4,
    [100_000],
    [1, 0, 1],
])  # fmt: skip
@pytest.mark.parametrize("window", [1, 7, 16383, 16384, 16385, 65535])
def test_pieces_that_wait_are_joined_and_cut_as_the_windows_open(
    connect: Any, sizes: list[int], window: int
) -> None:
    """§6.9: byte for byte, whatever the pieces and the windows are."""
    dialogue, stream = ask(connect, asks=((INITIAL_WINDOW_SIZE, 0),))
    rng = random.Random(window)
    pieces = [rng.randbytes(size) for size in sizes]
    stream.send_head(200, [])
    for piece in pieces[:-1]:
        stream.send_data(piece, False)
    stream.send_data(pieces[-1], True)
    dialogue.take()
    assert not dialogue.reply().body
    while not dialogue.reply().ended:
        if len(dialogue.reply().body) > 300:
            window = max(window, 16000)  # enough of the small ones
        dialogue.now += 1.0
        dialogue.grant(0, window)
        dialogue.grant(1, window)
    assert dialogue.reply().body == b"".join(pieces) and dialogue.reply().ended
    assert not dialogue.engine.streams and stream.queued == 0


def test_the_end_may_follow_content_that_waits(connect: Any) -> None:
    dialogue, stream = ask(connect, asks=((INITIAL_WINDOW_SIZE, 5),))
    stream.send_head(200, [])
    stream.send_data(b"x" * 8, False)
    stream.send_data(b"", True)
    dialogue.take()
    assert dialogue.reply().body == b"x" * 5 and not dialogue.exchange().over
    events = dialogue.grant(1, 100)
    assert kinds(events) == [(DATA, True)]


def test_the_end_after_what_waited_has_left_is_a_frame(connect: Any) -> None:
    dialogue, stream = ask(connect, asks=((INITIAL_WINDOW_SIZE, 5),))
    stream.send_head(200, [])
    stream.send_data(b"x" * 8, False)
    dialogue.take()
    dialogue.grant(1, 100)
    stream.send_data(b"", True)
    assert kinds(dialogue.take()) == [(DATA, True)]


def test_an_empty_end_needs_no_window(connect: Any) -> None:
    """§6.9.1: frames without content can be sent if there is no room."""
    dialogue, stream = ask(connect, asks=((INITIAL_WINDOW_SIZE, 3),))
    stream.send_head(200, [])
    stream.send_data(b"abc", False)
    stream.send_data(b"", True)
    dialogue.take()
    assert dialogue.reply().ended


# ---------------------------------------------------------------- back-pressure


def test_the_sender_is_asked_to_wait_and_told_when_it_may_go_on(connect: Any) -> None:
    dialogue, stream = ask(connect, asks=((INITIAL_WINDOW_SIZE, 10),))
    stream.send_head(200, [])
    assert stream.send_data(b"x" * 10, False)
    assert stream.send_data(b"x" * HIGH_WATER, False)  # as much may wait
    assert not stream.send_data(b"x", False)
    dialogue.take()
    dialogue.grant(1, HIGH_WATER // 2)
    assert dialogue.exchange().writable == 0
    dialogue.grant(1, 1)
    assert dialogue.exchange().writable == 1
    assert stream.send_data(b"x", True)


def test_more_than_64_kib_of_output_are_handed_to_the_owner(connect: Any) -> None:
    dialogue = connect(((INITIAL_WINDOW_SIZE, 1 << 20),))
    dialogue.grant(0, 1 << 20)
    dialogue.full = True
    for stream in (1, 3, 5, 7, 9, 11):
        dialogue.send(dialogue.headers(stream))
    for stream in (1, 3, 5, 7):
        dialogue.exchange(stream).respond(b"x" * 16000)
    assert not dialogue.owner.named("on_full")
    stream = dialogue.exchange(9).stream
    stream.send_head(200, [])
    assert not stream.send_data(b"x" * 16000, False)
    assert dialogue.owner.named("on_full") and dialogue.engine.blocked
    dialogue.exchange(11).respond(b"waits")
    dialogue.take()
    assert not dialogue.reply(11).body and dialogue.reply(7).ended
    dialogue.full = False
    dialogue.take()
    assert dialogue.reply(11).ended and dialogue.exchange(9).writable == 1


def test_a_blocked_transport_is_given_nothing_but_control_frames(connect: Any) -> None:
    dialogue, stream = ask(connect)
    dialogue.engine.blocked = dialogue.full = True
    stream.send_head(200, [])
    assert not stream.send_data(b"x" * 100, False)
    assert [event.kind for event in dialogue.send(frame(6, 0, 0, bytes(8)))] == [HEADERS, 6]
    dialogue.full = False
    dialogue.take()
    assert dialogue.reply().body == b"x" * 100
    assert dialogue.exchange().writable


# ---------------------------------------------------------------- 100, 103


def test_100_continue_is_sent_once_and_where_it_was_asked(connect: Any) -> None:
    """RFC 9110 §10.1.1, RFC 9113 §8.1"""
    expect = ("expect", "100-continue")
    dialogue, stream = ask(connect, expect, method="POST", end=False)
    assert dialogue.take() == []
    stream.send_continue()
    stream.send_continue()
    assert kinds(dialogue.take()) == [(HEADERS, False)]
    assert dialogue.reply().informational == [[(b":status", b"100")]]
    dialogue.send(data(1, b"content", True))
    dialogue.exchange().respond()
    dialogue.take()
    assert dialogue.reply().status == 200


@pytest.mark.parametrize("why", ["not asked", "content came", "answered", "no content"])
def test_100_continue_is_not_sent(connect: Any, why: str) -> None:
    fields = [] if why == "not asked" else [("expect", "100-continue")]
    dialogue, stream = ask(connect, *fields, method="POST", end=why == "no content")
    if why == "content came":
        dialogue.send(data(1, b"x"))
    elif why == "answered":
        stream.send_head(200, [])
    stream.send_continue()
    dialogue.take()
    assert not dialogue.reply().informational


def test_early_hints_may_come_often(connect: Any) -> None:
    """RFC 8297"""
    dialogue, stream = ask(connect)
    stream.send_informational(103, [(b"Link", b"</a>")])
    stream.send_informational(103, [(b"link", b"</b>")])
    stream.send_informational(102, [])
    dialogue.exchange().respond()
    dialogue.take()
    assert dialogue.reply().informational == [
        [(b":status", b"103"), (b"link", b"</a>")],
        [(b":status", b"103"), (b"link", b"</b>")],
        [(b":status", b"102")],
    ]
    assert dialogue.reply().status == 200


# ---------------------------------------------------------------- trailers


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("content", [b"", b"some", b"x" * 50000])
def test_trailers_follow_the_content(connect: Any, waits: bool, content: bytes) -> None:
    """§8.1"""
    asks = ((INITIAL_WINDOW_SIZE, 0),) if waits else ()
    dialogue, stream = ask(connect, asks=asks)
    stream.send_head(200, [], True)
    stream.send_data(content, True)
    stream.send_trailers([(b"Grpc-Status", b"0")])
    dialogue.take()
    if waits and content:
        assert not dialogue.reply().ended
        dialogue.grant(1, 60000)
    assert dialogue.reply().body == content and dialogue.reply().ended
    assert dialogue.reply().trailers == [(b"grpc-status", b"0")]
    assert not dialogue.engine.streams


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("content", [b"", b"some"])
def test_trailers_without_fields_are_the_end(connect: Any, waits: bool, content: bytes) -> None:
    asks = ((INITIAL_WINDOW_SIZE, 0),) if waits else ()
    dialogue, stream = ask(connect, asks=asks)
    stream.send_head(200, [], True)
    stream.send_data(content, True)
    stream.send_trailers([])
    dialogue.take()
    if waits and content:
        dialogue.grant(1, 10)
    assert dialogue.reply().ended and dialogue.reply().trailers is None
    assert dialogue.reply().body == content and not dialogue.engine.streams


def test_trailers_may_come_after_what_waited_has_left(connect: Any) -> None:
    dialogue, stream = ask(connect, asks=((INITIAL_WINDOW_SIZE, 0),))
    stream.send_head(200, [], True)
    stream.send_data(b"some", True)
    dialogue.take()
    dialogue.grant(1, 10)
    assert dialogue.reply().body == b"some" and not dialogue.reply().ended
    stream.send_trailers([(b"a", b"b")])
    dialogue.take()
    assert dialogue.reply().trailers == [(b"a", b"b")]


def test_trailers_of_a_head_request_follow_its_head(connect: Any) -> None:
    dialogue, stream = ask(connect, method="HEAD")
    stream.send_head(200, [], True)
    stream.send_data(b"dropped", True)
    stream.send_trailers([(b"a", b"b")])
    dialogue.take()
    assert dialogue.reply().trailers == [(b"a", b"b")] and not dialogue.reply().body


@pytest.mark.parametrize("fields", [
    [(b":status", b"200")], [(b"connection", b"x")], [(b"content-length", b"3")], [(b"a", b"\n")],
    [(b"", b"x")], [("text", "text")], 5,
])  # fmt: skip
def test_trailers_that_cannot_be_sent_raise_in_their_caller(connect: Any, fields: Any) -> None:
    dialogue, stream = ask(connect)
    stream.send_head(200, [], True)
    stream.send_data(b"x", True)
    with pytest.raises(LocalProtocolError):
        stream.send_trailers(fields)
    assert stream.is_responding
    stream.send_trailers([])
    dialogue.take()
    assert dialogue.reply().ended


def test_trailers_of_a_request_end_its_content(connect: Any) -> None:
    """§8.1"""
    dialogue, _ = ask(connect, method="POST", end=False)
    block = dialogue.encoder.encode([("x-checksum", "1")])
    dialogue.send(data(1, b"content"), frame(HEADERS, BLOCK, 1, block))
    exchange = dialogue.exchange()
    assert exchange.body == b"content" and exchange.ended
    exchange.respond()
    dialogue.take()
    assert not dialogue.engine.streams


def test_trailers_of_a_request_may_be_continued(connect: Any) -> None:
    dialogue, _ = ask(connect, method="POST", end=False)
    block = dialogue.encoder.encode([("x-checksum", "1" * 100)])
    dialogue.send(frame(HEADERS, END_STREAM, 1, block[:20]))
    assert not dialogue.exchange().ended
    dialogue.send(frame(CONTINUATION, END_HEADERS, 1, block[20:]))
    assert dialogue.exchange().ended


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ([("a", "b")], END_HEADERS),
        ([(":path", "/")], BLOCK),
        ([("A", "b")], BLOCK),
        ([("a", "b\n")], BLOCK),
        ([("connection", "close")], BLOCK),
    ],
)
def test_trailers_that_are_malformed_reset_the_stream(
    connect: Any, fields: Any, flags: int
) -> None:
    """§8.1, §8.1.1: PROTOCOL_ERROR, also where they do not end the stream."""
    dialogue, _ = ask(connect, method="POST", end=False)
    dialogue.send(frame(HEADERS, flags, 1, dialogue.encoder.encode(fields)))
    assert dialogue.resets == [(1, PROTOCOL_ERROR)] and not dialogue.exchange().ended
    dialogue.assert_alive()


# ---------------------------------------------------------------- the request's rest


@pytest.mark.parametrize("length", [None, 5 << 20])
def test_the_rest_of_an_answered_upload_is_read_and_dropped(
    connect: Any, length: int | None
) -> None:
    """§8.1: many clients read no response before they have said all."""
    fields = [] if length is None else [("content-length", str(length))]
    dialogue, _ = ask(connect, *fields, method="POST", end=False)
    dialogue.exchange().respond()
    for _ in range(5 * 64 - 1):
        dialogue.send(frame(DATA, 0, 1, b"x" * 16384))
        assert dialogue.room[1] >= 16384 and dialogue.room[0] >= 16384
    dialogue.send(frame(DATA, END_STREAM, 1, b"x" * 16384))
    assert dialogue.reply().ended and not dialogue.resets
    assert not dialogue.engine.streams and not dialogue.exchange().pieces


def test_the_rest_of_an_answered_upload_is_dropped_up_to_16_mib(connect: Any) -> None:
    """§8.1: then NO_ERROR, so that the answer is not lost."""
    dialogue, _ = ask(connect, method="POST", end=False)
    dialogue.exchange().respond()
    for _ in range(1024):
        dialogue.send(frame(DATA, 0, 1, b"x" * 16384))
    assert dialogue.reply().ended and not dialogue.resets
    dialogue.send(data(1, b"x"))
    assert dialogue.resets == [(1, NO_ERROR)] and not dialogue.engine.streams
    dialogue.send(data(1, b"late", True))
    dialogue.assert_alive()


def test_an_answered_upload_whose_window_was_full_can_go_on(connect: Any) -> None:
    """§8.1: the client may not read the answer before it has sent the rest."""
    dialogue, _ = ask(connect, method="POST", end=False)
    dialogue.owner.eager = False
    dialogue.send(data(1, b"x" * dialogue.room[1]))
    assert dialogue.room[1] == 0
    dialogue.exchange().respond()
    dialogue.take()
    assert dialogue.reply().ended and dialogue.room[1] > 0 and dialogue.room[0] > 0


def test_the_rest_of_an_answered_upload_has_two_seconds(connect: Any) -> None:
    dialogue, _ = ask(connect, method="POST", end=False)
    dialogue.now += 10.0
    dialogue.exchange().respond()
    dialogue.take()
    assert dialogue.after(1.5) == pytest.approx(0.5)
    dialogue.send(data(1, b"goes on"))
    dialogue.after(0.5)
    dialogue.take()
    assert dialogue.resets == [(1, NO_ERROR)] and not dialogue.engine.streams


def test_content_that_comes_while_the_response_waits_for_a_window_is_dropped(
    connect: Any,
) -> None:
    """The application has said all: it is told of nothing more."""
    dialogue, stream = ask(connect, method="POST", end=False, asks=((INITIAL_WINDOW_SIZE, 0),))
    dialogue.exchange().respond(b"x" * 100)
    dialogue.send(data(1, b"late"), data(1, b"later", True))
    assert dialogue.exchange().body == b"" and not dialogue.exchange().ended
    dialogue.grant(1, 100)
    assert dialogue.reply().ended and not dialogue.engine.streams
    assert stream.unread == 0


def test_what_is_dropped_opens_the_connections_window_once(connect: Any) -> None:
    dialogue = connect(window=65535, stream_window=65535)
    for stream in range(1, 101, 2):
        dialogue.send(dialogue.post(stream))
        dialogue.exchange(stream).respond()
        dialogue.send(data(stream, b"x" * 20000))
        dialogue.send(reset(stream) if stream % 4 == 1 else data(stream, b"", True))
    engine = dialogue.engine
    assert engine._room + engine._credit == 65535 and dialogue.room[0] == engine._room


# ---------------------------------------------------------------- resets


def test_an_application_may_give_up_before_and_in_its_response(connect: Any) -> None:
    """§5.4.2, §7: INTERNAL_ERROR."""
    dialogue = connect()
    for stream in (1, 3, 5):
        dialogue.send(dialogue.headers(stream))
    dialogue.exchange(3).stream.send_head(200, [])
    dialogue.exchange(5).stream.send_head(200, [])
    dialogue.exchange(5).stream.send_data(b"x", False)
    for stream in (1, 3, 5):
        dialogue.exchange(stream).stream.reset()
        dialogue.exchange(stream).stream.reset()
    events = dialogue.take()
    assert dialogue.resets == [(stream, INTERNAL_ERROR) for stream in (1, 3, 5)]
    assert [event.kind for event in events].count(HEADERS) == 1
    assert all(not dialogue.exchange(stream).resets for stream in (1, 3, 5))
    assert [call[1] for call in dialogue.owner.named("on_dropped")] == [1, 3, 5]


def test_what_is_reset_while_it_waits_leaves_nothing_behind(connect: Any) -> None:
    dialogue, stream = ask(connect, asks=((INITIAL_WINDOW_SIZE, 10),))
    dialogue.exchange().respond(b"x" * 100)
    dialogue.take()
    stream.reset()
    assert [event.kind for event in dialogue.take()] == [RST_STREAM]
    assert not dialogue.engine.streams and dialogue.exchange().over
    assert dialogue.grant(1, 1000) == []
    dialogue.assert_alive()


def test_a_cancelled_response_frees_its_turn(connect: Any) -> None:
    dialogue = connect(((INITIAL_WINDOW_SIZE, 1 << 20),))
    dialogue.send(dialogue.headers(1), dialogue.headers(3))
    for stream in (1, 3):
        dialogue.exchange(stream).respond(b"x" * 100_000)
    dialogue.take()
    dialogue.send(reset(1))
    dialogue.grant(0, 1 << 20)
    assert dialogue.reply(3).ended and not dialogue.reply(1).ended
    assert dialogue.engine.schedule.count == 0


def test_reset_of_what_is_complete_is_nothing(connect: Any) -> None:
    dialogue, stream = ask(connect)
    dialogue.exchange().respond()
    stream.reset()
    dialogue.take()
    assert not dialogue.resets and dialogue.reply().ended


def test_a_stream_error_in_mid_response_says_its_code(connect: Any) -> None:
    dialogue, stream = ask(connect)
    stream.send_head(200, [])
    dialogue.take()
    dialogue.grant(1, 0x7FFFFFFF - 65534)
    assert dialogue.resets == [(1, FLOW_CONTROL_ERROR)]
    with pytest.raises(LocalProtocolError):
        stream.send_data(b"x", True)


def test_a_request_may_be_answered_within_its_upcall(connect: Any) -> None:
    dialogue = connect(answer=lambda exchange: exchange.respond(b"now"))
    dialogue.send(dialogue.headers(1), dialogue.post(3), data(3, b"x", True))
    assert dialogue.reply(1).body == b"now" and dialogue.reply(3).body == b"now"
    assert not dialogue.engine.streams
    assert all(exchange.stream.handler is None for exchange in dialogue.owner.exchanges.values())


# ---------------------------------------------------------------- field blocks out


def test_a_head_over_16_kib_is_continued(connect: Any) -> None:
    """§4.3, §6.10: in frames that a peer takes, one after the other."""
    dialogue = connect()
    value = bytes(33 + n % 90 for n in range(45000))
    dialogue.send(dialogue.headers(1), dialogue.headers(3))
    dialogue.exchange(1).respond(b"body", 200, [(b"x-large", value)])
    dialogue.exchange(3).respond(b"", 200, [(b"x-large", value[::-1])])
    wire = b"".join(bytes(piece) for piece in dialogue.engine.take())
    found = []
    while wire:
        size = int.from_bytes(wire[:3], "big")
        found.append((wire[3], wire[4], wire[8]))
        wire = wire[9 + size :]
    assert found[0] == (HEADERS, 0, 1) and found[1] == (CONTINUATION, 0, 1)
    last = found.index((CONTINUATION, END_HEADERS, 1))
    assert found[last + 1] == (DATA, END_STREAM, 1)
    assert found[last + 2] == (HEADERS, END_STREAM, 3)
    assert found[-1] == (CONTINUATION, END_HEADERS, 3)


def test_a_head_over_16_kib_can_be_read(connect: Any) -> None:
    dialogue = connect()
    value = bytes(33 + n % 90 for n in range(45000))
    dialogue.send(dialogue.headers(1))
    dialogue.exchange().respond(b"body", 200, [(b"x-large", value)])
    dialogue.take()
    assert (b"x-large", value) in dialogue.reply().headers and dialogue.reply().body == b"body"


def test_trailers_over_16_kib_are_continued(connect: Any) -> None:
    dialogue, stream = ask(connect)
    stream.send_head(200, [], True)
    stream.send_data(b"x", True)
    stream.send_trailers([(b"x-large", b"#" * 40000)])
    dialogue.take()
    assert dialogue.reply().trailers == [(b"x-large", b"#" * 40000)]


@pytest.mark.parametrize("seed", range(30))
def test_blocks_are_written_in_the_order_they_were_encoded(connect: Any, seed: int) -> None:
    """RFC 7541 §2.2: heads wait for their content while others leave, blocks are remembered, and
    the table changes under them: `hpack` decodes them all."""
    rng = random.Random(seed)
    dialogue = connect(defaults=[(b"x-default", b"1")])
    streams: dict[int, dict[str, Any]] = {}
    number = -1
    for _ in range(150):
        choice = rng.randrange(9)
        if choice < 2 or not streams:
            number += 2
            dialogue.send(dialogue.headers(number))
            streams[number] = {"at": 0}
            continue
        at = rng.choice(list(streams))
        state = streams[at]
        stream = dialogue.exchange(at).stream
        value = b"%d" % rng.choice((1, 1, 1, 2, rng.randrange(50)))
        if choice == 2 and not state["at"]:
            stream.send_informational(103, [(b"link", value)])
        elif choice == 3 and rng.random() < 0.5:
            stream.reset()
            del streams[at]
        elif choice == 4:
            dialogue.take()
        elif choice == 5 and rng.random() < 0.3:
            dialogue.take()
            size = rng.choice((0, 100, 4096))
            dialogue.send(settings((1, size)))
        elif choice == 6 and rng.random() < 0.3:
            dialogue.engine.push(stream, b"http", b"/" + value, [(b"x-a", value)])
            dialogue.exchange(dialogue.engine._promised).respond(b"", 200, [(b"x-a", value)])
        elif state["at"] == 0:
            state["fields"] = [(b"x-a", value), (b"x-b", b"same")]
            state["trailers"] = rng.random() < 0.3
            stream.send_head(200, state["fields"], state["trailers"])
            state["at"] = 1
        elif state["at"] == 1:
            stream.send_data(b"" if rng.random() < 0.4 else b"x" * 100, True)
            state["at"] = 2
            if not state["trailers"]:
                del streams[at]
        else:
            stream.send_trailers([(b"x-t", value)])
            del streams[at]
    dialogue.take()
    for number_, reply in dialogue.replies.items():
        if reply.headers:
            assert reply.headers[0] == (b":status", b"200"), number_
            assert reply.headers[-1] == (b"x-default", b"1")
    assert CANCEL not in [code for _, code in dialogue.resets]
