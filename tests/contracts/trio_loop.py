"""The ports on trio, as short as it can be: proof that nothing above them knows asyncio.

It is test code: no TLS, no sendfile, no accept back-off. Its traps, for whoever writes the
real one:

1. Writing straight to the socket is for an empty buffer only, or bytes change places.
2. A new timer wakes the pump only if it is the earliest, or every deadline costs a switch.
3. After ``connection_lost`` writes are dropped, not passed on.
4. ``abort`` has to say so: without SO_LINGER 0 the peer sees an orderly end.
"""

from __future__ import annotations

import heapq
import math
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from omnicorn.ports import HIGH_WATER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from omnicorn.ports import ConnectionPort


class TrioWaiter:
    def __init__(self) -> None:
        self._done = False
        self._tasks: list[trio.lowlevel.Task] = []

    def done(self) -> bool:
        return self._done

    def set_result(self, result: None = None, /) -> None:
        self._done = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            trio.lowlevel.reschedule(task)

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        if self._done:
            return
        task = trio.lowlevel.current_task()
        self._tasks.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._tasks.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


class TrioTimer:
    def __init__(self, when: float, order: int, callback: Callable[[], object]) -> None:
        self.key = (when, order)
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: TrioTimer) -> bool:
        return self.key < other.key


class TrioLoop:
    """The `Loop` port; its tasks live in *nursery*, and `run` must be one of them."""

    sendfile = None
    gathers_writes = False

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._soon: deque[Callable[[], object]] = deque()
        self._timers: list[TrioTimer] = []
        self._order = 0
        self._kick = trio.Event()
        self.time = trio.current_time
        self.run_blocking = trio.to_thread.run_sync
        self.create_future = TrioWaiter

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._soon.append(callback)
        self._kick.set()

    def call_at(self, when: float, callback: Callable[[], object]) -> TrioTimer:
        self._order += 1
        timer = TrioTimer(when, self._order, callback)
        heapq.heappush(self._timers, timer)
        if self._timers[0] is timer:  # trap 2
            self._kick.set()
        return timer

    def spawn(self, coro: Coroutine[Any, Any, None]) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await coro

        self._nursery.start_soon(run)
        return scope

    async def run(self) -> None:
        """The pump: what is to be called soon, and what is due."""
        while True:
            self._kick = trio.Event()
            while self._timers and self._timers[0].key[0] <= trio.current_time():
                callback = heapq.heappop(self._timers).callback
                if callback is not None:
                    self._soon.append(callback)
            for _ in range(len(self._soon)):
                self._soon.popleft()()
            if self._soon:
                await trio.lowlevel.checkpoint()
                continue
            with trio.move_on_at(self._timers[0].key[0] if self._timers else math.inf):
                await self._kick.wait()


class TrioTransport:
    """The `Transport` port on a non-blocking socket, with one task for each direction."""

    def __init__(self, sock: socket.socket, port: ConnectionPort) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._port = port
        self._unsent = bytearray()
        self._writing = True
        self._closing = False
        self._eof = False
        self._lost = False
        self._error: Exception | None = None
        self._may_read = trio.Event()
        self._may_read.set()
        self._to_do = trio.Event()
        self._end = trio.Event()

    def write(self, data: bytes, /) -> None:
        if self._closing:
            return  # trap 3
        sent = 0
        if not self._unsent:  # trap 1
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                pass
            except OSError as exc:
                self._fail(exc)
                return
        self._unsent += data[sent:]
        if self._unsent:
            self._to_do.set()
            if self._writing and len(self._unsent) > HIGH_WATER:
                self._writing = False
                self._port.pause_writing()

    def write_eof(self) -> None:
        self._eof = True
        self._to_do.set()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._closing = True
        self._to_do.set()

    def abort(self) -> None:
        if not self._lost:
            self._closing = True
            self._unsent.clear()
            reset = struct.pack("ii", 1, 0)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)  # trap 4
            self._end.set()

    def pause_reading(self) -> None:
        if self._may_read.is_set():
            self._may_read = trio.Event()

    def resume_reading(self) -> None:
        self._may_read.set()

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            return self._sock
        if name in ("peername", "sockname") and not self._lost:
            return self._sock.getpeername() if name == "peername" else self._sock.getsockname()
        return default

    def set_protocol(self, connection: ConnectionPort, /) -> None:
        self._port = connection

    async def run(self) -> None:
        """Serve the connection to its end."""
        self._port.connection_made(self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                nursery.start_soon(self._write)
                await self._end.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._closing = self._lost = True
            self._sock.close()
            self._port.connection_lost(self._error)

    def _fail(self, error: Exception) -> None:
        self._closing = True
        self._error = error
        self._end.set()

    async def _read(self) -> None:
        while True:
            await self._may_read.wait()
            await trio.lowlevel.wait_readable(self._sock)
            if self._closing:
                return
            if not self._may_read.is_set():
                continue
            try:
                data = self._sock.recv(HIGH_WATER)
            except BlockingIOError:
                continue
            except OSError as exc:
                self._fail(exc)
                return
            if data:
                self._port.data_received(data)
            else:
                if not self._port.eof_received():
                    self.close()
                return

    async def _write(self) -> None:
        shut = False
        while True:
            await self._to_do.wait()
            self._to_do = trio.Event()
            while self._unsent:
                await trio.lowlevel.wait_writable(self._sock)
                try:
                    del self._unsent[: self._sock.send(self._unsent)]
                except BlockingIOError:
                    continue
                except OSError as exc:
                    self._fail(exc)
                    return
                if not self._writing and len(self._unsent) <= HIGH_WATER // 4:
                    self._writing = True
                    if not self._closing:
                        self._port.resume_writing()
            if self._closing:
                self._end.set()
                return
            if self._eof and not shut:
                shut = True
                try:
                    self._sock.shutdown(socket.SHUT_WR)
                except OSError as exc:
                    self._fail(exc)
                    return


async def listen(
    nursery: trio.Nursery, factory: Callable[[], ConnectionPort], sock: socket.socket
) -> None:
    """Accept for ever; each connection is a task of *nursery*."""
    listener = trio.socket.from_stdlib_socket(sock)
    while True:
        accepted, _ = await listener.accept()
        # A plain socket again: trio's own has no way to send without awaiting.
        plain = socket.socket(accepted.family, accepted.type, fileno=accepted.detach())
        nursery.start_soon(TrioTransport(plain, factory()).run)
