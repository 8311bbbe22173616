"""What the connections of HTTP/1.1 and HTTP/2 tell alike: who asks, and how; who is refused."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
from tests.frames import HANDSHAKE
from tests.http2_client import Http2Client, watched

from omnicorn.connections.http1 import Http1Connection
from omnicorn.connections.http2 import Http2Connection
from omnicorn.connections.service import WebSockets
from omnicorn.security.trust import TrustedPeers
from omnicorn.transports.inproc import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serve = Callable[..., Any]

VERSIONS = ("1.1", "2")


@pytest.fixture(name="serve")
def _watched_serve(serve: Serve) -> Iterator[Serve]:
    yield from watched(serve)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Client:
    """Asks, in either version."""

    def __init__(self, served: Any, version: str, **link: Any) -> None:
        self._served = served
        port = (
            Http1Connection(served.service) if version == "1.1" else Http2Connection(served.service)
        )
        self.peer = connect(served.loop, port, **link)
        self._http2: Any = Http2Client(served, self.peer) if version == "2" else None

    def ask(self, *fields: tuple[str, str], path: str = "/") -> int:
        """Send a GET; returns the status, 0 if none came yet."""
        if self._http2 is not None:
            return int(self._http2.ask(path, *fields).status)
        lines = [f"GET {path} HTTP/1.1", "host: example.org", *map(": ".join, fields), "", ""]
        return self._send("\r\n".join(lines).encode())

    def websocket(self, *fields: tuple[str, str]) -> int:
        """Ask for a WebSocket; returns the status, 0 if none came yet."""
        if self._http2 is not None:
            return int(self._http2.websocket("/ws", *fields).status)
        lines = ["GET /ws HTTP/1.1", "host: example.org", *map(": ".join, fields)]
        return self._send("\r\n".join([*lines, *HANDSHAKE, "", ""]).encode())

    def _send(self, data: bytes) -> int:
        self.peer.send(data)
        self._served.loop.run_until_idle()
        answer = self.peer.take()
        return int(answer[9:12]) if answer else 0


class TLS:
    """The little of an ``SSLObject`` that a scope tells."""

    context = ssl.create_default_context()

    def version(self) -> str:
        return "TLSv1.2"

    def cipher(self) -> tuple[str, str, int]:
        return ("ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2", 128)

    def getpeercert(self, binary_form: bool = False) -> Any:
        return None


def test_the_scopes_of_equal_requests_differ_in_nothing_but_the_version(serve: Serve) -> None:
    served = serve(root_path="/app")
    for version in VERSIONS:
        Client(served, version).ask(("accept", "*/*"), ("cookie", "a=1"), path="/a%20b?c=d")
    one, two = (exchange.scope for exchange in served.app.exchanges)
    assert (one.pop("http_version"), two.pop("http_version")) == VERSIONS
    assert two["extensions"].pop("http.response.push") == {}
    assert one == two
    assert list(one) == list(two)


def test_the_scopes_of_equal_websockets_differ_in_nothing_but_the_version(serve: Serve) -> None:
    served = serve()
    for version in VERSIONS:
        Client(served, version).websocket(("sec-websocket-protocol", "chat"))
    one, two = (exchange.scope for exchange in served.app.exchanges)
    assert (one.pop("http_version"), two.pop("http_version")) == VERSIONS
    ours = {b"upgrade", b"connection", b"sec-websocket-key"}
    headers = sorted(pair for pair in one.pop("headers") if pair[0] not in ours)
    assert headers == sorted(two.pop("headers"))
    assert one == two


@pytest.mark.parametrize(
    ("peername", "sockname", "client", "server"),
    [
        (("192.0.2.1", 5), ("192.0.2.2", 80), ("192.0.2.1", 5), ("192.0.2.2", 80)),
        (("2001:db8::1", 5, 0, 0), ("::", 80, 0, 0), ("2001:db8::1", 5), ("::", 80)),
        ("", "/run/app.sock", None, ("/run/app.sock", None)),
        (None, None, None, None),
    ],
)
def test_both_ends_of_the_connection_are_told(
    serve: Serve, version: str, peername: Any, sockname: Any, client: Any, server: Any
) -> None:
    served = serve()
    Client(served, version, peername=peername, sockname=sockname).ask()
    scope = served.exchange.scope
    assert (scope["client"], scope["server"]) == (client, server)


@pytest.mark.parametrize("asks", ["ask", "websocket"])
def test_over_tls_the_scheme_is_that_of_tls_and_its_extension_is_there(
    serve: Serve, version: str, asks: str
) -> None:
    served = serve()
    client = Client(served, version, extra={"ssl_object": TLS()})
    for _ in range(2 if asks == "ask" and version == "2" else 1):
        getattr(client, asks)()
    for exchange in served.app.exchanges:
        assert exchange.scope["scheme"] == ("https" if asks == "ask" else "wss")
        assert exchange.scope["extensions"]["tls"]["tls_version"] == 0x0303
    # What one connection offers is none of the others'.
    Client(served, version).ask()
    assert "tls" not in served.exchange.scope["extensions"]


@pytest.mark.parametrize("asks", ["ask", "websocket"])
@pytest.mark.parametrize("trusted", [True, False])
def test_a_proxy_is_believed_where_it_is_trusted(
    serve: Serve, version: str, asks: str, trusted: bool
) -> None:
    served = serve(trusted=TrustedPeers(["192.0.2.1" if trusted else "192.0.2.99"]))
    fields = (("x-forwarded-for", "203.0.113.5"), ("x-forwarded-proto", "https"))
    getattr(Client(served, version), asks)(*fields)
    scope = served.exchange.scope
    if trusted:
        assert scope["client"] == ("203.0.113.5", 0)
        assert scope["scheme"] == ("https" if asks == "ask" else "wss")
    else:
        assert scope["client"] == ("192.0.2.1", 50000)
        assert scope["scheme"] == ("http" if asks == "ask" else "ws")


def test_the_lifespans_state_is_copied_for_each(serve: Serve, version: str) -> None:
    served = serve()
    served.service.state = {"pool": [1]}
    Client(served, version).ask()
    served.exchange.scope["state"]["mine"] = 1
    Client(served, version).websocket()
    assert served.exchange.scope["state"] == {"pool": [1]}
    assert served.exchange.scope["state"]["pool"] is served.service.state["pool"]


@pytest.mark.parametrize("asks", ["ask", "websocket"])
def test_too_many_exchanges_at_once_are_503(serve: Serve, version: str, asks: str) -> None:
    served = serve(limit_concurrency=1)
    Client(served, version).ask()
    assert getattr(Client(served, version), asks)() == 503
    assert len(served.app.exchanges) == 1
    served.exchange.respond()
    served.exchange.finish()
    assert getattr(Client(served, version), asks)() == 0
    assert len(served.app.exchanges) == 2


def test_the_limit_is_that_of_all_connections_together(serve: Serve) -> None:
    served = serve(limit_concurrency=2)
    assert [Client(served, v).ask() for v in ("1.1", "2", "1.1", "2")] == [0, 0, 503, 503]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((("sec-websocket-protocol", "a b"),), 400),
        ((("sec-websocket-protocol", "chat"),), 0),
    ],
)
def test_a_handshake_is_checked_alike(serve: Serve, version: str, fields: Any, status: int) -> None:
    served = serve()
    assert Client(served, version).websocket(*fields) == status
    assert len(served.app.exchanges) == (not status)


@pytest.mark.parametrize("deflate", [True, False])
def test_compression_is_agreed_to_alike(serve: Serve, version: str, deflate: bool) -> None:
    served = serve(websockets=WebSockets(deflate=deflate))
    client = Client(served, version)
    client.websocket(("sec-websocket-extensions", "permessage-deflate"))
    served.exchange.receive()
    served.exchange.send({"type": "websocket.accept"})
    if version == "2":
        client._http2.run()
        offered = b"sec-websocket-extensions" in client._http2.streams[1].fields
    else:
        offered = b"sec-websocket-extensions" in client.peer.received
    assert offered is deflate


@pytest.mark.parametrize(
    ("peername", "name"), [(("192.0.2.1", 5), "192.0.2.1:5"), ("", "unix socket")]
)
def test_a_refusal_is_logged_with_its_peer(
    serve: Serve, caplog: pytest.LogCaptureFixture, version: str, peername: Any, name: str
) -> None:
    served = serve()
    client = Client(served, version, peername=peername)
    client.peer.send(b"\r\nnonsense\r\n\r\n" if version == "1.1" else b"\0" * 20)
    served.loop.run_until_idle()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"{name} - refused with ")
