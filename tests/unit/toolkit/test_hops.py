from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.toolkit import sync as module
from omnicorn.toolkit.current_thread_executor import CurrentThreadExecutor
from omnicorn.toolkit.local import Local
from omnicorn.toolkit.sync import (
    AsyncToSync,
    async_to_sync,
    sync_to_async,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

WAIT = 5.0
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME")
OTHER: contextvars.ContextVar[str] = contextvars.ContextVar("OTHER")

ident = sync_to_async(threading.get_ident)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(coroutine, WAIT)

    return asyncio.run(limited())


async def async_ident() -> int:
    return threading.get_ident()


def test_variables_go_with_a_call_and_come_back_changed() -> None:
    def change() -> str:
        before = NAME.get()
        NAME.set("changed")
        return before

    async def main() -> None:
        NAME.set("mine")
        assert await sync_to_async(change)() == "mine"
        assert NAME.get() == "changed"

    run(main())


def test_variables_come_back_from_a_call_that_failed() -> None:
    def change() -> None:
        NAME.set("changed")
        raise ValueError

    async def main() -> None:
        with pytest.raises(ValueError):
            await sync_to_async(change)()
        assert NAME.get() == "changed"

    run(main())


def test_variables_go_with_a_coroutine_and_come_back_changed() -> None:
    async def change() -> str:
        before = NAME.get()
        await asyncio.sleep(0)
        NAME.set("changed")
        return before

    def sync() -> None:
        NAME.set("mine")
        assert async_to_sync(change)() == "mine"
        assert NAME.get() == "changed"

    contextvars.copy_context().run(sync)


def test_a_token_set_in_one_call_resets_in_the_next() -> None:
    async def main() -> None:
        NAME.set("outer")
        for sensitive in (True, False):
            token = await sync_to_async(NAME.set, thread_sensitive=sensitive)("inner")
            assert NAME.get() == "inner"
            await sync_to_async(int, thread_sensitive=not sensitive)()
            await sync_to_async(NAME.reset, thread_sensitive=sensitive)(token)
            assert NAME.get() == "outer"

    run(main())


def test_a_token_resets_to_no_value() -> None:
    async def main() -> None:
        for _ in range(2):
            token = await sync_to_async(NAME.set)("inner")
            assert NAME.get() == "inner"
            await sync_to_async(NAME.reset)(token)
            assert NAME.get(None) is None
            assert await sync_to_async(lambda: NAME.get(None))() is None

    run(main())


def test_what_the_task_sets_between_two_calls_is_seen_by_the_second() -> None:
    async def main() -> None:
        token = await sync_to_async(NAME.set)("call")
        OTHER.set("task")
        assert await sync_to_async(OTHER.get)() == "task"
        NAME.set("task")
        assert await sync_to_async(NAME.get)() == "task"
        await sync_to_async(NAME.reset)(token)
        assert NAME.get(None) is None
        assert OTHER.get() == "task"

    run(main())


def test_what_the_task_resets_between_two_calls_is_gone_in_the_second() -> None:
    async def main() -> None:
        token = OTHER.set("task")
        await sync_to_async(NAME.set)("call")
        OTHER.reset(token)
        assert await sync_to_async(lambda: OTHER.get(None))() is None
        assert await sync_to_async(NAME.get)() == "call"

    run(main())


def test_calls_of_sibling_tasks_do_not_mix_their_variables() -> None:
    barrier = threading.Barrier(3)

    def change(name: str) -> contextvars.Token[str]:
        token = NAME.set(name)
        barrier.wait(WAIT)
        assert NAME.get() == name
        return token

    async def one(name: str) -> None:
        token = await sync_to_async(change, thread_sensitive=False)(name)
        assert NAME.get() == name
        await sync_to_async(NAME.reset, thread_sensitive=False)(token)
        assert NAME.get() == "outer"

    async def main() -> None:
        await sync_to_async(NAME.set)("outer")
        await asyncio.gather(one("a"), one("b"), one("c"))
        assert NAME.get() == "outer"

    run(main())


def test_a_call_that_was_given_up_keeps_its_changes() -> None:
    go, started, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        NAME.set("late")
        started.set()
        go.wait(WAIT)
        OTHER.set("late")
        ended.set()

    async def main() -> None:
        await sync_to_async(NAME.set)("early")
        call = sync_to_async(work, thread_sensitive=False)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await call()
        assert started.is_set()
        assert NAME.get() == "early"
        token = await sync_to_async(NAME.set)("next")
        go.set()
        assert ended.wait(WAIT)
        await sync_to_async(NAME.reset)(token)
        assert NAME.get() == "early"
        assert OTHER.get(None) is None

    run(main())


def test_values_are_compared_by_identity() -> None:
    class Strange:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        __hash__ = None  # type: ignore[assignment]

    variable: contextvars.ContextVar[Strange] = contextvars.ContextVar("variable")
    new = Strange()

    async def change() -> None:
        variable.set(new)

    async def main() -> None:
        variable.set(Strange())
        await sync_to_async(lambda: variable.set(new))()
        assert variable.get() is new
        variable.set(Strange())
        await sync_to_async(async_to_sync(change))()
        assert variable.get() is new

    run(main())


def test_nothing_is_set_when_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    from omnicorn.toolkit import hops

    def fail(*_: object) -> Any:
        raise AssertionError("looked at every variable")

    monkeypatch.setattr(hops, "_changed", fail)

    async def main() -> None:
        NAME.set("one")
        for _ in range(3):
            await ident()
            await sync_to_async(async_to_sync(async_ident))()

    run(main())


def test_without_a_look_at_the_tree_variables_are_compared_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from omnicorn.toolkit import hops, libraries

    monkeypatch.setattr(hops, "state", hops._unknown_state)
    monkeypatch.setattr(libraries, "state", hops._unknown_state)
    monkeypatch.setattr(module, "state", hops._unknown_state)
    test_a_token_set_in_one_call_resets_in_the_next()
    test_a_token_resets_to_no_value()
    test_what_the_task_sets_between_two_calls_is_seen_by_the_second()
    test_what_the_task_resets_between_two_calls_is_gone_in_the_second()
    test_variables_go_with_a_coroutine_and_come_back_changed()


def test_a_given_context_is_used_and_nothing_is_written_back() -> None:
    def change() -> str:
        before = NAME.get()
        NAME.set("changed")
        return before

    async def main() -> None:
        NAME.set("mine")
        context = contextvars.copy_context()
        NAME.set("since")
        assert await sync_to_async(change, context=context)() == "mine"
        assert NAME.get() == "since"
        assert context[NAME] == "changed"
        token = await sync_to_async(NAME.set, context=context)("again")
        await sync_to_async(NAME.reset, context=context)(token)
        assert context[NAME] == "changed"

    run(main())


def test_a_given_context_serves_several_tasks() -> None:
    NAME.set("")

    def add() -> None:
        NAME.set(NAME.get() + "1")

    async def main() -> None:
        context = contextvars.copy_context()
        await asyncio.gather(*[sync_to_async(add, context=context)() for _ in range(4)])
        assert NAME.get() == ""
        assert context[NAME] == "1111"

    run(main())


def test_locals_go_through_bridges_in_both_directions() -> None:
    values = Local()

    def sync() -> None:
        assert values.name == "async"
        values.name = "sync"
        async_to_sync(inner)()
        assert values.name == "inner"

    async def inner() -> None:
        assert values.name == "sync"
        values.name = "inner"

    async def main() -> None:
        values.name = "async"
        await sync_to_async(sync)()
        assert values.name == "inner"
        await sync_to_async(setattr, thread_sensitive=False)(values, "name", "set")
        assert values.name == "set"
        await sync_to_async(delattr)(values, "name")
        assert not hasattr(values, "name")

    run(main())
    async_to_sync(main)()


def test_locals_go_with_a_given_context_and_stay_visible_for_its_owner() -> None:
    values = Local()

    async def main() -> None:
        values.name = 1
        context = contextvars.copy_context()
        assert await sync_to_async(getattr, context=context)(values, "name") == 1
        assert context.run(lambda: values.name) == 1

    run(main())


def test_the_current_executor_is_put_back() -> None:
    values = Local()

    async def change() -> None:
        values.name = "changed"
        assert isinstance(AsyncToSync.executors.current, CurrentThreadExecutor)

    def sync() -> None:
        before = getattr(AsyncToSync.executors, "current", None)
        async_to_sync(change)()
        assert values.name == "changed"
        assert getattr(AsyncToSync.executors, "current", None) is before

    contextvars.copy_context().run(sync)

    async def main() -> None:
        await sync_to_async(sync)()

    run(main())
