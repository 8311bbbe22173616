"""Real applications and this server under lint: nobody is told anything.

The applications are driven by the toolkit's communicators, so that these are checked as well;
the server is omnicorn itself, in memory, with applications that use all of the specification.
"""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import trio
from tests.frames import HANDSHAKE, closing, text
from tests.http2_client import ENABLE_PUSH, Http2Client, reset
from tests.http2_client import data as http2_data

from omnicorn.bridge.lifespan import Lifespan
from omnicorn.connections.http2 import Http2Connection
from omnicorn.toolkit.lint import Violation, lint
from omnicorn.toolkit.testing import HTTPCommunicator, LifespanManager, WebSocketCommunicator
from omnicorn.transports.inproc import ManualLoop, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    Main = Callable[[], Coroutine[Any, Any, None]]

LIBRARIES = {"asyncio": lambda main: asyncio.run(main()), "trio": trio.run}


@pytest.fixture
def found() -> Iterator[list[Violation]]:
    """What lint says; a test that ends with something in it has failed."""
    said: list[Violation] = []
    yield said
    assert said == []


# ---------------------------------------------------------------- frameworks


@pytest.mark.parametrize("library", LIBRARIES)
def test_starlette(library: str, found: list[Violation], tmp_path: Path) -> None:
    from contextlib import asynccontextmanager

    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse
    from starlette.routing import Route, WebSocketRoute

    path = tmp_path / "file"
    path.write_bytes(b"content")
    done: list[str] = []

    async def echo(request: Any) -> Any:
        background = BackgroundTask(done.append, request.state.db)
        return PlainTextResponse(await request.body(), background=background)

    async def stream(request: Any) -> Any:
        async def pieces() -> Any:
            for piece in (b"one ", b"two"):
                yield piece

        return StreamingResponse(pieces())

    async def file(request: Any) -> Any:
        return FileResponse(path)

    async def chat(ws: Any) -> None:
        if ws.query_params.get("deny"):
            raise HTTPException(401, "no")
        await ws.accept(subprotocol="v1")
        async for message in ws.iter_text():
            await ws.send_text(message)

    async def through(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    @asynccontextmanager
    async def lifespan(app: Any) -> Any:
        yield {"db": "open"}

    app = Starlette(
        routes=[
            Route("/echo", echo, methods=["POST"]),
            Route("/stream", stream),
            Route("/file", file),
            WebSocketRoute("/chat", chat),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=through), Middleware(GZipMiddleware)],
        lifespan=lifespan,
    )
    linted = lint(app, on_violation=found.append, probe=True)

    async def main() -> None:
        async with LifespanManager(linted) as started:

            def http(*args: Any, **options: Any) -> HTTPCommunicator:
                return HTTPCommunicator(linted, *args, state=started.state, **options)

            pieces = [b"a", b"b"]
            assert (await http("POST", "/echo", body=pieces).get_response()).body == b"ab"
            assert done == ["open"]
            assert (await http("GET", "/echo").get_response()).status == 405
            assert (await http("GET", "/stream").get_response()).body == b"one two"
            assert (await http("GET", "/file").get_response()).body == b"content"
            assert (await http("GET", "/file", extensions=()).get_response()).body == b"content"
            async with http("POST", "/echo", body=None) as leaves:
                await leaves.disconnect()
            async with WebSocketCommunicator(linted, "/chat", subprotocols=["v1"]) as ws:
                await ws.send_text("hello")
                assert await ws.receive_text() == "hello"
            async with WebSocketCommunicator(linted, "/chat?deny=1") as ws:
                answer = await ws.connect()
                assert answer.response is not None and answer.response.status == 401

    LIBRARIES[library](main)


def test_a_mounted_starlette_changes_its_scope(tmp_path: Path) -> None:
    """What it does is against the letter; to say so is what a linter is for."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    async def page(request: Any) -> Any:
        return PlainTextResponse("page")

    app = Starlette(routes=[Mount("/sub", routes=[Route("/page", page)])])
    said: list[Violation] = []
    linted = lint(app, on_violation=said.append)
    response = asyncio.run(HTTPCommunicator(linted, "GET", "/sub/page").get_response())
    assert response.text == "page"
    assert [(one.rule, one.level) for one in said] == [("application.scope", "should")]
    assert said[0].message.endswith("`root_path` changed")


def test_quart(found: list[Violation]) -> None:
    from quart import Quart, request, websocket

    app = Quart(__name__)

    @app.post("/echo")
    async def echo() -> Any:
        return await request.get_data()

    @app.get("/stream")
    async def stream() -> Any:
        async def pieces() -> Any:
            yield b"one "
            yield b"two"

        return pieces()

    @app.websocket("/chat")
    async def chat() -> None:
        while True:
            await websocket.send(await websocket.receive())

    linted = lint(app, on_violation=found.append)

    async def main() -> None:
        async with LifespanManager(linted):
            post = HTTPCommunicator(linted, "POST", "/echo", body=b"abc")
            assert (await post.get_response()).body == b"abc"
            stream = HTTPCommunicator(linted, "GET", "/stream")
            assert (await stream.get_response()).body == b"one two"
            assert (await HTTPCommunicator(linted, "GET", "/no").get_response()).status == 404
            async with WebSocketCommunicator(linted, "/chat") as ws:
                await ws.send_text("hello")
                assert await ws.receive_text() == "hello"

    asyncio.run(main())


def test_django(found: list[Violation]) -> None:
    import django  # type: ignore[import-untyped]
    from django.conf import settings  # type: ignore[import-untyped]
    from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
    from django.http import HttpResponse, StreamingHttpResponse  # type: ignore[import-untyped]
    from django.test import override_settings  # type: ignore[import-untyped]
    from django.urls import path  # type: ignore[import-untyped]

    def sync_view(request: Any) -> Any:
        return HttpResponse(request.body)

    async def async_view(request: Any) -> Any:
        async def pieces() -> Any:
            yield b"one "
            yield b"two"

        return StreamingHttpResponse(pieces())

    urls = ModuleType("urls_of_test_lint")
    urls.urlpatterns = [path("sync", sync_view), path("async", async_view)]  # type: ignore[attr-defined]
    if not settings.configured:
        settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["*"], USE_TZ=True)
        django.setup()
    sys.modules[urls.__name__] = urls

    async def main() -> None:
        # Django has always left it to the server to make names lower-case.
        ignore = {"http.response.start.headers.lower-case"}
        application = get_asgi_application()
        linted = lint(application, on_violation=found.append, ignore=ignore, probe=True)
        async with LifespanManager(linted, required=False) as lifespan:
            assert not lifespan.supported
        post = HTTPCommunicator(linted, "POST", "/sync", body=b"abc")
        assert (await post.get_response()).body == b"abc"
        stream = HTTPCommunicator(linted, "GET", "/async")
        assert (await stream.get_response()).body == b"one two"

    try:
        with override_settings(ROOT_URLCONF=urls.__name__, ALLOWED_HOSTS=["*"], DEBUG=False):
            asyncio.run(main())
    finally:
        del sys.modules[urls.__name__]


# ---------------------------------------------------------------- this server


async def versatile(scope: Any, receive: Any, send: Any) -> None:
    """An application that does what its path says."""
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["db"] = "open"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})
        return
    assert scope["state"] == {"db": "open"}
    if scope["type"] == "websocket":
        await chat(scope, receive, send)
        return
    body = b""
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body += event["body"]
        more = event["more_body"]
    offered = scope["extensions"]
    if "http.response.early_hint" in offered:
        await send({"type": "http.response.early_hint", "links": [b"</style.css>"]})
    headers = [(b"content-type", b"text/plain"), (b"trailer", b"x-sum")]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
    if "http.response.push" in offered and scope["path"] != "/pushed":
        await send({"type": "http.response.push", "path": "/pushed", "headers": []})
    if scope["path"] == "/file":
        await send({"type": "http.response.pathsend", "path": __file__})
    else:
        with open(__file__, "rb") as file:
            copy = {"type": "http.response.zerocopysend", "file": file, "count": 3}
            await send({**copy, "more_body": True})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})
    assert (await receive())["type"] == "http.disconnect"


async def chat(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] == "/close":
        await send({"type": "websocket.close"})
    elif scope["path"] == "/deny":
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": "websocket.http.response.body", "body": b"no"})
    else:
        await send({"type": "websocket.accept", "subprotocol": "v1", "headers": [(b"a", b"b")]})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})
        if event["text"] == "close":
            await send({"type": "websocket.close", "code": 4000, "reason": "as you like"})


REQUESTS = (
    b"GET /caf%C3%A9?q=%20 HTTP/1.1\r\nhost: x\r\nte: trailers\r\nX-Upper: 1\r\n\r\n",
    b"GET http://x/absolute HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /%FF%2F HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc",
    b"POST /file HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
    b"HEAD /1.0 HTTP/1.0\r\n\r\n",
)


@pytest.mark.parametrize("root_path", ["", "/app"])
@pytest.mark.parametrize("sendfile", [True, False])
def test_omnicorn_over_http_1(serve: Any, found: Any, root_path: str, sendfile: bool) -> None:
    served = serve(
        lint(versatile, on_violation=found.append), sendfile=sendfile, root_path=root_path
    )
    served.service.state = {"db": "open"}
    for request in REQUESTS:
        peer = served.connect()
        for piece in (request[:-2], request[-2:]):
            peer.send(piece)
            served.run()
        assert b" 200 OK\r\n" in peer.take(), request
    peer = served.connect()
    peer.send(b"POST /cut HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\na")
    served.run()
    peer.close()
    served.run()


@pytest.mark.parametrize("root_path", ["", "/app"])
def test_omnicorn_asked_for_no_path(serve: Any, found: Any, root_path: str) -> None:
    served = serve(lint(versatile, on_violation=found.append), root_path=root_path)
    served.service.state = {"db": "open"}
    assert b" 200 OK\r\n" in served.send(b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n")


def test_omnicorn_over_http_2(serve: Any, found: Any) -> None:
    served = serve(lint(versatile, on_violation=found.append))
    served.service.state = {"db": "open"}
    for asks in ((), ((ENABLE_PUSH, 0),)):
        peer = connect(served.loop, Http2Connection(served.service))
        client: Any = Http2Client(served, peer, asks=asks)
        replies = [
            client.ask("/caf%C3%A9?q=%20", ("te", "trailers"), ("cookie", "a"), ("cookie", "b")),
            client.ask("/file", method="HEAD"),
            client.post("/post", b"abc"),
        ]
        assert [reply.status for reply in replies] == [200, 200, 200]
        client.ask("/cut", end=False)
        client.send(reset(client.last))
        ws = client.websocket("/ws", ("sec-websocket-protocol", "v1"))
        assert ws.status == 200
        client.send(http2_data(client.last, text("hello") + closing(1000)))
        assert client.websocket("/close").status == 403
        assert client.websocket("/deny").status == 401


@pytest.mark.parametrize("end", [closing(1000, "bye"), closing(), text("close"), None])
def test_omnicorn_over_websocket(serve: Any, found: Any, end: bytes | None) -> None:
    served = serve(lint(versatile, on_violation=found.append))
    served.service.state = {"db": "open"}
    answer = served.get("/ws?a=%20", *HANDSHAKE, "sec-websocket-protocol: v0, v1")
    assert b" 101 " in answer
    assert served.send(text("hello"))
    if end is None:
        served.peer.reset()
    else:
        served.peer.send(end)
    served.run()


@pytest.mark.parametrize(("path", "status"), [("/close", b" 403 "), ("/deny", b" 401 ")])
def test_omnicorn_over_a_websocket_that_is_denied(
    serve: Any, found: Any, path: str, status: bytes
) -> None:
    served = serve(lint(versatile, on_violation=found.append))
    served.service.state = {"db": "open"}
    assert status in served.get(path, *HANDSHAKE)


def test_omnicorns_lifespan(loop: ManualLoop, found: Any) -> None:
    lifespan = Lifespan(lint(versatile, on_violation=found.append), loop, "on")

    async def main() -> None:
        await lifespan.startup()
        assert lifespan.state == {"db": "open"}
        await lifespan.shutdown()

    loop.run(main())
