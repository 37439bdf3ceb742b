"""A rank's memory over the first micro-batch of a predicted step: what it holds, layers' inputs, and gathered units."""

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import MemoryMoment, ShardLayout
from reports.style import CATEGORIES, Palette, new_figure

PASSING = ("gather_buffer", "activations")  # parts of a layout that come and go within a step


def draw(plan: ShardLayout, _: Palette) -> Drawing | None:
    moments = _without_dips(sorted(plan.step.memory, key=lambda moment: moment.at))
    held = sum(size for part, size in plan.bytes_by_rank[0].items() if part not in PASSING)
    times = [1e3 * moment.at for moment in moments]
    inputs = [moment.inputs / units.GIB for moment in moments]
    passing = [(moment.inputs + moment.gathered) / units.GIB for moment in moments]
    figure = new_figure(9.5, 5.2)
    whole, large = figure.subplots(2, 1, sharex=True)
    base = held / units.GIB
    whole.fill_between(times, 0, base, step="post", color=CATEGORIES[0], linewidth=0, label="held between steps")
    for axes, lowest in ((whole, base), (large, 0.0)):
        axes.fill_between(times, lowest, [lowest + size for size in inputs], step="post", color=CATEGORIES[1],
                          linewidth=0, label="layers' inputs")  # fmt: skip
        axes.fill_between(times, [lowest + size for size in inputs], [lowest + size for size in passing], step="post",
                          color=CATEGORIES[5], linewidth=0, label="gathered units")  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_ylabel("GiB (2³⁰ bytes)")
    whole.set_title("all that the plan of layers knows of; one layer's activations come on top")
    whole.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    large.set_title("what comes and goes")
    large.set_xlim(0, times[-1])
    large.set_xlabel("time in the first micro-batch (ms)")
    most = max(moments, key=lambda moment: moment.gathered + moment.inputs)
    peak = most.gathered + most.inputs
    title = f"{plan.name}: {units.binary_bytes(held)} stay on a rank, at most {units.binary_bytes(peak)} come and go"
    reading = (
        f"Predicted, not measured: {units.seconds(most.at)} after the first micro-batch begins {units.binary_bytes(most.gathered)} of "
        f"gathered units and {units.binary_bytes(most.inputs)} of layers' inputs lie beside what the rank holds."
    )
    lines = [(moment.at, int(held), int(moment.inputs), int(moment.gathered)) for moment in moments]
    return Drawing(figure, title, reading, ("at", "held_bytes", "input_bytes", "gathered_bytes"), lines, [plan.context])


def _without_dips(moments: list[MemoryMoment]) -> list[MemoryMoment]:
    """Without those too short to be seen in which a unit has left and the next has not yet come."""
    shortest = 1e-3 * moments[-1].at
    dips = {
        index
        for index in range(1, len(moments) - 1)
        if moments[index + 1].at - moments[index].at < shortest
        and moments[index].gathered < min(moments[index - 1].gathered, moments[index + 1].gathered)
    }
    return [moment for index, moment in enumerate(moments) if index not in dips]


FIGURE = FigureKind(
    "step_memory",
    "Memory over a step",
    "When does a rank hold how much?",
    "a step with its memory (JSON of qshard plan)",
    lambda results: [layout for layout in results.layouts if layout.step and layout.step.memory],
    draw,
)
