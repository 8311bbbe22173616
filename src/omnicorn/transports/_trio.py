"""trio behind the ports: a small reactor in one task, and tasks for applications alone.

What this file alone decides: which trio task runs what, and when. What is done with a socket that
is ready, `_trio_sockets` decides.

::

    sockets ─▶ selector ─▶ the reactor, a worker ──data_received──▶ connection ──spawn──▶ request
                              ▲ its fd, by trio's wait_readable             first step: here
    call_soon, call_at ─▶ the pump, a task                         if it waits: this worker is its
    threads ─▶ trio's token                                        task, another one is the reactor

Rules:

1. A connection costs no task. All sockets are in one selector, and its own descriptor (epoll,
   kqueue) is what trio watches: one of trio's waits for all that is ready, not one for each.
2. A coroutine never changes its task. The first step of a request runs at once, as asyncio's
   eager tasks do, in the reactor's task, and most requests end there. One that waits keeps the
   task, with the nurseries and cancel scopes it has opened in it, and is resumed by trio itself;
   a *worker*, parked or new, becomes the reactor. What is spawned elsewhere gets a worker.
3. Each worker has one cancel scope, that of whatever it runs. `TrioTask.cancel` cancels it, for
   good: that worker is spent, and runs nothing afterwards. So is one in which a request left a
   scope or a nursery open, whose cancellation would reach the next. It is looked for after each
   request, before anything else runs there.
4. A task that was cancelled before its first step never runs (asyncio's rule; a cancelled
   trio task goes on to its first checkpoint).
5. Between a request's first wait and the end of the reactor's step trio does not know that its
   task waits. A waiter that is awaited in that step is not trio's yet: it comes to the reactor,
   and if it is done meanwhile, the request goes on at once. So a small body that came with its
   head is there without a switch. Nobody but our own code runs in between, and wakes only those.
6. A new timer moves the pump's alarm only if it is the earliest; nobody is woken for it.
7. Everything runs in a copy of the context in which the loop was made, requests in one of their
   own.
8. What a callback, a connection or a request raises is logged here, and costs that connection
   at most; a trio.Cancelled that is none of the loop's, too. SystemExit and KeyboardInterrupt
   cancel the caller of `hosting` and every task, as asyncio does, and come out in the end; the
   loop itself goes on, so that the caller can give back what it has.
9. While the loop lives, there is a reactor. One that a request has cancelled all the same, by
   whatever way, is replaced.
"""

from __future__ import annotations

import contextvars
import heapq
import logging
import math
import os
import selectors
import socket
import types
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import Abort, current_task, reschedule, wait_readable, wait_task_rescheduled

from omnicorn.observability.logs import RateLimited
from omnicorn.transports._trio_sockets import TrioTransport
from omnicorn.transports.streams import READ, SocketAcceptor, sendfile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Sequence

    from omnicorn.ports import ConnectionPort
    from omnicorn.transports.unix import UnixSockets

logger = logging.getLogger("omnicorn.error")

_BATCH = 64  # sockets served before other tasks have their turn
_PARKED = 256  # workers that wait for work
_EXITS = (KeyboardInterrupt, SystemExit)
_ENDED: Any = object()


class TrioWaiter:
    """What tasks await and others wake: any number of tasks, once. `TrioLoop.create_future`."""

    __slots__ = ("_done", "_loop", "_tasks", "worker")

    def __init__(self, loop: TrioLoop) -> None:
        self._loop = loop
        self._done = False
        self._tasks: list[trio.lowlevel.Task] = []
        self.worker: _Worker | None = None  # whose coroutine waits, unknown to trio (rule 5)

    def done(self) -> bool:
        return self._done

    def set_result(self, result: None = None, /) -> None:
        if self._done:
            raise RuntimeError("this waiter is done already")
        self._done = True
        if self.worker is not None:
            self.worker.is_woken = True
        if self._tasks:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                reschedule(task)

    def __await__(self) -> Generator[Any, Any, None]:
        if self._done:
            return
        if self._loop.in_step:
            yield self
            return
        task = current_task()
        self._tasks.append(task)

        def abort(_: object) -> Abort:
            self._tasks.remove(task)
            return Abort.SUCCEEDED

        yield from wait_task_rescheduled(abort).__await__()  # noqa: ASYNC105  # in a generator


class TrioTimer:
    """A callback at a time; see `TrioLoop.call_at`."""

    __slots__ = ("_order", "callback", "when")

    def __init__(self, when: float, order: int, callback: Callable[[], object]) -> None:
        self.when = when
        self._order = order
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: TrioTimer) -> bool:
        return (self.when, self._order) < (other.when, other._order)


class TrioTask:
    """A coroutine that was spawned."""

    __slots__ = ("coro", "worker")

    def __init__(self, coro: Coroutine[Any, Any, None] | None, worker: _Worker | None) -> None:
        self.coro = coro  # until it begins
        self.worker = worker  # until it ends

    def cancel(self) -> None:
        """Cancel what it waits for and will wait for; before its first step, it never runs."""
        worker, coro = self.worker, self.coro
        if coro is not None:
            self.coro = self.worker = None
            coro.close()
        elif worker is not None:
            worker.is_spent = True
            worker.scope.cancel()


_OVER = TrioTask(None, None)


class _Worker:
    """A trio task that runs what it is given: coroutines, one after the other, or the reactor."""

    __slots__ = (
        "_level",
        "_loop",
        "context",
        "held",
        "is_reactor",
        "is_spent",
        "is_woken",
        "job",
        "message",
        "scope",
        "task",
    )

    scope: trio.CancelScope
    task: trio.lowlevel.Task
    context: contextvars.Context  # of what is held

    def __init__(self, loop: TrioLoop, job: TrioTask | None) -> None:
        self._loop = loop
        self.job = job  # None: to be the reactor
        self.is_reactor = False  # and nobody else is: without it nothing goes on
        self.is_spent = False
        self.held: Coroutine[Any, Any, None] | None = None  # begun in the reactor, and waits
        self.message: Any = None  # what it waits for, in trio's words
        self.is_woken = False  # ... has happened already

    @trio.lowlevel.enable_ki_protection  # a KeyboardInterrupt is for the caller of `hosting`
    async def run(self) -> None:
        """The task."""
        loop = self._loop
        self.task = current_task()
        try:
            with trio.CancelScope() as self.scope:
                self._level = _innermost_scope(self.task)
                while True:
                    if self.job is None:
                        await loop.react(self)
                    if self.job is not None:
                        await self._work(self.job)
                    if self.is_unfit() or not await loop.park(self):
                        break
        except GeneratorExit:
            raise
        except BaseException as exc:
            if self.is_reactor:
                if loop.is_over or not _is_cancellation(exc):
                    raise
            elif isinstance(exc, Exception):  # of the scope: what is run here raises none
                if not self.task.child_nurseries:
                    logger.error("A request left a cancel scope open", exc_info=exc)
            elif loop.is_over:
                raise
            else:
                logger.error("A request's task failed", exc_info=exc)
        if self.is_reactor:
            logger.error("A request has cancelled the reactor; another one takes its place")
            loop.appoint()
        loop.workers.discard(self)
        if self.task.child_nurseries:
            await loop.bury(self)

    def wait_for(self, message: Any) -> None:
        """What is held waits, for one of our waiters or for something of trio's."""
        self.message = message
        if type(message) is TrioWaiter:
            message.worker = self

    async def _work(self, job: TrioTask) -> None:
        coro, job.coro = job.coro, None
        held, self.held = self.held, None
        message, self.message = self.message, None
        try:
            if held is not None:
                await _go_on(held, message)
            elif coro is not None:
                await coro
        except BaseException as exc:
            if not isinstance(exc, Exception) and not _is_exit(exc):
                raise
            self._loop.fail(exc)
        finally:
            job.worker = None

    def is_unfit(self) -> bool:
        """Whether something was left behind that would reach the next who runs here."""
        if not self.is_spent:
            level = self._level
            # A nursery has a scope, too.
            self.is_spent = level is None or self.task._cancel_status is not level
        return self.is_spent


def _innermost_scope(task: trio.lowlevel.Task) -> object | None:
    """What stands for the innermost cancel scope of *task*; None if it cannot be told.

    trio keeps it private; if a later one renames it, each worker runs one request and no more.
    """
    return getattr(task, "_cancel_status", None)


@types.coroutine
def _go_on(coro: Coroutine[Any, Any, None], message: Any) -> Generator[Any, Any, None]:
    """Await a coroutine that has been begun already, and waits with *message*."""
    try:
        while True:
            try:
                if type(message) is TrioWaiter:
                    yield from message.__await__()
                    value = None
                else:
                    value = yield message
            except BaseException as exc:
                message = coro.throw(exc)
            else:
                message = coro.send(value)
    except StopIteration:
        return


def _is_exit(exc: BaseException) -> bool:
    """Whether an exception asks for the end of the process."""
    if isinstance(exc, BaseExceptionGroup):
        return exc.subgroup(_EXITS) is not None
    return isinstance(exc, _EXITS)


def _is_cancellation(exc: BaseException) -> bool:
    """Whether a scope was cancelled, our own or one that was left open in it."""
    if isinstance(exc, RuntimeError):  # trio's, about the open one
        return isinstance(exc.__context__, trio.Cancelled)
    return isinstance(exc, trio.Cancelled)


class _Reader:
    """What the selector tells, for who watches a descriptor of his own."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback

    def on_ready(self, _: int) -> None:
        self._callback()

    def crash(self, exc: Exception) -> None:
        logger.error("A callback failed", exc_info=exc)


class TrioLoop:
    """The `Loop` port on trio, and what a server needs besides; made by `hosting`.

    Args:
        nursery: Where its tasks live; `close` cancels it.
        selector: Watches all sockets. It has a descriptor itself.
        on_exit: Called with the SystemExit or KeyboardInterrupt that a task has raised.

    Attributes:
        is_closed: `close` was called.
        workers: All that have not ended.
        connections: Transports that are open.
        acceptors: Those that accept.
    """

    gathers_writes = False

    def __init__(
        self,
        nursery: trio.Nursery,
        selector: selectors.BaseSelector,
        on_exit: Callable[[BaseException], object],
    ) -> None:
        self._nursery = nursery
        self._on_exit = on_exit
        self._base = contextvars.copy_context()
        self._token = trio.lowlevel.current_trio_token()
        self._selector = selector
        self._fd: int = selector.fileno()  # type: ignore[attr-defined]
        self._ready: list[tuple[selectors.SelectorKey, int]] = []
        self._soon: deque[Callable[[], object]] = deque()
        self._in_turn = False
        self._pump: trio.lowlevel.Task | None = None  # while it is parked
        self._timers: list[TrioTimer] = []
        self._order = 0
        self._alarm = trio.CancelScope()
        self.workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._eager: _Worker | None = None  # in whose task a first step may run now
        self.in_step = False  # a request's first step runs, and those of rule 5
        self._graves: list[trio.CancelScope] = []
        self._outlasting: set[trio.CancelScope] = set()
        self._complaints = RateLimited(logger.error)
        self.is_closed = False
        self._is_dead = False
        self.connections: set[TrioTransport] = set()
        self.acceptors: set[SocketAcceptor] = set()
        self._unix: UnixSockets | None = None
        self.time: Callable[[], float] = trio.lowlevel.current_clock().current_time
        self.create_future: Callable[[], TrioWaiter] = partial(TrioWaiter, self)
        self.run_blocking: Callable[..., Awaitable[Any]] = trio.to_thread.run_sync
        self.sendfile: Callable[[Any, int, int, int, float], Awaitable[int]] | None = (
            sendfile if hasattr(os, "sendfile") else None
        )
        self._start(self._run_pump)
        self.appoint()

    @property
    def is_over(self) -> bool:
        """It was closed, or dies: its tasks are cancelled."""
        return self.is_closed or self._nursery.cancel_scope.cancel_called

    # ------------------------------------------------------------------ callbacks

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call back after what is ready now; in the reactor's turn, at the end of it."""
        self._soon.append(callback)
        pump = self._pump
        if pump is not None and not self._in_turn:
            self._pump = None
            reschedule(pump)

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        """The same from any thread or signal handler.

        Raises:
            RuntimeError: trio's run has ended.
        """
        self._token.run_sync_soon(self._call, callback)

    def call_at(self, when: float, callback: Callable[[], object]) -> TrioTimer:
        """Call back at *when*, in seconds of `time`."""
        self._order += 1
        timer = TrioTimer(when, self._order, callback)
        timers = self._timers
        heapq.heappush(timers, timer)
        if timers[0] is timer:
            self._alarm.deadline = when
        return timer

    @trio.lowlevel.enable_ki_protection
    async def _run_pump(self) -> None:
        timers = self._timers
        while True:
            with trio.CancelScope(deadline=timers[0].when if timers else math.inf) as self._alarm:
                while True:
                    if self._soon:
                        await trio.lowlevel.checkpoint()
                    else:
                        self._pump = current_task()
                        await wait_task_rescheduled(self._leave_pump)
                    self._run_soon()
            now = self.time()
            while timers and timers[0].when <= now:
                callback = heapq.heappop(timers).callback
                if callback is not None:
                    self._call(callback)

    def _leave_pump(self, _: object) -> Abort:
        self._pump = None
        return Abort.SUCCEEDED

    def _run_soon(self) -> None:
        soon = self._soon
        for _ in range(len(soon)):
            self._call(soon.popleft())

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except Exception:
            logger.exception("A callback failed")

    # ------------------------------------------------------------------ tasks

    def spawn(self, coro: Coroutine[Any, Any, None]) -> TrioTask:
        """Run a coroutine as a task; at once as far as it goes, where that is possible."""
        worker = self._eager
        if worker is None:
            return self._hand_over(coro)
        self._eager = None
        context = self._base.copy()
        message = self._step(coro, context)
        if message is _ENDED:
            if not worker.is_unfit():
                self._eager = worker
            return _OVER
        worker.held = coro
        worker.context = context
        worker.job = task = TrioTask(None, worker)
        worker.wait_for(message)
        return task

    def _step(self, coro: Coroutine[Any, Any, None], context: contextvars.Context) -> Any:
        """Run a coroutine to its next wait; returns what it waits for, or `_ENDED`."""
        self.in_step = True
        try:
            return context.run(coro.send, None)
        except StopIteration:
            return _ENDED
        except BaseException as exc:
            self.fail(exc)
            return _ENDED
        finally:
            self.in_step = False

    def fail(self, exc: BaseException) -> None:
        """A task has raised."""
        if not _is_exit(exc):
            logger.error("A request's task failed", exc_info=exc)
            return
        self._on_exit(_alone(exc))
        for worker in tuple(self.workers):
            task = worker.job
            if task is not None and task.worker is worker and task.coro is None:
                task.cancel()

    def _hand_over(self, coro: Coroutine[Any, Any, None]) -> TrioTask:
        task = TrioTask(coro, None)
        try:
            task.worker = self._employ(task)
        except RuntimeError:  # this loop is over
            coro.close()
            raise
        return task

    def appoint(self) -> None:
        """Make a worker the reactor."""
        self._employ(None)

    def _employ(self, job: TrioTask | None) -> _Worker:
        idle = self._idle
        if idle:
            worker = idle.pop()
            worker.job = job
            reschedule(worker.task)
        else:
            worker = _Worker(self, job)
            self.workers.add(worker)
            self._start(worker.run)
        return worker

    def _start(self, function: Callable[[], Awaitable[None]]) -> None:
        self._base.run(self._nursery.start_soon, function)  # which copies the context it runs in

    async def park(self, worker: _Worker) -> bool:
        """Wait until there is work for *worker*; returns False if it is not needed."""
        idle = self._idle
        if len(idle) >= _PARKED:
            return False
        idle.append(worker)
        worker.task.context = self._base.copy()  # what it held is let go

        def abort(_: object) -> Abort:
            idle.remove(worker)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)
        return True

    async def bury(self, worker: _Worker) -> None:
        """Keep a task in which a nursery was left open: its end would be that of all others."""
        logger.error("A request left a nursery open; its tasks are cancelled")
        for nursery in worker.task.child_nurseries:
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True) as grave:
            self._graves.append(grave)
            await trio.sleep_forever()

    # ------------------------------------------------------------------ the reactor

    async def react(self, worker: _Worker) -> None:
        """Serve what is ready, until a request needs this task: it is the worker's job then."""
        worker.is_reactor = True
        while True:
            if self._ready:
                await trio.lowlevel.checkpoint()
            else:
                await wait_readable(self._fd)
            self._turn(worker)
            if worker.held is not None or worker.is_unfit():
                break
        worker.is_reactor = False
        self.appoint()
        if worker.held is not None:
            if type(worker.message) is TrioWaiter:
                worker.message.worker = None
            worker.task.context = worker.context

    def _turn(self, worker: _Worker) -> None:
        """Serve sockets, then run the callbacks that this has asked for."""
        ready = self._ready or self._selector.select(0)
        if len(ready) > _BATCH:
            self._ready = ready[_BATCH:]
            ready = ready[:_BATCH]
        elif self._ready:
            self._ready = []
        self._eager = worker
        self._in_turn = True
        for key, mask in ready:
            port = key.data
            try:
                port.on_ready(mask)
            except Exception as exc:
                port.crash(exc)
            if worker.is_woken:
                self._go_on_at_once(worker)
        if self._soon:
            self._run_soon()
            if worker.is_woken:
                self._go_on_at_once(worker)
        self._in_turn = False
        self._eager = None
        if self._soon and self._pump is not None:
            pump, self._pump = self._pump, None
            reschedule(pump)

    def _go_on_at_once(self, worker: _Worker) -> None:
        """What the held coroutine waits for has happened meanwhile."""
        while worker.is_woken:
            worker.is_woken = False
            coro, task = worker.held, worker.job
            assert coro is not None and task is not None
            message = self._step(coro, worker.context)
            if message is not _ENDED:
                worker.wait_for(message)
                continue
            worker.held = worker.message = worker.job = task.worker = None
            if not worker.is_unfit():
                self._eager = worker

    def watch(self, sock: socket.socket, before: int, mask: int, port: object) -> None:
        """Have *port* told when *sock* is ready; *mask* 0: no more."""
        if not before:
            self._selector.register(sock, mask, port)
        elif mask:
            self._selector.modify(sock, mask, port)
        else:
            self._selector.unregister(sock)

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """Call back in each turn in which *fd* is readable; what that raises must be its own."""
        self._selector.register(fd, READ, _Reader(callback))

    def remove_reader(self, fd: int) -> None:
        self._selector.unregister(fd)

    # ------------------------------------------------------------------ for servers

    async def listen(
        self, connect: Callable[[], ConnectionPort], sockets: Sequence[socket.socket], backlog: int
    ) -> list[SocketAcceptor]:
        """Accept on listening *sockets*; each transport gets a connection from *connect*."""
        tells = getattr(connect, "ends_by_closing", False)
        acceptors = []
        for sock in sockets:
            if tells and (unix := self._unix_sockets(sock)) is not None:
                acceptors.append(unix.listen(connect, sock, backlog))
                continue
            sock.setblocking(False)
            sock.listen(backlog)
            acceptors.append(SocketAcceptor(self, sock, connect))
        return acceptors

    def release(self) -> None:
        """See `Host`."""
        if self._unix is not None:
            self._unix.forsake()

    def _unix_sockets(self, sock: socket.socket) -> UnixSockets | None:
        from omnicorn.transports import unix

        if not unix.takes(sock):
            return None
        if self._unix is None:
            self._unix = unix.UnixSockets(self)
        return self._unix

    def attach(
        self, sock: socket.socket, port: ConnectionPort, peername: Any = None
    ) -> TrioTransport:
        """Serve *port* on a connected socket, which is closed in the end."""
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # A response in two writes must not wait for the peer's delayed ACK.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = TrioTransport(self, sock, port, peername)
        transport.begin()
        return transport

    async def outlast(self, waiter: TrioWaiter, on_cancel: Callable[[], object]) -> None:
        """Await *waiter* to its end, even if the caller is cancelled.

        Args:
            waiter: Of `create_future`.
            on_cancel: Called when the caller is cancelled meanwhile; once, as trio knows no second
                time. Who is cancelled already may be here because of that, to end in order.

        Raises:
            trio.Cancelled: In the end, if the caller was cancelled; before it, if the loop dies.
        """
        came_cancelled = trio.current_effective_deadline() == -math.inf
        try:
            await waiter
        except (trio.Cancelled, KeyboardInterrupt):
            if not came_cancelled:
                on_cancel()
            if self._is_dead:
                raise
            with trio.CancelScope(shield=True) as scope:
                self._outlasting.add(scope)
                try:
                    await waiter
                finally:
                    self._outlasting.discard(scope)
            raise

    def complain(self, message: str, *args: object) -> None:
        """Log what may happen over and over, once in a while."""
        self._complaints(self.time(), message, *args)

    def give_up(self) -> None:
        """The loop has died: nothing that somebody still awaits will happen."""
        self._is_dead = True
        for scope in tuple(self._outlasting):
            scope.cancel()

    def close(self) -> None:
        """Cut all connections, accept no more, and cancel the tasks."""
        self.is_closed = True
        self._run_soon()
        for acceptor in tuple(self.acceptors):
            acceptor.close()
        for transport in tuple(self.connections):
            transport.abort()
            self._call(transport.lose)
        if self._unix is not None:
            self._call(self._unix.close)
        self._ready = []
        for grave in self._graves:
            grave.cancel()
        self._nursery.cancel_scope.cancel()


@asynccontextmanager
async def hosting() -> AsyncIterator[TrioLoop]:
    """A `TrioLoop` in the running trio; left, it cuts and cancels what is left, and waits for it.

    Its tasks live behind a shield: a caller that is cancelled can still drain in order. What the
    caller raises comes out as it is. SystemExit in a task, and what ends the loop too early (a bug
    of the reactor), cancels the caller and comes out in its place.
    """
    with selectors.DefaultSelector() as selector:
        if not hasattr(selector, "fileno"):
            raise RuntimeError(
                f"trio cannot watch a {type(selector).__name__}: this platform has neither epoll "
                "nor kqueue; use asyncio"
            )
        made: list[TrioLoop] = []
        ready = trio.Event()
        failure: BaseException | None = None
        error: BaseException | None = None

        def leave(exc: BaseException) -> None:
            nonlocal failure
            failure = failure or exc
            interrupt.cancel()

        async def host() -> None:
            try:
                with trio.CancelScope(shield=True):
                    async with trio.open_nursery() as nursery:
                        made.append(TrioLoop(nursery, selector, leave))
                        ready.set()
                        await trio.sleep_forever()
            except BaseException as exc:
                # The end of a buried task is an error of trio's own.
                if not (made and made[0].is_closed):
                    leave(_alone(exc))
                    for loop in made:
                        loop.give_up()
            finally:
                ready.set()

        with trio.CancelScope() as interrupt:
            async with trio.open_nursery() as outer:
                # Not by `outer.start`: there, who is cancelled meanwhile waits for the host's end.
                outer.start_soon(host)
                with trio.CancelScope(shield=True):
                    await ready.wait()
                if made:
                    try:
                        yield made[0]
                    except BaseException as exc:
                        error = exc
                    finally:
                        made[0].close()
    try:
        if failure is not None:
            raise failure
        if error is not None:
            raise error
    finally:
        failure = error = None  # their tracebacks hold this frame


def _alone(exc: BaseException) -> BaseException:
    """The one exception of a group, or of a group in it."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc
