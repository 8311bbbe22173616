"""Contexts from files, in memory: two ends of a handshake, no socket and no clock but our own."""

from __future__ import annotations

import logging
import os
import ssl
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.certificates import Authority, Issued

from omnicorn.errors import ConfigError
from omnicorn.security.tls import (
    LOOK_INTERVAL,
    Certificates,
    Settings,
    make_context,
    names_are_ascii,
    subject,
    tls_extension,
)

if TYPE_CHECKING:
    from pathlib import Path

x509: Any = pytest.importorskip("cryptography.x509")

AUTHORITY = Authority()
SERVER = AUTHORITY.issue("example.org", "localhost")
OTHER = AUTHORITY.issue("other.example")
CLIENT = AUTHORITY.issue(common_name="ada")
REVOKED = AUTHORITY.issue(common_name="bob")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_text(AUTHORITY.pem)
    (tmp_path / "crl.pem").write_text(AUTHORITY.revoke(REVOKED))
    for name, issued in {
        "server": SERVER,
        "other": OTHER,
        "client": CLIENT,
        "bob": REVOKED,
    }.items():
        issued.save(tmp_path, name)
    return tmp_path


def settings(files: Path, name: str = "server", **others: Any) -> Settings:
    return Settings(str(files / f"{name}.pem"), str(files / f"{name}.key"), **others)


class Ends(NamedTuple):
    server: ssl.SSLObject
    client: ssl.SSLObject


def shake(
    context: ssl.SSLContext,
    name: str | None = None,
    *,
    files: Path | None = None,
    identity: str | None = None,
    session: ssl.SSLSession | None = None,
    **client: Any,
) -> Ends:
    """Complete a handshake, or raise what the server's side raises.

    The client trusts our authority if it gets *files*; *identity* is its own certificate there.
    """
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.check_hostname = False
    own.verify_mode = ssl.CERT_NONE
    if files is not None:
        own.load_verify_locations(files / "ca.pem")
        own.verify_mode = ssl.CERT_REQUIRED
        if identity is not None:
            own.load_cert_chain(files / f"{identity}.pem", files / f"{identity}.key")
    for attribute, value in client.items():
        if attribute == "alpn":
            own.set_alpn_protocols(value)
        elif attribute == "ciphers":
            own.set_ciphers(value)
        else:
            setattr(own, attribute, value)
    return connect(context, own, name, session)


def connect(
    context: ssl.SSLContext,
    own: ssl.SSLContext,
    name: str | None = None,
    session: ssl.SSLSession | None = None,
) -> Ends:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(up, down, server_side=True)
    client = own.wrap_bio(down, up, server_hostname=name, session=session)
    waiting = [client, server]
    while waiting:
        for end in tuple(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    server.write(b"x")
    assert client.read() == b"x"  # and the tickets before it
    return Ends(server, client)


def name_of(end: ssl.SSLObject) -> str:
    """The common name of the certificate that the other side sent."""
    certificate = end.getpeercert(True)
    assert certificate is not None
    return subject(certificate)


# ------------------------------------------------------------------------------ what is spoken


def test_a_context_speaks_tls_1_2_and_1_3_and_nothing_older(files: Path) -> None:
    context = make_context(settings(files))

    assert shake(context).server.version() == "TLSv1.3"
    older = shake(context, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert older.server.version() == "TLSv1.2"
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_oldest_version_can_be_raised(files: Path) -> None:
    context = make_context(settings(files, protocol_min="tls1.3"))

    with pytest.raises(ssl.SSLError) as refusal:
        shake(context, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert refusal.value.reason == "UNSUPPORTED_PROTOCOL"


def test_every_cipher_of_tls_1_2_has_forward_secrecy_and_aead(files: Path) -> None:
    ciphers = [
        cipher
        for cipher in make_context(settings(files)).get_ciphers()
        if cipher["protocol"] == "TLSv1.2"
    ]

    assert len(ciphers) == 6
    for cipher in ciphers:
        assert cipher["kea"] == "kx-ecdhe" and cipher["aead"]


def test_ciphers_can_be_chosen(files: Path) -> None:
    context = make_context(settings(files, ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"))

    cipher = shake(context, maximum_version=ssl.TLSVersion.TLSv1_2).server.cipher()

    assert cipher is not None and cipher[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


def test_ciphers_that_could_have_no_effect_are_refused(files: Path) -> None:
    chosen = settings(files, ciphers="ECDHE-ECDSA-AES256-GCM-SHA384", protocol_min="tls1.3")
    with pytest.raises(ConfigError, match=r"ssl_ciphers chooses among those of TLS 1\.2"):
        make_context(chosen)


def test_the_client_chooses_among_ciphers(files: Path) -> None:
    context = make_context(settings(files))
    favourite = "ECDHE-ECDSA-CHACHA20-POLY1305"

    ends = shake(
        context,
        maximum_version=ssl.TLSVersion.TLSv1_2,
        ciphers=f"{favourite}:ECDHE-ECDSA-AES128-GCM-SHA256",
    )

    assert (ends.server.cipher() or [""])[0] == favourite


def test_there_is_neither_compression_nor_renegotiation(files: Path) -> None:
    options = make_context(settings(files)).options

    assert options & ssl.OP_NO_COMPRESSION
    assert options & ssl.OP_NO_RENEGOTIATION
    assert not options & ssl.OP_NO_TICKET


def test_the_first_protocol_in_common_is_agreed_on(files: Path) -> None:
    context = make_context(settings(files, alpn=("h2", "http/1.1")))

    chosen = [
        shake(context, alpn=offer).server.selected_alpn_protocol()
        for offer in (["http/1.1", "h2"], ["http/1.1"], ["spdy"])
    ]

    assert chosen == ["h2", "http/1.1", None]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", [None, "other.example"])
def test_sessions_are_resumed_also_those_of_a_named_host(
    files: Path, version: ssl.TLSVersion, name: str | None
) -> None:
    sni = (("other.example", str(files / "other.pem"), str(files / "other.key")),)
    context = make_context(settings(files, sni=sni))
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.check_hostname = False
    own.verify_mode = ssl.CERT_NONE
    own.maximum_version = version
    first = connect(context, own, name)

    again = connect(context, own, name, first.client.session)

    assert again.server.session_reused and again.client.session_reused
    assert name_of(again.client) == ("CN=other.example" if name else "CN=example.org")
    assert tls_extension(again.server)["server_cert"] == (OTHER if name else SERVER).pem


# ------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (None, "example.org"),
        ("example.org", "example.org"),
        ("unknown.example", "example.org"),
        ("other.example", "other.example"),
        ("OTHER.example", "other.example"),
        ("deep.other.example", "example.org"),
        ("www.wild.example", "wild"),
        ("exact.wild.example", "exact"),
        ("wild.example", "example.org"),
        ("a.b.wild.example", "example.org"),
    ],
)
def test_the_name_that_is_asked_for_chooses_the_certificate(
    files: Path, asked: str | None, answered: str
) -> None:
    def saved(name: str) -> tuple[str, str]:
        return AUTHORITY.issue("unused.example", common_name=name).save(files, name)

    sni = (
        ("other.example", str(files / "other.pem"), str(files / "other.key")),
        ("*.wild.example", *saved("wild")),
        ("exact.wild.example", *saved("exact")),
    )
    context = make_context(settings(files, sni=sni))

    assert name_of(shake(context, asked).client) == f"CN={answered}"


def test_whatever_the_name_clients_are_asked_for_the_same(files: Path) -> None:
    sni = (("other.example", str(files / "other.pem"), str(files / "other.key")),)
    context = make_context(
        settings(files, sni=sni, cert_reqs="required", ca_certs=str(files / "ca.pem"))
    )

    with pytest.raises(ssl.SSLError) as refusal:
        shake(context, "other.example", files=files)
    assert refusal.value.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    ends = shake(context, "other.example", files=files, identity="client")
    assert name_of(ends.server) == "CN=ada"


def test_the_key_may_be_in_the_file_of_the_certificate(files: Path) -> None:
    both = files / "both.pem"
    both.write_text(OTHER.key_pem() + OTHER.pem)
    context = make_context(Settings(str(both), sni=(("x.example", str(both), None),)))

    assert name_of(shake(context).client) == "CN=other.example"
    assert name_of(shake(context, "x.example").client) == "CN=other.example"


def test_a_name_beyond_ascii_is_refused_without_a_traceback(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", ours.append)
    before = sys.unraisablehook
    sni = (("other.example", str(files / "other.pem"), str(files / "other.key")),)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = make_context(settings(files, sni=sni)).wrap_bio(up, down, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(down, up, server_hostname="abcd.org").do_handshake()
    up.write(up.read().replace(b"abcd.org", b"\xff" * 8))

    with names_are_ascii(), pytest.raises(ssl.SSLError, match="CALLBACK_FAILED"):
        server.do_handshake()

    assert ours == []
    assert sys.unraisablehook is before


def test_other_failures_without_a_caller_are_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bomb:
        def __del__(self) -> None:
            raise ZeroDivisionError

    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_type))

    with names_are_ascii():
        Bomb()

    assert told == [ZeroDivisionError]


# ------------------------------------------------------------------------------ clients


def mutual(files: Path, cert_reqs: str, **others: Any) -> ssl.SSLContext:
    return make_context(
        settings(files, cert_reqs=cert_reqs, ca_certs=str(files / "ca.pem"), **others)
    )


def test_a_client_may_come_without_a_certificate_where_that_is_optional(files: Path) -> None:
    ends = shake(mutual(files, "optional"), files=files)

    extension = tls_extension(ends.server)
    assert extension.get("client_cert_chain") == ()
    assert extension.get("client_cert_name") is None


@pytest.mark.parametrize("cert_reqs", ["optional", "required"])
def test_a_client_with_a_certificate_is_known(files: Path, cert_reqs: str) -> None:
    ends = shake(mutual(files, cert_reqs), files=files, identity="client")

    extension = tls_extension(ends.server)
    chain = [*extension.get("client_cert_chain", ())]
    whole = [CLIENT.pem, AUTHORITY.pem] if sys.version_info >= (3, 13) else [CLIENT.pem]
    assert chain == whole
    assert extension.get("client_cert_name") == "CN=ada"
    assert extension.get("client_cert_error") is None


@pytest.mark.parametrize("cert_reqs", ["optional", "required"])
def test_a_client_of_another_authority_is_refused(files: Path, cert_reqs: str) -> None:
    Authority("Somebody Else").issue(common_name="eve").save(files, "eve")

    with pytest.raises(ssl.SSLCertVerificationError):
        shake(mutual(files, cert_reqs), files=files, identity="eve")


def test_a_client_that_is_not_asked_shows_nothing(files: Path) -> None:
    ends = shake(make_context(settings(files)), files=files, identity="client")

    assert ends.server.getpeercert(True) is None


def test_a_revoked_client_is_refused_and_the_others_are_not(files: Path) -> None:
    context = mutual(files, "required", crl=str(files / "crl.pem"))

    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        shake(context, files=files, identity="bob")
    assert name_of(shake(context, files=files, identity="client").server) == "CN=ada"


def test_a_client_whose_authority_has_no_revocation_list_is_refused(files: Path) -> None:
    other = Authority("Listless")
    other.issue(common_name="carol").save(files, "carol")
    (files / "ca.pem").write_text(AUTHORITY.pem + other.pem)
    context = mutual(files, "required", crl=str(files / "crl.pem"))

    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get certificate CRL"):
        shake(context, files=files, identity="carol")


# ------------------------------------------------------------------------------ the extension


@pytest.mark.parametrize(
    ("version", "cipher", "numbers"),
    [
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", (0x0303, 0xC02B)),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-CHACHA20-POLY1305", (0x0303, 0xCCA9)),
    ],
)
def test_version_and_cipher_are_the_numbers_on_the_wire(
    files: Path, version: ssl.TLSVersion, cipher: str, numbers: tuple[int, int]
) -> None:
    ends = shake(make_context(settings(files)), maximum_version=version, ciphers=cipher)

    extension = tls_extension(ends.server)
    assert (extension["tls_version"], extension["cipher_suite"]) == numbers


def test_the_extension_has_every_key_of_the_specification(files: Path) -> None:
    extension = tls_extension(shake(make_context(settings(files))).server)

    assert dict(extension) == {
        "server_cert": SERVER.pem,
        "client_cert_chain": (),
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": 0x0304,
        "cipher_suite": 0x1302,  # OpenSSL's own favourite
    }


def test_the_certificate_is_the_one_that_was_sent(files: Path) -> None:
    sni = (("other.example", str(files / "other.pem"), str(files / "other.key")),)
    context = make_context(settings(files, sni=sni))

    assert tls_extension(shake(context, "other.example").server)["server_cert"] == OTHER.pem
    assert tls_extension(shake(context).server)["server_cert"] == SERVER.pem


def test_of_a_chain_the_certificate_is_the_first(files: Path) -> None:
    (files / "server.pem").write_text(f"Subject: example.org\n{SERVER.pem}{AUTHORITY.pem}")

    extension = tls_extension(shake(make_context(settings(files))).server)

    assert extension["server_cert"] == SERVER.pem


def test_a_context_of_the_program_does_not_give_its_certificate_away(files: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "server.pem", files / "server.key")

    extension = tls_extension(shake(context).server)

    assert extension["server_cert"] is None
    assert extension["tls_version"] == 0x0304


def named(*parts: Any) -> Issued:
    """A certificate whose subject has these parts: (identifier, value) or lists of those."""

    def attribute(oid: str, value: Any) -> Any:
        kind = x509.name._ASN1Type.BitString if isinstance(value, bytes) else None
        return x509.NameAttribute(x509.ObjectIdentifier(oid), value, kind)

    rdns = [
        x509.RelativeDistinguishedName([attribute(*each) for each in part])
        if isinstance(part, list)
        else x509.RelativeDistinguishedName([attribute(*part)])
        for part in parts
    ]
    return AUTHORITY.issue(subject=x509.Name(rdns))


C, O, OU, CN, UID, DC = (  # noqa: E741
    "2.5.4.6", "2.5.4.10", "2.5.4.11", "2.5.4.3",
    "0.9.2342.19200300.100.1.1", "0.9.2342.19200300.100.1.25",
)  # fmt: skip
EMAIL = "1.2.840.113549.1.9.1"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        # The examples of RFC 4514 §4.
        ([(DC, "net"), (DC, "example"), (UID, "jsmith")], "UID=jsmith,DC=example,DC=net"),
        (
            [(DC, "net"), (DC, "example"), [(OU, "Sales"), (CN, "J.  Smith")]],
            "{OU=Sales+CN=J.  Smith},DC=example,DC=net",
        ),
        ([(CN, 'James "Jim" Smith, III')], r"CN=James \"Jim\" Smith\, III"),
        ([(CN, "Lučić")], "CN=Lučić"),
        # §2.4, each rule of it.
        ([(CN, " lead")], r"CN=\ lead"),
        ([(CN, "#lead")], r"CN=\#lead"),
        ([(CN, "trail ")], r"CN=trail\ "),
        ([(CN, "in # si de")], "CN=in # si de"),
        ([(CN, "a+b;c<d>e\\f")], r"CN=a\+b\;c\<d\>e\\f"),
        ([(CN, "a=b")], "CN=a=b"),
        ([(C, "GB"), (O, "Ada"), (EMAIL, "a@b.c")], "emailAddress=a@b.c,O=Ada,C=GB"),
        ([("1.3.6.1.4.1.99999.1", "x")], "1.3.6.1.4.1.99999.1=#0c0178"),
        ([("2.999.3", "x")], "2.999.3=#0c0178"),
    ],
)
def test_names_are_written_as_rfc_4514_says(parts: list[Any], expected: str) -> None:
    der = ssl.PEM_cert_to_DER_cert(named(*parts).pem)

    got = subject(der)

    if expected.startswith("{"):  # the order within is DER's
        one, rest = expected[1:].split("}")
        first, second = one.split("+")
        assert got in (f"{first}+{second}{rest}", f"{second}+{first}{rest}")
    else:
        assert got == expected


def test_a_name_can_be_read_back_by_others() -> None:
    issued = named((C, "GB"), (O, 'a, "b"'), (CN, " #x "))

    assert x509.Name.from_rfc4514_string(subject(ssl.PEM_cert_to_DER_cert(issued.pem))) == (
        issued.certificate.subject
    )


def test_a_value_that_is_no_text_is_written_as_its_bytes() -> None:
    issued = named(("2.5.4.45", b"\x00\x01"))  # uniqueIdentifier, a bit string

    name = subject(ssl.PEM_cert_to_DER_cert(issued.pem))

    assert name == "2.5.4.45=#03020001"


# ------------------------------------------------------------------------------ what is wrong


def refused(made: Settings) -> ConfigError:
    with pytest.raises(ConfigError) as refusal:
        make_context(made)
    assert "\n" not in str(refusal.value)
    return refusal.value


def test_a_missing_file_is_named_with_its_option(files: Path) -> None:
    def change(**values: Any) -> Settings:
        return settings(files, cert_reqs="optional", ca_certs=str(files / "ca.pem"))._replace(
            **values
        )

    for name in ("certfile", "keyfile", "ca_certs", "crl"):
        error = refused(change(**{name: "/nowhere/x.pem"}))
        assert error.option == f"ssl_{name}"
        assert str(error) == f"ssl_{name}: cannot read /nowhere/x.pem: No such file or directory"


def test_where_a_relative_file_was_looked_for_is_told(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)

    error = refused(Settings("missing.pem"))

    assert f"missing.pem (looked for in {files})" in str(error)


def test_what_is_no_pem_is_told_with_what_pem_looks_like(files: Path) -> None:
    (files / "empty.pem").write_bytes(b"\xff\xfe")
    empty = str(files / "empty.pem")
    good = settings(files, cert_reqs="optional", ca_certs=str(files / "ca.pem"))
    for name, label in [
        ("certfile", "CERTIFICATE"),
        ("keyfile", "PRIVATE KEY"),
        ("ca_certs", "CERTIFICATE"),
        ("crl", "X509 CRL"),
    ]:
        changed: dict[str, Any] = {name: empty}
        error = refused(good._replace(**changed))
        assert error.option == f"ssl_{name}"
        assert empty in str(error) and f"-----BEGIN {label}-----" in str(error)


def test_a_folder_is_no_file(files: Path) -> None:
    assert "Is a directory" in str(refused(Settings(str(files))))


def test_a_broken_certificate_is_told(files: Path) -> None:
    lines = SERVER.pem.splitlines()
    lines[3] = lines[3][::-1]
    (files / "server.pem").write_text("\n".join(lines) + "\n")

    error = refused(settings(files))

    assert error.option == "ssl_certfile"
    assert f"OpenSSL refuses {files}/server.pem" in str(error)


@pytest.mark.parametrize(("name", "label"), [("ca_certs", "CERTIFICATE"), ("crl", "X509 CRL")])
def test_a_broken_authority_or_list_is_told(files: Path, name: str, label: str) -> None:
    broken = files / "broken.pem"
    broken.write_text(f"-----BEGIN {label}-----\nMIIB\n-----END {label}-----\n")
    made = settings(files, cert_reqs="optional", ca_certs=str(files / "ca.pem"))

    changed: dict[str, Any] = {name: str(broken)}
    error = refused(made._replace(**changed))

    assert error.option == f"ssl_{name}" and f"cannot read {broken}" in str(error)


def test_a_key_of_another_certificate_is_told(files: Path) -> None:
    error = refused(Settings(str(files / "server.pem"), str(files / "other.key")))

    assert error.option == "ssl_keyfile"
    assert f"the key in {files}/other.key does not belong to" in str(error)
    assert f"{files}/server.pem" in str(error)


def test_a_certificate_without_a_key_asks_for_it(files: Path) -> None:
    error = refused(Settings(str(files / "server.pem")))

    assert error.option == "ssl_keyfile"
    assert "no private key: give the key's file" in str(error)


def test_what_is_wrong_with_a_named_host_is_told_as_that(files: Path) -> None:
    for sni in [
        ("x.example", "/nowhere/x.pem", None),
        ("x.example", str(files / "server.pem"), None),
        ("x.example", str(files / "server.pem"), str(files / "other.key")),
        ("x.example", str(files / "server.pem"), "/nowhere/x.key"),
    ]:
        assert refused(settings(files, sni=(sni,))).option == "ssl_sni"


def test_an_encrypted_key_opens_with_its_password_alone(files: Path) -> None:
    certfile, keyfile = SERVER.save(files, "locked", "sesame")

    make_context(Settings(certfile, keyfile, "sesame"))
    missing = refused(Settings(certfile, keyfile))
    wrong = refused(Settings(certfile, keyfile, "hunter2"))

    assert missing.option == wrong.option == "ssl_keyfile_password"
    assert str(missing).endswith(f"the key in {keyfile} is encrypted: give its password")
    assert str(wrong).endswith(f"the password does not open the key in {keyfile}")
    assert "hunter2" not in str(wrong)


def test_a_password_that_is_not_needed_does_no_harm(files: Path) -> None:
    make_context(settings(files, keyfile_password="sesame"))


def test_a_password_that_is_too_long_is_told(files: Path) -> None:
    certfile, keyfile = SERVER.save(files, "locked", "sesame")

    error = refused(Settings(certfile, keyfile, "x" * 2000))

    assert error.option == "ssl_keyfile_password" and "1024" in str(error)


@pytest.mark.parametrize("ciphers", ["NONSENSE", "TLS_AES_128_GCM_SHA256"])
def test_ciphers_that_openssl_does_not_know_are_told(files: Path, ciphers: str) -> None:
    error = refused(settings(files, ciphers=ciphers))

    assert error.option == "ssl_ciphers" and ciphers in str(error)


# ------------------------------------------------------------------------------ reading again


class Watched:
    """Certificates under a clock of the test's own, and what they log."""

    def __init__(self, made: Settings, caplog: pytest.LogCaptureFixture) -> None:
        self.now = 100.0
        self._caplog = caplog
        caplog.set_level(logging.INFO, "omnicorn")
        self.certificates = Certificates(made, lambda: self.now)

    def after(self, seconds: float) -> ssl.SSLContext:
        self.now += seconds
        return self.certificates.current()

    def logged(self) -> list[tuple[str, str]]:
        """Level and text of what was logged since the last call."""
        records = [(record.levelname, record.getMessage()) for record in self._caplog.records]
        self._caplog.clear()
        return records


def test_as_long_as_nothing_changes_the_context_is_the_same(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(settings(files), caplog)
    first = watched.after(0)

    assert watched.after(LOOK_INTERVAL) is first
    assert watched.after(1e6) is first
    assert watched.logged() == []


def test_a_changed_certificate_is_used_by_who_comes_next(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(settings(files), caplog)
    old = watched.after(0)
    OTHER.save(files, "server")

    new = watched.after(LOOK_INTERVAL)

    assert name_of(shake(new).client) == "CN=other.example"
    assert name_of(shake(old).client) == "CN=example.org"
    [(level, message)] = watched.logged()
    assert level == "INFO" and str(files / "server.pem") in message


def test_files_are_looked_at_once_in_an_interval(
    files: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(settings(files), caplog)
    looks: list[str] = []
    stat = os.stat

    def counting(path: str) -> os.stat_result:
        looks.append(path)
        return stat(path)

    monkeypatch.setattr(os, "stat", counting)

    for _ in range(10):
        watched.after(LOOK_INTERVAL / 8)

    assert looks == [str(files / "server.pem"), str(files / "server.key")]


def test_every_file_is_watched(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    sni = (("other.example", str(files / "other.pem"), str(files / "other.key")),)
    made = settings(
        files, sni=sni, cert_reqs="optional", ca_certs=str(files / "ca.pem"),
        crl=str(files / "crl.pem"),
    )  # fmt: skip
    watched = Watched(made, caplog)
    before = watched.after(0)
    names = ["server.pem", "server.key", "other.pem", "other.key", "ca.pem", "crl.pem"]
    for name in names:
        path = files / name
        path.write_text(path.read_text() + "\n")

        context = watched.after(LOOK_INTERVAL)

        assert context is not before, name
        before = context
    assert len(watched.logged()) == len(names)


def test_a_client_revoked_since_cannot_resume_its_session(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (files / "crl.pem").write_text(AUTHORITY.revoke())
    made = settings(
        files, cert_reqs="required", ca_certs=str(files / "ca.pem"), crl=str(files / "crl.pem")
    )
    watched = Watched(made, caplog)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.check_hostname = False
    own.load_verify_locations(files / "ca.pem")
    own.load_cert_chain(files / "bob.pem", files / "bob.key")
    first = connect(watched.after(0), own)
    again = connect(watched.after(0), own, session=first.client.session)
    assert again.server.session_reused

    (files / "crl.pem").write_text(AUTHORITY.revoke(REVOKED) + "\n")

    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        connect(watched.after(LOOK_INTERVAL), own, session=again.client.session)


def test_a_bad_file_keeps_the_old_certificate_and_is_told_once(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(settings(files), caplog)
    old = watched.after(0)
    (files / "server.key").write_text("nonsense")

    # Not at once: its other half may be on its way.
    assert watched.after(LOOK_INTERVAL) is old
    assert watched.logged() == []
    assert watched.after(LOOK_INTERVAL) is old
    [(level, message)] = watched.logged()
    assert level == "ERROR" and "stay the old ones: ssl_keyfile: " in message
    assert watched.after(LOOK_INTERVAL) is old
    assert watched.logged() == []

    (files / "server.key").unlink()
    watched.after(LOOK_INTERVAL)
    watched.after(LOOK_INTERVAL)
    [(_, message)] = watched.logged()
    assert "No such file" in message

    OTHER.save(files, "server")
    assert name_of(shake(watched.after(LOOK_INTERVAL)).client) == "CN=other.example"
    [(level, _)] = watched.logged()
    assert level == "INFO"


def test_a_certificate_whose_key_follows_a_moment_later_is_no_error(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(settings(files), caplog)
    old = watched.after(0)

    (files / "server.pem").write_text(OTHER.pem)
    assert watched.after(LOOK_INTERVAL) is old
    (files / "server.key").write_text(OTHER.key_pem())

    assert name_of(shake(watched.after(LOOK_INTERVAL)).client) == "CN=other.example"
    assert [level for level, _ in watched.logged()] == ["INFO"]


def test_asked_for_it_reads_at_once_and_tells_at_once(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(settings(files), caplog)
    old = watched.after(0)

    watched.certificates.reload()
    assert watched.after(0) is not old
    assert [level for level, _ in watched.logged()] == ["INFO"]

    current = watched.after(0)
    (files / "server.pem").write_text("nonsense")
    watched.certificates.reload()
    assert watched.after(0) is current
    assert [level for level, _ in watched.logged()] == ["ERROR"]
    watched.after(LOOK_INTERVAL)
    watched.after(LOOK_INTERVAL)
    assert watched.logged() == []


def test_a_mounted_secret_changes_by_its_link(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for version, issued in {"1": SERVER, "2": OTHER}.items():
        (files / version).mkdir()
        issued.save(files / version, "tls")
    (files / "data").symlink_to("1")
    made = Settings(str(files / "data" / "tls.pem"), str(files / "data" / "tls.key"))
    watched = Watched(made, caplog)
    watched.after(0)

    (files / "new").symlink_to("2")
    (files / "new").replace(files / "data")

    assert name_of(shake(watched.after(LOOK_INTERVAL)).client) == "CN=other.example"


def test_what_is_wrong_at_the_start_is_raised(files: Path) -> None:
    with pytest.raises(ConfigError):
        Certificates(Settings(str(files / "missing.pem")), lambda: 0.0)
