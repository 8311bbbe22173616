from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from tests.embedded import App, config

from omnicorn.compat.uvicorn import Config
from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


def test_keywords_become_options() -> None:
    ours = config(
        "main:app",
        host="0.0.0.0",
        root_path="/api",
        ws_ping_interval=None,
        ws_ping_timeout=5,
        http="h11",
        ws="wsproto",
        headers=[("x-one", "1")],
        forwarded_allow_ips="10.0.0.0/8, unix",
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=9000,
        interface="wsgi",
    ).translate()

    assert ours.host == "0.0.0.0"
    assert ours.root_path == "/api"
    assert (ours.ws_ping_interval, ours.ws_ping_timeout) == (0, 5)
    assert (ours.http, ours.ws) == ("auto", "auto")
    assert ours.headers == (("x-one", "1"),)
    assert ours.forwarded_allow_ips == ("10.0.0.0/8", "unix")
    assert ours.timeout_graceful_shutdown == 3
    assert ours.limit_request_head == ours.limit_request_line == 9000
    assert ours.interface == "wsgi"


def test_what_is_not_given_has_omnicorns_default() -> None:
    theirs = config(App())

    assert theirs.timeout_keep_alive == theirs.translate().timeout_keep_alive == 75
    assert theirs.translate().timeout_graceful_shutdown == 30
    assert theirs.workers == 1


@pytest.mark.parametrize(("given", "http"), [({}, "auto"), ({"http2": False}, "1")])
def test_http2_is_spoken_unless_it_is_refused(given: dict[str, bool], http: str) -> None:
    assert config(App(), **given).translate().http == http


def test_attributes_that_are_set_later_count() -> None:
    theirs = config(App())
    theirs.root_path = "/later"

    assert theirs.translate().root_path == "/later"


def test_the_variable_of_trusted_proxies_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.1.2.3")

    assert config(App()).translate().forwarded_allow_ips == ("10.1.2.3",)
    assert config(App(), forwarded_allow_ips="*").translate().forwarded_allow_ips == ("*",)


@pytest.mark.parametrize(
    ("keyword", "value", "advice"),
    [
        ("workers", 4, "gunicorn -k omnicorn.compat.gunicorn.Worker"),
        ("reload", True, "watchfiles"),
        ("env_file", ".env", "dotenv"),
        ("callback_notify", print, "on_tick"),
        ("ssl_version", ssl.PROTOCOL_TLS_CLIENT, "ssl_context_factory"),
        ("http", "mypackage:Protocol", "implementation of its own"),
        ("ws", object, "implementation of its own"),
    ],
)
def test_a_keyword_without_an_equivalent_is_refused_with_advice(
    keyword: str, value: Any, advice: str
) -> None:
    with pytest.raises(ConfigError, match=advice) as caught:
        config(App(), **{keyword: value})
    assert caught.value.option == keyword


def test_a_keyword_that_uvicorn_does_not_know_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="'root_pth'; did you mean 'root_path'"):
        config(App(), root_pth="/")


def test_a_wrong_value_is_refused_when_the_configuration_is_made() -> None:
    with pytest.raises(ConfigError, match="port = 70000"):
        config(App(), port=70000)


def test_every_keyword_of_uvicorn_is_known() -> None:
    theirs = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    from inspect import signature

    for name, parameter in signature(theirs.Config).parameters.items():
        if name == "log_config":
            continue
        made = config(App(), **{name: parameter.default}) if name != "app" else config(App())
        assert hasattr(made, name)


def test_a_context_comes_from_its_factory() -> None:
    made: list[ssl.SSLContext] = []

    def factory(theirs: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        assert isinstance(theirs, Config)
        made.append(default())
        return made[-1]

    theirs = config(App(), ssl_context_factory=factory)

    assert theirs.is_ssl
    assert theirs.translate().ssl_context is theirs.translate().ssl_context
    assert len(made) == 1


def test_the_loop_is_chosen_by_name() -> None:
    assert config(App(), loop="asyncio").get_loop_factory() is None
    assert config(App(), loop="none").get_loop_factory() is None
    with pytest.raises(ConfigError, match="run the loop yourself"):
        config(App(), loop="package:factory").get_loop_factory()


def test_a_socket_can_be_bound_beforehand() -> None:
    with contextlib.closing(config(App()).bind_socket()) as sock:
        assert sock.getsockname()[1] > 0
        assert sock.get_inheritable()


def test_a_socket_that_cannot_be_bound_ends_the_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as caught:
        config(App(), port=taken.getsockname()[1]).bind_socket()
    assert caught.value.code == 1
