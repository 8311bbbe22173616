"""Masking (RFC 6455 §5.3): every byte of the content XOR one of the four of the key.

Decided here: how to do that without a loop over bytes. Content of ordinary size goes
through one wide integer. Integers cost 4 ns a byte to make and unmake, so large content
goes through translation tables instead, one for each byte of the key over every fourth
byte. A compiled routine does either job in a hundredth of that and is taken where one is
installed (``omnicorn[speedups]``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Unmask = Callable[[bytes | bytearray | memoryview, bytes], bytes]

_LARGE = 8192
"""Bytes from which on tables win (measured; they start at 1.2 us)."""

_tables: list[bytes] = []


def unmask(content: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """Mask or unmask *content* with the four bytes of *key*; the same both ways."""
    size = len(content)
    if size >= _LARGE:
        return _by_tables(content, key)
    wide = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(content, "big") ^ int.from_bytes(wide, "big")).to_bytes(size, "big")


def _by_tables(content: bytes | bytearray | memoryview, key: bytes) -> bytes:
    if not _tables:
        _tables.extend(bytes(value ^ byte for value in range(256)) for byte in range(256))
    content = bytes(content)
    out = bytearray(len(content))
    for offset in range(4):
        out[offset::4] = content[offset::4].translate(_tables[key[offset]])
    return bytes(out)


def fastest() -> Unmask:
    """The compiled routine of the websockets library, or `unmask` where there is none."""
    try:
        from websockets.speedups import apply_mask
    except ImportError:
        return unmask
    return apply_mask
