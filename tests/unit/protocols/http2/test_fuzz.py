"""However the bytes are cut, the same comes of them; and whatever they are, nothing is raised.

`DIALOGUES` are recorded conversations of a client; each is fed whole, byte by byte, and cut in two
at every place. Soup is random frames, most of them nearly right. Rounds are seeded by number: a
failure names its round, which is its own repeat.
"""

from __future__ import annotations

import random
from typing import Any

import hpack
import pytest
from tests.http2_client import data, frame, number, reset, settings, window_update

from omnicorn.errors import LocalProtocolError
from omnicorn.http.limits import Limits
from omnicorn.protocols.http2.codes import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_UPDATE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)

BLOCK = END_HEADERS | END_STREAM
TIGHT = Limits(line=64, head=400, fields=5, body=60)


class Client:
    """Writes one side of a conversation."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()

    def ask(
        self, stream: int, *fields: tuple[str, str], end: bool = True, path: str = "/"
    ) -> bytes:
        block = self.encoder.encode(
            [
                (":method", "GET" if end else "POST"),
                (":scheme", "http"),
                (":authority", "a"),
                (":path", path),
                *fields,
            ]
        )
        return frame(HEADERS, END_HEADERS | end, stream, block)


def _requests(client: Client) -> bytes:
    return b"".join(client.ask(stream, path=f"/{stream}") for stream in (1, 3, 5)) + client.ask(7)


def _uploads(client: Client) -> bytes:
    return (
        client.ask(1, ("content-length", "5"), end=False)
        + client.ask(3, end=False)
        + data(1, b"ab")
        + frame(DATA, PADDED, 3, b"\x03x\0\0\0")
        + data(1, b"cde", True)
        + frame(HEADERS, BLOCK, 3, client.encoder.encode([("x-t", "1")]))
    )


def _blocks(client: Client) -> bytes:
    one = client.ask(1, ("x-long", "y" * 50))[9:]
    two = client.ask(3, ("x-long", "y" * 50))[9:]
    return (
        frame(HEADERS, END_STREAM, 1, one[:10])
        + frame(CONTINUATION, 0, 1)
        + frame(CONTINUATION, END_HEADERS, 1, one[10:])
        + frame(
            HEADERS, BLOCK | PADDED | HAS_PRIORITY, 3, b"\x04" + number(1) + b"\0" + two + bytes(4)
        )
    )


def _control(client: Client) -> bytes:
    return (
        frame(PING, 0, 0, b"12345678")
        + settings((INITIAL_WINDOW_SIZE, 10), (3, 5))
        + client.ask(1, end=False)
        + window_update(1, 1)
        + frame(0x42, 1, 9, b"unknown")
        + frame(PRIORITY_UPDATE, 0, 0, number(3) + b"u=1")
        + settings((INITIAL_WINDOW_SIZE, 100))
        + client.ask(3)
        + frame(SETTINGS, ACK)
    )


def _windows(client: Client) -> bytes:
    return (
        settings((INITIAL_WINDOW_SIZE, 1))
        + client.ask(1)
        + client.ask(3)
        + window_update(3, 1)
        + client.ask(5)
        + settings((INITIAL_WINDOW_SIZE, 0))
        + client.ask(7)
        + window_update(7, 1)
        + settings((INITIAL_WINDOW_SIZE, 2))
    )


def _cancelled(client: Client) -> bytes:
    return (
        client.ask(1, end=False) + reset(1) + data(1, b"late") + window_update(1, 5)
        + client.ask(3, end=False) + window_update(3, 0) + data(3, b"late", True) + client.ask(5)
    )  # fmt: skip


def _malformed(client: Client) -> bytes:
    return (
        frame(HEADERS, BLOCK, 1, b"\x82")
        + frame(HEADERS, BLOCK, 3, b"\x02\x07CONNECT\x01\x01a")
        + client.ask(5, ("content-length", "3"), end=False)
        + data(5, b"ab", True)
        + client.ask(7)
    )


def _goaway(client: Client) -> bytes:
    bye = frame(GOAWAY, 0, 0, number(0) + number(0) + b"bye")
    return client.ask(1) + bye + client.ask(3)


def _broken(client: Client) -> bytes:
    return client.ask(1) + frame(PING, 0, 1, b"12345678") + client.ask(3)


def _too_large(client: Client) -> bytes:
    return client.ask(1) + b"\xff\xff\xff\0\0\0\0\0\x01" + client.ask(3)


def _interrupted(client: Client) -> bytes:
    return client.ask(1)[:-1] + b"\0" + frame(HEADERS, 0, 3, b"\x82") + client.ask(5)


def _undecodable(client: Client) -> bytes:
    return client.ask(1) + frame(HEADERS, BLOCK, 3, b"\xff\xff\xff") + client.ask(5)


def _reused(client: Client) -> bytes:
    return client.ask(5) + client.ask(3) + client.ask(7)


DIALOGUES = [
    _requests, _uploads, _blocks, _control, _cancelled, _malformed, _goaway, _broken, _too_large,
    _interrupted, _undecodable, _reused,
]  # fmt: skip


def outcome(dialogue: Any) -> tuple[Any, ...]:
    return (
        dialogue.owner.calls,
        [(event.kind, event.flags, event.stream, event.payload) for event in dialogue.events],
        dialogue.engine.closing,
        sorted(dialogue.engine.streams),
        {stream: exchange.body for stream, exchange in dialogue.owner.exchanges.items()},
    )


def by_stream(dialogue: Any) -> tuple[Any, ...]:
    """What waits for a window leaves when a segment is read: only the streams' order is fixed."""
    return (
        [(stream, vars(reply)) for stream, reply in sorted(dialogue.replies.items())],
        [call for call in dialogue.owner.calls if call[0] == "on_request"],
        dialogue.goaways,
        dialogue.engine.closing,
    )


def play(connect: Any, pieces: list[bytes], **how: Any) -> Any:
    dialogue = connect(None, answer=lambda exchange: exchange.respond(b"ok"), **how)
    for piece in pieces:
        dialogue.feed(piece)
    dialogue.take()
    return dialogue


@pytest.mark.parametrize("limits", [Limits(), TIGHT], ids=["wide", "tight"])
@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_however_the_bytes_are_cut_the_same_comes_of_them(
    connect: Any, dialogue: Any, limits: Limits
) -> None:
    wire = PREFACE + settings() + dialogue(Client())
    want = outcome(play(connect, [wire], limits=limits))
    assert (
        outcome(play(connect, [wire[i : i + 1] for i in range(len(wire))], limits=limits)) == want
    )
    for cut in range(1, len(wire)):
        assert outcome(play(connect, [wire[:cut], wire[cut:]], limits=limits)) == want, cut


@pytest.mark.parametrize("seed", range(8))
def test_cuts_in_threes_and_fours(connect: Any, seed: int) -> None:
    rng = random.Random(seed)
    wire = PREFACE + settings() + DIALOGUES[seed % len(DIALOGUES)](Client())
    want = outcome(play(connect, [wire]))
    for _ in range(30):
        cuts = sorted(rng.randrange(len(wire)) for _ in range(rng.randrange(2, 8)))
        pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
        assert outcome(play(connect, pieces)) == want, cuts


def test_windows_are_obeyed_however_the_bytes_are_cut(connect: Any) -> None:
    wire = PREFACE + settings() + _windows(Client())
    whole = play(connect, [wire])
    assert [whole.reply(stream).body for stream in (1, 3, 5, 7)] == [b"ok"] * 4
    want = by_stream(whole)
    assert by_stream(play(connect, [wire[i : i + 1] for i in range(len(wire))])) == want
    for cut in range(1, len(wire)):
        assert by_stream(play(connect, [wire[:cut], wire[cut:]])) == want, cut


def test_every_dialogue_says_something(connect: Any) -> None:
    """Else the tests above would hold for nothing."""
    ends = [
        play(connect, [PREFACE + settings() + dialogue(Client())]).engine.error is not None
        for dialogue in DIALOGUES
    ]
    assert ends == [False] * 7 + [True] * 5


# ---------------------------------------------------------------- soup


def block(rng: random.Random, encoder: hpack.Encoder, request: bool) -> bytes:
    fields = [(f"x-{rng.randrange(9)}", "v" * rng.randrange(30)) for _ in range(rng.randrange(4))]
    if request:
        method = rng.choice(("GET", "POST", "POST", "PUT", "HEAD") * 5 + ("CONNECT", "get"))
        fields[:0] = [
            (":method", method),
            (":scheme", "http"),
            (":path", rng.choice("/////////*x")),
        ]
        if rng.random() < 0.8:
            fields.insert(0, (":authority", "a"))
        if rng.random() < (0.5 if method == "CONNECT" else 0.01):
            fields.insert(0, (":protocol", "websocket"))
        if rng.random() < 0.2:
            fields.append(("content-length", str(rng.randrange(40))))
        if rng.random() < 0.1:
            fields.append(("expect", "100-continue"))
        if rng.random() < 0.2:
            fields.append(("priority", rng.choice(("u=0", "u=7, i", "?"))))
    if rng.random() < 0.003:
        return rng.randbytes(rng.randrange(20))
    return encoder.encode(fields)


def soup(rng: random.Random, encoder: hpack.Encoder, last: int) -> tuple[bytes, int]:
    """A frame, and the last stream that was opened by then."""
    stream = rng.choice((last, last, last, max(last - 2, 1)))
    wild = rng.random() < 0.004
    if wild:
        stream = rng.randrange(last + 4)
    kind = rng.choice((
        HEADERS, HEADERS, HEADERS, HEADERS, DATA, DATA, DATA, RST_STREAM, WINDOW_UPDATE,
        WINDOW_UPDATE, SETTINGS, PING, PRIORITY, PRIORITY_UPDATE, CONTINUATION, GOAWAY,
        PUSH_PROMISE, 0x42,
    ))  # fmt: skip
    flags = rng.choice((0, END_STREAM, END_STREAM, BLOCK, END_HEADERS))
    if kind == HEADERS:
        if rng.random() < 0.9:
            last += 2
        stream = last
        payload = block(rng, encoder, stream == last)
        flags |= END_HEADERS if rng.random() < 0.8 else 0
        if rng.random() < 0.1:
            flags |= HAS_PRIORITY
            payload = number(0) + b"\0" + payload
        if rng.random() < 0.1:
            flags |= PADDED
            payload = b"\x02" + payload + b"\0\0"
        if not flags & END_HEADERS and not wild:
            cut = rng.randrange(len(payload) + 1)
            head = frame(kind, flags, stream, payload[:cut])
            return head + frame(CONTINUATION, END_HEADERS, stream, payload[cut:]), last
    elif kind == DATA:
        payload = b"x" * rng.choice((0, 1, 10, 100, 3000))
        if rng.random() < 0.2:
            flags |= PADDED
            payload = b"\x03" + payload + bytes(3)
    elif kind in (RST_STREAM, WINDOW_UPDATE):
        payload = number(rng.choice((1, 5, 100, 1000, 10_000, CANCEL)))
        if kind == WINDOW_UPDATE and rng.random() < 0.3:
            stream = 0
        elif rng.random() < 0.05:
            payload = number(rng.choice((0, 0x7FFFFFFF, 0xFFFFFFFF)))
    elif kind == SETTINGS:
        stream = 0
        flags &= ACK
        value = rng.choice((0, 1, 100, 4096, 16384, 1 << 20)) if not wild else 1 << 31
        payload = settings((rng.choice((1, 3, 4, 4, 4, 6, 99)), value))[9:]
        payload = b"" if flags & ACK else payload
    elif kind == PING:
        stream, payload = 0, rng.randbytes(8)
    elif kind == PRIORITY_UPDATE:
        stream = 0
        payload = number(max(last + rng.choice((0, 2, -2, 4)), 1)) + rng.choice(
            (b"u=1", b"i", b"", b"\xff")
        )
    elif kind == GOAWAY:
        if not wild:
            return b"", last
        stream, payload = 0, bytes(8)
    elif kind in (CONTINUATION, PUSH_PROMISE):
        if not wild:
            return b"", last
        payload = b"\x82"
    else:
        payload = rng.randbytes(5)
    if wild:
        payload = payload[:-1]
    return frame(kind, flags, stream, payload), last


def act(rng: random.Random, exchange: Any) -> None:
    """What an application might do next, be it right or wrong."""
    stream = exchange.stream
    try:
        verb = rng.randrange(10)
        if verb == 0:
            stream.reset()
        elif verb == 1:
            stream.send_continue()
        elif verb == 2:
            stream.send_informational(103, [])
        elif verb == 3:
            stream.send_data(b"x" * rng.choice((0, 1, 20_000, 70_000)), rng.random() < 0.3)
        elif verb == 4:
            stream.send_data(b"", True)
        elif verb == 5:
            stream.send_trailers([(b"x-t", b"1")] if rng.random() < 0.5 else [])
        elif verb == 6:
            stream.consumed(min(rng.randrange(5000), stream.unread))
        elif verb == 7:
            engine = exchange.owner.engine
            if engine.streams:
                engine.push(stream, b"http", b"/pushed", [])
        else:
            stream.send_head(rng.choice((200, 200, 204, 304)), [], rng.random() < 0.2)
    except LocalProtocolError:
        pass


def answer(rng: random.Random, exchange: Any) -> None:
    try:
        exchange.respond(b"x" * rng.choice((0, 10, 100_000)))
    except LocalProtocolError:
        pass  # it has done something else before


def check_soup(connect: Any, seed: int) -> None:
    rng = random.Random(seed)
    limits = rng.choice((Limits(), TIGHT))
    dialogue = connect(None, limits=limits, max_streams=rng.choice((3, 128)))
    owner, engine = dialogue.owner, dialogue.engine
    owner.eager = rng.random() < 0.5
    owner.keeps = rng.random() < 0.2
    if rng.random() < 0.3:
        owner.answer = lambda exchange: answer(rng, exchange)
    encoder = dialogue.encoder
    last = 1
    wire = PREFACE + settings() + dialogue.headers(1)
    for _ in range(rng.choice((20, 60, 200))):
        more, last = soup(rng, encoder, last)
        wire += more
        if rng.random() < 0.3:
            cut = rng.randrange(len(wire) + 1)
            dialogue.feed(wire[:cut])
            wire = wire[cut:]
        if owner.exchanges and rng.random() < 0.6:
            act(rng, owner.exchanges[rng.choice(list(owner.exchanges))])
        if rng.random() < 0.2:
            dialogue.take()
        if rng.random() < 0.03:
            dialogue.feed(wire)
            wire = b""
            dialogue.after(rng.choice((1.0, 1.0, 1.0, 10.0, 40.0, 100.0)))
        if rng.random() < 0.005:
            engine.refuse_more()
        dialogue.now += rng.random() * 0.05
    dialogue.feed(wire)
    if rng.random() < 0.3:
        engine.receive_eof()
    dialogue.take()
    # The books agree: what a client may send is what the engine allows.
    if engine.error is None and not engine.closing:
        assert dialogue.room[0] == engine._room
        unread = sum(s.unread for s in engine.streams.values() if s.handler is not None)
        assert engine._room + engine._credit + unread == engine.settings.window + engine._lent
        for stream in engine.streams.values():
            assert stream.remote_ended or stream.room >= 0
    if engine.closing:
        calls = len(owner.calls)
        dialogue.feed(frame(PING, 0, 0, bytes(8)))
        assert len(owner.calls) == calls and not dialogue.take()
    dialogue.lose()
    assert not engine.streams
    for exchange in owner.exchanges.values():
        assert exchange.over, "an exchange that nobody ended"
        act(rng, exchange)
    assert engine.out == [] or engine.pending


@pytest.mark.parametrize("seed", range(60))
def test_whatever_the_frames_are_nothing_is_raised_and_every_exchange_ends(
    connect: Any, seed: int
) -> None:
    check_soup(connect, seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 11000, 500))
def test_a_lot_of_soup(connect: Any, start: int) -> None:
    for seed in range(start, start + 500):
        check_soup(connect, seed)


@pytest.mark.parametrize("seed", range(30))
def test_random_bytes_after_the_preface_are_survived(connect: Any, seed: int) -> None:
    rng = random.Random(seed)
    dialogue = connect()
    for _ in range(50):
        head = bytes((0, 0, rng.randrange(30), rng.randrange(20), rng.randrange(256)))
        dialogue.feed(head + number(rng.randrange(8)) + rng.randbytes(rng.randrange(30)))
    dialogue.take()
    dialogue.lose()


@pytest.mark.parametrize("seed", range(40))
def test_a_conversation_with_a_byte_that_changed_is_survived(connect: Any, seed: int) -> None:
    rng = random.Random(seed)
    wire = bytearray(PREFACE + settings() + rng.choice(DIALOGUES)(Client()))
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(24, len(wire))
        kind = rng.randrange(3)
        if kind == 0:
            wire[at] = rng.randrange(256)
        elif kind == 1:
            del wire[at]
        else:
            wire[at:at] = rng.randbytes(rng.randrange(1, 10))
    whole = play(connect, [bytes(wire)])
    parts = play(connect, [bytes(wire[at : at + 7]) for at in range(0, len(wire), 7)])
    assert by_stream(whole)[1:] == by_stream(parts)[1:]
