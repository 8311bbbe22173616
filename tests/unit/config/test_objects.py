from __future__ import annotations

import sys
import textwrap
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from omnicorn.config import Config
from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[[str], Path]

SETTINGS = """
    from __future__ import annotations

    import http
    import os as system
    from pathlib import Path

    HERE = Path("/srv")
    _private = 1

    def helper():
        return "2"

    bind = ["localhost:" + helper()]
    access_log = False
    keep_alive_timeout = 3

    class Settings:
        port = 9
        backlog = 7
"""
EXPECTED = Config(bind="localhost:2", access_log=False, timeout_keep_alive=3)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a module, which imports find."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "om_package").mkdir()
    monkeypatch.setattr(sys, "modules", dict(sys.modules))

    def put(text: str) -> Path:
        path = tmp_path / "om_package" / "om_settings.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return put


# Mappings -------------------------------------------------------------------------------


def test_a_mapping_and_keywords_give_options_and_the_keywords_win() -> None:
    assert Config.from_mapping({"port": 1, "backlog": 2}, port=3) == Config(port=3, backlog=2)
    assert Config.from_mapping() == Config()


def test_a_mapping_that_is_wrong_is_an_error() -> None:
    with pytest.raises(ConfigError) as refusal:
        Config.from_mapping({"port": "1"})
    assert str(refusal.value).startswith("port = '1' (from mapping [port]): ")
    assert refusal.value.option == "port"
    with pytest.raises(ConfigError, match=r"unknown option 'prot'.*did you mean 'port'"):
        Config.from_mapping(prot=1)
    with pytest.raises(ConfigError, match="is for TLS, which is off"):
        Config.from_mapping(ssl_keyfile="a")


# Objects --------------------------------------------------------------------------------


class Base:
    port = 9


class Settings(Base):
    backlog = 7
    LIMIT = 3


@pytest.mark.parametrize("settings", [Settings, Settings(), SimpleNamespace(port=9, backlog=7)])
def test_an_object_of_any_kind_gives_its_attributes(settings: object) -> None:
    assert Config.from_object(settings) == Config(port=9, backlog=7)


def test_a_configuration_is_copied() -> None:
    config = Config(port=9)
    copied = Config.from_object(config)
    assert copied == config
    assert copied is not config


def test_a_module_gives_its_variables_and_keeps_what_else_it_has(write: Write) -> None:
    write(SETTINGS)
    assert Config.from_object("om_package.om_settings") == EXPECTED
    assert Config.from_object(sys.modules["om_package.om_settings"]) == EXPECTED


@pytest.mark.parametrize(
    "target", ["om_package.om_settings.Settings", "om_package.om_settings:Settings"]
)
def test_an_object_is_imported_from_where_it_is_said_to_be(write: Write, target: str) -> None:
    write(SETTINGS)
    assert Config.from_object(target) == Config(port=9, backlog=7)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("om_absent", "ModuleNotFoundError: No module named 'om_absent'"),
        ("om_package.om_absent", "AttributeError"),
        ("om_package.om_settings:absent", "AttributeError"),
        ("", "ValueError"),
    ],
)
def test_what_cannot_be_imported_is_an_error(write: Write, target: str, reason: str) -> None:
    write(SETTINGS)
    with pytest.raises(ConfigError) as refusal:
        Config.from_object(target)
    assert str(refusal.value).startswith(f"cannot take the configuration from {target!r}: {reason}")


def test_a_module_that_fails_is_an_error_with_its_cause(write: Write) -> None:
    write("import om_absent_import")
    with pytest.raises(ConfigError, match="No module named 'om_absent_import'") as refusal:
        Config.from_object("om_package.om_settings")
    assert isinstance(refusal.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"prot": 1}, r"unknown option 'prot' \(from SimpleNamespace \[prot\]\); did you mean"),
        ({"port": "x"}, r"port = 'x' \(from SimpleNamespace \[port\]\): expected a whole number"),
        ({"headers": print}, "headers = <built-in function print>"),
        ({"PORT": 1}, "PORT .* are written in small letters, port"),
        ({"Workers": 1}, "Workers .* are written in small letters, workers"),
    ],
)
def test_an_object_that_is_wrong_is_an_error(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.from_object(SimpleNamespace(**attributes))


# Files ----------------------------------------------------------------------------------


def test_a_python_file_is_run_and_gives_its_variables(write: Write) -> None:
    path = write(SETTINGS)
    assert Config.from_pyfile(path) == EXPECTED
    assert Config.from_pyfile(str(path)) == EXPECTED


def test_a_python_file_knows_where_it_is(write: Write) -> None:
    path = write("import os\nuds = os.path.join(os.path.dirname(__file__), 'app.sock')")
    assert Config.from_pyfile(path).uds == str(path.parent / "app.sock")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bind = ", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("port = 'x'", r"om_settings.py \[port\]\): expected a whole number"),
        ("prot = 1", "did you mean 'port'"),
        ("BIND = ':1'", "small letters, bind"),
    ],
)
def test_a_python_file_that_is_wrong_is_an_error(write: Write, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError, match=message) as refusal:
        Config.from_pyfile(path)
    assert str(path) in str(refusal.value)


def test_a_python_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot read '/absent\.py': No such file"):
        Config.from_pyfile("/absent.py")
