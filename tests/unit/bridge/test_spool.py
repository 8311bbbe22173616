"""A body on its way to a file; what the disk does, and when, the test says."""

from __future__ import annotations

import io
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.bridge.spool import Spool
from omnicorn.transports.inproc import ManualLoop

if TYPE_CHECKING:
    from collections.abc import Callable


class Body:
    """A spool and what it said."""

    def __init__(self, loop: ManualLoop) -> None:
        self.loop = loop
        self.credits: list[int] = []
        self.ends: list[Exception | None] = []
        self.spool = Spool(loop, self.credits.append, self.ends.append)

    def write(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.spool.write(piece, len(piece))
        self.loop.run_until_idle()

    def release(self) -> None:
        self.loop.release_blocking()
        self.loop.run_until_idle()


@pytest.fixture(params=["lazy", "eager"])
def body(request: pytest.FixtureRequest) -> Body:
    return Body(ManualLoop(eager=request.param == "eager"))


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    create = tempfile.TemporaryFile

    def note() -> Any:
        made.append(create())
        return made[-1]

    monkeypatch.setattr("tempfile.TemporaryFile", note)
    return made


def test_what_was_written_is_read_from_the_beginning(body: Body) -> None:
    body.write(b"one ")
    body.write(b"two ", b"three")
    body.spool.end()
    body.loop.run_until_idle()
    assert body.ends == [None]
    assert sum(body.credits) == 13
    with body.spool.file as file:
        assert (body.spool.size, file.read()) == (13, b"one two three")


def test_an_end_within_a_write_waits_for_it(body: Body) -> None:
    body.loop.hold_blocking = True
    body.write(b"one", b"two")
    body.spool.end()
    assert (body.credits, body.ends) == ([], [])
    for _ in range(3):
        body.release()
    assert body.ends == [None]
    with body.spool.file as file:
        assert file.read() == b"onetwo"


def test_what_comes_within_a_write_is_the_next_one(body: Body) -> None:
    body.loop.hold_blocking = True
    body.write(b"one")
    body.write(b"two", b"three")
    body.release()
    assert body.credits == [3]
    body.release()
    assert body.credits == [3, 8]
    assert body.ends == []
    body.spool.abandon()


class Full(io.RawIOBase):
    """A file on a disk that is full."""

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A buffered file: it notices only once its buffer is written, and again when it is closed."""
    file: Any = io.BufferedRandom(Full())  # type: ignore[arg-type, unused-ignore]
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: file)
    return file


@pytest.mark.parametrize("size", [1, 10_000_000])
def test_a_disk_that_gets_full_is_told_once_and_the_file_is_closed(
    body: Body, full: Any, size: int
) -> None:
    body.write(b"x" * size)
    body.spool.end()
    body.loop.run_until_idle()
    assert [type(error) for error in body.ends] == [OSError]
    assert full.closed
    body.write(b"what comes now is nobody's")
    assert len(body.ends) == 1


def test_one_that_is_abandoned_on_a_full_disk_closes_its_file(body: Body, full: Any) -> None:
    body.write(b"held in its buffer")
    body.spool.abandon()
    body.loop.run_until_idle()
    assert full.closed
    assert body.ends == []


def test_a_thread_that_makes_the_file_after_the_loop_has_ended_closes_it(
    body: Body, files: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task can be cancelled, what it waits for in a thread cannot."""
    left: list[Callable[[], object]] = []

    async def run_blocking(function: Any, *args: Any) -> None:
        left.append(partial(function, *args))
        await body.loop.create_future()

    monkeypatch.setattr(body.loop, "run_blocking", run_blocking)
    body.write(b"one")
    task = body.spool._task
    assert task is not None
    task.cancel()
    body.loop.run_until_idle()
    assert files == []
    left[0]()
    assert [file.closed for file in files] == [True]


def test_a_disk_that_is_full_is_told_once(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    body.write(b"one", b"two")
    assert [type(error) for error in body.ends] == [OSError]


@pytest.mark.parametrize("held", [True, False])
def test_one_that_is_abandoned_closes_its_file_and_says_nothing_more(
    body: Body, files: list[Any], held: bool
) -> None:
    body.write(b"one")
    body.loop.hold_blocking = held
    body.write(b"two")
    body.spool.abandon()
    body.release()
    assert [file.closed for file in files] == [True]
    assert sum(body.credits) == (3 if held else 6)
    assert body.ends == []


def test_a_file_is_not_closed_in_the_midst_of_a_write(body: Body, files: list[Any]) -> None:
    """That would hold up the loop until it is written."""
    body.write(b"one")
    body.loop.hold_blocking = True
    body.write(b"two")
    body.spool.abandon()
    assert [file.closed for file in files] == [False]
    body.release()
    assert [file.closed for file in files] == [True]


def test_what_is_left_when_it_is_abandoned_is_not_written(body: Body, files: list[Any]) -> None:
    body.loop.hold_blocking = True
    body.write(b"one")
    body.write(b"two")
    body.spool.abandon()
    body.release()
    assert body.spool.size == 3
    assert body.loop._held == []
    assert [file.closed for file in files] == [True]


def test_one_that_is_abandoned_in_its_last_write_does_not_end(body: Body, files: list[Any]) -> None:
    body.loop.hold_blocking = True
    body.spool.end()
    body.write(b"one")
    body.spool.abandon()
    for _ in range(3):
        body.release()
    assert [file.closed for file in files] == [True]
    assert body.ends == []


def test_a_loop_that_ends_closes_the_file(body: Body, files: list[Any]) -> None:
    body.write(b"one")
    body.loop.hold_blocking = True
    body.write(b"two")
    task = body.spool._task
    assert task is not None
    task.cancel()
    body.loop.run_until_idle()
    assert [file.closed for file in files] == [True]
    assert body.ends == []
