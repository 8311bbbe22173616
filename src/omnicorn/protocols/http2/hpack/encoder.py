"""Header lists to header blocks (RFC 7541 §3, §6), and what goes into the peer's table.

What repeats on a connection goes into the table, at its second sighting: a value that comes
once would only displace others. Fields whose values nearly always differ never do, and
secrets never do either, on any hop of their way (RFC 7541 §7.1.3). The table is small, so one
pair may take a quarter of it at most.

An engine may remember a block if the encoder is `settled` after it: its list gives the same
block until `Encoder.generation` moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnicorn.protocols.http2.hpack.primitives import Strings, encode_integer, encode_string
from omnicorn.protocols.http2.hpack.table import (
    DEFAULT_SIZE,
    FIRST_DYNAMIC,
    OVERHEAD,
    STATIC,
    Pair,
    Table,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN, _SECRET, _INSERTED = 0x00, 0x10, 0x40  # RFC 7541 §6.2.2, §6.2.3, §6.2.1

_SIGHTINGS = 256
"""How many pairs may be waiting for their second sighting."""

_static_pairs = {pair: 128 | index for index, pair in enumerate(STATIC, 1)}
_static_names = {pair[0]: index for index, pair in reversed([*enumerate(STATIC, 1)])}


def _head(name: bytes, flags: int) -> bytes:
    """What stands before the value of a field that is not inserted."""
    index = _static_names.get(name)
    if index is None:
        return bytes((flags,)) + encode_string(name)
    return encode_integer(index, 15, flags)


_HEADS = {
    name: _head(name, flags)
    for flags, names in (
        (
            _PLAIN,
            b":path age content-length content-range etag last-modified location x-request-id",
        ),
        (_SECRET, b"authorization cookie proxy-authorization set-cookie"),
    )
    for name in names.split()
}
"""Names whose fields are never inserted."""


class Encoder:
    """Encodes the blocks of one connection, in their order.

    Args:
        strings: The memory of string literals.

    Attributes:
        generation: Grows whenever the dynamic table or its largest size changes.
        settled: The last block changed nothing, and the same list would give it again.
    """

    __slots__ = (
        "_inserted",
        "_met",
        "_names",
        "_pairs",
        "_smallest",
        "_strings",
        "_table",
        "generation",
        "settled",
    )

    def __init__(self, strings: Strings) -> None:
        self._strings = strings
        self._table = Table()
        self._smallest = -1  # what the table shrank to since the last block; -1: no change
        # Entries are numbered as they come; the newest, index 62, has the number `_inserted`.
        self._inserted = 0
        self._pairs: dict[Pair, int] = {}
        self._names: dict[bytes, int] = {}  # the newest entry of each name
        self._met: set[int] = set()  # hashes: a pair taken for another is inserted too early
        self.generation = 0
        self.settled = True

    def set_max_table_size(self, size: int) -> None:
        """Obey the peer's SETTINGS_HEADER_TABLE_SIZE; the next block tells it so.

        Args:
            size: In bytes; of more than 4096 only these are used.
        """
        size = min(size, DEFAULT_SIZE)
        if size != self._table.limit:
            self._smallest = size if self._smallest < 0 else min(size, self._smallest)
            self._forget(self._table.resize(size))
            self.generation += 1

    def encode(self, fields: Iterable[Pair]) -> bytes:
        """Encode a header list; names are lower case and everything is checked."""
        block = bytearray()
        append = block.append
        settled = True
        if self._smallest >= 0:
            # RFC 7541 §4.2: the smallest size in between, and the final one.
            limit = self._table.limit
            if self._smallest < limit:
                block += encode_integer(self._smallest, 31, 0x20)
            block += encode_integer(limit, 31, 0x20)
            self._smallest = -1
            settled = False
        pairs = self._pairs
        strings = self._strings
        newest = 190 + self._inserted  # 128 | 62, and what its number takes away
        for pair in fields:
            number = pairs.get(pair)
            if number is not None:
                octet = newest - number
                if octet < 255:
                    append(octet)
                else:
                    block += encode_integer(octet - 128, 127, 128)
                continue
            static = _static_pairs.get(pair)
            if static is not None:
                append(static)
                continue
            name, value = pair
            head = _HEADS.get(name)
            if head is None:
                size = len(name) + len(value) + OVERHEAD
                if size > self._table.limit >> 2:
                    head = self._name(name, 15, _PLAIN)
                else:
                    settled = False
                    if self._again(pair):
                        head = self._name(name, 63, _INSERTED)
                        self._insert(pair, size)
                        newest = 190 + self._inserted
                    else:
                        head = self._name(name, 15, _PLAIN)
            block += head
            literal = strings.encoded.get(value)
            block += strings.encode(value) if literal is None else literal
        self.settled = settled
        return bytes(block)

    def _again(self, pair: Pair) -> bool:
        """Whether *pair* was met before; from now on it was."""
        met = self._met
        key = hash(pair)
        if key in met:
            return True
        if len(met) >= _SIGHTINGS:
            met.clear()
        met.add(key)
        return False

    def _name(self, name: bytes, mask: int, flags: int) -> bytes:
        """Represent *name* by an index if there is one, else by a literal."""
        index = _static_names.get(name)
        if index is None:
            number = self._names.get(name)
            if number is None:
                literal = self._strings.encoded.get(name)
                return bytes((flags,)) + (literal or self._strings.encode(name))
            index = FIRST_DYNAMIC + self._inserted - number
        return encode_integer(index, mask, flags)

    def _insert(self, pair: Pair, size: int) -> None:
        self._forget(self._table.add(pair, size))
        self._inserted += 1
        self._pairs[pair] = self._names[pair[0]] = self._inserted
        self.generation += 1

    def _forget(self, evicted: list[Pair]) -> None:
        """Take what left the table out of the look-ups, which hold each pair once."""
        for pair in evicted:
            number = self._pairs.pop(pair)
            if self._names[pair[0]] == number:
                del self._names[pair[0]]
