"""Uses of the toolkit, right and wrong; checked by mypy and pyright, never run."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, assert_type

from omnicorn.toolkit.compatibility import guarantee_single_callable, is_double_callable
from omnicorn.toolkit.lint import lint
from omnicorn.toolkit.local import Local
from omnicorn.toolkit.server import StatelessServer
from omnicorn.toolkit.sync import (
    ThreadSensitiveContext,
    async_to_sync,
    sync_to_async,
)
from omnicorn.toolkit.testing import (
    ApplicationCommunicator,
    HTTPCommunicator,
    LifespanManager,
    WebSocketCommunicator,
)
from omnicorn.toolkit.timeout import timeout
from omnicorn.toolkit.wsgi import AsgiToWsgi, WsgiToAsgi, WsgiToAsgiInstance

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from omnicorn.asgi import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGISendCallable,
        HTTPScope,
        LifespanScope,
        Scope,
        WebSocketScope,
    )


# --- sync code called from async code keeps its signature ---


def price(article: int, *, currency: str = "EUR") -> float:
    return float(article)


in_a_thread: Callable[[int], Coroutine[Any, Any, float]] = sync_to_async(price)


@sync_to_async
def stored(key: str) -> bytes:
    return key.encode()


@sync_to_async(thread_sensitive=False, executor=ThreadPoolExecutor())
def computed(number: int) -> int:
    return number


async def view(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    async with ThreadSensitiveContext():
        assert_type(await sync_to_async(price)(3, currency="USD"), float)
        assert_type(await sync_to_async(price, thread_sensitive=True)(3), float)
        assert_type(await computed(1), int)
        body = await stored(scope["path"])
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})


async def wrong_arguments() -> None:
    await sync_to_async(price)("3")  # type: ignore[arg-type]
    await sync_to_async(price)(3, currency=3)  # type: ignore[arg-type]
    await computed()  # type: ignore[call-arg]
    word: str = await computed(1)  # type: ignore[assignment]
    print(word)


# --- async code called from sync code, too ---


async def fetched(url: str, tries: int = 3) -> bytes:
    return url.encode() * tries


@async_to_sync
async def saved(name: str) -> int:
    return len(name)


def command() -> None:
    assert_type(async_to_sync(fetched)("http://x", tries=2), bytes)
    assert_type(async_to_sync(fetched, force_new_loop=True)("http://x"), bytes)
    assert_type(saved("x"), int)
    async_to_sync(fetched)(1)  # type: ignore[arg-type]
    async_to_sync(price)(1)  # type: ignore[arg-type]
    saved()  # type: ignore[call-arg]


# --- Local: any attribute, of any type ---

local = Local()
critical = Local(thread_critical=True)
positional = Local(True)


def remember(name: str) -> None:
    local.name = name
    critical.names = [name]
    print(local.name.upper(), *critical.names)
    del local.name
    Local("yes")  # type: ignore[arg-type]


class Mine(Local):  # type: ignore[misc]
    pass


# --- old applications ---


def old(
    scope: Scope,
) -> Callable[[ASGIReceiveCallable, ASGISendCallable], Coroutine[Any, Any, None]]:
    async def instance(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": 200})

    return instance


either: list[ASGI3Application] = [guarantee_single_callable(old), guarantee_single_callable(view)]
assert_type(is_double_callable(old), bool)


# --- a server ---


class Queue(StatelessServer):
    async def handle(self) -> None:
        queue = self.get_or_create_application_instance(("some", 1), {"type": "queue"})
        queue.put_nowait({"type": "queue.message"})

    async def application_send(self, scope: Any, message: Any) -> None:
        print(scope, message)


def main() -> None:
    Queue(view, max_applications=10).run()
    Queue("view")  # type: ignore[arg-type]


# --- a deadline ---


async def in_time() -> bool:
    async with timeout(1.5) as block:
        remaining: float | None = block.remaining
        print(remaining)
    with timeout(None):
        pass
    timeout("1")  # type: ignore[arg-type]
    return block.expired


# --- WSGI ---


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


from_wsgi: ASGI3Application = WsgiToAsgi(wsgi)
unlimited: ASGI3Application = WsgiToAsgi(wsgi, duplicate_header_limit=None)
one_request: ASGI3Application = WsgiToAsgiInstance(wsgi, spool=True)
to_wsgi: WSGIApplication = AsgiToWsgi(view)
there_and_back: ASGI3Application = WsgiToAsgi(AsgiToWsgi(old))


class Instance(WsgiToAsgiInstance):
    def build_environ(self, scope: HTTPScope, body: Any) -> WSGIEnvironment:
        return {**super().build_environ(scope, body), "own.path": scope["path"]}


WsgiToAsgi(view)  # type: ignore[arg-type]
AsgiToWsgi("view")  # type: ignore[arg-type]


# --- a check of applications ---

linted: ASGI3Application = lint(view)
not_linted: ASGI3Application = lint(WsgiToAsgi(wsgi), on_violation="warn", ignore=["send.event"])
lint("view")  # type: ignore[arg-type]
lint(view, on_violation="ignore")  # type: ignore[arg-type]


# --- frameworks that have types of their own for an application ---

Message = MutableMapping[str, Any]
Mountable = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
mounted: list[Mountable] = [WsgiToAsgi(wsgi), lint(view), guarantee_single_callable(old)]


async def framework(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    await send(await receive())


async def test_the_framework() -> None:
    await HTTPCommunicator(lint(framework), "GET", "/").get_response()
    ApplicationCommunicator(framework, {"type": "http"}).stop()
    AsgiToWsgi(framework).close()


# --- tests ---


async def test_it(http: HTTPScope, websocket: WebSocketScope, lifespan: LifespanScope) -> None:
    communicator = ApplicationCommunicator(view, http)
    await communicator.send_input({"type": "http.request"})
    print((await communicator.receive_output(1))["status"])
    assert_type(await communicator.receive_nothing(), bool)
    response = await HTTPCommunicator(view, "GET", "/").get_response()
    print(response.status, response.text)
    socket = WebSocketCommunicator(view, "/")
    await socket.connect()
    assert_type(await socket.receive_text(), str)
    async with LifespanManager(view):
        pass
    for app in (from_wsgi, linted, guarantee_single_callable(view)):
        ApplicationCommunicator(app, http).stop()
        HTTPCommunicator(app)
        WebSocketCommunicator(app)
        LifespanManager(app)
