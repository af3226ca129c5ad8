"""Measure anygate against other WSGI servers in one run; see README.md."""

from __future__ import annotations

import argparse
import datetime
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from load import STOLEN
from report import heading
from servers import CACHE, ECHO, FLOOR, FOLDER, PYTHON
from workloads import WORKLOADS


def prepare():
    """Install the other servers and what puts load on them."""
    if not all(map(shutil.which, ("wrk", "h2load", "curl", "cc"))) or not Path("/usr/include/ev.h").exists():
        packages = ["wrk", "nghttp2-client", "curl", "libev-dev", "gcc", "libc6-dev"]
        subprocess.run(["apt-get", "install", "--yes", "--quiet", *packages], check=True)
    subprocess.run([sys.executable, FOLDER.parent / "scripts" / "packages.py"], check=True)
    stamp = CACHE / "requirements.txt"
    wanted = (FOLDER / "requirements.txt").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        CACHE.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", CACHE / "venv"], check=True)
        subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "-r", FOLDER / "requirements.txt"], check=True)
        stamp.write_text(wanted)
    for program in (ECHO, FLOOR):
        source = FOLDER / f"{program.name}.c"
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)


def main():
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--stolen-max", type=float, default=0.02, help="repeat while the host takes a larger share")
    parser.add_argument("--patience", type=float, default=30, help="seconds to repeat one measurement")
    options = parser.parse_args()
    prepare()
    lines = heading(options)
    results = FOLDER / "results" / f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d-%H%M}.md"
    results.parent.mkdir(exist_ok=True)
    for workload in options.workloads.split(","):
        title, measure = WORKLOADS[workload]
        print(title, flush=True)
        STOLEN.clear()
        lines += ["", f"## {title}", "", *measure(options)]
        if STOLEN:
            worst, middle_one = max(STOLEN), statistics.median(STOLEN)
            lines += ["", f"Processor time that the host gave to others: median {middle_one:.1%}, worst {worst:.1%}."]
        results.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    print(f"\nwritten to {results.relative_to(FOLDER.parent)}")


if __name__ == "__main__":
    main()
