from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conformance.interpreters import NoVerdict

from conformance import __main__ as command
from conformance import server, toolkit

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.suites import Suite


def test_by_default_every_case_is_run_on_omnicorn_with_each_loop() -> None:
    options = command.parse([])

    assert (options.loop, options.cases) == (("asyncio", "uvloop", "trio"), ("*",))
    assert server.argv(options.server, loop="uvloop", port=1234)[1:3] == ["-m", "omnicorn"]


def test_cases_and_loops_may_be_chosen() -> None:
    options = command.parse(["--loop", "uvloop", "--cases", "1.*, 9.1.*,12.1.3"])

    assert (options.loop, options.cases) == (("uvloop",), ("1.*", "9.1.*", "12.1.3"))


def test_the_name_of_autobahns_suite_may_be_left_out() -> None:
    assert command.parse(["--loop", "uvloop"]) == command.parse(["websocket", "--loop", "uvloop"])


def test_a_suite_takes_pythons_sources_and_tests(tmp_path: Path) -> None:
    options = command.parse(["django", "--python", "a,b", "--source", str(tmp_path), "async"])

    assert (options.suite, options.python, options.tests) == ("django", ("a", "b"), ["async"])
    assert options.source == tmp_path


@pytest.mark.parametrize(
    "arguments",
    [["flask"], ["django", "--source", "/nowhere"], ["toolkit", "async"], ["asgiref", "--loop"]],
)
def test_what_no_suite_takes_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)

    assert exit_.value.code == 2


@pytest.mark.parametrize(
    ("gave", "status"),
    [
        ([True, True, True, True], 0),
        ([True, False, True, True], 1),
        ([True, "no tests", True, True], 2),
        (["no tests", True, False, True], 1),
    ],
)
def test_all_suites_of_the_toolkit_give_one_status(
    gave: list[bool | str],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran: list[str] = []

    def run(suite: Suite, *others: object) -> bool:
        ran.append(suite.name)
        result = gave[len(ran) - 1]
        if isinstance(result, str):
            raise NoVerdict(result)
        return result

    monkeypatch.setattr(toolkit, "run", run)

    assert command.main(["toolkit"]) == status

    assert ran == ["asgiref", "django", "channels", "daphne"]
    assert ("no tests" in capsys.readouterr().err) == ("no tests" in gave)


def test_a_suite_takes_its_sources_from_its_variable_unless_the_command_line_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_variable, given = tmp_path / "in-variable", tmp_path / "given"
    in_variable.mkdir()
    given.mkdir()
    monkeypatch.setenv("CHANNELS_SOURCE", str(in_variable))
    monkeypatch.setenv("DJANGO_SOURCE", "")
    for unset in ("ASGIREF_SOURCE", "DAPHNE_SOURCE"):
        monkeypatch.delenv(unset, raising=False)
    took: list[tuple[str, Path | None]] = []

    def run(suite: Suite, tests: object, pythons: object, source: Path | None, *_: object) -> bool:
        took.append((suite.name, source))
        return True

    monkeypatch.setattr(toolkit, "run", run)

    assert command.main(["channels", "--source", str(given)]) == 0
    assert command.main(["toolkit"]) == 0

    assert took == [
        ("channels", given),
        ("asgiref", None),
        ("django", None),
        ("channels", in_variable),
        ("daphne", None),
    ]


def test_a_variable_that_names_no_folder_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHANNELS_SOURCE", "/nowhere")

    assert command.main(["channels"]) == 2

    assert "CHANNELS_SOURCE: '/nowhere': expected a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cases", ""],
        ["--cases", "one"],
        ["--cases", "1.*,,2.*"],
        ["--cases", "1.*.2"],
        ["--loop", "../uvloop"],
        ["--loop", ""],
        ["--server", "uvicorn --port 9001"],
        ["--server", "uvicorn --port '{port}"],
        ["--server", ""],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)

    assert exit_.value.code == 2
    assert f"argument {arguments[0]}: " in capsys.readouterr().err


def test_without_python_2_7_there_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    assert command.main([]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert "Python 2.7" in said.err
    assert "pyenv install 2.7.18" in said.err


def test_another_python_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--python2", "/nowhere/python2.7"]) == 2

    assert "/nowhere/python2.7: cannot run" in capsys.readouterr().err
