"""Listening sockets: made, checked, named and removed here, and nowhere else.

What this file decides:

1. All or nothing: `bind` returns every socket asked for, or raises one `ConfigError` that
   names the bind, the reason and the remedy, with nothing left behind. That is before the
   application starts: whoever cannot have the address need not start it. TCP clients are
   refused until `Listeners.listen`, so that a probe does not take a starting server for a
   ready one; on a socket file they wait, because one that does not listen looks like a dead
   server's (rule 4).
2. A host name means all its addresses, on one port number. An address whose family this machine
   lacks is passed over as long as another one works (``localhost`` where IPv6 is off). IPv6
   sockets take IPv6 only, so that ``0.0.0.0`` and ``::`` go side by side.
3. A socket file belongs to the process that bound it. Only that process removes it, only while
   the file is still the same inode, and before its socket closes: the open socket pins the
   inode, whose number therefore cannot have gone to a newcomer's file in the meantime.
4. A socket file that nobody listens on is what a killed server leaves, and is replaced. Anything
   else in the way is left alone. Two servers starting at the same instant on one stale file can
   still race; a second look just before the removal keeps that window short.
5. Owner and mode are set between bind and listen: until then nobody can connect, so there is no
   moment with the wrong permissions.
6. Sockets are non-blocking and close on exec. TCP_NODELAY is set on the listening socket, and
   Linux hands it down to every accepted one: asyncio sets it again (only where the protocol
   number is known, hence the explicit IPPROTO_TCP) and so does uvloop, other loops need not.
   TCP_CORK (`hold_back`) is handed down likewise.
   TCP_DEFER_ACCEPT stays off: it would hold silent clients where no deadline of ours sees them.

For whoever hands these sockets to a loop: the ``create_server(sock=...)`` of asyncio and uvloop
calls ``listen`` again with a backlog of 100 of its own, so pass it the configured one; and on
CPython 3.13 their ``create_unix_server`` removes the file unless told ``cleanup_socket=False``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING, Any

from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from omnicorn.config import Bind

__all__ = ["Listeners", "adopt", "bind", "describe", "local_address", "peer_address"]

_UDS_PERMISSIONS = 0o666
_SHARED_PORT_ATTEMPTS = 10
_ADDRESS_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class Listeners:
    """The listening sockets of a process; a context manager that closes them.

    Attributes:
        sockets: All of them, in the order of the binds.
        addresses: Their texts, as `describe` writes them, in the same order.

    Resource handling: the socket files belong to the process that called `bind`. In a forked
    child `close` closes the child's copies and leaves the files alone.
    """

    __slots__ = ("_backlog", "_bound", "_files", "_pid", "addresses", "sockets")

    def __init__(self, backlog: int) -> None:
        self._backlog = backlog
        self._bound: list[tuple[Bind, socket.socket]] = []  # not listening yet
        self.sockets: list[socket.socket] = []
        self.addresses: list[str] = []
        self._files: list[tuple[str, int, int]] = []  # path, device, inode
        self._pid = os.getpid()

    def __enter__(self) -> Listeners:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def listen(self) -> None:
        """Let clients connect; once more does nothing.

        Raises:
            ConfigError: Somebody else began to listen on an address since it was bound.
        """
        while self._bound:
            bind, sock = self._bound[-1]
            try:
                sock.listen(self._backlog)
            except OSError as error:
                host, port, *_ = sock.getsockname()
                raise _tcp_refusal(bind, host, port, error) from error
            self._bound.pop()

    def close(self) -> None:
        """Remove the socket files made here, then close every socket; once more does nothing.

        ``addresses`` stays, for the last log line.
        """
        files, self._files = self._files, []
        if os.getpid() == self._pid:
            for path, device, inode in files:
                try:
                    found = os.lstat(path)
                    if (found.st_dev, found.st_ino) == (device, inode):
                        os.unlink(path)
                except OSError:
                    pass  # gone already, or out of reach by now: nothing left to do about it
        self._bound.clear()
        closing, self.sockets = self.sockets, []
        for sock in closing:
            sock.close()

    def add(self, bind: Bind, sock: socket.socket) -> None:
        """Take a bound TCP socket."""
        self.sockets.append(sock)
        self._bound.append((bind, sock))

    def own_file(self, path: str) -> None:
        """Note the socket file just made at ``path`` as ours to remove."""
        made = os.lstat(path)
        # Absolute, because the application may change the working directory before `close`.
        self._files.append((os.path.abspath(path), made.st_dev, made.st_ino))


def bind(
    binds: Iterable[Bind],
    *,
    backlog: int = 2048,
    reuse_port: bool = False,
    uds_permissions: int | None = None,
    uds_owner: str | None = None,
    scheme: str = "http",
) -> Listeners:
    """Open every socket of ``binds``; `Listeners.listen` lets clients in.

    Args:
        binds: Where to listen; at least one. A path ``@name`` is an abstract socket (Linux).
        backlog: Connections that wait to be accepted, per socket. An inherited socket keeps
            what its maker chose.
        reuse_port: Set SO_REUSEPORT, so that several processes may each listen on a TCP address.
            Socket files and inherited sockets are shared by inheritance instead.
        uds_permissions: Mode of socket files, default 0o666: whoever reaches the directory may
            connect.
        uds_owner: Owner of socket files: "user", "user:group" or ":group", by name or number.
        scheme: What is spoken, for the texts of the addresses.

    Raises:
        ConfigError: Naming the bind, the reason and the remedy. Nothing stays open.

    Resource handling: the caller closes the result. That closes inherited descriptors as well;
    one that is refused, though, is left as it was.
    """
    listeners = Listeners(backlog)
    try:
        for one in binds:
            if one.kind == "tcp":
                for sock in _bind_tcp(one, reuse_port):
                    listeners.add(one, sock)
            elif one.kind == "unix":
                _listen_unix(listeners, one, backlog, uds_permissions, uds_owner)
            else:
                listeners.sockets.append(_adopt(one, listeners.sockets))
        if not listeners.sockets:
            raise ConfigError("nothing to listen on: give at least one bind", "bind")
        listeners.addresses = [describe(sock, scheme) for sock in listeners.sockets]
    except BaseException:
        listeners.close()
        raise
    return listeners


def adopt(sockets: Iterable[socket.socket], backlog: int, scheme: str = "http") -> Listeners:
    """Take over stream sockets that a program has bound; whether they listen yet is the same.

    Raises:
        ConfigError: One is not a stream socket, or there is none.

    Resource handling: the caller closes the result, which closes the sockets; a socket's file
    stays, as it was not made here.
    """
    listeners = Listeners(backlog)
    for sock in sockets:
        if sock.type != socket.SOCK_STREAM:
            raise ConfigError(f"cannot listen on {sock!r}: it is not a stream socket", "sockets")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        listeners.sockets.append(sock)
    if not listeners.sockets:
        raise ConfigError("nothing to listen on: give at least one socket", "sockets")
    listeners.addresses = [describe(sock, scheme) for sock in listeners.sockets]
    return listeners


# --- TCP ---


def _bind_tcp(bind: Bind, reuse_port: bool) -> list[socket.socket]:
    endpoints = _resolve(bind)
    for _ in range(_SHARED_PORT_ATTEMPTS - 1):
        try:
            return _bind_all(bind, endpoints, reuse_port)
        except ConfigError as error:
            # The port that the system chose for the first address may be taken on the second.
            cause = error.__cause__
            if bind.port or not isinstance(cause, OSError) or cause.errno != errno.EADDRINUSE:
                raise
    return _bind_all(bind, endpoints, reuse_port)


def _resolve(bind: Bind) -> list[tuple[int, tuple[Any, ...]]]:
    """The distinct addresses of a host, as (family, socket address), in the resolver's order."""
    # getaddrinfo() would quietly take 70000 for 4464.
    if not 0 <= bind.port <= 65535:
        raise _refusal(bind, "a port is a number from 0 to 65535")
    host: str | bytes = bind.host
    if bind.host.isascii():
        host = bind.host.encode()  # a str would go through the IDNA codec: a millisecond to import
    try:
        found = socket.getaddrinfo(
            host or None,
            bind.port,
            type=socket.SOCK_STREAM,
            proto=socket.IPPROTO_TCP,
            flags=socket.AI_PASSIVE,
        )
    except (OSError, ValueError) as error:  # ValueError: not even a host name, such as "a..b"
        raise _refusal(
            bind,
            f"the host {bind.host!r} cannot be resolved ({_reason(error)}). Check its spelling, or"
            " give an address of this machine: 127.0.0.1, or 0.0.0.0 for every IPv4 interface",
        ) from error
    return list(dict.fromkeys((info[0], info[4]) for info in found))


def _bind_all(
    bind: Bind, endpoints: list[tuple[int, tuple[Any, ...]]], reuse_port: bool
) -> list[socket.socket]:
    """Bind to every endpoint, all on one port, or leave nothing open.

    Raises:
        ConfigError: With the OSError as its cause.
    """
    opened: list[socket.socket] = []
    absent: ConfigError | None = None
    try:
        for family, (host, port, *rest) in endpoints:
            if opened:
                port = opened[0].getsockname()[1]
            try:
                opened.append(_bind_one(family, (host, port, *rest), reuse_port))
            except OSError as error:
                refusal = _tcp_refusal(bind, host, port, error)
                refusal.__cause__ = error
                if error.errno not in _ADDRESS_ABSENT:
                    raise refusal from error
                absent = refusal
        if not opened and absent is not None:
            raise absent
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


def _bind_one(family: int, address: tuple[Any, ...], reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # there, it would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            _set_reuse_port(sock)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _set_reuse_port(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except (AttributeError, OSError) as error:
        raise ConfigError(
            "this system has no SO_REUSEPORT: leave out reuse-port, the workers then share one"
            " listening socket",
            "reuse_port",
        ) from error


def _tcp_refusal(bind: Bind, host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        why = (
            "the address is in use, by another process or by another bind of this one. Choose"
            f" another port (0: any free one), or find the holder with `lsof -nP -iTCP:{port}`"
            " or `ss -ltnp`"
        )
    elif error.errno in (errno.EACCES, errno.EPERM):
        why = (
            "permission denied. Ports below 1024 are for privileged processes: choose a higher"
            " one, or grant CAP_NET_BIND_SERVICE, or let a service manager open the socket and"
            " pass it as fd://3"
        )
    elif error.errno == errno.EADDRNOTAVAIL:
        why = (
            "no interface of this machine has that address. Give one that `ip address` lists,"
            " or 0.0.0.0 for every IPv4 interface"
        )
    elif error.errno == errno.EAFNOSUPPORT:
        why = "this machine does not have that address family; is IPv6 off? Give an IPv4 address"
    else:
        why = _reason(error)
    return _refusal(bind, why, _endpoint(host, port))


# --- unix ---


def _listen_unix(
    listeners: Listeners, bind: Bind, backlog: int, mode: int | None, owner: str | None
) -> None:
    """Add a unix socket, open or about to be closed with the others."""
    path = bind.path
    _check_path(bind, mode, owner)
    uid, gid = _owner(owner) if owner is not None else (-1, -1)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listeners.sockets.append(sock)
        sock.setblocking(False)
        if path.startswith("@"):
            sock.bind("\0" + path[1:])
        else:
            _make_way(bind)
            sock.bind(path)
            listeners.own_file(path)
            if owner is not None:
                os.chown(path, uid, gid, follow_symlinks=False)
            os.chmod(path, _UDS_PERMISSIONS if mode is None else mode)
        sock.listen(backlog)
    except OSError as error:
        raise _unix_refusal(bind, owner, error) from error


def _check_path(bind: Bind, mode: int | None, owner: str | None) -> None:
    path = bind.path
    if path in ("", "@") or "\0" in path:
        raise _refusal(bind, "that is no path: write unix:/run/app.sock, or unix:@name")
    if path.startswith("@"):
        if sys.platform != "linux":
            raise _refusal(bind, "abstract sockets exist on Linux only: give the path of a file")
        if mode is not None or owner is not None:
            raise _refusal(
                bind,
                "an abstract socket is not a file, so it has neither permissions nor an owner:"
                " every local user may connect. Give the path of a file, or leave out"
                " uds-permissions and uds-owner",
            )


def _make_way(bind: Bind) -> None:
    """Remove the socket file of a dead server; refuse whatever else is there."""
    path = bind.path
    try:
        before = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(before.st_mode):
        raise _refusal(
            bind, "a file that is not a socket is in the way. Move it, or choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is an answer too, not something to wait for
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        except PermissionError as error:
            raise _refusal(
                bind,
                "the socket there belongs to another user, and whether a server still listens on"
                " it cannot be told. Remove it, or choose another path",
            ) from error
        except OSError as error:
            raise _path_in_use(bind) from error
        else:
            raise _path_in_use(bind)
    try:
        now = os.lstat(path)
        if (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino):
            os.unlink(path)
    except FileNotFoundError:
        pass


def _path_in_use(bind: Bind) -> ConfigError:
    return _refusal(
        bind,
        "another process serves on that socket. Stop it (`ss -lxp` or `lsof -U` names it), or"
        " choose another path",
    )


def _owner(text: str) -> tuple[int, int]:
    """The user and group numbers of "user:group"; -1 for the part left out."""
    import grp
    import pwd

    user, _, group = text.partition(":")
    if not user and not group:
        raise ConfigError(
            f"uds-owner {text!r} names nobody: write user, user:group or :group", "uds_owner"
        )
    try:
        uid = (int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid) if user else -1
        gid = (int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid) if group else -1
    except KeyError as error:
        raise ConfigError(
            f"uds-owner {text!r}: no such user or group on this machine ({error.args[0]})."
            " Create it, or give numbers",
            "uds_owner",
        ) from error
    return uid, gid


def _unix_refusal(bind: Bind, owner: str | None, error: OSError) -> ConfigError:
    directory = os.path.dirname(bind.path) or "."
    if error.errno is None:  # CPython raises "AF_UNIX path too long" itself, without a number
        why = (
            f"the path is too long, {len(os.fsencode(bind.path))} bytes; the system allows"
            f" {107 if sys.platform == 'linux' else 103}. Choose a shorter one, such as"
            " /run/app.sock, or a relative one"
        )
    elif error.errno == errno.EADDRINUSE:
        return _path_in_use(bind)
    elif error.errno in (errno.ENOENT, errno.ENOTDIR):
        why = f"there is no directory {directory!r}: create it first"
    elif error.errno == errno.EPERM and owner is not None:
        why = (
            f"this process may not give the socket to {owner!r}: only root chooses users, and"
            " others only among their own groups. Start as root, or leave out uds-owner"
        )
    elif error.errno in (errno.EACCES, errno.EPERM):
        why = (
            f"permission denied: this user may not create files in {directory!r}. Change its"
            " permissions, or choose another directory"
        )
    else:
        why = _reason(error)
    return _refusal(bind, why)


# --- inherited ---


def _adopt(bind: Bind, present: list[socket.socket]) -> socket.socket:
    """A listening socket that this process was started with."""
    fd = bind.fd
    if any(sock.fileno() == fd for sock in present):
        raise _refusal(bind, "the same descriptor is there twice: leave one out")
    try:
        sock = socket.socket(fileno=fd)
    except (OSError, ValueError) as error:
        what = "is not a socket" if _is_open(fd) else "is not open in this process"
        raise _refusal(
            bind,
            f"that descriptor {what}. Whoever starts the server must pass a listening socket"
            " under that number; the first from systemd is fd://3",
        ) from error
    wrong = None
    if sock.type != socket.SOCK_STREAM:
        wrong = "it is not a stream socket (is it UDP?). Pass a TCP or unix stream socket"
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        wrong = "it does not listen. Its maker must call listen() first; systemd: ListenStream="
    if wrong is not None:
        sock.detach()  # not ours, so not ours to close
        raise _refusal(bind, wrong)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except (OSError, OverflowError):
        return False
    return True


# --- texts ---


def _refusal(bind: Bind, why: str, endpoint: str | None = None) -> ConfigError:
    target = str(bind)
    if endpoint not in (None, target):
        target += f" ({endpoint})"  # one address of several, or the port that was tried
    return ConfigError(f"cannot listen on {target}: {why}", "bind")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _endpoint(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def describe(sock: socket.socket, scheme: str = "http") -> str:
    """Where a socket listens, as people write it.

    ``http://127.0.0.1:8000``, ``http://[::1]:8000``, ``unix:/run/app.sock``, ``unix:@name``; any
    other family, such as vsock, by its descriptor: ``fd://3``. What is not HTTP stands before the
    last ones, too: ``scgi:unix:/run/app.sock``.
    """
    host, port = local_address(sock) or (None, None)
    if host is not None and port is not None:
        return f"{scheme}://{_endpoint(host, port)}"
    place = f"fd://{sock.fileno()}" if host is None else f"unix:{host}"
    return place if scheme in ("http", "https") else f"{scheme}:{place}"


# --- addresses, as scopes want them ---


def local_address(where: object) -> tuple[str, int | None] | None:
    """``scope["server"]`` for a socket, or for what its ``getsockname()`` returned.

    (host, port) for IPv4 and IPv6, the zone kept as in ``fe80::1%eth0``; (path, None) for a unix
    socket, (``@name``, None) for an abstract one; None if it has no name or no longer exists.
    """
    if hasattr(where, "getsockname"):  # also what a loop shows in place of its socket
        try:
            where = where.getsockname()
        except OSError:
            return None
    if isinstance(where, bytes):  # abstract; a file's path is a str
        where = "@" + os.fsdecode(where[1:]) if where else ""
    if isinstance(where, str):
        return (where, None) if where else None
    return _inet(where)


def peer_address(where: object) -> tuple[str, int] | None:
    """``scope["client"]`` for a socket, or for what its ``getpeername()`` returned.

    (host, port) for IPv4 and IPv6; None for a unix peer, named or not, because the specification
    asks for a port number; None if the peer is gone.
    """
    if hasattr(where, "getpeername"):  # also what a loop shows in place of its socket
        try:
            where = where.getpeername()
        except OSError:
            return None
    return _inet(where)


def peer_name(address: tuple[str, int] | None) -> str:
    """A peer in a log line, by what `peer_address` gave."""
    return f"{address[0]}:{address[1]}" if address else "unix socket"


def reset_on_close(sock: Any) -> None:
    """Make the closing of a connection a reset, which no peer takes for the end of a body.

    Args:
        sock: A connected socket, or what asyncio shows of one; only its ``fileno`` is used.
    """
    try:
        with socket.socket(fileno=os.dup(sock.fileno())) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # a unix socket has no such option (but see `unix`), a closed one needs none


def hold_back(sock: Any, on: bool) -> None:
    """Let small writes wait for the next ones, and the last of them for the end (TCP_CORK).

    A response and its end are one segment then, and one event to the peer, not two. Set on a
    listening socket, it holds for all that are accepted from it.

    Args:
        sock: A socket, or what asyncio shows of one.
        on: Whether; what waits leaves when it ends.
    """
    if hasattr(socket, "TCP_CORK") and sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # where the peer has gone
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)


def _inet(name: object) -> tuple[str, int] | None:
    if not isinstance(name, tuple) or not name or not isinstance(name[0], str):
        return None
    host = name[0]
    if len(name) == 4 and name[3] and "%" not in host:
        # Without its zone a link-local address says nothing; RFC 4007 §11.2 writes it so.
        try:
            host = f"{host}%{socket.if_indextoname(name[3])}"
        except OSError:
            host = f"{host}%{name[3]}"
    return (host, name[1])
