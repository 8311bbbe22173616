"""asgiref's name, given to the toolkit; each case in a process of its own, as it is for good."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from omnicorn.toolkit import alias


def run(code: str) -> None:
    """Run *code* behind the alias; its assertions are the test's."""
    code = "from omnicorn.toolkit.alias import install_as_asgiref\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr


def test_every_module_of_asgiref_is_the_toolkit_s() -> None:
    modules = sorted(alias._MODULES)
    run(f"""
        import importlib, sys
        install_as_asgiref()
        install_as_asgiref()
        for name in {modules}:
            ours = importlib.import_module(f"omnicorn.toolkit.{{name}}")
            own, name_of_own = ours.__spec__, ours.__name__
            assert importlib.import_module(f"asgiref.{{name}}") is ours, name
            assert sys.modules[f"asgiref.{{name}}"] is ours
            assert ours.__spec__ is own and own.name == ours.__name__ == name_of_own
        import asgiref, asgiref.sync
        from asgiref import local
        assert asgiref.__version__ == {alias.VERSION!r}
        assert asgiref.sync is sys.modules["omnicorn.toolkit.sync"]
        assert local.Local is asgiref.sync.Local
        assert len([finder for finder in sys.meta_path if "alias" in type(finder).__module__]) == 1
    """)


def test_the_modules_are_those_of_asgiref_itself() -> None:
    pkgutil = pytest.importorskip("pkgutil")
    asgiref = pytest.importorskip("asgiref")
    if "omnicorn" in (asgiref.__file__ or "omnicorn"):
        pytest.skip("asgiref is the alias here")
    names = {module.name for module in pkgutil.iter_modules(asgiref.__path__)}
    assert names == alias._MODULES
    assert asgiref.__version__.split(".")[:2] == alias.VERSION.split(".")[:2]


def test_a_module_that_asgiref_has_not_is_not_found() -> None:
    run("""
        install_as_asgiref()
        try:
            import asgiref.lint
        except ModuleNotFoundError as error:
            assert error.name == "asgiref.lint"
        else:
            raise AssertionError("asgiref has no lint")
    """)


def test_an_asgiref_that_was_imported_before_is_an_error_that_says_what_to_do() -> None:
    pytest.importorskip("asgiref")
    run("""
        import asgiref.sync
        try:
            install_as_asgiref()
        except RuntimeError as error:
            assert "call it first" in str(error)
        else:
            raise AssertionError("two toolkits in one process")
    """)


def test_django_runs_on_it() -> None:
    pytest.importorskip("django")
    run("""
        install_as_asgiref()
        import asyncio
        from django.conf import settings
        settings.configure(ROOT_URLCONF="urls", ALLOWED_HOSTS=["*"], SECRET_KEY="x")
        import sys, types
        from django.http import HttpResponse
        from django.urls import path
        from django.core.asgi import get_asgi_application
        import threading

        def sync_view(request):
            return HttpResponse(threading.current_thread().name)

        async def async_view(request):
            return HttpResponse("async")

        urls = types.ModuleType("urls")
        urls.urlpatterns = [path("sync", sync_view), path("async", async_view)]
        sys.modules["urls"] = urls
        application = get_asgi_application()

        from omnicorn.toolkit.testing import HTTPCommunicator

        async def main():
            response = await HTTPCommunicator(application, "GET", "/sync").get_response()
            assert response.status == 200
            assert response.text != threading.main_thread().name
            response = await HTTPCommunicator(application, "GET", "/async").get_response()
            assert response.text == "async"

        asyncio.run(main())
        import asgiref.sync, django.core.handlers.asgi as handlers
        assert handlers.ThreadSensitiveContext is asgiref.sync.ThreadSensitiveContext
        assert asgiref.sync.__name__ == "omnicorn.toolkit.sync"
    """)
