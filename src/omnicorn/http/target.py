"""The request target (RFC 9112 §3.2): which of its four forms, and the parts ASGI asks for."""

from __future__ import annotations

import re
from functools import lru_cache

from omnicorn.errors import RemoteProtocolError
from omnicorn.http.fields import is_host

# Visible ASCII without "#": a fragment is never sent (RFC 9112 §3.2), the rest of ASCII
# is let through because browsers send | ^ { } " unencoded.
match_target = re.compile(rb"[\x21\x22\x24-\x7e]+").fullmatch

_split_absolute = re.compile(rb"(?i:https?)://([^/?]*)([^?]*)(?:\?(.*))?").fullmatch
_sub_illegal = re.compile(rb"[^A-Za-z0-9\-._~!$&'()*+,;=:@/]").sub
_sub_escape = re.compile(rb"%([0-9A-Fa-f]{2})").sub


def decode_path(raw: bytes) -> str:
    """Percent-decode, then UTF-8-decode; what is no UTF-8 becomes U+FFFD, as elsewhere."""
    if b"%" in raw:
        raw = _sub_escape(_unescape, raw)
        return raw.decode("utf-8", "replace")
    return raw.decode("ascii")


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes((int(match[1], 16),))


@lru_cache(maxsize=16)
def encode_path(path: str) -> bytes:
    """Percent-encode what is not allowed in a path (RFC 3986 §3.3), after encoding as UTF-8."""
    return _sub_illegal(lambda match: b"%%%02X" % ord(match[0]), path.encode())


_unsendable = re.compile(rb"[^\x21-\x7e]|#").sub


def parse_target(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Split a request target.

    Returns:
        The raw path, the query, and for absolute-form the authority that replaces the
        ``host`` field (RFC 9112 §3.2.2), else None.

    Raises:
        RemoteProtocolError: With 501 for CONNECT, else 400.
    """
    if method == b"CONNECT":
        raise RemoteProtocolError("CONNECT: no tunnel is offered", 501)
    if target[:1] == b"/":  # origin-form, §3.2.1
        path, _, query = target.partition(b"?")
        return path, query, None
    if target == b"*":  # asterisk-form, §3.2.4
        if method != b"OPTIONS":
            raise RemoteProtocolError("the target * is for OPTIONS alone")
        return b"*", b"", None
    match = _split_absolute(target)  # absolute-form, §3.2.2
    if match is None:
        raise RemoteProtocolError("the request target has none of the allowed forms")
    authority, path, query = match.groups(b"")
    # RFC 9110 §4.2.1 (no empty host) and §4.2.4 (userinfo is an error).
    if not authority or authority[:1] == b":" or not is_host(authority):
        raise RemoteProtocolError("the request target's authority is malformed")
    if not path:
        path = b"*" if method == b"OPTIONS" and not query else b"/"
    return path, query, authority


def as_target(path: str) -> bytes:
    """A decoded path, with its query if it has one, as a request target."""
    return _unsendable(lambda found: b"%%%02X" % found[0][0], path.encode())
