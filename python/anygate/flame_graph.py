"""The profile as a flame graph: callers above, callees below, as wide as their share of the time.

A profile knows for each function what it cost per caller, but no whole call stacks. Where a function has several
callers, the time of its callees is therefore divided among them in proportion to the time that it took for each.
"""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass

from anygate import profile_page
from anygate.profile_figures import Figures, Function, Row
from anygate.profile_page import duration, name_of, place_of, text_of

SHARE_MIN = 0.001
# Each level has at most 1/SHARE_MIN boxes. This bounds the page where a program is also very deep.
BOXES_MAX = 10_000
_BOX_HEIGHT = 22


@dataclass(frozen=True)
class Box:
    """One function under one chain of callers; ``left`` and ``width`` are shares of the total time."""

    function: Function | None
    depth: int
    left: float
    width: float
    seconds: float
    above: frozenset[Function]


def boxes(figures: Figures) -> list[Box]:
    """Lay out the graph. The first box is the whole; there are none when no time was measured."""
    callees: dict[Function, list[tuple[Function, float]]] = {}
    roots = []
    for row in figures.rows.values():
        for caller, edge in row.callers.items():
            callees.setdefault(caller, []).append((row.function, edge.cumulative_seconds))
        seconds = _root_seconds(row)
        if seconds > 0:
            roots.append((row.function, seconds))
    total = sum(seconds for _, seconds in roots)
    if total <= 0:
        return []
    laid: list[Box] = []
    waiting = deque([Box(None, 0, 0.0, 1.0, total, frozenset())])
    while waiting and len(laid) < BOXES_MAX:
        box = waiting.popleft()
        laid.append(box)
        if box.function is None:
            parts, scale = roots, 1.0
        else:
            whole = figures.rows[box.function].cumulative_seconds if box.function in figures.rows else 0.0
            # Recursion is cut: a function that is among its own callers is drawn only once.
            parts = [part for part in callees.get(box.function, []) if part[0] not in box.above]
            # The edges of recursive functions may add up to more than the function itself.
            whole = max(whole, sum(seconds for _, seconds in parts))
            scale = box.seconds / whole if whole > 0 else 0.0
        left = box.left
        for function, seconds in sorted(parts, key=lambda part: (-part[1], part[0])):
            width = seconds * scale / total
            if width < SHARE_MIN:
                break
            waiting.append(Box(function, box.depth + 1, left, width, seconds * scale, box.above | {function}))
            left += width
    return laid


def page(figures: Figures, view: profile_page.View) -> str:
    """Return the page with the flame graph."""
    laid = boxes(figures)
    if not laid:
        return profile_page.shell("Flame graph", figures, view, profile_page.EMPTY)
    content = (
        '<p class="hint">Select a box to zoom in, the top one to zoom out.</p>\n'
        f'{svg(laid, figures.requests)}\n<p id="detail" aria-live="polite"></p>\n<script>{_SCRIPT}</script>'
    )
    return profile_page.shell("Flame graph", figures, view, content)


def svg(laid: list[Box], requests: int) -> str:
    """Return the graph as an SVG element, which is valid XML too.

    Every box is an element ``svg`` of its own, placed in per cent: so the graph fits any width without stretching the
    text, and each text ends where its box does.
    """
    height = (max(box.depth for box in laid) + 1) * _BOX_HEIGHT
    parts = [f'<svg id="flame" height="{height}" role="img" aria-label="Flame graph">']
    parts += [_box(box, requests) for box in laid]
    parts.append("</svg>")
    return "\n".join(parts)


def _root_seconds(row: Row) -> float:
    """Return the time that a function took when nothing profiled called it.

    That is all of it for most roots. But what a server calls in one request another function may call in the next, and
    a recursive function is its own caller.
    """
    others = [edge for caller, edge in row.callers.items() if caller != row.function]
    if row.calls <= sum(edge.calls for edge in row.callers.values()):
        return 0.0
    return max(0.0, row.cumulative_seconds - sum(edge.cumulative_seconds for edge in others))


def _box(box: Box, requests: int) -> str:
    share = f"{duration(box.seconds)}, {box.width:.1%}"
    if box.function is None:
        name, title, look = "all requests", f"all requests ({requests:,}) \N{MIDDLE DOT} {share}", 'class="plain"'
    else:
        name = name_of(box.function)
        title = f"{name} \N{MIDDLE DOT} {place_of(box.function)} \N{MIDDLE DOT} {share}"
        # Functions of one file have one colour, between red and yellow.
        hue = zlib.crc32(box.function[0].encode("utf-8", "replace")) % 12 * 4 + 8
        look = 'class="plain"' if box.function[0] == "~" else f'style="--hue:{hue}"'
    return (
        f'<svg x="{box.left:.7%}" y="{box.depth * _BOX_HEIGHT}" width="{box.width:.7%}" height="{_BOX_HEIGHT}" {look}>'
        f'<title>{text_of(title)}</title><rect width="100%" height="100%" rx="2"/>'
        f'<text x="5" y="15">{text_of(name)}</text></svg>'
    )


# Without the script the graph is complete but cannot be zoomed.
_SCRIPT = """
(() => {
  const graph = document.getElementById("flame"), detail = document.getElementById("detail");
  const boxes = [...graph.children].map(element => ({
    element, text: element.querySelector("text"), title: element.querySelector("title").textContent,
    left: parseFloat(element.getAttribute("x")) / 100, width: parseFloat(element.getAttribute("width")) / 100,
    y: +element.getAttribute("y"),
  }));
  let zoomed = boxes[0];
  const draw = () => {
    const pixels = graph.clientWidth;
    for (const box of boxes) {
      const left = Math.max(0, (box.left - zoomed.left) / zoomed.width);
      const right = Math.min(1, (box.left + box.width - zoomed.left) / zoomed.width);
      const shown = right - left > 1e-5;
      box.element.style.display = shown ? "" : "none";
      if (!shown) continue;
      box.element.setAttribute("x", left * 100 + "%");
      box.element.setAttribute("width", (right - left) * 100 + "%");
      box.element.classList.toggle("outer", box.y < zoomed.y);
      box.text.style.display = (right - left) * pixels < 24 ? "none" : "";
    }
  };
  const of = event => boxes.find(box => box.element === event.target.closest("#flame > svg"));
  const tell = box => { detail.textContent = box.title; };
  graph.addEventListener("click", event => {
    const box = of(event);
    if (!box) return;
    zoomed = box;
    tell(box);
    draw();
  });
  graph.addEventListener("mouseover", event => { const box = of(event); if (box) tell(box); });
  graph.addEventListener("mouseleave", () => tell(zoomed));
  addEventListener("keydown", event => {
    if (event.key === "Escape") { zoomed = boxes[0]; tell(zoomed); draw(); }
  });
  addEventListener("resize", draw);
  tell(zoomed);
  draw();
})();
"""
