"""The certificate of the servers under test: self-signed, for 127.0.0.1, made once.

What this file alone decides: the kind of key.  It is P-256, what public authorities sign most
today; it weighs on handshakes only, and a run has few of them.
"""

from __future__ import annotations

import shutil
import ssl
import subprocess

from bench import environment

CERTIFICATE = environment.WORK / "certificate.pem"
KEY = environment.WORK / "key.pem"
"""In PKCS #8: granian takes no other form."""


class CertificateFailed(Exception):
    """`openssl` would not make one."""


def available() -> bool:
    """Whether the command `openssl` is installed."""
    return shutil.which("openssl") is not None


def make() -> None:
    """Make key and certificate, unless they are there from an earlier time.

    Raises:
        CertificateFailed: `openssl` refused; the text says why.
    """
    if CERTIFICATE.exists() and KEY.exists():
        return
    done = subprocess.run(
        [
            *("openssl", "req", "-x509", "-noenc", "-days", "3650"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(KEY), "-out", str(CERTIFICATE)),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        raise CertificateFailed(f"openssl: {environment.anonymous(last[0])}")


def trusting(protocol: str) -> ssl.SSLContext:
    """What a client needs to trust this certificate and to offer `protocol` by ALPN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CERTIFICATE)
    context.set_alpn_protocols([protocol])
    return context
