"""Sample distribution and drift: whether the repetitions of a benchmark can be trusted."""

import numpy as np

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import Benchmark, Session
from reports.selection import short_names
from reports.statistics import median, quartiles
from reports.style import FAINT, GREY, LINES, Palette, new_figure, shorten

FEWEST_REPETITIONS = 5
SHOWN = 4  # benchmarks drawn in colour; the rest stays grey


def draw(session: Session, _: Palette) -> Drawing | None:
    rows = [row for row in session.benchmarks if len(row.seconds) >= FEWEST_REPETITIONS]
    if not rows:
        return None
    rows.sort(key=spread, reverse=True)
    figure = new_figure(9.5, 5.2)
    panels = figure.subplot_mosaic([["left", "right"], ["names", "names"]], height_ratios=[5, 1])
    left, right = panels["left"], panels["right"]
    for row in rows[SHOWN:]:
        _draw(left, right, row, {"color": FAINT, "linewidth": 0.9, "zorder": 1})
    names, common = short_names([row.name for row in rows[:SHOWN]])
    for index, row in enumerate(rows[:SHOWN]):
        style = {"color": LINES[index][0], "linestyle": LINES[index][1], "linewidth": 1.5}
        _draw(left, right, row, {**style, "label": f"{shorten(names[index], 90)}: {_percentages(row)}"})
    others = f"; the other {len(rows) - SHOWN} grey" if len(rows) > SHOWN else ""
    left.set(xlabel="time / median − 1 (%)", ylabel="share of repetitions (%)", ylim=(0, 100))
    left.set_title(f"distribution of repetitions (widest {min(SHOWN, len(rows))} in colour{others})", fontsize=8.5)
    right.axhline(0.0, color=GREY, linewidth=0.8)
    right.set(xlabel="repetition (in the order they ran)", ylabel="time / median − 1 (%)")
    right.set_title("drift", fontsize=8.5)
    panels["names"].set_axis_off()
    shared = f"in colour: {shorten(common, 130)}" if common else None
    panels["names"].legend(
        *left.get_legend_handles_labels(),
        loc="upper left",
        fontsize=7.5,
        borderpad=0,
        title=shared,
        title_fontsize=7.5,
        alignment="left",
    )
    title, reading = _findings(rows)
    return Drawing(
        figure,
        title,
        reading,
        ("benchmark", "repetition", "seconds", "relative_to_median"),
        [(row.name, i, s, s / median(row.seconds)) for row in rows for i, s in enumerate(row.seconds)],
        session.contexts,
    )


def spread(row: Benchmark) -> float:
    """Interquartile range over the median."""
    low, middle, high = quartiles(row.seconds)
    return (high - low) / middle


def drift(row: Benchmark) -> float:
    """How much longer the second half of the repetitions took than the first, by their medians."""
    half = len(row.seconds) // 2
    return median(row.seconds[-half:]) / median(row.seconds[:half]) - 1.0


def _percentages(row: Benchmark) -> str:
    return f"spread {units.percent(spread(row))}, drift {units.signed_percent(drift(row))}"


def _draw(left, right, row: Benchmark, style: dict) -> None:
    deviations = 100.0 * (np.array(row.seconds) / median(row.seconds) - 1.0)
    ordered = np.sort(deviations)
    shares = np.linspace(0.0, 100.0, len(ordered) + 1)
    left.step(np.concatenate([[ordered[0]], ordered]), shares, where="post", **style)
    right.plot(np.arange(1, len(deviations) + 1), deviations, **style)


def _findings(rows: list[Benchmark]) -> tuple[str, str]:
    middle = median([spread(row) for row in rows])
    widest, drifting = rows[0], max(rows, key=lambda row: abs(drift(row)))
    title = f"Repetitions spread by {units.percent(middle)} (median), at most by {units.percent(spread(widest))}"
    reading = (
        f"Over {len(rows)} benchmarks the interquartile range of the repetitions is {units.percent(middle)} of their "
        f"median (the middle one), {units.percent(spread(widest))} at most ({widest.name}), and the largest drift "
        f"between first and second half is {units.signed_percent(drift(drifting))} ({drifting.name})."
    )
    return title, reading


FIGURE = FigureKind(
    "samples",
    "Sample distribution and drift",
    "Can the repetitions be trusted?",
    f"benchmark results with at least {FEWEST_REPETITIONS} raw repetitions",
    lambda results: results.sessions,
    draw,
)
