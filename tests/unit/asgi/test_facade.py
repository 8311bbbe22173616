"""The package's front door: complete, and free until used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import omnicorn.asgi as asgi
from omnicorn.asgi import callables, events, extensions, scopes


def test_the_front_door_shows_the_versions_and_every_public_name_of_the_modules() -> None:
    names = {"ASGI_VERSION", "SPEC_VERSION", "LIFESPAN_SPEC_VERSION"}
    for module in (callables, events, extensions, scopes):
        names.update(module.__all__)
    assert set(asgi.__all__) == names


def test_every_name_is_the_object_of_its_module() -> None:
    for module in (callables, events, extensions, scopes):
        for name in module.__all__:
            assert getattr(asgi, name) is getattr(module, name)


def test_the_versions_are_those_the_server_advertises() -> None:
    versions = (asgi.ASGI_VERSION, asgi.SPEC_VERSION, asgi.LIFESPAN_SPEC_VERSION)
    assert versions == ("3.0", "2.5", "2.0")


def test_names_that_are_not_loaded_yet_are_listed() -> None:
    assert set(asgi.__all__) <= set(dir(asgi))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'omnicorn\.asgi' has no attribute 'HTTPScoop'"):
        asgi.HTTPScoop  # noqa: B018


def test_the_versions_load_no_type_definition() -> None:
    program = (
        "import sys; from omnicorn.asgi import SPEC_VERSION;"
        "print(sorted(m for m in sys.modules if m.startswith('omnicorn.asgi')))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "['omnicorn.asgi']"
