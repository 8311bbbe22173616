"""What becomes of a PROXY header's TLVs; that scopes get it is in `test_proxy`."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from tests.certificates import Authority

from omnicorn.connections.behind import EXTENSION, behind
from omnicorn.protocols.proxy import ProxyHeader, ProxyTLS, TLVs

AUTHORITY = Authority()
SOURCE, DESTINATION = ("192.0.2.1", 45862), ("198.51.100.1", 443)
TLS = ProxyTLS("TLSv1.3", "TLS_AES_128_GCM_SHA256", "SHA256", "RSA2048", False, 18, None, None)


def told(tlvs: TLVs) -> tuple[str | None, dict[str, Any]]:
    found = behind(ProxyHeader(2, SOURCE, DESTINATION, tlvs))
    assert found is not None
    return found.scheme, found.extensions


def tls(**changed: Any) -> dict[str, Any]:
    scheme, extensions = told(TLVs(tls=TLS._replace(**changed)))
    assert scheme == "https"
    return extensions["tls"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("version", [1, 2])
def test_addresses_alone_are_nothing_to_tell(version: int) -> None:
    assert behind(ProxyHeader(version, SOURCE, DESTINATION)) is None


def test_without_tls_the_scheme_is_left_alone() -> None:
    scheme, extensions = told(TLVs(unique_id=b"id", others=((0xEA, b"x"),)))

    assert scheme is None
    assert extensions == {
        EXTENSION: {
            "version": 2,
            "alpn": None,
            "authority": None,
            "unique_id": b"id",
            "netns": None,
            "tls": None,
            "others": ((0xEA, b"x"),),
        }
    }


def test_tls_is_told_as_it_came_and_as_the_extension_has_it() -> None:
    _, extensions = told(TLVs(tls=TLS))

    assert extensions[EXTENSION]["tls"] == TLS._asdict()
    assert extensions["tls"] == {
        "server_cert": None,
        "client_cert_chain": (),
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": 0x0304,
        "cipher_suite": 0x1301,
    }


@pytest.mark.parametrize(
    ("version", "number"), [("TLSv1.2", 0x0303), ("SSLv3", 0x0300), ("TLSv9", None), (None, None)]
)
def test_a_version_has_the_number_on_the_wire(version: str | None, number: int | None) -> None:
    assert tls(version=version)["tls_version"] == number


@pytest.mark.parametrize(
    ("cipher", "number"),
    [("ECDHE-RSA-AES128-GCM-SHA256", 0xC02F), ("AES128-SHA", 0x2F), ("?", None), (None, None)],
)
def test_a_cipher_suite_has_the_number_of_its_name(cipher: str | None, number: int | None) -> None:
    assert tls(cipher=cipher)["cipher_suite"] == number


def test_a_client_certificate_is_named() -> None:
    issued = AUTHORITY.issue(common_name="Ada")
    der = ssl.PEM_cert_to_DER_cert(issued.pem)
    extension = tls(has_client_cert=True, verify=0, client_cert=der)

    assert extension["client_cert_chain"] == (issued.pem,)
    assert extension["client_cert_name"] == "CN=Ada"
    assert extension["client_cert_error"] is None


def test_a_client_certificate_that_was_not_found_good_says_so() -> None:
    assert "18" in tls(has_client_cert=True)["client_cert_error"]


@pytest.mark.parametrize("der", [b"", b"\x30\x82", b"\x30\x03\x30\x01\x02"])
def test_a_certificate_that_is_none_is_left_out(der: bytes) -> None:
    extension = tls(has_client_cert=True, verify=0, client_cert=der)

    assert (extension["client_cert_chain"], extension["client_cert_name"]) == ((), None)
