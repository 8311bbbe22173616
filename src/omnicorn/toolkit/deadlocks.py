"""Deadlocks: calls that wait for a thread which waits for them.

What this file alone decides: when such a cycle is proven, and which of its calls fails.

1. Nothing is guessed from what a Context has inherited. A cycle is a closed chain of things that
   wait now: a task for a task, or for a call of sync code; a call that has not begun, for what
   runs in its thread; a call that runs, for the coroutine of its `async_to_sync` or of
   ``asyncio.run_coroutine_threadsafe(...).result()``.
2. Looking costs nothing where no call is late: a thread is looked at when a call had to queue for
   it, and then every `PERIOD` seconds as long as it is busy.
3. The call that waits for the thread fails with a RuntimeError naming both sides.
   Waits that do not show whom they wait for (events, locks, timeouts) prove nothing.
4. asyncio only: tasks of trio do not show what they wait for.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import ref

from omnicorn.toolkit.libraries import AsyncioCall, Bridge, Call

if TYPE_CHECKING:
    from collections.abc import Iterable

    from omnicorn.toolkit.threads import Job

__all__ = ["PERIOD", "watch"]

PERIOD: Final = 0.1
"""Seconds between two looks at a thread."""

_RESULT: Final = concurrent.futures.Future.result.__code__
_FRAMES: Final = 4  # as many lie above `Future.result` in a thread that waits in it


class Occupied(Protocol):
    """A thread that runs one job at a time."""

    current: Job | None
    watcher: ref[asyncio.AbstractEventLoop] | None

    @property
    def ident(self) -> int | None: ...

    def has_more(self) -> bool: ...


def watch(call: Call) -> None:
    """`call` has to wait for its thread: look now and then whether it does so in vain."""
    if type(call) is not AsyncioCall:
        return
    thread: Occupied = call.worker
    loop = call.loop
    watcher = None if thread.watcher is None else thread.watcher()
    if watcher is not loop and (watcher is None or not watcher.is_running()):
        thread.watcher = ref(loop)
        loop.call_later(PERIOD, _look, thread, thread.current, loop)


def _look(thread: Occupied, before: Job | None, loop: asyncio.AbstractEventLoop) -> None:
    job = thread.current
    if job is not None and job is before:
        victim = _victim(thread, job)
        if victim is not None:
            call, through = victim
            call.fail(
                RuntimeError(
                    f"deadlock: {call.describe()} waits for {thread!r}, which runs"
                    f" {job.describe()}, which waits for {through}, which waits for that call."
                    " Call it with thread_sensitive=False, or do not wait for it there"
                )
            )
    if thread.watcher is None or thread.watcher() is not loop:
        return  # another loop took over while this one did not run
    if job is not None or before is not None or thread.has_more():
        loop.call_later(PERIOD, _look, thread, job, loop)
    else:
        thread.watcher = None


def _victim(thread: Occupied, job: Job) -> tuple[Call, str] | None:
    """A call that waits for `thread` and for which `job` waits; and the first in between."""
    for first in _waits_for(job, thread):
        seen: set[int] = set()
        stack = [first]
        while stack:
            one = stack.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            if isinstance(one, Call) and one.worker is thread and not one.started and not one.done:
                return one, _name(first)
            stack += _waits_for(one)
    return None


def _waits_for(one: Any, thread: Occupied | None = None) -> Iterable[Any]:
    if isinstance(one, Call):
        if one.done:  # in another loop, whose task is about to go on
            return ()
        if one.started:
            return [*one.inner, *_blocking(thread or one.worker)]
        running = None if one.worker is None else one.worker.current
        return () if running is None else (running,)
    if isinstance(one, Bridge):
        return () if one.task is None else (one.task,)
    if isinstance(one, asyncio.Task):
        waiter = getattr(one, "_fut_waiter", None)
        return () if waiter is None else (waiter,)
    return getattr(one, "_children", ())  # what gather() made


def _blocking(thread: Any) -> list[Any]:
    """The task whose result that thread waits for, if it stands in ``Future.result``."""
    frame = sys._current_frames().get(getattr(thread, "ident", None) or -1)
    for _ in range(_FRAMES):
        if frame is None:
            break
        if frame.f_code is _RESULT:
            return _source(frame.f_locals.get("self"))
        frame = frame.f_back
    return []


def _source(future: Any) -> list[Any]:
    # asyncio chains the two futures with closures, which hold them.
    found = []
    for callback in tuple(getattr(future, "_done_callbacks", ())):
        for cell in getattr(callback, "__closure__", None) or ():
            try:
                content = cell.cell_contents
            except ValueError:
                continue
            if isinstance(content, asyncio.Task):
                found.append(content)
    return found


def _name(one: Any) -> str:
    if isinstance(one, Bridge):
        return one.describe()
    return f"the task of {getattr(one.get_coro(), '__qualname__', one)}"
