"""What version 2 says besides addresses: type-length-value triples (§2.2.1 to §2.2.8).

What this file alone decides: which of them are understood, and that the checksum is right. What
is not understood is kept as it came: clouds have types of their own.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from omnicorn.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALPN, _AUTHORITY, _CRC32C, _NOOP, _UNIQUE_ID, _SSL, _NETNS = 1, 2, 3, 4, 5, 0x20, 0x30
_VERSION, _CN, _CIPHER, _SIG_ALG, _KEY_ALG, _CERT = 0x21, 0x22, 0x23, 0x24, 0x25, 0x28

# Bits of the SSL TLV's first byte (§2.2.6).
_CLIENT_SSL, _CLIENT_CERT = 1, 2 | 4  # over this connection, or over the session


class ProxyTLS(NamedTuple):
    """The TLS that a proxy has terminated.

    Attributes:
        version: As OpenSSL names it: ``"TLSv1.3"``; None where the proxy does not say.
        cipher: Likewise: ``"TLS_AES_128_GCM_SHA256"``.
        sig_alg: The algorithm that signed the proxy's certificate.
        key_alg: The algorithm of its key.
        has_client_cert: The client has shown a certificate.
        verify: 0 if that was found good, else an error number of OpenSSL. It says nothing
            where there is none.
        cn: The common name of its subject.
        client_cert: The certificate itself, in DER.
    """

    version: str | None
    cipher: str | None
    sig_alg: str | None
    key_alg: str | None
    has_client_cert: bool
    verify: int
    cn: str | None
    client_cert: bytes | None


class TLVs(NamedTuple):
    """Those of one header.

    Attributes:
        alpn: The protocol that the client and the proxy agreed on, ``b"h2"``.
        authority: The name the client asked for, by SNI.
        unique_id: The proxy's name for the connection, at most 128 opaque bytes.
        netns: The network namespace.
        tls: None where the client spoke plain text.
        others: Type and value of those not understood here, in order.
    """

    alpn: bytes | None = None
    authority: str | None = None
    unique_id: bytes | None = None
    netns: str | None = None
    tls: ProxyTLS | None = None
    others: tuple[tuple[int, bytes], ...] = ()


NO_TLVS = TLVs()


def read_tlvs(header: bytes, start: int) -> tuple[TLVs, int | None]:
    """Read those from *start* to the end of a header.

    Returns:
        What they say, and where the value of the checksum is, if there is one.

    Raises:
        RemoteProtocolError: One is malformed, or comes twice.
    """
    found: dict[int, bytes] = {}
    others = []
    crc = None
    for kind, at, value in _walk(header, start, len(header)):
        if kind in (_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL, _NETNS):
            if kind in found:
                raise RemoteProtocolError(f"the PROXY header holds the TLV 0x{kind:02x} twice")
            found[kind] = value
            if kind == _CRC32C:
                crc = at
        elif kind != _NOOP:
            others.append((kind, value))
    if crc is not None and len(found[_CRC32C]) != 4:
        raise RemoteProtocolError("the PROXY header's checksum does not have 4 bytes")
    unique_id = found.get(_UNIQUE_ID)
    if unique_id is not None and len(unique_id) > 128:
        raise RemoteProtocolError("the PROXY header's unique id is longer than 128 bytes")
    ssl = found.get(_SSL)
    tlvs = TLVs(
        found.get(_ALPN),
        _text(found.get(_AUTHORITY)),
        unique_id,
        _text(found.get(_NETNS)),
        None if ssl is None else _read_tls(ssl),
        tuple(others),
    )
    return tlvs, crc


def _read_tls(value: bytes) -> ProxyTLS | None:
    if len(value) < 5:
        raise RemoteProtocolError("the PROXY header's TLS part is too short")
    client = value[0]
    parts = {kind: part for kind, _, part in _walk(value, 5, len(value))}
    if not client & _CLIENT_SSL:
        return None
    return ProxyTLS(
        _text(parts.get(_VERSION)),
        _text(parts.get(_CIPHER)),
        _text(parts.get(_SIG_ALG)),
        _text(parts.get(_KEY_ALG)),
        bool(client & _CLIENT_CERT),
        int.from_bytes(value[1:5], "big"),
        _text(parts.get(_CN)),
        parts.get(_CERT),
    )


def _walk(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Type, position and value of each."""
    while at < end:
        if end - at < 3:
            raise RemoteProtocolError("the PROXY header ends within a TLV")
        kind = data[at]
        size = data[at + 1] << 8 | data[at + 2]
        at += 3
        if size > end - at:
            raise RemoteProtocolError("the PROXY header ends within a TLV")
        yield kind, at, data[at : at + size]
        at += size


def _text(value: bytes | None) -> str | None:
    """What is to be UTF-8 or ASCII; anything else must not break whoever logs it."""
    return None if value is None else value.decode("utf-8", "backslashreplace")


# --------------------------------------------------------------------------- the checksum


def check_crc32c(header: bytes, at: int) -> None:
    """Compare the checksum at *at* with that of the header with zeros in its place (§2.2.3).

    Raises:
        RemoteProtocolError: They differ.
    """
    plain = b"%b\0\0\0\0%b" % (header[:at], header[at + 4 :])
    if crc32c(plain) != int.from_bytes(header[at : at + 4], "big"):
        raise RemoteProtocolError("the PROXY header's checksum is wrong")


def crc32c(data: bytes) -> int:
    """The CRC-32C of RFC 9260 appendix A, which `zlib` does not have."""
    table = _table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)
