from __future__ import annotations

import asyncio
import os
import signal

import pytest
from tests.embedded import LIVED, App

from omnicorn.compat import uvicorn
from omnicorn.compat.uvicorn import Server


def test_run_returns_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()

    async def interrupted(self: Server) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while not self.should_exit:
            await asyncio.sleep(0)

    monkeypatch.setattr(Server, "main_loop", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        uvicorn.run(app, port=0, log_config=None, access_log=False)
    finally:
        signal.signal(signal.SIGINT, before)

    assert app.events == LIVED


def test_main_is_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        uvicorn.main(["--version"])

    assert caught.value.code == 0
    assert "omnicorn" in capsys.readouterr().out
