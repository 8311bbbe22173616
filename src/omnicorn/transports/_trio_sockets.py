"""A server's connected sockets on trio.

What this file alone decides: what a socket is watched for, and when it is read. How it is written,
and how it ends, `streams` decides; when a socket is looked at, the loop (`_trio`), which knows of
them only `on_ready` and `crash`.

Rules:

1. What a socket is watched for follows from its state, in `_watch`; nobody else touches the
   selector. What is not wanted is not watched: a peer that sends to a paused port costs nothing.
2. One read for each turn: a flood of one peer is no hunger of another.
"""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING, Any

from omnicorn.transports.streams import SocketTransport, name_of

if TYPE_CHECKING:
    import socket

    from omnicorn.ports import ConnectionPort
    from omnicorn.transports._trio import TrioLoop

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

_RECEIVE = 65536  # bytes of one read, after which the other connections have their turn


class TrioTransport(SocketTransport):
    """The `Transport` port on a connected socket; made by `TrioLoop.attach`."""

    __slots__ = ("_mask", "_receive")

    _loop: TrioLoop

    def __init__(
        self, loop: TrioLoop, sock: socket.socket, port: ConnectionPort, peername: Any
    ) -> None:
        super().__init__(loop, sock, port, peername)
        self._receive = sock.recv
        self._mask = 0  # what the selector watches for
        self._sockname = name_of(sock.getsockname)  # known also when it is closed
        loop.connections.add(self)

    # ------------------------------------------------------------------ the port

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._watch()

    def resume_reading(self) -> None:
        if not self._reading and not self._closing and not self._ended:
            self._reading = True
            self._watch()

    # ------------------------------------------------------------------ the reactor

    def begin(self) -> None:
        """Tell the port, then read, unless it has paused that."""
        try:
            self._port.connection_made(self)
        except Exception as exc:
            self.crash(exc)
        self._watch()

    def on_ready(self, mask: int) -> None:
        """The socket is ready for what the selector watches."""
        if mask & WRITE:
            self._flush()
        if mask & READ and self._reading:
            try:
                data = self._receive(_RECEIVE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                self._fail(exc)
                return
            if data:
                self._on_data(data)
            else:
                self._ended = True
                self._reading = False
                self._watch()
                if not self._port.eof_received():
                    self.close()

    def _watch(self) -> None:
        """Have the selector watch for what is wanted now."""
        mask = READ if self._reading else 0
        if self._progress is not None or (self._unsent and not self._lent):
            mask |= WRITE
        if mask != self._mask:
            self._loop.watch(self._sock, self._mask, mask, self)
            self._mask = mask

    def lose(self) -> None:
        """Tell the port, and close the socket; once more does nothing."""
        loop = self._loop
        if self in loop.connections:
            loop.connections.discard(self)
            try:
                self._port.connection_lost(self._error)
            finally:
                self._sock.close()
