"""Autobahn's WebSocket suite on omnicorn, from the Python 2.7 that it needs to the verdicts.

What this file alone decides: in which order the parts of a run come, and what is printed of it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from conformance import autobahn, python2, server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def run(
    loops: Sequence[str],
    command: str,
    patterns: Sequence[str],
    interpreter: str | None,
    work: Path,
    say: Callable[[str], None],
) -> bool:
    """Run the cases on each loop and print the verdicts; return whether all is well.

    Raises:
        NoVerdict: There is no Python 2.7, or the suite cannot be installed for it.
        ServerFailed: The server did not start.
        AutobahnFailed: The suite gave no verdicts.
    """
    found = python2.check(interpreter) if interpreter else python2.find()
    work.mkdir(exist_ok=True)
    programs = python2.environment(found, autobahn.REQUIREMENT, work, say)
    passed = [_on(loop, command, patterns, programs, work / loop, say) for loop in loops]
    return all(passed)


def _on(
    loop: str,
    command: str,
    patterns: Sequence[str],
    programs: Path,
    folder: Path,
    say: Callable[[str], None],
) -> bool:
    folder.mkdir(exist_ok=True)
    started = time.monotonic()

    def tell(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        say(f"{loop}  {minutes:2}:{seconds:02}  {line}")

    with server.running(command, loop=loop, log=folder / "server.log") as running:
        url = f"ws://{server.HOST}:{running.port}/"
        cases = autobahn.run(programs / "wstest", url, patterns, folder, tell)
        complaints = running.complaints()
    tell("done")

    failures = autobahn.failures(cases)
    print(f"\n{loop}: {sum(case.passed for case in cases)} of {len(cases)} cases passed")
    print("cells: behavior/behaviorClose; what passes is OK or INFORMATIONAL\n")
    print(*autobahn.table(cases), sep="\n")
    if failures:
        print("", *failures, sep="\n")
    if complaints:
        print("", *complaints, sep="\n")
    print(f"\nreport: {server.shown(folder / 'report' / 'index.html')}", flush=True)
    return not failures and not complaints
