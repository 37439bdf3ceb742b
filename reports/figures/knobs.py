"""What each change of one option would do to a predicted step's speed, and whether a pipeline of layers would be faster."""

from reports import units
from reports.figures.drawing import Drawing, FigureKind
from reports.model import Knob, ShardLayout, StepPlan
from reports.selection import remainder
from reports.style import CATEGORIES, GREY, INK, Palette, new_figure, shorten

MOST_KNOBS = 16
PIPELINE = "a pipeline of layers instead"


def draw(plan: ShardLayout, _: Palette) -> Drawing | None:
    step = plan.step
    knobs = sorted(step.knobs, key=lambda knob: -knob.gain)
    shown = knobs[:MOST_KNOBS]
    if step.pipeline_seconds:
        shown = [*shown, Knob(PIPELINE, step.pipeline_seconds, step.seconds / step.pipeline_seconds - 1)]
    figure = new_figure(9.5, 2.2 + 0.34 * len(shown))
    axes = figure.add_subplot()
    colours = [GREY if knob.change == PIPELINE else CATEGORIES[2] if knob.gain >= 0 else CATEGORIES[5] for knob in shown]
    bars = axes.barh(range(len(shown)), [100 * knob.gain for knob in shown], height=0.68, color=colours)
    axes.bar_label(bars, [units.signed_percent(knob.gain) for knob in shown], padding=3, fontsize=8)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(shown)), [shorten(knob.change, 48) for knob in shown], fontsize=8.5)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.margins(x=0.18)
    axes.set_xlabel("tokens a second and GPU, were this alone changed (%)")
    axes.grid(axis="y", visible=False)
    title, reading = _findings(plan.name, step, knobs[0])
    return Drawing(
        figure,
        title,
        reading + remainder(len(knobs) - MOST_KNOBS, "change"),
        ("change", "step_seconds", "gain"),
        [(knob.change, knob.seconds, knob.gain) for knob in [*knobs, *shown[len(knobs) :]]],
        [plan.context],
    )


def _findings(name: str, step: StepPlan, best: Knob) -> tuple[str, str]:
    if best.gain > 0:
        title = f"{name}: {best.change} buys most, {units.signed_percent(best.gain)}"
    else:
        title = f"{name}: no single change makes the step faster"
    reading = (
        f"Predicted for {shorten(step.gpu, 30)} and {shorten(step.link, 30)}, not measured; the step as it is takes "
        f"{units.seconds(step.seconds)}. Whether memory allows a change is not looked at."
    )
    if step.pipeline_seconds:
        verdict = "faster" if step.pipeline_seconds < step.seconds else "not faster"
        reading += (
            f" A pipeline of layers over the same GPUs, which gathers nothing but has a bubble, would take "
            f"{units.seconds(step.pipeline_seconds)}: {verdict}."
        )
    return title, reading


FIGURE = FigureKind(
    "knobs",
    "What each knob buys",
    "Which one change makes a step faster, and would a pipeline of layers?",
    "a step with its knobs (JSON of qshard plan)",
    lambda results: [layout for layout in results.layouts if layout.step and layout.step.knobs],
    draw,
)
