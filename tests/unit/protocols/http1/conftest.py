"""A connection in the hands of a test: it owns an engine, and handles its requests.

`Recorder` plays both sides that an engine speaks to, `StreamOwner` and `StreamHandler`. Every
upcall that the ports name is recorded as ``(name, args)``; any other name raises, so that an
engine cannot invent one. It keeps the laws that a connection keeps (flush when a response is
complete, then the next request, unless the engine is closing), and checks those that an
engine must keep:

* output is announced by ``on_output``, once, before it is there to take;
* nothing is said to a handler whose exchange is over.

What answers the requests is up to the test: `ANSWER_NOW` (within the upcall), `ANSWER_LATER`
(when ``receive`` has returned, as an application task would), or nobody.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.http.defaults import DefaultFields
from omnicorn.ports import StreamHandler, StreamOwner
from omnicorn.protocols.http1 import Http1Engine, RequestParser, ResponseEncoder
from omnicorn.protocols.http1.states import COMPLETE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from omnicorn.http.limits import Limits

UPCALLS = frozenset(
    name for port in (StreamOwner, StreamHandler) for name in vars(port) if name.startswith("on_")
)

NOBODY, ANSWER_NOW, ANSWER_LATER = range(3)

ANSWER = [(b"content-type", b"text/plain")]


class Request:
    """One request as its handler saw it, and the ``StreamHandler`` of it."""

    def __init__(self, owner: Recorder, head: Any) -> None:
        self._owner = owner
        self.head = head
        self.pieces: list[bytes] = []
        self.ended = not head.has_body
        self.resets: list[Any] = []
        self.remote_closed = False
        self.over = False
        """Its response is complete."""

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def on_data(self, data: bytes) -> None:
        assert not self.over and not self.ended and not self.resets, "content out of turn"
        assert data, "an upcall without content"
        self.pieces.append(data)
        self._owner.record("on_data", data)

    def on_end(self) -> None:
        assert not self.over and not self.ended and not self.resets, "the end out of turn"
        self.ended = True
        self._owner.record("on_end")
        self._owner.wants_answer(self)

    def on_reset(self, error: Any) -> None:
        assert not self.over and not self.resets, "reset out of turn"
        self.resets.append(error)
        self._owner.record("on_reset", error)

    def on_remote_closed(self) -> None:
        self._owner.record("on_remote_closed")
        self.remote_closed = True

    def on_writable(self) -> None:
        self._owner.record("on_writable")


class Recorder:
    """See above.

    Attributes:
        calls: Every upcall, in order, as ``(name, args)``.
        requests: Every request, in order.
        wire: Everything flushed.
        reading: The last that ``on_readable`` said.
        pipeline: Go on to the next request by itself.
    """

    def __init__(
        self,
        answers: int = NOBODY,
        *,
        limits: Limits | None = None,
        parser: RequestParser | None = None,
        encoder: ResponseEncoder | None = None,
        defaults: DefaultFields | None = None,
        pipeline: bool = True,
    ) -> None:
        self.answers = answers
        self.pipeline = pipeline
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.requests: list[Request] = []
        self.wire = bytearray()
        self.reading = True
        self.hook: Callable[[str, tuple[Any, ...]], object] | None = None
        self._announced = False
        self._waiting: Request | None = None
        self.parser = parser or RequestParser(limits)
        self.encoder = encoder or ResponseEncoder()
        self.engine: Any = Http1Engine(
            self,
            self.parser,
            self.encoder,
            defaults or DefaultFields(None, False, (), lambda: 0.0),
            Recorder._on_output,
        )

    def __getattr__(self, name: str) -> Any:
        if name in UPCALLS:
            return partial(self.record, name)
        raise AttributeError(f"no upcall is called {name!r}")

    def record(self, name: str, *args: Any) -> None:
        self.calls.append((name, args))
        if self.hook is not None:
            self.hook(name, args)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    # ------------------------------------------------------------------ StreamOwner

    def on_request(self, stream: Any, head: Any) -> Request:
        assert stream is self.engine
        assert not self.requests or self.requests[-1].over, "two exchanges at once"
        request = Request(self, head)
        self.requests.append(request)
        self.record("on_request", head)
        if request.ended:
            self.wants_answer(request)
        return request

    def _on_output(self) -> None:
        self.record("on_output")
        assert not self._announced, "output was announced twice"
        self._announced = True

    def on_full(self) -> None:
        self.record("on_full")
        self.flush()

    def on_readable(self, wanted: bool) -> None:
        self.record("on_readable", wanted)
        assert wanted != self.reading, "reading was switched to what it is"
        self.reading = wanted

    def on_complete(self, stream: Any) -> None:
        assert stream is self.engine
        self.record("on_complete")
        if self.requests:
            self.requests[-1].over = True
        self.flush()
        if self.pipeline and not self.engine.closing and self.engine.remote == COMPLETE:
            self.engine.proceed()

    def on_ready(self) -> None:
        self.record("on_ready")
        if self.pipeline and not self.engine.closing:
            self.engine.proceed()

    # ------------------------------------------------------------------ what a test does

    def feed(self, *segments: bytes) -> Recorder:
        """Give the engine segments, as a connection does: flush after each."""
        for segment in segments:
            self.engine.receive(segment)
            self.settle()
        return self

    def eof(self) -> Recorder:
        self.engine.receive_eof()
        self.settle()
        return self

    def settle(self) -> None:
        """Let the application answer what it has put off, and flush."""
        while self._waiting is not None:
            request, self._waiting = self._waiting, None
            if not request.resets:
                self.answer(request)
        self.flush()

    def wants_answer(self, request: Request) -> None:
        if self.answers == ANSWER_NOW:
            self.answer(request)
        elif self.answers == ANSWER_LATER:
            self._waiting = request

    def answer(self, request: Request | None = None, body: bytes = b"ok") -> None:
        self.engine.send_head(200, ANSWER)
        self.engine.send_data(body, True)

    def flush(self) -> bytes:
        said = bool(self.engine.pending)
        out = b"".join(self.engine.take())
        assert bool(out) <= self._announced, "output that was not announced"
        assert bool(out) or not said
        self._announced = False
        self.wire += out
        return out

    def taken(self) -> bytes:
        """What is on the wire since the last call."""
        self.flush()
        wire, self.wire = bytes(self.wire), bytearray()
        return wire

    @property
    def last(self) -> Request:
        return self.requests[-1]

    def outcome(self) -> dict[str, Any]:
        """What must not depend on the segments: requests, answers, and how it ends."""
        engine = self.engine
        wire = bytes(self.wire)
        refusal = None
        if engine.error is not None:
            # The words of a refusal may differ (an incomplete line is refused for less than
            # a complete one), its status may not.
            start = wire.rfind(b"HTTP/1.1 ")
            if start >= 0 and b"connection: close\r\n\r\n" in wire[start:]:
                refusal = int(wire[start + 9 : start + 12])
                wire = wire[:start]
        return {
            "requests": [describe(request) for request in self.requests],
            "wire": wire,
            "refusal": refusal,
            "failed": engine.error is not None,
            "status": engine.error.status if engine.error is not None else None,
            "closing": engine.closing,
            "cut": engine.cut,
            "remote": engine.remote,
            "local": engine.local,
            "reading": self.reading or engine.closing,
        }


def describe(request: Request) -> dict[str, Any]:
    head = request.head
    described: dict[str, Any] = {
        name: getattr(head, name)
        for name in (
            "expects_continue",
            "fields",
            "has_body",
            "headers",
            "keep_alive",
            "method",
            "path",
            "query",
            "raw_path",
            "trailers",
            "upgrade",
            "version",
        )
    }
    described["ended"] = request.ended
    described["resets"] = len(request.resets)
    # Of a body that breaks off, the last segment's content may be dropped with the error.
    described["body"] = request.body if request.ended else b""
    return described


def segments_of(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """*data* cut at the offsets *cuts*."""
    offsets = [0, *sorted(set(cuts)), len(data)]
    return [data[a:b] for a, b in pairwise(offsets) if a < b]


@pytest.fixture(scope="session")
def connect() -> type[Recorder]:
    """Makes a `Recorder`: ``connect(answers=NOBODY, **what it is made of)``."""
    return Recorder


@pytest.fixture(scope="session")
def cut() -> Callable[[bytes, Iterable[int]], list[bytes]]:
    return segments_of
