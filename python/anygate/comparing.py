"""``anygate compare``: measures servers with one application, in turn, each for some rounds.

A load is put on each server that starts and responds as the others do: as fast as responses come; then at the same
number of requests per second for all; at last beside slow clients, and at twice what the server can do.
"""

from __future__ import annotations

import http.client
import mimetypes
import os
import resource
import shutil
import signal
import statistics
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from anygate import _anygate, comparison_page, comparison_text
from anygate.comparison import Comparison, Load, Report, Result, Stress
from anygate.comparison_text import Progress
from anygate.measured_server import ENDING, MeasuredServer, ServerFailed, on_cores, request_of
from anygate.registry import SERVERS
from anygate.servers import find, named
from anygate.task import CannotServe

#: Servers that are compared if none are named.
USUAL = ("native", "gunicorn", "waitress", "gevent", "uwsgi", "granian")
#: What all processors have done so far.
STAT = Path("/proc/stat")
#: Clients that never end a request, and connections of a burst for each of the usual ones.
SLOW_CLIENTS = 20
BURST_CONNECTIONS = 4
#: Rounds, the last ones, at whose ends servers are tried with these.
STRESS_ROUNDS = 2
#: In this many requests, one is for the slow path.
SLOW_EVERY = 100
WARM_UP_MAX = 1.0
#: Seconds for which a server may be measured until its first response, and requests per second that are no load.
PATIENCE, RATE_MIN = 20.0, 1.0
NOTHING_MEASURED, INTERRUPTED = 1, 130


@dataclass
class Reference:
    """The right responses, by path: those of the first server that has responded."""

    comparison: Comparison
    #: The requests, by path.
    requests: dict[str, bytes]
    server: str | None = None
    responses: dict[str, tuple[int, bytes | None]] = field(default_factory=dict)

    def check(self, server: MeasuredServer) -> None:
        """Raise ServerFailed unless the server responds as those before it."""
        paths = [*self.comparison.paths, *filter(None, [self.comparison.slow_path])]
        found = {path: self._look(server, path) for path in paths}
        if self.server is None:
            self.server, self.responses = server.name, found
        for path, (status, body) in found.items():
            right, wanted = self.responses[path]
            if status != right:
                raise ServerFailed(f"responds to {path} with {status} in place of {right}, as {self.server} does")
            if body != wanted and body is not None and wanted is not None:
                raise ServerFailed(
                    f"responds to {path} with another body than {self.server} ({len(body):,} bytes in place of "
                    f"{len(wanted):,}); if they differ on purpose, add --varying {path}"
                )

    def _look(self, server: MeasuredServer, path: str) -> tuple[int, bytes | None]:
        try:
            (status, body), again = server.ask(self.requests[path]), server.ask(self.requests[path])
        except (OSError, http.client.HTTPException) as error:
            raise ServerFailed(f"{path}: no response: {error!r}") from None
        if status >= 500:
            raise ServerFailed(f"responds to {path} with {status}: {server.last_words()}")
        if path in self.comparison.varying:
            return status, None
        if again != (status, body):
            raise ServerFailed(
                f"two responses to {path} have different bodies; if they differ on purpose, add --varying {path}"
            )
        return status, body


@dataclass(frozen=True)
class Cores:
    """Processor cores for the server and for the load; ``None``: they share all."""

    server: frozenset[int] | None
    load: frozenset[int] | None

    @classmethod
    def divide(cls) -> Cores:
        """Divide those that this process may use; the load gets a quarter, and at least one."""
        if not hasattr(os, "sched_getaffinity"):
            return cls(None, None)
        cores = sorted(os.sched_getaffinity(0))
        count = max(1, len(cores) // 4)
        if len(cores) < 2:
            return cls(None, None)
        return cls(frozenset(cores[:-count]), frozenset(cores[-count:]))


@dataclass(frozen=True)
class Processors:
    """Seconds of all processors so far: altogether, of all programs, and of this one with what it has started."""

    whole: float
    busy: float
    own: float

    @classmethod
    def now(cls) -> Processors | None:
        """Read it (proc_stat(5)); ``None``: the system does not tell, as in some containers."""
        try:
            text = STAT.read_text()
            user, nice, system, idle, waiting, hard, soft, stolen = (
                int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in text.split(maxsplit=9)[1:9]
            )
        except (OSError, ValueError):
            return None
        busy = user + nice + system + hard + soft
        used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(busy + idle + waiting + stolen, busy, sum(one.ru_utime + one.ru_stime for one in used))

    def of_others_since(self, before: Processors | None) -> float | None:
        """Return the share that other programs took."""
        if before is None:
            return None
        whole = self.whole - before.whole
        return max(0.0, self.busy - before.busy - (self.own - before.own)) / whole if whole else 0.0


class Run:
    """One comparison, while it runs."""

    def __init__(self, comparison: Comparison, progress: Progress) -> None:
        self.comparison = comparison
        self.progress = progress
        self.cores = Cores.divide()
        body = Path(comparison.body).read_bytes() if comparison.body is not None else None
        kind = mimetypes.guess_type(comparison.body or "")[0] or "application/octet-stream"
        paths = [*comparison.paths, *filter(None, [comparison.slow_path])]
        requests = {path: request_of(path, comparison.method, body, kind) for path in paths}
        self.reference = Reference(comparison, requests)
        self.rate = comparison.rate or 0.0
        names = comparison.servers or [name for name in USUAL if SERVERS[name].version is not None]
        #: Responses per second at the first look.
        self.first_rates: dict[str, float] = {}
        self.results = [_described(comparison, name) for name in names]

    def measure(self) -> Report:
        """Measure all servers; return the figures."""
        before = Processors.now()
        self._round(0, "first look", self._look)
        reached = [self.first_rates[result.name] for result in self._alive()]
        self.rate = self.rate or max(statistics.median(reached or [0]) / 2, RATE_MIN)
        rounds = self.comparison.rounds
        for number in range(1, rounds + 1):
            measure = self._measure if number <= rounds - STRESS_ROUNDS else self._measure_with_stress
            self._round(number, f"round {number} of {rounds}", measure)
        return Report(
            self.comparison,
            self.results,
            self.rate,
            self.reference.responses,
            self.cores.server is not None,
            now.of_others_since(before) if (now := Processors.now()) is not None else None,
        )

    def _alive(self) -> list[Result]:
        return [result for result in self.results if result.failure is None]

    def _round(self, number: int, what: str, measure: Callable[[MeasuredServer, Result], None]) -> None:
        """Start and measure each server; every second round goes backwards, so that nobody is always the last."""
        for result in self._alive() if number % 2 == 0 else reversed(self._alive()):
            self.progress.show(f"{what}: {result.name}")
            try:
                arguments = [*equal_options(self.comparison, result.name), *self.comparison.arguments]
                first, sets_port = self.reference.requests[self.comparison.paths[0]], self.comparison.sets_port
                with MeasuredServer(result.name, arguments, first, self.cores.server, sets_port) as server:
                    result.starts.append(server.start_seconds)
                    self.reference.check(server)
                    self._load(server, seconds=min(WARM_UP_MAX, self.comparison.seconds))
                    measure(server, result)
            except ServerFailed as error:
                result.failure = str(error)
            self.progress.step()

    def _look(self, server: MeasuredServer, result: Result) -> None:
        self.first_rates[result.name] = self._load_until_response(server).rate

    def _measure(self, server: MeasuredServer, result: Result) -> None:
        result.free.append(self._load_until_response(server))
        result.memory.append(server.memory_bytes())
        result.constant.append(self._load(server, rate=self.rate))
        if self.comparison.slow_path is not None:
            result.with_slow_path.append(self._load(server, rate=self.rate, with_slow_path=True))

    def _measure_with_stress(self, server: MeasuredServer, result: Result) -> None:
        self._measure(server, result)
        # What a server can do may change from minute to minute with what else the machine does.
        undisturbed = self._load_until_response(server)
        connections = self.comparison.connections * BURST_CONNECTIONS
        burst = self._load(server, rate=2 * max(undisturbed.rate, RATE_MIN), connections=connections)
        # Last, since a server may wait for such clients when they are gone.
        slow = self._load(server, slow_clients=SLOW_CLIENTS)
        result.stress.append(Stress(undisturbed, burst, slow))

    def _load_until_response(self, server: MeasuredServer) -> Load:
        """Measure as fast as responses come; longer if not even one comes, since a request may take that long."""
        seconds = self.comparison.seconds
        while True:
            load = self._load(server, seconds=seconds)
            if load.responses or load.failed or seconds > PATIENCE:
                return load
            seconds *= 2

    def _load(
        self,
        server: MeasuredServer,
        *,
        seconds: float | None = None,
        rate: float | None = None,
        connections: int | None = None,
        slow_clients: int = 0,
        with_slow_path: bool = False,
    ) -> Load:
        """Put a load on the server; return its figures."""
        paths = list(self.comparison.paths)
        order = list(range(len(paths)))
        if with_slow_path and self.comparison.slow_path is not None:
            # Of a hundred requests, the last is the slow one.
            order = [place % len(paths) for place in range(SLOW_EVERY - 1)] + [len(paths)]
            paths.append(self.comparison.slow_path)
        before = server.processor_seconds()
        with on_cores(self.cores.load):
            figures = _anygate.put_load(
                server.address,
                [(self.reference.requests[path], *self.reference.responses[path]) for path in paths],
                order,
                connections=connections or self.comparison.connections,
                seconds=seconds or self.comparison.seconds,
                rate=rate,
                slow_clients=slow_clients,
                threads=len(self.cores.load or [0]),
                tick=self.progress.draw,
            )
        fast = len(self.comparison.paths)
        latencies: Counter[int] = Counter()
        for counts in figures["latencies"][:fast]:
            latencies.update(dict(counts))
        return Load(
            seconds=figures["seconds"],
            responses=sum(figures["responses"]),
            latencies=latencies,
            errors=Counter(figures["errors"]),
            statuses=Counter(figures["statuses"]),
            unfinished=figures["unfinished"],
            processor_seconds=server.processor_seconds() - before,
            load_seconds=figures["processor_seconds"],
        )


def equal_options(comparison: Comparison, name: str) -> list[str]:
    """Return the options that give a server as many processes and threads as the others, as far as it has them."""
    server = SERVERS[name]
    options = []
    # The workers of some are threads or greenlets.
    if "workers" in server.supports and server.concurrency.startswith("processes"):
        options.append(f"--workers={comparison.workers}")
    if "threads" in server.supports and comparison.threads is not None:
        options.append(f"--threads={comparison.threads}")
    return options


def _described(comparison: Comparison, name: str) -> Result:
    """Return what is known of a server before its start: it may be missing."""
    words = [
        f"{value} {word if value != '1' else word[:-1]}"
        for word, value in (part.lstrip("-").split("=") for part in equal_options(comparison, name))
    ]
    result = Result(name, named(name).version, note=", ".join(words) or SERVERS[name].concurrency)
    try:
        if "http" not in find(name).protocols:
            result.failure = "does not speak HTTP"
    except CannotServe as error:
        result.failure = str(error).removeprefix("server: ")
    return result


def run(text: str) -> int:
    """Compare servers as the JSON of a :class:`Comparison` says; return the exit code."""
    comparison = Comparison.from_json(text)
    try:
        for name in comparison.servers:
            named(name)
        if comparison.body is not None:
            _check_readable(Path(comparison.body))
        if comparison.html is not None:
            _check_writable(Path(comparison.html))
        if not Path("/proc/self/stat").exists():
            print(
                "anygate: error: compare: this system has no /proc, which tells what each server takes: "
                "compare on Linux, or where /proc is mounted",
                file=sys.stderr,
            )
            return 1
    except CannotServe as error:
        print(f"anygate: error: compare: --servers: {str(error).removeprefix('server: ')}", file=sys.stderr)
        return error.code
    except OSError as error:
        option = "html" if error.filename == comparison.html else "body"
        print(f"anygate: error: compare: --{option}: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    names = comparison.servers or USUAL
    with Progress(sys.stderr, len(names) * (1 + comparison.rounds)) as progress:
        try:
            with _ended_by_signals():
                report = Run(comparison, progress).measure()
        except KeyboardInterrupt:
            progress.clear()
            print("anygate: interrupted; the servers have ended", file=sys.stderr)
            return INTERRUPTED
    if comparison.html is not None:
        Path(comparison.html).write_text(comparison_page.page(report), encoding="utf-8")
    print(comparison_text.as_json(report) if comparison.as_json else comparison_text.render(report, _width()))
    return 0 if report.measured else NOTHING_MEASURED


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else comparison_text.WIDTH


def _check_readable(path: Path) -> None:
    with path.open("rb"):
        pass


def _check_writable(path: Path) -> None:
    """Raise OSError now, not after minutes, if the page cannot be written."""
    with path.open("a"):
        pass


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Signals that end a program end the servers first, which have some seconds; a second one changes nothing."""
    seen = False

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if not seen:
            seen = True
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
