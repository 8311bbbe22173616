"""What a process tree costs: CPU time and private memory, read from /proc; and pinning to cores.

What this file alone decides: which numbers stand for "the server's CPU" and "its memory".

- CPU is utime + stime of every live process of the tree plus what their dead children left them
  (cutime + cstime), so a worker that dies during a run is not lost.  /proc counts in ticks,
  1/100 s: over a run of five seconds that is 0.2 %.
- Memory is Private_Clean + Private_Dirty of `smaps_rollup`: pages that would come back if the
  process ended.  RSS would count shared libraries once for each process of the tree.
  Where the kernel has no `smaps_rollup`, VmRSS must do.
- A process is recognised as a child by its parent's pid; servers do not daemonise.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """The fields of /proc/<pid>/stat that matter here; `cpu_seconds` with reaped children."""

    pid: int
    parent: int
    cpu_seconds: float


def parse_stat(text: str) -> Stat:
    """Read one /proc/<pid>/stat (proc(5)).

    The command name stands in parentheses and may itself hold spaces and parentheses, so the
    fields are counted from the last closing one.
    """
    pid = int(text[: text.index("(")])
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(pid, int(fields[1]), sum(map(int, fields[11:15])) / _TICKS)


def tree(root: int, proc: Path = PROC) -> list[Stat]:
    """`root` and all of its live descendants; empty when `root` is gone."""
    stats: dict[int, Stat] = {}
    children: dict[int, list[int]] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                stat = parse_stat((entry / "stat").read_text(errors="replace"))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            stats[stat.pid] = stat
            children.setdefault(stat.parent, []).append(stat.pid)
    found: list[Stat] = []
    ahead = [root]
    while ahead:
        pid = ahead.pop()
        if pid in stats:
            found.append(stats[pid])
            ahead += children.get(pid, ())
    return found


def cpu_seconds(root: int, proc: Path = PROC) -> float:
    """CPU time that the tree under `root` has used so far, in seconds."""
    return sum(stat.cpu_seconds for stat in tree(root, proc))


_PRIVATE = re.compile(r"^Private_(?:Clean|Dirty):\s+(\d+) kB$", re.MULTILINE)
_RSS = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


def private_kib(root: int, proc: Path = PROC) -> int:
    """Memory that the tree under `root` has to itself, in KiB."""
    total = 0
    for stat in tree(root, proc):
        place = proc / str(stat.pid)
        try:
            total += sum(map(int, _PRIVATE.findall((place / "smaps_rollup").read_text())))
        except ProcessLookupError:
            continue
        except OSError:
            try:
                total += sum(map(int, _RSS.findall((place / "status").read_text())))
            except OSError:
                continue
    return total


class Cores(NamedTuple):
    """Which core the servers get, and which one the client; `shared` when there is only one."""

    server: int
    load: int

    @property
    def shared(self) -> bool:
        return self.server == self.load


def cores(topology: Path = Path("/sys/devices/system/cpu")) -> Cores:
    """Pick two of the cores this process may use, not two threads of one core if avoidable."""
    usable = sorted(os.sched_getaffinity(0))
    load = usable[0]
    siblings = {load}
    with contextlib.suppress(OSError, ValueError):
        listed = (topology / f"cpu{load}" / "topology" / "thread_siblings_list").read_text()
        siblings = parse_cpu_list(listed)
    apart = [core for core in usable if core not in siblings]
    return Cores(server=(apart or usable)[-1], load=load)


def parse_cpu_list(text: str) -> set[int]:
    """Read the kernel's list format, `0-2,8`.

    Raises:
        ValueError: It is not one.
    """
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this process, and what it starts meanwhile, on `core`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
