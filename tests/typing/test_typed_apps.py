"""The applications beside this file, as `mypy --strict` and `pyright` in its strict mode see them.

They hold right and wrong uses. A wrong one is marked ``type: ignore[code]``, the code being mypy's,
or ``pyright: ignore`` where mypy has nothing to say. As unused marks are errors for both, a mistake
that one of them stops finding fails this test as well.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
APPS = sorted(str(path) for path in HERE.glob("*.py") if not path.name.startswith("test_"))


def run(*arguments: str) -> tuple[int, str]:
    """The exit status of a tool in this interpreter's environment, and what it has said."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def mypy(config: pytest.Config, paths: list[str]) -> tuple[int, str]:
    assert config.cache is not None
    cache = str(config.cache.mkdir("mypy-typed-apps"))
    return run("mypy", "--strict", "--no-error-summary", "--cache-dir", cache, *paths)


def pyright(config: pytest.Config, paths: list[str]) -> tuple[int, str]:
    pytest.importorskip("pyright")
    status, said = run("pyright", "--pythonpath", sys.executable, *paths)
    if "information" not in said:  # it is written for node, and fetches itself when first used
        pytest.skip(f"pyright cannot start here: {said.strip()[-200:]}")
    return status, re.sub(r"\d+ errors?, 0 warnings, 0 information\w*", "", said).strip()


Checker = Callable[[pytest.Config, list[str]], tuple[int, str]]
both = pytest.mark.parametrize(
    "check",
    [mypy, pytest.param(pyright, marks=pytest.mark.slow)],  # it takes ten seconds
)


@both
def test_the_right_uses_are_accepted_and_each_wrong_one_is_found(
    check: Checker, pytestconfig: pytest.Config
) -> None:
    assert check(pytestconfig, APPS) == (0, "")


@both
def test_each_mark_is_needed_and_one_too_many_is_an_error(
    check: Checker, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    """Else the test above would prove nothing of the wrong uses."""
    lines = (HERE / "wrong_apps.py").read_text().splitlines()
    expected = {number for number, line in enumerate(lines, 1) if "# type: ignore[" in line}
    lines = [line.replace("# type: ignore", "# no: ignore") for line in lines]
    lines.append("nothing = 0  # type: ignore[assignment]")
    expected.add(len(lines))
    app = tmp_path / "app.py"
    app.write_text("\n".join(lines))
    status, said = check(pytestconfig, [str(app)])
    found = {int(line.split(":")[1]) for line in said.splitlines() if " error: " in line}
    assert (status, found) == (1, expected)
