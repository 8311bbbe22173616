from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("hpack")

import hpack
from bench import http2, streams
from bench.cases import CASES, CHROME, Case, Kind, Request
from bench.load import LoadError

if TYPE_CHECKING:
    from conftest import StreamPeer

BROWSER = next(case for case in CASES if case.name == "h2-browser")
FEW = dataclasses.replace(BROWSER, connections=2, streams=4)
VARYING = ("x-request-id", "cookie")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "REQUESTS", 50)


@pytest.fixture
def right(stream_peer: StreamPeer) -> StreamPeer:
    """A server whose bodies have the right length."""
    stream_peer.body = BROWSER.body
    return stream_peer


def decoded(text: bytes) -> list[list[tuple[str, str]]]:
    """The requests of a connection, by a decoder that has seen only this."""
    decoder, at = hpack.Decoder(), 0
    found: list[list[tuple[str, str]]] = []
    while at < len(text):
        word, flags, stream = http2.HEAD.unpack_from(text, at)
        end = at + 9 + (word >> 8)
        assert (word & 0xFF, flags, stream) == (1, 5, 2 * len(found) + 1)
        found.append([(str(k), str(v)) for k, v in decoder.decode(text[at + 9 : end])])
        at = end
    return found


def test_every_connection_sends_the_same_fields_with_values_of_its_own() -> None:
    made = streams.sequence(CHROME, "127.0.0.1", 200)
    first, second = decoded(made.stamped()), decoded(made.stamped())

    plain = [
        [(k, v.replace("{n}", "")) for k, v in http2.fields(CHROME, "127.0.0.1", "http")]
    ] * 200
    for found in (first, second):
        stamp = dict(found[0])["x-request-id"][-13:-5]
        assert plain == [
            [(k, v.replace(f"{stamp}{n:05}", "")) for k, v in fields]
            for n, fields in enumerate(found)
        ]
    values = [v for found in (first, second) for fields in found for k, v in fields if k in VARYING]
    fixed = {"theme=dark", "consent=1"}
    varied = [value for value in values if value not in fixed]
    assert len(varied) == len(set(varied)) == 2 * 2 * 200


def test_what_changes_is_indexed_so_that_old_entries_leave_the_table() -> None:
    decoder = hpack.Decoder()
    text = streams.sequence(CHROME, "127.0.0.1", 100).stamped()
    starts = streams.sequence(CHROME, "127.0.0.1", 100).starts
    sizes = [end - start for start, end in pairwise(starts)]
    for start, end in pairwise(starts):
        decoder.decode(text[start + 9 : end])

    names = [name for name, _ in decoder.header_table.dynamic_entries]
    assert names.count(b"x-request-id") > 10
    assert b":path" not in names
    # A request is short while all its fixed fields are in the table, and they come again.
    assert min(sizes) < 120 < max(sizes[10:])


def test_a_value_that_cannot_be_stamped_in_its_encoding_is_refused() -> None:
    odd = Request(headers=(("x-a", "b{n}"),))

    with pytest.raises(LoadError, match="of 20 values cannot be exchanged"):
        streams.sequence(odd, "h", 20)


def test_all_connections_are_loaded_and_latency_is_taken(right: StreamPeer) -> None:
    with streams.crowd(FEW, right.address) as run:
        seen = run(0.05)

    assert seen.seconds >= 0.05
    assert seen.errors == 0
    assert seen.requests == len(right.requests) > 8
    assert min(right.connections) >= 4
    assert seen.p99_ms is not None
    assert 0 < seen.p99_ms <= 1000 * seen.seconds


def test_no_request_is_in_flight_after_a_run(right: StreamPeer) -> None:
    with streams.crowd(FEW, right.address) as run:
        assert [run(0).requests for _ in range(5)] == [8] * 5
    assert right.connections == [20, 20]


def test_a_connection_without_requests_is_made_anew_and_nothing_comes_twice(
    right: StreamPeer,
) -> None:
    with streams.crowd(FEW, right.address) as run:
        seen = [run(0).requests for _ in range(30)]

    # After 48 requests there are but two left.
    assert seen == [*[8] * 12, 4, *[8] * 12, 4, *[8] * 4]
    assert right.connections[:2] == [50, 50]
    assert right.goodbyes >= 4
    values = [v for fields in right.requests for k, v in fields if k == "x-request-id"]
    assert len(values) == len(set(values)) == sum(seen)


def test_it_goes_on_over_many_connections(right: StreamPeer) -> None:
    with streams.crowd(FEW, right.address) as run:
        while len(right.connections) < 6:
            run(0.05)

    assert set(right.connections[:4]) == {50}


def test_the_window_of_the_connection_is_opened_when_half_is_used(
    right: StreamPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CONNECTION_WINDOW", 70_000)
    monkeypatch.setattr(streams, "REQUESTS", 300)
    with streams.crowd(dataclasses.replace(FEW, connections=1), right.address) as run:
        while len(right.requests) < 200:
            run(0)

    assert right.updates
    assert min(right.updates) > 35_000


def answers(stream: int) -> bytes:
    head = http2.frame(http2.HEADERS, http2.END_HEADERS, stream, b"\x88")
    return head + http2.frame(http2.DATA, http2.END_STREAM, stream, BROWSER.body)


@pytest.mark.parametrize("size", [1, 7, 100, 1100])
def test_frames_may_come_in_pieces(size: int) -> None:
    link = streams.Link.__new__(streams.Link)
    link._carry, link._body, link._used, link.waiting = b"", 0, 0, 4
    text = b"".join(map(answers, (1, 5, 3, 7)))

    class Socket:
        def recv(self, size: int) -> bytes:
            return pieces.pop(0)

    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    link.socket = Socket()  # type: ignore[assignment]
    ended = [stream for _ in range(len(pieces)) for stream in link.hear()]

    assert ended == [1, 5, 3, 7]
    assert link.body() == 4 * len(BROWSER.body)
    assert link.body() == link.waiting == 0


def test_pings_are_answered_and_not_counted(stream_peer: StreamPeer) -> None:
    ping = http2.frame(http2.PING, 0, 0, b"12345678")
    stream_peer.answer = lambda stream: ping + answers(stream)

    with streams.crowd(FEW, stream_peer.address) as run:
        assert run(0).requests == 8


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http2.frame(http2.RST_STREAM, 0, 1, bytes((0, 0, 0, 7))), "reset with error 7, under"),
        (http2.frame(http2.GOAWAY, 0, 0, bytes(8)), "GOAWAY with error 0, under load"),
        (b"", "8 requests got no answer for"),
        (http2.frame(http2.HEADERS, 5, 1, b"\x8d"), "bodies of 0 bytes in 8 answers, not 9"),
        (answers(1) + answers(3) + answers(5) * 6, "more streams ended than were open"),
    ],
)
def test_anything_else_ends_the_run_as_failed(
    stream_peer: StreamPeer, answer: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PATIENCE", 0.2)
    stream_peer.answer = lambda stream: answer

    with (
        streams.crowd(FEW, stream_peer.address) as run,
        pytest.raises(LoadError, match=reason),
    ):
        run(0)


def test_a_server_that_hangs_up_is_named(stream_peer: StreamPeer) -> None:
    def leave(stream: int) -> bytes:
        raise ConnectionError

    stream_peer.answer = leave

    with (
        streams.crowd(FEW, stream_peer.address) as run,
        pytest.raises(LoadError, match=r"hung up under load|broke under load"),
    ):
        run(0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({http2.MAX_CONCURRENT_STREAMS: 3}, "less than 4 streams"),
        ({http2.HEADER_TABLE_SIZE: 100}, "a dynamic table of less than 4096"),
    ],
)
def test_a_server_that_allows_too_little_is_named(
    right: StreamPeer, settings: dict[int, int], reason: str
) -> None:
    right.settings = settings

    with streams.crowd(FEW, right.address) as run, pytest.raises(LoadError, match=reason):
        run(0)


def test_nobody_there_is_explained() -> None:
    with (
        pytest.raises(LoadError, match="no connection: "),
        streams.crowd(FEW, ("127.0.0.1", 1)),
    ):
        pass


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_requests_of_http_2_that_differ_are_those_of_streams(case: Case) -> None:
    varies = any("{n}" in value for _, value in case.request.headers)

    assert (case.kind is Kind.STREAMS) == (bool(case.streams) and varies)
