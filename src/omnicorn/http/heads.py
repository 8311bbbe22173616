"""The head of a response as an application gives it: judged in the same words, made only once.

Rules of this file, for every HTTP version:

1. Equal heads are made once they are remembered, and so are names and lengths judged (all in
   bounded memories); a head that differs in every response (an ETag, a cookie) costs one
   check of its values.
2. What cannot be sent is refused, for the same reasons whatever carries it: an application is
   not to know.
3. How a head is written, and what becomes of the fields that are the connection's business,
   the subclasses say, each in one walk over the fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from omnicorn.errors import LocalProtocolError
from omnicorn.http.fields import check_pair, explain_pair, match_length, match_token
from omnicorn.http.memo import Memo

Head = TypeVar("Head")


class HeadEncoder(Generic[Head]):
    """Encodes heads; one for all connections of a server, as it only remembers.

    Attributes:
        heads: Heads encoded before, by ``(status, *headers)``. Every eighth unknown one gets
            in: what is common is there soon, what is unique seldom displaces it.
    """

    __slots__ = ("_lengths", "_names", "_turn", "heads")

    _alone: frozenset[bytes]
    """Fields of a final response's head and of nothing else, in lower case."""

    def __init__(self) -> None:
        self.heads: Memo[object, Head] = Memo(512, 4096)
        self._names: Memo[bytes, bytes] = Memo(1024, 64)
        self._lengths: Memo[bytes, int] = Memo(1024, 18)
        self._turn = 0

    def encode(self, key: tuple[Any, ...]) -> Head:
        """Encode a final response's head.

        Args:
            key: ``(status, *headers)``: 200 to 999, then (name, value) pairs of bytes.

        Raises:
            LocalProtocolError: Naming the field that cannot be sent and why.
        """
        try:
            head = self.heads.get(key) if type(key[0]) is int else None  # 200.0 == 200
        except TypeError:
            # Pairs given as lists cannot be hashed; what is no pair at all is explained.
            key = (key[0], *map(check_pair, key[1:]))
            head = self.heads.get(key)
        return head or self.encode_unknown(key)

    def encode_unknown(self, key: tuple[Any, ...]) -> Head:
        """`encode` for a key that can be hashed and is not in `heads`."""
        status = key[0]
        if type(status) is not int or not 200 <= status <= 999:
            raise LocalProtocolError(
                f"a final response's status must be an integer from 200 to 999, not {status!r}"
            )
        head = self._encode(status, key[1:])
        self._turn -= 1
        if self._turn < 0:
            self._turn = 7
            size = sum([len(name) + len(value) for name, value in key[1:]])
            self.heads.remember(key, head, 2 * size)
        return head

    def check_fields(self, headers: Iterable[Any]) -> list[tuple[bytes, bytes]]:
        """Fields of an informational response or a trailer section, checked.

        Raises:
            LocalProtocolError: Naming the field that cannot be sent and why.
        """
        if not isinstance(headers, Iterable):
            raise explain_pair(headers)
        fields = []
        for pair in headers:
            name, value = check_pair(pair)
            if name.lower() in self._alone:
                raise LocalProtocolError(f"the field {name!r} cannot be sent here")
            fields.append((name, value))
        return fields

    # ------------------------------------------------------------------ for the walk

    def _learn_name(self, name: bytes) -> bytes:
        """Judge a name; returns what `_write_name` makes of it, which stands in `_names`.

        Raises:
            ValueError: It is no token.
        """
        if match_token(name) is None:
            raise ValueError(name)
        return self._names.remember(name, self._write_name(name), len(name))

    def _learn_length(self, value: bytes) -> int:
        """Judge a ``content-length``, which then stands in `_lengths`.

        Raises:
            LocalProtocolError: It is no number.
            TypeError: It is not of bytes.
        """
        if isinstance(value, bytes):
            if match_length(value) is None:
                raise LocalProtocolError(f"content-length is no number: {value!r:.80}")
            return self._lengths.remember(value, int(value), len(value))
        raise TypeError(value)

    # ------------------------------------------------------------------ of the subclass

    def _encode(self, status: int, headers: tuple[Any, ...]) -> Head:
        raise NotImplementedError

    def _write_name(self, name: bytes) -> bytes:
        """What a field with this name begins with, or a mark for the walk."""
        raise NotImplementedError
