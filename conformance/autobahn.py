"""Autobahn's WebSocket suite: running it as the client, and reading what it reports.

What this file alone decides: which release, how it is called, and which verdicts pass.

The suite gives each case two verdicts: `behavior`, on the frames until the end, and
`behaviorClose`, on how it ended.  Rules:

- OK and INFORMATIONAL pass: the second one is the suite's word for a look at something that
  RFC 6455 leaves open.  All others fail, NON-STRICT too, though the suite calls it conformant:
  it means that a SHOULD was not obeyed.
- A case that the suite announced and has no verdict on is NOT RUN, and fails: it stops at the
  first connection that is refused, and says nothing of the cases behind it.
- The suite never decides how long we wait.  Its longest case gives up after 480 s; silence that
  lasts longer than that ends the run.
"""

from __future__ import annotations

import ast
import json
import os
import re
import select
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

REQUIREMENT = "autobahntestsuite==0.8.2"
SILENCE_SECONDS = 600.0
END_SECONDS = 60.0
"""How long it may take to end after its last line."""

TELL_SECONDS = 30.0

SECTIONS = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Opcodes",
    "5": "Fragmentation",
    "6": "UTF-8 handling",
    "7": "Close handling",
    "9": "Limits and performance",
    "10": "Automatic fragmentation",
    "12": "Compression, payloads",
    "13": "Compression, parameters",
}
PASSING = ("OK", "INFORMATIONAL")
NOT_RUN = "NOT RUN"
VERDICTS = (*PASSING, "NON-STRICT", "UNIMPLEMENTED", "FAILED")
"""The columns that are always there; others (UNCLEAN, WRONG CODE, ...) are where they occur."""

_RUNNING = re.compile(r"Running test case ID (\S+) ")
_ANNOUNCING = "Cases = "


class AutobahnFailed(Exception):
    """The suite gave no verdicts."""


@dataclass(frozen=True, slots=True)
class Case:
    """The verdicts on one case, and what the suite says to explain those that fail."""

    name: str
    behavior: str
    close: str
    remarks: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether both verdicts are OK or INFORMATIONAL."""
        return self.behavior in PASSING and self.close in PASSING

    @property
    def section(self) -> str:
        """`12` of `12.1.3`."""
        return self.name.partition(".")[0]


def run(
    program: Path, url: str, patterns: Sequence[str], folder: Path, say: Callable[[str], None]
) -> list[Case]:
    """Run the cases that match `patterns` (`9.1.*`) on the server at `url`.

    Reports go to `folder/report`, a web page for each case among them.

    Raises:
        AutobahnFailed: No case matches, the suite fell silent, or ended without a report.
    """
    report = folder / "report"
    shutil.rmtree(report, ignore_errors=True)
    specification = folder / "fuzzingclient.json"
    servers = [{"agent": folder.name, "url": url}]
    specification.write_text(
        json.dumps({"outdir": str(report), "servers": servers, "cases": list(patterns)})
    )
    # Python 2 holds back what it prints into a pipe, unless it is told not to.
    process = subprocess.Popen(
        [program, "--mode", "fuzzingclient", "--spec", specification],
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    log = folder / "wstest.log"
    try:
        with process.stdout as pipe, log.open("w", encoding="utf-8") as sink:
            announced = follow(_copied(_lines(pipe), sink), say)
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired as failure:
        raise AutobahnFailed(f"wstest did not end within {END_SECONDS:.0f} s") from failure
    finally:
        process.kill()
        process.wait()
    if not (report / "index.json").exists():
        last = log.read_text("utf-8").strip().rpartition("\n")[2]
        raise AutobahnFailed(f"wstest ended with status {process.returncode}: {last}")
    return read(report, announced)


def follow(lines: Iterable[str], say: Callable[[str], None]) -> list[str]:
    """Tell how the suite proceeds; return the names of the cases that it announced.

    Raises:
        AutobahnFailed: It announced none.
    """
    announced: list[str] = []
    count, section, told = 0, "", time.monotonic()
    for line in lines:
        if line.startswith(_ANNOUNCING):
            announced = ast.literal_eval(line.removeprefix(_ANNOUNCING))
            if not announced:
                # It would wait for ever.
                raise AutobahnFailed("the suite has no such case")
        elif match := _RUNNING.match(line):
            count += 1
            before, section = section, match[1].partition(".")[0]
            if section != before or time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                title = SECTIONS.get(section, "")
                say(f"case {match[1]} ({count} of {len(announced)})  {title}")
    return announced


def read(report: Path, announced: Iterable[str]) -> list[Case]:
    """Read the verdicts on the announced cases.

    Raises:
        AutobahnFailed: The report is not what this release of the suite writes.
    """
    try:
        agents: dict[str, dict[str, Any]] = json.loads((report / "index.json").read_text("utf-8"))
        found = {name: case for cases in agents.values() for name, case in cases.items()}
        return [
            _case(name, found[name], report) if name in found else Case(name, NOT_RUN, NOT_RUN)
            for name in announced
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as failure:
        raise AutobahnFailed(
            f"cannot read the report: {type(failure).__name__}: {failure}"
        ) from failure


def _case(name: str, verdicts: dict[str, Any], report: Path) -> Case:
    case = Case(name, verdicts["behavior"], verdicts["behaviorClose"])
    if case.passed:
        return case
    page = report / verdicts["reportfile"]
    details = json.loads(page.read_text("utf-8"))
    remarks = [details["result"], details["resultClose"]]
    if details["remoteCloseCode"] is not None:
        remarks.append(f"The server sent close code {details['remoteCloseCode']}.")
    remarks.append(f"See {page.with_suffix('.html').name}.")
    # The suite often gives the same reason for both verdicts.
    return Case(name, case.behavior, case.close, tuple(dict.fromkeys(remarks)))


def table(cases: Sequence[Case]) -> list[str]:
    """Count the verdicts of each section: `behavior/behaviorClose` in each cell."""
    seen = Counter(verdict for case in cases for verdict in (case.behavior, case.close))
    columns = [*VERDICTS, *sorted(seen.keys() - set(VERDICTS))]
    rows = [["section", "", "cases", *columns]]
    # The suite counts sections as numbers, and leaves some numbers out.
    for section in sorted({case.section for case in cases}, key=int):
        counted = [case for case in cases if case.section == section]
        rows.append([section, SECTIONS.get(section, ""), *_counts(counted, columns)])
    rows.append(["all", "", *_counts(cases, columns)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def failures(cases: Iterable[Case]) -> list[str]:
    """Name every case that does not pass, with what the suite says of it."""
    found = []
    for case in cases:
        if not case.passed:
            found.append(f"{case.name}: behavior {case.behavior}, behaviorClose {case.close}")
            found += [f"    {remark}" for remark in case.remarks]
    return found


def _counts(cases: Sequence[Case], columns: Iterable[str]) -> list[str]:
    behavior = Counter(case.behavior for case in cases)
    close = Counter(case.close for case in cases)
    return [
        str(len(cases)),
        *(f"{behavior[verdict]}/{close[verdict]}" for verdict in columns),
    ]


def _copied(lines: Iterable[str], sink: IO[str]) -> Iterator[str]:
    for line in lines:
        sink.write(line + "\n")
        yield line


def _lines(pipe: IO[bytes]) -> Iterator[str]:
    rest = b""
    while True:
        if not select.select([pipe], [], [], SILENCE_SECONDS)[0]:
            raise AutobahnFailed(f"the suite was silent for {SILENCE_SECONDS:.0f} s")
        data = os.read(pipe.fileno(), 1 << 16)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
        if not data:
            if rest:
                yield rest.decode("utf-8", "replace")
            return
