"""One HTTP/2 connection's conversation (RFC 9113): frames in, frames out.

Read here: frames, and what they mean. Field blocks are `BlockReader`'s, and what leaves is
`FrameWriter`'s.

Rules of this file:

1. `receive` never raises and is never re-entered. What a peer does wrong on one stream ends
   that stream (RST_STREAM, or a status where it asked for too much); what breaks the
   connection's own rules ends it (GOAWAY). `guards` decide what is too much of a kind.
2. Windows follow consumption: a stream's opens as its application takes the content, the
   connection's likewise. Content that waits on slow streams is *lent* to the connection, up
   to `LENT_WINDOWS` of its windows, so that they do not hold up the others.

The engine's time is what its owner last said; `on_waiting` asks for it.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

from omnicorn.errors import (
    Http2Error,
    Http2StreamError,
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
)
from omnicorn.protocols.http2.blocks import BlockReader
from omnicorn.protocols.http2.codes import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    LARGEST_WINDOW,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_UPDATE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
)
from omnicorn.protocols.http2.guards import (
    DRIBBLE,
    DRIBBLED_UPLOAD,
    EMPTY_DATA,
    FREE_WINDOW_UPDATES,
    LATE_DATA,
    MADE_YOU_RESET,
    PING_FLOOD,
    PRIORITY_FLOOD,
    RAPID_RESET,
    REFUSED_STREAMS,
    SETTINGS_FLOOD,
    UNKNOWN_FRAMES,
    WINDOW_FLOOD,
)
from omnicorn.protocols.http2.priority import parse_priority
from omnicorn.protocols.http2.settings import Http2Settings, greeting
from omnicorn.protocols.http2.states import (
    ACCEPT,
    CLOSED,
    CONNECTION_CLOSED,
    CONNECTION_ERROR,
    HALF_CLOSED_LOCAL,
    HALF_CLOSED_REMOTE,
    IDLE,
    IGNORE,
    NAMES,
    OPEN,
    REACTIONS,
    RESERVED,
    RESET,
    UNUSED,
)
from omnicorn.protocols.http2.stream import ENDED, WAITING, Http2Stream, frame_head
from omnicorn.protocols.http2.writer import FrameWriter, Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from omnicorn.http.defaults import DefaultFields
    from omnicorn.ports import StreamHandler
    from omnicorn.protocols.http2.hpack import Strings
    from omnicorn.protocols.http2.requests import Head, RequestParser
    from omnicorn.protocols.http2.responses import ResponseEncoder

    Fields = Iterable[tuple[bytes, bytes]]

DISCARD = 16 << 20
"""Bytes of a request's content that are taken and dropped once its response is complete ..."""
DISCARD_TIME = 2.0
"""... and seconds, before its stream is reset. A client that is reset at once loses the answer."""
LENT_WINDOWS = 8
"""Connection windows that slow streams may fill before they hold up the others."""
_REMEMBERED_RESETS = 1024
_REMEMBERED_GAPS = 64
_REMEMBERED_PRIORITIES = 128
_DRAIN_PING = b"omnidrai"
_LAST_STREAM = 0x7FFFFFFF

_unpack_head = Struct(">BHBBL").unpack_from
_REFUSAL = [(b"content-type", b"text/plain; charset=utf-8")]

_FRAME_NAMES = (
    "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY",
    "WINDOW_UPDATE", "CONTINUATION",
)  # fmt: skip


class Http2Owner(Protocol):
    """What the engine tells its connection; `StreamOwner` fitted to many streams."""

    def on_request(self, stream: Any, head: Any) -> StreamHandler:
        """A request begins; the handler gets its body."""

    def on_complete(self, stream: Any) -> None:
        """The exchange is over on the engine's side: answered, or reset."""

    def on_dropped(self, handler: Any) -> None:
        """The exchange ended before its time; its application may still run: `orphans`."""

    def on_refused(self, error: RemoteProtocolError, stream: Any) -> None:
        """One request is refused, or reset, for what its peer did."""

    def on_full(self) -> None:
        """More than `HIGH_WATER` bytes of output wait."""

    def on_settings(self) -> None:
        """The peer's settings have changed."""

    def on_waiting(self, at_most: float = ...) -> None:
        """Something begins whose end has to come in time: content of a request, or room for
        content of a response. Sets the engine's time, and later asks for `overdue`."""


class Http2Engine(FrameWriter[Owner]):
    """The server's side of one connection.

    Args:
        owner: Told of requests and their progress.
        parser: Shared by the connections of a server, as are the next four.
        responses: Checks the heads of responses.
        strings: The memory of HPACK literals.
        defaults: The fields of every response.
        settings: How HTTP/2 is served.
        on_output: Called with the owner when there is output and there was none before.
        now: Seconds of a clock that never goes back.

    Attributes:
        stream_room: Bytes that a peer may send on a new stream.
        error: Why the peer was sent away.
        orphans: Handlers of cancelled requests whose applications still run; kept by the owner.
    """

    __slots__ = (
        "_begun",
        "_blocks",
        "_body_limit",
        "_buffer",
        "_credit",
        "_drained",
        "_gaps",
        "_goaway",
        "_heads",
        "_last",
        "_late_priorities",
        "_lent",
        "_opened",
        "_parser",
        "_preface",
        "_promised",
        "_resets",
        "_room",
        "_window_updates",
        "error",
        "orphans",
        "settings",
        "stream_room",
    )

    def __init__(
        self,
        owner: Owner,
        parser: RequestParser,
        responses: ResponseEncoder,
        strings: Strings,
        defaults: DefaultFields,
        settings: Http2Settings,
        on_output: Callable[[Owner], object],
        now: float,
    ) -> None:
        super().__init__(owner, responses, strings, defaults, on_output, now)
        self._parser = parser
        self._body_limit = parser.limits.body
        self.settings = settings
        self._begun = -1.0  # when a frame or a field block began that is not whole yet
        self._blocks = BlockReader(parser, strings)
        self._heads = self._blocks.heads
        self._buffer = b""
        self._preface = PREFACE  # what is still to come of it
        self._last = 0
        self._promised = 0
        self._gaps: list[tuple[int, int]] | None = None
        self._resets: deque[int] | None = None
        self._late_priorities: dict[int, tuple[int, bool]] | None = None
        self._goaway = -1
        self._drained = False
        self._room = max(settings.window, DEFAULT_WINDOW)
        self._credit = 0
        self._lent = 0
        self._opened = now
        self._window_updates = 0
        # RFC 9113 §6.5.3: until it has acknowledged our SETTINGS, the peer may not know them.
        self.stream_room = max(settings.stream_window, DEFAULT_WINDOW)
        self.orphans: set[Any] = set()
        self.error: RemoteProtocolError | None = None

    # ------------------------------------------------------------------ from the peer

    def begin(self) -> None:
        """Say the server's part of the preface (RFC 9113 §3.4)."""
        self.write_control(greeting(self.settings, self._parser.limits.head))

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes of the peer, in any segmentation; *now* in seconds."""
        if self.closing:
            return
        self.now = now
        self._receiving = True
        block = self._blocks.fragments
        waiting = len(self._buffer) + len(data)
        try:
            if self._preface:
                data = self._read_preface(data)
            buffer = self._buffer
            if buffer:
                data = self._complete_frame(buffer, data)
            if data and not self.closing:
                used = self._read_frames(data)
                self._buffer = data[used:] if used < len(data) else b""
        except Http2Error as error:
            self._fail(error)
        finally:
            self._receiving = False
        # Of content, a slow peer may send a frame for as long as it likes.
        buffer = self._buffer
        if self._blocks.fragments is not None or (buffer and buffer[3:4] != b"\0"):
            # The same as before, or has another one begun?
            if self._begun < 0 or not (
                len(buffer) == waiting if block is None else self._blocks.fragments is block
            ):
                self._begun = now
                self.owner.on_waiting()
        else:
            self._begun = -1.0
        if self.schedule is not None and self.schedule.count:
            self.pump()

    def _read_preface(self, data: bytes) -> bytes:
        expected = self._preface
        if not data.startswith(expected[: len(data)]) and not data.startswith(expected):
            raise Http2Error("the connection preface is broken", PROTOCOL_ERROR)
        self._preface = expected[len(data) :]
        return data[len(expected) :]

    def _complete_frame(self, buffer: bytes, data: bytes) -> bytes:
        """Read the frame that *buffer* begins, if it is whole now; returns what follows it."""
        need = 9
        for _ in range(2):
            missing = need - len(buffer)
            if missing > 0:
                buffer += data[:missing]
                data = data[missing:]
                if len(buffer) < need:
                    self._buffer = buffer
                    return b""
            need = 9 + int.from_bytes(buffer[:3], "big")
            if need > 9 + DEFAULT_FRAME_SIZE:
                break  # which is an error, said below
        self._buffer = b""
        self._read_frames(buffer)
        return data

    def _read_frames(self, data: bytes) -> int:
        """Read every whole frame in *data*; returns where the first incomplete one begins."""
        position = 0
        size = len(data)
        blocks = self._blocks
        while size - position >= 9:
            high, low, kind, flags, number = _unpack_head(data, position)
            if high or low > DEFAULT_FRAME_SIZE:
                self._refuse_size(kind, number)
            start = position + 9
            position = start + low
            if position > size:
                return start - 9
            number &= 0x7FFFFFFF
            if blocks.fragments is not None and (kind != CONTINUATION or number != blocks.stream):
                raise Http2Error("a field block is not interrupted", PROTOCOL_ERROR)
            if not self.is_greeted and (kind != SETTINGS or flags & ACK):
                raise Http2Error("the preface's first frame is SETTINGS", PROTOCOL_ERROR)
            try:
                if kind == HEADERS:
                    if flags & (PADDED | HAS_PRIORITY):
                        self._read_padded_headers(data[start:position], flags, number)
                    elif flags & END_HEADERS:
                        self._end_block(number, data[start:position], flags & END_STREAM)
                    else:
                        self._begin_block(number, data[start:position], flags)
                elif kind == DATA:
                    self._read_data(data, start, position, flags, number)
                elif kind <= CONTINUATION:
                    _READERS[kind - PRIORITY](self, data[start:position], flags, number)
                elif kind == PRIORITY_UPDATE:
                    self._read_priority_update(data[start:position], number)
                else:  # RFC 9113 §4.1: unknown types are dropped
                    self._budgets.spend(UNKNOWN_FRAMES, self.now)
            except Http2StreamError as error:
                self._reset_for(number, error)
            if self.closing:
                return size
        return position

    def _refuse_size(self, kind: int, number: int) -> None:
        name = _FRAME_NAMES[kind] if kind < len(_FRAME_NAMES) else "unknown"
        raise Http2Error(
            f"a frame ({name}) is larger than {DEFAULT_FRAME_SIZE} bytes", FRAME_SIZE_ERROR
        )

    # ------------------------------------------------------------------ field blocks

    def _read_padded_headers(self, payload: bytes, flags: int, number: int) -> None:
        payload = self._unpad(payload, flags)
        if flags & HAS_PRIORITY:  # RFC 9113 §5.3.2: deprecated; read, and dropped
            if len(payload) < 5:
                raise Http2Error("HEADERS is too short for its priority", FRAME_SIZE_ERROR)
            self._check_dependency(payload, number)
            payload = payload[5:]
        if flags & END_HEADERS:
            self._end_block(number, payload, flags & END_STREAM)
        else:
            self._begin_block(number, payload, flags)

    def _check_dependency(self, payload: bytes, number: int) -> None:
        # A stream error in RFC 7540 §5.3.1, and nothing since. No honest client does it, and an
        # idle stream cannot be reset (RFC 9113 §6.4).
        if int.from_bytes(payload[:4], "big") & 0x7FFFFFFF == number:
            raise Http2Error("a stream cannot depend on itself", PROTOCOL_ERROR)

    def _unpad(self, payload: bytes, flags: int) -> bytes:
        if not flags & PADDED:
            return payload
        if not payload:
            raise Http2Error("a padded frame lacks its pad length", FRAME_SIZE_ERROR)
        padding = payload[0]
        if padding >= len(payload):
            raise Http2Error("the padding is longer than the frame", PROTOCOL_ERROR)
        return payload[1 : len(payload) - padding]

    def _begin_block(self, number: int, fragment: bytes, flags: int) -> None:
        self._check_number(number)
        self._blocks.begin(number, fragment, flags & END_STREAM)

    def _read_continuation(self, payload: bytes, flags: int, number: int) -> None:
        blocks = self._blocks
        if blocks.fragments is None:
            raise Http2Error("CONTINUATION follows HEADERS", PROTOCOL_ERROR)
        blocks.extend(payload)
        if flags & END_HEADERS:
            self._end_block(number, blocks.end(), blocks.ended)

    def _check_number(self, number: int) -> None:
        if not number & 1:
            raise Http2Error("a client's streams have odd identifiers", PROTOCOL_ERROR)

    def _end_block(self, number: int, block: bytes, ended: int) -> None:
        """A whole field block came: a request, or the trailers of one."""
        if number <= self._last or not number & 1:
            self._read_trailers(number, block, ended)
            return
        head = self._heads[0 if ended else 1].get(block)
        refusal = None
        last = self._last
        self._last = number
        if number > last + 2 or not last:
            self._gap(last, number)
        if head is None:
            try:
                head = self._blocks.decode_request(block, ended)
            except (Http2Error, Http2StreamError):
                raise
            except RemoteProtocolError as error:
                refusal = error.with_traceback(None)  # which would hold this frame
        streams = self.streams
        if self._goaway >= 0 and number > self._goaway:
            return  # RFC 9113 §6.8: its client knows that it was not processed
        most = self.settings.max_streams
        if len(streams) + len(self.orphans) >= most and self._active() >= most:
            self._budgets.spend(REFUSED_STREAMS, self.now)
            self._write_reset(number, REFUSED_STREAM)
            return
        stream = Http2Stream(self, number, head, bool(ended))
        streams[number] = stream
        if refusal is not None:
            self._budgets.spend(MADE_YOU_RESET, self.now)
            self._answer(stream, refusal, self._blocks.head_only)
            if not ended:
                self.owner.on_waiting()
            return
        handler = self.owner.on_request(stream, head)
        if stream.local != ENDED and number in streams:  # else answered within the upcall
            stream.handler = handler
        if not stream.remote_ended:
            self.owner.on_waiting()
            if self._room < self.settings.window >> 2:
                self._lend()

    def _active(self) -> int:
        """What counts against `Http2Settings.max_streams` (RFC 9113 §5.1.2): no pushes."""
        return sum(number & 1 for number in self.streams) + len(self.orphans)

    def _gap(self, last: int, number: int) -> None:
        """Remember the identifiers that were passed over: they cannot be used any more."""
        first = last + 2 if last else 1
        if number > first:
            gaps = self._gaps
            if gaps is None:
                gaps = self._gaps = []
            gaps.append((first, number - 2))
            if len(gaps) > _REMEMBERED_GAPS:
                del gaps[0]

    def _read_trailers(self, number: int, block: bytes, ended: int) -> None:
        self._check_number(number)
        # Decoded first, whatever comes of it: the tables go on (RFC 9113 §4.3).
        try:
            fields = self._blocks.decode_trailers(block)
        except LimitExceeded as error:
            stream = self._accept(number, HEADERS)
            if stream is not None:
                self._refuse_content(stream, error.with_traceback(None), ended)
            return
        stream = self._accept(number, HEADERS)
        if stream is None:
            return
        if not ended:
            raise Http2StreamError("trailers end their stream", PROTOCOL_ERROR)
        # RFC 9113 §8.1: checked, and dropped: ASGI has no place for them.
        try:
            self._parser.check_trailers(fields)
        except LimitExceeded as error:
            self._refuse_content(stream, error.with_traceback(None), ended)
            return
        stream.end()
        self._ended(stream)

    # ------------------------------------------------------------------ content

    def _read_data(self, data: bytes, start: int, end: int, flags: int, number: int) -> None:
        size = end - start
        self._room -= size
        if self._room < 0:
            raise Http2Error("more DATA than the connection's window", FLOW_CONTROL_ERROR)
        stream = self.streams.get(number)
        if stream is None or stream.remote_ended:
            self.consumed(size)
            self._accept(number, DATA)
            self._budgets.spend(LATE_DATA, self.now)
            return
        stream.room -= size
        if stream.room < 0:
            self.consumed(size)
            raise Http2StreamError("more DATA than the stream's window", FLOW_CONTROL_ERROR)
        if flags & PADDED:
            content = self._unpad(data[start:end], flags)
            padding = size - len(content)
            # RFC 9113 §6.9.1: padding counts, and nobody else will consume it.
            if stream.handler is None:
                self.consumed(padding)
            else:
                stream.unread += padding
                stream.consumed(padding)
        else:
            content = data[start:end]
        ended = flags & END_STREAM
        if len(content) < DRIBBLE and not ended:
            if not content:
                self._budgets.spend(EMPTY_DATA, self.now)
            elif not stream.is_tunnel:
                self._budgets.spend(DRIBBLED_UPLOAD, self.now)
        stream.heard = self.now
        body_limit = self._body_limit
        if body_limit is not None and stream.local != ENDED and not stream.is_tunnel:
            stream.received += len(content)
            if stream.received > body_limit:
                self.consumed(len(content))
                error = LimitExceeded("the request body is too large", 413, body_limit)
                self._refuse_content(stream, error, ended)
                return
        stream.receive(content)
        if ended and not stream.remote_ended:
            stream.end()
            self._ended(stream)
        elif self._room < self.settings.window >> 2:
            self._lend()

    def _refuse_content(self, stream: Http2Stream, error: LimitExceeded, ended: int) -> None:
        """Content, or trailers, past a limit: say so if that can still be said."""
        self._budgets.spend(MADE_YOU_RESET, self.now)
        handler = stream.handler
        if stream.local == WAITING:
            self._answer(stream, error)
        else:
            self.owner.on_refused(error, stream)
            self._write_reset(stream.id, CANCEL)
            self._drop(stream, None, tell=False)
        if handler is not None:
            handler.on_reset(error)
        if ended:
            self._ended(stream)

    def _lend(self) -> None:
        """The connection's window is nearly full of what slow streams do not take."""
        window = self.settings.window
        amount = min(window - self._room, LENT_WINDOWS * window - self._lent)
        if amount > 0 and len(self.streams) > 1:
            self._lent += amount
            self._grant(amount)

    def _grant(self, amount: int) -> None:
        if self._room <= 0:  # nobody could send: from now on they can be waited for
            self.owner.on_waiting()
            self._opened = self.now
        self._room += amount
        self.write_control(frame_head(0, 4, WINDOW_UPDATE, 0, 0) + amount.to_bytes(4, "big"))

    def consumed(self, count: int) -> None:
        """Content has left our hands: the connection's window opens again, half of it at once."""
        if self._lent:
            repaid = min(self._lent, count)
            self._lent -= repaid
            count -= repaid
            if self._room < self.settings.window >> 2:
                self._lend()
        credit = self._credit + count
        if credit * 2 >= self.settings.window:
            self._grant(credit)
            credit = 0
        self._credit = credit

    def discard(self, stream: Http2Stream, size: int) -> None:
        """Content of a request that is answered: dropped, up to a point (RFC 9113 §8.1)."""
        self.consumed(size)
        if stream.handler is not None:
            return  # it waits for windows of its own
        stream.received += size
        if stream.received > DISCARD:
            self._dismiss_content(stream)
        else:
            self._let_finish(stream)

    def _let_finish(self, stream: Http2Stream) -> None:
        """Let the peer send the rest of an answered request, so that it gets to the answer."""
        window = self.settings.stream_window
        if stream.room * 2 < window and not stream.remote_ended:
            amount = window - stream.room
            stream.room = window
            self.write_control(
                frame_head(0, 4, WINDOW_UPDATE, 0, stream.id) + amount.to_bytes(4, "big")
            )

    def _dismiss_content(self, stream: Http2Stream) -> None:
        """The rest of an answered request is not wanted (RFC 9113 §8.1)."""
        self._write_reset(stream.id, NO_ERROR)
        self._forget(stream)
        if self._drained:
            self._settle()

    def _ended(self, stream: Http2Stream) -> None:
        """The peer has sent all of a request."""
        stream.remote_ended = True
        if stream.local == ENDED and stream.queued == 0 and stream.handler is None:
            self.streams.pop(stream.id, None)
            if self._drained:
                self._settle()

    # ------------------------------------------------------------------ other frames

    def _accept(self, number: int, kind: int) -> Http2Stream | None:
        """The stream that a frame is for; None where the frame is to be ignored.

        Raises:
            Http2StreamError, Http2Error: It cannot come in this state.
        """
        stream = self.streams.get(number)
        state = self._state(number, stream)
        reaction = REACTIONS[state][kind]
        if reaction == ACCEPT:
            return stream
        if reaction == IGNORE:
            return None
        reason = f"{_FRAME_NAMES[kind]} on a stream that is {NAMES[state]}"
        if reaction == CONNECTION_ERROR:
            raise Http2Error(reason, PROTOCOL_ERROR)
        if reaction == CONNECTION_CLOSED:
            raise Http2Error(reason, STREAM_CLOSED)
        raise Http2StreamError(reason, STREAM_CLOSED)

    def _state(self, number: int, stream: Http2Stream | None) -> int:
        """A stream's state, by RFC 9113 §5.1."""
        if stream is not None:
            if stream.remote_ended:
                promised = not number & 1 and stream.local == WAITING
                return RESERVED if promised else HALF_CLOSED_REMOTE
            return HALF_CLOSED_LOCAL if stream.local == ENDED and not stream.queued else OPEN
        if number == 0:
            return UNUSED
        if not number & 1:
            return CLOSED if number <= self._promised else IDLE
        if number > self._last:
            return IDLE
        if self._resets is not None and number in self._resets:
            return RESET
        if 0 <= self._goaway < number:  # RFC 9113 §6.8: what it is for was not processed
            return RESET
        if self._gaps is not None and any(a <= number <= b for a, b in self._gaps):
            return UNUSED
        return CLOSED

    def _read_priority(self, payload: bytes, flags: int, number: int) -> None:
        """RFC 9113 §6.3: deprecated; checked, and dropped."""
        if not number:
            raise Http2Error("PRIORITY needs a stream", PROTOCOL_ERROR)
        self._budgets.spend(PRIORITY_FLOOD, self.now)
        if len(payload) != 5:
            reason = "PRIORITY has five bytes"
            if number in self.streams:
                raise Http2StreamError(reason, FRAME_SIZE_ERROR)
            raise Http2Error(reason, FRAME_SIZE_ERROR)  # what is idle cannot be reset (§6.4)
        self._check_dependency(payload, number)

    def _read_reset(self, payload: bytes, flags: int, number: int) -> None:
        if len(payload) != 4:
            raise Http2Error("RST_STREAM has four bytes", FRAME_SIZE_ERROR)
        stream = self._accept(number, RST_STREAM)
        if stream is None:
            return
        self._budgets.spend(RAPID_RESET, self.now)
        self._drop(stream, None)

    def _read_settings(self, payload: bytes, flags: int, number: int) -> None:
        if number:
            raise Http2Error("SETTINGS is for the connection, not for a stream", PROTOCOL_ERROR)
        if flags & ACK:
            if payload:
                raise Http2Error("an acknowledgement of SETTINGS is empty", FRAME_SIZE_ERROR)
            self.stream_room = self.settings.stream_window
            return
        if self.is_greeted:
            self._budgets.spend(SETTINGS_FLOOD, self.now)
        self.apply_settings(payload)
        self.is_greeted = True
        self.write_control(frame_head(0, 0, SETTINGS, ACK, 0))

    def _read_push_promise(self, payload: bytes, flags: int, number: int) -> None:
        raise Http2Error("a client cannot push", PROTOCOL_ERROR)

    def _read_ping(self, payload: bytes, flags: int, number: int) -> None:
        if number:
            raise Http2Error("PING is for the connection, not for a stream", PROTOCOL_ERROR)
        if len(payload) != 8:
            raise Http2Error("PING has eight bytes", FRAME_SIZE_ERROR)
        if not flags & ACK:
            self._budgets.spend(PING_FLOOD, self.now)
            self.write_control(frame_head(0, 8, PING, ACK, 0) + payload)
        elif payload == _DRAIN_PING and self._goaway == _LAST_STREAM:
            self._go_away(NO_ERROR, b"")
            self._settle()

    def _read_goaway(self, payload: bytes, flags: int, number: int) -> None:
        if number:
            raise Http2Error("GOAWAY is for the connection, not for a stream", PROTOCOL_ERROR)
        if len(payload) < 8:
            raise Http2Error("GOAWAY has eight bytes at least", FRAME_SIZE_ERROR)
        # The client opens no more streams; those in flight go on.
        self._drained = True
        self._settle()

    def _read_window_update(self, payload: bytes, flags: int, number: int) -> None:
        if len(payload) != 4:
            raise Http2Error("WINDOW_UPDATE has four bytes", FRAME_SIZE_ERROR)
        self._window_updates += 1
        if self._window_updates > FREE_WINDOW_UPDATES * self._written_frames + self._last:
            self._budgets.spend(WINDOW_FLOOD, self.now)
        amount = int.from_bytes(payload, "big") & 0x7FFFFFFF
        if not number:
            self.window += amount
            if not amount:
                raise Http2Error("a WINDOW_UPDATE of nothing", PROTOCOL_ERROR)
            if self.window > LARGEST_WINDOW:
                raise Http2Error("the connection's window is over 2^31-1", FLOW_CONTROL_ERROR)
            return
        stream = self.streams.get(number) or self._accept(number, WINDOW_UPDATE)
        if stream is None:
            return
        if not amount:
            raise Http2StreamError("a WINDOW_UPDATE of nothing", PROTOCOL_ERROR)
        stream.window += amount
        if stream.window > LARGEST_WINDOW:
            raise Http2StreamError("the stream's window is over 2^31-1", FLOW_CONTROL_ERROR)
        if stream.queued and stream.window > 0:
            self.enlist(stream)

    def _read_priority_update(self, payload: bytes, number: int) -> None:
        """RFC 9218 §7.1."""
        if number:
            raise Http2Error("PRIORITY_UPDATE is for the connection", PROTOCOL_ERROR)
        if len(payload) < 4:
            raise Http2Error("PRIORITY_UPDATE has four bytes at least", FRAME_SIZE_ERROR)
        self._budgets.spend(PRIORITY_FLOOD, self.now)
        number = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        stream = self.streams.get(number)
        if stream is None:
            if not number or (not number & 1 and number > self._promised):
                raise Http2Error("PRIORITY_UPDATE needs a stream that can be", PROTOCOL_ERROR)
            if not number & 1 or number <= self._last:
                return  # it is over
            self._check_idle(number)
        priority = parse_priority(payload[4:])
        late = self._late_priorities
        if late is None:
            late = self._late_priorities = {}
        if len(late) >= _REMEMBERED_PRIORITIES and number not in late:
            # Those of streams that are over, or were passed over.
            last, streams = self._last, self.streams
            for stale in [n for n in late if n not in streams and not (n & 1 and n > last)]:
                del late[stale]
        if len(late) < _REMEMBERED_PRIORITIES or number in late:
            late[number] = priority
        schedule = self.schedule
        if stream is not None and stream.queued and schedule is not None:
            stream.urgency, stream.incremental = priority
            schedule.move(stream)

    def _check_idle(self, number: int) -> None:
        """RFC 9218 §7.1: idle streams with a priority count like active ones."""
        most = self.settings.max_streams
        late = self._late_priorities or ()
        if len(late) + len(self.streams) >= most:
            last = self._last
            idle = sum(n > last and n & 1 for n in {*late, number})
            if idle + self._active() - len(self.orphans) > most:
                raise Http2Error("PRIORITY_UPDATE beyond the limit of streams", PROTOCOL_ERROR)

    def priority_of(self, number: int, head: Head | None) -> tuple[int, bool] | None:
        """What the client said of a stream's priority, the last word first; None: nothing."""
        late = self._late_priorities
        if late is not None and number in late:
            return late[number]
        return None if head is None else head.priority

    # ------------------------------------------------------------------ ends

    def finish(self, stream: Http2Stream) -> None:
        """A response is written to its end."""
        unread = stream.unread
        if unread:
            stream.unread = 0
            self.consumed(unread)
        if stream.remote_ended:
            self.streams.pop(stream.id, None)
        else:
            self.owner.on_waiting(DISCARD_TIME)
            stream.moved = self.now
            stream.received = 0
            self._let_finish(stream)
        self.owner.on_complete(stream)
        stream.handler = None
        if self._drained:
            self._settle()

    def reset(self, stream: Http2Stream, code: int) -> None:
        """Give a stream up from this side."""
        if self.streams.get(stream.id) is not stream or stream.is_over:
            return
        self._write_reset(stream.id, code)
        self._drop(stream, None, tell=False)

    def _forget(self, stream: Http2Stream) -> None:
        """Take a stream out, wherever it stands."""
        self.streams.pop(stream.id, None)
        if stream.queued and self.schedule is not None:
            self.schedule.remove(stream)
        unread = stream.unread
        if unread:
            stream.unread = 0
            if stream.handler is not None:  # else it was only counted, to be discarded
                self.consumed(unread)

    def _drop(
        self, stream: Http2Stream, error: RemoteProtocolError | None, tell: bool = True
    ) -> None:
        """A stream is over before its time."""
        self._forget(stream)
        over = stream.is_over
        stream.discard_output()
        handler = stream.handler
        if handler is not None:
            if tell:
                handler.on_reset(error)
            self.owner.on_dropped(handler)
        if not over:
            self.owner.on_complete(stream)
        stream.handler = None
        if self._drained:
            self._settle()

    def _reset_for(self, number: int, error: Http2StreamError) -> None:
        """The peer broke the rules of one stream."""
        self._budgets.spend(MADE_YOU_RESET, self.now)
        error.with_traceback(None)
        stream = self.streams.get(number)
        self._write_reset(number, error.code)
        self.owner.on_refused(error, stream)
        if stream is not None:
            self._drop(stream, error)

    def _write_reset(self, number: int, code: int) -> None:
        resets = self._resets
        if resets is None:
            resets = self._resets = deque(maxlen=_REMEMBERED_RESETS)
        resets.append(number)
        self.write_control(frame_head(0, 4, RST_STREAM, 0, number) + code.to_bytes(4, "big"))

    def _answer(
        self, stream: Http2Stream, error: RemoteProtocolError, head_only: bool = False
    ) -> None:
        """Refuse a request with a status; without content where it was a HEAD."""
        error.with_traceback(None)
        self.owner.on_refused(error, stream)
        body = b"%b\n" % error.reason.encode()
        stream.send_head(error.status, [*_REFUSAL, (b"content-length", b"%d" % len(body))])
        stream.no_content |= head_only
        stream.send_data(body, True)
        if stream.handler is not None:  # it waits for a window, and is nothing to the handler
            self.consumed(stream.unread)
            stream.unread = 0
            stream.handler = None

    def _fail(self, error: Http2Error) -> None:
        """The peer broke the rules of the connection: say why, and end it (RFC 9113 §5.4.1)."""
        self.error = error.with_traceback(None)
        error.__context__ = None  # whose traceback would hold this engine
        self._go_away(error.code, error.reason.encode())
        self.stop()

    def _go_away(self, code: int, reason: bytes) -> None:
        # RFC 9113 §6.8: never more than was said before.
        last = self._last if self._goaway < 0 else min(self._last, self._goaway)
        self._goaway = last
        self._drained = True
        self.write_control(
            frame_head(0, 8 + len(reason), GOAWAY, 0, 0)
            + last.to_bytes(4, "big")
            + code.to_bytes(4, "big")
            + reason
        )

    def refuse_more(self) -> None:
        """The server stops: what is in flight is finished, nothing new is taken (§6.8).

        In two steps, so that requests under way are not lost: first the client learns that
        we are about to stop, and when it has answered a PING, or this is called again, which
        of its streams were the last.
        """
        if self.closing or 0 <= self._goaway < _LAST_STREAM:
            return
        if not self.streams:
            self._go_away(NO_ERROR, b"")
            self._settle()
            return
        if self._goaway == _LAST_STREAM:
            self._go_away(NO_ERROR, b"")  # it has had its time
            return
        self._goaway = _LAST_STREAM
        self.write_control(
            frame_head(0, 8, GOAWAY, 0, 0)
            + _LAST_STREAM.to_bytes(4, "big")
            + NO_ERROR.to_bytes(4, "big")
            + frame_head(0, 8, PING, 0, 0)
            + _DRAIN_PING
        )

    def _settle(self) -> None:
        """Close once nothing is in flight."""
        if not self.streams:
            if self._goaway < 0 or self._goaway == _LAST_STREAM:
                self._go_away(NO_ERROR, b"")
            self.closing = True

    def stop(self) -> None:
        """The connection ends: every exchange with it, and nothing more is read."""
        self.closing = True
        self._buffer = b""
        self._blocks.fragments = None
        self.schedule = None
        streams = tuple(self.streams.values())
        self.streams.clear()
        error = self.error
        for stream in streams:
            over = stream.is_over
            stream.discard_output()
            stream.unread = 0
            if stream.handler is not None:
                stream.handler.on_reset(error)
            if not over:
                self.owner.on_complete(stream)
            stream.handler = None

    def receive_eof(self) -> None:
        """The peer sends nothing more; responses in flight may still be read."""
        self.remote_closed = True
        self._drained = True
        for stream in tuple(self.streams.values()):
            shut = stream.queued and (stream.window <= 0 or self.window <= 0)
            if shut or not stream.remote_ended:
                self._drop(stream, None)  # nothing can end it any more
            elif stream.handler is not None:
                stream.handler.on_remote_closed()
        if not self.streams:
            self.closing = True

    def connection_lost(self) -> None:
        """The connection is gone; no upcall follows."""
        self.stop()
        self.orphans.clear()
        self.out.clear()
        self.held.clear()
        self.owner = None  # type: ignore[assignment]  # it holds this engine

    # ------------------------------------------------------------------ requests of our own

    def upgrade(self, settings: bytes, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        """Stream 1 is a request of HTTP/1.1 that asked for HTTP/2 (RFC 7540 §3.2).

        Args:
            settings: The payload of its ``HTTP2-Settings``.
            fields: The request, with pseudo-fields, as HTTP/2 would carry it.
        """
        self._last = 1
        try:
            self.apply_settings(settings)
            head = self._parser.parse(fields, True)
        except RemoteProtocolError as error:  # where HTTP/1.1 is less strict
            self._fail(Http2Error(error.reason, PROTOCOL_ERROR))
            return
        stream = Http2Stream(self, 1, head, True)
        self.streams[1] = stream
        handler = self.owner.on_request(stream, head)
        if stream.local != ENDED:
            stream.handler = handler

    @property
    def is_asked(self) -> bool:
        """A request has begun to come: HEADERS that are not whole yet."""
        return self._blocks.fragments is not None or self._buffer[3:4] == b"\1"

    def push(self, parent: Http2Stream, scheme: bytes, path: bytes, headers: Fields) -> bool:
        """Promise a response to a request that the client did not make, and ask for it.

        Args:
            parent: The stream of the request that it belongs to.
            scheme: The connection's.
            path: The target, from ``/``.
            headers: The fields of the request; ``host`` is taken from the parent's.

        Returns:
            False where the peer takes none.

        Raises:
            LocalProtocolError: There can be no such request.
        """
        promised = sum(1 for number in self.streams if not number & 1)
        if (
            not self.peer.push
            or promised >= self.peer.max_streams
            or self._goaway >= 0
            or self._drained
            or not parent.id & 1  # RFC 9113 §6.6: on a stream that the peer opened
            or parent.head is None
            or self.streams.get(parent.id) is not parent
            or parent.local == ENDED
        ):
            return False
        fields = [(b":method", b"GET"), (b":scheme", scheme), (b":path", path)]
        host = parent.head.fields.get(b"host")
        if host is not None:
            fields.insert(2, (b":authority", host))
        try:
            fields += [(bytes(name).lower(), bytes(value)) for name, value in headers]
            head = self._parser.parse(tuple(fields), True)
        except (RemoteProtocolError, TypeError, ValueError) as error:
            raise LocalProtocolError(f"this cannot be pushed: {error}") from None
        number = self._promised = self._promised + 2
        self.write_block(parent.id, fields, 0, promised=number)
        stream = Http2Stream(self, number, head, True)
        self.streams[number] = stream
        handler = self.owner.on_request(stream, head)
        if stream.local != ENDED:
            stream.handler = handler
        return True

    # ------------------------------------------------------------------ time

    def overdue(self, now: float, body: float, write: float, head: float = float("inf")) -> float:
        """Reset the streams whose peer keeps them waiting; returns when to look again.

        Args:
            now: Seconds.
            body: Seconds between two pieces of a request's content.
            write: Seconds in which a peer has to let something through.
            head: Seconds from the first byte of a field block to its last.
        """
        self.now = now
        nearest = float("inf")
        if self._begun >= 0:
            nearest = self._begun + head
            if nearest <= now:
                self._fail(Http2Error("a field block did not arrive in time", ENHANCE_YOUR_CALM))
                return float("inf")
        for stream in tuple(self.streams.values()):
            if stream.is_over:
                until = stream.moved + DISCARD_TIME
                if until <= now:
                    self._dismiss_content(stream)
                    continue
                nearest = min(nearest, until)
            elif stream.awaits_peer and self._room > 0:
                until = max(stream.heard, self._opened) + body
                if until <= now:
                    self._give_up_content(stream)
                    until = now + DISCARD_TIME
                nearest = min(nearest, until)
            if stream.queued and not self.blocked:
                # Others that are served before it are no fault of its peer's.
                moved = stream.moved if stream.window <= 0 else max(stream.moved, self._moved)
                until = moved + write
                if until <= now:
                    self.owner.on_refused(
                        Http2StreamError("the peer does not open its window", CANCEL), stream
                    )
                    self._write_reset(stream.id, CANCEL)
                    self._drop(stream, None)
                    continue
                nearest = min(nearest, until)
        return nearest

    def _give_up_content(self, stream: Http2Stream) -> None:
        """The rest of a request does not come: 408 (RFC 9110 §15.5.9)."""
        error = RemoteProtocolError("the request body did not arrive in time", 408)
        handler = stream.handler
        self._answer(stream, error)
        if not stream.is_over:  # not even that can leave
            self._write_reset(stream.id, CANCEL)
            self._drop(stream, None)
        if handler is not None:
            handler.on_reset(error)

    # ------------------------------------------------------------------ to the peer


_READERS = (  # from PRIORITY on; DATA and HEADERS, the common ones, are read in `_read_frames`
    Http2Engine._read_priority,
    Http2Engine._read_reset,
    Http2Engine._read_settings,
    Http2Engine._read_push_promise,
    Http2Engine._read_ping,
    Http2Engine._read_goaway,
    Http2Engine._read_window_update,
    Http2Engine._read_continuation,
)
