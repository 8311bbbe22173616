from __future__ import annotations

from pathlib import Path

import pytest
from bench import load
from bench.cases import CASES, CHROME, UPLOAD, Case, Kind, Request

CLEAN = """\
Running 2s test @ http://127.0.0.1:8000/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   820.55us  212.11us   9.30ms   93.31%
    Req/Sec    39.19k     1.07k   40.43k    80.00%
  Latency Distribution
     50%  771.00us
     75%  829.00us
     90%    0.97ms
     99%    1.81ms
  77986 requests in 2.00s, 11.45MB read
Requests/sec:  38982.09
Transfer/sec:      5.73MB
"""

TROUBLED = """\
  Latency Distribution
     50%  100.00us
     99%    1.50s
  1200 requests in 1.00m, 11.45MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 7
"""


def test_a_clean_report_gives_its_totals() -> None:
    assert load.parse(CLEAN) == load.Load(
        requests=77986, seconds=2.0, p99_ms=1.81, socket_errors=0, bad_statuses=0
    )


def test_the_units_of_time_are_converted() -> None:
    seen = load.parse(TROUBLED)

    assert (seen.seconds, seen.p99_ms) == (60.0, 1500.0)
    assert load.parse(CLEAN.replace("1.81ms", "810.00us")).p99_ms == pytest.approx(0.81)


def test_socket_errors_and_bad_statuses_are_counted_together() -> None:
    seen = load.parse(TROUBLED)

    assert (seen.socket_errors, seen.bad_statuses, seen.errors) == (10, 7, 17)


def test_a_text_without_totals_is_refused_with_its_last_line() -> None:
    with pytest.raises(load.LoadError, match="said: unable to connect"):
        load.parse("usage\nunable to connect to 127.0.0.1\n")


def test_wrk_printing_nothing_is_refused() -> None:
    with pytest.raises(load.LoadError, match="nothing"):
        load.parse("")


def test_the_wire_form_counts_the_body() -> None:
    request = Request("POST", "/x?a=1", (("A", "b"),), b"12345")

    assert load.wire(request, "h:1") == (
        "POST /x?a=1 HTTP/1.1\r\nHost: h:1\r\nA: b\r\nContent-Length: 5\r\n\r\n12345"
    )


def test_a_request_that_never_changes_calls_no_lua_per_request() -> None:
    assert "request = function" not in load.script(UPLOAD, "h:1")
    assert 'wrk.method = "POST"' in load.script(UPLOAD, "h:1")
    assert '["Content-Type"] = "application/octet-stream",' in load.script(UPLOAD, "h:1")


def test_a_request_with_marks_is_joined_around_a_counter() -> None:
    request = Request(headers=(("A", "x{n}y"), ("B", "{n}")))

    assert load.script(request, "h:1").splitlines() == [
        r'local p0 = "GET / HTTP/1.1\r\nHost: h:1\r\nA: x"',
        r'local p1 = "y\r\nB: "',
        r'local p2 = "\r\n\r\n"',
        "local n = os.time() * 1000",
        "request = function()",
        "  n = n + 1",
        "  return p0 .. n .. p1 .. n .. p2",
        "end",
    ]


def test_quotes_and_backslashes_survive_in_lua() -> None:
    assert r"A: \"a\\b\"" in load.script(Request(headers=(("A", '"a\\b"'), ("B", "{n}"))), "h")


def test_the_browser_sends_twelve_headers_and_two_change() -> None:
    head = load.wire(CHROME, "h").split("\r\n\r\n")[0].split("\r\n")[1:]

    assert (len(head), sum("{n}" in line for line in head)) == (12, 2)


WRK_CASES = [case for case in CASES if case.kind is Kind.LOAD and not case.streams]


@pytest.mark.parametrize("case", WRK_CASES, ids=lambda case: case.name)
def test_wrk_gets_the_connections_and_the_target_of_each_case(case: Case) -> None:
    command = load.command(case, 8123, 4, Path("s.lua"))

    assert case.scheme == ("https" if case.name == "h1-tls" else "http")
    assert command[:4] == ["wrk", "-t1", f"-c{case.connections}", "-d4s"]
    assert command[-1] == f"{case.scheme}://127.0.0.1:8123{case.request.target}"
