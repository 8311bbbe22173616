"""Driving wrk: the script that makes it send a case's request, its command line, its report.

What this file alone decides: how wrk is told what to send, and how its text becomes numbers.

wrk must not be what limits the rate, so it has one thread with a core of its own, and Lua runs
per request only where a request must differ from the last one: then the script does no more than
join strings made beforehand around a counter.  A request without `MARK` is built once, by wrk.

The counter starts at the time of day in milliseconds, so that no number comes twice, not even
in another run: a server that remembers what it parsed meets each value for the first time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.cases import MARK

if TYPE_CHECKING:
    from pathlib import Path

    from bench.cases import Case, Request


class LoadError(Exception):
    """There was no load worth a number: a client would not run or report, or was let down."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a client saw: `seconds` it ran, `p99_ms` latency, and counts of what went wrong.

    The latency is None where the client takes none; `requests` are those that were answered, and
    messages or deliveries in WebSocket cases.
    """

    requests: int
    seconds: float
    p99_ms: float | None
    socket_errors: int
    bad_statuses: int

    @property
    def errors(self) -> int:
        """Requests without a 2xx or 3xx answer, whatever the reason."""
        return self.socket_errors + self.bad_statuses


_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}
_TOTAL = re.compile(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m|h),", re.MULTILINE)
_P99 = re.compile(r"^\s*99%\s+([\d.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
_SOCKETS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_STATUSES = re.compile(r"Non-2xx or 3xx responses: (\d+)")


def parse(report: str) -> Load:
    """Read what `wrk --latency` printed.

    Raises:
        LoadError: The text holds no totals or no 99 % line.
    """
    total = _TOTAL.search(report)
    p99 = _P99.search(report)
    if total is None or p99 is None:
        tail = report.strip().splitlines()[-1:] or ["nothing"]
        raise LoadError(f"wrk ended without a report; it said: {tail[0]}")
    sockets = _SOCKETS.search(report)
    statuses = _STATUSES.search(report)
    return Load(
        requests=int(total[1]),
        seconds=float(total[2]) * _MILLISECONDS[total[3]] / 1000,
        p99_ms=float(p99[1]) * _MILLISECONDS[p99[2]],
        socket_errors=sum(map(int, sockets.groups())) if sockets else 0,
        bad_statuses=int(statuses[1]) if statuses else 0,
    )


def wire(request: Request, host: str) -> str:
    """The request as text, `MARK` still in it.

    Raises:
        ValueError: The body is not ASCII; it would need escaping beyond what `script` does.
    """
    lines = [f"{request.method} {request.target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    if request.body:
        lines.append(f"Content-Length: {len(request.body)}")
    return "\r\n".join([*lines, "", request.body.decode("ascii")])


def script(request: Request, host: str) -> str:
    """The Lua script that makes wrk send `request`."""
    pieces = [_quoted(piece) for piece in wire(request, host).split(MARK)]
    if len(pieces) == 1:
        # Without a `request` function wrk formats the request once, taking the target from the
        # URL and adding Host and Content-Length by itself, and calls no Lua while it runs.
        headers = [f"  [{_quoted(name)}] = {_quoted(value)}," for name, value in request.headers]
        return "\n".join(
            [
                f"wrk.method = {_quoted(request.method)}",
                f"wrk.body = {_quoted(request.body.decode('ascii')) if request.body else 'nil'}",
                "wrk.headers = {",
                *headers,
                "}",
                "",
            ]
        )
    names = [f"p{i}" for i in range(len(pieces))]
    return "\n".join(
        [
            *(f"local {name} = {piece}" for name, piece in zip(names, pieces, strict=True)),
            "local n = os.time() * 1000",
            "request = function()",
            "  n = n + 1",
            f"  return {' .. n .. '.join(names)}",
            "end",
            "",
        ]
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\r", "\\r").replace("\n", "\\n") + '"'


def command(case: Case, port: int, seconds: int, script_file: Path) -> list[str]:
    """wrk's command line for `case` against 127.0.0.1:`port`, for `seconds`."""
    return [
        "wrk",
        "-t1",
        f"-c{case.connections}",
        f"-d{seconds}s",
        "--timeout",
        "5s",
        "--latency",
        "-s",
        str(script_file),
        f"{case.scheme}://127.0.0.1:{port}{case.request.target}",
    ]


def available() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None


def drive(case: Case, port: int, seconds: int, scratch: Path) -> Load:
    """Run wrk to its end and return what it saw; `scratch` is a folder for the script.

    Raises:
        LoadError: wrk failed, or did not end in time.
    """
    script_file = scratch / f"{case.name}.lua"
    script_file.write_text(script(case.request, f"127.0.0.1:{port}"))
    try:
        done = subprocess.run(
            command(case, port, seconds, script_file),
            capture_output=True,
            text=True,
            timeout=seconds + 30,
        )
    except subprocess.TimeoutExpired as late:
        raise LoadError(f"wrk did not end within {late.timeout:.0f} s") from late
    return parse(done.stdout + done.stderr)
