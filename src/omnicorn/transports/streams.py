"""Sockets that are accepted, read and written in Python: how they are written, and how they end.

What this file alone decides: who is accepted, the order of what leaves, when writing pauses, and
what the port is told of the end. When a socket is ready, and how it is read, the subclasses
decide: on trio (`_trio_sockets`), and where a closing has to tell something (`unix`).

Rules:

1. Straight to the socket is written only while nothing is unsent and nobody else writes
   (`sendfile`), or bytes would change places.
2. The port hears of the end once, never within a call of its own, and then the socket is closed.
3. A lack of descriptors stops the accepting for a while; who waits is accepted then.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Protocol

from omnicorn.errors import ClientDisconnected
from omnicorn.ports import HIGH_WATER

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnicorn.ports import ConnectionPort, Loop, Timer, Waiter

logger = logging.getLogger("omnicorn.error")

READ = 1
"""What to watch a socket for; selectors and epoll agree on the number."""

_LOW_WATER = HIGH_WATER // 4
_ACCEPTS = 64  # connections accepted before the others have their turn
_ACCEPT_PAUSE = 1.0  # seconds without accepting, when there are no descriptors left
_SENDFILE_PIECE = 1 << 20  # bytes of one system call: a fast disk does not hold up the loop


class Reactor(Protocol):
    """What watches the sockets."""

    acceptors: set[SocketAcceptor]
    time: Callable[[], float]

    def watch(self, sock: socket.socket, before: int, mask: int, port: Any, /) -> object:
        """Have *port* told when *sock* is ready; *mask* 0: no more."""

    def attach(self, sock: socket.socket, port: ConnectionPort, peername: Any, /) -> object:
        """Serve *port* on a connected socket."""

    def complain(self, message: str, *args: object) -> object:
        """Log what may happen over and over, once in a while."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer: ...


class SocketAcceptor:
    """Accepts on one listening socket until it is closed; the socket is its owner's."""

    def __init__(
        self, loop: Reactor, sock: socket.socket, connect: Callable[[], ConnectionPort]
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


class SocketTransport:
    """The writing half of the `Transport` port, and its end."""

    __slots__ = (
        "_closing",
        "_direct",
        "_ended",
        "_eof",
        "_error",
        "_lent",
        "_loop",
        "_lost",
        "_on_data",
        "_paused",
        "_peername",
        "_port",
        "_progress",
        "_reading",
        "_send",
        "_sock",
        "_sockname",
        "_unsent",
    )

    def __init__(
        self, loop: Loop, sock: socket.socket, port: ConnectionPort, peername: Any
    ) -> None:
        self._loop: Any = loop
        self._sock = sock
        self._peername = peername if peername is not None else name_of(sock.getpeername)
        self._sockname: Any = None
        self._send = sock.send
        self._port = port
        self._on_data = port.data_received
        self._unsent = bytearray()
        self._reading = True
        self._ended = False  # the peer has sent its last
        self._direct = True  # `write` goes straight to the socket
        self._paused = False  # the port was told to write no more
        self._eof = False  # `write_eof` was called
        self._lent = False  # to sendfile
        self._closing = False
        self._lost = False  # ``connection_lost`` is to be called, or has been
        self._error: Exception | None = None
        self._progress: Waiter | None = None  # somebody awaits that the socket takes more

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

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``socket``, ``peername``, ``sockname``; *default* for what is unknown."""
        if name == "socket":
            return self._sock
        if name == "peername":
            return default if self._peername is None else self._peername
        if name == "sockname":
            if self._sockname is None:
                self._sockname = name_of(self._sock.getsockname)
            return default if self._sockname is None else self._sockname
        return default

    def set_protocol(self, connection: ConnectionPort, /) -> None:
        self._port = connection
        self._on_data = connection.data_received

    # ------------------------------------------------------------------ of the subclasses

    def _watch(self) -> None:
        """Have the socket watched for what is wanted now."""
        raise NotImplementedError

    def lose(self) -> None:
        """Tell the port, and close the socket; once more does nothing."""
        raise NotImplementedError

    # ------------------------------------------------------------------ as it becomes ready

    def crash(self, exc: Exception) -> None:
        """The port has failed: it alone is cut."""
        logger.error("A connection failed", exc_info=exc)
        self.abort()

    def _flush(self) -> None:
        progress, self._progress = self._progress, None
        if progress is not None and not progress.done():
            progress.set_result(None)
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
            if progress is not None and not progress.done():
                progress.set_result(None)
            self._watch()
            self._loop.call_soon(self.lose)

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
                await self._turn()
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

    async def _turn(self) -> None:
        """Let everybody else have a turn."""
        waiter = self._loop.create_future()
        self._loop.call_soon(lambda: waiter.done() or waiter.set_result(None))
        await waiter

    async def _room(self, stall: float) -> None:
        """Wait until the socket takes more.

        Raises:
            ClientDisconnected: It has not for *stall* seconds, or is no more.
        """
        loop = self._loop
        self._progress = waiter = loop.create_future()
        self._watch()
        has_stalled = False

        def on_stall() -> None:
            nonlocal has_stalled
            has_stalled = True
            self._end()

        timer = loop.call_at(loop.time() + stall, on_stall)
        try:
            await waiter
        finally:
            timer.cancel()
            if self._progress is waiter:
                self._progress = None
        if has_stalled:
            raise ClientDisconnected("the client has stopped reading")
        if self._lost:
            raise ClientDisconnected("the client has disconnected")


async def sendfile(transport: Any, file: int, offset: int, count: int, stall: float) -> int:
    # By the transport's own method, which may stand behind another.
    sent: int = await transport.sendfile(file, offset, count, stall)
    return sent


def name_of(ask: Callable[[], Any]) -> Any:
    """A socket's address, or None where the peer or the socket has gone already."""
    try:
        return ask()
    except OSError:
        return None
