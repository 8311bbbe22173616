"""The pytest plugin: the fixture ``live_omnicorn``, and nothing that costs a start of pytest."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from omnicorn.testing.live import LiveServer


@pytest.fixture
def live_omnicorn() -> Iterator[Callable[..., LiveServer]]:
    """Makes servers: ``live_omnicorn(app, **options)`` is a running `omnicorn.testing.LiveServer`.

    They are stopped with the test, the last one first.
    """
    from omnicorn.testing.live import LiveServer

    with ExitStack() as stack:

        def serve(*args: object, **options: object) -> LiveServer:
            return stack.enter_context(LiveServer(*args, **options))  # type: ignore[arg-type]

        yield serve
