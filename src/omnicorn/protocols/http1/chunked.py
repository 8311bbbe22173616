"""The chunked transfer coding (RFC 9112 §7.1), decoded incrementally and strictly.

Rules of this file:

1. Whatever the chunks' sizes, one `feed` gives one piece of content: a million one-byte
   chunks in a segment are one upcall.
2. A chunk's data is followed by CRLF and nothing else; a chunk line holds hexadecimal
   digits, then extensions, which are dropped. Their bytes are counted: extensions may not
   outweigh the content (limit: that of a head).
3. Trailer fields are checked like header fields and dropped: RFC 9110 §6.5.1 forbids
   merging them into the headers, and no ASGI event carries them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from omnicorn.errors import LimitExceeded, RemoteProtocolError
from omnicorn.http.fields import match_line

if TYPE_CHECKING:
    from omnicorn.http.limits import Limits

# chunk-size [ chunk-ext ]; sixteen digits hold 2^64 - 1, and no more are read.
_match_size = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?").fullmatch

MAX_LINE = 1024
"""Bytes of one chunk line with its extensions."""

_SIZES = {b"%x" % size: size for size in (*range(1, 257), 512, 1024, 2048, 4096, 8192, 16384)}

_SIZE, _DATA, _DATA_END, _TRAILERS, _DONE = range(5)


class ChunkedDecoder:
    """Decodes one body.

    Attributes:
        done: The last chunk and the trailer section have been read.
        rest: Once done, the bytes behind the body.
    """

    __slots__ = (
        "_fields",
        "_left",
        "_limits",
        "_overhead",
        "_partial",
        "_received",
        "_state",
        "rest",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = _SIZE
        self._left = 0
        self._partial = b""
        self._overhead = 0
        self._received = 0
        self._fields = 0
        self.rest = b""

    @property
    def done(self) -> bool:
        return self._state == _DONE

    def feed(self, data: bytes) -> bytes:
        """Decode *data*; return the content in it, joined.

        Raises:
            RemoteProtocolError: 400 for broken framing.
            LimitExceeded: 413 past the body limit, 431 past a trailer limit.
        """
        if self._partial:
            data = self._partial + data
            self._partial = b""
        pieces: list[bytes] = []
        position = 0
        end = len(data)
        state = self._state
        while position < end or state == _DONE:
            if state == _SIZE:
                line_end = data.find(b"\r\n", position)
                if line_end < 0:
                    self._keep_line(data, position, False)
                    break
                line = data[position:line_end]
                size = _SIZES.get(line) or self._parse_size(line)
                position = line_end + 2
                if size:
                    self._count(size)
                    self._left = size
                    state = _DATA
                else:
                    self._overhead = 0
                    state = _TRAILERS
            elif state == _DATA:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    state = _DATA_END
            elif state == _DATA_END:
                terminator = data[position : position + 2]
                if terminator == b"\r\n":
                    position += 2
                    state = _SIZE
                elif terminator == b"\r":
                    self._partial = terminator
                    break
                else:
                    raise RemoteProtocolError("a chunk does not end in CRLF")
            elif state == _TRAILERS:
                line_end = data.find(b"\r\n", position)
                if line_end < 0:
                    self._keep_line(data, position, True)
                    break
                self._check_trailer(data[position:line_end])
                if line_end == position:
                    state = _DONE
                position = line_end + 2
            else:
                self.rest = data[position:]
                break
        self._state = state
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _keep_line(self, data: bytes, position: int, trailer: bool) -> None:
        """Keep an incomplete line for the next segment, within its limit."""
        line = data[position:]
        if trailer and line != b"\r":  # which may be the beginning of the end
            self._check_trailer_size(line, len(line))
        if b"\n" in line:
            raise RemoteProtocolError("a bare LF stands in the chunked framing")
        # One byte more than the limit may be the CR of a line that just fits.
        if not trailer and len(line) > MAX_LINE + 1:
            raise RemoteProtocolError("a chunk size is malformed")
        self._partial = line

    def _parse_size(self, line: bytes) -> int:
        match = _match_size(line)
        if match is None or len(line) > MAX_LINE:
            raise RemoteProtocolError("a chunk size is malformed")
        digits = match[1]
        self._overhead += len(line) - len(digits)
        if self._overhead > self._limits.head:
            raise LimitExceeded("the chunk extensions are too large", 413, self._limits.head)
        return int(digits, 16)

    def _count(self, size: int) -> None:
        self._received += size
        limit = self._limits.body
        if limit is not None and self._received > limit:
            raise LimitExceeded("the request body is too large", 413, limit)

    def _check_trailer(self, line: bytes) -> None:
        if not line:
            return
        self._check_trailer_size(line, len(line) + 1)
        if match_line(line) is None:
            raise RemoteProtocolError("a trailer field line is malformed")
        self._fields += 1
        self._overhead += len(line) + 2
        limits = self._limits
        if self._fields > limits.fields:
            raise LimitExceeded("the trailer section has too many fields", 431, limits.fields)

    def _check_trailer_size(self, line: bytes, size: int) -> None:
        """431 for a trailer section past the limit, wherever the segments end."""
        limit = self._limits.head
        room = limit - self._overhead
        if size >= room:
            if b"\n" in line[:room]:
                raise RemoteProtocolError("a bare LF stands in the chunked framing")
            raise LimitExceeded("the trailer section is too large", 431, limit)
