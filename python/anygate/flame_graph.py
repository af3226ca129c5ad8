"""The sampled call stacks as a flame graph: callers above, callees below, as wide as their share of the time."""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass

from anygate import profile_page
from anygate.profile_figures import Figures, Function
from anygate.profile_page import duration, name_of, place_of, text_of

SHARE_MIN = 0.001
# Each level has at most 1/SHARE_MIN boxes. This bounds the page where a program is also very deep.
BOXES_MAX = 10_000
_BOX_HEIGHT = 22
_NOT_SAMPLED = "<p>No call stack was sampled yet: the requests were too short. After some more there is a graph.</p>"


@dataclass(frozen=True)
class Box:
    """One function under one chain of callers; ``left`` and ``width`` are shares of the total time."""

    function: Function | None
    depth: int
    left: float
    width: float
    seconds: float


class _Node:
    """What was sampled below one chain of callers."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.callees: dict[Function, _Node] = {}


def boxes(figures: Figures) -> list[Box]:
    """Lay out the graph. The first box is the whole; there are none when nothing was sampled."""
    root = _Node()
    for stack, seconds in figures.stacks.items():
        node = root
        node.seconds += seconds
        for function in stack:
            node = node.callees.setdefault(function, _Node())
            node.seconds += seconds
    total = root.seconds
    if total <= 0:
        return []
    laid: list[Box] = []
    waiting = deque([(Box(None, 0, 0.0, 1.0, total), root)])
    while waiting and len(laid) < BOXES_MAX:
        box, node = waiting.popleft()
        laid.append(box)
        left = box.left
        for function, callee in sorted(node.callees.items(), key=lambda part: (-part[1].seconds, part[0])):
            width = callee.seconds / total
            if width < SHARE_MIN:
                break
            waiting.append((Box(function, box.depth + 1, left, width, callee.seconds), callee))
            left += width
    return laid


def page(figures: Figures, view: profile_page.View) -> str:
    """Return the page with the flame graph."""
    laid = boxes(figures)
    if not laid:
        return profile_page.shell("Flame graph", figures, view, _NOT_SAMPLED if figures.rows else profile_page.EMPTY)
    content = (
        '<p class="hint">Sampled call stacks. Select a box to zoom in, the top one to zoom out.</p>\n'
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
