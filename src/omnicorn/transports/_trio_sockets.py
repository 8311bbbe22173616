"""A server's sockets on trio: those that accept, and those that are connected.

What this file alone decides: when a socket is read, written and closed, and what its port is told
of that. When a socket is looked at, the loop decides (`_trio`), which knows of them only `on_ready`
and `crash`.

Rules:

1. What a socket is watched for follows from its state, in `_watch`; nobody else touches the
   selector. What is not wanted is not watched: a peer that sends to a paused port costs nothing.
2. One read for each turn: a flood of one peer is no hunger of another.
3. Straight to the socket is written only while nothing is unsent and nobody else writes
   (`sendfile`), or bytes would change places.
4. The port hears of the end once, never within a call of its own, and then the socket is closed.
5. A lack of descriptors stops the accepting for a while; who waits is accepted then.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
from typing import TYPE_CHECKING, Any

import trio

from omnicorn.errors import ClientDisconnected
from omnicorn.ports import HIGH_WATER

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnicorn.ports import ConnectionPort
    from omnicorn.transports._trio import TrioLoop, TrioWaiter

logger = logging.getLogger("omnicorn.error")

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

_LOW_WATER = HIGH_WATER // 4
_RECEIVE = 65536  # bytes of one read, after which the other connections have their turn
_ACCEPTS = 64  # connections accepted before the others have their turn
_ACCEPT_PAUSE = 1.0  # seconds without accepting, when there are no descriptors left
_SENDFILE_PIECE = 1 << 20  # bytes of one system call: a fast disk does not hold up the loop


class TrioAcceptor:
    """Accepts on one listening socket until it is closed; the socket is its owner's."""

    def __init__(
        self, loop: TrioLoop, sock: socket.socket, connect: Callable[[], ConnectionPort]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._connect = connect
        self._mask = 0
        self._is_closed = False
        loop.acceptors.add(self)
        self._watch(READ)

    def on_ready(self, _: int) -> None:
        """Accept who is there, a bounded number of them."""
        for _ in range(_ACCEPTS):
            if self._is_closed:
                return
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except (InterruptedError, ConnectionAbortedError):
                continue
            except OSError as exc:
                # No descriptors, no memory: those who wait are not lost, they wait. What
                # Linux reports of a network in trouble is no reason to hurry, either.
                self._loop.complain(
                    "Nobody is accepted for %g s: %s", _ACCEPT_PAUSE, exc.strerror or exc
                )
                self._watch(0)
                self._loop.call_at(self._loop.time() + _ACCEPT_PAUSE, self._go_on)
                return
            try:
                self._loop.attach(sock, self._connect(), address)
            except Exception as exc:
                self.crash(exc)
                sock.close()

    def _go_on(self) -> None:
        if not self._is_closed:
            self._watch(READ)

    def _watch(self, mask: int) -> None:
        if mask != self._mask:
            self._loop.watch(self._sock, self._mask, mask, self)
            self._mask = mask

    def crash(self, exc: Exception) -> None:
        """A connection could not be made: others may."""
        logger.error("A connection could not be made", exc_info=exc)

    def close(self) -> None:
        """Accept no more, at once."""
        self._is_closed = True
        self._watch(0)
        self._loop.acceptors.discard(self)


class TrioTransport:
    """The `Transport` port on a connected socket; made by `TrioLoop.attach`."""

    __slots__ = (
        "_closing",
        "_direct",
        "_ended",
        "_eof",
        "_error",
        "_lent",
        "_loop",
        "_lost",
        "_mask",
        "_on_data",
        "_paused",
        "_peername",
        "_port",
        "_progress",
        "_reading",
        "_receive",
        "_send",
        "_sock",
        "_sockname",
        "_unsent",
    )

    def __init__(
        self, loop: TrioLoop, sock: socket.socket, port: ConnectionPort, peername: Any
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._send = sock.send
        self._receive = sock.recv
        self._port = port
        self._on_data = port.data_received
        self._unsent = bytearray()
        self._mask = 0  # what the selector watches for
        self._reading = True
        self._ended = False  # the peer has sent its last
        self._direct = True  # `write` goes straight to the socket
        self._paused = False  # the port was told to write no more
        self._eof = False  # `write_eof` was called
        self._lent = False  # to sendfile
        self._closing = False
        self._lost = False  # ``connection_lost`` is to be called, or has been
        self._error: Exception | None = None
        self._progress: TrioWaiter | None = None  # somebody awaits that the socket takes more
        self._peername = peername if peername is not None else _name(sock.getpeername)
        self._sockname = _name(sock.getsockname)
        loop.connections.add(self)

    # ------------------------------------------------------------------ the port

    def write(self, data: bytes, /) -> None:
        """See `Transport`.

        Raises:
            RuntimeError: After `write_eof`.
        """
        if self._direct:
            try:
                sent = self._send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as exc:
                self._fail(exc)
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]  # type: ignore[assignment]
            self._direct = False
        elif self._closing or not data:
            return
        elif self._eof:
            raise RuntimeError("write() after write_eof()")
        unsent = self._unsent
        unsent += data
        self._watch()
        if len(unsent) > HIGH_WATER and not self._paused:
            self._paused = True
            self._port.pause_writing()

    def write_eof(self) -> None:
        if not self._eof and not self._closing:
            self._eof = True
            self._direct = False
            if not self._unsent and not self._lent:
                self._shut()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        """Read nothing more, send what is unsent, then close."""
        if not self._closing:
            self._closing = True
            self._direct = self._reading = False
            if self._unsent or self._lent:
                self._watch()
            else:
                self._end()

    def abort(self) -> None:
        self._end()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._watch()

    def resume_reading(self) -> None:
        if not self._reading and not self._closing and not self._ended:
            self._reading = True
            self._watch()

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``socket``, ``peername``, ``sockname``; *default* for what is unknown."""
        if name == "socket":
            return self._sock
        if name == "peername":
            return default if self._peername is None else self._peername
        if name == "sockname":
            return default if self._sockname is None else self._sockname
        return default

    def set_protocol(self, connection: ConnectionPort, /) -> None:
        self._port = connection
        self._on_data = connection.data_received

    # ------------------------------------------------------------------ the reactor

    def begin(self) -> None:
        """Tell the port, then read, unless it has paused that."""
        try:
            self._port.connection_made(self)
        except Exception as exc:
            self.crash(exc)
        self._watch()

    def crash(self, exc: Exception) -> None:
        """The port has failed: it alone is cut."""
        logger.error("A connection failed", exc_info=exc)
        self.abort()

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

    def _flush(self) -> None:
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.set_result()
        unsent = self._unsent
        if unsent and not self._lent:
            try:
                del unsent[: self._send(unsent)]
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                self._fail(exc)
                return
            if not unsent:
                self._written()
            if self._paused and len(unsent) <= _LOW_WATER and not self._closing:
                self._paused = False
                self._port.resume_writing()
        self._watch()

    def _written(self) -> None:
        """Nothing is unsent any more, and nobody else writes."""
        if self._closing:
            self._end()
        elif self._eof:
            self._shut()
        else:
            self._direct = True

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            self._fail(exc)

    def _watch(self) -> None:
        """Have the selector watch for what is wanted now."""
        mask = READ if self._reading else 0
        if self._progress is not None or (self._unsent and not self._lent):
            mask |= WRITE
        if mask != self._mask:
            self._loop.watch(self._sock, self._mask, mask, self)
            self._mask = mask

    # ------------------------------------------------------------------ the end

    def _fail(self, error: Exception) -> None:
        if self._error is None and not self._lost:
            self._error = error.with_traceback(None)  # which would hold this frame
        self._end()

    def _end(self) -> None:
        """Drop what is unsent; the port learns of it in the loop's next turn."""
        if not self._lost:
            self._lost = self._closing = True
            self._direct = self._reading = False
            self._unsent.clear()
            progress, self._progress = self._progress, None
            if progress is not None:
                progress.set_result()
            self._watch()
            self._loop.call_soon(self.lose)

    def lose(self) -> None:
        """Tell the port, and close the socket; once more does nothing."""
        loop = self._loop
        if self in loop.connections:
            loop.connections.discard(self)
            try:
                self._port.connection_lost(self._error)
            finally:
                self._sock.close()

    # ------------------------------------------------------------------ sendfile

    async def sendfile(self, file: int, offset: int, count: int, stall: float) -> int:
        """See `Loop.sendfile`."""
        while self._unsent:
            await self._room(stall)
        if self._closing:
            raise ClientDisconnected("the client has disconnected")
        self._lent = True
        self._direct = False
        sent = 0
        try:
            while sent < count:
                if self._closing:
                    raise ClientDisconnected("the client has disconnected")
                try:
                    size = min(count - sent, _SENDFILE_PIECE)
                    done = os.sendfile(self._sock.fileno(), file, offset + sent, size)
                except BlockingIOError:
                    await self._room(stall)
                    continue
                except (BrokenPipeError, ConnectionError) as exc:
                    self._fail(exc)
                    raise ClientDisconnected("the client has disconnected") from None
                except OSError:
                    break  # a file the kernel cannot send from: a pipe, some network file systems
                if not done:
                    return sent
                sent += done
                await trio.lowlevel.checkpoint()
        finally:
            self._lent = False
            if self._unsent:
                self._watch()
            elif not self._lost:
                self._written()
        while sent < count:
            size = min(count - sent, HIGH_WATER)
            data = await self._loop.run_blocking(os.pread, file, size, offset + sent)
            if not data:
                break
            if self._closing:
                raise ClientDisconnected("the client has disconnected")
            self.write(data)
            while self._unsent:
                await self._room(stall)
            sent += len(data)
        return sent

    async def _room(self, stall: float) -> None:
        """Wait until the socket takes more.

        Raises:
            ClientDisconnected: It has not for *stall* seconds, or is no more.
        """
        self._progress = waiter = self._loop.create_future()
        self._watch()
        with trio.move_on_after(stall):
            await waiter
        if not waiter.done():
            self._end()
            raise ClientDisconnected("the client has stopped reading")
        if self._lost:
            raise ClientDisconnected("the client has disconnected")


async def sendfile(transport: Any, file: int, offset: int, count: int, stall: float) -> int:
    # By the transport's own method, which may stand behind another.
    sent: int = await transport.sendfile(file, offset, count, stall)
    return sent


def _name(ask: Callable[[], Any]) -> Any:
    """A socket's address, or None where the peer has gone already."""
    try:
        return ask()
    except OSError:
        return None
