"""The suites of asgiref, Django, Channels and Daphne, run with the toolkit in asgiref's place.

What this file alone decides: on which Pythons a suite is run, with which command, and what is
printed of it.

- Each suite is run on the Python that runs this, and on the newest one that is found; of Django,
  that one gets the newest release.
- What a suite was run with is asked of its environment before the run, and printed above the
  verdict.
- Failures that are not on the list are run once more over asgiref itself.
- A suite that falls silent is ended, with the stacks of all its threads in its log: a deadlock is
  what a toolkit of this kind may well cause.  It has failed then.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from conformance import environments, interpreters, results, server
from conformance.interpreters import NoVerdict
from conformance.suites import ASGIREF

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from conformance.environments import Environment
    from conformance.results import Results
    from conformance.suites import Suite

SILENCE_SECONDS = 300.0
TEST_SECONDS = 120
"""How long one test may take, where the runner has such a limit."""

_POLL_SECONDS = 1.0
_STACKS_SECONDS = 5.0


class Silent(Exception):
    """A suite fell silent, and was ended."""


def run(
    suite: Suite,
    tests: Sequence[str],
    pythons: Sequence[str],
    source: Path | None,
    work: Path,
    say: Callable[[str], None],
) -> bool:
    """Run a suite, or some of its tests, on each Python; return whether all is well.

    Raises:
        NoVerdict: Something that is needed is not there.
    """
    passed, done = [], set[tuple[str, str]]()
    for version, interpreter, requirement in _runs(suite, pythons):
        # Two releases on one Python have two folders.
        second = "-newest" if version in {known for known, _ in done} else ""
        folder = work / suite.name / f"python{version}{second}"
        environment = environments.prepare(suite, requirement, interpreter, folder, source, say)
        if (version, environment.release) in done:
            say(f"{environment.release} is the newest for Python {version}, and was run already")
            continue
        done.add((version, environment.release))
        passed.append(_on(environment, suite, tests, version, folder, work, say))
    return all(passed)


def _runs(suite: Suite, pythons: Sequence[str]) -> list[tuple[str, str, str]]:
    found = [interpreters.check(python) for python in pythons or (sys.executable,)]
    if not pythons:
        # Without a newer one, the newest release that this one can run.
        newest = interpreters.newest()
        if newest is not None or suite.newest != suite.release:
            found.append(interpreters.check(newest or sys.executable))
    first, *others = found
    return [(*first, suite.release), *((*other, suite.newest) for other in others)]


def _on(
    environment: Environment,
    suite: Suite,
    tests: Sequence[str],
    version: str,
    folder: Path,
    work: Path,
    say: Callable[[str], None],
) -> bool:
    title = f"{environment.release} on Python {version}"
    whose = environments.whose(environment)
    log = folder / "toolkit.log"
    say(f"{title}: running, see {server.shown(log)}")
    started = time.monotonic()
    print(f"\n{title}\nasgiref is {whose}", flush=True)
    try:
        gave = _results(environment, suite, tests, log)
    except Silent as failure:
        print(f"FAILED: {failure}", flush=True)
        return False
    suspects = [test for test in gave.failed if test not in suite.known]
    if suspects:
        say(f"{title}: {len(suspects)} failed; running them over asgiref itself")
    shared = _over_asgiref(environment, suite, suspects, folder, work) if suspects else ()
    verdict = results.judge(gave.failed, suite.known, shared, whole=not tests)
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    print(
        f"{gave.passed} passed, {len(gave.failed)} failed, {gave.skipped} skipped,"
        f" {gave.expected} failed as their authors expect, in {minutes}:{seconds:02}"
    )
    for test in verdict.known:
        print(f"  known: {test}\n      {suite.known[test]}")
    for test in verdict.shared:
        print(f"  fails over asgiref too: {test}")
    for test in verdict.new:
        print(f"  FAILED: {test}")
    for test in verdict.mended:
        print(f"  DOES NOT FAIL, strike it off the list: {test}")
    print(f"log: {server.shown(log)}", flush=True)
    return verdict.passed


def _over_asgiref(
    environment: Environment, suite: Suite, tests: Sequence[str], folder: Path, work: Path
) -> tuple[str, ...]:
    try:
        home = work / f"asgiref-{folder.name}"
        asgiref = environments.release(ASGIREF, str(environment.python), home)
        whose = environments.whose(environment, asgiref)
        print(f"failures were run again where asgiref is {whose}")
        return _results(environment, suite, tests, folder / "asgiref.log", asgiref).failed
    except (NoVerdict, Silent) as failure:
        # They have failed, whether asgiref could be asked or not.
        print(f"failures could not be run over asgiref: {failure}")
        return ()


def _results(
    environment: Environment,
    suite: Suite,
    tests: Sequence[str],
    log: Path,
    asgiref: Path | None = None,
) -> Results:
    report = log.with_suffix(".xml")
    report.unlink(missing_ok=True)
    folder, command = arguments(environment, suite, tests, report)
    variables = {**environments.variables(environment, asgiref), **suite.variables}
    carry_out(command, folder, variables, log)
    try:
        if suite.runner == "pytest":
            return results.from_junit(report)
        return results.from_unittest(log.read_text("utf-8", "replace"))
    except NoVerdict as failure:
        raise NoVerdict(f"{suite.name}: {failure}: {server.last_words(log)}") from failure


def arguments(
    environment: Environment, suite: Suite, tests: Sequence[str], report: Path
) -> tuple[Path, list[str]]:
    """The folder in which a suite is run, and the command that does."""
    python, tree = str(environment.python), environment.tree
    if suite.runner == "pytest":
        # -P: what is tested is what is installed, and not what lies beside the tests.
        command = [python, "-P", "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider"]
        command += ["--timeout", str(TEST_SECONDS), "--junitxml", str(report)]
        return tree, [*command, "-o", "junit_family=xunit1", *(tests or suite.labels)]
    folder = tree / suite.tests
    labels = tests or [label for label in suite.labels if (folder / label).is_dir()]
    # In one process, as most of what is tested are threads.
    return folder, [python, "runtests.py", "--noinput", "--parallel", "1", *labels]


def carry_out(command: Sequence[str], folder: Path, variables: dict[str, str], log: Path) -> None:
    """Run a command to its end, whatever its status; what it prints goes to `log`.

    Raises:
        Silent: It printed nothing for `SILENCE_SECONDS`, and was ended.
        NoVerdict: It cannot be run.
    """
    with log.open("wb") as sink:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as failure:
            raise NoVerdict(f"cannot run {command[0]}: {failure.strerror}") from failure
    size, since = 0, time.monotonic()
    try:
        while True:
            try:
                process.wait(_POLL_SECONDS)
                return
            except subprocess.TimeoutExpired:
                if (now := log.stat().st_size) != size:
                    size, since = now, time.monotonic()
                elif time.monotonic() - since >= SILENCE_SECONDS:
                    _show_stacks(process)
                    raise Silent(
                        f"silent for {SILENCE_SECONDS:.0f} s; the stacks of its threads are in"
                        f" {server.shown(log)}"
                    ) from None
    finally:
        server.end(process)


def _show_stacks(process: subprocess.Popen[bytes]) -> None:
    # faulthandler, which the environment's variables turn on, answers with them.
    process.send_signal(signal.SIGABRT)
    try:
        process.wait(_STACKS_SECONDS)
    except subprocess.TimeoutExpired:
        pass
