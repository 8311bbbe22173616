"""Each attack in `guards` ends in GOAWAY ENHANCE_YOUR_CALM, and no honest client does.

RFC 9113 §10.5. The clock stands still unless a test moves it: what is within a burst is always
allowed, and so is, in the long run, what is within the rate.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.http2_client import data, frame, number, reset, settings, window_update

from omnicorn.errors import Http2Error
from omnicorn.http.limits import Limits
from omnicorn.protocols.http2 import guards
from omnicorn.protocols.http2.blocks import EXPANSION
from omnicorn.protocols.http2.codes import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_UPDATE,
    REFUSED_STREAM,
    SETTINGS,
)
from omnicorn.protocols.http2.guards import Budget, Budgets, Guard

BLOCK = END_HEADERS | END_STREAM
PLAIN = b"\x82\x86\x84\x01\x01a"  # GET http://a/, without a word to the table


def ask(stream: int, end: bool = True) -> bytes:
    return frame(HEADERS, END_HEADERS | end, stream, PLAIN)


def spent(budget: Budget, now: float) -> int:
    """How often it can be spent at *now*."""
    count = 0
    try:
        while count < 1000:
            budget.spend(now)
            count += 1
    except Http2Error:
        pass
    return count


def flood(dialogue: Any, sent: bytes) -> int:
    """How often *sent* is taken before the connection ends."""
    count = 0
    while not dialogue.engine.closing and count < 20_000:
        dialogue.feed(sent)
        count += 1
    dialogue.take()
    return count


def assert_calmed(dialogue: Any, attack: str) -> None:
    dialogue.assert_dead(ENHANCE_YOUR_CALM)
    assert attack in dialogue.engine.error.reason
    assert len(dialogue.goaways) == 1


# ---------------------------------------------------------------- budgets


def test_a_budget_is_a_burst_and_a_rate() -> None:
    budget = Budget(Guard("x", 3, 2.0), 10.0)
    for _ in range(3):
        budget.spend(10.0)
    with pytest.raises(Http2Error) as info:
        budget.spend(10.0)
    assert info.value.code == ENHANCE_YOUR_CALM and "x" in info.value.reason
    budget = Budget(Guard("x", 3, 2.0), 10.0)
    for step in range(100):
        budget.spend(10.0 + step * 0.5)
    assert spent(budget, 60.0) <= 3


def test_a_pause_restores_no_more_than_the_burst() -> None:
    budget = Budget(Guard("x", 3, 2.0), 0.0)
    assert spent(budget, 0.0) == 3
    assert 3 <= spent(budget, 1000.0) <= 4
    assert spent(budget, 1001.0) <= 3


def test_budgets_do_not_share() -> None:
    budgets = Budgets()
    one, two = Guard("one", 1, 0.1), Guard("two", 1, 0.1)
    budgets.spend(one, 0.0)
    budgets.spend(two, 0.0)
    with pytest.raises(Http2Error, match="one"):
        budgets.spend(one, 0.0)


def test_every_guard_has_a_test_of_its_own() -> None:
    named = {name for name, value in vars(guards).items() if isinstance(value, Guard)}
    assert named == {
        "RAPID_RESET",
        "MADE_YOU_RESET",
        "REFUSED_STREAMS",
        "PING_FLOOD",
        "SETTINGS_FLOOD",
        "PRIORITY_FLOOD",
        "EMPTY_DATA",
        "DRIBBLED_UPLOAD",
        "LATE_DATA",
        "WINDOW_FLOOD",
        "TINY_WINDOW",
        "UNKNOWN_FRAMES",
    }


# ---------------------------------------------------------------- resets


def test_ten_thousand_rapid_resets(connect: Any) -> None:
    """CVE-2023-44487: bounded work, bounded applications, then the end."""
    for keeps, attack in ((False, "rapid reset"), (True, "beyond the limit")):
        dialogue = connect()
        dialogue.owner.keeps = keeps  # applications stop at once, or do not
        for stream in range(1, 20001, 2):
            dialogue.feed(ask(stream) + reset(stream))
        dialogue.take()
        assert_calmed(dialogue, attack)
        assert len(dialogue.owner.exchanges) <= 257 and dialogue.owner.most <= 128


def test_rapid_resets_while_nobody_answers_are_refused_before_they_are_over_budget(
    connect: Any,
) -> None:
    dialogue = connect(max_streams=10)
    dialogue.owner.keeps = True
    for stream in range(1, 201, 2):
        dialogue.feed(ask(stream) + reset(stream))
    dialogue.take()
    assert len(dialogue.owner.exchanges) == 10
    assert [code for _, code in dialogue.resets] == [REFUSED_STREAM] * 90


def test_a_browser_that_leaves_pages_cancels_what_it_had_open(connect: Any) -> None:
    """A hundred requests a page, every three seconds for a quarter of an hour."""
    dialogue = connect()
    stream = 1
    for _ in range(300):
        batch = range(stream, stream + 200, 2)
        dialogue.feed(b"".join(map(ask, batch)))
        dialogue.feed(b"".join(map(reset, batch)))
        stream += 200
        dialogue.now += 3.1
    dialogue.take()
    assert dialogue.engine.error is None and not dialogue.resets


@pytest.mark.parametrize(
    "provoke",
    [
        lambda stream: ask(stream, False) + window_update(stream, 0),
        lambda stream: ask(stream) + data(stream, b"x"),
        lambda stream: ask(stream) + ask(stream),
        lambda stream: ask(stream) + window_update(stream, 0x7FFFFFFF),
        lambda stream: ask(stream, False) + frame(PRIORITY, 0, stream, b"x"),
        lambda stream: frame(HEADERS, BLOCK, stream, b"\x82"),
        lambda stream: frame(HEADERS, BLOCK, stream, b"\x02\x07CONNECT\x01\x01a"),
        lambda stream: ask(stream, False) + frame(HEADERS, BLOCK, stream, b"\x82"),
    ],
    ids=["zero", "half-closed", "twice", "window", "size", "malformed", "refused", "trailers"],
)
def test_made_you_reset(connect: Any, provoke: Any) -> None:
    """CVE-2025-8671: the peer has us do the resetting, by whatever mistake."""
    dialogue = connect()
    dialogue.owner.keeps = True
    for stream in range(1, 20001, 2):
        dialogue.feed(provoke(stream))
        dialogue.now += 0.0001
    dialogue.take()
    assert_calmed(dialogue, "made-you-reset")
    assert len(dialogue.owner.exchanges) <= 130 and dialogue.owner.most <= 128


def test_made_you_reset_by_content_past_the_limit(connect: Any) -> None:
    dialogue = connect(limits=Limits(body=1))
    for stream in range(1, 20001, 2):
        dialogue.feed(ask(stream, False) + data(stream, b"xy", True))
    dialogue.take()
    assert_calmed(dialogue, "made-you-reset")
    assert len(dialogue.owner.exchanges) <= 130


def test_a_client_with_a_bug_now_and_then_goes_on(connect: Any) -> None:
    dialogue = connect()
    for stream in range(1, 2001, 2):
        dialogue.feed(frame(HEADERS, BLOCK, stream, b"\x82"))
        dialogue.now += 0.11
    dialogue.take()
    assert dialogue.engine.error is None and len(dialogue.resets) == 1000


def test_streams_beyond_the_limit(connect: Any) -> None:
    dialogue = connect(max_streams=1)
    dialogue.send(ask(1))
    for stream in range(3, 20003, 2):
        dialogue.feed(ask(stream))
    dialogue.take()
    assert_calmed(dialogue, "beyond the limit")
    assert len(dialogue.owner.exchanges) == 1


def test_a_client_that_has_not_read_our_settings_may_open_many_with_content(
    connect: Any,
) -> None:
    """§5.1.2, §8.7: those beyond the limit are refused, and may be tried again."""
    dialogue = connect(None, max_streams=100)
    streams = range(1, 1001, 2)
    opening = b"".join(ask(stream, False) for stream in streams)
    content = b"".join(data(stream, b"x" * 100, True) for stream in streams)
    dialogue.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", settings(), opening, content)
    assert len(dialogue.owner.exchanges) == 100
    assert dialogue.resets == [(stream, REFUSED_STREAM) for stream in streams[100:]]
    for exchange in tuple(dialogue.owner.exchanges.values()):
        assert exchange.body == b"x" * 100
        exchange.respond()
    dialogue.take()
    dialogue.assert_alive()


# ---------------------------------------------------------------- field blocks


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_continuation_flood(connect: Any, size: int) -> None:
    """CVE-2024-27316: without end, of frames however small."""
    dialogue = connect()
    dialogue.send(frame(HEADERS, END_STREAM, 1, PLAIN))
    flood(dialogue, frame(CONTINUATION, 0, 1, b"\0" * size))
    assert_calmed(dialogue, "CONTINUATION flood")
    assert not dialogue.owner.exchanges


def test_a_continuation_flood_of_large_frames_is_not_kept(connect: Any) -> None:
    dialogue = connect()
    dialogue.send(frame(HEADERS, END_STREAM, 1, b"\0" * 16384))
    assert flood(dialogue, frame(CONTINUATION, 0, 1, b"\0" * 16384)) <= 4 * EXPANSION
    assert_calmed(dialogue, "CONTINUATION flood")


def test_a_large_request_may_be_continued(connect: Any) -> None:
    """A head of 60 KB, as cookies and tokens make it."""
    dialogue = connect()
    block = dialogue.block("/", *((f"x-{n}", "y" * 1900) for n in range(32)))
    dialogue.send(frame(HEADERS, END_STREAM, 1, block[:16384]))
    rest = [block[at : at + 16384] for at in range(16384, len(block), 16384)]
    for piece in rest[:-1]:
        dialogue.send(frame(CONTINUATION, 0, 1, piece))
    dialogue.send(frame(CONTINUATION, END_HEADERS, 1, rest[-1]))
    assert len(dialogue.exchange().head.headers) == 33


def test_an_hpack_bomb_is_answered_431_before_it_is_expanded(connect: Any) -> None:
    """§10.5.1: a byte for each copy of a large entry; the tables go on."""
    dialogue = connect()
    entry = dialogue.encoder.encode([("x-bomb", "y" * 4000)])
    dialogue.send(frame(HEADERS, BLOCK, 1, PLAIN + entry + b"\xbe" * 12000))
    assert dialogue.reply().status == 431 and dialogue.reply().ended
    assert not dialogue.owner.exchanges
    dialogue.assert_alive()


@pytest.mark.parametrize("stream", [1, 3])
def test_a_list_that_is_too_large_is_answered_431(connect: Any, stream: int) -> None:
    """RFC 6585 §5; those after it are not."""
    dialogue = connect(limits=Limits(head=4000))
    dialogue.send(dialogue.headers(stream, "/", ("x", "y" * 3900)))
    assert dialogue.reply(stream).status == 431
    dialogue.send(dialogue.headers(stream + 2, "/", ("x", "z" * 3000)))
    assert stream + 2 in dialogue.owner.exchanges


def test_many_bombs_end_the_connection(connect: Any) -> None:
    dialogue = connect()
    entry = dialogue.encoder.encode([("x-bomb", "y" * 4000)])
    dialogue.send(frame(HEADERS, BLOCK, 1, PLAIN + entry))
    for stream in range(3, 2003, 2):
        dialogue.feed(frame(HEADERS, BLOCK, stream, PLAIN + b"\xbe" * 1000))
        if dialogue.engine.closing:
            break
    dialogue.take()
    assert_calmed(dialogue, "made-you-reset")


# ---------------------------------------------------------------- control frames


@pytest.mark.parametrize(
    ("sent", "attack", "most"),
    [
        (frame(PING, 0, 0, b"12345678"), "PING flood", 101),
        (settings((INITIAL_WINDOW_SIZE, 1)), "SETTINGS flood", 51),
        (frame(SETTINGS), "SETTINGS flood", 51),
        (frame(PRIORITY, 0, 3, number(1) + b"\0"), "PRIORITY flood", 1001),
        (frame(PRIORITY_UPDATE, 0, 0, number(3) + b"u=1"), "PRIORITY flood", 1001),
        (frame(0x42, 0, 0, b"?"), "unknown", 1001),
        (window_update(0, 1), "WINDOW_UPDATE flood", 1001 + 1),
        (window_update(1, 1), "WINDOW_UPDATE flood", 1001 + 1),
    ],
    ids=lambda value: f"type {value[3]}" if isinstance(value, bytes) else None,
)
def test_a_flood_of_control_frames(connect: Any, sent: bytes, attack: str, most: int) -> None:
    """CVE-2019-9512, -9513, -9515: the answers to them are bounded as well."""
    dialogue = connect()
    dialogue.send(ask(1, False))
    assert flood(dialogue, sent) == most
    assert_calmed(dialogue, attack)
    assert len(dialogue.wire) < 20_000


def test_an_honest_client_pings_changes_its_mind_and_reprioritises(connect: Any) -> None:
    """A PING and a SETTINGS each second for twenty minutes, gRPC's probes; priorities too."""
    dialogue = connect()
    dialogue.send(ask(1, False))
    for second in range(1200):
        dialogue.feed(
            frame(PING, 0, 0, b"12345678")
            + settings((INITIAL_WINDOW_SIZE, 65535 + second))
            + frame(PRIORITY_UPDATE, 0, 0, number(1) + b"u=1, i") * 20
            + frame(PRIORITY, 0, 1, number(0) + b"\0") * 20
            + frame(0x42) * 20
        )
        dialogue.now += 1.0
    dialogue.take()
    assert dialogue.engine.error is None


def test_empty_data(connect: Any) -> None:
    """CVE-2019-9518"""
    for sent in (frame(DATA, 0, 1), frame(DATA, PADDED, 1, b"\0")):
        dialogue = connect()
        dialogue.send(ask(1, False))
        for _ in range(200):
            dialogue.feed(sent)
        dialogue.take()
        assert_calmed(dialogue, "empty DATA")


@pytest.mark.parametrize("padding", [1, 3, 4, 50, 255])
def test_data_of_nothing_but_padding_is_empty(connect: Any, padding: int) -> None:
    """CVE-2019-9518: padding brings nobody further."""
    dialogue = connect()
    dialogue.send(ask(1, False))
    for _ in range(200):
        dialogue.feed(frame(DATA, PADDED, 1, bytes((padding,)) + bytes(padding)))
    dialogue.take()
    assert_calmed(dialogue, "empty DATA")


def test_dribbled_uploads(connect: Any) -> None:
    """A byte a frame, as fast as it goes."""
    dialogue = connect()
    dialogue.send(ask(1, False))
    segment = frame(DATA, 0, 1, b"x") * 1000
    for _ in range(12):
        dialogue.feed(segment)
    dialogue.take()
    assert_calmed(dialogue, "dribbled uploads")


def test_small_messages_are_no_dribble(connect: Any) -> None:
    """gRPC's least is five bytes; a person types a few a second; each upload ends as it may."""
    dialogue = connect()
    dialogue.send(ask(1, False), ask(3, False))
    segment = frame(DATA, 0, 1, b"\0\0\0\0\0") * 1000
    for _ in range(30):
        dialogue.feed(segment)
        dialogue.feed(frame(DATA, 0, 3, b"x") * 10)
        dialogue.now += 0.1
    for stream in range(5, 4005, 2):
        dialogue.feed(ask(stream, False) + frame(DATA, END_STREAM, stream))
        dialogue.exchange(stream).respond(b"")
    dialogue.take()
    assert dialogue.engine.error is None


def test_a_websocket_may_say_little_and_often(connect: Any) -> None:
    """RFC 8441: a message in two frames of HTTP/2, as some clients do."""
    dialogue = connect()
    more = ((":protocol", "websocket"),)
    dialogue.send(dialogue.headers(1, "/", method="CONNECT", more=more, end=False))
    dialogue.exchange().stream.send_head(200, [])
    segment = frame(DATA, 0, 1, b"\x81\x81") * 1000
    for _ in range(30):
        dialogue.feed(segment)
    dialogue.take()
    assert dialogue.engine.error is None


def test_data_on_closed_streams(connect: Any) -> None:
    dialogue = connect()
    dialogue.send(ask(1, False))
    dialogue.exchange().stream.reset()
    for _ in range(1100):
        dialogue.feed(frame(DATA, 0, 1, b"x"))
    dialogue.take()
    assert_calmed(dialogue, "DATA on closed streams")


def test_what_was_under_way_for_a_stream_that_we_reset_is_no_attack(connect: Any) -> None:
    """A window of it, in frames of 1 KiB, for each of a few streams."""
    dialogue = connect(stream_window=256 << 10)
    for stream in (1, 3, 5):
        dialogue.send(ask(stream, False))
        dialogue.exchange(stream).stream.reset()
        for _ in range(256):
            dialogue.feed(frame(DATA, 0, stream, b"x" * 1024))
    dialogue.take()
    assert dialogue.engine.error is None


# ---------------------------------------------------------------- windows


def test_window_updates_of_a_reader_are_no_flood(connect: Any) -> None:
    """Two for each DATA frame, for as long as it likes; one for each request without content,
    as Firefox does."""
    dialogue = connect()
    dialogue.send(ask(1))
    stream = dialogue.exchange().stream
    stream.send_head(200, [])
    for _ in range(5000):
        stream.send_data(b"x" * 100, False)
        dialogue.take()
        dialogue.feed(window_update(0, 100) + window_update(1, 100))
    for number_ in range(3, 10003, 2):
        dialogue.feed(ask(number_) + window_update(number_, 100_000))
        dialogue.exchange(number_).respond(b"", 304)
    dialogue.take()
    assert dialogue.engine.error is None


def test_tiny_windows(connect: Any) -> None:
    """CVE-2019-9511, data dribble: a byte at a time, of a large response."""
    dialogue = connect(((INITIAL_WINDOW_SIZE, 0),))
    dialogue.send(ask(1))
    dialogue.exchange().respond(b"x" * 100_000)
    assert flood(dialogue, window_update(1, 1)) == 1001
    assert_calmed(dialogue, "tiny windows")
    assert dialogue.exchange().resets and dialogue.exchange().over


def test_tiny_windows_by_the_connections_window(connect: Any) -> None:
    dialogue = connect(((INITIAL_WINDOW_SIZE, 1 << 20),))
    dialogue.send(ask(1))
    dialogue.exchange().respond(b"x" * 200_000)
    dialogue.take()
    for _ in range(1200):
        dialogue.feed(window_update(0, 1))
    dialogue.take()
    assert_calmed(dialogue, "tiny windows")


def test_tiny_windows_by_settings(connect: Any) -> None:
    """Each SETTINGS opens the windows of all streams by a byte."""
    dialogue = connect(((INITIAL_WINDOW_SIZE, 0),))
    for stream in range(1, 201, 2):
        dialogue.send(ask(stream))
        dialogue.exchange(stream).respond(b"x" * 1000)
    for value in range(1, 60):
        dialogue.now += 0.01
        dialogue.feed(settings((INITIAL_WINDOW_SIZE, value)))
    dialogue.take()
    assert_calmed(dialogue, "tiny windows")


def test_zero_windows_hold_nothing_for_ever(connect: Any) -> None:
    """CVE-2019-9517, internal data buffering: the windows stay shut, with a lot to send."""
    dialogue = connect(((INITIAL_WINDOW_SIZE, 0),))
    for stream in range(1, 257, 2):
        dialogue.send(ask(stream))
        dialogue.exchange(stream).respond(b"x" * 1000)
    dialogue.take()
    dialogue.after(61.0)
    dialogue.take()
    assert len(dialogue.resets) == 128 and not dialogue.engine.streams


def test_a_slow_reader_with_a_small_window_is_no_attack(connect: Any) -> None:
    """Windows of a few hundred bytes, a packet at a time."""
    dialogue = connect(((INITIAL_WINDOW_SIZE, 512),))
    for stream in range(1, 21, 2):
        dialogue.send(ask(stream))
        dialogue.exchange(stream).respond(b"x" * 20_000)
        for _ in range(50):
            dialogue.now += 0.01
            dialogue.send(window_update(0, 400), window_update(stream, 400))
        assert dialogue.reply(stream).ended
    assert dialogue.engine.error is None


def test_the_end_of_what_was_large_may_be_small(connect: Any) -> None:
    """Not the window cuts it, but its end."""
    dialogue = connect()
    for stream in range(1, 3001, 2):
        dialogue.feed(ask(stream))
        dialogue.exchange(stream).respond(b"x" * 16390)
        dialogue.feed(window_update(0, 16390))
        dialogue.take()
    assert dialogue.engine.error is None


def test_a_busy_honest_client_never_comes_near(connect: Any) -> None:
    """Ten thousand requests in a second, with uploads, cookies, and acknowledgements."""
    dialogue = connect(answer=lambda exchange: exchange.respond(b"x" * 100))
    for stream in range(1, 20001, 2):
        if stream % 5:
            dialogue.feed(ask(stream))
        else:
            dialogue.feed(ask(stream, False) + data(stream, b"y" * 500, True))
        if stream % 100 == 1:
            dialogue.feed(frame(SETTINGS, ACK) + window_update(0, 5000))
            dialogue.take()
        dialogue.now += 0.0001
    dialogue.take()
    assert dialogue.engine.error is None and not dialogue.resets
    assert len(dialogue.owner.exchanges) == 10_000
