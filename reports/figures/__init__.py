"""The registry: every figure of a report, in the order of the page."""

from reports.figures import (
    ceilings,
    changes,
    code_usage,
    knobs,
    ladder,
    layouts,
    losses,
    memory,
    quantization_error,
    roofline,
    rows,
    samples,
    speedup,
    step_memory,
    throughput,
    timeline,
)
from reports.figures.drawing import FigureKind

FIGURES: tuple[FigureKind, ...] = tuple(
    module.FIGURE
    for module in (
        roofline,
        throughput,
        ceilings,
        rows,
        speedup,
        ladder,
        quantization_error,
        code_usage,
        changes,
        samples,
        losses,
        memory,
        layouts,
        timeline,
        step_memory,
        knobs,
    )
)
