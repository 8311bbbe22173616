from __future__ import annotations

from xml.etree import ElementTree

from bench import chart, report
from bench.cases import CASES
from bench.runs import Run

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*runs: Run) -> ElementTree.Element:
    return ElementTree.fromstring(
        chart.chart(report.summarise(CASES, runs, "omnicorn"), "omnicorn")
    )


def bars(root: ElementTree.Element) -> dict[str, float]:
    return {
        bar.attrib["class"]: float(bar.attrib["width"])
        for bar in root.iter(f"{SVG}rect")
        if bar.attrib["class"] != "g"
    }


def test_bars_are_as_long_as_their_values() -> None:
    found = bars(drawn(Run("hello", "omnicorn", 0, (200.0,)), Run("hello", "uvicorn", 0, (50.0,))))

    assert found["o"] == 4 * found["b"] > 0


def test_each_case_has_its_own_scale() -> None:
    found = bars(drawn(Run("hello", "omnicorn", 0, (90000.0,)), Run("idle", "uvicorn", 0, (5.0,))))

    assert found["o"] == found["b"]


def test_a_failure_has_a_word_and_no_bar() -> None:
    root = drawn(Run("hello", "uvicorn", 0, failure="no"))

    assert bars(root) == {}
    assert "failed" in [text.text for text in root.iter(f"{SVG}text")]


def test_names_are_escaped() -> None:
    root = drawn(Run("hello", "<a&b>", 0, (1.0,)))

    assert "<a&b>" in [text.text for text in root.iter(f"{SVG}text")]


def test_no_runs_give_an_empty_picture() -> None:
    assert bars(drawn()) == {}


def test_memory_that_shrank_draws_no_negative_bar() -> None:
    assert bars(drawn(Run("idle", "uvicorn", 0, (-1.0,)))) == {"b": 0.0}
