"""ADR 0005's measurement: request heads per second, omnicorn's parser against httptools.

    .venv/bin/python docs/adr/0005_parsing.py

Both sides end with what a server needs for an ASGI scope: method, version, decoded path, query,
lower-case header pairs, keep-alive. The two take turns in short slices and only their own CPU
time counts, so that a busy machine disturbs both alike; the ratio is the median of all turns.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote

import httptools

from omnicorn.protocols.http1 import RequestParser
from omnicorn.protocols.http1.requests import SHORT, Head

if TYPE_CHECKING:
    from collections.abc import Callable

CURL = b"GET / HTTP/1.1\r\nHost: a.example\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"

BROWSER = (
    b"GET /api/articles?page=3&sort=price HTTP/1.1\r\n"
    b"Host: shop.example\r\n"
    b"Connection: keep-alive\r\n"
    b'sec-ch-ua-platform: "Linux"\r\n'
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/142.0.0.0 Safari/537.36\r\n"
    b"Accept: application/json, text/plain, */*\r\n"
    b'sec-ch-ua: "Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"\r\n'
    b"X-Request-Id: 5f1c7b3e-9d2a-4c61-%013d\r\n"
    b"sec-ch-ua-mobile: ?0\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Accept-Language: en-GB,en;q=0.9\r\n"
    b"Cookie: theme=dark; consent=1; session=c2Vzc2lvbi0%013d\r\n\r\n"
)


class Callbacks:
    """A protocol object as a server on httptools has it."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        self.path = unquote(path) if "%" in path else path
        self.query = url.query or b""
        self.method = parser.get_method().decode("ascii")
        self.version = parser.get_http_version()
        self.keep_alive = parser.should_keep_alive()


def omnicorn(one_connection: bool) -> Callable[[bytes], object]:
    parser = RequestParser()
    known, parse = parser.heads.get, parser.parse
    last: Head | None = None

    def one(block: bytes) -> object:  # as the engine asks: the whole head first, if it is short
        nonlocal last
        head = (known(block) if len(block) <= SHORT else None) or parse(block, last)
        if one_connection:
            last = head
        return head

    return one


def main(turns: int = 400, heads: int = 200) -> None:
    number = iter(range(10**12))

    def fresh() -> bytes:
        return BROWSER % (next(number), next(number))

    cases: list[tuple[str, Callable[[], bytes], bool]] = [
        ("a short head, repeated", lambda: CURL, True),
        ("browser, 12 fields, repeated", lambda: BROWSER % (1, 1), True),
        ("browser, 2 of 12 fields new", fresh, True),
        ("the same, a connection each", fresh, False),
    ]
    for name, make, one_connection in cases:
        sides = (omnicorn(one_connection), Callbacks().parser.feed_data)
        spent: list[list[float]] = [[], []]
        for _ in range(turns):
            blocks = [make() for _ in range(heads)]
            for side, one in enumerate(sides):
                begun = time.thread_time()
                for block in blocks:
                    one(block)
                spent[side].append((time.thread_time() - begun) / heads * 1e6)
        ours, theirs = (sorted(times)[len(times) // 10] for times in spent)
        ratio = statistics.median(b / a for a, b in zip(*spent, strict=True))
        print(f"{name:30} omnicorn {ours:5.2f} us, httptools {theirs:5.2f} us: {ratio:.2f}x")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
