"""`Connection`, one class, on every runtime and real sockets; the application is portable.

Together with the trio application at the end this proves the ports: nothing between the
transport and the application knows which loop it runs on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from omnicorn.connections.http1 import Http1Connection
from omnicorn.connections.service import Service, Timeouts
from omnicorn.transports.inproc import ManualLoop, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    Play = Callable[[Callable[[Any], Any]], None]

BIG = bytes(range(256)) * 16384  # 4 MiB
DISCONNECT = {"type": "http.disconnect"}


def get(path: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: a", *fields, "", ""]).encode()


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def respond(send: Any, body: bytes, piece: int = 0) -> None:
    """Send *body*, whole or in pieces."""
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if piece:
        for start in range(0, len(body), piece):
            part = body[start : start + piece]
            await send({"type": "http.response.body", "body": part, "more_body": True})
        body = b""
    await send({"type": "http.response.body", "body": body})


class App:
    """Portable: it waits for nothing but its messages and what *pause* gives it."""

    def __init__(self, pause: Callable[[float], Any]) -> None:
        self.pause = pause
        self.seen: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/big":
            await respond(send, BIG, 16384)
        elif path == "/echo":
            body = b""
            more = True
            while more:
                event = await receive()
                self.seen.append(event)
                if event["type"] == "http.disconnect":
                    return
                body += event["body"]
                more = event["more_body"]
            await respond(send, body)
        elif path == "/endless":
            await send({"type": "http.response.start", "status": 200})
            try:
                while True:
                    await send(
                        {"type": "http.response.body", "body": b"x" * 5000, "more_body": True}
                    )
                    await self.pause(0.001)
            except OSError as exc:
                self.seen.append(type(exc).__name__)
                raise
        else:
            await self.pause(0.001)
            await respond(send, path.encode())


def served(world: Any, app: Any = None, **options: Any) -> Service:
    """A service with plain responses."""
    return Service(
        App(world.pause) if app is None else app,
        world.loop,
        server_header=False,
        date_header=False,
        **options,
    )


def test_requests_on_a_kept_connection_are_answered(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service = served(world)
        client = await world.connect(Http1Connection(service))
        expected = b""
        for number in range(5):
            await client.send(get(f"/{number}"))
            expected += answer(b"/%d" % number)
            assert await client.read(len(expected)) == expected
        client.close()
        await client.ended()
        assert client.eof
        await world.until(lambda: not service.connections)
        assert service.active == 0

    play(scenario)


def test_pipelined_requests_are_answered_in_order(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service = served(world)
        client = await world.connect(Http1Connection(service))
        await client.send(b"".join(get(f"/{number:03}") for number in range(100)))
        expected = b"".join(answer(b"/%03d" % number) for number in range(100))
        assert await client.read(len(expected)) == expected
        service.cancel()

    play(scenario)


def test_a_slow_reader_gets_four_mebibytes_and_they_never_wait_in_memory(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service = served(world)
        connection = Http1Connection(service)
        client = await world.connect(connection)
        await client.send(get("/big"))
        most = 0
        expected = answer(BIG)
        while len(client.received) < len(expected):
            before = len(client.received)
            client.look(32768)
            most = max(most, connection._waiting_bytes())
            if len(client.received) == before:
                await world.pause(0.0005)
            else:
                await world.turn()
        assert client.received == expected
        assert most <= 3 * 65536
        service.cancel()

    play(scenario)


def test_content_is_echoed_whole(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service = served(world)
        client = await world.connect(Http1Connection(service))
        body = BIG[:300_000]
        await client.send(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 300000\r\n\r\n")
        for start in range(0, len(body), 10_000):
            await client.send(body[start : start + 10_000])
            await world.turn()
        expected = answer(body)
        assert await client.read(len(expected)) == expected
        service.cancel()

    play(scenario)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_in_the_middle_of_its_content_has_disconnected(
    play: Play, how: str
) -> None:
    async def scenario(world: Any) -> None:
        app = App(world.pause)
        service = served(world, app)
        client = await world.connect(Http1Connection(service))
        await client.send(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc")
        await world.until(lambda: app.seen)
        getattr(client, how)()
        await world.until(lambda: service.active == 0)
        assert app.seen == [{"type": "http.request", "body": b"abc", "more_body": True}, DISCONNECT]
        await world.until(lambda: not service.connections)

    play(scenario)


def test_a_client_that_leaves_in_the_middle_of_a_response_is_an_oserror(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: Any) -> None:
        app = App(world.pause)
        service = served(world, app)
        client = await world.connect(Http1Connection(service))
        await client.send(get("/endless"))
        await client.read(20_000)
        client.reset()
        await world.until(lambda: service.active == 0)
        assert app.seen == ["ClientDisconnected"]

    play(scenario)
    assert caplog.records == []


def test_deadlines_are_kept(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service = served(world, timeouts=Timeouts(head=0.01, keep_alive=0.02))
        silent = await world.connect(Http1Connection(service))
        begun = await world.connect(Http1Connection(service))
        await begun.send(b"GET / HT")
        await silent.ended()
        await begun.ended()
        assert silent.received == b""
        assert begun.received.startswith(b"HTTP/1.1 408 ")
        begun.close()
        await world.until(lambda: not service.connections)

    play(scenario)


def test_a_drain_lets_what_is_in_flight_finish(play: Play) -> None:
    async def scenario(world: Any) -> None:
        gate = world.loop.create_future()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await gate
            await respond(send, b"done")

        service = served(world, app)
        idle, busy = [await world.connect(Http1Connection(service)) for _ in range(2)]
        await busy.send(get("/"))
        await world.until(lambda: service.active)
        over: list[bool] = []
        service.drain(lambda: over.append(True))
        await idle.ended()
        assert over == []
        gate.set_result(None)
        await busy.ended()
        await world.until(lambda: over)
        assert b"connection: close\r\n" in busy.received
        assert busy.received.endswith(b"done")

    play(scenario)


def test_cancelling_ends_applications_that_wait(play: Play) -> None:
    async def scenario(world: Any) -> None:
        left: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                await receive()
                await receive()
            finally:
                left.append("left")

        service = served(world, app)
        client = await world.connect(Http1Connection(service))
        await client.send(get("/"))
        await world.until(lambda: service.active)
        await world.turn()
        service.cancel()
        await client.ended()
        await world.until(lambda: service.active == 0 and not service.connections)
        assert left == ["left"]

    play(scenario)


# ---------------------------------------------------------------- what only trio can do


@pytest.mark.parametrize("runtime", ["trio"], indirect=True)
def test_an_application_may_use_trio_itself(play: Play) -> None:
    """Sleeps, nurseries and cancel scopes of trio, through the same bridge."""

    async def scenario(world: Any) -> None:
        events: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/nursery":
                results: list[bytes] = []

                done = trio.Event()

                async def second() -> None:
                    await done.wait()
                    results.append(b"second")

                async def first() -> None:
                    await trio.sleep(0.001)
                    results.append(b"first")
                    done.set()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(second)
                    nursery.start_soon(first)
                await respond(send, b" ".join(results))
            elif scope["path"] == "/stream":
                await receive()

                async def listen(scope: trio.CancelScope) -> None:
                    events.append((await receive())["type"])
                    scope.cancel()

                async def stream() -> None:
                    await send({"type": "http.response.start", "status": 200})
                    while True:
                        await send(
                            {"type": "http.response.body", "body": b"tick", "more_body": True}
                        )
                        await trio.sleep(0.001)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(listen, nursery.cancel_scope)
                    nursery.start_soon(stream)
            else:
                await receive()
                with trio.move_on_after(0.002) as timed:
                    await receive()
                assert timed.cancelled_caught
                await respond(send, b"gave up")

        service = served(world, app)
        client = await world.connect(Http1Connection(service))
        await client.send(get("/nursery") + get("/timeout"))
        expected = answer(b"first second") + answer(b"gave up")
        assert await client.read(len(expected)) == expected

        await client.send(get("/stream"))
        await client.read(len(expected) + 100)
        client.reset()
        await world.until(lambda: service.active == 0)
        assert events == ["http.disconnect"]

    play(scenario)


# A peer that reads as fast as the application sends: the transport never fills.


def test_an_application_that_only_sends_lets_others_have_their_turn() -> None:
    loop = ManualLoop()
    done: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, BIG if scope["path"] == "/big" else b"small", 16384)
        done.append(scope["path"])

    service = Service(app, loop)
    for path in ("/big", "/small"):
        connect(loop, Http1Connection(service)).send(get(path))
    loop.run_until_idle()

    assert done == ["/small", "/big"]
