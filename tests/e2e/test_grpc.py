"""gRPC calls of Google's own client, answered by an ASGI application that knows the wire format.

What gRPC needs of a server: trailers, both directions at once, a stream's cancellation seen by
the application, and flow control that neither stalls nor runs full.
"""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import pytest
from tests.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Serve, ServerProcess

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

Call = Any

OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each channel
]


def calls_of(channel: Any) -> Callable[[str, str], Call]:
    """Makes calls of raw bytes: no serializers."""

    def make(kind: str, method: str) -> Call:
        return getattr(channel, kind)(f"/e2e/{method}")

    return make


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module("grpc_plain:app", "--no-access-log")


@pytest.fixture
def call(server: ServerProcess) -> Iterator[Callable[[str, str], Call]]:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", OPTIONS) as channel:
        yield calls_of(channel)


class Talk:
    """What a client says on a stream, as an iterator that waits."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._said.get, None)

    def say(self, message: bytes) -> None:
        self._said.put(message)

    def end(self) -> None:
        self._said.put(None)


def error_of(call: Callable[[], object]) -> Any:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


# --------------------------------------------------------------------------- the four kinds


def test_a_unary_call_is_answered(call: Callable[[str, str], Call]) -> None:
    unary = call("unary_unary", "Unary")

    assert unary(b"abc", timeout=10) == b"cba"
    assert unary(b"", timeout=10) == b""


def test_a_server_streams(call: Callable[[str, str], Call]) -> None:
    numbers = list(call("unary_stream", "CountDown")(b"1000", timeout=10))

    assert numbers == [b"%d" % number for number in range(1000, 0, -1)]
    assert list(call("unary_stream", "CountDown")(b"0", timeout=10)) == []


def test_a_client_streams(call: Callable[[str, str], Call]) -> None:
    numbers = (b"%d" % number for number in range(1001))

    assert call("stream_unary", "AddUp")(numbers, timeout=10) == b"500500"
    assert call("stream_unary", "AddUp")(iter(()), timeout=10) == b"0"


def test_both_sides_stream_in_turn(call: Callable[[str, str], Call]) -> None:
    talk = Talk()
    answers = call("stream_stream", "PingPong")(iter(talk), timeout=10)
    for index in range(100):
        talk.say(b"message %d" % index)
        assert next(answers) == b"MESSAGE %d" % index
    talk.end()

    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


# ---------------------------------------------------------------------------- many and large


def test_a_thousand_calls_at_once_are_answered(call: Callable[[str, str], Call]) -> None:
    unary = call("unary_unary", "Unary")

    futures = [unary.future(b"call %d" % index, timeout=20) for index in range(1000)]

    assert [future.result() for future in futures] == [
        (b"call %d" % index)[::-1] for index in range(1000)
    ]


def test_messages_of_four_megabytes_go_both_ways(call: Callable[[str, str], Call]) -> None:
    message = bytes(range(256)) * (4 << 12)
    echo = call("unary_unary", "Echo")

    assert echo(message, timeout=10) == message
    futures = [echo.future(message, timeout=20) for _ in range(4)]
    assert [future.result() == message for future in futures] == [True] * 4


def test_large_messages_stream_both_ways_at_once(call: Callable[[str, str], Call]) -> None:
    messages = [bytes([65 + index]) * 200_000 for index in range(26)]

    answers = list(call("stream_stream", "PingPong")(iter(messages), timeout=10))

    assert answers == messages


# --------------------------------------------------------------------------------- statuses


def test_an_error_in_the_trailers_follows_the_messages(call: Callable[[str, str], Call]) -> None:
    answers = call("unary_stream", "FailLate")(b"x", timeout=10)

    assert next(answers) == b"half of it"
    error = error_of(lambda: next(answers))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "no more – sorry"


def test_an_answer_of_trailers_alone_is_an_error(call: Callable[[str, str], Call]) -> None:
    error = error_of(lambda: call("unary_unary", "FailEarly")(b"x", timeout=10))

    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nothing here")


def test_a_method_that_is_unknown_is_refused_before_its_message_is_read(
    call: Callable[[str, str], Call],
) -> None:
    error = error_of(lambda: call("unary_unary", "Nowhere")(b"x" * 1_000_000, timeout=10))

    assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "no such method")


def test_metadata_goes_both_ways(call: Callable[[str, str], Call]) -> None:
    metadata = (("x-text", "one"), ("x-text", "two"), ("x-data-bin", b"\x00\xff"))

    answer, done = call("unary_unary", "Show").with_call(b"", timeout=10, metadata=metadata)

    lines = answer.decode().split("\n")
    assert [line for line in lines if line.startswith("x-")] == [
        "x-text: one", "x-text: two", "x-data-bin: AP8",
    ]  # fmt: skip
    assert "te: trailers" in lines and "content-type: application/grpc" in lines
    assert any(line.startswith("grpc-timeout: ") for line in lines)
    first = dict(done.initial_metadata())
    assert (first["x-first"], first["x-bytes-bin"]) == ("before", b"\x00\xff\x80")
    assert dict(done.trailing_metadata())["x-last"] == "after"


# -------------------------------------------------------------------------- calls that are left


def test_a_deadline_is_seen_by_the_application(
    call: Callable[[str, str], Call], server: ServerProcess
) -> None:
    left = len(server.matching("/e2e/Never was left"))

    error = error_of(lambda: call("unary_unary", "Never")(b"x", timeout=0.2))

    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_for("/e2e/Never was left", left + 1, seconds=5)
    assert call("unary_unary", "Unary")(b"on", timeout=10) == b"no"


def test_a_cancelled_call_is_seen_by_the_application(
    call: Callable[[str, str], Call], server: ServerProcess
) -> None:
    begun, left = len(server.matching("never began")), len(server.matching("/e2e/Never was left"))
    futures = [call("unary_unary", "Never").future(b"x") for _ in range(20)]
    server.wait_for("never began", begun + 20)

    for future in futures:
        assert future.cancel()

    server.wait_for("/e2e/Never was left", left + 20, seconds=5)
    assert {future.code() for future in futures} == {grpc.StatusCode.CANCELLED}


def test_a_stream_that_is_left_ends(
    call: Callable[[str, str], Call], server: ServerProcess
) -> None:
    left = len(server.matching("/e2e/ForEver was left"))
    ticks = call("unary_stream", "ForEver")(b"x")
    assert [next(ticks) for _ in range(3)] == [b"tick"] * 3

    ticks.cancel()

    server.wait_for("/e2e/ForEver was left", left + 1, seconds=5)


def test_a_client_that_stops_talking_half_way_is_seen_by_the_application(
    call: Callable[[str, str], Call], server: ServerProcess
) -> None:
    left = len(server.matching("/e2e/PingPong was left"))
    talk = Talk()
    answers = call("stream_stream", "PingPong")(iter(talk))
    talk.say(b"hello")
    assert next(answers) == b"HELLO"

    answers.cancel()
    talk.end()

    server.wait_for("/e2e/PingPong was left", left + 1, seconds=5)


# ------------------------------------------------------------------------------ the server


def test_a_call_in_flight_finishes_when_the_server_stops(
    serve: Serve, eventually: Callable[..., Any]
) -> None:
    server = serve("grpc_plain:app", "--no-access-log")
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", OPTIONS) as channel:
        talk = Talk()
        answers = calls_of(channel)("stream_stream", "PingPong")(iter(talk), timeout=10)
        talk.say(b"before")
        assert next(answers) == b"BEFORE"

        server.kill()
        eventually(server.refuses, "the server listens no more")

        talk.say(b"after")
        assert next(answers) == b"AFTER"
        talk.end()
        assert list(answers) == []
        assert answers.code() == grpc.StatusCode.OK
    assert server.wait() == 0


def test_calls_go_over_tls(serve: Serve, tmp_path: Any) -> None:
    authority = Authority()
    certfile, keyfile = authority.issue("localhost").save(tmp_path, "server")
    tls = ("--ssl-certfile", certfile, "--ssl-keyfile", keyfile)
    server = serve("grpc_plain:app", "--no-access-log", *tls)
    port = server.addresses[0].rpartition(":")[2]
    trusted = grpc.ssl_channel_credentials(authority.pem.encode())

    with grpc.secure_channel(f"localhost:{port}", trusted, OPTIONS) as channel:
        call = calls_of(channel)
        assert call("unary_unary", "Unary")(b"abc", timeout=10) == b"cba"
        message = bytes(1 << 20)
        assert call("unary_unary", "Echo")(message, timeout=10) == message
        assert list(call("unary_stream", "CountDown")(b"3", timeout=10)) == [b"3", b"2", b"1"]
