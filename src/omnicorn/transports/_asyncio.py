"""asyncio (and uvloop) behind the ports. The port is shaped like asyncio, so this is thin.

Rules of this file:

1. Nothing wraps what is called for every request: the `Loop` port holds the running
   loop's own bound methods, and asyncio's transports are the `Transport` port.
2. From Python 3.12 on, tasks start eagerly: an application that never waits answers
   within the read that brought its request.
3. ``sendfile`` is our own: uvloop has none. It waits until the transport has written all
   it holds, then lets the kernel copy to a *duplicate* of the socket's descriptor, which
   the loop may watch for writability although the original belongs to a transport.
4. Unix sockets of fronts whose responses end by closing are not the loop's, but ours (`unix`).
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import sys
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from omnicorn.errors import ClientDisconnected
from omnicorn.ports import HIGH_WATER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence

    from omnicorn.ports import ConnectionPort
    from omnicorn.transports.streams import SocketAcceptor
    from omnicorn.transports.unix import UnixSockets

_SENDFILE_PIECE = 1 << 20  # bytes of one system call: a fast disk does not hold up the loop


class AsyncioLoop:
    """The `Loop` port on a running asyncio event loop."""

    __slots__ = (
        "_loop",
        "_unix",
        "add_reader",
        "call_at",
        "call_soon",
        "call_soon_threadsafe",
        "create_future",
        "gathers_writes",
        "remove_reader",
        "run_blocking",
        "sendfile",
        "spawn",
        "time",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._unix: UnixSockets | None = None
        self.time: Callable[[], float] = loop.time
        self.gathers_writes = type(loop).__module__.partition(".")[0] == "uvloop"
        self.call_soon: Callable[[Callable[[], object]], object] = loop.call_soon
        self.call_soon_threadsafe: Callable[[Callable[[], object]], object] = (
            loop.call_soon_threadsafe
        )
        self.call_at: Callable[[float, Callable[[], object]], asyncio.TimerHandle] = loop.call_at
        self.add_reader: Callable[[int, Callable[[], object]], object] = loop.add_reader
        self.remove_reader: Callable[[int], object] = loop.remove_reader
        self.create_future: Callable[[], asyncio.Future[None]] = loop.create_future
        self.spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
        # What is spawned from within another task's step would inherit that task's variables.
        base = contextvars.copy_context()
        if loop.get_task_factory() is not None:
            self.spawn = lambda coro: loop.create_task(coro, context=base.copy())
        elif sys.version_info >= (3, 12):
            self.spawn = lambda coro: asyncio.Task(
                coro, loop=loop, context=base.copy(), eager_start=True
            )
        else:
            # The task copies the context it is made in. (An eager one runs in there, too, and
            # a context cannot be entered twice.) To format "Task-17" would take longer than
            # all the rest.
            self.spawn = partial(base.run, partial(asyncio.Task, loop=loop, name="request"))
        self.run_blocking: Callable[..., Awaitable[Any]] = self._run_blocking
        self.sendfile: Callable[[Any, int, int, int, float], Awaitable[int]] | None = (
            self._sendfile if hasattr(os, "sendfile") else None
        )

    async def listen(
        self, connect: Callable[[], ConnectionPort], sockets: Sequence[socket.socket], backlog: int
    ) -> list[asyncio.AbstractServer | SocketAcceptor]:
        """Accept on listening *sockets*; each transport gets a connection from *connect*."""
        servers: list[asyncio.AbstractServer | SocketAcceptor] = []
        tells = getattr(connect, "ends_by_closing", False)
        try:
            for sock in sockets:
                if tells and (unix := self._unix_sockets(sock)) is not None:
                    servers.append(unix.listen(connect, sock, backlog))
                    continue
                server = await _server(self._loop, connect, sock, backlog)
                servers.append(server)
                await server.start_serving()
        except BaseException:
            for each in servers:
                each.close()
            raise
        return servers

    async def outlast(self, waiter: asyncio.Future[None], on_cancel: Callable[[], object]) -> None:
        """Await *waiter* to its end, even if the caller is cancelled.

        Args:
            waiter: Of `create_future`.
            on_cancel: Called each time the caller is cancelled.

        Raises:
            asyncio.CancelledError: In the end, if the caller was cancelled.
        """
        cancelled: asyncio.CancelledError | None = None
        task = asyncio.current_task()
        anyio = sys.modules.get("anyio")
        # anyio says it again in each turn of the loop, but not behind a shield.
        shield: Any = nullcontext()
        while not waiter.done():
            if anyio is not None and (cancelled is not None or (task and task.cancelling())):
                shield = anyio.CancelScope(shield=True)
            try:
                with shield:
                    await asyncio.wait((waiter,))
            except asyncio.CancelledError as exc:
                cancelled = exc
                on_cancel()
        try:
            if cancelled is not None:
                raise cancelled
        finally:
            cancelled = None  # its traceback holds this frame

    def release(self) -> None:
        """See `Host`."""
        if self._unix is not None:
            self._unix.forsake()

    def _unix_sockets(self, sock: socket.socket) -> UnixSockets | None:
        from omnicorn.transports import unix

        if not unix.takes(sock):
            return None
        if self._unix is None:
            self._unix = unix.UnixSockets(self)
        return self._unix

    def _run_blocking(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return self._loop.run_in_executor(None, function, *args)

    async def _sendfile(
        self, transport: Any, file: int, offset: int, count: int, stall: float
    ) -> int:
        own = getattr(transport, "sendfile", None)
        if own is not None:
            return await own(file, offset, count, stall)  # type: ignore[no-any-return]
        await self._written(transport, stall)
        sent = 0
        out = os.dup(transport.get_extra_info("socket").fileno())
        try:
            while sent < count:
                if transport.is_closing():
                    raise ClientDisconnected("the client has disconnected")
                try:
                    size = min(count - sent, _SENDFILE_PIECE)
                    done = os.sendfile(out, file, offset + sent, size)
                except BlockingIOError:
                    await self._writable(transport, out, stall)
                    continue
                except (BrokenPipeError, ConnectionError):
                    transport.abort()
                    raise ClientDisconnected("the client has disconnected") from None
                except OSError:
                    # A file the kernel cannot send from (a pipe, some network file systems).
                    return sent + await self._copy(
                        transport, file, offset + sent, count - sent, stall
                    )
                if not done:
                    break
                sent += done
                await asyncio.sleep(0)
        finally:
            os.close(out)
        return sent

    async def _copy(self, transport: Any, file: int, offset: int, count: int, stall: float) -> int:
        """Read and write *count* bytes in the kernel's place."""
        sent = 0
        while sent < count:
            size = min(count - sent, HIGH_WATER)
            data = await self._run_blocking(os.pread, file, size, offset + sent)
            if not data:
                break
            if transport.is_closing():
                raise ClientDisconnected("the client has disconnected")
            transport.write(data)
            await self._written(transport, stall)
            sent += len(data)
        return sent

    async def _written(self, transport: Any, stall: float) -> None:
        """Wait until the transport holds nothing back."""
        waiting = transport.get_write_buffer_size()
        deadline = self._loop.time() + stall
        pause = 0.0
        while waiting:
            # A transport tells its protocol, not us. A head has usually left within the
            # iteration; for a slow peer, looking twenty times a second is soon enough.
            await asyncio.sleep(pause)
            pause = min(0.05, 2 * pause or 0.001)
            if transport.is_closing():
                raise ClientDisconnected("the client has disconnected")
            now = transport.get_write_buffer_size()
            if now < waiting:
                deadline = self._loop.time() + stall
            elif self._loop.time() > deadline:
                transport.abort()
                raise ClientDisconnected("the client has stopped reading")
            waiting = now

    async def _writable(self, transport: Any, out: int, stall: float) -> None:
        """Wait until the socket takes more."""
        loop = self._loop
        ready = loop.create_future()

        def on_ready() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_writer(out, on_ready)
        try:
            # In steps, so that a connection cut meanwhile is noticed.
            waited = 0.0
            while not ready.done():
                done, _ = await asyncio.wait((ready,), timeout=min(1.0, stall))
                waited += 1.0
                if done:
                    return
                if transport.is_closing() or waited >= stall:
                    transport.abort()
                    raise ClientDisconnected("the client has stopped reading")
        finally:
            loop.remove_writer(out)


@asynccontextmanager
async def hosting() -> AsyncIterator[AsyncioLoop]:
    """The `AsyncioLoop` of the running event loop.

    Its tasks are the event loop's own: who spawns one cancels it, and waits for it.
    """
    yield AsyncioLoop(asyncio.get_running_loop())


async def _server(
    loop: asyncio.AbstractEventLoop, create: Callable[[], Any], sock: socket.socket, backlog: int
) -> asyncio.AbstractServer:
    """A server that does not accept yet: to begin, asyncio yields, and a cancellation there
    would leave a server that nobody knows."""
    if sock.family != getattr(socket, "AF_UNIX", None):
        return await loop.create_server(create, sock=sock, backlog=backlog, start_serving=False)
    options: dict[str, Any] = {"sock": sock, "backlog": backlog, "start_serving": False}
    if sys.version_info >= (3, 13):
        # The loop would remove the socket's file; its owner here does that.
        options["cleanup_socket"] = False
    return await loop.create_unix_server(create, **options)
