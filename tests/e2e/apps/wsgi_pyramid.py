"""A Pyramid application with the routes that each framework here has."""

# mypy: disable-error-code="import-untyped,import-not-found"

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator
from pyramid.response import FileResponse, Response
from pyramid.session import SignedCookieSessionFactory


def item(request: Any) -> Any:
    return {
        "name": request.matchdict["name"],
        "q": request.GET.getall("q"),
        "client": request.remote_addr,
        "header": request.headers.get("x-custom"),
    }


def form(request: Any) -> Any:
    return {"title": request.POST["title"]}


def upload(request: Any) -> Any:
    file = request.POST["file"]
    return {"filename": file.filename, "size": len(file.file.read())}


def echo(request: Any) -> Any:
    return Response(request.body, content_type="application/octet-stream")


def stream(request: Any) -> Any:
    lines = (f"{number}\n".encode() for number in range(5))
    return Response(app_iter=lines, content_type="text/plain")


def visits(request: Any) -> Any:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return {"visits": request.session["visits"]}


def file(request: Any) -> Any:
    return FileResponse(__file__, request=request)


def fail(request: Any) -> Any:
    raise RuntimeError("the view has a bug")


with Configurator(session_factory=SignedCookieSessionFactory("not a secret")) as config:
    config.add_route("item", "/items/{name}")
    config.add_view(item, route_name="item", renderer="json")
    for view in (form, upload, echo, stream, visits, file, fail):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__, renderer="json")
    app = config.make_wsgi_app()
