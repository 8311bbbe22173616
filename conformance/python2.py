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
import sys
from typing import TYPE_CHECKING

from conformance.interpreters import PROBE_SECONDS, NoVerdict, folders, output

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("python2.7", "python2")
_VIRTUALENV = "virtualenv<20.22"
_PROBE = (
    "import sys; print('%d.%d %s' % (sys.version_info[0], sys.version_info[1], sys.executable))"
)
INSTALL_SECONDS = 900.0
"""How long one step of the installation may take: a download, a few small extensions in C."""

HOW_TO_GET_IT = (
    "Autobahn's suite runs on Python 2.7, which is not on PATH. Get it with one of\n"
    "  pyenv install 2.7.18          (any system)\n"
    "  apt-get install python2-dev   (Debian 11, Ubuntu 20.04 to 22.04)\n"
    "or name an interpreter: python -m conformance --python2 PATH"
)


def find() -> str:
    """The path of a Python 2.7 that runs.

    Raises:
        NoVerdict: There is none; the message says how to get it.
    """
    for folder in folders():
        for name in NAMES:
            if os.access(path := os.path.join(folder, name), os.X_OK):
                try:
                    return check(path)
                except NoVerdict:
                    # A pyenv shim may be on PATH for a version that is not selected.
                    continue
    raise NoVerdict(HOW_TO_GET_IT)


def check(interpreter: str) -> str:
    """The path of the executable behind a command, which has to be a Python 2.7 that runs.

    Raises:
        NoVerdict: It is not.
    """
    try:
        said = output([interpreter, "-c", _PROBE], PROBE_SECONDS)
    except NoVerdict as failure:
        raise NoVerdict(f"{interpreter}: {failure}") from failure
    version, _, path = said.partition(" ")
    if version != "2.7":
        raise NoVerdict(f"{interpreter}: expected Python 2.7, this is Python {version}")
    return path or interpreter


def environment(interpreter: str, requirement: str, work: Path, say: Callable[[str], None]) -> Path:
    """Make a virtual environment below `work` hold `requirement`; return its `bin`.

    Raises:
        NoVerdict: virtualenv, the environment or the requirement cannot be installed.
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
            extra = {"PYTHONPATH": str(tool)} if "virtualenv" in step else None
            output(step, INSTALL_SECONDS, extra)
        stamp.write_text(content)
    return venv / "bin"
