"""Ours and `hpack` on the same lists, the same tables and the same broken blocks.

What one encodes the other decodes, over any sequence of lists and table sizes. Of any bytes,
both make the same list or both refuse; where only we refuse, our reason is one of `STRICTER`.
"""

from __future__ import annotations

import hpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omnicorn.errors import Http2Error, LimitExceeded
from omnicorn.protocols.http2.hpack import Decoder, Encoder, Strings
from omnicorn.protocols.http2.hpack.table import STATIC

Pair = tuple[bytes, bytes]

# Shared by all examples, and small: whatever it holds must not matter.
WARM = Strings(entries=16, size=64)

NAMES = st.sampled_from([b"date", b"etag", b"cookie", b"x-a", b"x-b"]) | st.binary(max_size=12)
VALUES = (
    st.sampled_from([b"", b"a", b"text/html", b"Mon, 21 Oct 2013 20:13:21 GMT"])
    | st.binary(max_size=40)
    | st.integers(100, 5000).map(lambda size: b"v" * size)
)
FIELDS = st.sampled_from(STATIC) | st.tuples(NAMES, VALUES)
SIZES = st.sampled_from([0, 31, 32, 60, 100, 200, 1000, 4095, 4096])


@st.composite
def conversations(draw: st.DrawFn, sizes: st.SearchStrategy[int]) -> list[list[Pair] | int]:
    """Lists of fields that come again and again, and table sizes in between."""
    pool = draw(st.lists(FIELDS, min_size=1, max_size=12))
    lists = st.lists(st.sampled_from(pool), max_size=12)
    return draw(st.lists(lists | lists | lists | sizes, max_size=25))


@settings(deadline=None)
@given(conversations(SIZES), st.booleans())
def test_we_decode_what_a_peer_encodes(steps: list[list[Pair] | int], huffman: bool) -> None:
    peer = hpack.Encoder()
    subjects = [Decoder(Strings(), 10**6), Decoder(WARM, 10**6), Decoder(WARM, 10**6)]
    for step in steps:
        if isinstance(step, int):
            peer.header_table_size = step
            update = peer.encode([])
            for subject in subjects:
                assert subject.decode(update) == ()
            continue
        block = peer.encode(step, huffman=huffman)
        for subject in subjects:
            assert subject.decode(block) == tuple(step)


@settings(deadline=None)
@given(conversations(SIZES | st.sampled_from([65536, 2**32 - 1])))
def test_a_peer_decodes_what_we_encode(steps: list[list[Pair] | int]) -> None:
    peer = hpack.Decoder(max_header_list_size=10**6)
    ours = Decoder(WARM, 10**6)
    subject = Encoder(WARM)
    for step in steps:
        if isinstance(step, int):
            subject.set_max_table_size(step)
            peer.max_allowed_table_size = step
            continue
        generation = subject.generation
        block = subject.encode(step)
        assert [tuple(field) for field in peer.decode(block, raw=True)] == step
        assert ours.decode(block) == tuple(step)
        if subject.settled:
            assert subject.generation == generation
            assert subject.encode(step) == block
            assert subject.settled
            peer.decode(block, raw=True)
            ours.decode(block)


@st.composite
def scraps(draw: st.DrawFn) -> bytes:
    """Pieces of blocks, and what nobody would send."""
    piece = (
        st.sampled_from([b"\x82", b"\xbe", b"\xbf", b"\x40\x01a\x01b", b"\x41\x01b", b"\x20"])
        | st.sampled_from([b"\x3f\xe1\x1f", b"\x7e\x01c", b"\x0f\x2f\x01d", b"\x10\x00\x00"])
        | st.sampled_from([b"\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"])
        | st.binary(max_size=6)
    )
    return b"".join(draw(st.lists(piece, max_size=8)))


def decoded(subject: Decoder, block: bytes) -> tuple[list[Pair] | None, str]:
    """The list, or why the block is broken."""
    try:
        return list(subject.decode(block)), ""
    except Http2Error as error:
        return None, error.reason


STRICTER = {
    "a table size update is misplaced",
    "an integer is too large",
}


@given(scraps())
@example(b"\x20\x20\x20")
@example(b"\xff\x80\x80\x80\x80\x80\x00")
def test_any_bytes_mean_what_they_mean_to_a_peer(block: bytes) -> None:
    expected: list[Pair] | None = None
    try:
        expected = [(name, value) for name, value in hpack.Decoder().decode(block, raw=True)]
    except Exception:
        pass
    for strings in (Strings(), WARM, WARM, WARM):
        fields, reason = decoded(Decoder(strings), block)
        assert fields == expected or (fields is None and reason in STRICTER)


@settings(deadline=None)
@given(st.lists(scraps(), max_size=5), st.sampled_from([0, 40, 100, 65536]))
def test_memory_and_limits_never_change_what_a_block_does(blocks: list[bytes], limit: int) -> None:
    """A decoder with a limit fails where one without does, and its table stays the same."""
    free, limited = Decoder(Strings(), 10**9), Decoder(WARM, limit)
    for block in blocks:
        fields, reason = decoded(free, block)
        if fields is None:
            assert decoded(limited, block) == (None, reason)
            return
        if sum(len(name) + len(value) + 32 for name, value in fields) <= limit:
            assert decoded(limited, block) == (fields, "")
        else:
            with pytest.raises(LimitExceeded):
                limited.decode(block)
        assert limited.generation == free.generation
