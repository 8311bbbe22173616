"""The chunked coding: every byte in every place, any cut, and no chunk count that hurts."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import LimitExceeded, RemoteProtocolError
from omnicorn.http.limits import Limits
from omnicorn.protocols.http1.chunked import MAX_LINE, ChunkedDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NOW = 1
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def decode(*segments: bytes, **limits: Any) -> tuple[bytes, bool, bytes]:
    decoder = ChunkedDecoder(Limits(**limits))
    content = b""
    for index, segment in enumerate(segments):
        content += decoder.feed(segment)
        if decoder.done:
            return content, True, decoder.rest + b"".join(segments[index + 1 :])
    return content, False, b""


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def accepts(data: bytes) -> bool:
    try:
        return decode(data)[1]
    except RemoteProtocolError:
        return False


def test_a_body() -> None:
    assert decode(b"3\r\nabc\r\n0\r\n\r\n") == (b"abc", True, b"")


def test_what_follows_the_body_is_left() -> None:
    assert decode(b"3\r\nabc\r\n0\r\n\r\nGET /") == (b"abc", True, b"GET /")


def test_a_body_without_its_last_line_is_not_done() -> None:
    body = b"3\r\nabc\r\n0\r\nX: y\r\n\r\n"
    for end in range(len(body)):
        assert decode(body[:end])[1] is False


def test_one_feed_gives_one_piece() -> None:
    decoder = ChunkedDecoder(Limits())
    assert decoder.feed(b"1\r\na\r\n2\r\nbc\r\n3\r\nd") == b"abcd"
    assert decoder.feed(b"ef\r\n0\r\n\r\n") == b"ef"


def test_every_size_in_every_spelling() -> None:
    for size in (*range(1, 300), 511, 512, 4095, 4096, 16384, 65535, 65537):
        data = bytes(size)
        for spelling in (b"%x" % size, b"%X" % size, b"0%x" % size, b"%016x" % size):
            assert decode(b"%b\r\n%b\r\n0\r\n\r\n" % (spelling, data)) == (data, True, b"")


def test_each_byte_in_each_place() -> None:
    for byte in range(256):
        char = bytes((byte,))
        text = byte == 9 or 0x20 <= byte <= 0x7E or byte >= 0x80
        assert accepts(b"%b\r\nabc\r\n0\r\n\r\n" % char) is (byte == 0x33)
        hexadecimal = char in b"0123456789abcdefABCDEF"
        content = bytes(int(char, 16) if hexadecimal else 0)
        spelled = b"00%b\r\n%b\r\n0\r\n\r\n" % (char, content)
        assert accepts(spelled) is (hexadecimal or byte == 0x3B)
        assert accepts(b"3%b\r\nabc\r\n0\r\n\r\n" % char) is (byte == 0x3B)
        assert accepts(b"3;a%b\r\nabc\r\n0\r\n\r\n" % char) is text
        assert accepts(b'3;a="%b"\r\nabc\r\n0\r\n\r\n' % char) is text
        assert not accepts(b"%b3\r\nabc\r\n0\r\n\r\n" % char) or byte == 0x30
        assert accepts(b"3\r%babc\r\n0\r\n\r\n" % char) is (byte == 0x0A)
        assert accepts(b"3\r\nabc%b\n0\r\n\r\n" % char) is (byte == 0x0D)
        assert accepts(b"3\r\nabc\r%b0\r\n\r\n" % char) is (byte == 0x0A)
        assert accepts(b"3\r\na%bc\r\n0\r\n\r\n" % char)
        assert accepts(b"0\r\nX: %b\r\n\r\n" % char) is text
        assert not accepts(b"0\r\nX%b: a\r\n\r\n" % char) or 0x21 <= byte <= 0x7E
        assert not accepts(b"0\r\n%bX: a\r\n\r\n" % char) or 0x21 <= byte <= 0x7E


@pytest.mark.parametrize("size", [b"ffffffffffffffff", b"7fffffffffffffff", b"8000000000000000"])
def test_a_size_of_64_bits_is_a_size(size: bytes) -> None:
    decoder = ChunkedDecoder(Limits())
    assert decoder.feed(size + b"\r\nabc") == b"abc"
    assert not decoder.done
    with pytest.raises(LimitExceeded) as caught:
        ChunkedDecoder(Limits(body=1 << 40)).feed(size + b"\r\n")
    assert caught.value.status == 413


@pytest.mark.parametrize("size", [b"1" + b"0" * 16, b"0" * 16 + b"3", b"10000000000000003"])
def test_a_size_of_more_digits_is_none(size: bytes) -> None:
    """2^64 + 3 would be 3 where integers wrap."""
    assert not accepts(size + b"\r\nabc\r\n0\r\n\r\n")


def test_the_content_limit_counts_all_chunks_before_they_come() -> None:
    assert decode(b"5\r\nhello\r\n0\r\n\r\n", body=5)[1]
    decoder = ChunkedDecoder(Limits(body=5))
    decoder.feed(b"3\r\nabc\r\n")
    with pytest.raises(LimitExceeded) as caught:
        decoder.feed(b"3\r\n")
    assert (caught.value.status, caught.value.limit) == (413, 5)


@pytest.mark.parametrize("cut", [list, bytewise], ids=["whole", "bytewise"])
def test_a_chunk_line_is_bounded(cut: Callable[[Any], Any]) -> None:
    fits = b"1;" + b"x" * (MAX_LINE - 2) + b"\r\na\r\n0\r\n\r\n"
    segments = [fits] if cut is list else cut(fits)
    assert decode(*segments) == (b"a", True, b"")
    longer = b"1;" + b"x" * (MAX_LINE - 1) + b"\r\na\r\n0\r\n\r\n"
    segments = [longer] if cut is list else cut(longer)
    with pytest.raises(RemoteProtocolError):
        decode(*segments)


def test_extensions_may_not_outweigh_the_content() -> None:
    decoder = ChunkedDecoder(Limits(head=4096))
    with pytest.raises(LimitExceeded) as caught:
        decoder.feed((b"1;" + b"x" * 98 + b"\r\na\r\n") * 42)
    assert caught.value.status == 413


def trailers(count: int, size: int) -> bytes:
    return b"0\r\n" + (b"X: " + b"y" * (size - 5) + b"\r\n") * count + b"\r\n"


@pytest.mark.parametrize("cut", ["whole", "bytewise", "halves"])
@pytest.mark.parametrize(
    ("count", "size", "limits"),
    [
        (5, 10, {"fields": 4}),
        (30, 10, {"head": 256}),
        (1, 5000, {"head": 256}),
        (1, 12000, {"head": 10000}),
        (1, 3000, {"head": 2000, "line": 100}),
    ],
)
def test_trailers_are_bounded_however_they_come(
    cut: str, count: int, size: int, limits: dict[str, int]
) -> None:
    """CVE-2026-22815"""
    data = trailers(count, size)
    half = len(data) // 2
    segments = {"whole": [data], "bytewise": bytewise(data), "halves": [data[:half], data[half:]]}
    with pytest.raises(LimitExceeded) as caught:
        decode(*segments[cut], **limits)
    assert caught.value.status == 431


@pytest.mark.parametrize("room", range(-3, 4))
def test_the_edge_of_the_trailer_limit_does_not_depend_on_the_cut(room: int) -> None:
    data = trailers(3, 50)

    def verdict(segments: Iterable[bytes]) -> Any:
        try:
            return decode(*segments, head=150 + room)
        except LimitExceeded as error:
            return error.status

    whole = verdict([data])
    assert verdict(bytewise(data)) == whole
    for at in range(1, len(data)):
        assert verdict([data[:at], data[at:]]) == whole, at


def test_a_megabyte_of_trailers_is_431(connect: Any) -> None:
    for line in (b"X: y\r\n", b"X: " + b"y" * 1000 + b"\r\n", b"X: " + b"y" * (1 << 20)):
        data = (line * ((1 << 20) // len(line) + 1))[: 1 << 20]
        for size in (1 << 20, 65536, 1000):
            recorder = connect(NOW).feed(HEAD + b"0\r\n")
            recorder.feed(*(data[i : i + size] for i in range(0, len(data), size)))
            assert recorder.outcome()["refusal"] == 431
            assert not recorder.last.ended


def test_trailers_never_reach_the_headers(connect: Any) -> None:
    recorder = connect(NOW).feed(HEAD + b"1\r\na\r\n0\r\nX-T: 1\r\nHost: evil\r\n\r\n")
    assert recorder.last.head.headers == ((b"host", b"a"), (b"transfer-encoding", b"chunked"))
    assert recorder.last.body == b"a"


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=30), max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=10),
    rest=st.binary(max_size=10),
)
def test_any_cut_gives_the_same(pieces: list[bytes], cuts: list[int], rest: bytes) -> None:
    data = b"".join(b"%x;e\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\nX: y\r\n\r\n" + rest
    edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    segments = [data[a:b] for a, b in pairwise(edges)]
    assert decode(*segments) == (b"".join(pieces), True, rest)


@given(st.binary(max_size=40) | st.text("0123af;\r\n: X", max_size=30).map(str.encode))
def test_junk_ends_in_a_verdict_that_no_cut_changes(junk: bytes) -> None:
    def verdict(segments: list[bytes]) -> Any:
        try:
            content, done, rest = decode(*segments)
        except RemoteProtocolError as error:
            return error.status
        return (content if done else b"", done, rest)

    assert verdict(bytewise(junk)) == verdict([junk])


# ---------------------------------------------------------------- what it costs


def one_byte_chunks(count: int) -> bytes:
    return b"1\r\nx\r\n" * count


def cost(connect: Any, count: int, segment: int) -> tuple[float, int]:
    """Seconds a chunk, and upcalls, of *count* one-byte chunks in segments of *segment* bytes."""
    data = one_byte_chunks(count)
    recorder = connect(NOW).feed(HEAD)
    start = time.process_time()
    for at in range(0, len(data), segment):
        recorder.engine.receive(data[at : at + segment])
        recorder.engine.consumed(segment)
    seconds = time.process_time() - start
    assert recorder.last.body == b"x" * count
    return seconds / count, recorder.names().count("on_data")


def test_tiny_chunks_cost_little_and_give_one_upcall_a_segment(connect: Any) -> None:
    """Chunkloris: N chunks must not be N events."""
    a_chunk, upcalls = cost(connect, 100_000, 65536)
    assert upcalls <= 6 * 100_000 // 65536 + 1
    assert a_chunk < 3e-6 * 5  # generous: a loaded machine must not fail it


@pytest.mark.slow
def test_a_million_tiny_chunks_cost_less_than_three_microseconds_each(connect: Any) -> None:
    a_chunk, upcalls = cost(connect, 1_000_000, 262_144)
    assert a_chunk < 3e-6
    assert upcalls <= 24


def test_the_cost_of_tiny_chunks_is_linear(connect: Any) -> None:
    few = min(cost(connect, 10_000, 1 << 20)[0] for _ in range(3))
    many = cost(connect, 100_000, 1 << 20)[0]
    assert many < 5 * few
