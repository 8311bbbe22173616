"""TLS contexts: made from files, chosen by name, made anew when the files change.

What this file alone decides: what a server agrees to speak (Mozilla's "intermediate": TLS 1.2
with forward secrecy and AEAD, TLS 1.3, the client's preference among equals), how a certificate
is found for a name, when files are read again, and what an application is told.

Rules:

1. All or nothing: contexts are made anew from every file, or the old ones stay. A change never
   reaches a context in use, so open connections do not notice. New contexts have new ticket
   keys: nobody resumes past a certificate, an authority or a revocation list that has changed.
2. Files are looked at when somebody connects, at most once in `LOOK_INTERVAL`. That is the
   cheaper way: a server that nobody talks to does not wake up, there is no timer to stop, and a
   look (a ``stat`` of each file) takes microseconds, whatever the rate of connections.
3. What fails to load is told once for each change, and not before it has failed to load and
   has then been left alone until the next look: certificate and key are two files, and nobody
   replaces both at once.
4. Whatever is wrong becomes a ConfigError that names the option, the file and the remedy.
   OpenSSL itself names neither; that is why files are read here before it gets them.
5. With a certificate of the name that the client asks for, else with the default one: a client
   without a name, or with an unknown one, is answered (RFC 6066 §3 lets a server go on).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import ssl
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from omnicorn.asgi.extensions import TLSExtension

    _State = tuple[tuple[int, int, int] | None, ...]

__all__ = [
    "LOOK_INTERVAL",
    "Certificates",
    "Settings",
    "make_context",
    "names_are_ascii",
    "subject",
    "tls_extension",
    "told_extension",
]

logger = logging.getLogger("omnicorn")

LOOK_INTERVAL: Final = 2.0
"""Seconds between two looks at the files."""

CIPHERS: Final = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
"""Of TLS 1.2. None of them is among those that RFC 9113 §9.2.2 keeps from HTTP/2."""

_VERSIONS: Final = {"tls1.2": ssl.TLSVersion.TLSv1_2, "tls1.3": ssl.TLSVersion.TLSv1_3}
_REQUIREMENTS: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----\s.*?\s-----END CERTIFICATE-----", re.DOTALL
)


class Settings(NamedTuple):
    """What contexts are made of; the names are those of the options, without ``ssl_``.

    Args:
        certfile: PEM: the server's certificate, the intermediate ones, perhaps the key.
        keyfile: PEM; None: in ``certfile``.
        keyfile_password: Of every key that is encrypted.
        sni: Host or ``*.`` and a domain, ``certfile``, ``keyfile``.
        cert_reqs: ``none``, ``optional`` or ``required``.
        ca_certs: PEM of the authorities that clients' certificates come from.
        crl: PEM of their revocation lists; only the client's own certificate is looked up.
        protocol_min: ``tls1.2`` or ``tls1.3``.
        ciphers: In OpenSSL's notation, of TLS 1.2.
        alpn: Protocols, the preferred one first.
    """

    certfile: str
    keyfile: str | None = None
    keyfile_password: str | None = None
    sni: tuple[tuple[str, str, str | None], ...] = ()
    cert_reqs: str = "none"
    ca_certs: str | None = None
    crl: str | None = None
    protocol_min: str = "tls1.2"
    ciphers: str | None = None
    alpn: Sequence[str] = ("http/1.1",)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file, once."""
        named = [self.certfile, self.keyfile, self.ca_certs, self.crl]
        for _, certfile, keyfile in self.sni:
            named += [certfile, keyfile]
        return tuple(dict.fromkeys(name for name in named if name is not None))


class ServerContext(ssl.SSLContext):
    """A context that knows its certificate, which OpenSSL does not give back.

    Attributes:
        server_cert: PEM.
    """

    server_cert: str


class Certificates:
    """The context for the next connection.

    Args:
        settings: What it is made of.
        clock: Seconds that never go back.

    Raises:
        ConfigError: It cannot be made.
    """

    __slots__ = ("_clock", "_context", "_failure", "_next_look", "_settings", "_state")

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        # Before the files are read: what changes meanwhile is seen by the next look.
        self._state = _state(settings)
        self._context = make_context(settings)
        self._failure: ConfigError | None = None
        self._next_look = clock() + LOOK_INTERVAL

    def current(self) -> ServerContext:
        """The context as of now; looks at the files if it is time (rule 2)."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + LOOK_INTERVAL
            self._look()
        return self._context

    def _look(self) -> None:
        state = _state(self._settings)
        if state != self._state:
            self._failure = self._load(state)
        elif self._failure is not None:
            _complain(self._failure)
            self._failure = None

    def reload(self) -> None:
        """Read the files now, changed or not; what is wrong is logged."""
        failure = self._load(_state(self._settings))
        self._failure = None
        if failure is not None:
            _complain(failure)

    def _load(self, state: _State) -> ConfigError | None:
        self._state = state
        try:
            self._context = make_context(self._settings)
        except ConfigError as error:
            return error
        logger.info("TLS certificates are read again: %s", ", ".join(self._settings.files))
        return None


def _complain(failure: ConfigError) -> None:
    logger.error("TLS certificates stay the old ones: %s", failure)


def _state(settings: Settings) -> _State:
    """What changes with the files; links are followed, as those of a mounted secret change."""
    return tuple([_file_state(path) for path in settings.files])


def _file_state(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


# Contexts -------------------------------------------------------------------------------


def make_context(settings: Settings) -> ServerContext:
    """Make the context of the default certificate, which finds those of other names.

    Raises:
        ConfigError: A file is missing or wrong, a password is, or a cipher.
    """
    context = _context(settings, settings.certfile, settings.keyfile, "ssl_certfile")
    if settings.sni:
        exact: dict[str, ssl.SSLContext] = {}
        below: dict[str, ssl.SSLContext] = {}
        for host, certfile, keyfile in settings.sni:
            other = _context(settings, certfile, keyfile, "ssl_sni")
            if host.startswith("*."):
                below[host[2:]] = other
            else:
                exact[host] = other

        def choose(connection: Any, name: str | None, _: ssl.SSLContext) -> None:
            if name is None:
                return
            name = name.lower()
            found = exact.get(name)
            if found is None:
                # RFC 6125 §6.4.3: a wildcard is the whole first label, and no more.
                found = below.get(name.partition(".")[2])
            if found is not None:
                connection.context = found

        context.sni_callback = choose
    return context


def _context(settings: Settings, certfile: str, keyfile: str | None, option: str) -> ServerContext:
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.protocol_min]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # A peer that leaves without close_notify is not an error: HTTP knows where a message ends.
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    # All that is offered is good: a telephone without AES hardware may prefer ChaCha20.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if settings.ciphers and settings.protocol_min == "tls1.3":
        raise ConfigError(
            "ssl_ciphers chooses among those of TLS 1.2, which ssl_protocol_min = 'tls1.3' turns "
            "off: leave one of the two out",
            "ssl_ciphers",
        )
    try:
        context.set_ciphers(settings.ciphers or CIPHERS)
    except ssl.SSLError:
        raise ConfigError(
            f"ssl_ciphers: OpenSSL knows none of {settings.ciphers!r}; `openssl ciphers` lists "
            "the names, and those of TLS 1.3 (TLS_...) cannot be chosen",
            "ssl_ciphers",
        ) from None
    context.set_alpn_protocols(list(settings.alpn))
    _load_certificate(context, certfile, keyfile, settings.keyfile_password, option)
    if settings.ca_certs is not None:
        _load_trusted(context, settings.ca_certs, "ssl_ca_certs", "CERTIFICATE", "certificate")
    if settings.crl is not None:
        _load_trusted(context, settings.crl, "ssl_crl", "X509 CRL", "revocation list")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    context.verify_mode = _REQUIREMENTS[settings.cert_reqs]
    return context


def _load_certificate(
    context: ServerContext, certfile: str, keyfile: str | None, password: str | None, option: str
) -> None:
    text = _read(certfile, option)
    found = _CERTIFICATE.search(text)
    if found is None:
        raise _no_pem(certfile, option, "certificate", "CERTIFICATE")
    key_option = option if option == "ssl_sni" else "ssl_keyfile"
    if keyfile is not None:
        if "PRIVATE KEY-----" not in _read(keyfile, key_option):
            raise _no_pem(keyfile, key_option, "private key", "PRIVATE KEY")
    elif "PRIVATE KEY-----" not in text:
        where = "HOST=CERT,KEY" if option == "ssl_sni" else "ssl_keyfile"
        raise ConfigError(
            f"{key_option}: {certfile} holds a certificate and no private key: give the key's "
            f"file, too ({where})",
            key_option,
        )
    asked = False

    def unlock() -> str:
        # Without this OpenSSL would ask at the terminal, and wait.
        nonlocal asked
        asked = True
        if password is None:
            raise ConfigError(
                f"ssl_keyfile_password: the key in {keyfile or certfile} is encrypted: give its "
                "password",
                "ssl_keyfile_password",
            )
        return password

    try:
        context.load_cert_chain(certfile, keyfile, unlock)
    except ValueError as error:  # CPython's own bound: 1024 bytes
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"ssl_keyfile_password: {error}", "ssl_keyfile_password") from None
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            raise ConfigError(
                f"{key_option}: the key in {keyfile or certfile} does not belong to the first "
                f"certificate in {certfile}: give the one it was made with (and put the "
                "server's certificate before those of authorities)",
                key_option,
            ) from None
        if asked:
            raise ConfigError(
                f"ssl_keyfile_password: the password does not open the key in "
                f"{keyfile or certfile}",
                "ssl_keyfile_password",
            ) from None
        raise ConfigError(
            f"{option}: OpenSSL refuses {certfile} or its key ({_reason(error)}): make them anew, "
            "or see `openssl x509 -text -in FILE`",
            option,
        ) from None
    except OSError as error:  # gone since it was read
        raise _unreadable(certfile, option, error) from None
    context.server_cert = found[0] + "\n"


def _load_trusted(context: ssl.SSLContext, path: str, option: str, label: str, what: str) -> None:
    if f"-----BEGIN {label}-----" not in _read(path, option):
        raise _no_pem(path, option, what, label)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{option}: OpenSSL cannot read {path} ({_reason(error)}): every {what} in it must be "
            "valid PEM",
            option,
        ) from None
    except OSError as error:
        raise _unreadable(path, option, error) from None


def _read(path: str, option: str) -> str:
    try:
        with open(path, encoding="latin-1") as file:
            return file.read()
    except OSError as error:
        raise _unreadable(path, option, error) from None


def _unreadable(path: str, option: str, error: OSError) -> ConfigError:
    hint = "" if os.path.isabs(path) else f" (looked for in {os.getcwd()})"
    return ConfigError(f"{option}: cannot read {path}{hint}: {error.strerror}", option)


def _no_pem(path: str, option: str, what: str, label: str) -> ConfigError:
    return ConfigError(
        f"{option}: {path} holds no {what} in PEM, which begins with -----BEGIN {label}-----",
        option,
    )


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


@contextlib.contextmanager
def names_are_ascii() -> Iterator[None]:
    """Meanwhile, a client that asks for a name beyond ASCII leaves no traceback.

    CPython refuses it, and tells ``sys.unraisablehook``: a line for each packet that somebody
    sends. That hook is the process's own, so who runs the process decides.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        error = unraisable.exc_value
        # Python 3.15 says in words what it was about, the others by the object.
        if isinstance(error, UnicodeDecodeError) and (
            error.object == unraisable.object or "servername" in (unraisable.err_msg or "")
        ):
            logger.debug("a TLS client has asked for the name %r", error.object)
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = before


# What an application is told ---------------------------------------------------------------

_NUMBERS: Final = {
    "SSLv3": 0x0300,
    "TLSv1": 0x0301,
    "TLSv1.1": 0x0302,
    "TLSv1.2": 0x0303,
    "TLSv1.3": 0x0304,
}
_suites: dict[str, int] = {}  # filled from contexts: as many entries as OpenSSL has ciphers


def tls_extension(connection: ssl.SSLObject | ssl.SSLSocket) -> TLSExtension:
    """Tell of a connection what the ASGI extension ``tls`` 0.2 wants; after the handshake.

    ``client_cert_error`` is always None: OpenSSL completes no handshake with a certificate that
    it cannot verify. Before CPython 3.13, and on resumed sessions, the chain is the client's own
    certificate alone.
    """
    context = connection.context
    leaf = connection.getpeercert(True)
    version = connection.version()
    return {
        # A context that is not ours keeps its certificate to itself.
        "server_cert": context.server_cert if isinstance(context, ServerContext) else None,
        "client_cert_chain": () if leaf is None else _chain(connection, leaf),
        "client_cert_name": None if leaf is None else subject(leaf),
        "client_cert_error": None,
        "tls_version": None if version is None else _NUMBERS.get(version),
        "cipher_suite": _suite(connection),
    }


def told_extension(
    version: str | None, cipher: str | None, client_cert: bytes | None, verify: int
) -> TLSExtension:
    """As much of it as a proxy tells of a connection whose TLS it has ended.

    Args:
        version: As OpenSSL names it.
        cipher: Likewise.
        client_cert: In DER; left out if it is none.
        verify: OpenSSL's error number, where the proxy did not find it good.
    """
    chain: tuple[str, ...] = ()
    name = None
    if client_cert is not None:
        try:
            name = subject(client_cert)
            chain = (ssl.DER_cert_to_PEM_cert(client_cert),)
        except (IndexError, ValueError):
            pass  # nobody has verified what it is
    error = f"the proxy could not verify it: error {verify} of OpenSSL" if verify else None
    return {
        "server_cert": None,
        "client_cert_chain": chain,
        "client_cert_name": name,
        "client_cert_error": error,
        "tls_version": _NUMBERS.get(version or ""),
        "cipher_suite": _all_suites().get(cipher or ""),
    }


def _chain(connection: ssl.SSLObject | ssl.SSLSocket, leaf: bytes) -> tuple[str, ...]:
    chain: Sequence[bytes] = ()
    if sys.version_info >= (3, 13):
        chain = connection.get_verified_chain()
    return tuple([ssl.DER_cert_to_PEM_cert(certificate) for certificate in chain or (leaf,)])


def _suite(connection: ssl.SSLObject | ssl.SSLSocket) -> int | None:
    cipher = connection.cipher()
    if cipher is None:
        return None
    number = _suites.get(cipher[0])
    if number is None:
        _suites.update(_numbered(connection.context))
        number = _suites.get(cipher[0])
    return number


@cache
def _all_suites() -> dict[str, int]:
    """Each that OpenSSL has a name for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:COMPLEMENTOFALL")
    return _numbered(context)


def _numbered(context: ssl.SSLContext) -> dict[str, int]:
    # OpenSSL's id is the number on the wire with a 3 in front.
    return {known["name"]: known["id"] & 0xFFFF for known in context.get_ciphers()}


# Names of certificates ------------------------------------------------------------------
#
# `getpeercert()` has the subject, too, but spelled in OpenSSL's long names, without the
# object identifiers that RFC 4514 wants where there is no short one.

_SHORT: Final = {
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.42": "givenName",
    "2.5.4.46": "dnQualifier",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}
_STRINGS: Final = {
    12: "utf-8", 18: "ascii", 19: "ascii", 20: "latin-1", 22: "ascii", 26: "ascii",
    28: "utf-32-be", 30: "utf-16-be",
}  # fmt: skip
_ESCAPED: Final = re.compile(r'[",+;<>\\]|^[ #]| \Z')


def subject(certificate: bytes) -> str:
    """The subject of a DER certificate as RFC 4514 writes it: ``CN=Ada,O=Example,C=GB``."""
    _, start, _ = _element(certificate, 0)
    _, start, end = _element(certificate, start)
    fields = list(_elements(certificate, start, end))
    # RFC 5280 §4.1: [0] version, which may be missing, serial, algorithm, issuer, validity.
    _, start, end = fields[5 if fields[0][0] == 0xA0 else 4]
    names = [
        "+".join(
            _attribute(certificate, *attribute[1:]) for attribute in _elements(certificate, *rdn)
        )
        for _, *rdn in _elements(certificate, start, end)
    ]
    return ",".join(reversed(names))  # RFC 4514 §2.1


def _attribute(der: bytes, start: int, end: int) -> str:
    (_, *oid), (tag, *value) = _elements(der, start, end)
    name = _identifier(der[oid[0] : oid[1]])
    short = _SHORT.get(name)
    coding = _STRINGS.get(tag)
    if short is None or coding is None:  # RFC 4514 §2.4: all of it, in hexadecimal
        return f"{short or name}=#{der[oid[1] : end].hex()}"
    text = der[value[0] : value[1]].decode(coding, "replace")
    return f"{short}={_ESCAPED.sub(_escape, text)}".replace("\0", r"\00")


def _escape(match: re.Match[str]) -> str:
    return "\\" + match[0]


def _identifier(content: bytes) -> str:
    numbers = []
    number = 0
    for byte in content:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _elements(der: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Tag, start and end of what is in there, one after the other."""
    while start < end:
        yield (element := _element(der, start))
        start = element[2]


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the content (X.690 §8.1; OpenSSL has found it well-formed)."""
    length = der[at + 1]
    start = at + 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[at + 2 : start], "big")
    return der[at], start, start + length
