"""A connection that carries several exchanges at once: HTTP/2 and FastCGI.

Decided here: what follows from sharing the transport. All exchanges' output of one iteration of the
loop leaves in one write; one deadline is the nearest of all that is waited for; a connection is
idle since its last exchange; a peer that asks and does not read is not read either, once `DEAF`
bytes wait for it. What the peer may wait for, and how the connection ends, the subclasses decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.connections.bytestream import LINGER, WRITE
from omnicorn.connections.http import HTTPConnection

if TYPE_CHECKING:
    from omnicorn.connections.service import Service

DEAF = 1 << 20
"""Bytes of output past which a peer that does not read is not read: more than content makes."""

# What the deadline is for: a first word, or anything later.
SILENCE, ALIVE = range(2)


class MultiplexedConnection(HTTPConnection):
    """Several exchanges at once.

    Args:
        service: Shared by the connections of a server.
        patience: Seconds within which something may have to be done about a peer that just did
            something.
    """

    __slots__ = ("_cycles", "_idle_since", "_patience")

    sendfile: None = None
    """See `HTTPCarrier`: content goes in frames."""

    def __init__(self, service: Service, patience: float) -> None:
        super().__init__(service, SILENCE)
        self._patience = patience
        self._cycles: dict[Any, Any] = {}  # exchanges whose application has not returned: streams
        self._idle_since = service.now()

    # ------------------------------------------------------------------ from the transport

    def pause_writing(self) -> None:
        self.engine.blocked = True
        if self._timing < WRITE:
            self._stall()

    def connection_lost(self, exc: Exception | None) -> None:
        service = self._service
        self._lose_transport()
        self.engine.connection_lost()
        service.stragglers |= self._cycles.keys()
        self._cycles.clear()
        if service.draining:
            service.check_idle()

    def _is_deaf(self) -> bool:
        """The peer does not read, and has asked for too much."""
        engine = self.engine
        return bool(engine.blocked and engine.pending + self._waiting_bytes() > DEAF)

    # ------------------------------------------------------------------ from the exchanges

    def on_cycle_end(self, cycle: Any, error: BaseException | None) -> None:
        """See `Carrier`."""
        service = self._service
        service.active -= 1
        orphans = self.engine.orphans
        if orphans:
            orphans.discard(cycle)
        if self._cycles.pop(cycle, None) is None:
            service.stragglers.discard(cycle)
        if error is not None or service.draining:
            service.end(cycle, error)

    # ------------------------------------------------------------------ output

    def flush(self) -> None:
        """Write what the engine has to say; if that was its last word, close."""
        if self._timing >= LINGER:
            self.engine.take()  # nothing is written behind the end
            return
        super().flush()
        if self.engine.closing:
            self._end()

    # ------------------------------------------------------------------ deadlines

    def _hasten(self, when: float) -> None:
        """Look at *when*, or before."""
        if when < self.deadline:
            self.deadline = when
            self._service.deadlines.watch(self, when)

    # ------------------------------------------------------------------ closing

    def _end(self) -> None:
        """The engine has ended the conversation: write its last word, and close."""
        if self._timing < LINGER:
            super().flush()
            self._close()

    def _close(self) -> None:
        """Log why the conversation has ended, and close in good order."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """Tell every application that its client is as good as gone."""
        for cycle in tuple(self._cycles):
            cycle.disconnect()

    def abort(self) -> None:
        """Cancel every application and cut the connection."""
        for cycle in tuple(self._cycles):
            cycle.cancel()
        self._cut()
        self.engine.stop()
