"""The host that a client asked for, without its port.

What this file alone decides: which ``host`` fields are good enough to choose an application or to
build a URL by. One that is missing, repeated or malformed is none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from omnicorn.http.fields import is_host

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["asked_host", "plain_host"]

# RFC 3986 §3.2.2: the colons of an IPv6 address are within brackets.
_without_port = re.compile(rb"(\[[^\]]*\]|[^:]+)(?::[0-9]*)?").fullmatch


def asked_host(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The one ``host`` among *headers*, as it was sent but for its port; None if there is none."""
    hosts = [value for name, value in headers if name == b"host"]
    return plain_host(hosts[0]) if len(hosts) == 1 else None


def plain_host(value: bytes) -> bytes | None:
    """A ``host`` field's value without the port; None if it is empty or malformed."""
    found = _without_port(value)
    return found[1] if found is not None and is_host(value) else None
