from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import RemoteProtocolError
from omnicorn.protocols.fastcgi.records import (
    END_REQUEST,
    MOST,
    NO_RECORD,
    STDOUT,
    end_request,
    join_params,
    read_header,
    record,
    split_params,
    stream_records,
    unknown_type,
)

_names = st.binary(max_size=300)


def test_a_record_is_as_the_specification_draws_it() -> None:
    assert record(STDOUT, 258, b"abc") == b"\x01\x06\x01\x02\x00\x03\x00\x00abc"
    assert end_request(1, 7, 2) == b"\x01\x03\x00\x01\x00\x08\x00\x00\x00\x00\x00\x07\x02\0\0\0"
    assert unknown_type(99) == b"\x01\x0b\x00\x00\x00\x08\x00\x00\x63\0\0\0\0\0\0\0"
    assert end_request(1, 0, 0)[1] == END_REQUEST


def test_what_is_no_record_has_no_version() -> None:
    assert read_header(NO_RECORD, 0)[0] == 0


@pytest.mark.parametrize(
    ("pairs", "block"),
    [
        ([], b""),
        ([(b"", b"")], b"\0\0"),
        ([(b"A", b"bc")], b"\x01\x02Abc"),
        ([(b"A" * 127, b"")], b"\x7f\0" + b"A" * 127),
        ([(b"A" * 128, b"b")], b"\x80\0\0\x80\x01" + b"A" * 128 + b"b"),
        ([(b"A", b"b" * 70000)], b"\x01\x80\x01\x11\x70A" + b"b" * 70000),
    ],
)
def test_pairs_have_short_and_long_lengths(pairs: list[tuple[bytes, bytes]], block: bytes) -> None:
    assert split_params(block) == pairs
    assert join_params(pairs) == block


def test_a_short_length_may_be_written_long() -> None:
    """§3.4 gives the choice; Apache takes it for values."""
    assert split_params(b"\x01\x80\0\0\x02Abc") == [(b"A", b"bc")]


@given(st.lists(st.tuples(_names, _names), max_size=8))
def test_pairs_survive(pairs: list[tuple[bytes, bytes]]) -> None:
    assert split_params(join_params(pairs)) == pairs


@given(st.lists(st.tuples(_names, _names), min_size=1, max_size=4), st.data())
def test_a_block_that_ends_too_early_is_refused(
    pairs: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    block = join_params(pairs)
    ends = {len(join_params(pairs[:count])) for count in range(len(pairs) + 1)}
    cut = data.draw(st.integers(0, len(block)))
    if cut in ends:
        assert len(split_params(block[:cut])) <= len(pairs)
    else:
        with pytest.raises(RemoteProtocolError, match="end within a name-value pair"):
            split_params(block[:cut])


@given(st.binary(max_size=200))
def test_any_bytes_are_pairs_or_refused(block: bytes) -> None:
    try:
        pairs = split_params(block)
    except RemoteProtocolError:
        return
    assert sum(len(name) + len(value) for name, value in pairs) <= len(block)


@pytest.mark.parametrize("size", [1, MOST, MOST + 1, 3 * MOST])
def test_a_stream_is_cut_into_as_few_records_as_it_needs(size: int) -> None:
    pieces = [b"x" * (size // 2), b"y" * (size - size // 2)]
    wire = b"".join(stream_records(STDOUT, 1, pieces))
    content = b""
    count = 0
    while wire:
        _, _, _, length, padding = read_header(wire, 0)
        content += wire[8 : 8 + length]
        wire = wire[8 + length + padding :]
        count += 1

    assert content == b"".join(pieces)
    assert count == (1 if size <= MOST else -(-size // 65528))


def test_pieces_that_fit_are_not_copied() -> None:
    piece = b"x" * 1000

    assert any(part is piece for part in stream_records(STDOUT, 1, [b"head", piece]))


def test_header_sizes_agree() -> None:
    assert len(record(STDOUT, 1)) == struct.calcsize(">BBHHBx") == 8
