"""The two interfaces everything meets at, and the one value that crosses them.

::

        bridge (ASGI)                     StreamHandler  ▲ upcalls   │ verbs  Stream
        ─────────────────────────────────────────────────┼───────────▼──────────────
        protocols (sans-IO engines)       StreamOwner    ▲ upcalls
        ─────────────────────────────────────────────────┼──────────────────────────
        connections                       Transport      │ verbs     ▲ data, pauses
        transports (asyncio, trio, ...)   Loop           ▼           │ ConnectionPort

*Below* the engines stand `Loop` and `Transport`, shaped like asyncio's own, so that on
asyncio they are the running loop's bound methods and cost nothing. *Above* them stand
`Stream` (verbs: what the application side asks for) and `StreamHandler` (upcalls: what
the engine tells it).

Laws, which every implementation keeps and the tests check:

1. An upcall may call verbs; it never calls an engine's ``receive``.
2. Verbs only append bytes. When an engine goes from nothing to say to something, it
   says so once (``on_output``), and its connection flushes at the end of the loop's
   iteration, or at once when a response is complete.
3. An engine's ``receive`` never raises into the loop. A broken peer ends in an error
   response or a reset, and the reason stands in ``engine.error``.
4. Time is an argument. An engine reads no clock and holds no task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
    from typing import TypeAlias

    from omnicorn.errors import RemoteProtocolError

    Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

__all__ = [
    "ConnectionPort",
    "Loop",
    "MessageHandler",
    "RequestHead",
    "Stream",
    "StreamHandler",
    "StreamOwner",
    "Task",
    "Timer",
    "Transport",
    "Waiter",
]

HIGH_WATER = 65536
"""Bytes that may wait in one direction of one stream before the other side must pause."""


class RequestHead:
    """One request as every engine presents it; shared between equal requests of one server.

    Attributes:
        method: Upper-case (ASGI HTTP §scope).
        version: ``"1.0"``, ``"1.1"``, ``"2"`` or ``"3"``.
        path: Percent-decoded, then UTF-8-decoded; no query.
        raw_path: The path's bytes as they came.
        query: What follows the first ``?``, undecoded.
        headers: Lower-case names, values without surrounding white space, in order.
        fields: The last value of each name, for quick look-ups.
        forwarded: Some proxy speaks for a client in a ``forwarded`` or ``x-forwarded-`` field.
        has_body: Whether ``on_data``/``on_end`` will follow.
        upgrade: The ``upgrade`` field's value where the connection offers one, lower-case.
        trailers: Whether the client said ``TE: trailers``.
        root_path: Where the application is mounted, if a front server says so; `path` and
            `raw_path` contain it. None: the configuration says it, and they do not.
        template: The bridge's memory of it, but for its fields; None at first.
        environ: The same with its fields; None at first. All else is immutable.
    """

    __slots__ = (
        "environ",
        "fields",
        "forwarded",
        "has_body",
        "headers",
        "method",
        "path",
        "query",
        "raw_path",
        "template",
        "trailers",
        "upgrade",
        "version",
    )

    method: str
    version: str
    path: str
    raw_path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    fields: dict[bytes, bytes]
    forwarded: bool
    has_body: bool
    upgrade: bytes | None
    trailers: bool
    root_path: str | None = None
    template: dict[str, Any] | None
    environ: dict[str, Any] | None


# ---------------------------------------------------------------- below the engines


class Timer(Protocol):
    def cancel(self) -> object: ...


class Waiter(Protocol):
    """Something one task awaits and another part of the program wakes.

    Whether a waiter is done after its task was cancelled differs between loops: ask.
    """

    def done(self) -> bool: ...
    def set_result(self, result: None, /) -> object: ...
    def __await__(self) -> Generator[Any, Any, None]: ...


class Task(Protocol):
    def cancel(self) -> object: ...


class Loop(Protocol):
    """What a connection needs of an event loop; on asyncio, the loop's own methods."""

    @property
    def time(self) -> Callable[[], float]:
        """Seconds of a clock that never goes back."""

    @property
    def gathers_writes(self) -> bool:
        """Transports gather what is written within one iteration, and send it at its end."""

    @property
    def call_soon(self) -> Callable[[Callable[[], object]], object]: ...

    @property
    def call_soon_threadsafe(self) -> Callable[[Callable[[], object]], object]:
        """`call_soon` from any thread, which wakes the loop; the loop's own may call it, too.

        Raises RuntimeError once the loop has ended.
        """

    @property
    def call_at(self) -> Callable[[float, Callable[[], object]], Timer]: ...

    @property
    def create_future(self) -> Callable[[], Waiter]: ...

    @property
    def spawn(self) -> Callable[[Coroutine[Any, Any, None]], Task]:
        """Run a coroutine as a task; the caller must keep what it returns.

        Its context variables are a copy of those the server was started with, not of
        the caller's: the caller may be the step of another request.
        """

    @property
    def run_blocking(self) -> Callable[..., Awaitable[Any]]:
        """``await run_blocking(function, *args)`` runs it where blocking harms nobody."""

    @property
    def sendfile(self) -> Callable[[Any, int, int, int, float], Awaitable[int]] | None:
        """``await sendfile(transport, file, offset, count, stall)``, by the kernel.

        *file* is a descriptor; returns the bytes sent, fewer than *count* if the file is
        shorter. Raises `ClientDisconnected` when the peer has gone or has read nothing for
        *stall* seconds. None where the kernel is not asked.
        """


class Transport(Protocol):
    """The part of asyncio's transports that is used.

    Until ``connection_lost`` every verb is harmless, after it none may be called.
    ``resume_reading`` and ``pause_reading`` may be said twice. ``set_protocol`` names the
    `ConnectionPort` that is called from then on. ``abort`` drops what is
    unwritten; whether the peer sees a reset is the kernel's choice, unless asked for.
    """

    def write(self, data: bytes, /) -> object: ...
    def write_eof(self) -> object: ...
    def can_write_eof(self) -> bool: ...
    def close(self) -> object: ...
    def abort(self) -> object: ...
    def pause_reading(self) -> object: ...
    def resume_reading(self) -> object: ...
    def get_write_buffer_size(self) -> int: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...
    def set_protocol(self, connection: Any, /) -> object: ...


class ConnectionPort(Protocol):
    """What a transport calls; asyncio's ``Protocol``, by its methods."""

    def connection_made(self, transport: Any, /) -> None: ...
    def data_received(self, data: bytes, /) -> object:
        """Bytes of the peer. True, where what makes the connections has a true
        ``ends_by_closing``: its request is complete (see `transports.unix`)."""

    def eof_received(self) -> bool: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None, /) -> None: ...


# ---------------------------------------------------------------- above the engines


class Stream(Protocol):
    """One request's way back: verbs that only append bytes."""

    @property
    def is_responding(self) -> bool:
        """A response has begun and has not ended."""

    @property
    def takes_content(self) -> bool:
        """Whether the response that has begun has content: none for HEAD, 204, 304."""

    def send_informational(self, status: int, headers: Headers) -> None:
        """A 1xx response; silently nothing for a peer that cannot take one."""

    def send_continue(self) -> None:
        """The application wants the body: answer ``Expect: 100-continue`` if it was asked."""

    def send_head(self, status: int, headers: Headers, trailers: bool = False) -> None:
        """The response's status and fields; checked, so it raises in the application."""

    def send_data(self, data: bytes, end: bool) -> bool:
        """Body bytes; False asks the caller to await ``on_writable`` before the next."""

    def send_trailers(self, headers: Headers) -> None:
        """The trailer section; ends a response whose head announced trailers."""

    def reserve_raw(self, count: int) -> bool:
        """Announce *count* body bytes written past the engine (sendfile); False: cannot."""

    def raw_written(self) -> None:
        """The bytes of `reserve_raw` are written."""

    def consumed(self, count: int) -> None:
        """*count* body bytes have reached the application: more may be read."""

    def reset(self) -> None:
        """Give the exchange up without completing the response."""


class StreamHandler(Protocol):
    """What an engine tells the application side of one request."""

    def on_data(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...

    def on_reset(self, error: RemoteProtocolError | None) -> None:
        """The exchange is over before its time; *error* says what the peer did wrong."""

    def on_remote_closed(self) -> None:
        """The peer sends nothing more, but may still be reading."""

    def on_writable(self) -> None:
        """After `Stream.send_data` said False: more may be sent."""


class MessageHandler(Protocol):
    """What an engine tells the application side of one WebSocket."""

    @property
    def is_behind(self) -> bool:
        """Whether messages still wait for the application."""

    def on_message(self, message: str | bytes) -> bool:
        """A message of the peer; True asks for no more until the engine's ``resume``."""

    def on_closed(self, code: int, reason: str) -> None:
        """Nothing more comes, and nothing can be sent (RFC 6455 §7.1.5, §7.1.6)."""

    def on_writable(self) -> None:
        """After a message's sender was told False: more may be sent."""


class StreamOwner(Protocol):
    """What an engine tells its connection."""

    def on_request(self, stream: Any, head: Any) -> StreamHandler:
        """A request begins; the handler gets its body."""

    def on_preface(self, data: bytes) -> bool:
        """The peer's first bytes are those of HTTP/2; True: somebody else reads on."""

    def on_full(self) -> None:
        """More than `HIGH_WATER` bytes of output wait, or many requests were answered in one
        go: flush now, and let others have their turn."""

    def on_readable(self, wanted: bool) -> None:
        """Whether the engine wants more bytes from the peer."""

    def on_continue(self) -> None:
        """The peer was told to send the body it had announced: now it is its turn."""

    def on_complete(self, stream: Any) -> None:
        """The response is complete (or cut) on the engine's side."""

    def on_ready(self) -> None:
        """The rest of an answered request has been read: the next one may come."""
