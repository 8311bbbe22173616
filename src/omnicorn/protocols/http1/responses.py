"""Status and fields of a response to bytes, checked, and each distinct head only once.

Rules of this file:

1. Nothing the application says can break the framing: names are tokens, values hold no
   CR, LF or NUL (RFC 9110 §5.5, RFC 9112 §11.1); `transfer-encoding` is the server's to
   say and is dropped; `connection` is reduced to what it asks for.
2. Which bytes delimit the content (`content-length`, chunked, close) is not decided here
   but by the engine, which knows the request and the content.
3. Equal heads are encoded once they are remembered, and names are checked once (both in
   bounded memories); a head that differs in every response (an ETag, a cookie) costs one
   check of its values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from omnicorn.errors import LocalProtocolError
from omnicorn.http.defaults import HAS_DATE, HAS_SERVER
from omnicorn.http.fields import (
    check_pair,
    explain_pair,
    list_tokens,
    match_length,
    match_token,
    match_value,
)
from omnicorn.http.memo import Memo
from omnicorn.http.status import forbids_content, status_line

_CONTENT_LENGTH = b"content-length: "
_SPECIAL = b":"
_SPECIAL_NAMES = frozenset({b"connection", b"date", b"keep-alive", b"server", b"transfer-encoding"})


class ResponseHead:
    """An encoded head; never changed once it is made, and shared.

    Attributes:
        lines: Status line and field lines, without the empty line at the end.
        length: The ``content-length`` the application gave; -1 without one.
        close: The application said ``connection: close``.
        own: `HAS_SERVER` and `HAS_DATE` for fields the application gave itself.
        no_content: The status forbids content (RFC 9110 §6.4.1).
    """

    __slots__ = ("close", "length", "lines", "no_content", "own")

    lines: bytes
    length: int
    close: bool
    own: int
    no_content: bool


class ResponseEncoder:
    """Encodes heads; one for all connections of a server, as it only remembers.

    Attributes:
        heads: Heads encoded before, by ``(status, *headers)``. Every eighth unknown one gets
            in: what is common is there soon, what is unique seldom displaces it.
    """

    __slots__ = ("_lengths", "_names", "_turn", "heads")

    def __init__(self) -> None:
        self.heads: Memo[object, ResponseHead] = Memo(512, 4096)
        self._names: Memo[bytes, bytes] = Memo(1024, 64)
        self._lengths: Memo[bytes, int] = Memo(1024, 18)
        self._turn = 0

    def encode(self, key: tuple[Any, ...]) -> ResponseHead:
        """Encode a final response's head.

        Args:
            key: ``(status, *headers)``: 200 to 999, then (name, value) pairs of bytes.

        Raises:
            LocalProtocolError: Naming the field that cannot be sent and why.
        """
        try:
            head = self.heads.get(key) if type(key[0]) is int else None  # 200.0 == 200
        except TypeError:
            # Pairs given as lists cannot be hashed; what is no pair at all is explained.
            key = (key[0], *map(check_pair, key[1:]))
            head = self.heads.get(key)
        return head or self.encode_unknown(key)

    def encode_unknown(self, key: tuple[Any, ...]) -> ResponseHead:
        """`encode` for a key that can be hashed and is not in `heads`."""
        status = key[0]
        if type(status) is not int or not 200 <= status <= 999:
            raise LocalProtocolError(
                f"a final response's status must be an integer from 200 to 999, not {status!r}"
            )
        head = self._encode(status, key[1:])
        self._turn -= 1
        if self._turn < 0:
            self._turn = 7
            size = len(head.lines) + sum(len(value) for _, value in key[1:])
            self.heads.remember(key, head, size)
        return head

    def _encode(self, status: int, headers: tuple[Any, ...]) -> ResponseHead:
        out = [status_line(status)]
        values = []
        length = -1
        close = False
        own = 0
        names = self._names
        try:
            for name, value in headers:
                start = names.get(name)
                if start is None:
                    start = self._learn_name(name)
                if start is _CONTENT_LENGTH:
                    number = self._lengths.get(value)
                    if number is None:
                        number = self._learn_length(value)
                    if length < 0 and status != 204:  # RFC 9110 §8.6: never in a 204
                        out += (start, value, b"\r\n")
                    elif length >= 0 and number != length:
                        raise LocalProtocolError("there are several content-length values")
                    length = number
                elif start is not _SPECIAL:
                    values.append(value)
                    out += (start, value, b"\r\n")
                else:
                    values.append(value)
                    lower = name.lower()
                    if lower == b"connection":
                        tokens = list_tokens(value)
                        close = close or b"close" in tokens
                        # The server says close and keep-alive itself, where they are true.
                        kept = [word for word in tokens if word not in (b"close", b"keep-alive")]
                        if kept:
                            out += (b"connection: ", b", ".join(kept), b"\r\n")
                    elif lower == b"server" or lower == b"date":
                        own |= HAS_SERVER if lower == b"server" else HAS_DATE
                        out += (name, b": ", value, b"\r\n")
                    # transfer-encoding (ASGI: must be ignored) and keep-alive are dropped.
            # All values in one go: legal bytes stay legal side by side.
            sound = match_value(b"".join(values)) is not None
        except (TypeError, ValueError, AttributeError):
            sound = False
        if not sound:
            for pair in headers:
                check_pair(pair)
        head = ResponseHead()
        head.lines = b"".join(out)
        head.length = length
        head.close = close
        head.own = own
        head.no_content = forbids_content(status)
        return head

    def _learn_name(self, name: bytes) -> bytes:
        """The start of a line with this name; `_SPECIAL` for those that are looked at."""
        if match_token(name) is None:
            raise ValueError(name)
        lower = name.lower()
        if lower == b"content-length":
            start = _CONTENT_LENGTH
        else:
            start = _SPECIAL if lower in _SPECIAL_NAMES else name + b": "
        return self._names.remember(name, start, len(name))

    def _learn_length(self, value: bytes) -> int:
        if isinstance(value, bytes):
            if match_length(value) is None:
                raise LocalProtocolError(f"content-length is no number: {value!r:.80}")
            return self._lengths.remember(value, int(value), len(value))
        raise TypeError(value)

    def encode_fields(self, headers: Iterable[Any]) -> bytes:
        """Field lines of an informational response or a trailer section, checked."""
        lines = []
        if not isinstance(headers, Iterable):
            raise explain_pair(headers)
        for pair in headers:
            name, value = check_pair(pair)
            if name.lower() in (b"content-length", b"transfer-encoding", b"connection", b"host"):
                raise LocalProtocolError(f"the field {name!r} cannot be sent here")
            lines.append(b"%b: %b\r\n" % (name, value))
        return b"".join(lines)

    @staticmethod
    def own_fields(headers: Iterable[tuple[bytes, bytes]]) -> int:
        """Which of ``server`` and ``date`` the application gave itself: see `ResponseHead`."""
        own = 0
        for name, _ in headers:
            lower = name.lower()
            own |= HAS_SERVER if lower == b"server" else HAS_DATE if lower == b"date" else 0
        return own
