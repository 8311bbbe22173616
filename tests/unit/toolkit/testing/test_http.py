"""`HTTPCommunicator` on asyncio and trio: what comes of a request, or is said if nothing does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
import trio

from omnicorn.toolkit.testing import (
    ClientDisconnected,
    CommunicatorError,
    CommunicatorTimeout,
    HTTPCommunicator,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]

NOW = 0.001  # seconds, where something is known not to come
START = {"type": "http.response.start", "status": 200}


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    if request.param == "trio":
        return trio.run
    return lambda main: asyncio.run(main())


def body(content: bytes = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


def sends(*events: dict[str, Any]) -> Callable[..., Awaitable[None]]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for event in events:
            await send(event)

    return app


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({**START, "headers": [(b"content-type", b"text/plain"), (b"x", b"1"), (b"x", b"2")]})
    await send(body("hëllo".encode()))


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    more = True
    while more:
        event = await receive()
        more = event["more_body"]
        await send(body(event["body"], more))


async def waits(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def scope_of(*args: Any, **options: Any) -> dict[str, Any]:
    return HTTPCommunicator(hello, *args, **options).scope


# ---------------------------------------------------------------- scope


def test_the_scope_is_that_of_a_server() -> None:
    assert scope_of("get", "/a%20b/é?x=%201", headers={"Accept": "*/*"}, body=b"four") == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b/é",
        "raw_path": b"/a%20b/%C3%A9",
        "query_string": b"x=%201",
        "root_path": "",
        "headers": [(b"host", b"testserver"), (b"accept", b"*/*"), (b"content-length", b"4")],
        "client": ("127.0.0.1", 50000),
        "server": ("testserver", 80),
        "extensions": {
            "http.response.trailers": {},
            "http.response.early_hint": {},
            "http.response.pathsend": {},
            "http.response.zerocopysend": {},
        },
    }


def test_what_is_given_is_not_added() -> None:
    headers = [(b"Host", b"other"), ("content-length", "9")]
    assert scope_of(headers=headers, body=b"four")["headers"] == [
        (b"host", b"other"),
        (b"content-length", b"9"),
    ]


@pytest.mark.parametrize(
    ("server", "scheme", "host"),
    [
        (("h", 80), "http", b"h"),
        (("h", 443), "https", b"h"),
        (("h", 443), "http", b"h:443"),
        (("h", 8000), "https", b"h:8000"),
        (("/run/socket", None), "http", b"/run/socket"),
    ],
)
def test_host_has_the_port_where_it_is_not_the_usual(server: Any, scheme: str, host: bytes) -> None:
    assert scope_of(server=server, scheme=scheme)["headers"] == [(b"host", host)]


def test_without_a_server_there_is_no_host() -> None:
    scope = scope_of(server=None)
    assert (scope["server"], scope["headers"]) == (None, [])


def test_a_body_in_pieces_is_chunked_in_http_1_1_alone() -> None:
    assert (b"transfer-encoding", b"chunked") in scope_of(body=[b"a"])["headers"]
    assert scope_of(body=[b"a"], http_version="2")["headers"] == [(b"host", b"testserver")]
    assert scope_of(body=None, headers={"content-length": "3"})["headers"][1:] == [
        (b"content-length", b"3")
    ]


def test_the_path_includes_the_root_path() -> None:
    assert scope_of(path="/app/x", root_path="/app")["path"] == "/app/x"
    assert scope_of(path="/app", root_path="/app")["root_path"] == "/app"
    with pytest.raises(ValueError, match=r"'/apple' is not below root_path '/app'"):
        scope_of(path="/apple", root_path="/app")


def test_there_is_one_query() -> None:
    assert scope_of(query_string="a=b")["query_string"] == b"a=b"
    assert scope_of(query_string=b"a=b")["query_string"] == b"a=b"
    with pytest.raises(ValueError, match="give one"):
        scope_of(path="/?a", query_string="b")


def test_the_state_is_a_shallow_copy() -> None:
    state: dict[str, Any] = {"pool": []}
    scope = scope_of(state=state)
    assert scope["state"] == state and scope["state"] is not state
    assert scope["state"]["pool"] is state["pool"]
    assert "state" not in scope_of()


# ---------------------------------------------------------------- responses


def test_a_request_in_one_call(run: Run) -> None:
    response = run(HTTPCommunicator(hello).get_response)
    assert (response.status, response.body, response.complete) == (200, "hëllo".encode(), True)
    assert response.headers[0] == (b"content-type", b"text/plain")
    assert response.header("X") == "1"
    assert response.header("y") is None
    assert response.text == "hëllo"


def test_json_is_read(run: Run) -> None:
    app = sends(START, body(b'{"a": [1]}'))
    assert run(HTTPCommunicator(app).get_response).json() == {"a": [1]}


@pytest.mark.parametrize(
    ("given", "events"),
    [
        (b"", [b""]),
        (b"all", [b"all"]),
        ([], [b""]),
        ([b"one"], [b"one"]),
        ([b"one", b"", b"two"], [b"one", b"", b"two"]),
    ],
)
def test_the_body_comes_in_the_pieces_given(run: Run, given: Any, events: list[bytes]) -> None:
    async def main() -> None:
        async with HTTPCommunicator(echo, "POST", body=given) as http:
            assert [part async for part in http.body_parts()] == events
            assert (await http.get_response()).body == b"".join(events)

    run(main)


def test_a_body_by_hand_meets_a_streamed_response(run: Run) -> None:
    async def main() -> None:
        async with HTTPCommunicator(echo, "POST", body=None) as http:
            response = await http.get_start()
            assert (response.status, response.complete) == (200, False)
            for piece in (b"one", b"two"):
                await http.send_body(piece, more_body=True)
                assert await http.get_body_part() == piece
            assert await http.receive_nothing(NOW)
            await http.send_body()
            assert await http.get_body_part() == b""
            assert await http.get_body_part() is None
            assert await http.get_response() is response
            assert response.body == b"onetwo"

    run(main)


def test_what_follows_the_response_is_ignored(run: Run) -> None:
    app = sends(START, body(b"all"), body(b"more"))
    assert run(HTTPCommunicator(app).get_response).body == b"all"


def test_extensions_become_part_of_the_response(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.debug", "info": {"template": "x"}})
        await send({"type": "http.response.early_hint", "links": [b"</a>", b"</b>"]})
        await send({**START, "trailers": True})
        await send({"type": "http.response.push", "path": "/p", "headers": [(b"a", b"b")]})
        with open(path, "rb", buffering=0) as file:
            copy = {"type": "http.response.zerocopysend", "file": file, "more_body": True}
            await send({**copy, "offset": 1, "count": 2})
            await send({**copy, "count": 3})
            await send({**copy, "more_body": False})
        trailers = {"type": "http.response.trailers"}
        await send({**trailers, "headers": [(b"t", b"1")], "more_trailers": True})
        await send({**trailers, "headers": [[b"u", b"2"]]})

    names = ("debug", "early_hint", "push", "zerocopysend", "trailers")
    extensions = {f"http.response.{name}": {"a": "parameter"} for name in names}
    response = run(HTTPCommunicator(app, extensions=extensions).get_response)
    assert response.body == b"12" + b"012" + b"3456789"
    assert response.trailers == [(b"t", b"1"), (b"u", b"2")]
    assert response.early_hints == [[b"</a>", b"</b>"]]
    assert response.pushes == [("/p", [(b"a", b"b")])]
    assert response.debug == {"template": "x"}


def test_a_path_is_a_whole_body(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    app = sends(START, {"type": "http.response.pathsend", "path": str(path)})
    assert run(HTTPCommunicator(app).get_response).body == b"content"


def test_trailers_that_nobody_offered_are_not_waited_for(run: Run) -> None:
    app = sends({**START, "trailers": True}, body(b"all"))
    assert run(HTTPCommunicator(app, extensions=()).get_response).complete


@pytest.mark.parametrize("given", [b"", b"all", [b"in", b"pieces"], []])
def test_a_complete_body_has_no_more_pieces(run: Run, given: Any) -> None:
    async def main() -> None:
        async with HTTPCommunicator(waits, "POST", body=given) as http:
            with pytest.raises(RuntimeError, match="make the communicator with body=None"):
                await http.send_body(b"more")

    run(main)


def test_a_body_by_hand_ends_once(run: Run) -> None:
    async def main() -> None:
        async with HTTPCommunicator(waits, "POST", body=None) as http:
            await http.send_body(b"a", more_body=True)
            await http.send_body(b"b")
            with pytest.raises(RuntimeError, match="the request's body is complete"):
                await http.send_body(b"c")

    run(main)


def test_a_client_that_left_sends_nothing_more(run: Run) -> None:
    async def main() -> None:
        async with HTTPCommunicator(waits, "POST", body=None) as http:
            await http.disconnect()
            with pytest.raises(RuntimeError, match="the client has left"):
                await http.send_body(b"more")

    run(main)


def test_a_body_that_crosses_the_response_is_lost(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        told.extend([await receive() for _ in range(20)])  # each gives way to the test

    told: list[Any] = []

    async def main() -> None:
        async with HTTPCommunicator(app, "POST", body=None) as http:
            await http.get_response()
            await http.send_body(b"on its way")

    run(main)
    assert {event["type"] for event in told} == {"http.disconnect"}


# ---------------------------------------------------------------- the end


def test_the_application_is_told_that_the_response_is_complete(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        told.extend([await receive(), await receive(), await receive()])

    told: list[Any] = []
    run(HTTPCommunicator(app).get_response)
    assert [event["type"] for event in told] == ["http.request", *["http.disconnect"] * 2]


def test_the_client_may_leave(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        told.extend([await receive(), await receive()])
        try:
            await send(body())
        except OSError as exc:
            told.append(exc)
            raise

    told: list[Any] = []

    async def main() -> None:
        async with HTTPCommunicator(app) as http:
            await http.get_start()
            await http.disconnect()

    run(main)
    assert told[1] == {"type": "http.disconnect"}
    assert isinstance(told[2], ClientDisconnected)


def test_a_block_that_ends_early_is_a_client_that_leaves(run: Run) -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        while True:
            await send(body(b"more", True))

    async def main() -> None:
        async with HTTPCommunicator(endless) as http:
            assert await http.get_body_part() == b"more"

    run(main)


class ClientDisconnect(Exception):
    """As Starlette has it."""


class WebSocketDisconnected(Exception):
    """As Falcon has it."""


class DatabaseDisconnected(Exception):
    """An application's own."""


async def told_by_receive(error: BaseException, scope: Any, receive: Any, send: Any) -> None:
    await waits(scope, receive, send)
    raise error


async def told_by_send(error: BaseException, scope: Any, receive: Any, send: Any) -> None:
    with contextlib.suppress(OSError):
        while True:
            await send({"type": "http.response.early_hint", "links": []})
    raise error


async def caused_by_send(error: BaseException, scope: Any, receive: Any, send: Any) -> None:
    await waits(scope, receive, send)
    try:
        await send(START)
    except OSError as exc:
        raise error from exc


async def caused_by_its_own(error: BaseException, scope: Any, receive: Any, send: Any) -> None:
    await waits(scope, receive, send)
    raise RuntimeError("gone") from error


async def before_it_was_told(error: BaseException, scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise error


async def leave(app: Any) -> None:
    async with HTTPCommunicator(app) as http:
        await http.receive_nothing(NOW)


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (told_by_receive, ClientDisconnect()),
        (told_by_receive, WebSocketDisconnected()),
        (told_by_receive, BaseExceptionGroup("", [ClientDisconnect(), WebSocketDisconnected()])),
        (told_by_send, ClientDisconnect()),
        (caused_by_its_own, ClientDisconnect()),
        (caused_by_send, DatabaseDisconnected()),
        (caused_by_send, RuntimeError("gone")),
    ],
)
def test_frameworks_have_their_own_for_a_client_that_left(run: Run, app: Any, error: Any) -> None:
    run(lambda: leave(functools.partial(app, error)))


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (before_it_was_told, ClientDisconnect()),
        (told_by_receive, DatabaseDisconnected()),
        (told_by_send, DatabaseDisconnected()),
        (caused_by_its_own, DatabaseDisconnected()),
        (told_by_receive, BaseExceptionGroup("", [ClientDisconnect(), RuntimeError("no")])),
    ],
)
def test_another_error_is_none_of_a_client_that_left(run: Run, app: Any, error: Any) -> None:
    async def main() -> None:
        async with HTTPCommunicator(functools.partial(app, error)):
            pass

    with pytest.raises(CommunicatorError, match="the application raised"):
        run(main)


def test_an_error_after_the_response_may_be_called_as_it_likes(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        raise DatabaseDisconnected

    with pytest.raises(CommunicatorError, match="DatabaseDisconnected"):
        run(HTTPCommunicator(app).get_response)


def test_an_exception_of_the_test_cancels_the_application(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            await receive()
        except BaseException as exc:
            seen.append(type(exc).__name__)
            raise

    seen: list[str] = []

    async def main() -> None:
        async with HTTPCommunicator(app) as http:
            assert await http.receive_nothing(NOW)
            raise LookupError("of the test")

    with pytest.raises(LookupError, match="of the test"):  # and no group of it
        run(main)
    assert seen in (["CancelledError"], ["Cancelled"])


def test_the_application_does_not_see_the_tests_context(run: Run) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="nothing")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(variable.get().encode()))

    async def main() -> None:
        variable.set("the test's")
        assert (await HTTPCommunicator(app).get_response()).body == b"nothing"

    run(main)


def test_the_application_may_use_its_own_tasks(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if "trio" in sys.modules and trio.lowlevel.in_trio_task():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waits, scope, receive, send)
                await hello(scope, receive, send)
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(waits(scope, receive, send))
                await hello(scope, receive, send)

    assert run(HTTPCommunicator(app).get_response).status == 200


# ---------------------------------------------------------------- explanations


async def _raises(scope: Any, receive: Any, send: Any) -> None:
    raise LookupError("no such thing")


async def _raises_later(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    raise LookupError("no such thing")


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (sends(), "the application returned without sending http.response.start"),
        (sends(START), "the application returned without sending http.response.body"),
        (
            sends({**START, "trailers": True}, body()),
            "the application returned without sending http.response.trailers",
        ),
        (
            sends(body(b"early")),
            "expected http.response.start, got http.response.body body b'early' more_body False",
        ),
        (sends(START, START), "expected http.response.body, got http.response.start status 200"),
        (
            sends({"type": "http.response.start"}),
            "the application sent http.response.start, which cannot be understood: "
            "KeyError('status')",
        ),
        (
            sends({**START, "headers": [("name", "value")]}),
            "the application sent http.response.start status 200 headers [('name', 'value')], "
            "which cannot be understood: TypeError(\"'name' is no bytes\")",
        ),
        (
            sends(START, {"type": "http.response.body", "body": 5}),
            "the application sent http.response.body body 5, which cannot be understood: "
            "TypeError('5 is no bytes')",
        ),
    ],
)
def test_what_the_application_did_instead_is_said(run: Run, app: Any, message: str) -> None:
    async def main() -> None:
        async with HTTPCommunicator(app) as http:
            await http.get_response()

    with pytest.raises(CommunicatorError) as caught:
        run(main)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("app", "event"),
    [(_raises, "http.response.start"), (_raises_later, "http.response.body")],
)
def test_the_applications_exception_is_the_cause(run: Run, app: Any, event: str) -> None:
    with pytest.raises(CommunicatorError) as caught:
        run(HTTPCommunicator(app).get_response)
    assert str(caught.value) == (
        f"the application raised LookupError('no such thing') instead of sending {event}"
    )
    assert isinstance(caught.value.__cause__, LookupError)


def test_an_exception_after_the_response_is_told_at_the_end(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        raise LookupError("in the background")

    with pytest.raises(CommunicatorError, match=r"LookupError.*in the background") as caught:
        run(HTTPCommunicator(app).get_response)
    assert isinstance(caught.value.__cause__, LookupError)


def test_an_exception_is_told_once(run: Run) -> None:
    async def main() -> None:
        async with HTTPCommunicator(_raises) as http:
            with pytest.raises(CommunicatorError):
                await http.receive_nothing()
            assert await http.receive_nothing()

    run(main)


def test_an_exit_of_the_application_is_the_tests() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        asyncio.run(HTTPCommunicator(app).get_response())


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"type": "websocket.accept"}, "'websocket.accept' is no message of an HTTP response"),
        ({"status": 200}, "an event is a dict with a 'type', not {'status': 200}"),
        ({"type": "http.response.push"}, "http.response.push was sent, but the extension"),
    ],
)
def test_the_application_learns_what_cannot_be_sent(run: Run, event: Any, message: str) -> None:
    with pytest.raises(CommunicatorError, match=message):
        run(HTTPCommunicator(sends(event)).get_response)


def test_a_timeout_says_where_the_application_is(run: Run) -> None:
    async def busy(scope: Any, receive: Any, send: Any) -> None:
        await (trio.sleep_forever() if trio.lowlevel.in_trio_task() else asyncio.Event().wait())

    async def main(app: Any) -> None:
        async with HTTPCommunicator(app) as http:
            with pytest.raises(TimeoutError):
                await http.get_response(NOW)
            await http.get_response(NOW)

    for app, where in ((waits, "it waits in receive()"), (busy, "it neither waits in receive()")):
        with pytest.raises(CommunicatorTimeout) as caught:
            run(functools.partial(main, app))
        assert str(caught.value).startswith(
            f"the application did not send http.response.start within 0.001 s: {where}"
        )


def test_an_application_that_does_not_return_is_cancelled_and_told(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await (trio.sleep_forever() if trio.lowlevel.in_trio_task() else asyncio.Event().wait())

    http = HTTPCommunicator(app, timeout=0.05)
    with pytest.raises(CommunicatorTimeout, match=r"did not return within 0.05 s after the client"):
        run(http.get_response)

    async def main() -> None:
        async with HTTPCommunicator(app) as http:
            await http.get_response()
            await http.cancel()  # the test knows

    run(main)


def test_an_application_that_cancels_itself_has_raised() -> None:
    """On trio nothing can be cancelled without a scope."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(CommunicatorError, match=r"raised CancelledError\(\) instead of sending"):
        asyncio.run(HTTPCommunicator(app).get_response())


def test_an_application_that_was_cancelled_before_it_began_has_ended() -> None:
    async def main() -> None:
        http = HTTPCommunicator(hello)
        await http.disconnect()  # starts it
        (task,) = asyncio.all_tasks() - {asyncio.current_task()}
        task.cancel()
        await asyncio.wait((task,))
        await http.cancel()

    asyncio.run(main())


def test_an_application_that_is_left_ends_with_the_test(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await waits(scope, receive, send)
        except BaseException as exc:
            seen.append(type(exc).__name__)
            raise

    seen: list[str] = []

    async def main() -> None:
        assert await HTTPCommunicator(app).receive_nothing(NOW)

    run(main)
    assert seen in (["CancelledError"], ["Cancelled"])


def test_an_application_that_cannot_be_cancelled_is_told() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                pass

    async def main() -> None:
        http = HTTPCommunicator(app, timeout=NOW)
        assert await http.receive_nothing(NOW)
        with pytest.raises(CommunicatorTimeout, match="let CancelledError"):
            await http.cancel()
        stop.set()

    stop = asyncio.Event()
    asyncio.run(main())


def test_an_application_that_sends_without_end_waits_for_the_test(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for number in range(1000):
            sent.append(number)
            await send(body(b"%d " % number, True))
        await send(body())

    sent: list[int] = []

    async def main() -> None:
        async with HTTPCommunicator(app) as http:
            assert not await http.receive_nothing()
            await http.get_start()
            assert await http.get_body_part() == b"0 "
            assert len(sent) < 100
            assert (await http.get_response()).body.split()[-1] == b"999"

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has no eager tasks")
def test_the_application_may_start_at_once() -> None:
    async def main() -> None:
        factory = asyncio.eager_task_factory  # type: ignore[attr-defined, unused-ignore]
        asyncio.get_running_loop().set_task_factory(factory)
        for app, body in ((hello, "hëllo".encode()), (echo, b"abc")):
            response = await HTTPCommunicator(app, "POST", body=b"abc").get_response()
            assert response.body == body
        with pytest.raises(CommunicatorError, match="no such thing"):
            await HTTPCommunicator(_raises).get_response()

    asyncio.run(main())
