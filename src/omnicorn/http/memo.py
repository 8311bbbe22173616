"""Bounded memory of pure functions: identical bytes parse to an identical, immutable result.

A `Memo` is a dict that a hostile peer can fill but not grow: it holds at most `entries`
keys of at most `key_bytes` bytes each, and starts anew when it is full. Starting anew is
deliberate: evicting one key at a time (LRU) would cost every hit a write, and what is
really common is back within a few requests.

Only immutable values go in, because every later hit shares them.
"""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(dict[K, V]):
    """A dict with a bound; read it with ``get`` or ``[]``, write it with `remember`."""

    __slots__ = ("entries", "key_bytes")

    def __init__(self, entries: int, key_bytes: int) -> None:
        super().__init__()
        self.entries = entries
        self.key_bytes = key_bytes

    def remember(self, key: K, value: V, size: int) -> V:
        """Keep *value* under *key* if *size* (the key's bytes) is within bounds; return it."""
        if size <= self.key_bytes:
            if len(self) >= self.entries:
                self.clear()
            self[key] = value
        return value
