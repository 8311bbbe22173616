"""The middleware: everything that passes between a server and an application, looked at.

What this file alone decides: when the rules are applied, and that nothing else happens. Scope,
events, results and exceptions pass as they are, the same objects, and a cancellation passes
like any exception. Two things are copied: a scope or an event with a bare iterator in it, for
looking would use it up.

1. What the application sends is judged before the server sees it; what the server gives,
   before the application does. When violations are raised, the other side never does.
2. Whoever swallows an `ASGILintError` gets it again: it is raised when the application returns.
3. Of a scope type that this package does not know, nothing is judged.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal

from omnicorn.toolkit.lint.kinds import show
from omnicorn.toolkit.lint.order import ORDERS
from omnicorn.toolkit.lint.rules import EXTENSIONS, RECEIVE, RULES, SCOPE_KEYS, SCOPES, SEND
from omnicorn.toolkit.lint.shapes import broken, flaws, replayable, scope_flaws
from omnicorn.toolkit.lint.violations import ASGILintError, ASGILintWarning, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from omnicorn.toolkit.compatibility import SingleCallable
    from omnicorn.toolkit.lint.rules import Shape
    from omnicorn.toolkit.lint.shapes import Findings

    Event = dict[str, Any]
    # Any: judged is what there is, and frameworks that mount an application have their own types.
    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[Any]]

OnViolation = Literal["raise", "warn"] | Callable[[Violation], object]


def lint(
    app: SingleCallable,
    *,
    on_violation: OnViolation = "raise",
    ignore: Iterable[str] = (),
    probe: bool = False,
) -> Lint:
    """Check an application, and the server that calls it, against the ASGI specification.

    ASGI 3.0, HTTP & WebSocket 2.5, Lifespan 2.0 and the extensions; see
    `omnicorn.toolkit.lint.rules` for every rule.

    Args:
        app: An ASGI 3 application.
        on_violation: ``"raise"``: an `ASGILintError`, at the side that broke the rule where
            that can be, and an `ASGILintWarning` for what is only recommended. ``"warn"``: an
            `ASGILintWarning` for everything. Or a callable that is given the `Violation`.
        ignore: Names of rules that are not for this application.
        probe: Before the first scope, call *app* once with a scope type that nobody knows: it
            must raise.

    Returns:
        An application that behaves like *app*.

    Raises:
        ValueError: *on_violation* is none of these, or a rule to *ignore* is unknown.
    """
    return Lint(app, on_violation, frozenset(ignore), probe)


class Lint:
    """A linted application; made by `lint`."""

    __slots__ = ("_app", "_ignore", "_on_violation", "_probe", "_state")

    def __init__(
        self, app: SingleCallable, on_violation: OnViolation, ignore: frozenset[str], probe: bool
    ) -> None:
        if on_violation not in ("raise", "warn") and not callable(on_violation):
            raise ValueError(
                f"on_violation must be 'raise', 'warn' or a callable, not {on_violation!r}"
            )
        if unknown := ignore - RULES.keys():
            raise ValueError(
                f"no rule has the name {', '.join(sorted(unknown))}; they are in "
                "omnicorn.toolkit.lint.RULES"
            )
        self._app = app
        self._on_violation = on_violation
        self._ignore = ignore
        self._probe = probe
        self._state: object = None  # the lifespan's

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> Any:
        if self._probe:
            self._probe = False
            await _ask_the_unknown(self._app, self._reporter(_UNKNOWN))
        reporter = self._reporter(_where(scope))
        if isinstance(scope, dict) and isinstance(scope.get("type"), str):
            kind = scope["type"]
            if kind in SCOPES:
                scope = replayable(SCOPES[kind], scope)
                reporter.report(self._scope_flaws(scope))
                if kind == "lifespan":
                    self._state = scope.get("state")
                return await Exchange(self._app, scope, receive, send, reporter).run()
        else:
            rule = "scope.type" if isinstance(scope, dict) else "scope.dict"
            reporter.report([broken(rule, f"got {show(scope)}")])
        return await self._app(scope, receive, send)

    def _reporter(self, where: str) -> Reporter:
        return Reporter(self._on_violation, self._ignore, where)

    def _scope_flaws(self, scope: Event) -> Findings:
        yield from scope_flaws(scope)
        state = scope.get("state")
        if state is not None and state is self._state and scope["type"] != "lifespan":
            yield broken("scope.state.copied", "it is the same")


class Reporter:
    """Tells violations of one scope.

    Attributes:
        raised: The first that was raised.
    """

    __slots__ = ("_ignore", "_on_violation", "_where", "raised")

    def __init__(self, on_violation: OnViolation, ignore: frozenset[str], where: str) -> None:
        self._on_violation = on_violation
        self._ignore = ignore
        self._where = where
        self.raised: ASGILintError | None = None

    def report(self, findings: Iterable[tuple[str, str]]) -> None:
        """Tell what was found.

        Raises:
            ASGILintError: If that is how it is told.
        """
        for name, message in findings:
            if name in self._ignore:
                continue
            rule = RULES[name]
            violation = Violation(name, rule.side, rule.level, rule.section, message, self._where)
            if callable(self._on_violation):
                self._on_violation(violation)
            elif self._on_violation == "warn" or rule.level == "should":
                warnings.warn(ASGILintWarning(violation), stacklevel=3)
            else:
                error = ASGILintError(violation)
                self.raised = self.raised or error
                raise error


class Exchange:
    """One scope between the server and the application."""

    __slots__ = (
        "_app",
        "_cancelled",
        "_order",
        "_over",
        "_receive",
        "_reporter",
        "_scope",
        "_seen",
        "_send",
        "_task",
    )

    def __init__(
        self, app: SingleCallable, scope: Event, receive: Receive, send: Send, reporter: Reporter
    ) -> None:
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._reporter = reporter
        self._order = ORDERS[scope["type"]](scope)
        self._seen = _spec_keys(scope)
        self._over = False
        self._task: Any = None
        self._cancelled = False

    async def run(self) -> object:
        """Call the application; returns what it does."""
        report = self._reporter.report
        self._task = _current_task()
        cancelling = self._task.cancelling() if self._task is not None else 0
        awaitable: Any = self._app(self._scope, self._judged_receive, self._judged_send)
        if not isinstance(awaitable, Awaitable):
            report(
                [broken("application.awaitable", f"{show(self._app)} returned {show(awaitable)}")]
            )
        try:
            result = await awaitable
        finally:
            self._over = True
        if self._reporter.raised is not None:
            raise self._reporter.raised
        report(self._scope_changes())
        if result is not None:
            report([broken("application.result", f"got {show(result)}")])
        if self._cancelled and self._task.cancelling() > cancelling:
            report([broken("application.cancelled", "it returned")])
        else:  # who gives up because of a cancellation, if wrongly, may leave things undone
            report(self._order.returned())
        return result

    async def _judged_receive(self) -> Any:
        report = self._reporter.report
        report(self._misuse("receive"))
        try:
            event = await self._receive()
        except BaseException as exc:
            self._note_cancellation(exc)
            raise
        shape, findings = self._recognise(event, RECEIVE, "receive")
        report(findings)
        if shape is not None:
            event = replayable(shape, event)
            findings = [*flaws(shape, event), *self._order.received(event)]
            self._order.on_received(event)
            report(findings)
        return event

    async def _judged_send(self, event: Event) -> object:
        report, order = self._reporter.report, self._order
        report(self._misuse("send"))
        shape, findings = self._recognise(event, SEND, "send")
        before, was_gone = order.phase, order.gone
        if shape is not None:
            event = replayable(shape, event)
            findings += [*self._unoffered(shape), *flaws(shape, event), *order.sent(event)]
        report(findings)
        if shape is not None:
            order.on_sent(event)
        after = order.phase
        try:
            return await self._send(event)
        except Exception as exc:
            if order.phase == after:
                order.phase = before  # refused
            if isinstance(exc, OSError):
                order.gone = True
            elif was_gone and before != order.DONE and not findings:
                report([broken("send.disconnected", f"got {show(exc)}")])
            raise
        except BaseException as exc:
            self._note_cancellation(exc)
            raise

    def _misuse(self, used: str) -> Findings:
        if self._over:
            yield broken("application.returned", f"{used} was called")
        yield from self._scope_changes()

    def _scope_changes(self) -> Findings:
        before, self._seen = self._seen, _spec_keys(self._scope)
        for name in sorted(before.keys() | self._seen.keys()):
            if before.get(name) != self._seen.get(name):
                yield broken("application.scope", f"`{name}` changed")

    def _recognise(
        self, event: Any, shapes: dict[str, dict[str, Shape]], direction: str
    ) -> tuple[Shape | None, list[tuple[str, str]]]:
        """An event's shape, None if it is unknown, and what is wrong with that."""
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            return None, [broken(f"{direction}.event", f"got {show(event)}")]
        kind = self._scope["type"]
        shape = shapes[kind].get(event["type"])
        if shape is not None or self._extensions - EXTENSIONS:
            return shape, []
        return None, [
            broken(f"{direction}.unknown", f"got {show(event['type'])} in a scope of type {kind!r}")
        ]

    def _unoffered(self, shape: Shape) -> Findings:
        if shape.extension is not None and shape.extension not in self._extensions:
            offered = ", ".join(sorted(self._extensions)) or "none"
            yield broken("send.extension", f"{shape.name} needs {shape.extension}, of {offered}")

    @property
    def _extensions(self) -> frozenset[str]:
        extensions = self._scope.get("extensions")
        return frozenset(extensions) if isinstance(extensions, dict) else frozenset()

    def _note_cancellation(self, exc: BaseException) -> None:
        # One of a task that the application made, and cancelled, is its own affair.
        if self._task is not None and self._task is _current_task():
            self._cancelled = type(exc).__name__ == "CancelledError"


_UNKNOWN = "omnicorn.lint.probe"


async def _ask_the_unknown(app: SingleCallable, reporter: Reporter) -> None:
    """Call *app* with a scope type that nobody knows."""
    found = ["it returned"]

    async def receive() -> Event:
        found[:] = ["it called receive()"]
        raise LookupError(f"there is nothing to receive for {_UNKNOWN}")

    async def send(event: Event) -> None:
        found[:] = [f"it sent {show(event)}"]
        raise LookupError(f"there is nobody to send to for {_UNKNOWN}")

    try:
        await app({"type": _UNKNOWN, "asgi": {"version": "3.0"}}, receive, send)
    except Exception:
        if found == ["it returned"]:
            return
    reporter.report([broken("application.unknown-scope", found[0])])


def _spec_keys(scope: Event) -> Event:
    """What of a scope is not the application's to change."""
    kept = {name: scope[name] for name in SCOPE_KEYS if name in scope}
    if isinstance(kept.get("headers"), list):
        kept["headers"] = [*kept["headers"]]  # which could be changed in place
    return kept


def _where(scope: Any) -> str:
    if not isinstance(scope, dict):
        return "no scope"
    return " ".join(str(scope[key]) for key in ("type", "method", "path") if key in scope)


def _current_task() -> Any:
    """asyncio's task, if that is what runs."""
    asyncio = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.current_task()
    except RuntimeError:
        return None
