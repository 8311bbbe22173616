from __future__ import annotations

import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.compat.aioscgi import (
    Readiness,
    main,
    make_config,
    make_parser,
    passed_descriptors,
    read_logging,
)
from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from omnicorn.config import Config


def config(*argv: str) -> Config:
    parser = make_parser()
    return make_config(parser.parse_args([*argv, "main:app"]), parser)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variables or files of the machine's own."""
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_addresses_become_binds_for_scgi() -> None:
    ours = config("-t", "127.0.0.1:9000", "--tcp", "[::1]:9001", "-u", "/run/a.sock")

    assert list(ours.bind) == [
        "scgi:unix:/run/a.sock",
        "scgi:127.0.0.1:9000",
        "scgi:[::1]:9001",
    ]
    assert {bind.scheme for bind in ours.binds} == {"scgi"}
    assert ours.app == "main:app"


@pytest.mark.parametrize("given", ["/base", "/base/"])
def test_the_base_is_the_root_path(given: str) -> None:
    assert config("-t", "127.0.0.1:1", "--base-uri", given).root_path == "/base"


@pytest.mark.parametrize(
    ("argv", "loop"),
    [([], "auto"), (["--adapter", "asyncio"], "auto"), (["--adapter", "trio"], "trio")],
)
def test_the_adapter_is_the_loop(argv: list[str], loop: str) -> None:
    assert config("-t", "127.0.0.1:1", *argv).loop == loop


def test_further_options_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNICORN_TIMEOUT_KEEP_ALIVE", "7")

    assert config("-t", "127.0.0.1:1").timeout_keep_alive == 7


def test_a_logging_file_is_json_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "logging.conf"
    file.write_text(json.dumps({"version": 1}))

    assert config("-t", "127.0.0.1:1", "-l", str(file)).log_config == {"version": 1}


@pytest.mark.parametrize("text", [None, "[", "[]"])
def test_a_wrong_logging_file_is_named(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "logging.json"
    if text is not None:
        file.write_text(text)

    with pytest.raises(ConfigError, match=r"--logging .*logging\.json"):
        read_logging(str(file))


@pytest.mark.parametrize("argv", [[], ["--systemd"]])
def test_nothing_to_listen_on_is_a_usage_error(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*argv, "main:app"])

    assert caught.value.code == 2
    assert "give --unix-socket or --tcp" in capsys.readouterr().err


def test_a_wrong_address_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-t", "9000", "main:app"]) == 2
    assert "9000" in capsys.readouterr().err


def test_an_application_that_is_not_found_ends_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-t", "127.0.0.1:0", "no_such_module:app"]) == 3
    assert "no_such_module" in capsys.readouterr().err


# ------------------------------------------------------------------------------ systemd


def test_passed_descriptors_are_taken_once() -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}

    assert list(passed_descriptors(environ)) == [3, 4]
    assert environ == {}
    assert list(passed_descriptors(environ)) == []


@pytest.mark.parametrize(
    "environ", [{"LISTEN_PID": "1", "LISTEN_FDS": "2"}, {"LISTEN_PID": str(os.getpid())}]
)
def test_descriptors_of_others_are_left(environ: dict[str, str]) -> None:
    assert list(passed_descriptors(environ)) == []


def test_passed_descriptors_are_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")

    assert list(config("--systemd").bind) == ["scgi:fd://3"]


@pytest.fixture
def caught() -> Iterator[list[int]]:
    """The signals that a server would have seen, as `serve` listens to them."""
    found: list[int] = []
    before = [
        (number, signal.signal(number, lambda number, _: found.append(number)))
        for number in (signal.SIGINT, signal.SIGTERM)
    ]
    yield found
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_that_we_serve(tmp_path: Path, abstract: bool, caught: list[int]) -> None:
    name = f"@omnicorn-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(10)
        manager.bind(name.replace("@", "\0", 1))
        environ = {"NOTIFY_SOCKET": name}

        Readiness(environ).started(["scgi:127.0.0.1:9000"])

        assert manager.recv(100) == b"READY=1\nSTATUS=Serving on scgi:127.0.0.1:9000"
    assert environ == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_systemd_is_told_once_that_we_stop(
    tmp_path: Path, caught: list[int], number: signal.Signals
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(10)
        manager.bind(str(tmp_path / "notify"))
        Readiness({"NOTIFY_SOCKET": str(tmp_path / "notify")}).started([])
        assert manager.recv(100).startswith(b"READY=1")

        for _ in range(2):
            signal.raise_signal(number)

        assert manager.recv(100) == b"STOPPING=1\nSTATUS=Finishing what is in progress"
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
    assert caught == [number, number]


def test_nobody_is_told_who_does_not_ask(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, caught: list[int]
) -> None:
    Readiness({}).started([])
    assert not caplog.records

    Readiness({"NOTIFY_SOCKET": str(tmp_path / "gone")}).started([])
    assert "cannot be told" in caplog.text


def test_the_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    told: Any = capsys.readouterr().out
    for flag in ("--adapter", "--base-uri", "-l", "-u", "-t", "--systemd", "application"):
        assert flag in told
