"""Old applications: tell ASGI 2, two calls, from ASGI 3, one call, and make the first the second.

What this file alone decides: of which kind a callable is, without calling it. What asgiref knows
comes first, with its answers: the marks ``_asgi_single_callable`` and ``_asgi_double_callable``,
and that what is async takes its one call. It says ASGI 2 for everything else; here the parameters
are looked at before. Three of them are ASGI 3, so that a lambda, a plain function, a sync
``__call__`` or a class may return an awaitable. Where they do not tell, as with ``*args``, those
of what it wraps may (``functools.wraps``); else it remains asgiref's answer.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from omnicorn.toolkit.sync import iscoroutinefunction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    # Any, not the types of omnicorn.asgi: frameworks have their own types of scopes and events, and
    # StatelessServer serves scopes that are only like ASGI's.
    SingleCallable = Callable[[Any, Any, Any], Awaitable[Any]]

__all__ = ["double_to_single_callable", "guarantee_single_callable", "is_double_callable"]


def is_double_callable(application: Callable[..., Any]) -> bool:
    """Whether *application* is to be called as ASGI 2: with the scope, and then its result.

    It is not called to find out. A mark decides: a true ``_asgi_single_callable`` or
    ``_asgi_double_callable`` attribute. Without one, async functions and instances with an async
    ``__call__`` are ASGI 3, and so is what can be called with three arguments and not with one.
    What could be called with both, or with neither, is taken for ASGI 2.
    """
    if getattr(application, "_asgi_single_callable", False):
        return False
    if getattr(application, "_asgi_double_callable", False):
        return True
    if not inspect.isclass(application):
        inner = application
        while isinstance(inner, functools.partial):
            inner = inner.func
        if iscoroutinefunction(inner) or iscoroutinefunction(getattr(inner, "__call__", None)):  # noqa: B004
            return False
    return not _takes_three(application)


def double_to_single_callable(application: Callable[[Any], Any]) -> SingleCallable:
    """An ASGI 3 application that calls *application* as ASGI 2 (ASGI 3.0, Legacy Applications)."""

    async def single(scope: Any, receive: Any, send: Any) -> Any:
        return await application(scope)(receive, send)

    return single


def guarantee_single_callable(application: Callable[..., Any]) -> SingleCallable:
    """*application* if it is ASGI 3, else an ASGI 3 one that calls it; see `is_double_callable`."""
    if is_double_callable(application):
        return double_to_single_callable(application)
    return application


def _takes_three(application: Callable[..., Any]) -> bool:
    """Whether it can be called with three arguments, and not with one."""
    for follow_wrapped in (False, True):
        try:
            signature = inspect.signature(application, follow_wrapped=follow_wrapped)
        except (TypeError, ValueError):  # it has none, as some written in C
            return False
        three, one = _binds(signature, 3), _binds(signature, 1)
        if three is not one:
            return three
    return False


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True
