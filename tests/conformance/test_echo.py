"""The application that Autobahn's suite talks to."""

from __future__ import annotations

import asyncio
from typing import Any

from conformance.echo import app

from omnicorn.toolkit.lint import lint
from omnicorn.toolkit.testing import HTTPCommunicator, LifespanManager, WebSocketCommunicator


def test_messages_come_back_as_they_were() -> None:
    async def main() -> None:
        async with WebSocketCommunicator(lint(app)) as ws:
            assert await ws.connect()
            await ws.send_text("text")
            assert await ws.receive_text() == "text"
            await ws.send_bytes(b"bytes")
            assert await ws.receive_bytes() == b"bytes"

    asyncio.run(main())


def test_a_client_that_leaves_before_the_echo_is_no_error() -> None:
    async def main() -> None:
        given = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "text"}]

        async def receive() -> dict[str, Any]:
            return given.pop(0)

        async def send(event: dict[str, Any]) -> None:
            if event["type"] == "websocket.send":
                raise ConnectionResetError

        await app({"type": "websocket"}, receive, send)
        assert given == []

    asyncio.run(main())


def test_it_starts_and_stops_and_has_no_pages() -> None:
    async def main() -> None:
        async with LifespanManager(lint(app)):
            response = await HTTPCommunicator(lint(app)).get_response()
            assert (response.status, response.body) == (404, b"")

    asyncio.run(main())
