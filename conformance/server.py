"""The server under test: a command line, started for one run of a suite and ended behind it.

What this file alone decides: how a server is started and ended, and what is asked of it besides
its answers.  Rules:

- The command line is all the configuration there is: variables that would configure a server do
  not reach it.  omnicorn runs with its defaults, apart from its access log.
- It is started on a free port of the loopback interface and waited for until it accepts.
- It has to outlive the run and log no traceback.  A suite cannot see either where a failed
  connection is what it expects.
- It leads a process group, which is killed in the end: nothing outlives the run.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
OMNICORN = (
    f"{shlex.quote(sys.executable)} -m omnicorn --host {HOST} --port {{port}} --loop {{loop}}"
    " --no-access-log --log-level warning conformance.echo:app"
)
START_SECONDS = 20.0
STOP_SECONDS = 10.0
_CONFIGURING = ("OMNICORN_", "UVICORN_", "GRANIAN_", "PYTHON", "WEB_CONCURRENCY", "PORT")


class ServerFailed(Exception):
    """The server did not start."""


def argv(template: str, *, loop: str, port: int) -> list[str]:
    """Split a command line as a shell would, with `{loop}` and `{port}` filled in.

    Raises:
        ValueError: It cannot be split, is empty, or has no `{port}`.
    """
    words = shlex.split(template)
    if not any("{port}" in word for word in words):
        raise ValueError(f"{template!r}: expected a command with {{port}} in it")
    return [word.replace("{port}", str(port)).replace("{loop}", loop) for word in words]


class Server:
    """A server that accepts connections on `port`, and logs into `log`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self._process = process

    def complaints(self) -> list[str]:
        """What is wrong with it by now, apart from its answers; nothing if all is well."""
        found = []
        if (status := self._process.poll()) is not None:
            found.append(f"the server ended with status {status}: {last_words(self.log)}")
        if count := self.log.read_text("utf-8", "replace").count("Traceback (most recent"):
            found.append(f"the server logged {count} tracebacks, see {shown(self.log)}")
        return found


@contextlib.contextmanager
def running(template: str, *, loop: str, log: Path) -> Iterator[Server]:
    """Start a server, wait until it accepts, end it behind the block.

    Raises:
        ServerFailed: The command cannot be run, ended early, or did not accept in time.
    """
    port = free_port()
    command = argv(template, loop=loop, port=port)
    with log.open("wb") as sink:
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=variables(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as failure:
            raise ServerFailed(f"cannot run {command[0]}: {failure.strerror}") from failure
    try:
        _await_acceptance(process, port, log)
        yield Server(process, port, log)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the leader of a process group to end, then kill what is left of the group."""
    try:
        process.terminate()
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Nobody is left; macOS says so with the second one.
        pass
    process.wait()


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of what is started: nothing that configures a server; our packages."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_CONFIGURING)}
    return {**kept, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def last_words(log: Path) -> str:
    """The last line of a log, for messages."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    return next((line[:200] for line in reversed(lines) if line), "it printed nothing")


def shown(path: Path) -> str:
    """A path as a person at the repository's root would type it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _await_acceptance(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(
                f"the server ended with status {process.returncode}: {last_words(log)}"
            )
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise ServerFailed(f"the server did not listen within {START_SECONDS:.0f} s: {last_words(log)}")
