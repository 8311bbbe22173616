from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from conformance.autobahn import AutobahnFailed, Case

from conformance import autobahn

if TYPE_CHECKING:
    from pathlib import Path

BANNER = "Ok, will run 3 test cases against 1 servers"


def write(folder: Path, cases: dict[str, tuple[str, str]], **details: Any) -> None:
    """A report as the suite writes it: an index, and a file for each case."""
    index = {}
    for name, (behavior, close) in cases.items():
        file = f"asyncio_case_{name.replace('.', '_')}.json"
        index[name] = {"behavior": behavior, "behaviorClose": close, "reportfile": file}
        (folder / file).write_text(
            json.dumps(
                {"result": "Said.", "resultClose": "Closed.", "remoteCloseCode": None, **details}
            )
        )
    (folder / "index.json").write_text(json.dumps({"asyncio": index}))


# ------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("behavior", "close", "passed"),
    [
        ("OK", "OK", True),
        ("OK", "INFORMATIONAL", True),
        ("INFORMATIONAL", "INFORMATIONAL", True),
        ("NON-STRICT", "OK", False),
        ("UNIMPLEMENTED", "OK", False),
        ("FAILED", "OK", False),
        ("OK", "FAILED", False),
        ("OK", "WRONG CODE", False),
        ("OK", "UNCLEAN", False),
        ("OK", "FAILED BY CLIENT", False),
        ("OK", "something new", False),
    ],
)
def test_a_case_passes_if_both_verdicts_do(
    tmp_path: Path, behavior: str, close: str, passed: bool
) -> None:
    write(tmp_path, {"1.1.1": (behavior, close)})

    [case] = autobahn.read(tmp_path, ["1.1.1"])

    assert (case.behavior, case.close, case.passed) == (behavior, close, passed)


def test_cases_keep_the_order_of_the_announcement(tmp_path: Path) -> None:
    write(tmp_path, {"10.1.1": ("OK", "OK"), "2.1": ("OK", "OK")})

    assert [case.name for case in autobahn.read(tmp_path, ["2.1", "10.1.1"])] == ["2.1", "10.1.1"]


def test_an_announced_case_without_verdict_fails(tmp_path: Path) -> None:
    write(tmp_path, {"1.1.1": ("OK", "OK")})

    _, case = autobahn.read(tmp_path, ["1.1.1", "1.1.2"])

    assert case == Case("1.1.2", "NOT RUN", "NOT RUN")
    assert not case.passed


def test_no_verdicts_at_all_fail_every_case(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")

    assert [case.behavior for case in autobahn.read(tmp_path, ["1.1.1", "1.1.2"])] == [
        "NOT RUN",
        "NOT RUN",
    ]


def test_a_failure_says_what_the_suite_says_once_and_where_to_read_on(tmp_path: Path) -> None:
    write(tmp_path, {"7.1.5": ("FAILED", "WRONG CODE")}, resultClose="Said.", remoteCloseCode=1002)

    assert autobahn.failures(autobahn.read(tmp_path, ["7.1.5"])) == [
        "7.1.5: behavior FAILED, behaviorClose WRONG CODE",
        "    Said.",
        "    The server sent close code 1002.",
        "    See asyncio_case_7_1_5.html.",
    ]


def test_what_passes_is_not_listed() -> None:
    assert autobahn.failures([Case("1.1.1", "OK", "INFORMATIONAL")]) == []


@pytest.mark.parametrize("index", ["", "[]", '{"asyncio": {"1.1.1": {}}}', '{"asyncio": []}'])
def test_a_report_in_another_form_is_no_verdict(tmp_path: Path, index: str) -> None:
    (tmp_path / "index.json").write_text(index)

    with pytest.raises(AutobahnFailed, match="cannot read the report"):
        autobahn.read(tmp_path, ["1.1.1"])


# ------------------------------------------------------------------------------ the table


def test_the_table_counts_both_verdicts_of_each_section() -> None:
    lines = autobahn.table(
        [
            Case("1.1.1", "OK", "OK"),
            Case("1.1.2", "NON-STRICT", "OK"),
            Case("12.1.1", "UNIMPLEMENTED", "OK"),
            Case("7.1.1", "OK", "INFORMATIONAL"),
        ]
    )

    assert [" ".join(line.split()) for line in lines] == [
        "section cases OK INFORMATIONAL NON-STRICT UNIMPLEMENTED FAILED",
        "1 Framing 2 1/2 0/0 1/0 0/0 0/0",
        "7 Close handling 1 1/0 0/1 0/0 0/0 0/0",
        "12 Compression, payloads 1 0/1 0/0 0/0 1/0 0/0",
        "all 4 2/3 0/1 1/0 1/0 0/0",
    ]
    assert len({len(line) for line in lines}) == 1


def test_verdicts_without_a_column_of_their_own_get_one() -> None:
    header, *_, total = autobahn.table(
        [Case("1.1.1", "OK", "UNCLEAN"), Case("1.1.2", "NOT RUN", "NOT RUN")]
    )

    assert header.endswith("FAILED  NOT RUN  UNCLEAN")
    assert total.split()[-2:] == ["1/1", "0/1"]


# ------------------------------------------------------------------------------ progress


def running(name: str) -> str:
    return f"Running test case ID {name} for agent asyncio from peer tcp4:127.0.0.1:9001"


def test_the_announced_cases_are_learnt_from_the_output() -> None:
    lines = [BANNER, "Cases = ['1.1.1', '1.1.2', '2.1']", "Servers = [u'ws://127.0.0.1:9001/']"]

    assert autobahn.follow(lines, lambda line: None) == ["1.1.1", "1.1.2", "2.1"]


def test_the_first_case_of_each_section_is_told() -> None:
    told: list[str] = []
    lines = ["Cases = ['1.1.1', '1.1.2', '2.1']", *map(running, ["1.1.1", "1.1.2", "2.1"])]

    autobahn.follow(lines, told.append)

    assert told == ["case 1.1.1 (1 of 3)  Framing", "case 2.1 (3 of 3)  Pings and pongs"]


def test_a_long_section_is_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autobahn, "TELL_SECONDS", 0.0)
    told: list[str] = []

    autobahn.follow(["Cases = ['9.1.1', '9.1.2']", running("9.1.1"), running("9.1.2")], told.append)

    assert len(told) == 2


def test_a_suite_that_has_no_such_case_is_not_waited_for() -> None:
    def lines() -> Any:
        yield "Cases = []"
        raise AssertionError("read on")

    with pytest.raises(AutobahnFailed, match="no such case"):
        autobahn.follow(lines(), lambda line: None)


# ------------------------------------------------------------------------------ a run


def program(folder: Path, *lines: str) -> Path:
    """A stand-in for wstest: a shell script."""
    path = folder / "wstest"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def run(tmp_path: Path, *lines: str) -> list[Case]:
    folder = tmp_path / "asyncio"
    folder.mkdir(exist_ok=True)
    wstest = program(tmp_path, *lines)
    return autobahn.run(wstest, "ws://127.0.0.1:1/", ["1.*"], folder, lambda line: None)


def test_a_run_calls_the_suite_and_reads_its_report(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write(source, {"1.1.1": ("OK", "OK")})

    cases = run(
        tmp_path,
        'test "$1 $2 $3" = "--mode fuzzingclient --spec" || exit 1',
        f'cp "$4" {tmp_path}/specification',
        f"cp -r {source} report",
        "echo \"Cases = ['1.1.1']\"",
    )

    assert cases == [Case("1.1.1", "OK", "OK")]
    assert json.loads((tmp_path / "specification").read_text()) == {
        "outdir": str(tmp_path / "asyncio" / "report"),
        "servers": [{"agent": "asyncio", "url": "ws://127.0.0.1:1/"}],
        "cases": ["1.*"],
    }


def test_an_old_report_is_never_read(tmp_path: Path) -> None:
    report = tmp_path / "asyncio" / "report"
    report.mkdir(parents=True)
    write(report, {"1.1.1": ("OK", "OK")})

    with pytest.raises(AutobahnFailed, match=r"ended with status 3: KeyError: '1.1.99'"):
        run(tmp_path, "echo Traceback", "printf \"KeyError: '1.1.99'\"", "exit 3")


def test_silence_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autobahn, "SILENCE_SECONDS", 0.05)

    with pytest.raises(AutobahnFailed, match="silent"):
        run(tmp_path, "exec sleep 30")


def test_a_suite_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autobahn, "END_SECONDS", 0.05)

    with pytest.raises(AutobahnFailed, match="did not end"):
        run(tmp_path, "exec >/dev/null 2>&1", "exec sleep 30")
