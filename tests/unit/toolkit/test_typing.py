"""asgiref's names for the types of ASGI."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import omnicorn.asgi
from omnicorn.toolkit import typing

# Written out: these are what a drop-in has to have.
NAMES = [
    "ASGIVersions",
    "HTTPScope",
    "WebSocketScope",
    "LifespanScope",
    "WWWScope",
    "Scope",
    "HTTPRequestEvent",
    "HTTPResponseStartEvent",
    "HTTPResponseBodyEvent",
    "HTTPResponseTrailersEvent",
    "HTTPResponsePathsendEvent",
    "HTTPServerPushEvent",
    "HTTPDisconnectEvent",
    "WebSocketConnectEvent",
    "WebSocketAcceptEvent",
    "WebSocketReceiveEvent",
    "WebSocketSendEvent",
    "WebSocketResponseStartEvent",
    "WebSocketResponseBodyEvent",
    "WebSocketDisconnectEvent",
    "WebSocketCloseEvent",
    "LifespanStartupEvent",
    "LifespanShutdownEvent",
    "LifespanStartupCompleteEvent",
    "LifespanStartupFailedEvent",
    "LifespanShutdownCompleteEvent",
    "LifespanShutdownFailedEvent",
    "ASGIReceiveEvent",
    "ASGISendEvent",
    "ASGIReceiveCallable",
    "ASGISendCallable",
    "ASGI2Protocol",
    "ASGI2Application",
    "ASGI3Application",
    "ASGIApplication",
]
OTHERWISE = {
    "WWWScope": omnicorn.asgi.HTTPScope | omnicorn.asgi.WebSocketScope,
    "HTTPServerPushEvent": omnicorn.asgi.HTTPResponsePushEvent,
    "ASGI2Protocol": typing.ASGI2Protocol,
    "ASGI2Application": type[typing.ASGI2Protocol],
    "ASGIApplication": type[typing.ASGI2Protocol] | omnicorn.asgi.ASGI3Application,
}


def test_every_name_of_asgiref_is_there_and_one_more_that_it_does_not_list() -> None:
    assert len(NAMES) == 35
    assert sorted(typing.__all__) == sorted([*NAMES, "HTTPResponseDebugEvent"])


@pytest.mark.parametrize("name", [*NAMES, "HTTPResponseDebugEvent"])
def test_a_name_is_the_type_of_omnicorn_asgi(name: str) -> None:
    expected = OTHERWISE[name] if name in OTHERWISE else getattr(omnicorn.asgi, name)
    assert getattr(typing, name) == expected


def test_the_names_are_those_of_asgiref() -> None:
    pytest.importorskip("asgiref")
    theirs = importlib.import_module("asgiref.typing")
    assert set(theirs.__all__) <= set(typing.__all__)


def test_asgi_2_applications_can_inherit_the_protocol() -> None:
    class Application(typing.ASGI2Protocol):
        def __init__(self, scope: typing.Scope) -> None:
            self.scope = scope

        async def __call__(
            self, receive: typing.ASGIReceiveCallable, send: typing.ASGISendCallable
        ) -> None: ...

    scope: typing.Scope = {"type": "lifespan", "asgi": {"version": "2.0"}}
    assert Application(scope).scope is scope


@pytest.mark.parametrize("module", ["typing", "local", "compatibility", "timeout", "server"])
def test_no_part_of_the_server_is_imported(module: str) -> None:
    program = f"""
import sys, omnicorn.toolkit.{module}
print(*(name for name in sys.modules if name.startswith("omnicorn.")))
"""
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {name.split(".")[1] for name in loaded} <= {"asgi", "toolkit"}
