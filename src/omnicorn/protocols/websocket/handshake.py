"""The opening handshake (RFC 6455 §4.2), apart from what carries it.

Decided here: what a request must say to become a WebSocket, which answer it gets when it
does not, and which fields accept it. Over HTTP/1.1 that is an ``Upgrade`` with a key; over
HTTP/2 and HTTP/3 (RFC 8441, RFC 9220) there is no key, and the rest is the same.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

from omnicorn.errors import HandshakeRefused, LocalProtocolError
from omnicorn.http.fields import match_token
from omnicorn.protocols.websocket.deflate import Agreement, negotiate

if TYPE_CHECKING:
    from omnicorn.ports import Headers, RequestHead

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_match_key = re.compile(rb"[A-Za-z0-9+/]{22}==").fullmatch  # 16 bytes in base64

_OURS = frozenset(
    {
        b"connection",
        b"upgrade",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
    }
)


class Offer(NamedTuple):
    """What a client offers.

    Attributes:
        key: Its key; empty where the carrier has none.
        subprotocols: In its order of preference.
        deflate: The parameters of permessage-deflate to agree to, if it offers it.
    """

    key: bytes
    subprotocols: list[str]
    deflate: Agreement | None


def parse_offer(head: RequestHead, keyed: bool, deflate: bool) -> Offer:
    """Read the handshake of a request that asks for a WebSocket.

    Args:
        head: The request.
        keyed: The carrier is HTTP/1.1.
        deflate: Whether to agree to permessage-deflate.

    Raises:
        HandshakeRefused: With the status and fields that answer it.
    """
    if keyed and head.method != "GET":
        raise HandshakeRefused("a WebSocket is asked for with GET", 405, [(b"allow", b"GET")])
    if keyed and head.has_body:
        raise HandshakeRefused("a request for a WebSocket has no content")
    if _only(head, b"sec-websocket-version") != b"13":
        raise HandshakeRefused(
            "the WebSocket version spoken here is 13",
            426,
            [
                (b"sec-websocket-version", b"13"),
                (b"upgrade", b"websocket"),  # RFC 9110 §15.5.22
                (b"connection", b"upgrade"),
            ],
        )
    key = _only(head, b"sec-websocket-key") if keyed else b""
    if keyed and _match_key(key) is None:
        raise HandshakeRefused("sec-websocket-key must be one key of 16 bytes in base64")
    subprotocols = []
    for member in _list(head, b"sec-websocket-protocol"):
        if match_token(member) is None:
            raise HandshakeRefused("sec-websocket-protocol holds what is no token")
        subprotocols.append(member.decode("ascii"))
    agreement = None
    if deflate and b"sec-websocket-extensions" in head.fields:
        offers = b",".join(_list(head, b"sec-websocket-extensions"))
        agreement = negotiate(offers.decode("latin-1"))
    return Offer(key, subprotocols, agreement)


def accepting_fields(
    offer: Offer, subprotocol: str | None, headers: Headers
) -> list[tuple[bytes, bytes]]:
    """The fields of the response that opens the WebSocket.

    Args:
        offer: What the client offered.
        subprotocol: The application's choice.
        headers: Its further fields.

    Raises:
        LocalProtocolError: The choice was not offered, or a field is the server's to send.
    """
    fields = []
    if offer.key:
        accept = base64.b64encode(hashlib.sha1(offer.key + _GUID, usedforsecurity=False).digest())
        fields.append((b"sec-websocket-accept", accept))
    if subprotocol is not None:
        if subprotocol not in offer.subprotocols:
            raise LocalProtocolError(
                f"the subprotocol {subprotocol!r:.80} was not offered; offered were: "
                + (", ".join(offer.subprotocols)[:200] or "none")
            )
        fields.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
    if offer.deflate is not None:
        fields.append((b"sec-websocket-extensions", offer.deflate.answer))
    try:
        for name, value in headers:
            if name.lower() in _OURS:
                raise LocalProtocolError(
                    f"the field {name!r} is the server's to send"
                    + (": give 'subprotocol'" if name.lower().endswith(b"protocol") else "")
                )
            fields.append((name, value))
    except (TypeError, ValueError, AttributeError):
        raise LocalProtocolError(
            f"headers must be (name, value) pairs of bytes, not {headers!r:.80}"
        ) from None
    return fields


def _only(head: RequestHead, name: bytes) -> bytes:
    """The value of a field that may stand once; empty if it does not."""
    values = [value for key, value in head.headers if key == name]
    return values[0] if len(values) == 1 else b""


def _list(head: RequestHead, name: bytes) -> list[bytes]:
    """The members of every field called *name*, in order; empty ones dropped."""
    return [
        member
        for key, value in head.headers
        if key == name
        for part in value.split(b",")
        if (member := part.strip(b" \t"))
    ]
