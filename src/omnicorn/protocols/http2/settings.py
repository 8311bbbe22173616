"""What each side of an HTTP/2 connection asks of the other (RFC 9113 §6.5)."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from omnicorn.errors import Http2Error
from omnicorn.protocols.http2.codes import (
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    NO_RFC7540_PRIORITIES,
    PROTOCOL_ERROR,
    SETTINGS,
    WINDOW_UPDATE,
)

_SETTING = Struct(">HL")


class Http2Settings(NamedTuple):
    """How this side serves HTTP/2."""

    max_streams: int = 128
    """Requests at once on one connection; further ones get REFUSED_STREAM."""
    window: int = 1 << 20
    """Bytes of all request bodies of a connection that may wait for their applications."""
    stream_window: int = 256 << 10
    """Bytes of one request body that may wait."""
    connect_protocol: bool = True
    """Whether extended CONNECT is taken (RFC 8441): WebSockets."""


class PeerSettings:
    """What the client asks, at first the RFC's defaults.

    Attributes:
        table_size: Bytes of the HPACK table it keeps for our fields.
        push: It takes pushed responses.
        max_streams: Pushed responses at once.
        window: Bytes it takes on each stream at first.
    """

    __slots__ = ("max_streams", "push", "table_size", "window")

    def __init__(self) -> None:
        self.table_size = 4096
        self.push = True
        self.max_streams = LARGEST_WINDOW
        self.window = DEFAULT_WINDOW

    def update(self, payload: bytes) -> int:
        """Apply a SETTINGS payload, in order; unknown settings mean nothing (§6.5.2).

        Returns:
            The smallest that `table_size` was meanwhile (RFC 7541 §4.2).

        Raises:
            Http2Error: A value is out of its range.
        """
        if len(payload) % 6:
            raise Http2Error("a SETTINGS frame's payload comes in sixes", FRAME_SIZE_ERROR)
        smallest = self.table_size
        for name, value in _SETTING.iter_unpack(payload):
            if name == HEADER_TABLE_SIZE:
                self.table_size = value
                smallest = min(smallest, value)
            elif name == ENABLE_PUSH:
                self.push = _switch("ENABLE_PUSH", value)
            elif name == MAX_CONCURRENT_STREAMS:
                self.max_streams = value
            elif name == INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    raise Http2Error("INITIAL_WINDOW_SIZE is over 2^31-1", FLOW_CONTROL_ERROR)
                self.window = value
            elif name == MAX_FRAME_SIZE:
                if not DEFAULT_FRAME_SIZE <= value < 1 << 24:
                    raise Http2Error("MAX_FRAME_SIZE is not from 2^14 to 2^24-1", PROTOCOL_ERROR)
            elif name == ENABLE_CONNECT_PROTOCOL:  # means nothing from a client, but has a range
                _switch("ENABLE_CONNECT_PROTOCOL", value)
            elif name == NO_RFC7540_PRIORITIES:
                _switch("NO_RFC7540_PRIORITIES", value)
        return smallest


def _switch(name: str, value: int) -> bool:
    if value > 1:
        raise Http2Error(f"{name} is neither 0 nor 1", PROTOCOL_ERROR)
    return value == 1


def greeting(settings: Http2Settings, max_list_size: int) -> bytes:
    """The server's first frames: its SETTINGS, and the connection's whole window (§3.4, §6.9.2).

    Args:
        settings: This side's.
        max_list_size: Bytes of a field list that are read.
    """
    asked = (
        (MAX_CONCURRENT_STREAMS, settings.max_streams),
        (INITIAL_WINDOW_SIZE, settings.stream_window),
        (MAX_HEADER_LIST_SIZE, max_list_size),
        (ENABLE_CONNECT_PROTOCOL, int(settings.connect_protocol)),
        (NO_RFC7540_PRIORITIES, 1),
    )
    payload = b"".join(_SETTING.pack(*pair) for pair in asked)
    frames = b"\0" + len(payload).to_bytes(2, "big") + bytes((SETTINGS, 0, 0, 0, 0, 0)) + payload
    if settings.window > DEFAULT_WINDOW:
        frames += bytes((0, 0, 4, WINDOW_UPDATE, 0, 0, 0, 0, 0))
        frames += (settings.window - DEFAULT_WINDOW).to_bytes(4, "big")
    return frames
