"""One application's lifespan alone, for programs that serve by other means.

What this file alone decides: how uvicorn's ``LifespanOn`` tells a refusal: by ``should_exit`` and
the log, never by an exception.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from omnicorn.bridge.lifespan import Lifespan
from omnicorn.errors import LifespanFailed
from omnicorn.transports._asyncio import AsyncioLoop

if TYPE_CHECKING:
    from omnicorn.compat.uvicorn.config import Config

__all__ = ["LifespanOn"]

logger = logging.getLogger("omnicorn")


class LifespanOn:
    """One application's lifespan alone, as ``uvicorn.lifespan.on`` has it.

    A `Server` runs its application's lifespan itself; this is for programs that drive one.

    Args:
        config: Whose application it is.

    Attributes:
        should_exit: Whether the application refused to start; the reason is logged.
        state: What the application has put into its state.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.should_exit = False
        self.state: dict[str, Any] = {}
        self._lifespan: Lifespan | None = None

    async def startup(self) -> None:
        """Start the application."""
        if not self.config.loaded:
            self.config.load()
        loop = AsyncioLoop(asyncio.get_running_loop())
        self._lifespan = lifespan = Lifespan(self.config.loaded_app, loop, self.config.lifespan)
        try:
            await lifespan.startup()
        except LifespanFailed as failure:
            self.should_exit = True
            logger.error("The application did not start: %s", failure, exc_info=failure.__cause__)
        else:
            self.state.update(lifespan.state or {})

    async def shutdown(self) -> None:
        """Stop the application."""
        if self._lifespan is None or self.should_exit:
            return
        try:
            await self._lifespan.shutdown()
        except LifespanFailed as failure:
            self.should_exit = True
            logger.error("The application's shutdown failed: %s", failure)
