from __future__ import annotations

from omnicorn.config.spelling import did_you_mean, nearest


def test_the_nearest_name_is_found() -> None:
    assert nearest("--prot", ["--host", "--port", "--root-path"]) == "--port"


def test_a_far_name_is_not_suggested() -> None:
    assert nearest("workers", ["port", "host"]) is None


def test_a_suggestion_ends_a_sentence_and_its_lack_adds_nothing() -> None:
    assert did_you_mean("prot", ["port"]) == "; did you mean 'port'?"
    assert did_you_mean("zzz", ["port"]) == ""
