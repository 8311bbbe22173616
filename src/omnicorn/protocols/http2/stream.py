"""One HTTP/2 stream: a request's content as it comes, its response as it leaves.

What this file alone decides: what may be sent when, what waits for a window, and how much
of a request may wait for its application.

Invariants:

1. A field block is encoded when it is written, never before: the peer decodes blocks in
   the order they arrive (RFC 7541 §2.2).
2. A response's head waits for the first content, so that both leave together, and ends the
   stream itself where there is no content. `Http2Engine.take` writes those that still wait.
3. What a window holds back stands in `_queue`, uncopied; `queued` counts it.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Any

from omnicorn.errors import Http2StreamError, LocalProtocolError
from omnicorn.ports import HIGH_WATER
from omnicorn.protocols.http2.codes import (
    DATA,
    DEFAULT_FRAME_SIZE,
    END_STREAM,
    INTERNAL_ERROR,
    PROTOCOL_ERROR,
    WINDOW_UPDATE,
)
from omnicorn.protocols.http2.schedule import URGENCY

if TYPE_CHECKING:
    from omnicorn.ports import Headers, StreamHandler
    from omnicorn.protocols.http2.engine import Http2Engine
    from omnicorn.protocols.http2.requests import Head
    from omnicorn.protocols.http2.responses import ResponseHead

frame_head = Struct(">BHBBL").pack
"""Length (8 and 16 bits), type, flags, stream: a frame's first nine bytes (RFC 9113 §4.1)."""

# Where the response stands.
WAITING, BODY, TRAILERS, ENDED = range(4)

_INFORMATIONAL = frozenset({102, 103})  # 100 and 101 are the protocol's own


class Http2Stream:
    """One exchange; `Stream` to the bridge.

    Args:
        engine: The connection's.
        number: The stream's identifier.
        head: The request; None where it was refused.
        ended: The peer has sent all of it.

    Attributes:
        id: The stream's identifier.
        head: As given.
        handler: Gets the content; None once the exchange is over.
        remote_ended: The peer has sent its last frame.
        local: Where the response stands.
        window: Bytes the peer takes on this stream; may be negative.
        queued: Bytes that wait for a window, or for their turn.
        room: Bytes the peer may still send.
        unread: Content the application has not taken.
        received: Content so far; counted only where there is a limit.
        heard: When content, or the head, last came; the engine's time.
        moved: When content last left, or began to wait.
        urgency, incremental, scheduled: See `Scheduled`.
    """

    __slots__ = (
        "_credit",
        "_engine",
        "_expecting",
        "_held",
        "_left",
        "_queue",
        "_remaining",
        "_trailers",
        "_waits",
        "announced_trailers",
        "handler",
        "head",
        "heard",
        "id",
        "incremental",
        "local",
        "moved",
        "no_content",
        "queued",
        "received",
        "remote_ended",
        "room",
        "scheduled",
        "unread",
        "urgency",
        "window",
    )

    def __init__(
        self, engine: Http2Engine[Any], number: int, head: Head | None, ended: bool
    ) -> None:
        self._engine = engine
        self.id = number
        self.head = head
        self.handler: StreamHandler | None = None
        self.remote_ended = ended
        self.local = WAITING
        self.window = engine.peer.window
        self._held: ResponseHead | None = None
        self._queue: deque[bytes | memoryview] | None = None
        self.queued = 0
        self.heard = engine.now
        self.room = 0
        self.unread = 0
        if not ended:
            self.room = engine.stream_room
            self._credit = 0
            self.received = 0
            self._remaining = -1 if head is None else head.length
            self._expecting = head is not None and head.expects_continue

    # ------------------------------------------------------------------ to the peer

    @property
    def is_responding(self) -> bool:
        """See `Stream`."""
        return self.local == BODY or self.local == TRAILERS

    @property
    def takes_content(self) -> bool:
        """See `Stream`."""
        return not self.no_content

    def send_informational(self, status: int, headers: Headers) -> None:
        if self.local != WAITING:
            raise LocalProtocolError("an informational response comes before the final one")
        if status not in _INFORMATIONAL:
            raise LocalProtocolError(f"the informational status {status} cannot be sent")
        engine = self._engine
        fields = engine.responses.prepare_fields(headers)
        engine.write_block(self.id, ((b":status", b"%d" % status), *fields), 0)

    def send_continue(self) -> None:
        if not self.remote_ended and self._expecting:
            self._expecting = False
            if self.local == WAITING:
                self._engine.write_block(self.id, ((b":status", b"100"),), 0)
                self._await_content()

    def send_head(self, status: int, headers: Headers, trailers: bool = False) -> None:
        if self.local != WAITING:
            raise LocalProtocolError("the response's head comes once, after the request's")
        try:
            key = (status, *headers)
        except TypeError:
            raise LocalProtocolError(f"headers must be pairs, not {headers!r:.80}") from None
        engine = self._engine
        try:
            prepared = engine.response_heads.get(key)
        except TypeError:  # pairs given as lists
            prepared = engine.responses.encode(key)
        if prepared is None:
            prepared = engine.responses.encode_unknown(key)
        self.local = BODY
        self._held = prepared
        self._left = prepared.length
        head = self.head
        self.no_content = prepared.no_content or (head is not None and head.head_only)
        if self.no_content:
            self._left = -1
        self.announced_trailers = trailers
        self._waits = False
        if not engine.held and not engine.out:
            engine.announce()
        engine.held.append(self)

    def write_head(self, flags: int = 0) -> None:
        """Write the head that waits."""
        prepared = self._held
        if prepared is not None:
            self._held = None
            self._engine.write_head(self.id, prepared, flags)

    def send_data(self, data: bytes, end: bool) -> bool:
        if self.local != BODY:
            raise LocalProtocolError("content comes between the response's head and its end")
        size = len(data)
        if self.no_content:
            size = 0
        elif self._left >= 0:
            if size > self._left:
                raise LocalProtocolError(
                    f"content-length leaves {self._left} bytes to send, and {size} were given"
                )
            self._left -= size
            if end and self._left:
                left = self._left
                self.reset()
                raise LocalProtocolError(f"the response ended {left} bytes short of content-length")
        engine = self._engine
        flags = END_STREAM if end and not self.announced_trailers else 0
        if size:
            if (
                size > DEFAULT_FRAME_SIZE
                or size > self.window
                or size > engine.window
                or self._queue is not None
                or engine.blocked
                or (engine.schedule is not None and engine.schedule.count)
            ):
                return self._enqueue(data, end)
            self.window -= size
            engine.window -= size
            prepared = self._held
            if prepared is not None:
                self._held = None
                engine.write_response(self.id, prepared, data, size, flags)
            else:
                engine.write_data(self.id, data, size, flags)
        elif end:
            if self._queue is not None:
                return self._enqueue(b"", end)
            if not flags:
                pass
            elif self._held is not None:
                self.write_head(END_STREAM)
            else:
                engine.write_data(self.id, b"", 0, flags)
        if end:
            if flags:
                self.local = ENDED
                engine.finish(self)
            else:
                self.local = TRAILERS
        if engine.pending > HIGH_WATER:
            engine.owner.on_full()
        return not engine.blocked

    def _enqueue(self, data: bytes, end: bool) -> bool:
        """Let content wait for a window, or for its turn; returns whether it left at once."""
        engine = self._engine
        queue = self._queue
        if queue is None:
            self.write_head()
            engine.owner.on_waiting()
            queue = self._queue = deque()
            self.scheduled = -1
            self.moved = engine.now
            self._trailers: tuple[tuple[bytes, bytes], ...] | None = None
            head = self.head
            priority = engine.priority_of(self.id, head)
            # Who says nothing about priorities shares with others who say nothing.
            self.urgency, self.incremental = priority or (URGENCY, True)
        if data:
            queue.append(data)
            self.queued += len(data)
        if end:
            self.local = TRAILERS if self.announced_trailers else ENDED
        if self.window > 0 or not self.queued or engine.remote_closed:
            engine.enlist(self)
        engine.pump()
        if self._queue is None or end:
            return not engine.blocked
        self._waits = self.queued > HIGH_WATER or engine.blocked
        return not self._waits

    def write_frames(self, limit: int) -> int:
        """Write what waits, up to *limit* bytes of it; returns how many.

        Where that was all, the stream has left the schedule, and may be over.
        """
        engine = self._engine
        queue = self._queue
        assert queue is not None
        size = left = min(limit, self.queued)
        self.queued -= size
        self.window -= size
        self.moved = engine.now
        frame_size = DEFAULT_FRAME_SIZE
        frames: list[bytes | memoryview] = []
        last = 0  # where the last frame begins
        while left:
            piece = queue[0]
            room = min(len(piece), left)
            if room >= frame_size:  # frames out of one piece
                head = frame_head(0, frame_size, DATA, 0, self.id)
                view = memoryview(piece)
                stop = room - room % frame_size
                for at in range(0, stop, frame_size):
                    frames += (head, view[at : at + frame_size])
                last = len(frames) - 2
                count = frame_size
            else:  # a frame out of what there is
                stop = min(left, frame_size)
                last = len(frames)
                frames.append(frame_head(0, stop, DATA, 0, self.id))
                count = stop
                while len(piece) < stop:
                    frames.append(piece)
                    stop -= len(piece)
                    left -= len(piece)
                    queue.popleft()
                    piece = queue[0]
                view = memoryview(piece)
                frames.append(view[:stop])
            left -= stop
            if stop == len(piece):
                queue.popleft()
            else:
                queue[0] = view[stop:]
        done = not queue
        if done and self.local == ENDED and self._trailers is None:
            if frames:
                frames[last] = frame_head(0, count, DATA, END_STREAM, self.id)
            else:
                frames.append(frame_head(0, 0, DATA, END_STREAM, self.id))
        if frames:
            engine.write_frames(frames, size)
        if done:
            self._queue = None
            engine.dismiss(self)
            if self._trailers is not None:
                engine.write_block(self.id, self._trailers, END_STREAM)
            if self.local == ENDED:
                engine.finish(self)
                return size
        if self._waits and self.queued <= HIGH_WATER // 2 and self.handler is not None:
            self._waits = False
            self.handler.on_writable()
        return size

    def send_trailers(self, headers: Headers) -> None:
        if self.local != TRAILERS:
            raise LocalProtocolError("trailers come after the content, if the head announced them")
        engine = self._engine
        fields = engine.responses.prepare_fields(headers)
        self.local = ENDED
        if self._queue is not None:
            self._trailers = fields
            if not fields:
                self._trailers = None
            return
        if fields:
            self.write_head()
            engine.write_block(self.id, fields, END_STREAM)
        elif self._held is not None:
            self.write_head(END_STREAM)
        else:
            engine.write_data(self.id, b"", 0, END_STREAM)
        engine.finish(self)

    @property
    def is_tunnel(self) -> bool:
        """What comes is another protocol's, not the content of a request (RFC 8441)."""
        return self.head is not None and self.head.upgrade is not None

    @property
    def is_over(self) -> bool:
        """The response is written to its end, or given up."""
        return self.local == ENDED and not self.queued

    def discard_output(self) -> None:
        """Forget what was not written: the stream is over."""
        self._held = None
        self._queue = None
        self.queued = 0
        self.local = ENDED

    def reserve_raw(self, count: int) -> bool:
        """See `Stream`: content goes in frames, so nothing is written past the engine."""
        return False

    def raw_written(self) -> None:
        """See `Stream`."""

    def reset(self) -> None:
        self._engine.reset(self, INTERNAL_ERROR)

    # ------------------------------------------------------------------ from the peer

    def receive(self, data: bytes) -> None:
        """Content came.

        Raises:
            Http2StreamError: More of it than content-length says.
        """
        size = len(data)
        self._expecting = False
        if self._remaining >= 0:
            self._remaining -= size
            if self._remaining < 0:
                self._engine.consumed(size)
                raise Http2StreamError("there is more content than content-length", PROTOCOL_ERROR)
        handler = self.handler
        if handler is None or self.local == ENDED:
            self._engine.discard(self, size)
        elif size:
            self.unread += size
            handler.on_data(data)

    def end(self) -> None:
        """All content has come.

        Raises:
            Http2StreamError: Less of it than content-length says.
        """
        if self._remaining > 0:
            raise Http2StreamError("there is less content than content-length", PROTOCOL_ERROR)
        self.remote_ended = True
        if self.handler is not None and self.local != ENDED:
            self.handler.on_end()

    def _await_content(self) -> None:
        """Now it is the peer's turn."""
        self._engine.owner.on_waiting()
        self.heard = self._engine.now

    @property
    def awaits_peer(self) -> bool:
        """Whether it is the peer that keeps the request waiting.

        Not once the response has begun: a call that streams both ways may be silent for long.
        """
        return (
            self.local == WAITING
            and not self.remote_ended
            and self.room > 0
            and not self._expecting
            and not self.is_tunnel
        )

    def consumed(self, count: int) -> None:
        if self.handler is None:
            return  # over: all of it was taken for consumed
        self.unread -= count
        if self.remote_ended:
            self._engine.consumed(count)
            return
        credit = self._credit + count
        engine = self._engine
        if credit * 2 >= engine.settings.stream_window:
            self.room += credit
            engine.write_control(
                frame_head(0, 4, WINDOW_UPDATE, 0, self.id) + credit.to_bytes(4, "big")
            )
            credit = 0
            self._await_content()
        self._credit = credit
        engine.consumed(count)
