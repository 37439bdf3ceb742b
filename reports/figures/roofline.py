"""Roofline: each kernel's speed against its arithmetic intensity, under the ceilings measured on the device."""

import numpy as np

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import Benchmark, Session
from reports.selection import comparable, describe, own_provider
from reports.statistics import counter
from reports.style import GREY, INK, MARKERS, Palette, new_figure, shorten

MOST_NAMES = 11  # of each legend: as many as there are shapes and colours


def draw(session: Session, palette: Palette) -> Drawing | None:
    rows = [row for row in comparable(session) if counter(row, "flops_per_second") and counter(row, "bytes_per_second")]
    if not rows:
        return None
    figure = new_figure(9.5, 5.4)
    axes = figure.subplots()
    stems = sorted({row.stem for row in rows})
    own = own_provider(session)
    for row in sorted(rows, key=lambda row: row.provider != own):
        colour = palette.colour(row.provider)
        axes.plot(
            _intensity(row),
            counter(row, "flops_per_second"),
            MARKERS[stems.index(row.stem) % len(MARKERS)],
            color=colour if row.provider == own else "none",
            markeredgecolor=colour,
            markersize=6.5,
        )
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("arithmetic intensity (floating-point operations per byte moved)")
    axes.set_ylabel("speed (FLOP/s)")
    _draw_ceilings(axes, session, [_intensity(row) for row in rows])
    axes.yaxis.set_major_formatter(lambda value, _: units.tick(units.rate(value, "FLOP/s")))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _legends(figure, axes, session, rows, stems, palette)
    title, reading = _findings(session, rows)
    uncounted = len(comparable(session)) - len(rows)
    if uncounted:
        reading += f" {uncounted} measurements count no operations, so they are not in this figure."
    return Drawing(
        figure,
        title,
        reading,
        ("benchmark", "provider", "operations_per_byte", "operations_per_second", "fraction_of_roof"),
        [(r.name, r.provider, _intensity(r), counter(r, "flops_per_second"), _fraction(session, r)) for r in rows],
        session.contexts,
    )


def _intensity(row: Benchmark) -> float:
    return counter(row, "flops_per_second") / counter(row, "bytes_per_second")


def _roof(session: Session, intensity):
    """Operations/s that the measured ceilings allow at an intensity; None without both ceilings."""
    bandwidth, product = session.ceiling("copy_bytes_per_second"), session.ceiling("product_flops_per_second")
    return np.minimum(intensity * bandwidth, product) if bandwidth and product else None


def _fraction(session: Session, row: Benchmark) -> float | str:
    roof = _roof(session, _intensity(row))
    return "" if roof is None else counter(row, "flops_per_second") / float(roof)


def _draw_ceilings(axes, session: Session, intensities: list[float]) -> None:
    bandwidth, product = session.ceiling("copy_bytes_per_second"), session.ceiling("product_flops_per_second")
    if not bandwidth or not product:
        axes.text(0.02, 0.97, "measured ceilings: not recorded", transform=axes.transAxes, va="top", color=GREY)
        return
    ridge = product / bandwidth
    left, right = min(*intensities, ridge / 8.0, 1.0) / 2.0, max(*intensities, ridge) * 8.0
    x = np.array([left, ridge, right])
    axes.plot(x, _roof(session, x), color=INK, linewidth=1.6, zorder=1)
    axes.plot(ridge, product, "|", color=INK, markersize=14)
    axes.annotate(
        f"measured matrix product {units.rate(product, 'FLOP/s')}",
        (right, product),
        (0, 4),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=INK,
        fontsize=8.5,
    )
    axes.annotate(
        f"ridge: {units.significant(ridge)} FLOP/byte",
        (ridge, product),
        (-6, 4),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=GREY,
        fontsize=8.5,
    )
    axes.set_xlim(left, right)
    slope_at = left * (ridge / left) ** 0.5
    axes.annotate(
        f"measured copy {units.rate(bandwidth, 'B/s')}",
        (slope_at, slope_at * bandwidth),
        (-6, 6),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=INK,
        fontsize=8.5,
    )


def _legends(figure, axes, session: Session, rows: list[Benchmark], stems: list[str], palette: Palette) -> None:
    """Colour says the provider, shape says the kernel; both stand beside the axes."""
    providers = sorted({row.provider for row in rows})
    filled = own_provider(session)
    handles = [
        axes.plot(
            [],
            [],
            "o",
            color=palette.colour(name) if name == filled else "none",
            markeredgecolor=palette.colour(name),
            label=shorten(name, 24),
        )[0]
        for name in providers[:MOST_NAMES]
    ]
    handles += [
        axes.plot([], [], MARKERS[i % len(MARKERS)], color="none", markeredgecolor=INK, label=shorten(stem, 24))[0]
        for i, stem in enumerate(stems[:MOST_NAMES])
    ]
    figure.legend(handles=handles, loc="outside right upper", title="provider (colour)\nkernel (shape)")


def _findings(session: Session, rows: list[Benchmark]) -> tuple[str, str]:
    own = own_provider(session)
    ours = [row for row in rows if row.provider == own] or rows
    if _fraction(session, ours[0]) == "":
        fastest = max(ours, key=lambda row: counter(row, "flops_per_second"))
        speed = units.rate(counter(fastest, "flops_per_second"), "FLOP/s")
        title = f"{fastest.stem} ({fastest.provider}) runs at {speed}; ceilings were not recorded"
        return title, f"{title}, so how far that is from the hardware's limit cannot be said."
    best = max(ours, key=lambda row: _fraction(session, row))
    worst = min(ours, key=lambda row: _fraction(session, row))
    low, high = units.percent(_fraction(session, worst)), units.percent(_fraction(session, best))
    title = f"{best.provider} reaches {low} to {high} of the roof"
    others = [row for row in rows if row.provider != best.provider]
    if others:
        top = max(others, key=lambda row: _fraction(session, row))
        title += f", {top.provider} up to {units.percent(_fraction(session, top))}"
    reading = (
        f"Of {len(ours)} {best.provider} measurements the best reaches {units.percent(_fraction(session, best))} of "
        f"what the measured ceilings allow ({best.stem}, {describe(best.without('provider'))}) and the farthest "
        f"{units.percent(_fraction(session, worst))} ({worst.stem}, {describe(worst.without('provider'))})."
    )
    return title, reading


FIGURE = FigureKind(
    "roofline",
    "Roofline",
    "How far from the hardware's limits is each kernel?",
    "benchmark results with the counters bytes_per_second and flops_per_second",
    lambda results: results.sessions,
    draw,
)
