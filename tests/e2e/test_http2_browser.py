"""HTTP/2 of a real browser: Debian's Chromium, without a window, driven by Playwright.

Browsers speak HTTP/2 over TLS alone. The certificate is of an authority that the browser does
not know and is told not to mind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Serve, ServerProcess

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("pki")
    certfile, keyfile = Authority().issue("localhost", "127.0.0.1").save(folder, "server")
    return "--ssl-certfile", certfile, "--ssl-keyfile", keyfile


@pytest.fixture(scope="module")
def server(serve_module: Serve, tls: tuple[str, ...]) -> ServerProcess:
    return serve_module("h2_plain:app", "--no-access-log", *tls)


@pytest.fixture(scope="module")
def empty(browser: Any, server: ServerProcess) -> Iterator[Any]:
    """An empty page of the server, for scripts to run in."""
    page = browser.new_page()
    page.goto(f"{server.addresses[0]}/page")
    yield page
    page.close()


@pytest.fixture
def run(empty: Any) -> Callable[..., Any]:
    """Runs the body of an asynchronous function; returns what it returns."""

    def run_script(script: str, argument: object = None) -> Any:
        return empty.evaluate(f"async argument => {{ {script} }}", argument)

    return run_script


@pytest.fixture
def talk(run: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a script with ``socket``, ``message()`` and ``closed`` at hand."""

    def run_script(script: str, target: str) -> Any:
        return run(
            f"""
                const url = location.origin.replace("https", "wss") + argument;
                const socket = new WebSocket(url);
                socket.binaryType = "arraybuffer";
                const messages = [], waiting = [];
                socket.onmessage = ({{data}}) =>
                    waiting.length ? waiting.shift()(data) : messages.push(data);
                const message = async () =>
                    messages.length ? messages.shift() : new Promise(done => waiting.push(done));
                const closed = new Promise(done => {{
                    socket.onclose = ({{code, reason, wasClean}}) => done([code, reason, wasClean]);
                }});
                await new Promise(done => {{ socket.onopen = socket.onerror = done }});
                try {{ return await (async () => {{ {script} }})() }} finally {{ socket.close() }}
            """,
            target,
        )

    return run_script


# ------------------------------------------------------------------------------- requests


def test_a_page_and_a_hundred_images_come_over_http_2(browser: Any, server: ServerProcess) -> None:
    page = browser.new_page()
    page.goto(f"{server.addresses[0]}/page?n=100")

    protocols, shown = page.evaluate(
        """() => [
            [...performance.getEntriesByType("navigation"),
             ...performance.getEntriesByType("resource").filter(e => e.name.includes("/image"))]
                .map(entry => entry.nextHopProtocol),
            [...document.images].filter(image => image.complete && image.naturalWidth === 1).length,
        ]"""
    )

    assert protocols == ["h2"] * 101
    assert shown == 100
    page.close()


def test_fetch_uploads_what_it_has(run: Callable[..., Any]) -> None:
    script = """
        const content = new Uint8Array(3_000_000).map((_, at) => at);
        const response = await fetch("/echo", {method: "POST", body: content});
        const back = new Uint8Array(await response.arrayBuffer());
        return [back.length, back.every((byte, at) => byte === content[at])];
    """
    assert run(script) == [3_000_000, True]


def test_fetch_uploads_as_it_goes(run: Callable[..., Any]) -> None:
    """Chromium streams requests over HTTP/2 alone."""
    script = """
        let left = 100;
        const body = new ReadableStream({
            pull(out) { left-- ? out.enqueue(new Uint8Array(10_000)) : out.close() }
        });
        return (await fetch("/count", {method: "POST", body, duplex: "half"})).text();
    """
    assert run(script) == "1000000"


def test_fetch_reads_as_it_comes(run: Callable[..., Any]) -> None:
    script = """
        const reader = (await fetch("/stream?n=500&size=4000")).body.getReader();
        let size = 0, pieces = 0;
        for (let part; !(part = await reader.read()).done; pieces++) size += part.value.length;
        return [size, pieces > 1];
    """
    assert run(script) == [2_000_000, True]


def test_many_fetches_at_once_are_answered(run: Callable[..., Any]) -> None:
    script = """
        const ask = async index => (await fetch(`/numbered?${index}`)).text();
        return Promise.all([...Array(150).keys()].map(ask));
    """
    assert run(script) == [str(index) for index in range(150)]


def test_a_fetch_that_is_aborted_is_seen_by_the_application(
    run: Callable[..., Any], server: ServerProcess
) -> None:
    seen = len(server.matching("endless saw http.disconnect"))
    script = """
        const abort = new AbortController();
        const reader = (await fetch("/endless", {signal: abort.signal})).body.getReader();
        const first = new TextDecoder().decode((await reader.read()).value);
        abort.abort();
        return [first, await (await fetch("/version")).text()];
    """
    first, version = run(script)

    assert first.startswith("tick") and version == "2"
    server.wait_for("endless saw http.disconnect", seen + 1, seconds=5)


def test_a_download_that_nobody_reads_keeps_no_other_waiting(run: Callable[..., Any]) -> None:
    script = """
        const abort = new AbortController();
        const stalled = await Promise.all([...Array(5).keys()].map(
            () => fetch("/flood", {signal: abort.signal})));
        const answer = await (await fetch("/stream?n=100&size=1000")).text();
        abort.abort();
        return [stalled.length, answer.length];
    """
    assert run(script) == [5, 100_000]


# ------------------------------------------------------------------------------ WebSockets


def test_a_websocket_is_inside_http_2(talk: Callable[..., Any]) -> None:
    script = "const {http_version, scheme} = JSON.parse(await message());"

    assert talk(script + "return [http_version, scheme]", "/scope") == ["2", "wss"]


def test_text_and_binary_come_back(talk: Callable[..., Any]) -> None:
    script = """
        socket.send("añ€😀");
        socket.send(new Uint8Array([0, 255, 128]));
        return [await message(), [...new Uint8Array(await message())]];
    """
    assert talk(script, "/echo") == ["añ€😀", [0, 255, 128]]


def test_large_messages_come_back_while_pages_load(talk: Callable[..., Any]) -> None:
    script = """
        const noise = new Uint8Array(1_000_000);
        for (let at = 0; at < noise.length; at += 50_000)
            crypto.getRandomValues(noise.subarray(at, at + 50_000));
        socket.send(noise);
        socket.send("one more".repeat(100_000));
        const texts = await Promise.all([...Array(20).keys()].map(
            async index => (await fetch(`/numbered?${index}`)).text()));
        const back = new Uint8Array(await message());
        return [
            socket.extensions.split(";")[0],
            back.length === noise.length && back.every((byte, at) => byte === noise[at]),
            (await message()).length,
            texts.length,
        ];
    """
    assert talk(script, "/echo") == ["permessage-deflate", True, 800_000, 20]


def test_a_page_sees_why_the_server_closed(talk: Callable[..., Any]) -> None:
    ended = talk("socket.send('go'); return closed", "/close?code=4002&reason=%C3%A9nough")

    assert ended == [4002, "énough", True]


def test_an_application_sees_why_the_page_closed(
    talk: Callable[..., Any], server: ServerProcess
) -> None:
    ended = talk("socket.close(4100, 'had enough'); return closed", "/echo?tag=closed+by+the+page")

    assert ended[0] == 4100 and ended[2]
    server.wait_for(r"disconnected 4100 'had enough' \[closed by the page\]")


@pytest.mark.parametrize("target", ["/deny", "/deny-response"])
def test_a_denial_is_1006(talk: Callable[..., Any], target: str) -> None:
    assert talk("return closed", target) == [1006, "", False]


def test_a_page_that_is_left_is_1006(browser: Any, server: ServerProcess) -> None:
    """Of its own TCP connection Chromium says 1001 first; a stream it just resets."""
    page = browser.new_page()
    page.goto(f"{server.addresses[0]}/page")
    page.evaluate("""() => new Promise(done => {
        window.kept = new WebSocket(location.origin.replace("https", "wss") + "/echo?tag=left");
        window.kept.onopen = done;
    })""")

    page.goto("about:blank")

    server.wait_for(r"disconnected 1006 '' \[left\]", seconds=5)
    page.close()


def test_a_server_that_stops_closes_with_1012(
    serve: Serve, browser: Any, tls: tuple[str, ...]
) -> None:
    server = serve("h2_plain:app", "--no-access-log", *tls)
    page = browser.new_page()
    page.goto(f"{server.addresses[0]}/page")
    page.evaluate("""() => new Promise(done => {
        const socket = new WebSocket(location.origin.replace("https", "wss") + "/echo?tag=stopped");
        window.ended = new Promise(ended => { socket.onclose = ended });
        socket.onopen = done;
    })""")

    assert server.stop() == 0

    ended = page.evaluate("async () => { const e = await ended; return [e.code, e.wasClean] }")
    assert ended == [1012, True]
    server.wait_for(r"disconnected 1012 .* \[stopped\]")
    page.close()
