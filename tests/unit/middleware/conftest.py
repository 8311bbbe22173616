"""Every test that asks for `run` is run by asyncio and by trio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]:
    if request.param == "trio":
        return trio.run
    return lambda main: asyncio.run(main())
