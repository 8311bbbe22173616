"""A Django project in one file."""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from plain import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from django.http import HttpRequest

settings.configure(
    DEBUG=False,
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    USE_TZ=True,
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
)
django.setup()


def sync_view(request: HttpRequest, name: str) -> HttpResponse:
    return JsonResponse(
        {
            "name": name,
            "q": request.GET.getlist("q"),
            "host": request.get_host(),
            "client": request.META["REMOTE_ADDR"],
            "secure": request.is_secure(),
            "header": request.headers.get("x-custom"),
        }
    )


async def async_view(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse("async", content_type="text/plain")


def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body, content_type="application/octet-stream")


async def upload(request: HttpRequest) -> HttpResponse:
    file: Any = request.FILES["file"]
    return JsonResponse({"title": request.POST["title"], "filename": file.name, "size": file.size})


def sync_stream(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        for number in range(5):
            yield f"{number}\n"
            time.sleep(0)

    return StreamingHttpResponse(lines(), content_type="text/plain")


async def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(5):
            yield f"{number}\n"
            await asyncio.sleep(0)

    return StreamingHttpResponse(lines(), content_type="text/plain")


async def endless(request: HttpRequest) -> StreamingHttpResponse:
    async def ticks() -> AsyncIterator[str]:
        try:
            while True:
                yield "tick\n"
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            say("stream cancelled")
            raise

    return StreamingHttpResponse(ticks())


async def waiting(request: HttpRequest) -> HttpResponse:
    say("waiting")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("view cancelled")
        raise
    return HttpResponse("never")


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(__file__).open("rb"))


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the view has a bug")


urlpatterns = [
    path("items/<str:name>", sync_view),
    path("async", async_view),
    path("echo", echo),
    path("upload", upload),
    path("sync-stream", sync_stream),
    path("async-stream", async_stream),
    path("endless", endless),
    path("waiting", waiting),
    path("file", file),
    path("fail", fail),
]

app = get_asgi_application()
