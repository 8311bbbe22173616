"""Status and fields of a response to bytes, checked, and each distinct head only once.

Rules of this file:

1. Nothing the application says can break the framing: names are tokens, values hold no
   CR, LF or NUL (RFC 9110 §5.5, RFC 9112 §11.1); `transfer-encoding` is the server's to
   say and is dropped; `connection` is reduced to what it asks for.
2. Which bytes delimit the content (`content-length`, chunked, close) is not decided here
   but by the engine, which knows the request and the content.
3. Equal heads are encoded once, and names are checked once (both in bounded memories);
   a head that differs in every response (an ETag, a cookie) costs a check of its values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from omnicorn.errors import LocalProtocolError
from omnicorn.http.fields import list_tokens, match_token, match_value
from omnicorn.http.memo import Memo
from omnicorn.http.status import forbids_content, status_line

_HEADERS = "a list of (name, value) pairs of bytes"

_match_length = re.compile(rb"[0-9]{1,18}").fullmatch

HAS_SERVER = 1
HAS_DATE = 2

_SPECIAL = b":"
_SPECIAL_NAMES = frozenset(
    {b"connection", b"content-length", b"date", b"keep-alive", b"server", b"transfer-encoding"}
)


class ResponseHead:
    """An encoded head; immutable, shared.

    Attributes:
        lines: Status line and field lines, without the empty line at the end.
        length: The ``content-length`` the application gave; -1 without one.
        close: The application said ``connection: close``.
        own: `HAS_SERVER` and `HAS_DATE` for fields the application gave itself.
        no_content: The status forbids content (RFC 9110 §6.4.1).
    """

    __slots__ = ("close", "length", "lines", "no_content", "own")

    def __init__(self, status: int, lines: bytes, length: int, close: bool, own: int) -> None:
        self.lines = lines
        self.length = length
        self.close = close
        self.own = own
        self.no_content = forbids_content(status)


class ResponseEncoder:
    """Encodes heads; one for all connections of a server, as it only remembers.

    Attributes:
        heads: Heads encoded before, by ``(status, *headers)``.
    """

    __slots__ = ("_names", "heads")

    def __init__(self) -> None:
        self.heads: Memo[object, ResponseHead] = Memo(512, 4096)
        self._names: Memo[bytes, bytes] = Memo(1024, 64)

    def encode(self, key: tuple[Any, ...]) -> ResponseHead:
        """Encode a final response's head.

        Args:
            key: ``(status, *headers)``: 200 to 999, then (name, value) pairs of bytes.

        Raises:
            LocalProtocolError: Naming the field that cannot be sent and why.
        """
        if type(key[0]) is not int:  # 200.0 == 200, and would find it in the memory
            return self._encode(key)
        try:
            head = self.heads.get(key)
        except TypeError:
            # Pairs given as lists cannot be hashed; what is no pair at all is explained.
            key = (key[0], *map(_check_pair, key[1:]))
            head = self.heads.get(key)
        return head or self._encode(key)

    def _encode(self, key: tuple[Any, ...]) -> ResponseHead:
        status = key[0]
        if type(status) is not int or not 200 <= status <= 999:
            raise LocalProtocolError(
                f"a final response's status must be an integer from 200 to 999, not {status!r}"
            )
        out = [status_line(status)]
        size = 0
        length = -1
        close = False
        own = 0
        names = self._names
        for pair in key[1:]:
            try:
                name, value = pair
                line_start = names.get(name) or self._learn_name(name)
                sound = match_value(value) is not None
            except (TypeError, ValueError):
                sound = False
            if not sound:
                raise _explain(pair)
            size += len(value)
            if line_start is not _SPECIAL:
                out.append(line_start + value + b"\r\n")
                continue
            lower = name.lower()
            if lower == b"content-length":
                if _match_length(value) is None:
                    raise LocalProtocolError(f"content-length is no number: {value!r:.80}")
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
        head = ResponseHead(status, lines, length, close, own)
        return self.heads.remember(key, head, size + len(lines))

    def _learn_name(self, name: bytes) -> bytes:
        """The start of a line with this name; `_SPECIAL` for those that are looked at."""
        if match_token(name) is None:
            raise ValueError(name)
        start = _SPECIAL if name.lower() in _SPECIAL_NAMES else name + b": "
        return self._names.remember(name, start, len(name))

    def encode_fields(self, headers: Iterable[Any]) -> bytes:
        """Field lines of an informational response or a trailer section, checked."""
        lines = []
        if not isinstance(headers, Iterable):
            raise _explain(headers)
        for pair in headers:
            name, value = _check_pair(pair)
            if name.lower() in (b"content-length", b"transfer-encoding", b"connection", b"host"):
                raise LocalProtocolError(f"the field {name!r} cannot be sent here")
            lines.append(b"%b: %b\r\n" % (name, value))
        return b"".join(lines)


def _check_pair(pair: Any) -> tuple[bytes, bytes]:
    try:
        name, value = pair
        if match_token(name) and match_value(value) and isinstance(value, bytes):
            return name, value
    except (TypeError, ValueError):
        pass
    raise _explain(pair)


def _explain(pair: Any) -> LocalProtocolError:
    """What is wrong with a pair that cannot be sent."""
    try:
        name, value = pair
    except (TypeError, ValueError):
        return LocalProtocolError(f"headers must be {_HEADERS}; got {pair!r:.80}")
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        return LocalProtocolError(f"a header's name and value must be bytes; got {pair!r:.80}")
    if match_token(name) is None:
        return LocalProtocolError(f"a header's name must be a token; got {name!r:.80}")
    return LocalProtocolError(
        f"the value of header {name!r:.60} holds a control byte (CR, LF, NUL, ...)"
    )
