"""Measure anygate against other WSGI servers in one run; see README.md."""

from __future__ import annotations

import argparse
import datetime
import statistics

from installation import prepare
from load import STOLEN
from report import heading
from servers import FOLDER
from workloads import WORKLOADS


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
