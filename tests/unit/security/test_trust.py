"""Trust: who may speak for the client, and what is believed of what they say."""

from __future__ import annotations

import subprocess
import sys
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import ConfigError
from omnicorn.security.trust import Resolved, TrustedPeers, resolve, resolve_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

PEER = ("127.0.0.1", 50000)
PROXIES = ("127.0.0.1", "10.0.0.0/8", "2001:db8:aaaa::/48")


def behind(
    *lines: tuple[str, str | bytes],
    trusted: Iterable[str] = PROXIES,
    peer: tuple[str, int] | None = PEER,
    scheme: str = "http",
) -> Resolved:
    headers = [
        (name.encode(), value if isinstance(value, bytes) else value.encode("latin-1"))
        for name, value in lines
    ]
    return resolve(headers, peer, scheme, TrustedPeers(trusted))


def x_forwarded_for(*values: str, trusted: Iterable[str] = PROXIES) -> tuple[str, int] | None:
    return behind(*(("x-forwarded-for", value) for value in values), trusted=trusted)[0]


def forwarded(*values: str, trusted: Iterable[str] = PROXIES) -> tuple[str, int] | None:
    return behind(*(("forwarded", value) for value in values), trusted=trusted)[0]


class TestTrustedPeers:
    @pytest.mark.parametrize(
        ("entries", "host", "verdict"),
        [
            (["127.0.0.1"], "127.0.0.1", True),
            (["127.0.0.1"], "127.0.0.2", False),
            (["127.0.0.1"], "::ffff:127.0.0.1", True),
            (["127.0.0.1"], "::FFFF:7f00:1", True),
            (["127.0.0.1"], "::1", False),
            (["::1"], "::1", True),
            (["::1"], "0:0:0:0:0:0:0:1", True),
            (["2001:DB8::0:1"], "2001:db8::1", True),
            (["fe80::1"], "fe80::1%eth0", True),
            (["fe80::/10"], "fe80::7%eth0", True),
            (["10.0.0.0/8"], "10.255.0.1", True),
            (["10.0.0.0/8"], "::ffff:10.0.0.1", True),
            (["10.0.0.0/8"], "11.0.0.1", False),
            (["10.0.0.0/8"], "2001:db8::1", False),
            (["::ffff:10.0.0.0/104"], "10.1.2.3", True),
            (["::ffff:10.0.0.9"], "10.0.0.9", True),
            (["0.0.0.0/0"], "::1", False),
            (["10.0.0.1/32"], "10.0.0.1", True),
            (["localhost"], "::1", True),
            (["unix"], None, True),
            (["unix"], "127.0.0.1", False),
            (["127.0.0.1"], None, False),
            (["*"], None, True),
            (["*"], "whatever", True),
            ([], "127.0.0.1", False),
            (["10.0.0.0/8"], "", False),
            (["10.0.0.0/8"], "10.0.0.01", False),
            (["10.0.0.0/8"], "10.0.0.1\n", False),
            (["10.0.0.0/8"], "1" * 1000, False),
            (["127.0.0.1"], "testclient", False),
        ],
    )
    def test_a_peer_is_trusted_if_an_entry_covers_it(
        self, entries: list[str], host: str | None, verdict: bool
    ) -> None:
        trusted = TrustedPeers(entries)
        assert [trusted.trusts(host), trusted.trusts(host)] == [verdict, verdict]

    def test_one_text_is_split_at_its_commas(self) -> None:
        trusted = TrustedPeers("127.0.0.1, unix ,,10.0.0.0/8")
        assert trusted.trusts(None) and trusted.trusts("10.1.1.1") and trusted.trusts("127.0.0.1")

    @pytest.mark.parametrize("entry", ["10.0.0.1/8", "proxy.internal", "10.0.0", "::1/129", "**"])
    def test_an_entry_that_means_nothing_is_refused(self, entry: str) -> None:
        with pytest.raises(ConfigError, match="trusted proxies") as caught:
            TrustedPeers(["127.0.0.1", entry])
        assert repr(entry) in str(caught.value)
        assert caught.value.option == "forwarded_allow_ips"

    def test_it_says_whether_everybody_is_trusted(self) -> None:
        assert TrustedPeers("*").everybody
        assert not TrustedPeers("0.0.0.0/0").everybody

    def test_what_peers_send_never_grows_a_table_without_bound(self) -> None:
        trusted = TrustedPeers(["10.0.0.0/8", "127.0.0.1"])
        for n in range(5000):
            resolve(
                [
                    (b"x-forwarded-for", b"10.1.%d.%d" % (n >> 8, n & 255)),
                    (b"x-forwarded-proto", b"http%d" % n),
                ],
                PEER,
                "http",
                trusted,
            )
        tables = (trusted._known, trusted._claims, trusted._schemes)
        assert all(100 < len(table) <= 1024 for table in tables)
        assert trusted.trusts("127.0.0.1")

    def test_long_values_are_not_kept(self) -> None:
        trusted = TrustedPeers("*")
        headers = [(b"x-forwarded-for", b"1.1.1.1," * 100), (b"x-forwarded-proto", b"x" * 999)]
        resolve(headers, PEER, "http", trusted)
        assert not trusted._claims and not trusted._schemes

    def test_ipaddress_is_not_loaded_for_plain_addresses(self) -> None:
        code = (
            "import sys\n"
            "from omnicorn.security.trust import *\n"
            "t = TrustedPeers(['127.0.0.1', '::1', 'unix'])\n"
            "resolve([(b'x-forwarded-for', b'192.0.2.1')], ('127.0.0.1', 1), 'http', t)\n"
            "t.trusts('::ffff:192.0.2.1')\n"
            "sys.exit('ipaddress' in sys.modules)\n"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestWalk:
    """The rules that both families of headers share."""

    @pytest.mark.parametrize(
        ("chain", "client"),
        [
            (["192.0.2.1"], "192.0.2.1"),
            (["192.0.2.1", "10.0.0.1"], "192.0.2.1"),
            (["192.0.2.1", "10.0.0.2", "10.0.0.1"], "192.0.2.1"),
            # What stands left of the first untrusted hop is that hop's own invention.
            (["6.6.6.6", "192.0.2.1"], "192.0.2.1"),
            (["127.0.0.1", "192.0.2.1", "10.0.0.1"], "192.0.2.1"),
            (["10.0.0.9", "192.0.2.1"], "192.0.2.1"),
            # All trusted: the left-most.
            (["10.0.0.3", "10.0.0.2"], "10.0.0.3"),
            # Unreadable: the last hop that could be read, or the peer.
            (["6.6.6.6", "unknown", "10.0.0.1"], "10.0.0.1"),
            (["6.6.6.6", "_hidden"], "127.0.0.1"),
            (["unknown"], "127.0.0.1"),
            (["6.6.6.6", "not an address"], "127.0.0.1"),
            (["6.6.6.6", "unix:"], "127.0.0.1"),
            (["6.6.6.6", "999.1.1.1"], "127.0.0.1"),
            (["6.6.6.6", "010.0.0.1"], "127.0.0.1"),
        ],
    )
    def test_the_right_most_untrusted_hop_is_the_client(
        self, chain: list[str], client: str
    ) -> None:
        one = ", ".join(chain)
        expected = (client, PEER[1] if client == PEER[0] else 0)
        assert x_forwarded_for(one) == expected
        assert x_forwarded_for(*chain) == expected  # a line each
        elements = [f'for="{hop}"' for hop in chain]
        assert forwarded(", ".join(elements)) == expected
        assert forwarded(*elements) == expected

    def test_trusting_everybody_believes_the_left_most(self) -> None:
        assert x_forwarded_for("6.6.6.6, 192.0.2.1", trusted="*") == ("6.6.6.6", 0)
        assert forwarded("for=6.6.6.6, for=192.0.2.1", trusted="*") == ("6.6.6.6", 0)

    def test_an_untrusted_peer_changes_nothing(self) -> None:
        assert behind(
            ("forwarded", "for=6.6.6.6;proto=https;host=evil"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            peer=("203.0.113.1", 9),
        ) == (("203.0.113.1", 9), "http", None)

    def test_a_peer_on_a_trusted_unix_socket_speaks_for_the_client(self) -> None:
        headers = ("x-forwarded-for", "192.0.2.1")
        assert behind(headers, peer=None, trusted=["unix"])[0] == ("192.0.2.1", 0)
        assert behind(headers, peer=None, trusted=["127.0.0.1"])[0] is None
        assert behind(peer=None, trusted=["unix"]) == (None, "http", None)

    def test_without_headers_the_peer_is_the_client(self) -> None:
        assert behind(("host", "x")) == (PEER, "http", None)

    def test_at_most_64_hops_are_believed(self) -> None:
        chain = [f"10.0.1.{n}" for n in range(100)]
        assert x_forwarded_for(",".join(chain)) == ("10.0.1.36", 0)
        assert forwarded(",".join(f"for={hop}" for hop in chain)) == ("10.0.1.36", 0)

    @pytest.mark.parametrize(
        ("text", "client"),
        [
            ("192.0.2.1:8080", ("192.0.2.1", 8080)),
            ("192.0.2.1:0", ("192.0.2.1", 0)),
            ("192.0.2.1:65535", ("192.0.2.1", 65535)),
            ("[2001:db8::1]:4711", ("2001:db8::1", 4711)),
            ("[2001:DB8:0::1]", ("2001:db8::1", 0)),
            ("[::ffff:192.0.2.1]:5", ("192.0.2.1", 5)),
            ("192.0.2.1:65536", PEER),
            ("192.0.2.1:99999999", PEER),
            ("192.0.2.1:", PEER),
            ("192.0.2.1:8a", PEER),
            ("192.0.2.1:-1", PEER),
            ("192.0.2.1:_p", PEER),
            ("192.0.2.1:80:80", PEER),
            ("[192.0.2.1]", PEER),
            ("[2001:db8::1", PEER),
            ("[2001:db8::1]x", PEER),
            ("[]", PEER),
            ("[fe80::1%eth0]", PEER),
            ("[:::1]", PEER),
            ("[1:2:3:4:5:6:7:8:9]", PEER),
            ("192.0.2.1/32", PEER),
            ("192.0.2.1\x1b[31m", PEER),
            ("\xb2.0.2.1", PEER),
            ("", PEER),
        ],
    )
    def test_an_address_is_read_strictly(self, text: str, client: tuple[str, int]) -> None:
        assert x_forwarded_for(text) == client
        assert forwarded(f'for="{text}"') == client


class TestXForwarded:
    def test_ipv6_may_stand_without_brackets(self) -> None:
        assert x_forwarded_for("2001:db8::1") == ("2001:db8::1", 0)

    def test_ipv6_proxies_are_walked_past(self) -> None:
        assert x_forwarded_for("192.0.2.1, 2001:db8:aaaa::5, ::ffff:10.0.0.1") == ("192.0.2.1", 0)

    @pytest.mark.parametrize("value", ["6.6.6.6,", "6.6.6.6, ,10.0.0.1", "6.6.6.6,,"])
    def test_an_empty_entry_ends_the_walk(self, value: str) -> None:
        assert x_forwarded_for(value) in (PEER, ("10.0.0.1", 0))

    @pytest.mark.parametrize(
        ("value", "peer", "scheme"),
        [
            ("https", "http", "https"),
            ("HTTPS", "http", "https"),
            ("http", "https", "http"),
            ("https", "ws", "wss"),
            ("wss", "ws", "wss"),
            ("wss", "http", "https"),
            ("ws", "wss", "ws"),
            ("https,http", "https", "http"),
            ("javascript, https ", "http", "https"),
            ("https, javascript", "http", "http"),
            ("", "https", "https"),
            ("https,", "http", "http"),
            ("file", "wss", "wss"),
            ("ht\xe9ps", "http", "http"),
        ],
    )
    def test_the_right_most_scheme_counts_if_it_is_one(
        self, value: str, peer: str, scheme: str
    ) -> None:
        assert behind(("x-forwarded-proto", value), scheme=peer) == (PEER, scheme, None)

    def test_the_scheme_of_the_last_line_counts(self) -> None:
        lines = [("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")]
        assert behind(*lines, scheme="https")[1] == "http"

    def test_x_forwarded_host_is_not_read(self) -> None:
        assert behind(("x-forwarded-host", "evil")) == (PEER, "http", None)


class TestForwarded:
    @pytest.mark.parametrize(
        ("value", "result"),
        [
            # The examples of RFC 7239 §4, §6, §7.
            ('For="[2001:db8:cafe::17]:4711"', (("2001:db8:cafe::17", 4711), "http", None)),
            ("for=192.0.2.60;proto=https;by=203.0.113.43", (("192.0.2.60", 0), "https", None)),
            ("for=192.0.2.43, for=198.51.100.17", (("198.51.100.17", 0), "http", None)),
            ('for="_gazonk"', (PEER, "http", None)),
            ('for="192.0.2.43:47011"', (("192.0.2.43", 47011), "http", None)),
            # Case, order, blanks, empty pairs, unknown parameters.
            ("PROTO=HTTPS ; FOR=192.0.2.1", (("192.0.2.1", 0), "https", None)),
            ("for=192.0.2.1;;proto=https;", (("192.0.2.1", 0), "https", None)),
            ('for=192.0.2.1;ext="a,b;c=\\"d"', (("192.0.2.1", 0), "http", None)),
            ('for="19\\2.0.2.1"', (("192.0.2.1", 0), "http", None)),
            # Not quoted, though it should be.
            ("for=192.0.2.1:80", (("192.0.2.1", 80), "http", None)),
            ("for=[2001:db8::1]:80", (("2001:db8::1", 80), "http", None)),
            # Scheme and host as the client used them.
            ("proto=https;host=example.org:8443", (PEER, "https", "example.org:8443")),
            ('for=192.0.2.1;host="[::1]:80"', (("192.0.2.1", 0), "http", "[::1]:80")),
            (
                "for=192.0.2.1;proto=https;host=a, for=10.0.0.1;proto=http;host=b",
                (("192.0.2.1", 0), "https", "a"),
            ),
            ("for=192.0.2.1, for=10.0.0.1;proto=https", (("192.0.2.1", 0), "https", None)),
            (
                "for=6.6.6.6;proto=http;host=evil, for=192.0.2.1;proto=https;host=a",
                (("192.0.2.1", 0), "https", "a"),
            ),
            ("for=192.0.2.1;proto=gopher;host=a/b", (("192.0.2.1", 0), "http", None)),
            ('for=192.0.2.1;host="u@h"', (("192.0.2.1", 0), "http", None)),
            ('for=192.0.2.1;host="h?q"', (("192.0.2.1", 0), "http", None)),
            ('for=192.0.2.1;host="a b"', (("192.0.2.1", 0), "http", None)),
            # Broken: nothing of the element is believed.
            ("for=192.0.2.1;for=6.6.6.6", (PEER, "http", None)),
            ("for=192.0.2.1;proto=https;Proto=http", (PEER, "http", None)),
            ("for=192.0.2.1 proto=https", (PEER, "http", None)),
            ("for = 192.0.2.1", (PEER, "http", None)),
            ('for="192.0.2.1', (PEER, "http", None)),
            ("192.0.2.1", (PEER, "http", None)),
            ("for=192.0.2.1,", (PEER, "http", None)),
            ("", (PEER, "http", None)),
            (";", (PEER, "http", None)),
            (",", (PEER, "http", None)),
            ('for=192.0.2.1;x="' + "a" * 2000 + '"', (PEER, "http", None)),
        ],
    )
    def test_an_element_is_read_as_rfc_7239_has_it(self, value: str, result: Resolved) -> None:
        assert behind(("forwarded", value)) == result

    @pytest.mark.parametrize(
        ("line", "result"),
        [
            (("x-forwarded-for", "192.0.2.2"), (("192.0.2.2", 0), "http", None)),
            (("x-forwarded-proto", "https"), (PEER, "https", None)),
        ],
    )
    def test_it_is_not_read_where_the_proxy_keeps_x_forwarded(
        self, line: tuple[str, str], result: Resolved
    ) -> None:
        assert behind(line, ("forwarded", "for=6.6.6.6;proto=https;host=evil")) == result

    @pytest.mark.parametrize(
        "junk",
        [
            'for="',
            'for="6.6.6.6',
            'for="\\',
            'for=6.6.6.6;x="',
            '"',
            ",",
            'for=x, "',
            "=",
            ";;;=,",
            'for="6.6.6.6";x="a, for=6.6.6.6',
        ],
    )
    def test_nothing_at_the_left_can_hide_the_element_of_the_proxy(self, junk: str) -> None:
        for element in ("for=192.0.2.1;proto=https", 'for="192.0.2.1";proto="https"'):
            assert behind(("forwarded", f"{junk}, {element}")) == (
                ("192.0.2.1", 0),
                "https",
                None,
            )

    @given(
        before=st.text('",;=\\ax', max_size=12),
        inside=st.text('",;=\\ f6.or', max_size=30),
        after=st.sampled_from(["", ";proto=https", ';by="z"', ';x="a,b"']),
    )
    def test_nothing_inside_a_quoted_string_is_taken_for_an_element(
        self, before: str, inside: str, after: str
    ) -> None:
        quoted = inside.replace("\\", "\\\\").replace('"', '\\"')
        element = f'for=192.0.2.1;ext="{quoted}"{after}'
        assert forwarded(f"{before}, {element}") == ("192.0.2.1", 0)
        assert forwarded(f"for=192.0.2.9, {element}") == ("192.0.2.1", 0)

    def test_a_forged_element_in_the_host_of_the_proxys_own_is_no_element(self) -> None:
        assert forwarded('for=192.0.2.1;host="x, for=6.6.6.6;by="') == ("192.0.2.1", 0)


class TestResolveFields:
    def test_the_list_is_not_looked_at_unless_a_name_occurs_twice(self) -> None:
        fields = {b"x-forwarded-for": b"192.0.2.1", b"x-forwarded-proto": b"https"}
        headers = [(b"never", b"read")] * 2
        assert resolve_fields(fields, headers, PEER, "http", TrustedPeers(PROXIES)) == (
            ("192.0.2.1", 0),
            "https",
            None,
        )

    def test_it_agrees_with_resolve_on_repeated_fields(self) -> None:
        headers = [
            (b"x-forwarded-for", b"192.0.2.1"),
            (b"cookie", b"a"),
            (b"x-forwarded-for", b"10.0.0.1"),
            (b"cookie", b"b"),
        ]
        trusted = TrustedPeers(PROXIES)
        result = resolve_fields(dict(headers), headers, PEER, "http", trusted)
        assert result == resolve(headers, PEER, "http", trusted) == (("192.0.2.1", 0), "http", None)


ADDRESSES = st.sampled_from(
    ["10.0.0.1", "10.9.9.9", "127.0.0.1", "192.0.2.1", "6.6.6.6", "2001:db8:aaaa::1", "::1"]
)
ENTRIES = ADDRESSES | st.sampled_from(["", "unknown", "_x", "nonsense", "1.2.3.4:99999", '"'])


class TestProperties:
    @given(st.lists(ENTRIES, max_size=8), st.lists(st.booleans(), max_size=8))
    def test_the_client_is_a_hop_that_a_trusted_hop_vouched_for(
        self, chain: list[str], breaks: list[bool]
    ) -> None:
        trusted = TrustedPeers(PROXIES)
        vouched = {PEER[0]}
        for entry in reversed(chain):
            try:
                ip_address(entry)
            except ValueError:
                break
            vouched.add(entry)
            if not trusted.trusts(entry):
                break
        lines: list[list[str]] = [[]] if chain else []
        for index, entry in enumerate(chain):
            lines[-1].append(entry)
            if breaks[index : index + 1] == [True]:
                lines.append([])
        lines = [line for line in lines if line]
        headers = [(b"x-forwarded-for", ", ".join(line).encode()) for line in lines]
        client, _, _ = resolve(headers, PEER, "http", trusted)
        assert client is not None and client[0] in vouched
        # and it is the furthest of them
        untrusted = {host for host in vouched if not trusted.trusts(host)}
        assert not untrusted or client[0] in untrusted

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([b"forwarded", b"x-forwarded-for", b"x-forwarded-proto"]),
                st.binary(max_size=60)
                | st.text('for="=;,\\ []:.0123456789abcdefproty', max_size=60).map(str.encode),
            ),
            max_size=4,
        ),
        st.sampled_from(["*", "127.0.0.1", "unix,10.0.0.0/8"]),
        st.sampled_from([PEER, None, ("::1", 1)]),
        st.sampled_from(["http", "https", "ws", "wss"]),
    )
    def test_no_header_raises_and_every_answer_is_clean(
        self,
        headers: list[tuple[bytes, bytes]],
        entries: str,
        peer: tuple[str, int] | None,
        scheme: str,
    ) -> None:
        client, resolved, host = resolve(headers, peer, scheme, TrustedPeers(entries))
        if client is not None and client != peer:
            assert str(ip_address(client[0])) == client[0]
            assert 0 <= client[1] <= 65535
        assert resolved in ({"http", "https"} if scheme[0] == "h" else {"ws", "wss"})
        assert host is None or not set(host) & set(' \t\r\n/?#@"\\')

    @pytest.mark.parametrize(
        "unit",
        [
            b",",
            b"10.0.0.1,",
            b"2001:db8:aaaa:0:0::1,",
            b'"',
            b'",',
            b'for="',
            b'for=",',
            b"for=10.0.0.1,",
            b'for="10.0.0.1",',
            b'a=",";',
            b'a="\\",',
            b"a=b;",
            b"\\",
            b" ",
            b'a="' + b"," * 900 + b'",',
        ],
    )
    @pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded"])
    def test_64_kilobytes_of_anything_are_read_in_no_time(self, name: bytes, unit: bytes) -> None:
        value = unit * (65536 // len(unit))
        trusted = TrustedPeers(["127.0.0.1", "10.0.0.0/8", "2001:db8:aaaa::/48"])
        # The CPU time of this process, and a hundred times what it takes: quadratic is seconds.
        begun = time.process_time()
        resolve([(name, value)], PEER, "http", trusted)
        assert time.process_time() - begun < 0.25
