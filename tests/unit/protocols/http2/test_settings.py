"""SETTINGS both ways (RFC 9113 §6.5, RFC 8441 §3, RFC 9218 §2.1)."""

from __future__ import annotations

from typing import Any

import hpack
import pytest
from tests.http2_client import data, frame, settings

from omnicorn.errors import Http2Error
from omnicorn.protocols.http2.codes import (
    ACK,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    NO_RFC7540_PRIORITIES,
    PROTOCOL_ERROR,
    SETTINGS,
    WINDOW_UPDATE,
)
from omnicorn.protocols.http2.settings import Http2Settings, PeerSettings, greeting


def pack(*pairs: tuple[int, int]) -> bytes:
    return settings(*pairs)[9:]


# ---------------------------------------------------------------- ours


def test_the_greeting_says_what_is_served(connect: Any) -> None:
    dialogue = connect(None, max_streams=7, window=1 << 20, stream_window=12345)
    assert dialogue.server == {
        MAX_CONCURRENT_STREAMS: 7,
        INITIAL_WINDOW_SIZE: 12345,
        MAX_HEADER_LIST_SIZE: 65536,
        ENABLE_CONNECT_PROTOCOL: 1,
        NO_RFC7540_PRIORITIES: 1,
    }
    assert [(event.kind, event.stream, event.amount) for event in dialogue.events[1:]] == [
        (WINDOW_UPDATE, 0, (1 << 20) - 65535)
    ]


@pytest.mark.parametrize("window", [1, 1000, 65535])
def test_the_connections_window_cannot_begin_smaller_than_the_rfcs(window: int) -> None:
    """§6.9.2: it is not a setting."""
    frames = greeting(Http2Settings(window=window), 100)
    assert frames[3] == SETTINGS and len(frames) == 9 + 30


@pytest.mark.parametrize("window", [65536, 0x7FFFFFFF])
def test_the_connections_window_is_opened_to_what_is_asked(window: int) -> None:
    frames = greeting(Http2Settings(window=window), 100)
    assert frames[-4:] == (window - 65535).to_bytes(4, "big")


def test_a_server_never_offers_push(connect: Any) -> None:
    """§6.5.2: a server MUST NOT send ENABLE_PUSH as 1."""
    assert ENABLE_PUSH not in connect(None).server


# ---------------------------------------------------------------- the peer's


def test_settings_begin_as_the_rfc_says() -> None:
    """§6.5.2"""
    peer = PeerSettings()
    assert (peer.table_size, peer.push, peer.window) == (4096, True, 65535)


def test_settings_are_taken_in_order_and_the_last_counts() -> None:
    """§6.5.3"""
    peer = PeerSettings()
    peer.update(
        pack(
            (INITIAL_WINDOW_SIZE, 1),
            (ENABLE_PUSH, 0),
            (MAX_FRAME_SIZE, 16777215),
            (INITIAL_WINDOW_SIZE, 2),
            (MAX_CONCURRENT_STREAMS, 3),
            (HEADER_TABLE_SIZE, 0),
            (HEADER_TABLE_SIZE, 100),
        )
    )
    assert (peer.window, peer.push) == (2, False)
    assert (peer.max_streams, peer.table_size) == (3, 100)


def test_the_smallest_table_in_between_is_told() -> None:
    """RFC 7541 §4.2"""
    peer = PeerSettings()
    assert peer.update(pack((ENABLE_PUSH, 0))) == 4096
    assert peer.update(pack((HEADER_TABLE_SIZE, 10), (HEADER_TABLE_SIZE, 8192))) == 10
    assert peer.update(pack((HEADER_TABLE_SIZE, 9000))) == 8192


def test_unknown_settings_are_ignored() -> None:
    """§6.5.2: MUST ignore."""
    peer = PeerSettings()
    peer.update(pack((0, 5), (7, 9), (0xFFFF, 0xFFFFFFFF), (MAX_HEADER_LIST_SIZE, 0)))
    assert (peer.table_size, peer.window) == (4096, 65535)


BROKEN = [
    (ENABLE_PUSH, 2, PROTOCOL_ERROR),
    (ENABLE_PUSH, 0xFFFFFFFF, PROTOCOL_ERROR),
    (INITIAL_WINDOW_SIZE, 0x80000000, FLOW_CONTROL_ERROR),
    (INITIAL_WINDOW_SIZE, 0xFFFFFFFF, FLOW_CONTROL_ERROR),
    (MAX_FRAME_SIZE, 16383, PROTOCOL_ERROR),
    (MAX_FRAME_SIZE, 0, PROTOCOL_ERROR),
    (MAX_FRAME_SIZE, 16777216, PROTOCOL_ERROR),
    (ENABLE_CONNECT_PROTOCOL, 2, PROTOCOL_ERROR),
    (NO_RFC7540_PRIORITIES, 2, PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("name", "value", "code"), BROKEN)
def test_a_value_out_of_its_range_ends_the_connection(
    connect: Any, name: int, value: int, code: int
) -> None:
    """§6.5.2; RFC 8441 §3; RFC 9218 §2.1"""
    with pytest.raises(Http2Error) as info:
        PeerSettings().update(pack((name, value)))
    assert info.value.code == code
    dialogue = connect()
    dialogue.send(settings((name, value)))
    dialogue.assert_dead(code)


@pytest.mark.parametrize("size", [1, 5, 7, 11])
def test_settings_come_in_sixes(size: int) -> None:
    """§6.5: FRAME_SIZE_ERROR."""
    with pytest.raises(Http2Error) as info:
        PeerSettings().update(bytes(size))
    assert info.value.code == FRAME_SIZE_ERROR


def test_the_ends_of_the_ranges_are_in_them() -> None:
    peer = PeerSettings()
    for name, values in {
        ENABLE_PUSH: (0, 1),
        INITIAL_WINDOW_SIZE: (0, 0x7FFFFFFF),
        MAX_FRAME_SIZE: (16384, 16777215),
        ENABLE_CONNECT_PROTOCOL: (0, 1),
        NO_RFC7540_PRIORITIES: (0, 1),
        MAX_CONCURRENT_STREAMS: (0, 0xFFFFFFFF),
        HEADER_TABLE_SIZE: (0, 0xFFFFFFFF),
    }.items():
        for value in values:
            peer.update(pack((name, value)))


def test_every_settings_frame_is_acknowledged_in_its_turn(connect: Any) -> None:
    """§6.5.3"""
    dialogue = connect()
    ping = frame(6, 0, 0, b"between.")
    events = dialogue.send(settings(), ping, settings((ENABLE_PUSH, 0)))
    assert [(event.kind, event.flags) for event in events] == [(4, ACK), (6, ACK), (4, ACK)]


def test_acknowledgements_are_not_acknowledged(connect: Any) -> None:
    dialogue = connect()
    assert dialogue.send(frame(SETTINGS, ACK)) == []


@pytest.mark.parametrize("size", [1, 6])
def test_an_acknowledgement_is_empty(connect: Any, size: int) -> None:
    """§6.5: FRAME_SIZE_ERROR."""
    dialogue = connect()
    dialogue.send(frame(SETTINGS, ACK, 0, bytes(size)))
    dialogue.assert_dead(FRAME_SIZE_ERROR)


# ---------------------------------------------------------------- windows that change


def test_a_smaller_window_makes_those_of_open_streams_negative(connect: Any) -> None:
    """§6.9.2: it MUST track the negative window, and send nothing until it is positive."""
    dialogue = connect(((INITIAL_WINDOW_SIZE, 50000),))
    dialogue.send(dialogue.headers(1))
    dialogue.exchange().respond(b"x" * 60000)
    dialogue.take()
    assert len(dialogue.reply().body) == 50000
    dialogue.send(settings((INITIAL_WINDOW_SIZE, 10000)))
    assert dialogue.engine.streams[1].window == -40000
    assert dialogue.grant(1, 40000) == []
    dialogue.grant(1, 1)
    assert len(dialogue.reply().body) == 50001
    dialogue.grant(1, 20000)
    assert dialogue.reply().body == b"x" * 60000 and dialogue.reply().ended


def test_a_larger_window_lets_go_what_waits(connect: Any) -> None:
    """§6.9.2"""
    dialogue = connect(((INITIAL_WINDOW_SIZE, 0),))
    dialogue.send(dialogue.headers(1), dialogue.headers(3))
    for stream in (1, 3):
        dialogue.exchange(stream).respond(b"x" * 100)
    dialogue.take()
    assert not dialogue.reply(1).body and not dialogue.reply(3).body
    dialogue.send(settings((INITIAL_WINDOW_SIZE, 100)))
    assert dialogue.reply(1).ended and dialogue.reply(3).ended


def test_the_connections_window_is_no_business_of_settings(connect: Any) -> None:
    """§6.9.2: it can only be changed using WINDOW_UPDATE."""
    dialogue = connect(((INITIAL_WINDOW_SIZE, 1 << 24),))
    dialogue.send(dialogue.headers(1))
    dialogue.exchange().respond(b"x" * 70000)
    dialogue.take()
    assert len(dialogue.reply().body) == 65535


def test_a_change_that_takes_a_window_past_2_to_the_31_ends_the_connection(connect: Any) -> None:
    """§6.9.2: FLOW_CONTROL_ERROR."""
    dialogue = connect()
    dialogue.send(dialogue.headers(1))
    dialogue.grant(1, 1000)
    dialogue.send(settings((INITIAL_WINDOW_SIZE, 0x7FFFFFFF)))
    dialogue.assert_dead(FLOW_CONTROL_ERROR)


def test_streams_that_come_later_begin_with_the_new_window(connect: Any) -> None:
    dialogue = connect(((INITIAL_WINDOW_SIZE, 5),))
    dialogue.send(settings((INITIAL_WINDOW_SIZE, 7)), dialogue.headers(1))
    dialogue.exchange().respond(b"x" * 10)
    dialogue.take()
    assert dialogue.reply().body == b"x" * 7


# ---------------------------------------------------------------- tables that change


def answers(dialogue: Any, stream: int, value: bytes) -> None:
    dialogue.send(dialogue.headers(stream))
    dialogue.exchange(stream).respond(b"", 200, [(b"x-same", b"same"), (b"x-value", value)])
    dialogue.take()
    assert dict(dialogue.reply(stream).headers)[b"x-value"] == value


@pytest.mark.parametrize(
    "sizes", [[0], [0, 4096], [100], [100, 50, 4096], [65536], [4096], [0, 0], [1 << 31]]
)
@pytest.mark.parametrize("together", [True, False])
def test_the_table_follows_what_the_peer_allows(
    connect: Any, sizes: list[int], together: bool
) -> None:
    """RFC 7541 §4.2: the smallest, then the final size, before the next block; never more than
    the peer allows. `hpack` refuses a block that does not say so."""
    dialogue = connect()
    for turn in range(3):
        answers(dialogue, 2 * turn + 1, b"one")
    changes = [(HEADER_TABLE_SIZE, size) for size in sizes]
    if together:
        dialogue.send(settings(*changes))
    else:
        for change in changes:
            dialogue.send(settings(change))
    # A decoder in the peer's place forgets what no longer has room, at once.
    smallest = min(4096, *sizes)
    if smallest < 4096:
        old = dialogue.decoder
        dialogue.decoder = hpack.Decoder()
        dialogue.decoder.header_table.dynamic_entries.extend(old.header_table.dynamic_entries)
        dialogue.decoder.header_table._current_size = old.header_table._current_size
        dialogue.decoder.max_allowed_table_size = smallest
        dialogue.send(dialogue.headers(101))
        dialogue.exchange(101).respond(b"", 200, [(b"x-same", b"same")])
        # The update comes first, and goes down to the smallest.
        first = dialogue.engine.take()
        block = b"".join(bytes(piece) for piece in first)[9:]
        assert block[0] & 0xE0 == 0x20
        size = hpack.hpack.decode_integer(block, 5)[0]
        assert size <= smallest
        return
    for turn in range(3):
        answers(dialogue, 2 * turn + 101, b"two")


def test_remembered_blocks_do_not_outlive_their_table(connect: Any) -> None:
    dialogue = connect()
    for turn in range(6):
        answers(dialogue, 2 * turn + 1, b"one")
    dialogue.send(settings((HEADER_TABLE_SIZE, 0)))
    for turn in range(6, 12):
        answers(dialogue, 2 * turn + 1, b"one")
    assert dialogue.decoder.header_table_size == 0
    dialogue.send(settings((HEADER_TABLE_SIZE, 4096)))
    for turn in range(12, 18):
        answers(dialogue, 2 * turn + 1, b"one")
    assert dialogue.decoder.header_table_size == 4096


# ---------------------------------------------------------------- frame sizes


def test_frames_stay_at_16_kib_whatever_the_peer_takes(connect: Any) -> None:
    """§4.2: never more than the peer's MAX_FRAME_SIZE, whose least is 2^14."""
    dialogue = connect(((MAX_FRAME_SIZE, 1 << 20), (INITIAL_WINDOW_SIZE, 1 << 20)))
    dialogue.send(dialogue.post(1), data(1, b"", True))
    dialogue.grant(0, 1 << 20)
    dialogue.exchange().respond(b"x" * 200_000)
    dialogue.take()  # which asserts it
    assert dialogue.reply().ended
