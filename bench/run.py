"""Measure anygate against other WSGI servers in one run; see README.md."""

from __future__ import annotations

import argparse
import datetime
import statistics

import comparison
import crowds
import lifecycle
import workloads
from installation import prepare
from load import OTHERS, STOLEN
from report import heading
from servers import FOLDER

WORKLOADS = {**comparison.WORKLOADS, **crowds.WORKLOADS, **lifecycle.WORKLOADS, **workloads.WORKLOADS}


def disturbance():
    """What else the processors did while a workload was measured."""
    if not STOLEN:
        return []
    return [
        "",
        f"Processor time that the host gave to others: median {statistics.median(STOLEN):.1%}, "
        f"worst {max(STOLEN):.1%}; "
        f"that other programs took: median {statistics.median(OTHERS):.0%}, worst {max(OTHERS):.0%}.",
    ]


def main():
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--stolen-max", type=float, default=0.02, help="repeat while the host takes a larger share")
    parser.add_argument("--patience", type=float, default=30, help="seconds to repeat one measurement")
    parser.add_argument("--warm-up", type=int, default=1, help="seconds of load before those that count")
    parser.add_argument("--rows", default="", help="only rows of the comparison whose title has this")
    parser.add_argument("--servers", default="", help="only servers of the comparison that begin so")
    options = parser.parse_args()
    prepare()
    lines = heading(options)
    results = FOLDER / "results" / f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d-%H%M}.md"
    results.parent.mkdir(exist_ok=True)
    for workload in options.workloads.split(","):
        title, measure = WORKLOADS[workload]
        print(title, flush=True)
        STOLEN.clear()
        OTHERS.clear()
        lines += ["", f"## {title}", "", *measure(options)]
        lines += disturbance()
        results.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    print(f"\nwritten to {results.relative_to(FOLDER.parent)}")


if __name__ == "__main__":
    main()
