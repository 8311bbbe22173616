"""SCGI (python.ca/scgi/protocol.txt): a netstring of variables, then the content.

::

    70:CONTENT_LENGTH NUL 27 NUL SCGI NUL 1 NUL REQUEST_METHOD NUL POST NUL ... ,<27 bytes>

Decided here: what a netstring is (no sign, no leading zero, nothing longer than the limit), and
what the specification demands of its variables: CONTENT_LENGTH stands first and is a number,
SCGI is 1, none stands twice. The one exception is what the client sent as fields (``HTTP_*``),
which nginx before 1.23 repeats as the client did.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from omnicorn.errors import LimitExceeded, RemoteProtocolError
from omnicorn.http.memo import Memo
from omnicorn.protocols.cgi.engine import GatewayEngine, GatewayOwner
from omnicorn.protocols.cgi.environment import EnvironmentParser, addresses, learn_address
from omnicorn.protocols.cgi.responses import ResponseEncoder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from omnicorn.http.limits import Limits

Owner = TypeVar("Owner", bound=GatewayOwner)

_match_size = re.compile(rb"[1-9][0-9]{0,9}").fullmatch
_sizes: Memo[bytes, int] = Memo(1024, 10)


def split(block: bytes) -> Iterable[tuple[bytes, bytes]]:
    """A netstring's content to variables.

    Raises:
        RemoteProtocolError: It holds none, or breaks a rule of the specification.
    """
    parts = block.split(b"\0")
    if parts.pop() or len(parts) % 2:
        raise RemoteProtocolError("the variables are not names and values that end in a NUL")
    if parts[0] != b"CONTENT_LENGTH" or not parts[1]:
        raise RemoteProtocolError("CONTENT_LENGTH is not the first variable, or is empty")
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    if (b"SCGI", b"1") not in pairs:
        raise RemoteProtocolError("the variable SCGI is not 1")
    return pairs


def cut_client(block: bytes) -> tuple[object, tuple[str, int]] | None:
    """See `EnvironmentParser`. Here the NULs say where they are; no other search is needed."""
    before, _, rest = block.partition(b"\0REMOTE_ADDR\0")
    parts = rest.split(b"\0", 3)
    if len(parts) < 4 or parts[1] != b"REMOTE_PORT":
        return None
    address, _, digits, after = parts
    host = addresses.get(address) or learn_address(address)
    if host is None or len(digits) > 5 or not digits.isdigit():
        return None
    port = int(digits)
    return None if port > 65535 else ((before, after), (host, port))


class ScgiEngine(GatewayEngine[Owner]):
    """See `GatewayEngine`."""

    __slots__ = ()

    @staticmethod
    def parser(limits: Limits | None = None, root_path: str = "") -> EnvironmentParser:
        """What the connections of a server share to read requests."""
        return EnvironmentParser(split, limits, root_path, unique=True, cut=cut_client)

    @staticmethod
    def encoder() -> ResponseEncoder:
        """What they share to write responses."""
        return ResponseEncoder(cgi=True)

    def _read_head(self, data: bytes) -> tuple[bytes, bytes] | None:
        colon = data.find(b":", 0, 11)
        number = data if colon < 0 else data[:colon]
        size = _sizes.get(number)
        if size is None:
            if _match_size(number) is None:
                raise RemoteProtocolError(_explain(data))
            size = _sizes.remember(number, int(number), len(number))
        if colon < 0:
            return None
        if size > self._parser.limits.head:
            limit = self._parser.limits.head
            raise LimitExceeded("the request head is too large", 431, limit)
        start = colon + 1
        end = start + size
        if len(data) <= end:
            return None
        if data[end] != 44:
            raise RemoteProtocolError("the netstring of the variables does not end in a comma")
        return data[start:end], data[end + 1 :]


def _explain(data: bytes) -> str:
    if data[:1] == b"\x16":
        return "TLS was spoken to a port that speaks SCGI"
    if data[:1].isalpha():
        return "the port speaks SCGI, and this looks like HTTP"
    if data[:1] in (b"\0", b"\1"):
        return "the port speaks SCGI, and this looks like uwsgi or FastCGI"
    return "a request begins with the length of its variables and a colon"
