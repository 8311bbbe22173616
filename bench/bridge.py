"""The bridges between sync and async code, beside asgiref's: `python -m bench.bridge`.

What this file alone decides: what is measured of `omnicorn.toolkit`, and how.

- Both run in this process and in turn, for `SLICE` seconds each, `rounds` times: what disturbs the
  one disturbs the other.  A case has one event loop, and threads that have been started before.
- What is counted of a slice is time and CPU time of all threads, each divided by the calls made.
- A result is the ratio of asgiref's to ours, of two neighbouring slices: its median, and the least
  and the greatest of all rounds.  Above 1 we are quicker.
- One case compares ours with itself, `ALONE`.
- Calls do nothing, so that nothing but the bridge is seen.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import contextvars
import gc
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from omnicorn.toolkit import local, sync

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

SLICE = 0.1
"""Seconds of one measurement."""

MANY = 100
"""Context variables."""


class Side(NamedTuple):
    """One of the two: the modules."""

    sync: Any
    local: Any


class Cost(NamedTuple):
    """Seconds of one call."""

    wall: float
    cpu: float


class Ratio(NamedTuple):
    """How many times as long asgiref takes, in all rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        return cls(statistics.median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        return f"{self.median:5.2f} ({self.least:.2f}..{self.greatest:.2f})"


class Result(NamedTuple):
    """What was measured in one case."""

    name: str
    wall: Ratio
    cpu: Ratio
    ours: float
    """Seconds of one call of ours, the median."""


def nothing() -> None:
    pass


async def nothing_async() -> None:
    pass


def measure(work: Callable[[int], None], times: int) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work(times)
    return Cost((time.perf_counter() - wall) / times, (time.process_time() - cpu) / times)


def times_for(work: Callable[[int], None], seconds: float) -> int:
    """How often to call it to fill that time."""
    times = 1
    while True:
        begun = time.perf_counter()
        work(times)
        took = time.perf_counter() - begun
        if took > seconds / 8:
            return max(1, round(times * seconds / took))
        times *= 4


def awaited(loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[Any]]) -> Any:
    async def repeat(times: int) -> None:
        for _ in range(times):
            await call()

    return lambda times: loop.run_until_complete(repeat(times))


def called(call: Callable[[], Any]) -> Any:
    def repeat(times: int) -> None:
        for _ in range(times):
            call()

    return repeat


@contextlib.contextmanager
def sensitive(side: Side, sensitive: bool = True) -> Iterator[Any]:
    with event_loop() as loop:
        yield awaited(loop, side.sync.sync_to_async(nothing, thread_sensitive=sensitive))


@contextlib.contextmanager
def insensitive(side: Side) -> Iterator[Any]:
    with sensitive(side, False) as work:
        yield work


@contextlib.contextmanager
def with_variables(side: Side) -> Iterator[Any]:
    async def repeat(times: int) -> None:
        for number in range(MANY):
            contextvars.ContextVar[object](str(number)).set(object())
        for _ in range(times):
            await call()

    call = side.sync.sync_to_async(nothing)
    with event_loop() as loop:
        yield lambda times: loop.run_until_complete(repeat(times))


@contextlib.contextmanager
def concurrent(side: Side) -> Iterator[Any]:
    call = side.sync.sync_to_async(nothing, thread_sensitive=False)

    async def sixteen() -> None:
        await asyncio.gather(*[call() for _ in range(16)])

    with event_loop() as loop:
        yield awaited(loop, sixteen)


@contextlib.contextmanager
def in_context(side: Side) -> Iterator[Any]:
    call = side.sync.sync_to_async(nothing)

    async def request() -> None:
        async with side.sync.ThreadSensitiveContext():
            await call()

    with event_loop() as loop:
        yield awaited(loop, request)


@contextlib.contextmanager
def from_thread(side: Side) -> Iterator[Any]:
    call = side.sync.async_to_sync(nothing_async)
    with event_loop() as loop:
        yield lambda times: loop.run_until_complete(side.sync.sync_to_async(called(call))(times))


@contextlib.contextmanager
def top_level(side: Side) -> Iterator[Any]:
    yield called(side.sync.async_to_sync(nothing_async))


@contextlib.contextmanager
def portal(side: Side) -> Iterator[Any]:
    # asgiref has nothing nearer.
    context = getattr(side.sync, "AsyncPortal", side.sync.AsyncSingleThreadContext)
    with context():
        yield called(side.sync.async_to_sync(nothing_async))


@contextlib.contextmanager
def back_again(side: Side) -> Iterator[Any]:
    call = side.sync.sync_to_async(nothing)

    async def repeat(times: int) -> None:
        for _ in range(times):
            await call()

    yield side.sync.async_to_sync(repeat)


@contextlib.contextmanager
def local_get(side: Side) -> Iterator[Any]:
    values = side.local.Local()
    values.name = 1

    def get(times: int) -> None:
        for _ in range(times):
            values.name  # noqa: B018

    yield get


@contextlib.contextmanager
def local_set(side: Side) -> Iterator[Any]:
    values = side.local.Local()

    def put(times: int) -> None:
        for number in range(times):
            values.name = number

    yield put


ALONE = f"{MANY} context variables, beside ours with none"
"""The one case without asgiref: 1 is what it should be."""


@contextlib.contextmanager
def local_set_and_get(side: Side) -> Iterator[Any]:
    values = side.local.Local()

    def put_and_get(times: int) -> None:
        for number in range(times):
            values.name = number
            values.name  # noqa: B018

    yield put_and_get


CASES: dict[str, Callable[[Side], contextlib.AbstractContextManager[Any]]] = {
    "sync_to_async": sensitive,
    "sync_to_async, thread_sensitive=False": insensitive,
    f"sync_to_async, {MANY} context variables": with_variables,
    "sync_to_async, 16 at once": concurrent,
    "sync_to_async under async_to_sync": back_again,
    "ThreadSensitiveContext and one call": in_context,
    "async_to_sync from a thread": from_thread,
    "async_to_sync at top level": top_level,
    "async_to_sync at top level, portal": portal,
    "Local: get": local_get,
    "Local: set": local_set,
    "Local: set and get": local_set_and_get,
}


@contextlib.contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


OURS = Side(sync, local)

Work = contextlib.AbstractContextManager["Callable[[int], None]"]


def compare(name: str, ours: Work, theirs: Work, rounds: int, seconds: float = SLICE) -> Result:
    """Measure one case of both."""
    with ours as our_work, theirs as their_work:
        our_times, their_times = times_for(our_work, seconds), times_for(their_work, seconds)
        pairs: list[tuple[Cost, Cost]] = []
        for number in range(rounds):
            gc.collect()
            if number % 2:
                their_cost = measure(their_work, their_times)
                our_cost = measure(our_work, our_times)
            else:
                our_cost = measure(our_work, our_times)
                their_cost = measure(their_work, their_times)
            pairs.append((our_cost, their_cost))
    return Result(
        name,
        Ratio.of([their.wall / our.wall for our, their in pairs]),
        Ratio.of([their.cpu / our.cpu for our, their in pairs]),
        statistics.median(our.wall for our, _ in pairs),
    )


def table(results: Sequence[Result]) -> str:
    """The results as Markdown."""
    lines = ["| case | time | CPU time | ours, µs |", "|---|---|---|---|"]
    lines += [f"| {r.name} | {r.wall} | {r.cpu} | {r.ours * 1e6:.1f} |" for r in results]
    return "\n".join(lines)


def theirs() -> Side | None:
    """asgiref, if it is installed and not an alias of ours."""
    try:
        import asgiref.local
        import asgiref.sync
    except ImportError:
        return None
    found: Any = asgiref.sync.SyncToAsync
    if found is sync.SyncToAsync:
        return None
    return Side(asgiref.sync, asgiref.local)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.bridge", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="how often both take turns (15)")
    parser.add_argument("--slice", type=float, default=SLICE, help=f"seconds of a turn ({SLICE})")
    parser.add_argument("--cases", default="", help="only those whose names contain this")
    chosen = parser.parse_args(arguments)
    side = theirs()
    if side is None:
        print("asgiref is not installed: there is nothing to compare with", file=sys.stderr)
        return 2
    names = [name for name in CASES if chosen.cases in name]
    pairs = [(name, CASES[name](OURS), CASES[name](side)) for name in names]
    if chosen.cases in ALONE:
        pairs.append((ALONE, with_variables(OURS), sensitive(OURS)))
    print(table([compare(*pair, chosen.rounds, chosen.slice) for pair in pairs]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
