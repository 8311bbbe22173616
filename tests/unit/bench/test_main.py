from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bench import __main__ as command
from bench import certificate, h2load, http2, load
from bench.cases import CASES
from bench.servers import OMNICORN, PEERS

if TYPE_CHECKING:
    from pathlib import Path


def test_by_default_all_cases_and_peers_are_measured() -> None:
    options = command.parser().parse_args([])

    assert (options.rounds, options.seconds, options.warmup) == (3, 5, 1)
    assert options.cases == tuple(case.name for case in CASES)
    assert options.peers == tuple(peer.name for peer in PEERS)


def test_chosen_names_keep_the_order_of_the_tables() -> None:
    options = command.parser().parse_args(["--peers", "daphne, uvicorn", "--cases", "big,hello"])

    assert (options.peers, options.cases) == (("uvicorn", "daphne"), ("hello", "big"))


def test_extra_servers_may_be_repeated() -> None:
    options = command.parser().parse_args(
        ["--servers-extra", "a=omnicorn --loop asyncio", "--servers-extra", "b=granian"]
    )

    assert [server.name for server in options.servers_extra] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--rounds", "0"], "'0': expected a whole number from 1 up"),
        (["--warmup", "-1"], "'-1': expected a whole number from 0 up"),
        (["--seconds", "x"], "'x': expected a whole number from 1 up"),
        (["--peers", "uvicorn,nginx"], "no 'nginx'; there are uvicorn, granian"),
        (["--cases", "hell"], "no 'hell'; there are hello, browser"),
        (["--servers-extra", "x=nginx"], "no server 'nginx'"),
    ],
)
def test_wrong_options_are_explained(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.parser().parse_args(arguments)

    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_without_wrk_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load, "available", lambda: False)

    assert command.main([]) == 2
    assert "apt-get install wrk" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("hello", ["install wrk"]),
        ("h1-tls", ["install wrk", "install openssl"]),
        ("h2,h2-post", ["install nghttp2-client", "pip install hpack"]),
        ("h2-tls", ["install nghttp2-client", "install openssl", "pip install hpack"]),
        ("h2-browser", ["pip install hpack"]),
        ("ws,idle,wsgi-idle,scgi", []),
        ("trio,wsgi", ["install wrk"]),
    ],
)
def test_what_is_missing_is_named_for_the_cases_that_need_it(
    names: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [case for case in CASES if case.name in names.split(",")]
    for module in (load, h2load, certificate, http2):
        monkeypatch.setattr(module, "available", lambda: True)
    assert command.missing(chosen) == []

    for module in (load, h2load, certificate, http2):
        monkeypatch.setattr(module, "available", lambda: False)
    missing = command.missing(chosen)
    assert [word in line for word, line in zip(words, missing, strict=True)] == [True] * len(words)


def test_sockets_need_no_wrk(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):
        pass

    def reached(*rest: object) -> None:
        raise Reached

    monkeypatch.setattr(load, "available", lambda: False)
    monkeypatch.setattr(command.signal, "signal", lambda *rest: None)
    monkeypatch.setattr(command, "prepare", reached)

    with pytest.raises(Reached):
        command.main(["--cases", "ws,ws-idle"])


@pytest.mark.parametrize(
    ("cases", "aims", "client"),
    [
        ("ws-large", ["picows"], "no compression offered"),
        ("stream", [], "wrk"),
        ("h2", [], "h2load"),
        ("h2-browser", [], "requests encoded beforehand"),
        ("scgi", [], "a new connection for each request"),
    ],
)
def test_the_aim_of_sockets_and_the_client_are_named_where_they_take_part(
    cases: str,
    aims: list[str],
    client: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(command.environment, "WORK", tmp_path)
    monkeypatch.setattr(command.environment, "install", lambda *rest: {"picows": "no wheel"})
    monkeypatch.setattr(command.os, "sched_setaffinity", lambda *rest: None)
    entrants = [OMNICORN]
    remarks: list[str] = []

    plan = command.prepare(
        command.parser().parse_args(["--cases", cases]),
        entrants,
        [case for case in CASES if case.name == cases],
        remarks,
    )

    assert [server.name for server in entrants] == ["omnicorn", *aims]
    assert [client in remark for remark in remarks] == [False, True]
    assert list(plan.unavailable) == aims
