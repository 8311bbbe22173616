"""uvicorn's ``log_config`` and ``log_level``, for omnicorn's loggers.

What this file alone decides: what is meant by a configuration that was written for uvicorn's
loggers. ``uvicorn.X`` in it stands for ``omnicorn.X``, in a mapping, a file or a parser alike,
unless ours are named in it, too; a formatter of ``uvicorn.logging`` for one of the same line.
"""

from __future__ import annotations

import logging
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
"""For programs that change a copy and pass it as ``log_config``; what is passed unchanged is
the logging that omnicorn has anyhow."""


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
    if config == LOGGING_CONFIG:
        configure(level, None, use_colors)
    else:
        if config is not None:
            configure(
                level,
                _with_our_names(config) if isinstance(config, dict) else config,
                use_colors,
            )
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
