"""The command line: from ``argv`` to a running server, and every word said before that.

What this file alone decides: how flags are written, what the commands that do not serve
print (``--help``, ``--version``, ``--print-config``), and the exit code of what goes wrong
before serving: 2 for usage and configuration, 3 for an application that cannot be loaded.
Errors go to standard error, as one line that begins with ``omnicorn:``; only the failure
of the application's own code has its traceback above that line.

The parser is a walk over the option table. argparse would cost 4 ms of every start (1 ms
to import, 3 ms to be told fifty options) and knows neither sources nor the nearest name.
Its rules: ``--flag value`` or ``--flag=value``; a switch is ``--flag`` or ``--no-flag`` and
takes no value; a value that begins with a dash needs the ``=`` (a lone ``-`` does not); of a
flag given twice the last one counts, unless it adds up; ``--`` ends the flags.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from omnicorn.config.options import ENV_PREFIX, LIST_HINT, OPTIONS, Option
from omnicorn.config.sources import CONFIG_VARIABLE, DEFAULT, Given, Loaded, load
from omnicorn.config.spelling import did_you_mean
from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from omnicorn.config.options import Config

EXIT_USAGE = 2
EXIT_APP = 3
EXIT_INTERRUPTED = 130
"""Ctrl-C, as a shell counts it: 128 + SIGINT."""

#: What is not a value of the configuration: flags, metavar, help.
COMMANDS = (
    (("--config",), "FILE", "Read options from this TOML file, at its top level or under "
     "[omnicorn] or [tool.omnicorn]; without it from omnicorn.toml or pyproject.toml in the "
     f"current folder. [env: {CONFIG_VARIABLE}]"),
    (("--print-config",), "", "Print every option with its value and where that comes from."),
    (("--version",), "", "Print the versions of omnicorn, Python, uvloop and trio."),
    (("-h", "--help"), "", "Print this."),
)  # fmt: skip


class Invocation(NamedTuple):
    """What a command line asks for.

    Args:
        command: A command's flag, or ``""`` to serve.
        given: The options, in the order they were typed.
        file: What ``--config`` named.
    """

    command: str
    given: list[Given]
    file: str | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments without the program's name; None is those of the process.

    Returns:
        The exit code: 0, 2 (usage), 3 (the application did not load or start), or what
        serving ended with.
    """
    try:
        invocation = parse(sys.argv[1:] if argv is None else argv)
        if invocation.command == "--help":
            return _print(help_text(_width()))
        if invocation.command == "--version":
            return _print(version_text())
        loaded = load(invocation.given, file=invocation.file)
        if invocation.command == "--print-config":
            return _print(config_text(loaded))
        if loaded.config.app is None:
            raise ConfigError(
                "no application is given: write omnicorn module:attribute, for example "
                "omnicorn main:app (omnicorn --help tells more)",
                "app",
            )
    except ConfigError as error:
        return _complain(error, EXIT_USAGE)

    from omnicorn.runtime.run import run_config

    try:
        return run_config(loaded.config)
    except ConfigError as error:
        return _complain(error, EXIT_APP if error.option == "app" else EXIT_USAGE)
    except KeyboardInterrupt:  # before the server listened to signals, or behind its back
        return EXIT_INTERRUPTED


def _print(text: str) -> int:
    sys.stdout.write(text)
    return 0


def _complain(error: ConfigError, code: int) -> int:
    above, newline, verdict = str(error).rpartition("\n")
    sys.stderr.write(f"{above}{newline}omnicorn: {verdict}\n")
    return code


# Parsing --------------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> Invocation:
    """Read the arguments; values stay text.

    Raises:
        ConfigError: An unknown flag, a value that is missing or too many.
    """
    flags = {flag: row for row in OPTIONS.values() if row.name != "app" for flag in row.flags}
    given: list[Given] = []
    app: str | None = None
    file: str | None = None
    command = ""
    arguments = iter(argv)
    only_positional = False
    for argument in arguments:
        if only_positional or not argument.startswith("-") or argument == "-":
            if app is not None:
                raise ConfigError(f"two applications are given, {app!r} and {argument!r}", "app")
            app = argument
            given.append(Given("app", "command line", argument))
            continue
        if argument == "--":
            only_positional = True
            continue
        flag, equals, text = argument.partition("=")
        if flag == "--config":
            file = _value(flag, equals, text, arguments, "FILE")
            continue
        if any(flag in names for names, _, _ in COMMANDS):
            _no_value(flag, equals, flag)
            if flag in ("--help", "-h"):
                return Invocation("--help", [], None)
            command = flag
            continue
        row = flags.get(flag)
        if row is None:
            row = flags.get("--" + flag.removeprefix("--no-")) if flag[:5] == "--no-" else None
            if row is None or not row.is_switch:
                raise _unknown(argument, flags)
            _no_value(flag, equals, "--" + flag[5:])
            given.append(Given(row.name, flag, False))
        elif row.is_switch:
            _no_value(flag, equals, "--no-" + flag[2:])
            given.append(Given(row.name, flag, True))
        else:
            value = _value(flag, equals, text, arguments, row.kind.metavar)
            given.append(Given(row.name, flag, value))
    return Invocation(command, given, file)


def _value(flag: str, equals: str, text: str, rest: Iterator[str], metavar: str) -> str:
    if equals:
        return text
    value = next(rest, None)
    if value is None:
        raise ConfigError(f"{flag} needs a value: {flag} {metavar}", source=flag)
    if value.startswith("-") and value != "-":
        raise ConfigError(
            f"{flag} needs a value, and {value} is a flag (if it is the value: {flag}={value})",
            source=flag,
        )
    return value


def _no_value(flag: str, equals: str, opposite: str) -> None:
    if equals:
        other = f"; its opposite is {opposite}" if opposite != flag else ""
        raise ConfigError(f"{flag} takes no value{other}", source=flag)


def _unknown(argument: str, flags: dict[str, Option]) -> ConfigError:
    flag = argument.partition("=")[0]
    if flag[:2] in flags:
        return ConfigError(
            f"unknown flag {flag}: a value stands apart, {flag[:2]} {argument[2:]}", source=flag
        )
    if explanation := _explain(flag):
        return ConfigError(f"unknown flag {flag}: {explanation}", source=flag)
    known = [*flags, *(name for names, _, _ in COMMANDS for name in names)]
    known += ["--no-" + name[2:] for name, row in flags.items() if row.is_switch]
    return ConfigError(f"unknown flag {flag}{did_you_mean(flag, known)}{LIST_HINT}", source=flag)


def _explain(flag: str) -> str | None:
    """Return what to do instead of a flag that other servers have."""
    from omnicorn.config.hypercorn import RENAMED, advice

    name = _ELSEWHERE.get(flag) or flag[2:].replace("-", "_")
    if name in RENAMED:
        return f"here it is {OPTIONS[RENAMED[name]].flags[0]}"
    return advice(name)


#: Flags that hypercorn and others have, where they are not called as hypercorn's option.
_ELSEWHERE = {
    "-k": "worker_class",
    "-w": "workers",
    "--pid": "pid_path",
    "--pid-file": "pid_path",
    "--reload": "use_reloader",
    "--server-name": "server_names",
}


# What the commands print ----------------------------------------------------------------


def version_text() -> str:
    """Return one line with the versions a bug report needs."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from omnicorn import __version__

    words = [f"omnicorn {__version__}"]
    words.append(f"{platform.python_implementation()} {platform.python_version()}")
    for package in ("uvloop", "trio"):
        try:
            words.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            words.append(f"{package} not installed")
    return ", ".join(words) + "\n"


def config_text(loaded: Loaded) -> str:
    """Return every option as a line of TOML with its source; it can serve as omnicorn.toml."""
    config = loaded.config
    lines = []
    for name, row in OPTIONS.items():
        line = f"{name} = {row.show(getattr(config, name))}"
        source = loaded.sources[name]
        if name in ("host", "port") and (rival := _rival(config)):
            line, source = f"# {line}", f"replaced by {rival}"
        elif row.kind.secret and source != DEFAULT:
            line = f"# {line}"
        lines.append((line, source))
    # A long list must not push every comment off the screen.
    width = max(len(line) for line, _ in lines if len(line) <= 60)
    return "".join(f"{line:{width}}  # {source}\n" for line, source in lines)


def _rival(config: Config) -> str:
    """Return the option that host and port give way to, if there is one."""
    if config.bind:
        return "bind"
    return "uds" if config.uds is not None else "fd" if config.fd is not None else ""


def help_text(width: int) -> str:
    """Return the help, for lines of at most `width` characters."""
    from textwrap import fill

    column = 32 if width >= 72 else 8

    def entry(left: str, *texts: str) -> str:
        indent = " " * column
        wrapped = "\n".join(
            # A flag or a variable is copied whole, so it must not be broken.
            fill(
                text,
                width,
                initial_indent=indent,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
            for text in texts
        )
        if len(left) + 2 <= column:
            return left.ljust(column) + wrapped[column:] + "\n"
        return f"{left}\n{wrapped}\n"

    parts = [
        "Usage: omnicorn [options] module:attribute\n\n",
        fill(
            "Serve an ASGI application: omnicorn main:app. Flags win over the environment, that "
            f"over the configuration file. In the file an option has its flag's name; a variable "
            f"is {ENV_PREFIX} and the name. Times are in seconds or have a unit (500ms, 2m), "
            "sizes are in bytes or have one (64K, 10M).",
            width,
        ),
        "\n",
    ]
    group = ""
    for row in OPTIONS.values():
        if row.kind.program_only:
            continue
        if row.group != group:
            group = row.group
            parts.append(f"\n{group}\n")
        parts.append(entry("  " + _left(row), row.help, _facts(row)))
    parts.append("\nCommands\n")
    for flags, metavar, text in COMMANDS:
        parts.append(entry(f"  {', '.join(flags)} {metavar}".rstrip(), text))
    return "".join(parts)


def _left(row: Option) -> str:
    if row.name == "app":
        return "module:attribute"
    if row.is_switch:
        return f"--[no-]{row.flags[0][2:]}"
    flags = sorted(row.flags, key=lambda flag: flag.startswith("--"))
    return f"{', '.join(flags)} {row.kind.metavar}"


def _facts(row: Option) -> str:
    env = f"env: {', '.join(row.env)}"
    if row.default is None or row.default == ():
        return f"[{env}]"
    if isinstance(row.default, tuple):
        default = ",".join(row.default)
    else:
        default = row.show(row.default)
        # Quotes are TOML's; on a command line only the empty text needs them.
        default = default.strip('"') or default
    return f"[default: {default}; {env}]"


def _width() -> int:
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return 100
    return max(48, min(columns, 100))
