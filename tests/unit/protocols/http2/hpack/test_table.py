"""The static table (RFC 7541 Appendix A) and the dynamic one (§2.3, §4)."""

from __future__ import annotations

from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.protocols.http2.hpack.table import FIRST_DYNAMIC, STATIC, Pair, Table


def test_the_static_table_is_that_of_a_peer() -> None:
    assert tuple(HeaderTable.STATIC_TABLE) == STATIC
    assert len(STATIC) + 1 == FIRST_DYNAMIC


def test_one_list_serves_both_tables() -> None:
    table = Table()
    table.add((b"a", b"1"), 34)
    table.add((b"b", b"2"), 34)
    look_up = [table.entries[index] for index in (1, 61, 62, 63)]
    assert look_up == [(b":authority", b""), (b"www-authenticate", b""), (b"b", b"2"), (b"a", b"1")]
    assert len(table.entries) == 64
    assert table.used == 68


def test_the_oldest_leave_first() -> None:
    table = Table(limit=100)
    assert table.add((b"a", b"1"), 34) == []
    assert table.add((b"b", b"2"), 34) == []
    assert table.add((b"c", b"3"), 34) == [(b"a", b"1")]
    assert table.add((b"d", b"45678"), 38) == [(b"b", b"2")]
    assert table.entries[62:] == [(b"d", b"45678"), (b"c", b"3")]
    assert table.used == 72


def test_an_entry_may_fill_the_table() -> None:
    table = Table(limit=40)
    table.add((b"a", b"1"), 34)
    assert table.add((b"b", b"1234567"), 40) == [(b"a", b"1")]
    assert table.entries[62:] == [(b"b", b"1234567")]


def test_an_entry_larger_than_the_table_empties_it() -> None:
    """RFC 7541 §4.4: that is not an error."""
    table = Table(limit=40)
    table.add((b"a", b"1"), 34)
    assert table.add((b"b", b"12345678"), 41) == [(b"a", b"1")]
    assert table.entries[1:] == list(STATIC)
    assert table.used == 0


def test_a_smaller_size_evicts_and_a_larger_one_does_not() -> None:
    table = Table()
    for name in (b"a", b"b", b"c"):
        table.add((name, b"1"), 34)
    assert table.resize(70) == [(b"a", b"1")]
    assert table.resize(4096) == []
    assert table.resize(0) == [(b"b", b"1"), (b"c", b"1")]
    assert table.add((b"a", b"1"), 34) == []
    assert len(table.entries) == 62


PAIRS = st.tuples(st.binary(max_size=3), st.binary(max_size=80))


@given(st.lists(PAIRS | st.integers(0, 300)))
def test_the_table_does_what_a_peers_table_does(steps: list[Pair | int]) -> None:
    table = Table()
    peer = HeaderTable()
    for step in steps:
        if isinstance(step, int):
            table.resize(step)
            peer.maxsize = step
        else:
            table.add(step, len(step[0]) + len(step[1]) + 32)
            peer.add(*step)
        assert table.entries[62:] == list(peer.dynamic_entries)
        assert table.used == sum(len(name) + len(value) + 32 for name, value in table.entries[62:])
