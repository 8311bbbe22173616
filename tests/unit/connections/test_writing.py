from __future__ import annotations

from typing import Any

import pytest

from omnicorn.connections.writing import write_pieces
from omnicorn.ports import HIGH_WATER


class Recorder:
    """A transport that keeps each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)


def written(pieces: list[bytes], pending: int | None = None) -> list[bytes]:
    transport: Any = Recorder()
    write_pieces(transport, pieces, sum(map(len, pieces)) if pending is None else pending)
    writes: list[bytes] = transport.writes
    return writes


SMALL = b"s" * 1000
LARGE = b"L" * HIGH_WATER


@pytest.mark.parametrize(
    "pieces", [[b"a"], [b"a", b"bc", b""], [SMALL] * 65, [LARGE], [b"x" * (HIGH_WATER - 1), b"y"]]
)
def test_what_fits_into_one_write_is_one(pieces: list[bytes]) -> None:
    assert written(pieces) == [b"".join(pieces)]


@pytest.mark.parametrize(
    ("pieces", "sizes"),
    [
        ([SMALL, LARGE], [1000, HIGH_WATER]),
        ([LARGE, SMALL], [HIGH_WATER, 1000]),
        ([SMALL, SMALL, LARGE, LARGE, SMALL, SMALL], [2000, HIGH_WATER, HIGH_WATER, 2000]),
        ([LARGE, LARGE], [HIGH_WATER, HIGH_WATER]),
        ([b"x" * (HIGH_WATER - 1), b"yz"], [HIGH_WATER + 1]),
    ],
)
def test_large_pieces_are_written_by_themselves_and_in_order(
    pieces: list[bytes], sizes: list[int]
) -> None:
    writes = written(pieces)

    assert [len(write) for write in writes] == sizes
    assert b"".join(writes) == b"".join(pieces)


def test_a_large_piece_is_not_copied() -> None:
    assert any(write is LARGE for write in written([SMALL, LARGE]))


def test_how_many_bytes_there_are_is_the_callers_word() -> None:
    """Joining 64 KiB costs less than counting them."""
    assert written([SMALL, LARGE], pending=10) == [SMALL + LARGE]
