"""The default fields: rendered once a second, by what the application said itself."""

from __future__ import annotations

import pytest

from omnicorn.http.defaults import HAS_DATE, HAS_SERVER, DefaultFields

DATE = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
SERVER = b"server: omnicorn\r\n"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return self.now


def test_nothing_is_rendered_until_it_is_asked_for() -> None:
    clock = Clock()
    assert DefaultFields(b"omnicorn", True, [], clock).lines is None
    assert clock.calls == 0


def test_each_index_leaves_out_what_the_application_gave() -> None:
    fields = DefaultFields(b"omnicorn", True, [(b"x", b"1")], Clock())
    assert fields.refresh() == (
        SERVER + DATE + b"x: 1\r\n",
        DATE + b"x: 1\r\n",
        SERVER + b"x: 1\r\n",
        b"x: 1\r\n",
    )
    assert fields.lines == fields.refresh()


@pytest.mark.parametrize(
    ("server", "date", "all_lines"),
    [
        (None, True, DATE),
        (b"omnicorn", False, SERVER),
        (None, False, b""),
        (b"", False, b"server: \r\n"),
    ],
)
def test_each_can_be_left_out(server: bytes | None, date: bool, all_lines: bytes) -> None:
    assert DefaultFields(server, date, (), Clock()).refresh()[0] == all_lines


def test_the_clock_is_read_once_for_each_rendering() -> None:
    clock = Clock()
    fields = DefaultFields(None, True, (), clock)
    fields.refresh()
    assert fields.lines is not None
    assert clock.calls == 1


def test_a_second_later_it_is_another_date() -> None:
    clock = Clock()
    fields = DefaultFields(None, True, (), clock)
    before = fields.refresh()
    clock.now = 1.0
    assert fields.lines == before
    fields.expire()
    assert fields.lines != before
    assert fields.refresh()[0] == b"date: Thu, 01 Jan 1970 00:00:01 GMT\r\n"


def test_a_clock_nobody_shows_is_not_read() -> None:
    clock = Clock()
    DefaultFields(b"omnicorn", False, (), clock).refresh()
    assert clock.calls == 0


def test_further_fields_keep_their_order() -> None:
    fields = DefaultFields(None, False, [(b"b", b"2"), (b"a", b"1"), (b"b", b"3")], Clock())
    assert fields.refresh()[0] == b"b: 2\r\na: 1\r\nb: 3\r\n"


def test_the_pairs_say_what_the_lines_say() -> None:
    extra = [(b"X-Mixed", b" 1 "), (b"a", b"")]
    fields = DefaultFields(b"omnicorn", True, extra, Clock())
    fields.refresh()
    server = (b"server", b"omnicorn")
    date = (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")
    further = ((b"x-mixed", b"1"), (b"a", b""))
    assert fields.pairs is not None
    assert fields.pairs[0] == (server, date, *further)
    assert fields.pairs[HAS_SERVER] == (date, *further)
    assert fields.pairs[HAS_DATE] == (server, *further)
    assert fields.pairs[HAS_SERVER + HAS_DATE] == further


def test_the_pairs_come_and_go_with_the_lines() -> None:
    fields = DefaultFields(b"omnicorn", True, (), Clock())
    shown = [fields.pairs]
    fields.refresh()
    shown.append(fields.pairs)
    fields.expire()
    shown.append(fields.pairs)
    assert [pairs is None for pairs in shown] == [True, False, True]


def test_the_pairs_leave_out_what_they_can_leave_out() -> None:
    fields = DefaultFields(None, False, (), Clock())
    fields.refresh()
    assert fields.pairs == ((), (), (), ())


def test_connection_specific_fields_are_lines_only() -> None:
    """RFC 9113 §8.2.2"""
    fields = DefaultFields(None, False, [(b"Keep-Alive", b"timeout=5"), (b"x", b"1")], Clock())
    assert fields.refresh()[0] == b"Keep-Alive: timeout=5\r\nx: 1\r\n"
    assert fields.pairs is not None
    assert fields.pairs[0] == ((b"x", b"1"),)
