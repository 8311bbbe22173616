from __future__ import annotations

import contextvars
import gc
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from omnicorn.toolkit import threads
from omnicorn.toolkit.threads import (
    DEFAULT_LIMIT,
    FutureJob,
    Job,
    Pool,
    StickyExecutor,
    Worker,
    set_thread_limit,
    thread_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from typing import Any

WAIT = 5.0


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    made = Pool()
    monkeypatch.setattr(threads, "pool", made)
    yield made
    made.close()


def run(pool: Pool, work: Callable[[], Any]) -> Future[Any]:
    job = FutureJob(work)
    pool.submit(job)
    return job.future


def until(true: Callable[[], bool]) -> None:
    """Wait for another thread, which is about to do it."""
    ready = threading.Event()
    for _ in range(500):
        if true():
            return
        ready.wait(0.01)
    raise AssertionError("it did not become true")


def test_an_idle_worker_is_used_again(pool: Pool) -> None:
    idents = {run(pool, threading.get_ident).result(WAIT) for _ in range(20)}

    assert len(idents) == 1
    assert pool.statistics().started == 1


def test_jobs_that_run_at_once_have_threads_of_their_own(pool: Pool) -> None:
    barrier = threading.Barrier(3)
    futures = [run(pool, lambda: barrier.wait(WAIT)) for _ in range(3)]

    assert sorted(future.result(WAIT) for future in futures) == [0, 1, 2]
    assert pool.statistics().threads == 3


def test_a_worker_ends_when_it_was_idle_for_long(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "IDLE", 0.01)
    run(pool, threading.get_ident).result(WAIT)

    until(lambda: pool.statistics().threads == 0)
    assert pool.statistics().idle == 0


def test_a_lent_worker_does_not_end(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE", 0.01)
    executor = StickyExecutor()
    first = executor.submit(threading.get_ident).result(WAIT)
    threading.Event().wait(0.1)

    assert executor.submit(threading.get_ident).result(WAIT) == first
    executor.shutdown()


def test_an_error_goes_to_the_future(pool: Pool) -> None:
    with pytest.raises(ZeroDivisionError):
        run(pool, lambda: 1 // 0).result(WAIT)


def test_a_job_cancelled_in_the_queue_does_not_run(pool: Pool) -> None:
    executor = StickyExecutor()
    go = threading.Event()
    ran: list[int] = []
    executor.submit(go.wait, WAIT)
    future = executor.submit(ran.append, 1)

    assert future.cancel()
    go.set()
    executor.shutdown()
    assert ran == []


def test_a_sticky_executor_runs_its_jobs_in_one_thread_in_order(pool: Pool) -> None:
    order: list[int] = []
    with StickyExecutor() as executor:
        idents = {executor.submit(threading.get_ident) for _ in range(5)}
        for number in range(5):
            executor.submit(order.append, number)

        assert len({future.result(WAIT) for future in idents}) == 1
    assert order == [0, 1, 2, 3, 4]


def test_two_live_sticky_executors_never_share_a_thread(pool: Pool) -> None:
    one, two = StickyExecutor(), StickyExecutor()
    for _ in range(10):
        first = one.submit(threading.get_ident).result(WAIT)
        assert first != two.submit(threading.get_ident).result(WAIT)
        assert first != run(pool, threading.get_ident).result(WAIT)
    one.shutdown()
    two.shutdown()


def test_a_released_thread_goes_to_the_next_executor(pool: Pool) -> None:
    one, two = StickyExecutor(), StickyExecutor()
    first = one.submit(threading.get_ident).result(WAIT)
    assert one.release(lambda: None)

    assert two.submit(threading.get_ident).result(WAIT) == first
    two.shutdown()


def test_a_busy_thread_is_released_when_its_jobs_have_ended(pool: Pool) -> None:
    executor = StickyExecutor()
    go, released = threading.Event(), threading.Event()
    done = executor.submit(go.wait, WAIT)

    assert not executor.release(released.set)
    assert pool.statistics().idle == 0
    go.set()
    assert released.wait(WAIT)
    assert done.done()
    assert pool.statistics().idle == 1


def test_a_thread_released_just_as_its_job_is_counted_is_free_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Meeting(Pool):
        def on_done(self, worker: Worker, job: Job, shared: bool) -> None:
            if not shared:
                assert executor.release(lambda: None)  # as another thread may, at this moment
            super().on_done(worker, job, shared)

    pool = Meeting()
    monkeypatch.setattr(threads, "pool", pool)
    set_thread_limit(1)  # so that sticky executors' jobs are counted, too
    executor = StickyExecutor()
    executor.submit(int).result(WAIT)

    assert (pool.statistics().threads, pool.statistics().idle) == (1, 1)
    pool.close()


def test_a_worker_has_nothing_of_the_context_in_which_it_was_started(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Heir(threading.Thread):
        """As all threads of free-threaded Python are from 3.14 on."""

        def start(self) -> None:
            self.inherited = contextvars.copy_context()
            super().start()

        def run(self) -> None:
            self.inherited.run(super().run)

    monkeypatch.setattr(threading, "Thread", Heir)
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    variable.set(1)

    assert run(pool, lambda: variable.get(None)).result(WAIT) is None
    with StickyExecutor() as executor:
        assert list(executor.submit(contextvars.copy_context).result(WAIT)) == []


def test_an_executor_shut_down_refuses_jobs(pool: Pool) -> None:
    executor = StickyExecutor()
    executor.shutdown()

    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)


def test_an_executor_that_is_forgotten_gives_its_thread_back(pool: Pool) -> None:
    executor = StickyExecutor()
    executor.submit(int).result(WAIT)
    assert pool.statistics().idle == 0

    del executor
    gc.collect()
    until(lambda: pool.statistics().idle == 1)


def test_no_more_jobs_than_the_limit_run_at_once(pool: Pool) -> None:
    set_thread_limit(2)
    running = threading.Semaphore(0)
    go = threading.Event()

    def work() -> None:
        running.release()
        go.wait(WAIT)

    futures = [run(pool, work) for _ in range(5)]
    for _ in range(2):
        assert running.acquire(timeout=WAIT)

    assert not running.acquire(timeout=0.05)
    now = pool.statistics()
    assert (now.running, now.waiting, now.threads, now.limit) == (2, 3, 2, 2)
    go.set()
    for future in futures:
        future.result(WAIT)
    until(lambda: pool.statistics().running == 0)
    assert pool.statistics().threads == 2


def test_the_limit_holds_for_sticky_executors_too(pool: Pool) -> None:
    set_thread_limit(1)
    go = threading.Event()
    one, two = StickyExecutor(), StickyExecutor()
    first = one.submit(go.wait, WAIT)
    until(lambda: pool.statistics().running == 1)
    second = two.submit(int)

    until(lambda: pool.statistics().waiting == 1)
    assert not second.done()
    go.set()
    assert first.result(WAIT) is True
    assert second.result(WAIT) == 0
    one.shutdown()
    two.shutdown()


def test_a_parked_job_does_not_count_for_the_limit(pool: Pool) -> None:
    set_thread_limit(1)
    parked, go = threading.Event(), threading.Event()

    def work() -> None:
        assert pool.park()
        parked.set()
        go.wait(WAIT)
        pool.unpark()

    first = run(pool, work)
    assert parked.wait(WAIT)
    assert run(pool, lambda: pool.statistics().parked).result(WAIT) == 1
    go.set()
    first.result(WAIT)
    assert pool.statistics().parked == 0


def test_a_raised_limit_lets_the_waiting_go(pool: Pool) -> None:
    set_thread_limit(1)
    go = threading.Event()
    first, second = run(pool, lambda: go.wait(WAIT)), run(pool, int)

    set_thread_limit(None)
    assert second.result(WAIT) == 0
    assert thread_statistics().limit == DEFAULT_LIMIT
    go.set()
    assert first.result(WAIT)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(pool: Pool, limit: int) -> None:
    with pytest.raises(ValueError, match=f"the thread limit is {limit}"):
        set_thread_limit(limit)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_takes_new_workers(pool: Pool) -> None:
    os.register_at_fork(after_in_child=pool.on_fork)
    executor = StickyExecutor()
    executor.submit(int).result(WAIT)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            executor.submit(int).result(WAIT)
            run(pool, int).result(WAIT)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    executor.shutdown()


def test_the_interpreter_ends_after_the_jobs() -> None:
    text = (
        "import sys, time\n"
        "from omnicorn.toolkit.threads import FutureJob, StickyExecutor, pool\n"
        "pool.submit(FutureJob(lambda: (time.sleep(0.1), sys.stdout.write('done\\n'))))\n"
        "StickyExecutor().submit(lambda: (time.sleep(0.1), sys.stdout.write('done\\n')))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout == "done\ndone\n"
    assert ended.stderr == ""


def test_jobs_over_the_limit_run_before_the_interpreter_ends() -> None:
    text = (
        "import time\n"
        "from omnicorn.toolkit.threads import FutureJob, pool, set_thread_limit\n"
        "set_thread_limit(1)\n"
        "for number in range(3):\n"
        "    pool.submit(FutureJob(lambda number=number: (time.sleep(0.05), print(number))))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=True
    )
    assert (ended.stdout, ended.stderr) == ("0\n1\n2\n", "")
