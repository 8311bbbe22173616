"""The command ``omnicorn-scgi``: aioscgi's flags, and omnicorn behind them.

What this file alone decides: what those flags mean here, and the two things that aioscgi does
for systemd: it takes sockets that are passed (LISTEN_FDS), and says when it serves (READY=1) and
when it begins to stop (STOPPING=1).

==========================  =================================
``--tcp HOST:PORT``         ``--bind scgi:HOST:PORT``
``--unix-socket PATH``      ``--bind scgi:unix:PATH``
``--base-uri URI``          ``--root-path URI``
``--logging FILE``          ``--log-config FILE``
``--adapter NAME``          ``--loop NAME``; asyncio is on uvloop where that is installed
==========================  =================================

What aioscgi has no flag for comes from the variables ``OMNICORN_*`` and from omnicorn.toml.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from omnicorn import __version__
from omnicorn.config.sources import load as load_config
from omnicorn.errors import ConfigError, LifespanFailed
from omnicorn.runtime.loader import load
from omnicorn.runtime.run import EXIT_APP, EXIT_OK, EXIT_USAGE, loop_runner
from omnicorn.runtime.serving import serve

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from omnicorn.config import Config

_FIRST_FD = 3
"""The first descriptor that systemd passes (sd_listen_fds(3))."""

logger = logging.getLogger("omnicorn")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments without the program's name; None is those of the process.

    Returns:
        The exit code: 0, 2 for a wrong option or address, 3 when the application did not start.

    Raises:
        SystemExit: ``--help``, or what argparse refuses.
    """
    from omnicorn.observability.logs import configure

    parser = make_parser()
    asked = parser.parse_args(argv)
    try:
        config = make_config(asked, parser)
        configure(config.log_level, config.log_config, config.use_colors)
        app = load(None, config)
        status = Readiness(os.environ) if asked.systemd else None
        loop_runner(config.loop)(partial(serve, app, config, signals=True, task_status=status))
    except ConfigError as error:
        sys.stderr.write(f"omnicorn-scgi: {error}\n")
        return EXIT_APP if error.option == "app" else EXIT_USAGE
    except LifespanFailed as failure:
        logger.error("The application did not start: %s", failure, exc_info=failure.__cause__)
        return EXIT_APP
    return EXIT_OK


def make_parser() -> argparse.ArgumentParser:
    """The flags, which are those of aioscgi."""
    parser = argparse.ArgumentParser("omnicorn-scgi", description="Serve an application by SCGI.")
    parser.add_argument("--version", action="version", version=f"omnicorn {__version__}")
    parser.add_argument(
        "--adapter", choices=("asyncio", "trio"), help="The event loop; asyncio by default."
    )
    parser.add_argument(
        "--base-uri", metavar="URI", help="Path below which the application is mounted."
    )
    parser.add_argument(
        "-l", "--logging", metavar="FILE", help="JSON file for logging.config.dictConfig."
    )
    parser.add_argument(
        "-u", "--unix-socket", metavar="PATH", action="append", default=[],
        help="Listen on this Unix socket.",
    )  # fmt: skip
    parser.add_argument(
        "-t", "--tcp", metavar="HOST:PORT", action="append", default=[],
        help="Listen on this address; IPv6 as [::1]:9000.",
    )  # fmt: skip
    parser.add_argument(
        "--systemd", action="store_true",
        help="Listen on the sockets that systemd passes, and tell it when we serve.",
    )  # fmt: skip
    parser.add_argument("application", help="The application, as module:attribute.")
    return parser


def make_config(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> Config:
    """The same as omnicorn has it.

    Raises:
        ConfigError: A value is wrong.
        SystemExit: There is nothing to listen on.
    """
    binds = [f"scgi:unix:{path}" for path in asked.unix_socket]
    binds += [f"scgi:{address}" for address in asked.tcp]
    if asked.systemd:
        binds += [f"scgi:fd://{number}" for number in passed_descriptors(os.environ)]
    if not binds:
        parser.error(
            "nothing to listen on: give --unix-socket or --tcp, or with --systemd a socket unit"
        )
    options: dict[str, Any] = {"app": asked.application, "bind": tuple(binds)}
    if asked.adapter is not None:
        options["loop"] = "auto" if asked.adapter == "asyncio" else asked.adapter
    if asked.base_uri is not None:
        options["root_path"] = asked.base_uri.rstrip("/")
    if asked.logging is not None:
        options["log_config"] = read_logging(asked.logging)
    return load_config().config.replace(**options)


def read_logging(path: str) -> dict[str, Any]:
    """The mapping in a JSON file, whatever that is called.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    try:
        with open(path, encoding="utf-8") as file:
            mapping = json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--logging {path}: {error}", "log_config", path) from None
    if not isinstance(mapping, dict):
        raise ConfigError(f"--logging {path} holds no JSON object", "log_config", path)
    return mapping


def passed_descriptors(environ: MutableMapping[str, str]) -> range:
    """The descriptors that systemd passes to this process; their variables are removed."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return range(0)
    return range(_FIRST_FD, _FIRST_FD + int(count))


class Readiness:
    """Tells systemd that we serve, and that we stop (sd_notify(3)).

    Args:
        environ: Where NOTIFY_SOCKET is; without it nobody is told.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._path = environ.pop("NOTIFY_SOCKET", "")
        self._stopping = False

    def started(self, urls: list[str]) -> None:
        """Send READY=1; from here on, the signals that stop `serve` send STOPPING=1, too."""
        if not self._path:
            return
        self._tell(f"READY=1\nSTATUS=Serving on {', '.join(urls)}")
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):  # `serve`'s, which puts back what was there before
                signal.signal(number, partial(self._stop, handler))

    def _stop(self, handler: Callable[[int, Any], Any], number: int, frame: Any) -> None:
        if not self._stopping:
            self._stopping = True
            self._tell("STOPPING=1\nSTATUS=Finishing what is in progress")
        handler(number, frame)

    def _tell(self, text: str) -> None:
        address = "\0" + self._path[1:] if self._path[0] == "@" else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.sendto(text.encode(), address)
        except OSError as error:
            logger.warning("NOTIFY_SOCKET %s cannot be told: %s", self._path, error)
