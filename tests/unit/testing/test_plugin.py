"""The plugin as people have it: in a pytest of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text("utf-8")
PLUGIN = "omnicorn.testing.plugin"

TESTS = """
import threading
from urllib.request import urlopen

import pytest

from omnicorn.errors import LifespanFailed


def app(answer):
    async def asgi(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            refused = answer == b"refuse"
            await send({"type": f"lifespan.startup.{'failed' if refused else 'complete'}"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": answer})

    return asgi


def test_two_servers(live_omnicorn):
    one, two = live_omnicorn(app(b"one")), live_omnicorn(app(b"two"), loop="asyncio")
    assert urlopen(one.url).read() == b"one"
    assert urlopen(two.url).read() == b"two"
    one.stop()


def test_none_is_left():
    assert threading.active_count() == 1


def test_a_failure(live_omnicorn):
    with pytest.raises(LifespanFailed):
        live_omnicorn(app(b"refuse"))
"""


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest there, with the plugin, however that is installed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    if not any(point.value == PLUGIN for point in entry_points(group="pytest11")):
        command += ["-p", PLUGIN]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50)


def test_the_fixture_serves_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(TESTS)

    done = pytest_in(tmp_path, "-W", "error::ResourceWarning", "test_own.py")

    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_example_of_the_guide_passes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "guide" / "embedding.md").read_text("utf-8")
    [example] = re.findall(r"^```py\n(from .*?)^```$", page, re.M | re.S)
    [app] = re.findall(r"^<!-- file: main\.py -->\n```python\n(.*?)^```$", README, re.M | re.S)
    (tmp_path / "main.py").write_text(app)
    (tmp_path / "test_example.py").write_text(example)

    done = pytest_in(tmp_path, "test_example.py")

    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_loads_nothing_of_the_server() -> None:
    program = (
        "import sys, pytest\n"
        "before = set(sys.modules)\n"
        "import omnicorn.testing.plugin\n"
        "print(sorted(set(sys.modules) - before))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )

    assert done.stdout.strip() == "['omnicorn', 'omnicorn.testing', 'omnicorn.testing.plugin']"


def test_the_package_itself_does_not_need_pytest() -> None:
    program = "import sys; from omnicorn.testing import LiveServer; print('pytest' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )

    assert done.stdout.strip() == "False", done.stderr
