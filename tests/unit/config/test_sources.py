from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from omnicorn.config import Bind, Config, Loaded, load
from omnicorn.config.options import OPTIONS
from omnicorn.config.sources import Given
from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def merge(
    folder: Path,
    *given: tuple[str, str, str | bool],
    file: str | None = None,
    **environ: str,
) -> Loaded:
    return load([Given(*flag) for flag in given], environ, str(folder), file)


def write(folder: Path, text: str, name: str = "omnicorn.toml") -> None:
    (folder / name).write_text(text, encoding="utf-8")


def refusal(
    folder: Path,
    *given: tuple[str, str, str | bool],
    file: str | None = None,
    **environ: str,
) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        merge(folder, *given, file=file, **environ)
    return caught.value


# Precedence -----------------------------------------------------------------------------


def test_without_any_source_every_value_is_a_default(tmp_path: Path) -> None:
    loaded = merge(tmp_path)
    assert loaded.config == Config()
    assert set(loaded.sources.values()) == {"default"}
    assert list(loaded.sources) == list(OPTIONS)
    assert loaded.file is None


def test_flags_win_over_the_environment_that_over_the_file(tmp_path: Path) -> None:
    write(tmp_path, "port = 1\nbacklog = 1\nloop = 'asyncio'\n")
    loaded = merge(
        tmp_path, ("port", "--port", "3"), OMNICORN_PORT="2", OMNICORN_BACKLOG="2", HOME="/"
    )
    assert (loaded.config.port, loaded.config.backlog, loaded.config.loop) == (3, 2, "asyncio")
    assert loaded.sources["port"] == "--port"
    assert loaded.sources["backlog"] == "OMNICORN_BACKLOG"
    assert loaded.sources["loop"] == "omnicorn.toml [loop]"
    assert loaded.sources["host"] == "default"
    assert loaded.file == "omnicorn.toml"


def test_of_a_flag_given_twice_the_last_counts(tmp_path: Path) -> None:
    loaded = merge(tmp_path, ("port", "--port", "1"), ("port", "--port", "2"))
    assert loaded.config.port == 2


def test_repeatable_flags_add_up_and_replace_what_is_below(tmp_path: Path) -> None:
    write(tmp_path, 'headers = ["x: file"]\n')
    loaded = merge(
        tmp_path,
        ("headers", "--header", "a: 1, 2"),
        ("headers", "--header", "b: 3"),
        ("bind", "-b", ":80"),
        ("bind", "--bind", ":81"),
    )
    assert loaded.config.headers == (("a", "1, 2"), ("b", "3"))
    assert loaded.config.bind == (":80", ":81")


def test_a_switch_turned_off_by_a_flag_wins_over_the_environment(tmp_path: Path) -> None:
    loaded = merge(tmp_path, ("access_log", "--no-access-log", False), OMNICORN_ACCESS_LOG="true")
    assert loaded.config.access_log is False
    assert loaded.sources["access_log"] == "--no-access-log"


# Forms of address -----------------------------------------------------------------------


def test_the_options_of_websockets_come_from_every_source(tmp_path: Path) -> None:
    write(tmp_path, "ws_max_size = '1M'\nws_max_queue = 8\nws_per_message_deflate = false\n")
    loaded = merge(
        tmp_path,
        ("ws", "--ws", "none"),
        ("ws_max_queue", "--ws-max-queue", "4"),
        OMNICORN_WS_PING_INTERVAL="0",
        OMNICORN_WS_PING_TIMEOUT="1m",
    )
    config = loaded.config
    assert (config.ws, config.ws_max_size, config.ws_max_queue) == ("none", 1 << 20, 4)
    assert (config.ws_ping_interval, config.ws_ping_timeout) == (0.0, 60.0)
    assert config.ws_per_message_deflate is False
    assert loaded.sources["ws_max_queue"] == "--ws-max-queue"


def test_the_options_of_tls_come_from_every_source(tmp_path: Path) -> None:
    write(tmp_path, 'ssl_certfile = "a"\nssl_cert_reqs = 2\nssl-ca-certs = "b"\nhsts = 60\n')
    loaded = merge(
        tmp_path,
        ("ssl_sni", "--ssl-sni", "a.example=c,d"),
        ("ssl_sni", "--ssl-sni", "*.a.example=e"),
        OMNICORN_SSL_KEYFILE_PASSWORD="f",
        OMNICORN_TIMEOUT_SSL_HANDSHAKE="500ms",
    )
    config = loaded.config
    assert (config.ssl_certfile, config.ssl_cert_reqs, config.ssl_ca_certs) == (
        "a",
        "required",
        "b",
    )
    assert config.ssl_sni == (("a.example", "c", "d"), ("*.a.example", "e", None))
    assert (config.ssl_keyfile_password, config.timeout_ssl_handshake) == ("f", 0.5)
    assert config.hsts == "max-age=60"


def test_hosts_with_certificates_stand_one_a_line_in_the_variable(tmp_path: Path) -> None:
    loaded = merge(
        tmp_path, OMNICORN_SSL_CERTFILE="a", OMNICORN_SSL_SNI="a.example=b,c\nd.example=e"
    )
    assert loaded.config.ssl_sni == (("a.example", "b", "c"), ("d.example", "e", None))


def test_what_only_a_program_can_give_comes_from_no_other_source(tmp_path: Path) -> None:
    error = refusal(tmp_path, OMNICORN_SSL_CONTEXT="x")
    assert str(error).startswith("unknown variable OMNICORN_SSL_CONTEXT")
    write(tmp_path, 'ssl_context = "x"\n')
    error = refusal(tmp_path)
    assert "(from omnicorn.toml [ssl_context]): expected an ssl.SSLContext" in str(error)
    write(tmp_path, 'ssl_context = "none"\n')
    assert merge(tmp_path).config == Config()


def test_a_password_from_a_source_is_not_shown(tmp_path: Path) -> None:
    error = refusal(tmp_path, OMNICORN_SSL_KEYFILE_PASSWORD="hunter2\0")
    assert "hunter2" not in str(error)
    assert "ssl_keyfile_password = *** (from OMNICORN_SSL_KEYFILE_PASSWORD)" in str(error)


def test_a_port_flag_replaces_the_binds_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, 'bind = ["unix:/a"]\n')
    loaded = merge(tmp_path, ("port", "--port", "9"))
    assert loaded.config.binds == (Bind("tcp", host="127.0.0.1", port=9),)
    assert loaded.sources["bind"] == "default"


def test_a_uds_flag_replaces_host_and_port_of_the_environment(tmp_path: Path) -> None:
    loaded = merge(tmp_path, ("uds", "--uds", "/a"), OMNICORN_HOST="::1", PORT="9")
    assert loaded.config == Config(uds="/a")


def test_host_and_port_are_one_form_and_may_come_from_two_sources(tmp_path: Path) -> None:
    write(tmp_path, 'host = "::1"\n')
    loaded = merge(tmp_path, ("port", "--port", "9"))
    assert loaded.config.binds == (Bind("tcp", host="::1", port=9),)


@pytest.mark.parametrize(
    "other", [("port", "--port", "1"), ("uds", "--uds", "/a"), ("fd", "--fd", "3")]
)
def test_two_forms_in_one_source_exclude_each_other(
    tmp_path: Path, other: tuple[str, str, str]
) -> None:
    error = refusal(tmp_path, ("bind", "-b", ":80"), other)
    assert str(error).startswith(f"-b and {other[1]} exclude each other")


def test_a_form_that_is_said_to_be_unset_is_no_second_form(tmp_path: Path) -> None:
    write(tmp_path, 'port = 9\nuds = "none"\nfd = "none"\nbind = []\n')
    assert merge(tmp_path).config == Config(port=9)


# Environment ----------------------------------------------------------------------------


def test_lists_in_a_variable_are_split(tmp_path: Path) -> None:
    config = merge(
        tmp_path,
        OMNICORN_BIND=":80, :81",
        OMNICORN_HEADERS="a: 1, 2\nb: 3",
        OMNICORN_FORWARDED_ALLOW_IPS="",
    ).config
    assert config.bind == (":80", ":81")
    assert config.headers == (("a", "1, 2"), ("b", "3"))
    assert config.forwarded_allow_ips == ()


def test_variables_of_other_programs_are_understood_after_ours(tmp_path: Path) -> None:
    loaded = merge(tmp_path, PORT="9", FORWARDED_ALLOW_IPS="*")
    assert (loaded.config.port, loaded.sources["port"]) == (9, "PORT")
    assert loaded.config.forwarded_allow_ips == ("*",)
    assert merge(tmp_path, PORT="9", OMNICORN_PORT="10").config.port == 10


def test_a_foreign_port_wins_over_the_port_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, "port = 1\n")
    assert merge(tmp_path, PORT="9").config.port == 9


@pytest.mark.parametrize("variable", ["OMNICORN_BIND", "OMNICORN_UDS"])
def test_a_foreign_port_does_not_replace_another_form(tmp_path: Path, variable: str) -> None:
    loaded = merge(tmp_path, **{variable: "unix:/a", "PORT": "9"})
    assert loaded.sources["port"] == "default"


def test_a_foreign_port_does_not_replace_the_binds_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, 'bind = "unix:/a"\n')
    assert merge(tmp_path, PORT="9").config == Config(bind=("unix:/a",))


def test_a_foreign_variable_that_decides_nothing_may_be_nonsense(tmp_path: Path) -> None:
    assert merge(tmp_path, PORT="").config.port == 8000
    assert merge(tmp_path, ("port", "--port", "1"), PORT="x").config.port == 1
    assert refusal(tmp_path, PORT="x").source == "PORT"


def test_an_unknown_variable_of_ours_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    error = refusal(tmp_path, OMNICORN_PROT="1")
    assert "unknown variable OMNICORN_PROT; did you mean 'OMNICORN_PORT'?" in str(error)
    assert error.source == "OMNICORN_PROT"


@pytest.mark.parametrize("variable", ["OMNICORN_Port", "OMNICORN_", "OMNICORN_REUSEE_PORT"])
def test_a_variable_must_be_spelt_exactly(tmp_path: Path, variable: str) -> None:
    assert refusal(tmp_path, **{variable: "1"}).source == variable


def test_an_empty_variable_is_no_number(tmp_path: Path) -> None:
    assert refusal(tmp_path, OMNICORN_PORT="").source == "OMNICORN_PORT"


def test_the_links_that_kubernetes_makes_for_a_service_are_not_options(tmp_path: Path) -> None:
    loaded = merge(
        tmp_path,
        OMNICORN_SERVICE_HOST="10.0.0.1",
        OMNICORN_SERVICE_PORT="80",
        OMNICORN_SERVICE_PORT_HTTP="80",
        OMNICORN_PORT="tcp://10.0.0.1:80",
        OMNICORN_PORT_80_TCP="tcp://10.0.0.1:80",
        OMNICORN_PORT_80_TCP_PROTO="tcp",
        OMNICORN_WEB_SERVICE_HOST="10.0.0.2",
        OMNICORN_WEB_PORT="tcp://10.0.0.2:80",
        OMNICORN_WEB_PORT_80_TCP_ADDR="10.0.0.2",
    )
    assert loaded.config == Config()


def test_an_option_whose_value_has_a_scheme_is_still_read(tmp_path: Path) -> None:
    assert merge(tmp_path, OMNICORN_BIND="fd://3").config.binds == (Bind("fd", fd=3),)


# File -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("port = 9", ""),
        ("[omnicorn]\nport = 9\n[other]\nx = 1", "omnicorn."),
        ("[tool.omnicorn]\nport = 9\n[tool.black]\nx = 1", "tool.omnicorn."),
    ],
)
def test_options_stand_at_the_top_or_in_one_table(tmp_path: Path, text: str, prefix: str) -> None:
    write(tmp_path, text)
    loaded = merge(tmp_path)
    assert loaded.config == Config(port=9)
    assert loaded.sources["port"] == f"omnicorn.toml [{prefix}port]"


def test_values_of_the_file_keep_their_types_and_texts_are_read(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        app = "main:app"
        access-log = false
        limit_request_body = "10M"
        timeout-body = "500ms"
        timeout_write = 3
        uds_permissions = "660"
        forwarded_allow_ips = "10.0.0.0/8,unix"
        log_config = "none"
        use_colors = true

        [headers]
        x-a = "1"
        """,
    )
    assert merge(tmp_path).config == Config(
        app="main:app",
        access_log=False,
        limit_request_body=10 * 1024 * 1024,
        timeout_body=0.5,
        timeout_write=3,
        uds_permissions=0o660,
        forwarded_allow_ips=("10.0.0.0/8", "unix"),
        use_colors=True,
        headers=(("x-a", "1"),),
    )


def test_a_list_with_one_item_may_be_that_item(tmp_path: Path) -> None:
    write(tmp_path, 'bind = ":80"\nheaders = "a: 1, 2"\n')
    assert merge(tmp_path).config == Config(bind=(":80",), headers=(("a", "1, 2"),))


def test_a_bad_value_names_the_file_and_the_key(tmp_path: Path) -> None:
    write(tmp_path, "access-log = 1\n")
    error = refusal(tmp_path)
    assert (error.option, error.source) == ("access_log", "omnicorn.toml [access-log]")


def test_an_unknown_key_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, "root-pth = '/'\n")
    assert str(refusal(tmp_path)).startswith(
        "unknown option 'root_pth' (from omnicorn.toml [root-pth]); did you mean 'root_path'?"
    )


def test_an_unknown_table_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "[server]\nport = 1\n")
    assert "unknown option 'server'" in str(refusal(tmp_path))


def test_a_key_in_both_spellings_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "app_dir = 'a'\napp-dir = 'b'\n")
    assert "app_dir twice" in str(refusal(tmp_path))


@pytest.mark.parametrize("stray", ["port = 1\n", "unknown = 1\n"])
def test_a_key_outside_the_table_is_an_error(tmp_path: Path, stray: str) -> None:
    write(tmp_path, stray + "[omnicorn]\nbacklog = 1\n")
    assert "outside of [omnicorn]" in str(refusal(tmp_path))


def test_an_option_that_is_a_table_outside_of_ours_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "[omnicorn]\nport = 1\n[headers]\na = '1'\n")
    assert "'headers' outside of [omnicorn]" in str(refusal(tmp_path))


def test_a_file_that_is_not_toml_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "port: 1\n")
    assert str(refusal(tmp_path)).startswith("omnicorn.toml is not valid TOML: ")
    (tmp_path / "omnicorn.toml").write_bytes(b"app = '\xff'")
    assert str(refusal(tmp_path)).startswith("omnicorn.toml is not valid TOML: ")


def test_the_table_of_pyproject_is_used_when_there_is_no_file_of_ours(tmp_path: Path) -> None:
    write(tmp_path, "[tool.omnicorn]\nport = 9\n", "pyproject.toml")
    loaded = merge(tmp_path)
    assert (loaded.config.port, loaded.file) == (9, "pyproject.toml")
    assert loaded.sources["port"] == "pyproject.toml [tool.omnicorn.port]"
    write(tmp_path, "backlog = 1\n")
    assert merge(tmp_path).config == Config(backlog=1)


def test_a_pyproject_that_does_not_concern_us_is_not_even_parsed(tmp_path: Path) -> None:
    write(tmp_path, "this is no TOML", "pyproject.toml")
    assert merge(tmp_path).config == Config()


def test_a_pyproject_that_only_mentions_us_gives_nothing(tmp_path: Path) -> None:
    write(tmp_path, "# tool.omnicorn\n[omnicorn]\nport = 1\n", "pyproject.toml")
    loaded = merge(tmp_path)
    assert (loaded.config, loaded.file) == (Config(), None)


def test_a_named_file_is_the_only_one_read(tmp_path: Path) -> None:
    write(tmp_path, "port = 1\n")
    write(tmp_path, "backlog = 1\n", "other.toml")
    loaded = merge(tmp_path, file="other.toml")
    assert loaded.config == Config(backlog=1)
    assert loaded.sources["backlog"] == "other.toml [backlog]"
    assert merge(tmp_path, OMNICORN_CONFIG="other.toml").config == Config(backlog=1)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    error = refusal(tmp_path, file="other.toml")
    assert str(error).startswith("cannot read the config file 'other.toml' (from --config): ")
    error = refusal(tmp_path, OMNICORN_CONFIG="other.toml")
    assert error.source == "OMNICORN_CONFIG"


def test_a_default_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "omnicorn.toml").mkdir()
    assert str(refusal(tmp_path)).startswith("cannot read omnicorn.toml: ")


def test_a_named_pyproject_must_have_our_table(tmp_path: Path) -> None:
    write(tmp_path, "[project]\nname = 'x'\n", "pyproject.toml")
    error = refusal(tmp_path, file="pyproject.toml")
    assert str(error) == "pyproject.toml has no table [tool.omnicorn]"


def test_names_of_hypercorn_are_understood_and_their_texts_read(tmp_path: Path) -> None:
    write(tmp_path, "certfile = 'a'\nkeep-alive-timeout = '2m'\naccesslog = 'b'\nworkers = 1\n")
    loaded = merge(tmp_path)
    assert loaded.config == Config(ssl_certfile="a", timeout_keep_alive=120, access_log_file="b")
    assert loaded.sources["timeout_keep_alive"] == "omnicorn.toml [keep-alive-timeout]"
    assert loaded.sources["access_log"] == "omnicorn.toml [accesslog]"


def test_a_name_of_hypercorn_that_means_nothing_here_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "[omnicorn]\nworkers = 4\n")
    error = refusal(tmp_path)
    assert str(error).startswith("workers = 4 (from omnicorn.toml [omnicorn.workers]): ")
    assert error.option == "workers"


def test_a_part_of_an_option_adds_to_what_the_same_file_says(tmp_path: Path) -> None:
    write(tmp_path, "alt_svc_headers = ['h3=\":1\"']\nheaders = ['a: b']\n")
    assert merge(tmp_path).config.headers == (("a", "b"), ("alt-svc", 'h3=":1"'))


def test_the_mapping_of_a_logging_configuration_stands_in_the_file(tmp_path: Path) -> None:
    write(tmp_path, "[omnicorn.log_config]\nversion = 1\n")
    assert merge(tmp_path).config == Config(log_config={"version": 1})


def test_variables_have_our_names_alone(tmp_path: Path) -> None:
    error = refusal(tmp_path, OMNICORN_CERTFILE="a")
    assert "did you mean 'OMNICORN_SSL_CERTFILE'?" in str(error)


# One file alone -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["any.toml", "pyproject.toml"])
def test_one_file_is_read_alone_as_config_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("OMNICORN_PORT", "1")
    write(tmp_path, "[tool.omnicorn]\nbind = 'localhost'\ntimeout-body = '2m'\n", name)
    assert Config.from_toml(tmp_path / name) == Config(bind="localhost", timeout_body=120)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "did you mean 'port'?"),
        ("port = 'x'", "[port]): expected a whole number"),
        ("port = 1\nbind = ':1'", "exclude each other"),
        ("ssl_keyfile = 'a'", "is for TLS, which is off"),
        ("port: 1", "is not valid TOML"),
    ],
)
def test_one_file_that_is_wrong_is_an_error_that_names_it(
    tmp_path: Path, text: str, message: str
) -> None:
    write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Config.from_toml(tmp_path / "omnicorn.toml")
    assert message in str(caught.value)


def test_one_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot read '/absent\.toml': No such file"):
        Config.from_toml("/absent.toml")


# Cost -----------------------------------------------------------------------------------


def test_a_plain_start_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; from omnicorn.config import load; load((), {'PORT': '1'}); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if "OMNICORN" not in name},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "omnicorn.config.sources" in loaded
    wasteful = {
        "argparse",
        "asyncio",
        "dataclasses",
        "difflib",
        "importlib.metadata",
        "inspect",
        "ipaddress",
        "json",
        "logging",
        "omnicorn.config.hypercorn",
        "omnicorn.config.objects",
        "socket",
        "tomllib",
    }
    assert loaded & wasteful == set()
