"""The same program, once with uvicorn and once with one changed import: the same end."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("uvicorn", reason="uvicorn is not installed")

pytestmark = pytest.mark.slow  # two interpreters for each scenario: twenty seconds together

PROGRAM = """
import asyncio
import os
import signal
import socket
import sys
import threading
import time
from urllib.request import urlopen

if sys.argv[1] == "uvicorn":
    import uvicorn
else:
    from omnicorn.compat import uvicorn

scenario = sys.argv[2]


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if scenario == "refused":
            await send({"type": "lifespan.startup.failed", "message": "not today"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shutdown", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answer"})


def make(**options):
    return uvicorn.Config(app, **{"port": 0, "log_level": "critical", **options})


def started(server):
    while not server.started:
        time.sleep(0.01)


def port_of(server):
    return server.servers[0].sockets[0].getsockname()[1]


def kill_later(server, number):
    def wait_and_kill():
        started(server)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait_and_kill, daemon=True).start()


def ask(port):
    print(urlopen(f"http://127.0.0.1:{port}").read(), flush=True)


server = uvicorn.Server(make())
if scenario in ("SIGINT", "SIGTERM"):
    kill_later(server, getattr(signal, scenario))
    server.run()
elif scenario == "handler":
    signal.signal(signal.SIGTERM, lambda *_: print("my own handler", flush=True))
    kill_later(server, signal.SIGTERM)
    server.run()
    print("returned", server.started, server.should_exit)
elif scenario == "refused":
    uvicorn.run(app, port=0, log_level="critical")
elif scenario == "in use":
    with socket.create_server(("127.0.0.1", 0)) as taken:
        uvicorn.run(app, port=taken.getsockname()[1], log_level="critical")
elif scenario == "not found":
    uvicorn.run("no_such_module:app", port=0, log_level="critical")
elif scenario == "thread":
    thread = threading.Thread(target=server.run)
    thread.start()
    started(server)
    ask(port_of(server))
    server.should_exit = True
    thread.join()
    print("joined", server.started)
elif scenario == "sockets":

    async def main():
        sock = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(ask, sock.getsockname()[1])
        server.should_exit = True
        await serving
        print("closed", sock.fileno())

    asyncio.run(main())
elif scenario == "step by step":

    async def main():
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup()
        await asyncio.to_thread(ask, port_of(server))
        server.should_exit = True
        await server.main_loop()
        await server.shutdown()

    asyncio.run(main())
elif scenario == "requests":
    server = uvicorn.Server(make(limit_max_requests=1))

    def one_request():
        started(server)
        ask(port_of(server))

    threading.Thread(target=one_request, daemon=True).start()
    server.run()
    print("served", server.server_state.total_requests)
print("the end")
"""

SCENARIOS = {
    "SIGINT": 130,
    "SIGTERM": -signal.SIGTERM,
    "handler": 0,
    "refused": 3,
    "in use": 3,
    "not found": 3,
    "thread": 0,
    "sockets": 0,
    "step by step": 0,
    "requests": 0,
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_program_ends_as_with_uvicorn(scenario: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)

    ends = []
    for library in ("uvicorn", "omnicorn"):
        done = subprocess.run(
            [sys.executable, "program.py", library, scenario],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=25,
        )
        # 130 is the shell's word for SIGINT, which Python may say as well.
        code = 130 if done.returncode == -signal.SIGINT else done.returncode
        # uvicorn starts the application before it finds the address in use, we do not.
        ends.append((code, "" if scenario == "in use" else done.stdout))
        assert code == SCENARIOS[scenario], done.stdout + done.stderr

    assert ends[0] == ends[1]
