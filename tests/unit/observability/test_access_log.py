"""Access log: what a line holds, what can never be in it, and how lines reach their file."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.errors import ConfigError
from omnicorn.observability.access_log import (
    ATOMS,
    PRESETS,
    AccessLog,
    AccessLogger,
    compile_format,
    stream_writer,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOON = 1_700_000_000.25  # 2023-11-14 22:13:20 UTC


@dataclass
class Finished:
    """A finished exchange."""

    scope: dict[str, Any]
    status: int = 200
    response_headers: list[tuple[bytes, bytes]] = field(
        default_factory=lambda: [(b"content-type", b"text/html"), (b"x-cache", b"HIT")]
    )
    sent: int = 13
    duration: float = 1.234567


def scope(**changes: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "client": ("192.0.2.7", 4711),
        "method": "GET",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"q=1",
        "http_version": "1.1",
        "scheme": "https",
        "headers": [(b"host", b"x"), (b"user-agent", b"curl/8"), (b"referer", b"http://r/")],
        **changes,
    }


def line(format: str, *, exchange: Finished | None = None, **changes: Any) -> str:
    compiled = compile_format(format, clock=lambda: NOON)
    return compiled.line(exchange or Finished(scope(**changes)))


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class TestAtoms:
    @pytest.mark.parametrize(
        ("atom", "text"),
        [
            ("%(h)s", "192.0.2.7"),
            ("%(addr)s", "192.0.2.7"),
            ("%(client_addr)s", "192.0.2.7:4711"),
            ("%(l)s", "-"),
            ("%(u)s", "-"),
            ("%(r)s", "GET /a%20b?q=1 HTTP/1.1"),
            ("%(R)s", "GET /a%20b?q=1 HTTP/1.1"),
            ("%(request_line)s", "GET /a%20b?q=1 HTTP/1.1"),
            ("%(m)s", "GET"),
            ("%(method)s", "GET"),
            ("%(U)s", "/a b"),
            ("%(path)s", "/a b"),
            ("%(Uq)s", "/a b?q=1"),
            ("%(q)s", "q=1"),
            ("%(query_string)s", "q=1"),
            ("%(H)s", "HTTP/1.1"),
            ("%(protocol)s", "HTTP/1.1"),
            ("%(S)s", "https"),
            ("%(scheme)s", "https"),
            ("%(s)s", "200"),
            ("%(status)d", "200"),
            ("%(st)s", "OK"),
            ("%(status_code)s", "200 OK"),
            ("%(B)s", "13"),
            ("%(b)s", "13"),
            ("%(f)s", "http://r/"),
            ("%(a)s", "curl/8"),
            ("%(T)s", "1"),
            ("%(M)s", "1234"),
            ("%(D)s", "1234567"),
            ("%(L)s", "1.234567"),
            ("%(dt_ms).3f", "1234.567"),
            pytest.param("%(p)s", f"<{os.getpid()}>", id="%(p)s"),
            ("%({Host}i)s", "x"),
            ("%(header{host})s", "x"),
            ("%({x-cache}o)s", "HIT"),
            ("%({missing}i)s", "-"),
            ("%({missing}o)s", "-"),
            ("%(levelprefix)s", "INFO:    "),
            ("%(m)5s|%(m)-5s|%(U).2s", "  GET|GET  |/a"),
            ("%(l)3s", "  -"),
            ("100%% %(m)s", "100% GET"),
            ("{%(m)s} {m}", "{GET} {m}"),
        ],
    )
    def test_an_atom_shows_its_part_of_the_exchange(self, atom: str, text: str) -> None:
        assert line(atom) == text

    def test_every_plain_atom_compiles_and_formats(self) -> None:
        for atom in ATOMS:
            conversion = "f" if atom == "dt_ms" else "s"
            assert line(f"%({atom}){conversion}")

    @pytest.mark.parametrize(
        ("atom", "text"),
        [("%(t)s", "[14/Nov/2023:22:13:20 +0000]"), ("%(time)s", "2023-11-14 22:13:20 +0000")],
    )
    @pytest.mark.usefixtures("utc")
    def test_dates_are_those_of_the_clock(self, atom: str, text: str) -> None:
        assert line(atom) == text

    @pytest.mark.usefixtures("utc")
    def test_the_date_moves_on_with_the_second(self) -> None:
        now = [NOON]
        compiled = compile_format("%(t)s", clock=lambda: now[0])
        texts = []
        for second in (0, 0.5, 1, 60):
            now[0] = NOON + second
            texts.append(compiled.line(Finished(scope()))[-15:-7])
        assert texts == ["22:13:20", "22:13:20", "22:13:21", "22:14:20"]

    def test_the_user_is_that_of_basic_credentials_without_the_password(self) -> None:
        token = base64.b64encode("zoë:se\ncret".encode())
        headers = [(b"authorization", b"Basic " + token)]
        assert line("%(u)s", headers=headers) == "zo\\u00eb"

    @pytest.mark.parametrize(
        "value",
        [b"Bearer abc", b"Basic", b"Basic !", b"Basic a", b"Basic Og==", b"Basic YQ==", b""],
    )
    def test_other_credentials_show_no_user(self, value: bytes) -> None:
        assert line("%(u)s", headers=[(b"authorization", value)]) == "-"

    def test_an_environment_variable_is_read_when_the_format_is_compiled(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("POD", 'a"\n')
        assert line("%({POD}e)s %({NO_SUCH_VARIABLE}e)s") == 'a\\"\\n -'

    def test_lines_of_one_request_field_are_joined_in_order(self) -> None:
        headers = [(b"x", b"1"), (b"y", b"2"), (b"x", b"3")]
        assert line("%({x}i)s %({y}i)s", headers=headers) == "1, 3 2"

    def test_no_body_is_a_dash_in_the_common_format(self) -> None:
        exchange = Finished(scope(), sent=0)
        assert line("%(b)s %(B)s", exchange=exchange) == "- 0"

    @pytest.mark.parametrize(("status", "text"), [(404, "404 Not Found"), (599, "599"), (0, "0")])
    def test_a_status_shows_its_phrase_where_it_has_one(self, status: int, text: str) -> None:
        assert line("%(status_code)s", exchange=Finished(scope(), status=status)) == text

    def test_an_ipv6_client_stands_in_brackets_before_its_port(self) -> None:
        assert line("%(h)s %(client_addr)s", client=("2001:db8::1", 80)) == (
            "2001:db8::1 [2001:db8::1]:80"
        )

    def test_a_client_on_a_unix_socket_is_a_dash(self) -> None:
        assert line("%(h)s %(client_addr)s", client=None) == "- -"

    def test_the_target_is_rebuilt_where_a_gateway_gave_no_raw_path(self) -> None:
        without = scope(path="/é x", query_string=b"")
        del without["raw_path"]
        assert line("%(r)s", exchange=Finished(without)) == "GET /%C3%A9%20x HTTP/1.1"

    @pytest.mark.parametrize(("version", "method"), [("1.1", "GET"), ("2", "CONNECT")])
    def test_a_websocket_scope_shows_the_method_of_its_handshake(
        self, version: str, method: str
    ) -> None:
        handshake = scope(http_version=version, type="websocket")
        del handshake["method"]
        assert line("%(m)s", exchange=Finished(handshake)) == method


class TestPresets:
    def test_the_default_line_is_the_one_uvicorn_prints(self) -> None:
        assert line("default") == 'INFO:     192.0.2.7:4711 - "GET /a%20b?q=1 HTTP/1.1" 200 OK'

    def test_uvicorn_is_the_default_without_its_prefix(self) -> None:
        assert "INFO:     " + line("uvicorn") == line("default")

    @pytest.mark.usefixtures("utc")
    def test_common_and_combined_are_apaches(self) -> None:
        common = '192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] "GET /a%20b?q=1 HTTP/1.1" 200 13'
        assert line("common") == common
        assert line("combined") == common + ' "http://r/" "curl/8"'

    def test_json_is_one_object(self) -> None:
        assert json.loads(line("json")) == {
            "time": "2023-11-14T22:13:20Z",
            "client": "192.0.2.7",
            "method": "GET",
            "path": "/a b",
            "query": "q=1",
            "protocol": "HTTP/1.1",
            "scheme": "https",
            "status": 200,
            "bytes": 13,
            "duration": 1.234567,
            "referer": "http://r/",
            "user_agent": "curl/8",
        }

    def test_json_shows_what_is_missing_as_null(self) -> None:
        shown = json.loads(line("json", client=None, headers=[]))
        assert (shown["client"], shown["referer"], shown["user_agent"]) == (None, None, None)

    def test_colours_mark_the_class_of_the_status(self) -> None:
        compiled = compile_format("%(s)s %(status_code)s", colors=True)
        assert compiled.line(Finished(scope(), status=404)) == (
            "\x1b[31m404\x1b[0m \x1b[31m404 Not Found\x1b[0m"
        )


class TestNeeds:
    @pytest.mark.parametrize(
        ("format", "needs"),
        [
            ("default", {"scope", "status"}),
            ("common", {"scope", "status", "sent"}),
            ("json", {"scope", "status", "sent", "duration"}),
            ("%(D)s", {"duration"}),
            ("%({etag}o)s", {"response_headers"}),
            ("%({x.status}o)s x.scope %(p)s", {"response_headers"}),
            ("%(t)s", set()),
        ],
    )
    def test_a_format_says_what_it_reads(self, format: str, needs: set[str]) -> None:
        assert compile_format(format).needs == needs

    def test_nothing_else_is_read(self) -> None:
        class Bare:
            status = 204

        assert compile_format("%(s)s").line(Bare()) == "204"  # type: ignore[arg-type]


class TestMistakes:
    @pytest.mark.parametrize(
        ("format", "told"),
        [
            ("%(statusx)s", "the nearest is %(status)s"),
            ("%(clientaddr)s", "the nearest is %(client_addr)s"),
            ("%({host})s", "there is no atom %({host})s"),
            ("%(header{host}i)s", "there is no atom"),
            ("%h %l", "write %(name)s"),
            ("50% of %(h)s", "%% for a percent sign"),
            ("%(h", "write %(name)s"),
            ("%(h)d", "use %(h)s"),
            ("%(status)f", "use %(status)s or %(status)d"),
            ("%(U)r", "use %(U)s"),
            ("combine-d", "common, combined"),
            ("", "holds no atom"),
        ],
    )
    def test_a_wrong_format_is_refused_with_the_remedy(self, format: str, told: str) -> None:
        with pytest.raises(ConfigError) as caught:
            compile_format(format)
        assert told in str(caught.value)
        assert caught.value.option == "access_log_format"

    def test_a_literal_never_becomes_code(self) -> None:
        literal = "{x.scope} '\" \\ {{}} __import__('os') \t"
        assert line(literal + "%(m)s") == literal + "GET"


HOSTILE = 'x\x1b[31m\r\nINFO: forged "\\\x00\x7f\x9b é\u2028'


class TestHostilePeers:
    @pytest.mark.parametrize("format", [*PRESETS, "%(U)s %(Uq)s %(q)s %(m)s %({x}i)s %(h)s"])
    def test_no_control_character_of_a_peer_reaches_the_log(self, format: str) -> None:
        raw = HOSTILE.encode()
        text = line(
            format,
            client=(HOSTILE, HOSTILE),
            method=HOSTILE,
            path=HOSTILE,
            raw_path=raw,
            query_string=raw,
            http_version=HOSTILE,
            scheme=HOSTILE,
            headers=[(b"user-agent", raw), (b"referer", raw), (b"x", raw), (b"authorization", raw)],
        )
        assert text.isascii()
        assert text.isprintable()

    def test_a_quote_cannot_end_its_field(self) -> None:
        text = line('"%(a)s" %(a)s', headers=[(b"user-agent", b'a" 200 "b\\')])
        assert text == r'"a\" 200 \"b\\" a\" 200 \"b\\'

    def test_what_peers_send_never_grows_a_table_without_bound(self) -> None:
        compiled = compile_format("%(h)s %(status_code)s")
        for n in range(3000):
            compiled.line(Finished(scope(client=(f"10.0.{n}.1", 1)), status=n))
            compiled.line(Finished(scope(client=("x" * 64 + str(n), 1))))
        names = compiled.line.__globals__
        assert 500 < len(names["hosts"]) <= 1024
        assert 500 < len(names["status_lines"]) <= 1024
        assert not any(host.startswith("x") for host in names["hosts"])

    def test_a_cut_never_leaves_half_an_escape(self) -> None:
        assert line('"%(a).3s"', headers=[(b"user-agent", b'ab"cd')]) == r'"ab\""'

    def test_neighbouring_quotes_each_belong_to_one_value(self) -> None:
        assert line('"%(m)s"%(m)s"%(m)s"') == '"GET"GET"GET"'

    @given(st.binary(max_size=40), st.text(max_size=40))
    def test_whatever_the_values_a_handwritten_json_line_stays_one_object(
        self, raw: bytes, path: str
    ) -> None:
        text = line(
            '{"a": "%(a)s", "p": "%(U)s", "r": "%(r)s"}',
            path=path,
            raw_path=raw or b"/",
            headers=[(b"user-agent", raw)],
        )
        shown = json.loads(text)
        assert "\n" not in text
        assert shown["a"] == raw.decode("latin-1")
        assert shown["p"] == path


class Loop:
    """Keeps what is to be called at the end of the iteration."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.calls.append(callback)

    def run(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class TestWriting:
    def test_the_lines_of_one_iteration_leave_in_one_write(self) -> None:
        loop, written = Loop(), list[str]()
        log = AccessLog("%(m)s", written.append, loop.call_soon)
        for _ in range(3):
            log.log(Finished(scope()))
        assert (written, len(loop.calls)) == ([], 1)
        loop.run()
        log.log(Finished(scope()))
        loop.run()
        assert written == ["GET\nGET\nGET\n", "GET\n"]

    def test_flush_writes_what_waits_and_nothing_twice(self) -> None:
        loop, written = Loop(), list[str]()
        log = AccessLog("%(m)s", written.append, loop.call_soon)
        log.log(Finished(scope()))
        log.flush()
        loop.run()
        assert written == ["GET\n"]

    def test_many_lines_are_written_before_the_iteration_ends(self) -> None:
        loop, written = Loop(), list[str]()
        log = AccessLog("%(q)s", written.append, loop.call_soon)
        for _ in range(100):
            log.log(Finished(scope(query_string=b"x" * 1023)))
        assert [len(text) for text in written] == [65 * 1024]
        loop.run()
        assert sum(map(len, written)) == 100 * 1024

    @pytest.mark.parametrize("error", [OSError(28, "No space left"), ValueError("closed file")])
    def test_a_write_error_is_counted_and_reported_once(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        def write(text: str) -> None:
            raise error

        loop = Loop()
        log = AccessLog("%(m)s", write, loop.call_soon)
        for _ in range(3):
            log.log(Finished(scope()))
            log.log(Finished(scope()))
            loop.run()
        assert log.lost == 6
        assert [record.name for record in caplog.records] == ["omnicorn"]
        assert str(error) in caplog.text

    def test_a_scope_that_the_application_spoilt_costs_its_own_line_only(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        loop, written = Loop(), list[str]()
        log = AccessLog("%(U)s", written.append, loop.call_soon)
        for spoilt in ({}, {"path": None}, {"path": b"/"}):
            log.log(Finished(spoilt))
        log.log(Finished(scope(path="/")))
        loop.run()
        assert (written, log.lost, len(caplog.records)) == (["/\n"], 3, 1)

    def test_a_stream_with_a_descriptor_gets_whole_batches(self, tmp_path: Path) -> None:
        path = tmp_path / "access.log"
        with path.open("w", encoding="ascii") as stream:
            write = stream_writer(stream)
            write("one\ntwo\n")
            assert path.read_text(encoding="utf-8") == "one\ntwo\n"
            write("é" * 100_000)
        assert path.read_text(encoding="utf-8") == "one\ntwo\n" + "é" * 100_000

    def test_a_closed_stream_is_an_error_whatever_became_of_its_descriptor(
        self, tmp_path: Path
    ) -> None:
        stream = (tmp_path / "access.log").open("w", encoding="ascii")
        write = stream_writer(stream)
        stream.close()
        with (tmp_path / "other").open("w", encoding="ascii"), pytest.raises(ValueError):
            write("line\n")
        assert (tmp_path / "other").read_bytes() == b""

    def test_a_stream_without_a_descriptor_is_written_and_flushed(self) -> None:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw)
        stream_writer(stream)("line\n")
        assert raw.getvalue() == b"line\n"


class TestLogging:
    @pytest.fixture
    def logger(self, monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
        logger = logging.Logger("omnicorn.access")
        self.records: list[logging.LogRecord] = []
        handler = logging.Handler()
        monkeypatch.setattr(handler, "emit", self.records.append)
        logger.addHandler(handler)
        return logger

    @pytest.mark.parametrize("format", ["default", "uvicorn", PRESETS["default"]])
    def test_each_exchange_is_one_record_without_the_prefix(
        self, logger: logging.Logger, format: str
    ) -> None:
        log = AccessLogger(format, logger)
        log.log(Finished(scope(raw_path=b"/100%25")))
        log.flush()
        (record,) = self.records
        assert record.levelno == logging.INFO
        assert record.getMessage() == '192.0.2.7:4711 - "GET /100%25?q=1 HTTP/1.1" 200 OK'

    def test_a_logger_above_info_formats_nothing(self, logger: logging.Logger) -> None:
        logger.setLevel(logging.WARNING)
        log = AccessLogger("%(U)s", logger)
        log.log(Finished({}))
        assert (self.records, log.lost) == ([], 0)

    def test_a_filter_that_raises_is_counted_and_reported(
        self, logger: logging.Logger, caplog: pytest.LogCaptureFixture
    ) -> None:
        logger.addFilter(lambda record: bool(vars(record)["no_such_attribute"]))
        log = AccessLogger("common", logger)
        log.log(Finished(scope()))
        log.log(Finished(scope()))
        assert log.lost == 2
        assert len(caplog.records) == 1
        assert "no_such_attribute" in caplog.text
