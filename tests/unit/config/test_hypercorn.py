from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from omnicorn.config import Config
from omnicorn.config.hypercorn import NAMES, PARTIAL, REFUSED, RENAMED, TRANSLATED, advice
from omnicorn.config.options import OPTIONS
from omnicorn.errors import ConfigError

#: Every public attribute of the Config of hypercorn 0.18 that can be set.
ATTRIBUTES = re.findall(
    r"\w+",
    """
    access_log_format accesslog alpn_protocols alt_svc_headers application_path backlog bind
    ca_certs cert_reqs certfile ciphers daemon debug dogstatsd_tags errorlog graceful_timeout group
    h11_max_incomplete_size h11_pass_raw_headers h2_max_concurrent_streams h2_max_header_list_size
    h2_max_inbound_frame_size include_date_header include_server_header insecure_bind
    keep_alive_max_requests keep_alive_timeout keyfile keyfile_password logconfig logconfig_dict
    logger_class loglevel max_app_queue_size max_requests max_requests_jitter pid_path quic_bind
    read_timeout root_path server_names shutdown_timeout ssl_handshake_timeout startup_timeout
    statsd_host statsd_prefix umask use_reloader user verify_flags verify_mode
    websocket_max_message_size websocket_ping_interval worker_class workers wsgi_max_body_size
    """,
)

TLS: dict[str, Any] = {"ssl_certfile": "a"}


def test_every_name_of_hypercorn_is_known_and_no_name_of_ours_is_shadowed() -> None:
    assert set(ATTRIBUTES) - set(OPTIONS) == NAMES
    assert len(NAMES) == len(RENAMED) + len(TRANSLATED) + len(REFUSED)
    assert set(RENAMED.values()) <= set(OPTIONS)
    assert set(TRANSLATED) >= PARTIAL


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"bind": "localhost", "root_path": "/a", "backlog": 100}, {"bind": ["localhost"],
         "root_path": "/a", "backlog": 100}),
        ({"certfile": "a", "keyfile": "b", "keyfile_password": "c", "ciphers": "d"},
         {"ssl_certfile": "a", "ssl_keyfile": "b", "ssl_keyfile_password": "c",
          "ssl_ciphers": "d"}),
        ({"certfile": "a", "ca_certs": "b", "cert_reqs": 2},
         {**TLS, "ssl_ca_certs": "b", "ssl_cert_reqs": "required"}),
        ({"certfile": "a", "ca_certs": "b", "verify_mode": ssl.CERT_OPTIONAL},
         {**TLS, "ssl_ca_certs": "b", "ssl_cert_reqs": "optional"}),
        ({"certfile": "a", "ca_certs": "b", "verify_mode": "CERT_REQUIRED"},
         {**TLS, "ssl_ca_certs": "b", "ssl_cert_reqs": "required"}),
        ({"certfile": "a", "verify_mode": None}, TLS),
        ({"certfile": "a", "insecure_bind": "localhost:80", "ssl_handshake_timeout": 60},
         {**TLS, "insecure_bind": "localhost:80", "timeout_ssl_handshake": 60}),
        ({"keep_alive_timeout": 5, "graceful_timeout": 3, "read_timeout": 7},
         {"timeout_keep_alive": 5, "timeout_graceful_shutdown": 3, "timeout_body": 7}),
        ({"read_timeout": None}, {}),
        ({"h11_max_incomplete_size": 16384},
         {"limit_request_line": 16384, "limit_request_head": 16384}),
        ({"h2_max_header_list_size": 1024, "h2_max_concurrent_streams": 9},
         {"limit_request_head": 1024, "h2_max_concurrent_streams": 9}),
        ({"wsgi_max_body_size": 9, "max_app_queue_size": 8},
         {"limit_request_body": 9, "ws_max_queue": 8}),
        ({"websocket_max_message_size": 9, "websocket_ping_interval": 8},
         {"ws_max_size": 9, "ws_ping_interval": 8}),
        ({"websocket_ping_interval": None}, {"ws_ping_interval": 0}),
        ({"include_date_header": False, "include_server_header": False},
         {"date_header": False, "server_header": False}),
        ({"accesslog": None}, {"access_log": False}),
        ({"accesslog": "a.log"}, {"access_log_file": "a.log"}),
        ({"errorlog": "-", "loglevel": "WARNING"}, {"log_level": "warning"}),
        ({"logconfig": "log.ini"}, {"log_config": "log.ini"}),
        ({"logconfig": "json:log.json"}, {"log_config": "log.json"}),
        ({"logconfig_dict": {"version": 1}}, {"log_config": {"version": 1}}),
        ({"worker_class": "trio", "workers": 1}, {"loop": "trio"}),
        ({"alpn_protocols": ["h2", "http/1.1"]}, {}),
        ({"alpn_protocols": ["http/1.1"]}, {"http": "1"}),
        ({"alpn_protocols": ("h2",)}, {"http": "2"}),
        ({"alt_svc_headers": ["a", "b"], "headers": {"x": "y"}},
         {"headers": [("x", "y"), ("alt-svc", "a"), ("alt-svc", "b")]}),
        ({"application_path": "main:app"}, {"app": "main:app"}),
        ({"application_path": "wsgi:main:app"}, {"app": "main:app", "interface": "wsgi"}),
        ({"application_path": "asgi:main:app"}, {"app": "main:app", "interface": "asgi3"}),
        ({"application_path": "asgi:app"}, {"app": "asgi:app"}),
        ({"user": 1, "group": 2}, {"uds_owner": "1:2"}),
        ({"group": 2, "user": 1}, {"uds_owner": "1:2"}),
        ({"group": 2, "user": None}, {"uds_owner": ":2"}),
        ({"user": None, "group": None, "umask": None}, {}),
        ({"umask": 0o117}, {"uds_permissions": 0o660}),
    ],
    ids=str,
)  # fmt: skip
def test_a_name_of_hypercorn_gives_our_option(given: dict[str, Any], same: dict[str, Any]) -> None:
    expected = Config(**same)
    assert Config(**given) == expected
    config = Config()
    for name in sorted(given, key=NAMES.__contains__):  # ours first
        setattr(config, name, given[name])
    assert config == expected


@pytest.mark.parametrize("name", RENAMED)
def test_what_is_only_called_otherwise_can_be_read_by_either_name(name: str) -> None:
    assert getattr(Config(), name) == OPTIONS[RENAMED[name]].default


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 2),
        ("use_reloader", True),
        ("daemon", True),
        ("debug", True),
        ("pid_path", "a"),
        ("max_requests", 1),
        ("max_requests_jitter", 1),
        ("keep_alive_max_requests", 1000),
        ("statsd_host", "localhost:8125"),
        ("statsd_prefix", "a"),
        ("dogstatsd_tags", "a"),
        ("server_names", ["a"]),
        ("quic_bind", ["localhost:443"]),
        ("h11_pass_raw_headers", True),
        ("h2_max_inbound_frame_size", 65536),
        ("logger_class", object),
        ("verify_flags", ssl.VERIFY_CRL_CHECK_LEAF),
    ],
)
def test_what_nothing_here_does_is_an_error_that_says_what_to_do(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refusal:
        Config(**{name: value})
    assert str(refusal.value) == f"{name} = {value!r}: {advice(name)}"
    assert refusal.value.option == name
    with pytest.raises(AttributeError):
        getattr(Config(), name)


def test_every_refusal_is_tried() -> None:
    [cases] = [
        mark.args[1]
        for mark in test_what_nothing_here_does_is_an_error_that_says_what_to_do.pytestmark
    ]
    assert {name for name, _ in cases} == set(REFUSED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 1),
        ("workers", 0),
        ("use_reloader", False),
        ("debug", False),
        ("pid_path", None),
        ("max_requests", None),
        ("max_requests_jitter", 0),
        ("statsd_host", None),
        ("statsd_prefix", ""),
        ("server_names", []),
        ("quic_bind", []),
        ("h2_max_inbound_frame_size", 16384),
    ],
)
def test_what_asks_for_nothing_is_accepted(name: str, value: Any) -> None:
    assert Config(**{name: value}) == Config()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("accesslog", object(), "configure the logger omnicorn.access"),
        ("errorlog", "a.log", "give log_config"),
        ("errorlog", None, "give log_config"),
        ("alpn_protocols", ["http/1.1", "h2"], "expected one of .'h2', 'http/1.1'., "),
        ("alpn_protocols", {"h2": 1}, "expected one of .'h2', 'http/1.1'., "),
        ("alpn_protocols", [["h2"]], "expected one of .'h2', 'http/1.1'., "),
        ("alt_svc_headers", "h3", "expected a list"),
        ("logconfig", "json:log.conf", "call it log.conf.json"),
        ("user", "www", "names are understood by uds_owner"),
        ("group", True, "expected a number"),
        ("umask", -1, "from 0 to 0o777"),
    ],
)
def test_a_value_that_cannot_be_translated_is_an_error(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        Config(**{name: value})
    assert refusal.value.option == name


@pytest.mark.parametrize(
    ("name", "ours"), [("logconfig", "log_config"), ("application_path", "app")]
)
def test_a_value_of_another_type_is_judged_by_our_option(name: str, ours: str) -> None:
    with pytest.raises(
        ConfigError, match=f"^{ours} = 1 .from mapping .{name}..: expected"
    ) as refusal:
        Config.from_mapping({name: 1})
    assert refusal.value.option == ours


def test_a_wrong_value_is_told_by_our_name_and_by_the_one_that_was_used() -> None:
    with pytest.raises(ConfigError) as refusal:
        Config(keep_alive_timeout="x")  # type: ignore[call-arg]
    assert str(refusal.value).startswith("timeout_keep_alive = 'x' (from keep_alive_timeout): ")
    with pytest.raises(ConfigError) as refusal:
        Config(keyfile_password="hunter2\0")  # type: ignore[call-arg]
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "values",
    [
        {"timeout_keep_alive": 1, "keep_alive_timeout": 2},
        {"h11_max_incomplete_size": 1, "h2_max_header_list_size": 2},
        {"certfile": "a", "verify_mode": 2, "cert_reqs": 2},
    ],
    ids=str,
)
def test_two_names_of_one_option_are_an_error(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"both give .*: leave one of them out"):
        Config(**values)


def test_a_name_of_several_options_sets_all_or_none() -> None:
    config = Config(access_log=False)
    with pytest.raises(ConfigError):
        config.accesslog = ""  # type: ignore[attr-defined]
    assert config == Config(access_log=False)


def test_the_nearest_name_may_be_one_of_hypercorn() -> None:
    with pytest.raises(ConfigError, match="did you mean 'keep_alive_timeout'"):
        Config.from_mapping(keep_alive_timout=3)


def test_the_document_lists_every_name_with_the_option_that_is_meant() -> None:
    page = Path(__file__).parents[3] / "docs" / "configuration.md"
    section = page.read_text("utf-8").split("## Names of hypercorn\n")[1].split("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.M))
    assert list(told) == sorted(NAMES)
    for name, ours in told.items():
        if name in RENAMED:
            assert ours == f"`{RENAMED[name]}`"
        elif name in REFUSED:
            assert ours == "-"
        else:
            assert set(re.findall(r"`(\w+)`", ours)) <= set(OPTIONS), name
