"""Bridges between sync and async code: `sync_to_async`, `async_to_sync` and their contexts.

What this file alone decides: in which thread sync code runs, in which loop a coroutine runs, and
the interface, which is asgiref's. How they get there is elsewhere: `threads`, `libraries`, `hops`.

1. Thread-sensitive sync code runs in the thread that waits in the innermost `async_to_sync`; else
   in that of its `ThreadSensitiveContext`; else in the one that waits for its loop; else in
   the one thread that the process has for it.
2. A coroutine runs in the loop from which its sync code was called, if that still runs. Else it has
   a loop of its own, in a pooled thread, while the calling thread waits and runs what is
   thread-sensitive. The calling thread could run the loop itself, but not at once with thread-
   sensitive code: a loop can be moved to another thread then, but not what its coroutines hold of
   the first (a lock, a connection to SQLite). So that is left to those who ask: `AsyncPortal`.
3. A thread that waits looks now and then whether its coroutine's loop still runs.
4. Marks of a call, in thread-locals and Contexts, are put back when it ends, whatever ends it.
5. What belongs to other threads is void in a forked child.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import signal
import sys
import threading
import warnings
import weakref
from asyncio import CancelledError, _get_running_loop
from contextvars import Context, ContextVar, Token, copy_context
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, overload

from omnicorn.toolkit.current_thread_executor import CurrentThreadExecutor
from omnicorn.toolkit.deadlocks import watch
from omnicorn.toolkit.generators import ThreadedGenerator
from omnicorn.toolkit.hops import Borrowed, Hop, adopt_tasks, carry_back, state
from omnicorn.toolkit.libraries import (
    AsyncioCall,
    Bridge,
    Call,
    Cancellation,
    LoopJob,
    TrioCall,
    current_trio_loop,
    given_executor,
    in_async,
    released,
    shut_down,
)
from omnicorn.toolkit.local import Local, adopt
from omnicorn.toolkit.threads import (
    Job,
    StickyExecutor,
    pool,
    set_thread_limit,
    thread_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from concurrent.futures import Executor, Future
    from types import FrameType, TracebackType
    from typing import Self

__all__ = [
    "AsyncPortal",
    "AsyncSingleThreadContext",
    "AsyncToSync",
    "CurrentThreadExecutor",
    "SyncToAsync",
    "ThreadSensitiveContext",
    "async_to_sync",
    "generator_to_async",
    "iscoroutinefunction",
    "markcoroutinefunction",
    "set_thread_limit",
    "sync_to_async",
    "thread_statistics",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")

if sys.version_info >= (3, 12):
    iscoroutinefunction = inspect.iscoroutinefunction
    markcoroutinefunction = inspect.markcoroutinefunction
else:
    iscoroutinefunction = asyncio.iscoroutinefunction

    def markcoroutinefunction(func: F) -> F:
        """Have `iscoroutinefunction` say yes to `func`, as inspect's does in Python 3.12."""
        func._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
        return func


PATIENCE: Final = 0.1
"""Seconds after which a thread that waits looks whether the loop still runs; ten times it later."""

_modules: Final = sys.modules
_pid = os.getpid()


def _on_fork() -> None:
    global _pid
    _pid = os.getpid()
    SyncToAsync.single_thread_executor = StickyExecutor()
    AsyncToSync.loop_thread_executors.clear()
    SyncToAsync.context_to_thread_executor.clear()


class ThreadSensitiveContext:
    """Give the thread-sensitive calls of a block a thread of their own: ``async with``.

    The thread comes from a pool when it is first needed, and goes back when the block has been left
    and all is done. Within another such block this does nothing: the outermost counts.

    Args:
        executor: Used instead, and not shut down. Such a context always counts, even within
            `async_to_sync`; it can be entered once, and calls after its end are refused.
    """

    def __init__(self, *, executor: Executor | None = None) -> None:
        self._executor = executor
        self._token: Token[ThreadSensitiveContext | None] | None = None
        self._former: Any = None
        self._exited = False

    async def __aenter__(self) -> Self:
        current = SyncToAsync.thread_sensitive_context
        if self._executor is None:
            if current.get(None) is None:
                self._token = current.set(self)
            return self
        if self._exited:
            raise RuntimeError(
                "a ThreadSensitiveContext with an executor cannot be entered again; make a new one"
            )
        if self._token is not None:
            raise RuntimeError(
                "a ThreadSensitiveContext with an executor was already entered; make a new one"
            )
        self._former = getattr(AsyncToSync.executors, "current", None)
        AsyncToSync.executors.current = None
        SyncToAsync.context_to_thread_executor[self] = self._executor
        self._token = current.set(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        SyncToAsync.thread_sensitive_context.reset(token)
        executor = SyncToAsync.context_to_thread_executor.pop(self, None)
        if self._executor is not None:
            self._exited = True
            AsyncToSync.executors.current = self._former
            self._former = None
        elif isinstance(executor, StickyExecutor):
            await released(executor)


class AsyncSingleThreadContext:
    """Have all top-level `async_to_sync` calls of a block run in one thread: ``with``.

    Each call still has a new loop. A call from within `sync_to_async` goes to that loop
    instead, and one that comes while the thread is in use to another thread. Within another such
    block this does nothing.
    """

    def __init__(self) -> None:
        self._token: Token[AsyncSingleThreadContext | None] | None = None
        self._busy = threading.Lock()

    def __enter__(self) -> Self:
        current = AsyncToSync.async_single_thread_context
        if current.get(None) is None:
            self._token = current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            AsyncToSync.async_single_thread_context.reset(token)
            self._close()

    def _close(self) -> None:
        executor = AsyncToSync.context_to_thread_executor.pop(self, None)
        if executor is not None:
            executor.shutdown()

    def _run(self, bridge: Bridge) -> None:
        # Who comes while it is in use may be waited for by what runs there: to wait for it would be
        # a deadlock.
        if not self._busy.acquire(blocking=False):
            pool.lend(LoopJob(bridge, AsyncToSync.loop_thread_executors))
            _wait(bridge)
            return
        try:
            self._run_here(bridge)
        finally:
            self._busy.release()

    def _run_here(self, bridge: Bridge) -> None:
        executor = AsyncToSync.context_to_thread_executor.get(self)
        if executor is None:
            executor = AsyncToSync.context_to_thread_executor[self] = StickyExecutor()
        executor.enqueue(LoopJob(bridge, AsyncToSync.loop_thread_executors))
        _wait(bridge)


class AsyncPortal(AsyncSingleThreadContext):
    """Have all top-level `async_to_sync` calls of a block share one event loop: ``with``.

    What belongs to a loop (clients, locks, tasks left behind) is good for all of them; it is shut
    down at the end, as by ``asyncio.run``. Between the calls the loop rests.

    The loop runs in the calling thread, so that no thread is started or woken. When
    thread-sensitive sync code wants that thread, the loop moves to another one, in the midst of a
    coroutine, and stays there. Do not hold what belongs to a thread (``threading.RLock``, a
    connection to SQLite) over the ``await`` of such a call.

    Calls that come while the loop is in use have loops of their own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._elsewhere: StickyExecutor | None = None
        self._interrupts: _Interrupts | None = None

    def _close(self) -> None:
        loop, self._loop = self._loop, None
        elsewhere, self._elsewhere = self._elsewhere, None
        interrupts, self._interrupts = self._interrupts, None
        try:
            if elsewhere is not None:
                elsewhere.shutdown()
            if loop is not None:
                shut_down(loop)
        finally:
            if interrupts is not None:
                interrupts.remove()

    def _run_here(self, bridge: Bridge) -> None:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.new_event_loop()
            interrupts = _Interrupts(loop)
            self._interrupts = interrupts if interrupts.install() else None
        AsyncToSync.loop_thread_executors[loop] = bridge.executor
        bridge.loop = loop
        task = bridge.start(bridge.main())
        task.add_done_callback(lambda _: loop.stop())
        try:
            moved = self._elsewhere is None
            if moved:
                self._run_in_this_thread(loop, bridge, task)
            if not task.done():
                elsewhere = self._elsewhere
                if elsewhere is None:
                    elsewhere = self._elsewhere = StickyExecutor()
                elsewhere.enqueue(_RestJob(loop, bridge, moved=moved))
                _wait(bridge)
        except BaseException:
            bridge.abandon()
            raise
        finally:
            del AsyncToSync.loop_thread_executors[loop]
        if self._interrupts is not None and self._interrupts.came:
            self._interrupts.came = False
            raise KeyboardInterrupt

    def _run_in_this_thread(
        self, loop: asyncio.AbstractEventLoop, bridge: Bridge, task: asyncio.Task[None]
    ) -> None:
        """Run it to its end, or until a thread-sensitive call comes."""
        executor = bridge.executor
        interrupts = self._interrupts
        executor.on_job = loop.stop
        if interrupts is not None:
            interrupts.task = task
        try:
            # uvloop may stop once more, for a call that came before it had stopped.
            while not (task.done() or executor.has_more()):
                loop.run_forever()
        finally:
            if interrupts is not None:
                interrupts.task = None
            executor.on_job = None
        if task.done():
            executor.run_rest()


class _RestJob(Job):
    """Run a loop in this thread until its bridge's task is done."""

    __slots__ = ("_bridge", "_loop", "_moved")

    def __init__(self, loop: asyncio.AbstractEventLoop, bridge: Bridge, *, moved: bool) -> None:
        super().__init__()
        self._moved = moved
        self._loop = loop
        self._bridge = bridge

    def run(self) -> None:
        try:
            if self._moved:
                adopt_tasks(self._loop)
            while not self._bridge.task.done():
                self._loop.run_forever()
        except BaseException as error:
            self._bridge.abort(error)

    def deliver(self) -> None:
        self._bridge.finish()


class _Interrupts:
    """Ctrl-C cancels the task while a portal's loop runs in the main thread; else it interrupts.

    As `asyncio.Runner` does it, but installed once for all calls: that takes as long as a call.
    """

    __slots__ = ("_loop", "came", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.task: asyncio.Task[Any] | None = None
        """What runs in the main thread."""
        self.came = False

    def install(self) -> bool:
        """Whether it may be, and was."""
        if (
            threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        ):
            return False
        try:
            signal.signal(signal.SIGINT, self._on_signal)
        except ValueError:  # a main thread that Python did not start
            return False
        return True

    def remove(self) -> None:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) == self._on_signal
        ):
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        task = self.task
        if task is None or task.done() or self.came:
            raise KeyboardInterrupt
        self.came = True
        self._loop.call_soon_threadsafe(task.cancel)


class AsyncToSync(Generic[P, R]):
    """A coroutine function made callable from sync code. Use `async_to_sync`.

    Args:
        awaitable: Called in the calling thread; what it returns is awaited in a loop.
        force_new_loop: Never use the loop from which the sync code was called.
    """

    executors: Final = Local()
    """`executors.current` is the executor of the thread that waits for the running coroutine."""

    loop_thread_executors: Final[dict[Any, CurrentThreadExecutor]] = {}
    """For a loop made here, the executor of the thread that waits for it."""

    async_single_thread_context: Final[ContextVar[AsyncSingleThreadContext | None]] = ContextVar(
        "async_single_thread_context", default=None
    )

    context_to_thread_executor: Final[
        weakref.WeakKeyDictionary[AsyncSingleThreadContext, StickyExecutor]
    ] = weakref.WeakKeyDictionary()

    def __init__(
        self,
        awaitable: Callable[P, Coroutine[Any, Any, R]] | Callable[P, Awaitable[R]],
        force_new_loop: bool = False,
    ) -> None:
        call = getattr(awaitable, "__call__", awaitable)  # noqa: B004
        if not iscoroutinefunction(awaitable) and not iscoroutinefunction(call):
            warnings.warn("async_to_sync was passed a non-async-marked callable", stacklevel=2)
        self.awaitable = awaitable
        try:
            self.__self__ = awaitable.__self__  # type: ignore[union-attr]
        except AttributeError:
            pass
        self.force_new_loop = force_new_loop

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        __traceback_hide__ = True
        if in_async():
            raise RuntimeError(
                "You cannot use AsyncToSync in the same thread as an async event loop -"
                " just await the async function directly."
            )
        here = SyncToAsync.threadlocal
        executors = self.executors
        former = getattr(executors, "current", None)
        executor = CurrentThreadExecutor(former)
        # The coroutine has its own Context, so that the caller's need not be put back.
        context = copy_context()
        awaitable, before = context.run(self._prepare, executor, context, args, kwargs)
        exc_info: Any = sys.exc_info()
        if exc_info[1] is None:
            exc_info = None
        bridge = Bridge(awaitable, context, before, exc_info, executor)
        del awaitable, exc_info
        caller = here.task_context if here.main_event_loop_pid == _pid else None
        if caller is not None:
            caller.append(bridge)
        try:
            loop = None if self.force_new_loop or caller is None else here.main_event_loop
            if loop is None or not _begin(loop, bridge):
                single = self.async_single_thread_context.get()
                if single is not None:
                    single._run(bridge)
                else:
                    pool.lend(LoopJob(bridge, self.loop_thread_executors))
                    _wait(bridge)
            return bridge.take()  # type: ignore[no-any-return]
        finally:
            if caller is not None:
                caller.remove(bridge)
            if not bridge.abandoned and carry_back(context, bridge.before):
                executors.current = former

    def _prepare(
        self, executor: CurrentThreadExecutor, context: Context, args: Any, kwargs: Any
    ) -> tuple[Any, object]:
        __traceback_hide__ = True
        adopt()  # first: what the Context has brought from another thread would be lost by writing
        self.executors.current = executor
        before = state(context)
        awaitable = self.awaitable(*args, **kwargs)
        # What has been set by now was set by no coroutine, but must be carried back, too.
        return awaitable, None if state(context) is before else before

    @overload
    def __get__(self, parent: None, objtype: Any) -> Callable[P, R]: ...
    @overload
    def __get__(self, parent: object, objtype: Any) -> Callable[..., R]: ...
    def __get__(self, parent: object, objtype: Any) -> Callable[..., R]:
        call: Callable[..., R] = self.__call__
        return functools.update_wrapper(functools.partial(call, parent), self.awaitable)


def _begin(loop: Any, bridge: Bridge) -> bool:
    """Run it in the loop from which the sync code was called; False if that does not run."""
    if not loop.is_running():
        return False
    bridge.loop = loop
    try:
        loop.call_soon_threadsafe(bridge.begin)
    except RuntimeError:  # it was closed
        return False
    _wait(bridge, loop)
    return True


def _wait(bridge: Bridge, loop: Any = None) -> None:
    """Run thread-sensitive calls until the coroutine is done.

    Args:
        bridge: The coroutine.
        loop: One that somebody else runs, and may stop to.

    Raises:
        RuntimeError: `loop` has stopped.
        KeyboardInterrupt: Ctrl-C, after the coroutine was cancelled and has ended.
    """
    executor = bridge.executor
    parked = pool.park()
    patience = PATIENCE
    stopped = False
    interrupt: BaseException | None = None
    try:
        while True:
            try:
                if executor.serve(bridge.is_done, patience):
                    break
                patience = min(10 * PATIENCE, 2 * patience)
                if loop is None or loop.is_running():
                    stopped = False
                elif stopped:
                    raise RuntimeError(
                        f"{bridge.describe()} cannot go on: the event loop it runs in has stopped"
                    )
                else:
                    stopped = True
            except KeyboardInterrupt as error:
                if interrupt is not None:
                    raise
                interrupt = error
                bridge.cancel_soon()
    except BaseException:
        executor.end()
        bridge.abandon()
        raise
    finally:
        if parked:
            pool.unpark()
    if interrupt is not None:
        try:
            raise interrupt
        finally:
            del interrupt


class _Threadlocal(threading.local):
    """What sync code in a bridge's thread belongs to."""

    main_event_loop: Any = None
    """The loop whose task called it."""
    main_event_loop_pid: int | None = None
    task_context: list[Any] | None = None
    """Tasks for which that call waits."""


class SyncToAsync(Generic[P, R]):
    """A function made awaitable: it runs in another thread. Use `sync_to_async`.

    Args:
        func: The function.
        thread_sensitive: Run it in the one thread that sync code of this context has.
        executor: Where it runs; only if not thread-sensitive. None: a thread of the pool.
        context: What it runs in. None: that of the caller, who gets what it changes.
        cancellation: What a cancelled caller does. "propagate": cancel the coroutine for which
            the function waits in `async_to_sync`, and wait; without one, go on while the thread
            runs to its end. "abandon": always go on at once. "shield": first wait for
            the function.

    Raises:
        TypeError: `func` is async, or not callable; `executor` was given with `thread_sensitive`.
    """

    threadlocal: Final = _Threadlocal()

    single_thread_executor: Executor = StickyExecutor()
    """For thread-sensitive calls where nothing else applies."""

    thread_sensitive_context: Final[ContextVar[ThreadSensitiveContext | None]] = ContextVar(
        "thread_sensitive_context", default=None
    )

    deadlock_context: Final[ContextVar[bool]] = ContextVar("deadlock_context", default=False)
    """Not used: see `omnicorn.toolkit.deadlocks`. It is here for those who look at it."""

    context_to_thread_executor: Final[
        weakref.WeakKeyDictionary[ThreadSensitiveContext, Executor]
    ] = weakref.WeakKeyDictionary()

    def __init__(
        self,
        func: Callable[P, R],
        thread_sensitive: bool = True,
        executor: Executor | None = None,
        context: Context | None = None,
        *,
        cancellation: Cancellation = "propagate",
    ) -> None:
        call = getattr(func, "__call__", None)  # noqa: B004
        if call is None or iscoroutinefunction(func) or iscoroutinefunction(call):
            raise TypeError("sync_to_async can only be applied to sync functions.")
        if thread_sensitive and executor is not None:
            raise TypeError("executor must not be set when thread_sensitive is True")
        if cancellation not in ("propagate", "abandon", "shield"):
            raise ValueError(
                f"cancellation is {cancellation!r}; it must be 'propagate', 'abandon' or 'shield'"
            )
        functools.update_wrapper(self, func)
        self.func = func
        self.context = context  # after update_wrapper, which copies attributes of `func`
        self._thread_sensitive = thread_sensitive
        self._executor = executor
        self._cancellation = cancellation
        markcoroutinefunction(self)
        try:
            self.__self__ = func.__self__  # type: ignore[attr-defined]
        except AttributeError:
            pass

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        __traceback_hide__ = True
        child = functools.partial(self.func, *args, **kwargs)
        call = self._call(child)
        try:
            self._send(call)
            await call
        except CancelledError:
            if await call.stays_cancelled():
                raise
        finally:
            if call.done:
                call.hop.finish()
        return call.take()  # type: ignore[no-any-return]

    def _call(self, child: Callable[[], Any]) -> Call:
        loop: Any = _get_running_loop()
        kind: Any = AsyncioCall
        if "trio" in _modules:
            trio_loop = current_trio_loop()
            if trio_loop is not None:
                loop = trio_loop
                kind = TrioCall
        if kind is AsyncioCall:
            if loop is None:
                raise RuntimeError(
                    "sync_to_async must be awaited in a task of asyncio or trio; none runs here"
                )
            task = asyncio.current_task(loop)
        else:
            task = loop.current_task()
        context = self.context
        return kind(  # type: ignore[no-any-return]
            loop,
            task,
            self.thread_handler,
            sys.exc_info(),
            Hop(task) if context is None else Borrowed(context),
            child,
            self._cancellation,
        )

    def thread_handler(
        self,
        loop: Any,
        exc_info: Any,
        task_context: list[Any] | None,
        func: Callable[..., R],
        *args: Any,
        **kwargs: Any,
    ) -> R:
        """Call ``func(*args, **kwargs)``, in the thread; subclasses may do more around it.

        Args:
            loop: The loop whose task waits.
            exc_info: What that task is handling; it is handled here, too.
            task_context: Where `async_to_sync` notes the task it waits for.
            func: Runs its argument, a ``functools.partial``, in the task's variables.
        """
        __traceback_hide__ = True
        here = self.threadlocal
        former = here.main_event_loop, here.main_event_loop_pid, here.task_context
        here.main_event_loop, here.main_event_loop_pid = loop, _pid
        here.task_context = task_context
        try:
            if exc_info[1] is None:
                return func(*args, **kwargs)
            try:
                raise exc_info[1]
            except BaseException as error:
                error.__traceback__ = exc_info[2]
                del error
                return func(*args, **kwargs)
        finally:
            here.main_event_loop, here.main_event_loop_pid, here.task_context = former

    def _send(self, call: Call) -> None:
        """Have it run where it belongs."""
        if not self._thread_sensitive:
            executor = self._executor or given_executor(call.loop)
            if executor is None:
                pool.submit(call)
            else:
                _submit(executor, call)
            return
        executor = getattr(AsyncToSync.executors, "current", None)
        if executor is not None and _enqueue(executor, call):
            return
        context = self.thread_sensitive_context.get()
        if context is not None:
            executor = self.context_to_thread_executor.get(context)
            if executor is None:
                if context._exited:
                    raise RuntimeError(
                        "the ThreadSensitiveContext of this task has exited, and its executor with"
                        " it: make thread-sensitive calls before its end"
                    )
                executor = self.context_to_thread_executor.setdefault(context, StickyExecutor())
        else:
            executor = AsyncToSync.loop_thread_executors.get(call.loop)
            if executor is not None and _enqueue(executor, call):
                return
            executor = self.single_thread_executor
        if type(executor) is StickyExecutor:
            if executor.enqueue(call):
                watch(call)
        else:
            _submit(executor, call)

    @overload
    def __get__(self, parent: None, objtype: Any) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, parent: object, objtype: Any) -> Callable[..., Coroutine[Any, Any, R]]: ...
    def __get__(self, parent: object, objtype: Any) -> Callable[..., Coroutine[Any, Any, R]]:
        call: Callable[..., Coroutine[Any, Any, R]] = self.__call__
        return functools.update_wrapper(functools.partial(call, parent), self.func)


def _enqueue(executor: Executor, call: Call) -> bool:
    """Have a thread that waits run it; False if none waits any more."""
    if not isinstance(executor, CurrentThreadExecutor):
        _submit(executor, call)
        return True
    if not executor.enqueue(call):
        return False
    if call.worker.is_late():
        watch(call)
    return True


def _submit(executor: Executor, call: Call) -> None:
    """Have somebody's executor run it."""

    def on_done(future: Future[None]) -> None:
        if future.cancelled():
            call.refuse()
        call.deliver()

    executor.submit(call.run).add_done_callback(on_done)


class GeneratorToAsync(SyncToAsync[P, R]):
    """A generator function made asynchronous. Use `generator_to_async`, or `sync_to_async`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        make: Any = functools.partial(self.func, *args, **kwargs)
        call: Any = functools.partial(super().__call__, *args, **kwargs)
        return ThreadedGenerator(make, self._start, call)

    def _start(self, child: Callable[[], Any]) -> Call:
        call = self._call(child)
        self._send(call)
        return call


@overload
def async_to_sync(
    awaitable: None = None, *, force_new_loop: bool = False
) -> Callable[
    [Callable[P, Coroutine[Any, Any, R]] | Callable[P, Awaitable[R]]],
    Callable[P, R],
]: ...
@overload
def async_to_sync(
    awaitable: Callable[P, Coroutine[Any, Any, R]] | Callable[P, Awaitable[R]],
    *,
    force_new_loop: bool = False,
) -> Callable[P, R]: ...
def async_to_sync(awaitable: Any = None, *, force_new_loop: bool = False) -> Any:
    """Make a coroutine function callable from sync code; also a decorator.

    The coroutine runs in the event loop from which the sync code was called with `sync_to_async`.
    Elsewhere it gets a loop of its own, as by ``asyncio.run`` but in another thread, while this one
    waits and runs its thread-sensitive sync code; within `AsyncPortal` calls share a loop.
    Context variables go with it, and come back changed. Ctrl-C cancels the coroutine and is
    raised when that has ended.

    Args:
        awaitable: The function; None to get a decorator.
        force_new_loop: Always give it a loop of its own.

    Raises:
        RuntimeError: on a call, if an event loop runs in this thread: await the function there.
    """
    if awaitable is None:
        return lambda function: AsyncToSync(function, force_new_loop=force_new_loop)
    return AsyncToSync(awaitable, force_new_loop=force_new_loop)


@overload
def sync_to_async(
    func: None = None,
    *,
    thread_sensitive: bool = True,
    executor: Executor | None = None,
    context: Context | None = None,
    cancellation: Cancellation = "propagate",
) -> Callable[[Callable[P, R]], Callable[P, Coroutine[Any, Any, R]]]: ...
@overload
def sync_to_async(
    func: Callable[P, R],
    *,
    thread_sensitive: bool = True,
    executor: Executor | None = None,
    context: Context | None = None,
    cancellation: Cancellation = "propagate",
) -> Callable[P, Coroutine[Any, Any, R]]: ...
def sync_to_async(
    func: Any = None,
    *,
    thread_sensitive: bool = True,
    executor: Executor | None = None,
    context: Context | None = None,
    cancellation: Cancellation = "propagate",
) -> Any:
    """Make a function awaitable, which runs in another thread; also a decorator.

    Context variables go with it, and come back changed; all calls of one task run in one
    Context, so what one has set the next can reset. What the caller is handling is handled there,
    too. A generator function gives an asynchronous iterator, as with `generator_to_async`, which
    tells type checkers so.

    Args:
        func: The function; None to get a decorator.
        thread_sensitive: Run it in the thread that waits in `async_to_sync`; else in that of the
            `ThreadSensitiveContext`; else in one that the process has for such calls.
        executor: Where to run it; only if not thread-sensitive. None: in the one given to the
            loop with ``set_default_executor``, else in a pool, see `set_thread_limit`.
        context: What to run it in; nothing is written back then.
        cancellation: What a cancelled caller does. "propagate": cancel the coroutine for which
            the function waits in `async_to_sync`, and wait; without one, go on while the thread
            runs to its end. "abandon": always go on at once. "shield": first wait for
            the function. What has not begun is dropped.

    Raises:
        TypeError: `func` is async, or not callable; `executor` was given with `thread_sensitive`.
        RuntimeError: on a call, if it would wait for a thread that waits for it.
    """
    if func is None:
        return lambda function: sync_to_async(
            function,
            thread_sensitive=thread_sensitive,
            executor=executor,
            context=context,
            cancellation=cancellation,
        )
    kind = GeneratorToAsync if inspect.isgeneratorfunction(func) else SyncToAsync
    return kind(
        func,
        thread_sensitive=thread_sensitive,
        executor=executor,
        context=context,
        cancellation=cancellation,
    )


def generator_to_async(
    func: Callable[P, Iterator[T]],
    *,
    thread_sensitive: bool = True,
    executor: Executor | None = None,
) -> Callable[P, ThreadedGenerator[T]]:
    """Make a generator function asynchronous: ``async for`` runs it in another thread, in batches.

    What `sync_to_async` makes of such a function, with its type: an overload there would cost
    all functions that return Any the types of their parameters.

    Args:
        func: The generator function.
        thread_sensitive: As for `sync_to_async`.
        executor: As for `sync_to_async`.

    Raises:
        TypeError: `func` is not a generator function.
    """
    if not inspect.isgeneratorfunction(func):
        raise TypeError(f"{func!r} is not a generator function: it has no yield")
    return GeneratorToAsync(func, thread_sensitive=thread_sensitive, executor=executor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_on_fork)
