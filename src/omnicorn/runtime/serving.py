"""Serve until told to stop: what `Server` leaves open, namely who tells it, and how.

Signals are only listened to where that is asked for, only in the main thread, and put back
afterwards, so that an embedding program keeps its own. SIGINT and SIGTERM drain; a second one
cancels what is still running. SIGHUP has the certificates read again, where there are any.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any, Protocol

from omnicorn.runtime.hosts import hosting
from omnicorn.runtime.server import Server, Stopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from omnicorn.config import Config
    from omnicorn.ports import Loop
    from omnicorn.runtime.interfaces import AnyApplication

logger = logging.getLogger("omnicorn")


class TaskStatus(Protocol):
    """The part of `trio.TaskStatus` that is used."""

    def started(self, value: list[str], /) -> object: ...


async def serve(
    app: AnyApplication | str | None = None,
    config: Config | None = None,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    mode: str | None = None,
    signals: bool = False,
    task_status: TaskStatus | None = None,
) -> None:
    """Serve an application inside the running event loop, of asyncio or trio.

    It ends when *shutdown_trigger* has returned, when a signal has come that was asked for, or
    when the task that awaits it is cancelled; each drains in order, bounded by
    ``timeout_graceful_shutdown``.

    Args:
        app: An ASGI or WSGI application, or its import string; None takes ``config.app``.
        config: The configuration; the defaults if not given.
        shutdown_trigger: Called without arguments and awaited; its end is the server's. What it
            raises is raised here, after the server has stopped.
        mode: The application's interface; see `Server`.
        signals: Whether SIGINT, SIGTERM and SIGHUP are listened to meanwhile.
        task_status: Given by ``await nursery.start(serve, app, config)`` of trio, which returns
            the list of URLs served on.

    Raises:
        ConfigError: The application cannot be loaded or an address not be bound.
        LifespanFailed: The application refused to start.
    """
    server = Server(app, config, mode=mode)
    await serve_until_told(server, shutdown_trigger, signals, task_status)


async def serve_until_told(
    server: Server,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    signals: bool = False,
    task_status: TaskStatus | None = None,
) -> None:
    """The same with a `Server` that is there, and not started."""
    async with hosting() as host:
        told = host.create_future()
        errors: list[Exception] = []

        def stop() -> None:
            if told.done():
                server.hurry()
            else:
                told.set_result(None)
                server.give_up()

        async def await_trigger(trigger: Callable[[], Awaitable[object]]) -> None:
            try:
                await trigger()
            except Exception as exc:
                errors.append(exc)
            finally:
                if not told.done():
                    told.set_result(None)

        callbacks: dict[signal.Signals, Callable[[], None]] = {}
        if signals:
            callbacks = {signal.SIGINT: stop, signal.SIGTERM: stop}
            if (
                server.config.tls
                and server.config.ssl_context is None
                and hasattr(signal, "SIGHUP")
            ):
                callbacks[signal.SIGHUP] = server.reload
        with contextlib.ExitStack() as stack:
            stack.enter_context(_signals(host, callbacks))
            if server.config.ssl_sni:
                from omnicorn.security.tls import names_are_ascii

                stack.enter_context(names_are_ascii())
            watching = None
            try:
                await server.start(host)
                if task_status is not None:
                    task_status.started(server.urls)
                if shutdown_trigger is not None:
                    watching = host.spawn(await_trigger(shutdown_trigger))
                await told
            except Stopped:
                logger.warning("The start was given up")
            finally:
                if not told.done():  # from now on a signal hurries
                    told.set_result(None)
                if watching is not None:
                    watching.cancel()
                await server.stop()
    if errors:
        raise errors[0]


@contextlib.contextmanager
def _signals(loop: Loop, callbacks: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Call back in the loop for signals, where that is possible."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[signal.Signals, _Handler] = {}
    for number, callback in callbacks.items():
        # Not the loop's add_signal_handler: a program's own handler there would be lost.
        handlers[number] = handler = _Handler(loop, callback, signal.getsignal(number))
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            handler.is_over = True
            # Servers need not end in the order that is the reverse of their start's.
            last: Any = signal.getsignal(number)
            while isinstance(last, _Handler) and last.is_over and last.before is not None:
                last = last.before
                signal.signal(number, last)


class _Handler:
    """A signal's, of one server; *before* is the one to put back, None if it is not Python's."""

    __slots__ = ("_callback", "_loop", "before", "is_over")

    def __init__(self, loop: Loop, callback: Callable[[], None], before: Any) -> None:
        self._loop = loop
        self._callback = callback
        self.before = before
        self.is_over = False

    def __call__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._callback)
