"""One FastCGI connection's conversation: which requests are on it, and what may come for them.

Rules of this file:

1. A request begins for the application when its parameters are complete and it is known whether
   content follows: by CONTENT_LENGTH, else by its first STDIN record.
2. What is wrong with one request is answered on that request (400, 413, 414, 431, 408), and
   the others go on. What is wrong with the records ends the connection.
3. Records of a request that is not (or no longer) here are skipped (§3.3).
4. There is no flow control but the socket's: past `HIGH_WATER` bytes of content that wait for
   applications, all of the connection waits. So that one application that reads nothing cannot
   hold up the others for ever, it is given up after a while; but only where the front has
   multiplexed before, else nobody waits. Whether somebody does may stand behind the content: after
   the same while, up to `OUTLOOK` bytes are read to find out.
5. A response that breaks off ends as `break_off` says.
6. How a request ends goes into the output when that is taken. Until then there may be something
   to `report`.
7. Records cost the front next to nothing. At most `TURN` of them are read in one go; the owner
   comes back for the others (`behind`) when everybody else has had a turn.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from omnicorn.errors import LimitExceeded, RemoteProtocolError
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.fastcgi.records import (
    ABORT_REQUEST,
    BEGIN_REQUEST,
    CANT_MPX_CONN,
    DATA,
    GET_VALUES,
    GET_VALUES_RESULT,
    HEADER,
    KEEP_CONN,
    NO_RECORD,
    OVERLOADED,
    PARAMS,
    REQUEST_COMPLETE,
    RESPONDER,
    STDERR,
    STDIN,
    STDOUT,
    UNKNOWN_ROLE,
    end_request,
    join_params,
    read_begin,
    read_header,
    record,
    split_params,
    stream_records,
    unknown_type,
)
from omnicorn.protocols.fastcgi.stream import (
    ENDED,
    IN_PARAMS,
    IN_STDIN,
    OVER,
    WAITING,
    FastCGIStream,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnicorn.ports import StreamHandler
    from omnicorn.protocols.cgi import EnvironmentParser, GatewayHead, ResponseEncoder

_MOST_VALUES = 1024  # bytes of a GET_VALUES: there are three names to ask for
_STREAMS = (PARAMS, STDIN)  # their content is taken as it comes...
_WHOLE = (BEGIN_REQUEST, ABORT_REQUEST, GET_VALUES)  # ...and that of these as a whole

TURN = 512
"""Records that are read in one go; `UNIT` bytes of names and values count as one."""
UNIT = 128
OUTLOOK = 1 << 20
"""Bytes of content that may wait while it is looked for another request behind them."""

_REFUSAL = [(b"content-type", b"text/plain; charset=utf-8")]


class FastCGIOwner(Protocol):
    """What the engine tells its connection; the first four as in `StreamOwner`."""

    def on_request(self, stream: Any, head: Any) -> StreamHandler: ...
    def on_full(self) -> None: ...
    def on_readable(self, wanted: bool) -> None: ...
    def on_complete(self, stream: Any) -> None: ...

    def on_refused(self, error: RemoteProtocolError, stream: FastCGIStream) -> None:
        """A request was refused, or given up; the connection goes on."""

    def on_dropped(self, handler: Any) -> None:
        """A request is over for the front, but maybe not for its application."""


Owner = TypeVar("Owner", bound=FastCGIOwner)


class FastCGIEngine(Generic[Owner]):
    """The application's side of one connection.

    Args:
        owner: Told of requests.
        parser: Of environments, split by `split_params`; shared.
        encoder: Of response heads that begin with ``Status:``; shared.
        max_requests: Requests at once; 1: no multiplexing.
        values: What GET_VALUES answers.
        on_output: Called with the owner when there is output and there was none before.

    Attributes:
        streams: The requests in progress, by their ids.
        orphans: What `FastCGIOwner.on_dropped` was called with and still runs; kept by the owner.
        pending: About how many bytes `take` will give.
        reading: More bytes of the front are wanted.
        behind: Bytes wait that were received; call `receive` again, with no more, soon.
        blocked: The front reads slowly; set by the connection.
        closing: Nothing more is read; close once the output is written.
        cut: A response has broken off, and only an abnormal end can say so.
        expects_more: The front may still be sending something that nobody will read.
        owed: About how much of it there may be, if that is known; else 0.
        remote_closed: The front has sent its last byte.
        error: Why the connection was ended.
        record_since: When the last record began; what *now* was then.
        multiplexed: The front has had several requests here at once.
    """

    __slots__ = (
        "_buffer",
        "_current",
        "_dirty",
        "_kind",
        "_max_requests",
        "_most",
        "_now",
        "_on_output",
        "_out",
        "_owner",
        "_padding",
        "_parser",
        "_paused_since",
        "_receiving",
        "_refusing",
        "_remaining",
        "_resumed",
        "_turn",
        "_unread",
        "_values",
        "behind",
        "blocked",
        "closing",
        "cut",
        "encode",
        "error",
        "expects_more",
        "multiplexed",
        "orphans",
        "owed",
        "pending",
        "reading",
        "record_since",
        "remote_closed",
        "streams",
    )

    def __init__(
        self,
        owner: Owner,
        parser: EnvironmentParser,
        encoder: ResponseEncoder,
        max_requests: int,
        values: dict[bytes, bytes],
        on_output: Callable[[Owner], object],
    ) -> None:
        self._owner = owner
        self._parser = parser
        self.encode = encoder.encode
        self._max_requests = max_requests
        self._values = values
        self._on_output = on_output
        self._now = 0.0
        self._buffer = b""  # the beginning of a record
        self._remaining = 0  # content of the present record, still to come, ...
        self._padding = 0  # ...then its padding, ...
        self._kind = 0  # ...its type (0: there was none), ...
        self._current: FastCGIStream | None = None  # ...and whose it is
        self._receiving = False
        self._refusing = False
        self._turn = 0  # what may be read before others have theirs
        self._paused_since = 0.0
        self._resumed = False  # and nothing can have come since
        self._unread = 0
        self._most = HIGH_WATER  # bytes of it; `OUTLOOK` while it is looked for others
        self._dirty: list[FastCGIStream] = []  # those with pieces
        self._out: list[bytes] = []
        self.streams: dict[int, FastCGIStream] = {}
        self.orphans: set[Any] = set()
        self.pending = 0
        self.reading = True
        self.behind = False
        self.blocked = False
        self.closing = False
        self.cut = False
        self.expects_more = False
        self.owed = 0
        self.remote_closed = False
        self.error: RemoteProtocolError | None = None
        self.record_since = 0.0
        self.multiplexed = False

    # ------------------------------------------------------------------ from the front

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes of the front, in any segmentation.

        Args:
            data: The bytes.
            now: In seconds, of any clock.
        """
        self._now = now
        self.behind = False
        if self.closing:
            return
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        elif not self._remaining and not self._padding:
            self.record_since = now
        self._receiving = True
        self._turn = TURN
        try:
            at = self._read(data)
            if not self.closing:
                if at < len(data):
                    self._buffer = data[at:] if at else data
                self.behind = self._turn <= 0
        except RemoteProtocolError as error:
            self._fail(error)
        self._receiving = False
        if self._turn < TURN:
            self.record_since = now
        self._steer()

    def _read(self, data: bytes) -> int:
        """Read every record, of a stream's also a part; returns how far."""
        at = 0
        end = len(data)
        while not self.closing:
            if self._remaining:
                size = min(self._remaining, end - at)
                if not size:
                    return at
                self._remaining -= size
                if self._current is not None:
                    self._on_content(self._current, data[at : at + size])
                at += size
            if self._padding:
                if self._remaining:
                    return at
                size = min(self._padding, end - at)
                self._padding -= size
                at += size
            if at < end and data[at] != 1:
                raise RemoteProtocolError(_explain(data[at], not self._kind))
            if end - at < HEADER or self._turn <= 0:
                return at
            _, kind, number, length, padding = read_header(data, at)
            if kind in _STREAMS:
                self._turn -= 1
                self._kind = kind
                self._current = stream = self.streams.get(number)
                self._remaining = length
                if stream is not None and not length:
                    self._current = None
                    self._on_stream_end(kind, stream)
            elif kind in _WHOLE:
                if length > (_MOST_VALUES if kind == GET_VALUES else 8):
                    raise RemoteProtocolError(f"a record of type {kind} is {length} bytes long")
                if end - at < HEADER + length:
                    return at
                self._turn -= 1
                self._kind = kind
                at += HEADER
                self._on_record(kind, number, data[at : at + length])
                at += length
                self._padding = padding
                continue
            else:
                if kind != DATA:  # which belongs to a role that nobody has here
                    self._write(unknown_type(kind))
                self._turn -= 1
                self._kind = kind
                self._current = None
                self._remaining = length
            self._padding = padding
            at += HEADER
        return end

    def _on_record(self, kind: int, number: int, content: bytes) -> None:
        if kind == GET_VALUES:
            if number:
                raise RemoteProtocolError("GET_VALUES has a request id")
            self._turn -= len(content) // UNIT
            known = self._values
            answers = [(name, known[name]) for name, _ in split_params(content) if name in known]
            self._write(record(GET_VALUES_RESULT, 0, join_params(answers)))
            return
        if not number:
            raise RemoteProtocolError("a request's record has no request id")
        stream = self.streams.get(number)
        if kind == ABORT_REQUEST:
            if stream is not None:
                self._abort(stream)
            return
        if len(content) != 8:
            raise RemoteProtocolError(f"BEGIN_REQUEST has {len(content)} bytes, not 8")
        if stream is not None:
            raise RemoteProtocolError("a request begins with the id of one in progress")
        role, flags = read_begin(content)
        self._begin(number, role, bool(flags & KEEP_CONN))

    def _begin(self, number: int, role: int, keep: bool) -> None:
        streams = self.streams
        refusal = REQUEST_COMPLETE
        if role != RESPONDER:
            refusal = UNKNOWN_ROLE
        elif streams and self._max_requests == 1:
            refusal = CANT_MPX_CONN
        elif self._refusing or len(streams) + len(self.orphans) >= self._max_requests > 1:
            refusal = OVERLOADED
        if refusal:
            self._write(end_request(number, 0, refusal))
            if not keep:
                self.refuse_more()
            return
        if streams:
            self.multiplexed = True
            self._most = HIGH_WATER
        streams[number] = FastCGIStream(self, number, keep, self._now)

    def _abort(self, stream: FastCGIStream) -> None:
        """The front does not want the response any more (§5.4)."""
        handler = stream.handler
        self._end(stream, end_request(stream.number, 1, REQUEST_COMPLETE))
        if handler is not None:
            handler.on_reset(None)
            self._owner.on_dropped(handler)

    # ------------------------------------------------------------------ streams of the front

    def _on_content(self, stream: FastCGIStream, data: bytes) -> None:
        if self._kind == PARAMS:
            if stream.head is not None:
                raise RemoteProtocolError("PARAMS come after their end")
            stream.params.append(data)
            stream.size += len(data)
            limit = self._parser.limits.head
            if stream.size > limit:
                self._refuse(stream, LimitExceeded("the request head is too large", 431, limit))
            return
        stream.heard = self._now
        if stream.remote == ENDED:
            raise RemoteProtocolError("STDIN comes after its end")
        if stream.remote == IN_PARAMS:
            head = stream.head
            if head is None:
                raise RemoteProtocolError("STDIN comes before the end of PARAMS")
            if head.length < 0:
                self._start(stream, head if head.has_body else _with_content(head))
                if stream.local == OVER:  # answered at once
                    return
        size = len(data)
        stream.received += size
        if stream.left >= 0:
            stream.left -= size
            if stream.left < 0:
                self._refuse(
                    stream, RemoteProtocolError("the content is longer than CONTENT_LENGTH says")
                )
                return
        most = self._parser.limits.body
        if most is not None and stream.received > most:
            self._refuse(stream, LimitExceeded("the request body is too large", 413, most))
            return
        handler = stream.handler
        if handler is not None:
            stream.unread += size
            self._unread += size
            handler.on_data(data)

    def _on_stream_end(self, kind: int, stream: FastCGIStream) -> None:
        stream.heard = self._now
        if kind == PARAMS:
            if stream.head is not None:
                raise RemoteProtocolError("PARAMS end twice")
            params = stream.params
            block = params[0] if len(params) == 1 else b"".join(params)
            stream.params = []
            self._turn -= len(block) // UNIT
            try:
                head, stream.client = self._parser.parse_shared(block)
            except RemoteProtocolError as error:
                self._refuse(stream, error)
                return
            stream.head = head
            stream.left = head.length
            if head.length > 0:
                self._start(stream, head)
            return
        if stream.head is None:
            raise RemoteProtocolError("STDIN comes before the end of PARAMS")
        if stream.remote == IN_PARAMS:
            stream.remote = ENDED
            self._start(stream, stream.head)
            if stream.handler is not None and stream.head.has_body:
                stream.handler.on_end()  # the length was not said: there is none
        elif stream.remote == IN_STDIN:
            stream.remote = ENDED
            if stream.left > 0:
                self._refuse(
                    stream,
                    RemoteProtocolError(
                        f"the content is {stream.left} bytes shorter than CONTENT_LENGTH says"
                    ),
                )
            elif stream.handler is not None:
                stream.handler.on_end()
        else:
            raise RemoteProtocolError("STDIN ends twice")

    def _start(self, stream: FastCGIStream, head: GatewayHead) -> None:
        stream.head = head
        if stream.remote == IN_PARAMS:
            stream.remote = IN_STDIN
        handler = self._owner.on_request(stream, head)
        if stream.local != OVER:
            stream.handler = handler
            if self.remote_closed and stream.remote == ENDED:
                handler.on_remote_closed()

    # ------------------------------------------------------------------ what goes wrong

    def _refuse(self, stream: FastCGIStream, error: RemoteProtocolError) -> None:
        """The request is over: answer if that is still possible."""
        error = error.with_traceback(None)  # whose frames would hold this engine
        handler = stream.handler
        if stream.local == WAITING:
            body = b"%b\n" % error.reason.encode()
            stream.send_head(error.status, [*_REFUSAL, (b"content-length", b"%d" % len(body))])
            self._owner.on_refused(error, stream)
            stream.send_data(body, True)
        else:
            self._owner.on_refused(error, stream)
            self.break_off(stream)
        if handler is not None:
            handler.on_reset(error)
            self._owner.on_dropped(handler)

    def _fail(self, error: RemoteProtocolError) -> None:
        """Nothing that follows can be understood."""
        self.error = error.with_traceback(None)
        self.expects_more = True
        self.cut = bool(self.streams)
        self._lose(error)

    def _lose(self, error: RemoteProtocolError | None) -> None:
        self.closing = True
        self._buffer = b""
        self._current = None
        streams = [*self.streams.values()]
        self.streams.clear()
        self._unread = 0
        for stream in streams:
            stream.local = OVER
            handler, stream.handler = stream.handler, None
            if handler is not None:
                handler.on_reset(error)

    def receive_eof(self) -> None:
        """The front sends nothing more; what it has asked completely it may still read."""
        self.remote_closed = True
        error = RemoteProtocolError("the front left in the middle of a request")
        if self.is_midway and not self.streams and not self.closing:
            self.error = RemoteProtocolError("a record ends too early")
        for stream in [*self.streams.values()]:
            if stream.remote != ENDED:
                handler = stream.handler
                if handler is None:
                    self.error = RemoteProtocolError("a request's parameters end too early")
                if stream.local != WAITING:
                    self.cut = True
                self._end(stream, NO_RECORD)
                if handler is not None:
                    handler.on_reset(error)
            elif stream.handler is not None:
                stream.handler.on_remote_closed()
        self.refuse_more()

    def connection_lost(self) -> None:
        """The connection is gone: all requests end here, and no upcall follows."""
        self._lose(None)
        # It holds this engine: a cycle that only the garbage collector would find.
        self._owner = None  # type: ignore[assignment]

    def overdue(self, now: float, head: float, body: float) -> float:
        """Give up what has waited too long.

        Args:
            now: The time.
            head: Seconds from a request's beginning to the end of its parameters.
            body: Seconds between two pieces of content; and seconds that an application may
                hold up others on this connection.

        Returns:
            When to ask again; infinity: when there is a request again.
        """
        self._now = now
        if self._unread > HIGH_WATER:
            if self._most != HIGH_WATER:
                return float("inf")  # it is the application's turn, and nobody else's
            until = self._paused_since + body
            if now < until:
                return until
            if not self.multiplexed:
                self._most = OUTLOOK
                self._steer()
                return float("inf")
            stream = max(self.streams.values(), key=lambda each: each.unread)
            why = "its application reads no content, and others wait for the connection"
            self._refuse(stream, RemoteProtocolError(why, 503))
            self._steer()
            return now
        nearest = float("inf")
        resumed, self._resumed = self._resumed, False
        for stream in [*self.streams.values()]:
            if stream.remote == ENDED:
                continue
            if resumed:
                stream.heard = now
            in_params = stream.remote == IN_PARAMS
            until = stream.heard + (head if in_params else body)
            if now >= until:
                what = "head" if in_params else "body"
                why = f"the request {what} did not arrive in time"
                self._refuse(stream, RemoteProtocolError(why, 408))
            elif until < nearest:
                nearest = until
        return nearest

    # ------------------------------------------------------------------ back-pressure

    def on_consumed(self, count: int) -> None:
        """An application has taken content."""
        self._unread -= count
        if not self._receiving:
            self._steer()

    def _steer(self) -> None:
        unread = self._unread
        if unread <= HIGH_WATER:
            self._most = HIGH_WATER
        elif unread > self._most > HIGH_WATER:
            self._most = 0  # it was looked far enough, and nobody is there
        wanted = unread <= self._most
        if wanted != self.reading and not self.closing:
            self.reading = self._resumed = wanted
            if not wanted:
                self._paused_since = self._now
            self._owner.on_readable(wanted)

    # ------------------------------------------------------------------ to the front

    def write(self, stream: FastCGIStream, data: bytes) -> None:
        """Put a piece on a request's STDOUT."""
        if not self.pending:
            self._on_output(self._owner)
        if not stream.pieces:
            self._dirty.append(stream)
        stream.pieces.append(data)
        self.pending += len(data)

    def report(self, stream: FastCGIStream, line: bytes) -> None:
        """Put a line into the front's error log; only until the end of the request is taken."""
        if stream in self._dirty:
            stream.report = line

    def on_full(self) -> None:
        """See `StreamOwner`."""
        self._owner.on_full()

    def finish(self, stream: FastCGIStream) -> None:
        """The response is complete."""
        self._end(stream, _ending(stream.number))

    def break_off(self, stream: FastCGIStream) -> None:
        """The response cannot be completed: see that the front cannot take it for complete.

        Fronts do not look at END_REQUEST's status, and some take a plain end of the connection
        for that of the response; a unix socket knows no other. So what comes is no record, and
        the connection is cut. Only a front that has multiplexed gets a status that is not 0,
        because the other requests are more than one broken response.
        """
        if self.multiplexed:
            self._end(stream, end_request(stream.number, 1, REQUEST_COMPLETE))
        else:
            self.cut = self.closing = True
            self._end(stream, NO_RECORD)

    def _end(self, stream: FastCGIStream, end: bytes) -> None:
        if not self.pending:
            self._on_output(self._owner)
        if not stream.pieces:
            self._dirty.append(stream)
        stream.end = end
        self.pending += HEADER + len(end)
        stream.local = OVER
        del self.streams[stream.number]
        if self._current is stream:
            self._current = None
        if stream.unread:
            self._unread -= stream.unread
            stream.unread = 0
            if not self._receiving:
                self._steer()
        if stream.remote != ENDED:
            self.expects_more = True
        if not stream.keep:
            self.owed = max(stream.left, 0)
            self._refusing = True
        if self._refusing and not self.streams:
            self.closing = True
        self._owner.on_complete(stream)
        stream.handler = None

    def refuse_more(self) -> None:
        """No further requests: close once those in progress are over."""
        self._refusing = True
        if not self.streams:
            self.closing = True

    def stop(self) -> None:
        """The connection is closing: drop whatever still comes."""
        self.closing = True
        self._buffer = b""

    @property
    def is_midway(self) -> bool:
        """A record has begun and has not ended."""
        return bool(self._buffer or self._remaining or self._padding)

    def take(self) -> list[bytes]:
        """The output, as pieces in order; what a request wrote since the last time is one
        record, or as few as it needs."""
        out = self._out
        for stream in self._dirty:
            number = stream.number
            if stream.pieces:
                out += stream_records(STDOUT, number, stream.pieces)
                stream.pieces = []
            if stream.end is not None:
                if stream.report:
                    out += (record(STDERR, number, stream.report), record(STDERR, number))
                out.append(stream.end)
        self._dirty.clear()
        self._out = []
        self.pending = 0
        return out

    def _write(self, data: bytes) -> None:
        if not self.pending:
            self._on_output(self._owner)
        self._out.append(data)
        self.pending += len(data)


def _explain(version: int, first: bool) -> str:
    if first:
        if version == 22:
            return "TLS was spoken to a port that speaks FastCGI"
        letter = bytes((version,))
        if letter.isalpha():
            return "the port speaks FastCGI, and this looks like HTTP"
        if letter.isdigit():
            return "the port speaks FastCGI, and this looks like SCGI"
        if not version:
            return "the port speaks FastCGI, and this looks like uwsgi"
    return f"a record has the version {version}, not 1"


@lru_cache(maxsize=64)
def _ending(number: int) -> bytes:
    """The end of a complete response."""
    return record(STDOUT, number) + end_request(number, 0, REQUEST_COMPLETE)


def _with_content(head: GatewayHead) -> GatewayHead:
    """The same request, with content whose length the front does not say."""
    head = copy.copy(head)
    head.has_body = True
    head.template = None
    head.environ = None
    return head
