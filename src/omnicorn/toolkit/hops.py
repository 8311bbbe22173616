"""Hops: context variables that go with a task into another thread and come back changed.

What this file alone decides: in which Context the sync code of a task runs, and what of its changes
the task sees.

1. The task's own Context cannot be lent to another thread. A Context is entered by one thread at a
   time, and a cancelled task, or another task that shares it, would be resumed in it
   meanwhile: asyncio would lose the wake-up. So a hop runs in a copy, which costs the same
   for one variable as for a thousand.
2. Whether sync code changed anything is one comparison of pointers: a Context is an immutable tree
   (PEP 567), and every change makes a new one. Where the interpreter does not show the tree,
   variables are compared one by one, by identity, never with ``==``.
3. When it did change something, the task keeps that copy. Its later hops run in it, so that a Token
   made in one is good in the next. Before a hop it gets what the task changed since; afterwards the
   task gets what the hop changed, resets to "no value" included. What the task has lost since
   cannot be taken from a copy: then a new one begins.
4. A hop that nobody waits for any more keeps its copy for itself.
5. Values of `Local` are adopted where the hop arrives, on the way back too.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextvars import Context, ContextVar, Token, copy_context
from typing import TYPE_CHECKING, Any, Final

from omnicorn.toolkit.local import adopt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Borrowed", "Hop", "adopt_tasks", "carry_back", "state"]

_MISSING: Final = object()
_referents: Final = gc.get_referents


def state(context: Context) -> object:
    """Something that is identical as long as no variable of `context` is set."""
    return _referents(context)[-1]


def _unknown_state(context: Context) -> object:
    return object()


if type(state(copy_context())).__name__ != "hamt":  # pragma: no cover
    state = _unknown_state


class _Kept:
    """The Context of a task's hops."""

    __slots__ = ("busy", "context", "outside", "task", "tokens")

    def __init__(self, task: object, context: Context) -> None:
        self.task: object | None = task
        self.context = context
        self.outside: Context | None = None
        """What the task's own variables were after the last hop."""
        self.tokens: dict[ContextVar[Any], Token[Any]] = {}
        """With which the task can lose what a hop gave it."""
        self.busy = False

    def forget(self, _task: object = None) -> None:
        """The task is done; others may have inherited this."""
        self.task = self.outside = None
        self.context = _EMPTY
        self.tokens.clear()


_EMPTY: Final = Context()
_kept: Final[ContextVar[_Kept | None]] = ContextVar("omnicorn.toolkit.hops", default=None)


def _changed(after: Context, before: Context) -> Iterator[tuple[ContextVar[Any], Any]]:
    for variable, value in after.items():
        if before.get(variable, _MISSING) is not value and variable is not _kept:
            yield variable, value


class Hop:
    """One call of sync code for a task.

    Args:
        task: The task, which calls this itself.
    """

    __slots__ = ("_before", "_context", "_kept", "_task")

    def __init__(self, task: object) -> None:
        self._task = task
        self._before: object = None
        context = copy_context()
        kept = context.get(_kept)
        if kept is None or kept.task is not task or kept.busy or not _renew(kept, context):
            self._kept = None
            self._context = context
        else:
            kept.busy = True
            self._kept = kept
            self._context = kept.context

    def run(self, child: Callable[[], Any]) -> Any:
        """Call `child`, in whatever thread this is."""
        return self._context.run(self._arrive, child)

    def _arrive(self, child: Callable[[], Any]) -> Any:
        adopt()
        self._before = state(self._context)
        return child()

    def finish(self) -> None:
        """Let the task have what has changed; it calls this itself, when `run` has returned."""
        context, before, kept = self._context, self._before, self._kept
        if kept is not None:
            kept.busy = False
        if before is None or state(context) is before:  # not run at all, or nothing changed
            return
        if kept is None:
            task = self._task
            kept = _Kept(task, context)
            if isinstance(task, asyncio.Future):
                # Else it would live as long as the tasks that this one has started.
                task.add_done_callback(kept.forget)
            _kept.set(kept)
        now = copy_context()
        for variable, value in _changed(context, now):
            token = variable.set(value)
            if token.old_value is Token.MISSING:
                kept.tokens[variable] = token
        for variable, token in tuple(kept.tokens.items()):
            if variable not in context:
                del kept.tokens[variable]
                if variable in now:
                    variable.reset(token)
        adopt()
        kept.outside = copy_context()


class Borrowed:
    """One call of sync code in a Context that its caller has given.

    Args:
        context: Nothing of it is carried anywhere; its owner looks for himself.
    """

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def run(self, child: Callable[[], Any]) -> Any:
        """Call `child`, in whatever thread this is."""
        return self._context.run(_adopting, child)

    def finish(self) -> None:
        """Have the values of `Local` visible where the task is."""
        try:
            self._context.run(adopt)
        except RuntimeError:  # it is entered: perhaps it is the task's own
            adopt()


def _adopting(child: Callable[[], Any]) -> Any:
    adopt()
    return child()


def _renew(kept: _Kept, now: Context) -> bool:
    """Give the kept Context what the task has changed since; False if that cannot be done."""
    outside = kept.outside
    if outside is None:
        return False
    if state(now) is state(outside):
        return True
    if any(variable not in now for variable in outside):
        return False
    for variable, value in _changed(now, outside):
        kept.context.run(variable.set, value)
    return True


def adopt_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Make the values of `Local` that the tasks of `loop` have visible here, where it now runs."""
    for task in asyncio.all_tasks(loop):
        context = _context_of(task)
        if context is not None:
            context.run(adopt)


def _context_of(task: asyncio.Task[Any]) -> Context | None:
    if sys.version_info >= (3, 12):
        return task.get_context()
    found = getattr(task, "_context", None)  # a task written in Python shows it
    if found is not None:
        return found  # type: ignore[no-any-return]
    return next((one for one in _referents(task) if isinstance(one, Context)), None)


def carry_back(context: Context, before: object) -> bool:
    """Set here what has changed in `context` since its state was `before`; whether anything was."""
    if before is None or state(context) is before:
        return False
    for variable, value in _changed(context, copy_context()):
        variable.set(value)
    adopt()
    return True
