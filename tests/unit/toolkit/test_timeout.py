"""timeout: who has cancelled, and when. The loop's clock jumps to the next timer; nobody waits."""

from __future__ import annotations

import asyncio
import selectors
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.toolkit.timeout import timeout

if TYPE_CHECKING:
    from collections.abc import Coroutine

pytestmark = pytest.mark.filterwarnings("ignore:this timeout:DeprecationWarning")

both = pytest.mark.parametrize("sync", [False, True], ids=["async with", "with"])


class JumpingSelector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


def run(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)


async def within(block: timeout, body: Coroutine[Any, Any, Any], sync: bool) -> Any:
    if sync:
        with block as entered:
            assert entered is block
            return await body
    async with block as entered:
        assert entered is block
        return await body


async def forever() -> None:
    await asyncio.Event().wait()


def task_count(task: asyncio.Task[Any] | None) -> int:
    assert task is not None
    return task.cancelling()


@both
def test_a_block_that_ends_in_time_is_left_alone(sync: bool) -> None:
    async def main() -> None:
        block = timeout(10)
        assert await within(block, asyncio.sleep(9, "done"), sync) == "done"
        assert not block.expired
        await asyncio.sleep(100)
        assert not block.expired
        assert task_count(asyncio.current_task()) == 0

    run(main())


@both
def test_a_block_that_takes_too_long_ends_in_a_timeout_error(sync: bool) -> None:
    async def main() -> None:
        block = timeout(10)
        with pytest.raises(TimeoutError) as raised:
            await within(block, forever(), sync)
        assert isinstance(raised.value.__cause__, asyncio.CancelledError)
        assert block.expired
        assert asyncio.get_running_loop().time() == 10

    run(main())


@both
@pytest.mark.parametrize("seconds", [0, -1])
def test_without_time_the_block_ends_where_it_first_waits(seconds: float, sync: bool) -> None:
    async def main() -> None:
        began = []

        async def body() -> None:
            began.append(True)
            await asyncio.sleep(0)
            began.append(False)

        block = timeout(seconds)
        with pytest.raises(TimeoutError):
            await within(block, body(), sync)
        assert began == [True] and block.expired

        async def at_once() -> str:
            return "done"

        late = timeout(seconds)
        assert await within(late, at_once(), sync) == "done"
        await asyncio.sleep(1)  # nothing is left that could cancel now
        assert not late.expired

    run(main())


@both
def test_none_is_no_deadline(sync: bool) -> None:
    async def main() -> None:
        block = timeout(None)
        assert await within(block, asyncio.sleep(1e6, "done"), sync) == "done"
        assert block.remaining is None and not block.expired

    run(main())


def test_remaining_counts_down_to_nothing() -> None:
    async def main() -> None:
        assert timeout(10).remaining is None  # not begun
        block = timeout(10)
        async with block:
            assert block.remaining == 10
            await asyncio.sleep(4)
            assert block.remaining == 6
        await asyncio.sleep(10)
        assert block.remaining == 0

    run(main())


@both
def test_the_deadlines_cancellation_is_taken_back(sync: bool) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await within(timeout(1), forever(), sync)
        assert task_count(asyncio.current_task()) == 0
        # This one asks how often the task was cancelled, and would take the blame.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await forever()

    run(main())


@both
def test_a_task_cancelled_from_outside_stays_cancelled(sync: bool) -> None:
    async def main() -> None:
        block = timeout(10)
        task = asyncio.create_task(within(block, forever(), sync))
        await asyncio.sleep(1)
        task.cancel("from outside")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled() and not block.expired

    run(main())


@both
def test_a_cancellation_from_outside_at_the_deadline_wins(sync: bool) -> None:
    async def main() -> None:
        block = timeout(10)
        task = asyncio.create_task(within(block, forever(), sync))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(10, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled() and block.expired
        assert task.cancelling() == 1

    run(main())


def test_of_two_nested_deadlines_the_earlier_one_raises() -> None:
    async def main() -> None:
        outer, inner = timeout(5), timeout(10)
        with pytest.raises(TimeoutError):
            async with outer, inner:
                await forever()
        assert outer.expired and not inner.expired

        outer, inner = timeout(10), timeout(5)
        async with outer:
            with pytest.raises(TimeoutError):
                async with inner:
                    await forever()
            assert inner.expired and not outer.expired
            await asyncio.sleep(1)
        assert task_count(asyncio.current_task()) == 0

    run(main())


def test_an_error_of_the_block_passes() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with timeout(1):
                raise ZeroDivisionError
        swallowed = timeout(1)
        async with swallowed:
            with pytest.raises(asyncio.CancelledError):
                await forever()
        assert swallowed.expired
        assert task_count(asyncio.current_task()) == 0

    run(main())


def test_a_task_group_around_it_is_not_confused() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            other = group.create_task(asyncio.sleep(100, "whole"))
            with pytest.raises(TimeoutError):
                async with timeout(1):
                    await forever()
        assert other.result() == "whole"

    run(main())


def test_outside_a_loop_or_a_task_it_says_what_it_needs() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        timeout(1)

    async def main() -> None:
        failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def callback() -> None:
            with pytest.raises(RuntimeError) as raised, timeout(1):
                pass
            failed.set_result(str(raised.value))

        asyncio.get_running_loop().call_soon(callback)
        assert "in a task" in await failed

    run(main())


def test_making_one_warns_and_names_what_to_use_instead() -> None:
    async def main() -> None:
        with pytest.warns(DeprecationWarning, match=r"asyncio\.timeout\(\)") as warned:
            timeout(1)
        assert [warning.filename for warning in warned] == [__file__]
        with warnings.catch_warnings(record=True) as all_of_them:
            warnings.simplefilter("always")
            block = timeout(1, loop=asyncio.get_running_loop())
        assert [str(warning.message).split()[1] for warning in all_of_them] == ["timeout()", "loop"]
        with pytest.raises(TimeoutError):
            async with block:
                await forever()

    run(main())
