"""Bandwidth against size: a line a provider, with the band between the quartiles of the repetitions."""

from matplotlib.ticker import LogLocator

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import Benchmark, Session
from reports.selection import SIZE_KEYS, comparable, own_provider, remainder, title, variants
from reports.statistics import bytes_per_run, quartiles
from reports.style import GREY, Palette, new_figure, shorten, spread

MOST_PANELS = 6


def draw(session: Session, palette: Palette) -> Drawing | None:
    rows = [row for row in comparable(session) if bytes_per_run(row)]
    groups = variants(rows, "provider", *SIZE_KEYS)
    panels = sorted((v for v in groups if _sizes(groups[v]) > 1), key=lambda v: -len(groups[v]))
    if not panels:
        return None
    shown = panels[:MOST_PANELS]
    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    figure = new_figure(9.5, 1.3 + 3.0 * lines)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, variant in zip(grid.flat, shown):
        _draw_panel(axes, variant, groups[variant], session, palette)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    heading, reading = _findings(session, groups[shown[0]], shown[0], len(panels) - len(shown))
    return Drawing(
        figure,
        heading,
        reading,
        (
            "benchmark",
            "provider",
            "bytes_per_run",
            "first_quartile_bytes_per_second",
            "median_bytes_per_second",
            "third_quartile_bytes_per_second",
            "repetitions",
        ),
        [(row.name, row.provider, bytes_per_run(row), *_bandwidth(row), len(row.seconds)) for row in rows],
        session.contexts,
    )


def _sizes(rows: list[Benchmark]) -> int:
    return len({row.without("provider") for row in rows})


def _bandwidth(row: Benchmark) -> tuple[float, float, float]:
    return quartiles(row.counters["bytes_per_second"])


def _draw_panel(axes, variant: tuple, rows: list[Benchmark], session: Session, palette: Palette) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=5))
    copy = session.ceiling("copy_bytes_per_second")
    tops = [_bandwidth(row)[2] for row in rows] + ([copy] if copy else [])
    axes.set_ylim(0, 1.12 * max(tops))
    ends = []
    for provider in sorted({row.provider for row in rows}):
        line = sorted((row for row in rows if row.provider == provider), key=bytes_per_run)
        x = [bytes_per_run(row) for row in line]
        low, middle, high = zip(*map(_bandwidth, line))
        colour = palette.colour(provider)
        axes.fill_between(x, low, high, color=colour, alpha=0.22, linewidth=0)
        axes.plot(x, middle, color=colour, marker=palette.marker(provider), markersize=4)
        ends.append((x[-1], middle[-1], provider, colour))
    if copy:
        axes.axhline(copy, color=GREY, linewidth=1, linestyle="--")
        axes.annotate(
            f"measured copy {units.rate(copy, 'B/s')}",
            (0.01, copy),
            (0, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=GREY,
            fontsize=8,
        )
    _label_ends(axes, ends, max(tops))
    axes.set_title(shorten(title(variant), 64))
    axes.set_xlabel("bytes moved per run (binary units)")
    axes.set_ylabel("bandwidth (decimal B/s)")
    axes.xaxis.set_major_formatter(lambda value, _: units.tick(units.binary_bytes(value)))
    axes.yaxis.set_major_formatter(lambda value, _: units.tick(units.rate(value, "B/s")))
    axes.tick_params(axis="x", labelsize=8)


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
            fontsize=8.5,
            fontweight="bold",
            annotation_clip=False,
        )
    axes.margins(x=0.06)


def _findings(session: Session, rows: list[Benchmark], variant: tuple, left_out: int) -> tuple[str, str]:
    """About the largest size of the first panel."""
    own = own_provider(session)
    largest = max((row for row in rows if row.provider == own), key=bytes_per_run, default=None)
    largest = largest or max(rows, key=bytes_per_run)
    speed = _bandwidth(largest)[1]
    peers = [row for row in rows if row.without("provider") == largest.without("provider") and row is not largest]
    heading = f"{largest.stem}: {largest.provider} moves {units.rate(speed, 'B/s')} at the largest size"
    reading = f"{heading} ({units.binary_bytes(bytes_per_run(largest))} per run; {title(variant)})"
    if peers:
        best = max(peers, key=lambda row: _bandwidth(row)[1])
        heading += f", {units.times(speed / _bandwidth(best)[1])} the speed of {best.provider}"
        reading += f", {units.times(speed / _bandwidth(best)[1])} what {best.provider} reaches there"
    copy = session.ceiling("copy_bytes_per_second")
    reading += f" and {units.percent(speed / copy)} of a measured copy." if copy else "."
    return heading, reading + remainder(left_out, "variant")


FIGURE = FigureKind(
    "bandwidth",
    "Bandwidth against size",
    "From which size on does a kernel use the memory's speed?",
    "benchmark results with bytes_per_second at two sizes or more",
    lambda results: results.sessions,
    draw,
)
