"""The fields a server adds to every response: `server`, `date`, and configured ones.

Encoded once a second, not once a response. The second is somebody else's business: the
clock given here is called when the lines are rendered, and its owner calls `expire` when
that second is over. Nothing ticks while nobody asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnicorn.http.dates import http_date

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class DefaultFields:
    """Encoded default fields.

    Args:
        server: The ``server`` field's value; None leaves it out.
        date: Whether to send ``date`` (RFC 9110 §6.6.1: an origin server with a clock does).
        extra: Further fields, in order.
        clock: Seconds since the epoch; called once for each rendering.

    Attributes:
        lines: The encoded lines by what the application sent itself: index 1 leaves out
            ``server``, 2 ``date``, 3 both. None when expired: call `refresh`.
    """

    __slots__ = ("_clock", "_date", "_extra", "_server", "lines")

    def __init__(
        self,
        server: bytes | None,
        date: bool,
        extra: Sequence[tuple[bytes, bytes]],
        clock: Callable[[], float],
    ) -> None:
        self._server = b"" if server is None else b"server: %b\r\n" % server
        self._date = date
        self._extra = b"".join(b"%b: %b\r\n" % pair for pair in extra)
        self._clock = clock
        self.lines: tuple[bytes, bytes, bytes, bytes] | None = None

    def refresh(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Render the lines for the present second."""
        date = b"date: %b\r\n" % http_date(self._clock()) if self._date else b""
        server, extra = self._server, self._extra
        self.lines = (server + date + extra, date + extra, server + extra, extra)
        return self.lines

    def expire(self) -> None:
        """The second is over."""
        self.lines = None
