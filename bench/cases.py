"""The cases: which application, which request, how many connections, and what a right answer is.

What this file alone decides: the traffic.  `load` turns a request into what wrk needs, `answer`
sends the same request once and compares; both read it from here, so they cannot drift apart.

Invariants: a case of kind LOAD is measured in requests per CPU-second (more is better); IDLE in
KiB per connection and START in milliseconds (less is better).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bench import apps


class Kind(Enum):
    """How a case is measured."""

    LOAD = "load"
    IDLE = "idle"
    START = "start"


MARK = "{n}"
"""Stands, in a header's value, for a number of 13 digits that is new in each request."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it goes over the wire, but for `Host` and `Content-Length`, which are added.

    A value that holds `MARK` differs in every request.
    """

    method: str = "GET"
    target: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is measured.

    `status` and `body` are the right answer; `echoes` names request headers that must come back
    in the response with the same value.
    """

    name: str
    says: str
    app: str
    body: bytes
    kind: Kind = Kind.LOAD
    request: Request = Request()
    connections: int = 32
    access_log: bool = False
    status: int = 200
    echoes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """What the numbers of this case count."""
        return {
            Kind.LOAD: "requests / CPU-second",
            Kind.IDLE: "KiB / connection",
            Kind.START: "ms",
        }[self.kind]

    @property
    def more_is_better(self) -> bool:
        """Whether a larger number wins."""
        return self.kind is Kind.LOAD


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
        ("X-Request-Id", f"5f1c7b3e-9d2a-4c61-{MARK}"),
        ("sec-ch-ua-mobile", "?0"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "en-GB,en;q=0.9"),
        ("Cookie", f"theme=dark; consent=1; session=c2Vzc2lvbi0{MARK}"),
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
)
