"""Speed-up over shapes: a heat map a kernel and peer, diverging around 1, the ratio written in every cell."""

import numpy as np
from matplotlib.colors import TwoSlopeNorm

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import Benchmark, Session
from reports.selection import comparable, describe, own_provider, remainder
from reports.statistics import geometric_mean, median
from reports.style import INK, Palette, new_figure, shorten

MOST_PANELS = 6
WIDEST_LABELS = 100  # characters that fit below a panel in the larger type
STRONGEST = 2.0  # log2 of the speed-up at which the colour stops growing: 4x
MOST_LINES, MOST_COLUMNS = 30, 14  # of a panel; the rest is in the CSV
SHAPE_KEYS = ("n", "k")


def draw(session: Session, palette: Palette) -> Drawing | None:
    own = own_provider(session)
    pairs = _pairs(comparable(session), own)
    if not pairs:
        return None
    panels = sorted(pairs, key=lambda panel: -len(pairs[panel]))
    shown = panels[:MOST_PANELS]
    tables = [_table(pairs[panel]) for panel in shown]
    figure = new_figure(9.5, 1.5 + sum(1.2 + 0.34 * len(lines) for lines, _, _ in tables))
    grid = figure.subplots(len(shown), 1, squeeze=False, height_ratios=[3 + len(t[0]) for t in tables])
    norm = _norm([ratio for panel in shown for *_, ratio in pairs[panel]])
    for axes, panel, table in zip(grid.flat, shown, tables):
        image = _draw_panel(axes, f"{panel[0]}: time of {panel[1]} / time of {own}", table, norm)
    _colour_bar(figure, grid, image, own)
    title, reading = _findings(own, pairs, len(panels) - len(shown))
    return Drawing(
        figure,
        title,
        reading,
        ("benchmark", "own_provider", "peer", "own_seconds", "peer_seconds", "speed_up"),
        [
            (mine.name, own, peer, median(mine.seconds), median(mine.seconds) * ratio, ratio)
            for (_, peer), cells in pairs.items()
            for mine, ratio in cells
        ],
        session.contexts,
    )


def _pairs(rows: list[Benchmark], own: str) -> dict[tuple[str, str], list[tuple[Benchmark, float]]]:
    """For each (stem, peer): own benchmarks that the peer ran too, with time of the peer / own time."""
    mine = {(row.stem, frozenset(row.without("provider"))): row for row in rows if row.provider == own}
    pairs: dict[tuple[str, str], list] = {}
    for row in rows:
        match = mine.get((row.stem, frozenset(row.without("provider"))))
        if match and row.provider != own:
            ratio = median(row.seconds) / median(match.seconds)
            pairs.setdefault((row.stem, row.provider), []).append((match, ratio))
    return pairs


def _table(cells: list[tuple[Benchmark, float]]) -> tuple[list[str], list[str], np.ndarray]:
    """Shapes down, the other keys that vary across; NaN where there is no measurement."""
    values: dict[str, set] = {}
    for row, _ in cells:
        for key, value in row.without("provider"):
            values.setdefault(key, set()).add(value)
    varying = [key for key in values if len(values[key]) > 1]
    shape_keys = [key for key in SHAPE_KEYS if key in values] or varying[:1]
    across = [key for key in varying if key not in shape_keys]
    placed = {(_shape(row, shape_keys), _other(row, across)): ratio for row, ratio in cells}
    lines = sorted({place[0] for place in placed}, key=_natural)[:MOST_LINES]
    columns = sorted({place[1] for place in placed}, key=_natural)[:MOST_COLUMNS]
    table = np.array([[placed.get((line, column), np.nan) for column in columns] for line in lines])
    return lines, columns, table


def _shape(row: Benchmark, keys: list[str]) -> str:
    if tuple(keys) == SHAPE_KEYS:
        return f"{row.keys.get('n', '?')} × {row.keys.get('k', '?')}"
    return describe(tuple((key, row.keys.get(key, "?")) for key in keys)) or row.stem


def _other(row: Benchmark, keys: list[str]) -> str:
    return "\n".join(shorten(f"{key} {row.keys.get(key, '?')}", 24) for key in keys)


def _natural(text: str) -> list:
    """A sorting key that compares the numbers in a text as numbers."""
    words = text.replace("\n", " ").split()
    return [(0, int(word), "") if word.isascii() and word.isdecimal() else (1, 0, word) for word in words]


def _norm(ratios: list[float]) -> TwoSlopeNorm:
    """Colours by log2 of the ratio, the same reach on both sides of 1, so that one giant does not pale the rest."""
    reach = min(STRONGEST, max(0.25, max(abs(float(np.log2(ratio))) for ratio in ratios)))
    return TwoSlopeNorm(0.0, -reach, reach)


def _draw_panel(axes, title: str, table: tuple, norm: TwoSlopeNorm):
    lines, columns, ratios = table
    image = axes.imshow(np.log2(ratios), cmap="PuOr_r", norm=norm, aspect="auto")
    for (line, column), ratio in np.ndenumerate(ratios):
        if np.isnan(ratio):  # nobody measured it: the cell stays empty
            continue
        strong = abs(norm(np.log2(ratio)) - 0.5) > 0.36
        axes.text(
            column, line, units.times(ratio), ha="center", va="center", color="white" if strong else INK, fontsize=8.5
        )
    longest = max(len(line) for column in columns for line in column.split("\n"))
    axes.set_xticks(range(len(columns)), columns, fontsize=8 if longest * len(columns) <= WIDEST_LABELS else 6)
    axes.set_yticks(range(len(lines)), [shorten(line, 40) for line in lines], fontsize=8)
    axes.set_ylabel("shape (n × k)" if "×" in "".join(lines) else "variant")
    axes.set_title(shorten(title, 90))
    axes.grid(visible=False)
    return image


def _colour_bar(figure, grid, image, own: str) -> None:
    bar = figure.colorbar(image, ax=list(grid.flat), fraction=0.03, pad=0.01, extend="both")
    bar.set_label(f"speed-up of {shorten(own, 24)} (ratio of median times)")
    low, high = image.norm.vmin, image.norm.vmax
    bar.set_ticks([low, low / 2, 0.0, high / 2, high])
    bar.ax.set_yticklabels([units.times(2.0**tick) for tick in (low, low / 2, 0.0, high / 2, high)])


def _findings(own: str, pairs: dict, left_out: int) -> tuple[str, str]:
    stem, peer = max(pairs, key=lambda panel: len(pairs[panel]))
    cells = pairs[(stem, peer)]
    mean = geometric_mean([ratio for _, ratio in cells])
    slower = sum(ratio < 1.0 for pair in pairs.values() for _, ratio in pair)
    total = sum(len(pair) for pair in pairs.values())
    title = f"{stem}: {own} runs at {units.times(mean)} the speed of {peer}; slower in {slower} of {total} cells of all kernels"
    worst, ratio = min(cells, key=lambda cell: cell[1])
    reading = (
        f"Over {len(cells)} shapes of {stem}, {own} runs at {units.times(mean)} the speed of {peer} (geometric mean), "
        f"at worst {units.times(ratio)} ({describe(worst.without('provider'))}); over all kernels and peers it is "
        f"slower in {slower} of {total} cells."
    )
    return title, reading + remainder(left_out, "pair")


FIGURE = FigureKind(
    "speedup",
    "Speed-up over shapes",
    "Where is it faster than the others, and where slower?",
    "benchmark results of two providers that ran the same stem and keys",
    lambda results: results.sessions,
    draw,
)
