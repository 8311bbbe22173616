"""The syntax of a listening address, and nothing about listening.

::

    host:port        127.0.0.1:8000   example.org:80   [::1]:8000
    host             the same on port 8000
    :port            every interface, IPv4 and IPv6
    unix:path        unix:/run/app.sock (a relative path is relative to the current folder)
    fd://number      a socket that somebody else opened: fd://3

Before each of them may stand what is spoken there, and a colon: ``http`` (the default),
``scgi``, ``uwsgi``, ``fastcgi`` or ``fcgi``, as in ``scgi:unix:/run/app.sock``. A host of
such a name needs the scheme in front of it.

Port 0 asks the system for any free port. A bare port and an IPv6 address without
brackets are refused, each with the spelling that works: servers disagree about what
they mean. Whether a host resolves or a path can be created is learnt when the socket is
opened, not here.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

MAX_PORT = 65535
#: The port of a host that is given without one.
DEFAULT_PORT = 8000

Scheme = Literal["http", "scgi", "uwsgi", "fastcgi"]

_SCHEMES: Final[dict[str, Scheme]] = {
    "http": "http",
    "scgi": "scgi",
    "uwsgi": "uwsgi",
    "fastcgi": "fastcgi",
    "fcgi": "fastcgi",
}


class Bind(NamedTuple):
    """One place to listen at; only the fields of its kind are meaningful.

    Args:
        kind: ``tcp`` (host, port), ``unix`` (path) or ``fd`` (fd).
        host: Name or address, without brackets; ``""`` is every interface.
        port: 0 is any free port.
        path: Of a Unix socket, as given.
        fd: Number of an inherited, already bound socket.
        scheme: What is spoken there. HTTP is HTTPS where the server has TLS; the others,
            spoken with a front server, are plain always.
    """

    kind: Literal["tcp", "unix", "fd"]
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1
    scheme: Scheme = "http"

    def __str__(self) -> str:
        scheme = "" if self.scheme == "http" else f"{self.scheme}:"
        if self.kind == "unix":
            return f"{scheme}unix:{self.path}"
        if self.kind == "fd":
            return f"{scheme}fd://{self.fd}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        # A host that is called like a scheme is told apart by one in front.
        return f"{scheme or ('http:' if host in _SCHEMES else '')}{host}:{self.port}"


def parse_bind(text: str) -> Bind:
    """Read one address.

    Raises:
        ValueError: Not an address; the message says how to write it.
    """
    head, _, rest = text.partition(":")
    if head not in _SCHEMES:
        return _parse_place(text, text, "", "http")
    if rest.startswith("//"):
        raise ValueError(f"{text!r} is a URL: leave out the {'scheme' if head == 'http' else '//'}")
    return _parse_place(rest, text, head + ":", _SCHEMES[head])


def _parse_place(place: str, text: str, prefix: str, scheme: Scheme) -> Bind:
    """Read what stands behind the scheme; `text` is the whole, for messages."""
    if place == "unix" or place.startswith("unix:"):
        return Bind("unix", path=_path(place[5:], text), scheme=scheme)
    if place.startswith("fd://"):
        if not _is_number(place[5:]):
            raise ValueError(f"{text!r} needs the number of a file descriptor: {prefix}fd://3")
        return Bind("fd", fd=int(place[5:]), scheme=scheme)
    if "://" in place:
        raise ValueError(f"{text!r} is a URL: leave out the scheme, as in 127.0.0.1:8000")
    if "/" in place:
        raise ValueError(f"{text!r} looks like a path: a Unix socket is {prefix}unix:{place}")
    if not place:
        raise ValueError(f"{text!r} has no host and no port: write {prefix}127.0.0.1:8000")
    if _is_number(place):
        raise ValueError(
            f"{text!r} is a port alone: write {prefix}:{place} or {prefix}127.0.0.1:{place}"
        )
    if ":" not in place or (place.startswith("[") and place.endswith("]")):
        host, port = place, str(DEFAULT_PORT)
    else:
        host, _, port = place.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"{text!r}: brackets are for IPv6 addresses, as in [::1]:8000")
    elif "[" in place or "]" in place:
        raise ValueError(f"{text!r} needs a colon after the bracket: [::1]:8000")
    elif ":" in host:
        head = host.partition(":")[0]
        if head.strip("0123456789abcdefABCDEF"):  # no part of an IPv6 address
            tls = "; TLS comes by ssl_certfile" if head == "https" else ""
            raise ValueError(f"{text!r}: {head} is none of the schemes {', '.join(_SCHEMES)}{tls}")
        raise ValueError(f"{text!r}: an IPv6 address goes in brackets, as in [::1]:8000")
    if not _is_number(port) or int(port) > MAX_PORT:
        raise ValueError(f"{text!r}: the port must be a number from 0 to {MAX_PORT}")
    return Bind("tcp", host=check_host(host) if host else "", port=int(port), scheme=scheme)


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
