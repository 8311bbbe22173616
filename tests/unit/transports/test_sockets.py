"""Listening sockets: real ones, on loopback and in a temporary directory."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.config import Bind
from omnicorn.config.bind import parse_bind
from omnicorn.errors import ConfigError
from omnicorn.transports import sockets
from omnicorn.transports.sockets import (
    Listeners,
    bind,
    describe,
    hold_back,
    local_address,
    peer_address,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOCAL = Bind("tcp", host="127.0.0.1")


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")
linux = pytest.mark.skipif(not hasattr(socket, "SO_DOMAIN"), reason="abstract sockets: Linux only")


def unix(path: Path | str) -> Bind:
    return Bind("unix", path=str(path))


def listen(binds: list[Bind] | tuple[Bind, ...], **options: Any) -> Listeners:
    """Bind, and let clients in."""
    listeners = bind(binds, **options)
    listeners.listen()
    return listeners


def refused(*binds: Bind, **options: Any) -> str:
    """The text of the refusal that these binds must get."""
    with pytest.raises(ConfigError) as caught:
        bind(binds, **options)
    return str(caught.value)


def connect(sock: socket.socket) -> tuple[socket.socket, socket.socket]:
    """A client of a listening socket, and the accepted side."""
    client = socket.socket(sock.family)
    client.connect(sock.getsockname())
    accepted, _ = sock.accept()
    return client, accepted


def resolve_to(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    """Let every host name mean these IPv4 addresses."""

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


class Sockets(list[socket.socket]):
    """Every socket made through it, whose ``bind`` fails as a test wishes."""

    def __init__(self, failure: Callable[[Any], int]) -> None:
        made = self

        class Scripted(socket.socket):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                made.append(self)

            def bind(self, address: Any, /) -> None:
                if number := failure(address):
                    raise OSError(number, os.strerror(number))
                super().bind(address)

        self.type = Scripted

    @property
    def still_open(self) -> int:
        return sum(sock.fileno() != -1 for sock in self)


# --- TCP ---


def test_port_0_becomes_the_real_port_in_the_address() -> None:
    with listen([LOCAL]) as listeners:
        port = listeners.sockets[0].getsockname()[1]
        assert port != 0
        assert listeners.addresses == [f"http://127.0.0.1:{port}"]


def test_the_address_shows_the_scheme_that_is_served() -> None:
    with listen([LOCAL], scheme="https") as listeners:
        assert listeners.addresses[0].startswith("https://127.0.0.1:")


def test_a_listening_socket_is_non_blocking_and_closed_on_exec() -> None:
    with listen([LOCAL]) as listeners:
        (sock,) = listeners.sockets
        assert sock.getblocking() is False
        assert sock.get_inheritable() is False
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def test_an_address_may_be_reused_at_once_after_a_restart() -> None:
    with listen([LOCAL]) as first:
        bind = Bind("tcp", "127.0.0.1", first.sockets[0].getsockname()[1])
        client, accepted = connect(first.sockets[0])
        accepted.close()  # the server's side closes first, and its port stays in TIME_WAIT
        client.close()
    listen([bind]).close()


def test_an_address_is_not_reused_on_windows_where_servers_would_share_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    with listen([LOCAL]) as listeners:
        assert listeners.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0


def test_accepted_sockets_inherit_nodelay_and_are_not_deferred() -> None:
    with listen([LOCAL]) as listeners:
        client, accepted = connect(listeners.sockets[0])
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            if hasattr(socket, "TCP_DEFER_ACCEPT"):
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 0


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="TCP_CORK is Linux's")
def test_what_is_held_back_leaves_when_that_ends() -> None:
    with listen([LOCAL]) as listeners:
        hold_back(listeners.sockets[0], True)
        client, accepted = connect(listeners.sockets[0])
        with client, accepted:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as loops do
            client.setblocking(False)
            accepted.sendall(b"held")
            with pytest.raises(BlockingIOError):
                client.recv(4)
            hold_back(accepted, False)
            client.settimeout(5)
            assert client.recv(4) == b"held"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_loop_leaves_nodelay_on(loop: str) -> None:
    factory = asyncio.new_event_loop if loop == "asyncio" else _uvloop()

    async def accept() -> int:
        running = asyncio.get_running_loop()
        seen: asyncio.Future[int] = running.create_future()

        class Look(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                sock = transport.get_extra_info("socket")
                seen.set_result(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.close()

        with listen([LOCAL]) as listeners:
            server = await running.create_server(Look, sock=listeners.sockets[0])
            with socket.create_connection(listeners.sockets[0].getsockname()):
                found = await seen
            server.close()
            await server.wait_closed()
        return found

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(accept()) != 0


def _uvloop() -> Any:
    return pytest.importorskip("uvloop").new_event_loop


@ipv6
def test_ipv6_addresses_are_shown_in_brackets() -> None:
    with listen([Bind("tcp", "::1")]) as listeners:
        port = listeners.sockets[0].getsockname()[1]
        assert listeners.addresses == [f"http://[::1]:{port}"]


@ipv6
def test_the_wildcards_of_both_families_share_a_port_number() -> None:
    with listen([Bind("tcp", "0.0.0.0")]) as first:
        port = first.sockets[0].getsockname()[1]
        with listen([Bind("tcp", "::", port)]) as second:
            assert second.addresses == [f"http://[::]:{port}"]


@ipv6
def test_no_host_means_every_interface_of_both_families_on_one_port() -> None:
    with listen([Bind("tcp")]) as listeners:
        port = listeners.sockets[0].getsockname()[1]
        assert set(listeners.addresses) == {f"http://0.0.0.0:{port}", f"http://[::]:{port}"}


def test_a_name_with_several_addresses_listens_on_each_with_one_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.1")
    with listen([Bind("tcp", "twice.example")]) as listeners:
        port = listeners.sockets[0].getsockname()[1]
        assert listeners.addresses == [f"http://127.0.0.1:{port}", f"http://127.0.0.2:{port}"]


def test_another_port_is_tried_when_the_chosen_one_is_taken_on_the_second_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = iter([errno.EADDRINUSE, errno.EADDRINUSE, 0])
    made = Sockets(lambda address: next(failures) if address[0] == "127.0.0.2" else 0)
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    monkeypatch.setattr(socket, "socket", made.type)
    with listen([Bind("tcp", "twice.example")]) as listeners:
        first, second = (sock.getsockname() for sock in listeners.sockets)
        assert first[1] == second[1]
        assert made.still_open == 2
    assert len(made) == 6
    assert made.still_open == 0


def test_the_search_for_a_shared_port_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Sockets(lambda address: errno.EADDRINUSE if address[0] == "127.0.0.2" else 0)
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    monkeypatch.setattr(socket, "socket", made.type)
    text = refused(Bind("tcp", "twice.example"))
    assert text.startswith("cannot listen on twice.example:0 (127.0.0.2:")
    assert len(made) == 2 * sockets._SHARED_PORT_ATTEMPTS
    assert made.still_open == 0


def test_a_given_port_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Sockets(lambda address: errno.EADDRINUSE)
    monkeypatch.setattr(socket, "socket", made.type)
    refused(Bind("tcp", "127.0.0.1", 8000))
    assert len(made) == 1


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_an_address_of_an_absent_family_is_passed_over_if_another_works(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    made = Sockets(lambda address: number if address[0] == "127.0.0.1" else 0)
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    monkeypatch.setattr(socket, "socket", made.type)
    with listen([Bind("tcp", "localhost")]) as listeners:
        (address,) = listeners.addresses
        assert address.startswith("http://127.0.0.2:")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRNOTAVAIL, "no interface of this machine has that address"),
        (errno.EAFNOSUPPORT, "is IPv6 off?"),
        (errno.EACCES, "Ports below 1024 are for privileged processes"),
        (errno.EPERM, "CAP_NET_BIND_SERVICE"),
        (errno.ENOBUFS, os.strerror(errno.ENOBUFS)),
    ],
)
def test_a_refused_bind_is_explained(
    monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    made = Sockets(lambda address: number)
    monkeypatch.setattr(socket, "socket", made.type)
    text = refused(Bind("tcp", "127.0.0.1", 80))
    assert text.startswith("cannot listen on 127.0.0.1:80: ")
    assert words in text
    assert made.still_open == 0


def test_an_address_that_no_interface_has_is_refused_by_name() -> None:
    assert refused(Bind("tcp", "192.0.2.1", 8000)).startswith(  # RFC 5737: never assigned
        "cannot listen on 192.0.2.1:8000: no interface of this machine has that address"
    )


def test_a_taken_port_is_refused_with_its_number_and_the_way_to_its_holder() -> None:
    with listen([LOCAL]) as holder:
        port = holder.sockets[0].getsockname()[1]
        text = refused(Bind("tcp", "127.0.0.1", port))
    assert text.startswith(f"cannot listen on 127.0.0.1:{port}: the address is in use")
    assert f"lsof -nP -iTCP:{port}" in text
    assert "Choose another port" in text


def test_the_refusal_blames_the_option_and_keeps_the_cause() -> None:
    with pytest.raises(ConfigError) as caught:
        listen([Bind("tcp", "192.0.2.1", 8000)])
    assert caught.value.option == "bind"
    assert isinstance(caught.value.__cause__, OSError)


def test_a_name_that_does_not_resolve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert refused(Bind("tcp", "lokalhost", 8000)).startswith(
        "cannot listen on lokalhost:8000: the host 'lokalhost' cannot be resolved"
        " (Name or service not known). Check its spelling"
    )


def test_a_text_that_cannot_be_a_name_is_refused() -> None:
    assert "the host 'a..b' cannot be resolved" in refused(Bind("tcp", "a..b", 8000))


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_outside_16_bits_is_refused(port: int) -> None:
    assert "a port is a number from 0 to 65535" in refused(Bind("tcp", "127.0.0.1", port))


def test_nothing_to_listen_on_is_refused() -> None:
    assert "nothing to listen on" in refused()


def test_two_processes_may_share_a_port_on_demand() -> None:
    with listen([LOCAL], reuse_port=True) as first:
        bind = Bind("tcp", "127.0.0.1", first.sockets[0].getsockname()[1])
        with listen([bind], reuse_port=True) as second:
            assert second.addresses == first.addresses


def test_sharing_a_port_where_the_system_cannot_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(ConfigError, match="this system has no SO_REUSEPORT") as caught:
        listen([LOCAL], reuse_port=True)
    assert caught.value.option == "reuse_port"


def test_a_failure_closes_and_removes_what_was_opened_before_it(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with listen([LOCAL]) as probe:
        free = Bind("tcp", "127.0.0.1", probe.sockets[0].getsockname()[1])
    refused(free, unix(path), Bind("tcp", "192.0.2.1", 8000))
    assert not path.exists()
    listen([free]).close()


def test_tcp_clients_are_refused_until_it_listens() -> None:
    with bind([LOCAL]) as listeners:
        (sock,) = listeners.sockets
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(sock.getsockname())
        listeners.listen()
        listeners.listen()
        for end in connect(sock):
            end.close()


def test_clients_of_a_socket_file_wait_until_somebody_accepts(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with bind([unix(path)]) as starting:
        for end in connect(starting.sockets[0]):
            end.close()
        # It is no dead server's, so a second server leaves it alone.
        assert "another process serves on that socket" in refused(unix(path))


def test_who_listens_second_on_an_address_that_both_have_bound_is_refused() -> None:
    with bind([LOCAL]) as first:
        port = first.sockets[0].getsockname()[1]
        with bind([Bind("tcp", "127.0.0.1", port)]) as second:
            first.listen()
            with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: the address is in use"):
                second.listen()


def test_closing_twice_is_harmless_and_the_addresses_stay() -> None:
    listeners = listen([LOCAL])
    (sock,), addresses = listeners.sockets, list(listeners.addresses)
    listeners.close()
    listeners.close()
    assert sock.fileno() == -1
    assert (listeners.sockets, listeners.addresses) == ([], addresses)


# --- unix ---


def test_a_unix_socket_is_named_by_its_path_and_removed_on_close(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with listen([unix(path)]) as listeners:
        assert listeners.addresses == [f"unix:{path}"]
        assert listeners.sockets[0].getblocking() is False
        client, accepted = connect(listeners.sockets[0])
        client.close()
        accepted.close()
    assert not path.exists()


@pytest.mark.parametrize(("given", "mode"), [(None, 0o666), (0o600, 0o600), (0o770, 0o770)])
def test_the_mode_of_a_socket_file_is_the_one_asked_for_whatever_the_umask(
    tmp_path: Path, given: int | None, mode: int
) -> None:
    path = tmp_path / "app.sock"
    before = os.umask(0o077)
    try:
        with listen([unix(path)], uds_permissions=given):
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("owner", "given"),
    [("1234:5678", (1234, 5678)), ("1234", (1234, -1)), (":5678", (-1, 5678)), ("1:", (1, -1))],
)
def test_the_owner_of_a_socket_file_is_set_before_anyone_can_connect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: str, given: tuple[int, int]
) -> None:
    path = tmp_path / "app.sock"
    calls = []

    def chown(where: str, uid: int, gid: int, *, follow_symlinks: bool) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            calls.append((where, (uid, gid), follow_symlinks, client.connect_ex(str(path))))

    monkeypatch.setattr(os, "chown", chown)
    listen([unix(path)], uds_owner=owner).close()
    assert calls == [(str(path), given, False, errno.ECONNREFUSED)]


def test_the_owner_may_be_given_by_name(tmp_path: Path) -> None:
    import grp
    import pwd

    path = tmp_path / "app.sock"
    owner = f"{pwd.getpwuid(os.getuid()).pw_name}:{grp.getgrgid(os.getgid()).gr_name}"
    with listen([unix(path)], uds_owner=owner):
        assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        ("no-such-user", "no such user or group"),
        (":no-such-group", "no such user or group"),
        ("", "names nobody"),
        (":", "names nobody"),
    ],
)
def test_an_unknown_owner_is_refused(tmp_path: Path, owner: str, words: str) -> None:
    path = tmp_path / "app.sock"
    with pytest.raises(ConfigError, match=words) as caught:
        listen([unix(path)], uds_owner=owner)
    assert caught.value.option == "uds_owner"
    assert not path.exists()


def test_an_owner_that_this_process_may_not_choose_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chown(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    path = tmp_path / "app.sock"
    monkeypatch.setattr(os, "chown", chown)
    assert "may not give the socket to '1'" in refused(unix(path), uds_owner="1")
    assert not path.exists()


def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with listen([unix(path)]) as listeners:
        client, accepted = connect(listeners.sockets[0])
        client.close()
        accepted.close()


def test_a_socket_that_somebody_serves_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with listen([unix(path)]) as holder:
        inode = path.stat().st_ino
        assert refused(unix(path)).startswith(
            f"cannot listen on unix:{path}: another process serves on that socket"
        )
        assert path.stat().st_ino == inode
        assert holder.sockets[0].fileno() != -1


def test_a_busy_server_whose_backlog_is_full_counts_as_serving(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    waiting = []
    with listen([unix(path)], backlog=0):
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            if client.connect_ex(str(path)):
                break
        assert "another process serves on that socket" in refused(unix(path))
    for client in waiting:
        client.close()


def test_a_datagram_socket_in_the_way_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        holder.bind(str(path))
        assert "another process serves on that socket" in refused(unix(path))
        assert path.is_socket()


def test_a_socket_that_may_not_be_tried_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))

        class Forbidden(socket.socket):
            def connect(self, address: Any, /) -> None:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(socket, "socket", Forbidden)
        assert "belongs to another user" in refused(unix(path))
        assert path.is_socket()


def test_a_stale_file_that_another_starting_server_removes_first_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    monkeypatch.setattr(socket, "socket", _probing(path.unlink))
    with listen([unix(path)]):
        assert path.is_socket()


def test_a_stale_file_that_another_starting_server_replaces_first_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, newer = tmp_path / "app.sock", tmp_path / "newer.sock"
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as rival:
        dead.bind(str(path))
        rival.bind(str(newer))
        inode = newer.stat().st_ino
        monkeypatch.setattr(socket, "socket", _probing(lambda: newer.rename(path)))
        assert "another process serves on that socket" in refused(unix(path))
    assert path.stat().st_ino == inode


def _probing(meanwhile: Callable[[], object]) -> type[socket.socket]:
    """A socket type during whose unanswered ``connect`` something happens."""

    class Probing(socket.socket):
        def connect(self, address: Any, /) -> None:
            meanwhile()
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    return Probing


def test_a_file_that_is_not_a_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    path.write_text("precious")
    assert "a file that is not a socket is in the way" in refused(unix(path))
    assert path.read_text() == "precious"


def test_a_symbolic_link_is_never_followed_or_removed(tmp_path: Path) -> None:
    dead, path = tmp_path / "dead.sock", tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(dead))
    path.symlink_to(dead)
    assert "a file that is not a socket is in the way" in refused(unix(path))
    assert path.is_symlink()
    assert dead.is_socket()


def test_a_file_that_replaced_ours_survives_our_close(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    old = listen([unix(path)])
    path.unlink()
    with listen([unix(path)]):
        old.close()
        assert path.is_socket()


def test_a_file_that_is_gone_already_does_not_disturb_closing(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    listeners = listen([unix(path)])
    path.unlink()
    (sock,) = listeners.sockets
    listeners.close()
    assert sock.fileno() == -1


def test_a_relative_path_is_removed_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with listen([unix("app.sock")]) as listeners:
        assert listeners.addresses == ["unix:app.sock"]
        monkeypatch.chdir("/")
    assert not (tmp_path / "app.sock").exists()


def test_a_forked_child_closes_its_copies_and_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.sock"
    listeners = listen([unix(path)])
    (sock,) = listeners.sockets
    monkeypatch.setattr(os, "getpid", lambda: -1)
    listeners.close()
    assert sock.fileno() == -1
    assert path.is_socket()


def test_a_path_that_is_too_long_is_refused_with_its_length(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120)
    text = refused(unix(path))
    assert f"the path is too long, {len(os.fsencode(path))} bytes" in text
    assert "Choose a shorter one" in text


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    text = refused(unix(tmp_path / "none" / "app.sock"))
    assert f"there is no directory '{tmp_path}/none'" in text


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "this user may not create files in"),
        (errno.EADDRINUSE, "another process serves on that socket"),
        (errno.EROFS, os.strerror(errno.EROFS)),
    ],
)
def test_a_refused_unix_bind_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    made = Sockets(lambda address: number)
    monkeypatch.setattr(socket, "socket", made.type)
    assert words in refused(unix(tmp_path / "app.sock"))
    assert made.still_open == 0


@pytest.mark.parametrize("path", ["", "@", "a\0b"])
def test_a_path_that_names_nothing_is_refused(path: str) -> None:
    assert "that is no path" in refused(unix(path))


@linux
def test_an_abstract_socket_has_a_name_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"@omnicorn-test-{os.getpid()}"
    with listen([unix(name)]) as listeners:
        assert listeners.addresses == [f"unix:{name}"]
        assert listeners.sockets[0].getsockname() == b"\0" + name[1:].encode()
        assert list(tmp_path.iterdir()) == []
        assert "another process serves on that socket" in refused(unix(name))


@linux
@pytest.mark.parametrize("options", [{"uds_permissions": 0o600}, {"uds_owner": "0"}])
def test_an_abstract_socket_with_permissions_or_an_owner_is_refused(
    options: dict[str, Any],
) -> None:
    assert "every local user may connect" in refused(unix("@omnicorn-test"), **options)


def test_an_abstract_socket_elsewhere_than_on_linux_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert "abstract sockets exist on Linux only" in refused(unix("@omnicorn-test"))


# --- inherited ---


def test_an_inherited_tcp_socket_is_taken_over() -> None:
    made = socket.create_server(("127.0.0.1", 0))
    port = made.getsockname()[1]
    made.set_inheritable(True)
    fd = made.detach()
    with listen([Bind("fd", fd=fd)]) as listeners:
        (sock,) = listeners.sockets
        assert listeners.addresses == [f"http://127.0.0.1:{port}"]
        assert (sock.fileno(), sock.getblocking(), sock.get_inheritable()) == (fd, False, False)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_an_inherited_unix_socket_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    with listen([Bind("fd", fd=made.detach())]) as listeners:
        assert listeners.addresses == [f"unix:{path}"]
    assert path.is_socket()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (socket.SOCK_STREAM, "it does not listen"),
        (socket.SOCK_DGRAM, "it is not a stream socket"),
    ],
)
def test_an_inherited_socket_of_no_use_is_refused_and_stays_open(
    kind: socket.SocketKind, words: str
) -> None:
    with socket.socket(socket.AF_INET, kind) as made:
        made.bind(("127.0.0.1", 0))
        fd = made.fileno()
        text = refused(Bind("fd", fd=fd))
        assert text.startswith(f"cannot listen on fd://{fd}: {words}")
        assert made.getsockname()[0] == "127.0.0.1"


def test_a_descriptor_of_a_file_is_refused_and_stays_open(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert "that descriptor is not a socket" in refused(Bind("fd", fd=file.fileno()))
        file.write("still open")


@pytest.mark.parametrize("fd", [-1, 2**20, 2**40])
def test_a_descriptor_that_is_not_open_is_refused(fd: int) -> None:
    text = refused(Bind("fd", fd=fd))
    assert text.startswith(f"cannot listen on fd://{fd}: that descriptor is not open")
    assert "systemd is fd://3" in text


def test_the_same_descriptor_twice_is_refused() -> None:
    bind = Bind("fd", fd=socket.create_server(("127.0.0.1", 0)).detach())
    assert "the same descriptor is there twice" in refused(bind, bind)


# --- addresses ---


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("127.0.0.1", 8000), ("127.0.0.1", 8000)),
        (("::1", 8000, 0, 0), ("::1", 8000)),
        (("fe80::1%eth0", 8000, 0, 2), ("fe80::1%eth0", 8000)),
        (("fe80::1", 8000, 0, 2**31 - 1), (f"fe80::1%{2**31 - 1}", 8000)),
        ((2, 8000), None),
        ((), None),
        (None, None),
    ],
)
def test_an_internet_name_becomes_a_host_and_a_port(
    name: object, address: tuple[str, int] | None
) -> None:
    assert local_address(name) == address
    assert peer_address(name) == address


def test_the_zone_of_a_link_local_address_is_written_by_name() -> None:
    index, interface = socket.if_nameindex()[0]
    assert peer_address(("fe80::1", 8000, 0, index)) == (f"fe80::1%{interface}", 8000)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("/run/app.sock", ("/run/app.sock", None)),
        (b"\0app", ("@app", None)),
        ("", None),
        (b"", None),
    ],
)
def test_a_unix_name_is_a_server_address_without_port_and_no_client(
    name: object, address: tuple[str, None] | None
) -> None:
    assert local_address(name) == address
    assert peer_address(name) is None


def test_both_ends_of_a_tcp_connection_are_named() -> None:
    with listen([LOCAL]) as listeners:
        client, accepted = connect(listeners.sockets[0])
        with client, accepted:
            assert local_address(accepted) == client.getpeername()
            assert peer_address(accepted) == client.getsockname()


def test_a_unix_connection_has_a_server_and_no_client(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with listen([unix(path)]) as listeners:
        client, accepted = connect(listeners.sockets[0])
        with client, accepted:
            assert local_address(accepted) == (str(path), None)
            assert peer_address(accepted) is None


def test_a_socket_without_name_or_peer_has_no_address() -> None:
    sock = socket.socket()
    assert peer_address(sock) is None
    sock.close()
    assert local_address(sock) is None
    assert describe(sock) == "fd://-1"


@pytest.mark.parametrize("scheme", ["scgi", "uwsgi", "fastcgi"])
def test_what_is_spoken_if_not_http_stands_before_the_address(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "app.sock"
    with listen([unix(path)], scheme=scheme) as listeners:
        [address] = listeners.addresses
        assert address == f"{scheme}:unix:{path}"
        bound = parse_bind(address)
        assert (bound.scheme, bound.path) == (scheme, str(path))
    with listen([LOCAL], scheme=scheme) as listeners:
        assert listeners.addresses[0].startswith(f"{scheme}://127.0.0.1:")
    sock = socket.socket()
    sock.close()
    assert describe(sock, scheme) == f"{scheme}:fd://-1"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_unix_socket_for_http_is_its_path_alone(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "app.sock"
    with listen([unix(path)], scheme=scheme) as listeners:
        assert listeners.addresses == [f"unix:{path}"]
