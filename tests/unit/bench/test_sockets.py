from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from bench import sockets
from bench.cases import CASES, Case, Kind, Message
from bench.load import LoadError

if TYPE_CHECKING:
    import socket

    from conftest import Peer

HELLO, ECHO, LARGE, ROOM = (
    next(case for case in CASES if case.name == name)
    for name in ("hello", "ws", "ws-large", "ws-fanout")
)
THREE = dataclasses.replace(ROOM, connections=3)


def frame(payload: bytes) -> bytes:
    return b"\x81" + bytes((len(payload),)) + payload


def once(case: Case, peer: Peer) -> sockets.Load:
    """The shortest load there is: every socket sends one message, or the speaker does."""
    with sockets.crowd(case, peer.address) as run:
        return run(0)


@pytest.mark.parametrize("case", [ECHO, LARGE], ids=lambda case: case.name)
def test_every_socket_gets_its_message_back(peer: Peer, case: Case) -> None:
    seen = once(dataclasses.replace(case, connections=4), peer)

    assert (seen.requests, seen.errors) == (4, 0)
    assert len(peer.messages) == 4
    assert {(opcode, len(payload)) for opcode, payload in peer.messages} == {
        (case.message.opcode, case.message.size)  # type: ignore[union-attr]
    }


def test_a_socket_sends_again_as_long_as_there_is_time(peer: Peer) -> None:
    with sockets.crowd(dataclasses.replace(ECHO, connections=2), peer.address) as run:
        seen = run(0.05)

    assert seen.seconds >= 0.05
    assert seen.requests == len(peer.messages) > 2
    assert seen.p99_ms is not None
    assert 0 < seen.p99_ms <= 1000 * seen.seconds


def test_payloads_and_masks_differ_from_message_to_message(peer: Peer) -> None:
    with sockets.crowd(dataclasses.replace(ECHO, connections=2), peer.address) as run:
        for _ in range(sockets.VARIETY):
            run(0)

    assert len(set(peer.messages)) == len(set(peer.masks)) == 2 * sockets.VARIETY


def test_no_message_is_in_flight_after_a_run(peer: Peer) -> None:
    with sockets.crowd(dataclasses.replace(ECHO, connections=3), peer.address) as run:
        assert [run(0).requests for _ in range(5)] == [3] * 5


def test_an_echo_may_come_in_pieces(peer: Peer) -> None:
    link = sockets.Link.__new__(sockets.Link)
    link.first, link.whole, link.due = 0x81, 6, 6

    assert [link.sort(piece) for piece in (b"\x81\x04", b"\x89", b"abc")] == [0, 0, 1]
    assert link.due == 6


@pytest.mark.parametrize("ping_first", [True, False])
def test_pings_are_answered_and_not_counted(peer: Peer, ping_first: bool) -> None:
    ping = b"\x89\x02hi"
    peer.answer = lambda _, payload: ping + frame(payload) if ping_first else frame(payload) + ping
    with sockets.crowd(dataclasses.replace(ECHO, connections=1), peer.address) as run:
        assert run(0).requests == 1
        peer.answer = lambda _, payload: frame(payload)
        assert run(0).requests == 1

    assert len(peer.messages) == 2
    assert peer.pongs == [b"hi"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\x88\x05\x03\xf4bye", "closed with 1012 bye under load"),
        (b"\x82\x40" + b"x" * 64, "came 82 40 78"),
        (b"\x89\x05ab", "no echo and no whole ping"),
        ((b"\x81\x40" + b"x" * 64) * 2, "2 echoes came for one message"),
        (b"", "hung up under load"),
    ],
)
def test_anything_else_ends_the_run_as_failed(peer: Peer, answer: bytes, reason: str) -> None:
    peer.answer = lambda opcode, payload: answer

    with pytest.raises(LoadError, match=reason):
        once(dataclasses.replace(ECHO, connections=1), peer)


def test_silence_ends_the_run_as_failed(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "PATIENCE", 0.01)
    peer.answer = lambda opcode, payload: b"\x81"

    with pytest.raises(LoadError, match="2 sockets heard nothing for"):
        once(dataclasses.replace(ECHO, connections=2), peer)


def test_a_message_that_does_not_fit_is_sent_in_parts(peer: Peer) -> None:
    huge = dataclasses.replace(
        ECHO, connections=1, message=Message(text=False, size=8 * 1024 * 1024)
    )
    peer.answer = lambda opcode, payload: (
        b"\x82\x7f" + len(payload).to_bytes(8, "big") + bytes(payload)
    )

    assert once(huge, peer).requests == 1


def test_what_the_speaker_says_is_heard_by_all_others(peer: Peer) -> None:
    def tell(data: bytes, others: list[socket.socket]) -> None:
        for link in others:
            link.sendall(data)

    peer.tell = tell

    with sockets.crowd(THREE, peer.address) as run:
        assert [run(0).requests for _ in range(3)] == [3] * 3
    assert len(peer.messages) == 3


def test_a_listener_that_hears_twice_for_another_is_noticed(peer: Peer) -> None:
    def tell(data: bytes, others: list[socket.socket]) -> None:
        for link in (others[0], others[0], others[1]):
            link.sendall(data)

    peer.tell = tell

    with pytest.raises(LoadError, match=r"listeners missed or repeated|2 echoes came"):
        once(THREE, peer)


def test_a_listener_that_hears_nothing_is_noticed(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "PATIENCE", 0.01)

    def tell(data: bytes, others: list[socket.socket]) -> None:
        for link in others[1:]:
            link.sendall(data)

    peer.tell = tell

    with pytest.raises(LoadError, match="1 sockets heard nothing"):
        once(THREE, peer)


def test_a_handshake_that_fails_is_explained(peer: Peer) -> None:
    peer.greet = lambda key: "HTTP/1.1 404 \r\n\r\n"

    with pytest.raises(LoadError, match=r"could not be connected: .*HTTP/1.1 404"):
        once(ECHO, peer)


def test_a_case_without_a_message_is_refused(peer: Peer) -> None:
    with pytest.raises(LoadError, match="hello is not a case of WebSockets"):
        once(HELLO, peer)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cases_of_sockets_have_a_message_and_others_none(case: Case) -> None:
    if case.kind is not Kind.IDLE:
        assert (case.message is not None) == (case.kind in (Kind.ECHO, Kind.FANOUT))
    if case.message is not None:
        assert len(case.message.sample()) == case.message.size
        assert case.message.sample() != case.message.sample()
        assert not case.message.text or case.message.sample().isascii()
