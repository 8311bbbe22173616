"""The load of HTTP/2 requests that differ: what h2load cannot send.

What this file alone decides: how such requests are made, sent and counted under load.

It is plain Python on `epoll`, inside the harness's own process, and its share of a core stands
beside every result.  A server that only counts requests gets 500 thousand a second from it, 2 µs
each, and the kernel's part is most of what slower servers make it use.  It can be that little
because nothing is encoded under load:

- The requests of one connection are encoded before any run, by `hpack`, as one string: a request
  is a slice of it.  HPACK has a state, so the string can be sent but in order, and but once on
  a connection.  When it is used up and answered, the connection is closed and made anew.
- No value comes twice all the same, not even on another connection.  A value that is to differ
  holds the number of its request, and before it a stamp, which is the connection's.  The stamp is
  made of letters whose Huffman codes have five bits each, eight of them, and it begins on a byte:
  so the encoded stamp is five bytes by themselves, and stamping a new connection is one
  `bytes.replace`.  Lengths stay as they are, so indices and evictions do, too.
- A closed loop: for each stream that ended, the next one is opened; all that became due with one
  `recv` goes out in one `send`.
- Of the answers only the heads of frames are read: an END_STREAM ends a request, the lengths of
  DATA are summed up.  `servers.check_answer` has seen that answers are right; under load all
  bodies together must have the right length, so an error page would be noticed.
- Windows are Chrome's, and the connection's is opened again when half of it is used, as there.
- A reset stream, a GOAWAY, a connection that ends, or `PATIENCE` seconds of silence end the run as
  failed.  At the end of a run no request is in flight.
- Latency is taken from the first connection alone: all are alike, and clocks are not free.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import time
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from bench import http2
from bench.cases import MARK
from bench.load import Load, LoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.cases import Case, Request

REQUESTS = 10_000
"""As many has a connection; they are encoded in about two seconds."""

PATIENCE = 5.0
STREAM_WINDOW = 6 * 1024 * 1024
CONNECTION_WINDOW = 15 * 1024 * 1024

_LETTERS = "012aceiost"  # RFC 7541, appendix B: the codes of five bits
_STAMP_LETTERS = 8
_PLACE = "oo0tais2"
_RECEIVE = 65536


class Sequence(NamedTuple):
    """All requests of a connection: request `n` is `text[starts[n]:starts[n + 1]]`.

    `place` are the bytes that a connection's own stamp takes the place of.
    """

    text: bytes
    starts: tuple[int, ...]
    place: bytes

    def stamped(self) -> bytes:
        """The text with a stamp that is new."""
        return self.text.replace(self.place, code("".join(random.choices(_LETTERS, k=8))))


def code(stamp: str) -> bytes:
    """The Huffman code of eight of the letters: five bytes, whatever comes before and after."""
    bits = 0
    for letter in stamp:
        bits = bits << 5 | _LETTERS.index(letter)
    return bits.to_bytes(_STAMP_LETTERS * 5 // 8, "big")


@lru_cache(maxsize=1)
def sequence(request: Request, authority: str, requests: int) -> Sequence:
    """Encode `requests` times `request`, each time with another number.

    Raises:
        LoadError: A value that differs does not begin on a byte of its Huffman code.
    """
    encoder = http2.new_encoder()
    fields = http2.fields(request, authority, "http")
    pieces, starts, length = [], [0], 0
    for number in range(requests):
        name = f"{_PLACE}{number:05}"
        block = http2.encoded(encoder, [(k, v.replace(MARK, name)) for k, v in fields])
        pieces.append(http2.opened(block, 2 * number + 1, last=True))
        length += len(pieces[-1])
        starts.append(length)
    made = Sequence(b"".join(pieces), tuple(starts), code(_PLACE))
    wanted = requests * sum(value.count(MARK) for _, value in fields)
    if made.text.count(made.place) != wanted:
        raise LoadError(f"the stamps of {wanted} values cannot be exchanged in their encoding")
    return made


class Link:
    """One connection, and the next one when its requests are used up."""

    __slots__ = (
        "_address",
        "_allowance",
        "_body",
        "_carry",
        "_poll",
        "_sequence",
        "_streams",
        "_text",
        "_used",
        "descriptor",
        "next",
        "socket",
        "waiting",
    )

    def __init__(
        self, address: tuple[str, int], poll: select.epoll, sequence: Sequence, streams: int
    ) -> None:
        self._address = address
        self._poll = poll
        self._sequence = sequence
        self._streams = streams
        self._body = 0
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection(self._address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.descriptor = self.socket.fileno()
        self._text = memoryview(self._sequence.stamped())
        self._carry = b""
        self._used = 0
        self.next = 0
        self.waiting = 0
        self.socket.sendall(
            http2.PREFACE
            + http2.settings({http2.ENABLE_PUSH: 0, http2.INITIAL_WINDOW_SIZE: STREAM_WINDOW})
            + http2.window_update(0, CONNECTION_WINDOW - http2.WINDOW)
        )
        self.socket.setblocking(False)
        self._poll.register(self.descriptor, select.EPOLLIN)

    def close(self) -> None:
        """Close as a client does that has all it wanted."""
        with contextlib.suppress(OSError):
            self.socket.send(http2.frame(http2.GOAWAY, 0, 0, bytes(8)))
        self.socket.close()  # and epoll forgets it

    def renew(self) -> None:
        """Close, and connect anew with all requests unsent."""
        self.close()
        self._connect()

    def ask(self, more: int) -> int:
        """Open up to `more` streams; return how many: less when the requests are used up."""
        starts = self._sequence.starts
        first = self.next
        self.next = until = min(first + more, len(starts) - 1)
        if until > first:
            self._send(self._text[starts[first] : starts[until]])
            self.waiting += until - first
        return until - first

    def _send(self, data: bytes | memoryview) -> None:
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent != len(data):
            self.socket.settimeout(PATIENCE)
            self.socket.sendall(data[sent:])
            self.socket.setblocking(False)

    def hear(self) -> list[int]:
        """Take what has come; return the streams that ended.

        Raises:
            LoadError: The server ended a stream or the connection before its time, or allows less
                than the load needs.
        """
        data = self.socket.recv(_RECEIVE)
        if not data:
            raise LoadError("the server hung up under load")
        if self._carry:
            data = self._carry + data
        unpack = http2.HEAD.unpack_from
        ended: list[int] = []
        body = at = 0
        size = len(data)
        while size - at >= 9:
            word, flags, stream = unpack(data, at)
            end = at + 9 + (word >> 8)
            if end > size:
                break
            kind = word & 0xFF
            if kind == 0x0:  # DATA
                body += word >> 8
                if flags & 0x1:
                    ended.append(stream)
            elif kind == 0x1:  # HEADERS
                if flags & 0x1:
                    ended.append(stream)
            else:
                self._control(kind, flags, data[at + 9 : end])
            at = end
        self._carry = data[at:]
        if body:
            self._body += body
            self._used += body
            if self._used > CONNECTION_WINDOW // 2:
                self._send(http2.window_update(0, self._used))
                self._used = 0
        self.waiting -= len(ended)
        if self.waiting < 0:
            raise LoadError("more streams ended than were open")
        return ended

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind in (http2.RST_STREAM, http2.PUSH_PROMISE, http2.GOAWAY):
            raise LoadError(f"{http2.described(kind, payload)}, under load")
        if flags & http2.ACK:
            return
        if kind == http2.SETTINGS:
            values = http2.parse_settings(payload)
            if values.get(http2.MAX_CONCURRENT_STREAMS, self._streams) < self._streams:
                raise LoadError(f"the server allows less than {self._streams} streams")
            if values.get(http2.HEADER_TABLE_SIZE, http2.TABLE) < http2.TABLE:
                raise LoadError(f"the server allows a dynamic table of less than {http2.TABLE}")
            self._send(http2.frame(http2.SETTINGS, http2.ACK, 0))
        elif kind == http2.PING:
            self._send(http2.frame(http2.PING, http2.ACK, 0, payload))

    def body(self) -> int:
        """How many bytes of bodies came since this was called last."""
        told, self._body = self._body, 0
        return told


@contextlib.contextmanager
def crowd(case: Case, address: tuple[str, int]) -> Iterator[Callable[[float], Load]]:
    """Make the connections of `case`; what this yields runs the load, for so many seconds.

    It may be called repeatedly.

    Raises:
        LoadError: No connection, or requests that cannot be made; from the load itself, whatever
            ended it early.
    """
    with contextlib.ExitStack() as stack:
        poll = stack.enter_context(contextlib.closing(select.epoll()))
        # Without the port, which is another one in each run, they are encoded but once.
        made = sequence(case.request, address[0], REQUESTS)
        links = []
        for _ in range(case.connections):
            try:
                link = Link(address, poll, made, case.streams)
            except OSError as failure:
                raise LoadError(f"no connection: {failure}") from failure
            stack.callback(link.close)
            links.append(link)

        def run(seconds: float) -> Load:
            try:
                return load(case, links, poll, seconds)
            except OSError as failure:
                raise LoadError(f"a connection broke under load: {failure}") from failure

        yield run


def load(case: Case, links: list[Link], poll: select.epoll, seconds: float) -> Load:
    """Keep `case.streams` requests in flight on every connection, until the time is over.

    Raises:
        LoadError: What ended it early, or bodies that cannot have been right.
    """
    clock, streams = time.perf_counter, case.streams
    found = {link.descriptor: link for link in links}
    timed = links[0]
    asked: dict[int, float] = {}
    waits: list[float] = []
    answered = in_flight = 0

    def ask(link: Link, more: int, now: float) -> int:
        opened = link.ask(more)
        if not opened and not link.waiting:
            del found[link.descriptor]
            link.renew()
            found[link.descriptor] = link
            opened = link.ask(streams)
        if link is timed:
            for number in range(link.next - opened, link.next):
                asked[2 * number + 1] = now
        return opened

    begun = clock()
    end = begun + seconds
    for link in links:
        in_flight += ask(link, streams, begun)
    while in_flight:
        ready = poll.poll(PATIENCE)
        if not ready:
            raise LoadError(f"{in_flight} requests got no answer for {PATIENCE:.0f} s")
        now = clock()
        for descriptor, _ in ready:
            link = found[descriptor]
            ended = link.hear()
            if not ended:
                continue
            answered += len(ended)
            in_flight -= len(ended)
            if link is timed:
                waits += [now - asked.pop(stream, now) for stream in ended]
            if now < end:
                in_flight += ask(link, len(ended), now)
    whole = clock() - begun
    came = sum(link.body() for link in links)
    if came != answered * len(case.body):
        raise LoadError(f"bodies of {came} bytes in {answered} answers, not {len(case.body)} each")
    waits.sort()
    return Load(
        requests=answered,
        seconds=whole,
        p99_ms=waits[-1 - len(waits) // 100] * 1000,
        socket_errors=0,
        bad_statuses=0,
    )
