"""Which protocol a new connection speaks.

=================  ==========================================================
over TLS           what its handshake agreed on by ALPN (RFC 7301); HTTP/1.1 without
plain              HTTP/1.1, which hands over to HTTP/2 when a client begins with its preface
                   or asks for it by ``Upgrade``
plain, HTTP/2 only HTTP/2 by prior knowledge
of a gateway       SCGI, uwsgi or FastCGI, as the address was bound
=================  ==========================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.connections.http1 import Http1Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnicorn.connections.service import Service
    from omnicorn.ports import ConnectionPort


def plain(service: Service) -> Callable[[], ConnectionPort]:
    """What makes the connections of plain sockets."""
    if service.http2.only:
        from omnicorn.connections.http2 import Http2Connection

        return lambda: Http2Connection(service)
    return lambda: Http1Connection(service)


def gateway(service: Service, scheme: str) -> Callable[[], ConnectionPort]:
    """What makes the connections of front servers, which speak *scheme*: ``"scgi"``,
    ``"uwsgi"`` or ``"fastcgi"``."""
    if scheme == "fastcgi":
        from omnicorn.connections import fastcgi

        return fastcgi.acceptor(service)
    from omnicorn.connections import gateway

    if scheme == "scgi":
        from omnicorn.protocols.scgi import ScgiEngine

        return gateway.acceptor(service, ScgiEngine)
    from omnicorn.protocols.uwsgi import UwsgiEngine

    return gateway.acceptor(service, UwsgiEngine)


def secure(service: Service) -> Callable[[Any], ConnectionPort]:
    """What makes the connection of a transport whose TLS handshake is complete."""

    def connect(transport: Any) -> ConnectionPort:
        agreed = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        if agreed == "h2" or service.http2.only:
            from omnicorn.connections.http2 import Http2Connection

            return Http2Connection(service)
        return Http1Connection(service)

    return connect


def alpn(service: Service) -> tuple[str, ...]:
    """What is offered in handshakes, the preferred protocol first."""
    if not service.http2.enabled:
        return ("http/1.1",)
    return ("h2",) if service.http2.only else ("h2", "http/1.1")
