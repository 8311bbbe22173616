"""What uvicorn's keywords mean here.

Rules:

1. A keyword keeps uvicorn's meaning, or raises `ConfigError` that says what to do instead;
   none is ignored. A keyword that is not given has omnicorn's default: keep-alive is 75 s and
   not 5, a shutdown has 30 s and not for ever, and HTTP/2 is spoken with who asks for it.
2. As with uvicorn, logging is set up when a `Config` is made.
3. Attributes may be set later: they are translated when the server starts. Those of uvicorn's
   that would have no effect cannot be set.
4. An import string is looked up as Python has its path, with ``app_dir`` in front if it is given;
   the current folder has no precedence.
5. Whoever asks for ``ssl`` or sets it has that context used as it is, in the place of the files:
   those are not read again when they change.
"""

from __future__ import annotations

import logging
import os
import ssl as _ssl
import sys
from typing import TYPE_CHECKING, Any

from omnicorn.compat.uvicorn.lifespan import LifespanOn
from omnicorn.compat.uvicorn.logs import LOGGING_CONFIG, level_number, set_up
from omnicorn.config import Config as _Config
from omnicorn.config.options import OPTIONS
from omnicorn.config.spelling import did_you_mean
from omnicorn.errors import ConfigError
from omnicorn.runtime.loader import load
from omnicorn.runtime.run import loop_factory
from omnicorn.transports.sockets import bind, describe

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable
    from ssl import SSLContext

__all__ = ["LOGGING_CONFIG", "Config"]

logger = logging.getLogger("omnicorn")

#: Keywords that are options of the same name and meaning.
_SAME = (
    "host", "port", "uds", "fd", "lifespan", "interface", "factory", "root_path", "backlog",
    "proxy_headers", "server_header", "date_header", "access_log", "use_colors",
    "limit_concurrency", "ws_max_size", "ws_max_queue",
    "ws_per_message_deflate", "ssl_keyfile_password", "ssl_ciphers",
)  # fmt: skip

#: Those that are translated, with what they are when they are not given.
_TRANSLATED: dict[str, Any] = {
    "loop": "auto",
    "http": "auto",
    "http2": None,
    "ws": "auto",
    "ws_ping_interval": OPTIONS["ws_ping_interval"].default,
    "ws_ping_timeout": OPTIONS["ws_ping_timeout"].default,
    "log_config": LOGGING_CONFIG,
    "log_level": None,
    "forwarded_allow_ips": None,
    "limit_max_requests": None,
    "limit_max_requests_jitter": 0,
    "timeout_keep_alive": OPTIONS["timeout_keep_alive"].default,
    "timeout_graceful_shutdown": None,
    "ssl_keyfile": None,
    "ssl_certfile": None,
    "ssl_cert_reqs": _ssl.CERT_NONE,
    "ssl_ca_certs": None,
    "ssl_context_factory": None,
    "headers": None,
    "h11_max_incomplete_event_size": None,
}

#: Those without an equivalent: the value that asks for nothing, and what to do instead.
_REFUSED: dict[str, tuple[Any, str]] = {
    "env_file": (None, "load it before, as with dotenv.load_dotenv(env_file)"),
    "reload": (False, "start the program under a reloader, as with: watchfiles 'python main.py'"),
    "reload_dirs": (None, "leave it out: this server does not reload"),
    "reload_delay": (0.25, "leave it out: this server does not reload"),
    "reload_includes": (None, "leave it out: this server does not reload"),
    "reload_excludes": (None, "leave it out: this server does not reload"),
    "workers": (1, "run several processes: gunicorn -k omnicorn.compat.gunicorn.Worker -w 4"),
    "timeout_worker_healthcheck": (5, "leave it out: there are no workers"),
    "timeout_notify": (30, "call it from a task of your own, or from on_tick"),
    "callback_notify": (None, "call it from a task of your own, or from on_tick"),
    "ssl_version": (_ssl.PROTOCOL_TLS_SERVER, "give ssl_context_factory and set the version there"),
    "reset_contextvars": (False, "start the server with contextvars.Context().run"),
}

#: Attributes of uvicorn's that stand for its implementation, and what to do instead.
_ABSENT = {
    "http_protocol_class": "this server has an implementation of its own",
    "ws_protocol_class": "this server has an implementation of its own",
    "encoded_headers": "give headers",
    "lifespan_class": "the server runs the lifespan itself; lifespan='off' has it run none",
}

_CERT_REQS = {
    _ssl.CERT_NONE: "none",
    _ssl.CERT_OPTIONAL: "optional",
    _ssl.CERT_REQUIRED: "required",
}


class Config:
    """Takes uvicorn's keywords, keeps them as attributes, and makes omnicorn's `Config` of them.

    Args:
        app: An ASGI or WSGI application, or its import string.
        host: Address to listen on.
        port: Port to listen on; 0 takes any free one.
        **options: Further keywords of ``uvicorn.Config``.

    Raises:
        ConfigError: A value is wrong, or the keyword has no equivalent.
        TypeError: uvicorn knows no such keyword.
    """

    def __init__(self, app: Any, host: str = "127.0.0.1", port: int = 8000, **options: Any) -> None:
        values = {name: OPTIONS[name].default for name in _SAME} | _TRANSLATED
        values |= {name: nothing for name, (nothing, _) in _REFUSED.items()}
        for name in options:
            if name not in values:
                raise TypeError(f"uvicorn.Config has no {name!r}{did_you_mean(name, values)}")
        values |= options
        values["workers"] = values["workers"] or 1
        values["headers"] = values["headers"] or []
        self.__dict__.update(values)
        self.app = app
        self.host = host
        self.port = port
        self.loaded = False
        self.loaded_app: Any = None
        self._app_dir: str | None = None
        self._context: SSLContext | None = None
        _Config(**self._options()).validate()  # what is wrong is to be said here
        self.configure_logging()

    lifespan_class = LifespanOn
    should_reload = False
    use_subprocess = False

    def __getattr__(self, name: str) -> Any:
        instead = f": {_ABSENT[name]}" if name in _ABSENT else ""
        raise AttributeError(f"this Config has no {name!r}{instead}", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _ABSENT:
            raise ConfigError(f"{name} cannot be set: {_ABSENT[name]}", name)
        super().__setattr__(name, value)

    @property
    def ssl(self) -> SSLContext | None:
        """The context of TLS, made when it is asked for first; None without TLS."""
        if self._context is None and self.is_ssl:
            if self.ssl_context_factory is not None:
                self._context = self.ssl_context_factory(self, self._default_context)
            else:
                self._context = self._default_context()
        return self._context

    @ssl.setter
    def ssl(self, context: SSLContext | None) -> None:
        self._context = context
        if context is None and self.is_ssl:
            raise ConfigError("ssl = None: leave ssl_certfile out instead", "ssl")

    @property
    def is_ssl(self) -> bool:
        """Whether TLS is spoken."""
        given = self.ssl_keyfile or self.ssl_certfile or self.ssl_context_factory
        return bool(given) or self._context is not None

    @property
    def asgi_version(self) -> str:
        """Of the scopes."""
        return "2.0" if self.interface == "asgi2" else "3.0"

    def translate(self) -> _Config:
        """The same as omnicorn has it, from the attributes as they are now.

        Raises:
            ConfigError: A value is wrong, or a keyword has no equivalent.
        """
        options = self._options()
        if self.ssl_context_factory is not None or self._context is not None:
            options["ssl_context"] = self.ssl
        config = _Config(**options)
        config.validate()
        return config

    def _options(self) -> dict[str, Any]:
        for name, (nothing, instead) in _REFUSED.items():
            value = getattr(self, name)
            if value not in (nothing, None, []):
                raise ConfigError(f"{name} = {value!r} has no equivalent here: {instead}", name)
        options = {name: getattr(self, name) for name in _SAME}
        options |= {
            name: os.fspath(path)
            for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs", "uds")
            if (path := getattr(self, name)) is not None
        }
        options["http"] = self._http()
        options["ws"] = self._choice("ws", "auto", "websockets", "websockets-sansio", "wsproto")
        options["ws_ping_interval"] = self.ws_ping_interval or 0
        options["ws_ping_timeout"] = self.ws_ping_timeout or 0
        options["headers"] = tuple(self.headers or ())
        options["access_log"] = self.access_log and level_number(self.log_level) <= logging.INFO
        options["ssl_cert_reqs"] = _CERT_REQS.get(self.ssl_cert_reqs, self.ssl_cert_reqs)
        trusted = self.forwarded_allow_ips
        if trusted is None:
            trusted = os.environ.get("FORWARDED_ALLOW_IPS")
        if isinstance(trusted, str):
            trusted = [each.strip() for each in trusted.split(",") if each.strip()]
        if trusted is not None:
            options["forwarded_allow_ips"] = tuple(trusted)
        if self.timeout_graceful_shutdown is not None:
            # 0 is a time for uvicorn.
            options["timeout_graceful_shutdown"] = self.timeout_graceful_shutdown or 0.001
        options["timeout_keep_alive"] = self.timeout_keep_alive or 0.001
        for name in ("limit_max_requests", "limit_max_requests_jitter"):
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or number < 0):
                raise ConfigError(f"{name} = {number!r}: expected a number of 0 or more", name)
        if self.h11_max_incomplete_event_size is not None:
            size = self.h11_max_incomplete_event_size
            options |= {"limit_request_head": size, "limit_request_line": size}
        if self.ssl_context_factory is not None or self._context is not None:
            options = {name: value for name, value in options.items() if name[:4] != "ssl_"}
        return options

    def _http(self) -> str:
        self._choice("http", "auto", "h11", "httptools", "zttp")
        if self.http2 is None:
            return "auto"
        return "auto" if self.http2 else "1"

    def _choice(self, name: str, *same: str) -> str:
        value = getattr(self, name)
        if value in same:
            return "auto"
        if value == "none" and name == "ws":
            return "none"
        raise ConfigError(
            f"{name} = {value!r}: this server has an implementation of its own; leave it out", name
        )

    def _default_context(self) -> SSLContext:
        """What an `ssl_context_factory` may begin with."""
        from omnicorn.security.tls import Settings, make_context

        if self.ssl_certfile is None:
            return _ssl.SSLContext(_ssl.PROTOCOL_TLS_SERVER)
        return make_context(
            Settings(
                os.fspath(self.ssl_certfile),
                None if self.ssl_keyfile is None else os.fspath(self.ssl_keyfile),
                self.ssl_keyfile_password,
                (),
                _CERT_REQS.get(self.ssl_cert_reqs, "none"),
                None if self.ssl_ca_certs is None else os.fspath(self.ssl_ca_certs),
                None,
                "tls1.2",
                self.ssl_ciphers,
                ("http/1.1",) if self._http() == "1" else ("h2", "http/1.1"),
            )
        )

    def configure_logging(self) -> None:
        """Set up the loggers ``omnicorn`` and ``omnicorn.access``; if ``log_config`` is None,
        their levels at most.

        Raises:
            ConfigError: The configuration is wrong.
        """
        set_up(self.log_config, self.log_level, self.use_colors)

    def load(self) -> None:
        """Import the application.

        Raises:
            ConfigError: It cannot be.
        """
        self.loaded_app = self.load_app()
        self.loaded = True

    def load_app(self) -> Any:
        """The application itself; see `load`."""
        folder = self._app_dir
        if folder is None:
            # An archive may be the first of the path, too.
            folder = sys.path[0] if sys.path and os.path.isdir(sys.path[0] or ".") else "."
        return load(self.app, self.translate().replace(app_dir=folder or "."))

    def setup_event_loop(self) -> None:
        """Nothing: `Server.run` takes the loop of `get_loop_factory`."""

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """The maker of event loops that ``loop`` names; None is asyncio's own.

        Raises:
            ConfigError: It cannot be had.
        """
        if self.loop not in ("auto", "asyncio", "uvloop", "none"):
            raise ConfigError(
                f"loop = {self.loop!r}: run the loop yourself, as with "
                "asyncio.Runner(loop_factory=...).run(server.serve())",
                "loop",
            )
        return loop_factory("asyncio" if self.loop == "none" else self.loop)

    def bind_socket(self) -> socket.socket:
        """Bind the socket that the configuration names; inheritable. The caller closes it.

        Raises:
            SystemExit: With 1, if that cannot be; the reason is logged.
        """
        config = self.translate()
        try:
            listeners = bind(config.binds[:1], reuse_port=config.reuse_port, backlog=config.backlog)
        except ConfigError as error:
            logger.error("%s", error)
            sys.exit(1)
        sock, *more = listeners.sockets
        for other in more:  # a name with several addresses
            other.close()
        sock.set_inheritable(True)
        logger.info("omnicorn is bound to %s", describe(sock, "https" if config.tls else "http"))
        return sock
