"""Answers in an application's place, to both kinds of clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.middleware.answers import answer
from omnicorn.toolkit.lint import lint
from omnicorn.toolkit.testing import HTTPCommunicator, WebSocketClosed, WebSocketCommunicator

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


@lint
async def gone(scope: Any, receive: Any, send: Any) -> None:
    await answer(scope, receive, send, 410, b"Gone\n", [(b"x-why", b"moved")])


def test_an_http_client_gets_a_response(run: Run) -> None:
    response = run(HTTPCommunicator(gone, "GET", "/").get_response)

    assert response.status == 410
    assert response.body == b"Gone\n"
    assert response.headers == [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"5"),
        (b"x-why", b"moved"),
    ]


def test_a_websocket_client_gets_the_same_response_where_the_server_can_send_one(run: Run) -> None:
    async def main() -> None:
        async with WebSocketCommunicator(gone, "/") as ws:
            refused = await ws.connect()
            assert refused.response is not None
            assert (refused.response.status, refused.response.body) == (410, b"Gone\n")
            assert refused.response.header("x-why") == "moved"

    run(main)


@pytest.mark.parametrize("extensions", [{}, None])
def test_a_websocket_client_is_refused_by_a_close_elsewhere(run: Run, extensions: Any) -> None:
    async def main() -> None:
        ws = WebSocketCommunicator(gone, "/", extensions=())
        ws.scope["extensions"] = extensions
        async with ws:
            refused = await ws.connect()
            assert not refused
            assert refused.closed == WebSocketClosed(1000, "")

    run(main)


def test_nobody_knows_the_answer_to_another_scope(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="type 'mail'"):
            await answer({"type": "mail"}, None, None, 404, b"")  # type: ignore[arg-type]

    run(main)
