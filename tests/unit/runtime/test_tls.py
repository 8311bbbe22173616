"""Handshakes in memory: who is told what, and what becomes of them when the server stops."""

from __future__ import annotations

import logging
import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.certificates import Authority

from omnicorn.config import Config
from omnicorn.connections.bytestream import DRAIN_TIME
from omnicorn.connections.deadlines import WIDTH
from omnicorn.connections.http1 import Http1Connection
from omnicorn.connections.service import Service
from omnicorn.errors import ConfigError
from omnicorn.runtime.tls import Handshakes, OwnContext, make_certificates
from omnicorn.security.tls import LOOK_INTERVAL
from omnicorn.transports.inproc import ManualLoop, Peer, connect

if TYPE_CHECKING:
    from pathlib import Path

    from omnicorn.ports import ConnectionPort

AUTHORITY = Authority()
SERVER = AUTHORITY.issue("example.org")


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


class Client:
    """A TLS client of a server in memory."""

    def __init__(self, served: Served, peer: Peer) -> None:
        self._served = served
        self.peer = peer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.tls = context.wrap_bio(self._in, self._out)

    def shake(self) -> None:
        """Complete the handshake; a refusal of the server's raises."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.exchange()
        self.exchange()

    def exchange(self) -> None:
        self.peer.send(self._out.read())
        self._served.loop.run_until_idle()
        self._in.write(self.peer.take())

    def get(self) -> bytes:
        self.tls.write(b"GET / HTTP/1.1\r\nhost: example.org\r\n\r\n")
        self.exchange()
        return self.tls.read(65536)


class Served:
    """What a server makes of a configuration, in memory."""

    def __init__(self, **options: Any) -> None:
        self.loop = ManualLoop()
        config = Config(**options)
        self.service = Service(app, self.loop, server_header=False, date_header=False)
        self.certificates = make_certificates(config, ("h2", "http/1.1"), self.loop.time)
        self.connected = 0
        self.handshakes = Handshakes(
            self.loop,
            self.certificates.current,
            self._connect,
            config.timeout_ssl_handshake,
            lambda: Http1Connection(self.service),
        )

    def _connect(self, transport: Any) -> ConnectionPort:
        self.connected += 1
        return Http1Connection(self.service)

    def peer(self) -> Peer:
        return connect(self.loop, self.handshakes.accept())

    def client(self) -> Client:
        return Client(self, self.peer())


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    certfile, keyfile = SERVER.save(tmp_path, "server")
    return {"ssl_certfile": certfile, "ssl_keyfile": keyfile}


@pytest.fixture
def served(files: dict[str, str]) -> Served:
    return Served(**files)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Any:
    """Level and text of everything so far."""
    caplog.set_level(logging.DEBUG, "omnicorn")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def test_who_completes_the_handshake_is_connected_and_answered(served: Served) -> None:
    client = served.client()
    assert served.connected == 0

    client.shake()

    assert served.connected == 1
    assert client.tls.selected_alpn_protocol() == "h2"
    assert client.get() == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


def test_plain_http_is_told_so_at_both_ends(served: Served, logged: Any) -> None:
    peer = served.peer()
    peer.send(b"GET / HTTP/1.1\r\n\r\n")
    served.loop.run_until_idle()

    assert peer.take().startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert logged() == [("INFO", "192.0.2.1:50000 - plain HTTP was sent to a port that speaks TLS")]


def test_who_leaves_in_the_handshake_leaves_one_line_for_debugging(
    served: Served, logged: Any
) -> None:
    peer = served.peer()
    peer.send(b"\x16\x03\x01")
    peer.close()
    served.loop.run_until_idle()

    [(level, message)] = logged()
    assert level == "DEBUG"
    assert message.startswith("192.0.2.1:50000 - ")


def test_peers_cannot_fill_the_log_with_failures(served: Served, logged: Any) -> None:
    for _ in range(100):
        served.peer().send(b"GET / HTTP/1.1\r\n\r\n")
        served.loop.run_until_idle()

    assert len(logged()) == 10


def test_silence_is_given_the_time_of_a_handshake(files: dict[str, str], logged: Any) -> None:
    served = Served(**files, timeout_ssl_handshake=3)
    peer = served.peer()

    lost = []
    for seconds in (2.9, 0.2):
        served.loop.advance(seconds)
        lost.append(peer.transport.is_lost)

    assert lost == [False, True]
    assert [level for level, _ in logged()] == ["DEBUG"]


def test_each_connection_gets_the_context_of_its_time(
    served: Served, files: dict[str, str]
) -> None:
    first = served.client()
    other = AUTHORITY.issue("other.example")
    served.loop.advance(LOOK_INTERVAL)
    for name, text in (("ssl_certfile", other.pem), ("ssl_keyfile", other.key_pem())):
        with open(files[name], "w") as file:
            file.write(text)
    second = served.client()

    first.shake()
    second.shake()

    shown = [client.tls.getpeercert(True) for client in (first, second)]
    assert shown == [ssl.PEM_cert_to_DER_cert(issued.pem) for issued in (SERVER, other)]
    assert first.get().endswith(b"hello")


# ------------------------------------------------------------------------------ the end


def test_unfinished_handshakes_are_cut_when_the_server_stops(served: Served) -> None:
    silent, begun, open_ = served.peer(), served.client(), served.client()
    open_.shake()
    with pytest.raises(ssl.SSLWantReadError):
        begun.tls.do_handshake()
    begun.exchange()

    served.handshakes.close()
    served.loop.run_until_idle()

    assert silent.transport.is_lost and begun.peer.transport.is_lost
    assert open_.get().endswith(b"hello")


def test_who_was_accepted_while_the_server_stopped_is_closed(served: Served) -> None:
    accepted = served.handshakes.accept()
    served.service.drain(lambda: None)
    served.handshakes.close()
    early = connect(served.loop, accepted)
    late = served.peer()

    served.loop.run_until_idle()
    assert early.transport.is_lost  # in its handshake: no request can be lost with it
    served.loop.advance(DRAIN_TIME + WIDTH)
    assert late.transport.is_lost


# ------------------------------------------------------------------------------ certificates


def test_what_is_wrong_with_a_certificate_is_raised_at_the_start() -> None:
    with pytest.raises(ConfigError) as refusal:
        Served(ssl_certfile="/nowhere/x.pem")
    assert refusal.value.option == "ssl_certfile"


def test_every_option_reaches_the_context(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(AUTHORITY.pem)
    (tmp_path / "crl.pem").write_text(AUTHORITY.revoke())
    certfile, keyfile = AUTHORITY.issue("a.example").save(tmp_path, "a", "sesame")
    served = Served(
        **files,
        ssl_keyfile_password="sesame",
        ssl_sni=[("a.example", certfile, keyfile)],
        ssl_cert_reqs="optional",
        ssl_ca_certs=str(tmp_path / "ca.pem"),
        ssl_crl=str(tmp_path / "crl.pem"),
        ssl_ciphers="ECDHE-ECDSA-AES128-GCM-SHA256",
    )

    context = served.certificates.current()

    assert context.verify_mode == ssl.CERT_OPTIONAL
    assert context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    assert context.cert_store_stats()["x509_ca"] == context.cert_store_stats()["crl"] == 1
    older = [each for each in context.get_ciphers() if each["protocol"] == "TLSv1.2"]
    assert [each["name"] for each in older] == ["ECDHE-ECDSA-AES128-GCM-SHA256"]
    assert context.sni_callback is not None


def test_the_oldest_version_reaches_the_context(files: dict[str, str]) -> None:
    served = Served(**files, ssl_protocol_min="tls1.3")

    assert served.certificates.current().minimum_version == ssl.TLSVersion.TLSv1_3


def test_a_programs_own_context_is_used_as_it_is(files: dict[str, str]) -> None:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(files["ssl_certfile"], files["ssl_keyfile"])
    own.set_alpn_protocols(["spdy"])
    served = Served(ssl_context=own)

    assert isinstance(served.certificates, OwnContext)
    served.certificates.reload()
    assert served.certificates.current() is own
    client = served.client()
    client.shake()
    assert client.tls.selected_alpn_protocol() is None


def test_the_certificate_of_development_is_made_and_its_fingerprint_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    served = Served(dev_tls=True)

    [(level, message)] = logged()
    assert level == "INFO"
    assert f"{tmp_path}/omnicorn/localhost.pem, SHA-256 " in message
    client = served.client()
    client.shake()
    assert client.get().endswith(b"hello")


def test_without_cryptography_development_has_no_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.hashes", None)

    with pytest.raises(ConfigError) as refusal:
        Served(dev_tls=True)
    assert refusal.value.option == "dev_tls"
