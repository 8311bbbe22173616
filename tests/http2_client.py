"""An HTTP/2 client in a few lines (RFC 9113): requests, replies, and any frame by hand.

Independent of what is tested: nothing here comes from `omnicorn.protocols.http2`. It keeps the
rules of its side and asserts those of the server's: order of frames, sizes, both windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import hpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from omnicorn.transports.inproc import Peer

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM = ACK = 1
END_HEADERS = 4
ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW = 2, 3, 4

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 7, 8, 11

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = 65535

Pairs = list[tuple[bytes, bytes]]


class Frame(NamedTuple):
    """What came in one."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number(stream) + payload


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(k.to_bytes(2, "big") + number(v) for k, v in pairs))


def data(stream: int, content: bytes, end: bool = False) -> bytes:
    """DATA frames of a client, as many as it takes."""
    pieces = [content[i : i + 16384] for i in range(0, len(content), 16384)] or [b""]
    return b"".join(
        frame(DATA, END_STREAM if end and piece is pieces[-1] else 0, stream, piece)
        for piece in pieces
    )


def reset(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, number(code))


def window_update(stream: int, amount: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, number(amount))


class Reply:
    """What has come on one stream so far."""

    def __init__(self, window: int) -> None:
        self.window = window
        """Bytes the server may send."""
        self.headers: Pairs = []
        self.informational: list[Pairs] = []
        self.body = b""
        self.trailers: Pairs | None = None
        self.ended = False
        self.reset: int | None = None
        """The code of RST_STREAM."""
        self.promised: Pairs | None = None
        """The request of a pushed response."""

    def is_reset(self) -> bool:
        return self.reset is not None

    @property
    def status(self) -> int:
        """0 before there is one."""
        return int(self.headers[0][1]) if self.headers else 0

    @property
    def fields(self) -> dict[bytes, bytes]:
        return dict(self.headers)


class Http2Client:
    """A client on a `Peer` of a `Served`.

    Args:
        served: The server.
        peer: The end of its connection; the `Served`'s first without.
        asks: The pairs of its SETTINGS; None: no preface is sent.
        auto: Windows are opened as content comes.
        start: Bytes of HTTP/1.1 that were sent and answered before.
    """

    def __init__(
        self,
        served: Any,
        peer: Peer | None = None,
        *,
        asks: tuple[tuple[int, int], ...] | None = (),
        auto: bool = True,
    ) -> None:
        self.served = served
        self.peer: Peer = served.peer if peer is None else peer
        self.auto = auto
        self.pongs = True
        """PINGs are answered."""
        self.polite = True
        """It ends its side when the server has ended its own."""
        self.encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self.streams: dict[int, Reply] = {}
        self.window = WINDOW
        self.frames: list[Frame] = []
        self.settings: dict[int, int] = {}
        """The server's."""
        self.goaways: list[tuple[int, int]] = []
        """Of each the last stream and the code."""
        self.greeted = asks is not None
        """Its preface is sent: what has to be answered is."""
        self._initial = WINDOW
        self._last = -1
        self._buffer = b""
        self._block: tuple[Frame, bytes] | None = None
        if asks is not None:
            self._initial = dict(asks).get(INITIAL_WINDOW, WINDOW)
            self.send(PREFACE + settings(*asks))

    # ------------------------------------------------------------------ sending

    def send(self, *frames: bytes) -> None:
        """Send one segment, run the loop, read what came back."""
        self.peer.send(b"".join(frames))
        self.run()

    def grant(self, stream: int, amount: int) -> None:
        """Open a window; the connection's is that of stream 0."""
        if stream:
            self.streams[stream].window += amount
        else:
            self.window += amount
        self.send(window_update(stream, amount))

    def headers(
        self,
        path: str = "/",
        *fields: tuple[str, str],
        method: str = "GET",
        end: bool = True,
        more: tuple[tuple[str, str], ...] = (),
    ) -> bytes:
        """The HEADERS frame of the next stream, whose number is `last` from now on.

        Args:
            path: The target.
            fields: The regular ones.
            method: The method.
            end: There is no content.
            more: Further pseudo-header fields.
        """
        self._last += 2
        self.streams[self._last] = Reply(self._initial)
        pseudo = [(":method", method), (":scheme", "http"), (":authority", "example.org")]
        block = self.encoder.encode([*pseudo, (":path", path), *more, *fields])
        return frame(HEADERS, END_HEADERS | end, self._last, block)

    @property
    def last(self) -> int:
        """The stream opened last."""
        return self._last

    def ask(self, path: str = "/", *fields: tuple[str, str], **how: Any) -> Any:
        """Send a request's HEADERS; returns its `Reply`."""
        head = self.headers(path, *fields, **how)
        reply = self.streams[self._last]
        self.send(head)
        return reply

    def post(self, path: str, content: bytes, *fields: tuple[str, str]) -> Any:
        head = self.headers(path, *fields, method="POST", end=False)
        reply = self.streams[self._last]
        self.send(head + data(self._last, content, True))
        return reply

    def websocket(self, path: str = "/ws", *fields: tuple[str, str], **how: Any) -> Any:
        """Ask for a WebSocket (RFC 8441 §5)."""
        protocol = how.pop("protocol", "websocket")
        version = () if "sec-websocket-version" in dict(fields) else WS_VERSION
        how.setdefault("end", False)
        return self.ask(
            path, *version, *fields, method="CONNECT", more=((":protocol", protocol),), **how
        )

    # ------------------------------------------------------------------ reading

    def run(self) -> None:
        """Run the loop until neither side has anything to say."""
        while True:
            self.served.loop.run_until_idle()
            answer = self.read(self.peer.take())
            if (
                answer
                and self.greeted
                and not self.peer._closed
                and not self.peer.transport.is_lost
            ):
                self.peer.send(answer)
            elif self.polite and self.peer.eof and not self.peer._closed:
                self.peer.close()
            else:
                break

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.served.loop.advance(seconds)
        self.run()

    def take(self) -> list[Frame]:
        """The frames read since the last time."""
        self.run()
        taken, self.frames = self.frames, []
        return taken

    @property
    def gone(self) -> bool:
        """The server has ended the connection, in good order or not."""
        return self.peer.eof or self.peer.was_reset

    def read(self, wire: bytes) -> bytes:
        """Take bytes of the server; returns what a client has to answer."""
        answer = b""
        self._buffer += wire
        while len(self._buffer) >= 9:
            size = int.from_bytes(self._buffer[:3], "big")
            assert size <= 16384, "larger than SETTINGS_MAX_FRAME_SIZE"
            if len(self._buffer) < 9 + size:
                break
            head, self._buffer = self._buffer[: 9 + size], self._buffer[9 + size :]
            found = Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), head[9:])
            self.frames.append(found)
            answer += self._understand(found)
        return answer

    def _understand(self, found: Frame) -> bytes:
        kind, flags, stream, payload = found
        if self._block is not None:
            assert kind == CONTINUATION and stream == self._block[0].stream
            first, block = self._block
            self._block = (first, block + payload)
        elif kind in (HEADERS, PUSH_PROMISE):
            assert not flags & 0x28, "padding or priority"
            self._block = (found, payload)
        elif kind == DATA:
            return self._content(stream, payload, bool(flags & END_STREAM))
        elif kind == RST_STREAM:
            reply = self.streams[stream]
            assert reply.reset is None, "reset twice"
            reply.reset = int.from_bytes(payload, "big")
        elif kind == SETTINGS:
            if flags & ACK:
                assert not payload
                return b""
            for start in range(0, len(payload), 6):
                key = int.from_bytes(payload[start : start + 2], "big")
                self.settings[key] = int.from_bytes(payload[start + 2 : start + 6], "big")
            return frame(SETTINGS, ACK)
        elif kind == PING:
            if not flags & ACK and self.pongs:
                return frame(PING, ACK, 0, payload)
        elif kind == GOAWAY:
            last = int.from_bytes(payload[:4], "big")
            self.goaways.append((last, int.from_bytes(payload[4:8], "big")))
        else:
            assert kind == WINDOW_UPDATE, kind
        if self._block is not None and flags & END_HEADERS:
            (first, block), self._block = self._block, None
            self._section(first, block)
        return b""

    def _content(self, stream: int, content: bytes, end: bool) -> bytes:
        reply = self.streams[stream]
        assert reply.status and not reply.ended and reply.reset is None
        assert reply.trailers is None
        reply.body += content
        reply.ended = end
        reply.window -= len(content)
        self.window -= len(content)
        assert self.window >= 0 and (reply.window >= 0 or not content), "a window is exceeded"
        if not self.auto or not content:
            return b""
        self.window += len(content)
        if end:
            return window_update(0, len(content))
        reply.window += len(content)
        return window_update(0, len(content)) + window_update(stream, len(content))

    def _section(self, first: Frame, block: bytes) -> None:
        end = bool(first.flags & END_STREAM)
        if first.kind == PUSH_PROMISE:
            promised = int.from_bytes(block[:4], "big")
            assert promised not in self.streams and not promised & 1
            parent = self.streams[first.stream]
            assert not parent.ended and parent.reset is None
            self.streams[promised] = Reply(self._initial)
            self.streams[promised].promised = self._fields(block[4:])
            return
        reply = self.streams[first.stream]
        assert not reply.ended and reply.reset is None
        fields = self._fields(block)
        if reply.headers:
            assert end, "trailers end their stream"
            reply.trailers = fields
        elif fields[0][1].startswith(b"1"):
            assert not end
            reply.informational.append(fields)
        else:
            assert fields[0][0] == b":status"
            reply.headers = fields
        reply.ended = end

    def _fields(self, block: bytes) -> Pairs:
        fields = [(pair[0], pair[1]) for pair in self._decoder.decode(block, raw=True)]
        assert all(name == name.lower() for name, _ in fields)
        return fields


WS_VERSION = (("sec-websocket-version", "13"),)


def watched(serve: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """``serve`` that looks, when a test is over, whether anything is left of it."""
    made: list[Any] = []

    def make(*args: Any, **options: Any) -> Any:
        served = serve(*args, **options)
        made.append(served)
        return served

    yield make
    for served in made:
        service = served.service
        for connection in tuple(service.connections):
            peer = getattr(connection._transport, "peer", None)
            if peer is not None:
                peer.reset()
        served.loop.run_until_idle()
        for exchange in getattr(served.app, "exchanges", ()):
            exchange.finish()
        if service.active:
            service.cancel()
            served.loop.run_until_idle()
        assert not service.connections
        assert service.active == 0
        assert not service.stragglers
        assert not service.deadlines._slots
