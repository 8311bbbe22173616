"""An HTTP/2 client on a blocking socket: one request at a time, and the whole answer to it.

What this file alone decides: what the harness's own clients put on the wire, and which answers of
a server they take for right.  Rules:

- A request is encoded as browsers do it: pseudo-fields in Chrome's order, the path never indexed,
  every other field indexed, cookies in crumbs (RFC 9113 §8.2.3).  The encoder is that of `hpack`,
  so nothing of omnicorn's judges or feeds omnicorn.
- A stream that is reset, a GOAWAY, or an answer that breaks its framing is a wrong answer.
- Windows for receiving are the largest there are: nothing ever waits for an update.

It is made to be right rather than fast: it checks answers, `bench.streams` makes the load.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.cases import CONNECTION_FIELDS

try:
    import hpack
except ImportError:  # needed by HTTP/2 cases only: `available` tells
    hpack = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import ssl

    from bench.cases import Request

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    *(0x0, 0x1, 0x3, 0x4, 0x5),
    *(0x6, 0x7, 0x8, 0x9),
)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = 65535
"""What either side may send at first, on a stream and on a connection (RFC 9113 §6.9.2)."""

TABLE = 4096
"""The size of HPACK's dynamic tables, which nobody here enlarges (RFC 9113 §6.5.2)."""

LARGEST_WINDOW = 2**31 - 1
FRAME_SIZE = 16384
"""The most that either side may put into a frame, as nobody here changes it."""

HEAD = struct.Struct(">IBI")
"""A frame's head: length (24 bits) and type in one word, flags, stream (RFC 9113 §4.1)."""

_SETTING = struct.Struct(">HI")
SECONDS = 10.0
"""How long any one answer may take."""


class WrongAnswer(ConnectionError):
    """The server broke the protocol, refused or hung up; the message says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back on a stream."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def field(self, name: str) -> str | None:
        """The value of the first field called `name`, in any case."""
        return next((value for own, value in self.fields if own == name.lower()), None)


def available() -> bool:
    """Whether `hpack` is installed beside the harness."""
    return hpack is not None


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in values.items()))


def parse_settings(payload: bytes) -> dict[int, int]:
    """What a SETTINGS frame says.

    Raises:
        WrongAnswer: Its length is no multiple of six.
    """
    if len(payload) % 6:
        raise WrongAnswer(f"SETTINGS of {len(payload)} bytes")
    return dict(_SETTING.iter_unpack(payload))


def window_update(stream: int, more: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def fields(request: Request, authority: str, scheme: str) -> list[tuple[str, str]]:
    """The fields of `request` as HTTP/2 has them, pseudo-fields first, in Chrome's order."""
    found = [
        (":method", request.method),
        (":authority", authority),
        (":scheme", scheme),
        (":path", request.target),
    ]
    if request.body:
        found.append(("content-length", str(len(request.body))))
    for name, value in request.headers:
        if name.lower() == "cookie":
            found += (("cookie", crumb) for crumb in value.split("; "))
        elif name.lower() not in CONNECTION_FIELDS:
            found.append((name.lower(), value))
    return found


def new_encoder() -> hpack.Encoder:
    """What a client begins with."""
    return hpack.Encoder()


def encoded(encoder: hpack.Encoder, of: list[tuple[str, str]]) -> bytes:
    """The header block of the fields `of`, Huffman-coded, indexed as Chrome and nghttp2 do."""
    return encoder.encode(
        [
            hpack.NeverIndexedHeaderTuple(name, value) if name == ":path" else (name, value)
            for name, value in of
        ]
    )


def opened(block: bytes, stream: int, *, last: bool) -> bytes:
    """The frame that opens `stream`; `last` when no body follows.

    Raises:
        ValueError: The block would need a CONTINUATION.
    """
    if len(block) > FRAME_SIZE:
        raise ValueError(f"a header block of {len(block)} bytes")
    return frame(HEADERS, END_HEADERS | (END_STREAM if last else 0), stream, block)


class Client:
    """A connection that has sent its preface; over TLS it has negotiated `h2`, too."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        """Connect to `address`.

        Raises:
            WrongAnswer: The server did not choose `h2` by ALPN.
            OSError: No connection, or no handshake.
        """
        self._authority = "{}:{}".format(*address)
        self._scheme = "https" if tls else "http"
        self._encoder = new_encoder()
        self._decoder = hpack.Decoder()
        self._stream = -1
        self._link = socket.create_connection(address, timeout=SECONDS)
        try:
            self._link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                secured = tls.wrap_socket(self._link, server_hostname=address[0])
                self._link = secured
                if secured.selected_alpn_protocol() != "h2":
                    raise WrongAnswer(f"ALPN chose {secured.selected_alpn_protocol()}, not h2")
            self._link.sendall(
                PREFACE
                + settings({ENABLE_PUSH: 0, INITIAL_WINDOW_SIZE: LARGEST_WINDOW})
                + window_update(0, LARGEST_WINDOW - WINDOW)
            )
        except BaseException:
            self._link.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *failure: object) -> None:
        try:
            self._link.sendall(frame(GOAWAY, 0, 0, bytes(8)))
        except OSError:
            pass
        self._link.close()

    def ask(self, request: Request) -> Answer:
        """Send `request`, return the whole answer.

        Raises:
            WrongAnswer: There was none, or a broken one.
            OSError: The connection broke, or it took too long.
            ValueError: The body may not fit into the windows the server begins with.
        """
        if 2 * len(request.body) > WINDOW:
            raise ValueError(f"a body of {len(request.body)} bytes is too much for two requests")
        self._stream += 2
        block = encoded(self._encoder, fields(request, self._authority, self._scheme))
        sent = [opened(block, self._stream, last=not request.body)]
        for at in range(0, len(request.body), FRAME_SIZE):
            piece = request.body[at : at + FRAME_SIZE]
            ends = at + len(piece) == len(request.body)
            sent.append(frame(DATA, END_STREAM if ends else 0, self._stream, piece))
        self._link.sendall(b"".join(sent))
        return self._answer()

    def _answer(self) -> Answer:
        status, body = 0, bytearray()
        found: tuple[tuple[str, str], ...] = ()
        while True:
            kind, flags, payload = self._next()
            if kind == DATA:
                if not status:
                    raise WrongAnswer("DATA before any response")
                body += payload
            else:
                while not flags & END_HEADERS:
                    more, continued, rest = self._next()
                    if more != CONTINUATION:
                        raise WrongAnswer("a header block that breaks off")
                    payload += rest
                    flags |= continued & END_HEADERS
                block = self._decoded(payload)
                if not status and block[:1] and block[0][0] == ":status":
                    status = int(block[0][1])
                    found = block[1:]
                    if status < 200:
                        status = 0
                elif not status or not flags & END_STREAM:
                    raise WrongAnswer(f"a header block that begins with {block[:1]}")
            if flags & END_STREAM:
                return Answer(status, found, bytes(body))

    def _decoded(self, block: bytes) -> tuple[tuple[str, str], ...]:
        try:
            return tuple((str(name), str(value)) for name, value in self._decoder.decode(block))
        except hpack.HPACKError as failure:
            raise WrongAnswer(f"a header block that cannot be decoded: {failure}") from failure

    def _next(self) -> tuple[int, int, bytes]:
        """The next frame of the stream; those of the connection are dealt with on the way."""
        while True:
            word, flags, stream = HEAD.unpack(self._exactly(HEAD.size))
            kind, payload = word & 0xFF, self._exactly(word >> 8)
            if kind == SETTINGS and not flags & ACK:
                allowed = parse_settings(payload).get(HEADER_TABLE_SIZE, TABLE)
                self._encoder.header_table_size = min(allowed, TABLE)
                self._link.sendall(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self._link.sendall(frame(PING, ACK, 0, payload))
            elif kind in (RST_STREAM, PUSH_PROMISE, GOAWAY):
                raise WrongAnswer(described(kind, payload))
            elif kind in (DATA, HEADERS, CONTINUATION):
                if stream != self._stream:
                    raise WrongAnswer(f"stream {self._stream} was asked, stream {stream} answers")
                return kind, flags, _bare(kind, flags, payload)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self._link.recv(size - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise WrongAnswer("the connection ended without a GOAWAY")
            data += piece
        return bytes(data)


def _bare(kind: int, flags: int, payload: bytes) -> bytes:
    # RFC 9113 §§6.1 and 6.2: the pad length comes first, the priority of HEADERS next.
    if kind == CONTINUATION:
        return payload
    padding = payload[0] if flags & PADDED else 0
    start = bool(flags & PADDED) + (5 if kind == HEADERS and flags & PRIORITY else 0)
    if start + padding > len(payload):
        raise WrongAnswer("more padding than frame")
    return payload[start : len(payload) - padding]


def described(kind: int, payload: bytes) -> str:
    """What a RST_STREAM, PUSH_PROMISE or GOAWAY frame says, for people."""
    if kind == PUSH_PROMISE:
        return "a push, which the settings forbid"
    if kind == RST_STREAM:
        return f"a stream was reset with error {int.from_bytes(payload[:4], 'big')}"
    error = int.from_bytes(payload[4:8], "big")
    return f"GOAWAY with error {error} {payload[8:].decode(errors='replace')}".strip()
