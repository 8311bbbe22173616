"""What leaves on one HTTP/2 connection: frames, in the order they must.

Decided here: which content may leave now, which waits and whose is next, how a head is coded.

Rules of this file:

1. Output is appended to `out`, in the order it must leave. Content is appended only while
   nothing waits that could be more urgent. Else it waits on its stream, and `pump` takes it
   from there by `schedule`, as far as the windows and the transport let it.
2. A field block is encoded when it is written, never before: the peer decodes blocks in
   the order they arrive (RFC 7541 §2.2). A response's head that was coded before, by tables
   that have not changed since, is one look-up.
3. What the peer's SETTINGS ask for is all about this side of the conversation; so they are
   applied here.

The engine is a `FrameWriter` that also reads: streams and connection write without a step
between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from omnicorn.errors import Http2Error
from omnicorn.http.memo import Memo
from omnicorn.protocols.http2.codes import (
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_HEADERS,
    FLOW_CONTROL_ERROR,
    HEADERS,
    LARGEST_WINDOW,
    PING,
    PUSH_PROMISE,
)
from omnicorn.protocols.http2.guards import TINY, TINY_WINDOW, Budgets
from omnicorn.protocols.http2.hpack import Encoder
from omnicorn.protocols.http2.schedule import Schedule
from omnicorn.protocols.http2.settings import PeerSettings
from omnicorn.protocols.http2.stream import frame_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from omnicorn.errors import RemoteProtocolError
    from omnicorn.http.defaults import DefaultFields
    from omnicorn.protocols.http2.engine import Http2Owner
    from omnicorn.protocols.http2.hpack import Strings
    from omnicorn.protocols.http2.responses import ResponseEncoder, ResponseHead
    from omnicorn.protocols.http2.stream import Http2Stream

    Fields = Iterable[tuple[bytes, bytes]]

BLOCK_BYTES = 512
"""Larger field blocks are not remembered."""
TURN = 65536
"""Bytes of one stream before the next one's turn."""
BATCH = 262144
"""Bytes that wait for windows or for their turn, and leave in one go."""

Owner = TypeVar("Owner", bound="Http2Owner")


class FrameWriter(Generic[Owner]):
    """The writing side of one connection.

    Args:
        owner: Told when there is output, and when there is much of it.
        responses: Checks the heads of responses.
        strings: The memory of HPACK literals.
        defaults: The fields of every response.
        on_output: Called with the owner when there is output and there was none before.
        now: Seconds of a clock that never goes back.

    Attributes:
        owner: As given; None once the connection is lost.
        streams: The open ones by identifier.
        peer: What the peer's SETTINGS ask for.
        is_greeted: They have come.
        window: Bytes of content that the peer takes on the connection.
        schedule: The streams whose content could leave; None before the first one waits.
        out: Bytes to write, in order; `take` them.
        held: Streams with a head that waits for its content; `take` does not wait.
        pending: About how many bytes `take` will give.
        blocked: The transport is full; set by the connection.
        closing: Nothing more is read; close once the output is written.
        remote_closed: The peer's side of the transport has ended: no window opens any more.
        now: Set by `receive`, and by the owner.
    """

    __slots__ = (
        "_budgets",
        "_coded",
        "_defaults",
        "_encoder",
        "_moved",
        "_on_output",
        "_pairs",
        "_pumping",
        "_receiving",
        "_written_frames",
        "blocked",
        "closing",
        "held",
        "is_greeted",
        "now",
        "out",
        "owner",
        "peer",
        "pending",
        "remote_closed",
        "response_heads",
        "responses",
        "schedule",
        "streams",
        "window",
    )

    def __init__(
        self,
        owner: Owner,
        responses: ResponseEncoder,
        strings: Strings,
        defaults: DefaultFields,
        on_output: Callable[[Owner], object],
        now: float,
    ) -> None:
        self.owner = owner
        self._on_output = on_output
        self.responses = responses
        self.response_heads = responses.heads
        self._defaults = defaults
        self._pairs: object = None  # the default fields that are in `_coded`
        self._encoder = Encoder(strings)
        self._coded: Memo[ResponseHead, bytes] = Memo(64, BLOCK_BYTES)
        self._budgets = Budgets()
        self._pumping = False
        self._receiving = False  # `pump` waits for the end of the segment
        self._moved = now  # when content that waited last left
        self._written_frames = 0  # of DATA
        self.streams: dict[int, Http2Stream] = {}
        self.peer = PeerSettings()
        self.is_greeted = False
        self.window = DEFAULT_WINDOW
        self.schedule: Schedule[Http2Stream] | None = None
        self.out: list[bytes | memoryview] = []
        self.held: list[Http2Stream] = []
        self.pending = 0
        self.blocked = False
        self.closing = False
        self.remote_closed = False
        self.now = now

    def _drop(
        self, stream: Http2Stream, error: RemoteProtocolError | None, tell: bool = True
    ) -> None:
        """A stream is over before its time; the engine's to say."""
        raise NotImplementedError

    def _fail(self, error: Http2Error) -> None:
        """The peer broke the rules of the connection, which ends; the engine's to say."""
        raise NotImplementedError

    # ------------------------------------------------------------------ what the peer takes

    def apply_settings(self, payload: bytes) -> None:
        """Take the peer's settings; also those of ``HTTP2-Settings`` (RFC 7540 §3.2.1).

        Raises:
            Http2Error: One is out of its range.
        """
        peer = self.peer
        push = peer.push
        window, table_size = peer.window, peer.table_size
        smallest = peer.update(payload)
        if peer.push != push or not self.is_greeted:
            self.owner.on_settings()
        if smallest != table_size or peer.table_size != table_size:
            # RFC 7541 §4.2: also what it was in between.
            self._encoder.set_max_table_size(smallest)
            self._encoder.set_max_table_size(peer.table_size)
            self._coded.clear()
        if peer.window != window:
            # RFC 9113 §6.9.2: also for the streams that are open, and maybe below zero.
            change = peer.window - window
            for stream in tuple(self.streams.values()):
                stream.window += change
                if stream.window > LARGEST_WINDOW:
                    raise Http2Error("a stream's window is over 2^31-1", FLOW_CONTROL_ERROR)
                if stream.queued and stream.window > 0:
                    self.enlist(stream)

    # ------------------------------------------------------------------ content that waits

    def enlist(self, stream: Http2Stream) -> None:
        """*stream* could send."""
        schedule = self.schedule
        if schedule is None:
            schedule = self.schedule = Schedule()
        schedule.add(stream)
        if not self._receiving:
            self.pump()

    def dismiss(self, stream: Http2Stream) -> None:
        """*stream* has nothing left to send, or may not."""
        if self.schedule is not None:
            self.schedule.remove(stream)

    def pump(self) -> None:
        """Write content that waits, as far as the windows and the transport allow."""
        schedule = self.schedule
        if schedule is None or self._pumping:
            return
        self._pumping = True
        try:
            while schedule.count and not self.blocked and not self.closing:
                if self.pending >= BATCH:
                    self.owner.on_full()
                    break
                stream = schedule.first()
                limit = min(TURN, self.window, stream.window)
                if stream.queued and limit <= 0:
                    if self.remote_closed:
                        self._drop(stream, None)
                        continue
                    if stream.window <= 0:
                        schedule.remove(stream)
                        continue
                    break  # the connection's window is shut
                self._moved = self.now
                size = stream.write_frames(max(limit, 0))
                self.window -= size
                if size < TINY and stream.queued:
                    try:
                        self._budgets.spend(TINY_WINDOW, self.now)
                    except Http2Error as error:
                        self._fail(error)
                        break
                if stream.scheduled >= 0:
                    schedule.served(stream)
        finally:
            self._pumping = False

    def unblock(self) -> None:
        """The transport takes more again."""
        self.blocked = False
        self.pump()
        if not self.blocked:
            for stream in tuple(self.streams.values()):
                if not stream.queued and stream.handler is not None:
                    stream.handler.on_writable()

    # ------------------------------------------------------------------ field blocks

    def write_head(self, number: int, prepared: ResponseHead, flags: int) -> None:
        """Write the head of a response; from memory where the tables are as they were."""
        pairs = self._defaults.pairs
        if pairs is None:
            self._defaults.refresh()
            pairs = self._defaults.pairs
            assert pairs is not None
        if pairs is not self._pairs:
            self._pairs = pairs
            self._coded.clear()
        block = self._coded.get(prepared)
        if block is None:
            encoder = self._encoder
            generation = encoder.generation
            block = encoder.encode((*prepared.fields, *pairs[prepared.own]))
            if encoder.generation != generation:
                self._coded.clear()
            elif encoder.settled:
                self._coded.remember(prepared, block, len(block))
        size = len(block)
        if size > DEFAULT_FRAME_SIZE:
            self._write_block(HEADERS, number, block, flags)
            return
        if not self.out:
            self._on_output(self.owner)
        self.out += (frame_head(0, size, HEADERS, END_HEADERS | flags, number), block)
        self.pending += size + 9

    def write_response(
        self, number: int, prepared: ResponseHead, data: bytes, size: int, flags: int
    ) -> None:
        """Write a head and the content behind it: what most responses are."""
        block = self._coded.get(prepared) if self._pairs is self._defaults.pairs else None
        if block is None:
            self.write_head(number, prepared, 0)
            self.write_data(number, data, size, flags)
            return
        length = len(block)
        self.out += (
            frame_head(0, length, HEADERS, END_HEADERS, number),
            block,
            frame_head(0, size, DATA, flags, number),
            data,
        )
        self.pending += length + size + 18
        self._written_frames += 1

    def write_block(self, number: int, fields: Fields, flags: int, promised: int = 0) -> None:
        """Write a field section that is not a response's head.

        Args:
            number: The stream.
            fields: Names in lower case, and values.
            flags: END_STREAM, or none.
            promised: The stream of a request that this side makes up: a PUSH_PROMISE.
        """
        encoder = self._encoder
        generation = encoder.generation
        block = encoder.encode(fields)
        if encoder.generation != generation:
            self._coded.clear()
        if promised:
            self._write_block(PUSH_PROMISE, number, promised.to_bytes(4, "big") + block, flags)
        else:
            self._write_block(HEADERS, number, block, flags)

    def _write_block(self, kind: int, number: int, payload: bytes, flags: int) -> None:
        """Write a field block, in as many frames as it takes."""
        first, rest = payload[:DEFAULT_FRAME_SIZE], payload[DEFAULT_FRAME_SIZE:]
        self.write_control(
            frame_head(0, len(first), kind, flags | (0 if rest else END_HEADERS), number) + first
        )
        while rest:
            first, rest = rest[:DEFAULT_FRAME_SIZE], rest[DEFAULT_FRAME_SIZE:]
            self.write_control(
                frame_head(0, len(first), CONTINUATION, 0 if rest else END_HEADERS, number) + first
            )

    # ------------------------------------------------------------------ frames

    def announce(self) -> None:
        """There will be output, and there was none."""
        self._on_output(self.owner)

    def write_data(self, number: int, data: bytes, size: int, flags: int) -> None:
        """Write content that the windows allow, in one frame."""
        out = self.out
        if not out:
            self._on_output(self.owner)
        out += (frame_head(0, size, DATA, flags, number), data)
        self.pending += size + 9
        self._written_frames += 1

    def write_frames(self, frames: list[bytes | memoryview], size: int) -> None:
        """Write frames of content that waited."""
        if not self.out:
            self._on_output(self.owner)
        self.out += frames
        self.pending += size
        self._written_frames += len(frames) >> 1

    def write_control(self, frame: bytes) -> None:
        """Write a frame that nothing holds back."""
        if not self.out:
            self._on_output(self.owner)
        self.out.append(frame)
        self.pending += len(frame)

    def ping(self, content: bytes) -> None:
        """Ask for a sign of life, which any byte of the peer is; *content* is eight bytes."""
        self.write_control(frame_head(0, 8, PING, 0, 0) + content)

    def take(self) -> list[Any]:
        """The output, as pieces in order."""
        held = self.held
        if held:
            for stream in held:
                stream.write_head()
            held.clear()
        out = self.out
        self.out = []
        self.pending = 0
        return out
