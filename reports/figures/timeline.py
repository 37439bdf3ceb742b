"""Time line of a predicted step: what the lanes of a rank do in the first micro-batch, and what the whole step consists of."""

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import ShardLayout, Span, StepPlan
from reports.selection import remainder
from reports.style import CATEGORIES, GREY, HATCHES, Palette, new_figure, shorten

LANES = ("compute", "link", "host")  # from above; others stand below them
ZOOMED = 3  # layers at the start of the forward pass and at the turn that are drawn large
NARROW = 1 / 200  # of a panel: an entry without a white edge, which would cover it
MOST_KINDS, MOST_PARTS = 9, 12


def draw(plan: ShardLayout, _: Palette) -> Drawing | None:
    step = plan.step
    kinds = list(dict.fromkeys(span.what for span in step.timeline))
    lanes = _lanes(step.timeline)
    parts = sorted(step.parts, key=step.parts.get, reverse=True)
    shown = parts[:MOST_PARTS]
    figure = new_figure(9.5, 3.2 + 0.62 * len(lanes) + 0.26 * len(shown))
    rows = figure.add_gridspec(3, 2, height_ratios=[0.31 * len(lanes), 0.31 * len(lanes), 0.26 * len(shown)])
    whole = figure.add_subplot(rows[0, :])
    _draw_lanes(whole, step.timeline, lanes, kinds, 0.0, max(span.end for span in step.timeline))
    whole.set_title("the first micro-batch of a step")
    first, turn = figure.add_subplot(rows[1, 0]), figure.add_subplot(rows[1, 1])
    layer = _layer_seconds(step.timeline)
    _draw_lanes(first, step.timeline, lanes, kinds, 0.0, ZOOMED * layer)
    first.set_title("its beginning")
    middle = _turn(step.timeline)
    _draw_lanes(turn, step.timeline, lanes, kinds, max(0.0, middle - ZOOMED * layer), middle + ZOOMED * layer)
    turn.set_title("from forward to backward")
    whole.legend(loc="upper left", bbox_to_anchor=(1.0, 1.1))
    _draw_parts(figure.add_subplot(rows[2, :]), step, shown)
    title, reading = _findings(plan.name, step)
    reading += remainder(len(parts) - len(shown), "part")
    lines = [("lane", s.lane, s.what, s.layer, s.begin, s.end) for s in step.timeline]
    lines += [("part", "", part, "", 0.0, step.parts[part]) for part in parts]
    return Drawing(figure, title, reading, ("kind", "lane", "what", "layer", "begin", "end"), lines, [plan.context])


def _lanes(spans: list[Span]) -> list[str]:
    found = {span.lane for span in spans}
    return [lane for lane in LANES if lane in found] + sorted(found - set(LANES))


def _layer_seconds(spans: list[Span]) -> float:
    """Of the longest entry, so that a few layers fill a zoomed panel."""
    return max(span.end - span.begin for span in spans)


def _turn(spans: list[Span]) -> float:
    """When the first backward entry begins, or the middle where there is none."""
    begins = [span.begin for span in spans if span.what == "backward"]
    return min(begins) if begins else max(span.end for span in spans) / 2


def _draw_lanes(axes, spans: list[Span], lanes: list[str], kinds: list[str], begin: float, end: float) -> None:
    """A row a lane between `begin` and `end`; colours and hatches by what is done."""
    for index, kind in enumerate(kinds[:MOST_KINDS]):
        for height, lane in enumerate(lanes):
            here = [s for s in spans if (s.what, s.lane) == (kind, lane) and s.end > begin and s.begin < end]
            axes.broken_barh(
                [(1e3 * s.begin, 1e3 * (s.end - s.begin)) for s in here],
                (height - 0.36, 0.72),
                facecolor=CATEGORIES[index],
                hatch=HATCHES[index],
                edgecolor=["white" if s.end - s.begin > NARROW * (end - begin) else CATEGORIES[index] for s in here],
                linewidth=0.5,
                label=kind if here and kind not in axes.get_legend_handles_labels()[1] else None,
            )
    axes.set_yticks(range(len(lanes)), lanes)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlim(1e3 * begin, 1e3 * end)
    axes.set_xlabel("time (ms)")
    axes.grid(axis="y", visible=False)


def _draw_parts(axes, step: StepPlan, parts: list[str]) -> None:
    seconds = [step.parts[part] for part in parts]
    bars = axes.barh(range(len(parts)), seconds, height=0.68, color=GREY)
    axes.bar_label(bars, [f"{units.seconds(size)}" if size else "0 s" for size in seconds], padding=2, fontsize=7.5)
    axes.set_yticks(range(len(parts)), [shorten(part, 40) for part in parts], fontsize=8)
    axes.set_ylim(len(parts) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlabel("time of a rank in a step (s)")
    axes.set_title(f"parts of a step: {units.seconds(step.seconds)} in all")
    axes.grid(axis="y", visible=False)


def _findings(name: str, step: StepPlan) -> tuple[str, str]:
    largest = max(step.parts, key=step.parts.get)
    share = step.parts[largest] / sum(step.parts.values())
    waits = sum(size for part, size in step.parts.items() if part.startswith("waiting"))
    title = f"{name}: a step is planned to take {units.seconds(step.seconds)}, {units.percent(share)} of it {largest}"
    reading = (
        f"Predicted for {shorten(step.gpu, 30)} and {shorten(step.link, 30)}, not measured: {units.percent(step.hidden_share)} of "
        f"the gathers' time is hidden behind computing, and a rank waits for {units.seconds(waits)} of a step. The largest part "
        f"is {largest} with {units.seconds(step.parts[largest])}."
    )
    return title, reading


FIGURE = FigureKind(
    "timeline",
    "Time line of a step",
    "When does each lane work, and what does a step consist of?",
    "a step with its time line (JSON of qshard plan)",
    lambda results: [layout for layout in results.layouts if layout.step],
    draw,
)
