from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from conformance.environments import Environment
from conformance.interpreters import NoVerdict
from conformance.suites import SUITES

from conformance import environments, server

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.suites import Suite

SUITE = SUITES["asgiref"]


def fake_python(path: Path, *lines: str) -> Path:
    """A program in the place of an interpreter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def archive(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    empty = path.parent / "empty"
    empty.touch()
    with tarfile.open(path, "w:gz") as made:
        for name in names:
            made.add(empty, name)
    empty.unlink()
    return path


def quiet(line: str) -> None:
    """Nobody at the terminal."""


# -------------------------------------------------------------------------- asgiref's name


def with_pth(folder: Path, script: str, **variables: str) -> str:
    """Carry out `script` in a Python whose site has the file, and print what it prints."""
    (folder / "omnicorn-conformance.pth").write_text(environments.PTH)
    start = f"import site; site.addsitedir({str(folder)!r}); {script}"
    done = subprocess.run(
        [sys.executable, "-c", start],
        check=True,
        capture_output=True,
        encoding="utf-8",
        env=variables,
    )
    assert done.stderr == ""
    return done.stdout.strip()


ASK = "import asgiref.sync; print(asgiref.sync.__file__)"


def test_in_an_environment_of_a_suite_asgiref_is_the_toolkit(tmp_path: Path) -> None:
    toolkit = server.ROOT / "src" / "omnicorn" / "toolkit"

    assert with_pth(tmp_path, ASK) == str(toolkit / "sync.py")


def test_asgiref_itself_may_take_its_place(tmp_path: Path) -> None:
    (tmp_path / "sources" / "asgiref").mkdir(parents=True)
    (tmp_path / "sources" / "asgiref" / "__init__.py").touch()
    script = "import sys, asgiref; print(*asgiref.__path__, 'omnicorn.toolkit' in sys.modules)"
    # Behind an asgiref that is installed, as paths of a .pth file come last.
    script = f"sys.path.reverse(); {script}"

    said = with_pth(
        tmp_path, f"import sys; {script}", **{environments.ASGIREF: str(tmp_path / "sources")}
    )

    assert said == f"{tmp_path / 'sources' / 'asgiref'} False"


def test_an_environment_in_which_asgiref_is_something_else_gives_no_verdict(
    tmp_path: Path,
) -> None:
    python = fake_python(tmp_path / "python", "echo 3.8.1 /site-packages/asgiref/sync.py")

    with pytest.raises(NoVerdict, match=r"it is 3\.8\.1 /site-packages/asgiref"):
        environments.whose(Environment(python, tmp_path))


def test_the_answer_to_whose_asgiref_it_is_can_be_shown(tmp_path: Path) -> None:
    file = server.ROOT / "src" / "omnicorn" / "toolkit" / "sync.py"
    python = fake_python(tmp_path / "python", f"echo 3.13.0 {file}")

    assert environments.whose(Environment(python, tmp_path)) == (
        "3.13.0 src/omnicorn/toolkit/sync.py"
    )


def test_what_configures_a_python_or_django_does_not_reach_a_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Environment(tmp_path / "bin" / "python", tmp_path)
    for name in ("PYTHONPATH", "DJANGO_SETTINGS_MODULE", "PYTEST_ADDOPTS", environments.ASGIREF):
        monkeypatch.setenv(name, "mine")

    made = environments.variables(environment)

    assert "mine" not in made.values()
    assert made["PATH"].startswith(f"{tmp_path / 'bin'}:")
    assert environments.variables(environment, tmp_path)[environments.ASGIREF] == str(tmp_path)


# --------------------------------------------------------------------------------- sources


def test_sources_are_fetched_and_unpacked_once(tmp_path: Path) -> None:
    ready = archive(tmp_path / "ready.tar.gz", "django-5.2.1/tests/runtests.py")
    folder = tmp_path / "source"
    python = fake_python(
        tmp_path / "python",
        f"cp {ready} {folder}/django-5.2.1.tar.gz",
        f"echo $* >> {tmp_path}/said",
    )

    for _ in range(2):
        tree = environments.release("django>=5.2,<5.3", str(python), folder)
        assert (tree / "tests" / "runtests.py").is_file()

    [said] = (tmp_path / "said").read_text().splitlines()
    assert said.endswith(f"--no-deps --no-binary django --dest {folder} django>=5.2,<5.3")


def test_an_index_that_cannot_be_reached_is_no_verdict(tmp_path: Path) -> None:
    python = fake_python(tmp_path / "python", "echo no route to the index >&2", "exit 1")

    with pytest.raises(NoVerdict, match="no route to the index"):
        environments.release("django", str(python), tmp_path / "source")

    assert not list(tmp_path.glob("source/*"))


def test_an_archive_that_is_none_is_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"<html>")

    with pytest.raises(NoVerdict, match=r"cannot unpack a\.tar\.gz"):
        environments.unpacked(tmp_path / "a.tar.gz")


def test_an_archive_of_several_folders_is_no_verdict(tmp_path: Path) -> None:
    made = archive(tmp_path / "a.tar.gz", "one/setup.py", "two/setup.py")

    with pytest.raises(NoVerdict, match="expected one folder, found 2"):
        environments.unpacked(made)


# ---------------------------------------------------------------------------- environments


def interpreter(tmp_path: Path) -> Path:
    """One that makes environments, whose pip writes down what it is asked for."""
    return fake_python(
        tmp_path / "python",
        'if [ "$2" = venv ]; then',
        '  mkdir -p "$3/bin" "$3/lib/python3.11/site-packages"; cp "$0" "$3/bin/python"',
        "else",
        f'  echo "$*" >> {tmp_path}/said; test ! -e {tmp_path}/broken',
        "fi",
    )


def sources(tmp_path: Path) -> Path:
    (tmp_path / "mine-1.0" / "tests").mkdir(parents=True)
    return tmp_path / "mine-1.0"


def test_an_environment_is_made_once_and_has_the_file(tmp_path: Path) -> None:
    suite = replace(SUITE, needs=("pytest",), bare=("django",), installed=True)
    told: list[str] = []
    mine = sources(tmp_path)

    for _ in range(2):
        made = environments.prepare(
            suite, "x", str(interpreter(tmp_path)), tmp_path / "made", mine, told.append
        )

    assert (made.tree, made.release, len(told)) == (mine, "mine-1.0", 1)
    needs, bare = (tmp_path / "said").read_text().splitlines()
    assert needs.endswith("install pytest")
    assert bare.endswith(f"install --no-deps django {mine}")
    [pth] = (tmp_path / "made" / "venv").glob("lib/*/site-packages/*.pth")
    assert pth.read_text() == environments.PTH


def test_a_step_that_fails_leaves_nothing_that_passes_for_whole(tmp_path: Path) -> None:
    python, mine = interpreter(tmp_path), sources(tmp_path)
    (tmp_path / "broken").touch()

    for _ in range(2):
        with pytest.raises(NoVerdict, match="status 1"):
            environments.prepare(SUITE, "x", str(python), tmp_path / "made", mine, quiet)
    (tmp_path / "broken").unlink()

    environments.prepare(SUITE, "x", str(python), tmp_path / "made", mine, quiet)


def test_an_asgiref_that_got_installed_is_no_verdict(tmp_path: Path) -> None:
    packages = tmp_path / "made" / "venv" / "lib" / "python3.11" / "site-packages"
    python = interpreter(tmp_path)
    python.write_text(f"{python.read_text()}mkdir -p {packages}/asgiref\n")

    with pytest.raises(NoVerdict, match="has installed asgiref"):
        environments.prepare(SUITE, "x", str(python), tmp_path / "made", sources(tmp_path), quiet)


def test_a_folder_without_tests_is_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()

    with pytest.raises(NoVerdict, match="mine has no tests"):
        environments.prepare(
            SUITES["channels"],
            "channels",
            str(interpreter(tmp_path)),
            tmp_path / "made",
            tmp_path / "mine",
            quiet,
        )


def downloading(tmp_path: Path) -> Path:
    """An interpreter whose pip fetches a release without tests."""
    ready = archive(tmp_path / "ready.tar.gz", "channels-4.3.2/setup.py")
    python = interpreter(tmp_path)
    fetch = f"cp {ready} {tmp_path}/made/source/channels-4.3.2.tar.gz"
    python.write_text(f'{python.read_text()}case "$*" in *" download "*) {fetch};; esac\n')
    return python


def test_tests_that_cannot_be_had_are_named_with_what_to_do(tmp_path: Path) -> None:
    suite = replace(SUITES["channels"], archive=f"file://{tmp_path}/no/{{version}}.tar.gz")

    with pytest.raises(NoVerdict) as failure:
        environments.prepare(
            suite, "channels", str(downloading(tmp_path)), tmp_path / "made", None, quiet
        )

    assert "channels-4.3.2 has no tests" in str(failure.value)
    assert "4.3.2.tar.gz cannot be reached" in str(failure.value)
    assert "python -m conformance channels --source PATH" in str(failure.value)
    assert "make test-channels CHANNELS_SOURCE=PATH" in str(failure.value)


def test_tests_that_a_release_lacks_are_taken_from_the_archive(tmp_path: Path) -> None:
    archive(tmp_path / "4.3.2.tar.gz", "channels-4.3.2/tests/test_it.py")
    suite = replace(SUITES["channels"], archive=f"file://{tmp_path}/{{version}}.tar.gz")

    made = environments.prepare(
        suite, "channels", str(downloading(tmp_path)), tmp_path / "made", None, quiet
    )

    assert (made.tree / "tests" / "test_it.py").is_file()
    assert json.loads((tmp_path / "made" / "stamp.json").read_text())["tree"] == str(made.tree)


# ---------------------------------------------------------------------------------- suites


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_what_depends_on_asgiref_is_installed_without_it(suite: Suite) -> None:
    assert not {"asgiref", "django", "channels", "daphne"} & {*suite.needs}
