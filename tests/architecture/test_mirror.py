"""Each module of src has a test file of its own, where a reader would look for it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "omnicorn"
UNIT = ROOT / "tests" / "unit"

ELSEWHERE = {
    "ports.py": "tests/contracts",  # structural types: the contract suites run every carrier
    "errors.py": "tests/unit",  # raised and asserted everywhere
    "__main__.py": "tests/e2e",  # is how the end-to-end tests start the server
    "asyncio.py": "tests/unit/runtime/test_serving.py",  # another name for `serve`
    "trio.py": "tests/unit/runtime/test_serving.py",  # likewise
    "asgi/callables.py": "tests/typing",  # type aliases
    "asgi/extensions.py": "tests/typing",  # TypedDicts, checked by mypy and in test_scopes
    "connections/bytestream.py": "tests/unit/connections",  # in what test_stream and others see
    "connections/exclusive.py": "tests/unit/connections",  # likewise, and in test_gateway
    "connections/multiplexed.py": "tests/unit/connections",  # in test_http2 and test_fastcgi
    "http/limits.py": "tests/unit/protocols/http1/test_limits.py",
    "protocols/http2/codes.py": "tests/unit/protocols/http2",  # numbers
    # What they decide shows in what the communicators say.
    "toolkit/testing/conversation.py": "tests/unit/toolkit/testing",
    "toolkit/testing/scopes.py": "tests/unit/toolkit/testing",
    "toolkit/testing/tasks.py": "tests/unit/toolkit/testing",
    # Each of its rules is tried from outside, whichever module knows it.
    "toolkit/lint/kinds.py": "tests/unit/toolkit/lint/test_rules.py",
    "toolkit/lint/middleware.py": "tests/unit/toolkit/lint/test_rules.py",
    "toolkit/lint/order.py": "tests/unit/toolkit/lint/test_rules.py",
    "toolkit/lint/shapes.py": "tests/unit/toolkit/lint/test_rules.py",
    "toolkit/lint/violations.py": "tests/unit/toolkit/lint/test_rules.py",
}


def test_each_module_has_its_test_file() -> None:
    missing = []
    for module in sorted(SOURCE.rglob("*.py")):
        name = module.relative_to(SOURCE)
        if name.name == "__init__.py" or name.as_posix() in ELSEWHERE:
            continue
        test = UNIT / name.parent / f"test_{name.stem.removeprefix('_')}.py"
        if not test.exists():
            missing.append(f"{name} has no {test.relative_to(ROOT)}")

    assert missing == []


def test_what_is_tested_elsewhere_is_there() -> None:
    assert [place for place in ELSEWHERE.values() if not (ROOT / place).exists()] == []
    assert [name for name in ELSEWHERE if not (SOURCE / name).exists()] == []
