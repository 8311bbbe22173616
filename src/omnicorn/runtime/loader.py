"""From ``module:attribute`` to the application, or to a sentence that says what to fix.

What this file alone decides: how an import string is read, what comes first on
``sys.path``, and how a failure is told. Whatever goes wrong, `load_app` raises
`ConfigError` with ``option="app"`` (or ``"app_dir"``) and the exception behind it, if
any, as ``__cause__``. Where the application's own code failed, the message begins with
its traceback, from which the frames of omnicorn and importlib are gone; the last line
is always the verdict.

Three failures look alike to Python and are told apart here: the named module is not
there (no frame of the application ran), it imports something that is not there, and it
was found but raised.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from omnicorn.config.spelling import did_you_mean
from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from traceback import TracebackException
    from types import ModuleType

    from omnicorn.config import Config
    from omnicorn.runtime.interfaces import AnyApplication

#: Attributes that are looked for when the spec names none, in this order.
CONVENTIONAL = ("app", "application")


def load_app(spec: str, *, app_dir: str = ".", factory: bool = False) -> Callable[..., Any]:
    """Import the application.

    Args:
        spec: ``module:attribute``; the attribute may be dotted, and without it ``app``,
            then ``application`` is taken.
        app_dir: Folder to import from, relative to the current one; it is put first on
            ``sys.path`` and stays there.
        factory: Call the attribute without arguments and return what it returns.

    Returns:
        The application: some callable; which interface it speaks is not looked at.

    Raises:
        ConfigError: The message says what to fix.
    """
    module_name, attribute = _parse(spec)
    folder = _put_first(app_dir)
    module = _import(module_name, spec, folder)
    found, name = _find(module, attribute)
    target = f"{module_name}:{name}"
    if not callable(found):
        raise _wrong(f"{target} is {_a(found)}, which is not callable, so it is no application")
    if factory:
        return _call_factory(found, target)
    if _takes_nothing(found):
        raise _wrong(
            f"{target} takes no arguments, so it is not an application but probably makes "
            f"one: add --factory"
        )
    application: Callable[..., Any] = found
    return application


def load(app: AnyApplication | str | None, config: Config) -> AnyApplication:
    """The application itself, imported where it is named."""
    target = config.app if app is None else app
    if target is None:
        raise ConfigError("no application is given: name it as module:attribute", "app")
    if isinstance(target, str):
        return load_app(target, app_dir=config.app_dir, factory=config.factory)
    if config.factory:
        made: AnyApplication = target()  # a factory, by the caller's word
        return made
    return target


# Reading the spec -----------------------------------------------------------------------


def _parse(spec: str) -> tuple[str, str]:
    module, colon, attribute = spec.partition(":")
    if "/" in module or "\\" in module or module.endswith(".py"):
        raise _wrong(f"{spec!r} is the path of a file: write {_as_module(module, attribute)}")
    if attribute.endswith(")"):
        call = attribute.partition("(")[0]
        raise _wrong(f"{spec!r} is a call: write --factory {module}:{call}")
    # A module's file may be called anything (my-app.py); an attribute may not.
    well_formed = all(name and not name.isspace() for name in module.split("."))
    if colon:
        well_formed = well_formed and all(name.isidentifier() for name in attribute.split("."))
    if not well_formed:
        raise _wrong(f"{spec!r} is not of the form module:attribute, such as main:app")
    return module, attribute


def _as_module(path: str, attribute: str) -> str:
    path = path.removesuffix(".py").replace("\\", "/").rstrip("/")
    target = f":{attribute or CONVENTIONAL[0]}"
    if path.startswith(("/", "../")):
        folder, _, name = path.rpartition("/")
        return f"--app-dir {folder or '/'} {name}{target}"
    return path.removeprefix("./").replace("/", ".") + target


def _put_first(app_dir: str) -> str:
    folder = os.path.abspath(app_dir)
    if not os.path.isdir(folder):
        raise ConfigError(f"app_dir = {app_dir!r}: there is no folder {folder}", "app_dir")
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    return folder


# Importing ------------------------------------------------------------------------------


def _import(name: str, spec: str, folder: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name
        trace = _own_trace(error)
        if not trace.stack:
            raise _not_found(spec, folder, missing or name) from error
        verdict = f"cannot import {name}: it imports {missing}, which cannot be found"
        if missing is not None and "." not in missing:
            verdict += "; is it installed in this environment?"
        raise _failed(trace, verdict) from error
    except SystemExit as error:
        raise _failed(
            _own_trace(error), f"cannot import {name}: it exits the process ({_last(error)})"
        ) from error
    except Exception as error:
        raise _failed(
            _own_trace(error), f"cannot import {name}: it raised {_last(error)}"
        ) from error


def _not_found(spec: str, folder: str, missing: str) -> ConfigError:
    parent, _, last = missing.rpartition(".")
    if not parent:
        siblings = _modules_in(folder)
        return _wrong(
            f"there is no module {missing!r}: neither in {folder} nor installed"
            f"{did_you_mean(missing, siblings)}"
        )
    paths = getattr(sys.modules.get(parent), "__path__", None)
    if paths is None:
        hint = f"; did you mean '{parent}:{last}'?" if missing == spec else ""
        return _wrong(f"there is no module {missing!r}: {parent} is not a package{hint}")
    siblings = [sibling for path in paths for sibling in _modules_in(path)]
    return _wrong(
        f"there is no module {missing!r}: the package {parent} has no {last!r}"
        f"{did_you_mean(last, siblings)}"
    )


def _modules_in(folder: str) -> list[str]:
    try:
        entries = os.listdir(folder)
    except OSError:
        return []
    names = (entry.removesuffix(".py") for entry in entries)
    return [name for name in names if name.isidentifier()]


# Finding the attribute ------------------------------------------------------------------


def _find(module: ModuleType, attribute: str) -> tuple[Any, str]:
    if not attribute:
        for name in CONVENTIONAL:
            if hasattr(module, name):
                return getattr(module, name), name
        raise _wrong(
            f"{_whereabouts(module)} has neither app nor application: say which attribute it "
            f"is, {module.__name__}:attribute"
        )
    holder: Any = module
    walked: list[str] = []
    for name in attribute.split("."):
        holder_name = f"{module.__name__}:{'.'.join(walked)}" if walked else _whereabouts(module)
        try:
            holder = getattr(holder, name)
        except AttributeError as error:
            names = [known for known in dir(holder) if not known.startswith("_")]
            raise _wrong(
                f"{holder_name} has no attribute {name!r}{did_you_mean(name, names)}"
            ) from error
        except Exception as error:  # A lazy attribute that failed.
            raise _failed(
                _own_trace(error), f"{holder_name}: {name!r} raised {_last(error)}"
            ) from error
        walked.append(name)
    return holder, attribute


def _whereabouts(module: ModuleType) -> str:
    # The path tells at once that a module of the standard library was found instead.
    path = getattr(module, "__file__", None)
    return f"module {module.__name__}" + (f" ({path})" if path else "")


# Judging what was found -----------------------------------------------------------------


def _call_factory(make: Callable[[], Any], target: str) -> Callable[..., Any]:
    try:
        made = make()
    except (Exception, SystemExit) as error:
        trace = _own_trace(error)
        if not trace.stack:  # The call itself failed: it wants arguments.
            raise _wrong(f"the factory {target} cannot be called: {error}") from error
        raise _failed(trace, f"the factory {target} raised {_last(error)}") from error
    if hasattr(made, "__await__") and hasattr(made, "close"):
        made.close()
        raise _wrong(f"the factory {target} is async: it must be a plain function")
    if not callable(made):
        raise _wrong(f"the factory {target} returned {_a(made)}, which is not callable")
    application: Callable[..., Any] = made
    return application


def _takes_nothing(found: Callable[..., Any]) -> bool:
    # No interface calls an application without arguments: ASGI 3 gives three, WSGI two,
    # ASGI 2 one.
    from inspect import signature

    try:
        return not signature(found).parameters
    except (TypeError, ValueError):  # Something compiled that does not tell.
        return False


# Telling --------------------------------------------------------------------------------


def _wrong(message: str) -> ConfigError:
    return ConfigError(message, "app")


def _failed(trace: TracebackException, verdict: str) -> ConfigError:
    return ConfigError("".join(trace.format()) + verdict, "app")


def _last(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _a(thing: object) -> str:
    name = type(thing).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _own_trace(error: BaseException) -> TracebackException:
    """Return the traceback with the application's frames alone."""
    from traceback import TracebackException

    try:
        trace = TracebackException.from_exception(error)
    except Exception:
        # To explain a missing module, Python 3.15.0 imports the one it should be a part of, and
        # does not expect that to fail.
        _forget_names(error)
        trace = TracebackException.from_exception(error)
    pending: list[TracebackException | None] = [trace]
    while pending:
        part = pending.pop()
        if part is None:
            continue
        part.stack[:] = [frame for frame in part.stack if not _is_machinery(frame.filename)]
        pending += (part.__cause__, part.__context__, *(part.exceptions or ()))
    return trace


def _forget_names(error: BaseException | None) -> None:
    """Take the names from missing modules, all along the chain."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            error.name = None
        error = error.__cause__ or error.__context__


def _is_machinery(filename: str) -> bool:
    return (
        filename == __file__
        or filename.startswith("<frozen importlib")
        or filename.endswith(os.path.join("importlib", "__init__.py"))
    )
