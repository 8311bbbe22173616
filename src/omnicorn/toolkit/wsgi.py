"""WSGI applications under ASGI servers: PEP 3333 on one side, ASGI messages on the other.

What this file alone decides: which ASGI message asks for, or becomes, which part of a WSGI request
(`pep3333`), and what is done in the application's thread and what in the event loop (`links`). The
application runs in a thread of `sync_to_async`.

1. An application that returns a list costs one trip to a thread and none back; each block of
   any other iterable costs one, its end none that is waited for.
2. ``receive()`` is called when the application reads, and once before it starts, as most bodies
   are all there by then.
3. No thread stays blocked in a request that is over: it gets an OSError. One that was cancelled
   ends so, and sends nothing more, whatever the application makes of that. A client that left is
   nobody's error.

`AsgiToWsgi`, the other direction, has a file of its own.
"""

from __future__ import annotations

import io
import tempfile
from typing import TYPE_CHECKING, Any, Final

from omnicorn.toolkit.asgi_to_wsgi import AsgiToWsgi
from omnicorn.toolkit.links import linked
from omnicorn.toolkit.pep3333 import (
    DuplicateHeaderLimitExceeded,
    InputStream,
    WsgiResponse,
    build_environ,
)
from omnicorn.toolkit.sync import SyncToAsync

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from omnicorn.asgi import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, HTTPScope
    from omnicorn.toolkit.links import Link
    from omnicorn.toolkit.pep3333 import (
        Environ,
        ExcInfo,
        FilePart,
        Head,
        WsgiApplication,
    )

    # Wider than those of omnicorn.asgi: frameworks that mount an application have their own types.
    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[None]]

__all__ = ["AsgiToWsgi", "WsgiToAsgi", "WsgiToAsgiInstance"]

SPOOL: Final = 65536
"""Bytes of a spooled body that are kept in memory."""


class _Exchange:
    """One ASGI request seen from the application's thread: body in, `Sink` out.

    Attributes:
        body_size: Bytes in the request body, if all of it is there; else 0.
        gone: What told the application that the client left, if anything did.
    """

    __slots__ = (
        "_body_ended",
        "_extensions",
        "_link",
        "_receive",
        "_send",
        "_watches",
        "body_size",
        "gone",
    )

    def __init__(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable, link: Link
    ) -> None:
        self._extensions = scope.get("extensions") or {}
        self._receive = receive
        self._send = send
        self._link = link
        self._body_ended = False
        # Before 2.4, `send` keeps silent about a client that left: listen for it, or an endless
        # response never ends.
        version = scope.get("asgi", {}).get("spec_version", "2.0")
        self._watches = version in ("2.0", "2.1", "2.2", "2.3")
        self.body_size = 0
        self.gone: OSError | None = None

    # In the event loop.

    async def body(self, wait: bool, spool: bool) -> Any:
        """``wsgi.input``, with the first piece in it, or with all if it is to be spooled.

        Raises:
            OSError: The client left while the body was spooled.
        """
        if not wait:
            return InputStream(self.pull)
        first = await self._next_piece()
        if self._body_ended:
            self.body_size = len(first)
            return io.BytesIO(first)
        if not spool:
            return InputStream(self.pull, first)
        file: Any = tempfile.SpooledTemporaryFile(SPOOL)  # noqa: SIM115
        try:
            piece = first
            size = 0
            while piece:
                size += len(piece)
                if size > SPOOL:
                    await _in_a_thread(file.write, piece)
                else:
                    file.write(piece)
                piece = await self._next_piece()
            file.seek(0)
            self.body_size = size
        except BaseException:
            file.close()
            raise
        return file

    async def _next_piece(self) -> bytes:
        while not self._body_ended:
            if self.gone is not None:
                raise self.gone
            event = await self._receive()
            if event["type"] != "http.request":
                self.gone = ConnectionResetError("the client left in the middle of its request")
                continue
            self._body_ended = not event.get("more_body", False)
            piece: bytes = event.get("body", b"")
            if piece:
                return piece
        return b""

    async def deliver(self, head: Head | None, blocks: Sequence[bytes], end: bool) -> None:
        """Send a part of the response as ASGI messages."""
        if self.gone is not None:
            raise self.gone
        await self._send_head(head)
        for block in blocks:
            await self._send({"type": "http.response.body", "body": block, "more_body": True})
        if end:
            await self._send({"type": "http.response.body"})
        elif self._watches and self._body_ended:
            self._watches = False
            self._link.spawn(self._watch)

    async def _send_head(self, head: Head | None) -> None:
        if head is not None:
            await self._send({"type": "http.response.start", "status": head[0], "headers": head[1]})

    async def _watch(self) -> None:
        try:
            event = await self._receive()
        except Exception:
            return  # a server that cannot tell
        # Once: one that repeats itself without waiting would hold up the loop.
        if event["type"] == "http.disconnect":
            self.gone = ConnectionResetError("the client left in the middle of the response")

    async def _deliver_file(self, head: Head | None, event: ASGISendEvent) -> None:
        await self._send_head(head)
        await self._send(event)

    # In the application's thread.

    def pull(self) -> bytes:
        piece: bytes = self._link.call(self._next_piece)
        return piece

    def send(self, head: Head | None, blocks: Sequence[bytes], end: bool) -> None:
        if end:
            self._link.post(self.deliver, head, blocks, True)
        else:
            self._link.call(self.deliver, head, blocks, False)

    def send_file(self, head: Head | None, part: FilePart) -> bool:
        event: ASGISendEvent
        if "http.response.zerocopysend" in self._extensions:
            event = {
                "type": "http.response.zerocopysend",
                "file": part.file,
                "offset": part.offset,
                "count": part.size,
            }
        elif "http.response.pathsend" in self._extensions and part.path and head is not None:
            event = {"type": "http.response.pathsend", "path": part.path}
        else:
            return False
        self._link.call(self._deliver_file, head, event)
        return True


class _Adapter:
    """A WSGI application and how it is run; `WsgiToAsgi` tells the arguments."""

    def __init__(
        self,
        wsgi_application: WsgiApplication,
        duplicate_header_limit: int | None = 100,
        *,
        thread_sensitive: bool = False,
        spool: bool = False,
    ) -> None:
        self.wsgi_application = wsgi_application
        self.duplicate_header_limit = duplicate_header_limit
        self.thread_sensitive = thread_sensitive
        self.spool = spool


class WsgiToAsgiInstance(_Adapter):
    """One request through a WSGI application; an instance serves one and no more.

    `build_environ`, `start_response` and `run_wsgi_app` may be overridden in a subclass.
    For the arguments see `WsgiToAsgi`.

    Attributes:
        scope: The request's, from the call on.
    """

    scope: HTTPScope
    _exchange: _Exchange
    _link: Link
    _response: WsgiResponse

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve an http scope.

        Raises:
            ValueError: Any other scope.
            Exception: What the application raises, or ``send()``.
        """
        if scope["type"] != "http":
            raise ValueError(
                f"WsgiToAsgi received a non-HTTP scope, {scope['type']!r}: WSGI knows requests "
                "alone; route other scopes elsewhere"
            )
        self.scope = scope
        await linked(lambda link: self._serve(link, receive, send), self.thread_sensitive)

    async def _serve(self, link: Link, receive: Receive, send: Send) -> None:
        self._link = link
        exchange = self._exchange = _Exchange(self.scope, receive, send, link)
        self._response = WsgiResponse(exchange, self.scope["method"])
        body = None
        # "100 Continue" is for the application to ask for, by reading.
        wait = self.spool or all(name.lower() != b"expect" for name, _ in self.scope["headers"])
        try:
            body = await exchange.body(wait, self.spool)
            await self.run_wsgi_app(body)
            await link.drain()
        except DuplicateHeaderLimitExceeded:
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 400, "headers": headers})
            text = b"Bad Request: Too many duplicate headers"
            await send({"type": "http.response.body", "body": text})
        except OSError as error:
            # The client is gone; there is nobody to tell, and nothing is wrong here.
            if error is not exchange.gone:
                raise
        finally:
            if self.spool and body is not None:
                body.close()

    def build_environ(self, scope: HTTPScope, body: Any) -> Environ:
        """The ``environ`` of a request: see `pep3333.build_environ`."""
        return build_environ(scope, body, self.duplicate_header_limit)

    def start_response(
        self,
        status: str,
        response_headers: Iterable[Sequence[str]],
        exc_info: ExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        """PEP 3333's ``start_response``: see `pep3333.WsgiResponse.start_response`."""
        return self._response.start_response(status, response_headers, exc_info)

    async def run_wsgi_app(self, body: Any) -> None:
        """Run the application in a thread until it is done, with *body* as ``wsgi.input``."""
        run = _run_sensitive if self.thread_sensitive else _run_concurrent
        rest = await run(self, body)
        await self._link.check()
        if rest is not None:
            await self._exchange.deliver(*rest, True)

    def _run(self, body: Any) -> tuple[Head | None, list[bytes]] | None:
        """All that happens in the application's thread."""
        environ = self.build_environ(self.scope, body)
        if self._exchange.body_size:  # known, though nobody announced it: chunked, or HTTP/2
            environ.setdefault("CONTENT_LENGTH", str(self._exchange.body_size))
        return self._response.run(self.wsgi_application, environ, self.start_response)


_run_concurrent = SyncToAsync(WsgiToAsgiInstance._run, thread_sensitive=False)
_run_sensitive = SyncToAsync(WsgiToAsgiInstance._run, thread_sensitive=True)
_in_a_thread = SyncToAsync(lambda function, *args: function(*args), thread_sensitive=False)


class WsgiToAsgi(_Adapter):
    """An ASGI 3 application that runs a WSGI application (PEP 3333).

    Each request runs in a thread of its own, at the same time as others. Blocks leave as they
    come; the thread waits until each was taken. The request body is received as the application
    reads it. A client that leaves in the middle of its body makes reading it raise an OSError.
    Works on asyncio and on trio.

    Args:
        wsgi_application: The application.
        duplicate_header_limit: How often a request may repeat one header; one that does so more
            often is answered with 400. Default 100; None for no limit.
        thread_sensitive: Run in the one thread that thread-sensitive code shares, so one request
            after another. Default False.
        spool: Receive the whole body before a thread is taken, so that slow clients hold none;
            past 64 KiB it goes to a temporary file. ``wsgi.input`` can seek then. Default False.
    """

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve an http scope; see `WsgiToAsgiInstance.__call__`."""
        instance = WsgiToAsgiInstance(
            self.wsgi_application,
            self.duplicate_header_limit,
            thread_sensitive=self.thread_sensitive,
            spool=self.spool,
        )
        await instance(scope, receive, send)
