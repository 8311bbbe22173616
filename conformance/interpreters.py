"""Interpreters of Python on this machine, and the programs that a run starts to prepare itself.

What this file alone decides: where an interpreter is looked for, and what becomes of a preparing
command that fails: there is no verdict, and the message says which command said what.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROBE_SECONDS = 10.0
_NAME = re.compile(r"python3\.([0-9]+)")
# Without these two, nothing can be installed for it; what is not final is not what people run.
_PROBE = (
    "import ensurepip, sys, venv; sys.version_info.releaselevel == 'final' or sys.exit(1);"
    "print('%d.%d %s' % (*sys.version_info[:2], sys.executable))"
)


class NoVerdict(Exception):
    """Something that a run needs is not there; the message names it."""


def folders() -> Iterator[str]:
    """Where interpreters may be: the folders of `PATH`, then those of pyenv's versions."""
    yield from os.environ.get("PATH", os.defpath).split(os.pathsep)
    # pyenv keeps versions that are installed but not selected off PATH.
    try:
        root = Path(output(["pyenv", "root"], PROBE_SECONDS))
    except NoVerdict:
        return
    yield from sorted(map(str, root.glob("versions/*/bin")))


def newest() -> str | None:
    """The path of the newest Python that is newer than the one that runs this; `None` without."""
    found: list[tuple[int, str]] = []
    for folder in folders():
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            match = _NAME.fullmatch(name)
            if match and int(match[1]) > sys.version_info.minor:
                found.append((int(match[1]), os.path.join(folder, name)))
    for _, path in sorted(found, key=lambda pair: -pair[0]):
        try:
            return check(path)[1]
        except NoVerdict:
            # A pyenv shim may be on PATH for a version that is not selected.
            continue
    return None


def check(interpreter: str) -> tuple[str, str]:
    """The version (`3.13`) and the path behind a command, which has to be a Python 3 that runs.

    Raises:
        NoVerdict: It is not, or has no `venv`.
    """
    try:
        version, _, path = output([interpreter, "-c", _PROBE], PROBE_SECONDS).partition(" ")
    except NoVerdict as failure:
        raise NoVerdict(f"{interpreter}: no Python 3 with venv: {failure}") from failure
    return version, path


def output(command: Sequence[str], seconds: float, extra: Mapping[str, str] | None = None) -> str:
    """What a command prints, without the blanks around it.

    The variables that configure a Python do not reach it, other than those in `extra`.

    Raises:
        NoVerdict: It cannot be run, fails, or takes longer than `seconds`.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    what = " ".join(command[:4]).partition(";")[0]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**environ, **(extra or {})},
            stdin=subprocess.DEVNULL,
            timeout=seconds,
        )
    except OSError as failure:
        raise NoVerdict(f"cannot run {what}: {failure.strerror}") from failure
    except subprocess.TimeoutExpired as failure:
        raise NoVerdict(f"{what} did not end within {seconds:.0f} s") from failure
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-5:]
        # pip lists every version there is.
        shown = (line if len(line) <= 400 else f"{line[:400]} ..." for line in last)
        raise NoVerdict(f"{what} ended with status {done.returncode}:\n" + "\n".join(shown))
    return done.stdout.strip()
