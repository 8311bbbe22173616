from __future__ import annotations

import copy
import io
import json
import logging
from configparser import ConfigParser, RawConfigParser
from typing import TYPE_CHECKING, Any

import pytest
from tests.embedded import App, config, get, in_thread, port_of

from omnicorn.compat import uvicorn
from omnicorn.compat.uvicorn import Config, Server
from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_loggers_of_uvicorn_are_those_of_omnicorn() -> None:
    changed = copy.deepcopy(uvicorn.LOGGING_CONFIG)
    changed["formatters"]["access"]["fmt"] = "%(asctime)s %(message)s"
    changed["loggers"]["uvicorn.access"]["level"] = "WARNING"

    Config(App(), log_config=changed)

    logger = logging.getLogger("omnicorn.access")
    assert logger.level == logging.WARNING
    [handler] = logger.handlers
    assert handler.formatter is not None
    assert handler.formatter._fmt == "%(asctime)s %(message)s"
    assert "uvicorn" in changed["loggers"]  # the caller's own is left as it was


def test_formatters_of_uvicorn_are_stood_in_for() -> None:
    changed = copy.deepcopy(uvicorn.LOGGING_CONFIG)
    changed["formatters"] = {
        "default": {"()": "uvicorn.logging.DefaultFormatter", "fmt": "%(levelprefix)s %(message)s"},
        "access": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(asctime)s %(client_addr)s - "%(request_line)s" %(status_code)s',
        },
    }

    Config(App(), log_config=changed)

    formatters = [
        logging.getLogger(name).handlers[0].formatter for name in ("omnicorn", "omnicorn.access")
    ]
    assert [each._fmt for each in formatters if each is not None] == [
        "%(levelname)s: %(message)s",
        "%(asctime)s %(message)s",
    ]


def test_a_formatter_that_takes_requests_apart_is_refused() -> None:
    changed = copy.deepcopy(uvicorn.LOGGING_CONFIG)
    changed["formatters"]["access"] = {
        "()": "uvicorn.logging.AccessFormatter",
        "fmt": "%(status_code)s alone",
    }

    with pytest.raises(ConfigError, match="formatter 'access' takes a request apart"):
        Config(App(), log_config=changed)


def test_without_a_configuration_logging_is_the_programs(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("omnicorn")
    before = logger.handlers[:]
    caplog.set_level(logging.INFO)

    server = Server(config(App(), access_log=True))
    with in_thread(server):
        get(port_of(server), "/seen")

    assert logger.handlers == before
    assert "GET /seen" in caplog.text


@pytest.mark.parametrize(("level", "logs"), [("info", True), ("WARNING", False), (40, False)])
def test_a_level_silences_the_access_log_too(level: str | int, logs: bool) -> None:
    theirs = config(App(), access_log=True, log_level=level)

    assert theirs.translate().access_log is logs
    assert logging.getLogger("omnicorn.access").isEnabledFor(logging.INFO) is logs


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="log_level = 'loud': expected one of critical"):
        config(App(), log_level="loud")


ACCESS = '%(asctime)s %(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'


def formats() -> list[object]:
    """Of the handlers of both loggers."""
    return [
        handler.formatter and handler.formatter._fmt
        for name in ("omnicorn", "omnicorn.access")
        for handler in logging.getLogger(name).handlers
    ]


def test_a_change_in_place_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    formatters = copy.deepcopy(uvicorn.LOGGING_CONFIG["formatters"])
    monkeypatch.setitem(uvicorn.LOGGING_CONFIG, "formatters", formatters)
    formatters["access"]["fmt"] = ACCESS
    formatters["default"] |= {"fmt": "%(levelprefix)s said %(message)s", "use_colors": None}

    Config(App())

    assert formats() == [
        "%(levelname)s: said %(message)s",
        "%(asctime)s %(levelname)s: %(message)s",
    ]


def test_a_formatter_that_was_never_uvicorns_is_left_alone() -> None:
    changed = copy.deepcopy(uvicorn.LOGGING_CONFIG)
    changed["formatters"]["default"] = {"()": "logging.Formatter", "fmt": "{message}", "style": "{"}
    changed["formatters"]["access"] = {"()": Own, "text": "of its own"}

    Config(App(), log_config=changed)

    assert formats() == ["{message}", "of its own"]


class Own(logging.Formatter):
    def __init__(self, text: str) -> None:
        super().__init__(text, validate=False)


def test_a_class_that_takes_requests_apart_is_refused_too() -> None:
    changed = copy.deepcopy(uvicorn.LOGGING_CONFIG)
    changed["formatters"]["access"] = {"()": "an.own.AccessFormatter", "fmt": "%(status_code)s"}

    with pytest.raises(ConfigError, match="formatter 'access' takes a request apart"):
        Config(App(), log_config=changed)


MAPPING = {
    "version": 1,
    "formatters": {"one": {"()": "uvicorn.logging.AccessFormatter", "fmt": ACCESS}},
    "handlers": {"one": {"class": "logging.StreamHandler", "formatter": "one"}},
    "loggers": {
        "uvicorn": {"handlers": ["one"], "level": "ERROR"},
        "uvicorn.access": {"handlers": ["one"]},
    },
}

INI = f"""
[loggers]
keys=root,uvicorn,access
[handlers]
keys=one
[formatters]
keys=one
[logger_root]
handlers=
[logger_uvicorn]
qualname=uvicorn
level=ERROR
handlers=one
[logger_access]
qualname = uvicorn.access
handlers=one
[handler_one]
class=StreamHandler
formatter=one
args=()
[formatter_one]
class=uvicorn.logging.AccessFormatter
format={ACCESS}
"""


@pytest.mark.parametrize("how", ["json", "yaml", "ini", "conf", "parser", "raw parser", "file"])
def test_a_file_or_a_parser_is_read_as_a_mapping_is(how: str, tmp_path: Path) -> None:
    path = tmp_path / f"logging.{how}"
    given: Any = path
    if how in ("json", "yaml"):
        if how == "yaml":
            pytest.importorskip("yaml", reason="PyYAML is not installed")
        path.write_text(json.dumps(MAPPING))  # which YAML is, too
    elif "parser" in how:
        given = (RawConfigParser if how.startswith("raw") else ConfigParser)()
        given.read_string(INI)
    elif how == "file":
        given = io.StringIO(INI)
    else:
        path.write_text(INI)

    Config(App(), log_config=given)

    assert formats() == ["%(asctime)s %(levelname)s: %(message)s"] * 2
    assert logging.getLogger("omnicorn").level == logging.ERROR


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("absent.json", None, "No such file"),
        ("absent.ini", None, "No such file"),
        ("broken.json", "{", "JSONDecodeError"),
        ("broken.ini", "[loggers", "MissingSectionHeaderError"),
        ("list.json", "[]", "holds list"),
    ],
)
def test_a_file_that_is_none_is_refused(
    tmp_path: Path, name: str, text: str | None, reason: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)

    with pytest.raises(ConfigError, match=reason) as caught:
        Config(App(), log_config=str(tmp_path / name))
    assert caught.value.option == "log_config"


def test_something_else_is_no_configuration() -> None:
    with pytest.raises(ConfigError, match="expected a mapping, a path, an open file"):
        Config(App(), log_config=42)
