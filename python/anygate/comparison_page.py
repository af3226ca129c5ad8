"""A comparison of servers as one page: bars, curves of latency, tables. It needs nothing else, and has no script."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from anygate import _anygate
from anygate.comparison import CURVE, Load, Report, Result, curve, recommend
from anygate.comparison_text import (
    STRESS,
    about,
    constant_table,
    latency,
    main_table,
    megabytes,
    micros,
    number,
    requests,
    sentences_of_differences,
    stress_table,
)

#: Shares that are named below a curve.
MARKS = (0.0, 0.9, 0.99, 0.999, 0.9999)
#: Colours that differ in hue and lightness; further servers begin anew with another dash.
COLOURS = 6
DASHES = ("none", "6 4", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Chart:
    """Bars of one figure."""

    title: str
    hint: str
    value: Callable[[Result], float]
    text: Callable[[Result], str]


CHARTS = (
    Chart("Requests per second", "more is better; ± half of the range of the rounds", lambda one: one.rate, requests),
    Chart(
        "Processor time per request",
        "less is better",
        lambda one: one.processor_per_response,
        lambda one: micros(one.processor_per_response),
    ),
    Chart("Memory under load", "less is better", lambda one: one.memory_bytes, lambda one: megabytes(one.memory_bytes)),
    Chart(
        "Start",
        "to the first response; less is better",
        lambda one: one.start_seconds,
        lambda one: latency(one.start_seconds),
    ),
    Chart(
        "Requests per second beside slow clients",
        "more is better",
        lambda one: one.with_slow_clients.rate,
        lambda one: number(one.with_slow_clients.rate),
    ),
    Chart(
        "Requests per second in a burst",
        "of twice as many; more is better",
        lambda one: one.burst.rate,
        lambda one: number(one.burst.rate),
    ),
)


def page(report: Report) -> str:
    """Return the page."""
    advice = recommend(report)
    cautions = "".join(f"<li>{_text(one)}</li>" for one in advice.cautions)
    parts = [
        f'<section class="advice"><h2>{_text(advice.server or "No recommendation")}</h2><p>{_text(advice.reason)}</p>'
        f"{f'<ul>{cautions}</ul>' if cautions else ''}</section>"
    ]
    if report.measured:
        rate = number(report.rate)
        charts = "\n".join(_bars(chart, report.measured) for chart in CHARTS)
        free, constant = ([(one, Load.of(loads)) for one, loads in pairs] for pairs in _loads(report))
        parts += [
            f'<div class="charts">\n{charts}\n</div>',
            _curves(f"Latency at {rate} requests per second for each", "since a request was due", constant),
            _curves("Latency as fast as responses come", "since a request was sent", free),
            _table("As fast as responses come", main_table(report)),
            _table(f"At {rate} requests per second for each", constant_table(report)),
            _table(STRESS, stress_table(report)),
        ]
    if report.failed:
        rows = [["SERVER", "REASON"], *([one.name, one.failure or ""] for one in report.failed)]
        parts.append(_table("Not measured", rows, "words"))
    if len(report.measured) > 1:
        lines = "".join(f"<li>{_text(line)}</li>" for line in sentences_of_differences(report))
        parts.append(f"<section><h2>Differences</h2><ul>{lines}</ul></section>")
    return _shell(report, "\n".join(parts))


def _loads(report: Report) -> Sequence[list[tuple[Result, list[Load]]]]:
    return [(one, one.free) for one in report.measured], [(one, one.constant) for one in report.measured]


def _shell(report: Report, content: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Comparison of servers</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>Comparison of servers</h1><p>{_text(about(report))}</p></header>
<main>
{content}
</main>
<footer>Made by <code>anygate compare</code> {_text(_anygate.__version__)}.</footer>
</body>
</html>
"""


def _bars(chart: Chart, results: Sequence[Result]) -> str:
    values = {one.name: chart.value(one) for one in results}
    most = max((value for value in values.values() if not math.isnan(value)), default=0) or 1
    rows = []
    for place, one in enumerate(results):
        value = values[one.name]
        width = 0 if math.isnan(value) else value / most
        rows.append(
            f"<div><dt>{_text(one.name)}</dt><dd><span {_look(place)} class=bar><i></i></span>"
            f"<b>{_text(chart.text(one))}</b></dd></div>".replace("<i>", f'<i style="width:{width:.2%}">')
        )
    return f'<section><h2>{chart.title}</h2><p class="hint">{chart.hint}</p><dl>{"".join(rows)}</dl></section>'


def _look(place: int) -> str:
    return f'style="--colour:var(--colour-{place % COLOURS});--dash:{DASHES[place // COLOURS % len(DASHES)]}"'


def _curves(title: str, hint: str, loads: Sequence[tuple[Result, Load]]) -> str:
    """Return the quantiles of latency as lines, both axes logarithmic.

    Lines and texts are apart, so that the chart fits any width without stretching its text.
    """
    lines = [(one.name, place, curve(load.latencies)) for place, (one, load) in enumerate(loads)]
    values = [max(value, 1e-6) for _, _, points in lines for _, value in points]
    if not values:
        return ""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    right = -math.log10(1 - max(share for _, _, points in lines for share, _ in points)) or 1.0

    def x(share: float) -> float:
        return -math.log10(1 - share) / right * 100

    def y(value: float) -> float:
        return (high - math.log10(max(value, 1e-6))) / (high - low) * 100

    drawn = "".join(
        f'<polyline {_look(place)} points="{" ".join(f"{x(share):.2f},{y(value):.2f}" for share, value in points)}">'
        f"<title>{_text(name)}</title></polyline>"
        for name, place, points in lines
    )
    grid = "".join(
        f'<line x1="0" x2="100" y1="{y(10.0**at):.2f}" y2="{y(10.0**at):.2f}"/>' for at in range(low, high + 1)
    )
    marks = [mark for mark in MARKS if mark <= CURVE[-1] and x(mark) <= 100.5]
    grid += "".join(f'<line x1="{x(mark):.2f}" x2="{x(mark):.2f}" y1="0" y2="100"/>' for mark in marks)
    left = "".join(f'<span style="top:{y(10.0**at):.2f}%">{_text(_power(at))}</span>' for at in range(low, high + 1))
    below = "".join(
        f'<span style="left:{x(mark):.2f}%">{f"{mark * 100:g} %" if mark else "fastest"}</span>' for mark in marks
    )
    legend = "".join(
        f"<li {_look(place)}><svg viewBox='0 0 24 8' aria-hidden=true><line x1=0 x2=24 y1=4 y2=4 /></svg>"
        f"{_text(name)}</li>"
        for name, place, _ in lines
    )
    return f"""<section><h2>{_text(title)}</h2><p class="hint">{hint}; lower is better. To the right, the share of
requests that were as fast grows.</p>
<ul class="legend">{legend}</ul>
<div class="curves"><div class="left">{left}</div>
<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{_text(title)}"><g class="grid">{grid}</g>
{drawn}</svg>
<div class="below">{below}</div></div></section>"""


def _power(exponent: int) -> str:
    seconds = 10.0**exponent
    return f"{seconds:g} s" if exponent >= 0 else f"{seconds * 1e3:g} ms" if exponent >= -3 else f"{seconds * 1e6:g} µs"


def _table(title: str, rows: Sequence[Sequence[str]], kind: str = "figures") -> str:
    head = "".join(f"<th scope=col>{_text(cell if cell == 'CPU' else cell.capitalize())}</th>" for cell in rows[0])
    body = "".join(
        f"<tr><th scope=row>{_text(row[0])}</th>{''.join(f'<td>{_text(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows[1:]
    )
    return (
        f'<section><h2>{_text(title)}</h2><div class="wide" tabindex=0 role=region aria-label="{_text(title)}">'
        f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def _text(text: str) -> str:
    return html.escape(text)


_STYLE = """
:root { --ground: #fff; --ink: #1c1f23; --muted: #5d6770; --line: #e0e4e7; --soft: #f3f5f7;
  --advice: #e8f4ef; --edge: #1f7a5c;
  --colour-0: #0b6e99; --colour-1: #d1495b; --colour-2: #b58900;
  --colour-3: #5b3f9e; --colour-4: #2e8b57; --colour-5: #6b7280; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15181b; --ink: #e4e7ea; --muted: #9aa5ae; --line: #2d3338; --soft: #1e2226;
    --advice: #16302a; --edge: #4fb08f;
    --colour-0: #4fb3dd; --colour-1: #ff8793; --colour-2: #e6c04a;
    --colour-3: #b9a0f5; --colour-4: #6fd39b; --colour-5: #aab2bb; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1100px; padding: 1.5rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.6rem; font-weight: 650; letter-spacing: -.015em; }
h2 { margin: 0; font-size: 1.05rem; font-weight: 620; }
header p, .hint, footer { color: var(--muted); }
header p { margin: .35rem 0 1.5rem; }
.hint { margin: .1rem 0 .8rem; font-size: .85rem; }
section { margin: 0 0 2.2rem; min-width: 0; }
section > ul { margin: .5rem 0 0; padding-left: 1.2rem; }
.advice { padding: 1rem 1.2rem; background: var(--advice); border-left: 4px solid var(--edge);
  border-radius: 0 8px 8px 0; }
.advice h2 { font-size: 1.3rem; }
.advice p { margin: .3rem 0 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); column-gap: 2.5rem; }
dl { margin: 0; }
dl > div { display: grid; grid-template-columns: 7rem 1fr; align-items: center; gap: .75rem; padding: .18rem 0; }
dt { text-align: right; font-size: .9rem; }
dd { margin: 0; display: grid; grid-template-columns: 1fr 8.2rem; align-items: center; gap: .6rem; }
dd b { font-weight: 550; font-size: .9rem; }
.bar { display: block; height: 1rem; background: var(--soft); border-radius: 3px; }
.bar i { display: block; height: 100%; min-width: 2px; background: var(--colour); border-radius: 3px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 0 0 .8rem; padding: 0; list-style: none;
  font-size: .9rem; }
.legend svg { width: 24px; height: 8px; margin-right: .45rem; vertical-align: middle; }
.legend line, polyline { stroke: var(--colour); stroke-width: 2.5px; stroke-dasharray: var(--dash); fill: none;
  vector-effect: non-scaling-stroke; }
.curves { position: relative; margin: 0 1.5rem 0 4rem; }
.curves > svg { display: block; width: 100%; height: 19rem; overflow: visible; }
.grid line { stroke: var(--line); stroke-width: 1px; vector-effect: non-scaling-stroke; }
.left span, .below span { position: absolute; color: var(--muted); font-size: .8rem; white-space: nowrap; }
.left { position: absolute; inset: 0 100% 1.7rem auto; }
.left span { right: .6rem; transform: translateY(-50%); }
.below { position: relative; height: 1.7rem; }
.below span { top: .4rem; transform: translateX(-50%); }
.wide { overflow-x: auto; margin-top: .5rem; }
table { border-collapse: collapse; min-width: 100%; font-size: .9rem; overflow-wrap: normal; }
th, td { padding: .4rem .8rem; text-align: right; font-weight: 400; white-space: nowrap; }
thead th { color: var(--muted); font-size: .8rem; }
tbody tr { border-top: 1px solid var(--line); }
th:first-child { text-align: left; padding-left: 0; position: sticky; left: 0; background: var(--ground); }
tbody th { font-weight: 600; }
.words td, .words th:last-child { text-align: left; white-space: normal; overflow-wrap: anywhere; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .9em; }
footer { font-size: .8rem; }
@media (max-width: 640px) {
  body { padding: 1rem; }
  dl > div { grid-template-columns: 5rem 1fr; gap: .5rem; }
  dd { grid-template-columns: 1fr 7rem; }
  .curves { margin: 0 1rem 0 3.4rem; }
  .curves > svg { height: 15rem; }
  .below span:nth-child(4):nth-last-child(2) { display: none; }
  .legend { font-size: .85rem; }
}
"""
