"""A bare WSGI application that does what the path says, and prints what happens to it."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Environ = dict[str, Any]
    View = Callable[[Environ, Any], Iterable[bytes]]


def say(text: str) -> None:
    # In one write: the server logs from another thread.
    sys.stdout.write(f"{text}\n")


gate = threading.Event()


def answer(start_response: Any, body: bytes, status: str = "200 OK") -> list[bytes]:
    length = ("Content-Length", str(len(body)))
    start_response(status, [("Content-Type", "text/plain"), length])
    return [body]


def hello(environ: Environ, start_response: Any) -> list[bytes]:
    return answer(start_response, b"hello")


def echo(environ: Environ, start_response: Any) -> list[bytes]:
    return answer(start_response, environ["wsgi.input"].read())


def count(environ: Environ, start_response: Any) -> list[bytes]:
    """Reads a body of any size in pieces."""
    size = 0
    while piece := environ["wsgi.input"].read(65536):
        size += len(piece)
    return answer(start_response, str(size).encode())


def threads(environ: Environ, start_response: Any) -> list[bytes]:
    names = [thread.name for thread in threading.enumerate() if "omnicorn" in thread.name]
    return answer(start_response, str(len(names)).encode())


def wait(environ: Environ, start_response: Any) -> list[bytes]:
    """Answers when another request says so."""
    say("waiting")
    gate.wait(20.0)
    return answer(start_response, b"released")


def release(environ: Environ, start_response: Any) -> list[bytes]:
    gate.set()
    return answer(start_response, b"open")


class Endless:
    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b"x" * 8192

    def close(self) -> None:
        say("closed")


def endless(environ: Environ, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Endless()


def upload(environ: Environ, start_response: Any) -> list[bytes]:
    say("reading")
    try:
        environ["wsgi.input"].read()
    except OSError as error:
        say(f"reading raised {type(error).__name__}")
        raise
    return answer(start_response, b"whole")


def deaf(environ: Environ, start_response: Any) -> list[bytes]:
    """Notices nothing."""
    say("deaf")
    threading.Event().wait()
    return []


def file(environ: Environ, start_response: Any) -> Any:
    path = Path(os.environ.get("WSGI_FILE", __file__))
    size = ("Content-Length", str(path.stat().st_size))
    start_response("200 OK", [("Content-Type", "application/octet-stream"), size])
    return environ["wsgi.file_wrapper"](path.open("rb"))


_kernel = os.sendfile
sent = 0


def _counting(*args: Any) -> int:
    global sent
    count = _kernel(*args)
    sent += count
    return count


os.sendfile = _counting  # type: ignore[assignment]


def sendfile(environ: Environ, start_response: Any) -> list[bytes]:
    """The bytes that the kernel has sent from files."""
    return answer(start_response, str(sent).encode())


def blocks(environ: Environ, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (b"x" * 10_000 for _ in range(int(environ["QUERY_STRING"]) // 10_000))


def fail(environ: Environ, start_response: Any) -> list[bytes]:
    raise RuntimeError("the application has a bug")


def address(environ: Environ, start_response: Any) -> list[bytes]:
    names = ("wsgi.url_scheme", "REMOTE_ADDR", "SCRIPT_NAME", "PATH_INFO", "SERVER_PROTOCOL")
    return answer(start_response, " ".join(environ[name] for name in names).encode())


VIEWS: dict[str, View] = {
    f"/{view.__name__}": view
    for view in (
        hello,
        echo,
        count,
        threads,
        wait,
        release,
        endless,
        upload,
        deaf,
        file,
        sendfile,
        blocks,
        fail,
        address,
    )
}


def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
    view = VIEWS.get(environ["PATH_INFO"])
    if view is None:
        return answer(start_response, b"nothing here", "404 Not Found")
    return view(environ, start_response)


validated = validator(app)  # type: ignore[arg-type]


def anything(*args: Any) -> Any:
    """Does not tell what it is."""
    return app(*args)


async def asgi(*args: Any) -> None:
    """Is taken for what it is not, by those who say so."""
