from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bench import environment

if TYPE_CHECKING:
    from pathlib import Path


class Shell:
    """Stands in for running commands: a Python of one version, and a pip that lacks some."""

    def __init__(self, venv: Path) -> None:
        self.venv = venv
        self.version = "3.11.7 (main)"
        self.lacking: set[str] = set()
        self.installed: list[str] = []
        self.made = 0

    def __call__(self, command: list[str]) -> str:
        if "venv" in command:
            self.made += 1
            (self.venv / "bin").mkdir(parents=True, exist_ok=True)
            (self.venv / "bin" / "python").touch()
        elif "pip" in command:
            if command[-1] in self.lacking:
                raise environment.EnvironmentFailed("no such version")
            self.installed.append(command[-1])
        return self.version


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell(tmp_path / "venv")
    monkeypatch.setattr(environment, "_output", made)
    monkeypatch.setattr(environment, "VENV", made.venv)
    monkeypatch.setattr(environment, "PYTHON", made.venv / "bin" / "python")
    monkeypatch.setattr(environment, "_STAMP", made.venv / "stamp.json")
    return made


def install(*requirements: str) -> dict[str, str]:
    return environment.install("python3", requirements, lambda line: None)


def test_what_the_stamp_lists_is_not_installed_again(shell: Shell) -> None:
    install("a", "b")
    install("b", "c")

    assert (shell.made, shell.installed) == (1, ["a", "b", "c"])


def test_another_python_starts_afresh(shell: Shell) -> None:
    install("a")
    shell.version = "3.13.0 (main)"
    install("a")

    assert (shell.made, shell.installed) == (2, ["a", "a"])


def test_a_broken_stamp_starts_afresh(shell: Shell) -> None:
    install("a")
    (shell.venv / "stamp.json").write_text("[]")
    install("a")

    assert shell.made == 2


def test_what_cannot_be_installed_is_named_and_tried_again(shell: Shell) -> None:
    shell.lacking = {"a"}
    assert install("a", "b") == {"a": "no such version"}

    shell.lacking = set()
    assert install("a", "b") == {}
    assert shell.installed == ["b", "a"]


def test_the_second_of_two_alternatives_is_taken_where_the_first_fails(shell: Shell) -> None:
    shell.lacking = {"a[fast]"}

    assert install("a[fast] or a") == {}
    assert shell.installed == ["a"]


def test_an_interpreter_that_is_not_there_is_named() -> None:
    with pytest.raises(environment.EnvironmentFailed, match="cannot run no-such-python"):
        environment.install("no-such-python", [], lambda line: None)


def test_folders_of_this_machine_are_left_out() -> None:
    text = f"{environment.PYTHON}: cannot open {environment.ROOT / 'bench' / 'x.py'}"

    assert environment.anonymous(text) == "venv/bin/python: cannot open ./bench/x.py"


def test_servers_inherit_no_variable_that_configures_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    monkeypatch.setenv("UVICORN_HTTP", "h11")
    monkeypatch.setenv("OMNICORN_LOOP", "asyncio")

    assert set(environment.variables()) <= {"HOME", "LANG", "TMPDIR", "PATH", "PYTHONPATH"}


def test_the_clients_are_named_with_their_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, says in (("wrk", "wrk 4.1.0 [epoll]"), ("h2load", "h2load nghttp2/1.52.0")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho '{says}'\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")

    assert environment.facts()["wrk"] == "4.1.0"
    assert environment.facts()["h2load"] == "nghttp2/1.52.0"


def test_a_client_that_is_not_there_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert environment.facts()["h2load"] == "not installed"


def test_the_processor_is_named_as_the_kernel_names_it(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Fast 9000\n")

    assert environment.cpu_model(info) == "Fast 9000"


def test_the_processor_has_some_name_without_cpuinfo(tmp_path: Path) -> None:
    assert environment.cpu_model(tmp_path / "none")
