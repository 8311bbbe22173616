"""What programs that embed uvicorn use of it: ``from omnicorn.compat import uvicorn``.

What this file alone decides: which of uvicorn's keywords mean which option, and the order in
which an embedder's overrides are called::

    serve ──▶ capture_signals ──▶ install_signal_handlers
          ──▶ startup ──▶ main_loop ──▶ on_tick, ten times a second ──▶ shutdown
    handle_exit, by signals: should_exit, and with a second SIGINT force_exit

Rules:

1. A keyword keeps uvicorn's meaning, or raises `ConfigError` that says what to do instead;
   none is ignored. A keyword that is not given has omnicorn's default: keep-alive is 75 s and
   not 5, a shutdown has 30 s and not for ever, and HTTP/2 is spoken with who asks for it.
2. As with uvicorn, `Config` sets up logging when it is made, `Server.serve` raises
   ``SystemExit(3)`` if it cannot start, and signals that were caught meanwhile are raised again
   once the server has stopped, for the program's own handlers.
3. Attributes may be set at any time from any thread: the loop looks at ``should_exit`` ten
   times a second, as uvicorn does. An event would be quicker, but subclasses override what
   happens at each look.

A cancelled ``serve`` stops in order, which uvicorn's does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import sys
import threading
from random import randint
from typing import TYPE_CHECKING, Any, NoReturn

from omnicorn.bridge.lifespan import Lifespan
from omnicorn.config import Config as _Config
from omnicorn.config.options import OPTIONS
from omnicorn.config.spelling import did_you_mean
from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.runtime import server as _runtime
from omnicorn.runtime.loader import load
from omnicorn.runtime.run import EXIT_APP, loop_factory
from omnicorn.transports._asyncio import AsyncioLoop
from omnicorn.transports.sockets import bind, describe

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Generator, Sequence
    from types import FrameType

    from omnicorn.transports.sockets import Listeners

__all__ = ["LOGGING_CONFIG", "Config", "LifespanOn", "Server", "main", "run"]

logger = logging.getLogger("omnicorn")

HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_TICK = 0.1
"""Seconds between two looks at what an embedder may have set."""

LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {"()": "logging.Formatter", "fmt": "%(levelname)s: %(message)s"},
        "access": {"()": "logging.Formatter", "fmt": "%(levelname)s: %(message)s"},
    },
    "handlers": {
        "default": {
            "formatter": "default",
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stderr",
        },
        "access": {
            "formatter": "access",
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
        },
    },
    "loggers": {
        "uvicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"level": "INFO"},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
"""For programs that change a copy and pass it as ``log_config``; what is passed unchanged is
the logging that omnicorn has anyhow."""

#: Keywords that are options of the same name and meaning.
_SAME = (
    "host", "port", "uds", "fd", "lifespan", "interface", "factory", "root_path", "backlog",
    "proxy_headers", "server_header", "date_header", "access_log", "use_colors",
    "limit_concurrency", "timeout_keep_alive", "ws_max_size", "ws_max_queue",
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
    "timeout_graceful_shutdown": None,
    "ssl_keyfile": None,
    "ssl_certfile": None,
    "ssl_cert_reqs": ssl.CERT_NONE,
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
    "ssl_version": (ssl.PROTOCOL_TLS_SERVER, "give ssl_context_factory and set the version there"),
    "reset_contextvars": (False, "start the server with contextvars.Context().run"),
}

_CERT_REQS = {
    ssl.CERT_NONE: "none",
    ssl.CERT_OPTIONAL: "optional",
    ssl.CERT_REQUIRED: "required",
}


class LifespanOn:
    """One application's lifespan alone, as ``uvicorn.lifespan.on`` has it.

    A `Server` runs its application's lifespan itself; this is for programs that drive one.

    Args:
        config: Whose application it is.

    Attributes:
        should_exit: Whether the application refused to start; the reason is logged.
        state: What the application has put into its state.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.should_exit = False
        self.state: dict[str, Any] = {}
        self._lifespan: Lifespan | None = None

    async def startup(self) -> None:
        """Start the application."""
        if not self.config.loaded:
            self.config.load()
        loop = AsyncioLoop(asyncio.get_running_loop())
        self._lifespan = lifespan = Lifespan(self.config.loaded_app, loop, self.config.lifespan)
        try:
            await lifespan.startup()
        except LifespanFailed as failure:
            self.should_exit = True
            logger.error("The application did not start: %s", failure, exc_info=failure.__cause__)
        else:
            self.state.update(lifespan.state or {})

    async def shutdown(self) -> None:
        """Stop the application."""
        if self._lifespan is None or self.should_exit:
            return
        try:
            await self._lifespan.shutdown()
        except LifespanFailed as failure:
            self.should_exit = True
            logger.error("The application's shutdown failed: %s", failure)


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
        self.__dict__.update(values | options)
        self.app = app
        self.host = host
        self.port = port
        self.loaded = False
        self.loaded_app: Any = None
        self._context: ssl.SSLContext | None = None
        _Config(**self._options()).validate()  # what is wrong is to be said here
        self.configure_logging()

    lifespan_class = LifespanOn

    if TYPE_CHECKING:
        # The keywords.
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    @property
    def is_ssl(self) -> bool:
        """Whether TLS is spoken."""
        return bool(self.ssl_keyfile or self.ssl_certfile or self.ssl_context_factory)

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
        if self.ssl_context_factory is not None:
            if self._context is None:
                self._context = self.ssl_context_factory(self, self._default_context)
            options["ssl_context"] = self._context
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
        options["access_log"] = self.access_log and self._level() <= logging.INFO
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
        if self.h11_max_incomplete_event_size is not None:
            size = self.h11_max_incomplete_event_size
            options |= {"limit_request_head": size, "limit_request_line": size}
        if self.ssl_context_factory is not None:
            options = {name: value for name, value in options.items() if name[:4] != "ssl_"}
        return options

    def _http(self) -> str:
        self._choice("http", "auto", "h11", "httptools", "zttp")
        if self.http2 is None:
            return "auto"
        return "auto" if self.http2 else "1"

    def _level(self) -> int:
        """The number of ``log_level``.

        Raises:
            ConfigError: There is no such level.
        """
        from omnicorn.observability.logs import LEVELS

        level = self.log_level
        if level is None:
            return logging.INFO
        if isinstance(level, int):
            return level
        if level.lower() not in LEVELS:
            raise ConfigError(
                f"log_level = {level!r}: expected one of {', '.join(LEVELS)}", "log_level"
            )
        return LEVELS[level.lower()]

    def _choice(self, name: str, *same: str) -> str:
        value = getattr(self, name)
        if value in same:
            return "auto"
        if value == "none" and name == "ws":
            return "none"
        raise ConfigError(
            f"{name} = {value!r}: this server has an implementation of its own; leave it out", name
        )

    def _default_context(self) -> ssl.SSLContext:
        """What an `ssl_context_factory` may begin with."""
        from omnicorn.security.tls import Settings, make_context

        if self.ssl_certfile is None:
            return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
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
        from omnicorn.observability.logs import configure

        config, level = self.log_config, self.log_level
        access = logging.getLogger("omnicorn.access")
        if config == LOGGING_CONFIG:
            configure(level, None, self.use_colors)
        else:
            if config is not None:
                configure(
                    level,
                    _with_our_names(config) if isinstance(config, dict) else config,
                    self.use_colors,
                )
            if not access.handlers:
                # Its lines go where the program's logging has them go, not to standard output.
                access.addHandler(logging.NullHandler())
        if level is not None:
            for each in (logger, access):
                each.setLevel(self._level())

    def load(self) -> None:
        """Import the application.

        Raises:
            ConfigError: It cannot be.
        """
        self.loaded_app = self.load_app()
        self.loaded = True

    def load_app(self) -> Any:
        """The application itself; see `load`."""
        return load(self.app, self.translate())

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


def _with_our_names(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration of logging for uvicorn's loggers, for ours."""
    config = dict(config)
    loggers = dict(config.get("loggers", {}))
    for name in list(loggers):
        if name.partition(".")[0] == "uvicorn":
            loggers.setdefault("omnicorn" + name.removeprefix("uvicorn"), loggers.pop(name))
    config["loggers"] = loggers
    config["formatters"] = {
        name: _formatter(name, formatter)
        for name, formatter in config.get("formatters", {}).items()
    }
    return config


def _formatter(name: str, formatter: Any) -> Any:
    """The same formatter, or what stands for one of ``uvicorn.logging``."""
    if not isinstance(formatter, dict) or not str(formatter.get("()", "")).startswith("uvicorn."):
        return formatter
    text = formatter.get("fmt") or "%(message)s"
    # Our access line is that of uvicorn, as one message.
    text = text.replace("%(levelprefix)s", "%(levelname)s:").replace(
        '%(client_addr)s - "%(request_line)s" %(status_code)s', "%(message)s"
    )
    if any(atom in text for atom in ("client_addr", "request_line", "status_code")):
        raise ConfigError(
            f"log_config: the formatter {name!r} takes a request apart, which records do not "
            "allow here: write %(message)s, and give access_log_format to omnicorn itself",
            "log_config",
        )
    return {"format": text, **{key: formatter[key] for key in ("datefmt",) if key in formatter}}


class ServerState:
    """What uvicorn shares among its connections; of that, the count of requests."""

    def __init__(self) -> None:
        self.server: _runtime.Server | None = None

    @property
    def total_requests(self) -> int:
        """Requests since the start, those that are not answered yet included."""
        return 0 if self.server is None else self.server.requests


class _Listening:
    """The part of `asyncio.Server` that embedders look at."""

    def __init__(self, sock: socket.socket) -> None:
        self.sockets = (sock,)


class Server:
    """Serves what a `Config` names, from the running asyncio loop or one of its own.

    Args:
        config: The configuration.

    Attributes:
        started: Whether it has begun to serve; it stays true.
        should_exit: Set it to stop the server.
        force_exit: Set it, too, to wait for no request.
        servers: From `startup` on, one object for each listening socket, with ``sockets``.
        lifespan: Kept for programs that set it; not used.
    """

    lifespan: Any
    servers: list[_Listening]

    def __init__(self, config: Config) -> None:
        self.config = config
        self.server_state = ServerState()
        self.started = False
        self.should_exit = False
        self.force_exit = False
        self.limit_max_requests: int | None = None
        self._server: _runtime.Server | None = None
        self._listeners: Listeners | None = None
        self._captured_signals: list[int] = []
        self._handlers: dict[int, tuple[Any, Any]] = {}
        self._is_over = False

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in a loop of its own until a signal or ``should_exit``; blocks.

        Args:
            sockets: Bound sockets to serve on, in the place of what the configuration names.

        Raises:
            SystemExit: With 3, if it cannot start; the reason is logged.
            KeyboardInterrupt: SIGINT came; the server has stopped.
        """
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self.serve(sockets))

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in the running loop; see `run`."""
        with self.capture_signals():
            await self._serve(sockets)

    async def _serve(self, sockets: list[socket.socket] | None) -> None:
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets)
        try:
            await self.main_loop()
        finally:
            await self.shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and listen.

        Args:
            sockets: Bound sockets, in the place of what the configuration names.

        Raises:
            SystemExit: With 3, if that cannot be; the reason is logged.
        """
        self._listeners = None
        try:
            if not self.config.loaded:
                self.config.load()
            config = self.config.translate().replace(factory=False)
            listening = sockets
            if listening is None:
                self._listeners = _bind(config)
                listening = self._listeners.sockets
            server = _runtime.Server(self.config.loaded_app, config, sockets=listening)
            await server.start()
        except (ConfigError, LifespanFailed) as error:
            if self._listeners is not None:
                self._listeners.close()
            if isinstance(error, ConfigError):
                logger.error("%s", error)
            else:
                cause = error.__cause__
                logger.error("The application did not start: %s", error, exc_info=cause)
            self.should_exit = True
            sys.exit(EXIT_APP)
        self._server = self.server_state.server = server
        self.servers = [_Listening(sock) for sock in listening]
        limit = self.config.limit_max_requests
        if limit is not None:
            self.limit_max_requests = limit + randint(0, self.config.limit_max_requests_jitter)
        self.started = True

    async def main_loop(self) -> None:
        """Wait until `on_tick` says that it is enough."""
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % 864000
            await asyncio.sleep(_TICK)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends `main_loop`.

        Args:
            counter: Of these calls, beginning at 0 again every day.
        """
        if self.should_exit:
            return True
        limit = self.limit_max_requests
        if limit is None or self.server_state.total_requests < limit:
            return False
        logger.warning("The server stops: it has had %d requests", limit)
        return True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop the application; nothing if it has not started.

        Args:
            sockets: Those of `startup`; they are closed by then.
        """
        server, self._server = self._server, None
        if server is None:
            return
        stopping = asyncio.ensure_future(server.stop())
        cancelled: asyncio.CancelledError | None = None
        while not stopping.done():
            if self.force_exit:
                server.hurry()
            try:
                await asyncio.wait((stopping,), timeout=_TICK)
            except asyncio.CancelledError as exc:
                cancelled = exc
                server.hurry()
        if self._listeners is not None:
            self._listeners.close()  # also removes the file of a Unix socket
        if cancelled is not None:
            raise cancelled
        stopping.result()

    # ------------------------------------------------------------------ signals

    def install_signal_handlers(self) -> None:
        """Have SIGINT and SIGTERM call `handle_exit`.

        Whoever overrides it to do nothing keeps the program's own handlers.
        """
        for number in HANDLED_SIGNALS:
            signal.signal(number, self.handle_exit)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals meanwhile, and raise them again afterwards; in the main thread alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in HANDLED_SIGNALS}
        self.install_signal_handlers()
        self._handlers = {
            number: (signal.getsignal(number), previous) for number, previous in before.items()
        }
        try:
            yield
        finally:
            self._is_over = True
            for number, (installed, handler) in self._handlers.items():
                if signal.getsignal(number) != installed:
                    continue  # of a server that started later: it puts back what was before us
                owner = getattr(handler, "__self__", None)
                while isinstance(owner, Server) and owner._is_over:
                    handler = owner._handlers[number][1]
                    owner = getattr(handler, "__self__", None)
                if handler is not None:  # None: not made by Python, and so not to be put back
                    signal.signal(number, handler)
        for captured in reversed(self._captured_signals):
            signal.raise_signal(captured)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What a signal does: stop; a second SIGINT makes haste."""
        self._captured_signals.append(sig)
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        else:
            self.should_exit = True


def _bind(config: _Config) -> Listeners:
    return bind(
        config.binds,
        backlog=config.backlog,
        reuse_port=config.reuse_port,
        scheme="https" if config.tls else "http",
    )


def run(app: Any, *, app_dir: str | None = None, **options: Any) -> None:
    """Serve until a signal; blocks.

    Args:
        app: An ASGI or WSGI application, or its import string.
        app_dir: Folder to import the application from.
        **options: The keywords of `Config`.

    Raises:
        ConfigError: A value is wrong, or a keyword has no equivalent.
        SystemExit: With 3, if it cannot start; the reason is logged.
    """
    if app_dir is not None:
        sys.path.insert(0, app_dir)
    server = Server(Config(app, **options))
    try:
        server.run()
    except KeyboardInterrupt:
        pass  # it has stopped in order


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The command line, which has uvicorn's flags where there is an equivalent.

    Args:
        args: Without the program's name; None takes those of the process.
    """
    from omnicorn.runtime.cli import main as command

    sys.exit(command(args))
