"""Threads for code that blocks: which of them runs a job, and when the event loop hears of it.

What this file alone decides: who is woken, and when. A job is anything with two methods: ``work``
runs in a thread, once; ``collect`` runs in the event loop, after ``work`` and whenever the job
`Threads.post`\\ s itself, and takes what is there by then.

To wake a thread, or the loop, costs more than to run a short job. With the interpreter's lock one
thread runs at a time anyway, so that one is enough for many short jobs. But a job may block.

1. Jobs are handed out at the end of the loop's iteration, all that came in it.
2. While a thread works and there is something left to do (a job nobody has, a result the loop has
   not heard of), a second thread is awake: it gets its turn at the moment in which the first one
   blocks, or after the interpreter's switch interval. It takes the next job, and tells the loop.
   If there is no such thread, as all are occupied, the loop is told at once.
3. The loop is told once for all results there are; a thread that has nothing left to do tells it.
4. A thread is started when it is needed and none is idle, up to the limit. It stays until `stop`.

A ``deque`` is the meeting point, and ``append`` before looking at a flag meets clearing the flag
before looking into the ``deque``: nothing is left lying, without a lock.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnicorn.ports import Loop

__all__ = ["Threads"]

logger = logging.getLogger("omnicorn.error")

_JOIN = 1.0
"""Seconds that threads without a job get to end, all together."""
_RETRY = 1.0
"""Seconds until a thread is asked for again, if the system gave none."""


class _Worker:
    """A thread, the lock it waits at (held while it waits), and whether it is within a job."""

    __slots__ = ("at_work", "lock", "thread")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.at_work = False
        self.thread: threading.Thread


class Threads:
    """A bounded pool of threads that serves one event loop.

    Each job runs in a fresh copy of the context variables that are set here and now.

    Args:
        loop: The event loop's port.
        limit: Threads at most.

    Attributes:
        limit: The same.
    """

    def __init__(self, loop: Loop, limit: int) -> None:
        self._loop = loop
        self.limit = limit
        self._context = contextvars.copy_context()
        self._new: list[Any] = []  # this iteration's jobs
        self._jobs: deque[Any] = deque()
        self._results: deque[Any] = deque()
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._starting = threading.Lock()
        self._calling = False  # a thread was woken and has not had its turn
        self._told = False  # the loop was woken and has not had its turn
        self._refused = False  # the system gave no thread, the last time
        self._stopping = False

    @property
    def count(self) -> int:
        """Threads that exist."""
        return len(self._workers)

    @property
    def backlog(self) -> int:
        """Jobs that no thread has taken."""
        return len(self._jobs)

    @property
    def stopped(self) -> bool:
        """The event loop has ended, or `stop` was called: nobody answers a thread."""
        return self._stopping

    # ------------------------------------------------------------------ in the event loop

    def submit(self, job: Any) -> None:
        """Run a job as soon as a thread is free."""
        if not self._new:
            self._loop.call_soon(self._hand_out)
        self._new.append(job)

    def withdraw(self, job: Any) -> bool:
        """Take a job back; False: it runs, or has run."""
        queue: Any
        for queue in (self._new, self._jobs):
            try:
                queue.remove(job)
            except ValueError:
                continue
            return True
        return False

    def stop(self) -> None:
        """End all threads; one that is within a job ends after it, and is not waited for."""
        self._stopping = True
        deadline = time.monotonic() + _JOIN
        for worker in tuple(self._workers):
            self._release_idle()
            if not worker.at_work:
                worker.thread.join(max(0.0, deadline - time.monotonic()))
        left = self.count
        if left:
            logger.warning("%d threads stay behind in requests that were given up", left)

    def _release_idle(self) -> None:
        while self._idle:
            self._idle.pop().lock.release()

    def _hand_out(self) -> None:
        jobs, self._new = self._new, []
        self._jobs.extend(jobs)
        if not self._calling and not self._call() and not self._workers and self._jobs:
            self._loop.call_at(self._loop.time() + _RETRY, self._hand_out)

    def _collect(self) -> None:
        self._told = False
        take = self._results.popleft
        while True:
            try:
                job = take()
            except IndexError:
                return
            job.collect()

    # ------------------------------------------------------------------ in the threads

    def post(self, job: Any, now: bool = False) -> None:
        """Have ``job.collect`` called.

        Args:
            job: The one that this thread is working at.
            now: The thread is about to wait for it.
        """
        self._results.append(job)
        if now:
            if not self._told:
                self._tell()
        elif not self._calling and not self._told and not self._call():
            self._tell()

    def _tell(self) -> None:
        self._told = True
        try:
            self._loop.call_soon_threadsafe(self._collect)
        except RuntimeError:  # the loop has ended, and nobody is left to be told
            self._stopping = True

    def _call(self) -> bool:
        """Wake an idle thread, or start one; False: there is none."""
        try:
            worker = self._idle.pop()
        except IndexError:
            return self._start()
        self._calling = True
        worker.lock.release()
        return True

    def _start(self) -> bool:
        with self._starting:
            number = len(self._workers) + 1
            if number > self.limit or self._stopping:
                return False
            worker = _Worker()
            worker.thread = threading.Thread(
                target=self._work, args=(worker,), name=f"omnicorn-wsgi-{number}", daemon=True
            )
            self._calling = True
            self._workers.add(worker)
            try:
                worker.thread.start()
            except RuntimeError as error:
                self._calling = False
                self._workers.discard(worker)
                if not self._refused:  # it may go on so, with each request
                    self._refused = True
                    logger.error("a thread cannot be started, %d run: %s", number - 1, error)
                return False
            self._refused = False
            return True

    def _work(self, worker: _Worker) -> None:
        jobs = self._jobs
        results = self._results
        copy = self._context.copy
        try:
            while True:
                self._calling = False
                if results and not self._told:
                    self._tell()  # the one that called has blocked
                while not self._stopping:
                    try:
                        job = jobs.popleft()
                    except IndexError:
                        break
                    worker.at_work = True
                    if (
                        (jobs or (results and not self._told))
                        and not self._calling
                        and not self._call()
                        and results
                        and not self._told
                    ):
                        self._tell()
                    copy().run(job.work)
                    worker.at_work = False  # first: once the loop has all results, it may `stop`
                    results.append(job)
                    job = None  # not kept by a thread that waits
                if results and not self._told:
                    self._tell()
                self._idle.append(worker)
                if jobs or self._stopping:
                    # Whoever handed out meanwhile may not have seen this one.
                    try:
                        self._idle.remove(worker)
                    except ValueError:
                        pass  # it was seen, and called
                    else:
                        if self._stopping:
                            return
                        continue
                worker.lock.acquire()
                if self._stopping:
                    return
        finally:
            self._workers.discard(worker)
