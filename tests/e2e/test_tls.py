"""TLS on real sockets: curl and Python's `ssl` as clients, authorities made for the occasion.

What this file alone decides: every server here is asked through `Pki`, which knows who issued
what; clients trust its authority and nothing else. HTTP/2 is another file's business: these
clients offer http/1.1, or nothing.
"""

from __future__ import annotations

import json
import signal
import socket
import ssl
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.certificates import Authority
from tests.frames import HANDSHAKE, TEXT, frames
from tests.frames import text as text_frame

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Response, Serve, ServerProcess, Wire

    Curl = Callable[..., subprocess.CompletedProcess[str]]

MB = 1 << 20


class Pki:
    """An authority, and the files of what it has issued."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.ca = str(folder / "ca.pem")
        (folder / "ca.pem").write_text(self.authority.pem)
        self.save("server", "localhost", "127.0.0.1", "::1")

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def save(self, name: str, *hosts: str) -> None:
        """Issue ``name.pem`` and ``name.key``, new each time."""
        self.authority.issue(*hosts, common_name=name).save(self.folder, name)

    @property
    def options(self) -> tuple[str, ...]:
        return "--ssl-certfile", self.path("server.pem"), "--ssl-keyfile", self.path("server.key")

    def client(self, identity: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols(["http/1.1"])
        if identity is not None:
            context.load_cert_chain(self.path(f"{identity}.pem"), self.path(f"{identity}.key"))
        return context


class Client(NamedTuple):
    """Connects to one server."""

    server: ServerProcess
    pki: Pki
    wire_on: Callable[[socket.socket], Wire]

    @property
    def url(self) -> str:
        [url] = [each for each in self.server.addresses if each.startswith("https://")]
        return url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def raw(self) -> socket.socket:
        """A connection on which nothing has been said."""
        return socket.create_connection(("127.0.0.1", self.port), 20)

    def connect(
        self,
        identity: str | None = None,
        *,
        host: str = "localhost",
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Wire:
        """Complete a handshake."""
        context = context or self.pki.client(identity)
        plain = self.raw()
        try:
            return self.wire_on(context.wrap_socket(plain, server_hostname=host, session=session))
        except BaseException:
            plain.close()
            raise

    def get(self, target: str, *fields: str, identity: str | None = None) -> Response:
        with self.connect(identity) as wire:
            return wire.get(target, *fields)

    def shown(self, host: str = "localhost") -> str:
        """The common name of the certificate that is shown for a host."""
        context = self.pki.client()
        context.check_hostname = False
        with self.connect(host=host, context=context) as wire:
            return name_in(wire)


def name_in(wire: Wire) -> str:
    assert isinstance(wire.sock, ssl.SSLSocket)
    certificate: Any = wire.sock.getpeercert()
    return str(dict(part[0] for part in certificate["subject"])["commonName"])


def refused(connecting: Callable[[], Wire]) -> str:
    """Why a server refuses a client: in TLS 1.3 that is told to its first read."""
    with pytest.raises(ssl.SSLError) as refusal, connecting() as wire:
        wire.sock.recv(1)
    return str(refusal.value.reason)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
def secure(
    serve: Serve, pki: Pki, wire_on: Callable[[socket.socket], Wire]
) -> Callable[..., Client]:
    """Starts a server with the certificate of `pki`."""

    def start(*options: str, app: str = "secure:app", **others: Any) -> Client:
        return Client(serve(app, *pki.options, *options, **others), pki, wire_on)

    return start


# The server that most tests share.


@pytest.fixture(scope="module")
def shared_pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def shared_server(serve_module: Serve, shared_pki: Pki) -> ServerProcess:
    return serve_module("secure:app", *shared_pki.options, "--no-access-log")


@pytest.fixture
def client(
    shared_server: ServerProcess, shared_pki: Pki, wire_on: Callable[[socket.socket], Wire]
) -> Client:
    return Client(shared_server, shared_pki, wire_on)


# ------------------------------------------------------------------------------ HTTP over TLS


def test_curl_gets_a_page(client: Client, curl: Curl) -> None:
    done = curl("-i", "--http1.1", "--cacert", client.pki.ca, client.url)

    assert done.stdout.startswith("HTTP/1.1 200 OK\r\n")
    assert done.stdout.endswith("\r\n\r\nhello")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_both_versions_of_tls_are_spoken(client: Client, curl: Curl, version: str) -> None:
    flags = [f"--tlsv{version}", "--tls-max", version, "--http1.1", "--cacert", client.pki.ca]

    assert curl(*flags, client.url).stdout == "hello"


def test_the_application_sees_https_and_the_extension(client: Client) -> None:
    scope = json.loads(client.get("/scope").body)

    tls = scope["extensions"]["tls"]
    assert scope["scheme"] == "https"
    assert tls["tls_version"] == 0x0304
    assert tls["cipher_suite"] in (0x1301, 0x1302, 0x1303)
    with open(client.pki.path("server.pem")) as file:
        assert tls["server_cert"] == file.read()
    assert (tls["client_cert_chain"], tls["client_cert_name"]) == ([], None)


def test_a_connection_is_kept_and_requests_may_be_pipelined(client: Client) -> None:
    with client.connect() as wire:
        assert wire.get("/numbered?1").body == b"1"
        assert wire.get("/numbered?2").body == b"2"
        wire.send(*[b"GET /numbered?%d HTTP/1.1\r\nhost: e2e\r\n\r\n" % n for n in range(50)])
        assert [wire.response().body for _ in range(50)] == [b"%d" % n for n in range(50)]


def test_large_bodies_go_both_ways(client: Client) -> None:
    body = bytes(range(256)) * 4096
    with client.connect() as wire:
        for _ in range(2):
            wire.send(b"POST /echo HTTP/1.1\r\nhost: e2e\r\ncontent-length: %d\r\n\r\n" % MB, body)
            assert wire.response().body == body


def test_streamed_bodies_come_in_chunks(client: Client) -> None:
    with client.connect() as wire:
        assert len(wire.get("/stream?n=200&size=10000").body) == 2 * MB // MB * 1_000_000
        assert wire.get("/numbered?1").body == b"1"


def test_a_file_is_sent_as_it_is(client: Client, tmp_path: Path) -> None:
    """The kernel does not encrypt: what it sent by itself would be no TLS at all."""
    content = bytes(range(256)) * 8192
    (tmp_path / "content").write_bytes(content)
    with client.connect() as wire:
        for _ in range(2):
            assert wire.get(f"/file?{tmp_path}/content").body == content


def test_a_client_that_reads_late_gets_everything(client: Client) -> None:
    with client.connect() as wire:
        wire.send(b"GET /flood?size=8388608 HTTP/1.1\r\nhost: e2e\r\nconnection: close\r\n\r\n")
        with client.connect() as other:
            assert other.get("/numbered?1").body == b"1"
        assert len(wire.response().body) == 8 * MB
        assert wire.rest() == b""


def test_a_websocket_over_tls(client: Client) -> None:
    with client.connect() as wire:
        wire.send("\r\n".join(["GET /echo HTTP/1.1", "host: e2e", *HANDSHAKE, "", ""]).encode())
        assert wire.head().status == 101
        for size in (5, 70000):
            wire.send(text_frame("x" * size))
            answer = wire.take(size + (2 if size < 126 else 10))
            assert frames(answer) == [(TEXT, b"x" * size)]


def test_a_websocket_of_a_library_over_tls(client: Client) -> None:
    sync = pytest.importorskip("websockets.sync.client")

    url = client.url.replace("https", "wss").replace("127.0.0.1", "localhost")
    with sync.connect(f"{url}/echo", ssl=client.pki.client(), proxy=None) as socket_:
        socket_.send("x" * MB)
        assert socket_.recv() == "x" * MB
    with sync.connect(f"{url}/scope", ssl=client.pki.client(), proxy=None) as socket_:
        assert json.loads(socket_.recv())["scheme"] == "wss"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(client: Client, version: ssl.TLSVersion) -> None:
    context = client.pki.client()
    context.maximum_version = version
    with client.connect(context=context) as wire:
        assert wire.get("/numbered?1").body == b"1"
        assert isinstance(wire.sock, ssl.SSLSocket)
        session = wire.sock.session

    with client.connect(context=context, session=session) as wire:
        assert wire.get("/numbered?2").body == b"2"
        assert isinstance(wire.sock, ssl.SSLSocket)
        assert wire.sock.session_reused


def test_the_server_says_that_it_closes(client: Client) -> None:
    """Without close_notify the end could be anybody's (RFC 8446 §6.1)."""
    context = client.pki.client()
    plain = client.raw()
    with context.wrap_socket(
        plain, server_hostname="localhost", suppress_ragged_eofs=False
    ) as sock:
        wire = client.wire_on(sock)
        assert wire.get("/numbered?1", "connection: close").body == b"1"
        assert wire.rest() == b""


# ------------------------------------------------------------------------------ what goes wrong


def test_plain_http_is_answered_400_and_logged(client: Client) -> None:
    with client.wire_on(client.raw()) as wire:
        response = wire.get("/")
        assert response.status == 400
        assert b"TLS" in response.body
        assert wire.rest() == b""
    client.server.wait_for("plain HTTP was sent to a port that speaks TLS")


def test_an_old_client_is_refused_and_logged(secure: Callable[..., Client]) -> None:
    client = secure("--ssl-protocol-min", "tls1.3")
    context = client.pki.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    assert refused(lambda: client.connect(context=context)) == "TLSV1_ALERT_PROTOCOL_VERSION"
    client.server.wait_for("INFO: .* TLS handshake failed: unsupported protocol")


def test_a_client_that_does_not_trust_us_leaves_one_line(client: Client) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        client.connect(context=ssl.create_default_context())

    client.server.wait_for("INFO: .* the peer sent the alert 'unknown ca'")


def test_who_leaves_in_the_handshake_leaves_one_line_each(
    secure: Callable[..., Client], loop_name: str
) -> None:
    client = secure("--log-level", "debug", loop=loop_name)
    for said in (b"", b"\x16\x03\x01\x02", b"hello"):
        wire = client.wire_on(client.raw())
        wire.send(said)
        wire.reset()
        wire = client.wire_on(client.raw())
        wire.send(said)
        wire.sock.close()

    client.server.wait_for("DEBUG: .* during the TLS handshake", 4)
    client.server.wait_for("INFO: .* TLS handshake failed: ")  # hello, unless the reset overtook it
    assert client.get("/numbered?1").body == b"1"


def test_who_leaves_without_a_word_leaves_a_line_for_debugging_alone(
    secure: Callable[..., Client], loop_name: str
) -> None:
    client = secure("--log-level", "debug", loop=loop_name)
    with client.connect() as wire:
        assert wire.get("/numbered?1").body == b"1"
        # Neither close_notify nor, below, an end in good order.
    client.server.wait_for("DEBUG: .* without close_notify")
    wire = client.connect()
    assert wire.get("/numbered?2").body == b"2"
    wire.reset()
    assert client.get("/numbered?3").body == b"3"


def test_nonsense_in_the_middle_closes_the_connection(
    secure: Callable[..., Client], loop_name: str
) -> None:
    client = secure("--log-level", "debug", loop=loop_name)
    with client.raw() as plain:
        sock = client.pki.client().wrap_socket(plain, server_hostname="localhost")
        wire = client.wire_on(sock)
        assert wire.get("/numbered?1").body == b"1"
        below = socket.socket(fileno=sock.detach())
        with client.wire_on(below) as under:
            under.send(b"\x17\x03\x03\x00\x20" + bytes(32))
            assert under.rest()[:1] in (b"\x15", b"\x17")  # an alert, encrypted or not
    client.server.wait_for("DEBUG: .* TLS: ")
    assert client.get("/numbered?2").body == b"2"


def test_a_handshake_has_its_time(secure: Callable[..., Client], loop_name: str) -> None:
    client = secure("--timeout-ssl-handshake", "300ms", "--log-level", "debug", loop=loop_name)
    with client.wire_on(client.raw()) as silent, client.wire_on(client.raw()) as slow:
        slow.send(b"\x16\x03\x01")
        assert silent.is_closed()
        assert slow.is_closed()
    client.server.wait_for("DEBUG: .* no TLS handshake within 0.3 seconds", 2)


def test_a_server_stops_at_once_although_handshakes_are_unfinished(
    secure: Callable[..., Client], loop_name: str
) -> None:
    client = secure("--log-level", "debug", loop=loop_name)
    with client.wire_on(client.raw()) as silent, client.connect() as wire:
        # Served by the same loop, so the silent one has been accepted.
        assert wire.get("/numbered?1").body == b"1"
        client.server.kill()
        assert silent.is_closed()
        assert client.server.ends_within(5)


def test_requests_in_progress_finish_when_the_server_stops(
    secure: Callable[..., Client], loop_name: str
) -> None:
    client = secure(loop=loop_name)
    with client.connect() as idle, client.connect() as busy:
        assert idle.get("/numbered?1").body == b"1"
        busy.send(b"POST /count HTTP/1.1\r\nhost: e2e\r\ncontent-length: 2\r\n\r\nx")
        client.server.wait_for("reading")
        client.server.kill()
        assert idle.rest() == b""
        busy.send(b"y")
        assert busy.response().body == b"2"
        assert busy.rest() == b""
        assert client.server.wait() == 0


# ------------------------------------------------------------------------------ certificates


def test_the_name_chooses_the_certificate(secure: Callable[..., Client], pki: Pki) -> None:
    pki.save("other", "other.example")
    pki.save("wild", "*.wild.example")
    client = secure(
        "--ssl-sni", f"other.example={pki.path('other.pem')},{pki.path('other.key')}",
        "--ssl-sni", f"*.wild.example={pki.path('wild.pem')},{pki.path('wild.key')}",
    )  # fmt: skip

    hosts = ["localhost", "other.example", "a.wild.example", "wild.example", "unknown.example"]
    shown = [client.shown(host) for host in hosts]

    assert shown == ["server", "other", "wild", "server", "server"]
    with client.connect(host="other.example") as wire:
        tls = json.loads(wire.get("/scope").body)["extensions"]["tls"]
        with open(pki.path("other.pem")) as file:
            assert tls["server_cert"] == file.read()


def test_names_beyond_ascii_leave_no_traceback(secure: Callable[..., Client], pki: Pki) -> None:
    pki.save("other", "other.example")
    client = secure(
        "--ssl-sni", f"other.example={pki.path('other.pem')},{pki.path('other.key')}",
        "--log-level", "debug",
    )  # fmt: skip
    sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        pki.client().wrap_bio(received, sent, server_hostname="abcdefgh.org").do_handshake()
    with client.wire_on(client.raw()) as wire:
        wire.send(sent.read().replace(b"abcdefgh.org", b"\xff" * 12))
        assert wire.rest()[:1] == b"\x15"
    client.server.wait_for("a TLS client has asked for the name")


@pytest.fixture
def mutual(secure: Callable[..., Client], pki: Pki) -> Callable[..., Client]:
    pki.save("ada")
    Authority("Somebody Else").issue(common_name="eve").save(pki.folder, "eve")

    def start(cert_reqs: str, *options: str) -> Client:
        return secure("--ssl-cert-reqs", cert_reqs, "--ssl-ca-certs", pki.ca, *options)

    return start


def test_certificates_of_clients_may_be_required(mutual: Callable[..., Client]) -> None:
    client = mutual("required")

    tls = json.loads(client.get("/scope", identity="ada").body)["extensions"]["tls"]

    with open(client.pki.path("ada.pem")) as file:
        assert tls["client_cert_chain"][0] == file.read()
    assert tls["client_cert_name"] == "CN=ada"
    assert refused(client.connect) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert refused(lambda: client.connect("eve")) == "TLSV1_ALERT_UNKNOWN_CA"
    client.server.wait_for("peer did not return a certificate")
    client.server.wait_for("certificate verify failed: unable to get local issuer certificate")


def test_certificates_of_clients_may_be_optional(mutual: Callable[..., Client]) -> None:
    client = mutual("1")

    names = [
        json.loads(client.get("/scope", identity=who).body)["extensions"]["tls"]["client_cert_name"]
        for who in ("ada", None)
    ]

    assert names == ["CN=ada", None]
    assert refused(lambda: client.connect("eve")) == "TLSV1_ALERT_UNKNOWN_CA"


def test_a_revoked_client_is_refused(mutual: Callable[..., Client], pki: Pki) -> None:
    bob = pki.authority.issue(common_name="bob")
    bob.save(pki.folder, "bob")
    (pki.folder / "crl.pem").write_text(pki.authority.revoke(bob))
    client = mutual("required", "--ssl-crl", pki.path("crl.pem"))

    assert client.get("/numbered?1", identity="ada").body == b"1"
    assert refused(lambda: client.connect("bob")) == "SSLV3_ALERT_CERTIFICATE_REVOKED"
    client.server.wait_for("certificate verify failed: certificate revoked")


def test_an_encrypted_key_is_opened_by_the_variable(
    serve: Serve, pki: Pki, wire_on: Callable[[socket.socket], Wire]
) -> None:
    issued = pki.authority.issue("localhost", common_name="locked")
    certfile, keyfile = issued.save(pki.folder, "locked", "sesame")
    server = serve(
        "secure:app", "--ssl-certfile", certfile, "--ssl-keyfile", keyfile,
        env={"OMNICORN_SSL_KEYFILE_PASSWORD": "sesame"},
    )  # fmt: skip

    assert Client(server, pki, wire_on).shown() == "locked"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ssl-certfile", "nowhere.pem"], "omnicorn: ssl_certfile: cannot read nowhere.pem"),
        (
            ["--ssl-certfile", "{}/server.pem"],
            "omnicorn: ssl_keyfile: {}/server.pem holds a certificate and no private key",
        ),
        (["--ssl-keyfile", "a"], "omnicorn: ssl_keyfile is for TLS, which is off"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    serve: Serve, pki: Pki, options: list[str], message: str
) -> None:
    folder = str(pki.folder)
    server = serve("secure:app", *[each.format(folder) for each in options], wait=False)
    server.expected_code = 2

    assert server.wait() == 2
    [line] = server.lines
    assert line.startswith(message.format(folder))


# ------------------------------------------------------------------------------ reloading


def test_certificates_are_read_again_on_sighup_and_open_connections_stay(
    secure: Callable[..., Client], pki: Pki, loop_name: str
) -> None:
    client = secure(loop=loop_name)
    with client.connect() as wire:
        assert wire.get("/numbered?1").body == b"1"
        pki.save("renewed", "localhost")
        for suffix in (".pem", ".key"):
            (pki.folder / f"renewed{suffix}").replace(pki.folder / f"server{suffix}")
        client.server.kill(signal.SIGHUP)
        client.server.wait_for("INFO: .*TLS certificates are read again: .*server.pem")

        assert client.shown() == "renewed"
        assert wire.get("/numbered?2").body == b"2"
        assert name_in(wire) == "server"


def test_a_bad_file_is_refused_on_sighup_and_the_old_certificate_stays(
    secure: Callable[..., Client], pki: Pki
) -> None:
    client = secure()
    (pki.folder / "server.pem").write_text("nonsense")
    client.server.kill(signal.SIGHUP)

    client.server.wait_for("ERROR: .*TLS certificates stay the old ones: ssl_certfile: ")
    assert client.shown() == "server"


def test_changed_files_are_noticed(
    secure: Callable[..., Client], pki: Pki, eventually: Callable[..., Any]
) -> None:
    client = secure()
    with client.connect() as wire:
        assert wire.get("/numbered?1").body == b"1"
        pki.save("renewed", "localhost")
        for suffix in (".pem", ".key"):
            (pki.folder / f"renewed{suffix}").replace(pki.folder / f"server{suffix}")

        eventually(lambda: client.shown() == "renewed", "the new certificate is shown")

        assert client.server.matching("stay the old ones") == []
        assert wire.get("/numbered?2").body == b"2"


# ------------------------------------------------------------------------------ redirects


def plain_port(server: ServerProcess) -> int:
    line = server.wait_for("omnicorn redirects")
    return int(line.split(" to ")[0].rpartition(":")[2])


def test_plain_http_is_redirected_with_method_path_and_query(
    secure: Callable[..., Client], curl: Curl, loop_name: str
) -> None:
    client = secure("--redirect-http", "0", "--hsts", "31536000", loop=loop_name)
    port = plain_port(client.server)

    done = curl(
        "-i", "--location", "--http1.1", "--cacert", client.pki.ca,
        "--data", "x=1", f"http://localhost:{port}/echo?a=b",
    )  # fmt: skip

    first, _, second = done.stdout.partition("HTTP/1.1 200")
    assert first.startswith("HTTP/1.1 308 Permanent Redirect\r\n")
    assert f"\r\nlocation: https://localhost:{client.port}/echo?a=b\r\n" in first
    assert "strict-transport-security" not in first
    assert "\r\nstrict-transport-security: max-age=31536000\r\n" in second
    assert second.endswith("\r\n\r\nx=1")
    # One request, one line: that of the application.
    client.server.wait_for('"POST /echo')
    assert len(client.server.matching('"POST /echo')) == 1


def test_a_redirect_keeps_the_limits_of_every_request(secure: Callable[..., Client]) -> None:
    client = secure("--redirect-http", "0", "--limit-request-line", "100")
    port = plain_port(client.server)

    def ask(request: bytes) -> int:
        with client.wire_on(socket.create_connection(("127.0.0.1", port), 20)) as wire:
            wire.send(request)
            return wire.response().status

    assert ask(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n") == 308
    assert ask(b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nhost: a\r\n\r\n") == 414
    assert ask(b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n") == 400
    assert ask(b"GET / HTTP/1.0\r\n\r\n") == 400


# ------------------------------------------------------------------------------ development


def test_for_development_a_certificate_is_made_and_kept(
    serve: Serve, curl: Curl, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    fingerprints = []
    for _ in range(2):
        server = serve("secure:app", "--dev-tls", env={"XDG_CACHE_HOME": str(cache)})
        path = cache / "omnicorn" / "localhost.pem"
        line = server.wait_for(f"The certificate for localhost is {path}, SHA-256 ")
        fingerprints.append(line.rpartition(" ")[2])
        port = server.addresses[0].rpartition(":")[2]

        page = curl("--http1.1", "--cacert", str(path), f"https://localhost:{port}/")

        assert page.stdout == "hello"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        server.stop()
    assert fingerprints[0] == fingerprints[1]
    assert len(fingerprints[0]) == 95
