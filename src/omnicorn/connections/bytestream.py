"""What every connection on a byte stream of its own does alike, whatever is spoken on it.

Decided here: how output leaves, how a sender that is too quick is made to wait, what a
deadline is, and how a connection is cut. What it waits for, and when it closes in good
order, the subclasses decide; there is one for each protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.connections.deadlines import WIDTH
from omnicorn.connections.writing import write_pieces
from omnicorn.transports.sockets import reset_on_close

if TYPE_CHECKING:
    from omnicorn.bridge.cycle import Exchange
    from omnicorn.connections.service import Service
    from omnicorn.ports import Loop, Transport

# What the deadline is for. A subclass has reasons of its own, in between and below.
WRITE = 10
"""The peer reads nothing."""
LINGER = 20
"""Everything is said, and what the peer still sends is dropped."""
CLOSE = 21
"""The transport is closing."""

LINGER_TIME = 2.0
"""Seconds a peer may go on sending after our last byte, if it has not said how much."""
LINGER_BYTES = 16 << 20
"""Bytes it may go on sending then: more than two sockets hold, so that it finds our answer."""
DRAIN_TIME = 1.0
"""Seconds a new connection has for its first request when the server stops: one that is on its
way would be lost."""


class ByteStreamConnection:
    """A connection with a transport of its own.

    Args:
        service: Shared by the connections of a server.
        timing: What the first deadline is for.

    Attributes:
        slot: Belongs to `Deadlines`.
        deadline: In loop time.
        engine: The protocol's state machine.
    """

    __slots__ = (
        "__weakref__",
        "_cycle",
        "_lingered",
        "_service",
        "_timing",
        "_transport",
        "_unwritten",
        "deadline",
        "engine",
        "slot",
    )

    _cycle: Any
    engine: Any

    def __init__(self, service: Service, timing: int) -> None:
        self._service = service
        self._transport: Transport | None = None
        self._cycle = None
        self._unwritten = 0
        self._timing = timing
        self.deadline = 0.0
        self.slot = -1

    @property
    def loop(self) -> Loop:
        return self._service.loop

    # ------------------------------------------------------------------ output

    def flush(self) -> None:
        """Write what the engine has to say."""
        transport = self._transport
        pending = self.engine.pending
        out = self.engine.take()
        if transport is None or not out:
            return
        if len(out) == 1:
            transport.write(out[0])
        else:
            write_pieces(transport, out, pending)

    def on_full(self) -> None:
        """Much output came in one go: write it, and let others have their turn."""
        self.flush()
        engine = self.engine
        if not engine.blocked:
            # The peer keeps up: let the application pause just once.
            engine.blocked = True
            self._service.loop.call_soon(self._unblock)

    def _unblock(self) -> None:
        if self._timing != WRITE and self._transport is not None:
            self.resume_writing()

    def resume_writing(self) -> None:
        """See `ConnectionPort`."""
        raise NotImplementedError

    def _stall(self) -> None:
        """The transport is full: the peer has to read something by the deadline."""
        self._unwritten = self._waiting_bytes()
        self._expect(WRITE, self._service.timeouts.write)

    def _waiting_bytes(self) -> int:
        transport = self._transport
        return 0 if transport is None else transport.get_write_buffer_size()

    # ------------------------------------------------------------------ deadlines

    def _expect(self, timing: int, seconds: float) -> None:
        service = self._service
        self._timing = timing
        self.deadline = deadline = service.now() + seconds
        service.deadlines.watch(self, deadline)

    def on_deadline(self, now: float) -> float:
        """See `Timed`."""
        raise NotImplementedError

    def _prolong(self, now: float, seconds: float) -> bool:
        """Give a peer that has read something since the last look more time."""
        waiting = self._waiting_bytes()
        if not waiting or waiting >= self._unwritten:
            return False
        self._unwritten = waiting
        self.deadline = now + seconds
        return True

    # ------------------------------------------------------------------ the end

    def _lose_transport(self) -> Any:
        """``connection_lost``: forget what the service keeps; returns the cycle, if one is left."""
        service = self._service
        service.connections.discard(self)
        service.deadlines.forget(self)
        self._transport = None
        self._timing = CLOSE
        cycle, self._cycle = self._cycle, None
        if cycle is not None and not cycle.finished:
            service.stragglers.add(cycle)  # the application may go on; keep its task
        return cycle

    def on_cycle_end(self, cycle: Exchange, error: BaseException | None) -> None:
        """See `Carrier`."""
        service = self._service
        service.active -= 1
        if cycle is self._cycle:
            self._cycle = None
        else:
            service.stragglers.discard(cycle)
        if error is not None or service.draining:
            service.end(cycle, error)

    def _linger(self, owed: int = 0) -> None:
        """End our side, and drop what still comes for a while.

        To close with bytes unread would become a reset, and that takes away what was said last
        (RFC 9112 §9.6).

        Args:
            owed: About how many bytes have to come, in the time that they would have had.
        """
        transport = self._transport
        assert transport is not None
        self._unwritten = 1 << 62  # the first look at what is unwritten sees progress
        self._lingered = -owed
        self._expect(LINGER, self._service.timeouts.body if owed else LINGER_TIME)
        try:
            if transport.can_write_eof():
                transport.write_eof()
        except OSError:  # the peer has gone, and the loop does not know it yet
            self._cut()
            return
        transport.resume_reading()

    def _drop(self, count: int) -> None:
        """So many bytes came that nobody reads."""
        if self._timing != LINGER:
            return
        before = self._lingered
        self._lingered = lingered = before + count
        if lingered < 0:
            self._expect(LINGER, self._service.timeouts.body)
        elif before < 0:
            self._expect(LINGER, LINGER_TIME)
        elif lingered > LINGER_BYTES:
            self._cut()

    def _close_transport(self) -> None:
        """Close once what is unwritten has left, as long as the peer goes on reading."""
        transport = self._transport
        if transport is not None:
            service = self._service
            self._timing = CLOSE
            self._unwritten = transport.get_write_buffer_size()
            self.deadline = deadline = service.now() + service.timeouts.write
            if not 0.0 <= self.slot * WIDTH <= deadline:  # else it is asked in time
                service.deadlines.watch(self, deadline)
            transport.close()

    def _cut(self, reset: bool = False) -> None:
        """Close at once; *reset* where an orderly end would hide that something is missing."""
        self._timing = CLOSE
        self.deadline = float("inf")
        transport = self._transport
        if transport is not None:
            if reset or self._waiting_bytes():
                sock = transport.get_extra_info("socket")
                if sock is not None:
                    reset_on_close(sock)
            transport.abort()

    def abort(self) -> None:
        """Cancel the application and cut the connection."""
        if self._cycle is not None:
            self._cycle.cancel()
        self._cut()
