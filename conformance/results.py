"""What the runners of others' suites report, and which of it is bad.

What this file alone decides: how a report is read, and the verdict.  A test is called by the name
that its runner takes on the command line, so that it can be run again.

- A failure is bad unless the suite's list of known ones has it, or the test fails over asgiref
  too, on the same machine.
- A listed test that does not fail is as bad.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.interpreters import NoVerdict

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

_RAN = re.compile(r"^Ran ([0-9]+) tests? in ", re.MULTILINE)
_ENDED = re.compile(r"^(?:OK|FAILED)(?: \((.*)\))?$", re.MULTILINE)
_COUNT = re.compile(r"([a-z ]+)=([0-9]+)")
_BAD = re.compile(r"^(?:FAIL|ERROR|UNEXPECTED SUCCESS): [^(\n]+ \(([^)\s]+)\)", re.MULTILINE)
# unittest's stand-in for a module that cannot be imported.
_UNLOADABLE = "unittest.loader._FailedTest."


@dataclass(frozen=True, slots=True)
class Results:
    """What one run of a suite gave.

    Attributes:
        failed: The tests that failed, in their order.
        passed: How many passed.
        skipped: How many were skipped.
        expected: How many failed as their authors expect.
    """

    failed: tuple[str, ...]
    passed: int
    skipped: int
    expected: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The failures, sorted by what they mean.

    Attributes:
        new: Those that only the toolkit can have caused.
        known: Those that the suite's list has.
        shared: Those that fail over asgiref too.
        mended: Listed tests that do not fail.
    """

    new: tuple[str, ...]
    known: tuple[str, ...]
    shared: tuple[str, ...]
    mended: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is new."""
        return not self.new and not self.mended


def judge(
    failed: Collection[str], known: Mapping[str, str], shared: Collection[str], *, whole: bool
) -> Verdict:
    """Sort failures; whether listed tests had to fail is known of a whole run only."""
    return Verdict(
        new=tuple(test for test in failed if test not in known and test not in shared),
        known=tuple(test for test in failed if test in known),
        shared=tuple(test for test in failed if test in shared and test not in known),
        mended=tuple(test for test in known if whole and test not in failed),
    )


def from_junit(report: Path) -> Results:
    """Read the XML that pytest writes, in its first form, which names files.

    Raises:
        NoVerdict: It was not written, or holds no test.
    """
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError) as failure:
        raise NoVerdict(f"pytest wrote no report: {failure}") from failure
    if not cases:
        raise NoVerdict("pytest found no test")
    failed: dict[str, None] = {}
    skipped = expected = 0
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            failed[_node(case)] = None
        elif (skip := case.find("skipped")) is not None:
            skipped += skip.get("type") != "pytest.xfail"
            expected += skip.get("type") == "pytest.xfail"
    # A test that fails and whose fixture fails too has two entries.
    names = {_node(case) for case in cases}
    return Results(tuple(failed), len(names) - len(failed) - skipped - expected, skipped, expected)


def _node(case: ElementTree.Element) -> str:
    file, name = case.get("file"), case.get("name", "")
    if file is None:
        # A file that cannot be imported has its module's name only.
        return name.replace(".", "/") + ".py"
    module = file.removesuffix(".py").replace("/", ".")
    classes = case.get("classname", "").removeprefix(module).strip(".")
    return "::".join([file, *filter(None, classes.split(".")), name])


def from_unittest(log: str) -> Results:
    """Read what unittest prints in the end.

    Raises:
        NoVerdict: It did not come to its end.
    """
    ran, ended = _RAN.search(log), None
    for found in _ENDED.finditer(log):
        ended = found
    if ran is None or ended is None:
        raise NoVerdict("the suite did not come to its end")
    counts = {name.strip(): int(count) for name, count in _COUNT.findall(ended[1] or "")}
    failed = tuple(dict.fromkeys(name.removeprefix(_UNLOADABLE) for name in _BAD.findall(log)))
    skipped, expected = counts.get("skipped", 0), counts.get("expected failures", 0)
    return Results(failed, int(ran[1]) - skipped - expected - len(failed), skipped, expected)
