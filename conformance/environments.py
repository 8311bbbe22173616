"""A suite's virtual environment and sources, in which `import asgiref` gives the toolkit.

What this file alone decides: how sources come here, and how the toolkit gets under asgiref's name
in every process of a suite.

- Sources are the release's own archive in the package index (`pip download`), or, where that has
  no tests, an archive of the repository, or a folder that is given.
- The name is given out by a `.pth` file: `site` carries out its line at the start of each Python
  of that environment, in the children that tests start too, before anything can import asgiref.
  asgiref is not installed there: should the line fail, so does whatever imports it.
- Invariant: the stamp is removed first and written last, and names all that a folder was made
  of.  A folder without it, or with another one in it, is made anew.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conformance.interpreters import PROBE_SECONDS, NoVerdict, output
from conformance.server import ROOT, shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conformance.suites import Suite

INSTALL_SECONDS = 900.0
"""How long one step of the installation may take."""

ARCHIVE_SECONDS = 30.0
"""How long an archive may send nothing."""

ASGIREF = "CONFORMANCE_ASGIREF"
"""The variable that puts the asgiref whose sources it names in the toolkit's place."""

PTH = f"""{ROOT / "src"}
import os, sys; \
sys.path.append(os.environ["{ASGIREF}"]) if "{ASGIREF}" in os.environ else \
__import__("omnicorn.toolkit.alias", fromlist=["alias"]).install_as_asgiref()
"""
"""Two lines: a folder to be searched, and a statement to be carried out."""

_PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
_WHOSE = "import asgiref, asgiref.sync as sync; print(asgiref.__version__, sync.__file__)"


def source_variable(name: str) -> str:
    """The variable that may name a suite's sources, as `--source` does."""
    return f"{name.upper()}_SOURCE"


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter that has all that a suite needs but asgiref, and the suite's sources."""

    python: Path
    tree: Path

    @property
    def release(self) -> str:
        """`django-5.2.1`, or the name of the folder that was given."""
        return self.tree.name


def prepare(
    suite: Suite,
    requirement: str,
    interpreter: str,
    folder: Path,
    source: Path | None,
    say: Callable[[str], None],
) -> Environment:
    """Make `folder` hold a suite's environment and sources.

    Raises:
        NoVerdict: Something cannot be fetched or installed, or has no tests.
    """
    python = folder / "venv" / "bin" / "python"
    stamp = folder / "stamp.json"
    parts = [requirement, interpreter, str(source or ""), *suite.needs, "--", *suite.bare, PTH]
    made = _read(stamp)
    if made.get("parts") != parts:
        say(f"installing {suite.name} for {interpreter}, once; this takes a minute or two")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        output([interpreter, "-m", "venv", str(folder / "venv")], INSTALL_SECONDS)
        tree = source or release(requirement, str(python), folder / "source")
        if not (tree / suite.tests).is_dir():
            tree = _from_archive(suite, tree, folder, given=source is not None)
        output([str(python), *_PIP, "install", *suite.needs], INSTALL_SECONDS)
        bare = [*suite.bare, str(tree)] if suite.installed else list(suite.bare)
        if bare:
            output([str(python), *_PIP, "install", "--no-deps", *bare], INSTALL_SECONDS)
        packages = next((folder / "venv").glob("lib/python3*/site-packages"))
        if (packages / "asgiref").exists():
            raise NoVerdict(f"{suite.name}: one of its requirements has installed asgiref")
        (packages / "omnicorn-conformance.pth").write_text(PTH)
        made = {"parts": parts, "tree": str(tree)}
        stamp.write_text(json.dumps(made, indent=1))
    return Environment(python, folder / made["tree"])


def release(requirement: str, python: str, folder: Path) -> Path:
    """Fetch the sources of a release that runs on `python` into `folder`, once; return its root.

    Raises:
        NoVerdict: There is none, or the package index cannot be reached.
    """
    stamp = folder / "stamp.json"
    made = _read(stamp)
    if made.get("requirement") != requirement:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        name = requirement.partition("=")[0].partition(">")[0]
        fetch = ("download", "--no-deps", "--no-binary", name, "--dest", str(folder), requirement)
        output([python, *_PIP, *fetch], INSTALL_SECONDS)
        made = {"requirement": requirement, "tree": unpacked(next(folder.glob("*.tar.gz"))).name}
        stamp.write_text(json.dumps(made))
    tree: str = made["tree"]
    return folder / tree


def unpacked(archive: Path) -> Path:
    """Unpack an archive of sources beside itself; return the one folder that is in it.

    Raises:
        NoVerdict: It is no such archive.
    """
    try:
        with tarfile.open(archive) as opened:
            roots = {member.name.partition("/")[0] for member in opened}
            if len(roots) != 1:
                raise NoVerdict(f"{archive.name}: expected one folder, found {len(roots)}")
            opened.extractall(archive.parent, filter="data")
    except (tarfile.TarError, OSError, EOFError) as failure:
        raise NoVerdict(f"cannot unpack {archive.name}: {failure}") from failure
    return archive.parent / roots.pop()


def _from_archive(suite: Suite, tree: Path, folder: Path, *, given: bool) -> Path:
    version = tree.name.rpartition("-")[2]
    url = suite.archive.format(version=version)
    lacking = f"{shown(tree)} has no {suite.tests}"
    if given or not url:
        raise NoVerdict(lacking)
    target = folder / "archive" / f"{suite.name}-{version}.tar.gz"
    target.parent.mkdir()
    try:
        with (
            urllib.request.urlopen(url, timeout=ARCHIVE_SECONDS) as answer,
            target.open("wb") as sink,
        ):
            shutil.copyfileobj(answer, sink)
    except OSError as failure:
        raise NoVerdict(
            f"{lacking}, and {url} cannot be reached ({failure}).\n"
            f"Name a checkout of it: python -m conformance {suite.name} --source PATH,\n"
            f"or make test-{suite.name} {source_variable(suite.name)}=PATH"
        ) from failure
    return unpacked(target)


def variables(environment: Environment, asgiref: Path | None = None) -> dict[str, str]:
    """The environment of what a suite runs: the toolkit, or the asgiref whose sources are given.

    No variable that configures a Python, pytest or Django reaches it.
    """
    dropped = ("PYTHON", "PYTEST", "DJANGO", "ASGI", "VIRTUAL_ENV", ASGIREF)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    # A test that hangs is ended by a signal; its stacks are then in the log.
    kept |= {"PYTHONFAULTHANDLER": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    # Tests start programs of the environment by their names.
    kept["PATH"] = f"{environment.python.parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    if asgiref is not None:
        # Not PYTHONPATH: some tests set that for the programs that they start.
        kept[ASGIREF] = str(asgiref)
    return kept


def whose(environment: Environment, asgiref: Path | None = None) -> str:
    """Ask the environment itself what `import asgiref` gives there: its version and file.

    Raises:
        NoVerdict: It is not what it should be.
    """
    extra = {ASGIREF: str(asgiref)} if asgiref is not None else None
    said = output([str(environment.python), "-c", _WHOSE], PROBE_SECONDS * 3, extra)
    place = asgiref or ROOT / "src" / "omnicorn" / "toolkit"
    if not said.partition(" ")[2].startswith(str(place)):
        raise NoVerdict(f"expected asgiref to be in {place}, but it is {said}")
    return said.replace(f"{ROOT}{os.sep}", "")


def _read(stamp: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return {}
    return read
