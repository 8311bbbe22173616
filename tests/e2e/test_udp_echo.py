"""The UDP example: a real process, real datagrams."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "examples" / "udp_echo.py"


class Example:
    """The server's process and address."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.address = ("127.0.0.1", port)

    def client(self) -> socket.socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(10)
        client.connect(self.address)
        return client


@pytest.fixture
def example() -> Iterator[Example]:
    with subprocess.Popen(
        [sys.executable, "-X", "dev", str(EXAMPLE), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield Example(process, int(line.rpartition(" ")[2]))
        finally:
            process.kill()


def test_each_address_has_an_instance_of_its_own(example: Example) -> None:
    with example.client() as anna, example.client() as bob:
        answers = []
        for client, data in [(anna, b"hello"), (bob, b"hi"), (anna, b""), (anna, b"again")]:
            client.send(data)
            answers.append(client.recv(100))
    assert answers == [b"1: hello", b"1: hi", b"2: ", b"3: again"]


def test_ctrl_c_ends_it_without_a_complaint(example: Example) -> None:
    with example.client() as client:
        client.send(b"hello")
        assert client.recv(100) == b"1: hello"
        example.process.send_signal(signal.SIGINT)
        stdout, stderr = example.process.communicate(timeout=10)
    assert (example.process.returncode, stdout, stderr) == (0, "", "")
