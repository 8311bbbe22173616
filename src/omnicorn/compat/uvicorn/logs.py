"""uvicorn's ``log_config`` and ``log_level``, for omnicorn's loggers.

What this file alone decides: what is meant by a configuration that was written for uvicorn's
loggers. ``uvicorn.X`` in it stands for ``omnicorn.X``, in a mapping, a file or a parser alike,
unless ours are named in it, too; a formatter of ``uvicorn.logging`` for one of the same line,
without colours. `LOGGING_CONFIG` is obeyed as soon as anything in it was changed.
"""

from __future__ import annotations

import io
import logging
import os
import re
from configparser import ConfigParser, RawConfigParser
from copy import deepcopy
from typing import Any

from omnicorn.errors import ConfigError
from omnicorn.observability.logs import LEVELS, configure

__all__ = ["LOGGING_CONFIG", "level_number", "set_up"]

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
"""For programs that change it, or a copy that they pass as ``log_config``; unchanged, it is the
logging that omnicorn has anyhow."""

_UNCHANGED = deepcopy(LOGGING_CONFIG)

_MAPPINGS = (".json", ".yaml", ".yml", ".toml")
_REQUEST = '%(client_addr)s - "%(request_line)s" %(status_code)s'
_PARTS = ("client_addr", "request_line", "status_code")


def set_up(config: Any, level: str | int | None, use_colors: bool | None) -> None:
    """Set up the loggers ``omnicorn`` and ``omnicorn.access``.

    Args:
        config: What ``log_config`` is; with None, the loggers' levels are set at most.
        level: What ``log_level`` is.
        use_colors: As for the option of that name.

    Raises:
        ConfigError: The configuration or the level is wrong.
    """
    access = logging.getLogger("omnicorn.access")
    if config == _UNCHANGED:
        configure(level, None, use_colors)
    else:
        if config is not None:
            configure(level, _for_us(config), use_colors)
        if not access.handlers:
            # Its lines go where the program's logging has them go, not to standard output.
            access.addHandler(logging.NullHandler())
    if level is not None:
        for each in (logging.getLogger("omnicorn"), access):
            each.setLevel(level_number(level))


def level_number(level: str | int | None) -> int:
    """The number of a ``log_level``; None is info.

    Raises:
        ConfigError: There is no such level.
    """
    if level is None:
        return logging.INFO
    if isinstance(level, int):
        return level
    if level.lower() not in LEVELS:
        raise ConfigError(
            f"log_level = {level!r}: expected one of {', '.join(LEVELS)}", "log_level"
        )
    return LEVELS[level.lower()]


def _for_us(config: Any) -> Any:
    """What `configure` is to be told, for a ``log_config``.

    Raises:
        ConfigError: It cannot be had for our loggers.
    """
    if isinstance(config, dict):
        return _with_our_names(config)
    if isinstance(config, RawConfigParser):
        text = io.StringIO()
        config.write(text)
        return _apply_ini(
            text.getvalue(), ConfigParser if isinstance(config, ConfigParser) else RawConfigParser
        )
    if not isinstance(config, (str, os.PathLike)):
        if not hasattr(config, "read"):
            raise ConfigError(
                f"log_config = {config!r:.80}: expected a mapping, a path, an open file or a "
                "ConfigParser",
                "log_config",
            )
        return _apply_ini(config.read(), ConfigParser)
    path = os.fspath(config)
    try:
        with open(path, encoding="utf-8") as file:
            text_of_file = file.read()
        if not path.endswith(_MAPPINGS):
            return _apply_ini(text_of_file, ConfigParser)
        mapping = _parsed(text_of_file, path)
    except ConfigError:
        raise
    except Exception:
        return path  # `configure` says what is wrong with it
    return _with_our_names(mapping) if isinstance(mapping, dict) else path


def _parsed(text: str, path: str) -> Any:
    if path.endswith(".json"):
        import json

        return json.loads(text)
    if path.endswith(".toml"):
        import tomllib

        return tomllib.loads(text)
    from importlib import import_module

    return import_module("yaml").safe_load(text)


def _apply_ini(text: str, parser: type[RawConfigParser]) -> dict[str, Any]:
    """Apply what is in the format of ``fileConfig``; what is left is to change nothing."""
    from logging.config import fileConfig

    if re.search(r"(?m)^qualname\s*[=:]\s*omnicorn\b", text) is None:
        text = re.sub(r"(?m)^(qualname\s*[=:]\s*)uvicorn\b", r"\1omnicorn", text)
    text = re.sub(r"(?m)^(class\s*[=:]\s*)uvicorn\.logging\.\w+", r"\1logging.Formatter", text)
    text = _plain(text)
    _check_whole(text, "a formatter")
    try:
        made = parser()
        made.read_string(text)
        fileConfig(made, disable_existing_loggers=False)
    except Exception as error:  # they have no common class
        raise ConfigError(
            f"cannot configure logging: {type(error).__name__}: {error}", "log_config"
        ) from error
    return {"version": 1, "incremental": True}


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
    if not isinstance(formatter, dict):
        return formatter
    kind = formatter.get("()") or formatter.get("class") or "logging.Formatter"
    text = _plain(str(formatter.get("fmt") or formatter.get("format") or "%(message)s"))
    _check_whole(text, f"the formatter {name!r}")
    if not str(kind).startswith(("uvicorn.", "logging.")):
        return formatter
    own = kind == "logging.Formatter" and "use_colors" not in formatter
    if own and text == (formatter.get("fmt") or formatter.get("format")):
        return formatter  # it never was uvicorn's
    kept = {key: formatter[key] for key in ("datefmt", "style") if key in formatter}
    return {"format": text, **kept}


def _plain(text: str) -> str:
    """A format without what only ``uvicorn.logging`` knows."""
    for mark in ("%({})s", "{{{}}}"):
        text = text.replace(mark.format("levelprefix"), mark.format("levelname") + ":")
    return text.replace(_REQUEST, "%(message)s")  # our access line is that of uvicorn


def _check_whole(text: str, what: str) -> None:
    if any(part in text for part in _PARTS):
        raise ConfigError(
            f"log_config: {what} takes a request apart, which records do not allow here: write "
            "%(message)s, and give access_log_format to omnicorn itself",
            "log_config",
        )
