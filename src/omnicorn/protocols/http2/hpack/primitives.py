"""Integers (RFC 7541 §5.1), string literals (§5.2), and the memory of those seen before.

`Strings` is shared by all connections of a server. Strings that come again (names, values of
a page's every request) cost one look-up; those that never do (cookies, trace numbers) must
not displace them, so a string is remembered at its second sighting. What is remembered
depends on the string alone: a memory changes how long an answer takes, never the answer.
"""

from __future__ import annotations

from omnicorn.errors import Http2Error
from omnicorn.http.memo import Memo
from omnicorn.protocols.http2.codes import COMPRESSION_ERROR
from omnicorn.protocols.http2.hpack import huffman

LARGEST = 0x7FFFFFFF
"""The largest integer that is read; no length, index or size comes near it."""


def encode_integer(value: int, mask: int, flags: int) -> bytes:
    """Encode *value* behind *flags*; *mask* covers the prefix, the first byte's last bits."""
    if value < mask:
        return bytes((flags | value,))
    encoded = bytearray((flags | mask,))
    value -= mask
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """Decode what follows a prefix whose bits are all 1.

    Args:
        block: What holds it.
        position: Where it goes on, behind the prefix.
        mask: The prefix's value.

    Returns:
        The integer, and the position behind it.

    Raises:
        Http2Error: It is above `LARGEST`, or has more than five further bytes.
        IndexError: The block ends within it.
    """
    value = mask
    for shift in (0, 7, 14, 21, 28):
        octet = block[position]
        position += 1
        value += (octet & 127) << shift
        if octet < 128:
            if value > LARGEST:
                break
            return value, position
    raise Http2Error("an integer is too large", COMPRESSION_ERROR)


def encode_string(plain: bytes) -> bytes:
    """Make the shorter of a string's two literals."""
    coded = huffman.encode(plain)
    if len(coded) < len(plain):
        return encode_integer(len(coded), 127, 128) + coded
    return encode_integer(len(plain), 127, 0) + plain


class Strings:
    """The string literals that were met before, on any connection.

    Args:
        entries: How many are kept, each way.
        size: Longer ones, in bytes, are not kept.

    Attributes:
        decoded: What Huffman-coded strings mean; read by the decoder before it asks `decode`.
        encoded: The literals of strings; read by the encoder before it asks `encode`.
    """

    __slots__ = ("_met_plain", "decoded", "encoded")

    def __init__(self, entries: int = 1024, size: int = 256) -> None:
        self.decoded: Memo[bytes, bytes] = Memo(entries, size)
        self.encoded: Memo[bytes, bytes] = Memo(entries, size)
        # Met once. They share the bounds of what is met again.
        self._met_plain: Memo[bytes, None] = Memo(entries, size)

    def decode(self, coded: bytes) -> bytes:
        """Decode a Huffman-coded string that `decoded` does not know.

        Raises:
            Http2Error: As `huffman.decode` does.
        """
        return self.decoded.remember(coded, huffman.decode(coded), len(coded))

    def encode(self, plain: bytes) -> bytes:
        """Encode a string that `encoded` does not know, as `encode_string` does."""
        literal = encode_string(plain)
        if plain in self._met_plain:
            self.encoded.remember(plain, literal, len(plain))
        else:
            self._met_plain.remember(plain, None, len(plain))
        return literal
