"""A Bottle application with the routes that each framework here has."""

# mypy: disable-error-code="import-untyped,import-not-found"

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottle import Bottle, request, response, static_file

if TYPE_CHECKING:
    from collections.abc import Iterator

app = Bottle()


def item(name: str) -> Any:
    return {
        "name": name,
        "q": request.query.getall("q"),
        "client": request.remote_addr,
        "header": request.get_header("x-custom"),
    }


def form() -> Any:
    return {"title": request.forms.getunicode("title")}


def upload() -> Any:
    file = request.files["file"]
    return {"filename": file.raw_filename, "size": len(file.file.read())}


def echo() -> Any:
    response.content_type = "application/octet-stream"
    return request.body.read()


def stream() -> Iterator[str]:
    response.content_type = "text/plain"
    for number in range(5):
        yield f"{number}\n"


def visits() -> Any:
    count = int(request.get_cookie("visits", secret="not a secret") or 0) + 1
    response.set_cookie("visits", str(count), secret="not a secret")
    return {"visits": count}


def file() -> Any:
    return static_file(Path(__file__).name, root=Path(__file__).parent)


def fail() -> Any:
    raise RuntimeError("the view has a bug")


app.route("/items/<name>", "GET", item)
app.route("/form", "POST", form)
app.route("/upload", "POST", upload)
app.route("/echo", "POST", echo)
app.route("/stream", "GET", stream)
app.route("/visits", "GET", visits)
app.route("/file", "GET", file)
app.route("/fail", "GET", fail)
