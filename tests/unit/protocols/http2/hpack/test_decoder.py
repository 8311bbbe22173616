"""Blocks to lists: RFC 7541 Appendix C, every way to be broken, and limits against bombs."""

from __future__ import annotations

import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.errors import Http2Error, LimitExceeded
from omnicorn.protocols.http2.codes import COMPRESSION_ERROR
from omnicorn.protocols.http2.hpack import Decoder, Strings
from omnicorn.protocols.http2.hpack.primitives import encode_integer

if TYPE_CHECKING:
    from collections.abc import Callable

Pair = tuple[bytes, bytes]


def decoder(**limits: int) -> Decoder:
    return Decoder(Strings(), **limits)


def pairs(text: str) -> list[Pair]:
    """One field a line, as Appendix C writes them."""
    lines = [line.strip().encode() for line in text.strip().splitlines()]
    return [(line[:1] + name, value) for line in lines for name, value in [split(line[1:])]]


def split(line: bytes) -> Pair:
    name, _, value = line.partition(b": ")
    return name, value


def dynamic(subject: Decoder) -> list[Pair]:
    """The dynamic table, newest first, as references see it."""
    entries: list[Pair] = []
    while True:
        try:
            entries += subject.decode(encode_integer(62 + len(entries), 127, 128))
        except Http2Error:
            return entries


def inserted(name: bytes, value: bytes) -> bytes:
    """A literal with incremental indexing, not in Huffman's code."""
    name, value = (encode_integer(len(part), 127, 0) + part for part in (name, value))
    return b"\x40" + name + value


def resized(size: int) -> bytes:
    return encode_integer(size, 31, 0x20)


@pytest.mark.parametrize(
    ("block", "field", "table"),
    [
        pytest.param(
            "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
            (b"custom-key", b"custom-header"),
            [(b"custom-key", b"custom-header")],
            id="C.2.1",
        ),
        pytest.param("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), [], id="C.2.2"),
        pytest.param(
            "100870617373776f726406736563726574", (b"password", b"secret"), [], id="C.2.3"
        ),
        pytest.param("82", (b":method", b"GET"), [], id="C.2.4"),
    ],
)
def test_each_representation_of_appendix_c(block: str, field: Pair, table: list[Pair]) -> None:
    subject = decoder()
    assert subject.decode(bytes.fromhex(block)) == (field,)
    assert dynamic(subject) == table


REQUESTS = [
    (
        """
        :method: GET
        :scheme: http
        :path: /
        :authority: www.example.com
        """,
        """
        :authority: www.example.com
        """,
    ),
    (
        """
        :method: GET
        :scheme: http
        :path: /
        :authority: www.example.com
        cache-control: no-cache
        """,
        """
        cache-control: no-cache
        :authority: www.example.com
        """,
    ),
    (
        """
        :method: GET
        :scheme: https
        :path: /index.html
        :authority: www.example.com
        custom-key: custom-value
        """,
        """
        custom-key: custom-value
        cache-control: no-cache
        :authority: www.example.com
        """,
    ),
]

RESPONSES = [
    (
        """
        :status: 302
        cache-control: private
        date: Mon, 21 Oct 2013 20:13:21 GMT
        location: https://www.example.com
        """,
        """
        location: https://www.example.com
        date: Mon, 21 Oct 2013 20:13:21 GMT
        cache-control: private
        :status: 302
        """,
    ),
    (
        """
        :status: 307
        cache-control: private
        date: Mon, 21 Oct 2013 20:13:21 GMT
        location: https://www.example.com
        """,
        """
        :status: 307
        location: https://www.example.com
        date: Mon, 21 Oct 2013 20:13:21 GMT
        cache-control: private
        """,
    ),
    (
        """
        :status: 200
        cache-control: private
        date: Mon, 21 Oct 2013 20:13:22 GMT
        location: https://www.example.com
        content-encoding: gzip
        set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1
        """,
        """
        set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1
        content-encoding: gzip
        date: Mon, 21 Oct 2013 20:13:22 GMT
        """,
    ),
]

C3 = [
    "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "8286 84be 5808 6e6f 2d63 6163 6865",
    "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
]
C4 = [
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    "8286 84be 5886 a8eb 1064 9cbf",
    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
]
C5 = [
    "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a"
    "3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "4803 3330 37c1 c0bf",
    "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04"
    "677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49"
    "553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
]
C6 = [
    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e"
    "919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
    "4883 640e ffc1 c0bf",
    "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7"
    "821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed"
    "4ee5 b106 3d50 07",
]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("blocks", "expected", "table_size"),
    [
        pytest.param(C3, REQUESTS, 4096, id="C.3"),
        pytest.param(C4, REQUESTS, 4096, id="C.4"),
        pytest.param(C5, RESPONSES, 256, id="C.5"),
        pytest.param(C6, RESPONSES, 256, id="C.6"),
    ],
)
def test_each_sequence_of_appendix_c(
    blocks: list[str], expected: list[tuple[str, str]], table_size: int, warm: bool
) -> None:
    strings = Strings()
    if warm:
        for _ in range(3):
            other = Decoder(strings, table_size=table_size)
            for block in blocks:
                other.decode(bytes.fromhex(block))
    subject = Decoder(strings, table_size=table_size)
    for block, (fields, table) in zip(blocks, expected, strict=True):
        assert list(subject.decode(bytes.fromhex(block))) == pairs(fields)
        assert dynamic(subject) == pairs(table)


def test_an_empty_block_is_an_empty_list() -> None:
    assert decoder().decode(b"") == ()


def test_equal_references_give_the_same_pair() -> None:
    subject = decoder()
    (first,) = subject.decode(inserted(b"a", b"b"))
    second, third = subject.decode(b"\xbe\xbe")
    assert first is second is third


def test_every_index_of_a_full_table_is_reached() -> None:
    """128 entries of 32 bytes: indices of one byte, of two, and none beyond the last."""
    subject = decoder()
    subject.decode(b"\x40\x00\x00" * 200)
    assert len(dynamic(subject)) == 128
    fields = [(b"%d" % number, b"") for number in range(110)]
    subject.decode(b"".join(inserted(*field) for field in fields))
    assert dynamic(subject)[:110] == fields[::-1]
    assert subject.decode(b"\xfe\xff\x00\xff\x01") == (fields[-65], fields[-66], fields[-67])


@pytest.mark.parametrize("flags", [0x00, 0x10, 0x40])
def test_names_are_referred_to_in_both_tables(flags: int) -> None:
    subject = decoder()
    subject.decode(inserted(b"old", b"") + inserted(b"new", b""))
    mask = 63 if flags == 0x40 else 15
    for index, name in [(1, b":authority"), (61, b"www-authenticate"), (62, b"new"), (63, b"old")]:
        subject = decoder()
        subject.decode(inserted(b"old", b"") + inserted(b"new", b""))
        assert subject.decode(encode_integer(index, mask, flags) + b"\x01v") == ((name, b"v"),)


def test_a_name_may_belong_to_an_entry_that_its_insertion_evicts() -> None:
    """RFC 7541 §4.4."""
    subject = decoder(table_size=64)
    subject.decode(inserted(b"name", b"1"))
    assert subject.decode(b"\x7e\x14" + b"2" * 20) == ((b"name", b"2" * 20),)
    assert dynamic(subject) == [(b"name", b"2" * 20)]


def test_an_entry_larger_than_the_table_empties_it() -> None:
    """RFC 7541 §4.4."""
    subject = decoder(table_size=64)
    subject.decode(inserted(b"a", b"b"))
    assert subject.decode(inserted(b"a", b"c" * 32)) == ((b"a", b"c" * 32),)
    assert dynamic(subject) == []


def test_size_updates_evict_at_once() -> None:
    subject = decoder()
    subject.decode(inserted(b"a", b"b") + inserted(b"c", b"d"))
    assert subject.decode(resized(34) + b"\xbe") == ((b"c", b"d"),)
    assert dynamic(subject) == [(b"c", b"d")]
    assert subject.decode(resized(0) + resized(4096)) == ()
    assert dynamic(subject) == []
    subject.decode(inserted(b"a", b"b"))
    assert dynamic(subject) == [(b"a", b"b")]


BROKEN = {
    "index 0": "80",
    "index beyond the static table": "be",
    "index far beyond": "ff8001",
    "index beyond any": "ffffffffff07",
    "index of two bytes, beyond": "ff00",
    "name beyond the static table": "7e0161",
    "name of two bytes, beyond": "7f000161",
    "name beyond, not inserted": "0f2f0161",
    "name beyond, never indexed": "1f2f0161",
    "index above 2^31": "ffffffffff08",
    "index without end": "ff" + "80" * 20 + "01",
    "length above 2^31": "007fffffffff0f",
    "length of 2^31 - 1": "007f80ffffff07",
    "size above 2^31": "3fffffffff0f",
    "index cut short": "ff",
    "index cut short, later": "82ff80",
    "size cut short": "3f",
    "name index cut short": "7f",
    "nothing behind a literal's first byte": "40",
    "nothing behind an indexed name": "41",
    "name cut short": "00036162",
    "nothing behind a name": "00026162",
    "value cut short": "0002616203" + "6161",
    "length cut short": "0002616" + "27f",
    "huffman value cut short": "41" + "8cf1e3c2",
    "padding of eight bits": "41" + "82f8ff",
    "padding of zeros": "41" + "8100",
    "padding alone": "41" + "81ff",
    "EOS": "41" + "84fffffffc",
    "EOS and padding": "41" + "84ffffffff",
    "bad padding in a name": "40" + "8100" + "00",
    "size above ours": "3fe21f",
    "size update behind an index": "8220",
    "size update behind a literal": "0001610120" + "20",
    "size update between fields": "822082",
    "three size updates": "202020",
}


@pytest.mark.parametrize("block", BROKEN.values(), ids=BROKEN.keys())
def test_broken_blocks_break_the_connection(block: str) -> None:
    strings = Strings()
    for _ in range(3):  # remembering changes nothing
        with pytest.raises(Http2Error) as caught:
            Decoder(strings).decode(bytes.fromhex(block))
        assert caught.value.code == COMPRESSION_ERROR


def test_the_largest_size_update_is_ours() -> None:
    assert decoder().decode(bytes.fromhex("3fe11f")) == ()
    assert decoder(table_size=0).decode(b"\x20") == ()
    with pytest.raises(Http2Error):
        decoder(table_size=0).decode(b"\x21")


def test_every_cut_of_a_block_is_broken_or_a_shorter_list() -> None:
    block = bytes.fromhex(C6[0])
    whole = decoder().decode(block)
    complete = 0
    for cut in range(len(block)):
        try:
            fields = decoder().decode(block[:cut])
        except Http2Error:
            continue
        assert fields == whole[: len(fields)]
        complete += 1
    assert complete == len(whole)  # behind each field but the last, and the empty block


def test_the_generation_moves_with_the_table() -> None:
    subject = decoder()
    seen = [subject.generation]
    for block in (
        inserted(b"a", b"b"),
        inserted(b"a", b"b"),
        inserted(b"a", b"b" * 4096),
        resized(100),
        resized(0) + resized(4096) + b"\x82",
    ):
        subject.decode(block)
        seen.append(subject.generation)
    assert seen == sorted(set(seen))
    for block in (b"", b"\x82", b"\x82\x86\x84", b"\x04\x01/", b"\x14\x01/", b"\x00\x01a\x01b"):
        subject.decode(block)
        assert subject.generation == seen[-1]


def test_the_generation_moves_though_the_list_is_too_large() -> None:
    subject = decoder(max_list_size=40)
    with pytest.raises(LimitExceeded):
        subject.decode(inserted(b"a", b"b" * 100))
    assert subject.generation > decoder().generation


def test_a_list_counts_as_rfc_9113_says() -> None:
    """RFC 9113 §6.5.2: name, value and 32 for each field."""
    literal = b"\x00\x03abc\x05abcde"
    assert decoder(max_list_size=40).decode(literal) == ((b"abc", b"abcde"),)
    with pytest.raises(LimitExceeded) as caught:
        decoder(max_list_size=39).decode(literal)
    assert (caught.value.status, caught.value.limit) == (431, 39)
    assert len(decoder(max_list_size=42 * 3).decode(b"\x82\x82\x82")) == 3
    with pytest.raises(LimitExceeded):
        decoder(max_list_size=42 * 3 - 1).decode(b"\x82\x82\x82")
    assert len(decoder(max_list_size=42 + 40).decode(b"\x82" + literal)) == 2
    for block in (b"\x82" + literal, literal + b"\x82"):
        with pytest.raises(LimitExceeded):
            decoder(max_list_size=42 + 39).decode(block)


def test_references_to_large_entries_count_in_full() -> None:
    subject = decoder(max_list_size=4000)
    subject.decode(inserted(b"a", b"b" * 967))
    assert len(subject.decode(b"\xbe" * 4)) == 4
    with pytest.raises(LimitExceeded):
        subject.decode(b"\xbe" * 5)
    subject.decode(inserted(b"c", b"d"))
    assert len(subject.decode(b"\xbe" * 5)) == 5


def test_a_list_that_is_too_large_leaves_the_table_in_step() -> None:
    subject = decoder(max_list_size=200)
    block = b"\x82" + inserted(b"a", b"b" * 300) + inserted(b"c", b"d") + b"\xbe" * 10
    with pytest.raises(LimitExceeded):
        subject.decode(block + inserted(b"e", b"f"))
    assert subject.decode(b"\xbe\xbf") == ((b"e", b"f"), (b"c", b"d"))
    with pytest.raises(LimitExceeded):
        subject.decode(b"\xc0")
    assert subject.decode(b"\x82") == ((b":method", b"GET"),)


def test_a_block_that_is_too_large_and_broken_is_broken() -> None:
    for end in (b"\x80", b"\x20", b"\x41\x81\x00", b"\x41\x05abc"):
        with pytest.raises(Http2Error):
            decoder(max_list_size=40).decode(inserted(b"a", b"b" * 100) + end)


def calls(function: Callable[[], object]) -> int:
    """How many functions, Python's and C's, *function* calls."""
    count = 0

    def profile(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def peak(function: Callable[[], object]) -> int:
    """How many bytes *function* holds at most, beside what it found."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


SIZE = 16384

BOMBS = {
    "references to a large entry": b"\xbe" * SIZE,
    "references to a static entry": b"\x82" * SIZE,
    "references of two bytes": (b"\xff\x00" * SIZE)[:SIZE],
    "large names": b"\x7e\x00" * (SIZE // 2),
    "large names, not inserted": b"\x0f\x2f\x00" * (SIZE // 3),
    "empty entries": b"\x40\x00\x00" * (SIZE // 3),
    "empty literals": b"\x00\x00\x00" * (SIZE // 3),
    "a value that expands": b"\x04\xff\x81\x7f" + b"\x00" * (SIZE - 4) + b"\x07" * 4,
    "many values that expand": b"\x04\x85\x00\x00\x00\x00\x00" * (SIZE // 7),
}


@pytest.mark.parametrize("block", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_costs_no_more_than_its_block(block: bytes) -> None:
    strings = Strings()
    large = inserted(b"n" * 900, b"v" * 900)

    def explode() -> None:
        subject = Decoder(strings, max_list_size=8192)
        subject.decode(inserted(b"", b"") * 66 + large)
        with pytest.raises(LimitExceeded):
            subject.decode(block)

    explode()  # fills the rows of the Huffman code
    assert peak(explode) < 24 * SIZE
    assert calls(explode) < 9 * SIZE
