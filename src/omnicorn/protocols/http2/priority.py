"""The `priority` field's value (RFC 9218 §4), read leniently: it is advice, never an error.

It is a dictionary of structured fields (RFC 9651 §3.2). Two members mean something: `u`,
an integer from 0 (most urgent) to 7, and `i`, a boolean. Members that are unknown, out of
range or of another type are ignored; a value that is no dictionary says nothing.
"""

from __future__ import annotations

import re

DEFAULT_PRIORITY = (3, False)
"""Urgency 3, not incremental (RFC 9218 §4.1, §4.2)."""

# Quantifiers are possessive: no alternative begins like another, so going back is useless,
# and what does not match fails in linear time.
_KEY = rb"[a-z*][a-z0-9_\-.*]*+"
_BARE_ITEM = (
    rb"(?:@?-?[0-9]{1,15}+(?:\.[0-9]{1,3}+)?+"  # an integer, a decimal, a date
    rb"|[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*+"  # a token
    rb'|%?"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+"'  # a string, a display string
    rb"|:[A-Za-z0-9+/=]*+:"  # bytes
    rb"|\?[01])"  # a boolean
)
_PARAMETERS = rb"(?:; *+%b(?:=%b)?+)*+" % (_KEY, _BARE_ITEM)
_ITEM = _BARE_ITEM + _PARAMETERS
_INNER_LIST = rb"\( *+(?:%b(?: ++%b)*+ *+)?+\)" % (_ITEM, _ITEM)
_match_member = re.compile(
    rb"(%b)(?:=(%b|%b))?+%b" % (_KEY, _BARE_ITEM, _INNER_LIST, _PARAMETERS)
).match
_match_comma = re.compile(rb"[ \t]*+,[ \t]*+").match
_match_urgency = re.compile(rb"0*([0-7])|-0+").fullmatch


def parse_priority(value: bytes) -> tuple[int, bool]:
    """Urgency (0 first, 7 last) and whether the response is useful piece by piece.

    Args:
        value: The field's value; of several fields, their values joined by commas.
    """
    urgency, incremental = DEFAULT_PRIORITY
    value = value.strip(b" ")
    position = 0
    while position < len(value):
        member = _match_member(value, position)
        if member is None:
            return DEFAULT_PRIORITY
        position = member.end()
        key, item = member.groups()
        if key == b"u":  # of several, the last counts (RFC 9651 §3.2)
            number = _match_urgency(item or b"")
            urgency = int(number[1] or 0) if number else DEFAULT_PRIORITY[0]
        elif key == b"i":
            incremental = item is None or item == b"?1"  # without a value it is true
        if position < len(value):
            comma = _match_comma(value, position)
            if comma is None or comma.end() == len(value):
                return DEFAULT_PRIORITY
            position = comma.end()
    return urgency, incremental
