"""Unix sockets on which a closing says whether all was said, as a reset does on TCP.

A unix socket has no reset to ask for. But Linux gives the peer of one ECONNRESET, after all that
was sent, if it is closed while its receive queue holds something unread (net/unix/af_unix.c,
``unix_release_sock``). So a request is looked at (MSG_PEEK) and stays in the kernel until its
response is complete: read just before an orderly closing, left there by any other, a killed
process's among them.

What this file alone decides: when that is, and how such sockets are watched. Rules:

1. It is the port that says that a request is complete: its ``data_received`` returns true. What
   was looked at stays then. Before, it is read at once, because a peer counts what we have
   not read against what it may send: to keep a byte of a large piece would stop an upload. Of a
   small piece the last byte stays until more comes: such a request can be reset, too.
2. An orderly end is one that was asked for (`close`, `write_eof`) and of which nothing is
   unsent. All that is unread is read then, as far as the peer keeps no flood coming.
3. Every other one is to be a reset. If nothing is unread, because the request is incomplete, the
   socket, though not its connection, waits for what still has to come; for `_OWED` seconds.
4. What stays would make a socket ready for ever, so it is watched by its edges (EPOLLET), in an
   epoll of its own; that is what the loop watches. Nothing is missed: after an edge one reads
   on until nothing new is there, one piece in each turn of the loop, and a port that resumes
   reading is read for without an edge.
5. Where a front's request has come with its connection, it is answered before anything is watched.
"""

from __future__ import annotations

import select
import socket
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from omnicorn.observability.logs import RateLimited
from omnicorn.transports.streams import SocketAcceptor, SocketTransport, logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnicorn.ports import ConnectionPort, Loop

    class WatchingLoop(Loop, Protocol):
        """A loop that can watch a descriptor besides its own."""

        @property
        def add_reader(self) -> Callable[[int, Callable[[], object]], object]:
            """Call back whenever a descriptor is readable."""

        @property
        def remove_reader(self) -> Callable[[int], object]: ...


_RECEIVE = 65536  # bytes of one look, after which the other connections have their turn
_BATCH = 64  # sockets served before others have their turn
_OWED = 10.0  # seconds in which a peer has to send more, that it may see a reset
_LAST_READS = 64  # of a peer that goes on sending behind its request
_SMALL = 4096  # bytes of a piece of an incomplete request, of which one may stay unread
_SCRATCH = bytearray(2 * _RECEIVE)  # what is read into it was seen before

# <asm-generic/socket.h>; Python has no name for it. Where it is another number, `works` says no.
_SO_PEEK_OFF = 42

if sys.platform == "linux":
    _EDGES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
    _WRITABLE = select.EPOLLOUT
    _GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
    _LEAVES = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
    _MORE = select.EPOLLIN | select.EPOLLRDHUP
    _PEEK = socket.MSG_PEEK


@cache
def works() -> bool:
    """Whether this system's unix sockets do what this file needs: Linux's do."""
    if sys.platform != "linux":
        return False
    try:
        here, there = socket.socketpair()
        with there, select.epoll() as epoll:
            with here:
                here.setblocking(False)
                there.send(b"ab")
                seen = here.recv(1, _PEEK)
                here.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 1)
                epoll.register(here, _EDGES)
                seen += here.recv(2, _PEEK)
                here.send(b"c")
            seen += there.recv(1)
            try:
                there.recv(1)
            except ConnectionResetError:
                return seen == b"abc"
    except OSError:
        pass
    return False


def takes(sock: socket.socket) -> bool:
    """Whether what a listening *sock* accepts can be served here."""
    return sock.family == getattr(socket, "AF_UNIX", None) and works()


class UnixSockets:
    """Those of one loop: a reactor, whose epoll exists while there is something to watch.

    Args:
        loop: Where it lives.

    Attributes:
        acceptors: Those that accept.
        connections: Transports whose port has not heard of their end.
    """

    def __init__(self, loop: WatchingLoop) -> None:
        self._loop = loop
        self.time = loop.time
        self.call_at = loop.call_at
        self.acceptors: set[SocketAcceptor] = set()
        self.connections: set[UnixTransport] = set()
        self._complaints = RateLimited(logger.error)
        self._epoll: select.epoll | None = None
        self._ports: dict[int, Any] = {}

    def listen(
        self, connect: Callable[[], ConnectionPort], sock: socket.socket, backlog: int
    ) -> SocketAcceptor:
        """Accept on a listening *sock*; each transport gets a connection from *connect*."""
        sock.setblocking(False)
        sock.listen(backlog)
        return SocketAcceptor(self, sock, connect)

    def attach(
        self, sock: socket.socket, port: ConnectionPort, peername: Any = None
    ) -> UnixTransport:
        """Serve *port* on a connected socket, which is closed in the end."""
        sock.setblocking(False)
        transport = UnixTransport(self, self._loop, sock, port, peername)
        self.connections.add(transport)
        transport.begin()
        return transport

    def watch(self, sock: socket.socket, before: int, mask: int, port: Any) -> None:
        """See `Reactor`."""
        epoll = self._epoll
        fd = sock.fileno()
        if not mask:
            assert epoll is not None
            epoll.unregister(fd)
            del self._ports[fd]
            if not self._ports:
                self._epoll = None
                self._loop.remove_reader(epoll.fileno())
                epoll.close()
            return
        if epoll is None:
            self._epoll = epoll = select.epoll()
            self._loop.add_reader(epoll.fileno(), self._turn)
        if before:
            epoll.modify(fd, mask)
        else:
            epoll.register(fd, mask)
            self._ports[fd] = port

    def _turn(self) -> None:
        """Serve sockets that are ready."""
        epoll = self._epoll
        if epoll is None:
            return
        ports = self._ports
        for fd, flags in epoll.poll(0, _BATCH):
            port = ports.get(fd)  # None: closed by another one of these
            if port is not None:
                try:
                    port.on_ready(flags)
                except Exception as exc:
                    port.crash(exc)

    def complain(self, message: str, *args: object) -> None:
        """See `Reactor`."""
        self._complaints(self.time(), message, *args)

    def close(self) -> None:
        """Cut all connections, and accept no more; the loop will not call back."""
        for acceptor in tuple(self.acceptors):
            acceptor.close()
        for transport in tuple(self.connections):
            transport.abort()
            try:
                transport.lose()
            except Exception as exc:
                transport.crash(exc)
        self.forsake()

    def forsake(self) -> None:
        """Close the sockets that wait for more, though their connections are over."""
        for port in tuple(self._ports.values()):
            if port not in self.connections and port not in self.acceptors:
                port.forsake()


class UnixTransport(SocketTransport):
    """The `Transport` port on a connected unix socket; made by `UnixSockets.attach`."""

    __slots__ = (
        "_is_full",
        "_is_hung",
        "_is_owed",
        "_is_reset",
        "_kept",
        "_mask",
        "_reactor",
        "_receive",
        "_tells",
        "_waits",
    )

    def __init__(
        self,
        reactor: UnixSockets,
        loop: Loop,
        sock: socket.socket,
        port: ConnectionPort,
        peername: Any,
    ) -> None:
        super().__init__(loop, sock, port, peername)
        self._reactor = reactor
        self._receive = sock.recv
        self._mask = 0  # what the epoll watches for
        self._kept = 0  # bytes that were looked at and not read
        self._is_full = False  # the last look saw as much as one can
        self._is_hung = False  # the peer's last byte is sent, if not seen
        self._is_owed = False  # something was received, and more has to come
        self._tells = True  # the closing says whether all was said
        self._is_reset = False  # ... which it was not
        self._waits = False  # a look is due in the loop's next turn

    # ------------------------------------------------------------------ the port

    def abort(self) -> None:
        """See `Transport`: a reset, unless all was said before."""
        self._end()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading and not self._closing and not self._ended:
            self._reading = True
            self._look_soon()

    def set_protocol(self, connection: ConnectionPort, /) -> None:
        """See `Transport`: another protocol has an end of its own, and more is to come for it."""
        super().set_protocol(connection)
        self._tells = False
        self._read_kept()

    # ------------------------------------------------------------------ the reactor

    def begin(self) -> None:
        """Tell the port, and read for it."""
        try:
            self._port.connection_made(self)
            self._look()
            self._watch()
        except Exception as exc:
            self.crash(exc)

    def on_ready(self, flags: int) -> None:
        """Something came, or may leave."""
        if self._lost:
            self.forsake()
            return
        if flags & _GONE:
            self._is_hung = True
        if flags & _LEAVES and self._mask & _WRITABLE:
            self._flush()
        self._look()

    def _look(self) -> None:
        """Show the port what is new."""
        if not self._reading:
            return
        try:
            data = self._receive(_RECEIVE, _PEEK if self._tells else 0)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._fail(exc)
            return
        if not data:
            self._ended = True
            self._reading = False
            if not self._port.eof_received():
                self.close()
            return
        size = len(data)
        follows = self._is_full  # it may be the rest of something large
        self._is_full = size == _RECEIVE
        if self._tells:
            self._kept += size
            is_complete = self._on_data(data)
            if not is_complete and not self._closing:
                self._is_owed = True
                self._read_kept(1 if size <= _SMALL and not follows else 0)
        else:
            self._on_data(data)
        if size == _RECEIVE or self._is_hung:
            self._look_soon()

    def _look_soon(self) -> None:
        if not self._waits:
            self._waits = True
            self._loop.call_soon(self._look_again)

    def _look_again(self) -> None:
        self._waits = False
        try:
            self._look()
        except Exception as exc:
            self.crash(exc)

    def _read_kept(self, rest: int = 0) -> None:
        while self._kept > rest:
            try:
                size = min(self._kept - rest, len(_SCRATCH))
                self._kept -= self._sock.recv_into(_SCRATCH, size)
            except OSError:  # the peer has gone: the next look will tell
                self._kept = 0

    def _watch(self) -> None:
        mask = 0
        if not self._lost:
            mask = _EDGES
            if self._progress is not None or (self._unsent and not self._lent):
                mask |= _WRITABLE
        before = self._mask
        if mask != before:
            if not before:
                self._sock.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, self._kept)
            self._reactor.watch(self._sock, before, mask, self)
            self._mask = mask

    # ------------------------------------------------------------------ the end

    def _end(self) -> None:
        if not self._lost:
            is_said = self._closing or self._eof
            is_left = self._unsent or self._lent or self._error
            self._is_reset = bool(self._tells and (not is_said or is_left))
        super()._end()

    def lose(self) -> None:
        """Tell the port, and close the socket; once more does nothing."""
        connections = self._reactor.connections
        if self in connections:
            connections.discard(self)
            try:
                self._port.connection_lost(self._error)
            finally:
                self._close()

    def _close(self) -> None:
        if not self._is_reset:
            self._read_all()
        elif self._is_owed and not (self._kept or self._ended or self._error):
            self._reactor.watch(self._sock, 0, _MORE, self)
            self._loop.call_at(self._loop.time() + _OWED, self.forsake)
            return
        self._sock.close()

    def _read_all(self) -> None:
        """Read what is unread, or the closing would be a reset."""
        kept = self._kept
        try:
            for _ in range(_LAST_READS):
                size = self._sock.recv_into(_SCRATCH)
                kept -= size
                if size < len(_SCRATCH) and kept <= 0:
                    break
        except OSError:
            pass  # there is nothing, or nobody

    def forsake(self) -> None:
        """Close a socket that waits for more; once more does nothing."""
        if self._sock.fileno() >= 0:
            self._reactor.watch(self._sock, _MORE, 0, self)
            self._sock.close()
