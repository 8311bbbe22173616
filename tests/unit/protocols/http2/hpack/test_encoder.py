"""Lists to blocks: which representation a field gets, size updates, what `settled` promises."""

from __future__ import annotations

import hpack
import pytest

from omnicorn.protocols.http2.hpack import Decoder, Encoder, Strings
from omnicorn.protocols.http2.hpack.primitives import encode_string

Pair = tuple[bytes, bytes]

RESPONSE = [
    (b":status", b"200"),
    (b"server", b"omnicorn"),
    (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
    (b"content-type", b"application/json"),
    (b"content-length", b"1234"),
]


def encoder() -> Encoder:
    return Encoder(Strings())


def small(subject: Encoder, size: int) -> Encoder:
    """Shrink the table, and get the update out of the way."""
    subject.set_max_table_size(size)
    subject.encode([])
    return subject


def insert(subject: Encoder, *fields: Pair) -> None:
    for field in fields:
        subject.encode([field])
        subject.encode([field])


def test_a_field_of_the_static_table_is_one_byte() -> None:
    subject = encoder()
    fields = [(b":status", b"200"), (b":status", b"404"), (b"accept-encoding", b"gzip, deflate")]
    assert subject.encode(fields) == b"\x88\x8d\x90"
    assert subject.encode([(b"server", b""), (b":method", b"GET")]) == b"\xb6\x82"
    assert subject.settled
    assert subject.generation == 0


def test_an_empty_list_is_an_empty_block() -> None:
    assert encoder().encode([]) == b""


def test_a_field_is_inserted_at_its_second_sighting() -> None:
    subject = encoder()
    field = (b"server", b"omnicorn")
    value = encode_string(b"omnicorn")
    assert subject.encode([field]) == b"\x0f\x27" + value
    assert (subject.settled, subject.generation) == (False, 0)
    assert subject.encode([field]) == b"\x76" + value
    assert (subject.settled, subject.generation) == (False, 1)
    assert subject.encode([field]) == b"\xbe"
    assert (subject.settled, subject.generation) == (True, 1)


def test_the_second_sighting_may_be_in_the_same_list() -> None:
    subject = encoder()
    block = subject.encode([(b"vary", b"&")] * 3)
    assert block == b"\x0f\x2c\x01&" + b"\x7b\x01&" + b"\xbe"
    assert not subject.settled


def test_a_name_outside_of_the_static_table_is_a_literal_until_it_is_inserted() -> None:
    subject = encoder()
    name, one, two = map(encode_string, (b"x-name", b"one", b"two"))
    assert subject.encode([(b"x-name", b"one")]) == b"\x00" + name + one
    assert subject.encode([(b"x-name", b"one")]) == b"\x40" + name + one
    assert subject.encode([(b"x-name", b"two")]) == b"\x0f\x2f" + two
    assert subject.encode([(b"x-name", b"two")]) == b"\x7e" + two
    assert subject.encode([(b"x-name", b"one"), (b"x-name", b"two")]) == b"\xbf\xbe"


@pytest.mark.parametrize(
    ("name", "head"),
    [
        (b":path", b"\x04"),
        (b"age", b"\x0f\x06"),
        (b"content-length", b"\x0f\x0d"),
        (b"content-range", b"\x0f\x0f"),
        (b"etag", b"\x0f\x13"),
        (b"last-modified", b"\x0f\x1d"),
        (b"location", b"\x0f\x1f"),
        (b"x-request-id", b"\x00" + encode_string(b"x-request-id")),
        (b"authorization", b"\x1f\x08"),
        (b"cookie", b"\x1f\x11"),
        (b"proxy-authorization", b"\x1f\x22"),
        (b"set-cookie", b"\x1f\x28"),
    ],
)
def test_what_differs_each_time_and_secrets_are_never_inserted(name: bytes, head: bytes) -> None:
    """RFC 7541 §6.2.2, and §6.2.3 for the secrets."""
    subject = encoder()
    for _ in range(4):
        assert subject.encode([(name, b"v")]) == head + b"\x01v"
        assert subject.settled
    assert subject.generation == 0
    (field,) = hpack.Decoder().decode(subject.encode([(name, b"v")]), raw=True)
    assert field.indexable is not (head[0] == 0x10 or head[:1] == b"\x1f")


def test_a_pair_takes_a_quarter_of_the_table_at_most() -> None:
    subject = encoder()
    largest, larger = (b"a", b"b" * 991), (b"a", b"b" * 992)
    for _ in range(3):
        subject.encode([larger])
        assert subject.settled
    assert subject.generation == 0
    insert(subject, largest)
    assert subject.encode([largest]) == b"\xbe"


def test_a_response_settles_at_its_third_time() -> None:
    subject = encoder()
    blocks = [subject.encode(RESPONSE) for _ in range(4)]
    assert subject.settled
    assert blocks[2] == blocks[3] == b"\x88\xc0\xbf\xbe\x0f\x0d" + encode_string(b"1234")
    subject.encode([*RESPONSE[:2], (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"), *RESPONSE[3:]])
    assert not subject.settled


def test_a_settled_block_stays_the_same_while_the_generation_does() -> None:
    subject = encoder()
    known: dict[tuple[int, int], bytes] = {}
    lists = [[*RESPONSE[:2], (b"vary", b"%d" % (number // 3))] for number in range(30)]
    hits = 0
    for step, fields in enumerate(lists + lists[::-1] + lists):
        if step == 40:
            subject.set_max_table_size(200)
        before = subject.generation
        block = subject.encode(fields)
        key = (hash(tuple(fields)), before)
        if key in known:
            assert block == known[key]
            hits += 1
        if subject.settled:
            assert subject.generation == before
            known[key] = block
    assert hits


def test_a_pair_that_was_evicted_is_inserted_again() -> None:
    subject = small(encoder(), 140)
    a, b, c, d, e = [(name, b"v") for name in (b"a", b"b", b"c", b"d", b"e")]
    insert(subject, a, b, c, d, e)
    assert subject.encode([b, c, d, e]) == b"\xc1\xc0\xbf\xbe"
    generation = subject.generation
    assert subject.encode([a]) == b"\x40\x01a\x01v"
    assert subject.generation > generation
    assert subject.encode([a, e, d]) == b"\xbe\xbf\xc0"


def test_the_name_of_an_evicted_entry_is_not_referred_to() -> None:
    subject = small(encoder(), 140)
    insert(subject, *[(name, b"v") for name in (b"a", b"b", b"c", b"d", b"e")])
    assert subject.encode([(b"a", b"w")]) == b"\x00\x01a\x01w"


def test_the_newest_entry_of_a_name_outlives_the_others() -> None:
    subject = small(encoder(), 140)
    others = [(name, b"1") for name in (b"c", b"d", b"e")]
    insert(subject, (b"a", b"1"), (b"a", b"2"), (b"b", b"1"), *others)
    assert subject.encode([(b"a", b"3")]) == b"\x00\x01a\x013"
    subject = small(encoder(), 140)
    insert(subject, (b"a", b"1"), (b"b", b"1"), (b"a", b"2"), *others)
    assert subject.encode([(b"a", b"3")]) == b"\x0f\x32\x013"


def test_indices_beyond_126_take_two_bytes() -> None:
    subject = encoder()
    fields = [(b"%d" % number, b"") for number in range(70)]
    insert(subject, *fields)
    assert subject.encode([fields[-65], fields[-66], fields[-67]]) == b"\xfe\xff\x00\xff\x01"


@pytest.mark.parametrize(
    ("sizes", "update"),
    [
        pytest.param([4096], "", id="no change"),
        pytest.param([65536], "", id="more than we use"),
        pytest.param([2**32 - 1], "", id="the largest there is"),
        pytest.param([0], "20", id="none"),
        pytest.param([100], "3f45", id="less"),
        pytest.param([2000, 100], "3f45", id="less and less"),
        pytest.param([100, 2000], "3f453fb10f", id="the smallest and the final one"),
        pytest.param([0, 65536], "203fe11f", id="none, then more than we use"),
        pytest.param([1000, 0, 100], "203f45", id="three"),
    ],
)
def test_size_updates_come_once_at_the_start_of_the_next_block(
    sizes: list[int], update: str
) -> None:
    """RFC 7541 §4.2."""
    subject = encoder()
    before = subject.generation
    for size in sizes:
        subject.set_max_table_size(size)
    assert (subject.generation > before) is bool(update)
    before = subject.generation
    assert subject.encode([(b":status", b"200")]).hex() == update + "88"
    assert subject.settled is not bool(update)
    assert subject.encode([(b":status", b"200")]) == b"\x88"
    assert subject.settled
    assert subject.generation == before


def test_a_smaller_table_forgets_at_once() -> None:
    subject = encoder()
    insert(subject, (b"a", b"1"), (b"b", b"1"))
    subject.set_max_table_size(34)
    assert subject.encode([(b"b", b"1"), (b"a", b"1")]) == b"\x3f\x03\xbe" + b"\x00\x01a\x011"
    subject.set_max_table_size(0)
    subject.set_max_table_size(4096)
    assert subject.encode([(b"b", b"1")]) == b"\x20\x3f\xe1\x1f" + b"\x40\x01b\x011"


def test_a_peer_without_a_table_gets_settled_blocks_of_literals() -> None:
    subject = small(encoder(), 0)
    first = subject.encode(RESPONSE)
    assert subject.settled
    assert subject.encode(RESPONSE) == first


def test_what_waits_for_a_second_sighting_is_bounded() -> None:
    subject = encoder()
    for number in range(10000):
        subject.encode([(b"date", b"%d" % number)])
    assert len(subject._met) <= 256


def test_blocks_do_not_depend_on_what_is_remembered() -> None:
    strings = Strings(entries=2)
    blocks = []
    for _ in range(4):
        subject = Encoder(strings)
        blocks.append([subject.encode(RESPONSE) for _ in range(4)])
    assert blocks.count(blocks[0]) == 4
    decoder = Decoder(strings)
    assert all(decoder.decode(block) == tuple(RESPONSE) for block in blocks[0])
