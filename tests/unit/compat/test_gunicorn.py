"""What gunicorn's settings mean; how a worker behaves is in tests/e2e/test_compat_gunicorn.py."""

from __future__ import annotations

import signal
import ssl
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

pytest.importorskip("gunicorn", reason="gunicorn is not installed")

from gunicorn.config import Config as Settings
from gunicorn.glogging import Logger

from omnicorn.compat import gunicorn
from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from omnicorn.config import Config


def settings(**values: Any) -> Any:
    made = Settings()
    for name, value in values.items():
        made.set(name, value)
    return made


def translated(**values: Any) -> Config:
    return gunicorn.translate(settings(**values))


def test_the_defaults_are_those_of_gunicorn() -> None:
    ours = translated()

    assert ours.timeout_keep_alive == 2
    assert ours.limit_request_line == 4094
    assert ours.limit_request_head == 65536
    assert ours.limit_request_fields == 100
    assert list(ours.forwarded_allow_ips) == ["127.0.0.1", "::1"]
    assert not ours.access_log
    assert ours.timeout_graceful_shutdown == pytest.approx(24)


def test_settings_are_translated() -> None:
    ours = translated(
        keepalive=65,
        graceful_timeout=10,
        forwarded_allow_ips="10.0.0.0/8,192.0.2.1",
        limit_request_line=8000,
        limit_request_field_size=100000,
        accesslog="-",
        access_log_format='%(h)s "%(r)s" %(s)s %(D)s %({x-request-id}i)s',
        threads=7,
        backlog=64,
        asgi_lifespan="on",
        root_path="/api",
        proxy_protocol="auto",
        proxy_allow_ips="10.9.9.9",
    )

    assert ours.timeout_keep_alive == 65
    assert ours.timeout_graceful_shutdown == 8
    assert list(ours.forwarded_allow_ips) == ["10.0.0.0/8", "192.0.2.1"]
    assert (ours.limit_request_line, ours.limit_request_head) == (8000, 108000)
    assert ours.access_log
    assert ours.access_log_format == '%(h)s "%(r)s" %(s)s %(D)s %({x-request-id}i)s'
    assert (ours.threads, ours.backlog) == (7, 64)
    assert (ours.lifespan, ours.root_path) == ("on", "/api")
    assert ours.proxy_protocol and list(ours.proxy_allow_from) == ["10.9.9.9"]


def test_limits_of_http2_are_translated_where_they_are_set() -> None:
    ours = translated()
    assert (ours.h2_max_concurrent_streams, ours.h2_initial_stream_window) == (128, 256 << 10)

    ours = translated(http2_max_concurrent_streams=9, http2_initial_window_size=70000)
    assert (ours.h2_max_concurrent_streams, ours.h2_initial_stream_window) == (9, 70000)


@pytest.mark.parametrize(
    ("setting", "worker", "loop"),
    [("auto", "auto", "auto"), ("asyncio", "auto", "asyncio"), ("asyncio", "trio", "trio")],
)
def test_the_loop_is_the_workers_else_that_of_the_setting(
    setting: str, worker: str, loop: str
) -> None:
    assert gunicorn.translate(settings(asgi_loop=setting), worker).loop == loop


def test_zero_is_no_limit() -> None:
    ours = translated(limit_request_line=0, limit_request_field_size=0, keepalive=0)

    assert ours.limit_request_line == 1 << 20
    assert ours.limit_request_head == 2 << 20
    assert 0 < ours.timeout_keep_alive < 0.1


def test_another_protocol_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match="--bind uwsgi:") as caught:
        translated(protocol="uwsgi")
    assert caught.value.option == "protocol"


def test_tls_is_translated() -> None:
    ours = translated(
        certfile="server.pem", keyfile="key.pem", cert_reqs=ssl.CERT_REQUIRED, ca_certs="ca.pem"
    )

    assert (ours.ssl_certfile, ours.ssl_keyfile) == ("server.pem", "key.pem")
    assert (ours.ssl_cert_reqs, ours.ssl_ca_certs) == ("required", "ca.pem")


def test_a_context_of_the_hooks_is_used(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    ours = translated(certfile="server.pem", ssl_context=lambda config, default: context)

    assert ours.ssl_context is context
    assert ours.ssl_certfile is None


# ------------------------------------------------------------------------------ what has no effect


class Silent(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Leaves requests out of the access log."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None: ...


class Coloured(Logger):  # type: ignore[misc]
    """Changes nothing that has no effect here."""


UNUSED: dict[str, Any] = {
    "worker_connections": 10,
    "secure_scheme_headers": {"X-FORWARDED-PROTO": "https"},
    "forwarder_headers": "REMOTE_USER",
    "header_map": "refuse",
    "permit_obsolete_folding": True,
    "strip_header_spaces": True,
    "permit_unconventional_http_method": True,
    "permit_unconventional_http_version": True,
    "casefold_http_method": True,
    "http_parser": "python",
    "http2_max_frame_size": 20000,
    "http2_max_header_list_size": 20000,
    "asgi_disconnect_grace_period": 9,
    "tmp_upload_dir": "/tmp",
    "ssl_version": ssl.PROTOCOL_TLS_SERVER,
    "suppress_ragged_eofs": False,
    "do_handshake_on_connect": True,
    "pre_request": lambda worker, request: None,
    "post_request": lambda worker, request: None,
    "statsd_host": "localhost:8125",
}


@pytest.mark.parametrize("name", UNUSED)
def test_a_setting_that_means_nothing_here_is_named(name: str) -> None:
    assert gunicorn.unused(settings(**{name: UNUSED[name]})) == [name]


@pytest.mark.parametrize(
    ("kind", "named"), [(Silent, ["logger_class (its method access)"]), (Coloured, [])]
)
def test_a_logger_is_named_if_it_wants_to_see_requests(kind: Any, named: list[str]) -> None:
    assert gunicorn.unused(settings(logger_class=kind)) == named


def test_every_setting_is_obeyed_by_the_arbiter_or_the_worker_or_named() -> None:
    translated_here = {
        "access_log_format", "accesslog", "asgi_lifespan", "asgi_loop", "backlog", "ca_certs",
        "cert_reqs", "certfile", "ciphers", "disable_redirect_access_to_syslog",
        "forwarded_allow_ips", "graceful_timeout", "http2_initial_window_size",
        "http2_max_concurrent_streams", "keepalive", "keyfile", "limit_request_field_size",
        "limit_request_fields", "limit_request_line", "logconfig", "logconfig_dict",
        "logconfig_json", "protocol", "proxy_allow_ips", "proxy_protocol", "root_path",
        "ssl_context", "syslog", "threads", "websocket_max_message_size", "worker_int",
        "worker_abort", "max_requests", "max_requests_jitter", "timeout",
    }  # fmt: skip
    # Who asks for HTTP/2 gets it, of h2c too; a protocol that is not HTTP is refused; and there
    # is no sendfile that could be turned off.
    as_documented = {"http_protocols", "http2_cleartext", "uwsgi_allow_ips", "sendfile"}
    of_the_logger = {
        "capture_output", "dogstatsd_tags", "errorlog", "logger_class", "loglevel",
        "statsd_prefix", "syslog_addr", "syslog_facility", "syslog_prefix",
    }  # fmt: skip
    of_the_arbiter_and_the_base_class = {
        "bind", "chdir", "check_config", "child_exit", "config", "control_socket",
        "control_socket_disable", "control_socket_mode", "daemon", "default_proc_name",
        "enable_backlog_metric", "enable_stdio_inheritance", "group", "initgroups",
        "nworkers_changed", "on_exit", "on_reload", "on_starting", "paste", "pidfile", "post_fork",
        "post_worker_init", "pre_exec", "pre_fork", "preload_app", "print_config", "proc_name",
        "pythonpath", "raw_env", "raw_paste_global_conf", "reload", "reload_engine",
        "reload_extra_files", "reuse_port", "spew", "umask", "user", "when_ready", "worker_class",
        "worker_exit", "worker_tmp_dir", "workers", "wsgi_app",
    }  # fmt: skip
    known = (
        translated_here | as_documented | of_the_logger | of_the_arbiter_and_the_base_class
    ).union(UNUSED)

    assert [name for name in Settings().settings if name not in known and "dirty" not in name] == []


def test_the_arbiter_warns_once_of_what_has_no_effect() -> None:
    class Log:
        lines: ClassVar[list[str]] = []

        def warning(self, message: str, *args: object) -> None:
            self.lines.append(message % args)

    gunicorn.Worker.check_config(settings(), Log())
    assert Log.lines == []

    gunicorn.Worker.check_config(settings(worker_connections=10, header_map="refuse"), Log())
    assert Log.lines == ["Of no effect with this worker: worker_connections, header_map"]


# ------------------------------------------------------------------------------ the worker


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Any]:
    made = settings(
        max_requests=10,
        max_requests_jitter=5,
        worker_tmp_dir=str(tmp_path),
        worker_int=lambda worker: worker.hooks.append("worker_int"),
        worker_abort=lambda worker: worker.hooks.append("worker_abort"),
    )
    worker: Any = gunicorn.Worker(1, 1, [], None, 1, made, None)
    worker.hooks = []
    yield worker
    worker.tmp.close()


def test_a_worker_takes_gunicorns_jitter(worker: Any) -> None:
    assert 10 <= worker.max_requests <= 15


@pytest.mark.parametrize(
    ("timeout", "counts", "seconds"), [(1, 0, 0.5), (30, 0, 1.0), (0, 0, 1.0), (30, 10, 0.1)]
)
def test_a_worker_gives_two_signs_of_life_within_the_timeout_and_counts_often(
    tmp_path: Path, timeout: int, counts: int, seconds: float
) -> None:
    made = settings(max_requests=counts, worker_tmp_dir=str(tmp_path))
    worker: Any = gunicorn.Worker(1, 1, [], None, timeout, made, None)
    worker.tmp.close()
    assert worker._beat_every == seconds


def test_signals_before_the_loop_runs_end_what_follows(worker: Any) -> None:
    worker.handle_exit(signal.SIGTERM, None)
    assert not worker.alive

    worker.handle_quit(signal.SIGQUIT, None)
    assert worker.hooks == ["worker_int"]


def test_an_abort_exits_with_1(worker: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        worker.handle_abort(signal.SIGABRT, None)

    assert caught.value.code == 1
    assert worker.hooks == ["worker_abort"]


def test_each_loop_has_its_class() -> None:
    names = [
        kind.loop
        for kind in (
            gunicorn.Worker,
            gunicorn.AsyncioWorker,
            gunicorn.UvloopWorker,
            gunicorn.TrioWorker,
        )
    ]
    assert names == ["auto", "asyncio", "uvloop", "trio"]
