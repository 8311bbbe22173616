"""CurrentThreadExecutor: an executor that runs what is submitted in the thread that waits.

What this file alone decides: how a thread that waits for a coroutine lends itself to the
coroutine's thread-sensitive calls.

1. It belongs to the thread that made it; jobs come from other threads and run in `run_until_future`
   or `serve` alone, in order.
2. It ends when what is waited for is done and no job is left, both seen under the lock: a job is
   either taken or refused, never lost. One that ended hands jobs on to the executor that
   was current when it was made, and so on: to the nearest thread that still waits.
3. A forked child has but one thread. Executors from before the fork are ended there.
"""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from omnicorn.toolkit.threads import FutureJob, Job, bind

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CurrentThreadExecutor"]

P = ParamSpec("P")
R = TypeVar("R")


class CurrentThreadExecutor(Executor):
    """An executor for the current thread, which runs jobs while it waits.

    Args:
        old_executor: The one that was current before; it gets what comes when this one has ended.
    """

    def __init__(self, old_executor: CurrentThreadExecutor | None) -> None:
        self._old_executor = old_executor
        self._thread = threading.current_thread()
        self.ident = threading.get_ident()
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._ended = False
        self._accepted = 0
        self._completed = 0
        self._generation = _generation
        self.current: Job | None = None
        """What runs now."""
        self.on_job: Callable[[], None] | None = None
        """Called when a job comes from this very thread: its loop runs here and should give way."""

    def __repr__(self) -> str:
        return f"<thread {self._thread.name}>"

    def is_late(self) -> bool:
        """Whether the job that came last has to wait for others."""
        return self._accepted - self._completed > 1

    def has_more(self) -> bool:
        """Whether jobs wait for the thread."""
        return not self._queue.empty()

    def enqueue(self, job: Job) -> bool:
        """Run `job` in this executor's thread, or in that of the nearest one that still waits.

        Returns:
            Whether there was one.

        Raises:
            RuntimeError: it was called in the thread that should run the job.
        """
        executor: CurrentThreadExecutor | None = self
        while executor is not None:
            if executor._generation is _generation:
                with executor._lock:
                    if not executor._ended:
                        executor._accept(job)
                        return True
            executor = executor._old_executor
        return False

    def _accept(self, job: Job) -> None:
        job.worker = self
        self._accepted += 1
        if self.ident == threading.get_ident():
            if self.on_job is None:
                raise RuntimeError(
                    "You cannot submit onto CurrentThreadExecutor from its own thread: the thread"
                    " that should run the call is the one that waits for it"
                )
            self._queue.put(job)
            self.on_job()
        else:
            self._queue.put(job)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run `fn` in this executor's thread.

        Raises:
            RuntimeError: called in that thread, or nobody waits there any more.
        """
        job = FutureJob(bind(fn, args, kwargs))
        if not self.enqueue(job):
            raise RuntimeError("CurrentThreadExecutor already quit or is broken")
        return job.future

    def run_until_future(self, future: Future[Any]) -> None:
        """Run what is submitted until `future` is done and nothing is left.

        Raises:
            RuntimeError: called in a thread other than the one that made this.
        """
        if self.ident != threading.get_ident():
            raise RuntimeError("You cannot run CurrentThreadExecutor from a different thread")
        future.add_done_callback(lambda _: self.wake())
        self.serve(future.done)

    def wake(self) -> None:
        """Have `serve` look whether what it waits for is done."""
        self._queue.put(None)

    def serve(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Run what comes until `done()` and nothing is left, and end then.

        Args:
            done: Asked after `wake` and after every job.
            timeout: Seconds without anything to do after which to return; None: no end.

        Returns:
            Whether it is done.
        """
        get = self._queue.get
        while True:
            try:
                job = get(True, timeout)
            except Empty:
                return False
            if job is not None:
                before, self.current = self.current, job
                try:
                    job.run()
                finally:
                    self.current = before
                    self._completed += 1
                job.deliver()
                del job
            if done() and self._end():
                return True

    def _end(self) -> bool:
        with self._lock:
            self._ended = self._queue.empty()
            return self._ended

    def run_rest(self) -> None:
        """Run what is left, and end."""
        if not self._end():
            self.serve(lambda: True)

    def end(self) -> None:
        """Refuse jobs from now on, whatever is left."""
        with self._lock:
            self._ended = True


_generation = object()


def _on_fork() -> None:
    global _generation
    _generation = object()


def _register() -> None:
    import os

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_on_fork)


_register()
