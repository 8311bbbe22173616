"""The start and the end of an application, for a test that wants what lies between.

What this file alone decides: which answers to ``lifespan.startup`` let a test begin (Lifespan
2.0). An application that raises, or returns, before it answered has no lifespan; a server goes
on without, but a test that asks for one wants to know, unless it says ``required=False``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from omnicorn.asgi import ASGI_VERSION, LIFESPAN_SPEC_VERSION
from omnicorn.toolkit.testing.conversation import (
    Communicator,
    CommunicatorError,
    CommunicatorTimeout,
    describe,
    kind_of,
    unexpected,
)

if TYPE_CHECKING:
    from types import TracebackType

    from omnicorn.toolkit.compatibility import SingleCallable
    from omnicorn.toolkit.testing.conversation import Event


class LifespanFailed(CommunicatorError):
    """The application reported that it could not start, or stop."""


class LifespanNotSupported(CommunicatorError):
    """The application ended before it answered ``lifespan.startup``; see the cause."""


class LifespanManager(Communicator):
    """Starts an application, and stops it at the end of the block; on asyncio and trio.

    ::

        async with LifespanManager(app) as lifespan:
            await HTTPCommunicator(app, "GET", "/", state=lifespan.state).get_response()

    Args:
        app: An ASGI 3 application.
        required: Raise if the application has no lifespan; else see `supported`.
        timeout: Seconds for each of startup and shutdown.

    Attributes:
        state: What the application stored for its requests.
        supported: Whether the application has a lifespan; known within the block.
    """

    def __init__(
        self, app: SingleCallable, *, required: bool = True, timeout: float = 10.0
    ) -> None:
        self.state: dict[str, Any] = {}
        self.supported = False
        self._required = required
        scope = {
            "type": "lifespan",
            "asgi": {"version": ASGI_VERSION, "spec_version": LIFESPAN_SPEC_VERSION},
            "state": self.state,
        }
        super().__init__(app, scope, timeout)

    async def __aenter__(self) -> Self:
        """Start the application.

        Raises:
            LifespanFailed: It could not start, and said why.
            LifespanNotSupported: It ended without an answer, and was required to give one.
            CommunicatorTimeout: It gave none in time.
        """
        try:
            await self._startup()
        except BaseException:
            await self.cancel()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the application, also after an exception of the block.

        Raises:
            LifespanFailed: It could not stop, and said why.
            CommunicatorError: It raised.
            CommunicatorTimeout: It did not answer, or not return, in time.
        """
        if error is None:
            await self._finish()
        elif isinstance(error, Exception):
            try:
                await self._finish()
            except CommunicatorError as exc:
                error.add_note(f"and then: {exc}")
        else:
            await self.cancel()

    async def _startup(self) -> None:
        self._tell({"type": "lifespan.startup"})
        try:
            event = await self._next("lifespan.startup.complete", None)
        except CommunicatorTimeout:
            raise
        except CommunicatorError as exc:
            if self._required:
                raise LifespanNotSupported(
                    f"{exc}: it has no lifespan; if that is right, say required=False"
                ) from exc.__cause__
            return
        self._judge("startup", event)
        self.supported = True

    async def _finish(self) -> None:
        if not self.supported:
            await self.cancel()
            return
        try:
            self._tell({"type": "lifespan.shutdown"})
            self._judge("shutdown", await self._next("lifespan.shutdown.complete", None))
            await self._return("after lifespan.shutdown.complete")
        finally:
            await self.cancel()

    def _judge(self, phase: str, event: Event) -> None:
        """Raises unless *event* says that *phase* is complete."""
        if event["type"] == f"lifespan.{phase}.failed":
            # It may raise besides, but this is what it wanted to be known.
            self._reported = True
            message = event.get("message", "")
            raise LifespanFailed(
                f"the application's {phase} failed: {message or 'no reason given'}"
            )
        if event["type"] != f"lifespan.{phase}.complete":
            raise unexpected(f"lifespan.{phase}.complete", event)

    # ------------------------------------------------------------------ the application

    async def _send(self, event: Event) -> None:
        if not kind_of(event).startswith("lifespan."):
            raise CommunicatorError(f"{describe(event)} is no message of a lifespan")
        await super()._send(event)
