"""What proxies in front say about a request, put into its scope.

What this file alone decides: whom to believe, by the number of hops or by their addresses, and
which keys of the scope change. The fields are read by `omnicorn.security.trust`, as for the
server's own option, which gives ``client`` and ``scheme`` alone.

1. Every proxy appends at the right, so fields are read from the right: as many entries as there
   are hops, or entries of trusted addresses and one more. ``X-Forwarded-Proto``, ``-Host`` and
   ``-Prefix``, which proxies set rather than append to, may have fewer entries than hops.
2. ``Forwarded`` (RFC 7239) is read where neither ``X-Forwarded-For`` nor ``-Proto`` is there.
3. What cannot be read is as if it was not there; nothing is half believed.
4. Host and prefix are believed only if asked: a proxy that does not know those fields hands
   those of the client through.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from omnicorn.http.fields import is_host
from omnicorn.http.target import decode_path
from omnicorn.security.trust import TrustedPeers, resolve_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from omnicorn.middleware.answers import Receive, Send
    from omnicorn.toolkit.compatibility import SingleCallable

    Headers = Sequence[tuple[bytes, bytes]]

__all__ = ["ProxyFix"]

_FOR = b"x-forwarded-for"
_PROTO = b"x-forwarded-proto"
_HOST = b"x-forwarded-host"
_PREFIX = b"x-forwarded-prefix"
_FORWARDED = b"forwarded"
_FIELDS = frozenset({_FOR, _PROTO, _HOST, _PREFIX, _FORWARDED})

# RFC 3986 §3.3, without the comma: it separates the entries of a list.
_match_prefix = re.compile(rb"(?:/(?:[A-Za-z0-9\-._~!$&'()*+;=:@]|%[0-9A-Fa-f]{2})+)+").fullmatch


class _Hops(TrustedPeers):
    """So many hops, whoever they are; for one request."""

    __slots__ = ("_left",)

    def __init__(self, hops: int) -> None:
        super().__init__(())
        self._left = hops

    def trusts(self, host: str | None) -> bool:
        self._left -= 1
        return self._left > 0


class ProxyFix:
    """An ASGI application that tells another one who its clients are.

    Sets the scope's ``client`` and ``scheme``, and what else is asked for, from ``Forwarded`` or
    ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``-Prefix``. Give *hops* or *trusted*.

    Args:
        app: The ASGI 3 application.
        hops: The number of proxies in front, 1 to 64, each of which appends to the field. Only
            where nobody can connect but through them: who connects is not looked at.
        trusted: Addresses and networks of the proxies, as for `TrustedPeers`:
            ``["10.0.0.0/8", "unix"]``.
        host: Set the ``host`` header, too. Only if the outermost proxy sets or removes the field
            that tells it: a client could claim any host otherwise.
        prefix: Put ``X-Forwarded-Prefix``, which a proxy has taken from the path, back in front
            of ``root_path`` and the path. Only if the proxy sets or removes that field.

    Raises:
        ValueError: Neither or both of *hops* and *trusted*, *hops* out of range, or (a
            `ConfigError`) an entry that is no address.
    """

    __slots__ = ("_app", "_hops", "_set_host", "_set_prefix", "_trusted")

    def __init__(
        self,
        app: SingleCallable,
        *,
        hops: int | None = None,
        trusted: str | Iterable[str] | None = None,
        host: bool = False,
        prefix: bool = False,
    ) -> None:
        if (hops is None) is (trusted is None):
            raise ValueError(
                "ProxyFix: say whom to believe, by either hops=1 (the number of proxies) or "
                "trusted=['10.0.0.0/8'] (their addresses)"
            )
        if hops is not None and not 0 < hops <= 64:
            raise ValueError(f"ProxyFix: hops is a number from 1 to 64, not {hops!r}")
        self._app = app
        self._hops = hops or 1
        self._trusted = None if trusted is None else TrustedPeers(trusted)
        self._set_host = host
        self._set_prefix = prefix

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Call the application, with a changed copy of *scope* if there is something to change."""
        if scope["type"] in ("http", "websocket"):
            headers: Headers = [*scope["headers"]]
            fields = dict(headers)
            client = scope.get("client")
            if not _FIELDS.isdisjoint(fields) and (
                self._trusted is None or self._trusted.trusts(client[0] if client else None)
            ):
                scope = self._fixed(scope, headers, fields)
        await self._app(scope, receive, send)

    def _fixed(self, scope: Any, headers: Headers, fields: dict[bytes, bytes]) -> dict[str, Any]:
        if _PROTO in fields:
            fields[_PROTO] = self._entry(headers, _PROTO)
        client, scheme, named = resolve_fields(
            fields,
            headers,
            scope.get("client"),
            scope.get("scheme", "http" if scope["type"] == "http" else "ws"),
            _Hops(self._hops) if self._trusted is None else self._trusted,
        )
        fixed = {**scope, "client": client, "scheme": scheme, "headers": headers}
        if self._set_host:
            if _FORWARDED in fields and _FOR not in fields and _PROTO not in fields:
                host = named.encode("latin-1") if named else b""
            else:
                host = self._entry(headers, _HOST)
            if host and host[:1] != b":" and is_host(host):
                fixed["headers"] = [(b"host", host), *(p for p in headers if p[0] != b"host")]
        if self._set_prefix:
            _put_back(fixed, self._entry(headers, _PREFIX).rstrip(b"/"))
        return fixed

    def _entry(self, headers: Headers, name: bytes) -> bytes:
        """Of a list of which each hop wrote one entry at most, the outermost hop's; or nothing."""
        value = b",".join([value for key, value in headers if key == name])
        return value.rsplit(b",", self._hops)[-self._hops :][0].strip(b" \t")


def _put_back(scope: dict[str, Any], prefix: bytes) -> None:
    """Put the *prefix* that a proxy has taken away in front of a scope's paths."""
    if scope["path"] == "*" or _match_prefix(prefix) is None:  # "*" is the server as a whole
        return
    decoded = decode_path(prefix)
    segments = decoded.split("/")
    # Of escapes only those that hide nothing: no slash, no control character, no bad UTF-8.
    hidden = len(segments) != prefix.count(b"/") + 1 or not decoded.isprintable()
    if hidden or "\ufffd" in decoded or "." in segments or ".." in segments:
        return
    scope["root_path"] = decoded + scope.get("root_path", "")
    scope["path"] = decoded + scope["path"]
    if scope.get("raw_path"):
        scope["raw_path"] = prefix + scope["raw_path"]
