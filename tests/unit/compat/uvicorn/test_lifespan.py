from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.embedded import LIVED, App, config

from omnicorn.compat.uvicorn import LifespanOn

if TYPE_CHECKING:
    import pytest


def test_a_lifespan_can_be_driven_alone() -> None:
    app = App()

    async def main() -> None:
        lifespan = LifespanOn(config(app, lifespan="on"))
        await lifespan.startup()
        assert not lifespan.should_exit
        assert lifespan.state == {"word": 42}
        await lifespan.shutdown()

    asyncio.run(main())
    assert app.events == LIVED


def test_a_lifespan_that_refuses_should_exit(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        lifespan = LifespanOn(config(App(refuses=True)))
        await lifespan.startup()
        assert lifespan.should_exit
        await lifespan.shutdown()

    asyncio.run(main())
    assert "not today" in caplog.text
