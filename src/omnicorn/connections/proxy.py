"""Before a connection begins: the PROXY header, then whoever speaks what follows.

This file alone decides who may send a header, how long that may take, and what the connection
behind it sees of it.

::

    transport ──▶ ProxyPrelude ── the header is complete ──▶ the connection (HTTP or TLS)
                      │                                        ▲ bytes go there directly
                      └─ nobody we know, no header, a bad one: cut

Rules:

1. A header is required of every peer, and taken only of trusted ones. Nothing is guessed: who
   may leave it out could as well write it himself.
2. What follows in the same segment belongs to the connection.
3. Afterwards nothing is between the transport and the connection but the addresses, which
   are asked for once (`ProxiedTransport`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.connections.behind import behind
from omnicorn.errors import RemoteProtocolError
from omnicorn.protocols.proxy import read_header
from omnicorn.transports.sockets import peer_address, peer_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnicorn.connections.service import Service
    from omnicorn.ports import ConnectionPort, Transport
    from omnicorn.protocols.proxy import ProxyHeader
    from omnicorn.security.trust import TrustedPeers


def proxied(
    service: Service, connect: Callable[[], ConnectionPort], trusted: TrustedPeers
) -> Callable[[], ConnectionPort]:
    """What makes the connections of sockets on which each begins with a PROXY header.

    Args:
        service: Its time for a head is a header's too, and its log of refusals.
        connect: Makes what is spoken behind the header, HTTP or TLS.
        trusted: Who may send one; everybody else is cut.
    """
    return lambda: ProxyPrelude(service, connect, trusted)


class ProxiedTransport:
    """A transport with other addresses.

    What is called for every request is the transport's own bound method.
    """

    __slots__ = (
        "_known",
        "_lower",
        "get_write_buffer_size",
        "pause_reading",
        "resume_reading",
        "write",
    )

    def __init__(self, lower: Transport, known: dict[str, Any]) -> None:
        self._lower = lower
        self._known = known
        self.write = lower.write
        self.pause_reading = lower.pause_reading
        self.resume_reading = lower.resume_reading
        self.get_write_buffer_size = lower.get_write_buffer_size

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `Transport`; `Behind` is called ``"proxy"``."""
        known = self._known.get(name)
        return self._lower.get_extra_info(name, default) if known is None else known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lower, name)


class ProxyPrelude:
    """`ConnectionPort` until the header is complete, and one of the service's connections."""

    __slots__ = ("__weakref__", "_buffer", "_connect", "_service", "_transport", "_trusted", "slot")

    def __init__(
        self, service: Service, connect: Callable[[], ConnectionPort], trusted: TrustedPeers
    ) -> None:
        self._service = service
        self._connect = connect
        self._trusted = trusted
        self._transport: Any = None
        self._buffer = b""
        self.slot = -1

    # ------------------------------------------------------------------ from the transport

    def connection_made(self, transport: Any) -> None:
        service = self._service
        self._transport = transport
        service.connections.add(self)  # type: ignore[arg-type]
        address = peer_address(transport.get_extra_info("peername"))
        if service.draining:
            self.abort()
        elif self._trusted.trusts(address[0] if address else None):
            service.deadlines.watch(self, service.now() + service.timeouts.head)
        else:
            self._refuse("its address is not in proxy_allow_from")

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._buffer:
            data = self._buffer + data
        try:
            found = read_header(data)
        except RemoteProtocolError as error:
            self._refuse(error.reason)
            return
        if found is None:
            self._buffer = data
            return
        header, size = found
        self._hand_over(header, data[size:])

    def eof_received(self) -> bool:
        # A health check that only connects leaves without a word, and is no error.
        if self._buffer:
            self._refuse("it left within the PROXY header")
        return False

    def pause_writing(self) -> None:
        """Never: nothing is written."""

    def resume_writing(self) -> None:
        """Never."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self._service.check_idle()

    # ------------------------------------------------------------------ what becomes of it

    def _hand_over(self, header: ProxyHeader, rest: bytes) -> None:
        transport = self._transport
        self._forget()
        known: dict[str, Any] = {}
        if header.source is not None:
            known = {"peername": header.source, "sockname": header.destination}
        told = behind(header)
        if told is not None:
            known["proxy"] = told
        connection = self._connect()
        transport.set_protocol(connection)
        connection.connection_made(ProxiedTransport(transport, known) if known else transport)
        if rest:
            connection.data_received(rest)

    def _refuse(self, reason: str) -> None:
        service = self._service
        peer = peer_name(peer_address(self._transport.get_extra_info("peername")))
        service.refusals(service.now(), "%s - cut: %s", peer, reason)
        self.abort()

    def _forget(self) -> None:
        service = self._service
        service.connections.discard(self)
        service.deadlines.forget(self)
        self._transport = None
        self._buffer = b""

    # ------------------------------------------------------------------ from the service

    def on_deadline(self, now: float) -> float:
        """See `Timed`; asked once, when the time is over."""
        self._refuse(f"no PROXY header within {self._service.timeouts.head:g} seconds")
        return float("inf")

    def drain(self) -> None:
        """The server stops: nothing has been asked yet."""
        self.abort()

    def disconnect(self) -> None:
        """There is no application to tell."""

    def abort(self) -> None:
        """Cut the connection."""
        transport = self._transport
        self._service.deadlines.forget(self)
        self._transport = None
        if transport is not None:
            transport.abort()
