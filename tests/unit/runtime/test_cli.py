from __future__ import annotations

import os
import subprocess
import sys
import types
from typing import TYPE_CHECKING

import pytest

import omnicorn
from omnicorn.config import Config, load
from omnicorn.config.options import OPTIONS
from omnicorn.config.sources import Given
from omnicorn.errors import ConfigError
from omnicorn.runtime.cli import COMMANDS, help_text, main, parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Capture = pytest.CaptureFixture[str]
    Serve = Callable[[Callable[[Config], int]], None]


@pytest.fixture(autouse=True)
def _nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("OMNICORN_") or name in ("PORT", "FORWARDED_ALLOW_IPS"):
            monkeypatch.delenv(name)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Put a function in the place of the server."""

    def put(function: Callable[[Config], int]) -> None:
        module = types.ModuleType("omnicorn.runtime.run")
        module.run_config = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "omnicorn.runtime.run", module)

    return put


def refusal(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(argv)
    return str(caught.value)


# Parsing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "given"),
    [
        (["--port", "80"], ("port", "--port", "80")),
        (["--port=80"], ("port", "--port", "80")),
        (["--port="], ("port", "--port", "")),
        (["--root-path=--x=y"], ("root_path", "--root-path", "--x=y")),
        (["-b", ":80"], ("bind", "-b", ":80")),
        (["-b=:80"], ("bind", "-b", ":80")),
        (["--factory"], ("factory", "--factory", True)),
        (["--no-access-log"], ("access_log", "--no-access-log", False)),
        (["--keep-alive", "5"], ("timeout_keep_alive", "--keep-alive", "5")),
        (["--header", "a: b"], ("headers", "--header", "a: b")),
        (["--access-logfile", "-"], ("access_log_file", "--access-logfile", "-")),
        (["main:app"], ("app", "command line", "main:app")),
        (["--", "--main"], ("app", "command line", "--main")),
    ],
)
def test_every_way_to_write_an_option_is_read(
    argv: list[str], given: tuple[str, str, str | bool]
) -> None:
    assert parse(argv).given == [Given(*given)]


def test_flags_may_stand_before_and_after_the_application() -> None:
    names = [given.name for given in parse(["--port", "1", "main:app", "--factory"]).given]
    assert names == ["port", "app", "factory"]


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "app"])
def test_every_option_has_a_flag_that_is_read(name: str) -> None:
    for flag in OPTIONS[name].flags:
        argv = [flag] if OPTIONS[name].is_switch else [flag, "value"]
        assert [given.name for given in parse(argv).given] == [name]


def test_the_config_file_is_no_option() -> None:
    assert parse(["--config", "a.toml"]) == ("", [], "a.toml")
    assert parse(["--config=a.toml", "--print-config"]) == ("--print-config", [], "a.toml")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--prot", "1"], "unknown flag --prot; did you mean '--port'?"),
        (["--prot=1"], "unknown flag --prot; did you mean '--port'?"),
        (["--no-acess-log"], "unknown flag --no-acess-log; did you mean '--no-access-log'?"),
        (["--print-confg"], "unknown flag --print-confg; did you mean '--print-config'?"),
        (["--app", "main:app"], "unknown flag --app"),
        (["--no-port"], "unknown flag --no-port"),
        (["-x"], "unknown flag -x"),
        (["-b:80"], "a value stands apart, -b :80"),
        (["--port"], "--port needs a value: --port PORT"),
        (["--config"], "--config needs a value: --config FILE"),
        (["--port", "--factory"], "--factory is a flag (if it is the value: --port=--factory)"),
        (["--factory=true"], "--factory takes no value; its opposite is --no-factory"),
        (["--no-factory=1"], "--no-factory takes no value; its opposite is --factory"),
        (["--version=1"], "--version takes no value"),
        (["--workers", "4"], "unknown flag --workers: a server is one process; start several"),
        (["-w", "4"], "unknown flag -w: a server is one process; start several"),
        (["--reload"], "unknown flag --reload: the server does not restart itself"),
        (["-k", "trio"], "unknown flag -k: here it is --loop"),
        (["--keyfile-password=x"], "--keyfile-password: here it is --ssl-keyfile-password"),
        (["a:b", "c:d"], "two applications are given, 'a:b' and 'c:d'"),
    ],
)
def test_a_wrong_argument_is_explained(argv: list[str], message: str) -> None:
    assert message in refusal(*argv)


# Serving --------------------------------------------------------------------------------


def test_the_server_gets_the_configuration_and_its_code_is_the_exit_code(serve: Serve) -> None:
    seen: list[Config] = []

    def run(config: Config) -> int:
        seen.append(config)
        return 7

    serve(run)
    assert main(["main:app", "--port", "0"]) == 7
    assert seen == [Config(app="main:app", port=0)]


def test_the_arguments_of_the_process_are_the_default(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(lambda config: config.port)
    monkeypatch.setattr(sys, "argv", ["omnicorn", "main:app", "--port", "42"])
    assert main() == 42


def test_the_environment_and_the_file_of_the_folder_are_read(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "omnicorn.toml").write_text("app = 'main:app'\nport = 1\nbacklog = 5\n")
    monkeypatch.setenv("OMNICORN_PORT", "2")
    seen: list[Config] = []
    serve(lambda config: seen.append(config) or 0)
    assert main([]) == 0
    assert seen == [Config(app="main:app", port=2, backlog=5)]


@pytest.mark.parametrize(
    "argv", [["--prot", "1"], ["main:app", "--port", "x"], [], ["--config", "absent.toml"]]
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    serve: Serve, capsys: Capture, argv: list[str]
) -> None:
    serve(lambda config: pytest.fail("must not serve"))
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("omnicorn: ")
    assert err.count("\n") == 1


def test_an_application_that_does_not_load_is_exit_code_3_with_its_traceback_first(
    serve: Serve, capsys: Capture
) -> None:
    def run(config: Config) -> int:
        raise ConfigError("Traceback ...\nKeyError: 1\nit raised KeyError", "app")

    serve(run)
    assert main(["main:app"]) == 3
    assert capsys.readouterr().err == "Traceback ...\nKeyError: 1\nomnicorn: it raised KeyError\n"


def test_another_option_that_serving_refuses_is_exit_code_2(serve: Serve, capsys: Capture) -> None:
    def run(config: Config) -> int:
        raise ConfigError("the port is taken", "port")

    serve(run)
    assert main(["main:app"]) == 2
    assert capsys.readouterr().err == "omnicorn: the port is taken\n"


# Commands -------------------------------------------------------------------------------


def test_print_config_names_every_option_value_and_source(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNICORN_BACKLOG", "7")
    assert main(["--print-config", "main:app", "--port", "80"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split(" = ")[0]: line for line in lines}
    assert list(rows) == list(OPTIONS)
    assert rows["app"].split() == ["app", "=", '"main:app"', "#", "command", "line"]
    assert rows["port"].split() == ["port", "=", "80", "#", "--port"]
    assert rows["backlog"].split() == ["backlog", "=", "7", "#", "OMNICORN_BACKLOG"]
    assert rows["uds"].split() == ["uds", "=", '"none"', "#", "default"]
    assert len({line.index("  # ") for line in lines}) == 1


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["main:app", "--no-access-log", "--header", 'a: "1"', "--timeout-body", "500ms"],
        ["--bind", ":80", "-b", "unix:/a", "--uds-permissions", "660"],
        ["--uds", "/a", "--limit-request-body", "1M", "--log-level", "DEBUG"],
        ["--fd", "3", "--forwarded-allow-ips", "*", "--root-path", "/x"],
        ["--ssl-certfile", "a", "--ssl-sni", "b.example=c,d", "--ssl-sni=*.b.example=e"],
        ["--dev-tls", "--redirect-http", "80", "--hsts", "31536000"],
        ["--certfile", "a", "--ssl-cert-reqs", "2", "--ca-certs", "b", "--ssl-crl", "c"],
        ["--bind", "scgi:unix:/a", "--bind", "localhost", "--loop", "trio", "--threads", "4"],
        ["--dev-tls", "--insecure-bind", "localhost:80", "--interface", "wsgi"],
        ["--proxy-protocol", "--proxy-allow-from", "10.0.0.0/8,unix"],
    ],
)
def test_what_print_config_prints_is_a_file_that_means_the_same(
    capsys: Capture, tmp_path: Path, argv: list[str]
) -> None:
    assert main([*argv, "--print-config"]) == 0
    (tmp_path / "copy.toml").write_text(capsys.readouterr().out)
    expected = load(parse(argv).given).config
    assert load(file="copy.toml").config == expected


def test_print_config_says_what_replaces_host_and_port(capsys: Capture) -> None:
    main(["--uds", "/a", "--print-config"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["#", "port", "=", "8000", "#", "replaced", "by", "uds"] in lines


def test_print_config_keeps_a_password_to_itself(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNICORN_SSL_KEYFILE_PASSWORD", "hunter2")
    main(["--ssl-certfile", "a", "--print-config"])
    printed = capsys.readouterr().out
    assert "hunter2" not in printed
    lines = [line.split("  ")[0] for line in printed.splitlines()]
    assert '# ssl_keyfile_password = "***"' in lines


def test_version_names_what_a_bug_report_needs(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    name, python, uvloop, trio = capsys.readouterr().out.rstrip("\n").split(", ")
    assert name == f"omnicorn {omnicorn.__version__}"
    assert python.split()[1] == ".".join(str(part) for part in sys.version_info[:3])
    assert uvloop.startswith("uvloop ")
    assert trio.startswith("trio ")


def test_version_says_when_uvloop_and_trio_are_not_installed(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    main(["--version"])
    assert capsys.readouterr().out.endswith(", uvloop not installed, trio not installed\n")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_wins_over_what_follows_it(capsys: Capture, flag: str) -> None:
    assert main([flag, "--prot"]) == 0
    assert capsys.readouterr().out.startswith("Usage: omnicorn ")


@pytest.mark.parametrize("width", [48, 72, 100])
def test_help_shows_every_option_and_fits(width: int) -> None:
    text = help_text(width)
    words = " ".join(text.split())
    for row in OPTIONS.values():
        if row.kind.program_only:
            assert row.help not in words
            continue
        assert row.help in words
        assert f"env: {', '.join(row.env)}]" in words
        if row.group:
            assert f"\n{row.group}\n" in text
    for flags, _, _ in COMMANDS:
        assert ", ".join(flags) in words
    wrapped = [line for line in text.splitlines() if line.startswith("        ")]
    assert max(len(line) for line in wrapped) <= width


@pytest.mark.parametrize(("columns", "width"), [(20, 48), (60, 60), (300, 100)])
def test_help_is_as_wide_as_the_terminal_within_reason(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, columns: int, width: int
) -> None:
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((columns, 24)))
    main(["--help"])
    assert capsys.readouterr().out == help_text(width)


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("port", "--port PORT Port to listen on; 0 takes any free one. [default: 8000; "),
        ("bind", "-b, --bind ADDRESS Listen here"),
        ("access_log", "--[no-]access-log Log every request. [default: true; "),
        ("forwarded_allow_ips", "[default: 127.0.0.1,::1; env: OMNICORN_FORWARDED_ALLOW_IPS"),
        ("root_path", '[default: ""; env: OMNICORN_ROOT_PATH]'),
        ("uds", "instead. [env: OMNICORN_UDS]"),
    ],
)
def test_help_shows_flag_default_and_variable(option: str, shown: str) -> None:
    assert option in OPTIONS
    assert shown in " ".join(help_text(100).split())


# The process ----------------------------------------------------------------------------


def test_the_module_runs_as_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "omnicorn", "--prot"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("omnicorn: unknown flag --prot")
