"""Field blocks of the peer: put together, decoded in their order, and remembered.

Rules of this file:

1. A block is HEADERS and its CONTINUATIONs. It is kept until it is whole, but only so much of
   it: a list within the limit is at most `EXPANSION` times as long when it is coded, and what
   is longer ends the connection (CVE-2024-27316). A list beyond the limit is lost alone.
2. Blocks are decoded in the order they come, also those of streams that are refused
   (RFC 7541 §2.2).
3. A block that came before and changed nothing means the same request as long as the dynamic
   table has not changed: one look-up in `heads`.
4. What stands in the table was judged when it came, as part of a request. Once that cannot be
   relied on, fields from there are judged like any others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnicorn.errors import Http2Error, RemoteProtocolError
from omnicorn.http.memo import Memo
from omnicorn.protocols.http2.codes import ENHANCE_YOUR_CALM
from omnicorn.protocols.http2.guards import MAX_CONTINUATIONS
from omnicorn.protocols.http2.hpack import Decoder

if TYPE_CHECKING:
    from omnicorn.protocols.http2.hpack import Strings
    from omnicorn.protocols.http2.requests import Head, RequestParser

EXPANSION = 4
"""A byte takes up to 30 bits in Huffman's code (RFC 7541 Appendix B)."""
BLOCK_BYTES = 512
"""Larger field blocks are not remembered."""


class BlockReader:
    """The field blocks of one connection.

    Args:
        parser: Shared by the connections of a server.
        strings: The memory of HPACK literals.

    Attributes:
        heads: Requests by field block: those without and those with content.
        fragments: Of the block that is not whole yet; None where there is none.
        stream: The stream that it belongs to.
        ended: Its HEADERS frame has END_STREAM.
        head_only: The last request that was refused asked for no content: HEAD.
    """

    __slots__ = (
        "_count",
        "_decoder",
        "_distrusts",
        "_parser",
        "_size",
        "ended",
        "fragments",
        "head_only",
        "heads",
        "stream",
    )

    def __init__(self, parser: RequestParser, strings: Strings) -> None:
        self._parser = parser
        self._decoder = Decoder(strings, parser.limits.head)
        self._distrusts = False
        self.heads: tuple[Memo[bytes, Head], Memo[bytes, Head]] = (
            Memo(64, BLOCK_BYTES),
            Memo(64, BLOCK_BYTES),
        )
        self.fragments: list[bytes] | None = None
        self.stream = 0
        self.ended = 0
        self.head_only = False
        self._size = 0
        self._count = 0

    def begin(self, number: int, fragment: bytes, ended: int) -> None:
        """HEADERS without END_HEADERS."""
        self.fragments = [fragment]
        self.stream = number
        self.ended = ended
        self._size = len(fragment)
        self._count = 0

    def extend(self, fragment: bytes) -> None:
        """CONTINUATION.

        Raises:
            Http2Error: There is too much of it.
        """
        assert self.fragments is not None
        self.fragments.append(fragment)
        self._size += len(fragment)
        self._count += 1
        if self._count > MAX_CONTINUATIONS or self._size > EXPANSION * self._parser.limits.head:
            raise Http2Error(
                "too much of one kind: CONTINUATION flood (CVE-2024-27316)", ENHANCE_YOUR_CALM
            )

    def end(self) -> bytes:
        """The block is whole: here it is."""
        assert self.fragments is not None
        block = b"".join(self.fragments)
        self.fragments = None
        return block

    def decode_request(self, block: bytes, ended: int) -> Head:
        """Read the block of a request that is not in `heads`.

        Raises:
            Http2Error: It cannot be decoded.
            Http2StreamError: The request is malformed.
            RemoteProtocolError: What else answers the request.
        """
        decoder = self._decoder
        generation = decoder.generation
        fields: tuple[tuple[bytes, bytes], ...] = ()
        try:
            fields = decoder.decode(block)
            unknown = None if self._distrusts else decoder.literals
            head = self._parser.parse(fields, bool(ended), unknown)
        except RemoteProtocolError:
            self._distrusts = True
            self.head_only = (b":method", b"HEAD") in fields
            raise
        finally:
            if decoder.generation != generation:
                self._forget()
        if decoder.generation == generation:
            self.heads[0 if ended else 1].remember(block, head, len(block))
        return head

    def decode_trailers(self, block: bytes) -> tuple[tuple[bytes, bytes], ...]:
        """Read the block of a trailer section; its fields are not checked.

        Raises:
            Http2Error: It cannot be decoded.
            LimitExceeded: It is too large.
        """
        self._distrusts = True  # nobody may ever check them
        decoder = self._decoder
        generation = decoder.generation
        try:
            return decoder.decode(block)
        finally:
            if decoder.generation != generation:
                self._forget()

    def _forget(self) -> None:
        """What the blocks in `heads` refer to has moved."""
        without, with_content = self.heads
        without.clear()
        with_content.clear()
