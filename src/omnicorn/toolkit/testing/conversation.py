"""The test's side of one scope: what it gives the application, what it waits for, what it is told.

What this file alone decides: how an application's doings become an explanation. A test that
waits for an event and does not get it learns what came instead: another event, the
application's return, its exception (chained), or that it still waits, and where.

::

    the test ──inbox──▶ receive()  application
             ◀─outbox── send()

1. `receive` gives the inbox, then the last word (a disconnect) as often as it is asked.
2. `send` waits while `AHEAD` events are not taken, as with a client that does not read; it raises
   `ClientDisconnected` once the client is gone.
3. An exception of the application is reported once: by the wait that it ended, or at the end.
4. The client's leaving is none: `ClientDisconnected`, and what was raised from it. A framework
   may raise its own instead, once the application was told that the client left; that goes by the
   names they have for it. A server, which only decides what to log, can be generous with names; a
   test that passes because of an error's name hides the error.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from omnicorn.toolkit.testing.tasks import new_task

if TYPE_CHECKING:
    from types import TracebackType

    from omnicorn.toolkit.compatibility import SingleCallable
    from omnicorn.toolkit.testing.tasks import Task

    Event = dict[str, Any]

AHEAD = 64
"""Events an application may be ahead of the test."""

TIMEOUT = 5.0
"""Seconds a test waits for an event by default."""


_LEAVING = ("clientdisconnect", "websocketdisconnect")
"""How the names of frameworks' exceptions begin, in lower case, that say that the client left."""


class CommunicatorError(AssertionError):
    """The application did something else than the test asked for; its exception is the cause."""


class CommunicatorTimeout(CommunicatorError, TimeoutError):
    """The application did not do it in time."""


class ClientDisconnected(OSError):
    """Raised out of the application's ``send()``: the client has gone."""


class Communicator:
    """One scope's conversation; what `HTTPCommunicator` and the others share.

    As an async context manager it starts the application, and at the end of the block lets the
    client leave, waits for the application to return and reports how it failed; after an
    exception of the block it is cancelled at once.

    Args:
        app: An ASGI 3 application.
        scope: The scope to call it with.
        timeout: Seconds to wait for each event and, in the end, for the application's return.

    Attributes:
        scope: The scope; may be changed before the application starts.
    """

    def __init__(self, app: SingleCallable, scope: Event, timeout: float) -> None:
        self.scope = scope
        self._app = app
        self._timeout = timeout
        self._task: Task | None = None
        self._inbox: deque[Event] = deque()
        self._last: Event | None = None
        self._outbox: deque[Event] = deque()
        self._gone = ""
        self._left = False  # by the test's doing
        self._told = False
        self._receiving = 0
        self._reported = False

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self._finish()
        else:
            await self.cancel()

    async def cancel(self) -> None:
        """Cancel the application, whatever it does.

        Raises:
            CommunicatorTimeout: It does not end.
        """
        task = self._start()
        self._reported = True
        if not task.done:
            await task.cancel(self._timeout)
        if not task.done:
            raise CommunicatorTimeout(
                f"the application was cancelled and still runs {self._timeout} s later; "
                "let CancelledError (trio: Cancelled) through"
            )

    # ------------------------------------------------------------------ the test

    def _start(self) -> Task:
        if self._task is None:
            self._task = new_task()
            self._task.start(self._main)
        return self._task

    async def _main(self) -> None:
        await self._app(self.scope, self._receive, self._send)

    def _tell(self, event: Event) -> None:
        """Give the application an event; what comes after the last word is lost."""
        if self._last is None:
            self._inbox.append(event)
        self._start().wake()

    def _check_there(self) -> None:
        """Before the client says something.

        Raises:
            RuntimeError: The test has let it leave.
        """
        if self._left:
            raise RuntimeError("the client has left; let it say this before it does")

    def _leave(self, event: Event, gone: str = "the client has disconnected") -> None:
        """The client is gone: *event* is the last that the application receives."""
        if self._last is None:
            self._last = event
        self._gone = self._gone or gone
        self._start().wake()

    def _goodbye(self) -> None:
        """Let the client leave at the end of the test."""
        raise NotImplementedError

    async def _finish(self) -> None:
        self._goodbye()
        try:
            await self._return("after the client had left")
        finally:
            await self.cancel()

    async def _return(self, when: str) -> None:
        """Wait for the application's return.

        Raises:
            CommunicatorTimeout: It does not.
            CommunicatorError: It raised, and the test does not know yet.
        """
        task = self._start()
        if not await task.until(lambda: task.done, self._timeout):
            raise CommunicatorTimeout(
                f"the application did not return within {self._timeout} s {when}: {self._busy()}"
            )
        if task.error is not None and not self._reported and not self._is_leaving(task.error):
            raise self._raised("", task.error)

    async def _next(self, expected: str, timeout: float | None) -> Event:
        """Wait for the application's next event, of type *expected* or not.

        Raises:
            CommunicatorError: There will be none.
            CommunicatorTimeout: There was none in time.
        """
        task, outbox = self._start(), self._outbox
        if timeout is None:
            timeout = self._timeout
        if await task.until(lambda: outbox or task.done, timeout):
            if outbox:
                event = outbox.popleft()
                task.wake()
                return event
            if task.error is not None:
                raise self._raised(f" instead of sending {expected}", task.error)
            raise CommunicatorError(f"the application returned without sending {expected}")
        raise CommunicatorTimeout(
            f"the application did not send {expected} within {timeout} s: {self._busy()}"
        )

    async def receive_nothing(self, timeout: float = 0.1) -> bool:
        """Whether the application sends nothing for *timeout* seconds.

        An event that came can be received afterwards.

        Raises:
            CommunicatorError: The application raised.
        """
        task = self._start()
        await task.until(lambda: self._outbox or task.done, timeout)
        if task.error is not None and not self._outbox and not self._reported:
            raise self._raised("", task.error)
        return not self._outbox

    def _is_leaving(self, error: BaseException) -> bool:
        """Whether it is only the client's leaving."""
        if isinstance(error, BaseExceptionGroup):
            return all(self._is_leaving(one) for one in error.exceptions)
        if isinstance(error, ClientDisconnected):
            return True
        if self._told and type(error).__name__.lower().startswith(_LEAVING):
            return True
        return error.__cause__ is not None and self._is_leaving(error.__cause__)

    def _raised(self, instead: str, error: BaseException) -> CommunicatorError:
        self._reported = True
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error
        problem = CommunicatorError(f"the application raised {error!r}{instead}")
        problem.__cause__ = error
        return problem

    def _busy(self) -> str:
        if self._receiving:
            return "it waits in receive()"
        return "it neither waits in receive() nor has it returned"

    # ------------------------------------------------------------------ the application

    async def _receive(self) -> Event:
        task = self._start()
        self._receiving += 1
        try:
            await task.until(lambda: self._inbox or self._last, math.inf)
        finally:
            self._receiving -= 1
        if self._inbox:
            return self._inbox.popleft()
        assert self._last is not None
        self._told = True
        return dict(self._last)

    async def _send(self, event: Event) -> None:
        task = self._start()
        if self._gone:
            await task.until(lambda: True, math.inf)
            self._told = True
            raise ClientDisconnected(self._gone)
        self._outbox.append(event)
        self._on_sent(event)
        task.wake()
        await task.until(lambda: len(self._outbox) <= AHEAD or self._gone, math.inf)

    def _on_sent(self, event: Event) -> None:
        """What the application's event means to the conversation."""


def kind_of(event: Any) -> str:
    """The type of an event that the application sends.

    Raises:
        CommunicatorError: It has none.
    """
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise CommunicatorError(f"an event is a dict with a 'type', not {event!r:.80}")
    kind: str = event["type"]
    return kind


def describe(event: Event) -> str:
    """An event in a few words."""
    return " ".join(
        str(value) if key == "type" else f"{key} {value!r:.80}" for key, value in event.items()
    )


def unexpected(expected: str, event: Event) -> CommunicatorError:
    """The error of a test that got *event*."""
    return CommunicatorError(f"expected {expected}, got {describe(event)}")
