"""The syntax of a listening address, and nothing about listening.

::

    host:port        127.0.0.1:8000   example.org:80   [::1]:8000
    :port            every interface, IPv4 and IPv6
    unix:path        unix:/run/app.sock (a relative path is relative to the current folder)
    fd://number      a socket that somebody else opened: fd://3

Port 0 asks the system for any free port. A bare port, a bare host and an IPv6 address
without brackets are refused, each with the spelling that works: they are the three
ways in which servers disagree about what was meant. Whether a host resolves or a path
can be created is learnt when the socket is opened, not here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

MAX_PORT = 65535


class Bind(NamedTuple):
    """One place to listen at; only the fields of its kind are meaningful.

    Args:
        kind: ``tcp`` (host, port), ``unix`` (path) or ``fd`` (fd).
        host: Name or address, without brackets; ``""`` is every interface.
        port: 0 is any free port.
        path: Of a Unix socket, as given.
        fd: Number of an inherited, already bound socket.
    """

    kind: Literal["tcp", "unix", "fd"]
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "fd":
            return f"fd://{self.fd}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_bind(text: str) -> Bind:
    """Read one address.

    Raises:
        ValueError: Not an address; the message says how to write it.
    """
    if text.startswith("unix:"):
        return Bind("unix", path=_path(text[5:], text))
    if text.startswith("fd://"):
        if not _is_number(text[5:]):
            raise ValueError(f"{text!r} needs the number of a file descriptor: fd://3")
        return Bind("fd", fd=int(text[5:]))
    if "://" in text:
        raise ValueError(f"{text!r} is a URL: leave out the scheme, as in 127.0.0.1:8000")
    if "/" in text:
        raise ValueError(f"{text!r} looks like a path: a Unix socket is unix:{text}")
    host, colon, port = text.rpartition(":")
    if not colon:
        if _is_number(text):
            raise ValueError(f"{text!r} is a port alone: write :{text} or 127.0.0.1:{text}")
        raise ValueError(f"{text!r} has no port: write {text}:8000")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"{text!r}: brackets are for IPv6 addresses, as in [::1]:8000")
    elif "[" in text or "]" in text:
        raise ValueError(f"{text!r} needs a port after the bracket: [::1]:8000")
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address goes in brackets, as in [::1]:8000")
    if not _is_number(port) or int(port) > MAX_PORT:
        raise ValueError(f"{text!r}: the port must be a number from 0 to {MAX_PORT}")
    return Bind("tcp", host=check_host(host) if host else "", port=int(port))


def check_host(host: str) -> str:
    """Return the host without brackets.

    Raises:
        ValueError: It holds something that no name or address can.
    """
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host:
        raise ValueError("it is empty: 0.0.0.0 or :: is every interface")
    if not host.isprintable() or any(mark in host for mark in " /[]@,"):
        raise ValueError(f"{host!r} is not a host name or an address")
    if host.count(":") == 1:
        raise ValueError(f"{host!r} has a port in it: give that as port, or the whole as bind")
    return host


def _path(path: str, text: str) -> str:
    if path.startswith("//"):
        path = path[2:]
    if not path or "\0" in path:
        raise ValueError(f"{text!r} needs a path: unix:/run/app.sock")
    return path


def _is_number(text: str) -> bool:
    # int() also takes signs, underscores, spaces and digits of other scripts.
    return text.isascii() and text.isdigit()
