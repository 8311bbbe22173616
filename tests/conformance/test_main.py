from __future__ import annotations

import pytest

from conformance import __main__ as command
from conformance import server


def test_by_default_every_case_is_run_on_omnicorn_with_both_loops() -> None:
    options = command.parser().parse_args([])

    assert (options.loop, options.cases) == (("asyncio", "uvloop"), ("*",))
    assert server.argv(options.server, loop="uvloop", port=1234)[1:3] == ["-m", "omnicorn"]


def test_cases_and_loops_may_be_chosen() -> None:
    options = command.parser().parse_args(["--loop", "uvloop", "--cases", "1.*, 9.1.*,12.1.3"])

    assert (options.loop, options.cases) == (("uvloop",), ("1.*", "9.1.*", "12.1.3"))


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
