from __future__ import annotations

import copy
import pickle
import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from omnicorn import runtime as runtime_package
from omnicorn.config import Bind, Config
from omnicorn.config.kinds import Seconds
from omnicorn.config.options import OPTIONS
from omnicorn.errors import ConfigError


def test_the_table_has_a_row_for_every_annotated_field_in_their_order() -> None:
    assert list(OPTIONS) == list(Config.__annotations__)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_default_is_a_value_its_own_option_accepts(name: str) -> None:
    row = OPTIONS[name]
    assert row.check(row.default) == row.default == getattr(Config(), name)


def test_flags_and_variables_come_from_the_name() -> None:
    row = OPTIONS["limit_request_body"]
    assert row.flags == ("--limit-request-body",)
    assert row.env == ("OMNICORN_LIMIT_REQUEST_BODY",)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("bind", ("--bind", "-b")),
        ("headers", ("--header",)),
        ("timeout_keep_alive", ("--timeout-keep-alive", "--keep-alive")),
        ("timeout_graceful_shutdown", ("--timeout-graceful-shutdown", "--graceful-timeout")),
        ("access_log_file", ("--access-log-file", "--access-logfile")),
        ("ssl_certfile", ("--ssl-certfile", "--certfile")),
        ("ssl_context", ()),
    ],
)
def test_other_flags_are_declared_with_the_option(name: str, flags: tuple[str, ...]) -> None:
    assert OPTIONS[name].flags == flags


def test_no_two_options_share_a_flag_or_a_variable() -> None:
    flags = [flag for row in OPTIONS.values() for flag in row.flags]
    variables = [variable for row in OPTIONS.values() for variable in row.env]
    assert len(flags) == len(set(flags))
    assert len(variables) == len(set(variables))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "x"),
        ("port", "8000"),
        ("port", -1),
        ("port", 65536),
        ("port", None),
        ("port", True),
        ("app", 1),
        ("host", ""),
        ("fd", -1),
        ("loop", "curio"),
        ("interface", "asgi"),
        ("threads", 0),
        ("log_config", 1),
        ("proxy_allow_from", ("nonsense",)),
        ("insecure_bind", ("scgi:localhost:80",)),
        ("backlog", 0),
        ("factory", "yes"),
        ("timeout_body", 0),
        ("timeout_body", float("inf")),
        ("limit_request_body", 0),
        ("limit_concurrency", 0),
        ("bind", ("8000",)),
        ("ws", "wsproto"),
        ("ws", None),
        ("ws_max_size", 0),
        ("ws_max_queue", 0),
        ("ws_max_queue", 1.5),
        ("ws_ping_interval", -1),
        ("ws_ping_interval", None),
        ("ws_ping_timeout", float("inf")),
        ("ws_per_message_deflate", 1),
        ("headers", ("x",)),
        ("ssl_cert_reqs", 3),
        ("ssl_protocol_min", "tls1.1"),
        ("ssl_sni", ("x",)),
        ("ssl_context", "context"),
        ("redirect_http", -1),
        ("hsts", "forever"),
        ("timeout_ssl_handshake", 0),
        ("forwarded_allow_ips", ("nonsense",)),
    ],
)
def test_a_bad_value_from_code_names_its_option(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refusal:
        Config(**{name: value})
    assert refusal.value.option == name
    assert str(refusal.value).startswith(f"{name} = {value!r}: ")
    assert OPTIONS[name].kind.accepts in str(refusal.value)


def test_an_unknown_keyword_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="unknown option 'prot'; did you mean 'port'"):
        Config(prot=1)  # type: ignore[call-arg]


def test_attributes_are_set_and_checked_one_by_one() -> None:
    config = Config(port=1)
    config.port = 2
    config.bind = ["127.0.0.1:0"]
    config.timeout_body = 3
    assert config.port == 2
    assert tuple(config.bind) == ("127.0.0.1:0",)
    assert repr(config.timeout_body) == "3.0"
    with pytest.raises(ConfigError, match=r"^port = 'x': expected a whole number"):
        config.port = "x"  # type: ignore[assignment]
    assert config.port == 2
    assert config == Config(port=2, bind=("127.0.0.1:0",), timeout_body=3)
    assert Config().port == 8000


def test_an_attribute_that_does_not_exist_can_be_neither_set_nor_read() -> None:
    config = Config()
    with pytest.raises(ConfigError, match="unknown option 'prot'; did you mean 'port'"):
        config.prot = 1  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="unknown option 'binds'; did you mean 'bind'"):
        config.binds = ()  # type: ignore[misc]
    with pytest.raises(AttributeError, match="has no 'prot'; did you mean 'port'"):
        config.prot  # type: ignore[attr-defined]  # noqa: B018
    assert config == Config()


def test_attributes_are_set_in_any_order_and_judged_together_when_they_are_used() -> None:
    config = Config()
    config.ssl_keyfile = "a"
    with pytest.raises(ConfigError, match="ssl_keyfile is for TLS"):
        config.validate()
    config.ssl_certfile = "b"
    config.validate()


def test_a_copy_does_not_see_what_is_set_later() -> None:
    config = Config(port=1)
    copied = config.replace()
    config.port = 2
    assert copied.port == 1


def test_a_configuration_that_may_change_has_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Config())


def test_a_subclass_whose_methods_nobody_would_call_is_refused() -> None:
    with pytest.raises(TypeError, match="ssl_context takes the place of create_ssl_context"):
        type("Own", (Config,), {})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("ws", "none", "none"),  # a choice, not the absence of one
        ("ws", "AUTO", "auto"),
        ("ws_max_size", "1M", 1 << 20),
        ("ws_max_queue", "1", 1),
        ("ws_ping_interval", "0", 0.0),
        ("ws_ping_interval", "500ms", 0.5),
        ("ws_ping_timeout", "0", 0.0),
        ("ws_per_message_deflate", "off", False),
    ],
)
def test_the_options_of_websockets_are_read(name: str, text: str, value: Any) -> None:
    row = OPTIONS[name]
    assert row.parse(text, "x") == value
    assert row.flags == ("--" + name.replace("_", "-"),)
    assert row.env == ("OMNICORN_" + name.upper(),)
    assert getattr(Config(**{name: value}), name) == value


def test_0_is_a_time_where_it_means_never_and_nowhere_else() -> None:
    off = {name for name in OPTIONS if "_ping_" in name}
    for name, row in OPTIONS.items():
        if isinstance(row.kind, Seconds):
            if name in off:
                assert row.check(0) == 0.0
            else:
                with pytest.raises(ConfigError):
                    row.check(0)


def test_replace_makes_a_checked_copy() -> None:
    config = Config(port=1, host="::1")
    assert config.replace(port=2) == Config(port=2, host="::1")
    with pytest.raises(ConfigError):
        config.replace(port="x")
    assert config.port == 1


def test_values_are_normalised() -> None:
    config = Config(timeout_body=2, root_path="/api/", bind=[":80"])
    assert repr(config.timeout_body) == "2.0"
    assert config.root_path == "/api"
    assert config.bind == (":80",)
    assert Config(log_level="INFO").log_level == "info"  # type: ignore[arg-type]


def test_equal_values_make_equal_configurations_given_or_not() -> None:
    assert Config(port=8000) == Config()
    assert Config(port=1) != Config()
    assert Config() != 8000


def test_the_repr_shows_what_differs_from_the_defaults() -> None:
    assert repr(Config(port=1, loop="auto")) == "Config(port=1)"


def test_a_configuration_survives_a_pickle_and_a_copy() -> None:
    config = Config(port=1, headers=(("a", "b"),))
    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config
    assert copy.copy(config) == config


@pytest.mark.parametrize(
    ("config", "binds"),
    [
        (Config(), (Bind("tcp", host="127.0.0.1", port=8000),)),
        (Config(host="[::1]", port=0), (Bind("tcp", host="::1", port=0),)),
        (Config(uds="/a"), (Bind("unix", path="/a"),)),
        (Config(fd=3), (Bind("fd", fd=3),)),
        (
            Config(bind=(":80", "unix:/b"), uds="/a", port=1),
            (Bind("tcp", host="", port=80), Bind("unix", path="/b")),
        ),
        (
            Config(bind=("scgi:localhost:9000", "localhost")),
            (Bind("tcp", "localhost", 9000, scheme="scgi"), Bind("tcp", "localhost", 8000)),
        ),
    ],
)
def test_binds_are_the_places_to_listen_at_whichever_options_named_them(
    config: Config, binds: tuple[Bind, ...]
) -> None:
    assert config.binds == binds


def test_two_places_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="uds and fd are both given"):
        Config(uds="/a", fd=3)


def test_a_list_of_one_place_may_be_that_place() -> None:
    assert Config(bind="localhost:80").bind == ("localhost:80",)


# The PROXY protocol ----------------------------------------------------------------------


def test_the_proxy_protocol_is_taken_from_this_machine_unless_others_are_named() -> None:
    assert Config(proxy_protocol=True).proxy_allow_from == ("127.0.0.1", "::1", "unix")
    config = Config(proxy_protocol=True, proxy_allow_from="10.0.0.0/8")
    assert config.proxy_allow_from == ("10.0.0.0/8",)


@pytest.mark.parametrize(
    ("values", "option", "message"),
    [
        ({"proxy_allow_from": "*"}, "proxy_allow_from", "PROXY protocol, which is off"),
        (
            {"proxy_protocol": True, "proxy_allow_from": ()},
            "proxy_allow_from",
            "so nobody could connect",
        ),
        (
            {"proxy_protocol": True, "bind": "scgi:localhost:80"},
            "proxy_protocol",
            "no place in bind is for HTTP",
        ),
    ],
)
def test_a_proxy_protocol_that_could_not_be_spoken_is_an_error(
    values: dict[str, Any], option: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        Config(**values)
    assert refusal.value.option == option


def test_text_from_a_source_is_read_and_its_source_named() -> None:
    row = OPTIONS["port"]
    assert row.parse("80", "--port") == 80
    with pytest.raises(ConfigError) as refusal:
        row.parse("70000", "OMNICORN_PORT")
    assert str(refusal.value) == (
        "port = '70000' (from OMNICORN_PORT): expected a whole number from 0 to 65535"
    )
    assert (refusal.value.option, refusal.value.source) == ("port", "OMNICORN_PORT")


@pytest.mark.parametrize("text", ["none", "None", ""])
def test_an_option_that_may_be_unset_reads_none_and_nothing_as_none(text: str) -> None:
    assert OPTIONS["uds"].parse(text, "x") is None
    with pytest.raises(ConfigError):
        OPTIONS["port"].parse(text, "x")


def test_an_error_of_an_option_that_may_be_unset_says_so() -> None:
    with pytest.raises(ConfigError, match="expected a whole number of 0 or more, or none"):
        OPTIONS["fd"].parse("x", "--fd")


# TLS ------------------------------------------------------------------------------------


def context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def test_tls_is_spoken_with_a_certificate_a_context_or_for_development() -> None:
    assert not Config().tls
    assert Config(ssl_certfile="a").tls
    assert Config(dev_tls=True).tls
    assert Config(ssl_context=context()).tls


def test_a_context_is_part_of_a_configuration_that_can_be_shown_and_compared() -> None:
    own = context()
    config = Config(ssl_context=own)
    assert repr(config) == f"Config(ssl_context={own!r})"
    assert config == Config(ssl_context=own)
    assert config != Config(ssl_context=context())
    assert config.replace(port=1).ssl_context is own


def test_a_password_is_not_shown() -> None:
    config = Config(ssl_certfile="a", ssl_keyfile_password="hunter2")
    assert repr(config) == "Config(ssl_certfile='a', ssl_keyfile_password=***)"
    with pytest.raises(ConfigError) as refusal:
        Config(ssl_keyfile_password="hunter2\0")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "values",
    [
        {"ssl_keyfile": "a"},
        {"ssl_keyfile_password": "a"},
        {"ssl_sni": ("a.example=a",)},
        {"ssl_cert_reqs": "required"},
        {"ssl_ca_certs": "a"},
        {"ssl_crl": "a"},
        {"ssl_protocol_min": "tls1.3"},
        {"ssl_ciphers": "a"},
        {"redirect_http": 80},
        {"insecure_bind": ("localhost:80",)},
        {"hsts": 1},
    ],
)
def test_what_is_for_tls_is_an_error_without_it(values: dict[str, Any]) -> None:
    [name] = values
    with pytest.raises(ConfigError, match="is for TLS, which is off") as refusal:
        Config(**values)
    assert refusal.value.option == name


@pytest.mark.parametrize(
    ("values", "option", "message"),
    [
        (
            {"ssl_certfile": "a", "dev_tls": True},
            "dev_tls",
            "ssl_certfile and dev_tls exclude each other",
        ),
        (
            {"ssl_certfile": "a", "ssl_context": context()},
            "ssl_context",
            "ssl_certfile and ssl_context exclude each other",
        ),
        (
            {"ssl_context": context(), "ssl_ciphers": "a"},
            "ssl_ciphers",
            "ssl_ciphers has no effect with ssl_context",
        ),
        (
            {"dev_tls": True, "ssl_keyfile": "a"},
            "ssl_keyfile",
            "ssl_keyfile has no effect with dev_tls",
        ),
        (
            {"dev_tls": True, "ssl_keyfile_password": "a"},
            "ssl_keyfile_password",
            "ssl_keyfile_password has no effect with dev_tls",
        ),
        (
            {"ssl_certfile": "a", "ssl_ca_certs": "a"},
            "ssl_ca_certs",
            "no client is asked for a certificate: set ssl_cert_reqs",
        ),
        (
            {"ssl_certfile": "a", "ssl_crl": "a"},
            "ssl_crl",
            "no client is asked for a certificate: set ssl_cert_reqs",
        ),
        (
            {"ssl_certfile": "a", "ssl_cert_reqs": 1},
            "ssl_ca_certs",
            "ssl_cert_reqs is optional, but no authority is trusted: give ssl_ca_certs",
        ),
        (
            {"dev_tls": True, "bind": ("scgi:localhost:80", "uwsgi:localhost:81")},
            "dev_tls",
            "dev_tls has no effect: no place in bind is for HTTP",
        ),
    ],
)
def test_what_would_be_less_safe_than_it_looks_is_an_error(
    values: dict[str, Any], option: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        Config(**values)
    assert refusal.value.option == option


def test_all_of_tls_can_be_configured_together() -> None:
    clients: dict[str, Any] = {"ssl_cert_reqs": 2, "ssl_ca_certs": "d", "ssl_crl": "e"}
    hosts: dict[str, Any] = {"ssl_sni": ("h.example=i,j",)}
    redirect: dict[str, Any] = {"redirect_http": 80, "hsts": 60, "insecure_bind": "localhost:81"}
    config = Config(
        ssl_certfile="a",
        ssl_keyfile="b",
        ssl_keyfile_password="c",
        ssl_ciphers="f",
        ssl_protocol_min="tls1.3",
        timeout_ssl_handshake=1,
        **clients,
        **hosts,
        **redirect,
    )
    assert config.ssl_cert_reqs == "required"
    assert config.ssl_sni == (("h.example", "i", "j"),)
    assert config.hsts == "max-age=60"
    assert config.insecure_binds == (Bind("tcp", "localhost", 81),)
    Config(dev_tls=True, ssl_keyfile_password="c", **clients, **hosts, **redirect)
    Config(ssl_context=context(), **redirect)


#: What stands for options that are read together.
TOGETHER = {
    **dict.fromkeys(("bind", "host", "port", "uds", "fd"), "binds"),
    "insecure_bind": "insecure_binds",
    "dev_tls": "tls",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_read_by_what_obeys_it(name: str) -> None:
    read = re.compile(rf"\bconfig\.{TOGETHER.get(name, name)}\b")
    runtime = Path(runtime_package.__file__).parent

    assert any(read.search(path.read_text("utf-8")) for path in runtime.glob("*.py"))
