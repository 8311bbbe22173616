"""The WebSocket load: many sockets on one core, counting what comes back.

What this file alone decides: how messages are sent and counted under load.

It is plain Python on `epoll`, inside the harness's own process.  Measured against uvloop with a
protocol class, and against picows' client: all three spend 7 µs of CPU per 64-byte echo, nearly
all of it in the kernel, and get the same rates out of every server; so the one that needs nothing
installed was kept.  Its share of a core stands beside every result.

- A closed loop: a socket sends its next message when the whole echo of the last one is there;
  the speaker of a fan-out, when the last listener has it.
- Frames are made beforehand, `VARIETY` for each socket, each with a payload and a mask of its own.
- Under load nothing is parsed.  `servers.check_answer` has seen that a message comes back as one
  plain frame, so its length on the wire is known, and counting bytes is enough: a frame is taken
  for an echo by its first byte and its length.  Only what is something else, such as a ping, is
  looked into.
- No byte goes unaccounted for: what is neither echo nor ping ends the run as failed, and so do
  sockets that hear nothing for `PATIENCE` seconds.  At the end of a run no message is in flight.
- Latency is taken from the first socket alone: all are alike, and clocks are not free.
"""

from __future__ import annotations

import contextlib
import select
import time
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from bench import websocket
from bench.cases import AUDIENCE, Kind
from bench.load import Load, LoadError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

    from bench.cases import Case, Message

VARIETY = 8
PATIENCE = 5.0
_BUFFER = bytearray(256 * 1024)
"""Where everything is received; more than the longest echo with a ping behind it."""


class Link:
    """One socket of the crowd; `due` bytes of the frame under way are still to come."""

    __slots__ = ("due", "first", "frames", "receive", "send", "socket", "whole")

    def __init__(self, connected: socket.socket, message: Message) -> None:
        self.socket = connected
        self.receive = connected.recv_into
        self.send = connected.send
        self.frames = cycle(
            [websocket.masked(message.opcode, message.sample()) for _ in range(VARIETY)]
        )
        example = websocket.unmasked(message.opcode, message.sample())
        self.first = example[0]
        self.whole = self.due = len(example)

    def speak(self) -> None:
        """Send the next message, all of it."""
        frame = next(self.frames)
        sent = self.send(frame)
        if sent != len(frame):
            self._insist(frame[sent:])

    def _insist(self, data: bytes) -> None:
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(data)
        self.socket.setblocking(False)

    def sort(self, data: bytes) -> int:
        """Take `data` that is not just a part of an echo; return how many echoes it ended.

        Raises:
            LoadError: It holds something that is neither an echo nor a ping, or not all of it.
        """
        if not data:
            raise LoadError("the server hung up under load")
        ended = 0
        while data:
            if self.due < self.whole or data[0] == self.first:
                taken = min(self.due, len(data))
                self.due -= taken
                if not self.due:
                    ended += 1
                    self.due = self.whole
            else:
                taken = self._control(data)
            data = data[taken:]
        if ended > 1:
            raise LoadError(f"{ended} echoes came for one message")
        return ended

    def _control(self, data: bytes) -> int:
        opcode, size = data[0] & 0x0F, data[1] if len(data) > 1 else 126
        payload = data[2 : 2 + size]
        if opcode == websocket.CLOSE:
            raise LoadError(f"the server closed with {websocket.described(payload)} under load")
        if opcode != websocket.PING or len(payload) < size:
            raise LoadError(f"under load came {data[:8].hex(' ')}, no echo and no whole ping")
        self._insist(websocket.masked(websocket.PONG, payload))
        return 2 + size


@contextlib.contextmanager
def crowd(case: Case, address: tuple[str, int]) -> Iterator[Callable[[float], Load]]:
    """Connect the sockets of `case`; what this yields runs the load, for so many seconds.

    It may be called repeatedly.  `Load.requests` counts echoes, or deliveries to a listener.

    Raises:
        LoadError: The case has no message, or a socket cannot be connected; from the load itself,
            what `echo` and `fan_out` say, or a socket broke.
    """
    message = case.message
    if message is None:
        raise LoadError(f"{case.name} is not a case of WebSockets")
    with contextlib.ExitStack() as stack:
        poll = stack.enter_context(contextlib.closing(select.epoll()))

        def join(target: str) -> Link:
            try:
                connected = websocket.connect(address, target)
            except OSError as failure:
                raise LoadError(f"a socket could not be connected: {failure}") from failure
            stack.callback(connected.close)
            connected.setblocking(False)
            poll.register(connected.fileno(), select.EPOLLIN)
            return Link(connected, message)

        if case.kind is Kind.ECHO:
            links = [join(case.request.target) for _ in range(case.connections)]
            load = partial(echo, links, poll)
        else:
            speaker = join(case.request.target)
            links = [join(AUDIENCE) for _ in range(case.connections)]
            load = partial(fan_out, speaker, links, poll)

        def run(seconds: float) -> Load:
            try:
                return load(seconds)
            except OSError as failure:
                raise LoadError(f"a socket broke under load: {failure}") from failure

        yield run


def echo(links: Sequence[Link], poll: select.epoll, seconds: float) -> Load:
    """Every socket sends and gets back, one message after the other, but at least one.

    Raises:
        LoadError: Echoes stay away, or something else comes.
    """
    found = {link.socket.fileno(): link for link in links}
    clock, buffer = time.perf_counter, _BUFFER
    timed = links[0]
    waits: list[float] = []
    echoes = 0
    in_flight = len(links)
    begun = asked = clock()
    end = begun + seconds
    for link in links:
        link.speak()
    while in_flight:
        ready = _patiently(poll, in_flight)
        going = clock() < end
        for descriptor, _ in ready:
            link = found[descriptor]
            size = link.receive(buffer)
            due = link.due
            if 0 < size <= due and (due < link.whole or buffer[0] == link.first):
                if size < due:
                    link.due = due - size
                    continue
                link.due = link.whole
            elif not link.sort(bytes(buffer[:size])):
                continue
            echoes += 1
            if link is timed:
                now = clock()
                waits.append(now - asked)
                asked = now
            if going:
                link.speak()
            else:
                in_flight -= 1
    return _told(echoes, clock() - begun, waits)


def fan_out(speaker: Link, listeners: Sequence[Link], poll: select.epoll, seconds: float) -> Load:
    """The speaker sends, all listeners hear it, then the next message; at least one.

    The latency is that of the last listener.

    Raises:
        LoadError: A listener missed a message or heard one twice, or something else came.
    """
    found = {link.socket.fileno(): link for link in (speaker, *listeners)}
    clock, buffer = time.perf_counter, _BUFFER
    heard = dict.fromkeys(found, 0)
    waits: list[float] = []
    begun = asked = clock()
    end = begun + seconds
    while not waits or asked < end:
        speaker.speak()
        missing = len(listeners)
        while missing:
            for descriptor, _ in _patiently(poll, missing):
                link = found[descriptor]
                size = link.receive(buffer)
                if size == link.due == link.whole and buffer[0] == link.first:
                    pass
                elif not link.sort(bytes(buffer[:size])):
                    continue
                heard[descriptor] += 1
                missing -= 1
        now = clock()
        waits.append(now - asked)
        asked = now
    wrong = sum(heard[link.socket.fileno()] != len(waits) for link in listeners)
    if wrong:
        raise LoadError(f"{wrong} of {len(listeners)} listeners missed or repeated a message")
    return _told(len(waits) * len(listeners), asked - begun, waits)


def _patiently(poll: select.epoll, waiting: int) -> list[tuple[int, int]]:
    ready = poll.poll(PATIENCE)
    if not ready:
        raise LoadError(f"{waiting} sockets heard nothing for {PATIENCE:.0f} s")
    return ready


def _told(messages: int, seconds: float, waits: list[float]) -> Load:
    waits.sort()
    return Load(
        requests=messages,
        seconds=seconds,
        p99_ms=waits[-1 - len(waits) // 100] * 1000,
        socket_errors=0,
        bad_statuses=0,
    )
