"""Ours, h11 and httptools (llhttp) on the same bytes: where they differ, and why ours is right.

One generated request after the other, each with up to three mutations, is given whole to all
three. What is compared is what becomes of the *first* request: its parts, a refusal, or
waiting for more. The tables explain every class of difference: *stricter* ones by our
own reason for the refusal, the others by a pattern that the bytes show. A difference that no
entry explains fails, and so does an entry whose example shows none.

*stricter*: we refuse what the other takes, and the RFC lets us. *laxer*: we take what the
other refuses, and no other reading of the bytes exists. That both take the same bytes and read
them differently, which is what smuggling needs, has no table: it must not be.
"""

from __future__ import annotations

import random
import re
from typing import Any, NamedTuple

import h11
import httptools
import pytest

NOW = 1

REFUSED = "refused"
MORE = "more"


class Parts(NamedTuple):
    """A request as one of the three read it."""

    method: bytes
    path: bytes
    query: bytes
    version: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    content: bytes


Seen = Parts | str


def folded(pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """A coding without its case: it has none (RFC 9112 §7), and h11 reports it lower-case."""
    name, value = pair
    return (name, value.lower()) if name == b"transfer-encoding" else pair


def parts(method: bytes, target: bytes, version: bytes, headers: Any, content: bytes) -> Parts:
    """In one form for all: an absolute target is its path, and its authority the host."""
    headers = tuple((bytes(name).lower(), bytes(value).strip(b" \t")) for name, value in headers)
    headers = tuple(map(folded, headers))
    absolute = re.fullmatch(rb"(?i:https?)://([^/?]*)(.*)", target)
    if absolute:
        authority, target = absolute.groups()
        if not target.startswith(b"/"):
            target = b"*" if method == b"OPTIONS" and not target else b"/" + target
        if (b"host", authority) not in headers:
            rest = tuple(pair for pair in headers if pair[0] != b"host")
            headers = ((b"host", authority), *rest)
    path, _, query = target.partition(b"?")
    return Parts(method, path, query, b"1.0" if version == b"1.0" else b"1.1", headers, content)


def by_us(connect: Any, data: bytes) -> Seen:
    recorder = connect(NOW).feed(data)
    if recorder.requests and recorder.requests[0].ended:
        request = recorder.requests[0]
        head = request.head
        return Parts(
            head.method.encode(),
            head.raw_path,
            head.query,
            head.version.encode(),
            tuple(map(folded, head.headers)),
            request.body,
        )
    return REFUSED if recorder.engine.error is not None else MORE


def by_h11(data: bytes) -> Seen:
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=65536)
    server.receive_data(data)
    request: Any = None
    content = b""
    try:
        while True:
            event = server.next_event()
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                content += event.data
            elif isinstance(event, h11.EndOfMessage):
                version = request.http_version
                return parts(request.method, request.target, version, request.headers, content)
            else:
                return MORE
    except h11.RemoteProtocolError:
        return REFUSED


class Upcalls:
    """What httptools calls; only the first message counts."""

    def __init__(self) -> None:
        self.parser: Any = httptools.HttpRequestParser(self)
        self.seen: Parts | None = None
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.content = b""
        self.head = True

    def on_url(self, url: bytes) -> None:
        if self.seen is None:
            self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head:  # else a trailer
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.head = False

    def on_body(self, body: bytes) -> None:
        if self.seen is None:
            self.content += body

    def on_message_complete(self) -> None:
        if self.seen is None:
            method = self.parser.get_method()
            version = self.parser.get_http_version().encode()
            self.seen = parts(method, self.target, version, self.headers, self.content)


def by_httptools(data: bytes) -> Seen:
    upcalls = Upcalls()
    try:
        upcalls.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return upcalls.seen or REFUSED
    return upcalls.seen or MORE


class Difference(NamedTuple):
    """A class of differences.

    Attributes:
        others: Of whom.
        shows: Stricter: how our refusal begins. Otherwise: a pattern that the bytes show.
        rule: Why ours is right.
        example: Bytes that are read differently.
    """

    others: tuple[str, ...]
    shows: str
    rule: str
    example: bytes


H11, TOOLS, BOTH = ("h11",), ("httptools",), ("h11", "httptools")

HOST = b"\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

STRICTER = [
    Difference(
        BOTH,
        "a line ends in a bare LF",
        "RFC 9112 §2.2: a recipient may take a bare LF for a line end; whoever stands in front "
        "of us may not, and then the two see different heads (§11.2).",
        b"\nGET / HTTP/1.1" + HOST + b"\r\n",
    ),
    Difference(
        H11,
        "a bare LF stands in the chunked framing",
        "RFC 9112 §7.1: every line of the coding ends in CRLF; CVE-2024-52304.",
        CHUNKED + b"3\r\nabc\r\n0\r\n\n",
    ),
    Difference(
        H11,
        "a chunk size is malformed",
        "RFC 9112 §7.1.1: white space stands only before an extension, and control bytes nowhere.",
        CHUNKED + b"3\t\r\nabc\r\n0\r\n\r\n",
    ),
    Difference(
        H11,
        "a trailer field line is malformed",
        "RFC 9112 §7.1.2: a trailer is a field line; we refuse it as soon as it is complete.",
        CHUNKED + b"0\r\nX\r\n",
    ),
    Difference(
        H11,
        "a field line is folded (obs-fold)",
        "RFC 9112 §5.2: a server must refuse obs-fold or replace it; CVE-2022-32215.",
        b"GET / HTTP/1.1" + HOST + b"X: 1\r\n 2\r\n\r\n",
    ),
    Difference(
        H11,
        "a field line holds a byte that is not allowed",
        "RFC 9110 §5.5: control bytes are invalid and dangerous; they may be refused.",
        b"GET / HTTP/1.1" + HOST + b"X: \x7f\r\n\r\n",
    ),
    Difference(
        BOTH,
        "the host field is missing",
        "RFC 9112 §3.2: 400 to any HTTP/1.1 request without it; a later minor version is read "
        "as 1.1 (RFC 9110 §2.5).",
        b"GET / HTTP/1.2\r\n\r\n",
    ),
    Difference(
        BOTH,
        "the host field is malformed",
        "RFC 9112 §3.2: 400 to an invalid one; CVE-2026-48710.",
        b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    ),
    Difference(
        TOOLS,
        "there are several host fields",
        "RFC 9112 §3.2: 400 to more than one; CVE-2026-34525.",
        b"GET / HTTP/1.1" + HOST + b"Host: a\r\n\r\n",
    ),
    Difference(
        BOTH,
        "the only expectation understood is 100-continue",
        "RFC 9110 §10.1.1: 417 to an expectation that cannot be met.",
        b"GET / HTTP/1.1" + HOST + b"Expect: y\r\n\r\n",
    ),
    Difference(
        H11,
        "the request line's method is not in upper case",
        "RFC 9110 §9.1: methods have case, and ASGI knows upper case alone: taken for its "
        "namesake, `head` would be answered without the content that a proxy waits for.",
        b"head / HTTP/1.1" + HOST + b"\r\n",
    ),
    Difference(
        BOTH,
        "the request target has none of the allowed forms",
        "RFC 9112 §3.2: an invalid request line is answered with 400.",
        b"OPTIONS ** HTTP/1.1" + HOST + b"\r\n",
    ),
    Difference(
        BOTH,
        "the request target holds a byte that is not allowed",
        "RFC 9112 §3.2: a fragment is no part of any form.",
        b"GET /#x HTTP/1.1" + HOST + b"\r\n",
    ),
    Difference(
        BOTH,
        "the request target's authority is malformed",
        "RFC 9110 §4.2.1: an http URI with an empty host is invalid.",
        b"GET http:///x HTTP/1.1" + HOST + b"\r\n",
    ),
    Difference(
        BOTH,
        "the target * is for OPTIONS alone",
        "RFC 9112 §3.2.4: asterisk-form is only used for a server-wide OPTIONS.",
        b"GET * HTTP/1.1" + HOST + b"\r\n",
    ),
    Difference(
        TOOLS,
        "the request line names no HTTP version",
        "RFC 9112 §3: a request line ends in its version; HTTP/0.9 is not served.",
        b"GET /" + HOST + b"\r\n",
    ),
    Difference(
        BOTH,
        "the request line is malformed",
        "RFC 9112 §3: three parts, two spaces; and RFC 9110 §2.5: another major version is "
        "another protocol.",
        b"GET / HTTP/2.1" + HOST + b"\r\n",
    ),
    Difference(
        H11,
        "both content-length and transfer-encoding are given",
        "RFC 9112 §6.1: a server may refuse what was made for smuggling, and should close.",
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        BOTH,
        "HTTP/1.0 has no transfer-encoding",
        "RFC 9112 §6.1: the framing of such a message is faulty.",
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        TOOLS,
        "the only transfer-encoding understood is chunked",
        "RFC 9112 §6.1: a coding that is not understood must not be passed over; CVE-2024-1135.",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        H11,
        "there are several content-length fields",
        "RFC 9112 §6.3: a list of equal lengths may be refused.",
        POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    ),
    Difference(
        BOTH,
        "the request line names HTTP/2.0",
        "RFC 9113 §3.2: HTTP/2 starts with its own preface, never with a request line.",
        b"GET / HTTP/2.0\r\n\r\n",
    ),
]

LAXER = [
    Difference(
        TOOLS,
        r"\A(?:\r\n)?(?!(?:GET|HEAD|POST|PUT|DELETE|OPTIONS) )[!#$%&'*+\-.^_`|~0-9A-Z]+ ",
        "RFC 9110 §9.1: methods are an open set; whether one is known is for the application.",
        b"X / HTTP/1.1" + HOST + b"\r\n",
    ),
    Difference(
        H11,
        r"\A\r\n",
        "RFC 9112 §2.2: a server should ignore an empty line before the request line.",
        b"\r\nGET / HTTP/1.1" + HOST + b"\r\n",
    ),
    Difference(
        TOOLS,
        r"HTTP/1\.[2-9]\r\n",
        "RFC 9110 §2.5: a later minor version is served as the latest one that is known.",
        b"GET / HTTP/1.2" + HOST + b"\r\n",
    ),
    Difference(
        TOOLS,
        r"(?i)\n0+[^\r\n]*\r\n(?:[^\r\n]+\r\n)*(?:content-length|transfer-encoding):",
        "RFC 9110 §6.5.1: a trailer never frames; we drop them all, so that none can.",
        CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n",
    ),
    Difference(
        TOOLS,
        r"(?i)transfer-encoding:[ \t]*chunked *\t[ \t]*\r\n",
        "RFC 9110 §5.5: HTAB around a value is white space like SP, and no part of it.",
        POST + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        BOTH,
        r"\n[0-9a-fA-F]+[ \t]+;",
        "RFC 9112 §7.1.1: BWS, which includes HTAB, may stand before the semicolon.",
        CHUNKED + b"3\t;x\r\nabc\r\n0\r\n\r\n",
    ),
    Difference(
        TOOLS,
        r"\n[0-9a-fA-F]+;[\t\x20-\x7e\x80-\xff]*\r\n",
        "RFC 9112 §7.1.1: extensions that are not recognized are ignored, unread; without "
        "control bytes they end at the same CRLF for everybody.",
        CHUNKED + b"3;\r\nabc\r\n0\r\n\r\n",
    ),
]


# ---------------------------------------------------------------- what is compared

HEADS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a/b?c=d HTTP/1.1\r\nHost: example.org:80\r\nAccept: */*\r\nX: \t y \t\r\n\r\n",
    b"HEAD /%20 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: [::1]\r\n\r\n",
    b"GET http://b/x?y HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    b"DELETE /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: \xe9\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /p HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n"
    b"a;x=y\r\n0123456789\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
]

BITS = [
    b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b";", b",", b"0", b"3", b"\xff", b"\x0b",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"Content-Length: 5\r\n",
    b"Host: b\r\n", b"Host: a\r\n", b"chunked", b"gzip, ", b"#", b"\x7f", b"+", b"-", b"_", b"x",
    b"0x", b"A", b"g", b"\xc3\xa9", b"/", b"@", b"\x01", b"HTTP/1.1", b"Expect: y\r\n", b"2",
]  # fmt: skip


def mutated(rng: random.Random) -> bytes:
    out = bytearray(rng.choice(HEADS))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3))):
        at = rng.randrange(len(out) + 1)
        if rng.random() < 0.3:  # at the start of a line
            at = rng.choice([m.end() for m in re.finditer(rb"^|\n", bytes(out))])
        kind = rng.randrange(5)
        if kind == 0:
            del out[at : at + rng.choice((1, 1, 2))]
        elif kind == 1:
            out[at : at + 1] = rng.choice(BITS)
        elif kind == 2 and at < len(out):
            out[at] = rng.randrange(256)
        elif kind == 3:
            size = rng.randrange(1, 12)
            out[at:at] = out[at : at + size]
        else:
            out[at:at] = rng.choice(BITS)
    return bytes(out)


def direction(ours: Seen, theirs: Seen) -> str:
    if ours == theirs:
        return "equal"
    if ours == MORE and theirs == REFUSED:
        return "equal"  # a head is judged when it is complete: whether we take it is open
    if ours == REFUSED:
        return "stricter"
    if theirs == REFUSED:
        return "laxer"
    return "other"


def reason_of(connect: Any, data: bytes) -> str:
    return str(connect(NOW).feed(data).engine.error.reason)


def is_explained(connect: Any, data: bytes, other: str, way: str) -> bool:
    if way == "stricter":
        reason = reason_of(connect, data)
        return any(other in d.others and reason.startswith(d.shows) for d in STRICTER)
    return way == "laxer" and any(
        other in d.others and re.search(d.shows.encode(), data) for d in LAXER
    )


OTHERS = {"h11": by_h11, "httptools": by_httptools}


def compare(connect: Any, data: bytes) -> None:
    ours = by_us(connect, data)
    for other, read in OTHERS.items():
        theirs = read(data)
        way = direction(ours, theirs)
        if way != "equal":
            assert is_explained(connect, data, other, way), (other, way, data, ours, theirs)


def test_the_three_agree_on_what_is_plainly_legal(connect: Any) -> None:
    for data in HEADS:
        ours = by_us(connect, data)
        assert isinstance(ours, Parts)
        assert [read(data) for read in OTHERS.values()] == [ours, ours]


@pytest.mark.parametrize(
    ("difference", "way"),
    [
        *[pytest.param(d, "stricter", id=d.shows) for d in STRICTER],
        *[pytest.param(d, "laxer", id=d.rule.partition(":")[0]) for d in LAXER],
    ],
)
def test_every_explanation_has_an_example(connect: Any, difference: Difference, way: str) -> None:
    data = difference.example
    ours = by_us(connect, data)
    assert re.search(r"RFC \d{4} §\d", difference.rule)
    assert any(direction(ours, OTHERS[other](data)) == way for other in difference.others)
    if way == "stricter":
        assert reason_of(connect, data).startswith(difference.shows)
    else:
        assert re.search(difference.shows.encode(), data)


@pytest.mark.parametrize("number", range(2))
def test_every_difference_is_explained(connect: Any, number: int) -> None:
    rng = random.Random(number)
    for _ in range(3000):
        compare(connect, mutated(rng))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(100, 120))
def test_every_difference_is_explained_in_a_long_round(connect: Any, number: int) -> None:
    rng = random.Random(number)
    for _ in range(50_000):
        compare(connect, mutated(rng))
