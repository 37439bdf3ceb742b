"""Weight elements a second against size: a line a provider, with the band between the quartiles of the repetitions.

Elements, not bytes: a provider that reads a weight of 16 bits moves four times the bytes for the same work, so more bytes a
second do not mean that it is faster.
"""

from matplotlib.ticker import LogLocator

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import Benchmark, Session
from reports.selection import SIZE_KEYS, comparable, describe, own_provider, remainder, title, variants
from reports.statistics import bytes_per_run, counter, median, quartiles
from reports.style import GREY, Palette, new_figure, shorten, spread

MOST_PANELS = 6


def draw(session: Session, palette: Palette) -> Drawing | None:
    rows = [row for row in comparable(session) if elements(row)]
    groups = variants(rows, "provider", *SIZE_KEYS)
    panels = sorted((v for v in groups if _sizes(groups[v]) > 1), key=lambda v: -len(groups[v]))
    if not panels:
        return None
    shown = panels[:MOST_PANELS]
    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    figure = new_figure(9.5, 1.5 + 3.0 * lines)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, variant in zip(grid.flat, shown):
        _draw_panel(axes, variant, groups[variant], session, palette)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    heading, reading = _findings(session, [row for v in panels for row in groups[v]], len(panels) - len(shown))
    return Drawing(
        figure,
        heading,
        reading,
        (
            "benchmark",
            "provider",
            "elements",
            "first_quartile_elements_per_second",
            "median_elements_per_second",
            "third_quartile_elements_per_second",
            "repetitions",
        ),
        [(row.name, row.provider, elements(row), *_speed(row), len(row.seconds)) for v in panels for row in groups[v]],
        session.contexts,
    )


def elements(row: Benchmark) -> int | None:
    """Elements of the weight that one run works on: n times k, or the keys elements or size."""
    n, k = row.integer("n"), row.integer("k")
    return n * k if n and k else row.integer("elements") or row.integer("size")


def _sizes(rows: list[Benchmark]) -> int:
    return len({elements(row) for row in rows})


def _speed(row: Benchmark) -> tuple[float, float, float]:
    """First quartile, median and third quartile of the elements a second."""
    low, middle, high = quartiles(row.seconds)
    return elements(row) / high, elements(row) / middle, elements(row) / low


def _draw_panel(axes, variant: tuple, rows: list[Benchmark], session: Session, palette: Palette) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=5))
    tops = [_speed(row)[2] for row in rows]
    roof = _roof(session, rows)
    axes.set_ylim(0, 1.12 * max(tops + [speed for _, speed in roof]))
    ends = []
    for provider in sorted({row.provider for row in rows}):
        line = sorted((row for row in rows if row.provider == provider), key=lambda row: (elements(row), row.name))
        x = [elements(row) for row in line]
        low, middle, high = zip(*map(_speed, line))
        colour = palette.colour(provider)
        axes.fill_between(x, low, high, color=colour, alpha=0.22, linewidth=0)
        axes.plot(x, middle, color=colour, marker=palette.marker(provider), markersize=4)
        ends.append((x[-1], middle[-1], provider, colour))
    if roof:
        axes.plot([x for x, _ in roof], [speed for _, speed in roof], color=GREY, linewidth=1, linestyle="--")
        ends.append((*roof[-1], f"limit of {own_provider(session)}", GREY))
    _label_ends(axes, ends, axes.get_ylim()[1])
    axes.set_title(shorten(title(variant), 58))
    axes.set_xlabel("elements of the weight")
    axes.set_ylabel("weight elements/s")
    axes.xaxis.set_major_formatter(lambda value, _: units.tick(units.rate(value, "")))
    axes.yaxis.set_major_formatter(lambda value, _: units.tick(units.rate(value, "/s")))
    axes.tick_params(axis="x", labelsize=8)


def _roof(session: Session, rows: list[Benchmark]) -> list[tuple[int, float]]:
    """For each size the elements a second that the measured copy and matrix product allow the own provider, by the bytes and
    operations that it counts."""
    copy, product = session.ceiling("copy_bytes_per_second"), session.ceiling("product_flops_per_second")
    found = {}
    for row in rows:
        moved, speed = bytes_per_run(row), counter(row, "flops_per_second")
        if row.provider == own_provider(session) and copy and moved:
            limits = [copy * elements(row) / moved]
            limits += [product * elements(row) / (speed * median(row.seconds))] if product and speed else []
            found[elements(row)] = min(limits)
    return sorted(found.items())


def _label_ends(axes, ends: list[tuple], top: float) -> None:
    """Each line's provider at its right end, moved apart where lines end close to each other."""
    heights = spread([end[1] for end in ends], 0.085 * top)
    for (x, _, provider, colour), height in zip(ends, heights):
        axes.annotate(
            shorten(provider, 24),
            (x, height),
            (7, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=8,
            fontweight="bold",
            annotation_clip=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )
    axes.margins(x=0.06)


def _findings(session: Session, rows: list[Benchmark], left_out: int) -> tuple[str, str]:
    """The own provider beside the fastest other one at the same problem, over everything drawn: best and worst."""
    own = own_provider(session)
    best_other: dict[tuple, Benchmark] = {}
    for row in rows:
        problem = (row.stem, frozenset(row.without("provider")))
        if row.provider != own and (problem not in best_other or _speed(row)[1] > _speed(best_other[problem])[1]):
            best_other[problem] = row
    pairs = [
        (_speed(row)[1] / _speed(other)[1], row, other)
        for row in rows
        if row.provider == own and (other := best_other.get((row.stem, frozenset(row.without("provider")))))
    ]
    if not pairs:
        fastest = max(rows, key=lambda row: _speed(row)[1])
        speed = units.rate(_speed(fastest)[1], "")
        heading = f"{fastest.stem} ({fastest.provider}) works on {speed} weight elements/s at best"
        return heading, f"{heading} ({title((fastest.stem, *fastest.without('provider')))}). {BAND}" + remainder(left_out, "variant")
    ratios = [ratio for ratio, _, _ in pairs]
    worst, slowest, other = min(pairs, key=lambda pair: pair[0])
    slower = sum(ratio < 1 for ratio in ratios)
    heading = (
        f"{own} is {units.times(worst)} to {units.times(max(ratios))} as fast as the fastest other one, "
        f"slower in {slower} of {len(ratios)} problems"
    )
    reading = (
        f"Over {len(ratios)} problems {own} works on {units.times(median(ratios))} the weight elements a second of the fastest "
        f"other provider (median); the worst is {units.times(worst)} of {other.provider} "
        f"({slowest.stem}, {describe(slowest.without('provider'))}). {BAND}"
    )
    return heading, reading + remainder(left_out, "variant")


BAND = "Bands are the quartiles of the repetitions; dashed is what the measured copy and matrix product allow."

FIGURE = FigureKind(
    "throughput",
    "Weight elements a second against size",
    "From which size on is a kernel as fast as the hardware allows, and who is faster?",
    "benchmark results at two sizes or more (keys n and k, elements or size)",
    lambda results: results.sessions,
    draw,
)
