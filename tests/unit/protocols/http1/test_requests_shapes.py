"""Heads like the one before on their connection: never another result than parsed alone."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import RemoteProtocolError
from omnicorn.http.limits import Limits
from omnicorn.protocols.http1 import RequestParser
from omnicorn.protocols.http1.requests import Head

LIMITS = Limits(body=30, fields=8)
MEMORY = ("_fields", "lines", "shape")  # what a head remembers, and does not say
FIRST = [
    "POST /a?b HTTP/1.1",
    "Host: a",
    "X-Id: 17",
    "Accept: */*",
    "Cookie: c=1; d",
    "Content-Length: 3",
]


def block_of(lines: list[str]) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def told(head: Head | None) -> Any:
    """All a head says."""
    slots = [slot for kind in Head.__mro__ for slot in getattr(kind, "__slots__", ())]
    return head and {slot: getattr(head, slot) for slot in slots if slot not in MEMORY}


def outcome(parser: RequestParser, block: bytes, before: Head | None) -> tuple[Any, Head | None]:
    try:
        head = parser.parse(block, before)
    except RemoteProtocolError as error:
        return (type(error), error.status, error.reason), None
    return told(head), head


class Connection:
    """Parses one head after the other, and each alone as well; both must say the same."""

    def __init__(self) -> None:
        self.parser = RequestParser(LIMITS)
        self.before: Head | None = None

    def parse(self, block: bytes) -> Head | None:
        result, head = outcome(self.parser, block, self.before)
        assert result == outcome(RequestParser(LIMITS), block, None)[0], block
        # A refusal ends a connection. That what came before stays as it was, shows better if
        # this one goes on with it.
        self.before = head or self.before
        return head


VALUES = st.sampled_from(["", " ", "1", "22", "333", " 17", "\t17 ", "18", "a:b", "c=2; d", "\xe9"])
FLAWED = st.sampled_from(["x\0", "a\rb", "a\nb", "1\r\n", "1\r\n y", "\x0b1", "1\x0c", "\x7f"])
SEVERAL = st.sampled_from(
    ["1\r\nAccept: */*", "1\r\nAccept: */*\r\nCookie: z", "1\r\n\r\nGET / HTTP/1.1"]
)
NAMES = st.sampled_from(
    ["X-Id", "x-id", "Accept", "Cookie", "Content-Length", "Connection", "Host", "X Y", ""]
)
PATHS = st.sampled_from(["POST /a?b", "POST /b?a", "GET /longer", "HEAD /", "GET http://b/"])
REQUEST_LINES = st.sampled_from(
    ["GET / HTTP/1.0", "GET /\r HTTP/1.1", "GET /\n HTTP/1.1", "GET /", "", "GET /\r\nX: 1"]
)
PLACES = st.integers(0, 7)
CHANGES = st.one_of(
    st.tuples(st.just("value"), PLACES, VALUES | FLAWED | SEVERAL),
    st.tuples(st.just("value"), PLACES, st.integers(0, 150).map(str)),
    st.tuples(st.just("name"), PLACES, NAMES),
    st.tuples(st.just("space"), PLACES, st.sampled_from(["", " ", "  ", "\t"])),
    st.tuples(st.just("line"), st.just(0), PATHS.map("{} HTTP/1.1".format) | REQUEST_LINES),
    st.tuples(st.just("add"), PLACES, st.tuples(NAMES, VALUES).map(": ".join)),
    st.tuples(st.just("remove"), PLACES, st.just("")),
    st.tuples(st.just("swap"), PLACES, st.just("")),
)


def changed(lines: list[str], kind: str, place: int, text: str) -> list[str]:
    if kind == "line":
        return [text, *lines[1:]]
    place = 1 + place % len(lines)
    if kind == "add":
        return [*lines[:place], text, *lines[place:]]
    before, line, after = lines[:place], "".join(lines[place : place + 1]), lines[place + 1 :]
    name, _, value = line.partition(":")
    if kind == "remove" or not line:
        return before + after
    if kind == "swap":
        return [*before, *after[:1], line, *after[1:]]
    if kind == "name":
        return [*before, f"{text}:{value}", *after]
    text += value.strip() if kind == "space" else ""
    return [*before, f"{name}:{text}" if kind == "space" else f"{name}: {text}", *after]


@given(st.lists(st.tuples(st.booleans(), st.lists(CHANGES, min_size=1, max_size=3)), max_size=12))
def test_no_sequence_of_heads_changes_what_one_means(
    steps: list[tuple[bool, list[tuple[str, int, str]]]],
) -> None:
    connection = Connection()
    lines = FIRST
    for number, (kept, changes) in enumerate(steps):
        # The shape is learned from these, and asked in between: each step may be its first.
        connection.parse(block_of([*FIRST[:2], f"X-Id: {number}", *FIRST[3:]]))
        other = lines
        for change in changes:
            other = changed(other, *change)
        connection.parse(block_of(other))
        if kept:
            lines = other


@given(st.lists(st.lists(st.text("12 ,\t\xe9", max_size=4), min_size=3, max_size=3), max_size=12))
def test_values_of_any_length_find_their_place(rows: list[list[str]]) -> None:
    connection = Connection()
    for one, two, three in rows:
        head = connection.parse(
            block_of([f"GET /{one.strip()} HTTP/1.1", "Host: a", f"A:{two}", "B: b", f"C: {three}"])
        )
        assert head is None or head.headers[2] == (b"b", b"b")


def learned(*others: str) -> Connection:
    connection = Connection()
    for value in ("17", "18", "19", *others):
        head = connection.parse(block_of([*FIRST[:2], f"X-Id: {value}", *FIRST[3:]]))
        assert head is not None
    return connection


def test_a_fourth_head_is_not_taken_apart_into_lines() -> None:
    connection = learned()
    shape = connection.before.shape  # type: ignore[union-attr]
    assert shape is not None and len(shape.fixed) == 2
    head = connection.parse(block_of([*FIRST[:2], "X-Id: 99", *FIRST[3:]]))
    assert head is not None and head.shape is shape and head.lines is None
    assert head.fields[b"x-id"] == b"99"


def test_a_shape_learns_every_line_that_ever_differed() -> None:
    connection = learned()
    connection.parse(block_of([*FIRST[:2], "X-Id: 17", FIRST[3], "Cookie: e", FIRST[5]]))
    shape = connection.before.shape  # type: ignore[union-attr]
    assert shape is not None and [name for _, _, name in shape.values] == [b"x-id", b"cookie"]
    head = connection.parse(block_of([*FIRST[:4], "Cookie: f", FIRST[5]]))
    assert head is not None and head.shape is not None and head.shape.fixed is shape.fixed


def test_values_as_long_together_but_not_each_find_their_place() -> None:
    connection = Connection()
    for one, two in [("1", "22"), ("2", "33"), ("333", ""), ("", "444"), ("55", "5")]:
        head = connection.parse(block_of(["GET / HTTP/1.1", "Host: a", f"A: {one}", f"B: {two}"]))
        assert head is not None
        assert head.headers[1:] == ((b"a", one.encode()), (b"b", two.encode()))
        assert head.shape is not None or one == "1"


@pytest.mark.parametrize(
    "value",
    ["1\0", "\r1", "1\n", "\x0b1", "1\x0c", "\x7f", "1\r\n 2", "1\r\nHost: b", "1\r\nAccept: */*",
     "1\r\nAccept: */*\r\nCookie: c=1; d\r\nContent-Length: 3\r\n\r\n"],
)  # fmt: skip
def test_a_value_cannot_hold_more_than_a_value(value: str) -> None:
    """Also where it is as long as the one before, so that no end is searched for."""
    connection = learned("17" if len(value) == 2 else "x" * len(value))
    for _ in range(2):
        connection.parse(block_of([*FIRST[:2], f"X-Id: {value}", *FIRST[3:]]))


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.0",
        "GET http://b/ HTTP/1.1",
        "GET /\r HTTP/1.1",
        "GET /\n HTTP/1.1",
        "GET",
        "",
        "GET /\r\nX: 1 HTTP/1.1",
        "GET /\r\n\r\nGET / HTTP/1.1",
        "HEAD /x HTTP/1.1",
    ],
)
def test_another_request_line_is_judged_like_a_first_one(line: str) -> None:
    connection = Connection()
    for path in ("x", "y", "z" * max(1, len(line) - len("POST / HTTP/1.1"))):
        head = connection.parse(block_of([f"POST /{path} HTTP/1.1", *FIRST[1:]]))
    assert head is not None and head.shape is not None and head.shape.line
    for _ in range(2):
        connection.parse(block_of([line, *FIRST[1:]]))


def test_a_head_of_too_many_differences_is_parsed_in_full() -> None:
    connection = Connection()
    heads = [
        connection.parse(
            block_of(["GET / HTTP/1.1", "Host: a", *(f"X{i}: {round}" for i in range(7))])
        )
        for round in range(3)
    ]
    assert [head is not None and head.shape is not None for head in heads] == [False, True, True]
    long = RequestParser()
    before = None
    for round in range(3):
        before = long.parse(
            block_of(["GET / HTTP/1.1", "Host: a", *(f"X{i}: {round}" for i in range(9))]), before
        )
    assert before is not None and before.shape is None and before.lines is not None


def test_what_a_connection_keeps_for_the_next_head_does_not_grow() -> None:
    """Its shape takes the place of the lines that its first head keeps."""

    def head_of(number: int) -> bytes:
        more = [f"Field-{i}: {40 * 'x'}" for i in range(9)]
        return block_of(
            ["GET / HTTP/1.1", "Host: a", *more, f"X-Id: {number:032}", f"Y: {number:032}"]
        )

    def kept(heads: int) -> float:
        parser = RequestParser()
        for number in range(600):  # the server's memories are as full as they get
            parser.parse(head_of(number))
        tracemalloc.start()
        connections: list[Head | None] = []
        for number in range(200):
            head: Head | None = None
            for turn in range(heads):
                head = parser.parse(head_of(1000 + 10 * number + turn), head)
            connections.append(head)
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size / len(connections)

    first, tenth = kept(1), kept(10)
    assert tenth < first + 100


def test_no_request_line_is_none_also_where_it_differs_each_time() -> None:
    connection = Connection()
    for path in "xyz":
        assert connection.parse(block_of([f"POST /{path} HTTP/1.1", *FIRST[1:]]))
    assert connection.parse(block_of(["", *FIRST[1:4], "Cookie: other", FIRST[5]])) is None


def test_more_than_a_head_is_none_also_where_it_begins_like_the_one_before() -> None:
    connection = learned()
    block = block_of(FIRST)
    assert connection.parse(block + block) is None
