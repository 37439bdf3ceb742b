"""A history as one SVG: a panel a benchmark, its values in order as shares of the first one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from .errors import one_line

WIDTH, PANEL, LEFT, RIGHT, TOP = 720, 90, 90, 110, 28
MOST_PANELS = 40


def trend_figure(entries: Sequence[dict[str, Any]]) -> str:
    """The picture as text; the same entries give the same bytes."""
    names = list(dict.fromkeys(name for entry in entries for name in entry["values"]))
    shown = names[:MOST_PANELS]
    height = TOP + PANEL * len(shown) + 30
    hidden = f"; {len(names) - len(shown)} more benchmarks are in the file" if len(names) > len(shown) else ""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="8" y="17" font-size="13">Candidate values, first entry = 100 %; {len(entries)} entries{hidden}</text>',
    ]
    for index, name in enumerate(shown):
        points = [(k, entry) for k, entry in enumerate(entries) if name in entry["values"]]
        parts += _panel(name, points, len(entries), TOP + PANEL * index)
    first, last = (one_line(entries[k]["label"], 24) for k in (0, -1)) if entries else ("", "")
    parts.append(f'<text x="{LEFT}" y="{height - 10}" fill="#555">{escape(first)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{height - 10}" fill="#555" text-anchor="end">{escape(last)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(name: str, points: list[tuple[int, dict[str, Any]]], count: int, top: int) -> list[str]:
    shares = [100 * entry["values"][name] / points[0][1]["values"][name] for _, entry in points]
    low, high = min(shares), max(shares)
    middle, reach = (low + high) / 2, max(high - low, 4.0) * 0.6
    step = (WIDTH - LEFT - RIGHT) / max(count - 1, 1)

    def place(k: int, share: float) -> tuple[float, float]:
        return LEFT + k * step, top + 18 + (PANEL - 30) * (0.5 - (share - middle) / (2 * reach))

    places = [place(k, share) for (k, _), share in zip(points, shares)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    x, y = places[-1]
    texts = [
        f'<text x="8" y="{top + 11}">{escape(one_line(name, 90))}</text>',
        f'<line x1="{LEFT}" y1="{top + PANEL - 8}" x2="{WIDTH - RIGHT}" y2="{top + PANEL - 8}" stroke="#ccc"/>',
        f'<polyline points="{line}" fill="none" stroke="#0072B2" stroke-width="1.5"/>',
        f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{shares[-1]:.1f} %</text>',
    ]
    for (_, before), (_, here), (px, py) in zip(points, points[1:], places[1:]):
        if before["machine"] != here["machine"]:  # values of two machines are not one trend
            texts.append(f'<line x1="{px:.1f}" y1="{top + 14}" x2="{px:.1f}" y2="{top + PANEL - 8}" stroke="#D55E00"/>')
    return texts + [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.5" fill="#0072B2"/>' for px, py in places]
