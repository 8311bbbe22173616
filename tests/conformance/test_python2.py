from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from conformance.interpreters import NoVerdict

from conformance import python2

if TYPE_CHECKING:
    from pathlib import Path

STAMP = "/usr/bin/python2.7\nsuite==1\n"


def script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def test_a_python_on_path_is_found_by_what_it_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "python2", "echo 2.7 /opt/py/bin/python2.7")
    monkeypatch.setenv("PATH", str(tmp_path))

    assert python2.find() == "/opt/py/bin/python2.7"


def test_one_that_does_not_run_or_is_another_version_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "shims" / "python2.7", "echo not selected >&2", "exit 127")
    script(tmp_path / "old" / "python2.7", "echo 2.6 /old")
    script(tmp_path / "bin" / "python2.7", "echo 2.7 /bin/python2.7")
    folders = (str(tmp_path / name) for name in ("shims", "old", "bin"))
    monkeypatch.setenv("PATH", ":".join(folders))

    assert python2.find() == "/bin/python2.7"


def test_versions_that_pyenv_keeps_off_path_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "versions" / "2.7.18" / "bin" / "python2.7", "echo 2.7 /kept/python2.7")
    script(tmp_path / "bin" / "pyenv", f'test "$*" = root && echo {tmp_path}')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    assert python2.find() == "/kept/python2.7"


def test_none_is_a_failure_that_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NoVerdict, match=r"pyenv install 2\.7"):
        python2.find()


def test_a_python_3_is_refused() -> None:
    with pytest.raises(NoVerdict, match=r"expected Python 2\.7, this is Python 3"):
        python2.check(sys.executable)


def test_what_is_installed_is_not_installed_again(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "conformance-stamp").write_text(STAMP)
    told: list[str] = []

    programs = python2.environment("/usr/bin/python2.7", "suite==1", tmp_path, told.append)

    assert (programs, told) == (tmp_path / "venv" / "bin", [])


def test_a_failing_step_leaves_no_stamp_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = script(tmp_path / "python", "echo no route to the index >&2", "exit 1")
    monkeypatch.setattr(sys, "executable", str(tool))
    stamp = tmp_path / "venv" / "conformance-stamp"
    stamp.parent.mkdir()
    stamp.write_text(STAMP)

    with pytest.raises(NoVerdict, match=r"status 1:\nno route to the index"):
        python2.environment("/usr/bin/python2.7", "suite==2", tmp_path, lambda line: None)

    assert not stamp.exists()
