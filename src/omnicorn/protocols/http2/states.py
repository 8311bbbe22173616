"""The states of a stream (RFC 9113 §5.1), and what a frame means in each.

::

                     IDLE ──HEADERS──▶ OPEN ──END_STREAM of the peer──▶ HALF_CLOSED_REMOTE
                      │ (skipped)       │ our END_STREAM                      │ our END_STREAM
                      ▼                 ▼                                     ▼
                    UNUSED      HALF_CLOSED_LOCAL ──END_STREAM of the peer─▶ CLOSED
    any of them ──RST_STREAM of the peer──▶ CLOSED, ──ours──▶ RESET
    a promise of ours ──▶ RESERVED ──our head──▶ HALF_CLOSED_REMOTE

Nothing is kept of a stream that is over, but for the last ones that we reset: their peer
may not know yet. So a closed stream is one whose number is used up and that is not open.
"""

from __future__ import annotations

from omnicorn.protocols.http2.codes import (
    DATA,
    HEADERS,
    RST_STREAM,
    WINDOW_UPDATE,
)

IDLE, OPEN, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, RESET, CLOSED, UNUSED, RESERVED = range(8)
NAMES = (
    "idle", "open", "half-closed (local)", "half-closed (remote)", "reset", "closed", "unused",
    "reserved",
)  # fmt: skip

# What a frame is taken for.
ACCEPT = 0
IGNORE = 1
"""It was under way when the stream ended."""
STREAM_ERROR = 2
"""STREAM_CLOSED, for this stream."""
CONNECTION_CLOSED = 3
"""STREAM_CLOSED, for the connection: who sends this has lost count."""
CONNECTION_ERROR = 4
"""PROTOCOL_ERROR, for the connection."""

REACTIONS: dict[int, dict[int, int]] = {
    IDLE: {
        HEADERS: ACCEPT,
        DATA: CONNECTION_ERROR,
        RST_STREAM: CONNECTION_ERROR,
        WINDOW_UPDATE: CONNECTION_ERROR,
    },
    OPEN: {HEADERS: ACCEPT, DATA: ACCEPT, RST_STREAM: ACCEPT, WINDOW_UPDATE: ACCEPT},
    HALF_CLOSED_LOCAL: {HEADERS: ACCEPT, DATA: ACCEPT, RST_STREAM: ACCEPT, WINDOW_UPDATE: IGNORE},
    HALF_CLOSED_REMOTE: {
        HEADERS: STREAM_ERROR,
        DATA: STREAM_ERROR,
        RST_STREAM: ACCEPT,
        WINDOW_UPDATE: ACCEPT,
    },
    RESET: {HEADERS: IGNORE, DATA: IGNORE, RST_STREAM: IGNORE, WINDOW_UPDATE: IGNORE},
    CLOSED: {
        HEADERS: CONNECTION_CLOSED,
        DATA: STREAM_ERROR,
        RST_STREAM: IGNORE,
        WINDOW_UPDATE: IGNORE,
    },
    UNUSED: {
        HEADERS: CONNECTION_ERROR,
        DATA: CONNECTION_ERROR,
        RST_STREAM: CONNECTION_ERROR,
        WINDOW_UPDATE: CONNECTION_ERROR,
    },
    RESERVED: {
        HEADERS: CONNECTION_ERROR,
        DATA: CONNECTION_ERROR,
        RST_STREAM: ACCEPT,
        WINDOW_UPDATE: ACCEPT,
    },
}
"""By state and frame type; PRIORITY is accepted in every state (§6.3)."""
