from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from bench import certificate

if TYPE_CHECKING:
    from pathlib import Path


def shaken(server: ssl.SSLContext, offered: str) -> str | None:
    """Shake hands in memory; return the protocol chosen by ALPN."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certificate.trusting(offered).wrap_bio(
        to_client, to_server, server_hostname="127.0.0.1"
    )
    other = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (client, other):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return client.selected_alpn_protocol()


def test_a_client_trusts_the_certificate_and_speaks_what_it_offers(
    certified: ssl.SSLContext,
) -> None:
    certified.set_alpn_protocols(["h2"])

    assert shaken(certified, "h2") == "h2"
    assert shaken(certified, "http/1.1") is None


@pytest.mark.usefixtures("certified")
def test_the_key_has_the_form_that_every_server_takes() -> None:
    assert certificate.KEY.read_text().startswith("-----BEGIN PRIVATE KEY-----")


@pytest.mark.usefixtures("certified")
def test_it_is_made_once() -> None:
    before = certificate.CERTIFICATE.read_bytes()
    certificate.make()

    assert certificate.CERTIFICATE.read_bytes() == before


@pytest.mark.usefixtures("certified")
def test_a_folder_that_is_not_there_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "KEY", tmp_path / "none" / "key.pem")

    with pytest.raises(certificate.CertificateFailed, match="openssl: "):
        certificate.make()
