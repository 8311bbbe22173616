"""The types of values in scopes and events, as the specification uses its words for them.

What this file alone decides: what counts as a value of a type. A `Kind` looks at a value and
yields its flaws: pairs of an aspect ("" for the type itself) and a complaint that continues a
sentence, "`status` must be an int, got '200'". It never uses up an iterator.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Callable

    Flaws = Iterator[tuple[str, str]]


class Kind(NamedTuple):
    """A type of value.

    Attributes:
        flaws: Yields what is wrong with a value.
        aspects: The aspects, besides "", that it knows; each is a rule of its own.
        many: It is an iterable, which may be one that can be looked at only once.
    """

    flaws: Callable[[object], Flaws]
    aspects: tuple[str, ...] = ()
    many: bool = False


def show(value: object) -> str:
    """A value, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _plain(noun: str, fits: Callable[[object], bool], many: bool = False) -> Kind:
    def flaws(value: object) -> Flaws:
        if not fits(value):
            yield "", f"must be {noun}, got {show(value)}"

    return Kind(flaws, many=many)


def is_int(value: object) -> bool:
    """Whether it is an integer; a bool, a type of its own in ASGI, is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_items(value: object) -> TypeGuard[Iterable[object]]:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, Mapping))


def items(value: object) -> Iterable[object]:
    """What is in an iterable, if it is one, and can be looked at more than once."""
    return value if _is_items(value) and not isinstance(value, Iterator) else ()


STR = _plain("a str", lambda value: isinstance(value, str))
BYTES = _plain("bytes", lambda value: isinstance(value, bytes))
BOOL = _plain("a bool", lambda value: isinstance(value, bool))
INT = _plain("an int", is_int)
SIZE = _plain(
    "an int of at least 0", lambda value: isinstance(value, int) and is_int(value) and value >= 0
)
DICT = _plain("a dict", lambda value: isinstance(value, dict))
ANY = Kind(lambda value: iter(()))
TEXT = _plain("a str that is not empty", lambda value: isinstance(value, str) and value != "")
ABSOLUTE_PATH = _plain(
    "an absolute path as a str", lambda value: isinstance(value, str) and os.path.isabs(value)
)
FILE = _plain(
    "an open file with a descriptor", lambda value: is_int(value) or hasattr(value, "fileno")
)
UINT16 = _plain(
    "an int of 16 bits",
    lambda value: isinstance(value, int) and is_int(value) and 0 <= value <= 0xFFFF,
)
HTTP_VERSION = _plain(
    "'1.0', '1.1', '2' or '3'",
    lambda value: isinstance(value, str) and value in {"1.0", "1.1", "2", "3"},
)
SPEC_VERSION = _plain(
    "a version such as '2.5'",
    lambda value: isinstance(value, str) and value.replace(".", "", 1).isdecimal(),
)
METHOD = _plain(
    "a method in upper case",
    lambda value: isinstance(value, str) and value != "" and value == value.upper(),
)
STRS = _plain(
    "an iterable of str",
    lambda value: _is_items(value) and all(isinstance(item, str) for item in items(value)),
    many=True,
)
LINKS = _plain(
    "an iterable of bytes",
    lambda value: _is_items(value) and all(isinstance(item, bytes) for item in items(value)),
    many=True,
)
EXTENSIONS = _plain(
    "a dict of str and dict",
    lambda value: (
        isinstance(value, dict)
        and all(isinstance(name, str) and isinstance(v, dict) for name, v in value.items())
    ),
)


def _address(noun: str, *, unix: bool) -> Kind:
    def fits(value: object) -> bool:
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            return False
        host, port = value
        return isinstance(host, str) and (is_int(port) or (unix and port is None))

    return _plain(noun, fits)


CLIENT = _address("a pair of host (str) and port (int)", unix=False)
SERVER = _address("a pair of host (str) and port (int), or of a unix path and None", unix=True)


def _status(value: object) -> Flaws:
    if not is_int(value):
        yield "", f"must be an int, got {show(value)}"
    elif not (isinstance(value, int) and 200 <= value <= 999):
        # RFC 9110 §15: three digits, and 1xx are not final.
        yield "final", f"must be a final status code of three digits, got {show(value)}"


STATUS = Kind(_status, ("final",))


def _headers(value: object) -> Flaws:
    if not _is_items(value):
        yield "", f"must be an iterable of (name, value) pairs, got {show(value)}"
        return
    for pair in items(value):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            yield "", f"must have (name, value) pairs, got {show(pair)}"
            continue
        name, content = pair
        if not isinstance(name, bytes) or not isinstance(content, bytes):
            yield "", f"must have names and values of bytes, got {show(tuple(pair))}"
        elif name != name.lower():
            yield "lower-case", f"must have names in lower case, got {show(name)}"
        elif name.startswith(b":"):
            yield "pseudo", f"must not have pseudo-header fields, got {show(name)}"


HEADERS = Kind(_headers, ("lower-case", "pseudo"), many=True)


def _accept_headers(value: object) -> Flaws:
    yield from _headers(value)
    for pair in items(value):
        if isinstance(pair, (list, tuple)) and len(pair) == 2:
            name = pair[0]
            if isinstance(name, bytes) and name.lower() == b"sec-websocket-protocol":
                yield "subprotocol", "must not have sec-websocket-protocol; say it by `subprotocol`"


ACCEPT_HEADERS = Kind(_accept_headers, (*HEADERS.aspects, "subprotocol"), many=True)
