"""Masking: every implementation does what RFC 6455 §5.3 says, byte by byte."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest

from omnicorn.protocols.websocket import masking

RANDOM = random.Random(5)
KEYS = [bytes(4), b"\xff" * 4, b"\x37\xfa\x21\x3d", b"\x00\x00\x00\x01", b"\x80\x00\x00\x00"]
SIZES = [*range(71), 125, 126, 127, 1023, masking._LARGE - 1, masking._LARGE, masking._LARGE + 3]
IMPLEMENTATIONS = [masking.unmask, masking._by_tables, masking.fastest()]


@pytest.mark.parametrize("unmask", IMPLEMENTATIONS, ids=["unmask", "tables", "fastest"])
@pytest.mark.parametrize("key", KEYS, ids=bytes.hex)
def test_masking_is_what_the_rfc_says(unmask: Any, key: bytes, mask: Any) -> None:
    for size in SIZES:
        content = RANDOM.randbytes(size)
        expected = mask(content, key)
        assert unmask(content, key) == expected
        assert unmask(bytearray(content), key) == expected
        assert unmask(expected, key) == content
        assert type(unmask(bytearray(content), key)) is bytes


@pytest.mark.parametrize("unmask", IMPLEMENTATIONS, ids=["unmask", "tables", "fastest"])
def test_masking_a_large_content_is_what_the_rfc_says(unmask: Any, mask: Any) -> None:
    content = RANDOM.randbytes(70_001)
    assert unmask(content, KEYS[2]) == mask(content, KEYS[2])


@pytest.mark.parametrize("unmask", IMPLEMENTATIONS, ids=["unmask", "tables", "fastest"])
@pytest.mark.parametrize("turn", range(4))
def test_a_piece_is_unmasked_with_a_turned_key(unmask: Any, turn: int, mask: Any) -> None:
    key = KEYS[2]
    for size in range(71):
        content = RANDOM.randbytes(turn + size)
        expected = mask(content, key)[turn:]
        assert unmask(content[turn:], key[turn:] + key[:turn]) == expected


def test_every_byte_of_every_key_has_its_table(mask: Any) -> None:
    content = bytes(range(256)) * 4
    for byte in range(256):
        key = bytes((byte, 255 - byte, byte ^ 0x55, 7))
        assert masking._by_tables(content, key) == mask(content, key)


def test_the_compiled_routine_is_taken_where_there_is_one() -> None:
    assert masking.fastest() is not masking.unmask


def test_without_the_library_our_own_routine_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    assert masking.fastest() is masking.unmask
