"""What gunicorn's settings mean; how a worker behaves is in tests/e2e/test_compat_gunicorn.py."""

from __future__ import annotations

import signal
import ssl
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("gunicorn", reason="gunicorn is not installed")

from gunicorn.config import Config as Settings

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


def test_a_worker_gives_two_signs_of_life_within_the_timeout(worker: Any) -> None:
    assert worker._beat_every == 0.5


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
