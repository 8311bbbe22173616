"""What `omnicorn.ports.Transport` promises a `ConnectionPort`, on every runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.ports import HIGH_WATER

if TYPE_CHECKING:
    from collections.abc import Callable

    Play = Callable[[Callable[[Any], Any]], None]

BIG = bytes(range(256)) * 16384  # 4 MiB


class Port:
    """Keeps what it is told; nothing may be told while one of its own calls is running."""

    def __init__(self, half_open: bool = True) -> None:
        self.transport: Any = None
        self.half_open = half_open
        self.received = b""
        self.events: list[str] = []
        self.lost = 0
        self.busy = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert not self.lost
        self.received += data

    def eof_received(self) -> bool:
        self.events.append("eof")
        return self.half_open

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        assert not self.busy
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        assert not self.busy
        self.lost += 1

    def call(self, name: str, *args: Any) -> None:
        """Call the transport, and see that it does not call back within that."""
        self.busy = True
        getattr(self.transport, name)(*args)
        self.busy = False


def test_writes_arrive_whole_and_in_order(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        port.transport.write(b"one ")
        port.transport.write(b"two ")
        port.transport.write(b"three ")
        port.transport.write(b"four")
        assert await client.read(18) == b"one two three four"
        assert port.transport.get_write_buffer_size() == 0
        port.transport.close()

    play(scenario)


def test_writes_keep_their_order_while_the_buffer_empties(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        expected = b""
        for number in range(400):
            piece = b"%04d" % number * 500
            expected += piece
            port.transport.write(piece)
            if number % 7 == 0:
                client.look(5000)
                await world.turn()
        assert await client.read(len(expected)) == expected
        port.transport.close()

    play(scenario)


def test_bytes_and_the_end_of_them_reach_the_port(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        await client.send(b"hello")
        await world.until(lambda: port.received == b"hello")
        client.close()
        await world.until(lambda: port.events == ["eof"])
        port.transport.write(b"still here")
        assert await client.read(10) == b"still here"
        assert port.lost == 0
        port.call("close")
        await world.until(lambda: port.lost)

    play(scenario)


def test_an_end_that_the_port_does_not_want_to_outlive_closes(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port(half_open=False)
        client = await world.connect(port)
        client.close()
        await client.ended()
        await world.until(lambda: port.lost)
        assert client.eof and port.events == ["eof"]

    play(scenario)


def test_nothing_is_read_while_reading_is_paused_and_nothing_is_lost(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        port.transport.pause_reading()
        await world.turn()
        await client.send(b"one")
        client.close()
        await world.pause(0.02)
        assert (port.received, port.events) == (b"", [])
        port.call("resume_reading")
        await world.until(lambda: port.events == ["eof"])
        assert port.received == b"one"
        port.transport.close()

    play(scenario)


def test_resuming_what_is_not_paused_is_nothing(play: Play) -> None:
    """A connection that begins to linger does so without asking."""

    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        port.transport.resume_reading()
        port.transport.resume_reading()
        await client.send(b"one")
        await world.until(lambda: port.received == b"one")
        port.transport.close()

    play(scenario)


def test_a_slow_reader_pauses_writing_and_resumes_it(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        port.transport.write(BIG)
        assert port.events == ["pause"]
        await world.pause(0.01)
        waiting = port.transport.get_write_buffer_size()
        assert HIGH_WATER < waiting <= len(BIG)
        assert port.events == ["pause"]

        await client.read(len(BIG))
        await world.until(lambda: port.events == ["pause", "resume"])
        assert client.received == BIG
        assert port.transport.get_write_buffer_size() == 0
        port.transport.close()

    play(scenario)


def test_close_delivers_what_was_written_and_is_told_once(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        port.transport.write(BIG)
        port.call("close")
        port.call("close")
        await world.turn()
        assert port.lost == 0
        await client.ended()
        assert client.received == BIG
        assert client.eof and not client.was_reset
        await world.until(lambda: port.lost)
        await world.pause(0.005)
        assert port.lost == 1

    play(scenario)


def test_nothing_is_received_after_close(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        port.transport.write(BIG)
        port.call("close")
        await client.send(b"too late")
        await world.pause(0.01)
        assert port.received == b""
        port.transport.abort()

    play(scenario)


def test_write_eof_ends_one_direction_after_what_was_written(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        assert port.transport.can_write_eof()
        port.transport.write(BIG)
        port.call("write_eof")
        await client.ended()
        assert client.received == BIG
        assert client.eof and not client.was_reset
        await client.send(b"the other direction")
        await world.until(lambda: port.received == b"the other direction")
        port.transport.close()

    play(scenario)


def test_abort_ends_the_connection_and_drops_what_is_unsent(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        port.transport.write(BIG)
        port.call("abort")
        port.call("abort")
        await client.ended()
        assert len(client.received) < len(BIG)
        await world.until(lambda: port.lost)
        assert port.lost == 1

    play(scenario)


def test_a_peer_that_resets_is_gone_once(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        client.reset()
        await world.until(lambda: port.lost)
        assert (port.lost, port.received) == (1, b"")

    play(scenario)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_until_connection_lost_is_called_every_verb_is_harmless(play: Play, how: str) -> None:
    """After it none may be called: uvloop raises."""

    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        port.call(how)
        port.call("write", b"dropped")
        port.call("pause_reading")
        port.call("resume_reading")
        port.call("close")
        port.call("abort")
        port.transport.get_write_buffer_size()
        assert port.lost == 0
        await client.ended()
        await world.until(lambda: port.lost)
        await world.turn()
        assert port.lost == 1
        assert client.received == b""

    play(scenario)


def test_a_write_that_finds_the_peer_gone_ends_the_connection(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port()
        client = await world.connect(port)
        port.transport.pause_reading()
        client.reset()
        for _ in range(3):  # the first may still find room in the kernel
            if not port.lost:
                port.call("write", b"x" * 1000)
                await world.pause(0.005)
        assert port.lost == 1

    play(scenario)


def test_a_port_may_answer_from_within_its_upcall(play: Play) -> None:
    async def scenario(world: Any) -> None:
        class Echo(Port):
            def data_received(self, data: bytes) -> None:
                self.transport.write(data.upper())
                if data.endswith(b"\n"):
                    self.transport.close()

        port = Echo()
        client = await world.connect(port)
        await client.send(b"hello\n")
        await client.ended()
        assert client.received == b"HELLO\n"
        await world.until(lambda: port.lost)

    play(scenario)


def test_extra_information_names_both_ends(play: Play) -> None:
    async def scenario(world: Any) -> None:
        port = Port()
        await world.connect(port)
        for name in ("peername", "sockname"):
            host, number = port.transport.get_extra_info(name)[:2]
            assert isinstance(host, str) and isinstance(number, int)
        assert port.transport.get_extra_info("no such thing") is None
        assert port.transport.get_extra_info("no such thing", 7) == 7
        port.transport.close()

    play(scenario)
