"""The servers' own virtual environment, `.bench/venv`, and what is known of machine and versions.

What this file alone decides: where peers are installed and when.  Every server, omnicorn too, is
run by this one interpreter; omnicorn comes from the repository's `src` by way of PYTHONPATH.

Invariant: the stamp names the interpreter and the requirements that are installed.  Another
interpreter starts the environment afresh; a requirement not in the stamp is installed; one that
cannot be installed is reported and left out, and tried again next time.  Delete the folder to
get the newest versions.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".bench"
VENV = WORK / "venv"
PYTHON = VENV / "bin" / "python"
_PIP_INSTALL = (str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
_STAMP = VENV / "bench-stamp.json"


class EnvironmentFailed(Exception):
    """The virtual environment could not be made."""


def install(
    interpreter: str, requirements: Iterable[str], say: Callable[[str], None]
) -> dict[str, str]:
    """Make the environment hold `requirements`; return those that failed, with pip's reason.

    A requirement may be `A or B`: B is installed where A cannot be.

    Raises:
        EnvironmentFailed: `interpreter` cannot be run, or makes no virtual environment.
    """
    version = _output([interpreter, "-c", "import sys; print(sys.version)"])
    installed = _installed(version)
    if installed is None:
        say(f"making the servers' environment with Python {version.split()[0]}")
        _output([interpreter, "-m", "venv", "--clear", str(VENV)])
        installed = []
    failed: dict[str, str] = {}
    for requirement in requirements:
        if requirement in installed or requirement in failed:
            continue
        for alternative in requirement.split(" or "):
            say(f"installing {alternative}")
            try:
                _output([*_PIP_INSTALL, alternative])
            except EnvironmentFailed as failure:
                failed[requirement] = str(failure)
            else:
                installed.append(requirement)
                failed.pop(requirement, None)
                break
    _STAMP.write_text(json.dumps({"python": version, "installed": installed}, indent=1))
    return failed


def _installed(version: str) -> list[str] | None:
    """What the stamp lists; None when there is no environment of this Python."""
    try:
        stamp = json.loads(_STAMP.read_text())
        if stamp["python"] != version or not PYTHON.exists():
            return None
        return [str(requirement) for requirement in stamp["installed"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables())
    except OSError as failure:
        raise EnvironmentFailed(f"cannot run {command[0]}: {failure.strerror}") from failure
    except subprocess.CalledProcessError as failure:
        last = (failure.stderr or failure.stdout or "").strip().splitlines()[-1:]
        reason = anonymous(last[0]) if last else f"exit status {failure.returncode}"
        raise EnvironmentFailed(reason) from failure
    return done.stdout.strip()


def script(name: str) -> str:
    """Where the environment has the command `name`, for its own Python to run."""
    return str(VENV / "bin" / name)


def variables() -> dict[str, str]:
    """The environment variables of every server: none that would configure one of them."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "PATH": f"{VENV / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
    }


def anonymous(text: str) -> str:
    """`text` without the folders of this machine, for reports that others will read."""
    for folder, name in ((VENV, "venv"), (ROOT, "."), (Path.home(), "~")):
        text = text.replace(str(folder), name)
    return text


def facts() -> dict[str, str]:
    """What a reader needs to know of the machine; nothing that names it."""
    found = {
        "CPU": cpu_model(Path("/proc/cpuinfo")),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": "unknown",
    }
    try:
        found["Python"] = _output(
            [
                str(PYTHON),
                "-c",
                "import platform as p; print(p.python_implementation(), p.python_version())",
            ]
        )
    except EnvironmentFailed:
        pass
    for client in ("wrk", "h2load"):
        found[client] = _client_version(client)
    return found


def _client_version(client: str) -> str:
    try:
        # wrk prints its version with its usage, and ends with 1.
        said = subprocess.run([client, "--version"], capture_output=True, text=True)
    except OSError:
        return "not installed"
    match = re.search(rf"^{client} (\S+)", said.stdout + said.stderr, re.MULTILINE)
    return match[1] if match else "unknown"


def cpu_model(cpuinfo: Path) -> str:
    """The processor's name, as /proc/cpuinfo has it on x86, else what Python knows."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """The versions of `distributions` that the servers' interpreter finds, by metadata or import.

    omnicorn is on PYTHONPATH, not installed: it has no metadata there, only `__version__`.
    """
    program = (
        "import importlib, importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError:\n"
        "        try:\n"
        "            found[name] = importlib.import_module(name).__version__\n"
        "        except (ImportError, AttributeError):\n"
        "            pass\n"
        "print(json.dumps(found))\n"
    )
    try:
        found = json.loads(_output([str(PYTHON), "-c", program, *distributions]))
    except (EnvironmentFailed, ValueError):
        return {}
    return {str(name): str(version) for name, version in found.items()}
