"""HTTP/2 on real sockets: curl, nghttp, h2load, httpx, and a client that sees every frame.

What this file alone decides: `Peer` is hyper's `h2` on a socket, so that what a test says is
what is sent; where a client has to break the rules, it sends frames of its own making. Each
server here keeps what `test_faults` asks of one: it answers, it is quiet, it has not grown.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import httpx
import pytest
from tests.certificates import Authority
from tests.frames import CLOSE, TEXT, closing, frames
from tests.frames import text as text_frame

pytest.importorskip("h2", reason="h2 is not installed (pip install 'httpx[http2]')")

from h2 import events as h2_events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from conftest import Serve, ServerProcess, Wire

    Curl = Callable[..., subprocess.CompletedProcess[str]]
    Tool = Callable[..., str]

E = TypeVar("E", bound=h2_events.Event)

MB = 1 << 20

PRIOR = "--http2-prior-knowledge"

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Peer:
    """A client that speaks HTTP/2 on a connected socket, and reads when it is told to."""

    def __init__(self, sock: socket.socket, **settings: int) -> None:
        sock.settimeout(5)
        self.sock = sock
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        if settings:
            values = {SettingCodes[name]: value for name, value in settings.items()}
            self.h2.local_settings = Settings(client=True, initial_values=values)
        self.events: list[h2_events.Event] = []
        self.closed = False
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def ask(
        self, path: str, method: str = "GET", *fields: tuple[str, str], end: bool = True
    ) -> int:
        """Begin a request; returns its stream."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", "e2e"), (":path", path)]
        self.h2.send_headers(stream, [*head, *fields], end_stream=end)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes = b"", end: bool = False) -> None:
        """Send content, as the windows allow."""
        at = 0
        while at < len(data):
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room:
                self.h2.send_data(stream, data[at : at + room])
                at += room
                self.flush()
            else:
                self.read()
        if end:
            self.h2.end_stream(stream)
            self.flush()

    def read(self) -> None:
        """Wait for bytes, and take in what they say; content is acknowledged."""
        assert not self.closed, f"the server has closed after {self.events[-3:]}"
        data = self.sock.recv(1 << 18)
        self.closed = not data
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2_events.DataReceived) and event.flow_controlled_length:
                try:
                    self.h2.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id or 0
                    )
                except StreamClosedError:
                    pass
        self.flush()

    def seen(self, kind: type[E], stream: int | None = None) -> list[E]:
        return [
            event
            for event in self.events
            if isinstance(event, kind)
            and (stream is None or getattr(event, "stream_id", None) == stream)
        ]

    def wait(self, kind: type[E], stream: int | None = None) -> E:
        """The first event of a kind, which may have come already."""
        while not (found := self.seen(kind, stream)):
            self.read()
        return found[0]

    def head(self, stream: int) -> dict[str, str]:
        headers = self.wait(h2_events.ResponseReceived, stream).headers
        return {str(name): str(value) for name, value in headers}

    def content(self, stream: int) -> bytes:
        """What has come."""
        return b"".join(event.data or b"" for event in self.seen(h2_events.DataReceived, stream))

    def answer(self, stream: int) -> Answer:
        """A whole response."""
        while not self.seen(h2_events.StreamEnded, stream):
            assert not self.seen(h2_events.StreamReset, stream), "the response was reset"
            self.read()
        head = self.head(stream)
        return Answer(int(head[":status"]), head, self.content(stream))

    def get(self, path: str) -> Answer:
        return self.answer(self.ask(path))

    def reset(self, stream: int, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        self.h2.reset_stream(stream, code)
        self.flush()

    def end(self) -> h2_events.ConnectionTerminated | None:
        """Read until the server closes; returns its last GOAWAY."""
        while not self.closed:
            self.read()
        goaways = self.seen(h2_events.ConnectionTerminated)
        return goaways[-1] if goaways else None


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module("h2_plain:app", "--no-access-log")


@pytest.fixture
def peer(server: ServerProcess) -> Iterator[Peer]:
    with Peer(server.connect().sock) as peer:
        yield peer


def tool(name: str) -> Tool:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install nghttp2-client)")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [program, *arguments], capture_output=True, check=False, timeout=40, text=True
        )
        assert done.returncode == 0, f"{name} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def nghttp() -> Tool:
    return tool("nghttp")


@pytest.fixture
def h2load() -> Callable[..., int]:
    """Runs h2load, every request of which must succeed; returns the bytes of their content."""
    run = tool("h2load")

    def load(*arguments: str, requests: int) -> int:
        told = run("-n", str(requests), *arguments)
        assert f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in told, told
        assert f"status codes: {requests} 2xx" in told, told
        content = re.search(r"\((\d+)\) data", told)
        assert content is not None
        return int(content[1])

    return load


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 5 MB."""
    path = tmp_path_factory.mktemp("content") / "large"
    path.write_bytes(bytes(range(250)) * 20_000)
    return path


# ---------------------------------------------------------------------------------- curl


def test_curl_gets_a_page_by_prior_knowledge(server: ServerProcess, curl: Curl) -> None:
    done = curl("-i", PRIOR, server.url)

    assert done.stdout.startswith("HTTP/2 200 \r\ncontent-type: text/plain\r\n")
    assert "\r\nserver: omnicorn\r\ndate: " in done.stdout
    assert done.stdout.endswith("\r\n\r\nhello")


def test_curl_upgrades_and_goes_on_with_the_same_connection(
    server: ServerProcess, curl: Curl
) -> None:
    urls = [f"{server.url}/version", f"{server.url}/numbered?second"]
    done = curl("-v", "--http2", "-w", " %{http_version} %{num_connects}\n", *urls)

    assert "< HTTP/1.1 101 Switching Protocols" in done.stderr
    assert done.stderr.count("< HTTP/2 200") == 2
    assert done.stdout == "2 2 1\nsecond 2 0\n"


def test_an_upgrade_with_content_is_answered_as_http_1(server: ServerProcess, curl: Curl) -> None:
    done = curl(
        "-v", "--http2", "--data", "content", "-w", " %{http_version}", f"{server.url}/echo"
    )

    assert "> Upgrade: h2c" in done.stderr
    assert done.stdout == "content 1.1"


def test_curl_head_gets_the_head_alone(server: ServerProcess, curl: Curl) -> None:
    done = curl(PRIOR, "--head", server.url)

    assert done.stdout.startswith("HTTP/2 200 ")
    assert "\r\ncontent-length: 5\r\n" in done.stdout


def test_curl_posts(server: ServerProcess, curl: Curl) -> None:
    assert curl(PRIOR, "--data", "a body", f"{server.url}/echo").stdout == "a body"
    assert curl(PRIOR, "--data", "", f"{server.url}/echo").stdout == ""


def test_curl_uploads_five_megabytes(server: ServerProcess, curl: Curl, large: Path) -> None:
    assert curl(PRIOR, "-T", str(large), f"{server.url}/count").stdout == "5000000"
    chunked = curl(PRIOR, "-T", "-", f"{server.url}/count", content=large.read_bytes())
    assert chunked.stdout == "5000000"  # of a length that was not announced


def test_curl_gets_back_what_it_sent(server: ServerProcess, curl: Curl, large: Path) -> None:
    done = curl(PRIOR, "-T", str(large), f"{server.url}/echo")

    assert done.stdout.encode("latin-1") == large.read_bytes()


def test_curl_downloads_slowly(server: ServerProcess, curl: Curl) -> None:
    done = curl(PRIOR, "--limit-rate", "8M", f"{server.url}/flood?size={2 * MB}")

    assert done.stdout == "x" * 2 * MB


def test_curl_downloads_a_file(server: ServerProcess, curl: Curl, large: Path) -> None:
    done = curl(PRIOR, f"{server.url}/file?{large}")

    assert done.stdout.encode("latin-1") == large.read_bytes()


def test_curl_sees_trailers(server: ServerProcess, curl: Curl) -> None:
    done = curl(PRIOR, "-i", f"{server.url}/trailers")

    assert "\r\ntrailer: x-sum, x-done\r\n" in done.stdout
    assert done.stdout.endswith("\r\n\r\none twox-sum: 7\r\nx-done: yes\r\n")


def test_curl_sees_early_hints(server: ServerProcess, curl: Curl) -> None:
    done = curl(PRIOR, "-i", f"{server.url}/hints")

    first, _, rest = done.stdout.partition("\r\n\r\n")
    assert first.split("\r\n") == [
        "HTTP/2 103 ",
        "link: </style.css>; rel=preload; as=style",
        "link: </app.js>; rel=preload; as=script",
    ]
    assert rest.startswith("HTTP/2 200 ") and rest.endswith("\r\n\r\nhinted")


def test_curl_gets_an_answer_that_did_not_wait_for_its_upload(
    server: ServerProcess, curl: Curl, large: Path
) -> None:
    done = curl(PRIOR, "-T", str(large), "-w", " %{http_code}", f"{server.url}/early")

    assert done.stdout == "too much for me 413"


def test_httpx_gets_an_answer_that_did_not_wait_for_its_upload(server: ServerProcess) -> None:
    own: dict[str, Any] = {"http1": False, "http2": True, "trust_env": False, "timeout": 1}
    with httpx.Client(base_url=server.url, **own) as client:
        response = client.post("/early", content=bytes(300_000))

    assert (response.status_code, response.text) == (413, "too much for me")


# ------------------------------------------------------------------------------- nghttp


def frames_of(told: str) -> list[str]:
    """``recv HEADERS 13`` for each line of nghttp that tells of a frame."""
    pattern = r"(send|recv) (\w+) frame <length=\d+, flags=0x\w+, stream_id=(\d+)>"
    return [" ".join(found) for found in re.findall(pattern, told)]


def test_nghttp_is_promised_what_it_then_gets(server: ServerProcess, nghttp: Tool) -> None:
    told = nghttp("-v", f"{server.url}/push")

    received = [frame for frame in frames_of(told) if frame.startswith("recv ")][3:]
    # Each response is one piece; which comes first depends on when tasks start.
    asked = int(received[0].rpartition(" ")[2])  # 13, or in newer releases 1
    assert received[0] == f"recv PUSH_PROMISE {asked}"
    assert sorted(received) == sorted(
        [f"recv PUSH_PROMISE {asked}"] * 2
        + [f"recv {kind} {stream}" for stream in (asked, 2, 4) for kind in ("HEADERS", "DATA")]
    )
    for stream in (asked, 2, 4):
        head = received.index(f"recv HEADERS {stream}")
        assert received[head + 1] == f"recv DATA {stream}"
    assert f"(stream_id={asked}) :path: /numbered?pushed-1" in told
    assert "pushed-0[" in told and "pushed-1[" in told  # content is printed between the frames


def test_nothing_is_pushed_to_whom_does_not_take_it(server: ServerProcess, nghttp: Tool) -> None:
    told = nghttp("-v", "--no-push", f"{server.url}/push")

    assert "not pushed[" in told
    assert "PUSH_PROMISE" not in told


def test_nghttp_upgrades(server: ServerProcess, nghttp: Tool) -> None:
    told = nghttp("-v", "-u", f"{server.url}/version")

    assert "HTTP Upgrade success" in told
    assert "recv HEADERS 1" in frames_of(told) and "recv DATA 1" in frames_of(told)


def test_nghttp_waits_for_100_before_its_content(
    server: ServerProcess, nghttp: Tool, large: Path
) -> None:
    told = nghttp("-v", "--expect-continue", "-d", str(large), f"{server.url}/count")

    assert told.index(":status: 100") < told.index("send DATA frame") < told.index(":status: 200")
    assert "5000000[" in told


def test_nghttp_is_spared_content_that_nobody_reads(
    server: ServerProcess, nghttp: Tool, large: Path
) -> None:
    told = nghttp("-v", "--expect-continue", "-d", str(large), f"{server.url}/early")

    assert ":status: 413" in told and "too much for me[" in told
    assert "send DATA frame" not in told


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("-b", "200"), id="padding"),
        pytest.param(("--continuation",), id="CONTINUATION"),
        pytest.param(("--trailer", "x-sum: 7"), id="trailers"),
        pytest.param(("--no-content-length",), id="no length"),
        pytest.param(("-c", "0", "--encoder-header-table-size", "0"), id="no tables"),
        pytest.param(("-c", "0", "-c", "4096"), id="table resized"),
    ],
)
def test_nghttp_uploads_in_its_ways(
    server: ServerProcess, nghttp: Tool, large: Path, options: Sequence[str]
) -> None:
    assert nghttp(*options, "-d", str(large), f"{server.url}/count") == "5000000"


# ------------------------------------------------------------------------------- h2load


def test_h2load_opens_as_many_streams_as_it_may(
    server: ServerProcess, h2load: Callable[..., int]
) -> None:
    assert h2load("-c", "4", "-m", "200", server.url, requests=4000) == 5 * 4000


def test_h2load_posts_on_many_streams(
    server: ServerProcess, h2load: Callable[..., int], tmp_path: Path
) -> None:
    (tmp_path / "content").write_bytes(b"y" * 10_000)
    options = ("-c", "2", "-m", "32", "-d", str(tmp_path / "content"))

    assert h2load(*options, f"{server.url}/echo", requests=400) == 10_000 * 400


@pytest.mark.parametrize(("stream", "connection"), [("10", "30"), ("16", "16"), ("12", "16")])
def test_small_windows_let_everything_through(
    server: ServerProcess, h2load: Callable[..., int], stream: str, connection: str
) -> None:
    options = ("-c", "2", "-m", "16", "-w", stream, "-W", connection)

    assert h2load(*options, f"{server.url}/stream?n=20&size=3000", requests=100) == 60_000 * 100


@on_linux
def test_memory_is_flat_over_twenty_thousand_requests(
    serve: Serve, h2load: Callable[..., int]
) -> None:
    server = serve("h2_plain:app", "--no-access-log")
    options = ("-c", "8", "-m", "32", server.url)
    h2load(*options, requests=10_000)
    before = server.memory()

    h2load(*options, requests=20_000)

    assert server.memory() - before < 2 * MB


# -------------------------------------------------------------------------------- httpx


def client_of(server: ServerProcess) -> httpx.AsyncClient:
    """Of one connection, on which HTTP/2 is spoken from the first byte."""
    limits = httpx.Limits(max_connections=1)
    return httpx.AsyncClient(
        base_url=server.url, http1=False, http2=True, trust_env=False, limits=limits, timeout=20
    )


def test_httpx_has_a_hundred_requests_answered_on_one_connection(server: ServerProcess) -> None:
    async def main() -> None:
        async with client_of(server) as client:
            targets = [f"/scope?{index}" for index in range(100)]
            answers = await asyncio.gather(*map(client.get, targets))
            scopes = [answer.json() for answer in answers]
        assert [scope["query_string"] for scope in scopes] == [str(index) for index in range(100)]
        assert {scope["http_version"] for scope in scopes} == {"2"}
        assert len({tuple(scope["client"]) for scope in scopes}) == 1

    asyncio.run(main())


def test_httpx_streams_both_ways_on_one_connection(server: ServerProcess) -> None:
    async def content() -> Any:
        for _ in range(100):
            yield b"y" * 10_000

    async def download(client: httpx.AsyncClient) -> int:
        async with client.stream("GET", "/stream?n=300&size=5000") as response:
            return sum([len(piece) async for piece in response.aiter_bytes()])

    async def main() -> None:
        async with client_of(server) as client:
            uploads = [client.post("/count", content=content()) for _ in range(3)]
            echo = client.post("/mirror", content=b"z" * MB)
            sent = asyncio.gather(*uploads, echo)
            assert await asyncio.gather(*[download(client) for _ in range(3)]) == [1_500_000] * 3
            *counted, mirrored = await sent
        assert [answer.text for answer in counted] == ["1000000"] * 3
        assert mirrored.content == b"z" * MB

    asyncio.run(main())


def test_httpx_may_leave_responses_unread(server: ServerProcess) -> None:
    ended = len(server.matching("stream ended"))

    async def main() -> None:
        async with client_of(server) as client:
            async with client.stream("GET", "/stream?n=1000000&size=1000") as response:
                async for _ in response.aiter_bytes():
                    break
            assert (await client.get("/")).text == "hello"
            waiting = asyncio.ensure_future(client.get("/watch"))
            while not server.matching("^watching$"):
                await asyncio.sleep(0.01)
            waiting.cancel()
            assert (await client.get("/")).text == "hello"

    asyncio.run(main())
    server.wait_for("stream ended", ended + 1)
    server.wait_for("saw http.disconnect")


# ------------------------------------------------------------------------ frame by frame


def test_the_application_is_told_of_http_2(peer: Peer) -> None:
    scope = json.loads(peer.get("/scope?a=%C3%A9").body)

    assert (scope["http_version"], scope["scheme"], scope["method"]) == ("2", "http", "GET")
    assert (scope["path"], scope["query_string"]) == ("/scope", "a=%C3%A9")
    assert ["host", "e2e"] in scope["headers"]
    assert scope["state"] == {"greeting": "from lifespan"}
    assert set(scope["extensions"]) >= {"http.response.push", "http.response.trailers"}


def test_cookies_come_in_one_field(peer: Peer) -> None:
    stream = peer.ask("/scope", "GET", ("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"))

    scope = json.loads(peer.answer(stream).body)

    assert [value for name, value in scope["headers"] if name == "cookie"] == ["a=1; b=2"]


def test_each_piece_comes_back_before_the_next_is_sent(peer: Peer) -> None:
    stream = peer.ask("/mirror", "POST", end=False)
    for index in range(20):
        before = len(peer.content(stream))
        peer.send(stream, b"%d" % (index % 10) * 100)
        while len(peer.content(stream)) < before + 100:
            peer.read()
    peer.send(stream, end=True)

    assert peer.answer(stream).body == b"".join(b"%d" % (index % 10) * 100 for index in range(20))


def test_streams_are_answered_in_the_order_of_their_applications(peer: Peer) -> None:
    slow = peer.ask("/count", "POST", end=False)
    peer.send(slow, b"begun")
    for index in range(10):
        assert peer.get(f"/numbered?{index}").body == b"%d" % index
    peer.send(slow, b" and ended", end=True)

    assert peer.answer(slow).body == b"15"


def test_a_stream_whose_window_is_closed_keeps_no_other_waiting(server: ServerProcess) -> None:
    with Peer(server.connect().sock, INITIAL_WINDOW_SIZE=1000) as peer:
        # `Peer` opens windows as it reads; this one's must stay as it is.
        peer.h2.acknowledge_received_data = lambda *_: None  # type: ignore[method-assign]
        stalled = [peer.ask("/flood") for _ in range(5)]
        for stream in stalled:
            while len(peer.content(stream)) < 1000:
                peer.read()
        for index in range(20):
            assert peer.get(f"/numbered?{index}").body == b"%d" % index

        for stream in stalled:
            assert len(peer.content(stream)) == 1000
            peer.h2.increment_flow_control_window(500, stream)
        peer.flush()
        for stream in stalled:
            while len(peer.content(stream)) < 1500:
                peer.read()
            peer.reset(stream)
        assert peer.get("/").body == b"hello"


def test_content_that_nobody_reads_stays_with_the_client(serve: Serve) -> None:
    server = serve("h2_plain:app", "--no-access-log", "--h2-initial-stream-window", "100k")
    with Peer(server.connect().sock) as peer:
        assert peer.get("/").body == b"hello"  # its SETTINGS have come
        held = peer.ask("/hold", "POST", end=False)
        window = peer.h2.local_flow_control_window(held)
        assert window == 100 * 1024
        peer.send(held, bytes(window))
        assert peer.get("/").body == b"hello"
        assert peer.h2.local_flow_control_window(held) == 0

        counted = peer.ask("/count", "POST", end=False)
        peer.send(counted, bytes(3 * window), end=True)
        assert peer.answer(counted).body == b"%d" % (3 * window)
        assert peer.h2.local_flow_control_window(held) == 0

        assert peer.get("/release").body == b"released"
        assert peer.answer(held).body == b"held"


def test_the_application_sees_that_its_stream_is_cancelled(
    server: ServerProcess, peer: Peer
) -> None:
    seen = [len(server.matching(said)) for said in ("endless saw", "send raised", "left after 500")]
    endless = peer.ask("/endless")
    peer.wait(h2_events.DataReceived, endless)
    watched = peer.ask("/watch")
    upload = peer.ask("/count", "POST", end=False)
    peer.send(upload, bytes(500))
    server.wait_for("reading")
    peer.get("/")  # so the application of /watch has been called

    for stream in (endless, watched, upload):
        peer.reset(stream)

    server.wait_for("endless saw http.disconnect", seen[0] + 1)
    server.wait_for("send raised ClientDisconnected", seen[1] + 1)
    server.wait_for("left after 500", seen[2] + 1)
    assert peer.get("/").body == b"hello"


def test_more_streams_than_allowed_are_refused_and_the_others_go_on(serve: Serve) -> None:
    server = serve("h2_plain:app", "--no-access-log", "--h2-max-concurrent-streams", "4")
    with Peer(server.connect().sock) as peer:
        streams = [peer.ask("/count", "POST", end=False) for _ in range(6)]  # SETTINGS unread
        for stream in streams[4:]:
            assert peer.wait(h2_events.StreamReset, stream).error_code == ErrorCodes.REFUSED_STREAM
        for stream in streams[:4]:
            peer.send(stream, b"four", end=True)
            assert peer.answer(stream).body == b"4"
        assert peer.h2.remote_settings.max_concurrent_streams == 4
        assert peer.get("/").body == b"hello"


def test_a_malformed_request_costs_its_stream_alone(server: ServerProcess, peer: Peer) -> None:
    good = peer.ask("/count", "POST", end=False)
    bad = peer.ask("/count", "POST", ("content-length", "3"), end=False)
    peer.send(bad, b"four")

    assert peer.wait(h2_events.StreamReset, bad).error_code == ErrorCodes.PROTOCOL_ERROR
    peer.send(good, b"x", end=True)
    assert peer.answer(good).body == b"1"


def test_an_application_that_fails_costs_its_stream_alone(serve: Serve) -> None:
    server = serve("h2_plain:app", "--no-access-log", errors=True)
    with Peer(server.connect().sock) as peer:
        other = peer.ask("/count", "POST", end=False)
        assert peer.get("/fail")[::2] == (500, b"Internal Server Error")
        late = peer.ask("/fail-late")
        assert peer.wait(h2_events.StreamReset, late).error_code == ErrorCodes.INTERNAL_ERROR
        peer.send(other, b"x", end=True)
        assert peer.answer(other).body == b"1"
    server.wait_for("RuntimeError: the application has a late bug")


def test_a_websocket_is_a_stream_among_others(peer: Peer, server: ServerProcess) -> None:
    peer.get("/")
    assert peer.h2.remote_settings.enable_connect_protocol == 1
    stream = peer.h2.get_next_available_stream_id()
    head = {
        ":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":authority": "e2e",
        ":path": "/echo?tag=frame+by+frame", "sec-websocket-version": "13",
    }  # fmt: skip
    peer.h2.send_headers(stream, list(head.items()))
    peer.flush()
    assert peer.head(stream)[":status"] == "200"

    for size in (5, 70_000):
        at = len(peer.content(stream))
        peer.send(stream, text_frame("x" * size))
        expected = size + (2 if size < 126 else 10)
        while len(peer.content(stream)) < at + expected:
            peer.read()
        assert frames(peer.content(stream)[at:]) == [(TEXT, b"x" * size)]
        assert peer.get("/").body == b"hello"

    at = len(peer.content(stream))
    peer.send(stream, closing(4100, "enough"))
    assert frames(peer.answer(stream).body[at:]) == [(CLOSE, (4100).to_bytes(2, "big"))]
    server.wait_for(r"disconnected 4100 'enough' \[frame by frame\]")


def test_the_access_log_names_the_version(serve: Serve, curl: Curl) -> None:
    server = serve("h2_plain:app")

    curl(PRIOR, f"{server.url}/numbered?log")

    server.wait_for(r'"GET /numbered\?log HTTP/2" 200')


# ------------------------------------------------------------------------ what is offered


def test_http_2_may_be_switched_off(serve: Serve, curl: Curl) -> None:
    server = serve("h2_plain:app", "--no-access-log", "--http", "1")

    done = curl("--http2", "-w", " %{http_version}", f"{server.url}/version")

    assert done.stdout == "1.1 1.1"
    with server.connect() as wire:
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert wire.response().status == 400


def test_http_1_may_be_switched_off(serve: Serve, curl: Curl) -> None:
    server = serve("h2_plain:app", "--no-access-log", "--http", "2")

    assert curl(PRIOR, f"{server.url}/version").stdout == "2"
    with server.connect() as wire:
        wire.send(b"GET / HTTP/1.1\r\nhost: e2e\r\n\r\n")
        assert b"HTTP/1.1 200" not in wire.rest()


# ---------------------------------------------------------------------------- frameworks


def streams_and_takes_uploads(server: ServerProcess, upload: str, stream: str, lines: int) -> None:
    size = 2_000_000
    with httpx.Client(base_url=server.url, http1=False, http2=True, trust_env=False) as client:
        file = {"file": ("a.bin", b"y" * size)}
        answer = client.post(upload, data={"title": "a title"}, files=file)
        assert answer.http_version == "HTTP/2"
        assert answer.json() == {"title": "a title", "filename": "a.bin", "size": size}
        assert client.get(stream).text == "".join(f"{number}\n" for number in range(lines))
        assert client.get("/nowhere").status_code == 404


@pytest.mark.parametrize(
    ("name", "upload"),
    [
        ("starlette", "/form"),
        # Slow to start, and below it is Starlette again.
        pytest.param("fastapi", "/upload", marks=pytest.mark.slow),
        ("quart", "/upload"),
    ],
)
def test_a_framework_streams_and_takes_uploads(
    serve: Serve, loop: str, name: str, upload: str
) -> None:
    name = "quart_trio" if (name, loop) == ("quart", "trio") else name
    pytest.importorskip(name, reason=f"{name} is not installed")
    streams_and_takes_uploads(serve(f"on_{name}:app", "--no-access-log"), upload, "/stream", 10)


def test_django_streams_and_takes_uploads(serve: Serve) -> None:
    pytest.importorskip("django", reason="django is not installed")
    server = serve("on_django:app", "--no-access-log")

    streams_and_takes_uploads(server, "/upload", "/async-stream", 5)


# ----------------------------------------------------------------------------------- TLS


class Secure(NamedTuple):
    """A server over TLS, and the authority its clients trust."""

    server: ServerProcess
    ca: str

    @property
    def url(self) -> str:
        port = self.server.addresses[0].rpartition(":")[2]
        return f"https://localhost:{port}"


@pytest.fixture(scope="module")
def secure(serve_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> Secure:
    folder = tmp_path_factory.mktemp("pki")
    authority = Authority()
    (folder / "ca.pem").write_text(authority.pem)
    certfile, keyfile = authority.issue("localhost", "127.0.0.1").save(folder, "server")
    tls = ("--ssl-certfile", certfile, "--ssl-keyfile", keyfile)
    server = serve_module("h2_plain:app", "--no-access-log", *tls)
    return Secure(server, str(folder / "ca.pem"))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_agrees_on_http_2_in_the_handshake(secure: Secure, curl: Curl, version: str) -> None:
    tls = (f"--tlsv{version}", "--tls-max", version, "--cacert", secure.ca)

    done = curl("-v", "--http2", *tls, "-w", " %{http_version}", f"{secure.url}/version")

    assert "ALPN: server accepted h2" in done.stderr
    assert f"SSL connection using TLSv{version}" in done.stderr
    assert done.stdout == "2 2"


def test_curl_may_insist_on_http_1(secure: Secure, curl: Curl) -> None:
    options = ("-v", "--http1.1", "--cacert", secure.ca)

    done = curl(*options, "-w", " %{http_version}", f"{secure.url}/version")

    assert "ALPN: server accepted http/1.1" in done.stderr
    assert done.stdout == "1.1 1.1"


def test_a_client_without_alpn_gets_http_1(
    secure: Secure, wire_on: Callable[[socket.socket], Wire]
) -> None:
    context = ssl.create_default_context(cafile=secure.ca)
    plain = socket.create_connection(("127.0.0.1", int(secure.url.rpartition(":")[2])), 20)
    with wire_on(context.wrap_socket(plain, server_hostname="localhost")) as wire:
        assert wire.get("/version").body == b"1.1"


def test_curl_goes_both_ways_over_tls(secure: Secure, curl: Curl, large: Path) -> None:
    tls = ("--cacert", secure.ca)
    content = large.read_bytes().decode("latin-1")

    assert curl(*tls, "-T", str(large), f"{secure.url}/count").stdout == "5000000"
    assert curl(*tls, "-T", str(large), f"{secure.url}/echo").stdout == content
    assert curl(*tls, f"{secure.url}/file?{large}").stdout == content
    assert curl(*tls, "-i", f"{secure.url}/trailers").stdout.endswith("x-sum: 7\r\nx-done: yes\r\n")


def test_httpx_verifies_and_speaks_http_2(secure: Secure) -> None:
    context = ssl.create_default_context(cafile=secure.ca)
    with httpx.Client(base_url=secure.url, http2=True, verify=context, trust_env=False) as client:
        scope = client.get("/scope")
        assert scope.http_version == "HTTP/2"
        assert (scope.json()["scheme"], scope.json()["http_version"]) == ("https", "2")
        assert scope.json()["extensions"]["tls"]["tls_version"] == 0x0304
        assert client.post("/echo", content=b"z" * MB).content == b"z" * MB
    with (
        httpx.Client(base_url=secure.url, http2=True, trust_env=False) as stranger,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        stranger.get("/")


def test_h2load_succeeds_over_tls(secure: Secure, h2load: Callable[..., int]) -> None:
    options = ("-c", "4", "-m", "100")

    assert h2load(*options, secure.url, requests=2000) == 5 * 2000
    small = (*options, "-w", "12", "-W", "16", f"{secure.url}/stream?n=20&size=3000")
    assert h2load(*small, requests=100) == 60_000 * 100


# --------------------------------------------------------------------- clients that leave


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(6, 10)
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def block(method: str, path: str) -> bytes:
    """A request's fields, none of which is remembered (RFC 7541 §6.2.2)."""
    head = b"\x82" if method == "GET" else b"\x83"
    return head + b"\x86\x01\x03e2e\x04" + bytes((len(path),)) + path.encode()


def request(stream: int, method: str, path: str, end: bool = True) -> bytes:
    flags = END_HEADERS | (END_STREAM if end else 0)
    return frame(HEADERS, flags, stream, block(method, path))


def greeting(window: int = 65535) -> bytes:
    return PREFACE + frame(SETTINGS, 0, 0, b"\x00\x04" + number(window))


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def read_frame(wire: Wire) -> Frame:
    head = wire.take(9)
    stream = int.from_bytes(head[5:], "big")
    return Frame(head[3], head[4], stream, wire.take(int.from_bytes(head[:3], "big")))


def wait_for_frame(wire: Wire, kind: int, stream: int = 0, flags: int = 0) -> Frame:
    while True:
        found = read_frame(wire)
        if (found.kind, found.stream) == (kind, stream) and found.flags & flags == flags:
            return found


def wait_for_frames(wire: Wire, *wanted: tuple[int, int, int]) -> list[Frame]:
    """Read until each of *wanted*, by kind, stream and flags, has come, in whatever order."""
    found: dict[tuple[int, int, int], Frame] = {}
    while len(found) < len(wanted):
        came = read_frame(wire)
        for kind, stream, flags in wanted:
            if (came.kind, came.stream) == (kind, stream) and came.flags & flags == flags:
                found[kind, stream, flags] = came
    return [found[each] for each in wanted]


class Bounds:
    """What a server had before its clients came."""

    def __init__(self, server: ServerProcess, eventually: Callable[..., Any]) -> None:
        self._server = server
        self._eventually = eventually
        self._descriptors = server.descriptors()
        self._memory = server.memory()

    def kept(self, megabytes: float) -> None:
        """Everybody has left; nothing else has stayed."""
        server = self._server
        with Peer(server.connect().sock) as peer:
            assert peer.get("/").body == b"hello"
        self._eventually(
            lambda: server.descriptors() <= self._descriptors,
            f"{server.descriptors()} descriptors become {self._descriptors} again",
        )
        assert server.memory() - self._memory < megabytes * MB


@pytest.fixture
def bounds(server: ServerProcess, eventually: Callable[..., Any]) -> Bounds:
    return Bounds(server, eventually)


GO = greeting()

PHASES = [
    pytest.param(b"", "", "", id="after connecting"),
    pytest.param(GO[:20], "", "", id="in the preface"),
    pytest.param(GO + request(1, "GET", "/")[:12], "", "", id="in a frame"),
    pytest.param(
        GO + request(1, "POST", "/count", end=False) + frame(DATA, 0, 1, bytes(500)),
        "reading", "left after 500", id="in an upload",
    ),
    pytest.param(GO + request(1, "GET", "/watch"), "watching", "saw http.disconnect", id="waiting"),
    pytest.param(
        GO + request(1, "GET", "/endless"), "", "endless saw http.disconnect", id="in a response"
    ),
    pytest.param(
        greeting((1 << 31) - 1) + frame(WINDOW_UPDATE, 0, 0, number(1 << 30))
        + request(1, "GET", "/flood"),
        "", "flood ended", id="in a large response",
    ),
]  # fmt: skip
"""What the client says before it leaves, and what the application says before and after."""


@on_linux
@pytest.mark.parametrize("leave", ["reset", "close"])
@pytest.mark.parametrize(("said", "before", "after"), PHASES)
def test_clients_that_leave_are_missed(
    server: ServerProcess, bounds: Bounds, said: bytes, before: str, after: str, leave: str
) -> None:
    count = 10
    seen = [len(server.matching(each)) if each else 0 for each in (before, after)]
    wires = [server.connect() for _ in range(count)]
    for wire in wires:
        wire.send(said)
    if before:
        server.wait_for(before, seen[0] + count)
    elif after:
        for wire in wires:
            wait_for_frame(wire, DATA, 1)
    for wire in wires:
        if leave == "reset":
            wire.reset()
        else:
            wire.sock.close()
    if after:
        server.wait_for(after, seen[1] + count, seconds=5)

    bounds.kept(megabytes=8)


@pytest.mark.parametrize("leave", ["reset", "close"])
def test_a_client_that_leaves_a_closed_window_is_missed(serve: Serve, leave: str) -> None:
    grace = ("--timeout-graceful-shutdown", "200ms")
    server = serve("h2_plain:app", "--no-access-log", *grace)
    with server.connect() as wire:
        wire.send(greeting(1000), request(1, "GET", "/flood"))
        wait_for_frame(wire, DATA, 1)
        if leave == "reset":
            wire.reset()
    server.wait_for("flood ended", seconds=0.5)


@on_linux
def test_a_thousand_clients_that_connect_and_leave_cost_nothing(
    server: ServerProcess, eventually: Callable[..., Any]
) -> None:
    sayings = (b"", GO, GO + request(1, "GET", "/"), GO + request(1, "POST", "/count", end=False))

    def come_and_leave(count: int) -> None:
        for index in range(count):
            wire = server.connect()
            wire.send(sayings[index % 4])
            if index // 4 % 2:
                wire.reset()
            else:
                wire.sock.close()
            if index % 50 == 49:  # how many wait at once decides what stays
                assert server.get("/").status == 200

    come_and_leave(400)
    bounds = Bounds(server, eventually)
    come_and_leave(1000)

    bounds.kept(megabytes=2)  # what a connection has is more than two kilobytes


# -------------------------------------------------------------------------------- floods

OPEN = request(1, "POST", "/watch", end=False)


def each(streams: int, *frames_of: Callable[[int], bytes]) -> bytes:
    return b"".join(make(number) for number in range(1, 2 * streams, 2) for make in frames_of)


FLOODS = [
    (
        "streams beyond the limit",  # its applications have had no time to return
        each(
            3000,
            lambda n: request(n, "GET", "/watch"),
            lambda n: frame(RST_STREAM, 0, n, number(8)),
        ),
    ),
    ("PING flood (CVE-2019-9512)", frame(PING, 0, 0, bytes(8)) * 5000),
    ("SETTINGS flood (CVE-2019-9515)", frame(SETTINGS) * 5000),
    ("PRIORITY flood (CVE-2019-9513)", frame(PRIORITY, 0, 1, bytes(5)) * 10_000),
    ("empty DATA frames (CVE-2019-9518)", OPEN + frame(DATA, 0, 1) * 5000),
    ("WINDOW_UPDATE flood", frame(WINDOW_UPDATE, 0, 0, number(1)) * 20_000),
    (
        "CONTINUATION flood (CVE-2024-27316)",
        frame(HEADERS, 0, 1, block("GET", "/")) + frame(CONTINUATION, 0, 1) * 5000,
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def flooded(serve_module: Serve) -> ServerProcess:
    """Of its own, because only so many refusals are logged in ten seconds: this is for these."""
    return serve_module("h2_plain:app", "--no-access-log")


@on_linux
@pytest.mark.parametrize(("attack", "flood"), FLOODS, ids=[name for name, _ in FLOODS])
def test_a_flood_ends_in_goaway_and_one_line(
    flooded: ServerProcess, eventually: Callable[..., Any], attack: str, flood: bytes
) -> None:
    with Peer(flooded.connect().sock) as peer:
        assert peer.get("/").body == b"hello"
        bounds = Bounds(flooded, eventually)
        with flooded.connect() as wire:
            wire.send(GO, flood)
            goaway = wait_for_frame(wire, GOAWAY)
            assert int.from_bytes(goaway.payload[4:8], "big") == ErrorCodes.ENHANCE_YOUR_CALM
            assert wire.rest() == b""  # an orderly end: a reset would raise
        flooded.wait_for(re.escape(attack))
        assert peer.get("/").body == b"hello"  # who is calm goes on
        bounds.kept(megabytes=8)
    assert len(flooded.matching(re.escape(attack))) == 1


def test_a_rapid_reset_script_ends_in_goaway(
    server: ServerProcess, eventually: Callable[..., Any]
) -> None:
    """As the attack of 2023 did it: every request is begun, and taken back at once."""
    seen = len(server.matching("rapid reset"))
    others = len(server.matching("^watching$")) - len(server.matching("^send raised"))
    with Peer(server.connect().sock) as peer, server.connect() as wire:
        assert peer.get("/").body == b"hello"
        wire.send(GO)
        goaway, stream = None, 1
        while goaway is None:
            assert stream < 4000, "it may go on for ever"
            for _ in range(50):
                wire.send(request(stream, "GET", "/watch"), frame(RST_STREAM, 0, stream, number(8)))
                stream += 2
            wire.send(frame(PING, 0, 0, bytes(8)))
            while (found := read_frame(wire)).kind not in (PING, GOAWAY):
                pass
            goaway = found if found.kind == GOAWAY else None
        assert int.from_bytes(goaway.payload[4:8], "big") == ErrorCodes.ENHANCE_YOUR_CALM
        assert wire.rest() == b""
        server.wait_for(r"rapid reset \(CVE-2023-44487\)", seen + 1)
        begun = len(server.matching("^watching$")) - others
        eventually(lambda: len(server.matching("^send raised")) >= begun, "all have ended")
        assert peer.get("/").body == b"hello"


def made_you_reset(wire: Wire) -> None:
    """Make the server reset its own streams, again and again; returns at the end."""
    flood = each(
        1000,
        lambda n: request(n, "GET", "/watch"),
        lambda n: frame(WINDOW_UPDATE, 0, n, number(0)),
    )
    wire.send(GO, flood)
    goaway = wait_for_frame(wire, GOAWAY)
    assert int.from_bytes(goaway.payload[4:8], "big") == ErrorCodes.ENHANCE_YOUR_CALM
    assert wire.rest() == b""


def test_made_you_reset_ends_in_goaway(server: ServerProcess) -> None:
    with server.connect() as wire:
        made_you_reset(wire)
    with Peer(server.connect().sock) as peer:
        assert peer.get("/").body == b"hello"


def test_the_log_names_made_you_reset(serve: Serve) -> None:
    server = serve("h2_plain:app", "--no-access-log")
    with server.connect() as wire:
        made_you_reset(wire)
    server.stop()
    assert len(server.matching(r"made-you-reset \(CVE-2025-8671\)")) == 1


# ------------------------------------------------------------------------------- the end


def test_streams_in_flight_finish_when_the_server_stops(serve: Serve) -> None:
    server = serve("h2_plain:app", "--no-access-log")
    with server.connect() as idle, server.connect() as busy:
        idle.send(GO, request(1, "GET", "/"))
        wait_for_frame(idle, DATA, 1, END_STREAM)
        busy.send(GO, frame(SETTINGS, ACK), request(1, "POST", "/mirror", end=False))
        busy.send(request(3, "POST", "/count", end=False), frame(DATA, 0, 3, b"x"))
        server.wait_for("reading")

        server.kill()

        goaway = wait_for_frame(idle, GOAWAY)
        assert goaway.payload == number(1) + number(ErrorCodes.NO_ERROR)
        assert idle.rest() == b""
        # First that it will stop, then, when that must have been read, what came too late
        # (RFC 9113 §6.8).
        goaway = wait_for_frame(busy, GOAWAY)
        assert goaway.payload == number((1 << 31) - 1) + number(ErrorCodes.NO_ERROR)
        ping = wait_for_frame(busy, PING)
        busy.send(request(5, "GET", "/numbered?in+time"), frame(PING, ACK, 0, ping.payload))
        # The answer and the last word may come in any order: tasks start at once from 3.12 on.
        last, answer = wait_for_frames(busy, (GOAWAY, 0, 0), (DATA, 5, END_STREAM))
        assert last.payload == number(5) + number(ErrorCodes.NO_ERROR)
        assert answer.payload == b"in+time"
        busy.send(frame(DATA, 0, 1, b"piece"))
        assert wait_for_frame(busy, DATA, 1).payload == b"piece"
        busy.send(frame(DATA, END_STREAM, 3, b"yz"), frame(DATA, END_STREAM, 1))
        ended = [read_frame(busy) for _ in range(3)]
        # In any order: trio has no first and last of what is ready.
        assert sorted(each.payload for each in ended if each.kind == DATA) == [b"", b"3"]
        assert busy.rest() == b""
    assert server.wait() == 0


def test_curl_finishes_its_upload_when_the_server_stops(
    serve: Serve, curl: Curl, eventually: Callable[..., Any]
) -> None:
    server = serve("h2_plain:app", "--no-access-log")
    program = shutil.which("curl")
    assert program is not None
    command = [program, "-sS", "--noproxy", "*", PRIOR, "-N", "-T", "-", f"{server.url}/count"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"begun")
        process.stdin.flush()
        server.wait_for("reading")
        server.kill()
        eventually(server.refuses, "the server listens no more")
        out, _ = process.communicate(b" and ended", timeout=10)

    assert out == b"15"
    assert server.wait() == 0
