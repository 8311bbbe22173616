from __future__ import annotations

import json

import pytest
from bench import report
from bench.cases import CASES, Case
from bench.runs import Run

HELLO, IDLE, WS, FANOUT = (
    next(case for case in CASES if case.name == name)
    for name in ("hello", "idle", "ws", "ws-fanout")
)


def table(case: Case, *runs: Run) -> report.Table:
    (only,) = report.summarise([case], runs, "omnicorn")
    return only


def rows(case: Case, *runs: Run) -> dict[str, report.Row]:
    return {row.server: row for row in table(case, *runs).rows}


def test_no_values_have_no_spread() -> None:
    assert report.spread([]) is None


def test_a_number_is_the_median_of_all_samples_with_both_ends() -> None:
    row = rows(
        HELLO, Run("hello", "uvicorn", 0, (10.0, 30.0)), Run("hello", "uvicorn", 1, (20.0,))
    )["uvicorn"]

    assert row.value == report.Spread(20.0, 10.0, 30.0)


def test_ratios_are_taken_within_a_round_before_the_median() -> None:
    row = rows(
        HELLO,
        *(Run("hello", "omnicorn", n, (v,)) for n, v in enumerate((200.0, 100.0, 300.0))),
        *(Run("hello", "uvicorn", n, (v,)) for n, v in enumerate((100.0, 25.0, 100.0))),
    )["uvicorn"]

    assert row.ratio == report.Spread(3.0, 2.0, 4.0)


def test_where_less_is_better_the_ratio_is_turned_round() -> None:
    row = rows(IDLE, Run("idle", "omnicorn", 0, (4.0,)), Run("idle", "granian", 0, (8.0,)))

    assert row["granian"].ratio == report.Spread(2.0, 2.0, 2.0)


def test_a_round_that_one_of_the_two_lacks_gives_no_ratio() -> None:
    row = rows(
        HELLO,
        Run("hello", "omnicorn", 0, failure="x"),
        Run("hello", "omnicorn", 1, (30.0,)),
        Run("hello", "uvicorn", 0, (10.0,)),
        Run("hello", "uvicorn", 1, (10.0,)),
    )["uvicorn"]

    assert row.ratio == report.Spread(3.0, 3.0, 3.0)


def test_memory_that_did_not_grow_gives_no_ratio() -> None:
    row = rows(IDLE, Run("idle", "omnicorn", 0, (0.0,)), Run("idle", "granian", 0, (8.0,)))

    assert row["granian"].ratio is None


def test_we_have_no_ratio_to_ourselves() -> None:
    assert rows(HELLO, Run("hello", "omnicorn", 0, (1.0,)))["omnicorn"].ratio is None


@pytest.mark.parametrize(("case", "order"), [(HELLO, ["b", "a", "c"]), (IDLE, ["a", "b", "c"])])
def test_the_best_comes_first_and_failures_last(case: Case, order: list[str]) -> None:
    runs = [
        Run(case.name, "c", 0, failure="it would not start"),
        Run(case.name, "a", 0, (1.0,)),
        Run(case.name, "b", 0, (2.0,)),
    ]

    assert [row.server for row in table(case, *runs).rows] == order


def test_cases_without_runs_have_no_table() -> None:
    assert report.summarise(CASES, [Run("hello", "a", 0, (1.0,))], "omnicorn")[0].case is HELLO
    assert len(report.summarise(CASES, [Run("hello", "a", 0, (1.0,))], "omnicorn")) == 1


def test_a_note_names_its_rounds_unless_it_holds_for_all() -> None:
    row = rows(
        HELLO,
        Run("hello", "a", 0, (1.0,), marks=("3 errors", "slow")),
        Run("hello", "a", 1, failure="slow"),
    )["a"]

    assert row.notes == ("round 1: 3 errors", "slow")


def test_the_markdown_shows_facts_versions_ratios_and_failures() -> None:
    tables = report.summarise(
        [HELLO],
        [
            Run("hello", "omnicorn", 0, (60000.0,), p99_ms=1.234, cpu=0.99, load_cpu=0.5),
            Run("hello", "uvicorn", 0, (30000.0,), p99_ms=2.0, cpu=0.5, load_cpu=0.5),
            Run("hello", "daphne", 0, failure="a | b"),
        ],
        "omnicorn",
    )

    text = report.markdown(tables, "omnicorn", {"CPU": "fast"}, {"uvicorn": "1.0"}, ["a remark"])

    lines = text.splitlines()
    assert {"- CPU: fast", "- versions: uvicorn 1.0", "- a remark"} <= set(lines)
    assert "| hello | 2.00× (2.00..2.00) | - |" in lines
    assert "| **omnicorn** | 60,000 | 60,000 to 60,000 | - | 1.23 | 99% | 50% |  |" in lines
    assert (
        "| uvicorn | 30,000 | 30,000 to 30,000 | 2.00× (2.00..2.00) | 2 | 50% | 50% |  |" in lines
    )
    assert r"| daphne | - | - | - | - | - | - | a \| b |" in lines


@pytest.mark.parametrize(
    ("case", "unit"), [(WS, "messages / CPU-second"), (FANOUT, "deliveries / CPU-second")]
)
def test_sockets_under_load_have_a_table_like_requests(case: Case, unit: str) -> None:
    runs = [
        Run(case.name, "omnicorn", 0, (90000.0,), p99_ms=0.5, cpu=1.0, load_cpu=0.75),
        Run(case.name, "uvicorn", 0, (45000.0,), p99_ms=1.0, cpu=1.0, load_cpu=0.5),
    ]

    lines = report.markdown([table(case, *runs)], "omnicorn", {}, {}, []).splitlines()

    assert any(unit in line and "server CPU | client CPU" in line for line in lines)
    assert "| **omnicorn** | 90,000 | 90,000 to 90,000 | - | 0.5 | 100% | 75% |  |" in lines
    assert f"| {case.name} | 2.00× (2.00..2.00) |" in lines


def test_the_memory_table_shows_what_the_server_weighed_before() -> None:
    tables = [table(IDLE, Run("idle", "a", 0, (7.6,), base_mib=22.84))]

    text = report.markdown(tables, "omnicorn", {}, {}, [])

    assert "| a | 7.6 | 7.6 to 7.6 | - | 22.8 |  |" in text.splitlines()


def test_the_document_is_json_with_every_run() -> None:
    runs = [Run("hello", "omnicorn", 0, (2.0,)), Run("hello", "uvicorn", 0, (1.0,))]
    tables = report.summarise([HELLO], runs, "omnicorn")

    found = json.loads(json.dumps(report.document(tables, runs, {"CPU": "x"}, {}, ["r"])))

    assert found["cases"]["hello"]["servers"]["uvicorn"]["ratio"] == {
        "median": 2.0,
        "low": 2.0,
        "high": 2.0,
    }
    assert [run["samples"] for run in found["runs"]] == [[2.0], [1.0]]
    assert (found["facts"], found["remarks"]) == ({"CPU": "x"}, ["r"])
