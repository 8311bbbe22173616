"""One request on a FastCGI connection, and its response.

What this file alone decides: how much content there is on either side, and what becomes of a
response that cannot be completed. Which records may come is the engine's business.

::

    remote   IN_PARAMS ──the last of them──▶ IN_STDIN ──its end──▶ ENDED
    local    WAITING ──send_head──▶ BODY ──the last of it──▶ OVER

Rules:

1. A response goes to STDOUT as CGI has it: head, empty line, content. No 1xx and no trailers: a
   front takes them for the response, or for content.
2. What is longer or shorter than the length said for it is an error, of whoever said it.
3. The end is END_REQUEST with 0. A response that breaks off must not look like one: see
   `FastCGIEngine.break_off`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnicorn.errors import LocalProtocolError
from omnicorn.ports import HIGH_WATER

if TYPE_CHECKING:
    from omnicorn.ports import Headers, StreamHandler
    from omnicorn.protocols.cgi import GatewayHead

IN_PARAMS, IN_STDIN, ENDED = range(3)
WAITING, BODY, OVER = range(3)


class FastCGIStream:
    """`Stream` to the bridge.

    Attributes:
        number: The request's id.
        keep: The front asks to keep the connection.
        remote: What comes next.
        local: How far the response is.
        params: The pieces of PARAMS so far, and...
        size: ...their bytes.
        head: The request, once its parameters are complete, and...
        client: ...the front's peer.
        handler: Gets its content; None before and after.
        left: Content still owed by the front; -1 where it does not say.
        received: Content that has come.
        unread: What of it the application has not taken.
        heard: When the last of it came; before, when the request began.
        pieces: What is written and not yet in a record.
        end: What ends the request, to go behind them; None before its end.
        report: A line for the front's error log, to go in between.
    """

    __slots__ = (
        "_engine",
        "_framed",
        "_owed",
        "client",
        "end",
        "handler",
        "head",
        "heard",
        "keep",
        "left",
        "local",
        "number",
        "params",
        "pieces",
        "received",
        "remote",
        "report",
        "size",
        "takes_content",
        "unread",
    )

    def __init__(self, engine: Any, number: int, keep: bool, now: float) -> None:
        self._engine = engine
        self.number = number
        self.keep = keep
        self.heard = now
        self.remote = IN_PARAMS
        self.local = WAITING
        self.params: list[bytes] = []
        self.size = 0
        self.head: GatewayHead | None = None
        self.client: tuple[str, int] | None = None
        self.handler: StreamHandler | None = None
        self.left = -1
        self.received = 0
        self.unread = 0
        self.pieces: list[bytes] = []
        self.end: bytes | None = None
        self.report = b""
        self.takes_content = True
        self._framed = False
        self._owed = 0

    # ------------------------------------------------------------------ the verbs

    @property
    def is_responding(self) -> bool:
        """See `Stream`."""
        return self.local == BODY

    def send_informational(self, status: int, headers: Headers) -> None:
        """See `Stream`; nothing can carry it."""

    def send_continue(self) -> None:
        """The front has done so."""

    def send_head(self, status: int, headers: Headers, trailers: bool = False) -> None:
        if self.local != WAITING:
            raise LocalProtocolError("the response's head comes once, after the request's")
        try:
            key = (status, *headers)
        except TypeError:
            raise LocalProtocolError(f"headers must be pairs, not {headers!r:.80}") from None
        engine = self._engine
        encoded = engine.encode(key)
        self.local = BODY
        head = self.head
        if encoded.no_content or (head is not None and head.head_only):
            self.takes_content = False
        elif encoded.length >= 0:
            self._framed = True
            self._owed = encoded.length
        engine.write(self, encoded.lines + b"\r\n")

    def send_data(self, data: bytes, end: bool) -> bool:
        if self.local != BODY:
            raise LocalProtocolError("content comes between the response's head and its end")
        engine = self._engine
        if data and self.takes_content:
            size = len(data)
            if self._framed:
                if size > self._owed:
                    raise LocalProtocolError(
                        f"content-length leaves {self._owed} bytes to send, and {size} were given"
                    )
                self._owed -= size
            engine.write(self, data)
        if end:
            if self._owed:
                engine.break_off(self)
                raise LocalProtocolError(
                    f"the response ended {self._owed} bytes short of content-length"
                )
            engine.finish(self)
        elif engine.pending > HIGH_WATER:
            engine.on_full()
        return not engine.blocked

    def send_trailers(self, headers: Headers) -> None:
        """The content has ended already, and nothing can carry them."""

    def reserve_raw(self, count: int) -> bool:
        """See `Stream`; content goes in records."""
        return False

    def raw_written(self) -> None:
        """Never: nothing is reserved."""

    def consumed(self, count: int) -> None:
        if self.local != OVER:
            self.unread -= count
            self._engine.on_consumed(count)

    def reset(self) -> None:
        if self.local != OVER:
            self._engine.break_off(self)
