"""TLS on the manual loop: the client is OpenSSL, too, with its bytes in the test's hands."""

from __future__ import annotations

import ssl
from ssl import MemoryBIO, SSLContext, TLSVersion
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.connections.http1 import Http1Connection
from omnicorn.connections.service import Service
from omnicorn.transports.inproc import ManualLoop, Peer, connect
from omnicorn.transports.tls import LAST_WORD, TLSTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

trustme = pytest.importorskip("trustme")

BIG = bytes(range(256)) * 4096  # 1 MiB
AUTHORITY = trustme.CA()
TIMEOUT = 10.0


def server_context(*alpn: str) -> SSLContext:
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def client_context(*alpn: str, version: TLSVersion | None = None) -> SSLContext:
    context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    if alpn:
        context.set_alpn_protocols(alpn)
    if version is not None:
        context.maximum_version = version
    return context


class Port:
    """A `ConnectionPort` that keeps what it is told."""

    def __init__(self, half_open: bool = True) -> None:
        self.half_open = half_open
        self.calls: list[Any] = []
        self.error: Exception | None = None
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.half_open

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.error = exc


class Scene:
    """A `TLSTransport` on a connection in memory, and its client."""

    def __init__(
        self,
        server: SSLContext | None = None,
        client: SSLContext | None = None,
        port: Any = None,
        loop: ManualLoop | None = None,
    ) -> None:
        self.loop = loop or ManualLoop()
        self.port = Port() if port is None else port
        self.failures: list[tuple[str, str]] = []
        self.connected = 0
        self.transport = TLSTransport(
            self.loop, server or server_context(), self._connect, TIMEOUT, self._failed
        )
        self.peer: Peer = connect(self.loop, self.transport)
        self.below = self.peer.transport
        self.incoming, self.outgoing = MemoryBIO(), MemoryBIO()
        context = client or client_context()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def _connect(self, transport: TLSTransport) -> Any:
        assert transport is self.transport
        self.connected += 1
        return self.port

    def _failed(self, transport: TLSTransport, level: str, reason: str) -> None:
        assert transport is self.transport and "\n" not in reason
        self.failures.append((level, reason))

    def flush(self) -> None:
        """Send what the client has to say, in one segment; run the loop; hear the answer."""
        self.peer.send(self.outgoing.read())
        self.loop.run_until_idle()
        self.incoming.write(self.peer.take())

    def shake_hands(self) -> Scene:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
            else:
                self.flush()
                return self

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()

    def read(self) -> bytes:
        """What the server has said since the last time."""
        self.loop.run_until_idle()
        self.incoming.write(self.peer.take())
        plain = b""
        try:
            while data := self.tls.read(65536):
                plain += data
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return plain

    def notify(self) -> None:
        """Send close_notify."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    @property
    def notified(self) -> bool:
        """The server has said close_notify."""
        self.read()
        try:
            return self.tls.read(1) == b""
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLWantReadError:
            return False


# ---------------------------------------------------------------- the handshake


def test_a_connection_is_chosen_when_the_handshake_is_complete() -> None:
    chosen: list[object] = []

    class Chooser(Scene):
        def _connect(self, transport: TLSTransport) -> Any:
            chosen.append(transport.get_extra_info("ssl_object").selected_alpn_protocol())
            return super()._connect(transport)

    scene = Chooser(server_context("h2", "http/1.1"), client_context("http/1.1", "h2"))
    assert scene.port.calls == []
    scene.shake_hands()

    assert chosen == ["h2"]
    assert scene.port.calls == ["made"]
    assert scene.port.transport is scene.transport
    assert scene.failures == []


@pytest.mark.parametrize("version", [TLSVersion.TLSv1_2, TLSVersion.TLSv1_3])
def test_how_a_handshake_is_cut_into_segments_does_not_matter(version: TLSVersion) -> None:
    class Dribbling(Scene):
        def flush(self) -> None:
            for byte in self.outgoing.read():
                self.peer.send(bytes([byte]))
            self.loop.run_until_idle()
            self.incoming.write(self.peer.take())

    scene = Dribbling(client=client_context(version=version)).shake_hands()
    scene.send(b"hello")

    assert scene.port.calls == ["made", b"hello"]


def test_bytes_that_come_with_the_last_flight_are_delivered_behind_connection_made() -> None:
    scene = Scene()
    with pytest.raises(ssl.SSLWantReadError):
        scene.tls.do_handshake()
    scene.flush()
    scene.tls.do_handshake()
    scene.tls.write(b"GET / ")
    scene.tls.write(b"HTTP/1.1")
    scene.flush()

    assert scene.port.calls == ["made", b"GET / HTTP/1.1"]


def test_an_answer_to_the_last_flight_leaves_together_with_the_tickets() -> None:
    class Echo(Port):
        def data_received(self, data: bytes) -> None:
            self.transport.write(data.upper())

    scene = Scene(port=Echo())
    with pytest.raises(ssl.SSLWantReadError):
        scene.tls.do_handshake()
    scene.flush()
    scene.tls.do_handshake()
    before = len(scene.peer.writes)
    scene.send(b"hello")

    assert scene.read() == b"HELLO"
    assert len(scene.peer.writes) == before + 1


def test_bytes_of_the_last_flight_wait_for_a_connection_that_begins_with_a_pause() -> None:
    class Shy(Port):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    scene = Scene(port=Shy())
    with pytest.raises(ssl.SSLWantReadError):
        scene.tls.do_handshake()
    scene.flush()
    scene.tls.do_handshake()
    scene.tls.write(b"one")
    scene.flush()
    scene.send(b"two")
    scene.peer.close()
    scene.loop.run_until_idle()
    assert scene.port.calls == ["made"]

    scene.transport.resume_reading()
    assert scene.port.calls == ["made"]
    scene.loop.run_until_idle()
    assert scene.port.calls == ["made", b"one", b"two", "eof"]


@pytest.mark.parametrize("paused", [False, True])
def test_a_connection_that_closes_as_it_is_made_gets_nothing_more(paused: bool) -> None:
    class Draining(Port):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if paused:
                transport.pause_reading()
            transport.close()

    scene = Scene(port=Draining())
    with pytest.raises(ssl.SSLWantReadError):
        scene.tls.do_handshake()
    scene.flush()
    scene.tls.do_handshake()
    scene.tls.write(b"too late")
    scene.peer.pause()
    scene.peer.send(scene.outgoing.read())
    scene.loop.call_soon(scene.transport.resume_reading)
    scene.loop.run_until_idle()
    scene.peer.resume()

    assert scene.notified and scene.peer.eof
    assert scene.port.calls == ["made", "lost"]


@pytest.mark.parametrize("began", [False, True])
def test_a_handshake_that_takes_too_long_is_cut(began: bool) -> None:
    scene = Scene()
    if began:
        scene.peer.send(b"\x16\x03")
    scene.loop.advance(TIMEOUT - 0.1)
    assert scene.failures == [] and not scene.peer.was_reset

    scene.loop.advance(0.1)
    assert scene.failures == [("debug", "no TLS handshake within 10 seconds")]
    assert scene.peer.was_reset


def test_after_the_handshake_its_time_does_not_count() -> None:
    scene = Scene().shake_hands()
    scene.loop.advance(10 * TIMEOUT)

    assert scene.failures == [] and not scene.below.is_closing
    scene.send(b"still here")
    assert scene.port.calls == ["made", b"still here"]


def alert(scene: Scene) -> str:
    """What the client makes of the server's last word."""
    scene.incoming.write(scene.peer.take())
    try:
        scene.tls.do_handshake()
        scene.tls.read(1)
    except ssl.SSLError as exc:
        return str(exc.reason)
    return ""


def test_no_shared_version_is_answered_with_an_alert_and_told() -> None:
    server = server_context()
    server.minimum_version = TLSVersion.TLSv1_3
    scene = Scene(server, client_context(version=TLSVersion.TLSv1_2))
    with pytest.raises(ssl.SSLWantReadError):
        scene.tls.do_handshake()
    scene.flush()

    assert scene.failures == [("info", "the TLS handshake failed: unsupported protocol")]
    assert alert(scene) == "TLSV1_ALERT_PROTOCOL_VERSION"
    scene.peer.close()
    scene.loop.run_until_idle()
    assert scene.peer.eof and not scene.peer.was_reset
    assert scene.connected == 0 and len(scene.failures) == 1


def test_no_shared_cipher_is_answered_with_an_alert_and_told() -> None:
    server, client = server_context(), client_context(version=TLSVersion.TLSv1_2)
    server.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    client.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    scene = Scene(server, client)
    with pytest.raises(ssl.SSLWantReadError):
        scene.tls.do_handshake()
    scene.flush()

    assert scene.failures == [("info", "the TLS handshake failed: no shared cipher")]
    assert "HANDSHAKE_FAILURE" in alert(scene)


@pytest.mark.parametrize("version", [TLSVersion.TLSv1_2, TLSVersion.TLSv1_3])
def test_a_client_without_the_certificate_asked_for_learns_why(version: TLSVersion) -> None:
    server = server_context()
    server.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(server)
    scene = Scene(server, client_context(version=version))
    with pytest.raises(ssl.SSLWantReadError):
        scene.tls.do_handshake()
    scene.flush()
    try:
        scene.tls.do_handshake()
        scene.tls.write(b"GET / HTTP/1.1\r\n")
    except ssl.SSLWantReadError:
        pass
    scene.flush()
    scene.peer.send(b"more of it, as it does not know yet")
    scene.loop.run_until_idle()

    assert scene.failures == [
        ("info", "the TLS handshake failed: peer did not return a certificate")
    ]
    assert scene.port.calls == [] and not scene.peer.was_reset
    scene.incoming.write(scene.peer.take())
    with pytest.raises(ssl.SSLError, match="ALERT"):
        scene.tls.read(1)


def test_a_client_whose_certificate_is_nobodys_is_told_why() -> None:
    server, client = server_context(), client_context()
    server.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(server)
    trustme.CA().issue_cert("client").configure_cert(client)
    scene = Scene(server, client).shake_hands()

    ((level, reason),) = scene.failures
    assert level == "info"
    assert reason.startswith("the TLS handshake failed: certificate verify failed: unable to get")


def test_a_client_that_does_not_trust_us_says_so() -> None:
    stranger = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    scene = Scene(client=stranger)
    with pytest.raises(ssl.SSLCertVerificationError):
        scene.shake_hands()
    scene.flush()

    assert scene.failures == [
        ("info", "the TLS handshake failed: the peer sent the alert 'unknown ca'")
    ]


def test_what_is_neither_tls_nor_http_is_refused_and_told() -> None:
    scene = Scene()
    scene.peer.send(b"\x00\x01\x02\x03\x04\x05\x06\x07")
    scene.loop.run_until_idle()

    ((level, reason),) = scene.failures
    assert (level, reason[:26]) == ("info", "the TLS handshake failed: ")
    scene.loop.advance(LAST_WORD)
    assert scene.below.is_lost
    assert len(scene.failures) == 1


@pytest.mark.parametrize("began", [False, True])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("close", "the peer has gone during the TLS handshake"),
        ("reset", "the connection has been reset by the peer during the TLS handshake"),
    ],
)
def test_a_peer_that_leaves_in_its_handshake_is_no_more_than_a_debug_line(
    how: str, reason: str, began: bool
) -> None:
    scene = Scene()
    if began:
        with pytest.raises(ssl.SSLWantReadError):
            scene.tls.do_handshake()
        scene.flush()
    getattr(scene.peer, how)()
    scene.loop.advance(2 * TIMEOUT)

    assert scene.failures == [("debug", reason)]
    assert scene.connected == 0
    assert scene.below.is_lost


@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_handshake_can_be_cut_from_this_side(how: str) -> None:
    scene = Scene()
    getattr(scene.transport, how)()
    scene.loop.advance(2 * TIMEOUT)

    assert scene.failures == [("debug", "the connection was cut during the TLS handshake")]
    assert scene.below.is_lost


# ---------------------------------------------------------------- plain HTTP


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"P",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_plain_http_gets_a_400_that_says_what_is_spoken_here(said: bytes) -> None:
    scene = Scene()
    scene.peer.send(said)
    scene.loop.run_until_idle()

    head, _, body = scene.peer.received.partition(b"\r\n\r\n")
    assert head == (
        b"HTTP/1.1 400 Bad Request\r\n"
        b"content-type: text/plain\r\n"
        b"content-length: 51\r\n"
        b"connection: close"
    )
    assert body == b"This port speaks TLS: ask for https, not for http.\n"
    assert len(body) == 51
    assert scene.failures == [("info", "plain HTTP was sent to a port that speaks TLS")]
    assert scene.connected == 0


def test_the_400_is_not_taken_away_from_a_client_that_goes_on_sending() -> None:
    scene = Scene()
    for _ in range(10):
        scene.peer.send(b"POST / HTTP/1.1\r\n" + b"x" * 10_000)
    scene.loop.run_until_idle()
    assert scene.peer.eof and scene.peer.waiting == 0

    scene.peer.close()
    scene.loop.run_until_idle()
    assert scene.below.is_lost
    assert not scene.peer.was_reset and len(scene.failures) == 1


def test_a_refused_client_that_does_not_leave_is_cut() -> None:
    scene = Scene()
    scene.peer.send(b"GET / HTTP/1.1\r\n\r\n")
    scene.loop.advance(LAST_WORD - 0.1)
    assert not scene.below.is_lost

    scene.loop.advance(0.1)
    assert scene.below.is_lost


# ---------------------------------------------------------------- an open connection


def test_one_write_is_one_write_below() -> None:
    scene = Scene().shake_hands()
    before = len(scene.peer.writes)
    scene.transport.write(b"hello")
    scene.transport.write(BIG[:65536] + b"and a frame's head")
    assert len(scene.peer.writes) == before + 2

    scene.transport.write(BIG)
    assert len(scene.peer.writes) == before + 2 + 16
    assert scene.read() == b"hello" + BIG[:65536] + b"and a frame's head" + BIG


def test_writing_nothing_is_nothing() -> None:
    scene = Scene().shake_hands()
    before = len(scene.peer.writes)
    scene.transport.write(b"")
    assert len(scene.peer.writes) == before


def test_what_comes_in_one_segment_goes_up_in_one_piece() -> None:
    scene = Scene().shake_hands()
    for size in (1, 1000, 16384, 30_000, 60_000, 80_000):
        scene.port.calls.clear()
        for start in range(0, size, 7000):
            scene.tls.write(BIG[start : min(size, start + 7000)])
        scene.flush()
        assert [len(call) for call in scene.port.calls] == [size]
        assert scene.port.calls == [BIG[:size]]


def test_a_segment_that_is_large_goes_up_in_several_pieces() -> None:
    scene = Scene().shake_hands()
    scene.send(BIG)

    assert b"".join(scene.port.calls[1:]) == BIG
    assert {len(call) for call in scene.port.calls[1:-1]} <= {3 * 16384, 4 * 16384}


@pytest.mark.parametrize("ends", ["close_notify", "FIN", "both"])
def test_a_pause_between_two_pieces_of_a_segment_is_obeyed(ends: str) -> None:
    class Slow(Port):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    scene = Scene(port=Slow()).shake_hands()
    calls = scene.port.calls
    scene.tls.write(BIG[:200_000])
    if ends in ("close_notify", "both"):
        scene.notify()
    else:
        scene.flush()
    if ends in ("FIN", "both"):
        scene.peer.close()
    scene.loop.run_until_idle()
    for count in range(1, 5):
        assert len(calls) == 1 + count
        scene.transport.resume_reading()
        scene.transport.resume_reading()
        assert len(calls) == 1 + count
        # Nothing can come from below until what is held has been told.
        assert scene.below.is_reading == (count == 4 and ends == "FIN")
        scene.loop.run_until_idle()

    assert b"".join(calls[1:-1]) == BIG[:200_000]
    assert calls[-1] == "eof"
    assert not scene.transport._held


@pytest.mark.parametrize("how", ["close", "abort"])
def test_after_a_close_between_two_pieces_of_a_segment_nothing_comes(how: str) -> None:
    class Fed(Port):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            getattr(self.transport, how)()

    scene = Scene(port=Fed()).shake_hands()
    scene.send(BIG)
    assert scene.port.calls[2:] == ["lost"]
    assert BIG.startswith(scene.port.calls[1])


@pytest.mark.parametrize("how", ["close", "abort", "reset"])
@pytest.mark.parametrize("resumed", ["before", "after"])
def test_the_end_of_a_connection_drops_what_is_held(how: str, resumed: str) -> None:
    class Slow(Port):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    scene = Scene(port=Slow()).shake_hands()
    scene.send(BIG)
    if resumed == "before" and how != "reset":  # else there was time to tell some of it
        scene.transport.resume_reading()
    getattr(scene.peer if how == "reset" else scene.transport, how)()
    if resumed == "after":
        scene.transport.resume_reading()
    scene.loop.run_until_idle()
    assert scene.port.calls[2:] == ["lost"]


def test_a_pause_right_after_a_resume_is_a_pause() -> None:
    class Slow(Port):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    scene = Scene(port=Slow()).shake_hands()
    scene.send(BIG)
    scene.transport.resume_reading()
    scene.transport.pause_reading()
    scene.loop.run_until_idle()
    assert len(scene.port.calls) == 2


def test_records_may_be_cut_anywhere() -> None:
    scene = Scene().shake_hands()
    for word in (b"one", b"two", b"three"):
        scene.tls.write(word)
    segment = scene.outgoing.read()
    for cut in range(1, len(segment)):
        again = Scene().shake_hands()
        for word in (b"one", b"two", b"three"):
            again.tls.write(word)
        segment = again.outgoing.read()
        again.peer.send(segment[:cut])
        again.peer.send(segment[cut:])
        again.loop.run_until_idle()
        assert b"".join(again.port.calls[1:]) == b"onetwothree"


def test_an_upcall_may_write_and_close() -> None:
    class Echo(Port):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.write(data.upper())
            if data == b"bye":
                self.transport.close()

    scene = Scene(port=Echo()).shake_hands()
    scene.send(b"hello")
    scene.send(b"bye")

    assert scene.read() == b"HELLOBYE"
    assert scene.notified and scene.peer.eof
    assert scene.port.calls == ["made", b"hello", b"bye", "lost"]
    assert scene.port.error is None


def test_another_connection_can_take_over() -> None:
    scene = Scene().shake_hands()
    second = Port()
    scene.transport.set_protocol(second)
    scene.send(b"hello")
    scene.peer.close()
    scene.loop.run_until_idle()
    scene.transport.close()
    scene.loop.run_until_idle()

    assert scene.port.calls == ["made"]
    assert second.calls == [b"hello", "eof", "lost"]


def test_a_slow_peer_pauses_the_connection() -> None:
    scene = Scene().shake_hands()
    scene.peer.pause()
    scene.transport.write(BIG)
    assert scene.port.calls == ["made", "pause"]
    assert scene.transport.get_write_buffer_size() > len(BIG) - 65536

    scene.peer.resume()
    assert scene.read() == BIG
    assert scene.port.calls == ["made", "pause", "resume"]
    assert scene.transport.get_write_buffer_size() == 0


def test_close_notify_is_the_end_of_the_peers_bytes_alone() -> None:
    scene = Scene().shake_hands()
    scene.tls.write(b"hello")
    scene.notify()
    assert scene.port.calls == ["made", b"hello", "eof"]

    scene.transport.write(b"the answer")
    assert scene.read() == b"the answer"
    scene.peer.close()
    scene.loop.run_until_idle()
    assert scene.port.calls == ["made", b"hello", "eof"]
    scene.transport.write(b", the rest")
    assert scene.read() == b", the rest"
    scene.transport.close()
    assert scene.notified and scene.peer.eof
    assert scene.failures == []


def test_a_connection_that_does_not_outlive_the_end_is_closed() -> None:
    scene = Scene(port=Port(half_open=False)).shake_hands()
    scene.notify()
    assert scene.notified and scene.peer.eof
    assert scene.port.calls == ["made", "eof", "lost"]

    scene = Scene(port=Port(half_open=False)).shake_hands()
    scene.peer.close()
    assert scene.notified and scene.peer.eof
    assert scene.port.calls == ["made", "eof", "lost"]
    assert scene.failures == [("debug", "the peer has ended without close_notify")]


def test_an_end_that_comes_in_a_pause_is_told_after_it() -> None:
    class Full(Port):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    scene = Scene(port=Full()).shake_hands()
    scene.tls.write(b"hello")
    scene.notify()
    scene.peer.close()
    scene.loop.run_until_idle()
    assert scene.port.calls == ["made", b"hello"]

    scene.transport.resume_reading()
    assert scene.port.calls == ["made", b"hello"]
    scene.loop.run_until_idle()
    assert scene.port.calls == ["made", b"hello", "eof"]


def test_what_follows_close_notify_is_dropped_and_not_kept() -> None:
    scene = Scene().shake_hands()
    scene.notify()
    for _ in range(10):
        scene.peer.send(b"x" * 1000)
    scene.loop.run_until_idle()

    assert scene.port.calls == ["made", "eof"]
    assert scene.transport._incoming.pending == 0


def test_after_write_eof_the_other_direction_goes_on() -> None:
    scene = Scene().shake_hands()
    scene.transport.write(b"the answer")
    assert scene.transport.can_write_eof()
    scene.transport.write_eof()
    scene.transport.write_eof()
    scene.transport.write(b"dropped")
    assert scene.read() == b"the answer"
    assert scene.notified and scene.peer.eof

    scene.send(b"the upload")
    scene.send(BIG)
    assert b"".join(scene.port.calls[1:]) == b"the upload" + BIG
    scene.peer.close()
    scene.loop.run_until_idle()
    assert scene.port.calls[-2:] == ["eof", "lost"]
    assert scene.failures == []


@pytest.mark.parametrize("version", [TLSVersion.TLSv1_2, TLSVersion.TLSv1_3])
@pytest.mark.parametrize("last", [b"", b"the rest", BIG])
def test_a_peer_may_answer_write_eof_with_close_notify(version: TLSVersion, last: bytes) -> None:
    scene = Scene(client=client_context(version=version)).shake_hands()
    scene.transport.write_eof()
    scene.loop.run_until_idle()
    if last:
        scene.tls.write(last)
    scene.notify()
    scene.peer.close()
    scene.loop.run_until_idle()

    assert b"".join(scene.port.calls[1:-2]) == last
    assert scene.port.calls[-2:] == ["eof", "lost"]
    assert scene.failures == [] and scene.port.error is None


def test_bytes_that_cannot_be_decrypted_end_the_connection() -> None:
    scene = Scene().shake_hands()
    scene.tls.write(b"hello")
    segment = bytearray(scene.outgoing.read())
    segment[-1] ^= 1
    scene.peer.send(bytes(segment))
    scene.loop.run_until_idle()

    assert scene.port.calls == ["made", "lost"]
    assert isinstance(scene.port.error, ssl.SSLError)
    assert scene.failures in (  # as the release of OpenSSL puts it
        [("debug", "TLS: decryption failed or bad record mac")],
        [("debug", "TLS: record layer failure")],
    )
    assert alert(scene) == "SSLV3_ALERT_BAD_RECORD_MAC"


def test_a_peer_that_does_not_read_why_it_was_cut_is_not_waited_for() -> None:
    scene = Scene().shake_hands()
    scene.peer.pause()
    scene.transport.write(BIG)
    scene.peer.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    scene.loop.run_until_idle()
    scene.transport.write(b"dropped")
    assert scene.port.calls == ["made", "pause"]

    scene.loop.advance(LAST_WORD)
    assert scene.port.calls == ["made", "pause", "lost"]
    assert len(scene.failures) == 1


def test_a_reset_is_passed_on() -> None:
    scene = Scene().shake_hands()
    scene.peer.reset()
    scene.loop.run_until_idle()

    assert scene.port.calls == ["made", "lost"]
    assert isinstance(scene.port.error, ConnectionResetError)
    assert scene.failures == []


def test_extra_information_is_that_of_tls_and_of_what_is_below() -> None:
    server, client = server_context(), client_context()
    server.verify_mode = ssl.CERT_OPTIONAL
    AUTHORITY.configure_trust(server)
    AUTHORITY.issue_cert("client@example.org").configure_cert(client)
    scene = Scene(server, client)
    get = scene.transport.get_extra_info
    for name in ("ssl_object", "peercert", "cipher", "compression"):
        assert get(name, "nothing yet") == "nothing yet"
    scene.shake_hands()

    assert isinstance(get("ssl_object"), ssl.SSLObject)
    assert get("sslcontext") is server
    assert get("peercert")["subjectAltName"] == (("email", "client@example.org"),)
    assert get("cipher") == get("ssl_object").cipher()
    assert get("compression") is None
    assert get("peername") == ("192.0.2.1", 50000)
    assert get("nonsense", 7) == 7


@pytest.mark.parametrize("end", ["plain HTTP", "timeout", "broken", "closed", "reset"])
def test_nothing_is_left_for_the_garbage_collector(
    end: str, garbage: Callable[[], list[str]]
) -> None:
    def live() -> None:
        scene = Scene()
        if end == "plain HTTP":
            scene.peer.send(b"GET /")
        elif end != "timeout":
            scene.shake_hands()
            if end == "broken":
                scene.peer.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            elif end == "closed":
                scene.port.transport.close()
            else:
                scene.peer.reset()
        scene.loop.advance(TIMEOUT)
        assert scene.port.calls[-1:] == ([] if end in ("plain HTTP", "timeout") else ["lost"])
        scene.port.transport = None
        del scene.transport  # which knows the scene by its callbacks

    live()
    assert {"TLSTransport", "SSLObject", "MemoryBIO", "Port"}.isdisjoint(garbage())


# ---------------------------------------------------------------- with a connection above


@pytest.mark.parametrize("version", [TLSVersion.TLSv1_2, TLSVersion.TLSv1_3])
def test_the_answer_to_a_refused_upload_arrives(version: TLSVersion) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"too much"})

    loop = ManualLoop()
    service = Service(app, loop, server_header=False, date_header=False)
    scene = Scene(
        client=client_context(version=version), port=Http1Connection(service), loop=loop
    ).shake_hands()
    scene.tls.write(
        b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10000000\r\n\r\n"
    )
    for _ in range(20):
        scene.tls.write(b"x" * 10_000)
        scene.peer.send(scene.outgoing.read())
    loop.run_until_idle()

    assert scene.read().startswith(b"HTTP/1.1 413 ")
    assert scene.peer.eof and not scene.peer.was_reset
    scene.peer.close()
    loop.run_until_idle()
    assert not service.connections
    assert not scene.peer.was_reset


# ---------------------------------------------------------------- key updates


class Updating(Scene):
    """A client of TLS 1.3 that updates its keys as often as it likes (RFC 8446 §4.6.3)."""

    def __init__(self, keys: Path) -> None:
        client = client_context()
        client.keylog_filename = str(keys)
        super().__init__(client=client)
        self.shake_hands()
        secrets = dict(
            line.split()[::2] for line in keys.read_text().splitlines() if line[0] != "#"
        )
        self._set(bytes.fromhex(secrets["CLIENT_TRAFFIC_SECRET_0"]))

    def _set(self, secret: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._secret = secret
        self._number = 0
        self._key = AESGCM(self._expand(b"key", 32))
        self._nonce = int.from_bytes(self._expand(b"iv", 12), "big")

    def _expand(self, label: bytes, size: int) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

        info = bytes([0, size, 6 + len(label)]) + b"tls13 " + label + b"\0"
        return HKDFExpand(hashes.SHA384(), size, info).derive(self._secret)

    def record(self, kind: int, content: bytes) -> bytes:
        inner = content + bytes([kind])
        head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        nonce = (self._nonce ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._key.encrypt(nonce, inner, head)

    def update(self) -> bytes:
        data = self.record(22, b"\x18\x00\x00\x01\x01")
        self._set(self._expand(b"traffic upd", 48))
        return data


def test_a_key_update_is_followed_and_answered(tmp_path: Path) -> None:
    scene = Updating(tmp_path / "keys")
    scene.peer.send(scene.record(23, b"old") + scene.update() + scene.record(23, b"new"))
    scene.loop.run_until_idle()
    scene.peer.send(scene.record(23, b"newer"))
    scene.transport.write(b"ours are new, too")

    assert scene.read() == b"ours are new, too"
    assert scene.port.calls == ["made", b"oldnew", b"newer"]
    assert scene.failures == []


@pytest.mark.parametrize("between", [b"", b"x"])
@pytest.mark.parametrize("segments", [700, 7])
def test_key_updates_without_end_are_cut(between: bytes, segments: int, tmp_path: Path) -> None:
    scene = Updating(tmp_path / "keys")
    scene.peer.pause()
    for _ in range(segments):
        segment = b""
        for _ in range(700 // segments):
            segment += scene.update()
            if between:
                segment += scene.record(23, between)
        scene.peer.send(segment)
    scene.loop.run_until_idle()

    assert scene.failures == [("debug", "the peer updates its keys without end")]
    assert scene.peer.was_reset
    assert scene.port.calls[-1] == "lost"
