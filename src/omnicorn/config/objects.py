"""Options out of Python: which attributes of an object, a module or a file are options.

What this file alone decides:

1. A variable in lower case is an option (or a name of hypercorn's), and one that nobody knows
   is an error. What a program has besides, for its own use, is passed over: modules, classes,
   functions, constants in capitals, names that begin with an underscore.
2. An option in capitals is an error, so that it is not taken for a constant and lost.
3. Whatever goes wrong in somebody's file or module becomes a ConfigError that names it.

Values are Python's own and are not read as text: a time is a number, a list is a list.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import TYPE_CHECKING

from omnicorn.config.hypercorn import NAMES
from omnicorn.config.options import OPTIONS, Config
from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    #: The values by name, and where they come from.
    Found = tuple[dict[str, object], str]

#: Of what ``from __future__ import`` leaves in a module.
_Feature = type(annotations)


def from_object(instance: object) -> Found:
    """Take the options from the attributes of an object; see `Config.from_object`.

    Raises:
        ConfigError: It cannot be imported, or spells an option in capitals.
    """
    label = instance if isinstance(instance, str) else _name(instance)
    if isinstance(instance, str):
        instance = _import(instance)
    if isinstance(instance, Config):  # its methods and properties are no options
        return dict(vars(instance)), label
    names = [name for name in dir(instance) if not name.startswith("_")]
    return _pick(((name, getattr(instance, name)) for name in names), label), label


def from_pyfile(path: str | os.PathLike[str]) -> Found:
    """Run a Python file and take its variables; see `Config.from_pyfile`.

    Raises:
        ConfigError: It cannot be read, fails, or spells an option in capitals.
    """
    label = os.fspath(path)
    module = ModuleType("config")
    module.__file__ = label
    try:
        with open(label, "rb") as stream:
            code = compile(stream.read(), label, "exec", dont_inherit=True)
        exec(code, vars(module))
    except OSError as error:
        raise ConfigError(f"cannot read {label!r}: {error.strerror}", source=label) from error
    except Exception as error:
        raise _failed(label, error) from error
    return _pick(vars(module).items(), label), label


def _pick(attributes: Iterable[tuple[str, object]], label: str) -> dict[str, object]:
    """Tell the options from what else there is (rules 1 and 2)."""
    found: dict[str, object] = {}
    for name, value in attributes:
        if name.startswith("_") or isinstance(value, (ModuleType, _Feature)):
            continue
        if callable(value) and name == "app":
            continue  # a program's application is no option; where to import it from is
        if name in OPTIONS or name in NAMES:
            found[name] = value
        elif name.lower() in OPTIONS or name.lower() in NAMES:
            raise ConfigError(
                f"{name} (from {label}): options are written in small letters, {name.lower()}",
                name.lower(),
                label,
            )
        elif name.islower() and not callable(value):
            found[name] = value
    return found


def _import(target: str) -> object:
    from importlib import import_module

    module, colon, attribute = target.partition(":")
    try:
        if not colon:
            try:
                return import_module(target)
            except ModuleNotFoundError as error:
                module, _, attribute = target.rpartition(".")
                if not module or error.name != target:
                    raise
        return getattr(import_module(module), attribute)
    except Exception as error:
        raise _failed(target, error) from error


def _failed(label: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"cannot take the configuration from {label!r}: {type(error).__name__}: {error}",
        source=label,
    )


def _name(instance: object) -> str:
    name = getattr(instance, "__qualname__", None) or getattr(instance, "__name__", None)
    return name if isinstance(name, str) else type(instance).__name__
