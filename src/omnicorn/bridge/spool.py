"""A request body on its way to a temporary file, while no thread of the application is taken.

What this file alone decides: when the file is written, and that it is closed if nobody gets it.

1. What came while the last piece was written is the next piece. `Spool.write` never waits: whoever
   sends is told to go on when its bytes are written, so memory holds no more than it may send.
2. The file belongs to the spool until ``on_end(None)``, from then on to whoever takes it.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnicorn.ports import Loop, Task

__all__ = ["Spool"]


class Spool:
    """A body that is received into a temporary file.

    Args:
        loop: The event loop's port.
        on_written: Called with a number of bytes after `write`: there is room for as many.
        on_end: Called once, after `end` with None, or with what kept the file from being written.

    Attributes:
        file: The file, open for reading and at its beginning once `on_end` was called.
        size: Bytes in it.
    """

    __slots__ = (
        "_abandoned",
        "_busy",
        "_credit",
        "_ended",
        "_loop",
        "_on_end",
        "_on_written",
        "_pieces",
        "_task",
        "file",
        "size",
    )

    def __init__(
        self,
        loop: Loop,
        on_written: Callable[[int], object],
        on_end: Callable[[Exception | None], object],
    ) -> None:
        self._loop = loop
        self._on_written = on_written
        self._on_end = on_end
        self._pieces: list[bytes] = []
        self._credit = 0
        self._busy = False
        self._ended = False
        self._abandoned = False
        self._task: Task | None = None
        self.file: Any = None
        self.size = 0

    def write(self, data: bytes, credit: int) -> None:
        """Take a piece; *credit* is what `on_written` is told of it."""
        self._pieces.append(data)
        self._credit += credit
        self._begin()

    def end(self) -> None:
        """That was all."""
        self._ended = True
        self._begin()

    def abandon(self) -> None:
        """Nobody wants it any more."""
        self._abandoned = True
        if not self._busy:
            self._close()

    def _begin(self) -> None:
        if not self._busy:
            self._busy = True
            self._task = self._loop.spawn(self._run())

    async def _run(self) -> None:
        error: Exception | None = None
        whole = False
        try:
            while (self._pieces or self._ended) and not whole and not self._abandoned:
                pieces, self._pieces = self._pieces, []
                credit, self._credit = self._credit, 0
                whole = self._ended
                await self._loop.run_blocking(self._put, pieces, whole)
                if not self._abandoned:
                    self._on_written(credit)
        except Exception as exc:
            error = exc
        except BaseException:
            self._abandoned = True
            raise
        finally:
            self._busy = False
            self._task = None
            if error is not None or self._abandoned:
                self._close()
        if not self._abandoned and (whole or error is not None):
            self._abandoned = error is not None
            self._on_end(error)

    def _put(self, pieces: list[bytes], last: bool) -> None:
        if self.file is None:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.size += self.file.write(b"".join(pieces))
        if last:
            self.file.seek(0)
        if self._abandoned:
            self._close()  # the task may have been cancelled before there was a file

    def _close(self) -> None:
        if self.file is not None:
            with suppress(OSError):  # a full disk: it tries to write what it holds once more
                self.file.close()
