from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnicorn.config.bind import Bind, check_host, parse_bind


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8000", Bind("tcp", host="127.0.0.1", port=8000)),
        ("example.org:80", Bind("tcp", host="example.org", port=80)),
        ("[::1]:8000", Bind("tcp", host="::1", port=8000)),
        ("[fe80::1%eth0]:0", Bind("tcp", host="fe80::1%eth0", port=0)),
        (":65535", Bind("tcp", host="", port=65535)),
        ("unix:/run/app.sock", Bind("unix", path="/run/app.sock")),
        ("unix:///run/app.sock", Bind("unix", path="/run/app.sock")),
        ("unix:app.sock", Bind("unix", path="app.sock")),
        ("unix:@abstract", Bind("unix", path="@abstract")),
        ("fd://3", Bind("fd", fd=3)),
        ("localhost", Bind("tcp", host="localhost", port=8000)),
        ("127.0.0.1", Bind("tcp", host="127.0.0.1", port=8000)),
        ("[::1]", Bind("tcp", host="::1", port=8000)),
        ("http:localhost:80", Bind("tcp", host="localhost", port=80)),
        ("http:unix:/a", Bind("unix", path="/a")),
        ("scgi:127.0.0.1:9000", Bind("tcp", host="127.0.0.1", port=9000, scheme="scgi")),
        ("scgi:localhost", Bind("tcp", host="localhost", port=8000, scheme="scgi")),
        ("scgi::9000", Bind("tcp", port=9000, scheme="scgi")),
        ("scgi:unix:/run/app.sock", Bind("unix", path="/run/app.sock", scheme="scgi")),
        ("uwsgi:[::1]:9000", Bind("tcp", host="::1", port=9000, scheme="uwsgi")),
        ("fastcgi:fd://0", Bind("fd", fd=0, scheme="fastcgi")),
        ("fcgi:unix:///a", Bind("unix", path="/a", scheme="fastcgi")),
        ("http:scgi:80", Bind("tcp", host="scgi", port=80)),
    ],
)
def test_every_form_of_address_is_read(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:8000",
        "[::1]:8000",
        ":80",
        "unix:/run/app.sock",
        "fd://3",
        "scgi:127.0.0.1:9000",
        "scgi::9000",
        "uwsgi:[::1]:9000",
        "fastcgi:unix:app.sock",
        "fastcgi:fd://0",
        "http:scgi:80",
        "scgi:http:80",
    ],
)
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_bind(text)) == text


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("8000", "write :8000"),
        ("", "write 127.0.0.1:8000"),
        ("::1:8000", "goes in brackets"),
        ("[::1]8000", "needs a colon after the bracket"),
        ("[localhost]", "brackets are for IPv6"),
        ("unix", "unix:/run/app.sock"),
        ("scgi", "write scgi:127.0.0.1:8000"),
        ("scgi:", "write scgi:127.0.0.1:8000"),
        ("scgi:9000", "write scgi::9000 or scgi:127.0.0.1:9000"),
        ("scgi:/run/app.sock", "scgi:unix:/run/app.sock"),
        ("scgi://127.0.0.1:9000", "leave out the //"),
        ("scgi:fd://x", "scgi:fd://3"),
        ("scgi:scgi:unix:/a", "looks like a path"),
        ("https:localhost:443", "TLS comes by ssl_certfile"),
        ("ajp:localhost:80", "ajp is none of the schemes http, scgi"),
        ("SCGI:localhost:80", "SCGI is none of the schemes http, scgi"),
        ("fade::1:80", "goes in brackets"),
        ("[localhost]:80", "brackets are for IPv6"),
        ("http://localhost:80", "leave out the scheme"),
        ("https://localhost:80", "leave out the scheme"),
        ("/run/app.sock", "unix:/run/app.sock"),
        ("localhost:", "from 0 to 65535"),
        ("localhost:http", "from 0 to 65535"),
        ("localhost:65536", "from 0 to 65535"),
        ("localhost:-1", "from 0 to 65535"),
        ("localhost:８０", "from 0 to 65535"),
        ("local host:80", "not a host name"),
        ("a,b:80", "not a host name"),
        ("a\n:80", "not a host name"),
        ("unix:", "needs a path"),
        ("unix:a\0b", "needs a path"),
        ("fd://", "number of a file descriptor"),
        ("fd://-1", "number of a file descriptor"),
        ("fd://stdin", "number of a file descriptor"),
    ],
)
def test_what_is_not_an_address_is_refused_with_the_spelling_that_works(
    text: str, remedy: str
) -> None:
    with pytest.raises(ValueError) as refusal:
        parse_bind(text)
    assert remedy in str(refusal.value)


@given(
    st.text("http:/unixfdscguw[]1.@-", max_size=20)
    | st.lists(
        st.sampled_from(["http", "scgi", "fcgi", ":", "unix", "fd", "//", "[::1]", "h", "80", "0"]),
        max_size=6,
    ).map("".join)
)
def test_what_is_read_is_written_so_that_it_is_read_as_the_same(text: str) -> None:
    try:
        bind = parse_bind(text)
    except ValueError:
        return
    assert parse_bind(str(bind)) == bind


def test_a_host_loses_its_brackets() -> None:
    assert check_host("[::1]") == "::1"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("", "every interface"),
        ("[]", "every interface"),
        ("localhost:80", "has a port in it"),
        ("http://a", "not a host name"),
        ("[::1]:80", "not a host name"),
    ],
)
def test_what_is_no_host_is_refused(host: str, reason: str) -> None:
    with pytest.raises(ValueError) as refusal:
        check_host(host)
    assert reason in str(refusal.value)
