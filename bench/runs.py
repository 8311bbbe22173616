"""One run: one server, one case, one number.

What this file alone decides: the steps of a measurement, and what makes a run doubtful.

    start the server on its core -> check its answer -> warm up -> measure -> kill it

Every run starts the server afresh, so none profits from an earlier one.  A server that fails
yields a run that says why and holds no value; nothing here raises for what a server does.

Doubtful runs keep their value and are marked: requests without a good answer; a server that used
less than `SATURATED` of its core (then the client or the waiting was the limit, and the latency
is not that of a busy server); an access log that lacks more than `BUFFERED` of its lines.

The loads of WebSockets and of `h2-browser` come from this very process, on connections that are
made before the warm-up: handshakes are not in their numbers.  So does the load of SCGI, where every
request makes a connection, and is counted with it.
"""

from __future__ import annotations

import resource
import socket
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bench import environment, h2load, load, measure, scgi, servers, sockets, streams, websocket
from bench.cases import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.cases import Case
    from bench.servers import Server

SATURATED = 0.9
LOG_SECONDS = 2.0
"""How long an access log may lag behind the last answer."""

BUFFERED = 0.05
"""Share of the access log's lines that a server may still hold in a buffer."""

STARTS = 7
"""At least so many starts, over all rounds."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run gave.

    `samples` are in the case's unit (several for START); empty when `failure` says why.  `cpu`
    and `load_cpu` are the shares of a core, 0 to 1, that the server and its client used meanwhile.
    """

    case: str
    server: str
    round: int
    samples: tuple[float, ...] = ()
    p99_ms: float | None = None
    requests: int | None = None
    cpu: float | None = None
    load_cpu: float | None = None
    base_mib: float | None = None
    marks: tuple[str, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is to be measured; times in seconds."""

    rounds: int
    seconds: int
    warmup: int
    cores: measure.Cores
    unavailable: dict[str, str] = field(default_factory=dict)
    """Servers that could not be installed, with the reason."""

    @property
    def starts(self) -> int:
        """Starts of a server in each round of the case `start`."""
        return max(1, -(-STARTS // self.rounds))


def estimate(cases: list[Case], entrants: list[Server], plan: Plan) -> float:
    """About how many seconds all rounds will take."""
    each = 1.0  # to start, check and kill a server
    once = 0.0
    for case in cases:
        takers = sum(server.takes(case) for server in entrants)
        if case.under_load:
            once += takers * (each + plan.warmup + plan.seconds)
        elif case.kind is Kind.IDLE:
            once += takers * (each + case.connections / 1000)
        else:
            once += takers * each * plan.starts
    return once * plan.rounds


def everything(
    cases: list[Case], entrants: list[Server], plan: Plan
) -> Iterator[tuple[Case, Server, int]]:
    """The order of runs: in each round, each case, all servers in turn, another one first."""
    for number in range(plan.rounds):
        for case in cases:
            takers = [server for server in entrants if server.takes(case)]
            shift = number % len(takers) if takers else 0
            for server in takers[shift:] + takers[:shift]:
                yield case, server, number


def perform(case: Case, server: Server, number: int, plan: Plan) -> Run:
    """Do one run; `number` counts rounds from 0."""
    how: dict[Kind, Callable[[Case, Server, int, Plan], Run]] = {
        Kind.LOAD: _load,
        Kind.STREAMS: _crowd,
        Kind.SCGI: _crowd,
        Kind.ECHO: _crowd,
        Kind.FANOUT: _crowd,
        Kind.IDLE: _idle,
        Kind.START: _start,
    }
    if server.name in plan.unavailable:
        return Run(case.name, server.name, number, failure=plan.unavailable[server.name])
    try:
        return how[case.kind](case, server, number, plan)
    except (servers.ServerFailed, load.LoadError) as failure:
        return Run(case.name, server.name, number, failure=str(failure))


def _load(case: Case, server: Server, number: int, plan: Plan) -> Run:
    with servers.running(server, case, plan.cores.server) as live:
        servers.check_answer(case, live.port)
        drive, p99_ms = load.drive, None
        if case.streams:
            drive = h2load.drive
            if plan.warmup:
                p99_ms = h2load.warm_up(case, live.port, plan.warmup, environment.WORK)
        elif plan.warmup:
            drive(case, live.port, plan.warmup, environment.WORK)
        lines_before = _lines(live.output) if case.access_log else 0
        client_before = _children_cpu()
        before = measure.cpu_seconds(live.pid)
        seen = drive(case, live.port, plan.seconds, environment.WORK)
        spent = measure.cpu_seconds(live.pid) - before
        client_spent = _children_cpu() - client_before
        missing = 0
        if case.access_log:
            wanted = lines_before + seen.requests
            missing = wanted - _await_lines(live.output, wanted)
    if seen.p99_ms is None:
        seen = replace(seen, p99_ms=p99_ms)
    return _loaded(case, server, number, seen, spent, client_spent, missing)


def _crowd(case: Case, server: Server, number: int, plan: Plan) -> Run:
    _allow_open_files(case.connections + 100)
    with servers.running(server, case, plan.cores.server) as live:
        servers.check_answer(case, live.port)
        crowd = {Kind.STREAMS: streams.crowd, Kind.SCGI: scgi.crowd}.get(case.kind, sockets.crowd)
        with crowd(case, (servers.HOST, live.port)) as run:
            if plan.warmup:
                run(plan.warmup)
            own_before = time.process_time()
            before = measure.cpu_seconds(live.pid)
            seen = run(plan.seconds)
            spent = measure.cpu_seconds(live.pid) - before
            own_spent = time.process_time() - own_before
    return _loaded(case, server, number, seen, spent, own_spent)


def _loaded(
    case: Case,
    server: Server,
    number: int,
    seen: load.Load,
    spent: float,
    load_spent: float,
    missing: int = 0,
) -> Run:
    if not seen.requests or spent <= 0:
        raise servers.ServerFailed(f"no request was answered under load ({seen.errors} errors)")
    cpu = spent / seen.seconds
    load_cpu = load_spent / seen.seconds
    return Run(
        case.name,
        server.name,
        number,
        samples=(seen.requests / spent,),
        p99_ms=seen.p99_ms,
        requests=seen.requests,
        cpu=cpu,
        load_cpu=load_cpu,
        marks=doubts(seen, cpu, load_cpu, missing),
    )


def doubts(seen: load.Load, cpu: float, load_cpu: float, missing_lines: int) -> tuple[str, ...]:
    """What speaks against a run, in words; empty for a clean one."""
    marks = []
    if seen.errors:
        marks.append(f"{seen.errors} errors")
    if cpu < SATURATED:
        marks.append(f"not saturated: {cpu:.0%} CPU, client {load_cpu:.0%}")
    if missing_lines > BUFFERED * seen.requests:
        marks.append(f"{missing_lines} access log lines missing")
    return tuple(marks)


def _idle(case: Case, server: Server, number: int, plan: Plan) -> Run:
    _allow_open_files(case.connections + 100)
    connect, ask = _visitor(case)
    links: list[socket.socket] = []
    with servers.running(server, case, plan.cores.server) as live:
        try:
            servers.check_answer(case, live.port)
            with connect(live.port) as first:
                for _ in range(500):  # what is loaded or cached lazily is no connection's cost
                    ask(first)
            before = measure.private_kib(live.pid)
            for _ in range(case.connections):
                link = connect(live.port)
                links.append(link)
                ask(link)
            after = measure.private_kib(live.pid)
            closed = sum(map(_is_closed, links))
        except OSError as failure:
            raise servers.ServerFailed(
                f"connection {len(links)} of {case.connections} failed: {failure}"
            ) from failure
        finally:
            for link in links:
                link.close()
    return Run(
        case.name,
        server.name,
        number,
        samples=((after - before) / case.connections,),
        base_mib=before / 1024,
        marks=(f"{closed} connections closed by the server",) if closed else (),
    )


def _start(case: Case, server: Server, number: int, plan: Plan) -> Run:
    samples = []
    for attempt in range(plan.starts + (number == 0)):
        with servers.running(server, case, plan.cores.server) as live:
            servers.check_answer(case, live.port)
        # The first start of all may have to compile modules: it is not counted.
        if number or attempt:
            samples.append(live.started_in * 1000)
    return Run(case.name, server.name, number, samples=tuple(samples))


def _visitor(
    case: Case,
) -> tuple[Callable[[int], socket.socket], Callable[[socket.socket], None]]:
    """How to connect to a port, and how to have one exchange on the connection."""
    message = case.message
    if message is not None:
        payload = message.sample()

        def shake(port: int) -> socket.socket:
            return websocket.connect((servers.HOST, port), case.request.target)

        def say(link: socket.socket) -> None:
            websocket.send(link, message.opcode, payload)
            websocket.receive(link)

        return shake, say

    question = load.wire(case.request, servers.HOST).encode()

    def dial(port: int) -> socket.socket:
        return socket.create_connection((servers.HOST, port), timeout=10)

    def ask(link: socket.socket) -> None:
        link.sendall(question)
        answer = b""
        while not answer.endswith(case.body):
            data = link.recv(65536)
            if not data:
                raise ConnectionResetError("closed before the whole answer")
            answer += data

    return dial, ask


def _is_closed(link: socket.socket) -> bool:
    link.setblocking(False)
    try:
        return link.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _allow_open_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < wanted:
            raise servers.ServerFailed(
                f"only {allowed} open files are allowed and {wanted} needed; raise `ulimit -n`"
            )


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _lines(output: Path) -> int:
    with output.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _await_lines(output: Path, wanted: int) -> int:
    deadline = time.monotonic() + LOG_SECONDS
    found = _lines(output)
    while found < wanted and time.monotonic() < deadline:
        time.sleep(0.05)
        found = _lines(output)
    return found
