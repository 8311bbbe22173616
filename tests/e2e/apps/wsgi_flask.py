"""A Flask application with the routes that each framework here has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request, send_file, session

if TYPE_CHECKING:
    from collections.abc import Iterator

app = Flask(__name__)
app.secret_key = "not a secret"


@app.get("/items/<name>")
def item(name: str) -> Any:
    return {
        "name": name,
        "q": request.args.getlist("q"),
        "client": request.remote_addr,
        "header": request.headers.get("x-custom"),
    }


@app.post("/form")
def form() -> Any:
    return {"title": request.form["title"]}


@app.post("/upload")
def upload() -> Any:
    file = request.files["file"]
    return {"filename": file.filename, "size": len(file.read())}


@app.post("/echo")
def echo() -> Any:
    return Response(request.get_data(), mimetype="application/octet-stream")


@app.get("/stream")
def stream() -> Any:
    def lines() -> Iterator[str]:
        for number in range(5):
            yield f"{number}\n"

    return Response(lines(), mimetype="text/plain")


@app.get("/visits")
def visits() -> Any:
    session["visits"] = session.get("visits", 0) + 1
    return {"visits": session["visits"]}


@app.get("/file")
def file() -> Any:
    return send_file(__file__, mimetype="text/x-python")


@app.get("/fail")
def fail() -> Any:
    raise RuntimeError("the view has a bug")
