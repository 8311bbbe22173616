"""The documents stay true of the code, or these tests fail.

What this file alone decides: which sentences of the documents are checked, and the comments in
them that say how. Before a code block, ``<!-- file: NAME -->`` makes it a file for the blocks
behind it, ``<!-- run -->`` a program that ends by itself, ``<!-- serves -->`` one that serves
until SIGTERM, ``<!-- config -->`` a configuration file, ``<!-- environment -->`` variables,
``<!-- logging -->`` a file for ``--log-config``. Command lines are parsed wherever they stand.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from omnicorn.config import load
from omnicorn.config.options import OPTIONS, Option
from omnicorn.observability.access_log import ATOMS, PRESETS, compile_format
from omnicorn.runtime import cli, run
from omnicorn.runtime.cli import COMMANDS, parse

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "corpus" / "http1"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r"(?:^<!-- ([a-z]+)(?:: (\S+))? -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    page: str
    mark: str
    name: str
    language: str
    text: str


def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks(*marks: str) -> list[Block]:
    return [
        Block(page, *(part or "" for part in found))
        for page in NAMES
        for found in _FENCE.findall(text(page))
        if not marks or found[0] in marks
    ]


def rows(page: str, heading: str = "") -> list[list[str]]:
    """The cells of every table row below a heading (or of the whole page)."""
    body = text(page)
    if heading:
        level = re.match("#+", heading)
        assert level is not None
        body = re.split(f"^{re.escape(heading)}$", body, flags=re.M)[1]
        body = re.split(f"^#{{1,{len(level[0])}}} ", body, flags=re.M)[0]
    lines = [
        line for line in body.split("\n") if line.startswith("|") and not line.startswith("|-")
    ]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def anchors(page: Path) -> set[str]:
    body = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", body, re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings}


# ------------------------------------------------------------------------------ links, names


@pytest.mark.parametrize("page", NAMES)
def test_relative_links_lead_somewhere(page: str) -> None:
    body = re.sub(r"^```.*?^```$", "", text(page), flags=re.M | re.S)
    for link in _LINK.findall(body):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page} links to {link}"


def test_every_decision_is_linked_and_follows_the_form() -> None:
    index = text("docs/adr/README.md")
    decisions = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert decisions
    for number, path in enumerate(decisions, 1):
        assert path.name.startswith(f"{number:04}-")
        assert f"({path.name})" in index
        for part in ("**Context.**", "**Decision.**", "**Consequences.**"):
            assert part in path.read_text("utf-8"), f"{path.name} lacks {part}"


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_the_paths_that_are_named_exist(page: str) -> None:
    paths = re.findall(r"`((?:src|tests|bench|docs|examples)/[^`\s]*)`", text(page))
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), f"{page} names {path}"


def test_the_layers_are_those_that_are_checked() -> None:
    project = tomllib.loads(text("pyproject.toml"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    drawn = next(block.text for block in blocks() if block.page == "ARCHITECTURE.md")
    told = [re.split(r"\s{3,}", line)[0] for line in drawn.strip().split("\n")]
    assert told == layers


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", text("Makefile"), re.M))
    for page in NAMES:
        named = re.findall(r"`(?:[A-Z]+=\S+ )?make((?: [a-z][a-z0-9-]*)+)`", text(page))
        named += re.findall(r"^make ([a-z][a-z0-9-]*)", text(page), re.M)
        assert {name for line in named for name in line.split()} <= targets, page


def test_the_contributors_table_has_every_make_target() -> None:
    targets = re.findall(r"^([a-z][a-z0-9-]*):.*##", text("Makefile"), re.M)
    told = [name for row in rows("CONTRIBUTING.md", "## Set up") for name in code(row[0])]
    assert {name.removeprefix("make ") for name in told} == set(targets) - {"help"}


# ------------------------------------------------------------------------------ configuration


def flags_of(row: Option) -> set[str]:
    if row.name == "app":
        return {"module:attribute"}
    return {*row.flags, *([f"--no-{row.flags[0][2:]}"] if row.is_switch else [])}


def default_of(row: Option) -> str:
    if row.default is None:
        return "unset"
    if isinstance(row.default, tuple):
        return f"`{','.join(row.default)}`" if row.default else "none"
    return f"`{row.show(row.default)}`"


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_documented_as_it_is(name: str) -> None:
    row = OPTIONS[name]
    found = [cells for cells in rows("docs/configuration.md", "## Options") if f"`{name}`" in cells]
    [[_, flags, env, default, meaning]] = found
    assert set(code(flags)) == flags_of(row)
    assert code(env) == list(row.env)
    assert default == default_of(row)
    assert meaning


def test_no_option_is_documented_that_does_not_exist() -> None:
    table = rows("docs/configuration.md", "## Options")
    named = [row[0] for row in table if len(row) == 5 and row[0] != "option"]
    assert named == [f"`{name}`" for name in OPTIONS]


FLAGS_OF_OTHERS = {
    "docs/conformance.md": {"--python2", "--source"},
    "docs/guide/embedding.md": {
        *("--noreload", "--noasgi"),  # Django's runserver
        *("--tcp", "--unix-socket", "--base-uri", "--logging", "--systemd", "--adapter"),  # aioscgi
    },
}


@pytest.mark.parametrize("page", NAMES)
def test_flags_that_are_named_exist(page: str) -> None:
    known = {"--flag", "--no-flag", *FLAGS_OF_OTHERS.get(page, ())}
    known.update(flag for row in OPTIONS.values() for flag in flags_of(row))
    known.update(flag for flags, _, _ in COMMANDS for flag in flags)
    assert set(re.findall(r"`(--[a-z0-9-]+)", text(page))) <= known


def test_every_command_is_documented() -> None:
    table = rows("docs/configuration.md", "### Commands")
    told = {flag.split()[0] for row in table for flag in code(row[0])}
    assert told == {flag for flags, _, _ in COMMANDS for flag in flags}


def test_timeouts_and_limits_in_operations_are_the_defaults() -> None:
    table = rows("docs/operations.md", "## Timeouts and limits")
    told = {names[0]: row[2] for row in table if (names := code(row[1]))}
    shown = {"none": None, "8 KiB": 8192, "64 KiB": 65536, "16 MiB": 16 << 20}
    for name, default in told.items():
        value = OPTIONS[name].default
        assert value == shown.get(default, float(default.split()[0]) if value else None), name
    sockets = {"ws_max_size", "ws_max_queue", "ws_ping_timeout"}
    assert set(told) == sockets | {
        name for name in OPTIONS if name.startswith(("limit_", "timeout_"))
    }


@pytest.mark.parametrize("block", blocks("config"), ids=lambda block: block.name or block.page)
def test_configuration_files_load(block: Block, tmp_path: Path) -> None:
    name = block.name or "omnicorn.toml"
    (tmp_path / name).write_text(block.text)
    loaded = load(environ={}, cwd=str(tmp_path))
    assert loaded.file == name


def test_the_environment_example_loads(tmp_path: Path) -> None:
    [block] = blocks("environment")
    environ = dict(line.split("=", 1) for line in block.text.strip().split("\n"))
    loaded = load(environ=environ, cwd=str(tmp_path))
    assert {loaded.sources[name] for name in OPTIONS} - {"default"} == set(environ)


def command_lines() -> list[tuple[str, str]]:
    lines = [
        (block.page, match[1])
        for block in blocks()
        for match in re.finditer(r"^(?:ExecStart=\S+/)?omnicorn (.+)$", block.text, re.M)
    ]
    lines += [
        (page, shlex.join(re.findall(r'"([^"]*)"', match[1])))
        for page in NAMES
        for match in re.finditer(r'command: \["omnicorn", (.*)\]', text(page))
    ]
    return lines


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_command_lines_are_understood(page: str, line: str, tmp_path: Path) -> None:
    invocation = parse(shlex.split(line))
    config = load(invocation.given, environ={}, cwd=str(tmp_path)).config
    assert config.app == "main:app"
    if config.access_log_format is not None:
        compile_format(config.access_log_format)


# ------------------------------------------------------------------------------ behaviour


def test_exit_codes_are_those_of_the_process() -> None:
    told = {row[0] for row in rows("docs/operations.md", "## Exit codes")} - {"code"}
    codes = (run.EXIT_OK, run.EXIT_FORCED, run.EXIT_USAGE, run.EXIT_APP, cli.EXIT_INTERRUPTED)
    assert told == {str(code) for code in codes}


def test_access_log_formats_are_those_that_exist() -> None:
    table = rows("docs/operations.md", "## Access log")
    presets = {code(row[0])[0]: code(row[1])[0] for row in table if row[0][1:-1] in PRESETS}
    assert presets.keys() == PRESETS.keys()
    for name, line in presets.items():
        assert name == "json" or line == PRESETS[name]
    atoms = [
        atom
        for row in table
        if row[0] not in ("name", "atom") and row[0][1:-1] not in PRESETS
        for atom in code(row[0])
    ]
    assert sorted(atoms) == sorted(ATOMS)


def refused() -> list[tuple[str, int]]:
    table = rows("docs/http1.md", "## Refused")[1:]
    return [(name, int(row[1])) for row in table for name in code(row[3])]


@pytest.mark.parametrize(("case", "status"), refused())
def test_a_refusal_has_the_status_of_its_corpus_case(case: str, status: int) -> None:
    found = tomllib.loads((CORPUS / "invalid" / f"{case}.toml").read_text("utf-8"))
    assert found["status"] == status
    assert "known_bug" not in found


def test_what_is_accepted_has_its_corpus_case() -> None:
    table = rows("docs/http1.md", "## Accepted")[1:]
    cases = [name for row in table for name in code(row[3])]
    assert cases
    for case in cases:
        assert (CORPUS / "valid" / f"{case}.http").exists(), case


def test_extensions_are_those_that_are_offered() -> None:
    from omnicorn.bridge.http import EXTENSIONS

    told = [code(row[0])[0] for row in rows("docs/asgi.md", "## Extensions")[1:]]
    assert sorted(told) == sorted(EXTENSIONS)


def test_what_a_proxy_header_says_is_documented() -> None:
    from omnicorn.connections.behind import EXTENSION, behind
    from omnicorn.protocols.proxy import ProxyHeader, ProxyTLS, TLVs

    assert EXTENSION in [
        name
        for row in rows("docs/asgi.md", "## Extensions of some connections")
        for name in code(row[0])
    ]
    tls = ProxyTLS(None, None, None, None, True, 0, None, None)
    told = behind(ProxyHeader(2, None, None, TLVs(tls=tls)))
    assert told is not None
    extension = told.extensions[EXTENSION]
    [outer, inner] = [
        [name for row in table for name in code(row[0])]
        for table in (
            rows("docs/asgi.md", "### omnicorn.proxy")[1:8],
            rows("docs/asgi.md", "### omnicorn.proxy")[9:],
        )
    ]
    assert outer == [*extension]
    assert inner == [*extension["tls"]]


# ------------------------------------------------------------------------------ programs


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for block in blocks("file"):
        (tmp_path / block.name).write_text(block.text)
    return tmp_path


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMNICORN_")}
    kept.pop("PORT", None)
    return kept


@pytest.mark.parametrize(
    "block", [block for block in blocks() if block.language == "python"], ids=lambda b: b.page
)
def test_python_examples_compile(block: Block) -> None:
    compile(block.text, block.page, "exec")
    assert block.mark in ("file", "run", "serves"), "an example that nothing tries"


@pytest.mark.parametrize("block", blocks("run"), ids=lambda block: block.page)
def test_programs_run(block: Block, project: Path) -> None:
    command = [sys.executable, "-c", block.text]
    done = subprocess.run(
        command, cwd=project, env=environment(), capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr


def serving(command: list[str], project: Path) -> tuple[int, str]:
    """Start a program, stop it once it serves; return its exit code and what it wrote."""
    process = subprocess.Popen(
        command, cwd=project, env=environment(), stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if " is serving on " in line:
                process.send_signal(signal.SIGTERM)
        return process.wait(), "".join(lines)


LOG = "import logging; logging.basicConfig(level='INFO')\n"


@pytest.mark.parametrize("block", blocks("serves"), ids=lambda block: block.page)
def test_programs_serve_until_a_signal(block: Block, project: Path) -> None:
    assert "port=8000" in block.text
    # `serve` leaves logging alone, and the port may be taken where the tests run.
    program = LOG + block.text.replace("port=8000", "port=0")
    code, errors = serving([sys.executable, "-c", program], project)
    assert code == 0, errors
    assert " is serving on " in errors


@pytest.mark.parametrize("block", blocks("file"), ids=lambda block: block.name)
def test_applications_are_served(block: Block, project: Path) -> None:
    app = f"{block.name.removesuffix('.py')}:app"
    code, errors = serving([sys.executable, "-m", "omnicorn", "--port", "0", app], project)
    assert code == 0, errors
    assert " is serving on " in errors


def test_the_logging_example_configures_both_logs(tmp_path: Path) -> None:
    [block] = blocks("logging")
    (tmp_path / "log.toml").write_text(block.text)
    program = (
        "from omnicorn.observability.logs import access_logger, configure\n"
        "configure(log_config='log.toml')\n"
        "assert access_logger() is not None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
