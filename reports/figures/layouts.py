"""Layouts side by side: what a rank holds, and what gathering costs, for every layout of a model that differs."""

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import LayoutCost, ShardLayout
from reports.selection import remainder
from reports.style import CATEGORIES, Palette, new_figure, shorten

MOST_ROWS = 24
PANELS = (
    ("a rank holds (GiB)", lambda cost: cost.held_bytes / units.GIB, "{:.1f}"),
    ("messages a pass", lambda cost: cost.messages, "{:.0f}"),
    ("link's time in a step (s)", lambda cost: cost.gather_seconds, "{:.2f}"),
)
COLUMNS = ("layout", "storage", "unit", "scales", "strategy", "held_bytes", "gathered_bytes", "messages",
           "gather_seconds", "step_seconds", "same_as")  # fmt: skip


def draw(plan: ShardLayout, _: Palette) -> Drawing | None:
    """One strategy's layouts, the first one's: the others cut the same units and gather them less often, or never."""
    distinct = [cost for place, cost in enumerate(plan.layouts) if cost.same_as == place]
    strategy = plan.layouts[0].strategy
    of_strategy = [cost for cost in distinct if cost.strategy == strategy]
    shown = of_strategy[:MOST_ROWS]
    scales = list(dict.fromkeys(cost.scales for cost in shown))
    figure = new_figure(10.5, 2.2 + 0.3 * len(shown))
    for index, (axes, (label, value, form)) in enumerate(zip(figure.subplots(1, len(PANELS), sharey=True), PANELS)):
        for kind, colour in zip(scales, CATEGORIES):
            rows = [row for row, cost in enumerate(shown) if cost.scales == kind]
            values = [value(shown[row]) for row in rows]
            bars = axes.barh(rows, values, height=0.7, color=colour, label=kind)
            axes.bar_label(bars, [form.format(size) for size in values], padding=2, fontsize=7.5)
        axes.set_xlabel(label)
        axes.margins(x=0.2)
        axes.grid(axis="y", visible=False)
        if index == 0:
            axes.set_yticks(range(len(shown)), [_name(cost, plan.layouts) for cost in shown])
            axes.set_ylim(len(shown) - 0.4, -0.6)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(scales), title="scales")
    title, reading = _findings(plan.name, distinct[0], plan.layouts)
    reading += f" Drawn are the layouts of {strategy}; of {len(plan.layouts)} in all {len(distinct)} differ."
    return Drawing(
        figure,
        title,
        reading + remainder(len(of_strategy) - len(shown), "layout"),
        COLUMNS,
        [
            (plan.name, cost.storage, cost.unit, cost.scales, cost.strategy, int(cost.held_bytes), int(cost.gathered_bytes),
             int(cost.messages), cost.gather_seconds, cost.step_seconds, cost.same_as)
            for cost in plan.layouts
        ],
        [plan.context],
    )  # fmt: skip


def _name(cost: LayoutCost, costs: list[LayoutCost]) -> str:
    """Of a bar: the layout, and how many others are the same."""
    place = costs.index(cost)
    others = sum(other.same_as == place for other in costs) - 1
    more = f" (+{others} the same)" if others else ""
    return shorten(f"{cost.storage} by {cost.unit}{more}", 48)


def _findings(name: str, first: LayoutCost, costs: list[LayoutCost]) -> tuple[str, str]:
    """What the dtype rule and replicated scales cost, each against the first layout with nothing else changed."""
    alike = [cost for cost in costs if (cost.unit, cost.strategy) == (first.unit, first.strategy)]
    dtype = next((cost for cost in alike if cost.storage != first.storage and cost.scales == first.scales), None)
    scales = next((cost for cost in alike if cost.storage == first.storage and cost.scales != first.scales), None)
    found = []
    if dtype and first.messages:
        found.append(f"codes held in {dtype.storage} take {units.times(dtype.messages / first.messages)} the messages")
    if scales:
        found.append(f"scales on every rank take {units.binary_bytes(scales.held_bytes - first.held_bytes)} more")
    title = f"{name}: {', '.join(found)}" if found else f"{name}: its layouts"
    reading = f"The first layout holds codes in {first.storage} and moves {first.messages:.0f} messages a pass"
    if dtype:
        longer = dtype.gather_seconds - first.gather_seconds
        reading += f"; in {dtype.storage} it is {dtype.messages:.0f}, {longer:.3f} s more of the link's time in a step"
    return title, reading + "."


FIGURE = FigureKind(
    "layouts",
    "Layouts side by side",
    "What do the dtype of the codes, the units and replicated scales cost?",
    "layouts (JSON of qshard plan --layouts)",
    lambda results: [layout for layout in results.layouts if layout.layouts],
    draw,
)
