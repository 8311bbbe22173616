"""What the head of a response is judged by, however it is written."""

from __future__ import annotations

from typing import Any

import pytest

from omnicorn.errors import LocalProtocolError
from omnicorn.http.heads import HeadEncoder


class Upper(HeadEncoder[list[bytes]]):
    """Writes the names of a head, in capitals, and counts the heads it made."""

    _alone = frozenset({b"host"})

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def _encode(self, status: int, headers: tuple[Any, ...]) -> list[bytes]:
        self.made += 1
        return [self._names.get(name) or self._learn_name(name) for name, _ in headers]

    def _write_name(self, name: bytes) -> bytes:
        return name.upper()


def test_a_head_is_written_by_the_subclass() -> None:
    assert Upper().encode((200, (b"a", b"1"), (b"B", b"2"))) == [b"A", b"B"]


def test_a_head_that_is_remembered_is_made_once() -> None:
    encoder = Upper()
    first = encoder.encode((200, (b"a", b"1")))
    assert encoder.encode((200, (b"a", b"1"))) is first and encoder.made == 1


def test_every_eighth_unknown_head_is_remembered() -> None:
    encoder = Upper()
    for n in range(17):
        encoder.encode((200, (b"a", b"%d" % n)))
    assert list(encoder.heads) == [(200, (b"a", b"%d" % n)) for n in (0, 8, 16)]


def test_a_large_head_is_not_remembered() -> None:
    encoder = Upper()
    encoder.encode((200, (b"a", b"x" * 2048)))
    assert not encoder.heads


def test_pairs_given_as_lists_find_what_was_remembered() -> None:
    encoder = Upper()
    first = encoder.encode((200, (b"a", b"1")))
    assert encoder.encode((200, [b"a", b"1"])) is first


@pytest.mark.parametrize("status", [199, 1000, 200.0, True, "200", None])
def test_a_status_is_an_integer_from_200_to_999(status: Any) -> None:
    encoder = Upper()
    encoder.encode((200,))
    with pytest.raises(LocalProtocolError, match="must be an integer from 200 to 999"):
        encoder.encode((status,))


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ([b"a b", b"1"], "must be a token"),
        ([b"a", b"1\r\n"], "holds a control byte"),
        ([b"a", "1"], "must be bytes"),
        ([b"a"], "must be a list of"),
        (5, "must be a list of"),
    ],
)
def test_what_is_no_field_is_explained(pair: Any, reason: str) -> None:
    encoder = Upper()
    with pytest.raises(LocalProtocolError, match=reason):
        encoder.check_fields([pair])
    if isinstance(pair, list):
        with pytest.raises(LocalProtocolError, match=reason):
            encoder.encode((200, pair))
    with pytest.raises(LocalProtocolError, match="must be a list of"):
        encoder.check_fields(5)  # type: ignore[arg-type]


def test_a_name_that_is_no_token_is_not_remembered() -> None:
    encoder = Upper()
    with pytest.raises(ValueError, match="a b"):
        encoder._learn_name(b"a b")
    assert not encoder._names


def test_a_length_is_a_number_and_judged_once() -> None:
    encoder = Upper()
    assert encoder._learn_length(b"0012") == 12 and encoder._lengths == {b"0012": 12}
    for value in (b"", b"-1", b"1_0", b"9" * 19, b" 1"):
        with pytest.raises(LocalProtocolError, match="content-length is no number"):
            encoder._learn_length(value)
    with pytest.raises(TypeError):
        encoder._learn_length("12")  # type: ignore[arg-type]
    assert len(encoder._lengths) == 1


def test_trailers_keep_their_order_and_hold_no_field_of_a_head() -> None:
    encoder = Upper()
    assert encoder.check_fields([(b"b", b"2"), [b"a", b"1"]]) == [(b"b", b"2"), (b"a", b"1")]
    with pytest.raises(LocalProtocolError, match="b'Host' cannot be sent here"):
        encoder.check_fields([(b"Host", b"a")])
