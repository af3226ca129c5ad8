"""What a comparison of servers is about, and what follows from its figures: medians, noise, and which server to take.

Nothing is measured here (:mod:`anygate.comparing`), and nothing is shown (:mod:`anygate.comparison_text`,
:mod:`anygate.comparison_page`).
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

#: Rounds below which even figures that never overlap may be chance: two servers with 4 rounds each are completely apart
#: by chance in 2 of 70 cases, with 3 rounds in 2 of 20.
ROUNDS_MIN = 4
#: Share of a processor core from which the load may be what limits a server.
LOAD_BUSY = 0.9
#: Share of the processors that other programs may take without a word.
OTHERS_MAX = 0.1
#: Share of its requests per second that a server keeps beside slow clients if they do not hinder it.
UNHINDERED = 0.7
#: Memory that is clearly less: a share of the other's.
LESS_MEMORY = 0.9
#: Quantiles of curves: evenly on a logarithmic scale of the share that is slower.
CURVE = tuple(1 - 10 ** (-step / 20) for step in range(81))


@dataclass(frozen=True)
class Comparison:
    """Task of ``anygate compare``, as the command line says it."""

    servers: tuple[str, ...]
    paths: tuple[str, ...]
    varying: tuple[str, ...]
    slow_path: str | None
    method: str
    #: Path of a file.
    body: str | None
    seconds: float
    rounds: int
    connections: int
    rate: float | None
    as_json: bool
    html: str | None
    workers: int
    threads: int | None
    sets_port: bool
    arguments: tuple[str, ...]

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """Parse what the command line has made."""
        given: dict[str, Any] = json.loads(text)
        made: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        return cls(**made)


@dataclass
class Load:
    """Figures of one load, or of several together."""

    seconds: float = 0.0
    responses: int = 0
    #: How many responses had a latency, in microseconds.
    latencies: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    unfinished: int = 0
    #: Time on processors of the server, and of the load.
    processor_seconds: float = 0.0
    load_seconds: float = 0.0

    @classmethod
    def of(cls, loads: Iterable[Load]) -> Load:
        """Return all of them as one."""
        whole = cls()
        for load in loads:
            for one in fields(cls):
                # Counters and numbers are added alike.
                setattr(whole, one.name, getattr(whole, one.name) + getattr(load, one.name))
        return whole

    @property
    def rate(self) -> float:
        """Right responses per second."""
        return self.responses / self.seconds if self.seconds else 0.0

    @property
    def processor_per_response(self) -> float:
        """Seconds of the server on a processor for each right response."""
        return self.processor_seconds / self.responses if self.responses else math.nan

    @property
    def failed(self) -> int:
        """Number of requests without a right response."""
        return self.errors.total()

    @property
    def load_share(self) -> float:
        """Share of one processor core that the load needed."""
        return self.load_seconds / self.seconds if self.seconds else 0.0

    def quantile(self, share: float) -> float:
        """Return the latency in seconds that so great a share of the responses had at most."""
        return quantile(self.latencies, share)

    @property
    def maximum(self) -> float:
        """The longest latency, in seconds."""
        return max(self.latencies, default=math.nan) / 1e6


@dataclass(frozen=True)
class Stress:
    """More than a server is made for, right after what it did undisturbed."""

    undisturbed: Load
    #: Twice as many requests per second, for a while.
    burst: Load
    #: Beside clients that never end a request.
    slow: Load


def _share(load: Load, undisturbed: Load) -> float:
    return load.rate / undisturbed.rate if undisturbed.rate else math.nan


@dataclass
class Result:
    """One server of a comparison."""

    name: str
    version: str | None = None
    #: Why it is not measured, or not any more.
    failure: str | None = None
    #: Words about how it was started.
    note: str = ""
    starts: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    #: As many requests as responses come, one load for each round.
    free: list[Load] = field(default_factory=list)
    #: The same number of requests per second for each server.
    constant: list[Load] = field(default_factory=list)
    #: The same, with a slow request now and then; the latencies are those of the others.
    with_slow_path: list[Load] = field(default_factory=list)
    stress: list[Stress] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Responses per second, of each round."""
        return [load.rate for load in self.free]

    @property
    def rate(self) -> float:
        """Median of the responses per second."""
        return statistics.median(self.rates) if self.free else 0.0

    @property
    def spread(self) -> float:
        """Half of the range of the responses per second, as a share of the median."""
        return (max(self.rates) - min(self.rates)) / 2 / self.rate if self.rate else 0.0

    @property
    def memory_bytes(self) -> float:
        """Median of its memory under load."""
        return statistics.median(self.memory) if self.memory else math.nan

    @property
    def start_seconds(self) -> float:
        """Median of the time from its start to its first response."""
        return statistics.median(self.starts) if self.starts else math.nan

    @property
    def processor_per_response(self) -> float:
        """Median of its time on a processor for each response."""
        return statistics.median(load.processor_per_response for load in self.free) if self.free else math.nan

    @property
    def failed(self) -> int:
        """Number of requests without a right response, where none was asked too much of it."""
        return Load.of([*self.free, *self.constant]).failed

    @property
    def with_slow_clients(self) -> Load:
        """What came beside slow clients."""
        return Load.of(stress.slow for stress in self.stress)

    @property
    def burst(self) -> Load:
        """What came in bursts."""
        return Load.of(stress.burst for stress in self.stress)

    def kept_beside_slow_clients(self) -> float:
        """Return the share of its responses per second that it kept beside slow clients, at best."""
        return max((_share(stress.slow, stress.undisturbed) for stress in self.stress), default=math.nan)

    def kept_in_burst(self) -> float:
        """Return its responses per second in a burst, as a share of what it can do, at best."""
        return max((_share(stress.burst, stress.undisturbed) for stress in self.stress), default=math.nan)


@dataclass(frozen=True)
class Report:
    """Everything that is known in the end."""

    comparison: Comparison
    results: list[Result]
    #: Requests per second at which latencies were compared.
    rate: float
    #: Right responses, by path: status, and body unless it may be any.
    responses: Mapping[str, tuple[int, bytes | None]]
    #: Whether servers and load had processor cores of their own.
    is_apart: bool
    #: Share of the processors that other programs took meanwhile.
    #: ``None``: the system does not tell.
    others: float | None = 0.0

    @property
    def measured(self) -> list[Result]:
        """Those that were measured to the end, the fastest first."""
        return [result for result in ranked(self.results) if result.failure is None]

    @property
    def failed(self) -> list[Result]:
        """Those that were not."""
        return [result for result in self.results if result.failure is not None]


def quantile(counts: Mapping[int, int], share: float) -> float:
    """Return the quantile of latencies in microseconds, in seconds: the first that is reached by so great a share."""
    wanted = share * sum(counts.values())
    passed = 0
    for micros in sorted(counts):
        passed += counts[micros]
        # A share such as 0.9 is no binary fraction.
        if passed >= wanted - 1e-6:
            return micros / 1e6
    return math.nan


def curve(counts: Mapping[int, int]) -> list[tuple[float, float]]:
    """Return the quantiles for a curve: shares and seconds, as far as there are enough latencies for them."""
    total = sum(counts.values())
    return [(share, quantile(counts, share)) for share in CURVE if (1 - share) * total >= 1]


def ranked(results: Iterable[Result]) -> list[Result]:
    """Return the fastest first, and those that failed last."""
    return sorted(results, key=lambda result: (result.failure is not None, -result.rate))


def are_apart(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether the rounds of two servers differ by more than the noise: no round of one is among the other's."""
    if min(len(one), len(other)) < ROUNDS_MIN:
        return False
    return max(one) < min(other) or max(other) < min(one)


@dataclass(frozen=True)
class Difference:
    """Two servers, of which the first had more responses per second in the median."""

    faster: str
    slower: str
    ratio: float
    is_clear: bool


def rounds_are_enough(report: Report) -> bool:
    """Return whether there were enough rounds to tell a difference from the noise."""
    return report.comparison.rounds >= ROUNDS_MIN


def differences(results: Iterable[Result]) -> list[Difference]:
    """Return the difference of each pair of servers that were measured."""
    measured = [result for result in ranked(results) if result.failure is None and result.rate]
    return [
        Difference(one.name, other.name, one.rate / other.rate, are_apart(one.rates, other.rates))
        for place, one in enumerate(measured)
        for other in measured[place + 1 :]
    ]


@dataclass(frozen=True)
class Recommendation:
    """The server to take, with the reason; no server if none is right."""

    server: str | None
    reason: str
    cautions: tuple[str, ...] = ()


def recommend(report: Report) -> Recommendation:
    """Return which server to take."""
    rate = report.rate
    measured = [result for result in report.measured if result.rate]
    if not measured:
        return Recommendation(None, "No server could be measured.")
    right = [result for result in measured if not result.failed]
    cautions = []
    if not right:
        right = [min(measured, key=lambda result: result.failed / Load.of(result.free).responses)]
        cautions.append("No server was without errors; this one had the fewest.")
    best = right[0]
    if report.others is None:
        cautions.append("How much of the processors other programs took is unknown: there is no /proc/stat.")
    elif report.others > OTHERS_MAX:
        cautions.append(f"Other programs took {report.others:.0%} of the processors: measure again when they do not.")
    few = min(len(result.free) for result in measured) < ROUNDS_MIN
    equal = [result for result in right if result is best or not are_apart(best.rates, result.rates)]
    if few and len(right) > 1:
        chosen, reason = best, f"{best.name} has the most requests/s in the median."
        cautions.append(f"With fewer than {ROUNDS_MIN} rounds no difference can be told from the noise.")
    elif len(equal) > 1:
        chosen, reason = _choose(equal, right, rate)
    else:
        chosen, reason = best, _lead(best, right, rate)
    if chosen.rate < measured[0].rate and measured[0].failed:
        cautions.append(f"{measured[0].name} had more requests/s, but {measured[0].failed:,} errors.")
    kept = chosen.kept_beside_slow_clients()
    if kept < UNHINDERED:
        cautions.append(_caution_of_slow_clients(chosen, kept, right))
    if any(load.load_share > LOAD_BUSY for load in chosen.free):
        cautions.append("The load needed a whole processor core: the fastest servers may be faster than shown.")
    return Recommendation(chosen.name, reason, tuple(cautions))


def _lead(best: Result, right: Sequence[Result], rate: float) -> str:
    if len(right) == 1:
        return f"{best.name} is the only server with right responses and without errors."
    following = right[1]
    latency = Load.of(best.constant).quantile(0.99)
    slow = (
        f" At {rate:,.0f} requests/s, 99 % of its responses come within {latency * 1e3:,.1f} ms."
        if best.constant
        else ""
    )
    return (
        f"{best.name} has {best.rate / following.rate:.2f} times the requests/s of the next, {following.name}, "
        f"which is more than the noise.{slow}"
    )


def _choose(equal: Sequence[Result], right: Sequence[Result], rate: float) -> tuple[Result, str]:
    """Choose between servers that are equally fast."""
    names = listed([result.name for result in equal])
    others = " All others are slower." if len(equal) < len(right) else ""
    beginning = f"{names} do not differ in requests/s by more than the noise.{others}"
    unhindered = [result for result in equal if not result.kept_beside_slow_clients() < UNHINDERED]
    if unhindered and len(unhindered) < len(equal):
        fit, beginning = (
            unhindered,
            f"{beginning} {listed([result.name for result in unhindered])} also "
            + ("keeps" if len(unhindered) == 1 else "keep")
            + " serving beside slow clients.",
        )
    else:
        fit = list(equal)
    if len(fit) == 1:
        return fit[0], beginning
    tails = {result.name: [load.quantile(0.99) for load in result.constant] for result in fit}
    quick = min(fit, key=lambda result: _median(tails[result.name]))
    if all(are_apart(tails[quick.name], tails[other.name]) for other in fit if other is not quick):
        latency = _median(tails[quick.name])
        return quick, (
            f"{beginning} Of these, {quick.name} has the shortest latencies at {rate:,.0f} requests/s: "
            f"99 % of its responses come within {latency * 1e3:,.1f} ms."
        )
    small = min(fit, key=lambda result: result.memory_bytes)
    if all(small.memory_bytes < LESS_MEMORY * other.memory_bytes for other in fit if other is not small):
        return small, f"{beginning} Of these, {small.name} needs the least memory: {small.memory_bytes / 1e6:,.0f} MB."
    return fit[0], f"{beginning} Nor do they differ clearly in latency or memory: choose by what they offer."


def _caution_of_slow_clients(chosen: Result, kept: float, right: Sequence[Result]) -> str:
    better = [result.name for result in right if result.kept_beside_slow_clients() >= UNHINDERED]
    instead = f", or take {listed(better, 'or')}" if better else ""
    return f"Slow clients leave it {kept:.0%} of its requests/s: put a buffering front server before it{instead}."


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.inf


def listed(names: Sequence[str], word: str = "and") -> str:
    """Return names as people list them."""
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else names[0]
