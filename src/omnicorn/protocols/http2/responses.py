"""Status and fields of a response to a field list, checked, and each distinct head only once.

Rules of this file:

1. Nothing the application says can break the message: names are tokens (so it has no
   pseudo-header fields of its own) and go out in lower case (RFC 9113 §8.2), values hold no
   control byte, and white space around them is taken away (§8.2.1).
2. Connection-specific fields, which make a message malformed here (RFC 9113 §8.2.2), are
   dropped: applications say them for HTTP/1.
3. Refusals are those of HTTP/1.1, in the same words: an application is not to know what
   carries it.
4. Equal heads are made once they are remembered, and names are checked once, as for HTTP/1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from omnicorn.errors import LocalProtocolError
from omnicorn.http.defaults import HAS_DATE, HAS_SERVER
from omnicorn.http.fields import (
    CONNECTION_FIELDS,
    are_values,
    check_pair,
    explain_pair,
    match_length,
    match_token,
)
from omnicorn.http.memo import Memo
from omnicorn.http.status import forbids_content

_Pair = tuple[bytes, bytes]

_CONTENT_LENGTH = b"content-length"
_SERVER = b"server"
_DATE = b"date"
_DROPPED = b""
# Found by identity: what `_names` gives for one of these names.
_SPECIAL = {name: name for name in (_CONTENT_LENGTH, _SERVER, _DATE)}
_SPECIAL |= dict.fromkeys(CONNECTION_FIELDS, _DROPPED)

_NOT_HERE = CONNECTION_FIELDS | {_CONTENT_LENGTH, b"host"}


class ResponseHead:
    """A checked head; never changed once it is made, and shared.

    Attributes:
        fields: ``:status`` first, then what the application gave.
        length: The ``content-length`` it gave; -1 without one.
        own: `HAS_SERVER` and `HAS_DATE` for fields it gave itself.
        no_content: The status forbids content (RFC 9110 §6.4.1).
    """

    __slots__ = ("fields", "length", "no_content", "own")

    fields: tuple[_Pair, ...]
    length: int
    own: int
    no_content: bool


class ResponseEncoder:
    """Prepares heads; one for all connections of a server, as it only remembers.

    Attributes:
        heads: Heads prepared before, by ``(status, *headers)``. Every eighth unknown one gets
            in: what is common is there soon, what is unique seldom displaces it.
    """

    __slots__ = ("_lengths", "_names", "_turn", "heads")

    def __init__(self) -> None:
        self.heads: Memo[object, ResponseHead] = Memo(512, 4096)
        self._names: Memo[bytes, bytes] = Memo(1024, 64)
        self._lengths: Memo[bytes, int] = Memo(1024, 18)
        self._turn = 0

    def prepare(self, key: tuple[Any, ...]) -> ResponseHead:
        """Check a final response's head.

        Args:
            key: ``(status, *headers)``: 200 to 999, then (name, value) pairs of bytes.

        Raises:
            LocalProtocolError: Naming the field that cannot be sent and why.
        """
        status = key[0]
        try:
            head = self.heads.get(key) if type(status) is int else None  # 200.0 == 200
        except TypeError:
            # Pairs given as lists cannot be hashed; what is no pair at all is explained.
            key = (status, *map(check_pair, key[1:]))
            head = self.heads.get(key)
        if head is not None:
            return head
        if type(status) is not int or not 200 <= status <= 999:
            raise LocalProtocolError(
                f"a final response's status must be an integer from 200 to 999, not {status!r}"
            )
        head = self._prepare(status, key[1:])
        self._turn -= 1
        if self._turn < 0:
            self._turn = 7
            size = sum(len(name) + len(value) for name, value in key[1:])
            self.heads.remember(key, head, 2 * size)
        return head

    def _prepare(self, status: int, headers: tuple[Any, ...]) -> ResponseHead:
        fields: list[_Pair] = [(b":status", b"%d" % status)]
        values = []
        length = -1
        own = 0
        names = self._names
        try:
            for name, value in headers:
                lower = names.get(name)
                if lower is None:
                    lower = self._learn_name(name)
                values.append(value)
                if lower is _CONTENT_LENGTH:
                    number = self._lengths.get(value)
                    if number is None:
                        number = self._learn_length(value)
                    if length >= 0:
                        if number != length:
                            raise LocalProtocolError("there are several content-length values")
                        continue
                    length = number
                    if status == 204:  # RFC 9110 §8.6: never in a 204
                        continue
                elif lower is _DROPPED:
                    continue
                elif lower is _SERVER:
                    own |= HAS_SERVER
                elif lower is _DATE:
                    own |= HAS_DATE
                fields.append((lower, value))
            sound = are_values(values)
        except (TypeError, ValueError, AttributeError):
            sound = False
        if not sound:
            for pair in headers:
                check_pair(pair)
            fields = [(name, value.strip(b" \t")) for name, value in fields]
        head = ResponseHead()
        head.fields = tuple(fields)
        head.length = length
        head.own = own
        head.no_content = forbids_content(status)
        return head

    def _learn_name(self, name: bytes) -> bytes:
        """The name in lower case; `_DROPPED` for those that are not sent."""
        if match_token(name) is None:
            raise ValueError(name)
        lower = name.lower()
        return self._names.remember(name, _SPECIAL.get(lower, lower), len(name))

    def _learn_length(self, value: bytes) -> int:
        if isinstance(value, bytes):
            if match_length(value) is None:
                raise LocalProtocolError(f"content-length is no number: {value!r:.80}")
            return self._lengths.remember(value, int(value), len(value))
        raise TypeError(value)

    def prepare_fields(self, headers: Iterable[Any]) -> tuple[_Pair, ...]:
        """Fields of an informational response or a trailer section, checked.

        Raises:
            LocalProtocolError: Naming the field that cannot be sent and why.
        """
        if not isinstance(headers, Iterable):
            raise explain_pair(headers)
        fields = []
        for pair in headers:
            name, value = check_pair(pair)
            lower = name.lower()
            if lower in _NOT_HERE:
                raise LocalProtocolError(f"the field {name!r} cannot be sent here")
            fields.append((lower, value.strip(b" \t")))
        return tuple(fields)
