"""`ProxyFix`: what becomes of a scope, and of what proxies and clients say."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import ConfigError
from omnicorn.http.fields import is_host
from omnicorn.middleware import ProxyFix
from omnicorn.toolkit.lint import lint
from omnicorn.toolkit.testing import HTTPCommunicator, LifespanManager, WebSocketCommunicator

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]

PEER = ("10.0.0.1", 1234)
ONE: dict[str, Any] = {"hops": 1}
TWO: dict[str, Any] = {"hops": 2}
NEAR: dict[str, Any] = {"trusted": ["10.0.0.0/8"]}


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def fixed(
    options: dict[str, Any],
    *headers: tuple[str, str],
    client: Any = PEER,
    target: str = "/",
    **scope: Any,
) -> dict[str, Any]:
    """The scope that the application gets; what it is given must remain as it was."""
    got: list[dict[str, Any]] = []

    async def keep(scope: Any, receive: Any, send: Any) -> None:
        got.append(scope)
        await app(scope, receive, send)

    http = HTTPCommunicator(
        lint(ProxyFix(lint(keep), **options)), "GET", target, headers=headers, client=client
    )
    http.scope.update(scope)
    asyncio.run(http.get_response())
    return got[0]


def client_of(options: dict[str, Any], value: str, name: str = "X-Forwarded-For") -> Any:
    return fixed(options, (name, value))["client"]


# ------------------------------------------------------------------------------ client


@pytest.mark.parametrize("options", [ONE, NEAR])
def test_the_client_is_the_one_that_the_proxy_saw(options: dict[str, Any]) -> None:
    assert client_of(options, "203.0.113.7") == ("203.0.113.7", 0)
    assert client_of(options, "[2001:db8::1]:4711") == ("2001:db8::1", 4711)


@pytest.mark.parametrize("options", [ONE, NEAR])
def test_what_the_client_claims_at_the_left_is_not_believed(options: dict[str, Any]) -> None:
    assert client_of(options, "6.6.6.6, 203.0.113.7") == ("203.0.113.7", 0)


def test_as_many_entries_are_believed_as_there_are_hops() -> None:
    assert client_of(TWO, "6.6.6.6, 203.0.113.7, 198.51.100.2") == ("203.0.113.7", 0)


def test_of_fewer_entries_than_hops_the_left_most_is_the_client() -> None:
    assert client_of(TWO, "203.0.113.7") == ("203.0.113.7", 0)


def test_several_lines_of_a_field_are_one_list() -> None:
    lines = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "203.0.113.7, 198.51.100.2")]

    assert fixed(TWO, *lines)["client"] == ("203.0.113.7", 0)


def test_trusted_hops_are_walked_through_until_one_is_not() -> None:
    assert client_of(NEAR, "6.6.6.6, 203.0.113.7, 10.9.9.9, 10.0.0.2") == ("203.0.113.7", 0)


@pytest.mark.parametrize(
    "value", ["203.0.113.7:99999", "203.0.113.7:", "[::1", "1.2.3", "01.2.3.4", "localhost", "a,"]
)
@pytest.mark.parametrize("options", [ONE, NEAR])
def test_what_is_no_address_is_no_client(options: dict[str, Any], value: str) -> None:
    assert client_of(options, f"6.6.6.6, {value}") == PEER


def test_an_entry_that_cannot_be_read_ends_the_walk() -> None:
    assert client_of(TWO, "203.0.113.7, unknown") == PEER
    assert client_of({"hops": 3}, "203.0.113.7, , 198.51.100.2") == ("198.51.100.2", 0)


def test_a_peer_that_is_not_trusted_is_not_believed() -> None:
    headers = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Prefix", "/evil"),
        ("Forwarded", "for=6.6.6.6"),
    ]
    options = {**NEAR, "host": True, "prefix": True}
    scope = fixed(options, *headers, client=("192.0.2.1", 5))

    assert scope["client"] == ("192.0.2.1", 5)
    assert scope["scheme"] == "http"
    assert scope["root_path"] == ""
    assert dict(scope["headers"])[b"host"] == b"testserver"


def test_a_proxy_on_a_unix_socket_is_trusted_by_name() -> None:
    header = ("X-Forwarded-For", "203.0.113.7")

    assert fixed({"trusted": "unix"}, header, client=None)["client"] == ("203.0.113.7", 0)
    assert fixed(NEAR, header, client=None)["client"] is None


# ------------------------------------------------------------------------------ scheme


@pytest.mark.parametrize(
    ("options", "value", "scheme"),
    [
        (ONE, "https", "https"),
        (ONE, "HTTPS", "https"),
        (ONE, "https, http", "http"),
        (TWO, "https, http", "https"),
        (TWO, "http, https, http", "https"),
        (TWO, "https", "https"),
        (NEAR, "https, http", "http"),
        (NEAR, "http, https", "https"),
        (ONE, "ftp", "http"),
        (ONE, "", "http"),
        (ONE, "https,", "http"),
    ],
)
def test_the_scheme_is_the_outermost_hops(options: dict[str, Any], value: str, scheme: str) -> None:
    assert fixed(options, ("X-Forwarded-Proto", value))["scheme"] == scheme


def test_a_websocket_is_ws_or_wss(run: Run) -> None:
    schemes: list[str] = []

    async def sockets(scope: Any, receive: Any, send: Any) -> None:
        schemes.append(scope["scheme"])
        await receive()
        await send({"type": "websocket.close"})

    async def main() -> None:
        for proto in ("https", "http"):
            headers = {"x-forwarded-proto": proto}
            wrapped = lint(ProxyFix(sockets, hops=1))
            async with WebSocketCommunicator(wrapped, "/", headers=headers) as ws:
                await ws.connect()

    run(main)
    assert schemes == ["wss", "ws"]


# ------------------------------------------------------------------------------ Forwarded


def test_forwarded_is_read_where_the_older_fields_are_missing() -> None:
    scope = fixed(
        {**TWO, "host": True},
        ("Forwarded", 'for=6.6.6.6;host=evil.example, For="[2001:db8::1]:80";proto=https'),
        ("Forwarded", "for=198.51.100.2;host=example.org:8443"),
        ("X-Forwarded-Host", "evil.example"),
    )

    assert scope["client"] == ("2001:db8::1", 80)
    assert scope["scheme"] == "https"
    assert dict(scope["headers"])[b"host"] == b"example.org:8443"


@pytest.mark.parametrize(
    ("older", "client", "scheme"),
    [
        (("X-Forwarded-For", "203.0.113.7"), ("203.0.113.7", 0), "http"),
        (("X-Forwarded-Proto", "https"), PEER, "https"),
    ],
)
def test_forwarded_is_not_read_beside_the_older_fields(
    older: tuple[str, str], client: tuple[str, int], scheme: str
) -> None:
    other = "http" if scheme == "https" else "https"
    forwarded = ("Forwarded", f"for=6.6.6.6;proto={other};host=evil.example")
    scope = fixed({**ONE, "host": True}, forwarded, older)
    assert (scope["client"], scope["scheme"]) == (client, scheme)
    assert dict(scope["headers"])[b"host"] == b"testserver"

    scope = fixed({**ONE, "host": True}, forwarded, older, ("X-Forwarded-Host", "example.org"))
    assert dict(scope["headers"])[b"host"] == b"example.org"


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ('for="[2001:db8::1]"', ("2001:db8::1", 0)),
        ('for="203.0.113.7:80"', ("203.0.113.7", 80)),
        (r'FOR="\203.0.113.7"', ("203.0.113.7", 0)),
        # What is quoted separates nothing, and an escaped quote ends nothing.
        (r'for="6.6.6.6\", for=6.6.6.7", for=203.0.113.7', ("203.0.113.7", 0)),
        ('for="203.0.113.7, 6.6.6.6"', PEER),
        ('by="a;for=6.6.6.6";for=203.0.113.7', ("203.0.113.7", 0)),
        # RFC 7239 §6: nobody that could be named; and what is malformed.
        ("for=unknown", PEER),
        ("for=_hidden", PEER),
        ('for="[2001:db8::1]:_port"', PEER),
        ("for=203.0.113.7;for=6.6.6.6", PEER),
        ('for="203.0.113.7', PEER),
        ("for=6.6.6.6, ", PEER),
    ],
)
@pytest.mark.parametrize("options", [ONE, NEAR])
def test_forwarded_is_read_as_it_is_quoted(
    options: dict[str, Any], value: str, client: tuple[str, int]
) -> None:
    assert client_of(options, value, "Forwarded") == client


def test_a_quoted_host_and_scheme_are_read() -> None:
    header = ("Forwarded", 'for=203.0.113.7;Host="example.org:8443";PROTO="HTTPS"')
    scope = fixed({**ONE, "host": True}, header)

    assert scope["scheme"] == "https"
    assert dict(scope["headers"])[b"host"] == b"example.org:8443"


# ------------------------------------------------------------------------------ host


def test_the_host_is_the_clients_if_that_is_asked_for() -> None:
    header = ("X-Forwarded-Host", "example.org:8443")

    hosts = [pair for pair in fixed({**ONE, "host": True}, header)["headers"] if pair[0] == b"host"]
    assert hosts == [(b"host", b"example.org:8443")]
    assert (b"host", b"testserver") in fixed(ONE, header)["headers"]


def test_the_host_is_the_outermost_hops() -> None:
    header = ("X-Forwarded-Host", "evil.example, example.org, inner")

    for options, host in ((ONE, b"inner"), (TWO, b"example.org"), (NEAR, b"inner")):
        assert dict(fixed({**options, "host": True}, header)["headers"])[b"host"] == host


@pytest.mark.parametrize("value", ["", "a b", "user@example.org", "a/b", ":80", "example.org,"])
def test_a_malformed_host_is_not_taken(value: str) -> None:
    scope = fixed({**ONE, "host": True}, ("X-Forwarded-Host", value))

    assert dict(scope["headers"])[b"host"] == b"testserver"


# ------------------------------------------------------------------------------ prefix


def test_a_prefix_is_put_back_if_that_is_asked_for() -> None:
    header = ("X-Forwarded-Prefix", "/caf%C3%A9/")
    scope = fixed({**ONE, "prefix": True}, header, target="/x%20y")

    assert scope["root_path"] == "/café"
    assert scope["path"] == "/café/x y"
    assert scope["raw_path"] == b"/caf%C3%A9/x%20y"
    assert fixed({**ONE, "prefix": True}, header, raw_path=None)["raw_path"] is None
    assert fixed(ONE, header, target="/x")["root_path"] == ""


def test_a_prefix_stands_before_the_servers_own() -> None:
    header = ("X-Forwarded-Prefix", "/outer")
    scope = fixed({**ONE, "prefix": True}, header, target="/inner/x", root_path="/inner")

    assert scope["root_path"] == "/outer/inner"
    assert scope["path"] == "/outer/inner/x"


def test_options_of_the_whole_server_have_no_prefix() -> None:
    header = ("X-Forwarded-Prefix", "/outer")
    scope = fixed({**ONE, "prefix": True}, header, path="*", raw_path=b"*")

    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("", "*", b"*")


@pytest.mark.parametrize(
    "value",
    [
        *("", "/", "x", "//evil.example", "https://evil.example", "/a//b", "/a?b", "/a#b", "/a b"),
        *("/..", "/a/./b", "/%2e%2E", "/a%2Fb", "/%0d%0a", "/%ff", "/%", "/%zz", "/é"),
    ],
)
def test_a_malformed_prefix_is_not_taken(value: str) -> None:
    scope = fixed({**ONE, "prefix": True}, ("X-Forwarded-Prefix", value), target="/x")

    assert (scope["root_path"], scope["path"]) == ("", "/x")


# ------------------------------------------------------------------------------ all else


def test_a_scope_without_these_fields_passes_as_it_is(run: Run) -> None:
    got: list[Any] = []

    async def keep(scope: Any, receive: Any, send: Any) -> None:
        got.append(scope)
        await app(scope, receive, send)

    http = HTTPCommunicator(ProxyFix(keep, hops=1), "GET", "/")
    run(http.get_response)

    assert got[0] is http.scope


def test_a_lifespan_passes(run: Run) -> None:
    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})

    async def main() -> None:
        async with LifespanManager(lint(ProxyFix(lifespan, hops=1))):
            pass

    run(main)


def test_whom_to_believe_must_be_said_one_way() -> None:
    for options in ({}, {**ONE, **NEAR}):
        with pytest.raises(ValueError, match=r"hops=1 .* or trusted="):
            ProxyFix(app, **options)


@pytest.mark.parametrize("hops", [0, -1, 65])
def test_a_number_of_hops_that_is_none_is_an_error_at_once(hops: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 64"):
        ProxyFix(app, hops=hops)


def test_an_address_that_is_none_is_an_error_at_once() -> None:
    with pytest.raises(ConfigError, match=r"'10\.0\.0\.300' is not an address"):
        ProxyFix(app, trusted=["10.0.0.300"])


NAMES = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix")
VALUES = (
    st.binary(max_size=60)
    | st.from_regex(rb"(?:[a-z0-9.\[\]:,\";=/% ]|for=|proto=|host=|/\.\.)*", fullmatch=True)
    | st.sampled_from([b",", b", 1.2.3.4", b'for="', b"/a/%2e%2e", b"[::1]:99999", b"https"])
)


@given(
    options=st.sampled_from([ONE, TWO, NEAR, {"hops": 64}, {"trusted": "*"}]),
    headers=st.lists(st.tuples(st.sampled_from((*NAMES, b"forwarded")), VALUES), max_size=6),
)
def test_whatever_the_fields_say_the_scope_is_one(
    options: dict[str, Any], headers: list[tuple[bytes, bytes]]
) -> None:
    middleware = ProxyFix(app, host=True, prefix=True, **options)
    got: list[dict[str, Any]] = []

    async def keep(scope: Any, receive: Any, send: Any) -> None:
        got.append(scope)
        await app(scope, receive, send)

    middleware._app = keep
    http = HTTPCommunicator(middleware, "GET", "/x", client=PEER)
    http.scope["headers"] = [(b"host", b"testserver"), *headers]
    asyncio.run(http.get_response())
    [scope] = got
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    assert len(hosts) == 1
    assert hosts[0] and is_host(hosts[0])
    assert scope["scheme"] in ("http", "https")
    assert isinstance(scope["client"][0], str) and 0 <= scope["client"][1] < 65536
    assert scope["path"] == scope["root_path"] + "/x"
    assert ".." not in scope["path"].split("/")
    assert "//" not in scope["path"]
