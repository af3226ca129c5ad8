"""A comparison of servers as text: the bar of its progress, tables for a terminal, and JSON."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TextIO

from anygate import _anygate
from anygate.comparison import (
    ROUNDS_MIN,
    Load,
    Report,
    Result,
    curve,
    differences,
    listed,
    recommend,
    rounds_are_enough,
)

_BAR = 24
STRESS = "What is left beside clients that never end a request, and in a burst of twice as many requests"
#: Columns of text that is not for a terminal, and those that a narrow one does not show, in this order.
WIDTH = 200
LEFT_OUT = ("STARTED WITH", "VERSION", "MAX", "P90", "START")
QUANTILES = (0.5, 0.9, 0.99)


class Progress:
    """A line on a terminal; nothing elsewhere."""

    def __init__(self, out: TextIO, steps: int) -> None:
        self._out = out
        self._steps = steps
        self._done = 0
        self._what = ""
        self._begun = time.monotonic()
        self._shown = out.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def show(self, what: str) -> None:
        """Say what is done now."""
        self._what = what
        self.draw()

    def step(self) -> None:
        """One step is done."""
        self._done += 1
        self.draw()

    def draw(self) -> None:
        """Draw the line anew."""
        if self._shown:
            width = shutil.get_terminal_size().columns
            self._out.write("\r" + self.line(time.monotonic() - self._begun)[: width - 1] + "\x1b[K")
            self._out.flush()

    def line(self, passed: float) -> str:
        """Return the line after so many seconds."""
        share = min(self._done / max(self._steps, 1), 1.0)
        left = f"about {_time(passed / share - passed)} left  " if self._done else ""
        full = int(share * _BAR)
        return f"[{'#' * full}{'.' * (_BAR - full)}] {share:4.0%}  {left}{self._what}"

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            self._out.write("\r\x1b[K")
            self._out.flush()


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def latency(seconds: float) -> str:
    """Return a latency as people write it."""
    if math.isnan(seconds):
        return "-"
    if seconds >= 0.9995:
        return f"{seconds:.{2 if seconds < 9.995 else 1}f} s"
    return f"{seconds * 1e3:.{0 if seconds >= 0.1 else 1 if seconds >= 0.01 else 2}f} ms"


def number(value: float) -> str:
    """Return a count, or a rate, with as many digits as mean something."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def share(value: float) -> str:
    """Return a share in per cent."""
    return "-" if math.isnan(value) else f"{value:.0%}"


def megabytes(count: float) -> str:
    """Return a size of memory."""
    return "-" if math.isnan(count) else f"{count / 1e6:,.0f} MB"


def micros(seconds: float) -> str:
    """Return a time on a processor."""
    return "-" if math.isnan(seconds) else f"{seconds * 1e6:,.0f} µs"


def errors(load: Load) -> str:
    """Return how many requests failed, and why."""
    if not load.failed:
        return "-"
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in load.errors.most_common() if kind != "status")
    statuses = ", ".join(f"{count:,} of {status}" for status, count in load.statuses.most_common(3))
    return ", ".join(filter(None, (statuses, kinds)))


def requests(result: Result) -> str:
    """Return the requests per second with half of the range of the rounds."""
    return f"{number(result.rate)} ±{result.spread:.0%}"


def main_table(report: Report) -> list[list[str]]:
    """Return what each server can do, with a line of titles."""
    rows = [
        [
            "SERVER",
            "VERSION",
            "STARTED WITH",
            "REQUESTS/S",
            "CPU",
            "P50",
            "P90",
            "P99",
            "MAX",
            "ERRORS",
            "MEMORY",
            "START",
        ]
    ]
    for result in report.measured:
        free = Load.of(result.free)
        rows.append(
            [
                result.name,
                result.version or "",
                result.note,
                requests(result),
                micros(result.processor_per_response),
                *(latency(free.quantile(part)) for part in QUANTILES),
                latency(free.maximum),
                errors(free),
                megabytes(result.memory_bytes),
                latency(result.start_seconds),
            ]
        )
    return rows


def constant_table(report: Report) -> list[list[str]]:
    """Return the latencies at the same number of requests per second."""
    has_slow_path = report.comparison.slow_path is not None
    rows = [
        ["SERVER", "DONE/S", "P50", "P90", "P99", "MAX", "ERRORS", *(["P99 BESIDE SLOW PATH"] if has_slow_path else [])]
    ]
    for result in report.measured:
        load = Load.of(result.constant)
        row = [result.name, number(load.rate), *(latency(load.quantile(part)) for part in QUANTILES)]
        row += [latency(load.maximum), errors(load)]
        rows.append(row + ([latency(Load.of(result.with_slow_path).quantile(0.99))] if has_slow_path else []))
    return rows


def stress_table(report: Report) -> list[list[str]]:
    """Return the share of its requests per second that each server keeps beside slow clients, and in a burst."""
    rows = [["SERVER", "SLOW CLIENTS", "P99", "ERRORS", "BURST", "P99", "ERRORS"]]
    for result in report.measured:
        slow, burst = result.with_slow_clients, result.burst
        row = [result.name, share(result.kept_beside_slow_clients()), latency(slow.quantile(0.99)), errors(slow)]
        rows.append([*row, share(result.kept_in_burst()), latency(burst.quantile(0.99)), errors(burst)])
    return rows


def about(report: Report) -> str:
    """Return in one sentence how it was measured."""
    comparison = report.comparison
    paths = []
    for path in comparison.paths:
        status, body = report.responses.get(path, (0, None))
        size = "" if body is None else f", {len(body):,} bytes"
        paths.append(f"{path} ({status}{size})" if status else path)
    cores = "server and load on cores of their own" if report.is_apart else "server and load on the same core"
    rounds = f"{comparison.rounds} round{'s' if comparison.rounds > 1 else ''} of {comparison.seconds:g} s"
    return f"{', '.join(paths)}; {comparison.connections} connections; {rounds}, in turn; {cores}."


def sentences_of_differences(report: Report) -> list[str]:
    """Return which differences are larger than the noise."""
    if not rounds_are_enough(report):
        return [f"With fewer than {ROUNDS_MIN} rounds no difference can be told from the noise."]
    lines: dict[str, tuple[list[str], list[str]]] = {}
    for pair in differences(report.results):
        clear, unclear = lines.setdefault(pair.faster, ([], []))
        if pair.is_clear:
            clear.append(f"{pair.ratio:.2f} times those of {pair.slower}")
        else:
            unclear.append(pair.slower)
    return [
        f"{name}: "
        + "; ".join(
            [
                *(["requests/s " + ", ".join(clear)] if clear else []),
                *([f"{listed(unclear)} within the noise"] if unclear else []),
            ]
        )
        for name, (clear, unclear) in lines.items()
    ]


def render(report: Report, width: int = WIDTH) -> str:
    """Return everything for a terminal that is so wide."""
    parts = [about(report)]
    if report.measured:
        tables = {
            "As fast as responses come": main_table(report),
            f"At {number(report.rate)} requests/s for each, latency since a request was due": constant_table(report),
            f"{STRESS}, in per cent of its requests/s": stress_table(report),
        }
        parts += [f"{title}:\n{_aligned(rows, width)}" for title, rows in tables.items()]
    if report.failed:
        parts.append("Not measured:\n" + "\n".join(f"  {result.name}: {result.failure}" for result in report.failed))
    if len(report.measured) > 1:
        parts.append("Differences:\n" + "\n".join(f"  {line}" for line in sentences_of_differences(report)))
    advice = recommend(report)
    parts.append(
        "\n".join(
            [
                f"Recommendation: {advice.server or 'none'}",
                f"  {advice.reason}",
                *(f"  {one}" for one in advice.cautions),
            ]
        )
    )
    return "\n\n".join(parts)


def _aligned(rows: Sequence[Sequence[str]], width: int) -> str:
    """Return a table. Where it is too wide, columns are left out that matter less."""
    left_out = list(LEFT_OUT)
    while True:
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows]
        if max(map(len, lines)) + 2 <= width or not left_out:
            return "\n".join(f"  {line}" for line in lines)
        name = left_out.pop(0)
        rows = [[cell for title, cell in zip(rows[0], row, strict=True) if title != name] for row in rows]


def as_json(report: Report) -> str:
    """Return all figures for programs: times in seconds, sizes in bytes."""
    advice = recommend(report)
    comparison = report.comparison
    return json.dumps(
        {
            "anygate": _anygate.__version__,
            "paths": {path: status for path, (status, _) in report.responses.items()},
            "connections": comparison.connections,
            "seconds": comparison.seconds,
            "rounds": comparison.rounds,
            "cores_apart": report.is_apart,
            "other_programs": report.others,
            "constant_rate": report.rate,
            "servers": [_server(result) for result in [*report.measured, *report.failed]],
            "differences": [vars(pair) for pair in differences(report.results)],
            "recommendation": {"server": advice.server, "reason": advice.reason, "cautions": advice.cautions},
        },
        indent=2,
        allow_nan=False,
    )


def _server(result: Result) -> dict[str, Any]:
    figures: dict[str, Any] = {"name": result.name, "version": result.version, "failure": result.failure}
    if result.failure is not None:
        return figures
    return {
        **figures,
        "started_with": result.note,
        "start_seconds": result.start_seconds,
        "memory_bytes": result.memory_bytes,
        "requests_per_second": result.rate,
        "requests_per_second_of_rounds": result.rates,
        "cpu_seconds_per_request": _finite(result.processor_per_response),
        "free": _load(Load.of(result.free)),
        "constant": _load(Load.of(result.constant)),
        "beside_slow_path": _load(Load.of(result.with_slow_path)) if result.with_slow_path else None,
        "beside_slow_clients": _load(result.with_slow_clients),
        "burst": _load(result.burst),
    }


def _load(load: Load) -> dict[str, Any]:
    return {
        "responses": load.responses,
        "requests_per_second": load.rate,
        "p50": _finite(load.quantile(0.5)),
        "p90": _finite(load.quantile(0.9)),
        "p99": _finite(load.quantile(0.99)),
        "max": _finite(load.maximum),
        "errors": load.errors,
        "statuses": load.statuses,
        "unfinished": load.unfinished,
        "load_cores": load.load_share,
        "curve": [[round(part, 6), value] for part, value in curve(load.latencies)],
    }


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
