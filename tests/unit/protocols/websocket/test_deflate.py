"""permessage-deflate: the agreement by RFC 7692 §7.1, compression against zlib by hand.

Whatever touches compressed bytes runs with the zlib that is taken here and with the standard
library's; the other side of the wire is always the standard library's.
"""

from __future__ import annotations

import random
import tracemalloc
import zlib
from typing import Any

import pytest

from omnicorn.errors import WebSocketError
from omnicorn.protocols.websocket.deflate import (
    WINDOW,
    Agreement,
    Deflate,
    negotiate,
)

FIN, RSV1 = 0x80, 0x40
MORE, TEXT, BINARY = 0x0, 0x1, 0x2
TAIL = b"\x00\x00\xff\xff"
NAME = "permessage-deflate"

HELLO = bytes.fromhex("f248cdc9c90700")
"""RFC 7692 §7.2.3.1."""


class Client:
    """The client's side, by hand (RFC 7692 §7.2)."""

    def __init__(self, agreement: Agreement, level: int = 6) -> None:
        self._agreement = agreement
        self._level = level
        self._deflater: Any = None
        self._inflater: Any = None

    def compress(self, content: bytes) -> bytes:
        if self._deflater is None or self._agreement.client_forgets:
            bits = max(9, self._agreement.client_bits)
            self._deflater = zlib.compressobj(self._level, zlib.DEFLATED, -bits)
        out = self._deflater.compress(content) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        assert out.endswith(TAIL)
        return bytes(out[:-4])

    def inflate(self, content: bytes) -> bytes:
        if self._inflater is None or self._agreement.server_forgets:
            self._inflater = zlib.decompressobj(-self._agreement.server_bits)
        out = self._inflater.decompress(content + TAIL)
        assert not self._inflater.unconsumed_tail and not self._inflater.unused_data
        return bytes(out)


def agree(offer: str = NAME) -> Agreement:
    agreement = negotiate(offer)
    assert agreement is not None
    return agreement


# ---------------------------------------------------------------- the agreement, §7.1

# What is offered, and what is agreed: bits and forgetting of the server, then of the client.
OFFERS: list[tuple[str, tuple[int, bool, int, bool] | None]] = [
    ("", None),
    ("permessage-deflate", (12, False, 15, False)),
    ("PerMessage-Deflate", (12, False, 15, False)),
    (" \tpermessage-deflate\t ", (12, False, 15, False)),
    ("x-webkit-deflate-frame", None),
    ("permessage-bzip2", None),
    ("permessage-deflat", None),
    ("permessage-deflate2", None),
    ("permessage-deflate=1", None),
    # server_no_context_takeover, §7.1.1.1
    ("permessage-deflate; server_no_context_takeover", (12, True, 15, False)),
    ("permessage-deflate;server_no_context_takeover", (12, True, 15, False)),
    ("permessage-deflate ; Server_No_Context_Takeover ", (12, True, 15, False)),
    ("permessage-deflate; server_no_context_takeover=", None),
    ("permessage-deflate; server_no_context_takeover=1", None),
    ("permessage-deflate; server_no_context_takeover=true", None),
    ('permessage-deflate; server_no_context_takeover=""', None),
    # client_no_context_takeover, §7.1.1.2
    ("permessage-deflate; client_no_context_takeover", (12, False, 15, True)),
    ("permessage-deflate; client_no_context_takeover=8", None),
    (
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        (12, True, 15, True),
    ),
    # server_max_window_bits, §7.1.2.1: never more than asked for, never more than we want
    ("permessage-deflate; server_max_window_bits", None),
    ("permessage-deflate; server_max_window_bits=7", None),
    ("permessage-deflate; server_max_window_bits=8", None),  # beyond zlib
    ("permessage-deflate; server_max_window_bits=9", (9, False, 15, False)),
    ("permessage-deflate; server_max_window_bits=11", (11, False, 15, False)),
    ("permessage-deflate; server_max_window_bits=12", (12, False, 15, False)),
    ("permessage-deflate; server_max_window_bits=13", (12, False, 15, False)),
    ("permessage-deflate; server_max_window_bits=15", (12, False, 15, False)),
    ("permessage-deflate; server_max_window_bits=16", None),
    ("permessage-deflate; server_max_window_bits=09", None),
    ("permessage-deflate; server_max_window_bits=010", None),
    ("permessage-deflate; server_max_window_bits=+9", None),
    ("permessage-deflate; server_max_window_bits=-9", None),
    ("permessage-deflate; server_max_window_bits=9.0", None),
    ("permessage-deflate; server_max_window_bits=1e1", None),
    ("permessage-deflate; server_max_window_bits=\u0661\u0662", None),
    ("permessage-deflate; server_max_window_bits=", None),
    ('permessage-deflate; server_max_window_bits="10"', (10, False, 15, False)),
    ('permessage-deflate; server_max_window_bits="8"', None),
    ('permessage-deflate; server_max_window_bits="10', None),
    ("permessage-deflate; server_max_window_bits=10'", None),
    ('permessage-deflate; server_max_window_bits=" 10"', None),
    ("permessage-deflate; server_max_window_bits=1 0", None),
    ("permessage-deflate; server_max_window_bits = 10", (10, False, 15, False)),
    # client_max_window_bits, §7.1.2.2: answered only where it was offered
    ("permessage-deflate; client_max_window_bits", (12, False, 12, False)),
    ("permessage-deflate; client_max_window_bits=8", (12, False, 8, False)),
    ("permessage-deflate; client_max_window_bits=9", (12, False, 9, False)),
    ("permessage-deflate; client_max_window_bits=12", (12, False, 12, False)),
    ("permessage-deflate; client_max_window_bits=15", (12, False, 12, False)),
    ('permessage-deflate; client_max_window_bits="15"', (12, False, 12, False)),
    ("permessage-deflate; client_max_window_bits=7", None),
    ("permessage-deflate; client_max_window_bits=16", None),
    ("permessage-deflate; client_max_window_bits=0", None),
    ("permessage-deflate; client_max_window_bits=", None),
    # §7.1: unknown parameters, and any given twice
    ("permessage-deflate; unknown", None),
    ("permessage-deflate; client_max_window_bits; unknown=1", None),
    ("permessage-deflate; ", None),
    ("permessage-deflate;; client_max_window_bits", None),
    ("permessage-deflate; client max window bits", None),
    ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
    ("permessage-deflate; server_max_window_bits=10; server_max_window_bits=10", None),
    ("permessage-deflate; client_max_window_bits; CLIENT_MAX_WINDOW_BITS=10", None),
    (
        "permessage-deflate; client_max_window_bits=10; server_max_window_bits=9; "
        "server_no_context_takeover; client_no_context_takeover",
        (9, True, 10, True),
    ),
    # Several offers: the first that can be agreed to
    ("permessage-deflate, permessage-deflate; server_max_window_bits=9", (12, False, 15, False)),
    ("permessage-deflate; server_max_window_bits=8, permessage-deflate", (12, False, 15, False)),
    ("permessage-deflate; x, permessage-deflate; server_max_window_bits=9", (9, False, 15, False)),
    ("foo, bar; baz=1,permessage-deflate;client_max_window_bits", (12, False, 12, False)),
    ("foo; x=permessage-deflate", None),
    ("permessage-deflate; server_max_window_bits=8, permessage-deflate; y", None),
    (", ,permessage-deflate,", (12, False, 15, False)),
]


@pytest.mark.parametrize(("offers", "agreed"), OFFERS)
def test_an_offer_is_agreed_to_or_passed_over(
    offers: str, agreed: tuple[int, bool, int, bool] | None
) -> None:
    agreement = negotiate(offers)
    if agreement is None:
        assert agreed is None
        return
    assert agreed == (
        agreement.server_bits,
        agreement.server_forgets,
        agreement.client_bits,
        agreement.client_forgets,
    )
    assert_answers(offers, agreement)


def assert_answers(offers: str, agreement: Agreement) -> None:
    """The answer says what was agreed, and nothing that was not offered (RFC 7692 §7.1)."""
    name, *parameters = agreement.answer.decode().split("; ")
    assert name == NAME
    assert len(parameters) == len(set(parameters))
    said = dict(parameter.partition("=")[::2] for parameter in parameters)
    assert said.pop("server_max_window_bits") == str(agreement.server_bits)
    assert ("server_no_context_takeover" in said) == agreement.server_forgets
    assert ("client_no_context_takeover" in said) == agreement.client_forgets
    if "client_max_window_bits" in offers.lower():
        assert said.pop("client_max_window_bits") == str(agreement.client_bits)
    else:
        assert agreement.client_bits == 15
    assert set(said) <= {"server_no_context_takeover", "client_no_context_takeover"}


def test_what_stands_in_quotes_is_no_offer() -> None:
    """RFC 9110 §5.6.4: a quoted string may hold commas."""
    assert negotiate('foo; x="a, permessage-deflate ,b"') is None
    assert negotiate('foo; x="a; b, c", permessage-deflate') is not None
    assert negotiate('permessage-deflate; x="a, permessage-deflate; y"') is None


@pytest.mark.timeout(2)
def test_a_field_of_many_spaces_does_not_take_forever() -> None:
    """One head of 64 KiB, from anybody: a millisecond, or a quarter of a minute."""
    assert negotiate(NAME + "; x" + " " * 60_000 + "!") is None


def test_a_long_field_ends() -> None:
    assert negotiate(NAME + "; x=" + " " * 60_000 + "!") is None
    assert negotiate(NAME + "; " + "x" * 60_000 + "(") is None
    assert negotiate(NAME + "; " + " \t" * 5000 + "x") is None
    assert negotiate((NAME + "; server_max_window_bits=8,") * 2000) is None
    assert negotiate(NAME + "; x=" + '"' * 20_000) is None


# ---------------------------------------------------------------- round trips, §7.2

SAMPLES = [
    b"",
    b"x",
    b"Hello" * 50,
    bytes(5000),
    random.Random(1).randbytes(3000),
    bytes(range(256)) * 40,
    " ".join(str(i) for i in range(2000)).encode(),
]

PARAMETERS = [
    "",
    "; server_no_context_takeover",
    "; client_no_context_takeover",
    "; client_no_context_takeover; server_no_context_takeover",
    "; server_max_window_bits=9",
    "; client_max_window_bits=9",
    "; client_max_window_bits=8",
    "; client_max_window_bits",
    "; client_max_window_bits=15; server_max_window_bits=15; server_no_context_takeover",
]


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.usefixtures("any_zlib")
def test_what_we_compress_comes_out_at_the_client(parameters: str) -> None:
    agreement = agree(NAME + parameters)
    deflate, client = Deflate(agreement), Client(agreement)
    for content in SAMPLES * 2:
        assert client.inflate(deflate.compress(content)) == content


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.usefixtures("any_zlib")
def test_what_the_client_compresses_comes_out_here(parameters: str, level: int) -> None:
    agreement = agree(NAME + parameters)
    deflate, client = Deflate(agreement), Client(agreement, level)
    for content in SAMPLES * 2:
        assert deflate.inflate(client.compress(content), len(content), True) == content


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.usefixtures("any_zlib")
def test_a_compressed_message_may_be_cut_anywhere(parameters: str) -> None:
    agreement = agree(NAME + parameters)
    deflate, client = Deflate(agreement), Client(agreement)
    for content in (b"Hello" * 20, bytes(300), SAMPLES[4][:60], b""):
        room = len(content)
        compressed = client.compress(content)
        out = b""
        for i in range(len(compressed)):
            out += deflate.inflate(compressed[i : i + 1], room - len(out), False)
        assert out + deflate.inflate(b"", room - len(out), True) == content
        for at in range(len(client.compress(b"")), len(content) + 1, 7):
            deflate, client = Deflate(agreement), Client(agreement)
            compressed = client.compress(content)
            out = deflate.inflate(compressed[:at], room, False)
            assert out + deflate.inflate(compressed[at:], room - len(out), True) == content


def test_a_kept_context_makes_the_second_message_shorter() -> None:
    content = random.Random(2).randbytes(500)
    keeping = Deflate(agree())
    assert len(keeping.compress(content)) > 500
    assert len(keeping.compress(content)) < 50
    forgetting = Deflate(agree(NAME + "; server_no_context_takeover"))
    assert forgetting.compress(content) == forgetting.compress(content)


def test_our_window_is_as_small_as_was_agreed() -> None:
    """A client that has made room for 2^9 bytes only must be able to read us."""
    content = random.Random(3).randbytes(600)
    for bits in range(9, WINDOW + 1):
        agreement = agree(NAME + f"; server_max_window_bits={bits}")
        deflate, client = Deflate(agreement), Client(agreement)
        for _ in range(20):
            assert client.inflate(deflate.compress(content)) == content


@pytest.mark.usefixtures("any_zlib")
def test_a_client_that_forgets_cannot_refer_to_its_last_message() -> None:
    keeping = Client(agree())
    content = random.Random(4).randbytes(100)
    first, second = keeping.compress(content), keeping.compress(content)
    deflate = Deflate(agree(NAME + "; client_no_context_takeover"))
    assert deflate.inflate(first, 1000, True) == content
    with pytest.raises(WebSocketError) as caught:
        deflate.inflate(second, 1000, True)
    assert caught.value.code == 1007


def test_nothing_is_made_before_it_is_used() -> None:
    """Idle sockets, and those with small messages only, cost nothing."""
    tracemalloc.start()
    try:
        agreement = agree()
        before = tracemalloc.get_traced_memory()[0]
        sockets = [Deflate(agreement) for _ in range(100)]
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(sockets) == 100
    assert used < 100 * 200


# ---------------------------------------------------------------- §7.2.3 examples


@pytest.mark.parametrize(
    "compressed",
    [
        pytest.param("f248cdc9c90700", id="7.2.3.1 one block"),
        pytest.param("000500faff48656c6c6f00", id="7.2.3.3 no compression"),
        pytest.param("f348cdc9c9070000", id="7.2.3.4 BFINAL"),
        pytest.param("f248050000 00ffffcac9c90700", id="7.2.3.5 two blocks"),
    ],
)
@pytest.mark.usefixtures("any_zlib")
def test_the_examples_of_the_rfc_are_read(connect: Any, compressed: str) -> None:
    content = bytes.fromhex(compressed)
    assert Deflate(agree()).inflate(content, 5, True) == b"Hello"
    recorder = connect(100, NAME).get((FIN | RSV1 | TEXT, content))
    assert recorder.messages == ["Hello"]


@pytest.mark.usefixtures("any_zlib")
def test_the_examples_share_their_window(connect: Any) -> None:
    """RFC 7692 §7.2.3.2."""
    recorder = connect(100, NAME).get((FIN | RSV1 | TEXT, HELLO))
    recorder.get((FIN | RSV1 | TEXT, bytes.fromhex("f200110000")))
    assert recorder.messages == ["Hello", "Hello"]


def test_an_empty_message_is_one_byte(connect: Any) -> None:
    """RFC 7692 §7.2.3.6."""
    recorder = connect(100, NAME).get((FIN | RSV1 | TEXT, b"\x00"), (FIN | RSV1 | BINARY, b"\x00"))
    assert recorder.messages == ["", b""]


def test_a_peer_may_leave_messages_uncompressed(connect: Any) -> None:
    """RFC 7692 §6: a message without RSV1 is as it is, and the window does not see it."""
    recorder = connect(100, NAME).get((FIN | RSV1 | TEXT, HELLO), (FIN | TEXT, HELLO[:1] and b"x"))
    recorder.get((FIN | RSV1 | TEXT, bytes.fromhex("f200110000")))
    assert recorder.messages == ["Hello", "x", "Hello"]


# ---------------------------------------------------------------- the end of a stream, BFINAL


FINAL = bytes.fromhex("f348cdc9c90700")


@pytest.mark.parametrize("padding", [b"", b"\x00"])
@pytest.mark.usefixtures("any_zlib")
def test_a_message_may_end_its_stream_again_and_again(connect: Any, padding: bytes) -> None:
    """RFC 7692 §7.2.3.4; the next message begins a stream of its own."""
    recorder = connect(100, NAME)
    for _ in range(3):
        recorder.get((FIN | RSV1 | TEXT, FINAL + padding))
    recorder.get((FIN | RSV1 | TEXT, HELLO))
    assert recorder.messages == ["Hello"] * 4


@pytest.mark.parametrize("behind", [b"\x00\x00", b"\x01", b"x", FINAL, HELLO, TAIL, b"\x00" + TAIL])
@pytest.mark.usefixtures("any_zlib")
def test_nothing_but_padding_follows_the_end_of_a_stream(connect: Any, behind: bytes) -> None:
    recorder = connect(100, NAME).get((FIN | RSV1 | TEXT, FINAL + behind))
    assert recorder.code == 1007
    assert recorder.messages == []


@pytest.mark.parametrize("at", range(len(FINAL) + 2))
@pytest.mark.usefixtures("any_zlib")
def test_a_message_that_ends_its_stream_may_be_cut_anywhere(connect: Any, at: int) -> None:
    """RFC 7692 §6.1: fragments are cut without regard to the blocks of deflate."""
    content = FINAL + b"\x00"
    recorder = connect(100, NAME)
    for _ in range(2):
        recorder.get((RSV1 | TEXT, content[:at]), (FIN | MORE, content[at:]))
    assert recorder.messages == ["Hello", "Hello"]
    byte_by_byte = [(MORE, content[i : i + 1]) for i in range(len(content))]
    recorder.get((RSV1 | TEXT,), *byte_by_byte, (MORE,), (FIN | MORE,))
    assert recorder.messages[2:] == ["Hello"]


@pytest.mark.parametrize("behind", [b"\x00\x00", b"\x01", FINAL, TAIL])
@pytest.mark.usefixtures("any_zlib")
def test_nothing_but_padding_follows_in_further_fragments(connect: Any, behind: bytes) -> None:
    """Refused with the fragment that holds too much, not collected up to the last."""
    recorder = connect(100, NAME).get((RSV1 | TEXT, FINAL), (MORE, behind))
    assert recorder.code == 1007
    recorder = connect(100, NAME).get((RSV1 | TEXT, FINAL), (MORE, b"\x00"), (MORE, b"\x00"))
    assert recorder.code == 1007


@pytest.mark.usefixtures("any_zlib")
def test_streams_behind_streams_are_not_worked_off(connect: Any) -> None:
    """`03 00` is an empty stream, and 64 KiB hold 32 thousand of them."""
    recorder = connect(1 << 20, NAME).get((FIN | RSV1 | BINARY, b"\x03\x00" * 30_000))
    assert recorder.code == 1007


# ---------------------------------------------------------------- broken streams


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xff\xff\xff", id="a reserved block type"),
        pytest.param(b"\x07", id="the reserved type, final"),
        pytest.param(b"\x00\x05\x00\x00\x00Hello\x00", id="a stored block with a wrong length"),
        pytest.param(bytes.fromhex("f200110000"), id="a distance before the beginning"),
        pytest.param(b"\x78\x9c\xf3\x48\xcd\xc9\xc9\x07\x00", id="with the head of zlib"),
        pytest.param(b"\x1f\x8b\x08\x00" + bytes(10), id="with the head of gzip"),
        pytest.param(b"plainly no deflate", id="text"),
    ],
)
@pytest.mark.usefixtures("any_zlib")
def test_what_is_no_deflate_stream_is_1007(connect: Any, content: bytes) -> None:
    recorder = connect(1000, NAME).get((FIN | RSV1 | BINARY, content), (FIN | TEXT, b"behind"))
    assert recorder.code == 1007
    assert recorder.messages == []


@pytest.mark.usefixtures("any_zlib")
def test_a_flipped_bit_is_1007_or_other_content_and_never_an_exception(connect: Any) -> None:
    client = Client(agree())
    content = client.compress(b"The quick brown fox jumps over the lazy dog. " * 5)
    seen = set()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        recorder = connect(300, NAME).get((FIN | RSV1 | BINARY, bytes(flipped)))
        seen.add(recorder.code)
    assert 1007 in seen
    assert seen <= {None, 1007, 1009}


def test_compressed_text_must_be_text(connect: Any) -> None:
    client = Client(agree())
    recorder = connect(100, NAME).get((FIN | RSV1 | TEXT, client.compress(b"caf\xe9")))
    assert recorder.code == 1007


def test_compressed_text_is_looked_at_frame_by_frame(connect: Any) -> None:
    content = Client(agree(), 0).compress(b"caf\xe9 and more")
    recorder = connect(100, NAME).get((RSV1 | TEXT, content[:10]))
    assert recorder.code == 1007


# ---------------------------------------------------------------- bombs


@pytest.mark.usefixtures("any_zlib")
def test_a_small_bomb_is_1009(connect: Any) -> None:
    bomb = Client(agree(), 9).compress(bytes(4096))
    assert len(bomb) < 128
    recorder = connect(128, NAME).get((FIN | RSV1 | BINARY, bomb))
    assert recorder.code == 1009
    assert "inflated" in recorder.engine.error.reason


@pytest.mark.parametrize("limit", [0, 1, 127, 128, 129, 16383, 16384, 16385])
@pytest.mark.usefixtures("any_zlib")
def test_the_limit_holds_to_the_byte(limit: int) -> None:
    for content in (bytes(limit), b"ab" * (limit // 2) + b"c" * (limit % 2)):
        compressed = Client(agree()).compress(content)
        assert Deflate(agree()).inflate(compressed, limit, True) == content
        compressed = Client(agree()).compress(content + b"!")
        with pytest.raises(WebSocketError) as caught:
            Deflate(agree()).inflate(compressed, limit, True)
        assert caught.value.code == 1009


@pytest.mark.usefixtures("any_zlib")
def test_a_large_bomb_costs_no_more_than_the_limit(connect: Any, wire: Any) -> None:
    limit = 20_000
    client = Client(agree(), 9)
    bomb = client.compress(bytes(16 << 20))
    assert len(bomb) < limit
    data = wire((FIN | RSV1 | BINARY, bomb))
    recorder = connect(limit, NAME)
    tracemalloc.start()
    try:
        recorder.feed(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert recorder.code == 1009
    assert peak < 8 * limit


@pytest.mark.usefixtures("any_zlib")
def test_a_bomb_in_fragments_is_1009_at_the_fragment_that_is_too_much(
    connect: Any, wire: Any
) -> None:
    limit = 1 << 20
    recorder = connect(limit, NAME)
    client = Client(agree(), 9)
    content = client.compress(bytes(limit // 4))
    recorder.get((RSV1 | BINARY, content + TAIL))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            recorder.get((MORE, client.compress(bytes(limit // 4)) + TAIL))
        assert not recorder.code
        last = client.compress(bytes(limit)) + TAIL
        recorder.get((MORE, last))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert recorder.code == 1009
    assert peak - before < 3 * limit


@pytest.mark.usefixtures("any_zlib")
def test_many_tiny_compressed_fragments_cost_their_bytes(connect: Any, wire: Any) -> None:
    client = Client(agree(), 0)
    content = client.compress(b"x" * 10_000)
    frames = [(MORE, content[i : i + 1]) for i in range(len(content))]
    recorder = connect(10_000, NAME).get((RSV1 | TEXT,))
    data = wire(*frames)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        recorder.feed(data)
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now - before < 100_000
    recorder.get((FIN | MORE,))
    assert recorder.messages == ["x" * 10_000]


@pytest.mark.usefixtures("any_zlib")
def test_blocks_that_hold_nothing_are_no_message_too_big(connect: Any) -> None:
    recorder = connect(100, NAME).get((RSV1 | BINARY, HELLO + TAIL))
    for _ in range(100):
        recorder.get((MORE, b"\x00" + TAIL))
    recorder.get((FIN | MORE, b"\x00"))
    assert recorder.messages == [b"Hello"]


def test_content_that_cannot_be_compressed_may_be_as_large_as_any(connect: Any) -> None:
    """Deflate makes random content a few bytes longer; the limit is for what is inflated."""
    content = random.Random(6).randbytes(1000)
    compressed = Client(agree()).compress(content)
    assert len(compressed) > 1000
    recorder = connect(1000, NAME).get((FIN | RSV1 | BINARY, compressed))
    assert recorder.messages == [content]
