"""IMF-fixdate, against the standard library and over whole centuries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.http.dates import http_date

LAST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("seconds", "date"),
    [
        (0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (784111777, b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (951782400, b"Tue, 29 Feb 2000 00:00:00 GMT"),
        (1709251199, b"Thu, 29 Feb 2024 23:59:59 GMT"),
        (2147483647, b"Tue, 19 Jan 2038 03:14:07 GMT"),
        (4107542400, b"Mon, 01 Mar 2100 00:00:00 GMT"),
        (LAST, b"Fri, 31 Dec 9999 23:59:59 GMT"),
    ],
)
def test_a_date(seconds: int, date: bytes) -> None:
    """RFC 9110 §5.6.7; its own example among them"""
    assert http_date(seconds) == date


@given(st.integers(0, LAST))
def test_a_date_is_the_standard_librarys(seconds: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    assert http_date(seconds) == format_datetime(moment, usegmt=True).encode()


@given(st.floats(0, 4e9))
def test_a_fraction_of_a_second_is_dropped(seconds: float) -> None:
    assert http_date(seconds) == formatdate(int(seconds), usegmt=True).encode()


def test_every_day_of_four_centuries_follows_the_one_before() -> None:
    day = datetime(1970, 1, 1, tzinfo=UTC)
    for count in range(0, 146_097, 7):
        want = day + timedelta(days=count)
        assert http_date(count * 86400) == want.strftime("%a, %d %b %Y 00:00:00 GMT").encode()
