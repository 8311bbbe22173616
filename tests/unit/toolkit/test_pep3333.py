from __future__ import annotations

import gzip
import io
import os
import sys
import tempfile
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wsgi_apps import Environ, Response, Start, answer, answer_file, http_scope

from omnicorn.toolkit import pep3333
from omnicorn.toolkit.pep3333 import (
    DuplicateHeaderLimitExceeded,
    FilePart,
    FileWrapper,
    InputStream,
    WsgiResponse,
    build_environ,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from omnicorn.toolkit.pep3333 import Head


class Recorder:
    """A sink that keeps what it takes."""

    def __init__(self, sends_files: bool = False, room: int = sys.maxsize) -> None:
        self.heads: list[Head] = []
        self.blocks: list[bytes] = []
        self.parts: list[FilePart] = []
        self.ended = False
        self._sends_files = sends_files
        self._room = room

    @property
    def status(self) -> int:
        return self.heads[0][0]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return self.heads[0][1]

    def send(self, head: Head | None, blocks: Sequence[bytes], end: bool) -> None:
        self._take_head(head)
        for block in blocks:
            assert block
            if len(self.blocks) == self._room:
                raise ConnectionResetError("the peer is gone")
            self.blocks.append(block)
        self.ended = end

    def send_file(self, head: Head | None, part: FilePart) -> bool:
        if self._sends_files:
            self._take_head(head)
            self.parts.append(part)
            self.ended = True
        return self._sends_files

    def _take_head(self, head: Head | None) -> None:
        assert not self.ended
        assert (head is None) is bool(self.heads)
        if head is not None:
            self.heads.append(head)


def respond(app: Any, sink: Recorder | None = None, method: str = "GET") -> Recorder:
    """Run an application, and send what it leaves to be sent."""
    sink = sink or Recorder()
    rest = WsgiResponse(sink, method).run(app, {"wsgi.file_wrapper": FileWrapper})
    if rest is not None:
        sink.send(*rest, True)
    return sink


def environ_of(**changes: Any) -> Environ:
    """What an application is told about a request."""
    return build_environ(http_scope(**changes), None)


# ---------------------------------------------------------------------------- environ


def test_the_asterisk_of_options_is_no_path() -> None:
    environ = environ_of(method="OPTIONS", path="*", raw_path=b"*", root_path="/root")
    assert (environ["PATH_INFO"], environ["REQUEST_URI"]) == ("", "*")


@pytest.mark.parametrize("name", [b"transfer-encoding", b"Transfer-Encoding"])
def test_a_transfer_coding_has_been_removed(name: bytes) -> None:
    assert "HTTP_TRANSFER_ENCODING" not in environ_of(headers=[(name, b"chunked")])


def test_a_request_becomes_an_environ() -> None:
    environ = environ_of(
        method="POST",
        path="/a b",
        raw_path=b"/a%20b",
        query_string=b"x=%20",
        headers=[(b"host", b"example.com"), (b"content-type", b"text/plain")],
    )

    assert environ["REQUEST_METHOD"] == "POST"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/a b"
    assert environ["QUERY_STRING"] == "x=%20"
    assert environ["REQUEST_URI"] == "/a%20b?x=%20"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["SERVER_NAME"] == "example.com"
    assert environ["SERVER_PORT"] == "8000"
    assert environ["REMOTE_ADDR"] == "203.0.113.7"
    assert environ["REMOTE_PORT"] == "40000"
    assert environ["HTTP_HOST"] == "example.com"
    assert environ["CONTENT_TYPE"] == "text/plain"
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "CONTENT_LENGTH" not in environ
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["wsgi.multithread"] is True
    assert environ["wsgi.multiprocess"] is True
    assert environ["wsgi.run_once"] is False
    assert environ["wsgi.errors"] is sys.stderr
    assert environ["wsgi.file_wrapper"] is FileWrapper


@pytest.mark.parametrize(
    ("root", "path", "script_name", "path_info"),
    [
        ("/base", "/base/foo", "/base", "/foo"),
        ("/base", "/base", "/base", ""),
        ("/base", "/basement", "/base", "/basement"),
        ("/base/", "/base/foo", "/base", "/foo"),
        ("/", "/foo", "", "/foo"),
        ("", "/foo", "", "/foo"),
        ("/base", "/foo", "/base", "/foo"),
    ],
)
def test_the_root_path_is_stripped_only_at_a_boundary(
    root: str, path: str, script_name: str, path_info: str
) -> None:
    environ = environ_of(root_path=root, path=path)

    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script_name, path_info)


def test_paths_are_bytes_as_unicode() -> None:
    environ = environ_of(root_path="/ä", path="/ä/中")

    assert environ["SCRIPT_NAME"].encode("latin-1") == "/ä".encode()
    assert environ["PATH_INFO"].encode("latin-1") == "/中".encode()


def test_the_bytes_of_a_query_are_kept() -> None:
    assert environ_of(query_string=b"q=\xc3\xa4\xff")["QUERY_STRING"] == "q=\xc3\xa4\xff"


def test_the_bytes_of_a_header_are_kept() -> None:
    assert environ_of(headers=[(b"x-name", b"\xc3\xa4\xff")])["HTTP_X_NAME"] == "\xc3\xa4\xff"


def test_names_in_upper_case_are_understood() -> None:
    environ = environ_of(headers=[(b"Content-Length", b"3"), (b"CONTENT-TYPE", b"a/b")])

    assert environ["CONTENT_LENGTH"] == "3"
    assert environ["CONTENT_TYPE"] == "a/b"
    assert not [variable for variable in environ if variable.startswith("HTTP_")]


def test_repeated_headers_are_joined_with_a_comma_and_cookies_with_a_semicolon() -> None:
    environ = environ_of(
        headers=[(b"x-a", b"1"), (b"cookie", b"a=1"), (b"x-a", b"2"), (b"cookie", b"b=2")] * 2
    )

    assert environ["HTTP_X_A"] == "1,2,1,2"
    assert environ["HTTP_COOKIE"] == "a=1; b=2; a=1; b=2"


@pytest.mark.parametrize("name", [b"x_real-ip", b"x_real_ip", b"X_Real_IP", b"content_length"])
def test_a_name_with_an_underscore_never_passes_for_one_with_a_hyphen(name: bytes) -> None:
    environ = environ_of(headers=[(name, b"6.6.6.6"), (b"x-real-ip", b"192.0.2.1")])

    assert environ["HTTP_X_REAL_IP"] == "192.0.2.1"
    assert "CONTENT_LENGTH" not in environ


def test_what_is_remembered_of_header_names_is_bounded() -> None:

    environ_of(headers=[(b"x-%d" % number, b"") for number in range(3000)])
    environ = environ_of(headers=[(b"y" * 100000, b"1"), (b"x-2999", b"2")])

    assert len(pep3333._variables) <= 1024
    assert all(len(name) <= 64 for name in pep3333._variables)
    assert environ["HTTP_X_2999"] == "2"


@pytest.mark.parametrize("server", [None, ()])
def test_an_unknown_server_is_localhost(server: object) -> None:
    environ = environ_of(server=server)

    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "80")


def test_a_unix_server_is_its_path_and_no_port() -> None:
    environ = environ_of(server=("/run/app.sock", None))

    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("/run/app.sock", "0")


def test_an_unknown_client_is_left_out() -> None:
    assert not {"REMOTE_ADDR", "REMOTE_PORT"} & set(environ_of(client=None))


def test_optional_keys_of_a_scope_may_be_missing() -> None:
    scope: Any = {
        "type": "http",
        "http_version": "2",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [],
    }
    environ = build_environ(scope, None)

    assert environ["SERVER_PROTOCOL"] == "HTTP/2"
    assert environ["wsgi.url_scheme"] == "http"
    assert "REQUEST_URI" not in environ


def test_more_duplicates_than_allowed_are_an_error_that_names_them() -> None:
    scope = http_scope(headers=[(b"x-a", b"")] * 3)

    assert build_environ(scope, None, 3)["HTTP_X_A"] == ",,"
    with pytest.raises(DuplicateHeaderLimitExceeded, match="3 headers for HTTP_X_A"):
        build_environ(scope, None, 2)


# ---------------------------------------------------------------------------- wsgi.input


def stream(*pieces: bytes) -> InputStream:
    left = [*pieces, b""]
    return InputStream(lambda: left.pop(0))


def test_input_is_read_across_pieces() -> None:
    body = stream(b"abc", b"d", b"efgh")

    assert body.read(2) == b"ab"
    assert body.read(4) == b"cdef"
    assert body.read() == b"gh"
    assert body.read() == body.read(5) == body.readline() == b""


def test_reading_nothing_waits_for_nothing() -> None:
    def pull() -> bytes:
        raise AssertionError("pulled")

    body = InputStream(pull)

    assert body.read(0) == body.readline(0) == body.read1(0) == b""


def test_a_whole_piece_is_passed_on_without_copying() -> None:
    data = b"x" * 1000

    assert stream(data).read(1000) is data
    assert stream(data).read1() is data


def test_read1_waits_for_no_more_than_one_piece() -> None:
    body = stream(b"abc", b"d")

    assert body.read1(2) == b"ab"
    assert body.read1() == b"c"
    assert body.read1(100) == b"d"
    assert body.read1() == b""


def test_input_is_pulled_only_when_needed() -> None:
    pulled: list[int] = []

    def pull() -> bytes:
        pulled.append(1)
        return b"de"

    body = InputStream(pull, b"abc")

    assert body.read(3) == b"abc"
    assert pulled == []
    assert body.read(1) == b"d"
    assert pulled == [1]


def test_an_error_of_the_source_comes_out_and_loses_nothing() -> None:
    steps: list[Any] = [b"ab", OSError("gone"), b"c", b""]

    def pull() -> bytes:
        step = steps.pop(0)
        if isinstance(step, OSError):
            raise step
        return bytes(step)

    body = InputStream(pull)

    assert body.read(1) == b"a"
    assert body.read(1) == b"b"
    with pytest.raises(OSError, match="gone"):
        body.read(1)
    assert body.read() == b"c"


def test_a_stream_can_be_wrapped_and_iterated() -> None:
    assert io.BufferedReader(stream(b"a\nb", b"c\n"), 4).readlines() == [b"a\n", b"bc\n"]
    assert list(stream(b"a\nb", b"\n\n", b"c")) == [b"a\n", b"b\n", b"\n", b"c"]
    assert stream(b"a\nb\n", b"c\n").readlines(1) == [b"a\n"]


@given(
    pieces=st.lists(st.text("ab\n", min_size=1, max_size=6).map(str.encode), max_size=6),
    calls=st.lists(
        st.tuples(
            st.sampled_from(["read", "readline", "readlines"]), st.none() | st.integers(-1, 9)
        )
    ),
)
def test_input_reads_as_a_file_does(
    pieces: list[bytes], calls: list[tuple[str, int | None]]
) -> None:
    ours = stream(*pieces)
    file = io.BufferedReader(io.BytesIO(b"".join(pieces)))  # type: ignore[arg-type, unused-ignore]

    for method, size in calls:
        assert getattr(ours, method)(size) == getattr(file, method)(size)
    assert ours.read() == file.read()


# ---------------------------------------------------------------------------- the response


@pytest.mark.parametrize("status", ["200", "200 ", "200 OK", "200 Schön", "200 a b"])
def test_a_reason_is_not_needed(status: str) -> None:
    assert respond(answer([], status=status)).status == 200


def test_header_values_are_latin_1() -> None:
    assert respond(answer([], [("X-Name", "\xe4\xff")])).headers == [(b"x-name", b"\xe4\xff")]


def test_headers_may_be_lists() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [["X-A", "1"]])
        return []

    assert respond(app).headers == [(b"x-a", b"1")]


@pytest.mark.parametrize(
    ("status", "headers", "error", "message"),
    [
        (200, [], TypeError, "a status is a str such as '200 OK', not 200"),
        (b"200 OK", [], TypeError, "a status is a str"),
        ("OK", [], ValueError, "a status is three digits and a reason"),
        ("2000", [], ValueError, "a status is three digits"),
        ("٢٠٠ OK", [], ValueError, "a status is three digits"),
        ("200 OK", [("X-A", b"1")], TypeError, "a header is a pair of str"),
        ("200 OK", [(b"X-A", "1")], TypeError, "a header is a pair of str"),
        ("200 OK", [("X-A",)], TypeError, "a header is a pair of str"),
        ("200 OK", [None], TypeError, "a header is a pair of str"),
        ("200 OK", [("X-A", "1\r\nSet-Cookie: b")], ValueError, "line break or NUL"),
        ("200 OK", [("X\n", "1")], ValueError, "line break or NUL"),
        ("200 OK", [("X-A", "中")], ValueError, "is not latin-1"),
        ("200 OK", [("Connection", "close")], ValueError, "for the server alone"),
        ("200 OK", [("Transfer-Encoding", "chunked")], ValueError, "for the server alone"),
        ("200 OK", [("Content-Length", "-1")], ValueError, "a number of bytes"),
        ("200 OK", [("Content-Length", "ten")], ValueError, "a number of bytes"),
    ],
)
def test_a_malformed_head_is_refused_where_it_is_given(
    status: Any, headers: Any, error: type[Exception], message: str
) -> None:
    raised: list[Exception] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        try:
            start_response(status, headers)
        except Exception as exc:
            raised.append(exc)
            start_response("500 Oops", [])  # nothing was begun, so this is the first call
        return []

    assert respond(app).status == 500
    assert type(raised[0]) is error
    assert message in str(raised[0])


def test_empty_blocks_do_not_send_the_head() -> None:
    sink = Recorder()
    heads: list[int] = []

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b""
        heads.append(len(sink.heads))
        start_response("404 Not Found", [], (ValueError, ValueError(), None))
        yield b""
        heads.append(len(sink.heads))
        yield b"x"
        heads.append(len(sink.heads))

    respond(app, sink)

    assert heads == [0, 0, 1]
    assert sink.status == 404


def test_blocks_are_not_buffered() -> None:
    sink = Recorder()
    taken: list[int] = []

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        for number in range(5):
            yield b"%d" % number
            taken.append(len(sink.blocks))

    respond(app, sink)

    assert taken == [1, 2, 3, 4, 5]
    assert sink.ended


@pytest.mark.parametrize("make", [list, tuple])
def test_a_list_is_handed_back_whole(make: Any) -> None:
    sink = Recorder()
    app = answer(make([b"a", b"", b"b"]), [("X-A", "1")])

    assert WsgiResponse(sink).run(app, {}) == ((200, [(b"x-a", b"1")]), [b"a", b"b"])
    assert sink.heads == []


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned None, not an iterable of bytes"),
        ("text", "bytes, not 't'; encode it"),
        (["text"], "bytes, not 'text'; encode it"),
        (b"text", r"bytes, not 116; return \[b'...'\], a list of blocks"),
        (5, "returned 5, not an iterable"),
        ([None], "bytes, not None"),
    ],
)
def test_what_is_no_iterable_of_bytes_is_explained(returned: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        respond(answer(returned))


def test_other_kinds_of_bytes_are_sent_too() -> None:
    blocks = [bytearray(b"a"), memoryview(b"b")]

    assert respond(answer(blocks)).blocks == [b"a", b"b"]
    assert respond(answer(iter(blocks))).blocks == [b"a", b"b"]


def test_a_response_that_was_never_started_is_explained() -> None:
    for blocks in ([b"x"], iter([b"x"]), [], iter([])):

        def app(environ: Environ, start_response: Start, blocks: Any = blocks) -> Any:
            return blocks

        with pytest.raises(RuntimeError, match="did not call start_response"):
            respond(app)


def test_start_response_may_be_called_by_the_first_block() -> None:
    class Late:
        def __init__(self, start_response: Start) -> None:
            self.start_response = start_response

        def __iter__(self) -> Iterator[bytes]:
            self.start_response("202 Accepted", [])
            yield b"x"

    assert respond(lambda environ, start_response: Late(start_response)).status == 202


# ---------------------------------------------------------------------------- exc_info


def test_a_second_start_response_needs_exc_info() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return []

    with pytest.raises(ValueError, match="a second time without exc_info"):
        respond(app)


def test_exc_info_replaces_headers_that_were_not_sent() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "5"), ("X-A", "1")])
        try:
            raise LookupError
        except LookupError:
            start_response("500 Oops", [("X-B", "2")], sys.exc_info())
        return [b"a long message"]

    sink = respond(app)

    assert (sink.status, sink.headers) == (500, [(b"x-b", b"2")])
    assert sink.blocks == [b"a long message"]


def test_exc_info_is_raised_again_once_headers_were_sent() -> None:
    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"x"
        try:
            raise LookupError("from the application")
        except LookupError:
            start_response("500 Oops", [], sys.exc_info())
        raise AssertionError("went on")

    with pytest.raises(LookupError, match="from the application") as caught:
        respond(app)
    assert [frame.name for frame in traceback.extract_tb(caught.tb)][-1] == "app"


# ---------------------------------------------------------------------------- Content-Length


@pytest.mark.parametrize("make", [list, iter])
def test_content_is_cut_at_the_announced_length(make: Any) -> None:
    sink = respond(answer(make([b"0123", b"45", b"6789", b"x"]), [("Content-Length", "8")]))

    assert sink.blocks == [b"0123", b"45", b"67"]
    assert sink.ended


def test_iteration_stops_at_the_announced_length() -> None:
    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "4")])
        yield b"0123"
        raise AssertionError("asked for more")

    assert respond(app).blocks == [b"0123"]


def test_the_last_block_does_not_wait_for_the_iterable_to_end() -> None:
    """An application that is slow to end, once all was said, keeps nobody waiting."""
    sink = Recorder()

    class Slow(Response):
        def close(self) -> None:
            assert sink.ended
            super().close()

    response = Slow(iter([b"0123"]))
    respond(answer(response, [("Content-Length", "4")]), sink)

    assert response.closed == 1


@pytest.mark.parametrize("make", [list, iter])
def test_content_past_a_length_of_zero_is_not_sent(make: Any) -> None:
    assert respond(answer(make([b"x"]), [("Content-Length", "0")])).blocks == []


@pytest.mark.parametrize("make", [list, iter])
def test_less_than_announced_is_an_error(make: Any) -> None:
    with pytest.raises(RuntimeError, match=r"announced Content-Length 5, but .* has 3 bytes"):
        respond(answer(make([b"abc"]), [("Content-Length", "5")]))


@pytest.mark.parametrize("make", [list, iter])
def test_a_response_that_has_no_content_may_announce_some(make: Any) -> None:
    headers = [("Content-Length", "5")]

    assert respond(answer(make([]), headers), method="HEAD").headers == [(b"content-length", b"5")]
    assert respond(answer(make([]), headers, "304 Not Modified")).status == 304


def test_the_content_of_a_head_response_is_left_to_the_server() -> None:
    assert respond(answer([b"abc"]), method="HEAD").blocks == [b"abc"]


# ---------------------------------------------------------------------------- write()


def test_write_sends_at_once() -> None:
    sink = Recorder()
    taken: list[tuple[int, int]] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        write = start_response("200 OK", [])
        for block in (b"", b"a", b"b"):
            write(block)
            taken.append((len(sink.heads), len(sink.blocks)))
        return [b"c"]

    respond(app, sink)

    assert taken == [(0, 0), (1, 1), (1, 2)]
    assert sink.blocks == [b"a", b"b", b"c"]
    assert sink.ended


def test_write_past_the_announced_length_is_an_error() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        write = start_response("200 OK", [("Content-Length", "3")])
        write(b"ab")
        with pytest.raises(ValueError, match="past the announced Content-Length of 3"):
            write(b"cd")
        return []

    assert respond(app).blocks == [b"ab", b"c"]


def test_write_takes_bytes_alone() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [])("text")
        return []

    with pytest.raises(TypeError, match="encode it"):
        respond(app)


# ---------------------------------------------------------------------------- close()


def failing(error: Exception) -> Iterator[bytes]:
    yield b"x"
    raise error


def test_what_was_returned_is_closed_once() -> None:
    response = Response([b"a", b"b"])
    respond(answer(response))

    assert response.closed == 1


def test_it_is_closed_when_iterating_fails() -> None:
    response = Response(failing(LookupError("broken")))
    with pytest.raises(LookupError, match="broken"):
        respond(answer(response))

    assert response.closed == 1


def test_it_is_closed_when_it_cannot_be_iterated() -> None:
    class Closes:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    returned = Closes()
    with pytest.raises(TypeError):
        respond(answer(returned))

    assert returned.closed == 1


def test_it_is_closed_when_the_sink_refuses_a_block() -> None:
    response = Response([b"a", b"b", b"c"])
    sink = Recorder(room=1)
    with pytest.raises(ConnectionResetError, match="the peer is gone"):
        respond(answer(response), sink)

    assert response.closed == 1
    assert sink.blocks == [b"a"]


def test_an_error_of_close_comes_out() -> None:
    class Broken(Response):
        def close(self) -> None:
            raise LookupError("not closed")

    with pytest.raises(LookupError, match="not closed"):
        respond(answer(Broken([b"a"])))


def test_a_generator_is_closed() -> None:
    closed: list[str] = []

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        try:
            start_response("200 OK", [("Content-Length", "1")])
            yield b"x"
            yield b"y"
        finally:
            closed.append("yes")

    respond(app)

    assert closed == ["yes"]


# ---------------------------------------------------------------------------- files


def blocks_of(file: Any) -> list[bytes]:
    """What is sent of a file that is not sent as such."""
    return respond(answer_file(file), Recorder(sends_files=True)).blocks


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def test_a_file_is_sent_as_it_is(path: Path) -> None:
    file = path.open("rb")
    number = file.fileno()
    sink = respond(answer_file(file), Recorder(sends_files=True))

    assert sink.headers == [(b"content-length", b"10")]
    assert sink.parts == [FilePart(number, 0, 10, str(path))]
    assert file.closed


def test_a_file_is_sent_from_its_position_and_to_the_announced_length(path: Path) -> None:
    file = path.open("rb")
    file.read(3)
    number = file.fileno()
    app = answer_file(file, [("Content-Length", "4")])
    sink = respond(app, Recorder(sends_files=True))

    assert sink.headers == [(b"content-length", b"4")]
    assert sink.parts == [FilePart(number, 3, 4, None)]


def test_a_file_that_was_deleted_has_no_path(path: Path) -> None:
    file = path.open("rb")
    number = file.fileno()
    path.unlink()
    sink = respond(answer_file(file), Recorder(sends_files=True))

    assert sink.parts == [FilePart(number, 0, 10, None)]


def test_a_file_that_was_closed_is_told_by_reading_it(path: Path) -> None:
    file = path.open("rb")
    file.close()

    with pytest.raises(ValueError, match="closed file"):
        respond(answer_file(file), Recorder(sends_files=True))


def test_only_a_whole_file_has_a_path(path: Path) -> None:
    file = path.open("rb")
    file.seek(3)
    cut = answer_file(path.open("rb"), [("Content-Length", "4")])

    for app in (answer_file(file), cut):
        assert [part.path for part in respond(app, Recorder(sends_files=True)).parts] == [None]


def test_another_file_at_the_same_path_is_not_sent_instead(path: Path) -> None:
    file = path.open("rb")
    path.unlink()
    path.write_bytes(b"other")

    assert respond(answer_file(file), Recorder(sends_files=True)).parts[0].path is None


def test_a_file_that_the_sink_cannot_send_is_read(path: Path) -> None:
    path.write_bytes(b"x" * 100000)
    file = path.open("rb")
    sink = respond(answer_file(file))

    assert [len(block) for block in sink.blocks] == [65536, 100000 - 65536]
    assert sink.headers == [(b"content-length", b"100000")]
    assert file.closed


def test_a_file_that_is_shorter_than_announced_is_an_error(path: Path) -> None:
    file = path.open("rb")
    with pytest.raises(RuntimeError, match=r"announced Content-Length 11, but .* has 10 bytes"):
        respond(answer_file(file, [("Content-Length", "11")]), Recorder(sends_files=True))
    assert file.closed


def test_an_empty_file_is_an_empty_response(path: Path) -> None:
    path.write_bytes(b"")
    sink = respond(answer_file(path.open("rb")), Recorder(sends_files=True))

    assert (sink.parts, sink.blocks, sink.ended) == ([], [], True)


def test_what_only_looks_like_a_file_is_read(path: Path) -> None:
    path.write_bytes(gzip.compress(b"unpacked"))

    class Upper(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size).upper()

    path2 = path.with_name("lower")
    path2.write_bytes(b"abc")
    packed = gzip.open(path)  # noqa: SIM115

    assert blocks_of(packed) == [b"unpacked"]
    assert blocks_of(io.BytesIO(b"bytes")) == [b"bytes"]
    assert blocks_of(Upper(path2)) == [b"ABC"]


def test_a_pipe_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"piped")
    os.close(writer)

    assert blocks_of(os.fdopen(reader, "rb")) == [b"piped"]


@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile])
def test_a_temporary_file_is_sent_by_its_descriptor(make: Any) -> None:
    file = make()
    file.write(b"temporary")
    file.seek(0)
    sink = respond(answer_file(file), Recorder(sends_files=True))

    assert [part.size for part in sink.parts] == [9]


def test_a_head_response_does_not_read_the_file(path: Path) -> None:
    file = path.open("rb")
    sink = respond(answer_file(file), Recorder(sends_files=True), method="HEAD")

    assert sink.headers == [(b"content-length", b"10")]
    assert (sink.parts, sink.blocks, sink.ended) == ([], [], True)
    assert file.closed
    unmodified = answer_file(path.open("rb"), status="304 X")
    assert respond(unmodified, Recorder(sends_files=True)).headers == []


def test_a_file_wrapper_needs_no_server() -> None:
    closed: list[str] = []

    class Lines:
        left: list[bytes]

        def __init__(self) -> None:
            self.left = [b"a", b"b", b""]

        def read(self, size: int) -> bytes:
            return self.left.pop(0)

    assert list(FileWrapper(Lines())) == [b"a", b"b"]
    FileWrapper(Lines()).close()
    file = Lines()
    file.close = lambda: closed.append("yes")  # type: ignore[attr-defined]
    FileWrapper(file, 1).close()
    assert closed == ["yes"]


def test_headers_that_come_again_are_checked_once_and_stay_as_they_are() -> None:
    for _ in range(3):
        response = WsgiResponse(Recorder())
        response.start_response("200 OK", [("X-One", "1"), ("X-ONE", "1"), ("x-one", "\xe9")])
        head = response._take_head()
        assert head == (200, [(b"x-one", b"1"), (b"x-one", b"1"), (b"x-one", b"\xe9")])


def test_what_is_remembered_of_headers_is_bounded() -> None:
    for number in range(3000):
        WsgiResponse(Recorder()).start_response("200 OK", [("X-Number", str(number))])
        WsgiResponse(Recorder()).start_response("200 OK", [("X-Long", "x" * number)])
    assert len(pep3333._pairs) <= 512
    assert all(len(name) + len(value) <= 128 for name, value in pep3333._pairs)
    for number in range(300):
        WsgiResponse(Recorder()).start_response(f"200 Reason {number}", [])
    assert len(pep3333._codes) <= 128


@pytest.mark.parametrize("pair", [["X-One", "1"], ("X-One", ["1"]), ("X-One", b"1"), ("X-One", 1)])
def test_headers_that_are_no_pairs_of_str_are_refused_each_time(pair: Any) -> None:
    start_response = WsgiResponse(Recorder()).start_response
    if pair == ["X-One", "1"]:  # the server need not be strict
        start_response("200 OK", [pair])
        return
    for _ in range(2):
        with pytest.raises(TypeError, match="a header is a pair of str"):
            start_response("200 OK", [pair])


@pytest.mark.parametrize("value", ["5", " 5 ", "0" * 30 + "5"])
def test_a_content_length_counts_however_it_is_written(value: str) -> None:
    sink = Recorder()
    response = WsgiResponse(sink)
    app = answer([b"hello, and more"], [("Content-Length", value)])
    assert response.run(app, {}) == (
        (200, [(b"content-length", value.encode())]),
        [b"hello"],
    )
