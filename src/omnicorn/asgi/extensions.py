"""Extensions: what a server offers beyond the base specification, ``scope["extensions"]``.

The presence of a key offers the extension; its value holds parameters, usually none. The
messages that an extension adds are with the other events, in ``events``. Rules of
``scopes`` apply, the evaluated annotations among them.
"""

from collections.abc import Iterable
from typing import Any, NotRequired, TypedDict

__all__ = ["Extensions", "TLSExtension"]


class TLSExtension(TypedDict):
    """``extensions["tls"]`` (TLS extension 0.2): offered on TLS connections and on no other.

    Certificates are PEM texts. ``client_cert_chain`` starts with the client's own certificate
    and is empty if it sent none; ``client_cert_name`` is that certificate's subject as an RFC
    4514 text, and must be given along with a chain. ``tls_version`` and ``cipher_suite`` are
    the numbers on the wire: 0x0304 is TLS 1.3, 0x1301 is TLS_AES_128_GCM_SHA256. None means
    that the server cannot tell.
    """

    server_cert: str | None
    client_cert_chain: NotRequired[Iterable[str]]
    client_cert_name: NotRequired[str | None]
    client_cert_error: NotRequired[str | None]
    tls_version: int | None
    cipher_suite: int | None


Extensions = TypedDict(
    "Extensions",
    {
        "tls": TLSExtension,
        "http.response.trailers": dict[str, Any],
        "http.response.early_hint": dict[str, Any],
        "http.response.pathsend": dict[str, Any],
        "http.response.zerocopysend": dict[str, Any],
        "http.response.push": dict[str, Any],
        "http.response.debug": dict[str, Any],
        "websocket.http.response": dict[str, Any],
    },
    total=False,
)
"""Every extension of the specification. A private one is read through ``Mapping[str, object]``,
which this type also is."""
