"""Local: who sees what, in threads, tasks and across the bridges; and that nothing remains."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.toolkit import local as module
from omnicorn.toolkit.local import Local, _DefaultLocal, _ThreadCriticalLocal, adopt
from omnicorn.toolkit.sync import async_to_sync, sync_to_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

both = pytest.mark.parametrize("critical", [False, True], ids=["default", "critical"])


class Value:
    """Something whose end can be seen."""


def in_a_thread(function: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()


def on_asyncio(function: Callable[[], T]) -> T:
    async def main() -> T:
        return function()

    return asyncio.run(main())


def on_trio(function: Callable[[], T]) -> T:
    async def main() -> T:
        return function()

    return trio.run(main)


def directly(function: Callable[[], T]) -> T:
    return function()


# --- one scope ---


@both
@pytest.mark.parametrize("run", [directly, in_a_thread, on_asyncio, on_trio])
def test_an_attribute_is_set_read_changed_and_deleted(
    critical: bool, run: Callable[[Callable[[], None]], None]
) -> None:
    local = Local(critical)

    def check() -> None:
        with pytest.raises(AttributeError):
            local.foo  # noqa: B018
        local.foo = 1
        assert local.foo == 1
        local.foo = local.bar = None
        assert local.foo is None and local.bar is None
        del local.foo
        assert not hasattr(local, "foo")
        with pytest.raises(AttributeError):
            del local.foo
        assert getattr(local, "foo", "nothing") == "nothing"
        assert local.bar is None

    run(check)


@both
def test_two_locals_have_nothing_in_common(critical: bool) -> None:
    one, other = Local(critical), Local(critical)
    one.foo = 1
    assert not hasattr(other, "foo")
    other.foo = 2
    del other.foo
    assert one.foo == 1


@both
@pytest.mark.parametrize("run", [directly, on_asyncio])
def test_a_missing_attribute_is_named(
    critical: bool, run: Callable[[Callable[[], None]], None]
) -> None:
    local = Local(critical)

    def check() -> None:
        local.foo = 1
        del local.foo
        with pytest.raises(AttributeError, match="no attribute 'foo'"):
            local.foo  # noqa: B018

    run(check)


def test_dir_has_what_is_set_here_and_nothing_of_other_locals() -> None:
    local, other = Local(), Local()
    local.mine = other.theirs = 1
    assert "mine" in dir(local) and "theirs" not in dir(local)


def test_the_name_data_is_reserved_as_in_asgiref() -> None:
    local = Local()
    local.important = 1
    with pytest.raises(AttributeError, match="_data"):
        local._data = {}
    assert local.important == 1


@both
@pytest.mark.parametrize(
    "name", ["__len__", "__class__", "_local_keys", "_local_loop", "not an identifier", "", "ü"]
)
def test_an_unusual_name_changes_no_behaviour_of_the_local(critical: bool, name: str) -> None:
    local = Local(critical)

    def check() -> None:
        setattr(local, name, 3)
        assert type(local) in (_DefaultLocal, _ThreadCriticalLocal)
        assert bool(local)
        delattr(local, name)
        local.foo = 1
        assert local.foo == 1

    on_asyncio(check)


# --- the kinds ---


def test_a_local_is_of_one_of_two_kinds() -> None:
    assert type(Local()) is _DefaultLocal
    assert type(Local(False)) is _DefaultLocal
    assert type(Local(True)) is _ThreadCriticalLocal
    assert type(Local(thread_critical=True)) is _ThreadCriticalLocal
    assert isinstance(Local(), Local) and isinstance(Local(True), Local)


def test_a_subclass_cannot_be_instantiated() -> None:
    class Mine(Local):  # type: ignore[misc]
        pass

    with pytest.raises(TypeError, match=r"cannot be subclassed.*Mine"):
        Mine()


# --- threads ---


@both
def test_a_thread_sees_nothing_of_another(critical: bool) -> None:
    local = Local(critical)
    local.foo = "outside"

    def other() -> bool:
        seen = hasattr(local, "foo")
        local.foo = "inside"
        return seen

    assert not in_a_thread(other)
    assert local.foo == "outside"


@both
def test_a_thread_that_inherits_the_context_sees_nothing_either(critical: bool) -> None:
    local = Local(critical)
    local.foo = "outside"

    def other() -> tuple[bool, str]:
        seen = hasattr(local, "foo")
        with pytest.raises(AttributeError):
            del local.foo
        local.foo = "inside"
        return seen, local.foo

    context = contextvars.copy_context()
    assert in_a_thread(lambda: context.run(other)) == (False, "inside")
    assert local.foo == "outside"
    assert on_asyncio_to_thread(local) is False


def on_asyncio_to_thread(local: Local) -> bool:
    async def main() -> bool:
        local.foo = 1
        return await asyncio.to_thread(hasattr, local, "foo")

    return asyncio.run(main())


def test_in_a_copied_context_a_default_local_has_the_old_values_and_loses_the_new() -> None:
    local = Local()
    local.foo = 1
    context = contextvars.copy_context()
    local.foo = 2

    def other() -> int:
        seen: int = local.foo
        local.foo = 3
        return seen

    assert context.run(other) == 1
    assert local.foo == 2
    assert context.run(lambda: local.foo) == 3


def test_in_a_sync_thread_a_critical_local_minds_no_context() -> None:
    local = Local(True)
    local.foo = 1
    contextvars.copy_context().run(setattr, local, "foo", 2)
    assert local.foo == 2


def test_in_a_running_loop_a_critical_local_has_values_of_its_own() -> None:
    local = Local(True)
    local.foo = "thread"

    def check() -> bool:
        seen = hasattr(local, "foo")
        local.foo = "task"
        return seen

    assert on_asyncio(check) is False
    assert on_trio(check) is False
    assert local.foo == "thread"


# --- tasks ---


@both
def test_a_task_inherits_and_keeps_its_changes(critical: bool) -> None:
    local = Local(critical)

    async def child(started: asyncio.Event, go_on: asyncio.Event) -> tuple[int, int, bool]:
        first: int = local.foo
        local.foo = 10
        del local.bar
        started.set()
        await go_on.wait()
        return first, local.foo, hasattr(local, "bar")

    async def main() -> None:
        local.foo = local.bar = 1
        started, go_on = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(child(started, go_on))
        local.foo = 2  # the task has copied its Context already
        await started.wait()
        assert (local.foo, local.bar) == (2, 1)
        local.foo = 3
        go_on.set()
        assert await task == (1, 10, False)
        assert (local.foo, local.bar) == (3, 1)

    asyncio.run(main())


@both
def test_tasks_of_trio_inherit_and_keep_their_changes(critical: bool) -> None:
    local = Local(critical)
    seen: list[int] = []

    async def child(value: int) -> None:
        seen.append(local.foo)
        local.foo = value
        await trio.lowlevel.checkpoint()
        seen.append(local.foo)

    async def main() -> None:
        local.foo = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, 2)
            nursery.start_soon(child, 3)
        assert local.foo == 1

    trio.run(main)
    assert sorted(seen) == [1, 1, 2, 3]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.none() | st.integers(0, 2)),
        max_size=30,
    )
)
def test_contexts_of_one_thread_behave_as_namespaces_of_their_own(
    steps: list[tuple[int, str, int | None]],
) -> None:
    """A model: each Context is a dict, copied when the Context is."""
    local, other = Local(), Local()
    contexts = [contextvars.copy_context()]
    models: list[dict[str, int]] = [{}]
    for where, name, value in steps:
        index = where % len(contexts)
        context, model = contexts[index], models[index]
        if where == 3:
            contexts.append(context.copy())
            models.append(model.copy())
        elif value is None:
            if name in model:
                context.run(delattr, local, name)
            model.pop(name, None)
        else:
            context.run(setattr, local, name, value)
            model[name] = value
        for context, model in zip(contexts, models, strict=True):
            visible = {n: context.run(getattr, local, n, None) for n in "abc"}
            assert {n: v for n, v in visible.items() if v is not None} == model
            assert not context.run(hasattr, other, name)


# --- the bridges ---


@pytest.mark.parametrize("thread_sensitive", [False, True])
def test_values_go_through_sync_to_async_and_come_back(thread_sensitive: bool) -> None:
    local = Local()

    def sync() -> None:
        assert local.foo == 1
        local.foo = 2

    async def main() -> None:
        local.foo = 1
        await sync_to_async(sync, thread_sensitive=thread_sensitive)()
        assert local.foo == 2

    asyncio.run(main())


def test_values_go_through_async_to_sync_and_come_back() -> None:
    local = Local()
    local.foo = 1

    async def inner() -> None:
        assert local.foo == 1
        local.foo = 2

    async_to_sync(inner)()
    assert local.foo == 2


@pytest.mark.parametrize("thread_sensitive", [False, True])
def test_values_go_through_many_layers_and_come_back(thread_sensitive: bool) -> None:
    local = Local()

    def sync(depth: int) -> None:
        local.trace += "s"
        if depth:
            async_to_sync(inner)(depth - 1)
        local.trace += "S"

    async def inner(depth: int) -> None:
        local.trace += "a"
        await sync_to_async(sync, thread_sensitive=thread_sensitive)(depth)
        local.trace += "A"

    local.trace = ""
    async_to_sync(inner)(2)
    assert local.trace == "asasasSASASA"


def test_deletions_come_back_through_the_bridges() -> None:
    local = Local()
    local.foo = 1

    async def inner() -> None:
        await sync_to_async(delattr)(local, "foo")
        assert not hasattr(local, "foo")

    async_to_sync(inner)()
    assert not hasattr(local, "foo")


def test_a_critical_local_crosses_no_bridge() -> None:
    local = Local(True)
    local.foo = "thread"

    def sync() -> None:
        assert not hasattr(local, "foo")
        local.foo = "sync"
        del local.foo

    def read() -> str:
        value: str = local.foo
        return value

    async def main() -> None:
        assert not hasattr(local, "foo")
        local.foo = "task"
        await sync_to_async(sync, thread_sensitive=False)()
        assert await sync_to_async(read)() == "thread"  # runs in the thread that waits
        assert local.foo == "task"

    async_to_sync(main)()
    assert local.foo == "thread"


def test_async_to_sync_carries_on_what_its_context_has_brought_from_another_thread() -> None:
    local = Local()

    async def read() -> str:
        value: str = local.foo
        return value

    async def main() -> str:
        local.foo = "task"
        return await asyncio.to_thread(async_to_sync(read))

    assert asyncio.run(main()) == "task"


def test_a_critical_local_of_one_top_level_call_is_not_seen_by_the_next() -> None:
    local = Local(True)

    async def write() -> None:
        local.foo = "first"

    async def read() -> bool:
        return hasattr(local, "foo")

    async_to_sync(write)()
    assert not async_to_sync(read)()  # in the same worker, as it is free again


def test_sync_code_of_a_bridge_sets_a_critical_local_for_its_whole_thread() -> None:
    critical, default = Local(True), Local()
    thread = threading.current_thread()

    @sync_to_async
    def innermost() -> None:
        assert threading.current_thread() is thread
        critical.foo = default.foo = 1

    async def in_a_task() -> None:
        await asyncio.create_task(innermost())

    async_to_sync(in_a_task)()
    assert critical.foo == 1
    assert not hasattr(default, "foo")  # it was the task's


def test_unrelated_threads_do_not_disturb_a_task_that_crosses() -> None:
    local = Local()

    def count(expected: int) -> None:
        assert local.counter == expected
        local.counter += 1

    def disturb() -> None:
        assert not hasattr(local, "counter")
        local.counter = -1

    async def main() -> None:
        local.counter = 0
        for turn in range(0, 20, 2):
            await sync_to_async(count)(turn)
            thread = threading.Thread(target=disturb)
            thread.start()
            count(turn + 1)
            thread.join()
        assert local.counter == 20

    asyncio.run(main())


def test_who_moves_a_context_on_purpose_says_so_and_nothing_else_becomes_visible() -> None:
    local = Local()
    local.foo = 1
    moved = contextvars.copy_context()

    def there() -> int:
        adopt()
        seen: int = local.foo
        local.foo = 2
        return seen

    def elsewhere() -> bool:
        return moved.run(hasattr, local, "foo")

    assert in_a_thread(lambda: moved.run(there)) == 1
    assert in_a_thread(elsewhere) is False
    assert moved.run(hasattr, local, "foo") is False  # it lives in that other thread now
    moved.run(adopt)
    assert moved.run(lambda: local.foo) == 2
    assert local.foo == 1


def test_a_thread_does_not_inherit_from_a_dead_one_whose_identity_it_got() -> None:
    local = Local()
    context = contextvars.Context()

    def other() -> tuple[int, bool]:
        seen = context.run(hasattr, local, "foo")
        context.run(setattr, local, "foo", 1)
        return threading.get_ident(), seen

    found = [in_a_thread(other) for _ in range(100)]
    assert len({identity for identity, _ in found}) < 100, "identities are not reused here"
    assert not any(seen for _, seen in found)


def test_where_nothing_is_set_moving_changes_no_context() -> None:
    context = contextvars.Context()
    context.run(adopt)
    assert len(context) == 0


# --- nothing remains ---


@both
@pytest.mark.parametrize("run", [directly, on_asyncio])
def test_a_local_goes_with_its_values_when_nobody_has_it_any_more(
    critical: bool, run: Callable[[Callable[[], None]], None]
) -> None:
    def check() -> None:
        local = Local(critical)
        value = Value()
        local.foo = value
        local.__rare__ = value
        gone = weakref.ref(local), weakref.ref(value)
        del local, value
        assert [ref() for ref in gone] == [None, None]

    run(check)


def test_in_another_context_its_values_go_with_the_next_write() -> None:
    local, other = Local(), Local()
    value = Value()
    context = contextvars.copy_context()
    context.run(setattr, local, "foo", value)
    gone = weakref.ref(value)
    del local, value
    context.run(setattr, other, "foo", 1)
    assert gone() is None
    assert context.run(lambda: other.foo) == 1


def test_a_value_that_refers_to_its_local_is_collected() -> None:
    local = Local(True)  # the default kind keeps values in the Context, so such a pair stays
    value = Value()
    value.__dict__["local"] = local
    local.foo = value
    gone = weakref.ref(value)
    del local, value
    gc.collect()
    assert gone() is None


def test_a_cycle_with_a_local_is_collected_and_new_locals_are_empty() -> None:
    def cycle() -> weakref.ref[Local]:
        pair: list[Any] = [Local()]
        pair.append(pair)
        pair[0].foo = "bar"
        return weakref.ref(pair[0])

    gone = cycle()
    gc.collect()
    assert gone() is None
    assert not any(hasattr(local, "foo") for local in [Local() for _ in range(100)])


@pytest.fixture
def garbage() -> Iterator[list[Any]]:
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@both
def test_no_cycle_is_made_by_a_missing_attribute_or_a_whole_life(
    critical: bool, garbage: list[Any]
) -> None:
    local = Local(critical)
    with pytest.raises(AttributeError):
        local.missing  # noqa: B018
    local.foo = [1]
    local.foo = [2]
    del local.foo, local
    on_asyncio(lambda: setattr(Local(critical), "foo", 1))
    gc.collect()
    assert [item for item in garbage if type(item).__module__ == module.__name__] == []
    assert [item for item in garbage if isinstance(item, AttributeError)] == []


@both
def test_ten_thousand_short_lived_locals_leave_no_objects(critical: bool) -> None:
    def live() -> None:
        for number in range(5000):
            local = Local(critical)
            local.foo = [number]

    live()
    gc.collect()
    before = len(gc.get_objects())
    live()
    on_asyncio(live)
    gc.collect()
    assert len(gc.get_objects()) - before < 50


def test_values_of_a_dead_thread_go() -> None:
    default, critical = Local(), Local(True)
    gone: list[weakref.ref[Value]] = []

    def other() -> None:
        default.foo, critical.foo = values = Value(), Value()
        gone.extend(map(weakref.ref, values))

    in_a_thread(other)
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


@pytest.fixture
def _full() -> Iterator[None]:
    """No property is left; the class is as before afterwards."""
    names = frozenset(module._names)
    module._names.update(f"taken {number}" for number in range(module.PROPERTIES))
    yield
    module._names.intersection_update(names)
    for kind in (_DefaultLocal, _ThreadCriticalLocal):
        if "__getattr__" in vars(kind):
            del kind.__getattr__


@both
@pytest.mark.usefixtures("_full")
@pytest.mark.parametrize("run", [directly, on_asyncio])
def test_past_the_limit_names_work_and_leave_nothing_behind(
    critical: bool, run: Callable[[Callable[[], None]], None]
) -> None:
    properties = len(vars(_DefaultLocal))

    def check() -> None:
        local, other = Local(critical), Local(critical)
        for number in range(100):
            name = f"rare{number}"
            setattr(local, name, number)
            assert getattr(local, name) == number
            assert not hasattr(other, name)
            delattr(local, name)
            assert not hasattr(local, name)
            with pytest.raises(AttributeError):
                delattr(local, name)
        local.foo = 1
        assert in_a_thread(lambda: hasattr(local, "foo")) is False

    run(check)
    assert len(vars(_DefaultLocal)) <= properties + 1


# --- threads without a lock, forks, the end ---


def test_threads_that_meet_a_new_name_at_once_all_have_it() -> None:
    local = Local()
    barrier = threading.Barrier(8)

    def write(number: int) -> bool:
        wrong = 0
        for turn in range(50):
            barrier.wait(10)
            name = f"name{turn}"
            setattr(local, name, number)
            wrong += getattr(local, name) != number
        return wrong == 0

    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(write, range(8)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_the_values_of_the_thread_that_forked() -> None:
    program = """
import os
from omnicorn.toolkit.local import Local
default, critical = Local(), Local(True)
default.foo = critical.foo = 1
child = os.fork()
if child == 0:
    ok = default.foo == critical.foo == 1
    default.foo = critical.foo = 2
    os._exit(0 if ok and default.foo == critical.foo == 2 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert default.foo == critical.foo == 1
"""
    assert outcome(program) == (0, "", "")


def test_locals_that_live_to_the_end_of_the_interpreter_end_in_silence() -> None:
    program = """
import asyncio, builtins, sys, threading
from omnicorn.toolkit.local import Local
class Value:
    def __del__(self): LOCALS
LOCALS = builtins.kept = [Local(), Local(True)]
def use():
    for local in LOCALS:
        local.foo = Value()
        local.itself = local
        local.__rare__ = Value()
async def main(): use()
use()
asyncio.run(main())
thread = threading.Thread(target=use); thread.start(); thread.join()
"""
    assert outcome(program) == (0, "", "")


def test_a_local_that_outlives_the_names_of_its_module_ends_in_silence() -> None:
    program = """
from omnicorn.toolkit import local as module
one = module.Local()
one.foo = 1
names = vars(module)
names.update(dict.fromkeys(name for name in names if not name.startswith("__")))
del one
"""
    assert outcome(program) == (0, "", "")


def outcome(program: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr
