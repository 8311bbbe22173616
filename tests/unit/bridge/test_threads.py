"""Who runs a job, and when the loop hears of it. Threads meet at events; nothing sleeps."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.bridge.threads import Threads
from omnicorn.transports.inproc import ManualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 10.0


class Loop(ManualLoop):
    """Counts how often threads woke it."""

    def __init__(self) -> None:
        super().__init__()
        self.wakes = 0

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        self.wakes += 1
        super().call_soon_threadsafe(callback)


class Job:
    """Notes its thread; may be held, until it is released."""

    def __init__(self, held: bool = False, action: Callable[[], object] | None = None) -> None:
        self.began = threading.Event()
        self.release = threading.Event()
        self.finished = threading.Event()
        self.thread: threading.Thread | None = None
        self.collected = 0
        self.done = False
        self.action = action
        if not held:
            self.release.set()

    def work(self) -> None:
        self.thread = threading.current_thread()
        self.began.set()
        assert self.release.wait(PATIENCE)
        if self.action is not None:
            self.action()
        self.done = True
        self.finished.set()

    def collect(self) -> None:
        self.collected += 1


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def pool(loop: Loop) -> Iterator[Callable[[int], Threads]]:
    made: list[Threads] = []

    def make(limit: int) -> Threads:
        made.append(Threads(loop, limit))
        return made[-1]

    yield make
    for threads in made:
        threads.stop()


def collected(*jobs: Job) -> Callable[[], bool]:
    return lambda: all(job.collected for job in jobs)


def collected_twice(job: Job) -> bool:
    return job.collected == 2


def post_and_wait(threads: Threads, job: Job, now: bool, go: threading.Event) -> None:
    threads.post(job, now)
    assert go.wait(PATIENCE)


def submit(loop: Loop, threads: Threads, *jobs: Job) -> None:
    for job in jobs:
        threads.submit(job)
    loop.run_until_idle()


def test_no_thread_is_started_before_there_is_a_job(pool: Any) -> None:
    assert pool(4).count == 0


def test_a_job_runs_in_a_thread_and_the_loop_collects_it(loop: Loop, pool: Any) -> None:
    job = Job()
    submit(loop, pool(4), job)
    loop.run_until(collected(job))
    assert job.done
    assert job.thread is not threading.current_thread()
    assert loop.wakes == 1


def test_short_jobs_of_one_iteration_wake_the_loop_once_or_twice(loop: Loop, pool: Any) -> None:
    threads = pool(4)
    jobs = [Job() for _ in range(100)]
    submit(loop, threads, *jobs)
    # The loop has no turn before all are done: how many it takes is the interpreter's choice.
    for job in jobs:
        assert job.finished.wait(PATIENCE)
    loop.run_until(collected(*jobs))
    assert loop.wakes <= 2  # the last result may come after the first turn
    assert threads.count <= 4


def test_the_backlog_is_the_jobs_that_no_thread_has(loop: Loop, pool: Any) -> None:
    threads = pool(1)
    runs, *wait = jobs = [Job(held=True) for _ in range(4)]
    submit(loop, threads, *jobs)
    assert runs.began.wait(PATIENCE)
    assert threads.backlog == len(wait)
    for job in jobs:
        job.release.set()
    loop.run_until(collected(*jobs))
    assert threads.backlog == 0


def test_a_job_that_blocks_holds_up_no_other(loop: Loop, pool: Any) -> None:
    threads = pool(2)
    slow = Job(held=True)
    quick = [Job() for _ in range(20)]
    submit(loop, threads, slow, *quick)
    loop.run_until(collected(*quick))
    assert slow.began.is_set()
    assert not slow.done
    slow.release.set()
    loop.run_until(collected(slow))


def test_results_are_told_while_the_next_job_blocks(loop: Loop, pool: Any) -> None:
    """Also where there is no thread left that could tell it."""
    for limit in (1, 2, 3):
        threads = pool(limit)
        quick, slow, waiting = Job(), Job(held=True), Job()
        submit(loop, threads, quick, slow, waiting)
        loop.run_until(collected(quick))
        assert slow.began.wait(PATIENCE)
        assert not slow.done
        slow.release.set()
        loop.run_until(collected(waiting, slow))


def test_jobs_that_block_run_side_by_side_up_to_the_limit(loop: Loop, pool: Any) -> None:
    threads = pool(3)
    jobs = [Job(held=True) for _ in range(5)]
    submit(loop, threads, *jobs)
    for job in jobs[:3]:
        assert job.began.wait(PATIENCE)
    assert threads.count == 3
    assert not jobs[3].began.is_set()
    jobs[1].release.set()
    assert jobs[3].began.wait(PATIENCE)
    assert not jobs[4].began.is_set()
    for job in jobs:
        job.release.set()
    loop.run_until(collected(*jobs))
    assert threads.count == 3


def test_jobs_come_in_their_order(loop: Loop, pool: Any) -> None:
    seen: list[int] = []
    jobs = [Job(action=partial(seen.append, number)) for number in range(50)]
    submit(loop, pool(1), *jobs)
    loop.run_until(collected(*jobs))
    assert seen == list(range(50))


def test_a_job_that_waits_can_be_withdrawn_and_one_that_runs_cannot(loop: Loop, pool: Any) -> None:
    threads = pool(1)
    runs, waits, new = Job(held=True), Job(), Job()
    submit(loop, threads, runs, waits)
    assert runs.began.wait(PATIENCE)
    threads.submit(new)
    assert not threads.withdraw(runs)
    assert threads.withdraw(waits)
    assert threads.withdraw(new)
    assert not threads.withdraw(waits)
    runs.release.set()
    loop.run_until(collected(runs))
    assert not waits.began.is_set()
    assert not new.began.is_set()


def test_a_post_is_collected_while_the_job_goes_on(loop: Loop, pool: Any) -> None:
    for now in (False, True):
        for limit in (1, 2):
            threads = pool(limit)
            go = threading.Event()
            job = Job()
            job.action = partial(post_and_wait, threads, job, now, go)
            submit(loop, threads, job)
            loop.run_until(collected(job))
            assert not job.done
            go.set()
            loop.run_until(partial(collected_twice, job))


def test_each_job_has_context_variables_of_its_own(loop: Loop) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("the server's")
    threads = Threads(loop, 1)
    variable.set("of another request")
    seen: list[str] = []

    def look() -> None:
        seen.append(variable.get())
        variable.set("changed")

    jobs = [Job(action=look) for _ in range(2)]
    submit(loop, threads, *jobs)
    loop.run_until(collected(*jobs))
    threads.stop()
    assert seen == ["the server's"] * 2


def test_stop_ends_idle_threads_before_it_returns(loop: Loop) -> None:
    before = set(threading.enumerate())
    threads = Threads(loop, 3)
    jobs = [Job(held=True) for _ in range(3)]
    submit(loop, threads, *jobs)
    for job in jobs:
        assert job.began.wait(PATIENCE)
        job.release.set()
    loop.run_until(collected(*jobs))
    threads.stop()
    assert threads.count == 0
    assert set(threading.enumerate()) == before


def test_stop_waits_for_a_thread_whose_results_the_loop_has(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another thread may have told the loop, before the first one had its turn again."""
    go = threading.Event()
    appended = threading.Event()
    join = threading.Thread.join

    class Results(deque[Any]):
        def append(self, job: Any) -> None:
            super().append(job)
            appended.set()
            assert go.wait(PATIENCE)

    def note(thread: threading.Thread, timeout: float | None = None) -> None:
        go.set()
        join(thread, timeout)

    threads = Threads(loop, 1)
    threads._results = Results()
    submit(loop, threads, Job())
    assert appended.wait(PATIENCE)
    monkeypatch.setattr(threading.Thread, "join", note)
    threads.stop()
    go.set()
    assert threads.count == 0
    assert caplog.records == []


def test_stop_leaves_a_thread_that_is_in_a_job_behind_and_says_so(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    threads = Threads(loop, 2)
    job, never = Job(held=True), Job()
    submit(loop, threads, job)
    assert job.began.wait(PATIENCE)
    threads.stop()
    assert threads.stopped
    assert "1 threads stay behind" in caplog.text
    submit(loop, threads, never)
    assert job.thread is not None
    assert job.thread.daemon  # or the process could not end
    job.release.set()
    job.thread.join(PATIENCE)
    assert not job.thread.is_alive()
    assert not never.began.is_set()


def test_many_starts_and_stops_leave_no_thread(loop: Loop) -> None:
    before = set(threading.enumerate())
    for _ in range(200):
        threads = Threads(loop, 4)
        jobs = [Job() for _ in range(3)]
        submit(loop, threads, *jobs)
        loop.run_until(collected(*jobs))
        threads.stop()
    assert set(threading.enumerate()) == before


def test_a_loop_that_has_ended_ends_the_threads(loop: Loop, monkeypatch: Any) -> None:
    threads = Threads(loop, 2)
    job = Job(held=True)
    submit(loop, threads, job)
    assert job.began.wait(PATIENCE)

    def closed(callback: object) -> None:
        raise RuntimeError("Event loop is closed")

    monkeypatch.setattr(loop, "call_soon_threadsafe", closed)
    job.release.set()
    assert job.thread is not None
    job.thread.join(PATIENCE)
    assert not job.thread.is_alive()


def test_where_no_thread_can_be_started_it_is_tried_again(
    loop: Loop, pool: Any, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    threads = pool(2)
    job = Job()

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        submit(loop, threads, job)
    assert "can't start new thread" in caplog.text
    assert threads.count == 0
    loop.advance(1.0)
    loop.run_until(collected(job))


def test_that_no_thread_can_be_started_is_said_once_and_those_there_do_the_work(
    loop: Loop, pool: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    threads = pool(10**30)
    first = Job()
    submit(loop, threads, first)
    loop.run_until(collected(first))
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def crowd() -> list[Job]:
        jobs = [Job(held=number == 0) for number in range(20)]
        for job in jobs:
            submit(loop, threads, job)
        jobs[0].release.set()
        loop.run_until(collected(*jobs))
        return jobs

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert {job.thread for job in crowd()} == {first.thread}
    assert [record.getMessage() for record in caplog.records] == [
        "a thread cannot be started, 1 run: can't start new thread"
    ]
    monkeypatch.setattr(threading.Thread, "start", start)
    jobs = [Job(held=True) for _ in range(2)]
    submit(loop, threads, *jobs)
    for job in jobs:
        assert job.began.wait(PATIENCE)
        job.release.set()
    loop.run_until(collected(*jobs))
    assert threads.count == 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_nothing_is_left_lying_whatever_the_threads_do(loop: Loop, pool: Any, limit: int) -> None:
    threads = pool(limit)
    jobs: list[Job] = []
    for round_ in range(60):
        batch = [Job(held=number % 5 == 0) for number in range(1 + round_ % 7)]
        submit(loop, threads, *batch)
        for job in batch:
            job.release.set()
        jobs += batch
    loop.run_until(collected(*jobs))
    assert all(job.collected == 1 for job in jobs)
