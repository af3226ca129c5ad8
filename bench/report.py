"""The tables of a results file, and its head."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import subprocess
from pathlib import Path

from servers import ANYGATE, FOLDER, LOAD_CORE, SERVER_CORE


def throughput_table(rows):
    best_rps = max(row["rps"] for name, row in rows if not name.startswith("anygate"))
    best_cpu = min(row["cpu"] for name, row in rows if not name.startswith("anygate"))
    lines = [
        "| server | requests/s | of the best peer | p50 ms | p99 ms "
        "| CPU µs/request | of the best peer | user | sys | memory MB |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name, row in rows:
        note = f" ({row['errors']})" if row["errors"] else ""
        lines.append(
            f"| {name}{note} | {row['rps']:.0f} | {row['rps'] / best_rps:.2f} | {row['p50']:.2f} | {row['p99']:.2f} "
            f"| {row['cpu']:.2f} | {row['cpu'] / best_cpu:.2f} | {row['user']:.2f} | {row['sys']:.2f} "
            f"| {row['memory']:.1f} |"
        )
    return lines


def simple_table(rows, peer, what):
    """Requests a second and time on the processor, as ratios to those of one peer."""
    lines = [
        f"| server | {what}s/s | of {peer} | CPU µs/{what} | of {peer} |",
        "| --- | --: | --: | --: | --: |",
    ]
    figures = {
        title: {key: statistics.median(figure[key] for figure in rounds) for key in ("rps", "cpu")}
        for title, rounds in rows.items()
    }
    for title, row in figures.items():
        notes = "; ".join(sorted({figure["errors"] for figure in rows[title] if figure["errors"]}))
        lines.append(
            f"| {title}{f' ({notes})' if notes else ''} | {row['rps']:.0f} | {row['rps'] / figures[peer]['rps']:.2f} "
            f"| {row['cpu']:.2f} | {row['cpu'] / figures[peer]['cpu']:.2f} |"
        )
    return lines


def heading(options):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    version = subprocess.run([ANYGATE, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    peers = ", ".join(line.replace("==", " ") for line in (FOLDER / "requirements.txt").read_text().split())
    return [
        f"# {datetime.date.today().isoformat()}",
        "",
        f"{version} ({revision.stdout.strip()}); {peers}; Python {platform.python_version()}.",
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}. Server on core "
        f"{SERVER_CORE}, wrk on core {LOAD_CORE}; {options.rounds} rounds of {options.seconds} s, medians.",
        "",
        f'Command: `make bench BENCH_ARGUMENTS="--rounds {options.rounds} --seconds {options.seconds} '
        f'--workloads {options.workloads}"`',
    ]
