from __future__ import annotations

import shlex
import socket
import sys
from typing import TYPE_CHECKING

import pytest
from conformance.server import ServerFailed

from conformance import server

if TYPE_CHECKING:
    from pathlib import Path

LISTENER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.accept()
print("Traceback (most recent call last):" if sys.argv[2] == "loud" else "fine", flush=True)
listener.accept()
"""


def command(source: str, *arguments: str) -> str:
    return f"{shlex.join([sys.executable, '-I', '-S', '-c', source])} {{port}} {{loop}}"


def test_port_and_loop_are_filled_in_without_a_shell() -> None:
    assert server.argv("serve 'a b' --on={port} {loop} $X", loop="uvloop", port=80) == [
        "serve",
        "a b",
        "--on=80",
        "uvloop",
        "$X",
    ]


def test_a_server_is_waited_for_and_ended(tmp_path: Path) -> None:
    with server.running(command(LISTENER), loop="still", log=tmp_path / "log") as running:
        socket.create_connection((server.HOST, running.port)).close()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.HOST, running.port))
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_server_that_ends_early_is_quoted(tmp_path: Path) -> None:
    source = "raise SystemExit('no such loop')"

    with (
        pytest.raises(ServerFailed, match="status 1: no such loop"),
        server.running(command(source), loop="still", log=tmp_path / "log"),
    ):
        raise AssertionError("it is not running")


def test_a_server_that_does_not_listen_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "START_SECONDS", 0.05)
    source = "import signal; signal.pause()"

    with (
        pytest.raises(ServerFailed, match="did not listen"),
        server.running(command(source), loop="still", log=tmp_path / "log"),
    ):
        raise AssertionError("it is not running")


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerFailed, match="cannot run /nowhere/serve"),
        server.running("/nowhere/serve {port}", loop="still", log=tmp_path / "log"),
    ):
        raise AssertionError("it is not running")


def test_variables_that_configure_servers_do_not_reach_them() -> None:
    given = {"PATH": "/bin", "OMNICORN_WS": "none", "PORT": "1", "PYTHONPATH": "/x", "HOME": "/h"}

    reached = server.variables(given)

    assert reached.keys() == {"PATH", "HOME", "PYTHONPATH", "PYTHONUNBUFFERED"}
    assert reached["PYTHONPATH"].split(":") == [str(server.ROOT), str(server.ROOT / "src")]
