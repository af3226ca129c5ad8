"""The profile as a page for people and as JSON for programs.

A page carries its style and script inline and refers to nothing outside, as its Content-Security-Policy demands.
"""

from __future__ import annotations

import html
import json
import os
import re
import sys
from dataclasses import dataclass
from urllib.parse import urlencode

from anygate.profile_figures import Figures, Function, FunctionCost

# What XML 1.0 has no way to write, and lone surrogates, which UTF-8 cannot carry.
_UNPRINTABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class View:
    """Parameters of the page, and facts about this process besides the figures."""

    base: str
    folder: str
    sort: str
    limit: int
    limit_max: int
    write_failures: int
    unprofiled: int


def as_json(figures: Figures, view: View) -> bytes:
    """Return what the page shows as JSON."""
    response = {
        "requests": figures.requests,
        "total_seconds": figures.total_seconds,
        "calls": figures.calls,
        "sort": view.sort,
        "limit": view.limit,
        "functions_total": len(figures.rows),
        "functions": [
            {
                "function": row.function[2],
                "file": row.function[0],
                "line": row.function[1],
                "calls": row.calls,
                "primitive_calls": row.primitive_calls,
                "own_seconds": row.own_seconds,
                "cumulative_seconds": row.cumulative_seconds,
                "per_call_seconds": row.per_call_seconds,
            }
            for row in figures.ordered(view.sort, view.limit)
        ],
        "skipped": figures.skipped,
        "process": {"pid": os.getpid(), "write_failures": view.write_failures, "unprofiled": view.unprofiled},
    }
    return json.dumps(response, indent=2).encode() + b"\n"


def table(figures: Figures, view: View) -> str:
    """Return the page with the table of functions."""
    rows = figures.ordered(view.sort, view.limit)
    if not rows:
        return shell("Profile", figures, view, EMPTY)
    total = figures.total_seconds or 1.0
    body = "\n".join(_row(row, total) for row in rows)
    heads = "".join(_head(key, text, view) for key, text in _COLUMNS)
    more = ""
    if len(rows) < len(figures.rows):
        everything = _query(view.sort, min(len(figures.rows), view.limit_max))
        more = (
            f'<p class="more">{len(rows):,} of {len(figures.rows):,} functions are shown. '
            f'<a href="{everything}">Show more</a></p>'
        )
    return shell(
        "Profile",
        figures,
        view,
        f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n{more}",
    )


def shell(title: str, figures: Figures, view: View, content: str) -> str:
    """Return a whole page: heading, sums and actions around ``content``, which is HTML."""
    pages = (("Profile", "Functions", view.base), ("Flame graph", "Flame graph", f"{view.base}/flame"))
    links = "".join(
        f'<a href="{text_of(target)}"{" aria-current=page" if name == title else ""}>{label}</a>'
        for name, label, target in pages
    )
    if figures.rows:
        links += (
            f'<a href="{text_of(view.base)}?download">Download</a>'
            f'<a href="{text_of(view.base)}{_query(view.sort, view.limit)}&amp;format=json">JSON</a>'
        )
    notices = "".join(f"<li>{notice}</li>" for notice in _notices(figures, view))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · {figures.requests:,} requests</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<nav>{links}<form method="post" action="{text_of(view.base)}/clear"><button>Clear</button></form></nav>
</header>
<dl>
<div><dt>Requests</dt><dd>{figures.requests:,}</dd></div>
<div><dt>Total time</dt><dd>{duration(figures.total_seconds)}</dd></div>
<div><dt>Per request</dt><dd>{duration(figures.total_seconds / max(figures.requests, 1))}</dd></div>
<div><dt>Function calls</dt><dd>{figures.calls:,}</dd></div>
</dl>
{f'<ul class="notices">{notices}</ul>' if notices else ""}
<main>
{content}
</main>
<footer>From the profiles in <code>{text_of(view.folder)}</code>. Streamed bodies are not part of a profile.</footer>
</body>
</html>
"""


def text_of(text: str) -> str:
    """Return ``text`` so that it can stand in HTML and in XML, inside of quotes or outside."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", text))


def duration(seconds: float) -> str:
    """Return a length of time as people write it: ``1.23 s``, ``45.6 ms``, ``7.8 µs``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            amount = seconds / size
            return f"{amount:,.{0 if amount >= 1000 else 1 if amount >= 100 else 2}f}\N{NO-BREAK SPACE}{unit}"
    return f"{seconds * 1e6:.1f}\N{NO-BREAK SPACE}µs"


def name_of(function: Function) -> str:
    """Return a function's name, without the angle brackets that cProfile puts around those written in C."""
    file, _, name = function
    return name[1:-1] if file == "~" and name.startswith("<") and name.endswith(">") else name


def place_of(function: Function, short: bool = False) -> str:
    """Return ``file:line``, if ``short`` relative to the folder of the Python path that holds the file."""
    file, line, _ = function
    if file == "~":
        return "built-in"
    if short:
        folders = [folder.rstrip("/") + "/" for folder in sys.path if folder]
        longest = max((folder for folder in folders if file.startswith(folder)), key=len, default="")
        file = file[len(longest) :]
    return f"{file}:{line}"


_COLUMNS = (
    ("name", "Function"),
    ("calls", "Calls"),
    ("own", "Own, ms"),
    ("cumulative", "Cumulative, ms"),
    ("", "Per call, ms"),
)


def _head(key: str, text: str, view: View) -> str:
    if not key:
        return f"<th scope=col>{text}</th>"
    sort = ""
    if key == view.sort:
        sort = f" aria-sort={'ascending' if key == 'name' else 'descending'}"
    return f'<th scope=col{sort}><a href="{_query(key, view.limit)}">{text}</a></th>'


def _row(row: FunctionCost, total: float) -> str:
    calls = f"{row.calls:,}"
    if row.primitive_calls != row.calls:
        calls += f'<small title="calls that were not recursive">/{row.primitive_calls:,}</small>'
    return (
        f'<tr><th scope=row><span class="name">{text_of(name_of(row.function))}</span>'
        f'<span class="place" title="{text_of(place_of(row.function))}">'
        f"{text_of(place_of(row.function, short=True))}</span></th>"
        f'<td data-label="calls">{calls}</td>'
        f'<td data-label="own"{_bar(row.own_seconds / total)}>{_milliseconds(row.own_seconds)}</td>'
        f'<td data-label="cumulative"{_bar(row.cumulative_seconds / total)}>'
        f"{_milliseconds(row.cumulative_seconds)}</td>"
        f'<td data-label="per call">{_milliseconds(row.per_call_seconds)}</td></tr>'
    )


def _bar(share: float) -> str:
    """Return the attributes that draw a share of the whole behind a figure."""
    share = min(share, 1.0)
    return f' style="--share:{share:.2%}" title="{share:.1%} of the total time"' if share >= 0.0005 else ""


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.3f}"


def _query(sort: str, limit: int) -> str:
    return html.escape("?" + urlencode({"sort": sort, "limit": limit}))


def _notices(figures: Figures, view: View) -> list[str]:
    notices = [f"<code>{text_of(name)}</code> is left out: {text_of(why)}" for name, why in figures.skipped.items()]
    if len(notices) > 20:
        notices[20:] = [f"{len(notices) - 20:,} more files are left out"]
    if view.write_failures:
        notices.append(f"This worker could not write {view.write_failures:,} profiles; its log says why")
    if view.unprofiled:
        notices.append(f"In this worker {view.unprofiled:,} requests ran unprofiled; its log says why")
    return notices


EMPTY = '<p class="empty">No request was profiled yet. Send some to the application, then load this page again.</p>'

_STYLE = """
:root { --ground: #fff; --ink: #1c1f23; --muted: #667079; --line: #e3e6e9; --link: #0b5cad; --bar: #f7b65e;
  --hover: #f6f7f8; --warn: #fff4d6; --box-s: 88%; --box-l: 76%; --plain-box: #dfe3e6; --edge: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15181b; --ink: #e4e7ea; --muted: #98a2ab; --line: #2c3136; --link: #7db8f5; --bar: #a8671a;
    --hover: #1d2125; --warn: #3a3013; --box-s: 46%; --box-l: 30%; --plain-box: #343a40; --edge: #15181b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 1.5rem 1.5rem 2rem; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
header { display: flex; flex-wrap: wrap; align-items: baseline; justify-content: space-between; gap: .5rem 2rem; }
h1 { margin: 0; font-size: 1.6rem; font-weight: 650; letter-spacing: -.015em; }
nav { display: flex; flex-wrap: wrap; align-items: baseline; gap: .4rem 1.1rem; }
nav a[aria-current] { color: var(--ink); font-weight: 600; }
form { margin: 0; }
button { font: inherit; color: inherit; background: none; border: 1px solid var(--line); border-radius: 6px;
  padding: .15rem .7rem; cursor: pointer; }
button:hover { background: var(--hover); }
dl { display: flex; flex-wrap: wrap; gap: .75rem 2.5rem; margin: 1.25rem 0 1.5rem; }
dt { color: var(--muted); font-size: .8rem; }
dd { margin: 0; font-size: 1.25rem; font-weight: 550; }
.notices { margin: 0 0 1.5rem; padding: .6rem 1rem .6rem 2rem; background: var(--warn); border-radius: 6px;
  overflow-wrap: anywhere; }
code, .name { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .9em; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .4rem .75rem; text-align: right; vertical-align: top; font-weight: 400; white-space: nowrap; }
td { width: 9.5rem; }
th:first-child { text-align: left; padding-left: 0; white-space: normal; overflow-wrap: anywhere; }
tr > :last-child { padding-right: 0; }
thead th { position: sticky; top: 0; background: var(--ground); box-shadow: inset 0 -1px var(--line);
  font-size: .8rem; color: var(--muted); vertical-align: bottom; z-index: 1; }
thead [aria-sort] a { color: var(--ink); font-weight: 650; }
thead [aria-sort=descending] a::after { content: " \\2193"; }
thead [aria-sort=ascending] a::after { content: " \\2191"; }
tbody tr { border-bottom: 1px solid var(--line); }
tbody tr:hover { background: var(--hover); }
td small { color: var(--muted); }
td[style] { background: linear-gradient(var(--bar), var(--bar)) right .75rem top 1.95rem /
  calc(var(--share) * .82) 4px no-repeat; }
.place { display: block; color: var(--muted); font-size: .8rem; }
.more, .empty, footer { color: var(--muted); }
.empty { padding: 3rem 0; text-align: center; }
footer { margin-top: 2rem; font-size: .8rem; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  body { padding: 1rem; }
  dl { display: grid; grid-template-columns: 1fr 1fr; gap: .75rem; }
  tr { display: grid; grid-template-columns: 1fr 1.2fr 1.4fr 1.1fr; padding: .5rem 0; }
  thead { position: sticky; top: 0; z-index: 1; display: block; background: var(--ground);
    box-shadow: inset 0 -1px var(--line); }
  thead tr { display: flex; gap: 1.1rem; padding: .6rem 0; }
  thead th, thead th:first-child { position: static; box-shadow: none; background: none; margin: 0; }
  thead th:last-child { display: none; }
  th, td, td:last-child { padding: 0; width: auto; }
  th:first-child { grid-column: 1 / -1; margin-bottom: .2rem; }
  td::before { content: attr(data-label); display: block; color: var(--muted); font-size: .7rem; }
  td { font-size: .9rem; padding-bottom: .35rem; }
  td small { display: block; }
  td[style] { background-position: right 0 bottom 0; background-size: calc(var(--share) * .9) 3px; }
  header { position: relative; }
  header form { position: absolute; top: .3rem; right: 0; }
}
.hint { margin: 0 0 .75rem; color: var(--muted); }
.graph { position: relative; }
#flame { display: block; width: 100%; font-size: 12px; }
#flame svg { cursor: pointer; }
#flame rect { fill: hsl(var(--hue) var(--box-s) var(--box-l)); stroke: var(--edge); stroke-width: 1px; }
#flame .plain rect { fill: var(--plain-box); }
#flame text { fill: var(--ink); pointer-events: none; }
#flame svg:hover rect { stroke: var(--ink); }
#flame .outer { opacity: .55; }
#detail { position: sticky; bottom: 0; margin: .75rem 0 0; padding: .6rem 0; min-height: 3.6rem;
  background: var(--ground); border-top: 1px solid var(--line); overflow-wrap: anywhere; }
"""
