"""The applications beside this file, as `mypy --strict` sees them.

They hold right and wrong uses; a wrong one is marked ``type: ignore[code]``, and as unused
ignores are errors, a mistake that mypy stops finding fails this test as well.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

HERE = Path(__file__).parent


def test_mypy_accepts_the_right_uses_and_finds_each_wrong_one(pytestconfig: pytest.Config) -> None:
    cache = pytestconfig.cache
    assert cache is not None
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary"]
    command += ["--cache-dir", str(cache.mkdir("mypy-typed-apps"))]
    command += sorted(str(path) for path in HERE.glob("*.py") if path.name[:5] != "test_")
    checked = subprocess.run(
        command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False
    )
    assert (checked.stdout, checked.stderr, checked.returncode) == ("", "", 0)
