"""The Huffman code of RFC 7541 Appendix B, both ways.

The code is canonical: a symbol's code follows from the lengths of all codes, so the 257
lengths are all that is written down.

Decoding walks the code's tree a byte at a time. A *row* stands for an inner node of the
tree. It has two entries for each byte: the symbols that end within its eight bits, and the
row of the node where it stops. (Two lists of 256 are smaller than one of pairs, and what stays
in the cache is what makes a walk fast.) A row is filled when a walk first meets a byte there,
so importing costs nothing, text only costs the rows that it needs, and no peer can cause more
than 257 of them. Symbols are characters on the way, because joining `str` is quicker than
joining `bytes`, and takes no buffer for each piece.

Long strings are decoded by zlib, ten times faster. DEFLATE (RFC 1951 §3.2.2) builds its codes
from lengths as this code was built, allows 15 bits, and has one symbol besides the bytes: the
end. Let that be the 15 ones that no common symbol's code begins with, and the code is complete:
so a block that begins by declaring these lengths, followed by the string with the bits of each
byte turned round, inflates to the string. Fifteen ones are put behind it for the end; whatever
ends elsewhere holds a rare symbol, or is broken, and is walked.
"""

from __future__ import annotations

import zlib
from typing import TypeAlias

from omnicorn.errors import Http2Error
from omnicorn.protocols.http2.codes import COMPRESSION_ERROR

_Row: TypeAlias = "tuple[list[str], list[_Row]]"

# The lengths of the codes of the 256 bytes and of EOS, as digits of base 32.
_LENGTHS = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777"
    "878djde6f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnn"
    "llmlnmnnkmmmnmmnqqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu"
)


def _codes() -> list[str]:
    """Give each symbol its code, as binary digits; EOS is symbol 256."""
    lengths = [int(digit, 32) for digit in _LENGTHS]
    codes = [""] * len(lengths)
    code = last = 0
    for symbol in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[symbol]
        code <<= length - last
        codes[symbol] = f"{code:0{length}b}"
        code += 1
        last = length
    return codes


_CODES = _codes()
_EOS = _CODES.pop()
_SYMBOLS = {code: chr(symbol) for symbol, code in enumerate(_CODES)}
_code_of = _CODES.__getitem__

# A node of the tree is named by the digits that lead to it. The node EOS has no way out.
_ROOT: _Row = ([], [])
_rows: dict[str, _Row] = {"": _ROOT}
_nodes: dict[int, str] = {id(_ROOT[1]): ""}
_same: dict[str, str] = {}  # equal pieces of text are one object, or they would be most of it


def _step(piece: str, node: str) -> tuple[str, str]:
    """Where a walk stands that has found *piece* and come to *node*."""
    symbol = _SYMBOLS.get(node)
    return (piece, node[: len(_EOS)]) if symbol is None else (piece + symbol, "")


def _fill(pieces: list[str], onward: list[_Row]) -> None:
    """Make the 256 entries of a row."""
    walks = [("", _nodes[id(onward)])]
    for _ in range(8):
        walks = [_step(piece, node + digit) for piece, node in walks for digit in "01"]
    for piece, node in walks:
        row = _rows.get(node)
        if row is None:
            row = _rows[node] = ([], [])
            _nodes[id(row[1])] = node
        pieces.append(_same.setdefault(piece, piece))
        onward.append(row)


_LONGEST = 15  # bits of a code, to DEFLATE
SHORT = 16
"""Coded bytes up to which walking is faster."""


def _deflate_header() -> bytes:
    """The begin of a block of DEFLATE with this code (RFC 1951 §3.2.7).

    Its own lengths are written by a code in which each of them takes four bits, except one,
    which takes five: with that, and with two distance codes of which one is used, the header
    ends with a byte.
    """
    out: list[str] = []

    def number(value: int, bits: int) -> None:
        out.append(f"{value:0{bits}b}"[::-1])

    number(1, 1)  # the last block
    number(2, 2)  # with codes of its own
    number(0, 5)  # 257 symbols: the bytes, and the end
    number(1, 5)  # 2 distances
    number(19 - 4, 4)
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
    for length in order:
        number(5 if length in (12, 18) else 4 if length < 16 else 0, 3)
    for length in (*_DEFLATE_LENGTHS, _LONGEST, 1, 0):
        if length == 12:
            out.append("11110")
        else:
            out.append(f"{length - (length > 12):04b}")
    bits = "".join(out)
    return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))


_DEFLATE_LENGTHS = bytes(length if length <= _LONGEST else 0 for length in map(len, _CODES))
_TURNED = bytes(int(f"{octet:08b}"[::-1], 2) for octet in range(256))
_END = b"\xff\x7f"  # fifteen ones and a zero, turned round
_block = zlib.decompressobj(-zlib.MAX_WBITS)
_block.decompress(_deflate_header())
_begin = _block.copy


def decode(coded: bytes) -> bytes:
    """Decode a string.

    Raises:
        Http2Error: It holds EOS, or its padding is not the first 0 to 7 bits of EOS
            (RFC 7541 §5.2).
    """
    if len(coded) > SHORT:
        block = _begin()
        # A symbol has five bits at least.
        plain = block.decompress(coded.translate(_TURNED) + _END, 2 * len(coded))
        # The end was found in the last byte: behind 0 to 6 bits of padding. One byte earlier it
        # is behind 7 of them, or too early.
        if block.eof and (
            not block.unused_data or sum(plain.translate(_DEFLATE_LENGTHS)) == 8 * len(coded) - 7
        ):
            return plain
    return _walk(coded)


def _walk(coded: bytes) -> bytes:
    """Decode any string; raises what `decode` does."""
    pieces, onward = _ROOT
    plain: list[str] = []
    append = plain.append
    octets = iter(coded)
    octet = 0
    while True:
        try:
            for octet in octets:
                append(pieces[octet])
                pieces, onward = onward[octet]
            break
        except IndexError:  # an empty row: only the first walks pay for this question
            _fill(pieces, onward)
            append(pieces[octet])
            pieces, onward = onward[octet]
    if _nodes[id(onward)] not in "1111111":
        raise Http2Error("a Huffman-coded string ends badly", COMPRESSION_ERROR)
    return "".join(plain).encode("latin-1")


def encode(plain: bytes) -> bytes:
    """Encode a string, padded with the first bits of EOS."""
    digits = "".join(map(_code_of, plain))
    size = (len(digits) + 7) >> 3
    return int(digits.ljust(size * 8, "1") or "0", 2).to_bytes(size, "big")
