"""Trusted peers, and what their forwarding headers say about the client.

This file alone decides which address, scheme and host a request is given when it came through
proxies. All of it is pure: values in, values out; nothing here raises on what a peer sent.

The rule. Each proxy appends, at the right, the peer it saw. So the right-most entry was
written by our own peer, which the caller knows to be trusted. Walk from the right: an entry is
believed because a trusted hop wrote it; if the entry itself names a trusted hop, the one to
its left may be believed too. The first hop that is not trusted is the client; if all are
trusted it is the left-most. ``*`` trusts every hop, so whatever the client claims at the left
wins: use it only where nobody but a proxy that *replaces* the header can connect.

1. What cannot be read (an empty entry, ``unknown``, an obfuscated name, a wrong port) ends the
   walk at the last hop that could; nothing to its left is vouched for by anyone known.
2. A walk looks at ``_HOPS`` entries at most, and an element of ``Forwarded`` is at most
   ``_ELEMENT`` bytes: time is linear in the header, whatever the client put at the left.
3. ``X-Forwarded-For`` and ``-Proto`` win: ``Forwarded`` (RFC 7239) is read only where neither
   is there. Most proxies keep the former alone and hand a client's own ``Forwarded`` through
   untouched. A proxy that keeps only ``Forwarded`` must drop the other two.
4. Equal header values parse to equal results, so results are kept in bounded tables.

``Forwarded`` is read from the right as well, for a client may leave a quotation mark open at
the left. The text after a comma is an element if it matches the grammar as a whole, otherwise
the comma may stand inside a quoted string and the text after the next one is tried. That is
exact: a text that starts inside a quoted string holds an odd number of delimiting quotation
marks, and its escaped ones would stand where the grammar has no backslash; it never matches.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network

__all__ = ["Resolved", "TrustedPeers", "resolve", "resolve_fields"]

_HOPS: Final = 64  # longer chains of proxies do not exist; longer headers do
_ELEMENT: Final = 1024  # bytes
_COMMAS: Final = 16  # inside the quoted strings of one element
_KEPT: Final = 1024  # entries of a table
_KEPT_KEY: Final = 256  # bytes of a header value that is worth keeping

_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ipv4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}").fullmatch
# No zone: it would name an interface of the proxy, and could hold anything.
_ipv6_shape = re.compile(r"[0-9A-Fa-f:.]{2,45}").fullmatch
_node = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::([0-9]{1,5}))?").fullmatch

# RFC 7239 §4, with the empty pairs it allows, and tolerant of the two mistakes that are common:
# blanks around ";", and addresses with ":" or "[" that are not quoted.
_VALUE: Final = r'(?:"(?:[^"\\]|\\.)*+"|[^\s";,\\=]*+)'
_PAIR: Final = rf"[!#$%&'*+.^_`|~0-9A-Za-z-]++={_VALUE}"
_element = re.compile(rf"[ \t]*+(?:{_PAIR})?+(?:[ \t]*+;[ \t]*+(?:{_PAIR})?+)*+[ \t]*+").fullmatch
_pairs = re.compile(rf"([!#$%&'*+.^_`|~0-9A-Za-z-]++)=({_VALUE})").findall
_unescape = re.compile(r"\\(.)").sub

# RFC 3986 §3.2.2, without userinfo: nothing that would move the path of a URL built from it.
_host = re.compile(
    r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._~!$&'()*+,;=%-]{1,255})(?::[0-9]{0,5})?"
).fullmatch

_SCHEMES: Final = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
_WEBSOCKET: Final = {"http": "ws", "https": "wss"}

Client = tuple[str, int]


Resolved = tuple[Client | None, str, str | None]
"""What a request is to be told about where it came from: client, scheme, host.

The client's port is 0 where the proxy gave none; a unix socket's peer stays None if nobody
names another. The scheme is of the family of the peer's: http or https, ws or wss. The host
is the Host the client used, where ``Forwarded`` says it; using it is the caller's choice.
"""


class _Claim(NamedTuple):
    """What a header says; None where it says nothing believable."""

    client: Client | None
    scheme: str | None
    host: str | None


_NO_CLAIM: Final = _Claim(None, None, None)


class TrustedPeers:
    """Who may speak for others.

    Args:
        entries: Addresses (``127.0.0.1``, ``::1``), networks (``10.0.0.0/8``), ``unix`` (peers
            on unix sockets), ``localhost`` (both loopback addresses), ``*`` (everybody). A
            single text is split at its commas. IPv4 entries match IPv4-mapped IPv6 peers too.

    Raises:
        ConfigError: An entry is none of these.
    """

    __slots__ = ("_claims", "_exact", "_known", "_networks", "_schemes", "everybody")

    def __init__(self, entries: Iterable[str]) -> None:
        self.everybody = False
        self._exact: dict[str | None, bool] = {None: False}
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in entries.split(",") if isinstance(entries, str) else entries:
            self._add(entry.strip())
        self._known = dict(self._exact)
        self._claims: dict[tuple[bytes, bool], _Claim] = {}
        self._schemes: dict[bytes, str | None] = {}

    def _add(self, entry: str) -> None:
        if entry == "*":
            self.everybody = self._exact[None] = True
        elif entry == "unix":
            self._exact[None] = True
        elif entry == "localhost":
            self._exact["127.0.0.1"] = self._exact["::1"] = True
        elif entry == "::1" or _ipv4(entry):
            self._exact[entry] = True
        elif entry:
            network = _network(entry)
            if network.prefixlen == network.max_prefixlen:
                self._exact[str(network.network_address)] = True
            else:
                self._networks.append(network)

    def trusts(self, host: str | None) -> bool:
        """Whether a peer is trusted.

        Args:
            host: Its address as text; None for a peer on a unix socket.
        """
        verdict = self._known.get(host)
        return self._decide(host) if verdict is None else verdict

    def _decide(self, host: str | None) -> bool:
        if self.everybody:
            return True
        if host is None or len(host) > 128:
            return False
        verdict = self._matches(host)
        if len(self._known) >= _KEPT:
            self._known = dict(self._exact)
        self._known[host] = verdict
        return verdict

    def _matches(self, host: str) -> bool:
        if _ipv4(host):
            plain = host  # and not among the exact ones, or it would be known
        else:
            canonical = _canonical_ipv6(host.partition("%")[0])  # a peer may have a zone
            if canonical is None:
                return False
            plain = canonical
            if self._exact.get(plain):
                return True
        if not self._networks:
            return False
        from ipaddress import ip_address

        address = ip_address(plain)
        return any(address in network for network in self._networks)

    # -- what trusted peers claim, kept

    def _claim(self, value: bytes, standard: bool) -> _Claim:
        key = (value, standard)
        claim = self._claims.get(key)
        if claim is None:
            claim = _forwarded(value, self) if standard else _x_forwarded_for(value, self)
            if len(value) <= _KEPT_KEY:
                if len(self._claims) >= _KEPT:
                    self._claims.clear()
                self._claims[key] = claim
        return claim

    def _scheme(self, value: bytes) -> str | None:
        try:
            return self._schemes[value]
        except KeyError:
            scheme = _SCHEMES.get(value[value.rfind(b",") + 1 :].strip(b" \t").lower())
            if len(value) <= _KEPT_KEY:
                if len(self._schemes) >= _KEPT:
                    self._schemes.clear()
                self._schemes[value] = scheme
            return scheme


def resolve(
    headers: Sequence[tuple[bytes, bytes]],
    peer_client: Client | None,
    peer_scheme: str,
    trusted: TrustedPeers,
) -> Resolved:
    """Client, scheme and host of a request, as its peer says if the peer is trusted.

    Args:
        headers: The request's fields in order, names in lower case.
        peer_client: Host and port of the connection's other end; None for a unix socket.
        peer_scheme: http, https, ws or wss, as the connection itself is.
        trusted: Whom to believe.
    """
    if not trusted.trusts(peer_client[0] if peer_client else None):
        return peer_client, peer_scheme, None
    return resolve_fields(dict(headers), headers, peer_client, peer_scheme, trusted)


def resolve_fields(
    fields: Mapping[bytes, bytes],
    headers: Sequence[tuple[bytes, bytes]],
    peer_client: Client | None,
    peer_scheme: str,
    trusted: TrustedPeers,
) -> Resolved:
    """As `resolve`, for a peer that the caller already found to be trusted.

    Args:
        fields: The last value of each field of ``headers``; these are looked at only if some
            field occurs more than once.
        headers: As for `resolve`.
        peer_client: As for `resolve`.
        peer_scheme: As for `resolve`.
        trusted: As for `resolve`.
    """
    client: Client | None
    host: str | None = None
    scheme: str | None = None
    value = fields.get(b"x-forwarded-for")
    proto = fields.get(b"x-forwarded-proto")
    if value is None and proto is None:
        value = fields.get(b"forwarded")
        if value is None:
            return peer_client, peer_scheme, None
        if len(fields) != len(headers):
            value = _joined(headers, b"forwarded")
        client, scheme, host = trusted._claim(value, True)
    else:
        client = None
        if value is not None:
            if len(fields) != len(headers):
                value = _joined(headers, b"x-forwarded-for")
            client = trusted._claim(value, False)[0]
        if proto is not None:
            # The right-most value is in the last line of the field: `fields` is enough.
            scheme = trusted._scheme(proto)
    if scheme is None:
        scheme = peer_scheme
    elif peer_scheme[0] == "w":
        scheme = _WEBSOCKET[scheme]
    return (peer_client if client is None else client), scheme, host


def _joined(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes:
    """All lines of a field as one list (RFC 9110 §5.3)."""
    return b",".join([value for key, value in headers if key == name])


# ------------------------------------------------------------------------------- the two walks


def _x_forwarded_for(value: bytes, trusted: TrustedPeers) -> _Claim:
    found: Client | None = None
    # One more than is looked at, so that the unsplit rest is never taken for an entry.
    for entry in reversed(value.decode("latin-1").rsplit(",", _HOPS)[-_HOPS:]):
        client = _address(entry.strip(" \t"))
        if client is None:
            break
        found = client
        if not trusted.trusts(client[0]):
            break
    return _NO_CLAIM if found is None else _Claim(found, None, None)


def _forwarded(value: bytes, trusted: TrustedPeers) -> _Claim:
    text = value.decode("latin-1")
    client: Client | None = None
    scheme = host = None
    end = len(text)
    for _ in range(_HOPS):
        start = _element_start(text, end)
        if start is None:
            break
        pairs = _pairs(text, start, end)
        said = {name.lower(): content for name, content in pairs}
        if len(said) != len(pairs):  # RFC 7239 §4: each parameter once per element
            break
        # Whoever wrote this element is trusted, so its view of the request counts even where
        # it does not name its peer. Further left is nearer to the client, and wins.
        scheme = _SCHEMES.get(_unquoted(said.get("proto", "")).lower().encode("latin-1"), scheme)
        claimed = _unquoted(said.get("host", ""))
        if _host(claimed):
            host = claimed
        hop = _address(_unquoted(said.get("for", "")))
        if hop is None:
            break
        client = hop
        if start == 0 or not trusted.trusts(hop[0]):
            break
        end = start - 1  # the comma
    return _Claim(client, scheme, host)


def _element_start(text: str, end: int) -> int | None:
    """Where the element that ends at ``end`` begins; None if what is there is none."""
    limit = max(0, end - _ELEMENT)
    comma = end
    for _ in range(_COMMAS):
        comma = text.rfind(",", limit, comma)
        if comma < 0 and limit:
            return None
        if _element(text, comma + 1, end):
            return comma + 1
        if comma < 0:
            return None
    return None


def _unquoted(value: str) -> str:
    return _unescape(r"\1", value[1:-1]) if value[:1] == '"' else value


# ---------------------------------------------------------------------------------- addresses


def _address(text: str) -> Client | None:
    """An address with or without a port (0 if without), or None."""
    if _ipv4(text):
        return text, 0
    match = _node(text)
    if match is None:
        # More than one colon and no brackets: IPv6 as X-Forwarded-For has it.
        host = _canonical_ipv6(text)
        return None if host is None else (host, 0)
    bracketed, plain, digits = match.groups()
    if bracketed is not None:
        host = _canonical_ipv6(bracketed)
    else:
        host = plain if _ipv4(plain) else None
    port = int(digits or 0)
    return None if host is None or port > 65535 else (host, port)


def _canonical_ipv6(text: str) -> str | None:
    """IPv6 in its one canonical spelling (RFC 5952), IPv4-mapped as IPv4; None if not IPv6."""
    if not _ipv6_shape(text) or ":" not in text:
        return None
    if text[:7].lower() == "::ffff:" and _ipv4(text[7:]):
        return text[7:]
    from ipaddress import IPv6Address

    try:
        address = IPv6Address(text)
    except ValueError:
        return None
    return str(address.ipv4_mapped or address)


def _network(entry: str) -> IPv4Network | IPv6Network:
    from ipaddress import IPv4Network, ip_network

    try:
        network = ip_network(entry)
    except ValueError as error:
        raise ConfigError(
            f"trusted proxies: {entry!r} is not an address, a network such as 10.0.0.0/8, unix, "
            f"localhost or * ({error})",
            option="forwarded_allow_ips",
        ) from None
    mapped = network.version == 6 and network.network_address.ipv4_mapped
    if mapped and network.prefixlen >= 96:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network
