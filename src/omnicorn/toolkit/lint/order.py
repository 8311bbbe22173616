"""Which event may follow which, by scope type and direction, and how a scope may end.

What this file alone decides: the state of a conversation as the specification sees it, and what
is out of place in it. Each class below is one scope type. The tables say what an event breaks
in a phase in which it cannot be; a pair that is not there is in order.

1. `received` and `sent` look, they change nothing; `on_received` and `on_sent` move on.
2. What the server refused was not sent: the caller puts ``phase`` back.
3. After a disconnect an application may stop wherever it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from omnicorn.toolkit.lint.kinds import is_int, items, show
from omnicorn.toolkit.lint.shapes import broken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnicorn.toolkit.lint.shapes import Findings

    Event = dict[str, Any]
    Table = Mapping[str, Mapping[int, str]]


class Order:
    """A conversation; see the subclasses.

    Args:
        scope: Its scope.

    Attributes:
        phase: How far the application's answer is.
        gone: The client has left, and the application could know.
    """

    out_of_place: ClassVar[Table] = {}
    """The rule that an event of the application breaks, by its type and the phase."""

    where: ClassVar[tuple[str, ...]] = ()
    """The phases in words."""

    DONE: ClassVar[int]
    """The last phase."""

    def __init__(self, scope: Event) -> None:
        self.scope = scope
        self.phase = 0
        self.gone = False

    def received(self, event: Event) -> Findings:
        """What is wrong with an event that the server gives now."""
        raise NotImplementedError

    def on_received(self, event: Event) -> None:
        """The server gave it."""
        raise NotImplementedError

    def sent(self, event: Event) -> Findings:
        """What is wrong with an event that the application sends now."""
        rule = self.out_of_place.get(event["type"], {}).get(self.phase)
        if rule is not None:
            yield broken(rule, f"{event['type']} was sent {self.where[self.phase]}")

    def on_sent(self, event: Event) -> None:
        """The application sent it."""
        raise NotImplementedError

    def returned(self) -> Findings:
        """What is wrong if the application returns now."""
        raise NotImplementedError


class HTTPOrder(Order):
    """``http``: a start, a body, perhaps trailers.

    ::

        START ──start──▶ HEAD ──body──▶ BODY ⟲ ──last──▶ DONE
                              └────────────────last──▶ TRAILERS ⟲ ──last──▶ DONE
    """

    START, HEAD, BODY, TRAILERS, DONE = range(5)
    where = (
        "before http.response.start",
        "after http.response.start",
        "after a part of the body",
        "after the whole body",
        "after the end of the response",
    )
    _late: ClassVar[dict[int, str]] = {
        TRAILERS: "http.response.body.after-end",
        DONE: "http.response.body.after-end",
    }
    _content: ClassVar[dict[int, str]] = {START: "http.response.start.first", **_late}
    out_of_place: ClassVar[Table] = {
        "http.response.start": dict.fromkeys(range(1, 5), "http.response.start.once"),
        "http.response.body": _content,
        "http.response.zerocopysend": _content,
        "http.response.pathsend": {
            START: "http.response.pathsend.order",
            BODY: "http.response.pathsend.order",
            **_late,
        },
        "http.response.push": {START: "http.response.push.order", **_late},
        # The specification once had it after the start; a server may ignore it there.
        "http.response.early_hint": _late,
        "http.response.debug": {
            HEAD: "http.response.debug.order",
            BODY: "http.response.debug.order",
            **_late,
        },
        "http.response.trailers": {
            START: "http.response.trailers.order",
            HEAD: "http.response.trailers.order",
            BODY: "http.response.trailers.order",
            DONE: "http.response.body.after-end",
        },
    }

    def __init__(self, scope: Event) -> None:
        super().__init__(scope)
        self._request_over = False
        self._announced = False
        self._debugged = False

    def received(self, event: Event) -> Findings:
        if event["type"] == "http.request":
            if self.gone:
                yield broken("receive.after-disconnect", "got http.request")
            elif self._request_over:
                yield broken("http.request.after-end", f"got {show(event)}")

    def on_received(self, event: Event) -> None:
        if event["type"] == "http.disconnect":
            self.gone = True
        elif event["type"] == "http.request":
            self._request_over = not event.get("more_body", False)

    def sent(self, event: Event) -> Findings:
        kind = event["type"]
        if kind == "http.response.trailers" and not self._announced and self.phase != self.START:
            yield broken("http.response.trailers.announced", "they were not")
            return
        yield from super().sent(event)
        if kind == "http.response.debug" and self._debugged and self.phase == self.START:
            yield broken("http.response.debug.order", "it was sent again")
        elif kind == "http.response.start" and event.get("trailers") is True:
            offered = self.scope.get("extensions")
            if not isinstance(offered, dict) or "http.response.trailers" not in offered:
                yield broken("http.response.start.trailers.offered", "it is not")

    def on_sent(self, event: Event) -> None:
        match event["type"]:
            case "http.response.start":
                self.phase = self.HEAD
                self._announced = bool(event.get("trailers", False))
            case "http.response.body" | "http.response.zerocopysend" | "http.response.pathsend":
                if event.get("more_body", False):
                    self.phase = self.BODY
                elif self.phase < self.TRAILERS:
                    self.phase = self.TRAILERS if self._announced else self.DONE
            case "http.response.trailers":
                if not event.get("more_trailers", False):
                    self.phase = self.DONE
            case "http.response.debug":
                self._debugged = True

    def returned(self) -> Findings:
        if self.gone:
            return
        if self.phase == self.START:
            yield broken("http.response.start.missing", "it sent none")
        elif self.phase < self.TRAILERS:
            yield broken("http.response.body.missing", f"it returned {self.where[self.phase]}")
        elif self.phase == self.TRAILERS:
            yield broken("http.response.trailers.missing", "it did not")


class WebSocketOrder(Order):
    """``websocket``: a handshake that is accepted or refused, then messages until a close.

    ::

        START ──accept──▶ OPEN ⟲ send ──close──▶ DONE
              ──close──▶ DONE
              ──websocket.http.response.start──▶ DENYING ⟲ body ──last──▶ DONE
    """

    START, OPEN, DENYING, DONE = range(4)
    where = (
        "before websocket.accept",
        "after websocket.accept",
        "within a denial",
        "after the end",
    )
    _denial: ClassVar[dict[int, str]] = {
        OPEN: "websocket.http.response.order",
        DONE: "websocket.close.last",
    }
    out_of_place: ClassVar[Table] = {
        "websocket.accept": {
            OPEN: "websocket.accept.once",
            DENYING: "websocket.http.response.order",
            DONE: "websocket.close.last",
        },
        "websocket.send": {
            START: "websocket.send.before-accept",
            DENYING: "websocket.http.response.order",
            DONE: "websocket.close.last",
        },
        "websocket.close": {
            DENYING: "websocket.http.response.order",
            DONE: "websocket.close.last",
        },
        "websocket.http.response.start": {DENYING: "websocket.http.response.order", **_denial},
        "websocket.http.response.body": {START: "websocket.http.response.order", **_denial},
    }

    def __init__(self, scope: Event) -> None:
        super().__init__(scope)
        self._connected = False
        self._accepted = False

    def received(self, event: Event) -> Findings:
        kind = event["type"]
        if kind == "websocket.disconnect":
            if not self._connected:
                yield broken("websocket.connect.first", f"got {kind} before it")
        elif self.gone:
            yield broken("receive.after-disconnect", f"got {kind}")
        elif (kind == "websocket.connect") == self._connected:
            found = f"got {kind} before it" if not self._connected else "got it again"
            yield broken("websocket.connect.first", found)
        elif kind == "websocket.receive":
            if not self._accepted:
                yield broken("websocket.receive.before-accept", f"it came {self.where[self.phase]}")
            yield from _content_flaws(event)

    def on_received(self, event: Event) -> None:
        if event["type"] == "websocket.connect":
            self._connected = True
        elif event["type"] == "websocket.disconnect":
            self.gone = True

    def sent(self, event: Event) -> Findings:
        yield from super().sent(event)
        match event["type"]:
            case "websocket.accept":
                subprotocol = event.get("subprotocol")
                offered = [*items(self.scope.get("subprotocols"))]
                if isinstance(subprotocol, str) and subprotocol not in offered:
                    yield broken(
                        "websocket.accept.subprotocol.offered",
                        f"got {show(subprotocol)}, offered are {show(offered)}",
                    )
            case "websocket.send":
                yield from _content_flaws(event)
            case "websocket.close" if self.phase == self.OPEN:
                yield from _close_flaws(event)

    def on_sent(self, event: Event) -> None:
        match event["type"]:
            case "websocket.accept":
                self.phase = self.OPEN
                self._accepted = True
            case "websocket.close":
                self.phase = self.DONE
            case "websocket.http.response.start":
                self.phase = self.DENYING
            case "websocket.http.response.body" if not event.get("more_body", False):
                self.phase = self.DONE

    def returned(self) -> Findings:
        if self.gone:
            return
        if self.phase == self.START:
            yield broken("websocket.unanswered", "it did neither")
        elif self.phase == self.DENYING:
            yield broken("websocket.http.response.missing", "it did not")


class LifespanOrder(Order):
    """``lifespan``: a startup and its answer, a shutdown and its answer.

    ::

        START ──startup──▶ STARTING ──complete──▶ STARTED ──shutdown──▶ STOPPING ──complete──▶ DONE
                                    ──failed──▶ DONE                             ──failed──▶ DONE
    """

    START, STARTING, STARTED, STOPPING, DONE = range(5)
    where = (
        "before lifespan.startup was received",
        "before lifespan.startup was answered",
        "before lifespan.shutdown was received",
        "before lifespan.shutdown was answered",
        "after the end",
    )
    _startup = dict.fromkeys((START, STARTED, STOPPING, DONE), "lifespan.startup.answer")
    _shutdown = dict.fromkeys((START, STARTING, STARTED, DONE), "lifespan.shutdown.answer")
    out_of_place: ClassVar[Table] = {
        "lifespan.startup.complete": _startup,
        "lifespan.startup.failed": _startup,
        "lifespan.shutdown.complete": _shutdown,
        "lifespan.shutdown.failed": _shutdown,
    }

    def __init__(self, scope: Event) -> None:
        super().__init__(scope)
        self._given: set[str] = set()

    def received(self, event: Event) -> Findings:
        kind = event["type"]
        if kind == "lifespan.startup":
            if self._given:
                yield broken("lifespan.startup.first", "got it again")
        elif not self._given:
            yield broken("lifespan.startup.first", f"got {kind} before it")
        elif kind in self._given or self.phase != self.STARTED:
            found = "got it again" if kind in self._given else f"it came {self.where[self.phase]}"
            yield broken("lifespan.shutdown.order", found)

    def on_received(self, event: Event) -> None:
        self._given.add(event["type"])
        # An application that answers before it is asked is ahead.
        if event["type"] == "lifespan.shutdown":
            self.phase = max(self.phase, self.STOPPING)
        else:
            self.phase = max(self.phase, self.STARTING)

    def on_sent(self, event: Event) -> None:
        complete = event["type"] == "lifespan.startup.complete"
        self.phase = self.STARTED if complete else self.DONE

    def returned(self) -> Findings:
        if self.phase < self.STARTED:
            yield broken("lifespan.startup.unanswered", f"it returned {self.where[self.phase]}")
        elif self.phase < self.DONE:
            yield broken("lifespan.shutdown.unanswered", f"it returned {self.where[self.phase]}")


ORDERS: dict[str, type[Order]] = {
    "http": HTTPOrder,
    "websocket": WebSocketOrder,
    "lifespan": LifespanOrder,
}


def _content_flaws(event: Event) -> Findings:
    if (event.get("bytes") is None) == (event.get("text") is None):
        yield broken(f"{event['type']}.content", f"got {show(event)}")


def _close_flaws(event: Event) -> Findings:
    code = event.get("code", 1000)
    if is_int(code) and (not 1000 <= code <= 4999 or code in (1004, 1005, 1006, 1015)):
        yield broken("websocket.close.code.sendable", f"got {code}")
    reason = event.get("reason")
    if isinstance(reason, str) and len(reason.encode(errors="replace")) > 123:
        yield broken("websocket.close.reason.length", f"got {show(reason)}")
