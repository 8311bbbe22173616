"""A WebSocket in the hands of a test: it owns an engine, handles its messages, plays its peer.

`Recorder` plays both sides that an engine speaks to, `SocketOwner` and `MessageHandler`. It
keeps what a connection keeps (output is flushed after each segment, nothing is fed while the
engine has asked for nothing), and checks what an engine must keep:

* output is announced by ``on_output``, once, before it is there to take;
* after ``on_closed`` nothing is said to anybody;
* no message comes while the handler has had enough, or after our own close.

Frames stand in tests as ``(first byte, content)``, or as bytes where the head is the point.
"""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.protocols.websocket import WebSocketEngine, deflate
from omnicorn.protocols.websocket.engine import CLOSED, OPEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

KEY = b"\x37\xfa\x21\x3d"
"""The key of the examples in RFC 6455 §5.7."""


def masked(content: bytes, key: bytes = KEY) -> bytes:
    """RFC 6455 §5.3, byte by byte, as it stands there."""
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(content))


def client_frame(first: int, content: bytes = b"", key: bytes = KEY) -> bytes:
    """A frame of a client: RFC 6455 §5.2, as it stands there."""
    size = len(content)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + key + masked(content, key)


def join_frames(*frames: Any) -> bytes:
    return b"".join(frame if isinstance(frame, bytes) else client_frame(*frame) for frame in frames)


class Recorder:
    """See above.

    Attributes:
        calls: Every upcall but ``on_output``, in order, as ``(name, *args)``.
        messages: What came, in order.
        wire: Everything flushed.
        reading: The last that ``on_readable`` said.
        waiting: Messages that came and were not drained yet.
        is_behind: What the engine is told when it asks whether messages wait.
        hook: Called with each upcall's name and arguments, after it was recorded.
    """

    def __init__(
        self,
        max_size: int = 1 << 20,
        offer: str = "",
        *,
        queue: int | None = None,
        engine: Any = WebSocketEngine,
    ) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.messages: list[str | bytes] = []
        self.wire = bytearray()
        self.reading = True
        self.waiting = 0
        self.is_behind = False
        self.hook: Callable[..., object] | None = None
        self._queue = queue
        self._announced = False
        self.agreement = None
        if offer:
            self.agreement = deflate.negotiate(offer)
            assert self.agreement is not None
        self.engine: Any = engine(
            self,
            self,
            max_size,
            None if self.agreement is None else deflate.Deflate(self.agreement),
            Recorder._on_output,
        )

    def _record(self, *call: Any) -> None:
        assert self.closed is None, f"{call} after the end"
        self.calls.append(call)
        if self.hook is not None:
            self.hook(*call)

    # ------------------------------------------------------------------ upcalls

    def on_message(self, message: str | bytes) -> bool:
        assert self.engine.state == OPEN, "a message after the end"
        assert not self.engine.paused, "a message that nobody wants"
        self.messages.append(message)
        self.waiting += 1
        self._record("on_message", message)
        return self._queue is not None and self.waiting >= self._queue

    def on_pong(self, content: bytes) -> None:
        self._record("on_pong", content)

    def on_closed(self, code: int, reason: str) -> None:
        assert self.engine.state == CLOSED
        self._record("on_closed", code, reason)

    def on_readable(self, wanted: bool) -> None:
        assert wanted is not self.engine.paused
        self.reading = wanted
        self._record("on_readable", wanted)

    def on_failing(self) -> None:
        assert self.engine.paused
        self._record("on_failing")

    def on_full(self) -> None:
        self._record("on_full")
        self.flush()

    def _on_output(self) -> None:
        assert not self._announced, "output was announced twice"
        self._announced = True

    # ------------------------------------------------------------------ what a test does

    def feed(self, *segments: bytes) -> Recorder:
        """Give the engine segments, as a connection does: flush after each."""
        for segment in segments:
            self.engine.receive(segment)
            self.flush()
        return self

    def get(self, *frames: Any) -> Recorder:
        """`feed` frames, as one segment."""
        return self.feed(join_frames(*frames))

    def drain(self, count: int | None = None) -> None:
        """The application takes *count* messages, or all, and wants more."""
        self.waiting = 0 if count is None else max(0, self.waiting - count)
        self.engine.resume()
        self.flush()

    def flush(self) -> bytes:
        said = self.engine.pending
        pieces = self.engine.take()
        out = b"".join(pieces)
        assert bool(out) == self._announced, "output that was not announced, or none that was"
        # `pending` leaves out at most what an extended length takes.
        assert said <= len(out) <= said + 8 * len(pieces)
        self._announced = False
        self.wire += out
        return out

    def taken(self) -> bytes:
        """What is on the wire since the last call."""
        self.flush()
        wire, self.wire = bytes(self.wire), bytearray()
        return wire

    @property
    def closed(self) -> tuple[int, str] | None:
        """What ``on_closed`` said."""
        name, *args = self.calls[-1] if self.calls else ("nothing",)
        return (args[0], args[1]) if name == "on_closed" else None

    @property
    def code(self) -> int | None:
        """The closing code of the rule that the peer broke."""
        error = self.engine.error
        if error is None:
            return None
        assert self.closed == (error.code, error.reason)
        assert self.engine.state == CLOSED
        return int(error.code)

    def outcome(self) -> dict[str, Any]:
        """What must not depend on the segments."""
        self.flush()
        error = self.engine.error
        return {
            "calls": [call for call in self.calls if call[0] != "on_readable"],
            "wire": bytes(self.wire),
            "state": self.engine.state,
            "error": None if error is None else (error.code, error.reason),
        }


def segments_of(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """*data* cut at the offsets *cuts*."""
    offsets = [0, *sorted(set(cuts)), len(data)]
    return [data[a:b] for a, b in pairwise(offsets) if a < b]


@pytest.fixture(scope="session")
def connect() -> type[Recorder]:
    """Makes a `Recorder`: ``connect(max_size, offer of permessage-deflate, queue=None)``."""
    return Recorder


@pytest.fixture(scope="session")
def wire() -> Callable[..., bytes]:
    """Frames of a client, as bytes: ``wire((first, content), (first, content, key), raw)``."""
    return join_frames


@pytest.fixture(scope="session")
def mask() -> Callable[..., bytes]:
    """Masking by the letter: ``mask(content, key)``."""
    return masked


@pytest.fixture(scope="session")
def cut() -> Callable[[bytes, Iterable[int]], list[bytes]]:
    return segments_of


@pytest.fixture(params=["installed", "standard"])
def any_zlib(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with the zlib that is taken here, and with the standard library's."""
    if request.param == "standard":
        monkeypatch.setattr(deflate, "zlib", zlib)
