"""Field names and values (RFC 9110 §5): what is legal, decided by byte class.

Each rule is one compiled regular expression without nested repetition, so that a match
takes linear time whatever the input.
"""

from __future__ import annotations

import re

TCHAR = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"
"""RFC 9110 §5.6.2, as the inside of a character class."""

match_token = re.compile(rb"[%b]+" % TCHAR).fullmatch
"""RFC 9110 §5.6.2 token: field names, methods."""

match_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch
"""RFC 9110 §5.5 field-value: visible bytes, obs-text, SP and HTAB; no other control byte."""

match_line = re.compile(rb"([%b]+):([\t\x20-\x7e\x80-\xff]*)" % TCHAR).fullmatch
"""RFC 9112 §5 field-line. No white space before the colon (§5.1), no obs-fold (§5.2)."""

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
