"""One HTTP request's conversation with a WSGI application (PEP 3333), without ASGI between.

What this file alone decides: which part of an exchange belongs to the event loop and which to the
thread that runs the application, and how the two meet. What PEP 3333 asks for stands in
`toolkit.pep3333`, which thread runs when in `threads`.

::

    the loop    on_data ──▶ [_pieces] ──▶ wsgi.input ────────────┐
                consumed ◀── _taken (a count) ◀──────────────────┤ the application's thread
                send_head, send_data ◀── [_out] or _rest ◀───────┘

Rules:

1. Each attribute is written by one side alone; what goes across is appended to a deque by one and
   taken by the other, or is a count that only grows. So there is no lock.
2. A thread that has to wait says so to the loop first, then waits at `_gate`; the loop opens that
   after every change that could concern it, and the thread looks again. No change, no end of wait:
   the connection's deadlines bound it, as a peer that makes no progress is cut.
3. A thread cannot be stopped. Once the peer has gone or the server gave the request up, reading
   and writing raise `ClientDisconnected` there. To the server a request that is given up is over.
4. A list or tuple is delivered as one write, when its thread is through with it.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from omnicorn.bridge.cycle import DONE, GONE, START, Exchange, only_disconnects
from omnicorn.bridge.scope import scope_template
from omnicorn.bridge.threads import Threads
from omnicorn.errors import ClientDisconnected, LocalProtocolError
from omnicorn.http.target import encode_path
from omnicorn.ports import HIGH_WATER
from omnicorn.toolkit.pep3333 import (
    SAME_FOR_ALL,
    FileWrapper,
    InputStream,
    WsgiResponse,
    add_headers,
    native,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from omnicorn.bridge.http import HTTPCarrier
    from omnicorn.bridge.scope import Address, ServerAddress
    from omnicorn.errors import RemoteProtocolError
    from omnicorn.ports import Loop, RequestHead, Stream, Task
    from omnicorn.toolkit.pep3333 import Environ, FilePart, Head, WsgiApplication

__all__ = ["Wsgi", "WsgiCycle"]

BODY = 1  # between START and DONE

_LOOK = 30.0
"""Seconds after which a thread that waits makes sure that there still is an event loop."""


class Wsgi:
    """A WSGI application, the threads it runs in, and what its requests have in common.

    Args:
        application: The application.
        loop: The event loop's port.
        threads: Requests that run at once; default min(32, processors + 4).
        root_path: The prefix the application is mounted at.

    Attributes:
        threads: Its threads; to be stopped at the end.
    """

    __slots__ = ("_root", "application", "threads")

    def __init__(
        self,
        application: WsgiApplication,
        loop: Loop,
        threads: int | None = None,
        root_path: str = "",
    ) -> None:
        self.application = application
        self.threads = Threads(loop, threads or min(32, (os.cpu_count() or 1) + 4))
        self._root = root_path

    def cycle(
        self,
        stream: Stream,
        carrier: HTTPCarrier,
        head: RequestHead,
        scheme: str,
        client: Address | None,
        server: ServerAddress | None,
    ) -> WsgiCycle:
        """The exchange of one request."""
        return WsgiCycle(self, stream, carrier, head, scheme, client, server)

    def start(self, cycle: WsgiCycle) -> None:
        """Have a thread run an exchange, the service's ``spawn``; or wait for its body first."""
        if not cycle.is_held():
            self.threads.submit(cycle)

    def environ(self, cycle: WsgiCycle, body: Any) -> Environ:
        """What the application is told about a request, with *body* as ``wsgi.input``."""
        head = cycle.head
        environ = head.template
        if environ:
            environ = environ.copy()
        else:
            seen = environ is not None
            environ = self._environ(head)
            # Worth keeping for the second of equal requests; most heads have none.
            head.template = environ.copy() if seen else {}
        environ["wsgi.url_scheme"] = cycle.scheme
        environ["wsgi.input"] = body
        environ["wsgi.errors"] = sys.stderr
        client = cycle.client
        if client is not None:
            environ["REMOTE_ADDR"] = client[0]
            environ["REMOTE_PORT"] = str(client[1])
        server = cycle.server
        if server is not None:
            environ["SERVER_NAME"] = server[0]
            environ["SERVER_PORT"] = str(server[1] or 0)  # a unix socket has no port
        return environ

    def _environ(self, head: RequestHead) -> Environ:
        query = head.query.decode("latin-1")
        target = head.raw_path
        path = head.path
        root = self._root
        if path == "*":
            path = ""  # PEP 3333: PATH_INFO is a path or empty; the asterisk of OPTIONS is none
        elif head.root_path is not None:
            root = head.root_path
            path = path.removeprefix(root)
        elif root:
            target = encode_path(root) + target
        uri = target.decode("latin-1")
        environ: Environ = {
            "REQUEST_METHOD": head.method,
            "SCRIPT_NAME": native(root),
            "PATH_INFO": native(path),
            "QUERY_STRING": query,
            "REQUEST_URI": f"{uri}?{query}" if query else uri,
            "SERVER_PROTOCOL": "HTTP/" + head.version,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            **SAME_FOR_ALL,
            "wsgi.file_wrapper": FileWrapper,
        }
        add_headers(environ, head.headers)
        # RFC 3875 §4.2: a transfer-coding is removed; Bottle would decode it once more.
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        return environ

    def scope(self, cycle: WsgiCycle) -> dict[str, Any]:
        """The request as an ASGI scope, for the access log."""
        scope = scope_template(cycle.head, self._root)
        scope["asgi"] = {"version": "3.0", "spec_version": "2.5"}
        scope["scheme"] = cycle.scheme
        scope["headers"] = list(cycle.head.headers)
        scope["client"] = cycle.client
        scope["server"] = cycle.server
        scope["extensions"] = {}
        return scope


class WsgiCycle(Exchange):
    """One request and its response.

    It is the handler of its stream and, in the application's thread, the job and the `Sink`.

    Args:
        wsgi: What runs it.
        stream: The way back to the peer.
        carrier: The connection.
        head: The request.
        scheme: ``"http"`` or ``"https"``.
        client: ``(host, port)``, or None behind an unnamed unix socket.
        server: ``(host, port)``, or ``(path, None)`` for a unix socket.
    """

    __slots__ = (
        "_begun",
        "_behind",
        "_continue",
        "_credited",
        "_ended",
        "_error",
        "_failure",
        "_file_task",
        "_gate",
        "_handed",
        "_held",
        "_out",
        "_over",
        "_pieces",
        "_posted",
        "_rest",
        "_stopping",
        "_taken",
        "_told",
        "_wsgi",
        "client",
        "head",
        "scheme",
        "server",
    )

    def __init__(
        self,
        wsgi: Wsgi,
        stream: Stream,
        carrier: HTTPCarrier,
        head: RequestHead,
        scheme: str,
        client: Address | None,
        server: ServerAddress | None,
    ) -> None:
        self._wsgi = wsgi
        self._stream = stream
        self._carrier = carrier
        self.head = head
        self.scheme = scheme
        self.client = client
        self.server = server
        self.status = 0
        self.response_headers = ()
        self.sent = 0
        self.task = None
        # Written by the loop.
        self._phase = START
        self._pieces: deque[bytes] | None = None
        self._ended = not head.has_body
        self._credited = 0  # bytes of the body that the stream knows to be taken
        self._held = -1  # bytes of a body that no thread has yet; -1 once one may have it
        self._handed = 0  # bytes of the response that were given to the stream
        self._behind = False  # the peer does not read as fast as it is sent to
        self._stopping = False
        self._failure: BaseException | None = None  # what cannot be sent; raised in the thread
        self._file_task: Task | None = None
        self.finished = False
        self.was_cancelled = False
        # Written by the thread.
        self._begun = False
        self._over = False
        self._taken = 0  # bytes of the body that the application has
        self._continue = False  # it waits for the body
        self._told = False  # reading has told it that nobody waits for its answer
        self._out: deque[tuple[Head | None, Any, bool]] | None = None
        self._posted = 0  # bytes of the response, so far
        self._rest: tuple[Head | None, list[bytes]] | None = None
        self._error: BaseException | None = None
        self._gate: threading.Lock | None = None

    @property
    def scope(self) -> dict[str, Any]:
        return self._wsgi.scope(self)

    # ------------------------------------------------------------------ in the thread

    def work(self) -> None:
        """Run the application, from the call to what ends its response."""
        self._begun = True
        body: Any
        try:
            if self._ended:
                pieces = self._pieces
                content = b"" if pieces is None else b"".join(pieces)
                self._taken = len(content)
                body = io.BytesIO(content)
                environ = self._wsgi.environ(self, body)
                if content:
                    # Known, though nobody announced it: chunked, or HTTP/2.
                    environ.setdefault("CONTENT_LENGTH", str(len(content)))
            else:
                body = InputStream(self._pull)
                environ = self._wsgi.environ(self, body)
            response = WsgiResponse(self, self.head.method)
            self._rest = response.run(self._wsgi.application, environ)
        except BaseException as error:  # SystemExit, too, is the end of a request alone
            self._error = error
        self._over = True

    def send(self, head: Head | None, blocks: Sequence[bytes], end: bool) -> None:
        """See `Sink`."""
        self._check()
        out = self._out
        if out is None:
            out = self._out = deque()
        for block in blocks:
            self._posted += len(block)
        out.append((head, blocks, end))
        self._wsgi.threads.post(self)
        if not end and not self._has_room():
            self._wait(self._has_room)
            self._check()

    def send_file(self, head: Head | None, part: FilePart) -> bool:
        """See `Sink`."""
        if part.size <= HIGH_WATER or self._carrier.sendfile is None:
            return False
        self._check()
        out = self._out
        if out is None:
            out = self._out = deque()
        out.append((head, part, True))
        self._wait(self._is_sent)
        self._check()
        return True

    def _check(self) -> None:
        failure = self._failure
        if failure is not None:
            raise RuntimeError(f"the response cannot be sent: {failure}") from failure
        if self._phase == GONE or self.finished:
            raise ClientDisconnected("the client has disconnected")

    def _has_room(self) -> bool:
        return self._is_sent() or (not self._behind and self._posted - self._handed <= HIGH_WATER)

    def _is_sent(self) -> bool:
        return self._phase >= DONE or self.finished or self._failure is not None

    def _has_content(self) -> bool:
        return bool(self._pieces) or self._ended or self._stopping or self._is_sent()

    def _pull(self) -> bytes:
        """The next piece of the body; see `InputStream`."""
        while True:
            ended = self._ended  # asked first: no piece comes after it
            pieces = self._pieces
            if pieces:
                data = pieces.popleft()
                self._taken += len(data)
                if not ended and self._taken - self._credited > HIGH_WATER // 2:
                    self._wsgi.threads.post(self)
                return data
            if ended:
                return b""
            if self._phase >= DONE or self.finished:
                raise ClientDisconnected("the client left in the middle of its request")
            if self._stopping:
                self._told = True
                raise ClientDisconnected("the server stops, and the request is not all there")
            self._continue = True
            self._wait(self._has_content)

    def _wait(self, ready: Callable[[], bool]) -> None:
        threads = self._wsgi.threads
        gate = self._gate
        if gate is None:
            gate = threading.Lock()
            gate.acquire()
            self._gate = gate
        while not ready():
            threads.post(self, now=True)
            gate.acquire(timeout=_LOOK)
            if threads.stopped and not ready():
                raise ClientDisconnected("the server has ended")

    # ------------------------------------------------------------------ in the loop

    def run(self) -> WsgiCycle:
        """See `Exchange`: the service's ``spawn`` is `Wsgi.start`."""
        return self

    def is_held(self) -> bool:
        """Whether the body has to come before the application is called; said once.

        A short body is awaited, so that a slow peer holds no thread; and one of unknown length,
        up to `HIGH_WATER` bytes, as many applications read no more than CONTENT_LENGTH says, which
        is known once all is there. Not if the peer waits to be asked for it.
        """
        if self._ended:
            return False
        fields = self.head.fields
        length = fields.get(b"content-length")
        if length is not None and (not length.isdigit() or int(length) > HIGH_WATER):
            return False
        if b"expect" in fields:
            return False
        self._held = 0
        return True

    def _let_go(self) -> None:
        self._held = -1
        self._wsgi.threads.submit(self)

    def collect(self) -> None:
        """See to what the thread has left here."""
        if self.finished:
            return
        phase = self._phase
        taken = self._taken - self._credited
        if taken and phase < DONE:  # else the stream may be serving the next request
            self._credited += taken
            self._stream.consumed(taken)
        over = self._over  # asked before the rest is looked at: nothing comes after it
        if self._out:
            self._deliver_all(self._out)
        if over:
            self._finish()
        elif self._continue and phase == START and not self._ended:
            self._stream.send_continue()  # does nothing the second time

    def _deliver_all(self, out: deque[tuple[Head | None, Any, bool]]) -> None:
        while out:
            head, blocks, end = out.popleft()
            if self._phase >= DONE or self._failure is not None:
                continue
            try:
                if type(blocks) is tuple:
                    self._deliver(head, blocks, end)
                else:
                    self._begin_file(head, blocks)
            except LocalProtocolError as error:
                self._failure = error
        if self._gate is not None and not self._behind:
            self._wake()

    def _deliver(self, head: Head | None, blocks: Sequence[bytes], end: bool) -> None:
        """Give a part of the response to the stream.

        Raises:
            LocalProtocolError: It cannot be sent.
        """
        stream = self._stream
        if head is not None:
            self.status, self.response_headers = head
            stream.send_head(self.status, self.response_headers)
            self._phase = BODY
        data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        self.sent += len(data)
        self._handed += len(data)
        if end:
            self._phase = DONE
            stream.send_data(data, True)
        elif not stream.send_data(data, False):
            self._behind = True

    def _begin_file(self, head: Head | None, part: FilePart) -> None:
        if head is not None:
            self._deliver(head, (), False)
        if not self._stream.reserve_raw(part.size):
            raise LocalProtocolError("the response has no room for a file")
        self._file_task = self._carrier.loop.spawn(self._send_file(part))

    async def _send_file(self, part: FilePart) -> None:
        stream = self._stream
        try:
            sent = await self._carrier.sendfile(part.file, part.offset, part.size)
            self.sent += sent
            if sent < part.size:
                raise LocalProtocolError(f"the file ended {part.size - sent} bytes too early")
            if self._phase < DONE:
                stream.raw_written()
                self._phase = DONE
                stream.send_data(b"", True)
        except ClientDisconnected:
            if self._phase < DONE:
                self._phase = GONE  # the transport noticed before the engine was told
        except Exception as error:
            self._failure = error
        finally:
            self._file_task = None
            self._wake()

    def _finish(self) -> None:
        """The thread is through: see that the exchange ends with it."""
        error, self._error = self._error, None
        try:
            if error is None:
                error = self._failure
            elif (self._phase >= DONE or self._told) and only_disconnects(error, self._told):
                error = None
            rest, self._rest = self._rest, None
            if rest is not None and self._phase < DONE:
                try:
                    self._deliver(*rest, True)
                except LocalProtocolError as exc:
                    error = exc
                    self._phase = BODY if self._stream.is_responding else START
            if self._phase < DONE:
                self._give_up(error)
            self.finished = True
            self._carrier.on_cycle_end(self, error)
        finally:
            error = None  # its traceback holds this frame

    def _give_up(self, error: BaseException | None) -> None:
        """Cut the connection; or if nothing has left yet, say 500.

        503 where the application obeyed an error that said that the server stops.
        """
        if self._phase == START and self._told and error is None:
            self.refuse(503, b"Service Unavailable", [(b"retry-after", b"1")])
        elif self._phase == START:
            self.refuse(500, b"Internal Server Error", [])
        else:
            self._phase = GONE
            self._stream.reset()

    def _wake(self) -> None:
        gate = self._gate
        if gate is not None and gate.locked():
            gate.release()

    def cancel(self) -> None:
        """Give the request up; its thread learns of it when it reads or writes."""
        if self.finished:
            return
        self.was_cancelled = True
        if self._phase < DONE:
            self._phase = GONE
        if self._file_task is not None:
            self._file_task.cancel()
        if not self._begun:
            self._wsgi.threads.withdraw(self)
        self._held = -1
        self.finished = True
        self._wake()
        self._carrier.on_cycle_end(self, None)

    def disconnect(self) -> None:
        """The server stops: there is nothing more to read. What is sent is still delivered."""
        self._stopping = True
        self._wake()
        if self._held >= 0 and self._phase == START:
            self._held = -1
            self.refuse(503, b"Service Unavailable", [(b"retry-after", b"1")])
            self.finished = True
            self._carrier.on_cycle_end(self, None)

    # ------------------------------------------------------------------ from the engine

    def on_data(self, data: bytes) -> None:
        if self._pieces is None:
            self._pieces = deque()
        self._pieces.append(data)
        if self._held >= 0:
            self._held += len(data)
            if self._held >= HIGH_WATER:
                self._let_go()
        self._wake()

    def on_end(self) -> None:
        self._ended = True
        if self._held >= 0:
            self._let_go()
        self._wake()

    def on_writable(self) -> None:
        self._behind = False
        self._wake()

    def on_reset(self, error: RemoteProtocolError | None) -> None:
        if self._phase != DONE:
            self._phase = GONE
        self._wake()
        if not self._begun and not self.finished:
            self._carrier.loop.call_soon(self._leave)  # the engine is not through with it

    def _leave(self) -> None:
        """The peer has gone: a request that no thread has need not run."""
        if self._begun or self.finished:
            return
        if self._held >= 0 or self._wsgi.threads.withdraw(self):
            self.finished = True
            self._carrier.on_cycle_end(self, None)

    @property
    def was_cut(self) -> bool:
        """The exchange ended before its response was complete."""
        return self._phase == GONE

    def on_remote_closed(self) -> None:
        """Many clients are through with sending after their request; they still read."""
