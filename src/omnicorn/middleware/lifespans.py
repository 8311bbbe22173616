"""One lifespan for several applications (ASGI lifespan spec 2.0).

What this file alone decides: how the answers of several applications become one, and whose
``state`` a request gets.

1. Each application has a task of its own. All start at the same time; startup is complete when
   all have answered. Shutdown goes in reverse order, each after the one before has answered.
2. An application that raises or returns before it answers has no lifespan, and is served without.
   If none has one, neither has the whole: that raises.
3. If one fails to start, those that have started are shut down, and the failures are told as
   one. An application that ends in between is logged, and the others go on.
4. Each fills a ``state`` of its own, which begins as a copy of what is there. Its requests see
   that, and no other's. The states travel in the server's, under the dispatcher's key: so one
   dispatcher may run in several loops and servers at once.
5. Waits are the server's to bound: when it cancels this, all applications are cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

from omnicorn.errors import ASGIError
from omnicorn.toolkit.libraries import current_trio_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from omnicorn.middleware.answers import Receive, Send
    from omnicorn.toolkit.compatibility import SingleCallable

__all__ = ["Member", "States", "serve_lifespans"]

logger = logging.getLogger("omnicorn.middleware")


class Member(Protocol):
    """An application among others.

    Attributes:
        app: The ASGI 3 application.
        name: What it is called in messages.
    """

    app: SingleCallable
    name: str


class States:
    """The states that applications have filled during one lifespan.

    Args:
        given: What was there for all of them.
        own: What each made of it.
    """

    __slots__ = ("_given", "_own")

    def __init__(self, given: dict[str, Any], own: dict[Member, dict[str, Any]]) -> None:
        self._given = given
        self._own = own

    def merged(self, member: Member, state: dict[str, Any]) -> dict[str, Any]:
        """The state of a request to *member*.

        Args:
            member: Whose own entries come on top.
            state: What the request brought.
        """
        given = self._given
        # What it was given and left alone may have been changed for this request.
        own = {
            key: value
            for key, value in self._own.get(member, {}).items()
            if key not in given or given[key] is not value
        }
        return {**state, **own}


async def serve_lifespans(
    members: Sequence[Member], key: str, scope: Any, receive: Receive, send: Send
) -> None:
    """Pass a lifespan on to several applications.

    Args:
        members: At least one.
        key: Where in the ``state`` the `States` are left.
        scope: The lifespan's.
        receive: The server's.
        send: The server's.

    Raises:
        Exception: None of them has a lifespan: what the only one raised, or a RuntimeError
            that tells of each.
    """
    await receive()  # lifespan.startup
    state: dict[str, Any] | None = scope.get("state")
    given = None if state is None else state.copy()
    lives = [_Life(member, scope) for member in members]

    async def main() -> None:
        for life in lives:
            await life.started.wait()
        begun = [life for life in lives if life.answer == "lifespan.startup.complete"]
        failures = [life.failure() for life in lives if life.answer == "lifespan.startup.failed"]
        if failures:
            failures += await _shut_down(begun)
            await send({"type": "lifespan.startup.failed", "message": "; ".join(failures)})
            return
        if not begun:
            raise _no_lifespan(lives)
        if state is not None and given is not None:
            state[key] = States(given, {life.member: life.scope["state"] for life in begun})
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
        failures = await _shut_down(begun)
        if failures:
            await send({"type": "lifespan.shutdown.failed", "message": "; ".join(failures)})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    await _beside([life.run for life in lives], main)


async def _shut_down(lives: list[_Life]) -> list[str]:
    """Shut applications down, the last first; returns the failures."""
    failures = []
    for life in reversed(lives):
        if life.stopped.is_set():
            continue  # it has ended by itself, which was logged
        life.shutdown.set()
        await life.stopped.wait()
        raised = life.error is not None and life.answer == "lifespan.startup.complete"
        if raised or life.answer == "lifespan.shutdown.failed":
            failures.append(life.failure())
    return failures


def _no_lifespan(lives: list[_Life]) -> Exception:
    if len(lives) == 1 and lives[0].error is not None:
        return lives[0].error
    reasons = [f"{life.member.name}: {_text(life.error) or 'it returned'}" for life in lives]
    return RuntimeError(f"no mounted application has a lifespan; {'; '.join(reasons)}")


def _text(error: BaseException | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {error}"


class _Life:
    """One application's lifespan.

    Args:
        member: The application.
        scope: The scope of the whole; copied, and its state.

    Attributes:
        answer: The type of its last answer, if it gave one.
        error: What it raised, if it did.
        started: Is set when it has answered the first event, or never will.
        shutdown: Is set when it is to shut down.
        stopped: Is set when it has answered the second event, or never will.
    """

    __slots__ = (
        "_asked",
        "_message",
        "answer",
        "error",
        "member",
        "scope",
        "shutdown",
        "started",
        "stopped",
    )

    def __init__(self, member: Member, scope: Any) -> None:
        self.member = member
        self.scope = dict(scope)
        if scope.get("state") is not None:
            self.scope["state"] = scope["state"].copy()
        self.answer = ""
        self.error: Exception | None = None
        self.started = _event()
        self.shutdown = _event()
        self.stopped = _event()
        self._asked = 0
        self._message = ""

    def failure(self) -> str:
        """Why it could not start, or stop."""
        return f"{self.member.name}: {self._message or _text(self.error) or 'no reason given'}"

    async def run(self) -> None:
        """Run the application until it returns, raises or is cancelled."""
        try:
            await self.member.app(self.scope, self._receive, self._send)
        except Exception as error:
            self.error = error
            name = self.member.name
            if not self.answer:
                logger.debug("%s does not support lifespan: %r", name, error)
            elif self.answer != "lifespan.startup.failed":
                logger.error("The lifespan of %s raised an exception", name, exc_info=error)
        finally:
            self.started.set()
            self.stopped.set()

    async def _receive(self) -> dict[str, Any]:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        await self.shutdown.wait()
        if self._asked > 2:  # nothing comes after that
            await _event().wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        phase = "startup" if not self.answer else "shutdown"
        if kind not in (f"lifespan.{phase}.complete", f"lifespan.{phase}.failed") or (
            phase == "shutdown" and self.answer != "lifespan.startup.complete"
        ):
            raise ASGIError(
                f"the message {kind!r:.80} cannot be sent now: "
                f"{f'{self.answer} was the last' if self.answer else 'lifespan.startup waits'}"
            )
        self.answer = kind
        self._message = str(event.get("message", ""))
        (self.started if phase == "startup" else self.stopped).set()


# ------------------------------------------------------------------------------ the two libraries


def _event() -> Any:
    trio_loop = current_trio_loop()
    return asyncio.Event() if trio_loop is None else trio_loop.trio.Event()


async def _beside(
    others: Sequence[Callable[[], Coroutine[Any, Any, None]]], main: Callable[[], Any]
) -> None:
    """Await *main*, and then the *others*, which run beside it; cancel these if it raises.

    Args:
        others: At least one; they raise nothing.
        main: What it raises is raised.
    """
    trio_loop = current_trio_loop()
    if trio_loop is None:
        tasks = [asyncio.create_task(other()) for other in others]
        try:
            await main()
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return
    failure: Exception | None = None
    async with trio_loop.trio.open_nursery() as nursery:
        for other in others:
            nursery.start_soon(other)
        try:
            await main()
        except Exception as error:  # kept out of the nursery's exception group
            failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # no cycle through the traceback
