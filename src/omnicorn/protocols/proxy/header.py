"""The header in front of a connection's bytes: where it ends, and whose addresses it names.

::

    v1   PROXY TCP4 192.0.2.1 198.51.100.1 45862 443 CRLF        at most 107 bytes
    v2   signature (12) | version, command | family, transport | length (2) | addresses | TLVs

Invariants:

1. What no header can begin with is refused at its first wrong byte: nobody waits for the rest
   of something else.
2. A header that keeps the real peer (v1 UNKNOWN, v2 LOCAL and UNSPEC: health checks, and what
   a proxy cannot name) is as good as any other.
3. Addresses have the form that a transport's ``peername`` has, so nothing behind this file
   can tell one from the other.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, TypeAlias

from omnicorn.errors import RemoteProtocolError
from omnicorn.protocols.proxy.tlvs import NO_TLVS, TLVs, check_crc32c, read_tlvs

Endpoint: TypeAlias = "tuple[str, int] | str"
"""Host and port; or the path of a unix socket, ``""`` for one without a name."""

_V1 = b"PROXY "
_V1_MOST = 107  # bytes with CRLF, §2.1
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

_fixed = struct.Struct(">12xBBH").unpack_from
_inet = struct.Struct(">4s4sHH").unpack_from
_inet6 = struct.Struct(">16s16sHH").unpack_from
_unix = struct.Struct(">108s108s").unpack_from

# Bytes of the addresses, by the upper half of the 14th byte (§2.2).
_UNSPEC, _INET, _INET6, _UNIX = range(4)
_SIZES = (0, 12, 36, 216)


class ProxyHeader(NamedTuple):
    """What a proxy said of a connection.

    Attributes:
        version: 1 or 2.
        source: The client; None: the transport's own peer is meant.
        destination: Where it had connected to; None together with *source*.
        tlvs: What version 2 may add.
    """

    version: int
    source: Endpoint | None
    destination: Endpoint | None
    tlvs: TLVs = NO_TLVS


def read_header(data: bytes | bytearray) -> tuple[ProxyHeader, int] | None:
    """Read the header that a connection begins with.

    Args:
        data: Everything received so far.

    Returns:
        The header and how many bytes it has; None while it is incomplete.

    Raises:
        RemoteProtocolError: It is none, or it is malformed.
    """
    if data.startswith(_SIGNATURE):
        return _read_v2(data)
    if data.startswith(_V1):
        return _read_v1(data)
    if _V1.startswith(data) or _SIGNATURE.startswith(data):
        return None
    raise RemoteProtocolError("the connection does not begin with a PROXY header")


# ------------------------------------------------------------------------------- version 1


def _read_v1(data: bytes | bytearray) -> tuple[ProxyHeader, int] | None:
    end = data.find(b"\n", 0, _V1_MOST)
    if end < 0:
        if len(data) >= _V1_MOST:
            raise RemoteProtocolError(f"the PROXY line is longer than {_V1_MOST} bytes")
        return None
    line = bytes(data[:end])
    if not line.endswith(b"\r"):
        raise RemoteProtocolError("the PROXY line does not end with CRLF")
    size = end + 1
    words = line[:-1].split(b" ")
    if words[1] == b"UNKNOWN":  # §2.1: whatever follows is ignored
        return ProxyHeader(1, None, None), size
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise RemoteProtocolError("the PROXY line does not name a protocol and two addresses")
    _, family, source, destination, source_port, destination_port = words
    address: type[IPv4Address | IPv6Address] = IPv4Address if family == b"TCP4" else IPv6Address
    try:
        return (
            ProxyHeader(
                1,
                (_host(address, source), _port(source_port)),
                (_host(address, destination), _port(destination_port)),
            ),
            size,
        )
    except ValueError:
        raise RemoteProtocolError(
            f"the PROXY line holds no {family.decode()} addresses and ports"
        ) from None


def _host(address: type[IPv4Address | IPv6Address], text: bytes) -> str:
    if b"%" in text:  # Python knows zones, the protocol does not
        raise ValueError(text)
    return _text(address(text.decode("ascii")))


def _text(address: IPv4Address | IPv6Address) -> str:
    """The one spelling of an address; an IPv4-mapped one is an IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _port(text: bytes) -> int:
    """§2.1: decimal, no leading zeros."""
    if not text.isdigit() or len(text) > 5 or (text[0] == 0x30 and len(text) > 1):
        raise ValueError(text)
    number = int(text)
    if number > 65535:
        raise ValueError(text)
    return number


# ------------------------------------------------------------------------------- version 2


def _read_v2(data: bytes | bytearray) -> tuple[ProxyHeader, int] | None:
    if len(data) < 16:
        return None
    command, family, length = _fixed(data)
    # What cannot be right is refused before the rest has come.
    if command >> 4 != 2:
        raise RemoteProtocolError(f"the PROXY header has the version {command >> 4}, not 2")
    if command & 15 > 1:
        raise RemoteProtocolError(f"the PROXY header has the unknown command {command & 15}")
    if family >> 4 > _UNIX or family & 15 > 2:
        raise RemoteProtocolError(f"the PROXY header has the unknown family 0x{family:02x}")
    # §2.2: of LOCAL the family is ignored, whatever it says. The transport says nothing about
    # the addresses, and some leave it unspecified.
    kind = family >> 4 if command & 15 else _UNSPEC
    if length < _SIZES[kind]:
        raise RemoteProtocolError(f"the PROXY header is too short for its family: {length} bytes")
    size = 16 + length
    if len(data) < size:
        return None
    header = bytes(data[:size])
    if not command & 15:
        return ProxyHeader(2, None, None), size
    source, destination = _addresses(kind, header)
    start = 16 + _SIZES[kind]
    if start == size:
        return ProxyHeader(2, source, destination), size
    try:
        tlvs, crc = read_tlvs(header, start)
    except RemoteProtocolError:
        if kind != _UNSPEC:
            raise
        return ProxyHeader(2, None, None), size  # §2.2: what they are, the proxy alone knows
    if crc is not None:
        check_crc32c(header, crc)
    return ProxyHeader(2, source, destination, tlvs), size


def _addresses(kind: int, header: bytes) -> tuple[Endpoint | None, Endpoint | None]:
    if kind == _UNSPEC:
        return None, None
    if kind == _UNIX:
        source, destination = _unix(header, 16)
        return _path(source), _path(destination)
    unpack = _inet if kind == _INET else _inet6
    address: type[IPv4Address | IPv6Address] = IPv4Address if kind == _INET else IPv6Address
    source, destination, source_port, destination_port = unpack(header, 16)
    return (_text(address(source)), source_port), (_text(address(destination)), destination_port)


def _path(padded: bytes) -> str:
    """A path, NUL-padded; an abstract name begins with NUL, and is written with ``@``."""
    if padded[:1] == b"\0" and padded.strip(b"\0"):
        return "@" + padded[1:].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return padded.partition(b"\0")[0].decode("utf-8", "surrogateescape")
