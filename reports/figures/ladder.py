"""Teaching ladder: the versions of one kernel, step by step, each with the reason it is faster than the one before."""

import textwrap
from collections import defaultdict
from itertools import pairwise

from reports import units
from reports.figures.ceilings import nearest_ceiling
from reports.figures.drawing import Drawing, FigureKind
from reports.model import Benchmark, Session
from reports.selection import LADDER, describe
from reports.statistics import median
from reports.style import GREY, INK, Palette, new_figure, shorten

MOST_LADDERS, MOST_STEPS = 6, 16
NAMING_KEYS = ("provider", "step", "version")


def draw(session: Session, palette: Palette) -> Drawing | None:
    ladders = dict(list(_ladders(session).items())[:MOST_LADDERS])
    if not ladders:
        return None
    figure = new_figure(9.5, 1.5 + sum(0.9 + 0.5 * len(steps) for steps in ladders.values()))
    grid = figure.subplots(len(ladders), 1, squeeze=False, height_ratios=[2 + len(s) for s in ladders.values()])
    for axes, (stem, steps) in zip(grid.flat, ladders.items()):
        _draw_ladder(axes, stem, steps, _vendors(session, steps[0]), session, palette)
    title, reading = _findings(ladders)
    return Drawing(
        figure,
        title,
        reading,
        ("ladder", "step", "version", "median_seconds", "times_first_step", "ceiling", "fraction_of_ceiling", "reason"),
        [
            (
                stem,
                row.integer("step"),
                _version(row),
                median(row.seconds),
                median(steps[0].seconds) / median(row.seconds),
                *(nearest_ceiling(session, row) or ("", "")),
                row.label,
            )
            for stem, steps in ladders.items()
            for row in steps
        ],
        session.contexts,
    )


def _ladders(session: Session) -> dict[str, list[Benchmark]]:
    """For each ladder the steps in order, at the shape that takes the first step longest."""
    shapes: dict[tuple, list[Benchmark]] = defaultdict(list)
    for row in session.benchmarks:
        if row.stem.endswith(LADDER) and row.integer("step") is not None:
            shapes[(row.stem, row.without(*NAMING_KEYS))].append(row)
    ladders: dict[str, list[Benchmark]] = {}
    for (stem, _), rows in shapes.items():
        steps = sorted(rows, key=lambda row: row.integer("step"))[:MOST_STEPS]
        kept = ladders.get(stem)
        if kept is None or (len(steps), median(steps[0].seconds)) > (len(kept), median(kept[0].seconds)):
            ladders[stem] = steps
    return ladders


def _version(row: Benchmark) -> str:
    return row.keys.get("version", "").replace("_", " ")


def _vendors(session: Session, step: Benchmark) -> list[Benchmark]:
    """What providers reach in the benchmark of the ladder's name, at the ladder's shape."""
    stem, shape = step.stem.removesuffix(LADDER), step.without(*NAMING_KEYS)
    return [row for row in session.benchmarks if row.stem == stem and set(shape) <= set(row.without("provider"))]


def _draw_ladder(axes, stem: str, steps: list[Benchmark], vendors: list, session: Session, palette: Palette) -> None:
    """Bars on the left, what they say on the right, the speeds of whole providers as lines across."""
    first = median(steps[0].seconds)
    speeds = [first / median(row.seconds) for row in steps]
    heights = range(len(steps))[::-1]
    axes.barh(heights, speeds, height=0.6, color=palette.colour(steps[0].provider), alpha=0.55)
    for height, row, speed in zip(heights, steps, speeds):
        _annotate(axes, height, row, speed, session)
    fastest = {row.provider: row for row in sorted(vendors, key=lambda row: -median(row.seconds))}
    for provider, row in fastest.items():
        speed = first / median(row.seconds)
        label = f"{shorten(provider, 24)} as measured: {units.times(speed)}"
        axes.axvline(speed, color=palette.colour(provider), linewidth=1.4, linestyle="--", label=label)
    axes.set_yticks(heights, [f"{row.integer('step')}  {shorten(_version(row), 32)}" for row in steps])
    axes.set_ylim(-0.6, len(steps) - 0.3 + 0.5 * len(fastest))
    axes.set_xlim(0, 1.05 * max(speeds + [first / median(row.seconds) for row in vendors]))
    if fastest:
        axes.legend(loc="upper right", frameon=True, framealpha=1.0, edgecolor="none")
    axes.set_title(shorten(f"{stem}: {describe(steps[0].without(*NAMING_KEYS))}", 80))
    axes.set_xlabel("speed relative to the first step (×)")
    axes.grid(axis="y", visible=False)


def _annotate(axes, height: int, row: Benchmark, speed: float, session: Session) -> None:
    """To the right of the axes: speed, time and share of the ceiling, and below them the reason."""
    ceiling = nearest_ceiling(session, row)
    share = f" · {units.percent(ceiling[1])} of {ceiling[0]}" if ceiling else ""
    lines = [f"{units.times(speed)} · {units.seconds(median(row.seconds))}{share}"]
    lines += textwrap.wrap(shorten(row.label, 100), 46)
    for index, line in enumerate(lines):
        axes.annotate(
            line,
            (1.0, height),
            (10, 11 * (0.5 * (len(lines) - 1) - index)),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=GREY if index else INK,
            annotation_clip=False,
        )


def _findings(ladders: dict[str, list[Benchmark]]) -> tuple[str, str]:
    stem, steps = max(ladders.items(), key=lambda item: len(item[1]))
    times = [median(row.seconds) for row in steps]
    total = max(times[0] / time for time in times)
    title = f"{len(steps)} steps make {stem.removesuffix(LADDER)} {units.times(total)} as fast"
    if len(steps) == 1:
        return title, f"{title}: there is only one step so far."
    gains = [before / after for before, after in pairwise(times)]
    best = max(range(len(gains)), key=gains.__getitem__)
    row = steps[best + 1]
    reason = f" ({row.label})" if row.label else ""
    step = f"step {row.integer('step')}, {_version(row)}{reason}"
    reading = f"{title}; the largest single gain, {units.times(gains[best])}, comes with {step}."
    return title, reading


FIGURE = FigureKind(
    "ladder",
    "Teaching ladder",
    "Which idea makes the kernel how much faster?",
    "benchmark results whose stem ends in _ladder, with the keys step and version",
    lambda results: results.sessions,
    draw,
)
