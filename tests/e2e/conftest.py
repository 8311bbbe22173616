"""Omnicorn as a real process on real sockets, and a client that sees every byte.

What this file alone decides: how a server is started (``python -m omnicorn`` on port 0, from
``tests/e2e/apps``), on which loops (`LOOPS`: every test that starts one runs on each of them,
unless `NOT_ON_TRIO` or `ON_ONE_LOOP` says why not), how its address is learnt (from the line it
logs), and what every test demands without saying so: that SIGTERM ends the server with exit
code 0, and that it has logged no traceback, lost task or resource warning.

Rules:

1. Nothing sleeps. A test waits for a line of output, for bytes, for an end of file, or for
   the process to end, each with a deadline; what has no event (memory, descriptors) is
   polled with one by `until`.
2. Test modules cannot import each other (there are no packages here), so what they share
   reaches them by fixtures: ``serve`` makes `ServerProcess` objects, those make `Wire` ones.
3. The quick suite has `QUICK` alone, and trio for the files of `TRIO_TOO`, which look at what
   could differ most; the contracts run on every loop. What remains is slow.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

LOOPS = ("asyncio", "uvloop", "trio")

QUICK = "uvloop" if find_spec("uvloop") else "asyncio"

TRIO_TOO = {"test_anyio.py", "test_embedding.py", "test_trio.py"}

NOT_ON_TRIO = {
    "test_django.py": "Django's handler starts tasks of asyncio",
    "test_channels.py": "Channels' consumers are tasks of asyncio",
    "test_embedding.py::test_a_server_starts_answers_and_stops": "trio has ``async with`` alone",
    "test_embedding.py::test_serve_ends_when_its_task_is_cancelled_after_a_drain": "asyncio's task",
    "test_websocket_browser.py::test_two_pages_chat": "examples/chat.py is a program of asyncio",
    "test_websocket_browser.py::test_a_chatting_page_comes_back_to_a_server_that_restarts": "same",
    "test_websocket_browser.py::test_pages_of_others_may_not_chat": "same",
    "test_http2.py::test_django_streams_and_takes_uploads": "Django's handler is asyncio's",
}
"""Files and tests that run on asyncio and uvloop alone, and why."""

ON_ONE_LOOP = {
    "test_trio.py": "it is about what trio alone has, and runs there",
    "test_compat_django.py": "``manage.py runserver`` has no choice of a loop",
    "test_compat_gunicorn.py": "the class of gunicorn's worker decides on the loop",
    "test_lifecycle.py::test_wrong_usage_is_exit_code_2_and_named": "it ends before the loop",
    "test_lifecycle.py::test_no_application_is_exit_code_2": "it ends before the loop",
}
"""Files and tests that run once, on the loop that omnicorn chooses itself, and why."""

APPS = Path(__file__).parent / "apps"

DEADLINE = 20.0
"""Seconds that anything may take on a machine that is busy with other things as well."""

_ADDRESS = re.compile(r"is serving on (\S+)")
_SUSPICIOUS = re.compile(
    r"Traceback|ResourceWarning|never (?:retrieved|awaited)|was destroyed|Exception ignored"
    r"|send\(\) raised exception"  # asyncio's word for writing to a lost connection
)


def until(condition: Callable[[], T], what: str, seconds: float = DEADLINE) -> T:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return answer


class Response(NamedTuple):
    """A response as it was on the wire; names in lower case, chunks joined."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    version: str

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} occurs {len(values)} times"
        return values[0] if values else None


class Wire:
    """One raw connection.

    Reads responses as a strict client does: what is not delimited as RFC 9112 §6.3 says is an
    AssertionError, and bytes behind a response wait for the next one.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(DEADLINE)
        self._buffer = bytearray()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *data: bytes) -> None:
        self.sock.sendall(b"".join(data))

    def get(self, target: str, *fields: str, method: str = "GET") -> Response:
        """Send a request without content; return its response."""
        lines = [f"{method} {target} HTTP/1.1", "host: e2e", *fields, "", ""]
        self.send("\r\n".join(lines).encode("latin-1"))
        return self.response(head_only=method == "HEAD")

    def head(self) -> Response:
        """Read up to the end of a response's head."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            assert self._more(), f"the connection ended within a head: {bytes(self._buffer)!r:.300}"
        first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        version, status, _ = first.split(" ", 2)
        pairs = [line.split(": ", 1) for line in lines]
        return Response(int(status), [(name.lower(), value) for name, value in pairs], b"", version)

    def response(self, head_only: bool = False) -> Response:
        """Read a whole response."""
        head = self.head()
        if head_only or head.status in (204, 304) or head.status < 200:
            return head
        length = head.header("content-length")
        if head.header("transfer-encoding") == "chunked":
            assert length is None
            body = b"".join(self.chunks())
        elif length is not None:
            body = self.take(int(length))
        else:
            body = self.rest()
        return head._replace(body=body)

    def chunks(self) -> Iterator[bytes]:
        """Read chunked content, and the trailers behind it, which must be none."""
        while True:
            size = int(self._line(), 16)
            chunk = self.take(size)
            assert self._line() == b""
            if not size:
                return
            yield chunk

    def take(self, size: int) -> bytes:
        """Read exactly that many bytes."""
        while len(self._buffer) < size:
            assert self._more(), f"{size - len(self._buffer)} bytes of content are missing"
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def rest(self) -> bytes:
        """Read until the server closes; a reset raises ConnectionResetError."""
        while self._more():
            pass
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def is_closed(self) -> bool:
        """Wait for the end, however it comes; False if bytes come instead."""
        try:
            return not self.rest()
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        """Leave with a reset instead of an orderly end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            assert self._more(), "the connection ended within a line"
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _more(self) -> bool:
        data = self.sock.recv(1 << 18)
        self._buffer += data
        return bool(data)


class Output:
    """The lines of a process, of both streams in the order they came."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def __str__(self) -> str:
        lines = [line[:500] for line in self.lines]
        if len(lines) > 100:
            lines[50:-50] = [f"... {len(lines) - 100} more lines ..."]
        return "\n".join(lines)

    def _read(self, stream: Any) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()

    def join(self) -> None:
        """Wait for the end of both streams."""
        for reader in self._readers:
            reader.join(DEADLINE)

    def wait_for(
        self, pattern: str, count: int = 1, *, running: Callable[[], bool], seconds: float
    ) -> str:
        search = re.compile(pattern).search
        with self._changed:
            deadline = time.monotonic() + seconds
            while True:
                found = [line for line in self.lines if search(line)]
                if len(found) >= count:
                    return found[count - 1]
                alive = running()
                assert alive and time.monotonic() < deadline, (
                    f"{'the process ended' if not alive else f'{seconds} s went by'} without"
                    f" {pattern!r} ({count} times) in its output:\n{self}"
                )
                self._changed.wait(0.05)


class ServerProcess:
    """A process that serves, or that is expected to fail to.

    Args:
        argv: What to execute.
        env: Further variables.
        pass_fds: Descriptors to inherit.
        cwd: Where.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
    ) -> None:
        # An operator's variables must not reach the server, nor those of this test run.
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OMNICORN_", "COV_", "PYTHON"))
            and name not in ("PORT", "FORWARDED_ALLOW_IPS", "NO_COLOR")
        }
        self.process = subprocess.Popen(
            argv,
            env=clean | {"PYTHONUNBUFFERED": "1"} | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            pass_fds=pass_fds,
            cwd=cwd or APPS,
        )
        self.output = Output(self.process)
        self._wires: list[Wire] = []
        self.addresses: list[str] = []
        self.expected_code: int | None = 0
        self.expects_errors = False

    # -- what it says

    @property
    def lines(self) -> list[str]:
        return self.output.lines

    def matching(self, pattern: str) -> list[str]:
        """The lines so far in which a pattern occurs."""
        return [line for line in list(self.output.lines) if re.search(pattern, line)]

    def wait_for(self, pattern: str, count: int = 1, seconds: float = DEADLINE) -> str:
        """Wait until a pattern has occurred in that many lines; return the last of them."""
        return self.output.wait_for(
            pattern,
            count,
            running=lambda: self.process.poll() is None or any(map(_is_alive, self._readers)),
            seconds=seconds,
        )

    @property
    def _readers(self) -> list[threading.Thread]:
        return self.output._readers

    def wait_until_serving(self, addresses: int = 1) -> None:
        self.wait_for(_ADDRESS.pattern, addresses)
        self.addresses = [
            match[1] for line in list(self.output.lines) if (match := _ADDRESS.search(line))
        ]

    # -- where it is

    @property
    def url(self) -> str:
        return next(address for address in self.addresses if address.startswith("http://"))

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def connect(self, address: str | None = None) -> Wire:
        """Open a raw connection."""
        address = address or self.addresses[0]
        if address.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(DEADLINE)
            try:
                sock.connect(address.removeprefix("unix:"))
            except OSError:
                sock.close()
                raise
        else:
            host, _, port = address.removeprefix("http://").rpartition(":")
            sock = socket.create_connection((host.strip("[]"), int(port)), DEADLINE)
        wire = Wire(sock)
        self._wires.append(wire)
        return wire

    def get(self, target: str, *fields: str, method: str = "GET") -> Response:
        """One request on a connection of its own."""
        with self.connect() as wire:
            return wire.get(target, *fields, method=method)

    def refuses(self) -> bool:
        """Whether nobody listens."""
        try:
            self.connect().sock.close()
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except ConnectionResetError:
            pass  # it was still in the queue when the listener closed: ask again
        return False

    # -- how it is

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    # -- its end

    def kill(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the process to end by itself; returns its exit code."""
        try:
            code = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the process does not end:\n{self.output}") from None
        self.output.join()
        return code

    def ends_within(self, seconds: float) -> bool:
        """Whether the process ends by itself in that time; killed if not."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        return True

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, unless it has ended, and wait; returns its exit code."""
        if self.process.poll() is None:
            self.kill(number)
        return self.wait()

    def finish(self) -> None:
        """Stop it and check what every test takes for granted."""
        for wire in self._wires:
            wire.sock.close()
        try:
            code = self.stop()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        if self.expected_code is not None:
            assert code == self.expected_code, f"exit code {code}:\n{self.output}"
        if not self.expects_errors:
            bad = self.matching(_SUSPICIOUS.pattern)
            assert not bad, f"the server logged {bad[0]!r}:\n{self.output}"


def _is_alive(thread: threading.Thread) -> bool:
    return thread.is_alive()


class Serve:
    """Starts servers, and ends them with the test or the module.

    Args:
        loop: For ``--loop``, where a call does not say another.
    """

    def __init__(self, loop: str) -> None:
        self._loop = loop
        self._running: list[ServerProcess] = []

    def __call__(
        self,
        app: str,
        *options: str,
        loop: str | None = None,
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        addresses: int = 1,
        wait: bool = True,
        errors: bool = False,
    ) -> ServerProcess:
        """Start ``python -m omnicorn`` for an application of ``apps``.

        Args:
            app: ``module:attribute``.
            *options: Flags; ``--port 0`` is there unless they name a place to listen.
            loop: For ``--loop``; the test's own by default.
            env: Further variables.
            pass_fds: Descriptors to inherit.
            addresses: Lines about addresses to wait for.
            wait: Wait until it serves.
            errors: The test makes the server log tracebacks, and says so.
        """
        argv = [sys.executable, "-W", "always::ResourceWarning", "-m", "omnicorn"]
        argv += ["--loop", loop or self._loop, *options]
        places = ("--port", "--bind", "-b", "--uds", "--fd")
        if not any(option.startswith(places) for option in options) and "PORT" not in (env or {}):
            argv += ["--port", "0"]
        server = self.run([*argv, app], env=env, pass_fds=pass_fds)
        server.expects_errors = errors
        if wait:
            server.wait_until_serving(addresses)
        return server

    def run(
        self,
        argv: Sequence[str],
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
    ) -> ServerProcess:
        """Start any command that serves."""
        server = ServerProcess(argv, env, pass_fds, cwd)
        self._running.append(server)
        return server

    def close(self) -> None:
        failures: list[AssertionError] = []
        for server in self._running:
            try:
                server.finish()
            except AssertionError as failure:
                failures.append(failure)
        if failures:
            raise failures[0]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that serves on each of its loops."""
    file = metafunc.definition.path.name
    places = {file, f"{file}::{metafunc.definition.originalname}"}
    if "loop" not in metafunc.fixturenames or places & ON_ONE_LOOP.keys():
        return
    names = LOOPS[:2] if places & NOT_ON_TRIO.keys() else LOOPS
    slow = pytest.mark.slow
    quick = {QUICK, "trio"} if file in TRIO_TOO else {QUICK}
    params = [pytest.param(name, marks=() if name in quick else slow) for name in names]
    metafunc.parametrize("loop", params, indirect=True)


@pytest.fixture(scope="module")
def loop(request: pytest.FixtureRequest) -> str:
    """The event loop of a test and of what it starts."""
    name: str = getattr(request, "param", "auto")
    if name in ("uvloop", "trio"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    return name


@pytest.fixture
def loop_name(loop: str) -> str:
    """The event loop, for a test that starts something of its own."""
    return loop


@pytest.fixture
def exceptions() -> dict[str, str]:
    """What does not run on every loop, and why."""
    return NOT_ON_TRIO | ON_ONE_LOOP


@pytest.fixture
def serve(loop: str) -> Iterator[Serve]:
    """Starts servers that end with the test."""
    with closing(Serve(loop)) as serving:
        yield serving


@pytest.fixture(scope="module")
def serve_module(loop: str) -> Iterator[Serve]:
    """Starts servers that the tests of a module share."""
    with closing(Serve(loop)) as serving:
        yield serving


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """`until`, for what has no event to wait for."""
    return until


@pytest.fixture
def wire_on() -> Callable[[socket.socket], Wire]:
    """Makes a `Wire` of a socket that the test connected itself."""
    return Wire


@pytest.fixture
def curl() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs curl; skips where the machine has none."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed (Debian: apt-get install curl)")

    def run(*arguments: str, content: bytes | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [program, "--silent", "--show-error", "--noproxy", "*", "--max-time", "20", *arguments],
            input=content,
            capture_output=True,
            check=False,
            timeout=DEADLINE * 2,
        )
        texts = [stream.decode("latin-1") for stream in (done.stdout, done.stderr)]
        assert done.returncode == 0, f"curl ended with {done.returncode}: {texts[1]}"
        return subprocess.CompletedProcess(done.args, done.returncode, *texts)

    return run


BROWSER_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium with a profile of its own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    profile = tmp_path_factory.mktemp("chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch_persistent_context(
            profile,
            executable_path=program,
            headless=True,
            args=BROWSER_FLAGS,
            ignore_https_errors=True,
        )
        browser.set_default_timeout(10_000)
        yield browser
        browser.close()
