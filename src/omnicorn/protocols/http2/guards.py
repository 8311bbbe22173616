"""What a peer may do that costs us more than it costs the peer, and how often.

HTTP/2 lets a client ask for work with a few bytes, take it back, and ask again. Each such
thing has a budget here, named after its attack: a number at once, and a rate in the long
run. Honest clients stay far below; over budget the connection ends with GOAWAY
ENHANCE_YOUR_CALM (RFC 9113 §10.5).

A `Guard` is a row of the table, a `Budget` what one connection has left of it; a connection
has one only for what its peer did.
"""

from __future__ import annotations

from typing import NamedTuple

from omnicorn.errors import Http2Error
from omnicorn.protocols.http2.codes import ENHANCE_YOUR_CALM


class Guard(NamedTuple):
    """A budget's size.

    Attributes:
        attack: What is prevented, in words for the log.
        burst: Events that may come at once.
        rate: Events a second that may come for ever.
    """

    attack: str
    burst: int
    rate: float


RAPID_RESET = Guard("rapid reset (CVE-2023-44487)", 256, 33.0)
"""Streams the peer cancels. A browser that leaves a page cancels all it had open."""
MADE_YOU_RESET = Guard("made-you-reset (CVE-2025-8671)", 100, 10.0)
"""Streams we reset because the peer broke a rule on them."""
REFUSED_STREAMS = Guard("streams beyond the limit", 1000, 100.0)
"""A client may open many before it has read our SETTINGS."""
PING_FLOOD = Guard("PING flood (CVE-2019-9512)", 100, 10.0)
SETTINGS_FLOOD = Guard("SETTINGS flood (CVE-2019-9515)", 50, 2.0)
PRIORITY_FLOOD = Guard("PRIORITY flood (CVE-2019-9513)", 1000, 200.0)
EMPTY_DATA = Guard("empty DATA frames (CVE-2019-9518)", 100, 10.0)
DRIBBLED_UPLOAD = Guard("dribbled uploads", 10_000, 1000.0)
"""DATA frames of under `DRIBBLE` bytes: no message of gRPC is so small. Not of WebSockets."""
LATE_DATA = Guard("DATA on closed streams", 1000, 200.0)
"""What was under way when a stream was reset: up to a window of it."""
WINDOW_FLOOD = Guard("WINDOW_UPDATE flood", 1000, 100.0)
"""Beyond four for each DATA frame we sent, and two for each request."""
TINY_WINDOW = Guard("tiny windows (CVE-2019-9511, CVE-2019-9517)", 1000, 100.0)
"""DATA frames cut to under `TINY` bytes by a window."""
UNKNOWN_FRAMES = Guard("frames of unknown types", 1000, 100.0)

DRIBBLE = 5
TINY = 256
FREE_WINDOW_UPDATES = 4

MAX_CONTINUATIONS = 64
"""Frames of one field block: CONTINUATION flood (CVE-2024-27316)."""


class Budget:
    """What a connection has left of a guard.

    Args:
        guard: The table's row.
        now: Seconds of a clock that never goes back.
    """

    __slots__ = ("_guard", "_left", "_since")

    def __init__(self, guard: Guard, now: float) -> None:
        self._guard = guard
        self._left = float(guard.burst)
        self._since = now

    def spend(self, now: float) -> None:
        """One more event.

        Raises:
            Http2Error: That was one too many.
        """
        guard = self._guard
        left = self._left - 1.0
        if left < 0.0:
            left = min(guard.burst, left + (now - self._since) * guard.rate)
            self._since = now
            if left < 0.0:
                raise Http2Error(f"too much of one kind: {guard.attack}", ENHANCE_YOUR_CALM)
        self._left = left


class Budgets:
    """All budgets of one connection; empty until its peer does something that has one."""

    __slots__ = ("_budgets",)

    def __init__(self) -> None:
        self._budgets: dict[Guard, Budget] = {}

    def spend(self, guard: Guard, now: float) -> None:
        """One more event of *guard*'s kind.

        Raises:
            Http2Error: That was one too many.
        """
        budget = self._budgets.get(guard)
        if budget is None:
            budget = self._budgets[guard] = Budget(guard, now)
        budget.spend(now)
