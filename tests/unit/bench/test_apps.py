from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from bench import apps
from bench.cases import CASES, MARK, Case, Way

SERVED = [
    case
    for case in CASES
    if case.message is None and case.app not in ("sleep", "wsgi") and case.module == apps.__name__
]
DJANGO = [case for case in CASES if case.module == "bench.django_toolkit"]


def call(case: Case) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    half = len(case.request.body) // 2
    events = [
        {"type": "http.request", "body": case.request.body[:half], "more_body": True},
        {"type": "http.request", "body": case.request.body[half:], "more_body": False},
    ]

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [
        (name.lower().encode(), value.replace(MARK, "1").encode())
        for name, value in case.request.headers
    ]
    asyncio.run(getattr(apps, case.app)({"type": "http", "headers": headers}, receive, send))
    return sent


@pytest.mark.parametrize("case", SERVED, ids=lambda case: case.name)
def test_the_application_gives_the_answer_that_the_case_expects(case: Case) -> None:
    start, *bodies = call(case)

    assert start["status"] == case.status
    assert b"".join(message["body"] for message in bodies) == case.body
    assert not bodies[-1].get("more_body", False)
    lengths = [int(value) for name, value in start["headers"] if name == b"content-length"]
    assert lengths == ([] if case.name == "stream" else [len(case.body)])


def test_the_wsgi_application_gives_the_greeting() -> None:
    started: list[tuple[str, list[tuple[str, str]]]] = []

    body = b"".join(apps.wsgi({}, lambda *given: started.append(given)))

    assert body == apps.GREETING
    assert started == [("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])]
    assert {case.body for case in CASES if case.app == "wsgi"} == {body}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_wsgi_applications_are_reached_by_wsgi_alone(case: Case) -> None:
    assert (case.app == "wsgi") == (case.way is Way.WSGI)


@pytest.mark.parametrize("module", ["bench.django_toolkit", "bench.django_site"])
def test_the_django_site_answers_on_the_toolkit_and_on_asgiref(module: str) -> None:
    """In a process of its own: the toolkit takes asgiref's place for good."""
    pytest.importorskip("django")
    assert len(DJANGO) == 2
    code = f"""if True:
        import asyncio, importlib, sys
        from omnicorn.toolkit.testing import HTTPCommunicator
        site = importlib.import_module({module!r})

        async def main():
            for target in {[case.request.target for case in DJANGO]}:
                response = await HTTPCommunicator(site.application, "GET", target).get_response()
                assert (response.status, response.body) == (200, {DJANGO[0].body!r}), response

        asyncio.run(main())
        print(sys.modules["asgiref.sync"].__name__)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    name = "omnicorn.toolkit.sync" if "toolkit" in module else "asgiref.sync"
    assert done.stdout.strip() == name, done.stderr


def test_the_document_is_about_a_kilobyte() -> None:
    assert 900 <= len(apps.DOCUMENT) <= 1100


@pytest.mark.parametrize("name", ["browser", "unique"])
def test_the_browser_gets_four_headers(name: str) -> None:
    start = call(next(case for case in CASES if case.name == name))[0]
    assert len(start["headers"]) == 4


def test_a_unique_response_has_the_number_of_its_request() -> None:
    start = call(next(case for case in CASES if case.name == "unique"))[0]

    assert len(start["headers"]) == 4
    assert (b"x-request-id", b"5f1c7b3e-9d2a-4c61-a1") in start["headers"]


def test_the_stream_is_twenty_chunks_and_an_empty_end() -> None:
    sent = call(next(case for case in CASES if case.name == "stream"))

    assert [len(message["body"]) for message in sent[1:]] == [1024] * 20 + [0]


class Socket:
    """One WebSocket as an application sees it: what a test tells it, and what it sent."""

    def __init__(self, app: apps.App, path: str = "/") -> None:
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.tell("websocket.connect")
        self.task = asyncio.create_task(
            app({"type": "websocket", "path": path}, self.told.get, self.send)
        )

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def tell(self, what: str, **rest: Any) -> None:
        self.told.put_nowait({"type": what, **rest})

    async def end(self) -> None:
        self.tell("websocket.disconnect", code=1000)
        await self.task


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_echo_gives_text_for_text_and_bytes_for_bytes() -> None:
    async def scenario() -> list[dict[str, Any]]:
        socket = Socket(apps.echo)
        socket.tell("websocket.receive", text="é")
        socket.tell("websocket.receive", text="", bytes=None)
        socket.tell("websocket.receive", bytes=b"\xff")
        socket.tell("websocket.receive", text=None, bytes=b"")
        await socket.end()
        return socket.sent

    assert asyncio.run(scenario()) == [
        {"type": "websocket.accept"},
        {"type": "websocket.send", "text": "é"},
        {"type": "websocket.send", "text": ""},
        {"type": "websocket.send", "bytes": b"\xff"},
        {"type": "websocket.send", "bytes": b""},
    ]


def test_what_the_speaker_says_goes_to_all_listeners_that_are_still_there() -> None:
    async def scenario() -> tuple[list[dict[str, Any]], ...]:
        speaker, leaver, *stayers = (
            Socket(apps.room, path) for path in (apps.SPEAKER, "/", "/", "/")
        )
        await settle()
        speaker.tell("websocket.receive", text="first")
        await settle()
        await leaver.end()
        speaker.tell("websocket.receive", text="second")
        for socket in (speaker, *stayers):
            await socket.end()
        return tuple(socket.sent[1:] for socket in (speaker, leaver, *stayers))

    first, second = ({"type": "websocket.send", "text": text} for text in ("first", "second"))
    assert asyncio.run(scenario()) == ([], [first], [first, second], [first, second])
    assert apps.listeners == set()


@pytest.mark.parametrize("app", [apps.echo, apps.room])
def test_applications_of_sockets_take_part_in_the_lifespan(app: apps.App) -> None:
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    asyncio.run(app({"type": "lifespan"}, receive, send))

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
