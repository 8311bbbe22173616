"""The same HTTP/2 conversations on every runtime and real sockets, with `h2` as the client.

`h2` judges each frame of ours; what it does not know, trio, uvloop and asyncio differ in: when a
transport is full, how it ends, and that one connection hands it over to the next.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from tests.frames import ACCEPT, BINARY, TEXT, closed, closing, frame, frames, text

from omnicorn.connections.http1 import Http1Connection
from omnicorn.connections.http2 import Http2Connection
from omnicorn.connections.service import Http2, Service, Timeouts

if TYPE_CHECKING:
    from collections.abc import Callable

    Play = Callable[[Callable[[Any], Any]], None]

BIG = bytes(range(256)) * 4096  # 1 MiB
H2C = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: h2c\r\n\r\n"


@pytest.fixture(autouse=True)
def _quick_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnicorn.connections.deadlines.WIDTH", 1 / 64)


class Site:
    """Says back what it is told; some paths do something else."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.seen: list[Any] = []
        self.entered = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.entered += 1
        if scope["type"] == "websocket":
            await self._room(receive, send)
            return
        path = scope["path"]
        start = {"type": "http.response.start", "status": 200}
        body = {"type": "http.response.body"}
        if path == "/echo":
            await send(start)
            more = True
            while more:
                event = await receive()
                more = event["more_body"]
                await send({**body, "body": event["body"], "more_body": True})
            await send(body)
        elif path == "/big":
            await send(start)
            try:
                for at in range(0, len(BIG), 16384):
                    await send({**body, "body": BIG[at : at + 16384], "more_body": True})
                await send(body)
            except OSError as exc:
                self.seen.append(type(exc).__name__)
                raise
        elif path == "/nap":
            await self._world.pause(0.01)
            await send(start)
            await send({**body, "body": b"slept"})
        elif path == "/wait":
            while (event := await receive())["type"] != "http.disconnect":
                pass
            self.seen.append("told")
        elif path == "/grpc":
            await send({**start, "trailers": True})
            await send({**body, "body": b"message"})
            trailers = [(b"grpc-status", b"0")]
            await send({"type": "http.response.trailers", "headers": trailers})
        else:
            await send(start)
            await send({**body, "body": path.encode()})

    async def _room(self, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send(ACCEPT)
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})
        self.seen.append((event["code"], event["reason"]))


class Browser:
    """`h2` on a client of a `World`; it opens its windows as it reads."""

    def __init__(self, world: Any, client: Any) -> None:
        self._world = world
        self.client = client
        self.reads = True
        """Its windows open."""
        self._taken = 0
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self.h2 = h2.connection.H2Connection(config)
        self.heads: dict[int, dict[bytes, bytes]] = {}
        self.bodies: dict[int, bytes] = defaultdict(bytes)
        self.trailers: dict[int, Any] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.goaway: Any = None

    async def begin(self) -> None:
        self.h2.initiate_connection()
        await self.send()

    async def ask(self, path: str, *, end: bool = True, **pseudo: str) -> int:
        stream = int(self.h2.get_next_available_stream_id())
        asked = {"method": "GET", "scheme": "http", "authority": "a", "path": path, **pseudo}
        headers = [(f":{name}", value) for name, value in asked.items()]
        if "protocol" in pseudo:
            headers.append(("sec-websocket-version", "13"))
        self.h2.send_headers(stream, headers, end_stream=end)
        await self.send()
        return stream

    async def say(self, stream: int, data: bytes, end: bool = False) -> None:
        """Send content as the windows allow it."""
        while data:
            await self.until(lambda: self.h2.local_flow_control_window(stream) > 0)
            room = min(self.h2.local_flow_control_window(stream), 16384)
            piece, data = data[:room], data[room:]
            self.h2.send_data(stream, piece, end_stream=end and not data)
            await self.send()

    async def send(self) -> None:
        data = self.h2.data_to_send()
        if data and not (self.client.eof or self.client.was_reset):
            await self.client.send(data)

    async def until(self, condition: Callable[[], object]) -> None:
        """Read and answer until something has happened."""
        while True:
            self.client.look()
            received = self.client.received
            if len(received) > self._taken:
                fresh, self._taken = received[self._taken :], len(received)
                self.understand(self.h2.receive_data(fresh))
                await self.send()
            if condition():
                return
            assert not self.client.was_reset, "the connection was reset"
            await self._world.pause(0.001)

    def understand(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, h2.events.ResponseReceived):
                self.heads[event.stream_id] = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                size = event.flow_controlled_length
                if self.reads:
                    self.h2.acknowledge_received_data(size, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                self.trailers[event.stream_id] = event.headers
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.resets[event.stream_id] = int(event.error_code or 0)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.goaway = int(event.error_code or 0)

    async def answer(self, stream: int) -> bytes:
        """The whole response's content."""
        await self.until(lambda: stream in self.ended)
        return self.bodies[stream]


async def opened(world: Any, **options: Any) -> tuple[Service, Site, Browser]:
    site = Site(world)
    plain = {"server_header": False, "date_header": False}
    service = Service(site, world.loop, **{**plain, **options})
    browser = Browser(world, await world.connect(Http1Connection(service)))
    await browser.begin()
    return service, site, browser


async def left(world: Any, service: Service, browser: Browser) -> None:
    """The client leaves; nothing of it remains."""
    browser.client.close()
    await browser.client.ended()
    assert not browser.client.was_reset
    await world.until(lambda: not service.connections and service.active == 0)


def test_a_conversation_of_many_streams(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, _, browser = await opened(world)
        slow = await browser.ask("/nap")
        streams = [await browser.ask(f"/{n}") for n in range(20)]
        for n, stream in enumerate(streams):
            assert await browser.answer(stream) == b"/%d" % n
            assert browser.heads[stream] == {b":status": b"200"}
        assert await browser.answer(slow) == b"slept"
        grpc = await browser.ask("/grpc")
        assert await browser.answer(grpc) == b"message"
        assert browser.trailers[grpc] == [(b"grpc-status", b"0")]
        await left(world, service, browser)

    play(scenario)


def test_a_mebibyte_goes_there_and_back_beside_small_requests(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, _, browser = await opened(world, http2=Http2(window=200_000, stream_window=70_000))
        upload = await browser.ask("/echo", end=False, method="POST")
        for at in range(0, len(BIG), len(BIG) // 8):
            last = at + len(BIG) // 8 == len(BIG)
            await browser.say(upload, BIG[at : at + len(BIG) // 8], last)
            small = await browser.ask("/small")
            assert await browser.answer(small) == b"/small"
        assert await browser.answer(upload) == BIG
        await left(world, service, browser)

    play(scenario)


def test_several_mebibytes_at_once_reach_a_client_that_reads(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, _, browser = await opened(world)
        streams = [await browser.ask("/big") for _ in range(3)]
        for stream in streams:
            assert await browser.answer(stream) == BIG
        await left(world, service, browser)

    play(scenario)


def test_a_cancelled_stream_is_told_to_its_application_alone(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, site, browser = await opened(world)
        cancelled = await browser.ask("/wait")
        kept = await browser.ask("/nap")
        browser.h2.reset_stream(cancelled, 8)
        await browser.send()
        assert await browser.answer(kept) == b"slept"
        await world.until(lambda: site.seen == ["told"])
        await left(world, service, browser)

    play(scenario)


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_leaves_is_told_to_all_applications(play: Play, how: str) -> None:
    async def scenario(world: Any) -> None:
        service, site, browser = await opened(world)
        for _ in range(3):
            await browser.ask("/wait")
        await world.until(lambda: service.active == 3)
        getattr(browser.client, how)()
        await world.until(lambda: service.active == 0 and not service.connections)
        assert site.seen == ["told"] * 3
        assert not service.stragglers

    play(scenario)


def test_a_client_that_never_reads_is_cut(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, site, browser = await opened(world, timeouts=Timeouts(write=0.05))
        await browser.until(lambda: True)
        browser.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30})
        browser.h2.increment_flow_control_window(1 << 30)
        for _ in range(8):
            await browser.ask("/big")
        await world.until(lambda: service.active == 0 and not service.connections)
        assert set(site.seen) == {"ClientDisconnected"}

    play(scenario)


def test_windows_that_stay_shut_end_their_streams(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, site, browser = await opened(world, timeouts=Timeouts(write=0.05))
        browser.reads = False
        stream = await browser.ask("/big")
        await browser.until(lambda: stream in browser.resets)
        assert browser.resets[stream] == 8
        await world.until(lambda: site.seen == ["ClientDisconnected"])
        await left(world, service, browser)

    play(scenario)


def test_a_silent_connection_is_closed(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service = Service(Site(world), world.loop, timeouts=Timeouts(head=0.02))
        client = await world.connect(Http2Connection(service))
        await client.ended()
        client.close()
        await world.until(lambda: not service.connections)

    play(scenario)


def test_an_idle_connection_is_closed_with_goaway(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, _, browser = await opened(world, timeouts=Timeouts(keep_alive=0.05))
        assert await browser.answer(await browser.ask("/hi")) == b"/hi"
        await browser.until(lambda: browser.client.eof)
        assert browser.goaway == 0
        await left(world, service, browser)

    play(scenario)


def test_a_drain_closes_an_idle_connection_and_is_over(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, _, browser = await opened(world)
        assert await browser.answer(await browser.ask("/hi")) == b"/hi"
        over: list[bool] = []
        service.drain(lambda: over.append(True))
        await browser.until(lambda: browser.client.eof)
        assert browser.goaway == 0
        await left(world, service, browser)
        await world.until(lambda: over)

    play(scenario)


def test_a_broken_connection_reads_why_although_it_goes_on_sending(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: Any) -> None:
        service, _, browser = await opened(world)
        await browser.until(lambda: True)
        await browser.client.send(b"\0\0\1\0\0\0\0\0\x63x")
        for _ in range(10):
            await browser.client.send(b"going on" * 1000)
            await world.turn()
        await browser.until(lambda: browser.client.eof)
        assert browser.goaway == 1
        await left(world, service, browser)

    play(scenario)
    assert len(caplog.records) == 1


def test_the_end_of_a_response_is_not_taken_away_by_window_updates(play: Play) -> None:
    """The client reads slowly, opens its windows meanwhile, and the server is through."""

    async def scenario(world: Any) -> None:
        service, _, browser = await opened(world)
        stream = await browser.ask("/big")
        browser.h2.close_connection()  # GOAWAY: this was the last request
        await browser.send()
        # `h2` reads nothing after its own GOAWAY: what comes is looked at by hand.
        await browser.client.send(b"\0\0\4\x08\0\0\0\0\0" + (1 << 24).to_bytes(4, "big"))
        update = b"\0\0\4\x08\0" + stream.to_bytes(4, "big") + (1 << 20).to_bytes(4, "big")
        await browser.client.send(update)
        while not browser.client.eof:
            await browser.client.send(b"\0\0\4\x08\0\0\0\0\0\0\0\0\1")
            browser.client.look(30_000)
            assert not browser.client.was_reset
            await world.turn()
        await browser.client.ended()
        assert not browser.client.was_reset
        wire, content = browser.client.received, b""
        while wire:
            size = int.from_bytes(wire[:3], "big")
            content += wire[9 : 9 + size] if wire[3] == 0 else b""
            wire = wire[9 + size :]
        assert content == BIG
        browser.client.close()
        await world.until(lambda: not service.connections and service.active == 0)

    play(scenario)


def test_a_request_is_upgraded(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service = Service(Site(world), world.loop, server_header=False, date_header=False)
        browser = Browser(world, await world.connect(Http1Connection(service)))
        settings = base64.urlsafe_b64encode(b"\0\4\0\0\xff\xff")
        await browser.client.send(
            b"GET /upgraded HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\n"
            b"connection: upgrade, http2-settings\r\nhttp2-settings: %b\r\n\r\n" % settings
        )
        assert await browser.client.read(len(H2C)) == H2C
        browser._taken = len(H2C)
        browser.h2.initiate_upgrade_connection()
        await browser.send()
        assert await browser.answer(1) == b"/upgraded"
        assert await browser.answer(await browser.ask("/on")) == b"/on"
        await left(world, service, browser)

    play(scenario)


async def websocket(browser: Browser) -> int:
    await browser.until(lambda: browser.h2.remote_settings.enable_connect_protocol)
    stream = await browser.ask("/ws", end=False, method="CONNECT", protocol="websocket")
    await browser.until(lambda: stream in browser.heads)
    assert browser.heads[stream] == {b":status": b"200"}
    return stream


def test_a_websocket_inside_a_stream(play: Play) -> None:
    """RFC 8441."""

    async def scenario(world: Any) -> None:
        service, site, browser = await opened(world)
        one, two = await websocket(browser), await websocket(browser)
        await browser.say(one, text("hi"))
        for byte in text("a") + text("b"):
            await browser.say(two, bytes((byte,)))
            await world.turn()
        await browser.until(lambda: len(browser.bodies[one]) >= 4)
        await browser.until(lambda: len(browser.bodies[two]) >= 6)
        assert frames(browser.bodies[one]) == [(TEXT, b"hi")]
        assert frames(browser.bodies[two]) == [(TEXT, b"a"), (TEXT, b"b")]
        page = await browser.ask("/page")
        assert await browser.answer(page) == b"/page"
        await browser.say(two, closing(1001, "bye"), True)
        await browser.until(lambda: two in browser.ended)
        assert frames(browser.bodies[two])[2:] == closed(1001)

        await browser.say(one, frame(BINARY, BIG))
        await browser.until(lambda: len(browser.bodies[one]) >= 4 + 10 + len(BIG))
        assert frames(browser.bodies[one])[1:] == [(BINARY, BIG)]
        browser.h2.reset_stream(one, 8)
        await browser.send()
        await world.until(lambda: len(site.seen) == 2)
        assert site.seen == [(1001, "bye"), (1006, "")]
        await left(world, service, browser)

    play(scenario)


def test_cancelling_ends_everything_at_once(play: Play) -> None:
    async def scenario(world: Any) -> None:
        service, site, browser = await opened(world)
        await websocket(browser)
        await browser.ask("/wait")
        await browser.ask("/big")
        await world.until(lambda: site.entered == 3)
        service.cancel()
        await browser.client.ended()
        await world.until(lambda: not service.connections and service.active == 0)
        assert "told" not in site.seen

    play(scenario)
