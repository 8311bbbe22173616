"""Bytes of a request head to a `Head`, strictly, and each distinct piece only once.

Rules of this file:

1. A head is judged as a whole, from its complete bytes: what is decided never depends on
   how the network cut it.
2. Three bounded memories, from large to small, because identical bytes mean identical
   results: whole heads (a client that repeats itself costs one look-up), request lines,
   and field lines (a browser repeats ten of its twelve). Whole heads are remembered only
   if they are short, and from the second time on: long ones hold cookies and trace
   numbers, never come twice, and would cost a hash each and displace the others.
3. Such a one is mostly the connection's head before with other values in a few lines. Where
   none of those decides how the request is read, the rest is taken over and not judged again:
   which lines differ is learned once (`_Shape`), and then no line is even looked for.
4. Everything a server may reject and request smuggling needs is rejected
   (RFC 9112 §2.2, §3, §5, §6, §11.2); nothing is repaired.
"""

from __future__ import annotations

import re
from itertools import compress
from operator import ne
from struct import Struct

from omnicorn.errors import LimitExceeded, RemoteProtocolError
from omnicorn.http.fields import (
    TCHAR,
    VALUE_FLAWS,
    is_host,
    list_tokens,
    match_token,
    match_value,
)
from omnicorn.http.limits import Limits
from omnicorn.http.memo import Memo
from omnicorn.http.target import decode_path, match_target, parse_target
from omnicorn.ports import RequestHead

# RFC 9112 §3: exactly one space between the parts. A later minor version of HTTP/1 is
# read as 1.1 (RFC 9110 §2.5).
_match_request_line = re.compile(rb"([%b]+) ([^ ]+) HTTP/1\.([0-9])" % TCHAR).fullmatch
_match_length = re.compile(rb"[0-9]{1,18}").fullmatch

# How the request's content is delimited (RFC 9112 §6.3).
NO_BODY = 0
LENGTH = 1
CHUNKED = 2

SHORT = 512
"""Bytes up to which a whole head is remembered."""

_SIMILAR = 2048  # bytes up to which a head is kept for the next one of its connection

_VOLATILE = 8  # lines in which like heads may differ

_ROOM = 256  # lines of one name that may be remembered ...
_PATIENCE = 65536  # ... and unknown ones after which as many may be again

_DECISIVE = frozenset(
    (b"connection", b"content-length", b"expect", b"host", b"te", b"transfer-encoding", b"upgrade")
)
"""Names of fields whose values decide on more than `headers` and `fields`, or have a form."""

# What a `connection` field says.
_KNOWN, _CLOSE, _KEEP_ALIVE, _UPGRADE = 1, 2, 4, 8

_Pair = tuple[bytes, bytes]
_Place = tuple[int, int, bytes]
_Line = tuple[str, str, bytes, bytes, bytes | None, bool]


class Head(RequestHead):
    """A `RequestHead` with what only HTTP/1 needs to know.

    Attributes:
        framing: `NO_BODY`, `LENGTH` or `CHUNKED`.
        length: The ``content-length``; 0 without one.
        keep_alive: Whether the client lets the connection persist (RFC 9112 §9.3).
        expects_continue: ``Expect: 100-continue`` with a body still to come.
        http10: The request's version is 1.0.
        head_only: The method is HEAD: the response has no content.
        lines: Its lines, where the connection's next head may be compared with it; else None.
        shape: What it has in common with the one before, in the place of its lines; else None.
    """

    __slots__ = (
        "_fields",
        "expects_continue",
        "framing",
        "head_only",
        "http10",
        "keep_alive",
        "length",
        "lines",
        "shape",
    )

    framing: int
    length: int
    keep_alive: bool
    expects_continue: bool
    http10: bool
    head_only: bool
    lines: list[bytes] | None
    shape: _Shape | None
    _fields: dict[bytes, bytes] | None

    @property
    def fields(self) -> dict[bytes, bytes]:  # type: ignore[override]  # made when it is asked for
        """See `RequestHead`."""
        fields = self._fields
        if fields is None:
            fields = self._fields = dict(self.headers)
        return fields


class _Name:
    """A field name seen before, and how many of its lines may still be remembered.

    A name with more distinct values than that (cookies, trace numbers) is not worth the
    memory: its lines are checked each time, and displace nothing. After many of them it
    gets another chance, so that nobody can spoil a name for good.
    """

    __slots__ = ("lower", "room")

    def __init__(self, lower: bytes) -> None:
        self.lower = lower
        self.room = _ROOM


class _Shape:
    """What heads of one connection have in common: their bytes around the values that differ.

    Attributes:
        fixed: Those bytes; between two of them stands a value. A legal value holds no CR, so
            what fits has exactly the lines that were judged, and legal values anew.
        line: The first value is the request line.
        values: Of each other: its place among the pieces and among the headers, and its name.
        layout: Takes a head whose values are as long as those of the last to pieces, much faster
            than a search. None at first: many a shape is not seen again.
    """

    __slots__ = ("fixed", "layout", "line", "values")

    def __init__(
        self,
        fixed: tuple[bytes, ...],
        line: bool,
        values: tuple[_Place, ...],
        layout: Struct | None = None,
    ) -> None:
        self.fixed = fixed
        self.line = line
        self.values = values
        self.layout = layout

    def lines(self) -> list[bytes]:
        """The lines, those that differ unlike every line there can be."""
        lines = b"".join(self.fixed).split(b"\r\n")
        del lines[-2:]
        if self.line:
            lines[0] = b"\r\n"
        for _, index, _ in self.values:
            lines[index + 1] += b"\r\n"
        return lines


class RequestParser:
    """Parses heads within limits; one for all connections of a server, as it only remembers.

    Attributes:
        heads: Whole heads by their bytes (the final empty line included).
        limits: What is allowed.
    """

    __slots__ = (
        "_connections",
        "_field_lines",
        "_names",
        "_request_lines",
        "_seen",
        "heads",
        "limits",
    )

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits = limits or Limits()
        if limits.line > limits.head - 2:  # a longer line could not be the reason of a refusal
            self.limits = limits._replace(line=limits.head - 2)
        self.heads: Memo[bytes, Head] = Memo(1024, SHORT)
        self._request_lines: Memo[bytes, _Line] = Memo(2048, 512)
        self._field_lines: Memo[bytes, _Pair] = Memo(4096, 256)
        self._names: Memo[bytes, _Name] = Memo(1024, 64)
        self._connections: Memo[bytes, int] = Memo(64, 128)
        self._seen: set[int] = set()

    def parse(self, block: bytes, before: Head | None = None) -> Head | None:
        """Parse a complete head.

        Args:
            block: From the first byte of the request line to the end of an empty line.
            before: The connection's head before; None if this is its first.

        Returns:
            None if that is not the first empty line: more than a head stands there.

        Raises:
            LimitExceeded: 414 or 431.
            RemoteProtocolError: 400, or what else answers the request.
        """
        head = None
        try:
            shape = None if before is None else before.shape
            if before is not None and shape is not None:
                head = self._like(block, before, shape)
            if head is None:
                lines = block.split(b"\r\n")
                del lines[-2:]
                if before is not None and len(lines) == len(before.headers) + 1:
                    old = before.lines if shape is None else shape.lines()
                    learned = _learn(lines, old, before) if old else None
                    if learned is not None:
                        head = self._like(block, before, *learned)
                if head is None:
                    head = self._parse_lines(lines)
        except RemoteProtocolError:
            if b"" in block.split(b"\r\n")[:-2]:
                return None
            # The same question, and in the same order, as while the head is incomplete.
            self._check_bare_lf(block, 0)
            raise
        size = len(block)
        if size > _SIMILAR:
            head.lines = head.shape = None
        elif size <= SHORT:
            mark = hash(block)
            if mark in self._seen:
                self._seen.discard(mark)
                head.lines = head.shape = None
                self.heads.remember(block, head, size)
            else:
                if len(self._seen) >= 4096:
                    self._seen.clear()
                self._seen.add(mark)
        return head

    def check_incomplete(self, data: bytes, scanned: int) -> None:
        """Refuse, before it is complete, a head that can only end in a refusal.

        Called with all bytes of a head that has no empty line yet; *scanned* of them were
        checked before. Where a complete head is too large, `check_size` asks the same
        questions in the same order, so that the answer does not depend on the segments.

        Raises:
            LimitExceeded: 414 or 431.
            RemoteProtocolError: 400 for a line that ends in a bare LF.
        """
        limits = self.limits
        line_end = data.find(b"\r\n")
        if line_end > limits.line or (line_end < 0 and len(data) > limits.line + 1):
            self._check_bare_lf(data[: limits.line + 2], scanned)
            raise LimitExceeded("the request line is too long", 414, limits.line)
        self._check_bare_lf(data[: limits.head], scanned)
        if len(data) >= limits.head:
            raise LimitExceeded("the request head is too large", 431, limits.head)

    def check_size(self, data: bytes, end: int) -> None:
        """Refuse a complete head of *end* bytes (its empty line included) past the limits."""
        limits = self.limits
        line_end = data.find(b"\r\n")
        if line_end > limits.line:
            self._check_bare_lf(data[: limits.line + 2], 0)
            raise LimitExceeded("the request line is too long", 414, limits.line)
        if end > limits.head:
            self._check_bare_lf(data[: limits.head], 0)
            raise LimitExceeded("the request head is too large", 431, limits.head)

    @staticmethod
    def _check_bare_lf(data: bytes, start: int) -> None:
        # A peer that ends its lines in LF alone would otherwise wait for its answer until
        # the deadline: no CRLF CRLF ever comes.
        position = data.find(b"\n", start)
        while position >= 0:
            if position == 0 or data[position - 1] != 13:
                raise RemoteProtocolError("a line ends in a bare LF")
            position = data.find(b"\n", position + 1)

    def _parse_lines(self, lines: list[bytes]) -> Head:
        first = lines[0]
        line = self._request_lines.get(first) or self._parse_request_line(first)
        if len(lines) > self.limits.fields + 1:
            raise LimitExceeded("the request has too many fields", 431, self.limits.fields)
        get = self._field_lines.get
        parse = self._parse_field_line
        headers = [get(line) or parse(line) for line in lines[1:]]
        method, path, raw_path, query, authority, http10 = line
        fields = dict(headers)
        single = len(fields) == len(headers)

        # RFC 9112 §3.2: exactly one host field; that it is legal its line has shown.
        if b"host" not in fields:
            if not http10:
                raise RemoteProtocolError("the host field is missing")
        elif not single and _count(headers, b"host") > 1:
            raise RemoteProtocolError("there are several host fields")
        if authority is not None and authority != fields.get(b"host"):
            # RFC 9112 §3.2.2: the target's authority replaces the host field.
            headers = [(b"host", authority), *(pair for pair in headers if pair[0] != b"host")]
            fields[b"host"] = authority

        head = Head()
        head.method = method
        head.version = "1.0" if http10 else "1.1"
        head.path = path
        head.raw_path = raw_path
        head.query = query
        head.headers = tuple(headers)
        head._fields = fields
        head.http10 = http10
        head.head_only = method == "HEAD"
        head.upgrade = None
        head.framing = NO_BODY
        head.length = 0
        head.has_body = False
        head.expects_continue = False
        if b"content-length" in fields or b"transfer-encoding" in fields:
            self._frame(head, single)
        if b"expect" in fields:
            self._expect(head)
        head.lines = lines if single and authority is None else None
        head.shape = None
        head.template = None
        head.environ = None
        head.trailers = (
            b"te" in fields and not http10 and b"trailers" in _all_tokens(headers, b"te")
        )
        head.forwarded = (
            b"x-forwarded-for" in fields or b"x-forwarded-proto" in fields or b"forwarded" in fields
        )
        connection = fields.get(b"connection")
        if connection is None:
            head.keep_alive = not http10
        else:
            known = self._connections.get(connection) if single else None
            options = known or self._connection_options(headers, connection, single)
            head.keep_alive = not options & _CLOSE and (not http10 or bool(options & _KEEP_ALIVE))
            # RFC 9110 §7.8: an upgrade is offered in `connection` too, and never by 1.0.
            if options & _UPGRADE and not http10 and b"upgrade" in fields:
                head.upgrade = b", ".join(_all_tokens(headers, b"upgrade")) or None
        return head

    def _like(
        self, block: bytes, before: Head, shape: _Shape, pieces: tuple[bytes, ...] | None = None
    ) -> Head | None:
        """The head of *block*, from the one before; None if *shape* is not its shape.

        Nor is it where a value may be illegal: parsed in full, it is refused by what it holds.
        *pieces* are those of the block, where they are known.
        """
        if pieces is None:
            layout = shape.layout
            if layout is not None and layout.size == len(block):
                pieces = layout.unpack(block)
            if pieces is None or pieces[::2] != shape.fixed:
                layout = _fit(shape.fixed, block)
                if layout is None:
                    return None
                shape = _Shape(shape.fixed, shape.line, shape.values, layout)
                pieces = layout.unpack(block)
        if shape.line:
            line = pieces[1]
            parsed = self._request_lines.get(line)
            if parsed is None:
                if b"\r" in line:  # cut in the wrong place, or to be refused in full
                    return None
                parsed = self._parse_request_line(line)
            method, path, raw_path, query, authority, http10 = parsed
            if authority is not None or http10 is not before.http10:
                return None
            template = None
        else:
            method, path = before.method, before.path
            raw_path, query = before.raw_path, before.query
            template = before.template
        headers = [*before.headers]
        for at, index, name in shape.values:
            value = pieces[at]
            if not value.translate(VALUE_FLAWS).isascii():
                return None
            headers[index] = (name, value.strip())
        head = Head()
        head.method = method
        head.version = before.version
        head.path = path
        head.raw_path = raw_path
        head.query = query
        head.headers = tuple(headers)
        head._fields = None
        head.http10 = before.http10
        head.head_only = method == "HEAD"
        head.upgrade = before.upgrade
        head.framing = before.framing
        head.length = before.length
        head.has_body = before.has_body
        head.expects_continue = before.expects_continue
        head.lines = None
        head.shape = shape
        head.template = template
        head.environ = None
        head.trailers = before.trailers
        head.forwarded = before.forwarded
        head.keep_alive = before.keep_alive
        return head

    def _connection_options(self, headers: list[_Pair], value: bytes, single: bool) -> int:
        """What `connection` says (RFC 9110 §7.6.1), as bits; never 0, so that it memoises."""
        tokens = _all_tokens(headers, b"connection")
        options = (
            _KNOWN
            | (_CLOSE if b"close" in tokens else 0)
            | (_KEEP_ALIVE if b"keep-alive" in tokens else 0)
            | (_UPGRADE if b"upgrade" in tokens else 0)
        )
        return self._connections.remember(value, options, len(value)) if single else options

    def _parse_request_line(self, line: bytes) -> _Line:
        match = _match_request_line(line)
        if match is None:
            raise RemoteProtocolError(_explain_request_line(line))
        method, target, minor = match.groups()
        if method != method.upper():
            # RFC 9110 §9.1: methods have case. ASGI has upper case alone, and `connect` must
            # not reach an application as what it is not.
            raise RemoteProtocolError("the request line's method is not in upper case")
        if match_target(target) is None:
            raise RemoteProtocolError("the request target holds a byte that is not allowed")
        raw_path, query, authority = parse_target(method, target)
        parsed = (
            method.decode("ascii"),
            decode_path(raw_path),
            raw_path,
            query,
            authority,
            minor == b"0",
        )
        return self._request_lines.remember(line, parsed, len(line))

    def _parse_field_line(self, line: bytes) -> _Pair:
        name, colon, value = line.partition(b":")
        known = self._names.get(name) or self._learn_name(name)
        if known is None or not colon or match_value(value) is None:
            raise RemoteProtocolError(_explain_field_line(line))
        pair = (known.lower, value.strip(b" \t"))
        if known.lower == b"host" and not is_host(pair[1]):
            raise RemoteProtocolError("the host field is malformed")
        known.room -= 1
        if known.room >= 0:
            self._field_lines.remember(line, pair, len(line))
        elif known.room < -_PATIENCE:
            known.room = _ROOM
        return pair

    def _learn_name(self, name: bytes) -> _Name | None:
        if match_token(name) is None:
            return None
        return self._names.remember(name, _Name(name.lower()), len(name))

    def _frame(self, head: Head, single: bool) -> None:
        """How the content is delimited; anything two parsers could read in two ways is 400."""
        fields = head.fields
        coding = fields.get(b"transfer-encoding")
        length = fields.get(b"content-length")
        if coding is not None:
            if length is not None:  # RFC 9112 §6.3 rule 3, §11.2
                raise RemoteProtocolError("both content-length and transfer-encoding are given")
            if head.http10:  # RFC 9112 §6.1
                raise RemoteProtocolError("HTTP/1.0 has no transfer-encoding")
            if coding.lower() != b"chunked" or (
                not single and _count(head.headers, b"transfer-encoding") > 1
            ):
                raise RemoteProtocolError("the only transfer-encoding understood is chunked")
            head.framing = CHUNKED
            head.has_body = True
        elif length is not None:
            if not single and _count(head.headers, b"content-length") > 1:
                raise RemoteProtocolError("there are several content-length fields")
            if _match_length(length) is None:
                raise RemoteProtocolError("the content-length is malformed")
            head.length = int(length)
            if self.limits.body is not None and head.length > self.limits.body:
                raise LimitExceeded("the request body is too large", 413, self.limits.body)
            if head.length:
                head.framing = LENGTH
                head.has_body = True

    @staticmethod
    def _expect(head: Head) -> None:
        if not head.http10:  # RFC 9110 §10.1.1
            if head.fields[b"expect"].lower() != b"100-continue":
                raise RemoteProtocolError("the only expectation understood is 100-continue", 417)
            head.expects_continue = head.has_body


def _learn(
    lines: list[bytes], old: list[bytes], before: Head
) -> tuple[_Shape, tuple[bytes, ...]] | None:
    """What *lines* and as many *old* ones have in common, and the pieces; None if too little."""
    changed = [*compress(range(len(lines)), map(ne, lines, old))]
    if len(changed) > _VOLATILE:
        return None
    stubs = lines.copy()
    places: list[_Place] = []
    pieces: list[bytes] = []
    for index in changed:
        line = lines[index]
        size = 0
        if index:
            name = before.headers[index - 1][0]
            size = len(name) + 1  # with the colon
            if name in _DECISIVE or line[:size] != old[index][:size]:
                return None
            if line[size : size + 1] == b" ":
                size += 1
            places.append((len(pieces) + 1, index - 1, name))
        stubs[index] = line[:size] + b"\0"  # which no judged line holds
        pieces += (b"", line[size:])
    fixed = b"\r\n".join([*stubs, b"", b""]).split(b"\0")
    return _Shape(tuple(fixed), changed[:1] == [0], tuple(places)), tuple(pieces)


def _fit(fixed: tuple[bytes, ...], block: bytes) -> Struct | None:
    """How *block* is laid out around what is *fixed*; None if it holds something else."""
    sizes: list[int] = []
    end = 0
    for piece in fixed:
        if not block.startswith(piece, end):
            return None
        start = end + len(piece)
        end = block.find(b"\r", start)
        sizes += (len(piece), end - start)
    if start != len(block):
        return None
    del sizes[-1]  # nothing follows the last
    return Struct("%ds" * len(sizes) % tuple(sizes))


def _count(headers: list[_Pair] | tuple[_Pair, ...], name: bytes) -> int:
    return sum(1 for pair in headers if pair[0] == name)


def _all_tokens(headers: list[_Pair], name: bytes) -> list[bytes]:
    """The tokens of every field called *name*, in order (RFC 9110 §5.3)."""
    return [token for key, value in headers if key == name for token in list_tokens(value)]


def _explain_request_line(line: bytes) -> str:
    if line.startswith(b"\x16\x03"):
        return "this is a TLS handshake, and the port speaks plain HTTP"
    if line.endswith(b"HTTP/2.0"):
        return "the request line names HTTP/2.0, which does not start this way"
    if b"HTTP/" not in line:
        return "the request line names no HTTP version"
    return "the request line is malformed"


def _explain_field_line(line: bytes) -> str:
    if line[:1] in (b" ", b"\t"):
        return "a field line is folded (obs-fold)"
    name, colon, value = line.partition(b":")
    if not colon:
        return "a field line has no colon"
    if name != name.rstrip(b" \t"):
        return "there is white space before a field's colon"
    if b"\r" in line or b"\n" in line:
        return "a bare CR or LF stands in a field line"
    if b"\0" in value:
        return "a field value holds a NUL"
    return "a field line holds a byte that is not allowed"
