"""`python -m conformance`: run suites that others wrote, and say what failed.

What this file alone decides: the command line, the variables that stand for a part of it where
`make` runs this (`CHANNELS_SOURCE` and the like, for `--source`), and the exit status.  Progress
goes to standard error, the verdicts to standard output; everything else (the suites, their
reports, the logs) into `.conformance/`.

Exit status: 0 all is well; 1 it is not: a case or test failed, or the server ended or logged a
traceback; 2 there is no verdict: wrong usage, or something that is needed is not there; 130
interrupted.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from conformance import autobahn, environments, server, toolkit, websocket
from conformance.interpreters import NoVerdict
from conformance.suites import SUITES

if TYPE_CHECKING:
    from collections.abc import Sequence

WORK = server.ROOT / ".conformance"
WEBSOCKET, TOOLKIT = "websocket", "toolkit"
_PATTERN = re.compile(r"\*|[0-9]+(\.[0-9]+)*(\.\*)?")
_NAME = re.compile(r"[a-z0-9_-]+")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m conformance", description=f"Run a suite; default {WEBSOCKET}."
    )
    kinds = made.add_subparsers(dest="suite", required=True, metavar="SUITE")
    _add_websocket(kinds.add_parser(WEBSOCKET, help="Autobahn's WebSocket suite"))
    for name in SUITES:
        suite = kinds.add_parser(name, help=f"{name}'s own tests, with the toolkit for asgiref")
        _add_pythons(suite)
        suite.add_argument(
            "--source",
            type=_folder,
            metavar="PATH",
            help=f"its sources; default ${environments.source_variable(name)}, then a release's",
        )
        suite.add_argument("tests", nargs="*", metavar="TEST", help="as its runner takes them")
    _add_pythons(kinds.add_parser(TOOLKIT, help=f"all of {', '.join(SUITES)}"))
    return made


def _add_websocket(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--loop",
        type=_loops,
        default=("asyncio", "uvloop", "trio"),
        metavar="A,B",
        help="event loops, one after the other; default asyncio,uvloop,trio",
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


def _add_pythons(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--python",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="A,B",
        help="interpreters, one after the other; default this one, and the newest that is found",
    )


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


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a folder")
    return Path(text).resolve()


def say(line: str) -> None:
    """Tell the person at the terminal how it goes."""
    print(line, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; without a suite's name in front, it is Autobahn's."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = [WEBSOCKET, *arguments]
    return parser().parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names; return the exit status."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _stop)
    names = tuple(SUITES) if options.suite == TOOLKIT else (options.suite,)
    try:
        statuses = [_status(name, options) for name in names]
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    # A failure says more than a suite that is not to be had.
    return 1 if 1 in statuses else max(statuses)


def _status(name: str, options: argparse.Namespace) -> int:
    try:
        if name == WEBSOCKET:
            passed = websocket.run(
                options.loop, options.server, options.cases, options.python2, WORK, say
            )
        else:
            tests, source = getattr(options, "tests", ()), getattr(options, "source", None)
            source = source or _source_in_environment(name)
            passed = toolkit.run(SUITES[name], tests, options.python, source, WORK, say)
    except (NoVerdict, server.ServerFailed, autobahn.AutobahnFailed) as failure:
        say(str(failure))
        return 2
    return 0 if passed else 1


def _source_in_environment(name: str) -> Path | None:
    variable = environments.source_variable(name)
    try:
        return _folder(os.environ[variable]) if os.environ.get(variable) else None
    except argparse.ArgumentTypeError as failure:
        raise NoVerdict(f"{variable}: {failure}") from failure


def _stop(number: int, frame: object) -> NoReturn:
    # As for Ctrl-C: unwinding is what ends the server and the suite.
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
