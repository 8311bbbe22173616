"""A Django project in one file, by its WSGI handler, with the routes each framework here has."""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

if TYPE_CHECKING:
    from django.http import HttpRequest

settings.configure(
    DEBUG=False,
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.common.CommonMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    USE_TZ=True,
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
)
django.setup()


def item(request: HttpRequest, name: str) -> HttpResponse:
    return JsonResponse(
        {
            "name": name,
            "q": request.GET.getlist("q"),
            "client": request.META["REMOTE_ADDR"],
            "header": request.headers.get("x-custom"),
        }
    )


def form(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"title": request.POST["title"]})


def upload(request: HttpRequest) -> HttpResponse:
    file: Any = request.FILES["file"]
    return JsonResponse({"filename": file.name, "size": file.size})


def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body, content_type="application/octet-stream")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    lines = (f"{number}\n" for number in range(5))
    return StreamingHttpResponse(lines, content_type="text/plain")


def visits(request: HttpRequest) -> HttpResponse:
    session: Any = request.session  # type: ignore[attr-defined]
    session["visits"] = session.get("visits", 0) + 1
    return JsonResponse({"visits": session["visits"]})


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(__file__).open("rb"))


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the view has a bug")


urlpatterns = [
    path("items/<str:name>", item),
    path("form", form),
    path("upload", upload),
    path("echo", echo),
    path("stream", stream),
    path("visits", visits),
    path("file", file),
    path("fail", fail),
]

app = get_wsgi_application()
