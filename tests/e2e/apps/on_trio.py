"""An application of trio alone: nurseries, cancel scopes, memory channels, threads."""

from __future__ import annotations

import contextvars
from typing import Any

import trio
from plain import answer, say

named: contextvars.ContextVar[str] = contextvars.ContextVar("named")


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        await ROUTES[scope["path"]](scope, receive, send)


async def lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A nursery that lives as long as the server, with a task that serves the requests."""
    named.set("by the lifespan")
    assert (await receive())["type"] == "lifespan.startup"
    async with trio.open_nursery() as nursery:
        jobs, queue = trio.open_memory_channel[tuple[Any, bytes]](0)
        scope["state"].update(nursery=nursery, jobs=jobs)
        await nursery.start(work, queue)
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await jobs.aclose()
    say("nursery ended")
    await send({"type": "lifespan.shutdown.complete"})


async def work(queue: Any, task_status: trio.TaskStatus[None]) -> None:
    """Do what requests ask for, one after the other, until there is no more."""
    say("worker started")
    task_status.started()
    async for back, text in queue:
        await back.send(text.upper())
    say("worker ended")


async def ask(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Let the worker of the lifespan answer."""
    back, answers = trio.open_memory_channel[bytes](1)
    with trio.fail_after(5):
        await scope["state"]["jobs"].send((back, scope["query_string"]))
        await answer(send, await answers.receive())


async def name(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A context variable: what is set for one request is not there for the next."""
    seen = named.get("nobody")
    named.set("by a request")
    await answer(send, seen.encode())


async def late(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A deadline of trio's around what the client never sends."""
    try:
        with trio.fail_after(0.05):
            await receive()
    except trio.TooSlowError:
        await answer(send, b"too slow", 408)


async def fail_behind(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A task of the lifespan's nursery fails, and so does the lifespan."""

    async def bug() -> None:
        raise RuntimeError("a task behind has a bug")

    await answer(send, b"answered")
    scope["state"]["nursery"].start_soon(bug)


ROUTES = {"/ask": ask, "/name": name, "/late": late, "/fail-behind": fail_behind}
