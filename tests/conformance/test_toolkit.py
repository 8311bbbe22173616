from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conformance.environments import Environment
from conformance.interpreters import NoVerdict
from conformance.suites import SUITES
from conformance.toolkit import Silent

from conformance import environments, interpreters, toolkit

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.suites import Suite

SUITE = replace(SUITES["asgiref"], known={})
HERE = f"3.{sys.version_info.minor}"


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Make what `run` prepares; gives the releases that it asks for, once it has.

    The interpreter of its environment writes the reports that `report` has laid down.
    """

    def prepared(python: str = str(tmp_path / "python"), found: str | None = None) -> list[str]:
        asked: list[str] = []

        def prepare(suite: Suite, requirement: str, *others: object) -> Environment:
            asked.append(requirement)
            return Environment(Path(python), tmp_path / "suite-1.0")

        script = tmp_path / "python"
        script.write_text(
            '#!/bin/sh\necho "$@"\nfor last; do case $last in *.xml) report=$last;; esac; done\n'
            f"cp {tmp_path}/${{{environments.ASGIREF}:+over-asgiref-}}report.xml $report\n"
        )
        script.chmod(0o755)
        (tmp_path / "suite-1.0" / "tests").mkdir(parents=True)
        (tmp_path / "work" / SUITE.name / f"python{HERE}").mkdir(parents=True)
        monkeypatch.setattr(environments, "prepare", prepare)
        monkeypatch.setattr(environments, "whose", lambda *others: "3.13.0 somewhere")
        monkeypatch.setattr(environments, "release", lambda *others: tmp_path / "asgiref")
        monkeypatch.setattr(interpreters, "newest", lambda: found)
        return asked

    return prepared


def report(path: Path, **tests: bool) -> None:
    cases = (
        '<testcase file="t.py" classname="t" '
        f'name="{name}">{"" if good else "<failure/>"}</testcase>'
        for name, good in tests.items()
    )
    path.write_text(f"<testsuite>{''.join(cases)}</testsuite>")


def run(tmp_path: Path, suite: Suite, *tests: str) -> bool:
    return toolkit.run(suite, tests, (), None, tmp_path / "work", lambda line: None)


# -------------------------------------------------------------------------------- verdicts


def test_failures_are_run_again_over_asgiref(
    tmp_path: Path, prepared: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    prepared()
    report(tmp_path / "report.xml", good=True, bad=False, worse=False)
    report(tmp_path / "over-asgiref-report.xml", bad=True, worse=False)

    assert not run(tmp_path, SUITE)

    said = capsys.readouterr().out.splitlines()
    assert said[1:3] == [f"suite-1.0 on Python {HERE}", "asgiref is 3.13.0 somewhere"]
    assert any(line.startswith("1 passed, 2 failed, 0 skipped") for line in said)
    assert "  FAILED: t.py::bad" in said
    assert "  fails over asgiref too: t.py::worse" in said
    [again] = (tmp_path / "work").glob("*/*/asgiref.log")
    assert again.read_text().endswith(" t.py::bad t.py::worse\n")


def test_failures_that_are_not_the_toolkits_pass(
    tmp_path: Path, prepared: Callable[..., list[str]]
) -> None:
    prepared()
    report(tmp_path / "report.xml", bad=False)
    report(tmp_path / "over-asgiref-report.xml", bad=False)

    assert run(tmp_path, SUITE)


def test_failures_that_cannot_be_run_over_asgiref_have_failed(
    tmp_path: Path, prepared: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    prepared()
    report(tmp_path / "report.xml", bad=False)

    assert not run(tmp_path, SUITE)

    said = capsys.readouterr().out
    assert "could not be run over asgiref: asgiref: pytest wrote no report" in said
    assert "  FAILED: t.py::bad" in said


def test_listed_failures_pass_with_their_reason(
    tmp_path: Path, prepared: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    prepared()
    report(tmp_path / "report.xml", bad=False)

    assert run(tmp_path, replace(SUITE, known={"t.py::bad": "meant so"}))

    assert "known: t.py::bad\n      meant so" in capsys.readouterr().out


def test_a_listed_test_that_passes_fails_the_run(
    tmp_path: Path, prepared: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    prepared()
    report(tmp_path / "report.xml", bad=True)
    suite = replace(SUITE, known={"t.py::bad": "meant so"})

    assert not run(tmp_path, suite)
    assert "strike it off the list: t.py::bad" in capsys.readouterr().out
    assert run(tmp_path, suite, "t.py")


def test_a_suite_that_gives_no_report_is_no_verdict(
    tmp_path: Path, prepared: Callable[..., list[str]]
) -> None:
    prepared()

    with pytest.raises(NoVerdict, match="asgiref: pytest wrote no report"):
        run(tmp_path, SUITE)


def test_the_tests_of_a_suite_get_its_variables_and_are_counted(
    tmp_path: Path, prepared: Callable[..., list[str]]
) -> None:
    prepared(python=sys.executable)
    (tmp_path / "suite-1.0" / "tests" / "test_it.py").write_text(
        "import os\n\ndef test_it():\n    assert os.environ['WANTED'] == '3'\n"
    )

    assert run(tmp_path, replace(SUITE, variables={"WANTED": "3"}))


# --------------------------------------------------------------------------------- silence


def test_a_suite_that_falls_silent_has_failed_and_shows_its_stacks(
    tmp_path: Path,
    prepared: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepared()
    monkeypatch.setattr(toolkit, "SILENCE_SECONDS", 0.0)
    monkeypatch.setattr(toolkit, "_POLL_SECONDS", 0.05)
    command = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    monkeypatch.setattr(toolkit, "arguments", lambda *others: (tmp_path, command))

    assert not run(tmp_path, SUITE)

    assert "FAILED: silent for 0 s" in capsys.readouterr().out


def test_stacks_of_a_silent_suite_are_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolkit, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(toolkit, "_POLL_SECONDS", 0.05)
    script = (
        "import threading\ndef stuck(): threading.Event().wait()\nprint('on', flush=True)\nstuck()"
    )
    log = tmp_path / "log"

    with pytest.raises(Silent):
        toolkit.carry_out(
            [sys.executable, "-c", script], tmp_path, {"PYTHONFAULTHANDLER": "1"}, log
        )

    assert "in stuck" in log.read_text()


# ---------------------------------------------------------------------------------- Pythons


@pytest.mark.parametrize("found", ["/opt/python3.99", None])
def test_the_newest_release_is_run_on_the_newest_python(
    found: str | None,
    tmp_path: Path,
    prepared: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = prepared(found=found)
    monkeypatch.setattr(interpreters, "check", lambda path: (path[-4:], path))
    ran: list[Path] = []

    def on(environment: Environment, *others: object) -> bool:
        ran.append(environment.python)
        return True

    monkeypatch.setattr(toolkit, "_on", on)

    assert run(tmp_path, SUITES["django"])

    assert asked == ["django>=5.2,<5.3", "django"]
    # Without a newer Python there is one release only, as all have the same folder here.
    assert len(ran) == (2 if found else 1)


def test_pythons_of_ones_choice_take_their_place(
    tmp_path: Path, prepared: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prepared(found="/opt/python3.99")
    monkeypatch.setattr(interpreters, "check", lambda path: (path[-4:], path))
    monkeypatch.setattr(toolkit, "_on", lambda *others: True)

    assert toolkit.run(SUITES["django"], (), ["/opt/python3.12"], None, tmp_path, print)

    assert asked == ["django>=5.2,<5.3"]


def test_djangos_labels_are_those_that_its_release_has(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "python", tmp_path / "django-5.2.1")
    for label in ("asgi", "async", "gis_tests"):
        (environment.tree / "tests" / label).mkdir(parents=True)

    folder, command = toolkit.arguments(environment, SUITES["django"], (), tmp_path / "report")

    assert folder == environment.tree / "tests"
    assert command[1:] == ["runtests.py", "--noinput", "--parallel", "1", "async", "asgi"]


def test_tests_of_ones_choice_take_their_place(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "python", tmp_path)

    _, of_django = toolkit.arguments(environment, SUITES["django"], ["cache"], tmp_path / "r")
    _, of_pytest = toolkit.arguments(environment, SUITE, ["tests/a.py"], tmp_path / "r")

    assert (of_django[-1], of_pytest[-1]) == ("cache", "tests/a.py")
    assert "tests" not in of_pytest
