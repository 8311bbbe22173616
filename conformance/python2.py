"""CPython 2.7, which the suite needs, and the suite's own virtual environment.

What this file alone decides: where Python 2.7 is looked for, and how the suite is installed.

Autobahn's suite has never been released for Python 3, and neither `venv` nor a current pip knows
Python 2.  virtualenv 20.21 is the last release that makes environments for it; it brings a pip
that runs on it, so that nothing but the bare interpreter is needed.  It goes into a folder of its
own, away from the environment that runs this.

Invariant: the stamp is removed first and written last, and names interpreter and requirement.
An environment without it, or with another one in it, is made anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAMES = ("python2.7", "python2")
_VIRTUALENV = "virtualenv<20.22"
_PROBE = (
    "import sys; print('%d.%d %s' % (sys.version_info[0], sys.version_info[1], sys.executable))"
)
_PROBE_SECONDS = 10.0
INSTALL_SECONDS = 900.0
"""How long one step of the installation may take: a download, a few small extensions in C."""

HOW_TO_GET_IT = (
    "Autobahn's suite runs on Python 2.7, which is not on PATH. Get it with one of\n"
    "  pyenv install 2.7.18          (any system)\n"
    "  apt-get install python2-dev   (Debian 11, Ubuntu 20.04 to 22.04)\n"
    "or name an interpreter: python -m conformance --python2 PATH"
)


class Python2Failed(Exception):
    """There is no Python 2.7, or the suite could not be installed for it."""


def find() -> str:
    """The path of a Python 2.7 that runs.

    Raises:
        Python2Failed: There is none; the message says how to get it.
    """
    for candidate in _candidates():
        try:
            return check(candidate)
        except Python2Failed:
            # A pyenv shim may be on PATH for a version that is not selected.
            continue
    raise Python2Failed(HOW_TO_GET_IT)


def check(interpreter: str) -> str:
    """The path of the executable behind a command, which has to be a Python 2.7 that runs.

    Raises:
        Python2Failed: It is not.
    """
    try:
        said = _output([interpreter, "-c", _PROBE], _PROBE_SECONDS)
    except Python2Failed as failure:
        raise Python2Failed(f"{interpreter}: {failure}") from failure
    version, _, path = said.partition(" ")
    if version != "2.7":
        raise Python2Failed(f"{interpreter}: expected Python 2.7, this is Python {version}")
    return path or interpreter


def _candidates() -> Iterator[str]:
    for name in NAMES:
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            if os.access(path := os.path.join(folder, name), os.X_OK):
                yield path
    # pyenv keeps versions that are installed but not selected off PATH.
    try:
        for version in _output(["pyenv", "whence", NAMES[0]], _PROBE_SECONDS).splitlines():
            prefix = _output(["pyenv", "prefix", version.strip()], _PROBE_SECONDS)
            yield os.path.join(prefix, "bin", NAMES[0])
    except Python2Failed:
        return


def environment(interpreter: str, requirement: str, work: Path, say: Callable[[str], None]) -> Path:
    """Make a virtual environment below `work` hold `requirement`; return its `bin`.

    Raises:
        Python2Failed: virtualenv, the environment or the requirement cannot be installed.
    """
    venv = work / "venv"
    stamp = venv / "conformance-stamp"
    content = f"{interpreter}\n{requirement}\n"
    if not stamp.exists() or stamp.read_text() != content:
        say(f"installing {requirement} for {interpreter}, once; this takes a minute")
        stamp.unlink(missing_ok=True)
        tool = work / "virtualenv"
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        steps: tuple[tuple[str, ...], ...] = (
            (sys.executable, *pip, "--upgrade", "--target", str(tool), _VIRTUALENV),
            (sys.executable, "-m", "virtualenv", "--clear", "--python", interpreter, str(venv)),
            (str(venv / "bin" / "python"), *pip, requirement),
        )
        for step in steps:
            # Only virtualenv itself is found there; Python 2 must not see it.
            path = str(tool) if "virtualenv" in step else None
            _output(list(step), INSTALL_SECONDS, python_path=path)
        stamp.write_text(content)
    return venv / "bin"


def _output(command: list[str], seconds: float, python_path: str | None = None) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if python_path is not None:
        environ["PYTHONPATH"] = python_path
    what = " ".join(command[:4])
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environ,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
        )
    except OSError as failure:
        raise Python2Failed(f"cannot run {what}: {failure.strerror}") from failure
    except subprocess.TimeoutExpired as failure:
        raise Python2Failed(f"{what} did not end within {seconds:.0f} s") from failure
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise Python2Failed(f"{what} ended with status {done.returncode}:\n" + "\n".join(last))
    return done.stdout.strip()
