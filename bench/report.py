"""The tables of a results file, and its head."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
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


def median_table(columns, medians, cells):
    """One line for each server, of what `cells` returns; failures stand in it as words."""
    lines = [f"| {' | '.join(columns)} |", f"| --- |{' --: |' * (len(columns) - 1)}"]
    for title, row in medians.items():
        if isinstance(row, str):
            lines.append(f"| {title}: {row} |{' |' * (len(columns) - 1)}")
        else:
            lines.append(f"| {' | '.join(cells(title, row))} |")
    return lines


def best_of(medians, key, choose=min):
    """The best figure of a peer."""
    values = [row[key] for title, row in medians.items() if isinstance(row, dict) and not title.startswith("anygate")]
    return choose(values) if values else None


def noted(title, row):
    """The title of a server, with its errors."""
    return f"{title} ({row['errors']})" if row["errors"] else title


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


def comparison_table(rows, floor, unable):
    """One row of the comparison over all servers; failures stand in it, too."""
    right = {title: row for title, row in rows.items() if isinstance(row, dict)}
    peers = [row for title, row in right.items() if not title.startswith("anygate")]
    below = floor["cpu"] + floor["alone"] if isinstance(floor, dict) else None
    best_rps = max((row["rps"] for row in peers), default=None)
    best_cpu = min((row["cpu"] for row in peers), default=None)
    best_added = best_cpu - below if peers and below is not None else None
    lines = [
        "| server | requests/s | of the best peer | CPU µs/request | of the best peer | added to the floor, µs "
        "| of the best peer | p99 ms | memory MB |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for title, row in rows.items():
        if isinstance(row, str):
            lines.append(f"| {title}: {row.replace('|', ' ')} | | | | | | | | |")
            continue
        note = f" ({row['errors']})" if row["errors"] else ""
        added = row["cpu"] - below if below is not None else None
        cells = [
            f"{row['rps']:.0f}",
            ratio(row["rps"], best_rps),
            f"{row['cpu']:.2f}",
            ratio(row["cpu"], best_cpu),
            f"{added:.2f}" if added is not None else "",
            ratio(added, best_added),
            f"{row['p99']:.2f}" if row["p99"] == row["p99"] else "",
            f"{row['memory']:.1f}",
        ]
        lines.append(f"| {title}{note} | {' | '.join(cells)} |")
    if isinstance(floor, dict):
        what = f"floor: {floor['cpu']:.2f} to move the bytes, {floor['alone']:.2f} in the application"
        lines.append(f"| {what} | {floor['rps']:.0f} | | {below:.2f} | {ratio(below, best_cpu)} | 0 | | | |")
    else:
        lines.append(f"| floor: {floor} | | | | | | | | |")
    return [*lines, *(["", "; ".join(unable) + "."] if unable else [])]


def ratio(figure, best):
    """A figure as a share of the best peer's; nothing if that is no measure."""
    # What is below the floor is as good as nothing: the figures of both have errors.
    return f"{max(figure, 0) / best:.2f}" if figure is not None and best is not None and best > 0 else ""


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
        f"{SERVER_CORE}, load on core {LOAD_CORE}; {options.rounds} rounds of {options.seconds} s, medians.",
        "",
        f'Command: `make bench BENCH_ARGUMENTS="{shlex.join(sys.argv[1:])}"`',
    ]
