"""The opening handshake: real heads in, an offer or a refusal out; what accepts it.

Heads are parsed by the HTTP/1.1 engine's own parser. The clients of other libraries then shake
hands with us: what they ask for we understand, what we answer they take.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
import wsproto
import wsproto.events
import wsproto.extensions
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.protocol import State
from websockets.uri import parse_uri

from omnicorn.errors import HandshakeRefused, LocalProtocolError
from omnicorn.protocols.http1 import RequestParser
from omnicorn.protocols.websocket import Offer, parse_offer
from omnicorn.protocols.websocket.handshake import accepting_fields

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""RFC 6455 §1.3."""

FIELDS = {
    "Host": "example.org",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def head_of(*more: tuple[str, str], method: str = "GET", without: str = "") -> Any:
    """A parsed head: `FIELDS` without one, with more of them."""
    fields = [(n, v) for n, v in FIELDS.items() if n != without]
    lines = [f"{method} /chat HTTP/1.1", *(f"{n}: {v}" for n, v in [*fields, *more]), "", ""]
    return RequestParser().parse("\r\n".join(lines).encode("latin-1"))


def with_field(name: str, value: str) -> Any:
    """A parsed head where *name* has another value."""
    return head_of((name, value), without=name)


def refusal(head: Any, keyed: bool = True) -> HandshakeRefused:
    with pytest.raises(HandshakeRefused) as caught:
        parse_offer(head, keyed, True)
    assert len(caught.value.reason) > 10
    return caught.value


# ---------------------------------------------------------------- what is offered, §4.2.1


def test_the_smallest_handshake_offers_nothing_but_its_key() -> None:
    assert parse_offer(head_of(), True, True) == Offer(KEY.encode(), [], None)


@pytest.mark.parametrize(
    ("lines", "subprotocols"),
    [
        (["chat"], ["chat"]),
        (["chat, superchat"], ["chat", "superchat"]),
        (["b,a\t, ,c"], ["b", "a", "c"]),
        (["b", "a"], ["b", "a"]),
        (["v12.stomp", "graphql-ws, Graphql-WS"], ["v12.stomp", "graphql-ws", "Graphql-WS"]),
        ([""], []),
        ([" , ,"], []),
    ],
)
def test_subprotocols_are_offered_in_order(lines: list[str], subprotocols: list[str]) -> None:
    head = head_of(*(("Sec-WebSocket-Protocol", line) for line in lines))
    assert parse_offer(head, True, True).subprotocols == subprotocols


@pytest.mark.parametrize(
    "value", ["a b", "a;b", '"a"', "a/b", "caf\xe9", "a, b=c", "a,(b)", "a\tb"]
)
def test_a_subprotocol_that_is_no_token_is_400(value: str) -> None:
    assert refusal(head_of(("Sec-WebSocket-Protocol", value))).status == 400


@pytest.mark.parametrize(
    ("lines", "bits"),
    [
        (["permessage-deflate"], 12),
        (["permessage-deflate; server_max_window_bits=10"], 10),
        (["foo", "permessage-deflate; server_max_window_bits=9"], 9),
        (["permessage-deflate; unknown", "permessage-deflate; server_max_window_bits=11"], 11),
        (["foo, bar; baz"], None),
        (["caf\xe9"], None),
        ([""], None),
    ],
)
def test_the_extension_is_agreed_to_where_it_is_offered(lines: list[str], bits: Any) -> None:
    head = head_of(*(("Sec-WebSocket-Extensions", line) for line in lines))
    agreement = parse_offer(head, True, True).deflate
    assert (None if agreement is None else agreement.server_bits) == bits
    assert parse_offer(head, True, False).deflate is None


# ---------------------------------------------------------------- what is refused, §4.2.1, §4.4


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "DELETE"])
def test_another_method_than_get_is_405(method: str) -> None:
    refused = refusal(head_of(method=method))
    assert (refused.status, refused.headers) == (405, [(b"allow", b"GET")])


@pytest.mark.parametrize(
    "field", [("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("Content-Length", "1")]
)
def test_a_request_with_a_body_is_400(field: tuple[str, str]) -> None:
    assert refusal(head_of(field)).status == 400


def test_a_request_with_a_body_of_no_bytes_has_none() -> None:
    assert parse_offer(head_of(("Content-Length", "0")), True, True).key == KEY.encode()


@pytest.mark.parametrize(
    "version", ["", "0", "8", "12", "14", "013", "13.0", "13, 8", "8, 13", "x"]
)
def test_another_version_is_426_and_is_told_ours(version: str) -> None:
    """RFC 6455 §4.4; RFC 9110 §15.5.22: a 426 names the protocol in an Upgrade field."""
    refused = refusal(with_field("Sec-WebSocket-Version", version))
    assert refused.status == 426
    assert sorted(refused.headers) == [
        (b"connection", b"upgrade"),
        (b"sec-websocket-version", b"13"),
        (b"upgrade", b"websocket"),
    ]


def test_no_version_or_two_of_them_are_426() -> None:
    assert refusal(head_of(without="Sec-WebSocket-Version")).status == 426
    assert refusal(head_of(("Sec-WebSocket-Version", "13"))).status == 426
    assert refusal(head_of(("Sec-WebSocket-Version", "8"))).status == 426


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        KEY[:-1],
        KEY[:-2],
        KEY + "=",
        KEY[:-2] + "A=",  # 17 bytes
        base64.b64encode(bytes(15)).decode(),
        base64.b64encode(bytes(17)).decode(),
        base64.b64encode(bytes(18)).decode(),
        base64.urlsafe_b64encode(b"\xff" * 16).decode(),
        KEY[:5] + "*" + KEY[6:],
        KEY[:5] + " " + KEY[6:],
        f"{KEY}, {KEY}",
        "\xe9" + KEY[1:],
    ],
)
def test_a_malformed_key_is_400(key: str) -> None:
    assert refusal(with_field("Sec-WebSocket-Key", key)).status == 400


def test_no_key_or_two_of_them_are_400() -> None:
    assert refusal(head_of(without="Sec-WebSocket-Key")).status == 400
    assert refusal(head_of(("Sec-WebSocket-Key", KEY))).status == 400


@pytest.mark.parametrize("key", [bytes(16), b"\xff" * 16, b"\xfb\xef\xbe" * 5 + b"\x3e"])
def test_any_sixteen_bytes_are_a_key(key: bytes) -> None:
    encoded = base64.b64encode(key)
    head = with_field("Sec-WebSocket-Key", encoded.decode())
    assert parse_offer(head, True, True).key == encoded


# ---------------------------------------------------------------- without a key (RFC 8441 §5)


class ConnectHead:
    """A head as HTTP/2 and HTTP/3 present it: extended CONNECT, no key."""

    method = "CONNECT"
    has_body = True

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.headers = headers
        self.fields = dict(headers)


def test_over_http_2_there_is_neither_get_nor_a_key() -> None:
    head: Any = ConnectHead(
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-protocol", b"a, b"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
    )
    offer = parse_offer(head, False, True)
    assert (offer.key, offer.subprotocols) == (b"", ["a", "b"])
    assert offer.deflate is not None
    assert accepting_fields(offer, "b", [(b"x", b"1")]) == [
        (b"sec-websocket-protocol", b"b"),
        (b"sec-websocket-extensions", offer.deflate.answer),
        (b"x", b"1"),
    ]


def test_over_http_2_the_version_is_still_asked_for() -> None:
    head: Any = ConnectHead((b"sec-websocket-version", b"12"))
    assert refusal(head, keyed=False).status == 426


# ---------------------------------------------------------------- what accepts it, §4.2.2


def test_the_accept_key_is_the_one_of_the_rfc() -> None:
    """RFC 6455 §1.3."""
    offer = parse_offer(head_of(), True, True)
    assert accepting_fields(offer, None, []) == [
        (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    ]


def test_the_accept_key_depends_on_the_clients() -> None:
    key = base64.b64encode(bytes(range(16)))
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    fields = accepting_fields(Offer(key, [], None), None, [])
    assert fields == [(b"sec-websocket-accept", base64.b64encode(digest))]


def test_the_choice_the_extension_and_further_fields_are_in_the_answer() -> None:
    head = head_of(
        ("Sec-WebSocket-Protocol", "a, b"), ("Sec-WebSocket-Extensions", "permessage-deflate")
    )
    offer = parse_offer(head, True, True)
    assert offer.deflate is not None
    fields = accepting_fields(offer, "b", ((b"x-one", b"1"), (b"Set-Cookie", b"a=b")))
    assert fields[1:] == [
        (b"sec-websocket-protocol", b"b"),
        (b"sec-websocket-extensions", offer.deflate.answer),
        (b"x-one", b"1"),
        (b"Set-Cookie", b"a=b"),
    ]


def test_nothing_is_chosen_by_itself() -> None:
    offer = Offer(KEY.encode(), ["a"], None)
    assert [name for name, _ in accepting_fields(offer, None, [])] == [b"sec-websocket-accept"]


@pytest.mark.parametrize("choice", ["c", "A", "", "a, b", b"a", 5])
def test_a_choice_that_was_not_offered_is_the_applications_mistake(choice: Any) -> None:
    with pytest.raises(LocalProtocolError, match=r"was not offered; offered were: a, b$"):
        accepting_fields(Offer(b"", ["a", "b"], None), choice, [])
    with pytest.raises(LocalProtocolError, match=r"none$"):
        accepting_fields(Offer(b"", [], None), choice, [])


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"Upgrade",
        b"sec-websocket-accept",
        b"Sec-WebSocket-Extensions",
        b"SEC-WEBSOCKET-VERSION",
        b"sec-websocket-protocol",
    ],
)
def test_the_servers_fields_are_not_the_applications(name: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="the server's to send") as caught:
        accepting_fields(Offer(b"", ["a"], None), None, [(b"x", b"1"), (name, b"x")])
    assert ("'subprotocol'" in str(caught.value)) == (name == b"sec-websocket-protocol")


@pytest.mark.parametrize(
    "headers", [None, 5, [b"x"], [(b"a", b"b", b"c")], [(1, b"x")], [None], [(None, b"")]]
)
def test_headers_that_are_no_pairs_are_the_applications_mistake(headers: Any) -> None:
    with pytest.raises(LocalProtocolError, match="pairs of bytes"):
        accepting_fields(Offer(b"", [], None), None, headers)


# ---------------------------------------------------------------- with other peoples' clients


def respond(fields: list[tuple[bytes, bytes]]) -> bytes:
    lines = [b"HTTP/1.1 101 Switching Protocols", b"connection: Upgrade", b"upgrade: websocket"]
    lines += [name + b": " + value for name, value in fields]
    return b"\r\n".join([*lines, b"", b""])


WEBSOCKETS = [
    {},
    {"client_max_window_bits": None},
    {"server_max_window_bits": 9, "client_max_window_bits": 10},
    {"server_no_context_takeover": True, "client_no_context_takeover": True},
]


@pytest.mark.parametrize("settings", WEBSOCKETS)
def test_the_client_of_websockets_takes_our_answer(settings: Any) -> None:
    client = ClientProtocol(
        parse_uri("ws://example.org/chat"),
        extensions=[ClientPerMessageDeflateFactory(**settings)],
        subprotocols=["x", "y"],  # type: ignore[list-item]
    )
    client.send_request(client.connect())
    head: Any = RequestParser().parse(b"".join(client.data_to_send()))
    offer = parse_offer(head, True, True)
    assert offer.subprotocols == ["x", "y"]
    assert offer.deflate is not None
    client.receive_data(respond(accepting_fields(offer, "y", [])))
    assert client.state is State.OPEN, client.handshake_exc
    assert client.subprotocol == "y"
    extension: Any = client.extensions[0]
    assert extension.local_max_window_bits == offer.deflate.client_bits
    assert extension.remote_max_window_bits == offer.deflate.server_bits
    assert extension.local_no_context_takeover == offer.deflate.client_forgets
    assert extension.remote_no_context_takeover == offer.deflate.server_forgets


@pytest.mark.parametrize("extension", [True, False])
def test_the_client_of_wsproto_takes_our_answer(extension: bool) -> None:
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    extensions: list[Any] = [wsproto.extensions.PerMessageDeflate()] if extension else []
    request = wsproto.events.Request(
        host="example.org", target="/chat", subprotocols=["x", "y"], extensions=extensions
    )
    head: Any = RequestParser().parse(client.send(request))
    offer = parse_offer(head, True, True)
    assert (offer.deflate is not None) == extension
    client.receive_data(respond(accepting_fields(offer, "x", [])))
    (accepted,) = client.events()
    assert isinstance(accepted, wsproto.events.AcceptConnection)
    assert accepted.subprotocol == "x"
    assert len(accepted.extensions) == extension
