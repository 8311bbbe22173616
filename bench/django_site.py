"""A Django site of two views, on whatever `asgiref` is: omnicorn's toolkit where
`django_toolkit` was imported, else asgiref itself.
"""

from __future__ import annotations

import sys

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from bench import apps


def sync_view(request: HttpRequest) -> HttpResponse:
    """Runs in a thread of the request's own."""
    return HttpResponse(apps.GREETING, content_type="text/plain")


async def async_view(request: HttpRequest) -> HttpResponse:
    """Runs in the event loop, and still costs a context of a thread."""
    return HttpResponse(apps.GREETING, content_type="text/plain")


urlpatterns = [path("sync", sync_view), path("async", async_view)]

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=sys.modules[__name__], USE_TZ=True)
application = get_asgi_application()
