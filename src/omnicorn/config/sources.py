"""Where values come from, and which wins; every value remembers its source.

::

    flags  >  OMNICORN_*  >  PORT, FORWARDED_ALLOW_IPS  >  file  >  default

Rules that are decided here alone:

1. The file is the one named by ``--config`` or ``OMNICORN_CONFIG``, else
   ``omnicorn.toml`` in the current folder, else ``[tool.omnicorn]`` of
   ``pyproject.toml`` there. Options stand at its top level or in one table,
   ``[omnicorn]`` or ``[tool.omnicorn]``.
2. A name nobody knows is an error in every source, with the nearest that exists. The
   variables that Kubernetes invents for a service called omnicorn are not options.
3. An address is given in one form: host and port, uds, fd, or bind. A source that names
   a form replaces the forms of the sources below it (``--port`` wins over ``bind`` in
   the file); two forms in one source are an error. Variables of other programs
   (PORT) never replace a form, they only fill in.
4. Nothing is imported or parsed for a source that is not there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from omnicorn.config.options import ENV_PREFIX, LIST_HINT, OPTIONS, Config, Option, resolve
from omnicorn.config.spelling import did_you_mean
from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    #: Option name -> checked value, its source.
    Layer = dict[str, tuple[object, str]]

#: Names the file to read; the one variable that is not an option.
CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"
DEFAULT = "default"

_FORMS = {
    "host": "host and port",
    "port": "host and port",
    "uds": "uds",
    "fd": "fd",
    "bind": "bind",
}


class Given(NamedTuple):
    """One flag of a command line: the option, the flag as typed, its value."""

    name: str
    flag: str
    value: str | bool


class Loaded(NamedTuple):
    """A configuration and where each of its values comes from.

    Args:
        config: Valid.
        sources: For each option a flag, a variable, ``"omnicorn.toml [port]"`` or
            ``"default"``.
        file: The file that was read, or None.
    """

    config: Config
    sources: Mapping[str, str]
    file: str | None


def load(
    given: Iterable[Given] = (),
    environ: Mapping[str, str] | None = None,
    cwd: str = ".",
    file: str | None = None,
) -> Loaded:
    """Merge every source into one configuration.

    Args:
        given: The flags, in the order they were typed; see `runtime.cli`.
        environ: The environment; None is that of the process.
        cwd: Where relative file names start, and where the default files are looked for.
        file: What ``--config`` named.

    Raises:
        ConfigError: An unknown name, a bad value, a bad file, two forms of address.
    """
    environ = os.environ if environ is None else environ
    path, from_file = _read_file(file, environ, cwd)
    from_environment = _read_environment(environ)
    from_flags = _read_flags(given)
    merged: Layer = {}
    _lay(merged, from_file)
    merged.update(_read_foreign(environ, from_file, from_environment, from_flags))
    _lay(merged, from_environment)
    _lay(merged, from_flags)
    sources = {name: merged[name][1] if name in merged else DEFAULT for name in OPTIONS}
    values = {name: value for name, (value, _) in merged.items()}
    return Loaded(Config(**values), sources, path)  # type: ignore[arg-type]


def read_toml(path: str | os.PathLike[str]) -> Config:
    """Read one file and nothing else; see `Config.from_toml`."""
    label = os.fspath(path)
    try:
        content = _bytes(label)
    except OSError as error:
        raise ConfigError(f"cannot read {label!r}: {error.strerror}", source=label) from None
    merged: Layer = {}
    _lay(merged, _read_toml(label, content, required=True))
    return Config(**{name: value for name, (value, _) in merged.items()})  # type: ignore[arg-type]


def _lay(merged: Layer, layer: Layer) -> None:
    """Put a source over those below it (rule 3)."""
    forms = {
        _FORMS[name]: source
        for name, (value, source) in layer.items()
        if name in _FORMS and value not in (None, ())
    }
    if len(forms) > 1:
        raise ConfigError(
            f"{' and '.join(forms.values())} exclude each other: give host and port, or uds, "
            "or fd, or (for several places) bind",
            "bind",
        )
    for form in forms:
        for name in [name for name in merged if _FORMS.get(name, form) != form]:
            del merged[name]
    merged.update(layer)


# Flags ----------------------------------------------------------------------------------


def _read_flags(given: Iterable[Given]) -> Layer:
    layer: Layer = {}
    for name, flag, value in given:
        row = OPTIONS[name]
        if isinstance(value, bool):
            layer[name] = row.check(value, flag), flag
        elif row.kind.repeatable:
            before = layer.get(name)
            items = row.check(value, flag)
            assert isinstance(items, tuple)
            if before is not None:
                assert isinstance(before[0], tuple)
                items = before[0] + items
            layer[name] = items, flag
        else:
            layer[name] = row.parse(value, flag), flag
    return layer


# Environment ----------------------------------------------------------------------------


def _read_environment(environ: Mapping[str, str]) -> Layer:
    layer: Layer = {}
    for variable in environ:
        if not variable.startswith(ENV_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        row = OPTIONS.get(variable[len(ENV_PREFIX) :].lower())
        if row is not None and row.kind.program_only:
            row = None
        text = environ[variable]
        if (row is None or "://" in text) and _is_service_link(variable, text):
            continue
        if row is None or row.env[0] != variable:
            known = [*(row.env[0] for row in OPTIONS.values() if row.env), CONFIG_VARIABLE]
            hint = did_you_mean(variable, known)
            raise ConfigError(f"unknown variable {variable}{hint}{LIST_HINT}", source=variable)
        layer[row.name] = row.parse(text, variable), variable
    return layer


def _read_foreign(environ: Mapping[str, str], below: Layer, *above: Layer) -> Layer:
    """Read the variables of other programs, where they decide something.

    An empty one is as good as none, and one that is overruled is not even looked at.
    """
    layer: Layer = {}
    for row in OPTIONS.values():
        for variable in row.env[1:]:
            text = environ.get(variable)
            if not text or any(row.name in layer for layer in above):
                continue
            # A foreign PORT is no form of address of its own (rule 3).
            if row.name in _FORMS and any(
                name in layer for layer in (below, *above) for name in ("bind", "uds", "fd")
            ):
                continue
            layer[row.name] = row.parse(text, variable), variable
    return layer


def _is_service_link(variable: str, text: str) -> bool:
    """Tell whether Kubernetes sets this for a service whose name begins with omnicorn.

    For a service ``omnicorn-web`` every pod of the namespace gets
    OMNICORN_WEB_SERVICE_HOST, OMNICORN_WEB_PORT=tcp://..., OMNICORN_WEB_PORT_80_TCP_ADDR
    and so on; nobody who starts a server has written those.
    """
    import re

    if variable.endswith("_PORT") and "://" in text:
        return True
    link = r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
    return re.fullmatch(ENV_PREFIX + link, variable) is not None


# File -----------------------------------------------------------------------------------


def _read_file(named: str | None, environ: Mapping[str, str], cwd: str) -> tuple[str | None, Layer]:
    source = "--config"
    if named is None:
        named = environ.get(CONFIG_VARIABLE) or None
        source = CONFIG_VARIABLE
    if named is not None:
        try:
            content = _bytes(os.path.join(cwd, named))
        except OSError as error:
            raise ConfigError(
                f"cannot read the config file {named!r} (from {source}): {error.strerror}",
                "config",
                source,
            ) from None
        return named, _read_toml(named, content, required=True)
    for name in ("omnicorn.toml", "pyproject.toml"):
        try:
            content = _bytes(os.path.join(cwd, name))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"cannot read {name}: {error.strerror}", source=name) from None
        # Most projects have a pyproject.toml that does not concern us; parsing TOML is slow.
        if name == "omnicorn.toml" or b"tool.omnicorn" in content:
            layer = _read_toml(name, content, required=False)
            if layer or name == "omnicorn.toml":
                return name, layer
    return None, {}


def _bytes(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def _read_toml(label: str, content: bytes, *, required: bool) -> Layer:
    import tomllib

    try:
        document = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{label} is not valid TOML: {error}", source=label) from None
    prefix, table = _find_table(label, document, required)
    values: dict[str, object] = {}
    keys: dict[str, str] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in keys:
            raise ConfigError(
                f"{label} has {name} twice, with - and with _", name, f"{label} [{prefix}{key}]"
            )
        values[name] = value
        keys[name] = key
    layer: Layer = {}

    def current(name: str) -> object:
        return layer[name][0] if name in layer else OPTIONS[name].default

    def where(name: str) -> str:
        return f"{label} [{prefix}{keys[name]}]"

    for row, value, source in resolve(values, current, where, LIST_HINT):
        assert source is not None
        layer[row.name] = _from_toml(row, value, source), source
    return layer


def _find_table(
    label: str, document: dict[str, object], required: bool
) -> tuple[str, dict[str, object]]:
    """Return the table that holds the options, and its name with a dot."""
    tool = document.get("tool")
    ours = tool.get("omnicorn") if isinstance(tool, dict) else None
    if os.path.basename(label) == "pyproject.toml":
        if isinstance(ours, dict):
            return "tool.omnicorn.", ours
        if required:
            raise ConfigError(f"{label} has no table [tool.omnicorn]", "config", label)
        return "", {}
    prefix, table = ("tool.omnicorn", ours) if ours else ("omnicorn", document.get("omnicorn"))
    if not isinstance(table, dict):
        return "", document
    for key, value in document.items():
        # Another table may be somebody else's; an option or a lone key would be lost.
        if key.replace("-", "_") in OPTIONS or not isinstance(value, dict):
            raise ConfigError(
                f"{label} has {key!r} outside of [{prefix}]: move it there", key, label
            )
    return prefix + ".", table


def _from_toml(row: Option, value: object, source: str) -> object:
    if isinstance(value, str) and not row.kind.repeatable:
        return row.parse(value, source)
    return row.check(value, source)
