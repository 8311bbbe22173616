"""The `priority` field: what it says, and that it never fails."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omnicorn.protocols.http2.priority import DEFAULT_PRIORITY, parse_priority


@pytest.mark.parametrize(
    ("value", "urgency", "incremental"),
    [
        (b"", 3, False),
        (b"u=0", 0, False),
        (b"u=7", 7, False),
        (b"i", 3, True),
        (b"i=?1", 3, True),
        (b"i=?0", 3, False),
        (b"u=5, i", 5, True),
        (b"i,u=5", 5, True),
        (b"u=1 ,\t i=?1", 1, True),
        (b" u=1 ", 1, False),
        (b"u=05", 5, False),
        (b"u=-0", 0, False),
    ],
)
def test_what_it_says(value: bytes, urgency: int, incremental: bool) -> None:
    """RFC 9218 §4"""
    assert parse_priority(value) == (urgency, incremental)


@pytest.mark.parametrize(
    "value",
    [
        b"u=8", b"u=-1", b"u=10", b"u=1.0", b'u="1"', b"u=a", b"u", b"u=?1", b"u=(1)", b"u=@1",
        b"u=:MQ==:", b"i=1", b"i=a", b"i=(?1)", b'i="?1"',
    ],
)  # fmt: skip
def test_members_out_of_range_or_of_another_type_are_ignored(value: bytes) -> None:
    """RFC 9218 §4; what stands beside them is not."""
    assert parse_priority(value) == DEFAULT_PRIORITY
    other = (b"i", (3, True)) if value.startswith(b"u") else (b"u=1", (1, False))
    assert parse_priority(value + b", " + other[0]) == other[1]


@pytest.mark.parametrize(
    "ignored",
    [
        b"x", b"x=1", b"u2=1", b"x=-1.5", b'x="a, \\" u=7"', b"x=a/b:c", b"x=:aGk=:", b"x=?0",
        b"x=()", b"x=( 1 2;a )", b'x=("a" b);q=1', b"*x.y-z_", b"x;u=7;i", b"x=1;u=7", b"x=@1",
        b'x=%"f%c3"',
    ],
)  # fmt: skip
def test_unknown_members_and_parameters_are_ignored(ignored: bytes) -> None:
    assert parse_priority(b"u=2, " + ignored + b", i") == (2, True)
    assert parse_priority(b"u=2;a;b=1, i;x=?0") == (2, True)


@pytest.mark.parametrize(
    "value",
    [
        b"u=2,", b",u=2", b"u=2,,i", b"u=2 i", b"u=2;", b"U=2", b"u= 2", b"u =2", b"u=", b"=2",
        b'u=2, x="', b'x="\\a"', b"u=2, x=(", b"x=(1(2))", b"u=2, \xff", b"u=2\0", b"\tu=2",
        b"u=2;A", b"u=2, x=1.", b"u=2, x=?2", b"u=2, x=(1;)", b"u=2, x=1234567890123456",
    ],
)  # fmt: skip
def test_what_is_no_dictionary_says_nothing(value: bytes) -> None:
    """RFC 9651 §4.2: it is ignored as a whole."""
    assert parse_priority(value) == DEFAULT_PRIORITY


def test_of_several_the_last_counts() -> None:
    """RFC 9651 §3.2; also if it is then ignored."""
    assert parse_priority(b"u=1, u=2, i, i=?0") == (2, False)
    assert parse_priority(b"u=1, u=9") == (3, False)


@given(st.binary(max_size=40) | st.text('ui=?01,;(): "\\a*', max_size=40).map(str.encode))
@example(b"u=1\n")
def test_nothing_makes_it_fail(value: bytes) -> None:
    urgency, incremental = parse_priority(value)
    assert 0 <= urgency <= 7
    assert incremental in (True, False)


@pytest.mark.parametrize(
    "piece", [b"a=(", b"a;", b"a=(1 ", b" ", b"a;b=1", b"a,", b'a="', b"a=(((", b"1", b"a=1.1;"]
)
def test_long_ones_take_linear_time(piece: bytes) -> None:
    begin = time.process_time()
    parse_priority(b"u=1," + piece * 20000)
    parse_priority(b"x=(" + piece * 20000 + b"\xff")
    assert time.process_time() - begin < 2
