"""An application of anyio: task groups and cancel scopes, the same on asyncio and trio."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.abc
import sniffio
from plain import answer, say


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        await ROUTES[scope["path"]](scope, receive, send)


async def lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A task group that lives as long as the server, and whose tasks outlive their requests."""
    assert (await receive())["type"] == "lifespan.startup"
    async with anyio.create_task_group() as group:
        scope["state"]["group"] = group
        group.start_soon(heart)
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        group.cancel_scope.cancel()
    say("group ended")
    await send({"type": "lifespan.shutdown.complete"})


async def heart() -> None:
    """Beats until it is cancelled."""
    try:
        say("heart beats")
        await anyio.sleep_forever()
    finally:
        say("heart stopped")


async def library(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await answer(send, sniffio.current_async_library().encode())


async def later(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Leave a task behind in the group of the lifespan."""
    group: anyio.abc.TaskGroup = scope["state"]["group"]
    await answer(send, b"later")
    group.start_soon(say_later, "after the request")


async def say_later(text: str) -> None:
    await anyio.sleep(0)
    say(text)


async def gather(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send from several tasks at once."""
    lock = anyio.Lock()
    await send({"type": "http.response.start", "status": 200, "headers": []})

    async def piece(body: bytes) -> None:
        for _ in range(100):
            await anyio.sleep(0)
            async with lock:
                await send({"type": "http.response.body", "body": body * 100, "more_body": True})

    async with anyio.create_task_group() as group:
        for body in (b"a", b"b", b"c"):
            group.start_soon(piece, body)
    await send({"type": "http.response.body"})


async def impatient(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Give up waiting for the content, and take it afterwards."""
    with anyio.move_on_after(0.05) as patience:
        await receive()
    say("gave up" if patience.cancelled_caught else "got it")
    event = await receive()
    await answer(send, event["body"])


async def race(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Work until it is done or the client has left, whichever is first."""
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            say("the client has left")
            group.cancel_scope.cancel()

        group.start_soon(watch)
        say("racing")
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
                say("tidied up")
    say("race over")


async def endless(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Two tasks that send until the client has left: what they raise comes as a group."""
    await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ticks() -> None:
        try:
            while True:
                await send({"type": "http.response.body", "body": b"tick", "more_body": True})
                await anyio.sleep(0.01)
        finally:
            say("ticks ended")

    async with anyio.create_task_group() as group:
        group.start_soon(ticks)
        group.start_soon(ticks)


async def deaf(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Children that nothing but a cancellation of their parent ends."""

    async def child() -> None:
        say("waiting")
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            say("child was cancelled")
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(child)
        group.start_soon(child)


async def blocking(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A call in a thread, which calls back."""
    body = await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(greeting))
    await answer(send, body)


async def greeting() -> bytes:
    await anyio.sleep(0)
    return b"from a thread"


async def fail(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A child fails: its siblings are cancelled, and the request has failed."""

    async def bug() -> None:
        raise RuntimeError("a child has a bug")

    async with anyio.create_task_group() as group:
        group.start_soon(heart)
        await anyio.sleep(0.01)
        group.start_soon(bug)


ROUTES = {
    "/library": library,
    "/later": later,
    "/gather": gather,
    "/impatient": impatient,
    "/race": race,
    "/endless": endless,
    "/deaf": deaf,
    "/blocking": blocking,
    "/fail": fail,
}
