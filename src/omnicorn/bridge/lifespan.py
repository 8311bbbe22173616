"""The application's lifespan (ASGI lifespan spec 2.0): start-up, state, shutdown.

What this file alone decides: what counts as support, and what as failure.

===================================  ==================  =====================
the application, before an answer    ``auto``            ``on``
===================================  ==================  =====================
``startup.complete``                 supported           supported
``startup.failed``                   `LifespanFailed`    `LifespanFailed`
raises                               not supported       `LifespanFailed`
returns                              not supported       `LifespanFailed`
===================================  ==================  =====================

After the start nothing it does stops the server: an early return or an exception ends the
lifespan (the exception is logged), and shutdown has nobody left to tell.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from omnicorn.errors import ASGIError, LifespanFailed

if TYPE_CHECKING:
    from omnicorn.bridge.cycle import Application
    from omnicorn.ports import Loop, Task, Waiter

logger = logging.getLogger("omnicorn.lifespan")


class Lifespan:
    """One application's lifespan in one event loop.

    Args:
        app: The ASGI 3 application.
        loop: The loop port.
        mode: ``"auto"``, ``"on"`` or ``"off"``.

    Attributes:
        state: The namespace the application fills; None where it does not take part.
    """

    def __init__(self, app: Application, loop: Loop, mode: str = "auto") -> None:
        self._app = app
        self._loop = loop
        self._mode = mode
        self._task: Task | None = None
        self._events: list[str] = ["lifespan.startup"]
        self._answers: dict[str, str] = {}
        self._began = False
        self._over = mode == "off"
        self._error: BaseException | None = None
        self._asked: Waiter | None = None
        self._waiters: list[Waiter] = []
        self.state: dict[str, Any] | None = None

    @property
    def is_starting(self) -> bool:
        """The application has not answered whether it starts."""
        return not self._over and not self._answers

    async def startup(self) -> None:
        """Start the application.

        Raises:
            LifespanFailed: The application cannot start; the message is its own.
        """
        if self._over:
            return
        self.state = {}
        self._task = self._loop.spawn(self._run())
        await self._answer("startup")
        if "startup.complete" in self._answers:
            return
        failure = self._answers.get("startup.failed")
        if failure is not None:
            raise LifespanFailed(failure or "the application's startup failed") from self._error
        self.state = None
        if self._mode == "on":
            error = self._error
            raise LifespanFailed(
                "the application returned from its lifespan before startup was complete"
                if error is None
                else f"the application's lifespan raised {type(error).__name__}: {error}"
            ) from error
        if self._error is not None:
            logger.debug("The application does not support lifespan: %r", self._error)

    async def settled(self) -> None:
        """Wait until the application has answered whether it starts, or has ended."""
        while self.is_starting:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    async def shutdown(self) -> None:
        """Tell the application to stop, and wait until it has.

        Raises:
            LifespanFailed: The application reported that its shutdown failed.
        """
        if self._over:
            return
        self._events.append("lifespan.shutdown")
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)
        await self._answer("shutdown")
        failure = self._answers.get("shutdown.failed")
        if failure is not None:
            raise LifespanFailed(failure or "the application's shutdown failed") from self._error

    def cancel(self) -> None:
        """Give up waiting for the application: cancel its lifespan."""
        if self._task is not None and not self._over:
            self._task.cancel()
            if not self._began:
                self.abandon()  # cancelled before its first step, a task never gets to `_run`

    def abandon(self) -> None:
        """Wait no longer, not even for the end of what was cancelled."""
        self._over = True
        self._notify()

    async def _answer(self, phase: str) -> None:
        done = (f"{phase}.complete", f"{phase}.failed")
        while not self._over and not any(answer in self._answers for answer in done):
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    async def _run(self) -> None:
        self._began = True
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as exc:
            self._error = exc
            if "startup.complete" in self._answers:
                logger.error("The application's lifespan raised an exception", exc_info=exc)
        finally:
            self._over = True
            self._notify()

    async def _receive(self) -> dict[str, Any]:
        while not self._events:
            self._asked = self._loop.create_future()
            await self._asked
        return {"type": self._events.pop(0)}

    async def _send(self, event: dict[str, Any]) -> None:
        try:
            kind = event["type"]
        except (TypeError, KeyError):
            raise ASGIError(f"a message is a dict with a 'type', not {event!r:.80}") from None
        phase = "shutdown" if "startup.complete" in self._answers else "startup"
        if kind not in (f"lifespan.{phase}.complete", f"lifespan.{phase}.failed"):
            raise ASGIError(f"the message {kind!r:.80} cannot be sent during lifespan {phase}")
        self._answers[kind.removeprefix("lifespan.")] = str(event.get("message", ""))
        self._notify()

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
