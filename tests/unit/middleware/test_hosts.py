"""Which host a request asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.http.fields import is_host
from omnicorn.middleware.hosts import asked_host, plain_host


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"example.org", b"example.org"),
        (b"Example.org:8080", b"Example.org"),
        (b"example.org:", b"example.org"),
        (b"[::1]:443", b"[::1]"),
        (b"[::1]", b"[::1]"),
        (b"", None),
        (b":80", None),
        (b"a b", None),
        (b"user@example.org", None),
        (b"example.org/path", None),
        (b"example.org:http", None),
        (b"::1", None),
        (b"[::1", None),
        (b"[::1]x", None),
        (b"caf\xe9.org", None),
    ],
)
def test_the_port_is_taken_off_a_host(value: bytes, host: bytes | None) -> None:
    assert plain_host(value) == host


def test_only_one_host_field_is_a_host() -> None:
    assert asked_host([(b"accept", b"*/*"), (b"host", b"a")]) == b"a"
    assert asked_host([(b"accept", b"*/*")]) is None
    assert asked_host([(b"host", b"a"), (b"host", b"a")]) is None


@given(st.binary(max_size=40) | st.from_regex(rb"[\[\]a-z:.%@/0-9]*", fullmatch=True))
def test_a_host_is_legal_and_the_beginning_of_what_was_sent(value: bytes) -> None:
    host = plain_host(value)

    assert host is None or (host and is_host(host) and value.startswith(host))
