"""The servers: how each is installed, started and ended.

What this file alone decides: each peer's command line.  Rules:

- One process that serves, on uvloop wherever the server can use it, with its fastest parser and
  with no log, as a careful operator would set it up for speed.  Nothing else is switched off that
  a default installation does.
- Keep-alive timeouts and connection limits are raised where the defaults would close connections
  in the cases `idle`, `sleep` and `ws-idle`, and limits of requests on a connection where a closed
  one would end a case of HTTP/2; none of it costs anything per request.
- Windows, frame sizes and numbers of streams of HTTP/2 stay at their defaults, and so does TLS but
  for the certificate.
- WSGI has `THREADS` threads wherever that can be said, and on trio the loop is trio's own.
- uvicorn takes part in `trio` as it is, on uvloop: as a measure for what trio costs.
- Lifespan stays at its default, and so do a WebSocket's pings, limits and compression (the load
  offers none).

A server lives in a process group of its own, which is killed, not asked, when the run is over:
nothing it holds is worth a goodbye, and no worker may outlive the harness.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import certificate, environment, http2, scgi, websocket
from bench.cases import AUDIENCE, MARK, Kind, Request, Way
from bench.measure import pinned

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bench.cases import Case, Message

HOST = "127.0.0.1"
START_SECONDS = 20.0
"""How long a server may take to its first answer."""

KEEP_ALIVE = "120"
CONNECTIONS = "16384"
THREADS = "4"


class ServerFailed(Exception):
    """The server did not start, died, or gave a wrong answer."""


@dataclass(frozen=True, slots=True)
class Server:
    """How to run one server.

    `flags`, and those that `ways` adds for the way of a case, may hold `{port}`; a server takes no
    case of a way that is not there.  `quiet` are the flags without an access log, `logging` those
    with one on standard output.  `http1` or `http2` are added for that version, and for TLS `tls`,
    which may hold `{certificate}` and `{key}`; a server whose `http2` or `tls` is None does not
    take such cases.  `requirements` are for `environment.install`, and the versions of
    `distributions` are reported.  `only` limits the server to some cases, and
    `instead` is where it finds their application, if not where they say.  `script` is the name of
    its command where the module cannot be run.  A `program` serves by itself, without an
    application, and gets the port as its last argument.
    """

    name: str
    module: str
    flags: tuple[str, ...]
    ways: Mapping[Way, tuple[str, ...]] = dataclasses.field(default_factory=lambda: {Way.ASGI: ()})
    quiet: tuple[str, ...] = ()
    logging: tuple[str, ...] = ()
    http1: tuple[str, ...] = ()
    http2: tuple[str, ...] | None = None
    tls: tuple[str, ...] | None = None
    requirements: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    only: frozenset[str] | None = None
    instead: str | None = None
    script: str | None = None
    program: tuple[str, ...] | None = None

    def takes(self, case: Case) -> bool:
        """Whether `case` makes sense for this server."""
        if self.only is not None:
            return case.name in self.only
        return (
            case.way in self.ways
            and (not case.streams or self.http2 is not None)
            and (not case.tls or self.tls is not None)
        )

    def command(self, case: Case, port: int) -> list[str]:
        """The command line that serves `case` on `port`."""
        if self.program is not None:
            return [*self.program, str(port)]
        flags = [
            flag.replace("{port}", str(port))
            .replace("{certificate}", str(certificate.CERTIFICATE))
            .replace("{key}", str(certificate.KEY))
            for flag in (
                *self.ways[case.way],
                *self.flags,
                *((self.http2 or ()) if case.streams else self.http1),
                *((self.tls or ()) if case.tls else ()),
                *(self.logging if case.access_log else self.quiet),
            )
        ]
        run = ("-m", self.module) if self.script is None else (environment.script(self.script),)
        return [
            str(environment.PYTHON),
            *run,
            *flags,
            f"{self.instead or case.module}:{case.app}",
        ]


OURS = "omnicorn"

_HTTP = ("--host", HOST, "--port", "{port}")

OMNICORN = Server(
    OURS,
    "omnicorn",
    ("--timeout-keep-alive", KEEP_ALIVE),
    ways={
        Way.ASGI: _HTTP,
        Way.TRIO: (*_HTTP, "--loop", "trio"),
        Way.WSGI: (*_HTTP, "--interface", "wsgi", "--threads", THREADS),
        Way.SCGI: ("--bind", f"scgi:{HOST}:{{port}}"),
    },
    quiet=("--no-access-log", "--log-level", "warning"),
    http2=(),
    tls=("--ssl-certfile", "{certificate}", "--ssl-keyfile", "{key}"),
    # What its extra `standard` brings and a run can feel; named here, so that it does not depend
    # on whether a peer that also wants it was chosen.
    requirements=("uvloop", "websockets"),
    distributions=("omnicorn", "uvloop", "websockets", "trio"),
)

PEERS: tuple[Server, ...] = (
    Server(
        "uvicorn",
        "uvicorn",
        (
            *(*_HTTP, "--loop", "uvloop", "--http", "httptools"),
            *("--ws", "websockets-sansio", "--timeout-keep-alive", KEEP_ALIVE),
        ),
        ways={Way.ASGI: (), Way.TRIO: ()},
        quiet=("--no-access-log", "--log-level", "warning"),
        tls=("--ssl-certfile", "{certificate}", "--ssl-keyfile", "{key}"),
        requirements=("uvicorn[standard]", "uvloop", "httptools"),
        distributions=("uvicorn", "httptools", "websockets"),
    ),
    Server(
        "granian",
        "granian",
        (
            *(*_HTTP, "--workers", "1"),
            *("--loop", "uvloop", "--runtime-threads", "1", "--backpressure", CONNECTIONS),
        ),
        ways={
            Way.ASGI: ("--interface", "asgi"),
            Way.WSGI: ("--interface", "wsgi", "--blocking-threads", THREADS),
        },
        quiet=("--no-log", "--no-access-log"),
        logging=("--access-log",),
        http1=("--http", "1"),
        http2=("--http", "2"),
        tls=("--ssl-certificate", "{certificate}", "--ssl-keyfile", "{key}"),
        requirements=("granian", "uvloop"),
        distributions=("granian",),
    ),
    Server(
        "gunicorn",
        "gunicorn",
        (
            *("--bind", f"{HOST}:{{port}}", "--workers", "1", "--http-parser", "auto"),
            *("--keep-alive", KEEP_ALIVE, "--worker-connections", CONNECTIONS),
        ),
        ways={
            Way.ASGI: ("--worker-class", "asgi", "--asgi-loop", "uvloop"),
            Way.WSGI: ("--worker-class", "gthread", "--threads", THREADS),
        },
        quiet=("--log-level", "warning"),
        logging=("--access-logfile", "-"),
        # The newest release counts for more than the C parser, which may not be there for it.
        requirements=("gunicorn[fast]>=27 or gunicorn>=27", "uvloop"),
        distributions=("gunicorn", "gunicorn_h1c"),
    ),
    Server(
        "hypercorn",
        "hypercorn",
        (
            # Without a worker process it serves from the first one.
            *("--bind", f"{HOST}:{{port}}", "--workers", "0", "--keep-alive", KEEP_ALIVE),
        ),
        ways={
            Way.ASGI: ("--worker-class", "uvloop"),
            Way.TRIO: ("--worker-class", "trio"),
            # It sees by itself that the application is one of WSGI; no flag tells it of threads.
            Way.WSGI: ("--worker-class", "uvloop"),
        },
        quiet=("--log-level", "warning"),
        logging=("--access-logfile", "-"),
        # After 1000 requests it would send GOAWAY and reset what is in flight; no flag says more.
        http2=("--config", str(environment.ROOT / "bench" / "hypercorn.toml")),
        tls=("--certfile", "{certificate}", "--keyfile", "{key}"),
        requirements=("hypercorn", "uvloop"),
        distributions=("hypercorn", "h2", "wsproto"),
    ),
    Server(
        "daphne",
        "daphne",
        ("--bind", HOST, "--port", "{port}"),
        quiet=("--verbosity", "0"),
        logging=("--access-log", "-"),
        requirements=("daphne",),
        distributions=("daphne", "autobahn"),
    ),
    Server(
        "aioscgi",
        "aioscgi",
        ("--tcp", f"{HOST}:{{port}}"),
        ways={Way.SCGI: ()},
        script="aioscgi",
        requirements=("aioscgi",),
        distributions=("aioscgi", "sioscgi"),
    ),
)

ON_ASGIREF = dataclasses.replace(
    OMNICORN,
    name="omnicorn on asgiref",
    only=frozenset({"django-sync", "django-async"}),
    instead="bench.django_site",
    requirements=("uvloop", "asgiref>=3.13,<3.14"),
    distributions=("asgiref", "django"),
)

AIM = "go net/http"
AIM_SOURCE = environment.ROOT / "bench" / "aim.go"
AIM_PROGRAM = environment.WORK / "aim"

AIM_OF_SOCKETS = Server(
    "picows",
    "bench.aim",
    (),
    requirements=("picows", "uvloop"),
    distributions=("picows",),
    only=frozenset({"ws", "ws-large"}),
    program=(str(environment.PYTHON), "-m", "bench.aim"),
)


def build_aim() -> Server:
    """Compile the Go server that is the aim for `hello`.

    Raises:
        ServerFailed: There is no Go, or the compiler refused.
    """
    compiler = shutil.which("go")
    if compiler is None:
        raise ServerFailed("Go is not installed (apt-get install golang-go)")
    done = subprocess.run(
        [compiler, "build", "-o", str(AIM_PROGRAM), str(AIM_SOURCE)],
        capture_output=True,
        text=True,
        cwd=environment.WORK,
    )
    if done.returncode:
        raise ServerFailed(f"go build failed: {environment.anonymous(_last_line(done.stderr))}")
    return Server(AIM, "", (), only=frozenset({"hello"}), program=(str(AIM_PROGRAM),))


def extra(text: str) -> Server:
    """Read `NAME=BASE FLAG ...`: the server BASE under another name with more flags.

    Raises:
        ValueError: The text has no name, or BASE is not a server; the message says which.
    """
    name, equals, rest = text.partition("=")
    base_name, *flags = rest.split() or [""]
    known = {server.name: server for server in (OMNICORN, *PEERS)}
    if not equals or not name.strip():
        raise ValueError(
            f"{text!r}: expected NAME=BASE FLAGS, as in 'plain=omnicorn --loop asyncio'"
        )
    if base_name not in known:
        raise ValueError(f"{text!r}: no server {base_name!r}; there are {', '.join(known)}")
    base = known[base_name]
    return dataclasses.replace(base, name=name.strip(), flags=(*base.flags, *flags))


@dataclass(frozen=True, slots=True)
class Running:
    """A server that has answered: its first process, its port, what it printed, and how fast."""

    pid: int
    port: int
    output: Path
    started_in: float


@contextlib.contextmanager
def running(server: Server, case: Case, core: int) -> Iterator[Running]:
    """Start `server` on `core`, wait for its first answer to `case`, kill it in the end.

    The answer is a 200, and a 101 where the case is one of WebSockets; it comes over HTTP/2 and
    TLS where the case does.

    Raises:
        ServerFailed: It ended early, did not answer in time, or had died by the end.
    """
    port = free_port()
    output = environment.WORK / f"{server.name.replace('/', '-').replace(' ', '-')}.log"
    with output.open("wb") as sink:
        before = time.perf_counter()
        with pinned(core):
            process = subprocess.Popen(
                server.command(case, port),
                cwd=environment.ROOT,
                env=environment.variables(),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    try:
        _await_answer(process, case, port, output)
        yield Running(process.pid, port, output, time.perf_counter() - before)
        if process.poll() is not None:
            raise ServerFailed(f"it died during the run: {_last_words(output)}")
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        _await_empty_group(process.pid)
        output.unlink(missing_ok=True)


def _await_answer(process: subprocess.Popen[bytes], case: Case, port: int, output: Path) -> None:
    deadline = time.perf_counter() + START_SECONDS
    reason = "no 2xx"
    while time.perf_counter() < deadline:
        try:
            if _answers(case, port):
                return
        except OSError as failure:
            reason = str(failure)
        if process.poll() is not None:
            raise ServerFailed(f"it ended with status {process.returncode}: {_last_words(output)}")
        time.sleep(0.001)
    raise ServerFailed(f"no answer within {START_SECONDS:.0f} s ({reason}): {_last_words(output)}")


def _answers(case: Case, port: int) -> bool:
    target = case.request.target
    if case.streams:
        with http2.Client((HOST, port), _trust(case)) as client:
            return client.ask(Request(target=target)).status == 200
    if case.way is Way.SCGI:
        return scgi.ask((HOST, port), Request(target=target)).status == 200
    question = f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
    status = b"200"
    if case.message is not None:
        question, status = websocket.question(HOST, target, websocket.new_key()), b"101"
    with contextlib.ExitStack() as stack:
        link = stack.enter_context(socket.create_connection((HOST, port), timeout=5))
        if trust := _trust(case):
            link = stack.enter_context(trust.wrap_socket(link, server_hostname=HOST))
        link.sendall(question)
        return link.recv(65536).split(b" ", 2)[1:2] == [status]


def _trust(case: Case) -> ssl.SSLContext | None:
    if not case.tls:
        return None
    return certificate.trusting("h2" if case.streams else "http/1.1")


def _await_empty_group(group: int) -> None:
    # Workers whose parent is gone are reaped by init, a little later than they are killed.
    deadline = time.perf_counter() + 2
    while time.perf_counter() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.001)


def _last_words(output: Path) -> str:
    return environment.anonymous(_last_line(output.read_text(errors="replace")))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it printed nothing"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def check_answer(case: Case, port: int) -> None:
    """Send `case`'s request, or its message, twice and compare what comes back.

    Over SCGI that takes two connections, else it must do with one.

    Raises:
        ServerFailed: The status, the body, an echoed header or a message is wrong; the text of
            the failure says which.
    """
    if case.message is not None:
        return _check_sockets(case, case.message, port)
    check = _check_streams if case.streams else _check_requests
    if case.way is Way.SCGI:
        check = _check_scgi
    try:
        check(case, port, [_numbered(case.request, n) for n in ("1000000000001", "1000000000002")])
    except (OSError, http.client.HTTPException) as failure:
        raise ServerFailed(f"wrong answer: {type(failure).__name__}: {failure}") from failure


def _numbered(request: Request, number: str) -> Request:
    return dataclasses.replace(
        request, headers=tuple((k, v.replace(MARK, number)) for k, v in request.headers)
    )


def _check_requests(case: Case, port: int, requests: list[Request]) -> None:
    trust = _trust(case)
    link = (
        http.client.HTTPSConnection(HOST, port, timeout=10, context=trust)
        if trust
        else http.client.HTTPConnection(HOST, port, timeout=10)
    )
    with contextlib.closing(link):
        for request in requests:
            link.request(
                request.method, request.target, request.body or None, dict(request.headers)
            )
            response = link.getresponse()
            _compare(case, request, response.status, response.getheader, response.read())
            if response.will_close:
                raise ServerFailed("wrong answer: it closes the connection after one request")


def _check_streams(case: Case, port: int, requests: list[Request]) -> None:
    with http2.Client((HOST, port), _trust(case)) as client:
        for request in requests:
            answer = client.ask(request)
            _compare(case, request, answer.status, answer.field, answer.body)


def _check_scgi(case: Case, port: int, requests: list[Request]) -> None:
    for request in requests:
        answer = scgi.ask((HOST, port), request)
        _compare(case, request, answer.status, answer.field, answer.body)


def _compare(
    case: Case, request: Request, status: int, field: Callable[[str], str | None], body: bytes
) -> None:
    if status != case.status:
        raise ServerFailed(f"wrong answer: status {status}, not {case.status}")
    if body != case.body:
        raise ServerFailed(
            f"wrong answer: a body of {len(body)} bytes that is not the expected "
            f"{len(case.body)} bytes"
        )
    for name in case.echoes:
        if field(name) != dict(request.headers)[name]:
            raise ServerFailed(f"wrong answer: {name} came back changed")


def _check_sockets(case: Case, message: Message, port: int) -> None:
    with contextlib.ExitStack() as stack:

        def join(target: str) -> socket.socket:
            link = websocket.connect((HOST, port), target)
            stack.callback(websocket.leave, link)
            return link

        try:
            speaker = join(case.request.target)
            fans_out = case.kind is Kind.FANOUT
            listeners = [join(AUDIENCE), join(AUDIENCE)] if fans_out else [speaker]
            for _ in range(2):
                said = message.sample()
                websocket.send(speaker, message.opcode, said)
                for listener in listeners:
                    if websocket.receive(listener) != (message.opcode, said):
                        raise ServerFailed("wrong answer: a message came back changed")
        except OSError as failure:
            raise ServerFailed(f"wrong answer: {failure}") from failure
