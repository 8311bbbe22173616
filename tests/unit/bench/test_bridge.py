from __future__ import annotations

import time

import pytest
from bench import bridge
from bench.bridge import CASES, OURS, Cost, Ratio, Result, compare, main, measure, table, times_for


@pytest.mark.parametrize("name", CASES)
def test_every_case_makes_as_many_calls_as_it_is_told(name: str) -> None:
    with CASES[name](OURS) as work:
        cost = measure(work, 3)

    assert cost.wall > 0
    assert cost.cpu >= 0


def test_a_cost_is_that_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    used = iter([1.0, 4.0])
    monkeypatch.setattr(time, "process_time", lambda: next(used))

    assert measure(lambda times: None, 3) == Cost(2.0, 1.0)


def test_calls_are_as_many_as_fill_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def work(times: int) -> None:
        nonlocal now
        now += times * 0.001

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert times_for(work, 0.1) == 100
    assert times_for(work, 0.0001) == 1


def test_a_ratio_is_the_median_with_the_least_and_the_greatest() -> None:
    assert str(Ratio.of([3.0, 1.0, 2.5])) == " 2.50 (1.00..3.00)"


def test_one_is_compared_with_itself() -> None:
    result = compare(
        "Local: get", bridge.local_get(OURS), bridge.local_get(OURS), rounds=3, seconds=0.001
    )

    assert result.name == "Local: get"
    assert 0 < result.wall.least <= result.wall.median <= result.wall.greatest
    assert 0 < result.ours < 1


def test_the_table_is_markdown() -> None:
    ratio = Ratio(2.0, 1.5, 3.0)
    assert table([Result("case", ratio, ratio, 0.0000125)]).splitlines() == [
        "| case | time | CPU time | ours, µs |",
        "|---|---|---|---|",
        "| case |  2.00 (1.50..3.00) |  2.00 (1.50..3.00) | 12.5 |",
    ]


def test_without_asgiref_there_is_nothing_to_compare_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bridge, "theirs", lambda: None)

    assert main([]) == 2
    assert "asgiref is not installed" in capsys.readouterr().err


def test_the_cases_asked_for_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bridge, "theirs", lambda: OURS)

    assert main(["--rounds", "1", "--slice", "0.001", "--cases", "Local"]) == 0
    printed = capsys.readouterr().out
    assert "Local: get" in printed
    assert "sync_to_async" not in printed
