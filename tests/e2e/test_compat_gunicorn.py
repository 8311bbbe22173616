"""omnicorn as a worker of gunicorn: the contract, seen from outside.

The application tells its process id, so a test sees which worker has answered.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Serve, ServerProcess

pytest.importorskip("gunicorn", reason="gunicorn is not installed")

APP = """
import asyncio
import os
import time


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    print("request for", scope["path"], flush=True)
    if scope["path"] == "/hang":
        time.sleep(60)
    if scope["path"] == "/endless":
        try:
            await asyncio.Event().wait()
        finally:
            print("cancelled", flush=True)
    if scope["path"] == "/slow":
        while not os.path.exists("release"):
            await asyncio.sleep(0.01)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


async def live(receive, send):
    await receive()
    if os.path.exists("refuse"):
        await send({"type": "lifespan.startup.failed", "message": "not today"})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if os.path.exists("clean-up"):
        await asyncio.sleep(1.5)
    print("shutdown of", os.getpid(), flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def on_trio(scope, receive, send):
    import trio

    if scope["type"] == "lifespan":
        raise NotImplementedError
    await trio.sleep(0)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


def wsgi(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.fixture
def gunicorn(serve: Serve, tmp_path: Path) -> Callable[..., ServerProcess]:
    """Starts gunicorn on a free port, with one worker, in the test's own folder."""
    (tmp_path / "own.py").write_text(APP)

    def start(
        *options: str, worker: str = "Worker", app: str = "own:app", wait: bool = True
    ) -> ServerProcess:
        argv = [sys.executable, "-m", "gunicorn", "--worker-tmp-dir", str(tmp_path)]
        argv += ["-k", f"omnicorn.compat.gunicorn.{worker}", "-b", "127.0.0.1:0", *options, app]
        env = {"HOME": str(tmp_path)}  # where gunicorn has its control socket
        server = serve.run(argv, cwd=tmp_path, env=env)
        if wait:
            server.wait_until_serving()
        return server

    return start


def pid_of(server: ServerProcess) -> int:
    """The process that answers."""
    return int(server.get("/").body)


def another(
    server: ServerProcess,
    pid: int,
    eventually: Callable[..., int],
    meanwhile: Callable[[], object] = lambda: None,
) -> int:
    """Wait until another worker than *pid* answers; in between nobody may."""

    def answering() -> int:
        meanwhile()
        try:
            found = pid_of(server)
        except (OSError, AssertionError):  # cut in mid-answer, with its worker
            return 0
        return found if found != pid else 0

    return eventually(answering, "another worker answers")


@pytest.mark.parametrize(
    ("worker", "app"),
    [
        ("Worker", "own:app"),
        pytest.param("AsyncioWorker", "own:app", marks=pytest.mark.slow),  # as Worker, or
        pytest.param("UvloopWorker", "own:app", marks=pytest.mark.slow),  # as Worker
        ("TrioWorker", "own:on_trio"),
        ("Worker", "own:wsgi"),
    ],
)
def test_a_worker_serves_and_ends_with_its_arbiter(
    gunicorn: Callable[..., ServerProcess], worker: str, app: str
) -> None:
    needed = {"UvloopWorker": "uvloop", "TrioWorker": "trio"}.get(worker)
    if needed is not None:
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    server = gunicorn("--access-logfile", "-", worker=worker, app=app)

    assert pid_of(server) != server.process.pid
    server.wait_for(r'127\.0\.0\.1 - - \[.+\] "GET / HTTP/1\.1" 200 \d+ "-" "-"')
    assert server.stop() == 0
    if app == "own:app":
        assert server.matching("shutdown of")


@pytest.mark.slow  # gunicorn boots, and waits in steps of a second
def test_a_hup_replaces_the_workers(
    gunicorn: Callable[..., ServerProcess], eventually: Callable[..., int]
) -> None:
    server = gunicorn()
    before = pid_of(server)

    server.kill(signal.SIGHUP)

    assert another(server, before, eventually) != before
    server.wait_for(f"shutdown of {before}")


def test_a_term_lets_requests_finish(
    gunicorn: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = gunicorn()
    with server.connect() as wire:
        wire.send(b"GET /slow HTTP/1.1\r\nhost: e2e\r\n\r\n")
        server.wait_for("request for /slow")

        server.kill(signal.SIGTERM)
        server.wait_for("Handling signal: term")
        (tmp_path / "release").touch()

        assert wire.response().status == 200
    assert server.wait() == 0


@pytest.mark.slow  # gunicorn boots, and waits in steps of a second
def test_graceful_timeout_leaves_time_for_the_shutdown(
    gunicorn: Callable[..., ServerProcess],
) -> None:
    server = gunicorn("--graceful-timeout", "1")
    with server.connect() as wire:
        wire.send(b"GET /endless HTTP/1.1\r\nhost: e2e\r\n\r\n")
        server.wait_for("request for /endless")

        assert server.stop() == 0

    assert server.matching("cancelled")
    assert server.matching("shutdown of")
    assert not server.matching("SIGKILL")


@pytest.mark.slow  # gunicorn boots, and waits in steps of a second
def test_a_quit_waits_for_no_request_but_for_the_shutdown(
    gunicorn: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    (tmp_path / "clean-up").touch()
    server = gunicorn("--graceful-timeout", "60")
    with server.connect() as wire:
        wire.send(b"GET /endless HTTP/1.1\r\nhost: e2e\r\n\r\n")
        server.wait_for("request for /endless")

        assert server.stop(signal.SIGQUIT) == 0

    assert server.matching("shutdown of")


def test_a_worker_is_replaced_after_so_many_requests(
    gunicorn: Callable[..., ServerProcess], eventually: Callable[..., int]
) -> None:
    server = gunicorn("--max-requests", "3")
    first = pid_of(server)
    assert pid_of(server) == pid_of(server) == first

    assert another(server, first, eventually) != first
    server.wait_for(f"shutdown of {first}")
    assert server.matching(r"Autorestarting worker after \d+ requests")


@pytest.mark.slow  # gunicorn boots, and waits in steps of a second
def test_a_worker_whose_loop_hangs_is_killed(
    gunicorn: Callable[..., ServerProcess], eventually: Callable[..., int]
) -> None:
    server = gunicorn("--timeout", "1")
    server.expects_errors = True
    first = pid_of(server)
    with server.connect() as wire:
        wire.send(b"GET /hang HTTP/1.1\r\nhost: e2e\r\n\r\n")

        server.wait_for(f"WORKER TIMEOUT .*{first}")
        wire.sock.close()

    assert another(server, first, eventually) != first


@pytest.mark.slow  # gunicorn boots, and waits in steps of a second
def test_a_worker_whose_arbiter_is_killed_ends(
    gunicorn: Callable[..., ServerProcess],
) -> None:
    server = gunicorn()
    server.expected_code = -signal.SIGKILL
    pid = pid_of(server)

    server.process.kill()

    server.process.wait()
    server.output.join()  # to the end: the worker has the streams, too, until it ends
    assert server.matching(f"shutdown of {pid}")


@pytest.mark.slow  # gunicorn boots, and waits in steps of a second
def test_a_usr1_opens_the_log_files_again(
    gunicorn: Callable[..., ServerProcess], tmp_path: Path, eventually: Callable[..., bool]
) -> None:
    log = tmp_path / "access.log"
    server = gunicorn("--access-logfile", str(log))
    pid_of(server)
    eventually(log.read_text, "the first line")
    log.rename(tmp_path / "rotated.log")

    server.kill(signal.SIGUSR1)

    eventually(log.exists, "the new file")
    pid_of(server)
    eventually(lambda: log.exists() and log.read_text(), "a line in the new file")


def test_a_lifespan_that_fails_ends_gunicorn(
    gunicorn: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    (tmp_path / "refuse").touch()
    server = gunicorn(wait=False)
    server.expected_code = 3

    assert server.wait() == 3
    assert server.matching("The application did not start: not today")
    assert server.matching("Worker failed to boot")


def test_a_setting_without_an_equivalent_ends_gunicorn(
    gunicorn: Callable[..., ServerProcess],
) -> None:
    server = gunicorn("--protocol", "uwsgi", wait=False)
    server.expected_code = 3

    assert server.wait() == 3
    assert server.matching("--bind uwsgi:127.0.0.1:9000")


@pytest.mark.slow  # gunicorn looks at files once a second
def test_a_changed_file_reloads_the_worker(
    gunicorn: Callable[..., ServerProcess], tmp_path: Path, eventually: Callable[..., int]
) -> None:
    server = gunicorn("--reload", "--reload-engine", "poll")
    before = pid_of(server)

    # Not once: a change before gunicorn's first look is none for it.
    assert another(server, before, eventually, (tmp_path / "own.py").touch) != before
    assert server.matching(f"shutdown of {before}")
