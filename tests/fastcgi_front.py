"""A FastCGI front in the hands of a test: it makes records, and understands those that come."""

from __future__ import annotations

import struct
from typing import NamedTuple

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA = range(1, 9)
GET_VALUES, RESULT, UNKNOWN = 9, 10, 11
RESPONDER, AUTHORIZER = 1, 2

COMPLETE, CANT_MPX, OVERLOADED, UNKNOWN_ROLE = range(4)

VARIABLES = {
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "192.0.2.1",
    "REMOTE_PORT": "45862",
    "SERVER_ADDR": "198.51.100.1",
    "SERVER_PORT": "443",
    "SERVER_NAME": "example.org",
    "CONTENT_LENGTH": "",
    "HTTP_HOST": "example.org",
}


class Record(NamedTuple):
    kind: int
    number: int
    content: bytes


BROKEN = Record(0, 0, b"")
"""In the place of what is no record at all."""


def record(kind: int, number: int = 1, content: bytes = b"", padding: int = 0) -> bytes:
    head = struct.pack(">BBHHBx", 1, kind, number, len(content), padding)
    return head + content + bytes(padding)


def begin(number: int = 1, role: int = RESPONDER, keep: bool = True) -> bytes:
    return record(BEGIN, number, struct.pack(">HB5x", role, keep))


def pairs(variables: dict[str, str]) -> bytes:
    out = b""
    for text in variables.items():
        name, value = text[0].encode(), text[1].encode()
        for size in (len(name), len(value)):
            out += bytes([size]) if size < 128 else struct.pack(">I", size | 1 << 31)
        out += name + value
    return out


def params(number: int = 1, padding: int = 0, **variables: str) -> bytes:
    block = pairs({**VARIABLES, **variables})
    return record(PARAMS, number, block, padding) + record(PARAMS, number)


def request(
    path: str = "/", number: int = 1, body: bytes = b"", keep: bool = True, **variables: str
) -> bytes:
    """A whole request."""
    if body:
        variables = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body)), **variables}
    content = b"".join(
        record(STDIN, number, body[at : at + 65535]) for at in range(0, len(body), 65535)
    )
    return (
        begin(number, keep=keep)
        + params(number, 0, REQUEST_URI=path, **variables)
        + content
        + record(STDIN, number)
    )


def records(wire: bytes) -> list[Record]:
    """What came, record by record; an AssertionError if it does not end with one.

    Where a response was broken off, the last is `BROKEN`.
    """
    found: list[Record] = []
    while wire:
        version, kind, number, length, padding = struct.unpack_from(">BBHHBx", wire)
        if version == 0:
            assert wire == bytes(8)
            return [*found, BROKEN]
        assert version == 1
        content = wire[8 : 8 + length]
        assert len(content) == length, "the output ends within a record"
        found.append(Record(kind, number, content))
        wire = wire[8 + length + padding :]
    return found


class Answer(NamedTuple):
    """What became of one request.

    Attributes:
        stdout: Its output.
        stderr: What goes to the front's error log.
        app_status: END_REQUEST's; None while the request is not ended.
        protocol_status: Likewise.
        closed: STDOUT was ended by an empty record.
        broken: The connection was, and this request not complete.
    """

    stdout: bytes
    stderr: bytes
    app_status: int | None
    protocol_status: int | None
    closed: bool
    broken: bool = False

    @property
    def body(self) -> bytes:
        return self.stdout.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        assert self.stdout.startswith(b"Status: ")
        return int(self.stdout[8:11])


def answer(wire: bytes, number: int = 1) -> Answer:
    """What *wire* says of the request *number*, which is on it once."""
    stdout = stderr = b""
    app = protocol = None
    closed = broken = False
    for one in records(wire):
        broken = one is BROKEN and app is None
        if one.number != number:
            continue
        assert app is None, "a record comes after END_REQUEST"
        if one.kind == STDOUT:
            assert not closed, "STDOUT goes on after its end"
            stdout += one.content
            closed = not one.content
        elif one.kind == STDERR:
            stderr += one.content
        elif one.kind == END:
            app, protocol = struct.unpack(">IB3x", one.content)
    return Answer(stdout, stderr, app, protocol, closed, broken)
