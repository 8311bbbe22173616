"""Libraries: what differs between asyncio and trio for a bridge between threads.

What this file alone decides: which async library runs here, how a task waits for a job in another
thread, how a coroutine is started from another thread, and whose executor a loop has.

1. trio counts where it runs (as a guest it has a foreign loop beneath it); it is never imported,
   only found. anyio is one of the two.
2. A `Call` is a job that a task awaits. On asyncio it is a future by protocol, what asyncio
   looks for in third-party futures (``_asyncio_future_blocking``): the worker has the task resumed
   directly, without a future, its callbacks and one more turn of the loop.
3. A task is resumed once: in its own thread either by the outcome or by a cancellation, whichever
   comes first.
4. Cancellation, by the caller's choice. "propagate" is asgiref's: the coroutine for which the
   sync code waits in `async_to_sync` is cancelled, and what the sync code makes of it is the
   outcome; without one, and in "abandon" always, the task goes on at once while the thread runs to
   its end. "shield": the task goes on when the thread is done. Work that has not begun is dropped.
5. A `Bridge` is a coroutine that a thread waits for. Its outcome is set before the thread is woken.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from asyncio import CancelledError, _get_running_loop
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from omnicorn.toolkit.hops import Borrowed, Hop, state
from omnicorn.toolkit.local import adopt, forget_loop
from omnicorn.toolkit.threads import Job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from concurrent.futures import Executor
    from contextvars import Context
    from types import ModuleType

    from omnicorn.toolkit.current_thread_executor import CurrentThreadExecutor
    from omnicorn.toolkit.threads import StickyExecutor

__all__ = [
    "AsyncioCall",
    "Bridge",
    "Call",
    "Cancellation",
    "LoopJob",
    "TrioCall",
    "TrioLoop",
    "current_trio_loop",
    "given_executor",
    "in_async",
    "released",
    "shut_down",
]

Cancellation = Literal["propagate", "abandon", "shield"]

_modules: Final = sys.modules


def _trio() -> ModuleType | None:
    """trio, if the caller is one of its tasks."""
    trio = _modules.get("trio")
    if trio is None:
        return None
    try:
        inside: bool = trio.lowlevel.in_trio_task()
    except AttributeError:  # of an old release, or being imported
        try:
            trio.lowlevel.current_task()
        except (AttributeError, RuntimeError):
            return None
        return trio
    return trio if inside else None


def in_async() -> bool:
    """Whether an event loop runs in this thread."""
    return _get_running_loop() is not None or _trio() is not None


def given_executor(loop: Any) -> Executor | None:
    """The default executor that somebody gave the loop; None for one it made itself.

    One of its own is not used: all its threads may wait, in `async_to_sync`, for calls that
    wait for one of its threads.
    """
    executor: Any
    try:
        executor = loop._default_executor
    except AttributeError:  # uvloop hides it, but from the garbage collector
        if type(loop) is TrioLoop:
            return None
        executor = next(
            (one for one in gc.get_referents(loop) if isinstance(one, ThreadPoolExecutor)), None
        )
    if executor is None or getattr(executor, "_thread_name_prefix", "") in ("asyncio", "uvloop"):
        return None
    return executor  # type: ignore[no-any-return]


def _take(self: Call | Bridge) -> Any:
    """The outcome."""
    if self._error is None:
        return self._value
    try:
        raise self._error
    finally:
        # Its traceback refers to this frame.
        self._error = None
        del self


class Call(Job):
    """A call of sync code that a task awaits.

    Args:
        loop: Where the task runs.
        task: The task.
        handler: Does it: gets `loop`, `exc_info`, `inner`, ``hop.run`` and `child`, as
            `SyncToAsync.thread_handler`.
        exc_info: What the task is handling.
        hop: The variables it runs in.
        child: What to call.
        cancellation: What becomes of it when the task is cancelled.
    """

    __slots__ = (
        "_child",
        "_error",
        "_exc_info",
        "_handler",
        "_value",
        "cancellation",
        "done",
        "dropped",
        "hop",
        "inner",
        "loop",
        "started",
        "task",
    )

    def __init__(
        self,
        loop: Any,
        task: Any,
        handler: Callable[..., Any],
        exc_info: Any,
        hop: Hop | Borrowed,
        child: Callable[[], Any],
        cancellation: Cancellation,
    ) -> None:
        self._counted = False
        self.worker = None
        self.loop = loop
        self.task = task
        self._handler: Any = handler
        self._exc_info = exc_info
        self.hop = hop
        self._child: Any = child
        self.cancellation = cancellation
        self.inner: list[Bridge] = []
        """The coroutine for which the sync code waits, if it does."""
        self.started = False
        self.done = False
        """Whether the task's thread knows that it has ended."""
        self.dropped = False
        """Whether nobody waits any more."""
        self._value: Any = None
        self._error: BaseException | None = None

    def describe(self) -> str:
        function = getattr(self._child, "func", self._child)
        return f"sync_to_async({getattr(function, '__qualname__', function)})"

    def run(self) -> None:
        self.started = True  # first: who drops it looks afterwards whether it has begun
        if self.dropped:
            return
        try:
            self._value = self._handler(
                self.loop, self._exc_info, self.inner, self.hop.run, self._child
            )
        except BaseException as error:
            self._error = error
        finally:
            self._exc_info = None

    def fail(self, error: BaseException) -> None:
        """End the waiting with an error; for work that has not begun, in the task's thread."""
        self.dropped = True
        self._error = error
        self.wake()

    def wake(self) -> None:
        """Resume the task, in its thread."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, Any, None]:
        raise NotImplementedError

    can_be_nudged: ClassVar[bool] = False

    def nudge(self) -> None:
        """Resume the task, in its thread, though it is not done."""
        raise NotImplementedError

    async def shielded(self) -> None:
        """Wait until it is done, whatever happens to the task."""
        raise NotImplementedError

    def refuse(self) -> None:
        """Its executor was shut down before it had begun."""
        self._error = CancelledError()

    async def stays_cancelled(self) -> bool:
        """asyncio cancelled the task while it waited: do what the caller chose.

        Returns:
            Whether the task is to be cancelled; else this has an outcome.
        """
        raise NotImplementedError

    def deliver(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self.wake)
        except RuntimeError:
            pass  # the loop has ended: nobody waits

    take = _take


class AsyncioCall(Call):
    """A call that a task of asyncio awaits."""

    __slots__ = ("_asyncio_future_blocking", "_callback", "_cancelled", "_context")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._asyncio_future_blocking = False
        self._callback: Callable[[Any], object] | None = None
        self._context: Any = None
        self._cancelled: CancelledError | None = None

    def __repr__(self) -> str:
        return f"<{self.describe()} in {self.worker!r}>"

    def wake(self) -> None:
        self.done = True
        self.nudge()

    can_be_nudged = True

    def nudge(self) -> None:
        callback = self._callback
        if callback is not None:
            self._callback = None
            self._context.run(callback, self)

    async def shielded(self) -> None:
        cancelled = False
        while not self.done:
            try:
                await self
            except CancelledError:
                cancelled = True
        if cancelled:
            raise CancelledError

    # What asyncio's tasks ask of a future.

    def get_loop(self) -> Any:
        return self.loop

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: Context | None = None
    ) -> None:
        self._callback = callback
        self._context = context

    def cancel(self, msg: Any = None) -> bool:
        callback = self._callback
        if callback is None:
            return False
        self._callback = None
        self._cancelled = CancelledError() if msg is None else CancelledError(msg)
        self.loop.call_soon(callback, self, context=self._context)
        return True

    def result(self) -> None:
        cancelled, self._cancelled = self._cancelled, None
        if cancelled is not None:
            raise cancelled

    def __await__(self) -> Generator[Any, None, None]:
        if not self.done:
            self._asyncio_future_blocking = True
            yield self

    async def stays_cancelled(self) -> bool:
        if self.done:
            return True
        if not self.started:
            self.dropped = True
            if not self.started:
                return True
        if self.cancellation == "shield":
            try:
                await self.shielded()
            except CancelledError:
                pass
            self.take()
            return True
        if self.cancellation == "propagate" and self.inner:
            self.inner[0].cancel_for(self.loop)
            try:
                await self
            except CancelledError:
                self.dropped = True
                raise
            return False
        self.dropped = True
        return True


class TrioLoop:
    """A run of trio, in the place of asyncio's loop."""

    __slots__ = ("token", "trio")

    def __init__(self, trio: Any) -> None:
        self.trio = trio
        self.token = trio.lowlevel.current_trio_token()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrioLoop) and other.token is self.token

    def __hash__(self) -> int:
        return hash(self.token)

    def call_soon_threadsafe(self, call: Callable[..., object], *args: Any) -> None:
        """Run `call` in trio's thread; RuntimeError when it has ended."""
        self.token.run_sync_soon(call, *args)

    def call_later(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        """Run `call` in `delay` seconds, if the run is there then; called by it.

        Nothing is run where trio's clock does not show real time: a clock that jumps when nothing
        else happens would be driven on.
        """
        trio = self.trio
        clock = trio.lowlevel.current_clock()
        if clock.deadline_to_sleep_time(clock.current_time() + delay) > 2 * delay:
            return

        async def later() -> None:
            await trio.sleep(delay)
            call(*args)

        try:
            trio.lowlevel.spawn_system_task(later)
        except RuntimeError:
            pass  # the run is about to end

    def is_running(self) -> bool:
        try:
            self.token.run_sync_soon(_nothing, idempotent=True)
        except RuntimeError:
            return False
        return True

    def is_closed(self) -> bool:
        return not self.is_running()

    def current_task(self) -> Any:
        return self.trio.lowlevel.current_task()


def _nothing() -> None:
    pass


def current_trio_loop() -> TrioLoop | None:
    """The run of trio of which the caller is a task."""
    trio = _trio()
    return None if trio is None else TrioLoop(trio)


class TrioCall(Call):
    """A call that a task of trio awaits."""

    __slots__ = ("_raise_cancel", "_waiting")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._waiting = False
        self._raise_cancel: Callable[[], object] | None = None

    def wake(self) -> None:
        self.done = True
        if self._waiting:
            self._waiting = False
            self.loop.trio.lowlevel.reschedule(self.task)

    def _abort(self, raise_cancel: Callable[[], object]) -> Any:
        abort = self.loop.trio.lowlevel.Abort
        if not self.started:
            self.dropped = True
        if self.started:
            if self.cancellation == "shield":
                self._raise_cancel = raise_cancel
                return abort.FAILED
            if self.cancellation == "propagate" and self.inner:
                self.inner[0].cancel_for(self.loop)
                return abort.FAILED
            self.dropped = True
        self._waiting = False
        return abort.SUCCEEDED

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait().__await__()

    async def shielded(self) -> None:
        with self.loop.trio.CancelScope(shield=True):
            await self

    async def _wait(self) -> None:
        if not self.done:
            self._waiting = True
            # So that it can be seen for what the task waits; trio takes it away at the end.
            self.task.custom_sleep_data = self
            await self.loop.trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._raise_cancel is not None and self._error is None:
            self._raise_cancel()


class Bridge:
    """A coroutine that a thread waits for.

    Args:
        awaitable: Awaited in the loop's thread.
        context: What its task runs in.
        before: The state of `context` with which to compare it at the end, or None.
        exc_info: What the thread is handling, to be handled by the coroutine, too, or None.
        executor: Where the thread waits.
    """

    __slots__ = (
        "_arrived",
        "_cancelled",
        "_error",
        "_exc_info",
        "_scope",
        "_value",
        "abandoned",
        "awaitable",
        "before",
        "context",
        "done",
        "executor",
        "loop",
        "task",
    )

    def __init__(
        self,
        awaitable: Any,
        context: Context,
        before: object,
        exc_info: Any,
        executor: CurrentThreadExecutor,
    ) -> None:
        self.awaitable = awaitable
        self.context = context
        self.before = before
        self._exc_info = exc_info
        self.executor = executor
        self.abandoned = False
        """Whether the thread has gone on."""
        self.done = False
        self.loop: Any = None
        self.task: Any = None
        self._scope: Any = None
        self._arrived = False
        self._cancelled = False
        self._value: Any = None
        self._error: BaseException | None = None

    def is_done(self) -> bool:
        """Whether the thread may go on."""
        return self.done

    def describe(self) -> str:
        """Which coroutine, for messages."""
        name = getattr(self.awaitable, "__qualname__", type(self.awaitable).__qualname__)
        return f"async_to_sync({name})"

    async def main(self) -> None:
        """Await it and keep the outcome."""
        self._arrive()
        try:
            if self._cancelled:
                self.discard()
                raise CancelledError
            self._value = await self._outcome()
        except GeneratorExit:
            self._error = RuntimeError(
                f"{self.describe()} was not finished: the event loop it ran in was closed"
            )
            raise
        except BaseException as error:
            self._error = error

    def _arrive(self) -> None:
        self._arrived = True
        adopt()
        if self.before is None:
            self.before = state(self.context)

    def _outcome(self) -> Awaitable[Any]:
        exc_info, self._exc_info = self._exc_info, None
        if exc_info is None:
            return self.awaitable  # type: ignore[no-any-return]
        return self._handling(exc_info)

    async def _handling(self, exc_info: Any) -> Any:
        try:
            raise exc_info[1]
        except BaseException as error:
            error.__traceback__ = exc_info[2]
            del exc_info, error
            return await self.awaitable

    async def _main_for_thread(self) -> None:
        try:
            await self.main()
        finally:
            self.finish()

    async def _main_for_trio(self) -> None:
        # An error in a system task would end the run. The run's end cancels it.
        cancelled: type[BaseException] = self.loop.trio.Cancelled
        try:
            with self._scope:
                self._arrive()
                try:
                    self._value = await self._outcome()
                except cancelled as error:
                    self._error = error
                    raise
                except BaseException as error:
                    self._error = error
        except cancelled:
            pass
        finally:
            self.finish()

    def begin(self) -> None:
        """Start it in its loop, by which this is called."""
        if self.abandoned:
            self.discard()
        elif isinstance(self.loop, TrioLoop):
            trio = self.loop.trio
            self._scope = trio.CancelScope()
            if self._cancelled:
                self._scope.cancel()
            try:
                self.task = trio.lowlevel.spawn_system_task(
                    self._main_for_trio, name=self.describe(), context=self.context
                )
            except RuntimeError as error:  # the run is about to end
                self.discard()
                self._error = error
                self.finish()
        else:
            self.start(self._main_for_thread())

    def start(self, main: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Make its task."""
        task: asyncio.Task[None] = self.loop.create_task(main, context=self.context)
        self.task = task
        return task

    def finish(self) -> None:
        """Wake the thread."""
        self.done = True
        self.executor.wake()

    def abort(self, error: BaseException) -> None:
        """Its loop could not run it to its end."""
        self._error = error

    def cancel(self) -> None:
        """Cancel the coroutine; called in its thread, or before it has one."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()
        elif self._arrived:  # else asyncio would not even begin it, and nobody be told
            self.task.cancel()

    def cancel_for(self, loop: Any) -> None:
        """Cancel the coroutine; called in the thread of `loop`."""
        if self.loop == loop:
            self.cancel()
        else:
            self.cancel_soon()

    def cancel_soon(self) -> None:
        """Cancel the coroutine; called in any thread."""
        self._cancelled = True
        if self.loop is not None:
            try:
                self.loop.call_soon_threadsafe(self.cancel)
            except RuntimeError:
                pass  # it is closed

    def abandon(self) -> None:
        """The thread goes on without it."""
        self.abandoned = True
        self.cancel_soon()

    def discard(self) -> None:
        """It will never be awaited."""
        close = getattr(self.awaitable, "close", None)
        if close is not None:
            close()

    take = _take


class LoopJob(Job):
    """Run a coroutine in a loop of its own, as `asyncio.run` would, in a worker's thread.

    Args:
        bridge: The coroutine.
        loops: Knows the executor of the thread that waits, while the loop runs.
    """

    __slots__ = ("_loops", "bridge")

    def __init__(self, bridge: Bridge, loops: dict[Any, CurrentThreadExecutor]) -> None:
        super().__init__()
        self.bridge = bridge
        self._loops = loops

    def describe(self) -> str:
        return self.bridge.describe()

    def run(self) -> None:
        bridge = self.bridge
        if bridge.abandoned:
            bridge.discard()
            return
        try:
            bridge.loop = loop = asyncio.new_event_loop()
            self._loops[loop] = bridge.executor
            try:
                loop.run_until_complete(bridge.start(bridge.main()))
            finally:
                try:
                    shut_down(loop)
                finally:
                    del self._loops[loop]
                    if self.worker.shared:
                        forget_loop()
        except BaseException as error:
            bridge.abort(error)

    def deliver(self) -> None:
        self.bridge.finish()


async def released(executor: StickyExecutor) -> None:
    """Give its thread back, and wait until all it has to do is done."""
    trio = _trio()
    event: Any
    if trio is None:
        event = asyncio.Event()
        call_soon = asyncio.get_running_loop().call_soon_threadsafe
    else:
        event = trio.Event()
        call_soon = trio.lowlevel.current_trio_token().run_sync_soon

    def on_released() -> None:
        try:
            call_soon(event.set)
        except RuntimeError:
            pass  # the loop has ended

    if not executor.release(on_released):
        await event.wait()


def shut_down(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left and close the loop, as `asyncio.run` does.

    What a loop shows to have none of (asynchronous generators, an executor) is not waited for.
    """
    try:
        tasks = asyncio.all_tasks(loop)
        if tasks:
            _cancel(loop, tasks)
        if getattr(loop, "_asyncgens", True):
            loop.run_until_complete(loop.shutdown_asyncgens())
        if getattr(loop, "_default_executor", True) is not None:
            loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def _cancel(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    loop.run_until_complete(_all_done(tasks))
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler(
                {
                    "message": "unhandled exception while async_to_sync shut its loop down",
                    "exception": task.exception(),
                    "task": task,
                }
            )


def _all_done(tasks: set[asyncio.Task[Any]]) -> Coroutine[Any, Any, Any]:
    async def gather() -> None:
        await asyncio.gather(*tasks, return_exceptions=True)

    return gather()
