"""Threads: the workers that run sync code, and who may have one.

What this file alone decides: when a thread is started, kept, lent and ended, and how many calls run
at once. It knows jobs, not loops.

1. A worker is a thread with a queue of its own. An idle worker waits in the pool, the last one used
   first; after `IDLE` seconds it ends. Nothing else starts threads, so none is started per call.
2. A worker is lent to one borrower at a time: for one job, to a `StickyExecutor` (whose jobs
   all run in that thread, in order) or to a loop. It comes back when its last job has ended.
   Two sticky executors therefore never share a thread at the same time.
3. A worker is idle again before the one who waits for its job learns that it has ended: whoever
   calls next finds it.
4. The limit counts jobs that run, not threads. A job that is parked, because it waits in
   `async_to_sync` for a coroutine, gives its place away and takes it back without waiting. So jobs
   that wait for other jobs cannot use up the limit. What is over it waits in order.
5. Jobs end before the interpreter does, as those of `concurrent.futures`. In a forked child all
   workers are gone; executors take new ones.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from concurrent.futures import Executor, Future
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "IDLE",
    "Job",
    "StickyExecutor",
    "ThreadStatistics",
    "Worker",
    "set_thread_limit",
    "thread_statistics",
]

P = ParamSpec("P")
R = TypeVar("R")

IDLE = 30.0
"""Seconds after which an idle worker ends."""

DEFAULT_LIMIT: Final = min(32, (os.cpu_count() or 1) + 4)
"""As many calls with ``thread_sensitive=False`` run at once; that of asyncio's own executor."""


class Job:
    """What a worker runs. `run` and `deliver` must not raise."""

    __slots__ = ("_counted", "worker")

    _counted: bool
    worker: Any
    """The thread where it runs or waits: a `Worker` or a `CurrentThreadExecutor`."""

    def __init__(self) -> None:
        self._counted = False
        self.worker = None

    def run(self) -> None:
        """Do the work and keep its outcome."""
        raise NotImplementedError

    def deliver(self) -> None:
        """Tell who waits, when the worker is free again."""
        raise NotImplementedError

    def describe(self) -> str:
        """What runs, for messages."""
        return repr(self)


class FutureJob(Job):
    """Work whose outcome goes to a future of `concurrent.futures`."""

    __slots__ = ("_error", "_value", "_work", "future")

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self.future: Future[Any] = Future()
        self._work: Callable[[], Any] | None = work
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        work, self._work = self._work, None
        if work is None or not self.future.set_running_or_notify_cancel():
            return
        try:
            self._value = work()
        except BaseException as error:
            self._error = error

    def deliver(self) -> None:
        future, error = self.future, self._error
        self._error = None
        if future.cancelled():
            return
        if error is None:
            future.set_result(self._value)
        else:
            future.set_exception(error)

    def describe(self) -> str:
        return f"a job submitted to {self.worker!r}"


def bind(work: Callable[P, R], args: Any, kwargs: Any) -> Callable[[], R]:
    return lambda: work(*args, **kwargs)


class Worker:
    """A thread and its queue."""

    __slots__ = (
        "_pool",
        "_queue",
        "_thread",
        "completed",
        "current",
        "dead",
        "parked",
        "put",
        "shared",
    )

    def __init__(self, pool: Pool, number: int) -> None:
        self._pool = pool
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self.put = self._queue.put
        self.current: Job | None = None
        """What runs now."""
        self.completed = 0
        """Jobs done since the thread was started; written by the thread alone."""
        self.shared = True
        """Whether it goes back to the pool after each job."""
        self.parked = False
        """Whether its job waits for a coroutine."""
        self.dead = False
        self._thread = threading.Thread(target=self._serve, name=f"omnicorn-sync-{number}")

    def __repr__(self) -> str:
        return f"<thread {self._thread.name}>"

    @property
    def ident(self) -> int | None:
        return self._thread.ident

    def has_more(self) -> bool:
        """Whether jobs wait for it."""
        return not self._queue.empty()

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _serve(self) -> None:
        here.worker = self
        get = self._queue.get
        pool = self._pool
        while not self.dead:
            try:
                job = get(True, IDLE)
            except Empty:
                if pool.retire(self):
                    return
                continue
            if job is None:
                if pool.leave(self):
                    return
                self.put(None)  # after the job that is on its way
                continue
            if pool.limits_all and not job._counted:
                pool.enter(job)
            self.current = job
            job.run()
            self.current = None
            # Before it counts: who sees that all of a lease is done may then give the worker back.
            shared = self.shared
            self.completed += 1
            if shared or job._counted:
                pool.on_done(self, job, shared)
            job.deliver()
            # What the job holds must not live until the next one comes.
            del job


class _Here(threading.local):
    worker: Worker | None = None


here: Final = _Here()
"""`here.worker` is the worker whose thread this is."""


class ThreadStatistics(NamedTuple):
    """What `thread_statistics` returns."""

    threads: int
    """Workers that live."""
    idle: int
    """Of those, how many are free."""
    running: int
    """Jobs that count for the limit: they run and are not parked."""
    waiting: int
    """Jobs that wait because of the limit."""
    parked: int
    """Jobs that wait in `async_to_sync` for a coroutine."""
    started: int
    """Workers started since the process began."""
    limit: int
    """How many jobs may run at once."""


class Pool:
    """All workers of the process."""

    def __init__(self) -> None:
        self.reset()
        self._started = 0
        self._closed = False
        self.limit = DEFAULT_LIMIT
        self.limits_all = False
        """Whether sticky executors' jobs count, too."""

    def reset(self) -> None:
        """Forget all workers, in a child that has only the thread that forked."""
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._workers: set[Worker] = set()
        self._waiting: deque[Job | threading.Lock] = deque()
        self._running = 0
        self._parked = 0

    def on_fork(self) -> None:
        for worker in self._workers:
            worker.dead = True
        self.reset()

    def statistics(self) -> ThreadStatistics:
        with self._lock:
            return ThreadStatistics(
                threads=len(self._workers),
                idle=len(self._idle),
                running=self._running,
                waiting=len(self._waiting),
                parked=self._parked,
                started=self._started,
                limit=self.limit,
            )

    def set_limit(self, limit: int | None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"the thread limit is {limit}; it must be at least 1, or None")
        with self._lock:
            self.limit = DEFAULT_LIMIT if limit is None else limit
            self.limits_all = limit is not None
            self._admit()

    def submit(self, job: Job) -> None:
        """Run `job` in any worker."""
        with self._lock:
            if self._running >= self.limit:
                self._waiting.append(job)
                return
            self._running += 1
            try:
                worker = self._take()
            except BaseException:
                self._running -= 1
                raise
        job._counted = True
        job.worker = worker
        worker.put(job)

    def enter(self, job: Job) -> None:
        """Count `job`, which is about to run in this thread; wait for its turn."""
        with self._lock:
            job._counted = True
            if self._running < self.limit:
                self._running += 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def lend(self, job: Job) -> None:
        """Run `job` in any worker, whatever the limit."""
        with self._lock:
            worker = self._take()
        job.worker = worker
        worker.put(job)

    def take(self) -> Worker:
        """Lend a worker, until it is given back."""
        with self._lock:
            worker = self._take()
            worker.shared = False
            return worker

    def give_back(self, worker: Worker) -> None:
        """Give back a worker that has nothing to do."""
        with self._lock:
            worker.shared = True
            if not worker.dead:
                self._idle.append(worker)

    def _take(self) -> Worker:
        if self._idle:
            return self._idle.pop()
        if self._closed:
            raise RuntimeError("sync code cannot be called: the interpreter is shutting down")
        worker = Worker(self, self._started + 1)
        # With nothing of this Context, which free-threaded Python hands to a thread (from 3.14 on):
        # the worker outlives what is in it, and is lent to others.
        Context().run(worker.start)
        self._started += 1
        self._workers.add(worker)
        return worker

    def retire(self, worker: Worker) -> bool:
        with self._lock:
            try:
                self._idle.remove(worker)
            except ValueError:
                return worker.dead  # lent, or just taken
            self._workers.discard(worker)
            return True

    def leave(self, worker: Worker) -> bool:
        """Whether `worker`, which was told to end, may: not if a job was just given to it."""
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
                return True
            return worker.dead or not worker.shared

    def on_done(self, worker: Worker, job: Job, shared: bool) -> None:
        """`job` has ended in `worker`, which was nobody's if `shared`."""
        with self._lock:
            if worker.dead:
                return
            if shared:
                self._idle.append(worker)
            if job._counted:
                self._running -= 1
                self._admit()

    def _admit(self) -> None:
        while self._waiting and self._running < self.limit:
            first = self._waiting.popleft()
            if isinstance(first, Job):
                try:
                    worker = self._take()
                except RuntimeError:  # no thread can be started: those that live will do it
                    self._waiting.appendleft(first)
                    break
                first._counted = True
                first.worker = worker
                worker.put(first)
            else:
                first.release()
            self._running += 1

    def park(self) -> bool:
        """The job of this thread is about to wait for a coroutine: others may run.

        Returns:
            Whether `unpark` must follow.
        """
        worker = here.worker
        if worker is None or worker.dead or worker.parked:
            return False
        job = worker.current
        if job is None or not job._counted:
            return False
        with self._lock:
            worker.parked = True
            self._parked += 1
            self._running -= 1
            self._admit()
        return True

    def unpark(self) -> None:
        """The job of this thread goes on."""
        with self._lock:
            here.worker.parked = False  # type: ignore[union-attr]
            self._parked -= 1
            self._running += 1

    def close(self) -> None:
        """Let what runs and waits end, then the threads."""
        with self._lock:
            self._closed = True
            workers = tuple(self._workers)
        for worker in workers:
            worker.put(None)
        for worker in workers:
            worker.join()


pool: Final = Pool()
_at_end = getattr(threading, "_register_atexit", atexit.register)
# Non-daemon threads are joined before atexit's functions run: they must be told to end earlier, and
# concurrent.futures has but this way, too.
_at_end(pool.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.on_fork)


class StickyExecutor(Executor):
    """An executor with one thread, which it takes from the pool when first used.

    Differs from ``ThreadPoolExecutor(1)`` in that `shutdown` gives the thread back, not up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._base = 0
        self._sent = 0
        self._closed = False

    @property
    def current(self) -> Job | None:
        """What runs now."""
        worker = self._worker
        return None if worker is None else worker.current

    def enqueue(self, job: Job) -> bool:
        """Run `job` after all that came before.

        Returns:
            Whether it has to wait for that.
        """
        with self._lock:
            worker = self._worker
            if worker is None or worker.dead:
                if self._closed:
                    raise RuntimeError("cannot schedule new futures after shutdown")
                worker = self._worker = pool.take()
                self._base, self._sent = worker.completed, 0
            late = self._sent != worker.completed - self._base
            self._sent += 1
            job.worker = worker
            worker.put(job)
            return late

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As ``concurrent.futures.Executor.submit``."""
        job = FutureJob(bind(fn, args, kwargs))
        self.enqueue(job)
        return job.future

    def release(self, on_released: Callable[[], None]) -> bool:
        """Give the thread back, when it has nothing more to do.

        Args:
            on_released: Called in the thread when all jobs have ended, unless they had already.

        Returns:
            Whether they had already.
        """
        with self._lock:
            worker, self._worker = self._worker, None
            if worker is None or worker.dead:
                return True
            if worker.completed - self._base == self._sent:
                pool.give_back(worker)
                return True
            worker.put(_Release(worker, on_released))
            return False

    def __del__(self) -> None:
        # Perhaps from within the pool: a SimpleQueue may be put to even then, a lock not be taken.
        worker = self._worker
        if worker is not None and not worker.dead:
            worker.put(_Release(worker, _nothing))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more and give the thread back, after what was submitted."""
        self._closed = True
        done = threading.Event()
        if not self.release(done.set) and wait:
            done.wait()


def _nothing() -> None:
    pass


class _Release(Job):
    """The last job of a lease."""

    __slots__ = ("_on_released", "_worker")

    def __init__(self, worker: Worker, on_released: Callable[[], None]) -> None:
        super().__init__()
        self._worker = worker
        self._on_released = on_released

    def run(self) -> None:
        self._worker.shared = True  # the pool gets it when this job has ended

    def deliver(self) -> None:
        self._on_released()


def set_thread_limit(limit: int | None) -> None:
    """Say how many sync calls may run at once in the threads of this process.

    Calls over the limit wait in order. One that waits in `async_to_sync` does not count
    meanwhile. A thread that is kept for a `ThreadSensitiveContext` between its calls lives on, but
    does not count either. Executors that callers bring have limits of their own.

    Args:
        limit: At least 1. None, the default: calls with ``thread_sensitive=False`` are
            limited to the number of CPUs and four, 32 at most; others are not.

    Raises:
        ValueError: `limit` is less than 1.
    """
    pool.set_limit(limit)


def thread_statistics() -> ThreadStatistics:
    """Counters of this process's worker threads, as they are now."""
    return pool.statistics()
