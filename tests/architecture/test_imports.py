"""What importing a part of omnicorn brings along: import-linter reads code, this runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOPS = {"asyncio", "trio", "anyio", "uvloop", "socket", "ssl", "select", "selectors", "threading"}


def loaded_by(statement: str) -> set[str]:
    """The modules that are there after *statement* in a fresh interpreter without site."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    source = next(path for path in sys.path if path.endswith("src"))
    result = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {source!r}); {code}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "omnicorn.protocols.http1",
        "omnicorn.http.target",
        "omnicorn.ports",
        "omnicorn.errors",
        "omnicorn.asgi",
    ],
)
def test_engines_and_types_bring_no_loop_and_no_socket(module: str) -> None:
    assert not loaded_by(f"import {module}") & LOOPS


def test_the_facade_loads_nothing_until_a_name_is_used() -> None:
    ours = {name for name in loaded_by("import omnicorn") if name.startswith("omnicorn")}

    assert ours == {"omnicorn"}


def test_every_name_of_the_facade_is_there() -> None:
    import omnicorn

    assert [name for name in omnicorn.__all__ if not hasattr(omnicorn, name)] == []
    assert set(omnicorn.__all__) <= set(dir(omnicorn))


def test_a_name_the_facade_does_not_have_is_an_attribute_error() -> None:
    import omnicorn

    with pytest.raises(AttributeError, match="no attribute 'Sever'"):
        _ = omnicorn.Sever


def test_the_base_installation_needs_nothing() -> None:
    """`-S` hides site-packages: what serves HTTP/1.1 imports from the standard library alone."""
    modules = loaded_by("import omnicorn.runtime.run, omnicorn.runtime.cli, omnicorn.__main__")

    assert "uvloop" not in modules
    assert "omnicorn.connections.http1" in modules
