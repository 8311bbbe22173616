from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import RemoteProtocolError
from omnicorn.protocols.proxy import ProxyTLS, TLVs, read_header
from omnicorn.protocols.proxy.tlvs import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterable

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
IPV4 = bytes([192, 0, 2, 1, 198, 51, 100, 1]) + struct.pack(">HH", 45862, 443)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def header(tlvs: bytes, family: int = 0x11) -> bytes:
    body = (IPV4 if family else b"") + tlvs
    return SIGNATURE + struct.pack(">BBH", 0x21, family, len(body)) + body


def read(tlvs: bytes) -> TLVs:
    found = read_header(header(tlvs))
    assert found is not None
    return found[0].tlvs


def with_checksum(tlvs: bytes) -> bytes:
    data = header(tlvs + tlv(3, bytes(4)))
    return data[:-4] + struct.pack(">I", crc32c(data))


TLS = tlv(0x21, b"TLSv1.3") + tlv(0x23, b"TLS_AES_128_GCM_SHA256")


def test_all_that_is_known_is_read() -> None:
    tls = b"\x01" + bytes(4) + TLS + tlv(0x24, b"SHA256") + tlv(0x25, b"RSA2048")

    assert read(
        tlv(1, b"h2")
        + tlv(2, "exämple.org".encode())
        + tlv(4, b"nothing" * 9)
        + tlv(5, b"\0\1\2")
        + tlv(0x20, tls)
        + tlv(0x30, b"blue")
    ) == TLVs(
        b"h2",
        "exämple.org",
        b"\0\1\2",
        "blue",
        ProxyTLS("TLSv1.3", "TLS_AES_128_GCM_SHA256", "SHA256", "RSA2048", False, 0, None, None),
    )


def test_a_client_certificate_is_told() -> None:
    value = b"\x03" + struct.pack(">I", 18) + tlv(0x22, b"Ada") + tlv(0x28, b"DER")
    tls = read(tlv(0x20, value)).tls

    assert tls is not None
    assert (tls.has_client_cert, tls.verify, tls.cn, tls.client_cert) == (True, 18, "Ada", b"DER")
    assert tls.version is None


def test_without_the_client_bit_there_was_no_tls() -> None:
    assert read(tlv(0x20, bytes(5))).tls is None


def test_what_is_unknown_is_kept() -> None:
    aws = b"\x01vpce-08d2bf15fac5001c9"

    assert read(tlv(0xEA, aws) + tlv(4, b"") + tlv(0xF1, b"")).others == ((0xEA, aws), (0xF1, b""))


def test_tlvs_may_follow_no_addresses() -> None:
    found = read_header(header(tlv(5, b"id"), family=0))

    assert found is not None
    assert (found[0].source, found[0].tlvs.unique_id) == (None, b"id")


def test_text_that_is_none_does_no_harm() -> None:
    assert read(tlv(2, b"\xff\x00")).authority == "\\xff\x00"


@pytest.mark.parametrize(
    "tlvs",
    [
        tlv(1, b"h2") * 2,
        tlv(5, bytes(129)),
        tlv(0x20, bytes(4)),
        tlv(0x20, b"\x01" + bytes(4) + b"\x21\x00\x05TLS"),
        tlv(0x20, b"\x01" + bytes(4) + b"\x21\x00"),
        tlv(3, bytes(3)),
        tlv(3, bytes(4)) * 2,
        b"\x01",
    ],
)
def test_a_malformed_tlv_is_refused(tlvs: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="PROXY header"):
        read_header(header(tlvs))


# ---------------------------------------------------------------- the checksum


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # RFC 3720 §B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_the_checksum_is_that_of_iscsi(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


def test_a_right_checksum_is_accepted() -> None:
    found = read_header(with_checksum(tlv(5, b"id")))

    assert found is not None and found[0].tlvs.unique_id == b"id"


def test_a_flipped_bit_is_found() -> None:
    data = with_checksum(tlv(5, b"id"))
    # Addresses, the unique id, and the checksum itself.
    for at in [*range(16, 28), len(data) - 8, len(data) - 1]:
        flipped = bytearray(data)
        flipped[at] ^= 0x10
        with pytest.raises(RemoteProtocolError, match="checksum is wrong"):
            read_header(flipped)


# ---------------------------------------------------------------- beside another parser


_texts = st.text(st.characters(codec="utf-8"), max_size=40)
_ascii = st.text(st.characters(codec="ascii"), max_size=40)


@given(
    st.booleans(),
    st.fixed_dictionaries(
        {},
        optional={
            "alpn": st.binary(min_size=1, max_size=20),
            "authority": _texts,
            "unique_id": st.binary(max_size=128),
            "netns": _ascii,
        },
    ),
    st.none()
    | st.fixed_dictionaries(
        {"has_ssl": st.just(True), "has_cert_conn": st.booleans()},
        optional={"version": _ascii, "cn": _texts, "cipher": _ascii, "key_alg": _ascii},
    ),
)
def test_the_proxy_protocol_package_writes_what_is_read_here(
    checksum: bool, said: dict[str, Any], ssl: dict[str, Any] | None
) -> None:
    pytest.importorskip("proxyprotocol", reason="needs proxy-protocol")
    from ipaddress import IPv4Address

    from proxyprotocol.result import ProxyResultIPv4
    from proxyprotocol.tlv import ProxyProtocolSSLTLV, ProxyProtocolTLV
    from proxyprotocol.v2 import ProxyProtocolV2

    parts = None if ssl is None else ProxyProtocolSSLTLV(**ssl)
    tlvs = ProxyProtocolTLV(auto_crc32c=checksum, ssl=parts, **said)
    data = ProxyProtocolV2().pack(
        ProxyResultIPv4(
            (IPv4Address("192.0.2.1"), 45862), (IPv4Address("198.51.100.1"), 443), tlv=tlvs
        )
    )
    found = read_header(data + b"GET")

    assert found is not None
    head, size = found
    assert size == len(data)
    assert head.source == ("192.0.2.1", 45862)
    read = head.tlvs
    assert {name: value for name, value in said.items() if getattr(read, name) != value} == {}
    assert (read.tls is None) == (ssl is None)
    if ssl is not None and read.tls is not None:
        assert read.tls.has_client_cert == ssl["has_cert_conn"]
        names: Iterable[str] = ssl.keys() - {"has_ssl", "has_cert_conn"}
        assert {name: getattr(read.tls, name) for name in names} == {n: ssl[n] for n in names}
