"""The environ that becomes of a request's head."""

from __future__ import annotations

import io
import sys
from typing import Any
from wsgiref import validate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.conftest import request

from omnicorn.bridge.environ import wsgi_environ
from omnicorn.bridge.scope import http_scope
from omnicorn.ports import RequestHead
from omnicorn.protocols.http1.requests import RequestParser
from omnicorn.toolkit.pep3333 import build_environ

CLIENT = ("192.0.2.1", 50000)
SERVER = ("192.0.2.80", 80)


class Mounted(RequestHead):
    """One that a front server has put somewhere."""


def head_of(method: str, target: str, *fields: str) -> Any:
    return RequestParser(None).parse(request(method, target, *fields))


def environ_of(
    method: str,
    target: str,
    *fields: str,
    root_path: str = "",
    client: Any = CLIENT,
    server: Any = SERVER,
) -> dict[str, Any]:
    head = head_of(method, target, *fields)
    return wsgi_environ(head, "http", client, server, root_path, io.BytesIO())


def test_the_environ_of_a_request() -> None:
    environ = environ_of(
        "GET", "/a%20b/%C3%A9?x=1&y", "x-custom: 1", "x-custom: 2", "cookie: a=1", "x_y: z"
    )
    assert isinstance(environ.pop("wsgi.input"), io.BytesIO)
    assert environ.pop("wsgi.errors") is sys.stderr
    assert environ.pop("wsgi.file_wrapper") is not None
    assert environ == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/\xc3\xa9",
        "QUERY_STRING": "x=1&y",
        "REQUEST_URI": "/a%20b/%C3%A9?x=1&y",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "192.0.2.80",
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "50000",
        "HTTP_HOST": "example.org",
        "HTTP_X_CUSTOM": "1,2",
        "HTTP_COOKIE": "a=1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }


@pytest.mark.parametrize("target", ["/", "/a?b=c", "*"])
def test_the_validator_is_content(target: str) -> None:
    check: Any = validate
    check.check_environ(environ_of("OPTIONS", target))


def test_the_root_path_is_the_script_name() -> None:
    environ = environ_of("GET", "/x", root_path="/caf\xe9")
    assert environ["SCRIPT_NAME"] == "/caf\xc3\xa9"
    assert environ["PATH_INFO"] == "/x"
    assert environ["REQUEST_URI"] == "/caf%C3%A9/x"


def test_a_root_path_of_the_request_itself_is_part_of_its_path() -> None:
    plain = head_of("GET", "/mounted/x")
    head = Mounted()
    for name in RequestHead.__slots__:
        setattr(head, name, getattr(plain, name))
    head.root_path = "/mounted"
    environ = wsgi_environ(head, "http", CLIENT, SERVER, "/other", None)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/mounted", "/x")
    assert environ["REQUEST_URI"] == "/mounted/x"


def test_the_asterisk_is_no_path() -> None:
    environ = environ_of("OPTIONS", "*", root_path="/mount")
    assert (environ["PATH_INFO"], environ["REQUEST_URI"]) == ("", "*")


def test_a_unix_socket_has_a_name_and_no_port() -> None:
    environ = environ_of("GET", "/", client=None, server=("/run/app.sock", None))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("/run/app.sock", "0")
    assert "REMOTE_ADDR" not in environ


PARTS = ("/", "//", "a", "root", "caf%C3%A9", "%20", "%2F", "%ff", "..", "?", "x=1", "&")
FIELDS = (
    "accept: text/html",
    "accept: */*",
    "cookie: a=1",
    "cookie: b=2",
    "X-Custom: \xe9",
    "x_custom: forged",
    "content-type: text/plain",
    "content-length: 0",
    "transfer-encoding: chunked",
)


@given(
    st.lists(st.sampled_from(PARTS)).map(lambda parts: "/" + "".join(parts)),
    st.lists(st.sampled_from(FIELDS[:-2])),
    st.sampled_from([[], [FIELDS[-1]], [FIELDS[-2]]]),
    st.sampled_from(["", "/mount", "/mount/a", "/caf\xe9"]),
    st.booleans(),
    st.sampled_from([CLIENT, None]),
    st.sampled_from([SERVER, ("/run/app.sock", None), None]),
)
@example("*", [], [], "", False, CLIENT, SERVER)
@example("*", [], [], "/mount", False, CLIENT, SERVER)
def test_an_environ_is_the_same_by_way_of_the_scope(
    target: str,
    fields: list[str],
    framing: list[str],
    root_path: str,
    is_mounted: bool,
    client: Any,
    server: Any,
) -> None:
    def head() -> Any:
        plain = head_of("OPTIONS", target, *fields, *framing)
        if not is_mounted:
            return plain
        mounted = Mounted()
        for name in RequestHead.__slots__:
            setattr(mounted, name, getattr(plain, name))
        mounted.root_path = root_path
        mounted.path = root_path + plain.path
        return mounted

    scope: Any = http_scope(head(), "https", client, server, root_path, None, {})
    body = io.BytesIO()
    assert wsgi_environ(head(), "https", client, server, root_path, body) == build_environ(
        scope, body
    )


def test_a_transfer_coding_is_removed() -> None:
    assert "HTTP_TRANSFER_ENCODING" not in environ_of("POST", "/", "transfer-encoding: chunked")


def test_equal_requests_have_an_environ_each() -> None:
    head = head_of("GET", "/same")
    for port in range(5):
        environ = wsgi_environ(head, "http", ("192.0.2.1", port), SERVER, "", None)
        assert environ["REMOTE_PORT"] == str(port)
        assert "changed" not in environ
        environ["changed"] = environ["HTTP_HOST"] = "changed"
        assert wsgi_environ(head, "https", None, None, "", None)["HTTP_HOST"] == "example.org"
