"""Memory by rank: stacked bars of what a shard layout puts on each rank."""

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import ShardLayout
from reports.selection import remainder
from reports.style import CATEGORIES, HATCHES, INK, Palette, new_figure, shorten

# In the order they are stacked: what stays for the whole run first.
PARTS = ("codes", "statistics", "full_precision", "lora", "gradients", "optimizer", "gather_buffer", "activations")
MOST_LAYOUTS, MOST_RANKS, MOST_PARTS = 6, 16, 20


def draw(layouts: list[ShardLayout], _: Palette) -> Drawing | None:
    if not layouts:
        return None
    shown = layouts[:MOST_LAYOUTS]
    parts = _parts(shown)
    figure = new_figure(9.5, 1.5 + sum(0.8 + 0.38 * min(len(layout.ranks), MOST_RANKS) for layout in shown))
    heights = [2 + min(len(layout.ranks), MOST_RANKS) for layout in shown]
    grid = figure.subplots(len(shown), 1, squeeze=False, sharex=True, height_ratios=heights)
    for axes, layout in zip(grid.flat, shown):
        _draw_layout(axes, layout, parts)
    grid.flat[-1].set_xlabel("memory (GiB, 2³⁰ bytes)")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles[:MOST_PARTS], labels[:MOST_PARTS], loc="outside right upper", title="part")
    title, reading = _findings(layouts)
    reading += remainder(len(layouts) - len(shown), "layout")
    return Drawing(
        figure,
        title,
        reading,
        ("layout", "rank", "part", "bytes"),
        [
            (layout.name, rank, part, int(size))
            for layout in layouts
            for rank, sizes in zip(layout.ranks, layout.bytes_by_rank)
            for part, size in sizes.items()
        ],
        [layout.context for layout in layouts],
    )


def _parts(layouts: list[ShardLayout]) -> list[str]:
    """All parts that occur, the known ones in their order, then the others in theirs."""
    found = dict.fromkeys(part for layout in layouts for sizes in layout.bytes_by_rank for part in sizes)
    return [part for part in PARTS if part in found] + [part for part in found if part not in PARTS]


def _draw_layout(axes, layout: ShardLayout, parts: list[str]) -> None:
    ranks = layout.ranks[:MOST_RANKS]
    lefts = [0.0] * len(ranks)
    for index, part in enumerate(parts):
        sizes = [layout.bytes_by_rank[i].get(part, 0.0) / units.GIB for i in range(len(ranks))]
        axes.barh(
            range(len(ranks)),
            sizes,
            left=lefts,
            height=0.68,
            label=shorten(part.replace("_", " "), 24),
            linewidth=0.5,
            color=CATEGORIES[index % len(CATEGORIES)],
            hatch=HATCHES[index % len(HATCHES)],
            edgecolor="white",
        )
        lefts = [left + size for left, size in zip(lefts, sizes)]
    for height, capacity in enumerate(layout.capacities[: len(ranks)]):
        if capacity:
            axes.plot([capacity / units.GIB] * 2, [height - 0.42, height + 0.42], color=INK, linewidth=2)
    axes.set_yticks(
        range(len(ranks)),
        [f"rank {rank}: {units.binary_bytes(total * units.GIB)}" for rank, total in zip(ranks, lefts)],
    )
    axes.set_ylim(len(ranks) - 0.4, -0.6)
    reach = max([*lefts, *((c or 0.0) / units.GIB for c in layout.capacities)])
    axes.set_xlim(0, max(1.04 * reach, axes.get_xlim()[1]))
    hidden = f" (first {MOST_RANKS} of {len(layout.ranks)} ranks)" if len(layout.ranks) > MOST_RANKS else ""
    marked = "; the black mark is the card's capacity" if any(layout.capacities) else ""
    axes.set_title(shorten(layout.name, 60) + hidden + marked)
    axes.grid(axis="y", visible=False)


def _findings(layouts: list[ShardLayout]) -> tuple[str, str]:
    """About the layout and rank that need most."""
    layout, index = max(
        ((layout, i) for layout in layouts for i in range(len(layout.ranks))),
        key=lambda place: sum(place[0].bytes_by_rank[place[1]].values()),
    )
    sizes = layout.bytes_by_rank[index]
    total, part = sum(sizes.values()), max(sizes, key=sizes.get)
    share = f"{units.percent(sizes[part] / total)} of it {part.replace('_', ' ')}"
    title = f"{layout.name}: the fullest rank holds {units.binary_bytes(total)}, {share}"
    capacity = layout.capacities[index]
    left = ""
    if capacity:
        room = capacity - total
        left = (
            f"; {units.binary_bytes(room)} stay free"
            if room >= 0
            else f"; that is {units.binary_bytes(-room)} too much for its card"
        )
    totals = [sum(sizes.values()) for sizes in layout.bytes_by_rank]
    needs = f"{units.binary_bytes(total)} ({share}){left}"
    if min(totals) == total:
        return title, f"Each of the {len(totals)} ranks of {layout.name} needs {needs}."
    return title, (
        f"Of {len(totals)} ranks of {layout.name} rank {layout.ranks[index]} needs most, {needs}; "
        f"the emptiest needs {units.binary_bytes(min(totals))}."
    )


FIGURE = FigureKind(
    "memory",
    "Memory by rank",
    "What fills each card?",
    "a shard layout (JSON of qshard plan)",
    lambda results: [results.layouts],
    draw,
)
