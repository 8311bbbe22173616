"""Status and fields of a response to bytes, checked, and each distinct head only once.

Rules of this file; what holds for every version stands in `HeadEncoder`:

1. Nothing the application says can break the framing: names are tokens, values hold no
   CR, LF or NUL (RFC 9110 §5.5, RFC 9112 §11.1); `transfer-encoding` is the server's to
   say and is dropped; `connection` is reduced to what it asks for.
2. Which bytes delimit the content (`content-length`, chunked, close) is not decided here
   but by the engine, which knows the request and the content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.errors import LocalProtocolError
from omnicorn.http.defaults import HAS_DATE, HAS_SERVER
from omnicorn.http.fields import check_pair, list_tokens, match_value
from omnicorn.http.heads import HeadEncoder
from omnicorn.http.status import forbids_content, status_line

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONTENT_LENGTH = b"content-length: "
_SPECIAL = b":"
_SPECIAL_NAMES = frozenset({b"connection", b"date", b"keep-alive", b"server", b"transfer-encoding"})


class ResponseHead:
    """An encoded head; never changed once it is made, and shared.

    Attributes:
        lines: Status line and field lines, without the empty line at the end.
        length: The ``content-length`` the application gave; -1 without one.
        close: The application said ``connection: close``.
        own: `HAS_SERVER` and `HAS_DATE` for fields the application gave itself.
        no_content: The status forbids content (RFC 9110 §6.4.1).
    """

    __slots__ = ("close", "length", "lines", "no_content", "own")

    lines: bytes
    length: int
    close: bool
    own: int
    no_content: bool


class ResponseEncoder(HeadEncoder[ResponseHead]):
    """See `HeadEncoder`."""

    __slots__ = ()

    _alone = frozenset({b"connection", b"content-length", b"host", b"transfer-encoding"})

    def _encode(self, status: int, headers: tuple[Any, ...]) -> ResponseHead:
        out = [status_line(status)]
        values = []
        length = -1
        close = False
        own = 0
        names = self._names
        try:
            for name, value in headers:
                start = names.get(name)
                if start is None:
                    start = self._learn_name(name)
                if start is _CONTENT_LENGTH:
                    number = self._lengths.get(value)
                    if number is None:
                        number = self._learn_length(value)
                    if length < 0 and status != 204:  # RFC 9110 §8.6: never in a 204
                        out += (start, value, b"\r\n")
                    elif length >= 0 and number != length:
                        raise LocalProtocolError("there are several content-length values")
                    length = number
                elif start is not _SPECIAL:
                    values.append(value)
                    out += (start, value, b"\r\n")
                else:
                    values.append(value)
                    lower = name.lower()
                    if lower == b"connection":
                        tokens = list_tokens(value)
                        close = close or b"close" in tokens
                        # The server says close and keep-alive itself, where they are true.
                        kept = [word for word in tokens if word not in (b"close", b"keep-alive")]
                        if kept:
                            out += (b"connection: ", b", ".join(kept), b"\r\n")
                    elif lower == b"server" or lower == b"date":
                        own |= HAS_SERVER if lower == b"server" else HAS_DATE
                        out += (name, b": ", value, b"\r\n")
                    # transfer-encoding (ASGI: must be ignored) and keep-alive are dropped.
            # All values in one go: legal bytes stay legal side by side.
            sound = match_value(b"".join(values)) is not None
        except (TypeError, ValueError, AttributeError):
            sound = False
        if not sound:
            for pair in headers:
                check_pair(pair)
        head = ResponseHead()
        head.lines = b"".join(out)
        head.length = length
        head.close = close
        head.own = own
        head.no_content = forbids_content(status)
        return head

    def _write_name(self, name: bytes) -> bytes:
        """The start of a line with this name; `_SPECIAL` for those that are looked at."""
        lower = name.lower()
        if lower == b"content-length":
            return _CONTENT_LENGTH
        return _SPECIAL if lower in _SPECIAL_NAMES else name + b": "

    def encode_fields(self, headers: Iterable[Any]) -> bytes:
        """Field lines of an informational response or a trailer section, checked."""
        return b"".join([b"%b: %b\r\n" % pair for pair in self.check_fields(headers)])

    @staticmethod
    def own_fields(headers: Iterable[tuple[bytes, bytes]]) -> int:
        """Which of ``server`` and ``date`` the application gave itself: see `ResponseHead`."""
        own = 0
        for name, _ in headers:
            lower = name.lower()
            own |= HAS_SERVER if lower == b"server" else HAS_DATE if lower == b"date" else 0
        return own
