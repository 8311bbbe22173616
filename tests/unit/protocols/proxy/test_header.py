from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import RemoteProtocolError
from omnicorn.protocols.proxy import ProxyHeader, read_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
IPV4 = bytes([192, 0, 2, 1, 198, 51, 100, 1]) + struct.pack(">HH", 45862, 443)
SOURCE, DESTINATION = ("192.0.2.1", 45862), ("198.51.100.1", 443)


def v2(body: bytes = IPV4, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


def unix(source: bytes, destination: bytes) -> bytes:
    return source.ljust(108, b"\0") + destination.ljust(108, b"\0")


V6 = (ip_address("2001:db8::1"), ip_address("2001:db8::2"))
IPV6 = V6[0].packed + V6[1].packed + struct.pack(">HH", 1, 65535)

GOOD = {
    "v1, IPv4": (
        b"PROXY TCP4 192.0.2.1 198.51.100.1 45862 443\r\n",
        ProxyHeader(1, SOURCE, DESTINATION),
    ),
    "v1, IPv6": (
        b"PROXY TCP6 2001:DB8:0::1 2001:db8::2 0 65535\r\n",
        ProxyHeader(1, ("2001:db8::1", 0), ("2001:db8::2", 65535)),
    ),
    "v1, IPv4 mapped": (
        b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 45862 443\r\n",
        ProxyHeader(1, SOURCE, DESTINATION),
    ),
    "v1, unknown": (b"PROXY UNKNOWN\r\n", ProxyHeader(1, None, None)),
    "v1, unknown and more": (
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        ProxyHeader(1, None, None),
    ),
    "v1, as long as may be": (
        b"PROXY UNKNOWN " + b"x" * (107 - 16) + b"\r\n",
        ProxyHeader(1, None, None),
    ),
    "v2, IPv4": (v2(), ProxyHeader(2, SOURCE, DESTINATION)),
    "v2, IPv4, datagrams": (v2(family=0x12), ProxyHeader(2, SOURCE, DESTINATION)),
    "v2, IPv4, unspecified transport": (v2(family=0x10), ProxyHeader(2, SOURCE, DESTINATION)),
    "v2, IPv6": (
        v2(IPV6, family=0x21),
        ProxyHeader(2, ("2001:db8::1", 1), ("2001:db8::2", 65535)),
    ),
    "v2, unix": (
        v2(unix(b"", b"/run/front.sock"), family=0x31),
        ProxyHeader(2, "", "/run/front.sock"),
    ),
    "v2, unix, abstract": (
        v2(unix(b"\0name", b"/run/" + b"x" * 103), family=0x31),
        ProxyHeader(2, "@name", "/run/" + "x" * 103),
    ),
    "v2, local": (v2(b"", 0x20, 0), ProxyHeader(2, None, None)),
    "v2, local with addresses": (v2(command=0x20), ProxyHeader(2, None, None)),
    "v2, local with something": (v2(b"junk", 0x20, 0), ProxyHeader(2, None, None)),
    "v2, unspecified": (v2(b"", family=0), ProxyHeader(2, None, None)),
    "v2, unspecified with something": (v2(b"junk", family=0), ProxyHeader(2, None, None)),
    "v2, unspecified with addresses": (v2(IPV6, family=0), ProxyHeader(2, None, None)),
}

BAD = {
    "another protocol": b"GET / HTTP/1.1\r\n",
    "TLS": b"\x16\x03\x01\x02\x00",
    "almost a signature": b"\r\n\r\n\0\r\nQUIX",
    "lower case": b"proxy TCP4",
    "v1, too long": b"PROXY UNKNOWN " + b"x" * (108 - 16) + b"\r\n",
    "v1, LF alone": b"PROXY UNKNOWN\n",
    "v1, no protocol": b"PROXY \r\n",
    "v1, unknown protocol": b"PROXY UDP4 192.0.2.1 198.51.100.1 45862 443\r\n",
    "v1, no ports": b"PROXY TCP4 192.0.2.1 198.51.100.1\r\n",
    "v1, one word too many": b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
    "v1, two spaces": b"PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n",
    "v1, IPv6 as IPv4": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "v1, IPv4 as IPv6": b"PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
    "v1, a zone": b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
    "v1, a name": b"PROXY TCP4 localhost 198.51.100.1 1 2\r\n",
    "v1, leading zeros in an address": b"PROXY TCP4 192.0.02.1 198.51.100.1 1 2\r\n",
    "v1, a port of 17 bits": b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 2\r\n",
    "v1, a port with a leading zero": b"PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
    "v1, a negative port": b"PROXY TCP4 192.0.2.1 198.51.100.1 -1 2\r\n",
    "v1, no ASCII": "PROXY TCP4 192.0.2.1 198.51.100.1 ١ 2\r\n".encode(),
    "v2, version 1": v2(command=0x11),
    "v2, unknown command": v2(command=0x22),
    "v2, unknown family": v2(family=0x41),
    "v2, unknown transport": v2(family=0x13),
    "v2, too short for IPv4": v2(IPV4[:-1]),
    "v2, too short for unix": v2(unix(b"a", b"b")[:-1], family=0x31),
    "v2, half a TLV": v2(IPV4 + b"\x04\x00"),
    "v2, a TLV that is too long": v2(IPV4 + b"\x04\x00\x02x"),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_header_is_read_and_what_follows_is_not(case: str) -> None:
    data, expected = GOOD[case]

    assert read_header(data) == (expected, len(data))
    assert read_header(bytearray(data)) == (expected, len(data))
    assert read_header(data + b"GET / HTTP/1.1\r\n\r\n") == (expected, len(data))
    assert read_header(data + data) == (expected, len(data))


@pytest.mark.parametrize("case", GOOD)
def test_a_header_is_awaited_whatever_of_it_has_come(case: str) -> None:
    data, _ = GOOD[case]

    assert [read_header(data[:cut]) for cut in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_header_is_refused(case: str) -> None:
    with pytest.raises(RemoteProtocolError, match="PROXY"):
        read_header(BAD[case])


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused_is_refused_in_any_segments(case: str) -> None:
    data = BAD[case]

    def refused() -> bool:
        for cut in range(len(data) + 1):
            try:
                assert read_header(data[:cut]) is None
            except RemoteProtocolError:
                return True
        return False

    assert refused()


@pytest.mark.parametrize("data", [b"G", b"PRI", b"PROXYX", b"\r\n\r\n\0\r\nQ\0", b"\x16"])
def test_nobody_waits_for_what_cannot_become_a_header(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="does not begin with a PROXY header"):
        read_header(data)


@pytest.mark.parametrize("data", [v2(command=0x31)[:16], v2(family=0xF1)[:16], v2(b"x")[:16]])
def test_a_wrong_beginning_is_refused_before_the_rest_comes(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_header(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    for start in (b"", b"PROXY ", b"PROXY TCP6 ", SIGNATURE, SIGNATURE + b"\x21"):
        try:
            found = read_header(start + data)
        except RemoteProtocolError:
            continue
        assert found is None or found[1] <= len(start + data)


_ports = st.integers(0, 65535)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), _ports, _ports)
def test_both_versions_say_the_same(source: object, destination: object, a: int, b: int) -> None:
    line = f"PROXY TCP4 {source} {destination} {a} {b}\r\n".encode()
    packed = ip_address(str(source)).packed + ip_address(str(destination)).packed

    first = read_header(line)
    second = read_header(v2(packed + struct.pack(">HH", a, b)))

    assert first is not None and second is not None
    assert first[0] == ProxyHeader(1, (str(source), a), (str(destination), b))
    assert second[0] == first[0]._replace(version=2)
