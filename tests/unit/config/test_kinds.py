from __future__ import annotations

import ssl
import tomllib
import warnings

import pytest

from omnicorn.config import kinds
from omnicorn.config.kinds import (
    CertReqs,
    Choice,
    Hsts,
    Integer,
    Kind,
    LogConfig,
    Permissions,
    Seconds,
    Secret,
    Size,
    Switch,
    Text,
    TLSContext,
    quote,
)

CHOICE = Choice("auto", "on", "off")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Text("x", "X"), "a b", "a b"),
        (Switch(), "true", True),
        (Switch(), "YES", True),
        (Switch(), "on", True),
        (Switch(), "1", True),
        (Switch(), "False", False),
        (Switch(), "no", False),
        (Switch(), "off", False),
        (Switch(), "0", False),
        (CHOICE, "On", "on"),
        (Integer(0), "42", 42),
        (Size(), "1", 1),
        (Size(), "64K", 65536),
        (Size(), "64k", 65536),
        (Size(), "10M", 10 * 1024 * 1024),
        (Size(), "1GiB", 1 << 30),
        (Seconds(), "15", 15.0),
        (Seconds(), "0.5", 0.5),
        (Seconds(), ".5s", 0.5),
        (Seconds(), "500ms", 0.5),
        (Seconds(), "2m", 120.0),
        (Seconds(), "1.5h", 5400.0),
        (Seconds(off=True), "0", 0.0),
        (Seconds(off=True), "0s", 0.0),
        (Seconds(off=True), "0.5", 0.5),
        (Permissions(), "660", 0o660),
        (Permissions(), "0660", 0o660),
        (Permissions(), "0o660", 0o660),
        (Permissions(), "0", 0),
        (kinds.ROOT_PATH, "", ""),
        (kinds.ROOT_PATH, "/", ""),
        (kinds.ROOT_PATH, "/api/", "/api"),
        (kinds.OWNER, "www", "www"),
        (kinds.OWNER, "www:data", "www:data"),
        (kinds.OWNER, ":33", ":33"),
        (kinds.BIND, ":80, unix:/a", (":80", "unix:/a")),
        (kinds.TRUSTED, "10.0.0.0/8, ::1,unix,*", ("10.0.0.0/8", "::1", "unix", "*")),
        (kinds.TRUSTED, "", ()),
        (kinds.HEADERS, "A: 1, 2\nb:3\n\n", (("A", "1, 2"), ("b", "3"))),
        (Secret("x", "X"), " a ", " a "),
        (CertReqs(), "none", "none"),
        (CertReqs(), "Optional", "optional"),
        (CertReqs(), "0", "none"),
        (CertReqs(), "1", "optional"),
        (CertReqs(), "2", "required"),
        (CertReqs(), "CERT_REQUIRED", "required"),
        (Hsts(), "31536000", "max-age=31536000"),
        (Hsts(), "0", "max-age=0"),
        (Hsts(), 'max-age="1"; includeSubDomains', 'max-age="1"; includeSubDomains'),
        (Hsts(), "preload;\nMAX-AGE=1", "preload; MAX-AGE=1"),
        (kinds.SNI, "a.example=a.pem", (("a.example", "a.pem", None),)),
        (kinds.SNI, "A.example.=a.pem, a.key", (("a.example", "a.pem", "a.key"),)),
        (
            kinds.SNI,
            "*.a.example=/a=b,c\nbücher.example=d\n",
            (("*.a.example", "/a=b", "c"), ("xn--bcher-kva.example", "d", None)),
        ),
    ],
)
def test_text_is_read_as_the_value_it_means(kind: Kind, text: str, value: object) -> None:
    read = kind.check(kind.parse(text))
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Text("x", "X"), ""),
        (Text("x", "X"), "a\0"),
        (Switch(), "maybe"),
        (Switch(), ""),
        (CHOICE, "of"),
        (Integer(0), ""),
        (Integer(0), "x"),
        (Integer(0), "1.0"),
        (Integer(0), "1_000"),
        (Integer(0), " 1"),
        (Integer(0), "٣"),
        (Integer(0), "-1"),
        (Integer(0), "9" * 5000),
        (Integer(0, 9), "10"),
        (Size(), "0"),
        (Size(), "-1"),
        (Size(), "1.5M"),
        (Size(), "K"),
        (Size(), "10MB"),
        (Size(), "10 M"),
        (Size(), "64ib"),
        (Seconds(), "0"),
        (Seconds(), "-1"),
        (Seconds(), "nan"),
        (Seconds(), "inf"),
        (Seconds(), "1e3"),
        (Seconds(), "1d"),
        (Seconds(), "1m30s"),
        (Seconds(), "m"),
        (Seconds(), "1.2.3"),
        (Seconds(), "9999h"),
        (Seconds(off=True), "-1"),
        (Seconds(off=True), "nan"),
        (Seconds(off=True), "inf"),
        (Seconds(off=True), "off"),
        (Seconds(off=True), "9999h"),
        (Permissions(), "888"),
        (Permissions(), "1777"),
        (Permissions(), "-1"),
        (Permissions(), "rw"),
        (kinds.ROOT_PATH, "api"),
        (kinds.OWNER, ""),
        (kinds.OWNER, ":"),
        (kinds.OWNER, "www:"),
        (kinds.OWNER, "a:b:c"),
        (kinds.OWNER, "a b"),
        (kinds.BIND, "8000"),
        (kinds.TRUSTED, "localhost"),
        (kinds.TRUSTED, "10.0.0.1/8"),
        (kinds.TRUSTED, "10.0.0.0/33"),
        (kinds.HEADERS, "no colon"),
        (kinds.HEADERS, ": no name"),
        (kinds.HEADERS, "bad name: x"),
        (Secret("x", "X"), ""),
        (CertReqs(), "3"),
        (CertReqs(), "-1"),
        (CertReqs(), "CERT_ALL"),
        (Hsts(), ""),
        (Hsts(), "-1"),
        (Hsts(), "1y"),
        (Hsts(), "includeSubDomains"),
        (Hsts(), "max-age"),
        (Hsts(), "max-age=1; max-age=2"),
        (Hsts(), "max-age=1; preload=1"),
        (Hsts(), "max-age=1\r\nx: y"),
        (Hsts(), "max-age=1; x"),
        (TLSContext(), "context"),
        (kinds.SNI, "a.example"),
        (kinds.SNI, "=a.pem"),
        (kinds.SNI, "a.example="),
        (kinds.SNI, "a.example=a\0"),
        (kinds.SNI, "a.example=a,b\0"),
        (kinds.SNI, "a.example=,a.key"),
        (kinds.SNI, "a.example=a,b,c"),
        (kinds.SNI, "a..example=a"),
        (kinds.SNI, "a.example:443=a"),
        (kinds.SNI, "*=a"),
        (kinds.SNI, "a.*.example=a"),
        (kinds.SNI, "a*.example=a"),
        (kinds.SNI, "127.0.0.1=a"),
        (kinds.SNI, "[::1]=a"),
        (kinds.SNI, f"{'ü' * 64}.example=a"),
    ],
)
def test_text_that_means_no_value_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError):
        kind.check(kind.parse(text))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Text("x", "X"), 1),
        (Switch(), 1),
        (Switch(), "true"),
        (CHOICE, "of"),
        (CHOICE, None),
        (Integer(0), True),
        (Integer(0), "1"),
        (Integer(0), 1.0),
        (Size(), "10M"),
        (Seconds(), "1"),
        (Seconds(), True),
        (Seconds(), float("nan")),
        (Seconds(), float("inf")),
        (Seconds(), 0),
        (Seconds(off=True), "0"),
        (Seconds(off=True), False),
        (Seconds(off=True), -0.1),
        (Seconds(off=True), float("nan")),
        (Permissions(), "660"),
        (Permissions(), True),
        (Permissions(), 660),
        (kinds.BIND, 8000),
        (kinds.BIND, [8000]),
        (kinds.TRUSTED, [1]),
        (kinds.HEADERS, [("a", "b", "c")]),
        (kinds.HEADERS, [(b"a", "b")]),
        (kinds.HEADERS, {"a": 1}),
        (kinds.HEADERS, 1),
        (Secret("x", "X"), 1),
        (CertReqs(), 3),
        (CertReqs(), -1),
        (CertReqs(), True),
        (CertReqs(), None),
        (Hsts(), True),
        (Hsts(), 1.0),
        (Hsts(), -1),
        (LogConfig(), 1),
        (LogConfig(), ""),
        (kinds.PLAIN_BIND, "scgi:localhost:80"),
        (TLSContext(), "context"),
        (TLSContext(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)),
        (kinds.SNI, 1),
        (kinds.SNI, [("a.example",)]),
        (kinds.SNI, [("a.example", 1)]),
        (kinds.SNI, [("a.example", "a", 1)]),
        (kinds.SNI, [(1, "a", "b")]),
    ],
)
def test_a_typed_value_of_the_wrong_type_is_refused(kind: Kind, value: object) -> None:
    with pytest.raises(ValueError):
        kind.check(value)


def test_a_time_says_whether_0_is_one() -> None:
    assert Seconds(off=True).accepts.startswith("a time from 0 (off) up to a year, in seconds")
    assert Seconds().accepts.startswith("a time above 0 and up to a year, in seconds")


@pytest.mark.parametrize("char", ["\r", "\n", "\0", "\x1f", "\x7f", "\u20ac"])
def test_a_header_value_cannot_hold_what_ends_or_breaks_a_field(char: str) -> None:
    with pytest.raises(ValueError, match="no header can carry"):
        kinds.HEADERS.check([f"x-a: b{char}c"])


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Connection", "Upgrade"])
def test_a_framing_header_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="by the server alone"):
        kinds.HEADERS.check([(name, "1")])


def test_a_header_keeps_tabs_and_latin_letters_and_loses_outer_space() -> None:
    assert kinds.HEADERS.check(["x:  \u00e9\tb "]) == (("x", "\u00e9\tb"),)


def test_headers_come_as_text_pairs_or_a_table() -> None:
    expected = (("a", "1"),)
    assert kinds.HEADERS.check("a: 1") == expected
    assert kinds.HEADERS.check([["a", "1"]]) == expected
    assert kinds.HEADERS.check({"a": "1"}) == expected


def test_what_is_asked_of_clients_may_be_the_number_of_the_standard_library() -> None:
    assert CertReqs().check(ssl.CERT_NONE) == "none"
    assert CertReqs().check(ssl.CERT_OPTIONAL) == "optional"
    assert CertReqs().check(ssl.CERT_REQUIRED) == "required"


def test_a_choice_is_read_without_regard_to_case_from_code_too() -> None:
    assert CHOICE.check("ON") == "on"


def test_a_logging_configuration_is_a_file_or_a_mapping_of_its_own() -> None:
    mapping = {"version": 1}
    taken = LogConfig().check(mapping)
    mapping["version"] = 2
    assert taken == {"version": 1}
    assert LogConfig().check("log.ini") == "log.ini"


def test_a_mapping_is_shown_as_toml() -> None:
    mapping = {
        "version": 1,
        "x.y": {"a": [True, 0.5, 'q"'], "ext://sys.stdout": {}},
    }
    shown = LogConfig().show(mapping)
    assert "\n" not in shown
    assert tomllib.loads(f"log_config = {shown}") == {"log_config": mapping}
    assert LogConfig().show("log.ini") == '"log.ini"'


def test_hosts_with_certificates_come_as_text_tuples_or_a_table() -> None:
    expected = (("a.example", "a.pem", "a.key"),)
    assert kinds.SNI.check("a.example=a.pem,a.key") == expected
    assert kinds.SNI.check([["a.example", "a.pem", "a.key"]]) == expected
    assert kinds.SNI.check({"a.example": "a.pem,a.key"}) == expected
    assert kinds.SNI.check([("a.example", "a.pem")]) == (("a.example", "a.pem", None),)


def test_a_context_is_taken_as_it_is() -> None:
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context = ssl.SSLContext(protocol)
        assert TLSContext().check(context) is context


def test_a_secret_is_never_shown() -> None:
    assert Secret("x", "X").show("hunter2") == '"***"'


def test_permissions_given_as_decimal_digits_are_shown_in_octal() -> None:
    with pytest.raises(ValueError, match="0o1224"):
        Permissions().check(660)


def test_a_network_with_host_bits_is_told_so() -> None:
    with pytest.raises(ValueError, match="has host bits set"):
        kinds.TRUSTED.check(["10.0.0.1/8"])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Text("x", "X"), 'a"b\\c\x7fd\u00e9\x01'),
        (Switch(), True),
        (Switch(), False),
        (CHOICE, "auto"),
        (Integer(0), 7),
        (Size(), 65536),
        (Seconds(), 15.0),
        (Seconds(), 0.001),
        (Seconds(), 31536000.0),
        (Seconds(off=True), 0.0),
        (Permissions(), 0o60),
        (kinds.BIND, (":80", "unix:/a")),
        (kinds.HEADERS, (("a", "1"), ("b", '"'))),
        (CertReqs(), "required"),
        (Hsts(), 'max-age="1"; preload'),
        (kinds.SNI, (("a.example", "a", None), ("*.b.example", "b", "c"))),
    ],
)
def test_a_value_written_as_toml_reads_back(kind: Kind, value: object) -> None:
    read = tomllib.loads(f"key = {kind.show(value)}")["key"]
    if isinstance(read, str):
        read = kind.parse(read)
    assert kind.check(read) == value


def test_quoting_leaves_letters_readable() -> None:
    assert quote("é") == '"é"'
