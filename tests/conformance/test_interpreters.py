from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from conformance.interpreters import NoVerdict

from conformance import interpreters

if TYPE_CHECKING:
    from pathlib import Path

NEXT = sys.version_info.minor + 1


def python(folder: Path, minor: int, *lines: str) -> Path:
    path = folder / f"python3.{minor}"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *(lines or [f"echo 3.{minor} {path}"]), ""]))
    path.chmod(0o755)
    return path


def test_the_newest_python_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for minor in (NEXT, NEXT + 1, NEXT - 1):
        python(tmp_path, minor)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert interpreters.newest() == str(tmp_path / f"python3.{NEXT + 1}")


def test_one_that_is_not_selected_gives_way_to_the_one_that_pyenv_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python(tmp_path / "shims", NEXT, "exit 127")
    kept = python(tmp_path / "versions" / f"3.{NEXT}.0" / "bin", NEXT)
    pyenv = tmp_path / "shims" / "pyenv"
    pyenv.write_text(f'#!/bin/sh\ntest "$*" = root && echo {tmp_path}\n')
    pyenv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))

    assert interpreters.newest() == str(kept)


def test_without_a_newer_one_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, NEXT - 1)
    (tmp_path / "python3.99-config").touch()
    monkeypatch.setenv("PATH", str(tmp_path))

    assert interpreters.newest() is None


def test_the_python_that_runs_this_is_one() -> None:
    version, path = interpreters.check(sys.executable)

    assert (version, path) == (f"3.{sys.version_info.minor}", sys.executable)


def test_what_is_no_python_is_refused_by_name() -> None:
    with pytest.raises(NoVerdict, match=r"^/nowhere/python3: no Python 3 .*: cannot run /nowhere"):
        interpreters.check("/nowhere/python3")


def test_a_failing_command_says_what_it_was_and_what_it_said() -> None:
    with pytest.raises(NoVerdict, match=r"sh -c .* ended with status 3:\nno such release"):
        interpreters.output(["sh", "-c", "echo no such release >&2; exit 3"], 10)


def test_a_command_that_does_not_end_is_given_up() -> None:
    with pytest.raises(NoVerdict, match=r"sleep 60 did not end within 0 s"):
        interpreters.output(["sleep", "60"], 0.01)


def test_what_configures_this_python_does_not_reach_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/here")
    shown = ["sh", "-c", "echo $PYTHONPATH"]

    assert interpreters.output(shown, 10) == ""
    assert interpreters.output(shown, 10, {"PYTHONPATH": "/there"}) == "/there"
