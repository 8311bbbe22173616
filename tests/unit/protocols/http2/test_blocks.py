"""Field blocks: in how many frames they come, how long they may be, what is remembered of them."""

from __future__ import annotations

from typing import Any

import hpack
import pytest
from tests.http2_client import data, frame

from omnicorn.errors import Http2Error, Http2StreamError, LimitExceeded
from omnicorn.http.limits import Limits
from omnicorn.protocols.http2.blocks import BLOCK_BYTES, EXPANSION, BlockReader
from omnicorn.protocols.http2.codes import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
)
from omnicorn.protocols.http2.guards import MAX_CONTINUATIONS
from omnicorn.protocols.http2.hpack import Strings
from omnicorn.protocols.http2.requests import RequestParser

PLAIN = b"\x82\x86\x84\x01\x01a"  # GET http://a/, without a word to the table
STORED = b"\x82\x86\x84\x41\x01a"  # the same, with the authority put into the table


def reader(**limits: Any) -> BlockReader:
    return BlockReader(RequestParser(Limits(**limits)), Strings())


def literal(value: bytes) -> bytes:
    """The field ``x``, not put into the table."""
    return b"\x00\x01x" + hpack.hpack.encode_integer(len(value), 7) + value


def in_frames(stream: int, block: bytes, flags: int = END_STREAM) -> bytes:
    """A block of more than one frame, as HEADERS and CONTINUATIONs."""
    first, *rest = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    return b"".join(
        [
            frame(HEADERS, flags, stream, first),
            *(frame(CONTINUATION, 0, stream, piece) for piece in rest[:-1]),
            frame(CONTINUATION, END_HEADERS, stream, rest[-1]),
        ]
    )


# ---------------------------------------------------------------- putting together


def test_a_block_is_what_its_fragments_are_side_by_side() -> None:
    blocks = reader()
    blocks.begin(5, b"ab", END_STREAM)
    assert (blocks.stream, blocks.ended) == (5, END_STREAM) and blocks.fragments == [b"ab"]
    blocks.extend(b"")
    blocks.extend(b"cd")
    assert blocks.end() == b"abcd" and blocks.fragments is None


def test_a_block_may_be_four_times_as_long_as_its_list() -> None:
    blocks = reader(head=100)
    blocks.begin(1, b"x" * 50, 0)
    blocks.extend(b"x" * 350)
    with pytest.raises(Http2Error, match="CONTINUATION flood") as caught:
        blocks.extend(b"x")
    assert caught.value.code == ENHANCE_YOUR_CALM


def test_each_block_may_come_in_65_frames_and_no_more() -> None:
    blocks = reader()
    for _ in range(2):
        blocks.begin(1, b"", 0)
        for _ in range(MAX_CONTINUATIONS):
            blocks.extend(b"")
        with pytest.raises(Http2Error, match="CONTINUATION flood"):
            blocks.extend(b"")


def test_no_list_within_the_limit_is_longer_than_that_when_it_is_coded() -> None:
    """RFC 7541 Appendix B: the longest code for a byte has 30 bits."""
    worst = max(hpack.huffman_constants.REQUEST_CODES_LENGTH)
    assert worst / 8 <= EXPANSION


# ---------------------------------------------------------------- decoding


def test_a_request_is_remembered_while_the_table_is_as_it_was() -> None:
    blocks = reader()
    blocks.decode_request(PLAIN, END_STREAM)
    assert [list(heads) for heads in blocks.heads] == [[PLAIN], []]
    blocks.decode_request(PLAIN, 0)
    assert [list(heads) for heads in blocks.heads] == [[PLAIN], [PLAIN]]
    head = blocks.decode_request(STORED, 0)
    assert head.fields == {b"host": b"a"} and head.has_body
    assert not any(blocks.heads)


def test_a_large_block_is_not_remembered() -> None:
    blocks = reader()
    blocks.decode_request(PLAIN + literal(b"y" * BLOCK_BYTES), END_STREAM)
    assert not any(blocks.heads)


def test_trailers_that_change_the_table_make_blocks_forgotten() -> None:
    blocks = reader()
    blocks.decode_request(PLAIN, END_STREAM)
    assert blocks.decode_trailers(b"\x00\x01x\x01y") == ((b"x", b"y"),)
    assert blocks.heads[0]
    blocks.decode_trailers(b"\x40\x01x\x01y")
    assert not blocks.heads[0]


def test_what_a_malformed_request_left_in_the_table_is_judged_again() -> None:
    blocks = reader()
    with pytest.raises(Http2StreamError):
        blocks.decode_request(PLAIN + b"\x40\x01x\x01\0", END_STREAM)
    with pytest.raises(Http2StreamError, match="NUL"):
        blocks.decode_request(PLAIN + b"\xbe", END_STREAM)


def test_what_trailers_left_in_the_table_is_judged_again() -> None:
    blocks = reader()
    blocks.decode_trailers(b"\x40\x01x\x01\0")
    with pytest.raises(Http2StreamError, match="NUL"):
        blocks.decode_request(PLAIN + b"\xbe", END_STREAM)


def test_a_refused_request_says_whether_its_answer_has_content() -> None:
    blocks = reader(fields=1)
    more = b"\x00\x01x\x01y" * 2
    with pytest.raises(LimitExceeded):
        blocks.decode_request(b"\x02\x04HEAD\x86\x84\x01\x01a" + more, END_STREAM)
    assert blocks.head_only
    with pytest.raises(LimitExceeded):
        blocks.decode_request(PLAIN + more, END_STREAM)
    assert not blocks.head_only


# ---------------------------------------------------------------- on a connection


def test_a_list_over_the_limit_in_continuations_is_answered_431(connect: Any) -> None:
    """Its connection goes on, and so do the tables: `assert_alive` uses them."""
    dialogue = connect()
    block = dialogue.block("/", *((f"x-{n}", "y" * 1990) for n in range(40)))
    assert len(block) > Limits().head
    dialogue.send(in_frames(1, block))
    assert dialogue.reply().status == 431 and dialogue.reply().ended
    assert not dialogue.owner.exchanges
    dialogue.assert_alive()


def test_a_list_over_the_limit_of_a_request_with_content_is_answered_431(connect: Any) -> None:
    dialogue = connect()
    block = dialogue.block("/", *((f"x-{n}", "y" * 1990) for n in range(40)), method="POST")
    dialogue.send(in_frames(1, block, 0), data(1, b"content"))
    assert dialogue.reply().status == 431 and dialogue.reply().ended
    dialogue.send(data(1, b"", True))
    assert not dialogue.engine.streams and not dialogue.resets
    dialogue.assert_alive()


def test_a_list_within_the_limit_may_be_coded_wastefully(connect: Any) -> None:
    """A byte may take 28 bits, and what is announced is the size of the list, not of its code."""
    dialogue = connect(limits=Limits(head=8192))
    lengths = hpack.huffman_constants.REQUEST_CODES_LENGTH
    value = bytes((max(range(128, 256), key=lengths.__getitem__),)) * 5000
    block = dialogue.block("/", ("x", value))
    assert len(block) > 16384
    dialogue.send(in_frames(1, block))
    assert dialogue.exchange().head.fields[b"x"] == value
    dialogue.assert_alive()


def test_trailers_over_the_limit_in_continuations_are_answered_431(connect: Any) -> None:
    dialogue = connect()
    dialogue.send(dialogue.post(1))
    trailers = dialogue.encoder.encode([(f"x-{n}", "y" * 1990) for n in range(40)])
    dialogue.send(in_frames(1, trailers))
    assert dialogue.reply().status == 431 and dialogue.exchange().resets[0].status == 431
    dialogue.assert_alive()


@pytest.mark.parametrize("times", [EXPANSION, EXPANSION + 1])
def test_four_times_the_limit_is_where_the_connection_ends(connect: Any, times: int) -> None:
    dialogue = connect(limits=Limits(head=8192))
    whole = PLAIN + literal(b"y" * (8192 * times - 100))
    dialogue.send(in_frames(1, whole))
    if times > EXPANSION:
        dialogue.assert_dead(ENHANCE_YOUR_CALM)
        assert not dialogue.replies
    else:
        assert dialogue.reply().status == 431
        dialogue.assert_alive()


def test_large_lists_again_and_again_end_the_connection(connect: Any) -> None:
    """Each is work: they have the budget of made-you-reset."""
    dialogue = connect(limits=Limits(head=8192))
    whole = PLAIN + literal(b"y" * 17000)
    stream = 1
    while not dialogue.engine.closing and stream < 1000:
        dialogue.send(in_frames(stream, whole))
        stream += 2
    assert stream == 2 * 101 + 1
    dialogue.assert_dead(ENHANCE_YOUR_CALM)
