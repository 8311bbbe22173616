"""Header blocks to header lists (RFC 7541 §3, §6), within limits.

Rules of this file:

1. What cannot be decoded breaks the connection, for both tables may then differ
   (RFC 7541 §2.2, RFC 9113 §4.3). A list that is too large does not: its block is
   read to the end, and the list alone is lost.
2. No peer can make a list grow past its block. A field is a reference to the table's own
   pair, so a byte costs a pointer, however long the pair. What counts towards the limit is
   first estimated from above, and added up only if the estimate is beyond the limit.
3. Equal blocks against equal tables give equal lists, whatever `Strings` remembers.

An engine may remember blocks that do not change the table: they mean the same until
`Decoder.generation` moves.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from omnicorn.errors import Http2Error, LimitExceeded
from omnicorn.protocols.http2.codes import COMPRESSION_ERROR
from omnicorn.protocols.http2.hpack import huffman
from omnicorn.protocols.http2.hpack.huffman import SHORT
from omnicorn.protocols.http2.hpack.primitives import Strings, decode_integer
from omnicorn.protocols.http2.hpack.table import (
    DEFAULT_SIZE,
    FIRST_DYNAMIC,
    OVERHEAD,
    STATIC,
    Pair,
    Table,
)

_LARGEST_STATIC = max(len(name) + len(value) for name, value in STATIC) + OVERHEAD


def _size(fields: list[Pair]) -> int:
    """What a list counts for (RFC 9113 §6.5.2)."""
    size = len(fields) * OVERHEAD
    for name, value in fields:
        size += len(name) + len(value)
    return size


class Decoder:
    """Decodes the blocks of one connection, in their order.

    Args:
        strings: The memory of string literals.
        max_list_size: The largest list, in bytes as RFC 9113 §6.5.2 counts them.
        table_size: Our SETTINGS_HEADER_TABLE_SIZE: the size that the dynamic table begins
            with, and that no update may exceed.

    Attributes:
        generation: Grows whenever the dynamic table changes.
        literals: The pairs of the last block that were written out; the others stood in a
            table, and so in an earlier block.
    """

    __slots__ = (
        "_largest",
        "_max_list_size",
        "_strings",
        "_table",
        "_table_size",
        "generation",
        "literals",
    )

    def __init__(
        self, strings: Strings, max_list_size: int = 65536, table_size: int = DEFAULT_SIZE
    ) -> None:
        self._strings = strings
        self._max_list_size = max_list_size
        self._table_size = table_size
        self._table = Table(table_size)
        self._largest = _LARGEST_STATIC  # no entry that a block could refer to is larger
        self.generation = 0
        self.literals: list[Pair] = []

    def decode(self, block: bytes) -> tuple[Pair, ...]:
        """Decode a complete header block.

        Returns:
            Its pairs of name and value, in order. They are not checked (RFC 9113 §8.2).

        Raises:
            Http2Error: The block is broken (COMPRESSION_ERROR).
            LimitExceeded: The list is too large. The decoder can go on.
        """
        # Written out where a browser's blocks come by: indices of one byte, and literals of known
        # names. An iterator finds the next byte for less than any position does.
        table = self._table
        entries = table.entries
        used = table.used
        room = table.limit
        limit = self._max_list_size
        fields: Any = []  # a list
        written = self.literals = []
        literals = 0  # the size of all literal fields
        updates = 0
        changed = False
        end = len(block)
        octets: Any = iter(block)
        left = octets.__length_hint__
        seek = octets.__setstate__
        try:
            for first in octets:
                if first > 128:  # RFC 7541 §6.1: an index
                    if first < 255:
                        fields.append(entries[first - 128])
                        continue
                    index, position = decode_integer(block, end - left(), 127)
                    seek(position)
                    fields.append(entries[index])
                    continue
                position = end - left()
                if first >= 64:  # §6.2.1: a literal, to be inserted
                    if first == 128:
                        raise Http2Error("an index is out of range", COMPRESSION_ERROR)
                    mask = 63
                elif first < 32:  # §6.2.2, §6.2.3: a literal, not to be inserted
                    mask = 15
                else:  # §6.3: a size update
                    size = first & 31
                    if size == 31:
                        size, position = decode_integer(block, position, 31)
                        seek(position)
                    updates += 1
                    # §4.2: at the start of a block; the smallest and the final size.
                    if literals or fields or updates > 2:
                        raise Http2Error("a table size update is misplaced", COMPRESSION_ERROR)
                    if size > self._table_size:
                        raise Http2Error("a table size update is too large", COMPRESSION_ERROR)
                    table.resize(size)
                    used = table.used
                    room = size
                    changed = True
                    continue
                index = first & mask
                if index:
                    if index == mask:
                        index += block[position]
                        position += 1
                        if index >= mask + 128:
                            index, position = decode_integer(block, position - 1, mask)
                    name = entries[index][0]
                else:
                    name, position = self._string(block, position)
                length = block[position]
                if length < 255 and length != 127:
                    start = position + 1
                    position = start + (length & 127)
                    value = block[start:position]
                    if position > end:
                        raise Http2Error("a header block is cut short", COMPRESSION_ERROR)
                    if length > 128:
                        if length > 128 + SHORT and mask == 63:
                            value = huffman.decode(value)  # it comes once, and then as an index
                        else:
                            value = self._strings.decoded.get(value) or self._strings.decode(value)
                else:
                    value, position = self._string(block, position)
                seek(position)
                pair = (name, value)
                size = len(name) + len(value) + OVERHEAD
                literals += size
                if literals > limit:
                    fields = deque(maxlen=0)  # the rest is read, and not kept
                    written.clear()
                else:
                    fields.append(pair)
                    written.append(pair)
                if mask == 63:
                    # `Table.add`, written out
                    used += size
                    if used > room:
                        if size > room:
                            table.clear()
                            used = 0
                            changed = True
                            continue
                        while used > room:
                            gone = entries.pop()
                            used -= len(gone[0]) + len(gone[1]) + OVERHEAD
                    entries.insert(FIRST_DYNAMIC, pair)
                    if size > self._largest:
                        self._largest = size
                    changed = True
        except IndexError:
            raise Http2Error(
                "a header block is cut short, or has an index out of range", COMPRESSION_ERROR
            ) from None
        table.used = used
        if changed:
            self.generation += 1
        if literals + len(fields) * self._largest > limit and (
            literals > limit or _size(fields) > limit
        ):
            raise LimitExceeded("the header list is too large", 431, limit)
        return tuple(fields)

    def _string(self, block: bytes, position: int) -> tuple[bytes, int]:
        """Read the string literal at *position*; give it and the position behind it."""
        first = block[position]
        position += 1
        length = first & 127
        if length == 127:
            length, position = decode_integer(block, position, 127)
        stop = position + length
        if stop > len(block):
            raise Http2Error("a header block is cut short", COMPRESSION_ERROR)
        octets = block[position:stop]
        if first < 128:
            return octets, stop
        if length > SHORT:
            return huffman.decode(octets), stop
        plain = self._strings.decoded.get(octets)
        return (self._strings.decode(octets) if plain is None else plain), stop
