"""Which interface an application speaks: ASGI 3, ASGI 2 or WSGI.

What this file alone decides: how that is told without calling the application, and what is said
when it cannot be told or was told wrong. Marks and ``async`` come first, as asgiref reads them
(`toolkit.compatibility`); then with how many arguments it can be called; then, if with several
numbers of them, how the first is named.

=========  ========================  ====================================================
interface  called with               for example
=========  ========================  ====================================================
asgi3      scope, receive, send      ``async def app(scope, receive, send)``
asgi2      scope, then its result    a class whose instances are ``async def __call__``
wsgi       environ, start_response   Flask, Django's ``get_wsgi_application()``, a class
=========  ========================  ====================================================
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType

AnyApplication: TypeAlias = Callable[..., Any]
Interface = Literal["asgi3", "asgi2", "wsgi"]

__all__ = ["AnyApplication", "Interface", "adapt", "detect", "explain"]

_BY_COUNT: dict[int, Interface] = {1: "asgi2", 2: "wsgi", 3: "asgi3"}

_BY_NAME: dict[str, Interface] = {
    "environ": "wsgi",
    "env": "wsgi",
    "start_response": "wsgi",
    "receive": "asgi3",
    "send": "asgi3",
}
"""What a parameter's name says where the number of arguments leaves it open."""

_CALLERS = ("bridge/cycle.py", "toolkit/pep3333.py", "toolkit/compatibility.py")
"""Where applications are called."""


def detect(app: AnyApplication) -> Interface:
    """Tell an application's interface, without calling it.

    Args:
        app: Anything callable.

    Raises:
        ConfigError: It cannot be told; the message names the option that tells.
    """
    if getattr(app, "_asgi_single_callable", False):
        return "asgi3"
    if getattr(app, "_asgi_double_callable", False):
        return "asgi2"
    if not inspect.isclass(app):
        inner: Any = app
        while isinstance(inner, functools.partial):
            inner = inner.func
        if _is_async(inner, getattr(inner, "__call__", None)):  # noqa: B004
            return "asgi3"
    # Not what `functools.wraps` points to, at first: a wrapper may have changed the interface.
    for follow_wrapped in (False, True):
        try:
            signature = inspect.signature(app, follow_wrapped=follow_wrapped)
        except (TypeError, ValueError):  # it has none, as some written in C
            break
        found = _by_signature(signature)
        if found is not None:
            return found
    raise ConfigError(
        f"it cannot be told which interface {_described(app)} speaks, as its parameters leave it"
        " open: say so with --interface asgi3, asgi2 or wsgi",
        "interface",
    )


def adapt(
    app: AnyApplication, mode: Interface | Literal["auto"] = "auto"
) -> tuple[Interface, AnyApplication]:
    """Tell an application's interface, and make ASGI 3 of ASGI 2.

    Args:
        app: The application.
        mode: Its interface; ``"auto"`` looks.

    Returns:
        The interface it spoke, and what is to be served: a WSGI or an ASGI 3 application.

    Raises:
        ConfigError: As for `detect`; or it is not callable.
    """
    if not callable(app):
        raise ConfigError(f"the application is not callable: {app!r:.200}", "app")
    interface = detect(app) if mode == "auto" else mode
    if interface == "asgi2":
        from omnicorn.toolkit.compatibility import double_to_single_callable

        app = double_to_single_callable(app)
    return interface, app


def explain(error: BaseException, interface: Interface) -> str | None:
    """What to do about an application's failure, if it is that its interface is another one.

    Args:
        error: What came of calling it.
        interface: The one it was taken for.
    """
    if not isinstance(error, TypeError):
        return None
    trace: TracebackType | None = error.__traceback__
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    where = code.co_filename.replace(os.sep, "/")
    if not where.endswith(_CALLERS):
        return None  # it was called, and failed inside
    if code.co_name not in ("run", "single") and "coroutine" not in str(error):
        return None
    others = [name for name in _BY_COUNT.values() if name != interface]
    return (
        f"it was called as {interface}, which it may not be: say what it is with "
        f"--interface {others[0]} or --interface {others[1]}"
    )


def _is_async(*functions: Any) -> bool:
    """Whether one of them is a coroutine function, or marked as one."""
    if any(map(inspect.iscoroutinefunction, functions)):
        return True
    # Imported only now: most applications start 5 ms earlier without it.
    from omnicorn.toolkit.sync import iscoroutinefunction

    return any(map(iscoroutinefunction, functions))


def _by_signature(signature: inspect.Signature) -> Interface | None:
    fits = [interface for count, interface in _BY_COUNT.items() if _binds(signature, count)]
    if len(fits) == 1:
        return fits[0]
    for name in signature.parameters:
        named = _BY_NAME.get(name)
        if named in fits:
            return named
    return None


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _described(app: AnyApplication) -> str:
    name = getattr(app, "__qualname__", None) or type(app).__qualname__
    return f"the application {getattr(app, '__module__', None) or '?'}.{name}"
