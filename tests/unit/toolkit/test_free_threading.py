"""What threads share without a lock, or under one, while they all run at once.

On a build without a GIL the threads here run in parallel, and every step of one may fall between
two of another: that is what these tests are for (`make test-free`). With a GIL they prove less:
threads change only where the interpreter lets them, `interval` makes that as often as it can. The
first test tells which of the two it was: with a GIL it is skipped.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import sys
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from omnicorn.toolkit import local as local_module
from omnicorn.toolkit import threads
from omnicorn.toolkit.current_thread_executor import CurrentThreadExecutor
from omnicorn.toolkit.local import Local
from omnicorn.toolkit.sync import (
    AsyncToSync,
    SyncToAsync,
    ThreadSensitiveContext,
    async_to_sync,
    sync_to_async,
)
from omnicorn.toolkit.threads import FutureJob, Pool, StickyExecutor, set_thread_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT = 20.0
THREADS = 6
FREE = not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether threads run in parallel here."""
MEETINGS = 400 if FREE else 60


@pytest.fixture(autouse=True)
def interval() -> Iterator[None]:
    """With a GIL, let another thread go on as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    made = Pool()
    monkeypatch.setattr(threads, "pool", made)
    yield made
    made.close()


def at_once(work: Callable[[int], object], count: int = THREADS) -> None:
    """Call `work` in that many threads, which begin together; raise what any of them raises."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> None:
        barrier.wait(WAIT)
        work(number)

    with ThreadPoolExecutor(count) as executor:
        for future in [executor.submit(begin, number) for number in range(count)]:
            future.result(WAIT)


def spin(until: Callable[[], bool]) -> None:
    """Wait as nothing that sleeps could: to go on within some nanoseconds of another thread."""
    deadline = time.monotonic() + WAIT
    turns = 0
    while not until():
        turns += 1
        if turns % 200 == 0 or not FREE:
            time.sleep(0)  # there may be fewer cores than threads
            if time.monotonic() > deadline:
                raise TimeoutError("the other thread did not come")


class Gate:
    """Where two threads meet."""

    def __init__(self) -> None:
        self._come = [0, 0]

    def meet(self, number: int) -> None:
        come = self._come
        come[number] += 1
        now = come[number]
        spin(lambda: come[1 - number] >= now)


def pause(steps: int) -> None:
    """Let some nanoseconds pass: where two threads meet has to vary."""
    for _ in range(steps):
        pass


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"),
    reason="this Python has a GIL: threads took turns, and races that need two cores stayed unseen",
)
def test_threads_run_in_parallel_here() -> None:
    assert FREE, "something imported has switched the GIL on again"


# --- Local ---


def test_threads_never_see_what_others_write_to_the_same_locals() -> None:
    locals_ = [Local(), Local(), Local(True)]

    def write(number: int) -> None:
        for turn in range(120):
            for place, one in enumerate(locals_):
                value = number, turn, place
                one.free_a = one.free_b = value
                assert one.free_a == one.free_b == value
            del locals_[turn % 3].free_b
            assert [hasattr(one, "free_b") for one in locals_].count(True) == 2

    at_once(write)


def test_locals_that_live_briefly_in_many_threads_take_nothing_from_the_others() -> None:
    kept = Local()

    def live(number: int) -> None:
        kept.free_kept = number
        for turn in range(400):
            brief = Local()
            brief.free_brief = turn
            assert brief.free_brief == turn
            del brief  # whose death another thread's write may meet
            assert kept.free_kept == number
            kept.free_turn = turn
            assert (kept.free_kept, kept.free_turn) == (number, turn)
        assert len(local_module._get_page()[1]) == 2  # nothing is left of the others

    at_once(live)


def test_one_context_that_moves_between_threads_is_seen_by_its_owner_alone() -> None:
    one = Local()
    contexts = [contextvars.Context() for _ in range(THREADS)]
    for number, context in enumerate(contexts):
        context.run(setattr, one, "free_owner", number)

    def look(number: int) -> None:
        for turn in range(300):
            owner = (number + turn) % THREADS
            context = contexts[owner].copy()
            # Not adopted: it lives in the thread where it was set.
            assert not context.run(hasattr, one, "free_owner")
            context.run(local_module.adopt)
            assert context.run(getattr, one, "free_owner") == owner
            context.run(setattr, one, "free_owner", "changed")
            assert context.run(getattr, one, "free_owner") == "changed"

    at_once(look)


def test_names_met_by_all_threads_at_once_are_read_as_they_were_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Local()
    names = frozenset(local_module._names)
    gate = Gate()

    def write(number: int) -> None:
        for turn in range(MEETINGS // 2):
            if number == 0:  # one place is left for a property, and both want it
                places = len(local_module._names) + 1
                monkeypatch.setattr(local_module, "PROPERTIES", places)
            gate.meet(number)
            pause(turn % 7 if number else 0)
            name = f"free_{turn}"
            setattr(one, name, number)
            assert getattr(one, name) == number
            delattr(one, name)
            gate.meet(number)

    try:
        at_once(write, 2)
    finally:
        for name in local_module._names - names:
            for kind in (local_module._DefaultLocal, local_module._ThreadCriticalLocal):
                delattr(kind, name)
        local_module._names.intersection_update(names)
        for kind in (local_module._DefaultLocal, local_module._ThreadCriticalLocal):
            if "__getattr__" in vars(kind):
                del kind.__getattr__


# --- the pool ---


@pytest.mark.parametrize("limit", [None, 3])
def test_leases_that_begin_and_end_in_all_threads_never_share_a_worker(
    pool: Pool, limit: int | None
) -> None:
    set_thread_limit(limit)
    lent: set[int] = set()

    def lease(number: int) -> None:
        for turn in range(150):
            executor = StickyExecutor()
            ident = executor.submit(threading.get_ident).result(WAIT)
            assert ident not in lent
            lent.add(ident)
            assert executor.submit(threading.get_ident).result(WAIT) == ident
            lent.discard(ident)
            executor.shutdown(wait=turn % 2 == 0)

    at_once(lease)


@pytest.mark.parametrize("limit", [None, 3])
def test_a_worker_given_back_as_its_job_ends_is_free_once(pool: Pool, limit: int | None) -> None:
    set_thread_limit(limit)

    for turn in range(MEETINGS):
        executor = StickyExecutor()
        executor.submit(int)
        worker = executor._worker
        assert worker is not None
        before = executor._base
        if turn % 4:
            spin(lambda: worker.completed != before)  # noqa: B023
        else:
            pause(turn % 101)
        executor.release(lambda: None)
    spin(lambda: len(pool._idle) >= len(pool._workers))
    assert sorted(map(repr, pool._idle)) == sorted(map(repr, pool._workers))


@pytest.mark.parametrize("limit", [1, 4])
def test_counters_come_back_to_nothing_and_the_limit_holds(pool: Pool, limit: int) -> None:
    set_thread_limit(limit)
    running: list[None] = []
    most: list[int] = []

    def work() -> None:
        running.append(None)
        most.append(len(running))
        running.pop()
        if pool.park():
            pool.unpark()

    def submit(number: int) -> None:
        sticky = StickyExecutor()
        futures = []
        for turn in range(250):
            if turn % 4 == number % 4:
                futures.append(sticky.submit(work))
            else:
                job = FutureJob(work)
                pool.submit(job)
                futures.append(job.future)
        for future in futures:
            future.result(WAIT)
        sticky.shutdown()

    at_once(submit)
    now = pool.statistics()
    assert (now.running, now.waiting, now.parked) == (0, 0, 0)
    assert len(most) == 250 * THREADS
    assert max(most) <= limit
    assert now.idle == now.threads


def test_a_job_for_a_thread_that_is_about_to_go_is_taken_or_refused() -> None:
    gate = Gate()
    executors: list[CurrentThreadExecutor] = []
    taken: list[int] = []
    accepted: list[int] = []

    def meet(number: int) -> None:
        for turn in range(2 * MEETINGS):
            if number == 0:
                executors.append(CurrentThreadExecutor(None))
                executors[turn].wake()
            gate.meet(number)
            if number == 0:
                executors[turn].serve(lambda: True)
            else:
                pause(turn % 61)
                if executors[turn].enqueue(FutureJob(lambda turn=turn: taken.append(turn))):  # type: ignore[misc]
                    accepted.append(turn)
            gate.meet(number)

    at_once(meet, 2)
    assert taken == accepted
    assert accepted or not FREE  # else the two never met


# --- the bridges ---


NAME: contextvars.ContextVar[tuple[int, int]] = contextvars.ContextVar("NAME")
values = Local()


def test_loops_in_many_threads_keep_their_contexts_threads_and_variables_apart() -> None:
    at_work: set[int] = set()

    def sync(name: tuple[int, int]) -> int:
        ident = threading.get_ident()
        assert ident not in at_work
        at_work.add(ident)
        assert NAME.get() == values.free_name == name
        values.free_count += 1
        at_work.discard(ident)
        return ident

    async def request(name: tuple[int, int]) -> None:
        NAME.set(name)
        values.free_name = name
        values.free_count = 0
        async with ThreadSensitiveContext():
            ident = await sync_to_async(sync)(name)
            for _ in range(5):
                assert await sync_to_async(sync)(name) == ident
            await sync_to_async(sync, thread_sensitive=False)(name)
        assert values.free_count == 7

    async def client(number: int) -> None:
        for turn in range(3):
            await asyncio.gather(*[request((number, 10 * turn + one)) for one in range(5)])

    at_once(lambda number: asyncio.run(client(number)))
    assert len(SyncToAsync.context_to_thread_executor) == 0


def test_nested_bridges_from_many_threads_come_back_to_where_they_began() -> None:
    async def up(name: tuple[int, int], ident: int, depth: int) -> None:
        assert NAME.get() == values.free_name == name
        await sync_to_async(down)(name, ident, depth - 1)

    def down(name: tuple[int, int], ident: int, depth: int) -> None:
        assert threading.get_ident() == ident
        assert NAME.get() == values.free_name == name
        if depth:
            async_to_sync(up)(name, ident, depth)

    def call(number: int) -> None:
        for turn in range(15):
            NAME.set((number, turn))
            values.free_name = number, turn
            down((number, turn), threading.get_ident(), 3)

    at_once(call)
    assert len(AsyncToSync.loop_thread_executors) == 0


def test_calls_cancelled_as_they_begin_leave_every_loop_usable() -> None:
    async def client(number: int) -> None:
        choose = random.Random(number)
        for _ in range(20):
            tasks = [
                asyncio.create_task(sync_to_async(int, thread_sensitive=False)()) for _ in range(5)
            ]
            for _ in range(choose.randrange(4)):
                await asyncio.sleep(0)
            choose.choice(tasks).cancel()
            await asyncio.wait(tasks)
            assert [task.result() for task in tasks if not task.cancelled()].count(0) >= 4
        assert await sync_to_async(int, thread_sensitive=False)() == 0

    at_once(lambda number: asyncio.run(asyncio.wait_for(client(number), WAIT)))
