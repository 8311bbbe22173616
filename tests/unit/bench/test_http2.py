from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("hpack")

from bench import certificate, http2
from bench.cases import CHROME, UPLOAD, Request

if TYPE_CHECKING:
    import ssl

    from conftest import StreamPeer

PLAIN = Request(target="/a?b=c")


def answered(peer: StreamPeer, *frames: bytes) -> http2.Answer:
    """What the client makes of `frames`, sent on its first stream."""
    peer.answer = lambda stream: b"".join(frames)
    with http2.Client(peer.address) as client:
        return client.ask(PLAIN)


def head(*fields: tuple[str, str], flags: int = http2.END_HEADERS) -> bytes:
    return http2.frame(http2.HEADERS, flags, 1, http2.new_encoder().encode(list(fields)))


def data(payload: bytes, flags: int = http2.END_STREAM) -> bytes:
    return http2.frame(http2.DATA, flags, 1, payload)


OK = head((":status", "200"))


def test_requests_on_one_connection_are_answered_one_by_one(stream_peer: StreamPeer) -> None:
    stream_peer.fields, stream_peer.body = (("x-a", "b"),), b"whole"

    with http2.Client(stream_peer.address) as client:
        answers = [client.ask(PLAIN) for _ in range(3)]

    assert {(a.status, a.field("X-A"), a.field("x-b"), a.body) for a in answers} == {
        (200, "b", None, b"whole")
    }
    assert stream_peer.connections == [3]
    assert stream_peer.requests[0] == [
        (":method", "GET"),
        (":authority", f"127.0.0.1:{stream_peer.address[1]}"),
        (":scheme", "http"),
        (":path", "/a?b=c"),
    ]


def test_a_body_is_sent_with_its_length(stream_peer: StreamPeer) -> None:
    with http2.Client(stream_peer.address) as client:
        for _ in range(2):
            client.ask(UPLOAD)

    assert stream_peer.bodies == [UPLOAD.body] * 2
    assert ("content-length", "10240") in stream_peer.requests[0]
    assert ("content-type", "application/octet-stream") in stream_peer.requests[0]


def test_a_body_that_could_have_to_wait_for_a_window_is_refused(stream_peer: StreamPeer) -> None:
    with http2.Client(stream_peer.address) as client, pytest.raises(ValueError, match="too much"):
        client.ask(Request("POST", body=bytes(40_000)))


def test_a_mebibyte_comes_without_a_window_being_opened(stream_peer: StreamPeer) -> None:
    stream_peer.body = bytes(range(256)) * 4096

    with http2.Client(stream_peer.address) as client:
        assert client.ask(PLAIN).body == client.ask(PLAIN).body == stream_peer.body
    assert stream_peer.updates == []


def test_a_browser_sends_crumbs_and_nothing_of_the_connection(stream_peer: StreamPeer) -> None:
    with http2.Client(stream_peer.address) as client:
        client.ask(CHROME)

    (fields,) = stream_peer.requests
    assert len(fields) == 16
    assert [value for name, value in fields if name == "cookie"][:2] == ["theme=dark", "consent=1"]
    assert not {"connection", "host"} & {name for name, _ in fields}
    assert all(name == name.lower() for name, _ in fields)


def test_a_small_table_is_kept_to(stream_peer: StreamPeer) -> None:
    stream_peer.settings = {http2.HEADER_TABLE_SIZE: 64}
    with http2.Client(stream_peer.address) as client:
        for _ in range(3):
            client.ask(CHROME)

    assert stream_peer.requests[0] == stream_peer.requests[1] == stream_peer.requests[2]


def test_interim_answers_trailers_and_padding_are_understood(stream_peer: StreamPeer) -> None:
    padded = data(b"\x02ab\0\0", http2.PADDED)
    ranked = http2.frame(http2.HEADERS, 0x24, 1, bytes(5) + b"\x88")
    trailers = head(("x-sum", "1"), flags=http2.END_HEADERS | http2.END_STREAM)

    answer = answered(
        stream_peer, head((":status", "103")), ranked, padded, data(b"c", 0), trailers
    )

    assert (answer.status, answer.body) == (200, b"abc")


def test_a_header_block_may_come_in_pieces_and_pings_between_frames(
    stream_peer: StreamPeer,
) -> None:
    block = http2.new_encoder().encode([(":status", "404"), ("x-a", "b")])

    answer = answered(
        stream_peer,
        http2.frame(http2.PING, 0, 0, bytes(8)),
        http2.frame(http2.HEADERS, http2.END_STREAM, 1, block[:3]),
        http2.frame(http2.CONTINUATION, http2.END_HEADERS, 1, block[3:]),
    )

    assert (answer.status, answer.fields) == (404, (("x-a", "b"),))


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([http2.frame(http2.RST_STREAM, 0, 1, bytes((0, 0, 0, 7)))], "reset with error 7"),
        (
            [http2.frame(http2.GOAWAY, 0, 0, bytes((0, 0, 0, 1, 0, 0, 0, 11)) + b"calm")],
            "GOAWAY with error 11 calm",
        ),
        ([http2.frame(http2.PUSH_PROMISE, 4, 1, bytes(4))], "a push"),
        ([data(b"x")], "DATA before any response"),
        ([OK, OK], "a header block that begins with"),
        ([head(("x-a", "b"))], "a header block that begins with"),
        ([http2.frame(http2.HEADERS, 0, 1, b"\x88"), data(b"")], "breaks off"),
        ([http2.frame(http2.HEADERS, 4, 1, b"\xff\xff\xff\xff\x7f")], "cannot be decoded"),
        ([OK, data(b"\x05ab", http2.PADDED)], "more padding than frame"),
        ([http2.frame(http2.HEADERS, 4, 3, b"\x88")], "stream 1 was asked, stream 3 answers"),
        ([http2.frame(http2.SETTINGS, 0, 0, bytes(5))], "SETTINGS of 5 bytes"),
    ],
)
def test_a_broken_answer_is_explained(
    stream_peer: StreamPeer, frames: list[bytes], reason: str
) -> None:
    with pytest.raises(http2.WrongAnswer, match=reason):
        answered(stream_peer, *frames)


def test_the_end_of_the_connection_is_no_answer(stream_peer: StreamPeer) -> None:
    def leave(stream: int) -> bytes:
        raise ConnectionError

    stream_peer.answer = leave
    with (
        http2.Client(stream_peer.address) as client,
        pytest.raises(http2.WrongAnswer, match="ended without a GOAWAY"),
    ):
        client.ask(PLAIN)


@pytest.mark.parametrize(("offered", "spoken"), [(["h2"], True), (["http/1.1"], False)])
def test_over_tls_the_server_must_choose_http_2(
    stream_peer: StreamPeer, certified: ssl.SSLContext, offered: list[str], spoken: bool
) -> None:
    certified.set_alpn_protocols(offered)
    stream_peer.tls = certified
    trust = certificate.trusting("h2")

    if spoken:
        with http2.Client(stream_peer.address, trust) as client:
            assert client.ask(PLAIN).status == 200
        assert (":scheme", "https") in stream_peer.requests[0]
    else:
        with pytest.raises(http2.WrongAnswer, match="ALPN chose None, not h2"):
            http2.Client(stream_peer.address, trust)
