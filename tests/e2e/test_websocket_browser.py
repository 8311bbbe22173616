"""WebSockets of a real browser: Debian's Chromium, without a window, driven by Playwright.

Scripts run in an empty page that the server itself has served, and give back what they saw.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Serve, ServerProcess

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module("ws_plain:app", "--no-access-log")


@pytest.fixture(scope="module")
def empty(browser: Any, server: ServerProcess) -> Any:
    page = browser.new_page()
    page.goto(f"{server.url}/page")
    return page


@pytest.fixture
def run(empty: Any, server: ServerProcess) -> Callable[..., Any]:
    """Runs a script with ``socket``, ``opened``, ``message()`` and ``closed`` at hand."""

    def run_script(script: str, target: str, server: ServerProcess = server) -> Any:
        url = f"ws://127.0.0.1:{server.port}{target}"
        return empty.evaluate(
            """async ([url, script]) => {
                const socket = new WebSocket(url, url.match(/subprotocol/) ? ["one", "two"] : []);
                socket.binaryType = "arraybuffer";
                const events = [], messages = [], waiting = [];
                socket.onmessage = ({data}) =>
                    waiting.length ? waiting.shift()(data) : messages.push(data);
                const message = async () =>
                    messages.length ? messages.shift() : new Promise(done => waiting.push(done));
                const opened = new Promise(done => {
                    socket.onopen = () => { events.push("open"); done() };
                });
                socket.onerror = () => events.push("error");
                const closed = new Promise(done => {
                    socket.onclose = ({code, reason, wasClean}) => {
                        events.push("close");
                        done({code, reason, wasClean, events: events.join(" ")});
                    };
                });
                const names = ["socket", "opened", "message", "closed"];
                const body = `return (async () => { ${script} })()`;
                const result = await new Function(...names, body)(socket, opened, message, closed);
                socket.close();
                return result;
            }""",
            [url, script],
        )

    return run_script


def test_text_and_binary_come_back(run: Callable[..., Any]) -> None:
    script = """
        await opened;
        socket.send("añ€😀");
        socket.send(new Uint8Array([0, 255, 128]));
        socket.send(new Blob(["a blob"]));
        const first = await message();
        const bytes = [...new Uint8Array(await message())];
        return [first, bytes, new TextDecoder().decode(await message())];
    """
    assert run(script, "/echo") == ["añ€😀", [0, 255, 128], "a blob"]


def test_large_messages_are_compressed_and_come_back(run: Callable[..., Any]) -> None:
    script = """
        await opened;
        const text = "add one to the last ".repeat(100_000);
        const noise = new Uint8Array(1_000_000);
        for (let at = 0; at < noise.length; at += 50_000)
            crypto.getRandomValues(noise.subarray(at, at + 50_000));
        socket.send(text);
        socket.send(noise);
        socket.send(text);
        const same = [await message() === text];
        const back = new Uint8Array(await message());
        same.push(back.length === noise.length && back.every((byte, at) => byte === noise[at]));
        same.push(await message() === text);
        return [socket.extensions, same];
    """
    extensions, same = run(script, "/echo")

    assert "permessage-deflate" in extensions
    assert same == [True, True, True]


def test_a_subprotocol_is_agreed_on(run: Callable[..., Any]) -> None:
    script = "await opened; return [socket.protocol, await message()]"

    assert run(script, "/second-subprotocol") == ["two", "two"]


def test_a_page_sees_why_the_server_closed(run: Callable[..., Any]) -> None:
    script = "await opened; socket.send('go'); return closed"

    assert run(script, "/close?code=4002&reason=%C3%A9nough") == {
        "code": 4002,
        "reason": "énough",
        "wasClean": True,
        "events": "open close",
    }


def test_a_page_sees_an_application_that_returns(run: Callable[..., Any]) -> None:
    ended = run("return closed", "/return")

    assert (ended["code"], ended["wasClean"], ended["events"]) == (1000, True, "open close")


def test_an_application_sees_why_the_page_closed(
    run: Callable[..., Any], server: ServerProcess
) -> None:
    script = "await opened; socket.close(4100, 'had enough'); return closed"

    ended = run(script, "/echo?tag=closed+by+the+page")

    assert (ended["code"], ended["wasClean"]) == (4100, True)
    server.wait_for(r"disconnected 4100 'had enough' \[closed by the page\]")


@pytest.mark.parametrize("target", ["/deny", "/deny-response"])
def test_a_denial_is_an_error_and_1006(run: Callable[..., Any], target: str) -> None:
    assert run("return closed", target) == {
        "code": 1006,
        "reason": "",
        "wasClean": False,
        "events": "error close",
    }


def test_a_page_that_is_left_is_1001(browser: Any, server: ServerProcess) -> None:
    page = browser.new_page()
    page.goto(f"{server.url}/page")
    page.evaluate("""() => new Promise(done => {
        window.kept = new WebSocket(location.origin.replace("http", "ws") + "/echo?tag=left");
        window.kept.onopen = done;
    })""")

    page.goto("about:blank")

    server.wait_for(r"disconnected 1001 '' \[left\]")
    page.close()


def test_a_server_that_stops_closes_with_1012(serve: Serve, browser: Any) -> None:
    server = serve("ws_plain:app", "--no-access-log")
    page = browser.new_page()
    page.goto(f"{server.url}/page")
    page.evaluate("""() => new Promise(done => {
        const socket = new WebSocket(location.origin.replace("http", "ws") + "/echo?tag=stopped");
        window.ended = new Promise(ended => { socket.onclose = ended });
        socket.onopen = done;
    })""")

    assert server.stop() == 0

    ended = page.evaluate("async () => { const e = await ended; return [e.code, e.wasClean] }")
    assert ended == [1012, True]
    server.wait_for(r"disconnected 1012 .* \[stopped\]")
    page.close()


# ----------------------------------------------------------------------- examples/chat.py


def serve_chat(serve: Serve, *options: str) -> ServerProcess:
    return serve("chat:app", "--app-dir", str(EXAMPLES), *options)


def enter(page: Any, name: str) -> None:
    field = page.get_by_placeholder("Your name")
    field.fill(name)
    field.press("Enter")  # a click would wait for frames, of which a page behind another has few


def say(page: Any, text: str) -> None:
    field = page.get_by_placeholder("Say something")
    field.fill(text)
    field.press("Enter")


def test_two_pages_chat(serve: Serve, browser: Any) -> None:
    server = serve_chat(serve)
    ada, bob = browser.new_page(), browser.new_page()
    for page in (ada, bob):
        page.goto(server.url)
    expect = playwright.expect

    enter(ada, "Ada")
    expect(ada.get_by_role("log")).to_contain_text("Hello, Ada!")
    say(ada, "Anybody <b>here</b>?")
    enter(bob, "Ada")
    expect(bob.get_by_role("log")).to_contain_text("Somebody of that name is here already.")
    enter(bob, "Bob 😀")
    said = bob.locator(".said")
    expect(said.locator("p")).to_have_text(["Anybody <b>here</b>?"])  # as it was written
    expect(said.locator("b")).to_have_text(["Ada"])
    expect(ada.locator("#here")).to_have_text("Ada, Bob 😀")
    say(bob, "Me.")
    expect(ada.locator(".said p")).to_have_text(["Anybody <b>here</b>?", "Me."])
    expect(ada.locator(".mine p")).to_have_text(["Anybody <b>here</b>?"])
    expect(bob.locator(".mine p")).to_have_text(["Me."])

    bob.close()
    expect(ada.get_by_role("log")).to_contain_text("Bob 😀 left")
    expect(ada.locator("#here")).to_have_text("Ada")
    ada.close()


def test_a_chatting_page_comes_back_to_a_server_that_restarts(serve: Serve, browser: Any) -> None:
    server = serve_chat(serve)
    page = browser.new_page()
    page.goto(server.url)
    enter(page, "Ada")
    playwright.expect(page.locator("#state")).to_have_class("open")

    assert server.stop() == 0
    playwright.expect(page.get_by_role("log")).to_contain_text("trying again")
    serve_chat(serve, "--port", str(server.port))

    playwright.expect(page.locator("#state")).to_have_class("open")
    say(page, "Still here?")
    playwright.expect(page.locator(".mine p")).to_have_text(["Still here?"])
    page.close()


def test_pages_of_others_may_not_chat(serve: Serve, run: Callable[..., Any]) -> None:
    server = serve_chat(serve)

    ended = run("return closed", "/?name=Eve", server)

    assert ended["code"] == 1006
    server.wait_for(r'"GET /\?name=Eve HTTP/1\.1" 403')
