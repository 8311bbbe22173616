from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from bench import h2load
from bench.cases import CASES, Case, Kind
from bench.load import Load, LoadError

if TYPE_CHECKING:
    from pathlib import Path

CLEAN = """\
starting benchmark...
spawning thread #0: 8 total client(s). Timing-based test with 0s of warm-up time and 2s of main
Application protocol: h2c
Main benchmark duration is over for thread #0. Stopping all clients.

finished in 2.00s, 50313.00 req/s, 1.92MB/s
requests: 100626 total, 100754 started, 100626 done, 100626 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 100630 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 3.84MB (4026144) total, 885.06KB (906298) headers (space savings 90.42%), 1.25MB (1308138)
                     min         max         mean         sd        +/- sd
time for request:      534us     16.59ms      2.48ms      1.05ms    87.51%
time for connect:       86us       357us       227us       104us    62.50%
time to 1st byte:     2.79ms      9.27ms      8.13ms      2.23ms    87.50%
req/s           :    6227.50     6349.70     6286.13       38.15    62.50%
"""  # noqa: E501

CHOSEN = [case for case in CASES if case.kind is Kind.LOAD and case.streams]
H2, POST = (next(case for case in CASES if case.name == name) for name in ("h2", "h2-post"))


def test_a_clean_report_gives_its_totals() -> None:
    assert h2load.parse(CLEAN, tls=False) == Load(
        requests=100626, seconds=2.0, p99_ms=None, socket_errors=0, bad_statuses=0
    )


@pytest.mark.parametrize(("said", "meant"), [("900.00ms", 0.9), ("1.50m", 90.0)])
def test_the_units_of_time_are_converted(said: str, meant: float) -> None:
    assert h2load.parse(CLEAN.replace("2.00s", said), tls=False).seconds == meant


@pytest.mark.parametrize(
    ("clean", "troubled", "reason"),
    [
        ("0 failed", "3 failed", "3 failed"),
        ("0 errored", "8 errored", "requests 0 failed"),
        ("0 timeout", "2 timeout", "2 of them for lack of time"),
        ("0 3xx", "1 3xx", "1 had no 2xx"),
        ("0 4xx", "7 4xx", "7 had no 2xx"),
        ("0 5xx", "9 5xx", "9 had no 2xx"),
        ("100626 succeeded", "0 succeeded", "none of h2load's requests was answered"),
        ("Application protocol: h2c", "", "spoke nothing, not h2c"),
        (": h2c", ": http/1.1", "spoke http/1.1, not h2c"),
        ("6227.50 ", "12.00 ", "got 12 answers a second, another one 6350"),
        ("status codes", "codes", "without a report"),
    ],
)
def test_anything_but_good_answers_fails_the_run(clean: str, troubled: str, reason: str) -> None:
    assert CLEAN.count(clean) == 1

    with pytest.raises(LoadError, match=reason):
        h2load.parse(CLEAN.replace(clean, troubled), tls=False)


@pytest.mark.parametrize(("worst", "best", "good"), [(0, 100, True), (0, 101, False)])
def test_few_answers_may_differ_by_chance(worst: int, best: int, good: bool) -> None:
    report = CLEAN.replace("6227.50 ", f"{worst}.00 ").replace("6349.70", f"{best}.00")

    if good:
        assert h2load.parse(report, tls=False).requests == 100626
    else:
        with pytest.raises(LoadError, match="another one 101"):
            h2load.parse(report, tls=False)


def test_over_tls_the_protocol_has_another_name() -> None:
    over_tls = CLEAN.replace("h2c", "h2")

    assert h2load.parse(over_tls, tls=True).requests == 100626
    with pytest.raises(LoadError, match="spoke h2c, not h2"):
        h2load.parse(CLEAN, tls=True)


@pytest.mark.parametrize(("text", "said"), [("", "nothing"), ("a\nno such option\n", "no such")])
def test_no_report_is_refused_with_its_last_line(text: str, said: str) -> None:
    with pytest.raises(LoadError, match=f"it said: {said}"):
        h2load.parse(text, tls=False)


def test_one_latency_in_a_hundred_is_longer() -> None:
    log = "".join(f"1795262054073495\t200\t{wait}\n" for wait in range(200, 0, -1))

    assert h2load.percentile(log) == 0.198


@pytest.mark.parametrize("log", ["", "1\t200\n", "1\t200\tx\n"])
def test_a_log_that_is_none_is_refused(log: str) -> None:
    with pytest.raises(LoadError, match="log cannot be read"):
        h2load.percentile(log)


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_h2load_gets_connections_streams_and_target_of_each_case(
    case: Case, tmp_path: Path
) -> None:
    command = h2load.command(case, 8123, 4, tmp_path)

    assert command[:5] == ["h2load", "-t1", "-c8", f"-m{case.streams}", "-D4"]
    assert case.scheme == ("https" if case.name == "h2-tls" else "http")
    assert command[-1] == f"{case.scheme}://127.0.0.1:8123{case.request.target}"
    assert ("-d" in command) == (case.name == "h2-post")


def test_no_case_asks_h2load_to_vary_a_request() -> None:
    assert not any("{n}" in value for case in CHOSEN for _, value in case.request.headers)


class Fake:
    """Stands in for running h2load."""

    def __init__(self, log: str = "") -> None:
        self.log = log
        self.commands: list[list[str]] = []
        self.sent = b""

    def __call__(
        self, command: list[str], *, capture_output: bool, text: bool, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        for word in command:
            if word.startswith("--log-file="):
                # As h2load does, which appends.
                with open(word.partition("=")[2], "a") as file:
                    file.write(self.log)
        if "-d" in command:
            with open(command[command.index("-d") + 1], "rb") as file:
                self.sent = file.read()
        return subprocess.CompletedProcess(command, 0, CLEAN, "")


def test_the_body_of_a_request_is_there_when_h2load_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake()
    monkeypatch.setattr(subprocess, "run", fake)

    h2load.drive(POST, 8123, 1, tmp_path)

    assert fake.sent == POST.request.body
    assert "Content-Type: application/octet-stream" in fake.commands[0]


def test_only_the_warm_up_writes_a_log_and_none_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake("1\t200\t2500\n")
    monkeypatch.setattr(subprocess, "run", fake)
    (tmp_path / "h2.latencies").write_text("left by an interrupted run")

    assert h2load.warm_up(H2, 8123, 1, tmp_path) == 2.5
    assert h2load.drive(H2, 8123, 1, tmp_path).p99_ms is None

    logs = [any("--log-file" in word for word in command) for command in fake.commands]
    assert logs == [True, False]
    assert list(tmp_path.iterdir()) == []


def test_an_h2load_that_does_not_end_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*rest: object, **named: object) -> None:
        raise subprocess.TimeoutExpired("h2load", 31)

    monkeypatch.setattr(subprocess, "run", late)

    with pytest.raises(LoadError, match="did not end within 31 s"):
        h2load.drive(H2, 8123, 1, tmp_path)
