"""Records, and what is encoded inside of them: the numbers and layouts, no conversation (§3, §8).

::

    version 1 | type | request id (2) | content length (2) | padding length | 0
    content | padding
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from omnicorn.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

# Types of records.
BEGIN_REQUEST = 1
ABORT_REQUEST = 2
END_REQUEST = 3
PARAMS = 4
STDIN = 5
STDOUT = 6
STDERR = 7
DATA = 8
GET_VALUES = 9
GET_VALUES_RESULT = 10
UNKNOWN_TYPE = 11

HEADER = 8
"""Bytes in front of a content."""
MOST = 65535
"""Bytes of a content."""
NO_RECORD = bytes(8)
"""What no front can take for a record: it has the version 0."""

_PIECE = 65528  # what we put into one where there is more: a multiple of eight, as §3.3 advises

RESPONDER = 1
KEEP_CONN = 1

# Why a request has ended, END_REQUEST's protocolStatus (§5.5).
REQUEST_COMPLETE = 0
CANT_MPX_CONN = 1
OVERLOADED = 2
UNKNOWN_ROLE = 3

_header = struct.Struct(">BBHHBx").pack
_end = struct.Struct(">BBHHxxIB3x").pack
_unknown = struct.Struct(">BBHHxxB7x").pack
_length = struct.Struct(">I")

read_header = struct.Struct(">BBHHBx").unpack_from
"""Version, type, request id, content length, padding length."""
read_begin = struct.Struct(">HB5x").unpack_from
"""Role and flags of a BEGIN_REQUEST's content."""


def record(kind: int, number: int, content: bytes = b"") -> bytes:
    """One record; its content has at most `MOST` bytes."""
    return _header(1, kind, number, len(content), 0) + content


def stream_records(kind: int, number: int, pieces: list[bytes]) -> list[bytes]:
    """Pieces of a stream, not empty together, as the pieces of its records."""
    size = sum(map(len, pieces))
    if size <= MOST:
        return [_header(1, kind, number, size, 0), *pieces]
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    out: list[bytes] = []
    for at in range(0, size, _PIECE):
        piece = data[at : at + _PIECE]
        out += (_header(1, kind, number, len(piece), 0), piece)
    return out


def end_request(number: int, app_status: int, protocol_status: int) -> bytes:
    return _end(1, END_REQUEST, number, 8, app_status, protocol_status)


def unknown_type(kind: int) -> bytes:
    """The answer to a record of a type that is not spoken here (§4.2)."""
    return _unknown(1, UNKNOWN_TYPE, 0, 8, kind)


def split_params(block: bytes) -> list[tuple[bytes, bytes]]:
    """Name-value pairs (§3.4), in order.

    Raises:
        RemoteProtocolError: The block ends within a pair.
    """
    pairs = []
    at = 0
    end = len(block)
    try:
        while at < end:
            name = block[at]
            if name < 128:
                at += 1
            else:
                name = _length.unpack_from(block, at)[0] & 0x7FFFFFFF
                at += 4
            value = block[at]
            if value < 128:
                at += 1
            else:
                value = _length.unpack_from(block, at)[0] & 0x7FFFFFFF
                at += 4
            start = at + name
            at = start + value
            pairs.append((block[start - name : start], block[start:at]))
    except (IndexError, struct.error):
        at = end + 1
    if at > end:
        raise RemoteProtocolError("the parameters end within a name-value pair")
    return pairs


def join_params(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The opposite of `split_params`."""
    out = []
    for name, value in pairs:
        for text in (name, value):
            size = len(text)
            out.append(bytes((size,)) if size < 128 else _length.pack(size | 0x80000000))
        out += (name, value)
    return b"".join(out)
