from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from bench import scgi, servers
from bench.cases import CASES, CHROME, UPLOAD, Case, Kind, Request, Way
from bench.load import Load, LoadError

if TYPE_CHECKING:
    from conftest import GatewayPeer

SCGI = next(case for case in CASES if case.name == "scgi")


def once(case: Case, peer: GatewayPeer) -> Load:
    """The shortest load there is: every place has one request."""
    with scgi.crowd(case, peer.address) as run:
        return run(0)


def test_a_request_is_a_netstring_of_fields_with_the_length_first() -> None:
    text = scgi.question(Request(target="/a/b?c=1"), "127.0.0.1", 9000, 40001)

    size, _, rest = text.partition(b":")
    assert rest[-1:] == b"," and int(size) == len(rest) - 1
    assert rest.startswith(b"CONTENT_LENGTH\x000\0REQUEST_METHOD\0GET\0REQUEST_URI\0/a/b?c=1\0")
    for field in (
        b"SCGI\x001\0",
        b"QUERY_STRING\0c=1\0",
        b"PATH_INFO\0/a/b\0",
        b"REMOTE_PORT\x0040001\0",
    ):
        assert rest.count(field) == 1


def test_the_fields_of_a_request_are_named_as_cgi_has_them(gateway_peer: GatewayPeer) -> None:
    scgi.ask(gateway_peer.address, CHROME)

    found = gateway_peer.fields[0]
    assert found["HTTP_SEC_CH_UA_MOBILE"] == "?0"
    assert found["QUERY_STRING"] == "page=3&sort=price"
    assert found["CONTENT_LENGTH"] == "0"


def test_a_body_follows_the_fields(gateway_peer: GatewayPeer) -> None:
    scgi.ask(gateway_peer.address, UPLOAD)

    assert gateway_peer.bodies == [UPLOAD.body]
    assert gateway_peer.fields[0]["CONTENT_TYPE"] == "application/octet-stream"
    assert "HTTP_CONTENT_TYPE" not in gateway_peer.fields[0]


def test_an_answer_has_status_fields_and_body() -> None:
    answer = scgi.parse(b"Status: 404 Not Found\r\nX-Request-Id: 7\r\n\r\ngone\r\n\r\n")

    assert (answer.status, answer.body) == (404, b"gone\r\n\r\n")
    assert (answer.field("x-REQUEST-id"), answer.field("y")) == ("7", None)


def test_an_answer_without_a_status_is_a_200() -> None:
    assert scgi.parse(b"Content-Type: text/plain\r\n\r\n").status == 200


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "b'' is not the head"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "'HTTP/1.1 200 OK' is not a field"),
        (b"Status: fine\r\n\r\n", "the status 'fine' is not a number"),
    ],
)
def test_what_is_no_cgi_response_is_a_wrong_answer(data: bytes, reason: str) -> None:
    with pytest.raises(scgi.WrongAnswer, match=reason):
        scgi.parse(data)


def test_no_two_requests_in_a_row_are_alike_but_all_have_one_length() -> None:
    made = scgi.questions(Request(target="/100%25"), ("127.0.0.1", 9000))

    texts = {next(made) for _ in range(1000)}

    assert len(texts) == 1000
    assert len({len(text) for text in texts}) == 1
    assert scgi.question(Request(target="/100%25"), "127.0.0.1", 9000, 10_999) in texts


@pytest.mark.parametrize("pieces", [1, 3, 60])
def test_every_place_has_one_request_and_takes_its_answer_in_pieces(
    gateway_peer: GatewayPeer, pieces: int
) -> None:
    gateway_peer.pieces = pieces

    seen = once(dataclasses.replace(SCGI, connections=4), gateway_peer)

    assert (seen.requests, seen.errors) == (4, 0)
    assert len({fields["REMOTE_PORT"] for fields in gateway_peer.fields}) == 4


def test_a_place_connects_again_as_long_as_there_is_time(gateway_peer: GatewayPeer) -> None:
    with scgi.crowd(dataclasses.replace(SCGI, connections=2), gateway_peer.address) as run:
        seen = run(0.05)

    assert seen.seconds >= 0.05
    assert seen.requests == len(gateway_peer.fields) > 2
    assert seen.p99_ms is not None
    assert 0 < seen.p99_ms <= 1000 * seen.seconds


def test_no_request_is_in_flight_after_a_run(gateway_peer: GatewayPeer) -> None:
    with scgi.crowd(dataclasses.replace(SCGI, connections=3), gateway_peer.address) as run:
        assert [run(0).requests for _ in range(5)] == [3] * 5


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"Status: 500 Internal Server Error\r\n\r\nHello, world!",
        b"Status: 200 OK\r\n\r\nHello, worl",
        b"Status: 200 OK\r\n\r\nHello, world!!",
    ],
)
def test_a_wrong_answer_ends_the_run_as_failed(gateway_peer: GatewayPeer, answer: bytes) -> None:
    gateway_peer.answer = answer

    with pytest.raises(LoadError, match=rf"under load came b.*, {len(answer)} bytes"):
        once(dataclasses.replace(SCGI, connections=2), gateway_peer)


def test_silence_ends_the_run_as_failed(
    gateway_peer: GatewayPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scgi, "PATIENCE", 0.05)
    gateway_peer.silent = True

    with pytest.raises(LoadError, match="2 requests got no answer for"):
        once(dataclasses.replace(SCGI, connections=2), gateway_peer)


def test_nobody_listening_ends_the_run_as_failed() -> None:
    with (
        scgi.crowd(SCGI, (servers.HOST, servers.free_port())) as run,
        pytest.raises(LoadError, match="a connection broke under load"),
    ):
        run(0)


def test_a_request_that_does_not_fit_is_sent_in_parts(gateway_peer: GatewayPeer) -> None:
    body = b"0123456789abcdef" * 262144
    huge = dataclasses.replace(SCGI, connections=1, request=Request("POST", body=body))

    assert once(huge, gateway_peer).requests == 1
    assert gateway_peer.bodies == [body]


def test_the_right_answer_passes(gateway_peer: GatewayPeer) -> None:
    servers.check_answer(SCGI, gateway_peer.address[1])

    assert len(gateway_peer.fields) == 2
    assert servers._answers(SCGI, gateway_peer.address[1])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"Status: 502 Bad Gateway\r\n\r\n", "status 502, not 200"),
        (b"Status: 200 OK\r\n\r\nHello", "a body of 5 bytes"),
        (b"", "WrongAnswer: b'' is not the head"),
    ],
)
def test_a_wrong_answer_is_named(gateway_peer: GatewayPeer, answer: bytes, reason: str) -> None:
    gateway_peer.answer = answer

    with pytest.raises(servers.ServerFailed, match=reason):
        servers.check_answer(SCGI, gateway_peer.address[1])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cases_of_scgi_are_measured_by_its_load(case: Case) -> None:
    assert (case.kind is Kind.SCGI) == (case.way is Way.SCGI)
