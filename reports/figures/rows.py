"""Time against rows: for each peer, own time over the peer's, one line a shape; above 1 lies a hole."""

import numpy as np

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import Benchmark, Session
from reports.selection import comparable, describe, own_provider, remainder
from reports.statistics import median
from reports.style import CATEGORIES, GREY, INK, MARKERS, Palette, new_figure, shorten, spread

LEAST_ROWS = 3  # numbers of rows that make a line
MOST_PANELS = 6
MOST_LINES = 18  # of a panel: those with the largest ratios; the rest is in the CSV
LINE_STYLES = ("-", "--")

# A point: the own benchmark, rows, the peer's time and own time over it.
Point = tuple[Benchmark, int, float, float]


def draw(session: Session, palette: Palette) -> Drawing | None:
    own = own_provider(session)
    panels = _panels(comparable(session), own)
    if not panels:
        return None
    order = sorted(panels, key=lambda panel: -sum(map(len, panels[panel].values())))
    shown = order[:MOST_PANELS]
    figure = new_figure(9.5, 0.9 + 3.6 * len(shown))
    grid = figure.subplots(len(shown), 1, squeeze=False)
    lines = sorted({key for panel in shown for key in panels[panel]})
    styles = {key: _style(i) for i, key in enumerate(lines)}  # a shape looks the same in every panel
    cut = sum(_draw_panel(axes, own, panel, panels[panel], styles) for axes, panel in zip(grid.flat, shown))
    title, reading = _findings(own, panels)
    return Drawing(
        figure,
        title,
        reading + remainder(len(order) - len(shown), "pair") + remainder(cut, "line"),
        ("benchmark", "own_provider", "peer", "rows", "own_seconds", "peer_seconds", "time_ratio"),
        [
            (row.name, own, peer, rows, median(row.seconds), seconds, ratio)
            for (_, peer), lines in panels.items()
            for points in lines.values()
            for row, rows, seconds, ratio in points
        ],
        session.contexts,
    )


def _panels(rows: list[Benchmark], own: str) -> dict[tuple[str, str], dict[tuple, list[Point]]]:
    """For each (stem, peer): the lines by their other keys, each with its points in the order of rows."""
    mine = {(row.stem, frozenset(row.without("provider"))): row for row in rows if row.provider == own}
    panels: dict[tuple[str, str], dict[tuple, list[Point]]] = {}
    for row in rows:
        match = mine.get((row.stem, frozenset(row.without("provider"))))
        count = row.keys.get("rows", "")
        if match is None or row.provider == own or not count.isdecimal():
            continue
        line = panels.setdefault((row.stem, row.provider), {}).setdefault(tuple(row.without("provider", "rows")), [])
        seconds = median(row.seconds)
        line.append((match, int(count), seconds, median(match.seconds) / seconds))
    for lines in panels.values():
        for key in [key for key, points in lines.items() if len({point[1] for point in points}) < LEAST_ROWS]:
            del lines[key]
        for points in lines.values():
            points.sort(key=lambda point: point[1])
    return {panel: lines for panel, lines in panels.items() if lines}


def _style(i: int) -> dict:
    return {
        "color": CATEGORIES[i % len(CATEGORIES)],
        "linestyle": LINE_STYLES[i // len(CATEGORIES) % len(LINE_STYLES)],
        "marker": MARKERS[i % len(MARKERS)],
    }


def _draw_panel(axes, own: str, panel: tuple[str, str], lines: dict[tuple, list[Point]], styles: dict) -> int:
    """Returns how many lines it had no room for."""
    worst_first = sorted(lines, key=lambda key: -max(point[3] for point in lines[key]))
    shown = worst_first[:MOST_LINES]
    everywhere = set.intersection(*(set(key) for key in shown))
    ends = []
    for key in shown:
        counts, ratios = [point[1] for point in lines[key]], [point[3] for point in lines[key]]
        axes.plot(counts, ratios, markersize=4, linewidth=1.3, **styles[key])
        holes = [(count, ratio) for count, ratio in zip(counts, ratios) if ratio > 1.0]
        axes.scatter(*zip(*holes), s=70, facecolors="none", edgecolors="#882255", linewidths=1.2) if holes else None
        ends.append((styles[key]["color"], counts[-1], ratios[-1], _label(key, everywhere)))
    every = [point for key in shown for point in lines[key]]
    low, high = min(0.9, min(point[3] for point in every)), max(1.1, max(point[3] for point in every))
    axes.set(xscale="log", yscale="log", ylim=(low / 1.08, high * 1.08))
    axes.axhline(1.0, color=INK, linewidth=1.0)
    axes.axhspan(1.0, high * 1.08, color="#882255", alpha=0.06, linewidth=0)
    ticks = sorted({point[1] for point in every})
    axes.set_xticks(_apart(ticks), [str(tick) for tick in _apart(ticks)], fontsize=8)
    axes.set_xticks([], minor=True)
    levels = [level for level in (0.05, 0.1, 0.2, 0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0) if low <= level <= high]
    axes.set_yticks(levels, [units.times(level) for level in levels], fontsize=8)
    axes.set_yticks([], minor=True)
    axes.set(xlabel="rows of the input", ylabel=f"time of {shorten(own, 14)} / {shorten(panel[1], 14)}")
    axes.set_title(shorten(f"{panel[0]}: time over that of {panel[1]}; circled: a hole, slower than {panel[1]}", 100))
    span = np.log(high * 1.08) - np.log(low / 1.08)
    places = spread([float(np.log(end[2])) for end in ends], span / 17)
    right = max(point[1] for point in every)
    for (colour, count, ratio, label), place in zip(ends, places):
        height = float(np.exp(place))
        axes.plot((count, right * 1.1), (ratio, height), color=GREY, linewidth=0.4, clip_on=False)
        axes.text(right * 1.12, height, label, fontsize=7.5, color=colour, va="center")
    axes.set_xlim(right=right * 1.1)
    return len(worst_first) - len(shown)


def _apart(ticks: list[int]) -> list[int]:
    """Those ticks that have room on a logarithmic axis, the larger of two neighbours."""
    kept: list[int] = []
    gap = (ticks[-1] / ticks[0]) ** (1 / 22)
    for tick in reversed(ticks):
        if not kept or kept[-1] / tick >= gap:
            kept.append(tick)
    return kept[::-1]


def _label(key: tuple, everywhere: set) -> str:
    keys = dict(key)
    shape = f"{keys.pop('n', '?')} × {keys.pop('k', '?')}"
    others = describe(tuple(pair for pair in keys.items() if pair not in everywhere))
    return shorten(f"{shape}{', ' + others if others else ''}", 34)


def _findings(own: str, panels: dict) -> tuple[str, str]:
    points = [(panel, point) for panel, lines in panels.items() for line in lines.values() for point in line]
    holes = [entry for entry in points if entry[1][3] > 1.0]
    (stem, peer), (row, _, _, ratio) = max(points, key=lambda entry: entry[1][3])
    title = f"{own} has {len(holes)} holes in {len(points)} points: at worst {units.times(ratio)} the time of {peer}"
    reading = (
        f"Of {len(points)} measured points, {len(holes)} are holes, where {own} takes longer than the peer; at worst it takes "
        f"{units.times(ratio)} the time of {peer} ({stem}: {describe(row.without('provider'))})."
    )
    return title, reading


FIGURE = FigureKind(
    "rows",
    "Time against rows",
    "At which rows and shapes is it slower than a peer?",
    "benchmark results of two providers with three numbers of rows (key `rows`) or more",
    lambda results: results.sessions,
    draw,
)
