"""Setting up logging, and keeping a hostile peer from filling it.

This file alone decides what the server's own messages look like and which handlers they get.

1. Only the loggers ``omnicorn`` and ``omnicorn.access`` are touched, never the root logger, and
   never a handler that somebody else attached.
2. A record is one line ``LEVEL:    message``. Control characters in it (some messages quote a
   peer, a traceback may too) are shown escaped; a line break inside the text is kept for
   tracebacks, with the following lines indented, so that no text can pose as a line of its own.
3. Whatever is wrong with a ``--log-config`` file becomes a ConfigError that names the file.

``logging`` is loaded by asyncio anyhow; ``logging.config`` and the parsers are loaded only
for a file.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

__all__ = [
    "LEVELS",
    "TRACE",
    "LineFormatter",
    "RateLimited",
    "access_logger",
    "configure",
    "wants_colors",
]

TRACE: Final = 5
"""Below DEBUG, as in uvicorn: every message of the wire."""

LEVELS: Final[Mapping[str, int]] = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}

_COLORS: Final = {"CRITICAL": 91, "ERROR": 31, "WARNING": 33, "INFO": 32, "DEBUG": 36, "TRACE": 34}
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class LineFormatter(logging.Formatter):
    """``INFO:     message``, uvicorn's shape, the level name coloured on request."""

    def __init__(self, use_colors: bool = False) -> None:
        super().__init__()
        self._use_colors = use_colors

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if _CONTROL.search(text):
            text = _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)
        if "\n" in text:
            text = text.rstrip("\n").replace("\n", "\n    ")
        level = record.levelname
        space = " " * (9 - len(level))
        if self._use_colors:
            level = f"\x1b[{_COLORS.get(level, 0)}m{level}\x1b[0m"
        return f"{level}:{space}{text}"


class _ServerHandler(logging.StreamHandler["TextIO"]):
    """Our own handler; the class tells it from handlers that we must leave alone."""


def wants_colors(stream: TextIO, use_colors: bool | None = None) -> bool:
    """Whether to colour what goes to a stream.

    Args:
        stream: Where it goes.
        use_colors: The operator's wish; None asks the stream: a terminal gets colours unless
            ``NO_COLOR`` is set or ``TERM`` is ``dumb``.
    """
    if use_colors is not None:
        return use_colors
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # no such method, or the stream is closed
        return False


def configure(
    level: str | int | None = None,
    log_config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    use_colors: bool | None = None,
    *,
    stream: TextIO | None = None,
) -> None:
    """Set up the logger ``omnicorn``; calling it again replaces the earlier set-up.

    Without a configuration its records go to the stream, unless somebody attached handlers to
    this logger before: then those stay alone. With one, the configuration decides; only if it
    gives neither this logger nor the root logger a handler, ours is added.

    Args:
        level: A name in ``LEVELS`` or a number of `logging`; None means info, or what the
            configuration says.
        log_config: A file for `logging.config`, by its suffix: .json, .toml, .yaml or .yml
            (with PyYAML), .ini, .cfg or .conf; or the mapping itself. Loggers that
            exist already stay enabled unless it says otherwise.
        use_colors: Colour the level names; None: if the stream is a terminal.
        stream: Standard error unless given.

    Raises:
        ConfigError: The level is not known, or the file cannot be read, parsed or applied.
    """
    number = _level(level)
    logging.addLevelName(TRACE, "TRACE")
    logger = logging.getLogger("omnicorn")
    for handler in list(logger.handlers):
        if isinstance(handler, _ServerHandler):
            logger.removeHandler(handler)
            logger.propagate = True
    if log_config is not None:
        _apply(log_config)
    if not (logger.hasHandlers() if log_config is not None else logger.handlers):
        target = sys.stderr if stream is None else stream
        ours = _ServerHandler(target)
        ours.setFormatter(LineFormatter(wants_colors(target, use_colors)))
        logger.addHandler(ours)
        logger.propagate = False
    if number is not None:
        logger.setLevel(number)
    elif logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def access_logger() -> logging.Logger | None:
    """The logger ``omnicorn.access`` if the operator gave it handlers of its own, else None."""
    logger = logging.getLogger("omnicorn.access")
    return logger if logger.handlers else None


def _level(level: str | int | None) -> int | None:
    if not isinstance(level, str):
        return level
    try:
        return LEVELS[level.lower()]
    except KeyError:
        raise ConfigError(
            f"log level {level!r} is not known; it is one of {', '.join(LEVELS)}",
            option="log_level",
        ) from None


def _apply(source: str | os.PathLike[str] | Mapping[str, Any]) -> None:
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
    else:
        name = "the mapping given"
    try:
        if isinstance(source, (str, os.PathLike)):
            config = _load(name)
        else:
            config = source
        from logging.config import dictConfig, fileConfig

        if config is None:
            # Given a path that it cannot read, fileConfig says nothing of the reason.
            with open(name, encoding="utf-8") as file:
                fileConfig(file, disable_existing_loggers=False)
        else:
            dictConfig({"disable_existing_loggers": False, **config})
    except ConfigError:
        raise
    except Exception as error:
        # Parsers and logging.config have no common error class, and the latter keeps the
        # reason in the cause.
        reason = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
        raise ConfigError(
            f"cannot configure logging from {name}: {type(error).__name__}: {reason}",
            option="log_config",
            source=name,
        ) from error


def _load(path: str) -> Mapping[str, Any] | None:
    """The mapping in a file, or None for a file that is for ``fileConfig``."""
    suffix = os.path.splitext(path)[1].lower()
    config: Any
    if suffix in (".ini", ".cfg", ".conf"):
        return None
    if suffix == ".json":
        import json

        with open(path, "rb") as file:
            config = json.load(file)
    elif suffix == ".toml":
        import tomllib

        with open(path, "rb") as file:
            config = tomllib.load(file)
    elif suffix in (".yaml", ".yml"):
        from importlib import import_module

        try:
            yaml = import_module("yaml")
        except ImportError as error:
            raise ConfigError(
                f"{path} is YAML, which needs PyYAML: install it (pip install pyyaml), or write "
                "the same as .toml or .json",
                option="log_config",
                source=path,
            ) from error
        with open(path, "rb") as file:
            config = yaml.safe_load(file)
    else:
        raise ConfigError(
            f"cannot tell the format of {path}: name it .json, .toml, .yaml, .yml, .ini, .cfg "
            "or .conf",
            option="log_config",
            source=path,
        )
    if not isinstance(config, dict):
        raise ConfigError(
            f"{path} holds {type(config).__name__} where logging.config wants a mapping with "
            "the key version",
            option="log_config",
            source=path,
        )
    return config


class RateLimited:
    """Lets a few messages per period through and counts the others.

    For messages whose number the peer decides, such as those about malformed requests
    (CVE-2025-69230, CVE-2025-47287).

    Args:
        emit: Takes a message and its arguments, as ``logger.warning`` does.
        limit: Messages per period.
        period: Seconds; a period begins with its first message.
    """

    __slots__ = ("_begun", "_emit", "_limit", "_period", "_seen")

    def __init__(self, emit: Callable[..., object], limit: int = 10, period: float = 10.0) -> None:
        self._emit = emit
        self._limit = limit
        self._period = period
        self._begun = float("-inf")
        self._seen = 0

    def __call__(self, now: float, message: str, *args: object) -> bool:
        """Emit a message or count it.

        Args:
            now: Seconds of any clock that does not go back.
            message: For ``emit``, with its arguments; formatted only if it is emitted.

        Returns:
            Whether it was emitted.
        """
        if now - self._begun >= self._period:
            self.flush(now)
            self._begun = now
            self._seen = 0
        self._seen += 1
        if self._seen > self._limit:
            return False
        self._emit(message, *args)
        return True

    def flush(self, now: float) -> None:
        """Say how many were held back, if any; for a sweep or the shutdown to call."""
        held = self._seen - self._limit
        if held > 0:
            self._seen = self._limit
            self._emit("... and %d more in the last %d s", held, round(now - self._begun))
