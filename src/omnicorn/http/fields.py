"""Field names and values (RFC 9110 §5): what is legal, decided by byte class.

Each rule is one compiled regular expression without nested repetition, so that a match
takes linear time whatever the input.
"""

from __future__ import annotations

import re
from typing import Any

from omnicorn.errors import LocalProtocolError

TCHAR = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"
"""RFC 9110 §5.6.2, as the inside of a character class."""

match_token = re.compile(rb"[%b]+" % TCHAR).fullmatch
"""RFC 9110 §5.6.2 token: field names, methods."""

match_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch
"""RFC 9110 §5.5 field-value: visible bytes, obs-text, SP and HTAB; no other control byte."""

match_length = re.compile(rb"[0-9]{1,18}").fullmatch
"""RFC 9110 §8.6 content-length, up to what any parser can hold."""

match_line = re.compile(rb"([%b]+):([\t\x20-\x7e\x80-\xff]*)" % TCHAR).fullmatch
"""RFC 9112 §5 field-line. No white space before the colon (§5.1), no obs-fold (§5.2)."""

CONNECTION_FIELDS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
"""RFC 9113 §8.2.2: fields of the connection, not of the message; HTTP/1 alone has them."""

# RFC 9110 §7.2 with RFC 3986 §3.2.2: an IP literal, or a reg-name (which includes IPv4
# addresses); then a port.
_REG_NAME = rb"[A-Za-z0-9\-._~!$&'()*+,;=]"
_match_host = re.compile(
    rb"(?:\[(?:[0-9A-Fa-f:.]{2,45}|[vV][0-9A-Fa-f]+\.(?:%b|:)+)\]"
    rb"|(?:%b|%%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?" % (_REG_NAME, _REG_NAME)
).fullmatch


def is_host(value: bytes) -> bool:
    """Whether *value* is a legal ``host`` field (no userinfo, path, or white space)."""
    return _match_host(value) is not None


def list_tokens(value: bytes) -> list[bytes]:
    """The lower-case members of a comma-separated list (RFC 9110 §5.6.1), empty ones dropped."""
    return [token for part in value.lower().split(b",") if (token := part.strip(b" \t"))]


_strip = bytes.strip  # its white space is SP, HTAB, and bytes that are illegal in a value
VALUE_FLAWS = bytes(0 if match_value(bytes((byte,))) else 128 for byte in range(256))


def are_values(values: list[bytes]) -> bool:
    """Whether each is a legal value without white space around it; all judged in one go.

    Raises:
        TypeError: One is not of bytes.
    """
    # Legal bytes stay legal side by side; a table is faster than a regular expression.
    return list(map(_strip, values)) == values and b"".join(values).translate(VALUE_FLAWS).isascii()


def check_pair(pair: Any) -> tuple[bytes, bytes]:
    """What an application gave as a header.

    Raises:
        LocalProtocolError: It cannot be sent; says why.
    """
    try:
        name, value = pair
        if match_token(name) and match_value(value) and isinstance(value, bytes):
            return name, value
    except (TypeError, ValueError):
        pass
    raise explain_pair(pair)


def explain_pair(pair: Any) -> LocalProtocolError:
    """What is wrong with a pair that cannot be sent."""
    try:
        name, value = pair
    except (TypeError, ValueError):
        return LocalProtocolError(
            f"headers must be a list of (name, value) pairs of bytes; got {pair!r:.80}"
        )
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        return LocalProtocolError(f"a header's name and value must be bytes; got {pair!r:.80}")
    if match_token(name) is None:
        return LocalProtocolError(f"a header's name must be a token; got {name!r:.80}")
    return LocalProtocolError(
        f"the value of header {name!r:.60} holds a control byte (CR, LF, NUL, ...)"
    )
