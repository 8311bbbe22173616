"""permessage-deflate (RFC 7692): the agreement, and compression both ways.

Decided here:

1. Which offer is taken: the first whose parameters are all known, legal and given once.
   Raw deflate with a window of 2^8 bytes is beyond zlib, so such an offer is passed over.
2. Memory: we compress with a window of 2^12 bytes unless the client asks for less, and ask
   the same of clients that let us. With zlib that is 32 KiB for a socket that has sent
   compressed content and 11 KiB for one that has received some (43 KiB where the client
   insists on 2^15), and none before: both sides are made when first used.
3. What is inflated is bounded before it exists: a bomb costs as much as the largest
   message allowed, and no more.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from omnicorn.errors import WebSocketError
from omnicorn.protocols.websocket.frames import INVALID_DATA, TOO_BIG

zlib: Any
try:
    from zlib_ng import zlib_ng as zlib  # a faster drop-in: omnicorn[compression]
except ImportError:
    import zlib

WINDOW = 12
"""Bits of the window we choose: 2^12 bytes are enough for messages, at a tenth of the memory."""
_LEVEL = 5
_MEMORY = 5
_TAIL = b"\x00\x00\xff\xff"
_PADDING = (_TAIL, b"\x00" + _TAIL)
_PADDED = (b"", b"\x00")  # as far as it has come in a frame that is not the last

SMALL = 128
"""Bytes below which a message is sent as it is: deflating it would cost more than it saves."""

_quoted = re.compile(r'(?<==)"((?:[^"\\]|\\.)*)"')
_match_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch


class Agreement(NamedTuple):
    """Parameters both sides keep to (RFC 7692 §7.1).

    Attributes:
        server_bits: log2 of the window we compress with, 9 to 15.
        client_bits: log2 of the window the client compresses with, 8 to 15.
        server_forgets: We compress each message by itself.
        client_forgets: So does the client.
        answer: The value of ``sec-websocket-extensions`` that says so.
    """

    server_bits: int
    client_bits: int
    server_forgets: bool
    client_forgets: bool
    answer: bytes


def negotiate(offers: str) -> Agreement | None:
    """Agree to one of the offers in a ``Sec-WebSocket-Extensions`` field; None to none."""
    # A quoted value (RFC 9110 §5.6.4) means the same as without its quotes; one that needs
    # them is none of ours.
    offers = _quoted.sub(lambda match: match[1] if _match_token(match[1]) else "(", offers)
    for offer in offers.split(","):
        name, *parameters = offer.split(";")
        if name.strip(" \t").lower() == "permessage-deflate":
            agreement = _agree(parameters)
            if agreement is not None:
                return agreement
    return None


def _agree(parameters: list[str]) -> Agreement | None:
    offered: dict[str, str] = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        name = name.strip(" \t").lower()
        value = value.strip(" \t")
        if name in offered or not _match_token(name) or (equals and not _match_token(value)):
            return None
        offered[name] = value
    server_bits = WINDOW
    client_bits = 15
    answer = "permessage-deflate"
    server_forgets = client_forgets = False
    for name, value in offered.items():
        if name == "server_no_context_takeover" and not value:
            server_forgets = True
            answer += "; server_no_context_takeover"
        elif name == "client_no_context_takeover" and not value:
            client_forgets = True
            answer += "; client_no_context_takeover"
        elif name == "server_max_window_bits" and value in _BITS and value != "8":
            server_bits = min(WINDOW, int(value))
        elif name == "client_max_window_bits" and (value in _BITS or not value):
            client_bits = min(WINDOW, int(value or 15))
        else:
            return None
    answer += f"; server_max_window_bits={server_bits}"
    if "client_max_window_bits" in offered:  # RFC 7692 §7.1.2.2: else it may not be answered
        answer += f"; client_max_window_bits={client_bits}"
    return Agreement(server_bits, client_bits, server_forgets, client_forgets, answer.encode())


_BITS = frozenset(map(str, range(8, 16)))


class Deflate:
    """Compression of one socket, both ways."""

    __slots__ = ("_agreement", "_behind", "_deflater", "_inflater")

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._deflater: Any = None
        self._inflater: Any = None
        self._behind = b""  # what a message holds behind the end of its stream

    def compress(self, content: bytes) -> bytes:
        """The content of one message, compressed (RFC 7692 §7.2.1)."""
        deflater = self._deflater
        if deflater is None:
            deflater = self._deflater = zlib.compressobj(
                _LEVEL, zlib.DEFLATED, -self._agreement.server_bits, _MEMORY
            )
        out: bytes = deflater.compress(content) + deflater.flush(zlib.Z_SYNC_FLUSH)
        if self._agreement.server_forgets:
            self._deflater = None
        return out[:-4] if out.endswith(_TAIL) else out

    def inflate(self, content: bytes, limit: int, last: bool) -> bytes:
        """The next piece of a message, inflated (RFC 7692 §7.2.2).

        Args:
            content: What a frame holds.
            limit: Bytes the piece may have.
            last: It is the message's last frame.

        Raises:
            WebSocketError: 1009 past the limit, 1007 for what is no deflate stream.
        """
        inflater = self._inflater
        if inflater is None:
            inflater = self._inflater = zlib.decompressobj(-max(9, self._agreement.client_bits))
        if last:
            content += _TAIL
        if inflater.eof:
            out = b""
            self._behind += content
        else:
            try:
                out = inflater.decompress(content, limit + 1)
            except zlib.error:
                raise WebSocketError("the compressed content is broken", INVALID_DATA) from None
            if len(out) > limit:
                raise WebSocketError(
                    f"the message is too big once inflated (limit {limit})", TOO_BIG
                )
            self._behind = inflater.unused_data
        if inflater.eof:
            # RFC 7692 §7.2.3.4: a message may end its stream, and then nothing but padding
            # follows. (To go on with a stream of any length behind it, again and again, is
            # work that a client could make out of two bytes.)
            if self._behind not in (_PADDING if last else _PADDED):
                raise WebSocketError("the compressed content goes on after its end", INVALID_DATA)
            if last:
                self._inflater = None
        elif last and self._agreement.client_forgets:
            self._inflater = None
        return out
