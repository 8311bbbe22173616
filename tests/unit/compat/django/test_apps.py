from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("django", reason="django is not installed")

OURS = "omnicorn.compat.django"


def check(tmp_path: Path, *installed: str) -> str:
    """What Django's checks say of such ``INSTALLED_APPS``, in a process of its own."""
    program = (
        "import django\n"
        "from django.conf import settings\n"
        f"settings.configure(INSTALLED_APPS={installed!r}, STATIC_URL='static/')\n"
        "django.setup()\n"
        "from django.core.checks import run_checks\n"
        "print([message.id for message in run_checks()])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_first_place_is_right(tmp_path: Path) -> None:
    assert check(tmp_path, OURS, "django.contrib.staticfiles") == "[]"


def test_a_place_behind_staticfiles_is_an_error(tmp_path: Path) -> None:
    assert check(tmp_path, "django.contrib.staticfiles", OURS) == "['omnicorn.E001']"


def test_no_rival_is_right_too(tmp_path: Path) -> None:
    assert check(tmp_path, OURS) == "[]"
