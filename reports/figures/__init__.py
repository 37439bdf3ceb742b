"""The registry: every figure of a report, in the order of the page."""

from reports.figures import (
    bandwidth,
    ceilings,
    changes,
    code_usage,
    ladder,
    losses,
    memory,
    quantization_error,
    roofline,
    samples,
    speedup,
)
from reports.figures.drawing import FigureKind

FIGURES: tuple[FigureKind, ...] = tuple(
    module.FIGURE
    for module in (
        roofline,
        bandwidth,
        ceilings,
        speedup,
        ladder,
        quantization_error,
        code_usage,
        changes,
        samples,
        losses,
        memory,
    )
)
