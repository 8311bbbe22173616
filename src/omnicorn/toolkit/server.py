"""StatelessServer: runs applications for a protocol without connections, an instance per scope.

What this file alone decides: the life of instances. One is made for a new scope id; it ends by
itself, or because another has to have its place, or with the server.

1. There are never more than ``max_applications``: the least recently used one makes room.
2. An instance that has ended is none: the next message for its scope id makes a new one.
3. Every instance's task is awaited, and what it raised is reported once, also on the way out: when
   ``handle`` returns, fails or is cancelled, all are cancelled and given ``shutdown_timeout``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from omnicorn.toolkit.compatibility import guarantee_single_callable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["StatelessServer"]

logger = logging.getLogger(__name__)


class StatelessServer:
    """Subclass it, with `handle` to read messages and `application_send` to write them.

    `handle` has `get_or_create_application_instance` give it the queue of the instance that a
    message is for, and puts the message there.

    Args:
        application: An ASGI 3 or ASGI 2 application, for scopes of your own type.
        max_applications: Instances that may exist at once, at least 1.

    Raises:
        ValueError: *max_applications* is less.
    """

    application_checker_interval: ClassVar[float] = 0.1
    """Seconds between looks for instances that have ended."""

    shutdown_timeout: ClassVar[float] = 10.0
    """Seconds that instances have to end when the server does."""

    def __init__(self, application: Callable[..., Any], max_applications: int = 1000) -> None:
        if max_applications < 1:
            raise ValueError(f"max_applications is {max_applications}; it must be at least 1")
        self.application = application
        self.max_applications = max_applications
        self.application_instances: dict[Hashable, dict[str, Any]] = {}
        """By scope id: ``input_queue``, ``future``, ``scope`` and ``last_used`` of an instance."""
        self._leaving: dict[asyncio.Future[Any], dict[str, Any]] = {}

    def run(self) -> None:
        """Run until `handle` returns or Ctrl-C is pressed, in an event loop of its own."""
        try:
            asyncio.run(self.arun())
        except KeyboardInterrupt:
            logger.info("Exiting due to Ctrl-C")

    async def arun(self) -> None:
        """Run until `handle` returns; all instances have ended then."""
        tasks = {
            asyncio.create_task(self.handle()),
            asyncio.create_task(self.application_checker()),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._shut_down()

    async def handle(self) -> None:
        """Read messages and pass them to instances, for as long as the server is to run."""
        raise NotImplementedError(f"{type(self).__name__} must have a handle() that reads messages")

    async def application_send(self, scope: Any, message: Any) -> None:
        """Write a message that the instance of `scope` sends."""
        raise NotImplementedError(
            f"{type(self).__name__} must have an application_send() that writes messages"
        )

    def get_or_create_application_instance(
        self, scope_id: Hashable, scope: Any
    ) -> asyncio.Queue[Any]:
        """The input queue of the instance for `scope_id`; a new one gets `scope`."""
        details = self.application_instances.pop(scope_id, None)
        if details is not None:
            if not details["future"].done():
                details["last_used"] = time.time()
                self.application_instances[scope_id] = details  # among equally old ones the newest
                return details["input_queue"]  # type: ignore[no-any-return]
            self._leaving[details["future"]] = details
        while len(self.application_instances) >= self.max_applications:
            self.delete_oldest_application_instance()
        queue: asyncio.Queue[Any] = asyncio.Queue()
        instance = guarantee_single_callable(self.application)(
            scope, queue.get, lambda message: self.application_send(scope, message)
        )
        self.application_instances[scope_id] = {
            "input_queue": queue,
            "future": asyncio.ensure_future(instance),
            "scope": scope,
            "last_used": time.time(),
        }
        return queue

    def delete_oldest_application_instance(self) -> None:
        """Cancel and forget the instance that was not used for longest."""
        instances = self.application_instances
        self.delete_application_instance(min(instances, key=lambda i: instances[i]["last_used"]))

    def delete_application_instance(self, scope_id: Hashable) -> None:
        """Cancel and forget an instance.

        Raises:
            KeyError: There is none for `scope_id`.
        """
        details = self.application_instances.pop(scope_id)
        details["future"].cancel()
        self._leaving[details["future"]] = details

    async def application_checker(self) -> NoReturn:
        """Forget instances that have ended, and report what they raised, now and then."""
        while True:
            await asyncio.sleep(self.application_checker_interval)
            await self._report_ended()

    async def application_exception(
        self, exception: BaseException, application_details: dict[str, Any]
    ) -> None:
        """Report what an instance raised: here, to the log."""
        logger.error("Exception inside application: %s", exception, exc_info=exception)

    async def _report_ended(self) -> None:
        for scope_id, details in tuple(self.application_instances.items()):
            if details["future"].done():
                del self.application_instances[scope_id]
                self._leaving[details["future"]] = details
        for future in [future for future in self._leaving if future.done()]:
            details = self._leaving.pop(future)
            exception = None if future.cancelled() else future.exception()
            if exception is not None:
                await self.application_exception(exception, details)

    async def _shut_down(self) -> None:
        for scope_id in tuple(self.application_instances):
            self.delete_application_instance(scope_id)
        if self._leaving:
            _, pending = await asyncio.wait(self._leaving, timeout=self.shutdown_timeout)
            if pending:
                logger.error(
                    "%d application instances did not end within %g s of being cancelled",
                    len(pending),
                    self.shutdown_timeout,
                )
        await self._report_ended()
