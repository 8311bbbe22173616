from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conformance.interpreters import NoVerdict
from conformance.results import Results

from conformance import results

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = {"a": "the reason"}


# --------------------------------------------------------------------------------- verdict


def test_a_failure_is_new_unless_it_is_listed_or_asgirefs_too() -> None:
    verdict = results.judge(["a", "b", "c"], KNOWN, ["c"], whole=True)

    assert (verdict.known, verdict.new, verdict.shared) == (("a",), ("b",), ("c",))
    assert not verdict.passed


def test_listed_and_shared_failures_pass() -> None:
    assert results.judge(["a", "c"], KNOWN, ["c"], whole=True).passed


def test_a_listed_test_that_does_not_fail_fails_the_run() -> None:
    verdict = results.judge([], KNOWN, [], whole=True)

    assert verdict.mended == ("a",)
    assert not verdict.passed


def test_a_part_of_a_suite_need_not_have_the_listed_tests() -> None:
    assert results.judge([], KNOWN, [], whole=False).passed


# ------------------------------------------------------------------------------- pytest's


def junit(tmp_path: Path, *cases: str) -> Path:
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return report


def case(file: str, classname: str, name: str, inside: str = "") -> str:
    return f'<testcase file="{file}" classname="{classname}" name="{name}">{inside}</testcase>'


def test_tests_of_pytest_have_the_names_that_it_takes(tmp_path: Path) -> None:
    report = junit(
        tmp_path,
        case("tests/test_a.py", "tests.test_a", "test_one[1.5]", "<failure/>"),
        case("tests/test_a.py", "tests.test_a.Group.Inner", "test_two", "<error/>"),
        '<testcase classname="" name="tests.test_b"><error/></testcase>',
    )

    assert results.from_junit(report).failed == (
        "tests/test_a.py::test_one[1.5]",
        "tests/test_a.py::Group::Inner::test_two",
        "tests/test_b.py",
    )


def test_tests_of_pytest_are_counted(tmp_path: Path) -> None:
    report = junit(
        tmp_path,
        case("t.py", "t", "passed"),
        case("t.py", "t", "skipped", '<skipped type="pytest.skip"/>'),
        case("t.py", "t", "expected", '<skipped type="pytest.xfail"/>'),
        case("t.py", "t", "failed", "<failure/>"),
        case("t.py", "t", "failed", "<error/>"),
    )

    assert results.from_junit(report) == Results(("t.py::failed",), 1, 1, 1)


@pytest.mark.parametrize("text", ["", "<testsuites/>"])
def test_a_report_without_a_test_is_no_verdict(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.xml").write_text(text)

    with pytest.raises(NoVerdict):
        results.from_junit(tmp_path / "report.xml")


def test_a_missing_report_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(NoVerdict):
        results.from_junit(tmp_path / "report.xml")


# ------------------------------------------------------------------------------ unittest's

LOG = """\
Testing against Django installed in '/x/django'
F..sE
======================================================================
ERROR: setUpClass (handlers.tests.HandlerTests)
----------------------------------------------------------------------
Traceback (most recent call last):
======================================================================
ERROR: nothing (unittest.loader._FailedTest.nothing)
----------------------------------------------------------------------
======================================================================
FAIL: test_it (async.tests.AsyncTests.test_it) [with hops] (i=1)
A docstring: (not a name)
----------------------------------------------------------------------
======================================================================
FAIL: test_it (async.tests.AsyncTests.test_it) [with hops] (i=2)
----------------------------------------------------------------------
UNEXPECTED SUCCESS: test_odd (async.tests.AsyncTests.test_odd)
----------------------------------------------------------------------
Ran 104 tests in 8.307s

FAILED (failures=2, errors=2, skipped=3, expected failures=1, unexpected successes=1)
Destroying test database for alias 'default'...
"""


def test_what_unittest_prints_is_read() -> None:
    gave = results.from_unittest(LOG)

    assert gave == Results(
        (
            "handlers.tests.HandlerTests",
            "nothing",
            "async.tests.AsyncTests.test_it",
            "async.tests.AsyncTests.test_odd",
        ),
        104 - 4 - 3 - 1,
        3,
        1,
    )


def test_a_run_of_unittest_without_failures_is_read() -> None:
    assert results.from_unittest("Ran 2 tests in 0.1s\n\nOK\n") == Results((), 2, 0, 0)
    assert results.from_unittest("Ran 2 tests in 0.1s\n\nOK (skipped=1)\n").skipped == 1


@pytest.mark.parametrize("log", ["", "Killed", LOG.partition("FAILED")[0]])
def test_a_log_without_an_end_is_no_verdict(log: str) -> None:
    with pytest.raises(NoVerdict, match="end"):
        results.from_unittest(log)
