"""Deadlocks: calls that wait for a thread which waits for them.

What this file alone decides: when such a cycle is proven, and which of its calls fails.

1. Nothing is guessed from what a Context has inherited. A cycle is a closed chain of things that
   wait now: a task for a task, for those of its nursery or task group, or for a call of sync code;
   a call that has not begun, for what runs in its thread; a call that runs, for the coroutine
   of its `async_to_sync`, of ``asyncio.run_coroutine_threadsafe(...).result()`` or of
   ``trio.from_thread.run(..., trio_token=...)``. It may go through several threads and loops, of
   asyncio and trio.
2. Looking costs nothing where no call is late: a thread is looked at when a call had to queue for
   it, by the loop of that call, and then every `PERIOD` seconds as long as it is busy.
3. The call that waits for the thread fails with a RuntimeError naming both sides; each loop fails
   calls of its own. Waits that do not show whom they wait for prove nothing: events, locks,
   channels, semaphores; threads of others (``trio.to_thread``, ``asyncio.to_thread``, executors,
   also anyio's portals); ``asyncio.wait``. trio's tasks cannot be awaited as such: one that waits
   for another by a ``trio.Event`` is not seen.
4. A nursery, a task group or ``asyncio.gather`` waits in vain only when all its tasks do: one that
   goes on, or waits for an event, might cancel the others, as the winner of a race does, or end
   the waiting by an error. What those outside of the cycle might cancel is not considered.
5. Who gives up by itself is in no deadlock: a chain with a deadline (``asyncio.timeout``,
   ``wait_for``, ``move_on_after``, ``fail_after``, ``result(timeout)``) proves nothing; it ends by
   that deadline. A deadline of who waits for the thread from outside, as for the whole request, is
   none of the chain and does not count: the error comes first, and says more.
6. trio tells publicly of its tasks and for which call they wait, but not that one waits at the end
   of its nursery, which deadlines it has and who serves a ``from_thread.run``. If a later trio
   has that elsewhere, nothing is proven. Nor is it by a clock that does not show real time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import math
import sys
from contextlib import _AsyncGeneratorContextManager, _GeneratorContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakKeyDictionary, ref

from omnicorn.toolkit.libraries import Bridge, Call, TrioCall
from omnicorn.toolkit.timeout import timeout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from omnicorn.toolkit.threads import Job

__all__ = ["PERIOD", "watch"]

PERIOD: Final = 0.1
"""Seconds between two looks at a thread."""

_referents: Final = gc.get_referents

_RESULT: Final = concurrent.futures.Future.result.__code__
_FRAMES: Final = 4  # as many lie above `Future.result` in a thread that waits in it

_watched: Final[dict[tuple[int, int], ref[Any]]] = {}
"""Who looks: by the ids of loop and thread. The loop holds the thread; its end takes it away."""

_roots: Final[WeakKeyDictionary[Any, ref[Any]]] = WeakKeyDictionary()
"""The first tasks of the runs of trio, by token, as far as it was asked for them."""


class Occupied(Protocol):
    """A thread that runs one job at a time."""

    current: Job | None

    def has_more(self) -> bool: ...


def watch(call: Call) -> None:
    """`call` has to wait for its thread: look now and then whether it does so in vain."""
    thread: Occupied = call.worker
    loop = call.loop
    alive = loop.token if type(call) is TrioCall else loop
    key = id(alive), id(thread)
    if key not in _watched:
        _watched[key] = ref(alive, lambda _: _watched.pop(key, None))
        loop.call_later(PERIOD, _look, thread, thread.current, loop, key)


def _look(thread: Occupied, before: Job | None, loop: Any, key: tuple[int, int]) -> None:
    job = thread.current
    if job is not None and job is before:
        try:
            victim = _victim(thread, job, loop)
        except Exception:  # what others keep inside has changed: that must harm nobody
            victim = None
        if victim is not None:
            call, through = victim
            call.fail(
                RuntimeError(
                    f"deadlock: {call.describe()} waits for {thread!r}, which runs"
                    f" {job.describe()}, which waits for {_name(through)}, which waits for that"
                    " call. Call it with thread_sensitive=False, or do not wait for it there"
                )
            )
    if job is not None or before is not None or thread.has_more():
        loop.call_later(PERIOD, _look, thread, job, loop, key)
    else:
        _watched.pop(key, None)


def _victim(thread: Occupied, job: Job, loop: Any) -> tuple[Call, Any] | None:
    """A call of `loop` that waits for `thread`, for which `job` waits; and the first in between."""
    waits = _stuck(job)
    if any(_is_task(one) and _gives_up(one) for one, _ in waits.values()):
        return None
    for first in waits.get(id(job), (job, ()))[1]:
        seen: set[int] = set()
        stack = [first]
        while stack:
            one = stack.pop()
            if id(one) in seen or id(one) not in waits:
                continue
            seen.add(id(one))
            if isinstance(one, Call) and one.worker is thread and not one.started:
                if one.loop == loop:
                    return one, first
            else:
                stack += waits[id(one)][1]
    return None


def _stuck(job: Job) -> dict[int, tuple[Any, list[Any]]]:
    """All that wait in vain among those for which `job` waits, it included, and for whom.

    These are the ones that are left when those are taken away that wait for nothing, then those
    that wait for them, and so on.
    """
    waits: dict[int, tuple[Any, list[Any]]] = {}
    stack: list[Any] = [job]
    while stack:
        one = stack.pop()
        if id(one) not in waits:
            waits[id(one)] = one, [*_waits_for(one)]
            stack += waits[id(one)][1]
    while True:
        free = [
            key
            for key, (one, others) in waits.items()
            if not others
            or not (any if isinstance(one, Call) else all)(id(other) in waits for other in others)
        ]
        if not free:
            return waits
        for key in free:
            del waits[key]


def _is_task(one: Any) -> bool:
    return isinstance(one, asyncio.Task) or hasattr(one, "child_nurseries")


def _waits_for(one: Any) -> Iterable[Any]:
    if isinstance(one, Call):
        if one.done:  # in another loop, whose task is about to go on
            return ()
        thread = one.worker
        running = None if thread is None else thread.current
        if one.started:
            # Not if it has ended, and its thread does something else by now.
            return [*one.inner, *(_blocking(thread) if running is one else ())]
        return () if running is None else (running,)
    if isinstance(one, Bridge):
        return () if one.task is None else (one.task,)
    if isinstance(one, asyncio.Task):
        waiter = getattr(one, "_fut_waiter", None)
        return () if waiter is None else _group(one, waiter) or (waiter,)
    if _is_task(one):
        call = one.custom_sleep_data
        if isinstance(call, Call):
            return (call,)
        nurseries = one.child_nurseries
        return nurseries[-1].child_tasks if nurseries and _at_its_end(nurseries[-1]) else ()
    # What gather() made. One of its futures that fails ends the waiting for the others.
    children = getattr(one, "_children", ())
    return () if children and one.done() else [child for child in children if not child.done()]


# --------------------------------------------------------------------------- tasks


def _group(task: asyncio.Task[Any], waiter: Any) -> tuple[Any, ...]:
    """The tasks of the group, asyncio's or anyio's, at whose end `task` waits."""
    coroutine: Any = task.get_coro()
    inner: Any = getattr(coroutine, "cr_await", None)
    while hasattr(inner, "cr_await"):
        coroutine, inner = inner, inner.cr_await
    frame = getattr(coroutine, "cr_frame", None)
    group: Any = None if frame is None else frame.f_locals.get("self")
    if type(group).__name__ != "TaskGroup" or group._on_completed_fut is not waiter:
        return ()
    return tuple(group._tasks)


def _at_its_end(nursery: Any) -> Any:
    """Whether the task that has opened it waits for its children and nothing else."""
    return nursery._parent_waiting_in_aexit and not nursery._pending_starts


def _gives_up(task: Any) -> bool:
    """Whether `task` has a deadline."""
    if isinstance(task, asyncio.Task):
        return any(map(_is_deadline, _held(task)))
    status = task._cancel_status
    while status is not None:
        scope = status._scope
        if scope.deadline != math.inf:
            return True
        status = None if scope.shield else status.parent
    return False


def _held(task: asyncio.Task[Any]) -> Iterable[Any]:
    """The context managers in which the coroutines of `task` are.

    A frame holds their exits on its stack, which it shows the garbage collector.
    """
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        stack = _referents(coroutine)
        while stack:
            held = stack.pop()
            held = getattr(held, "__self__", held)  # from 3.14 on not bound
            if isinstance(held, (_GeneratorContextManager, _AsyncGeneratorContextManager)):
                stack += _referents(held.gen)
            else:
                yield held
        coroutine = getattr(coroutine, "cr_await", None)


def _is_deadline(held: Any) -> bool:
    if isinstance(held, asyncio.Timeout):
        return held.when() is not None
    if isinstance(held, timeout):
        return held.remaining is not None
    # anyio's scope, or its group's.
    deadline = getattr(getattr(held, "cancel_scope", held), "deadline", None)
    return isinstance(deadline, (int, float)) and deadline != math.inf


# --------------------------------------------------------------------------- threads


def _blocking(thread: Any) -> list[Any]:
    """The task for which `thread` waits, if it does so without our bridges."""
    frame = sys._current_frames().get(getattr(thread, "ident", None) or -1)
    for _ in range(_FRAMES):
        if frame is None:
            break
        if frame.f_code is _RESULT:
            # With a timeout it goes on by itself.
            locals_ = frame.f_locals
            return _source(locals_.get("self")) if locals_.get("timeout") is None else []
        if frame.f_code.co_name == "_send_message_to_trio":
            return _server(frame.f_locals["message_to_trio"], frame.f_locals["trio_token"])
        frame = frame.f_back
    return []


def _source(future: Any) -> list[Any]:
    # asyncio chains the two futures with closures, which hold them.
    found = []
    for callback in tuple(getattr(future, "_done_callbacks", ())):
        if getattr(callback, "__module__", None) != "asyncio.futures":
            continue  # somebody's, which may hold any task
        for cell in getattr(callback, "__closure__", None) or ():
            try:
                content = cell.cell_contents
            except ValueError:
                continue
            if isinstance(content, asyncio.Task):
                found.append(content)
    return found


def _server(message: Any, token: Any) -> list[Any]:
    # It is a system task: a child of the first task of the run.
    root = _roots.get(token, _nobody)()
    if root is None:
        token.run_sync_soon(_note_root, token)  # until the next look
        return []
    for nursery in root.child_nurseries:
        for task in nursery.child_tasks:
            frame = task.coro.cr_frame
            if (
                frame is not None
                and frame.f_code.co_name == "run_system"
                and frame.f_locals.get("self") is message
            ):
                return [task]
    return []


def _nobody() -> None:
    return None


def _note_root(token: Any) -> None:
    root = sys.modules["trio"].lowlevel.current_root_task()
    if root is not None:
        _roots[token] = ref(root)


def _name(one: Any) -> str:
    if isinstance(one, Bridge):
        return one.describe()
    if isinstance(one, asyncio.Task):
        return f"the task of {getattr(one.get_coro(), '__qualname__', one)}"
    return f"the task of {one.name}"
