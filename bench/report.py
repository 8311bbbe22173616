"""From runs to a report: medians, ratios, Markdown, JSON.

What this file alone decides: the statistics, and how they are worded.

- A server's number is the median of its samples over all rounds, with the least and the greatest.
- A ratio is taken within each round, where the two servers met the same machine, and only then
  is the median taken over rounds, with the least and the greatest.  It always says by how much
  omnicorn is better: omnicorn / peer where more is better, peer / omnicorn where less is.
- A failure or a mark in any round is shown.
"""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.cases import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.cases import Case
    from bench.runs import Run


class Spread(NamedTuple):
    """A median with the least and the greatest value."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread | None:
    """The spread of `values`; None when there are none."""
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found)) if found else None


@dataclass(frozen=True, slots=True)
class Row:
    """One server's result in one case, over all rounds."""

    server: str
    value: Spread | None
    ratio: Spread | None
    p99_ms: float | None
    cpu: float | None
    load_cpu: float | None
    base_mib: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One case's rows, the best server first, those without a number last."""

    case: Case
    rows: tuple[Row, ...]


def summarise(cases: Sequence[Case], runs: Sequence[Run], ours: str) -> list[Table]:
    """One table for each of `cases` that has runs; ratios are relative to the server `ours`."""
    tables = []
    for case in cases:
        of_case = [run for run in runs if run.case == case.name]
        names = list(dict.fromkeys(run.server for run in of_case))
        rows = [_row(case, name, of_case, ours) for name in names]
        if rows:
            rows.sort(key=lambda row: _rank(case, row))
            tables.append(Table(case, tuple(rows)))
    return tables


def _rank(case: Case, row: Row) -> tuple[bool, float]:
    if row.value is None:
        return (True, 0.0)
    return (False, -row.value.median if case.more_is_better else row.value.median)


def _row(case: Case, name: str, of_case: list[Run], ours: str) -> Row:
    mine = [run for run in of_case if run.server == name]
    return Row(
        server=name,
        value=spread(sample for run in mine for sample in run.samples),
        ratio=None if name == ours else spread(_ratios(case, mine, of_case, ours)),
        p99_ms=_median(run.p99_ms for run in mine),
        cpu=_median(run.cpu for run in mine),
        load_cpu=_median(run.load_cpu for run in mine),
        base_mib=_median(run.base_mib for run in mine),
        notes=_notes(mine),
    )


def _ratios(case: Case, mine: list[Run], of_case: list[Run], ours: str) -> list[float]:
    reference = {
        run.round: statistics.median(run.samples)
        for run in of_case
        if run.server == ours and run.samples
    }
    found = []
    for run in mine:
        if run.samples and run.round in reference:
            theirs = statistics.median(run.samples)
            better, worse = reference[run.round], theirs
            if not case.more_is_better:
                better, worse = worse, better
            if worse > 0:
                found.append(better / worse)
    return found


def _median(values: Iterable[float | None]) -> float | None:
    found = spread(value for value in values if value is not None)
    return found.median if found else None


def _notes(mine: list[Run]) -> tuple[str, ...]:
    said: dict[str, list[int]] = {}
    for run in mine:
        for note in (*run.marks, *((run.failure,) if run.failure else ())):
            said.setdefault(note, []).append(run.round + 1)
    return tuple(
        note if len(rounds) == len(mine) else f"round {', '.join(map(str, rounds))}: {note}"
        for note, rounds in said.items()
    )


def markdown(
    tables: Sequence[Table],
    ours: str,
    facts: dict[str, str],
    versions: dict[str, str],
    remarks: Sequence[str],
) -> str:
    """The whole report; `remarks` are shown beneath the machine's facts."""
    lines = ["# Benchmark", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["- versions: " + ", ".join(f"{n} {v}" for n, v in versions.items())]
    lines += [f"- {remark}" for remark in remarks]
    lines += ["", *_overview(tables, ours)]
    for table in tables:
        lines += ["", f"## {table.case.name}: {table.case.says}", "", *_table(table, ours)]
    return "\n".join(lines) + "\n"


def _overview(tables: Sequence[Table], ours: str) -> list[str]:
    peers = list(dict.fromkeys(r.server for t in tables for r in t.rows if r.server != ours))
    lines = [
        f"How many times better {ours} is (median of the rounds, least to greatest):",
        "",
        _cells(["case", *peers]),
        _cells(["---", *["---:"] * len(peers)]),
    ]
    for table in tables:
        ratios = {row.server: row.ratio for row in table.rows}
        lines.append(_cells([table.case.name, *(_times(ratios.get(peer)) for peer in peers)]))
    return lines


def _table(table: Table, ours: str) -> list[str]:
    case = table.case
    heads = ["server", case.unit, "least to greatest", f"{ours} is better by"]
    if case.under_load:
        heads += ["p99 ms", "server CPU", "client CPU"]
    elif case.kind is Kind.IDLE:
        heads += ["MiB before"]
    lines = [_cells([*heads, "notes"]), _cells(["---", *["---:"] * (len(heads) - 1), "---"])]
    for row in table.rows:
        cells = [
            f"**{row.server}**" if row.server == ours else row.server,
            _number(row.value.median) if row.value else "-",
            f"{_number(row.value.low)} to {_number(row.value.high)}" if row.value else "-",
            _times(row.ratio),
        ]
        if case.under_load:
            cells += [_number(row.p99_ms), _percent(row.cpu), _percent(row.load_cpu)]
        elif case.kind is Kind.IDLE:
            cells += [_number(row.base_mib)]
        lines.append(_cells([*cells, "; ".join(row.notes)]))
    return lines


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _times(ratio: Spread | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio.median:.2f}× ({ratio.low:.2f}..{ratio.high:.2f})"


def document(
    tables: Sequence[Table],
    runs: Sequence[Run],
    facts: dict[str, str],
    versions: dict[str, str],
    remarks: Sequence[str],
) -> dict[str, Any]:
    """The report as plain data for JSON: the summary, and every run it was made from."""
    return {
        "facts": facts,
        "versions": versions,
        "remarks": list(remarks),
        "cases": {
            table.case.name: {
                "says": table.case.says,
                "unit": table.case.unit,
                "more_is_better": table.case.more_is_better,
                "servers": {row.server: _plain(row) for row in table.rows},
            }
            for table in tables
        },
        "runs": [dataclasses.asdict(run) for run in runs],
    }


def _plain(row: Row) -> dict[str, Any]:
    found = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    for name in ("value", "ratio"):
        if found[name] is not None:
            found[name] = found[name]._asdict()
    return found
