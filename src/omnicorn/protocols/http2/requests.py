"""A decoded field list to a `Head`, strictly, and what repeats only once.

Rules of this file:

1. A malformed request (RFC 9113 §8.1.1) ends its stream: `Http2StreamError`. A request that
   is well-formed, but not one this server takes, is answered: `RemoteProtocolError` with
   its status, in the words of HTTP/1.1. Nothing is repaired.
2. What comes out obeys HTTP/1.1's rules as well: names are tokens, values hold no control
   byte, the one `host` is the authority. No gateway behind us can be smuggled through
   (RFC 9113 §10.3).
3. Clients seldom change the names and their order, so all that follows from these alone is a
   `_Shape`, found by one look-up in a bounded memory. What the pseudo-header fields say is a
   `_Line`, found by another. The legality of the other values is one question (`are_values`),
   and asked of those alone that did not stand in HPACK's table, where they were asked before.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from omnicorn.errors import Http2StreamError, LimitExceeded, RemoteProtocolError
from omnicorn.http.fields import (
    CONNECTION_FIELDS,
    are_values,
    is_host,
    match_length,
    match_token,
    match_value,
)
from omnicorn.http.limits import Limits
from omnicorn.http.memo import Memo
from omnicorn.http.target import decode_path, match_target
from omnicorn.ports import RequestHead
from omnicorn.protocols.http2.codes import PROTOCOL_ERROR
from omnicorn.protocols.http2.priority import parse_priority

if TYPE_CHECKING:
    from collections.abc import Sequence

    _Pair = tuple[bytes, bytes]
    _Path = tuple[str, bytes, bytes]

_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})

# Which pseudo-header fields there are.
_PLAIN = 0  # those of any request (RFC 9113 §8.3.1)
_EXTENDED = 1  # and `:protocol` (RFC 8441 §4)
_TUNNEL = 2  # `:method` and `:authority` alone (RFC 9113 §8.5)

# Which fields have a meaning here.
_LENGTH, _EXPECT, _TE, _PRIORITY = range(4)
_SPECIAL = (
    (b"content-length", _LENGTH), (b"expect", _EXPECT), (b"te", _TE), (b"priority", _PRIORITY),
)  # fmt: skip

# RFC 3986 §3.1.
_match_scheme = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*").fullmatch
_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}


class Head(RequestHead):
    """A `RequestHead` with what only HTTP/2 needs to know.

    Attributes:
        length: The ``content-length``; -1 without one.
        head_only: The method is HEAD: the response has no content.
        expects_continue: ``Expect: 100-continue`` with a body still to come.
        protocol: What an extended CONNECT asks for (RFC 8441), lower-case; else None.
        priority: Urgency and incremental (RFC 9218 §4); None without a `priority` field.
    """

    # Defaults of the class: most requests need no attributes of their own for these.
    version = "2"
    upgrade: bytes | None = None
    trailers = False
    expects_continue = False
    head_only = False
    length = -1
    priority: tuple[int, bool] | None = None

    @property
    def protocol(self) -> bytes | None:
        """See above."""
        return self.upgrade

    @property
    def fields(self) -> dict[bytes, bytes]:  # type: ignore[override]  # made when it is asked for
        """See `RequestHead`."""
        return dict(self.headers)


class _Line(NamedTuple):
    """What the pseudo-header fields say; they are sound if there is one.

    Attributes:
        method: As in `RequestHead`, and so are the next three.
        host: What becomes the ``host`` field; None without an authority.
        protocol: Of an extended CONNECT.
    """

    method: str
    path: str
    raw_path: bytes
    query: bytes
    host: _Pair | None
    protocol: bytes | None


class _Shape:
    """What a sequence of names says by itself; it is sound if there is one.

    Attributes:
        form: `_PLAIN`, `_EXTENDED` or `_TUNNEL`.
        pseudo: How many pseudo-header fields there are; they come first.
        special: Some fields that mean something here are there: where they stand, by
            `_LENGTH`, `_EXPECT`, `_TE` and `_PRIORITY`.
        host: There is a ``host`` field.
        cookies: Where the ``cookie`` fields stand, if there are several.
        forwarded: As in `RequestHead`.
    """

    __slots__ = ("cookies", "form", "forwarded", "host", "pseudo", "special")

    form: int
    pseudo: int
    special: dict[int, tuple[int, ...]]
    host: bool
    cookies: tuple[int, ...]
    forwarded: bool


class RequestParser:
    """Parses field lists within limits; one for all connections, as it only remembers.

    Attributes:
        limits: What is allowed. How large a list may be is the HPACK decoder's to say.
    """

    __slots__ = (
        "_lines",
        "_methods",
        "_names",
        "_paths",
        "_priorities",
        "_schemes",
        "_shapes",
        "limits",
    )

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._shapes: Memo[tuple[bytes, ...], _Shape] = Memo(512, 1024)
        self._names: Memo[bytes, bytes] = Memo(1024, 64)
        self._methods: Memo[bytes, str] = Memo(64, 16)
        self._schemes: Memo[bytes, bytes] = Memo(8, 5)
        self._lines: Memo[tuple[_Pair, ...], _Line] = Memo(512, 768)
        self._paths: Memo[bytes, _Path] = Memo(2048, 512)
        self._priorities: Memo[bytes, tuple[int, bool]] = Memo(64, 32)

    def parse(
        self, fields: tuple[_Pair, ...], ended: bool, unknown: Sequence[_Pair] | None = None
    ) -> Head:
        """Parse a request's field list.

        Args:
            fields: As they were decoded.
            ended: No content follows: the HEADERS frame has END_STREAM.
            unknown: Those of *fields* whose values were not parsed before; None: all.

        Raises:
            Http2StreamError: The request is malformed (RFC 9113 §8.1.1).
            LimitExceeded: 413, 414 or 431.
            RemoteProtocolError: What else answers the request.
        """
        names = tuple([name for name, _ in fields])
        shape = self._shapes.get(names) or self._learn_shape(names)
        values = [value for _, value in (fields if unknown is None else unknown)]
        if not are_values(values):
            raise _malformed(_explain_values(values))
        pseudo = fields[: shape.pseudo]
        line = self._lines.get(pseudo) or self._learn_line(pseudo, shape.form)

        head = Head()
        head.method, head.path, head.raw_path, head.query, host, protocol = line
        head.forwarded = shape.forwarded
        head.has_body = not ended
        head.template = None
        head.environ = None
        if protocol is not None:
            head.upgrade = protocol
        elif head.method == "HEAD":
            head.head_only = True
        if shape.special:
            self._interpret(head, shape.special, fields)
        if shape.cookies:
            fields = _join_cookies(fields, shape.cookies)
        # RFC 9113 §8.3.1: the authority becomes the one host field, and the first.
        headers = fields[shape.pseudo :]
        if shape.host:
            given = dict(headers)[b"host"]
            if host is None:
                if not is_host(given):
                    raise _malformed("the host field is malformed")
                host = (b"host", given)
            elif not _are_same(given, host[1], dict(pseudo)[b":scheme"]):
                raise _malformed("the host field differs from :authority")
            headers = tuple([pair for pair in headers if pair[0] != b"host"])
        head.headers = headers if host is None else (host, *headers)
        return head

    def check_trailers(self, fields: Sequence[_Pair]) -> None:
        """Check a trailer section (RFC 9113 §8.1), which is then dropped.

        Raises:
            Http2StreamError: It makes the request malformed.
            LimitExceeded: 431.
        """
        if len(fields) > self.limits.fields:
            raise LimitExceeded("the trailer section has too many fields", 431, self.limits.fields)
        for name, _ in fields:
            if name not in self._names:
                self._learn_name(name)
        values = [value for _, value in fields]
        if not are_values(values):
            raise _malformed(_explain_values(values))

    # ---------------------------------------------------------------- names

    def _learn_shape(self, names: tuple[bytes, ...]) -> _Shape:
        count = 0
        for name in names:
            if name[:1] != b":":
                break
            if name not in _PSEUDO:
                raise _malformed(_explain_name(name))
            count += 1
        pseudo, regular = names[:count], names[count:]
        given = frozenset(pseudo)
        if len(given) != count:
            raise _malformed("a pseudo-header field stands there twice")
        # The crumbs of a cookie become one field, and count as one.
        if len(regular) - max(regular.count(b"cookie") - 1, 0) > self.limits.fields:
            raise LimitExceeded("the request has too many fields", 431, self.limits.fields)
        for name in regular:
            if name not in self._names:
                self._learn_name(name)

        shape = _Shape()
        shape.pseudo = count
        if given == {b":method", b":authority"}:
            shape.form = _TUNNEL
        else:
            for name in (b":method", b":path", b":scheme"):
                if name not in given:
                    raise _malformed(f"the request has no {name.decode()}")
            shape.form = _EXTENDED if b":protocol" in given else _PLAIN
        hosts = regular.count(b"host")
        if hosts > 1:
            raise _malformed("there are several host fields")
        if regular.count(b"content-length") > 1:
            raise _malformed("there are several content-length fields")
        shape.host = hosts > 0
        cookies = tuple([index for index, name in enumerate(names) if name == b"cookie"])
        shape.cookies = cookies if len(cookies) > 1 else ()
        shape.special = {
            meaning: tuple([index for index, name in enumerate(names) if name == special])
            for special, meaning in _SPECIAL
            if special in regular
        }
        shape.forwarded = (
            b"x-forwarded-for" in regular
            or b"x-forwarded-proto" in regular
            or b"forwarded" in regular
        )
        return self._shapes.remember(names, shape, sum(map(len, names)))

    def _learn_name(self, name: bytes) -> None:
        # RFC 9113 §8.2.1, §8.2.2
        if match_token(name) is None or name != name.lower() or name in CONNECTION_FIELDS:
            raise _malformed(_explain_name(name))
        self._names.remember(name, name, len(name))

    # ---------------------------------------------------------------- values

    def _learn_method(self, token: bytes) -> str:
        if match_token(token) is None:
            raise _malformed("the :method is no token")
        if token != token.upper():
            raise RemoteProtocolError("the method is not in upper case")
        return self._methods.remember(token, token.decode("ascii"), len(token))

    def _learn_scheme(self, scheme: bytes) -> None:
        if _match_scheme(scheme) is None:
            raise _malformed("the :scheme is malformed")
        if scheme.lower() not in _DEFAULT_PORTS:
            raise RemoteProtocolError("the request's scheme is neither http nor https")
        self._schemes.remember(scheme, scheme, len(scheme))

    def _learn_path(self, target: bytes, method: bytes) -> _Path:
        # RFC 9113 §8.3.1: origin-form, or the asterisk of OPTIONS.
        if len(target) > self.limits.line:
            raise LimitExceeded("the request target is too long", 414, self.limits.line)
        if target[:1] != b"/" and (target != b"*" or method != b"OPTIONS"):
            raise _malformed("the :path does not start with a slash")
        if match_target(target) is None:
            raise _malformed("the :path holds a byte that is not allowed")
        raw_path, _, query = target.partition(b"?")
        path = (decode_path(raw_path), raw_path, query)
        if target == b"*":  # right for one method only
            return path
        return self._paths.remember(target, path, len(target))

    def _learn_line(self, pseudo: tuple[_Pair, ...], form: int) -> _Line:
        """Judge the pseudo-header fields, whose names are sound."""
        fields = dict(pseudo)
        token = fields[b":method"]
        method = self._methods.get(token) or self._learn_method(token)
        protocol = None
        if method == "CONNECT" or form != _PLAIN:
            protocol = self._connect(method, form, fields)
        scheme = fields[b":scheme"]
        if scheme not in self._schemes:
            self._learn_scheme(scheme)
        target = fields[b":path"]
        path = self._paths.get(target) or self._learn_path(target, token)
        authority = fields.get(b":authority")
        host = None
        if authority is not None:
            _check_authority(authority)
            host = (b"host", authority)
        line = _Line(method, *path, host, protocol)
        return self._lines.remember(pseudo, line, sum([len(value) for _, value in pseudo]))

    def _connect(self, method: str, form: int, fields: dict[bytes, bytes]) -> bytes:
        """What an extended CONNECT asks for; anything else that is unlike a request raises."""
        if method != "CONNECT":
            if form == _EXTENDED:  # RFC 8441 §4
                raise _malformed(":protocol is for CONNECT alone")
            raise _malformed("the request has no :path")
        if form == _PLAIN:  # RFC 9113 §8.5
            raise _malformed("a CONNECT has neither :scheme nor :path")
        if form == _TUNNEL:
            _check_authority(fields[b":authority"])
            raise RemoteProtocolError("CONNECT: no tunnel is offered", 501)
        protocol = fields[b":protocol"]
        if match_token(protocol) is None:
            raise _malformed("the :protocol is no token")
        return protocol.lower()

    def _interpret(
        self, head: Head, special: dict[int, tuple[int, ...]], fields: tuple[_Pair, ...]
    ) -> None:
        """What the fields that have a meaning here say."""
        if _PRIORITY in special:
            # Several would make up one dictionary (RFC 9651 §4.2).
            value = b", ".join([fields[index][1] for index in special[_PRIORITY]])
            head.priority = self._priorities.get(value) or self._priorities.remember(
                value, parse_priority(value), len(value)
            )
        if _LENGTH in special:
            value = fields[special[_LENGTH][0]][1]
            if match_length(value) is None:
                raise _malformed("the content-length is malformed")
            head.length = int(value)
            if head.length and not head.has_body:  # RFC 9113 §8.1.1
                raise _malformed("a content-length is given, and no content")
            if self.limits.body is not None and head.length > self.limits.body:
                raise LimitExceeded("the request body is too large", 413, self.limits.body)
        if _TE in special:  # RFC 9113 §8.2.2
            for index in special[_TE]:
                if fields[index][1].lower() != b"trailers":
                    raise _malformed("te says something other than trailers")
            head.trailers = True
        if _EXPECT in special:  # RFC 9110 §10.1.1
            if fields[special[_EXPECT][-1]][1].lower() != b"100-continue":
                raise RemoteProtocolError("the only expectation understood is 100-continue", 417)
            head.expects_continue = head.has_body


def _malformed(reason: str) -> Http2StreamError:
    return Http2StreamError(reason, PROTOCOL_ERROR)


def _check_authority(authority: bytes) -> None:
    # RFC 9113 §8.3.1: no userinfo; not there at all rather than empty.
    if not authority or authority[:1] == b":" or not is_host(authority):
        raise _malformed("the :authority is malformed")


def _join_cookies(fields: tuple[_Pair, ...], crumbs: tuple[int, ...]) -> tuple[_Pair, ...]:
    """RFC 9113 §8.2.3: one field, at the place of the first; empty crumbs say nothing."""
    first = crumbs[0]
    behind = crumbs[-1] + 1
    if behind - first == len(crumbs):  # side by side, as clients put them
        cookie = b"; ".join([value for _, value in fields[first:behind] if value])
        return (*fields[:first], (b"cookie", cookie), *fields[behind:])
    pairs = list(fields)
    cookie = b"; ".join([fields[index][1] for index in crumbs if fields[index][1]])
    pairs[first] = (b"cookie", cookie)
    for index in crumbs[:0:-1]:
        del pairs[index]
    return tuple(pairs)


def _are_same(host: bytes, authority: bytes, scheme: bytes) -> bool:
    """Whether both name one server, normalized by scheme (RFC 3986 §6.2.3)."""
    if host == authority:
        return True
    port = _DEFAULT_PORTS[scheme.lower()]
    one, other = (name.lower().removesuffix(port).removesuffix(b":") for name in (host, authority))
    return one == other and is_host(host)


def _explain_name(name: bytes) -> str:
    if name in _PSEUDO:
        return "a pseudo-header field stands behind a regular one"
    if name == b":status":
        return "a request has no :status"
    if name[:1] == b":":
        return "a pseudo-header field is unknown"
    if name in CONNECTION_FIELDS:
        return f"the field {name.decode()} is for HTTP/1 alone"
    if match_token(name) is not None:
        return "a field name is not in lower case"
    return "a field name holds a byte that is not allowed" if name else "a field has no name"


def _explain_values(values: list[bytes]) -> str:
    if all(match_value(value) for value in values):
        return "there is white space around a field value"
    if any(b"\0" in value for value in values):
        return "a field value holds a NUL"
    return "a field value holds a byte that is not allowed"
