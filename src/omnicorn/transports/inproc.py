"""Connections in memory and a clock moved by hand: everything above the ports, without waiting.

What this file alone decides: when things happen. `ManualLoop` runs what is ready in the order
it became ready and nothing else; time passes only in `ManualLoop.advance`. So a test of a 75
second deadline takes microseconds, and every run of it is the same run.

::

    the test ──Peer.send, close, reset──▶ [inbox] ──data_received, eof──▶ Connection
             ◀──Peer.read, received────── [window] ◀── [unsent] ◀──write─────┘

Rules:

1. What a peer does is noticed by the loop, never within the call that did it: after
   ``peer.send(...)`` comes ``loop.run_until_idle()``.
2. The peer reads everything at once until `Peer.pause`. From then on *window* bytes fit into
   the kernels between, the rest stays unsent, and past `HIGH_WATER` of it writing pauses;
   below a quarter of that it resumes. These are asyncio's own bounds.
3. As with TCP, closing while bytes of the peer are unread, or receiving some afterwards,
   resets the connection and destroys what the peer has not read yet (RFC 9112 §9.6).
4. Nothing gets lost: a task's exception comes out of the call that ran the loop.
"""

from __future__ import annotations

import heapq
import os
import threading
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from omnicorn.errors import ClientDisconnected
from omnicorn.ports import HIGH_WATER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from omnicorn.ports import ConnectionPort

T = TypeVar("T")

LOW_WATER = HIGH_WATER // 4
"""Unsent bytes at which writing resumes."""

_ENDLESS = 1_000_000  # callbacks without coming to rest: somebody spins


class Cancelled(BaseException):
    """Thrown into a task that was cancelled; as on every runtime, no `Exception`."""


class ManualTimer:
    """A callback at a time; see `ManualLoop.call_at`."""

    __slots__ = ("_callback", "_order", "when")

    def __init__(self, when: float, order: int, callback: Callable[[], object]) -> None:
        self.when = when
        self._order = order
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        if self._callback is not None:
            self._callback()

    def __lt__(self, other: ManualTimer) -> bool:
        return (self.when, self._order) < (other.when, other._order)


class ManualWaiter:
    """What tasks await and others wake: any number of tasks, once."""

    __slots__ = ("_done", "_tasks")

    def __init__(self) -> None:
        self._done = False
        self._tasks: list[ManualTask] = []

    def done(self) -> bool:
        return self._done

    def set_result(self, result: None = None, /) -> None:
        if self._done:
            raise RuntimeError("this waiter is done already")
        self._done = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.wake()

    def __await__(self) -> Generator[ManualWaiter, None, None]:
        if not self._done:
            yield self

    def add(self, task: ManualTask) -> None:
        self._tasks.append(task)

    def remove(self, task: ManualTask) -> None:
        self._tasks.remove(task)


class ManualTask:
    """A running coroutine. It is running, ready (in the loop's queue), or at a waiter."""

    __slots__ = ("_context", "_coro", "_loop", "_throw", "_waiter", "done")

    def __init__(self, coro: Coroutine[Any, Any, Any], loop: ManualLoop) -> None:
        self._coro: Coroutine[Any, Any, Any] | None = coro
        self._loop = loop
        self._context = copy_context()
        self._throw: BaseException | None = None
        self._waiter: ManualWaiter | None = None
        self.done = False

    def cancel(self) -> bool:
        """Throw `Cancelled` where the task waits, or will wait next; False: it is done."""
        if self.done:
            return False
        self._throw = Cancelled()
        if self._waiter is not None:
            self._waiter.remove(self)
            self.wake()
        return True

    def wake(self) -> None:
        self._waiter = None
        self._loop.call_soon(self.step)

    def step(self) -> None:
        """Run to the next wait."""
        coro = self._coro
        assert coro is not None
        throw, self._throw = self._throw, None
        try:
            if throw is None:
                waiter = self._context.run(coro.send, None)
            else:
                waiter = self._context.run(coro.throw, throw)
        except (StopIteration, Cancelled):
            self._finish()
        except BaseException as exc:
            self._finish()
            self._loop.failures.append(exc)
        else:
            if type(waiter) is not ManualWaiter:
                self._throw = RuntimeError(
                    f"a task of this loop can only await what comes from it, not {waiter!r:.80}"
                )
            if self._throw is not None:
                self._loop.call_soon(self.step)
            else:
                self._waiter = waiter
                waiter.add(self)

    def _finish(self) -> None:
        self.done = True
        self._coro = None


class ManualLoop:
    """The `Loop` port under full control.

    Args:
        start: The clock's first value, in seconds. It is not 0.0, so that a time that was
            never set cannot pass for one.
        eager: Tasks run to their first wait within ``spawn``, as asyncio's can from 3.12 on.
        sendfile: Emulate the kernel's; False says, like some platforms, that there is none.

    Attributes:
        failures: Exceptions that escaped from tasks and have not been raised yet.
        hold_blocking: Let ``run_blocking`` wait for `release_blocking`.
    """

    gathers_writes = False

    def __init__(
        self, *, start: float = 1000.0, eager: bool = False, sendfile: bool = False
    ) -> None:
        self._now = start
        self._eager = eager
        self._ready: deque[Callable[[], object]] = deque()
        self._timers: list[ManualTimer] = []
        self._order = 0
        self._held: list[ManualWaiter] = []
        self._from_threads = threading.Semaphore(0)
        self.failures: list[BaseException] = []
        self.hold_blocking = False
        self.sendfile: Callable[[Any, int, int, int, float], Awaitable[int]] | None = (
            _sendfile if sendfile else None
        )

    # ------------------------------------------------------------------ the port

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._ready.append(callback)

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        self._ready.append(callback)
        self._from_threads.release()

    def call_at(self, when: float, callback: Callable[[], object]) -> ManualTimer:
        self._order += 1
        timer = ManualTimer(when, self._order, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def create_future(self) -> ManualWaiter:
        return ManualWaiter()

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> ManualTask:
        task = ManualTask(coro, self)
        if self._eager:
            task.step()
        else:
            self.call_soon(task.step)
        return task

    async def run_blocking(self, function: Callable[..., T], *args: Any) -> T:
        """Run it here and now, or, with `hold_blocking`, when the test says so."""
        if self.hold_blocking:
            waiter = ManualWaiter()
            self._held.append(waiter)
            await waiter
        return function(*args)

    # ------------------------------------------------------------------ the hand on it

    def run_until_idle(self) -> None:
        """Run everything that is ready, and what that makes ready; timers do not fire.

        Raises:
            RuntimeError: It does not come to rest.
            BaseException: The one that escaped from a task or a callback; from several
                tasks, a group of them.
        """
        ready = self._ready
        for _ in range(_ENDLESS):
            if not ready:
                break
            ready.popleft()()
        else:
            raise RuntimeError("the loop does not come to rest: something calls itself forever")
        failures, self.failures = self.failures, []
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise BaseExceptionGroup("several tasks failed", failures)

    def advance(self, seconds: float) -> None:
        """Let time pass: every timer fires at its own time, and what it starts runs then.

        Raises:
            BaseException: As for `run_until_idle`.
        """
        self.run_until_idle()
        end = self._now + seconds
        timers = self._timers
        while timers and timers[0].when <= end:
            timer = heapq.heappop(timers)
            self._now = max(self._now, timer.when)
            self.call_soon(timer.fire)
            self.run_until_idle()
        self._now = end

    def jump(self, seconds: float) -> None:
        """Let time pass unseen, as while the process is held up: timers fire late, at its end.

        Raises:
            BaseException: As for `run_until_idle`.
        """
        self._now += seconds
        self.advance(0.0)

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end without time passing; returns its result.

        Raises:
            RuntimeError: It waits for something that nobody is about to do.
            BaseException: Its own, or as for `run_until_idle`.
        """
        results: list[T] = []

        async def keep() -> None:
            results.append(await coro)

        task = self.spawn(keep())
        self.run_until_idle()
        if not results:
            task.cancel()
            self.run_until_idle()
            raise RuntimeError(f"{coro!r:.120} waits for something that nobody is about to do")
        return results[0]

    def run_until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        """Run what is ready and what threads ask for, until *condition* holds.

        Args:
            condition: Asked again after each call from a thread.
            seconds: Of the real clock, that a thread may take for its next call.

        Raises:
            RuntimeError: No thread called in that time.
            BaseException: As for `run_until_idle`.
        """
        self.run_until_idle()
        while not condition():
            if not self._from_threads.acquire(timeout=seconds):
                raise RuntimeError("no thread has called, and what was waited for has not come")
            self.run_until_idle()

    def release_blocking(self) -> None:
        """Let the calls held by `hold_blocking` run; follow it by `run_until_idle`."""
        held, self._held = self._held, []
        for waiter in held:
            waiter.set_result()


class MemoryTransport:
    """The `Transport` port, joined to a `Peer`; made by `connect`.

    Args:
        loop: Whose turn it is.
        port: The connection that is served.
        extra: What `get_extra_info` knows.
        window: Bytes that fit between the two ends while the peer does not read.
    """

    def __init__(
        self, loop: ManualLoop, port: ConnectionPort, extra: dict[str, Any], window: int
    ) -> None:
        self._loop = loop
        self._port: ConnectionPort | None = port
        self._extra = extra
        self._unsent = bytearray()
        self._scheduled = False
        self._reading = True
        self._writing = True
        self._closing = False
        self._eof = False
        self._sleepers: list[ManualWaiter] = []
        self.peer = Peer(self, window)

    # ------------------------------------------------------------------ the port

    def write(self, data: bytes, /) -> None:
        """Raises RuntimeError after `write_eof`; after a close nothing happens any more."""
        if self._eof:
            raise RuntimeError("write() after write_eof()")
        if not self._closing and data:
            self.peer.writes.append(bytes(data))
            self._unsent += data
            self._push()
            if self._writing and len(self._unsent) > HIGH_WATER and self._port is not None:
                self._writing = False
                self._port.pause_writing()

    def set_protocol(self, connection: ConnectionPort, /) -> None:
        if self._port is not None:
            self._port = connection

    def write_eof(self) -> None:
        self._eof = True
        self._push()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        """Read nothing more, send what is unsent, then close."""
        if not self._closing:
            self._closing = True
            self._push()
            if not self._unsent:
                self._loop.call_soon(self._lost)

    def abort(self) -> None:
        """Close now, by a reset; what is unsent is lost."""
        if self._port is not None:
            self._closing = True
            self._unsent.clear()
            self.peer.on_reset()
            self._loop.call_soon(self._lost)

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.schedule()

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._extra.get(name, default)

    # ------------------------------------------------------------------ for tests and sendfile

    @property
    def is_reading(self) -> bool:
        """Whether bytes of the peer are taken as they come."""
        return self._reading and not self._closing

    @property
    def is_closing(self) -> bool:
        """Whether the connection is closed or will be when all is sent."""
        return self._closing

    @property
    def is_lost(self) -> bool:
        """Whether ``connection_lost`` has been called."""
        return self._port is None

    async def written(self, stall: float) -> None:
        """Wait until nothing is unsent.

        Raises:
            ClientDisconnected: The connection is gone, or the peer has read nothing for
                *stall* seconds; then it is gone now.
        """
        while not self._closing and (before := len(self._unsent)):
            waiter = self._loop.create_future()
            self._sleepers.append(waiter)
            timer = self._loop.call_at(self._loop.time() + stall, self._wake)
            try:
                await waiter
            finally:
                timer.cancel()
            if len(self._unsent) == before:
                self.abort()
        if self._closing:
            raise ClientDisconnected("the client has disconnected")

    def _wake(self) -> None:
        sleepers, self._sleepers = self._sleepers, []
        for waiter in sleepers:
            waiter.set_result()

    # ------------------------------------------------------------------ between the two ends

    def schedule(self) -> None:
        """See to the inbox in the loop's next turn."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        inbox = self.peer.inbox
        port = self._port
        if port is None or self._closing or not self._reading or not inbox:
            return
        data = inbox.popleft()
        if data:
            port.data_received(data)
        elif not port.eof_received():
            self.close()
        self.schedule()

    def _push(self) -> None:
        """Move unsent bytes to the peer, as many as it takes."""
        unsent = self._unsent
        room = self.peer.room
        if room and unsent:
            self.peer.on_bytes(bytes(unsent[:room]))
            del unsent[:room]
        if self._eof and not unsent:
            self.peer.eof = True

    def on_room(self) -> None:
        """The peer has read."""
        if self._port is None:
            return
        self._push()
        self._wake()
        if not self._writing and len(self._unsent) <= LOW_WATER:
            self._writing = True
            if not self._closing:
                self._port.resume_writing()
        if self._closing and not self._unsent:
            self._loop.call_soon(self._lost)

    def on_reset(self) -> None:
        """The peer has reset the connection."""
        self._closing = True
        self._unsent.clear()
        self._loop.call_soon(lambda: self._lost(ConnectionResetError("reset by the peer")))

    def _lost(self, error: Exception | None = None) -> None:
        port, self._port = self._port, None
        if port is not None:
            self.peer.on_closed()
            self._wake()
            port.connection_lost(error)


class Peer:
    """The other end of a `MemoryTransport`: a client, played by the test.

    Attributes:
        transport: The server's end.
        writes: Each single write of the server, whether it has arrived or not.
        eof: The server has sent its last byte in good order, and it has arrived.
        was_reset: The connection ended in a reset.
        inbox: What was sent and is not read yet; the empty piece is the end.
    """

    def __init__(self, transport: MemoryTransport, window: int) -> None:
        self.transport = transport
        self.writes: list[bytes] = []
        self.eof = False
        self.was_reset = False
        self.inbox: deque[bytes] = deque()
        self._size = window
        self._window = bytearray()
        self._received = bytearray()
        self._taken = 0
        self._reading = True
        self._closed = False

    # ------------------------------------------------------------------ what it sends

    def send(self, data: bytes) -> None:
        """Send one segment.

        Raises:
            RuntimeError: This end is closed.
        """
        if self._closed:
            raise RuntimeError("this end of the connection is closed")
        if self.transport.is_lost:
            self.on_reset()
        elif data:
            self.inbox.append(data)
            self.transport.schedule()

    def close(self) -> None:
        """Send nothing more (FIN); what comes is still read."""
        if not self._closed:
            self._closed = True
            self.inbox.append(b"")
            self.transport.schedule()

    def reset(self) -> None:
        """Be gone at once (RST)."""
        self._closed = True
        self.inbox.clear()
        self.transport.on_reset()

    @property
    def waiting(self) -> int:
        """Bytes sent that the server has not read."""
        return sum(map(len, self.inbox))

    # ------------------------------------------------------------------ what it reads

    @property
    def received(self) -> bytes:
        """Everything read so far."""
        return bytes(self._received)

    def take(self) -> bytes:
        """What was read since the last time."""
        data = bytes(self._received[self._taken :])
        self._taken = len(self._received)
        return data

    def pause(self) -> None:
        """Stop reading; see `read` and `resume`."""
        self._reading = False

    def read(self, count: int) -> int:
        """Read up to *count* of the bytes that have arrived; returns how many there were."""
        data = self._window[:count]
        del self._window[:count]
        self._received += data
        self.transport._loop.call_soon(self.transport.on_room)
        return len(data)

    def resume(self) -> None:
        """Read everything as it comes again."""
        self._reading = True
        self.read(len(self._window))

    # ------------------------------------------------------------------ from the other end

    @property
    def room(self) -> int:
        """Bytes that may arrive now."""
        return len(self.transport._unsent) if self._reading else self._size - len(self._window)

    def on_bytes(self, data: bytes) -> None:
        if self._reading:
            self._received += data
        else:
            self._window += data

    def on_closed(self) -> None:
        if any(self.inbox):  # rule 3
            self.on_reset()
        elif not self.was_reset:
            self.eof = True

    def on_reset(self) -> None:
        self.was_reset = True
        self._window.clear()


def connect(
    loop: ManualLoop,
    port: ConnectionPort,
    *,
    peername: Any = ("192.0.2.1", 50000),
    sockname: Any = ("192.0.2.80", 80),
    window: int = HIGH_WATER,
    extra: dict[str, Any] | None = None,
) -> Peer:
    """Connect a client to a server's connection.

    Args:
        loop: The loop of both.
        port: The connection; its ``connection_made`` is called here.
        peername: The client's address; a text for a unix socket.
        sockname: The server's.
        window: Bytes that fit between the two ends while the peer does not read.
        extra: More of what ``get_extra_info`` knows.
    """
    known = {"peername": peername, "sockname": sockname, **(extra or {})}
    transport = MemoryTransport(loop, port, known, window)
    port.connection_made(transport)
    return transport.peer


async def _sendfile(
    transport: MemoryTransport, file: int, offset: int, count: int, stall: float
) -> int:
    """The `Loop` port's ``sendfile``, by reading and writing."""
    sent = 0
    while True:
        await transport.written(stall)
        data = os.pread(file, min(HIGH_WATER, count - sent), offset + sent)
        if not data:
            return sent
        transport.write(data)
        sent += len(data)
