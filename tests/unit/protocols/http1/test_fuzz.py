"""Mutated and random bytes: `receive` never raises, and every rule holds whatever comes.

The seeds are the corpus, so that a mutation is one step away from something that once fooled
a server. Rounds are seeded by number: a failure names its round, which is its own repeat.
"""

from __future__ import annotations

import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from omnicorn.errors import LocalProtocolError
from omnicorn.http.limits import Limits
from omnicorn.protocols.http1 import RequestParser, ResponseEncoder
from omnicorn.protocols.http1.states import CLOSED

NOW, LATER = 1, 2
CORPUS = Path(__file__).parents[3] / "corpus" / "http1"
SEEDS = [data for path in sorted(CORPUS.glob("*/*.http")) if len(data := path.read_bytes()) < 1500]

BITS = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"\0", b":", b";", b",", b"0", b"1", b"\xff",
    b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"HTTP/1.1",
    b"Host: b\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"chunked", b"\x0b", b"\x85", b"#", b"%",
    b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"http://b", b"\x7f", b"-", b"+", b"_",
]  # fmt: skip

TIGHT = Limits(line=64, head=160, fields=5, body=12)


def mutate(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(7)
        if kind == 0 and out:
            out[min(at, len(out) - 1)] = rng.randrange(256)
        elif kind == 1:
            out[at:at] = rng.choice(BITS)
        elif kind == 2:
            del out[at : at + rng.choice((1, 1, 2, 5))]
        elif kind == 3:
            size = rng.randrange(1, 20)
            out[at:at] = out[at : at + size]
        elif kind == 4:
            other = rng.choice(SEEDS)
            out[at:] = other[rng.randrange(len(other)) :]
        elif kind == 5:
            out[at : at + 1] = rng.choice(BITS)
        else:
            lines = bytes(out).split(b"\r\n")
            i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[i], lines[j] = lines[j], lines[i]
            out = bytearray(b"\r\n".join(lines))
    return bytes(out)


def random_cuts(rng: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(6)))
    edges = [0, *cuts, len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


RESPONSE = re.compile(
    rb"HTTP/1\.1 [2-5][0-9][0-9] [A-Za-z ]+\r\n(?:[a-z-]+: [^\r\n]*\r\n)+\r\n"
    rb"(?:ok|[ -~]*\n)?"
)


def check(connect: Any, data: bytes, rng: random.Random, shared: dict[Any, Any]) -> None:
    limits = TIGHT if rng.random() < 0.25 else Limits()
    whole = connect(NOW, limits=limits).feed(data)
    want = whole.outcome()
    others = {
        "bytewise": connect(NOW, limits=limits).feed(*(data[i : i + 1] for i in range(len(data)))),
        "cut": connect(NOW, limits=limits).feed(*random_cuts(rng, data)),
        "later": connect(LATER, limits=limits).feed(*random_cuts(rng, data)),
        "warm": connect(NOW, parser=shared[limits], encoder=shared["encoder"]).feed(data),
    }
    for name, other in others.items():
        assert other.outcome() == want, (name, data, limits)
    # Whatever came, what goes out is a series of whole responses, one for each request.
    wire = bytes(whole.wire)
    assert RESPONSE.sub(b"", wire) == b"", (wire, data)
    engine = whole.engine
    if engine.error is not None:
        assert engine.remote == CLOSED
        assert engine.closing
        assert 400 <= engine.error.status <= 501
        before = len(whole.requests)
        whole.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert len(whole.requests) == before
        assert bytes(whole.wire) == wire
    for request in whole.requests:
        legal(request)
    # The peer goes away in the middle of it: also no reason to raise.
    whole.eof()
    assert not whole.requests or whole.last.over or whole.last.resets


def legal(request: Any) -> None:
    """A second opinion on what came through: nothing that smuggling needs."""
    head = request.head
    names = [name for name, _ in head.headers]
    assert names.count(b"host") <= 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert head.version == "1.0" or b"host" in names
    assert head.fields.get(b"transfer-encoding", b"chunked").lower() == b"chunked"
    assert re.fullmatch(rb"[0-9]+", head.fields.get(b"content-length", b"0"))
    assert head.method not in ("CONNECT", "PRI")
    assert head.method == head.method.upper()
    assert re.fullmatch(rb"\*|/[\x21\x22\x24-\x3e\x40-\x7e]*", head.raw_path)
    for name, value in head.headers:
        assert re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9a-z]+", name)
        assert re.fullmatch(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[^\t ])?)?", value)
    if request.ended and b"content-length" in head.fields:
        assert len(request.body) == int(head.fields[b"content-length"])


def memories() -> dict[Any, Any]:
    return {
        TIGHT: RequestParser(TIGHT),
        Limits(): RequestParser(Limits()),
        "encoder": ResponseEncoder(),
    }


def run_round(connect: Any, number: int, count: int) -> None:
    rng = random.Random(number)
    shared = memories()
    for _ in range(count):
        if rng.random() < 0.05:
            data = rng.randbytes(rng.randrange(80))
        else:
            data = mutate(rng, rng.choice(SEEDS))
            if rng.random() < 0.3:
                data += rng.choice(SEEDS)
        check(connect, data, rng, shared)


@pytest.mark.parametrize("number", range(3))
def test_a_quick_round(connect: Any, number: int) -> None:
    run_round(connect, number, 500)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(100, 140))
def test_a_long_round(connect: Any, number: int) -> None:
    run_round(connect, number, 5000)


@pytest.mark.parametrize("number", range(4))
def test_verbs_in_any_order_never_break_the_wire(connect: Any, number: int) -> None:
    """An application gone mad: everything is refused or harmless, and `receive` goes on."""
    rng = random.Random(number)
    for _ in range(150):
        recorder = connect()
        engine = recorder.engine
        for _ in range(rng.randrange(1, 25)):
            kind = rng.randrange(12)
            try:
                if kind < 3:
                    recorder.feed(rng.choice(SEEDS)[: rng.randrange(200)])
                elif kind == 3:
                    engine.send_head(rng.choice((200, 204, 304, 99, 500)), [(b"x", b"1")])
                elif kind == 4:
                    engine.send_head(200, [(b"content-length", b"3")], rng.random() < 0.5)
                elif kind in (5, 6):
                    engine.send_data(rng.choice((b"", b"a", b"abc")), rng.random() < 0.5)
                elif kind == 7:
                    engine.send_trailers([(b"t", b"1")])
                elif kind == 8:
                    engine.send_continue()
                elif kind == 9:
                    engine.send_informational(103, [(b"link", b"x")])
                elif kind == 10:
                    rng.choice((recorder.eof, engine.reset, engine.timed_out, recorder.flush))()
                else:
                    engine.consumed(0)
            except LocalProtocolError:
                pass
        recorder.flush()
        assert bytes(recorder.wire).startswith((b"HTTP/1.1 ", b"")) or not recorder.wire
