"""What `tests/e2e/test_compat_django.py` does not see: settings that name nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("django", reason="django is not installed")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("", "ASGIHandler"),
        ("ASGI_APPLICATION=None", "ASGIHandler"),
        ("ASGI_APPLICATION='json.dumps'", "function"),
        ("ASGI_APPLICATION='json.nothing'", "CommandError"),
    ],
)
def test_the_setting_names_the_application_or_it_is_djangos_own(setting: str, told: str) -> None:
    program = (
        "import django\n"
        "from django.conf import settings\n"
        f"settings.configure({setting})\n"
        "django.setup()\n"
        "from omnicorn.compat.django.management.commands.runserver import get_application\n"
        "try:\n"
        "    print(type(get_application()).__name__)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stdout.strip() == told, done.stderr
