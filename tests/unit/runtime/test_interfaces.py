"""Which interface is found, and what is said where none is, or the wrong one was."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest

from omnicorn.errors import ConfigError
from omnicorn.runtime.interfaces import adapt, detect, explain

ASGI3, ASGI2, WSGI = "asgi3", "asgi2", "wsgi"


async def asgi3(scope: Any, receive: Any, send: Any) -> None: ...
def sync_asgi3(scope: Any, receive: Any, send: Any) -> Any: ...
def asgi3_with_defaults(scope: Any, receive: Any = None, send: Any = None) -> Any: ...
async def asgi3_with_one_more(scope: Any, receive: Any, send: Any, more: int = 0) -> None: ...
async def asgi3_of_anything(*args: Any) -> None: ...
def asgi2(scope: Any) -> Any: ...
def wsgi(environ: Any, start_response: Any) -> Any: ...
def wsgi_with_one_more(environ: Any, start_response: Any, chunk: int = 10) -> Any: ...
def wsgi_with_defaults(env: Any = None, start_response: Any = None) -> Any: ...
def wsgi_with_options(environ: Any, start_response: Any, **options: Any) -> Any: ...
def anything(*args: Any) -> Any: ...
def nothing() -> Any: ...


class Asgi3:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...
    def method(self, scope: Any, receive: Any, send: Any) -> Any: ...


class Asgi2:
    def __init__(self, scope: Any) -> None: ...
    async def __call__(self, receive: Any, send: Any) -> None: ...


class Wsgi:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...
    def wsgi_app(self, environ: Any, start_response: Any) -> Any: ...


class WsgiByClass:
    def __init__(self, environ: Any, start_response: Any) -> None: ...
    def __iter__(self) -> Any: ...


class Asgi3ByClass:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...
    def __await__(self) -> Any: ...


class MarkedAsDouble:
    _asgi_double_callable = True

    def __call__(self, *args: Any) -> Any: ...


class MarkedAsSingle:
    _asgi_single_callable = True

    def __call__(self, *args: Any) -> Any: ...


def decorated(inner: Any) -> Any:
    @functools.wraps(inner)
    def outer(*args: Any, **more: Any) -> Any:
        return inner(*args, **more)

    return outer


def adapter(inner: Any) -> Any:
    """Makes WSGI of ASGI, and names what it wraps."""

    @functools.wraps(inner)
    def outer(environ: Any, start_response: Any) -> Any: ...

    return outer


def with_setting(setting: Any, environ: Any, start_response: Any) -> Any: ...


class Compiled:
    """A callable that does not tell its parameters."""

    @property
    def __signature__(self) -> Any:
        raise ValueError

    def __call__(self, *args: Any) -> Any: ...


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (asgi3, ASGI3),
        (sync_asgi3, ASGI3),
        (asgi3_with_defaults, ASGI3),
        (asgi3_with_one_more, ASGI3),
        (asgi3_of_anything, ASGI3),
        (Asgi3(), ASGI3),
        (Asgi3().method, ASGI3),
        (Asgi3ByClass, ASGI3),
        (MarkedAsSingle(), ASGI3),
        (functools.partial(asgi3), ASGI3),
        (decorated(asgi3), ASGI3),
        (lambda scope, receive, send: None, ASGI3),
        (asgi2, ASGI2),
        (Asgi2, ASGI2),
        (MarkedAsDouble(), ASGI2),
        (decorated(asgi2), ASGI2),
        (wsgi, WSGI),
        (wsgi_with_one_more, WSGI),
        (wsgi_with_defaults, WSGI),
        (wsgi_with_options, WSGI),
        (Wsgi(), WSGI),
        (Wsgi().wsgi_app, WSGI),
        (WsgiByClass, WSGI),
        (decorated(wsgi), WSGI),
        (adapter(asgi3), WSGI),
        (functools.partial(with_setting, 1), WSGI),
        (lambda e, s: [], WSGI),
    ],
)
def test_an_application_tells_its_interface(app: Any, interface: str) -> None:
    assert detect(app) == interface
    assert adapt(app)[0] == interface


@pytest.mark.parametrize("app", [anything, nothing, Compiled(), decorated(anything), max])
def test_what_cannot_be_told_names_the_option(app: Any) -> None:
    with pytest.raises(ConfigError, match="--interface asgi3, asgi2 or wsgi") as caught:
        detect(app)
    assert caught.value.option == "interface"


@pytest.mark.parametrize("mode", [ASGI3, ASGI2, WSGI])
def test_what_is_said_is_not_looked_at(mode: Any) -> None:
    assert adapt(anything, mode)[0] == mode


def test_asgi2_becomes_asgi3_and_all_else_stays_what_it_is() -> None:
    assert adapt(asgi3) == (ASGI3, asgi3)
    assert adapt(wsgi) == (WSGI, wsgi)
    interface, app = adapt(Asgi2)
    assert interface == ASGI2
    assert app is not Asgi2
    assert detect(app) == ASGI3


def test_what_is_no_application_is_told() -> None:
    with pytest.raises(ConfigError, match="not callable: 'main:app'"):
        adapt("main:app")  # type: ignore[arg-type]


def test_frameworks_tell_their_interface() -> None:
    flask = pytest.importorskip("flask", reason="Flask is not installed")
    assert detect(flask.Flask("x")) == WSGI
    starlette = pytest.importorskip("starlette.applications", reason="Starlette is not installed")
    assert detect(starlette.Starlette()) == ASGI3
    handlers = pytest.importorskip("django.core.handlers.wsgi", reason="Django is not installed")
    assert detect(handlers.WSGIHandler.__call__.__get__(object())) == WSGI
    bottle = pytest.importorskip("bottle", reason="Bottle is not installed")
    assert detect(bottle.Bottle()) == WSGI
    pyramid = pytest.importorskip("pyramid.config", reason="Pyramid is not installed")
    assert detect(pyramid.Configurator().make_wsgi_app()) == WSGI


# ---------------------------------------------------------------- a wrong guess


def failure(app: Any, called_as: str) -> BaseException:
    """What comes of an application that is called as the server calls it."""
    from omnicorn.toolkit.compatibility import double_to_single_callable
    from omnicorn.toolkit.pep3333 import WsgiResponse

    sink: Any = None
    try:
        if called_as == WSGI:
            WsgiResponse(sink).run(app, {})
        else:
            coro: Any = double_to_single_callable(app)({}, None, None)
            coro.send(None)
    except BaseException as error:
        return error
    raise AssertionError("it did not fail")


@pytest.mark.parametrize(("app", "called_as"), [(asgi3, WSGI), (asgi2, WSGI), (wsgi, ASGI2)])
def test_a_call_that_failed_for_its_arguments_names_the_option(app: Any, called_as: Any) -> None:
    told = explain(failure(app, called_as), called_as)
    assert told is not None
    assert f"called as {called_as}" in told
    assert told.count("--interface") == 2
    assert f"--interface {called_as}" not in told


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_coroutine_in_the_place_of_an_iterable_names_the_option() -> None:
    told = explain(failure(asgi3_of_anything, WSGI), "wsgi")
    assert told is not None
    assert "--interface asgi3" in told


def test_an_error_of_the_applications_own_names_nothing() -> None:
    def broken(environ: Any, start_response: Any) -> Any:
        return len(5)  # type: ignore[arg-type]

    def fails(environ: Any, start_response: Any) -> Any:
        raise ValueError

    def returns_text(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return ["text"]

    assert explain(failure(broken, WSGI), "wsgi") is None
    assert explain(failure(fails, WSGI), "wsgi") is None
    assert explain(failure(returns_text, WSGI), "wsgi") is None
    assert explain(TypeError("not raised"), "wsgi") is None


def test_a_wrong_asgi_application_is_explained_by_the_server(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(wsgi, explain=lambda error: explain(error, "asgi3"))
    assert served.get().startswith(b"HTTP/1.1 500 ")
    [record] = caplog.records
    assert "--interface asgi2 or --interface wsgi" in record.getMessage()
    assert sys.exc_info() == (None, None, None)
