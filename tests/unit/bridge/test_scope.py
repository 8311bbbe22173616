from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.frames import HANDSHAKE

from omnicorn.bridge.http import EXTENSIONS
from omnicorn.security.trust import TrustedPeers

if TYPE_CHECKING:
    from collections.abc import Callable

    ScopeOf = Callable[..., dict[str, Any]]


@pytest.fixture
def scope_of(serve: Callable[..., Any]) -> ScopeOf:
    """The scope that a request's bytes give rise to, on a connection of its own each time."""

    def make(request: bytes, *, state: Any = None, **options: Any) -> dict[str, Any]:
        served = serve(**options)
        served.service.state = state
        served.send(request)
        scope: dict[str, Any] = served.exchange.scope
        return scope

    return make


def get(target: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: example.org", *fields, "", ""]).encode()


def test_the_scope_is_what_the_specification_lists_and_nothing_else(scope_of: ScopeOf) -> None:
    """ASGI HTTP spec 2.5, connection scope."""
    scope = scope_of(get("/a%20b?x=%20&y", "X-One: 1", "X-Two:  2 ", "X-One: 3"))

    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"x=%20&y",
        "root_path": "",
        "headers": [
            (b"host", b"example.org"),
            (b"x-one", b"1"),
            (b"x-two", b"2"),
            (b"x-one", b"3"),
        ],
        "client": ("192.0.2.1", 50000),
        "server": ("192.0.2.80", 80),
        "extensions": EXTENSIONS,
    }


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/%2525", "/%25"),  # once
        ("/a%2Fb", "/a/b"),
        ("/%C3%A9", "/é"),
        ("/%ff", "/\N{REPLACEMENT CHARACTER}"),
        ("/a+b", "/a+b"),
        ("/%zz%4", "/%zz%4"),
        ("/a//b/../c", "/a//b/../c"),
        ("http://example.org/x?y", "/x"),
    ],
)
def test_the_path_is_decoded_exactly_once(scope_of: ScopeOf, target: str, path: str) -> None:
    assert scope_of(get(target))["path"] == path


def test_path_and_raw_path_contain_the_root_path(scope_of: ScopeOf) -> None:
    scope = scope_of(get("/a%20b?q"), root_path="/möunt")

    assert scope["root_path"] == "/möunt"
    assert scope["path"] == "/möunt/a b"
    assert scope["query_string"] == b"q"


def test_the_asterisk_of_options_is_below_no_root_path(scope_of: ScopeOf) -> None:
    scope = scope_of(b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", root_path="/app")
    assert (scope["path"], scope["raw_path"], scope["root_path"]) == ("*", b"*", "/app")


def test_raw_path_stays_a_legal_path_under_any_root_path(scope_of: ScopeOf) -> None:
    """RFC 3986 §3.3: what is outside ASCII is percent-encoded."""
    assert scope_of(get("/a%20b"), root_path="/mö")["raw_path"] == b"/m%C3%B6/a%20b"


@pytest.mark.parametrize("method", ["GET", "PURGE", "M-SEARCH"])
def test_the_method_is_given_as_it_is(scope_of: ScopeOf, method: str) -> None:
    assert scope_of(f"{method} / HTTP/1.1\r\nhost: a\r\n\r\n".encode())["method"] == method


def test_a_method_that_is_not_upper_case_never_reaches_an_application(
    serve: Callable[..., Any],
) -> None:
    """The specification promises upper case, and RFC 9110 §9.1 forbids to make it so."""
    served = serve()

    assert served.send(b"gEt / HTTP/1.1\r\nhost: a\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert served.app.exchanges == []


def test_state_is_a_shallow_copy_for_each_request(scope_of: ScopeOf) -> None:
    pool: list[int] = []
    state = {"pool": pool}
    one, two = scope_of(get("/"), state=state), scope_of(get("/"), state=state)
    one["state"]["mine"] = 1
    one["state"]["pool"].append(1)

    assert state == {"pool": [1]}
    assert two["state"] == {"pool": [1]}
    assert "state" not in scope_of(get("/"))
    assert scope_of(get("/"), state={})["state"] == {}


def test_middleware_may_change_its_scope_without_touching_the_next(scope_of: ScopeOf) -> None:
    scopes = [scope_of(get("/")) for _ in range(2)]
    scopes[0]["headers"].append((b"x", b"y"))
    scopes[0]["extensions"]["mine"] = {}
    scopes[0]["asgi"]["version"] = "4.0"

    assert scopes[1] == scope_of(get("/"))
    assert "mine" not in EXTENSIONS


@pytest.mark.parametrize(
    ("link", "client", "server"),
    [
        ({}, ("192.0.2.1", 50000), ("192.0.2.80", 80)),
        (
            {"peername": ("2001:db8::1", 5, 0, 0), "sockname": ("2001:db8::2", 80, 0, 0)},
            ("2001:db8::1", 5),
            ("2001:db8::2", 80),
        ),
        ({"peername": "", "sockname": "/run/app.sock"}, None, ("/run/app.sock", None)),
        ({"peername": None, "sockname": None}, None, None),
    ],
)
def test_client_and_server_are_the_connections_ends(
    serve: Callable[..., Any], link: dict[str, Any], client: Any, server: Any
) -> None:
    served = serve(link=link)
    served.get("/")

    assert served.exchange.scope["client"] == client
    assert served.exchange.scope["server"] == server


def test_the_extensions_offered_are_the_ones_that_work(serve: Callable[..., Any]) -> None:
    served = serve()
    served.get("/")

    assert set(served.exchange.scope["extensions"]) == {
        "http.response.trailers",
        "http.response.early_hint",
        "http.response.pathsend",
        "http.response.zerocopysend",
    }


def test_state_and_root_path_come_from_the_service(serve: Callable[..., Any]) -> None:
    served = serve(root_path="/api")
    served.service.state = {"db": 1}
    served.get("/users")

    scope = served.exchange.scope
    assert (scope["path"], scope["raw_path"], scope["root_path"]) == (
        "/api/users",
        b"/api/users",
        "/api",
    )
    assert scope["state"] == {"db": 1}
    assert scope["state"] is not served.service.state


# ---------------------------------------------------------------- websocket


def test_a_websockets_scope_is_what_the_specification_lists_and_nothing_else(
    scope_of: ScopeOf,
) -> None:
    """ASGI WebSocket spec 2.5, connection scope."""
    scope = scope_of(get("/a%20b?x=%20&y", *HANDSHAKE, "Sec-WebSocket-Protocol: chat, v2"))

    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"x=%20&y",
        "root_path": "",
        "headers": [
            (b"host", b"example.org"),
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
            (b"sec-websocket-protocol", b"chat, v2"),
        ],
        "client": ("192.0.2.1", 50000),
        "server": ("192.0.2.80", 80),
        "extensions": {"websocket.http.response": {}},
        "subprotocols": ["chat", "v2"],
    }


@pytest.mark.parametrize(
    ("fields", "subprotocols"),
    [
        ((), []),
        (("sec-websocket-protocol: a",), ["a"]),
        (("sec-websocket-protocol: b,a , c",), ["b", "a", "c"]),
        (("sec-websocket-protocol: b", "sec-websocket-protocol: a"), ["b", "a"]),
        (("sec-websocket-protocol: , a,,",), ["a"]),
    ],
)
def test_subprotocols_are_all_that_were_offered_in_their_order(
    scope_of: ScopeOf, fields: tuple[str, ...], subprotocols: list[str]
) -> None:
    assert scope_of(get("/", *HANDSHAKE, *fields))["subprotocols"] == subprotocols


@pytest.mark.parametrize(
    ("said", "http", "websocket"),
    [("http", "http", "ws"), ("https", "https", "wss"), ("ws", "ws", "ws"), ("wss", "wss", "wss")],
)
def test_a_websockets_scheme_follows_the_proxys(
    scope_of: ScopeOf, said: str, http: str, websocket: str
) -> None:
    field = f"x-forwarded-proto: {said}"
    trusted = TrustedPeers(("192.0.2.1",))

    scope = scope_of(get("/", field, *HANDSHAKE), trusted=trusted)
    assert (scope["type"], scope["scheme"]) == ("websocket", websocket)


def test_a_websockets_client_is_the_one_the_proxy_names(scope_of: ScopeOf) -> None:
    trusted = TrustedPeers(("192.0.2.1",))
    scope = scope_of(get("/", "x-forwarded-for: 203.0.113.7", *HANDSHAKE), trusted=trusted)

    assert scope["client"][0] == "203.0.113.7"


def test_state_and_root_path_are_a_websockets_too(scope_of: ScopeOf) -> None:
    state = {"db": 1}
    scope = scope_of(get("/a", *HANDSHAKE), state=state, root_path="/api")

    assert (scope["path"], scope["raw_path"], scope["root_path"]) == (
        "/api/a",
        b"/api/a",
        "/api",
    )
    assert scope["state"] == state and scope["state"] is not state
    assert "state" not in scope_of(get("/a", *HANDSHAKE))


def test_the_same_bytes_may_be_a_websocket_here_and_a_request_there(serve: Any) -> None:
    """What equal requests have in common is remembered, whatever they became."""
    served = serve()
    kinds = []
    for upgrades in (True, True, True, False, False, True):
        served.service.upgrades = upgrades
        served.peer = served.connect()
        served.send(get("/same", *HANDSHAKE))
        scope = served.exchange.scope
        kinds.append((scope["type"], scope["scheme"], "method" in scope, "subprotocols" in scope))

    websocket, http = ("websocket", "ws", False, True), ("http", "http", True, False)
    assert kinds == [websocket, websocket, websocket, http, http, websocket]


def test_middleware_may_change_a_websockets_scope_without_touching_the_next(
    scope_of: ScopeOf,
) -> None:
    request = get("/", *HANDSHAKE, "sec-websocket-protocol: a")
    scopes = [scope_of(request) for _ in range(2)]
    scopes[0]["headers"].append((b"x", b"y"))
    scopes[0]["subprotocols"].append("b")
    scopes[0]["extensions"]["mine"] = {}
    scopes[0]["asgi"]["version"] = "4.0"

    assert scopes[1] == scope_of(request)
    assert scopes[1]["subprotocols"] == ["a"]
