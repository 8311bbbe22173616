"""Where a server lives: what it needs of an event loop, and which one runs now.

A `Host` is the `Loop` port with two methods more. Waiting for one of several things, for a bounded
time, is made of the port's waiters and timers and an `Event`: no library's own primitives are used
above `transports`, so a server's life is one text for all of them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from omnicorn.ports import Loop

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from omnicorn.ports import ConnectionPort

    Connect = Callable[[], ConnectionPort]


class Acceptor(Protocol):
    def close(self) -> object:
        """Accept no more, at once."""


class Host(Loop, Protocol):
    """What a server needs of an event loop besides what its connections need."""

    async def listen(
        self, connect: Connect, sockets: Sequence[socket.socket], backlog: int
    ) -> Sequence[Acceptor]:
        """Accept on *sockets*; each transport gets a connection from *connect*."""

    def release(self) -> None:
        """A server is over: keep nothing that has outlived its connections."""

    async def outlast(self, waiter: Any, on_cancel: Callable[[], object]) -> None:
        """Await *waiter* to its end, also when the caller is cancelled: each time that happens
        *on_cancel* is called, and the cancellation goes on in the end."""


def hosting() -> AbstractAsyncContextManager[Host]:
    """The event loop that runs now. On trio, what was spawned in it has ended when this is left;
    on asyncio, who spawns a task sees to its end.

    Raises:
        RuntimeError: None runs.
    """
    if "trio" in sys.modules:
        import trio

        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            pass
        else:
            from omnicorn.transports import _trio

            return _trio.hosting()
    from omnicorn.transports import _asyncio

    return _asyncio.hosting()


def running_host() -> Host:
    """The running loop of asyncio, whose tasks need no place to live in.

    Raises:
        RuntimeError: It is trio that runs, or nothing.
    """
    import asyncio

    from omnicorn.transports._asyncio import AsyncioLoop

    try:
        return AsyncioLoop(asyncio.get_running_loop())
    except RuntimeError:
        raise RuntimeError(
            "Server.start() needs a running asyncio loop; on trio write"
            " `async with Server(app, config):`, or use omnicorn.trio.serve"
        ) from None


class Event:
    """Something that happens once, after *count* have said so; who watches is called."""

    __slots__ = ("_count", "_watchers", "is_set")

    def __init__(self, count: int = 1) -> None:
        self._count = count
        self._watchers: list[Callable[[], object]] = []
        self.is_set = False

    def set(self) -> None:
        self._count -= 1
        if self._count <= 0 and not self.is_set:
            self.is_set = True
            watchers, self._watchers = self._watchers, []
            for watcher in watchers:
                watcher()

    def watch(self, watcher: Callable[[], object]) -> None:
        self._watchers.append(watcher)
