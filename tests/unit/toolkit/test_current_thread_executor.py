from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from omnicorn.toolkit.current_thread_executor import CurrentThreadExecutor

WAIT = 5.0


def in_thread(work: Any) -> Any:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result(WAIT)


def finished(old: CurrentThreadExecutor | None = None) -> CurrentThreadExecutor:
    executor = CurrentThreadExecutor(old)
    done: Future[None] = Future()
    done.set_result(None)
    executor.run_until_future(done)
    return executor


def test_what_is_submitted_runs_in_the_thread_that_waits() -> None:
    executor = CurrentThreadExecutor(None)

    def other() -> int:
        return executor.submit(threading.get_ident).result(WAIT)

    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(other)
        executor.run_until_future(future)
    assert future.result() == threading.get_ident()


def test_submitting_from_its_own_thread_is_refused() -> None:
    with pytest.raises(RuntimeError, match="from its own thread"):
        CurrentThreadExecutor(None).submit(int)


def test_waiting_in_another_thread_is_refused() -> None:
    executor = CurrentThreadExecutor(None)

    with pytest.raises(RuntimeError, match="from a different thread"):
        in_thread(lambda: executor.run_until_future(Future()))


def test_all_that_was_submitted_runs_although_the_future_is_done() -> None:
    executor = CurrentThreadExecutor(None)
    ran: list[int] = []
    done: Future[None] = Future()
    done.set_result(None)
    in_thread(lambda: [executor.submit(ran.append, number) for number in range(3)])

    executor.run_until_future(done)
    assert ran == [0, 1, 2]


def test_a_finished_one_refuses() -> None:
    executor = finished()

    with pytest.raises(RuntimeError, match="already quit or is broken"):
        in_thread(lambda: executor.submit(int))


def test_a_finished_one_hands_on_to_the_nearest_that_waits() -> None:
    waiting = CurrentThreadExecutor(None)
    executor = finished(finished(waiting))
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(lambda: executor.submit(threading.get_ident).result(WAIT))
        waiting.run_until_future(future)

    assert future.result() == threading.get_ident()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_errors_of_all_kinds_go_to_the_future(error: type[BaseException]) -> None:
    executor = CurrentThreadExecutor(None)

    def fail() -> None:
        raise error

    def other() -> type[BaseException]:
        found = executor.submit(fail).exception(WAIT)
        assert found is not None
        return type(found)

    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(other)
        executor.run_until_future(future)
    assert future.result() is error
