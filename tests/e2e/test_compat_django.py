"""``manage.py runserver`` with ``omnicorn.compat.django`` installed, as a developer has it."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Serve, ServerProcess

pytest.importorskip("django", reason="django is not installed")

MANAGE = """
import os
import sys

from django.core.management import execute_from_command_line

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
"""

SETTINGS = """
DEBUG = True
SECRET_KEY = "not a secret"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["omnicorn.compat.django", "django.contrib.staticfiles"]
ROOT_URLCONF = "urls"
STATIC_URL = "static/"
STATICFILES_DIRS = ["assets"]
ASGI_APPLICATION = "urls.application"
WSGI_APPLICATION = "urls.wsgi"
USE_TZ = True
"""

URLS = """
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse(f"first {type(request).__name__}"))]
django = get_asgi_application()
wsgi = get_wsgi_application()


async def application(scope, receive, send):
    if scope["type"] != "lifespan":
        await django(scope, receive, send)
        return
    await receive()
    print("startup", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of Django, without a database."""
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "settings.py").write_text(SETTINGS)
    (tmp_path / "urls.py").write_text(URLS)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "style.css").write_text("body {}\n")
    return tmp_path


@pytest.fixture
def runserver(serve: Serve, project: Path) -> Callable[..., ServerProcess]:
    """Starts the command, on a free port; its last signal is Ctrl-C."""

    def start(*options: str, address: str = "127.0.0.1:0", wait: bool = True) -> ServerProcess:
        argv = [sys.executable, "manage.py", "runserver", *options, address]
        server = serve.run(argv, cwd=project)
        server.expected_code = None
        if wait:
            line = server.wait_for(r"development server at (\S+)/$")
            server.addresses = re.findall(r"(http\S+)/", line)
        return server

    return start


@pytest.mark.parametrize("options", [[], ["--noreload"]], ids=["reload", "noreload"])
def test_a_page_and_a_static_file_are_served(
    runserver: Callable[..., ServerProcess], options: list[str]
) -> None:
    server = runserver(*options)

    assert server.get("/").body == b"first ASGIRequest"
    style = server.get("/static/style.css")
    assert style.body == b"body {}\n"
    assert style.header("content-type") == "text/css"
    server.wait_for(r'\[.+\] "GET /static/style\.css HTTP/1\.1" 200 8')
    server.wait_for("ASGI is served by omnicorn")
    # To the process that serves: Django's reloader, which gets Ctrl-C as well, gives it a quarter
    # of a second then, and a busy machine may take longer.
    for process in _children(server.process.pid) or [server.process.pid]:
        os.kill(process, signal.SIGINT)
    assert server.wait() in (0, -signal.SIGINT)
    assert server.lines.count("startup") == server.lines.count("shutdown") == 1


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_change_reloads_and_ends_the_old_lifespan(
    runserver: Callable[..., ServerProcess], project: Path, eventually: Callable[..., bool]
) -> None:
    server = runserver(address="127.0.0.1:" + str(_free_port()))
    assert server.get("/").body == b"first ASGIRequest"

    def noticed() -> bool:
        # Again and again: what changes before the reloader has had its first look is not seen.
        if not server.matching("changed, reloading"):
            (project / "urls.py").write_text(URLS.replace("first", "second"))
            return False
        return True

    def changed() -> bool:
        try:
            return server.get("/").body == b"second ASGIRequest"
        except OSError:  # in between nobody listens
            return False

    eventually(noticed, "the reloader")
    eventually(changed, "the new page")
    server.wait_for("^startup$", 2)
    assert server.lines.count("shutdown") == 1


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_static_files_can_be_left_out(runserver: Callable[..., ServerProcess]) -> None:
    server = runserver("--noreload", "--nostatic")

    assert server.get("/static/style.css").status == 404


def test_the_wsgi_server_is_still_there(runserver: Callable[..., ServerProcess]) -> None:
    server = runserver("--noreload", "--noasgi")

    assert server.get("/").body == b"first WSGIRequest"
    assert not server.matching("omnicorn")


def test_ipv6_is_served(runserver: Callable[..., ServerProcess]) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = runserver("--noreload", "-6", address="[::1]:0")

    assert server.get("/").body == b"first ASGIRequest"


def test_an_address_in_use_is_what_django_says(runserver: Callable[..., ServerProcess]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = runserver("--noreload", address=address, wait=False)
        assert server.wait() == 1

    assert server.matching("That port is already in use")


def test_an_app_that_stands_too_late_is_refused(
    runserver: Callable[..., ServerProcess], project: Path
) -> None:
    names = '"omnicorn.compat.django", "django.contrib.staticfiles"'
    swapped = '"django.contrib.staticfiles", "omnicorn.compat.django"'
    (project / "settings.py").write_text(SETTINGS.replace(names, swapped))
    server = runserver("--noreload", wait=False)

    assert server.wait() == 1
    assert server.matching(r"omnicorn\.E001.*must be listed before django.contrib.staticfiles")


def test_an_application_that_is_not_found_is_told(
    runserver: Callable[..., ServerProcess], project: Path
) -> None:
    wrong = SETTINGS.replace("urls.application", "urls.nothing")
    (project / "settings.py").write_text(wrong)
    server = runserver("--noreload", wait=False)

    assert server.wait() == 1
    assert server.matching("ASGI_APPLICATION is 'urls.nothing', which cannot be imported")


def test_a_lifespan_that_fails_ends_the_command(
    runserver: Callable[..., ServerProcess], project: Path
) -> None:
    refusing = URLS.replace(
        '"lifespan.startup.complete"', '"lifespan.startup.failed", "message": "not today"'
    )
    (project / "urls.py").write_text(refusing)
    server = runserver("--noreload", wait=False)

    assert server.wait() == 3
    assert server.matching("The application did not start: not today")
