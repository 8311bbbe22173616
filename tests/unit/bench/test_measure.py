from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from bench import measure

if TYPE_CHECKING:
    from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")


def process(
    proc: Path, pid: int, parent: int, times: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> Path:
    place = proc / str(pid)
    place.mkdir()
    zeros = " 0" * 9
    (place / "stat").write_text(
        f"{pid} (odd) (name) S {parent}{zeros} {' '.join(map(str, times))} 20 0 1\n"
    )
    return place


def test_the_name_may_hold_spaces_and_parentheses(tmp_path: Path) -> None:
    stat = measure.parse_stat((process(tmp_path, 7, 3, (1, 2, 3, 4)) / "stat").read_text())

    assert stat[:2] == (7, 3)
    assert stat.cpu_seconds == pytest.approx(10 * TICK)


def test_the_tree_holds_descendants_only(tmp_path: Path) -> None:
    for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1)):
        process(tmp_path, pid, parent)

    assert sorted(stat.pid for stat in measure.tree(10, tmp_path)) == [10, 11, 12]


def test_the_tree_of_a_process_that_is_gone_is_empty(tmp_path: Path) -> None:
    process(tmp_path, 20, 1)

    assert measure.tree(10, tmp_path) == []


def test_cpu_time_includes_children_alive_and_reaped(tmp_path: Path) -> None:
    process(tmp_path, 10, 1, (100, 50, 7, 3))
    process(tmp_path, 11, 10, (40, 0, 0, 0))

    assert measure.cpu_seconds(10, tmp_path) == pytest.approx(200 * TICK)


def test_memory_is_the_private_pages_of_the_whole_tree(tmp_path: Path) -> None:
    for pid, parent, kib in ((10, 1, 100), (11, 10, 30)):
        (process(tmp_path, pid, parent) / "smaps_rollup").write_text(
            "0-1 ---p 00000000 00:00 0 [rollup]\n"
            f"Rss: 9000 kB\nPrivate_Clean:    5 kB\nPrivate_Dirty:   {kib} kB\n"
        )

    assert measure.private_kib(10, tmp_path) == 140


def test_memory_is_the_resident_set_where_the_kernel_has_no_rollup(tmp_path: Path) -> None:
    (process(tmp_path, 10, 1) / "status").write_text("Name:\tx\nVmRSS:\t    812 kB\n")

    assert measure.private_kib(10, tmp_path) == 812


def test_this_process_has_used_time_and_memory() -> None:
    assert measure.cpu_seconds(os.getpid()) > 0
    assert measure.private_kib(os.getpid()) > 0


@pytest.mark.parametrize(
    ("text", "cores"), [("0\n", {0}), ("0-2,8\n", {0, 1, 2, 8}), ("0,4", {0, 4})]
)
def test_lists_of_cores_are_read_as_the_kernel_writes_them(text: str, cores: set[int]) -> None:
    assert measure.parse_cpu_list(text) == cores


def test_two_threads_of_one_core_are_avoided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    topology = tmp_path / "cpu0" / "topology"
    topology.mkdir(parents=True)
    (topology / "thread_siblings_list").write_text("0,3\n")

    assert measure.cores(tmp_path) == measure.Cores(server=2, load=0)


def test_siblings_serve_when_there_is_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    topology = tmp_path / "cpu0" / "topology"
    topology.mkdir(parents=True)
    (topology / "thread_siblings_list").write_text("0-1\n")

    assert measure.cores(tmp_path) == measure.Cores(server=1, load=0)


def test_a_single_core_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})

    assert measure.cores(tmp_path).shared


def test_pinning_ends_with_the_block() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)

    with measure.pinned(core):
        assert os.sched_getaffinity(0) == {core}

    assert os.sched_getaffinity(0) == before
