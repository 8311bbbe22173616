"""The cases: which application, which request, how many connections, and what a right answer is.

What this file alone decides: the traffic.  `load` turns a request into what wrk needs, `h2load`
into what h2load needs, `streams` into frames, `scgi` into a netstring, `sockets` does that to a
message, and `servers.check_answer` sends the same once and compares; all read it from here, so
they cannot drift apart.

Invariants: a case of kind LOAD, STREAMS, SCGI, ECHO or FANOUT is measured in requests, messages or
deliveries per CPU-second (more is better); IDLE in KiB per connection and START in milliseconds
(less is better).  A case with a `message` is one of WebSockets; ECHO and FANOUT have one, LOAD and
STREAMS have none.  A case with `streams` is one of HTTP/2: of kind LOAD if its requests are all
alike, else of kind STREAMS.  A case is of kind SCGI if its way is SCGI.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

from bench import apps, websocket


class Kind(Enum):
    """How a case is measured."""

    LOAD = "load"
    STREAMS = "streams"
    SCGI = "scgi"
    ECHO = "echo"
    FANOUT = "fanout"
    IDLE = "idle"
    START = "start"


class Way(Enum):
    """How a request gets to the application: what serves, on which loop, over which protocol."""

    ASGI = "asgi"
    """Over HTTP or WebSocket, on asyncio or what a server has in its place."""

    TRIO = "trio"
    """The same on trio, where the server can."""

    WSGI = "wsgi"
    """Over HTTP, to a WSGI application in threads."""

    SCGI = "scgi"
    """Over SCGI, to an ASGI application."""


MARK = "{n}"
"""Stands, in a header's value, for 13 letters or digits that are new in each request.

What stands before it in a value has to fill whole bytes in HPACK's Huffman code: see `streams`.
"""

CONNECTION_FIELDS = frozenset({"connection", "host"})
"""Fields of a `Request` that HTTP/2 has no place for, or another one (RFC 9113 §8.2.2)."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it goes over the wire, but for `Host` and `Content-Length`, which are added.

    A value that holds `MARK` differs in every request.
    """

    method: str = "GET"
    target: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


AUDIENCE = "/"
"""The target of the listeners in a case of kind FANOUT; the speaker's is that of its request."""


@dataclass(frozen=True, slots=True)
class Message:
    """A WebSocket message of `size` bytes, text or binary; its content is new each time."""

    text: bool
    size: int

    @property
    def opcode(self) -> int:
        """As in RFC 6455 §5.2."""
        return websocket.TEXT if self.text else websocket.BINARY

    def sample(self) -> bytes:
        """A payload: random bytes, or random hexadecimal digits as text."""
        noise = os.urandom(self.size)
        return noise.hex()[: self.size].encode() if self.text else noise


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is measured.

    `status` and `body` are the right answer to `request`; `echoes` names request headers that
    must come back in the response with the same value.  Of a WebSocket case the right answer is
    its `message`, and its `request` has the target of the handshake.

    With `streams` it is HTTP/2, with so many requests in flight on every connection; without, it
    is HTTP/1.1, or what its `way` says.  The application is `app` in `module`, which needs
    `requirements`.
    """

    name: str
    says: str
    app: str
    body: bytes = b""
    kind: Kind = Kind.LOAD
    request: Request = Request()
    connections: int = 32
    access_log: bool = False
    status: int = 200
    echoes: tuple[str, ...] = ()
    message: Message | None = None
    streams: int = 0
    way: Way = Way.ASGI
    tls: bool = False
    module: str = "bench.apps"
    requirements: tuple[str, ...] = ()

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return "https" if self.tls else "http"

    @property
    def unit(self) -> str:
        """What the numbers of this case count."""
        return {
            Kind.LOAD: "requests / CPU-second",
            Kind.STREAMS: "requests / CPU-second",
            Kind.SCGI: "requests / CPU-second",
            Kind.ECHO: "messages / CPU-second",
            Kind.FANOUT: "deliveries / CPU-second",
            Kind.IDLE: "KiB / connection",
            Kind.START: "ms",
        }[self.kind]

    @property
    def more_is_better(self) -> bool:
        """Whether a larger number wins."""
        return self.under_load

    @property
    def under_load(self) -> bool:
        """Whether there is a load, so that CPU and latency mean something."""
        return self.kind in (Kind.LOAD, Kind.STREAMS, Kind.SCGI, Kind.ECHO, Kind.FANOUT)


CHROME = Request(
    target="/api/articles?page=3&sort=price",
    headers=(
        ("Connection", "keep-alive"),
        ("sec-ch-ua-platform", '"Linux"'),
        (
            "User-Agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/142.0.0.0 Safari/537.36",
        ),
        ("Accept", "application/json, text/plain, */*"),
        ("sec-ch-ua", '"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"'),
        ("X-Request-Id", f"5f1c7b3e-9d2a-4c61-a{MARK}"),
        ("sec-ch-ua-mobile", "?0"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "en-GB,en;q=0.9"),
        ("Cookie", f"theme=dark; consent=1; session=c2Vzc2lvbi0k{MARK}"),
    ),
)
"""What Chrome's `fetch()` sends: twelve headers with `Host`, two of them new at every request."""

UPLOAD = Request(
    method="POST",
    headers=(("Content-Type", "application/octet-stream"),),
    body=b"0123456789abcdef" * 640,
)

CASES: tuple[Case, ...] = (
    Case("hello", "13 bytes of text, 32 connections", "hello", apps.GREETING),
    Case(
        "browser",
        "a Chrome request (12 headers, 2 of them new each time), 1 KB of JSON back",
        "browser",
        apps.DOCUMENT,
        request=CHROME,
    ),
    Case(
        "unique",
        "as browser, and one header of the response is new each time, too",
        "unique",
        apps.DOCUMENT,
        request=CHROME,
        echoes=("X-Request-Id",),
    ),
    Case("post", "POST of 10 KiB, read whole and echoed", "post", UPLOAD.body, request=UPLOAD),
    Case(
        "stream",
        "20 chunks of 1 KiB, each its own event, no content-length",
        "stream",
        apps.CHUNK * apps.CHUNKS,
    ),
    Case("big", "1 MiB in one event", "big", apps.MEBIBYTE),
    Case(
        "sleep",
        "the application waits 10 ms, 256 connections",
        "sleep",
        apps.GREETING,
        connections=256,
    ),
    Case(
        "log",
        "hello with the access log on, written to a file",
        "hello",
        apps.GREETING,
        access_log=True,
    ),
    Case(
        "idle",
        "private memory of 4000 keep-alive connections after one request each",
        "hello",
        apps.GREETING,
        kind=Kind.IDLE,
        connections=4000,
    ),
    Case(
        "start",
        "from spawning the process to its first answer",
        "hello",
        apps.GREETING,
        kind=Kind.START,
        connections=1,
    ),
    Case(
        "ws",
        "WebSocket echo of 64 bytes of text, 16 sockets",
        "echo",
        kind=Kind.ECHO,
        connections=16,
        message=Message(text=True, size=64),
    ),
    Case(
        "ws-large",
        "WebSocket echo of 64 KiB of binary data, 16 sockets",
        "echo",
        kind=Kind.ECHO,
        connections=16,
        message=Message(text=False, size=65536),
    ),
    Case(
        "ws-fanout",
        "64 bytes of text from one WebSocket to 1000 others",
        "room",
        kind=Kind.FANOUT,
        request=Request(target=apps.SPEAKER),
        connections=1000,
        message=Message(text=True, size=64),
    ),
    Case(
        "ws-idle",
        "private memory of 10,000 WebSockets after one echo each",
        "echo",
        kind=Kind.IDLE,
        connections=10_000,
        message=Message(text=True, size=64),
    ),
    Case(
        "h1-tls",
        "hello over TLS: HTTP/1.1, 32 connections",
        "hello",
        apps.GREETING,
        tls=True,
    ),
    Case(
        "h2",
        "hello over HTTP/2 without TLS (prior knowledge), 8 connections with 16 streams each",
        "hello",
        apps.GREETING,
        connections=8,
        streams=16,
    ),
    Case(
        "h2-tls",
        "as h2, over TLS",
        "hello",
        apps.GREETING,
        connections=8,
        streams=16,
        tls=True,
    ),
    Case(
        "h2-browser",
        "the Chrome request over HTTP/2 (16 fields, 2 of them new each time), 1 KB of JSON back, "
        "8 connections with 16 streams each",
        "browser",
        apps.DOCUMENT,
        kind=Kind.STREAMS,
        request=CHROME,
        connections=8,
        streams=16,
    ),
    Case(
        "h2-post",
        "POST of 10 KiB over HTTP/2, read whole and echoed, 8 connections with 16 streams each",
        "post",
        UPLOAD.body,
        request=UPLOAD,
        connections=8,
        streams=16,
    ),
    Case(
        "h2-big",
        "1 MiB in one event over HTTP/2, 8 connections with 8 streams each",
        "big",
        apps.MEBIBYTE,
        connections=8,
        streams=8,
    ),
    Case(
        "trio",
        "hello on trio, 32 connections",
        "hello",
        apps.GREETING,
        way=Way.TRIO,
        requirements=("trio",),
    ),
    Case("wsgi", "hello by WSGI, 32 connections", "wsgi", apps.GREETING, way=Way.WSGI),
    Case(
        "wsgi-idle",
        "private memory of 4000 keep-alive connections to a WSGI application, after one request "
        "each",
        "wsgi",
        apps.GREETING,
        kind=Kind.IDLE,
        connections=4000,
        way=Way.WSGI,
    ),
    Case(
        "scgi",
        "hello over SCGI, a new connection for each request, 32 at once",
        "hello",
        apps.GREETING,
        kind=Kind.SCGI,
        way=Way.SCGI,
    ),
    Case(
        "django-sync",
        "a synchronous view of Django, on our toolkit in asgiref's place; 32 connections",
        "application",
        apps.GREETING,
        request=Request(target="/sync"),
        module="bench.django_toolkit",
        requirements=("django>=5.2",),
    ),
    Case(
        "django-async",
        "an asynchronous view of Django, on our toolkit in asgiref's place; 32 connections",
        "application",
        apps.GREETING,
        request=Request(target="/async"),
        module="bench.django_toolkit",
        requirements=("django>=5.2",),
    ),
)
