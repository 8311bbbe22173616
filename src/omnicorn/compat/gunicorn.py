"""omnicorn under gunicorn: ``gunicorn -k omnicorn.compat.gunicorn.Worker main:app``.

What this file alone decides: how a server keeps gunicorn's contract with its workers, and what
gunicorn's settings mean here.

The contract::

    every second         notify(), from the event loop: a loop that hangs is found out
                         the parent has gone, or ``alive`` is false: stop
    SIGTERM              drain, within four fifths of graceful_timeout
    SIGINT, SIGQUIT      worker_int hook; cancel what runs, then stop
    SIGABRT              worker_abort hook; exit 1 (the arbiter's word to one that hangs)
    SIGUSR1, SIGWINCH    as gunicorn's base class has it: open log files again; nothing
    max_requests         drain, exit 0; the arbiter starts another worker
    cannot start         exit 3, on which the arbiter stops

The last fifth of graceful_timeout is for the application's shutdown: when all is over, the
arbiter kills. The hooks ``pre_request`` and ``post_request`` are not called, as they are about
WSGI requests of gunicorn's own. What has been set and has no effect here, the arbiter names in a
warning when it starts.
"""

from __future__ import annotations

import logging
import os
import signal
import ssl
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker as _Base

from omnicorn.config import Config
from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.runtime.hosts import hosting
from omnicorn.runtime.run import EXIT_APP, loop_runner
from omnicorn.runtime.server import Server, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from omnicorn.runtime.hosts import Host

__all__ = ["AsyncioWorker", "TrioWorker", "UvloopWorker", "Worker", "translate", "unused"]

_BEAT = 1.0
"""Seconds between two signs of life; gunicorn's ``timeout`` is at least 1, mostly 30."""
_COUNT = 0.1
"""The same where requests are counted, for how many there have been is seen then."""

#: Settings that workers of gunicorn's own obey and this one does not, whatever its version.
_UNUSED = (
    "worker_connections", "secure_scheme_headers", "forwarder_headers", "header_map",
    "permit_obsolete_folding", "strip_header_spaces", "permit_unconventional_http_method",
    "permit_unconventional_http_version", "casefold_http_method", "http_parser",
    "http2_max_frame_size", "http2_max_header_list_size", "asgi_disconnect_grace_period",
    "tmp_upload_dir", "ssl_version", "suppress_ragged_eofs", "do_handshake_on_connect",
    "pre_request", "post_request",
)  # fmt: skip


class Worker(_Base):  # type: ignore[misc]  # gunicorn has no types
    """A gunicorn worker that serves with omnicorn, on uvloop where it is installed.

    The application is an ASGI or WSGI application.
    """

    loop: ClassVar[str] = "auto"
    alive: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._server: Server | None = None
        self._host: Host | None = None
        beat = _COUNT if self.cfg.max_requests else _BEAT
        self._beat_every = min(beat, self.timeout / 2) if self.timeout else beat
        self._told: Any = None
        self._aborted = False

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by the arbiter once: say what has no effect."""
        names = unused(cfg)
        if names:
            log.warning("Of no effect with this worker: %s", ", ".join(names))

    def init_signals(self) -> None:
        """Gunicorn's handlers, without its pipe: an event loop wakes up by itself."""
        super().init_signals()
        signal.set_wakeup_fd(-1)

    def run(self) -> None:
        """Serve until a signal, or until something in the contract says so."""
        try:
            config = translate(self.cfg, self.loop)
            self._share_logs()
            self._server = Server(
                self.wsgi, config, sockets=[listener.sock for listener in self.sockets]
            )
            loop_runner(config.loop)(self._serve)
        except ConfigError as error:
            self.log.error("%s", error)
            sys.exit(EXIT_APP)
        except LifespanFailed as failure:
            cause = failure.__cause__
            self.log.error("The application did not start: %s", failure, exc_info=cause)
            sys.exit(EXIT_APP)

    async def _serve(self) -> None:
        server = self._server
        assert server is not None
        async with hosting() as host:
            self._told = host.create_future()
            self._host = host
            try:
                self._beat()
                await server.start(host)
                if self.alive:
                    await self._told
            except Stopped:
                self.log.info("The start was given up")
            finally:
                await server.stop()
                self._host = None

    def _beat(self) -> None:
        """Tell the arbiter that the loop goes round, and see whether it is enough."""
        host, server = self._host, self._server
        if host is None or server is None or self._aborted:
            return
        host.call_at(host.time() + self._beat_every, self._beat)
        self.notify()
        if self.alive and self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False
        if self.alive and server.requests >= self.max_requests:
            self.log.info("Autorestarting worker after %d requests.", server.requests)
            self.alive = False
        if not self.alive:
            self._stop()

    def _stop(self) -> None:
        """In the loop: end `_serve`; once more does nothing."""
        assert self._server is not None
        self._server.give_up()
        if not self._told.done():
            self._told.set_result(None)

    def _hurry(self) -> None:
        """In the loop: end `_serve`, and wait for no request; once more, not for the shutdown."""
        assert self._server is not None
        self._stop()
        self._server.hurry()

    # ------------------------------------------------------------------ signals

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: drain."""
        self.alive = False
        self._in_loop(self._stop)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT, SIGQUIT: stop, and wait for no request."""
        self.alive = False
        self.cfg.worker_int(self)
        self._in_loop(self._hurry)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """SIGABRT: leave whatever hangs by an exception; without a further sign of life, the
        arbiter kills where that is caught."""
        self._aborted = True
        super().handle_abort(sig, frame)

    def _in_loop(self, function: Callable[[], None]) -> None:
        host = self._host
        if host is not None:  # else `_serve` finds `alive` false
            host.call_soon_threadsafe(function)

    # ------------------------------------------------------------------ logs

    def _share_logs(self) -> None:
        """Let omnicorn's loggers write where gunicorn's do."""
        for name, gunicorns in (
            ("omnicorn", self.log.error_log),
            ("omnicorn.access", self.log.access_log),
        ):
            logger = logging.getLogger(name)
            logger.handlers = gunicorns.handlers
            logger.setLevel(gunicorns.level)
            logger.propagate = False


class AsyncioWorker(Worker):
    """The same on asyncio's own loop."""

    loop = "asyncio"


class UvloopWorker(Worker):
    """The same on uvloop, which must be installed."""

    loop = "uvloop"


class TrioWorker(Worker):
    """The same on trio, which must be installed."""

    loop = "trio"


def translate(cfg: Any, loop: str = "auto") -> Config:
    """Gunicorn's settings as omnicorn has them.

    Those that a worker has no part in (``bind``, ``workers``, ``user``, ...) are left to the
    arbiter; see `Worker` and docs/guide/embedding.md for those that mean nothing here.

    Args:
        cfg: Gunicorn's configuration.
        loop: The event loop of the worker's class.

    Raises:
        ConfigError: A setting has no equivalent.
    """
    # The settings that are asked for by getattr are not in every version of gunicorn.
    protocol = getattr(cfg, "protocol", "http")
    if protocol != "http":
        raise ConfigError(
            f"protocol = {protocol!r}: this worker speaks HTTP; for another protocol run "
            f"omnicorn by itself, with --bind {protocol}:127.0.0.1:9000",
            "protocol",
        )
    options: dict[str, Any] = {
        "loop": getattr(cfg, "asgi_loop", loop) if loop == "auto" else loop,
        "lifespan": getattr(cfg, "asgi_lifespan", "auto"),
        "root_path": getattr(cfg, "root_path", ""),
        "backlog": cfg.backlog,
        # It has no shorter time than none, and 0 is none for gunicorn.
        "timeout_keep_alive": cfg.keepalive or 0.001,
        "timeout_graceful_shutdown": max(cfg.graceful_timeout * 0.8, 0.001),
        "limit_request_fields": cfg.limit_request_fields or 32768,
        "ws_max_size": getattr(cfg, "websocket_max_message_size", Config.ws_max_size),
        "forwarded_allow_ips": _addresses(cfg.forwarded_allow_ips),
        "access_log": bool(
            cfg.accesslog
            or cfg.logconfig
            or cfg.logconfig_dict
            or cfg.logconfig_json
            or (cfg.syslog and not cfg.disable_redirect_access_to_syslog)
        ),
        "access_log_format": cfg.access_log_format,
    }
    # Of both, 0 is no limit for gunicorn. Its limit of one field is one of the head here.
    line = cfg.limit_request_line or 1 << 20
    head = line + (cfg.limit_request_field_size or 1 << 20)
    options["limit_request_line"] = line
    options["limit_request_head"] = max(head, Config.limit_request_head)
    for name, option in (
        ("http2_max_concurrent_streams", "h2_max_concurrent_streams"),
        ("http2_initial_window_size", "h2_initial_stream_window"),
    ):
        if _is_set(cfg, name):
            options[option] = getattr(cfg, name)
    if cfg.threads > 1:
        options["threads"] = cfg.threads
    if str(cfg.proxy_protocol).lower() not in ("off", "false"):
        options["proxy_protocol"] = True
        options["proxy_allow_from"] = _addresses(cfg.proxy_allow_ips)
    if cfg.is_ssl:
        options |= _tls(cfg)
    config = Config(**options)
    config.validate()
    return config


def unused(cfg: Any) -> list[str]:
    """The settings that have been set and mean nothing to this worker.

    Args:
        cfg: Gunicorn's configuration.
    """
    names = [name for name in _UNUSED if _is_set(cfg, name)]
    if cfg.logger_class.access is not Logger.access:  # it is asked for its handlers alone
        names.append("statsd_host" if cfg.statsd_host else "logger_class (its method access)")
    return names


def _is_set(cfg: Any, name: str) -> bool:
    """Whether a setting is not the default; False where this version of gunicorn lacks it."""
    setting = cfg.settings.get(name)
    return setting is not None and setting.get() != type(setting)().get()


def _addresses(text: str | list[str]) -> tuple[str, ...]:
    each = text.split(",") if isinstance(text, str) else text
    return tuple(address.strip() for address in each if address.strip())


def _tls(cfg: Any) -> dict[str, Any]:
    setting = cfg.settings["ssl_context"]
    if setting.get() is not setting.default:
        from gunicorn.sock import ssl_context

        return {"ssl_context": ssl_context(cfg)}
    required = {ssl.CERT_OPTIONAL: "optional", ssl.CERT_REQUIRED: "required"}
    return {
        "ssl_certfile": cfg.certfile,
        "ssl_keyfile": cfg.keyfile,
        "ssl_ciphers": cfg.ciphers,
        "ssl_cert_reqs": required.get(cfg.cert_reqs, "none"),
        "ssl_ca_certs": cfg.ca_certs if cfg.cert_reqs else None,
    }
