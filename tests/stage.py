"""One scenario on every event loop.

A scenario is an ``async def scenario(stage)`` written with anyio; `perform` runs it on asyncio,
uvloop or trio. What anyio would do in a way of its own stands here: a task that is cancelled as
its own library does it (on asyncio once for each time it is said, on trio for good).
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import anyio.abc
import trio
from anyio.streams.buffered import BufferedByteReceiveStream

from omnicorn.runtime.hosts import hosting

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from omnicorn.runtime.hosts import Host
    from omnicorn.runtime.server import Server

    Scenario: TypeAlias = Callable[["Stage"], Awaitable[None]]
    Play: TypeAlias = Callable[[Scenario], None]

LIBRARIES = ("asyncio", "uvloop", "trio")
PATIENCE = 8.0


class Errand:
    """Something that goes on beside the scenario.

    Attributes:
        done: It has ended, in whatever way.
        result: What it returned.
        error: What it raised.
        was_cancelled: It ended with its library's cancellation.
    """

    def __init__(self) -> None:
        self._over = anyio.Event()
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.was_cancelled = False
        self._target: asyncio.Task[None] | trio.CancelScope

    def cancel(self) -> None:
        self._target.cancel()

    async def end(self) -> Any:
        """Wait for it; returns what it returned, raises what it raised."""
        await self._over.wait()
        if self.error is not None:
            raise self.error
        return self.result

    async def run(self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        try:
            self.result = await function(*args)
        except anyio.get_cancelled_exc_class():
            self.was_cancelled = True
            if isinstance(self._target, trio.CancelScope):
                raise
        except BaseException as exc:
            self.error = exc
        finally:
            self.done = True
            self._over.set()

    async def run_on_trio(self, *args: Any) -> None:
        with self._target:  # type: ignore[union-attr]
            await self.run(*args)


class Stage:
    """What a scenario may use.

    Attributes:
        library: ``"asyncio"``, ``"uvloop"`` or ``"trio"``.
        host: The loop, for servers that are started and stopped by hand.
    """

    def __init__(self, library: str, host: Host, nursery: trio.Nursery | None) -> None:
        self.library = library
        self.host = host
        self._nursery = nursery
        self._errands: list[Errand] = []
        self._servers: list[Server] = []

    async def start(self, server: Server) -> None:
        """Start a server in this loop; if it is still there at the end, it is stopped."""
        self._servers.append(server)
        await server.start(self.host)

    def begin(
        self, function: Callable[..., Awaitable[Any]], *args: Any, errand: Errand | None = None
    ) -> Errand:
        """Call a function in a task of its own, which begins soon."""
        errand = errand or Errand()
        self._errands.append(errand)
        if self._nursery is None:
            errand._target = asyncio.ensure_future(errand.run(function, args))
        else:
            errand._target = trio.CancelScope()
            self._nursery.start_soon(errand.run_on_trio, function, args)
        return errand

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what nobody announces."""
        while not condition():
            await anyio.sleep(0.001)

    async def finish(self) -> None:
        """End what the scenario has left going on: a loop that is closed around an open
        server may hang (uvloop's)."""
        for server in self._servers:
            stopping = self.begin(server.stop)
            while not stopping.done:
                server.hurry()
                await turns()
        for errand in self._errands:
            if not errand.done:
                errand.cancel()
                if self._nursery is None:
                    await asyncio.wait((errand._target,))  # type: ignore[type-var]


async def turns() -> None:
    """Let everything that is ready run, and what that makes ready."""
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


def perform(library: str, scenario: Scenario, *, patience: float = PATIENCE) -> None:
    """Run a scenario; one that lasts longer than *patience*, in seconds, fails."""

    async def on_stage(nursery: trio.Nursery | None) -> None:
        with anyio.fail_after(patience):
            async with hosting() as host:
                stage = Stage(library, host, nursery)
                try:
                    await scenario(stage)
                finally:
                    await stage.finish()

    async def on_trio() -> None:
        error: BaseException | None = None
        async with trio.open_nursery() as nursery:
            try:
                await on_stage(nursery)
            except Exception as exc:  # as it is, not in the nursery's group
                error = exc
        if error is not None:
            raise error

    if library == "trio":
        trio.run(on_trio)
    else:
        options = {"use_uvloop": library == "uvloop"}
        anyio.run(on_stage, None, backend="asyncio", backend_options=options)


class Client:
    """A client that speaks a little HTTP/1.1."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self.stream = stream
        self.reader = BufferedByteReceiveStream(stream)

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def ask(self, path: str = "/") -> None:
        await self.send(f"GET {path} HTTP/1.1\r\nhost: test\r\n\r\n".encode())

    async def head(self) -> str:
        return (await self.reader.receive_until(b"\r\n\r\n", 65536)).decode("latin-1")

    async def answer(self) -> str:
        """The content of the next response."""
        length = (await self.head()).lower().partition("content-length: ")[2].partition("\r\n")[0]
        return (await self.reader.receive_exactly(int(length))).decode()

    async def get(self, path: str = "/") -> str:
        await self.ask(path)
        return await self.answer()

    async def rest(self) -> bytes:
        """All that comes until the server ends the connection, in whatever way."""
        received = b""
        try:
            while True:
                received += await self.reader.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return received


@asynccontextmanager
async def client_of(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    """A client connected to where a server says it listens.

    Raises:
        ConnectionRefusedError: Nobody listens there.
    """
    stream: anyio.abc.ByteStream
    try:
        if url.startswith("unix:"):
            stream = await anyio.connect_unix(url.removeprefix("unix:"))
        else:
            host, _, port = url.partition("://")[2].rpartition(":")
            stream = await anyio.connect_tcp(host.strip("[]"), int(port))
    except OSError as exc:
        raise exc.__cause__ or exc from None
    async with stream:
        if tls is None:
            yield Client(stream)
            return
        from anyio.streams.tls import TLSStream

        async with await TLSStream.wrap(
            stream,
            server_side=False,
            hostname="127.0.0.1",
            ssl_context=tls,
            standard_compatible=False,
        ) as secure:
            yield Client(secure)


async def refused(url: str) -> bool:
    """Whether nobody listens at *url*."""
    try:
        async with client_of(url):
            return False
    except ConnectionRefusedError:
        return True
