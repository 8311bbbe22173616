"""uwsgi (uwsgi-docs.readthedocs.io/en/latest/Protocol.html): a packet of variables, the content.

::

    u8 modifier1 = 0, u16 size, u8 modifier2 = 0
    u16 length, name, u16 length, value, ...     (size bytes; numbers are little-endian)
    content                                      (CONTENT_LENGTH bytes)

Decided here: what a packet is. Modifiers other than 0 ask for something else than a request to
a Python application, and are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from omnicorn.errors import LimitExceeded, RemoteProtocolError
from omnicorn.protocols.cgi.engine import GatewayEngine, GatewayOwner
from omnicorn.protocols.cgi.environment import EnvironmentParser
from omnicorn.protocols.cgi.responses import ResponseEncoder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from omnicorn.http.limits import Limits

Owner = TypeVar("Owner", bound=GatewayOwner)


def split(block: bytes) -> Iterable[tuple[bytes, bytes]]:
    """A packet's content to variables.

    Raises:
        RemoteProtocolError: The lengths do not fit.
    """
    pairs = []
    end = len(block)
    place = 0
    while place < end:
        start = place + 2
        place = start + int.from_bytes(block[place:start], "little")
        name = block[start:place]
        start = place + 2
        place = start + int.from_bytes(block[place:start], "little")
        pairs.append((name, block[start:place]))
    if place != end:
        raise RemoteProtocolError("the lengths of the variables do not fit their packet")
    return pairs


class UwsgiEngine(GatewayEngine[Owner]):
    """See `GatewayEngine`."""

    __slots__ = ()

    @staticmethod
    def parser(limits: Limits | None = None, root_path: str = "") -> EnvironmentParser:
        """What the connections of a server share to read requests."""
        return EnvironmentParser(split, limits, root_path)

    @staticmethod
    def encoder() -> ResponseEncoder:
        """What they share to write responses."""
        return ResponseEncoder(cgi=False)

    def _read_head(self, data: bytes) -> tuple[bytes, bytes] | None:
        if data[0] or (len(data) >= 4 and data[3]):
            raise RemoteProtocolError(_explain(data))
        if len(data) < 4:
            return None
        size = data[1] | data[2] << 8
        if size > self._parser.limits.head:
            limit = self._parser.limits.head
            raise LimitExceeded("the request head is too large", 431, limit)
        end = size + 4
        if len(data) < end:
            return None
        return data[4:end], data[end:]


def _explain(data: bytes) -> str:
    if data[:1] == b"\x16":
        return "TLS was spoken to a port that speaks uwsgi"
    if data[:1].isalpha():
        return "the port speaks uwsgi, and this looks like HTTP"
    if data[:1].isdigit():
        return "the port speaks uwsgi, and this looks like SCGI"
    return "the packet's modifiers are not 0, so it is no request for an application"
