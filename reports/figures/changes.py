"""Change bars of a gate run: each benchmark's change of time with its interval, and the floor it must exceed."""

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import GateRow, GateRun
from reports.selection import short_names
from reports.style import FAINT, GREY, INK, VERDICTS, Palette, new_figure, shorten

MOST_ROWS = 40


def draw(run: GateRun, _: Palette) -> Drawing | None:
    if not run.rows:
        return None
    ordered = sorted(run.rows, key=lambda row: row.change, reverse=True)
    shown = _extremes(ordered)
    figure = new_figure(9.5, 1.7 + 0.42 * len(shown))
    axes = figure.subplots()
    for height, row in enumerate(shown):
        _draw_row(axes, height, row)
    reach = max(max(abs(row.low), abs(row.high), row.floor) for row in shown)
    axes.set_xlim(-1.35 * reach, 1.35 * reach)
    axes.axvline(0.0, color=GREY, linewidth=0.8)
    names, common = short_names([row.name for row in shown])
    axes.set_yticks(range(len(shown)), [shorten(name, 62) for name in names], fontsize=7.5)
    if common:
        axes.set_title(shorten(f"all: {common}", 100), fontsize=8, color=GREY)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(
        "change of time against the base (%)   ← faster   slower →   grey: the floor   whisker: the interval"
    )
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.3g} %" if value else "0 %")
    axes.grid(axis="y", visible=False)
    verdicts = [verdict for verdict in VERDICTS if any(row.verdict == verdict for row in shown)]
    handles = [axes.barh([0], [0], color=VERDICTS[verdict], label=verdict) for verdict in verdicts]
    figure.legend(handles=handles, loc="outside right upper", title="verdict")
    title, reading = _findings(run, ordered, len(ordered) - len(shown))
    return Drawing(
        figure,
        title,
        reading,
        ("benchmark", "verdict", "change", "low", "high", "floor", "rounds"),
        [(r.name, r.verdict, r.change, r.low, r.high, r.floor, r.rounds) for r in ordered],
        [run.context],
    )


def _extremes(ordered: list[GateRow]) -> list[GateRow]:
    """All rows, or the most slowed and the most improved half each, where there are too many to read."""
    if len(ordered) <= MOST_ROWS:
        return ordered
    return ordered[: MOST_ROWS // 2] + ordered[-MOST_ROWS // 2 :]


def _draw_row(axes, height: int, row: GateRow) -> None:
    colour = VERDICTS.get(row.verdict, GREY)
    axes.barh(height, 2 * row.floor, left=-row.floor, height=0.9, color=FAINT, linewidth=0)
    axes.barh(height, row.change, height=0.55, color=colour)
    axes.plot([row.low, row.high], [height, height], color=INK, linewidth=1.1, marker="|", markersize=6)
    axes.annotate(
        units.signed_percent(row.change),
        (row.change, height - 0.28),
        (2 if row.change >= 0 else -2, 1),
        textcoords="offset points",
        ha="left" if row.change >= 0 else "right",  # beside the line at 0
        va="bottom",
        fontsize=7.5,
        color=INK,
    )


def _findings(run: GateRun, ordered: list[GateRow], left_out: int) -> tuple[str, str]:
    failed = [row for row in ordered if row.verdict == "FAIL"]
    worst = (failed or ordered)[0]
    change, low, high = (units.signed_percent(value) for value in (worst.change, worst.low, worst.high))
    stem, of_all = worst.name.split("/")[0], f"{len(failed)} of {len(ordered)} benchmarks"
    if failed:
        title = f"{run.verdict}: {of_all} slowed down, {stem} by {units.percent(worst.change)}"
        reading = f"Slower by more than the floor: {of_all}, the worst {worst.name} by {change} [{low}, {high}]"
    else:
        title = f"{run.verdict}: none of {len(ordered)} benchmarks is known to have slowed down"
        reading = (
            f"The largest slowdown is {worst.name} with {change} [{low}, {high}], floor {units.percent(worst.floor)}"
        )
    without = f"; not compared: {len(run.uncompared)}" if run.uncompared else ""
    more = f"; the middle {left_out} rows are in the CSV only" if left_out else ""
    return title, f"{reading}{without}{more}."


FIGURE = FigureKind(
    "changes",
    "Change bars of a gate run",
    "What did a change make slower or faster?",
    "the JSON of a gate run with compared benchmarks",
    lambda results: results.gates,
    draw,
)
