"""One connection that carries one request and its response: SCGI and uwsgi, after their heads.

Rules of this file:

1. The request is a head, framed as the protocol says (`_read_head`), and as much content as
   CONTENT_LENGTH says; what follows is a lie about the length, unless the request may switch
   protocols. Nobody waits for an end of file: nginx does not send one.
2. The response ends with the connection. One that is complete before its head left gets a
   ``content-length`` all the same: then the front can tell when it lacks something.
3. An orderly end says that the response is complete. One that is not ends in a reset (`cut`),
   or the front would hand it on as complete.
4. No 1xx is ever sent: fronts take it for the final response. So informational responses,
   100 (Continue) among them, and trailers are dropped.
5. `receive` never raises and is never re-entered. A broken request is answered here.

This is also the `Stream` of the one exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from omnicorn.errors import LocalProtocolError, RemoteProtocolError
from omnicorn.http.defaults import HAS_DATE, HAS_SERVER
from omnicorn.http.fields import check_pair
from omnicorn.ports import HIGH_WATER

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnicorn.http.defaults import DefaultFields
    from omnicorn.ports import Headers, StreamHandler
    from omnicorn.protocols.cgi.environment import EnvironmentParser, GatewayHead
    from omnicorn.protocols.cgi.responses import ResponseEncoder

# The peer's state, in order.
IDLE, HEAD, BODY, COMPLETE, CLOSED = range(5)
# This side's state, in order.
L_IDLE, L_WAITING, L_BODY, L_TRAILERS, L_COMPLETE, L_CLOSED = range(6)

# How the response's content is delimited.
_UNDECIDED, _BY_LENGTH, _BY_CLOSE, _NO_CONTENT = range(4)

_OURS = HAS_SERVER | HAS_DATE
"""`server` and `date` are the front's: of the default fields, only configured ones are sent."""
_REFUSAL = [(b"content-type", b"text/plain; charset=utf-8")]


class GatewayOwner(Protocol):
    """What an engine tells its connection: the part of `StreamOwner` that there is here."""

    def on_request(self, stream: Any, head: Any) -> StreamHandler: ...
    def on_full(self) -> None: ...
    def on_readable(self, wanted: bool) -> None: ...
    def on_complete(self, stream: Any) -> None: ...


Owner = TypeVar("Owner", bound=GatewayOwner)


class GatewayEngine(Generic[Owner]):
    """The application server's side of one connection.

    Args:
        owner: Told of the request and of the exchange's progress.
        parser: Shared by the connections of a protocol.
        encoder: Shared by the connections of a protocol.
        defaults: The fields of every response.
        on_output: Called with the owner when there is output and there was none before.

    Attributes:
        remote: The peer's state.
        local: This side's state.
        closing: Close once the output is written.
        cut: The response ended before it was complete, and only a reset can say so.
        out: Bytes to write, in order; all of them where a response is complete or cut, otherwise
            `take` gives them.
        pending: About how many bytes `take` will give.
        reading: More bytes of the peer are wanted.
        error: Why the peer was refused.
        client: The front's peer, once there is a request; None on a unix socket.
        blocked: The peer reads slowly; set by the connection.
        remote_closed: The peer has sent its last byte.
    """

    __slots__ = (
        "_buffer",
        "_defaults",
        "_encoder",
        "_framing",
        "_handler",
        "_head",
        "_left",
        "_on_output",
        "_owner",
        "_parser",
        "_remaining",
        "_trailers",
        "_unread",
        "blocked",
        "client",
        "closing",
        "cut",
        "error",
        "local",
        "out",
        "pending",
        "reading",
        "remote",
        "remote_closed",
    )

    def __init__(
        self,
        owner: Owner,
        parser: EnvironmentParser,
        encoder: ResponseEncoder,
        defaults: DefaultFields,
        on_output: Callable[[Owner], object],
    ) -> None:
        self._owner = owner
        self._parser = parser
        self._encoder = encoder
        self._defaults = defaults
        self._on_output = on_output
        self._handler: StreamHandler | None = None
        self._head: GatewayHead | None = None
        self._buffer = b""
        self._unread = 0  # request content the application has not taken
        self.out: list[bytes] = []
        self.pending = 0
        self.remote = IDLE
        self.local = L_IDLE
        self.reading = True
        self.client: tuple[str, int] | None = None
        self.blocked = False
        self.closing = False
        self.cut = False
        self.remote_closed = False
        self.error: RemoteProtocolError | None = None

    # ------------------------------------------------------------------ of the protocol

    def _read_head(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Take the head off the bytes received so far.

        Returns:
            The environment's block and what follows the head; None where it is incomplete.

        Raises:
            RemoteProtocolError: It cannot become one; said as early as it is known.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------ from the peer

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer, in any segmentation."""
        try:
            if self.remote <= HEAD:
                if self._buffer:
                    data = self._buffer + data
                found = self._read_head(data)
                if found is None:
                    self.remote = HEAD
                    self._buffer = data
                    return
                block, data = found
                self._buffer = b""
                head, self.client = self._parser.parse_shared(block)
                if head.has_body:
                    if head.length < 0:
                        reason = "the front does not say how long the content is"
                        raise RemoteProtocolError(reason, 411)
                    self._remaining = head.length - len(data)  # content still to come
                    self.remote = BODY
                else:
                    self.remote = COMPLETE
                self._head = head
                self.local = L_WAITING
                if data and self.remote == COMPLETE:
                    self._read_past(data)  # before the upcall: it may hand over to the next
                    data = b""
                handler = self._owner.on_request(self, head)
                if L_IDLE < self.local < L_COMPLETE:  # else it was answered within the upcall
                    self._handler = handler
            elif self.remote == BODY:
                self._remaining -= len(data)
            if data:
                if self.remote == BODY:
                    data = self._read_body(data)
                if data and self.remote == COMPLETE:
                    self._read_past(data)
        except RemoteProtocolError as error:
            self._fail(error, error.status)
        if self._unread or self._buffer or not self.reading:
            self._steer()

    def receive_eof(self) -> None:
        """The peer sends nothing more; it may still read."""
        self.remote_closed = True
        if self.remote == COMPLETE:
            if self._handler is not None:
                self._handler.on_remote_closed()
        elif self.remote == IDLE:
            self.remote = CLOSED
            self.closing = True
        elif self.remote <= BODY and self.local < L_COMPLETE:
            what = "head" if self.remote == HEAD else "content"
            self._fail(RemoteProtocolError(f"the request's {what} ends too early"), 400)
        else:
            self.remote = CLOSED
            self.closing = True

    def connection_lost(self) -> None:
        """The connection is gone: the exchange ends here, and no upcall follows."""
        self.remote = CLOSED
        self.local = L_CLOSED
        self.closing = True
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.on_reset(None)
        # It holds this engine: a cycle that only the garbage collector would find.
        self._owner = None  # type: ignore[assignment]

    def timed_out(self) -> None:
        """The peer let its deadline pass: 408 where a request was begun (RFC 9110 §15.5.9)."""
        if self.remote == HEAD or (self.remote == BODY and self.local < L_COMPLETE):
            what = "head" if self.remote == HEAD else "content"
            error = RemoteProtocolError(f"the request's {what} did not arrive in time", 408)
            self._fail(error, 408)
        else:
            self.remote = CLOSED
            self.closing = True

    def _read_body(self, data: bytes) -> bytes:
        """Pass content on; returns what follows it."""
        remaining = self._remaining
        rest = b""
        if remaining <= 0:
            self.remote = COMPLETE
            if remaining:
                rest = data[remaining:]
                data = data[:remaining]
        handler = self._handler
        if handler is not None:
            self._unread += len(data)
            handler.on_data(data)
            if remaining <= 0 and self._handler is handler:  # else it was answered within on_data
                handler.on_end()
        return rest

    def _read_past(self, data: bytes) -> None:
        """Bytes behind the request: the next protocol's, or a lie about the length."""
        if self.local >= L_COMPLETE:
            return
        head = self._head
        if head is None or head.upgrade is None:
            raise RemoteProtocolError("there is more content than CONTENT_LENGTH says")
        self._buffer += data

    def _steer(self) -> None:
        """Ask for more bytes, or for a pause, where that has changed."""
        if self.local == L_CLOSED:
            return
        wanted = self._unread <= HIGH_WATER and len(self._buffer) <= HIGH_WATER
        if wanted != self.reading:
            self.reading = wanted
            self._owner.on_readable(wanted)

    def _fail(self, error: RemoteProtocolError, status: int) -> None:
        """The peer broke the rules: answer if that is still possible, then close."""
        self.error = error.with_traceback(None)  # whose frames would hold this engine
        self.remote = CLOSED
        self.closing = True
        self._buffer = b""
        handler, self._handler = self._handler, None
        if self.local <= L_WAITING:
            self.local = L_WAITING
            body = b"%b\n" % error.reason.encode()
            self.send_head(status, [*_REFUSAL, (b"content-length", b"%d" % len(body))])
            if self._framing == _BY_LENGTH:  # else the request was a HEAD
                self._write(body)
        elif self.local < L_COMPLETE:
            self.cut = True
        self.local = L_CLOSED
        if handler is not None:
            handler.on_reset(error)

    # ------------------------------------------------------------------ to the peer

    def send_informational(self, status: int, headers: Headers) -> None:
        """See `Stream`: fronts take no 1xx, so nothing is sent."""
        if self.local != L_WAITING:
            raise LocalProtocolError("an informational response comes before the final one")
        self._encoder.check_fields(headers)

    def send_continue(self) -> None:
        """See `Stream`: the front has answered ``Expect`` itself."""

    def send_head(self, status: int, headers: Headers, trailers: bool = False) -> None:
        if self.local != L_WAITING:
            raise LocalProtocolError("the response's head comes once, after the request's")
        try:
            encoded = self._encoder.encode((status, *headers))
        except TypeError:
            raise LocalProtocolError(f"headers must be pairs, not {headers!r:.80}") from None
        self.local = L_BODY
        self._trailers = trailers  # the response has some
        self._left = 0  # content still owed, by content-length
        head = self._head
        lines = self._defaults.lines or self._defaults.refresh()
        out = self.out  # as empty as ever before a head
        self._on_output(self._owner)
        out += (encoded.lines, lines[_OURS])
        self.pending = len(encoded.lines)
        if encoded.no_content or (head is not None and head.head_only):
            self._framing = _NO_CONTENT
        elif encoded.length >= 0:
            self._framing = _BY_LENGTH
            self._left = encoded.length
        else:
            self._framing = _UNDECIDED
            return
        out.append(b"\r\n")

    def _decide(self) -> None:
        """The head leaves before the content is complete: it ends with the connection."""
        self._framing = _BY_CLOSE
        self.out.append(b"\r\n")

    def send_data(self, data: bytes, end: bool) -> bool:
        if self.local != L_BODY:
            raise LocalProtocolError("content comes between the response's head and its end")
        size = len(data)
        framing = self._framing
        if framing == _UNDECIDED:
            if end:
                self.out.append(b"content-length: %d\r\n\r\n" % size)
                self._framing = _BY_LENGTH
            else:
                self._decide()
        elif framing == _BY_LENGTH:
            if size > self._left:
                raise LocalProtocolError(
                    f"content-length leaves {self._left} bytes to send, and {size} were given"
                )
            self._left -= size
        elif framing == _NO_CONTENT:
            size = 0
        if size:
            out = self.out
            if not out:
                self._on_output(self._owner)
            out.append(data)
            self.pending += size
        if end:
            if self._left or self._trailers:
                self._end_early()
            else:
                self._complete()
        elif self.pending > HIGH_WATER:
            self._owner.on_full()
        return not self.blocked

    def reserve_raw(self, count: int) -> bool:
        """See `Stream`."""
        if self.local != L_BODY:
            raise LocalProtocolError("content comes between the response's head and its end")
        if self._framing == _UNDECIDED:
            self._decide()
        if self._framing == _NO_CONTENT or not count:
            return False
        if self._framing == _BY_LENGTH:
            if count > self._left:
                raise LocalProtocolError(
                    f"content-length leaves {self._left} bytes to send, and the file has {count}"
                )
            self._left -= count
        return True

    def raw_written(self) -> None:
        """See `Stream`: nothing follows them."""

    def send_trailers(self, headers: Headers) -> None:
        """See `Stream`; fronts take none, so they are checked and dropped."""
        if self.local != L_TRAILERS:
            raise LocalProtocolError("trailers come after the content, if the head announced them")
        self._encoder.check_fields(headers)
        self._complete()

    def _end_early(self) -> None:
        """The content is over, but not the response."""
        left = self._left
        if not left:
            self.local = L_TRAILERS
            return
        self.cut = True
        self._complete()
        raise LocalProtocolError(f"the response ended {left} bytes short of content-length")

    def _complete(self) -> None:
        self.local = L_COMPLETE
        self._handler = None
        self._unread = 0
        self.closing = True
        self._owner.on_complete(self)

    def reset(self) -> None:
        if self.local == L_CLOSED:
            return
        self.cut = True
        self.closing = True
        self._handler = None
        self.local = L_CLOSED
        self._owner.on_complete(self)
        self.remote = CLOSED

    def consumed(self, count: int) -> None:
        self._unread -= count
        self._steer()

    def switch_protocols(self, protocol: bytes, headers: Headers) -> bytes:
        """Answer an upgrade with 101, which the front tunnels; this engine's part ends there.

        Args:
            protocol: What is spoken from here on, as the request's ``upgrade`` named it.
            headers: Further fields of the answer.

        Returns:
            The bytes read past the request.

        Raises:
            LocalProtocolError: A field cannot be sent, or there is nothing to answer.
        """
        if self.remote != COMPLETE or self.local != L_WAITING:
            raise LocalProtocolError("an upgrade answers a complete request")
        lines = b"".join([b"%b: %b\r\n" % check_pair(pair) for pair in headers])
        own = self._defaults.lines or self._defaults.refresh()
        self._write(
            b"%bconnection: Upgrade\r\nupgrade: %b\r\n%b%b\r\n"
            % (self._encoder.first_line(101), protocol, lines, own[_OURS])
        )
        rest, self._buffer = self._buffer, b""
        self.remote = CLOSED
        self.local = L_CLOSED
        self._handler = None
        self._owner = None  # type: ignore[assignment]  # it holds this engine
        return rest

    def stop(self) -> None:
        """The connection is closing: drop whatever still comes."""
        self.remote = CLOSED
        self.closing = True
        self._buffer = b""

    # ------------------------------------------------------------------ output

    def take(self) -> list[bytes]:
        """The output, as pieces in order."""
        if self.local == L_BODY and self._framing == _UNDECIDED:
            self._decide()
        out = self.out
        self.out = []
        self.pending = 0
        return out

    @property
    def takes_content(self) -> bool:
        """See `Stream`."""
        return self._framing != _NO_CONTENT

    @property
    def is_responding(self) -> bool:
        """A response has begun and has not ended."""
        return self.local == L_BODY or self.local == L_TRAILERS

    @property
    def expects_more(self) -> bool:
        """Whether the peer may still be sending something that nobody will read."""
        return not self.remote_closed and (self.error is not None or self.remote == BODY)

    @property
    def owed(self) -> int:
        """How much content is still to come; 0 where that is not known."""
        return max(0, self._remaining) if self.remote == BODY else 0

    def _write(self, data: bytes) -> None:
        if not self.out:
            self._on_output(self._owner)
        self.out.append(data)
        self.pending += len(data)
