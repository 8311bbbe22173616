"""`serve` is cancelled, on every event loop, at any moment and whatever is in flight.

It ends in order and in time, its port is free, and no descriptor, task or exchange is left.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio
from tests.certificates import Authority
from tests.frames import ACCEPT, HANDSHAKE
from tests.http2_client import frame, settings
from tests.stage import LIBRARIES, Stage, client_of, perform, refused

from omnicorn.config import Config
from omnicorn.runtime.serving import serve

if TYPE_CHECKING:
    from pathlib import Path

GRACE = 0.05
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings()
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
WEBSOCKET = "\r\n".join(["GET / HTTP/1.1", "host: a", *HANDSHAKE, "", ""]).encode()


def streams(count: int) -> bytes:
    """The preface and *count* requests of HTTP/2, in fields of the static table (RFC 7541 §A)."""
    head = b"\x82\x86\x84\x41\x01a"  # GET, http, /, a
    return PREFACE + b"".join(frame(1, 0x05, 2 * index + 1, head) for index in range(count))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("certificate")
    certfile, keyfile = Authority().issue("127.0.0.1").save(folder, "server")
    return {"ssl_certfile": certfile, "ssl_keyfile": keyfile}


def trusting(certfile: str, protocol: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certfile)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is trusted
    context.set_alpn_protocols([protocol])
    return context


class App:
    """Leaves when it is told that the client has gone, or never does if it is *stubborn*."""

    def __init__(self, stubborn: bool) -> None:
        self._stubborn = stubborn
        self.active = 0
        self.begun = 0
        self.shut_down = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.shut_down = True
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.active += 1
        self.begun += 1
        try:
            await receive()
            if scope["type"] == "websocket":
                await send(ACCEPT)
            if self._stubborn:
                await anyio.sleep_forever()
            while not (await receive())["type"].endswith("disconnect"):
                pass
        finally:
            self.active -= 1


class Started:
    """A task status (trio's) for every library."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.urls: list[str] = []

    def started(self, urls: list[str]) -> None:
        self.urls = urls
        self.event.set()


async def nothing(stage: Stage) -> None:
    pass


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("moment", [0, 1, 4, 12, 40, None])
@pytest.mark.parametrize("stubborn", [False, True], ids=["polite", "stubborn"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_streams_websockets_and_handshakes_in_flight_end_with_a_cancelled_server(
    library: str, stubborn: bool, moment: int | None, certificate: dict[str, str]
) -> None:
    app = App(stubborn)
    config = Config(
        bind=["127.0.0.1:0"],
        insecure_bind=["127.0.0.1:0"],
        access_log=False,
        timeout_graceful_shutdown=GRACE,
        **certificate,  # type: ignore[arg-type]
    )

    async def main(stage: Stage) -> None:
        started = Started()

        async def serving() -> None:
            await serve(app, config, task_status=started)

        errand = stage.begin(serving)
        await started.event.wait()
        secure, plain = started.urls
        async with AsyncExitStack() as stack:
            for data in (GET, WEBSOCKET, streams(3), PREFACE, b"GET / HT"):
                protocol = "h2" if data.startswith(b"PRI") else "http/1.1"
                context = trusting(certificate["ssl_certfile"], protocol)
                for client in (
                    await stack.enter_async_context(client_of(plain)),
                    await stack.enter_async_context(client_of(secure, context)),
                ):
                    await client.send(data)
            for data in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"):
                client = await stack.enter_async_context(client_of(secure))
                if data:
                    await client.send(data)
            if moment is None:
                await stage.until(lambda: app.active == 10)
            for _ in range(moment or 0):
                await anyio.lowlevel.checkpoint()
            began = time.monotonic()
            errand.cancel()
            while not errand.done:
                await anyio.sleep(0.001)
            assert time.monotonic() - began < 3
            assert errand.was_cancelled
            assert errand.error is None
        assert await refused(plain)
        assert await refused(secure)

    perform(library, nothing)  # what a library opens once and for all
    before = descriptors()
    perform(library, main)
    assert descriptors() == before
    assert app.active == 0
    assert app.shut_down


@pytest.mark.timeout(20)
@pytest.mark.parametrize("moment", [None, *range(31)])
def test_on_trio_serve_may_be_cancelled_at_any_moment_of_its_start(moment: int | None) -> None:
    app = App(stubborn=False)

    async def main() -> None:
        listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener[0].socket.getsockname()[1]
        await listener[0].aclose()
        config = Config(bind=[f"127.0.0.1:{port}"], access_log=False, timeout_graceful_shutdown=1)
        if moment is None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await serve(app, config)
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, app, config)
                for _ in range(moment):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        assert await refused(f"http://127.0.0.1:{port}")

    before = descriptors()
    began = time.monotonic()
    trio.run(main)
    assert time.monotonic() - began < 3
    assert descriptors() == before


@pytest.mark.parametrize(
    ("loop", "path"), [("trio", "/"), ("trio", "/wait"), ("trio", "/startup"), ("asyncio", "/wait")]
)
def test_an_application_that_exits_ends_the_command_with_its_code(
    loop: str, path: str, tmp_path: Path
) -> None:
    (tmp_path / "exiting.py").write_text(f"""
import sys
import {loop}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if {path == "/startup"}:
            sys.exit(4)
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
    if scope["path"] != "/":
        await {loop}.sleep(0.001)
    sys.exit(4)
""")
    command = [sys.executable, "-X", "dev", "-m", "omnicorn", "exiting:app", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--loop", loop, "--lifespan", "on"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        try:
            lines = []
            while path != "/startup" and (line := process.stderr.readline()):
                lines.append(line)
                if "serving on" in line:
                    port = int(line.rpartition(":")[2])
                    with socket.create_connection(("127.0.0.1", port)) as client:
                        client.sendall(GET.replace(b"/", path.encode(), 1))
                        rest = process.stderr.read()
                    lines.append(rest)
                    break
            said = "".join(lines) + process.stderr.read()
            assert process.wait(20) == 4, said
        finally:
            process.kill()
    if loop == "trio":
        for complaint in ("KeyError", "never awaited", "unclosed", "corrupted"):
            assert complaint not in said, said
