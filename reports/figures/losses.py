"""Loss curves of training runs, from their metrics.jsonl."""

import math

from reports.figures.drawing import Drawing, FigureKind
from reports.model import TrainingRun
from reports.style import LINES, Palette, new_figure, shorten, spread

MOST_LABELS = 14
SMOOTHING = 25  # steps in the running median of a long run


def draw(runs: list[TrainingRun], _: Palette) -> Drawing | None:
    if not runs:
        return None
    figure = new_figure(9.5, 4.6)
    axes = figure.subplots()
    ends = [_draw_run(axes, index, run) for index, run in enumerate(runs)]
    is_smoothed = any(len(run.losses) >= 3 * SMOOTHING for run in runs)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per token)")
    _label_ends(axes, [end for end in ends if end][:MOST_LABELS], is_smoothed)
    title, reading = _findings(runs)
    return Drawing(
        figure,
        title,
        reading,
        ("run", "kind", "step", "loss"),
        [
            (run.name, kind, step, loss)
            for run in runs
            for kind, points in (("training", run.losses), ("evaluation", run.eval_losses))
            for step, loss in points
        ],
        [run.context for run in runs],
    )


def _draw_run(axes, index: int, run: TrainingRun) -> tuple | None:
    """Draws the run; gives where its label goes: (step, loss, name, colour)."""
    colour, line = LINES[index % len(LINES)]
    steps, losses = [p[0] for p in run.losses], [p[1] for p in run.losses]
    long = len(losses) >= 3 * SMOOTHING
    axes.plot(steps, losses, line, color=colour, alpha=0.3 if long else 1.0, linewidth=1.0 if long else 1.6)
    smooth = running_median(losses) if long else losses
    if long:
        axes.plot(steps, smooth, line, color=colour, linewidth=1.8)
    axes.plot(
        [p[0] for p in run.eval_losses],
        [p[1] for p in run.eval_losses],
        "D",
        color="white",
        markeredgecolor=colour,
        markersize=6,
    )
    shown = [p for p in (list(zip(steps, smooth)) or run.eval_losses) if math.isfinite(p[1])]
    return (*shown[-1], run.name, colour) if shown else None


def running_median(losses: list[float]) -> list[float]:
    """The median of the SMOOTHING losses around each (fewer at the ends); losses that are no number are left out."""
    half = SMOOTHING // 2
    medians = []
    for here in range(len(losses)):
        window = sorted(loss for loss in losses[max(0, here - half) : here + half + 1] if math.isfinite(loss))
        medians.append(window[len(window) // 2] if window else math.nan)
    return medians


def _label_ends(axes, ends: list[tuple], is_smoothed: bool) -> None:
    low, high = axes.get_ylim()
    heights = spread([end[1] for end in ends], 0.06 * (high - low))
    for (step, _, name, colour), height in zip(ends, heights):
        axes.annotate(
            shorten(name, 24),
            (step, height),
            (8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold",
            fontsize=8.5,
            annotation_clip=False,
        )
    smoothed = f"training (running median of {SMOOTHING} logged steps; faint: each of them)"
    axes.plot([], [], "-", color="grey", label=smoothed if is_smoothed else "training")
    axes.plot([], [], "D", color="white", markeredgecolor="grey", label="evaluation")
    axes.legend(loc="upper right")


def _findings(runs: list[TrainingRun]) -> tuple[str, str]:
    broken = [run for run in runs if any(math.isnan(loss) for _, loss in run.losses + run.eval_losses)]
    if broken:
        bad = next(step for step, loss in broken[0].losses + broken[0].eval_losses if math.isnan(loss))
        title = f"{broken[0].name} diverged: its loss is not a number at step {bad:.0f}"
        return title, f"{title}; {len(broken)} of {len(runs)} runs did."
    sentences = [_fall(run) for run in runs]
    shown = "; ".join(f"{run.name}: {text}" for run, text in zip(runs[:4], sentences))
    more = f"; {len(runs) - 4} more runs are in the CSV" if len(runs) > 4 else ""
    best = min(runs, key=lambda run: (run.eval_losses or run.losses)[-1][1])
    lowest = "ends lowest: " if len(runs) > 1 else ""
    return f"{best.name} {lowest}{_fall(best)}", f"{shown}{more}."


def _fall(run: TrainingRun) -> str:
    kind, points = (
        ("evaluation", run.eval_losses) if len(run.eval_losses) > 1 else ("training", run.losses or run.eval_losses)
    )
    first, last = points[0], points[-1]
    return f"{kind} loss goes from {first[1]:.3f} to {last[1]:.3f} by step {last[0]:.0f}"


FIGURE = FigureKind(
    "losses",
    "Loss curves",
    "Did training converge, and do runs agree?",
    "metrics.jsonl of a training run",
    lambda results: [results.runs],
    draw,
)
