"""The static table, and behind it the dynamic one, as one list (RFC 7541 §2.3).

Index *i* stands at ``entries[61 - i]``. So the static table comes first, last entry foremost,
and the dynamic table follows, oldest entry foremost: the newest one, index 62, is
``entries[-1]``. One look-up serves both tables, an insertion is an ``append``, and what is
evicted stands together behind the static entries. A negative position wraps around, so an
index has to be checked against ``len(entries)``, the highest there is, and against 0.

Invariants: `used` is the size of the dynamic entries (RFC 7541 §4.1) and never above `limit`.
"""

from __future__ import annotations

Pair = tuple[bytes, bytes]

OVERHEAD = 32
"""What an entry counts for beside its bytes (RFC 7541 §4.1, RFC 9113 §6.5.2)."""

DEFAULT_SIZE = 4096
"""The dynamic table's size until said otherwise (RFC 9113 §6.5.2)."""

# RFC 7541 Appendix A.
_STATIC = b"""\
:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate
"""


def _pair(line: bytes) -> Pair:
    name, _, value = line.partition(b" ")
    return name, value


STATIC: tuple[Pair, ...] = tuple(map(_pair, _STATIC.splitlines()))
"""Index 1 first."""

FIRST_DYNAMIC = 62

_NOTHING: Pair = (b"", b"")  # index 0 means none (RFC 7541 §6.1)
_NONE: list[Pair] = []  # for reading


class Table:
    """Both tables of one direction of a connection.

    Args:
        limit: The dynamic table's largest size, in bytes as RFC 7541 §4.1 counts them.
    """

    __slots__ = ("entries", "limit", "used")

    def __init__(self, limit: int = DEFAULT_SIZE) -> None:
        self.entries: list[Pair] = [_NOTHING, *STATIC]
        self.limit = limit
        self.used = 0

    def add(self, pair: Pair, size: int) -> list[Pair]:
        """Insert *pair*, which counts for *size*; return what had to leave, oldest first.

        A pair that is larger than the table empties it and is not inserted (RFC 7541 §4.4).
        """
        entries = self.entries
        evicted = _NONE
        used = self.used + size
        if used > self.limit:
            evicted = self._evict(max(self.limit - size, 0))
            used = self.used + size
        if used <= self.limit:
            self.used = used
            entries.insert(FIRST_DYNAMIC, pair)
        return evicted

    def clear(self) -> None:
        """Drop all that was inserted."""
        del self.entries[FIRST_DYNAMIC:]
        self.used = 0

    def resize(self, limit: int) -> list[Pair]:
        """Change the largest size; return what had to leave, oldest first (RFC 7541 §4.3)."""
        self.limit = limit
        return self._evict(limit)

    def _evict(self, room: int) -> list[Pair]:
        """Drop the oldest entries until at most *room* is used, or nothing is left."""
        entries = self.entries
        used = self.used
        evicted = []
        while used > room:
            pair = entries.pop()
            used -= len(pair[0]) + len(pair[1]) + OVERHEAD
            evicted.append(pair)
        self.used = used
        return evicted
