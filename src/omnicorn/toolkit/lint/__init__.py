"""A middleware that checks applications and servers against the ASGI specification.

What ``wsgiref.validate`` is for WSGI: `lint` stands between a server and an application and
judges both, the scope, the events in both directions and their order, and how the application
ends. Each violation names its rule, the section of the specification, and whose fault it is::

    app = lint(app)
    response = await HTTPCommunicator(app, "GET", "/").get_response()

The rules are data, in `omnicorn.toolkit.lint.rules`. It costs time: it is for tests and for
development, not for production.
"""

from omnicorn.toolkit.lint.middleware import Lint, lint
from omnicorn.toolkit.lint.rules import RULES, Rule
from omnicorn.toolkit.lint.violations import ASGILintError, ASGILintWarning, Violation

__all__ = [
    "RULES",
    "ASGILintError",
    "ASGILintWarning",
    "Lint",
    "Rule",
    "Violation",
    "lint",
]
