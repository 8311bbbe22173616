"""What does not run on every loop is there, and is listed in the documents."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
LISTED = HERE.parents[1] / "docs" / "conformance.md"


def test_every_exception_is_a_test_and_is_listed(exceptions: dict[str, str]) -> None:
    listed = LISTED.read_text()
    for place, reason in exceptions.items():
        file, _, test = place.partition("::")
        assert f"def {test}" in (HERE / file).read_text(), place
        assert f"`{file}`" in listed, f"{place} ({reason})"
