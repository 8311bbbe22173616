"""Whose content is sent next, where not all of it can be (RFC 9218).

Streams stand in eight rows, by urgency. The first row that holds any is served, a frame at
a time: one whose response is of use in parts (``i``), or whose client gave no priority,
goes to the row's end after each frame; another one is served to its end (§10). A stream
whose own window is shut is not in here, so it holds up nobody.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

URGENCY = 3
"""Without a word from the client (RFC 9218 §4.1)."""
URGENCIES = 8


class Scheduled(Protocol):
    """A stream with content to send.

    Attributes:
        urgency: 0, the most urgent, to 7.
        incremental: Whether it shares with others of its urgency.
        scheduled: Its row; -1 while it stands in none. Belongs to `Schedule`.
    """

    urgency: int
    incremental: bool
    scheduled: int


S = TypeVar("S", bound=Scheduled)


class Schedule(Generic[S]):
    """The streams of one connection that could send."""

    __slots__ = ("_rows", "count")

    def __init__(self) -> None:
        self._rows: list[deque[S]] = [deque() for _ in range(URGENCIES)]
        self.count = 0

    def add(self, stream: S) -> None:
        """Let *stream* wait for its turn; at its row's end, once."""
        if stream.scheduled < 0:
            stream.scheduled = stream.urgency
            self._rows[stream.urgency].append(stream)
            self.count += 1

    def remove(self, stream: S) -> None:
        """*stream* cannot send, or has nothing to."""
        if stream.scheduled >= 0:
            self._rows[stream.scheduled].remove(stream)
            stream.scheduled = -1
            self.count -= 1

    def first(self) -> S:
        """Whose turn it is; there must be one."""
        for row in self._rows:
            if row:
                return row[0]
        raise LookupError("nobody waits")

    def served(self, stream: S) -> None:
        """*stream*, the first, has sent a frame and goes on waiting."""
        if stream.incremental:
            self._rows[stream.scheduled].rotate(-1)

    def move(self, stream: S) -> None:
        """*stream*'s urgency has changed."""
        if stream.scheduled >= 0:
            self.remove(stream)
            self.add(stream)
