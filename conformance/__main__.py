"""`python -m conformance`: run Autobahn's WebSocket suite on omnicorn, and say what failed.

What this file alone decides: the command line, what is printed where, the exit status.  Progress
goes to standard error, the verdicts to standard output; everything else (the suite, its reports,
the logs) into `.conformance/`.

Exit status: 0 every case passed on every loop; 1 one did not, or the server ended or logged a
traceback; 2 there is no verdict: wrong usage, no Python 2.7, no suite, no server; 130 interrupted.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from conformance import autobahn, python2, server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORK = server.ROOT / ".conformance"
_PATTERN = re.compile(r"\*|[0-9]+(\.[0-9]+)*(\.\*)?")
_NAME = re.compile(r"[a-z0-9_-]+")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m conformance", description="Run Autobahn's WebSocket suite."
    )
    made.add_argument(
        "--loop",
        type=_loops,
        default=("asyncio", "uvloop"),
        metavar="A,B",
        help="event loops, one after the other; default asyncio,uvloop",
    )
    made.add_argument(
        "--cases",
        type=_patterns,
        default=("*",),
        metavar="P,Q",
        help="names of cases, or their beginnings with a star: 1.*,9.1.*,12.1.3; default all",
    )
    made.add_argument(
        "--server",
        type=_command,
        default=server.OMNICORN,
        metavar="'COMMAND'",
        help="another server, started from the repository's root, with {port} and {loop} to be "
        "filled in: 'uvicorn --port {port} --loop {loop} conformance.echo:app'",
    )
    made.add_argument(
        "--python2", metavar="PATH", help="a Python 2.7; default the first that is found"
    )
    return made


def _loops(text: str) -> tuple[str, ...]:
    return _split(text, _NAME, "the name of an event loop")


def _patterns(text: str) -> tuple[str, ...]:
    return _split(text, _PATTERN, "a case, as in 9.1.1, or 9.1.* for several")


def _split(text: str, form: re.Pattern[str], what: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    for part in parts:
        if not form.fullmatch(part):
            raise argparse.ArgumentTypeError(f"{part!r}: expected {what}")
    return tuple(dict.fromkeys(parts))


def _command(text: str) -> str:
    try:
        server.argv(text, loop="", port=0)
    except ValueError as failure:
        raise argparse.ArgumentTypeError(str(failure)) from failure
    return text


def say(line: str) -> None:
    """Tell the person at the terminal how it goes."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite on each loop; return the exit status."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    try:
        interpreter = python2.check(options.python2) if options.python2 else python2.find()
        WORK.mkdir(exist_ok=True)
        programs = python2.environment(interpreter, autobahn.REQUIREMENT, WORK, say)
        passed = [test(loop, options.server, options.cases, programs) for loop in options.loop]
    except (python2.Python2Failed, server.ServerFailed, autobahn.AutobahnFailed) as failure:
        say(str(failure))
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return 0 if all(passed) else 1


def test(loop: str, command: str, patterns: Sequence[str], programs: Path) -> bool:
    """Run the cases on one loop and print the verdicts; return whether all is well."""
    folder = WORK / loop
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


def _stop(number: int, frame: object) -> NoReturn:
    # As for Ctrl-C: unwinding is what ends the server and the suite.
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
