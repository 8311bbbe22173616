"""Integers (RFC 7541 §5.1) at their edges, string literals (§5.2), and what is remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import Http2Error
from omnicorn.protocols.http2.codes import COMPRESSION_ERROR
from omnicorn.protocols.http2.hpack import Strings, huffman
from omnicorn.protocols.http2.hpack.primitives import (
    LARGEST,
    decode_integer,
    encode_integer,
    encode_string,
)

MASKS = [15, 31, 63, 127]


@pytest.mark.parametrize(
    ("value", "mask", "encoded"),
    [
        pytest.param(10, 31, "0a", id="C.1.1"),
        pytest.param(1337, 31, "1f9a0a", id="C.1.2"),
        pytest.param(42, 255, "2a", id="C.1.3"),
        pytest.param(30, 31, "1e", id="largest in the prefix"),
        pytest.param(31, 31, "1f00", id="smallest beyond the prefix"),
        pytest.param(31 + 127, 31, "1f7f", id="largest in two bytes"),
        pytest.param(31 + 128, 31, "1f8001", id="smallest in three bytes"),
        pytest.param(LARGEST, 127, "ff80ffffff07", id="largest"),
    ],
)
def test_integers_are_written_as_the_rfc_says(value: int, mask: int, encoded: str) -> None:
    written = encode_integer(value, mask, 0x80 if encoded.startswith("ff") else 0)
    assert written.hex() == encoded
    if value >= mask:
        assert decode_integer(written, 1, mask) == (value, len(written))


@given(st.integers(0, LARGEST), st.sampled_from(MASKS))
def test_integers_come_back(value: int, mask: int) -> None:
    encoded = encode_integer(value, mask, 0)
    if value < mask:
        assert encoded == bytes((value,))
    else:
        assert decode_integer(encoded + b"\xff", 1, mask) == (value, len(encoded))


@pytest.mark.parametrize(
    "further",
    [
        pytest.param("ffffffff08", id="above 2^31"),
        pytest.param("81ffffff07", id="2^31"),
        pytest.param("808080808000", id="six bytes that say nothing"),
        pytest.param("ffffffffffffffffffff", id="without end"),
    ],
)
def test_integers_that_are_too_large_are_errors(further: str) -> None:
    with pytest.raises(Http2Error) as caught:
        decode_integer(bytes.fromhex(further), 0, 127)
    assert caught.value.code == COMPRESSION_ERROR


def test_the_largest_integer_is_read() -> None:
    assert decode_integer(bytes.fromhex("80ffffff07"), 0, 127) == (LARGEST, 5)


def test_zeros_may_follow_within_five_bytes() -> None:
    """RFC 7541 §5.1 does not demand the shortest form."""
    assert decode_integer(bytes.fromhex("8080808000"), 0, 127) == (127, 5)


@pytest.mark.parametrize("block", [b"", b"\x80", b"\xff\xff\xff\xff"])
def test_an_integer_that_is_cut_short_is_an_index_error(block: bytes) -> None:
    with pytest.raises(IndexError):
        decode_integer(block, 0, 127)


def test_the_shorter_literal_is_chosen() -> None:
    assert encode_string(b"www.example.com").hex() == "8cf1e3c2e5f23a6ba0ab90f4ff"
    assert encode_string(b"\x00\x01") == b"\x02\x00\x01"  # 13 and 23 bits in Huffman's code
    assert encode_string(b"00") == b"\x0200"  # two bytes either way
    assert encode_string(b"") == b"\x00"


@pytest.mark.parametrize("size", [126, 127, 128, 300, 5000])
def test_long_literals_have_long_lengths(size: int) -> None:
    plain = b"\xff" * size  # 26 bits each
    literal = encode_string(plain)
    assert literal == encode_integer(size, 127, 0) + plain
    literal = encode_string(b"e" * size)
    coded = huffman.encode(b"e" * size)
    assert literal == encode_integer(len(coded), 127, 128) + coded


def test_strings_are_encoded_from_memory_after_their_second_sighting() -> None:
    strings = Strings()
    for _ in range(2):
        assert b"text/html" not in strings.encoded
        strings.encode(b"text/html")
    assert strings.encoded[b"text/html"] == strings.encode(b"text/html")


def test_strings_are_decoded_once() -> None:
    strings = Strings()
    coded = huffman.encode(b"text/html")
    assert strings.decode(coded) == b"text/html"
    assert strings.decoded == {coded: b"text/html"}


def test_strings_that_come_once_displace_nothing() -> None:
    strings = Strings(entries=4)
    often = [b"often-%d" % number for number in range(4)]
    for plain in often * 2:
        strings.encode(plain)
    for number in range(100):
        strings.encode(b"once-%d" % number)
    assert list(strings.encoded) == often


def test_long_strings_are_not_remembered() -> None:
    strings = Strings(size=10)
    for _ in range(3):
        strings.encode(b"e" * 40)
    assert not strings.encoded


def test_a_peer_can_fill_the_memory_but_not_grow_it() -> None:
    strings = Strings(entries=8)
    for number in range(1000):
        for _ in range(2):
            strings.decode(huffman.encode(b"%d" % number))
            strings.encode(b"%d" % number)
    memories = (strings.decoded, strings.encoded, strings._met_plain)
    assert all(0 < len(memory) <= 8 for memory in memories)


def test_broken_strings_are_not_remembered() -> None:
    strings = Strings()
    for _ in range(3):
        with pytest.raises(Http2Error):
            strings.decode(b"\xff\xff")
    assert not strings.decoded
