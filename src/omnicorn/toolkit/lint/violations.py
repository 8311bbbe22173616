"""What a broken rule becomes: a `Violation`, raised, warned of, or handed over.

What this file alone decides: the words in which a violation is told. A rule is one of
`omnicorn.toolkit.lint.rules`; the message says what was found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["application", "server"]
Level = Literal["must", "should"]


@dataclass(frozen=True, slots=True)
class Violation:
    """One breach of the specification.

    Attributes:
        rule: The rule's name, such as ``"http.response.start.status"``.
        side: Who broke it.
        level: ``"must"``, or ``"should"`` for what the specification recommends.
        section: The specification, its version and the section.
        message: What is asked, and what was found.
        where: The scope in which it happened, such as ``"http GET /"``.
    """

    rule: str
    side: Side
    level: Level
    section: str
    message: str
    where: str

    def __str__(self) -> str:
        return f"{self.section}: {self.message} [{self.side}, {self.rule}, {self.where}]"


class ASGILintError(AssertionError):
    """A rule was broken; `violation` has the facts."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(str(violation))
        self.violation = violation


class ASGILintWarning(UserWarning):
    """A rule was broken; `violation` has the facts."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(str(violation))
        self.violation = violation
