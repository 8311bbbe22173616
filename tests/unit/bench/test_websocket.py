from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from bench import websocket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from conftest import Peer


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    here.settimeout(5)
    with here, there:
        yield here, there


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("opcode", [websocket.TEXT, websocket.BINARY])
def test_a_message_of_every_length_form_comes_back(peer: Peer, opcode: int, size: int) -> None:
    payload = bytes(i % 251 for i in range(size))
    with websocket.connect(peer.address, "/") as link:
        websocket.send(link, opcode, payload)

        assert websocket.receive(link) == (opcode, payload)
    assert peer.messages == [(opcode, payload)]


def test_the_handshake_offers_no_extension_and_names_its_target(peer: Peer) -> None:
    websocket.connect(peer.address, "/room?a=1").close()

    (head,) = peer.heads
    assert head.startswith("GET /room?a=1 HTTP/1.1\nHost: 127.0.0.1\n")
    assert "Sec-WebSocket-Version: 13" in head
    assert "xtension" not in head


def test_every_handshake_has_its_own_key(peer: Peer) -> None:
    for _ in range(2):
        websocket.connect(peer.address, "/").close()

    assert len({*peer.keys}) == 2


def test_a_mask_is_new_for_each_frame_and_never_zero(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = iter([b"\0\0\0\0", b"abcd", b"efgh"])
    monkeypatch.setattr(websocket.os, "urandom", lambda size: next(masks))

    assert websocket.masked(websocket.TEXT, b"aa") == b"\x81\x82abcd\x00\x03"
    assert websocket.masked(websocket.TEXT, b"aa") == b"\x81\x82efgh\x04\x07"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "answered 'HTTP/1.1 403"),
        ("HTTP/1.1 101 \r\nSec-WebSocket-Accept: eA==\r\n\r\n", "Sec-WebSocket-Accept is wrong"),
        ("HTTP/1.1 101 \r\n\r\n", "Sec-WebSocket-Accept is wrong"),
    ],
)
def test_a_refused_or_false_handshake_is_explained(peer: Peer, answer: str, reason: str) -> None:
    peer.greet = lambda key: answer

    with pytest.raises(websocket.WrongAnswer, match=reason):
        websocket.connect(peer.address, "/")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", "an extension that was not"),
        ("\r\n\x81\x00", "bytes behind the handshake"),
    ],
)
def test_what_was_not_asked_for_is_a_wrong_answer(peer: Peer, more: str, reason: str) -> None:
    accepting = peer.greet
    peer.greet = lambda key: accepting(key)[:-2] + more

    with pytest.raises(websocket.WrongAnswer, match=reason):
        websocket.connect(peer.address, "/")


def test_a_server_that_hangs_up_during_the_handshake_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)

        def failing() -> AbstractContextManager[object]:
            return pytest.raises(websocket.WrongAnswer, match="closed during the handshake")

        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        accepted.close()
        with client, failing():
            websocket._head(client)


def test_a_ping_is_answered_and_not_taken_for_a_message(peer: Peer) -> None:
    peer.answer = lambda opcode, payload: b"\x89\x03abc\x8a\x00\x81\x02ok"
    with websocket.connect(peer.address, "/") as link:
        websocket.send(link, websocket.TEXT, b"?")

        assert websocket.receive(link) == (websocket.TEXT, b"ok")
        peer.answer = lambda opcode, payload: b"\x81\x00"
        websocket.send(link, websocket.TEXT, b"?")
        assert websocket.receive(link) == (websocket.TEXT, b"")
    assert peer.pongs == [b"abc"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x88\x02\x03\xe9", "closed with 1001"),
        (b"\x88\x05\x03\xf4bad", "closed with 1012 bad"),
        (b"\x88\x00", "closed with no code"),
        (b"\x01\x02ok", "begins 01 02"),
        (b"\xc1\x02ok", "begins c1 02"),
        (b"\x81\x82abcdok", "begins 81 82"),
        (b"\x81\x7e\x00\x02ok", "begins 81 7e 00 02"),
        (b"\x81\x05hell", "closed without a close frame"),
    ],
)
def test_anything_but_one_plain_frame_is_a_wrong_answer(
    pair: tuple[socket.socket, socket.socket], data: bytes, reason: str
) -> None:
    here, there = pair
    there.sendall(data)
    there.shutdown(socket.SHUT_WR)

    with pytest.raises(websocket.WrongAnswer, match=reason):
        websocket.receive(here)


def test_leaving_sends_a_close_frame_and_waits_for_the_end(peer: Peer) -> None:
    link = websocket.connect(peer.address, "/")

    websocket.leave(link)

    assert link.fileno() == -1
    assert peer.masks != []


def test_leaving_a_broken_connection_is_no_error(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    there.close()

    websocket.leave(here)

    assert here.fileno() == -1
