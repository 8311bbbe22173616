"""An application's turn: its task for one scope, started, judged at its end, cancelled.

`Exchange` is what a connection sees of it. What this file alone decides: which exceptions of
an application are errors of its own, and that an exchange it leaves unfinished is finished
for it. What the messages are, and how an exchange ends, the subclasses say; there is one for
each type of scope.

Invariant: `Carrier.on_cycle_end` is called once for each cycle whose task was started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from omnicorn.errors import ASGIError, ClientDisconnected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from omnicorn.ports import Loop, Stream, Task, Waiter

    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]
    Application = Callable[[dict[str, Any], Receive, Send], Awaitable[object]]

START = 0
"""The phase in which nothing has been answered; further ones are the subclass's, up to ..."""
DONE = 3
"""... the end of the exchange, or ..."""
GONE = 4
"""... the peer's leaving before it."""


class Carrier(Protocol):
    """What every exchange needs of its connection."""

    @property
    def loop(self) -> Loop: ...

    def on_cycle_end(self, cycle: Any, error: BaseException | None) -> None:
        """The application is through with this exchange; *error* is its own fault."""


class Exchange:
    """A request and its response, whatever answers; also its own access-log record.

    Attributes:
        status: The response's status; 0 before it is known.
        response_headers: The response's fields as the application gave them.
        sent: Content bytes handed over so far.
        began: The loop's time when the head was complete; set only where the log asks.
        duration: Seconds from there to the end of the response; set only where it asks.
        task: What runs the application.
        finished: The application has returned.
        was_cancelled: The server gave the application up.
    """

    began: float
    duration: float
    response_headers: Sequence[tuple[bytes, bytes]]
    sent: int
    status: int
    task: Task | None
    finished: bool
    was_cancelled: bool
    _carrier: Any
    """A `Carrier`, and what the subclass needs besides."""
    _phase: int
    _stream: Stream

    __slots__ = (
        "_carrier",
        "_phase",
        "_stream",
        "began",
        "duration",
        "finished",
        "response_headers",
        "sent",
        "status",
        "task",
        "was_cancelled",
    )

    @property
    def scope(self) -> dict[str, Any]:
        """As given to an ASGI application."""
        raise NotImplementedError

    def run(self) -> Any:
        """What the service's ``spawn`` takes to run the application."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Give up the application's run."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """The server stops: tell the application, if that can be."""
        raise NotImplementedError

    def on_writable(self) -> None:
        """The peer reads again."""
        raise NotImplementedError

    def refuse(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Answer in the application's place, and let the connection be closed."""
        self._phase = DONE
        self.status = status
        self.sent = len(reason)
        self.response_headers = [
            *headers,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(reason)),
            (b"connection", b"close"),
        ]
        self._wake()
        self._stream.send_head(status, self.response_headers)
        self._stream.send_data(reason, True)

    def _wake(self) -> None:
        """Let what waits for the peer look again."""
        raise NotImplementedError


class Cycle(Exchange):
    """One scope's exchange with its application.

    Args:
        app: The ASGI 3 application.
        scope: The exchange's scope.
        stream: The way back to the peer, for HTTP responses.
        carrier: The connection.

    Attributes:
        scope: As given to the application.
    """

    scope: dict[str, Any]

    __slots__ = (
        "_app",
        "_entered",
        "_readers",
        "_told",
        "_writers",
        "scope",
    )

    def __init__(
        self, app: Application, scope: dict[str, Any], stream: Stream, carrier: Carrier
    ) -> None:
        self._app = app
        self._stream = stream
        self._carrier = carrier
        self._phase = START
        self._entered = False
        self.was_cancelled = False
        self._told = False  # by `receive`, that the peer has left
        self._readers: list[Waiter] | None = None
        self._writers: list[Waiter] | None = None
        self.scope = scope
        self.status = 0
        self.response_headers: Sequence[tuple[bytes, bytes]] = ()
        self.sent = 0
        self.task: Task | None = None
        self.finished = False

    # ------------------------------------------------------------------ of the subclass

    async def receive(self) -> dict[str, Any]:
        """ASGI ``receive``."""
        raise NotImplementedError

    async def send(self, event: dict[str, Any]) -> None:
        """ASGI ``send``."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """The server stops: tell the application through ``receive()``."""
        raise NotImplementedError

    def on_writable(self) -> None:
        """The peer reads again."""
        if self._writers:
            wake(self._writers)

    @property
    def _lost(self) -> bool:
        """The peer has gone, and may not have got what was sent."""
        return self._phase == GONE

    def _unfinished(self) -> ASGIError | None:
        """The application returned before the end: its error, if it is one."""
        raise NotImplementedError

    def _give_up(self, error: BaseException | None) -> None:
        """End the exchange in the application's place; *error* is what it died of."""
        raise NotImplementedError

    # ------------------------------------------------------------------ the application

    async def run(self) -> None:
        """Run the application to its end and see that the exchange ends with it."""
        self._entered = True
        error: BaseException | None = None
        try:
            app = self._app
            result = await app(self.scope, self.receive, self.send)
            if self._phase < DONE:
                error = self._unfinished()
            elif result is not None:
                error = ASGIError(f"the application returned {result!r:.80} instead of None")
        except Exception as exc:
            if not (self._phase >= DONE or self._told) or not only_disconnects(exc, self._told):
                error = exc
        except BaseException as exc:
            if not self.was_cancelled:
                error = exc
            raise
        finally:
            try:
                if self._phase < DONE:
                    self._give_up(error)
            finally:
                self.finished = True
                self._carrier.on_cycle_end(self, error)
                error = None  # its traceback holds this frame

    def cancel(self) -> None:
        """Cancel the application's task."""
        if self.task is None or self.finished:
            return
        self.was_cancelled = True
        self.task.cancel()
        if not self._entered:
            # Cancelled before its first step, a task never gets to `run`.
            self.finished = True
            self._carrier.on_cycle_end(self, None)

    # ------------------------------------------------------------------ waiting

    async def _wait_to_read(self) -> None:
        readers = self._readers
        if readers is None:
            readers = self._readers = []
        waiter = self._carrier.loop.create_future()
        readers.append(waiter)
        try:
            await waiter
        finally:
            readers.remove(waiter)

    async def _wait_to_write(self) -> None:
        writers = self._writers
        if writers is None:
            writers = self._writers = []
        waiter = self._carrier.loop.create_future()
        writers.append(waiter)
        try:
            await waiter
        finally:
            writers.remove(waiter)
        if self._lost:
            raise ClientDisconnected("the client has disconnected")

    def _wake(self) -> None:
        if self._readers:
            wake(self._readers)


def wake(waiters: list[Waiter]) -> None:
    """Let those who wait go on."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def only_disconnects(error: BaseException, told: bool = False) -> bool:
    """Whether an exception is nothing but the peer's leaving, alone or in groups.

    Frameworks turn `ClientDisconnected` into an exception of their own: explicitly
    (``raise X from``), or implicitly with a name that says so (Starlette's
    ``ClientDisconnect``). One that was *told* by ``receive()`` may raise its own without
    having met ours. A bug in a clean-up that runs meanwhile is still a bug.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(only_disconnects(one, told) for one in error.exceptions)
    if isinstance(error, ClientDisconnected):
        return True
    if error.__cause__ is not None:
        return only_disconnects(error.__cause__, told)
    if "disconnect" not in type(error).__name__.lower():
        return False
    return told or (error.__context__ is not None and only_disconnects(error.__context__))
