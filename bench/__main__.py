"""`python -m bench`: measure omnicorn and its peers, and write the report.

What this file alone decides: the command line, and what is printed where.  Progress goes to
standard error; the report to standard output and to `.bench/report.{md,json,svg}`.

Exit status: 0 when a report was written (whatever it says), 2 for wrong usage or where a case needs
what is not installed, 130 when interrupted: then the report holds what was measured until then.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
from typing import TYPE_CHECKING, NoReturn

from bench import (
    certificate,
    chart,
    environment,
    h2load,
    http2,
    load,
    measure,
    report,
    runs,
    servers,
)
from bench.cases import CASES, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.cases import Case
    from bench.runs import Run
    from bench.servers import Server

_PEER_NAMES = tuple(server.name for server in servers.PEERS)
_CASE_NAMES = tuple(case.name for case in CASES)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench", description="Measure the servers.")
    made.add_argument("--rounds", type=_at_least(1), default=3, metavar="N", help="default 3")
    made.add_argument(
        "--seconds", type=_at_least(1), default=5, metavar="S", help="of each run; default 5"
    )
    made.add_argument(
        "--warmup", type=_at_least(0), default=1, metavar="S", help="before each run; default 1"
    )
    made.add_argument(
        "--peers",
        type=_some_of(_PEER_NAMES),
        default=_PEER_NAMES,
        metavar="A,B",
        help=f"servers beside omnicorn, of {', '.join(_PEER_NAMES)}; default all",
    )
    made.add_argument(
        "--cases",
        type=_some_of(_CASE_NAMES),
        default=_CASE_NAMES,
        metavar="A,B",
        help=f"of {', '.join(_CASE_NAMES)}; default all",
    )
    made.add_argument(
        "--servers-extra",
        type=_extra,
        action="append",
        default=[],
        metavar="'NAME=SERVER FLAGS'",
        help="one of the servers once more, with more flags, as in "
        "'plain=omnicorn --loop asyncio'; may be repeated",
    )
    made.add_argument(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="the interpreter that runs all servers; default the one that runs this",
    )
    made.add_argument("--json", action="store_true", help="print JSON in place of Markdown")
    return made


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from {least} up")
        return int(text)

    return number


def _some_of(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def chosen(text: str) -> tuple[str, ...]:
        wanted = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"no {', '.join(map(repr, unknown))}; there are {', '.join(names)}"
            )
        return tuple(name for name in names if name in wanted)

    return chosen


def _extra(text: str) -> Server:
    try:
        return servers.extra(text)
    except ValueError as failure:
        raise argparse.ArgumentTypeError(str(failure)) from failure


def say(line: str) -> None:
    """Tell the person at the terminal how it goes."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = parser().parse_args(arguments)
    cases = [case for case in CASES if case.name in options.cases]
    lacking = missing(cases)
    for words in lacking:
        say(words)
    if lacking:
        return 2
    signal.signal(signal.SIGTERM, _stop)

    entrants = [servers.OMNICORN, *options.servers_extra]
    entrants += [server for server in servers.PEERS if server.name in options.peers]
    remarks: list[str] = []
    plan = prepare(options, entrants, cases, remarks)
    say(f"about {runs.estimate(cases, entrants, plan) / 60:.0f} minutes")

    done: list[Run] = []
    status = 0
    try:
        for case, server, number in runs.everything(cases, entrants, plan):
            run = runs.perform(case, server, number, plan)
            done.append(run)
            say(f"round {number + 1}/{plan.rounds}  {case.name:10}  {server.name:12}  {told(run)}")
    except KeyboardInterrupt:
        say("interrupted: the report holds what was measured until now")
        remarks.append("interrupted before the end")
        status = 130
    publish(cases, done, entrants, remarks, as_json=options.json)
    return status


def missing(cases: Sequence[Case]) -> list[str]:
    """What `cases` need and is not installed, each with how to get it."""
    wrk, client = (
        any(case.kind is Kind.LOAD and bool(case.streams) is streams for case in cases)
        for streams in (False, True)
    )
    needs = (
        (wrk, load.available, "wrk is missing: apt-get install wrk"),
        (client, h2load.available, "h2load is missing: apt-get install nghttp2-client"),
        (
            any(c.tls for c in cases),
            certificate.available,
            "openssl is missing: apt-get install openssl",
        ),
        (any(c.streams for c in cases), http2.available, "hpack is missing: pip install hpack"),
    )
    return [words for needed, available, words in needs if needed and not available()]


def prepare(
    options: argparse.Namespace, entrants: list[Server], cases: list[Case], remarks: list[str]
) -> runs.Plan:
    """Install what is missing, choose the cores, add the aim; tell `remarks` what to know.

    Exits with status 2 when the interpreter makes no virtual environment or openssl no certificate.
    """
    environment.WORK.mkdir(exist_ok=True)
    if any(case.tls for case in cases):
        try:
            certificate.make()
        except certificate.CertificateFailed as failure:
            say(str(failure))
            raise SystemExit(2) from failure
    if any(servers.AIM_OF_SOCKETS.takes(case) for case in cases):
        entrants.append(servers.AIM_OF_SOCKETS)
    if any(servers.ON_ASGIREF.takes(case) for case in cases):
        entrants.append(servers.ON_ASGIREF)
    wanted = dict.fromkeys(need for thing in (*entrants, *cases) for need in thing.requirements)
    try:
        failed = environment.install(options.python, wanted, say)
    except environment.EnvironmentFailed as failure:
        say(f"--python {options.python}: {failure}")
        raise SystemExit(2) from failure
    unavailable = {
        server.name: f"{need} cannot be installed: {failed[need]}"
        for server in entrants
        for need in server.requirements
        if need in failed
    }
    try:
        if any(case.name == "hello" for case in cases):
            entrants.append(servers.build_aim())
    except servers.ServerFailed as failure:
        remarks.append(f"no aim line ({servers.AIM}): {failure}")

    cores = measure.cores()
    # wrk and h2load are started by this process and inherit its core, and the other loads are made
    # right here; servers are moved to theirs.
    os.sched_setaffinity(0, {cores.load})
    remarks.append(
        f"rounds: {options.rounds}, each run {options.seconds} s after a warm-up of "
        f"{options.warmup} s; "
        + (
            "ONE core for server and client together: compare with care"
            if cores.shared
            else "one core for the server, another one for the client"
        )
    )
    if any(case.kind is Kind.LOAD and not case.streams for case in cases):
        remarks.append("the client of HTTP/1.1 cases is wrk, with one thread")
    if any(case.kind is Kind.LOAD and case.streams for case in cases):
        remarks.append(
            "the client of HTTP/2 cases is h2load, with one thread; its latencies are from the "
            f"warm-up, where it may write a log; over TLS it offers {h2load.CIPHER} alone"
        )
    if any(case.kind is Kind.STREAMS for case in cases):
        remarks.append(
            "the client of h2-browser is our own, Python "
            f"{platform.python_version()} on epoll: requests encoded beforehand, no value twice"
        )
    if any(case.kind is Kind.SCGI for case in cases):
        remarks.append(
            "the client of SCGI cases is our own, Python "
            f"{platform.python_version()} on epoll: a new connection for each request"
        )
    if any(case.message is not None for case in cases):
        remarks.append(
            "the client of WebSocket cases is our own, Python "
            f"{platform.python_version()} on epoll: random masks, no compression offered"
        )
    return runs.Plan(options.rounds, options.seconds, options.warmup, cores, unavailable)


def told(run: Run) -> str:
    """One run in a line."""
    if run.failure is not None:
        return f"failed: {run.failure}"
    unit = next(case.unit for case in CASES if case.name == run.case)
    words = [f"{statistics.median(run.samples):,.1f} {unit}"]
    if run.p99_ms is not None:
        words.append(f"p99 {run.p99_ms:.3g} ms")
    if run.cpu is not None and run.load_cpu is not None:
        words.append(f"CPU {run.cpu:.0%}, client {run.load_cpu:.0%}")
    return ", ".join([*words, *run.marks])


def publish(
    cases: list[Case],
    done: list[Run],
    entrants: list[Server],
    remarks: list[str],
    *,
    as_json: bool,
) -> None:
    """Write the three files and print one of them."""
    facts = environment.facts()
    versions = environment.versions(
        dict.fromkeys(name for server in entrants for name in server.distributions)
    )
    tables = report.summarise(cases, done, servers.OURS)
    data = json.dumps(report.document(tables, done, facts, versions, remarks), indent=1) + "\n"
    text = report.markdown(tables, servers.OURS, facts, versions, remarks)
    (environment.WORK / "report.json").write_text(data)
    (environment.WORK / "report.md").write_text(text)
    (environment.WORK / "report.svg").write_text(chart.chart(tables, servers.OURS))
    print(data if as_json else text, end="")
    say("also in .bench/report.md, .bench/report.json and .bench/report.svg")


def _stop(number: int, frame: object) -> NoReturn:
    # As for Ctrl-C: unwinding is what kills the server of the moment.
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
