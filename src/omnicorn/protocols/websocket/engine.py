"""One WebSocket's conversation (RFC 6455 §5 to §7): messages in and out, pings, the end.

::

            close() ┌─────────┐ the peer's close frame
    OPEN ──────────▶│ CLOSING │──────────────────────▶ CLOSED
      └─────────────└─────────┘──────────────────────────▲
        the peer's close frame (answered), or the peer broke a rule

Rules of this file:

1. A frame that lies whole in the bytes at hand is taken out by slicing. The content of one
   that does not is taken as it comes, so that text is refused at its first bad byte and
   nothing is copied twice.
2. A message is refused by its size before it is buffered: from the frame's head, or before
   it is inflated further. What has been collected is one growing array, so that many tiny
   fragments cost no more than their bytes.
3. When the handler has enough, parsing stops in mid-buffer and reading pauses (`on_readable`);
   `resume` goes on.
4. Pings are answered here. While the peer does not read, only the last one (§5.5.3), so
   that it cannot fill our memory with pongs.
5. `receive` never raises. A broken rule ends in a close frame with its code; `error` says why.
   What came before the rule was broken is answered first: while messages wait for the
   application, the failure waits too, as a pause (`failure`) that `resume` ends.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from omnicorn.errors import LocalProtocolError, WebSocketError
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.websocket import masking
from omnicorn.protocols.websocket.deflate import SMALL
from omnicorn.protocols.websocket.frames import (
    BINARY,
    CLOSE,
    FIN,
    INVALID_DATA,
    MAX_CONTROL,
    PING,
    PONG,
    RSV1,
    RSV2_AND_RSV3,
    TEXT,
    TOO_BIG,
    close_content,
    frame_head,
    parse_close,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnicorn.ports import MessageHandler
    from omnicorn.protocols.websocket.deflate import Deflate

OPEN, CLOSING, CLOSED = range(3)

_WHOLE = frozenset({FIN | TEXT, FIN | BINARY})
_MASKED = 0x80
_RUSH = 4 * HIGH_WATER
"""Bytes that are sent in one go to a peer that keeps up, before others have their turn."""
_LARGE = 1 << 18
"""Bytes of content that are not copied to stand behind their frame's head: one more write to
the socket, and one more segment on the wire, cost about as much as copying these."""
_new_decoder = codecs.getincrementaldecoder("utf-8")


class SocketOwner(Protocol):
    """What the engine tells its connection."""

    def on_readable(self, wanted: bool) -> None:
        """Whether more bytes of the peer are wanted."""

    def flush(self) -> None:
        """More than `HIGH_WATER` bytes of output wait: write them now."""

    def on_full(self) -> None:
        """Much was sent in one go: write it, and let others have their turn."""

    def on_failing(self) -> None:
        """The peer broke a rule, and will be told when the application has caught up: see that
        this does not take for ever."""

    def on_pong(self, content: bytes) -> None:
        """The peer sent a pong."""

    def on_closed(self, code: int, reason: str) -> None:
        """The conversation is over: the peer's close frame came, or a rule was broken."""


Owner = TypeVar("Owner", bound=SocketOwner)


class WebSocketEngine(Generic[Owner]):
    """The server's side of one WebSocket, from the first frame on.

    Args:
        owner: The connection.
        handler: Gets the messages.
        max_size: Bytes a message may have, inflated.
        deflate: permessage-deflate, where it was agreed.
        on_output: Called with the owner when there is output and there was none before.

    Attributes:
        state: OPEN, CLOSING or CLOSED.
        paused: The handler has enough; no bytes of the peer are wanted.
        blocked: The peer does not read; set by the connection.
        pending: About how many bytes `take` will give.
        failure: The rule the peer broke behind messages that still wait.
        error: The rule the peer broke, once it has been told.
    """

    __slots__ = (
        "_buffer",
        "_compressed",
        "_decoder",
        "_deflate",
        "_frame",
        "_handler",
        "_key",
        "_last",
        "_left",
        "_max_size",
        "_message",
        "_on_output",
        "_opcode",
        "_out",
        "_owner",
        "_pong",
        "_position",
        "_rush",
        "_unmask",
        "blocked",
        "error",
        "failure",
        "paused",
        "pending",
        "state",
    )

    def __init__(
        self,
        owner: Owner,
        handler: MessageHandler,
        max_size: int,
        deflate: Deflate | None,
        on_output: Callable[[Owner], object],
    ) -> None:
        self._owner = owner
        self._handler = handler
        self._max_size = max_size
        self._deflate = deflate
        self._on_output = on_output
        self._unmask = masking.fastest()
        self._buffer = b""
        self._position = 0  # in `_buffer`, of what is not parsed yet
        # The message that has begun and not ended:
        self._opcode = 0
        self._compressed = False
        self._message: bytearray | None = None  # its content so far
        self._decoder: codecs.IncrementalDecoder | None = None
        # The frame whose head has been read and whose content has not:
        self._left = 0
        self._last = False
        self._key = b""
        self._frame: bytearray | None = None  # its content so far, where not taken at once
        self._pong: bytes | None = None
        self._rush = 0  # bytes sent since others had their turn
        self._out: list[bytes] = []
        self.pending = 0
        self.state = OPEN
        self.paused = False
        self.blocked = False
        self.failure: WebSocketError | None = None
        self.error: WebSocketError | None = None

    # ------------------------------------------------------------------ from the peer

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer, in any segmentation."""
        if self.state == CLOSED:
            return
        if self._buffer:
            data = self._buffer[self._position :] + data
            self._buffer = b""
        if self.paused:
            if self.failure is None:
                self._buffer = data
                self._position = 0
        else:
            self._parse(data, 0)

    def resume(self) -> None:
        """The handler has room again."""
        if not self.paused:
            return
        self.paused = False
        if self.failure is not None:
            self._fail(self.failure)
            return
        data, self._buffer = self._buffer, b""
        if data:
            self._parse(data, self._position)
        if not self.paused and self.state != CLOSED:
            self._owner.on_readable(True)

    def connection_lost(self) -> None:
        """The connection is gone; no upcall follows."""
        self.stop()
        # They hold this engine: cycles that only the garbage collector would find.
        self._owner = self._handler = None  # type: ignore[assignment]

    def _parse(self, data: bytes, position: int) -> None:
        size = len(data)
        try:
            while self.state != CLOSED and not self.paused:
                if self._left:
                    position = self._take(data, position, size)
                    if position == size:
                        break
                    continue
                if size - position < 2:
                    break
                first = data[position]
                length = data[position + 1] - _MASKED
                if (
                    0 <= length < 126
                    and first in _WHOLE
                    and self._message is None
                    and position + length + 6 <= size
                    and length <= self._max_size
                ):
                    # Most messages are one small frame.
                    start = position + 6
                    position = start + length
                    content = self._unmask(data[start:position], data[start - 4 : start])
                    self._deliver(first & 0xF, content)
                    continue
                began = position
                position = self._read_head(data, position, size)
                if position == began:
                    break
        except WebSocketError as error:
            # Without frames, which would hold this engine.
            error.__context__ = None
            self.failure = error.with_traceback(None)
            if self.state == OPEN and self._handler.is_behind:
                self.paused = True
                self._owner.on_readable(False)
                self._owner.on_failing()
            else:
                self._fail(error)
            return
        if self.state == CLOSED:
            return
        if self.paused:
            self._buffer = data
            self._position = position
            self._owner.on_readable(False)
        elif position < size:
            self._buffer = data[position:]
            self._position = 0

    def _read_head(self, data: bytes, position: int, size: int) -> int:
        """Read a frame's head, and its content where that is all there.

        Returns:
            Where the next byte to read is; *position* where the head, or a control frame, is
            incomplete.
        """
        first = data[position]
        second = data[position + 1]
        opcode = first & 0xF
        length = second & 0x7F
        self._check(first, opcode, length)
        if not second & _MASKED:  # RFC 6455 §5.1
            raise WebSocketError("a frame of the client is not masked")
        start = position + 2
        if length == 126:
            start += 2
            if size < start:
                return position
            length = int.from_bytes(data[start - 2 : start], "big")
            if length < 126:
                raise WebSocketError("a frame's length is not in its shortest form")
        elif length == 127:
            start += 8
            if size < start:
                return position
            length = int.from_bytes(data[start - 8 : start], "big")
            if length < 65536:
                raise WebSocketError("a frame's length is not in its shortest form")
            if length >> 63:  # RFC 6455 §5.2
                raise WebSocketError("a frame's length has its highest bit set")
        if opcode < CLOSE:
            room = self._max_size
            if first & RSV1 or (self._message is not None and self._compressed):
                room += room // 8 + 64  # what cannot be deflated gets longer by it
            elif self._message is not None:
                room -= len(self._message)
            if length > room:
                raise WebSocketError(f"the message is too big (limit {self._max_size})", TOO_BIG)
        start += 4
        if size < start or (opcode >= CLOSE and size < start + length):
            return position
        key = data[start - 4 : start]
        end = start + length
        if opcode >= CLOSE:
            self._control(opcode, self._unmask(data[start:end], key))
            return end
        self._begin(first, opcode)
        if end <= size:
            self._content(self._unmask(memoryview(data)[start:end], key))
            return end
        self._left = length
        self._key = key
        return start

    def _check(self, first: int, opcode: int, length: int) -> None:
        """What the first two bytes alone can break (RFC 6455 §5.2, §5.4, §5.5)."""
        if opcode >= CLOSE:
            if opcode > PONG:
                raise WebSocketError(f"the opcode {opcode:#x} is reserved")
            if first & 0xF0 != FIN:
                raise WebSocketError("a control frame is fragmented or has a reserved bit set")
            if length > MAX_CONTROL:
                raise WebSocketError("a control frame holds more than 125 bytes")
        elif opcode > BINARY:
            raise WebSocketError(f"the opcode {opcode:#x} is reserved")
        elif first & RSV2_AND_RSV3:
            raise WebSocketError("a reserved bit is set")
        elif opcode:
            if self._message is not None:
                raise WebSocketError("a message begins before the end of the last one")
            if first & RSV1 and self._deflate is None:
                raise WebSocketError("a reserved bit is set, and no extension was agreed")
        elif self._message is None:
            raise WebSocketError("a continuation frame has nothing to continue")
        elif first & RSV1:  # RFC 7692 §6.1
            raise WebSocketError("a continuation frame has a reserved bit set")

    def _begin(self, first: int, opcode: int) -> None:
        self._last = bool(first & FIN)
        if opcode:
            self._opcode = opcode
            self._compressed = bool(first & RSV1)
            self._message = bytearray()

    def _take(self, data: bytes, position: int, size: int) -> int:
        """Take content of a frame that did not come in one piece."""
        end = min(size, position + self._left)
        piece = data[position:end]
        self._left -= end - position
        if self._opcode == TEXT and not self._compressed:
            plain = self._unmask(piece, self._key)
            turn = len(piece) % 4
            self._key = self._key[turn:] + self._key[:turn]
            if self._left:
                self._collect(plain)
            else:
                self._content(plain)
            return end
        frame = self._frame
        if frame is None:
            frame = self._frame = bytearray()
        frame += piece
        if not self._left:
            self._frame = None
            self._content(self._unmask(frame, self._key))
        return end

    def _content(self, plain: bytes) -> None:
        """The content of a frame, or the last of it."""
        last = self._last
        message = self._message
        assert message is not None
        if self._compressed:
            assert self._deflate is not None
            plain = self._deflate.inflate(plain, self._max_size - len(message), last)
        if not last:
            self._collect(plain)
            return
        if message:
            message += plain
            plain = bytes(message)
        self._message = self._decoder = None
        self._deliver(self._opcode, plain)

    def _collect(self, plain: bytes) -> None:
        """Add to the message, and see that text can still become text (RFC 6455 §8.1)."""
        assert self._message is not None
        if self._opcode == TEXT:
            if self._decoder is None:
                self._decoder = _new_decoder()
            try:
                self._decoder.decode(plain)
            except UnicodeDecodeError:
                raise _not_text() from None
        self._message += plain

    def _deliver(self, opcode: int, content: bytes) -> None:
        message: str | bytes = content
        if opcode == TEXT:
            try:
                message = content.decode()
            except UnicodeDecodeError:
                raise _not_text() from None
        if self.state == OPEN and self._handler.on_message(message) and self.state == OPEN:
            self.paused = True

    def _control(self, opcode: int, content: bytes) -> None:
        if opcode == PING:
            if self.state != OPEN:
                return
            if self.blocked:
                self._pong = content
            else:
                self._send(FIN | PONG, content)
                if self.pending > HIGH_WATER:
                    self._owner.on_full()
        elif opcode == PONG:
            self._owner.on_pong(content)
        else:
            code, reason = parse_close(content)
            if self.state == OPEN:
                self._send(FIN | CLOSE, content[:2])
            self._close(code, reason)

    def _fail(self, error: WebSocketError) -> None:
        """RFC 6455 §7.1.7: say why, and listen no more."""
        self.error = error
        if self.state == OPEN:
            self._send(FIN | CLOSE, close_content(error.code, error.reason))
        self._close(error.code, error.reason)

    def _close(self, code: int, reason: str) -> None:
        self.stop()
        self._owner.on_closed(code, reason)

    # ------------------------------------------------------------------ to the peer

    def send_text(self, text: str) -> bool:
        """Send a text message; False asks the caller to await ``on_writable`` before the next.

        Raises:
            LocalProtocolError: The text cannot be encoded, or the WebSocket is not open.
        """
        try:
            content = text.encode()
        except (AttributeError, UnicodeEncodeError):
            raise LocalProtocolError(
                f"'text' must be a str of Unicode text: {text!r:.80}"
            ) from None
        return self._send_message(TEXT, content)

    def send_bytes(self, data: bytes) -> bool:
        """Send a binary message; as `send_text`."""
        return self._send_message(BINARY, data)

    def _send_message(self, opcode: int, content: bytes) -> bool:
        if self.state != OPEN:
            raise LocalProtocolError("the WebSocket is not open")
        if self._deflate is not None and len(content) >= SMALL:
            self._send(FIN | RSV1 | opcode, self._deflate.compress(content))
        else:
            self._send(FIN | opcode, content)
        self._rush += len(content)
        if self._rush > _RUSH:
            self._rush = 0
            self._owner.on_full()
        elif self.pending > HIGH_WATER:
            self._owner.flush()
        return not self.blocked

    def ping(self, content: bytes) -> None:
        """Send a ping (RFC 6455 §5.5.2)."""
        if self.state == OPEN:
            self._send(FIN | PING, content)

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame; the peer's is awaited (RFC 6455 §7.1.2).

        Raises:
            LocalProtocolError: The code or the reason cannot be sent.
        """
        if self.state == OPEN:
            self._send(FIN | CLOSE, close_content(code, reason))
            self.state = CLOSING
            if self.paused:
                self.resume()  # what still comes is dropped, up to the peer's close frame

    def stop(self) -> None:
        """The peer has gone: nothing more is heard or said."""
        self.state = CLOSED
        self.paused = False
        self.failure = None
        self._buffer = b""
        self._message = self._frame = None

    def unblock(self) -> None:
        """The peer reads again."""
        self.blocked = False
        pong, self._pong = self._pong, None
        if pong is not None and self.state == OPEN:
            self._send(FIN | PONG, pong)

    def _send(self, first: int, content: bytes) -> None:
        out = self._out
        first_of_many = not out
        size = len(content)
        self.pending += size + 2
        if size < 126:
            out.append(bytes((first, size)) + content)
        elif size < _LARGE:
            out.append(frame_head(first, size) + content)
        else:
            out.append(frame_head(first, size))
            out.append(content)
        if first_of_many:
            self._on_output(self._owner)

    def take(self) -> list[bytes]:
        """The output, as pieces in order."""
        out = self._out
        self._out = []
        self.pending = 0
        return out


def _not_text() -> WebSocketError:
    return WebSocketError("a text message is not UTF-8", INVALID_DATA)
