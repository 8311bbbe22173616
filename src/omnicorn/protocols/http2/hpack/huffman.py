"""The Huffman code of RFC 7541 Appendix B, both ways.

The code is canonical: a symbol's code follows from the lengths of all codes, so the 257
lengths are all that is written down.

Decoding walks the code's tree a byte at a time. A *row* stands for an inner node of the
tree and has an entry for each byte: the symbols that end within its eight bits, and the row
of the node that it stops at. A row is filled when a walk first meets a byte there, so
importing costs nothing, text only costs the rows that it needs, and no peer can cause more
than 257 of them. Symbols are characters on the way, because joining `str` is quicker than
joining `bytes`, and takes no buffer for each piece.
"""

from __future__ import annotations

from typing import TypeAlias

from omnicorn.errors import Http2Error
from omnicorn.protocols.http2.codes import COMPRESSION_ERROR

_Row: TypeAlias = "list[tuple[str, _Row]]"

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
_ROOT: _Row = []
_rows: dict[str, _Row] = {"": _ROOT}
_nodes: dict[int, str] = {id(_ROOT): ""}


def _step(symbols: str, node: str) -> tuple[str, str]:
    """Where a walk stands that has found *symbols* and come to *node*."""
    found = _SYMBOLS.get(node)
    return (symbols, node[: len(_EOS)]) if found is None else (symbols + found, "")


def _fill(row: _Row) -> None:
    """Make the 256 entries of *row*."""
    walks = [("", _nodes[id(row)])]
    for _ in range(8):
        walks = [_step(symbols, node + digit) for symbols, node in walks for digit in "01"]
    for symbols, node in walks:
        target = _rows.get(node)
        if target is None:
            target = _rows[node] = []
            _nodes[id(target)] = node
        row.append((symbols, target))


def decode(coded: bytes) -> bytes:
    """Decode a string.

    Raises:
        Http2Error: It holds EOS, or its padding is not the first 0 to 7 bits of EOS
            (RFC 7541 §5.2).
    """
    row = _ROOT
    pieces: list[str] = []
    append = pieces.append
    octets = iter(coded)
    octet = 0
    while True:
        try:
            for octet in octets:
                symbols, row = row[octet]
                append(symbols)
            break
        except IndexError:  # an empty row: only the first walks pay for this question
            _fill(row)
            symbols, row = row[octet]
            append(symbols)
    if _nodes[id(row)] not in "1111111":
        raise Http2Error("a Huffman-coded string ends badly", COMPRESSION_ERROR)
    return "".join(pieces).encode("latin-1")


def encode(plain: bytes) -> bytes:
    """Encode a string, padded with the first bits of EOS."""
    digits = "".join(map(_code_of, plain))
    size = (len(digits) + 7) >> 3
    return int(digits.ljust(size * 8, "1") or "0", 2).to_bytes(size, "big")
