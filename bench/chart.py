"""The report as a picture: one panel of horizontal bars for each case, as SVG text.

What this file alone decides: how it looks.  Each panel has its own scale, from zero, so only bars
within a panel compare; a thin line spans the least to the greatest value.  No script, no font
file, no number beyond what the tables hold.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report import Row, Table

WIDTH = 760
_LEFT = 130  # of the bars
_RIGHT = 110  # for the number behind the longest bar
_ROW = 22
_HEAD = 44
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}"
    ".t{font-weight:600}.s{fill:#656d76}.b{fill:#b3bcc6}.o{fill:#2f7d4f}"
    ".w{stroke:#1f2328;stroke-width:1}.g{fill:#ffffff}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.b{fill:#4d5661}"
    ".o{fill:#3fb950}.w{stroke:#e6edf3}.g{fill:#0d1117}}"
)


def chart(tables: Sequence[Table], ours: str) -> str:
    """Draw `tables`; the bars of `ours` stand out."""
    parts: list[str] = []
    top = 8
    for table in tables:
        better = "more" if table.case.more_is_better else "less"
        parts.append(_text(12, top + 18, table.case.name, "t"))
        parts.append(_text(_LEFT, top + 18, f"{table.case.unit}, {better} is better", "s"))
        reach = max((row.value.high for row in table.rows if row.value), default=0.0)
        scale = (WIDTH - _LEFT - _RIGHT) / reach if reach > 0 else 0.0
        for index, row in enumerate(table.rows):
            parts += _bar(row, top + _HEAD - 16 + index * _ROW, scale, row.server == ours)
        top += _HEAD + len(table.rows) * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" '
        f'width="{WIDTH}" height="{top}" role="img" aria-label="Benchmark">'
        f'<style>{_STYLE}</style><rect class="g" width="{WIDTH}" height="{top}"/>'
        + "".join(parts)
        + "</svg>\n"
    )


def _bar(row: Row, top: int, scale: float, is_ours: bool) -> list[str]:
    label = _text(12, top + 13, row.server, "t" if is_ours else "")
    if row.value is None:
        return [label, _text(_LEFT, top + 13, "failed", "s")]
    median, low, high = (max(0.0, value) * scale for value in row.value)
    number = f"{row.value.median:,.0f}" if row.value.median >= 100 else f"{row.value.median:.3g}"
    middle = top + 8.5
    return [
        label,
        f'<rect class="{"o" if is_ours else "b"}" x="{_LEFT}" y="{top}" '
        f'width="{median:.1f}" height="17" rx="2"/>',
        f'<line class="w" x1="{_LEFT + low:.1f}" x2="{_LEFT + high:.1f}" '
        f'y1="{middle}" y2="{middle}"/>',
        _text(round(_LEFT + max(median, high) + 8), top + 13, number),
    ]


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x}" y="{y}">{escape(text)}</text>'
