"""A memory that a hostile peer can fill but not grow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omnicorn.http.memo import Memo


def test_it_remembers() -> None:
    memo: Memo[bytes, int] = Memo(2, 8)
    assert memo.remember(b"a", 1, 1) == 1
    assert memo[b"a"] == 1
    assert memo.get(b"b") is None


def test_what_is_too_long_is_given_back_and_forgotten() -> None:
    memo: Memo[bytes, int] = Memo(2, 3)
    assert memo.remember(b"abcd", 1, 4) == 1
    assert not memo
    memo.remember(b"abc", 1, 3)
    assert len(memo) == 1


def test_a_full_one_starts_anew() -> None:
    memo: Memo[int, int] = Memo(3, 8)
    for key in range(3):
        memo.remember(key, key, 1)
    assert len(memo) == 3
    memo.remember(3, 3, 1)
    assert dict(memo) == {3: 3}


@given(st.lists(st.binary(max_size=12)), st.integers(1, 5), st.integers(0, 8))
def test_its_bounds_hold_whatever_comes(keys: list[bytes], entries: int, size: int) -> None:
    memo: Memo[bytes, bytes] = Memo(entries, size)
    for key in keys:
        assert memo.remember(key, key, len(key)) == key
        assert len(memo) <= entries
        assert all(len(kept) <= size for kept in memo)
    assert all(key == value for key, value in memo.items())
