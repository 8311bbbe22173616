"""A certificate for this machine alone, so that development has TLS too.

What this file alone decides: what is in it (localhost, 127.0.0.1 and ::1, signed by itself, a
year), where it is kept (the user's cache), and when another one is made.

Rules:

1. Certificate and key are one file, readable by its owner alone, and written whole under
   another name first: two servers that start at once never mix their halves.
2. It is kept as long as it can be, because people tell browsers to trust it. It is made anew
   in its last week, when it cannot be read, or when somebody else could have read or made it.
"""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.x509 import Certificate

__all__ = ["DevelopmentCertificate", "cache_folder", "development_certificate"]

NAME: Final = "localhost.pem"
LIFETIME: Final = timedelta(days=365)
LAST_WEEK: Final = timedelta(days=7)


class DevelopmentCertificate(NamedTuple):
    """What `development_certificate` found or made.

    Args:
        path: PEM, the certificate and its key.
        fingerprint: SHA-256 of the certificate as browsers show it: ``AB:CD:...``.
    """

    path: str
    fingerprint: str


def cache_folder(environ: Mapping[str, str] | None = None) -> str:
    """``$XDG_CACHE_HOME/omnicorn``, else ``~/.cache/omnicorn``."""
    environ = os.environ if environ is None else environ
    cache = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has a relative path ignored.
    if not os.path.isabs(cache):
        cache = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "omnicorn")


def development_certificate(
    folder: str | None = None, now: datetime | None = None
) -> DevelopmentCertificate:
    """Find the certificate that was made before, or make one.

    Args:
        folder: Where it is kept; None is the user's cache.
        now: With a time zone; None is the present.

    Raises:
        ConfigError: ``cryptography`` is not installed, or the folder cannot be written.
    """
    try:
        from cryptography.hazmat.primitives.hashes import SHA256
    except ImportError:
        raise ConfigError(
            "dev_tls: the package cryptography makes the certificate, and is not installed: "
            "install omnicorn[dev-tls], or give ssl_certfile and ssl_keyfile",
            "dev_tls",
        ) from None
    folder = cache_folder() if folder is None else folder
    now = datetime.now(UTC) if now is None else now
    path = os.path.join(folder, NAME)
    certificate = _find(path, now)
    if certificate is None:
        certificate, content = _make(now)
        try:
            _write(path, content)
        except OSError as error:
            raise ConfigError(
                f"dev_tls: cannot write {path}: {error.strerror}: make the folder writable, or "
                "choose another by XDG_CACHE_HOME",
                "dev_tls",
            ) from None
    return DevelopmentCertificate(path, certificate.fingerprint(SHA256()).hex(":").upper())


def _find(path: str, now: datetime) -> Certificate | None:
    """The certificate that is there, if it is ours and still good."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                return None
            content = file.read()
        certificate = load_pem_x509_certificate(content)
        key = load_pem_private_key(content, None)
    except (OSError, ValueError):
        return None
    if key.public_key() != certificate.public_key():
        return None
    good = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - LAST_WEEK
    return certificate if good else None


def _make(now: datetime) -> tuple[Certificate, bytes]:
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    # Told apart by its serial number in the lists of browsers.
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "omnicorn development")])
    hosts: list[x509.GeneralName] = [x509.DNSName("localhost")]
    hosts += [x509.IPAddress(ip_address(address)) for address in ("127.0.0.1", "::1")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # a virtual machine's clock may be behind
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        # No authority: who trusts it trusts this server, not whatever its key might sign.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate, certificate.public_bytes(Encoding.PEM) + private


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    draft = f"{path}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # a draft left by a killed process may have any mode
            file.write(content)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
