"""WebSockets on real sockets: every byte of RFC 6455 and RFC 7692 that a client can see.

Three clients: raw sockets, which say what no library would say; `websockets` and `wsproto`,
whose authors read the RFCs without us. Only the raw one is written here: `Socket` on top of the
fixture's `Wire`. It checks every frame it reads as a strict client has to (RFC 6455 §5.1, §5.2).

What is told to the application is printed by ``apps/ws_plain.py``, each line with the tag of
its socket; `told` waits for such a line.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import select
import signal
import socket
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from conftest import Response, Serve, ServerProcess, Wire

MB = 1 << 20

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3, and what follows from it
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

DEFLATE = "sec-websocket-extensions: permessage-deflate"

MASK = b"\x37\xfa\x21\x3d"


def handshake(target: str, *fields: str, method: str = "GET", **changed: str | None) -> bytes:
    """A request to upgrade.

    Args:
        target: Its target.
        *fields: Further fields, as ``name: value``.
        method: Its method.
        **changed: Other values for the fields there are, by name with ``_``; None leaves one out.
    """
    there: dict[str, str | None] = {
        "host": "e2e",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": KEY,
    }
    for name, value in changed.items():
        assert name.replace("_", "-") in there
        there[name.replace("_", "-")] = value
    lines = [f"{method} {target} HTTP/1.1", *fields]
    lines += [f"{name}: {value}" for name, value in there.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    """RFC 6455 §5.3, by one exclusive or of two large numbers."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def length(size: int, bits: int = 0) -> bytes:
    """The length of a masked frame, RFC 6455 §5.2; ``bits`` chooses a form that is too long."""
    if bits == 64 or size > 65535:
        return b"\xff" + struct.pack("!Q", size)
    if bits == 16 or size > 125:
        return b"\xfe" + struct.pack("!H", size)
    return bytes([0x80 | size])


def frame(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0) -> bytes:
    """A frame as a client sends it."""
    first = bytes([fin << 7 | rsv << 4 | opcode])
    return first + length(len(payload)) + MASK + masked(payload)


def closing(code: int | None = None, reason: str | bytes = b"") -> bytes:
    """A Close frame."""
    reason = reason.encode() if isinstance(reason, str) else reason
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


class Frame(NamedTuple):
    """A frame as it came."""

    opcode: int
    payload: bytes
    fin: bool
    rsv: int


class Socket:
    """A WebSocket whose client knows nothing but frames."""

    def __init__(self, wire: Wire, answer: Response, tag: str) -> None:
        self.wire = wire
        self.answer = answer
        self.tag = tag

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.sock.close()

    def send(self, *frames: bytes) -> None:
        self.wire.send(*frames)

    def frame(self) -> Frame:
        """Read a frame."""
        first, second = self.wire.take(2)
        assert second < 128, "RFC 6455 §5.1: a server does not mask"
        size = second
        if second == 126:
            (size,) = struct.unpack("!H", self.wire.take(2))
            assert size > 125, "RFC 6455 §5.2: the shortest form"
        elif second == 127:
            (size,) = struct.unpack("!Q", self.wire.take(8))
            assert 65535 < size < 1 << 63
        got = Frame(first & 15, self.wire.take(size), bool(first & 128), first >> 4 & 7)
        if got.opcode >= CLOSE:
            assert size <= 125 and got.fin and not got.rsv, "RFC 6455 §5.5"
        return got

    def message(self) -> tuple[int, bytes]:
        """Read a whole message, which may not be compressed."""
        got = self.frame()
        assert got.opcode in (TEXT, BINARY) and not got.rsv, got
        parts = [got.payload]
        opcode = got.opcode
        while not got.fin:
            got = self.frame()
            assert got.opcode == CONTINUATION
            parts.append(got.payload)
        return opcode, b"".join(parts)

    def text(self) -> str:
        opcode, payload = self.message()
        assert opcode == TEXT
        return payload.decode()

    def closed(self) -> tuple[int | None, str]:
        """Read a Close frame: code and reason."""
        got = self.frame()
        assert got.opcode == CLOSE, got
        if not got.payload:
            return None, ""
        (code,) = struct.unpack("!H", got.payload[:2])
        return code, got.payload[2:].decode()

    def ended(self) -> bool:
        """Wait for an orderly end; bytes before it, or a reset, fail the test."""
        assert self.wire.rest() == b""
        return True

    def close(self, code: int | None = 1000) -> None:
        """Close as a polite client does."""
        self.send(closing(code))
        assert self.closed()[0] == code
        assert self.ended()
        self.wire.sock.close()


Open = Any
"""The type of the fixture `connect`."""


@pytest.fixture
def tag() -> str:
    return f"socket-{next(_tags)}"


_tags = itertools.count()


@pytest.fixture
def connect(tag: str) -> Open:
    """Opens raw WebSockets: ``connect(server, target, *fields, then=b"")``."""

    def open_socket(
        server: ServerProcess, target: str, *fields: str, then: bytes = b"", tag: str = tag
    ) -> Socket:
        wire = server.connect()
        separator = "&" if "?" in target else "?"
        target = f"{target}{separator}tag={tag}"
        wire.send(handshake(target, *fields), then)
        answer = wire.head()
        assert answer.status == 101
        assert answer.header("sec-websocket-accept") == ACCEPT
        return Socket(wire, answer, tag)

    return open_socket


@pytest.fixture
def told(tag: str) -> Callable[..., str]:
    """Waits for what the application says of this test's socket: ``told(server, pattern)``."""

    def wait(server: ServerProcess, pattern: str, count: int = 1, seconds: float = 10) -> str:
        return server.wait_for(rf"{pattern} \[{tag}\]", count, seconds=seconds)

    return wait


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module("ws_plain:app", "--no-access-log")


@pytest.fixture(scope="module")
def failing(serve_module: Serve) -> ServerProcess:
    """A server whose applications may have bugs."""
    return serve_module("ws_plain:app", "--no-access-log", errors=True)


@pytest.fixture(scope="module")
def small(serve_module: Serve) -> ServerProcess:
    """A server that takes messages of 1000 bytes."""
    return serve_module("ws_plain:app", "--no-access-log", "--ws-max-size", "1000")


class Memory:
    """How much more a server has held at any moment since this was made."""

    def __init__(self, server: ServerProcess) -> None:
        self._process = Path(f"/proc/{server.process.pid}")
        if not self._process.is_dir():
            pytest.skip("reads memory from /proc, which this machine does not have")
        (self._process / "clear_refs").write_text("5")  # the peak is from now on
        self._before = server.memory()

    def grown(self) -> float:
        """Megabytes."""
        status = (self._process / "status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert match
        return (int(match[1]) * 1024 - self._before) / MB


def push(sock: socket.socket, block: bytes, patience: float = 0.4) -> int:
    """Send a block again and again until the server has not taken any of it for a while.

    Returns:
        The bytes sent, perhaps with a part of a block at the end.
    """
    sock.setblocking(False)
    sent = 0
    while select.select([], [sock], [], patience)[1]:
        sent += sock.send(block[sent % len(block) :])
        assert sent < 64 * MB, "the server goes on reading"
    sock.settimeout(20)
    return sent


# --------------------------------------------------------------------------- the handshake


def test_the_answer_to_a_handshake(server: ServerProcess) -> None:
    with server.connect() as wire:
        wire.send(handshake("/echo"))
        answer = wire.head()

    assert (answer.status, answer.version) == (101, "HTTP/1.1")
    assert answer.header("sec-websocket-accept") == ACCEPT
    assert (answer.header("upgrade") or "").lower() == "websocket"
    assert (answer.header("connection") or "").lower() == "upgrade"
    assert answer.header("date") and answer.header("server") == "omnicorn"
    for absent in ("content-length", "transfer-encoding", "sec-websocket-extensions"):
        assert answer.header(absent) is None
    assert answer.header("sec-websocket-protocol") is None


def test_the_scope_of_a_websocket(server: ServerProcess, connect: Open) -> None:
    with connect(server, "/scope", "sec-websocket-protocol: a, b", "X-Custom: é") as client:
        scope = json.loads(client.text())
        assert client.closed() == (1000, "")
        peer = list(client.wire.sock.getsockname())

    headers = scope.pop("headers")
    assert ["x-custom", "é"] in headers and ["upgrade", "websocket"] in headers
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/scope",
        "raw_path": "/scope",
        "query_string": f"tag={client.tag}",
        "root_path": "",
        "client": peer,
        "server": ["127.0.0.1", server.port],
        "subprotocols": ["a", "b"],
        "state": {"greeting": "from lifespan"},
        "extensions": {"websocket.http.response": {}},
    }


def test_a_proxy_that_speaks_tls_makes_the_scheme_wss(server: ServerProcess, connect: Open) -> None:
    forwarded = ("x-forwarded-for: 192.0.2.7", "x-forwarded-proto: https")
    with connect(server, "/scope", *forwarded) as client:
        scope = json.loads(client.text())

    assert (scope["scheme"], scope["client"]) == ("wss", ["192.0.2.7", 0])


def test_a_subprotocol_and_fields_of_the_applications_choice(
    server: ServerProcess, connect: Open
) -> None:
    offers = ("sec-websocket-protocol: one, two", "sec-websocket-protocol: three")
    with connect(server, "/second-subprotocol", *offers) as client:
        assert client.answer.header("sec-websocket-protocol") == "two"
        assert client.answer.header("x-one") == "1"
        cookies = [value for name, value in client.answer.headers if name == "set-cookie"]
        assert cookies == ["a=b", "c=d"]
        assert client.text() == "two"


@pytest.mark.parametrize(
    ("connection", "upgrade"),
    [("keep-alive, Upgrade", "websocket"), ("UPGRADE", "WebSocket"), ("a,upgrade,b", "websocket")],
)
def test_spellings_of_a_handshake_that_mean_the_same(
    server: ServerProcess, connection: str, upgrade: str
) -> None:
    with server.connect() as wire:
        wire.send(handshake("/echo", connection=connection, upgrade=upgrade))
        assert wire.head().status == 101


REFUSED: dict[str, tuple[bytes, int]] = {
    "no version": (handshake("/echo", sec_websocket_version=None), 426),
    "version 8": (handshake("/echo", sec_websocket_version="8"), 426),
    "version 13, 8": (handshake("/echo", sec_websocket_version="13, 8"), 426),
    "no key": (handshake("/echo", sec_websocket_key=None), 400),
    "short key": (handshake("/echo", sec_websocket_key="dGhlIHNhbXBsZSBub25j"), 400),
    "long key": (handshake("/echo", sec_websocket_key="dGhlIHNhbXBsZSBub25jZTEy"), 400),
    "no base64": (handshake("/echo", sec_websocket_key="dGhlIHNhbXBsZSBub25jZ!=="), 400),
    "two keys": (handshake("/echo", f"sec-websocket-key: {KEY}"), 400),
    "a POST": (handshake("/echo", method="POST"), 405),
    "a HEAD": (handshake("/echo", method="HEAD"), 405),
    "content": (handshake("/echo", "content-length: 5") + b"hello", 400),
    "chunks": (handshake("/echo", "transfer-encoding: chunked") + b"0\r\n\r\n", 400),
    "subprotocol of no token": (handshake("/echo", "sec-websocket-protocol: a b"), 400),
    "subprotocol of other bytes": (handshake("/echo", "sec-websocket-protocol: \x80\xff"), 400),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_handshake_that_is_refused(server: ServerProcess, case: str) -> None:
    sent, status = REFUSED[case]

    with server.connect() as wire:
        wire.send(sent)
        answer = wire.response(head_only=sent.startswith(b"HEAD"))

    assert answer.status == status
    assert answer.header("sec-websocket-accept") is None
    assert answer.header("sec-websocket-version") == ("13" if status == 426 else None)
    assert answer.header("allow") == ("GET" if status == 405 else None)


@pytest.mark.parametrize(
    "sent",
    [
        handshake("/", upgrade=None),
        handshake("/", connection=None),
        handshake("/", connection="keep-alive"),
        handshake("/", upgrade="h2c"),
        handshake("/").replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["no upgrade", "no connection", "another connection", "another upgrade", "HTTP/1.0"],
)
def test_what_is_no_handshake_is_a_plain_request(server: ServerProcess, sent: bytes) -> None:
    with server.connect() as wire:
        wire.send(sent)
        answer = wire.response()

    assert (answer.status, answer.body) == (200, b"plain HTTP")
    assert answer.header("upgrade") is None


def test_without_websockets_a_handshake_is_a_plain_request(serve: Serve) -> None:
    server = serve("ws_plain:app", "--ws", "none")

    with server.connect() as wire:
        wire.send(handshake("/"))
        answer = wire.response()

    assert (answer.status, answer.body) == (200, b"plain HTTP")


def test_frames_in_the_segment_of_the_handshake_are_delivered(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    then = frame(TEXT, b"one") + frame(BINARY, b"two") + frame(TEXT, b"end")
    with connect(server, "/count", then=then) as client:
        assert client.text() == f"2 6 {hashlib.sha256(b'onetwo').hexdigest()}"
        client.close()

    told(server, "disconnected 1000 ''")


def test_a_whole_conversation_in_the_segment_of_the_handshake(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    then = frame(TEXT, b"one") + frame(TEXT, b"two") + closing(1000, "done")
    with connect(server, "/count", then=then) as client:
        assert client.closed()[0] == 1000
        assert client.ended()

    told(server, "counted 2 6")
    told(server, "disconnected 1000 'done'")


def test_a_handshake_and_its_frames_may_come_byte_by_byte(
    server: ServerProcess, tag: str, told: Callable[..., str]
) -> None:
    with server.connect() as wire:
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        target = f"/echo?tag={tag}"
        opening = handshake(target, DEFLATE)
        for byte in opening + frame(TEXT, "é".encode()) + frame(BINARY, bytes(300)):
            wire.send(bytes([byte]))
        answer = wire.head()
        assert answer.status == 101

        client = Socket(wire, answer, tag)
        assert client.text() == "é"
        assert client.frame().opcode == BINARY  # compressed, for it is long enough
        for byte in closing(3000, "bye"):
            wire.send(bytes([byte]))
        assert client.closed()[0] == 3000
        assert client.ended()

    told(server, "disconnected 3000 'bye'")


def test_a_handshake_behind_requests_of_the_same_connection(server: ServerProcess) -> None:
    with server.connect() as wire:
        assert wire.get("/").body == b"plain HTTP"
        wire.send(b"GET / HTTP/1.1\r\nhost: e2e\r\n\r\n" * 2, handshake("/echo"))
        wire.send(frame(TEXT, b"hello"))
        assert [wire.response().body for _ in range(2)] == [b"plain HTTP"] * 2
        client = Socket(wire, wire.head(), "")
        assert client.text() == "hello"
        client.close()


def test_requests_behind_a_handshake_are_no_requests(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    with connect(server, "/echo", then=b"GET / HTTP/1.1\r\nhost: e2e\r\n\r\n") as client:
        assert client.closed()[0] == 1002
        assert client.ended()

    told(server, r"disconnected \d+ .*")


# ---------------------------------------------------------------------------- the denial


@pytest.mark.parametrize("then", [b"", frame(TEXT, b"too early")], ids=["alone", "with a frame"])
def test_a_close_before_the_accept_is_a_403(
    server: ServerProcess, tag: str, told: Callable[..., str], then: bytes
) -> None:
    with server.connect() as wire:
        wire.send(handshake(f"/deny?tag={tag}"), then)
        answer = wire.response()
        assert (answer.status, answer.header("connection")) == (403, "close")
        assert answer.header("content-length") is not None
        assert wire.rest() == b""

    told(server, "disconnected 1006 ''")


def test_a_denial_in_the_applications_own_words(
    server: ServerProcess, tag: str, told: Callable[..., str]
) -> None:
    with server.connect() as wire:
        wire.send(handshake(f"/deny-response?tag={tag}"))
        answer = wire.response()

    assert (answer.status, answer.body) == (401, b"who are you?")
    assert answer.header("www-authenticate") == "Bearer"
    told(server, r"disconnected 1006 ''")


@pytest.mark.parametrize(
    ("target", "logged"),
    [
        ("/return-early", "return-early"),
        ("/raise-early", "RuntimeError: the application has an early bug"),
        ("/foreign-subprotocol", "ASGIError: .*subprotocol"),
    ],
)
def test_an_application_that_neither_accepts_nor_denies_is_a_500(
    failing: ServerProcess, target: str, logged: str
) -> None:
    with failing.connect() as wire:
        wire.send(handshake(target))
        answer = wire.response()

    assert answer.status == 500
    assert answer.header("sec-websocket-accept") is None
    failing.wait_for(logged)


def test_a_client_that_leaves_before_the_decision_is_a_1006(
    server: ServerProcess, tag: str, told: Callable[..., str]
) -> None:
    with server.connect() as wire:
        wire.send(handshake(f"/undecided?tag={tag}"))
        told(server, "undecided")

    told(server, "disconnected 1006 ''")


# ------------------------------------------------------------------------------ messages


SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1_000_000]


def test_messages_of_all_sizes_come_back(server: ServerProcess, connect: Open) -> None:
    with connect(server, "/echo") as client:
        for size in SIZES:
            text = ("añ€😀" * (size // 10 + 1)).encode()[: size // 10 * 10] + b"x" * (size % 10)
            for opcode, content in ((TEXT, text), (BINARY, bytes(range(256)) * (size // 256 + 1))):
                client.send(frame(opcode, content[:size]))
                assert client.message() == (opcode, content[:size])
        client.close()


def test_fragments_are_joined_and_pings_between_them_answered(
    server: ServerProcess, connect: Open
) -> None:
    euro = "€".encode()
    with connect(server, "/echo") as client:
        client.send(
            frame(TEXT, b"a" + euro[:1], fin=False),
            frame(PING, b"now"),
            frame(CONTINUATION, b"", fin=False),
            frame(CONTINUATION, euro[1:2], fin=False),
            frame(PONG, b"nobody asked"),
            frame(CONTINUATION, euro[2:] + b"b"),
            frame(BINARY, b"next"),
        )
        assert client.frame() == Frame(PONG, b"now", True, 0)
        assert client.text() == "a€b"
        assert client.message() == (BINARY, b"next")
        client.send(frame(PING, bytes(125)))
        assert client.frame() == Frame(PONG, bytes(125), True, 0)
        client.close()


def test_frames_may_be_cut_anywhere(server: ServerProcess, connect: Open) -> None:
    content = os.urandom(300)
    sent = frame(TEXT, "añ€😀".encode()) + frame(BINARY, content) + frame(PING, b"?")
    with connect(server, "/echo") as client:
        client.wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in range(0, len(sent), 7):
            client.send(sent[:cut])
            client.send(sent[cut:])
            got = [client.frame().payload for _ in range(3)]
            # The answers to messages wait for the application, that to a ping for nobody.
            assert sorted(got) == sorted(["añ€😀".encode(), content, b"?"])
        client.close()


def test_a_thousand_messages_in_one_segment_come_back_in_order(
    server: ServerProcess, connect: Open
) -> None:
    with connect(server, "/echo") as client:
        client.send(*(frame(TEXT, b"%d" % index) for index in range(1000)))
        assert [client.text() for _ in range(1000)] == [str(index) for index in range(1000)]
        client.close()


def test_two_hundred_sockets_at_once(
    server: ServerProcess, connect: Open, eventually: Callable[..., Any]
) -> None:
    assert server.get("/").status == 200
    before = server.descriptors()
    clients = [connect(server, "/echo") for _ in range(200)]
    for turn in range(3):
        for index, client in enumerate(clients):
            client.send(frame(TEXT, f"{turn} of {index}".encode()))
        for index, client in enumerate(clients):
            assert client.text() == f"{turn} of {index}"
    for client in clients[:100]:
        client.close()
    for client in clients[100:]:
        client.wire.reset()

    eventually(lambda: server.descriptors() <= before, "the descriptors are free again")


# ------------------------------------------------------------------------------ failures


class Failure(NamedTuple):
    """What a client does wrong, and the code it gets for it."""

    sent: bytes
    code: int
    fields: tuple[str, ...] = ()


def _unmasked(opcode: int, payload: bytes) -> bytes:
    return bytes([128 | opcode, len(payload)]) + payload


def _deflated(content: bytes) -> bytes:
    """RFC 7692 §7.2.1."""
    compressor = zlib.compressobj(wbits=-15)
    whole = compressor.compress(content) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert whole.endswith(b"\x00\x00\xff\xff")
    return whole[:-4]


LATIN = "é".encode("latin-1")

FAILURES: dict[str, Failure] = {
    "unmasked text": Failure(_unmasked(TEXT, b"hello"), 1002),
    "unmasked close": Failure(_unmasked(CLOSE, b"\x03\xe8"), 1002),
    "first reserved bit": Failure(frame(TEXT, b"x", rsv=4), 1002),
    "second reserved bit": Failure(frame(TEXT, b"x", rsv=2), 1002, (DEFLATE,)),
    "third reserved bit": Failure(frame(TEXT, b"x", rsv=1), 1002, (DEFLATE,)),
    "reserved bit of a ping": Failure(frame(PING, b"x", rsv=4), 1002, (DEFLATE,)),
    "reserved opcode 3": Failure(frame(3, b"x"), 1002),
    "reserved opcode 15": Failure(frame(15, b"x"), 1002),
    "ping in fragments": Failure(frame(PING, b"x", fin=False), 1002),
    "close in fragments": Failure(frame(CLOSE, b"\x03\xe8", fin=False), 1002),
    "ping of 126 bytes": Failure(frame(PING, bytes(126)), 1002),
    "ping in the form of 16 bits": Failure(b"\x89" + length(5, 16) + MASK + bytes(5), 1002),
    "continuation of nothing": Failure(frame(CONTINUATION, b"x"), 1002),
    "message within a message": Failure(frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "16 bits for a short one": Failure(b"\x82" + length(125, 16) + MASK + bytes(125), 1002),
    "64 bits for a short one": Failure(b"\x82" + length(65535, 64) + MASK + bytes(65535), 1002),
    "length with the highest bit": Failure(b"\x82\xff\x80" + bytes(7) + MASK, 1002),
    "close of one byte": Failure(frame(CLOSE, b"\x03"), 1002),
    "close 0": Failure(closing(0), 1002),
    "close 999": Failure(closing(999), 1002),
    "close 1004": Failure(closing(1004), 1002),
    "close 1005": Failure(closing(1005), 1002),
    "close 1006": Failure(closing(1006), 1002),
    "close 1015": Failure(closing(1015), 1002),
    "close 2999": Failure(closing(2999), 1002),
    "close 5000": Failure(closing(5000), 1002),
    "close for a reason in Latin-1": Failure(closing(1000, LATIN), 1007),
    "text in Latin-1": Failure(frame(TEXT, LATIN + b"x"), 1007),
    "text that ends within a character": Failure(frame(TEXT, "€".encode()[:2]), 1007),
    "text with a surrogate": Failure(frame(TEXT, b"\xed\xa0\x80"), 1007),
    "text past Unicode": Failure(frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "overlong slash": Failure(frame(TEXT, b"\xc0\xaf"), 1007),
    "text wrong in its first fragment": Failure(frame(TEXT, b"\xff", fin=False), 1007),
    "text wrong across fragments": Failure(
        frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"(", fin=False), 1007
    ),
    "text wrong in a frame that is not complete": Failure(
        b"\x81" + length(60_000) + MASK + masked(b"a\xffb" + bytes(2997)), 1007
    ),
    "no deflate": Failure(frame(TEXT, b"\xff" * 20, rsv=4), 1007, (DEFLATE,)),
    "deflated text in Latin-1": Failure(frame(TEXT, _deflated(LATIN), rsv=4), 1007, (DEFLATE,)),
    "compressed continuation": Failure(
        frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y", rsv=4), 1002, (DEFLATE,)
    ),
    "announced exabytes": Failure(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + MASK, 1009),
    "announced 16 MiB and one byte": Failure(b"\x82" + length((16 << 20) + 1) + MASK, 1009),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_a_close_frame_with_its_code_and_an_orderly_end(
    server: ServerProcess, connect: Open, told: Callable[..., str], case: str
) -> None:
    sent, code, fields = FAILURES[case]

    with connect(server, "/echo", *fields) as client:
        client.send(frame(TEXT, b"before"))
        assert client.text() == "before"
        client.send(sent)
        assert client.closed()[0] == code
        assert client.ended()

    told(server, rf"disconnected {code} .*")


def test_messages_before_a_failure_in_the_same_segment_are_delivered(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    good = b"".join(frame(TEXT, b"%d" % index) for index in range(20))
    with connect(server, "/count", then=good + _unmasked(TEXT, b"bad")) as client:
        assert client.closed()[0] == 1002
        assert client.ended()

    told(server, "disconnected 1002 .*")


def test_what_a_client_goes_on_sending_does_not_destroy_the_close_frame(
    server: ServerProcess, connect: Open
) -> None:
    with connect(server, "/echo") as client:
        client.send(_unmasked(TEXT, b"bad"))
        for _ in range(32):
            client.send(bytes(65536))
        assert client.closed()[0] == 1002
        assert client.ended()  # a reset would raise


def test_a_message_may_be_as_large_as_the_limit_and_no_larger(
    small: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    with connect(small, "/echo") as client:
        client.send(frame(BINARY, bytes(1000)))
        assert client.message() == (BINARY, bytes(1000))
        client.send(frame(BINARY, bytes(600), fin=False), frame(CONTINUATION, bytes(400)))
        assert client.message() == (BINARY, bytes(1000))
        client.send(b"\x82" + length(1001))
        assert client.closed()[0] == 1009
        assert client.ended()

    told(small, "disconnected 1009 .*")


def test_fragments_that_add_up_to_too_much_are_refused_by_the_head_of_the_last(
    small: ServerProcess, connect: Open
) -> None:
    with connect(small, "/echo") as client:
        client.send(frame(TEXT, b"x" * 999, fin=False), b"\x00" + length(2) + MASK)
        assert client.closed()[0] == 1009
        assert client.ended()


# ----------------------------------------------------------------------------- the close


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 4999])
def test_a_close_by_the_client_is_answered_and_told(
    server: ServerProcess, connect: Open, told: Callable[..., str], code: int
) -> None:
    with connect(server, "/echo") as client:
        client.send(closing(code, "that's it: ñ"))
        assert client.closed()[0] == code
        assert client.ended()

    told(server, f"disconnected {code} " + re.escape(repr("that's it: ñ")))


def test_a_close_without_a_code_is_1005_to_the_application(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    with connect(server, "/echo") as client:
        client.send(closing())
        assert client.closed() == (None, "")
        assert client.ended()

    told(server, "disconnected 1005 ''")


def test_what_a_client_sends_behind_its_close_is_not_looked_at(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    with connect(server, "/echo") as client:
        client.send(closing(1000), frame(TEXT, b"late"), b"\xff" * 5000)
        assert client.closed() == (1000, "")
        assert client.ended()

    told(server, "disconnected 1000 ''")


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("code=4002&reason=%C3%A9nough", 4002, "énough"),
        ("code=1008", 1008, ""),
        ("", 1000, ""),
    ],
)
def test_a_close_by_the_application_is_sent_awaited_and_told(
    server: ServerProcess,
    connect: Open,
    told: Callable[..., str],
    query: str,
    code: int,
    reason: str,
) -> None:
    with connect(server, f"/close?{query}") as client:
        client.send(frame(TEXT, b"go"))
        assert client.closed() == (code, reason)
        client.send(frame(TEXT, b"this crossed the close"))
        client.send(closing(code))
        assert client.ended()

    told(server, f"disconnected {code} {reason!r}")


def test_a_close_by_the_application_after_the_clients_raises(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    with connect(server, "/close?code=4002") as client:
        client.send(frame(TEXT, b"go"), closing(4003, "mine"))
        assert client.closed()[0] == 4003
        assert client.ended()

    told(server, "close raised ClientDisconnected")
    told(server, "disconnected 4003 'mine'")


def test_two_closes_may_cross(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    with connect(server, "/close?code=4002") as client:
        client.send(frame(TEXT, b"go"))
        assert client.closed()[0] == 4002
        client.send(closing(4003, "mine"))  # as one does that has not seen the server's yet
        assert client.ended()

    told(server, "disconnected 4002 ''")


def test_an_accept_a_message_and_a_close_in_one_breath(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    with connect(server, "/close-at-once") as client:
        assert client.text() == "hello"
        assert client.closed() == (4001, "at once")
        client.send(closing(4001))
        assert client.ended()

    told(server, "disconnected 4001 'at once'")


def test_an_application_that_returns_closes_with_1000(server: ServerProcess, connect: Open) -> None:
    with connect(server, "/return") as client:
        assert client.closed() == (1000, "")
        client.send(closing(1000))
        assert client.ended()


def test_an_application_that_fails_closes_with_1011_and_one_traceback(
    failing: ServerProcess, connect: Open
) -> None:
    with connect(failing, "/raise") as client:
        code, reason = client.closed()
        assert code == 1011
        assert "bug" not in reason
        client.send(closing(1011))
        assert client.ended()

    failing.wait_for("/raise.*the application failed")
    failing.wait_for("RuntimeError: the application has a bug")
    assert failing.get("/").status == 200  # time for another, if there were one
    assert len(failing.matching("RuntimeError: the application has a bug")) == 1


def test_a_send_does_not_raise_after_its_message_has_been_read(
    server: ServerProcess,
    tag: str,
    connect: Open,
    told: Callable[..., str],
    tmp_path: Path,
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with connect(server, f"/send-and-block?fifo={fifo}") as client:
        assert client.message() == (TEXT, b"first")
        assert client.message() == (BINARY, bytes(66_000))
        client.send(closing(4100, "seen"))
        fifo.write_text("go on")  # the server finds both at once: it may go on, and the Close
        assert client.closed()[0] == 4100
        assert client.ended()

    assert "send returned" in server.wait_for(rf"send (returned|raised).*\[{tag}\]")
    told(server, "disconnected 4100 'seen'")


def _leave(client: Socket) -> None:
    client.wire.sock.close()


def _reset(client: Socket) -> None:
    client.wire.reset()


def _half_close(client: Socket) -> None:
    client.wire.sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("leave", [_leave, _reset, _half_close])
@pytest.mark.parametrize(
    "sent",
    [b"", frame(TEXT, b"half", fin=False), frame(TEXT, b"cut")[:-1]],
    ids=["between messages", "between fragments", "within a frame"],
)
def test_a_loss_without_a_close_frame_is_1006_to_the_application(
    server: ServerProcess,
    connect: Open,
    told: Callable[..., str],
    leave: Callable[[Socket], None],
    sent: bytes,
) -> None:
    with connect(server, "/send-late") as client:
        client.send(sent)
        told(server, "waiting")
        leave(client)
        told(server, "disconnected 1006 ''")
        told(server, "send raised ClientDisconnected")


def test_a_send_after_the_clients_close_raises(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    with connect(server, "/send-late") as client:
        client.send(closing(1001, "away"))
        assert client.closed()[0] == 1001
        assert client.ended()

    told(server, "disconnected 1001 'away'")
    told(server, "send raised ClientDisconnected")


# ------------------------------------------------------------------------------- its end


def test_sigterm_closes_every_socket_with_1012_and_ends_cleanly(
    serve: Serve, connect: Open, told: Callable[..., str], loop_name: str
) -> None:
    server = serve("ws_plain:app", "--no-access-log", loop=loop_name)
    clients = [connect(server, "/echo") for _ in range(5)]
    for client in clients:
        client.send(frame(TEXT, b"hello"))
        assert client.text() == "hello"
    clients[0].send(frame(TEXT, b"an unfinished", fin=False))
    idle = server.connect()
    assert idle.get("/").status == 200

    server.kill(signal.SIGTERM)

    assert idle.rest() == b""
    for client in clients:
        assert client.closed()[0] == 1012
        client.send(closing(1012))
        assert client.ended()
    assert server.wait() == 0
    assert len(server.matching(rf"disconnected 1012 .*\[{clients[0].tag}\]")) == 5
    assert server.lines.count("shutdown") == 1
    assert server.lines.index("shutdown") > max(
        index for index, line in enumerate(server.lines) if line.startswith("disconnected")
    )


def test_sigterm_waits_no_longer_than_told_for_clients_and_applications_that_do_not_answer(
    serve: Serve, connect: Open, told: Callable[..., str], loop_name: str
) -> None:
    grace = ("--timeout-graceful-shutdown", "0.2")
    server = serve("ws_plain:app", "--no-access-log", *grace, errors=True, loop=loop_name)
    deaf = connect(server, "/deaf")
    mute = connect(server, "/echo")
    undecided = server.connect()
    undecided.send(handshake(f"/undecided?tag={deaf.tag}"))
    told(server, "deaf")
    told(server, "undecided")

    server.kill(signal.SIGTERM)

    assert deaf.closed()[0] == mute.closed()[0] == 1012
    assert server.ends_within(4), str(server.output)
    told(server, "cancelled")
    assert server.lines.count("shutdown") == 1
    assert not server.matching("Traceback")


# --------------------------------------------------------------------- slow and fast peers


def test_send_waits_while_the_client_does_not_read(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    count = 320
    with connect(server, f"/flood?n={count}") as client:
        client.wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        memory = Memory(server)
        waits = told(server, r"send waits after \d+")
        assert int(waits.split()[3]) < 12 * MB  # what the kernel holds, and little more
        assert memory.grown() < 4

        for index in range(count):
            assert client.message() == (BINARY, b"%d" % (index % 10) * 65536)
        assert client.closed() == (1000, "")
        assert memory.grown() < 4


def test_a_client_that_never_reads_may_still_leave(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    with connect(server, "/flood") as client:
        told(server, r"send waits after \d+")
        client.wire.reset()

    told(server, "flood ended")


def test_messages_that_nobody_receives_are_not_taken_in(
    server: ServerProcess, connect: Open, told: Callable[..., str]
) -> None:
    clients = [connect(server, "/hold") for _ in range(2)]
    told(server, "holding", 2)
    memory = Memory(server)
    block = frame(BINARY, b"x" * 1000)
    sent = [push(client.wire.sock, block, 0.2) for client in clients]
    assert memory.grown() < 4
    assert server.get("/").status == 200

    assert server.get(f"/release?tag={clients[0].tag}").status == 200
    for client, size in zip(clients, sent, strict=True):
        missing = -size % len(block)
        client.send(block[len(block) - missing :], frame(TEXT, b"end"))
        messages, total, _ = client.text().split()
        assert int(messages) == -(-size // len(block))
        assert int(total) == int(messages) * 1000
        client.close()
    assert memory.grown() < 4


def test_large_messages_that_nobody_receives_are_not_taken_in(
    serve: Serve, connect: Open, told: Callable[..., str]
) -> None:
    server = serve("ws_plain:app", "--no-access-log", "--ws-max-size", str(2 * MB))
    with connect(server, "/hold") as client:
        told(server, "holding")
        memory = Memory(server)
        push(client.wire.sock, frame(BINARY, bytes(MB)), 0.2)

        # Unread: the limit, the message that crossed it, and one that is being read.
        assert memory.grown() < 8
        client.wire.reset()
    assert server.get(f"/release?tag={client.tag}").status == 200
    told(server, "disconnected 1006 ''")


def test_pings_whose_pongs_nobody_reads_cost_nothing(server: ServerProcess, connect: Open) -> None:
    with connect(server, "/echo") as client:
        memory = Memory(server)
        block = frame(PING, bytes(125)) * 1000
        for _ in range(200):  # 26 MB, and the pongs would be as much
            client.send(block)
        assert memory.grown() < 6

        client.send(frame(PING, b"the last"))
        while (pong := client.frame()).payload != b"the last":
            assert pong == Frame(PONG, bytes(125), True, 0)
        client.close()


@pytest.mark.slow  # seconds for a million; a unit test weighs what thousands leave behind
def test_a_message_of_a_million_fragments_is_no_larger_than_its_content(
    serve: Serve, connect: Open
) -> None:
    server = serve("ws_plain:app", "--no-access-log")
    memory = Memory(server)
    with connect(server, "/count") as client:
        client.send(frame(BINARY, b"x", fin=False))
        client.send(frame(CONTINUATION, b"x", fin=False) * 999_998)
        client.send(frame(CONTINUATION, b"x"), frame(TEXT, b"end"))
        digest = hashlib.sha256(b"x" * 1_000_000).hexdigest()
        assert client.text() == f"1 1000000 {digest}"
        client.close()

    assert memory.grown() < 6


def test_fragments_of_nothing_cost_nothing(server: ServerProcess, connect: Open) -> None:
    memory = Memory(server)
    with connect(server, "/count") as client:
        client.send(frame(TEXT, b"", fin=False), frame(CONTINUATION, b"", fin=False) * 200_000)
        client.send(frame(CONTINUATION, b"x"), frame(TEXT, b"end"))
        assert client.text().startswith("1 1 ")
        client.close()

    assert memory.grown() < 3


# ----------------------------------------------------------------------------- keep-alive


PINGS = ("--ws-ping-interval", "0.1", "--ws-ping-timeout", "0.2")


def test_a_client_stays_as_long_as_it_answers_pings(
    serve: Serve, connect: Open, told: Callable[..., str]
) -> None:
    server = serve("ws_plain:app", "--no-access-log", *PINGS)
    with connect(server, "/echo") as client:
        for _ in range(2):
            ping = client.frame()
            assert ping.opcode == PING
            client.send(frame(PONG, ping.payload))
        client.send(frame(TEXT, b"still here"))
        while (got := client.frame()).opcode == PING:
            pass  # from now on it does not answer
        assert got.payload == b"still here"

        while (got := client.frame()).opcode == PING:
            pass
        assert got.opcode == CLOSE and got.payload[:2] == (1011).to_bytes(2, "big")
        told(server, "disconnected 1011 .*", seconds=2)


def test_without_an_interval_nobody_is_pinged(serve: Serve, connect: Open) -> None:
    off = ("--ws-ping-interval", "0", "--ws-ping-timeout", "0.1")
    server = serve("ws_plain:app", "--no-access-log", *off)
    with connect(server, "/echo") as client:
        assert select.select([client.wire.sock], [], [], 0.4)[0] == []
        client.close()


# ---------------------------------------------------------------------------- compression


def parameters(answer: Response) -> dict[str, str] | None:
    """What was agreed on, RFC 7692 §7.1; None where nothing was."""
    value = answer.header("sec-websocket-extensions")
    if value is None:
        return None
    name, *rest = (part.strip() for part in value.split(";"))
    assert name == "permessage-deflate"
    pairs = [part.partition("=") for part in rest]
    assert len(pairs) == len({name for name, _, _ in pairs})
    return {name: argument.strip() for name, _, argument in pairs}


@pytest.mark.parametrize(
    "offer",
    [
        None,
        "x-webkit-deflate-frame",
        "permessage-deflate; nonsense",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=09",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
    ],
)
def test_an_offer_that_is_none_or_wrong_is_declined(
    server: ServerProcess, connect: Open, offer: str | None
) -> None:
    fields = [] if offer is None else [f"sec-websocket-extensions: {offer}"]
    with connect(server, "/echo", *fields) as client:
        assert parameters(client.answer) is None
        client.send(frame(TEXT, b"x" * 1000))
        assert client.text() == "x" * 1000
        client.close()


@pytest.mark.parametrize(
    ("offers", "expected"),
    [
        (["permessage-deflate"], {}),
        (["Permessage-Deflate"], {}),
        (["permessage-deflate; client_max_window_bits"], {}),
        (["permessage-deflate; server_no_context_takeover"], {"server_no_context_takeover": ""}),
        (["permessage-deflate; client_no_context_takeover"], {"client_no_context_takeover": ""}),
        (["permessage-deflate; server_max_window_bits=9"], {"server_max_window_bits": "9"}),
        (['permessage-deflate; server_max_window_bits="10"'], {"server_max_window_bits": "10"}),
        (["x-webkit-deflate-frame, permessage-deflate; client_max_window_bits"], {}),
        (["x-webkit-deflate-frame", "permessage-deflate"], {}),
        (
            ["permessage-deflate; server_max_window_bits=99, permessage-deflate"],
            {},
        ),
    ],
)
def test_an_offer_that_is_accepted(
    server: ServerProcess, connect: Open, offers: list[str], expected: dict[str, str]
) -> None:
    fields = [f"sec-websocket-extensions: {offer}" for offer in offers]
    with connect(server, "/echo", *fields) as client:
        agreed = parameters(client.answer)

    assert agreed is not None
    assert expected.items() <= agreed.items()
    if "server_max_window_bits" not in expected:
        assert 8 <= int(agreed.get("server_max_window_bits", 15)) <= 15
    if not any("client_max_window_bits" in offer for offer in offers):
        assert "client_max_window_bits" not in agreed  # RFC 7692 §7.1.2.2


def test_compression_can_be_switched_off(serve: Serve, connect: Open) -> None:
    server = serve("ws_plain:app", "--no-access-log", "--no-ws-per-message-deflate")
    with connect(server, "/echo", DEFLATE) as client:
        assert parameters(client.answer) is None
        client.send(frame(TEXT, b"x" * 1000))
        assert client.text() == "x" * 1000
        client.send(frame(TEXT, _deflated(b"x"), rsv=4))
        assert client.closed()[0] == 1002


def _inflate(inflater: Any, payload: bytes) -> bytes:
    content: bytes = inflater.decompress(payload + b"\x00\x00\xff\xff")
    assert not inflater.unconsumed_tail and not inflater.unused_data
    return content


@pytest.mark.parametrize("takeover", [True, False])
def test_what_was_sent_before_helps_to_compress_unless_refused(
    server: ServerProcess, connect: Open, takeover: bool
) -> None:
    text = os.urandom(1000).hex().encode()
    refusal = "" if takeover else "; server_no_context_takeover; client_no_context_takeover"
    with connect(server, "/echo", DEFLATE + refusal) as client:
        inflater = zlib.decompressobj(wbits=-15)
        sizes = []
        for _ in range(2):
            client.send(frame(TEXT, _deflated(text), rsv=4))
            got = client.frame()
            assert (got.opcode, got.rsv, got.fin) == (TEXT, 4, True)
            assert len(got.payload) < len(text)
            if not takeover:
                inflater = zlib.decompressobj(wbits=-15)
            assert _inflate(inflater, got.payload) == text
            sizes.append(len(got.payload))
        client.close()

    assert (sizes[1] < sizes[0] / 10) == takeover


def test_the_clients_context_is_taken_over(server: ServerProcess, connect: Open) -> None:
    text = os.urandom(1000).hex().encode()
    compressor = zlib.compressobj(wbits=-15)
    with connect(server, "/count", DEFLATE) as client:
        sizes = []
        for _ in range(3):
            whole = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
            sizes.append(len(whole))
            client.send(frame(TEXT, whole[:-4], rsv=4))
        client.send(frame(TEXT, b"end"))
        assert client.text() == f"3 6000 {hashlib.sha256(text * 3).hexdigest()}"
        client.close()

    assert sizes[1] < sizes[0] / 10  # or this test would show nothing


def test_a_compressed_message_may_come_in_fragments(server: ServerProcess, connect: Open) -> None:
    text = ("añ€😀" * 100).encode()
    whole = _deflated(text)
    with connect(server, "/count", DEFLATE) as client:
        client.send(
            frame(TEXT, b"", fin=False, rsv=4),
            frame(PING),
            *(frame(CONTINUATION, whole[index : index + 1], fin=False) for index in range(20)),
            frame(CONTINUATION, whole[20:], fin=False),
            frame(CONTINUATION, b""),
            frame(TEXT, b"end"),
        )
        assert client.frame() == Frame(PONG, b"", True, 0)
        assert client.text() == f"1 1000 {hashlib.sha256(text).hexdigest()}"
        client.close()


@pytest.mark.parametrize(
    ("payload", "content"),
    [
        (b"\x00", b""),  # RFC 7692 §7.2.3.6
        (bytes.fromhex("f248cdc9c90700"), b"Hello"),  # §7.2.3.1
        (bytes.fromhex("000500faff48656c6c6f00"), b"Hello"),  # §7.2.3.3, not compressed
        (bytes.fromhex("f348cdc9c9070000"), b"Hello"),  # §7.2.3.4, with BFINAL
        (bytes.fromhex("f24805000000ffffcac9c90700"), b"Hello"),  # §7.2.3.5, two blocks
    ],
    ids=["nothing", "one block", "stored", "final", "two blocks"],
)
def test_the_examples_of_rfc_7692_are_understood(
    server: ServerProcess, connect: Open, payload: bytes, content: bytes
) -> None:
    with connect(server, "/echo", DEFLATE) as client:
        for _ in range(2):
            client.send(frame(TEXT, payload, rsv=4))
            assert client.message() == (TEXT, content)
        client.close()


def _zeros(megabytes: int) -> Iterator[bytes]:
    """Deflated zeros, a megabyte each: the parts of one stream, for each forgets the past."""
    compressor = zlib.compressobj(9, wbits=-15)
    part = compressor.compress(bytes(MB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    assert len(part) < 2000
    for _ in range(megabytes):
        yield part


def _bomb(parts: Sequence[bytes]) -> bytes:
    return frame(BINARY, b"".join(parts)[:-4], rsv=4)


def _bomb_in_fragments(parts: Sequence[bytes]) -> bytes:
    head = frame(BINARY, parts[0], fin=False, rsv=4)
    return head + b"".join(frame(CONTINUATION, part, fin=False) for part in parts[1:])


def test_decompression_bombs_are_refused_and_cost_nothing(
    serve: Serve, connect: Open, told: Callable[..., str], loop_name: str
) -> None:
    limit = ("--ws-max-size", str(MB))
    server = serve("ws_plain:app", "--no-access-log", *limit, loop=loop_name)
    parts = list(_zeros(500))
    for build in (_bomb, _bomb_in_fragments):
        with connect(server, "/echo", DEFLATE) as client:
            client.send(_bomb([_deflated(b"warm up") + b"\x00\x00\xff\xff"]))
            assert client.message() == (BINARY, b"warm up")
            memory = Memory(server)
            client.send(build(parts))
            assert client.closed()[0] == 1009
            assert client.ended()
            assert memory.grown() < 4

    told(server, "disconnected 1009 .*", 2)


def test_the_limit_counts_inflated_bytes(small: ServerProcess, connect: Open) -> None:
    with connect(small, "/count", DEFLATE) as client:
        client.send(frame(BINARY, _deflated(bytes(1000)), rsv=4), frame(TEXT, b"end"))
        assert client.text().startswith("1 1000 ")
        client.send(frame(BINARY, _deflated(bytes(1001)), rsv=4))
        assert client.closed()[0] == 1009
        assert client.ended()


# -------------------------------------------------------------------------- the access log


def test_a_socket_is_one_line_of_the_access_log_at_its_handshake(
    serve: Serve, connect: Open, told: Callable[..., str]
) -> None:
    server = serve("ws_plain:app")
    with connect(server, "/echo") as client:
        server.wait_for(r'"GET /echo\S* HTTP/1\.1" 101')
        client.close()
    with server.connect() as wire:
        wire.send(handshake("/deny"))
        assert wire.response().status == 403
    server.wait_for(r'"GET /deny HTTP/1\.1" 403')
    told(server, "disconnected 1000 ''")
    server.stop()

    assert len(server.matching('"GET ')) == 2


# ------------------------------------------------------------- a client called `websockets`


def dial(server: ServerProcess, target: str, **options: Any) -> Any:
    client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
    options = {"proxy": None, "ping_interval": None, "max_size": None, **options}
    return client.connect(f"ws://127.0.0.1:{server.port}{target}", **options)


@pytest.mark.parametrize("compression", ["deflate", None])
def test_websockets_sends_and_receives(server: ServerProcess, compression: str | None) -> None:
    with dial(server, "/echo", compression=compression) as client:
        assert len(client.protocol.extensions) == (compression is not None)
        for message in ["", "añ€😀", "long " * 30_000, b"", b"\x00\xff", os.urandom(300_000)]:
            client.send(message)
            assert client.recv(timeout=10) == message
        client.send(["in ", "three ", "fragments"])
        assert client.recv(timeout=10) == "in three fragments"
        assert client.ping().wait(10)


@pytest.mark.parametrize("server_bits", [None, 9, 15])
@pytest.mark.parametrize("client_bits", [None, 9, 15])
@pytest.mark.parametrize("no_takeover", [True, False])
def test_websockets_compresses_as_agreed(
    server: ServerProcess, server_bits: int | None, client_bits: int | None, no_takeover: bool
) -> None:
    deflate = pytest.importorskip("websockets.extensions.permessage_deflate")
    factory = deflate.ClientPerMessageDeflateFactory(
        server_no_context_takeover=no_takeover,
        client_no_context_takeover=no_takeover,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
    )
    noise = os.urandom(20_000).hex()
    with dial(server, "/echo", compression=None, extensions=[factory]) as client:
        assert len(client.protocol.extensions) == 1
        for message in [noise, "short", noise, noise.encode() * 2, "x" * 100_000, noise[:127]]:
            client.send(message)
            assert client.recv(timeout=10) == message


def test_websockets_negotiates_a_subprotocol(server: ServerProcess) -> None:
    with dial(server, "/second-subprotocol", subprotocols=["one", "two"]) as client:
        assert client.subprotocol == "two"
        assert client.recv(timeout=10) == "two"


def test_websockets_sees_why_it_was_closed(server: ServerProcess) -> None:
    exceptions = pytest.importorskip("websockets.exceptions")
    with dial(server, "/close?code=4002&reason=enough") as client:
        client.send("go")
        with pytest.raises(exceptions.ConnectionClosedError) as caught:
            client.recv(timeout=10)

    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4002, "enough")
    assert caught.value.sent.code == 4002


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [("/deny", 403, b"Forbidden"), ("/deny-response", 401, b"who are you?")],
)
def test_websockets_sees_that_it_was_denied(
    server: ServerProcess, target: str, status: int, body: bytes
) -> None:
    exceptions = pytest.importorskip("websockets.exceptions")
    with pytest.raises(exceptions.InvalidStatus) as caught, dial(server, target):
        pass

    assert (caught.value.response.status_code, caught.value.response.body) == (status, body)


def test_websockets_tells_why_it_leaves(
    server: ServerProcess, tag: str, told: Callable[..., str]
) -> None:
    with dial(server, f"/echo?tag={tag}") as client:
        client.close(4100, "had enough")

    told(server, "disconnected 4100 'had enough'")


# --------------------------------------------------------------- a client called `wsproto`


class WsprotoClient:
    """`wsproto` on a blocking socket."""

    def __init__(self, server: ServerProcess, target: str, *extensions: Any) -> None:
        wsproto = pytest.importorskip("wsproto", reason="wsproto is not installed")
        self.events = pytest.importorskip("wsproto.events")
        self._connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._wire = server.connect()
        self._received: Iterator[Any] = iter(())
        self.closing = False
        self.send(self.events.Request(host="e2e", target=target, extensions=list(extensions)))
        self.accepted = self.receive()
        assert isinstance(self.accepted, self.events.AcceptConnection)

    def send(self, event: Any) -> None:
        self.closing |= isinstance(event, self.events.CloseConnection)
        self._wire.send(self._connection.send(event))

    def receive(self) -> Any:
        """The next event; those of wsproto that answer something are answered."""
        while True:
            for event in self._received:
                if isinstance(event, self.events.Ping) or (
                    isinstance(event, self.events.CloseConnection) and not self.closing
                ):
                    self.send(event.response())
                return event
            data = self._wire.sock.recv(1 << 16)
            self._connection.receive_data(data or None)
            self._received = self._connection.events()

    def message(self) -> str | bytes:
        """A whole message, whose parts wsproto reports as they come."""
        parts: list[Any] = []
        while True:
            event = self.receive()
            assert isinstance(event, self.events.Message), event
            parts.append(event.data)
            if event.message_finished:
                joined: str | bytes = type(parts[0])().join(parts)
                return joined


def _wsproto_extensions(compressed: bool) -> list[Any]:
    extensions = pytest.importorskip("wsproto.extensions", reason="wsproto is not installed")
    return [extensions.PerMessageDeflate()] if compressed else []


@pytest.mark.parametrize("compressed", [False, True])
def test_wsproto_sends_receives_and_closes(
    server: ServerProcess, tag: str, told: Callable[..., str], compressed: bool
) -> None:
    target = f"/echo?tag={tag}"
    client = WsprotoClient(server, target, *_wsproto_extensions(compressed))
    events = client.events
    assert len(client.accepted.extensions) == compressed

    for text in ["añ€😀", "long " * 30_000, "long " * 30_000]:
        client.send(events.TextMessage(text))
        assert client.message() == text
    content = os.urandom(100_000)
    for start in range(0, len(content), 10_000):
        piece = content[start : start + 10_000]
        client.send(events.BytesMessage(piece, message_finished=start == 90_000))
    assert client.message() == content
    client.send(events.Ping(b"there?"))
    assert client.receive() == events.Pong(b"there?")
    client.send(events.CloseConnection(4000, "done"))
    closed = client.receive()
    assert isinstance(closed, events.CloseConnection) and closed.code == 4000
    told(server, "disconnected 4000 'done'")


def test_wsproto_sees_why_it_was_closed(server: ServerProcess) -> None:
    client = WsprotoClient(server, "/close?code=4002&reason=enough")
    client.send(client.events.TextMessage("go"))

    closed = client.receive()

    assert isinstance(closed, client.events.CloseConnection)
    assert (closed.code, closed.reason) == (4002, "enough")
