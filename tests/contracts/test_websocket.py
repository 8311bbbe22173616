"""One WebSocket conversation on every runtime and real sockets; the application is portable.

It proves that a transport takes another connection in mid-life (`Transport.set_protocol`), that
what came with the handshake is not lost, and that both directions hold back and go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.frames import (
    ACCEPT,
    BINARY,
    CLOSE,
    HANDSHAKE,
    PING,
    PONG,
    SWITCHED,
    TEXT,
    closed,
    closing,
    frame,
    frames,
    text,
)

from omnicorn.connections.http1 import Http1Connection
from omnicorn.connections.service import Service, Timeouts, WebSockets

if TYPE_CHECKING:
    from collections.abc import Callable

    Play = Callable[[Callable[[Any], Any]], None]

BIG = bytes(range(256)) * 16384  # 4 MiB
ANSWER = SWITCHED + b"\r\n"
ASK = "\r\n".join(["GET /ws HTTP/1.1", "host: a", *HANDSHAKE, "", ""]).encode()


class Room:
    """Says back what it is told; a few words make it do something else."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.seen: list[Any] = []
        """The disconnect, and exceptions by name."""
        self.sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send(ACCEPT)
        try:
            while (event := await receive())["type"] == "websocket.receive":
                word = event.get("text")
                if word == "close":
                    await send({"type": "websocket.close", "code": 4000, "reason": "asked to"})
                elif word == "pour":
                    for start in range(0, len(BIG), 16384):
                        data = BIG[start : start + 16384]
                        await send({"type": "websocket.send", "bytes": data})
                        self.sent += len(data)
                elif word == "nap":
                    await self._world.pause(0.01)
                elif word == "fail":
                    raise LookupError("a bug")
                else:
                    await send({**event, "type": "websocket.send"})
            self.seen.append((event["code"], event["reason"]))
        except OSError as exc:
            self.seen.append(type(exc).__name__)
            raise


@pytest.fixture(autouse=True)
def _quick_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnicorn.connections.deadlines.WIDTH", 1 / 64)


def opened(world: Any, **options: Any) -> tuple[Service, Room]:
    room = Room(world)
    plain = {"server_header": False, "date_header": False}
    return Service(room, world.loop, **{**plain, **options}), room


async def read_frames(client: Any, count: int) -> list[tuple[int, bytes]]:
    """*count* bytes of frames behind the answer to the handshake."""
    wire = await client.read(len(ANSWER) + count)
    assert wire.startswith(ANSWER)
    return frames(wire[len(ANSWER) :])


def test_a_conversation_from_the_handshake_to_the_end(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, room = opened(world)
        client = await world.connect(Http1Connection(service))
        await client.send(ASK + text("early"))
        assert await read_frames(client, 7) == [(TEXT, b"early")]

        await client.send(frame(BINARY, b"\x00\xff") + frame(PING, b"?"))
        assert sorted((await read_frames(client, 14))[1:]) == [(BINARY, b"\x00\xff"), (PONG, b"?")]

        # In pieces, over the edges of frames.
        for byte in text("a") + text("b"):
            await client.send(bytes((byte,)))
            await world.turn()
        assert (await read_frames(client, 20))[3:] == [(TEXT, b"a"), (TEXT, b"b")]

        await client.send(closing(1001, "bye"))
        await client.ended()
        assert frames(client.received[len(ANSWER) :])[5:] == closed(1001)
        assert client.eof and not client.was_reset
        assert room.seen == [(1001, "bye")]
        await world.until(lambda: not service.connections and service.active == 0)

    play(scenario)


def test_the_application_closes(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, room = opened(world)
        client = await world.connect(Http1Connection(service))
        await client.send(ASK + text("close"))
        assert await read_frames(client, 12) == closed(4000, "asked to")
        await world.until(lambda: service.active == 0)
        assert room.seen == [(4000, "asked to")]

        await client.send(text("dropped") + closing(4000))
        await client.ended()
        assert client.eof and not client.was_reset
        await world.until(lambda: not service.connections)

    play(scenario)


def test_what_a_client_sends_after_it_broke_a_rule_does_not_take_the_reason_away(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: Any) -> None:
        service, room = opened(world)
        client = await world.connect(Http1Connection(service))
        await client.send(ASK)
        await client.read(len(ANSWER))
        await client.send(b"\x81\x02hi")  # not masked
        for _ in range(5):
            await client.send(text("going on") * 100)
            await world.turn()
        await client.ended()
        ((opcode, content),) = frames(client.received[len(ANSWER) :])
        assert (opcode, content[:2]) == (CLOSE, (1002).to_bytes(2, "big"))
        assert client.eof and not client.was_reset
        client.close()
        await world.until(lambda: not service.connections and service.active == 0)
        assert room.seen == [(1002, content[2:].decode())]

    play(scenario)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_leaves_without_a_word_is_1006(play: Play, how: str) -> None:
    async def scenario(world: Any) -> None:
        service, room = opened(world)
        client = await world.connect(Http1Connection(service))
        await client.send(ASK + text("hi"))
        await read_frames(client, 4)
        getattr(client, how)()
        await world.until(lambda: service.active == 0 and not service.connections)
        assert room.seen == [(1006, "")]

    play(scenario)


def test_a_slow_reader_gets_four_mebibytes_and_they_never_wait_in_memory(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, room = opened(world)
        client = await world.connect(Http1Connection(service))
        await client.send(ASK)
        await client.read(len(ANSWER))
        await client.send(text("pour"))
        await world.until(lambda: room.sent)
        await world.pause(0.01)
        assert room.sent < len(BIG)

        got = await read_frames(client, len(BIG) + len(BIG) // 16384 * 4)
        assert b"".join(content for _, content in got) == BIG
        assert {opcode for opcode, _ in got} == {BINARY}
        service.cancel()

    play(scenario)


def test_a_client_that_never_reads_is_cut(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: Any) -> None:
        service, room = opened(world, timeouts=Timeouts(write=0.01))
        client = await world.connect(Http1Connection(service))
        await client.send(ASK)
        await client.read(len(ANSWER))
        await client.send(text("pour"))
        await world.until(lambda: service.active == 0 and not service.connections)
        assert room.seen == ["ClientDisconnected"]

    play(scenario)
    assert caplog.records == []


def test_a_client_that_sends_faster_than_the_application_takes_is_held_back(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, room = opened(world, websockets=WebSockets(max_queue=4))
        client = await world.connect(Http1Connection(service))
        words = [b"%05d" % number for number in range(500)]
        await client.send(ASK + text("nap") + b"".join(frame(TEXT, word) for word in words))
        assert await read_frames(client, 7 * len(words)) == [(TEXT, word) for word in words]
        await client.send(closing(1000))
        await client.ended()
        assert room.seen == [(1000, "")]
        await world.until(lambda: not service.connections and service.active == 0)

    play(scenario)


def test_pings_are_sent_and_awaited(play: Play) -> None:
    async def scenario(world: Any) -> None:
        settings = WebSockets(ping_interval=0.01, ping_timeout=0.01)
        service, room = opened(world, websockets=settings)
        client = await world.connect(Http1Connection(service))
        await client.send(ASK)
        assert await read_frames(client, 10) == [(PING, b"omnicorn")]
        await client.send(frame(PONG, b"omnicorn"))
        assert await read_frames(client, 20) == [(PING, b"omnicorn")] * 2
        await world.until(lambda: room.seen)
        assert room.seen == [(1011, "the peer does not answer pings")]
        client.reset()
        await world.until(lambda: not service.connections and service.active == 0)

    play(scenario)


def test_a_drain_closes_with_1012(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, room = opened(world)
        client = await world.connect(Http1Connection(service))
        await client.send(ASK + text("hi"))
        await read_frames(client, 4)
        over: list[bool] = []
        service.drain(lambda: over.append(True))
        assert (await read_frames(client, 8))[1:] == closed(1012)
        await world.until(lambda: room.seen)
        assert room.seen == [(1012, "")]
        assert over == []
        await client.send(closing(1012))
        await client.ended()
        await world.until(lambda: over)
        assert client.eof and not client.was_reset

    play(scenario)


def test_a_bug_closes_with_1011(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: Any) -> None:
        service, _ = opened(world)
        client = await world.connect(Http1Connection(service))
        await client.send(ASK + text("fail"))
        assert await read_frames(client, 4) == closed(1011)
        await client.send(closing(1011))
        await client.ended()
        await world.until(lambda: not service.connections and service.active == 0)

    play(scenario)
    assert [record.getMessage() for record in caplog.records] == [
        "WebSocket '/ws': the application failed"
    ]


def test_cancelling_ends_websockets_at_once(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, room = opened(world)
        client = await world.connect(Http1Connection(service))
        await client.send(ASK + text("hi"))
        await read_frames(client, 4)
        service.cancel()
        await client.ended()
        await world.until(lambda: not service.connections and service.active == 0)
        assert room.seen == []

    play(scenario)
