from __future__ import annotations

import contextvars
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.errors import ClientDisconnected
from omnicorn.ports import HIGH_WATER
from omnicorn.transports.inproc import LOW_WATER, Cancelled, ManualLoop, Peer, connect

if TYPE_CHECKING:
    from pathlib import Path


class Port:
    """A `ConnectionPort` that keeps what it is told."""

    def __init__(self, half_open: bool = True) -> None:
        self.half_open = half_open
        self.calls: list[Any] = []
        self.lost: Exception | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.half_open

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.lost = exc


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def peer(loop: ManualLoop, port: Port) -> Peer:
    return connect(loop, port)


# ---------------------------------------------------------------- the loop


def test_callbacks_run_in_the_order_they_were_asked_for(loop: ManualLoop) -> None:
    seen: list[int] = []

    def first() -> None:
        seen.append(1)
        loop.call_soon(lambda: seen.append(3))

    loop.call_soon(first)
    loop.call_soon(lambda: seen.append(2))

    loop.run_until_idle()

    assert seen == [1, 2, 3]


def test_time_stands_still_until_it_is_advanced(loop: ManualLoop) -> None:
    seen: list[float] = []
    began = loop.time()
    loop.call_at(began + 2.0, lambda: seen.append(loop.time()))
    loop.call_at(began + 1.0, lambda: seen.append(loop.time()))
    loop.run_until_idle()
    assert seen == []

    loop.advance(1.5)
    assert seen == [began + 1.0]

    loop.advance(0.5)
    assert seen == [began + 1.0, began + 2.0]
    assert loop.time() == began + 2.0


def test_a_timer_set_by_a_timer_fires_within_the_same_advance(loop: ManualLoop) -> None:
    seen: list[float] = []

    def tick() -> None:
        seen.append(loop.time())
        loop.call_at(loop.time() + 1.0, tick)

    began = loop.time()
    loop.call_at(began + 1.0, tick)
    loop.advance(3.0)

    assert seen == [began + 1.0, began + 2.0, began + 3.0]


def test_after_a_jump_timers_fire_late(loop: ManualLoop) -> None:
    seen: list[float] = []
    began = loop.time()
    loop.call_at(began + 1.0, lambda: seen.append(loop.time()))

    loop.jump(5.0)

    assert seen == [began + 5.0]


def test_a_thread_can_ask_for_a_callback_and_be_waited_for(loop: ManualLoop) -> None:
    seen: list[int] = []

    def ask() -> None:
        for number in range(3):
            loop.call_soon_threadsafe(partial(seen.append, number))

    thread = threading.Thread(target=ask)
    loop.call_soon(thread.start)
    loop.run_until(lambda: len(seen) == 3)
    thread.join()

    assert seen == [0, 1, 2]
    with pytest.raises(RuntimeError, match="no thread has called"):
        loop.run_until(lambda: False, seconds=0.0)


def test_timers_of_one_time_fire_in_the_order_they_were_set(loop: ManualLoop) -> None:
    seen: list[int] = []
    for number in range(5):
        loop.call_at(loop.time() + 1.0, partial(seen.append, number))

    loop.advance(1.0)

    assert seen == [0, 1, 2, 3, 4]


def test_a_cancelled_timer_does_not_fire(loop: ManualLoop) -> None:
    seen: list[int] = []
    loop.call_at(loop.time() + 1.0, lambda: seen.append(1)).cancel()

    loop.advance(2.0)

    assert seen == []


def test_a_lazy_task_starts_in_the_next_turn_and_an_eager_one_at_once() -> None:
    for eager in (False, True):
        loop = ManualLoop(eager=eager)
        seen: list[int] = []

        async def note(seen: list[int] = seen) -> None:
            seen.append(1)

        loop.spawn(note())

        assert bool(seen) == eager
        loop.run_until_idle()
        assert seen == [1]


def test_a_waiter_wakes_everybody_who_waits_for_it(loop: ManualLoop) -> None:
    waiter = loop.create_future()
    seen: list[int] = []

    async def wait(number: int) -> None:
        await waiter
        seen.append(number)

    for number in range(3):
        loop.spawn(wait(number))
    loop.run_until_idle()
    assert seen == []

    waiter.set_result(None)
    loop.run_until_idle()
    assert seen == [0, 1, 2]
    assert loop.run(wait(3)) is None  # done already: nobody waits
    with pytest.raises(RuntimeError, match="done already"):
        waiter.set_result(None)


def test_cancelling_one_task_leaves_the_waiter_to_the_others(loop: ManualLoop) -> None:
    waiter = loop.create_future()
    seen: list[str] = []

    async def wait(name: str) -> None:
        try:
            await waiter
            seen.append(name)
        except Cancelled:
            seen.append(f"{name} cancelled")
            raise

    first, second = loop.spawn(wait("first")), loop.spawn(wait("second"))
    loop.run_until_idle()

    assert first.cancel() is True
    loop.run_until_idle()
    waiter.set_result(None)
    loop.run_until_idle()

    assert seen == ["first cancelled", "second"]
    assert first.done and second.done
    assert second.cancel() is False


def test_a_task_cancelled_while_it_runs_is_cancelled_at_its_next_wait(loop: ManualLoop) -> None:
    seen: list[str] = []

    async def suicide() -> None:
        task.cancel()
        seen.append("still here")
        await loop.create_future()

    task = loop.spawn(suicide())
    loop.run_until_idle()

    assert seen == ["still here"]
    assert task.done


def test_a_task_woken_and_cancelled_in_one_turn_is_cancelled(loop: ManualLoop) -> None:
    waiter = loop.create_future()
    seen: list[str] = []

    async def wait() -> None:
        await waiter
        seen.append("went on")

    task = loop.spawn(wait())
    loop.run_until_idle()
    waiter.set_result(None)
    task.cancel()
    loop.run_until_idle()

    assert task.done and seen == []


def test_a_tasks_exception_comes_out_of_the_call_that_ran_it(loop: ManualLoop) -> None:
    async def fail() -> None:
        raise LookupError("lost")

    loop.spawn(fail())
    with pytest.raises(LookupError, match="lost"):
        loop.run_until_idle()
    loop.run_until_idle()  # once

    loop.spawn(fail())
    loop.spawn(fail())
    with pytest.raises(ExceptionGroup) as caught:
        loop.advance(1.0)
    assert len(caught.value.exceptions) == 2


def test_a_callbacks_exception_leaves_the_rest_of_the_queue_in_place(loop: ManualLoop) -> None:
    seen: list[int] = []
    loop.call_soon(lambda: [][0])
    loop.call_soon(lambda: seen.append(1))

    with pytest.raises(IndexError):
        loop.run_until_idle()
    loop.run_until_idle()

    assert seen == [1]


def test_awaiting_something_of_another_loop_fails_where_it_is_awaited(loop: ManualLoop) -> None:
    class Foreign:
        def __await__(self) -> Any:
            yield "something else"

    async def wrong() -> str:
        try:
            await Foreign()
        except RuntimeError as exc:
            return str(exc)
        return ""

    assert "not 'something else'" in loop.run(wrong())


def test_a_loop_that_does_not_come_to_rest_says_so(
    loop: ManualLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnicorn.transports.inproc._ENDLESS", 100)

    def again() -> None:
        loop.call_soon(again)

    again()
    with pytest.raises(RuntimeError, match="does not come to rest"):
        loop.run_until_idle()


def test_run_names_the_coroutine_that_nobody_will_wake(loop: ManualLoop) -> None:
    async def stuck() -> None:
        await loop.create_future()

    with pytest.raises(RuntimeError, match=r"stuck.*nobody is about to do"):
        loop.run(stuck())


def test_each_task_has_a_context_of_its_own(loop: ManualLoop) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    async def change(number: int) -> None:
        seen.append(variable.get())
        variable.set(number)
        await loop.run_blocking(int)
        seen.append(variable.get())

    loop.spawn(change(1))
    loop.spawn(change(2))
    loop.run_until_idle()

    assert seen == [0, 1, 0, 2]
    assert variable.get() == 0


def test_blocking_calls_run_at_once_or_when_released(loop: ManualLoop) -> None:
    seen: list[int] = []

    async def work() -> None:
        seen.append(await loop.run_blocking(int, "7"))

    loop.run(work())
    assert seen == [7]

    loop.hold_blocking = True
    loop.spawn(work())
    loop.run_until_idle()
    assert seen == [7]

    loop.release_blocking()
    loop.run_until_idle()
    assert seen == [7, 7]


# ---------------------------------------------------------------- to the server


def test_each_segment_is_one_call_and_comes_in_the_loops_turn(
    loop: ManualLoop, port: Port, peer: Peer
) -> None:
    peer.send(b"one")
    peer.send(b"two")
    assert port.calls == []

    loop.run_until_idle()
    assert port.calls == [b"one", b"two"]


def test_bytes_wait_while_reading_is_paused_and_so_does_the_end(
    loop: ManualLoop, port: Port, peer: Peer
) -> None:
    peer.transport.pause_reading()
    peer.send(b"one")
    peer.close()
    loop.run_until_idle()
    assert port.calls == []
    assert peer.waiting == 3
    assert not peer.transport.is_reading

    peer.transport.resume_reading()
    loop.run_until_idle()
    assert port.calls == [b"one", "eof"]
    assert peer.waiting == 0
    with pytest.raises(RuntimeError, match="closed"):
        peer.send(b"more")


def test_after_the_peers_end_the_port_decides_whether_writing_goes_on(loop: ManualLoop) -> None:
    for half_open in (True, False):
        port = Port(half_open)
        peer = connect(loop, port)
        peer.close()
        loop.run_until_idle()
        peer.transport.write(b"answer")
        assert peer.received == (b"answer" if half_open else b"")
        assert ("lost" in port.calls) == (not half_open)


def test_a_reset_loses_the_connection_and_drops_later_writes(
    loop: ManualLoop, port: Port, peer: Peer
) -> None:
    peer.send(b"unseen")
    peer.reset()
    loop.run_until_idle()
    peer.transport.write(b"dropped")
    peer.transport.abort()
    loop.run_until_idle()

    assert port.calls == ["lost"]
    assert isinstance(port.lost, ConnectionResetError)
    assert peer.received == b""


# ---------------------------------------------------------------- to the peer


def test_a_reading_peer_has_everything_at_once(peer: Peer) -> None:
    peer.transport.write(b"one")
    peer.transport.write(b"two")

    assert peer.received == b"onetwo"
    assert peer.writes == [b"one", b"two"]
    assert [peer.take(), peer.take()] == [b"onetwo", b""]
    assert peer.transport.get_write_buffer_size() == 0


def test_a_slow_reader_pauses_writing_past_the_high_water_mark(
    loop: ManualLoop, port: Port
) -> None:
    peer = connect(loop, port, window=100)
    peer.pause()
    peer.transport.write(b"x" * (100 + HIGH_WATER))
    assert port.calls == []
    assert peer.transport.get_write_buffer_size() == HIGH_WATER

    peer.transport.write(b"y")
    assert port.calls == ["pause"]
    peer.transport.write(b"z")
    assert port.calls == ["pause"]

    assert peer.read(1000) == 100
    loop.run_until_idle()
    assert peer.received == b"x" * 100
    while peer.transport.get_write_buffer_size() > LOW_WATER:
        assert port.calls == ["pause"]
        peer.read(100)
        loop.run_until_idle()
    assert port.calls == ["pause", "resume"]

    peer.resume()
    loop.run_until_idle()
    assert peer.received == b"x" * (100 + HIGH_WATER) + b"yz"


def test_close_sends_what_is_unsent_and_then_loses_the_connection(
    loop: ManualLoop, port: Port
) -> None:
    peer = connect(loop, port, window=10)
    peer.pause()
    peer.transport.write(b"x" * 30)
    peer.transport.close()
    peer.transport.write(b"too late")
    loop.run_until_idle()
    assert (port.calls, peer.eof, peer.transport.is_closing) == ([], False, True)

    peer.resume()
    loop.run_until_idle()
    assert peer.received == b"x" * 30
    assert (port.calls, port.lost) == (["lost"], None)
    assert (peer.eof, peer.was_reset, peer.transport.is_lost) == (True, False, True)


def test_write_eof_ends_our_side_after_what_is_unsent(loop: ManualLoop, port: Port) -> None:
    peer = connect(loop, port, window=10)
    peer.pause()
    peer.transport.write(b"x" * 30)
    assert peer.transport.can_write_eof()
    peer.transport.write_eof()
    with pytest.raises(RuntimeError, match="write_eof"):
        peer.transport.write(b"more")
    loop.run_until_idle()
    assert (peer.eof, peer.received) == (False, b"")

    peer.resume()
    peer.send(b"still talking")
    loop.run_until_idle()
    assert (peer.eof, peer.received) == (True, b"x" * 30)
    assert port.calls == [b"still talking"]


def test_abort_drops_what_is_unsent_and_resets(loop: ManualLoop, port: Port) -> None:
    peer = connect(loop, port, window=10)
    peer.pause()
    peer.transport.write(b"x" * 30)
    peer.transport.abort()
    peer.transport.abort()
    loop.run_until_idle()
    peer.resume()
    loop.run_until_idle()

    assert peer.received == b""
    assert peer.was_reset and not peer.eof
    assert port.calls == ["lost"] and port.lost is None


@pytest.mark.parametrize("when", ["before", "after"])
def test_closing_on_a_peer_that_sends_takes_its_answer_away(
    loop: ManualLoop, port: Port, peer: Peer, when: str
) -> None:
    """RFC 9112 §9.6: what lingering is for."""
    peer.pause()
    peer.transport.write(b"answer")
    if when == "before":
        peer.send(b"unread")
    peer.transport.close()
    loop.run_until_idle()
    if when == "after":
        peer.send(b"unread")
    peer.resume()
    loop.run_until_idle()

    assert peer.was_reset
    assert peer.received == b""


def test_extra_information_is_what_connect_was_given(loop: ManualLoop, port: Port) -> None:
    transport = connect(loop, port, peername="", extra={"socket": 7}).transport

    assert transport.get_extra_info("peername") == ""
    assert transport.get_extra_info("sockname") == ("192.0.2.80", 80)
    assert transport.get_extra_info("socket") == 7
    assert transport.get_extra_info("cipher", "none") == "none"


# ---------------------------------------------------------------- sendfile


@pytest.fixture
def file(tmp_path: Path) -> Any:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1024)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_loop_has_sendfile_only_where_it_is_asked_for(loop: ManualLoop) -> None:
    assert loop.sendfile is None


def test_sendfile_follows_what_was_written_and_the_peers_pace(port: Port, file: int) -> None:
    loop = ManualLoop(sendfile=True)
    peer = connect(loop, port, window=1000)
    peer.pause()
    peer.transport.write(b"head" * 500)
    sent: list[int] = []

    async def send() -> None:
        assert loop.sendfile is not None
        sent.append(await loop.sendfile(peer.transport, file, 1, 200_000, 10.0))

    loop.spawn(send())
    loop.run_until_idle()
    assert sent == []
    while not sent:
        peer.read(1000)
        loop.advance(9.0)
    peer.resume()
    loop.run_until_idle()

    assert sent == [200_000]
    assert peer.received == b"head" * 500 + (bytes(range(256)) * 1024)[1:200_001]
    assert "pause" not in port.calls


def test_sendfile_returns_what_a_shorter_file_had(port: Port, file: int) -> None:
    loop = ManualLoop(sendfile=True)
    peer = connect(loop, port)
    assert loop.sendfile is not None

    assert loop.run(_await(loop.sendfile(peer.transport, file, 262_000, 1000, 1.0))) == 144


@pytest.mark.parametrize("how", ["stall", "reset"])
def test_sendfile_raises_when_the_peer_stalls_or_leaves(port: Port, file: int, how: str) -> None:
    loop = ManualLoop(sendfile=True)
    peer = connect(loop, port, window=1000)
    peer.pause()
    assert loop.sendfile is not None
    loop.spawn(_await(loop.sendfile(peer.transport, file, 0, 200_000, 10.0)))
    loop.run_until_idle()

    if how == "reset":
        peer.reset()
        with pytest.raises(ClientDisconnected):
            loop.run_until_idle()
    else:
        loop.advance(9.0)
        with pytest.raises(ClientDisconnected):
            loop.advance(1.0)
        assert peer.was_reset


async def _await(awaitable: Any) -> Any:
    return await awaitable
