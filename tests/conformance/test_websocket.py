"""A whole run of Autobahn's suite, with a client of a few lines in the suite's place."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance import __main__ as command
from conformance import autobahn

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., int]

FRAMES = Path(__file__).resolve().parent.parent / "frames.py"

WSTEST = f"""#!{sys.executable}
import importlib.util, json, pathlib, socket, sys
from urllib.parse import urlsplit

found = importlib.util.spec_from_file_location("frames", {str(FRAMES)!r})
frames = importlib.util.module_from_spec(found)
found.loader.exec_module(frames)


def until(connection, end, data=b""):
    while end not in data:
        more = connection.recv(4096)
        assert more, data
        data += more
    return data


def verdicts(address, opcode):
    with socket.create_connection(address, 10) as connection:
        lines = ["GET / HTTP/1.1", "host: x", *frames.HANDSHAKE, "", ""]
        connection.sendall("\\r\\n".join(lines).encode())
        assert until(connection, b"\\r\\n\\r\\n").startswith(frames.SWITCHED)
        connection.sendall(frames.frame(opcode, b"hello"))
        echo = until(connection, b"hello")
        connection.sendall(frames.closing(1000))
        close = until(connection, (1000).to_bytes(2, "big"))
    return (
        "OK" if frames.frames(echo) == [(opcode, b"hello")] else "FAILED",
        "OK" if frames.frames(close) == [(frames.CLOSE, b"\\x03\\xe8")] else "UNCLEAN",
    )


specification = json.loads(pathlib.Path(sys.argv[4]).read_text())
(server,) = specification["servers"]
url = urlsplit(server["url"])
report = pathlib.Path(specification["outdir"])
report.mkdir()
cases = {{"1.1.1": frames.TEXT, "1.2.1": frames.BINARY}}
print("Cases =", [*cases])
index = {{}}
for name, opcode in cases.items():
    print("Running test case ID", name, "for agent", server["agent"])
    behavior, close = verdicts((url.hostname, url.port), opcode)
    index[name] = {{"behavior": behavior, "behaviorClose": close, "reportfile": name + ".json"}}
    details = {{"result": "Not echoed.", "resultClose": "Closed.", "remoteCloseCode": 1000}}
    (report / (name + ".json")).write_text(json.dumps(details))
(report / "index.json").write_text(json.dumps({{server["agent"]: index}}))
"""

DEAF = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.accept()[0].close()  # whoever waits for the server
print("Traceback (most recent call last):", flush=True)
for _ in range(2):
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\\r\\nconnection: Upgrade\\r\\nupgrade: websocket\\r\\n"
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\\r\\n\\r\\n"
    )
    connection.recv(4096)
    connection.sendall(b"\\x81\\x05hello")  # text, whatever came
    connection.recv(4096)
    connection.sendall(b"\\x88\\x02\\x03\\xe8")
    connection.close()
listener.accept()
"""


def script(path: Path, content: str) -> str:
    path.write_text(content)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, where a Python 2.7 and the suite are installed already."""
    python2 = script(tmp_path / "python2.7", '#!/bin/sh\necho "2.7 $0"\n')
    programs = tmp_path / "work" / "venv" / "bin"
    programs.mkdir(parents=True)
    stamp = programs.parent / "conformance-stamp"
    stamp.write_text(f"{python2}\n{autobahn.REQUIREMENT}\n")
    script(programs / "wstest", WSTEST)
    monkeypatch.setattr(command, "WORK", tmp_path / "work")
    return lambda *arguments: command.main([*arguments, "--python2", python2])


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_every_case_passes_on_omnicorn(
    run: Run, loop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if loop == "trio":
        pytest.importorskip("trio", reason="trio is not installed")

    assert run("--loop", loop) == 0

    said = capsys.readouterr()
    assert f"{loop}: 2 of 2 cases passed" in said.out
    assert str(tmp_path / "work" / loop / "report" / "index.html") in said.out
    assert "case 1.1.1 (1 of 2)  Framing" in said.err


def test_what_fails_and_what_the_server_logs_is_printed(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    deaf = shlex.join([sys.executable, "-I", "-S", "-c", DEAF])

    assert run("--loop", "asyncio", "--server", f"{deaf} {{port}}") == 1

    out = capsys.readouterr().out
    assert "asyncio: 1 of 2 cases passed" in out
    assert "1.2.1: behavior FAILED, behaviorClose OK\n    Not echoed.\n" in out
    assert "the server logged 1 tracebacks" in out


def test_a_server_that_does_not_start_on_a_loop_gives_no_verdict(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "import sys; sys.exit('no loop ' + sys.argv[2])"
    server = shlex.join([sys.executable, "-I", "-S", "-c", source])

    assert run("--loop", "a,b", "--server", f"{server} {{port}} {{loop}}") == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert "no loop a" in said.err
