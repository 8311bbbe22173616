"""Local: attributes that belong to the running task, or to the thread where there is none.

All default Locals keep their values together, in one context variable: the Context's page. A page
is never changed, every write makes a new one, so a child task starts with what its parent had and
neither sees the other's later writes. That holds without a lock, with or without a GIL.

1. A page belongs to one thread and is blank in any other. A Context may reach a foreign thread
   (``Context.run``, ``asyncio.to_thread``, threads that inherit it in Python 3.14), and data must
   not come along. A bridge, which moves a task on purpose, calls `adopt` where sync code enters it
   and where it arrives: one context variable to look at, however many Locals there are.
2. A page does not keep a Local alive. Keys know their Local weakly; its death ends an epoch, and
   the next write leaves the dead out of a page from an earlier epoch. The current page loses them
   at once.
3. Reading is the hot path. A property per attribute name, on the class, makes it one plain
   function call, which newer interpreters inline: ``__getattr__`` would come after a failed
   search, and ``__getattribute__`` could not reach its own slots cheaply. Names past `PROPERTIES`,
   and dunder names, which Python itself would look up on the class, fall to ``__getattr__``; the
   class gets that method when the first such name is set, since it slows the others down.
"""

from __future__ import annotations

import os
import sys
from asyncio import _get_running_loop
from contextvars import ContextVar
from threading import RLock, local
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, final
from weakref import WeakSet, ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Local", "adopt", "forget_loop"]

PROPERTIES: Final = 500
"""Attribute names, of all Locals, that get a property. It is never taken back."""


class _Owner(Protocol):
    """A lock that a thread holds for life: the cheapest question for "am I that thread?"."""

    def acquire(self) -> bool: ...
    def release(self) -> None: ...
    def _is_owned(self) -> bool: ...


class _Life:
    """Ends with its thread, which releases the lock: the next may get the same identity."""

    __slots__ = ("owner",)

    def __init__(self) -> None:
        self.owner: _Owner = RLock()  # type: ignore[assignment]
        self.owner.acquire()

    def __del__(self) -> None:
        if self.owner._is_owned():  # not if a forked child clears away its parent's threads
            self.owner.release()


class _Key:
    """One attribute of one Local."""

    __slots__ = ("local",)

    def __init__(self, local: ref[Local]) -> None:
        self.local = local


class _RareKey(NamedTuple):
    """The same for a name without a property: made when needed, so that nothing remains of it."""

    local: ref[Local]
    name: str


_Values = dict[_Key | _RareKey, Any]
_Page = tuple[_Owner, _Values, object]  # the third: its epoch

_NOBODY: Final[_Owner] = RLock()  # type: ignore[assignment]
_MISSING: Final = object()
_names: Final[set[str]] = set()
_naming: Final = RLock()  # one that may be taken again, by a `__del__` that comes in between
if hasattr(os, "register_at_fork"):
    # Not a function of this module, which would outlive the Locals at the interpreter's end.
    os.register_at_fork(after_in_child=_naming._at_fork_reinit)  # type: ignore[attr-defined]
_page: Final = ContextVar[_Page]("omnicorn.toolkit.local", default=(_NOBODY, {}, None))
_get_page: Final = _page.get
_set_page: Final = _page.set
_thread: Final = local()
_modules: Final = sys.modules
_set_slot: Final = object.__setattr__
_epoch = object()


def _this_thread() -> _Owner:
    try:
        life: _Life = _thread.life
    except AttributeError:
        life = _thread.life = _Life()
    return life.owner


def _living(values: _Values) -> _Values:
    return {key: value for key, value in values.items() if key.local() is not None}


def _on_death(
    _: ref[Local],
    # Bound here: at the interpreter's end a Local may outlive this module's names.
    get_page: Callable[[], _Page] = _get_page,
    set_page: Callable[[_Page], object] = _set_page,
    living: Callable[[_Values], _Values] = _living,
) -> None:
    global _epoch
    epoch = _epoch = object()
    owner, values, _old = get_page()
    if values and owner._is_owned():
        set_page((owner, living(values), epoch))


def adopt() -> None:
    """Make what the current Context holds visible in this thread.

    For who moves a task from thread to thread: called within the moved Context, after each move,
    the one back included. What was visible where the task came from is visible here then.
    """
    owner, values, epoch = _get_page()
    if values and not owner._is_owned():
        _set_page((_this_thread(), values, epoch))


def _no_attribute(name: str) -> AttributeError:
    return AttributeError(
        f"this Local has no attribute {name!r} here; it is set in no scope that reaches this"
        " thread and task"
    )


@final
class Local:
    """A namespace whose attributes each task, or each thread without tasks, has for itself.

    What a task sets is seen by what it awaits, by the tasks it starts afterwards, which may change
    it for themselves alone, and across `sync_to_async` and `async_to_sync`, both ways. Threads
    started in another way begin with nothing. A few attributes with fixed names are expected: what
    a name costs once is kept by the process. This class cannot be subclassed.

    Args:
        thread_critical: Keep to the thread that set it; no bridge carries a value. Outside a
            running event loop it is a ``threading.local``; within, each task has its own values.
    """

    __slots__ = ("__weakref__",)

    def __new__(cls, thread_critical: bool = False) -> Local:
        if cls is not Local:
            raise TypeError(
                f"{__name__}.Local cannot be subclassed, as {cls.__qualname__} does;"
                " keep a Local in an attribute instead"
            )
        return object.__new__(_ThreadCriticalLocal if thread_critical else _DefaultLocal)

    def __init__(self, thread_critical: bool = False) -> None:
        pass

    def __dir__(self) -> Iterable[str]:
        return [name for name in object.__dir__(self) if name not in _names or hasattr(self, name)]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...
        def __delattr__(self, name: str) -> None: ...


class _DefaultLocal(Local):  # type: ignore[misc]
    """``thread_critical=False``: values follow the Context."""

    __slots__ = ("_local_keys", "_local_ref")
    _local_keys: dict[str, _Key]
    _local_ref: ref[Local]

    def __init__(self, thread_critical: bool = False) -> None:
        _set_slot(self, "_local_keys", {})
        _set_slot(self, "_local_ref", ref(self, _on_death))

    def __setattr__(self, name: str, value: Any) -> None:
        owner, values, epoch = _get_page()
        now = _epoch
        key: _Key | _RareKey
        try:
            key = self._local_keys[name]
            if values[key] is value and owner._is_owned():
                return
        except KeyError:
            key = self._local_keys.get(name) or _new_key(self, name)
        if not owner._is_owned():
            owner = _this_thread()
            values = {}
        else:
            values = values.copy() if epoch is now else _living(values)
        values[key] = value
        _set_page((owner, values, now))

    def __delattr__(self, name: str) -> None:
        owner, values, epoch = _get_page()
        key = self._local_keys.get(name) or _RareKey(self._local_ref, name)
        if key not in values or not owner._is_owned():
            raise _no_attribute(name)
        values = values.copy()
        del values[key]
        _set_page((owner, values, epoch))


_set_default: Final = _DefaultLocal.__setattr__


def _new_key(self: _DefaultLocal, name: str) -> _Key | _RareKey:
    if name == "_data":
        raise AttributeError("'_data' cannot be set on a Local, as in asgiref; use another name")
    if name in _names or _make_property(name):
        # Atomic: of two threads with a new name, both get the first one's key.
        return self._local_keys.setdefault(name, _Key(self._local_ref))
    return _RareKey(self._local_ref, name)


def _default_reader(name: str) -> Callable[[_DefaultLocal], Any]:
    def read(self: _DefaultLocal) -> Any:
        owner, values, _ = _get_page()
        try:
            if owner._is_owned():
                return values[self._local_keys[name]]
        except KeyError:
            pass
        # Outside the handler: an error that has another for context costs twice as much.
        raise _no_attribute(name)

    return read


def _default_read_rare(self: _DefaultLocal, name: str) -> Any:
    owner, values, _ = _get_page()
    value = values.get(_RareKey(self._local_ref, name), _MISSING)
    if value is _MISSING or not owner._is_owned():
        raise _no_attribute(name)
    return value


class _ThreadCriticalLocal(Local):  # type: ignore[misc]
    """``thread_critical=True``: a ``threading.local``, and a default Local per thread with a loop.

    As no thread sees another's, that Local's values stay behind where a bridge leaves the thread.
    """

    __slots__ = ("_local_loop", "_local_thread")
    _local_loop: local
    _local_thread: local

    def __init__(self, thread_critical: bool = False) -> None:
        _set_slot(self, "_local_loop", local())
        _set_slot(self, "_local_thread", local())

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _names:
            _make_property(name)
        if not _in_loop():
            self._local_thread.__dict__[name] = value
        else:
            _set_default(_loop_values(self), name, value)

    def __delattr__(self, name: str) -> None:
        if not _in_loop():
            if self._local_thread.__dict__.pop(name, _MISSING) is _MISSING:
                raise _no_attribute(name)
        else:
            delattr(_loop_values(self), name)


def _loop_values(self: _ThreadCriticalLocal) -> _DefaultLocal:
    values: _DefaultLocal
    try:
        values = self._local_loop.values
    except AttributeError:
        values = self._local_loop.values = Local()  # type: ignore[assignment]
        _thread.__dict__.setdefault("looped", WeakSet()).add(self._local_loop)
    return values


def forget_loop() -> None:
    """A loop has ended whose thread goes on: what critical Locals had in it was the loop's."""
    for values in tuple(_thread.__dict__.pop("looped", ())):
        values.__dict__.clear()


def _critical_reader(name: str) -> Callable[[_ThreadCriticalLocal], Any]:
    read_in_loop = _default_reader(name)

    def read(self: _ThreadCriticalLocal) -> Any:
        # `_in_loop`, written out, as it is the most frequent question.
        if _get_running_loop() is None and ("trio" not in _modules or not _in_trio()):
            try:
                return self._local_thread.__dict__[name]
            except KeyError:
                pass
            raise _no_attribute(name)
        return read_in_loop(_loop_values(self))

    return read


def _critical_read_rare(self: _ThreadCriticalLocal, name: str) -> Any:
    if not _in_loop():
        value = self._local_thread.__dict__.get(name, _MISSING)
        if value is _MISSING:
            raise _no_attribute(name)
        return value
    return _default_read_rare(_loop_values(self), name)


def _in_loop() -> bool:
    return _get_running_loop() is not None or ("trio" in _modules and _in_trio())


def _in_trio() -> bool:
    # trio may be half imported, by this thread or another.
    in_trio_run = getattr(_modules.get("trio.lowlevel"), "in_trio_run", None)
    return in_trio_run is not None and in_trio_run()


def _make_property(name: str) -> bool:
    """Read values of that name through properties from now on; False if it is to remain rare."""
    with _naming:
        # Threads that meet a name at once must agree on it, even where but one place is left.
        if name in _names:
            return True
        if len(_names) < PROPERTIES and not name.startswith(("__", "_local_")):
            setattr(_DefaultLocal, name, property(_default_reader(name)))
            setattr(_ThreadCriticalLocal, name, property(_critical_reader(name)))
            _names.add(name)
            return True
    _DefaultLocal.__getattr__ = _default_read_rare  # type: ignore[method-assign, assignment]
    _ThreadCriticalLocal.__getattr__ = _critical_read_rare  # type: ignore[method-assign, assignment]
    return False
