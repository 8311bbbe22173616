"""``Upgrade: h2c``: a request of HTTP/1.1 as HTTP/2's first (RFC 7540 §3.2).

RFC 9113 no longer has it, and clients still send it (``curl --http2``, Java's HttpClient).
A server may always answer such a request by HTTP/1.1; so whatever is odd is no error.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from omnicorn.errors import Http2Error
from omnicorn.http.fields import list_tokens
from omnicorn.protocols.http2.settings import PeerSettings

if TYPE_CHECKING:
    from omnicorn.ports import RequestHead

_match_base64url = re.compile(rb"[A-Za-z0-9_-]*").fullmatch

_HOP_BY_HOP = frozenset(
    {b"connection", b"upgrade", b"http2-settings", b"keep-alive", b"proxy-connection", b"te"}
)


def read_settings(head: RequestHead) -> bytes | None:
    """The SETTINGS payload of a request that asks for h2c; None where it is not sound."""
    values = [value for name, value in head.headers if name == b"http2-settings"]
    options = [
        token
        for name, value in head.headers
        if name == b"connection"
        for token in list_tokens(value)
    ]
    if len(values) != 1 or b"http2-settings" not in options or head.version != "1.1":
        return None
    coded = values[0].rstrip(b"=")
    if _match_base64url(coded) is None:
        return None
    try:
        settings = base64.urlsafe_b64decode(coded + b"=" * (-len(coded) % 4))
    except (binascii.Error, ValueError):
        return None
    try:
        PeerSettings().update(settings)
    except Http2Error:
        return None
    return settings


def as_http2(head: RequestHead) -> tuple[tuple[bytes, bytes], ...]:
    """The request's fields as HTTP/2 carries them (RFC 9113 §8.3.1)."""
    target = head.raw_path + (b"?" + head.query if head.query else b"")
    pseudo = [(b":method", head.method.encode()), (b":scheme", b"http"), (b":path", target)]
    host = head.fields.get(b"host")
    if host:  # HTTP/1.1 allows an empty one
        pseudo.append((b":authority", host))
    named = {
        token
        for name, value in head.headers
        if name == b"connection"
        for token in list_tokens(value)
    }
    left_out = _HOP_BY_HOP | named | {b"host"}
    return (*pseudo, *((name, value) for name, value in head.headers if name not in left_out))
