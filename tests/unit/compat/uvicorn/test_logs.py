from __future__ import annotations

import copy
import logging

import pytest
from tests.embedded import App, config, get, in_thread, port_of

from omnicorn.compat import uvicorn
from omnicorn.compat.uvicorn import Config, Server
from omnicorn.errors import ConfigError


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
