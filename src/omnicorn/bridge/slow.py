"""How many threads of a WSGI application may wait for clients.

What this file alone decides: that slow clients never hold all threads. No more than half of them
(rounded down) wait for clients while other requests wait for a thread:

1. A request whose body is not all there gets a thread only within that half; else its body is
   received first (`spool`).
2. A response cannot be taken from its thread. Where too many wait for a client to read, and
   somebody waits for a thread, the one that has waited longest is cut, after `PATIENCE`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from omnicorn.bridge.threads import Threads
    from omnicorn.ports import Loop

__all__ = ["PATIENCE", "SlowClients"]

logger = logging.getLogger("omnicorn.error")

PATIENCE = 5.0
"""Seconds that a thread may wait for a client while others wait for the thread."""
_AGAIN = 1.0
"""Seconds until the next look, while too many wait."""


class Slow(Protocol):
    """An exchange whose thread waits."""

    def cut(self) -> None:
        """End it, so that its thread is free."""


class SlowClients:
    """The clients that a pool of threads waits for.

    Args:
        loop: The event loop's port.
        threads: The pool.
    """

    __slots__ = ("_bodies", "_limit", "_loop", "_readers", "_threads", "_watching")

    def __init__(self, loop: Loop, threads: Threads) -> None:
        self._loop = loop
        self._threads = threads
        self._limit = threads.limit // 2
        self._bodies = 0
        self._readers: dict[Slow, float] = {}  # since when; in that order
        self._watching = False

    def admit(self) -> bool:
        """Whether a request may have a thread before its body is there; `leave` then."""
        if self._bodies >= self._limit:
            return False
        self._bodies += 1
        self._look()
        return True

    def leave(self) -> None:
        """The body of one that was admitted is all there, or the exchange is over."""
        self._bodies -= 1

    def lag(self, exchange: Slow) -> None:
        """A thread waits until this client has read; `forget` it when it has."""
        self._readers.setdefault(exchange, self._loop.time())
        self._look()

    def forget(self, exchange: Slow) -> None:
        """The client has read, or the exchange is over."""
        self._readers.pop(exchange, None)

    def _excess(self) -> int:
        return len(self._readers) + self._bodies - self._limit

    def _look(self) -> None:
        if not self._watching and self._excess() > 0:
            self._watch(PATIENCE)

    def _watch(self, seconds: float) -> None:
        self._watching = True
        self._loop.call_at(self._loop.time() + seconds, self._relieve)

    def _relieve(self) -> None:
        self._watching = False
        before = self._loop.time() - PATIENCE
        count = min(self._excess(), self._threads.backlog)
        late = [one for one, since in self._readers.items() if since <= before][: max(0, count)]
        if late:
            logger.warning(
                "%d responses are cut: their clients read too slowly, and %d requests wait for a "
                "thread",
                len(late),
                self._threads.backlog,
            )
        for one in late:
            self.forget(one)
            one.cut()
        if self._excess() > 0:
            self._watch(_AGAIN)
