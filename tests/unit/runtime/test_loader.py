from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from omnicorn.errors import ConfigError
from omnicorn.runtime.loader import load_app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = "async def app(scope, receive, send): ...\n"


@pytest.fixture(autouse=True)
def _own_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start in an empty folder; leave sys.path and sys.modules as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def refusal(spec: str, *, app_dir: str = ".", factory: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        load_app(spec, app_dir=app_dir, factory=factory)
    assert caught.value.option == "app"
    return str(caught.value)


# What works -----------------------------------------------------------------------------


def test_the_named_attribute_is_loaded_from_the_current_folder(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", APP)
    assert load_app("om_main:app").__name__ == "app"


def test_an_attribute_may_be_dotted(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "class box:\n    class app:\n        app = print\n")
    assert load_app("om_main:box.app.app") is print


@pytest.mark.parametrize("name", ["app", "application"])
def test_without_an_attribute_the_conventional_names_are_tried(tmp_path: Path, name: str) -> None:
    write(tmp_path / "om_main.py", APP.replace("app", name))
    assert load_app("om_main").__name__ == name


def test_a_module_of_a_package_is_loaded(tmp_path: Path) -> None:
    write(tmp_path / "om_pkg" / "__init__.py", "")
    write(tmp_path / "om_pkg" / "web.py", APP)
    assert load_app("om_pkg.web:app").__module__ == "om_pkg.web"


def test_a_module_may_have_a_name_that_no_statement_can_import(tmp_path: Path) -> None:
    write(tmp_path / "om-main.py", APP)
    assert load_app("om-main:app").__name__ == "app"


def test_the_app_dir_comes_first_on_the_path_and_only_once(tmp_path: Path) -> None:
    write(tmp_path / "src" / "om_main.py", APP)
    before = list(sys.path)
    load_app("om_main:app", app_dir="src")
    load_app("om_main:app", app_dir="src")
    assert sys.path == [str(tmp_path / "src"), *before]


def test_a_factory_is_called_and_its_result_returned(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", APP + "def create(): return app\n")
    assert load_app("om_main:create", factory=True).__name__ == "app"


def test_a_factory_may_be_a_class_or_have_defaults(tmp_path: Path) -> None:
    write(
        tmp_path / "om_main.py",
        "class Make:\n    def __init__(self, debug=False): ...\n"
        "    async def __call__(self, scope, receive, send): ...\n",
    )
    assert type(load_app("om_main:Make", factory=True)).__name__ == "Make"


@pytest.mark.parametrize(
    "definition",
    [
        "def app(environ, start_response): ...",
        "def app(scope): ...",
        "def app(*args): ...",
        "class app:\n    def __init__(self, scope): ...",
        "app = print",
        "app = dict",
    ],
)
def test_what_takes_arguments_is_not_mistaken_for_a_factory(
    tmp_path: Path, definition: str
) -> None:
    write(tmp_path / "om_main.py", definition)
    assert load_app("om_main:app") is sys.modules["om_main"].app


# The spec -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        ("main.py", "write main:app"),
        ("main.py:api", "write main:api"),
        ("./main.py", "write main:app"),
        ("src/web/main.py", "write src.web.main:app"),
        ("src\\main.py", "write src.main:app"),
        ("src/web", "write src.web:app"),
        ("/srv/web/main.py", "write --app-dir /srv/web main:app"),
        ("/main.py", "write --app-dir / main:app"),
        ("../web/main.py:api", "write --app-dir ../web main:api"),
        ("main:create()", "write --factory main:create"),
    ],
)
def test_a_spec_written_for_something_else_is_translated(spec: str, remedy: str) -> None:
    assert refusal(spec).endswith(remedy)


@pytest.mark.parametrize("spec", ["", ":app", "main:", "main:a b", "main:a:b", ".main:app"])
def test_a_malformed_spec_is_shown_the_form(spec: str) -> None:
    assert refusal(spec) == f"{spec!r} is not of the form module:attribute, such as main:app"


def test_an_app_dir_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_app("main:app", app_dir="nowhere")
    assert caught.value.option == "app_dir"
    assert str(tmp_path / "nowhere") in str(caught.value)


# The module -----------------------------------------------------------------------------


def test_a_module_that_is_not_there_is_told_with_the_place_and_the_nearest(
    tmp_path: Path,
) -> None:
    write(tmp_path / "om_main.py", APP)
    assert refusal("om_mian:app") == (
        f"there is no module 'om_mian': neither in {tmp_path} nor installed"
        "; did you mean 'om_main'?"
    )


def test_a_module_missing_from_a_package_is_told_with_the_package(tmp_path: Path) -> None:
    write(tmp_path / "om_pkg" / "__init__.py", "")
    write(tmp_path / "om_pkg" / "server.py", APP)
    assert refusal("om_pkg.sever:app") == (
        "there is no module 'om_pkg.sever': the package om_pkg has no 'sever'"
        "; did you mean 'server'?"
    )


def test_a_package_whose_folder_is_gone_is_told_without_a_suggestion(tmp_path: Path) -> None:
    write(tmp_path / "om_pkg" / "__init__.py", "__path__ = ['absent']\n")
    assert refusal("om_pkg.web:app") == (
        "there is no module 'om_pkg.web': the package om_pkg has no 'web'"
    )


def test_a_dot_where_a_colon_belongs_is_recognised(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", APP)
    assert refusal("om_main.app") == (
        "there is no module 'om_main.app': om_main is not a package; did you mean 'om_main:app'?"
    )


def test_a_missing_import_of_the_module_is_told_apart_from_a_missing_module(
    tmp_path: Path,
) -> None:
    write(tmp_path / "om_main.py", "import om_absent\n")
    message = refusal("om_main:app")
    assert message.splitlines()[-1] == (
        "cannot import om_main: it imports om_absent, which cannot be found; "
        "is it installed in this environment?"
    )
    assert "om_main.py" in message


def test_a_module_that_imports_a_missing_namesake_is_told_apart_too(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "import om_main.part\n")
    assert "cannot import om_main: it imports om_main.part" in refusal("om_main:app")


def test_an_exception_of_the_module_shows_its_own_frames_alone(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "import om_other\n")
    write(tmp_path / "om_other.py", "def f():\n    raise KeyError('secret')\nf()\n")
    lines = refusal("om_main:app").splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    files = [line.split('"')[1] for line in lines if line.startswith("  File ")]
    assert files == [str(tmp_path / name) for name in ("om_main.py", "om_other.py", "om_other.py")]
    assert lines[-2] == "KeyError: 'secret'"
    assert lines[-1] == "cannot import om_main: it raised KeyError: 'secret'"


def test_a_chained_exception_is_trimmed_throughout(tmp_path: Path) -> None:
    write(
        tmp_path / "om_main.py",
        "try:\n    import om_other\nexcept ValueError as e:\n    raise RuntimeError('b') from e\n",
    )
    write(tmp_path / "om_other.py", "raise ValueError('a')\n")
    message = refusal("om_main:app")
    assert "ValueError: a" in message
    assert message.endswith("cannot import om_main: it raised RuntimeError: b")
    assert "importlib" not in message
    assert "loader.py" not in message


def test_a_syntax_error_shows_the_line(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "x = = 1\n")
    message = refusal("om_main:app")
    assert "x = = 1" in message
    assert message.splitlines()[-1] == (
        "cannot import om_main: it raised SyntaxError: invalid syntax (om_main.py, line 1)"
    )


def test_a_module_that_exits_is_an_error_too(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "raise SystemExit('no settings')\n")
    assert refusal("om_main:app").endswith(
        "cannot import om_main: it exits the process (SystemExit: no settings)"
    )


def test_the_exception_behind_a_failure_is_its_cause(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "1 / 0\n")
    with pytest.raises(ConfigError) as caught:
        load_app("om_main:app")
    assert type(caught.value.__cause__) is ZeroDivisionError


def test_an_interrupt_while_importing_stays_an_interrupt(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_app("om_main:app")


# The attribute --------------------------------------------------------------------------


def test_a_missing_attribute_is_told_with_the_file_and_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "webapp = print\n")
    assert refusal("om_main:webap") == (
        f"module om_main ({tmp_path / 'om_main.py'}) has no attribute 'webap'"
        "; did you mean 'webapp'?"
    )


def test_a_missing_part_of_a_dotted_attribute_is_told_with_its_holder(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "class box:\n    class box: ...\n")
    assert refusal("om_main:box.box.app") == "om_main:box.box has no attribute 'app'"


def test_a_lazy_attribute_that_fails_shows_its_own_frames(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "def __getattr__(name):\n    raise OSError('late')\n")
    message = refusal("om_main:lazy")
    assert message.startswith("Traceback")
    assert message.endswith(": 'lazy' raised OSError: late")


def test_neither_conventional_name_is_told(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "api = print\n")
    assert refusal("om_main") == (
        f"module om_main ({tmp_path / 'om_main.py'}) has neither app nor application: say which "
        "attribute it is, om_main:attribute"
    )


@pytest.mark.parametrize(
    ("value", "what"), [("'x'", "a str"), ("3", "an int"), ("__import__('os')", "a module")]
)
def test_what_cannot_be_called_is_no_application(tmp_path: Path, value: str, what: str) -> None:
    write(tmp_path / "om_main.py", f"app = {value}\n")
    assert refusal("om_main:app") == (
        f"om_main:app is {what}, which is not callable, so it is no application"
    )


@pytest.mark.parametrize(
    "definition", ["def create(): ...", "async def create(): ...", "class create: ..."]
)
def test_an_obvious_factory_gets_a_hint(tmp_path: Path, definition: str) -> None:
    write(tmp_path / "om_main.py", definition)
    message = refusal("om_main:create")
    assert message.startswith("om_main:create takes no arguments")
    assert message.endswith("add --factory")


# The factory ----------------------------------------------------------------------------


def test_a_factory_that_raises_shows_its_own_frames_alone(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "def create():\n    raise RuntimeError('no database')\n")
    lines = refusal("om_main:create", factory=True).splitlines()
    assert sum(line.startswith("  File ") for line in lines) == 1
    assert lines[-1] == "the factory om_main:create raised RuntimeError: no database"


def test_a_factory_that_wants_arguments_is_told_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "def create(settings): ...\n")
    message = refusal("om_main:create", factory=True)
    assert message.startswith("the factory om_main:create cannot be called: ")
    assert "settings" in message
    assert "\n" not in message


def test_an_async_factory_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "async def create(): ...\n")
    assert refusal("om_main:create", factory=True).endswith("it must be a plain function")


def test_a_factory_that_returns_no_application_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "om_main.py", "def create(): return 3\n")
    assert refusal("om_main:create", factory=True) == (
        "the factory om_main:create returned an int, which is not callable"
    )
