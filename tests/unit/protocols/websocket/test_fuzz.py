"""Random conversations, against ourselves, against other libraries, and against noise.

Properties, whatever comes: `receive` never raises; the segments do not matter; after the end
nothing is delivered (`Recorder` checks that); what goes out is a series of whole frames. And
what two other libraries send, in any fragments, we read; what we send, they read.
"""

from __future__ import annotations

import random
import re
import zlib
from itertools import accumulate, pairwise
from typing import Any

import pytest
import wsproto.events
import wsproto.extensions
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.uri import parse_uri
from wsproto.connection import Connection, ConnectionType

from omnicorn.protocols.websocket.engine import CLOSED, OPEN

FIN, RSV1 = 0x80, 0x40
MORE, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

OFFERS = [
    "",
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits; server_max_window_bits=9",
    "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
]

texts = st.one_of(st.text(max_size=40), st.text("aä€😀", max_size=300))
contents = st.one_of(texts, st.binary(max_size=300), st.builds(bytes, st.integers(0, 3000)))
messages = st.lists(contents, max_size=6)
cuts = st.lists(st.integers(0, 4000), max_size=12)


def pieces(rng: random.Random, content: bytes) -> list[bytes]:
    """*content* in random fragments, some of them empty, at least one."""
    edges = sorted(rng.randrange(len(content) + 1) for _ in range(rng.choice((0, 0, 1, 2, 5))))
    edges = [0, *edges, len(content)]
    return [content[a:b] for a, b in pairwise(edges)]


def encoded(message: str | bytes) -> tuple[int, bytes]:
    return (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)


# ---------------------------------------------------------------- by hand


@given(messages, cuts, st.integers(0, 1 << 32), st.sampled_from(OFFERS))
def test_messages_come_through_any_fragments_keys_and_segments(
    connect: Any, wire: Any, cut: Any, sent: Any, where: Any, seed: int, offer: str
) -> None:
    rng = random.Random(seed)
    recorder = connect(1 << 16, offer, queue=rng.choice((None, 1, 2)))
    agreement = recorder.agreement
    deflater: Any = None
    frames: list[Any] = []
    pings: list[bytes] = []
    for message in sent:
        opcode, content = encoded(message)
        bits = 0
        if agreement is not None and rng.random() < 0.7:
            bits = RSV1
            if deflater is None or agreement.client_forgets:
                deflater = zlib.compressobj(6, zlib.DEFLATED, -max(9, agreement.client_bits))
            content = (deflater.compress(content) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
        parts = pieces(rng, content)
        for number, part in enumerate(parts):
            fin = FIN if number == len(parts) - 1 else 0
            frames.append((fin | (MORE if number else bits | opcode), part, rng.randbytes(4)))
            if rng.random() < 0.2:
                pings.append(rng.randbytes(rng.randrange(5)))
                frames.append((FIN | PING, pings[-1], rng.randbytes(4)))
    for segment in cut(wire(*frames), where):
        recorder.feed(segment)
        while recorder.engine.paused:
            recorder.drain()
    assert recorder.messages == sent
    assert recorder.taken() == b"".join(bytes([FIN | PONG, len(p)]) + p for p in pings)
    assert recorder.engine.state == OPEN


# ---------------------------------------------------------------- with other libraries


def websockets_client(agreement: Any) -> ClientProtocol:
    client = ClientProtocol(parse_uri("ws://a/"), state=State.OPEN)
    if agreement is not None:
        client.extensions = [
            PerMessageDeflate(
                remote_no_context_takeover=agreement.server_forgets,
                local_no_context_takeover=agreement.client_forgets,
                remote_max_window_bits=agreement.server_bits,
                local_max_window_bits=max(9, agreement.client_bits),
            )
        ]
    return client


def read_by_websockets(client: ClientProtocol) -> tuple[list[str | bytes], list[bytes]]:
    """Messages and pongs."""
    got: list[str | bytes] = []
    pongs: list[bytes] = []
    text, parts = False, b""
    for frame in client.events_received():
        assert not hasattr(frame, "status_code")
        if frame.opcode is Opcode.PONG:  # type: ignore[union-attr]
            pongs.append(bytes(frame.data))  # type: ignore[union-attr]
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):  # type: ignore[union-attr]
            if frame.opcode is not Opcode.CONT:  # type: ignore[union-attr]
                text, parts = frame.opcode is Opcode.TEXT, b""  # type: ignore[union-attr]
            parts += bytes(frame.data)  # type: ignore[union-attr]
            if frame.fin:  # type: ignore[union-attr]
                got.append(parts.decode() if text else parts)
    return got, pongs


@given(messages, messages, cuts, st.integers(0, 1 << 32), st.sampled_from(OFFERS))
def test_the_client_of_websockets_and_we_understand_each_other(
    connect: Any, cut: Any, theirs: Any, ours: Any, where: Any, seed: int, offer: str
) -> None:
    rng = random.Random(seed)
    recorder = connect(1 << 16, offer)
    client = websockets_client(recorder.agreement)
    pings: list[bytes] = []
    for message in theirs:
        opcode, content = encoded(message)
        first, *rest = pieces(rng, content)
        (client.send_text if opcode == TEXT else client.send_binary)(first, fin=not rest)
        for number, part in enumerate(rest):
            if rng.random() < 0.3:
                pings.append(b"%d" % len(pings))
                client.send_ping(pings[-1])
            client.send_continuation(part, fin=number == len(rest) - 1)
    recorder.feed(*cut(b"".join(client.data_to_send()), where))
    assert recorder.messages == theirs
    for message in ours:
        engine = recorder.engine
        (engine.send_text if isinstance(message, str) else engine.send_bytes)(message)
    recorder.engine.close(4000, "good bye")
    for segment in cut(recorder.taken(), where):
        client.receive_data(segment)
    got, pongs = read_by_websockets(client)
    assert (got, pongs) == (ours, pings)
    assert client.close_rcvd is not None
    assert (client.close_rcvd.code, client.close_rcvd.reason) == (4000, "good bye")
    recorder.feed(b"".join(client.data_to_send()))
    assert recorder.closed == (4000, "good bye")
    assert recorder.engine.state == CLOSED


@given(messages, messages, cuts, st.integers(0, 1 << 32), st.booleans())
def test_the_client_of_wsproto_and_we_understand_each_other(
    connect: Any, cut: Any, theirs: Any, ours: Any, where: Any, seed: int, compressed: bool
) -> None:
    rng = random.Random(seed)
    recorder = connect(1 << 16, OFFERS[1] if compressed else "")
    extensions: list[Any] = []
    if compressed:
        extension = wsproto.extensions.PerMessageDeflate()
        extension.finalize(recorder.agreement.answer.decode())
        extensions.append(extension)
    client = Connection(ConnectionType.CLIENT, extensions)
    data = b""
    for message in theirs:
        parts: list[Any] = pieces(rng, message) if isinstance(message, bytes) else [message]
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            kind = wsproto.events.BytesMessage if isinstance(part, bytes) else None
            event: Any = (kind or wsproto.events.TextMessage)(data=part, message_finished=last)
            data += client.send(event)
    recorder.feed(*cut(data, where))
    assert recorder.messages == theirs
    for message in ours:
        engine = recorder.engine
        (engine.send_text if isinstance(message, str) else engine.send_bytes)(message)
    got: list[Any] = []
    collected: Any = None
    for segment in cut(recorder.taken(), where):
        client.receive_data(segment)
        for got_event in client.events():
            assert isinstance(got_event, wsproto.events.Message)
            part = got_event.data if isinstance(got_event.data, str) else bytes(got_event.data)
            collected = part if collected is None else collected + part
            if got_event.message_finished:
                got.append(collected)
                collected = None
    assert got == ours


# ---------------------------------------------------------------- text, by another opinion

# RFC 3629 §4, as far as it has come: whole characters, then the beginning of one.
_T = rb"[\x80-\xbf]"
CHARACTER = (
    rb"[\0-\x7f]|[\xc2-\xdf]%b|\xe0[\xa0-\xbf]%b|[\xe1-\xec\xee\xef]%b{2}|\xed[\x80-\x9f]%b"
    rb"|\xf0[\x90-\xbf]%b{2}|[\xf1-\xf3]%b{3}|\xf4[\x80-\x8f]%b{2}" % ((_T,) * 7)
)
BEGINNING = (
    rb"[\xc2-\xdf]|\xe0[\xa0-\xbf]?|[\xe1-\xec\xee\xef]%b?|\xed(?:[\x80-\x9f]|[\xa0-\xbf])?"
    rb"|\xf0(?:[\x90-\xbf]%b?)?|[\xf1-\xf3]%b{0,2}|\xf4(?:[\x80-\x8f]%b?)?" % ((_T,) * 4)
)
# (CPython's decoder takes the second byte of a surrogate, and refuses the third.)
is_text = re.compile(rb"(?:%b)*" % CHARACTER).fullmatch
can_be_text = re.compile(rb"(?:%b)*(?:%b)?" % (CHARACTER, BEGINNING)).fullmatch

almost_text = st.lists(
    st.one_of(
        st.sampled_from([b"\xc3", b"\xe2\x82", b"\xed\xa0", b"\xf0\x9f\x98", b"\xf4\x8f", b"\x80"]),
        st.characters(codec="utf-8").map(str.encode),
        st.binary(min_size=1, max_size=2),
    ),
    max_size=8,
).map(b"".join)


@given(almost_text, st.integers(0, 1 << 32))
def test_text_is_refused_at_the_byte_that_cannot_be_text(
    connect: Any, wire: Any, content: bytes, seed: int
) -> None:
    prefixes = [content[:i] for i in range(1, len(content) + 1)]
    bad = next((len(p) for p in prefixes if not can_be_text(p)), None)
    # In one frame, byte by byte:
    data = wire((FIN | TEXT, content))
    recorder = connect()
    for at in range(len(data)):
        recorder.feed(data[at : at + 1])
        if bad is not None:
            assert (recorder.code == 1007) == (at >= 6 + bad - 1)
    assert recorder.code == (None if is_text(content) else 1007)
    # In fragments of random sizes:
    recorder = connect()
    parts = pieces(random.Random(seed), content)
    for number, (part, come) in enumerate(zip(parts, accumulate(map(len, parts)), strict=True)):
        last = number == len(parts) - 1
        recorder.get((FIN * last | (MORE if number else TEXT), part))
        failed = (bad is not None and come >= bad) or (last and not is_text(content))
        assert recorder.code == (1007 if failed else None)


# ---------------------------------------------------------------- noise

NOISE = [
    b"\x81\x80", b"\x82\xfe", b"\x82\xff", b"\x88\x80", b"\x89\x85", b"\x8a\x80", b"\x01\x82",
    b"\x80\x80", b"\x00\x81", b"\xc1\x87", b"\x41\x83", b"\xff", b"\x00", b"\x7f", b"\x7e",
    b"\x88\x82\x00\x00\x00\x00\x03\xe8", b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"\xed\xa0\x80",
]  # fmt: skip


def noise(rng: random.Random, wire: Any) -> bytes:
    """Frames, mostly legal, then damaged."""
    frames: list[Any] = []
    for _ in range(rng.randrange(1, 8)):
        kind = rng.random()
        if kind < 0.15:
            frames.append(rng.choice(NOISE))
        elif kind < 0.3:
            frames.append((FIN | rng.choice((PING, PONG)), rng.randbytes(rng.randrange(4)),
                           rng.randbytes(4)))  # fmt: skip
        elif kind < 0.35:
            frames.append((FIN | CLOSE, rng.choice((b"", b"\x03\xe8", b"\x03\xed", b"x"))))
        else:
            first = rng.choice((FIN | TEXT, FIN | BINARY, TEXT, BINARY, MORE, FIN | MORE,
                                FIN | RSV1 | TEXT, RSV1 | BINARY))  # fmt: skip
            content = rng.choice((b"", b"abc", b"\xc3", b"\xa4", NOISE[16], bytes(70)))
            frames.append((first, content, rng.randbytes(4)))
    out = bytearray(wire(*frames))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(3)
        if kind == 0:
            out[at : at + 1] = rng.randbytes(1)
        elif kind == 1:
            out[at:at] = rng.choice(NOISE)
        else:
            del out[at : at + rng.choice((1, 2, 5))]
    return bytes(out)


def assert_whole_frames(wire: bytes) -> None:
    """What goes out: pongs, then at most one close frame (RFC 6455 §5.5.1)."""
    at = 0
    closed = False
    while at < len(wire):
        assert not closed, "something behind a close frame"
        assert wire[at] in (FIN | PONG, FIN | CLOSE)
        assert wire[at + 1] <= 125
        closed = wire[at] == FIN | CLOSE
        at += 2 + wire[at + 1]
    assert at == len(wire)


def check(connect: Any, cut: Any, rng: random.Random, data: bytes) -> None:
    size, offer = rng.choice((0, 2, 60, 1000)), rng.choice((OFFERS[0], OFFERS[1]))
    whole = connect(size, offer).feed(data)
    outcome = whole.outcome()
    assert_whole_frames(outcome["wire"])
    assert (outcome["state"] == CLOSED) == (whole.closed is not None)
    if outcome["error"] is not None:
        assert outcome["error"][0] in (1002, 1007, 1009)
    where = [rng.randrange(len(data) + 1) for _ in range(4)]
    assert connect(size, offer).feed(*cut(data, where)).outcome() == outcome, data
    assert connect(size, offer).feed(*cut(data, range(len(data)))).outcome() == outcome, data
    slow = connect(size, offer, queue=1)
    for segment in cut(data, where):
        slow.feed(segment)
        while slow.engine.paused:
            slow.drain()
    assert slow.outcome() == outcome, data
    # An application gone mad: verbs at any time are refused or harmless.
    mad = connect(size, offer)
    for segment in cut(data, where):
        rng.choice((lambda: None, lambda: mad.engine.close(1000), lambda: mad.engine.ping(b"")))()
        mad.engine.blocked = rng.random() < 0.5
        mad.feed(segment)
    mad.engine.unblock()
    mad.flush()
    # The peer goes away in the middle of it.
    before = len(whole.calls)
    whole.engine.connection_lost()
    whole.feed(data)
    assert len(whole.calls) == before


@pytest.mark.parametrize("number", range(6))
def test_a_quick_round_of_noise(connect: Any, wire: Any, cut: Any, number: int) -> None:
    rng = random.Random(number)
    for _ in range(250):
        check(connect, cut, rng, noise(rng, wire))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(100, 130))
def test_a_long_round_of_noise(connect: Any, wire: Any, cut: Any, number: int) -> None:
    rng = random.Random(number)
    for _ in range(5000):
        check(connect, cut, rng, noise(rng, wire))


@given(st.binary(max_size=200), st.integers(0, 1 << 32))
def test_random_bytes_never_raise(connect: Any, cut: Any, data: bytes, seed: int) -> None:
    check(connect, cut, random.Random(seed), data)
