"""FastCGI connections in memory: writes, deadlines, draining, what fronts and logs are told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests import fastcgi_front as front
from tests.fastcgi_front import ABORT, STDIN, begin, params, record, request

from omnicorn.connections.bytestream import DRAIN_TIME, LINGER_BYTES, LINGER_TIME
from omnicorn.connections.deadlines import WIDTH
from omnicorn.connections.fastcgi import acceptor
from omnicorn.connections.service import Timeouts
from omnicorn.errors import ConfigError
from omnicorn.security.trust import TrustedPeers
from omnicorn.transports.inproc import Peer, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[..., Any]
    Open = Callable[..., "Front"]

TIMEOUTS = Timeouts(head=5.0, body=10.0, keep_alive=20.0, write=7.0)
LARGE = begin() + 2 * record(front.PARAMS, 1, bytes(40000)) + record(front.PARAMS)
DISCONNECT = {"type": "http.disconnect"}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hi"})


class Front:
    """A service behind FastCGI, and connections to it."""

    def __init__(self, served: Any, link: dict[str, Any], how: dict[str, Any]) -> None:
        self.served = served
        self.loop = served.loop
        self.service = served.service
        served.peer.reset()
        served.run()
        self.make = acceptor(self.service, **{"environ": {}, **how})
        self.peer = self.connect(**link)

    def connect(self, **link: Any) -> Peer:
        return connect(self.loop, self.make(), **link)

    def send(self, *segments: bytes) -> bytes:
        for data in segments:
            self.peer.send(data)
        return self.run()

    def run(self) -> bytes:
        self.loop.run_until_idle()
        return self.peer.take()

    def advance(self, seconds: float) -> bytes:
        self.loop.advance(seconds)
        return self.peer.take()

    @property
    def app(self) -> Any:
        return self.served.app

    @property
    def exchange(self) -> Any:
        return self.served.exchange

    def gone(self) -> bool:
        """The server has ended the connection, in good order or not."""
        return self.peer.eof or self.peer.was_reset


@pytest.fixture
def fastcgi(serve: Serve) -> Open:
    """Makes a `Front`: ``fastcgi(app=None, how={}, link={}, **options of the service)``."""

    def make(app: Any = None, how: Any = None, link: Any = None, **options: Any) -> Front:
        options.setdefault("timeouts", TIMEOUTS)
        return Front(serve(app, **options), link or {}, how or {})

    return make


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


# ---------------------------------------------------------------- requests


def test_a_request_is_answered_in_one_write(fastcgi: Open) -> None:
    world = fastcgi(hello)
    answer = front.answer(world.send(request()))

    assert answer == front.Answer(b"Status: 200 OK\r\n\r\nhi", b"", 0, 0, True)
    assert len(world.peer.writes) == 1
    assert not world.gone()
    assert world.served.access.lines == [("/", 200, 2)]


def test_a_connection_that_is_not_kept_is_closed_in_good_order(fastcgi: Open) -> None:
    world = fastcgi(hello)
    assert front.answer(world.send(request(keep=False))).body == b"hi"

    assert world.peer.eof and not world.peer.was_reset
    assert not world.service.connections


def test_the_scope_is_what_the_front_says(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(request("/a%20b/c?d=e", SCRIPT_NAME="/a b", PATH_INFO="/c", HTTPS="on", HTTP_X="y"))
    scope = world.exchange.scope

    assert scope["client"] == ("192.0.2.1", 45862)
    assert scope["server"] == ("example.org", 443)
    assert scope["scheme"] == "https"
    assert (scope["path"], scope["raw_path"], scope["root_path"]) == ("/a b/c", b"/a%20b/c", "/a b")
    assert scope["query_string"] == b"d=e"
    assert (b"x", b"y") in scope["headers"]
    assert set(scope["extensions"]) == {"http.response.pathsend", "http.response.zerocopysend"}
    assert scope["asgi"]["spec_version"] == "2.5"


def test_requests_of_one_connection_have_their_own_clients(fastcgi: Open) -> None:
    world = fastcgi(trusted=TrustedPeers("10.0.0.1"))
    forged = "203.0.113.9"
    world.send(
        request(number=1, REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=forged)
        + request(number=2, REMOTE_ADDR="10.0.0.2", HTTP_X_FORWARDED_FOR=forged)
        + request(number=3, REMOTE_ADDR="unix:", REMOTE_PORT="")
    )

    assert [each.scope["client"] for each in world.app.exchanges] == [
        ("203.0.113.9", 0),
        ("10.0.0.2", 45862),
        None,
    ]


def test_equal_requests_do_not_share_what_may_be_changed(fastcgi: Open) -> None:
    world = fastcgi()
    for _ in range(4):
        world.send(request("/same"))
        scope = world.exchange.scope
        assert scope["path"] == "/same" and (b"x", b"y") not in scope["headers"]
        scope["path"] = "/other"
        scope["headers"].append((b"x", b"y"))
        world.exchange.respond()


def test_several_requests_are_in_progress_at_once(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(request("/1", 1) + request("/2", 2) + request("/3", 3))
    assert [each.scope["path"] for each in world.app.exchanges] == ["/1", "/2", "/3"]
    for exchange in reversed(world.app.exchanges):
        exchange.respond(body=exchange.scope["raw_path"])
    wire = world.run()

    assert [front.answer(wire, number).body for number in (1, 2, 3)] == [b"/1", b"/2", b"/3"]
    assert [path for path, _, _ in world.served.access.lines] == ["/3", "/2", "/1"]


def test_content_arrives_while_it_comes(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(
        begin() + params(REQUEST_METHOD="POST", CONTENT_LENGTH="4") + record(STDIN, 1, b"on")
    )
    assert world.exchange.receive().result["body"] == b"on"
    more = world.exchange.receive()
    assert not more.done
    world.send(record(STDIN, 1, b"e!") + record(STDIN, 1))

    assert more.result == {"type": "http.request", "body": b"e!", "more_body": False}


def test_past_the_limit_of_concurrency_the_answer_is_503(fastcgi: Open) -> None:
    world = fastcgi(limit_concurrency=1)
    wire = world.send(request(number=1) + request(number=2))

    assert front.answer(wire, 2).status == 503
    assert len(world.app.exchanges) == 1
    assert not world.gone()


def test_values_are_those_of_the_service(fastcgi: Open) -> None:
    names = ("FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS")
    asked = record(front.GET_VALUES, 0, front.pairs(dict.fromkeys(names, "")))

    def told(**how: Any) -> bytes:
        return front.records(fastcgi(hello, **how).send(asked))[0].content

    assert told() == front.pairs({"FCGI_MPXS_CONNS": "1"})
    assert told(limit_concurrency=7, fastcgi_requests=1) == front.pairs(
        {"FCGI_MAX_CONNS": "7", "FCGI_MAX_REQS": "7", "FCGI_MPXS_CONNS": "0"}
    )


def test_a_request_may_come_byte_by_byte(fastcgi: Open) -> None:
    world = fastcgi(hello)
    wire = b"".join([world.send(bytes([byte])) for byte in request()])

    assert front.answer(wire).body == b"hi"


# ---------------------------------------------------------------- what goes wrong


def test_an_application_that_fails_is_reported_in_a_line(
    fastcgi: Open, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("a secret")

    world = fastcgi(app)
    answer = front.answer(world.send(request("/%C3%A9")))

    assert (answer.status, answer.app_status) == (500, 0)
    assert answer.stderr == b"the application failed: GET '/\\xe9': ValueError\n"
    assert "a secret" in caplog.text
    assert not world.gone(), "the next request may do better"


def test_a_response_that_breaks_off_is_no_complete_one(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(request())
    world.exchange.start()
    world.exchange.body(b"half", more=True)
    world.exchange.finish(ValueError())
    world.run()
    answer = front.answer(world.peer.received)

    assert answer.broken and answer.body == b"half"
    assert b"ValueError" in answer.stderr
    assert world.peer.was_reset


def test_with_others_on_the_connection_only_the_request_breaks_off(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(request(number=1) + request(number=2))
    first, second = world.app.exchanges
    first.start()
    first.finish(ValueError())
    second.respond(body=b"fine")
    wire = world.run()

    assert front.answer(wire, 1).app_status == 1
    assert front.answer(wire, 2).body == b"fine"
    assert not world.gone()


def test_an_aborted_request_is_a_disconnect(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(request())
    world.exchange.receive()
    waiting = world.exchange.receive()
    wire = world.send(record(ABORT, 1))

    assert waiting.result == DISCONNECT
    assert front.answer(wire).app_status == 1
    sent = world.exchange.start()
    sent = world.exchange.body(b"x")
    assert isinstance(sent.error, OSError)
    world.exchange.finish()
    assert not world.service.active and not world.gone()


def test_aborted_requests_count_until_their_applications_return(fastcgi: Open) -> None:
    world = fastcgi(fastcgi_requests=2)
    for _ in range(2):
        world.send(request() + record(ABORT, 1))
    assert front.answer(world.send(request())).protocol_status == front.OVERLOADED

    world.app.exchanges[0].finish()
    world.send(request())
    assert len(world.app.exchanges) == 3


@pytest.mark.parametrize(
    ("data", "status", "why"),
    [
        (request(REQUEST_METHOD=""), 400, "REQUEST_METHOD"),
        (LARGE, 431, "too large"),
        (
            begin() + params(REQUEST_METHOD="POST", CONTENT_LENGTH="9") + record(STDIN),
            400,
            "9 bytes shorter",
        ),
    ],
)
def test_a_bad_request_is_answered_and_logged(
    fastcgi: Open, caplog: pytest.LogCaptureFixture, data: bytes, status: int, why: str
) -> None:
    world = fastcgi()
    assert front.answer(world.send(data)).status == status

    assert len(warnings(caplog)) == 1 and why in warnings(caplog)[0]
    assert f"refused with {status}" in warnings(caplog)[0]
    assert not world.gone()


def test_the_content_behind_an_early_answer_may_be_as_much_as_was_said(fastcgi: Open) -> None:
    world = fastcgi(timeouts=Timeouts(body=10.0))
    post = params(REQUEST_METHOD="POST", CONTENT_LENGTH=str(2 * LINGER_BYTES))
    world.send(begin(keep=False) + post)
    world.exchange.respond(403, b"no")
    for _ in range(2 * LINGER_BYTES // (1 << 20)):
        world.advance(9.0)
        for _ in range(16):
            world.send(record(STDIN, 1, b"x" * 65_000))
    assert world.service.connections

    # Nearly all of it has come.
    world.send(record(STDIN, 1, b"x" * 10_000) * 28)
    world.advance(LINGER_TIME + 2 * WIDTH)
    assert not world.service.connections


def test_wrong_records_are_logged_and_the_connection_ends(
    fastcgi: Open, caplog: pytest.LogCaptureFixture
) -> None:
    world = fastcgi()
    world.send(b"GET / HTTP/1.1\r\nhost: example.org\r\n\r\n")
    world.advance(LINGER_TIME + 1.0)

    assert world.gone()
    why = "the port speaks FastCGI, and this looks like HTTP"
    assert warnings(caplog) == [f"192.0.2.1:50000 - cut: {why}"]
    assert not world.service.connections


def test_only_the_web_servers_named_may_connect(
    fastcgi: Open, caplog: pytest.LogCaptureFixture
) -> None:
    world = fastcgi(hello, how={"environ": {"FCGI_WEB_SERVER_ADDRS": "10.0.0.1, ::1"}})
    world.run()
    assert world.gone()
    assert "FCGI_WEB_SERVER_ADDRS" in warnings(caplog)[0]

    for name in (("10.0.0.1", 9), ("::1", 9, 0, 0), ""):
        world.peer = world.connect(peername=name)
        assert front.answer(world.send(request())).body == b"hi"


def test_a_list_of_web_servers_that_is_none_is_refused(fastcgi: Open) -> None:
    with pytest.raises(ConfigError, match="FCGI_WEB_SERVER_ADDRS must be addresses"):
        fastcgi(how={"environ": {"FCGI_WEB_SERVER_ADDRS": "localhost"}})


# ---------------------------------------------------------------- early answers


def test_an_early_answer_arrives_though_content_still_comes(fastcgi: Open) -> None:
    world = fastcgi()
    upload = begin(keep=False) + params(REQUEST_METHOD="POST", CONTENT_LENGTH="5000000")
    world.send(upload + record(STDIN, 1, bytes(60000)))
    world.exchange.respond(413, b"too much")
    wire = world.run()
    for _ in range(80):
        wire += world.send(record(STDIN, 1, bytes(60000)))

    assert front.answer(wire).status == 413
    assert world.peer.eof and not world.peer.was_reset
    world.peer.close()
    world.run()
    assert not world.service.connections


def test_a_kept_connection_skips_the_content_of_an_early_answer(fastcgi: Open) -> None:
    world = fastcgi()
    upload = begin() + params(REQUEST_METHOD="POST", CONTENT_LENGTH="120000")
    world.send(upload + record(STDIN, 1, bytes(60000)))
    world.exchange.respond(413, b"too much")
    world.send(record(STDIN, 1, bytes(60000)) + record(STDIN, 1) + request("/next"))

    assert world.exchange.scope["path"] == "/next"


# ---------------------------------------------------------------- back-pressure


def test_content_waits_for_its_application(fastcgi: Open) -> None:
    world = fastcgi()
    content = record(STDIN, 1, bytes(50000))
    world.send(begin() + params(REQUEST_METHOD="POST"), content, content, content, content)
    assert world.peer.waiting

    received = 0
    while received < 200_000:
        received += len(world.exchange.receive().result["body"])
    assert not world.peer.waiting


def test_one_application_cannot_hold_up_the_others_for_ever(fastcgi: Open) -> None:
    world = fastcgi()
    content = record(STDIN, 1, bytes(50000))
    world.send(begin() + params(REQUEST_METHOD="POST"), content, begin(2) + content + content)
    world.send(params(2) + record(STDIN, 2))
    assert world.peer.waiting
    wire = world.advance(TIMEOUTS.body + 1.0)

    assert front.answer(wire).status == 503
    assert not world.peer.waiting
    assert len(world.app.exchanges) == 2, "the other has begun"


def test_others_behind_content_that_waits_are_found_and_served(fastcgi: Open) -> None:
    world = fastcgi()
    content = record(STDIN, 1, bytes(50000))
    world.send(begin() + params(REQUEST_METHOD="POST"), content, content, content)
    world.send(request("/2", 2))
    assert world.peer.waiting and len(world.app.exchanges) == 1
    world.advance(TIMEOUTS.body - 1.0)
    assert len(world.app.exchanges) == 1
    wire = world.advance(TIMEOUTS.body + TIMEOUTS.keep_alive)

    assert front.answer(wire).status == 503
    assert world.exchange.scope["path"] == "/2"


def test_alone_an_application_may_leave_content_for_ever(fastcgi: Open) -> None:
    world = fastcgi()
    content = record(STDIN, 1, bytes(50000))
    world.send(begin() + params(REQUEST_METHOD="POST"), *[content] * 40)
    for _ in range(20):
        assert world.advance(TIMEOUTS.body) == b""
    assert world.peer.waiting
    received = 0
    while received < 40 * 50000:
        received += len(world.exchange.receive().result["body"])

    assert not world.peer.waiting


@pytest.mark.parametrize(
    "flood",
    [begin() + record(ABORT, 1), record(front.GET_VALUES, 0), record(99, 0), record(STDIN, 9)],
    ids=["aborted", "values", "unknown", "skipped"],
)
def test_others_have_their_turn_while_one_sends_many_records(fastcgi: Open, flood: bytes) -> None:
    took: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        took.append(left())
        await hello(scope, receive, send)

    def left() -> int:
        return len(busy.engine._buffer)

    world = fastcgi(app)
    world.run()
    [busy] = world.service.connections
    other = world.connect()
    world.peer.send(flood * 6000)
    world.peer.send(flood * 6000)
    other.send(request())
    wire = world.run()

    assert front.answer(other.received).body == b"hi"
    assert len(took) == 1 and took[0] > len(flood) * 3000, "it was asked in the midst of them"
    world.send(request(number=7))
    assert front.answer(world.peer.received, 7).body == b"hi"
    assert not world.peer.waiting
    if flood == record(99, 0):
        assert len(front.records(wire)) == 12000


def test_many_records_and_then_the_end_are_all_read(fastcgi: Open) -> None:
    world = fastcgi(hello)
    world.peer.send(record(99, 0) * 3000 + request())
    world.peer.close()

    assert front.answer(world.run()).body == b"hi"
    assert not world.service.connections


def test_a_front_that_leaves_within_many_records_is_forgotten(fastcgi: Open) -> None:
    world = fastcgi(hello)
    world.peer.send(record(99, 0) * 30000)
    world.loop.call_soon(lambda: world.loop.call_soon(world.peer.reset))
    world.run()

    assert not world.service.connections


def test_a_front_that_reads_nothing_is_not_read_either(fastcgi: Open) -> None:
    world = fastcgi(link={"window": 60_000})
    world.peer.pause()
    for _ in range(160):
        world.send(record(99, 0) * 500)
    assert world.peer.waiting
    world.peer.resume()
    world.run()
    assert not world.peer.waiting
    assert len(world.peer.received) == 80_000 * len(record(front.UNKNOWN, 0, bytes(8)))


def test_a_front_that_reads_nothing_is_cut(fastcgi: Open) -> None:
    world = fastcgi()
    world.peer = world.connect(window=1000)
    world.peer.pause()
    world.send(request())
    world.exchange.start()
    sent = world.exchange.body(bytes(500_000), more=True)
    assert not sent.done
    world.advance(TIMEOUTS.write + 1.0)

    assert world.peer.was_reset
    assert isinstance(sent.error, OSError)


def test_a_slow_front_is_waited_for(fastcgi: Open) -> None:
    world = fastcgi()
    world.peer = world.connect(window=1000)
    world.peer.pause()
    world.send(request())
    world.exchange.start()
    sent = world.exchange.body(bytes(200_000), more=True)
    for _ in range(5):
        world.peer.read(1000)
        world.advance(TIMEOUTS.write - 1.0)
    assert not world.gone()
    world.peer.resume()
    world.run()

    assert sent.done and sent.error is None


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("begun", [b"", begin(), begin() + params(), request()[:20]])
def test_a_request_has_its_time_to_come(fastcgi: Open, begun: bytes) -> None:
    world = fastcgi()
    world.send(begun)
    wire = world.advance(TIMEOUTS.head - 1.0)
    assert not world.gone() and wire == b""
    wire = world.advance(2.0)

    if begun:
        assert front.answer(wire).status == 408
    else:
        assert world.gone()


def test_half_a_record_has_the_time_of_a_head(
    fastcgi: Open, caplog: pytest.LogCaptureFixture
) -> None:
    world = fastcgi(hello)
    world.send(request(), begin()[:5])
    world.advance(TIMEOUTS.head - 1.0)
    assert not world.gone()
    world.advance(2.0)

    assert world.gone()
    assert "a record did not arrive in time" in warnings(caplog)[0]


def test_content_has_a_time_between_its_pieces(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(begin() + params(REQUEST_METHOD="POST", CONTENT_LENGTH="4") + record(STDIN, 1, b"x"))
    reading = [world.exchange.receive(), world.exchange.receive()]
    world.advance(TIMEOUTS.body - 1.0)
    world.send(record(STDIN, 1, b"y"))
    reading.append(world.exchange.receive())
    wire = world.advance(TIMEOUTS.body - 1.0)
    assert wire == b""
    wire = world.advance(2.0)

    assert front.answer(wire).status == 408
    assert reading[-1].result == DISCONNECT


def test_a_kept_connection_is_closed_when_nothing_comes(fastcgi: Open) -> None:
    world = fastcgi(hello)
    for _ in range(3):
        world.send(request())
        world.advance(TIMEOUTS.keep_alive - 1.0)
        assert not world.gone()
    world.advance(2.0)

    assert world.peer.eof and not world.peer.was_reset


@pytest.mark.parametrize("kind", [front.GET_VALUES, 99])
@pytest.mark.parametrize("cut", [0, 5])
def test_what_is_no_request_does_not_keep_a_connection(fastcgi: Open, kind: int, cut: int) -> None:
    world = fastcgi(hello)
    world.send(request())
    one = record(kind, 0)
    world.send(one[:cut])
    lasted = 0.0
    while not world.gone():
        world.send(one[cut:] + one[:cut])
        world.advance(1.0)
        lasted += 1.0
        assert lasted <= TIMEOUTS.keep_alive + TIMEOUTS.head + 1.0

    assert lasted >= TIMEOUTS.keep_alive


def test_a_record_that_begins_late_still_has_its_time(fastcgi: Open) -> None:
    world = fastcgi(hello)
    world.send(request())
    world.advance(TIMEOUTS.keep_alive - 1.0)
    late = request()
    world.send(late[:5])
    world.advance(TIMEOUTS.head - 1.0)

    assert front.answer(world.send(late[5:])).body == b"hi"


def test_a_record_has_its_time_from_the_end_of_the_last_request(fastcgi: Open) -> None:
    world = fastcgi()
    upload = begin() + params(REQUEST_METHOD="POST", CONTENT_LENGTH="60000")
    world.send(upload + record(STDIN, 1, bytes(60000))[:100])
    for _ in range(3):
        world.advance(TIMEOUTS.body - 1.0)
        world.send(bytes(100))
    world.exchange.respond()
    world.advance(TIMEOUTS.head - 1.0)

    assert not world.gone()


def test_an_application_has_all_the_time(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(request())
    world.advance(1000.0)
    world.exchange.respond(body=b"at last")

    assert front.answer(world.run()).body == b"at last"


# ---------------------------------------------------------------- the end


def test_what_is_in_progress_is_finished_when_the_server_stops(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(request())
    idle: list[bool] = []
    world.service.drain(lambda: idle.append(True))
    world.run()
    assert not world.gone() and not idle
    world.exchange.respond(body=b"done")
    world.exchange.finish()
    wire = world.run()

    assert front.answer(wire).body == b"done"
    assert world.peer.eof and idle == [True]


def test_a_kept_connection_is_closed_when_the_server_stops(fastcgi: Open) -> None:
    world = fastcgi(hello)
    world.send(request())
    world.service.drain(lambda: None)
    world.run()

    assert world.peer.eof


def test_a_silent_connection_has_a_moment_when_the_server_stops(fastcgi: Open) -> None:
    world = fastcgi(hello)
    late = world.connect()
    idle: list[bool] = []
    world.service.drain(lambda: idle.append(True))
    assert front.answer(world.send(request())).body == b"hi"
    assert world.peer.eof
    assert not late.eof
    world.advance(DRAIN_TIME + 0.5)

    assert idle == [True]


def test_no_request_begins_once_the_server_stops(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(request())
    world.service.drain(lambda: None)
    wire = world.send(request(number=2))

    assert front.answer(wire, 2).protocol_status == front.OVERLOADED


def test_a_front_that_leaves_is_told_to_the_applications(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(request(number=1) + request(number=2))
    waiting = []
    for exchange in world.app.exchanges:
        exchange.receive()
        waiting.append(exchange.receive())
    world.peer.reset()
    world.run()

    assert [each.result for each in waiting] == [DISCONNECT] * 2
    assert len(world.service.stragglers) == 2
    for exchange in world.app.exchanges:
        exchange.finish()
    assert not world.service.stragglers and not world.service.active


def test_a_front_that_sends_no_more_still_gets_its_answer(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(request())
    world.exchange.receive()
    waiting = world.exchange.receive()
    world.peer.close()
    world.run()
    assert waiting.result == DISCONNECT
    world.exchange.respond(body=b"still")

    assert front.answer(world.run()).body == b"still"
    assert not world.service.connections


def test_disconnect_and_cancel_reach_every_application(fastcgi: Open) -> None:
    world = fastcgi()
    world.send(request(number=1) + request(number=2))
    for exchange in world.app.exchanges:
        exchange.receive()
    waiting = [exchange.receive() for exchange in world.app.exchanges]
    world.service.disconnect()
    world.run()
    assert [each.result for each in waiting] == [DISCONNECT] * 2
    world.service.cancel()
    world.run()

    assert all(exchange.left for exchange in world.app.exchanges)
    assert world.peer.was_reset and not world.service.active


def test_nothing_is_left_for_the_garbage_collector(
    fastcgi: Open, garbage: Callable[[], list[str]]
) -> None:
    world = fastcgi(hello)
    world.send(request(), request())
    world.peer.close()
    world.run()
    world.peer = None  # type: ignore[assignment]

    left = garbage()
    assert not {"FastCGIConnection", "FastCGIEngine", "FastCGIStream", "HTTPCycle"} & {*left}
