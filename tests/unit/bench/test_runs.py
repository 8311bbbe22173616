from __future__ import annotations

import dataclasses
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bench import h2load, load, runs, servers
from bench.cases import CASES, Case
from bench.measure import Cores
from bench.servers import OMNICORN, PEERS, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import GatewayPeer, Peer, StreamPeer

HELLO, IDLE, START, WS, WS_IDLE, H2, BROWSER, SCGI = (
    next(case for case in CASES if case.name == name)
    for name in ("hello", "idle", "start", "ws", "ws-idle", "h2", "h2-browser", "scgi")
)
PLAN = runs.Plan(rounds=3, seconds=5, warmup=1, cores=Cores(1, 0))
CLEAN = load.Load(requests=1000, seconds=1.0, p99_ms=1.0, socket_errors=0, bad_statuses=0)


def test_another_server_comes_first_in_each_round() -> None:
    three = [OMNICORN, *PEERS[:2]]

    order = [server.name for _, server, _ in runs.everything([HELLO], three, PLAN)]

    assert order == [
        *("omnicorn", "uvicorn", "granian"),
        *("uvicorn", "granian", "omnicorn"),
        *("granian", "omnicorn", "uvicorn"),
    ]


def test_a_server_is_asked_only_for_what_it_takes() -> None:
    aim = dataclasses.replace(OMNICORN, name="aim", only=frozenset({"hello"}))

    met = {(c.name, s.name) for c, s, _ in runs.everything([HELLO, IDLE], [OMNICORN, aim], PLAN)}

    assert met == {("hello", "omnicorn"), ("hello", "aim"), ("idle", "omnicorn")}


def test_a_case_that_nobody_takes_is_left_out() -> None:
    nobody: list[Server] = [dataclasses.replace(OMNICORN, only=frozenset())]

    assert list(runs.everything([HELLO], nobody, PLAN)) == []


def test_the_estimate_grows_with_servers_seconds_and_rounds() -> None:
    one = runs.estimate([HELLO], [OMNICORN], PLAN)

    assert one >= 3 * (5 + 1)
    assert runs.estimate([HELLO], [OMNICORN, PEERS[0]], PLAN) == 2 * one
    assert runs.estimate([HELLO], [OMNICORN], dataclasses.replace(PLAN, rounds=6)) == 2 * one


def test_the_estimate_knows_that_sockets_are_under_load_and_many_take_their_time() -> None:
    assert runs.estimate([WS], [OMNICORN], PLAN) == runs.estimate([HELLO], [OMNICORN], PLAN)
    assert runs.estimate([WS_IDLE], [OMNICORN], PLAN) > runs.estimate([IDLE], [OMNICORN], PLAN)


def test_seven_starts_at_least_are_spread_over_the_rounds() -> None:
    for rounds in range(1, 12):
        assert dataclasses.replace(PLAN, rounds=rounds).starts * rounds >= 7


def test_a_server_that_could_not_be_installed_says_so() -> None:
    plan = dataclasses.replace(PLAN, unavailable={"omnicorn": "no wheel"})

    assert runs.perform(HELLO, OMNICORN, 2, plan) == runs.Run(
        "hello", "omnicorn", 2, failure="no wheel"
    )


def test_a_clean_run_has_no_marks() -> None:
    assert runs.doubts(CLEAN, 0.95, 0.5, 0) == ()


def test_errors_idleness_and_missing_log_lines_are_marked() -> None:
    seen = dataclasses.replace(CLEAN, socket_errors=2, bad_statuses=1)

    assert runs.doubts(seen, 0.75, 0.99, 500) == (
        "3 errors",
        "not saturated: 75% CPU, client 99%",
        "500 access log lines missing",
    )


def test_lines_that_a_server_still_buffers_are_not_missed() -> None:
    assert runs.doubts(CLEAN, 0.95, 0.5, 50) == ()
    assert runs.doubts(CLEAN, 0.95, 0.5, 51) == ("51 access log lines missing",)


def stand_in(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens on `port` stands where a server would have been started, and this process counts
    as its CPU."""

    @contextmanager
    def running(server: Server, case: Case, core: int) -> Iterator[servers.Running]:
        yield servers.Running(os.getpid(), port, Path("none"), 0.0)

    monkeypatch.setattr(servers, "running", running)


@pytest.fixture
def served(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Peer:
    stand_in(peer.address[1], monkeypatch)
    return peer


def test_a_run_of_sockets_counts_messages_against_the_cpu_of_both_sides(served: Peer) -> None:
    plan = dataclasses.replace(PLAN, seconds=0.1, warmup=0)

    run = runs.perform(dataclasses.replace(WS, connections=2), OMNICORN, 1, plan)

    assert (run.case, run.server, run.round, run.failure) == ("ws", "omnicorn", 1, None)
    # Two more messages, and one close frame, are those of the check.
    assert run.requests == len(served.messages) - 2
    assert run.samples[0] > 0
    assert run.cpu and run.load_cpu and run.p99_ms


def test_a_run_of_sockets_that_breaks_says_why(served: Peer) -> None:
    served.greet = lambda key: "HTTP/1.1 500 \r\n\r\n"

    run = runs.perform(WS, OMNICORN, 0, PLAN)

    assert run.samples == ()
    assert run.failure == "wrong answer: the handshake was answered 'HTTP/1.1 500 '"


def test_idle_sockets_are_weighed_after_one_echo_each(served: Peer) -> None:
    run = runs.perform(dataclasses.replace(WS_IDLE, connections=3), OMNICORN, 0, PLAN)

    assert (run.failure, run.marks, len(run.samples)) == (None, (), 1)
    # Two of the check, 500 to warm up, one for each socket.
    assert len(served.messages) == 2 + 500 + 3
    assert len(served.heads) == 1 + 1 + 3


def test_a_run_of_requests_that_differ_counts_them(
    stream_peer: StreamPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hpack")
    stand_in(stream_peer.address[1], monkeypatch)
    monkeypatch.setattr("bench.streams.REQUESTS", 100)
    stream_peer.body = BROWSER.body
    plan = dataclasses.replace(PLAN, seconds=0.1, warmup=0)

    run = runs.perform(BROWSER, OMNICORN, 0, plan)

    assert run.failure is None
    assert run.requests == len(stream_peer.requests) - 2
    assert run.samples[0] > 0
    assert run.cpu and run.load_cpu and run.p99_ms


def test_a_run_of_scgi_counts_requests(
    gateway_peer: GatewayPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(gateway_peer.address[1], monkeypatch)
    plan = dataclasses.replace(PLAN, seconds=0.1, warmup=0)

    run = runs.perform(SCGI, OMNICORN, 0, plan)

    assert run.failure is None
    assert run.requests == len(gateway_peer.fields) - 2
    assert run.samples[0] > 0
    assert run.cpu and run.load_cpu and run.p99_ms


def test_a_load_of_h2load_has_the_latency_of_its_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(1, monkeypatch)
    spent = iter([1.0, 1.5])
    monkeypatch.setattr(servers, "check_answer", lambda *rest: None)
    monkeypatch.setattr("bench.measure.cpu_seconds", lambda pid: next(spent))
    monkeypatch.setattr(h2load, "warm_up", lambda case, port, seconds, scratch: 7.5)
    monkeypatch.setattr(h2load, "drive", lambda *rest: dataclasses.replace(CLEAN, p99_ms=None))

    run = runs.perform(H2, OMNICORN, 0, PLAN)

    assert (run.failure, run.samples, run.p99_ms) == (None, (2000.0,), 7.5)


def test_a_load_that_h2load_calls_failed_is_a_failed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*rest: object) -> None:
        raise load.LoadError("of h2load's requests 3 failed")

    stand_in(1, monkeypatch)
    monkeypatch.setattr(servers, "check_answer", lambda *rest: None)
    monkeypatch.setattr(h2load, "warm_up", lambda *rest: 1.0)
    monkeypatch.setattr(h2load, "drive", fail)

    run = runs.perform(H2, OMNICORN, 0, PLAN)

    assert (run.samples, run.failure) == ((), "of h2load's requests 3 failed")
