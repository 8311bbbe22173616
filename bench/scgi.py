"""SCGI: one request as nginx sends it, and a load of them, each on a connection of its own.

What this file alone decides: what the harness's SCGI client puts on the wire, which answers it
takes for right, and how they are counted under load.

It is plain Python on `epoll`, inside the harness's own process; its share of a core stands beside
every result.

- A request is a netstring of fields in nginx's order, CONTENT_LENGTH first, then the body; the
  client does not half-close.  SCRIPT_NAME and PATH_INFO, which nginx leaves to the operator, are
  there too: some servers refuse a request without them.
- REMOTE_PORT is another one in each request, as it is behind a front, so no server can win by
  remembering the whole netstring.
- An answer is a CGI response (RFC 3875 §6) that ends where the connection does.
- A closed loop: when an answer has ended, its place connects anew and asks again.  Connecting is
  part of what is measured, for the protocol has no other way.
- Under load every answer's status and body are compared; the first wrong one, an error of a
  socket, or `PATIENCE` seconds of silence end the run as failed.  At its end no request is in
  flight.
- Latency, from connecting to the end, is taken from the first place alone.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from bench.load import Load, LoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bench.cases import Case, Request

SECONDS = 10.0
"""How long any one answer may take when it is checked."""

PATIENCE = 5.0
_PORTS = range(10_000, 60_000)
"""All of five digits, so that the length of the netstring stays."""

_RECEIVE = 65536


class WrongAnswer(ConnectionError):
    """The server hung up or sent no CGI response; the message says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A CGI response; without a Status field it is a 200 (RFC 3875 §6.3.3)."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def field(self, name: str) -> str | None:
        """The value of the first field called `name`, in any case."""
        return next((value for own, value in self.fields if own == name.lower()), None)


def question(request: Request, host: str, port: int, remote_port: int) -> bytes:
    """`request` as nginx hands it on, for a client at `host` with `remote_port`."""
    path, _, query = request.target.partition("?")
    fields = {
        "CONTENT_LENGTH": str(len(request.body)),
        "REQUEST_METHOD": request.method,
        "REQUEST_URI": request.target,
        "QUERY_STRING": query,
        "CONTENT_TYPE": "",
        "DOCUMENT_URI": path,
        "DOCUMENT_ROOT": "/var/www/html",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "SCGI": "1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "http",
        "REMOTE_ADDR": host,
        "REMOTE_PORT": str(remote_port),
        "SERVER_PORT": str(port),
        "SERVER_NAME": host,
        "HTTP_HOST": host,
    }
    for name, value in request.headers:
        plain = name.upper().replace("-", "_")
        fields[plain if plain == "CONTENT_TYPE" else f"HTTP_{plain}"] = value
    block = "".join(f"{name}\0{value}\0" for name, value in fields.items()).encode()
    return b"%d:%b," % (len(block), block) + request.body


def ask(address: tuple[str, int], request: Request) -> Answer:
    """Send `request` and read the whole answer; it blocks, for about `SECONDS` at most.

    Raises:
        WrongAnswer: No CGI response came.
        OSError: No connection, or no answer in time.
    """
    with socket.create_connection(address, timeout=SECONDS) as link:
        link.sendall(question(request, *address, _PORTS[0]))
        data = bytearray()
        deadline = time.monotonic() + SECONDS
        while piece := link.recv(_RECEIVE):
            data += piece
            if time.monotonic() > deadline:
                raise WrongAnswer(f"the answer did not end within {SECONDS:.0f} s")
    return parse(bytes(data))


def parse(data: bytes) -> Answer:
    """Read a CGI response.

    Raises:
        WrongAnswer: It is none.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        raise WrongAnswer(f"{data[:40]!r} is not the head of a CGI response")
    fields = []
    for line in head.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon:
            raise WrongAnswer(f"{line[:40]!r} is not a field of a CGI response")
        fields.append((name.strip().lower(), value.strip()))
    status = dict(fields).get("status", "200").split(" ")[0]
    if not status.isdecimal():
        raise WrongAnswer(f"the status {status[:40]!r} is not a number")
    return Answer(int(status), tuple(fields), body)


class Place:
    """One connection after the other, with one request each."""

    __slots__ = ("_address", "_link", "_poll", "_questions", "answer", "began", "descriptor")

    def __init__(
        self, address: tuple[str, int], poll: select.epoll, questions: Iterator[bytes]
    ) -> None:
        self._address = address
        self._poll = poll
        self._questions = questions
        self._link: socket.socket | None = None
        self.descriptor = -1
        self.began = 0.0
        self.answer = b""

    def ask(self) -> None:
        """Connect and send the next request.

        Raises:
            OSError: It was refused, or could not be sent within `PATIENCE`.
        """
        text = next(self._questions)
        self.answer = b""
        self._link = link = socket.socket()
        link.setblocking(False)
        # On loopback the kernel has shaken hands when this returns, unless the backlog is full.
        link.connect_ex(self._address)
        try:
            sent = link.send(text)
        except BlockingIOError:
            sent = 0
        if sent != len(text):
            link.settimeout(PATIENCE)
            link.sendall(text[sent:])
            link.setblocking(False)
        self.descriptor = link.fileno()
        self._poll.register(self.descriptor, select.EPOLLIN | select.EPOLLRDHUP)

    def hear(self, flags: int) -> bool:
        """Read what came; whether the answer has ended, in `answer`."""
        link = self._link
        assert link is not None
        data = link.recv(_RECEIVE)
        # Where the end has come as well, it is read at once: that saves a turn of the loop.
        while data:
            self.answer += data
            if not flags & select.EPOLLRDHUP:
                return False
            data = link.recv(_RECEIVE)
        self.close()
        return True

    def close(self) -> None:
        """Close the connection, if there is one; the poll forgets it."""
        if self._link is not None:
            self._link.close()
            self._link = None


@contextlib.contextmanager
def crowd(case: Case, address: tuple[str, int]) -> Iterator[Callable[[float], Load]]:
    """What this yields runs the load of `case`, for so many seconds; it may be called repeatedly.

    Raises:
        LoadError: From the load itself: a wrong answer, silence, or a socket that broke.
    """
    with contextlib.ExitStack() as stack:
        poll = stack.enter_context(contextlib.closing(select.epoll()))
        texts = questions(case.request, address)
        places = [Place(address, poll, texts) for _ in range(case.connections)]
        for place in places:
            stack.callback(place.close)

        def run(seconds: float) -> Load:
            try:
                return load(case, places, poll, seconds)
            except OSError as failure:
                raise LoadError(f"a connection broke under load: {failure}") from failure

        yield run


def questions(request: Request, address: tuple[str, int]) -> Iterator[bytes]:
    """The request without end, REMOTE_PORT another one each time."""
    first = question(request, *address, _PORTS[0])
    before, after = first.split(b"REMOTE_PORT\0%d\0" % _PORTS[0], 1)
    form = before.replace(b"%", b"%%") + b"REMOTE_PORT\0%d\0" + after.replace(b"%", b"%%")
    ports: Iterable[int] = cycle(_PORTS)
    return (form % port for port in ports)


def load(case: Case, places: list[Place], poll: select.epoll, seconds: float) -> Load:
    """Keep one request in flight at every place until the time is over, but at least one.

    Raises:
        LoadError: A wrong answer, or none for `PATIENCE` seconds.
    """
    clock = time.perf_counter
    found: dict[int, Place] = {}
    timed = places[0]
    waits: list[float] = []
    answered = 0
    status = b"Status: %d " % case.status
    end_of_answer = b"\r\n\r\n" + case.body

    begun = clock()
    end = begun + seconds
    for place in places:
        place.began = begun
        place.ask()
        found[place.descriptor] = place
    while found:
        ready = poll.poll(PATIENCE)
        if not ready:
            raise LoadError(f"{len(found)} requests got no answer for {PATIENCE:.0f} s")
        now = clock()
        for descriptor, flags in ready:
            place = found[descriptor]
            if not place.hear(flags):
                continue
            answer = place.answer
            if status not in answer or not answer.endswith(end_of_answer):
                raise LoadError(f"under load came {answer[:60]!r}, {len(answer)} bytes in all")
            answered += 1
            del found[descriptor]
            if place is timed:
                waits.append(clock() - place.began)
                place.began = clock()
            if now < end:
                place.ask()
                found[place.descriptor] = place
    waits.sort()
    return Load(
        requests=answered,
        seconds=clock() - begun,
        p99_ms=waits[-1 - len(waits) // 100] * 1000,
        socket_errors=0,
        bad_statuses=0,
    )
