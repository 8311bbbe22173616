"""TLS as the configuration wants it: contexts, handshakes, and who keeps count of them.

What this file alone decides: which context the next connection gets, how a failed handshake is
logged, and what becomes of the unfinished ones when the server stops: they are cut, because
no request can be lost with them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from omnicorn.observability.logs import RateLimited
from omnicorn.security.tls import Certificates, Settings
from omnicorn.transports.sockets import peer_address, peer_name
from omnicorn.transports.tls import TLSTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ssl import SSLContext

    from omnicorn.config import Config
    from omnicorn.ports import ConnectionPort, Loop

logger = logging.getLogger("omnicorn.error")


class OwnContext:
    """A program's context in the place of `Certificates`: always the same."""

    def __init__(self, context: SSLContext) -> None:
        self._context = context

    def current(self) -> SSLContext:
        return self._context

    def reload(self) -> None:
        """Nothing: no file is known."""


def make_certificates(
    config: Config, alpn: Sequence[str], clock: Callable[[], float]
) -> Certificates | OwnContext:
    """Load what a configuration names.

    Raises:
        ConfigError: A file, a password or a cipher is wrong.
    """
    if config.ssl_context is not None:
        return OwnContext(config.ssl_context)
    certfile = config.ssl_certfile
    if certfile is None:
        from omnicorn.security.dev_tls import development_certificate

        certfile, fingerprint = development_certificate()
        logger.info("The certificate for localhost is %s, SHA-256 %s", certfile, fingerprint)
    return Certificates(
        Settings(
            certfile,
            config.ssl_keyfile,
            config.ssl_keyfile_password,
            tuple(config.ssl_sni),
            config.ssl_cert_reqs,
            config.ssl_ca_certs,
            config.ssl_crl,
            config.ssl_protocol_min,
            config.ssl_ciphers,
            alpn,
        ),
        clock,
    )


class Handshakes:
    """Makes connections of accepted sockets, and of those whose handshake is complete.

    Args:
        loop: The loop port.
        context: Asked for each connection.
        connect: Makes the connection on a TLS transport.
        timeout: Seconds of a handshake.
        refuse: Makes the connection of whoever comes when the server has stopped; it closes.
    """

    def __init__(
        self,
        loop: Loop,
        context: Callable[[], SSLContext],
        connect: Callable[[Any], ConnectionPort],
        timeout: float,
        refuse: Callable[[], ConnectionPort],
    ) -> None:
        self._loop = loop
        self._context = context
        self._connect = connect
        self._timeout = timeout
        self._refuse = refuse
        self._unfinished: set[TLSTransport] = set()
        self._closed = False
        self._failures = RateLimited(logger.info)

    def accept(self) -> ConnectionPort:
        """What an accepted connection talks to."""
        if self._closed:
            return self._refuse()
        transport = TLSTransport(
            self._loop, self._context(), self._finished, self._timeout, self._failed
        )
        self._unfinished.add(transport)
        return transport

    def _finished(self, transport: TLSTransport) -> ConnectionPort:
        self._unfinished.discard(transport)
        return self._connect(transport)

    def _failed(self, transport: TLSTransport, level: str, reason: str) -> None:
        self._unfinished.discard(transport)
        peer = peer_name(peer_address(transport.get_extra_info("peername")))
        if level == "debug":
            logger.debug("%s - %s", peer, reason)
        else:
            self._failures(self._loop.time(), "%s - %s", peer, reason)

    def close(self) -> None:
        """Cut what is unfinished; connections go on."""
        self._closed = True
        # Not at once: one that was accepted in this iteration has no transport yet.
        self._loop.call_soon(self._cut)

    def _cut(self) -> None:
        for transport in tuple(self._unfinished):
            transport.abort()
