"""timeout: a deadline for a block of code, for who knows it from asgiref; deprecated, as there.

What this file alone decides: who has cancelled the task. A deadline and a cancellation from outside
may come at once; only if nobody else asked (``Task.uncancel``) does the block end in a
TimeoutError. A cancellation by the deadline is taken back, so that ``asyncio.timeout`` and task
groups around this one see none.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["timeout"]


class timeout:
    """``async with`` or ``with`` this, a block of a task ends in a TimeoutError after a time.

    Deprecated: ``asyncio.timeout()`` does the same, for ``async with``.

    Args:
        timeout: Seconds; at 0 or below the block ends where it first waits; None: no deadline.
        loop: Deprecated; the running loop if not given.

    Raises:
        RuntimeError: There is no running loop; or, on entering, no task.
    """

    def __init__(
        self, timeout: float | None, *, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        warnings.warn(
            "this timeout() is deprecated, as asgiref's is; use asyncio.timeout() instead",
            DeprecationWarning,
            stacklevel=2,
        )
        if loop is None:
            loop = asyncio.get_running_loop()
        else:
            warnings.warn(
                "the loop argument of timeout() is deprecated; leave it out, it is the running one",
                DeprecationWarning,
                stacklevel=2,
            )
        self._timeout = timeout
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._deadline: float | None = None
        self._timer: asyncio.Handle | None = None
        self._expired = False

    @property
    def expired(self) -> bool:
        """Whether the time was up before the block ended."""
        return self._expired

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0; None if there is none (yet)."""
        if self._deadline is None:
            return None
        return max(self._deadline - self._loop.time(), 0.0)

    def __enter__(self) -> timeout:
        if self._timeout is None:
            return self
        task = self._task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("timeout() can only be entered in a task: it cancels that task")
        self._cancelling = task.cancelling()
        if self._timeout <= 0:
            self._timer = self._loop.call_soon(self._expire)
        else:
            self._deadline = self._loop.time() + self._timeout
            self._timer = self._loop.call_at(self._deadline, self._expire)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, timer = self._task, self._timer
        self._task = self._timer = None
        if timer is not None:
            timer.cancel()
        if (
            task is not None
            and self._expired
            and task.uncancel() <= self._cancelling
            and isinstance(exc, asyncio.CancelledError)
        ):
            raise TimeoutError from exc

    async def __aenter__(self) -> timeout:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def _expire(self) -> None:
        if self._task is not None:
            self._expired = True
            self._task.cancel()
