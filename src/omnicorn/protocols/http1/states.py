"""The two state machines of an HTTP/1 connection, as tables. Rule 1: the tables are the law.

The engine compares states itself, which is quicker; the tests walk every pair of a state and an
input through it, and what it does must be what stands here.

::

    the peer's side (REMOTE)                       our side (LOCAL)

    IDLE ──START──▶ HEAD                           IDLE ──REQUEST──▶ WAITING ⟲ INFORMATIONAL
     │               │                                                 │ HEAD
     ├─HEAD_AND_BODY─┴▶ BODY ─END──▶ COMPLETE                          ▼
     └─HEAD_ONLY─────────────────────▶ │                              BODY ⟲ DATA
          ▲──────────PROCEED───────────┘                END │           │ END_BEFORE_TRAILERS
                                                            ▼           ▼
    FAIL, from anywhere: CLOSED                        COMPLETE ◀─END─ TRAILERS
                                                       COMPLETE ──PROCEED──▶ IDLE
                                                       RESET, from anywhere: CLOSED

The next request starts when *both* sides are COMPLETE (RFC 9112 §9.3.2: answers leave in
the order of their requests, so requests are read one at a time). A response may be
COMPLETE while the request's BODY still comes: then the rest is read and dropped.

A state is its row's offset in a flat tuple: ``TABLE[state + input]`` is the next one, and -1
"not allowed here". States of one machine come in order, so that they can be compared.
"""

from __future__ import annotations

# Inputs of the remote machine.
START, HEAD_ONLY, HEAD_AND_BODY, END, PROCEED, FAIL = range(6)
REMOTE_INPUTS = ("START", "HEAD_ONLY", "HEAD_AND_BODY", "END", "PROCEED", "FAIL")
# Its states.
IDLE, HEAD, BODY, COMPLETE, CLOSED = (row * len(REMOTE_INPUTS) for row in range(5))
REMOTE_STATES = ("IDLE", "HEAD", "BODY", "COMPLETE", "CLOSED")

REMOTE_TRANSITIONS: dict[tuple[str, str], str] = {
    ("IDLE", "START"): "HEAD",
    ("IDLE", "HEAD_ONLY"): "COMPLETE",
    ("IDLE", "HEAD_AND_BODY"): "BODY",
    ("HEAD", "HEAD_ONLY"): "COMPLETE",
    ("HEAD", "HEAD_AND_BODY"): "BODY",
    ("BODY", "END"): "COMPLETE",
    ("COMPLETE", "PROCEED"): "IDLE",
    ("IDLE", "FAIL"): "CLOSED",
    ("HEAD", "FAIL"): "CLOSED",
    ("BODY", "FAIL"): "CLOSED",
    ("COMPLETE", "FAIL"): "CLOSED",
    ("CLOSED", "FAIL"): "CLOSED",
}

# Inputs of the local machine.
(
    L_REQUEST,
    L_INFORMATIONAL,
    L_HEAD,
    L_DATA,
    L_END,
    L_END_BEFORE_TRAILERS,
    L_PROCEED,
    L_RESET,
) = range(8)
LOCAL_INPUTS = (
    "REQUEST",
    "INFORMATIONAL",
    "HEAD",
    "DATA",
    "END",
    "END_BEFORE_TRAILERS",
    "PROCEED",
    "RESET",
)
# Its states.
L_IDLE, L_WAITING, L_BODY, L_TRAILERS, L_COMPLETE, L_CLOSED = (
    row * len(LOCAL_INPUTS) for row in range(6)
)
LOCAL_STATES = ("IDLE", "WAITING", "BODY", "TRAILERS", "COMPLETE", "CLOSED")

LOCAL_TRANSITIONS: dict[tuple[str, str], str] = {
    ("IDLE", "REQUEST"): "WAITING",
    ("WAITING", "INFORMATIONAL"): "WAITING",
    ("WAITING", "HEAD"): "BODY",
    ("BODY", "DATA"): "BODY",
    ("BODY", "END"): "COMPLETE",
    ("BODY", "END_BEFORE_TRAILERS"): "TRAILERS",
    ("TRAILERS", "END"): "COMPLETE",
    ("COMPLETE", "PROCEED"): "IDLE",
    ("IDLE", "RESET"): "CLOSED",
    ("WAITING", "RESET"): "CLOSED",
    ("BODY", "RESET"): "CLOSED",
    ("TRAILERS", "RESET"): "CLOSED",
    ("COMPLETE", "RESET"): "CLOSED",
    ("CLOSED", "RESET"): "CLOSED",
}


def compile_table(
    transitions: dict[tuple[str, str], str], states: tuple[str, ...], inputs: tuple[str, ...]
) -> tuple[int, ...]:
    """The flat form of a table: one row of offsets for each state, -1 where not allowed."""
    offset = {state: row * len(inputs) for row, state in enumerate(states)}
    return tuple(
        offset.get(transitions.get((state, event), ""), -1) for state in states for event in inputs
    )


REMOTE = compile_table(REMOTE_TRANSITIONS, REMOTE_STATES, REMOTE_INPUTS)
LOCAL = compile_table(LOCAL_TRANSITIONS, LOCAL_STATES, LOCAL_INPUTS)
