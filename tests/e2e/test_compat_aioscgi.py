"""``omnicorn-scgi`` as aioscgi's users start it: flags, sockets, and what systemd is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.gateways import scgi_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import ServerProcess

    Start = Callable[..., ServerProcess]

COMMAND = "import sys; from omnicorn.compat.aioscgi import main; sys.exit(main())"


@pytest.fixture
def start(serve: Any, loop: str) -> Start:
    """Starts the command: ``start(*flags, passed=None, env={})``; *passed* as systemd does."""

    def run(
        *flags: str, passed: socket.socket | None = None, env: dict[str, str] | None = None
    ) -> ServerProcess:
        command = [sys.executable, "-c", COMMAND]
        if loop == "trio":
            command += ["--adapter", "trio"]
        command += [*flags, "plain:app"]
        variables = {**(env or {}), **({} if loop == "trio" else {"OMNICORN_LOOP": loop})}
        if passed is None:
            server = serve.run(command, variables)
        else:
            become = (
                f"import os; os.dup2({passed.fileno()}, 3)\n"
                "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
                f"os.execv({command[0]!r}, {command!r})"
            )
            start = [sys.executable, "-c", become]
            server = serve.run(start, variables, [passed.fileno()])
        server.wait_until_serving()
        return server  # type: ignore[no-any-return]

    return run


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd would listen, NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.bind(str(tmp_path / "notify"))
        yield sock


def connect(address: Any) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    sock.settimeout(20)
    sock.connect(address)
    return sock


def rest(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def ask(address: Any, path: str = "/scope", **variables: str) -> Any:
    with connect(address) as sock:
        sock.sendall(scgi_request(REQUEST_URI=path, **variables))
        head, _, body = rest(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"Status: 200 OK\r\n")
    return json.loads(body)


def test_it_serves_on_unix_sockets_and_tcp_at_once(
    start: Start, tmp_path: Path, loop_name: str
) -> None:
    path = str(tmp_path / "app.sock")
    server = start("-u", path, "--tcp", "127.0.0.1:0")
    server.wait_until_serving(2)
    found = sorted(server.addresses)
    port = int(found[0].rpartition(":")[2])

    assert found == [f"scgi://127.0.0.1:{port}", f"scgi:unix:{path}"]
    for address in (path, ("127.0.0.1", port)):
        scope = ask(address, REMOTE_ADDR="192.0.2.7", REMOTE_PORT="4711")
        assert scope["client"] == ["192.0.2.7", 4711]
    assert server.stop() == 0
    assert not os.path.exists(path)


def test_the_base_uri_is_the_root_path(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    start("--unix-socket", path, "--base-uri", "/base/")
    scope = ask(path, "/base/scope")

    assert (scope["root_path"], scope["path"]) == ("/base", "/base/scope")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_systemd_passes_the_socket_and_is_told_of_the_beginning_and_the_end(
    start: Start, manager: socket.socket, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        server = start("--systemd", passed=listener, env={"NOTIFY_SOCKET": manager.getsockname()})
        told = manager.recv(1000).decode()
    assert told == f"READY=1\nSTATUS=Serving on scgi://127.0.0.1:{address[1]}"

    with connect(address) as sock:
        sock.sendall(scgi_request(b"12345", REQUEST_URI="/count", REQUEST_METHOD="POST")[:-2])
        server.wait_for("reading")
        server.kill(number)
        assert manager.recv(1000).startswith(b"STOPPING=1\n"), "the drain begins"
        sock.sendall(b"45")
        assert rest(sock).endswith(b"\r\n\r\n5")
    assert server.wait() == 0


def test_without_an_address_it_says_what_is_missing(serve: Any) -> None:
    server = serve.run([sys.executable, "-c", COMMAND, "plain:app"])
    server.expected_code = 2

    assert server.wait() == 2
    assert server.matching("nothing to listen on: give --unix-socket or --tcp")
