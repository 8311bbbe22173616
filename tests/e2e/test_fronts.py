"""nginx, Apache, lighttpd and HAProxy in front, configured as `docs/guide/behind-a-proxy.md` says.

What this file alone decides: how a front is started (as a child, in the foreground, with what it
writes in a folder of its own) and that what it runs is the block of the document, with no more
changed than addresses. One server process serves every protocol, on unix sockets and on TCP.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ask = Callable[..., "Answer"]

DOCUMENT = Path(__file__).parents[2] / "docs/guide/behind-a-proxy.md"
PACKAGES = {"nginx": "nginx-light", "apache2": "apache2 libapache2-mod-proxy-uwsgi"}

PROTOCOLS = ("SCGI", "uwsgi", "FastCGI")
SPEAKS = {
    "nginx": PROTOCOLS,
    "Apache": PROTOCOLS,
    "lighttpd": PROTOCOLS,
    "HAProxy": ("FastCGI",),
}
WAYS = ("unix", "tcp")
MIB = 1 << 20


class Route(NamedTuple):
    """One front, one protocol, one kind of socket."""

    front: str
    protocol: str
    way: str

    def __str__(self) -> str:
        return "-".join(self)


ROUTES = [
    Route(front, protocol, way)
    for front, protocols in SPEAKS.items()
    for protocol in protocols
    for way in WAYS
]
TAKES_CHUNKED = [r for r in ROUTES if r.front == "nginx" or tuple(r[:2]) == ("Apache", "FastCGI")]
TUNNELS = [r for r in ROUTES if r.front == "nginx" and r.protocol in ("SCGI", "uwsgi")]


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def scope(self) -> Any:
        return json.loads(self.body)


# ---------------------------------------------------------------- the server and the fronts


class Upstream(NamedTuple):
    """The server."""

    process: Any
    folder: Path
    ports: dict[str, int]

    def path(self, protocol: str) -> Path:
        return self.folder / f"{protocol.lower()}.sock"


@pytest.fixture(scope="module")
def upstream(serve_module: Any) -> Iterator[Upstream]:
    # Not pytest's folder: fronts that give up being root could not get into it.
    folder = Path(tempfile.mkdtemp(prefix="omnicorn-fronts-"))
    folder.chmod(0o755)
    try:
        options = []
        for protocol in PROTOCOLS:
            scheme = protocol.lower()
            options += ["--bind", f"{scheme}:unix:{folder}/{scheme}.sock"]
            options += ["--bind", f"{scheme}:127.0.0.1:0"]
        process = serve_module(
            "behind:app", *options, "--uds-permissions", "666", addresses=6, errors=True
        )
        ports = {}
        for protocol in PROTOCOLS:
            scheme = protocol.lower()
            line = process.wait_for(rf"is serving on {scheme}://127\.0\.0\.1:\d+")
            ports[protocol] = int(line.rpartition(":")[2])
        yield Upstream(process, folder, ports)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def documented(front: str, protocol: str) -> str:
    """The configuration that the document gives."""
    pattern = rf"```\w+\n# {front}, {protocol}\n(.*?)```"
    found = re.search(pattern, DOCUMENT.read_text(), re.DOTALL)
    assert found is not None, f"the document has no block for {front} and {protocol}"
    return found[1]


def replaced(text: str, old: str, new: str) -> str:
    assert old in text, f"{old!r} does not stand in:\n{text}"
    return text.replace(old, new)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Front:
    """A running front server.

    Attributes:
        ports: Where it listens for each of its routes.
    """

    def __init__(self, name: str, upstream: Upstream, serve: Any) -> None:
        self.name = name
        self._upstream = upstream
        self.folder = upstream.folder / name
        self.folder.mkdir(exist_ok=True)  # where a program is missing, every test comes by
        self.ports = {route: free_port() for route in ROUTES if route.front == name}
        start = getattr(self, f"_{name.lower()}")
        self.process = serve.run(start(), cwd=self.folder)
        self.process.expected_code = None
        self.process.expects_errors = True

    def _program(self, name: str) -> str:
        program = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        if program is None:
            package = PACKAGES.get(name, name)
            pytest.skip(f"{name} is not installed (Debian: apt-get install {package})")
        return program

    def _write(self, text: str) -> str:
        path = self.folder / "front.conf"
        path.write_text(text)
        return str(path)

    def _place(self, route: Route, unix: str, tcp: str) -> str:
        """Where the server is, in the front's words."""
        if route.way == "unix":
            return unix.format(self._upstream.path(route.protocol))
        return tcp.format(self._upstream.ports[route.protocol])

    def _nginx(self) -> list[str]:
        program = self._program("nginx")
        servers = []
        for route, port in self.ports.items():
            block = documented("nginx", route.protocol)
            listen = f"listen 127.0.0.1:{port}; listen unix:{self.folder}/{port}.sock;"
            block = replaced(block, "listen 80;", listen)
            place = self._place(route, "unix:{}", "127.0.0.1:{}")
            servers.append(replaced(block, "unix:/run/omnicorn.sock", place))
            parameters = f"{route.protocol.lower()}_params"
            if not (self.folder / parameters).exists():
                (self.folder / parameters).symlink_to(f"/etc/nginx/{parameters}")
        folders = "".join(
            f"{kind}_temp_path {self.folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
        )
        user = "user root;\n" if os.geteuid() == 0 else ""
        path = self._write(
            f"{user}daemon off;\npid {self.folder}/pid;\nerror_log stderr;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{folders}{''.join(servers)}}}\n"
        )
        return [program, "-e", "stderr", "-c", path]

    def _apache(self) -> list[str]:
        program = self._program("apache2")
        modules = Path("/usr/lib/apache2/modules")
        if not (modules / "mod_proxy_uwsgi.so").exists():
            pytest.skip("mod_proxy_uwsgi is not installed (Debian: libapache2-mod-proxy-uwsgi)")
        names = ["mpm_event", "authz_core", "setenvif", "proxy"]
        names += ["proxy_scgi", "proxy_uwsgi", "proxy_fcgi"]
        lines = [f"LoadModule {name}_module {modules}/mod_{name}.so" for name in names]
        if os.geteuid() == 0:
            lines += ["User www-data", "Group www-data"]
        lines += [
            f"PidFile {self.folder}/pid",
            f"DefaultRuntimeDir {self.folder}",
            f"Mutex file:{self.folder} default",
            "ErrorLog /dev/stderr",
            "ServerName localhost",
            "StartServers 1",
            "AllowEncodedSlashes NoDecode",
        ]
        for route, port in self.ports.items():
            scheme = {"SCGI": "scgi", "uwsgi": "uwsgi", "FastCGI": "fcgi"}[route.protocol]
            block = replaced(
                documented("Apache", route.protocol),
                f"unix:/run/omnicorn.sock|{scheme}://localhost/",
                self._place(
                    route, f"unix:{{}}|{scheme}://localhost/", f"{scheme}://127.0.0.1:{{}}/"
                ),
            )
            lines += [f"Listen 127.0.0.1:{port}", f"<VirtualHost 127.0.0.1:{port}>"]
            lines += [block, "</VirtualHost>"]
        path = self._write("\n".join(lines) + "\n")
        return [program, "-f", path, "-DFOREGROUND"]

    def _lighttpd(self) -> list[str]:
        program = self._program("lighttpd")
        parts = [
            f'server.document-root = "{self.folder}"\n',
            'server.modules = ( "mod_scgi", "mod_fastcgi" )\n',
            'server.errorlog = "/dev/stderr"\n',
            'server.bind = "127.0.0.1"\n',
            f"server.port = {free_port()}\n",
            f'server.upload-dirs = ( "{self.folder}" )\n',
        ]
        for route, port in self.ports.items():
            block = replaced(
                documented("lighttpd", route.protocol),
                '"socket" => "/run/omnicorn.sock"',
                self._place(route, '"socket" => "{}"', '"host" => "127.0.0.1", "port" => {}'),
            )
            parts.append(f'$SERVER["socket"] == "127.0.0.1:{port}" {{\n{block}}}\n')
        return [program, "-D", "-f", self._write("".join(parts))]

    def _haproxy(self) -> list[str]:
        program = self._program("haproxy")
        parts = [
            "global\n    log stderr format raw local0 notice\n"
            "defaults\n    mode http\n    log global\n"
            "    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n"
        ]
        for route, port in self.ports.items():
            block = replaced(
                documented("HAProxy", route.protocol),
                "unix@/run/omnicorn.sock",
                self._place(route, "unix@{}", "127.0.0.1:{}"),
            )
            name = f"omnicorn-{route.way}"
            block = re.sub(r"(fcgi-app|backend) omnicorn\b", rf"\1 {name}", block)
            parts.append(f"{block}\nfrontend {port}\n    bind 127.0.0.1:{port}\n")
            parts.append(f"    default_backend {name}\n")
        return [program, "-db", "-f", self._write("".join(parts))]


@pytest.fixture(scope="module")
def fronts(upstream: Upstream, serve_module: Any) -> Callable[[str], Front]:
    """Starts each front once."""
    running: dict[str, Front] = {}

    def get(name: str) -> Front:
        if name not in running:
            running[name] = Front(name, upstream, serve_module)
        return running[name]

    return get


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def port_of(fronts: Callable[[str], Front], eventually: Any) -> Callable[[Route], int]:
    """The port of a route, when its front is ready."""

    def get(route: Route) -> int:
        front = fronts(route.front)
        port = front.ports[route]

        def ready() -> bool:
            assert front.process.process.poll() is None, f"the front ended:\n{front.process.output}"
            return accepts(port)

        eventually(ready, f"{route.front} accepts on {port}")
        return port

    return get


@pytest.fixture
def ask(port_of: Callable[[Route], int]) -> Ask:
    """Asks through a route: ``ask(route, target, method="GET", body=None, headers={})``."""

    def get(
        route: Route,
        target: str,
        method: str = "GET",
        body: Any = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> Answer:
        client = http.client.HTTPConnection("127.0.0.1", port_of(route), timeout=20)
        try:
            client.request(method, target, body, headers or {}, **more)
            response = client.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            client.close()

    return get


QUICK = {"nginx-SCGI-unix", "nginx-SCGI-tcp", "nginx-uwsgi-tcp", "nginx-FastCGI-unix"}


def through(routes: list[Route], quick: bool = False) -> pytest.MarkDecorator:
    """Every route; all but `QUICK` ones are slow (twenty times the same, through four servers),
    unless the test is *quick*."""
    slow = () if quick else (pytest.mark.slow,)
    return pytest.mark.parametrize(
        "route",
        [pytest.param(r, id=str(r), marks=() if str(r) in QUICK else slow) for r in routes],
    )


# ---------------------------------------------------------------- requests


@through(ROUTES, quick=True)
def test_a_request_is_answered(ask: Ask, route: Route) -> None:
    answer = ask(route, "/hello")

    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.header("content-type") == "text/plain"
    assert answer.header("status") is None


@through(ROUTES, quick=True)
def test_the_scope_is_what_the_client_sent(
    ask: Ask, port_of: Callable[[Route], int], route: Route
) -> None:
    scope = ask(route, "/a%20b/%C3%BC?q=1%202&r", headers={"X-One": "1"}).scope

    assert scope["path"] == "/a b/ü"
    assert scope["raw_path"] == "/a%20b/%C3%BC"
    assert scope["query_string"] == "q=1%202&r"
    assert scope["root_path"] == ""
    assert (scope["method"], scope["http_version"], scope["scheme"]) == ("GET", "1.1", "http")
    names = [name for name, _ in scope["headers"]]
    assert names.count("host") == 1
    assert "content-length" not in names and "content-type" not in names
    assert ["x-one", "1"] in scope["headers"]
    assert scope["client"][0] == "127.0.0.1" and scope["client"][1] > 0
    assert scope["server"][1] == port_of(route)
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert set(scope["extensions"]) <= {"http.response.pathsend", "http.response.zerocopysend"}


@through(ROUTES)
def test_repeated_fields_arrive(port_of: Callable[[Route], int], route: Route) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port_of(route), timeout=20)
    client.putrequest("GET", "/")
    client.putheader("X-Tag", "a")
    client.putheader("X-Tag", "b")
    client.endheaders()
    scope = json.loads(client.getresponse().read())
    client.close()

    tags = [value for name, value in scope["headers"] if name == "x-tag"]
    assert ", ".join(tags) == "a, b"


@through([route for route in ROUTES if route.front in ("nginx", "Apache")])
@pytest.mark.parametrize("name", ["Proxy", "Content-Type"])
def test_repeated_fields_that_are_left_out_do_no_harm(
    port_of: Callable[[Route], int], route: Route, name: str
) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port_of(route), timeout=20)
    client.putrequest("GET", "/")
    client.putheader(name, "text/plain")
    client.putheader(name, "text/html")
    client.endheaders()
    response = client.getresponse()
    body = response.read()
    client.close()

    assert response.status == 200, body
    names = [name for name, _ in json.loads(body)["headers"]]
    assert "proxy" not in names and names.count("content-type") <= 1


@through([route for route in ROUTES if route.front == "nginx"])
def test_a_front_on_a_unix_socket_names_no_client(
    fronts: Any, port_of: Callable[[Route], int], route: Route
) -> None:
    port = port_of(route)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(f"{fronts('nginx').folder}/{port}.sock")
        sock.sendall(b"GET /x HTTP/1.0\r\nHost: example.org\r\n\r\n")
        data = b""
        while piece := sock.recv(65536):
            data += piece
    scope = json.loads(data.partition(b"\r\n\r\n")[2])

    assert scope["client"] is None
    assert scope["http_version"] == "1.0"


# ---------------------------------------------------------------- responses


@through(ROUTES)
@pytest.mark.parametrize("status", [204, 302, 304, 404])
def test_statuses_arrive(ask: Ask, route: Route, status: int) -> None:
    answer = ask(route, f"/{status}")

    assert answer.status == status
    assert answer.body == (b"" if status in (204, 304) else b"hello")
    if status == 302:
        assert answer.header("location") == "http://example.org/elsewhere"


@through(ROUTES)
def test_head_has_the_length_and_no_content(ask: Ask, route: Route) -> None:
    answer = ask(route, "/hello", "HEAD")

    assert (answer.status, answer.body) == (200, b"")


@through(ROUTES)
def test_cookies_stay_apart(ask: Ask, route: Route) -> None:
    answer = ask(route, "/cookies")

    assert [v for name, v in answer.headers if name.lower() == "set-cookie"] == ["a=1", "b=2"]


@through(ROUTES)
def test_a_file_arrives_whole(ask: Ask, route: Route) -> None:
    assert ask(route, "/file").body == bytes(range(256)) * 4096


@through(ROUTES)
def test_32_mib_without_a_length_arrive(ask: Ask, route: Route) -> None:
    body = ask(route, "/big").body

    assert len(body) == 32 * MIB
    assert body == b"".join(bytes([number]) * MIB for number in range(32))


@through(ROUTES)
def test_an_application_that_fails_is_a_500(ask: Ask, route: Route) -> None:
    answer = ask(route, "/error")

    assert (answer.status, answer.body) == (500, b"Internal Server Error")


@through(ROUTES)
@pytest.mark.parametrize("how", ["5", "5000", f"{MIB}&pause"])
def test_a_response_that_breaks_off_is_no_complete_one(ask: Ask, route: Route, how: str) -> None:
    if route.way == "unix" and route.protocol != "FastCGI" and sys.platform != "linux":
        pytest.skip("no other system's unix sockets can say so")
    if tuple(route[:2]) == ("lighttpd", "FastCGI") and "pause" not in how:
        pytest.skip("lighttpd takes what comes along with an END_REQUEST for the whole")
    try:
        answer = ask(route, f"/cut?{how}")
    except (http.client.IncompleteRead, ConnectionError):
        return

    assert answer.status >= 500


@through([route for route in ROUTES if route.protocol != "FastCGI"])
def test_no_complete_response_among_many_is_taken_for_one_that_breaks_off(
    ask: Ask, port_of: Callable[[Route], int], route: Route
) -> None:
    port_of(route)  # now it has started
    upload = UPLOAD[:200_000]
    expected: list[tuple[tuple[Any, ...], int, bytes]] = [
        (("/hello",), 200, b"hello"),
        (("/hello", "HEAD"), 200, b""),
        (("/stream?0",), 200, b""),
        (("/stream?7",), 200, b"piece" * 7),
        (("/stream?3", "HEAD"), 200, b""),
        (("/stream?3", "POST", b"content"), 200, b"piece" * 3),
        (("/204",), 204, b""),
        (("/digest", "POST", upload), 200, told(upload)),
        (("/early", "POST", upload), 403, b"no, thank you"),
        (("/hello",), 200, b"hello"),
    ]

    def some(first: int) -> None:
        for number in range(125):
            question, status, body = expected[(first + number) % len(expected)]
            answer = ask(route, *question)
            assert (answer.status, answer.body) == (status, body), question

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(some, range(8)))


# ---------------------------------------------------------------- uploads

UPLOAD = os.urandom(MIB) * 10


def told(content: bytes) -> bytes:
    """What ``/digest`` answers."""
    return f"{len(content)} {hashlib.sha256(content).hexdigest()}".encode()


DIGEST = told(UPLOAD)


@through(ROUTES)
def test_10_mib_arrive(ask: Ask, route: Route) -> None:
    assert ask(route, "/digest", "POST", UPLOAD).body == DIGEST


@through(TAKES_CHUNKED)
def test_10_mib_of_no_declared_length_arrive(ask: Ask, route: Route) -> None:
    pieces = (UPLOAD[start : start + 65536] for start in range(0, len(UPLOAD), 65536))
    chunked = {"Transfer-Encoding": "chunked"}
    answer = ask(route, "/digest", "POST", pieces, chunked, encode_chunked=True)

    assert answer.body == DIGEST


def answer_to_upload(port: int, size: int, rate: float) -> tuple[int, bytes]:
    """What ``/early`` answers a client that reads while it sends: HAProxy takes no more content
    after the answer.

    Args:
        port: The front's.
        size: Of the content.
        rate: Bytes in a second.
    """
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        over = threading.Event()

        def send() -> None:
            head = f"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
            piece = UPLOAD[: MIB // 8]
            try:
                sock.sendall(head.encode())
                for _ in range(size // len(piece)):
                    sock.sendall(piece)
                    if over.wait(len(piece) / rate):
                        break
            except OSError:
                pass  # the front, or the end of this test, has cut it short

        sender = threading.Thread(target=send)
        sender.start()
        try:
            response = http.client.HTTPResponse(sock)
            response.begin()
            return response.status, response.read()
        finally:
            over.set()
            with suppress(OSError):  # it may be over on both sides
                sock.shutdown(socket.SHUT_RDWR)
            sender.join()


@through(ROUTES)
def test_an_early_answer_to_a_5_mib_upload_arrives(
    port_of: Callable[[Route], int], route: Route
) -> None:
    answer = answer_to_upload(port_of(route), 5 * MIB, float("inf"))

    assert answer == (403, b"no, thank you")


@pytest.mark.slow  # twelve times 32 MiB
@pytest.mark.parametrize("route", [r for r in ROUTES if r.front in ("nginx", "Apache")], ids=str)
def test_an_early_answer_to_a_32_mib_upload_arrives(
    port_of: Callable[[Route], int], route: Route
) -> None:
    answer = answer_to_upload(port_of(route), 32 * MIB, float("inf"))

    assert answer == (403, b"no, thank you")


@pytest.mark.slow  # 5 s each: that is what it is about
@pytest.mark.parametrize("route", [r for r in ROUTES if r.front == "Apache"], ids=str)
def test_an_early_answer_to_a_slow_upload_arrives(
    port_of: Callable[[Route], int], route: Route
) -> None:
    """Apache hands content on as it comes, and reads no answer before it has sent all of it."""
    answer = answer_to_upload(port_of(route), 5 * MIB, 1e6)

    assert answer == (403, b"no, thank you")


# ---------------------------------------------------------------- leaving, WebSockets


@through(ROUTES)
def test_the_application_sees_that_the_client_has_left(
    upstream: Upstream, port_of: Callable[[Route], int], route: Route
) -> None:
    with socket.create_connection(("127.0.0.1", port_of(route)), 20) as sock:
        target = f"/wait?{route}".encode()
        sock.sendall(b"GET %b HTTP/1.1\r\nHost: example.org\r\n\r\n" % target)
        data = b""
        while b"data: 1" not in data:
            piece = sock.recv(65536)
            assert piece, data
            data += piece

    upstream.process.wait_for(f"left {route}")


@through(TUNNELS)
def test_a_websocket_is_tunnelled(port_of: Callable[[Route], int], route: Route) -> None:
    websockets = pytest.importorskip("websockets.asyncio.client", reason="websockets is missing")
    port = port_of(route)

    async def talk() -> list[Any]:
        async with websockets.connect(f"ws://127.0.0.1:{port}/ws", max_size=None) as socket:
            answers = []
            for message in ("hello", "ü" * 100_000, os.urandom(MIB)):
                await socket.send(message)
                answers.append(await socket.recv() == message)
            return answers

    assert asyncio.run(talk()) == [True, True, True]


@through([route for route in ROUTES if route.front == "nginx" and route.protocol == "FastCGI"])
def test_a_websocket_over_fastcgi_is_an_ordinary_request(ask: Ask, route: Route) -> None:
    key = base64.b64encode(b"x" * 16).decode()
    answer = ask(
        route,
        "/hello",
        headers={
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
        },
    )

    assert answer.status == 200
