"""Servers made of threads, which answer what a test tells them to: of WebSockets, HTTP/2, SCGI.

They share no code with the clients in `bench.websocket`, `bench.http2`, `bench.streams` and
`bench.scgi`, so that neither side hides the other's mistakes; the one of HTTP/2 is made with `h2`.
"""

from __future__ import annotations

import base64
import hashlib
import socketserver
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
from bench import certificate

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path


def frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return bytes((0x80 | opcode, 126, size >> 8, size & 255)) + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def accepting(key: str) -> str:
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n\r\n"
    )


class Peer(socketserver.ThreadingTCPServer):
    """`greet` answers a key with a response; `answer` a message with bytes, for its sender.

    `tell`, where it is set, gets the bytes of every message instead, and all sockets that are
    connected with another path than the sender's.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.greet: Callable[[str], str] = accepting
        self.answer: Callable[[int, bytes], bytes] = frame
        self.tell: Callable[[bytes, list[socket.socket]], None] | None = None
        self.keys: list[str] = []
        self.heads: list[str] = []
        self.masks: list[bytes] = []
        self.messages: list[tuple[int, bytes]] = []
        self.pongs: list[bytes] = []
        self.paths: dict[socket.socket, str] = {}

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class Conversation(socketserver.StreamRequestHandler):
    server: Peer

    def handle(self) -> None:
        lines = list(iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ""))
        fields = dict(line.split(": ", 1) for line in lines[1:])
        path = lines[0].split(" ")[1]
        self.server.heads.append("\n".join(lines))
        self.server.keys.append(fields["Sec-WebSocket-Key"])
        self.server.paths[self.request] = path
        self.wfile.write(self.server.greet(fields["Sec-WebSocket-Key"]).encode("latin-1"))
        try:
            while self.message(path):
                pass
        finally:
            del self.server.paths[self.request]

    def message(self, path: str) -> bool:
        head = self.rfile.read(2)
        if len(head) < 2:
            return False
        assert head[0] & 0x70 == 0 and head[1] & 0x80, "a client's frame is plain and masked"
        opcode, size = head[0] & 0x0F, head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
        mask = self.rfile.read(4)
        hidden = self.rfile.read(size)
        pad = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(hidden, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
        self.server.masks.append(mask)
        if opcode == 0x8:
            self.wfile.write(frame(opcode, payload))
            return False
        if opcode == 0xA:
            self.server.pongs.append(payload)
            return True
        self.server.messages.append((opcode, payload))
        answer = self.server.answer(opcode, payload)
        if self.server.tell is not None:
            paths = dict(self.server.paths)
            self.server.tell(answer, [link for link in paths if paths[link] != path])
        else:
            self.wfile.write(answer)
        return answer != b""


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


class StreamPeer(socketserver.ThreadingTCPServer):
    """Answers every request over HTTP/2 with `status`, `fields` and `body`.

    `answer`, where it is set, gets the number of a stream and returns the bytes to send instead.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), StreamConversation)
        self.status = "200"
        self.fields: tuple[tuple[str, str], ...] = ()
        self.body = b""
        self.settings: dict[int, int] = {}
        self.answer: Callable[[int], bytes] | None = None
        self.tls: ssl.SSLContext | None = None
        self.requests: list[list[tuple[str, str]]] = []
        self.bodies: list[bytes] = []
        self.connections: list[int] = []
        """How many requests each had."""
        self.updates: list[int] = []
        """Increments of connections' windows, after the first."""
        self.goodbyes = 0

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class StreamConversation(socketserver.BaseRequestHandler):
    server: StreamPeer

    def handle(self) -> None:
        from h2 import config, connection, events

        link = self.request
        if self.server.tls is not None:
            self.request = link = self.server.tls.wrap_socket(link, server_side=True)
        talk = connection.H2Connection(
            config.H2Configuration(
                client_side=False,
                header_encoding="utf-8",
                normalize_inbound_headers=False,  # it would join cookies
            )
        )
        talk.initiate_connection()
        if self.server.settings:
            talk.update_settings(self.server.settings)
        link.sendall(talk.data_to_send())
        place = len(self.server.connections)
        self.server.connections.append(0)
        bodies: dict[int, bytes] = {}
        waiting: dict[int, bytes] = {}
        updates = 0
        while data := link.recv(65536):
            for event in talk.receive_data(data):
                if isinstance(event, events.RequestReceived):
                    self.server.connections[place] += 1
                    self.server.requests.append(
                        [(str(name), str(value)) for name, value in event.headers]
                    )
                    bodies[event.stream_id] = b""
                elif isinstance(event, events.DataReceived):
                    bodies[event.stream_id] += event.data
                    talk.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, events.StreamEnded):
                    self.server.bodies.append(bodies.pop(event.stream_id))
                    if self.server.answer is not None:
                        link.sendall(talk.data_to_send() + self.server.answer(event.stream_id))
                        continue
                    fields = [(":status", self.server.status), *self.server.fields]
                    talk.send_headers(event.stream_id, fields)
                    waiting[event.stream_id] = self.server.body
                elif isinstance(event, events.WindowUpdated) and event.stream_id == 0:
                    updates += 1
                    if updates > 1:
                        self.server.updates.append(event.delta)
                elif isinstance(event, events.ConnectionTerminated):
                    self.server.goodbyes += 1
                    return
            for stream in tuple(waiting):
                self._send(talk, stream, waiting)
            link.sendall(talk.data_to_send())

    def finish(self) -> None:
        self.request.close()  # the server knows but the socket beneath TLS

    def _send(self, talk: Any, stream: int, waiting: dict[int, bytes]) -> None:
        while True:
            allowed = min(16384, talk.local_flow_control_window(stream))
            piece, rest = waiting[stream][:allowed], waiting[stream][allowed:]
            if waiting[stream] and not piece:
                return
            talk.send_data(stream, piece, end_stream=not rest)
            waiting[stream] = rest
            if not rest:
                del waiting[stream]
                return


@pytest.fixture
def stream_peer() -> Iterator[StreamPeer]:
    pytest.importorskip("h2")
    with StreamPeer() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


class GatewayPeer(socketserver.ThreadingTCPServer):
    """Answers every request over SCGI with `answer`, and keeps its fields and its body."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), GatewayConversation)
        self.answer = b"Status: 200 OK\r\nContent-Length: 13\r\n\r\nHello, world!"
        self.pieces = 1
        self.silent = False
        self.fields: list[dict[str, str]] = []
        self.bodies: list[bytes] = []

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class GatewayConversation(socketserver.StreamRequestHandler):
    server: GatewayPeer

    def handle(self) -> None:
        size = b""
        while not size.endswith(b":"):
            size += self.rfile.read(1)
        items = self.rfile.read(int(size[:-1])).decode().split("\0")
        assert self.rfile.read(1) == b"," and items.pop() == ""
        names, values = items[::2], items[1::2]
        assert names[0] == "CONTENT_LENGTH" and len(set(names)) == len(names)
        self.server.fields.append(dict(zip(names, values, strict=True)))
        self.server.bodies.append(self.rfile.read(int(values[0])))
        if self.server.silent:
            self.rfile.read(1)
            return
        step = -(-len(self.server.answer) // self.server.pieces) or 1
        for start in range(0, len(self.server.answer), step):
            self.wfile.write(self.server.answer[start : start + step])


@pytest.fixture
def gateway_peer() -> Iterator[GatewayPeer]:
    with GatewayPeer() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side of TLS, with the certificate that `bench.certificate` made for this test."""
    monkeypatch.setattr(certificate, "CERTIFICATE", tmp_path / "certificate.pem")
    monkeypatch.setattr(certificate, "KEY", tmp_path / "key.pem")
    if not certificate.available():
        pytest.skip("openssl is not installed")
    certificate.make()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.CERTIFICATE, certificate.KEY)
    return context
