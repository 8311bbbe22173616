"""What the scopes of a connection are told of what its PROXY header said besides addresses.

This file alone decides which keys ``extensions["omnicorn.proxy"]`` has, and when TLS that a proxy
has ended makes a connection one of ``https``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from omnicorn.protocols.proxy import ProxyHeader

EXTENSION = "omnicorn.proxy"
"""In ``scope["extensions"]``, where a header of version 2 carried more than addresses."""


class Behind(NamedTuple):
    """What TLVs mean to requests: ``transport.get_extra_info("proxy")``.

    Attributes:
        scheme: ``"https"`` where the proxy has terminated TLS, else None.
        extensions: For scopes.
    """

    scheme: str | None
    extensions: dict[str, dict[str, Any]]


def behind(header: ProxyHeader) -> Behind | None:
    """What there is to tell; None: only addresses."""
    tlvs = header.tlvs
    if not any(tlvs):
        return None
    told: dict[str, Any] = {
        "version": header.version,
        "alpn": tlvs.alpn,
        "authority": tlvs.authority,
        "unique_id": tlvs.unique_id,
        "netns": tlvs.netns,
        "tls": None,
        "others": tlvs.others,
    }
    extensions = {EXTENSION: told}
    tls = tlvs.tls
    if tls is None:
        return Behind(None, extensions)
    from omnicorn.security.tls import told_extension

    told["tls"] = {**tls._asdict()}
    verify = tls.verify if tls.has_client_cert else 0
    extensions["tls"] = dict(told_extension(tls.version, tls.cipher, tls.client_cert, verify))
    return Behind("https", extensions)
