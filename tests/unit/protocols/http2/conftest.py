"""A client and an owner on both sides of an engine, in memory, who look at everything.

`Dialogue` holds an engine, its `Owner` and what a client knows: it takes frames, feeds them,
reads what comes back, and keeps a client's books. While it does so it asserts the laws:

* output is announced by ``on_output`` before it is there to take;
* every exchange is completed once, and nothing but one reset is said to its handler after;
* frames are whole, of a size that the client takes, and in an order that RFC 9113 allows;
* field blocks can be decoded by `hpack`, in the order they come;
* no window of the client's is exceeded.

Nothing in here comes from what is tested, but for the engine and what it is made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import hpack
import pytest
from tests.http2_client import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW,
    WINDOW_UPDATE,
    frame,
    settings,
)

from omnicorn.http.defaults import DefaultFields
from omnicorn.protocols.http2.engine import Http2Engine
from omnicorn.protocols.http2.hpack import Strings
from omnicorn.protocols.http2.requests import RequestParser
from omnicorn.protocols.http2.responses import ResponseEncoder
from omnicorn.protocols.http2.settings import Http2Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from omnicorn.http.limits import Limits

Pairs = list[tuple[bytes, bytes]]

ANSWER = [(b"content-type", b"text/plain")]


class Event(NamedTuple):
    """A frame of the server, or a field block of several frames."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    fields: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def end(self) -> bool:
        return bool(self.flags & END_STREAM)

    @property
    def code(self) -> int:
        """The error code of RST_STREAM and GOAWAY."""
        start = 4 if self.kind == GOAWAY else 0
        return int.from_bytes(self.payload[start : start + 4], "big")

    @property
    def amount(self) -> int:
        """The increment of WINDOW_UPDATE; the last stream of GOAWAY; what is promised."""
        return int.from_bytes(self.payload[:4], "big")


class Reply:
    """What the client has of one response."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.informational: list[Pairs] = []
        self.headers: Pairs = []
        self.body = b""
        self.trailers: Pairs | None = None
        self.ended = False
        self.reset: int | None = None
        self.promised: Pairs | None = None

    @property
    def status(self) -> int:
        return int(self.headers[0][1]) if self.headers else 0


class Exchange:
    """A request as its application sees it: the ``StreamHandler`` of one stream."""

    def __init__(self, owner: Owner, stream: Any, head: Any) -> None:
        self.owner = owner
        self.stream = stream
        self.head = head
        self.pieces: list[bytes] = []
        self.ended = not head.has_body
        self.resets: list[Any] = []
        self.remote_closed = False
        self.writable = 0
        self.over = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def on_data(self, data: bytes) -> None:
        assert not self.over and not self.ended and not self.resets, "content out of turn"
        assert data, "an upcall without content"
        self.pieces.append(bytes(data))
        self.owner.record("on_data", self.stream.id, bytes(data))
        if self.owner.eager:
            self.stream.consumed(len(data))

    def on_end(self) -> None:
        assert not self.over and not self.ended and not self.resets, "the end out of turn"
        self.ended = True
        self.owner.record("on_end", self.stream.id)
        self.owner.whole(self)

    def on_reset(self, error: Any) -> None:
        assert not self.resets, "reset twice"
        assert not self.over or error is not None, "reset though it is complete"
        self.resets.append(error)
        reason = None if error is None else error.reason
        self.owner.record("on_reset", self.stream.id, reason)

    def on_remote_closed(self) -> None:
        assert not self.over
        self.remote_closed = True
        self.owner.record("on_remote_closed", self.stream.id)

    def on_writable(self) -> None:
        assert not self.over and not self.resets
        self.writable += 1
        self.owner.record("on_writable", self.stream.id)
        if self.owner.refill is not None:
            self.owner.refill(self)

    def respond(
        self,
        body: bytes = b"ok",
        status: int = 200,
        headers: Iterable[tuple[bytes, bytes]] = ANSWER,
    ) -> None:
        self.stream.send_head(status, list(headers))
        self.stream.send_data(body, True)


class Owner:
    """An ``Http2Owner`` that records; it answers at once what it is told to.

    Attributes:
        calls: Every upcall but ``on_output``, in order.
        answer: Called with every exchange whose request is there.
        eager: Content is consumed as it comes.
        refill: Called with the exchange at ``on_writable``.
        keeps: Applications of cancelled requests go on running.
    """

    engine: Http2Engine[Owner]

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.exchanges: dict[int, Exchange] = {}
        self.most = 0
        self.answer: Callable[[Exchange], object] | None = None
        self.eager = True
        self.refill: Callable[[Exchange], object] | None = None
        self.keeps = False
        self.clock: Callable[[], float] = lambda: 0.0
        self.announced = False
        self.running: set[Exchange] = set()
        self._completed: set[int] = set()

    def record(self, *call: Any) -> None:
        self.calls.append(call)

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] == name]

    def whole(self, exchange: Exchange) -> None:
        if self.answer is not None:
            self.answer(exchange)

    def on_request(self, stream: Any, head: Any) -> Exchange:
        assert stream.id not in self.exchanges, "one stream, two requests"
        exchange = self.exchanges[stream.id] = Exchange(self, stream, head)
        self.running.add(exchange)
        self.most = max(self.most, len(self.running))
        self.record("on_request", stream.id, head.method, head.path)
        if exchange.ended:
            self.whole(exchange)
        return exchange

    def on_complete(self, stream: Any) -> None:
        assert stream.id not in self._completed, "complete twice"
        self._completed.add(stream.id)
        exchange = self.exchanges.get(stream.id)
        if exchange is not None:
            exchange.over = True
            if not self.keeps:
                self.running.discard(exchange)
        self.record("on_complete", stream.id)

    def on_dropped(self, handler: Any) -> None:
        if self.keeps:
            self.engine.orphans.add(handler)
        self.record("on_dropped", handler.stream.id)

    def on_refused(self, error: Any, stream: Any) -> None:
        assert error.__traceback__ is None, "which would hold the engine's frames"
        self.record("on_refused", stream and stream.id, error.reason)

    def on_full(self) -> None:
        self.record("on_full")
        self.engine.blocked = True

    def on_settings(self) -> None:
        self.record("on_settings", self.engine.peer.push)

    def on_waiting(self, at_most: float = 0.0) -> None:
        self.engine.now = self.clock()

    def on_output(self) -> None:
        self.announced = True


class Dialogue:
    """See above.

    Args:
        asks: The pairs of the client's SETTINGS; None: it has not said its preface.
        limits: As of the server.
        answer: Called with every exchange whose request is there.
        defaults: Fields of every response.
        settings: Of `Http2Settings`.

    Attributes:
        replies: What the client has, by stream.
        window: What the client takes on the connection.
        room: What the client may send, by stream; 0 is the connection.
        events: All that came, in order.
    """

    def __init__(
        self,
        asks: tuple[tuple[int, int], ...] | None = (),
        *,
        limits: Limits | None = None,
        answer: Callable[[Exchange], object] | None = None,
        defaults: Iterable[tuple[bytes, bytes]] = (),
        parser: RequestParser | None = None,
        **options: Any,
    ) -> None:
        self.now = 100.0
        self.full = False
        """The transport takes nothing."""
        self.owner = Owner()
        self.owner.answer = answer
        self.owner.clock = lambda: self.now
        self.engine: Http2Engine[Owner] = Http2Engine(
            self.owner,
            parser or RequestParser(limits),
            ResponseEncoder(),
            Strings(),
            DefaultFields(None, False, list(defaults), lambda: 0.0),
            Http2Settings(**options),
            Owner.on_output,
            self.now,
        )
        self.owner.engine = self.engine
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.decoder.max_header_list_size = 1 << 24
        self.replies: dict[int, Reply] = {}
        self.events: list[Event] = []
        self.window = WINDOW
        self.initial = WINDOW
        self.room: dict[int, int] = {0: WINDOW}
        self.server: dict[int, int] = {}
        self.wire = bytearray()
        """All that the server has written."""
        self._sent = b""
        self._sane = True
        self._asked: list[bytes] = []
        self._block: Event | None = None
        self._fresh: list[Event] = []
        self.engine.begin()
        self.take()
        if asks is not None:
            self.send(PREFACE, settings(*asks))

    # ------------------------------------------------------------------ requests

    def block(self, path: str = "/", *fields: tuple[str, str], **how: Any) -> bytes:
        """The field block of a request."""
        method = how.get("method", "GET")
        pseudo = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)]
        return self.encoder.encode([*pseudo, *how.get("more", ()), *fields])

    def headers(self, stream: int, path: str = "/", *fields: tuple[str, str], **how: Any) -> bytes:
        """A request's HEADERS; ``end=False`` where content follows."""
        self.room.setdefault(stream, self.server.get(INITIAL_WINDOW, WINDOW))
        flags = END_HEADERS | (END_STREAM if how.get("end", True) else 0)
        return frame(HEADERS, flags, stream, self.block(path, *fields, **how))

    def post(self, stream: int, path: str = "/", *fields: tuple[str, str]) -> bytes:
        return self.headers(stream, path, *fields, method="POST", end=False)

    # ------------------------------------------------------------------ both ways

    def exchange(self, stream: int = 1) -> Exchange:
        return self.owner.exchanges[stream]

    def reply(self, stream: int = 1) -> Reply:
        return self.replies.setdefault(stream, Reply(self.initial))

    def send(self, *frames: bytes) -> list[Event]:
        """Feed one segment; returns what came back."""
        self.feed(b"".join(frames))
        return self.take()

    def feed(self, data: bytes) -> None:
        self._account(data)
        self.engine.receive(data, self.now)

    def grant(self, stream: int, amount: int) -> list[Event]:
        return self.send(frame(WINDOW_UPDATE, 0, stream, amount.to_bytes(4, "big")))

    def take(self) -> list[Event]:
        """What the server has written since the last time."""
        engine = self.engine
        self._fresh = []
        while True:
            held = bool(engine.held)
            pieces = engine.take()
            assert engine.pending == 0 and not engine.out and not engine.held
            wire = b"".join(bytes(piece) for piece in pieces)
            if wire:
                assert self.owner.announced or held, "output without a word"
            self.owner.announced = False
            self.wire += wire
            self._read(wire)
            if not engine.blocked or self.full:
                break
            engine.unblock()
        return self._fresh

    def after(
        self, seconds: float, body: float = 30.0, write: float = 60.0, head: float = 15.0
    ) -> float:
        """Let time pass, and ask for what is overdue; returns for how long nothing will be."""
        self.now += seconds
        return self.engine.overdue(self.now, body, write, head) - self.now

    def lose(self) -> None:
        self.engine.connection_lost()

    # ------------------------------------------------------------------ what came of it

    @property
    def goaways(self) -> list[tuple[int, int]]:
        """Of each the last stream and the code."""
        return [(event.amount, event.code) for event in self.events if event.kind == GOAWAY]

    @property
    def resets(self) -> list[tuple[int, int]]:
        return [(event.stream, event.code) for event in self.events if event.kind == RST_STREAM]

    def assert_dead(self, code: int) -> None:
        """The connection has ended with *code*, and nothing moves any more."""
        assert self.engine.closing
        assert [goaway[1] for goaway in self.goaways[-1:]] == [code], self.goaways
        assert self.engine.error is not None and getattr(self.engine.error, "code", None) == code
        assert not self.engine.streams
        calls = len(self.owner.calls)
        self.engine.receive(self.headers(0x7FFF), self.now)
        assert not self.take() and len(self.owner.calls) == calls

    def assert_alive(self) -> None:
        """The connection takes a request, and answers it."""
        assert self.engine.error is None and not self.engine.closing, self.engine.error
        number = max([1, *(n for n in self.owner.exchanges if n & 1), self.engine._last]) | 1
        self.send(self.headers(number + 2))
        self.exchange(number + 2).respond(b"")
        self.take()
        assert self.reply(number + 2).ended

    # ------------------------------------------------------------------ a client's books

    def _account(self, data: bytes) -> None:
        """Read what the client says about its windows."""
        sent = self._sent + data
        if self._sane and sent[:3] == b"PRI" and len(sent) >= len(PREFACE):
            sent = sent.removeprefix(PREFACE)
        while self._sane and len(sent) >= 9 and sent[:3] != b"PRI":
            size = int.from_bytes(sent[:3], "big")
            if size > 16384:
                self._sane = False
            if len(sent) < 9 + size:
                break
            kind, flags = sent[3], sent[4]
            stream = int.from_bytes(sent[5:9], "big") & 0x7FFFFFFF
            payload, sent = sent[9 : 9 + size], sent[9 + size :]
            if kind == WINDOW_UPDATE and size == 4:
                amount = int.from_bytes(payload, "big") & 0x7FFFFFFF
                if stream:
                    self.reply(stream).window += amount
                else:
                    self.window += amount
            elif kind == SETTINGS and not flags & ACK:
                self._asked.append(payload)
            elif kind == DATA:
                self.room[0] -= size
                if stream in self.room:
                    self.room[stream] -= size
        self._sent = sent

    def _acknowledged(self, payload: bytes) -> None:
        """The server knows our settings (§6.5.3)."""
        for at in range(0, len(payload), 6):
            name = int.from_bytes(payload[at : at + 2], "big")
            value = int.from_bytes(payload[at + 2 : at + 6], "big")
            if name == INITIAL_WINDOW:
                for reply in self.replies.values():
                    reply.window += value - self.initial
                self.initial = value
            elif name == 1:
                self.decoder.max_allowed_table_size = min(value, 1 << 20)

    def _read(self, wire: bytes) -> None:
        at = 0
        while at < len(wire):
            size = int.from_bytes(wire[at : at + 3], "big")
            assert size <= 16384, "larger than SETTINGS_MAX_FRAME_SIZE (§4.2)"
            head = wire[at : at + 9 + size]
            at += 9 + size
            assert len(head) == 9 + size, "half a frame"
            event = Event(head[3], head[4], int.from_bytes(head[5:9], "big"), head[9:])
            if self._block is not None:
                assert event.kind == CONTINUATION and event.stream == self._block.stream
                assert not event.flags & ~END_HEADERS
                block = self._block
                event = Event(
                    block.kind,
                    block.flags | event.flags,
                    block.stream,
                    block.payload + event.payload,
                )
                self._block = None
            else:
                assert event.kind != CONTINUATION
            if event.kind in (HEADERS, PUSH_PROMISE):
                assert not event.flags & ~(END_HEADERS | END_STREAM)
                if not event.flags & END_HEADERS:
                    self._block = event
                    continue
                block_ = event.payload[4:] if event.kind == PUSH_PROMISE else event.payload
                pairs = [(p[0], p[1]) for p in self.decoder.decode(block_, raw=True)]
                event = event._replace(fields=tuple(pairs))
            self._understand(event)
            self.events.append(event)
            self._fresh.append(event)

    def _understand(self, event: Event) -> None:
        kind, flags, stream, payload, fields = event
        if kind == HEADERS:
            reply = self.reply(stream)
            assert stream and not reply.ended and reply.reset is None, "HEADERS after the end"
            assert all(name == name.lower() for name, _ in fields)
            if reply.headers:
                assert event.end, "trailers end their stream (§8.1)"
                assert not [name for name, _ in fields if name.startswith(b":")]
                reply.trailers = list(fields)
            else:
                assert fields[0][0] == b":status"
                if fields[0][1].startswith(b"1"):
                    assert not event.end
                    reply.informational.append(list(fields))
                else:
                    reply.headers = list(fields)
            reply.ended = event.end
        elif kind == DATA:
            reply = self.reply(stream)
            assert stream and reply.headers and not reply.ended and reply.reset is None
            assert reply.trailers is None and not flags & ~END_STREAM
            reply.body += payload
            reply.ended = event.end
            reply.window -= len(payload)
            self.window -= len(payload)
            assert not payload or (reply.window >= 0 and self.window >= 0), "a window is exceeded"
        elif kind == RST_STREAM:
            assert stream and len(payload) == 4
            self.reply(stream).reset = event.code
        elif kind == SETTINGS:
            assert not stream and len(payload) % 6 == 0 and not (flags and payload)
            if flags & ACK:
                self._acknowledged(self._asked.pop(0))
            for at in range(0, len(payload), 6):
                name = int.from_bytes(payload[at : at + 2], "big")
                self.server[name] = int.from_bytes(payload[at + 2 : at + 6], "big")
        elif kind == PUSH_PROMISE:
            parent = self.reply(stream)
            promised = event.amount
            assert not promised & 1 and promised not in self.replies and stream & 1
            assert not parent.ended and parent.reset is None, "a promise on what is over (§6.6)"
            self.reply(promised).promised = list(fields)
        elif kind == PING:
            assert not stream and len(payload) == 8
        elif kind == GOAWAY:
            assert not stream and len(payload) >= 8
            before = self.goaways
            assert not before or event.amount <= before[-1][0], "the last stream grew (§6.8)"
        else:
            assert kind == WINDOW_UPDATE and len(payload) == 4 and event.amount
            if stream in self.room:
                self.room[stream] += event.amount
                assert self.room[stream] < 1 << 31, "a window past 2^31-1 (§6.9.1)"


Connect = type[Dialogue]


@pytest.fixture
def connect() -> Connect:
    """Makes a `Dialogue`."""
    return Dialogue
