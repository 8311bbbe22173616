"""Requests of a front server by SCGI and uwsgi, and a connection in the hands of a test.

`Recorder` is owner and handler in one; it keeps what it was told, and checks that nothing is
said out of turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.http.defaults import DefaultFields

if TYPE_CHECKING:
    from omnicorn.http.limits import Limits

VARIABLES = {
    "CONTENT_LENGTH": "0",
    "SCGI": "1",
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/x?q",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_HOST": "example.org",
}


def scgi(block: bytes, body: bytes = b"") -> bytes:
    return b"%d:%b,%b" % (len(block), block, body)


def uwsgi(block: bytes, body: bytes = b"") -> bytes:
    return b"\0%b\0%b%b" % (len(block).to_bytes(2, "little"), block, body)


def scgi_request(body: bytes = b"", /, **more: str) -> bytes:
    """An SCGI request; variables that are empty are left out, but CONTENT_LENGTH."""
    variables = VARIABLES | {"CONTENT_LENGTH": str(len(body))} | more
    items = [(name, value) for name, value in variables.items() if value]
    return scgi(b"".join(f"{n}\0{v}\0".encode("latin-1") for n, v in items), body)


def uwsgi_request(body: bytes = b"", /, **more: str) -> bytes:
    """A uwsgi request, likewise."""
    variables = VARIABLES | {"CONTENT_LENGTH": str(len(body))} | more
    block = b""
    for name, value in variables.items():
        for text in (name, value) if value and name != "SCGI" else ():
            block += len(text).to_bytes(2, "little") + text.encode("latin-1")
    return uwsgi(block, body)


class Recorder:
    """See above.

    Attributes:
        calls: What was said, in order.
        wire: What was flushed.
        requests: The heads.
    """

    def __init__(self, kind: Any, limits: Limits | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.wire = b""
        self.requests: list[Any] = []
        self.content = b""
        self.over = False
        self.answer_at_once = False
        self.engine: Any = kind(
            self,
            kind.parser(limits),
            kind.encoder(),
            DefaultFields(b"omnicorn", True, [(b"x-extra", b"1")], lambda: 0.0),
            Recorder.on_output,
        )

    def on_output(self) -> None:
        assert not self.engine.pending, "announced twice"
        self.calls.append(("output", None))

    def on_request(self, stream: Any, head: Any) -> Recorder:
        assert stream is self.engine and not self.requests
        self.requests.append(head)
        if self.answer_at_once:
            self.answer()
        return self

    def on_data(self, data: bytes) -> None:
        assert data and not self.over
        self.content += data

    def on_end(self) -> None:
        assert not self.over
        self.calls.append(("end", None))

    def on_reset(self, error: Any) -> None:
        assert not self.over
        self.over = True
        self.calls.append(("reset", error))

    def on_remote_closed(self) -> None:
        self.calls.append(("remote_closed", None))

    def on_full(self) -> None:
        self.calls.append(("full", None))

    def on_readable(self, wanted: bool) -> None:
        self.calls.append(("readable", wanted))

    def on_complete(self, stream: Any) -> None:
        self.over = True
        self.calls.append(("complete", None))
        self.flush()

    def flush(self) -> None:
        self.wire += b"".join(self.engine.take())

    def answer(self, body: bytes = b"hi") -> None:
        self.engine.send_head(200, [])
        self.engine.send_data(body, True)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]
