"""Status and fields of a response to what a front server reads, each distinct head only once.

Rules of this file; what holds for every version stands in `HeadEncoder`:

1. The first line is CGI's ``Status:`` (RFC 3875 §6.3.3; SCGI, FastCGI) or a status line (uwsgi).
   An application's own ``status`` field would be a second one, and is dropped.
2. Fields of the connection are the front's: `CONNECTION_FIELDS` are dropped. So is
   ``transfer-encoding``, which fronts do not decode.
3. ``server`` and ``date`` are the front's as well, unless the application gives them.
"""

from __future__ import annotations

from typing import Any

from omnicorn.errors import LocalProtocolError
from omnicorn.http.fields import CONNECTION_FIELDS, check_pair, match_value
from omnicorn.http.heads import HeadEncoder
from omnicorn.http.status import forbids_content, status_line

_CONTENT_LENGTH = b"content-length: "
_DROPPED = b":"
_DROPPED_NAMES = CONNECTION_FIELDS | {b"status"}


class ResponseHead:
    """An encoded head; never changed once it is made, and shared.

    Attributes:
        lines: First line and field lines, without the empty line at the end.
        length: The ``content-length`` the application gave; -1 without one.
        no_content: The status forbids content (RFC 9110 §6.4.1).
    """

    __slots__ = ("length", "lines", "no_content")

    lines: bytes
    length: int
    no_content: bool


class ResponseEncoder(HeadEncoder[ResponseHead]):
    """See `HeadEncoder`.

    Args:
        cgi: Begin with ``Status:``; else with a status line.
    """

    __slots__ = ("_cgi",)

    _alone = frozenset({b"connection", b"content-length", b"host", b"transfer-encoding"})

    def __init__(self, cgi: bool) -> None:
        super().__init__()
        self._cgi = cgi

    def first_line(self, status: int) -> bytes:
        """What a response begins with."""
        line = status_line(status)
        return b"Status:" + line[8:] if self._cgi else line

    def _encode(self, status: int, headers: tuple[Any, ...]) -> ResponseHead:
        out = [self.first_line(status)]
        values = []
        length = -1
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
                else:
                    values.append(value)
                    if start is not _DROPPED:
                        out += (start, value, b"\r\n")
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
        head.no_content = forbids_content(status)
        return head

    def _write_name(self, name: bytes) -> bytes:
        """The start of a line with this name, or `_DROPPED`."""
        lower = name.lower()
        if lower == b"content-length":
            return _CONTENT_LENGTH
        return _DROPPED if lower in _DROPPED_NAMES else name + b": "
