"""Layouts side by side: what a rank holds, and what gathering costs, for every layout of a model that differs."""

from dataclasses import dataclass

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import Context, LayoutCost, Results, ShardLayout
from reports.selection import remainder
from reports.statistics import median
from reports.style import CATEGORIES, INK, Palette, new_figure, shorten

MOST_ROWS = 24
PANELS = (
    ("a rank holds (GiB)", lambda cost: cost.held_bytes / units.GIB, "{:.1f}"),
    ("messages a pass", lambda cost: cost.messages, "{:.0f}"),
    ("link's time in a step (s)", lambda cost: cost.gather_seconds, "{:.2f}"),
)
MEASURED_PANEL = ("one layer's gather (ms)", lambda cost: cost.layer_gather_seconds * 1e3, "{:.2f}")
COLUMNS = ("layout", "storage", "unit", "scales", "strategy", "held_bytes", "gathered_bytes", "messages", "gather_seconds",
           "layer_gather_seconds", "measured_layer_gather_seconds", "measured_beside_products_seconds", "step_seconds",
           "same_as")  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Seconds of one decoder layer's gather by peer copies, alone and while a layer's products run."""

    alone: float
    beside: float


@dataclass
class Comparison:
    """A plan's layouts, and what was measured of them; index: storage, unit, scales, strategy."""

    plan: ShardLayout
    measured: dict[tuple[str, ...], Measured]
    contexts: list[Context]


def compare(results: Results) -> list[Comparison]:
    """Each plan that compares layouts, with the measured ones of the same model."""
    found = []
    for plan in results.layouts:
        if not plan.layouts:
            continue
        rows = [row for session in results.sessions for row in session.benchmarks
                if row.stem == "shard_layout" and row.keys.get("model") == plan.name and row.keys.get("transport") == "peer"
                and row.integer("layers") and "gather_beside_ms" in row.counters]  # fmt: skip
        measured = {
            tuple(row.keys.get(key, "").replace("_", " ") if key == "unit" or key == "scales" else row.keys.get(key, "")
                  for key in ("storage", "unit", "scales", "strategy")):
            Measured(median(row.seconds) / row.integer("layers"), median(row.counters["gather_beside_ms"]) * 1e-3 / row.integer("layers"))
            for row in rows
        }  # fmt: skip
        contexts = list({row.context.source: row.context for row in rows}.values())
        found.append(Comparison(plan, measured, contexts))
    return found


def draw(comparison: Comparison, _: Palette) -> Drawing | None:
    """One strategy's layouts, the first one's: the others cut the same units and gather them less often, or never."""
    plan = comparison.plan
    distinct = [cost for place, cost in enumerate(plan.layouts) if cost.same_as == place]
    strategy = plan.layouts[0].strategy
    of_strategy = [cost for cost in distinct if cost.strategy == strategy]
    shown = of_strategy[:MOST_ROWS]
    scales = list(dict.fromkeys(cost.scales for cost in shown))
    measured = {row: comparison.measured[_key(cost)] for row, cost in enumerate(shown) if _key(cost) in comparison.measured}
    panels = (*PANELS[:2], MEASURED_PANEL) if measured else PANELS
    figure = new_figure(11.5, 2.2 + 0.3 * len(shown))
    for index, (axes, (label, value, form)) in enumerate(zip(figure.subplots(1, len(panels), sharey=True), panels)):
        for kind, colour in zip(scales, CATEGORIES):
            rows = [row for row, cost in enumerate(shown) if cost.scales == kind]
            values = [value(shown[row]) for row in rows]
            bars = axes.barh(rows, values, height=0.7, color=colour, label=kind)
            if panels[index] != MEASURED_PANEL:  # its marks would lie on the labels
                axes.bar_label(bars, [form.format(size) for size in values], padding=2, fontsize=7.5)
        if panels[index] == MEASURED_PANEL:
            axes.plot([measured[row].alone * 1e3 for row in measured], list(measured), "D", color=INK, markersize=5,
                      label="measured alone")  # fmt: skip
            axes.plot([measured[row].beside * 1e3 for row in measured], list(measured), "o", color=INK, markersize=6,
                      markerfacecolor="white", label="measured beside products")  # fmt: skip
        axes.set_xlabel(label)
        axes.margins(x=0.2)
        axes.grid(axis="y", visible=False)
        if index == 0:
            axes.set_yticks(range(len(shown)), [_name(cost, plan.layouts) for cost in shown])
            axes.set_ylim(len(shown) - 0.4, -0.6)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", title="bars: planned,\nwith scales")
    title, reading = _findings(plan.name, distinct[0], plan.layouts)
    reading += f" Drawn are the layouts of {strategy}; of {len(plan.layouts)} in all {len(distinct)} differ."
    reading += _measured_reading(shown, measured)
    return Drawing(
        figure,
        title,
        reading + remainder(len(of_strategy) - len(shown), "layout"),
        COLUMNS,
        [
            (plan.name, cost.storage, cost.unit, cost.scales, cost.strategy, int(cost.held_bytes), int(cost.gathered_bytes),
             int(cost.messages), cost.gather_seconds, cost.layer_gather_seconds, *_seconds(comparison.measured.get(_key(cost))),
             cost.step_seconds, cost.same_as)
            for cost in plan.layouts
        ],
        [plan.context, *comparison.contexts],
    )  # fmt: skip


def _key(cost: LayoutCost) -> tuple[str, ...]:
    return cost.storage, cost.unit, cost.scales, cost.strategy


def _seconds(measured: Measured | None) -> tuple:
    return (measured.alone, measured.beside) if measured else ("", "")


def _measured_reading(shown: list[LayoutCost], measured: dict[int, Measured]) -> str:
    """The layout whose gather takes longest beside products, against the first one."""
    if 0 not in measured:
        return ""
    slowest = max(measured, key=lambda row: measured[row].beside)
    return (
        f" Measured by peer copies, a layer's gather in the first layout takes {units.seconds(measured[0].alone)} alone and "
        f"{units.seconds(measured[0].beside)} beside a layer's products; in {shown[slowest].storage} by {shown[slowest].unit} "
        f"{units.seconds(measured[slowest].alone)} and {units.seconds(measured[slowest].beside)}."
    )


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
    "layouts (JSON of qshard plan --layouts); measured ones beside them where there are some (bench --operation shard_layout)",
    compare,
    draw,
)
