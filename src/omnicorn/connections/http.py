"""What the connections of every HTTP version decide alike: who is asking, and how that is told.

The client's address and the scheme (believed from a proxy where it is trusted), the server's
address, TLS; the scope of a request; what is answered without asking the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.bridge.http import HTTPCycle
from omnicorn.bridge.scope import http_scope, websocket_scope
from omnicorn.connections.bytestream import ByteStreamConnection
from omnicorn.security.trust import resolve_fields
from omnicorn.transports.sockets import local_address, peer_address, peer_name

if TYPE_CHECKING:
    from omnicorn.bridge.scope import Address, ServerAddress
    from omnicorn.bridge.websocket import SocketCarrier, WebSocketCycle
    from omnicorn.bridge.wsgi import WsgiCycle
    from omnicorn.connections.service import Service
    from omnicorn.errors import HandshakeRefused, RemoteProtocolError
    from omnicorn.observability.logs import RateLimited
    from omnicorn.ports import RequestHead, Stream
    from omnicorn.security.trust import TrustedPeers


_OF_CONNECTION = ("tls", "omnicorn.proxy")


class HTTPConnection(ByteStreamConnection):
    """A connection that carries requests.

    Args:
        service: Shared by the connections of a server.
        timing: What the first deadline is for.
    """

    __slots__ = ("_client", "_extensions", "_scheme", "_secure", "_server", "_trusted")

    def __init__(self, service: Service, timing: int) -> None:
        super().__init__(service, timing)
        self._client: Address | None = None
        self._server: ServerAddress | None = None
        self._scheme = "http"
        self._secure = False  # TLS is ours, not of a proxy in front
        self._trusted: TrustedPeers | None = None
        self._extensions = service.extensions

    def _meet(self, transport: Any) -> None:
        """A peer has connected: who is it, and by which way?"""
        service = self._service
        self._transport = transport
        self._client = peer_address(transport.get_extra_info("peername"))
        self._server = local_address(transport.get_extra_info("sockname"))
        trusted = service.trusted
        if trusted is not None and trusted.trusts(self._client[0] if self._client else None):
            self._trusted = trusted
        behind = transport.get_extra_info("proxy")
        if behind is not None:  # what its PROXY header said besides addresses
            self._extensions = {**service.extensions, **behind.extensions}
            self._scheme = behind.scheme or "http"
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            from omnicorn.security.tls import tls_extension

            self._secure = True
            self._scheme = "https"
            self._extensions = {**self._extensions, "tls": dict(tls_extension(ssl_object))}
        service.connections.add(self)  # type: ignore[arg-type]  # one of the subclasses

    def _origin(self, head: RequestHead) -> tuple[Address | None, str]:
        """The client and the scheme of one request."""
        if head.forwarded and self._trusted is not None:
            client, scheme, _ = resolve_fields(
                head.fields, head.headers, self._client, self._scheme, self._trusted
            )
            return client, scheme
        return self._client, self._scheme

    def _http_cycle(self, stream: Stream, head: RequestHead) -> HTTPCycle | WsgiCycle:
        """The exchange of an ordinary request."""
        service = self._service
        client = self._client
        scheme = self._scheme
        if head.forwarded and self._trusted is not None:
            client, scheme = self._origin(head)
        if service.wsgi is not None:
            return service.wsgi.cycle(stream, self, head, scheme, client, self._server)  # type: ignore[arg-type]
        scope = http_scope(
            head,
            scheme,
            client,
            self._server,
            service.root_path,
            service.state,
            self._extensions,
        )
        return HTTPCycle(service.app, scope, stream, self, not head.has_body)  # type: ignore[arg-type]

    def _websocket_cycle(
        self, stream: Stream, head: RequestHead, carrier: SocketCarrier, keyed: bool
    ) -> WebSocketCycle:
        """The exchange of a WebSocket's handshake.

        Raises:
            HandshakeRefused: It cannot become one.
        """
        # Imported with the first of them: every other server starts 8 ms earlier.
        from omnicorn.bridge.websocket import EXTENSIONS, WebSocketCycle
        from omnicorn.protocols.websocket import parse_offer

        service = self._service
        settings = service.websockets
        offer = parse_offer(head, keyed=keyed, deflate=settings.deflate)
        client, scheme = self._origin(head)
        # What is known of the connection; what is offered for HTTP is not offered here.
        known = {key: self._extensions[key] for key in _OF_CONNECTION if key in self._extensions}
        extensions = {**EXTENSIONS, **known} if known else EXTENSIONS
        scope = websocket_scope(
            head,
            scheme,
            client,
            self._server,
            service.root_path,
            service.state,
            extensions,
            offer.subprotocols,
        )
        return WebSocketCycle(
            service.app, scope, stream, carrier, offer, settings.max_queue, settings.max_size
        )

    def _turn_away(self, cycle: Any, refusal: HandshakeRefused | None = None) -> None:
        """Answer an exchange without asking the application.

        Args:
            cycle: Of the exchange.
            refusal: Why, and with what; None: there are too many at once.
        """
        cycle.finished = True
        if refusal is None:
            cycle.refuse(503, b"Service Unavailable", [(b"retry-after", b"1")])
        else:
            cycle.refuse(refusal.status, refusal.reason.encode(), refusal.headers)

    def _log_refusal(
        self, error: RemoteProtocolError, answer: int | str, log: RateLimited | None = None
    ) -> None:
        """Tell the operator why a peer was refused; a bounded number of times.

        Args:
            error: What it did.
            answer: What it got: a status, or an error code's name.
            log: Of refusals of this kind; those of connections without it.
        """
        service = self._service
        (log or service.refusals)(
            service.now(),
            "%s - refused with %s: %s",
            peer_name(self._client),
            answer,
            error.reason,
        )
