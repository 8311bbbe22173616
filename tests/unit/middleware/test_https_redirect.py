"""`HTTPSRedirect`: where the unencrypted are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.http.fields import check_pair
from omnicorn.middleware import HTTPSRedirect
from omnicorn.middleware.https_redirect import location
from omnicorn.toolkit.lint import lint
from omnicorn.toolkit.testing import (
    HTTPCommunicator,
    HTTPResponse,
    LifespanManager,
    WebSocketCommunicator,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
    else:
        assert scope["type"] == "lifespan"
        await receive()
        scope["state"]["ready"] = True
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


def redirect(run: Run, target: str = "/", asked: str = "example.org", **options: Any) -> str | None:
    """The location of a GET."""
    wrapped = lint(HTTPSRedirect(app, **options))
    http = HTTPCommunicator(wrapped, "GET", target, headers={"host": asked})
    response: HTTPResponse = run(http.get_response)
    assert response.status == 308
    return response.header("location")


def test_http_goes_to_https_with_path_and_query_as_they_were_received(run: Run) -> None:
    target = "/a%2Fb/%C3%A9%20?q=%20x&y=%3F/"

    assert redirect(run, target) == "https://example.org/a%2Fb/%C3%A9%20?q=%20x&y=%3F/"


@pytest.mark.parametrize(
    ("asked", "options", "expected"),
    [
        ("example.org:8080", {}, "https://example.org/"),
        ("example.org:8080", {"port": 8443}, "https://example.org:8443/"),
        ("example.org", {"port": 443}, "https://example.org/"),
        ("[::1]:80", {"port": 8443}, "https://[::1]:8443/"),
        ("[2001:DB8::1]", {}, "https://[2001:DB8::1]/"),
        ("EXAMPLE.org.:443", {"port": 1}, "https://EXAMPLE.org.:1/"),
        ("example.org:99999", {"port": 65535}, "https://example.org:65535/"),
        ("example.org:", {}, "https://example.org/"),
        ("evil.example", {"host": "example.org"}, "https://example.org/"),
        ("evil.example", {"host": "[::1]", "port": 4443}, "https://[::1]:4443/"),
    ],
)
def test_host_and_port_are_those_given_else_the_clients_host(
    run: Run, asked: str, options: dict[str, Any], expected: str
) -> None:
    assert redirect(run, asked=asked, **options) == expected


def test_the_path_is_whole_below_a_mount(run: Run) -> None:
    http = HTTPCommunicator(HTTPSRedirect(app), "GET", "/mount/x", root_path="/mount")

    assert run(http.get_response).header("location") == "https://testserver/mount/x"


def test_without_a_raw_path_the_path_is_encoded(run: Run) -> None:
    http = HTTPCommunicator(HTTPSRedirect(app), "GET", "/a%20b")
    del http.scope["raw_path"]

    assert run(http.get_response).header("location") == "https://testserver/a%20b"


def test_options_of_the_whole_server_have_no_path(run: Run) -> None:
    http = HTTPCommunicator(HTTPSRedirect(app), "OPTIONS", "/")
    http.scope.update(path="*", raw_path=b"*")

    assert run(http.get_response).header("location") == "https://testserver"


@pytest.mark.parametrize("host", ["", "a b", "user@example.org", "example.org/x", "[::1"])
def test_without_a_usable_host_there_is_nowhere_to_go(run: Run, host: str) -> None:
    http = HTTPCommunicator(lint(HTTPSRedirect(app)), "GET", "/", headers={"host": host})
    response = run(http.get_response)

    assert response.status == 400
    assert response.header("location") is None


def test_a_websocket_goes_to_wss_by_a_denial_response(run: Run) -> None:
    async def main() -> None:
        async with WebSocketCommunicator(lint(HTTPSRedirect(app)), "/chat?room=1") as ws:
            refused = await ws.connect()
            assert refused.response is not None
            assert refused.response.status == 308
            assert refused.response.header("location") == "wss://testserver/chat?room=1"

    run(main)


def test_a_websocket_goes_to_the_host_and_port_that_were_given(run: Run) -> None:
    async def main() -> None:
        wrapped = lint(HTTPSRedirect(app, host="[::1]", port=8443))
        async with WebSocketCommunicator(wrapped, "/chat", headers={"host": "a b"}) as ws:
            refused = await ws.connect()
            assert refused.response is not None
            assert refused.response.header("location") == "wss://[::1]:8443/chat"

    run(main)


def test_a_websocket_is_refused_where_no_response_can_be_sent(run: Run) -> None:
    async def main() -> None:
        async with WebSocketCommunicator(lint(HTTPSRedirect(app)), "/", extensions=()) as ws:
            assert (await ws.connect()).closed is not None

    run(main)


def test_what_is_encrypted_passes(run: Run) -> None:
    async def main() -> None:
        wrapped = lint(HTTPSRedirect(app))
        response = await HTTPCommunicator(wrapped, "GET", "/", scheme="https").get_response()
        assert response.status == 204
        async with WebSocketCommunicator(wrapped, "/", scheme="wss") as ws:
            assert await ws.connect()

    run(main)


def test_a_scope_without_a_scheme_is_not_encrypted(run: Run) -> None:
    http = HTTPCommunicator(HTTPSRedirect(app), "GET", "/")
    del http.scope["scheme"]

    assert run(http.get_response).status == 308


def test_a_lifespan_passes(run: Run) -> None:
    async def main() -> None:
        async with LifespanManager(lint(HTTPSRedirect(app))) as lifespan:
            assert lifespan.state == {"ready": True}

    run(main)


@pytest.mark.parametrize("host", ["", "example.org:443", "https://example.org", "a b", "é.org"])
def test_a_host_that_is_none_is_an_error_at_once(host: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        HTTPSRedirect(app, host=host)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_an_error_at_once(port: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 65535"):
        HTTPSRedirect(app, port=port)


@given(raw_path=st.binary(max_size=30), query=st.binary(max_size=30))
def test_a_location_can_be_sent_and_leads_to_its_host(raw_path: bytes, query: bytes) -> None:
    scope = {"raw_path": b"/" + raw_path, "path": "/", "query_string": query}
    url = location(scope, b"https", b"example.org", None)

    assert check_pair((b"location", url))
    assert urlsplit(url.decode("ascii")).netloc == "example.org"
