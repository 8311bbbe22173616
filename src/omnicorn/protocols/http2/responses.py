"""Status and fields of a response to a field list, checked, and each distinct head only once.

Rules of this file; what holds for every version stands in `HeadEncoder`:

1. Nothing the application says can break the message: names are tokens (so it has no
   pseudo-header fields of its own) and go out in lower case (RFC 9113 §8.2), values hold no
   control byte, and white space around them is taken away (§8.2.1).
2. Connection-specific fields, which make a message malformed here (RFC 9113 §8.2.2), are
   dropped: applications say them for HTTP/1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.errors import LocalProtocolError
from omnicorn.http.defaults import HAS_DATE, HAS_SERVER
from omnicorn.http.fields import CONNECTION_FIELDS, are_values, check_pair
from omnicorn.http.heads import HeadEncoder
from omnicorn.http.status import forbids_content

if TYPE_CHECKING:
    from collections.abc import Iterable

_Pair = tuple[bytes, bytes]

_CONTENT_LENGTH = b"content-length"
_SERVER = b"server"
_DATE = b"date"
_DROPPED = b""
# Found by identity: what `_names` gives for one of these names.
_SPECIAL = {name: name for name in (_CONTENT_LENGTH, _SERVER, _DATE)}
_SPECIAL |= dict.fromkeys(CONNECTION_FIELDS, _DROPPED)


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


class ResponseEncoder(HeadEncoder[ResponseHead]):
    """See `HeadEncoder`."""

    __slots__ = ()

    _alone = CONNECTION_FIELDS | {_CONTENT_LENGTH, b"host"}

    def _encode(self, status: int, headers: tuple[Any, ...]) -> ResponseHead:
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

    def _write_name(self, name: bytes) -> bytes:
        """The name in lower case; `_DROPPED` for those that are not sent."""
        lower = name.lower()
        return _SPECIAL.get(lower, lower)

    def prepare_fields(self, headers: Iterable[Any]) -> tuple[_Pair, ...]:
        """Fields of an informational response or a trailer section, checked."""
        return tuple(
            [(name.lower(), value.strip(b" \t")) for name, value in self.check_fields(headers)]
        )
