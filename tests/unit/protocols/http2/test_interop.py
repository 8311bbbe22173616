"""The engine and `h2`, an independent client, talk to each other in memory."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from omnicorn.protocols.http2.upgrade import as_http2


class Client:
    """A client by `h2`, which validates all that it reads.

    Args:
        dialogue: Whose engine it talks to; its own books are put aside.
        initial: What it takes on each stream.
        push: It takes pushes.
        segment: Bytes of a segment, both ways; 0: whatever there is.
        reads: It opens its windows as it reads.
    """

    def __init__(
        self,
        dialogue: Any,
        *,
        initial: int = 65535,
        push: bool = True,
        segment: int = 0,
        reads: bool = True,
        start: bool = True,
    ) -> None:
        self.engine = dialogue.engine
        self.owner = dialogue.owner
        self.dialogue = dialogue
        self.segment = segment
        self.reads = reads
        self.headers: dict[int, list[Any]] = {}
        self.informational: dict[int, list[Any]] = {}
        self.bodies: dict[int, bytearray] = {}
        self.trailers: dict[int, list[Any]] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.pushed: dict[int, list[Any]] = {}
        self.goaways: list[int] = []
        self.unsent: dict[int, tuple[bytes, Any]] = {}
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self.h2 = h2.connection.H2Connection(config)
        values = {
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: initial,
            h2.settings.SettingCodes.ENABLE_PUSH: int(push),
            h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 1 << 20,
        }
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values=values)
        self._greeting = bytes(dialogue.wire)
        if start:
            self.h2.initiate_connection()
            self.receive(self._greeting)
            self.run()

    def ask(
        self,
        path: str = "/",
        *fields: tuple[str, str],
        method: str = "GET",
        body: bytes | None = None,
        trailers: Any = None,
    ) -> int:
        number: int = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "https"), (":authority", "a"), (":path", path)]
        self.h2.send_headers(number, [*pseudo, *fields], end_stream=body is None)
        if body is not None:
            self.unsent[number] = (body, trailers)
        return number

    def _send_bodies(self) -> None:
        for number, (body, trailers) in tuple(self.unsent.items()):
            if number in self.resets:
                del self.unsent[number]
                continue
            while body:
                size = min(self.h2.local_flow_control_window(number), 16384, len(body))
                if size <= 0:
                    break
                self.h2.send_data(number, body[:size])
                body = body[size:]
            if body:
                self.unsent[number] = (body, trailers)
                continue
            del self.unsent[number]
            if trailers is None:
                self.h2.end_stream(number)
            else:
                self.h2.send_headers(number, trailers, end_stream=True)

    def run(self) -> None:
        """Until neither side has anything to say."""
        while True:
            self._send_bodies()
            sent = self.h2.data_to_send()
            for piece in self._segments(sent):
                self.engine.receive(piece, self.dialogue.now)
            while True:
                wire = b"".join(bytes(piece) for piece in self.engine.take())
                for piece in self._segments(wire):
                    self.receive(piece)
                if not self.engine.blocked:
                    break
                self.engine.unblock()
            if not sent and not wire:
                break

    def _segments(self, data: bytes) -> list[bytes]:
        size = self.segment or len(data) or 1
        return [data[at : at + size] for at in range(0, len(data), size)]

    def receive(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            number = getattr(event, "stream_id", None) or 0
            if isinstance(event, h2.events.ResponseReceived):
                self.headers[number] = list(event.headers or ())
                self.bodies[number] = bytearray()
            elif isinstance(event, h2.events.InformationalResponseReceived):
                self.informational.setdefault(number, []).append(list(event.headers or ()))
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[number] += event.data or b""
                if self.reads and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, number)
            elif isinstance(event, h2.events.TrailersReceived):
                self.trailers[number] = list(event.headers or ())
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(number)
            elif isinstance(event, h2.events.StreamReset):
                self.resets[number] = int(event.error_code or 0)
            elif isinstance(event, h2.events.PushedStreamReceived):
                self.pushed[event.pushed_stream_id or 0] = list(event.headers or ())
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.goaways.append(int(event.error_code or 0))

    def fields(self, number: int) -> dict[bytes, bytes]:
        return dict(self.headers[number])


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


SEGMENTS = pytest.mark.parametrize("segment", [0, 1, 7, 1000])


def test_requests_one_after_the_other(connect: Any) -> None:
    client = Client(connect(None, answer=lambda exchange: exchange.respond(exchange.head.raw_path)))
    for turn in range(300):
        number = client.ask(f"/{turn % 7}", ("x-turn", str(turn)), ("accept", "*/*"))
        client.run()
        assert client.fields(number)[b":status"] == b"200"
        assert client.bodies[number] == b"/%d" % (turn % 7) and number in client.ended


@SEGMENTS
def test_requests_at_once_answered_in_any_order(connect: Any, segment: int) -> None:
    dialogue = connect(None)
    client = Client(dialogue, segment=segment)
    numbers = [client.ask(f"/{turn}", ("cookie", f"a={turn}")) for turn in range(100)]
    client.run()
    random.Random(segment).shuffle(numbers)
    for number in numbers:
        fields = [(b"x-number", b"%d" % (number % 5)), (b"content-type", b"text/plain")]
        dialogue.exchange(number).respond(b"%d" % number, 200, fields)
        if number % 3 == 0:
            client.run()
    client.run()
    for number in numbers:
        assert client.bodies[number] == b"%d" % number and number in client.ended
        assert client.fields(number)[b"x-number"] == b"%d" % (number % 5)
    assert not dialogue.engine.streams


@pytest.mark.parametrize("segment", [0, 1000])
@pytest.mark.parametrize("initial", [1, 1000, 65535, 1 << 20])
def test_large_bodies_both_ways(connect: Any, segment: int, initial: int) -> None:
    size = 100 if initial == 1 else 400_000  # more by bytes would be an attack
    dialogue = connect(None, answer=lambda exchange: exchange.respond(exchange.body))
    client = Client(dialogue, segment=segment, initial=initial)
    bodies = {client.ask("/", method="POST", body=(body := noise(n, size))): body for n in range(5)}
    client.run()
    for number, body in bodies.items():
        assert client.bodies[number] == body and number in client.ended
    assert client.engine.error is None and not client.resets and not client.goaways


def test_a_client_that_reads_nothing_gets_its_window_and_later_the_rest(connect: Any) -> None:
    dialogue = connect(None)
    client = Client(dialogue, initial=1000, reads=False)
    numbers = [client.ask(), client.ask()]
    client.run()
    for number in numbers:
        dialogue.exchange(number).respond(noise(number, 5000))
    client.run()
    assert [len(client.bodies[number]) for number in numbers] == [1000, 1000]
    client.reads = True
    for number in numbers:
        client.h2.acknowledge_received_data(1000, number)
    client.run()
    assert all(client.bodies[number] == noise(number, 5000) for number in numbers)


def test_settings_change_in_the_middle(connect: Any) -> None:
    dialogue = connect(None)
    client = Client(dialogue, initial=10_000)
    numbers = [client.ask() for _ in range(4)]
    client.run()
    for number in numbers:
        dialogue.exchange(number).respond(noise(number, 100_000))
    codes = h2.settings.SettingCodes
    for initial, table in ((400, 0), (50_000, 100), (0, 4096), (20_000, 65536)):
        client.h2.update_settings(
            {codes.INITIAL_WINDOW_SIZE: initial, codes.HEADER_TABLE_SIZE: table}
        )
        client.run()
        number = client.ask()
        client.run()
        dialogue.exchange(number).respond(b"", 200, [(b"x-same", b"same")])
        client.run()
        assert client.fields(number)[b"x-same"] == b"same"
    assert all(client.bodies[number] == noise(number, 100_000) for number in numbers)


@SEGMENTS
def test_trailers_both_ways(connect: Any, segment: int) -> None:
    def answer(exchange: Any) -> None:
        exchange.stream.send_head(200, [(b"content-type", b"application/grpc")], True)
        exchange.stream.send_data(exchange.body, True)
        exchange.stream.send_trailers([(b"grpc-status", b"0"), (b"grpc-message", b"")])

    client = Client(connect(None, answer=answer), segment=segment)
    for _ in range(3):
        trailers = [("x-checksum", "1")]
        number = client.ask("/", ("te", "trailers"), method="POST", body=b"ping", trailers=trailers)
        client.run()
        assert client.bodies[number] == b"ping" and number in client.ended
        assert client.trailers[number] == [(b"grpc-status", b"0"), (b"grpc-message", b"")]


def test_informational_responses_come_first(connect: Any) -> None:
    dialogue = connect(None)
    client = Client(dialogue)
    number = client.ask("/", ("expect", "100-continue"), method="POST", body=None)
    client.run()
    assert client.resets == {}
    number = client.ask()
    client.run()
    stream = dialogue.exchange(number).stream
    stream.send_informational(103, [(b"link", b"</a>; rel=preload")])
    client.run()
    dialogue.exchange(number).respond()
    client.run()
    assert [dict(fields)[b":status"] for fields in client.informational[number]] == [b"103"]
    assert number in client.ended


@pytest.mark.parametrize("how", ["HEAD", 204, 304])
def test_responses_without_content_are_understood(connect: Any, how: Any) -> None:
    def answer(exchange: Any) -> None:
        status = how if isinstance(how, int) else 200
        exchange.respond(b"x" * 10, status, [(b"content-length", b"10")])

    client = Client(connect(None, answer=answer))
    number = client.ask(method="HEAD" if how == "HEAD" else "GET")
    client.run()
    assert number in client.ended and client.bodies[number] == b""


def test_pushes_are_understood(connect: Any) -> None:
    dialogue = connect(None)
    client = Client(dialogue)
    number = client.ask("/page")
    client.run()
    parent = dialogue.exchange(number).stream
    for path in (b"/a.css", b"/b.js"):
        assert dialogue.engine.push(parent, b"https", path, [(b"accept", b"*/*")])
    dialogue.exchange(number).respond(b"page")
    dialogue.exchange(2).respond(b"a")
    dialogue.exchange(4).respond(noise(4, 100_000))
    client.run()
    assert [dict(fields)[b":path"] for fields in client.pushed.values()] == [b"/a.css", b"/b.js"]
    assert client.bodies[2] == b"a" and client.bodies[4] == noise(4, 100_000)
    assert {number, 2, 4} <= client.ended


def test_pushes_that_are_not_wanted_do_not_come(connect: Any) -> None:
    dialogue = connect(None)
    client = Client(dialogue, push=False)
    number = client.ask("/page")
    client.run()
    assert not dialogue.engine.push(dialogue.exchange(number).stream, b"https", b"/a", [])
    dialogue.exchange(number).respond(b"page")
    client.run()
    assert number in client.ended and not client.pushed


def test_cancelling_and_being_cancelled(connect: Any) -> None:
    dialogue = connect(None)
    client = Client(dialogue)
    numbers = [client.ask("/", method="POST", body=b"x" * 100) for _ in range(6)]
    client.run()
    for number in numbers[:2]:
        client.h2.reset_stream(number, 8)
    dialogue.exchange(numbers[2]).stream.reset()
    dialogue.exchange(numbers[3]).stream.send_head(200, [])
    dialogue.exchange(numbers[3]).stream.reset()
    for number in numbers[4:]:
        dialogue.exchange(number).respond(b"fine")
    client.run()
    assert client.resets == {numbers[2]: 2, numbers[3]: 2}
    assert all(client.bodies[number] == b"fine" for number in numbers[4:])
    assert all(dialogue.exchange(number).resets == [None] for number in numbers[:2])


def test_more_requests_than_allowed_are_refused_and_asked_again(connect: Any) -> None:
    dialogue = connect(None, max_streams=5)
    client = Client(dialogue, start=False)
    client.h2.initiate_connection()  # it has not seen our SETTINGS
    numbers = [client.ask() for _ in range(20)]
    client.engine.receive(client.h2.data_to_send(), dialogue.now)
    client.receive(client._greeting)
    client.run()
    assert set(client.resets.values()) == {7} and sorted(client.resets) == numbers[5:]
    for number in numbers[:5]:
        dialogue.exchange(number).respond()
    client.run()
    again = client.ask()
    client.run()
    dialogue.exchange(again).respond(b"now")
    client.run()
    assert client.bodies[again] == b"now"


def test_goaway_is_understood(connect: Any) -> None:
    """As the end: `h2` takes nothing after it, not even what §6.8 lets come."""
    dialogue = connect(None, answer=lambda exchange: exchange.respond(b"last"))
    client = Client(dialogue)
    number = client.ask()
    client.run()
    dialogue.engine.refuse_more()
    client.run()
    assert client.bodies[number] == b"last"
    assert client.goaways == [0] and dialogue.engine.closing


def test_large_heads_both_ways(connect: Any) -> None:
    """CONTINUATION both ways."""
    value = "".join(chr(33 + n % 90) for n in range(20_000))

    def answer(exchange: Any) -> None:
        exchange.respond(b"", 200, [(b"x-large", exchange.head.fields[b"x-large"])])

    client = Client(connect(None, answer=answer))
    client.h2.decoder.max_header_list_size = 1 << 20
    for _ in range(3):
        number = client.ask("/", ("x-large", value))
        client.run()
        assert client.fields(number)[b"x-large"] == value.encode()


def test_extended_connect(connect: Any) -> None:
    """RFC 8441"""
    dialogue = connect(None)
    client = Client(dialogue)
    assert client.h2.remote_settings.enable_connect_protocol == 1
    number = client.h2.get_next_available_stream_id()
    fields = [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
        (":authority", "a"), (":path", "/chat"), ("sec-websocket-version", "13"),
    ]  # fmt: skip
    client.h2.send_headers(number, fields)
    client.run()
    exchange = dialogue.exchange(number)
    assert exchange.head.protocol == b"websocket" and exchange.head.path == "/chat"
    exchange.stream.send_head(200, [(b"sec-websocket-protocol", b"chat")])
    client.run()
    assert client.fields(number)[b":status"] == b"200"
    for turn in range(20):
        client.h2.send_data(number, b"to %d" % turn)
        client.run()
        exchange.stream.send_data(b"from %d" % turn, False)
        client.run()
    assert exchange.body == b"".join(b"to %d" % turn for turn in range(20))
    assert client.bodies[number] == b"".join(b"from %d" % turn for turn in range(20))
    client.h2.end_stream(number)
    client.run()
    assert exchange.ended
    exchange.stream.send_data(b"", True)
    client.run()
    assert number in client.ended and not dialogue.engine.streams


def test_an_upgraded_connection(connect: Any) -> None:
    """RFC 7540 §3.2"""
    dialogue = connect(None)
    client = Client(dialogue, start=False)
    coded = client.h2.initiate_upgrade_connection()
    assert coded is not None

    request: Any = SimpleNamespace()
    request.method, request.raw_path, request.query = "GET", b"/up", b""
    request.headers = ((b"host", b"a"), (b"http2-settings", coded))
    request.fields = dict(request.headers)
    dialogue.engine.upgrade(b"", as_http2(request))
    client.receive(client._greeting)
    client.run()
    dialogue.exchange(1).respond(b"first")
    client.run()
    assert client.bodies[1] == b"first" and 1 in client.ended
    number = client.ask("/second")
    client.run()
    dialogue.exchange(number).respond(b"second")
    client.run()
    assert client.bodies[number] == b"second"


@pytest.mark.parametrize("seed", range(40))
def test_a_busy_hour(connect: Any, seed: int) -> None:
    """All of it at once: many streams, uploads, pauses, cancellations, in segments of any size."""
    rng = random.Random(seed)
    dialogue = connect(None, window=rng.choice((65535, 1 << 20)), stream_window=65535)
    client = Client(
        dialogue, initial=rng.choice((500, 65535, 1 << 20)), segment=rng.choice((0, 0, 100, 5000))
    )
    dialogue.owner.eager = rng.random() < 0.7
    owner = dialogue.owner
    bodies: dict[int, bytes] = {}
    want: dict[int, bytes] = {}
    open_: set[int] = set()
    for _ in range(80):
        dialogue.now += 0.05
        choice = rng.random()
        if choice < 0.4 and len(open_) < 100:
            body = noise(seed, rng.choice((0, 10, 3000, 70_000))) if rng.random() < 0.5 else None
            number = client.ask(f"/{rng.randrange(5)}", method="POST" if body else "GET", body=body)
            bodies[number] = body or b""
            open_.add(number)
        elif choice < 0.8 and open_:
            number = rng.choice(sorted(open_))
            exchange = owner.exchanges.get(number)
            if exchange is not None and exchange.ended:
                assert exchange.body == bodies[number]
                want[number] = noise(number, rng.choice((0, 5, 2000, 90_000)))
                fields = [(b"x-n", b"%d" % rng.randrange(4))]
                exchange.respond(want[number], 200, fields)
                open_.discard(number)
        elif choice < 0.85 and open_:
            number = rng.choice(sorted(open_))
            if number not in client.unsent:
                client.h2.reset_stream(number, 8)
                open_.discard(number)
        elif not dialogue.owner.eager:
            for exchange in owner.exchanges.values():
                if not exchange.over and exchange.stream.unread:
                    exchange.stream.consumed(exchange.stream.unread)
        client.run()
    for exchange in owner.exchanges.values():
        while not exchange.over and exchange.stream.unread:
            exchange.stream.consumed(exchange.stream.unread)
            client.run()
    for number, body in want.items():
        assert client.bodies[number] == body and number in client.ended, number
    assert client.engine.error is None and not client.resets and not client.goaways
