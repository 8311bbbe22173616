"""Limits: exact, whatever the segments; and no input costs more than its share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.errors import RemoteProtocolError
from omnicorn.http.limits import Limits
from omnicorn.protocols.http1 import RequestParser

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1
START = b"GET / HTTP/1.1\r\nHost: a\r\n"


def test_the_defaults_are_what_the_documentation_says() -> None:
    assert Limits() == (8192, 65536, 128, None)


def line_of(size: int) -> bytes:
    """A request whose request line has *size* bytes."""
    return b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * (size - 14))


def head_of(size: int) -> bytes:
    """A request whose head has *size* bytes."""
    return START + b"X: " + b"y" * (size - len(START) - 7) + b"\r\n\r\n"


def fields_of(count: int) -> bytes:
    return START + b"X: y\r\n" * (count - 1) + b"\r\n"


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def verdict(connect: Any, data: bytes, size: int, **limits: Any) -> int:
    recorder = connect(NOW, limits=Limits(**limits)).feed(*in_pieces(data, size))
    refusal = recorder.outcome()["refusal"]
    return int(refusal) if refusal else 200 if recorder.requests else 0


SIZES = [1 << 20, 8192, 1000, 61]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("length", "status"), [(8191, 200), (8192, 200), (8193, 414), (60000, 414)]
)
def test_the_request_line(connect: Any, size: int, length: int, status: int) -> None:
    data = line_of(length)
    assert len(data.partition(b"\r\n")[0]) == length
    assert verdict(connect, data, size) == status


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("length", "status"), [(65535, 200), (65536, 200), (65537, 431), (90000, 431)]
)
def test_the_head(connect: Any, size: int, length: int, status: int) -> None:
    data = head_of(length)
    assert len(data) == length
    assert verdict(connect, data, size) == status


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("count", "status"), [(127, 200), (128, 200), (129, 431), (5000, 431)])
def test_the_fields(connect: Any, size: int, count: int, status: int) -> None:
    assert verdict(connect, fields_of(count), size) == status


@pytest.mark.parametrize("extra", range(6))
def test_small_limits_are_exact_at_every_cut(connect: Any, extra: int) -> None:
    """Each limit around the size of one request, at every cut: the same answer everywhere."""
    data = b"GET /abcdef HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
    for limits in (
        {"line": 18 + extra},
        {"head": len(data) - 2 + extra, "line": 25},
        {"head": len(data) - 2 + extra},
        {"head": 19 + extra, "line": 19},
        {"head": 10 + extra, "line": 18 + extra},
        {"fields": extra},
    ):
        whole = verdict(connect, data, len(data), **limits)
        assert whole in (200, 414, 431)
        assert verdict(connect, data, 1, **limits) == whole, limits
        for at in range(1, len(data)):
            recorder = connect(NOW, limits=Limits(**limits)).feed(data[:at], data[at:])
            got = recorder.outcome()["refusal"] or 200
            assert got == whole, (limits, at)


def test_an_empty_line_in_front_does_not_count(connect: Any) -> None:
    data = b"\r\n" + line_of(8192)
    assert verdict(connect, data, len(data)) == 200
    assert verdict(connect, data, 100) == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"x" * 100_000, 414),
        (b"x" * 100_000, 414),
        (START + b"X: " + b"y" * 100_000, 431),
        (START + b"X: y\r\n" * 20_000, 431),
        (START + b"x" * 100_000, 431),
    ],
)
@pytest.mark.parametrize("size", [1 << 20, 1000])
def test_what_never_ends_is_refused_at_its_limit(
    connect: Any, data: bytes, status: int, size: int
) -> None:
    """CVE-2026-54277: not buffered without limit."""
    recorder = connect(NOW)
    for count, segment in enumerate(in_pieces(data, size)):
        recorder.feed(segment)
        if recorder.engine.closing:
            assert count * size <= 65536
            break
    assert recorder.outcome()["refusal"] == status


def test_a_body_limit_of_zero_allows_no_content(connect: Any) -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    assert verdict(connect, post % 0, 100, body=0) == 200
    assert verdict(connect, post % 1, 100, body=0) == 413


def test_no_body_limit_is_none(connect: Any) -> None:
    recorder = connect(NOW).feed(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n"
    )
    assert recorder.engine.error is None
    assert recorder.last.head.length == 999999999999


# ---------------------------------------------------------------- cost


def seconds(work: Callable[[], object]) -> float:
    best = 1e9
    for _ in range(3):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def judge(block: bytes) -> None:
    limits = Limits(line=1 << 24, head=1 << 26, fields=1 << 20)
    try:
        RequestParser(limits).parse(block)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize(
    "field",
    [
        lambda n: b"X: " + b" " * n,
        lambda n: b"X: " + b"\t " * (n // 2) + b"y",
        lambda n: b"X: y" + b" " * n + b"\x00",
        lambda n: b"x" * n + b": y",
        lambda n: b"x" * n,
        lambda n: b"Content-Length: " + b"9" * n,
        lambda n: b"Content-Length: " + b"0" * n + b"1",
        lambda n: b"Connection: " + b"," * n,
        lambda n: b"Connection: " + b"a," * (n // 2),
        lambda n: b"Transfer-Encoding: " + b"chunked," * (n // 8),
        lambda n: b"Expect: " + b"x" * n,
        lambda n: b"TE: " + b"trailers;" * (n // 9),
        lambda n: b"\r\n".join([b"Cookie: a"] * (n // 11)),
        lambda n: b"\r\n".join(b"Upgrade: %d" % i for i in range(n // 14))
        + b"\r\nConnection: upgrade",
        lambda n: b"\r\n".join([b"Connection: a"] * (n // 15)),
        lambda n: b"X: " + b"\xff" * n,
    ],
    ids=[
        "spaces", "tabs", "spaces then NUL", "name", "no colon", "nines", "zeros", "commas",
        "options", "codings", "expect", "te", "cookies", "upgrades", "connections", "obs-text",
    ],
)  # fmt: skip
def test_the_cost_of_a_field_is_linear(field: Callable[[int], bytes]) -> None:
    """CVE-2019-16792, CVE-2024-52804, CVE-2020-10735: ten times the bytes, ten times the time."""
    small = START + field(100_000) + b"\r\n\r\n"
    large = START + field(1_000_000) + b"\r\n\r\n"
    few = seconds(lambda: judge(small))
    many = seconds(lambda: judge(large))
    assert many < 40 * few + 0.02


@pytest.mark.parametrize(
    "target", [lambda n: b"/" + b"%41" * (n // 3), lambda n: b"/" + b"%" * n, lambda n: b"/" * n,
               lambda n: b"http://" + b"a" * n, lambda n: b"http://" + b"[" * n]
)  # fmt: skip
def test_the_cost_of_a_target_is_linear(target: Callable[[int], bytes]) -> None:
    small, large = (b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target(n) for n in (30_000, 300_000))
    assert seconds(lambda: judge(large)) < 40 * seconds(lambda: judge(small)) + 0.02


def test_a_megabyte_of_digits_is_refused_at_once(connect: Any) -> None:
    """CVE-2020-10735"""
    data = START + b"Content-Length: " + b"9" * (1 << 20) + b"\r\n\r\n"
    start = time.process_time()
    assert verdict(connect, data, 1 << 21) == 431
    assert verdict(connect, data, 4096) == 431
    assert verdict(connect, data, 1 << 21, line=1 << 22, head=1 << 22) == 400
    assert time.process_time() - start < 1


def test_a_head_dripped_byte_by_byte_costs_little_more_than_its_bytes(connect: Any) -> None:
    """Copying what is kept is quadratic in principle; within 64 KiB it must not be felt."""
    head = head_of(65536)
    drops = [head[i : i + 1] for i in range(len(head))]

    def drip() -> None:
        recorder = connect(NOW)
        receive = recorder.engine.receive
        for drop in drops:
            receive(drop)
        assert len(recorder.requests) == 1

    start = time.process_time()
    drip()
    assert time.process_time() - start < 3


def test_a_body_dripped_byte_by_byte_is_linear(connect: Any) -> None:
    def drip(count: int) -> None:
        recorder = connect(NOW)
        recorder.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % count)
        for _ in range(count):
            recorder.engine.receive(b"x")

    assert seconds(lambda: drip(20_000)) < 40 * seconds(lambda: drip(2_000)) + 0.02


def test_pipelined_requests_cost_about_what_single_ones_cost(connect: Any) -> None:
    request = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
    data = b"".join(request % i for i in range(2000))
    pieces = [request % i for i in range(2000)]

    def together() -> None:
        assert len(connect(NOW).feed(data).requests) == 2000

    def apart() -> None:
        assert len(connect(NOW).feed(*pieces).requests) == 2000

    assert seconds(together) < 6 * seconds(apart) + 0.05


def test_empty_lines_are_not_free_requests(connect: Any) -> None:
    recorder = connect(NOW).feed(b"\r\n" * 100_000)
    assert recorder.outcome()["refusal"] == 400
