"""Status and fields of a response to bytes, checked, and each distinct head only once.

Rules of this file:

1. Nothing the application says can break the framing: names are tokens, values hold no
   CR, LF or NUL (RFC 9110 §5.5, RFC 9112 §11.1); `transfer-encoding` is the server's to
   say and is dropped; `connection` is reduced to what it asks for.
2. Which bytes delimit the content (`content-length`, chunked, close) is not decided here
   but by the engine, which knows the request and the content.
3. Equal heads are encoded once (bounded memory); the parts that differ in every response
   (an ETag, a cookie) cost one look-up for each field and one check for each new value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from omnicorn.errors import LocalProtocolError
from omnicorn.http.fields import list_tokens, match_token
from omnicorn.http.memo import Memo
from omnicorn.http.status import status_line

_HEADERS = "a list of (name, value) pairs of bytes"

# What an application may put into a value: RFC 9110 §5.5 without CTLs but HTAB.
_match_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch
_match_length = re.compile(rb"[0-9]{1,18}").fullmatch

HAS_SERVER = 1
HAS_DATE = 2

_SPECIAL = frozenset(
    {b"connection", b"content-length", b"date", b"keep-alive", b"server", b"transfer-encoding"}
)


class ResponseHead:
    """An encoded head; immutable, shared.

    Attributes:
        lines: Status line and field lines, without the empty line at the end.
        length: The ``content-length`` the application gave; -1 without one.
        close: The application said ``connection: close``.
        own: `HAS_SERVER` and `HAS_DATE` for fields the application gave itself.
    """

    __slots__ = ("close", "length", "lines", "own")

    def __init__(self, lines: bytes, length: int, close: bool, own: int) -> None:
        self.lines = lines
        self.length = length
        self.close = close
        self.own = own


class ResponseEncoder:
    """Encodes heads; one for all connections of a server, as it only remembers."""

    __slots__ = ("_heads", "_lines")

    def __init__(self) -> None:
        self._heads: Memo[object, ResponseHead] = Memo(512, 4096)
        self._lines: Memo[tuple[bytes, bytes], bytes] = Memo(4096, 512)

    def encode(self, status: int, headers: Iterable[Any]) -> ResponseHead:
        """Encode a final response's head.

        Args:
            status: 200 to 999.
            headers: An iterable of (name, value) pairs of bytes.

        Raises:
            LocalProtocolError: Naming the field that cannot be sent and why.
        """
        try:
            key: tuple[Any, ...] = (status, *headers)
            head = self._heads.get(key)
        except TypeError:
            if not isinstance(headers, Iterable):
                raise LocalProtocolError(f"headers must be {_HEADERS}; got {headers!r:.80}") from None
            # Pairs given as lists cannot be hashed; what is no pair at all is explained.
            key = (status, *(_check_pair(pair) for pair in key[1:]))
            head = self._heads.get(key)
        if head is not None:
            return head
        return self._encode(key)

    def _encode(self, key: tuple[Any, ...]) -> ResponseHead:
        status = key[0]
        if type(status) is not int or not 200 <= status <= 999:
            raise LocalProtocolError(
                f"a final response's status must be an integer from 200 to 999, not {status!r}"
            )
        out = [status_line(status)]
        length = -1
        close = False
        own = 0
        known = self._lines
        for pair in key[1:]:
            line = known.get(pair)
            if line is not None:
                out.append(line)
                continue
            name, value = _check_pair(pair)
            lower = name.lower()
            if lower not in _SPECIAL:
                line = b"%b: %b\r\n" % (name, value)
                out.append(known.remember((name, value), line, len(line)))
            elif lower == b"content-length":
                if _match_length(value) is None:
                    raise LocalProtocolError(f"content-length is no number: {value!r}")
                if length >= 0 and int(value) != length:
                    raise LocalProtocolError("there are several content-length values")
                if length < 0 and status != 204:  # RFC 9110 §8.6: never in a 204
                    out.append(b"content-length: %b\r\n" % value)
                length = int(value)
            elif lower == b"connection":
                tokens = list_tokens(value)
                close = close or b"close" in tokens
                # The server says close and keep-alive itself, and only where they are true.
                kept = [token for token in tokens if token not in (b"close", b"keep-alive")]
                if kept:
                    out.append(b"connection: %b\r\n" % b", ".join(kept))
            elif lower == b"server" or lower == b"date":
                own |= HAS_SERVER if lower == b"server" else HAS_DATE
                out.append(b"%b: %b\r\n" % (name, value))
            # transfer-encoding (ASGI: must be ignored) and keep-alive are dropped.
        lines = b"".join(out)
        head = ResponseHead(lines, length, close, own)
        return self._heads.remember(key, head, len(lines))

    def encode_fields(self, headers: Iterable[Any]) -> bytes:
        """Field lines of an informational response or a trailer section, checked."""
        lines = []
        for pair in headers:
            name, value = _check_pair(pair)
            if name.lower() in (b"content-length", b"transfer-encoding", b"connection", b"host"):
                raise LocalProtocolError(f"the field {name!r} cannot be sent here")
            lines.append(b"%b: %b\r\n" % (name, value))
        return b"".join(lines)


def _check_pair(pair: Any) -> tuple[bytes, bytes]:
    try:
        name, value = pair
    except (TypeError, ValueError):
        raise LocalProtocolError(f"headers must be {_HEADERS}; got {pair!r:.80}") from None
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        raise LocalProtocolError(f"a header's name and value must be bytes; got {pair!r:.80}")
    if match_token(name) is None:
        raise LocalProtocolError(f"a header's name must be a token; got {name!r:.80}")
    if _match_value(value) is None:
        raise LocalProtocolError(
            f"the value of header {name!r:.60} holds a control byte (CR, LF, NUL, ...)"
        )
    return name, value
