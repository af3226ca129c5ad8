"""The page docs/performance.md and its pictures, from results: `python bench/pictures.py [RESULTS]`.

A picture shows the processor time that servers take for a request, as a multiple of the best peer's. Other programs
on a machine disturb that figure much less than requests per second.
"""

from __future__ import annotations

import html
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
DOCS = FOLDER.parent / "docs"

#: Groups of the comparison with a picture, and what they are called.
GROUPS = {
    "small": "Small responses",
    "uploads": "Uploads",
    "downloads": "Downloads",
    "frameworks": "Frameworks",
    "files": "Static files",
}
#: Left and right end of the scale, as multiples of the best peer; what is beyond is shown at the end.
LOW, HIGH = 0.5, 8.0
#: From this ratio on, a peer is called ahead: figures of equal servers differ by some percent, too.
AHEAD = 1.05
WIDTH, LEFT, RIGHT, TOP, STEP = 760, 290, 70, 46, 30


@dataclass(frozen=True)
class Work:
    """One work of the comparison: processor time of a request in microseconds, by server."""

    group: str
    title: str
    source: str
    revision: str
    is_disturbed: bool
    times: dict[str, float]
    rates: dict[str, float]

    @property
    def peers(self):
        return {name: time for name, time in self.times.items() if name != "anygate"}

    @property
    def best(self):
        return min(self.peers, key=self.peers.get)

    @property
    def ratio(self):
        return self.times["anygate"] / self.peers[self.best]

    @property
    def rate_ratio(self):
        return self.rates["anygate"] / max(rate for name, rate in self.rates.items() if name != "anygate")


def read(path):
    """The rows of one file in which anygate and a peer have figures."""
    text = path.read_text()
    revision = re.search(r"^anygate [^ ]+ \((\w+)\)", text, re.MULTILINE)[1]
    rows, group = [], ""
    for part in re.split(r"^(?=##)", text, flags=re.MULTILINE)[1:]:
        heading, *lines = part.splitlines()
        if heading.startswith("## "):
            group = heading[3:].partition(":")[0]
            continue
        tables = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        if group not in GROUPS or not tables or tables[0][3] != "CPU µs/request":
            continue
        figures = [cells for cells in tables[2:] if cells[1] and not cells[0].startswith("floor")]
        # A title may have errors in parentheses: they are no right responses.
        times = {cells[0]: float(cells[3]) for cells in figures if "(" not in cells[0]}
        rates = {cells[0]: float(cells[1]) for cells in figures if "(" not in cells[0]}
        if "anygate" in times and len(times) > 1:
            rows.append(
                Work(group, heading.removeprefix("### "), path.name, revision, "**Noise.**" in text, times, rates)
            )
    return rows


def newest(paths):
    """Each row as the newest file has it, in the order of the groups."""
    rows = {}
    for path in sorted(paths):
        rows.update({(row.group, row.title): row for row in read(path)})
    return sorted(rows.values(), key=lambda row: list(GROUPS).index(row.group))


def x_of(ratio):
    share = math.log(min(max(ratio, LOW), HIGH) / LOW) / math.log(HIGH / LOW)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def picture(title, rows):
    """Rows of dots on one scale, as SVG with its own colours for light and dark."""
    height = TOP + STEP * len(rows) + 34
    bottom = TOP + STEP * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" ',
        f'aria-label="{html.escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="8"/>',
        f'<text class="title" x="16" y="24">{html.escape(title)}</text>',
    ]
    for mark in (0.5, 1, 2, 4, 8):
        name, look = ("best peer", "one") if mark == 1 else (f"{mark:g} times" + " or more" * (mark == HIGH), "grid")
        x = f"{x_of(mark):.1f}"
        parts.append(
            f'<line class="{look}" x1="{x}" x2="{x}" y1="{TOP - 8}" y2="{bottom}"/>'
            f'<text class="mark" x="{x}" y="{bottom + 18}">{name}</text>'
        )
    for place, row in enumerate(rows):
        y = TOP + STEP * place + STEP / 2
        parts.append(f'<text class="row" x="{LEFT - 14}" y="{y + 4}">{html.escape(row.title)}</text>')
        best = row.peers[row.best]
        for name, time in row.peers.items():
            parts.append(
                f'<circle class="peer" cx="{x_of(time / best):.1f}" cy="{y}" r="4.5"><title>{html.escape(name)}: '
                f"{time:,.1f} µs, {time / best:.2f} times {html.escape(row.best)}</title></circle>"
            )
        x = x_of(row.ratio)
        parts.append(
            f'<path class="ours" d="M{x - 8:.1f} {y}L{x:.1f} {y - 8}L{x + 8:.1f} {y}L{x:.1f} {y + 8}Z"><title>anygate: '
            f"{row.times['anygate']:,.1f} µs, {row.ratio:.2f} times {html.escape(row.best)}</title></path>"
            f'<text class="figure" x="{WIDTH - 14}" y="{y + 4}">{row.ratio:.2f}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


STYLE = """
.ground { fill: #fff; stroke: #d8dde1; }
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #24292e; }
.title { font-size: 15px; font-weight: 600; }
.mark { font-size: 11px; text-anchor: middle; fill: #5d6770; }
.row, .figure { text-anchor: end; }
.figure { font-weight: 600; font-variant-numeric: tabular-nums; }
.grid { stroke: #e5e9ec; }
.one { stroke: #8a949c; stroke-dasharray: 4 3; }
.peer { fill: #8a949c; fill-opacity: .65; }
.ours { fill: #0f7b6c; stroke: #fff; }
@media (prefers-color-scheme: dark) {
  .ground { fill: #15181b; stroke: #333a40; }
  text { fill: #e4e7ea; }
  .mark { fill: #9aa5ae; }
  .grid { stroke: #2a3035; }
  .one { stroke: #7d8790; }
  .ours { fill: #3fc2ab; stroke: #15181b; }
}
"""


def page(rows):
    """The page as Markdown."""
    sources = sorted({(row.source, row.revision) for row in rows})
    named = ",\n".join(f"`bench/results/{source}` (revision {revision})" for source, revision in sources)
    parts = [HEAD.format(sources=named)]
    if disturbed := {row.group for row in rows if row.is_disturbed}:
        parts.append(DISTURBED.format(groups=", ".join(title for group, title in GROUPS.items() if group in disturbed)))
    for group, title in GROUPS.items():
        chosen = [row for row in rows if row.group == group]
        if chosen:
            parts += [f"## {title}", f"![{title}: processor time of a request](performance/{group}.svg)", table(chosen)]
    ahead = sorted((row for row in rows if row.ratio > AHEAD), key=lambda row: -row.ratio)
    if ahead:
        lines = [f"* {row.title}: {row.best}, {1 / row.ratio:.0%} of anygate's time" for row in ahead]
        parts += ["## Where a peer is ahead", AHEAD_TEXT, "\n".join(lines)]
    return "\n\n".join([*parts, TAIL.strip()]) + "\n"


def table(rows):
    shows_rates = not any(row.is_disturbed for row in rows)
    lines = [
        f"| work | anygate, µs | best peer | µs | ratio |{' requests/s, ratio |' if shows_rates else ''}",
        f"| --- | --: | --- | --: | --: |{' --: |' if shows_rates else ''}",
    ]
    for row in rows:
        cells = [row.title, f"{row.times['anygate']:,.1f}", row.best, f"{row.peers[row.best]:,.1f}", f"{row.ratio:.2f}"]
        cells += [f"{row.rate_ratio:.2f}"] if shows_rates else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


HEAD = """# Performance

How much processor time servers take for a request, each work in one run over all of them: anygate is the diamond, the
dots are bjoern, fastwsgi, fastpysgi, peregrine, m0serve, granian, uWSGI, gunicorn with its parser in C, and waitress,
as far as each can do the work; hypercorn over HTTP/2, nginx for files. Left of the line anygate takes less than the
best of them, right of it more. A server that did not start or responded wrongly has no dot; the results say why.

The figures are those of {sources}.
These also have requests per second, latencies, memory, versions and the machine. `bench/pictures.py`
makes this page from them. What has changed since is in the changelog."""

DISTURBED = """**Some measurements were disturbed: {groups}.** Other programs took most of both processors, and each
server had one round of one second. Requests per second are left out, and differences of less than a third mean
little."""

AHEAD_TEXT = "By these figures the best peer takes clearly less time for this work:"

TAIL = """
## Where the instructions go

Callgrind counts 12,723 instructions for `hello` on a kept connection (28 November 2026, Python 3.11), and three system
calls: `epoll_wait`, `recvfrom`, `sendto`.

| part | instructions |
| --- | --: |
| reading and parsing the request | 2,640 |
| making `environ`, and letting go of it | 1,610 |
| taking and leaving the interpreter's lock, a context for its variables | 1,430 |
| the application's own code | 1,100 |
| `start_response`: checking status and fields | 1,700 |
| head and body of the response | 1,610 |
| sending it | 780 |
| the loop around it: polling, the steps of a call, deadlines | 1,880 |

What is on adds, with one of it alone: `--health-path` 510, `--admin` 990, `--compression` 1,730 where the body is too
short for it, an access log 1,860, `--security-headers` 2,090, `--trace-context` 3,520, `--request-id` 3,630. Of what
concerns a response, about 1,700 are for any policy, so that all of them together add 8,270. In processor time
(`bench/results/2026-11-28-2008.md`) a request that takes 7.8 µs without takes 0.1 µs more with `--security-headers`,
0.2 with `--admin`, 0.3 with `--request-id` or `--trace-context`, 0.6 with an access log, 0.8 with `--compression`, and
2.0 with all of them; `--health-path` makes no difference.

Over HTTP/2, `hello` takes 36,970 instructions, with one request at a time. The library for its frames has 13,100 of
them in the two rounds that take in a request and send its response, and 3,100 where it is given the response; the
application and what calls it have 10,000, as over HTTP/1.1.

Another allocator (mimalloc 2.0) makes no difference: 12,727 instructions. A request asks the C library for memory
once; Python has an allocator of its own.

## Repeat it

```sh
make bench
make bench BENCH_ARGUMENTS="--workloads small,uploads --rounds 5 --seconds 4"
make bench BENCH_ARGUMENTS="--workloads small --servers anygate,granian"
python bench/pictures.py
```

The first takes hours; the last makes this page from the newest results. `bench/README.md` says what each work is, and
which programs put the load on the servers. `make instructions` counts instructions instead of time, which no other
program disturbs.

For your own application, [`anygate compare`](guide/comparing.md) measures the servers that you have installed. Most
applications take so much longer than any server that these figures decide little.
"""


def main():
    """Write the page and its pictures."""
    paths = [Path(argument) for argument in sys.argv[1:]] or list(RESULTS.glob("*.md"))
    rows = newest(paths)
    folder = DOCS / "performance"
    folder.mkdir(exist_ok=True)
    for group, title in GROUPS.items():
        chosen = [row for row in rows if row.group == group]
        if chosen:
            (folder / f"{group}.svg").write_text(picture(f"{title}: processor time of a request", chosen))
    (DOCS / "performance.md").write_text(page(rows))


if __name__ == "__main__":
    main()
