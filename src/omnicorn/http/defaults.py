"""The fields a server adds to every response: `server`, `date`, and configured ones.

Encoded once a second, not once a response. The second is somebody else's business: the
clock given here is called when the lines are rendered, and its owner calls `expire` when
that second is over. Nothing ticks while nobody asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnicorn.http.dates import http_date
from omnicorn.http.fields import CONNECTION_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HAS_SERVER = 1
HAS_DATE = 2
"""What an application sent itself; added up, they are the index of what is to be added."""

_Pairs = tuple[tuple[bytes, bytes], ...]


class DefaultFields:
    """Encoded default fields.

    Args:
        server: The ``server`` field's value; None leaves it out.
        date: Whether to send ``date`` (RFC 9110 §6.6.1: an origin server with a clock does).
        extra: Further fields, in order.
        clock: Seconds since the epoch; called once for each rendering.

    Attributes:
        lines: The encoded lines by what the application sent itself: index 1 leaves out
            ``server`` (`HAS_SERVER`), 2 ``date`` (`HAS_DATE`), 3 both. None when expired:
            call `refresh`.
        pairs: The same fields as (name, value), names in lower case, for HTTP/2 and later,
            which have no lines, and no connection-specific fields. Comes and goes with `lines`.
    """

    __slots__ = ("_clock", "_date", "_extra", "_extra_pairs", "_server", "lines", "pairs")

    def __init__(
        self,
        server: bytes | None,
        date: bool,
        extra: Sequence[tuple[bytes, bytes]],
        clock: Callable[[], float],
    ) -> None:
        self._server = server
        self._date = date
        self._extra = b"".join(b"%b: %b\r\n" % pair for pair in extra)
        self._extra_pairs = tuple(
            (name.lower(), value.strip(b" \t"))
            for name, value in extra
            if name.lower() not in CONNECTION_FIELDS
        )
        self._clock = clock
        self.lines: tuple[bytes, bytes, bytes, bytes] | None = None
        self.pairs: tuple[_Pairs, _Pairs, _Pairs, _Pairs] | None = None

    def refresh(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Render lines and pairs for the present second; returns the lines."""
        server = date = b""
        server_pair: _Pairs = ()
        date_pair: _Pairs = ()
        if self._server is not None:
            server = b"server: %b\r\n" % self._server
            server_pair = ((b"server", self._server),)
        if self._date:
            now = http_date(self._clock())
            date = b"date: %b\r\n" % now
            date_pair = ((b"date", now),)
        extra, pairs = self._extra, self._extra_pairs
        self.lines = (server + date + extra, date + extra, server + extra, extra)
        self.pairs = (
            server_pair + date_pair + pairs,
            date_pair + pairs,
            server_pair + pairs,
            pairs,
        )
        return self.lines

    def expire(self) -> None:
        """The second is over."""
        self.lines = None
        self.pairs = None
