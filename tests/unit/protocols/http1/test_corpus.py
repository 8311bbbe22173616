"""Every case of ``tests/corpus/http1``: what it must give, however the network cuts it.

``NAME.http`` holds the bytes of one connection, ``NAME.toml`` what must come of them:

* valid: ``[[request]]`` for each request in order (text is Latin-1, one character a byte;
  ``path`` alone is Unicode), and ``closes``, whether the connection ends by itself.
* invalid: ``status`` of the refusal (0: none is sent), ``served``, the requests answered with
  200 before it, ``begun``, the requests that the application saw (``served`` if absent).
* both: ``why``, and ``limits``, ``eof`` (the peer ends).

Each case is fed whole, byte by byte, and in two segments cut at every offset (at a sample for
long ones, and a smaller one outside the long suite); with a memory that has never seen it and
one that has; answered within the upcall and after ``receive`` has returned. All must agree in
everything that anybody can see.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from omnicorn.http.limits import Limits
from omnicorn.protocols.http1 import RequestParser
from omnicorn.protocols.http1.states import CLOSED

CORPUS = Path(__file__).parents[3] / "corpus" / "http1"
NOW, LATER = 1, 2

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n%b\r\nok"
OK_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n%b\r\n"


def cases(kind: str) -> list[Any]:
    found = []
    for path in sorted((CORPUS / kind).glob("*.toml")):
        want = tomllib.loads(path.read_text("utf-8"))
        data = path.with_suffix(".http").read_bytes()
        found.append(pytest.param(data, want, id=f"{kind}/{path.stem}"))
    return found


def all_cases() -> list[Any]:
    return cases("valid") + cases("invalid")


def raw(text: str) -> bytes:
    return text.encode("latin-1")


def offsets(data: bytes, thorough: bool) -> list[int]:
    """Where to cut: everywhere, or (long data) near line ends, near the end, and here and there."""
    short, places, last = (400, 60, 20) if thorough else (40, 12, 8)
    if len(data) <= short:
        return list(range(1, len(data)))
    near = {i + d for i, byte in enumerate(data[:200]) if byte == 10 for d in (-1, 0, 1, 2)}
    near |= {len(data) - d for d in range(1, last)}
    near |= set(range(1, len(data), max(1, len(data) // places)))
    return sorted(cut for cut in near if 0 < cut < len(data))


def outcome_of(connect: Any, segments: list[bytes], want: dict[str, Any], how: int) -> Any:
    recorder = connect(how, limits=Limits(**want.get("limits", {})))
    return run(recorder, segments, want)


def run(recorder: Any, segments: list[bytes], want: dict[str, Any]) -> Any:
    recorder.feed(*segments)
    if want.get("eof"):
        recorder.eof()
    return recorder.outcome()


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def test_the_corpus_is_complete() -> None:
    names = {path.stem for path in CORPUS.glob("*/*.http")}
    assert names == {path.stem for path in CORPUS.glob("*/*.toml")}
    assert len(cases("valid")) >= 60
    assert len(cases("invalid")) >= 120


def test_the_corpus_kept_its_line_ends() -> None:
    """A checkout that turns CRLF into LF would make every valid case an invalid one."""
    assert b"\r\n" in (CORPUS / "valid" / "get.http").read_bytes()
    assert b"\r" not in (CORPUS / "invalid" / "field-all-lf.http").read_bytes()


@pytest.mark.parametrize(("data", "want"), cases("valid"))
def test_a_valid_case_gives_its_requests(connect: Any, data: bytes, want: dict[str, Any]) -> None:
    for segments in ([data], bytewise(data)):
        recorder = connect(NOW, limits=Limits(**want.get("limits", {})))
        got = run(recorder, segments, want)
        assert recorder.engine.error is None
        assert got["requests"] == [expected_request(request) for request in want["request"]]
        assert got["wire"] == b"".join(expected_answer(request) for request in want["request"])
        assert got["closing"] is want.get("closes", False)
        assert recorder.reading or got["closing"]


@pytest.mark.parametrize(("data", "want"), cases("invalid"))
def test_an_invalid_case_is_refused(connect: Any, data: bytes, want: dict[str, Any]) -> None:
    served, status = want["served"], want["status"]
    for segments in ([data], bytewise(data)):
        recorder = connect(NOW, limits=Limits(**want.get("limits", {})))
        got = run(recorder, segments, want)
        assert recorder.engine.error is not None
        assert got["wire"].count(b"HTTP/1.1 200 OK\r\n") == served
        assert len(recorder.requests) == want.get("begun", served)
        assert got["refusal"] == (status or None)
        assert got["closing"] is True
        assert recorder.engine.remote == CLOSED
        unfinished = [request for request in recorder.requests if not request.over]
        assert [request.resets for request in unfinished] == [[recorder.engine.error]] * len(
            unfinished
        )
        assert not any(request.ended for request in unfinished)
        if status:
            refusal = bytes(recorder.wire[recorder.wire.rindex(b"HTTP/1.1 ") :])
            head, _, content = refusal.partition(b"\r\n\r\n")
            assert head.endswith(b"\r\nconnection: close")
            if want.get("no_content"):
                assert content == b""
            else:
                assert b"\r\ncontent-length: %d\r\n" % len(content) in head
        # Nothing of the peer's comes back: no injection into pages or logs.
        wire = bytes(recorder.wire)
        recorder.feed(b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n")
        assert bytes(recorder.wire) == wire
        assert len(recorder.requests) == want.get("begun", served)


@pytest.mark.parametrize(("data", "want"), all_cases())
def test_how_the_network_cuts_it_changes_nothing(
    connect: Any, data: bytes, want: dict[str, Any]
) -> None:
    nothing_changes(connect, data, want, offsets(data, thorough=False))


@pytest.mark.slow  # twenty-five thousand cuts, of which the quick suite tries a sample
@pytest.mark.parametrize(("data", "want"), all_cases())
def test_wherever_the_network_cuts_it_nothing_changes(
    connect: Any, data: bytes, want: dict[str, Any]
) -> None:
    nothing_changes(connect, data, want, offsets(data, thorough=True))


def nothing_changes(connect: Any, data: bytes, want: dict[str, Any], at: list[int]) -> None:
    whole = outcome_of(connect, [data], want, NOW)
    assert outcome_of(connect, bytewise(data), want, NOW) == whole
    for offset in at:
        cut = outcome_of(connect, [data[:offset], data[offset:]], want, NOW)
        assert cut == whole, f"cut at {offset}: {data[:offset][-20:]!r} | {data[offset:][:20]!r}"


@pytest.mark.parametrize(("data", "want"), all_cases())
def test_an_answer_that_comes_later_changes_nothing(
    connect: Any, data: bytes, want: dict[str, Any]
) -> None:
    whole = outcome_of(connect, [data], want, NOW)
    assert outcome_of(connect, [data], want, LATER) == whole
    assert outcome_of(connect, bytewise(data), want, LATER) == whole
    for offset in offsets(data, thorough=False)[:: max(1, len(data) // 40)]:
        assert outcome_of(connect, [data[:offset], data[offset:]], want, LATER) == whole


@pytest.mark.parametrize(("data", "want"), all_cases())
def test_what_the_parser_remembers_changes_nothing(
    connect: Any, data: bytes, want: dict[str, Any]
) -> None:
    """Rule 2 of `requests`: identical bytes mean identical results, warm or cold."""
    parser = RequestParser(Limits(**want.get("limits", {})))
    first, *others = (run(connect(NOW, parser=parser), [data], want) for _ in range(4))
    assert others == [first] * 3


def test_one_memory_for_the_whole_corpus_changes_nothing(connect: Any) -> None:
    """What one connection has said never shapes what another one gets."""
    shared = RequestParser()
    for _ in range(2):
        for case in all_cases():
            data, want = case.values
            if "limits" in want:
                continue
            warm = run(connect(NOW, parser=shared), [data], want)
            assert warm == run(connect(NOW), [data], want), case.id


def expected_request(want: dict[str, Any]) -> dict[str, Any]:
    headers = tuple((raw(name), raw(value)) for name, value in want.get("headers", []))
    fields = dict(headers)
    length = fields.get(b"content-length", b"0")
    has_body = b"transfer-encoding" in fields or int(length) > 0
    upgrade = want.get("upgrade")
    return {
        "body": raw(want.get("body", "")),
        "ended": True,
        "expects_continue": want.get("expects_continue", False),
        "fields": fields,
        "has_body": has_body,
        "headers": headers,
        "keep_alive": want.get("keep_alive", True),
        "method": want["method"],
        "path": want["path"],
        "query": raw(want.get("query", "")),
        "raw_path": raw(want.get("raw_path", want["path"])),
        "resets": 0,
        "trailers": want.get("trailers", False),
        "upgrade": None if upgrade is None else raw(upgrade),
        "version": want.get("version", "1.1"),
    }


def expected_answer(want: dict[str, Any]) -> bytes:
    connection = b""
    if not want.get("keep_alive", True):
        connection = b"connection: close\r\n"
    elif want.get("version") == "1.0":
        connection = b"connection: keep-alive\r\n"
    return (OK_HEAD if want["method"] == "HEAD" else OK) % connection
