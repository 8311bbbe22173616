"""The life of the process: exit codes, lifespan, and how it stops."""

from __future__ import annotations

import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Serve, ServerProcess, Wire

HALF = b"POST /count HTTP/1.1\r\nhost: e2e\r\ncontent-length: 2\r\n\r\na"
"""A request whose second half the test sends when it wants the answer."""


def failed(server: ServerProcess, code: int) -> str:
    """Wait for a process that is expected to fail; returns what it said."""
    server.expected_code = code
    assert server.wait() == code, str(server.output)
    return str(server.output)


def begin(server: ServerProcess, target: str) -> Wire:
    """Send a request and read the head of its response."""
    wire = server.connect()
    wire.send(b"GET %b HTTP/1.1\r\nhost: e2e\r\n\r\n" % target.encode())
    assert wire.head().status == 200
    return wire


def until_refused(server: ServerProcess) -> None:
    """Wait until the listeners are closed, without leaving connections behind."""
    deadline = time.monotonic() + 10
    while not server.refuses():
        assert time.monotonic() < deadline, "it still accepts connections"
        time.sleep(0.01)  # every one of these is a connection that the server has to close


# ---------------------------------------------------------------- what it cannot start


def test_a_module_that_is_not_there_is_exit_code_3(serve: Serve) -> None:
    server = serve("nowhere:app", wait=False)

    said = failed(server, 3)

    assert said.startswith("omnicorn: there is no module 'nowhere'")
    assert "Traceback" not in said


def test_a_near_miss_of_a_module_is_pointed_out(serve: Serve) -> None:
    assert "'plain'" in failed(serve("plainn:app", wait=False), 3)


@pytest.mark.parametrize(
    ("app", "reason"),
    [("plain:ap", "has no attribute 'ap'"), ("lives:not_callable", "which is not callable")],
)
def test_an_attribute_that_is_no_application_is_exit_code_3(
    serve: Serve, app: str, reason: str
) -> None:
    assert reason in failed(serve(app, wait=False), 3)


def test_an_application_that_raises_at_import_is_exit_code_3_with_its_traceback(
    serve: Serve,
) -> None:
    server = serve("broken:app", wait=False, errors=True)

    lines = failed(server, 3).splitlines()

    assert lines[0] == "Traceback (most recent call last):"
    assert "broken.py" in lines[1]
    assert lines[-1].startswith("omnicorn: cannot import broken: it raised RuntimeError: this")


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_startup_failed_is_exit_code_3_with_the_applications_message(
    serve: Serve, mode: str
) -> None:
    server = serve("lives:startup_failed", "--lifespan", mode, wait=False)

    said = failed(server, 3)

    assert said.count("the database is down") == 1
    assert "serving" not in said and "Traceback" not in said


def test_a_startup_that_raises_is_exit_code_3_where_lifespan_is_demanded(serve: Serve) -> None:
    server = serve("lives:startup_raises", "--lifespan", "on", wait=False, errors=True)

    said = failed(server, 3)

    assert "the application's lifespan raised RuntimeError: the cache is down" in said
    assert "Traceback" in said and "lives.py" in said


def test_a_lifespan_that_returns_early_is_exit_code_3_where_it_is_demanded(serve: Serve) -> None:
    server = serve("lives:returns_early", "--lifespan", "on", wait=False)

    assert "returned from its lifespan before startup was complete" in failed(server, 3)


@pytest.mark.parametrize("app", ["lives:startup_raises", "lives:returns_early"])
def test_an_application_without_lifespan_starts_at_once(serve: Serve, app: str) -> None:
    server = serve(app)

    assert server.get("/").body == b"works without it"


def test_lifespan_can_be_off(serve: Serve) -> None:
    server = serve("plain:app", "--lifespan", "off")

    assert server.get("/").body == b"hello"
    assert server.stop() == 0
    assert not server.matching("startup|shutdown")


def test_a_factory_is_called(serve: Serve) -> None:
    assert serve("lives:factory", "--factory").get("/").body == b"works without it"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--prot", "1"], "unknown flag --prot"),
        (["--port", "70000"], "70000"),
        (["--loop", "tornado"], "tornado"),
        (["--access-log-format", "%(nonsense)s", "--port", "0"], "nonsense"),
        (["--uds", "/nowhere/at/all/app.sock"], "there is no directory '/nowhere/at/all'"),
        (["--fd", "999"], "fd://999: that descriptor is not open"),
        (["--log-config", "nowhere.ini", "--port", "0"], "nowhere.ini"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_usage_is_exit_code_2_and_named(
    serve: Serve, options: list[str], reason: str
) -> None:
    argv = [sys.executable, "-m", "omnicorn", *options, "plain:app"]

    said = failed(serve.run(argv), 2)

    assert said.splitlines()[-1].startswith("omnicorn: ")
    assert reason in said and "Traceback" not in said


def test_no_application_is_exit_code_2(serve: Serve, tmp_path: Path) -> None:
    server = serve.run([sys.executable, "-m", "omnicorn"], cwd=tmp_path)

    assert "no application is given" in failed(server, 2)


def test_a_port_in_use_is_exit_code_2_and_named_and_nothing_is_started(
    serve: Serve,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        server = serve("plain:app", "--port", str(port), wait=False)

        said = failed(server, 2)

    assert f"omnicorn: cannot listen on 127.0.0.1:{port}: the address is in use" in said
    assert "startup" not in server.lines


# -------------------------------------------------------------------------- how it stops


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_an_idle_server_at_once_with_exit_code_0(
    serve: Serve, loop_name: str, number: int
) -> None:
    server = serve("plain:app", loop=loop_name)
    server.get("/")

    began = time.monotonic()
    assert server.stop(number) == 0

    assert time.monotonic() - began < 5  # not the 30 s of grace
    assert server.lines.count("startup") == server.lines.count("shutdown") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_drain_finishes_what_is_in_flight_and_closes_the_rest_at_once(
    serve: Serve, loop_name: str, number: int
) -> None:
    server = serve("plain:app", loop=loop_name)
    silent, idle, busy = server.connect(), server.connect(), server.connect()
    with silent, idle, busy:
        assert idle.get("/").status == 200
        busy.send(HALF)
        server.wait_for("reading")

        server.kill(number)

        assert idle.is_closed()
        assert silent.is_closed()
        until_refused(server)
        assert "shutdown" not in server.lines
        busy.send(b"b")
        response = busy.response()
        assert (response.body, response.header("connection")) == (b"2", "close")
        assert busy.is_closed()

    assert server.wait() == 0
    assert "shutdown" in server.lines


def test_the_next_of_pipelined_requests_is_not_begun_while_draining(serve: Serve) -> None:
    server = serve("plain:app")
    with server.connect() as wire:
        wire.send(HALF)
        server.wait_for("reading")

        server.kill()
        until_refused(server)
        wire.send(b"bGET /numbered?2 HTTP/1.1\r\nhost: e2e\r\n\r\n")

        assert wire.response().body == b"2"
        assert wire.is_closed()

    assert server.wait() == 0
    assert not server.matching("numbered")


def test_a_response_that_has_begun_is_sent_to_its_end(serve: Serve) -> None:
    server = serve("plain:app", "--timeout-graceful-shutdown", "20")
    size = 32 << 20
    with begin(server, f"/flood?size={size}") as wire:  # more than the system's buffers hold
        server.kill()
        until_refused(server)
        assert sum(map(len, wire.chunks())) == size

    assert server.wait() == 0


def test_an_endless_stream_is_told_to_end_at_half_of_the_grace(serve: Serve) -> None:
    server = serve("plain:app", "--timeout-graceful-shutdown", "2")
    with begin(server, "/endless") as wire:
        began = time.monotonic()
        server.kill()

        content = b"".join(wire.chunks())

        elapsed = time.monotonic() - began
        assert content.endswith(b"tickbye")  # and what it says last still arrives
        assert wire.is_closed()
    assert 0.9 < elapsed < 1.9

    assert server.wait() == 0
    assert "endless saw http.disconnect" in server.lines
    assert "shutdown" in server.lines


def test_an_application_that_ignores_it_is_cancelled_at_the_end_of_the_grace(serve: Serve) -> None:
    server = serve("plain:app", "--timeout-graceful-shutdown", "2")
    with begin(server, "/deaf") as wire:
        began = time.monotonic()
        server.kill()

        assert wire.take(10) == b"5\r\nbegun\r\n"
        assert wire.is_closed()  # without the last chunk

        elapsed = time.monotonic() - began
    assert 1.9 < elapsed < 4

    assert server.wait() == 0
    server.wait_for("deaf was cancelled")
    server.wait_for("1 requests are cancelled and 1 connections cut: 2 s")
    assert server.lines.count("shutdown") == 1


def test_a_second_signal_hurries(serve: Serve, loop_name: str) -> None:
    server = serve("plain:app", loop=loop_name)
    with begin(server, "/deaf") as wire, server.connect() as idle:
        server.kill()
        assert idle.is_closed()  # the drain has begun
        began = time.monotonic()

        server.kill()

        assert server.wait() == 0
        assert time.monotonic() - began < 5
        assert wire.take(10) == b"5\r\nbegun\r\n" and wire.is_closed()

    assert "deaf was cancelled" in server.lines
    assert "shutdown" in server.lines


def test_the_end_of_the_grace_and_a_second_signal_also_end_requests_still_arriving(
    serve: Serve,
) -> None:
    server = serve("plain:app")
    with server.connect() as wire, server.connect() as idle:
        wire.send(HALF)
        server.wait_for("reading")
        server.kill()
        assert idle.is_closed()

        server.kill()

        # It was told on the way, and so could still say that it has no answer.
        assert wire.response().status == 503
        assert server.wait() == 0
        assert wire.is_closed()


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("lives:shutdown_failed", "the queue is not empty"),
        ("lives:shutdown_raises", "the shutdown has a bug"),
    ],
)
def test_a_shutdown_that_fails_is_logged_and_ends_the_process(
    serve: Serve, app: str, said: str
) -> None:
    server = serve(app, errors=True)

    assert server.stop() == 0

    assert said in str(server.output)


def test_a_signal_ends_a_startup_that_hangs(serve: Serve) -> None:
    server = serve("lives:startup_hangs", wait=False)
    server.expected_code = None
    server.wait_for("startup hangs")

    server.kill()

    assert server.ends_within(1.5)


def test_a_second_signal_ends_a_shutdown_that_hangs(serve: Serve) -> None:
    server = serve("lives:shutdown_hangs")
    server.expected_code = None
    server.kill()
    server.wait_for("shutdown hangs")

    server.kill()

    assert server.ends_within(1.5)


def test_an_application_that_goes_on_without_its_client_still_counts_as_in_progress(
    serve: Serve,
) -> None:
    server = serve("plain:app", "--timeout-graceful-shutdown", "2")
    with server.connect() as wire:
        wire.send(b"GET /hold HTTP/1.1\r\nhost: e2e\r\n\r\n")
        server.wait_for("holding")
    # The client is gone, the application is not: it counts as a request in progress.
    assert server.get("/").status == 200

    assert server.stop() == 0
    assert len(server.matching("1 requests are cancelled")) == 1
    assert "shutdown" in server.lines


@pytest.mark.slow  # the application gets 5 s to heed its cancellation, the loop 5 s to end
def test_an_application_that_ignores_its_cancellation_does_not_keep_the_process(
    serve: Serve,
) -> None:
    server = serve("plain:app", "--timeout-graceful-shutdown", "0.2", errors=True)
    server.expected_code = 1
    with server.connect() as wire:
        wire.send(b"GET /stubborn HTTP/1.1\r\nhost: e2e\r\n\r\n")
        server.wait_for("deaf to its cancellation")
        server.kill()
        server.wait_for("1 applications ignore their cancellation", seconds=20)
        server.wait_for("ended by force", seconds=20)
        assert server.process.wait(20) == 1
