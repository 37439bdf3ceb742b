"""Quantization error: against the normalised input (the saw-tooth of a codebook) and against the block size."""

from functools import cache

import numpy as np

from reports.codebooks import CODEBOOKS, gaussian, mean_absolute_error, nearest
from reports.figures.drawing import Drawing, FigureKind
from reports.model import Results
from reports.style import GREY, QUANT_TYPES, Palette, new_figure

SEED = 20240524
PROVENANCE = (
    f"Computed with NumPy from the codebooks' formulas, 2^20 normal samples, seed {SEED}; no device was measured."
)
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)

# Mean |error| on N(0, 1) that bitsandbytes' tests expect of its kernels (its tests/test_functional.py).
BITSANDBYTES = {
    "NF4": {32: 0.067746, 64: 0.072798, 128: 0.076831, 256: 0.080337, 4096: 0.092547},
    "FP4": {32: 0.088925, 64: 0.096543, 128: 0.102969, 256: 0.108684, 4096: 0.129536},
}


@cache
def mean_errors(name: str) -> list[float]:
    """The mean error of a codebook on N(0, 1) at each of BLOCK_SIZES."""
    return [mean_absolute_error(gaussian(SEED), size, CODEBOOKS[name]) for size in BLOCK_SIZES]


def draw(_: Results, palette: Palette) -> Drawing:
    errors = {name: mean_errors(name) for name in CODEBOOKS}
    figure = new_figure(9.5, 4.4)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    inputs = np.linspace(-1.0, 1.0, 2001)
    sawtooth = {name: np.abs(book[nearest(inputs, book)] - inputs) for name, book in CODEBOOKS.items()}
    _draw_sawtooth(left, inputs, sawtooth)
    _draw_block_sizes(right, errors, palette)
    less = 100.0 * (1.0 - errors["NF4"][1] / errors["FP4"][1])
    growth = 100.0 * (errors["NF4"][-1] / errors["NF4"][0] - 1.0)
    title = f"NF4 has {less:.0f} % less error than FP4 on normal weights, and small blocks have less"
    reading = (
        f"On normally distributed weights in blocks of 64, NF4's mean error is {errors['NF4'][1]:.4f} standard "
        f"deviations and FP4's {errors['FP4'][1]:.4f}; from blocks of 32 to 4096 NF4's grows by {growth:.0f} %, "
        f"because the absmax that scales every step grows with the block."
    )
    return Drawing(
        figure,
        title,
        reading,
        ("quantity", "quant_type", "at", "error"),
        [
            ("absolute error / absmax at x / absmax", name, f"{x:.3f}", e)
            for name in sawtooth
            for x, e in zip(inputs, sawtooth[name])
        ]
        + [
            ("mean absolute error on N(0,1) at blocksize", name, size, e)
            for name in errors
            for size, e in zip(BLOCK_SIZES, errors[name])
        ],
        [],
        PROVENANCE,
    )


def _draw_sawtooth(axes, inputs: np.ndarray, sawtooth: dict) -> None:
    for name, error in sawtooth.items():
        axes.plot(
            inputs, error, color=QUANT_TYPES[name], linewidth=1.3, linestyle="-" if name == "NF4" else "--", label=name
        )
    axes.set_xlim(-1, 1)
    axes.set_ylim(0, 1.25 * max(error.max() for error in sawtooth.values()))
    axes.set_xlabel("normalised input x / absmax (no unit)")
    axes.set_ylabel("absolute error / absmax (no unit)")
    axes.set_title("error of one value")
    axes.legend(loc="upper center", ncols=2)


def _draw_block_sizes(axes, errors: dict, palette: Palette) -> None:
    for name, line in errors.items():
        axes.plot(BLOCK_SIZES, line, "-" if name == "NF4" else "--", color=QUANT_TYPES[name], marker=".")
        axes.annotate(
            name,
            (BLOCK_SIZES[2], line[2]),
            (0, 10),
            textcoords="offset points",
            color=QUANT_TYPES[name],
            fontweight="bold",
        )
        known = BITSANDBYTES[name]
        axes.plot(
            list(known),
            list(known.values()),
            "o",
            color="none",
            markersize=9,
            markeredgecolor=palette.colour("bitsandbytes"),
        )
    axes.annotate(
        "○ expected by bitsandbytes' tests",
        (0.98, 0.03),
        xycoords="axes fraction",
        ha="right",
        color=GREY,
        fontsize=8.5,
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(BLOCK_SIZES, [str(size) for size in BLOCK_SIZES], fontsize=7.5)
    axes.set_ylim(0, 1.15 * max(max(line) for line in errors.values()))
    axes.set_xlabel("block size (elements)")
    axes.set_ylabel("mean absolute error (standard deviations)")
    axes.set_title("mean error on N(0, 1)")


FIGURE = FigureKind(
    "quantization_error",
    "Quantization error",
    "What does rounding a weight to 4 bits cost?",
    "nothing: computed from the codebooks",
    lambda results: [results],
    draw,
)
