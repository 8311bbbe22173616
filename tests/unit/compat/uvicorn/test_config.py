from __future__ import annotations

import contextlib
import socket
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.embedded import App, config

from omnicorn.compat import uvicorn
from omnicorn.compat.uvicorn import Config, LifespanOn
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


def test_an_application_is_imported_from_the_folder_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "an_app_in_two_places.py").write_text(f"async def {name}(s, r, t): ...")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "there"), *sys.path])

    try:
        made = config("an_app_in_two_places:there").load_app()
    finally:
        sys.modules.pop("an_app_in_two_places", None)

    assert made.__name__ == "there"


def test_run_looks_in_its_app_dir_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "an_app_of_a_folder.py").write_text("raise ImportError('the wrong one')")
    (tmp_path / "an_app_of_a_folder.py").write_text("async def app(s, r, t): ...")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    loaded: list[Any] = []
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda server: loaded.append(server.config.load_app())
    )

    try:
        uvicorn.run("an_app_of_a_folder:app", app_dir=str(tmp_path), log_config=None)
    finally:
        sys.modules.pop("an_app_of_a_folder", None)

    assert [app.__name__ for app in loaded] == ["app"]


def test_zero_is_a_time_as_short_as_can_be() -> None:
    theirs = config(App(), timeout_keep_alive=0, timeout_graceful_shutdown=0).translate()

    assert 0 < theirs.timeout_keep_alive < 0.1
    assert 0 < theirs.timeout_graceful_shutdown < 0.1


@pytest.mark.parametrize("keyword", ["limit_max_requests", "limit_max_requests_jitter"])
def test_a_limit_that_is_no_number_is_refused(keyword: str) -> None:
    with pytest.raises(ConfigError, match=f"{keyword} = '5': expected a number of 0 or more"):
        config(App(), **{keyword: "5"})


def test_what_embedders_ask_a_configuration_has_an_answer() -> None:
    made = config(App(), workers=None, headers=None)

    assert made.workers == 1
    assert not made.should_reload
    assert not made.use_subprocess
    made.headers.append(("x-one", "1"))
    assert made.translate().headers == (("x-one", "1"),)


@pytest.mark.parametrize("name", ["http_protocol_class", "ws_protocol_class", "encoded_headers"])
def test_an_attribute_that_would_change_nothing_cannot_be_set(name: str) -> None:
    made = config(App())

    with pytest.raises(AttributeError, match=f"no '{name}': "):
        getattr(made, name)
    with pytest.raises(ConfigError, match=f"{name} cannot be set: ") as caught:
        setattr(made, name, object)
    assert caught.value.option == name


def test_a_lifespan_class_of_ones_own_is_refused_as_it_would_not_be_run() -> None:
    class Own(LifespanOn):
        pass

    with pytest.raises(ConfigError, match="lifespan_class cannot be set: the server runs"):
        config(App()).lifespan_class = Own


# ------------------------------------------------------------------------------ TLS


def test_a_context_that_is_set_later_is_spoken() -> None:
    made = config(App())
    made.load()
    assert made.ssl is None

    made.ssl = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    assert made.is_ssl
    assert made.translate().ssl_context is context


def test_a_context_that_was_asked_for_is_the_one_that_is_spoken(tmp_path: Path) -> None:
    from tests.certificates import Authority

    certfile, keyfile = Authority().issue("localhost").save(tmp_path, "server")
    made = config(App(), ssl_certfile=certfile, ssl_keyfile=Path(keyfile))
    assert made.translate().ssl_certfile == certfile  # read again when it changes

    context = made.ssl
    assert context is not None
    context.minimum_version = ssl.TLSVersion.TLSv1_3

    assert made.translate().ssl_context is context
    with pytest.raises(ConfigError, match="leave ssl_certfile out"):
        made.ssl = None


# ------------------------------------------------------------------------------ every keyword

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

#: A value that is not the default, of each keyword, and what omnicorn is told then; None: it is
#: refused. Those that are no option here are tested beside, by name.
GIVEN: dict[str, tuple[Any, dict[str, Any] | None]] = {
    "host": ("::1", {"host": "::1"}),
    "port": (9000, {"port": 9000}),
    "uds": ("a.sock", {"uds": "a.sock"}),
    "fd": (3, {"fd": 3}),
    "loop": ("package:factory", {}),  # test_the_loop_is_chosen_by_name
    "http": ("h11", {}),  # an implementation, of the same protocol
    "http2": (False, {"http": "1"}),
    "ws": ("none", {"ws": "none"}),
    "ws_max_size": (99, {"ws_max_size": 99}),
    "ws_max_queue": (9, {"ws_max_queue": 9}),
    "ws_ping_interval": (None, {"ws_ping_interval": 0}),
    "ws_ping_timeout": (9.5, {"ws_ping_timeout": 9.5}),
    "ws_per_message_deflate": (False, {"ws_per_message_deflate": False}),
    "lifespan": ("off", {"lifespan": "off"}),
    "env_file": (".env", None),
    "log_config": ({"version": 1}, {}),  # test_logs
    "log_level": ("warning", {"access_log": False}),  # test_logs
    "access_log": (True, {"access_log": True}),
    "use_colors": (True, {"use_colors": True}),
    "interface": ("asgi2", {"interface": "asgi2"}),
    "reload": (True, None),
    "reload_dirs": (["src"], None),
    "reload_delay": (1.0, None),
    "reload_includes": (["*.py"], None),
    "reload_excludes": (["*.txt"], None),
    "workers": (2, None),
    "proxy_headers": (False, {"proxy_headers": False}),
    "server_header": (False, {"server_header": False}),
    "date_header": (False, {"date_header": False}),
    "forwarded_allow_ips": (["10.0.0.0/8"], {"forwarded_allow_ips": ("10.0.0.0/8",)}),
    "root_path": ("/api", {"root_path": "/api"}),
    "limit_concurrency": (9, {"limit_concurrency": 9}),
    "limit_max_requests": (9, {}),  # test_a_server_stops_after_so_many_requests
    "limit_max_requests_jitter": (9, {}),  # test_the_limit_of_requests_has_its_jitter
    "backlog": (9, {"backlog": 9}),
    "timeout_keep_alive": (9, {"timeout_keep_alive": 9}),
    "timeout_notify": (9, None),
    "timeout_graceful_shutdown": (9, {"timeout_graceful_shutdown": 9}),
    "timeout_worker_healthcheck": (9, None),
    "callback_notify": (print, None),
    "ssl_certfile": ("c.pem", {"ssl_certfile": "c.pem"}),
    "ssl_keyfile": ("k.pem", {"ssl_keyfile": "k.pem"}),
    "ssl_keyfile_password": ("x", {"ssl_keyfile_password": "x"}),
    "ssl_version": (ssl.PROTOCOL_TLS_CLIENT, None),
    "ssl_cert_reqs": (ssl.CERT_OPTIONAL, {"ssl_cert_reqs": "optional"}),
    "ssl_ca_certs": ("ca.pem", {"ssl_ca_certs": "ca.pem"}),
    "ssl_ciphers": ("ECDHE", {"ssl_ciphers": "ECDHE"}),
    "ssl_context_factory": (lambda config, default: CONTEXT, {"ssl_context": CONTEXT}),
    "headers": ([("x-one", "1")], {"headers": (("x-one", "1"),)}),
    "factory": (True, {"factory": True}),
    "h11_max_incomplete_event_size": (9000, {"limit_request_head": 9000}),
    "reset_contextvars": (True, None),
}

#: What has to be given beside some of them.
BESIDE: dict[str, dict[str, Any]] = {
    "ssl_keyfile": {"ssl_certfile": "c.pem"},
    "ssl_keyfile_password": {"ssl_certfile": "c.pem"},
    "ssl_cert_reqs": {"ssl_certfile": "c.pem", "ssl_ca_certs": "ca.pem"},
    "ssl_ca_certs": {"ssl_certfile": "c.pem", "ssl_cert_reqs": ssl.CERT_REQUIRED},
    "ssl_ciphers": {"ssl_certfile": "c.pem"},
}


@pytest.mark.parametrize("keyword", GIVEN)
def test_a_keyword_is_obeyed_translated_or_refused(keyword: str) -> None:
    value, meaning = GIVEN[keyword]
    given = BESIDE.get(keyword, {}) | {keyword: value}

    if meaning is None:
        with pytest.raises(ConfigError) as caught:
            config(App(), **given)
        assert caught.value.option == keyword
        return
    ours = config(App(), **given).translate()
    for name, expected in meaning.items():
        assert getattr(ours, name) == expected


def test_no_keyword_is_left_out_of_the_test_above() -> None:
    theirs = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    from inspect import signature

    assert set(GIVEN) == {*signature(theirs.Config).parameters} - {"app"}
    assert {*signature(theirs.run).parameters} - {*GIVEN} == {"app", "app_dir"}
