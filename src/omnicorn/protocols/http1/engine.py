"""One HTTP/1 connection's conversation: whose turn it is, what persists, what fails.

Rules of this file:

1. One exchange at a time. The next head is parsed when both sides of the current one are
   complete (`states`); what arrives before waits, and past `HIGH_WATER` bytes reading
   pauses. Not at the first byte: a transport that does not read cannot tell of a reset.
2. `receive` never raises and is never re-entered. A broken request is answered here
   (400, 408, 413, 414, 431, 501), a broken exchange whose response has begun is cut.
3. How content is delimited is decided as late as possible: a response that is complete
   before its head left gets a ``content-length``; else it is chunked, or to HTTP/1.0
   ended by closing. Pieces of one flush leave as one chunk.
4. A response that must not have content (HEAD, 204, 304) drops it, whatever is sent.

This is also the `Stream` of its one exchange; the bridge stops calling verbs when its own
exchange is over, so an old one never speaks into a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from omnicorn.errors import LocalProtocolError, RemoteProtocolError
from omnicorn.http.status import status_line
from omnicorn.ports import HIGH_WATER, StreamOwner
from omnicorn.protocols.http1.chunked import ChunkedDecoder
from omnicorn.protocols.http1.requests import CHUNKED, NO_BODY, SHORT, Head
from omnicorn.protocols.http1.states import (
    BODY,
    CLOSED,
    COMPLETE,
    HEAD,
    IDLE,
    L_BODY,
    L_CLOSED,
    L_COMPLETE,
    L_IDLE,
    L_TRAILERS,
    L_WAITING,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnicorn.http.defaults import DefaultFields
    from omnicorn.ports import Headers, StreamHandler
    from omnicorn.protocols.http1.requests import RequestParser
    from omnicorn.protocols.http1.responses import ResponseEncoder

# How the response's content is delimited.
_BY_LENGTH = 0
_UNDECIDED = 1
_CHUNKED = 2
_BY_CLOSE = 3
_NO_CONTENT = 4

DISCARD = 65536
"""Bytes of an unread request body that are read and dropped to keep the connection."""

_TURN = 64
"""Pipelined requests that are answered in one go, where the application never waits."""

Owner = TypeVar("Owner", bound=StreamOwner)

_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
"""What HTTP/2's preface is to a parser of HTTP/1 (RFC 9113 §3.4)."""
_TLS = b"\x16\x03"
"""How a TLS handshake begins (RFC 8446 §5.1)."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_INFORMATIONAL = frozenset({102, 103})  # 100 and 101 are the protocol's own
_REFUSAL = [(b"content-type", b"text/plain; charset=utf-8")]


class Http1Engine(Generic[Owner]):
    """The server's side of one connection.

    Args:
        owner: Told of requests and of the exchange's progress.
        parser: Shared by the connections of a server.
        encoder: Shared by the connections of a server.
        defaults: The fields of every response; shared as well.
        on_output: Called with the owner when there is output and there was none before.

    Attributes:
        remote: The peer's state, of `states`.
        local: This side's state.
        out: Bytes to write, in order; all of them where a response is complete or cut,
            else `take` them.
        closing: No further request is read; close once the output is written.
        cut: The response ended before it was complete and only a reset can say so.
        pending: About how many bytes `take` will give.
        reading: More bytes of the peer are wanted.
        error: Why the peer was refused.
        blocked: The peer reads slowly; set by the connection.
        remote_closed: The peer has sent its last byte.
    """

    __slots__ = (
        "_announced_trailers",
        "_buffer",
        "_decoder",
        "_defaults",
        "_discarded",
        "_expecting",
        "_framing",
        "_handler",
        "_head",
        "_heads",
        "_keep_alive",
        "_left",
        "_on_output",
        "_owner",
        "_parser",
        "_pieces",
        "_receiving",
        "_remaining",
        "_response_heads",
        "_responses",
        "_scanned",
        "_skipped",
        "_unread",
        "_whole",
        "blocked",
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
        parser: RequestParser,
        encoder: ResponseEncoder,
        defaults: DefaultFields,
        on_output: Callable[[Owner], object],
    ) -> None:
        self._owner = owner
        self._on_output = on_output
        self._parser = parser
        self._heads = parser.heads
        self._whole = parser.limits.line  # a head up to here exceeds no limit of size
        self._defaults = defaults
        self._responses = encoder
        self._response_heads = encoder.heads
        self._handler: StreamHandler | None = None
        self._head: Head | None = None
        self._decoder: ChunkedDecoder | None = None
        self._buffer = b""
        self._pieces: list[bytes] | None = None
        self._receiving = False
        self.reading = True
        self._scanned = 0  # bytes of `_buffer` known to hold no end of a head
        self._skipped = False
        self._expecting = False
        self._keep_alive = True
        self._announced_trailers = False
        self._framing = _UNDECIDED
        self._remaining = 0  # request content still to come, by content-length
        self._discarded = 0  # request content dropped after the response
        self._unread = 0  # request content the application has not taken
        self._left = 0  # response content still owed, by content-length
        self.pending = 0  # bytes in `out` and `_pieces`
        self.remote = IDLE
        self.local = L_IDLE
        self.out: list[bytes] = []
        self.blocked = False
        self.closing = False
        self.cut = False
        self.remote_closed = False
        self.error: RemoteProtocolError | None = None

    # ------------------------------------------------------------------ from the peer

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer, in any segmentation."""
        if self.remote == IDLE and not self._buffer:
            # Most segments are one head and nothing else. One seen before is parsed by one
            # look-up; for another, parsing shows whether it is one, which spares looking
            # for its end.
            head = self._heads.get(data) if len(data) <= SHORT else None
            if head is None and data.endswith(b"\r\n\r\n") and len(data) <= self._whole:
                try:
                    head = self._parser.parse(data, self._head)
                except RemoteProtocolError:
                    head = None  # said again, and answered, below
            if head is not None and head.framing == NO_BODY:
                self._begin(head)  # nothing follows it: to `proceed` within is as later
                return
        self._advance(data)

    def receive_eof(self) -> None:
        """The peer sends nothing more; it may still read (RFC 9112 §9.6)."""
        self.remote_closed = True
        if self.remote == COMPLETE:
            if self._handler is not None:
                self._handler.on_remote_closed()
        elif self.remote == BODY and self.local != L_COMPLETE:
            self._lose_body()
        else:
            self.remote = CLOSED
            self.closing = True

    def connection_lost(self) -> None:
        """The connection is gone: the exchange ends here, and no upcall follows."""
        self.remote = CLOSED
        self.local = L_CLOSED
        self.closing = True
        handler = self._handler
        if handler is not None:
            self._handler = None
            handler.on_reset(None)
        # It holds this engine: a cycle that only the garbage collector would find.
        self._owner = None  # type: ignore[assignment]

    def timed_out(self) -> None:
        """The peer let its deadline pass: 408 where a request was begun (RFC 9110 §15.5.9)."""
        if self.remote == HEAD or (self.remote == BODY and self.local != L_COMPLETE):
            what = "head" if self.remote == HEAD else "body"
            self._fail(RemoteProtocolError(f"the request {what} did not arrive in time", 408), 408)
        else:
            self.remote = CLOSED
            self.closing = True

    def switch_protocols(self, protocol: bytes, headers: Headers) -> bytes:
        """Answer an upgrade with 101 (RFC 9110 §7.8, §15.2.2); this engine's part ends there.

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
        lines = self._responses.encode_fields(headers)
        own = self._defaults.lines or self._defaults.refresh()
        self._write(
            b"%bconnection: Upgrade\r\nupgrade: %b\r\n%b%b\r\n"
            % (status_line(101), protocol, lines, own[self._responses.own_fields(headers)])
        )
        rest, self._buffer = self._buffer, b""
        self._leave()
        return rest

    def _leave(self) -> None:
        """Another protocol is spoken from here on."""
        self.remote = CLOSED
        self.local = L_CLOSED
        self._handler = None
        self._owner = None  # type: ignore[assignment]  # it holds this engine

    def proceed(self) -> None:
        """Both sides are complete, and the connection is ready: take the next request."""
        if self.remote != COMPLETE or self.local != L_COMPLETE:
            raise LocalProtocolError("the next request waits until this exchange is complete")
        self.remote = IDLE
        self.local = L_IDLE
        self._skipped = False
        if self._receiving:
            return  # the loop in `_advance` goes on by itself
        if self._buffer:
            self._advance(b"")
        elif self.remote_closed:
            self.remote = CLOSED
            self.closing = True
        elif not self.reading:
            self._steer()

    def _advance(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            scanned = self._scanned
            self._buffer = b""
        else:
            scanned = 0
        self._scanned = 0
        self._receiving = True
        exchanges = 0
        try:
            while True:
                remote = self.remote
                if remote <= HEAD:
                    if not data:
                        if self.remote_closed:
                            self.remote = CLOSED
                            self.closing = True
                        break
                    exchanges += 1
                    if exchanges % _TURN == 0:
                        self._owner.on_full()  # answered as they come; others want their turn
                    rest = self._read_head(data, scanned)
                    scanned = 0
                    # An incomplete head, or nothing more of it: see to a peer that left.
                    data = b"" if rest is None else rest
                    if rest is None and not self.remote_closed:
                        break
                elif remote == BODY:
                    if not data:
                        if self.remote_closed:
                            self._lose_body()
                        break
                    data = self._read_body(data)
                elif remote == COMPLETE:
                    self._buffer = data
                    break
                else:  # CLOSED: whatever still comes is dropped
                    break
        except RemoteProtocolError as error:
            if data.startswith(_TLS):
                error.reason = "TLS was spoken to a port that does not speak it"
            self._fail(error, error.status)
        finally:
            self._receiving = False
        self._steer()

    def _steer(self) -> None:
        """Ask for more bytes, or for a pause, where that has changed."""
        if self.local == L_CLOSED:
            return
        wanted = self._unread <= HIGH_WATER and not (
            self.remote == COMPLETE and len(self._buffer) > HIGH_WATER
        )
        if wanted != self.reading:
            self.reading = wanted
            self._owner.on_readable(wanted)

    def _read_head(self, data: bytes, scanned: int) -> bytes | None:
        """Parse one head; returns what follows it, or None where it is incomplete."""
        if not self._skipped and data.startswith(b"\r"):
            # RFC 9112 §2.2: one empty line in front of the request line is ignored.
            if len(data) == 1:
                self.remote = HEAD
                self._buffer = data
                return None
            if data.startswith(b"\r\n"):
                self._skipped = True
                self.remote = IDLE  # nothing has begun: some clients end a body this way
                data = data[2:]
                scanned = 0
                if not data:
                    return None
        limits = self._parser.limits
        # The empty line may have begun in the bytes scanned before.
        found = data.find(b"\r\n\r\n", max(0, scanned - 3))
        if found < 0:
            self.remote = HEAD
            self._parser.check_incomplete(data, scanned)
            self._buffer = data
            self._scanned = len(data)
            return None
        end = found + 4
        if end > limits.line:
            self._parser.check_size(data, end)
        block = data[:end]
        head = self._parser.heads.get(block) if end <= SHORT else None
        if head is None:
            if block == _PREFACE and self._may_switch() and self._owner.on_preface(data):
                self._leave()
                return None
            head = self._parser.parse(block, self._head)
        if head is None:
            raise RemoteProtocolError("the request line is empty")
        # In the buffer, where a hand-over from within the upcall finds it.
        self._buffer = data[end:]
        self._begin(head)
        return self._take_buffer()

    def _may_switch(self) -> bool:
        """HTTP/2 with prior knowledge stands at the very beginning (RFC 9113 §3.3)."""
        return self._head is None and not self._skipped

    def _take_buffer(self) -> bytes:
        data, self._buffer = self._buffer, b""
        return data

    def _begin(self, head: Head) -> None:
        self._head = head
        self._keep_alive = head.keep_alive
        self.local = L_WAITING
        framing = head.framing
        if framing == NO_BODY:
            self.remote = COMPLETE  # and nothing remains of the request before
        else:
            self.remote = BODY
            self._remaining = head.length
            self._expecting = head.expects_continue
            self._unread = 0
            self._decoder = ChunkedDecoder(self._parser.limits) if framing == CHUNKED else None
        handler = self._owner.on_request(self, head)
        local = self.local
        if local == L_WAITING or L_IDLE < local < L_COMPLETE:
            self._handler = handler  # else it was answered within the upcall
            if self.remote_closed and self.remote == COMPLETE:
                handler.on_remote_closed()

    def _read_body(self, data: bytes) -> bytes:
        """Pass content on; returns what follows the body."""
        self._expecting = False
        decoder = self._decoder
        if decoder is not None:
            content = decoder.feed(data)
            rest = decoder.rest
            ended = decoder.done
        else:
            content = data
            rest = b""
            if len(data) > self._remaining:
                content = data[: self._remaining]
                rest = data[self._remaining :]
            self._remaining -= len(content)
            ended = not self._remaining
        if ended:
            self.remote = COMPLETE
            self._decoder = None
        if self.local == L_COMPLETE:
            self._discard(len(content), ended)
            return rest
        handler = self._handler
        if handler is not None:
            if content:
                self._unread += len(content)
                handler.on_data(content)
            if ended and self._handler is handler:  # else it was answered within on_data
                handler.on_end()
        return rest

    def _discard(self, count: int, ended: bool) -> None:
        """The response is out; the rest of the request is only in the way."""
        self._discarded += count
        if ended:
            self._owner.on_ready()
        elif self._discarded > DISCARD:
            self.remote = CLOSED
            self.closing = True

    def _lose_body(self) -> None:
        self._fail(RemoteProtocolError("the peer left in the middle of a request body"), None)

    def _fail(self, error: RemoteProtocolError, status: int | None) -> None:
        """The peer broke the rules, or left: answer if that is still possible, then close."""
        self.error = error.with_traceback(None)  # whose frames would hold this engine
        self.remote = CLOSED
        self.closing = True
        self._buffer = b""
        handler, self._handler = self._handler, None
        if self.local == L_IDLE:
            self._head = None  # the request before this one does not shape the answer
        if self.local <= L_WAITING and status is not None:
            self._keep_alive = False
            self.local = L_WAITING
            body = b"%b\n" % error.reason.encode()
            self.send_head(status, [*_REFUSAL, (b"content-length", b"%d" % len(body))])
            if self._framing == _BY_LENGTH:  # else the request was a HEAD
                self._write(body)
        elif self.local == L_BODY or self.local == L_TRAILERS:
            self._cut()
        self.local = L_CLOSED
        if handler is not None:
            handler.on_reset(error)

    # ------------------------------------------------------------------ to the peer

    def send_informational(self, status: int, headers: Headers) -> None:
        if self.local != L_WAITING:
            raise LocalProtocolError("an informational response comes before the final one")
        if status not in _INFORMATIONAL:
            raise LocalProtocolError(f"the informational status {status} cannot be sent")
        lines = self._responses.encode_fields(headers)
        head = self._head
        if head is not None and not head.http10:  # RFC 9110 §15.2
            self._write(status_line(status) + lines + b"\r\n")

    def send_continue(self) -> None:
        if self._expecting:
            self._expecting = False
            if self.local == L_WAITING:
                self._write(_CONTINUE)
                self._owner.on_continue()

    def send_head(self, status: int, headers: Headers, trailers: bool = False) -> None:
        if self.local != L_WAITING:
            raise LocalProtocolError("the response's head comes once, after the request's")
        try:
            key = (status, *headers)
        except TypeError:
            raise LocalProtocolError(f"headers must be pairs, not {headers!r:.80}") from None
        try:
            encoded = self._response_heads.get(key)
        except TypeError:  # pairs given as lists
            encoded = self._responses.encode(key)
        if encoded is None:
            encoded = self._responses.encode_unknown(key)
        self.local = L_BODY
        head = self._head
        # After an unanswered Expect the peer may or may not send its body, and a long one
        # would not be read to its end: closing tells where the next request would begin.
        if encoded.close or self._expecting or self._remaining > DISCARD:
            self._keep_alive = False
        length = encoded.length
        self._announced_trailers = trailers
        out = self.out
        if not out:
            on_output = self._on_output  # no method: to be called as one takes longer
            on_output(self._owner)
        lines = self._defaults.lines or self._defaults.refresh()
        out.append(encoded.lines)
        out.append(lines[encoded.own])
        self.pending += len(encoded.lines)
        if encoded.no_content or (head is not None and head.head_only):
            self._framing = _NO_CONTENT
            self._left = 0
        elif length >= 0:
            self._framing = _BY_LENGTH
            self._left = length
        else:
            self._framing = _UNDECIDED
            self._left = 0
            return
        if self._keep_alive and head is not None and not head.http10:
            out.append(b"\r\n")  # what `_end_head` would say
        else:
            self._end_head(b"")

    def _end_head(self, framing: bytes) -> None:
        """Write what ends a head: how the content is delimited, and what persists."""
        if not self._keep_alive:
            framing += b"connection: close\r\n"
        elif self._head is not None and self._head.http10:
            framing += b"connection: keep-alive\r\n"
        self.out.append(framing + b"\r\n")

    def _decide_framing(self) -> None:
        """The head leaves before the content is complete: chunked, or ended by closing."""
        head = self._head
        if head is not None and head.http10:
            self._framing = _BY_CLOSE
            self._keep_alive = False
            self._end_head(b"")
        else:
            self._framing = _CHUNKED
            self._pieces = []
            self._end_head(b"transfer-encoding: chunked\r\n")

    def send_data(self, data: bytes, end: bool) -> bool:
        if self.local != L_BODY:
            raise LocalProtocolError("content comes between the response's head and its end")
        size = len(data)
        framing = self._framing
        if framing == _BY_LENGTH:
            left = self._left - size
            if left < 0:
                raise LocalProtocolError(
                    f"content-length leaves {self._left} bytes to send, and {size} were given"
                )
            self._left = left
        elif framing == _UNDECIDED:
            if end and not self._announced_trailers:
                self._end_head(b"content-length: %d\r\n" % size)
                self._framing = _BY_LENGTH
            else:
                self._decide_framing()
        elif framing == _NO_CONTENT:
            size = 0
        if size:
            out = self.out
            if not out and not self._pieces:
                self._on_output(self._owner)
            if self._framing == _CHUNKED:
                self._pieces.append(data)  # type: ignore[union-attr]
            else:
                out.append(data)
            self.pending += size
        if end:
            if self._left or self._framing == _CHUNKED or self._announced_trailers:
                self._end()
            else:
                self._complete()
        elif self.pending > HIGH_WATER:
            self._owner.on_full()
        return not self.blocked

    def reserve_raw(self, count: int) -> bool:
        """Make room in the framing for *count* bytes that the transport writes by itself.

        The caller flushes before and writes exactly *count* bytes; for chunked content the
        CRLF behind them is this engine's next output.
        """
        if self.local != L_BODY:
            raise LocalProtocolError("content comes between the response's head and its end")
        if self._framing == _UNDECIDED:
            self._decide_framing()
        if self._framing == _NO_CONTENT or not count:
            return False
        if self._framing == _BY_LENGTH:
            if count > self._left:
                raise LocalProtocolError(
                    f"content-length leaves {self._left} bytes to send, and the file has {count}"
                )
            self._left -= count
        elif self._framing == _CHUNKED:
            self._close_chunk()
            self._write(b"%x\r\n" % count)
        return True

    def raw_written(self) -> None:
        """The bytes of `reserve_raw` are written."""
        if self._framing == _CHUNKED and self.local == L_BODY:
            self._write(b"\r\n")

    def send_trailers(self, headers: Headers) -> None:
        if self.local != L_TRAILERS:
            raise LocalProtocolError("trailers come after the content, if the head announced them")
        lines = self._responses.encode_fields(headers)
        head = self._head
        # RFC 9110 §6.5.1: only to a client that said it takes them.
        self._finish_content(lines if head is not None and head.trailers else b"")

    def _end(self) -> None:
        if self._left:
            left = self._left
            self._cut()
            self._complete()
            raise LocalProtocolError(f"the response ended {left} bytes short of content-length")
        if self._announced_trailers:
            self.local = L_TRAILERS
        else:
            self._finish_content(b"")

    def _finish_content(self, trailers: bytes) -> None:
        if self._framing == _CHUNKED:
            self._close_chunk()
            self._write(b"0\r\n%b\r\n" % trailers)
        self._complete()

    def _complete(self) -> None:
        self.local = L_COMPLETE
        self._handler = None
        self._unread = 0
        if not self._keep_alive:
            self.closing = True
        elif self.remote == BODY:
            # The request's body is still coming: worth waiting for, if it is short.
            self._discarded = 0
            if self._decoder is None and self._remaining > DISCARD:
                self.closing = True
            self._steer()
        self._owner.on_complete(self)

    def _cut(self) -> None:
        """The response cannot be completed: make sure that the peer can tell."""
        if self._framing == _UNDECIDED and self.local == L_BODY:
            self._decide_framing()
        self._close_chunk()
        self._keep_alive = False
        self.closing = True
        if self._framing == _BY_CLOSE:
            self.cut = True

    def reset(self) -> None:
        if self.local == L_CLOSED:
            return
        self._cut()
        self._handler = None
        self.local = L_CLOSED
        self._owner.on_complete(self)
        self.remote = CLOSED

    def consumed(self, count: int) -> None:
        self._unread -= count
        if not self._receiving:
            self._steer()

    def stop(self) -> None:
        """The connection is closing: drop whatever still comes."""
        self.remote = CLOSED
        self.closing = True
        self._buffer = b""

    def refuse_more(self) -> None:
        """The exchange in progress is this connection's last."""
        self._keep_alive = False
        if self.remote <= HEAD and self.local == L_IDLE:
            self.remote = CLOSED
            self.closing = True

    # ------------------------------------------------------------------ output

    def take(self) -> list[bytes]:
        """The output, as pieces in order; what was content of one flush is one chunk."""
        if self._framing == _UNDECIDED and self.local == L_BODY:
            self._decide_framing()
        if self._pieces:
            self._close_chunk()
        out = self.out
        self.out = []
        self.pending = 0
        return out

    @property
    def is_complete(self) -> bool:
        """Both sides of the exchange are complete: `proceed` may be called."""
        return self.remote == COMPLETE and self.local == L_COMPLETE

    @property
    def awaits_peer(self) -> bool:
        """In the middle of a body, whether it is the peer that keeps it waiting."""
        return self.reading and not self._expecting

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
        return not self.remote_closed and (
            self.error is not None
            or self.remote == BODY
            or self._discarded > DISCARD
            or bool(self._buffer)
        )

    def _close_chunk(self) -> None:
        pieces = self._pieces
        if pieces:
            out = self.out
            size = sum(map(len, pieces))
            out.append(b"%x\r\n" % size)
            out += pieces
            out.append(b"\r\n")
            pieces.clear()

    def _write(self, data: bytes) -> None:
        if not self.out and not self._pieces:
            self._on_output(self._owner)
        self.out.append(data)
        self.pending += len(data)
