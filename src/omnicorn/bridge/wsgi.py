"""One HTTP request's conversation with a WSGI application (PEP 3333), without ASGI between.

What this file alone decides: which part of an exchange belongs to the event loop and which to the
thread that runs the application, and how the two meet. What PEP 3333 asks for stands in
`toolkit.pep3333`, which thread runs when in `threads`, how many may wait for clients in `slow`.

::

    the loop    on_data ──▶ [_pieces] or `Spool` ──▶ wsgi.input ─┐
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
5. A client costs no thread while its body comes: up to `WHOLE` bytes are awaited in memory. Of a
   longer body whose length is known, the rest is read as it comes, if a thread can be spared for
   that; else it goes to a temporary file. So does one of unknown length, as many applications read
   no more than CONTENT_LENGTH says, which is known once all is there.
6. Nor while it reads: a thread may be `AHEAD` of its client, and a file is sent by the loop alone.
"""

from __future__ import annotations

import io
import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from omnicorn.bridge.cycle import DONE, GONE, START, Exchange, only_disconnects
from omnicorn.bridge.environ import wsgi_environ
from omnicorn.bridge.scope import scope_template
from omnicorn.bridge.slow import SlowClients
from omnicorn.bridge.spool import Spool
from omnicorn.bridge.threads import Threads
from omnicorn.errors import ClientDisconnected, LocalProtocolError
from omnicorn.ports import HIGH_WATER
from omnicorn.toolkit.pep3333 import InputStream, WsgiResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from omnicorn.bridge.http import HTTPCarrier
    from omnicorn.bridge.scope import Address, ServerAddress
    from omnicorn.errors import RemoteProtocolError
    from omnicorn.ports import Loop, RequestHead, Stream, Task, Waiter
    from omnicorn.toolkit.pep3333 import FilePart, Head, WsgiApplication

__all__ = ["Wsgi", "WsgiCycle"]

logger = logging.getLogger("omnicorn.error")

BODY = 1  # between START and DONE

WHOLE = 256 << 10
"""Bytes of a request body that are awaited in memory before a thread is taken."""
AHEAD = 1 << 20
"""Bytes of a response that may wait for its client before its thread does."""
_BLOCKS = 4096
"""Blocks of a response that may wait for the event loop: small ones cost more than their bytes."""
_BLOCK = 256 << 10
"""Bytes read from a file at once, where the kernel does not send it."""
_SMALL = 4096
"""Bytes up to which pieces of a body are put together: each costs memory of its own."""

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
        root_path: As given.
        threads: Its threads; to be stopped at the end.
        slow: The clients that its threads wait for.
    """

    __slots__ = ("application", "root_path", "slow", "threads")

    def __init__(
        self,
        application: WsgiApplication,
        loop: Loop,
        threads: int | None = None,
        root_path: str = "",
    ) -> None:
        self.application = application
        self.threads = Threads(loop, threads or min(32, (os.cpu_count() or 1) + 4))
        self.slow = SlowClients(loop, self.threads)
        self.root_path = root_path

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

    def scope(self, cycle: WsgiCycle) -> dict[str, Any]:
        """The request as an ASGI scope, for the access log."""
        scope = scope_template(cycle.head, self.root_path)
        scope["asgi"] = {"version": "3.0", "spec_version": "2.5"}
        scope["scheme"] = cycle.scheme
        scope["headers"] = list(cycle.head.headers)
        scope["client"] = cycle.client
        scope["server"] = cycle.server
        scope["extensions"] = {}
        return scope


class _File:
    """A part of a file, with a descriptor of our own: the application may close its one."""

    __slots__ = ("number", "offset", "size")

    def __init__(self, part: FilePart) -> None:
        self.number = os.dup(part.file)
        self.offset = part.offset
        self.size = part.size

    def __del__(self) -> None:
        os.close(self.number)


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
        "_admitted",
        "_base",
        "_begun",
        "_behind",
        "_body",
        "_continue",
        "_credited",
        "_ended",
        "_error",
        "_failure",
        "_file_task",
        "_full",
        "_gate",
        "_handed",
        "_held",
        "_length",
        "_out",
        "_over",
        "_pieces",
        "_posted",
        "_rest",
        "_sending",
        "_spool",
        "_stopping",
        "_taken",
        "_told",
        "_writable",
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
        self._admitted = False  # may have a thread before its body is all there
        self._spool: Spool | None = None
        self._body: Any = None  # all of it, in a file
        self._length = 0  # bytes in there
        self._handed = 0  # bytes of the response that were given to the stream
        self._base = 0  # of them, those given before the peer fell behind
        self._behind = False  # the peer does not read as fast as it is sent to
        self._writable: Waiter | None = None  # what sends a file waits here
        self._stopping = False
        self._failure: BaseException | None = None  # what cannot be sent; raised in the thread
        self._sending = False  # a file, whether or not the thread is through
        self._file_task: Task | None = None
        self.finished = False
        self.was_cancelled = False
        # Written by the thread.
        self._begun = False
        self._over = False
        self._taken = 0  # bytes of the body that the application has
        self._continue = False  # it waits for the body
        self._full = False  # it waits for the peer to read
        self._told = False  # reading has told it that nobody waits for its answer
        self._out: deque[tuple[Head | None, Sequence[bytes] | _File, bool]] | None = None
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
        wsgi = self._wsgi
        body = self._body
        length = 0  # known, though maybe nobody announced it: chunked, or HTTP/2
        try:
            if body is not None:
                length = self._length
            elif self._ended:
                pieces = self._pieces
                content = b"" if pieces is None else b"".join(pieces)
                self._taken = length = len(content)
                body = io.BytesIO(content)
            else:
                body = InputStream(self._pull)
            environ = wsgi_environ(
                self.head, self.scheme, self.client, self.server, wsgi.root_path, body
            )
            if length:
                environ.setdefault("CONTENT_LENGTH", str(length))
            response = WsgiResponse(self, self.head.method)
            self._rest = response.run(wsgi.application, environ)
        except BaseException as error:  # SystemExit, too, is the end of a request alone
            self._error = error
        if self._body is not None:
            self._body.close()
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
            self._full = True
            self._wait(self._has_room)
            self._full = False
            self._check()

    def send_file(self, head: Head | None, part: FilePart) -> bool:
        """See `Sink`."""
        if part.size <= HIGH_WATER:
            return False
        self._check()
        out = self._out
        if out is None:
            out = self._out = deque()
        out.append((head, _File(part), True))
        return True

    def _check(self) -> None:
        failure = self._failure
        if failure is not None:
            raise RuntimeError(f"the response cannot be sent: {failure}") from failure
        if self._phase == GONE or self.finished:
            raise ClientDisconnected("the client has disconnected")

    def _has_room(self) -> bool:
        out = self._out
        return (
            self._posted - self._base <= AHEAD and (out is None or len(out) < _BLOCKS)
        ) or self._is_sent()

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

        Not if the peer waits to be asked for it, by an application that reads, and a thread may
        wait for that.
        """
        if self._ended:
            return False
        fields = self.head.fields
        if b"expect" in fields:
            if b"content-length" in fields and self._admit():
                return False
            self._stream.send_continue()
        self._held = 0
        return True

    def _admit(self) -> bool:
        self._admitted = self._wsgi.slow.admit()
        return self._admitted

    def _hold(self, data: bytes) -> None:
        """Keep a piece of the body until all of it is there, or a thread may wait for the rest."""
        spool = self._spool
        if spool is not None:
            spool.write(data, len(data))
            return
        pieces = self._pieces
        assert pieces is not None
        if pieces and len(pieces[-1]) < _SMALL:
            pieces[-1] += data
        else:
            pieces.append(data)
        self._held += len(data)
        self._credit(len(data))
        if self._held <= WHOLE:
            return
        if b"content-length" in self.head.fields and self._admit():
            self._let_go()
        else:
            spool = self._spool = Spool(self._carrier.loop, self._credit, self._spooled)
            spool.write(b"".join(pieces), 0)
            pieces.clear()

    def _credit(self, count: int) -> None:
        """The stream may send as much again."""
        if not self.finished:
            self._credited += count
            self._stream.consumed(count)

    def _spooled(self, error: Exception | None) -> None:
        spool, self._spool = self._spool, None
        assert spool is not None
        if error is None:
            self._body = spool.file
            self._length = spool.size
            self._let_go()
            return
        self._held = -1
        logger.error(
            "%s %a: 507, the body cannot be kept in a temporary file: %s",
            self.head.method,
            self.head.path,
            error,
        )
        if self._phase == START:
            self.refuse(507, b"Insufficient Storage", [])  # RFC 4918 §11.5
        self._end(None)

    def _let_go(self) -> None:
        self._held = -1
        self._wsgi.threads.submit(self)

    def _end(self, error: BaseException | None) -> None:
        """The exchange is over."""
        self.finished = True
        self._held = -1
        slow = self._wsgi.slow
        if self._admitted:
            self._admitted = False
            slow.leave()
        if self._behind:
            slow.forget(self)
        if self._spool is not None:
            self._spool.abandon()
            self._spool = None
        self._carrier.on_cycle_end(self, error)

    def collect(self) -> None:
        """See to what the thread has left here."""
        if self.finished:
            return
        phase = self._phase
        taken = self._taken - self._credited
        if taken > 0 and phase < DONE:  # else the stream may be serving the next request
            self._credited += taken
            self._stream.consumed(taken)
        over = self._over  # asked before the rest is looked at: nothing comes after it
        if self._out:
            self._deliver_all(self._out)
        if over:
            if not self._sending and not self.finished:  # else what sends a file does it
                self._finish()
        elif self._continue and phase == START and not self._ended:
            self._stream.send_continue()  # does nothing the second time
        elif self._full and self._behind and not self._has_room():
            self._wsgi.slow.lag(self)

    def _deliver_all(self, out: deque[tuple[Head | None, Sequence[bytes] | _File, bool]]) -> None:
        while out:
            head, blocks, end = out.popleft()
            if self._phase >= DONE or self._failure is not None:
                continue
            try:
                if isinstance(blocks, _File):
                    self._begin_file(head, blocks)
                    continue
                # All there is in one go: a transport that has just lost its peer is written to
                # once, and not for each block.
                gathered = [*blocks]
                while out and not isinstance(out[0][1], _File):
                    _, more, end = out.popleft()
                    gathered += more  # type: ignore[arg-type]
                self._deliver(head, gathered, end)
            except LocalProtocolError as error:
                self._failure = error
        if not self._behind:
            self._base = self._handed
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
        elif not stream.send_data(data, False) and not self._behind:
            self._base = self._handed
            self._behind = True

    def _begin_file(self, head: Head | None, file: _File) -> None:
        if head is not None:
            self._deliver(head, (), False)
        self._sending = True
        self._file_task = self._carrier.loop.spawn(self._send_file(file))

    async def _send_file(self, file: _File) -> None:
        stream = self._stream
        carrier = self._carrier
        offset = file.offset
        stop = offset + file.size
        try:
            if carrier.sendfile is not None and stream.reserve_raw(file.size):
                offset += await carrier.sendfile(file.number, offset, file.size)
                self.sent += offset - file.offset
                if self._phase < DONE and offset == stop:
                    stream.raw_written()
            else:
                while offset < stop and self._phase < DONE:
                    size = min(_BLOCK, stop - offset)
                    data = await carrier.loop.run_blocking(os.pread, file.number, size, offset)
                    if not data or self._phase >= DONE:
                        break
                    offset += len(data)
                    self.sent += len(data)
                    if not stream.send_data(data, False) and self._phase < DONE:
                        self._writable = carrier.loop.create_future()
                        await self._writable
            if self._phase < DONE:
                if offset < stop:
                    raise LocalProtocolError(f"the file ended {stop - offset} bytes too early")
                self._phase = DONE
                stream.send_data(b"", True)
        except ClientDisconnected:
            if self._phase < DONE:
                self._phase = GONE  # the transport noticed before the engine was told
        except Exception as error:
            self._failure = error
        finally:
            self._sending = False
            if self._over and not self.finished:
                self._finish()

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
            self._end(error)
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

    def _go_on(self) -> None:
        """Let what sends a file look again."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def cut(self) -> None:
        """See `Slow`."""
        if self._phase < DONE:
            self._phase = GONE
            self._stream.reset()
            self._wake()

    def cancel(self) -> None:
        """Give the request up; its thread learns of it when it reads or writes."""
        if self.finished:
            return
        self.was_cancelled = True
        if self._phase < DONE:
            self._phase = GONE
        if self._file_task is not None:
            self._file_task.cancel()
        self._withdraw()
        self._end(None)
        self._wake()

    def disconnect(self) -> None:
        """The server stops: there is nothing more to read. What is sent is still delivered."""
        self._stopping = True
        self._wake()
        if self._held >= 0 and self._phase == START:
            self._held = -1
            self.refuse(503, b"Service Unavailable", [(b"retry-after", b"1")])
            self._end(None)

    # ------------------------------------------------------------------ from the engine

    def on_data(self, data: bytes) -> None:
        if self._pieces is None:
            self._pieces = deque()
        if self._held >= 0:
            self._hold(data)
            return
        self._pieces.append(data)
        self._wake()

    def on_end(self) -> None:
        self._ended = True
        if self._admitted:
            self._admitted = False
            self._wsgi.slow.leave()
        if self._spool is not None:
            self._spool.end()
        elif self._held >= 0:
            self._let_go()
        self._wake()

    def on_writable(self) -> None:
        if self._behind:
            self._base = self._handed
            self._behind = False
            self._wsgi.slow.forget(self)
            self._wake()
        self._go_on()

    def on_reset(self, error: RemoteProtocolError | None) -> None:
        if self._phase != DONE:
            self._phase = GONE
        self._wake()
        self._go_on()
        if not self._begun and not self.finished:
            self._carrier.loop.call_soon(self._leave)  # the engine is not through with it

    def _leave(self) -> None:
        """The peer has gone: a request that no thread has need not run."""
        if self._begun or self.finished:
            return
        if self._held >= 0 or self._withdraw():
            self._end(None)

    def _withdraw(self) -> bool:
        """Take the request back, if no thread has it."""
        if self._begun or not self._wsgi.threads.withdraw(self):
            return False
        if self._body is not None:
            self._body.close()
        return True

    @property
    def was_cut(self) -> bool:
        """The exchange ended before its response was complete."""
        return self._phase == GONE

    def on_remote_closed(self) -> None:
        """Many clients are through with sending after their request; they still read."""
