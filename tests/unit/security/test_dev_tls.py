"""The certificate of development: what is in it, and when it is made anew."""

from __future__ import annotations

import os
import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.errors import ConfigError
from omnicorn.security import dev_tls
from omnicorn.security.dev_tls import cache_folder, development_certificate
from omnicorn.security.tls import Settings, make_context

if TYPE_CHECKING:
    from pathlib import Path

x509: Any = pytest.importorskip("cryptography.x509")

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "omnicorn"


def made(folder: Path, **after: float) -> Any:
    """The certificate as of some time after `NOW`."""
    found = development_certificate(str(folder), NOW + timedelta(**after))
    assert found.path == str(folder / "localhost.pem")
    return x509.load_pem_x509_certificate((folder / "localhost.pem").read_bytes())


def test_it_is_for_this_machine_for_a_year_and_no_authority(folder: Path) -> None:
    certificate = made(folder)

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ip_address("127.0.0.1"),
        ip_address("::1"),
    ]
    assert certificate.not_valid_after_utc == NOW + timedelta(days=365)
    assert certificate.not_valid_before_utc < NOW
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and not constraints.value.ca


def test_a_context_can_be_made_of_it(folder: Path) -> None:
    make_context(Settings(development_certificate(str(folder), NOW).path))


def test_the_fingerprint_is_that_of_the_certificate(folder: Path) -> None:
    found = development_certificate(str(folder), NOW)

    pem = (folder / "localhost.pem").read_text().partition("-----BEGIN PRIVATE")[0]
    digest = sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    assert found.fingerprint.replace(":", "") == digest
    assert found.fingerprint.count(":") == 31


def test_nobody_else_can_read_the_key(folder: Path) -> None:
    made(folder)

    assert stat.S_IMODE((folder / "localhost.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert os.listdir(folder) == ["localhost.pem"]


def test_it_is_kept_until_its_last_week(folder: Path) -> None:
    first = made(folder)

    assert made(folder, days=357) == first
    assert made(folder, days=358) != first


def test_one_of_the_future_is_made_anew(folder: Path) -> None:
    assert made(folder) != made(folder, days=-1)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff"])
def test_what_cannot_be_read_is_replaced(folder: Path, content: bytes) -> None:
    made(folder)
    (folder / "localhost.pem").write_bytes(content)

    assert made(folder).not_valid_after_utc == NOW + timedelta(days=365)


def test_a_certificate_with_the_key_of_another_is_replaced(folder: Path, tmp_path: Path) -> None:
    made(folder)
    made(tmp_path)
    mark = "-----BEGIN PRIVATE"
    own = (folder / "localhost.pem").read_text().partition(mark)
    other = (tmp_path / "localhost.pem").read_text().partition(mark)
    (folder / "localhost.pem").write_text(own[0] + mark + other[2])

    made(folder)

    make_context(Settings(str(folder / "localhost.pem")))


def test_one_that_others_could_read_is_replaced(folder: Path) -> None:
    first = made(folder)
    (folder / "localhost.pem").chmod(0o640)

    assert made(folder) != first
    assert stat.S_IMODE((folder / "localhost.pem").stat().st_mode) == 0o600


def test_one_that_somebody_else_made_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(folder)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    assert made(folder) != first


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError) as refusal:
        development_certificate(str(tmp_path / "file" / "omnicorn"), NOW)

    assert refusal.value.option == "dev_tls"
    assert f"cannot write {tmp_path}/file/omnicorn/localhost.pem" in str(refusal.value)
    assert "XDG_CACHE_HOME" in str(refusal.value)


def test_a_write_that_fails_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dev_tls.os, "replace", full)  # type: ignore[attr-defined]

    with pytest.raises(ConfigError, match="No space left on device"):
        development_certificate(str(folder), NOW)
    assert os.listdir(folder) == []


def test_without_the_package_that_makes_it_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.hashes", None)

    with pytest.raises(ConfigError, match=r"install omnicorn\[dev-tls\]") as refusal:
        development_certificate(str(folder), NOW)
    assert refusal.value.option == "dev_tls"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CACHE_HOME": "/tmp/x"}, "/tmp/x/omnicorn"),
        ({"XDG_CACHE_HOME": "x"}, "/home/ada/.cache/omnicorn"),
        ({"XDG_CACHE_HOME": ""}, "/home/ada/.cache/omnicorn"),
        ({}, "/home/ada/.cache/omnicorn"),
    ],
)
def test_it_is_kept_in_the_cache_of_its_user(
    environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")

    assert cache_folder(environ) == expected


def test_unless_told_otherwise_it_is_made_there_and_now(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent))

    found = development_certificate()

    assert found.path == str(folder / "localhost.pem")
    certificate = x509.load_pem_x509_certificate((folder / "localhost.pem").read_bytes())
    assert abs(certificate.not_valid_after_utc - datetime.now(UTC) - timedelta(days=365)) < (
        timedelta(hours=1)
    )
