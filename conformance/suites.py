"""The test suites of asgiref and of those who use it: what they are, and what they need.

What this file alone decides: which releases are run, what is installed for them, which of their
tests, and which of these may fail, with the reason for each.

Rules:

- Nothing in `needs` may depend on asgiref: it must not be there at all, so that whatever says
  `import asgiref` gets the toolkit or fails.  What does depend on it is in `bare`, and its other
  dependencies in `needs`.
- A test is in `known` only where the toolkit means to differ.  It has to fail: one that passes
  fails the run, so that the list never outlives its reasons.
- A test that fails over asgiref too is nobody's news, and needs no place in the list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omnicorn.toolkit.alias import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

ASGIREF = f"asgiref=={VERSION}"
"""The release that the toolkit stands for, which failing tests are run over once more."""

_PYTEST = ("pytest", "pytest-asyncio", "pytest-timeout")
_DJANGO = ("sqlparse>=0.5", "tzdata")


@dataclass(frozen=True, slots=True)
class Suite:
    """A test suite that somebody else wrote.

    Attributes:
        name: The name on the command line, and of its folder in `.conformance`.
        release: What the package index is asked for on the Python that runs this.
        newest: The same on the newest Python there is.
        needs: Requirements, installed with what they depend on.
        bare: Requirements, installed without.
        installed: Whether the release itself is installed, or only its tests are run.
        tests: Where its tests are, in its sources.
        archive: Where sources with the tests are, if the release has none; `{version}` is
            filled in.
        runner: `pytest`, or Django's own `runtests`.
        labels: The tests to be run; those that a release does not have are left out.
        variables: Set in the environment of the tests.
        known: The tests that fail because the toolkit means to differ, and why.
    """

    name: str
    release: str
    newest: str
    needs: tuple[str, ...]
    bare: tuple[str, ...] = ()
    installed: bool = True
    tests: str = "tests"
    archive: str = ""
    runner: str = "pytest"
    labels: tuple[str, ...] = ("tests",)
    variables: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[str, str] = field(default_factory=dict)


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="asgiref",
            release=ASGIREF,
            newest=ASGIREF,
            needs=(*_PYTEST, "packaging"),
            installed=False,
            known={
                "tests/test_wsgi.py::test_wsgi_path_encoding": (
                    'the application yields b"" alone; PEP 3333 has the head held back until '
                    "there is a body, so that head and end come in two events, not in three"
                ),
                "tests/test_sync_thread_sensitive_context.py"
                "::test_plain_context_allows_calls_after_exit": (
                    "it demands a new thread for a call after the context; the toolkit takes a "
                    "worker of its pool, which may be the one that the context has given back"
                ),
            },
        ),
        Suite(
            name="django",
            release="django>=5.2,<5.3",
            newest="django",
            needs=(*_DJANGO, "jinja2", "pyyaml", "tblib", "docutils"),
            runner="runtests",
            # First what is about asyncio, then what has asynchronous code or hops in it.
            labels=(
                "async",
                "asgi",
                "handlers",
                "signals",
                "dispatch",
                "middleware",
                "middleware_exceptions",
                "decorators",
                "test_client",
                "test_client_regress",
                "test_utils",
                "servers",
                "cache",
                "tasks",
                "sessions_tests",
                "auth_tests",
                "csrf_tests",
                "staticfiles_tests",
                "view_tests",
                "template_tests",
                "pagination",
                "mail",
                "logging_tests",
                "requests_tests",
                "responses",
                "httpwrappers",
                "urlpatterns_reverse",
                "i18n",
                "timezones",
                "backends",
                "transactions",
                "deprecation",
            ),
        ),
        Suite(
            name="channels",
            release="channels",
            newest="channels",
            needs=(
                *_PYTEST,
                *_DJANGO,
                "pytest-django",
                "async-timeout",
                "autobahn",
                "twisted[tls]",
            ),
            bare=("django", "daphne"),
            archive="https://github.com/django/channels/archive/refs/tags/{version}.tar.gz",
        ),
        Suite(
            name="daphne",
            release="daphne",
            newest="daphne",
            needs=(*_PYTEST, *_DJANGO, "hypothesis", "autobahn", "twisted[tls]"),
            bare=("django",),
            # One of its tests wants it set.
            variables={"ASGI_THREADS": "3"},
        ),
    )
}
