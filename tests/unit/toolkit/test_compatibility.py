"""ASGI 2 and ASGI 3, told apart without a call."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.toolkit.compatibility import (
    double_to_single_callable,
    guarantee_single_callable,
    is_double_callable,
)
from omnicorn.toolkit.sync import markcoroutinefunction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator


async def single(scope: Any, receive: Any, send: Any) -> Any:
    return scope, receive, send


def double(scope: Any) -> Callable[[Any, Any], Awaitable[Any]]:
    async def instance(receive: Any, send: Any) -> Any:
        return scope, receive, send

    return instance


class DoubleClass:
    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> Any:
        return self.scope, receive, send


class DoubleInstance:
    def __call__(self, scope: Any) -> Any:
        return double(scope)


class SingleInstance:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return scope, receive, send


class SyncSingleInstance:
    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return single(scope, receive, send)

    def method(self, scope: Any, receive: Any, send: Any = None) -> Any:
        return single(scope, receive, send)


class AwaitableEndpoint:
    """Three arguments, then awaited, as Starlette's endpoints."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.arguments = scope, receive, send

    def __await__(self) -> Generator[None, None, Any]:
        return self.dispatch().__await__()

    async def dispatch(self) -> Any:
        return self.arguments


def traced(application: Any) -> Any:
    @functools.wraps(application)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return application(*args, **kwargs)

    return wrapper


def plain(scope: Any, receive: Any, send: Any) -> Any:
    return single(scope, receive, send)


def bound_to(option: Any, scope: Any, receive: Any, send: Any) -> Any:
    return single(scope, receive, send)


class Holder:
    double = staticmethod(double)

    async def single(self, scope: Any, receive: Any, send: Any) -> Any:
        return scope, receive, send


AGREED: dict[str, tuple[Any, bool]] = {
    "a function that returns one": (double, True),
    "a class that takes the scope": (DoubleClass, True),
    "an instance that returns one": (DoubleInstance(), True),
    "an async function": (single, False),
    "an instance with an async call": (SingleInstance(), False),
    "an async method": (Holder().single, False),
    "a partial of an async function": (functools.partial(single), False),
    "a partial of a sync function": (functools.partial(double), True),
    "a class that does not tell its parameters": (dict, True),
}
MENDED: dict[str, Any] = {
    "a lambda": lambda scope, receive, send: single(scope, receive, send),
    "a sync function": plain,
    "an instance with a sync call": SyncSingleInstance(),
    "a sync method": SyncSingleInstance().method,
    "a class that is awaited": AwaitableEndpoint,
    "a partial of a sync function": functools.partial(bound_to, "option"),
    "a partial of an instance with an async call": functools.partial(SingleInstance()),
    "a wrapper of an async function": traced(single),
    "a wrapper of a sync function": traced(plain),
    "a wrapper of a wrapper": traced(traced(plain)),
}


@pytest.mark.parametrize("case", AGREED)
def test_what_asgiref_tells_apart_is_told_apart_alike(case: str) -> None:
    application, expected = AGREED[case]
    assert is_double_callable(application) is expected


@pytest.mark.parametrize("case", MENDED)
def test_sync_code_that_takes_three_arguments_is_asgi_3(case: str) -> None:
    application = MENDED[case]
    assert is_double_callable(application) is False
    assert guarantee_single_callable(application) is application

    async def call() -> Any:
        return await application("scope", "receive", "send")

    assert asyncio.run(call()) == ("scope", "receive", "send")


@pytest.mark.parametrize(
    "application",
    [
        lambda *args: None,
        lambda scope, receive=None, send=None: None,
        lambda: None,
        traced(double),
        traced(DoubleInstance()),
    ],
)
def test_what_cannot_be_known_is_asgi_2_as_in_asgiref(application: Any) -> None:
    assert is_double_callable(application) is True


def test_a_mark_decides_before_anything_else() -> None:
    def marked_single(scope: Any) -> Any: ...

    async def marked_double(scope: Any, receive: Any, send: Any) -> None: ...

    marked_single._asgi_single_callable = True  # type: ignore[attr-defined]
    marked_double._asgi_double_callable = True  # type: ignore[attr-defined]
    assert is_double_callable(marked_single) is False
    assert is_double_callable(marked_double) is True
    marked_double._asgi_single_callable = True  # type: ignore[attr-defined]
    assert is_double_callable(marked_double) is False
    marked_single._asgi_single_callable = False  # type: ignore[attr-defined]
    assert is_double_callable(marked_single) is True


def test_a_function_marked_async_is_asgi_3() -> None:
    assert is_double_callable(markcoroutinefunction(lambda *args: single(*args))) is False


def test_nothing_is_called_to_find_out() -> None:
    def bomb(*args: Any) -> Any:
        raise AssertionError("called")

    class Bomb:
        def __init__(self, *args: Any) -> None:
            bomb()

    assert is_double_callable(bomb) and is_double_callable(Bomb)


@pytest.mark.parametrize("application", [double, DoubleClass, DoubleInstance()])
def test_a_converted_application_is_called_once(application: Any) -> None:
    converted = double_to_single_callable(application)
    assert is_double_callable(converted) is False
    assert asyncio.run(converted("scope", "receive", "send")) == ("scope", "receive", "send")  # type: ignore[arg-type]
    assert guarantee_single_callable(converted) is converted
    assert guarantee_single_callable(application) is not application
