"""The Huffman code: against RFC 7541 Appendix B as `hpack` has it, and §5.2's three errors."""

from __future__ import annotations

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import Http2Error
from omnicorn.protocols.http2.codes import COMPRESSION_ERROR
from omnicorn.protocols.http2.hpack import huffman

theirs = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

EOS = "1" * 30


def octets(digits: str) -> bytes:
    """Binary digits, a multiple of eight."""
    assert len(digits) % 8 == 0
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


@pytest.mark.parametrize("symbol", range(256))
def test_every_symbol_has_the_code_of_appendix_b(symbol: int) -> None:
    code = f"{REQUEST_CODES[symbol]:0{REQUEST_CODES_LENGTH[symbol]}b}"
    padded = octets(code + "1" * (-len(code) % 8))
    assert huffman.encode(bytes((symbol,))) == padded
    assert huffman.decode(padded) == bytes((symbol,))


def test_any_two_symbols_in_a_row_come_back() -> None:
    """Each row of the decoder is left in the middle of a byte by some of these."""
    for first in range(256):
        plain = bytes(octet for second in range(256) for octet in (first, second))
        assert huffman.decode(huffman.encode(plain)) == plain


@given(st.binary(max_size=300))
def test_what_is_encoded_is_what_a_peer_encodes(plain: bytes) -> None:
    coded = huffman.encode(plain)
    assert coded == (theirs.encode(plain) if plain else b"")
    assert huffman.decode(coded) == plain


def test_the_empty_string_is_empty() -> None:
    assert huffman.encode(b"") == b""
    assert huffman.decode(b"") == b""


@given(st.binary(max_size=40))
def test_any_bytes_mean_what_they_mean_to_a_peer(coded: bytes) -> None:
    """Longer padding than 7 bits and EOS are errors to both."""
    try:
        expected = decode_huffman(coded)
    except Exception:
        with pytest.raises(Http2Error):
            huffman.decode(coded)
    else:
        assert huffman.decode(coded) == expected


@pytest.mark.parametrize("ones", range(8))
def test_up_to_seven_ones_are_padding(ones: int) -> None:
    count = next(count for count in range(8) if (5 * count + ones) % 8 == 0)
    # "0" has the code 00000, "&" has 11111000.
    assert huffman.decode(octets("11111000" + "00000" * count + "1" * ones)) == b"&" + b"0" * count


@pytest.mark.parametrize(
    "digits",
    [
        pytest.param("00000" * 8 + "1" * 8, id="eight bits of padding"),
        pytest.param("1" * 8, id="nothing but padding"),
        pytest.param("1" * 16, id="two bytes of padding"),
        pytest.param("00000" + "000", id="padding of zeros"),
        pytest.param("00000" + "110", id="padding that ends in a zero"),
        pytest.param("00000" + "011", id="padding that begins with a zero"),
        pytest.param("1" * 23 + "0", id="cut within a symbol"),
        pytest.param(EOS + "11", id="EOS"),
        pytest.param(EOS + "00000" + "11111", id="EOS, then a symbol"),
        pytest.param("00000" * 2 + EOS, id="EOS as padding"),
        pytest.param(EOS + "1" * 26, id="EOS twice, nearly"),
    ],
)
def test_bad_endings_are_errors(digits: str) -> None:
    for _ in range(2):  # before and after the rows are filled
        with pytest.raises(Http2Error) as caught:
            huffman.decode(octets(digits))
        assert caught.value.code == COMPRESSION_ERROR


def test_rows_are_bounded_by_the_tree() -> None:
    for plain in (bytes(range(256)), bytes(range(255, -1, -1))):
        huffman.decode(huffman.encode(plain * 3))
    with pytest.raises(Http2Error):
        huffman.decode(b"\xff" * 100)
    assert len(huffman._rows) <= 257
    assert {len(part) for row in huffman._rows.values() for part in row} <= {0, 256}


def _never(coded: bytes) -> bytes:
    raise AssertionError(f"{coded!r} was walked")


@given(st.text("etaoin0123456789abcdef-=;/", min_size=30, max_size=400))
def test_long_strings_of_common_symbols_take_the_short_way(text: str) -> None:
    plain = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huffman, "_walk", _never)
        assert huffman.decode(huffman.encode(plain)) == plain


@given(st.binary(min_size=huffman.SHORT + 1, max_size=80))
def test_the_short_way_never_differs_from_the_walk(coded: bytes) -> None:
    """Any bytes at all: broken, with rare symbols, with all kinds of padding."""
    try:
        walked: bytes | None = huffman._walk(coded)
    except Http2Error:
        walked = None
    try:
        decoded: bytes | None = huffman.decode(coded)
    except Http2Error:
        decoded = None
    assert decoded == walked


@pytest.mark.parametrize("last", [b"0", b"a", b"w", b"b", b":", b"&", b"X", b"!", b"'", b"#", b"~"])
def test_every_length_of_padding_is_found_by_the_short_way(
    last: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huffman, "_walk", _never)
    for length in range(17, 40):
        plain = b"0" * (2 * length) + last
        assert huffman.decode(huffman.encode(plain)) == plain
