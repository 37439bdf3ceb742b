"""Percent of ceiling by kernel: a dot a measurement, a bar at the median, of the ceiling that is nearer."""

from collections import defaultdict

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import Benchmark, Session
from reports.selection import comparable, own_provider, remainder
from reports.statistics import counter, median
from reports.style import GREY, INK, Palette, new_figure, shorten

MOST_ROWS = 40

# fraction counter, rate counter, ceiling in the context, what to call it
CEILINGS = (
    ("copy_fraction", "bytes_per_second", "copy_bytes_per_second", "copy"),
    ("product_fraction", "flops_per_second", "product_flops_per_second", "matrix product"),
)


def draw(session: Session, palette: Palette) -> Drawing | None:
    measured = [(row, *nearest) for row in comparable(session) if (nearest := nearest_ceiling(session, row))]
    if not measured:
        return None
    groups: dict[tuple[str, str], list] = defaultdict(list)
    own = own_provider(session)
    for entry in sorted(measured, key=lambda e: (e[0].stem, e[0].provider != own, e[0].provider)):
        groups[(entry[0].stem, entry[0].provider)].append(entry)
    names = list(groups)[:MOST_ROWS][::-1]
    figure = new_figure(9.5, 1.6 + 0.44 * len(names))
    axes = figure.subplots()
    for height, name in enumerate(names):
        _draw_row(axes, height, groups[name], palette.colour(name[1]))
    axes.axvline(1.0, color=GREY, linewidth=1, linestyle="--")
    axes.set_xlim(0, max(1.12, 1.12 * max(fraction for _, _, fraction in measured)))
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_yticks(range(len(names)), [shorten(f"{stem} ({provider})", 48) for stem, provider in names])
    for tick, (_, provider) in zip(axes.get_yticklabels(), names):
        tick.set_color(palette.colour(provider))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of the nearer measured ceiling (%): ● copy   ◇ matrix product   │ median")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    title, reading = _findings(session, groups)
    reading += remainder(len(groups) - len(names), "kernel")
    return Drawing(
        figure,
        title,
        reading,
        ("benchmark", "provider", "ceiling", "fraction"),
        [(row.name, row.provider, ceiling, fraction) for row, ceiling, fraction in measured],
        session.contexts,
    )


def nearest_ceiling(session: Session, row: Benchmark) -> tuple[str, float] | None:
    """The ceiling this benchmark is nearest to and the fraction of it: the recorded counter, else rate / ceiling."""
    found = []
    for fraction_key, rate_key, ceiling_key, name in CEILINGS:
        fraction, rate, ceiling = counter(row, fraction_key), counter(row, rate_key), session.ceiling(ceiling_key)
        if fraction or (rate and ceiling):
            found.append((name, fraction or rate / ceiling))
    return max(found, key=lambda pair: pair[1], default=None)


def _draw_row(axes, height: int, entries: list, colour: str) -> None:
    middle = median([fraction for _, _, fraction in entries])
    axes.barh(height, middle, height=0.62, color=colour, alpha=0.18)
    axes.plot([middle, middle], [height - 0.31, height + 0.31], color=colour, linewidth=2.5, solid_capstyle="butt")
    for _, ceiling, fraction in entries:
        is_copy = ceiling == "copy"
        axes.plot(
            fraction,
            height,
            "o" if is_copy else "D",
            color=colour if is_copy else "white",
            markeredgecolor=colour,
            markersize=5,
            alpha=0.8,
        )
    axes.annotate(
        units.percent(middle),
        (middle, height + 0.31),
        (0, 2),
        textcoords="offset points",
        ha="center",
        color=INK,
        fontsize=7.5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
    )


def _findings(session: Session, groups: dict) -> tuple[str, str]:
    own = own_provider(session)
    middles = {name: median([entry[2] for entry in group]) for name, group in groups.items()}
    ours = {name: value for name, value in middles.items() if name[1] == own} or middles
    best, worst = max(ours, key=ours.get), min(ours, key=ours.get)
    title = f"{best[1]}: at the median of its shapes {best[0]} uses {units.percent(ours[best])} of its ceiling"
    if best == worst:
        return title, f"{title}."
    title += f", {worst[0]} only {units.percent(ours[worst])}"
    reading = (
        f"At the median of its shapes {best[0]} of {best[1]} uses {units.percent(ours[best])} of the nearer measured "
        f"ceiling, the most of {len(ours)} kernels; {worst[0]} has the most room with {units.percent(ours[worst])}."
    )
    return title, reading


FIGURE = FigureKind(
    "ceilings",
    "Percent of ceiling by kernel",
    "Which kernels have room left?",
    "benchmark results with copy_fraction or product_fraction, or with the ceilings in the context",
    lambda results: results.sessions,
    draw,
)
