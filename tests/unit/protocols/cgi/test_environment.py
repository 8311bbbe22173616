"""Variables of a front to a request."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omnicorn.errors import LimitExceeded, RemoteProtocolError
from omnicorn.http.limits import Limits
from omnicorn.ports import RequestHead
from omnicorn.protocols.cgi import EnvironmentParser, GatewayHead
from omnicorn.protocols.fastcgi import split_params
from omnicorn.protocols.scgi import ScgiEngine
from omnicorn.protocols.uwsgi import UwsgiEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    Pairs = list[tuple[bytes, bytes]]


def split(block: bytes) -> list[tuple[bytes, bytes]]:
    parts = block.split(b"\0")[:-1]
    return list(zip(parts[::2], parts[1::2], strict=True))


def block_of(*pairs: tuple[str, str], **variables: str) -> bytes:
    everything = [*variables.items(), *pairs]
    return b"".join(
        b"%b\0%b\0" % (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in everything
    )


def parser(limits: Limits | None = None, root_path: str = "", **more: Any) -> EnvironmentParser:
    return EnvironmentParser(split, limits, root_path, **more)


def parse(
    *pairs: tuple[str, str],
    limits: Limits | None = None,
    root_path: str = "",
    unique: bool = False,
    **variables: Any,
) -> GatewayHead:
    """Parse a GET for / with further variables; empty ones may take its own away."""
    given = {"REQUEST_METHOD": "GET", "REQUEST_URI": "/", "CONTENT_LENGTH": ""} | variables
    return parser(limits, root_path, unique=unique).parse_shared(block_of(*pairs, **given))[0]


def refusal(*pairs: tuple[str, str], **more: Any) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        parse(*pairs, **more)
    return caught.value


# ---------------------------------------------------------------- the path


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("/", "/", b"/", b""),
        ("/a%20b?x=%20&y", "/a b", b"/a%20b", b"x=%20&y"),
        ("/%C3%BC", "/ü", b"/%C3%BC", b""),
        ("/%ff", "/�", b"/%ff", b""),
        ("/%2525", "/%25", b"/%2525", b""),
        ("/a?b?c", "/a", b"/a", b"b?c"),
        ("http://example.org/a?b", "/a", b"/a", b"b"),
        ("http://example.org", "/", b"/", b""),
    ],
)
def test_the_path_is_the_target_decoded_once(
    target: str, path: str, raw_path: bytes, query: bytes
) -> None:
    head = parse(REQUEST_URI=target, PATH_INFO="/other", QUERY_STRING="other")

    assert (head.path, head.raw_path, head.query) == (path, raw_path, query)


def test_the_authority_of_an_absolute_target_replaces_the_host() -> None:
    """RFC 9112 §3.2.2."""
    head = parse(REQUEST_URI="http://example.org/", HTTP_HOST="other.example", HTTP_A="1")

    assert head.headers == ((b"host", b"example.org"), (b"a", b"1"))
    assert head.fields[b"host"] == b"example.org"


def test_options_may_ask_for_the_asterisk() -> None:
    head = parse(REQUEST_METHOD="OPTIONS", REQUEST_URI="*", root_path="/app")

    assert (head.path, head.raw_path, head.root_path) == ("*", b"*", "")


@pytest.mark.parametrize(
    ("variables", "path", "raw_path"),
    [
        ({"SCRIPT_NAME": "", "PATH_INFO": "/a b"}, "/a b", b"/a%20b"),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/x"}, "/app/x", b"/app/x"),
        ({"SCRIPT_NAME": "/app"}, "/app", b"/app"),
        ({"DOCUMENT_URI": "/\xc3\xbc"}, "/ü", b"/%C3%BC"),
        ({"PATH_INFO": "/a?b%"}, "/a?b%", b"/a%3Fb%25"),
    ],
)
def test_without_a_target_the_decoded_variables_stand_in(
    variables: dict[str, Any], path: str, raw_path: bytes
) -> None:
    head = parse(REQUEST_URI="", QUERY_STRING="q=1", **variables)

    assert (head.path, head.raw_path, head.query) == (path, raw_path, b"q=1")


def test_a_front_that_sends_no_path_is_told_what_it_needs() -> None:
    error = refusal(REQUEST_URI="")

    assert error.status == 400
    assert "REQUEST_URI" in error.reason and "PATH_INFO" in error.reason


# ---------------------------------------------------------------- the mount point


@pytest.mark.parametrize(
    ("front", "variables", "root_path"),
    [
        ("nginx, SCGI", {}, ""),
        ("nginx, uwsgi", {"PATH_INFO": "/app/x y"}, ""),
        ("nginx, FastCGI", {"SCRIPT_NAME": "/app/x y"}, ""),
        ("Apache", {"SCRIPT_NAME": "/app/x y"}, ""),
        ("Apache, pathinfo", {"SCRIPT_NAME": "/app/x y", "PATH_INFO": "/x%20y"}, ""),
        ("lighttpd, HAProxy", {"SCRIPT_NAME": "/app", "PATH_INFO": "/x y"}, "/app"),
        ("nothing below", {"SCRIPT_NAME": "/app/x y", "PATH_INFO": ""}, ""),
        ("another path", {"SCRIPT_NAME": "/other", "PATH_INFO": "/x y"}, ""),
        ("the root", {"SCRIPT_NAME": "/", "PATH_INFO": "app/x y"}, ""),
    ],
    ids=lambda value: value if isinstance(value, str) and "," in value else None,
)
def test_script_name_is_the_root_path_only_where_it_is_a_mount_point(
    front: str, variables: dict[str, Any], root_path: str
) -> None:
    head = parse(REQUEST_URI="/app/x%20y", **variables)

    assert (head.path, head.raw_path) == ("/app/x y", b"/app/x%20y")
    assert head.root_path == root_path, front


@pytest.mark.parametrize(
    ("target", "path", "raw_path"),
    [
        ("/app/x", "/app/x", b"/app/x"),
        ("/app", "/app", b"/app"),
        ("/x", "/app/x", b"/app/x"),
        ("/apple", "/app/apple", b"/app/apple"),
    ],
)
def test_a_configured_root_path_wins_and_the_path_contains_it(
    target: str, path: str, raw_path: bytes
) -> None:
    head = parse(REQUEST_URI=target, SCRIPT_NAME="/", PATH_INFO="x", root_path="/app")

    assert (head.root_path, head.path, head.raw_path) == ("/app", path, raw_path)


# ---------------------------------------------------------------- fields


def test_fields_come_from_http_variables_in_their_order() -> None:
    head = parse(
        ("HTTP_HOST", "example.org"),
        ("HTTP_X_ONE", " a "),
        ("HTTP_COOKIE", "a=1"),
        ("HTTP_COOKIE", "b=2"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        CONTENT_TYPE="text/plain",
    )

    assert head.headers == (
        (b"host", b"example.org"),
        (b"x-one", b"a"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"content-type", b"text/plain"),
    )
    assert head.fields[b"cookie"] == b"b=2"


def test_what_the_front_has_acted_on_is_left_out() -> None:
    head = parse(
        REQUEST_METHOD="POST",
        CONTENT_LENGTH="5",
        HTTP_CONTENT_LENGTH="5",
        CONTENT_TYPE="a/b",
        HTTP_CONTENT_TYPE="a/b",
        HTTP_PROXY="http://evil.example",
    )

    assert head.headers == ((b"content-type", b"a/b"), (b"content-length", b"5"))


def test_chunked_content_has_the_length_that_the_front_has_counted() -> None:
    head = parse(CONTENT_LENGTH="70000", HTTP_TRANSFER_ENCODING="chunked")

    assert head.headers == ((b"content-length", b"70000"),)
    assert head.length == 70000 and head.has_body


@pytest.mark.parametrize(
    ("told", "claimed", "headers", "length"),
    [
        ("0", "", (), 0),
        ("", "", (), -1),
        ("0", "0", ((b"content-length", b"0"),), 0),
        ("", "0", (), -1),
    ],
)
def test_content_length_is_a_field_only_if_the_client_sent_one(
    told: str, claimed: str, headers: tuple[Any, ...], length: int
) -> None:
    head = parse(CONTENT_LENGTH=told, HTTP_CONTENT_LENGTH=claimed, CONTENT_TYPE="")

    assert head.headers == headers
    assert (head.length, head.has_body) == (length, False)


@pytest.mark.parametrize(
    "value", ["+5", "-1", "5 ", "0x5", "5,5", "9" * 19, "٣".encode().decode("latin-1")]
)
def test_a_content_length_that_is_no_number_is_refused(value: str) -> None:
    assert refusal(CONTENT_LENGTH=value).reason == "CONTENT_LENGTH is malformed"


def test_content_lost_on_the_way_is_refused_and_the_remedy_named() -> None:
    """nginx before 1.29.6 with scgi_request_buffering off."""
    error = refusal(CONTENT_LENGTH="0", HTTP_CONTENT_LENGTH="10000000")

    assert error.status == 400
    assert "scgi_request_buffering on" in error.reason


def test_content_of_unknown_length_is_said_to_be_there() -> None:
    head = parse(REQUEST_METHOD="POST", HTTP_TRANSFER_ENCODING="chunked")

    assert (head.length, head.has_body) == (-1, True)


@pytest.mark.parametrize(
    "pairs",
    [
        [("HTTP_X", "a\nb")],
        [("HTTP_X", "a\rb")],
        [("HTTP_X", "\x7f")],
        [("HTTP_", "a")],
        [("HTTP_A B", "a")],
        [("HTTP_HOST", "a b")],
        [("HTTP_HOST", "a"), ("HTTP_HOST", "b")],
        [("CONTENT_LENGTH", "1"), ("CONTENT_LENGTH", "2")],
        [("CONTENT_TYPE", "a\x01")],
    ],
    ids=ascii,
)
def test_what_http_refuses_is_refused_here(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parser().parse_shared(block_of(("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/"), *pairs))
    assert caught.value.status == 400


@pytest.mark.parametrize("target", ["/a b", "/a#b", "/\xfc", "a", "*", "ftp://a/"])
def test_a_target_that_http_refuses_is_refused(target: str) -> None:
    assert refusal(REQUEST_URI=target).status == 400


@pytest.mark.parametrize("method", ["", "get", "G T"])
def test_a_method_that_is_none_is_refused(method: str) -> None:
    assert refusal(REQUEST_METHOD=method).status == 400


def test_connect_is_not_offered() -> None:
    assert refusal(REQUEST_METHOD="CONNECT", REQUEST_URI="example.org:443").status == 501


def test_variables_may_stand_twice_unless_the_protocol_forbids_it() -> None:
    twice = ("SERVER_NAME", "b")

    assert parse(twice, SERVER_NAME="a", SERVER_PORT="80").server == ("b", 80)
    assert "'SERVER_NAME' stands twice" in refusal(twice, SERVER_NAME="a", unique=True).reason
    assert len(parse(("HTTP_A", "1"), ("HTTP_A", "2"), unique=True).headers) == 2


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTP_CONTENT_TYPE"])
def test_a_client_may_repeat_what_is_left_out(name: str, unique: bool) -> None:
    """nginx before 1.23 hands every field on, one for one."""
    head = parse((name, "a"), (name, "b"), CONTENT_TYPE="c/d", unique=unique)

    assert head.headers == ((b"content-type", b"c/d"),)


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("name", ["HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"])
def test_what_tells_the_length_may_not_contradict_itself(name: str, unique: bool) -> None:
    value = "0" if name == "HTTP_CONTENT_LENGTH" else "chunked"
    assert parse((name, value), (name, value), CONTENT_LENGTH="0", unique=unique).length == 0

    error = refusal((name, value), (name, "1"), CONTENT_LENGTH="0", unique=unique)
    assert error.reason == f"there are several values of {name}"


# ---------------------------------------------------------------- who, where, how


@pytest.mark.parametrize(
    ("protocol", "version"),
    [
        ("HTTP/1.0", "1.0"),
        ("HTTP/1.1", "1.1"),
        ("HTTP/2.0", "2"),
        ("HTTP/2", "2"),
        ("HTTP/3.0", "3"),
        ("", "1.1"),
        ("INCLUDED", "1.1"),
    ],
)
def test_versions_have_the_names_of_asgi(protocol: str, version: str) -> None:
    assert parse(SERVER_PROTOCOL=protocol).version == version


@pytest.mark.parametrize(
    ("https", "scheme", "result"),
    [
        ("on", "http", "https"),
        ("1", "", "https"),
        ("", "https", "https"),
        ("", "HTTPS", "https"),
        ("off", "https", "http"),
        ("", "", "http"),
        ("", "gopher", "http"),
    ],
)
def test_the_scheme_is_https_where_the_front_says_so(https: str, scheme: str, result: str) -> None:
    assert parse(HTTPS=https, REQUEST_SCHEME=scheme).scheme == result


@pytest.mark.parametrize(
    ("address", "port", "client"),
    [
        ("192.0.2.1", "50000", ("192.0.2.1", 50000)),
        ("2001:db8::1", "50000", ("2001:db8::1", 50000)),
        ("192.0.2.1", "", ("192.0.2.1", 0)),
        ("192.0.2.1", "70000", ("192.0.2.1", 0)),
        ("fe80::1%eth0", "1", ("fe80::1%eth0", 1)),
        ("....", "1", None),
        ("1.2.3.400", "1", None),
        ("::1::", "1", None),
        ("192.0.2.1%eth0", "1", None),
        ("unix:", "", None),
        ("/run/x.sock", "", None),
        ("", "", None),
    ],
)
def test_the_client_is_the_peer_of_the_front(
    address: str, port: str, client: tuple[str, int] | None
) -> None:
    assert parser().parse_shared(environment(0, REMOTE_ADDR=address, REMOTE_PORT=port))[1] == client


@pytest.mark.parametrize(
    ("variables", "server"),
    [
        ({"SERVER_NAME": "example.org", "SERVER_PORT": "80"}, ("example.org", 80)),
        ({"SERVER_NAME": "[::1]", "SERVER_PORT": "80"}, ("::1", 80)),
        ({"SERVER_NAME": "127.0.0.1:8080", "SERVER_PORT": "8080"}, ("127.0.0.1", 8080)),  # HAProxy
        ({"SERVER_NAME": "[::1]:8080", "SERVER_PORT": "8080"}, ("::1", 8080)),
        ({"SERVER_NAME": "", "SERVER_PORT": "80"}, None),
        ({"SERVER_NAME": "_", "SERVER_PORT": "80", "HTTP_HOST": "a.b:8080"}, ("a.b", 80)),
        ({"SERVER_NAME": "", "SERVER_PORT": "80", "HTTP_HOST": "[::1]"}, ("::1", 80)),
        ({"SERVER_NAME": "", "SERVER_PORT": "80", "SERVER_ADDR": "192.0.2.8"}, ("192.0.2.8", 80)),
        ({"SERVER_NAME": "a", "SERVER_PORT": "", "SERVER_ADDR": "unix:/x"}, ("/x", None)),
        ({"SERVER_NAME": "a", "SERVER_PORT": ""}, None),
    ],
    ids=str,
)
def test_the_server_is_where_the_front_was_asked(
    variables: dict[str, Any], server: tuple[str, int | None] | None
) -> None:
    assert parse(**variables).server == server


@pytest.mark.parametrize(
    ("connection", "upgrade", "result"),
    [
        ("Upgrade", "websocket", b"websocket"),
        ("keep-alive, upgrade", "WebSocket, foo", b"websocket, foo"),
        ("keep-alive", "websocket", None),
        ("Upgrade", "", None),
    ],
)
def test_an_upgrade_is_one_that_the_connection_names(
    connection: str, upgrade: str, result: bytes | None
) -> None:
    assert parse(HTTP_CONNECTION=connection, HTTP_UPGRADE=upgrade).upgrade == result


def test_forwarding_fields_are_marked() -> None:
    assert parse(HTTP_X_FORWARDED_FOR="192.0.2.1").forwarded
    assert not parse(HTTP_X_REAL_IP="192.0.2.1").forwarded


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("limits", "variables", "status"),
    [
        (Limits(head=100), {"HTTP_A": "a" * 100}, 431),
        (Limits(head=9000), {"HTTP_A": "a" * 9000}, 431),
        (Limits(fields=1), {"HTTP_A": "a", "HTTP_B": "b"}, 431),
        (Limits(line=50), {"REQUEST_URI": "/" * 51}, 414),
        (Limits(line=50), {"REQUEST_URI": "", "PATH_INFO": "/" * 51}, 414),
        (Limits(body=5), {"CONTENT_LENGTH": "6"}, 413),
    ],
    ids=["a short head", "a long head", "fields", "target", "path", "content"],
)
def test_limits_are_those_of_http(limits: Limits, variables: Any, status: int) -> None:
    error = refusal(limits=limits, **variables)

    assert isinstance(error, LimitExceeded)
    assert error.status == status


# ---------------------------------------------------------------- what is remembered


def environment(port: int, **more: str) -> bytes:
    variables = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": str(port),
        "SERVER_PORT": "80",
    }
    return block_of(**(variables | more))


def test_requests_that_differ_in_the_client_alone_share_a_head() -> None:
    shared = parser()
    for _ in range(2):
        shared.parse_shared(environment(50000))
    first, one = shared.parse_shared(environment(50001))
    second, two = shared.parse_shared(environment(60000, REMOTE_ADDR="2001:db::"))

    assert first is second
    assert (one, two) == (("192.0.2.1", 50001), ("2001:db::", 60000))


def test_a_front_that_does_not_name_the_client_so_is_remembered_as_a_whole() -> None:
    shared = parser()
    block = block_of(
        REMOTE_PORT="1", REQUEST_METHOD="GET", REQUEST_URI="/", REMOTE_ADDR="192.0.2.1"
    )
    heads = [shared.parse_shared(block) for _ in range(3)]

    assert heads[1] == heads[2] and heads[2][0] is heads[1][0]
    assert heads[2][1] == ("192.0.2.1", 1)


@pytest.mark.parametrize(
    "name",
    ["REMOTE_PORT", "REMOTE_ADDR", "X\0REMOTE_ADDR\x00192.0.2.9\0REMOTE_PORT\x001"],
    ids=["a value that is called so", "another", "names that stand twice"],
)
def test_a_client_is_never_taken_from_somewhere_else(name: str) -> None:
    shared = parser()
    for port in (1, 1, 1, 2, 3):
        block = block_of(("CONTENT_TYPE", name)) + environment(port)
        if name.startswith("X"):
            block = block_of(("QUERY_STRING", name)) + environment(port)
        assert shared.parse_shared(block)[1] == ("192.0.2.1", port)


def test_memory_is_bounded() -> None:
    shared = parser()
    for number in range(3000):
        for _ in range(2):
            shared.parse_shared(environment(1, REQUEST_URI=f"/{number}"))

    assert len(shared._heads) <= 512
    assert len(shared._paths) <= 1024
    assert len(shared._seen) <= 4096


_names = st.sampled_from(
    [
        "REQUEST_METHOD",
        "REQUEST_URI",
        "CONTENT_LENGTH",
        "SCRIPT_NAME",
        "PATH_INFO",
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "SERVER_NAME",
        "SERVER_PORT",
        "HTTPS",
        "HTTP_HOST",
        "HTTP_A",
        "HTTP_CONNECTION",
        "HTTP_UPGRADE",
    ]
) | st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=8)
_values = st.sampled_from(["/", "/a", "GET", "80", "192.0.2.1", "on"]) | st.text(
    st.characters(min_codepoint=1, max_codepoint=255), max_size=12
)


@given(st.lists(st.tuples(_names, _values)))
def test_any_environment_is_a_request_or_refused_and_always_alike(
    pairs: list[tuple[str, str]],
) -> None:
    shared = parser()
    outcomes: list[Any] = []
    for _ in range(3):
        try:
            head, client = shared.parse_shared(block_of(*pairs))
        except RemoteProtocolError as error:
            outcomes.append((error.status, error.reason))
        else:
            names = (*RequestHead.__slots__, *GatewayHead.__slots__)
            outcomes.append([client, *(repr(getattr(head, name)) for name in names)])

    assert outcomes[0] == outcomes[1] == outcomes[2]


def pack_scgi(pairs: Pairs) -> bytes:
    return b"".join(b"%b\0%b\0" % pair for pair in pairs)


def pack_uwsgi(pairs: Pairs) -> bytes:
    texts = [text for pair in pairs for text in pair]
    return b"".join(len(text).to_bytes(2, "little") + text for text in texts)


def pack_fastcgi(pairs: Pairs) -> bytes:
    return b"".join(bytes((len(name), len(value))) + name + value for name, value in pairs)


_CALLED = [
    (b"XREMOTE_ADDR", b"1.2.3.4"),
    (b"HTTP_REMOTE_ADDR", b"1.2.3.4"),
    (b"REMOTE_ADDRX", b"1.2.3.4"),
    (b"HTTP_X", b"REMOTE_ADDR1.2.3.4\tREMOTE_PORT9"),
    (b"HTTP_X", b"1.2.3.4\tREMOTE_PORT77"),
    (b"CONTENT_TYPE", b"REMOTE_ADDR"),
]
_addresses = st.sampled_from([b"1.2.3.4", b"1.2.3.45", b"::1"]) | st.sampled_from(
    [b"", b"....", b"1.2.3.400", b"::1::", b"unix:", b"fe80::1%a", b"REMOTE_ADDR", b"\tREMOTE_PORT"]
)
_ports = st.sampled_from([b"1", b"99"]) | st.sampled_from(
    [b"", b"65535", b"65536", b"99999", b"100000", b"a", b"00001"]
)
_clients = st.tuples(
    _addresses,
    _ports,
    st.none() | st.tuples(st.integers(0, 2), st.sampled_from(_CALLED)),
    # A lie: what stands in the place of which bytes, behind the framing's back.
    st.none()
    | st.tuples(
        st.sampled_from([b"1.2.3.4", b"99"]), st.sampled_from([b"1.2.3.45", b"1.2.3.", b"9"])
    ),
)


@pytest.mark.parametrize(
    ("make", "pack"),
    [
        (ScgiEngine.parser, pack_scgi),
        (UwsgiEngine.parser, pack_uwsgi),
        (partial(EnvironmentParser, split_params), pack_fastcgi),
    ],
    ids=["SCGI", "uwsgi", "FastCGI"],
)
@given(clients=st.lists(_clients, min_size=2, max_size=6))
@example([(b"1.2.3.4", b"99", None, None), (b"1.2.3.4", b"70000", None, None)])
@example([(b"1.2.3.4", b"99", None, None), (b"1.2.3.4", b"99", None, (b"1.2.3.4", b"1.2.3.45"))])
@example([(b"1.2.3.4", b"99", None, None), (b"....", b"99", None, None)])
def test_what_is_remembered_changes_no_answer(
    make: Callable[[], EnvironmentParser], pack: Callable[[Pairs], bytes], clients: list[Any]
) -> None:
    def outcome(parser: EnvironmentParser, block: bytes) -> Any:
        try:
            head, client = parser.parse_shared(block)
        except RemoteProtocolError as error:
            return error.status, error.reason
        names = (*RequestHead.__slots__, *GatewayHead.__slots__)
        return [client, *(repr(getattr(head, name)) for name in names)]

    warm = make()
    start = [(b"CONTENT_LENGTH", b"0"), (b"SCGI", b"1")]
    start += [(b"REQUEST_METHOD", b"GET"), (b"REQUEST_URI", b"/")]
    for address, port, called, lie in clients:
        pairs = [(b"REMOTE_ADDR", address), (b"REMOTE_PORT", port)]
        if called is not None:
            pairs.insert(*called)
        block = pack([*start, *pairs, (b"SERVER_PORT", b"80")])
        if lie is not None:
            block = block.replace(*lie)
        told = [outcome(warm, block) for _ in range(3)]
        assert told == [outcome(make(), block)] * 3
