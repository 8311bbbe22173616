"""Status lines, and which responses have no content."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from omnicorn.http.status import PHRASES, forbids_content, status_line


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"HTTP/1.1 200 OK\r\n"),
        (204, b"HTTP/1.1 204 No Content\r\n"),
        (404, b"HTTP/1.1 404 Not Found\r\n"),
        (418, b"HTTP/1.1 418 I'm a Teapot\r\n"),
        (431, b"HTTP/1.1 431 Request Header Fields Too Large\r\n"),
    ],
)
def test_a_registered_status_has_its_phrase(status: int, line: bytes) -> None:
    assert status_line(status) == line


@pytest.mark.parametrize("status", [299, 420, 599, 600, 999])
def test_an_unregistered_status_has_an_empty_phrase_and_keeps_the_space(status: int) -> None:
    """RFC 9112 §4: the space behind the code stays."""
    assert status_line(status) == b"HTTP/1.1 %d \r\n" % status


def test_every_status_of_the_standard_library_has_a_phrase() -> None:
    # 306 and the like are reserved and unused.
    assert {int(status) for status in HTTPStatus} <= set(PHRASES)


def test_every_phrase_can_stand_in_a_status_line() -> None:
    for status, phrase in PHRASES.items():
        assert 100 <= status <= 599
        assert phrase.isascii()
        assert phrase.isprintable()
        assert phrase == phrase.strip()


@pytest.mark.parametrize("status", [100, 101, 103, 199, 204, 304])
def test_these_have_no_content(status: int) -> None:
    """RFC 9110 §6.4.1"""
    assert forbids_content(status)


@pytest.mark.parametrize("status", [200, 201, 203, 205, 206, 300, 303, 305, 400, 404, 500])
def test_these_may_have_content(status: int) -> None:
    assert not forbids_content(status)
