"""Driving h2load (of nghttp2): its command line, its report.

What this file alone decides: how h2load is told what to send, and what of its text is a failure.

- One thread, on a core of its own, as for wrk.  Requests are all alike: h2load varies none.
- It says little when things go wrong, and ends with 0: no answer at all is a report full of
  zeros.  So here anything but good answers over HTTP/2, on every connection, is a failure.
- It knows no percentiles.  Its log has every latency, but makes it slower by an eighth; so the
  warm-up writes one, and the measurement does not.
- All servers get the same cipher.  Of several, some take the client's first and others their own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from bench.cases import CONNECTION_FIELDS
from bench.load import Load, LoadError

if TYPE_CHECKING:
    from pathlib import Path

    from bench.cases import Case

CIPHER = "TLS_AES_128_GCM_SHA256"
STARVED = 10
"""So many times less than the best may the worst connection get; beyond, it counts as stalled.

Not where the best has less than `MEANINGFUL` answers a second for each time: few differ by chance.
"""

MEANINGFUL = 10.0

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_FINISHED = re.compile(r"^finished in ([\d.]+)(us|ms|s|m|h),", re.MULTILINE)
_REQUESTS = re.compile(
    r"^requests: .*, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.MULTILINE
)
_STATUSES = re.compile(r"^status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", re.MULTILINE)
_PROTOCOL = re.compile(r"^Application protocol: (\S+)", re.MULTILINE)
_RATES = re.compile(r"^req/s\s*:\s+([\d.]+)\s+([\d.]+)", re.MULTILINE)


def parse(report: str, *, tls: bool) -> Load:
    """Read what h2load printed; it has no `p99_ms`.

    Raises:
        LoadError: There is no report, or it tells of anything but good answers over HTTP/2.
    """
    finished, requests, statuses, rates = (
        pattern.search(report) for pattern in (_FINISHED, _REQUESTS, _STATUSES, _RATES)
    )
    if finished is None or requests is None or statuses is None or rates is None:
        tail = report.strip().splitlines()[-1:] or ["nothing"]
        raise LoadError(f"h2load ended without a report; it said: {tail[0]}")
    spoken = _PROTOCOL.search(report)
    wanted = "h2" if tls else "h2c"
    if spoken is None or spoken[1] != wanted:
        said = spoken[1] if spoken else "nothing"
        raise LoadError(f"h2load and the server spoke {said}, not {wanted}")
    succeeded, failed, errored, late = map(int, requests.groups())
    refused = sum(map(int, statuses.groups()))
    if failed or errored or late or refused:
        raise LoadError(
            f"of h2load's requests {failed} failed, {late} of them for lack of time, "
            f"and {refused} had no 2xx answer"
        )
    if not succeeded:
        raise LoadError("none of h2load's requests was answered")
    worst, best = map(float, rates.groups())
    if max(worst, MEANINGFUL) * STARVED < best:
        raise LoadError(
            f"a connection of h2load's got {worst:.0f} answers a second, another one {best:.0f}"
        )
    return Load(
        requests=succeeded,
        seconds=float(finished[1]) * _UNITS[finished[2]],
        p99_ms=None,
        socket_errors=0,
        bad_statuses=0,
    )


def percentile(log: str) -> float:
    """The 99th percentile of the latencies in h2load's log, in milliseconds.

    Raises:
        LoadError: The log is empty or has other columns than those of nghttp2 1.52.
    """
    try:
        waits = sorted(int(line.split("\t")[2]) for line in log.splitlines())
        return waits[-1 - len(waits) // 100] / 1000
    except (IndexError, ValueError) as failure:
        raise LoadError(f"h2load's log cannot be read: {failure}") from failure


def command(case: Case, port: int, seconds: int, scratch: Path) -> list[str]:
    """h2load's command line for `case` against 127.0.0.1:`port`, for `seconds`."""
    made = [
        *("h2load", "-t1", f"-c{case.connections}", f"-m{case.streams}", f"-D{seconds}"),
        f"--tls13-ciphers={CIPHER}",
    ]
    for name, value in case.request.headers:
        if name.lower() not in CONNECTION_FIELDS:
            made += ["-H", f"{name}: {value}"]
    if case.request.body:
        made += ["-d", str(_body(case, scratch))]
    return [*made, f"{case.scheme}://127.0.0.1:{port}{case.request.target}"]


def available() -> bool:
    """Whether h2load is installed."""
    return shutil.which("h2load") is not None


def drive(case: Case, port: int, seconds: int, scratch: Path) -> Load:
    """Run h2load to its end and return what it saw; `scratch` is a folder for the body.

    Raises:
        LoadError: h2load failed, did not end in time, or saw anything but good answers.
    """
    return _run(case, seconds, command(case, port, seconds, scratch), scratch)


def warm_up(case: Case, port: int, seconds: int, scratch: Path) -> float:
    """As `drive`, but return the 99th percentile of the latencies, in milliseconds."""
    log = scratch / f"{case.name}.latencies"
    log.unlink(missing_ok=True)  # h2load would append
    whole = command(case, port, seconds, scratch)
    try:
        _run(case, seconds, [*whole[:-1], f"--log-file={log}", whole[-1]], scratch)
        return percentile(log.read_text())
    finally:
        log.unlink(missing_ok=True)


def _run(case: Case, seconds: int, words: list[str], scratch: Path) -> Load:
    if case.request.body:
        _body(case, scratch).write_bytes(case.request.body)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 30)
    except subprocess.TimeoutExpired as late:
        raise LoadError(f"h2load did not end within {late.timeout:.0f} s") from late
    return parse(done.stdout + done.stderr, tls=case.tls)


def _body(case: Case, scratch: Path) -> Path:
    return scratch / f"{case.name}.body"
