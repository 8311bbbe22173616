"""The state tables, and that the engine obeys them: every (state, input) pair, and random walks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import LocalProtocolError
from omnicorn.protocols.http1 import states
from omnicorn.protocols.http1.states import (
    LOCAL,
    LOCAL_INPUTS,
    LOCAL_STATES,
    LOCAL_TRANSITIONS,
    REMOTE,
    REMOTE_INPUTS,
    REMOTE_STATES,
    REMOTE_TRANSITIONS,
    compile_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"

TABLES = [
    pytest.param(LOCAL, LOCAL_TRANSITIONS, LOCAL_STATES, LOCAL_INPUTS, id="local"),
    pytest.param(REMOTE, REMOTE_TRANSITIONS, REMOTE_STATES, REMOTE_INPUTS, id="remote"),
]


def remote_state(engine: Any) -> str:
    return REMOTE_STATES[engine.remote // len(REMOTE_INPUTS)]


def local_state(engine: Any) -> str:
    return LOCAL_STATES[engine.local // len(LOCAL_INPUTS)]


# ---------------------------------------------------------------- the tables themselves


@pytest.mark.parametrize(("table", "transitions", "names", "inputs"), TABLES)
def test_the_flat_table_says_what_the_readable_one_says(
    table: tuple[int, ...], transitions: Any, names: Any, inputs: Any
) -> None:
    assert len(table) == len(names) * len(inputs)
    for row, state in enumerate(names):
        for column, event in enumerate(inputs):
            got = table[row * len(inputs) + column]
            want = transitions.get((state, event))
            assert got == (-1 if want is None else names.index(want) * len(inputs))


@pytest.mark.parametrize(("table", "transitions", "names", "inputs"), TABLES)
def test_the_table_names_only_what_exists(
    table: Any, transitions: Any, names: Any, inputs: Any
) -> None:
    for (state, event), after in transitions.items():
        assert state in names
        assert event in inputs
        assert after in names
    assert {event for _, event in transitions} == set(inputs)


@pytest.mark.parametrize(("table", "transitions", "names", "inputs"), TABLES)
def test_every_state_is_reached_from_the_first(
    table: Any, transitions: Any, names: Any, inputs: Any
) -> None:
    reached = {names[0]}
    while more := {b for (a, _), b in transitions.items() if a in reached} - reached:
        reached |= more
    assert reached == set(names)


@pytest.mark.parametrize(("table", "transitions", "names", "inputs"), TABLES)
def test_closed_is_for_good_and_near_from_everywhere(
    table: Any, transitions: Any, names: Any, inputs: Any
) -> None:
    assert {b for (a, _), b in transitions.items() if a == "CLOSED"} == {"CLOSED"}
    assert {a for (a, _), b in transitions.items() if b == "CLOSED"} == set(names)


def test_names_of_states_are_offsets_of_rows() -> None:
    for row, name in enumerate(REMOTE_STATES):
        assert getattr(states, name) == row * len(REMOTE_INPUTS)
    for row, name in enumerate(LOCAL_STATES):
        assert getattr(states, f"L_{name}") == row * len(LOCAL_INPUTS)
    for column, name in enumerate(REMOTE_INPUTS):
        assert getattr(states, name) == column
    for column, name in enumerate(LOCAL_INPUTS):
        assert getattr(states, f"L_{name}") == column


def test_a_table_compiles_to_rows_of_offsets() -> None:
    assert compile_table({("A", "x"): "B", ("B", "y"): "A"}, ("A", "B"), ("x", "y")) == (
        2, -1, -1, 0,
    )  # fmt: skip


# ---------------------------------------------------------------- our side, pair by pair


def to_waiting(recorder: Any, trailers: bool) -> None:
    recorder.feed(GET)


def to_body(recorder: Any, trailers: bool) -> None:
    to_waiting(recorder, trailers)
    recorder.engine.send_head(200, [], trailers=trailers)


def to_trailers(recorder: Any, trailers: bool) -> None:
    to_body(recorder, True)
    recorder.engine.send_data(b"", True)


def to_complete(recorder: Any, trailers: bool) -> None:
    to_body(recorder, False)
    recorder.engine.send_data(b"", True)


def to_closed(recorder: Any, trailers: bool) -> None:
    to_waiting(recorder, trailers)
    recorder.engine.reset()


LOCAL_WAYS: dict[str, Callable[[Any, bool], None]] = {
    "IDLE": lambda recorder, trailers: None,
    "WAITING": to_waiting,
    "BODY": to_body,
    "TRAILERS": to_trailers,
    "COMPLETE": to_complete,
    "CLOSED": to_closed,
}


def end(engine: Any) -> None:
    """The input END: the last content, or where that is out, the trailer section."""
    if local_state(engine) == "TRAILERS":
        engine.send_trailers([])
    else:
        engine.send_data(b"", True)


LOCAL_VERBS: dict[str, tuple[Callable[[Any], object], bool]] = {
    "INFORMATIONAL": (lambda engine: engine.send_informational(103, []), False),
    "HEAD": (lambda engine: engine.send_head(200, []), False),
    "DATA": (lambda engine: engine.send_data(b"x", False), False),
    "END": (end, False),
    "END_BEFORE_TRAILERS": (lambda engine: engine.send_data(b"", True), True),
    "PROCEED": (lambda engine: engine.proceed(), False),
    "RESET": (lambda engine: engine.reset(), False),
}


def test_every_input_of_our_side_is_tried() -> None:
    assert set(LOCAL_WAYS) == set(LOCAL_STATES)
    assert set(LOCAL_VERBS) | {"REQUEST"} == set(LOCAL_INPUTS)


@pytest.mark.parametrize("event", LOCAL_VERBS)
@pytest.mark.parametrize("state", LOCAL_STATES)
def test_a_verb_leads_where_the_table_says_or_raises(connect: Any, state: str, event: str) -> None:
    verb, trailers = LOCAL_VERBS[event]
    recorder = connect(pipeline=False)
    engine = recorder.engine
    LOCAL_WAYS[state](recorder, trailers)
    recorder.flush()
    assert local_state(engine) == state
    after = LOCAL_TRANSITIONS.get((state, event))
    if after is not None:
        verb(engine)
        assert local_state(engine) == after
        return
    before = snapshot(recorder)
    with pytest.raises(LocalProtocolError):
        verb(engine)
    assert snapshot(recorder) == before


@pytest.mark.parametrize("state", LOCAL_STATES)
def test_a_request_reaches_only_an_idle_side(connect: Any, state: str) -> None:
    recorder = connect(pipeline=False)
    LOCAL_WAYS[state](recorder, False)
    seen = len(recorder.requests)
    recorder.feed(GET)
    if (state, "REQUEST") == ("IDLE", "REQUEST"):
        assert local_state(recorder.engine) == LOCAL_TRANSITIONS["IDLE", "REQUEST"]
        assert len(recorder.requests) == seen + 1
    else:
        assert local_state(recorder.engine) == state
        assert len(recorder.requests) == seen


@pytest.mark.parametrize("state", [state for state in LOCAL_STATES if state != "TRAILERS"])
def test_trailers_are_refused_everywhere_else(connect: Any, state: str) -> None:
    recorder = connect(pipeline=False)
    LOCAL_WAYS[state](recorder, False)
    recorder.flush()
    before = snapshot(recorder)
    with pytest.raises(LocalProtocolError):
        recorder.engine.send_trailers([])
    assert snapshot(recorder) == before


@pytest.mark.parametrize("state", [state for state in LOCAL_STATES if state != "BODY"])
def test_raw_bytes_are_refused_everywhere_but_in_a_body(connect: Any, state: str) -> None:
    recorder = connect(pipeline=False)
    LOCAL_WAYS[state](recorder, False)
    recorder.flush()
    before = snapshot(recorder)
    with pytest.raises(LocalProtocolError):
        recorder.engine.reserve_raw(10)
    assert snapshot(recorder) == before


@pytest.mark.parametrize("state", LOCAL_STATES)
def test_a_lost_connection_closes_our_side(connect: Any, state: str) -> None:
    recorder = connect(pipeline=False)
    LOCAL_WAYS[state](recorder, False)
    recorder.engine.connection_lost()
    assert local_state(recorder.engine) == "CLOSED"
    assert remote_state(recorder.engine) == "CLOSED"
    unfinished = state in ("WAITING", "BODY", "TRAILERS")
    assert sum(len(request.resets) for request in recorder.requests) == unfinished


@pytest.mark.parametrize("begun", [b"", b"GET"])
def test_a_reset_before_any_request_lets_none_begin(connect: Any, begun: bytes) -> None:
    """CLOSED is for good: no request may lead out of it."""
    recorder = connect(pipeline=False)
    recorder.feed(begun)
    recorder.engine.reset()
    recorder.feed(GET[len(begun) :])
    assert recorder.requests == []
    assert local_state(recorder.engine) == "CLOSED"


# ---------------------------------------------------------------- the peer's side


def to_remote_complete(recorder: Any) -> None:
    recorder.feed(GET)


REMOTE_WAYS: dict[str, Callable[[Any], object]] = {
    "IDLE": lambda recorder: None,
    "HEAD": lambda recorder: recorder.feed(b"GET /he"),
    "BODY": lambda recorder: recorder.feed(POST),
    "COMPLETE": to_remote_complete,
    "CLOSED": lambda recorder: recorder.feed(b"\n"),
}

BAD = b"\x00 / HTTP/1.1\r\n\r\n"


def fail_by_timeout(recorder: Any) -> None:
    recorder.engine.timed_out()


def fail_by_eof(recorder: Any) -> None:
    recorder.engine.receive_eof()


def fail_by_loss(recorder: Any) -> None:
    recorder.engine.connection_lost()


def fail_by_stop(recorder: Any) -> None:
    recorder.engine.stop()


def test_every_state_of_the_peer_is_tried() -> None:
    assert set(REMOTE_WAYS) == set(REMOTE_STATES)


@pytest.mark.parametrize(
    ("state", "event", "data"),
    [
        ("IDLE", "START", b"GET"),
        ("IDLE", "HEAD_ONLY", GET),
        ("IDLE", "HEAD_AND_BODY", POST),
        ("IDLE", "FAIL", BAD),
        ("HEAD", "HEAD_ONLY", b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("HEAD", "HEAD_AND_BODY", b" HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"),
        ("HEAD", "FAIL", b" HTTP/1.1\r\n\r\n"),
        ("BODY", "END", b"1234"),
    ],
)
def test_bytes_lead_where_the_table_says(connect: Any, state: str, event: str, data: bytes) -> None:
    recorder = connect(pipeline=False)
    REMOTE_WAYS[state](recorder)
    assert remote_state(recorder.engine) == state
    recorder.feed(data)
    assert remote_state(recorder.engine) == REMOTE_TRANSITIONS[state, event]


def test_broken_content_fails(connect: Any) -> None:
    recorder = connect(pipeline=False)
    recorder.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert remote_state(recorder.engine) == "BODY"
    recorder.feed(b"x\r\n")
    assert remote_state(recorder.engine) == REMOTE_TRANSITIONS["BODY", "FAIL"]


@pytest.mark.parametrize("state", ["HEAD", "BODY"])
def test_a_head_in_the_wrong_place_is_what_stands_there(connect: Any, state: str) -> None:
    """In a head it is a field line without a colon, in a body it is content."""
    recorder = connect(pipeline=False)
    REMOTE_WAYS[state](recorder)
    recorder.feed(GET)
    assert len(recorder.requests) == (state == "BODY")
    assert remote_state(recorder.engine) == {"HEAD": "CLOSED", "BODY": "COMPLETE"}[state]


@pytest.mark.parametrize("data", [b"GET", GET, POST, BAD])
@pytest.mark.parametrize("state", ["COMPLETE", "CLOSED"])
def test_bytes_out_of_turn_change_nothing(connect: Any, state: str, data: bytes) -> None:
    recorder = connect(pipeline=False)
    REMOTE_WAYS[state](recorder)
    requests = len(recorder.requests)
    recorder.feed(data)
    assert remote_state(recorder.engine) == state
    assert len(recorder.requests) == requests


@pytest.mark.parametrize("state", REMOTE_STATES)
def test_the_next_request_needs_both_sides_complete(connect: Any, state: str) -> None:
    for response_is_complete in (False, True):
        recorder = connect(pipeline=False)
        REMOTE_WAYS[state](recorder)
        engine = recorder.engine
        if response_is_complete:
            if local_state(engine) != "WAITING":
                continue
            recorder.answer()
        recorder.flush()
        before = snapshot(recorder)
        if (state, "PROCEED") == ("COMPLETE", "PROCEED") and response_is_complete:
            engine.proceed()
            assert remote_state(engine) == REMOTE_TRANSITIONS["COMPLETE", "PROCEED"]
            assert local_state(engine) == LOCAL_TRANSITIONS["COMPLETE", "PROCEED"]
        else:
            with pytest.raises(LocalProtocolError):
                engine.proceed()
            assert snapshot(recorder) == before


@pytest.mark.parametrize(
    "fail", [fail_by_timeout, fail_by_loss, fail_by_stop], ids=lambda fail: fail.__name__
)
@pytest.mark.parametrize("state", REMOTE_STATES)
def test_every_state_of_the_peer_can_fail(
    connect: Any, state: str, fail: Callable[[Any], None]
) -> None:
    recorder = connect(pipeline=False)
    REMOTE_WAYS[state](recorder)
    fail(recorder)
    recorder.flush()
    assert remote_state(recorder.engine) == REMOTE_TRANSITIONS[state, "FAIL"]
    assert recorder.engine.closing


@pytest.mark.parametrize("state", REMOTE_STATES)
def test_the_end_of_the_peer_is_its_end_unless_we_owe_it_an_answer(
    connect: Any, state: str
) -> None:
    """RFC 9112 §9.6: a client may send, half-close, and read the answer."""
    recorder = connect(pipeline=False)
    REMOTE_WAYS[state](recorder)
    recorder.engine.receive_eof()
    want = "COMPLETE" if state == "COMPLETE" else "CLOSED"
    assert remote_state(recorder.engine) == want
    assert recorder.engine.closing is (state != "COMPLETE")


# ---------------------------------------------------------------- random walks


def snapshot(recorder: Any) -> Any:
    """All of an engine that a refused verb could have changed, output included."""
    engine = recorder.engine
    return {
        name: list(value) if isinstance(value, list) else value
        for name in type(engine).__slots__
        if not name.startswith("__") and (value := getattr(engine, name, None)) is not recorder
    }


ACTIONS = (
    "get", "post", "content", "bad", "part", "informational", "head", "head_trailers",
    "data", "end", "trailers", "proceed", "reset", "flush",
)  # fmt: skip


def local_input(engine: Any, action: str, announced: bool) -> str:
    if action in ("end", "trailers"):
        if action == "trailers":
            # The verb is for this one state; anywhere else it is no input at all.
            return "END" if local_state(engine) == "TRAILERS" else "no such input"
        return "END_BEFORE_TRAILERS" if announced else "END"
    return {
        "informational": "INFORMATIONAL",
        "head": "HEAD",
        "head_trailers": "HEAD",
        "data": "DATA",
        "proceed": "PROCEED",
        "reset": "RESET",
    }[action]


@given(actions=st.lists(st.sampled_from(ACTIONS), max_size=30))
def test_a_random_walk_never_leaves_the_tables(connect: Any, actions: list[str]) -> None:
    recorder = connect(pipeline=False)
    engine = recorder.engine
    announced = False
    segments = {"get": GET, "post": POST, "content": b"abcd", "bad": b"\n", "part": b"GE"}
    for action in actions:
        remote, local = remote_state(engine), local_state(engine)
        if action == "flush":
            recorder.flush()
        elif action in segments:
            engine.receive(segments[action])
            steps = {after for (state, _), after in REMOTE_TRANSITIONS.items() if state == remote}
            steps |= {remote}
            # A segment can hold both a head and what follows it.
            steps |= {b for (a, _), b in REMOTE_TRANSITIONS.items() if a in steps and a != "IDLE"}
            assert remote_state(engine) in steps
            if local != "IDLE" and not engine.error:
                assert local_state(engine) == local
        else:
            event = local_input(engine, action, announced)
            after = LOCAL_TRANSITIONS.get((local, event))
            if action == "end" and local == "TRAILERS":
                after = None  # content is over: only trailers end it
            if action == "proceed" and remote != "COMPLETE":
                after = None
            before = snapshot(recorder)
            try:
                act(engine, action)
            except LocalProtocolError:
                assert after is None
                assert snapshot(recorder) == before
            else:
                assert after is not None
                if action == "reset" and remote in ("IDLE", "HEAD"):
                    return  # see test_a_reset_before_any_request_lets_none_begin
                if action == "proceed" and remote_state(engine) != "IDLE":
                    continue  # what waited came at once
                assert local_state(engine) == after
                if action.startswith("head"):
                    announced = action == "head_trailers"
    if engine.error is not None:
        assert remote_state(engine) == local_state(engine) == "CLOSED"


def act(engine: Any, action: str) -> None:
    if action == "informational":
        engine.send_informational(103, [])
    elif action == "head":
        engine.send_head(200, [])
    elif action == "head_trailers":
        engine.send_head(200, [], trailers=True)
    elif action == "data":
        engine.send_data(b"xy", False)
    elif action == "end":
        engine.send_data(b"", True)
    elif action == "trailers":
        engine.send_trailers([])
    else:
        getattr(engine, action)()
