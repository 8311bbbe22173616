"""PROXY headers in front of HTTP/1, HTTP/2, WebSocket and TLS, in memory."""

from __future__ import annotations

import logging
import ssl
import struct
from typing import TYPE_CHECKING, Any

import pytest
from tests.certificates import Authority

from omnicorn.connections import accept
from omnicorn.connections.behind import EXTENSION
from omnicorn.connections.proxy import proxied
from omnicorn.connections.service import Timeouts
from omnicorn.runtime.tls import Handshakes
from omnicorn.security.trust import TrustedPeers
from omnicorn.transports.inproc import Peer, connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Serve = Callable[..., Any]

LINE = b"PROXY TCP4 192.0.2.1 198.51.100.1 45862 443\r\n"
PROXY = ("127.0.0.1", 7)
CLIENT, SERVER = ("192.0.2.1", 45862), ("198.51.100.1", 443)
GET = b"GET / HTTP/1.1\r\nhost: example.org\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes(3) + b"\x04" + bytes(5)
H2_GET = bytes(2) + b"\x03\x01\x05" + bytes(3) + b"\x01\x82\x84\x86"  # GET, /, http
TIMEOUTS = Timeouts(head=5.0)
AUTHORITY = Authority()


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def v2(tlvs: bytes = b"", command: int = 0x21) -> bytes:
    body = bytes([192, 0, 2, 1, 198, 51, 100, 1]) + struct.pack(">HH", 45862, 443) + tlvs
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(">BBH", command, 0x11, len(body)) + body


def tls_tlv(*parts: bytes, client: int = 1, verify: int = 0) -> bytes:
    return tlv(0x20, struct.pack(">BI", client, verify) + b"".join(parts))


class Behind:
    """A service behind a proxy; the proxy's connections are made by `peer`."""

    def __init__(self, served: Any, allowed: str, **link: Any) -> None:
        self.served = served
        self.loop = served.loop
        self.service = served.service
        self.accept: Any = accept.plain(self.service)
        self._allowed = allowed
        self._link = {"peername": PROXY, **link}
        served.peer.reset()
        served.run()

    def peer(self, **link: Any) -> Peer:
        make = proxied(self.service, self.accept, TrustedPeers(self._allowed))
        return connect(self.loop, make(), **{**self._link, **link})

    def begin(self, *segments: bytes) -> Peer:
        """A connection, and what it begins with."""
        peer = self.peer()
        for segment in segments:
            peer.send(segment)
            self.loop.run_until_idle()
        return peer

    @property
    def scopes(self) -> list[dict[str, Any]]:
        return [exchange.scope for exchange in self.served.app.exchanges]

    @property
    def ends(self) -> list[tuple[Any, Any]]:
        return [(scope["client"], scope["server"]) for scope in self.scopes]


@pytest.fixture
def behind(serve: Serve) -> Callable[..., Behind]:
    """Makes a `Behind`: ``behind(allowed="127.0.0.1", **options of the service)``."""

    def make(allowed: str = "127.0.0.1", link: Any = None, **options: Any) -> Behind:
        options.setdefault("timeouts", TIMEOUTS)
        return Behind(serve(**options), allowed, **(link or {}))

    return make


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize("header", [LINE, v2()], ids=["v1", "v2"])
def test_the_scope_names_the_addresses_of_the_header(
    behind: Callable[..., Behind], header: bytes
) -> None:
    world = behind()
    world.begin(header + GET)

    assert world.ends == [(CLIENT, SERVER)]
    assert EXTENSION not in world.scopes[0]["extensions"]


@pytest.mark.parametrize(
    "header",
    [b"PROXY UNKNOWN\r\n", v2(command=0x20)],
    ids=["v1 unknown", "v2 local"],
)
def test_a_health_check_keeps_the_real_peer(behind: Callable[..., Behind], header: bytes) -> None:
    world = behind(link={"sockname": ("127.0.0.1", 80)})
    world.begin(header + GET)

    assert world.ends == [(PROXY, ("127.0.0.1", 80))]


def test_a_client_of_a_unix_socket_has_no_address(behind: Callable[..., Behind]) -> None:
    ends = b"".ljust(108, b"\0") + b"/run/front".ljust(108, b"\0")
    header = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(">BBH", 0x21, 0x31, 216) + ends
    world = behind()
    world.begin(header + GET)

    assert world.ends == [(None, ("/run/front", None))]


@pytest.mark.parametrize("header", [LINE, v2(tlv(4, bytes(30)))], ids=["v1", "v2"])
def test_header_and_request_may_come_in_any_segments(
    behind: Callable[..., Behind], header: bytes
) -> None:
    world = behind()
    data = header + GET
    for cut in range(1, len(data)):
        world.begin(data[:cut], data[cut:])
    world.begin(*[data[at : at + 1] for at in range(len(data))])

    assert world.ends == [(CLIENT, SERVER)] * len(data)


def test_the_connection_persists_and_keeps_the_addresses(behind: Callable[..., Behind]) -> None:
    world = behind()
    peer = world.begin(LINE, GET)
    world.served.exchange.respond(body=b"one")
    peer.send(GET)
    world.loop.run_until_idle()
    world.served.exchange.respond(body=b"two")
    world.loop.run_until_idle()

    assert peer.received.endswith(b"two")
    assert world.ends == [(CLIENT, SERVER)] * 2


def test_a_forwarded_field_is_believed_of_the_client_in_the_header(
    behind: Callable[..., Behind],
) -> None:
    world = behind(trusted=TrustedPeers("192.0.2.1"))
    world.begin(LINE + GET[:-2] + b"x-forwarded-for: 203.0.113.9\r\n\r\n")

    assert world.scopes[0]["client"] == ("203.0.113.9", 0)


def test_the_proxy_itself_is_not_believed_to_be_the_client(
    behind: Callable[..., Behind],
) -> None:
    world = behind(trusted=TrustedPeers("127.0.0.1"))
    world.begin(LINE + GET[:-2] + b"x-forwarded-for: 203.0.113.9\r\n\r\n")

    assert world.scopes[0]["client"] == CLIENT


# ---------------------------------------------------------------- what follows


def test_http_2_may_follow(behind: Callable[..., Behind]) -> None:
    world = behind()
    world.begin(v2() + PREFACE + SETTINGS + H2_GET)

    assert world.scopes[0]["http_version"] == "2"
    assert world.ends == [(CLIENT, SERVER)]


def test_a_large_response_is_held_back_as_ever(behind: Callable[..., Behind]) -> None:
    world = behind(link={"window": 1000})
    peer = world.begin(LINE)
    peer.pause()
    peer.send(GET)
    world.loop.run_until_idle()
    exchange = world.served.exchange
    exchange.start()
    sent = exchange.body(bytes(500_000), more=True)

    assert not sent.done
    peer.resume()
    world.loop.run_until_idle()
    assert sent.done


def test_a_file_is_sent_past_the_wrapper(behind: Callable[..., Behind], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200_000)
    world = behind(sendfile=True)
    peer = world.begin(LINE + GET)
    exchange = world.served.exchange
    exchange.start(headers=[(b"content-length", b"200000")])
    sent = exchange.send({"type": "http.response.pathsend", "path": str(path)})
    world.loop.release_blocking()
    world.loop.run_until_idle()

    assert sent.done and sent.error is None
    assert peer.received.endswith(b"\r\n\r\n" + b"x" * 200_000)


def client_of(
    world: Behind, peer: Peer, first: bytes = b""
) -> tuple[ssl.SSLObject, Callable[[], None]]:
    """A TLS client, and what lets its bytes and ours pass; *first* goes with its first ones."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    sent.write(first)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    tls = context.wrap_bio(received, sent)

    def exchange() -> None:
        peer.send(sent.read())
        world.loop.run_until_idle()
        received.write(peer.take())

    return tls, exchange


@pytest.fixture
def secure(behind: Callable[..., Behind], tmp_path: Path) -> Behind:
    """A world in which TLS follows the header."""
    world = behind()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*AUTHORITY.issue("example.org").save(tmp_path, "server"))
    world.accept = Handshakes(
        world.loop, lambda: context, accept.secure(world.service), 5.0, world.accept
    ).accept
    return world


def shake_hands(tls: ssl.SSLObject, exchange: Callable[[], None]) -> None:
    for _ in range(5):
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            exchange()
        else:
            exchange()
            return
    raise AssertionError("the handshake does not end")


@pytest.mark.parametrize("together", [False, True])
def test_tls_may_follow(secure: Behind, together: bool) -> None:
    peer = secure.peer()
    if not together:
        peer.send(LINE)
    tls, exchange = client_of(secure, peer, LINE if together else b"")
    shake_hands(tls, exchange)
    tls.write(GET)
    exchange()

    assert secure.ends == [(CLIENT, SERVER)]
    assert secure.scopes[0]["scheme"] == "https"
    assert secure.scopes[0]["extensions"]["tls"]["tls_version"] == 0x0304


def test_our_own_tls_is_told_and_not_that_of_the_proxy(secure: Behind) -> None:
    peer = secure.peer()
    tls, exchange = client_of(secure, peer)
    peer.send(v2(tls_tlv(tlv(0x21, b"TLSv1.2")) + tlv(5, b"id")))
    shake_hands(tls, exchange)
    tls.write(GET)
    exchange()
    extensions = secure.scopes[0]["extensions"]

    assert extensions["tls"]["tls_version"] == 0x0304
    assert extensions["tls"]["server_cert"] is None
    assert extensions[EXTENSION]["unique_id"] == b"id"
    assert extensions[EXTENSION]["tls"]["version"] == "TLSv1.2"


# ---------------------------------------------------------------- who may send one


def gone(peer: Peer) -> bool:
    return peer.was_reset or peer.eof


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (GET, "the connection does not begin with a PROXY header"),
        (b"\x16\x03\x01", "the connection does not begin with a PROXY header"),
        (b"PROXY TCP4 nobody\r\n" + GET, "two addresses"),
        (b"PROXY UNKNOWN " + b"x" * 200, "longer than 107 bytes"),
    ],
)
def test_what_begins_with_no_good_header_is_cut_and_logged(
    behind: Callable[..., Behind], caplog: pytest.LogCaptureFixture, data: bytes, reason: str
) -> None:
    world = behind()
    peer = world.begin(data)

    assert gone(peer) and peer.received == b""
    assert world.scopes == []
    assert len(lines(caplog)) == 1
    assert lines(caplog)[0].startswith("127.0.0.1:7 - cut: ") and reason in lines(caplog)[0]
    assert not world.service.connections


def test_a_header_is_taken_only_of_those_allowed(
    behind: Callable[..., Behind], caplog: pytest.LogCaptureFixture
) -> None:
    world = behind("10.0.0.0/8")
    stranger = world.peer(peername=("192.0.2.7", 1))
    stranger.send(LINE + GET)
    friend = world.peer(peername=("10.1.2.3", 1))
    friend.send(LINE + GET)
    world.loop.run_until_idle()

    assert gone(stranger) and not gone(friend)
    assert world.ends == [(CLIENT, SERVER)]
    assert lines(caplog) == ["192.0.2.7:1 - cut: its address is not in proxy_allow_from"]


def test_unix_sockets_are_allowed_by_their_name(behind: Callable[..., Behind]) -> None:
    world = behind("unix")
    peer = world.peer(peername="")
    peer.send(LINE + GET)
    other = world.peer()
    world.loop.run_until_idle()

    assert world.ends == [(CLIENT, SERVER)]
    assert not gone(peer) and gone(other)


def test_refusals_are_logged_a_bounded_number_of_times(
    behind: Callable[..., Behind], caplog: pytest.LogCaptureFixture
) -> None:
    world = behind()
    for _ in range(1000):
        world.begin(GET)

    assert 0 < len(lines(caplog)) < 100


# ---------------------------------------------------------------- time, and the end


@pytest.mark.parametrize("begun", [b"", b"PROXY TCP4 192", v2()[:14]])
def test_a_header_has_the_time_of_a_head(
    behind: Callable[..., Behind], caplog: pytest.LogCaptureFixture, begun: bytes
) -> None:
    world = behind()
    peer = world.begin(begun)
    world.loop.advance(TIMEOUTS.head - 0.5)
    assert not gone(peer)
    world.loop.advance(1.0)

    assert gone(peer)
    assert not world.service.connections
    assert "no PROXY header within 5 seconds" in lines(caplog)[0]


def test_dripping_bytes_earn_no_more_time(behind: Callable[..., Behind]) -> None:
    world = behind()
    peer = world.begin()
    for at in range(7):
        peer.send(LINE[at : at + 1])
        world.loop.advance(1.0)

        if gone(peer):
            break

    assert gone(peer)


def test_the_request_behind_it_has_its_own_time(behind: Callable[..., Behind]) -> None:
    world = behind()
    peer = world.begin()
    world.loop.advance(TIMEOUTS.head - 1.0)
    peer.send(LINE)
    world.loop.advance(TIMEOUTS.head - 1.0)
    peer.send(GET)
    world.loop.run_until_idle()

    assert world.ends == [(CLIENT, SERVER)]


def test_who_only_connects_and_leaves_is_no_error(
    behind: Callable[..., Behind], caplog: pytest.LogCaptureFixture
) -> None:
    world = behind()
    peer = world.begin()
    peer.close()
    world.loop.run_until_idle()

    assert lines(caplog) == []
    assert not world.service.connections


def test_who_leaves_within_the_header_is_logged(
    behind: Callable[..., Behind], caplog: pytest.LogCaptureFixture
) -> None:
    world = behind()
    peer = world.begin(LINE[:20])
    peer.close()
    world.loop.run_until_idle()

    assert "left within the PROXY header" in lines(caplog)[0]
    assert not world.service.connections


def test_a_reset_before_the_header_leaves_nothing_behind(behind: Callable[..., Behind]) -> None:
    world = behind()
    peer = world.begin(LINE[:20])
    peer.reset()
    world.loop.run_until_idle()

    assert not world.service.connections
    world.loop.advance(60.0)


def test_a_draining_server_waits_for_no_header(behind: Callable[..., Behind]) -> None:
    world = behind()
    peer = world.begin(LINE[:20])
    idle: list[bool] = []
    world.service.drain(lambda: idle.append(True))
    world.loop.run_until_idle()

    assert gone(peer)
    assert idle == [True]
    assert gone(world.begin())


def test_a_draining_server_finishes_what_follows_a_header(behind: Callable[..., Behind]) -> None:
    world = behind()
    peer = world.begin(LINE + GET)
    idle: list[bool] = []
    world.service.drain(lambda: idle.append(True))
    world.served.exchange.respond(body=b"done")
    world.served.exchange.finish()
    world.loop.run_until_idle()

    assert peer.received.endswith(b"done")
    assert idle == [True]


def test_nothing_is_left_for_the_garbage_collector(
    behind: Callable[..., Behind], garbage: Callable[[], list[str]]
) -> None:
    world = behind()
    peer = world.begin(v2(tlv(5, b"id")) + GET)
    world.served.exchange.respond()
    world.served.exchange.finish()
    world.served.app.exchanges.clear()
    peer.close()
    world.loop.run_until_idle()
    del peer

    assert not world.service.connections
    assert "ProxiedTransport" not in garbage()
    assert "ProxyPrelude" not in garbage()


# ---------------------------------------------------------------- what TLVs mean


def test_tls_at_the_proxy_makes_the_scheme_https(behind: Callable[..., Behind]) -> None:
    world = behind()
    parts = tlv(0x21, b"TLSv1.3"), tlv(0x23, b"TLS_AES_256_GCM_SHA384"), tlv(0x25, b"EC256")
    world.begin(v2(tls_tlv(*parts)) + GET)
    scope = world.scopes[0]

    assert scope["scheme"] == "https"
    assert scope["extensions"]["tls"] == {
        "server_cert": None,
        "client_cert_chain": (),
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": 0x0304,
        "cipher_suite": 0x1302,
    }
    assert scope["extensions"][EXTENSION]["tls"]["key_alg"] == "EC256"


def test_what_else_the_header_says_is_an_extension(behind: Callable[..., Behind]) -> None:
    world = behind()
    world.begin(
        v2(tlv(1, b"h2") + tlv(2, b"example.org") + tlv(5, b"\0id") + tlv(0xEA, b"\1x")) + GET
    )
    scope = world.scopes[0]

    assert scope["scheme"] == "http"
    assert "tls" not in scope["extensions"]
    assert scope["extensions"][EXTENSION] == {
        "version": 2,
        "alpn": b"h2",
        "authority": "example.org",
        "unique_id": b"\0id",
        "netns": None,
        "tls": None,
        "others": ((0xEA, b"\1x"),),
    }


def test_http_2_behind_a_proxy_that_ends_tls_is_told_of_it(behind: Callable[..., Behind]) -> None:
    world = behind()
    world.begin(v2(tls_tlv() + tlv(5, b"id")) + PREFACE + SETTINGS + H2_GET)
    scope = world.scopes[0]

    assert (scope["http_version"], scope["scheme"]) == ("2", "https")
    assert scope["extensions"][EXTENSION]["unique_id"] == b"id"


def test_a_websocket_is_told_as_well(behind: Callable[..., Behind]) -> None:
    world = behind()
    upgrade = (
        b"GET /ws HTTP/1.1\r\nhost: example.org\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    world.begin(v2(tls_tlv() + tlv(5, b"id")) + upgrade)
    scope = world.scopes[0]

    assert (scope["type"], scope["scheme"], scope["client"]) == ("websocket", "wss", CLIENT)
    assert scope["extensions"][EXTENSION]["unique_id"] == b"id"
    assert "tls" in scope["extensions"]
