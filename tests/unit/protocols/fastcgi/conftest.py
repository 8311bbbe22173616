"""A connection in the hands of a test: it owns an engine, and handles its requests.

`Recorder` keeps the laws that a connection keeps, and checks those that an engine must keep:
output is announced once before it is there to take; nothing is said to a handler whose request
is over; reading is switched to what it is not.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from tests import fastcgi_front as front

from omnicorn.http.limits import Limits
from omnicorn.protocols.cgi import EnvironmentParser, ResponseEncoder
from omnicorn.protocols.fastcgi import FastCGIEngine, split_params

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NOBODY, NOW, AT_END = range(3)
VALUES = {b"FCGI_MPXS_CONNS": b"1", b"FCGI_MAX_REQS": b"8"}


class Request:
    """One request as its handler saw it."""

    def __init__(self, owner: Recorder, stream: Any, head: Any) -> None:
        self._owner = owner
        self.stream = stream
        self.head = head
        self.body = b""
        self.ended = not head.has_body
        self.resets: list[Any] = []
        self.remote_closed = False
        self.writable = 0
        self.over = False

    def on_data(self, data: bytes) -> None:
        assert data and not self.over and not self.ended and not self.resets
        self.body += data

    def on_end(self) -> None:
        assert not self.over and not self.ended and not self.resets
        self.ended = True
        if self._owner.answers == AT_END:
            self.respond(self.body)

    def on_reset(self, error: Any) -> None:
        assert not self.resets
        self.resets.append(error)

    def on_remote_closed(self) -> None:
        assert not self.over
        self.remote_closed = True

    def on_writable(self) -> None:
        self.writable += 1

    def respond(self, body: bytes = b"ok", status: int = 200) -> None:
        self.stream.send_head(status, [])
        self.stream.send_data(body, True)


class Recorder:
    """See above.

    Attributes:
        wire: Everything flushed.
        requests: Every request, in order.
        refused: Why requests were refused.
        dropped: What ``on_dropped`` was told.
    """

    def __init__(
        self, answers: int = NOBODY, *, limits: Limits | None = None, max_requests: int = 8
    ) -> None:
        self.answers = answers
        self.wire = b""
        self.requests: list[Request] = []
        self.refused: list[Any] = []
        self.dropped: list[Any] = []
        self.completed: list[int] = []
        self.reading = True
        self.now = 0.0
        self._announced = False
        self.engine: Any = FastCGIEngine(
            self,
            EnvironmentParser(split_params, limits or Limits()),
            ResponseEncoder(cgi=True),
            max_requests,
            VALUES,
            Recorder._on_output,
        )

    def _on_output(self) -> None:
        assert not self._announced, "output was announced twice"
        self._announced = True

    def on_request(self, stream: Any, head: Any) -> Request:
        request = Request(self, stream, head)
        self.requests.append(request)
        stream.handler = request
        if self.answers == NOW or (self.answers == AT_END and request.ended):
            request.respond()
        return request

    def on_full(self) -> None:
        self.flush()

    def on_readable(self, wanted: bool) -> None:
        assert wanted != self.reading, "reading was switched to what it is"
        self.reading = wanted

    def on_complete(self, stream: Any) -> None:
        if stream.handler is not None:
            stream.handler.over = True
        self.completed.append(stream.number)

    def on_refused(self, error: Any, stream: Any) -> None:
        self.refused.append(error)

    def on_dropped(self, handler: Any) -> None:
        self.dropped.append(handler)

    # ------------------------------------------------------------------ what a test does

    def feed(self, *segments: bytes) -> Recorder:
        for segment in segments:
            self.engine.receive(segment, self.now)
            self.flush()
        return self

    def flush(self) -> None:
        pending = self.engine.pending
        out = b"".join(self.engine.take())
        assert bool(out) == self._announced == bool(pending)
        self._announced = False
        self.wire += out

    def answer(self, number: int = 1) -> front.Answer:
        self.flush()
        return front.answer(self.wire, number)

    def records(self) -> list[front.Record]:
        self.flush()
        return front.records(self.wire)

    @property
    def last(self) -> Request:
        return self.requests[-1]

    def outcome(self) -> dict[str, Any]:
        """What must not depend on the segments."""
        engine = self.engine
        return {
            "requests": [
                (each.head.path, each.head.headers, each.head.has_body, each.ended)
                # Of a body that breaks off, the last segment may be dropped with the error.
                + ((each.body,) if each.ended else ())
                for each in self.requests
            ],
            # Between records of different requests, the order is that of the flushes.
            "records": sorted(front.records(self.wire)),
            "refused": [str(error) for error in self.refused],
            "error": str(engine.error),
            "closing": engine.closing,
            "streams": sorted(engine.streams),
        }


def segments_of(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """*data* cut at the offsets *cuts*."""
    offsets = [0, *sorted(set(cuts)), len(data)]
    return [data[a:b] for a, b in pairwise(offsets) if a < b]


@pytest.fixture(scope="session")
def connect() -> type[Recorder]:
    """Makes a `Recorder`: ``connect(answers, limits=..., max_requests=...)``."""
    return Recorder


@pytest.fixture(scope="session")
def cut() -> Callable[[bytes, Iterable[int]], list[bytes]]:
    return segments_of
