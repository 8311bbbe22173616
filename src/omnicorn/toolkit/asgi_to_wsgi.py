"""ASGI applications under WSGI servers.

An `AsgiToWsgi` owns one event loop in a thread of its own, and every request is a task there: an
ASGI application may keep to one loop what belongs to one (connection pools, locks, background
tasks), whatever thread of the WSGI server a request comes in. The server's thread starts the task
and then serves it: it reads ``wsgi.input`` when the application calls ``receive()``, and returns
what the application sends.

Invariants:
- Only the server's thread touches ``environ`` and ``start_response``; only the loop's thread
  touches the application. They meet in one queue and in ``call_soon_threadsafe``.
- ``start_response`` is called once, with the first content or at the end; until then a failure
  leaves the response to the server, and is raised there.
- ``send()`` waits while more than `HIGH_WATER` bytes have not been taken.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import weakref
from contextvars import Context
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from wsgiref.util import is_hop_by_hop

from omnicorn.asgi import ASGI_VERSION, SPEC_VERSION
from omnicorn.toolkit.compatibility import guarantee_single_callable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse

    from omnicorn.asgi import ASGIReceiveEvent, ASGISendEvent, HTTPScope, HTTPVersion
    from omnicorn.toolkit.compatibility import SingleCallable
    from omnicorn.toolkit.pep3333 import Environ

    # What it is, its bytes or exception, and the future that waits for the server's thread.
    Item = tuple[int, Any, asyncio.Future[Any] | None]

__all__ = ["AsgiToWsgi", "build_scope"]

HIGH_WATER: Final = 65536

_READ, _BLOCK, _END, _FAILED = range(4)
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_NO_CONTENT = (204, 304)


def build_scope(environ: Environ) -> HTTPScope:
    """The ASGI http scope of a WSGI request (HTTP & WebSocket 2.5, "WSGI Compatibility")."""
    headers = []
    for variable, value in environ.items():
        if variable[:5] == "HTTP_":
            name = variable[5:]
            if name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                continue  # PEP 3333 has other variables for them; these would contradict
        elif variable in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            name = variable
        else:
            continue
        name = name.lower().replace("_", "-")
        headers.append((name.encode("latin-1"), value.encode("latin-1")))
    root = environ.get("SCRIPT_NAME", "")
    protocol = environ.get("SERVER_PROTOCOL", "")
    scope: HTTPScope = {
        "type": "http",
        "asgi": {"version": ASGI_VERSION, "spec_version": SPEC_VERSION},
        "http_version": _HTTP_VERSIONS.get(protocol, "1.1"),
        "method": environ["REQUEST_METHOD"].upper(),
        "scheme": environ.get("wsgi.url_scheme") or "http",
        "path": _text(root + environ.get("PATH_INFO", "")) or "/",
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "root_path": _text(root),
        "headers": headers,
        "client": _client(environ),
        "server": _server(environ),
        "extensions": {},
    }
    target = environ.get("REQUEST_URI") or environ.get("RAW_URI")
    if target:
        if target[0] != "/" and "://" in target:  # RFC 9112 §3.2.2: absolute-form
            target = "/" + target.partition("://")[2].partition("/")[2]
        scope["raw_path"] = target.partition("?")[0].encode("latin-1")
    return scope


_HTTP_VERSIONS: dict[str, HTTPVersion] = {
    "HTTP/1.0": "1.0",
    "HTTP/2": "2",
    "HTTP/2.0": "2",
    "HTTP/3": "3",
    "HTTP/3.0": "3",
}


def _text(native: str) -> str:
    """From PEP 3333's bytes as unicode; what is no UTF-8 becomes U+FFFD."""
    return native if native.isascii() else native.encode("latin-1").decode("utf-8", "replace")


def _client(environ: Environ) -> tuple[str, int] | None:
    address = environ.get("REMOTE_ADDR")
    if not address:
        return None
    port = str(environ.get("REMOTE_PORT", ""))
    return address, int(port) if port.isdecimal() else 0


def _server(environ: Environ) -> tuple[str, int | None] | None:
    name = environ.get("SERVER_NAME")
    if not name:
        return None
    port = str(environ.get("SERVER_PORT", ""))
    if name[0] == "/" or not port.isdecimal():  # a unix socket
        return name, None
    return name, int(port)


class _Request:
    """One request: a task in the loop, served by a thread of the WSGI server."""

    __slots__ = (
        "_ended",
        "_environ",
        "_gone",
        "_has_no_content",
        "_items",
        "_left",
        "_loop",
        "_piece",
        "_reading",
        "_task",
        "_untaken",
        "_waiters",
        "headers",
        "status",
    )

    def __init__(self, environ: Environ, loop: asyncio.AbstractEventLoop) -> None:
        self._environ = environ
        self._loop = loop
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._task: asyncio.Task[None] | None = None
        # The request: bytes left to read; None if the server ends the input by itself.
        self._left: int | None = _content_length(environ)
        self._piece: bytes | None = None  # read in advance
        self._reading: asyncio.Future[Any] | None = None
        # The response.
        self._has_no_content = environ["REQUEST_METHOD"].upper() == "HEAD"
        self._ended = False
        self._gone = False
        self._untaken = 0
        self._waiters: list[asyncio.Future[None]] = []
        self.status: int = 0
        self.headers: list[tuple[str, str]] = []

    # ------------------------------------------------------------ in the server's thread

    def start(self, application: SingleCallable, tasks: set[asyncio.Task[None]]) -> None:
        """Start the task."""
        left = self._left
        # A small body is read before the application asks: that saves a trip. Not if the client
        # waits to be told (RFC 9110 §10.1.1); reading would tell it.
        if left == 0 or (left and left <= HIGH_WATER and "HTTP_EXPECT" not in self._environ):
            self._piece = self._read()
        scope = build_scope(self._environ)
        self._loop.call_soon_threadsafe(self._start, application, scope, tasks)

    def next_block(self) -> tuple[bytes, bool]:
        """Wait for content, and read the request meanwhile.

        Returns:
            A block, and whether it is the last, which alone can be empty.

        Raises:
            BaseException: What the application raised before the end of its response.
        """
        while True:
            try:
                kind, value, future = self._items.get(timeout=60.0)
            except queue.Empty:
                if self._loop.is_closed() and self._items.empty():
                    # It was closed before it came to this request.
                    raise RuntimeError("the event loop of this AsgiToWsgi is closed") from None
                continue
            if kind == _READ:
                value = self._read()
            if future is not None:
                self._loop.call_soon_threadsafe(_resolve, future, value)
            if kind in (_BLOCK, _END):
                return value, kind == _END
            if kind == _FAILED:
                raise value

    def abandon(self) -> None:
        """Cancel the application, unless its response is complete."""
        try:
            self._loop.call_soon_threadsafe(self._abandon)
        except RuntimeError:  # the loop is closed, the task has ended
            pass

    def _read(self) -> bytes | None:
        """The next piece of the body, empty at its end; None if the client left before that."""
        left = self._left
        if left == 0:
            return b""
        try:
            size = HIGH_WATER if left is None else min(left, HIGH_WATER)
            data: bytes = self._environ["wsgi.input"].read(size)
        except OSError:
            return None
        if left is None:
            if not data:
                self._left = 0
        elif data:
            self._left = left - len(data)
        else:
            return None
        return data

    # ------------------------------------------------------------ in the loop's thread

    def _start(
        self, application: SingleCallable, scope: HTTPScope, tasks: set[asyncio.Task[None]]
    ) -> None:
        task = self._task = self._loop.create_task(self._run(application, scope))
        tasks.add(task)  # or it might be collected while it waits
        task.add_done_callback(tasks.discard)

    async def _run(self, application: SingleCallable, scope: HTTPScope) -> None:
        try:
            await application(scope, self._receive, self._send)
            if not self._ended:
                raise RuntimeError(
                    "the ASGI application returned in the middle of its response"
                    if self.status
                    else "the ASGI application returned without a response"
                )
        except asyncio.CancelledError:
            self._fail(RuntimeError("the ASGI application was cancelled before its response ended"))
            raise
        except BaseException as error:
            if self._ended:
                raise  # too late for the response: asyncio logs it
            self._fail(error)
            if not isinstance(error, Exception):
                raise

    def _fail(self, error: BaseException) -> None:
        self._items.put((_FAILED, error, None))

    async def _receive(self) -> ASGIReceiveEvent:
        piece = self._piece
        if piece is None and not self._ended and not self._gone and self._left != 0:
            # The future outlives a cancelled receive(), and so does the piece.
            if self._reading is None:
                self._reading = self._loop.create_future()
                self._items.put((_READ, None, self._reading))
            piece = await asyncio.shield(self._reading)
            self._reading = None
            if piece is None:
                self._gone = True
        self._piece = None
        if piece is not None and not self._gone:
            return {"type": "http.request", "body": piece, "more_body": self._left != 0}
        while not self._ended and not self._gone:
            await self._wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: ASGISendEvent) -> None:
        if self._gone:
            raise ConnectionResetError("the WSGI server has given up this request")
        if event["type"] == "http.response.start":
            if self.status:
                raise RuntimeError("http.response.start was sent twice")
            self.status = event["status"]
            self.headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in event.get("headers", ())
                # ASGI has the server ignore them, PEP 3333 refuse them.
                if not is_hop_by_hop(name.decode("latin-1"))
            ]
            if self.status in _NO_CONTENT:
                self._has_no_content = True
        elif event["type"] != "http.response.body":
            raise ValueError(
                f"the message type {event['type']!r} cannot be sent here: a WSGI server takes "
                "http.response.start and http.response.body, and no extensions were offered"
            )
        elif not self.status:
            raise RuntimeError("http.response.body was sent before http.response.start")
        elif not self._ended:
            await self._send_body(event.get("body", b""), event.get("more_body", False))

    async def _send_body(self, block: bytes, more: bool) -> None:
        if self._has_no_content:
            block = b""
        if not more:
            self._ended = True
            self._items.put((_END, block, None))
            self._wake()
        elif block:
            self._untaken += len(block)
            if self._untaken <= HIGH_WATER:
                self._items.put((_BLOCK, block, None))
            else:
                taken = self._loop.create_future()
                self._waiters.append(taken)
                self._items.put((_BLOCK, block, taken))
                try:
                    await taken
                finally:
                    self._waiters.remove(taken)
                self._untaken = 0

    async def _wait(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            _resolve(waiter, None)

    def _abandon(self) -> None:
        if not self._ended:
            self._gone = True
            if self._reading is not None:
                _resolve(self._reading, None)
            if self._task is not None:
                self._task.cancel()
        self._wake()


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _content_length(environ: Environ) -> int | None:
    """Bytes in the request body; None if only the end of the input tells."""
    text = environ.get("CONTENT_LENGTH")
    if text:
        return int(text)
    return None if environ.get("wsgi.input_terminated") else 0


class _Blocks:
    """The response, as the iterable that the WSGI server gets."""

    __slots__ = ("_block", "_ended", "_request")

    def __init__(self, request: _Request, first: bytes) -> None:
        self._request = request
        self._block = first
        self._ended = False

    def __iter__(self) -> _Blocks:
        return self

    def __next__(self) -> bytes:
        block = self._block
        if block:
            self._block = b""
            return block
        if self._ended:
            raise StopIteration
        try:
            block, self._ended = self._request.next_block()
        except BaseException:
            self.close()
            raise
        if block:
            return block
        raise StopIteration

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._request.abandon()


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:  # which cancels what is left
        runner.get_loop().run_forever()


class _LoopThread:
    """An event loop in a thread of its own, until `stop`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run_loop, args=(self.loop,), name="asgi-to-wsgi", daemon=True
        )
        Context().run(self._thread.start)  # the loop outlives the request that starts it

    def stop(self, wait: bool = False) -> None:
        if self.pid != os.getpid():
            return  # the thread stayed with the parent
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:
            return  # stopped already
        if wait and self._thread is not threading.current_thread():
            self._thread.join()


class AsgiToWsgi:
    """A WSGI application (PEP 3333) that runs an ASGI application.

    Serves HTTP; a WSGI server has no websockets and no lifespan, so an application that needs its
    lifespan has to be started by other means. Requests run in one event loop, asyncio's, in a
    thread that the first of them starts. Both bodies are streamed. What the application raises
    before its response is complete is raised to the server; what it raises later asyncio logs. It
    is cancelled if the server closes the response before its end.

    Args:
        asgi_application: An ASGI 3 or ASGI 2 application.
    """

    def __init__(self, asgi_application: Callable[..., Any]) -> None:
        self.application: SingleCallable = guarantee_single_callable(asgi_application)
        self._lock = threading.Lock()
        self._closed = False
        self._loop_thread: _LoopThread | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request.

        Raises:
            RuntimeError: No response from the application, or `close` has been called.
            BaseException: What the application raises.
        """
        thread = self._loop_thread
        if thread is None or thread.pid != os.getpid():
            thread = self._start()
        request = _Request(environ, thread.loop)
        try:
            request.start(self.application, thread.tasks)
            block, ended = request.next_block()
            status = request.status
            start_response(f"{status} {_REASONS.get(status, 'Unknown')}", request.headers)
        except BaseException:
            request.abandon()
            raise
        if ended:
            return [block] if block else []
        return _Blocks(request, block)

    def close(self) -> None:
        """Cancel what is running and end the event loop; not needed at the end of a process."""
        with self._lock:
            self._closed = True
            thread, self._loop_thread = self._loop_thread, None
        if thread is not None:
            thread.stop(wait=True)

    def _start(self) -> _LoopThread:
        with self._lock:
            thread = self._loop_thread
            if self._closed:
                raise RuntimeError("this AsgiToWsgi is closed and serves no more requests")
            if thread is None or thread.pid != os.getpid():  # else another thread was quicker
                thread = self._loop_thread = _LoopThread()
                if self._finalizer is not None:
                    self._finalizer.detach()
                self._finalizer = weakref.finalize(self, thread.stop)
            return thread
