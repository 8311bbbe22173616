"""Log set-up: what the server's messages look like, whose handlers get them, and how many."""

from __future__ import annotations

import io
import json
import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from omnicorn.errors import ConfigError
from omnicorn.observability.logs import (
    TRACE,
    LineFormatter,
    RateLimited,
    access_logger,
    configure,
    wants_colors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def fresh_loggers() -> Iterator[None]:
    """No handlers but those a test makes, and the old ones back afterwards.

    A configuration of the operator's disables all other loggers, those of other tests too.
    """
    enabled = [
        logger
        for logger in logging.root.manager.loggerDict.values()
        if isinstance(logger, logging.Logger) and not logger.disabled
    ]
    loggers = [
        logging.getLogger(name) for name in ("omnicorn", "omnicorn.access", "omnicorn.error")
    ]
    before = [(x, list(x.handlers), x.level, x.propagate) for x in loggers]
    for logger in loggers:
        logger.handlers = []
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    for logger in enabled:
        logger.disabled = False


@contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """The root logger without the handlers that pytest puts there while a test runs."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        yield root
    finally:
        root.handlers = before


@pytest.fixture
def server() -> logging.Logger:
    return logging.getLogger("omnicorn")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestTheServersOwnMessages:
    def test_a_message_is_one_line_in_uvicorns_shape(self, server: logging.Logger) -> None:
        stream = io.StringIO()
        configure(stream=stream)
        server.info("started on %s", "127.0.0.1:8000")
        server.warning("slow")
        server.debug("not shown")
        assert stream.getvalue() == "INFO:     started on 127.0.0.1:8000\nWARNING:  slow\n"

    def test_they_go_to_standard_error_by_default(
        self, server: logging.Logger, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configure()
        server.error("bad")
        assert capsys.readouterr() == ("", "ERROR:    bad\n")

    def test_the_root_logger_is_left_alone(self, server: logging.Logger) -> None:
        with bare_root() as root:
            before = root.level
            configure("debug", stream=io.StringIO())
            assert (root.handlers, root.level, server.propagate) == ([], before, False)

    def test_setting_up_again_replaces_the_first_set_up(self, server: logging.Logger) -> None:
        first, second = io.StringIO(), io.StringIO()
        configure(stream=first)
        configure("error", stream=second)
        server.warning("no")
        server.error("yes")
        assert (first.getvalue(), second.getvalue()) == ("", "ERROR:    yes\n")

    def test_handlers_of_the_embedding_program_stay_alone(self, server: logging.Logger) -> None:
        stream = io.StringIO()
        theirs = logging.StreamHandler(stream)
        server.addHandler(theirs)
        configure()
        server.info("once")
        assert server.handlers == [theirs]
        assert stream.getvalue() == "once\n"

    @pytest.mark.parametrize(
        ("level", "number"),
        [("critical", 50), ("ERROR", 40), ("info", 20), ("trace", TRACE), (15, 15), (None, 20)],
    )
    def test_a_level_is_a_name_or_a_number(
        self, server: logging.Logger, level: str | int | None, number: int
    ) -> None:
        server.setLevel(logging.NOTSET)
        configure(level, stream=io.StringIO())
        assert server.level == number

    def test_an_unknown_level_names_the_known_ones(self) -> None:
        with pytest.raises(ConfigError, match="'loud' is not known; it is one of critical, error"):
            configure("loud")

    def test_trace_has_a_name(self, server: logging.Logger) -> None:
        stream = io.StringIO()
        configure("trace", stream=stream)
        server.log(TRACE, "frame")
        assert stream.getvalue() == "TRACE:    frame\n"


class TestLines:
    def format(self, message: str, *args: object, exc_info: Any = None) -> str:
        record = logging.LogRecord("omnicorn", 40, "f", 1, message, args, exc_info)
        return LineFormatter().format(record)

    def test_control_characters_are_shown_not_sent(self) -> None:
        assert self.format("bad %s", "\x1b[31m\r\x00\x9b\u2028é") == (
            r"ERROR:    bad \x1b[31m\r\x00\x9b\u2028é"
        )

    def test_no_text_can_pose_as_a_line_of_its_own(self) -> None:
        lines = self.format("bad %s", "x\nERROR:    forged").splitlines()
        assert lines == ["ERROR:    bad x", "    ERROR:    forged"]

    def test_a_traceback_is_kept_and_cannot_send_escapes_either(self) -> None:
        try:
            raise ValueError("\x1b[2J")
        except ValueError:
            text = self.format("failed", exc_info=sys.exc_info())
        assert text.startswith("ERROR:    failed\n    Traceback (most recent call last):\n")
        assert text.endswith("\n    ValueError: \\x1b[2J")


class TestColours:
    def test_a_terminal_gets_coloured_level_names(
        self, server: logging.Logger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        stream = Terminal()
        configure(stream=stream)
        server.error("bad")
        assert stream.getvalue() == "\x1b[31mERROR\x1b[0m:    bad\n"

    @pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
    def test_the_environment_can_decline(
        self, name: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        assert wants_colors(Terminal())
        monkeypatch.setenv(name, value)
        assert not wants_colors(Terminal())

    def test_the_operators_wish_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        assert wants_colors(io.StringIO(), True)
        assert not wants_colors(Terminal(), False)

    def test_a_closed_stream_gets_none(self) -> None:
        stream = io.StringIO()
        stream.close()
        assert not wants_colors(stream)


CONFIG: dict[str, Any] = {
    "version": 1,
    "handlers": {"memory": {"class": "logging.handlers.BufferingHandler", "capacity": 9}},
    "loggers": {"omnicorn.access": {"handlers": ["memory"], "level": "INFO"}},
}

TOML = """
version = 1
handlers.memory = {class = "logging.handlers.BufferingHandler", capacity = 9}
loggers."omnicorn.access" = {handlers = ["memory"], level = "INFO"}
"""

INI = """
[loggers]
keys = root, access
[handlers]
keys = memory
[formatters]
keys =
[logger_root]
handlers =
[logger_access]
qualname = omnicorn.access
handlers = memory
[handler_memory]
class = handlers.BufferingHandler
args = (9,)
"""


class TestConfigurationFiles:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("log.json", json.dumps(CONFIG)),
            ("log.toml", TOML),
            ("log.ini", INI),
            ("LOG.CONF", INI),
        ],
    )
    def test_a_file_is_read_by_its_suffix(self, tmp_path: Path, name: str, text: str) -> None:
        path = tmp_path / name
        path.write_text(text)
        assert access_logger() is None
        configure(log_config=path, stream=io.StringIO())
        logger = access_logger()
        assert logger is not None
        assert type(logger.handlers[0]).__name__ == "BufferingHandler"

    def test_yaml_is_read_where_pyyaml_is_installed(self, tmp_path: Path) -> None:
        pytest.importorskip("yaml")
        path = tmp_path / "log.yml"
        path.write_text(json.dumps(CONFIG))  # JSON is YAML
        configure(log_config=str(path), stream=io.StringIO())
        assert access_logger() is not None

    def test_yaml_without_pyyaml_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "yaml", None)
        path = tmp_path / "log.yaml"
        path.write_text("version: 1")
        with pytest.raises(ConfigError, match="pip install pyyaml"):
            configure(log_config=path)

    @pytest.mark.parametrize(
        ("name", "text", "told"),
        [
            ("log.json", "{", "JSONDecodeError"),
            ("log.json", "[]", "holds list"),
            ("log.json", "{}", "version"),
            ("log.toml", "= 1", "TOMLDecodeError"),
            ("log.toml", 'version = 1\nhandlers.h = {class = "no.such"}', "no.such|No module"),
            ("log.ini", "[loggers]", "KeyError"),
            ("log.ini", "", "."),
            ("log.yml", "a: [", "."),
            ("log.xml", "", "cannot tell the format"),
        ],
    )
    def test_whatever_is_wrong_names_the_file(
        self, tmp_path: Path, name: str, text: str, told: str
    ) -> None:
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(ConfigError, match=told) as caught:
            configure(log_config=path)
        assert str(path) in str(caught.value)
        assert (caught.value.option, caught.value.source) == ("log_config", str(path))

    @pytest.mark.parametrize("name", ["none.json", "none.ini"])
    def test_a_missing_file_is_named_too(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigError, match=rf"{name}: FileNotFoundError"):
            configure(log_config=tmp_path / name)

    def test_our_handler_stays_where_the_file_gives_the_server_none(
        self, server: logging.Logger
    ) -> None:
        stream = io.StringIO()
        with bare_root():
            configure(log_config=CONFIG, stream=stream)
        server.info("seen")
        assert stream.getvalue() == "INFO:     seen\n"

    def test_a_handler_for_the_root_logger_is_enough(self, server: logging.Logger) -> None:
        stream = io.StringIO()
        configure(stream=stream)
        with bare_root() as root:
            configure(log_config={**CONFIG, "root": {"handlers": ["memory"]}}, stream=stream)
            server.warning("to the root")
            (handler,) = root.handlers
        assert [record.getMessage() for record in handler.buffer] == ["to the root"]  # type: ignore[attr-defined]
        assert stream.getvalue() == ""

    def test_the_level_of_the_file_stays_unless_one_is_given(self, server: logging.Logger) -> None:
        config = {**CONFIG, "loggers": {"omnicorn": {"handlers": ["memory"], "level": "ERROR"}}}
        configure(log_config=config)
        assert server.level == logging.ERROR
        configure("debug", log_config=config)
        assert server.level == logging.DEBUG

    @pytest.mark.parametrize("name", ["log.json", "log.ini"])
    def test_loggers_of_the_application_stay_enabled(self, tmp_path: Path, name: str) -> None:
        theirs = logging.getLogger("tests.application")
        path = tmp_path / name
        path.write_text(INI if name.endswith("ini") else json.dumps(CONFIG))
        configure(log_config=path, stream=io.StringIO())
        assert not theirs.disabled

    def test_unless_the_file_wants_them_disabled(self) -> None:
        theirs = logging.getLogger("tests.application")
        configure(log_config={**CONFIG, "disable_existing_loggers": True}, stream=io.StringIO())
        assert theirs.disabled
        theirs.disabled = False


class TestRateLimits:
    def test_a_storm_is_a_few_lines_and_a_count(self) -> None:
        lines: list[str] = []
        limited = RateLimited(lambda text, *args: lines.append(text % args), limit=3, period=10)
        shown = [limited(100 + n / 1000, "bad request %d", n) for n in range(123)]
        assert shown.count(True) == 3
        limited(110.0, "bad request %d", 999)
        assert lines == [
            "bad request 0",
            "bad request 1",
            "bad request 2",
            "... and 120 more in the last 10 s",
            "bad request 999",
        ]

    def test_a_trickle_is_shown_in_full(self) -> None:
        lines: list[str] = []
        limited = RateLimited(lines.append, limit=2, period=10)
        assert all(limited(now, "x") for now in range(0, 100, 5))
        limited.flush(200)
        assert lines == ["x"] * 20

    def test_a_flush_tells_the_count_once_and_opens_no_new_quota(self) -> None:
        lines: list[str] = []
        limited = RateLimited(lambda text, *args: lines.append(text % args), limit=1, period=10)
        limited(0, "x")
        limited(1, "x")
        limited.flush(2)
        limited.flush(3)
        assert not limited(4, "x")
        assert lines == ["x", "... and 1 more in the last 2 s"]
