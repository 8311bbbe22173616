"""A CGI environment (RFC 3875 §4.1) to the request it stands for, and each distinct one only once.

SCGI, uwsgi and FastCGI frame the same variables in three ways; what the variables mean is
decided here, for every front server with its stock parameters. Rules of this file:

1. The path is what the client sent: ``REQUEST_URI``, decoded once. The variables that fronts
   have decoded (``SCRIPT_NAME`` and ``PATH_INFO``, else ``DOCUMENT_URI``) stand in where it is
   missing.
2. Fronts disagree about ``SCRIPT_NAME``: absent, a mount point, or the whole path. It is a
   mount point only if the path is ``SCRIPT_NAME`` + ``PATH_INFO`` and both say something.
   A configured root path wins.
3. ``HTTP_*`` are the client's fields, in order and repeated as they came. Left out is what the
   front has already acted on (``Transfer-Encoding``: content comes decoded), and ``HTTP_PROXY``.
4. What the client or the front says about lengths must fit: content lost in between is refused,
   not handed on as if it were complete.
5. What HTTP's own rules refuse (target, host, values) is refused here for the same reasons.
6. A front repeats itself but for the client's address and port. They are cut out of the block
   before it is looked up; that they were what was cut out, the first parse has shown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from omnicorn.errors import LimitExceeded, RemoteProtocolError
from omnicorn.http.fields import (
    are_values,
    is_host,
    list_tokens,
    match_length,
    match_token,
    match_value,
)
from omnicorn.http.limits import Limits
from omnicorn.http.memo import Memo
from omnicorn.http.target import decode_path, encode_path, match_target, parse_target
from omnicorn.ports import RequestHead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Split = Callable[[bytes], Iterable[tuple[bytes, bytes]]]
    Client = tuple[str, int]
    Cut = Callable[[bytes], tuple[object, Client] | None]

SHORT = 2048
"""Bytes up to which a whole environment is remembered."""

_VARIABLE = b""
"""In a field name's place: this variable is none of the client's fields."""
_NOT_FIELDS = frozenset(
    {b"content-length", b"content-type", b"proxy", b"transfer-encoding"}
)  # the first two come as variables of their own
_LENGTHS = frozenset({b"CONTENT_LENGTH", b"HTTP_CONTENT_LENGTH", b"HTTP_TRANSFER_ENCODING"})
"""Of these, two that differ are a lie about the content (RFC 9112 §6.3)."""

_VERSIONS = {
    b"HTTP/1.0": "1.0",
    b"HTTP/1.1": "1.1",
    b"HTTP/2": "2",
    b"HTTP/2.0": "2",
    b"HTTP/3": "3",
    b"HTTP/3.0": "3",
}
_YES = frozenset({b"on", b"1", b"yes", b"true"})
_NO = frozenset({b"off", b"0", b"no", b"false"})

_match_address = re.compile(rb"[0-9A-Fa-f:.]{2,45}(?:%[0-9A-Za-z._\-]{1,32})?").fullmatch
# In all three framings, the address and the port next to each other, as nginx sends them.
_match_client = re.compile(
    rb"REMOTE_ADDR[\0-\x2d]{0,2}([0-9A-Fa-f.:]{2,45})"
    rb"[\0-\x0b]{1,2}REMOTE_PORT[\0-\x05]{0,2}([0-9]{1,5})"
).match
_match_port = re.compile(rb"[0-9]{1,5}").fullmatch
_match_name = re.compile(rb"\[?[0-9A-Za-z._\-:]{1,255}\]?").fullmatch
_sub_illegal = re.compile(rb"[^A-Za-z0-9\-._~!$&'()*+,;=:@/]").sub


class GatewayHead(RequestHead):
    """A `RequestHead` with what a front server says besides; as immutable, and shared.

    Attributes:
        server: Where the front was asked: (host, port), or (path, None) of its unix socket;
            None if it does not say.
        scheme: ``"http"`` or ``"https"``.
        root_path: The application's mount point. `path` and `raw_path` contain it.
        length: The content's bytes; -1 where the front does not say.
        head_only: The method is HEAD: the response has no content.
    """

    __slots__ = ("head_only", "length", "root_path", "scheme", "server")

    server: tuple[str, int | None] | None
    scheme: str
    root_path: str
    length: int
    head_only: bool


class EnvironmentParser:
    """Parses environments; one for all connections of a protocol, as it only remembers.

    Args:
        split: The protocol's own: a block of bytes to names and values, in order. It raises
            `RemoteProtocolError` for what cannot be split.
        limits: What is allowed: ``head`` bounds a block, ``line`` REQUEST_URI, ``fields`` the
            client's fields, ``body`` the content.
        root_path: The configured mount point; ``""`` leaves it to the front.
        unique: Whether a variable that stands twice is refused (what the client sent as a field
            may); else the last one counts.
        cut: Takes what may be the client's address and port out of a block; returns all the
            rest, which can be hashed and equals no other block's, and them.

    Attributes:
        limits: As given.
    """

    __slots__ = (
        "_cut",
        "_heads",
        "_names",
        "_paths",
        "_root_path",
        "_seen",
        "_split",
        "_unique",
        "limits",
    )

    def __init__(
        self,
        split: Split,
        limits: Limits | None = None,
        root_path: str = "",
        *,
        unique: bool = False,
        cut: Cut | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._split = split
        self._root_path = root_path
        self._unique = unique
        self._cut = cut or cut_client
        self._heads: Memo[object, tuple[GatewayHead, Client | None]] = Memo(512, SHORT)
        self._names: Memo[bytes, bytes] = Memo(1024, 64)
        self._paths: Memo[tuple[bytes, bytes], _Target] = Memo(1024, 512)
        self._seen: set[int] = set()

    def parse_shared(self, block: bytes) -> tuple[GatewayHead, Client | None]:
        """Parse a complete environment.

        Returns:
            The request, shared by all that are alike but for the client, and that: the front's
            peer, port 0 where it is not told, None on a unix socket.

        Raises:
            LimitExceeded: 413, 414 or 431.
            RemoteProtocolError: 400, or what else answers the request.
        """
        size = len(block)
        if size > self.limits.head:
            raise LimitExceeded("the request head is too large", 431, self.limits.head)
        if size > SHORT:
            return self._parse(self._split(block))
        found = self._cut(block)
        key, client = found or (block, None)
        known = self._heads.get(key)
        if known is not None:
            return known if found is None else (known[0], client)
        parsed = self._parse(self._split(block))
        # Kept from the second time on: most come once, with a cookie of their own.
        mark = hash(key)
        if mark not in self._seen:
            if len(self._seen) >= 4096:
                self._seen.clear()
            self._seen.add(mark)
        elif found is None or (parsed[1] == client and _stands_once(block)):
            self._seen.discard(mark)
            self._heads.remember(key, parsed, size)
        return parsed

    def _parse(self, pairs: Iterable[tuple[bytes, bytes]]) -> tuple[GatewayHead, Client | None]:
        names = self._names
        variables: dict[bytes, bytes] = {}
        headers: list[tuple[bytes, bytes]] = []
        values: list[bytes] = []
        for name, value in pairs:
            field = names.get(name)
            if field is None:
                field = self._learn_name(name)
            if field:
                headers.append((field, value))
                values.append(value)
            else:
                if name in variables:
                    self._repeat(name, variables[name] == value)
                variables[name] = value
        if len(headers) > self.limits.fields:
            raise LimitExceeded("the request has too many fields", 431, self.limits.fields)
        if not are_values(values):
            headers = [(field, _clean(field, value)) for field, value in headers]
        return self._build(variables.get, headers), _client(variables.get)

    def _repeat(self, name: bytes, same: bool) -> None:
        """A variable stands twice; refuse it where that is not the client's doing, or a lie."""
        if name in _LENGTHS and not same:
            raise RemoteProtocolError(f"there are several values of {name.decode()}")
        if self._unique and not name.startswith(b"HTTP_"):
            raise RemoteProtocolError(f"the variable {_show(name)} stands twice")

    def _learn_name(self, name: bytes) -> bytes:
        """The field that a variable is; `_VARIABLE` if it is none."""
        if not name.startswith(b"HTTP_"):
            field = _VARIABLE
        else:
            field = name[5:].lower().replace(b"_", b"-")
            if match_token(field) is None:
                raise RemoteProtocolError(f"the variable {_show(name)} names no field")
            if field in _NOT_FIELDS:
                field = _VARIABLE
        return self._names.remember(name, field, len(name))

    def _build(
        self,
        get: Callable[[bytes, bytes], bytes],
        headers: list[tuple[bytes, bytes]],
    ) -> GatewayHead:
        head = GatewayHead()
        content_type = get(b"CONTENT_TYPE", b"")
        if content_type:
            headers.append((b"content-type", _clean(b"content-type", content_type)))
        self._measure(head, get, headers)

        method = get(b"REQUEST_METHOD", b"")
        if match_token(method) is None or method != method.upper():
            raise RemoteProtocolError("REQUEST_METHOD is missing or no method")
        head.method = method.decode("ascii")
        head.head_only = method == b"HEAD"
        head.version = _VERSIONS.get(get(b"SERVER_PROTOCOL", b""), "1.1")

        fields = dict(headers)
        host = fields.get(b"host")
        if host is not None:
            if not is_host(host):
                raise RemoteProtocolError("the host field is malformed")
            if len(fields) < len(headers) and _count(headers, b"host") > 1:
                raise RemoteProtocolError("there are several host fields")
        target = get(b"REQUEST_URI", b"")
        if not target:
            self._compose_path(head, get)
        else:
            known = self._paths.get((method, target)) or self._parse_target(method, target)
            head.path, head.raw_path, head.query, authority = known
            if authority is not None and authority != host:
                # RFC 9112 §3.2.2: the target's authority replaces the host field.
                headers[:] = [
                    (b"host", authority),
                    *(pair for pair in headers if pair[0] != b"host"),
                ]
                fields[b"host"] = authority
        head.headers = tuple(headers)
        head.fields = fields
        head.root_path = ""
        if head.path != "*":  # the asterisk of OPTIONS names no path
            self._mount(head, get)

        head.scheme = _scheme(get)
        head.server = _server(get, fields)
        head.forwarded = (
            b"x-forwarded-for" in fields or b"x-forwarded-proto" in fields or b"forwarded" in fields
        )
        head.trailers = False
        head.upgrade = None
        if b"upgrade" in fields and b"upgrade" in list_tokens(fields.get(b"connection", b"")):
            head.upgrade = b", ".join(list_tokens(fields[b"upgrade"])) or None
        head.template = None
        head.environ = None
        return head

    def _measure(
        self,
        head: GatewayHead,
        get: Callable[[bytes, bytes], bytes],
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        """How long the content is, and whether front and client agree on it."""
        told = get(b"CONTENT_LENGTH", b"")
        claimed = get(b"HTTP_CONTENT_LENGTH", b"")
        length = _length("CONTENT_LENGTH", told)
        limit = self.limits.body
        if limit is not None and length > limit:
            raise LimitExceeded("the request body is too large", 413, limit)
        coded = bool(get(b"HTTP_TRANSFER_ENCODING", b""))
        if claimed and not coded and _length("HTTP_CONTENT_LENGTH", claimed) > length >= 0:
            # nginx before 1.29.6 counts only what it has read ahead.
            raise RemoteProtocolError(
                f"the client sends {claimed.decode()} bytes of content, and the front says"
                f" {length}: with nginx before 1.29.6, set scgi_request_buffering on"
            )
        if length > 0 or (length == 0 and claimed):
            headers.append((b"content-length", b"%d" % length))
        head.length = length
        head.has_body = length > 0 or (length < 0 and coded)

    def _parse_target(self, method: bytes, target: bytes) -> _Target:
        if len(target) > self.limits.line:
            raise LimitExceeded("REQUEST_URI is too long", 414, self.limits.line)
        if match_target(target) is None:
            raise RemoteProtocolError("REQUEST_URI holds a byte that is not allowed")
        raw_path, query, authority = parse_target(method, target)
        parsed = (decode_path(raw_path), raw_path, query, authority)
        return self._paths.remember((method, target), parsed, len(target))

    def _compose_path(self, head: GatewayHead, get: Callable[[bytes, bytes], bytes]) -> None:
        """The path from what the front has decoded."""
        decoded = get(b"SCRIPT_NAME", b"") + get(b"PATH_INFO", b"") or get(b"DOCUMENT_URI", b"")
        if decoded[:1] != b"/":
            raise RemoteProtocolError(
                "the front sends no path: it needs REQUEST_URI, or SCRIPT_NAME and PATH_INFO"
            )
        query = get(b"QUERY_STRING", b"")
        if len(decoded) + len(query) > self.limits.line:
            raise LimitExceeded("the path is too long", 414, self.limits.line)
        if query and match_target(query) is None:
            raise RemoteProtocolError("QUERY_STRING holds a byte that is not allowed")
        head.path = decoded.decode("utf-8", "replace")
        head.raw_path = _sub_illegal(_escape, decoded)
        head.query = query

    def _mount(self, head: GatewayHead, get: Callable[[bytes, bytes], bytes]) -> None:
        """Where the application is mounted. See rule 2."""
        root_path = self._root_path
        path = head.path
        if root_path:
            head.root_path = root_path
            if not path.startswith(root_path) or path[len(root_path) :][:1] not in ("", "/"):
                # The front has taken the prefix away: ASGI's path has it.
                head.path = root_path + path
                head.raw_path = encode_path(root_path) + head.raw_path
            return
        script = get(b"SCRIPT_NAME", b"")
        rest = get(b"PATH_INFO", b"")
        if script and rest[:1] == b"/" and (script + rest).decode("utf-8", "replace") == path:
            head.root_path = script.decode("utf-8", "replace")


def cut_client(block: bytes) -> tuple[object, Client] | None:
    """See `EnvironmentParser`; fits every framing."""
    found = _match_client(block, block.find(b"REMOTE_ADDR"))
    if found is None:
        return None
    address, digits = found.groups()
    host = addresses.get(address) or learn_address(address)
    port = int(digits)
    if host is None or port > 65535:
        return None
    start, end = found.span(1)
    # Two framings say how long they are, and say it elsewhere: so that this is no lie, either.
    sizes = (end - start, len(digits))
    rest = (block[:start], block[end : found.start(2)], block[found.end(2) :], sizes)
    return rest, (host, port)


_Target = tuple[str, bytes, bytes, "bytes | None"]


def _stands_once(block: bytes) -> bool:
    """Nothing but the client's own variables is called, or holds, what they are called."""
    return block.count(b"REMOTE_ADDR") == 1 and block.count(b"REMOTE_PORT") == 1


def _escape(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % ord(match[0])


def _clean(field: bytes, value: bytes) -> bytes:
    value = value.strip(b" \t")
    if match_value(value) is None:
        raise RemoteProtocolError(f"the field {_show(field)} holds a byte that is not allowed")
    return value


def _show(name: bytes) -> str:
    """A name for a log line."""
    return ascii(name[:60].decode("latin-1"))


def _length(name: str, value: bytes) -> int:
    if not value:
        return -1
    if match_length(value) is None:
        raise RemoteProtocolError(f"{name} is malformed")
    return int(value)


def _count(headers: list[tuple[bytes, bytes]], name: bytes) -> int:
    return sum(1 for pair in headers if pair[0] == name)


def _scheme(get: Callable[[bytes, bytes], bytes]) -> str:
    https = get(b"HTTPS", b"").lower()
    if https in _YES:
        return "https"
    if https not in _NO and get(b"REQUEST_SCHEME", b"").lower() == b"https":
        return "https"
    return "http"


addresses: Memo[bytes, str] = Memo(1024, 64)
"""Those that were judged; others: `learn_address`."""


def learn_address(address: bytes) -> str | None:
    """What stands in REMOTE_ADDR as text; None where it is no IP address."""
    if _match_address(address) is None:
        return None  # "", or "unix:": the front listens on a unix socket
    host = address.decode("ascii")
    from ipaddress import ip_address

    try:
        ip_address(host)
    except ValueError:
        return None
    return addresses.remember(address, host, len(address))


def _client(get: Callable[[bytes, bytes], bytes]) -> Client | None:
    host = learn_address(get(b"REMOTE_ADDR", b""))
    return None if host is None else (host, _port(get(b"REMOTE_PORT", b"")) or 0)


def _server(
    get: Callable[[bytes, bytes], bytes], fields: dict[bytes, bytes]
) -> tuple[str, int | None] | None:
    address = get(b"SERVER_ADDR", b"")
    if address.startswith(b"unix:"):
        return address[5:].decode("utf-8", "replace"), None
    port = _port(get(b"SERVER_PORT", b""))
    if port is None:
        return None
    name = _without_port(get(b"SERVER_NAME", b""))  # HAProxy puts the port there, too
    if name in (b"", b"_") or _match_name(name) is None:
        # nginx without a server_name, or with the usual one for any: where was it asked?
        name = address or _without_port(fields.get(b"host", b""))
        if _match_name(name) is None:
            return None
    return name.decode("ascii").strip("[]"), port


def _without_port(host: bytes) -> bytes:
    name, colon, port = host.rpartition(b":")
    return name if colon and b"]" not in port else host


def _port(text: bytes) -> int | None:
    if _match_port(text) is None:
        return None
    port = int(text)
    return port if port <= 65535 else None
